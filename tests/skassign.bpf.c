// SPDX-License-Identifier: GPL-2.0-only
/*
 * A transparent proxy as small as can be: packets to one port are assigned to the socket
 * of the proxy and marked, at any of the hooks of tc and netkit.
 */
#include "common.bpf.h"
#include <bpf/bpf_core_read.h>
#include "skassign.h"

char LICENSE[] SEC("license") = "GPL";

#define LOOPBACK	bpf_htonl(0x7f000001)

/* an enumerator without a type that BTF would keep */
#define BPF_F_CURRENT_NETNS	(-1)

struct skassign_job jobs[__AT_MAX];
struct skassign_report reports[__AT_MAX];

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

/* For tests/skassign: the references of all sockets with a port, in one namespace. */
__u16 refs_port;
__u32 refs, refs_sockets;

/* What a reuseport group's program does: the member that it chooses, or one of the others. */
struct {
	__uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} group SEC(".maps");

__s32 chosen;
__u32 choices;

struct flow {
	struct bpf_sock_tuple own;	/* as the packet says */
	struct bpf_sock_tuple tuple;	/* where the proxy listens */
	__u32 len;
	__u8 proto;
};

/* Whether the packet is one for the proxy; extension headers are not looked behind. */
static __always_inline bool wanted(struct __sk_buff *skb, struct skassign_job *job, struct flow *f)
{
	struct ipv6hdr ip6;
	struct iphdr ip;
	__be16 ports[2];
	__u32 off;

	if (!job->port)
		return false;
	__builtin_memset(f, 0, sizeof(*f));
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) ||
		    ip.frag_off & bpf_htons(IP_OFFSET))
			return false;
		off = ETH_HLEN + ip.ihl * 4;
		f->proto = ip.protocol;
		f->own.ipv4.saddr = ip.saddr;
		f->own.ipv4.daddr = ip.daddr;
		f->tuple.ipv4.daddr = LOOPBACK;
		f->tuple.ipv4.saddr = ip.saddr;
		f->len = sizeof(f->tuple.ipv4);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip6, sizeof(ip6)))
			return false;
		off = ETH_HLEN + sizeof(ip6);
		f->proto = ip6.nexthdr;
		__builtin_memcpy(f->own.ipv6.saddr, &ip6.saddr, 32);
		f->tuple.ipv6.daddr[3] = bpf_htonl(1);
		f->len = sizeof(f->tuple.ipv6);
	} else {
		return false;
	}
	if ((f->proto != IPPROTO_TCP && f->proto != IPPROTO_UDP) ||
	    bpf_skb_load_bytes(skb, off, ports, sizeof(ports)) || ports[1] != bpf_htons(job->port))
		return false;
	if (f->len == sizeof(f->tuple.ipv4)) {
		f->own.ipv4.sport = ports[0];
		f->own.ipv4.dport = ports[1];
		f->tuple.ipv4.sport = ports[0];
		f->tuple.ipv4.dport = bpf_htons(job->proxy);
	} else {
		f->own.ipv6.sport = ports[0];
		f->own.ipv6.dport = ports[1];
		f->tuple.ipv6.sport = ports[0];
		f->tuple.ipv6.dport = bpf_htons(job->proxy);
	}
	return true;
}

static __always_inline __s32 refcount(void *sk)
{
	struct sock_common *skc = bpf_core_cast(sk, struct sock_common);

	return skc->skc_refcnt.refs.counter;
}

static __always_inline void assign(struct __sk_buff *skb, struct skassign_job *job,
				   struct skassign_report *report, void *sk, bool reqsk)
{
	struct bpf_tcp_req_attrs attrs = { .mss = 1460 };
	__s32 before = refcount(sk);
	struct tcp_sock *listener;

	if (!reqsk) {
		report->err = bpf_sk_assign(skb, sk, job->flags);
	} else {
		listener = bpf_skc_to_tcp_sock(sk);
		report->err = listener ? bpf_sk_assign_tcp_reqsk(skb, (struct sock *)listener,
								 &attrs, sizeof(attrs)) : -1;
	}
	report->refs = refcount(sk) - before;
	if (!report->err)
		__sync_fetch_and_add(&report->assigned, 1);
}

/* A connection of the proxy, or who listens; datagrams have the latter only. */
static __always_inline struct bpf_sock *find(struct __sk_buff *skb, struct flow *f)
{
	struct bpf_sock *sk;

	if (f->proto == IPPROTO_UDP)
		return bpf_sk_lookup_udp(skb, &f->tuple, f->len, BPF_F_CURRENT_NETNS, 0);
	sk = bpf_skc_lookup_tcp(skb, &f->own, f->len, BPF_F_CURRENT_NETNS, 0);
	if (sk && sk->state != BPF_TCP_LISTEN)
		return sk;
	if (sk)
		bpf_sk_release(sk);
	return bpf_skc_lookup_tcp(skb, &f->tuple, f->len, BPF_F_CURRENT_NETNS, 0);
}

/* other: the verdict on what is not for the proxy */
static __always_inline int handle(struct __sk_buff *skb, int at, bool may_reqsk, int other)
{
	struct skassign_report *report = &reports[at];
	struct skassign_job *job = &jobs[at];
	struct bpf_sock *sk;
	__u32 zero = 0;
	struct flow f;

	if (!wanted(skb, job, &f))
		return other;
	__sync_fetch_and_add(&report->seen, 1);
	if (job->how == SKASSIGN_MAP) {
		sk = bpf_map_lookup_elem(&sockets, &zero);
		if (sk) {
			assign(skb, job, report, sk, false);
			bpf_sk_release(sk);
		}
	} else if (job->how != SKASSIGN_NONE) {
		sk = find(skb, &f);
		if (sk) {
			if (may_reqsk && job->how == SKASSIGN_REQSK)
				assign(skb, job, report, sk, true);
			else
				assign(skb, job, report, sk, false);
			bpf_sk_release(sk);
		}
	}
	if (job->mark)
		skb->mark = job->mark;
	if (*(__u32 *)job->mac && bpf_skb_store_bytes(skb, 0, job->mac, sizeof(job->mac), 0))
		return ACT_DROP;
	switch (job->then) {
	case SKASSIGN_REDIRECT:
		return bpf_redirect(job->ifindex ?: skb->ifindex, job->redirect_flags);
	case SKASSIGN_PEER:
		return bpf_redirect_peer(job->ifindex, job->redirect_flags);
	case SKASSIGN_NEIGH:
		return bpf_redirect_neigh(job->ifindex, NULL, 0, 0);
	default:
		return job->verdict;
	}
}

SEC("tcx/ingress")
int at_ingress(struct __sk_buff *skb)
{
	return handle(skb, AT_INGRESS, true, ACT_NEXT);
}

SEC("tcx/egress")
int at_egress(struct __sk_buff *skb)
{
	return handle(skb, AT_EGRESS, false, ACT_NEXT);
}

SEC("netkit/peer")
int at_netkit(struct __sk_buff *skb)
{
	return handle(skb, AT_NETKIT, false, ACT_NEXT);
}

/* For the legacy hooks, which are told apart by where they are attached. */
SEC("tc")
int as_filter(struct __sk_buff *skb)
{
	return handle(skb, AT_INGRESS, true, ACT_NEXT);
}

/* The same without direct action: 0 is no match. */
SEC("tc")
int as_match(struct __sk_buff *skb)
{
	return handle(skb, AT_INGRESS, false, 0);
}

SEC("tc")
int in_qdisc(struct __sk_buff *skb)
{
	handle(skb, AT_EGRESS, false, ACT_NEXT);
	return 0;
}

SEC("action")
int as_action(struct __sk_buff *skb)
{
	return handle(skb, AT_INGRESS, false, ACT_NEXT);
}

SEC("tc")
int test_run(struct __sk_buff *skb)
{
	return handle(skb, AT_TEST_RUN, false, ACT_NEXT);
}

SEC("sk_reuseport")
int choose(struct sk_reuseport_md *ctx)
{
	__u32 key = chosen;

	__sync_fetch_and_add(&choices, 1);
	if (chosen == SKASSIGN_DROP)
		return SK_DROP;
	if (chosen == SKASSIGN_ANY)
		return SK_PASS;
	return bpf_sk_select_reuseport(ctx, &group, &key, 0) ? SK_DROP : SK_PASS;
}

SEC("xdp")
int turn_back(struct xdp_md *ctx)
{
	return XDP_TX;
}

static __always_inline void count(struct sock_common *skc)
{
	if (!skc || skc->skc_num != refs_port || skc->skc_state == BPF_TCP_ESTABLISHED)
		return;
	refs += skc->skc_refcnt.refs.counter;
	refs_sockets++;
}

SEC("iter/tcp")
int count_tcp(struct bpf_iter__tcp *ctx)
{
	count(ctx->sk_common);
	return 0;
}

SEC("iter/udp")
int count_udp(struct bpf_iter__udp *ctx)
{
	count((struct sock_common *)ctx->udp_sk);
	return 0;
}
