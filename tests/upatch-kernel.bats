# SPDX-License-Identifier: GPL-2.0-only
# The patches in kernel/upatch: programs that are verified and compiled for user mode.
# tests/userdeny asks the verifier; tests/userjit calls what was compiled as functions
# of its own, with the kernel's run of the same instructions for an oracle.
bats_require_minimum_version 1.5.0
load helpers

setup() { requires root patch:upatch/0002; }

# says PROGRAM VERB...: all lines are ok, and there are some
says() {
	tool 0 "$B/tests/$1" "${@:2}"
	echo "$output"
	[[ $output == ok* && $output != *"not ok"* ]]
}

@test "upatch: the verifier refuses what is not for user mode" {
	says userdeny
}

@test "upatch: a program needs CAP_BPF and CAP_PERFMON" {
	says userdeny -u
}

@test "upatch: loops, jumps, stacks and casts do here what they do in the kernel" {
	says userjit cases
}

@test "upatch: random programs do here what they do in the kernel" {
	says userjit random $((TIMEOUT_FACTOR > 3 ? 100 : 400))
	says userjit random 50 "$RANDOM"
}

@test "upatch: pointers of the process can be read" {
	says userjit reads
}

@test "upatch: no address of the kernel is in the code" {
	says userjit addresses
}

@test "upatch: libbpf loads one by its section, and bpftool tells of it" {
	local pin=/sys/fs/bpf/clamp
	tool 0 bpftool prog load "$B/tests/userpatch.bpf.o" "$pin"
	tool 0 bpftool -j prog show pinned "$pin"
	[ "$(jq -r '.type, .name, .jited' <<<"$output" | xargs)" = "user_patch clamp true" ]
	(($(jq .bytes_jited <<<"$output") > 0))
	rm "$pin"
}

@test "upatch: the kernel's unit tests of what it makes of a function's entry" {
	local suite=/sys/kernel/debug/kunit/bpf_user_patch
	[ -d "$suite" ] || mount -t debugfs debugfs /sys/kernel/debug
	echo 1 >"$suite/run"
	cat "$suite/results"
	[ "$(grep -c '^    ok ' "$suite/results")" -gt 0 ]
	run ! grep 'not ok' "$suite/results"
}
