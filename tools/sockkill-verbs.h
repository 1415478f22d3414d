/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * sockkill: what its verbs share.
 */
#ifndef SOCKKILL_VERBS_H
#define SOCKKILL_VERBS_H

#include "common.h"
#include "sockkill-pass.h"

#define SK_ROOT PIN_ROOT "/sockkill"

/* Defaults of what is looked for: all but the filter. */
extern struct sk_job sk_defaults;
extern struct sk_env {
	const char *backends, *name;	/* watch */
	__u32 interval, linger;		/* s */
	__u32 records;			/* sockets that the recorder has room for */
	bool force, fresh;
} env;

/* To stderr: what could not be looked at. */
void sk_warn(const struct sk_result *result);
/* All victims and totals. */
void sk_text(const struct sk_job *job, const struct sk_result *result);
json_t *sk_json(const struct sk_result *result);

/* The recorder's map: a descriptor, or -errno; -ENOENT: it is off. */
int sk_records_open(void);

int verb_watch(int argc, char **argv);
int verb_record(int argc, char **argv);

#endif
