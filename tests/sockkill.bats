# SPDX-License-Identifier: GPL-2.0-only
# Sockets in all network namespaces: which are found, which are destroyed and which are not,
# and what their owners see of it. Where the kernel has the iterators over all of them, tests
# are run with these and by the way of kernels without.
# nodebug: about the tool, in the kernel it is what other tests here do.
bats_require_minimum_version 1.5.0
load helpers

setup() {
	a=$(name a) b=$(name b)
	ip -batch - <<-END
		netns add $a
		netns add $b
	END
	ip -n "$a" link set lo up
	ip -n "$b" link set lo up
	holders=()
	way='' ways=(--per-netns)
	! patched sockkill/0005 || ways+=('')
}

teardown() {
	untraced holders_end
	[ ! -e /sys/fs/bpf/test ] || vip_end
	[ ! -e "$PIN/sockkill" ] || "$B/sockkill" record off >/dev/null
	topo_down
}

sk() { # STATUS ARGUMENT..., in the current way
	local rc=$1
	shift
	tool "$rc" "$B/sockkill" "$@" ${way:+"$way"}
}

json() { jq -e "$@" <<<"$output"; }

# hold NAME NETNS SOCKET...: sockets in that namespace (a path: of that process's choice), and
# what happens to them in $BATS_TEST_TMPDIR/NAME
hold() {
	local out=$BATS_TEST_TMPDIR/$1 pipe=$BATS_TEST_TMPDIR/$1.stdin netns=$2
	shift 2
	mkfifo "$pipe"
	: >"$out"
	ip netns exec "$netns" "$B/tests/hold" "$@" <>"$pipe" >"$out" 3>&- 4>&- &
	holders+=($!)
	wait_for 20 grep -q ready "$out"
}

holders_end() {
	for p in "${holders[@]}"; do kill -9 "$p" 2>/dev/null || :; done
	wait
}

# happened NAME LINE...: all that it has seen since it was ready, in any order
happened() {
	wait_for 10 has_seen "$@" || { cat "$BATS_TEST_TMPDIR/$1"; return 1; }
}

has_seen() { cmp -s <(sed 1d "$BATS_TEST_TMPDIR/$1" | sort) <(printf '%s\n' "${@:2}" | sort); }

nothing_happened() { [ "$(<"$BATS_TEST_TMPDIR/$1")" = ready ]; }

# sockets NETNS: as ss sees them, in the words of sockkill: PROTO STATE SRC > DST
sockets() {
	# shellcheck disable=SC2016 # awk's
	ip netns exec "$1" ss -Htuan | awk '
		BEGIN { s["ESTAB"] = "established"; s["UNCONN"] = "closed"; s["LISTEN"] = "listening"
			s["SYN-SENT"] = "syn-sent"; s["SYN-RECV"] = "new-syn-recv"
			s["TIME-WAIT"] = "time-wait"; s["FIN-WAIT-2"] = "fin-wait-2"
			s["CLOSE-WAIT"] = "close-wait" }
		{ sub(/:\*$/, ":0", $6); sub(/^\*/, "[::]", $5); sub(/^\*/, "[::]", $6); print $1, s[$2], $5, ">", $6 }' | sort
}

# listed NETNS-NAME: the same of $output, which is JSON
listed() {
	json -r --arg netns "$1" '.sockets[] | select(.netns_name == $netns) |
		def at($addr; $port): if .family == "ipv6" then "[\($addr)]:\($port)" else "\($addr):\($port)" end;
		"\(.proto) \(.state) \(at(.src; .sport)) > \(at(.dst; .dport))"' | sort
}

leaves() { [[ $(sockets "$a") == *"time-wait"* || $(sockets "$a") == *"fin-wait"* ]]; }
# aborted NAME N [SOCKET]: so often
aborted() { [ "$(grep -c "${3-}.* ECONNABORTED" "$BATS_TEST_TMPDIR/$1")" -ge "$2" ]; }

@test "sockkill: list finds what ss finds in each namespace, whatever its state" {
	requires root kernel:6.5 tool:jq tool:nft
	ip -n "$a" link add d0 type dummy
	ip -n "$a" addr add 192.0.2.1/24 dev d0
	ip -n "$a" link set d0 up
	hold serve "$a" 'listen:0.0.0.0:80' 'listen:[::]:81' 'bind:127.0.0.1:53' 'bind:[::1]:54'
	# what answers port 83 is lost: a request that stays one
	ip netns exec "$a" nft -f - <<-END
		table inet t { chain c { type filter hook input priority 0; tcp sport 83 tcp flags & (syn|ack) == syn|ack drop; }; }
	END
	hold lost "$a" listen:127.0.0.1:83
	hold ask "$a" 'tcp:127.0.0.1:80*2' 'tcp:[::1]:81' mapped:127.0.0.1:80 'udp:127.0.0.1:53*2' \
		'udp:[::1]:54' syn:192.0.2.9:9 syn:127.0.0.1:83
	# what its owner has left must stay for both lists, on a slow machine too: two minutes
	ip netns exec "$a" sysctl -qw net.ipv4.tcp_fin_timeout=120
	hold gone "$a" tcp:127.0.0.1:80
	kill -9 "${holders[-1]}"
	wait_for 10 leaves
	hold other "$b" listen:127.0.0.1:80 tcp:127.0.0.1:80 udp:127.0.0.1:53
	for way in "${ways[@]}"; do
		sk 0 list state all -j
		for ns in "$a" "$b"; do
			diff -u <(sockets "$ns") <(listed "$ns")
		done
		json '[.sockets[] | select(.state == "new-syn-recv" or .state == "syn-sent")] | length == 3'
		json 'all(.sockets[]; .cookie != "0x0") and (.unreachable | length == 0) and
			.totals.matched == (.sockets | length) and .totals.seen == .totals.matched'
		json --argjson pid "${holders[2]}" 'any(.sockets[]; .pid == $pid and .command == "hold")'
	done
}

# bats test_tags=nodebug
@test "sockkill: namespaces that only a process or a socket knows" {
	requires root kernel:6.5 tool:jq
	hold server "$a" listen:127.0.0.1:80
	hold socket "$b" -n "$a" tcp:127.0.0.1:80
	# now nothing leads to the namespace but sockets of processes that are elsewhere
	hold inside "$b" -n "$a" -r tcp:127.0.0.1:80 listen:127.0.0.1:81
	kill -9 "${holders[0]}"
	ip netns del "$a"
	unshare --net bash -c 'ip link set lo up; exec "$@" <>"$0" 3>&- 4>&-' "$BATS_TEST_TMPDIR/inside.stdin" \
		"$B/tests/hold" listen:127.0.0.1:82 tcp:127.0.0.1:82 >"$BATS_TEST_TMPDIR/process" &
	holders+=($!)
	wait_for 20 grep -q ready "$BATS_TEST_TMPDIR/process"
	for way in "${ways[@]}"; do
		sk 0 list 'dport = 82' -j
		json '.sockets | length == 1 and all(.netns_name == "")'
		sk 0 list 'sport = 81' state listening -j
		json '.sockets | length == 1 and all(.netns_name == "")'
	done
	sk 0 kill 'sport = 81' state listening
	happened inside "listen:127.0.0.1:81 ECONNABORTED"
	way=--per-netns
	sk 0 kill dport 82
	happened process "tcp:127.0.0.1:82 ECONNABORTED" "accepted ECONNRESET"
}

# bats test_tags=stock
@test "sockkill: kill destroys what the filter says, in all namespaces, and nothing else" {
	requires root kernel:6.5 tool:jq
	for ns in "$a" "$b"; do
		hold "serve-$ns" "$ns" listen:127.0.0.1:80 'listen:[::1]:80' listen:127.0.0.1:81 bind:127.0.0.1:53
	done
	for way in "${ways[@]}"; do
		holders=("${holders[@]:0:2}")
		for ns in "$a" "$b"; do
			hold "hit-$ns$way" "$ns" 'tcp:127.0.0.1:80*3' mapped:127.0.0.1:80 'udp:127.0.0.1:80*2'
			hold "spared-$ns$way" "$ns" tcp:127.0.0.1:81 'tcp:[::1]:80' udp:127.0.0.1:53
		done
		sk 0 kill dst 127.0.0.1:80 --dry-run -j
		json '.dry_run and .totals.matched == 12 and .totals.destroyed == 0 and
			all(.sockets[]; has("result") | not)'
		nothing_happened "hit-$a$way"
		sk 0 kill dst 127.0.0.1:80 -j
		json 'all(.sockets[]; .pid > 0 and .command == "hold")'
		json '.totals | .matched == 12 and .destroyed == 12 and .busy == 0 and .failed == 0 and
			(.netns | map(select(.matched == 6 and .destroyed == 6)) | length == 2)'
		json --argjson one "$([ "$way" ] && echo false || echo true)" '.one_pass == $one'
		for ns in "$a" "$b"; do
			happened "hit-$ns$way" "tcp:127.0.0.1:80*3 "{ECONNABORTED,ECONNABORTED,ECONNABORTED} \
				"mapped:127.0.0.1:80 ECONNABORTED" "udp:127.0.0.1:80*2 "{ECONNABORTED,ECONNABORTED}
			nothing_happened "spared-$ns$way"
		done
		sk 3 kill dst 127.0.0.1:80
		# their peers were reset, and who listens was spared
		sk 0 list sport 80 state listening
		sk 3 list sport 80 and not dst 127.0.0.1 and not dst ::1 --netns "$a" --netns "$b"
		kill -9 "${holders[@]:2}"
	done
}

# bats test_tags=stock
@test "sockkill: without a word it goes the way that the kernel has" {
	requires root kernel:6.5 tool:jq
	one=false
	! patched sockkill/0005 || one=true
	hold client "$a" listen:127.0.0.1:80 tcp:127.0.0.1:80
	sk 0 --probe -j
	json --argjson one "$one" '.ok and .needs[1].name == "one-pass" and .needs[1].present == $one'
	sk 0 kill dport 80 -j
	json --argjson one "$one" '.one_pass == $one and .totals.destroyed == 1 and .incomplete == null'
	happened client "tcp:127.0.0.1:80 ECONNABORTED" "accepted ECONNRESET"
}

@test "sockkill: one pass needs CAP_BPF and CAP_PERFMON, and no more" {
	requires root tool:jq tool:setpriv
	patched sockkill/0005
	as() { # STATUS CAPABILITIES ARGUMENT...
		tool "$1" /usr/bin/setpriv --reuid 1000 --regid 1000 --clear-groups --bounding-set="-all,$2" \
			--inh-caps="-all,$2" --ambient-caps="-all,$2" "$B/sockkill" "${@:3}"
	}
	hold client "$a" listen:127.0.0.1:80 tcp:127.0.0.1:80
	as 1 +bpf kill dport 80
	[[ $stderr == *CAP_PERFMON* ]]
	nothing_happened client
	as 0 +bpf,+perfmon kill dport 80 -j
	json '.one_pass and (.unreachable | length == 0) and .totals.destroyed == 1'
	happened client "tcp:127.0.0.1:80 ECONNABORTED" "accepted ECONNRESET"
}

# bats test_tags=nodebug
@test "sockkill: by namespace, protocol, family, device, mark, cgroup and cookie" {
	requires root kernel:6.5 tool:jq
	hold server "$a" listen:127.0.0.1:80 'listen:[::1]:80' bind:127.0.0.1:80
	hold other "$b" listen:127.0.0.1:80 tcp:127.0.0.1:80
	hold client "$a" tcp:127.0.0.1:80 'tcp:[::1]:80' udp:127.0.0.1:80
	cgroup=/sys/fs/cgroup/skelkit$BATS_TEST_NUMBER
	mkdir -p "$cgroup/below"
	count() { # N ARGUMENT...
		local n=$1
		shift
		sk "$((n ? 0 : 3))" list dport 80 "$@" -j
		json --argjson n "$n" '.sockets | length == $n'
	}
	for way in "${ways[@]}"; do
		count 4
		count 3 --netns "$a"
		count 1 --netns "/run/netns/$b"
		count 3 --netns "pid:${holders[2]}"
		count 1 --netns "$(stat -Lc %i "/run/netns/$b")"
		count 4 --netns "$a" --netns "$b"
		count 4 --netns "$a" --all-netns
		count 3 --proto tcp
		count 1 --proto udp
		count 3 --family 4
		count 1 --family 6
		count 3 --state established --proto tcp
		count 0 --state close-wait
		count 4 fwmark 0
		count 0 fwmark 1
		count 0 dev lo
		cookie=$(sk 0 list dport 80 --proto udp -j >/dev/null; jq -r '.sockets[0].cookie' <<<"$output")
		count 1 cookie "$cookie"
	done
	# a socket stays in the cgroup that it was made in
	echo "$BASHPID" >"$cgroup/below/cgroup.procs"
	hold grouped "$a" tcp:127.0.0.1:80
	echo "$BASHPID" >/sys/fs/cgroup/cgroup.procs
	for way in "${ways[@]}"; do
		count 1 cgroup "${cgroup##*/}"
		count 1 cgroup "${cgroup##*/}/below"
		count 4 not cgroup "${cgroup##*/}"
	done
	kill -9 "${holders[-1]}"
	wait "${holders[-1]}" || :
	rmdir "$cgroup/below" "$cgroup"
}

# bats test_tags=nodebug
@test "sockkill: bad input is refused, and nothing is destroyed" {
	requires root kernel:6.5 tool:jq
	hold client "$a" listen:127.0.0.1:80 tcp:127.0.0.1:80
	sk 2 kill
	[[ $stderr == *--force* ]]
	sk 2 kill not dst 10.0.0.1
	sk 2 kill --proto tcp state established
	sk 2 kill dst 127.0.0.300
	[[ $stderr == *"127.0.0.300: not an address"*$'\n'*"dst 127.0.0.300"*$'\n'*"    ^"* ]]
	sk 2 kill dport 80 --netns no-such-namespace
	[[ $stderr == *no-such-namespace* ]]
	sk 2 kill dport 80 --netns /proc/self/ns/pid
	sk 2 kill dport 80 state established --state listening
	sk 2 kill dport 80 --state frob
	sk 2 kill dport 80 --proto sctp
	sk 2 frob
	sk 2 watch
	sk 2 watch --backends /no/such/file
	nothing_happened client
	sk 0 --version
	sk 0 --help
	[[ $output == *EXAMPLES* ]]
	sk 0 --probe --json
	json '.ok and .needs[0].name == "destroy"'
	sk 0 list --kernel dport 80 --verbose
	[[ $output == *"netns $a ("*"matched 1,"* ]]
	sk 0 kill --netns "$a" --force --deadline 1
	# both ends match, and the first to go resets the other
	wait_for 10 grep -q '^accepted ' "$BATS_TEST_TMPDIR/client"
	wait_for 10 grep -q '^tcp:127.0.0.1:80 ' "$BATS_TEST_TMPDIR/client"
	aborted client 1
}

# bats test_tags=nodebug
@test "sockkill: more victims than there is room to tell of are still all destroyed" {
	requires root kernel:6.5 tool:jq
	# 80 bytes and a header each: the ring has 1 MiB, for which UDP sockets do not count
	hold many "$a" 'udp:127.0.0.1:53*14000'
	for way in "${ways[@]}"; do
		sk 0 list dport 53 -j
		json '(.sockets | length == 14000) and ([.sockets[].cookie] | unique | length == 14000) and
			.totals.passes > 1 and .totals.untold == 0'
	done
	sk 0 kill dport 53 -j
	json '.totals | .destroyed == 14000 and .matched == 14000 and .untold == 0'
	wait_for 20 aborted many 14000
}

# bats test_tags=nodebug
@test "sockkill: totals of 600 namespaces, of which some share a bucket of the map" {
	requires root kernel:6.5 tool:jq tool:python3
	python3 - >"$BATS_TEST_TMPDIR/many" 3>&- 4>&- <<-'END' &
		import ctypes, socket, time
		kept = []
		for _ in range(600):
		    assert ctypes.CDLL(None).unshare(0x40000000) == 0	# CLONE_NEWNET
		    kept.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
		    kept[-1].bind(('', 5353))
		print('ready', flush=True)
		time.sleep(3600)
	END
	holders+=($!)
	wait_for 120 grep -q ready "$BATS_TEST_TMPDIR/many"
	for way in "${ways[@]}"; do
		sk 0 list sport 5353 state all -j
		json '(.sockets | length == 600) and .totals.matched == 600 and
			(.totals.netns | map(select(.matched == 1)) | length == 600)'
	done
}

@test "sockkill: two at once destroy each socket once" {
	requires root kernel:6.5 tool:jq
	hold server "$a" listen:127.0.0.1:80
	hold many "$a" 'tcp:127.0.0.1:80*300'
	for i in 1 2; do
		"$B/sockkill" kill dport 80 -j ${way:+"$way"} >"$BATS_TEST_TMPDIR/$i" 3>&- 4>&- &
		holders+=($!)
	done
	for p in "${holders[@]: -2}"; do wait "$p" || [ $? = 3 ]; done
	jq -es 'map(.totals.destroyed) | add == 300' "$BATS_TEST_TMPDIR"/{1,2}
	wait_for 20 aborted many 300
}

watch_start() { # ARGUMENT...
	"$B/sockkill" watch --backends "$BATS_TEST_TMPDIR/list" "$@" ${way:+"$way"} \
		>"$BATS_TEST_TMPDIR/watch" 2>&1 3>&- 4>&- &
	holders+=($!)
}

write_list() { printf '%s\n' "$@" >"$BATS_TEST_TMPDIR/new" && mv "$BATS_TEST_TMPDIR/new" "$BATS_TEST_TMPDIR/list"; }
watched() { wait_for 10 grep -q "$1" "$BATS_TEST_TMPDIR/watch" || { cat "$BATS_TEST_TMPDIR/watch"; return 1; }; }

forgotten() {
	"$B/bpftool/bpftool" -j map dump pinned "$PIN/sockkill/watch_default/backends" 3>&- 4>&- |
		jq -e 'length == 2'
}

# bats test_tags=nodebug
@test "sockkill: watch destroys what is connected to a backend that leaves the list" {
	requires root kernel:6.5
	hold server "$a" listen:127.0.0.1:80 listen:127.0.0.1:81
	hold client "$a" -r tcp:127.0.0.1:80 udp:127.0.0.1:80 tcp:127.0.0.1:81
	write_list 127.0.0.1:80 127.0.0.1:81/tcp
	watch_start --fresh --interval 1
	wait_for 10 [ -e "$PIN/sockkill/watch_default/backends" ]
	sk 1 watch --backends "$BATS_TEST_TMPDIR/list"
	[[ $stderr == *--name* ]]
	# a list that cannot be read, and one that is empty, change nothing
	write_list 127.0.0.1
	watched 'list:1: .*not ADDR:PORT.*stay'
	: >"$BATS_TEST_TMPDIR/list"
	watched 'empty'
	nothing_happened client
	write_list '# 80 is gone' 127.0.0.1:81
	# who connects again, and again, is hit again while the backend is away
	wait_for 10 aborted client 3 tcp:127.0.0.1:80
	grep -q 'udp:127.0.0.1:80 ECONNABORTED' "$BATS_TEST_TMPDIR/client"
	run ! grep 'tcp:127.0.0.1:81 ' "$BATS_TEST_TMPDIR/client"
	# started anew after kill -9, with a list that has lost another meanwhile
	kill -9 "${holders[-1]}"
	wait "${holders[-1]}" || :
	write_list 127.0.0.1:80
	watch_start --interval 1
	wait_for 10 grep -q 'tcp:127.0.0.1:81 ECONNABORTED' "$BATS_TEST_TMPDIR/client"
	kill "${holders[-1]}"
	wait "${holders[-1]}"
	# what has long left is forgotten
	watch_start --interval 1 --linger 0
	wait_for 10 forgotten
	rm -r "$PIN/sockkill/watch_default"
}

# bats test_tags=nodebug
@test "sockkill: watch takes changes from standard input" {
	requires root kernel:6.5 tool:jq
	hold client "$a" listen:127.0.0.1:80 listen:127.0.0.1:81 tcp:127.0.0.1:80 tcp:127.0.0.1:81
	tool 0 "$B/sockkill" watch --backends - -j --fresh <<-END
		+ 127.0.0.1:80
		frob
		{"add": ["127.0.0.1:81/tcp"], "del": ["127.0.0.1:80"]}
	END
	[[ $stderr == *frob* ]]
	jq -es 'length == 1 and (.[0] | .left == ["127.0.0.1:80/tcp", "127.0.0.1:80/udp"] and
		.totals.destroyed == 1)' <<<"$output"
	happened client "tcp:127.0.0.1:80 ECONNABORTED" "accepted ECONNRESET"
	tool 0 "$B/sockkill" watch --backends - -j --dry-run <<<'- 127.0.0.1:81/tcp'
	jq -es '.[0] | .dry_run and .totals.matched == 1 and .totals.destroyed == 0' <<<"$output"
	rm -r "$PIN/sockkill/watch_default"
}

# A service 10.96.0.10:80, whose only backend is 127.0.0.1:80.
vip() {
	mkdir -p /sys/fs/bpf/test
	tool 0 "$B/bpftool/bpftool" prog load "$B/tests/vip.bpf.o" /sys/fs/bpf/test/vip \
		pinmaps /sys/fs/bpf/test
	tool 0 "$B/bpftool/bpftool" map update pinned /sys/fs/bpf/test/backend \
		key 0 0 0 0 value 127 0 0 1
	tool 0 "$B/bpftool/bpftool" cgroup attach /sys/fs/cgroup connect4 pinned /sys/fs/bpf/test/vip multi
}

vip_end() {
	"$B/bpftool/bpftool" cgroup detach /sys/fs/cgroup connect4 pinned /sys/fs/bpf/test/vip multi || :
	rm -rf /sys/fs/bpf/test
}

# bats test_tags=nodebug
@test "sockkill: the recorder knows who came by a service, and who did not" {
	requires root kernel:6.16 tool:jq
	vip
	hold server "$a" listen:127.0.0.1:80 bind:127.0.0.1:80
	hold before "$a" tcp:10.96.0.10:80
	sk 1 list service 10.96.0.10
	[[ $stderr == *"record on"* ]]
	sk 0 record show
	[[ $output == *off* ]]
	sk 0 record on --dry-run
	[ ! -e "$PIN/sockkill/records" ]
	sk 0 record on
	sk 0 record on
	[[ $output == *unchanged* ]]
	hold service "$a" 'tcp:10.96.0.10:80*2' udp:10.96.0.10:80
	hold direct "$a" tcp:127.0.0.1:80 udp:127.0.0.1:80
	hold short "$a" tcp:127.0.0.1:80
	kill -9 "${holders[-1]}"
	wait "${holders[-1]}" || :
	sk 0 record show -j
	json '.on and .lost == 0 and .recorded == 6 and (.records | length == 5) and
		([.records[] | select(.dialled == "10.96.0.10:80/tcp" and .reached == "127.0.0.1:80/tcp" and
			.command == "hold")] | length == 2)'
	for way in "${ways[@]}"; do
		sk 0 list service 10.96.0.10:80 -j
		json '.sockets | length == 3'
		sk 3 list service 10.96.0.10:81
		sk 3 list service 10.96.0.11
		sk 0 list dst 127.0.0.1:80 and not service 10.96.0.10 state established -j
		json '.sockets | length == 3'
	done
	# the one that is older than the recorder is told of, and left
	sk 1 kill dst 127.0.0.1:80 --recorded -j
	json '.totals | .destroyed == 3 and .unrecorded == 1'
	json '[.sockets[] | select(.result == "unrecorded")] | length == 1'
	happened service "tcp:10.96.0.10:80*2 "{ECONNABORTED,ECONNABORTED} "udp:10.96.0.10:80 ECONNABORTED"
	nothing_happened direct
	nothing_happened before
	sk 0 record off
	[ ! -e "$PIN/sockkill/records" ]
}

# bats test_tags=nodebug
@test "sockkill: a recorder without room counts what it lost, and nothing is taken for it" {
	requires root kernel:6.16 tool:jq
	vip
	hold server "$a" listen:127.0.0.1:80
	sk 0 record on --records 2
	hold service "$a" 'tcp:10.96.0.10:80*5'
	sk 0 record show -j
	json '.lost == 3 and .room == 2 and .recorded == 2'
	sk 1 kill dst 127.0.0.1:80 --recorded -j
	json '.totals | .destroyed == 2 and .unrecorded == 3'
	wait_for 10 aborted service 2
	# killed at any point, it is turned on or off as a whole by the next one
	rm "$PIN/sockkill/records/dial6"
	sk 0 record show
	[[ $output == *off* ]]
	sk 0 record on
	[[ $output == *"turn on"* ]]
	sk 0 record off
}

@test "sockkill: who connected elsewhere meanwhile is not hit" {
	requires root kernel:6.16 tool:python3
	hold server "$a" listen:127.0.0.1:80 bind:127.0.0.1:80 bind:127.0.0.1:81
	sk 0 record on
	tool 0 /sbin/ip netns exec "$a" python3 - "$B/sockkill" <<-'END'
		import errno, socket, subprocess, sys
		s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		kill = lambda: subprocess.run([sys.argv[1], 'kill', 'dst', '127.0.0.1:80']).returncode
		s.connect(('127.0.0.1', 80))
		s.connect(('127.0.0.1', 81))
		assert kill() == 3
		s.send(b'x')
		# disconnected: AF_UNSPEC
		s.connect(('127.0.0.1', 80))
		import ctypes
		assert ctypes.CDLL(None).connect(s.fileno(), bytes(16), 16) == 0
		assert kill() == 3
		s.connect(('127.0.0.1', 80))
		assert kill() == 0
		assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNABORTED
	END
	sk 0 record off
}
