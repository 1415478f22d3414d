// SPDX-License-Identifier: GPL-2.0-only
/*
 * tproxy: connections and datagrams to addresses that are not the host's are given to a
 * proxy on the host, which sees the original destination and source.
 *
 * One program for four hooks. At tcx/ingress, netkit/peer and netkit/primary the packet is
 * on its way to the stack that the proxy's socket belongs to: it is assigned to the socket
 * (bpf_sk_assign()), marked and passed. At tcx/egress it is on its way out: it is assigned,
 * marked, and turned round into the same device. The hook is constant, so that the verifier
 * removes the code of the others. All but tcx/ingress need a kernel whose bpf_sk_assign()
 * takes a reference of its own.
 *
 * In this order:
 *   1. Senders that are excepted, by mark, cgroup or user, pass by; at tcx/egress also what a
 *	transparent socket sends, which only a proxy has. They are looked at first, since a
 *	proxy that keeps the client's address and port sends what looks like the client's own.
 *   2. A connection that exists goes on, whatever the rules say by now, if its socket is a
 *	transparent one: the packet is let in, and the stack finds the socket as we have, with
 *	the route that it used before. What is not yet, or no longer, a full socket is assigned.
 *	Sockets that are not transparent are none of ours, nor is a listener on the original
 *	port, such as a web server of the host.
 *   3. Rules decide by destination: an exception before anything else.
 *   4. The listener: one that was registered, or the one at an address and port.
 * Where there is none, or it cannot be given the packet, that is counted by its reason, and the
 * packet dropped, passed, or answered by a reset or "port unreachable", as the user chose.
 *
 * Of a fragmented packet only the first part knows its ports, and what is assigned to a part
 * is lost in reassembly. That first part is in the way if it is for the proxy; the others
 * are nothing without it.
 *
 * A SYN that meets TIME_WAIT of an earlier connection is given to that: the kernel answers it
 * and the client tries again at once. But where a listener of the host's own has the original
 * port, the kernel would hand it the connection, so the SYN is in the way until the time is over.
 *
 * What is given to a socket ends the chain of programs: a policy that shall see it belongs in
 * front. All else is left to the next program.
 *
 * The rules are rodata: another set is another program, which takes the place of this one at
 * its bpf_link in one step. Counters, registered listeners and the log go on.
 */
#include "common.bpf.h"
#include <bpf/bpf_core_read.h>
#include "tproxy.h"

#define CHECKSUM_PARTIAL  3
#define BPF_F_CURRENT_NETNS (-1L)
#define IP_DF		  0x4000
#define ICMP_UNREACHABLE  3
#define ICMP_PORT	  3
#define ICMP6_UNREACHABLE 1
#define ICMP6_PORT	  4
#define HEADERS_MAX	 8
#define TTL		 64

char LICENSE[] SEC("license") = "GPL";

const volatile struct tp_conf conf;
const volatile struct tp_rule rules[TP_RULES];
const volatile struct tp_sender senders[TP_SENDERS];
const volatile char sender_names[TP_SENDERS][TP_NAME]; /* for the tool */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct tp_count);
	__uint(max_entries, TP_STATS);
} tp_stats SEC(".maps");

/* Registered sockets; the kernel removes one that is closed. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, TP_LISTENERS);
} tp_listeners SEC(".maps");

/* Until when somebody reads the log, in ns since boot: one that dies need not say so. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} tp_reader SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} tp_log SEC(".maps");

struct packet {
	struct tp_addr src, dst;
	__be16 sport, dport;
	__u8 protocol, family;
	bool fragment, plain;	 /* plain: no options or extension headers */
	bool syn, ack, fin, rst; /* TCP */
	__u32 l4;		 /* where the transport header is */
	__u32 seq, ack_seq;
	__u32 payload;
};

static __always_inline void count(struct __sk_buff *skb, __u32 stat)
{
	struct tp_count *c = bpf_map_lookup_elem(&tp_stats, &stat);

	if (c) {
		c->packets++;
		c->bytes += skb->len;
	}
}

static __always_inline void tell(const struct packet *p, __u32 stat, __u32 done)
{
	__u64 now = bpf_ktime_get_boot_ns(), *until;
	struct tp_event *e;
	__u32 zero = 0;

	until = bpf_map_lookup_elem(&tp_reader, &zero);
	if (!until || *until < now)
		return;
	e = bpf_ringbuf_reserve(&tp_log, sizeof(*e), 0);
	if (!e)
		return;
	*e = (struct tp_event){
		.ns = now,
		.src = p->src,
		.dst = p->dst,
		.sport = bpf_ntohs(p->sport),
		.dport = bpf_ntohs(p->dport),
		.protocol = p->protocol,
		.stat = stat,
		.done = done,
	};
	bpf_ringbuf_submit(e, 0);
}

/* --- the packet --- */

static __always_inline void v4_addr(struct tp_addr *to, __be32 addr)
{
	to->d[0] = 0;
	to->w[2] = bpf_htonl(0xffff);
	to->w[3] = addr;
}

enum { OURS, NOT_OURS, BROKEN };

/* Behind the extension headers: p->l4 and p->protocol. */
static __always_inline int skip_headers(struct __sk_buff *skb, struct packet *p, __u8 next)
{
	struct {
		__u8 next, len;
		__be16 offset;
	} h;

	p->plain = next == IPPROTO_TCP || next == IPPROTO_UDP;
	for (int i = 0; i < HEADERS_MAX; i++) {
		switch (next) {
		case IPPROTO_TCP:
		case IPPROTO_UDP:
			p->protocol = next;
			return OURS;
		case IPPROTO_FRAGMENT:
			if (bpf_skb_load_bytes(skb, p->l4, &h, sizeof(h)))
				return BROKEN;
			if (h.offset & bpf_htons(0xfff8))
				return NOT_OURS;
			/* a fragment that is all of its packet is reassembled too */
			p->fragment = true;
			p->l4 += 8;
			break;
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
			if (bpf_skb_load_bytes(skb, p->l4, &h, sizeof(h)))
				return BROKEN;
			p->l4 += 8 * (h.len + 1);
			break;
		default:
			return NOT_OURS;
		}
		next = h.next;
	}
	return BROKEN;
}

static __always_inline int parse(struct __sk_buff *skb, struct packet *p)
{
	__u32 end;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;
		__u16 off;

		if (bpf_skb_load_bytes(skb, conf.l2_len, &ip, sizeof(ip)) || ip.ihl < 5)
			return BROKEN;
		if (ip.protocol != IPPROTO_TCP && ip.protocol != IPPROTO_UDP)
			return NOT_OURS;
		off = bpf_ntohs(ip.frag_off);
		/* group addresses and broadcasts */
		if (off & IP_OFFSET || (ip.daddr & bpf_htonl(0xe0000000)) == bpf_htonl(0xe0000000))
			return NOT_OURS;
		v4_addr(&p->src, ip.saddr);
		v4_addr(&p->dst, ip.daddr);
		p->family = 4;
		p->protocol = ip.protocol;
		p->fragment = off & IP_MF;
		p->plain = ip.ihl == 5;
		p->l4 = conf.l2_len + 4 * ip.ihl;
		end = conf.l2_len + bpf_ntohs(ip.tot_len);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;
		int rc;

		if (bpf_skb_load_bytes(skb, conf.l2_len, &ip, sizeof(ip)))
			return BROKEN;
		__builtin_memcpy(&p->src, &ip.saddr, sizeof(p->src));
		__builtin_memcpy(&p->dst, &ip.daddr, sizeof(p->dst));
		/* groups, and what concerns the link alone */
		if (p->dst.b[0] == 0xff || (p->dst.b[0] == 0xfe && (p->dst.b[1] & 0xc0) == 0x80))
			return NOT_OURS;
		p->family = 6;
		p->l4 = conf.l2_len + sizeof(ip);
		end = p->l4 + bpf_ntohs(ip.payload_len);
		rc = skip_headers(skb, p, ip.nexthdr);
		if (rc)
			return rc;
	} else {
		return NOT_OURS;
	}
	if (p->protocol == IPPROTO_TCP) {
		struct tcphdr tcp;

		if (bpf_skb_load_bytes(skb, p->l4, &tcp, sizeof(tcp)))
			return BROKEN;
		p->sport = tcp.source;
		p->dport = tcp.dest;
		p->syn = tcp.syn;
		p->ack = tcp.ack;
		p->fin = tcp.fin;
		p->rst = tcp.rst;
		p->seq = bpf_ntohl(tcp.seq);
		p->ack_seq = bpf_ntohl(tcp.ack_seq);
		p->payload = end - p->l4 - 4 * tcp.doff;
	} else {
		struct udphdr udp;

		if (bpf_skb_load_bytes(skb, p->l4, &udp, sizeof(udp)))
			return BROKEN;
		p->sport = udp.source;
		p->dport = udp.dest;
	}
	return OURS;
}

/* --- senders and rules --- */

static __always_inline bool excepted_sender(struct __sk_buff *skb)
{
	for (__u32 i = 0; i < TP_SENDERS && i < conf.nsenders; i++) {
		const volatile struct tp_sender *s = &senders[i];

		switch (s->kind) {
		case TP_BY_MARK:
			if ((skb->mark & s->more) == s->value)
				return true;
			break;
		case TP_BY_CGROUP:
			if (bpf_skb_ancestor_cgroup_id(skb, s->more) == s->value)
				return true;
			break;
		case TP_BY_UID:
			/* without a socket it is overflowuid, which the tool does not take */
			if (bpf_get_socket_uid(skb) == s->value)
				return true;
			break;
		}
	}
	return false;
}

static __always_inline bool matches(const volatile struct tp_rule *r, const struct packet *p,
				    __u16 port)
{
	return r->protos & (p->protocol == IPPROTO_TCP ? TP_TCP : TP_UDP) && port >= r->from &&
	       port <= r->to && (!r->family || r->family == p->family) &&
	       (p->dst.d[0] & r->mask.d[0]) == r->addr.d[0] &&
	       (p->dst.d[1] & r->mask.d[1]) == r->addr.d[1];
}

enum { NO_RULE, REDIRECT, EXCEPT };

/* The tool puts exceptions first. */
static __noinline int by_rule(const struct packet *p)
{
	__u16 port;
	__u32 i;

	if (!p)
		return NO_RULE;
	port = bpf_ntohs(p->dport);
	bpf_for(i, 0, conf.nrules) {
		if (i >= TP_RULES)
			break;
		if (matches(&rules[i], p, port))
			return rules[i].except ? EXCEPT : REDIRECT;
	}
	return NO_RULE;
}

/* --- sockets --- */

static __always_inline bool sock_transparent(const void *sk)
{
	const struct inet_sock *inet =
		bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct inet_sock));

	return inet->inet_flags & 1UL << INET_FLAGS_TRANSPARENT;
}

/* The same of sockets that are not full ones. */
static __always_inline bool conn_transparent(struct bpf_sock *sk, __u32 state)
{
	if (state == BPF_TCP_NEW_SYN_RECV) {
		const struct inet_request_sock *req =
			bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct inet_request_sock));

		return BPF_CORE_READ_BITFIELD(req, no_srccheck);
	}
	if (state == BPF_TCP_TIME_WAIT) {
		const struct inet_timewait_sock *tw =
			bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct inet_timewait_sock));

		return BPF_CORE_READ_BITFIELD(tw, tw_transparent);
	}
	return sock_transparent(sk);
}

/* How long the tuple is. */
static __always_inline __u32 make_tuple(struct bpf_sock_tuple *t, const struct packet *p)
{
	if (p->family == 4) {
		t->ipv4.saddr = p->src.w[3];
		t->ipv4.daddr = p->dst.w[3];
		t->ipv4.sport = p->sport;
		t->ipv4.dport = p->dport;
		return sizeof(t->ipv4);
	}
	__builtin_memcpy(t->ipv6.saddr, &p->src, 16);
	__builtin_memcpy(t->ipv6.daddr, &p->dst, 16);
	t->ipv6.sport = p->sport;
	t->ipv6.dport = p->dport;
	return sizeof(t->ipv6);
}

/* The same without a source port: no connection, but a listener is found by it. */
static __always_inline __u32 make_listener_tuple(struct bpf_sock_tuple *t, const struct packet *p,
						 const volatile struct tp_to *to)
{
	struct packet q = {.family = p->family, .src = p->src, .dport = p->dport, .dst = p->dst};

	if (to) {
		q.dst.d[0] = to->addr.d[0];
		q.dst.d[1] = to->addr.d[1];
		q.dport = bpf_htons(to->port);
	}
	return make_tuple(t, &q);
}

/* --- verdicts --- */

/* The socket has the packet by now: into the stack with it. */
static __always_inline int into_stack(struct __sk_buff *skb)
{
	skb->mark = TP_MARK;
	if (conf.hook != TP_TCX_EGRESS)
		return ACT_PASS;
	/* The frame is for the next hop. Its source is the device that it shall come from now. */
	if (conf.l2_len) {
		__u8 mac[6];

		if (bpf_skb_load_bytes(skb, 6, mac, 6) ||
		    bpf_skb_store_bytes(skb, 0, mac, 6, 0))
			return ACT_DROP;
	}
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static __always_inline bool checksum_partial(struct __sk_buff *skb)
{
	struct sk_buff *kskb = bpf_cast_to_kern_ctx(skb);

	return BPF_CORE_READ_BITFIELD(kskb, ip_summed) == CHECKSUM_PARTIAL;
}

struct reset4 {
	struct iphdr ip;
	struct tcphdr tcp;
};

struct reset6 {
	struct ipv6hdr ip;
	struct tcphdr tcp;
};

struct unreachable4 {
	struct iphdr ip;
	struct icmphdr icmp;
	__u8 quoted[sizeof(struct iphdr) + 8];
};

struct unreachable6 {
	struct ipv6hdr ip;
	struct icmp6hdr icmp;
	__u8 quoted[sizeof(struct ipv6hdr) + 8];
};

/* Where an answer begins, and whether a device or the stack is still to finish its checksum. */
static __always_inline __u16 closed(struct __sk_buff *skb, __u64 pseudo, void *l4, __u32 len)
{
	if (checksum_partial(skb))
		return fold(pseudo);
	return ~fold(bpf_csum_diff(NULL, 0, l4, len, fold(pseudo)));
}

/* Back to where the packet came from. */
static __always_inline int send_back(struct __sk_buff *skb, const void *answer, __u32 len)
{
	__u8 mac[12];

	if (bpf_skb_store_bytes(skb, conf.l2_len, answer, len,
				BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH))
		return ACT_DROP;
	if (conf.l2_len) {
		if (bpf_skb_load_bytes(skb, 6, mac, 6) || bpf_skb_load_bytes(skb, 0, mac + 6, 6) ||
		    bpf_skb_store_bytes(skb, 0, mac, 12, 0))
			return ACT_DROP;
	}
	return bpf_redirect(skb->ifindex, conf.hook == TP_TCX_EGRESS ? BPF_F_INGRESS : 0);
}

static __always_inline void ip4_header(struct iphdr *ip, const struct packet *p, __u32 len,
				       __u8 protocol)
{
	*ip = (struct iphdr){
		.version = 4,
		.ihl = 5,
		.tot_len = bpf_htons(len),
		.frag_off = bpf_htons(IP_DF),
		.ttl = TTL,
		.protocol = protocol,
		.saddr = p->dst.w[3],
		.daddr = p->src.w[3],
	};
	ip->check = ~fold(bpf_csum_diff(NULL, 0, (void *)ip, sizeof(*ip), 0));
}

static __always_inline void ip6_header(struct ipv6hdr *ip, const struct packet *p, __u32 len,
				       __u8 protocol)
{
	*ip = (struct ipv6hdr){
		.version = 6,
		.payload_len = bpf_htons(len - sizeof(*ip)),
		.nexthdr = protocol,
		.hop_limit = TTL,
	};
	__builtin_memcpy(&ip->saddr, &p->dst, 16);
	__builtin_memcpy(&ip->daddr, &p->src, 16);
}

static __always_inline void rst_header(struct tcphdr *tcp, const struct packet *p)
{
	__builtin_memset(tcp, 0, sizeof(*tcp));
	tcp->source = p->dport;
	tcp->dest = p->sport;
	tcp->doff = sizeof(*tcp) / 4;
	tcp->rst = 1;
	if (p->ack) {
		tcp->seq = bpf_htonl(p->ack_seq);
	} else {
		tcp->ack = 1;
		tcp->ack_seq = bpf_htonl(p->seq + p->syn + p->fin + p->payload);
	}
}

/* The sum of the pseudo header. */
static __always_inline __u64 pseudo_header(const struct packet *p, __u32 len, __u8 protocol)
{
	struct {
		struct tp_addr a, b;
		__be32 len, protocol;
	} h = {.len = bpf_htonl(len), .protocol = bpf_htonl(protocol)};

	if (p->family == 4) {
		h.a.w[0] = p->src.w[3];
		h.b.w[0] = p->dst.w[3];
	} else {
		h.a = p->src;
		h.b = p->dst;
	}
	return bpf_csum_diff(NULL, 0, (void *)&h, sizeof(h), 0);
}

static __always_inline int unreachable6(struct __sk_buff *skb, const struct packet *p)
{
	struct unreachable6 a = {
		.icmp = {.icmp6_type = ICMP6_UNREACHABLE, .icmp6_code = ICMP6_PORT}};
	const __u32 len = sizeof(a) - sizeof(a.ip);
	__u64 pseudo;

	if (bpf_skb_load_bytes(skb, conf.l2_len, a.quoted, sizeof(a.quoted)) ||
	    bpf_skb_change_tail(skb, conf.l2_len + sizeof(a), 0))
		return ACT_NEXT;
	ip6_header(&a.ip, p, sizeof(a), IPPROTO_ICMPV6);
	pseudo = pseudo_header(p, len, IPPROTO_ICMPV6);
	a.icmp.icmp6_cksum = ~fold(bpf_csum_diff(NULL, 0, (void *)&a.icmp, len, fold(pseudo)));
	return send_back(skb, &a, sizeof(a));
}

/* A verdict, or ACT_NEXT: this cannot be answered. */
static __always_inline int answer(struct __sk_buff *skb, const struct packet *p)
{
	__u64 pseudo;

	if (!p->plain || p->fragment || p->rst)
		return ACT_NEXT;
	if (p->protocol == IPPROTO_TCP && p->family == 4) {
		struct reset4 a;

		if (bpf_skb_change_tail(skb, conf.l2_len + sizeof(a), 0))
			return ACT_NEXT;
		ip4_header(&a.ip, p, sizeof(a), IPPROTO_TCP);
		rst_header(&a.tcp, p);
		pseudo = pseudo_header(p, sizeof(a.tcp), IPPROTO_TCP);
		a.tcp.check = closed(skb, pseudo, &a.tcp, sizeof(a.tcp));
		return send_back(skb, &a, sizeof(a));
	}
	if (p->protocol == IPPROTO_TCP) {
		struct reset6 a;

		if (bpf_skb_change_tail(skb, conf.l2_len + sizeof(a), 0))
			return ACT_NEXT;
		ip6_header(&a.ip, p, sizeof(a), IPPROTO_TCP);
		rst_header(&a.tcp, p);
		pseudo = pseudo_header(p, sizeof(a.tcp), IPPROTO_TCP);
		a.tcp.check = closed(skb, pseudo, &a.tcp, sizeof(a.tcp));
		return send_back(skb, &a, sizeof(a));
	}
	if (p->family == 4) {
		struct unreachable4 a = {.icmp = {.type = ICMP_UNREACHABLE, .code = ICMP_PORT}};

		if (bpf_skb_load_bytes(skb, conf.l2_len, a.quoted, sizeof(a.quoted)) ||
		    bpf_skb_change_tail(skb, conf.l2_len + sizeof(a), 0))
			return ACT_NEXT;
		ip4_header(&a.ip, p, sizeof(a), IPPROTO_ICMP);
		a.icmp.checksum = ~fold(bpf_csum_diff(NULL, 0, (void *)&a.icmp,
						      sizeof(a) - sizeof(a.ip), 0));
		return send_back(skb, &a, sizeof(a));
	}
	return unreachable6(skb, p);
}

/* What the user chose for what cannot be given to the proxy. */
static __noinline int in_the_way(struct __sk_buff *skb, const struct packet *p, __u32 stat)
{
	__u32 done = TP_DROPPED;
	int rc = ACT_DROP;

	if (!p)
		return ACT_DROP;
	count(skb, stat);
	if (conf.missing == TP_PASS) {
		done = TP_PASSED;
		rc = ACT_NEXT;
		count(skb, done);
	} else if (conf.missing == TP_RESET) {
		rc = answer(skb, p);
		done = rc == ACT_NEXT || rc == ACT_DROP ? TP_DROPPED : TP_ANSWERED;
		if (rc == ACT_NEXT)
			rc = ACT_DROP;
		count(skb, done);
	} else {
		count(skb, done);
	}
	tell(p, stat, done);
	return rc;
}

/* --- the way of a packet --- */

#define GO_ON (-2) /* no verdict yet */

static __always_inline int assigned(struct __sk_buff *skb, const struct packet *p, long err,
				    __u32 stat)
{
	if (err)
		return in_the_way(skb, p, TP_NOT_ASSIGNED);
	count(skb, stat);
	if (stat == TP_CONNECTIONS || stat == TP_DATAGRAMS)
		tell(p, stat, stat);
	return into_stack(skb);
}

/* Whether a socket listens on the original destination: none of the proxy's. */
static __always_inline bool other_listens(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock_tuple tuple = {};
	__u32 len = make_listener_tuple(&tuple, p, NULL);
	struct bpf_sock *sk = bpf_sk_lookup_tcp(skb, &tuple, len, BPF_F_CURRENT_NETNS, 0);

	if (!sk)
		return false;
	bpf_sk_release(sk);
	return true;
}

static __always_inline int to_connection(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock_tuple tuple = {};
	__u32 len = make_tuple(&tuple, p), stat = TP_ESTABLISHED;
	struct bpf_sock *sk = bpf_skc_lookup_tcp(skb, &tuple, len, BPF_F_CURRENT_NETNS, 0);
	__u32 state;
	long err = 0;

	if (!sk)
		return GO_ON;
	state = sk->state;
	if (state == BPF_TCP_LISTEN || !conn_transparent(sk, state)) {
		bpf_sk_release(sk);
		return state == BPF_TCP_LISTEN ? GO_ON : ACT_NEXT;
	}
	if (p->fragment)
		stat = TP_FRAGMENT;
	else if (state == BPF_TCP_TIME_WAIT && p->syn && !p->ack && other_listens(skb, p))
		stat = TP_TIME_WAIT;
	else if (state == BPF_TCP_TIME_WAIT || state == BPF_TCP_NEW_SYN_RECV)
		err = bpf_sk_assign(skb, sk, 0);
	/* The stack finds any other by itself, and with it the route that was used before. */
	bpf_sk_release(sk);
	return stat == TP_ESTABLISHED ? assigned(skb, p, err, stat) : in_the_way(skb, p, stat);
}

/* To a UDP socket that is connected to the sender, as proxies have one for each flow. */
static __always_inline int to_connected(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock_tuple tuple = {};
	__u32 len = make_tuple(&tuple, p);
	struct bpf_sock *sk = bpf_sk_lookup_udp(skb, &tuple, len, BPF_F_CURRENT_NETNS, 0);
	bool connected, transparent;
	long err = 0;

	if (!sk)
		return GO_ON;
	connected = sk->state == BPF_TCP_ESTABLISHED;
	transparent = sock_transparent(sk);
	if (connected && transparent && !p->fragment)
		err = bpf_sk_assign(skb, sk, 0);
	bpf_sk_release(sk);
	if (!connected)
		return GO_ON;
	if (!transparent)
		return ACT_NEXT;
	return p->fragment ? in_the_way(skb, p, TP_FRAGMENT) :
			     assigned(skb, p, err, TP_ESTABLISHED);
}

/*
 * With what it takes: a reference to the socket. Without IP_TRANSPARENT a listener could not
 * answer. That does not matter where the destination is its own address, as it is in a pod.
 */
static __always_inline int give_tcp(struct __sk_buff *skb, const struct packet *p,
				    struct bpf_sock *sk)
{
	bool transparent = conf.hook == TP_NETKIT_PRIMARY || sock_transparent(sk);
	long err = 0;

	if (transparent)
		err = bpf_sk_assign(skb, sk, 0);
	bpf_sk_release(sk);
	if (!transparent)
		return in_the_way(skb, p, TP_NOT_TRANSPARENT);
	return assigned(skb, p, err, p->syn && !p->ack ? TP_CONNECTIONS : TP_SEGMENTS);
}

static __always_inline int give_udp(struct __sk_buff *skb, const struct packet *p,
				    struct bpf_sock *sk)
{
	long err = bpf_sk_assign(skb, sk, 0);

	bpf_sk_release(sk);
	return assigned(skb, p, err, TP_DATAGRAMS);
}

static __always_inline int to_listener(struct __sk_buff *skb, const struct packet *p)
{
	const volatile struct tp_to *to = &conf.to[p->family == 6];
	bool tcp = p->protocol == IPPROTO_TCP;
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	__u32 key, len;

	key = (tcp ? TP_TCP4 : TP_UDP4) + (p->family == 6);
	sk = bpf_map_lookup_elem(&tp_listeners, &key);
	if (sk)
		return tcp ? give_tcp(skb, p, sk) : give_udp(skb, p, sk);
	if (!to->port)
		return in_the_way(skb, p, TP_NO_LISTENER);
	len = make_listener_tuple(&tuple, p, to);
	if (tcp) {
		sk = bpf_sk_lookup_tcp(skb, &tuple, len, BPF_F_CURRENT_NETNS, 0);
		if (sk)
			return give_tcp(skb, p, sk);
	} else {
		sk = bpf_sk_lookup_udp(skb, &tuple, len, BPF_F_CURRENT_NETNS, 0);
		if (sk)
			return give_udp(skb, p, sk);
	}
	return in_the_way(skb, p, TP_NO_LISTENER);
}

/* At tcx/egress: whether the packet is of a transparent socket of this very stack. */
static __always_inline bool of_proxy(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return false;
	sk = bpf_sk_fullsock(sk);
	return sk && sock_transparent(sk);
}

SEC("tcx/ingress")
int tproxy_divert(struct __sk_buff *skb)
{
	struct packet p = {};
	int rc;

	/* The mark is the way to every socket of this host: nobody else shall set it. */
	if (conf.hook != TP_TCX_EGRESS && skb->mark == TP_MARK)
		skb->mark = 0;
	rc = parse(skb, &p);
	if (rc == NOT_OURS)
		return ACT_NEXT;
	if (rc == BROKEN)
		return in_the_way(skb, &p, TP_MALFORMED);
	if (excepted_sender(skb)) {
		count(skb, TP_BY_SENDER);
		return ACT_NEXT;
	}
	if (conf.hook == TP_TCX_EGRESS && of_proxy(skb)) {
		count(skb, TP_BY_PROXY);
		return ACT_NEXT;
	}
	rc = p.protocol == IPPROTO_TCP ? to_connection(skb, &p) : to_connected(skb, &p);
	if (rc != GO_ON)
		return rc;
	switch (by_rule(&p)) {
	case REDIRECT:
		break;
	case EXCEPT:
		count(skb, TP_BY_ADDRESS);
		return ACT_NEXT;
	default:
		return ACT_NEXT;
	}
	if (p.fragment)
		return in_the_way(skb, &p, TP_FRAGMENT);
	return to_listener(skb, &p);
}
