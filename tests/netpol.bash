# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034
# What the suites of netpol share: two namespaces joined by veth, with the device $l in
# the one and $r in the other, and the tool at work in the first.

NETPOL=${NETPOL_BIN:-$B/netpol}	# NETPOL_BIN: another build, to see the tests go red

netpol_setup() {
	l=$(name l) r=$(name r)
	topo veth l r
}

# Instances of namespaces that are gone stay for doctor. What it cannot remove the leak
# check reports, so its own status does not matter here.
netpol_teardown() {
	topo_down
	[ -z "$(echo "$PIN"/netpol/*)" ] || "$NETPOL" doctor --fix >/dev/null || :
}

# Suites with more to do call these from their own.
setup() { netpol_setup; }
teardown() { netpol_teardown; }

np() { local rc=$1; shift; tool "$rc" "$NETPOL" --netns "$l" "$@"; }
probe() { tool 0 "$B/tests/traffic" -a "$l" -b "$r" probe "$@"; }
