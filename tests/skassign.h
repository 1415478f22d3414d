/* SPDX-License-Identifier: GPL-2.0-only */
/* What skassign.c tells the programs of skassign.bpf.c to do, and what they tell it. */
#ifndef SKASSIGN_H
#define SKASSIGN_H

/* The programs, each with a job and a report of its own. */
enum { AT_INGRESS, AT_EGRESS, AT_NETKIT, AT_TEST_RUN, __AT_MAX };

enum {
	SKASSIGN_LOOKUP,	/* what listens at the proxy's own address */
	SKASSIGN_MAP,		/* what is in the map, of whatever namespace */
	SKASSIGN_REQSK,		/* a request socket of the listener, tcx ingress only */
	SKASSIGN_NONE,		/* no socket */
};

enum { SKASSIGN_RETURN, SKASSIGN_REDIRECT, SKASSIGN_PEER, SKASSIGN_NEIGH };

enum { SKASSIGN_DROP = -1, SKASSIGN_ANY = -2 };

struct skassign_job {
	__u64 flags;		/* of bpf_sk_assign() */
	__u64 redirect_flags;
	__u32 how;
	__u32 then;
	__s32 verdict;		/* what SKASSIGN_RETURN returns */
	__u32 ifindex;
	__u32 mark;
	__u16 port;		/* packets to this port; host order, 0: to none */
	__u16 proxy;		/* the proxy's port */
	__u8 mac[6];		/* the new destination, if not zero */
	__u8 pad[2];
};

struct skassign_report {
	__u32 seen;
	__u32 assigned;
	__s32 err;		/* what bpf_sk_assign() returned last */
	__s32 refs;		/* and what it added to the references of the socket */
};

_Static_assert(sizeof(struct skassign_job) == 48, "no padding");

#endif
