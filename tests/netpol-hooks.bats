# SPDX-License-Identifier: GPL-2.0-only
# Each hook with real traffic; order among other agents' programs; legacy tc.
# nodebug: about what the tool asks for, the order itself is upstream's.
bats_require_minimum_version 1.5.0
load helpers
load netpol

setup() {
	l=$(name l) r=$(name r)
	cat >"$BATS_TEST_TMPDIR/policy" <<-'END'
		default deny
		allow in tcp to port 80
		allow in udp to port 53
		allow in icmp type echo-request
		allow in icmp6 type echo-request
		allow in 253
		allow out tcp to port 8080 count web
		allow out udp to fd00::2 port 53
		allow out icmp
	END
	mkdir -p /sys/fs/bpf/test
}

teardown() {
	netpol_teardown
	rm -rf /sys/fs/bpf/test
}

seen() { tool 0 "$B/tests/foreign" seen "$1"; }

# What comes from the other end, with the policy at the hook that sees it.
inbound=(
	'tcp 10.0.0.2 > 10.0.0.1:80 = pass' 'tcp 10.0.0.2 > 10.0.0.1:81 = drop'
	'tcp [fd00::2] > [fd00::1]:80 = pass' 'tcp [fd00::2] > [fd00::1]:81 = drop'
	'udp 10.0.0.2 > 10.0.0.1:53 = pass' 'udp 10.0.0.2 > 10.0.0.1:54 = drop'
	'udp [fd00::2] > [fd00::1]:53 = pass' 'udp [fd00::2] > [fd00::1]:54 = drop'
	'icmp 10.0.0.2 > 10.0.0.1 = pass' 'icmp [fd00::2] > [fd00::1] = pass'
	'253 10.0.0.2 > 10.0.0.1 = pass' '254 10.0.0.2 > 10.0.0.1 = drop')
# With that hook alone, what is sent arrives, but no answer is known as one.
outbound_unseen=('udp 10.0.0.1 > 10.0.0.2:9 = oneway' 'tcp 10.0.0.1 > 10.0.0.2:8080 = drop')
# With both hooks.
outbound=(
	'tcp 10.0.0.1 > 10.0.0.2:8080 = pass' 'tcp 10.0.0.1 > 10.0.0.2:8081 = drop'
	'tcp [fd00::1] > [fd00::2]:8080 = pass' 'udp [fd00::1] > [fd00::2]:53 = pass'
	'udp 10.0.0.1 > 10.0.0.2:53 = drop' 'icmp 10.0.0.1 > 10.0.0.2 = pass'
	'icmp [fd00::1] > [fd00::2] = drop')

# hooks IN OUT [ATTACH-OPTION...]: the traffic of one kind of device
hooks() {
	local in=$1 out=$2
	shift 2
	probe 'tcp 10.0.0.2 > 10.0.0.1:81 = pass' 'udp 10.0.0.1 > 10.0.0.2:9 = pass'
	np 0 attach "$in" "$l" --policy "$BATS_TEST_TMPDIR/policy" "$@"
	probe "${inbound[@]}" "${outbound_unseen[@]}"
	np 0 attach "$out" "$l" "$@"
	probe "${inbound[@]}" "${outbound[@]}"
	np 0 attach "$out" "$l" "$@"
	[[ $output == *unchanged* ]]
	np 0 stats "$l" -j
	# TCP of both families: SYN, ACK, data and what else, in both directions
	jq -e '(.rules[] | select(.counter == "web") | .packets) >= 12 and
		.reasons.deny_policy.packets > 0 and .reasons.deny_malformed.packets == 0' \
		<<<"$output"
	np 0 detach "$in" "$l"
	probe 'tcp 10.0.0.2 > 10.0.0.1:81 = drop' 'udp 10.0.0.2 > 10.0.0.1:81 = oneway' \
		'udp 10.0.0.1 > 10.0.0.2:53 = drop' 'udp [fd00::1] > [fd00::2]:53 = pass'
	np 0 detach "$out" "$l"
	probe 'tcp 10.0.0.2 > 10.0.0.1:81 = pass' 'udp 10.0.0.1 > 10.0.0.2:9 = pass'
	np 1 detach "$out" "$l"
	np 0 detach "$out" "$l" --ignore-missing
	for dir in /sys/fs/bpf/skelkit/netpol/*; do fail "left behind: $dir"; done
}

@test "netpol: tcx ingress and egress with TCP, UDP, ICMP, IPv4 and IPv6" {
	requires root kernel:6.6
	topo veth l r
	hooks tcx-ingress tcx-egress
}

@test "netpol: netkit peer and primary in L2 mode" {
	requires root kernel:6.7
	topo netkit l r mode l2
	hooks netkit-peer netkit-primary
	# only the primary device has the programs of both
	tool 1 "$NETPOL" --netns "$r" attach netkit-peer "$r" --default deny
	[[ $stderr == *primary* ]]
}

# bats test_tags=kmemleak
@test "netpol: netkit peer and primary in L3 mode, closed from birth" {
	requires root kernel:6.7
	topo netkit l r mode l3 policy blackhole peer-policy blackhole
	probe 'udp 10.0.0.1 > 10.0.0.2:9 = drop' 'icmp 10.0.0.2 > 10.0.0.1 = drop'
	np 0 attach netkit-peer "$l" --policy "$BATS_TEST_TMPDIR/policy"
	np 0 attach netkit-primary "$l"
	probe "${inbound[@]}" "${outbound[@]}"
	np 0 detach netkit-peer "$l"
	np 0 detach netkit-primary "$l"
	probe 'udp 10.0.0.1 > 10.0.0.2:9 = drop' 'icmp 10.0.0.2 > 10.0.0.1 = drop'
}

# bats test_tags=kmemleak
@test "netpol: legacy tc filters" {
	requires root
	topo veth l r
	hooks tcx-ingress tcx-egress --legacy only
	# the clsact that we made stays, since others may have used it meanwhile
	tool 0 /sbin/tc -n "$l" qdisc show dev "$l"
	[[ $output == *clsact* ]]
}

# verbs HOOK: each verb once; the foreign programs stay and see packets
verbs() {
	local hook=$1 want before
	want=$order
	seen /sys/fs/bpf/test/f1
	before=$output
	echo 'allow in tcp to port 81' >>"$BATS_TEST_TMPDIR/policy"
	np 0 load "$l" "$BATS_TEST_TMPDIR/policy"
	np 0 rule add "$l" allow in tcp to port 82
	np 0 rule del "$l" allow in tcp to port 82
	np 0 rule list "$l"
	np 0 attach "$hook" "$l"
	np 0 show "$l"
	np 0 stats "$l"
	# two agents with one name is what a restart that went wrong looks like
	np 1 doctor
	[[ $output == *"both called foreign"* ]]
	np 0 attach "$hook" "$l" --dry-run --stateless
	is_order "$hook" "$want"
	probe 'tcp 10.0.0.2 > 10.0.0.1:81 = pass' 'tcp 10.0.0.2 > 10.0.0.1:82 = drop'
	seen /sys/fs/bpf/test/f1
	((output > before)) || fail "the foreign program is not reached any more"
}

# ordered HOOK
ordered() {
	local hook=$1 f1 f2 revision dir
	foreign attach "$hook" "$l" /sys/fs/bpf/test/f1
	np 1 attach "$hook" "$l" --policy "$BATS_TEST_TMPDIR/policy" --before link:4000000
	is_order "$hook" "foreign"
	for dir in "$PIN"/netpol/*; do fail "left behind: $dir"; done
	np 0 attach "$hook" "$l" --policy "$BATS_TEST_TMPDIR/policy" --first
	is_order "$hook" "netpol foreign"
	np 0 attach "$hook" "$l" --first
	[[ $output == *unchanged* ]]
	np 0 detach "$hook" "$l"
	is_order "$hook" "foreign"
	np 0 attach "$hook" "$l" --policy "$BATS_TEST_TMPDIR/policy" --last
	is_order "$hook" "foreign netpol"
	# a second one behind ours: we are in between
	foreign attach "$hook" "$l" /sys/fs/bpf/test/f2 last
	is_order "$hook" "foreign netpol foreign"
	verbs "$hook"
	np 0 show "$l" -j
	read -r f1 f2 revision < <(jq -r --arg hook "$hook" '.devices[0].hooks[$hook] |
		[(.programs[] | select(.owner == "foreign") | .link_id), .revision] | @tsv' \
		<<<"$output")
	np 0 attach "$hook" "$l" --before "link:$f1"
	is_order "$hook" "netpol foreign foreign"
	np 1 attach "$hook" "$l" --last --expected-revision "$revision"
	# also where nothing would have to change
	np 1 attach "$hook" "$l" --before "link:$f1" --expected-revision "$revision"
	is_order "$hook" "netpol foreign foreign"
	np 0 show "$l" -j
	revision=$(jq --arg hook "$hook" '.devices[0].hooks[$hook].revision' <<<"$output")
	np 0 attach "$hook" "$l" --after "link:$f2" --expected-revision "$revision"
	is_order "$hook" "foreign foreign netpol"
	np 0 attach "$hook" "$l" --before pin:/sys/fs/bpf/test/f2/link
	is_order "$hook" "foreign netpol foreign"
	np 1 attach "$hook" "$l" --before link:4000000
	np 2 attach "$hook" "$l" --before nonsense
	is_order "$hook" "foreign netpol foreign"
	np 0 detach "$hook" "$l"
	is_order "$hook" "foreign foreign"
	rm -r /sys/fs/bpf/test/f1 /sys/fs/bpf/test/f2
}

# bats test_tags=nodebug
@test "netpol: order among others on tcx" {
	requires root kernel:6.6 tool:jq
	topo veth l r
	mkdir /sys/fs/bpf/test/f1 /sys/fs/bpf/test/f2
	ordered tcx-ingress
}

# bats test_tags=nodebug
@test "netpol: order among others on netkit" {
	requires root kernel:6.7 tool:jq
	topo netkit l r mode l2
	mkdir /sys/fs/bpf/test/f1 /sys/fs/bpf/test/f2
	ordered netkit-peer
}

@test "netpol: what bpftool attached stays in its place" {
	requires root kernel:6.6 tool:jq
	topo veth l r
	# without a link, as another agent would
	tool 0 "$B/bpftool/bpftool" prog load "$B/tests/foreign.bpf.o" /sys/fs/bpf/test/prog \
		type tcx/ingress
	tool 0 nsenter --net="/run/netns/$l" "$B/bpftool/bpftool" net attach tcx_ingress \
		pinned /sys/fs/bpf/test/prog dev "$l"
	np 0 attach tcx-ingress "$l" --policy "$BATS_TEST_TMPDIR/policy" --before prog:foreign_tcx
	is_order tcx-ingress "netpol foreign"
	np 0 attach tcx-ingress "$l" --after prog:foreign_tcx
	is_order tcx-ingress "foreign netpol"
	probe 'tcp 10.0.0.2 > 10.0.0.1:80 = pass' 'tcp 10.0.0.2 > 10.0.0.1:81 = drop'
	np 0 downgrade "$l"
	is_order tcx-ingress "foreign"
	probe 'tcp 10.0.0.2 > 10.0.0.1:80 = pass' 'tcp 10.0.0.2 > 10.0.0.1:81 = drop'
	np 0 upgrade "$l"
	is_order tcx-ingress "foreign netpol"
	np 0 detach tcx-ingress "$l"
	is_order tcx-ingress "foreign"
	tool 0 nsenter --net="/run/netns/$l" "$B/bpftool/bpftool" net detach tcx_ingress dev "$l"
}
