# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034
# What every suite does in the same way; `load helpers` is the first line after
# the minimum version. In the guest each program that starts costs 20 ms, jq 300:
# use bash's own means, one `ip -batch` for a topology, one `bpftool -j` for a check.

TOP=$(cd "$BATS_TEST_DIRNAME" && until [ -e Makefile ]; do cd ..; done && echo "$PWD")
B=$TOP/build
PIN=/sys/fs/bpf/skelkit
: "${TOOL_SECONDS:=20}"
: "${TIMEOUT_FACTOR:=1}"	# tests/vm raises it: emulation is slow, and the debug kernel slower

shopt -s nullglob globstar

# Say why, to the log of the test that fails.
fail() {
	printf '%s\n' "$@"
	return 1
}

# requires WORD...: the first line of a test. What this machine lacks is a skip
# with its name; a program that is not there is a failure where CI is set, since
# .ci/run has installed all of them.
requires() {
	local word what
	for word; do
		what=${word#*:}
		case $word in
		root) ((EUID == 0)) || skip "needs root" ;;
		kernel:*) version_ge "$(</proc/sys/kernel/osrelease)" "$what" ||
			skip "needs Linux $what" ;;
		kfunc:*) grep -qE "^[0-9a-f]+ [a-zA-Z] $what(\$|[[:space:]])" /proc/kallsyms ||
			skip "this kernel has no kfunc $what" ;;
		patch:*) patched "$what" || skip "this kernel is built without kernel/$what" ;;
		faults)		# of allocations, which the debug kernel must have
			[ -e /sys/kernel/debug/fail_page_alloc ] && continue
			[[ ${VM_KERNEL-} != *-debug ]] ||
				{ fail "the debug kernel has no fault injection"; return; }
			skip "this kernel has no fault injection (tests/vm -d has)"
			;;
		tool:*)
			command -v "$what" >/dev/null && continue
			[ -z "${CI-}" ] || { fail "$what is not installed (make deps)"; return; }
			skip "needs $what (make deps)"
			;;
		*) fail "requires: $word: unknown word" || return ;;
		esac
	done
}

# version_ge A B: whether version A (7.3.4-foo) is at least B (6.6)
version_ge() {
	local a b i
	IFS=. read -ra a <<<"${1%%[!0-9.]*}"
	IFS=. read -ra b <<<"$2"
	for i in "${!b[@]}"; do
		((${a[i]:-0} == b[i])) || { ((${a[i]:-0} > b[i])); return; }
	done
}

# patched F/NNNN: whether the series has that patch, and the running kernel is
# built from this very series (its build host names it).
patched() {
	grep -q "^$1-" "$TOP/kernel/series" && grep -q "@$("$TOP/kernel/build" id))" /proc/version
}

# untraced FUNCTION...: bats takes a stack trace before each command, which costs 4 ms
# in the guest. Not for those of this function: a failure in it is shown at its call.
untraced() {
	local -
	set +T
	"$@"
}

# tool EXPECTED_STATUS COMMAND...: run it, log it, fail when its status is
# another. Sets $output (stdout), $stderr and $status. A crash or a time-out is
# never an expected failure.
tool() { untraced run_tool "$@"; }

run_tool() {
	local want=$1 from=$EPOCHREALTIME
	shift
	status=0
	output=$(busybox timeout -k 5 "$((TOOL_SECONDS * TIMEOUT_FACTOR))" "$@" \
		2>"$BATS_TEST_TMPDIR/stderr" 3>&- 4>&-) || status=$?
	stderr=$(<"$BATS_TEST_TMPDIR/stderr")
	printf '%(%T)T $ %s\n' -1 "$*"
	[ -z "$output" ] || printf '%.4000s\n' "$output"
	[ -z "$stderr" ] || printf '%.4000s\n' "$stderr"
	printf '[%d after %d ms]\n' "$status" "$(((${EPOCHREALTIME/./} - ${from/./}) / 1000))"
	((status == want)) || fail "expected status $want"
}

pause() { read -rt "$1" <> <(:) || :; }	# seconds, without a process

# wait_for SECONDS CONDITION...: poll until the command is true
wait_for() {
	local end=$((SECONDS + $1 * TIMEOUT_FACTOR))
	shift
	until "$@"; do
		((SECONDS <= end)) || { fail "waited in vain for: $*"; return; }
		pause 0.05
	done
}

# name X: an object's name that no other test has
name() { printf '%s' "$1$BATS_TEST_NUMBER"; }

# topo veth|netkit A B [MKLINK-ARGUMENT...]: two network namespaces with one
# device each, joined. Namespace and device are both called A$BATS_TEST_NUMBER and
# B$BATS_TEST_NUMBER; the addresses are 10.0.0.1/24, fd00::1/64 and .2, ::2.
# For netkit A is the primary device.
topo() {
	local kind=$1 a b
	a=$(name "$2") b=$(name "$3")
	shift 3
	case $kind in
	veth)
		ip -batch - <<-END
			netns add $a
			netns add $b
			link add $a netns $a type veth peer name $b netns $b
		END
		;;
	netkit)
		ip -batch - <<-END
			netns add $a
			netns add $b
		END
		"$B/tests/mklink" "$a" "$b" netns "$b" "$@"
		ip link set "$a" netns "$a"
		;;
	*) fail "topo: $kind: unknown kind" ;;
	esac
	topo_up "$a" "$a" 10.0.0.1/24 fd00::1/64
	topo_up "$b" "$b" 10.0.0.2/24 fd00::2/64
}

# topo_up NETNS DEV ADDRESS...
topo_up() {
	local netns=$1 dev=$2 addr batch
	batch="link set lo up"$'\n'"link set $dev up"$'\n'
	for addr in "${@:3}"; do
		batch+="addr add $addr dev $dev"
		[[ $addr != *:* ]] || batch+=" nodad"
		batch+=$'\n'
	done
	ip -n "$netns" -batch - <<<"$batch"
}

# ns NAME COMMAND...: in one of this test's network namespaces
ns() {
	local netns
	netns=$(name "$1")
	shift
	ip netns exec "$netns" "$@"
}

# topo_down: kill what still runs in this test's namespaces, then delete them;
# devices of the test in the root namespace go too.
topo_down() { untraced delete_topo; }

delete_topo() {
	local n=$BATS_TEST_NUMBER p f batch=''
	for f in /run/netns/*[!0-9]"$n"; do
		for p in /proc/[0-9]*; do
			[ ! "$p/ns/net" -ef "$f" ] || kill -9 "${p##*/}" 2>/dev/null || :
		done
		batch+="netns del ${f##*/}"$'\n'
	done
	for f in /sys/class/net/*[!0-9]"$n"; do batch+="link del ${f##*/}"$'\n'; done
	[ -z "$batch" ] || ip -force -batch - <<<"$batch"
}

# Suites with a setup or teardown of their own call topo_down in it.
teardown() { topo_down; }

# What a test may leave behind, a line each. `cheap` leaves out what needs a program.
# bpftool's and libbpf's own maps, which come and go with each call, are not listed.
leak_list() {
	local f objects
	for f in /run/netns/*; do echo "netns ${f##*/}"; done
	for f in /sys/class/net/*; do echo "link ${f##*/}"; done
	for f in /sys/fs/bpf/**; do
		# the directories that tools keep their pins in stay
		case $f in
		"$PIN"/*/*) echo "pin $f" ;;
		/sys/fs/bpf/ | "$PIN" | "$PIN"/*) ;;
		*) echo "pin $f" ;;
		esac
	done
	[ "${1-}" = cheap ] && return
	objects=$("$B/bpftool/bpftool" -j batch file - 3>&- 4>&- \
		<<<$'prog show\nmap show\nlink show') || return
	jq -r '.[] | .command[0] as $kind | .output[] |
		select(.name // "" | IN("pid_iter.rodata", "libbpf_global", "libbpf_det_bind") | not) |
		"bpf \($kind) \(.id) \(.name // .type)"' <<<"$objects"
}

# leak_check FILE [cheap]: fail when there is anything that FILE, an earlier
# leak_list, does not name. Namespaces and BPF objects go asynchronously: wait.
leak_check() {
	local line end=$((SECONDS + 5 * TIMEOUT_FACTOR)) new
	local -A before=()
	[ -r "$1" ] || { fail "leak check: $1: no list from before"; return; }
	while IFS= read -r line; do before[$line]=1; done <"$1"
	while
		new=
		line=$(leak_list "${@:2}") || { fail "leak check: cannot list"; return; }
		while IFS= read -r line; do
			[ -z "$line" ] || [ "${before[$line]-}" ] || new+="leaked: $line"$'\n'
		done <<<"$line"
		[ "$new" ]
	do
		((SECONDS <= end)) || { fail "$new"; return; }
		pause 0.2
	done
}

# Per file the cheap half; the suite as a whole is checked in setup_suite.bash.
setup_file() { leak_list cheap >"$BATS_FILE_TMPDIR/before"; }
teardown_file() { leak_check "$BATS_FILE_TMPDIR/before" cheap; }
