# SPDX-License-Identifier: GPL-2.0-only
# kill -9 before each call by which a verb changes something: the old policy or the
# new one is in force, and doctor finds nothing that is wrong. It is the tool that dies,
# between calls that the other suites make on the debug kernel.
# bats file_tags=nodebug
bats_require_minimum_version 1.5.0
load helpers
load netpol

setup() {
	netpol_setup
	np="$NETPOL --netns $l"
	a=$BATS_TEST_TMPDIR/a b=$BATS_TEST_TMPDIR/b
	printf '%s\n' 'default deny' 'allow udp to port 1' 'allow udp to port 3, 7' >"$a"
	printf '%s\n' 'default deny' 'allow udp to port 2' 'allow udp to port 3, 7' >"$b"
	kills=0
}

# killer ARGUMENT...
killer() {
	TIMEOUT_FACTOR=$((TIMEOUT_FACTOR * 10)) tool 0 "$B/tests/killer" -a "$l" -b "$r" "$@" \
		'udp 10.0.0.1 > 10.0.0.2:1 = a' 'udp 10.0.0.1 > 10.0.0.2:2 = b' \
		'udp 10.0.0.1 > 10.0.0.2:3 = pass'
	kills=$((kills + output))
	echo "$output" >>"$BATS_FILE_TMPDIR/kills"
}

@test "netpol: killed while loading, at the same and at another size" {
	requires root kernel:6.6
	np 0 attach tcx-egress "$l" --stateless --policy "$a"
	killer -u "$NETPOL doctor" -A "$np load $l $a" -B "$np load $l $b"
	for ((i = 0; i < 1100; i++)); do echo "deny tcp to 11.1.$((i >> 8)).$((i & 255))"; done >>"$b"
	killer -u "$NETPOL doctor" -A "$np load $l $a" -B "$np load $l $b"
	# and that it can still be changed
	np 0 rule add "$l" allow udp to port 4
	np 0 detach tcx-egress "$l"
	((kills >= 30)) || fail "only $kills kills"
}

@test "netpol: killed while attaching and detaching" {
	requires root kernel:6.6
	killer -o -A "$np attach tcx-egress $l --stateless --policy $a" \
		-s "$np detach tcx-egress $l --ignore-missing" -u "$NETPOL doctor"
	np 0 detach tcx-egress "$l" --ignore-missing
	for f in "$PIN"/netpol/*; do fail "left behind: $f"; done
	((kills >= 20)) || fail "only $kills kills"
}

@test "netpol: killed between legacy tc and tcx" {
	requires root kernel:6.6
	np 0 attach tcx-egress "$l" --legacy only --stateless --policy "$a"
	"$B/tests/traffic" -a "$l" -b "$r" -r 500 stream 'udp 10.0.0.1 > 10.0.0.2:9 = drop' \
		'udp 10.0.0.1 > 10.0.0.2:7 = pass' >"$BATS_TEST_TMPDIR/stream" 3>&- 4>&- &
	pid=$!
	wait_for 10 grep -q ready "$BATS_TEST_TMPDIR/stream"
	killer -s "$np downgrade $l" -A "$np upgrade $l" -u "$NETPOL doctor"
	killer -s "$np upgrade $l" -A "$np downgrade $l" -u "$NETPOL doctor"
	kill -TERM "$pid"
	wait "$pid" || fail "$(<"$BATS_TEST_TMPDIR/stream")"
	np 0 upgrade "$l"
	np 0 detach tcx-egress "$l"
	((kills >= 10)) || fail "only $kills kills"
}

@test "netpol: killed at any call, at random" {
	requires root kernel:6.6
	np 0 attach tcx-egress "$l" --stateless --policy "$a"
	total=0
	[ ! -e "$BATS_FILE_TMPDIR/kills" ] ||
		while read -r n; do total=$((total + n)); done <"$BATS_FILE_TMPDIR/kills"
	# 200 kills in all, and not only the systematic ones
	killer -r "$((total < 160 ? 200 - total : 40))" -u "$NETPOL doctor" \
		-A "$np load $l $a" -B "$np load $l $b"
	np 0 detach tcx-egress "$l"
}
