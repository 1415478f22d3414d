# SPDX-License-Identifier: GPL-2.0-only
# What a tired eye misses: the checks of the sources, one per rule.
bats_require_minimum_version 1.5.0
load ../helpers

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.." || return
	TRACKED=$(git ls-files --cached --others --exclude-standard)
	export TRACKED
}
teardown_file() { :; }
teardown() { :; }
setup() { cd "$TOP" || return; }

# pick REGEX [NOT]: $files = the tracked files that match REGEX and not NOT
pick() {
	local f
	files=()
	while IFS= read -r f; do
		[[ ! -f $f || ! $f =~ $1 || ($# -gt 1 && $f =~ $2) ]] || files+=("$f")
	done <<<"$TRACKED"
}

# checkpatch's types that do not fit user space or this project, each with its reason
IGNORE=(
	BIT_MACRO		# the kernel's own
	CAMELCASE		# argp, jansson, zstd and inttypes.h name things so
	COMPLEX_MACRO		# cases of a switch, arguments of printf
	EMBEDDED_FUNCTION_NAME	# messages name the verb, which may be the function too
	LINE_SPACING		# a _Static_assert sits right below its struct; LIBBPF_OPTS declares
	LONG_LINE_STRING MISSING_SPACE SPLIT_STRING STRING_FRAGMENTS	# test data, help texts
	MACRO_ARG_REUSE		# what unrolls code for the verifier repeats its arguments
	MULTIPLE_ASSIGNMENTS	# unlike the kernel's maintainers we find them readable
	NEW_TYPEDEFS		# u128, which the kernel's user headers lack
	OPEN_ENDED_LINE		# texts of several lines that begin at one column
	PREFER_DEFINED_ATTRIBUTE_MACRO	# __printf and friends are the kernel's own
	PREFER_KERNEL_TYPES	# uint8_t is in prototypes that are not ours
	STRCPY			# strscpy is the kernel's own
	TYPO_SPELLING		# codespell's part, which knows the exceptions
	VOLATILE		# `const volatile` is how BPF spells configuration
)

@test "lint: shell scripts pass shellcheck" {
	requires tool:shellcheck
	pick .
	mapfile -t files < <(grep -lE '^#!/bin/bash|^# shellcheck shell=(ba)?sh|^#!.*bats|^bats_require' \
		"${files[@]}")
	shellcheck -x -P tests "${files[@]}"
}

@test "lint: C sources pass checkpatch" {
	requires tool:perl
	pick '^(progs|tools|tests)/.*\.[ch]$'
	((${#files[@]} > 0))
	cd "$BATS_TEST_TMPDIR"
	run perl "${KSRC:-$B/linux}/scripts/checkpatch.pl" --no-tree --root="${KSRC:-$B/linux}" \
		--strict --no-signoff --terse --quiet --no-summary --max-line-length=100 --show-types \
		--ignore "$(IFS=,; echo "${IGNORE[*]}")" -f "${files[@]/#/$TOP/}"
	[[ $status -eq 0 && -z $output ]] || fail "$output"
}

@test "lint: kernel patches pass checkpatch --strict" {
	requires tool:perl
	pick '^kernel/.*\.patch$'
	((${#files[@]} > 0)) || { echo "the series is empty"; return 0; }
	cd "${KSRC:-$B/linux}"
	# kfuncs' flags become assembly text, in which BIT() is not a number; the commits that
	# Fixes: names are not in a tree that was imported
	perl scripts/checkpatch.pl --strict --no-signoff --terse --show-types --quiet --no-summary \
		--ignore FILE_PATH_CHANGES,BIT_MACRO,UNKNOWN_COMMIT_ID "${files[@]/#/$TOP/}"
}

@test "lint: each file says its licence on line 1 or 2" {
	bad=
	pick . '^(LICENSE|README\.md|kernel/BASE|.*\.(patch|txt|csv|json|svg))$|\.corpus/'
	for f in "${files[@]}"; do
		head -n 2 "$f" | grep -q 'SPDX-License-Identifier: GPL-2.0' || bad+=" $f"
	done
	[ -z "$bad" ] || fail "no SPDX line:$bad"
}

@test "lint: the README's table has a row for each feature, and no other" {
	rows=$(sed -n 's/^| \([a-z]*\):.*| \[progs\/.*/\1/p' README.md | sort)
	want=$(for f in progs/*.bpf.c; do basename "$f" .bpf.c; done | sort)
	[ "$rows" = "$want" ] || fail "README:" "$rows" "progs/:" "$want"
	for f in $want; do
		[ -e "tests/$f.bats" ] || fail "tests/$f.bats does not exist"
		((${#f} <= 8)) || fail "$f: longer than 8 letters"
	done
}

@test "lint: every long option in --help is used in a suite" {
	bad=
	for f in progs/*.bpf.c; do
		f=$(basename "$f" .bpf.c)
		for o in $("$B/$f" --help | grep -oE '(^|[ ,])--[a-z][a-z-]+' | tr -d ' ,' | sort -u); do
			case $o in --usage) continue ;; esac	# argp's own
			grep -qE -e "$o([^a-z-]|\$)" tests/"$f"*.* || bad+=" $f:$o"
		done
	done
	[ -z "$bad" ] || fail "in no suite:$bad"
}

@test "lint: subjects of commits are short and name their part" {
	bad=$(git log --no-merges --format=%s -n 500 | grep -vE '^[A-Za-z0-9/.,_-]+: .{3,}[^.]$') || :
	bad+=$(git log --no-merges --format=%s -n 500 | grep -E '.{73}') || :
	[ -z "$bad" ] || fail "$bad"
}

@test "lint: shared headers compile on both sides" {
	for h in progs/*.h; do
		case $h in *.bpf.h) continue ;; esac
		printf '#include <linux/types.h>\n#include "%s"\n' "$PWD/$h" |
			gcc -std=gnu11 -Wall -Wextra -Werror -isystem "$B/uapi/usr/include" -fsyntax-only -x c -
		printf '#include "vmlinux.h"\n#include "%s"\n' "$PWD/$h" |
			clang-19 --target=bpf -fms-extensions -Wno-microsoft-anon-tag -Wall -Wextra \
				-Werror -isystem vmlinux -fsyntax-only -x c -
	done
}

@test "lint: a touched header rebuilds what includes it, and only that" {
	MAKEFLAGS='' make -s all
	MAKEFLAGS='' make -q all
	for f in progs/*.bpf.c; do
		f=$(basename "$f" .bpf.c)
		[ -e "progs/$f.h" ] || continue
		plan=$(MAKEFLAGS='' make -n -W "progs/$f.h" all)
		[[ $plan == *"build/obj/$f.bpf.o"* && $plan == *"build/obj/$f.o"* ]] || fail "$plan"
		[[ $plan != *libbpf.a\ install_headers* && $plan != *"ynl_gen"* ]] || fail "$plan"
		for g in progs/*.bpf.c; do
			g=$(basename "$g" .bpf.c)
			[ "$g" = "$f" ] || [[ $plan != *"-c progs/$g.bpf.c"* ]] || fail "$f.h rebuilds $g"
		done
	done
}

@test "lint: a new feature builds without an edit of the Makefile" {
	new=$BATS_TEST_TMPDIR/new
	mkdir -p "$new"/{progs,tools,skel,build,kernel}
	cp -a Makefile kernel "$new"
	cp tools/common.[ch] "$new/tools"
	cp progs/common.bpf.h "$new/progs"
	ln -s "$TOP/vmlinux" "$new"
	cp -a "$B"/{libbpf,include,bpftool,uapi,ynl} "$new/build"
	cat >"$new/progs/demo.bpf.c" <<-'END'
		#include "common.bpf.h"
		char LICENSE[] SEC("license") = "GPL";
		SEC("tcx/egress")
		int demo_egress(struct __sk_buff *skb) { return skb->len ? TCX_NEXT : TCX_DROP; }
	END
	cat >"$new/tools/demo.c" <<-'END'
		#include "common.h"
		#include "demo.skel.h"
		int main(void) { struct demo *d = demo__open(); demo__destroy(d); return d ? 0 : 1; }
	END
	touch "$new/build/ready${KSRC//\//-}"
	find "$new/build/" -exec touch -hr Makefile {} +
	MAKEFLAGS='' make -C "$new" "KSRC=$(readlink -f "${KSRC:-$B/linux}")"
	"$new/build/demo"
}

@test "lint: nothing names a mirror, a home directory or this machine" {
	hosts=$(sed -nE 's#^(URIs: *|deb +(\[[^]]*\] +)?)https?://([^/ ]+).*#\3#p' \
		/etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | sort -u |
		sed 's/[.]/[.]/g' | paste -sd'|') || :
	near=${TOP%/*}		# what stands beside the checkout is of this machine
	case $near in '' | /tmp | /var/tmp | /src | /usr/src | /usr/local/src | /srv | /opt) near=$TOP ;; esac
	words="/home/[a-z]|/root/[.]|(^|[^[:alnum:]_./])$near/${hosts:+|$hosts}"
	words+='|(ftp|deb|security|snapshot)[.]debian[.]org'
	pick . '^tests/host/lint\.bats$'
	run -1 grep -nIE "$words" "${files[@]}"
}

@test "lint: no file is misspelt, unfinished, or has blanks at line ends" {
	requires tool:codespell
	pick '\.(c|h|md|bash|bats|txt|patch)$|^(Makefile|kernel/(build|config.*))$|^\.ci/' '^vmlinux/'
	# misspelt keywords in the tests of "did you mean"; \n before "known"; iif of ip rule
	codespell -q 3 -L te,fo,ba,nd,ser,alo,alow,nknown,allwo,iif "${files[@]}"
	pick '^(progs|tools|tests|kernel|Makefile)' 'lint\.bats|\.corpus/|\.patch$'
	run -1 grep -nIE '\b(TODO|FIXME|XXX|HACK|not implemented)\b' "${files[@]}"
	pick '\.(c|h|bash|bats|py)$|^Makefile' '^vmlinux/'
	run -1 grep -nIE '[[:blank:]]+$' "${files[@]}"
}

@test "lint: vmlinux.h is of this kernel/BASE, series and config" {
	read -r _ _ _ _ id _ <vmlinux/vmlinux.h
	[ "${id%,}" = "$(kernel/build id)" ] || fail "vmlinux.h is of ${id%,}: make vmlinux"
}

@test "lint: vmlinux.h equals the types of the kernel that was built" {
	built=$(readlink "$B/vmlinux")
	[[ $(head -n 1 vmlinux/vmlinux.h) == *"pahole $(<"${built%/*}/tools"):"* ]] ||
		skip "vmlinux.h was made with another gcc or pahole: compare by hand"
	"$B/bpftool/bootstrap/bpftool" btf dump file "$B/vmlinux" format c |
		cmp - <(tail -n +3 vmlinux/vmlinux.h)
}

@test "lint: the series applies, and each patch in kernel/ is in it" {
	kernel/build tree
	pick '^kernel/.*\.patch$'
	for p in "${files[@]}"; do
		grep -qx "${p#kernel/}" kernel/series || fail "$p is not in kernel/series"
	done
}

@test "lint: package lists and help name what exists" {
	.ci/deps check
	[ "$(make help | grep -cE '^  (all|test|test-debug|demo|kernel|lint|install) ')" = 7 ]
}
