/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * netpol: a policy as the table of progs/netpol.h, and what is read from a table.
 */
#ifndef NETPOL_TABLE_H
#define NETPOL_TABLE_H

#include <stdbool.h>
#include <linux/types.h>

#include "netpol.h"
#include "netpol-rules.h"

/* What the rules look at in a packet. */
struct np_packet {
	__u8 family;		/* 4 or 6 */
	__u8 proto;
	__u8 dir;		/* enum np_dir */
	__u8 pad;
	__u16 sport;		/* host byte order, 0 without ports */
	__u16 sel;		/* destination port, or ICMP type << 8 | code, or 0 */
	__be32 src[4];		/* IPv4: the first word */
	__be32 dst[4];
};

/*
 * Compile a policy. *words is the whole value of a map of *tier: malloc'd, *nwords
 * = np_tier_bytes(*tier) / 4, zero behind what is used. slots[i] is rule i's.
 * 0, -EINVAL (too big or nested too deep; err tells where and what to do), -ENOMEM.
 */
int np_table_build(const struct np_policy *p, const __u32 *slots, __u32 gen,
		   __u32 **words, __u32 *nwords, int *tier, struct np_error *err);

/*
 * The lookup of the BPF program: the verdict (enum np_verdict), and the index of
 * the rule, or NP_NONE if the default decides.
 */
int np_table_match(const __u32 *words, const struct np_packet *pkt, __u32 *rule);

/* NULL if the n words are a table that every lookup is safe in, else what is wrong. */
const char *np_table_check(const __u32 *words, __u32 n);

/*
 * Rules that can match no packet, because earlier rules match all of theirs: their
 * number, the lowest of their indices in rules[max]. 0 as well if memory is short.
 * Rules that a source port condition of an earlier rule hides are not found.
 */
__u32 np_table_shadowed(const __u32 *words, __u32 *rules, __u32 max);

/*
 * Counter slots for the rules of a policy: new_slots[nrules], 1 and up. Rules with
 * `count NAME` have one slot for the name; others one each, by their text and how
 * many rules before have the same text. What had a slot in `old` (or NULL) keeps
 * it; a slot that old uses goes to nothing else, so that counts do not mix while
 * the table is swapped. fresh[i] (if not NULL): the slot is not from old and must
 * be zeroed. *high: the highest slot of new_slots, 0 without rules.
 * 0, -ENOSPC if all slots are in use, -ENOMEM.
 */
int np_slots_assign(const struct np_policy *new, const struct np_policy *old,
		    const __u32 *old_slots, __u32 *new_slots, bool *fresh, __u32 *high);

#endif
