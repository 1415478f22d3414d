// SPDX-License-Identifier: GPL-2.0-only
/* The rule language: what parses to what, and which error points where. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "common.h"
#include "netpol-rules.h"
#include "../netpol-same.h"
#include "tap.h"

static struct np_policy *parse(const char *text, size_t len)
{
	struct np_policy *policy;
	struct np_error err;
	int rc = np_policy_parse(text, len, &policy, &err);

	check(!rc, "rc %d, %u:%u: %s", rc, err.line, err.col, err.msg);
	check(!rc == !!policy);
	return policy;
}

static struct np_policy *parse_str(const char *text)
{
	return parse(text, strlen(text));
}

/* Every set that the cases below name. */
static const char sets[] =
	"set a = { 10.1.0.0/16, 2001:db8::/32 }\n"
	"set b = { 192.0.2.1 }\n";

static void canonical_text(void)
{
	static const struct {
		const char *in, *out;	/* NULL: the same */
	} t[] = {
		{ "allow", NULL }, { "deny", NULL }, { "next", NULL },
		{ "  \tallow \t # words", "allow" },
		{ "allow in", NULL }, { "deny out", NULL }, { "allow in tcp", NULL },
		{ "allow tcp", NULL }, { "allow tcp,udp", "allow tcp, udp" },
		{ "allow udp , tcp", "allow udp, tcp" },
		{ "allow 6", "allow tcp" }, { "allow 58", "allow icmp6" }, { "allow 0", NULL },
		{ "allow 255", NULL }, { "allow 253, 17", "allow 253, udp" },
		{ "allow icmpv6", "allow icmp6" }, { "allow ipv6-icmp", "allow icmp6" },
		{ "allow esp, ah, gre, igmp, ospf, ipip, pim, vrrp, sctp, dccp, udplite", NULL },
		{ "allow icmp type echo-request", NULL },
		{ "allow icmp type 8", "allow icmp type echo-request" },
		{ "allow icmp type 8/0", "allow icmp type echo-request/0" },
		{ "allow icmp type 77, echo-reply/255", NULL },
		{ "allow icmp6 type packet-too-big, neighbor-solicitation",
		  "allow icmp6 type packet-too-big, neighbour-solicitation" },
		{ "allow icmp6 type mld-listener-query", "allow icmp6 type mld-query" },
		{ "allow 1 type destination-unreachable/4",
		  "allow icmp type destination-unreachable/4" },
		{ "allow from 10.0.0.1", NULL },
		{ "allow from 10.0.0.1/32", "allow from 10.0.0.1" },
		{ "allow from 0.0.0.0/0", NULL }, { "allow to ::/0", NULL },
		{ "allow from 2001:db8:1::/48 to 2001:DB8:0:0::1/128",
		  "allow from 2001:db8:1::/48 to 2001:db8::1" },
		{ "allow from ::ffff:1.2.3.4", NULL },
		{ "allow from 10.0.0.1-10.0.0.9", NULL },
		{ "allow from 10.0.0.1-10.0.0.1", "allow from 10.0.0.1" },
		{ "allow from 2001:db8:0::1-2001:db8::ffff",
		  "allow from 2001:db8::1-2001:db8::ffff" },
		{ "allow from {10.0.0.1,10.0.0.2,}", "allow from 10.0.0.1, 10.0.0.2" },
		{ "allow from { 10.0.0.1, # one\n\n\t10.0.0.2\n} to @b",
		  "allow from 10.0.0.1, 10.0.0.2 to @b" },
		{ "allow from @a", NULL }, { "allow from @a, @b, 10.9.0.0/16", NULL },
		{ "allow to { @b }", "allow to @b" },
		{ "allow tcp from port 1024-65535 to port 22, 80, 8000-8100", NULL },
		{ "allow tcp from @a port 0 to @b port 65535", NULL },
		{ "allow tcp to port 5-5", "allow tcp to port 5" },
		{ "allow sctp, dccp, udplite to port 9", NULL },
		{ "allow log", NULL }, { "allow count", "allow" }, { "allow count web-1_x", NULL },
		{ "deny in tcp from @a port 1 to @b port 2 log count n", NULL },
		{ "allow log count", "allow log" },
		{ "allow count a23456789012345678901234567890bc", NULL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		char text[512];
		struct np_policy *p;

		snprintf(text, sizeof(text), "%s%s", sets, t[i].in);
		p = parse_str(text);
		if (!p)
			continue;
		check(p->nrules == 1, "%u rules", p->nrules);
		check_str(p->rules[0].text, t[i].out ?: t[i].in);
		np_policy_free(p);
	}
}

static bool same_rule(const struct np_rule *a, const struct np_rule *b)
{
	return a->verdict == b->verdict && a->dir == b->dir && a->log == b->log &&
	       a->nproto == b->nproto && (!a->nproto || !memcmp(a->proto, b->proto, a->nproto)) &&
	       a->nfrom == b->nfrom && a->nto == b->nto &&
	       a->nsport == b->nsport && a->nsel == b->nsel &&
	       (!a->nfrom || !memcmp(a->from, b->from, a->nfrom * sizeof(*a->from))) &&
	       (!a->nto || !memcmp(a->to, b->to, a->nto * sizeof(*a->to))) &&
	       (!a->nsport || !memcmp(a->sport, b->sport, a->nsport * sizeof(*a->sport))) &&
	       (!a->nsel || !memcmp(a->sel, b->sel, a->nsel * sizeof(*a->sel))) &&
	       !strcmp(a->counter ?: "", b->counter ?: "") && !strcmp(a->text, b->text);
}

static void round_trip(void)
{
	static const char rules[] =
		"deny in tcp, udp from @a port 5-9, 1 to { 10.0.0.0-10.0.0.77, ::1 } port 7 log count x\n"
		"allow icmp6 type 1/3, 2, echo-reply\n"
		"next 99 from @a, @b to 10.0.0.1-10.2.3.4, ::-ffff::1\n"
		"allow out\n";
	char text[1024];
	struct np_policy *p;

	snprintf(text, sizeof(text), "%s%s", sets, rules);
	p = parse_str(text);
	if (!p)
		return;
	for (__u32 i = 0; i < p->nrules; i++) {
		struct np_error err;
		struct np_rule r;
		int rc = np_rule_parse(p, p->rules[i].text, strlen(p->rules[i].text), &r, &err);

		check(!rc, "%s: %s", p->rules[i].text, err.msg);
		check(rc || same_rule(&p->rules[i], &r), "%s", p->rules[i].text);
	}
	np_policy_free(p);
}

static void fields(void)
{
	struct np_policy *p = parse_str(
		"# head\n"
		"default deny log\n"
		"set a = { 10.0.0.0/8, }\n"
		"\n"
		"  deny in tcp, tcp, udp from @a port 1, 3, 2 to 10.1.1.1 port 80, 70-79 log count c # x\n"
		"allow icmp type 3/4, 8, 3/5\n"
		"next out from {\n\t@a }\n"
		"allow");
	const struct np_rule *r;

	if (!p)
		return;
	check(p->has_default && p->dflt == NP_DENY && p->default_log && p->default_line == 2);
	check(p->nrules == 4 && p->nsets == 1 && !p->stateless);
	check(p->sets[0].line == 3 && p->sets[0].n == 1);
	check_str(p->sets[0].name, "a");
	r = &p->rules[0];
	check(r->verdict == NP_DENY && r->dir == NP_IN && r->log && r->line == 5);
	check(r->nproto == 2 && r->proto[0] == 6 && r->proto[1] == 17);
	check(r->nfrom == 1 && r->from == p->sets[0].elems, "a set that stands alone is shared");
	check(r->nsport == 1 && r->sport[0].lo == 1 && r->sport[0].hi == 3);
	check(r->nsel == 1 && r->sel[0].lo == 70 && r->sel[0].hi == 80);
	check(r->nto == 1 && r->to[0].family == 4 && r->to[0].plen == 32 &&
	      r->to[0].addr[0] == htonl(0x0a010101) && !r->to[0].addr[1] && !r->to[0].addr[3]);
	check_str(r->counter, "c");
	check(r->from_text.len == 2 && !strncmp(r->text + r->from_text.off, "@a ", 3));
	check(r->to_text.len == 8 && !strncmp(r->text + r->to_text.off, "10.1.1.1 ", 9));
	r = &p->rules[1];
	check(r->dir == -1 && !r->log && !r->counter && !r->nfrom && !r->nto && r->line == 6);
	check(r->nsel == 2 && r->sel[0].lo == 0x304 && r->sel[0].hi == 0x305 &&
	      r->sel[1].lo == 0x800 && r->sel[1].hi == 0x8ff);
	r = &p->rules[2];
	check(r->verdict == NP_NEXT && r->dir == NP_OUT && r->line == 7 && r->nfrom == 1);
	check(p->rules[3].line == 9);
	np_policy_free(p);
}

static void joined(char *out, size_t size, const struct np_prefix *v, __u32 n)
{
	char buf[NP_PREFIX_STR];

	*out = 0;
	for (__u32 i = 0; i < n; i++)
		snprintf(out + strlen(out), size - strlen(out), "%s%s", i ? " " : "",
			 np_prefix_str(buf, &v[i]));
}

static void set_contents(void)
{
	static const struct {
		const char *elems, *want;
	} t[] = {
		{ "10.0.0.1", "10.0.0.1" },
		{ "10.0.0.2, 10.0.0.1, 10.0.0.2", "10.0.0.1 10.0.0.2" },
		{ "10.0.0.1, 10.0.0.0", "10.0.0.0/31" },
		{ "10.0.0.3, 10.0.0.2, 10.0.0.1, 10.0.0.0", "10.0.0.0/30" },
		{ "10.1.2.0/24, 10.0.0.0/8, 10.1.0.0/16", "10.0.0.0/8" },
		{ "10.1.2.0/24, 0.0.0.0/0, ::1", "0.0.0.0/0 ::1" },
		{ "0.0.0.0/1, 128.0.0.0/1", "0.0.0.0/0" },
		{ "::/1, 8000::/1, 1.2.3.4", "1.2.3.4 ::/0" },
		{ "2001:db8::1, 10.0.0.1, 2001:db8::", "10.0.0.1 2001:db8::/127" },
		{ "10.0.0.1-10.0.0.6", "10.0.0.1 10.0.0.2/31 10.0.0.4/31 10.0.0.6" },
		{ "10.0.0.0-10.0.0.255", "10.0.0.0/24" },
		{ "0.0.0.0-255.255.255.255", "0.0.0.0/0" },
		{ "255.255.255.255-255.255.255.255", "255.255.255.255" },
		{ "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0" },
		{ "::1-::2", "::1 ::2" },
		{ "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		  "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127" },
		{ "@x", "10.0.0.0/30 ::1" },
		{ "@y, 10.0.0.4/30", "10.0.0.0/29 10.9.0.0/16 ::1" },
		{ "@x, @y, @x", "10.0.0.0/30 10.9.0.0/16 ::1" },
		{ "@x,\n # c\n\n 10.0.0.9 # d\n", "10.0.0.0/30 10.0.0.9 ::1" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		char text[512], got[512];
		struct np_policy *p;

		snprintf(text, sizeof(text),
			 "set x = { 10.0.0.0/30, ::1 }\nset y = { @x, 10.9.0.0/16 }\nset z = { %s }\nallow from @z\n",
			 t[i].elems);
		p = parse_str(text);
		if (!p)
			continue;
		joined(got, sizeof(got), p->sets[2].elems, p->sets[2].n);
		check_str(got, t[i].want);
		check(p->rules[0].from == p->sets[2].elems);
		np_policy_free(p);
	}
}

/* Ranges against counting: every address in exactly one prefix. */
static void ranges_decompose(void)
{
	unsigned int seed = 1;

	for (int i = 0; i < 2000; i++) {
		__u32 lo = rand_r(&seed) % 256, hi = lo + rand_r(&seed) % (256 - lo);
		__u32 next = lo, bits = 0;
		char text[128];
		struct np_policy *p;

		snprintf(text, sizeof(text),
			 i & 1 ? "allow from ::%x-::%x" : "allow from 0.0.0.%u-0.0.0.%u", lo, hi);
		p = parse_str(text);
		if (!p)
			return;
		for (__u32 k = 0; k < p->rules[0].nfrom; k++) {
			const struct np_prefix *e = &p->rules[0].from[k];
			__u32 size = 1u << ((e->family == 4 ? 32 : 128) - e->plen);

			check(ntohl(e->addr[e->family == 4 ? 0 : 3]) == next, "%s", text);
			check(!(next & (size - 1)));
			next += size;
			bits++;
		}
		check(next == hi + 1, "%s ends at %u", text, next);
		check(bits <= 2 * 8);
		np_policy_free(p);
	}
}

static void canonical_addresses(void)
{
	static const char *const t[] = {
		"::", "::1", "1::", "2001:db8::1:0:0:1", "2001:db8:0:1:1:1:1:1", "1:0:0:2:0:0:0:3",
		"::ffff:10.0.0.1", "::10.0.0.1", "fe80::1", "255.255.255.255", "0.0.0.0", "1.20.255.9",
	};
	char buf[NP_PREFIX_STR], want[INET6_ADDRSTRLEN];

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct np_prefix p;

		check(np_addr_parse(t[i], strlen(t[i]), &p), "%s", t[i]);
		inet_ntop(p.family == 4 ? AF_INET : AF_INET6, p.addr, want, sizeof(want));
		check_str(np_prefix_str(buf, &p), want);
	}
}

struct bad {
	const char *text;
	unsigned int line, col;
	const char *msg, *hint;		/* part of it */
};

static void check_bad(const struct bad *t, const char *text, size_t len)
{
	struct np_policy *p = NULL;
	struct np_error err;
	int rc = np_policy_parse(text, len, &p, &err);

	check(rc == -EINVAL && !p, "\"%s\": rc %d", t->text, rc);
	np_policy_free(p);
	if (rc != -EINVAL)
		return;
	check(err.line == t->line && err.col == t->col, "\"%s\": %u:%u, want %u:%u (%s)", t->text,
	      err.line, err.col, t->line, t->col, err.msg);
	check(strstr(err.msg, t->msg), "\"%s\": \"%s\" has no \"%s\"", t->text, err.msg, t->msg);
	check(t->hint ? !!strstr(err.hint, t->hint) : !err.hint[0],
	      "\"%s\": hint \"%s\", want \"%s\"", t->text, err.hint, t->hint ?: "");
}

static void errors(void)
{
	static const struct bad t[] = {
		/* statements */
		{ "alow tcp", 1, 1, "unknown word \"alow\"", "did you mean \"allow\"" },
		{ "Allow tcp", 1, 1, "unknown word \"Allow\"", "did you mean \"allow\"" },
		{ "\n  accept tcp", 2, 3, "unknown word \"accept\"", "did you mean \"allow\"" },
		{ "drop", 1, 1, "unknown word \"drop\"", "did you mean \"deny\"" },
		{ "zzzzzz", 1, 1, "unknown word \"zzzzzz\"", NULL },
		{ "{", 1, 1, "expected a rule, \"set\" or \"default\", found \"{\"", NULL },
		{ "allow\n= x", 2, 1, "found \"=\"", NULL },
		{ "allow\x01", 1, 6, "unexpected byte 0x01", NULL },
		{ "allow \r tcp", 1, 7, "byte 0x0d", NULL },
		{ "allow\r", 1, 6, "byte 0x0d", NULL },
		/* default */
		{ "default", 1, 8,
		  "expected \"allow\", \"deny\" or \"next\", found the end of the text", NULL },
		{ "default\n", 1, 8, "found the end of the line", NULL },
		{ "default dny", 1, 9, "unknown word \"dny\"", "\"deny\"" },
		{ "default deny lg", 1, 14, "unknown word \"lg\"", "\"log\"" },
		{ "default deny log log", 1, 18, "unknown word", "\"log\"" },
		{ "default deny\nallow\ndefault allow", 3, 1, "a second \"default\"", "line 1" },
		/* directions, protocols, order */
		{ "allow tpc", 1, 7, "unknown word \"tpc\"", "\"tcp\"" },
		{ "allow ingress", 1, 7, "unknown word \"ingress\"", "\"in\"" },
		{ "allow ou", 1, 7, "unknown word \"ou\"", "\"out\"" },
		{ "allow tcp udp", 1, 11, "\"udp\" is out of place", "the order is" },
		{ "allow tcp in", 1, 11, "\"in\" is out of place", "the order is" },
		{ "allow in out", 1, 10, "unknown word \"out\"", NULL },
		{ "allow 256", 1, 7, "\"256\" is no protocol", "0-255" },
		{ "allow 06", 1, 7, "\"06\" is no protocol", "0-255" },
		{ "allow 10.0.0.1", 1, 7, "\"10.0.0.1\" is no protocol", "\"from\"" },
		{ "allow from 10.0.0.1 to fd00::1", 1, 24, "from IPv4 to IPv6", "each family" },
		{ "set s = { ::/0 }\nallow from @s to 10.0.0.1", 2, 18, "from IPv6 to IPv4",
		  "each family" },
		{ "allow icmp type 8 from fd00::1", 1, 24, "icmp has no types in IPv6", "icmp6" },
		{ "allow icmp6 type 128 to 10.0.0.1", 1, 25, "icmp6 has no types in IPv4", "icmp" },
		{ "set s = { 10.0.0.1, fd00::1 }\nallow icmp type 8 from @s to fd00::1", 2, 30,
		  "icmp has no types in IPv6", "icmp6" },
		{ "allow tcp,", 1, 11, "expected a protocol, found the end of the text", NULL },
		{ "allow tcp,,udp", 1, 11, "expected a protocol, found \",\"", NULL },
		{ "allow , udp", 1, 7, "unexpected \",\"", NULL },
		{ "allow tcp }", 1, 11, "unexpected \"}\"", NULL },
		{ "allow to 10.0.0.1 from 10.0.0.2", 1, 19, "\"from\" is out of place",
		  "the order is" },
		{ "allow from 10.0.0.1 from 10.0.0.2", 1, 21, "\"from\" is out of place",
		  "the order is" },
		{ "allow log to 10.0.0.1", 1, 11, "\"to\" is out of place", "the order is" },
		{ "allow form 10.0.0.1", 1, 7, "unknown word \"form\"", "\"from\"" },
		{ "allow tcp form 10.0.0.1", 1, 11, "unknown word \"form\"", "\"from\"" },
		{ "allow tcp dport 22", 1, 11, "unknown word \"dport\"", "\"to port\"" },
		{ "allow tcp from 10.0.0.1 prot 22", 1, 25, "unknown word \"prot\"", "\"port\"" },
		/* type */
		{ "allow tcp type 8", 1, 11, "\"type\" needs icmp or icmp6", "icmp type" },
		{ "allow type 8", 1, 7, "\"type\" needs icmp or icmp6", "icmp type" },
		{ "allow icmp, icmp6 type 8", 1, 19, "\"type\" needs icmp or icmp6", "icmp type" },
		{ "allow icmp type", 1, 16, "expected an ICMP type, found the end of the text",
		  NULL },
		{ "allow icmp type echo-requst", 1, 17, "\"echo-requst\" is no type of icmp",
		  "\"echo-request\"" },
		{ "allow icmp type packet-too-big", 1, 17, "is no type of icmp",
		  "it is one of icmp6" },
		{ "allow icmp6 type timestamp-reply", 1, 18, "is no type of icmp6",
		  "it is one of icmp" },
		{ "allow icmp type 256", 1, 17, "\"256\" is no type", "0-255" },
		{ "allow icmp type 8/256", 1, 19, "\"256\" is no ICMP code", "0-255" },
		{ "allow icmp type echo-reply/", 1, 28, "\"\" is no ICMP code", "0-255" },
		{ "allow icmp type 8,", 1, 19, "expected an ICMP type", NULL },
		/* sides */
		{ "allow from", 1, 11, "\"from\" needs an address", "leave \"from\" out" },
		{ "allow from to 10.0.0.1", 1, 12, "\"from\" needs an address",
		  "leave \"from\" out" },
		{ "allow tcp to log", 1, 14, "\"to\" needs an address", "leave \"to\" out" },
		{ "allow from { }", 1, 12, "the list is empty", "nothing" },
		{ "allow from {\n}", 1, 12, "the list is empty", "nothing" },
		{ "allow from 10.0.0.1,", 1, 21,
		  "expected an address or @SET, found the end of the text", NULL },
		{ "allow from 10.0.0.1,\n10.0.0.2", 1, 21, "found the end of the line", NULL },
		{ "allow from 10.0.0.1 10.0.0.2", 1, 21, "unexpected \"10.0.0.2\"", "commas" },
		{ "allow from { 10.0.0.1 10.0.0.2 }", 1, 23,
		  "expected \",\" or \"}\", found \"10.0.0.2\"", NULL },
		{ "allow from { 10.0.0.1, , }", 1, 24, "expected an address or @SET, found \",\"",
		  NULL },
		{ "allow from { 10.0.0.1\n\n", 1, 12, "the brace is not closed", "\"}\"" },
		{ "allow from {", 1, 12, "the brace is not closed", "\"}\"" },
		{ "allow from { 10.0.0.1\nallow tcp\n", 2, 1,
		  "expected \",\" or \"}\", found \"allow\"", "missing" },
		{ "allow from { 10.0.0.1,\nallow tcp\n", 2, 1, "\"allow\" is not an address",
		  "missing" },
		/* addresses */
		{ "allow from 10.0.0", 1, 12, "\"10.0.0\" is not an address", "four numbers" },
		{ "allow from 10.0.0.256", 1, 12, "not an address", "four numbers" },
		{ "allow from 10.0.0.01", 1, 12, "not an address", "leading zeros" },
		{ "allow from 10.0.0.1.2", 1, 12, "not an address", "four numbers" },
		{ "allow from 1000.0.0.1", 1, 12, "not an address", "four numbers" },
		{ "allow from any", 1, 12, "not an address", "leave the address out" },
		{ "allow from example.org", 1, 12, "not an address", "not looked up" },
		{ "allow from fe80::1%eth0", 1, 12, "not an address", "no zone" },
		{ "allow from 2001:db8:::1", 1, 12, "not an address", "IPv4" },
		{ "allow from /8", 1, 12, "\"\" is not an address", "without blanks" },
		{ "allow from 10.1.2.3/16", 1, 12, "bits set behind its prefix length",
		  "did you mean \"10.1.0.0/16\"" },
		{ "allow from 10.1.2.3/0", 1, 12, "bits set", "\"0.0.0.0/0\"" },
		{ "allow from 2001:db8::1/32", 1, 12, "bits set", "\"2001:db8::/32\"" },
		{ "allow from 10.0.0.0/33", 1, 21, "\"33\" is no prefix length", "0-32" },
		{ "allow from 10.0.0.0/", 1, 21, "\"\" is no prefix length", "0-32" },
		{ "allow from 10.0.0.0/08", 1, 21, "\"08\" is no prefix length", "0-32" },
		{ "allow from 10.0.0.0/8/8", 1, 21, "\"8/8\" is no prefix length", "0-32" },
		{ "allow from ::/129", 1, 15, "\"129\" is no prefix length", "0-128" },
		{ "allow from 10.0.0.9-10.0.0.1", 1, 12, "runs backwards",
		  "\"10.0.0.1-10.0.0.9\"" },
		{ "allow from 10.0.0.9-::1", 1, 12, "an IPv4 end and an IPv6 end", NULL },
		{ "allow from 10.0.0.1-10.0.0", 1, 21, "\"10.0.0\" is not an address",
		  "four numbers" },
		{ "allow from 10.0.0.1-", 1, 21, "\"\" is not an address", "without blanks" },
		{ "allow from 10.0.0.1 - 10.0.0.2", 1, 21, "unknown word \"-\"", NULL },
		{ "allow from 10.0.0.1-10.0.0.2/31", 1, 21, "\"10.0.0.2/31\" is not an address",
		  "four numbers" },
		/* sets */
		{ "allow from @x", 1, 12, "no set \"x\" above", "define it first: set x" },
		{ "set admins = { ::1 }\nallow from @admin", 2, 12, "no set \"admin\" above",
		  "\"@admins\"" },
		{ "set admins = { ::1 }\nallow from admins", 2, 12, "not an address",
		  "\"@admins\"" },
		{ "allow from @", 1, 13, "\"\" is no name for a set", "lower-case" },
		{ "allow from @X", 1, 13, "\"X\" is no name for a set", "lower-case" },
		{ "set x = { @x }", 1, 11, "no set \"x\" above", "define" },
		{ "set", 1, 4, "expected the name of the set", NULL },
		{ "set 1x = { ::1 }", 1, 5, "\"1x\" is no name for a set", "lower-case" },
		{ "set @x = { ::1 }", 1, 5, "\"@x\" is no name for a set", "\"@\" comes only" },
		{ "set a2345678901234567890123456789012x = { ::1 }", 1, 5, "is no name for a set",
		  "31" },
		{ "set x { ::1 }", 1, 7, "expected \"=\", found \"{\"", NULL },
		{ "set x = ::1", 1, 9, "expected \"{\", found \"::1\"", NULL },
		{ "set x = { }", 1, 9, "the list is empty", "nothing" },
		{ "set x = { ::1 } allow", 1, 17, "expected the end of the line", "one statement" },
		{ "set x = { ::1 }\nset x = { ::2 }", 2, 5, "a second set \"x\"", "line 1" },
		{ "set x = {\n ::1,\n bad,\n}", 3, 2, "\"bad\" is not an address", "looked up" },
		{ "set x = {\n ::1\n", 1, 9, "the brace is not closed", "\"}\"" },
		/* ports */
		{ "allow to port 22", 1, 10, "\"port\" needs a protocol", "allow tcp" },
		{ "allow icmp to port 22", 1, 15, "icmp has no ports", "goes with" },
		{ "allow tcp, 99 from port 22", 1, 20, "protocol 99 has no ports", "goes with" },
		{ "allow tcp, esp to 10.0.0.1 port 22", 1, 28, "esp has no ports", "goes with" },
		{ "allow tcp to port", 1, 18, "expected a port, found the end of the text", NULL },
		{ "allow tcp to port ssh", 1, 19, "\"ssh\" is not a port", "0-65535" },
		{ "allow tcp to port 65536", 1, 19, "\"65536\" is not a port", "0-65535" },
		{ "allow tcp to port 022", 1, 19, "\"022\" is not a port", "0-65535" },
		{ "allow tcp to port 1-65536", 1, 21, "\"65536\" is not a port", "0-65535" },
		{ "allow tcp to port 99999-1", 1, 19, "\"99999\" is not a port", "0-65535" },
		{ "allow tcp to port 22-", 1, 22, "\"\" is not a port", "0-65535" },
		{ "allow tcp to port 9-1", 1, 19, "runs backwards", "\"1-9\"" },
		{ "allow tcp to port 22,", 1, 22, "expected a port", NULL },
		{ "allow tcp to port { 22 }", 1, 19, "expected a port", "without braces" },
		{ "allow tcp to port 22 80", 1, 22, "unexpected \"80\"", "commas" },
		/* count */
		{ "allow count 9", 1, 13, "\"9\" is no name for a counter", "lower-case" },
		{ "allow count log", 1, 13, "\"log\" comes after \"count\"", "last word" },
		{ "allow count a b", 1, 15, "unknown word \"b\"", NULL },
		{ "allow log log", 1, 11, "\"log\" is out of place", "the order is" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		check_bad(&t[i], t[i].text, strlen(t[i].text));
}

static void layouts(void)
{
	static const struct {
		const char *text;
		__u32 nrules;
	} t[] = {
		{ "", 0 }, { "\n\n", 0 }, { "# c", 0 }, { "   ", 0 }, { "\xef\xbb\xbf" "allow", 1 },
		{ "\xef\xbb\xbf", 0 }, { "allow\r\ndeny\r\n", 2 }, { "allow\n\n\ndeny", 2 },
		{ "set x = {\r\n ::1,\r\n}\r\nallow from @x\r\n", 1 },
		{ "allow#c\ndeny # \xc3\xa4 \x01\n", 2 }, { "allow from { ::1,\n#}\n}\n", 1 },
		{ "set x = { ::1 } # c\nallow from @x\nset y = { @x }\ndeny from @y", 2 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct np_policy *p = parse_str(t[i].text);

		check(p && p->nrules == t[i].nrules, "case %zu", i);
		np_policy_free(p);
	}
	check_bad(&(struct bad){ "nul", 2, 3, "NUL byte", "text file" }, "allow\n# \0 x\n", 12);
	check_bad(&(struct bad){ "nul", 1, 1, "NUL byte", "text file" }, "\0", 1);
}

static void line_length(void)
{
	size_t max = NP_MAX_LINE;
	char *text = malloc(2 * max);
	struct np_policy *p;

	memset(text, ' ', 2 * max);
	memcpy(text, "allow\n", 6);
	memcpy(text + 6, "deny", 4);
	p = parse(text, 6 + max);
	check(p && p->nrules == 2);
	np_policy_free(p);
	text[6 + max] = '\r';
	text[6 + max + 1] = '\n';
	p = parse(text, 6 + max + 2);
	check(p && p->nrules == 2);
	np_policy_free(p);
	text[6 + max] = ' ';
	check_bad(&(struct bad){ "long line", 2, max + 1, "than 65536 bytes", "braces" },
		  text, 6 + max + 2);
	check_bad(&(struct bad){ "long last line", 2, max + 1, "than 65536 bytes", "braces" },
		  text, 6 + max + 1);
	free(text);
}

static void rule_limit(void)
{
	size_t n = NP_MAX_RULES;
	char *text = malloc(5 * n + 8), *at = text;
	struct np_policy *p;

	for (size_t i = 0; i < n; i++)
		at = stpcpy(at, "deny\n");
	p = parse(text, at - text);
	check(p && p->nrules == n);
	np_policy_free(p);
	at = stpcpy(at, "allow");
	check_bad(&(struct bad){ "2^20 + 1", n + 1, 1, "more than 1048576 rules", "with a set" },
		  text, at - text);
	free(text);
}

/* Few bytes must not become gigabytes. */
static void element_limit(void)
{
	char *text = malloc(4 << 20), *at = text;
	struct np_policy *p = NULL;
	struct np_error err;
	int rc;

	at = stpcpy(at, "set a = { ");
	for (int i = 0; i < 4000; i++)
		at += sprintf(at, "%x::1-%x:fff0::fffe,\n", 2 * i + 1, 2 * i + 1);
	at = stpcpy(at, "}\n");
	for (int i = 0; i < 30; i++)
		at = stpcpy(at, "allow from @a, ::2\n");
	rc = np_policy_parse(text, at - text, &p, &err);
	check(rc == -EINVAL && strstr(err.msg, "more than 8388608 addresses"), "%d %s", rc,
	      err.msg);
	check(err.line > 2 && err.col == 12, "%u:%u", err.line, err.col);
	np_policy_free(p);
	free(text);
}

static void printed_error(const char *text, const char *want)
{
	struct np_policy *p;
	struct np_error err;
	size_t size;
	char *out;
	FILE *f = open_memstream(&out, &size);

	check(np_policy_parse(text, strlen(text), &p, &err) == -EINVAL);
	np_error_print(f, "f.rules", text, strlen(text), &err);
	fclose(f);
	check_str(out, want);
	free(out);
}

static void carets(void)
{
	char text[400], want[400], *out;
	struct np_error err;
	size_t size;
	FILE *f;

	printed_error("allow\n\tdeny tpc # x\r\nallow",
		      "f.rules:2:7: unknown word \"tpc\"\n    \tdeny tpc # x\n    \t     ^\n"
		      "    did you mean \"tcp\"?\n");
	printed_error("allow tcp,",
		      "f.rules:1:11: expected a protocol, found the end of the text\n    allow tcp,\n"
		      "              ^\n");
	printed_error("allow\x1b[0m \xc3\xa4",
		      "f.rules:1:6: unexpected byte 0x1b\n    allow?[0m \xc3\xa4\n         ^\n");
	printed_error("\xef\xbb\xbf" "alow", "f.rules:1:1: unknown word \"alow\"\n    alow\n    ^\n"
		      "    did you mean \"allow\"?\n");
	np_error_set(&err, 1, 4, NULL, "bad \x1b[m");
	f = open_memstream(&out, &size);
	np_error_print(f, "f", "\xc3\xa4 x", 4, &err);
	np_error_set(&err, 9, 1, "next step", "no such line");
	np_error_print(f, "f", "x", 1, &err);
	np_error_set(&err, 0, 0, NULL, "no place");
	np_error_print(f, "f", NULL, 0, &err);
	fclose(f);
	check_str(out, "f:1:4: bad ?[m\n    \xc3\xa4 x\n      ^\nf:9:1: no such line\n    next step\n"
		  "f: no place\n");
	free(out);
	memset(text, ' ', 300);
	strcpy(text + 300, "alow                                               x");
	memset(want, ' ', sizeof(want));
	sprintf(want, "f.rules:1:301: unknown word \"alow\"\n    ...%60salow%36s...\n       %60s^\n"
		"    did you mean \"allow\"?\n", "", "", "");
	printed_error(text, want);
}

static void one_rule(void)
{
	static const struct {
		const char *text;
		unsigned int line, col;
		const char *msg;
	} t[] = {
		{ "", 0, 0, "no rule" }, { " # c", 0, 0, "no rule" },
		{ "set x = { ::1 }", 1, 1, "is not a rule" },
		{ "default deny", 1, 1, "is not a rule" },
		{ "allow\ndeny", 2, 1, "more than one rule" },
		{ "allow from @c", 1, 12, "no set \"c\"" },
	};
	struct np_policy *p = parse_str(sets);
	struct np_error err;
	struct np_rule r;

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		int rc = np_rule_parse(p, t[i].text, strlen(t[i].text), &r, &err);

		check(rc == -EINVAL && err.line == t[i].line && err.col == t[i].col &&
		      strstr(err.msg, t[i].msg), "\"%s\": %d %u:%u: %s", t[i].text, rc, err.line,
		      err.col, err.msg);
	}
	check(!np_rule_parse(p, "\n allow from @a # c\n\n", 20, &r, &err), "%s", err.msg);
	check_str(r.text, "allow from @a");
	check(p->nrules == 0);
	np_policy_free(p);
}

/* The text that an edit makes, and whether its policy is what a parse of it gives. */
static int edited(int rc, struct np_edit *edit, char **out, size_t *out_len)
{
	struct np_policy *p;
	struct np_error err;
	const char *differs;

	*out = NULL;
	*out_len = 0;
	if (rc) {
		check(!edit->text && !edit->policy);
		return rc;
	}
	rc = np_policy_parse(edit->text, edit->len, &p, &err);
	check(!rc, "\"%s\": %s", edit->text, err.msg);
	differs = rc ? NULL : policy_differs(edit->policy, p);
	check(!differs, "\"%s\": %s", edit->text, differs ?: "");
	np_policy_free(p);
	*out = strdup(edit->text);
	*out_len = edit->len;
	np_edit_free(edit);
	return rc;
}

static int text_add(const char *text, size_t len, enum np_where where, __u32 number,
		    const char *rule, size_t rule_len, char **out, size_t *out_len,
		    struct np_error *err)
{
	struct np_edit edit;
	struct np_policy *p;
	int rc = np_policy_parse(text, len, &p, err);

	check(!rc, "%s", err->msg);
	rc = np_policy_add(p, text, len, where, number, rule, rule_len, &edit, err);
	np_policy_free(p);		/* the new one lives on without it */
	return edited(rc, &edit, out, out_len);
}

static int text_del(const char *text, size_t len, const char *which, size_t which_len, char **out,
		    size_t *out_len, struct np_error *err)
{
	struct np_edit edit;
	struct np_policy *p;
	int rc = np_policy_parse(text, len, &p, err);

	check(!rc, "%s", err->msg);
	rc = np_policy_del(p, text, len, which, which_len, &edit, err);
	np_policy_free(p);
	return edited(rc, &edit, out, out_len);
}

static void editing(void)
{
	static const char base[] =
		"# head\n"
		"default deny\n"
		"\n"
		"  allow tcp to port 22   # ssh\n"
		"set late = { ::1 }\n"
		"deny  from { 10.0.0.1,\n"
		"\t10.0.0.2 } # two\n"
		"# tail";
	static const struct {
		enum np_where where;
		__u32 number;
		const char *rule, *from, *to;	/* the text `from` became `to` */
	} add[] = {
		{ NP_AT_END, 0, "allow udp", "# tail", "# tail\nallow udp\n" },
		{ NP_AT_END, 0, "  allow  udp # u\n", "# tail", "# tail\nallow  udp # u\n" },
		{ NP_AT_END, 0, "allow from @late", "# tail", "# tail\nallow from @late\n" },
		{ NP_BEFORE, 1, "allow udp", "  allow tcp", "  allow udp\n  allow tcp" },
		{ NP_AFTER, 1, "allow udp", "# ssh\n", "# ssh\n  allow udp\n" },
		{ NP_BEFORE, 2, "allow from @late", "deny  from", "allow from @late\ndeny  from" },
		{ NP_AFTER, 2, "allow {", NULL, "" },
		{ NP_AFTER, 2, "allow from {\n::1\n}", "# two\n", "# two\nallow from {\n::1\n}\n" },
	};
	static const struct {
		const char *which, *cut;
	} del[] = {
		{ "1", "  allow tcp to port 22   # ssh\n" },
		{ " allow 6 to port 22-22 ", "  allow tcp to port 22   # ssh\n" },
		{ "2", "deny  from { 10.0.0.1,\n\t10.0.0.2 } # two\n" },
		{ "deny from 10.0.0.1, 10.0.0.2", "deny  from { 10.0.0.1,\n\t10.0.0.2 } # two\n" },
	};
	struct np_error err;
	char want[1024], *out;
	const char *at;
	size_t len;
	int rc;

	for (size_t i = 0; i < ARRAY_SIZE(add); i++) {
		rc = text_add(base, strlen(base), add[i].where, add[i].number, add[i].rule,
			      strlen(add[i].rule), &out, &len, &err);
		check(rc == (add[i].from ? 0 : -EINVAL), "%zu: %d %s", i, rc, err.msg);
		if (rc)
			continue;
		at = strstr(base, add[i].from);
		snprintf(want, sizeof(want), "%.*s%s%s", (int)(at - base), base, add[i].to,
			 at + strlen(add[i].from));
		check_str(out, want);
		check(len == strlen(out));
		free(out);
	}
	for (size_t i = 0; i < ARRAY_SIZE(del); i++) {
		rc = text_del(base, strlen(base), del[i].which, strlen(del[i].which), &out, &len,
			      &err);
		check(!rc, "%zu: %d %s", i, rc, err.msg);
		if (rc)
			continue;
		at = strstr(base, del[i].cut);
		snprintf(want, sizeof(want), "%.*s%s", (int)(at - base), base,
			 at + strlen(del[i].cut));
		check_str(out, want);
		free(out);
	}
	rc = text_add("allow\ndefault deny", 18, NP_BEFORE, 1, "next", 4, &out, &len, &err);
	check(!rc);
	check_str(out, "next\nallow\ndefault deny");
	free(out);
	rc = text_add("allow\r\n deny", 12, NP_AT_END, 0, "next", 4, &out, &len, &err);
	check(!rc && len == 20);
	check_str(out, "allow\r\n deny\r\nnext\r\n");
	free(out);
	rc = text_add("", 0, NP_AT_END, 0, "next\r", 5, &out, &len, &err);
	check_str(out, "next\n");
	free(out);
	rc = text_add("", 0, NP_AT_END, 0, "next", 4, &out, &len, &err);
	check_str(out, "next\n");
	free(out);
	rc = text_add("\xef\xbb\xbf" "allow", 8, NP_BEFORE, 1, "next", 4, &out, &len, &err);
	check_str(out, "\xef\xbb\xbf" "next\nallow");
	free(out);
	rc = text_add("allow", 5, NP_AT_END, 0, "\xef\xbb\xbf" "next", 7, &out, &len, &err);
	check(!rc);
	check_str(out, "allow\nnext\n");
	free(out);
	rc = text_add("\xef\xbb\xbf", 3, NP_AT_END, 0, "next", 4, &out, &len, &err);
	check_str(out, "\xef\xbb\xbf" "next\n");
	free(out);
	rc = text_del("allow", 5, "1", 1, &out, &len, &err);
	check(!rc && !len);
	check_str(out, "");
	free(out);
}

static void editing_errors(void)
{
	static const char base[] = "allow\nset late = { ::1 }\ndeny\nallow log\nallow\n";
	struct np_error err;
	char *out;
	size_t len;
	int rc;

#define ADD(where, nr, rule) text_add(base, strlen(base), where, nr, rule, strlen(rule), \
				      &out, &len, &err)
#define DEL(which) text_del(base, strlen(base), which, strlen(which), &out, &len, &err)
	rc = ADD(NP_BEFORE, 1, "allow from @late");
	check(rc == -EINVAL && err.line == 1 && err.col == 12 && strstr(err.hint, "line 2"),
	      "%d %s %s", rc, err.msg, err.hint);
	rc = ADD(NP_AFTER, 1, "allow from @late");
	check(rc == -EINVAL && strstr(err.hint, "line 2"), "%d %s %s", rc, err.msg, err.hint);
	rc = ADD(NP_BEFORE, 0, "allow");
	check(rc == -ENOENT && strstr(err.msg, "no rule 0, the policy has 4"), "%d %s", rc,
	      err.msg);
	check(ADD(NP_AFTER, 5, "allow") == -ENOENT && !out);
	rc = ADD(NP_AT_END, 0, "allow tpc");
	check(rc == -EINVAL && err.line == 1 && err.col == 7, "%d %s", rc, err.msg);
	check(ADD(NP_AT_END, 0, "default deny") == -EINVAL && !out);
	check(ADD(NP_AT_END, 0, "allow\ndeny") == -EINVAL && !out);
	check(DEL("0") == -ENOENT && DEL("5") == -ENOENT && !out);
	check(DEL("deny log") == -ENOENT && strstr(err.msg, "no rule reads \"deny log\""), "%s",
	      err.msg);
	rc = DEL("allow");
	check(rc == -EINVAL && strstr(err.msg, "2 rules read like this, the first are 1 and 4"),
	      "%d %s", rc, err.msg);
	check(DEL("allw") == -EINVAL && err.col == 1);
#undef ADD
#undef DEL
}

static void views(void)
{
	struct np_policy *p = parse_str(
		"default next log\nset a = { 10.0.0.0/8, ::1 }\n"
		"deny in tcp, 17 from @a, 10.0.0.1-10.0.0.3 port 5 to ::2 port 80, 443-444 log count c\n"
		"allow icmp type echo-request/0, 3 to 10.0.0.9\nallow 99\n");
	static const char want[] =
		"{\"default\":\"next\",\"default_log\":true,"
		"\"sets\":{\"a\":[\"10.0.0.0/8\",\"::1\"]},\"rules\":["
		"{\"index\":1,\"line\":3,\"text\":\"deny in tcp, udp from @a, 10.0.0.1-10.0.0.3 port 5 to ::2 port 80, 443-444 log count c\","
		"\"verdict\":\"deny\",\"direction\":\"in\",\"protocols\":[\"tcp\",\"udp\"],\"types\":[],"
		"\"from\":[\"@a\",\"10.0.0.1-10.0.0.3\"],\"source_ports\":[\"5\"],\"to\":[\"::2\"],"
		"\"ports\":[\"80\",\"443-444\"],\"log\":true,\"counter\":\"c\"},"
		"{\"index\":2,\"line\":4,\"text\":\"allow icmp type echo-request/0, destination-unreachable to 10.0.0.9\","
		"\"verdict\":\"allow\",\"direction\":\"both\",\"protocols\":[\"icmp\"],"
		"\"types\":[\"echo-request/0\",\"destination-unreachable\"],\"from\":[],\"source_ports\":[],"
		"\"to\":[\"10.0.0.9\"],\"ports\":[],\"log\":false,\"counter\":null},"
		"{\"index\":3,\"line\":5,\"text\":\"allow 99\",\"verdict\":\"allow\",\"direction\":\"both\","
		"\"protocols\":[\"99\"],\"types\":[],\"from\":[],\"source_ports\":[],\"to\":[],\"ports\":[],"
		"\"log\":false,\"counter\":null}]}";
	json_t *json = np_policy_json(p);
	char *text = json_dumps(json, JSON_COMPACT), *out;
	size_t size;
	FILE *f = open_memstream(&out, &size);

	check_str(text, want);
	free(text);
	json_decref(json);
	np_policy_print_rules(f, p);
	fclose(f);
	check_str(out,
		  "     1  deny in tcp, udp from @a, 10.0.0.1-10.0.0.3 port 5 to ::2 port 80, 443-444 log count c\n"
		  "     2  allow icmp type echo-request/0, destination-unreachable to 10.0.0.9\n"
		  "     3  allow 99\n"
		  "        default next log\n");
	free(out);
	np_policy_free(p);
}

static void names(void)
{
	static const char *const words[] = { "allow", "deny", NULL };
	struct np_policy *p;
	char text[64];

	check_str(np_nearest("alow", 4, words), "allow");
	check(!np_nearest("zebra", 5, words));
	check(!np_nearest("", 0, words));
	/* Whatever name a number has, the name leads back to it. */
	for (int i = 0; i < 256; i++) {
		const char *name = np_proto_name(i);

		check(!name || np_proto_number(name, strlen(name)) == i, "%d", i);
		for (int k = 0; k < 2; k++) {
			__u8 proto = k ? IPPROTO_ICMPV6 : IPPROTO_ICMP;

			name = np_icmp_name(proto, i);
			check(!name || np_icmp_number(proto, name, strlen(name)) == i, "%d", i);
		}
		snprintf(text, sizeof(text), "allow %d", i);
		p = parse_str(text);
		check(p && p->rules[0].nproto == 1 && p->rules[0].proto[0] == i);
		np_policy_free(p);
	}
}

static void many_sets(void)
{
	char *text = malloc(64 * 20000), *at = text;
	struct np_policy *p;

	for (int i = 0; i < 20000; i++)
		at += sprintf(at, "set s%d = { 10.0.%d.%d }\n", i, i >> 8, i & 255);
	for (int i = 0; i < 20000; i++)
		at += sprintf(at, "allow from @s%d\n", i);
	p = parse(text, at - text);
	for (int i = 0; p && i < 20000; i++)
		check(p->rules[i].from[0].addr[0] == htonl(0x0a000000 + i), "%d", i);
	np_policy_free(p);
	free(text);
}

static void big_file(void)
{
	int n = 100000;
	char *text = malloc(80 * n), *at;
	static const char *const fmt[] = {
		"allow tcp from 10.%d.%d.%d to port %d\n",
		"allow tcp from 2001:db8:%x:%x::%x to port %d\n",
	};

	for (size_t k = 0; k < ARRAY_SIZE(fmt); k++) {
		double best = 1e9;

		at = text;
		for (int i = 0; i < n; i++)
			at += sprintf(at, fmt[k], i >> 16, i >> 8 & 255, i & 255, 1 + i % 60000);
		for (int round = 0; round < (tap_verbose ? 10 : 1); round++) {
			double start = tap_ms(), ms;
			struct np_policy *p = parse(text, at - text);

			ms = tap_ms() - start;
			if (ms < best)
				best = ms;
			check(p && p->nrules == 100000);
			np_policy_free(p);
		}
		if (tap_verbose)
			printf("# %d rules of %s: %.1f ms\n", n, k ? "IPv6" : "IPv4", best);
	}
	free(text);
}

int main(int argc, char **argv)
{
	tap_start(argc, argv);
	run(canonical_text);
	run(round_trip);
	run(fields);
	run(set_contents);
	run(ranges_decompose);
	run(canonical_addresses);
	run(errors);
	run(layouts);
	run(line_length);
	run(rule_limit);
	run(element_limit);
	run(carets);
	run(one_rule);
	run(editing);
	run(editing_errors);
	run(views);
	run(names);
	run(many_sets);
	run(big_file);
	return tap_end();
}
