/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * upatch: a patch is a directory of pins, UP_ROOT/ID: its program, its arena, what the tool
 * knows of it (struct up_meta), and what its back end needs, with the links. One that is being
 * made, or removed, has another name meanwhile: what a tool that was killed leaves of that is
 * removed by the next.
 */
#ifndef UPATCH_PATCH_H
#define UPATCH_PATCH_H

#include "common.h"
#include "upatch-proc.h"

#define UP_ROOT PIN_ROOT "/upatch"

struct up_patch {
	char dir[PIN_PATH];
	struct up_meta meta;
	struct up_arena *arena; /* NULL: not mapped here */
	void *mapped;
	int prog;		/* -1: not opened */
};

/*
 * A way to run programs at the entry of functions. All of them return 0, or -1 with the reason.
 * Those that change something are called with the tool's lock held.
 */
struct up_backend {
	const char *name;
	const char *suffix; /* of programs: NAME_suffix */

	/* Whether this kernel has it, for programs that change something or for others. */
	bool (*there)(bool writes, char *why);
	/*
	 * What the patch as a whole needs, before its object is loaded, which may get maps of it;
	 * shared with the patch that it is to replace. Pins go into p->dir.
	 */
	int (*prepare)(struct up_patch *p, const struct up_patch *old, struct bpf_object *obj,
		       char *why);
	/* In one process, which t->addr is of. Until p->arena->on is set nothing is run. */
	int (*attach)(struct up_patch *p, const struct up_target *t, char *why);
	/* Unpin the links, and wait until nothing runs any more. */
	int (*detach)(struct up_patch *p, char *why);
	/*
	 * The links of a patch to another one, which is made but for them. NULL: the new one is
	 * attached beside the old one, which is then detached.
	 */
	int (*replace)(struct up_patch *old, struct up_patch *fresh, char *why);
	/* The processes that are patched, children among them. *n of them, malloc'd. */
	int (*pids)(const struct up_patch *p, __u32 **pids, size_t *n, char *why);
	/* What only it knows, for show: into a JSON object. */
	void (*info)(const struct up_patch *p, json_t *doc);
};

enum { UP_POKE, UP_UPROBE, UP_BACKENDS };
extern const struct up_backend up_poke, up_uprobe;
extern const struct up_backend *const up_backends[UP_BACKENDS];

extern const char *const up_kinds[]; /* in the order of enum up_kind, NULL at the end */

/* --- patches that are there --- */

struct up_patches {
	struct up_patch *patch;
	size_t n;
	unsigned int others; /* of another version of upatch, which have been complained of */
	__u32 last_id;	     /* of all of them */
};

/* In the order of their IDs. 0 or -errno. */
int up_patches_get(struct up_patches *all);
void up_patches_free(struct up_patches *all);
/* With its arena. 0 or -1. */
int up_patch_map(struct up_patch *p, char *why);
void up_patch_close(struct up_patch *p);
int up_patch_prog(struct up_patch *p, char *why);
const struct up_backend *up_patch_backend(const struct up_patch *p);
/* Do it for each of its links, whose pins begin with at-; what it returns ends it. */
int up_each_link(const struct up_patch *p, char *why,
		 int (*fn)(const char *name, int fd, void *arg, char *why), void *arg);
bool up_pid_in(__u32 pid, const __u32 *pids, size_t n);

/* Remove what others left half done. *n: how much there was. */
int up_sweep(bool dry_run, unsigned int *n, char *why);

/* --- making and removing --- */

struct up_spec {
	enum up_kind kind;
	const struct up_backend *backend;
	struct up_rule rule;
	const char *file, *name; /* of the user's own program */
	__u64 hash;
};

/* Load and pin a patch that is not in force yet, as UP_ROOT/new-ID; old: whom it replaces. */
int up_patch_make(struct up_patch *p, const struct up_patch *old, __u32 id,
		  const struct up_spec *spec, const struct up_object *o,
		  const struct up_site *site, const struct up_targets *ts, char *why);
/* In force, under its own name: the last step of making one, or of replacing the old one. */
int up_patch_commit(struct up_patch *p, struct up_patch *old, char *why);
int up_patch_remove(struct up_patch *p, char *why);
__u32 up_patch_next_id(const struct up_patches *all);

/* The rule in force, and another in its place: a store that the next call obeys. */
bool up_rule_get(const struct up_patch *p, struct up_rule *rule);
void up_rule_put(struct up_patch *p, const struct up_rule *rule);
bool up_rule_same(const struct up_rule *a, const struct up_rule *b);

/* A global of an object: of its arena, or of its constants. NULL: there is none. */
void *up_global(struct bpf_object *obj, const char *section, const char *name, __u32 *offset);

#endif
