# SPDX-License-Identifier: GPL-2.0-only
# netpol against nftables with the same rules and packets, and against what it
# must remember. The tables are in the two Python programs. The verdicts are the same on
# the debug kernel, where packets take the same way in netpol-hooks.bats.
# bats file_tags=nodebug
bats_require_minimum_version 1.5.0
load helpers
load netpol

# Each of the two makes its own devices.
setup() { :; }

# These take a minute when emulated: more than `tool` allows.
long() { TIMEOUT_FACTOR=$((TIMEOUT_FACTOR * 6)) tool "$@"; }

@test "netpol: verdicts and counters equal those of nftables" {
	requires root kernel:6.6 tool:nft tool:python3
	long 0 python3 "$BATS_TEST_DIRNAME/netpol-oracle.py" "$NETPOL"
	[[ $output =~ ([0-9]+)\ pairs ]]
	((BASH_REMATCH[1] >= 300))
}

@test "netpol: flows, fragments and reloads on veth" {
	requires root kernel:6.6 tool:python3
	long 0 python3 "$BATS_TEST_DIRNAME/netpol-state.py" "$NETPOL" veth
}

# The program is the same, so on netkit only what depends on the device is played again.
@test "netpol: flows and fragments on netkit in L2 and L3 mode" {
	requires root kernel:6.7 tool:python3
	for mode in l2 l3; do
		long 0 python3 "$BATS_TEST_DIRNAME/netpol-state.py" "$NETPOL" "$mode" \
			"tcp opened from inside" "tcp over IPv6, extension headers on the way back" \
			"ICMP errors about a live flow, path MTU among them" \
			"a new policy ends the flows that it denies" "fragments of IPv6" \
			"neighbours are found whatever the policy"
	done
}
