/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tproxy: rules, excepted senders and addresses, from text and to text. A tp_set is all that
 * is constant for a program, as the tool keeps it.
 */
#ifndef TPROXY_RULE_H
#define TPROXY_RULE_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/types.h>

#include "tproxy.h"

#define TP_RULE_TEXT 128

struct tp_set {
	struct tp_conf conf;
	struct tp_rule rules[TP_RULES];
	struct tp_sender senders[TP_SENDERS];
	char names[TP_SENDERS][TP_NAME];
};

/*
 * "any", an address or a CIDR, with ":PORTS" behind it, which is a list of ports and ranges.
 * With ports an IPv6 address is in brackets. Gives a rule for each port or range: how many, or
 * 0 and what is wrong.
 */
size_t tp_rule_parse(const char *text, __u8 protos, bool except, struct tp_rule *rules, size_t max,
		     const char **why);
/*
 * "mark:N[/MASK]", "cgroup:PATH" or "uid:N|NAME". True, and *why is NULL; or false, and it says
 * what is wrong, "" where the text is of no sender at all.
 */
bool tp_sender_parse(const char *text, struct tp_sender *sender, char name[TP_NAME],
		     const char **why);
/* "[ADDR]:PORT"; IPv6 in brackets, no address: both loopback ones. */
bool tp_to_parse(const char *text, struct tp_to to[2]);

const char *tp_addr_text(const struct tp_addr *addr, char text[46]);
/* As it is parsed. */
const char *tp_cidr_text(const struct tp_rule *rule, char text[TP_RULE_TEXT]);
const char *tp_rule_text(const struct tp_rule *rule, char text[TP_RULE_TEXT]);
const char *tp_to_text(const struct tp_to *to, char text[TP_RULE_TEXT]);

/* 1: changed, 0: there already (or not there), -1: no room. Exceptions stand first. */
int tp_set_add(struct tp_set *set, const struct tp_rule *rule);
int tp_set_del(struct tp_set *set, const struct tp_rule *rule);
int tp_set_add_sender(struct tp_set *set, const struct tp_sender *sender, const char *name);
int tp_set_del_sender(struct tp_set *set, const struct tp_sender *sender);

#endif
