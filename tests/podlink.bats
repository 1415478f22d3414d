# SPDX-License-Identifier: GPL-2.0-only
# Links for pods: two pods, an uplink and the world behind it; what forwards and what
# does not; and what is left when a part goes, or the tool is killed.
# nodebug: about the tool, in the kernel it is what other tests here do.
bats_require_minimum_version 1.5.0
load helpers

setup() {
	a=$(name a) b=$(name b) w=$(name w) x=$(name x) y=$(name y) up=$(name up)
	ip -batch - <<-END
		netns add $a
		netns add $b
		netns add $w
		link add $up type veth peer name $w netns $w
	END
	topo_up "$w" "$w" 192.0.2.9/24 2001:db8::9/64
	ip -batch - <<-END
		link set $up up
		addr add 192.0.2.1/24 dev $up
		addr add 2001:db8::1/64 dev $up nodad
	END
	ip -n "$a" link set lo up
	ip -n "$b" link set lo up
	ip -n "$w" route add 10.0.0.0/24 via 192.0.2.1
	ip -n "$w" route add fd00::/64 via 2001:db8::1
}

teardown() {
	topo_down
	[ ! -e "$PIN/podlink" ] || "$B/podlink" doctor --fix >/dev/null || :
}

pl() { local rc=$1; shift; tool "$rc" "$B/podlink" "$@"; }
json() { jq -e "$@" <<<"$output"; }
to_a=(--addr 10.0.0.2/32 --addr fd00::2/128 --gateway 10.0.0.1 --gateway fd00::1)
to_b=(--addr 10.0.0.3/32 --addr fd00::3/128 --gateway 10.0.0.1 --gateway fd00::1)

# probe A B FLOW...
probe() { tool 0 "$B/tests/traffic" -a "$1" -b "$2" probe "${@:3}"; }

# flows SRC SRC6 DST DST6: TCP, UDP and ICMP of both families
flows() {
	local p
	for p in tcp udp; do
		printf '%s\n' "$p $1 > $3:80 = pass" "$p [$2] > [$4]:80 = pass"
	done
	printf '%s\n' "icmp $1 > $3 = pass" "icmp [$2] > [$4] = pass"
}

# forwarded: packets that the host's own stack has forwarded, both families
forwarded() {
	local name n rest
	read -r name n < <(awk '/^Ip:/ { getline; print "v4", $7; exit }' /proc/net/snmp)
	while read -r name rest; do
		[ "$name" != Ip6OutForwDatagrams ] || n=$((n + rest))
	done </proc/net/snmp6
	echo "$n"
}

# left: fail when podlink has left something on the host or in the pods
left() {
	local f
	pl 0 doctor
	[ -z "$output" ] || fail "doctor found something"
	for f in "$PIN"/podlink/* /sys/class/net/"$x" /sys/class/net/"$y"; do
		[ ! -e "$f" ] || fail "left behind: $f" || return
	done
}

gone() { [ ! -e "/sys/class/net/$x" ]; }

# everywhere ADD-OPTION-A... -- ADD-OPTION-B...: all paths between the pods, the host and the
# world, by the shortest way, and counters that add up
everywhere() {
	local options=() list before
	while [ "$1" != -- ]; do options+=("$1"); shift; done
	shift
	pl 0 add "$x" --netns "$a" "${to_a[@]}" --forward --uplink "$up" "${options[@]}"
	pl 0 add "$y" --netns "$b" "${to_b[@]}" --forward --uplink "$up" "$@"
	before=$(forwarded)
	mapfile -t list < <(flows 10.0.0.2 fd00::2 10.0.0.3 fd00::3; flows 10.0.0.3 fd00::3 10.0.0.2 fd00::2)
	probe "$a" "$b" "${list[@]}"
	mapfile -t list < <(flows 10.0.0.2 fd00::2 192.0.2.9 2001:db8::9
		flows 192.0.2.9 2001:db8::9 10.0.0.2 fd00::2)
	probe "$a" "$w" "${list[@]}"
	mapfile -t list < <(flows 10.0.0.3 fd00::3 192.0.2.9 2001:db8::9)
	probe "$b" "$w" "${list[@]}"
	# Until the uplink's neighbour is known, and no longer, the stack resolves it: then
	# bpf_redirect_neigh() does, and nothing is forwarded by the stack at all.
	[ "$(forwarded)" = "$before" ] || fail "forwarded by the stack: $before, $(forwarded)"
	mapfile -t list < <(flows 192.0.2.1 2001:db8::1 10.0.0.2 fd00::2
		flows 10.0.0.2 fd00::2 192.0.2.1 2001:db8::1)
	probe "/proc/self/ns/net" "$a" "${list[@]}"
	mapfile -t list < <(flows 192.0.2.1 2001:db8::1 10.0.0.3 fd00::3)
	probe "/proc/self/ns/net" "$b" "${list[@]}"
	pl 0 doctor
	[ -z "$output" ]
	pl 0 show -j
	# what one end sends and the other receives; a redirect takes it from the one, or brings
	# it to the other (a veth's host end sees all that the pod sends)
	json '([.links[] | .pod.counters.rx_packets - .host.counters.tx_packets] | add) ==
			.links[0].forward.uplink.in.packets and
		all(.links[]; .forward.counters as $c | .pod.counters.tx_packets ==
			.host.counters.rx_packets + (if .type == "veth" then 0 else
			$c.to_pod.packets + $c.to_uplink.packets + $c.answered.packets end)) and
		all(.links[]; .forward.counters | .to_pod.packets > 10 and .to_uplink.packets > 5 and
			.to_stack.packets > 5 and .from_stack.packets > 5 and .denied.packets == 0)'
	json 'all(.links[]; (.forward.counters.answered.packets > 0) == (.mode != "l3"))'
	pl 0 del "$x"
	pl 0 del "$y"
	left
}

# bats test_tags=stock
@test "podlink: netkit in L3 mode forwards between pods, host and world" {
	requires root kernel:6.7 tool:jq
	everywhere --
}

@test "podlink: netkit in L2 mode answers for the gateway" {
	requires root kernel:6.7 tool:jq
	everywhere --mode l2 --mac 02:00:00:00:00:01 --peer-mac 02:00:00:00:00:02 -- --mode l2
}

@test "podlink: veth, and netkit beside veth" {
	requires root kernel:6.7 tool:jq
	everywhere --type veth -- --type veth
	everywhere --type veth -- --mode l3
}

@test "podlink: hop limits and sizes are the stack's to answer" {
	requires root kernel:6.7 tool:python3
	pl 0 add "$x" --netns "$a" "${to_a[@]}" --forward --mtu 9000
	pl 0 add "$y" --netns "$b" "${to_b[@]}" --forward
	tool 0 /sbin/ip netns exec "$a" python3 - <<-'END'
		import errno, socket, time

		# of IPv4 and IPv6: hop limit, errors wanted, path MTU discovery, path MTU
		families = ((socket.AF_INET, socket.IPPROTO_IP, 2, 11, 10, 14, '10.0.0.3'),
		            (socket.AF_INET6, socket.IPPROTO_IPV6, 16, 25, 23, 24, 'fd00::3'))

		def until(what, wanted, seen):
		    for _ in range(200):
		        if seen() == wanted:
		            return
		        time.sleep(.05)
		    raise SystemExit(f'{what}: not {wanted}')

		for family, level, ttl, recverr, discover, mtu, dst in families:
		    # the pod refuses a datagram that reaches it, the host one that does not
		    for hops, wanted in ((2, errno.ECONNREFUSED), (1, errno.EHOSTUNREACH)):
		        s = socket.socket(family, socket.SOCK_DGRAM)
		        s.setsockopt(level, recverr, 1)
		        s.setsockopt(level, ttl, hops)
		        s.connect((dst, 9))
		        s.send(b'x')
		        until(f'{dst} by {hops} hops', wanted,
		              lambda: s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
		    # one that does not fit is answered with the size that does
		    s = socket.socket(family, socket.SOCK_DGRAM)
		    s.setsockopt(level, discover, 2)
		    s.connect((dst, 9))
		    s.send(b'x' * 3000)
		    until(f'path MTU to {dst}', 1500, lambda: s.getsockopt(level, mtu))
	END
	# without an uplink the world is left to the stack
	pl 0 show "$x" -j
	jq -e '.links[0].forward | .counters.to_uplink.packets == 0 and (has("uplink") | not)' \
		<<<"$output"
	pl 0 del "$x"
	pl 0 del "$y"
	left
}

@test "podlink: a NIC's sum over the whole packet stays right" {
	requires root kernel:6.18 tool:jq
	local peer uplink
	pl 0 add "$x" --netns "$a" "${to_a[@]}" --forward --uplink "$up"
	pl 0 add "$y" --netns "$b" "${to_b[@]}" --forward
	pl 0 show "$x" -j
	read -r peer uplink < <(jq -r '.links[0].forward | "\(.programs.peer) \(.uplink.program)"' \
		<<<"$output")
	hop() { # PROGRAM DEV SRC DST: it is redirected, with a hop less
		tool 0 "$B/tests/hop" "$@"
		[ "$output" = "verdict 7 hops 63" ]
	}
	# to a pod, out of the uplink, and in by the uplink
	hop "$peer" "$x" 10.0.0.2 10.0.0.3
	hop "$peer" "$x" fd00::2 fd00::3
	hop "$peer" "$x" 10.0.0.2 192.0.2.9
	hop "$peer" "$x" fd00::2 2001:db8::9
	hop "$uplink" lo 192.0.2.9 10.0.0.3
	hop "$uplink" lo 2001:db8::9 fd00::3
	pl 0 del "$x"
	pl 0 del "$y"
	left
}

@test "podlink: a source that is not the pod's own is left to the stack" {
	requires root kernel:6.7 tool:jq
	pl 0 add "$x" --netns "$a" "${to_a[@]}" --addr 10.0.0.4/32 --addr fd00::4/128 --forward \
		--uplink "$up"
	pl 0 add "$y" --netns "$b" "${to_b[@]}" --forward --uplink "$up"
	ip -n "$a" addr add 10.0.0.77/32 dev lo
	ip -n "$a" addr add fd00::77/128 dev lo nodad
	from() { # LAST-DIGITS...: to the world, and to the other pod, by both families
		tool 0 /sbin/ip netns exec "$a" python3 - "$@" <<-'END'
			import socket
			import sys
			for n in sys.argv[1:]:
			    for family, net, dst in ((socket.AF_INET, '10.0.0.', '192.0.2.9'),
			                             (socket.AF_INET6, 'fd00::', '2001:db8::9'),
			                             (socket.AF_INET, '10.0.0.', '10.0.0.3'),
			                             (socket.AF_INET6, 'fd00::', 'fd00::3')):
			        s = socket.socket(family, socket.SOCK_DGRAM)
			        s.bind((net + n, 0))
			        s.sendto(b'x', (dst, 9))
		END
		pl 0 show "$x" -j
	}
	from 77
	json '.links[0].forward.counters | .to_uplink.packets == 0 and .to_pod.packets == 0 and
		.to_stack.packets >= 4'
	# nor is another pod's address its own
	ip -n "$a" addr add 10.0.0.3/32 dev lo
	ip -n "$a" addr add fd00::3/128 dev lo nodad
	from 3
	json '.links[0].forward.counters | .to_uplink.packets == 0 and .to_pod.packets == 0'
	# all that are
	ip -n "$a" addr del 10.0.0.3/32 dev lo
	ip -n "$a" addr del fd00::3/128 dev lo
	from 2 4
	json '.links[0].forward.counters | .to_uplink.packets == 4 and .to_pod.packets == 4'
	pl 0 del "$x"
	pl 0 del "$y"
	left
}

@test "podlink: what is asked for is what both ends get" {
	requires root kernel:6.7 tool:jq
	pl 0 add "$x" --netns "$a" --mode l2 --peer-name net0 --mac 02:00:00:00:00:01 \
		--peer-mac 02:00:00:00:00:02 --mtu 8000 --gso-max 131072 --headroom 64 --tailroom 32 \
		--policy drop --peer-policy pass --scrub none --addr 10.0.0.2/24 --addr fd00::2/64
	pl 0 show "$x" -j
	json --arg a "$a" '.links[0] | .mode == "l2" and .policy == "drop" and .peer_policy == "pass" and
		.scrub == "none" and .peer_scrub == "none" and .headroom == 64 and .tailroom == 32 and
		.netns == $a and .forward == null and
		(.host | .up and .mac == "02:00:00:00:00:01" and .mtu == 8000 and .gso_max == 131072 and
			.gso_ipv4_max == 131072) and
		(.pod | .up and .name == "net0" and .mac == "02:00:00:00:00:02" and .mtu == 8000 and
			.gso_max == 131072 and (.addresses | index("10.0.0.2/24") and index("fd00::2/64")))'
	# and by another tool
	tool 0 /sbin/ip -n "$a" -br addr show net0
	[[ $output == *" UP "*10.0.0.2/24*fd00::2/64* ]]
	pl 0 add "$x" --netns "$a" --mode l2 --peer-name net0 --policy drop --peer-policy pass --scrub none
	[[ $output == *unchanged* ]]
	pl 1 add "$x" --netns "$a" --mode l3 --peer-name net0
	[[ $stderr == *"another mode"* ]]
	pl 1 add "$x" --netns "$b" --mode l2 --peer-name net0 --policy drop --peer-policy pass --scrub none
	[[ $stderr == *"another pod"* ]]
	pl 0 show
	[[ $output == *"$x: netkit l2 policy drop/pass"* ]]
	pl 0 del "$x"
	[ -z "$(ip -n "$a" -br link show type netkit)" ]
	left
}

# bats test_tags=nodebug
@test "podlink: what is missing is completed, and nothing else" {
	requires root kernel:6.7 tool:jq
	pl 0 add "$x" --netns "$a" "${to_a[@]}" --verbose --verbose
	# closed until a program is there
	pl 0 doctor
	[[ $output == *"$x: what the pod sends is dropped"* ]]
	probe "/proc/self/ns/net" "$a" 'udp 192.0.2.1 > 10.0.0.2:9 = oneway'
	pl 0 add "$x" --netns "$a" "${to_a[@]}" --forward
	[[ $output == *complete* ]]
	probe "/proc/self/ns/net" "$a" 'udp 192.0.2.1 > 10.0.0.2:9 = pass'
	ip route del 10.0.0.2 dev "$x"
	pl 1 doctor
	[[ $output == *"$x: the host has no route to 10.0.0.2"* ]]
	pl 0 add "$x" --netns "$a" "${to_a[@]}" --forward
	pl 0 add "$x" --netns "$a" "${to_a[@]}" --forward
	[[ $output == *unchanged* ]]
	pl 0 doctor
	[ -z "$output" ]
	pl 1 add "$x" --netns "$a" "${to_a[@]}" --forward --uplink "$up"
	[[ $stderr == *"another uplink"* ]]
	pl 0 add "$x" --netns "$a" "${to_a[@]}" --addr 10.0.0.4/32 --forward
	[[ $output == *complete* ]]
	probe "/proc/self/ns/net" "$a" 'udp 192.0.2.1 > 10.0.0.4:9 = pass'
	pl 0 show "$x" -j
	json '.links[0].forward.addresses | index("10.0.0.4")'
	# a route of others is in the way
	ip route add 10.0.0.5/32 dev "$up"
	pl 1 add "$y" --netns "$b" --addr 10.0.0.5/32
	[[ $stderr == *"10.0.0.5 by device"* ]]
	[ ! -e "/sys/class/net/$y" ]
	ip route del 10.0.0.5/32
	ip -n "$a" link set eth0 mtu 1400
	pl 1 doctor
	[[ $output == *"MTU 1500 on the host, 1400 in the pod"* ]]
	pl 1 doctor --json
	json '.ok | not'
	pl 0 del "$x"
	left
}

# bats test_tags=nodebug
@test "podlink: another gateway is told, and nothing is changed" {
	requires root kernel:6.7
	ip -n "$b" -batch - <<-END
		link add other type dummy
		addr add 10.5.0.1/24 dev other
		addr add fd05::1/64 dev other nodad
		link set other up
		route add default via 10.5.0.9
		route add default via fd05::9
	END
	# others NAME POD OPTION...: either gateway is another than that of the pod's link
	others() {
		local before
		before=$(ip -n "$2" -br addr; ip -n "$2" route; ip -n "$2" -6 route)
		for gateway in 10.0.0.254 fd00::254; do
			pl 1 add "$1" --netns "$2" --addr 10.0.0.9/32 --gateway "$gateway" "${@:3}"
			[[ $stderr == *"another gateway"* ]]
		done
		[ "$(ip -n "$2" -br addr; ip -n "$2" route; ip -n "$2" -6 route)" = "$before" ]
	}
	# of the pod's own, by another device
	for gateway in 10.0.0.1 fd00::1; do
		pl 1 add "$y" --netns "$b" --gateway "$gateway"
		[[ $stderr == *"$b: has a default route already, by "*5*"::9"* ||
			$stderr == *"$b: has a default route already, by 10.5.0.9 "* ]]
		[ ! -e "/sys/class/net/$y" ]
	done
	[ -z "$(ip -n "$b" -br link show type netkit)" ]
	# of another metric it is not in the way
	ip -n "$b" -batch - <<-END
		route del default
		route add default via 10.5.0.9 metric 50
		route del default via fd05::9
		route add default via fd05::9 metric 50
	END
	pl 0 add "$y" --netns "$b" "${to_b[@]}"
	others "$y" "$b"
	pl 0 add "$y" --netns "$b" "${to_b[@]}"
	[[ $output == *unchanged* ]]
	pl 0 add "$y" --netns "$b" --forward --addr 10.0.0.3/32
	others "$y" "$b" --forward
	# in L3 mode the programs answer for none
	pl 0 add "$y" --netns "$b" "${to_b[@]}" --forward
	pl 0 del "$y"
	# what the programs answer for does not change with a route
	for kind in "--mode l2" "--type veth"; do
		read -r key value <<<"$kind"
		pl 0 add "$x" --netns "$a" "${to_a[@]}" --forward "$key" "$value"
		ip -n "$a" route del default
		ip -n "$a" -6 route del default
		others "$x" "$a" "$key" "$value"
		others "$x" "$a" --forward "$key" "$value"
		pl 0 add "$x" --netns "$a" "${to_a[@]}" --forward "$key" "$value"
		[[ $output == *complete* ]]
		pl 0 del "$x"
	done
	left
}

@test "podlink: netpol in front of it, in both orders of attach" {
	requires root kernel:6.7 tool:jq
	np() { tool 0 "$B/netpol" "$@"; }
	printf '%s\n' 'default deny' 'allow in udp to port 9' 'allow out udp to port 9' \
		'allow in icmp6' 'allow out icmp6' >"$BATS_TEST_TMPDIR/policy"
	judged() {
		probe "$a" "$b" 'udp 10.0.0.2 > 10.0.0.3:8 = drop' 'udp [fd00::2] > [fd00::3]:8 = drop' \
			'udp 10.0.0.2 > 10.0.0.3:9 = pass' 'udp [fd00::2] > [fd00::3]:9 = pass' \
			'udp 10.0.0.3 > 10.0.0.2:9 = pass' 'tcp 10.0.0.3 > 10.0.0.2:9 = drop'
	}
	pl 0 add "$y" --netns "$b" "${to_b[@]}" --forward --uplink "$up"
	# podlink first
	pl 0 add "$x" --netns "$a" "${to_a[@]}" --forward --uplink "$up"
	np attach netkit-peer "$x" --policy "$BATS_TEST_TMPDIR/policy"
	pl 1 doctor
	[[ $output == *"is behind podlink's"* ]]
	np attach netkit-peer "$x" --first
	np attach netkit-primary "$x" --first
	pl 0 doctor
	judged
	pl 0 del "$x"
	np doctor --fix
	# netpol first
	pl 0 add "$x" --netns "$a" "${to_a[@]}"
	np attach netkit-peer "$x" --policy "$BATS_TEST_TMPDIR/policy"
	np attach netkit-primary "$x"
	pl 0 add "$x" --netns "$a" "${to_a[@]}" --forward --uplink "$up"
	pl 0 doctor
	judged
	# the pod's namespace takes the pins of both along
	ip netns del "$a"
	wait_for 10 gone
	pl 0 doctor --fix
	tool 0 "$B/netpol" doctor --fix
	dirs=("$PIN"/podlink/ns*/if*)
	((${#dirs[@]} == 1))
	for f in "$PIN"/netpol/*; do fail "left behind: $f"; done
	pl 0 del "$y"
	ip netns add "$a"
	left
}

# bats test_tags=nodebug
@test "podlink: bad input is refused and changes nothing" {
	requires root kernel:6.7
	pl 2
	pl 2 frobnicate
	pl 2 add "$x"
	[[ $stderr == *--netns* ]]
	pl 2 add "$x" --netns "$a" --type tap
	pl 2 add "$x" --netns "$a" --mode l4
	[[ $stderr == *"--mode takes l2 or l3"* ]]
	pl 2 add "$x" --netns "$a" --mtu 67
	[[ $stderr == *"--mtu takes a number from 68 to 65535"* ]]
	pl 2 add "$x" --netns "$a" --mac 02:00:00:00:00:01
	[[ $stderr == *L3* ]]
	pl 2 add "$x" --netns "$a" --mode l2 --mac 03:00:00:00:00:01
	pl 2 add "$x" --netns "$a" --addr 10.0.0.256/24
	pl 2 add "$x" --netns "$a" --addr 10.0.0.2/33
	pl 2 add "$x" --netns "$a" --gateway 10.0.0.1/24
	pl 2 add "$x" --netns "$a" --type veth --headroom 64
	pl 2 add "$x" --netns "$a" --forward
	pl 2 add "$x" --netns "$a" --uplink "$up"
	pl 2 add sixteen-letters-- --netns "$a"
	pl 2 add "$x" --netns "./$a"
	pl 1 add "$x" --netns /no/such/file
	pl 1 add "$x" --netns /proc/self/ns/net
	mkfifo "$BATS_TEST_TMPDIR/fifo"
	pl 1 add "$x" --netns "$BATS_TEST_TMPDIR/fifo"
	pl 1 add "$x" --netns "$a" "${to_a[@]}" --forward --uplink no-such-device
	pl 1 add "$x" --netns "$w" --peer-name "$w"
	[[ $stderr == *"$w"*exists* ]]
	pl 2 set "$x" mtu
	pl 2 set "$x" colour 3
	pl 2 set "$x" mtu 70000
	# under ip netns exec there is no bpffs
	tool 1 /sbin/ip netns exec "$a" "$B/podlink" show
	[[ $stderr == *"no BPF file system"*nsenter* ]]
	pl 3 set "$x" mtu 9000
	pl 3 show "$x"
	pl 3 del "$x"
	pl 0 del "$x" --ignore-missing
	# of others
	"$B/tests/mklink" "$x" "$y"
	pl 1 del "$x"
	[[ $stderr == *"not a link of podlink"* ]]
	pl 1 add "$x" --netns "$a"
	pl 1 del "$up"
	ip link del "$x"
	pl 0 add "$x" --netns "$a" "${to_a[@]}" --forward --dry-run
	[[ $output == *would* ]]
	tool 0 "$B/podlink" --probe
	tool 0 "$B/podlink" --version
	tool 0 "$B/podlink" --help
	[[ $output == *EXAMPLES* ]]
	# an address belongs to one pod
	pl 0 add "$x" --netns "$a" "${to_a[@]}" --forward
	pl 1 add "$y" --netns "$b" --addr 10.0.0.2/32 --forward
	[[ $stderr == *10.0.0.2* ]]
	[ -z "$(ip -n "$b" -br link show type netkit)" ]
	pl 0 del "$x" --dry-run
	pl 0 del "$x"
	left
}

@test "podlink: it waits for another one that changes something" {
	requires root kernel:6.7 tool:flock
	local lock pid
	mkdir -p "$PIN/podlink"
	exec {lock}<"$PIN/podlink"
	flock "$lock"
	"$B/podlink" add "$x" --netns "$a" -v 2>"$BATS_TEST_TMPDIR/waits" {lock}<&- 3>&- 4>&- &
	pid=$!
	wait_for 10 grep -q 'waiting for another podlink' "$BATS_TEST_TMPDIR/waits"
	# who only says what would change does not
	pl 0 add "$y" --netns "$b" --dry-run
	[ ! -e "/sys/class/net/$x" ]
	exec {lock}<&-
	wait "$pid"
	pl 0 del "$x"
	left
}

# bats test_tags=unpatched
@test "podlink: set needs a kernel that can, and else changes nothing" {
	requires root kernel:6.7 tool:jq
	pl 0 add "$x" --netns "$a"
	pl 0 show "$x" -j
	before=$output
	for what in "mtu 9000 0002" "gso-max 131072 0003" "headroom 64 0004" "tailroom 64 0004"; do
		read -r key value patch <<<"$what"
		pl 4 set "$x" "$key" "$value"
		[[ $stderr == *"kernel/podlink/$patch"* ]]
	done
	pl 0 show "$x" -j
	[ "$(jq 'del(.. | .counters?)' <<<"$output")" = "$(jq 'del(.. | .counters?)' <<<"$before")" ]
	pl 0 del "$x"
}

@test "podlink: set reaches the pod, where the kernel can" {
	requires root patch:podlink/0004 tool:jq
	pl 0 add "$x" --netns "$a" "${to_a[@]}" --forward --uplink "$up"
	pl 0 set "$x" mtu 9000
	pl 0 set "$x" mtu 9000
	[[ $output == *unchanged* ]]
	pl 0 set "$x" gso-max 131072 --dry-run
	[[ $output == *"would change gso-max from 65536 to 131072"* ]]
	pl 0 set "$x" gso-max 131072
	pl 0 set "$x" headroom 64
	pl 0 set "$x" tailroom 32
	pl 2 set "$x" headroom 1025
	pl 2 set "$x" gso-max 524281
	pl 0 show "$x" -j
	json '.links[0] | .headroom == 64 and .tailroom == 32 and
		all(.host, .pod; .mtu == 9000 and .gso_max == 131072 and .gso_ipv4_max == 131072)'
	pl 0 doctor
	[ -z "$output" ]
	probe "$a" "$w" 'tcp 10.0.0.2 > 192.0.2.9:80 = pass' 'tcp [fd00::2] > [2001:db8::9]:80 = pass'
	pl 0 --probe -j
	json '.ok and all(.needs[]; .present)'
	pl 0 del "$x"
	left
}

@test "podlink: set refuses a veth, of which it could change one end only" {
	requires root kernel:6.6 tool:jq
	pl 0 add "$x" --netns "$a" --type veth
	pl 0 show "$x" -j
	before=$output
	for what in "mtu 9000" "gso-max 32768"; do
		read -r key value <<<"$what"
		pl 1 set "$x" "$key" "$value"
		[[ $stderr == *"neither was changed"*"in $a"* ]]
		pl 1 set "$x" "$key" "$value" --dry-run
	done
	pl 1 set "$x" headroom 64
	pl 1 set "$x" tailroom 64
	[[ $stderr == *"has no tailroom"* ]]
	pl 0 show "$x" -j
	[ "$(jq 'del(.. | .counters?)' <<<"$output")" = "$(jq 'del(.. | .counters?)' <<<"$before")" ]
	pl 0 del "$x"
	left
}

@test "podlink: a part that goes takes the rest along" {
	requires root kernel:6.7
	both() {
		pl 0 add "$x" --netns "$a" "${to_a[@]}" --forward --uplink "$up"
		pl 0 add "$y" --netns "$b" "${to_b[@]}" --forward --uplink "$up"
		probe "$a" "$b" 'udp 10.0.0.2 > 10.0.0.3:9 = pass'
	}
	swept() {
		wait_for 10 gone
		pl 0 doctor
		[[ $output == *"1 links that are gone"* && $output != *other* ]]
		pl 0 doctor --fix
		pl 0 doctor
		[ -z "$output" ]
		# the other pod is as it was
		probe "$b" "$w" 'udp 10.0.0.3 > 192.0.2.9:9 = pass' 'udp 192.0.2.9 > 10.0.0.3:9 = pass'
		pl 0 del "$y"
		left
	}
	both
	ip -n "$a" link del eth0
	swept
	both
	ip link del "$x"
	swept
	both
	ip link set "$x" netns "$w"
	swept
	ip -n "$w" link del "$x"
	# there it gets another index, here its own goes to a device of somebody else
	both
	read -r index <"/sys/class/net/$x/ifindex"
	ip -n "$w" link add taken index "$index" type dummy
	ip link set "$x" netns "$w"
	z=$(name z)
	ip link add "$z" index "$index" type veth peer name "p$z" index "$((index + 1000))"
	swept
	ip link del "$z"
	ip -n "$w" link del "$x"
	both
	ip netns del "$a"
	swept
	ip netns add "$a"
	ip -n "$a" link set lo up
	# a new name is no loss
	both
	ip link set "$x" down
	ip link set "$x" name "r$x"
	ip link set "r$x" up
	pl 1 doctor
	[[ $output == *"no route"* ]]
	pl 0 add "r$x" --netns "$a" "${to_a[@]}" --forward --uplink "$up"
	pl 0 doctor
	[ -z "$output" ]
	probe "$a" "$b" 'udp 10.0.0.2 > 10.0.0.3:9 = pass'
	pl 0 del "r$x"
	pl 0 del "$y"
	left
}

# bats test_tags=nodebug
@test "podlink: doctor finds the pins of a host that is gone, and spares one that lives" {
	requires root kernel:6.7 tool:jq
	local h g
	h=$(name h) g=$(name g)
	in_ns() { tool 0 nsenter --net="/run/netns/$1" "$B/podlink" "${@:2}"; }
	for n in "$h" "$g"; do
		ip netns add "$n"
		ip -n "$n" -batch - <<-END
			link set lo up
			link add u$n type dummy
			addr add 192.0.2.1/24 dev u$n
			link set u$n up
		END
	done
	in_ns "$h" add one --netns "$a" "${to_a[@]}" --forward --uplink "u$h"
	in_ns "$g" add one --netns "$b" "${to_b[@]}" --forward --uplink "u$g"
	in_ns "$g" add two --netns "$w" --peer-name two --addr 10.0.0.4/32 --forward
	pl 0 add "$x" --netns "$w" --peer-name x --addr 10.0.0.5/32 --forward
	pl 0 doctor
	[ -z "$output" ]
	# a NIC goes home, with the programs at it, when its namespace ends
	ip -n "$h" link set "u$h" netns $$
	ip netns del "$h"
	ip -n "$g" link del two
	found() { pl 0 doctor && [[ $output == *"of 2 other network namespaces; podlink doctor --fix"* ]]; }
	wait_for 10 found
	pl 0 doctor --fix --dry-run
	pl 0 doctor --fix
	[[ $output == *"of 2 other network namespaces, removed"* ]]
	pl 0 doctor
	[ -z "$output" ]
	dirs=("$PIN"/podlink/ns*)
	((${#dirs[@]} == 2))
	dirs=("$PIN"/podlink/ns*/if*)
	((${#dirs[@]} == 2))
	detached() { [ "$("$B/bpftool/bpftool" net show dev "u$h" | grep -c podlink_uplink)" = 0 ]; }
	wait_for 5 detached
	# what lives has lost nothing
	in_ns "$g" doctor
	[ -z "$output" ]
	in_ns "$g" show one -j
	json '.links[0].forward | .uplink != null and (.addresses | length == 2)'
	probe "$g" "$b" 'udp 192.0.2.1 > 10.0.0.3:9 = pass' 'udp 10.0.0.3 > 192.0.2.1:9 = pass'
	in_ns "$g" del one
	pl 0 del "$x"
	ip link del "u$h"
	left
}

# bats test_tags=nodebug
@test "podlink: killed at any step of add and del, it leaves nothing half made" {
	requires root kernel:6.7
	add="$B/podlink add $x --netns $a ${to_a[*]} --forward --uplink $up"
	# Either nothing is there, or a link that the same call completes.
	cat >"$BATS_TEST_TMPDIR/check" <<-END
		#!/bin/bash
		set -e
		if [ -e /sys/class/net/$x ]; then
			$add
			[ -z "\$($B/podlink doctor)" ]
		else
			$B/podlink doctor --fix
			[ -z "\$($B/podlink doctor)" ]
			for f in $PIN/podlink/*/*; do [ ! -e "\$f" ]; done
			[ ! -e /sys/class/net/$x ]
			[ -z "\$(ip -n $a -br link show type netkit)" ]
		fi
	END
	chmod +x "$BATS_TEST_TMPDIR/check"
	export -n BATS_TEST_TMPDIR
	TIMEOUT_FACTOR=$((TIMEOUT_FACTOR * 10)) tool 0 "$B/tests/killer" -u "$BATS_TEST_TMPDIR/check" \
		-s "$B/podlink del $x --ignore-missing" -A "$add"
	((output >= 30)) || fail "only $output kills"
	TIMEOUT_FACTOR=$((TIMEOUT_FACTOR * 10)) tool 0 "$B/tests/killer" -u "$BATS_TEST_TMPDIR/check" \
		-s "$add" -A "$B/podlink del $x"
	((output >= 5)) || fail "only $output kills"
	pl 0 del "$x" --ignore-missing
	left
}

# bats test_tags=nodebug
@test "podlink: bench measures every link on every path, in namespaces of its own" {
	requires root kernel:6.7 tool:jq
	leak_list >"$BATS_TEST_TMPDIR/before"
	TIMEOUT_FACTOR=$((TIMEOUT_FACTOR * 3)) pl 0 bench -j --rounds 2 --count 20 --gso-max 131072 \
		--headroom 160 --tailroom 48
	json '.rounds == 2 and .count == 20 and .skipped == [] and (.rows | length == 158)'
	# each contender on each path, of TCP with each size of its packets, against the host
	json '[.rows[] | select(.path | startswith("tcp") | not) | [.path, .contender]] | unique |
		length == 6 * 4 + 5 * 2 + 6 * 2 + 5 * 2'
	json '[.rows[] | .gso_max // empty] | unique == [1500, 65536, 131072]'
	json 'all(.rows[]; .ns.median > 0 and .ns.min <= .ns.median and .ns.median <= .ns.max and
		(.passes > 0 or .unit == "KiB") and ((.path | contains("pod")) or .ratio.median > 0))'
	# packets are as large as the limit lets them be
	json 'all(.rows[] | select(.gso_max); .packet_bytes <= ([.gso_max, 1514] | max) + 14 and
		(.gso_max == 1500 or .packet_bytes > 1600))'
	# room spares the copy
	json '[.copies[] | [.tunnel, .contender]] | length == 6 and (unique | length == 6)'
	json 'all(.copies[]; if .contender == "netkit-room" then
		.headroom == 160 and .tailroom == 48 and .median < .2 else .median > .8 end)'
	pl 0 bench --rounds 1 --count 10 --paths out,in6 --contenders host,netkit-l2 --seconds 60
	[[ $output == *"out      netkit-l2"*"in6      host"* && $output != *vxlan* && $output != *veth* ]]
	pl 0 bench --rounds 1000 --count 2000 --paths out --contenders host --seconds 1
	[[ $stderr == *"only "*" of 1000 rounds in 1 seconds"* ]]
	pl 2 bench --paths out,sideways
	[[ $stderr == *"'sideways'"* ]]
	pl 2 bench --contenders ''
	pl 2 bench --rounds 0
	pl 2 bench --count 20001
	pl 2 bench here
	leak_check "$BATS_TEST_TMPDIR/before"
	left
}

# bats test_tags=nodebug
@test "podlink: bench without privileges is refused, and killed it leaves nothing" {
	requires root kernel:6.7
	leak_list >"$BATS_TEST_TMPDIR/before"
	tool 1 /usr/bin/setpriv --reuid 65534 --clear-groups "$B/podlink" bench --count 1
	[[ $stderr == *"CAP_SYS_ADMIN"* ]]
	for ((i = 0; i < 4; i++)); do
		"$B/podlink" bench --count 20000 --rounds 1000 >"$BATS_TEST_TMPDIR/out" 2>&1 3>&- 4>&- &
		pid=$!
		pause "0.$((i * 3))"
		kill -9 "$pid"
		wait "$pid" || :
	done
	leak_check "$BATS_TEST_TMPDIR/before"
}
