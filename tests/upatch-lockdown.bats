# SPDX-License-Identifier: GPL-2.0-only
# What keeps root from patching processes, and cannot be taken back before the next boot: this
# file is the last of its feature.
bats_require_minimum_version 1.5.0
load helpers

setup() { requires root patch:upatch/0007; }

# refused ERRNO: what an attach ends in
refused() { tool 0 "$B/tests/userlink" refused "$1"; }

@test "upatch: Yama keeps everybody from patching" {
	local scope=/proc/sys/kernel/yama/ptrace_scope
	[ -w "$scope" ] || skip "this kernel is built without Yama"
	refused 0
	echo 3 >"$scope"
	refused 13
}

@test "upatch: so does lockdown" {
	local dir=/sys/kernel/security
	mountpoint -q "$dir" || mount -t securityfs securityfs "$dir" || :
	[ -w "$dir/lockdown" ] || skip "this kernel is built without lockdown, or securityfs"
	echo integrity >"$dir/lockdown"
	refused 1
}
