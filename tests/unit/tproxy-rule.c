// SPDX-License-Identifier: GPL-2.0-only
/* Rules, excepted senders and addresses, as text; and sets of them. */
#include <stdlib.h>

#include "common.h"
#include "tap.h"
#include "tproxy-rule.h"

/* "A, B", as they are printed */
static bool parsed(const char *text, __u8 protos, bool except, char *out, size_t size)
{
	struct tp_rule r[TP_RULES];
	char one[TP_RULE_TEXT];
	const char *why;
	size_t n = tp_rule_parse(text, protos, except, r, TP_RULES, &why);

	*out = 0;
	for (size_t i = 0; i < n; i++)
		snprintf(out + strlen(out), size - strlen(out), "%s%s", i ? ", " : "",
			 tp_rule_text(&r[i], one));
	return n;
}

static void rules(void)
{
	static const struct {
		const char *text, *want;
	} t[] = {
		{"any", "tcp any"},
		{"any:80", "tcp any:80"},
		{"any:0", "tcp any:0"},
		{"any:80,443,8000-8080", "tcp any:80, tcp any:443, tcp any:8000-8080"},
		{"any:0-65535", "tcp any"},
		{"10.0.0.0/8", "tcp 10.0.0.0/8"},
		{"10.0.0.1", "tcp 10.0.0.1/32"},
		{"10.0.0.1:65535", "tcp 10.0.0.1/32:65535"},
		{"0.0.0.0/0:53", "tcp 0.0.0.0/0:53"},
		{"::/0", "tcp ::/0"},
		{"2001:db8::/32", "tcp 2001:db8::/32"},
		{"[2001:db8::]/32", "tcp 2001:db8::/32"},
		{"[2001:db8::]/32:443", "tcp [2001:db8::/32]:443"},
		{"[2001:db8::/32]:443", "tcp [2001:db8::/32]:443"},
		{"[::1]:80-81", "tcp [::1/128]:80-81"},
		{"::ffff:10.0.0.1", "tcp ::ffff:10.0.0.1/128"},
		{"[fe00::/7]:1", "tcp [fe00::/7]:1"},
		{"128.0.0.0/1", "tcp 128.0.0.0/1"},
	};
	char got[512];

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		check(parsed(t[i].text, TP_TCP, false, got, sizeof(got)), "%s", t[i].text);
		check_str(got, t[i].want);
	}
	parsed("any", TP_UDP, false, got, sizeof(got));
	check_str(got, "udp any");
	parsed("10.0.0.0/8:53", TP_BOTH, true, got, sizeof(got));
	check_str(got, "except both 10.0.0.0/8:53");
}

static void rules_refused(void)
{
	static const char *const t[] = {
		"", ":", ":80", "any:", "any:,", "any:80,", "any:,80", "any:80-", "any:-80",
		"any:81-80", "any:65536", "any:80-65536", "any:+80", "any: 80", "anyone", "Any",
		"10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.1/8", "10.0.0", "10.0.0.0.0",
		"10.0.0.0:80:90", "[10.0.0.0]:80", "[10.0.0.0/8]:80", "2001:db8::/129", "2001:db8::1/64",
		"[::1", "::1]", "[::1]80", "[::1]]:80", "[]:80", "[]", "fe80::1%eth0", "/8",
		"10.0.0.0/8/8", "1111111111111111111111111111111111111111111111111111111111111",
	};
	struct tp_rule r[4];
	const char *why;

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		check(!tp_rule_parse(t[i], TP_TCP, false, r, ARRAY_SIZE(r), &why), "'%s'", t[i]);
		check(why && *why, "'%s'", t[i]);
	}
	check(tp_rule_parse("any:1,2,3,4", TP_TCP, false, r, ARRAY_SIZE(r), &why) == 4);
	check(!tp_rule_parse("any:1,2,3,4,5", TP_TCP, false, r, ARRAY_SIZE(r), &why));
	check(!tp_rule_parse("any", TP_TCP, false, r, 0, &why));
}

/* What the program does with it. */
static bool matches(const struct tp_rule *r, const char *addr)
{
	struct tp_to to[2] = {};
	char text[64];
	int v6 = !!strchr(addr, ':');

	snprintf(text, sizeof(text), v6 ? "[%s]:1" : "%s:1", addr);
	if (!tp_to_parse(text, to))
		return false;
	if (r->family && r->family != (v6 ? 6 : 4))
		return false;
	return (to[v6].addr.d[0] & r->mask.d[0]) == r->addr.d[0] &&
	       (to[v6].addr.d[1] & r->mask.d[1]) == r->addr.d[1];
}

static void masks(void)
{
	static const struct {
		const char *rule, *in, *out;
	} t[] = {
		{"any", "10.0.0.1", NULL},
		{"any", "2001:db8::1", NULL},
		{"0.0.0.0/0", "255.1.2.3", "::1"},
		{"::/0", "2001:db8::1", "10.0.0.1"},
		{"10.0.0.0/8", "10.255.255.255", "11.0.0.0"},
		{"10.0.0.0/9", "10.127.0.1", "10.128.0.0"},
		{"10.0.0.1", "10.0.0.1", "10.0.0.2"},
		{"192.168.1.252/30", "192.168.1.255", "192.168.1.251"},
		{"2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::"},
		{"2001:db8::/64", "2001:db8::ffff:0:0:1", "2001:db8:0:1::"},
		{"2001:db8::8/125", "2001:db8::f", "2001:db8::10"},
	};
	struct tp_rule r;
	const char *why;

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		check(tp_rule_parse(t[i].rule, TP_TCP, false, &r, 1, &why) == 1, "%s", t[i].rule);
		check(matches(&r, t[i].in), "%s: %s", t[i].rule, t[i].in);
		check(!t[i].out || !matches(&r, t[i].out), "%s: %s", t[i].rule, t[i].out);
	}
}

static void where_to(void)
{
	static const char *const bad[] = {"", ":", ":0", ":65536", ":x", "80", "1.2.3.4", "1.2.3.4:",
					  "[::1]", "::1:80", "[1.2.3.4]:80", "[::1:80", "::1]:80",
					  "[]:80", "x:80", "1.2.3:80"};
	struct tp_to to[2] = {};
	char text[TP_RULE_TEXT];

	check(tp_to_parse("10.0.0.1:80", to));
	check_str(tp_to_text(&to[0], text), "10.0.0.1:80");
	check(!to[1].port);
	check(tp_to_parse("[fd00::1]:65535", to));
	check_str(tp_to_text(&to[1], text), "[fd00::1]:65535");
	check_str(tp_to_text(&to[0], text), "10.0.0.1:80");
	memset(to, 0, sizeof(to));
	check(tp_to_parse(":15001", to));
	check_str(tp_to_text(&to[0], text), "127.0.0.1:15001");
	check_str(tp_to_text(&to[1], text), "[::1]:15001");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		check(!tp_to_parse(bad[i], to), "'%s'", bad[i]);
}

static void senders(void)
{
	static const struct {
		const char *text;
		__u64 value;
		__u32 more, kind;
	} t[] = {
		{"mark:7", 7, 0xffffffff, TP_BY_MARK},
		{"mark:0x100/0xf00", 0x100, 0xf00, TP_BY_MARK},
		{"mark:0/1", 0, 1, TP_BY_MARK},
		{"mark:0xffffffff", 0xffffffff, 0xffffffff, TP_BY_MARK},
		{"uid:0", 0, 0, TP_BY_UID},
		{"uid:root", 0, 0, TP_BY_UID},
		{"uid:12345", 12345, 0, TP_BY_UID},
	};
	static const char *const bad[] = {
		"mark:", "mark:x", "mark:-1", "mark:1/", "mark:1/0", "mark:0x10/0x1", "mark:1/-1",
		"mark:0x100000000", "mark:1/0x100000000", "mark:1 ", "uid:", "uid:65534",
		"uid:4294967295", "uid:no such user", "cgroup:/no/such", "cgroup:/..", "cgroup:",
	};
	static const char *const none[] = {"", "mark", "10.0.0.1", "any:80", "marks:7"};
	char name[TP_NAME], big[TP_NAME + 10];
	struct tp_sender s;
	const char *why;

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		check(tp_sender_parse(t[i].text, &s, name, &why), "%s: %s", t[i].text, why);
		check(s.value == t[i].value && s.more == t[i].more && s.kind == t[i].kind, "%s",
		      t[i].text);
		check_str(name, t[i].text);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		/* without cgroup v2 there is none, and where it is, "" is its root */
		if (!strcmp(bad[i], "cgroup:"))
			continue;
		check(!tp_sender_parse(bad[i], &s, name, &why), "'%s'", bad[i]);
		check(*why, "'%s'", bad[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
		check(!tp_sender_parse(none[i], &s, name, &why), "'%s'", none[i]);
		check(!*why, "'%s'", none[i]);
	}
	memset(big, 'x', sizeof(big));
	memcpy(big, "cgroup:", 7);
	big[sizeof(big) - 1] = 0;
	check(!tp_sender_parse(big, &s, name, &why));
	check_str(why, "too long");
}

static void sets(void)
{
	struct tp_set *set = calloc(1, sizeof(*set)), *empty = calloc(1, sizeof(*empty));
	struct tp_rule r, e;
	struct tp_sender s;
	char name[TP_NAME], text[TP_RULE_TEXT];
	const char *why;

	tp_rule_parse("any:1", TP_TCP, false, &r, 1, &why);
	tp_rule_parse("10.0.0.0/8", TP_BOTH, true, &e, 1, &why);
	check(tp_set_add(set, &r) == 1);
	check(tp_set_add(set, &r) == 0);
	check(tp_set_add(set, &e) == 1);
	check(set->conf.nrules == 2);
	/* an exception comes first, whenever it is added */
	check_str(tp_rule_text(&set->rules[0], text), "except both 10.0.0.0/8");
	for (int i = 2; i < TP_RULES; i++) {
		r.from = r.to = i;
		check(tp_set_add(set, &r) == 1, "%d", i);
	}
	r.from = r.to = TP_RULES;
	check(tp_set_add(set, &r) == -1);
	e.len = 9;
	check(tp_set_add(set, &e) == -1);
	check(tp_set_del(set, &e) == 0);
	e.len = 8;
	check(tp_set_del(set, &e) == 1);
	check(tp_set_del(set, &e) == 0);
	check(set->conf.nrules == TP_RULES - 1);
	while (set->conf.nrules) {
		r = set->rules[set->conf.nrules / 2];
		check(tp_set_del(set, &r) == 1);
	}

	for (int i = 0; i < TP_SENDERS; i++) {
		snprintf(text, sizeof(text), "uid:%d", i);
		check(tp_sender_parse(text, &s, name, &why));
		check(tp_set_add_sender(set, &s, name) == 1);
		check(tp_set_add_sender(set, &s, name) == 0);
	}
	tp_sender_parse("mark:1", &s, name, &why);
	check(tp_set_add_sender(set, &s, name) == -1);
	check(tp_set_del_sender(set, &s) == 0);
	tp_sender_parse("uid:0", &s, name, &why);
	check(tp_set_del_sender(set, &s) == 1);
	check_str(set->names[0], "uid:1");
	while (set->conf.nsenders) {
		s = set->senders[set->conf.nsenders - 1];
		check(tp_set_del_sender(set, &s) == 1);
	}
	/* what was taken away leaves no trace: sets are compared as a whole */
	check(!memcmp(set, empty, sizeof(*set)));
	free(set);
	free(empty);
}

int main(int argc, char **argv)
{
	tap_start(argc, argv);
	run(rules);
	run(rules_refused);
	run(masks);
	run(where_to);
	run(senders);
	run(sets);
	return tap_end();
}
