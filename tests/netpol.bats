# SPDX-License-Identifier: GPL-2.0-only
# The verbs of netpol: what they print, what they refuse, what they leave behind.
# nodebug: about the tool alone.
bats_require_minimum_version 1.5.0
load helpers
load netpol

setup() {
	netpol_setup
	pol=$BATS_TEST_TMPDIR/policy
	printf '%s\n' '# web and names' 'default deny' 'set near = { 10.0.0.0/24, fd00::/64 }' \
		'allow tcp from @near to port 80, 8000-8100' 'allow udp to port 53 log' \
		'allow udp to port 54 count names' 'deny from 192.0.2.0/24' >"$pol"
}

json() { jq -e "$@" <<<"$output"; }

# bats test_tags=nodebug
@test "netpol: usage errors exit with 2, say why and change nothing" {
	tool 2 "$NETPOL"
	tool 2 "$NETPOL" frobnicate
	[[ $stderr == *frobnicate* ]]
	tool 2 "$NETPOL" attach tcx-sideways "$l"
	[[ $stderr == *tcx-ingress* ]]
	tool 2 "$NETPOL" attach tcx-ingress
	tool 2 "$NETPOL" --no-such-option
	tool 2 "$NETPOL" attach tcx-ingress "$l" --default perhaps
	[[ $stderr == *"--default takes deny, allow or next"* ]]
	tool 2 "$NETPOL" --probe "$l"
	tool 1 "$NETPOL" --probe --netns no-such-name
	tool 1 bash -c "$NETPOL --probe -j >/dev/full"
	[[ $stderr == *"standard output: cannot write: No space left"* ]]
	tool 0 "$NETPOL" --help
	[[ $output == *EXAMPLES* && $output == *"rule add|del|list"* ]]
	tool 0 "$NETPOL" --version
	tool 0 "$NETPOL" --probe -j
	json '.ok and (.needs | length > 4)'
	# the choice between open and closed is the user's
	np 2 attach tcx-ingress "$l"
	[[ $stderr == *--policy* && $stderr == *--default* ]]
	np 3 attach tcx-ingress no-such-device --default deny
	np 3 stats "$l"
	np 3 load "$l" "$pol"
	for f in "$PIN"/netpol/*; do fail "left behind: $f"; done
}

# bats test_tags=nodebug
@test "netpol: a bad file is refused whole, with line, column and caret" {
	requires root kernel:6.6
	np 0 attach tcx-ingress "$l" --policy "$pol"
	np 0 rule list "$l"
	before=$output
	while IFS='|' read -r line want; do
		printf 'default deny\nallow udp to port 53\n%b\n' "$line" >"$pol.bad"
		np 2 load "$l" "$pol.bad"
		[[ $stderr == *"$pol.bad:"$want* ]] || fail "wanted $want"
		[[ $stderr == *^* ]] || fail "no caret"
	done <<-'END'
		allwo tcp to port 22|3:1*did you mean*allow
		allow tcp from 10.1.2.3/16|3:16*10.1.0.0/16
		allow tcp to port 70000|3:19
		allow tcp to port 90-80|3:19
		allow icmp to port 80|3:15
		allow tcp from @nobody|3:16
		set s = { 10.0.0.1,|
		default allow|3:1
		allow tcp to|3:
		\tallow tcp to port http|3:20
	END
	np 2 rule add "$l" allow tcp to prot 22
	np 2 attach tcx-egress "$l" --policy "$pol.bad"
	np 2 load "$l" /no/such/file
	np 0 rule list "$l"
	[ "$output" = "$before" ]
	probe 'tcp 10.0.0.2 > 10.0.0.1:8100 = pass' 'tcp 10.0.0.2 > 10.0.0.1:22 = drop'
	np 0 doctor
	np 0 detach tcx-ingress "$l"
}

# bats test_tags=nodebug
@test "netpol: --dry-run says what would change and changes nothing" {
	requires root kernel:6.6 tool:jq
	np 0 attach tcx-ingress "$l" --policy "$pol" --dry-run
	[[ $output == *would* ]]
	for f in "$PIN"/netpol/*; do fail "left behind: $f"; done
	np 0 attach tcx-ingress "$l" --policy "$pol"
	np 0 show "$l" -j
	before=$output
	np 0 load "$l" "$pol" --dry-run
	[[ $output == *unchanged* ]]
	echo 'allow udp to port 55' >>"$pol"
	np 0 load "$l" "$pol" --dry-run -j
	json '.dry_run and .changed'
	np 0 rule add "$l" allow gre --dry-run
	np 0 rule del "$l" 1 --dry-run
	np 0 attach tcx-egress "$l" --dry-run
	np 0 downgrade "$l" --dry-run
	np 0 detach tcx-ingress "$l" --dry-run
	np 0 show "$l" -j
	[ "$output" = "$before" ]
	np 0 load "$l" "$pol" -j
	json '(.dry_run | not) and .changed'
	np 0 load "$l" "$pol" -j
	json '.changed | not'
	np 0 detach tcx-ingress "$l"
}

# bats test_tags=nodebug
@test "netpol: rule add, del and list; counters of what stays go on" {
	requires root kernel:6.6 tool:jq
	np 0 attach tcx-ingress "$l" --policy "$pol"
	np 0 attach tcx-egress "$l"
	probe 'udp 10.0.0.2 > 10.0.0.1:53 = pass' 'udp 10.0.0.2 > 10.0.0.1:54 = pass'
	np 0 rule add "$l" allow udp to port 55
	np 0 rule add "$l" allow udp to port 55
	[[ $output == *unchanged* ]]
	np 0 rule add "$l" 'allow udp to port 56' --first
	np 0 rule add "$l" 'deny udp to port 55' --before 2
	np 0 rule list "$l" -j
	json '[.rules[].text] == ["allow udp to port 56", "deny udp to port 55",
		"allow tcp from @near to port 80, 8000-8100", "allow udp to port 53 log",
		"allow udp to port 54 count names", "deny from 192.0.2.0/24", "allow udp to port 55"]'
	probe 'udp 10.0.0.2 > 10.0.0.1:55 = drop' 'udp 10.0.0.2 > 10.0.0.1:56 = pass'
	np 0 rule del "$l" deny udp to port 55
	np 3 rule del "$l" deny udp to port 55
	np 0 rule del "$l" deny udp to port 55 --ignore-missing
	np 0 rule del "$l" 1
	probe 'udp 10.0.0.2 > 10.0.0.1:55 = pass' 'udp 10.0.0.2 > 10.0.0.1:56 = drop'
	# a rule that changed keeps a counter that has a name
	sed -i 's/port 54 count/port 54, 57 count/' "$pol"
	np 0 load "$l" "$pol"
	probe 'udp 10.0.0.2 > 10.0.0.1:57 = pass'
	np 0 stats "$l" -j
	# a question and an answer each time, of which the answer passes by its flow
	json '[.rules[] | .packets] == [0, 2, 4, 0] and .default.packets >= 1 and
		.reasons.flow.packets == 5 and .rules[1].bytes == 2 * (14 + 20 + 8 + 16)'
	np 0 detach tcx-ingress "$l"
	np 0 detach tcx-egress "$l"
}

# bats test_tags=nodebug
@test "netpol: log tells each packet of a logged rule, within the rate" {
	requires root kernel:6.6 tool:jq
	np 0 attach tcx-ingress "$l" --policy "$pol" --stateless
	probe 'udp 10.0.0.2:9 > 10.0.0.1:53 = pass' 'udp [fd00::2]:9 > [fd00::1]:53 = pass' \
		'udp 10.0.0.2 > 10.0.0.1:54 = pass'
	np 0 log "$l" -j
	json '[.events[] | [.verdict, .proto, .src, .sport, .dst, .dport, .rule, .text]] == [
		["allow", "udp", "10.0.0.2", 9, "10.0.0.1", 53, 2, "allow udp to port 53 log"],
		["allow", "udp", "fd00::2", 9, "fd00::1", 53, 2, "allow udp to port 53 log"]]'
	tool 0 "$B/tests/traffic" -a "$l" -b "$r" stream -r 1000 -n 200 \
		'udp 10.0.0.2:9 > 10.0.0.1:53 = pass'
	probe 'udp 10.0.0.2:9 > 10.0.0.1:53 = pass'
	np 0 log "$l" -j
	# the bucket holds 20 and gets 10 a second
	json '.events | length >= 15 and length < 150'
	np 0 detach tcx-ingress "$l"
}

# bats test_tags=nodebug
@test "netpol: log --follow and stats --interval go on until they are told to stop" {
	requires root kernel:6.6 tool:jq
	np 0 attach tcx-ingress "$l" --policy "$pol" --stateless --verbose --verbose
	[[ $stderr == *libbpf:* ]]
	"$NETPOL" --netns "$l" log "$l" --follow --json >"$BATS_TEST_TMPDIR/log" 3>&- 4>&- &
	log=$!
	"$NETPOL" --netns "$l" stats "$l" --interval 1 --json >"$BATS_TEST_TMPDIR/stats" 3>&- 4>&- &
	stats=$!
	for port in 1 2; do
		probe "udp 10.0.0.2:$port > 10.0.0.1:53 = pass"
		wait_for 10 grep -q "\"sport\":$port," "$BATS_TEST_TMPDIR/log"
	done
	wait_for 10 counted 2
	kill "$log" "$stats"
	wait "$log"
	wait "$stats"
	# an event a line
	[ "$(jq -c .text "$BATS_TEST_TMPDIR/log")" = $'"allow udp to port 53 log"\n"allow udp to port 53 log"' ]
	[ "$(wc -l <"$BATS_TEST_TMPDIR/log")" = 2 ]
	np 0 detach tcx-ingress "$l"
}

counted() { [ "$(jq -s 'last.rules[1].packets' "$BATS_TEST_TMPDIR/stats")" = "$1" ]; }

# bats test_tags=nodebug
@test "netpol: detach --keep leaves policy and counters to the next attach" {
	requires root kernel:6.6 tool:jq
	np 0 attach tcx-ingress "$l" --policy "$pol"
	probe 'udp 10.0.0.2 > 10.0.0.1:53 = pass' 'tcp 10.0.0.2 > 10.0.0.1:22 = drop'
	dir=("$PIN"/netpol/ns*)
	body
	verified=$output
	np 0 detach tcx-ingress "$l" --keep
	probe 'tcp 10.0.0.2 > 10.0.0.1:22 = pass'
	np 0 attach tcx-ingress "$l"
	# the kernel was not asked to verify the same body again
	body
	[ "$output" = "$verified" ]
	np 0 stats "$l" --json
	json '.rules[1].packets == 1'
	probe 'tcp 10.0.0.2 > 10.0.0.1:22 = drop'
	# what another build of netpol put there is replaced
	tool 0 "$B/bpftool/bpftool" map update pinned "${dir[0]}/np_bodies" key 0 0 0 0 \
		value 1 2 3 4 5 6 7 8
	np 0 attach tcx-ingress "$l"
	body
	[ "$output" != "$verified" ]
	probe 'tcp 10.0.0.2 > 10.0.0.1:22 = drop' 'udp 10.0.0.2 > 10.0.0.1:53 = pass'
	np 0 detach tcx-ingress "$l"
	for f in "$PIN"/netpol/*; do fail "left behind: $f"; done
}

# the id of the body of tcx-ingress for the smallest size of table
body() {
	tool 0 "$B/bpftool/bpftool" -j map lookup pinned "${dir[0]}/jump_in" key 0 0 0 0
}

# bats test_tags=nodebug
@test "netpol: test judges packets with nothing attached" {
	requires root kernel:6.6 tool:jq
	t() { tool 0 "$NETPOL" test "$pol" -j --packet "$1"; }
	t 'tcp 10.0.0.2:1 > 10.0.0.1:8050 syn in'
	json '.packets[0] | .verdict == "allow" and .rule == 1 and .line == 4'
	t 'tcp [fd00::2]:1 > [fd00::1]:79 syn in'
	json '.packets[0] | .verdict == "deny" and .reason == "default"'
	t 'udp 192.0.2.1:1 > 10.0.0.1:54 in'
	json '.packets[0] | .verdict == "allow" and .rule == 3'
	t 'icmp 192.0.2.1 > 10.0.0.1 type echo-request'
	json '.packets[0] | .verdict == "deny" and .rule == 4'
	tool 2 "$NETPOL" test "$pol" --packet 'tcp 10.0.0.2:1 > 10.0.0.1:80x'
	[[ $stderr == *^* ]]
	# the same packets from a capture, made without netpol
	python3 - "$BATS_TEST_DIRNAME" "$BATS_TEST_TMPDIR/pcap" <<-'END'
		import struct, sys
		sys.path.insert(0, sys.argv[1])
		sys.dont_write_bytecode = True
		import wire
		with open(sys.argv[2], 'wb') as f:
		    f.write(struct.pack('=IHHiIII', 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
		    for p in ('tcp 10.0.0.2:1 > 10.0.0.1:8050', 'udp 10.0.0.2:1 > 10.0.0.1:55',
		              'udp 10.0.0.2:1 > 10.0.0.1:54 cut=3'):
		        d = wire.frame(p)
		        f.write(struct.pack('=IIII', 0, 0, len(d), len(d)) + d)
	END
	tool 0 "$NETPOL" test "$pol" -j --pcap "$BATS_TEST_TMPDIR/pcap"
	json '[.packets[].verdict] == ["allow", "deny", "deny"] and
		.packets[2].reason != .packets[1].reason'
	for f in "$PIN"/netpol/*; do fail "left behind: $f"; done
}

@test "netpol: the same index in two namespaces; a device that goes, and comes again" {
	requires root kernel:6.6
	np 0 attach tcx-ingress "$l" --policy "$pol"
	tool 0 "$NETPOL" --netns "$r" attach tcx-ingress "$r" --default allow
	[ "$(ip -n "$l" -br link show "$l")" ]
	np 0 load "$l" "$pol"
	[[ $output == *unchanged* ]]
	tool 0 "$NETPOL" --netns "$r" rule add "$r" deny udp to port 9
	probe 'tcp 10.0.0.2 > 10.0.0.1:80 = pass' 'tcp 10.0.0.2 > 10.0.0.1:81 = drop' \
		'udp 10.0.0.1 > 10.0.0.2:9 = drop' 'udp 10.0.0.1 > 10.0.0.2:8 = oneway'
	np 0 doctor

	# both ends of the pair go with one of them
	index=$(ip -n "$l" -o link show "$l")
	index=${index%%:*}
	ip -n "$l" link del "$l"
	np 1 doctor
	[[ $output == *gone* ]]
	ip -n "$l" link add "$l" index "$index" type veth peer name "$r" netns "$r" index "$index"
	topo_up "$l" "$l" 10.0.0.1/24
	topo_up "$r" "$r" 10.0.0.2/24
	# a new device is a new choice, whatever the dead instance had
	np 2 attach tcx-ingress "$l"
	np 0 attach tcx-ingress "$l" --policy "$pol"
	probe 'tcp 10.0.0.2 > 10.0.0.1:80 = pass' 'tcp 10.0.0.2 > 10.0.0.1:81 = drop'
	tool 0 "$NETPOL" --netns "$r" attach tcx-ingress "$r" --default deny
	np 0 doctor

	ip netns del "$r"
	wait_for 10 gone
	np 1 doctor
	np 0 doctor --fix
	np 0 doctor
	for f in "$PIN"/netpol/*; do fail "left behind: $f"; done
}

# both devices have gone, with the pair's other end
gone() {
	! ip -n "$l" link show "$l" >/dev/null 2>&1
}

# bats test_tags=nodebug
@test "netpol: doctor finds a bpffs that hides the pins, and residue of the killed" {
	requires root kernel:6.6 tool:jq
	np 0 attach tcx-ingress "$l" --policy "$pol"
	np 0 doctor -j
	json '.ok'
	mkdir "$PIN/netpol/new_ns1_if99"
	np 0 doctor -j
	json '.ok and (.findings | length == 1)'
	np 0 doctor --fix
	[ ! -e "$PIN/netpol/new_ns1_if99" ]
	mount -t bpf bpf /sys/fs/bpf
	np 1 doctor
	umount /sys/fs/bpf
	[[ $output == *"hide"* ]]
	np 0 doctor
	np 0 detach tcx-ingress "$l"
}

@test "netpol: a kernel or a device without the hook is told apart" {
	requires root kernel:6.7
	np 1 attach netkit-primary "$l" --default deny
	[[ $stderr == *"not a netkit"* ]]
	np 2 attach netkit-primary "$l" --default deny --legacy only
	ip -n "$l" link add dummy type dummy
	np 0 attach tcx-egress dummy --default deny
	np 0 detach tcx-egress dummy
}
