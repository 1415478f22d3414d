# SPDX-License-Identifier: GPL-2.0-only
# What is dumped is what was loaded, and what is enforced, at any size.
# To the kernel a large table is an array like a small one.
# bats file_tags=nodebug
bats_require_minimum_version 1.5.0
load helpers
load netpol

# rules N: N - 1 rules that differ, in a shuffled order, one for port 7, the default
rules() {
	awk -v n="$1" 'BEGIN {
		for (i = 1; i < n; i++) {
			k = (i * 48271) % 131071
			a = "11." int(k / 65536) "." int(k / 256) % 256 "." k % 256
			if (i % 3 == 0)
				print "deny tcp from " a " to port " 1 + k % 60000
			else if (i % 3 == 1)
				printf "allow udp from 2001:db8:%x:%x::/64 to port %d-%d\n", i / 65536,
					i % 65536 + 1, k % 60000 + 1, k % 60000 + 9
			else
				print "allow out tcp, sctp to " a
		}
		print "allow udp to port 7"
		print "default deny"
	}'
}

@test "netpol: the dump equals the load at 1, 257, 10,000 and 100,000 rules" {
	requires root kernel:6.6
	np 0 attach tcx-egress "$l" --default deny --stateless
	np 0 attach tcx-ingress "$l"
	for n in 1 257 10000 100000 257; do
		rules "$n" >"$BATS_TEST_TMPDIR/rules"
		np 0 load "$l" "$BATS_TEST_TMPDIR/rules"
		[[ $output == *" $n rules"* ]]
		np 0 load "$l" "$BATS_TEST_TMPDIR/rules"
		[[ $output == *unchanged* ]]
		# without the numbers in front
		busybox timeout 60 "$NETPOL" --netns "$l" rule list "$l" >"$BATS_TEST_TMPDIR/list"
		sed 's/^ *[0-9]* *//' "$BATS_TEST_TMPDIR/list" >"$BATS_TEST_TMPDIR/dump"
		cmp "$BATS_TEST_TMPDIR/rules" "$BATS_TEST_TMPDIR/dump" ||
			fail "$(diff "$BATS_TEST_TMPDIR/rules" "$BATS_TEST_TMPDIR/dump" | head)"
		# the last rule, the default and the first rule are all in force
		tool 0 "$B/tests/traffic" -a "$l" -b "$r" probe \
			'udp 10.0.0.1 > 10.0.0.2:8 = drop' 'udp 10.0.0.1:7 > 10.0.0.2:7 = pass'
	done
	np 0 stats "$l"
	[[ $output == *" 257 allow udp to port 7"* ]]
	np 0 doctor
	np 0 detach tcx-egress "$l"
	np 0 detach tcx-ingress "$l"
}
