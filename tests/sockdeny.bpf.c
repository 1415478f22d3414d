// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the verifier must refuse of the iterators and bpf_sock_destroy(), and
 * beside it what is nearly the same and right. sockdeny.c says which is which.
 */
#include "common.bpf.h"
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct { struct bpf_spin_lock lock; });
} locks SEC(".maps");

__u64 sink;

SEC("?syscall")
int after_next(void *ctx)
{
	struct sock_common *skc, *prev = NULL;

	bpf_for_each(tcp, skc, NULL) {
		if (prev)
			bpf_sock_destroy(prev);
		prev = skc;
	}
	return 0;
}

SEC("?syscall")
int after_next_read(void *ctx)
{
	struct bpf_iter_tcp it;
	struct sock_common *skc;

	bpf_iter_tcp_new(&it, NULL);
	skc = bpf_iter_tcp_next(&it);
	if (skc && bpf_iter_tcp_next(&it))
		sink = skc->skc_family;
	bpf_iter_tcp_destroy(&it);
	return 0;
}

SEC("?syscall")
int after_loop(void *ctx)
{
	struct sock_common *skc, *last = NULL;

	bpf_for_each(tcp, skc, NULL) {
		last = skc;
		break;
	}
	if (last)
		bpf_sock_destroy(last);
	return 0;
}

/* The pointer of a cast, and one into the element, are no better. */
SEC("?syscall")
int after_next_cast(void *ctx)
{
	struct bpf_iter_tcp it;
	struct sock_common *skc;
	struct tcp_sock *tp;

	bpf_iter_tcp_new(&it, NULL);
	skc = bpf_iter_tcp_next(&it);
	if (skc) {
		tp = bpf_skc_to_tcp_sock(skc);
		if (tp && bpf_iter_tcp_next(&it))
			sink = bpf_get_socket_cookie(tp);
	}
	bpf_iter_tcp_destroy(&it);
	return 0;
}

SEC("?syscall")
int net_after_next(void *ctx)
{
	struct net *net, *prev = NULL;
	struct sock_common *skc;

	bpf_for_each(net, net) {
		if (prev)
			bpf_for_each(tcp, skc, prev)
				sink++;
		prev = net;
	}
	return 0;
}

static __noinline int step(struct bpf_iter_tcp *it)
{
	return !!bpf_iter_tcp_next(it);
}

/* The call that ends the element is in another frame. */
SEC("?syscall")
int after_next_subprog(void *ctx)
{
	struct bpf_iter_tcp it;
	struct sock_common *skc;

	bpf_iter_tcp_new(&it, NULL);
	skc = bpf_iter_tcp_next(&it);
	if (skc && step(&it))
		bpf_sock_destroy(skc);
	bpf_iter_tcp_destroy(&it);
	return 0;
}

SEC("?syscall")
int after_next_match(void *ctx)
{
	struct bpf_sk_match m = {.proto = IPPROTO_UDP};
	struct sock_common *skc, *prev = NULL;

	bpf_for_each(sk_match, skc, NULL, &m, sizeof(m)) {
		if (prev)
			bpf_sock_destroy(prev);
		prev = skc;
	}
	return 0;
}

/* More than there is on the stack. */
SEC("?syscall")
int match_beyond(void *ctx)
{
	struct bpf_sk_match m = {.proto = IPPROTO_UDP};
	struct sock_common *skc;

	bpf_for_each(sk_match, skc, NULL, &m, sizeof(m) + 16)
		sink++;
	return 0;
}

SEC("?syscall")
int in_rcu(void *ctx)
{
	struct sock_common *skc;

	bpf_for_each(tcp, skc, NULL) {
		bpf_rcu_read_lock();
		bpf_sock_destroy(skc);
		bpf_rcu_read_unlock();
	}
	return 0;
}

SEC("?syscall")
int in_preempt(void *ctx)
{
	struct sock_common *skc;

	bpf_for_each(tcp, skc, NULL) {
		bpf_preempt_disable();
		bpf_sock_destroy(skc);
		bpf_preempt_enable();
	}
	return 0;
}

SEC("?syscall")
int in_irq(void *ctx)
{
	struct sock_common *skc;
	unsigned long flags;

	bpf_for_each(tcp, skc, NULL) {
		bpf_local_irq_save(&flags);
		bpf_sock_destroy(skc);
		bpf_local_irq_restore(&flags);
	}
	return 0;
}

SEC("?syscall")
int in_spin_lock(void *ctx)
{
	struct sock_common *skc;
	__u32 zero = 0;
	struct { struct bpf_spin_lock lock; } *v;

	v = bpf_map_lookup_elem(&locks, &zero);
	if (!v)
		return 0;
	bpf_for_each(tcp, skc, NULL) {
		bpf_spin_lock(&v->lock);
		bpf_sock_destroy(skc);
		bpf_spin_unlock(&v->lock);
	}
	return 0;
}

SEC("?syscall")
int next_in_rcu(void *ctx)
{
	struct bpf_iter_tcp it;

	bpf_iter_tcp_new(&it, NULL);
	bpf_rcu_read_lock();
	bpf_iter_tcp_next(&it);
	bpf_rcu_read_unlock();
	bpf_iter_tcp_destroy(&it);
	return 0;
}

SEC("?fentry/__x64_sys_getpgid")
int not_sleepable(void *ctx)
{
	struct sock_common *skc;

	bpf_for_each(tcp, skc, NULL)
		sink++;
	return 0;
}

SEC("?fentry/tcp_abort")
int destroy_not_sleepable(__u64 *ctx)
{
	bpf_sock_destroy((struct sock_common *)ctx[0]);
	return 0;
}

SEC("?tp_btf/inet_sock_set_state")
int BPF_PROG(destroy_traced, const struct sock *sk)
{
	bpf_sock_destroy((struct sock_common *)sk);
	return 0;
}

SEC("?iter.s/task")
int iter_task(struct bpf_iter__task *ctx)
{
	struct sock_common *skc;

	bpf_for_each(tcp, skc, NULL)
		sink++;
	return 0;
}

SEC("?iter.s/tcp")
int iter_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc;

	bpf_for_each(udp, skc, NULL)
		sink++;
	return 0;
}

SEC("?raw_tp/sys_enter")
int raw_tp(void *ctx)
{
	struct net *net;

	bpf_for_each(net, net)
		sink++;
	return 0;
}

SEC("?fentry.s/__x64_sys_getpgid")
int untrusted_net(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct sock_common *skc;

	bpf_for_each(tcp, skc, task->nsproxy->net_ns)
		sink++;
	return 0;
}

SEC("?syscall")
int not_destroyed(void *ctx)
{
	struct bpf_iter_tcp it;

	bpf_iter_tcp_new(&it, NULL);
	return 0;
}

SEC("?syscall")
int other_iterator(void *ctx)
{
	struct bpf_iter_tcp it;

	bpf_iter_tcp_new(&it, NULL);
	bpf_iter_udp_next((struct bpf_iter_udp *)&it);
	bpf_iter_tcp_destroy(&it);
	return 0;
}

/* --- right ones */

/* What was read of the element before may be kept, and two iterators do not
 * disturb each other.
 */
SEC("?syscall")
int good_two(void *ctx)
{
	struct sock_common *a, *b;
	__u64 ports = 0;

	bpf_for_each(tcp, a, NULL) {
		bpf_for_each(udp, b, NULL)
			ports += a->skc_num + b->skc_num;
		bpf_sock_destroy(a);
		ports += a->skc_num;
	}
	sink = ports;
	return 0;
}

SEC("?syscall")
int good_nets(void *ctx)
{
	struct net *net;

	bpf_for_each(net, net)
		sink += net->net_cookie;
	return 0;
}

SEC("?syscall")
int good_nothing(void *ctx)
{
	sink++;
	return 0;
}

SEC("?syscall")
int good_cast(void *ctx)
{
	struct sock_common *skc;
	struct tcp_sock *tp;

	bpf_for_each(tcp, skc, NULL) {
		tp = bpf_skc_to_tcp_sock(skc);
		if (tp)
			sink += tp->bytes_acked + bpf_get_socket_cookie(tp);
	}
	return 0;
}

SEC("?fentry.s/__x64_sys_getpgid")
int good_fentry(void *ctx)
{
	struct sock_common *skc;
	struct net *net;

	bpf_for_each(net, net)
		bpf_for_each(udp, skc, net)
			bpf_sock_destroy(skc);
	return 0;
}

SEC("?iter/task")
int good_iter_nets(struct bpf_iter__task *ctx)
{
	struct net *net;

	bpf_for_each(net, net)
		sink++;
	return 0;
}

SEC("?iter/tcp")
int good_iter_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;

	if (skc)
		bpf_sock_destroy(skc);
	return 0;
}
