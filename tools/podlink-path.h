/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * podlink: the datapath's programs and what is pinned of them.
 *
 * PL_ROOT/ns<cookie of the host's netns>/
 *	pods		the endpoint table
 *	if<index>/	of one link, by the index of its primary end:
 *		peer, primary	bpf_links of its two programs
 *		stats		its counters
 *		constants	what its programs take for constant
 *		uplink, in	the bpf_link of the uplink's program, and its counter: one of
 *				each, pinned by all that use it, so that it goes with the last
 *
 * A directory whose device is gone, or in another namespace by now, and the entries of the
 * table for its index, are removed by the next verb that changes something in that namespace,
 * and by doctor --fix in any. An flock on PL_ROOT is held by whoever does.
 */
#ifndef PODLINK_PATH_H
#define PODLINK_PATH_H

#include "common.h"
#include "podlink-net.h"

#define PL_ROOT PIN_ROOT "/podlink"

struct pl_path {
	char dir[96]; /* PL_ROOT/ns<cookie> */
	int pods;     /* the table; -1: there is none */
};

/*
 * DONE, with pods -1 where nothing is pinned, or an exit code. Whoever changes something has
 * called pins_change() before, and else pins_check().
 */
int pl_path_open(struct pl_path *path);
void pl_path_close(struct pl_path *path);

struct pl_forward {
	enum pl_kind kind;
	bool l2;
	__u8 host_mac[6], mac[6];
	const struct pl_addr *gateway4, *gateway6; /* NULL: none */
	__u32 uplink;
	const struct pl_cidr *addrs;
	size_t naddrs;
};

/*
 * Load, attach to the device with index `at` of the current network namespace, pin, and
 * enter the addresses, all for the index that it has or will have in the host's. What fails
 * leaves nothing.
 */
int pl_path_add(struct pl_path *path, const struct pl_ns *host, const char *name, __u32 at,
		__u32 ifindex, const struct pl_forward *fwd);
/*
 * The same without pins, in the namespace that this thread is in: it lasts until it is
 * released, or this process ends. The first one with the same path, whose pods is -1, makes
 * the table and attaches to the uplink, for all of them. *held is to be released in any case.
 */
struct podlink;
int pl_path_hold(struct podlink **held, struct pl_path *path, const char *name, __u32 ifindex,
		 const struct pl_forward *fwd);
void pl_path_release(struct podlink *held);
/* Enter what the table lacks of the addresses; *changed tells whether that was anything. */
int pl_path_enter(struct pl_path *path, const char *name, __u32 ifindex,
		  const struct pl_forward *fwd, bool *changed);
/* The pins and the addresses of a link, whether alive or not. */
int pl_path_del(struct pl_path *path, __u32 ifindex);
bool pl_path_has(const struct pl_path *path, __u32 ifindex);
/*
 * Remove what belongs to no device that is on the host, by the sockets in `host`. *n counts
 * links; with dry_run they are only counted. To be called with the lock held, since what
 * another podlink is about to move to the host is not there yet.
 */
int pl_path_sweep(struct pl_path *path, struct pl_ns *host, bool dry_run, __u32 *n);
/*
 * The same for all other network namespaces, by what the pinned links tell: of one that is
 * gone, nothing is left. *n counts the namespaces in which there was something to remove.
 */
int pl_path_sweep_others(const struct pl_path *own, bool dry_run, __u32 *n);

struct pl_path_info {
	__u32 peer_prog, primary_prog, uplink_prog; /* ids, 0: none */
	__u32 uplink;				    /* its index */
	struct pl_addr gateway4, gateway6;	    /* that are answered for; zero: none */
	struct pl_count count[PL_STATS_MAX];
	struct pl_count in; /* of the uplink, for all pods */
};

int pl_path_info(const struct pl_path *path, __u32 ifindex, struct pl_path_info *info);
/* The id of a program that runs behind ours, and so misses what it redirects; 0: none. */
__u32 pl_path_behind(const struct pl_link *link, const struct pl_path_info *info);
/* The addresses of a link in the table; to be freed. */
int pl_path_addrs(const struct pl_path *path, __u32 ifindex, struct pl_addr **addrs, size_t *n);
#endif
