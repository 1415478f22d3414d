# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Before the first suite and after the last: whoever leaves a network namespace,
# link, pin, BPF program, map or link behind fails the run.

setup_suite() {
	# shellcheck source=tests/helpers.bash
	BATS_TEST_DIRNAME=${BASH_SOURCE[0]%/*} source "${BASH_SOURCE[0]%/*}/helpers.bash"
	leak_list >"$BATS_SUITE_TMPDIR/before" || fail "setup_suite: cannot list BPF objects"
}

teardown_suite() {
	# shellcheck source=tests/helpers.bash
	BATS_TEST_DIRNAME=${BASH_SOURCE[0]%/*} source "${BASH_SOURCE[0]%/*}/helpers.bash"
	leak_check "$BATS_SUITE_TMPDIR/before"
}
