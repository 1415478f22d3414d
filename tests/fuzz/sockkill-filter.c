// SPDX-License-Identifier: GPL-2.0-only
/*
 * Filters and lists of backends: any text is taken or refused with a message, and the ops of
 * a filter lead forward and end.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sockkill-backends.h"
#include "sockkill-filter.h"

static void filter(const char *text, size_t size)
{
	struct sk_error err = {};
	struct sk_filter f;
	int rc = sk_filter_parse(text, &f, &err);

	if (rc) {
		if (rc != -EINVAL || !*err.msg || err.col > size)
			abort();
		return;
	}
	if (f.nops > SK_OPS_MAX || f.states & ~SK_STATES_ALL || (f.narrow && !f.nops))
		abort();
	for (__u32 i = 0; i < f.nops; i++)
		for (int j = 0; j < 2; j++) {
			__u16 to = j ? f.op[i].yes : f.op[i].no;

			if (to != SK_ACCEPT && to != SK_REJECT && (to <= i || to >= f.nops))
				abort();
		}
}

/* What is printed of a list reads as the same list. */
static void again(const struct sk_backends *list)
{
	char *text = calloc(list->n + 1, SK_ENDPOINT_LEN), one[SK_ENDPOINT_LEN];
	struct sk_list_error err;
	struct sk_backends same;
	size_t len = 0;

	if (!text)
		abort();
	for (size_t i = 0; i < list->n; i++)
		len += sprintf(text + len, "%s\n", sk_endpoint_text(one, &list->v[i]));
	if (sk_backends_parse(text, &same, &err) || same.n != list->n ||
	    (list->n && memcmp(same.v, list->v, list->n * sizeof(*list->v))))
		abort();
	sk_backends_free(&same);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size);
	struct sk_list_error err = {};
	struct sk_backends list;
	struct sk_change change;

	if (!text)
		abort();
	filter(text, size);
	if (!sk_backends_parse(text, &list, &err)) {
		again(&list);
		sk_backends_free(&list);
	} else if (!*err.msg) {
		abort();
	}
	if (!sk_change_parse(text, &change, &err)) {
		again(&change.add);
		again(&change.del);
		sk_backends_free(&change.add);
		sk_backends_free(&change.del);
	}
	free(text);
	return 0;
}
