/* SPDX-License-Identifier: GPL-2.0-only */
/* What an edit made of a policy against what the parser makes of the new text. */
#ifndef NETPOL_SAME_H
#define NETPOL_SAME_H

#include <string.h>

#include "netpol-rules.h"

/* The name of the first part that differs, or NULL. */
static inline const char *policy_differs(const struct np_policy *a, const struct np_policy *b)
{
	if (a->has_default != b->has_default || a->default_line != b->default_line ||
	    (a->has_default && (a->dflt != b->dflt || a->default_log != b->default_log)))
		return "the default";
	if (a->nrules != b->nrules || a->nsets != b->nsets)
		return "the number of rules or sets";
	for (__u32 i = 0; i < a->nsets; i++)
		if (a->sets[i].line != b->sets[i].line || strcmp(a->sets[i].name, b->sets[i].name))
			return "a set";
	for (__u32 i = 0; i < a->nrules; i++) {
		const struct np_rule *x = &a->rules[i], *y = &b->rules[i];

		if (strcmp(x->text, y->text))
			return "a rule";
		if (x->line != y->line)
			return "a rule's line";
		if (x->src.off != y->src.off || x->src.len != y->src.len)
			return "a rule's place in the text";
	}
	return NULL;
}

#endif
