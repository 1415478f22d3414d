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

# programs of another agent, on $l
foreign() { tool 0 "$B/tests/foreign" -n "$l" "$@"; }

# order HOOK: "foreign" and "netpol", in the kernel's order, by bpftool
order() {
	local kind=${1/-//} rest
	tool 0 nsenter --net="/run/netns/$l" "$B/bpftool/bpftool" -j net show dev "$l"
	order='' rest=$output
	while [[ $rest =~ \"kind\":\"$kind\",\"name\":\"([a-z]+)_(.*) ]]; do
		order+=${order:+ }${BASH_REMATCH[1]} rest=${BASH_REMATCH[2]}
	done
}

# is_order HOOK WANT
is_order() {
	order "$1"
	[ "$order" = "$2" ] || fail "$1: order is '$order', wanted '$2'"
}
