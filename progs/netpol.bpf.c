// SPDX-License-Identifier: GPL-2.0-only
/*
 * netpol: an ordered L3/L4 policy on tcx, netkit and legacy tc.
 *
 * A packet goes through these steps; the first that knows the answer ends it:
 *
 *  1. parse. VLAN tags, IPv4 with options, IPv6 with up to NP_EXT_MAX extension
 *     headers, then the first bytes of TCP, UDP, ICMP and the like. What
 *     contradicts itself or is cut short is denied: the host might read it
 *     in another way than we do.
 *  2. fragments. The first fragment has the ports and is judged; what it was
 *     told is kept in np_frags for the later ones. One whose first was not seen
 *     is denied.
 *  3. flows. An allowed packet leaves an entry in np_flows, by which the whole
 *     conversation passes at the cost of one lookup. A packet that opens
 *     a connection (SYN) or asks (ICMP echo request, in the other direction) is
 *     judged anew. An entry carries the generation of the policy that decided
 *     it: after a load the first packet has the opening direction judged again.
 *     ICMP errors that quote a live flow pass with it.
 *  4. rules. The table of netpol.h: address -> class on both sides by binary
 *     search, then for each pair of ancestors the cell of (direction, protocol,
 *     port). The lowest rule index wins; else the default.
 *
 * The table is one map value behind a map of maps, so a packet sees one rule set
 * and a load of any size is one pointer store. Values have one size a map, hence
 * a map of maps for each size (tier), and a program for each: the verifier must know
 * the size, and looking at all of them would take it seconds on a slow machine. What
 * is attached is therefore only a gate: it tail-calls the body that was loaded
 * for the tier that np_state names. So the store of that word is the flip when a policy
 * outgrows its tier, for all hooks of the device at once.
 *
 * Not looked at: skb->mark, cb, tc_classid, priority. They stay as they are.
 *
 * All hooks of one device share the maps. NP_IN is into the host by the device:
 * tcx ingress, netkit peer (what the pod sends); NP_OUT the other way.
 */
#include "common.bpf.h"
#include "netpol.h"

char LICENSE[] SEC("license") = "GPL";

/* 14 with Ethernet framing (netkit has it in L3 mode too), 0 for tun and such. */
const volatile __u32 l2_len = ETH_HLEN;
/* Of a body: the size of table that it reads. */
const volatile __u32 tier;

#define TIER(t)									\
	struct {								\
		__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);			\
		__uint(max_entries, 1);						\
		__type(key, __u32);						\
		__array(values, struct {					\
			__uint(type, BPF_MAP_TYPE_ARRAY);			\
			__uint(max_entries, 1);					\
			__uint(key_size, sizeof(__u32));			\
			__uint(value_size, np_tier_bytes(t));			\
		});								\
	} tier##t SEC(".maps")

TIER(0);
TIER(1);
TIER(2);
TIER(3);
TIER(4);
TIER(5);
TIER(6);
TIER(7);
TIER(8);
TIER(9);
TIER(10);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct np_state);
} np_state SEC(".maps");

/* The tool's own note, not looked at here: what stands in the jump map of hook h for tier t. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NP_HOOKS * NP_TIERS);	/* h * NP_TIERS + t */
	__type(key, __u32);
	__type(value, __u64);			/* hash of object and constants, 0: not known */
} np_bodies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, NP_FLOWS);
	__type(key, struct np_flow_key);
	__type(value, struct np_flow);
} np_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, NP_FRAGS);
	__type(key, struct np_frag_key);
	__type(value, struct np_frag);
} np_frags SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, NP_SLOT_PAGES);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
		__uint(max_entries, NP_SLOT_PAGE);
		__uint(key_size, sizeof(__u32));
		__uint(value_size, sizeof(struct np_count));
	});
} np_counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, __NP_S_MAX);
	__type(key, __u32);
	__type(value, struct np_count);
} np_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, NP_EVENTS_BYTES);
} np_events SEC(".maps");

/* Key: counter slot. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, NP_BUCKETS);
	__type(key, __u32);
	__type(value, struct np_bucket);
} np_buckets SEC(".maps");

static const __u32 zero;
/*
 * Zero as well, but the verifier does not know. What starts from it has the
 * range that it has in a loop's later rounds, so one round is enough to look at.
 */
__u32 unknown_zero;

/* Timeouts of an idle flow in seconds. */
#define T_TCP_OPENING	120	/* no reply yet */
#define T_TCP		8000	/* longer than the two hours of a keepalive */
#define T_TCP_CLOSING	10	/* FIN from both sides, or RST */
#define T_UDP		180
#define T_ICMP		30
#define T_OTHER		600
#define T_FRAG		30	/* as the kernel keeps incomplete datagrams */

#define TCP_FIN		0x01
#define TCP_SYN		0x02
#define TCP_RST		0x04
#define TCP_ACK		0x10

enum frag { WHOLE, FIRST, LATER };
enum icmp { ICMP_NOT, ICMP_ASK, ICMP_ANSWER, ICMP_ERROR, ICMP_NEIGH, ICMP_OTHER };

struct packet {
	__be32 src[4];
	__be32 dst[4];
	__be16 sport;		/* ICMP echo: the identifier in both */
	__be16 dport;
	__u16 sel;		/* low half of the cell key: destination port or ICMP type, code */
	__u8 proto;
	__u8 family;		/* 4, 6, or 0: not IP */
	__u8 dir;
	__u8 frag;
	__u8 icmp;
	__u8 tcp;		/* flags */
	__be32 id;		/* of the fragmented datagram */
	__u32 l4;		/* offset */
	__u32 l4len;
	__u32 len;
	__u16 ethertype;	/* if not IP */
	__u8 hops;		/* hop limit, IPv6 */
	__u8 pad;
};

static __always_inline __u32 now_sec(void)
{
	return bpf_ktime_get_coarse_ns() / NSEC_PER_SEC;
}

/* Signed: another CPU may have seen the entry a second later than our `now`. */
static __always_inline bool idle(__u32 now, __u32 seen, __u32 limit)
{
	return (__s32)(now - seen) > (__s32)limit;
}

static __always_inline bool has_ports(__u8 proto)
{
	const __u64 low = 1ULL << IPPROTO_TCP | 1ULL << IPPROTO_UDP | 1ULL << IPPROTO_DCCP;
	const __u64 high = 1ULL << (IPPROTO_SCTP - 128) | 1ULL << (IPPROTO_UDPLITE - 128);
	__u64 set = proto < 64 ? low : proto >= 128 && proto < 192 ? high : 0;

	/* Sets, since the verifier would follow each of five comparisons. */
	return set >> (proto & 63) & 1;
}

/* --- parsing --- */

/* Copy from the packet: directly if the bytes are in the linear part, as they nearly always are. */
static __always_inline long copy(struct __sk_buff *skb, __u32 off, void *to, const __u32 len)
{
	void *from = (void *)(long)skb->data + (off & 0xfff);

	if (off <= 0xfff && from + len <= (void *)(long)skb->data_end) {
		__builtin_memcpy(to, from, len);
		return 0;
	}
	return bpf_skb_load_bytes(skb, off, to, len);
}

#define load(skb, off, to) copy(skb, off, to, sizeof(*(to)))

static __always_inline __u8 icmp4_kind(__u8 type)
{
	switch (type) {
	case 8: case 13: case 15: case 17:
		return ICMP_ASK;
	case 0: case 14: case 16: case 18:
		return ICMP_ANSWER;
	case 3: case 4: case 11: case 12:
		return ICMP_ERROR;
	default:
		return ICMP_OTHER;
	}
}

static __always_inline __u8 icmp6_kind(__u8 type)
{
	switch (type) {
	case 128:
		return ICMP_ASK;
	case 129:
		return ICMP_ANSWER;
	case 1: case 2: case 3: case 4:
		return ICMP_ERROR;
	case 133: case 134: case 135: case 136: case 137:
		return ICMP_NEIGH;
	default:
		return ICMP_OTHER;
	}
}

/* The first bytes of the transport header. False: cut short. */
static __always_inline bool parse_l4(struct __sk_buff *skb, struct packet *p)
{
	__u8 h[16] = {};

	if (p->proto == IPPROTO_TCP) {
		if (p->l4len < sizeof(struct tcphdr) || copy(skb, p->l4, h, 14))
			return false;
		p->tcp = h[13];
		if (h[12] < 0x50 || (p->frag == WHOLE && (h[12] >> 4) * 4u > p->l4len))
			return false;
	} else if (p->proto == IPPROTO_ICMP || p->proto == IPPROTO_ICMPV6) {
		if (p->l4len < 8 || copy(skb, p->l4, h, 8))
			return false;
		/* The other family's ICMP is just a number: it has no type, least of all 0. */
		p->sel = 0xffff;
		if (p->proto == IPPROTO_ICMP && p->family == 4)
			p->icmp = icmp4_kind(h[0]);
		else if (p->proto == IPPROTO_ICMPV6 && p->family == 6)
			p->icmp = icmp6_kind(h[0]);
		else
			return true;
		if (p->icmp == ICMP_NEIGH && (p->hops != 255 || h[1]))
			p->icmp = ICMP_OTHER;
		p->sel = h[0] << 8 | h[1];
		if (p->icmp == ICMP_ASK || p->icmp == ICMP_ANSWER)
			p->sport = p->dport = *(__be16 *)(h + 4);
		return true;
	} else if (has_ports(p->proto)) {
		if (p->l4len < 8 || copy(skb, p->l4, h, 8))
			return false;
	} else {
		return true;
	}
	p->sport = *(__be16 *)h;
	p->dport = *(__be16 *)(h + 2);
	p->sel = bpf_ntohs(p->dport);
	return true;
}

static __always_inline bool parse_ip4(struct __sk_buff *skb, struct packet *p, __u32 off)
{
	__u32 avail = p->len - off, hl, tot;
	struct iphdr ip;

	if (load(skb, off, &ip) || ip.version != 4)
		return false;
	hl = ip.ihl * 4;
	tot = bpf_ntohs(ip.tot_len);
	if (!tot && skb->gso_size)	/* BIG TCP */
		tot = avail;
	if (hl < sizeof(ip) || tot < hl || tot > avail)
		return false;
	p->family = 4;
	p->src[0] = ip.saddr;
	p->dst[0] = ip.daddr;
	p->proto = ip.protocol;
	p->l4 = off + hl;
	p->l4len = tot - hl;
	if (ip.frag_off & bpf_htons(IP_MF | IP_OFFSET)) {
		__u32 units = bpf_ntohs(ip.frag_off) & IP_OFFSET;

		p->id = ip.id;
		p->frag = units ? LATER : FIRST;
		/* It would overwrite the flags of a TCP header already judged (RFC 3128). */
		if (units == 1 && p->proto == IPPROTO_TCP)
			return false;
	}
	return true;
}

static __always_inline bool parse_ip6(struct __sk_buff *skb, struct packet *p, __u32 off)
{
	__u32 avail = p->len - off, left;
	struct ipv6hdr ip;
	__u8 next;

	if (avail < sizeof(ip) || load(skb, off, &ip) || ip.version != 6)
		return false;
	left = bpf_ntohs(ip.payload_len);
	if (!left && skb->gso_size)	/* BIG TCP */
		left = avail - sizeof(ip);
	if (left > avail - sizeof(ip))
		return false;
	p->family = 6;
	__builtin_memcpy(p->src, &ip.saddr, 16);
	__builtin_memcpy(p->dst, &ip.daddr, 16);
	next = ip.nexthdr;
	off += sizeof(ip);

	for (int i = 0; i <= NP_EXT_MAX; i++) {
		__u8 h[8];
		__u32 n;

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING &&
		    next != IPPROTO_FRAGMENT && next != IPPROTO_DSTOPTS && next != IPPROTO_AH) {
			p->proto = next;
			p->l4 = off;
			p->l4len = left;
			p->hops = ip.hop_limit;
			return true;
		}
		if (i == NP_EXT_MAX || left < sizeof(h) ||
		    bpf_skb_load_bytes(skb, off, h, sizeof(h)))
			return false;
		n = 8;
		if (next == IPPROTO_FRAGMENT) {
			__u32 units = bpf_ntohs(*(__be16 *)(h + 2)) >> 3;

			if (p->frag)
				return false;
			if (units || (h[3] & 1)) {
				p->id = *(__be32 *)(h + 4);
				p->frag = units ? LATER : FIRST;
			}
			if (units) {
				p->proto = h[0];
				return true;
			}
		} else if (next == IPPROTO_AH) {
			n = (h[1] + 2) * 4;
		} else {
			n = (h[1] + 1) * 8;
		}
		if (n > left)
			return false;
		next = h[0];
		off += n;
		left -= n;
	}
	return false;
}

static __always_inline bool is_l3(__be16 proto)
{
	return proto == bpf_htons(ETH_P_IP) || proto == bpf_htons(ETH_P_IPV6) ||
	       proto == bpf_htons(ETH_P_ARP);
}

/*
 * p->family 0: not IP. Nonzero: malformed. Not static, like ask(): a global function
 * is verified by itself, and its many paths do not multiply with the caller's.
 */
__noinline int parse(struct __sk_buff *skb, struct packet *p)
{
	__be16 proto = skb->protocol;
	__u32 off = l2_len;

	if (!p)
		return -1;
	p->len = skb->len;
	if (l2_len) {
		__be16 framed;

		if (copy(skb, ETH_HLEN - 2, &framed, 2))
			return -1;
		/*
		 * The stack goes by skb->protocol, the wire by the frame. A packet
		 * socket can make them differ, and must not pass one as the other.
		 */
		if (framed != proto && (is_l3(framed) || is_l3(proto)))
			return -1;
	}
	for (int i = 0; i < NP_VLAN_MAX; i++) {
		__be16 tag[2];

		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		if (load(skb, off, &tag))
			return -1;
		proto = tag[1];
		off += sizeof(tag);
	}
	if (proto == bpf_htons(ETH_P_IP)) {
		if (!parse_ip4(skb, p, off))
			return -1;
	} else if (proto == bpf_htons(ETH_P_IPV6)) {
		if (!parse_ip6(skb, p, off))
			return -1;
	} else {
		p->ethertype = bpf_ntohs(proto);
		return 0;
	}
	return p->frag == LATER || parse_l4(skb, p) ? 0 : -1;
}

/* --- the table --- */

/* What a rule looks at, in the direction in which it looks. */
struct tuple {
	__be32 addr[2][4];	/* source, destination */
	__u16 sport;
	__u16 sel;
	__u8 proto;
	__u8 family;
	__u8 dir;
	__u8 pad;
};

struct decision {
	__u32 gen;
	__u32 flags;
	__u32 action;
	__u32 rule;		/* NP_NONE: the default */
};

/*
 * The index is masked rather than checked: the verifier sees the bound, the loader
 * made the offsets, and a table that is not as netpol.h says can at worst decide
 * wrongly. The comparisons are arithmetic because a search over random keys
 * mispredicts every other branch.
 */
static __always_inline __u32 word(const __u32 *t, __u32 mask, __u32 i)
{
	return t[i & mask];
}

static __always_inline __u64 dword(const __u32 *t, __u32 mask, __u32 i)
{
	return *(const __u64 *)&t[i & mask & ~1u];
}

/*
 * Binary search, without branches in a step: STEP halves n and moves base. The number
 * of steps is one of four, so that the verifier has four ways through a search
 * instead of one for each length; a step with n == 1 does nothing.
 */
#define STEPS(k, STEP)								\
	do {									\
		_Pragma("clang loop unroll(disable)")				\
		for (int i_ = 0; i_ < (k); i_++)				\
			STEP;							\
	} while (0)
#define SEARCH(n, STEP)								\
	do {									\
		if (tier > 1 && (n) > 4096)					\
			STEPS(10, STEP);					\
		if ((n) > 256)							\
			STEPS(4, STEP);						\
		if ((n) > 16)							\
			STEPS(4, STEP);						\
		STEPS(4, STEP);							\
	} while (0)
#define SEARCH_MAX	(1u << 22)
_Static_assert(np_tier_bytes(1) / sizeof(__u32) <= 4096, "search");
_Static_assert(np_tier_bytes(NP_TIERS - 1) / sizeof(__u32) <= SEARCH_MAX, "search");

/* All ones if the word a is not above b. */
#define le32(a, b) ((__u32)(((__s64)((__u64)(a) - (b) - 1)) >> 63))

/*
 * The last of n words that is not above x, else the first. The words stand 1 << shift
 * apart from word `base` on; returned is the offset from there in steps.
 */
static __always_inline __u32 search(const __u32 *t, __u32 mask, __u32 base, __u32 shift, __u32 n,
				    __u32 x)
{
	__u32 at = 0, half;

	SEARCH(n, ({
		half = n >> 1;
		at += half & le32(word(t, mask, base + ((at + half) << shift)), x);
		n -= half;
	}));
	return at;
}

/* 1 if a < b. The barrier keeps the compiler from making a branch of it again. */
static __always_inline __u64 lt64(__u64 a, __u64 b)
{
	__u64 borrow = (~a & b) | ((~a | b) & (a - b));

	barrier_var(borrow);
	return borrow >> 63;
}

/* 1 if the 128-bit a <= b. */
static __always_inline __u64 le128(__u64 ahi, __u64 alo, __u64 bhi, __u64 blo)
{
	__u64 above = lt64(blo, alo), hi = bhi - ahi;

	return (lt64(bhi, ahi) | lt64(hi, above)) ^ 1;
}

/*
 * The class of an address. By value: the verifier looks anew at a function for each
 * call that hands it a pointer into the caller's stack.
 */
static __noinline __u32 class4(const __u32 *t, __u32 mask, __u32 dim, __u32 x)
{
	__u32 n = word(t, mask, dim + NP_D_N), start = word(t, mask, dim + NP_D_START), i;

	if (!n)
		return word(t, mask, dim + NP_D_BASE);
	i = search(t, mask, start, 0, n, x);
	if (x < word(t, mask, start + i) ||
	    x > word(t, mask, word(t, mask, dim + NP_D_END) + i))
		return word(t, mask, dim + NP_D_BASE);
	return word(t, mask, word(t, mask, dim + NP_D_CLASS) + i);
}

static __noinline __u32 class6(const __u32 *t, __u32 mask, __u32 dim, __u64 hi, __u64 lo)
{
	__u32 n = word(t, mask, dim + NP_D_N), start = word(t, mask, dim + NP_D_START);
	__u32 i = 0, half, at, end, le;

	if (!n)
		return word(t, mask, dim + NP_D_BASE);
	SEARCH(n, ({
		half = n >> 1;
		at = start + 4 * (i + half);
		le = -(__u32)le128(dword(t, mask, at), dword(t, mask, at + 2), hi, lo);
		barrier_var(le);
		i += half & le;
		n -= half;
	}));
	at = start + 4 * i;
	end = word(t, mask, dim + NP_D_END) + 4 * i;
	if (!(le128(dword(t, mask, at), dword(t, mask, at + 2), hi, lo) &
	      le128(hi, lo, dword(t, mask, end), dword(t, mask, end + 2))))
		return word(t, mask, dim + NP_D_BASE);
	return word(t, mask, word(t, mask, dim + NP_D_CLASS) + i);
}

/* dim: the IPv4 dimension of the side */
static __always_inline __u32 class_of(const __u32 *t, __u32 mask, __u32 dim,
				      const struct tuple *q, __u32 side)
{
	const __be32 *a = q->addr[side & 1];

	if (q->family == 4)
		return class4(t, mask, dim, bpf_ntohl(a[0]));
	return class6(t, mask, dim + 2 * NP_D_WORDS, (__u64)bpf_ntohl(a[0]) << 32 | bpf_ntohl(a[1]),
		      (__u64)bpf_ntohl(a[2]) << 32 | bpf_ntohl(a[3]));
}

/*
 * What a step changes is in the upper half of a slot of the stack, and is written after
 * the lower: so the verifier sees the same unknown bytes before each step.
 */
struct walk {
	const __u32 *t;
	__u64 mask;		/* 64 bits: the verifier keeps constants only in whole slots */
	__u32 key;
	__u32 major;
	__u32 minor0;
	__u32 minor;
	__u32 sport;
	__u32 best;
	__u32 pad;
	__u32 chain;		/* word offset of the next entry, 0: not in a chain */
};

/*
 * One step: an entry of a chain, or a pair of classes; when done with a pair, on to
 * the next. 1 ends the walk. All that lasts is in *w, and begins as unknown numbers: the
 * verifier then sees in its second round that nothing is new.
 */
static long walk_step(__u32 i, struct walk *w)
{
	const __u32 *t = w->t;
	__u32 mask = w->mask, major = w->major, r = NP_NONE, chain = w->chain, next = 0;
	__u32 minors = word(t, mask, NP_H_FLAGS) & NP_F_MINOR;

	if (chain) {
		__u32 e = word(t, mask, chain), ports = word(t, mask, chain + 1);

		if (w->sport >= ports >> 16 && w->sport <= (ports & 0xffff))
			r = e & ~NP_LAST;
		else if (!(e & NP_LAST))
			next = chain + 2;
	} else {
		__u32 cls = word(t, mask, NP_H_CLASSES) + 2 * major;
		__u32 first = word(t, mask, cls + 1), n = word(t, mask, cls + 3) - first;
		__u32 lo = word(t, mask, NP_H_CELL_LO), c;

		if (minors) {
			__u32 g = word(t, mask, NP_H_GROUPS) + 2 * first;

			g += 2 * search(t, mask, g, 1, n, w->minor);
			first = word(t, mask, g + 1);
			n = word(t, mask, g) == w->minor ? word(t, mask, g + 3) - first : 0;
		}
		if (n) {
			/* One cell is the usual case, and its loads need not wait then. */
			c = first;
			if (n > 1)
				c += search(t, mask, lo + first, 0, n, w->key);
			if (w->key >= word(t, mask, lo + c) &&
			    w->key <= word(t, mask, word(t, mask, NP_H_CELL_HI) + c))
				r = word(t, mask, word(t, mask, NP_H_CELL_RULE) + c);
			if (r != NP_NONE && (r & NP_CHAIN)) {
				next = word(t, mask, NP_H_CHAINS) + 2 * (r & ~NP_CHAIN);
				r = NP_NONE;
			}
		}
	}
	if (r < w->best)
		w->best = r;
	w->chain = next;
	if (next)
		return 0;
	if (minors) {
		__u32 minor = word(t, mask, word(t, mask, NP_H_MINORS) + w->minor);

		w->minor = minor;
		if (minor != NP_NONE)
			return 0;
		w->minor = w->minor0;
	}
	w->major = word(t, mask, word(t, mask, NP_H_CLASSES) + 2 * major);
	return w->major == NP_NONE;
}

static __always_inline void header(const __u32 *t, struct decision *d)
{
	d->gen = t[NP_H_GEN];
	d->flags = t[NP_H_FLAGS];
	d->rule = NP_NONE;
	d->action = t[NP_H_DEFAULT];
}

static __noinline void consult(const __u32 *t, __u32 mask, const struct tuple *q,
			       struct decision *d)
{
	__u32 flags = word(t, mask, NP_H_FLAGS);
	/* Indices rather than a branch: the verifier would follow both sides of it. */
	__u32 dst_major = (flags / NP_F_DST_MAJOR) & 1;
	__u32 dim = NP_H_DIM + NP_DIM_MAJOR4 * NP_D_WORDS;
	__u32 major, minor = unknown_zero;
	struct walk w = {
		.t = t,
		.mask = mask,
		.key = (flags & NP_F_DIRS ? q->dir << 24 : 0) | q->proto << 16 | q->sel,
		.sport = q->sport,
	};

	header(t, d);
	major = class_of(t, mask, dim, q, dst_major);
	if (major == NP_NONE)
		return;
	if (flags & NP_F_MINOR) {
		minor = class_of(t, mask, dim + NP_D_WORDS, q, dst_major ^ 1);
		if (minor == NP_NONE)
			return;
	}
	w.minor0 = minor;
	barrier();
	w.major = major;
	w.minor = minor;
	w.best = NP_NONE;
	w.chain = unknown_zero;
	bpf_loop(NP_WALK_MAX * (1 + NP_CHAIN_MAX), walk_step, &w, 0);
	if (w.best == NP_NONE)
		return;
	d->rule = w.best;
	d->action = word(t, mask, word(t, mask, NP_H_RULES) + w.best);
}

#define TABLE(n)								\
	case n:									\
		t = bpf_map_lookup_elem(&tier##n, &zero);			\
		break

/*
 * The live table and the mask of its word indices. tier is a constant to the
 * verifier, which sees one of the cases, and one size of value.
 */
static __always_inline const __u32 *table(__u32 *mask)
{
	const void *t = NULL;

	switch (tier) {
	TABLE(0);
	TABLE(1);
	TABLE(2);
	TABLE(3);
	TABLE(4);
	TABLE(5);
	TABLE(6);
	TABLE(7);
	TABLE(8);
	TABLE(9);
	TABLE(10);
	}
	*mask = np_tier_bytes(tier) / sizeof(__u32) - 1;
	return t ? bpf_map_lookup_elem((void *)t, &zero) : NULL;
}
_Static_assert(NP_TIERS == 11, "one TIER() and one TABLE() each");

/*
 * Ask the live table. Not static, so that the verifier looks at it once and not
 * for each caller. Nonzero: there is none.
 */
__noinline int ask(const struct tuple *q, struct decision *d)
{
	const __u32 *t;
	__u32 mask;

	if (!q || !d)
		return -1;
	t = table(&mask);
	if (!t)
		return -1;
	consult(t, mask, q, d);
	return 0;
}

/* Only what the header says: the generation, the flags, the default. */
__noinline int peek(struct decision *d)
{
	const __u32 *t;
	__u32 mask;

	if (!d)
		return -1;
	t = table(&mask);
	if (!t)
		return -1;
	header(t, d);
	return 0;
}

/* --- counting and logging --- */

static __always_inline __u32 verdict_of(const struct decision *d)
{
	return (d->action & NP_A_VERDICT) >> NP_A_SHIFT;
}

static __always_inline void add(struct np_count *c, __u32 len)
{
	if (c) {
		c->packets++;
		c->bytes += len;
	}
}

static __always_inline void count_stat(__u32 stat, __u32 len)
{
	add(bpf_map_lookup_elem(&np_stats, &stat), len);
}

static __always_inline void count_slot(__u32 action, __u32 len)
{
	__u32 slot = action & NP_A_SLOT, page = slot / NP_SLOT_PAGE;
	void *inner = bpf_map_lookup_elem(&np_counts, &page);

	slot %= NP_SLOT_PAGE;
	if (inner)
		add(bpf_map_lookup_elem(inner, &slot), len);
}

static __noinline void log_packet(struct __sk_buff *skb, const struct packet *p,
				  const struct decision *d)
{
	__u32 slot = d->action & NP_A_SLOT, suppressed = 0;
	__u64 now = bpf_ktime_get_ns(), due;
	struct np_bucket *b = bpf_map_lookup_elem(&np_buckets, &slot);
	struct np_event *e;

	if (!b) {
		struct np_bucket fresh = { .time = now, .tokens = NP_LOG_BURST - 1 };

		bpf_map_update_elem(&np_buckets, &slot, &fresh, BPF_ANY);
	} else {
		due = now > b->time ? (now - b->time) / (NSEC_PER_SEC / NP_LOG_RATE) : 0;
		if (due) {
			b->time += due * (NSEC_PER_SEC / NP_LOG_RATE);
			due += b->tokens;
			b->tokens = due < NP_LOG_BURST ? due : NP_LOG_BURST;
		}
		if (!b->tokens) {
			b->suppressed++;
			return;
		}
		b->tokens--;
		suppressed = b->suppressed;
		b->suppressed = 0;
	}
	e = bpf_ringbuf_reserve(&np_events, sizeof(*e), 0);
	if (!e) {
		/* The reader learns of it with the next event. */
		if (b)
			b->suppressed = suppressed + 1;
		return;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->time = now;
	e->gen = d->gen;
	e->rule = d->rule;
	e->ifindex = skb->ifindex;
	e->len = p->len;
	e->suppressed = suppressed;
	__builtin_memcpy(e->src, p->src, sizeof(e->src));
	__builtin_memcpy(e->dst, p->dst, sizeof(e->dst));
	e->sport = p->sport;
	e->dport = p->icmp ? bpf_htons(p->sel) : p->dport;
	e->proto = p->proto;
	e->family = p->family;
	e->dir = p->dir;
	e->verdict = verdict_of(d);
	bpf_ringbuf_submit(e, 0);
}

/* --- flows --- */

static __always_inline void flow_key(const struct packet *p, struct np_flow_key *k)
{
	bool in = p->dir == NP_IN;

	__builtin_memset(k, 0, sizeof(*k));
	__builtin_memcpy(k->remote, in ? p->src : p->dst, 16);
	__builtin_memcpy(k->local, in ? p->dst : p->src, 16);
	k->rport = in ? p->sport : p->dport;
	k->lport = in ? p->dport : p->sport;
	k->proto = p->proto;
	k->family = p->family;
}

static __always_inline void tuple_of(const struct packet *p, struct tuple *q)
{
	__builtin_memcpy(q->addr[0], p->src, 16);
	__builtin_memcpy(q->addr[1], p->dst, 16);
	q->sport = bpf_ntohs(p->sport);
	q->sel = p->sel;
	q->proto = p->proto;
	q->family = p->family;
	q->dir = p->dir;
}

/* The tuple of the direction opposite to the packet's. */
static __always_inline void tuple_back(const struct packet *p, __u16 sel, struct tuple *q)
{
	__builtin_memcpy(q->addr[0], p->dst, 16);
	__builtin_memcpy(q->addr[1], p->src, 16);
	q->sport = bpf_ntohs(p->dport);
	q->sel = sel;
	q->proto = p->proto;
	q->family = p->family;
	q->dir = !p->dir;
}

static __always_inline __u32 timeout(const struct np_flow *f, __u8 proto)
{
	switch (proto) {
	case IPPROTO_TCP:
		if (f->flags & NP_FLOW_RST ||
		    (f->flags & (NP_FLOW_FIN | NP_FLOW_RFIN)) == (NP_FLOW_FIN | NP_FLOW_RFIN))
			return T_TCP_CLOSING;
		return f->flags & NP_FLOW_REPLIED ? T_TCP : T_TCP_OPENING;
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
		return T_UDP;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return T_ICMP;
	default:
		return T_OTHER;
	}
}

/* Whether the packet goes against the direction in which the flow was opened. */
static __always_inline bool flow_reply(const struct packet *p, const struct np_flow *f)
{
	return p->dir != (f->flags & NP_FLOW_OUT ? NP_OUT : NP_IN);
}

static __always_inline bool opens_tcp(const struct packet *p)
{
	return p->proto == IPPROTO_TCP &&
	       (p->tcp & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

/*
 * What is known of a packet's flow. STALE: it was allowed by a policy of another
 * generation; the one in force is to be asked about q, the flow as it was opened.
 */
enum known { UNKNOWN, LIVE, STALE };

/* The live entry by which the packet may pass. NULL: it has to be judged on its own. */
static __always_inline struct np_flow *flow_find(const struct packet *p,
						 const struct np_flow_key *k, __u32 now)
{
	struct np_flow *f = bpf_map_lookup_elem(&np_flows, k);

	if (!f || opens_tcp(p) || idle(now, f->seen, timeout(f, p->proto)))
		return NULL;
	if (p->icmp && p->icmp != (flow_reply(p, f) ? ICMP_ANSWER : ICMP_ASK))
		return NULL;
	return f;
}

static __always_inline int flow_known(const struct packet *p, const struct np_flow *f,
				      __u32 gen, struct tuple *q)
{
	if (f->gen == gen)
		return LIVE;
	if (flow_reply(p, f))
		tuple_back(p, f->sel, q);
	else
		tuple_of(p, q);
	return STALE;
}

/* The packet passes by f. Stores to a shared line only when something changes. */
static __always_inline void flow_seen(const struct packet *p, struct np_flow *f, __u32 now)
{
	bool reply = flow_reply(p, f);
	__u8 flags = f->flags;

	if (reply)
		flags |= NP_FLOW_REPLIED;
	if (p->proto == IPPROTO_TCP) {
		if (p->tcp & TCP_RST)
			flags |= NP_FLOW_RST;
		else
			flags &= ~NP_FLOW_RST;
		if (p->tcp & TCP_FIN)
			flags |= reply ? NP_FLOW_RFIN : NP_FLOW_FIN;
	}
	if (flags != f->flags)
		f->flags = flags;
	if (f->seen != now)
		f->seen = now;
}

/* The same of the flow that an ICMP error quotes. */
__noinline int related(struct __sk_buff *skb, const struct packet *p, struct tuple *q,
		       __u32 gen, __u32 now)
{
	struct packet in = {};
	struct np_flow_key k;
	struct np_flow *f;
	__be16 ports[2];
	__u32 off;

	if (!p || !q)
		return UNKNOWN;
	/* What was sent in the other direction. */
	in.dir = !p->dir;
	in.family = p->family;
	off = p->l4 + 8;
	if (p->family == 4) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)) || ip.version != 4 ||
		    ip.ihl < 5 || ip.frag_off & bpf_htons(IP_OFFSET))
			return UNKNOWN;
		in.src[0] = ip.saddr;
		in.dst[0] = ip.daddr;
		in.proto = ip.protocol;
		off += ip.ihl * 4;
	} else {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)) || ip.version != 6)
			return UNKNOWN;
		__builtin_memcpy(in.src, &ip.saddr, 16);
		__builtin_memcpy(in.dst, &ip.daddr, 16);
		in.proto = ip.nexthdr;
		off += sizeof(ip);
	}
	if (has_ports(in.proto)) {
		if (bpf_skb_load_bytes(skb, off, ports, sizeof(ports)))
			return UNKNOWN;
		in.sport = ports[0];
		in.dport = ports[1];
	} else if (in.proto == IPPROTO_ICMP || in.proto == IPPROTO_ICMPV6) {
		if (bpf_skb_load_bytes(skb, off + 4, ports, 2))
			return UNKNOWN;
		in.sport = in.dport = ports[0];
	}
	flow_key(&in, &k);
	f = bpf_map_lookup_elem(&np_flows, &k);
	if (!f || idle(now, f->seen, timeout(f, in.proto)))
		return UNKNOWN;
	in.sel = f->sel;
	return flow_known(&in, f, gen, q);
}

/* --- the verdict --- */

static __always_inline int deny(const struct packet *p, __u32 stat)
{
	count_stat(stat, p->len);
	return ACT_DROP;
}

/* Count and log what rule or default has decided, and return the hook's action. */
static __always_inline int settle(struct __sk_buff *skb, const struct packet *p,
				  const struct decision *d, __u32 stat)
{
	__u32 verdict = verdict_of(d);

	count_slot(d->action, p->len);
	if (d->action & NP_A_LOG)
		log_packet(skb, p, d);
	if (verdict == NP_DENY)
		return deny(p, NP_S_DENY_POLICY);
	count_stat(verdict == NP_NEXT ? NP_S_NEXT : stat, p->len);
	return verdict == NP_NEXT ? ACT_NEXT : ACT_PASS;
}

static __always_inline int no_ip(struct __sk_buff *skb, const struct packet *p,
				 const struct decision *d)
{
	if (verdict_of(d) == NP_DENY) {
		if (p->ethertype != ETH_P_ARP)
			return deny(p, NP_S_DENY_NONIP);
		count_stat(NP_S_NEIGH, p->len);
		return ACT_PASS;
	}
	return settle(skb, p, d, NP_S_ALLOW);
}

static __always_inline void frag_key(const struct packet *p, struct np_frag_key *k)
{
	__builtin_memset(k, 0, sizeof(*k));
	__builtin_memcpy(k->src, p->src, 16);
	__builtin_memcpy(k->dst, p->dst, 16);
	k->id = p->id;
	k->proto = p->family == 4 ? p->proto : 0;
	k->family = p->family;
	k->dir = p->dir;
}

static __always_inline int later_fragment(const struct packet *p, __u32 gen, __u32 now)
{
	struct np_frag_key k;
	struct np_frag *f;
	__u32 verdict;

	frag_key(p, &k);
	f = bpf_map_lookup_elem(&np_frags, &k);
	if (!f || idle(now, f->seen, T_FRAG))
		return deny(p, NP_S_DENY_FRAGMENT);
	verdict = (f->action & NP_A_VERDICT) >> NP_A_SHIFT;
	/* After a load the slot may belong to another rule. */
	if (f->gen == gen)
		count_slot(f->action, p->len);
	if (verdict == NP_DENY)
		return deny(p, NP_S_DENY_POLICY);
	count_stat(verdict == NP_NEXT ? NP_S_NEXT : NP_S_FRAGMENT, p->len);
	return verdict == NP_NEXT ? ACT_NEXT : ACT_PASS;
}

/* False: no room. */
static __always_inline bool keep_frag(const struct packet *p, const struct decision *d, __u32 now)
{
	struct np_frag f = { .action = d->action, .gen = d->gen, .seen = now };
	struct np_frag_key k;

	if (p->frag != FIRST)
		return true;
	frag_key(p, &k);
	return !bpf_map_update_elem(&np_frags, &k, &f, BPF_ANY);
}

/*
 * A reply without a flow, soon after the policy arrived: it passes if the policy
 * would have let the connection be opened. Off unless the user asked for it, since
 * anybody can send an ACK.
 */
static __always_inline bool adopt(const struct packet *p, struct tuple *q, struct decision *d,
				  __u32 now)
{
	const struct np_state *st = bpf_map_lookup_elem(&np_state, &zero);
	struct decision back = {};

	if (!st || now >= st->adopt_until || p->proto != IPPROTO_TCP ||
	    (p->tcp & (TCP_ACK | TCP_SYN | TCP_RST)) != TCP_ACK)
		return false;
	tuple_back(p, bpf_ntohs(p->sport), q);
	if (ask(q, &back) || verdict_of(&back) != NP_ALLOW)
		return false;
	*d = back;
	return true;
}

static __noinline int policy(struct __sk_buff *skb, __u32 dir)
{
	struct packet p = { .dir = dir };
	struct tuple q = {};
	__u32 now, stat = NP_S_ALLOW;
	struct np_flow fresh = {};
	struct decision d = {};
	struct np_flow_key k;

	if (parse(skb, &p))
		return deny(&p, NP_S_DENY_MALFORMED);
	if (peek(&d))
		return deny(&p, NP_S_DENY_NO_POLICY);
	if (!p.family)
		return no_ip(skb, &p, &d);
	now = now_sec();
	if (p.frag == LATER)
		return later_fragment(&p, d.gen, now);

	/* Also without flows: a load may bring them before ask() below. */
	flow_key(&p, &k);
	if (!(d.flags & NP_F_STATELESS)) {
		struct np_flow *f = flow_find(&p, &k, now);
		int known = f ? flow_known(&p, f, d.gen, &q) :
			    p.icmp == ICMP_ERROR ? related(skb, &p, &q, d.gen, now) : UNKNOWN;

		if (known == STALE) {
			if (ask(&q, &d))
				return deny(&p, NP_S_DENY_NO_POLICY);
			if (verdict_of(&d) != NP_ALLOW) {
				known = UNKNOWN;
				if (f)
					bpf_map_delete_elem(&np_flows, &k);
			} else if (f) {
				f->action = d.action;
				f->gen = d.gen;
			}
		}
		if (known && !f) {
			count_stat(NP_S_RELATED, p.len);
			return ACT_PASS;
		}
		if (known) {
			flow_seen(&p, f, now);
			d.action = f->action;
			if (!keep_frag(&p, &d, now))
				return deny(&p, NP_S_DENY_MAP_FULL);
			count_slot(d.action, p.len);
			count_stat(NP_S_FLOW, p.len);
			return ACT_PASS;
		}
	}

	tuple_of(&p, &q);
	if (ask(&q, &d))
		return deny(&p, NP_S_DENY_NO_POLICY);
	fresh.sel = p.sel;
	if (dir == NP_OUT)
		fresh.flags = NP_FLOW_OUT;
	if (verdict_of(&d) == NP_DENY) {
		if (d.rule == NP_NONE && p.icmp == ICMP_NEIGH) {
			count_stat(NP_S_NEIGH, p.len);
			return ACT_PASS;
		}
		if (!(d.flags & NP_F_STATELESS) && adopt(&p, &q, &d, now)) {
			fresh.sel = q.sel;
			fresh.flags = NP_FLOW_REPLIED | (dir == NP_OUT ? 0 : NP_FLOW_OUT);
			stat = NP_S_ADOPTED;
		}
	}
	if (!keep_frag(&p, &d, now))
		return deny(&p, NP_S_DENY_MAP_FULL);

	/* ICMP has flows only of questions; a reset ends one rather than begin it. */
	if (!(d.flags & NP_F_STATELESS) && verdict_of(&d) == NP_ALLOW &&
	    (!p.icmp || p.icmp == ICMP_ASK) &&
	    !(p.proto == IPPROTO_TCP && p.tcp & TCP_RST)) {
		fresh.gen = d.gen;
		fresh.action = d.action;
		fresh.seen = now;
		if (bpf_map_update_elem(&np_flows, &k, &fresh, BPF_ANY))
			return deny(&p, NP_S_DENY_MAP_FULL);
	}
	return settle(skb, &p, &d, stat);
}

/*
 * After a load into another tier the tool waits for a grace period before it empties the
 * old one: the body and table of the tier that was read here stay while it runs.
 */
#define JUMP(n) case n: bpf_tail_call_static(skb, jump, n); break

static __always_inline int gate(struct __sk_buff *skb, void *jump)
{
	const struct np_state *st = bpf_map_lookup_elem(&np_state, &zero);
	struct packet p = { .len = skb->len };

	if (st) {
		switch (st->tier) {
		JUMP(0);
		JUMP(1);
		JUMP(2);
		JUMP(3);
		JUMP(4);
		JUMP(5);
		JUMP(6);
		JUMP(7);
		JUMP(8);
		JUMP(9);
		JUMP(10);
		}
	}
	return deny(&p, NP_S_DENY_NO_POLICY);
}

/* A hook: the bodies by tier, the gate and the body. */
#define HOOK(name, jump, section, dir)						\
	struct {								\
		__uint(type, BPF_MAP_TYPE_PROG_ARRAY);				\
		__uint(max_entries, NP_TIERS);					\
		__uint(key_size, sizeof(__u32));				\
		__uint(value_size, sizeof(__u32));				\
	} jump SEC(".maps");							\
										\
	SEC(section)								\
	int netpol_##name(struct __sk_buff *skb)				\
	{									\
		return gate(skb, &jump);					\
	}									\
										\
	SEC(section)								\
	int body_##name(struct __sk_buff *skb)					\
	{									\
		return policy(skb, dir);					\
	}

HOOK(tcx_ingress, jump_in, "tcx/ingress", NP_IN)
HOOK(tcx_egress, jump_out, "tcx/egress", NP_OUT)
HOOK(primary, jump_primary, "netkit/primary", NP_OUT)
HOOK(peer, jump_peer, "netkit/peer", NP_IN)
