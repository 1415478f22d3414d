// SPDX-License-Identifier: GPL-2.0-only
/*
 * The packets of a benchmark, and the programs that a contender is compared with.
 *
 * inject	the kernel as packet generator: with BPF_F_TEST_XDP_LIVE_FRAMES each
 *		run is a packet that enters the host by a device
 * spin		the same packets without a network: each run fills one in and
 *		tail-calls the contender, which decides and is done
 * shot, sink	what costs nothing: drop at ingress; count and drop at egress
 * range	only a search in sorted ranges: the reference
 */
#include "common.bpf.h"
#include "packets.h"

char LICENSE[] SEC("license") = "GPL";

const volatile __u32 flow_mask;		/* flows in use, less one */
const volatile bool fresh;		/* every packet begins a flow */
const volatile __u32 range_mask;	/* of an index into ranges */
const volatile __u32 range_step;	/* first step of the search */
const volatile bool deny;		/* verdict of what is in a range; the rest gets the other */

struct bench_flow flows[BENCH_FLOWS];
bool backwards;				/* the replies */
__u64 sent;
__u64 sunk;
__u32 unknown_zero;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct bench_range));
} ranges SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} contender SEC(".maps");

static __always_inline bool fill(void *data, void *end)
{
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);
	__u64 n = sent++;
	struct bench_flow *f = &flows[n & flow_mask & (BENCH_FLOWS - 1)];
	__u16 port = bpf_htons(BENCH_SPORT + (fresh ? n % BENCH_SPORTS : 0));

	if ((void *)(udp + 1) > end)
		return false;
	/* Pages come back as the stack has left them: for the next hop, with a hop less to live. */
	__builtin_memcpy(eth->h_dest, BENCH_MAC, sizeof(eth->h_dest));
	ip->ttl = 64;
	ip->check = f->check;
	ip->saddr = backwards ? f->daddr : f->saddr;
	ip->daddr = backwards ? f->saddr : f->daddr;
	udp->source = backwards ? f->dport : port;
	udp->dest = backwards ? port : f->dport;
	return true;
}

SEC("xdp")
int inject(struct xdp_md *xdp)
{
	return fill((void *)(long)xdp->data, (void *)(long)xdp->data_end) ? XDP_PASS : XDP_ABORTED;
}

SEC("tcx/ingress")
int spin(struct __sk_buff *skb)
{
	if (fill((void *)(long)skb->data, (void *)(long)skb->data_end))
		bpf_tail_call_static(skb, &contender, 0);
	return ACT_NEXT;
}

SEC("tcx/ingress")
int shot(struct __sk_buff *skb)
{
	return ACT_DROP;
}

SEC("tcx/egress")
int sink(struct __sk_buff *skb)
{
	sunk++;
	return ACT_DROP;
}

SEC("tcx/ingress")
int range(struct __sk_buff *skb)
{
	struct iphdr *ip = (void *)(long)skb->data + ETH_HLEN;
	struct udphdr *udp;
	struct bench_range *r;
	__u32 key = 0, at = unknown_zero, addr, ports, proto;
	void *end = (void *)(long)skb->data_end;

	if (skb->protocol != bpf_htons(ETH_P_IP) || (void *)(ip + 1) > end || ip->ihl < 5)
		return ACT_DROP;
	proto = ip->protocol;
	udp = (void *)ip + ip->ihl * 4;
	if ((proto != IPPROTO_UDP && proto != IPPROTO_TCP) ||
	    (void *)(udp + 1) > end)
		return ACT_DROP;
	addr = bpf_ntohl(ip->saddr);
	ports = udp->dest;
	r = bpf_map_lookup_elem(&ranges, &key);
	if (!r)
		return ACT_DROP;
	/* r[0] is below every address. */
	for (__u32 step = range_step; step; step >>= 1) {
		__u32 next = (at + step) & range_mask;

		if (r[next].start <= addr)
			at = next;
	}
	at &= range_mask;
	return (addr <= r[at].end && r[at].port == ports) == deny ? ACT_DROP : ACT_NEXT;
}
