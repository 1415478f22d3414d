# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034
# What the suites of tproxy share: a pod behind a device of a host, each a network namespace,
# and a proxy on the host. The device is called as its namespace, $h; the pod's is $p.

# Addresses that nobody has.
far4=203.0.113.7 far6=2001:db8:7::7
PORT=15001

tproxy_setup() {
	h=$(name h) p=$(name p)
	proxies=0
}

tproxy_teardown() {
	topo_down
	[ -z "$(echo "$PIN"/tproxy/*)" ] || "$B/tproxy" doctor --fix >/dev/null || :
}

setup() { tproxy_setup; }
teardown() { tproxy_teardown; }

# world veth|l2|l3: the pod's default route is the host, which forwards nothing
world() {
	case $1 in
	veth) topo veth h p ;;
	l2 | l3) topo netkit h p mode "$1" ;;
	esac
	if [ "$1" = l3 ]; then
		ip -n "$p" -batch - <<-END
			route add default dev $p
			route add ::/0 dev $p
		END
	else
		ip -n "$p" -batch - <<-END
			route add default via 10.0.0.1
			route add ::/0 via fd00::1
		END
	fi
}

tp() { local rc=$1; shift; tool "$rc" "$B/tproxy" --netns "$h" "$@"; }
json() { jq -e "$@" <<<"$output"; }
# attach ARGUMENT...: at the device, by the hook that the test is about
attach() { tp 0 attach "${hook:-tcx-ingress}" "$h" "$@"; }

# proxy ARGUMENT...: in the background, its pid in $proxy, what it says in $said
proxy() {
	said=$BATS_TEST_TMPDIR/said$((proxies++))
	ip netns exec "$h" "$B/tests/proxy" listen "$@" >"$said" 2>&1 3>&- 4>&- &
	proxy=$!
	wait_for 5 grep -q ready "$said"
}

# said LINE-PATTERN: the proxy has said it, with the addresses of the pod
said() { grep -qE "$1" "$said" || fail "the proxy has not said: $1" "$(<"$said")"; }

# ask STATE ARGUMENT...: of the pod, or of $client; every address comes to that, a pattern
ask() {
	local want=$1 line status=0
	shift
	output=$(ip netns exec "${client:-$p}" "$B/tests/proxy" ask -t "$((${WAIT:-10} * 1000 * TIMEOUT_FACTOR))" \
		"$@" 2>&1 3>&- 4>&-) || status=$?
	printf '$ ask %s\n%s\n' "$*" "$output"
	[ "$output" ] || return
	while IFS= read -r line; do
		# shellcheck disable=SC2053
		[[ $line == *" "$want ]] || { fail "expected $want: $line"; return; }
	done <<<"$output"
}

# nobody answers, or a router says that there is nobody; for a short time
mute() { WAIT=1 ask '@(timeout|error *)' "$@"; }

# counts JQ-CONDITION: of the counters of $h
counts() {
	tp 0 stats "$h" -j
	jq -e ".devices[0] | $1" <<<"$output" || fail "counters: $1"
}

# refs: of the listening sockets at $PORT, all together, by the kernel's tables
refs() {
	local line sum=0 f
	for f in tcp tcp6 udp udp6; do
		while read -ra line; do
			[[ ${line[1]} == *:3A99 && ${line[3]} == 0[A7] ]] || continue
			# sl local rem st queues tr:when retransmits uid timeout inode ref
			sum=$((sum + line[10]))
		done < <(ip netns exec "$h" cat "/proc/net/$f")
	done
	echo "$sum"
}

# clean: nothing of tproxy is left on the host
clean() {
	tp 0 doctor
	[ "$output" = "no problems" ] || fail "doctor found something"
	[ -z "$(echo "$PIN"/tproxy/*)" ] || fail "pins are left: $(echo "$PIN"/tproxy/*)"
	output=$(ip -n "$h" rule; ip -n "$h" -6 rule)
	[[ $output != *29808* ]] || fail "rules are left: $output"
	output=$(ip -n "$h" route show table all; ip -n "$h" -6 route show table all)
	[[ $output != *29808* ]] || fail "routes are left: $output"
}

# served: TCP and UDP of both families, to addresses that nobody has, and that is all there is;
# $before is what refs says of the proxy before
served() {
	proxy ":$PORT"
	before=$(refs)
	attach --to ":$PORT" --proto both
	ask ok tcp "$far4:80" "[$far6]:443"
	ask ok udp "$far4:53" "[$far6]:53"
	# the proxy knows both ends, and the pod was answered by whom it had asked
	said "^tcp 10[.]0[.]0[.]2:[0-9]+ > $far4:80 "
	said "^tcp \[fd00::2\]:[0-9]+ > \[$far6\]:443 "
	said "^udp 10[.]0[.]0[.]2:[0-9]+ > $far4:53 "
	said "^udp \[fd00::2\]:[0-9]+ > \[$far6\]:53 "
	counts '.given | .connections.packets == 2 and .datagrams.packets == 2 and
		.established.packets > 4 and .segments.packets == 0'
	counts '.done | .dropped.packets + .passed.packets + .answered.packets == 0'
}

# hold ARGUMENT...: like ask, with a line to $go for each round; what it says is in $held
hold() {
	go=$BATS_TEST_TMPDIR/go held=$BATS_TEST_TMPDIR/held
	rm -f "$go"
	mkfifo "$go"
	exec 9<>"$go"
	ip netns exec "$p" "$B/tests/proxy" ask -H -t "$((10000 * TIMEOUT_FACTOR))" "$@" \
		<"$go" >"$held" 2>&1 3>&- 4>&- &
	holder=$!
}

# round N PATTERN: that many lines of the pattern are there, or come
rounds() { [ "$(grep -cE "$2" "$held")" -ge "$1" ]; }

# get ADDRESS: by HTTP, from the pod
get() {
	tool 0 /sbin/ip netns exec "$p" bash -c '
		exec 5<>"/dev/tcp/$1/80"
		printf "GET / HTTP/1.0\r\n\r\n" >&5
		cat <&5' get "$1"
}
