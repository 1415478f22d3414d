/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tproxy: a device, and the program at work on it with its pins.
 *
 * TP_ROOT/ns<netns cookie>_if<ifindex>/
 *	link		the bpf_link
 *	conf<ID>	what program ID takes for constant; that of the link's program counts
 *	tp_*		the maps that programs of this device share
 *
 * Another set of rules is another program: it is loaded, its conf pinned, and the link given it
 * in one step. A directory without a link, and a conf of another program, were left by a tool
 * that was killed; the next verb that changes something removes them, with what belongs to
 * devices that are gone. An flock on TP_ROOT is held by whoever does.
 */
#ifndef TPROXY_INST_H
#define TPROXY_INST_H

#include <stdbool.h>
#include <bpf/libbpf.h>

#include "common.h"
#include "tproxy-net.h"
#include "tproxy-rule.h"

#define TP_ROOT PIN_ROOT "/tproxy"

extern const struct tp_hook_desc {
	const char *name;
	enum bpf_attach_type type;
	bool patched; /* needs our series */
	bool routed;  /* its packets need the way into the stack */
	bool sender;  /* packets still know their sender's socket */
} tp_hooks[TP_HOOKS];

int tp_hook_find(const char *name);	/* -1: none */

struct tp_inst {
	char dir[PIN_PATH];
	bool there; /* the link is alive, at the device */
	struct pinned_link link;
	struct tp_set *set; /* NULL: cannot be read */
};

/* 0 or -errno; to be closed in both cases. */
int tp_inst_open(const struct net_dev *dev, struct tp_inst *inst);
void tp_inst_close(struct tp_inst *inst);
/* The same for a verb: NOTHING and a message where nothing is attached. */
int tp_inst_get(const struct net_dev *dev, struct tp_inst *inst);

/*
 * Put a set in force, at a hook that nothing is at, or in place of what is there. *changed is
 * false where it is in force already. first: in front of all other programs.
 */
int tp_inst_put(const struct net_dev *dev, struct tp_inst *inst, const struct tp_set *set,
		bool first, bool *changed);
int tp_inst_remove(struct tp_inst *inst);

/*
 * What is dead: of this namespace, with rules and routes, and of others as far as the pins tell.
 * *dead and *others count directories, *stale files, and *routes tells of rules and routes.
 */
struct tp_dead {
	unsigned int dead, others, stale;
	bool routes;
};

int tp_sweep(struct tp_net *net, bool dry_run, struct tp_dead *dead);

/* The name of a program; "": not to be read. */
const char *tp_prog_name(__u32 id, char name[BPF_OBJ_NAME_LEN]);

/* Whether the kernel has a function, by its BTF. */
bool tp_kernel_has(const char *function);

#endif
