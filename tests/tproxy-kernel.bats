# SPDX-License-Identifier: GPL-2.0-only
# The patches in kernel/tproxy: bpf_sk_assign() at tc egress and in netkit, and what becomes
# of an assigned socket on the way of its packet. tests/skassign makes both and compares.
bats_require_minimum_version 1.5.0
load helpers

setup() {
	requires root
	h=$(name h) p=$(name p) c=$(name c) x=$(name x)
	mkdir -p /sys/fs/bpf/test
}

teardown() {
	rm -rf /sys/fs/bpf/test
	topo_down
}

# skassign VERB [ARG]...: between the host h and the pod p; all lines are ok
skassign() {
	TOOL_SECONDS=60 tool 0 "$B/tests/skassign" "$h" "$p" "$@"
	[[ $output == ok* && $output != *"not ok"* ]]
}

# pair KIND [mode l2|l3]: the host's end and the pod's, through which the pod sends all it has
pair() {
	topo "$1" h p "${@:2}"
	ip -n "$p" -batch - <<-END
		route add default via 10.0.0.1
	END
	ip -n "$p" -6 route add default via fd00::1
}

# behind KIND: a client c, the host h and a pod p, to which the host has the pair x - p
behind() {
	topo veth c h
	ip netns add "$p"
	if [ "$1" = netkit ]; then
		"$B/tests/mklink" "$x" "$p" in "$h" netns "$p" mode l2
	else
		ip -n "$h" link add "$x" type veth peer name "$p" netns "$p"
	fi
	topo_up "$h" "$x" 10.1.0.1/24 fd01::1/64
	topo_up "$p" "$p" 10.1.0.2/24 fd01::2/64
	ip -n "$c" -batch - <<-END
		route add 10.1.0.0/24 via 10.0.0.2
		route add fd01::/64 via fd00::2
	END
	ip -n "$p" route add default via 10.1.0.1
	ip -n "$p" -6 route add default via fd01::1
}

# --- the proxy of what a pod sends

@test "tproxy: a proxy on the host has a pod's connections and datagrams, netkit L2" {
	requires patch:tproxy/0010
	pair netkit mode l2
	skassign netkit
}

@test "tproxy: a proxy on the host has a pod's connections and datagrams, netkit L3" {
	requires patch:tproxy/0010
	pair netkit mode l3
	skassign netkit
}

@test "tproxy: a proxy on the host has what leaves by an uplink with tcx at egress" {
	requires patch:tproxy/0010
	pair veth
	skassign uplink
}

@test "tproxy: a proxy in the pod has what the pod itself sends, tcx at egress" {
	requires patch:tproxy/0010
	pair veth
	skassign own
}

# bats test_tags=stock
@test "tproxy: tc ingress assigns as ever" {
	pair veth
	skassign ingress
}

@test "tproxy: a group of proxies shares the connections, and its program chooses" {
	requires patch:tproxy/0010
	pair netkit
	skassign group
}

@test "tproxy: what cannot be assigned is refused, and takes no reference" {
	requires patch:tproxy/0010
	pair netkit
	skassign refused
}

@test "tproxy: fragments are not assigned, and take no reference" {
	requires patch:tproxy/0010
	pair netkit
	skassign fragments
}

@test "tproxy: the receiver of a packet is not charged for its fragments" {
	requires patch:tproxy/0009
	pair veth
	skassign tunnel
}

# --- packets that wait

# queue WAY: by a pair of veth
queue() {
	pair veth
	skassign queue "$1"
}

@test "tproxy: an assigned packet in a queue holds its socket: tcx redirect" {
	requires patch:tproxy/0003
	queue redirect
}

@test "tproxy: an assigned packet in a queue holds its socket: tcx redirect by neighbour" {
	requires patch:tproxy/0003
	queue neigh
}

@test "tproxy: an assigned packet in a queue holds its socket: filter with direct action" {
	requires patch:tproxy/0003
	queue filter
}

@test "tproxy: an assigned packet in a queue holds its socket: mirred" {
	requires patch:tproxy/0004
	queue mirred
}

@test "tproxy: an assigned packet in a queue holds its socket: listener of a SYN cookie" {
	requires patch:tproxy/0003
	queue reqsk
}

@test "tproxy: an assigned packet in a queue holds its socket: tcx egress" {
	requires patch:tproxy/0010
	queue egress
}

# closed WAY: on a kernel with KASAN a socket that is used after it was freed is a splat
closed() {
	pair veth
	skassign close "$1"
}

@test "tproxy: a listener is closed while its packets are queued: tcx redirect" { closed redirect; }

@test "tproxy: a listener is closed while its packets are queued: filter" { closed filter; }

@test "tproxy: a listener is closed while its packets are queued: mirred" { closed mirred; }

@test "tproxy: a listener is closed while its packets are queued: SYN cookie" { closed reqsk; }

@test "tproxy: a listener is closed while its packets are queued: tcx egress" {
	requires patch:tproxy/0010
	closed egress
}

@test "tproxy: user space sees the packet before the group's program chooses" {
	requires patch:tproxy/0002 tool:nft
	pair veth
	skassign nfqueue
}

@test "tproxy: proxies come and go while packets are assigned to them" {
	requires patch:tproxy/0010
	pair netkit
	skassign storm 10
}

# --- packets that change direction or namespace

@test "tproxy: an action that goes on keeps the assignment" {
	requires patch:tproxy/0005
	pair veth
	skassign action
}

@test "tproxy: a socket does not follow bpf_redirect_peer(), netkit" {
	requires patch:tproxy/0003
	behind netkit
	skassign peer "$c" "$x" 0
}

@test "tproxy: a socket does not follow bpf_redirect_peer(), veth" {
	requires patch:tproxy/0003
	behind veth
	skassign peer "$c" "$x" 0
}

@test "tproxy: a socket does not follow bpf_redirect_peer() to egress" {
	requires patch:tproxy/0003
	behind netkit
	skassign peer "$c" "$x" 2	# BPF_F_EGRESS
}

@test "tproxy: a socket does not follow its packet to another namespace: VLAN" {
	requires patch:tproxy/0006
	topo veth c h
	ip netns add "$p"
	ip -n "$c" link add link "$c" name "$x" type vlan id 5
	topo_up "$c" "$x" 10.5.0.1/24 fd05::1/64
	ip -n "$h" link add link "$h" name "$p" type vlan id 5
	ip -n "$h" link set "$p" netns "$p"
	topo_up "$p" "$p" 10.5.0.2/24 fd05::2/64
	skassign vlan "$c"
}

@test "tproxy: a socket does not follow its packet to another namespace: veth" {
	requires patch:tproxy/0006 patch:tproxy/0010
	behind veth
	skassign forward "$c"
}

@test "tproxy: a socket does not follow its packet to another namespace: netkit" {
	requires patch:tproxy/0007 patch:tproxy/0010
	behind netkit
	skassign forward "$c"
}

@test "tproxy: netkit's programs are at egress after XDP_TX" {
	requires patch:tproxy/0007 patch:tproxy/0010
	behind netkit
	skassign xdp "$c" "$x"
}

@test "tproxy: the sender's timestamps are not those of the assigned socket" {
	requires patch:tproxy/0008 patch:tproxy/0010
	pair veth
	skassign stamps
}
