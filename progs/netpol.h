/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * netpol: what the BPF program and the tool share.
 *
 * Written by the tool, read by the program: the policy table, np_state.
 * Written by the program, read by the tool: np_flow, np_frag, np_count, np_event.
 * All words are in host byte order unless their type says __be.
 */
#ifndef NETPOL_H
#define NETPOL_H

/*
 * The policy table is one map value of np_tier_bytes(tier) bytes: an array of
 * __u32 words, NP_H_WORDS of header, then arrays at the word offsets that the
 * header gives. One pointer reaches all of it, so a packet sees one rule set.
 *
 * Addresses. Rules name prefixes on two sides: source and destination. The side
 * on which they name more is "major" (NP_F_DST_MAJOR: the destination), the
 * other is "minor". Each side has a tree of classes: class 0 is "any address of
 * either family", every other class is a prefix. A class exists only if a
 * rule uses it, and knows its parent, the next shorter prefix that has a class
 * (NP_NONE above the last). Four dimensions map an address to its
 * longest class: sorted, disjoint ranges; an address in no range has class
 * NP_D_BASE (0 or NP_NONE).
 *
 * Rules. A rule belongs to each pair (major class, minor class) that it names;
 * a pair that has rules is a group. With NP_F_MINOR the groups of major class c
 * are group[cls[c].first] up to group[cls[c + 1].first], sorted by
 * minor class, and the cells of group g are group[g].first up to
 * group[g + 1].first; without it no rule names a minor address
 * and the cells of class c are cls[c].first up to cls[c + 1].first. The
 * cells of a group are disjoint ranges [lo, hi] of the key
 *	direction (NP_F_DIRS: enum np_dir, else 0) << 24 | protocol << 16 |
 *	destination port, or ICMP type << 8 | code, or 0
 * in ascending order. A cell names the first rule of its group that matches
 * there, or, with NP_CHAIN, a chain: rules in ascending order which
 * also look at the source port, ended by NP_LAST. Over all groups of
 * all ancestors, the lowest rule index wins.
 */
#define NP_NONE		0xffffffffu
#define NP_CHAIN	0x80000000u	/* cell: an index into chain[] */
#define NP_LAST		0x80000000u	/* chain: no further entry */
#define NP_MAGIC	0x4e504c31u	/* "NPL1": bumped with any change of layout */

enum np_header {
	NP_H_MAGIC,
	NP_H_GEN,		/* generation, 1 and up; never the same twice on a device */
	NP_H_FLAGS,		/* NP_F_* */
	NP_H_DEFAULT,		/* action word (NP_A_*) for what no rule matches; slot 0 */
	NP_H_WORDS_USED,	/* words of the value that are in use */
	NP_H_NRULES,
	NP_H_RULES,		/* rule[n]: action word */
	NP_H_NCLASSES,
	NP_H_CLASSES,		/* {parent, first}[n + 1]; of the last one only `first` counts */
	NP_H_MINORS,		/* parent[n] of the minor classes */
	NP_H_NGROUPS,
	NP_H_GROUPS,		/* {minor class, first}[n + 1] */
	NP_H_NCELLS,
	NP_H_CELL_LO,		/* key[n] */
	NP_H_CELL_HI,		/* key[n] */
	NP_H_CELL_RULE,		/* rule index or NP_CHAIN | chain index, [n] */
	NP_H_CHAINS,		/* {rule index | NP_LAST, source port low << 16 | high}[] */
	NP_H_WALK,		/* (major, minor) pairs looked at for one packet, at most */
	NP_H_DIM,		/* enum np_dim times NP_D_WORDS */
};

enum np_dim { NP_DIM_MAJOR4, NP_DIM_MINOR4, NP_DIM_MAJOR6, NP_DIM_MINOR6, __NP_DIM_MAX };

/*
 * One dimension. IPv4: start[n], end[n], class[n] of one word each.
 * IPv6: start[n], end[n] of two 64-bit halves each, high half first, at an even
 * word offset; class[n] of one word. Ranges are inclusive.
 */
enum np_dim_word { NP_D_N, NP_D_START, NP_D_END, NP_D_CLASS, NP_D_BASE, NP_D_WORDS };

#define NP_H_WORDS	64
_Static_assert(NP_H_DIM + __NP_DIM_MAX * NP_D_WORDS <= NP_H_WORDS, "header");

#define NP_F_STATELESS	(1u << 0)
#define NP_F_DST_MAJOR	(1u << 1)
#define NP_F_MINOR	(1u << 2)	/* groups in use */
#define NP_F_DIRS	(1u << 3)	/* the direction is part of the key */

/* Action word: what to do, and where to count it. */
#define NP_A_SLOT	0x00ffffffu
#define NP_A_VERDICT	0x03000000u	/* enum np_verdict << 24 */
#define NP_A_LOG	0x04000000u
#define NP_A_SHIFT	24

enum np_verdict { NP_DENY, NP_ALLOW, NP_NEXT };
enum np_hook { NP_TCX_INGRESS, NP_TCX_EGRESS, NP_PRIMARY, NP_PEER, NP_HOOKS };
enum np_dir { NP_IN, NP_OUT };	/* into the host by the device, out of it */

/*
 * Sizes of the value: 4 KiB, 16 KiB, 64 KiB, then doubling to 16 MiB. Each tier
 * is a map of maps with one entry; np_state says which is live.
 */
#define NP_TIERS	11
#define np_tier_bytes(t) ((t) < 2 ? 4096u << (2 * (t)) : 16384u << (t))

/* At most so many (major, minor) class pairs are looked at for a packet. */
#define NP_WALK_MAX	64
/* Entries of a chain. */
#define NP_CHAIN_MAX	64

/* IPv6 extension headers and VLAN tags that are walked. */
#define NP_EXT_MAX	6
#define NP_VLAN_MAX	2

/* Entries of the maps, where the tool has no better number. */
#define NP_FLOWS	16384
#define NP_FRAGS	1024
#define NP_BUCKETS	1024
#define NP_EVENTS_BYTES	65536

struct np_state {
	__u32 tier;		/* the live one; NP_NONE: no policy, everything is denied */
	__u32 adopt_until;	/* seconds of CLOCK_MONOTONIC_COARSE, 0: off */
	__u32 l2_len;		/* of the device, for bodies loaded later */
};

/*
 * A flow as it is seen from the device, so that both directions have one key.
 * IPv4 addresses fill the first word and leave the rest zero. ICMP echo has its
 * identifier in both ports.
 */
struct np_flow_key {
	__be32 remote[4];
	__be32 local[4];
	__be16 rport;
	__be16 lport;
	__u8 proto;
	__u8 family;		/* 4 or 6 */
	__u16 pad;
};
_Static_assert(sizeof(struct np_flow_key) == 40, "np_flow_key");

enum np_flow_flags {
	NP_FLOW_OUT	= 1,	/* began in direction NP_OUT */
	NP_FLOW_REPLIED	= 2,
	NP_FLOW_FIN	= 4,	/* FIN of the side that began */
	NP_FLOW_RFIN	= 8,	/* FIN of the other side */
	NP_FLOW_RST	= 16,
};

struct np_flow {
	__u32 gen;		/* of the policy that decided */
	__u32 action;		/* action word that decided */
	__u32 seen;		/* seconds, CLOCK_MONOTONIC_COARSE */
	__u16 sel;		/* low half of the key it was decided with, for ICMP */
	__u8 flags;		/* enum np_flow_flags */
	__u8 pad;
};
_Static_assert(sizeof(struct np_flow) == 16, "np_flow");

/* A fragmented datagram: what its first fragment was told. */
struct np_frag_key {
	__be32 src[4];
	__be32 dst[4];
	__be32 id;
	__u8 proto;		/* IPv4; 0 in IPv6, where the identification suffices */
	__u8 family;
	__u8 dir;
	__u8 pad;
};
_Static_assert(sizeof(struct np_frag_key) == 40, "np_frag_key");

struct np_frag {
	__u32 action;
	__u32 gen;
	__u32 seen;		/* seconds, CLOCK_MONOTONIC_COARSE */
};

/* Per CPU. Slot 0 counts the default. */
struct np_count {
	__u64 packets;
	__u64 bytes;		/* skb->len: from the link-layer header on */
};
#define NP_SLOT_PAGE	1024	/* slots in an inner map of np_counts */
#define NP_SLOT_PAGES	4096

/* Per CPU, struct np_count each, in map np_stats. A packet counts in one. */
enum np_stat {
	NP_S_ALLOW,		/* passed by a rule or the default */
	NP_S_FLOW,		/* passed by the flow table */
	NP_S_FRAGMENT,		/* passed as its first fragment was */
	NP_S_RELATED,		/* passed: an ICMP error about a live flow */
	NP_S_NEIGH,		/* passed: ARP or neighbour discovery, default is deny */
	NP_S_ADOPTED,		/* passed: a flow older than the policy (--adopt) */
	NP_S_NEXT,		/* no opinion */
	NP_S_DENY_POLICY,
	NP_S_DENY_MALFORMED,
	NP_S_DENY_FRAGMENT,	/* first fragment not seen */
	NP_S_DENY_MAP_FULL,	/* no room to remember a flow or fragment */
	NP_S_DENY_NONIP,	/* neither IP nor ARP, default is deny */
	NP_S_DENY_NO_POLICY,	/* no readable policy table */
	__NP_S_MAX
};

/* One logged packet. */
struct np_event {
	__u64 time;		/* ns, CLOCK_MONOTONIC */
	__u32 gen;
	__u32 rule;		/* index in the policy of that generation; NP_NONE: the default */
	__u32 ifindex;
	__u32 len;
	__u32 suppressed;	/* of this rule since the last event that was sent */
	__be32 src[4];
	__be32 dst[4];
	__be16 sport;
	__be16 dport;		/* ICMP: type, code */
	__u8 proto;
	__u8 family;
	__u8 dir;
	__u8 verdict;
	__u32 pad;
};
_Static_assert(sizeof(struct np_event) == 72, "np_event");

/* Events of one rule: a bucket of this many, refilled by one every 1/RATE s. */
#define NP_LOG_BURST	20
#define NP_LOG_RATE	10

struct np_bucket {
	__u64 time;		/* ns of the last refill */
	__u32 tokens;
	__u32 suppressed;
};

#endif
