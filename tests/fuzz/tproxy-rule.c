// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rules, senders and addresses: any text is taken or refused with a reason, and what is printed
 * of a rule reads as the same rule.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tproxy-rule.h"

static void rule(const char *text, bool except)
{
	static struct tp_rule r[TP_RULES], again;
	char printed[TP_RULE_TEXT];
	const char *why = NULL, *where;
	size_t n = tp_rule_parse(text, TP_BOTH, except, r, TP_RULES, &why);

	if (!n != !!why || n > TP_RULES)
		abort();
	for (size_t i = 0; i < n; i++) {
		if (r[i].from > r[i].to || r[i].except != except)
			abort();
		where = strrchr(tp_rule_text(&r[i], printed), ' ') + 1;
		if (tp_rule_parse(where, TP_BOTH, except, &again, 1, &why) != 1 ||
		    memcmp(&again, &r[i], sizeof(again)))
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size), printed[TP_RULE_TEXT], name[TP_NAME];
	struct tp_to to[2] = {}, again[2] = {};
	struct tp_sender sender;
	const char *why = NULL;

	if (!text)
		abort();
	rule(text, false);
	rule(text, true);
	if (tp_to_parse(text, to)) {
		for (int i = 0; i < 2; i++)
			if (to[i].port && !tp_to_parse(tp_to_text(&to[i], printed), again))
				abort();
		if (memcmp(to, again, sizeof(to)))
			abort();
	}
	/* of users and cgroups the machine has its own idea */
	if (strncmp(text, "uid:", 4) && strncmp(text, "cgroup:", 7) &&
	    tp_sender_parse(text, &sender, name, &why) != !why)
		abort();
	free(text);
	return 0;
}
