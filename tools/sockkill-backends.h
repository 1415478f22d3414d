/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Lists of backends, as text or JSON:
 *
 *	ADDR:PORT[/tcp|/udp]	a line each; without a protocol both. # begins a comment
 *	["ADDR:PORT", ...] or {"backends": ["ADDR:PORT", ...]}
 *
 * and changes to such a list, a line each:
 *
 *	+ ADDR:PORT[/PROTO]	- ADDR:PORT[/PROTO]
 *	{"add": [...], "del": [...]} or {"backends": [...]}, which is the whole list
 */
#ifndef SOCKKILL_BACKENDS_H
#define SOCKKILL_BACKENDS_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>

#include "sockkill.h"

#define SK_BACKENDS_MAX	32768

/* Sorted, each once. */
struct sk_backends {
	struct sk_endpoint *v;
	size_t n, room;
};

struct sk_change {
	struct sk_backends add, del;
	bool whole;			/* add is the list, and what is not in it goes */
};

struct sk_list_error {
	unsigned int line;		/* from 1; 0: the text as a whole */
	char msg[256];
};

/* All or nothing. 0, -EINVAL and err, or -ENOMEM. */
int sk_backends_parse(const char *text, struct sk_backends *list, struct sk_list_error *err);
int sk_change_parse(const char *line, struct sk_change *change, struct sk_list_error *err);

bool sk_backends_has(const struct sk_backends *list, const struct sk_endpoint *e);
/* 0 or -ENOMEM. */
int sk_backends_add(struct sk_backends *list, const struct sk_endpoint *e);
void sk_backends_del(struct sk_backends *list, const struct sk_endpoint *e);
void sk_backends_free(struct sk_backends *list);

/* "10.0.0.1:53/udp", "[fd00::1]:53/tcp" */
#define SK_ENDPOINT_LEN 64
const char *sk_endpoint_text(char out[SK_ENDPOINT_LEN], const struct sk_endpoint *e);

#endif
