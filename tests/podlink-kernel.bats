# SPDX-License-Identifier: GPL-2.0-only
# The patches in kernel/podlink: what the host sets on its end of a pair holds at both,
# while packets flow. The host's namespace and device are called h, the pod's p.
bats_require_minimum_version 1.5.0
load helpers

setup() {
	h=$(name h) p=$(name p) c=$(name c) x=$(name x)
	mkdir -p /sys/fs/bpf/test
}

teardown() {
	rm -rf /sys/fs/bpf/test
	[ ! -e "$EXPAND" ] || expand_unwatched
	topo_down
}

# Not plain ip, for which the time limit of `tool`, busybox, has an applet.
# show NAME: the device of that name in the namespace of that name, by tests/setlink
show() { tool 0 nsenter --net="/run/netns/$1" "$B/tests/setlink" "$1"; }

# is NAME KEY VALUE...
is() {
	local name=$1
	shift
	show "$name" || return
	while (($#)); do
		[[ " $output " == *" $1 $2 "* ]] || fail "$name: $1 is not $2: $output" || return
		shift 2
	done
}

# both KEY VALUE...: at both ends
both() { is "$h" "$@" && is "$p" "$@"; }

# set_link STATUS NAME KEY VALUE...
set_link() { tool "$1" nsenter --net="/run/netns/$2" "$B/tests/setlink" "$2" "${@:3}"; }

# mtu NAME VALUE: set it
mtu() { tool 0 /sbin/ip -n "$1" link set "$1" mtu "$2"; }

# mtus HOST POD: what they are
mtus() {
	tool 0 /sbin/ip -n "$h" link show dev "$h"
	[[ $output == *" mtu $1 "* ]] || fail "$h: not $1" || return
	tool 0 /sbin/ip -n "$p" link show dev "$p"
	[[ $output == *" mtu $2 "* ]] || fail "$p: not $2"
}

# bulk ADDRESS: a TCP connection from the pod to the host
bulk() {
	coproc BULK { exec "$B/tests/bulk" -a "$p" -b "$h" -d "$h" "$1" 3>&- 4>&-; }
	read -rt $((10 * TIMEOUT_FACTOR)) -u "${BULK[0]}"
	[ "$REPLY" = ready ]
}

bulk_end() {
	local pid=$BULK_PID in=${BULK[1]}
	exec {in}>&-
	wait "$pid"
}

# packets CONDITION: of $longest and $segment, of what came in since the last time
packets() {
	local bytes longest segment
	echo >&"${BULK[1]}"
	read -rt $((10 * TIMEOUT_FACTOR)) -u "${BULK[0]}" bytes longest segment
	echo "bytes $bytes, longest packet $longest, longest segment $segment"
	((bytes > 0 && ($1)))
}

# --- the pointer to the peer

@test "podlink: a device knows its peer without asking the driver" {
	requires root patch:podlink/0001 tool:pahole
	tool 0 pahole -C net_device /sys/kernel/btf/vmlinux
	[[ $output =~ struct\ net_device\ *\*\ *peer_dev\; ]]
	tool 0 pahole -C net_device_ops /sys/kernel/btf/vmlinux
	[[ $output == *ndo_get_stats64* && $output != *ndo_get_peer_dev* ]]
}

# counters NETNS DEV: sets $rx and $tx
counters() {
	tool 0 /sbin/ip netns exec "$1" cat "/sys/class/net/$2/statistics/rx_packets" \
		"/sys/class/net/$2/statistics/tx_packets"
	rx=${output%$'\n'*} tx=${output#*$'\n'}
}

# What the pod has received came from the other end or by redirect; what it has sent
# has come out there.
add_up() {
	local rx tx pod_rx pod_tx
	counters "$p" "$p"
	pod_rx=$rx pod_tx=$tx
	counters "$h" "$x"
	tool 0 "$B/tests/redirect" count
	((output >= 5 && pod_rx == tx + output && pod_tx == rx && pod_tx >= 5))
}

# redirected: TCP, UDP and ICMP from a client c by the host h, whose uplink has the
# program, into the pod p behind the host's device x
redirected() {
	local before pid
	ip -n "$h" -batch - <<-END
		link set $x up
		addr add 10.1.0.1/24 dev $x
	END
	ip -n "$p" -batch - <<-END
		link set $p up
		addr add 10.1.0.2/24 dev $p
		route add default via 10.1.0.1
	END
	ip netns exec "$h" bash -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
	ip -n "$c" route add 10.1.0.0/24 via 10.0.0.2
	tool 0 nsenter --net="/run/netns/$h" "$B/tests/redirect" "$h" "$x"
	tool 0 "$B/tests/traffic" -a "$c" -b "$p" probe 'tcp 10.0.0.1 > 10.1.0.2:80 = pass' \
		'udp 10.0.0.1 > 10.1.0.2:53 = pass' 'icmp 10.0.0.1 > 10.1.0.2 = pass'
	wait_for 5 add_up
	# the pair goes while packets are under way to it
	tool 0 "$B/tests/redirect" count
	before=$output
	ip netns exec "$c" bash -c 'for i in {1..500}; do echo >/dev/udp/10.1.0.2/9; done' \
		2>/dev/null 3>&- 4>&- &
	pid=$!
	wait_for 5 counted $((before + 50))
	ip -n "$h" link del "$x"
	wait "$pid"
	wait_for 5 counted $((before + 500))
}

counted() { # NUMBER at least
	tool 0 "$B/tests/redirect" count
	((output >= $1))
}

@test "podlink: bpf_redirect_peer reaches a pod behind netkit, and both ends count" {
	requires root patch:podlink/0001
	topo veth c h
	ip netns add "$p"
	tool 0 "$B/tests/mklink" "$x" "$p" in "$h" netns "$p"
	redirected
}

@test "podlink: bpf_redirect_peer reaches a pod behind veth, and both ends count" {
	requires root patch:podlink/0001
	topo veth c h
	ip netns add "$p"
	ip -n "$h" link add "$x" type veth peer name "$p" netns "$p"
	redirected
}

# --- MTU

heard() { # once the monitor listens, it hears of any change
	ip -n "$p" link set "$p" alias "a$RANDOM"
	grep -q "$p" "$BATS_TEST_TMPDIR/monitor"
}

@test "podlink: the peer follows the MTU of the primary, and so does an open connection" {
	requires root patch:podlink/0002
	topo netkit h p
	ip -n "$p" monitor link >"$BATS_TEST_TMPDIR/monitor" 3>&- 4>&- &
	local monitor=$!
	wait_for 5 heard
	mtu "$h" 9000
	mtus 9000 9000
	wait_for 5 grep -q "$p.* mtu 9000 " "$BATS_TEST_TMPDIR/monitor"
	kill "$monitor"
	wait "$monitor" || :
	bulk 10.0.0.1
	wait_for 10 packets 'segment == 8948'
	mtu "$h" 1500
	mtus 1500 1500
	wait_for 10 packets 'segment == 1448'
	mtu "$h" 9000
	wait_for 10 packets 'segment == 8948'
	# the pod's own change stays in the pod
	mtu "$p" 1400
	mtus 9000 1400
	wait_for 10 packets 'segment == 1348'
	mtu "$h" 8000
	mtus 8000 8000
	wait_for 10 packets 'segment == 7948'
	bulk_end
}

@test "podlink: a peer that refuses the MTU leaves both ends as they were" {
	requires root patch:podlink/0002
	topo netkit h p mode l2
	ip -n "$p" -batch - <<-END
		link set $p down
		link add team0 type team
		link set $p master team0
	END
	tool 2 /sbin/ip -n "$h" link set "$h" mtu 9000
	mtus 1500 1500
	ip -n "$p" link set "$p" nomaster
	mtu "$h" 9000
	mtus 9000 9000
	# the same at the primary: the peer is not asked; with team's consent both follow
	ip -n "$h" -batch - <<-END
		link set $h down
		link add team0 type team
		link set $h master team0
	END
	mtus 1500 1500
	tool 2 /sbin/ip -n "$h" link set "$h" mtu 9000
	mtus 1500 1500
	tool 0 /sbin/ip -n "$h" link set team0 mtu 4000
	mtus 4000 4000
}

# --- GSO

# gso_flow ADDRESS
gso_flow() {
	# however long a round trip takes here: packets as large as they may be
	ip netns exec "$p" bash -c 'echo 31 >/proc/sys/net/ipv4/tcp_tso_rtt_log'
	set_link 0 "$h" gso-max 65536 gso-ipv4-max 65536
	bulk "$1"
	wait_for 10 packets 'longest > 60000 && longest <= 65550'
	set_link 0 "$h" gso-max 196608 gso-ipv4-max 196608
	both gso-max 196608 gso-ipv4-max 196608 gro-max 65536 gro-ipv4-max 65536
	wait_for 20 packets 'longest > 131072 && longest <= 196622'
	set_link 0 "$h" gso-max 16384
	both gso-max 16384 gso-ipv4-max 16384 gro-max 65536 gro-ipv4-max 65536
	wait_for 10 packets 'longest > 10000 && longest <= 16398'
	bulk_end
}

@test "podlink: the peer follows the GSO limits of the primary, and so do open connections" {
	requires root patch:podlink/0003
	topo netkit h p
	gso_flow 10.0.0.1
	gso_flow fd00::1
	set_link 0 "$h" gso-segs 100
	both gso-segs 100 gso-max 16384
	# the pod's own change stays in the pod
	set_link 0 "$p" gso-max 32768
	is "$p" gso-max 32768
	is "$h" gso-max 16384
	# refused is refused at both ends
	set_link 1 "$h" gso-max 600000
	is "$p" gso-max 32768
	is "$h" gso-max 16384
}

@test "podlink: a new pair has the GSO limits of the primary at both ends" {
	requires root patch:podlink/0003
	topo netkit h p gso-max 131072
	both gso-max 131072 gso-ipv4-max 65536
	topo_down
	topo netkit h p gso-max 32768
	both gso-max 32768 gso-ipv4-max 32768
	topo_down
	# but for limits of the peer's own
	topo netkit h p gso-max 131072 peer-gso-max 100000
	is "$h" gso-max 131072
	is "$p" gso-max 100000
}

# --- head- and tailroom

@test "podlink: head- and tailroom of a live pair change through the primary" {
	requires root patch:podlink/0004
	topo netkit h p headroom 32
	both headroom 32 tailroom 0
	set_link 0 "$h" headroom 128 tailroom 64
	both headroom 128 tailroom 64
	set_link 0 "$h" tailroom 16
	both headroom 128 tailroom 16
	set_link 0 "$h" headroom 0
	both headroom 0 tailroom 16
	set_link 0 "$h" headroom 1024 tailroom 1024
	both headroom 1024 tailroom 1024
	set_link 1 "$h" headroom 1025 tailroom 8
	[[ $stderr == *"netkit headroom must not exceed 1024 on a live device"* ]]
	both headroom 1024 tailroom 1024
	set_link 1 "$h" headroom 8 tailroom 65535
	[[ $stderr == *"netkit tailroom must not exceed 1024 on a live device"* ]]
	both headroom 1024 tailroom 1024
	set_link 1 "$p" headroom 8
	[[ $stderr == *"only through the primary device"* ]]
	both headroom 1024 tailroom 1024
}

@test "podlink: a bridge's request and the configured headroom do not undo each other" {
	requires root patch:podlink/0004
	topo netkit h p mode l2
	ip -n "$h" -batch - <<-END
		link add under type dummy
		link add vx type vxlan id 7 remote 10.9.0.2 dstport 4789 dev under
		link add bridge0 type bridge
		link set vx master bridge0
		link set $h master bridge0
	END
	show "$h"
	[[ $output =~ headroom\ ([0-9]+) ]]
	((BASH_REMATCH[1] >= 50))		# what vxlan needs
	local request=${BASH_REMATCH[1]}
	is "$p" headroom "$request"
	set_link 0 "$h" headroom 256
	both headroom 256
	ip -n "$h" link set "$h" nomaster
	both headroom 256
	ip -n "$h" link set "$h" master bridge0
	both headroom 256
	set_link 0 "$h" headroom 0
	both headroom "$request"
}

EXPAND=/sys/kernel/tracing/events/kprobes/podlink_expand
expand_watched() {
	echo 'p:podlink_expand pskb_expand_head' >>/sys/kernel/tracing/kprobe_events
	echo 1 >"$EXPAND/enable"
}

expand_unwatched() {
	echo 0 >"$EXPAND/enable"
	echo -:podlink_expand >>/sys/kernel/tracing/kprobe_events
}

# copied NUMBER [ADDRESS]: how many of so many datagrams of the pod were given a larger buffer
copied() {
	local name before after rest
	read -r name before rest </sys/kernel/tracing/kprobe_profile
	ip netns exec "$p" bash -c \
		"for ((i = 0; i < $1; i++)); do echo >/dev/udp/${2-10.1.0.2}/9; done"
	read -r name after rest </sys/kernel/tracing/kprobe_profile
	copies=$((after - before))
	echo "$copies copies of $1 packets"
}

# host_tunnel: by which the pod reaches 10.1.0.2
host_tunnel() {
	ip -n "$h" -batch - <<-END
		link add under type dummy
		link set under up
		addr add 10.9.0.1/24 dev under
		neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev under
		link add vx type vxlan id 7 remote 10.9.0.2 dstport 4789 dev under
		link set vx up
		addr add 10.1.0.1/24 dev vx
		neigh add 10.1.0.2 lladdr 02:00:00:00:00:03 dev vx
	END
	ip netns exec "$h" bash -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
	ip -n "$p" route add default dev "$p"
}

@test "podlink: with room for the host's tunnel the pod's packets are not copied" {
	requires root patch:podlink/0004
	local copies
	topo netkit h p
	host_tunnel
	expand_watched
	copied 200
	((copies >= 200))
	set_link 0 "$h" headroom 128
	copied 200
	((copies < 20))
	set_link 0 "$h" headroom 0
	copied 200
	((copies >= 200))
	# all of them have left
	tool 0 /sbin/ip netns exec "$h" cat /sys/class/net/under/statistics/tx_packets
	((output >= 600))
}

# pod_tunnel: by which the pod reaches 10.2.0.2, through the host's
pod_tunnel() {
	ip -n "$p" -batch - <<-END
		link add pv type vxlan id 8 remote 10.1.0.2 dstport 4789 dev $p
		link set pv up
		addr add 10.2.0.1/24 dev pv
		neigh add 10.2.0.2 lladdr 02:00:00:00:00:04 dev pv
	END
}

# vxlan adds up the room that the devices below it need when it is made, and not again.
@test "podlink: a tunnel in the pod that is made on top of the room needs no copy either" {
	requires root patch:podlink/0004
	local copies
	topo netkit h p
	host_tunnel
	pod_tunnel
	expand_watched
	copied 200 10.2.0.2
	((copies >= 200))
	set_link 0 "$h" headroom 128
	ip -n "$p" link del pv
	pod_tunnel
	copied 200 10.2.0.2
	((copies < 20))
	# all of them have left, in both tunnels
	tool 0 /sbin/ip netns exec "$h" cat /sys/class/net/under/statistics/tx_packets \
		/sys/class/net/under/statistics/tx_bytes
	((${output%$'\n'*} >= 400 && ${output#*$'\n'} >= 400 * (1 + 28 + 50 + 50)))
}
