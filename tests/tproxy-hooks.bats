# SPDX-License-Identifier: GPL-2.0-only
# The same at the hooks that need the series: what a pod sends, before it reaches the host's
# stack (netkit-peer); what is sent to a pod, for a proxy in it (netkit-primary); what leaves
# (tcx-egress).
# What is not for the debug kernel differs little there from what is.
# shellcheck disable=SC2034,SC2317
bats_require_minimum_version 1.5.0
load helpers
load tproxy

teardown() {
	tproxy_teardown
	for f in podlink netpol; do
		[ -z "$(echo "$PIN/$f"/*)" ] || "$B/$f" doctor --fix >/dev/null || :
	done
}

series() {
	requires root patch:tproxy/0010 tool:jq
}

# through: TCP and UDP of both families, to addresses that nobody has, with $hook
through() {
	local before
	served
	TIMEOUT_FACTOR=$((TIMEOUT_FACTOR * 3)) ask ok -s 100000000 tcp "$far4:80"
	# what the packets held is given back
	same() { [ "$(refs)" = "$before" ]; }
	wait_for 5 same || fail "references: $(refs), before: $before"
}

# A group, a foreign listener, a proxy that dies, fragments and what is missing.
troubles() {
	local own before
	attach --to ":$PORT" --proto both --on-missing reset
	kill -9 "$proxy"
	down() { [ -z "$(ip netns exec "$h" ss -Htln "sport = :$PORT")" ]; }
	wait_for 5 down
	ask refused tcp "$far4:80" "[$far6]:80"
	ask refused udp "$far4:80" "[$far6]:80"
	counts '.done.answered.packets == .in_the_way.no_listener.packets'
	attach --to ":$PORT" --proto both
	proxy -T :80
	own=$said
	proxy -n 4 ":$PORT"
	before=$(refs)
	list=()
	for ((i = 1; i <= 16; i++)); do list+=("203.0.113.$i:80" "[2001:db8:7::$i]:80"); done
	ask ok tcp "${list[@]}"
	ask ok udp "${list[@]}"
	(($(grep ^tcp "$said" | sed 's/.* by //' | sort -u | wc -l) >= 3))
	[ "$(grep -c ' > ' "$own")" = 0 ] || fail "stolen:" "$(<"$own")"
	mute -s 3000 udp "$far4:53" "[$far6]:53"
	counts '.in_the_way.fragment.packets == 2 and .in_the_way.not_assigned.packets == 0'
	same() { [ "$(refs)" = "$before" ]; }
	wait_for 5 same || fail "references: $(refs), before: $before"
	# replaced under traffic, and closed with packets on their way
	hold tcp "$far4:80" "[$far6]:80"
	wait_for 10 rounds 2 ' ok$'
	attach --to ":$PORT" --dst 198.51.100.0/24
	echo >&9
	wait_for 10 rounds 4 ' ok$'
	kill -9 "$proxy"
	echo >&9
	wait_for 10 rounds 2 ' (closed|reset)$'
	kill "$holder"
	tp 0 detach "$h"
	clean
	mute tcp "$far4:80"
}

# bats test_tags=nodebug
@test "tproxy: netkit-peer in L2 mode" {
	series
	hook=netkit-peer
	world l2
	through
	troubles
}

@test "tproxy: netkit-peer in L3 mode, with the mark kept or cleared" {
	series
	hook=netkit-peer
	topo netkit h p mode l3 scrub none peer-scrub none
	ip -n "$p" -batch - <<-END
		route add default dev $p
		route add ::/0 dev $p
	END
	through
	tp 0 detach "$h"
	topo_down
	world l3
	through
	troubles
}

# net FILE VALUE: a sysctl of the host
net() { ip netns exec "$h" bash -c "echo $2 >/proc/sys/net/$1"; }

# egress veth|l2|l3: what the pod sends is forwarded by the host, and leaves by $h's device
egress() {
	local up
	hook=tcx-egress
	world "$1"
	# the pod stays behind a device of its own; the uplink has the name that the rest knows
	up=$(name u) q=$(name q)
	ip -n "$h" link set "$h" down
	ip -n "$h" link set "$h" name "$up"
	ip -n "$h" link set "$up" up
	# it lost that while it was down
	ip -n "$h" addr replace fd00::1/64 dev "$up" nodad
	ip netns add "$q"
	if [ "$1" = veth ]; then
		ip link add "$h" netns "$h" type veth peer name "$q" netns "$q"
	else
		"$B/tests/mklink" "$h" "$q" netns "$q" mode "$1"
		ip link set "$h" netns "$h"
	fi
	topo_up "$h" "$h" 192.0.2.1/24 2001:db8::1/64
	topo_up "$q" "$q" 192.0.2.9/24 2001:db8::9/64
	ip -n "$h" -batch - <<-END
		route add default via 192.0.2.9
		route add ::/0 via 2001:db8::9
	END
	net ipv4/ip_forward 1
	net ipv6/conf/all/forwarding 1
}

# bats test_tags=nodebug
@test "tproxy: tcx-egress, what the host forwards" {
	series
	for kind in veth l2; do
		egress "$kind"
		proxy ":$PORT"
		attach --to ":$PORT"
		[[ $stderr == *tcp_early_demux* ]]
		tp 1 doctor
		[[ $output == *tcp_early_demux* ]]
		tp 0 detach "$h"
		kill "$proxy"
		net ipv4/tcp_early_demux 0
		through
		[ -z "$stderr" ]
		troubles
		topo_down
	done
}

# own KIND: what the host itself sends
own() {
	hook=tcx-egress
	world "$1"
	if [ "$1" = l3 ]; then
		ip -n "$h" -batch - <<-END
			route add default dev $h
			route add ::/0 dev $h
		END
	else
		ip -n "$h" -batch - <<-END
			route add default via 10.0.0.2
			route add ::/0 via fd00::2
		END
	fi
	client=$h
}

@test "tproxy: tcx-egress, what the host itself sends" {
	series
	for kind in veth l2 l3; do
		own "$kind"
		proxy ":$PORT"
		attach --to ":$PORT" --proto both
		# its own addresses are taken for forged unless told otherwise
		mute tcp "$far4:80"
		tp 0 doctor
		[[ $output == *accept_local* ]]
		net "ipv4/conf/$h/accept_local" 1
		ask ok tcp "$far4:80" "[$far6]:443"
		ask ok udp "$far4:53" "[$far6]:53"
		said "^tcp 10[.]0[.]0[.]1:[0-9]+ > $far4:80 "
		said "^udp \[fd00::1\]:[0-9]+ > \[$far6\]:53 "
		TIMEOUT_FACTOR=$((TIMEOUT_FACTOR * 3)) ask ok -s 30000000 tcp "$far4:80"
		attach --to ":$PORT" --proto both --on-missing reset
		kill -9 "$proxy"
		down() { [ -z "$(ip netns exec "$h" ss -Htln "sport = :$PORT")" ]; }
		wait_for 5 down
		ask refused tcp "$far4:80" "[$far6]:80"
		ask refused udp "$far4:80" "[$far6]:80"
		tp 0 detach "$h"
		clean
		topo_down
	done
}

@test "tproxy: senders that are excepted, and the proxy's own connections, pass by" {
	series
	requires tool:haproxy
	own l2
	# the world is the pod's namespace here
	ip -n "$p" addr add "$far4/32" dev lo
	h=$p proxy -T :80
	world=$said
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
	net "ipv4/conf/$h/accept_local" 1
	ip netns exec "$h" haproxy -db -f "$BATS_TEST_TMPDIR/cfg" >"$BATS_TEST_TMPDIR/haproxy" 2>&1 3>&- 4>&- &
	up() { [ "$(ip netns exec "$h" ss -Htln "sport = :$PORT")" ]; }
	wait_for 10 up || fail "$(<"$BATS_TEST_TMPDIR/haproxy")"
	mkdir -p "/sys/fs/cgroup/$h/below"
	attach --to "127.0.0.1:$PORT" --dst "$far4" --except uid:12345 --except "cgroup:/$h" --except mark:7
	# through the proxy, which connects with a transparent socket: no loop
	ask ok tcp "$far4:80"
	counts '.given.connections.packets == 1 and .passed_by.by_proxy.packets > 3 and
		.passed_by.by_sender.packets == 0'
	said=$world
	said "^tcp 10[.]0[.]0[.]1:[0-9]+ > $far4:80 "
	bare=(ip netns exec "$h" "$B/tests/proxy" ask tcp "$far4:80")
	tool 0 /usr/bin/setpriv --reuid 0 ip netns exec "$h" setpriv --reuid 12345 --clear-groups \
		"$B/tests/proxy" ask tcp "$far4:80"
	counts '.given.connections.packets == 1 and .passed_by.by_sender.packets > 3'
	tool 0 /bin/bash -c 'echo $$ >"/sys/fs/cgroup/$0/below/cgroup.procs" && exec "$@"' "$h" "${bare[@]}"
	counts '.given.connections.packets == 1'
	tp 0 del "$h" except "cgroup:/$h"
	tool 0 /bin/bash -c 'echo $$ >"/sys/fs/cgroup/$0/below/cgroup.procs" && exec "$@"' "$h" "${bare[@]}"
	counts '.given.connections.packets == 2'
	tp 0 add "$h" except "cgroup:$h/below"
	rmdir "/sys/fs/cgroup/$h/below" "/sys/fs/cgroup/$h"
	tp 1 doctor
	[[ $output == *"cgroup:$h/below is gone"* ]]
	tp 0 detach "$h"
	clean
}

@test "tproxy: netkit-primary, a proxy in the pod for what is sent to it" {
	series
	hook=netkit-primary
	for kind in l2 l3; do
		topo netkit h p mode "$kind"
		client=$h
		# it needs no privileges, since the addresses are its own, and no routes
		tp 0 attach netkit-primary "$h" --to ":$PORT" --proto both --dst 10.0.0.2:80 --dst "[fd00::2]:80"
		proxy=$h h=$p
		proxy -T ":$PORT"
		h=$(name h)
		ask ok tcp 10.0.0.2:80 "[fd00::2]:80"
		ask ok udp 10.0.0.2:80 "[fd00::2]:80"
		said "^tcp 10[.]0[.]0[.]1:[0-9]+ > 10[.]0[.]0[.]2:80 "
		ask refused tcp 10.0.0.2:81
		# a probe of the host's own
		tp 0 add "$h" except uid:12345
		tool 1 /sbin/ip netns exec "$h" setpriv --reuid 12345 --clear-groups \
			"$B/tests/proxy" ask tcp 10.0.0.2:80
		[ "$output" = "10.0.0.2:80 refused" ]
		counts '.passed_by.by_sender.packets > 0'
		for ns in "$h" "$p"; do [[ $(ip -n "$ns" rule) != *29808* ]]; done
		tp 0 register "$h" --pid "$proxy"
		ask ok tcp 10.0.0.2:80
		tp 0 doctor
		tp 0 detach "$h"
		clean
		ask refused tcp 10.0.0.2:80
		topo_down
	done
}

# large: segments as large as the stack sends, from the sender's own pages too; a round of
# packets that a device would cut up is one packet for the program
large() {
	local z size=$((TIMEOUT_FACTOR > 3 ? 2000000 : 20000000))	# less on the debug kernel
	proxy ":$PORT"
	attach --to ":$PORT" --proto both
	for z in '' -z; do
		# shellcheck disable=SC2086
		TIMEOUT_FACTOR=$((TIMEOUT_FACTOR * 3)) ask ok $z -s "$size" tcp "$far4:80" "[$far6]:80"
	done
	counts '.given.established | .bytes / .packets > 4000'
	ask ok -z udp "$far4:80" "[$far6]:80"
	counts '.given.datagrams.packets == 2'
	tool 0 /sbin/ip netns exec "${client:-$p}" python3 - "$far4" "$far6" <<-'END'
		import os, socket, sys
		for addr in sys.argv[1:]:
		    s = socket.socket(socket.AF_INET6 if ':' in addr else socket.AF_INET, socket.SOCK_DGRAM)
		    s.setsockopt(17, 103, 1000)	# UDP_SEGMENT
		    s.settimeout(60)
		    s.connect((addr, 80))
		    sent = os.urandom(8000)
		    s.send(sent)
		    assert sorted(s.recv(2000) for _ in range(8)) == sorted(
		        sent[i:i + 1000] for i in range(0, 8000, 1000))
	END
	counts '.given.datagrams.packets == 4'
	tp 0 detach "$h"
	clean
}

@test "tproxy: large segments, and those of the sender's own pages" {
	series
	requires tool:python3
	hook=netkit-peer
	world l3
	large
	topo_down
	own veth
	net "ipv4/conf/$h/accept_local" 1
	large
}

# bats test_tags=nodebug
@test "tproxy: netkit-peer, in front of podlink's program and behind a policy" {
	series
	hook=netkit-peer
	ip netns add "$h"
	ip netns add "$p"
	ip -n "$h" link set lo up
	tool 0 nsenter --net="/run/netns/$h" "$B/podlink" add "$h" --netns "$p" --addr 10.0.0.2/32 \
		--gateway 10.0.0.1 --forward
	printf '%s\n' 'default next' 'deny in tcp to port 81' >"$BATS_TEST_TMPDIR/np"
	tool 0 "$B/netpol" --netns "$h" attach netkit-peer "$h" --first --policy "$BATS_TEST_TMPDIR/np"
	proxy ":$PORT"
	attach --to ":$PORT"
	ask ok tcp "$far4:80"
	mute tcp "$far4:81"
	counts '.given.connections.packets == 1'
	tp 0 doctor
	[ "$output" = "no problems" ]
	tp 0 detach "$h"
	tool 0 "$B/netpol" --netns "$h" detach netkit-peer "$h"
	tool 0 nsenter --net="/run/netns/$h" "$B/podlink" del "$h"
	clean
}

# bats test_tags=nodebug
@test "tproxy: netkit hooks are for the primary device, and one hook is enough" {
	series
	world l3
	tp 0 attach netkit-peer "$h" --to ":$PORT"
	tp 1 attach tcx-ingress "$h" --to ":$PORT"
	[[ $stderr == *"is attached at netkit-peer"* ]]
	h=$p tp 1 attach netkit-peer "$p" --to ":$PORT"
	[[ $stderr == *"primary"* ]]
	tp 0 detach "$h"
	clean
	h=$p clean
	topo_down
	world veth
	tp 1 attach netkit-peer "$h" --to ":$PORT"
	[[ $stderr == *"primary"* ]]
	clean
}
