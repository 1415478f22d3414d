/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Passes over all sockets: by one program where the kernel has the iterators, else by a walk in
 * each network namespace that can be entered. Passes are repeated until nothing that matches is
 * left, or time is up.
 */
#ifndef SOCKKILL_PASS_H
#define SOCKKILL_PASS_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>

#include "sockkill-filter.h"
#include "sockkill-netns.h"

/* What to look for, and what to do with it. */
struct sk_job {
	const struct sk_filter *filter;
	__u32 states;			/* mask; none of them: nothing is found */
	bool want[2][2];		/* [TCP, UDP][IPv4, IPv6] */
	const __u32 *netns;		/* inode numbers; none: all */
	size_t nnetns;
	const struct sk_endpoint *backends;	/* for the op SK_BACKEND */
	size_t nbackends;
	bool kernel_socks;
	bool recorded;			/* only who reached its peer by a service */
	int records;			/* the recorder's map; -1: there is none */
	bool destroy;
	bool per_netns;			/* as if the kernel had no iterators over all */
	__u32 deadline;			/* ms, for what is busy; 0: one pass */
};

struct sk_netns_total {
	__u32 netns;
	__u64 seen;			/* in the first pass */
	__u64 matched, destroyed, gone, busy, failed, unrecorded;
};

struct sk_unreachable {
	__u32 netns;			/* 0: of unknown number */
	int err;			/* an errno */
};

/* What was found, in the end: a victim that was busy first and then destroyed is there once. */
struct sk_result {
	struct sk_victim *victim;
	struct sk_file *owner;		/* of each victim; pid 0: not known */
	size_t n;
	struct sk_netns_total *total;	/* by number, ascending; only where a socket was seen */
	size_t ntotals;
	__u64 untold;			/* matched in the last pass, and left alone */
	__u32 passes;
	bool one_pass;			/* each of them over all namespaces at once */
	int incomplete;			/* an errno: the last one has left sockets out */
	struct sk_unreachable *unreachable;
	size_t nunreachable;
};

/* DONE, or FAILED or LACKING and a message. The result has to be freed in any case. */
int sk_pass(const struct sk_job *job, struct sk_result *result);
void sk_result_free(struct sk_result *result);

/* What this kernel has: the iterators of kernel/sockkill, and bpf_sock_destroy(). */
bool sk_has_iterators(void);
bool sk_has_destroy(void);

#endif
