// SPDX-License-Identifier: GPL-2.0-only
/*
 * The rule language under a fuzzer. What parses is printed, parsed again and
 * compared, and edited; an error has to point into the text.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "netpol-rules.h"
#include "../netpol-same.h"

#define must(cond) do {							\
	if (!(cond)) {							\
		fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); \
		abort();						\
	}								\
} while (0)

static const char added[] = "deny out 250 log count zz";

static bool same(const void *a, const void *b, size_t n)
{
	return !n || !memcmp(a, b, n);
}

static void round_trip(struct np_policy *policy, const struct np_rule *a)
{
	size_t len = strlen(a->text);
	char *text = malloc(len);	/* without the NUL */
	struct np_error err;
	struct np_rule b;

	memcpy(text, a->text, len);
	switch (np_rule_parse(policy, text, len, &b, &err)) {
	case 0:
		break;
	case -ENOMEM:
		free(text);
		return;
	default:
		/* A list in braces over many lines may be too long for one line, or the
		 * same lists again too many.
		 */
		must(len > NP_MAX_LINE || strstr(err.msg, "addresses in one policy"));
		free(text);
		return;
	}
	must(!strcmp(a->text, b.text));
	must(a->verdict == b.verdict && a->dir == b.dir && a->log == b.log);
	must(!a->counter == !b.counter && (!a->counter || !strcmp(a->counter, b.counter)));
	must(a->nproto == b.nproto && same(a->proto, b.proto, a->nproto));
	must(a->nfrom == b.nfrom && same(a->from, b.from, a->nfrom * sizeof(*a->from)));
	must(a->nto == b.nto && same(a->to, b.to, a->nto * sizeof(*a->to)));
	must(a->nsport == b.nsport && same(a->sport, b.sport, a->nsport * sizeof(*a->sport)));
	must(a->nsel == b.nsel && same(a->sel, b.sel, a->nsel * sizeof(*a->sel)));
	free(text);
}

/* The edited policy is the old one but for `change` rules more at index `at`. */
static void same_but(const struct np_policy *old, struct np_edit *edit, __u32 at, int change)
{
	struct np_policy *new;
	struct np_error err;

	must(!np_policy_parse(edit->text, edit->len, &new, &err));
	must(!policy_differs(edit->policy, new));
	must(new->nrules == old->nrules + change && new->nsets == old->nsets);
	must(new->has_default == old->has_default && new->dflt == old->dflt);
	for (__u32 i = 0; i < new->nrules; i++) {
		if (i < at)
			must(!strcmp(new->rules[i].text, old->rules[i].text));
		else if (change < 0)
			must(!strcmp(new->rules[i].text, old->rules[i + 1].text));
		else if (i == at)
			must(!strcmp(new->rules[i].text, added));
		else
			must(!strcmp(new->rules[i].text, old->rules[i - 1].text));
	}
	np_policy_free(new);
	np_edit_free(edit);
}

static void edit(struct np_policy *policy, const char *text, size_t len)
{
	__u32 n = policy->nrules, at = n ? len % n : 0;
	struct np_error err;
	struct np_edit edit;
	char number[16];
	int rc;

	rc = np_policy_add(policy, text, len, NP_AT_END, 0, added, strlen(added), &edit, &err);
	must(!rc);
	same_but(policy, &edit, n, 1);
	if (!n)
		return;
	rc = np_policy_add(policy, text, len, NP_BEFORE, at + 1, added, strlen(added), &edit,
			   &err);
	must(!rc);
	same_but(policy, &edit, at, 1);
	rc = np_policy_add(policy, text, len, NP_AFTER, at + 1, added, strlen(added), &edit, &err);
	must(!rc);
	same_but(policy, &edit, at + 1, 1);
	snprintf(number, sizeof(number), "%u", at + 1);
	rc = np_policy_del(policy, text, len, number, strlen(number), &edit, &err);
	must(!rc);
	same_but(policy, &edit, at, -1);
	rc = np_policy_del(policy, text, len, policy->rules[at].text,
			   strlen(policy->rules[at].text), &edit, &err);
	must(!rc || rc == -EINVAL);	/* read twice, or too long for a line */
	if (!rc)
		same_but(policy, &edit, at, -1);
	/* Anything as a rule: if it is one, the texts agree. */
	rc = np_policy_add(policy, text, len, NP_AT_END, 0, text, len, &edit, &err);
	if (!rc) {
		struct np_policy *new;

		must(!np_policy_parse(edit.text, edit.len, &new, &err));
		must(!policy_differs(edit.policy, new));
		np_policy_free(new);
		np_edit_free(&edit);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	struct np_policy *policy;
	struct np_error err;
	char *out = NULL;
	size_t out_len;
	FILE *f = open_memstream(&out, &out_len);
	int rc = np_policy_parse(text, size, &policy, &err);

	must(f);
	if (rc) {
		must(rc == -EINVAL && !policy);
		must(err.msg[0] && err.line && err.col && err.col - 1 <= size);
		np_error_print(f, "f", text, size, &err);
	} else {
		json_t *json = np_policy_json(policy);
		__u32 nrules = policy->nrules;

		must(json && json_array_size(json_object_get(json, "rules")) == nrules);
		json_decref(json);
		np_policy_print_rules(f, policy);
		for (__u32 i = 0; i < nrules; i++)
			round_trip(policy, &policy->rules[i]);
		edit(policy, text, size);
		np_policy_free(policy);
	}
	fclose(f);
	must(!strpbrk(out ?: "", "\x1b\x07\r"));
	free(out);
	return 0;
}
