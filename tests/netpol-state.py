#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""What netpol remembers: flows, fragments, generations. Sequences of raw packets.

One pair of devices in a network namespace of our own; netpol is attached to both
hooks of one end (of the primary device, for netkit). A case is a list of lines:
  | RULES           loads a policy, with the '|' lines that follow it
  |- OPTION...      options for that load
  >+ PACKET         out of the device, gets through    >- PACKET   does not
  <+ PACKET         into the device, gets through      <- PACKET   does not
  age SECONDS       what is remembered gets older, without waiting for it
In packets {l} and {r} are the local and the remote address, {l6} and {r6} those of
IPv6, different for each case. Packets are described in wire.py.

usage: netpol-state.py NETPOL veth|l2|l3 [CASE...]
"""
import ctypes
import glob
import os
import struct
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
import wire                                                     # noqa: E402

CASES = '''
[tcp opened from inside]
| default deny
| allow out tcp to port 80
>+ tcp {l}:1000 > {r}:80 flags=S
<+ tcp {r}:80 > {l}:1000 flags=SA
>+ tcp {l}:1000 > {r}:80 flags=A
<+ tcp {r}:80 > {l}:1000 flags=PA
>+ tcp {l}:1000 > {r}:80 flags=PA
>- tcp {l}:1000 > {r}:81 flags=S
[tcp opened from outside]
| default deny
| allow in tcp to port 22
<+ tcp {r}:1000 > {l}:22 flags=S
>+ tcp {l}:22 > {r}:1000 flags=SA
<+ tcp {r}:1000 > {l}:22 flags=A
>+ tcp {l}:22 > {r}:1000 flags=PA
>- tcp {l}:22 > {r}:1000 flags=S
>- tcp {l}:22 > {r}:1001 flags=A
[tcp over IPv6, extension headers on the way back]
| default deny
| allow out tcp to {r6} port 80
>+ tcp [{l6}]:1000 > [{r6}]:80 flags=S
<+ tcp [{r6}]:80 > [{l6}]:1000 flags=SA ext=hbh
<+ tcp [{r6}]:80 > [{l6}]:1000 flags=A ext=dst
<- tcp [{r6}]:80 > [{l6}]:1001 flags=A
[a reply that is none does not pass]
| default deny
| allow out tcp to port 80
<- tcp {r}:80 > {l}:1000 flags=SA
<- tcp {r}:80 > {l}:1000 flags=A
<- tcp {r}:80 > {l}:1000 flags=R
>+ tcp {l}:1000 > {r}:80 flags=S
<- tcp {r}:80 > {l}:1000 flags=S
<- tcp {r}:81 > {l}:1000 flags=SA
<- tcp {r}:80 > {l}:1001 flags=SA
<- tcp {l}:80 > {l}:1000 flags=SA
<- udp {r}:80 > {l}:1000
<- tcp {r}:80 > {l}:1000 flags=SA doff=4
<- tcp {r}:80 > {l}:1000 flags=SA cut=9
<+ tcp {r}:80 > {l}:1000 flags=SA
[what another CPU has seen a second later is not out of date]
| default deny
| allow out tcp to port 80
| allow out udp to port 53
>+ tcp {l}:1000 > {r}:80 flags=S
age -2
<+ tcp {r}:80 > {l}:1000 flags=SA
>+ udp {l}:1000 > {r}:53
age -2
<+ icmp {r} > {l} type=3/4 quote='udp {l}:1000 > {r}:53'
>+ udp {l}:1000 > {r}:53 frag=0+ id=1 len=16
age -2
>+ udp {l}:1000 > {r}:53 frag=3 id=1
[a connection that was never answered is soon forgotten]
| default deny
| allow out tcp to port 80
>+ tcp {l}:1000 > {r}:80 flags=S
age 100
<+ tcp {r}:80 > {l}:1000 flags=SA
>+ tcp {l}:1001 > {r}:80 flags=S
age 130
<- tcp {r}:80 > {l}:1001 flags=SA
[an idle connection lives for hours]
| default deny
| allow out tcp to port 80
>+ tcp {l}:1000 > {r}:80 flags=S
<+ tcp {r}:80 > {l}:1000 flags=SA
age 7300
<+ tcp {r}:80 > {l}:1000 flags=PA
age 8100
<- tcp {r}:80 > {l}:1000 flags=PA
[FIN from one side keeps the other direction open]
| default deny
| allow out tcp to port 80
>+ tcp {l}:1000 > {r}:80 flags=S
<+ tcp {r}:80 > {l}:1000 flags=SA
>+ tcp {l}:1000 > {r}:80 flags=FA
age 1000
<+ tcp {r}:80 > {l}:1000 flags=PA
<+ tcp {r}:80 > {l}:1000 flags=FA
<+ tcp {r}:80 > {l}:1000 flags=A
age 11
<- tcp {r}:80 > {l}:1000 flags=A
[RST ends a connection, unless it goes on]
| default deny
| allow out tcp to port 80
>+ tcp {l}:1000 > {r}:80 flags=S
<+ tcp {r}:80 > {l}:1000 flags=SA
<+ tcp {r}:80 > {l}:1000 flags=RA
>+ tcp {l}:1000 > {r}:80 flags=A
age 11
<+ tcp {r}:80 > {l}:1000 flags=A
<+ tcp {r}:80 > {l}:1000 flags=RA
age 11
<- tcp {r}:80 > {l}:1000 flags=A
[the next connection from the same port]
| default deny
| allow out tcp to port 80
>+ tcp {l}:1000 > {r}:80 flags=S
<+ tcp {r}:80 > {l}:1000 flags=RA
age 11
>+ tcp {l}:1000 > {r}:80 flags=S
<+ tcp {r}:80 > {l}:1000 flags=SA
[udp]
| default deny
| allow out udp to port 53
<- udp {r}:53 > {l}:1000
>+ udp {l}:1000 > {r}:53
<+ udp {r}:53 > {l}:1000
<- udp {r}:54 > {l}:1000
<- udp {r}:53 > {l}:1001
age 170
<+ udp {r}:53 > {l}:1000
age 190
<- udp {r}:53 > {l}:1000
>+ udp [{l6}]:1000 > [{r6}]:53
<+ udp [{r6}]:53 > [{l6}]:1000
<- udp [{r6}]:53 > [{l6}]:999
[other protocols]
| default deny
| allow out gre, sctp, 253
<- gre {r} > {l}
>+ gre {l} > {r}
<+ gre {r} > {l}
>+ sctp {l}:7 > {r}:8
<+ sctp {r}:8 > {l}:7
<- sctp {r}:8 > {l}:9
>+ 253 {l6} > {r6}
<+ 253 {r6} > {l6}
age 700
<- 253 {r6} > {l6}
[ping]
| default deny
| allow out icmp type echo-request
| allow out icmp6 type echo-request
<- icmp {r} > {l} type=0 sel=5
>+ icmp {l} > {r} type=8 sel=5
<+ icmp {r} > {l} type=0 sel=5
<- icmp {r} > {l} type=0 sel=6
<- icmp {r} > {l} type=8 sel=5
<- icmp {r} > {l} type=13 sel=5
age 31
<- icmp {r} > {l} type=0 sel=5
>+ icmp6 {l6} > {r6} type=128 sel=5
<+ icmp6 {r6} > {l6} type=129 sel=5
<- icmp6 {r6} > {l6} type=128 sel=5
<- icmp6 {r6} > {l6} type=129 sel=9
[ICMP errors about a live flow, path MTU among them]
| default deny
| allow out tcp, udp to port 80
<- icmp {r} > {l} type=3/4 quote='udp {l}:1000 > {r}:80'
>+ udp {l}:1000 > {r}:80
<+ icmp {r} > {l} type=3/4 quote='udp {l}:1000 > {r}:80'
<+ icmp 10.200.0.1 > {l} type=11 quote='udp {l}:1000 > {r}:80'
<- icmp {r} > {l} type=3/4 quote='udp {l}:1000 > {r}:81'
<- icmp {r} > {l} type=3/4 quote='udp {r}:80 > {l}:1000'
<- icmp {r} > {l} type=3/4 quote='tcp {l}:1000 > {r}:80'
<- icmp {r} > {l} type=8 quote='udp {l}:1000 > {r}:80'
<- icmp {r} > {l} type=3/4 quote='udp {l}:1000 > {r}:80' cut=20
>+ tcp [{l6}]:1000 > [{r6}]:80 flags=S
<+ icmp6 fd00:ffff::1 > {l6} type=2 quote='tcp [{l6}]:1000 > [{r6}]:80 flags=A'
<- icmp6 fd00:ffff::1 > {l6} type=2 quote='tcp [{l6}]:1001 > [{r6}]:80 flags=A'
age 190
<- icmp {r} > {l} type=3/4 quote='udp {l}:1000 > {r}:80'
[ICMP errors are judged by the policy in force]
| default deny
| allow out tcp, udp to port 80
>+ udp {l}:1000 > {r}:80
>+ udp {l}:2000 > {r}:80
>+ tcp {l}:1000 > {r}:80 flags=S
<+ tcp {r}:80 > {l}:1000 flags=SA
| default deny
| deny out udp from port 2000
| allow out tcp, udp to port 80
<+ icmp {r} > {l} type=3/4 quote='udp {l}:1000 > {r}:80'
<- icmp {r} > {l} type=3/4 quote='udp {l}:2000 > {r}:80'
<+ icmp {r} > {l} type=3/4 quote='tcp {l}:1000 > {r}:80'
>+ icmp {l} > {r} type=3/4 quote='tcp {r}:80 > {l}:1000'
>- icmp {l} > {r} type=3/4 quote='tcp {r}:81 > {l}:1000'
[a new policy ends the flows that it denies]
| default deny
| allow out tcp to port 80
>+ tcp {l}:1000 > {r}:80 flags=S
<+ tcp {r}:80 > {l}:1000 flags=SA
>+ tcp {l}:2000 > {r}:80 flags=S
<+ tcp {r}:80 > {l}:2000 flags=SA
| default deny
| allow out tcp to port 443
<- tcp {r}:80 > {l}:1000 flags=PA
>- tcp {l}:1000 > {r}:80 flags=PA
>- tcp {l}:2000 > {r}:80 flags=PA
<- tcp {r}:80 > {l}:2000 flags=PA
[a new policy keeps the flows that it allows]
| default deny
| allow out tcp, udp to port 80
| allow out icmp
>+ tcp {l}:1000 > {r}:80 flags=S
<+ tcp {r}:80 > {l}:1000 flags=SA
>+ udp {l}:1000 > {r}:80
>+ icmp {l} > {r} sel=77
| default deny
| deny out tcp to port 1-79
| allow out icmp type echo-request
| allow out to {r}
<+ tcp {r}:80 > {l}:1000 flags=PA
>+ tcp {l}:1000 > {r}:80 flags=PA
<+ udp {r}:80 > {l}:1000
<+ icmp {r} > {l} type=0 sel=77
[deny for a moment, and allow again]
| default deny
| allow out udp to port 80
>+ udp {l}:1000 > {r}:80
<+ udp {r}:80 > {l}:1000
| default deny
<- udp {r}:80 > {l}:1000
| default deny
| allow out udp to port 80
<- udp {r}:80 > {l}:1000
>+ udp {l}:1000 > {r}:80
<+ udp {r}:80 > {l}:1000
[stateless]
|- --stateless
| default deny
| allow out tcp to port 80
>+ tcp {l}:1000 > {r}:80 flags=S
<- tcp {r}:80 > {l}:1000 flags=SA
[next leaves no flow]
| default deny
| next out tcp to port 80
>+ tcp {l}:1000 > {r}:80 flags=S
<- tcp {r}:80 > {l}:1000 flags=SA
[fragments follow the first]
| default deny
| allow out udp to port 53
>- udp {l}:1000 > {r}:53 frag=3 id=1
>+ udp {l}:1000 > {r}:53 frag=0+ id=1 len=16
>+ udp {l}:1000 > {r}:53 frag=3+ id=1
>+ udp {l}:1000 > {r}:53 frag=4 id=1
>- udp {l}:1000 > {r}:53 frag=3 id=2
<- udp {l}:1000 > {r}:53 frag=3 id=1
<+ udp {r}:53 > {l}:1000 frag=0+ id=9 len=16
<+ udp {r}:53 > {l}:1000 frag=3 id=9
>- udp {l}:1000 > {r}:54 frag=0+ id=3 len=16
>- udp {l}:1000 > {r}:54 frag=3 id=3
age 31
>- udp {l}:1000 > {r}:53 frag=4 id=1
[fragments of IPv6]
| default deny
| allow out udp to port 53
>- udp [{l6}]:1000 > [{r6}]:53 frag=3 id=1
>+ udp [{l6}]:1000 > [{r6}]:53 frag=0+ id=1 len=16
>+ udp [{l6}]:1000 > [{r6}]:53 frag=3+ id=1
>- udp [{l6}]:1000 > [{r6}]:53 frag=3 id=2
<+ udp [{r6}]:53 > [{l6}]:1000 frag=0+ id=1 len=16 ext=hbh
<+ udp [{r6}]:53 > [{l6}]:1000 frag=3 id=1
>- udp [{l6}]:1000 > [{r6}]:54 frag=0+ id=3 len=16 ext=dst
>- udp [{l6}]:1000 > [{r6}]:54 frag=3 id=3
>+ udp [{l6}]:1000 > [{r6}]:53 frag=0 id=4
[fragments that would change what was judged]
| default allow
| deny out tcp to port 25
>- tcp {l}:1000 > {r}:80 frag=0+ id=5 len=0 tot=28
>+ tcp {l}:1000 > {r}:80 frag=0+ id=6 len=4
>- tcp {l}:1000 > {r}:25 frag=1+ id=6
>- udp {l}:1000 > {r}:80 frag=0+ id=7 tot=24
[neighbours are found whatever the policy]
| default deny
>+ arp
<+ arp
>+ icmp6 {l6} > ff02::1:ff00:2 type=135 ttl=255
<+ icmp6 {r6} > {l6} type=136 ttl=255
<- icmp6 {r6} > {l6} type=136 ttl=254
>- icmp6 {l6} > {r6} type=128
[a connection older than the policy is adopted]
|- --adopt 100
| default deny
| allow out tcp to port 80
<+ tcp {r}:80 > {l}:1000 flags=A
>+ tcp {l}:1000 > {r}:80 flags=PA
<- tcp {r}:80 > {l}:1001 flags=S
<- tcp {r}:80 > {l}:1001 flags=SA
<- tcp {r}:81 > {l}:1000 flags=A
'''


def bpf(cmd, attr):
    buf = ctypes.create_string_buffer(attr, 128)
    rc = ctypes.CDLL(None, use_errno=True).syscall(321, cmd, buf, 128)
    return rc if rc >= 0 else -ctypes.get_errno()


class Map:
    """A pinned hash map whose values have a time in seconds at offset 8."""

    def __init__(self, path, key_size, value_size):
        name = ctypes.create_string_buffer(path.encode())
        self.fd = bpf(7, struct.pack('=QII', ctypes.addressof(name), 0, 0))
        if self.fd < 0:
            raise OSError(-self.fd, os.strerror(-self.fd), path)
        self.key = ctypes.create_string_buffer(key_size)
        self.next = ctypes.create_string_buffer(key_size)
        self.value = ctypes.create_string_buffer(value_size)

    def op(self, cmd, key, value):
        return bpf(cmd, struct.pack('=IIQQQ', self.fd, 0, ctypes.addressof(key) if key else 0,
                                    ctypes.addressof(value), 0))

    def age(self, seconds):
        keys, last = [], None
        while self.op(4, last, self.next) == 0:
            self.key.raw = self.next.raw
            keys.append(self.key.raw)
            last = self.key
        for k in keys:
            self.key.raw = k
            if self.op(1, self.key, self.value):
                continue
            then, = struct.unpack_from('=I', self.value, 8)
            struct.pack_into('=I', self.value, 8, then - seconds & 0xffffffff)
            self.op(2, self.key, self.value)
        return len(keys)

    def close(self):
        os.close(self.fd)


class State:
    def __init__(self, netpol, kind):
        self.netpol = netpol
        wire.new_netns()
        if kind == 'veth':
            self.hooks = 'tcx-ingress', 'tcx-egress'
            self.run('ip', 'link', 'add', 'va', 'type', 'veth', 'peer', 'name', 'vb')
        else:
            self.hooks = 'netkit-peer', 'netkit-primary'
            self.run(os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                  '../build/tests/mklink'), 'va', 'vb', 'mode', kind)
        self.run('ip', '-batch', '-', text='link set va up\nlink set vb up\n')
        self.wire = wire.Wire('va', 'vb')
        self.bad = self.packets = 0

    @staticmethod
    def run(*argv, text=''):
        r = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
        if r.returncode:
            sys.exit('%s: exit %d\n%s%s%s' % (' '.join(argv), r.returncode, text, r.stdout,
                                              r.stderr))
        return r.stdout

    def attach(self, *options):
        before = set(glob.glob('/sys/fs/bpf/skelkit/netpol/ns*'))
        for hook in self.hooks:
            self.run(self.netpol, 'attach', hook, 'va', *options)
            options = ()
        self.dir = (set(glob.glob('/sys/fs/bpf/skelkit/netpol/ns*')) - before).pop()

    def detach(self):
        for hook in self.hooks:
            subprocess.run([self.netpol, 'detach', hook, 'va', '--ignore-missing'], check=False,
                           stdout=subprocess.DEVNULL)

    def expect(self, case, text, outward, want):
        self.packets += 1
        got = self.wire.cross(text, outward)
        if got != want:
            self.bad += 1
            print('%s: %s %s: %s' % (case, 'out' if outward else 'in', text,
                                     'passed' if got else 'was dropped'))

    def case(self, number, name, lines):
        names = {'l': '10.0.%d.1' % number, 'r': '10.9.%d.1' % number,
                 'l6': 'fd00:%x::1' % number, 'r6': 'fd09:%x::1' % number}
        policy, options = [], []
        for line in [x.format(**names) for x in lines] + ['end']:
            op, _, rest = line.partition(' ')
            if op == '|-':
                options = rest.split()
                continue
            if op == '|':
                policy.append(rest)
                continue
            if policy:
                if '--stateless' not in options:
                    options.append('--stateful')
                self.run(self.netpol, 'load', 'va', '/dev/stdin', *options,
                         text='\n'.join(policy) + '\n')
                policy, options = [], []
            if op == 'age':
                for path, key, value in ('np_flows', 40, 16), ('np_frags', 40, 12):
                    m = Map('%s/%s' % (self.dir, path), key, value)
                    m.age(int(rest))
                    m.close()
            elif op != 'end':
                self.expect(name, rest, op[0] == '>', op[1] == '+')

    def crowd(self):
        """A full flow table gives way to new flows; the oldest are forgotten."""
        self.attach('--default', 'deny', '--flows', '128')
        self.run(self.netpol, 'load', 'va', '/dev/stdin', text='default deny\nallow out udp\n')
        old = 'udp 10.9.0.1:53 > 10.0.0.1:%d'
        new = 'udp 10.0.0.1:%d > 10.9.0.1:53'
        for port in range(1, 1000):
            self.expect('crowd', new % port, True, True)
        self.expect('crowd', old % 999, False, True)
        self.expect('crowd', old % 1, False, False)


def main():
    cases = []
    for line in CASES.strip().split('\n'):
        if line.startswith('['):
            cases.append((line[1:-1], []))
        else:
            cases[-1][1].append(line)
    if sys.argv[3:]:
        cases = [c for c in cases if c[0] in sys.argv[3:]]
    state = State(sys.argv[1], sys.argv[2])
    try:
        state.attach('--default', 'deny')
        for number, (name, lines) in enumerate(cases, 1):
            state.case(number, name, lines)
        if not sys.argv[3:]:
            state.detach()
            state.crowd()
    finally:
        state.detach()
    print('%d cases, %d packets, %d wrong' % (len(cases), state.packets, state.bad))
    sys.exit(1 if state.bad else 0)


if __name__ == '__main__':
    main()
