# SPDX-License-Identifier: GPL-2.0-only
# netpol against nftables with the same rules and packets, and against what it
# must remember. The tables are in the two Python programs.
bats_require_minimum_version 1.5.0
load helpers

NETPOL=${NETPOL_BIN:-$B/netpol}

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

@test "netpol: flows, fragments and reloads on netkit in L2 mode" {
	requires root kernel:6.7 tool:python3
	long 0 python3 "$BATS_TEST_DIRNAME/netpol-state.py" "$NETPOL" l2
}

@test "netpol: flows, fragments and reloads on netkit in L3 mode" {
	requires root kernel:6.7 tool:python3
	long 0 python3 "$BATS_TEST_DIRNAME/netpol-state.py" "$NETPOL" l3
}
