#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Compare netpol with nftables: the same rules, the same packets, both directions.

Two veth pairs in a network namespace of our own. On one device netpol is attached
to tcx ingress and egress, with each policy of the table loaded in turn and --stateless;
on the other nftables has all policies at once, on the netdev ingress and egress
hooks, and the packets' mark picks one. The translation in the table is written by
hand. Compared are the verdict for each packet and the counter of each rule.

usage: netpol-oracle.py NETPOL [POLICY...]
"""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
import wire                                                     # noqa: E402

# Every policy sees these.
COMMON = '''
tcp 10.1.2.3:40000 > 10.9.0.1:22
tcp 10.1.2.3:40000 > 10.9.0.1:443 flags=PA
tcp 192.0.2.7:1024 > 198.51.100.1:80
udp 10.1.2.3:5353 > 10.9.0.1:53
udp 192.0.2.255:53 > 10.9.0.1:33000
icmp 10.1.2.3 > 10.9.0.1
icmp 192.0.2.7 > 10.1.2.3 type=3/1 quote='udp 10.1.2.3:1 > 192.0.2.7:2'
47 10.1.2.3 > 10.9.0.1
tcp [2001:db8::1:2]:40000 > [2001:db8:9::1]:22
udp [2001:db8::1:2]:5353 > [2001:db8:9::1]:53
tcp [2001:db8:8000::1]:99 > [2001:db8::1]:443
icmp6 2001:db8::1:2 > 2001:db8:9::1
icmp6 2001:db8::1:2 > 2001:db8:9::1 type=1/4 quote='udp [2001:db8:9::1]:1 > [2001:db8::1:2]:2'
89 2001:db8::1:2 > 2001:db8:9::1
'''

# Name: default; rules as netpol has them | as nftables has them; further packets.
# Lines 'set ...' are netpol's alone.
TABLE = '''
[allow-all] allow
[deny-all] deny
[deny-v4] allow
deny from 0.0.0.0/0 | meta protocol ip
[deny-v6] allow
deny to ::/0 | meta protocol ip6
[one-port] deny
allow tcp to port 22 | tcp dport 22
- tcp 10.1.2.3:22 > 10.9.0.1:23
- udp 10.1.2.3:22 > 10.9.0.1:22
- tcp 10.1.2.3:1 > 10.9.0.1:22 opt=4
- tcp 10.1.2.3:1 > 10.9.0.1:22 opt=40
[port-range] deny
allow tcp to port 8000-8100 | tcp dport 8000-8100
- tcp 10.1.2.3:1 > 10.9.0.1:7999
- tcp 10.1.2.3:1 > 10.9.0.1:8000
- tcp 10.1.2.3:1 > 10.9.0.1:8050
- tcp 10.1.2.3:1 > 10.9.0.1:8100
- tcp 10.1.2.3:1 > 10.9.0.1:8101
- tcp [2001:db8::1]:1 > [2001:db8::2]:8100
- tcp [2001:db8::1]:1 > [2001:db8::2]:8101
[port-list] deny
allow udp to port 53, 67-68, 123, 65535 | udp dport { 53, 67-68, 123, 65535 }
- udp 10.1.2.3:1 > 10.9.0.1:66
- udp 10.1.2.3:1 > 10.9.0.1:67
- udp 10.1.2.3:1 > 10.9.0.1:68
- udp 10.1.2.3:1 > 10.9.0.1:69
- udp 10.1.2.3:1 > 10.9.0.1:65535
- udp 10.1.2.3:1 > 10.9.0.1:65534
- udp 10.1.2.3:1 > 10.9.0.1:0
[two-protocols] deny
allow tcp, udp to port 53 | meta l4proto { tcp, udp } th dport 53
- tcp 10.1.2.3:1 > 10.9.0.1:53
- sctp 10.1.2.3:1 > 10.9.0.1:53
- dccp 10.1.2.3:1 > 10.9.0.1:53
[source-port] deny
allow udp from port 53 | udp sport 53
allow tcp from port 1000-2000 to port 443 | tcp sport 1000-2000 tcp dport 443
allow tcp to port 443, 22 | tcp dport { 22, 443 }
- tcp 10.1.2.3:999 > 10.9.0.1:443
- tcp 10.1.2.3:1000 > 10.9.0.1:443
- tcp 10.1.2.3:2000 > 10.9.0.1:443
- tcp 10.1.2.3:2001 > 10.9.0.1:443
- tcp 10.1.2.3:1500 > 10.9.0.1:444
- udp [2001:db8::1]:53 > [2001:db8::2]:1
- udp [2001:db8::1]:54 > [2001:db8::2]:53
[source-port-first] deny
deny tcp from port 1-1023 | tcp sport 1-1023
allow tcp from port 1000-3000 to port 80-90 | tcp sport 1000-3000 tcp dport 80-90
deny tcp from port 2000 to port 85 | tcp sport 2000 tcp dport 85
allow tcp to port 85 | tcp dport 85
- tcp 10.1.2.3:1 > 10.9.0.1:85
- tcp 10.1.2.3:1010 > 10.9.0.1:85
- tcp 10.1.2.3:1024 > 10.9.0.1:85
- tcp 10.1.2.3:2000 > 10.9.0.1:85
- tcp 10.1.2.3:3001 > 10.9.0.1:85
- tcp 10.1.2.3:3001 > 10.9.0.1:86
- tcp 10.1.2.3:3000 > 10.9.0.1:90
- tcp 10.1.2.3:3000 > 10.9.0.1:91
[prefix-16] deny
allow from 10.1.0.0/16 | ip saddr 10.1.0.0/16
- udp 10.0.255.255:1 > 10.9.0.1:2
- udp 10.1.0.0:1 > 10.9.0.1:2
- udp 10.1.255.255:1 > 10.9.0.1:2
- udp 10.2.0.0:1 > 10.9.0.1:2
- udp 10.9.0.1:1 > 10.1.0.1:2
[prefix-odd] deny
allow to 10.9.0.128/25 | ip daddr 10.9.0.128/25
allow to 10.9.0.4/31 | ip daddr 10.9.0.4/31
allow to 10.9.0.7 | ip daddr 10.9.0.7
- udp 10.1.2.3:1 > 10.9.0.127:2
- udp 10.1.2.3:1 > 10.9.0.128:2
- udp 10.1.2.3:1 > 10.9.0.255:2
- udp 10.1.2.3:1 > 10.9.1.0:2
- udp 10.1.2.3:1 > 10.9.0.3:2
- udp 10.1.2.3:1 > 10.9.0.4:2
- udp 10.1.2.3:1 > 10.9.0.5:2
- udp 10.1.2.3:1 > 10.9.0.6:2
- udp 10.1.2.3:1 > 10.9.0.7:2
[prefix-extreme] deny
allow tcp, udp from 0.0.0.0/1 to port 1-100 | ip saddr 0.0.0.0/1 meta l4proto { tcp, udp } th dport 1-100
allow to 255.255.255.255 | ip daddr 255.255.255.255
allow from 128.0.0.0/1 | ip saddr 128.0.0.0/1
[nested] deny
allow from 10.1.2.0/24 | ip saddr 10.1.2.0/24
deny from 10.1.0.0/16 | ip saddr 10.1.0.0/16
allow from 10.0.0.0/8 | ip saddr 10.0.0.0/8
- tcp 10.1.3.3:1 > 10.9.0.1:22
- tcp 10.1.2.255:1 > 10.9.0.1:22
- tcp 10.2.0.1:1 > 10.9.0.1:22
- tcp 11.0.0.1:1 > 10.9.0.1:22
[nested-reversed] deny
allow tcp, udp from 10.0.0.0/8 to port 22 | ip saddr 10.0.0.0/8 meta l4proto { tcp, udp } th dport 22
deny from 10.1.0.0/16 | ip saddr 10.1.0.0/16
allow from 10.1.2.0/24 | ip saddr 10.1.2.0/24
allow from 0.0.0.0/0 to 10.9.0.0/16 | ip saddr 0.0.0.0/0 ip daddr 10.9.0.0/16
- tcp 10.1.3.3:1 > 10.9.0.1:22
- tcp 10.1.2.255:1 > 10.9.0.1:23
- tcp 10.2.0.1:1 > 10.9.0.1:23
- tcp 10.2.0.1:1 > 10.8.0.1:23
- tcp 11.0.0.1:1 > 10.9.0.1:22
[nested-deep] allow
deny tcp from 10.0.0.0/8 to port 1000-2000 | ip saddr 10.0.0.0/8 tcp dport 1000-2000
allow tcp from 10.1.0.0/16 to port 1500 | ip saddr 10.1.0.0/16 tcp dport 1500
deny from 10.1.2.0/24 | ip saddr 10.1.2.0/24
allow from 10.1.2.128/25 | ip saddr 10.1.2.128/25
deny udp from 10.1.2.192/26 | ip saddr 10.1.2.192/26 meta l4proto udp
deny from 10.1.2.255 | ip saddr 10.1.2.255
- tcp 10.1.2.255:1 > 10.9.0.1:1500
- tcp 10.1.2.255:1 > 10.9.0.1:999
- tcp 10.1.3.1:1 > 10.9.0.1:999
- tcp 10.1.3.1:1 > 10.9.0.1:1500
- udp 10.1.2.200:1 > 10.9.0.1:1500
- udp 10.1.2.127:1 > 10.9.0.1:1500
- udp 10.2.2.127:1 > 10.9.0.1:1500
[v6-prefixes] deny
allow udp from 2001:db8::/64 to port 22 | ip6 saddr 2001:db8::/64 udp dport 22
deny from 2001:db8::/32 to 2001:db8:9::/48 | ip6 saddr 2001:db8::/32 ip6 daddr 2001:db8:9::/48
allow from 2001:db8::/33 | ip6 saddr 2001:db8::/33
allow to 2001:db8::1 | ip6 daddr 2001:db8::1
- udp [2001:db8:0:1::1]:1 > [2001:db8:9::1]:22
- udp [2001:db8:0:1::1]:1 > [2001:db8:a::1]:22
- udp [2001:db8:7fff:ffff:ffff:ffff:ffff:ffff]:1 > [2001:db8:a::1]:22
- udp [2001:db8:8000::]:1 > [2001:db8:a::1]:22
- udp [2001:db8:8000::]:1 > [2001:db8::1]:22
- udp [2001:db9::]:1 > [2001:db8::1]:22
- udp [2001:db9::]:1 > [2001:db8::2]:22
[v6-odd] deny
allow from 2001:db8::100/121 | ip6 saddr 2001:db8::100/121
allow from 2001:db8:0:0:8000::/65 | ip6 saddr 2001:db8:0:0:8000::/65
allow from ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127 | ip6 saddr ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127
- udp [2001:db8::ff]:1 > [2001:db8::1]:2
- udp [2001:db8::100]:1 > [2001:db8::1]:2
- udp [2001:db8::17f]:1 > [2001:db8::1]:2
- udp [2001:db8::180]:1 > [2001:db8::1]:2
- udp [2001:db8:0:0:7fff:ffff:ffff:ffff]:1 > [2001:db8::1]:2
- udp [2001:db8:0:0:8000::]:1 > [2001:db8::1]:2
- udp [2001:db8:0:0:ffff:ffff:ffff:ffff]:1 > [2001:db8::1]:2
- udp [2001:db8:0:1::]:1 > [2001:db8::1]:2
- udp [ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:1 > [2001:db8::1]:2
- udp [ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffd]:1 > [2001:db8::1]:2
[range] deny
allow from 10.1.2.3-10.1.4.200 | ip saddr 10.1.2.3-10.1.4.200
allow from 2001:db8::5-2001:db8::1:2 | ip6 saddr 2001:db8::5-2001:db8::1:2
- udp 10.1.2.2:1 > 10.9.0.1:2
- udp 10.1.3.0:1 > 10.9.0.1:2
- udp 10.1.4.200:1 > 10.9.0.1:2
- udp 10.1.4.201:1 > 10.9.0.1:2
- udp [2001:db8::4]:1 > [2001:db8::1]:2
- udp [2001:db8::5]:1 > [2001:db8::1]:2
- udp [2001:db8::1:3]:1 > [2001:db8::1]:2
[range-everything] deny
allow udp from 0.0.0.1-255.255.255.254 to port 80 | ip saddr 0.0.0.1-255.255.255.254 udp dport 80
- udp 0.0.0.0:1 > 10.9.0.1:80
- udp 0.0.0.1:1 > 10.9.0.1:80
- udp 255.255.255.255:1 > 10.9.0.1:80
[set] deny
set admins = { 10.1.0.0/16, 192.0.2.7, 2001:db8::/112 }
allow tcp from @admins to port 22, 80 | ip saddr { 10.1.0.0/16, 192.0.2.7 } tcp dport { 22, 80 }
#allow | ip6 saddr 2001:db8::/112 tcp dport { 22, 80 }
- tcp 10.2.2.3:40000 > 10.9.0.1:22
- tcp [2001:db8::ffff]:40000 > [2001:db8:9::1]:22
- tcp [2001:db8::1:0]:40000 > [2001:db8:9::1]:22
[set-nested] allow
set inner = { 10.1.2.0/24, 10.1.2.3, 10.1.2.128-10.1.3.4 }
set outer = { @inner, 192.0.2.0/25, 192.0.2.128/25 }
deny from @outer to @outer | ip saddr { 10.1.2.0-10.1.3.4, 192.0.2.0/24 } ip daddr { 10.1.2.0-10.1.3.4, 192.0.2.0/24 }
deny to @inner | ip daddr 10.1.2.0-10.1.3.4
deny udp from { 192.0.2.0/24, 10.1.3.4 } | ip saddr { 192.0.2.0/24, 10.1.3.4 } meta l4proto udp
- udp 10.1.3.4:1 > 192.0.2.1:2
- udp 10.1.3.5:1 > 192.0.2.1:2
- udp 10.1.3.4:1 > 192.0.3.1:2
- udp 9.9.9.9:1 > 10.1.3.4:2
- udp 9.9.9.9:1 > 10.1.3.5:2
[set-big] deny
set many = { 10.0.0.1, 10.0.0.3, 10.0.0.5, 10.0.0.7, 10.0.0.9, 10.0.0.11, 10.0.0.13, 10.0.0.15, 10.0.0.17, 10.0.0.19, 10.0.0.21, 10.0.0.23, 10.0.0.25, 10.0.0.27, 10.0.0.29, 10.0.0.31, 10.0.0.33, 10.1.2.3 }
allow tcp from @many | ip saddr { 10.0.0.1, 10.0.0.3, 10.0.0.5, 10.0.0.7, 10.0.0.9, 10.0.0.11, 10.0.0.13, 10.0.0.15, 10.0.0.17, 10.0.0.19, 10.0.0.21, 10.0.0.23, 10.0.0.25, 10.0.0.27, 10.0.0.29, 10.0.0.31, 10.0.0.33, 10.1.2.3 } meta l4proto tcp
- tcp 10.0.0.0:1 > 10.9.0.1:2
- tcp 10.0.0.1:1 > 10.9.0.1:2
- tcp 10.0.0.2:1 > 10.9.0.1:2
- tcp 10.0.0.16:1 > 10.9.0.1:2
- tcp 10.0.0.17:1 > 10.9.0.1:2
- tcp 10.0.0.33:1 > 10.9.0.1:2
- tcp 10.0.0.34:1 > 10.9.0.1:2
[both-sides] deny
allow tcp from 10.1.0.0/16 to 10.9.0.0/24 port 22 | ip saddr 10.1.0.0/16 ip daddr 10.9.0.0/24 tcp dport 22
allow udp from 10.1.0.0/16 port 5353 to 10.9.0.1 port 53 | ip saddr 10.1.0.0/16 ip daddr 10.9.0.1 udp sport 5353 udp dport 53
deny from 10.1.2.3 to 10.9.0.1 | ip saddr 10.1.2.3 ip daddr 10.9.0.1
allow from 10.0.0.0/8 to 10.0.0.0/8 | ip saddr 10.0.0.0/8 ip daddr 10.0.0.0/8
allow tcp from 2001:db8::/32 to 2001:db8:9::/48 port 22 | ip6 saddr 2001:db8::/32 ip6 daddr 2001:db8:9::/48 tcp dport 22
- tcp 10.1.2.4:1 > 10.9.0.1:22
- tcp 10.1.2.4:1 > 10.9.1.1:22
- tcp 10.1.2.3:1 > 10.9.0.2:23
- udp 10.1.2.3:5354 > 10.9.0.1:53
- tcp 11.1.2.3:1 > 10.9.0.1:22
[major-destination] deny
allow tcp to 10.9.0.1 port 22 | ip daddr 10.9.0.1 tcp dport 22
allow tcp to 10.9.0.2 port 22 | ip daddr 10.9.0.2 tcp dport 22
allow tcp to 10.9.0.3 port 22 | ip daddr 10.9.0.3 tcp dport 22
deny from 10.1.2.0/24 to 10.9.0.0/16 | ip saddr 10.1.2.0/24 ip daddr 10.9.0.0/16
allow to 10.9.0.0/16 | ip daddr 10.9.0.0/16
- tcp 10.1.2.3:1 > 10.9.0.3:22
- tcp 10.1.2.3:1 > 10.9.0.4:22
- tcp 10.1.3.3:1 > 10.9.0.4:22
- tcp 10.1.3.3:1 > 10.8.0.4:22
[protocols] deny
allow gre | meta l4proto gre
allow 89 | meta l4proto 89
allow esp, sctp from 10.0.0.0/8 | ip saddr 10.0.0.0/8 meta l4proto { esp, sctp }
allow udplite to port 7 | meta l4proto udplite th dport 7
allow dccp to port 7 | meta l4proto dccp th dport 7
allow 253, 0, 255 | meta l4proto { 0, 253, 255 }
- esp 10.1.2.3 > 10.9.0.1
- esp 11.1.2.3 > 10.9.0.1
- sctp 10.1.2.3:5 > 10.9.0.1:6
- udplite 10.1.2.3:5 > 10.9.0.1:7
- udplite 10.1.2.3:7 > 10.9.0.1:5
- dccp [2001:db8::1]:5 > [2001:db8::2]:7
- 253 10.1.2.3 > 10.9.0.1
- 255 10.1.2.3 > 10.9.0.1
- 0 10.1.2.3 > 10.9.0.1
- 254 10.1.2.3 > 10.9.0.1
- 253 2001:db8::1 > 2001:db8::2
- igmp 10.1.2.3 > 224.0.0.1
[sctp-ports] deny
allow sctp to port 36412, 2905 | sctp dport { 36412, 2905 }
allow sctp from port 9 | sctp sport 9
- sctp 10.1.2.3:5 > 10.9.0.1:36412
- sctp 10.1.2.3:36412 > 10.9.0.1:5
- sctp [2001:db8::1]:9 > [2001:db8::2]:7
[icmp-types] deny
allow icmp type echo-request | icmp type echo-request
allow icmp type destination-unreachable/4 | icmp type destination-unreachable icmp code 4
allow icmp type 11, 12/0 | icmp type 11
#allow | icmp type 12 icmp code 0
- icmp 10.1.2.3 > 10.9.0.1 type=0
- icmp 10.1.2.3 > 10.9.0.1 type=8/1
- icmp 10.1.2.3 > 10.9.0.1 type=3/4 quote='udp 10.9.0.1:1 > 10.1.2.3:2'
- icmp 10.1.2.3 > 10.9.0.1 type=3/3 quote='udp 10.9.0.1:1 > 10.1.2.3:2'
- icmp 10.1.2.3 > 10.9.0.1 type=11/1 quote='udp 10.9.0.1:1 > 10.1.2.3:2'
- icmp 10.1.2.3 > 10.9.0.1 type=12/0 quote='udp 10.9.0.1:1 > 10.1.2.3:2'
- icmp 10.1.2.3 > 10.9.0.1 type=12/1 quote='udp 10.9.0.1:1 > 10.1.2.3:2'
- icmp6 2001:db8::1 > 2001:db8::2 type=8
[icmp-other-family] deny
allow icmp type echo-reply | icmp type echo-reply
allow icmp6 type 0 | icmpv6 type 0
- icmp 10.1.2.3 > 10.9.0.1 type=0
- 1 2001:db8::1 > 2001:db8::2 type=0
- 1 2001:db8::1 > 2001:db8::2 type=8
- 58 10.1.2.3 > 10.9.0.1 type=128
- 58 10.1.2.3 > 10.9.0.1 type=0
[icmp6-types] deny
allow icmp6 type echo-request, echo-reply | icmpv6 type { echo-request, echo-reply }
allow icmp6 type packet-too-big from 2001:db8::/32 | icmpv6 type packet-too-big ip6 saddr 2001:db8::/32
allow icmp6 type 1/4 | icmpv6 type 1 icmpv6 code 4
- icmp6 2001:db8::1 > 2001:db8::2 type=129
- icmp6 2001:db8::1 > 2001:db8::2 type=2 quote='udp [2001:db8::2]:1 > [2001:db8::1]:2'
- icmp6 2001:db9::1 > 2001:db8::2 type=2 quote='udp [2001:db8::2]:1 > [2001:db8::1]:2'
- icmp6 2001:db8::1 > 2001:db8::2 type=1/3 quote='udp [2001:db8::2]:1 > [2001:db8::1]:2'
- icmp6 2001:db8::1 > 2001:db8::2 type=130
[icmp-all] allow
deny icmp from 10.1.0.0/16 | ip saddr 10.1.0.0/16 meta l4proto icmp
deny icmp6 to 2001:db8:9::1 | ip6 daddr 2001:db8:9::1 meta l4proto ipv6-icmp
[extensions] deny
allow tcp to port 22 | tcp dport 22
allow udp from port 5353 | udp sport 5353
deny udp | meta l4proto udp
- tcp [2001:db8::1]:1 > [2001:db8::2]:22 ext=hbh
- tcp [2001:db8::1]:1 > [2001:db8::2]:23 ext=hbh
- tcp [2001:db8::1]:1 > [2001:db8::2]:22 ext=hbh,dst,rt,dst
- tcp [2001:db8::1]:1 > [2001:db8::2]:22 ext=hbh,dst,rt,frag,dst,dst
- udp [2001:db8::1]:5353 > [2001:db8::2]:1 ext=hbh,dst,rt,frag,dst,dst
- udp [2001:db8::1]:5354 > [2001:db8::2]:1 ext=dst,dst,dst,dst,dst,dst
- udp [2001:db8::1]:5353 > [2001:db8::2]:1 ext=rt
- tcp [2001:db8::1]:1 > [2001:db8::2]:22 ext=none
! allow tcp [2001:db8::1]:1 > [2001:db8::2]:22 ext=hbh,dst,rt,frag,ah,dst
! deny tcp [2001:db8::1]:1 > [2001:db8::2]:23 ext=ah
! deny tcp [2001:db8::1]:1 > [2001:db8::2]:22 ext=hbh,dst,dst,dst,dst,dst,dst
[no-next-header] deny
allow 59 | meta l4proto 59
allow 50 | meta l4proto 50
- tcp [2001:db8::1]:1 > [2001:db8::2]:22 ext=none
- tcp [2001:db8::1]:1 > [2001:db8::2]:22 ext=hbh,none
- esp 2001:db8::1 > 2001:db8::2 ext=dst
[fragments] deny
allow udp from 10.1.0.0/16 | ip saddr 10.1.0.0/16 meta l4proto udp
allow tcp to port 22 | tcp dport 22
allow from 2001:db8::/64 | ip6 saddr 2001:db8::/64
- udp 10.1.2.3:1 > 10.9.0.1:53 frag=0+ id=100 len=24
- udp 10.1.2.3:1 > 10.9.0.1:53 frag=4+ id=100 len=16
- udp 10.1.2.3:1 > 10.9.0.1:53 frag=6 id=100
- udp 10.2.2.3:1 > 10.9.0.1:53 frag=0+ id=100 len=24
- udp 10.2.2.3:1 > 10.9.0.1:53 frag=4 id=100 len=16
- tcp 10.1.2.3:1 > 10.9.0.1:22 frag=0+ id=101 len=20
- tcp 10.1.2.3:1 > 10.9.0.1:23 frag=0+ id=102 len=20
- tcp 10.1.2.3:1 > 10.9.0.1:23 frag=5 id=102 len=20
- udp [2001:db8::1]:1 > [2001:db8::2]:2 frag=0+ id=7 len=24
- udp [2001:db8::1]:1 > [2001:db8::2]:2 frag=4 id=7
- udp [2001:db8:1::1]:1 > [2001:db8::2]:2 frag=0+ id=7 len=24
- udp [2001:db8:1::1]:1 > [2001:db8::2]:2 frag=4 id=7
- udp [2001:db8::1]:1 > [2001:db8::2]:2 ext=hbh,frag,dst frag=0+ id=8 len=24
- udp [2001:db8::1]:1 > [2001:db8::2]:2 frag=0 id=9
! allow tcp 10.1.2.3:1 > 10.9.0.1:22 frag=5+ id=101 len=8
! deny udp 10.1.2.3:1 > 10.9.0.1:22 frag=5+ id=199 len=8
! deny tcp 10.1.2.3:1 > 10.9.0.1:22 frag=1 id=101 len=8
[malformed] allow
! deny tcp 10.1.2.3:1 > 10.9.0.1:22 tot=60
! deny tcp 10.1.2.3:1 > 10.9.0.1:22 tot=16
! deny tcp 10.1.2.3:1 > 10.9.0.1:22 ihl=4
! deny tcp 10.1.2.3:1 > 10.9.0.1:22 ihl=15
! deny tcp 10.1.2.3:1 > 10.9.0.1:22 ver=6
! deny tcp 10.1.2.3:1 > 10.9.0.1:22 ver=5
! deny tcp 10.1.2.3:1 > 10.9.0.1:22 tot=30
! deny tcp 10.1.2.3:1 > 10.9.0.1:22 doff=4
! deny tcp 10.1.2.3:1 > 10.9.0.1:22 doff=15
! deny tcp 10.1.2.3:1 > 10.9.0.1:22 cut=1
! deny udp 10.1.2.3:1 > 10.9.0.1:22 tot=24
! deny icmp 10.1.2.3 > 10.9.0.1 tot=24
! deny tcp 10.1.2.3:1 > 10.9.0.1:22 frag=0+ tot=28
! deny tcp [2001:db8::1]:1 > [2001:db8::2]:22 tot=100
! deny tcp [2001:db8::1]:1 > [2001:db8::2]:22 tot=10
! deny tcp [2001:db8::1]:1 > [2001:db8::2]:22 ver=4
! deny tcp [2001:db8::1]:1 > [2001:db8::2]:22 ext=hbh tot=4
! deny tcp [2001:db8::1]:1 > [2001:db8::2]:22 ext=frag,frag frag=0+
! deny icmp6 2001:db8::1 > 2001:db8::2 tot=4
! allow tcp 10.1.2.3:1 > 10.9.0.1:22 tot=40
[vlan] deny
allow tcp to port 22 | tcp dport 22
! allow tcp 10.1.2.3:1 > 10.9.0.1:22 vlan=5
! deny tcp 10.1.2.3:1 > 10.9.0.1:23 vlan=5
! allow tcp 10.1.2.3:1 > 10.9.0.1:22 vlan=5,6
! deny tcp [2001:db8::1]:1 > [2001:db8::2]:23 vlan=5,6
! deny tcp 10.1.2.3:1 > 10.9.0.1:22 vlan=5,6,7,8
[neighbours] deny
! allow arp
! deny type=0x88b5
! allow icmp6 fe80::1 > ff02::1:ff00:2 type=135 ttl=255
! deny icmp6 fe80::1 > ff02::1:ff00:2 type=135 ttl=64
! deny icmp6 fe80::1 > ff02::1:ff00:2 type=135/1 ttl=255
! allow icmp6 fe80::1 > ff02::1 type=136 ttl=255
! deny icmp6 fe80::1 > ff02::1 type=143 ttl=1
[neighbours-ruled] deny
deny icmp6 type 135 | icmpv6 type 135
allow icmp6 type 136 | icmpv6 type 136
- icmp6 fe80::1 > ff02::1:ff00:2 type=135 ttl=255
- icmp6 fe80::1 > ff02::1:ff00:2 type=136 ttl=255
- icmp6 fe80::1 > ff02::1:ff00:2 type=136 ttl=64
[other-ethertypes] allow
deny tcp | meta l4proto tcp
! allow type=0x88b5
! allow arp
[next] deny
next tcp to port 22 | tcp dport 22
allow tcp to port 443 | tcp dport 443
next icmp | meta l4proto icmp
[default-next] next
deny tcp to port 22 | tcp dport 22
deny to 10.1.2.3 | ip daddr 10.1.2.3
[direction] deny
allow in tcp to port 22 | iifname "vc" tcp dport 22
allow out tcp to port 443 | oifname "vc" tcp dport 443
deny in from 10.1.0.0/16 | iifname "vc" ip saddr 10.1.0.0/16
allow udp | meta l4proto udp
allow out | oifname "vc"
[direction-sports] deny
allow in udp from port 5353 | iifname "vc" udp sport 5353
allow out udp from 10.1.0.0/16 port 5000-6000 to port 53 | oifname "vc" ip saddr 10.1.0.0/16 udp sport 5000-6000 udp dport 53
allow udp from port 53 | udp sport 53
[first-match] deny
allow tcp to port 22 | tcp dport 22
deny tcp to port 22 | tcp dport 22
allow tcp from 10.0.0.0/8 | ip saddr 10.0.0.0/8 meta l4proto tcp
deny tcp from 10.1.2.3 | ip saddr 10.1.2.3 meta l4proto tcp
[first-match-reversed] deny
deny tcp from 10.1.2.3 | ip saddr 10.1.2.3 meta l4proto tcp
allow tcp from 10.0.0.0/8 | ip saddr 10.0.0.0/8 meta l4proto tcp
deny tcp to port 22 | tcp dport 22
allow tcp to port 22 | tcp dport 22
[overlapping-ports] deny
deny tcp to port 100-200 | tcp dport 100-200
allow tcp to port 150-300 | tcp dport 150-300
deny tcp to port 0-65535 | tcp dport 0-65535
allow | meta l4proto 0-255
- tcp 10.1.2.3:1 > 10.9.0.1:99
- tcp 10.1.2.3:1 > 10.9.0.1:100
- tcp 10.1.2.3:1 > 10.9.0.1:150
- tcp 10.1.2.3:1 > 10.9.0.1:200
- tcp 10.1.2.3:1 > 10.9.0.1:201
- tcp 10.1.2.3:1 > 10.9.0.1:300
- tcp 10.1.2.3:1 > 10.9.0.1:301
- tcp 10.1.2.3:1 > 10.9.0.1:65535
[example] deny
set admins = { 10.1.0.0/16, 2001:db8::/32 }
allow tcp from { 10.1.0.0/16, 2001:db8::/32 } to port 22, 8000-8100 | ip saddr 10.1.0.0/16 tcp dport { 22, 8000-8100 }
#allow | ip6 saddr 2001:db8::/32 tcp dport { 22, 8000-8100 }
allow udp to port 53 log | udp dport 53
deny from 192.0.2.0/24 | ip saddr 192.0.2.0/24
allow icmp type echo-request | icmp type echo-request
- tcp 10.1.2.3:1 > 10.9.0.1:8100
'''

NFT_VERDICT = {'allow': 'accept', 'next': 'accept', 'deny': 'drop'}


class Policy:
    def __init__(self, name, default):
        self.name, self.default = name, default
        self.text = ['default ' + default]
        self.rules = []         # netpol's
        self.nft = []           # (index of netpol's rule, match, verdict)
        self.packets = [p for p in COMMON.split('\n') if p]
        self.stated = []        # (verdict, packet): where netpol differs on purpose


def parse_table():
    policies = []
    for line in TABLE.strip().split('\n'):
        if line.startswith('['):
            name, default = line[1:].split('] ')
            policies.append(Policy(name, default))
            continue
        p = policies[-1]
        if line.startswith('- '):
            p.packets.append(line[2:])
        elif line.startswith('! '):
            p.stated.append(line[2:].split(' ', 1))
        elif line.startswith('set '):
            p.text.append(line)
        else:
            rule, _, match = line.partition(' | ')
            if rule.startswith('#'):    # nftables needs a second rule for it
                rule = rule[1:]
            else:
                p.rules.append(rule)
                p.text.append(rule)
            p.nft.append((len(p.rules) - 1, match, NFT_VERDICT[rule.split()[0]]))
    return policies


def run(*argv, **kwargs):
    r = subprocess.run(argv, capture_output=True, text=True, **kwargs)
    if r.returncode:
        sys.exit('%s: exit %d\n%s%s%s' % (' '.join(argv), r.returncode, kwargs.get('input', ''),
                                          r.stdout, r.stderr))
    return r.stdout


def nft_ruleset(policies):
    out = ['table netdev oracle {']
    for p in policies:
        out.append('chain p-%s {' % p.name)
        out += ['%s counter %s' % (match, verdict) for _, match, verdict in p.nft]
        out += ['counter %s' % NFT_VERDICT[p.default], '}']
    for hook in 'ingress', 'egress':
        # the sentinel, which is ARP, passes everywhere
        out.append('chain %s { type filter hook %s device "vc" priority 0; policy accept;'
                   % (hook, hook))
        out.append('meta protocol arp accept')
        out += ['meta mark vmap { %s }' % ', '.join(
            '%d : goto p-%s' % (i + 1, p.name) for i, p in enumerate(policies)), '}']
    return '\n'.join(out + ['}'])


def nft_counters(policies):
    """By policy: packets for each of netpol's rules, then for the default."""
    counters = {'p-' + p.name: [] for p in policies}
    for obj in json.loads(run('nft', '-j', 'list', 'table', 'netdev', 'oracle'))['nftables']:
        rule = obj.get('rule')
        if rule and rule['chain'] in counters:
            for expr in rule['expr']:
                if 'counter' in expr:
                    counters[rule['chain']].append(expr['counter']['packets'])
    for p in policies:
        raw, summed = counters.pop('p-' + p.name), [0] * (len(p.rules) + 1)
        for (index, _, _), n in zip(p.nft, raw):
            summed[index] += n
        summed[-1] = raw[-1]
        counters[p.name] = summed
    return counters


def netpol_counters(netpol, seen):
    """Packets since the last call. Rules that an earlier policy lacked begin with 0."""
    stats = json.loads(run(netpol, 'stats', 'va', '-j'))
    now = {r['text']: r['packets'] for r in stats['rules']}
    now['default'] = stats['default']['packets']
    fresh = [n - seen.get(text, 0) for text, n in now.items()]
    seen.clear()
    seen.update(now)
    return fresh


def main():
    netpol = sys.argv[1]
    policies = parse_table()
    if sys.argv[2:]:
        policies = [p for p in policies if p.name in sys.argv[2:]]
    wire.new_netns()
    run('ip', '-batch', '-', input='''
        link add va type veth peer name vb
        link add vc type veth peer name vd
        link set va up
        link set vb up
        link set vc up
        link set vd up''')
    nft = wire.Wire('vc', 'vd')
    run('nft', '-f', '-', input=nft_ruleset(policies))
    ours = wire.Wire('va', 'vb')
    bad = pairs = stated = 0
    counters, seen = {}, {}
    try:
        for hook in 'tcx-ingress', 'tcx-egress':
            run(netpol, 'attach', hook, 'va', '--default', 'deny', '--stateless')
        for mark, p in enumerate(policies, 1):
            run(netpol, 'load', 'va', '/dev/stdin', '--stateless', input='\n'.join(p.text) + '\n')
            nft.mark(mark)
            for text in p.packets:
                for direction in 'out', 'in':
                    want = nft.cross(text, direction == 'out')
                    got = ours.cross(text, direction == 'out')
                    pairs += 1
                    if want != got:
                        bad += 1
                        print('%s: %s %s: nft %s, netpol %s' % (p.name, direction, text, want, got))
            counters[p.name] = netpol_counters(netpol, seen)
            if p.default != 'deny':     # else the sentinel passes as ARP, uncounted
                counters[p.name][-1] -= 2 * len(p.packets)
        for p in policies:
            if not p.stated:
                continue
            run(netpol, 'load', 'va', '/dev/stdin', '--stateless', input='\n'.join(p.text) + '\n')
            for verdict, text in p.stated:
                for direction in 'out', 'in':
                    stated += 1
                    got = 'allow' if ours.cross(text, direction == 'out') else 'deny'
                    if got != verdict:
                        bad += 1
                        print('%s: %s %s: wanted %s, netpol %s'
                              % (p.name, direction, text, verdict, got))
    finally:
        for hook in 'tcx-ingress', 'tcx-egress':
            subprocess.run([netpol, 'detach', hook, 'va', '--ignore-missing'], check=False)
    for name, want in nft_counters(policies).items():
        if want != counters[name]:
            bad += 1
            print('%s: counters: nft %s, netpol %s' % (name, want, counters[name]))
    print('%d policies, %d pairs compared, %d stated, %d differences'
          % (len(policies), pairs, stated, bad))
    sys.exit(1 if bad else 0)


if __name__ == '__main__':
    main()
