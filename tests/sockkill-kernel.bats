# SPDX-License-Identifier: GPL-2.0-only
# The patches in kernel/sockkill: loops over network namespaces and their sockets, and
# bpf_sock_destroy() in programs that do not hold the socket lock. tests/sockiter makes
# the sockets and compares, tests/sockdeny asks the verifier.
# bats file_tags=smp
bats_require_minimum_version 1.5.0
load helpers

setup() { requires kfunc:bpf_iter_udp_new; }

# iter VERB...: all lines are ok
iter() {
	tool 0 "$B/tests/sockiter" "$@"
	echo "$output"
	[[ $output == ok* && $output != *"not ok"* ]]
}

@test "sockkill: the verifier refuses what outlives its turn, its loop or its section" {
	tool 0 "$B/tests/sockdeny"
	echo "$output"
	[[ $output == ok* && $output != *"not ok"* ]]
}

@test "sockkill: a container to which BPF is delegated does not see the others" {
	tool 0 "$B/tests/sockdeny" -t
	echo "$output"
	[ "$(grep -c ^ok <<<"$output")" = 3 ]
}

@test "sockkill: each namespace and socket is seen once, in one pass and per namespace" {
	iter walk
}

@test "sockkill: what matches is destroyed in all namespaces, and nothing beside it" {
	iter kill
}

@test "sockkill: a sleepable program and a bpf_wq callback destroy as well" {
	iter contexts
}

@test "sockkill: programs of iter/tcp and iter/udp destroy as ever" {
	iter seq
}

@test "sockkill: a locked socket is busy, and is not waited for" {
	iter busy
}

@test "sockkill: what stays is seen once while namespaces and sockets come and go" {
	iter storm 10
}
