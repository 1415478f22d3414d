# SPDX-License-Identifier: GPL-2.0-only
# Functions of running processes: what count, clamp, deny and programs of users do to them, what
# they leave alone, and what is left when something dies.
# BATS_BACKEND says by which back end; all of it is the same for each. It is poke where there is that.
# On the debug kernel each trap takes ten times as long; what is about the kernel is tested there.
# bats file_tags=stock,nodebug,smp
# shellcheck disable=SC2317
bats_require_minimum_version 1.5.0
load helpers

: "${BATS_BACKEND:=$("$B/upatch" --probe 2>/dev/null | grep -qE '^poke +yes' && echo poke || echo uprobe)}"
port=7000

# Builds of the victim, as they come from distributions.
setup_file() {
	leak_list cheap >"$BATS_FILE_TMPDIR/before"
	export V=$BATS_FILE_TMPDIR
	cp "$B/tests/victim" "$V/pie"
	gcc -O2 -g -no-pie -fno-stack-protector "$TOP/tests/victim.c" -o "$V/nopie"
	gcc -O2 -static -DSTATIC "$TOP/tests/victim.c" -o "$V/static"
	strip -s -o "$V/stripped" "$V/nopie"
	strip -g -o "$V/other" "$V/nopie"
	objcopy --remove-section=.comment --strip-debug "$V/pie" "$V/copy"
	printf 'long lib_add(long a, long b)\n{\n\treturn a + 10 * b;\n}\n' |
		gcc -O2 -shared -fPIC -Wl,--build-id=0x0123456789abcdef -x c - -o "$V/libtarget.so"
}

setup() {
	requires root tool:jq tool:gcc
	local line
	line=$("$B/upatch" --probe) || :
	[[ $line =~ (^|$'\n')$BATS_BACKEND\ +yes ]] || skip "$(grep "^$BATS_BACKEND " <<<"$line")"
	running=() mounted=() fifos=0
}

teardown() {
	local p
	"$B/upatch" detach --all >/dev/null || :
	for p in "${running[@]}"; do kill -9 "$p" 2>/dev/null || :; done
	for p in "${mounted[@]}"; do umount -l "$p"; done
}

up() { local rc=$1; shift; tool "$rc" "$B/upatch" "$@"; }
# apply RC VERB ARGUMENT...: by the back end that is tested
apply() { local rc=$1 verb=$2; shift 2; up "$rc" "$verb" --backend "$BATS_BACKEND" "$@"; }
json() { jq -e "$@" <<<"$output" >/dev/null || fail "not so: $*"; }

# run_victim NAME FILE: commands go to it by `ask NAME`; its pid is in $NAME
run_victim() {
	local in=$BATS_TEST_TMPDIR/$1$((++fifos)).in out=$BATS_TEST_TMPDIR/$1$fifos.out line
	mkfifo "$in" "$out"
	"$2" run <>"$in" >"$out" 3>&- 4>&- &
	running+=($!)
	printf -v "$1" %s $!
	exec {fd}<>"$in"
	printf -v "$1_in" %s "$fd"
	exec {fd}<>"$out"
	printf -v "$1_out" %s "$fd"
	read -rt $((20 * TIMEOUT_FACTOR)) -u "$fd" line || fail "$2 does not begin"
	[ "$line" = ready ]
}

# ask NAME COMMAND: $answer
ask() {
	local in=$1_in out=$1_out
	echo "$2" >&"${!in}"
	answer=
	read -rt $((30 * TIMEOUT_FACTOR)) -u "${!out}" answer || fail "no answer to: $2"
	echo "$1> $2: $answer"
}

says() {
	ask "$1" "$2"
	[ "$answer" = "$3" ] || fail "$2: $answer, not $3"
}

serve() {
	port=$((port + 1))
	"$V/pie" serve $port >"$BATS_TEST_TMPDIR/serve" 2>&1 3>&- 4>&- &
	server=$!
	running+=($!)
	wait_for 10 grep -q ready "$BATS_TEST_TMPDIR/serve"
}

# reply LEN WANT: of one more client
reply() {
	local got
	got=$(timeout $((20 * TIMEOUT_FACTOR)) "$V/pie" send $port "$1") || got="no server"
	echo "record of $1 bytes: $got"
	[ "$got" = "$2" ] || fail "record of $1 bytes: $got, not $2"
}

too_long() { echo "error: record of $1 bytes is too long"; }

# dies PID: it is gone, by the signal of a crash
dies() {
	local rc=0
	wait "$1" || rc=$?
	((rc == 128 + 11)) || fail "ended with $rc"
}

# code PID ADDRESS: what it has in memory there
code() { dd "if=/proc/$1/mem" iflag=skip_bytes,count_bytes "skip=$(($2))" count=16 status=none | od -An -tx1; }
address() { up 0 check -p "$1" -f "$2" -j && jq -r '.targets[0].address' <<<"$output"; }

# is_stop PID FUNCTION: a debugger's breakpoint is there
is_stop() { [[ $(code "$1" "$(address "$1" "$2" | tail -n 1)") == " cc"* ]]; }

offset_of() { # FILE FUNCTION: in the file, by another reader of ELF
	local a
	a=0x$(nm "$1" | sed -n "s/^\([0-9a-f]*\) . $2\$/\1/p")
	readelf -lW "$1" | awk -v a="$a" '$1 == "LOAD" && /R E/ { print $2, $3; exit }' |
		while read -r off vaddr; do printf '0x%x\n' $((a - vaddr + off)); done
}

@test "upatch: a server that can be crashed is patched while clients are connected" {
	local old
	serve
	old=$server
	reply 4096 closed
	dies "$old"
	serve
	# of another build, so that verify does not ask for it
	exec {client}> >("$V/nopie" client $port >"$BATS_TEST_TMPDIR/client")
	echo 10 >&"$client"
	wait_for 10 grep -qx 'ok 10' "$BATS_TEST_TMPDIR/client"
	apply 0 clamp -p "$server" -f copy_record --arg 2 --max 64
	[[ $output == *" done"* && $output == *"1 done, 0 unchanged, 0 skipped, 0 failed"* ]]
	reply 4096 "$(too_long 4096)"
	reply 64 'ok 64'
	reply 65 "$(too_long 65)"
	# who was connected is, and neither of them has noticed
	echo 20 >&"$client"
	wait_for 10 grep -qx 'ok 20' "$BATS_TEST_TMPDIR/client"
	up 0 list -j
	json '.patches | length == 1 and (.[0] | .calls == 4 and .hits == 2 and .state == "on" and
		.backend == "'"$BATS_BACKEND"'" and .pids == ['"$server"'])'
	up 0 verify
	up 0 detach 1
	echo 30 >&"$client"
	wait_for 10 grep -qx 'ok 30' "$BATS_TEST_TMPDIR/client"
	reply 4096 closed
	dies "$server"
	exec {client}>&-
}

@test "upatch: each call is counted, by thread, and its result is what it was" {
	run_victim v "$V/pie"
	says v 'calls 100 2' '200 calls, 0 wrong'
	apply 0 count -p "$v" -f add_numbers
	says v 'calls 1000 4' '4000 calls, 0 wrong'
	up 0 stats 1 -j
	json '.patches[0] | .calls == 4000 and .events == 4000 and .skipped == 0 and
		([.threads[].calls] == [1000, 1000, 1000, 1000])'
	says v 'add 5 6' 65
	up 0 show 1 -j
	json '.patches[0].last | .args[0:2] == ["0x5", "0x6"] and .what == "called"'
	[ "$BATS_BACKEND" != uprobe ] || json '.patches[0].last | .pid == '"$v"' and .tid == '"$v"
	up 0 log 1 --count 3
	[ "$(grep -c called <<<"$output")" = 3 ]
	says v 'fork calls 10 1' '10 calls, 0 wrong'
	up 0 detach --all
	says v 'calls 100 2' '200 calls, 0 wrong'
}

@test "upatch: registers are as without a patch" {
	run_victim v "$V/pie"
	says v regs 'unchanged, returned 77'
	apply 0 count -p "$v" -f look_regs
	says v regs 'unchanged, returned 77'
	up 0 stats 1 -j
	json '.patches[0].calls == 1'
	up 0 detach 1
	apply 0 clamp -p "$v" -f look_regs --arg 1 --max 5
	says v regs 'changed: rsi, returned 77'
	up 0 update 1 --max 0xffffffffffffffff
	says v regs 'unchanged, returned 77'
	up 0 detach 1
	apply 0 deny -p "$v" -f look_regs --return -22
	ask v regs
	[[ $answer == *", returned -22" ]]
}

@test "upatch: programs at any address, static and stripped ones" {
	local build off
	for build in pie nopie static; do
		run_victim v "$V/$build"
		apply 0 deny -p "$v" -f add_numbers --arg 0 --eq 3 --return 99
		says v 'add 3 1' 99
		says v 'add 4 1' 14
		says v 'six 1 2 3 4 5 6' 654321
		up 0 detach --all
		says v 'add 3 1' 13
		kill -9 "$v"
	done
	off=$(offset_of "$V/nopie" add_numbers)
	run_victim v "$V/stripped"
	apply 1 deny -p "$v" -f add_numbers --return 99
	[[ $output == *"has no symbol add_numbers"* ]]
	apply 0 deny -p "$v" -f "$off" --return 99
	says v 'add 3 1' 99
	up 0 detach --all
	# with the debug file that distributions have apart
	up 0 check -p "$v" -f "$off" -j
	off=$(jq -r .build_id <<<"$output")
	mount -t tmpfs tmpfs /usr/lib/debug
	mkdir -p "/usr/lib/debug/.build-id/${off:0:2}"
	objcopy --only-keep-debug "$V/nopie" "/usr/lib/debug/.build-id/${off:0:2}/${off:2}.debug"
	apply 0 deny -p "$v" -f add_numbers --return 98
	[[ $output == *"symbol of a debug file"* ]]
	umount /usr/lib/debug
	says v 'add 3 1' 98
	says v 'six 1 2 3 4 5 6' 654321
}

@test "upatch: clamp knows the type of its argument" {
	run_victim v "$V/pie"
	apply 0 clamp -p "$v" -f add_ints --arg 0 --type s32 --min -5 --max 10
	says v 'ints -7 0' -5
	says v 'ints 7 0' 7
	says v 'ints 100 1' 11
	up 0 show 1
	[[ $output == *"clamp argument 0 (s32) to -5..10"* ]]
	up 0 update 1 --max 50
	says v 'ints 100 1' 51
	says v 'ints -7 0' -5
	up 0 update 1 --max 50
	[ "$output" = "1: unchanged" ]
	up 0 update 1 --off
	says v 'ints 100 1' 101
	up 1 verify 1
	[[ $output == *"which is off"* ]]
	up 0 update 1 --on
	says v 'ints 100 1' 51
	up 0 detach 1
	apply 0 clamp -p "$v" -f six_numbers --arg 5 --min 3 --max 4
	says v 'six 1 2 3 4 5 6' 454321
	says v 'six 1 2 3 4 5 0' 354321
	up 0 detach 1
	# of an u8 the rest of the register is none of its business
	apply 0 clamp -p "$v" -f add_numbers --arg 0 --type u8 --max 9
	says v 'add 0x105 0' 261
	says v 'add 0x10b 0' 9
}

@test "upatch: deny asks for a value, a range, or how a text begins" {
	run_victim v "$V/pie"
	apply 0 deny -p "$v" -f add_numbers --arg 1 --above 5 --return -13
	says v 'add 1 6' -13
	says v 'add 1 5' 51
	up 0 update 1 --below 3
	says v 'add 1 2' -13
	says v 'add 1 6' 61
	up 0 update 1 --return 5
	says v 'add 1 2' 5
	up 0 detach 1
	apply 0 deny -p "$v" -f open_path --arg 0 --prefix /etc/ --return -13
	says v 'path /etc/shadow' -13
	says v 'path /etc' 7
	says v 'path /var/etc/' 7
	# a text that ends where its memory does
	says v 'edge /etc/' -13
	says v 'edge /etc' 7
	up 0 log 1
	[ "$(grep -c denied <<<"$output")" = 2 ]
}

@test "upatch: a pointer to nowhere reads 0, and the function is called" {
	local at
	run_victim v "$V/pie"
	apply 0 deny -p "$v" -f open_path --arg 0 --prefix /etc/ --return -13
	for at in 0x10 0x800000000000 0xffff888000000000 0xffffffffffffffff 0x7ffffffff000; do
		says v "wild $at" 7
	done
	says v 'wild 0' 8
	says v 'path /etc/' -13
	up 0 stats 1 -j
	[ "$BATS_BACKEND" != uprobe ] || json '.patches[0].faults == 6'
	json '.patches[0] | .calls == 7 and .hits == 1'
}

@test "upatch: a child is patched as its parent, who executes anew is not" {
	run_victim v "$V/pie"
	apply 0 deny -p "$v" -f add_numbers --return 99
	says v 'add 1 1' 99
	says v 'fork add 1 1' 99
	says v 'fork fork add 1 1' 99
	says v 'exec add 1 1' 11
	says v 'add 1 1' 99
	ask v become
	[ "$answer" = ready ]
	says v 'add 1 1' 11
	# nobody is left that it could be in
	up 0 list -j
	json '.patches[0].state == "ended"'
	up 0 list -j
	json '.patches == []'
}

@test "upatch: what ends is shown once more, and cleaned" {
	run_victim v "$V/pie"
	run_victim w "$V/pie"
	apply 0 count -p "$v" -f add_numbers
	apply 0 count -p "$w" -f add_numbers
	[[ $output == *"patch 1"* ]]
	kill -9 "$v"
	gone() { [ ! -e "/proc/$1" ]; }
	wait "$v" || :
	up 0 list -j
	json '.patches[0] | .state == "on" and .pids == ['"$w"']'
	kill -9 "$w"
	wait "$w" || :
	up 0 list --dry-run
	[[ $output == "1 count"*" ended, "* ]]
	up 0 list
	[[ $output == "1 count"*" ended, "* ]]
	up 0 list
	[ -z "$output" ]
	[ -z "$(echo "$PIN"/upatch/*)" ]
}

@test "upatch: every process of a file, and proof of it" {
	run_victim v "$V/pie"
	run_victim w "$V/pie"
	run_victim other "$V/other"
	apply 0 deny --exe "$V/pie" -f add_numbers --return 99
	[[ $output == *"total: 2 done, 0 unchanged, 0 skipped, 0 failed" ]]
	says v 'add 1 1' 99
	says w 'add 1 1' 99
	says other 'add 1 1' 11
	up 0 verify 1
	[[ $output == *"2 patched, 0 not"* ]]
	# one that comes later is not, which verify tells, and the same call does
	run_victim x "$V/pie"
	says x 'add 1 1' 11
	up 1 verify 1 -j
	json '.patches[0] | .patched == 2 and .not_patched == 1 and
		([.processes[] | select(.patched | not)] | .[0].pid == '"$x"' and .[0].reason == "runs without it")'
	apply 0 deny --exe "$V/pie" -f add_numbers --return 99
	[[ $output == *"patch 1:"*"total: 1 done, 2 unchanged, 0 skipped, 0 failed" ]]
	says x 'add 1 1' 99
	up 0 verify 1
	apply 0 deny --exe "$V/pie" -f add_numbers --return 99
	[[ $output == *"0 done, 3 unchanged"* ]]
	up 0 detach 1
	says v 'add 1 1' 11
	apply 3 count --exe /bin/true -f main
}

# debug COMMAND...: a debugger comes to $v, says $output, and goes
debug() {
	local c commands=()
	for c; do commands+=(-ex "$c"); done
	tool 0 timeout $((20 * TIMEOUT_FACTOR)) gdb -q -nx -batch -p "$v" "${commands[@]}" -ex detach
}

@test "upatch: gdb at a patched function" {
	requires tool:gdb
	local next
	run_victim v "$V/pie"
	next=$(gdb -q -nx -batch -ex 'x/2i add_numbers' "$V/pie" | sed -n '2s/.*<\(.*\)>.*/\1/p')
	if [ "$BATS_BACKEND" = poke ]; then	# to a uprobe any int3 is its own
		debug 'break *add_numbers' continue >"$BATS_TEST_TMPDIR/gdb" 3>&- 4>&- &
		running+=($!)
		wait_for 20 is_stop "$v" add_numbers
		apply 1 count -p "$v" -f add_numbers
		[[ $output == *"a breakpoint or another patch is at the function"* ]]
		says v 'add 5 6' 65
		wait $!
	fi
	apply 0 count -p "$v" -f add_numbers
	debug "break *($next)" 'print add_numbers(7, 8)' 'bt 2' 'print $rdi * $rsi' delete finish \
		'print add_numbers(9, 9)'
	[[ $output == *" in add_numbers (a=7, b=8)"*"#0 "*" in add_numbers "*"#1  <function called"* ]]
	[[ $output == *"= 56"*"Value returned is "*" = 87"*" = 99"* ]]
	says v 'add 5 6' 65
	up 0 stats 1 -j
	json '.patches[0].calls == 3'
	debug 'x/i add_numbers'
	[[ $output == *int3* ]]
	up 0 detach 1
	debug 'x/i add_numbers' 'print add_numbers(7, 8)'
	[[ $output != *int3* && $output == *" = 87"* ]]
}

@test "upatch: perf at a patched function" {
	requires tool:perf
	local data=$BATS_TEST_TMPDIR/data event=probe_pie:add_numbers
	run_victim v "$V/pie"
	apply 0 count -p "$v" -f add_numbers
	tool 0 perf record -q -e cpu-clock -o "$data" -p "$v" -- bash -c 'read -rt 0.1 <><(:) || :
		echo "calls 30000 1" >&$1; read -r <&$2; echo "$REPLY"' - "$v_in" "$v_out"
	[[ $output == *'30000 calls, 0 wrong'* ]]
	tool 0 perf report -i "$data" --stdio --sort dso,sym
	[ "$BATS_BACKEND" != poke ] || grep -q 'bpf_user_patch' <<<"$output"
	# a uprobe where the patch is: passed by, or beside the other one
	tool 0 perf probe -q -x "$V/pie" add_numbers
	tool 0 perf stat -x, -e "$event" -p "$v" -- bash -c 'echo "calls 100 1" >&$1
		read -r <&$2; echo "$REPLY"' - "$v_in" "$v_out"
	[[ $output == *'100 calls, 0 wrong'* ]]
	grep -q "^$([ "$BATS_BACKEND" = poke ] && echo 0 || echo 100),,$event" <<<"$stderr"
	tool 0 perf probe -q -d "$event"
	says v 'calls 100 1' '100 calls, 0 wrong'
	up 0 stats 1 -j
	json '.patches[0].calls == 30200'
}

# container NAME: of an image that all have below them
container() {
	local d=$BATS_TEST_TMPDIR
	mkdir -p "$d/lower" "$d/$1" "$d/rest.$1"
	[ -e "$d/lower/app" ] || cp "$V/pie" "$d/lower/app"
	mount -t tmpfs none "$d/rest.$1"
	mkdir "$d/rest.$1/upper" "$d/rest.$1/work"
	mount -t overlay -o "lowerdir=$d/lower,upperdir=$d/rest.$1/upper,workdir=$d/rest.$1/work" \
		none "$d/$1"
	mounted+=("$d/$1" "$d/rest.$1")
}

@test "upatch: containers of one image" {
	local id
	container one
	container two
	run_victim v "$BATS_TEST_TMPDIR/one/app"
	run_victim w "$BATS_TEST_TMPDIR/two/app"
	up 0 check -p "$v" -f add_numbers -j
	id=$(jq -r .build_id <<<"$output")
	apply 0 deny --build-id "$id" -f add_numbers --return 99
	says v 'add 1 1' 99
	says w 'add 1 1' 99
	says w 'fork add 1 1' 99
	up 0 list -j
	json '.patches | length == 1 and (.[0] | .calls == 3 and .hits == 3 and (.pids | length) == 2)'
	up 0 verify
	up 0 update 1 --return 98
	says v 'add 1 1' 98
	says w 'add 1 1' 98
	kill -9 "$v"
	says w 'add 1 1' 98
	up 0 detach 1
	says w 'add 1 1' 11
}

@test "upatch: files of a container, on overlayfs" {
	local d=$BATS_TEST_TMPDIR
	container merged
	run_victim v "$d/merged/app"
	apply 0 deny -p "$v" -f add_numbers --return 99
	says v 'add 1 1' 99
	up 0 verify
	up 0 detach --all
	apply 0 deny --exe "$d/merged/app" -f add_numbers --return 98
	[[ $output == *"$v app: done"* ]]
	says v 'add 1 1' 98
	up 0 detach --all
	# copied up: who runs it goes on with the lower file, who begins has the upper one
	chmod 700 "$d/merged/app"
	[ -e "$d/rest.merged/upper/app" ]
	run_victim w "$d/merged/app"
	if [ "$BATS_BACKEND" = poke ]; then
		apply 0 deny -p "$v" -f add_numbers --return 97
		says v 'add 1 1' 97
	else
		apply 1 deny -p "$v" -f add_numbers --return 97
		[[ $output == *"as it was before overlayfs copied it up"* ]]
		says v 'add 1 1' 11
	fi
	apply 0 deny -p "$w" -f add_numbers --return 96
	says w 'add 1 1' 96
	up 0 detach --all
	says v 'add 1 1' 11
	says w 'add 1 1' 11
}

@test "upatch: text in huge pages" {
	local d=$BATS_TEST_TMPDIR/huge huge
	mkdir "$d"
	mount -t tmpfs -o huge=always none "$d"
	mounted=("$d")
	# a function beside 8 MiB of others
	printf '.text\n.fill 0x400000, 1, 0xcc\n' >"$BATS_TEST_TMPDIR/pad.s"
	gcc -O2 -no-pie -Wl,-z,max-page-size=0x200000,-z,common-page-size=0x200000 -o "$d/app" \
		"$BATS_TEST_TMPDIR/pad.s" "$TOP/tests/victim.c" "$BATS_TEST_TMPDIR/pad.s"
	run_victim v "$d/app"
	says v 'add 1 1' 11
	huge=$(sed -n 's/ShmemPmdMapped: *//p' /proc/meminfo)
	[ "$huge" != '0 kB' ]
	apply 0 deny -p "$v" -f add_numbers --return 99
	says v 'add 1 1' 99
	[ "$(sed -n 's/ShmemPmdMapped: *//p' /proc/meminfo)" != "$huge" ]	# it was of that one
	says v 'fork add 1 1' 99
	up 0 detach 1
	says v 'add 1 1' 11
}

@test "upatch: a shared library, in one of the processes that have it" {
	run_victim v "$V/pie"
	run_victim w "$V/pie"
	says v "dlopen $V/libtarget.so" loaded
	says w "dlopen $V/libtarget.so" loaded
	apply 3 deny -p "$v" --object nosuch.so -f lib_add --return 1
	apply 1 deny -p "$v" -f lib_add --return 99
	[[ $output == *"has no symbol lib_add"* ]]
	apply 0 deny -p "$v" --object libtarget.so -f lib_add --return 99
	says v 'libadd 1 1' 99
	says w 'libadd 1 1' 11
	up 1 verify
	apply 0 deny -p "$w" --object "$V/libtarget.so" -f lib_add --return 98
	[[ $output == *"patch 2"* ]]
	says w 'libadd 1 1' 98
	says v 'libadd 1 1' 99
	up 0 detach 2
	says w 'libadd 1 1' 11
	says v 'libadd 1 1' 99
	up 0 detach 1
	apply 0 deny --build-id 0123456789abcdef -f lib_add --return 97
	[[ $output == *"total: 2 done"* ]]
	says v 'libadd 1 1' 97
	says w 'libadd 1 1' 97
	up 0 show 1 -j
	json '.patches[0].build_id == "0123456789abcdef"'
	up 0 detach 1
	apply 1 deny -p "$v" --object libtarget.so --build-id 0123456789abcdee -f lib_add --return 1
	[[ $output == *"has build-id 0123456789abcdef"* ]]
	says v 'libadd 1 1' 11
}

@test "upatch: code is written in the processes that are patched, and comes back" {
	local before at
	run_victim v "$V/pie"
	sum=$(sha256sum <"$V/pie")
	at=$(address "$v" add_numbers | tail -n 1)
	before=$(code "$v" "$at")
	apply 0 count -p "$v" -f add_numbers
	[ "$(code "$v" "$at")" != "$before" ]
	up 0 check -p "$v" -f add_numbers
	[[ $output == *"has other bytes there than the file"* ]]
	[ "$(sha256sum <"$V/pie")" = "$sum" ] || fail "the file has changed"
	up 0 detach 1
	[ "$(code "$v" "$at")" = "$before" ]
	[ -z "$stderr" ] || fail "it was not back at once"
}

@test "upatch: a file that was replaced on disk is patched where it still runs" {
	cp "$V/pie" "$BATS_TEST_TMPDIR/app"
	run_victim v "$BATS_TEST_TMPDIR/app"
	cp "$V/nopie" "$BATS_TEST_TMPDIR/app.new"
	mv "$BATS_TEST_TMPDIR/app.new" "$BATS_TEST_TMPDIR/app"
	run_victim w "$BATS_TEST_TMPDIR/app"
	apply 0 deny -p "$v" -f add_numbers --return 99
	says v 'add 1 1' 99
	says w 'add 1 1' 11
	up 0 show
	[[ $output == *"app (deleted)"* ]]
	apply 0 deny --exe "$BATS_TEST_TMPDIR/app" -f add_numbers --return 98
	[[ $output == *" skipped: has a file mapped that was replaced"*"total: 1 done, 0 unchanged, 1 skipped"* ]]
	says w 'add 1 1' 98
	says v 'add 1 1' 99
}

@test "upatch: a rule changes under load, and no record is lost" {
	local i job
	serve
	apply 0 clamp -p "$server" -f copy_record --arg 2 --max 64
	"$V/pie" load $port 150 4 >"$BATS_TEST_TMPDIR/load" 3>&- 4>&- &
	job=$!
	for i in 16 64 16 64 16 64 16; do up 0 update 1 --max $i; done
	wait "$job"
	read -r _ ok _ refused _ lost <"$BATS_TEST_TMPDIR/load"
	((ok + refused == 600 && lost == 0)) || fail "$(<"$BATS_TEST_TMPDIR/load")"
	up 0 stats 1 -j
	json ".patches[0] | .calls == 600 and .hits == $refused and .stale == 0"
	reply 17 "$(too_long 17)"
	# and detached under load
	"$V/pie" load $port 150 4 >"$BATS_TEST_TMPDIR/load" 3>&- 4>&- &
	job=$!
	for i in 1 2 3; do
		up 0 detach --all
		apply 0 clamp -p "$server" -f copy_record --arg 2 --max 32
	done
	up 0 detach --all
	wait "$job"
	read -r _ ok _ refused _ lost <"$BATS_TEST_TMPDIR/load"
	((ok + refused == 600 && lost == 0)) || fail "$(<"$BATS_TEST_TMPDIR/load")"
}

@test "upatch: what is there already is unchanged, and what is not the same is told" {
	run_victim v "$V/pie"
	apply 0 clamp -p "$v" -f add_numbers --arg 0 --max 5 -j
	json '.id == 1 and .done == 1 and .unchanged == 0 and .targets[0].state == "done"'
	apply 0 clamp -p "$v" -f add_numbers --arg 0 --max 5 -j
	json '.id == 1 and .done == 0 and .unchanged == 1'
	apply 1 clamp -p "$v" -f add_numbers --arg 0 --max 6
	[[ $output == *"failed: patch 1 is at this function: update or detach it"* ]]
	apply 1 count -p "$v" -f add_numbers
	says v 'add 9 0' 5
	# another function of the same process is another matter
	apply 0 count -p "$v" -f open_path
	[[ $output == *"patch 2"* ]]
	up 0 detach 1 2
	up 3 detach 1
	[[ $stderr == *"no such patch"* ]]
	up 0 detach --all
	[ "$output" = "all: unchanged" ]
}

@test "upatch: patches of another version are told, and left alone" {
	mkdir -p "$PIN/upatch/77"
	bpftool map create "$PIN/upatch/77/meta" type array key 4 value 16 entries 1 name of_others
	run_victim v "$V/pie"
	apply 0 count -p "$v" -f add_numbers
	[[ $output == "patch 78:"* && $stderr == *"/77: was made by another version"* ]]
	up 1 list
	[[ $output == *add_numbers* && $stderr == *"/77: was made by another version"* ]]
	up 1 detach --all
	[ "$(grep -c "/77: was made by another version" <<<"$stderr")" = 1 ]
	[ -e "$PIN/upatch/77/meta" ]
	[ ! -e "$PIN/upatch/78" ]
	rm -r "$PIN/upatch/77"
	up 0 list
}

@test "upatch: with --dry-run nothing changes" {
	run_victim v "$V/pie"
	apply 0 deny -p "$v" -f add_numbers --return 99 --dry-run
	[[ $output == *"would be done"* ]]
	says v 'add 1 1' 11
	[ ! -e "$PIN/upatch/1" ]
	apply 0 deny -p "$v" -f add_numbers --return 99
	up 0 update 1 --return 98 --dry-run
	[ "$output" = "1: would deny, return 98" ]
	up 0 detach 1 --dry-run
	says v 'add 1 1' 99
}

@test "upatch: a tool that is killed leaves the old or the new, never a half" {
	local pie=$V/pie
	serve
	attach="$B/upatch clamp --backend $BATS_BACKEND -p $server -f copy_record --arg 2 --max 5"
	# list cleans; then what it lists is in force, and what it does not is not
	cat >"$BATS_TEST_TMPDIR/check" <<-END
		#!/bin/bash
		set -e
		list=\$($B/upatch list)
		if [ "\$list" ]; then
			[[ \$($pie send $port 10) == error* ]]
			[ "\$(echo $PIN/upatch/*)" = "$PIN/upatch/\${list%% *}" ]
		else
			[ "\$($pie send $port 10)" = "ok 10" ]
			for f in $PIN/upatch/*; do [ ! -e "\$f" ]; done
		fi
	END
	chmod +x "$BATS_TEST_TMPDIR/check"
	TIMEOUT_FACTOR=$((TIMEOUT_FACTOR * 10)) tool 0 "$B/tests/killer" -u "$BATS_TEST_TMPDIR/check" \
		-s "$B/upatch detach --all" -A "$attach"
	((output >= 8)) || fail "only $output kills"
	TIMEOUT_FACTOR=$((TIMEOUT_FACTOR * 10)) tool 0 "$B/tests/killer" -u "$BATS_TEST_TMPDIR/check" \
		-s "$attach" -A "$B/upatch detach --all"
	((output >= 6)) || fail "only $output kills"
}

@test "upatch: what cannot be is told with its reason, and changes nothing" {
	local -a bad=(
		"2|clamp -p $$ -f main|takes --arg"
		"2|clamp -p $$ -f main --arg 7 --max 1|--arg takes a number from 0 to 5"
		"2|clamp -p $$ -f main --arg 1 --max 256 --type u8|not a value of --type u8"
		"2|clamp -p $$ -f main --arg 1 --max x|not a value"
		"2|clamp -p $$ -f main --arg 1 --min 5 --max 4|--min is above --max"
		"2|clamp -p $$ -f main --arg 1 --max 4 --type u9|--type takes"
		"2|clamp -f main --arg 1 --max 4|takes one of -p PID"
		"2|clamp -p $$ --exe /bin/sh -f main --arg 1 --max 4|takes one of -p PID"
		"2|clamp -p $$ --arg 1 --max 4|takes -f FUNC"
		"2|deny -p $$ -f main|takes --return"
		"2|deny -p $$ -f main --arg 1 --return 1|takes --arg with one of"
		"2|deny -p $$ -f main --arg 1 --eq 1 --above 2 --return 1|takes --arg with one of"
		"2|deny -p $$ -f main --return abc|not a number"
		"2|count --build-id 12x -f main|hexadecimal digits"
		"2|attach -p $$ -f main|takes --prog"
		"2|count main|takes options only"
		"1|attach -p $$ -f main --prog /nonexistent|cannot read"
		"3|count -p 4000000 -f main|there is none"
		"1|count -p 2 -f main|is one of the kernel's"
		"1|count --exe /nonexistent -f main|No such file"
		"1|count --exe $TOP/Makefile -f main|is no ELF file"
		"3|count --build-id 00112233 -f main|no process has it mapped"
		"3|count -p $$ --object libnosuch.so -f main|has no code of libnosuch.so mapped"
	) line rc want
	for line in "${bad[@]}"; do
		IFS='|' read -r rc line want <<<"$line"
		# shellcheck disable=SC2086
		up "$rc" $line
		[[ $stderr == *"$want"* ]] || fail "$line: not said: $want"
	done
	run_victim v "$V/pie"
	bad=(
		"nosuch|has no symbol nosuch"
		"seen_regs|is no function"
		"add_numbers+x|not a number behind +"
		"add_numbers+0x1000|is outside"
		"0x10|is not in code"
		"0xzz|not a number"
	)
	for line in "${bad[@]}"; do
		apply 1 count -p "$v" -f "${line%|*}"
		[[ $output == *"failed: "*"${line#*|}"* ]] || fail "$line"
		up 1 check -p "$v" -f "${line%|*}"
		[[ $output == *"cannot be patched: "*"${line#*|}"* ]] || fail "$line"
	done
	says v twice 'done'
	up 1 check -p "$v" -f add_numbers
	[[ $output == *"has the function mapped twice"* ]]
	apply 1 count -p "$v" -f add_numbers
	run_victim w "$V/pie"
	says w writable 'done'
	apply 1 count -p "$w" -f add_numbers
	[[ $output == *"has its code mapped writable"* ]]
	apply 2 clamp -p "$v" -f add_numbers --arg 0 --max 5 stray
	up 3 update 7 --max 3
	up 3 update x
	up 3 show 7
	up 2 log
	up 2 nosuch
	[ -z "$(echo "$PIN"/upatch/*)" ] || fail "left: $(echo "$PIN"/upatch/*)"
	says v 'add 1 1' 11
}

@test "upatch: a program of 32 bits is refused" {
	# ours is built without; on Debian's, tests/vm asks for them
	[ -e /proc/sys/abi/vsyscall32 ] || skip "this kernel runs no programs of 32 bits"
	printf '.globl _start\n_start: mov $29, %%eax\nint $0x80\njmp _start\n' |
		as --32 -o "$BATS_TEST_TMPDIR/o"
	ld -m elf_i386 "$BATS_TEST_TMPDIR/o" -o "$BATS_TEST_TMPDIR/narrow"
	"$BATS_TEST_TMPDIR/narrow" 3>&- 4>&- &
	local narrow=$!
	running+=("$narrow")
	is_narrow() { [[ $(readlink "/proc/$narrow/exe") == */narrow ]]; }
	wait_for 10 is_narrow
	up 1 check -p "$narrow" -f _start
	[[ $output == *"is not for x86-64, but of 32 bits"* ]]
	apply 1 count -p "$narrow" -f _start
	[[ $output == *"is not for x86-64, but of 32 bits"* ]]
}

@test "upatch: a back end that is not there is named, and nothing changes" {
	up 0 --probe
	[[ $output != *"poke "*yes* ]] || skip "this kernel has a TEXT_POKE link"
	run_victim v "$V/pie"
	up 4 deny --backend poke -p "$v" -f add_numbers --return 1
	[[ $stderr == "upatch: poke: this kernel has no "* ]]
	up 0 deny --backend auto -p "$v" -f add_numbers --return 1
	[[ $output == *"by uprobe"* ]]
	says v 'add 1 1' 1
}

@test "upatch: programs of users, and others in their place" {
	run_victim v "$V/pie"
	apply 1 attach -p "$v" -f add_numbers --prog "$B/tests/upown.bpf.o"
	[[ $output == *"several programs: name one"* ]]
	apply 1 attach -p "$v" -f add_numbers --prog "$B/tests/upown.bpf.o:nosuch"
	apply 1 attach -p "$v" -f add_numbers --prog "$B/tests/redirect.bpf.o"
	apply 1 attach -p "$v" -f add_numbers --prog "$TOP/Makefile"
	[ ! -e "$PIN/upatch/new-1" ]
	apply 0 attach -p "$v" -f add_numbers --prog "$B/tests/upown.bpf.o:even"
	says v 'add 3 0' -22
	says v 'add 4 0' 8
	apply 0 attach -p "$v" -f add_numbers --prog "$B/tests/upown.bpf.o:even"
	[[ $output == *"0 done, 1 unchanged"* ]]
	up 0 log 1
	[[ $output == *"told (0x3, "*": 0x3" ]]
	up 0 update 1 --prog "$B/tests/upatchnew.bpf.o"
	[ "$output" = "1: replace the program" ]
	says v 'add 3 0' -1
	says v 'add 4 0' 4
	says v 'fork add 5 0' -1
	up 0 update 1 --prog "$B/tests/upatchnew.bpf.o"
	[ "$output" = "1: unchanged" ]
	up 0 show 1
	[[ $output == *"program even, replaced 1 times"* ]]
	up 0 verify
	apply 0 attach -p "$v" -f open_path --prog "$B/tests/upown.bpf.o:look"
	says v 'path /etc/issue' 7
	up 0 log 2
	[[ $output == *": 0x7373692f6374652f" ]]
	up 2 update 1 --max 4
	up 0 detach --all
	says v 'add 3 0' 3
}

@test "upatch: whoever writes junk into an arena fools nobody" {
	local seed
	run_victim v "$V/pie"
	for seed in 0 1 2 3; do
		apply 0 clamp -p "$v" -f add_numbers --arg 0 --max 5
		"$B/tests/scribble" "$PIN/upatch/1/arena" $seed
		ask v 'calls 3 1'
		TOOL_SECONDS=10 up 0 log 1 --follow --seconds 1
		up 0 stats -j
		up 0 show
		up 0 list -j
		json '.patches | length == 1'
		[ "$(jq -r '.patches[0].function' <<<"$output")" = add_numbers ]
		up 1 update 1 --max 9
		up 0 detach --all
		says v 'add 9 0' 9
	done
	# a rule of which only the length of its text, and an event of which only the kind is wrong
	apply 0 deny -p "$v" -f open_path --arg 0 --prefix /etc/ --return -13
	says v 'path /etc/' -13
	"$B/tests/scribble" "$PIN/upatch/1/arena" 2376 255
	up 0 log 1
	[[ -z $output && $stderr == *"1 events overwritten"* ]]
	up 0 show 1
	[[ $output == *'begins with "/etc/"'* && $output != *last:* ]]
	"$B/tests/scribble" "$PIN/upatch/1/arena" 89 255
	up 0 show 1
	[[ $output == *"rule written by others"* ]]
	up 1 update 1 --return 5
}

@test "upatch: the log is followed" {
	run_victim v "$V/pie"
	apply 0 count -p "$v" -f add_numbers
	"$B/upatch" log 1 --follow --count 2 -j >"$BATS_TEST_TMPDIR/log" 3>&- 4>&- &
	local job=$!
	says v 'add 1 2' 21
	says v 'add 3 4' 43
	wait "$job"
	jq -se 'length == 2 and .[0].args[1] == "0x2" and .[1].args[0] == "0x3"' "$BATS_TEST_TMPDIR/log"
}

@test "upatch: CAP_BPF and CAP_PERFMON are enough, with CAP_SYS_PTRACE for others' processes" {
	local with=(/usr/bin/setpriv --bounding-set "-all,+bpf,+perfmon,+sys_ptrace,+dac_override")
	run_victim v "$V/pie"
	tool 0 "${with[@]}" "$B/upatch" deny --backend "$BATS_BACKEND" -p "$v" -f add_numbers --return 99
	says v 'add 1 1' 99
	tool 0 "${with[@]}" "$B/upatch" verify
	tool 0 "${with[@]}" "$B/upatch" detach 1
	says v 'add 1 1' 11
	tool 4 /usr/bin/setpriv --bounding-set "-all,+perfmon,+sys_ptrace" "$B/upatch" count \
		--backend "$BATS_BACKEND" -p "$v" -f add_numbers
	[[ $stderr == *"CAP_BPF and CAP_PERFMON are needed"* ]]
}

@test "upatch: in a PID namespace of its own the tool takes nobody for another" {
	[ "$BATS_BACKEND" = uprobe ] || skip "a link is to a process, whatever its number"
	run_victim v "$V/pie"
	tool 1 /usr/bin/unshare -pf --mount-proc bash -c '
		mkfifo "$1/fifo"
		"$2/pie" run <>"$1/fifo" >/dev/null 3>&- 4>&- &
		until [[ $(readlink /proc/$!/exe) == */pie ]]; do :; done
		"$3/upatch" count --backend uprobe -p $! -f add_numbers
		rc=$?
		kill -9 $!
		exit $rc' bash "$BATS_TEST_TMPDIR" "$V" "$B"
	[[ $output == *"must run in the host's PID namespace"* ]]
	[ -z "$(echo "$PIN"/upatch/*)" ]
}

@test "upatch: help and version, and options by their long names" {
	run_victim v "$V/pie"
	up 0 --help
	[[ $output == *EXAMPLES* ]]
	up 0 --version
	[[ $output == "upatch "* ]]
	apply 0 count --pid "$v" --function add_numbers --json --verbose
	json '.done == 1'
}

@test "upatch: check tells what is so, and changes nothing" {
	run_victim v "$V/pie"
	up 0 check -p "$v" -f add_numbers -j
	json '.function == "add_numbers" and .size > 0 and (.targets[0] | .ok and .address > 0)'
	[ "$(jq .offset <<<"$output")" = "$(($(offset_of "$V/pie" add_numbers)))" ]
	up 0 check -p "$v" -f add_numbers+1
	up 0 check --exe "$V/pie" -f add_numbers
	[[ $output == *"can be patched"* ]]
	[ ! -e "$PIN/upatch/1" ]
}

@test "upatch: a server with threads of its own, under load" {
	requires tool:haproxy
	local i jobs=()
	cat >"$BATS_TEST_TMPDIR/cfg" <<-END
		global
			nbthread 4
		defaults
			mode http
			timeout client 60s
		frontend f
			bind 127.0.0.1:8099
			http-request return status 200 content-type text/plain string hello
	END
	haproxy -db -f "$BATS_TEST_TMPDIR/cfg" >"$BATS_TEST_TMPDIR/haproxy" 2>&1 3>&- 4>&- &
	running+=($!)
	server=$!
	get() {
		local line all=
		exec 5<>/dev/tcp/127.0.0.1/8099 || return
		printf 'GET / HTTP/1.0\r\n\r\n' >&5
		while read -r line <&5; do all+=$line; done
		exec 5>&-
		[[ $all$line == *"200 OK"*hello ]]
	}
	wait_for 20 get
	load() {
		local n=0
		for ((i = 0; i < 40; i++)); do get && n=$((n + 1)); done
		echo "$n" >"$BATS_TEST_TMPDIR/got$1"
	}
	for i in 1 2 3; do
		load $i 3>&- 4>&- &
		jobs+=($!)
	done
	for i in 1 2 3; do
		apply 0 count -p "$server" --object libc.so.6 -f recv
		up 0 detach 1
	done
	apply 0 count -p "$server" --object libc.so.6 -f recv
	wait "${jobs[@]}"
	[ "$(cat "$BATS_TEST_TMPDIR"/got*)" = 40$'\n'40$'\n'40 ] || fail "$(cat "$BATS_TEST_TMPDIR"/got*)"
	for i in 1 2 3; do get; done
	up 0 stats 1 -j
	json '.patches[0].calls >= 3'
}
