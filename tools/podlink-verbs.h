/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * podlink: what its verbs share.
 */
#ifndef PODLINK_VERBS_H
#define PODLINK_VERBS_H

#include "common.h"
#include "podlink-net.h"
#include "podlink-path.h"

#define PL_ADDRS_MAX	16
#define PL_ALIAS	"podlink"	/* with the pod's namespace behind it: a link of ours */

extern struct pl_env {
	struct pl_ns host;		/* the network namespace that podlink runs in */
	const char *netns, *peer_name, *uplink;
	enum pl_kind kind;
	int mode;
	struct pl_cidr addr[PL_ADDRS_MAX], gateway[2];
	__u32 naddr, ngateway;
	__u8 mac[6], peer_mac[6];
	bool has_mac, has_peer_mac;
	__s64 mtu, gso_max, headroom, tailroom;	/* bytes; -1: not told */
	int policy, peer_policy, scrub;
	bool of_netkit;			/* told something that only netkit has */
	bool forward, fix, ignore_missing;
	const char *contenders, *paths;	/* lists of bench; NULL: all */
	__u32 rounds, count, seconds;
} env;

bool pl_ours(const struct pl_link *link);
/* A link of ours, by name, or a message. */
int pl_find(struct pl_ns *ns, const char *name, struct pl_link *link);
/* The namespace that the alias tells; "": none. */
const char *pl_pod_path(const struct pl_link *link);
/* That namespace, and the other end in it. NOTHING: it is not there any more. */
int pl_pod_of(struct pl_ns *host, const struct pl_link *link, struct pl_ns *pod,
	      struct pl_link *peer);

int verb_add(int argc, char **argv);
int verb_show(int argc, char **argv);
int verb_doctor(int argc, char **argv);
int verb_bench(int argc, char **argv);

#endif
