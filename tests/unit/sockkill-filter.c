// SPDX-License-Identifier: GPL-2.0-only
/* The filter: what its ops say of sockets, and what it refuses, and where. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#include "common.h"
#include "sockkill-filter.h"
#include "tap.h"

struct sock {
	const char *src, *dst;		/* ADDR:PORT */
	int family;			/* of the socket; 0: that of its addresses */
	__u32 mark, dev;
	__u64 cookie;
};

static bool same_bits(const __u8 *a, const __u8 *b, __u32 bits)
{
	for (__u32 i = 0; i < bits; i++)
		if ((a[i / 8] ^ b[i / 8]) & (0x80 >> i % 8))
			return false;
	return true;
}

static bool matches(const struct sk_op *op, const struct sock *s)
{
	__u8 src[16], dst[16];
	__u16 sport, dport;
	bool v4;

	if (!sk_endpoint_parse(s->src, src, &sport) || !sk_endpoint_parse(s->dst, dst, &dport))
		abort();
	v4 = IN6_IS_ADDR_V4MAPPED((struct in6_addr *)dst);
	switch (op->what) {
	case SK_DST:
	case SK_SRC:
		return (op->family == 4 ? v4 : !v4 || s->family == 6) &&
		       same_bits(op->addr, op->what == SK_DST ? dst : src, op->bits);
	case SK_DPORT:
		return dport >= op->lo && dport <= op->hi;
	case SK_SPORT:
		return sport >= op->lo && sport <= op->hi;
	case SK_DEV:
		return s->dev == op->value;
	case SK_MARK:
		return (s->mark & (op->value >> 32)) == (__u32)op->value;
	case SK_COOKIE:
		return s->cookie == op->value;
	}
	abort();
}

static int verdict(const struct sk_filter *f, const struct sock *s)
{
	__u16 pc = f->nops ? 0 : SK_ACCEPT;

	for (__u32 i = 0; pc < f->nops; i++) {
		if (i == f->nops)
			return -1;	/* it went round */
		pc = matches(&f->op[pc], s) ? f->op[pc].yes : f->op[pc].no;
	}
	return pc == SK_ACCEPT ? 1 : pc == SK_REJECT ? 0 : -1;
}

/* The sockets that a filter takes are written as a row of 0 and 1. */
static const struct sock socks[] = {
	{"10.0.0.1:1000", "10.0.0.2:80", 0, 0x10, 1, 7},
	{"10.0.0.1:1001", "10.0.0.3:443", 6, 0x21, 2, 8},
	{"[fd00::1]:1002", "[fd00::2]:80", 0, 0, 0, 9},
	{"[fd00::1]:1003", "[fd01::2]:65535", 0, 0xffffffff, 0, ~0ull},
};

static void takes(void)
{
	static const struct {
		const char *text, *row;
		bool wide;
	} t[] = {
		{"", "1111", true},
		{"  \t\n", "1111", true},
		{"dst 10.0.0.2", "1000", false},
		{"dst = 10.0.0.2:80", "1000", false},
		{"dst 10.0.0.2:81", "0000", false},
		{"dst == 10.0.0.0/24", "1100", false},
		{"dst 10.0.0.0/24:443", "0100", false},
		{"dst 0.0.0.0/0", "1100", true},
		{"dst ::/0", "0111", true},
		{"dst ::ffff:10.0.0.3", "0100", false},
		{"dst [fd00::2]", "0010", false},
		{"dst [fd00::2]:80", "0010", false},
		{"dst fd00::/15", "0011", false},
		{"dst :80", "1010", false},
		{"dst *:80", "1010", false},
		{"dst != 10.0.0.2:80", "0111", true},
		{"dst ne 10.0.0.2", "0111", true},
		{"src 10.0.0.1", "1100", false},
		{"src 10.0.0.1:1001", "0100", false},
		{"sport 1001", "0100", false},
		{"sport = :1001", "0100", false},
		{"sport < 1001", "1000", false},
		{"sport <= 1001", "1100", false},
		{"sport gt :1001", "0011", false},
		{"sport ge 1001", "0111", false},
		{"sport >= 0", "1111", true},
		{"sport < 0", "0000", false},
		{"dport > 65535", "0000", false},
		{"dport >= 65535", "0001", false},
		{"dport != :80", "0101", true},
		{"dport neq 80", "0101", true},
		{"not dport = 80", "0101", true},
		{"! ! dport = 80", "1010", false},
		{"fwmark 0x10", "1000", false},
		{"fwmark = 0x1/0x1", "0101", false},
		{"fwmark 0/0", "1111", true},
		{"fwmark != 0", "1101", true},
		{"cookie 9", "0010", false},
		{"cookie 0xffffffffffffffff", "0001", false},
		{"dport 80 sport 1000", "1000", false},
		{"dport 80 and sport 1002", "0010", false},
		{"dport 80 && sport 1002 & cookie 9", "0010", false},
		{"dport 443 or dport 65535", "0101", false},
		{"dport 443 | dport 65535 || sport 1000", "1101", false},
		/* and binds closer */
		{"dport 443 or dport 80 sport 1000", "1100", false},
		{"(dport 443 or dport 80) sport 1000", "1000", false},
		{"sport 1000 (dport 443 or dport 80)", "1000", false},
		{"not (dport 443 or dport 80)", "0001", true},
		{"not (dport 443 and not src 10.0.0.1)", "1111", true},
		{"not (not dport 443 or not src 10.0.0.1)", "0100", false},
		{"dport 443 or not dport 443", "1111", true},
		{"dport 80 not src 10.0.0.1", "0010", false},
		{"((((dport 80))))", "1010", false},
		{"dport=80", "1010", false},
		{"!(dport=80)", "0101", true},
		{"dst 10.0.0.2:80 or dst 10.0.0.3:443 or dst [fd01::2]:65535", "1101", false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct sk_filter f;
		struct sk_error err = {};
		int rc = sk_filter_parse(t[i].text, &f, &err);

		check(!rc, "%s: %d: %s", t[i].text, rc, err.msg);
		for (size_t j = 0; !rc && j < ARRAY_SIZE(socks); j++)
			check(verdict(&f, &socks[j]) == t[i].row[j] - '0', "%s: socket %zu: %d",
			      t[i].text, j, verdict(&f, &socks[j]));
		check(rc || f.narrow == !t[i].wide, "%s: narrow %d", t[i].text, f.narrow);
		check(rc || !f.states, "%s: states %x", t[i].text, f.states);
	}
}

static void states(void)
{
	static const struct {
		const char *text;
		__u32 mask;
	} t[] = {
		{"state established", 1 << 1},
		{"state syn-recv", 1 << 3 | 1 << 12},
		{"state all", 0x1ffe},
		{"state connected", 0x1ffe & ~(1 << 7 | 1 << 10)},
		{"state established state listening", 1 << 1 | 1 << 10},
		{"exclude listening", 0x1ffe & ~(1 << 10)},
		{"state all exclude time-wait exclude close-wait", 0x1ffe & ~(1 << 6 | 1 << 8)},
		{"dst 10.0.0.1 state time-wait", 1 << 6},
		{"state closing dst 10.0.0.1 and sport 3", 1 << 11},
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct sk_filter f;
		struct sk_error err = {};
		int rc = sk_filter_parse(t[i].text, &f, &err);

		check(!rc, "%s: %s", t[i].text, err.msg);
		check(f.states == t[i].mask, "%s: %x", t[i].text, f.states);
	}
	for (unsigned int i = 1; i <= 12; i++)
		check(sk_state_name(i), "%u", i);
	check(!sk_state_name(0) && !sk_state_name(13) && !sk_state_name(4000));
	check_str(sk_state_name(6), "time-wait");
	check_str(sk_state_name(12), "new-syn-recv");
}

static void refuses(void)
{
	static const struct {
		const char *text;
		size_t col;
		const char *msg;
	} t[] = {
		{"dst", 3, "of which value"},
		{"dst 10.0.0.300", 4, "10.0.0.300: not an address"},
		{"dst example.com", 4, "names are not resolved"},
		{"dst 10.0.0.1:http", 4, "http: not a port"},
		{"dst 10.0.0.1:", 4, ": not a port"},
		{"dst 10.0.0.1:65536", 4, "not a port"},
		{"dst 10.0.0.1/33", 4, "/33: not the length"},
		{"dst [10.0.0.1]:80", 4, "not an address"},
		{"dst [fd00::1:80", 4, "not an address"},
		{"dst *", 4, "neither address nor port"},
		{"dst */8:80", 4, "not the length"},
		{"dst > 10.0.0.1", 4, "only ports"},
		{"dport 70000", 6, "not a port"},
		{"dport http", 6, "http: not a port"},
		{"dport = = 3", 8, "of which value"},
		{"dst 10.0.0.1 frob 3", 13, "frob: expected"},
		{"dst 10.0.0.1 and", 16, "behind `and`"},
		{"dst 10.0.0.1 or", 15, "behind `or`"},
		{"or dst 10.0.0.1", 0, "in front of `or`"},
		{"and dst 10.0.0.1", 0, "expected dst"},
		{"(dst 10.0.0.1", 13, "expected )"},
		{"dst 10.0.0.1)", 12, "nothing was opened"},
		{"()", 1, "in the parentheses"},
		{"not", 3, "expected dst"},
		{"dev no-such-device", 4, "no such device"},
		{"cgroup /no/such/group", 7, "no such cgroup"},
		{"fwmark x", 7, "not a mark"},
		{"fwmark 1/x", 7, "not a mark"},
		{"fwmark 0x100000000", 7, "not a mark"},
		{"cookie -1", 7, "not a cookie"},
		{"state frob", 6, "frob: not a state"},
		{"state", 5, "not a state"},
		{"(state established)", 1, "not in parentheses"},
		{"state established exclude established", 0, "no state is left"},
	};
	struct sk_filter f;
	struct sk_error err;
	char deep[200], *many;
	size_t len = 0;

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		memset(&err, 0, sizeof(err));
		check(sk_filter_parse(t[i].text, &f, &err) == -EINVAL, "%s", t[i].text);
		check(strstr(err.msg, t[i].msg), "%s: %s", t[i].text, err.msg);
		check(err.col == t[i].col, "%s: column %zu", t[i].text, err.col);
	}
	memset(deep, '(', sizeof(deep) - 1);
	deep[sizeof(deep) - 1] = 0;
	check(sk_filter_parse(deep, &f, &err) == -EINVAL && strstr(err.msg, "parentheses"));
	many = malloc((SK_OPS_MAX + 1) * 16);
	for (int i = 0; many && i < SK_OPS_MAX; i++)
		len += sprintf(many + len, "%sdport %d ", i ? "or " : "", i + 1);
	check(many && !sk_filter_parse(many, &f, &err) && f.nops == SK_OPS_MAX && f.narrow);
	check(verdict(&f, &socks[0]) == 1 && verdict(&f, &socks[1]) == 0);
	sprintf(many + len, "or dport 9");
	check(sk_filter_parse(many, &f, &err) == -EINVAL && strstr(err.msg, "more than"));
	free(many);
}

static void endpoints(void)
{
	static const char *const bad[] = {"", ":80", "10.0.0.1", "10.0.0.1:0", "*:80", "fd00::1:80x",
					  "[fd00::1]", "[fd00::1]80", "10.0.0.1:80:80"};
	__u8 addr[16];
	__u16 port;

	check(sk_endpoint_parse("10.0.0.1:80", addr, &port) && port == 80 && addr[10] == 0xff &&
	      addr[15] == 1);
	check(sk_endpoint_parse("[fd00::1]:443", addr, &port) && port == 443 && addr[0] == 0xfd);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		check(!sk_endpoint_parse(bad[i], addr, &port), "%s", bad[i]);
}

int main(int argc, char **argv)
{
	tap_start(argc, argv);
	run(takes);
	run(states);
	run(refuses);
	run(endpoints);
	return tap_end();
}
