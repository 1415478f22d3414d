# SPDX-License-Identifier: GPL-2.0-only
# .ci/run adds up what its stages print, and no bad end of a stage stays unseen.
# The stages are a `make` of this suite's.
bats_require_minimum_version 1.5.0
load ../helpers

setup_file() { :; }
teardown_file() { :; }
teardown() { :; }

setup() {
	mkdir "$BATS_TEST_TMPDIR"/{bin,.ci,tests}
	cp "$TOP/.ci/run" "$BATS_TEST_TMPDIR/.ci"
	# A stage prints the file of its name and ends with the status in NAME.rc.
	cat >"$BATS_TEST_TMPDIR/bin/make" <<-'END'
		#!/bin/bash
		cd "${0%/*}/.." || exit
		[ ! -t 0 ] && [ "$CI" = true ] || exit 9
		[ ! -e "$1" ] || cat "$1"
		[ ! -e "$1.rc" ] || exit "$(<"$1.rc")"
	END
	chmod +x "$BATS_TEST_TMPDIR/bin/make"
	cd "$BATS_TEST_TMPDIR" || return
	say lint 1..2 'ok 1 a' 'ok 2 b'
	say test 1..1 'ok 1 a' 1..1 'ok 1 a' 1..2 'ok 1 a' 'ok 2 b # skip needs x'
	say test-kernel 1..1 'ok 1 a'
	say test-debug 1..1 'ok 1 a' 1..1 'ok 1 a'
	# a suite for both kernels: with the host's and the stock kernel's three plans, with
	# kmemleak's two
	say tests/a.bats
}

say() { printf '%s\n' "${@:2}" >"$1"; }

# ci STATUS LINE: .ci/run ends with that status, and LINE is its last line
ci() {
	run -"$1" env PATH="$BATS_TEST_TMPDIR/bin:$PATH" bash .ci/run
	[ "${lines[-1]}" = "$2" ] || fail "expected: $2"
}

@test "ci: the closing line is the sum of all stages" {
	ci 0 "8 passed, 0 failed, 1 skipped"
}

@test "ci: a test that fails is counted, with the stage's status or without" {
	say lint 1..2 'not ok 1 a' '# ok 7 output of the test' 'ok 2 b'
	ci 1 "7 passed, 1 failed, 1 skipped"
	echo 2 >lint.rc
	ci 1 "7 passed, 1 failed, 1 skipped"
}

@test "ci: a stage that fails with all its tests passed is one failure" {
	echo 2 >test.rc
	ci 1 "8 passed, 1 failed, 1 skipped"
}

@test "ci: tests that were planned and never ran have failed" {
	say test 1..1 'ok 1 a' 1..1 'ok 1 a' 1..3 'ok 1 a'
	ci 1 "8 passed, 2 failed, 0 skipped"
	say test 1..4 'ok 1 a' 1..1 'ok 1 a' 1..1 'ok 1 a'
	ci 1 "8 passed, 3 failed, 0 skipped"
}

@test "ci: a guest that dies and a splat are failures of their own" {
	say test 1..1 'ok 1 a' 1..1 'ok 1 a' 1..3 'ok 1 a' 'vm: the guest died'
	echo 2 >test.rc
	ci 1 "8 passed, 3 failed, 0 skipped"
	say test 1..1 'not ok 1 a' 1..1 'ok 1 a' 1..1 'ok 1 a' '--- kernel splat'
	ci 1 "7 passed, 2 failed, 0 skipped"
}

@test "ci: a suite that did not run at all is a failure, whatever its status" {
	say test 1..1 'ok 1 a' 1..1 'ok 1 a'
	ci 1 "7 passed, 1 failed, 0 skipped"
	say test 1..1 'ok 1 a' 1..1 'ok 1 a' 1..0
	ci 1 "7 passed, 1 failed, 0 skipped"
	rm test-debug
	ci 1 "5 passed, 3 failed, 0 skipped"
}

@test "ci: without what the tests need there is no result" {
	echo 1 >deps.rc
	ci 1 "0 passed, 1 failed, 0 skipped"
	[[ $output != *"=== lint"* ]]
}
