// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loops over TCP sockets that only look at ports: the cheapest test there is, the same in
 * one pass over all namespaces (destroy_pass) and in a program of iter/tcp (destroy_iter).
 * destroy_nested makes a pass over the sockets of each namespace; destroy_match leaves the
 * test to the kernel, and repeats it, to count.
 * destroy_count counts the system calls of a process and its children, destroy_idle what the
 * CPU, of which there is one, is idle.
 */
#include "common.bpf.h"
#include <bpf/bpf_tracing.h>
#include "../sockiter.bpf.h"

char LICENSE[] SEC("license") = "GPL";

#define NR_SETNS 308

const volatile pid_t pid;

struct sockiter_req req;	/* of destroy_iter */
__u64 calls, setns_calls;
__u64 idle, idle_since;		/* ns */

static __always_inline void glance(struct sockiter_req *r, struct sock_common *skc)
{
	r->seen++;
	if (!match(r, skc))
		return;
	r->matched++;
	if (r->kill)
		account(r, bpf_sock_destroy(skc));
}

static __always_inline void pass(struct sockiter_req *r, struct net *net)
{
	struct sock_common *skc;
	struct bpf_iter_tcp it;

	bpf_iter_tcp_new(&it, net);
	while ((skc = bpf_iter_tcp_next(&it)))
		glance(r, skc);
	r->err = bpf_iter_tcp_err(&it) ?: r->err;
	bpf_iter_tcp_destroy(&it);
}

SEC("syscall")
int destroy_pass(struct sockiter_req *ctx)
{
	pass(ctx, NULL);
	return 0;
}

SEC("syscall")
int destroy_nested(struct sockiter_req *ctx)
{
	struct net *net;

	bpf_for_each(net, net)
		pass(ctx, net);
	return 0;
}

SEC("syscall")
int destroy_match(struct sockiter_req *ctx)
{
	struct sockiter_match m = ctx->match;
	struct bpf_iter_sk_match it;
	struct sock_common *skc;

	bpf_iter_sk_match_new(&it, NULL, (void *)&m, sizeof(m));
	while ((skc = bpf_iter_sk_match_next(&it)))
		glance(ctx, skc);
	ctx->err = bpf_iter_sk_match_err(&it) ?: ctx->err;
	bpf_iter_sk_match_destroy(&it);
	return 0;
}

SEC("iter/tcp")
int destroy_iter(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;

	if (skc)
		glance(&req, skc);
	return 0;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(destroy_count, struct pt_regs *regs, long nr)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (task->tgid == pid || task->real_parent->tgid == pid) {
		calls++;
		setns_calls += nr == NR_SETNS;
	}
	return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(destroy_idle, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	if (!prev->pid)
		idle += bpf_ktime_get_ns() - idle_since;
	else if (!next->pid)
		idle_since = bpf_ktime_get_ns();
	return 0;
}
