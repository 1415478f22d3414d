/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * podlink: what the programs and the tool share. The tool writes the endpoint table,
 * the programs read it; the programs count, the tool reads.
 */
#ifndef PODLINK_H
#define PODLINK_H

/* An IPv6 address, or an IPv4 one as ::ffff:a.b.c.d. */
struct pl_addr {
	union {
		__u8 b[16];
		__u32 w[4];
		__u64 d[2];
	};
};

/* A pod as its neighbours reach it. Both MACs are zero for netkit in L3 mode. */
struct pl_pod {
	__u32 ifindex;	  /* of the end in the host's network namespace */
	__u8 mac[6];	  /* of the end in the pod */
	__u8 host_mac[6]; /* of the end in the host's */
};

_Static_assert(sizeof(struct pl_pod) == 16, "no padding");

enum pl_stat {
	PL_TO_POD,     /* from a pod to a pod of this host */
	PL_TO_UPLINK,  /* from a pod, out of the uplink */
	PL_TO_STACK,   /* from a pod, left to the host's stack */
	PL_FROM_STACK, /* from the host's stack to the pod */
	PL_ANSWERED,   /* ARP and neighbour solicitations of the pod */
	PL_DENIED,     /* dropped: the host's routes forbid it */
	PL_STATS_MAX,
};

struct pl_count {
	__u64 packets;
	__u64 bytes; /* with the link-layer header */
};

#endif
