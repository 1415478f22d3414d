# SPDX-License-Identifier: GPL-2.0-only
# tests/vm tells a good run from each kind of bad one. A check that does not
# work must not look like a clean log, so every bad end is provoked for real.
bats_require_minimum_version 1.5.0
load ../helpers

setup_file() { :; }
teardown_file() { :; }
teardown() { :; }

vm() { run -"$1" "$TOP/tests/vm" "${@:2}" 3>&- 4>&-; }
provoke=/sys/kernel/debug/provoke-crash/DIRECT

@test "vm: status, arguments and directory of the command survive" {
	cd "$TOP/tests"
	# shellcheck disable=SC2016 # the guest expands it
	vm 7 -c 1 bash -c 'echo "$(nproc)|$PWD|$#|$1|$2"; exit 7' - "a  'b' \"c\"" '$x * ;'
	[ "$output" = "1|$TOP/tests|2|a  'b' \"c\"|\$x * ;" ]
}

@test "vm: a WARN in the guest is status 99, though the command succeeds" {
	vm 99 bash -c "echo WARNING >$provoke"
	[[ $output == *"kernel splat"*WARNING:* ]]
}

@test "vm: a refcount error in the guest is status 99" {
	vm 99 bash -c "echo REFCOUNT_ADD_OVERFLOW >$provoke"
	[[ $output == *refcount_t:* ]]
}

@test "vm: a panic in the guest is status 125, with the console's tail" {
	vm 125 bash -c "echo PANIC >$provoke"
	[[ $output == *"Kernel panic - not syncing"*"the guest died"* ]]
}

@test "vm: a command that hangs is status 124" {
	vm 124 -t $((10 * TIMEOUT_FACTOR)) sleep 1000
	[[ $output == *"no result after"* ]]
}

@test "vm: the clock counts instructions with -i" {
	vm 0 -i cat /sys/devices/system/clocksource/clocksource0/current_clocksource
	[ "$output" = tsc ]
}

@test "vm: usage and a kernel that is not there are status 2" {
	vm 2
	vm 2 -x true
	vm 2 -c 0 true
	vm 2 -k /nonexistent true
	[[ $output == *"no such kernel (make kernel)"* ]]
}

@test "splat: each kind is found in a log" {
	good='[    0.1] Linux version 7.3.4'
	"$TOP/tests/splat" <<<"$good"
	while IFS= read -r line; do
		run -1 "$TOP/tests/splat" <<<"$good"$'\n'"[    2.345678] $line"
		[[ $output == *"$line"* ]] || fail "$line"
	done <<-'END'
		WARNING: CPU: 0 PID: 1 at net/core/dev.c:1 f+0x1/0x2
		WARNING: possible circular locking dependency detected
		WARNING: suspicious RCU usage
		BUG: KASAN: slab-use-after-free in f+0x1/0x2
		BUG: unable to handle page fault for address: 0000
		BUG: sleeping function called from invalid context at f.c:1
		Oops: general protection fault, 0000 [#1] SMP
		UBSAN: array-index-out-of-bounds in f.c:1:2
		INFO: task tool:12 blocked for more than 122 seconds.
		rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:
		refcount_t: underflow; use-after-free.
		unregister_netdevice: waiting for veth0 to become free. Usage count = 2
		ref_tracker: net notrefcnt@00 has 1/1 users at
		kmemleak: 2 new suspected memory leaks (see /sys/kernel/debug/kmemleak)
		list_del corruption. prev->next should be 0
		Kernel panic - not syncing: Fatal exception
	END
}

@test "splat: an empty log, or patterns that cannot be read, are not a clean log" {
	run -2 "$TOP/tests/splat" </dev/null
	cp "$TOP/tests/splat" "$TOP/tests/splat.allow" "$BATS_TEST_TMPDIR"
	run -2 "$BATS_TEST_TMPDIR/splat" <<<"a log"
	printf '(' >"$BATS_TEST_TMPDIR/splat.deny"
	run -2 "$BATS_TEST_TMPDIR/splat" <<<"a log"
}

@test "splat: what splat.allow names is not reported, all else is" {
	cp "$TOP"/tests/splat{,.deny,.allow} "$BATS_TEST_TMPDIR"
	echo 'at known/bug\.c:1 ' >>"$BATS_TEST_TMPDIR/splat.allow"
	run -0 "$BATS_TEST_TMPDIR/splat" <<<"WARNING: at known/bug.c:1 f"
	run -1 "$BATS_TEST_TMPDIR/splat" <<<$'WARNING: at known/bug.c:1 f\nWARNING: at other.c:2 f'
	[[ $output == *other.c* ]]
}
