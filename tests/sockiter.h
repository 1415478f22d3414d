/* SPDX-License-Identifier: GPL-2.0-only */
/* Between sockiter.c, who asks, and sockiter.bpf.c, which answers in the same place. */
#ifndef SOCKITER_H
#define SOCKITER_H

enum {
	SOCKITER_ONE,		/* one pass over the sockets of all namespaces */
	SOCKITER_NESTED,	/* for each namespace one over its own */
	SOCKITER_NETS,		/* namespaces only */
	SOCKITER_MATCH,		/* one pass over those that the kernel finds to match */
	SOCKITER_MATCH_NESTED,	/* for each namespace one over those of its own */
};

/* As struct bpf_sk_match */
struct sockiter_match {
	__u16 proto;
	__u16 family;
	__be16 dport;
	__u16 flags;
	__u32 states;
	__be32 daddr[4];
};

struct sockiter_req {
	__u32 mode;
	__u32 proto;
	__u16 lport;		/* sockets with one of these ports match; host order */
	__u16 dport;
	__u32 kill;
	__u32 walks;		/* number of loops over sockets */
	__u32 nets;
	__u32 seen;
	__u32 matched;
	__u32 killed;
	__u32 busy;
	__u32 gone;
	__s32 made;		/* what bpf_iter_*_new() said, the last time */
	__s32 err;		/* of an iterator, or the last one of bpf_sock_destroy() */
	struct sockiter_match match;
	__u32 match_size;	/* bytes, at most those of two; 0: of one */
};

_Static_assert(sizeof(struct sockiter_req) == 84, "no padding");

#endif
