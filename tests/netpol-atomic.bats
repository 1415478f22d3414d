# SPDX-License-Identifier: GPL-2.0-only
# A load replaces the whole policy for each packet, and nothing is lost meanwhile; nor
# while legacy tc and tcx change places. It is about what the program reads and when, and
# the debug kernel slows packets and loads by as much.
# bats file_tags=smp,nodebug
bats_require_minimum_version 1.5.0
load helpers
load netpol

teardown() {
	netpol_teardown
	rm -rf /sys/fs/bpf/test
}

# Two policies that disagree in all that the program looks at: which side has the
# tree, how the ports are cut, where in the order the rule stands, the default. Flows
# 'a' pass with A alone, 'b' with B alone. A packet judged by parts of both would
# get an answer of neither, and each such packet counts as two changes of the policy.
policies() {
	local i
	{
		echo 'default deny'
		for ((i = 0; i < 60; i++)); do echo "deny tcp from 172.16.$i.0/24 to port $i"; done
		echo 'allow udp to 10.0.0.2 port 1000, 1002, 1004, 1006'
		echo 'deny udp to 10.0.0.2 port 1000-1100'
		echo 'allow udp to port 53 count both'
		echo 'deny udp to port 54 count none'
		echo 'allow udp to fd00::2 port 1000'
	} >"$BATS_TEST_TMPDIR/A"
	{
		echo 'default allow'
		echo 'deny udp to port 54 count none'
		echo 'allow udp from 10.0.0.1 to port 1001, 1003, 1005, 1007'
		for ((i = 0; i < 60; i++)); do echo "deny tcp to 192.168.$i.0/25 port $i-$((i + 9))"; done
		echo 'deny udp from 10.0.0.0/30 to port 1000-1007'
		echo 'allow udp from 10.0.0.0/24 to port 50-53 count both'
		echo 'deny udp to fd00::/64 port 1000'
	} >"$BATS_TEST_TMPDIR/B"
}

flows=('udp 10.0.0.1:9 > 10.0.0.2:53 = pass' 'udp 10.0.0.1:9 > 10.0.0.2:54 = drop'
	'udp [fd00::1]:9 > [fd00::2]:1000 = a')
for i in 0 2 4 6; do
	flows+=("udp 10.0.0.1:9 > 10.0.0.2:$((1000 + i)) = a"
		"udp 10.0.0.1:9 > 10.0.0.2:$((1001 + i)) = b")
done

# stream LOADS COMMAND...: the flows while the command makes so many loads
stream() {
	local loads=$1 pid out=$BATS_TEST_TMPDIR/stream
	shift
	"$B/tests/traffic" -a "$l" -b "$r" -r 300 stream "${flows[@]}" >"$out" 3>&- 4>&- &
	pid=$!
	wait_for 10 grep -q ready "$out"
	"$@"
	kill -TERM "$pid"
	wait "$pid" || fail "$(<"$out")"
	cat "$out"
	# every load is seen, once: no packet was judged by a mix
	grep -qx "flips=$loads worst=[01]" "$out"
}

check_counts() {
	local sent
	sent=$(sed -n 's/.*:53 = pass: sent=\([0-9]*\) received=\1 .*/\1/p' "$BATS_TEST_TMPDIR/stream")
	np 0 stats "$l" -j
	# named counters went on through all loads, and no packet met another end
	jq -e --argjson sent "$sent" '([.rules[] | {(.counter // ""): .packets}] | add) as $c |
		$c.both == $sent and $c.none == $sent and .reasons.deny_policy.packets > $sent and
		([.reasons | to_entries[] | select(.key != "deny_policy" and .key != "allow" and
			.key != "flow" and .key != "neighbour") | .value.packets] | add) == 0' \
		<<<"$output"
}

loads() {
	local i
	for ((i = 0; i < $1; i++)); do
		"$NETPOL" --netns "$l" load "$l" "$BATS_TEST_TMPDIR/B" >/dev/null
		"$NETPOL" --netns "$l" load "$l" "$BATS_TEST_TMPDIR/A" >/dev/null
	done
}

reloads() {
	local dir=(/sys/fs/bpf/skelkit/netpol/ns*)
	TIMEOUT_FACTOR=$((TIMEOUT_FACTOR * 10)) tool 0 \
		"$B/tests/netpol-reload" "${dir[0]}" "$1" 22 "$BATS_TEST_TMPDIR/B" "$BATS_TEST_TMPDIR/A"
}

# 40 loads by the tool, 960 by the same code without starting it anew.
@test "netpol: 1,000 loads, no packet sees a mix and none is lost" {
	requires root kernel:6.6 tool:jq
	policies
	np 0 attach tcx-egress "$l" --stateless --policy "$BATS_TEST_TMPDIR/A"
	# one table for both sizes, so that a load is one store
	np 0 load "$l" "$BATS_TEST_TMPDIR/B"
	np 0 show "$l" -j
	jq -e '.devices[0].policy.tier == 0' <<<"$output"
	np 0 load "$l" "$BATS_TEST_TMPDIR/A"
	stream 40 loads 20
	check_counts
	np 0 detach tcx-egress "$l"
	np 0 attach tcx-egress "$l" --stateless --policy "$BATS_TEST_TMPDIR/A"
	stream 960 reloads 960
	check_counts
	np 0 detach tcx-egress "$l"
}

@test "netpol: loads that change the size of the table, flows remembered" {
	requires root kernel:6.6 tool:jq
	policies
	# another tier each time, and pages of counters that come into use
	for ((i = 0; i < 1100; i++)); do echo "deny tcp to 11.1.$((i >> 8)).$((i & 255)) port $i"; done \
		>>"$BATS_TEST_TMPDIR/B"
	np 0 attach tcx-egress "$l" --policy "$BATS_TEST_TMPDIR/A"
	np 0 attach tcx-ingress "$l"
	stream 12 loads 6
	check_counts
	np 0 doctor
	np 0 detach tcx-egress "$l"
	np 0 detach tcx-ingress "$l"
}

@test "netpol: up- and downgrade under traffic, default deny" {
	requires root kernel:6.6
	cat >"$BATS_TEST_TMPDIR/policy" <<-'END'
		default deny
		allow in tcp to port 80
		allow in udp to port 53
		allow in icmp type echo-request
		allow out tcp to port 8080
		allow out udp to fd00::2 port 53
	END
	# A slow machine must not look like a loss: no segment is sent again but for one.
	for ns in "$l" "$r"; do
		ip netns exec "$ns" bash -c 'cd /proc/sys/net/ipv4 && echo 0 >tcp_early_retrans &&
			echo 60000000 >tcp_rto_min_us'
	done
	mkdir -p /sys/fs/bpf/test/f1
	foreign legacy ingress "$l" /sys/fs/bpf/test/f1
	np 0 attach tcx-ingress "$l" --policy "$BATS_TEST_TMPDIR/policy" --legacy only
	np 0 attach tcx-egress "$l" --legacy only
	"$B/tests/traffic" -a "$l" -b "$r" -r 500 stream \
		'tcp 10.0.0.2 > 10.0.0.1:80 = pass' 'tcp [fd00::1] > [fd00::2]:8080 = pass' \
		'udp 10.0.0.2 > 10.0.0.1:53 = pass' 'udp [fd00::1] > [fd00::2]:53 = pass' \
		'udp 10.0.0.2 > 10.0.0.1:54 = drop' 'udp 10.0.0.1 > 10.0.0.2:53 = drop' \
		'icmp 10.0.0.2 > 10.0.0.1 = pass' 'icmp [fd00::1] > [fd00::2] = drop' \
		>"$BATS_TEST_TMPDIR/stream" 3>&- 4>&- &
	pid=$!
	wait_for 10 grep -q ready "$BATS_TEST_TMPDIR/stream"
	for _ in 1 2 3 4 5; do
		np 0 upgrade "$l"
		np 0 downgrade "$l"
	done
	np 0 upgrade "$l"
	np 0 upgrade "$l"
	[[ $output == *unchanged* ]]
	kill -TERM "$pid"
	wait "$pid" || fail "$(<"$BATS_TEST_TMPDIR/stream")"
	cat "$BATS_TEST_TMPDIR/stream"
	# a segment that was dropped on the way would have been sent again
	run ! grep -q 'retrans=[1-9]' "$BATS_TEST_TMPDIR/stream"
	is_order tcx-ingress netpol
	is_order tcx-egress netpol
	# the filter of the others and the clsact
	tool 0 /sbin/tc -n "$l" filter show dev "$l" ingress
	[[ $output == *foreign_legacy* && $output != *netpol* ]]
	np 0 doctor
}
