// SPDX-License-Identifier: GPL-2.0-only
/*
 * netpol-table: small random policies against a linear scan, large shapes, refusals,
 * damaged tables, counter slots.
 *
 * netpol-table [-s SEED] [-n POLICIES]
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "netpol-table.h"

static int tests, failed;

static bool ok(bool good, const char *fmt, ...)
{
	va_list ap;

	tests++;
	failed += !good;
	printf("%sok %d - ", good ? "" : "not ", tests);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	return good;
}

static void *must(void *mem)
{
	if (!mem) {
		puts("Bail out! no memory");
		exit(1);
	}
	return mem;
}

static __u64 rng;

static __u32 rnd(__u32 n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (rng * 0x2545f4914f6cdd1dull >> 32) % n;
}

static double ms_since(const struct timespec *from)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (now.tv_sec - from->tv_sec) * 1e3 + (now.tv_nsec - from->tv_nsec) / 1e6;
}

/* --- the reference: first match by linear scan --- */

static bool in_prefix(const struct np_prefix *p, __u8 family, const __be32 *addr)
{
	if (p->family != family)
		return false;
	for (int bit = 0; bit < p->plen; bit++)
		if ((ntohl(p->addr[bit / 32]) ^ ntohl(addr[bit / 32])) >> (31 - bit % 32) & 1)
			return false;
	return true;
}

static bool in_prefixes(const struct np_prefix *p, __u32 n, __u8 family, const __be32 *addr)
{
	for (__u32 i = 0; i < n; i++)
		if (in_prefix(&p[i], family, addr))
			return true;
	return !n;
}

static bool in_ranges(const struct np_range *r, __u32 n, __u16 x)
{
	for (__u32 i = 0; i < n; i++)
		if (x >= r[i].lo && x <= r[i].hi)
			return true;
	return !n;
}

static bool rule_matches(const struct np_rule *r, const struct np_packet *pkt)
{
	return (r->dir < 0 || r->dir == pkt->dir) &&
	       (!r->nproto || memchr(r->proto, pkt->proto, r->nproto)) &&
	       in_ranges(r->sel, r->nsel, pkt->sel) && in_ranges(r->sport, r->nsport, pkt->sport) &&
	       in_prefixes(r->from, r->nfrom, pkt->family, pkt->src) &&
	       in_prefixes(r->to, r->nto, pkt->family, pkt->dst);
}

static __u32 first_match(const struct np_policy *p, const struct np_packet *pkt)
{
	for (__u32 r = 0; r < p->nrules; r++)
		if (rule_matches(&p->rules[r], pkt))
			return r;
	return NP_NONE;
}

/* --- small random policies --- */

#define POOL	7	/* and "any": at most 8 x 8 = NP_WALK_MAX pairs */
#define RULES	24
#define LIST	4
#define LISTS	3

struct lists {
	struct np_prefix pool[2][2][POOL];	/* side, family */
	struct np_prefix set[2][LISTS][2 * LIST];
	__u32 nset[2][LISTS];
};

struct small {
	struct np_policy p;
	struct np_rule rules[RULES];
	struct np_prefix prefixes[RULES][2][2 * LIST];
	__u8 proto[RULES][3];
	struct np_range ranges[RULES][2][3];
	struct lists lists;
	__u32 slots[RULES];
};

static void mask(struct np_prefix *p)
{
	int bits = p->family == 4 ? 32 : 128;

	for (int bit = p->plen; bit < bits; bit++)
		p->addr[bit / 32] &= ~htonl(1u << (31 - bit % 32));
}

/* Few bits differ, so that prefixes often nest. */
static struct np_prefix random_prefix(__u8 family)
{
	int bits = family == 4 ? 32 : 128;
	struct np_prefix p = { .family = family };

	for (int i = 0; i < bits / 32; i++)
		p.addr[i] = rnd(8) ? htonl(0x0a000000) : rnd(2) ? ~0u : 0;
	if (!rnd(10))
		memset(p.addr, rnd(2) ? 0xff : 0, bits / 8);
	for (int i = rnd(3); i; i--) {
		int bit = rnd(bits);

		p.addr[bit / 32] ^= htonl(1u << (31 - bit % 32));
	}
	p.plen = rnd(4) ? rnd(bits + 1) : rnd(2) ? bits - rnd(3) : rnd(4);
	mask(&p);
	return p;
}

static int cmp_prefix(const void *a, const void *b)
{
	const struct np_prefix *x = a, *y = b;

	if (x->family != y->family)
		return x->family - y->family;
	return memcmp(x->addr, y->addr, sizeof(x->addr));
}

/* Sorted and disjoint, as the parser makes them. */
static __u32 random_list(struct np_prefix *to, struct np_prefix pool[2][POOL], __u32 max)
{
	__u32 n = 0;

	for (__u32 want = 1 + rnd(max); want; want--) {
		struct np_prefix p = pool[rnd(2)][rnd(POOL)];
		__u32 i;

		for (i = 0; i < n; i++)
			if (in_prefix(&p, to[i].family, to[i].addr) ||
			    in_prefix(&to[i], p.family, p.addr))
				break;
		if (i == n)
			to[n++] = p;
	}
	qsort(to, n, sizeof(*to), cmp_prefix);
	return n;
}

static __u16 random_port(void)
{
	static const __u16 edge[] = { 0, 0xffff, 0xfffe, 0x800 };

	return rnd(5) ? rnd(12) : edge[rnd(4)];
}

static __u32 random_ranges(struct np_range *r, __u32 max)
{
	__u32 n = 0, from = 0;

	for (__u32 want = 1 + rnd(max); want && from <= 0xffff; want--) {
		__u16 a = random_port(), b = rnd(3) ? a + rnd(4) : random_port();

		if (a < from || b < a)
			continue;
		r[n++] = (struct np_range){ a, b };
		from = b + 2;
	}
	if (!n)
		r[n++] = (struct np_range){ 0, rnd(2) ? 0xffff : 3 };
	return n;
}

static const __u8 protos[] = { 0, 1, 6, 7, 17, 58, 255 };

static void random_rule(struct small *s, __u32 i, bool sides[2], bool dirs, bool sports)
{
	struct np_rule *r = &s->rules[i];

	*r = (struct np_rule){
		.verdict = rnd(3), .dir = dirs && rnd(2) ? (int)rnd(2) : -1, .log = rnd(2),
		.proto = s->proto[i], .sport = s->ranges[i][0], .sel = s->ranges[i][1],
		.from = s->prefixes[i][0], .to = s->prefixes[i][1], .text = "", .line = i + 1,
	};
	for (int side = 0; side < 2; side++) {
		__u32 *n = side ? &r->nto : &r->nfrom, set = rnd(LISTS);

		if (!sides[side] || !rnd(3))
			continue;
		if (rnd(2)) {
			*n = s->lists.nset[side][set];
			*(side ? &r->to : &r->from) = s->lists.set[side][set];
		} else {
			*n = random_list(s->prefixes[i][side], s->lists.pool[side], LIST);
		}
	}
	for (__u32 k = 0; rnd(6) && k < sizeof(protos) && r->nproto < 3; k++)
		if (!rnd(3))
			s->proto[i][r->nproto++] = protos[k];
	if (rnd(2))
		r->nsel = random_ranges(s->ranges[i][1], 3);
	if (sports && !rnd(3))
		r->nsport = random_ranges(s->ranges[i][0], 3);
}

static void random_policy(struct small *s)
{
	bool sides[2] = { rnd(5), rnd(3) }, dirs = rnd(2), sports = rnd(2);

	memset(s, 0, sizeof(*s));
	for (int side = 0; side < 2; side++) {
		for (int i = 0; i < POOL; i++) {
			s->lists.pool[side][0][i] = random_prefix(4);
			s->lists.pool[side][1][i] = random_prefix(6);
		}
		for (int i = 0; i < LISTS; i++)
			s->lists.nset[side][i] = random_list(s->lists.set[side][i],
							     s->lists.pool[side], 2 * LIST);
	}
	s->p = (struct np_policy){
		.has_default = true, .dflt = rnd(3), .default_log = rnd(2), .stateless = rnd(2),
		.nrules = rnd(RULES + 1), .rules = s->rules,
	};
	for (__u32 i = 0; i < s->p.nrules; i++) {
		random_rule(s, i, sides, dirs, sports);
		s->slots[i] = 1 + rnd(1 << 22);
	}
}

/* First and last address of a prefix of the pool, their neighbours, or any within. */
static void random_addr(struct np_prefix pool[2][POOL], __u8 family, __be32 *addr)
{
	struct np_prefix p = pool[family == 6][rnd(POOL)];
	int bits = family == 4 ? 32 : 128, words = bits / 32, how = rnd(5);

	for (int bit = p.plen; bit < bits; bit++)
		if (how == 1 || how == 3 || (how == 4 && rnd(2)))
			p.addr[bit / 32] |= htonl(1u << (31 - bit % 32));
	for (int i = words - 1; i >= 0 && (how == 2 || how == 3); i--) {
		__u32 x = ntohl(p.addr[i]);

		p.addr[i] = htonl(how == 3 ? x + 1 : x - 1);
		if (how == 3 ? x != ~0u : x)
			break;
	}
	memcpy(addr, p.addr, sizeof(p.addr));
}

static struct np_packet random_packet(struct small *s)
{
	struct np_packet pkt = {
		.family = rnd(2) ? 4 : 6, .proto = protos[rnd(sizeof(protos))], .dir = rnd(2),
		.sport = random_port(), .sel = random_port(),
	};

	random_addr(s->lists.pool[0], pkt.family, pkt.src);
	random_addr(s->lists.pool[1], pkt.family, pkt.dst);
	return pkt;
}

/* Cells of one group that could be one. */
static bool cells_merged(const __u32 *w)
{
	bool minor = w[NP_H_FLAGS] & NP_F_MINOR;
	__u32 n = minor ? w[NP_H_NGROUPS] : w[NP_H_NCLASSES];
	const __u32 *first = w + w[minor ? NP_H_GROUPS : NP_H_CLASSES] + 1;
	const __u32 *rule = w + w[NP_H_CELL_RULE];

	for (__u32 g = 0; g < n; g++)
		for (__u32 i = first[2 * g]; i + 1 < first[2 * g + 2]; i++)
			if (w[w[NP_H_CELL_HI] + i] + 1 == w[w[NP_H_CELL_LO] + i + 1] &&
			    rule[i] == rule[i + 1])
				return false;
	return true;
}

/* Addresses outside all prefixes have class 0 if a rule has no address there, else none. */
static bool bases_right(const struct np_policy *p, const __u32 *w)
{
	bool any[2] = {}, dst_major = w[NP_H_FLAGS] & NP_F_DST_MAJOR;

	for (__u32 r = 0; r < p->nrules; r++) {
		any[0] |= !p->rules[r].nfrom;
		any[1] |= !p->rules[r].nto;
	}
	for (int dim = 0; dim < __NP_DIM_MAX; dim++)
		if (w[NP_H_DIM + dim * NP_D_WORDS + NP_D_BASE] !=
		    (any[(dim & 1) ^ dst_major] ? 0 : NP_NONE))
			return false;
	return true;
}

static const char *verify_head(struct small *s, const __u32 *w, __u32 nwords, int tier)
{
	const char *why = np_table_check(w, nwords);

	if (why)
		return why;
	if (nwords != np_tier_bytes(tier) / 4 ||
	    (tier && w[NP_H_WORDS_USED] <= np_tier_bytes(tier - 1) / 4))
		return "wrong tier";
	if (!(w[NP_H_FLAGS] & NP_F_STATELESS) != !s->p.stateless)
		return "stateless flag";
	if (w[NP_H_GEN] != 7 || w[NP_H_NRULES] != s->p.nrules)
		return "header";
	if (w[NP_H_DEFAULT] != ((__u32)s->p.dflt << NP_A_SHIFT | (s->p.default_log ? NP_A_LOG : 0)))
		return "default action";
	for (__u32 r = 0; r < s->p.nrules; r++)
		if (w[w[NP_H_RULES] + r] != (s->slots[r] | (s->rules[r].log ? NP_A_LOG : 0) |
					     (__u32)s->rules[r].verdict << NP_A_SHIFT))
			return "rule action";
	if (!bases_right(&s->p, w))
		return "class of other addresses";
	return cells_merged(w) ? NULL : "cells are not merged";
}

/* How many of the packets some rule matched; -1: wrong. */
static int verify_matches(struct small *s, const __u32 *w)
{
	__u32 dead[RULES], ndead = np_table_shadowed(w, dead, RULES), rule;
	int matched = 0;

	for (int i = 0; i < 100; i++) {
		struct np_packet pkt = random_packet(s);
		__u32 want = first_match(&s->p, &pkt);
		int verdict = np_table_match(w, &pkt, &rule);

		if (rule != want)
			return printf("# rule %d, not %d\n", rule, want), -1;
		if (verdict != (int)(want == NP_NONE ? s->p.dflt : s->rules[want].verdict))
			return puts("# wrong verdict"), -1;
		for (__u32 k = 0; k < ndead; k++)
			if (dead[k] == rule)
				return printf("# shadowed rule %u matches\n", rule), -1;
		matched += want != NP_NONE;
	}
	return matched;
}

static void test_random(__u64 seed, int policies)
{
	struct small *s = must(malloc(sizeof(*s)));
	long matched = 0, flags[4] = {}, chains = 0;
	int i;

	for (i = 0; i < policies; i++) {
		struct np_error err = {};
		__u32 *w, nwords;
		const char *why;
		int tier, n;

		rng = (seed + i) * 0x9e3779b97f4a7c15ull | 1;
		random_policy(s);
		if (np_table_build(&s->p, s->slots, 7, &w, &nwords, &tier, &err)) {
			printf("# build: %s\n", err.msg);
			break;
		}
		why = verify_head(s, w, nwords, tier);
		if (why)
			printf("# %s\n", why);
		n = why ? -1 : verify_matches(s, w);
		for (int f = 0; f < 4; f++)
			flags[f] += w[NP_H_FLAGS] >> f & 1;
		chains += w[NP_H_CHAINS] < w[NP_H_WORDS_USED];
		free(w);
		if (n < 0)
			break;
		matched += n;
	}
	ok(i == policies, "%d random policies decide as a linear scan does (seed %llu%s)", policies,
	   seed + (i < policies ? i : 0), i < policies ? ", -n 1 repeats it" : "");
	printf("# rules matched %ld of %d packets\n", matched, 100 * i);
	if (policies >= 100)
		ok(matched > 30L * policies && matched < 95L * policies && chains > policies / 5 &&
		   flags[1] > policies / 5 && flags[2] > policies / 5 && flags[3] > policies / 5,
		   "they use chains, both majors, groups, directions; rules match and do not");
	free(s);
}

/* A damaged table is found or harmless: the sanitizers watch. */
static void test_damage(__u64 seed)
{
	struct small *s = must(malloc(sizeof(*s)));
	int found = 0, all = 0;

	for (int i = 0; i < 300; i++) {
		struct np_error err = {};
		__u32 *w, *copy, nwords, used, rule;
		int tier;

		rng = (seed + i) * 0x9e3779b97f4a7c15ull | 1;
		random_policy(s);
		if (np_table_build(&s->p, s->slots, 1, &w, &nwords, &tier, &err))
			break;
		used = w[NP_H_WORDS_USED];
		copy = must(malloc(used * sizeof(*copy)));
		for (int k = 0; k < 60; k++) {
			__u32 at = rnd(k & 1 ? used : NP_H_DIM + 20);

			memcpy(copy, w, used * sizeof(*copy));
			copy[at] = rnd(2) ? copy[at] ^ 1u << rnd(32) : copy[at] + rnd(5) - 2;
			all++;
			if (np_table_check(copy, used)) {
				found++;
				continue;
			}
			np_table_shadowed(copy, NULL, 0);
			for (int j = 0; j < 10; j++) {
				struct np_packet pkt = random_packet(s);

				np_table_match(copy, &pkt, &rule);
			}
		}
		free(copy);
		free(w);
	}
	ok(all == 300 * 60 && found > all / 3, "damaged tables are told or safe (%d of %d told)",
	   found, all);
	free(s);
}

/* --- large shapes --- */

static struct np_prefix ip4(__u32 addr, __u8 plen)
{
	return (struct np_prefix){ .family = 4, .plen = plen, .addr = { htonl(addr) } };
}

static struct np_prefix ip6(__u32 high, __u32 low, __u8 plen)
{
	return (struct np_prefix){
		.family = 6, .plen = plen,
		.addr = { htonl(0x20010db8), htonl(high), 0, htonl(low) },
	};
}

static const __u8 tcp = 6, udp = 17;

struct big {
	struct np_policy p;
	struct np_prefix *prefixes;
	struct np_range *ranges;
	__u32 *slots;
	__u32 *w, nwords;
	int tier, ret;
	struct np_error err;
};

static void big_init(struct big *b, __u32 nrules, __u32 nprefixes)
{
	memset(b, 0, sizeof(*b));
	b->p.nrules = nrules;
	b->p.rules = must(calloc(nrules, sizeof(*b->p.rules)));
	b->slots = must(calloc(nrules, sizeof(*b->slots)));
	b->prefixes = must(calloc(nprefixes + 1, sizeof(*b->prefixes)));
	b->ranges = must(calloc(nrules, sizeof(*b->ranges)));
	for (__u32 i = 0; i < nrules; i++) {
		b->p.rules[i].dir = -1;
		b->p.rules[i].verdict = NP_ALLOW;
		b->p.rules[i].line = i + 1;
		b->slots[i] = i + 1;
	}
}

static void big_build(struct big *b, const char *name)
{
	struct timespec from;
	double ms;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
	b->ret = np_table_build(&b->p, b->slots, 1, &b->w, &b->nwords, &b->tier, &b->err);
	ms = ms_since(&from);
	if (b->ret)
		printf("# %s: %.1f ms, line %u: %s (%s)\n", name, ms, b->err.line, b->err.msg,
		       b->err.hint);
	else
		printf("# %s: %.1f ms, %u bytes used of %u, walk %u\n", name, ms,
		       4 * b->w[NP_H_WORDS_USED], 4 * b->nwords, b->w[NP_H_WALK]);
}

static void big_free(struct big *b)
{
	if (!b->ret)
		free(b->w);
	free(b->p.rules);
	free(b->slots);
	free(b->prefixes);
	free(b->ranges);
}

static void rule_ports(struct big *b, __u32 i, const __u8 *proto, __u16 lo, __u16 hi)
{
	b->ranges[i] = (struct np_range){ lo, hi };
	b->p.rules[i].proto = proto;
	b->p.rules[i].nproto = 1;
	b->p.rules[i].sel = &b->ranges[i];
	b->p.rules[i].nsel = 1;
}

static __u32 match4(const __u32 *w, __u32 src, __u32 dst, __u8 proto, __u16 sport, __u16 dport)
{
	struct np_packet pkt = {
		.family = 4, .proto = proto, .sport = sport, .sel = dport, .src = { htonl(src) },
		.dst = { htonl(dst) },
	};
	__u32 rule;

	np_table_match(w, &pkt, &rule);
	return rule;
}

static __u32 match6(const __u32 *w, const struct np_prefix *src, __u16 dport)
{
	struct np_packet pkt = { .family = 6, .proto = tcp, .sel = dport };
	__u32 rule;

	memcpy(pkt.src, src->addr, sizeof(pkt.src));
	np_table_match(w, &pkt, &rule);
	return rule;
}

#define N 100000

static void test_cidr4(void)
{
	struct big b;
	bool good;

	big_init(&b, N, N);
	/* A multiplicative walk over /20s: 2^20 of them, so all differ. */
	for (__u32 i = 0; i < N; i++) {
		b.prefixes[i] = ip4((i * 779773u & 0xfffff) << 12, 20 + i % 13);
		b.p.rules[i].from = &b.prefixes[i];
		b.p.rules[i].nfrom = 1;
		rule_ports(&b, i, &tcp, i & 0xffff, i & 0xffff);
	}
	big_build(&b, "100,000 IPv4 prefixes, one port each");
	good = !b.ret && !np_table_check(b.w, b.nwords);
	for (__u32 i = 0; good && i < N; i += 7) {
		__u32 addr = ntohl(b.prefixes[i].addr[0]);

		good = match4(b.w, addr, 1, tcp, 9, i & 0xffff) == i &&
		       match4(b.w, addr, 1, tcp, 9, (i + 1) & 0xffff) == NP_NONE &&
		       match4(b.w, addr + (1u << (32 - b.prefixes[i].plen)), 1, tcp, 9,
			      i & 0xffff) != i;
	}
	ok(good, "100,000 IPv4 prefixes with ports: the right rule");
	ok(good && 4 * b.w[NP_H_WORDS_USED] <= 36 * N + 1024 && 4 * b.nwords == 4 << 20,
	   "36 bytes a rule, value of 4 MiB");
	big_free(&b);
}

static void test_set(void)
{
	struct big b;
	bool good;

	big_init(&b, 4, N + 1);
	for (__u32 i = 0; i < N; i++)
		b.prefixes[i] = ip4(0x0a000000 + (i << 8), 24);
	for (__u32 r = 0; r < 3; r++) {
		b.p.rules[r].from = b.prefixes;
		b.p.rules[r].nfrom = N;
		rule_ports(&b, r, &tcp, 10 * r, 10 * r + 14);
	}
	rule_ports(&b, 3, &udp, 53, 53);
	b.p.nrules = 1;
	big_build(&b, "a set of 100,000 in one rule");
	ok(!b.ret && !np_table_check(b.w, b.nwords) &&
	   match4(b.w, 0x0a000001, 1, tcp, 9, 14) == 0 &&
	   match4(b.w, 0x0a0000ff + ((N - 1) << 8), 1, tcp, 9, 0) == 0 &&
	   match4(b.w, 0x0a000000 + (N << 8), 1, tcp, 9, 0) == NP_NONE &&
	   match4(b.w, 0x0a000001, 1, tcp, 9, 15) == NP_NONE, "a set of 100,000 in one rule");
	free(b.ret ? NULL : b.w);
	b.p.nrules = 4;
	big_build(&b, "the same set in three rules of four");
	good = !b.ret && !np_table_check(b.w, b.nwords);
	for (__u32 i = 0; good && i < N; i += 101)
		good = match4(b.w, 0x0a000001 + (i << 8), 1, tcp, 9, 12) == 0 &&
		       match4(b.w, 0x0a000001 + (i << 8), 1, tcp, 9, 22) == 1 &&
		       match4(b.w, 0x0a000001 + (i << 8), 1, tcp, 9, 34) == 2 &&
		       match4(b.w, 0x0a000001 + (i << 8), 1, udp, 9, 53) == 3;
	ok(good, "the same set in three rules of four");
	big_free(&b);
}

static void test_cidr6(void)
{
	struct big b;
	bool good;

	big_init(&b, N, N);
	for (__u32 i = 0; i < N; i++) {
		__u32 x = i * 2654435761u;

		b.prefixes[i] = i & 1 ? ip6(x, 0, 64) : ip6(x, i, 128);
		b.p.rules[i].from = &b.prefixes[i];
		b.p.rules[i].nfrom = 1;
		rule_ports(&b, i, &tcp, i & 0xff, i & 0xff);
	}
	big_build(&b, "100,000 IPv6 prefixes, one port each");
	good = !b.ret && !np_table_check(b.w, b.nwords);
	for (__u32 i = 0; good && i < N; i += 7)
		good = match6(b.w, &b.prefixes[i], i & 0xff) == i &&
		       match6(b.w, &b.prefixes[i], 256) == NP_NONE;
	ok(good, "100,000 IPv6 prefixes with ports: the right rule");
	big_free(&b);
}

static void test_ports(void)
{
	struct np_range dns = { 53, 53 };
	struct big b;
	bool good;

	big_init(&b, 65537, 0);
	for (__u32 i = 0; i < 65536; i++)
		rule_ports(&b, i + 1, &tcp, i * 40503u, i * 40503u);
	b.p.rules[0].sport = &dns;
	b.p.rules[0].nsport = 1;
	big_build(&b, "a source port, then 65,536 ports");
	good = !b.ret && !np_table_check(b.w, b.nwords);
	for (__u32 i = 0; good && i < 65536; i++)
		good = match4(b.w, i, i, tcp, 52, i * 40503u) == i + 1 &&
		       match4(b.w, i, i, tcp, 53, i * 40503u) == 0;
	ok(good, "a source port, then 65,536 ports");
	free(b.ret ? NULL : b.w);
	b.p.rules[0].nsport = 0;
	rule_ports(&b, 0, &udp, 1, 2);
	big_build(&b, "65,536 single ports");
	good = !b.ret && !np_table_check(b.w, b.nwords);
	for (__u32 i = 0; good && i < 65536; i++)
		good = match4(b.w, i, i, tcp, 52, i * 40503u) == i + 1;
	ok(good, "65,536 single ports: the right rule");
	big_free(&b);
}

/* From the inside out: each rule is left a port on either side. */
static void test_nested_ports(void)
{
	struct big b;
	bool good;

	big_init(&b, 30000, 0);
	for (__u32 i = 0; i < 30000; i++)
		rule_ports(&b, i, &tcp, 30000 - i, 30000 + i);
	big_build(&b, "30,000 nested port ranges");
	good = !b.ret && !np_table_check(b.w, b.nwords);
	for (__u32 i = 0; good && i < 30000; i++)
		good = match4(b.w, 1, 1, tcp, 1, 30000 - i) == i &&
		       match4(b.w, 1, 1, tcp, 1, 30000 + i) == i;
	ok(good, "30,000 nested port ranges");
	big_free(&b);
}

static bool refused(const struct big *b, __u32 line, const char *what)
{
	return ok(b->ret == -EINVAL && b->err.line == line && strstr(b->err.msg, what) &&
		  *b->err.hint, "error at line %u: %s", line, what);
}

static void test_chains(void)
{
	static const struct np_range one = { 1, 1 };
	struct np_range many[NP_CHAIN_MAX + 1];
	struct big b;
	bool good;

	big_init(&b, NP_CHAIN_MAX + 1, 0);
	for (__u32 i = 0; i < NP_CHAIN_MAX + 1; i++) {
		rule_ports(&b, i, &tcp, 100 - i, 100 + i);
		many[i] = (struct np_range){ 2 * i, 2 * i };
		b.p.rules[i].sport = &many[i];
		b.p.rules[i].nsport = i < NP_CHAIN_MAX - 1;
	}
	big_build(&b, "a chain of 63 source ports and an end");
	good = !b.ret && !np_table_check(b.w, b.nwords);
	for (__u32 i = 0; good && i < NP_CHAIN_MAX - 1; i++)
		good = match4(b.w, 1, 1, tcp, 2 * i, 100) == i &&
		       match4(b.w, 1, 1, tcp, 2 * i + 1, 100) == NP_CHAIN_MAX - 1;
	ok(good, "the longest chain");
	free(b.ret ? NULL : b.w);
	b.p.rules[NP_CHAIN_MAX - 1].nsport = 1;
	big_build(&b, "an entry more");
	refused(&b, NP_CHAIN_MAX + 1, "65 source port ranges");
	b.p.rules[NP_CHAIN_MAX].nsport = 1;
	big_build(&b, "the same, with a source port in the last rule");
	refused(&b, NP_CHAIN_MAX + 1, "65 source port ranges");
	b.p.nrules = 1;
	b.p.rules[0].sport = many;
	b.p.rules[0].nsport = NP_CHAIN_MAX + 1;
	big_build(&b, "65 source ports in a rule");
	refused(&b, 1, "65 source port ranges");
	b.p.rules[0].nsport = NP_CHAIN_MAX;
	big_build(&b, "64 source ports in a rule");
	ok(!b.ret && match4(b.w, 1, 1, tcp, 126, 100) == 0 &&
	   match4(b.w, 1, 1, tcp, 125, 100) == NP_NONE, "64 source ports in a rule");
	big_free(&b);

	/* 65,536 chains of 60 entries: 15 million words in one table. */
	big_init(&b, 60 + 65536, 0);
	for (__u32 i = 0; i < b.p.nrules; i++) {
		rule_ports(&b, i, &tcp, i < 60 ? 0 : i - 60, i < 60 ? 0xffff : i - 60);
		b.p.rules[i].sport = &one;
		b.p.rules[i].nsport = 1;
	}
	big_build(&b, "65,536 chains");
	refused(&b, 0, "does not fit in a table of 16 MiB: 65596 rules");
	big_free(&b);
}

static void test_pairs(void)
{
	struct big b;
	bool good;

	big_init(&b, 3, 20000);
	for (__u32 i = 0; i < 20000; i++)
		b.prefixes[i] = ip4(0x0a000000 + (i << 8), 24);
	b.p.rules[1].from = b.prefixes;
	b.p.rules[1].nfrom = 500;
	b.p.rules[1].to = b.prefixes;
	b.p.rules[1].nto = 501;
	rule_ports(&b, 1, &tcp, 80, 80);
	b.p.rules[0].from = b.prefixes + 3;
	b.p.rules[0].nfrom = 1;
	rule_ports(&b, 0, &tcp, 22, 22);
	rule_ports(&b, 2, &udp, 53, 53);
	big_build(&b, "500 x 501 addresses in a rule");
	good = !b.ret && !np_table_check(b.w, b.nwords) && b.w[NP_H_FLAGS] & NP_F_DST_MAJOR;
	for (__u32 i = 0; good && i < 20000; i++) {
		__u32 src = i % 510, dst = i / 37;

		good = match4(b.w, 0x0a000000 + (src << 8), 0x0a000000 + (dst << 8), tcp, 1, 80) ==
			       (src < 500 && dst < 501 ? 1 : NP_NONE) &&
		       match4(b.w, 0x0a000000 + (src << 8), 0x0a000000 + (dst << 8), tcp, 1, 22) ==
			       (src == 3 ? 0 : NP_NONE) &&
		       match4(b.w, src, dst, udp, 1, 53) == 2;
	}
	ok(good, "500 x 501 addresses in a rule");
	free(b.ret ? NULL : b.w);
	b.p.rules[1].nfrom = 1200;
	b.p.rules[1].nto = 1200;
	big_build(&b, "1200 x 1200, too big once built");
	refused(&b, 2, "this rule has 1440000 of 1440002 entries (1200 source x 1200 destination");
	b.p.rules[1].nfrom = 20000;
	b.p.rules[1].nto = 20000;
	big_build(&b, "20,000 x 20,000");
	refused(&b, 2, "this rule has 400000000 of");
	big_free(&b);

	big_init(&b, 1 << 20, 1 << 20);
	for (__u32 i = 0; i < 1 << 20; i++) {
		b.prefixes[i] = ip4(i << 12, 20);
		b.p.rules[i].from = &b.prefixes[i];
		b.p.rules[i].nfrom = 1;
	}
	big_build(&b, "2^20 prefixes in as many rules");
	refused(&b, 0, "1048576 rules, at least 1048576 entries");
	b.p.nrules = 400000;
	big_build(&b, "400,000 prefixes in as many rules");
	ok(!b.ret && !np_table_check(b.w, b.nwords) &&
	   match4(b.w, 399999 << 12, 0, tcp, 1, 1) == 399999, "400,000 prefixes fit in 16 MiB");
	big_free(&b);
}

static void test_many_ranges(void)
{
	struct np_range *even = must(calloc(32768, sizeof(*even)));
	__u8 all[256];
	struct big b;

	for (__u32 i = 0; i < 32768; i++)
		even[i] = (struct np_range){ 2 * i, 2 * i };
	for (int i = 0; i < 256; i++)
		all[i] = i;
	big_init(&b, 2, 0);
	for (__u32 i = 0; i < 2; i++) {
		b.p.rules[i].sel = even;
		b.p.rules[i].nsel = 32768;
		b.p.rules[i].proto = all;
		b.p.rules[i].nproto = i ? 256 : 1;
	}
	big_build(&b, "32,768 ports of 256 protocols");
	refused(&b, 2, "this rule has 8388608 of 8421376 entries");
	b.p.rules[1].nproto = 5;
	big_build(&b, "32,768 ports of 5 protocols");
	ok(!b.ret && !np_table_check(b.w, b.nwords) && match4(b.w, 1, 1, 4, 0, 65534) == 1 &&
	   match4(b.w, 1, 1, 4, 0, 65533) == NP_NONE && match4(b.w, 1, 1, 0, 0, 0) == 0,
	   "32,768 ports of 5 protocols");
	big_free(&b);
	free(even);
}

static void test_sets(void)
{
	struct big b;
	bool good;

	big_init(&b, 1000, 1000);
	for (__u32 i = 0; i < 1000; i++) {
		b.prefixes[i] = ip4(0x0a000000 + (i << 8), 24);
		b.p.rules[i].to = b.prefixes;
		b.p.rules[i].nto = 1000;
		rule_ports(&b, i, &tcp, 2 * i, 2 * i);
	}
	big_build(&b, "a set of 1000 in 1000 rules");
	good = !b.ret && !np_table_check(b.w, b.nwords);
	for (__u32 i = 0; good && i < 20000; i++)
		good = match4(b.w, i, 0x0a000007 + (i % 1000 << 8), tcp, 1, i % 2000) ==
		       (i & 1 ? NP_NONE : i % 2000 / 2);
	ok(good, "a set of 1000 in 1000 rules");
	big_free(&b);
}

static void test_nesting(void)
{
	struct big b;
	bool good = true;

	big_init(&b, 400, 400);
	for (__u32 i = 0; i < 33; i++) {
		b.prefixes[i] = ip4(i ? ~0u << (32 - i) : 0, i);
		b.p.rules[32 - i].from = &b.prefixes[i];
		b.p.rules[32 - i].nfrom = 1;
	}
	b.p.nrules = 34;
	big_build(&b, "0.0.0.0/0 to 255.255.255.255, one in another, and any");
	good = !b.ret && b.w[NP_H_WALK] == 34 && !np_table_check(b.w, b.nwords);
	for (__u32 i = 0; good && i < 33; i++)
		good = match4(b.w, i == 32 ? ~0u : ~(0x80000000u >> i), 0, tcp, 1, 1) == 32 - i;
	ok(good, "33 nested IPv4 prefixes");
	free(b.ret ? NULL : b.w);

	/* 34 sources x 2 destinations. */
	b.prefixes[50] = ip4(0x01000000, 8);
	b.p.rules[34].to = &b.prefixes[50];
	b.p.rules[34].nto = 1;
	b.p.nrules = 35;
	big_build(&b, "and a destination");
	refused(&b, 1, "(34 x 2, at most 64): source 255.255.255.255 in 255.255.255.254/31 in ");

	/* 8 x 8 with any, then 8 x 9. */
	for (__u32 i = 0; i < 15; i++) {
		bool src = i < 7;

		b.prefixes[i] = ip4(0x0a000000, 8 + i % 7 + (i == 14 ? 10 : 0));
		b.p.rules[i].from = src ? &b.prefixes[i] : NULL;
		b.p.rules[i].nfrom = src;
		b.p.rules[i].to = src ? NULL : &b.prefixes[i];
		b.p.rules[i].nto = !src;
	}
	b.p.nrules = 14;
	big_build(&b, "8 x 8 nested");
	ok(!b.ret && b.w[NP_H_WALK] == 64 && match4(b.w, 0x0a000000, 0, tcp, 1, 1) == 0 &&
	   match4(b.w, 0x0b000000, 0x0a000000, tcp, 1, 1) == 7, "8 x 8 nested prefixes");
	free(b.ret ? NULL : b.w);
	b.p.nrules = 15;
	big_build(&b, "8 x 9 nested");
	refused(&b, 15, "(9 x 8, at most 64): destination 10.0.0.0/18 in 10.0.0.0/14 in ");
	ok(strstr(b.err.hint, "source 10.0.0.0/14 in 10.0.0.0/13"), "the other side in the hint");

	for (__u32 i = 0; i < 129; i++) {
		b.prefixes[i] = ip6(0, 0, i);
		mask(&b.prefixes[i]);
		b.p.rules[i].nto = 0;
		b.p.rules[i].from = &b.prefixes[i];
		b.p.rules[i].nfrom = 1;
	}
	b.p.nrules = 64;
	big_build(&b, "64 nested IPv6 prefixes");
	ok(!b.ret && b.w[NP_H_WALK] == 64 && match6(b.w, &b.prefixes[128], 1) == 0 &&
	   match4(b.w, 0, 0, tcp, 1, 1) == NP_NONE, "64 nested IPv6 prefixes");
	free(b.ret ? NULL : b.w);
	b.p.nrules = 65;
	big_build(&b, "65 nested IPv6 prefixes");
	refused(&b, 65, "(65 x 1, at most 64)");
	b.p.nrules = 129;
	big_build(&b, "129 nested IPv6 prefixes");
	refused(&b, 129, "(129 x 1, at most 64): source 2001:db8:: in 2001:db8::/127 in ");
	big_free(&b);
}

static void test_shadowed(void)
{
	struct big b;
	__u32 dead[2] = {};

	big_init(&b, 5, 3);
	b.prefixes[0] = ip4(0x0a000000, 8);
	b.p.rules[0].from = &b.prefixes[0];
	b.p.rules[0].nfrom = 1;
	for (__u32 i = 1; i < 4; i++) {
		b.p.rules[i].from = &b.prefixes[0];
		b.p.rules[i].nfrom = 1;
		rule_ports(&b, i, &tcp, i, i);
	}
	big_build(&b, "shadowed rules");
	ok(!b.ret && np_table_shadowed(b.w, dead, 2) == 3 && dead[0] == 1 && dead[1] == 2,
	   "shadowed rules are counted, the first named");
	free(b.ret ? NULL : b.w);
	b.p.nrules = 0;
	big_build(&b, "no rules");
	ok(!b.ret && b.tier == 0 && !np_table_check(b.w, b.nwords) &&
	   !np_table_shadowed(b.w, dead, 2) && match4(b.w, 1, 1, tcp, 1, 1) == NP_NONE,
	   "a policy without rules");
	big_free(&b);
}

/* --- slots --- */

struct line {
	const char *text, *counter;
};

static struct np_policy slots_policy(struct np_rule *rules, const struct line *lines, __u32 n)
{
	memset(rules, 0, n * sizeof(*rules));
	for (__u32 i = 0; i < n; i++) {
		rules[i].text = lines[i].text;
		rules[i].counter = lines[i].counter;
	}
	return (struct np_policy){ .nrules = n, .rules = rules };
}

static bool same_slots(const __u32 *a, const __u32 *b, __u32 n)
{
	bool same = !memcmp(a, b, n * sizeof(*a));

	for (__u32 i = 0; !same && i < n; i++)
		printf("# slot %u: %u, expected %u\n", i, a[i], b[i]);
	return same;
}

static void test_slots(void)
{
	static const struct line first[] = {
		{ "a", NULL }, { "b", NULL }, { "a", NULL }, { "c", "web" }, { "d", "web" },
		{ "web", NULL }, { "a", NULL },
	};
	static const struct line second[] = {
		{ "new", NULL }, { "a", NULL }, { "e", "web" }, { "web", NULL }, { "a", NULL },
		{ "new", "fresh" }, { "x", "fresh" }, { "c", NULL },
	};
	static const struct line between[] = {
		{ "a", NULL }, { "b", NULL }, { "q", "web" }, { "a", NULL }, { "c", "web" },
		{ "d", "web" }, { "web", NULL }, { "a", NULL },
	};
	static const struct line third[] = { { "b", NULL }, { "y", NULL }, { "z", NULL } };
	struct np_rule r1[7], r2[8], r3[3];
	struct np_policy p1 = slots_policy(r1, first, 7), p2 = slots_policy(r2, second, 8);
	struct np_policy p3 = slots_policy(r3, third, 3);
	__u32 s1[7], s2[8], s3[3], s4[8], high = 99;
	bool fresh[8];

	ok(!np_slots_assign(&p1, NULL, NULL, s1, fresh, &high) &&
	   same_slots(s1, (__u32[]){ 1, 2, 3, 4, 4, 5, 6 }, 7) && high == 6,
	   "first slots: 1 and up, one for a name");
	ok(!memcmp(fresh, (bool[]){ 1, 1, 1, 1, 0, 1, 1 }, 7), "each of them is fresh once");
	ok(!np_slots_assign(&p2, &p1, s1, s2, fresh, &high) &&
	   same_slots(s2, (__u32[]){ 7, 1, 4, 5, 3, 8, 8, 9 }, 8) && high == 9,
	   "texts and names keep their slots, used ones are not given away");
	ok(!memcmp(fresh, (bool[]){ 1, 0, 0, 0, 0, 1, 0, 1 }, 8), "only new ones are fresh");
	ok(!np_slots_assign(&p3, &p2, s2, s3, NULL, &high) &&
	   same_slots(s3, (__u32[]){ 2, 6, 10 }, 3) && high == 10, "free ones are used first");
	p3.nrules = 0;
	ok(!np_slots_assign(&p3, &p2, s2, s3, NULL, &high) && !high, "no rules, no slots");
	p3.nrules = 3;
	s2[0] = NP_SLOT_PAGE * NP_SLOT_PAGES;
	s2[1] = 0;
	ok(!np_slots_assign(&p2, &p2, s2, s4, NULL, &high) &&
	   same_slots(s4, (__u32[]){ 1, 2, 4, 5, 3, 8, 8, 9 }, 8),
	   "slots that cannot be are not kept");
	p2 = slots_policy(r2, between, 8);
	ok(!np_slots_assign(&p2, &p1, s1, s4, fresh, &high) &&
	   same_slots(s4, (__u32[]){ 1, 2, 4, 3, 4, 4, 5, 6 }, 8) && !fresh[2],
	   "a rule between others counts where its name does");
}

static void test_many_slots(void)
{
	struct np_policy old = { .nrules = N }, new = { .nrules = N };
	char (*text)[40] = must(calloc(2 * N, sizeof(*text)));
	__u32 *slots = must(calloc(2 * N, sizeof(*slots))), high, kept = 0, clash = 0;
	__u8 *used = must(calloc(4 * N, 1));
	struct timespec from;
	double ms;
	int ret;

	old.rules = must(calloc(N, sizeof(*old.rules)));
	new.rules = must(calloc(N, sizeof(*new.rules)));
	for (__u32 i = 0; i < N; i++) {
		__u32 other = N - 1 - i;

		sprintf(text[i], "allow tcp from %u to port %u", i, i & 0xff);
		sprintf(text[N + i], "%s tcp from %u to port %u", other & 1 ? "allow" : "deny",
			other, other & 0xff);
		old.rules[i].text = text[i];
		new.rules[i].text = text[N + i];
	}
	ret = np_slots_assign(&old, NULL, NULL, slots, NULL, &high);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
	ret = ret ? ret : np_slots_assign(&new, &old, slots, slots + N, NULL, &high);
	ms = ms_since(&from);
	for (__u32 i = 0; i < N; i++)
		used[slots[i]] = 1;
	for (__u32 i = 0; i < N; i++) {
		kept += slots[N + i] == slots[N - 1 - i];
		clash += used[slots[N + i]] > (N - 1 - i) % 2;
		used[slots[N + i]] = 2;
	}
	ok(!ret && kept == N / 2 && !clash && high == N + N / 2,
	   "slots of 100,000 rules, half new");
	printf("# slots of 100,000 rules: %.1f ms, %u kept, %u clash, highest %u\n", ms, kept,
	       clash, high);
	free(old.rules);
	free(new.rules);
	free(slots);
	free(text);
	free(used);
}

int main(int argc, char **argv)
{
	__u64 seed = time(NULL);
	int policies = 3000, opt;

	while ((opt = getopt(argc, argv, "s:n:")) != -1) {
		if (opt == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (opt == 'n')
			policies = atoi(optarg);
		else
			return 2;
	}
	setlinebuf(stdout);	/* a sanitizer's exit does not flush */
	test_random(seed, policies);
	test_damage(seed);
	test_cidr4();
	test_set();
	test_cidr6();
	test_ports();
	test_nested_ports();
	test_chains();
	test_pairs();
	test_many_ranges();
	test_sets();
	test_nesting();
	test_shadowed();
	test_slots();
	test_many_slots();
	printf("1..%d\n", tests);
	return !!failed;
}
