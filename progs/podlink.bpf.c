// SPDX-License-Identifier: GPL-2.0-only
/*
 * podlink: the datapath between the pods of a host, and between them and the world.
 *
 * A pod's link is a pair of devices, netkit or veth: one end in the pod, the other,
 * called the primary one, in the host's network namespace. Three programs move what
 * passes it without a second pass through the host's stack:
 *
 *   podlink_peer	sees what the pod sends: at netkit/peer, or at tcx/ingress of the
 *			host's veth. A local pod is redirected to; what the host's routes
 *			send out of the uplink goes there; the rest is for the stack.
 *   podlink_primary	sees what the host sends to the pod: at netkit/primary, or at
 *			tcx/egress of the host's veth. It only counts.
 *   podlink_uplink	at tcx/ingress of the uplink: what is for a local pod is put into
 *			the pod's end at once, without a backlog (bpf_redirect_peer()).
 *
 * bpf_redirect_peer() is not for podlink_peer: netkit runs its programs while it
 * transmits, where the flag is ignored or the packet lost.
 *
 * The stack keeps what only it can do: the host's own addresses, multicast, packets
 * whose hop limit ends here or that do not fit (it answers them with ICMP errors), what
 * has no route, and what the pod sends with an address that is not its own: the host's
 * rp_filter and firewall are not for it to get around. A packet that moves on loses one
 * from its TTL or hop limit, as with any router.
 *
 * What is left to the stack is left to the programs behind this one first. What is
 * redirected they do not see, nor does netkit/primary see what comes in by the uplink:
 * a policy belongs in front of podlink_peer (netpol attach --first), and for the world
 * at the uplink. Where all programs say "next", netkit passes the packet.
 *
 * One table knows the pods, by address; both families share it, and the code. Reads
 * need no lock, since an entry is replaced as a whole. A pod that is not in the table
 * is no pod: nothing is redirected to it, and the stack decides.
 *
 * In L2 mode the pod resolves its gateway, and the other pods if it takes them for
 * neighbours: both are answered here with the MAC of the link's host end, so that no
 * address need be set on the host. In L3 mode netkit resolves nothing, and `l2`, which
 * is constant, lets the verifier remove that code.
 *
 * Each link has programs and counters of its own: what is constant of it lies in
 * rodata.
 */
#include "common.bpf.h"
#include "podlink.h"

#define AF_INET	      2
#define AF_INET6      10

#define PACKET_HOST   0
#define IPV6_MIN_MTU  1280

#define ARPHRD_ETHER  1
#define ARPOP_REQUEST 1
#define ARPOP_REPLY   2

#define ND_SOLICIT    135
#define ND_ADVERT     136
#define ND_SOURCE_LL  1
#define ND_TARGET_LL  2
/* router, solicited, override */
#define ND_FLAGS 0xe0000000

char LICENSE[] SEC("license") = "GPL";

const volatile bool l2;			/* the pod resolves addresses: answer it */
const volatile __u8 host_mac[6];	/* of the host's end; L2 only */
const volatile struct pl_addr gateway4; /* zero: there is none */
const volatile struct pl_addr gateway6;
const volatile struct pl_addr own4; /* the pod's first address of the family, or zero */
const volatile struct pl_addr own6;
const volatile __u32 uplink; /* its index; 0: only local pods are forwarded to */

/* 65536 addresses; the tool says so when the table is full. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct pl_addr);
	__type(value, struct pl_pod);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} pl_pods SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct pl_count);
	__uint(max_entries, PL_STATS_MAX);
} pl_stats SEC(".maps");

/* The uplink's program serves many links. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct pl_count);
	__uint(max_entries, 1);
} pl_uplink SEC(".maps");

static __always_inline int count_in(void *map, struct __sk_buff *skb, __u32 stat, int verdict)
{
	struct pl_count *c = bpf_map_lookup_elem(map, &stat);

	if (c) {
		c->packets++;
		c->bytes += skb->len;
	}
	return verdict;
}

static __always_inline int count(struct __sk_buff *skb, __u32 stat, int verdict)
{
	return count_in(&pl_stats, skb, stat, verdict);
}

/* Loads that clang shall not merge: the context is reached by constant offsets only. */
static __always_inline void *start(struct __sk_buff *skb)
{
	void *p;

	asm volatile("%0 = *(u32 *)(%1 + %2)"
		     : "=r"(p)
		     : "r"(skb), "i"(offsetof(struct __sk_buff, data)));
	return p;
}

static __always_inline void *end(struct __sk_buff *skb)
{
	void *p;

	asm volatile("%0 = *(u32 *)(%1 + %2)"
		     : "=r"(p)
		     : "r"(skb), "i"(offsetof(struct __sk_buff, data_end)));
	return p;
}

/* The first n bytes, in memory that can be read and written. */
static __always_inline void *head(struct __sk_buff *skb, __u32 n)
{
	void *data = start(skb);

	if (data + n <= end(skb))
		return data;
	if (bpf_skb_pull_data(skb, n))
		return NULL;
	data = start(skb);
	return data + n <= end(skb) ? data : NULL;
}

static __always_inline void v4_key(struct pl_addr *key, __be32 addr)
{
	key->d[0] = 0;
	key->w[2] = bpf_htonl(0xffff);
	key->w[3] = addr;
}

/* Not for a constant that is zero, and so not set. */
static __always_inline bool is(const struct pl_addr *a, const volatile struct pl_addr *constant)
{
	return a->d[1] && a->d[0] == constant->d[0] && a->d[1] == constant->d[1];
}

/* Whether the pod shall get the MAC of its host's end for this address. */
static __always_inline bool answered(struct pl_addr *a, const volatile struct pl_addr *gateway,
				     __u32 ifindex)
{
	const struct pl_pod *pod;

	if (is(a, gateway))
		return true;
	/* not for its own: that is how it finds out that an address is taken */
	pod = bpf_map_lookup_elem(&pl_pods, a);
	return pod && pod->ifindex != ifindex;
}

static __always_inline void copy_host_mac(__u8 *to)
{
	for (int i = 0; i < 6; i++)
		to[i] = host_mac[i];
}

struct arp {
	struct ethhdr eth;
	struct arphdr hdr;
	__u8 hw_sender[6];
	__u8 sender[4];
	__u8 hw_target[6];
	__u8 target[4];
} __attribute__((packed));

static __always_inline int arp(struct __sk_buff *skb)
{
	struct arp *p = head(skb, sizeof(*p));
	struct pl_addr target;
	__u32 sender, wanted;

	if (!p || p->hdr.ar_op != bpf_htons(ARPOP_REQUEST) ||
	    p->hdr.ar_hrd != bpf_htons(ARPHRD_ETHER) || p->hdr.ar_pro != bpf_htons(ETH_P_IP) ||
	    p->hdr.ar_hln != 6 || p->hdr.ar_pln != 4)
		return count(skb, PL_TO_STACK, ACT_NEXT);
	__builtin_memcpy(&wanted, p->target, 4);
	v4_key(&target, wanted);
	if (!answered(&target, &gateway4, skb->ifindex))
		return count(skb, PL_TO_STACK, ACT_NEXT);
	__builtin_memcpy(&sender, p->sender, 4);
	__builtin_memcpy(p->eth.h_dest, p->eth.h_source, 6);
	copy_host_mac(p->eth.h_source);
	p->hdr.ar_op = bpf_htons(ARPOP_REPLY);
	__builtin_memcpy(p->hw_target, p->hw_sender, 6);
	__builtin_memcpy(p->target, &sender, 4);
	copy_host_mac(p->hw_sender);
	__builtin_memcpy(p->sender, &wanted, 4);
	return count(skb, PL_ANSWERED, bpf_redirect(skb->ifindex, 0));
}

struct solicit {
	struct ethhdr eth;
	struct ipv6hdr ip;
	struct icmp6hdr icmp;
	struct pl_addr target;
	struct {
		__u8 type;
		__u8 len; /* in units of 8 bytes */
		__u8 mac[6];
	} option;
} __attribute__((packed));

/* Without the option a solicitation is of a host that knows us, and only checks. */
#define SOLICIT_MIN offsetof(struct solicit, option)
#define ICMP_LEN    (sizeof(struct solicit) - offsetof(struct solicit, icmp))

static __always_inline int solicit(struct __sk_buff *skb)
{
	struct solicit *p = head(skb, SOLICIT_MIN);
	bool option = false;
	struct pl_addr a;
	__s64 sum;

	/* A hop limit below 255 means that it came from beyond the link; a source of
	 * zero, that the pod looks whether its own new address is taken.
	 */
	if (!p || p->ip.nexthdr != IPPROTO_ICMPV6 || p->icmp.icmp6_type != ND_SOLICIT ||
	    p->icmp.icmp6_code || p->ip.hop_limit != 255 || !p->ip.saddr.in6_u.u6_addr32[3])
		return ACT_NEXT;
	__builtin_memcpy(&a, &p->target, sizeof(a));
	if (!answered(&a, &gateway6, skb->ifindex))
		return ACT_NEXT;
	p = head(skb, sizeof(*p));
	if (p && p->option.type == ND_SOURCE_LL && p->option.len == 1)
		option = true;
	else
		p = head(skb, SOLICIT_MIN);
	if (!p)
		return ACT_NEXT;
	if (p->ip.payload_len != bpf_htons(ICMP_LEN - (option ? 0 : sizeof(p->option))))
		return ACT_NEXT;
	__builtin_memcpy(p->eth.h_dest, p->eth.h_source, 6);
	copy_host_mac(p->eth.h_source);
	p->ip.daddr = p->ip.saddr;
	__builtin_memcpy(&p->ip.saddr, &a, sizeof(a));
	p->icmp.icmp6_type = ND_ADVERT;
	p->icmp.icmp6_dataun.un_data32[0] = bpf_htonl(ND_FLAGS);
	p->icmp.icmp6_cksum = 0;
	sum = bpf_htonl(ICMP_LEN - (option ? 0 : sizeof(p->option))) + bpf_htonl(IPPROTO_ICMPV6);
	if (option) {
		struct solicit *q = head(skb, sizeof(*q));

		if (!q)
			return ACT_DROP;
		q->option.type = ND_TARGET_LL;
		copy_host_mac(q->option.mac);
		sum = bpf_csum_diff(NULL, 0, (void *)&q->ip.saddr, 32, sum);
		sum = bpf_csum_diff(NULL, 0, (void *)&q->icmp, ICMP_LEN, sum);
		p = q;
	} else {
		sum = bpf_csum_diff(NULL, 0, (void *)&p->ip.saddr, 32, sum);
		sum = bpf_csum_diff(NULL, 0, (void *)&p->icmp, ICMP_LEN - sizeof(p->option), sum);
	}
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff);
	sum = (sum & 0xffff) + (sum >> 16);
	p->icmp.icmp6_cksum = ~sum;
	return count(skb, PL_ANSWERED, bpf_redirect(skb->ifindex, 0));
}

/* Whether it fits the device. A packet that fits any device is not looked up. */
static __always_inline bool fits(struct __sk_buff *skb, __u32 ifindex)
{
	__u32 mtu = 0;

	return skb->len <= ETH_HLEN + IPV6_MIN_MTU || !bpf_check_mtu(skb, ifindex, &mtu, 0, 0);
}

/* What both families have, from head() on. */
struct packet {
	__u32 family; /* AF_INET, AF_INET6, or 0: neither, or cut short */
	__u8 ttl;
	struct pl_addr src, dst;
};

static __always_inline void *look(struct __sk_buff *skb, struct packet *p)
{
	struct ethhdr *eth;

	p->family = 0;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip;

		eth = head(skb, sizeof(*eth) + sizeof(*ip));
		if (!eth)
			return NULL;
		ip = (void *)(eth + 1);
		p->family = AF_INET;
		p->ttl = ip->ttl;
		v4_key(&p->src, ip->saddr);
		v4_key(&p->dst, ip->daddr);
		return eth;
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip;

		eth = head(skb, sizeof(*eth) + sizeof(*ip));
		if (!eth)
			return NULL;
		ip = (void *)(eth + 1);
		p->family = AF_INET6;
		p->ttl = ip->hop_limit;
		__builtin_memcpy(&p->src, &ip->saddr, sizeof(p->src));
		__builtin_memcpy(&p->dst, &ip->daddr, sizeof(p->dst));
		return eth;
	}
	return NULL;
}

/* One hop. False: not forwarded, and nothing changed. */
static __always_inline bool hop(struct __sk_buff *skb, const struct packet *p, const __u8 *dst,
				const __u8 *src)
{
	struct ethhdr *eth;

	if (p->family == AF_INET) {
		struct iphdr *ip;
		__u32 check;

		eth = head(skb, sizeof(*eth) + sizeof(*ip));
		if (!eth)
			return false;
		ip = (void *)(eth + 1);
		check = ip->check + bpf_htons(0x0100);
		ip->check = check + (check >= 0xffff);
		ip->ttl--;
	} else {
		struct ipv6hdr *ip;

		eth = head(skb, sizeof(*eth) + sizeof(*ip));
		if (!eth)
			return false;
		ip = (void *)(eth + 1);
		ip->hop_limit--;
		/* no header checksum makes up for it in a sum over the whole packet */
		bpf_csum_update(skb, ~(__u32)bpf_htons(1));
	}
	__builtin_memcpy(eth->h_dest, dst, 6);
	__builtin_memcpy(eth->h_source, src, 6);
	return true;
}

/* Most pods have one address of a family, which saves the table's 130 instructions. */
static __always_inline bool is_own(struct __sk_buff *skb, const struct packet *p)
{
	const struct pl_pod *pod;

	if (p->family == AF_INET ? is(&p->src, &own4) : is(&p->src, &own6))
		return true;
	pod = bpf_map_lookup_elem(&pl_pods, &p->src);
	return pod && pod->ifindex == skb->ifindex;
}

/* Out of the uplink, by the host's own routes. */
static __always_inline int to_uplink(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_fib_lookup fib = {.ifindex = skb->ifindex};
	static const __u8 none[6];
	struct ethhdr *eth;
	long rc;

	if (!uplink)
		return count(skb, PL_TO_STACK, ACT_NEXT);
	fib.family = p->family;
	if (p->family == AF_INET) {
		struct iphdr *ip;

		eth = head(skb, sizeof(*eth) + sizeof(*ip));
		if (!eth)
			return count(skb, PL_TO_STACK, ACT_NEXT);
		ip = (void *)(eth + 1);
		fib.l4_protocol = ip->protocol;
		fib.tos = ip->tos;
		fib.ipv4_src = ip->saddr;
		fib.ipv4_dst = ip->daddr;
	} else {
		struct ipv6hdr *ip;

		eth = head(skb, sizeof(*eth) + sizeof(*ip));
		if (!eth)
			return count(skb, PL_TO_STACK, ACT_NEXT);
		ip = (void *)(eth + 1);
		fib.l4_protocol = ip->nexthdr;
		fib.flowinfo = *(__be32 *)ip & bpf_htonl(0x0fffffff);
		__builtin_memcpy(fib.ipv6_src, &ip->saddr, 16);
		__builtin_memcpy(fib.ipv6_dst, &ip->daddr, 16);
	}
	rc = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	switch (rc) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		if (fib.ifindex != uplink || !hop(skb, p, fib.dmac, fib.smac))
			break;
		return count(skb, PL_TO_UPLINK, bpf_redirect(uplink, 0));
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		if (fib.ifindex != uplink || !hop(skb, p, none, none))
			break;
		return count(skb, PL_TO_UPLINK, bpf_redirect_neigh(uplink, NULL, 0, 0));
	case BPF_FIB_LKUP_RET_BLACKHOLE:
		return count(skb, PL_DENIED, ACT_DROP);
	}
	return count(skb, PL_TO_STACK, ACT_NEXT);
}

SEC("netkit/peer")
int podlink_peer(struct __sk_buff *skb)
{
	const struct pl_pod *pod;
	struct packet p;

	if (l2 && skb->protocol == bpf_htons(ETH_P_ARP))
		return arp(skb);
	if (!look(skb, &p))
		return count(skb, PL_TO_STACK, ACT_NEXT);
	if (l2 && p.family == AF_INET6) {
		int rc = solicit(skb);

		if (rc != ACT_NEXT)
			return rc;
	}
	if (p.ttl <= 1 || !is_own(skb, &p))
		return count(skb, PL_TO_STACK, ACT_NEXT);
	pod = bpf_map_lookup_elem(&pl_pods, &p.dst);
	if (!pod)
		return to_uplink(skb, &p);
	if (!fits(skb, pod->ifindex) || !hop(skb, &p, pod->mac, pod->host_mac))
		return count(skb, PL_TO_STACK, ACT_NEXT);
	return count(skb, PL_TO_POD, bpf_redirect(pod->ifindex, 0));
}

SEC("netkit/primary")
int podlink_primary(struct __sk_buff *skb)
{
	return count(skb, PL_FROM_STACK, ACT_NEXT);
}

SEC("tcx/ingress")
int podlink_uplink(struct __sk_buff *skb)
{
	const struct pl_pod *pod;
	struct packet p;

	/* what goes to another station is not ours to forward */
	if (skb->pkt_type != PACKET_HOST || !look(skb, &p) || p.ttl <= 1)
		return ACT_NEXT;
	pod = bpf_map_lookup_elem(&pl_pods, &p.dst);
	if (!pod || !fits(skb, pod->ifindex) || !hop(skb, &p, pod->mac, pod->host_mac))
		return ACT_NEXT;
	return count_in(&pl_uplink, skb, 0, bpf_redirect_peer(pod->ifindex, 0));
}
