/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * netpol's rule language: text to policy and back.
 *
 *	default allow|deny|next [log]
 *	set NAME = { ELEM [, ELEM]... [,] }
 *	allow|deny|next [in|out] [PROTO [, PROTO]...] [type TYPE[/CODE] [, ...]]
 *		[from SIDE] [to SIDE] [log] [count [NAME]]
 *	ELEM = ADDR | ADDR/LEN | ADDR-ADDR | @SET
 *	SIDE = [ELEM [, ELEM]... | { ELEM, ... }] [port PORT[-PORT] [, ...]]
 *
 * One statement a line; only inside braces it goes on over following lines. A
 * set must be defined above the line that names it.
 *
 * C indices of rules count from 0; numbers that a user reads or types count
 * from 1. Arrays hang on the policy and live as long as it does.
 */
#ifndef NETPOL_RULES_H
#define NETPOL_RULES_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <jansson.h>

#include "netpol.h"

#define NP_MAX_RULES	(1u << 20)
#define NP_MAX_LINE	65536u		/* bytes, without the line's end */
#define NP_MAX_TEXT	(256u << 20)	/* bytes */
#define NP_MAX_ELEMS	(1u << 23)	/* prefixes written out in a policy */
#define NP_NAME_LEN	32

struct np_prefix {
	__u8 family;			/* 4 or 6 */
	__u8 plen;
	__u16 pad;
	__be32 addr[4];			/* IPv4 in addr[0], the rest 0 */
};

struct np_range {
	__u16 lo, hi;			/* ports, or ICMP type << 8 | code */
};

struct np_span {
	__u32 off, len;
};

struct np_rule {
	enum np_verdict verdict;
	signed char dir;		/* -1 both, NP_IN, NP_OUT */
	bool log;
	__u16 nproto;			/* 0: any; sorted, no duplicates */
	const __u8 *proto;
	__u32 nfrom, nto;		/* 0: any; sorted, disjoint, shared with sets */
	const struct np_prefix *from, *to;
	__u32 nsport, nsel;		/* 0: any; sorted, disjoint */
	const struct np_range *sport, *sel;	/* sel: destination port or ICMP type, code */
	const char *counter;		/* count NAME, or NULL */
	const char *text;		/* canonical */
	__u32 line;			/* of the first word, from 1 */
	struct np_span src;		/* first to last word in the policy's text */
	struct np_span from_text, to_text;	/* address lists in .text, len 0: any */
};

struct np_set {
	const char *name;
	__u32 n;			/* never 0 */
	const struct np_prefix *elems;	/* sorted, disjoint */
	__u32 line;
};

struct np_policy {
	bool has_default;
	enum np_verdict dflt;
	bool default_log;
	bool stateless;			/* not part of the language: for the tool */
	__u32 default_line;
	__u32 nrules;
	struct np_rule *rules;
	__u32 nsets;
	struct np_set *sets;
	struct np_mem *mem;
};

/* line 0: about the text as a whole; col 0: about the line; both count from 1, col in bytes. */
struct np_error {
	unsigned int line, col;
	char msg[256];
	char hint[256];			/* what to do next, or "" */
};

/*
 * All or nothing. 0, -EINVAL (err is filled in) or -ENOMEM. The text need not
 * end in a NUL and is not referred to later.
 */
int np_policy_parse(const char *text, size_t len, struct np_policy **policy, struct np_error *err);
void np_policy_free(struct np_policy *policy);

/*
 * One rule that may name the sets of a policy; its memory belongs to the policy,
 * it does not become one of its rules. Positions in err refer to this text.
 */
int np_rule_parse(struct np_policy *policy, const char *text, size_t len, struct np_rule *rule,
		  struct np_error *err);

/*
 * Fill in err and return -EINVAL, for errors that only show after parsing. hint
 * may be NULL.
 */
int np_error_set(struct np_error *err, unsigned int line, unsigned int col, const char *hint,
		 const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* FILE:LINE:COL: message, the line, a caret, the hint. text may be NULL. */
int np_error_print(FILE *f, const char *file, const char *text, size_t len,
		   const struct np_error *err);

/*
 * Edit a policy and the text that np_policy_parse() has made it of; all else keeps
 * its layout and comments. What comes of it equals what a parse of the new text would
 * give; the new policy shares memory with the old one, and either may be freed first.
 * 0, -EINVAL (positions refer to the text of the rule), -ENOENT (no such rule; err is
 * filled in too) or -ENOMEM, with nothing to free.
 */
struct np_edit {
	char *text;			/* NUL behind it, not counted in len */
	size_t len;
	struct np_policy *policy;
};

enum np_where { NP_AT_END, NP_BEFORE, NP_AFTER };
int np_policy_add(struct np_policy *policy, const char *text, size_t len, enum np_where where,
		  __u32 number, const char *rule, size_t rule_len, struct np_edit *edit,
		  struct np_error *err);
/* which: a number, or a rule, which is compared by its canonical text. */
int np_policy_del(struct np_policy *policy, const char *text, size_t len, const char *which,
		  size_t which_len, struct np_edit *edit, struct np_error *err);
void np_edit_free(struct np_edit *edit);

/* "NUMBER  CANONICAL TEXT" a line, then the default if the policy has one. */
int np_policy_print_rules(FILE *f, const struct np_policy *policy);
/*
 * {default, default_log, sets: {NAME: [PREFIX...]}, rules: [np_rule_json...]};
 * NULL: no memory.
 */
json_t *np_policy_json(const struct np_policy *policy);
json_t *np_rule_json(const struct np_rule *rule, __u32 number);

/* Names as the language has them; NULL: it knows none, use the number. */
const char *np_verdict_name(enum np_verdict verdict);
const char *np_dir_name(int dir);
const char *np_proto_name(__u8 proto);
const char *np_icmp_name(__u8 proto, __u8 type);	/* proto: IPPROTO_ICMP, IPPROTO_ICMPV6 */

/* Lookups by name, -1: not known. */
int np_proto_number(const char *name, size_t len);
int np_icmp_number(__u8 proto, const char *name, size_t len);

/* A whole address, /32 or /128. */
bool np_addr_parse(const char *s, size_t len, struct np_prefix *p);
/* A decimal number without sign or leading zeros; -1: not one, or above max. */
long np_number(const char *s, size_t len, unsigned long max);

/* The known word nearest to this one, or NULL. words ends in NULL. */
const char *np_nearest(const char *word, size_t len, const char *const *words);

#define NP_PREFIX_STR	56
/* Canonical form, /32 and /128 dropped; returns buf. */
char *np_prefix_str(char buf[NP_PREFIX_STR], const struct np_prefix *prefix);

#endif
