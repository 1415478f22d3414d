/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * netpol: a device, what hangs at its hooks, and the pins of its instance.
 *
 * An instance is a directory of bpffs, NP_ROOT/ns<netns cookie>_if<ifindex>:
 *	np_*, tier*, jump_*	the maps of the program
 *	table<g & 1>		the policy table of generation g
 *	text<g & 1>		the policy's text: struct np_text and the compressed text
 *	count<n>		page n of the counters
 *	link_<hook>		a bpf_link
 * Inner maps are pinned as well, because a map is reached by its id only with
 * CAP_SYS_ADMIN. Directories called new_* are half made, those called old_* half
 * removed; both are invisible to all but doctor. An flock on NP_ROOT is held by
 * whoever changes anything.
 */
#ifndef NETPOL_DEV_H
#define NETPOL_DEV_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/libbpf.h>

#include "common.h"
#include "netpol.h"
#include "netpol-rules.h"

#define NP_ROOT		PIN_ROOT "/netpol"

extern const struct np_hook_desc {
	const char *name;
	const char *prog;		/* in the BPF object: the gate, which is attached */
	const char *body;		/* what it calls */
	const char *jump;		/* the map by which it does */
	const char *pin;		/* of the link */
	enum bpf_attach_type type;
	enum bpf_tc_attach_point legacy;	/* 0: there is none */
} np_hooks[NP_HOOKS];

/* The hook of a name, or -1. */
int np_hook_find(const char *name);

struct np_inst {
	char name[PIN_PATH / 2];
	char dir[PIN_PATH];
	bool exists;
	bool moved;			/* found by its links: the device changed its netns */
	__u32 state_id;			/* of np_state: a program that uses this map is ours */
	struct pinned_link link[NP_HOOKS];
};

/* "nsC_ifN" -> cookie and ifindex. */
bool np_inst_parse(const char *name, __u64 *netns, __u32 *ifindex);
/* Open an instance by its directory's name. 0 or -errno; to be closed in both cases. */
int np_inst_open(const char *name, struct np_inst *inst);
/*
 * The instance of a device. 0 with inst->exists unset when it has none. -ESTALE: the
 * place is taken by the instance of a device that has moved away.
 */
int np_inst_of(const struct net_dev *dev, struct np_inst *inst);
void np_inst_close(struct np_inst *inst);
/* Links are pinned, and all of them are dead. */
bool np_inst_links_dead(const struct np_inst *inst);

/* Remove a directory with its pins; the name goes first. */
int np_dir_remove(const char *name);
/* Names of instances (or, with half_made, of new_* and old_*), NULL at the end. */
int np_dir_list(bool half_made, char ***names);
void np_dir_list_free(char **names);

enum np_owner { NP_FOREIGN, NP_OURS, NP_STRAY };	/* stray: netpol, but of no instance here */

struct np_prog {
	__u32 id;
	__u32 link_id;			/* 0: attached without a link */
	bool known;			/* name, tag and owner were readable */
	enum np_owner owner;
	char name[BPF_OBJ_NAME_LEN];
	char tag[LINK_TAG];
};

struct np_chain {
	__u64 revision;
	__u32 n;
	struct np_prog prog[CHAIN_MAX];
};

/*
 * What is attached, in order. -errno: -EINVAL the kernel has no such hook, -ENXIO the
 * device is no netkit, -EACCES it is the peer of one.
 */
int np_chain_get(const struct net_dev *dev, enum np_hook hook, const struct np_inst *inst,
		 struct np_chain *chain);
int np_prog_get(__u32 id, const struct np_inst *inst, struct np_prog *prog);

struct np_filter {
	__u32 handle, prio;
	__u32 chain;
	__u32 block;			/* of a shared block, or 0 */
	char kind[16];
	struct np_prog prog;		/* .id 0: not a BPF filter */
};

/* Legacy filters at a hook of clsact (or ingress), by priority. malloc'd. */
int np_filters_get(const struct net_dev *dev, enum np_hook hook, const struct np_inst *inst,
		   struct np_filter **filters, __u32 *n);
/* Our filter at the hook, or NULL. */
const struct np_filter *np_filter_ours(const struct np_filter *filters, __u32 n);

/*
 * The gate for a hook, with the maps pinned in dir, made and pinned there when they
 * are not there yet, and its body for the tier in force; dir NULL: maps of its own, no
 * body. flows: entries of the flow table when it is made. 0 or -errno.
 */
struct netpol;
int np_prog_load(const char *dir, enum np_hook hook, __u32 l2_len, __u32 flows,
		 struct netpol **skel, struct bpf_program **prog, char tag[LINK_TAG]);
/*
 * The body of a hook for a tier, put where the gate finds it, unless the same one is there.
 * The maps are those pinned in dir or, if that is NULL, those of `like`. 0 or -errno.
 */
int np_body_put(const char *dir, const struct netpol *like, enum np_hook hook, __u32 tier,
		__u32 l2_len);
/* Bodies for another tier, for all hooks that have one for this. 0 or -errno. */
int np_bodies_follow(const char *dir, __u32 from, __u32 to, __u32 l2_len);

/* Entries of a chain before or after which to attach. */
struct np_order {
	enum { NP_ANYWHERE, NP_FIRST, NP_LAST_PLACE, NP_BEFORE_REF, NP_AFTER_REF } place;
	const char *ref;
	__u64 revision;			/* 0: any */
};

/* A link at the hook, its fd or -errno; a message was printed on failure. */
int np_link_make(const struct net_dev *dev, enum np_hook hook, const struct np_chain *chain,
		 int prog_fd, const struct np_order *order);
void np_revision_wrong(const struct net_dev *dev, enum np_hook hook, const struct np_chain *chain,
		       const struct np_order *order);
/* Whether the program of link_id stands where order wants it. */
bool np_order_holds(const struct np_chain *chain, __u32 link_id, const struct np_order *order);

/* Add or (old not NULL) replace our legacy filter. 0 or -errno. */
int np_filter_put(const struct net_dev *dev, enum np_hook hook, const struct np_filter *filters,
		  __u32 n, const struct np_filter *old, int prog_fd);
int np_filter_del(const struct net_dev *dev, enum np_hook hook, const struct np_filter *filter);

#endif
