// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loops over network namespaces and their sockets, which count what they see by
 * cookie and destroy what matches: in a SYSCALL program, in a sleepable one at a
 * system call, and in the callback of a bpf_wq that one which may not sleep
 * started; and, as ever, in programs of iter/tcp and iter/udp.
 */
#include "common.bpf.h"
#include <bpf/bpf_tracing.h>
#include "sockiter.bpf.h"

char LICENSE[] SEC("license") = "GPL";

const volatile __u32 pid;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u32);
} cookies SEC(".maps"), net_cookies SEC(".maps");

struct elem {
	struct bpf_wq wq;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct elem);
} work SEC(".maps");

/* For the programs that have no context of ours: request and answer. */
struct sockiter_req req;
__u32 runs;

static __always_inline void count(void *map, __u64 cookie)
{
	__u32 one = 1, *n = bpf_map_lookup_elem(map, &cookie);

	if (n)
		(*n)++;
	else
		bpf_map_update_elem(map, &cookie, &one, BPF_ANY);
}

static __always_inline void visit(struct sockiter_req *r, struct sock_common *skc)
{
	r->seen++;
	count(&cookies, bpf_get_socket_cookie(skc));
	if (!match(r, skc))
		return;
	r->matched++;
	if (r->kill)
		account(r, bpf_sock_destroy(skc));
}

static __always_inline void walk_tcp(struct sockiter_req *r, struct net *net)
{
	struct bpf_iter_tcp it;
	struct sock_common *skc;

	r->made = bpf_iter_tcp_new(&it, net);
	while ((skc = bpf_iter_tcp_next(&it)))
		visit(r, skc);
	r->err = bpf_iter_tcp_err(&it) ?: r->err;
	bpf_iter_tcp_destroy(&it);
	r->walks++;
}

static __always_inline void walk_udp(struct sockiter_req *r, struct net *net)
{
	struct bpf_iter_udp it;
	struct sock_common *skc;

	r->made = bpf_iter_udp_new(&it, net);
	while ((skc = bpf_iter_udp_next(&it)))
		visit(r, skc);
	r->err = bpf_iter_udp_err(&it) ?: r->err;
	bpf_iter_udp_destroy(&it);
	r->walks++;
}

static __always_inline void walk_match(struct sockiter_req *r, struct net *net)
{
	struct sockiter_match m[2] = {r->match, r->match};
	__u32 size = r->match_size ?: sizeof(*m);
	struct bpf_iter_sk_match it;
	struct sock_common *skc;

	if (size > sizeof(m))
		return;
	r->made = bpf_iter_sk_match_new(&it, net, (void *)m, size);
	while ((skc = bpf_iter_sk_match_next(&it)))
		visit(r, skc);
	r->err = bpf_iter_sk_match_err(&it) ?: r->err;
	bpf_iter_sk_match_destroy(&it);
	r->walks++;
}

static __always_inline void run(struct sockiter_req *r)
{
	struct net *net;

	if (r->mode == SOCKITER_MATCH) {
		walk_match(r, NULL);
		return;
	}
	if (r->mode == SOCKITER_ONE) {
		if (r->proto == IPPROTO_TCP)
			walk_tcp(r, NULL);
		else
			walk_udp(r, NULL);
		return;
	}

	bpf_for_each(net, net) {
		r->nets++;
		count(&net_cookies, net->net_cookie);
		if (r->mode == SOCKITER_NETS)
			continue;
		if (r->mode == SOCKITER_MATCH_NESTED)
			walk_match(r, net);
		else if (r->proto == IPPROTO_TCP)
			walk_tcp(r, net);
		else
			walk_udp(r, net);
	}
}

SEC("syscall")
int sockiter_run(struct sockiter_req *ctx)
{
	run(ctx);
	return 0;
}

/* Two destroyers meet: each socket of the outer loop is one of the inner, too. */
SEC("syscall")
int sockiter_twice(struct sockiter_req *ctx)
{
	struct sock_common *outer, *inner;

	bpf_for_each(tcp, outer, NULL) {
		if (!match(ctx, outer))
			continue;
		ctx->matched++;
		bpf_for_each(tcp, inner, NULL) {
			ctx->seen++;
			if (match(ctx, inner))
				account(ctx, bpf_sock_destroy(inner));
		}
		account(ctx, bpf_sock_destroy(outer));
	}
	return 0;
}

static __always_inline bool ours(void)
{
	return pid && bpf_get_current_pid_tgid() >> 32 == pid;
}

SEC("?fentry.s/__x64_sys_getpgid")
int sockiter_fentry(void *ctx)
{
	if (!ours())
		return 0;
	run(&req);
	runs++;
	return 0;
}

static int callback(void *map, int *key, void *value)
{
	run(&req);
	__sync_fetch_and_add(&runs, 1);
	return 0;
}

SEC("?fentry/__x64_sys_getpgid")
int sockiter_wq(void *ctx)
{
	struct elem *e;
	__u32 zero = 0;

	if (!ours())
		return 0;
	e = bpf_map_lookup_elem(&work, &zero);
	if (!e || bpf_wq_init(&e->wq, &work, 0) || bpf_wq_set_callback(&e->wq, callback, 0))
		return 0;
	bpf_wq_start(&e->wq, 0);
	return 0;
}

/* Namespaces without sleeping; with interrupts disabled there are none. */
SEC("?fentry/__x64_sys_getpgid")
int sockiter_nets(void *ctx)
{
	struct bpf_iter_net it;
	unsigned long flags;
	struct net *net;

	if (!ours())
		return 0;
	bpf_for_each(net, net)
		req.nets++;

	bpf_local_irq_save(&flags);
	req.err = bpf_iter_net_new(&it);
	while ((net = bpf_iter_net_next(&it)))
		req.seen++;
	bpf_iter_net_destroy(&it);
	bpf_local_irq_restore(&flags);
	runs++;
	return 0;
}

SEC("iter/tcp")
int sockiter_iter_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;

	if (skc)
		visit(&req, skc);
	return 0;
}

SEC("iter/udp")
int sockiter_iter_udp(struct bpf_iter__udp *ctx)
{
	struct udp_sock *udp = ctx->udp_sk;

	if (udp)
		visit(&req, (struct sock_common *)udp);
	return 0;
}
