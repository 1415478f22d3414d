/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * upatch: what its verbs share.
 */
#ifndef UPATCH_VERBS_H
#define UPATCH_VERBS_H

#include "upatch-patch.h"

extern struct up_env {
	__u32 pid;	/* 0: not told, as of the others */
	const char *exe, *build_id, *object, *function, *prog, *prefix;
	const char *min, *max, *eq, *above, *below, *ret;
	int arg;	/* -1: not told */
	const char *type;
	const struct up_backend *backend; /* NULL: whichever is there */
	bool all, on, off, follow;
	__u32 count, seconds;		  /* of log; 0: without end */
} env;

/* The words of enum up_state. */
extern const char *const up_states[];

/* A rule in words, and as JSON. */
const char *up_rule_text(const struct up_rule *rule, char text[256]);
json_t *up_rule_json(const struct up_rule *rule);

/* The rule that the options describe, of a kind. DONE, or USAGE and a message. */
int up_rule_parse(enum up_kind kind, struct up_rule *rule);

/* All patches, or those that are named by their IDs; each is opened. */
int up_each(int argc, char **argv, const char *verb,
	    int (*f)(struct up_patch *p, json_t *list));

int verb_list(int argc, char **argv);
int verb_show(int argc, char **argv);
int verb_stats(int argc, char **argv);
int verb_log(int argc, char **argv);
int verb_verify(int argc, char **argv);

#endif
