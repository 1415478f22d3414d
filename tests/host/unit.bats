# SPDX-License-Identifier: GPL-2.0-only
# Unit tests of the tools' parts, and a fuzz target per parser. `make unit fuzz`
# builds them with address and undefined-behaviour sanitizers.
bats_require_minimum_version 1.5.0
load ../helpers

setup_file() { :; }
teardown_file() { :; }
teardown() { :; }

# each DIR RUNNER...: run RUNNER PROGRAM for every tests/DIR/*.c; all must succeed
each() {
	local dir=$1 source program count=0 bad=''
	shift
	for source in "$TOP/tests/$dir"/*.c; do
		program=$B/$dir/$(basename "$source" .c)
		[ -x "$program" ] || { fail "$program: not built (make $dir)"; return; }
		count=$((count + 1))
		"$@" "$program" >"$BATS_TEST_TMPDIR/log" 2>&1 || {
			bad+=" ${program##*/}"
			tail -n 60 "$BATS_TEST_TMPDIR/log" | sed "s/^/${program##*/}: /"
		}
	done
	echo "$count programs"
	[ -z "$bad" ] || fail "failed:$bad"
}

# A test that prints "not ok", or fewer results than its plan says, has failed too.
tap() {
	local out plan
	out=$("$1" 2>&1) || { printf '%s\n' "$out"; return 1; }
	printf '%s\n' "$out"
	plan=$(sed -n 's/^1\.\.\([0-9]*\).*/\1/p' <<<"$out")
	[ -n "$plan" ] && [ "$(grep -c '^ok ' <<<"$out")" = "$plan" ]
}

fuzz() { # FUZZ_SECONDS each, from the corpus that is kept, which is not changed
	local corpus=$TOP/tests/fuzz/${1##*/}.corpus new=$BATS_TEST_TMPDIR/${1##*/}
	mkdir -p "$new"
	[ -d "$corpus" ] || { echo "$corpus: no corpus"; return 1; }
	(cd "$new" && nice "$1" -max_total_time="$FUZZ_SECONDS" -timeout=25 \
		-rss_limit_mb=4096 -print_final_stats=1 "$new" "$corpus")
}

@test "unit: every unit test passes" {
	each unit tap
}

@test "unit: a test that fails or stops early is seen" {
	printf '#!/bin/sh\necho 1..2\necho ok 1\n' >"$BATS_TEST_TMPDIR/early"
	printf '#!/bin/sh\necho 1..1\necho not ok 1\n' >"$BATS_TEST_TMPDIR/red"
	chmod +x "$BATS_TEST_TMPDIR"/{early,red}
	run ! tap "$BATS_TEST_TMPDIR/early"
	run ! tap "$BATS_TEST_TMPDIR/red"
}

@test "fuzz: every target survives its corpus and new input" {
	: "${FUZZ_SECONDS:=${CI:+20}}" "${FUZZ_SECONDS:=10}"
	each fuzz fuzz
}
