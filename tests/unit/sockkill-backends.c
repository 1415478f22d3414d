// SPDX-License-Identifier: GPL-2.0-only
/* Lists of backends and changes to them, as text and as JSON. */
#include <errno.h>
#include <stdlib.h>

#include "common.h"
#include "sockkill-backends.h"
#include "tap.h"

/* "A B C", as they are sorted */
static void show(const struct sk_backends *l, char *out, size_t size)
{
	char text[SK_ENDPOINT_LEN];

	*out = 0;
	for (size_t i = 0; i < l->n; i++)
		snprintf(out + strlen(out), size - strlen(out), "%s%s", i ? " " : "",
			 sk_endpoint_text(text, &l->v[i]));
}

static void lists(void)
{
	static const struct {
		const char *text, *want;
	} t[] = {
		{"", ""},
		{"\n# nobody\n\t\r\n", ""},
		{"10.0.0.1:53/udp", "10.0.0.1:53/udp"},
		{"10.0.0.1:53", "10.0.0.1:53/tcp 10.0.0.1:53/udp"},
		{" 10.0.0.2:80/tcp # web\n10.0.0.1:80/tcp\r\n10.0.0.2:80/tcp\n",
		 "10.0.0.1:80/tcp 10.0.0.2:80/tcp"},
		{"[fd00::1]:53/udp\n", "[fd00::1]:53/udp"},
		{"[::ffff:10.0.0.1]:53/udp\n", "10.0.0.1:53/udp"},
		{"[]", ""},
		{" [ ] ", ""},
		{"[\"10.0.0.1:53/udp\", \"[fd00::1]:53/tcp\"]", "10.0.0.1:53/udp [fd00::1]:53/tcp"},
		{"{\"backends\": [\"10.0.0.1:53/udp\"]}", "10.0.0.1:53/udp"},
	};
	struct sk_list_error err;
	struct sk_backends l;
	char got[512];

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		int rc = sk_backends_parse(t[i].text, &l, &err);

		check(!rc, "%s: %s", t[i].text, err.msg);
		if (rc)
			continue;
		show(&l, got, sizeof(got));
		check_str(got, t[i].want);
		sk_backends_free(&l);
	}
}

static void refused(void)
{
	static const struct {
		const char *text;
		unsigned int line;
		const char *msg;
	} t[] = {
		{"10.0.0.1:53\n10.0.0.2\n", 2, "10.0.0.2: not ADDR:PORT"},
		{"web:80", 1, "names are not resolved"},
		{"10.0.0.1:53/sctp", 1, "neither /tcp nor /udp"},
		{"10.0.0.1:0", 1, "not ADDR:PORT"},
		{"[\"10.0.0.1:53\", 5]", 0, "entry 2 is no string"},
		{"[\"10.0.0.1\"]", 0, "not ADDR:PORT"},
		{"{\"backend\": []}", 0, "expected {\"backends\""},
		{"{\"backends\": {}}", 0, "not a list"},
		{"{\n\n\"backends\": [}", 3, "not JSON"},
		{"[0123456789012345678901234567890123456789012345678901234567890123]:80", 1,
		 "too long"},
	};
	struct sk_list_error err;
	struct sk_backends l;
	char *many = malloc((SK_BACKENDS_MAX + 1) * 24);
	size_t len = 0;

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		memset(&err, 0, sizeof(err));
		check(sk_backends_parse(t[i].text, &l, &err) == -EINVAL, "%s", t[i].text);
		check(err.line == t[i].line, "%s: line %u", t[i].text, err.line);
		check(strstr(err.msg, t[i].msg), "%s: %s", t[i].text, err.msg);
		check(!l.n && !l.v);
	}
	for (int i = 0; many && i <= SK_BACKENDS_MAX; i++) {
		if (i == SK_BACKENDS_MAX)
			check(!sk_backends_parse(many, &l, &err) && l.n == SK_BACKENDS_MAX);
		if (i == SK_BACKENDS_MAX)
			sk_backends_free(&l);
		len += sprintf(many + len, "10.0.%d.%d:9/tcp\n", i >> 8, i & 255);
	}
	check(many && sk_backends_parse(many, &l, &err) == -EINVAL && strstr(err.msg, "more than"));
	free(many);
}

static void changes(void)
{
	static const struct {
		const char *line, *add, *del;
		bool whole, bad;
	} t[] = {
		{"", "", "", false, false},
		{"# 10.0.0.1:1", "", "", false, false},
		{"+ 10.0.0.1:53/udp\n", "10.0.0.1:53/udp", "", false, false},
		{"-10.0.0.1:53/udp", "", "10.0.0.1:53/udp", false, false},
		{"{\"add\": [\"10.0.0.1:1/tcp\"], \"del\": [\"10.0.0.2:1/tcp\"]}", "10.0.0.1:1/tcp",
		 "10.0.0.2:1/tcp", false, false},
		{"{\"backends\": []}", "", "", true, false},
		{"{\"backends\": [\"10.0.0.1:1/tcp\"]}", "10.0.0.1:1/tcp", "", true, false},
		{"{\"backends\": [], \"add\": []}", "", "", false, true},
		{"{\"remove\": []}", "", "", false, true},
		{"10.0.0.1:53", "", "", false, true},
		{"+ 10.0.0.1", "", "", false, true},
		{"+", "", "", false, true},
		{"[]", "", "", false, true},
		{"{", "", "", false, true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct sk_list_error err = {};
		struct sk_change c;
		char got[512];
		int rc = sk_change_parse(t[i].line, &c, &err);

		check(rc == (t[i].bad ? -EINVAL : 0), "%s: %d %s", t[i].line, rc, err.msg);
		if (rc) {
			check(*err.msg && !c.add.v && !c.del.v, "%s", t[i].line);
			continue;
		}
		show(&c.add, got, sizeof(got));
		check_str(got, t[i].add);
		show(&c.del, got, sizeof(got));
		check_str(got, t[i].del);
		check(c.whole == t[i].whole, "%s", t[i].line);
		sk_backends_free(&c.add);
		sk_backends_free(&c.del);
	}
}

static void sets(void)
{
	struct sk_backends l = {};
	struct sk_endpoint e = {.proto = 6};

	for (int i = 0; i < 1000; i++) {
		e.port = i * 7919 % 1000;
		check(!sk_backends_add(&l, &e) && !sk_backends_add(&l, &e));
	}
	check(l.n == 1000, "%zu", l.n);
	for (size_t i = 1; i < l.n; i++)
		check(memcmp(&l.v[i - 1], &l.v[i], sizeof(e)) < 0);
	for (int i = 0; i < 1000; i += 2) {
		e.port = i;
		check(sk_backends_has(&l, &e));
		sk_backends_del(&l, &e);
		sk_backends_del(&l, &e);
		check(!sk_backends_has(&l, &e));
	}
	check(l.n == 500, "%zu", l.n);
	sk_backends_free(&l);
}

int main(int argc, char **argv)
{
	tap_start(argc, argv);
	run(lists);
	run(refused);
	run(changes);
	run(sets);
	return tap_end();
}
