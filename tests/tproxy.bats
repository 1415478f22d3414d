# SPDX-License-Identifier: GPL-2.0-only
# A transparent proxy for what a pod sends: who is answered, from which address, and what the
# proxy knows of it. At tcx-ingress, on any kernel.
# On the debug kernel packets take the same way in tproxy-hooks.bats; this would take an hour.
# bats file_tags=nodebug
# shellcheck disable=SC2317
bats_require_minimum_version 1.5.0
load helpers
load tproxy

# through KIND: TCP and UDP of both families, to addresses that nobody has
through() {
	local before
	world "$1"
	served
	[ "$(refs)" = "$before" ] || fail "references: $(refs), before: $before"
	tp 0 detach "$h"
	clean
	mute tcp "$far4:80"
}

# bats test_tags=stock
@test "tproxy: tcx-ingress of a veth" {
	requires root kernel:6.6 tool:jq
	through veth
}

# bats test_tags=stock
@test "tproxy: tcx-ingress of a netkit device in L2 mode" {
	requires root kernel:6.7 tool:jq
	through l2
}

# bats test_tags=stock
@test "tproxy: tcx-ingress of a netkit device in L3 mode" {
	requires root kernel:6.7 tool:jq
	through l3
}

@test "tproxy: rules are added and deleted while connections go on" {
	requires root kernel:6.6 tool:jq
	world veth
	proxy ":$PORT"
	attach --to ":$PORT" --dst "$far4:80,8000-8001" --except 203.0.113.8 --except mark:0x100/0xf00
	ask ok tcp "$far4:80" "$far4:8001"
	mute tcp "$far4:8002" "[$far6]:80"
	counts '.in_the_way.no_listener.packets == 0'
	tp 0 add "$h" both "[2001:db8:7::]/48:80"
	[[ $output == *'both [2001:db8:7::/48]:80: add'* ]]
	tp 0 add "$h" both "[2001:db8:7::/48]:80"
	[ "$output" = "$h: unchanged" ]
	ask ok tcp "[$far6]:80"
	ask ok udp "[$far6]:80"
	# an exception is stronger than any rule, whenever it came
	tp 0 add "$h" tcp any
	mute tcp 203.0.113.8:80
	counts '.passed_by.by_address.packets > 0'
	ask ok tcp 203.0.113.9:80
	tp 0 add "$h" except 203.0.113.9:80
	mute tcp 203.0.113.9:80
	tp 0 del "$h" except 203.0.113.9:80
	ask ok tcp 203.0.113.9:80
	tp 3 del "$h" except 203.0.113.9:80
	tp 0 del "$h" tcp any
	mute tcp 203.0.113.9:80
	# every rule as it can be given again
	tp 0 show "$h"
	mapfile -t lines < <(sed -n 's/^  \(tcp\|udp\|both\|except\)/\1/p' <<<"$output")
	((${#lines[@]} == 5))
	for line in "${lines[@]}"; do
		tp 0 add "$h" "$line"
		[ "$output" = "$h: unchanged" ] || fail "$line"
	done
	tp 0 show "$h" -j
	json '.devices | length == 1 and (.[0] | .hook == "tcx-ingress" and .on_missing == "drop" and
		.to == ["127.0.0.1:15001", "[::1]:15001"] and
		.excepted_senders == ["mark:0x100/0xf00"] and .route == {mark: 116, table: 29808} and
		([.rules[].action] == ["except", "redirect", "redirect", "redirect"]) and
		.rules[3] == {rule: "both [2001:db8:7::/48]:80", action: "redirect",
			dst: "2001:db8:7::/48", protocols: ["tcp", "udp"], ports: [80, 80]})'
	tp 0 del "$h" except mark:0x100/0xf00
	tp 0 show -j
	json '.devices[0].excepted_senders == []'
	tp 0 detach "$h"
	clean
}

@test "tproxy: without --dst all but the addresses of the host is redirected" {
	requires root kernel:6.6 tool:jq
	world veth
	ip -n "$h" addr add 198.51.100.1/32 dev lo
	# a server of the host's own
	proxy -T :22
	own=$said
	proxy ":$PORT"
	attach --to ":$PORT" --proto both
	ask ok tcp 10.0.0.1:22 "[fd00::1]:22" 198.51.100.1:22
	ask ok udp-bare 10.0.0.1:22
	[ "$(grep -c '^tcp' "$own")" = 3 ]
	[ "$(grep -c ' > ' "$said")" = 0 ]
	tp 0 show "$h"
	[[ $output == *'except both 10.0.0.1/32'* && $output == *'except both 198.51.100.1/32'* ]]
	ask ok tcp "$far4:22"
	said "> $far4:22 "
	tp 0 detach "$h"
	clean
}

@test "tproxy: addresses of the host are redirected if they are named" {
	requires root kernel:6.6 tool:jq
	world veth
	proxy -T :80
	own=$said
	proxy -T :22
	untouched=$said
	proxy ":$PORT"
	# a connection to the host's own server goes on
	hold tcp 10.0.0.1:80 "[fd00::1]:80"
	wait_for 10 rounds 2 ' ok$'
	attach --to ":$PORT" --proto both --dst 10.0.0.1:80 --dst "[fd00::1]:80"
	ask ok tcp 10.0.0.1:80 "[fd00::1]:80" 10.0.0.1:22
	ask ok udp 10.0.0.1:80 "[fd00::1]:80" 10.0.0.1:22
	said '^tcp 10[.]0[.]0[.]2:[0-9]+ > 10[.]0[.]0[.]1:80 '
	said '^tcp \[fd00::2\]:[0-9]+ > \[fd00::1\]:80 '
	said '^udp 10[.]0[.]0[.]2:[0-9]+ > 10[.]0[.]0[.]1:80 '
	said '^udp \[fd00::2\]:[0-9]+ > \[fd00::1\]:80 '
	[ "$(grep -c ' > ' "$untouched")" = 2 ]
	echo >&9
	wait_for 10 rounds 4 ' ok$'
	kill "$holder"
	[ "$(grep -c ' > ' "$own")" = 2 ] || fail "not redirected:" "$(<"$own")"
	tp 0 detach "$h"
	ask ok tcp 10.0.0.1:80
	[ "$(grep -c ' > ' "$own")" = 3 ]
	clean
}

@test "tproxy: a host's own listener on all addresses takes nothing" {
	requires root kernel:6.6 tool:jq
	world veth
	proxy -T :80
	own=$said
	proxy "127.0.0.1:$PORT"
	four=$said
	proxy "[::1]:$PORT"
	attach --to "127.0.0.1:$PORT" --to "[::1]:$PORT" --proto both
	ask ok tcp "$far4:80" "[$far6]:80"
	ask ok udp "$far4:80" "[$far6]:80"
	said "^tcp .* > \[$far6\]:80 "
	said "^udp .* > \[$far6\]:80 "
	said=$four
	said "^tcp .* > $far4:80 "
	said "^udp .* > $far4:80 "
	[ "$(grep -c ' > ' "$own")" = 0 ] || fail "stolen:" "$(<"$own")"
	# one family alone: the other is in nobody's way
	attach --to "127.0.0.1:$PORT" --dst 0.0.0.0/0
	counts '.in_the_way.no_listener.packets == 0'
	mute tcp "[$far6]:80"
	counts '.in_the_way.no_listener.packets == 0'
	tp 0 detach "$h"
	clean
}

@test "tproxy: one port of a client to many destinations" {
	requires root kernel:6.6 tool:jq
	world veth
	proxy -c ":$PORT"
	attach --to ":$PORT" --proto both
	list=()
	for ((i = 1; i <= 20; i++)); do list+=("203.0.113.$i:80" "[2001:db8:7::$i]:80"); done
	ask ok -p 4000 tcp "${list[@]}"
	ask ok -p 4000 udp "${list[@]}"
	for i in "${list[@]}"; do
		i=${i//[/\\[} i=${i//]/\\]}
		said "^tcp .*:4000 > $i "
		said "^udp .*:4000 > $i "
	done
	tp 0 detach "$h"
	clean
}

@test "tproxy: a UDP flow goes on with the socket that the proxy connected to it" {
	requires root kernel:6.6 tool:jq
	world veth
	proxy -c ":$PORT"
	attach --to ":$PORT" --proto udp
	hold -p 4000 udp "$far4:53" "[$far6]:53"
	wait_for 10 rounds 2 ' ok$'
	for ((i = 0; i < 3; i++)); do echo >&9; done
	wait_for 10 rounds 8 ' ok$'
	[ "$(grep -c 'by the socket of its flow' "$said")" = 6 ]
	counts '.given | .datagrams.packets == 2 and .established.packets == 6'
	# and when nothing is redirected any more
	attach --to ":$PORT" --dst none
	echo >&9
	wait_for 10 rounds 10 ' ok$'
	kill "$holder"
	tp 0 detach "$h"
	clean
}

@test "tproxy: marks and filters of other software do not break it" {
	requires root kernel:6.6
	world veth
	proxy ":$PORT"
	for k in all default "$h"; do
		for v in src_valid_mark=1 rp_filter=2; do
			ip netns exec "$h" bash -c "echo ${v#*=} >/proc/sys/net/ipv4/conf/$k/${v%=*}"
		done
	done
	# as a VPN has them: a mark of its own, and all without it into the tunnel
	ip -n "$h" rule add not fwmark 0x80000 table 51820 pref 5000
	ip -n "$h" route add default dev "$h" table 51820
	attach --to ":$PORT" --proto both
	ask ok tcp "$far4:80"
	ask ok udp "$far4:80"
	for k in all "$h"; do
		ip netns exec "$h" bash -c "echo 1 >/proc/sys/net/ipv4/conf/$k/rp_filter"
	done
	ask ok tcp "$far4:80"
	# no packet filter has part in it
	tool 0 /sbin/ip netns exec "$h" nft list ruleset
	[ -z "$output" ]
	tp 0 detach "$h"
	ip -n "$h" rule del pref 5000
	clean
}

@test "tproxy: what cannot be given to a proxy is dropped, passed or answered" {
	requires root kernel:6.6 tool:jq
	world veth
	attach --to ":$PORT" --proto both --dst any
	mute tcp "$far4:80" "[$far6]:80"
	mute udp "$far4:80" "[$far6]:80"
	counts '.in_the_way.no_listener.packets >= 4 and
		.done.dropped.packets == .in_the_way.no_listener.packets and
		.done.passed.packets + .done.answered.packets == 0'
	tp 1 doctor
	[[ $output == *"nobody listens at 127.0.0.1:$PORT (tcp)"*"dropped"* ]]
	attach --to ":$PORT" --proto both --dst any --on-missing reset
	[[ $output == *"replace the program"* ]]
	ask refused tcp "$far4:80" "[$far6]:80"
	ask refused udp "$far4:80" "[$far6]:80"
	counts '.done.answered.packets == 4'
	# to an address that is there: the host's own, which is reached as if nothing were attached
	proxy -T :80
	ask refused tcp 10.0.0.1:80
	attach --to ":$PORT" --proto both --dst any --on-missing pass
	ask ok tcp 10.0.0.1:80 "[fd00::1]:80"
	counts '.done.passed.packets == 2'
	tp 0 show "$h"
	[[ $output == *"on-missing pass"* ]]
	tp 0 detach "$h"
	clean
}

@test "tproxy: a listener that cannot answer for others is told from one that is not there" {
	requires root kernel:6.6 tool:jq
	world veth
	proxy -T ":$PORT"
	attach --to ":$PORT" --on-missing reset
	ask refused tcp "$far4:80" "[$far6]:80"
	counts '.in_the_way.not_transparent.packets == 2 and .in_the_way.no_listener.packets == 0 and
		.done.answered.packets == 2'
	tp 3 register "$h" --pid "$proxy"
	[[ $stderr == *"IP_TRANSPARENT"* ]]
	tp 0 detach "$h"
	clean
}

@test "tproxy: listening sockets by reference, of a process or sent by it" {
	requires root kernel:6.6 tool:jq
	world veth
	attach --proto both
	mute tcp "$far4:80"
	# at a place that no rule knows
	proxy 127.0.0.1:4444
	tp 0 register "$h" --pid "$proxy" --dry-run
	mute tcp "$far4:80"
	tp 0 register "$h" --pid "$proxy"
	[[ $output == *"at port 4444 (tcp, IPv4)"*"at port 4444 (udp, IPv4)"* ]]
	tp 0 register "$h" --pid "$proxy"
	[ "$output" = "$h: unchanged" ]
	ask ok tcp "$far4:80"
	ask ok udp "$far4:80"
	said "^tcp .* > $far4:80 "
	tp 0 show "$h" -j
	json '[.devices[0].listeners[] | .protocol + .family] == ["tcpipv4", "udpipv4"]'
	# another in its place, by a UNIX socket; both families at once
	proxy -x "$BATS_TEST_TMPDIR/sock" :5555
	tp 0 register "$h" --unix "$BATS_TEST_TMPDIR/sock"
	[[ $output == *"at port 5555 (tcp, IPv4)"*"at port 5555 (udp, IPv6)"* ]]
	ask ok tcp "$far4:80" "[$far6]:80"
	ask ok udp "$far4:80" "[$far6]:80"
	said "^udp .* > \[$far6\]:80 "
	# rules change, the listener stays; when it is closed it is gone
	tp 0 add "$h" tcp 203.0.113.0/24
	ask ok tcp "$far4:81"
	kill -9 "$proxy"
	closed() { tp 0 show "$h" -j && json '.devices[0].listeners == []'; }
	wait_for 5 closed
	mute tcp "$far4:80"
	counts '.in_the_way.no_listener.packets > 0'
	# two listeners cannot be told apart
	cat >"$BATS_TEST_TMPDIR/two.py" <<-'END'
		import signal, socket
		keep = []
		for port in 6001, 6002:
		    s = socket.socket()
		    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
		    s.setsockopt(socket.SOL_IP, 19, 1)
		    s.bind(("127.0.0.2", port))
		    s.listen()
		    keep.append(s)
		print("ready", flush=True)
		signal.pause()
	END
	ip netns exec "$h" python3 "$BATS_TEST_TMPDIR/two.py" >"$BATS_TEST_TMPDIR/two" 3>&- 4>&- &
	two=$!
	wait_for 10 grep -q ready "$BATS_TEST_TMPDIR/two"
	tp 2 register "$h" --pid "$two"
	[[ $stderr == *"--port"* ]]
	tp 0 register "$h" --pid "$two" --port 6002
	tp 0 register "$h" --clear
	tp 3 register "$h" --pid $$
	tp 2 register "$h"
	tp 2 register "$h" --pid 1 --clear
	tp 3 register "$h" --pid 999999
	tp 1 register "$h" --unix /nowhere
	kill "$two"
	tp 0 detach "$h"
	clean
}

@test "tproxy: a listener is found behind the many connections of its process" {
	requires root kernel:6.6
	world veth
	attach --proto both
	said=$BATS_TEST_TMPDIR/said
	# the low descriptors are taken too, so that one listener at least comes last
	# shellcheck disable=SC2016 # for that shell
	ip netns exec "$h" bash -c 'exec 3<&0 4<&0 5<&0 6<&0 7<&0 8<&0 9<&0
		for ((i = 0; i < 80; i++)); do exec {f}<>/dev/udp/127.0.0.1/9; done
		exec "$@"' many "$B/tests/proxy" listen 127.0.0.1:4444 >"$said" 2>&1 3>&- 4>&- &
	proxy=$!
	wait_for 5 grep -q ready "$said"
	tp 0 register "$h" --pid "$proxy"
	[[ $output == *"at port 4444 (tcp, IPv4)"*"at port 4444 (udp, IPv4)"* ]]
	ask ok udp "$far4:53"
	said "^udp .* > $far4:53 "
	tp 0 detach "$h"
	clean
}

@test "tproxy: a process that is not root's registers nothing" {
	requires root kernel:6.6
	world veth
	attach --to ":$PORT"
	proxy ":$PORT"
	tool 1 /usr/bin/nsenter --net="/run/netns/$h" /usr/bin/setpriv --reuid 65534 --clear-groups \
		"$B/tproxy" register "$h" --pid "$proxy"
	[[ $stderr == *"Permission denied"* || $stderr == *"not permitted"* ]]
	tool 1 /usr/bin/setpriv --reuid 65534 --clear-groups "$B/tproxy" --netns "$h" show "$h"
	# and root needs no more than it says
	few=(/usr/bin/nsenter --net="/run/netns/$h" /usr/bin/setpriv --bounding-set=-sys_admin)
	tool 0 "${few[@]}" "$B/tproxy" add "$h" tcp 10.0.0.0/8
	tool 0 "${few[@]}" "$B/tproxy" register "$h" --pid "$proxy"
	tool 0 "${few[@]}" "$B/tproxy" doctor
	tool 0 "${few[@]}" "$B/tproxy" detach "$h"
	tool 0 "${few[@]}" "$B/tproxy" attach tcx-ingress "$h" --to ":$PORT"
	tp 0 detach "$h"
	clean
}

@test "tproxy: the log tells who wanted whom, and what was in the way" {
	requires root kernel:6.6 tool:jq
	world veth
	proxy ":$PORT"
	attach --to ":$PORT" --dst any:80
	ask ok tcp "$far4:80"	# before anybody reads: never told
	"$B/tproxy" --netns "$h" log "$h" -j --count 3 >"$BATS_TEST_TMPDIR/log" 3>&- 4>&- &
	log=$!
	reads() {
		[ "$("$B/bpftool/bpftool" -j map dump pinned "$PIN"/tproxy/*/tp_reader |
			jq '.[0].formatted.value > 0')" = true ]
	}
	wait_for 10 reads
	tp 1 log "$h"
	[[ $stderr == *"another tproxy reads"* ]]
	ask ok -p 4000 tcp "$far4:80" "[$far6]:80"
	kill -9 "$proxy"
	mute -p 4001 tcp "$far4:80"
	wait "$log"
	output=$(<"$BATS_TEST_TMPDIR/log")
	jq -es 'map(del(.time)) == [
		{protocol: "tcp", src: "10.0.0.2:4000", dst: "203.0.113.7:80", what: "connections", done: "given"},
		{protocol: "tcp", src: "[fd00::2]:4000", dst: "[2001:db8:7::7]:80", what: "connections", done: "given"},
		{protocol: "tcp", src: "10.0.0.2:4001", dst: "203.0.113.7:80", what: "no_listener", done: "dropped"}]' \
		<<<"$output" || fail "$output"
	tp 0 log "$h" --seconds 1
	[ -z "$output" ]
	tp 0 detach "$h"
	clean
}

@test "tproxy: a program is replaced, a proxy restarted, under traffic" {
	requires root kernel:6.6 tool:jq
	world veth
	proxy ":$PORT"
	attach --to ":$PORT" --proto both
	hold -p 4000 tcp "$far4:80" "[$far6]:80"
	wait_for 10 rounds 2 ' ok$'
	ip netns exec "$p" "$B/tests/proxy" ask -s 30000000 -t "$((10000 * TIMEOUT_FACTOR))" tcp \
		"$far4:81" >"$BATS_TEST_TMPDIR/bulk" 3>&- 4>&- &
	bulk=$!
	for ((i = 0; i < 20; i++)); do tp 0 add "$h" tcp "198.51.100.$i:80"; done
	# what is no longer redirected has connections that go on
	attach --to ":$PORT" --dst 198.51.100.0/24
	echo >&9
	wait_for 10 rounds 4 ' ok$'
	wait "$bulk" || fail "$(<"$BATS_TEST_TMPDIR/bulk")"
	mute tcp "$far4:80"
	counts '.in_the_way.no_listener.packets + .in_the_way.not_assigned.packets == 0'
	# killed: who is connected learns of it, who comes then waits for the next one
	attach --to ":$PORT" --proto both
	kill -9 "$proxy"
	echo >&9
	wait_for 10 rounds 2 ' (closed|reset)$'
	kill "$holder"
	ip netns exec "$p" "$B/tests/proxy" ask -t "$((20000 * TIMEOUT_FACTOR))" tcp "$far4:82" \
		>"$BATS_TEST_TMPDIR/next" 3>&- 4>&- &
	next=$!
	dropped() { tp 0 stats "$h" -j && json '.devices[0].in_the_way.no_listener.packets > 0'; }
	wait_for 10 dropped
	proxy ":$PORT"
	wait "$next" || fail "$(<"$BATS_TEST_TMPDIR/next")"
	said "> $far4:82 "
	# nothing is left of the connections, nor a reference to a listener of either
	idle() { [ -z "$(ip netns exec "$h" ss -Htan state connected)" ]; }
	wait_for 70 idle
	tp 0 detach "$h"
	clean
}

@test "tproxy: 100 MB both ways arrive as they were sent" {
	requires root kernel:6.6
	world l3
	proxy ":$PORT"
	attach --to ":$PORT"
	TIMEOUT_FACTOR=$((TIMEOUT_FACTOR * 3)) ask ok -s 100000000 tcp "$far4:80"
	ask ok -s 10000000 tcp "[$far6]:80"
	tp 0 detach "$h"
	clean
}

@test "tproxy: two proxies in one namespace, for two devices" {
	requires root kernel:6.6 tool:jq
	world veth
	q=$(name q)
	ip -batch - <<-END
		netns add $q
		link add i$h netns $h type veth peer name $q netns $q
	END
	topo_up "$h" "i$h" 10.1.0.1/24
	topo_up "$q" "$q" 10.1.0.2/24
	ip -n "$q" route add default via 10.1.0.1
	proxy ":$PORT"
	first=$said
	proxy :15002
	attach --to ":$PORT"
	tp 0 attach tcx-ingress "i$h" --to :15002
	ask ok tcp "$far4:80"
	p=$q ask ok tcp "$far4:80"
	said "^tcp 10[.]1[.]0[.]2:.* > $far4:80 "
	said=$first
	said "^tcp 10[.]0[.]0[.]2:.* > $far4:80 "
	tp 0 show -j
	json '[.devices[].device] | length == 2'
	# one goes, and what the other needs stays
	tp 0 detach "$h"
	p=$q ask ok tcp "$far4:80"
	mute tcp "$far4:80"
	tp 0 detach "i$h"
	clean
}

@test "tproxy: a group of sockets that share a port shares the work" {
	requires root kernel:6.6
	world l3
	proxy -n 4 ":$PORT"
	before=$(refs)
	attach --to ":$PORT" --proto both
	list=()
	for ((i = 1; i <= 32; i++)); do list+=("203.0.113.$i:80" "[2001:db8:7::$i]:80"); done
	ask ok tcp "${list[@]}"
	ask ok udp "${list[@]}"
	for proto in tcp udp; do
		# by chance one of four may have nothing, but not two
		(($(grep "^$proto" "$said" | sed 's/.* by //' | sort -u | wc -l) >= 3)) ||
			fail "$(<"$said")"
	done
	[ "$(refs)" = "$before" ]
	# registered, and one by one closed
	tp 0 register "$h" --pid "$proxy"
	ask ok tcp "${list[@]}"
	tp 0 detach "$h"
	clean
}

@test "tproxy: a fragmented datagram does not get around the proxy" {
	requires root kernel:6.6 tool:jq
	world l2
	proxy ":$PORT"
	# who would have it, were it delivered
	proxy -T :53
	own=$said
	attach --to ":$PORT" --proto both
	mute -s 3000 udp "$far4:53" "[$far6]:53"
	counts '.in_the_way.fragment.packets == 2 and .done.dropped.packets == 2 and
		.given.datagrams.packets == 0'
	# what is not redirected is not looked at
	attach --to ":$PORT" --proto tcp
	ask ok -s 3000 udp 10.0.0.1:53 "[fd00::1]:53"
	counts '.in_the_way.fragment.packets == 2'
	[ "$(grep -c ' > ' "$own")" = 2 ]
	tp 0 detach "$h"
	clean
}

@test "tproxy: IPv6 extension headers, also more than one" {
	requires root kernel:6.6 tool:jq tool:python3
	world l3
	proxy ":$PORT"
	attach --to ":$PORT" --proto both
	tool 0 /sbin/ip netns exec "$p" python3 - <<-'END'
		import socket
		pad = bytes((0, 0, 1, 4, 0, 0, 0, 0))
		for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
		    for n, options in enumerate(((59,), (54,), (54, 59, 55))):
		        s = socket.socket(socket.AF_INET6, kind)
		        for o in options:
		            # a router's part of destination options needs a routing header
		            if o != 55:
		                s.setsockopt(socket.IPPROTO_IPV6, o, pad)
		        s.settimeout(30)
		        s.connect(('2001:db8:7::7', 80 + n))
		        s.send(b'x' * 100)
		        assert s.recv(1000)
	END
	[ "$(grep -c '^tcp' "$said")" = 3 ]
	[ "$(grep -c '^udp' "$said")" = 3 ]
	counts '.given.connections.packets == 3 and .given.datagrams.packets == 3 and
		.in_the_way.malformed.packets == 0'
	tp 0 detach "$h"
	clean
}

@test "tproxy: the pod's mark is not the way to the host's sockets" {
	requires root kernel:6.7 tool:jq tool:python3
	for scrub in none default; do
		topo netkit h p mode l3 scrub "$scrub" peer-scrub "$scrub"
		ip -n "$p" route add default dev "$p"
		proxy -T :80
		own=$said
		proxy ":$PORT"
		attach --to ":$PORT" --dst any:81
		ask ok tcp "$far4:81"
		# 0x74 is the tool's mark; a datagram is received by whoever has the port
		tool 0 /sbin/ip netns exec "$p" python3 - "$far4" <<-'END'
			import socket, sys
			s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
			s.setsockopt(socket.SOL_SOCKET, 36, 0x74)
			s.sendto(b'x', (sys.argv[1], 80))
		END
		# what came behind it by the same way is there
		ask ok tcp "$far4:81"
		[ "$(grep -c ' > ' "$own")" = 0 ]
		tp 0 detach "$h"
		clean
		topo_down
	done
}

@test "tproxy: what has the mark of an exception passes by, and nothing else" {
	requires root kernel:6.7 tool:jq
	# veth and a netkit device that scrubs take the pod's mark away
	topo netkit h p mode l3 scrub none peer-scrub none
	proxy -T :80
	own=$said
	proxy ":$PORT"
	attach --to ":$PORT" --proto both --dst 10.0.0.1 --except mark:0x100/0xf00
	ask ok -m 0x1ff tcp 10.0.0.1:80
	ask ok -m 0x100 udp 10.0.0.1:80
	counts '.passed_by.by_sender.packets > 3 and
		.given.connections.packets + .given.datagrams.packets == 0'
	[ "$(grep -c ' > ' "$own")" = 2 ]
	for m in 0 0x200 0x300; do
		ask ok -m "$m" tcp 10.0.0.1:80
		ask ok -m "$m" udp 10.0.0.1:80
	done
	[ "$(grep -c ' > 10[.]0[.]0[.]1:80 ' "$said")" = 6 ]
	counts '.given.connections.packets == 3 and .given.datagrams.packets == 3'
	tp 0 del "$h" except mark:0x100/0xf00
	ask ok -m 0x1ff tcp 10.0.0.1:80
	[ "$(grep -c ' > ' "$own")" = 2 ]
	tp 0 detach "$h"
	clean
}

@test "tproxy: the port of a connection that is just over is used again" {
	requires root kernel:6.6 tool:jq
	world veth
	proxy -d ":$PORT"
	attach --to ":$PORT"
	for i in 1 2 3; do
		ask closed -p 4000 tcp "$far4:80" "[$far6]:80"
		waits() { [ "$(ip netns exec "$h" ss -Htan state time-wait | grep -c ':4000')" = 2 ]; }
		wait_for 10 waits
	done
	[ "$(grep -c "10.0.0.2:4000 > $far4:80" "$said")" = 3 ]
	# where the host listens at that port itself, it does not get the connection
	proxy -T :80
	mute -p 4000 tcp "$far4:80" "[$far6]:80"
	[ "$(grep -c ' > ' "$said")" = 0 ] || fail "stolen:" "$(<"$said")"
	counts '.in_the_way.time_wait.packets >= 2'
	tp 0 detach "$h"
	clean
}

@test "tproxy: the end of a connection whose listener is gone" {
	requires root kernel:6.6 tool:jq
	world veth
	proxy ":$PORT"
	attach --to ":$PORT" --on-missing reset
	hold tcp "$far4:80" "[$far6]:80"
	wait_for 10 rounds 2 ' ok$'
	# without the listener, what the process has accepted goes on
	ip netns exec "$h" ss -Kt state listening "sport = :$PORT" >/dev/null
	none() { [ -z "$(ip netns exec "$h" ss -Htln "sport = :$PORT")" ]; }
	wait_for 5 none
	echo >&9
	wait_for 10 rounds 4 ' ok$'
	ask refused tcp "$far4:80"
	# and the end of it is seen by both
	kill "$holder"
	over() { [ -z "$(ip netns exec "$h" ss -Htan state connected exclude time-wait)" ]; }
	wait_for 70 over
	counts '.in_the_way.not_assigned.packets == 0 and
		.done.answered.packets <= .in_the_way.no_listener.packets'
	tp 0 detach "$h"
	clean
}

@test "tproxy: a device, or a namespace, goes without being detached" {
	requires root kernel:6.6 tool:jq
	world veth
	tp 3 attach tcx-ingress no-such-device --to ":$PORT"
	[[ $stderr == *"no-such-device: no such device"* ]]
	attach --to ":$PORT"
	ip -n "$h" link del "$h"
	tp 0 doctor
	[[ $output == *"pins of 1 devices that are gone"*"rules or routes"* ]]
	tp 0 doctor --fix -j
	json '.ok and (.findings | length == 2)'
	clean
	topo_down
	# the host's as a whole: its rules go with it, the pins are seen from anywhere
	world l3
	attach --to ":$PORT"
	ip netns del "$p"
	ip netns del "$h"
	gone() { tool 0 "$B/tproxy" doctor && [[ $output == *"of other network namespaces, gone"* ]]; }
	wait_for 10 gone
	tool 0 "$B/tproxy" doctor --fix
	tool 0 "$B/tproxy" doctor
	[ "$output" = "no problems" ]
	# one that moves away takes its program along, and is forgotten where it was
	topo_down
	world veth
	attach --to ":$PORT"
	ip netns add "$(name q)"
	ip -n "$h" link set "$h" netns "$(name q)"
	tp 0 doctor --fix
	tool 3 "$B/tproxy" --netns "$(name q)" show "$h"
	detached() { [ "$("$B/bpftool/bpftool" link show | grep -c tcx)" = 0 ]; }
	wait_for 5 detached
	clean
}

@test "tproxy: a device gets another name" {
	requires root kernel:6.6 tool:jq
	world veth
	proxy ":$PORT"
	attach --to ":$PORT" --proto both
	ip -n "$h" -batch - <<-END
		link set $h down
		link set $h name r$h
		link set r$h up
		addr replace fd00::1/64 dev r$h nodad
	END
	# the routing rule has the old name
	mute tcp "$far4:80"
	tp 1 doctor
	[[ $output == *"r$h: a routing rule"*"tproxy doctor --fix"* ]]
	tp 1 doctor --fix --dry-run
	tp 1 doctor
	tp 0 doctor --fix
	tp 0 doctor
	[ "$output" = "no problems" ]
	# with what was counted before
	ask ok tcp "$far4:80" "[$far6]:80"
	ask ok udp "$far4:80" "[$far6]:80"
	[[ $(ip -n "$h" rule; ip -n "$h" -6 rule) != *"iif $h "* ]]
	tp 0 stats "r$h" -j
	json '.devices[0].given.connections.packets >= 2'
	tp 0 detach "r$h"
	clean
}

@test "tproxy: a proxy that keeps the client's address gets the answers" {
	requires root kernel:6.6 tool:jq tool:haproxy
	world veth
	w=$(name w)
	ip -batch - <<-END
		netns add $w
		link add u$h netns $h type veth peer name $w netns $w
	END
	topo_up "$h" "u$h" 192.0.2.1/24
	topo_up "$w" "$w" 192.0.2.9/24
	ip -n "$w" route add 10.0.0.0/24 via 192.0.2.1
	cat >"$BATS_TEST_TMPDIR/cfg" <<-END
		defaults
			mode tcp
			timeout connect 10s
			timeout client 60s
			timeout server 60s
		listen proxy
			bind 127.0.0.1:$PORT transparent
			option transparent
			source 0.0.0.0 usesrc clientip
	END
	ip netns exec "$h" haproxy -db -f "$BATS_TEST_TMPDIR/cfg" >"$BATS_TEST_TMPDIR/haproxy" 2>&1 3>&- 4>&- &
	up() { [ "$(ip netns exec "$h" ss -Htln "sport = :$PORT")" ]; }
	wait_for 10 up || fail "$(<"$BATS_TEST_TMPDIR/haproxy")"
	h=$w proxy -T :80
	attach --to "127.0.0.1:$PORT" --dst 192.0.2.0/24
	# the world answers the pod: without help the host would forward that
	WAIT=3 ask '!(ok)' tcp 192.0.2.9:80
	tp 0 attach tcx-ingress "u$h" --dst none
	ask ok tcp 192.0.2.9:80
	said "^tcp 10[.]0[.]0[.]2:[0-9]+ > 192[.]0[.]2[.]9:80 "
	tp 0 detach "u$h"
	tp 0 detach "$h"
	clean
}

@test "tproxy: haproxy answers in the name of who was asked" {
	requires root kernel:6.6 tool:haproxy
	world l3
	cat >"$BATS_TEST_TMPDIR/cfg" <<-END
		defaults
			mode http
			timeout client 60s
		frontend proxy
			bind 127.0.0.1:$PORT transparent
			bind [::1]:$PORT transparent
			http-request return status 200 content-type text/plain lf-string "to %[dst]:%[dst_port] from %[src]"
	END
	ip netns exec "$h" haproxy -db -f "$BATS_TEST_TMPDIR/cfg" >"$BATS_TEST_TMPDIR/haproxy" 2>&1 3>&- 4>&- &
	pid=$!
	up() { [ "$(ip netns exec "$h" ss -Htln "sport = :$PORT")" ]; }
	wait_for 10 up || fail "$(<"$BATS_TEST_TMPDIR/haproxy")"
	attach --to ":$PORT"
	get "$far4"
	[[ $output == *"to $far4:80 from 10.0.0.2"* ]]
	get "$far6"
	[[ $output == *"to $far6:80 from fd00::2"* ]]
	# by reference: a proxy that knows nothing of tproxy
	attach --dst any
	tp 0 register "$h" --pid "$pid"
	get "$far4"
	[[ $output == *"to $far4:80 from 10.0.0.2"* ]]
	tp 0 detach "$h"
	clean
}

@test "tproxy: with --dry-run nothing changes" {
	requires root kernel:6.6 tool:jq
	world veth
	attach --to ":$PORT" --dry-run -j
	json '.dry_run and .changed and (.changes | length == 2)'
	clean
	tp 3 show "$h"
	proxy ":$PORT"
	attach --to ":$PORT"
	tp 0 show "$h"
	was=$output
	attach --to ":$PORT" --on-missing pass --dry-run
	[[ $output == "$h: would replace the program"* ]]
	tp 0 add "$h" tcp 10.0.0.0/8:81 --dry-run
	tp 0 register "$h" --pid "$proxy" --dry-run
	tp 0 detach "$h" --dry-run
	[ "$output" = "$h: would detach" ]
	tp 0 show "$h"
	[ "$output" = "$was" ]
	tp 0 doctor
	[ "$output" = "no problems" ]
	tp 0 detach "$h"
	tp 3 detach "$h"
	tp 0 detach "$h" --ignore-missing
	tp 0 doctor --fix --dry-run
	clean
}

@test "tproxy: bad input is refused and changes nothing" {
	requires root kernel:6.6
	world veth
	for bad in "tcx-ingress" "sideways $h" "tcx-ingress $h more"; do
		# shellcheck disable=SC2086
		tp 2 attach $bad --to :1
	done
	for bad in :0 :65536 1.2.3.4 '[::1]' ::1:80 1.2.3:80 '[1.2.3.4]:80'; do
		tp 2 attach tcx-ingress "$h" --to "$bad"
	done
	for bad in 10.0.0.1/8 10.0.0.0/33 ::/129 any:80-79 any:70000 any: 'any:80,' '[::1:80' '[10.0.0.0/8]:80' x; do
		tp 2 attach tcx-ingress "$h" --to :1 --dst "$bad"
	done
	for bad in mark:x mark:0x10/0x1 mark:1/0 cgroup:/none uid:0 uid:nobody uid:x cgroup:/; do
		tp 2 attach tcx-ingress "$h" --to :1 --except "$bad"
	done
	tp 2 attach tcx-ingress "$h" --proto icmp
	tp 2 attach tcx-ingress "$h" --on-missing maybe
	tp 3 attach tcx-ingress none --to :1
	tp 3 show "$h"
	for verb in "detach" "add $h" "add $h tcp" "add $h tcp any any" "log" "doctor x" "show a b" "register $h"; do
		# shellcheck disable=SC2086
		tp 2 $verb
	done
	tp 3 add "$h" tcp any
	tp 1 --netns nowhere show
	clean
	tp 0 --version
	tp 0 --help
	tp 0 --probe --json --verbose
	json '.ok and (.needs | length) > 3'
}

@test "tproxy: killed at any step of attach, add, register and detach" {
	requires root kernel:6.6
	world veth
	proxy ":$PORT"
	tool="$B/tproxy --netns $h"
	attach="$tool attach tcx-ingress $h --to :$PORT --dst any:80"
	# Either nothing is attached, and doctor leaves nothing; or what is does its work, and the
	# same call finds nothing to do or finishes it.
	cat >"$BATS_TEST_TMPDIR/check" <<-END
		#!/bin/bash
		set -e
		if $tool show $h >/dev/null 2>&1; then
			ip netns exec $p $B/tests/proxy ask -t $((10000 * TIMEOUT_FACTOR)) tcp $far4:80 >/dev/null
		else
			$tool doctor --fix >/dev/null
			[ "\$($tool doctor)" = "no problems" ]
			for f in $PIN/tproxy/*; do [ ! -e "\$f" ]; done
			[[ \$(ip -n $h rule) != *29808* ]]
		fi
	END
	chmod +x "$BATS_TEST_TMPDIR/check"
	TIMEOUT_FACTOR=$((TIMEOUT_FACTOR * 10)) tool 0 "$B/tests/killer" -u "$BATS_TEST_TMPDIR/check" \
		-s "$tool detach $h --ignore-missing" -A "$attach"
	((output >= 12)) || fail "only $output kills"
	TIMEOUT_FACTOR=$((TIMEOUT_FACTOR * 10)) tool 0 "$B/tests/killer" -u "$BATS_TEST_TMPDIR/check" \
		-s "$attach" -A "$tool detach $h"
	((output >= 8)) || fail "only $output kills"
	# the old rules or the new ones
	TIMEOUT_FACTOR=$((TIMEOUT_FACTOR * 10)) tool 0 "$B/tests/killer" -u "$BATS_TEST_TMPDIR/check" \
		-s "$attach" -A "$tool add $h tcp $far4:81"
	((output >= 4)) || fail "only $output kills"
	TIMEOUT_FACTOR=$((TIMEOUT_FACTOR * 10)) tool 0 "$B/tests/killer" -u "$BATS_TEST_TMPDIR/check" \
		-s "$tool register $h --clear" -A "$tool register $h --pid $proxy"
	((output >= 4)) || fail "only $output kills"
	tp 0 detach "$h"
	clean
}

# bats test_tags=stock
@test "tproxy: --probe tells what this kernel has" {
	requires root kernel:6.6 tool:jq
	tool 0 "$B/tproxy" --probe -j
	json '.ok and ([.needs[] | select(.present) | .name] | contains(["tcx", "routing rules", "tcx-ingress"]))'
	tool 2 "$B/tproxy" --probe show
}

# bats test_tags=unpatched
@test "tproxy: without the patches the other hooks are refused, and nothing is attached" {
	requires root kernel:6.7 tool:jq
	world l3
	for hook in netkit-peer netkit-primary tcx-egress; do
		tp 4 attach "$hook" "$h" --to ":$PORT"
		[[ $stderr == *"kernel/tproxy/0010"*"nothing is attached"* ]]
	done
	clean
	tool 0 "$B/tproxy" --probe -j
	json '[.needs[] | select(.present | not) | .name] == ["tcx-egress", "netkit-peer", "netkit-primary"] and
		all(.needs[] | select(.present | not); .optional)'
}
