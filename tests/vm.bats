# SPDX-License-Identifier: GPL-2.0-only
# The guest and the helpers are what the other suites take them for.
# nodebug: about the helpers, whatever the kernel.
bats_require_minimum_version 1.5.0
load helpers

# bats test_tags=stock
@test "vm: the guest is root on a read-only host with what suites need" {
	((EUID == 0))
	run ! touch /etc/skelkit-test "$TOP/skelkit-test"
	mounts=$(</proc/mounts)
	for want in ' /sys/fs/bpf bpf ' ' /sys/fs/cgroup cgroup2 ' ' /sys/kernel/debug debugfs ' \
		' /tmp tmpfs '; do
		[[ $mounts == *"$want"* ]] || fail "missing:$want"
	done
	(($(nproc) == VM_CPUS))
	[ -r /sys/kernel/btf/vmlinux ]
}

@test "vm: the kernel is the pinned one, built from this series" {
	read -r _ _ release who _ </proc/version
	[ "$release" = "$(<"$VM_KERNEL.release")" ]
	[[ $who == "(skelkit@$("$TOP/kernel/build" id))" ]]
}

# bats test_tags=unpatched
@test "vm: Debian's own kernel loads its modules as they are needed" {
	read -r _ _ release who _ </proc/version
	[[ $release == "$(<"$VM_KERNEL.release")" && $who == "(debian-kernel@"* ]]
	topo veth left right
	ns left busybox ping -c 1 -W 5 10.0.0.2
	ip link add "$(name d)" type dummy
	[ ! -e /sys/class/net/dummy0 ]		# which it makes unless it is told
	run -0 grep -E '^(dummy|veth) ' /proc/modules
	((${#lines[@]} == 2))
}

# bats test_tags=nodebug
@test "helpers: topo joins two namespaces that answer each other" {
	topo veth left right
	ns left busybox ping -c 1 -W 5 10.0.0.2
	ns right busybox ping -c 1 -W 5 fd00::1
	topo_down
	[ ! -e "/run/netns/$(name left)" ]
}

# bats test_tags=nodebug
@test "helpers: tool tells an unexpected status, a hang and a crash from success" {
	tool 0 echo hello
	[ "$output" = hello ]
	tool 3 bash -c 'echo out; echo err >&2; exit 3'
	[ "$output,$stderr" = out,err ]
	run tool 0 false
	((status == 1))
	[[ $output == *"expected status 0"* ]]
	run tool 1 bash -c 'kill -SEGV $$'
	((status == 1))
	TOOL_SECONDS=1 TIMEOUT_FACTOR=1 run tool 0 sleep 60
	((status == 1))
	[[ $output == *"expected status 0"* ]]
}

# bats test_tags=nodebug
@test "helpers: wait_for polls, and fails when the time is over" {
	tries=0
	third() { ((++tries == 3)); }
	wait_for 5 third
	((tries == 3))
	TIMEOUT_FACTOR=0 run wait_for 0 false
	((status == 1))
}

# bats test_tags=nodebug
@test "helpers: requires skips with a reason, and CI wants every program" {
	requires root kernel:6.6 kfunc:bpf_sock_destroy tool:bash
	run requires kernel:99.1
	skipped=$(requires kernel:99.1; echo "not skipped")
	[[ $skipped != *"not skipped"* ]]
	CI=true run requires tool:no-such-program
	((status == 1))
	[[ $output == *"no-such-program is not installed"* ]]
}

# bats test_tags=nodebug
@test "helpers: versions compare by number" {
	version_ge 7.3.4 6.6
	version_ge 7.3.4-amd64 7.3.4
	version_ge 6.10.1 6.9
	run ! version_ge 6.5.13 6.6
	run ! version_ge 7.3 7.3.1
}

# A leak check that does not work would look like clean tests.
@test "leaks: a namespace, link, pin and program left behind are each reported" {
	leak_list >"$BATS_TEST_TMPDIR/before"
	leak_check "$BATS_TEST_TMPDIR/before"
	ip netns add leak
	ip link add leakdev type dummy
	"$B/bpftool/bpftool" map create /sys/fs/bpf/leakmap type array key 4 value 4 \
		entries 1 name leakmap
	TIMEOUT_FACTOR=0 run leak_check "$BATS_TEST_TMPDIR/before"
	((status == 1))
	for want in 'netns leak' 'link leakdev' 'pin /sys/fs/bpf/leakmap' 'bpf map '; do
		[[ $output == *"leaked: $want"* ]] || fail "not reported: $want"
	done
	TIMEOUT_FACTOR=0 run leak_check "$BATS_TEST_TMPDIR/before" cheap
	((status == 1))
	ip netns del leak
	ip link del leakdev
	rm /sys/fs/bpf/leakmap
	leak_check "$BATS_TEST_TMPDIR/before"
	run leak_check /nonexistent
	((status == 1))
}

# bats test_tags=nodebug
@test "leaks: bats is red when a suite leaks" {
	mkdir "$BATS_TEST_TMPDIR/suite"
	cp "$TOP"/tests/{helpers,setup_suite}.bash "$BATS_TEST_TMPDIR/suite"
	printf '%s\n' 'load helpers' '@test "leaks" { ip netns add leak; }' \
		'setup_file() { :; }' 'teardown_file() { :; }' >"$BATS_TEST_TMPDIR/suite/leak.bats"
	ln -s "$TOP"/{Makefile,build} "$BATS_TEST_TMPDIR"
	TIMEOUT_FACTOR=0 run env -u BATS_RUN_TMPDIR bats "$BATS_TEST_TMPDIR/suite"
	ip netns del leak
	((status == 1))
	[[ $output == *"leaked: netns leak"* ]]
}
