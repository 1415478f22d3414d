# SPDX-License-Identifier: GPL-2.0-only
# The patches in kernel/upatch: links that patch a function of a process. tests/userlink is
# about the links, tests/usersite about a thread at the entry, tests/userstorm about both
# while they change.
# bats file_tags=smp
bats_require_minimum_version 1.5.0
load helpers

setup() { requires root patch:upatch/0007; }

# says PROGRAM VERB...: all lines are ok or comments, and there are some
says() {
	TIMEOUT_FACTOR=$((TIMEOUT_FACTOR * 3)) tool 0 "$B/tests/$1" "${@:2}"
	[[ $output == *ok:* && $output != *"not ok"* ]]
}

@test "upatch: a link patches a function, counts, tells, changes and restores" {
	says userlink basics
}

@test "upatch: what a link refuses leaves the process as it was" {
	says userlink errors
}

@test "upatch: forks, exec and changes of mappings" {
	says userlink mm
}

@test "upatch: without memory nothing is half done" {
	requires faults
	says userlink nomem
}

@test "upatch: several who attach, update, ask and detach at once" {
	says userlink races
}

@test "upatch: a function and its caller find their registers as without a patch" {
	says usersite registers
}

@test "upatch: first instructions of all kinds, moved or refused" {
	says usersite sites
}

@test "upatch: faults of the program read 0, those of the function are its own" {
	says usersite faults
}

@test "upatch: without room on the stack the function runs without the program" {
	says usersite stack
}

@test "upatch: links come and go under threads with signals and stacks of their own" {
	says userstorm storm $((TIMEOUT_FACTOR > 3 ? 300 : 10000)) 150
}

@test "upatch: single steps over a patch, and what happens to it meanwhile" {
	says userstorm step
}

@test "upatch: uprobes and hardware breakpoints beside a patch" {
	says userstorm probes
}

# bats test_tags=kmemleak
@test "upatch: nothing is left of processes and links that are gone" {
	says userlink churn $((TIMEOUT_FACTOR > 3 ? 100 : 300))
}

@test "upatch: bpftool tells of a link" {
	local id pid vaddr offset image path
	coproc HOLD { exec "$B/tests/userlink" hold 3>&- 4>&-; }
	read -rt $((20 * TIMEOUT_FACTOR)) -u "${HOLD[0]}" id pid vaddr offset image path
	# of all links: when it is asked for one, what it returns is any errno of before
	tool 0 bpftool -j link show
	[ "$(jq -r ".[] | select(.id == $id)"' | .type, .pid, .vaddr, .offset, .image_vaddr, .path,
		.mode, .state, .nr_mm, .trap_hits, .faults, .skipped, .cookie, (.build_id | length)' \
		<<<"$output" | xargs)" = \
		"text_poke $pid $vaddr $offset $image $path trap attached 1 3 0 0 42 40" ]
	tool 0 bpftool link show
	[[ $output == *"text_poke  pid $pid  $path+$(printf %#x "$offset")"* ]]
	[[ $output == *"mode trap  state attached"*"cookie 42  processes 1  updates 0"* ]]
	[[ $output == *"traps 3  interior 0  faults 0  skipped 0"* ]]
	eval "exec ${HOLD[1]}>&-"
	wait "$HOLD_PID"
}
