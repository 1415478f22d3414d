# SPDX-License-Identifier: GPL-2.0-only
# The patches in kernel/sockkill: loops over network namespaces and their sockets, and
# bpf_sock_destroy() in programs that do not hold the socket lock. tests/sockiter and
# tests/sockkinds make the sockets and compare, tests/sockdeny asks the verifier.
# bats file_tags=smp
bats_require_minimum_version 1.5.0
load helpers

setup() { requires kfunc:bpf_iter_udp_new; }

# says PROGRAM VERB...: all lines are ok
says() {
	tool 0 "$B/tests/$1" "${@:2}"
	[[ $output == ok* && $output != *"not ok"* ]]
}

iter() { says sockiter "$@"; }

# kind VERB: by a program, then by the tool
kind() {
	says sockkinds "$1"
	says sockkinds "$1" "$B/sockkill"
}

@test "sockkill: the verifier refuses what outlives its turn, its loop or its section" {
	says sockdeny
}

@test "sockkill: a container to which BPF is delegated does not see the others" {
	tool 0 "$B/tests/sockdeny" -t
	echo "$output"
	[ "$(grep -c ^ok <<<"$output")" = 3 ]
}

@test "sockkill: each namespace and socket is seen once, in one pass and per namespace" {
	iter walk
}

@test "sockkill: a filter of the kernel finds whom it names, and refuses nonsense" {
	iter match
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

# Subflows are destroyed; the connection has none then, and ends when it may have no more.
@test "sockkill: MPTCP's subflows, but not its listeners" { kind mptcp; }

@test "sockkill: kernel TLS, with records on the way" { kind tls; }

@test "sockkill: TCP fast open, also while the handshake goes on" { kind fastopen; }

@test "sockkill: sockets in a sockmap" { kind sockmap; }

@test "sockkill: IPv4 by IPv6 sockets" { kind mapped; }

@test "sockkill: a walk that gets no memory says so, and what it saw it saw once" {
	requires faults
	says sockkinds failures
}

# bats test_tags=kmemleak
@test "sockkill: nothing keeps a socket or a namespace" {
	says sockkinds references
}

@test "sockkill: two destroyers at once, and nested ones, destroy each once" {
	says sockkinds storm 10
}

@test "sockkill: what stays is seen once while namespaces and sockets come and go" {
	iter storm 10
}
