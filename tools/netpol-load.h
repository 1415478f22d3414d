/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * netpol: the policy of an instance: reading it back, replacing it, its counters.
 */
#ifndef NETPOL_LOAD_H
#define NETPOL_LOAD_H

#include <net/if.h>
#include "netpol-dev.h"
#include "netpol-table.h"

#define NP_TEXT_MAGIC	0x4e505431u	/* "NPT1" */

enum np_text_flags {
	NP_TEXT_DEFAULT		= 1,	/* .dflt is the default, the text has none */
	NP_TEXT_STATELESS	= 2,
};

/* In front of the compressed text. */
struct np_text {
	__u32 magic;
	__u32 gen;
	__u32 len;			/* of the text */
	__u32 zlen;			/* of what follows */
	__u32 flags;
	__u32 dflt;
	char ifname[IF_NAMESIZE];	/* of the device when it was loaded, for messages */
};

/* What is in force. */
struct np_live {
	__u32 *words;
	__u32 nwords;
	__u32 tier;
	struct np_text head;
	char *text;
	struct np_policy *policy;	/* of the text, with the default and state asked for */
	__u32 *slots;			/* per rule */
};

/*
 * parse unset: leave .policy and .slots alone. 0; -ENOENT: nothing was ever loaded; -EUCLEAN: what
 * is there cannot be read, *why tells; or -errno.
 */
int np_live_read(const char *dir, bool parse, struct np_live *live, const char **why);
void np_live_free(struct np_live *live);

/* A policy to be loaded. -1: not told, keep what is in force. */
struct np_want {
	const char *file;		/* for messages */
	const char *text;
	size_t len;
	int dflt;			/* enum np_verdict */
	int stateless;
	__u32 adopt;			/* seconds, 0: off */
	__u32 flows;			/* entries of the flow table of a new instance, 0: usual */
	struct np_live *live;		/* in force, read under the lock and parsed; or NULL */
	struct np_policy *policy;	/* what .text says; NULL: to be parsed */
};

struct np_loaded {
	bool unchanged;
	__u32 gen, nrules, bytes;	/* bytes of the table in use */
	__u32 kept;			/* rules whose counters go on */
	enum np_verdict dflt;
	bool stateless;
};

/*
 * Put a policy in force for all programs that use the maps in dir; dir NULL: only
 * look whether it is good. Messages are printed. Returns an exit code.
 */
int np_load(const char *dir, const char *ifname, const struct np_want *want, bool dry_run,
	    struct np_loaded *loaded);

/* Sum over the CPUs for slots 0..n - 1. 0 or -errno. */
int np_counts_read(const char *dir, __u32 n, struct np_count *counts);
int np_stats_read(const char *dir, struct np_count stats[__NP_S_MAX]);
/* counts[] of one page's map. */
int np_page_read(int fd, __u32 n, struct np_count *counts);
/* The highest slot that a table names, and one more. */
__u32 np_slots_used(const __u32 *words);

/*
 * For maps without pins: put a table in, with counters. The body for its tier is up to
 * the caller: np_body_put(). 0 or -errno.
 */
int np_table_put(struct netpol *skel, const __u32 *words, __u32 nwords, int tier, __u32 nslots);

#endif
