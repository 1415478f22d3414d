// SPDX-License-Identifier: GPL-2.0-only
/*
 * netpol: compile a policy to the table of progs/netpol.h, and look things up in it.
 *
 * Per side, all prefixes are sorted by (family, address, length): a prefix then
 * follows all that contain it, and one pass with a stack gives parents and the
 * disjoint ranges. Then (major class, minor class, rule) triples are sorted, and each
 * run of one pair becomes a group of cells: its key ranges are cut at each other's ends,
 * and the rules paint what no earlier rule has closed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "netpol-table.h"

#define MAX_BYTES	np_tier_bytes(NP_TIERS - 1)
#define MAX_WORDS	(MAX_BYTES / 4)
#define MAX_SPANS	(MAX_WORDS / 2)	/* of a group: more than cells can fit, bounds memory */
#define MAX_LINKS	(MAX_WORDS * 4)	/* likewise; chains can be shared */
#define KEY_BITS	25
#define DIR_SHIFT	24
#define PROTO_SHIFT	16
#define MAX_DEPTH	130	/* any, ::/0 to /128 */

struct item {
	__u64 key;
	__u64 val;
};

struct vec {
	__u32 *w;
	size_t n, max;
};

static int vec_room(struct vec *v, size_t more)
{
	size_t max = v->max ? v->max : 256;
	__u32 *w;

	if (v->n + more <= v->max)
		return 0;
	while (max < v->n + more)
		max *= 2;
	w = realloc(v->w, max * sizeof(*w));
	if (!w)
		return -ENOMEM;
	v->w = w;
	v->max = max;
	return 0;
}

/* There must be room. */
static void vec_push(struct vec *v, __u32 word)
{
	v->w[v->n++] = word;
}

/* Stable. tmp has room for n. */
static void sort_items(struct item *a, struct item *tmp, size_t n)
{
	struct item *from = a, *to = tmp;
	__u64 diff = 0;

	if (n < 32) {
		for (size_t i = 1; i < n; i++) {
			struct item x = a[i];
			size_t j = i;

			for (; j && a[j - 1].key > x.key; j--)
				a[j] = a[j - 1];
			a[j] = x;
		}
		return;
	}
	for (size_t i = 1; i < n; i++)
		diff |= a[i].key ^ a[0].key;
	for (int shift = 0; shift < 64; shift += 8) {
		size_t at[256] = {}, sum = 0;
		struct item *swap = to;

		if (!(diff >> shift & 0xff))
			continue;
		for (size_t i = 0; i < n; i++)
			at[from[i].key >> shift & 0xff]++;
		for (int d = 0; d < 256; d++) {
			size_t count = at[d];

			at[d] = sum;
			sum += count;
		}
		for (size_t i = 0; i < n; i++)
			to[at[from[i].key >> shift & 0xff]++] = from[i];
		to = from;
		from = swap;
	}
	if (from != a)
		memcpy(a, from, n * sizeof(*a));
}

/* --- one side: prefixes to classes and ranges --- */

/* Addresses are left-aligned, so that IPv4 needs no code of its own. */
struct class {
	__u128 start, end;
	__u32 parent;
	__u8 family, plen;
};

struct side {
	const char *name;
	struct class *cls;	/* [0]: any */
	__u32 n;
	bool any;		/* rules use class 0 */
	__u32 *ids;		/* class of each prefix, as the rules name them one by one */
	__u32 depth[2];		/* IPv4, IPv6: longest line of ancestors, itself included */
	__u32 deepest[2];
	__u32 nranges[2];
	struct vec start[2], end[2], range_cls[2];
};

static __u128 prefix_addr(const struct np_prefix *p)
{
	__u128 addr = 0;

	for (int i = 0; i < 4; i++)
		addr = addr << 32 | ntohl(p->addr[i]);
	return addr;
}

static __u128 host_bits(__u8 plen)
{
	return plen < 128 ? ~(__u128)0 >> plen : 0;
}

static __u64 prefix_key(const struct np_prefix *p, int pass)
{
	switch (pass) {
	case 0:
		return p->plen;
	case 1:
		return prefix_addr(p);
	case 2:
		return prefix_addr(p) >> 64;
	default:
		return p->family;
	}
}

static int side_ranges_room(struct side *s, const __u32 n[2])
{
	/* Each prefix begins one range and, at its end, may let its parent go on. */
	for (int f = 0; f < 2; f++) {
		size_t words = f ? 4 : 1;

		if (vec_room(&s->start[f], 2 * n[f] * words) ||
		    vec_room(&s->end[f], 2 * n[f] * words) ||
		    vec_room(&s->range_cls[f], 2 * n[f]))
			return -ENOMEM;
	}
	return 0;
}

static void push_addr(struct vec *v, int f, __u128 addr)
{
	__u64 half[2] = { addr >> 64, addr };

	if (!f) {
		vec_push(v, addr >> 96);
		return;
	}
	memcpy(v->w + v->n, half, sizeof(half));
	v->n += 4;
}

static void side_range(struct side *s, int f, __u128 start, __u128 end, __u32 c)
{
	push_addr(&s->start[f], f, start);
	push_addr(&s->end[f], f, end);
	vec_push(&s->range_cls[f], c);
	s->nranges[f]++;
}

/* Parents, depths and ranges of the classes of one family, [c, last). */
static void side_tree(struct side *s, int f, __u32 c, __u32 last)
{
	__u32 stack[MAX_DEPTH], sp = 0;
	bool full = false;	/* ranges reach the highest address: next has wrapped */
	__u128 next = 0;

	s->depth[f] = s->any;
	for (;;) {
		while (sp) {
			struct class *top = &s->cls[stack[sp - 1]];

			if (c < last && s->cls[c].start <= top->end)
				break;
			if (!full && next <= top->end)
				side_range(s, f, next, top->end, stack[sp - 1]);
			next = top->end + 1;
			full |= !next;
			sp--;
		}
		if (c == last)
			return;
		if (sp && next < s->cls[c].start)
			side_range(s, f, next, s->cls[c].start - 1, stack[sp - 1]);
		next = s->cls[c].start;
		s->cls[c].parent = sp ? stack[sp - 1] : s->any ? 0 : NP_NONE;
		stack[sp++] = c;
		if (sp + s->any > s->depth[f]) {
			s->depth[f] = sp + s->any;
			s->deepest[f] = c;
		}
		c++;
	}
}

static int side_build(struct side *s, const struct np_policy *p, bool src)
{
	const struct np_prefix **at = NULL;
	struct item *items = NULL;
	size_t total = 0, n = 0;
	__u32 count[2] = {};
	int err = -ENOMEM;

	s->name = src ? "source" : "destination";
	for (__u32 r = 0; r < p->nrules; r++) {
		const struct np_rule *rule = &p->rules[r];

		total += src ? rule->nfrom : rule->nto;
		s->any |= !(src ? rule->nfrom : rule->nto);
	}
	at = malloc((total + 1) * sizeof(*at));
	items = malloc((total + 1) * 2 * sizeof(*items));
	s->ids = malloc((total + 1) * sizeof(*s->ids));
	s->cls = malloc((total + 1) * sizeof(*s->cls));
	if (!at || !items || !s->ids || !s->cls)
		goto out;
	for (__u32 r = 0; r < p->nrules; r++) {
		const struct np_prefix *list = src ? p->rules[r].from : p->rules[r].to;
		__u32 len = src ? p->rules[r].nfrom : p->rules[r].nto;

		for (__u32 i = 0; i < len; i++) {
			items[n].val = n;
			at[n++] = &list[i];
		}
	}
	for (int pass = 0; pass < 4; pass++) {
		for (size_t i = 0; i < total; i++)
			items[i].key = prefix_key(at[items[i].val], pass);
		sort_items(items, items + total, total);
	}
	s->cls[0] = (struct class){ .parent = NP_NONE };
	s->n = 1;
	for (size_t i = 0; i < total; i++) {
		const struct np_prefix *prefix = at[items[i].val];
		struct class *c = &s->cls[s->n - 1];
		__u128 start = prefix_addr(prefix);

		if (c->family != prefix->family || c->plen != prefix->plen || c->start != start) {
			c = &s->cls[s->n++];
			*c = (struct class){
				.start = start,
				.end = start | host_bits(prefix->plen),
				.family = prefix->family,
				.plen = prefix->plen,
			};
			count[prefix->family == 6]++;
		}
		s->ids[items[i].val] = s->n - 1;
	}
	err = side_ranges_room(s, count);
	if (err)
		goto out;
	side_tree(s, 0, 1, 1 + count[0]);
	side_tree(s, 1, 1 + count[0], s->n);
out:
	free(at);
	free(items);
	return err;
}

static void side_free(struct side *s)
{
	free(s->cls);
	free(s->ids);
	for (int f = 0; f < 2; f++) {
		free(s->start[f].w);
		free(s->end[f].w);
		free(s->range_cls[f].w);
	}
}

/* --- groups and cells --- */

/* A key range of a rule; while a group is painted, the first and last + 1 of its slices. */
struct span {
	__u32 lo, hi;
	__u32 rule;
};

/* A key range that no range of the group's rules cuts. */
struct slice {
	__u32 lo;
	__u32 rule;		/* that closed it, or NP_NONE */
	__u32 open;		/* a slice not before this one that may be open */
	__u32 head, tail;	/* rules with source ports, in links[] */
	__u32 entries;		/* of the chain they make */
};

struct link {
	__u32 rule;
	__u32 next;
};

struct build {
	const struct np_policy *p;
	struct side side[2];	/* source, destination */
	struct side *major, *minor;
	__u32 flags;
	struct item *triples;	/* key major << 32 | minor, val rule */
	size_t ntriples;
	struct vec classes, groups, lo, hi, rule, chains;

	/* Chains by content: {hash, index in chains.w + 1}. */
	__u32 (*known)[2];
	size_t nknown, known_size;

	/* Of the group at hand. */
	struct span *spans;
	size_t nspans, max_spans;
	struct item *cuts;	/* and as much to sort them with */
	size_t max_cuts;
	struct slice *slices;
	size_t max_slices;
	struct link *links;
	size_t nlinks, max_links;
};

static bool any_port(const struct np_rule *rule)
{
	return !rule->nsport || (rule->sport[0].lo == 0 && rule->sport[0].hi == 0xffff);
}

static __u32 at_least_1(__u32 n)
{
	return n ? n : 1;
}

static __u64 rule_pairs(const struct np_rule *rule)
{
	return (__u64)at_least_1(rule->nfrom) * at_least_1(rule->nto);
}

static int too_big(const struct np_policy *p, struct np_error *err)
{
	const struct np_rule *worst = NULL;
	__u64 sum = 0, most = 0;

	for (__u32 r = 0; r < p->nrules; r++) {
		const struct np_rule *rule = &p->rules[r];
		__u64 n = rule_pairs(rule) * at_least_1(rule->nsel) * at_least_1(rule->nproto) *
			  at_least_1(rule->nsport);

		sum += n;
		if (n > most) {
			most = n;
			worst = rule;
		}
	}
	if (most < sum / 4)
		return np_error_set(err, 0, 0,
				    "merge rules, or use shorter prefixes and wider port ranges; source ports cost most",
				    "policy does not fit in a table of %u MiB: %u rules, at least %llu entries",
				    MAX_BYTES >> 20, p->nrules, sum);
	return np_error_set(err, worst->line, 0,
			    worst->nfrom > 1 && worst->nto > 1 ?
			    "shorten a side's list: the rule is stored for each pair of addresses" :
			    "use shorter prefixes and wider port ranges",
			    "policy does not fit in a table of %u MiB: this rule has %llu of %llu entries (%u source x %u destination addresses)",
			    MAX_BYTES >> 20, most, sum, at_least_1(worst->nfrom),
			    at_least_1(worst->nto));
}

static int grow(void *array, size_t *max, size_t need, size_t size)
{
	size_t n = *max ? *max : 64;
	void *mem;

	if (need <= *max)
		return 0;
	while (n < need)
		n *= 2;
	mem = realloc(*(void **)array, n * size);
	if (!mem)
		return -ENOMEM;
	*(void **)array = mem;
	*max = n;
	return 0;
}

static void add_span(struct build *b, size_t first, __u32 lo, __u32 hi, __u32 rule)
{
	if (b->nspans > first && b->spans[b->nspans - 1].hi + 1 == lo)
		b->spans[b->nspans - 1].hi = hi;
	else
		b->spans[b->nspans++] = (struct span){ lo, hi, rule };
}

/* Append the key ranges of a rule in ascending order. */
static int rule_spans(struct build *b, __u32 index)
{
	const struct np_rule *rule = &b->p->rules[index];
	bool all = !rule->nproto && !rule->nsel;
	__u32 nproto = all ? 1 : rule->nproto ? rule->nproto : 256;
	size_t first = b->nspans;

	if (grow(&b->spans, &b->max_spans, first + 2 * nproto * (size_t)at_least_1(rule->nsel),
		 sizeof(*b->spans)))
		return -ENOMEM;
	for (__u32 dir = NP_IN; dir <= NP_OUT; dir++) {
		__u32 base = dir << DIR_SHIFT;

		if ((rule->dir >= 0 && rule->dir != (int)dir) ||
		    (dir && !(b->flags & NP_F_DIRS)))
			continue;
		for (__u32 i = 0; i < nproto; i++) {
			__u32 key = base | (rule->nproto ? rule->proto[i] : i) << PROTO_SHIFT;

			if (all)
				add_span(b, first, base, base | ((1u << DIR_SHIFT) - 1), index);
			else if (!rule->nsel)
				add_span(b, first, key, key | 0xffff, index);
			for (__u32 k = 0; k < rule->nsel; k++)
				add_span(b, first, key | rule->sel[k].lo, key | rule->sel[k].hi,
					 index);
		}
	}
	return 0;
}

static void push_chain_rule(struct build *b, __u32 index)
{
	const struct np_rule *rule = &b->p->rules[index];

	if (any_port(rule)) {
		vec_push(&b->chains, index);
		vec_push(&b->chains, 0xffff);
		return;
	}
	for (__u32 i = 0; i < rule->nsport; i++) {
		vec_push(&b->chains, index);
		vec_push(&b->chains, (__u32)rule->sport[i].lo << 16 | rule->sport[i].hi);
	}
}

static int know_more(struct build *b)
{
	size_t size = b->known_size ? 2 * b->known_size : 1024;
	__u32 (*known)[2] = calloc(size, sizeof(*known));

	if (!known)
		return -ENOMEM;
	for (size_t i = 0; i < b->known_size; i++) {
		size_t at = b->known[i][0] & (size - 1);

		if (!b->known[i][1])
			continue;
		while (known[at][1])
			at = (at + 1) & (size - 1);
		memcpy(known[at], b->known[i], sizeof(*known));
	}
	free(b->known);
	b->known = known;
	b->known_size = size;
	return 0;
}

/* The chain of the rules linked at `head` and then `last`, as the word of a cell. */
static int make_chain(struct build *b, __u32 head, __u32 last, __u32 *word)
{
	size_t from = b->chains.n, room = 1, at, len, mask;
	__u32 hash = 2166136261u;

	for (__u32 i = head; i != NP_NONE; i = b->links[i].next)
		room += b->p->rules[b->links[i].rule].nsport;
	if (vec_room(&b->chains, 2 * room) ||
	    (2 * b->nknown >= b->known_size && know_more(b)))
		return -ENOMEM;
	for (__u32 i = head; i != NP_NONE; i = b->links[i].next)
		push_chain_rule(b, b->links[i].rule);
	if (last != NP_NONE)
		push_chain_rule(b, last);
	b->chains.w[b->chains.n - 2] |= NP_LAST;

	len = b->chains.n - from;
	for (size_t i = from; i < b->chains.n; i++) {
		hash = (hash ^ b->chains.w[i]) * 16777619u;
		hash ^= hash >> 15;
	}
	/* NP_LAST in the same place: equal words up to there are equal chains. */
	mask = b->known_size - 1;
	for (at = hash & mask; b->known[at][1]; at = (at + 1) & mask) {
		size_t old = b->known[at][1] - 1;

		if (b->known[at][0] == hash && old + len <= from &&
		    !memcmp(b->chains.w + old, b->chains.w + from, len * sizeof(__u32))) {
			b->chains.n = from;
			*word = NP_CHAIN | old / 2;
			return 0;
		}
	}
	b->known[at][0] = hash;
	b->known[at][1] = from + 1;
	b->nknown++;
	*word = NP_CHAIN | from / 2;
	return 0;
}

static void push_cell(struct build *b, size_t first, __u32 lo, __u32 hi, __u32 word)
{
	size_t n = b->lo.n;

	if (n > first && b->hi.w[n - 1] + 1 == lo && b->rule.w[n - 1] == word) {
		b->hi.w[n - 1] = hi;
		return;
	}
	vec_push(&b->lo, lo);
	vec_push(&b->hi, hi);
	vec_push(&b->rule, word);
}

static int cells_room(struct build *b, size_t n)
{
	return vec_room(&b->lo, n) || vec_room(&b->hi, n) || vec_room(&b->rule, n) ? -ENOMEM : 0;
}

/* Cut the key space at the ends of all spans, which then hold slice numbers. */
static int make_slices(struct build *b, __u32 *nslices)
{
	size_t ncuts = 2 * b->nspans;
	__u32 n = 0;

	if (grow(&b->cuts, &b->max_cuts, 2 * ncuts, sizeof(*b->cuts)) ||
	    grow(&b->slices, &b->max_slices, ncuts, sizeof(*b->slices)))
		return -ENOMEM;
	for (size_t i = 0; i < b->nspans; i++) {
		b->cuts[2 * i] = (struct item){ b->spans[i].lo, 2 * i };
		b->cuts[2 * i + 1] = (struct item){ b->spans[i].hi + 1, 2 * i + 1 };
	}
	sort_items(b->cuts, b->cuts + ncuts, ncuts);
	for (size_t i = 0; i < ncuts; i++) {
		struct span *span = &b->spans[b->cuts[i].val / 2];

		if (!n || b->slices[n - 1].lo != b->cuts[i].key) {
			b->slices[n] = (struct slice){
				.lo = b->cuts[i].key, .rule = NP_NONE, .open = n,
				.head = NP_NONE, .tail = NP_NONE,
			};
			n++;
		}
		if (b->cuts[i].val & 1)
			span->hi = n - 1;
		else
			span->lo = n - 1;
	}
	/* The last one only ends the one before. */
	*nslices = n - 1;
	return 0;
}

static __u32 open_slice(struct slice *s, __u32 i)
{
	while (s[i].open != i) {
		s[i].open = s[s[i].open].open;
		i = s[i].open;
	}
	return i;
}

static int link_rule(struct build *b, struct slice *s, __u32 rule)
{
	if (grow(&b->links, &b->max_links, b->nlinks + 1, sizeof(*b->links)))
		return -ENOMEM;
	b->links[b->nlinks] = (struct link){ rule, NP_NONE };
	if (s->tail == NP_NONE)
		s->head = b->nlinks;
	else
		b->links[s->tail].next = b->nlinks;
	s->tail = b->nlinks++;
	return 0;
}

static bool over_limit(const struct build *b)
{
	return 3 * b->lo.n + b->chains.n > MAX_WORDS || b->nlinks > MAX_LINKS;
}

static int check_chain(__u32 entries, const struct np_rule *rule, struct np_error *err)
{
	if (entries <= NP_CHAIN_MAX)
		return 0;
	return np_error_set(err, rule->line, 0,
			    "give the rules wider source port ranges, or let them differ in destination port, protocol or address",
			    "%u source port ranges, up to this rule, would have to be searched for one packet, at most %u can be",
			    entries, NP_CHAIN_MAX);
}

/* Let a rule have what earlier rules left of a span. */
static int paint_span(struct build *b, const struct span *span, struct np_error *err)
{
	const struct np_rule *rule = &b->p->rules[span->rule];
	struct slice *s = b->slices;
	bool close = any_port(rule);

	for (__u32 i = open_slice(s, span->lo); i < span->hi; i = open_slice(s, i + 1)) {
		if (s[i].entries || !close) {
			s[i].entries += close ? 1 : rule->nsport;
			if (check_chain(s[i].entries, rule, err))
				return -EINVAL;
		}
		if (close) {
			s[i].rule = span->rule;
			s[i].open = i + 1;
		} else if (link_rule(b, &s[i], span->rule)) {
			return -ENOMEM;
		}
	}
	return over_limit(b) ? too_big(b->p, err) : 0;
}

/* A rule alone needs no painting. */
static int single_cells(struct build *b, size_t first, struct np_error *err)
{
	__u32 index = b->spans[0].rule, word = index;
	const struct np_rule *rule = &b->p->rules[index];
	struct slice s = { .head = NP_NONE, .tail = NP_NONE };

	if (!any_port(rule)) {
		if (check_chain(rule->nsport, rule, err))
			return -EINVAL;
		if (link_rule(b, &s, index) || make_chain(b, s.head, NP_NONE, &word))
			return -ENOMEM;
	}
	if (cells_room(b, b->nspans))
		return -ENOMEM;
	for (size_t i = 0; i < b->nspans; i++)
		push_cell(b, first, b->spans[i].lo, b->spans[i].hi, word);
	return 0;
}

/* The cells of a group of n rules. */
static int group_cells(struct build *b, const struct item *rules, size_t n, struct np_error *err)
{
	size_t first = b->lo.n;
	__u32 nslices;
	int ret;

	b->nspans = 0;
	b->nlinks = 0;
	for (size_t i = 0; i < n; i++) {
		if (rule_spans(b, rules[i].val))
			return -ENOMEM;
		if (b->nspans > MAX_SPANS)
			return too_big(b->p, err);
	}
	if (n == 1)
		return single_cells(b, first, err);
	if (make_slices(b, &nslices))
		return -ENOMEM;
	/* Closing the last slice points at the end, which stays open. */
	for (size_t i = 0; i < b->nspans; i++) {
		ret = paint_span(b, &b->spans[i], err);
		if (ret)
			return ret;
	}
	if (cells_room(b, nslices))
		return -ENOMEM;
	for (__u32 i = 0; i < nslices; i++) {
		const struct slice *s = &b->slices[i];
		__u32 word = s->rule;

		if (s->head != NP_NONE && make_chain(b, s->head, s->rule, &word))
			return -ENOMEM;
		if (word != NP_NONE)
			push_cell(b, first, s->lo, b->slices[i + 1].lo - 1, word);
		if (over_limit(b))
			return too_big(b->p, err);
	}
	return 0;
}

static bool same_rules(const struct item *a, const struct item *b, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (a[i].val != b[i].val)
			return false;
	return true;
}

/* Members of one set have the same rules: repeat the cells from `first` to the end. */
static int repeat_cells(struct build *b, size_t first)
{
	size_t n = b->lo.n - first;

	if (cells_room(b, n))
		return -ENOMEM;
	memcpy(b->lo.w + b->lo.n, b->lo.w + first, n * sizeof(__u32));
	memcpy(b->hi.w + b->hi.n, b->hi.w + first, n * sizeof(__u32));
	memcpy(b->rule.w + b->rule.n, b->rule.w + first, n * sizeof(__u32));
	b->lo.n += n;
	b->hi.n += n;
	b->rule.n += n;
	return 0;
}

static int make_triples(struct build *b, struct np_error *err)
{
	const struct np_policy *p = b->p;
	const __u32 *major = b->major->ids, *minor = b->minor->ids;
	static const __u32 any;
	__u64 total = 0;
	size_t n = 0;

	for (__u32 r = 0; r < p->nrules; r++)
		total += rule_pairs(&p->rules[r]);
	if (total > MAX_WORDS)
		return too_big(p, err);
	b->ntriples = total;
	b->triples = malloc((total + 1) * 2 * sizeof(*b->triples));
	if (!b->triples)
		return -ENOMEM;
	for (__u32 r = 0; r < p->nrules; r++) {
		const struct np_rule *rule = &p->rules[r];
		bool swap = b->flags & NP_F_DST_MAJOR;
		__u32 nmajor = swap ? rule->nto : rule->nfrom;
		__u32 nminor = swap ? rule->nfrom : rule->nto;
		const __u32 *x = nmajor ? major : &any, *y = nminor ? minor : &any;

		for (__u32 i = 0; i < at_least_1(nmajor); i++)
			for (__u32 k = 0; k < at_least_1(nminor); k++)
				b->triples[n++] = (struct item){ (__u64)x[i] << 32 | y[k], r };
		major += nmajor;
		minor += nminor;
	}
	sort_items(b->triples, b->triples + n, n);
	return 0;
}

static int make_groups(struct build *b, struct np_error *err)
{
	size_t n = b->ntriples, len, prev_len = 0, prev_first = 0;
	bool groups = b->flags & NP_F_MINOR;
	struct item *prev = NULL;
	__u32 c = 0;
	int ret;

	if (vec_room(&b->classes, 2 * ((size_t)b->major->n + 1)) ||
	    (groups && vec_room(&b->groups, 2 * (n + 1))))
		return -ENOMEM;
	for (size_t i = 0; i < n; i += len) {
		struct item *t = &b->triples[i];
		size_t first = b->lo.n;

		for (len = 1; i + len < n && t[len].key == t->key; len++)
			;
		for (; c <= t->key >> 32; c++) {
			vec_push(&b->classes, b->major->cls[c].parent);
			vec_push(&b->classes, groups ? b->groups.n / 2 : first);
		}
		if (groups) {
			vec_push(&b->groups, t->key);
			vec_push(&b->groups, first);
		}
		if (len == prev_len && same_rules(t, prev, len))
			ret = repeat_cells(b, prev_first);
		else
			ret = group_cells(b, t, len, err);
		if (ret)
			return ret;
		if (over_limit(b))
			return too_big(b->p, err);
		prev = t;
		prev_len = len;
		prev_first = first;
	}
	/* Class 0 is a record even if no rule uses it; then the end mark. */
	for (; c <= b->major->n; c++) {
		vec_push(&b->classes, NP_NONE);
		vec_push(&b->classes, groups ? b->groups.n / 2 : b->lo.n);
	}
	if (groups) {
		vec_push(&b->groups, NP_NONE);
		vec_push(&b->groups, b->lo.n);
	}
	return 0;
}

/* --- nesting --- */

static __u32 pairs_at_most(const struct build *b, int *family)
{
	__u32 most = 0;

	for (int f = 0; f < 2; f++) {
		__u32 n = at_least_1(b->side[0].depth[f]) * at_least_1(b->side[1].depth[f]);

		if (n > most) {
			most = n;
			*family = f;
		}
	}
	return most;
}

/* "SIDE PREFIX in PREFIX in ...", from the innermost on. */
static void print_nest(const struct side *s, int f, char *buf, size_t size)
{
	char str[NP_PREFIX_STR];
	__u32 c = s->deepest[f];
	size_t len;

	len = snprintf(buf, size, "%s", s->name);
	for (int i = 0; i < 3 && c && c != NP_NONE; i++, c = s->cls[c].parent) {
		struct np_prefix p = { .family = s->cls[c].family, .plen = s->cls[c].plen };

		for (int k = 0; k < 4; k++)
			p.addr[k] = htonl(s->cls[c].start >> (96 - 32 * k));
		len += snprintf(buf + len, size - len, "%s%s", i ? " in " : " ",
				np_prefix_str(str, &p));
	}
	if (c && c != NP_NONE)
		snprintf(buf + len, size - len, " in ...");
}

/* The first rule that names a class of a side. */
static const struct np_rule *rule_of_class(const struct np_policy *p, const struct side *s,
					   bool src, __u32 c)
{
	const __u32 *id = s->ids;

	for (__u32 r = 0; r < p->nrules; r++)
		for (__u32 i = src ? p->rules[r].nfrom : p->rules[r].nto; i; i--)
			if (*id++ == c)
				return &p->rules[r];
	return &p->rules[0];
}

static int too_deep(const struct build *b, int f, struct np_error *err)
{
	bool src = b->side[0].depth[f] >= b->side[1].depth[f];
	const struct side *deep = &b->side[!src], *other = &b->side[src];
	char nest[192], hint[256] = "drop some of the prefixes that contain others";

	if (other->depth[f] > 1) {
		size_t len = strlen(hint);

		len += snprintf(hint + len, sizeof(hint) - len, ", there or in ");
		print_nest(other, f, hint + len, sizeof(hint) - len);
	}
	print_nest(deep, f, nest, sizeof(nest));
	return np_error_set(err, rule_of_class(b->p, deep, src, deep->deepest[f])->line, 0, hint,
			    "prefixes nest too deep (%u x %u, at most %u): %s",
			    at_least_1(deep->depth[f]), at_least_1(other->depth[f]), NP_WALK_MAX,
			    nest);
}

/* --- the table --- */

struct out {
	__u32 *w;		/* NULL: only count */
	size_t n;
};

static __u32 put(struct out *o, const __u32 *words, size_t n)
{
	__u32 at = o->n;

	if (o->w && n)
		memcpy(o->w + at, words, n * sizeof(*words));
	o->n += n;
	return at;
}

static void put_side(struct out *o, __u32 *head, const struct side *s, bool minor)
{
	for (int f = 0; f < 2; f++) {
		int dim = f ? (minor ? NP_DIM_MINOR6 : NP_DIM_MAJOR6) :
			      (minor ? NP_DIM_MINOR4 : NP_DIM_MAJOR4);
		__u32 *d = head + NP_H_DIM + dim * NP_D_WORDS;

		if (f)
			o->n += o->n & 1;
		d[NP_D_N] = s->nranges[f];
		d[NP_D_START] = put(o, s->start[f].w, s->start[f].n);
		d[NP_D_END] = put(o, s->end[f].w, s->end[f].n);
		d[NP_D_CLASS] = put(o, s->range_cls[f].w, s->range_cls[f].n);
		d[NP_D_BASE] = s->any ? 0 : NP_NONE;
	}
}

/* np_table_check() relies on this order. */
static void put_table(struct out *o, __u32 *head, const struct build *b, const struct vec *actions,
		      const struct vec *minors)
{
	o->n = NP_H_WORDS;
	head[NP_H_RULES] = put(o, actions->w, actions->n);
	head[NP_H_CLASSES] = put(o, b->classes.w, b->classes.n);
	head[NP_H_MINORS] = put(o, minors->w, minors->n);
	head[NP_H_GROUPS] = put(o, b->groups.w, b->groups.n);
	head[NP_H_CELL_LO] = put(o, b->lo.w, b->lo.n);
	head[NP_H_CELL_HI] = put(o, b->hi.w, b->hi.n);
	head[NP_H_CELL_RULE] = put(o, b->rule.w, b->rule.n);
	put_side(o, head, b->major, false);
	put_side(o, head, b->minor, true);
	head[NP_H_CHAINS] = put(o, b->chains.w, b->chains.n);
	head[NP_H_WORDS_USED] = o->n;
}

static __u32 action_word(enum np_verdict verdict, bool log, __u32 slot)
{
	return (__u32)verdict << NP_A_SHIFT | (log ? NP_A_LOG : 0) | (slot & NP_A_SLOT);
}

static int assemble(const struct build *b, const __u32 *slots, __u32 gen, __u32 walk,
		    __u32 **words, __u32 *nwords, int *tier, struct np_error *err)
{
	const struct np_policy *p = b->p;
	struct vec actions = {}, minors = {};
	__u32 head[NP_H_WORDS] = {};
	struct out o = {};
	int ret = -ENOMEM;

	if (vec_room(&actions, p->nrules) || vec_room(&minors, b->minor->n))
		goto out;
	for (__u32 r = 0; r < p->nrules; r++)
		vec_push(&actions, action_word(p->rules[r].verdict, p->rules[r].log, slots[r]));
	for (__u32 c = 0; c < b->minor->n; c++)
		vec_push(&minors, b->minor->cls[c].parent);

	head[NP_H_MAGIC] = NP_MAGIC;
	head[NP_H_GEN] = gen;
	head[NP_H_FLAGS] = b->flags;
	head[NP_H_DEFAULT] = action_word(p->dflt, p->default_log, 0);
	head[NP_H_NRULES] = p->nrules;
	head[NP_H_NCLASSES] = b->major->n;
	head[NP_H_NGROUPS] = b->groups.n ? b->groups.n / 2 - 1 : 0;
	head[NP_H_NCELLS] = b->lo.n;
	head[NP_H_WALK] = walk;

	put_table(&o, head, b, &actions, &minors);
	for (*tier = 0; *tier < NP_TIERS && np_tier_bytes(*tier) / 4 < o.n; (*tier)++)
		;
	if (*tier == NP_TIERS) {
		ret = too_big(p, err);
		goto out;
	}
	*nwords = np_tier_bytes(*tier) / 4;
	o.w = calloc(*nwords, sizeof(__u32));
	if (!o.w)
		goto out;
	put_table(&o, head, b, &actions, &minors);
	memcpy(o.w, head, sizeof(head));
	*words = o.w;
	ret = 0;
out:
	free(actions.w);
	free(minors.w);
	return ret;
}

int np_table_build(const struct np_policy *p, const __u32 *slots, __u32 gen, __u32 **words,
		   __u32 *nwords, int *tier, struct np_error *err)
{
	struct build b = { .p = p };
	__u64 prefixes = 0;
	int family = 0, ret = -ENOMEM;
	__u32 walk;

	for (__u32 r = 0; r < p->nrules; r++)
		prefixes += (__u64)p->rules[r].nfrom + p->rules[r].nto;
	if (prefixes > 2 * (__u64)MAX_WORDS)
		return too_big(p, err);
	if (side_build(&b.side[0], p, true) || side_build(&b.side[1], p, false))
		goto out;
	if (b.side[1].n > b.side[0].n)
		b.flags |= NP_F_DST_MAJOR;
	b.major = &b.side[!!(b.flags & NP_F_DST_MAJOR)];
	b.minor = &b.side[!(b.flags & NP_F_DST_MAJOR)];
	if (b.minor->n > 1)
		b.flags |= NP_F_MINOR;
	if (p->stateless)
		b.flags |= NP_F_STATELESS;
	for (__u32 r = 0; r < p->nrules; r++)
		if (p->rules[r].dir >= 0)
			b.flags |= NP_F_DIRS;
	walk = pairs_at_most(&b, &family);
	if (walk > NP_WALK_MAX) {
		ret = too_deep(&b, family, err);
		goto out;
	}
	ret = make_triples(&b, err);
	if (!ret)
		ret = make_groups(&b, err);
	if (!ret)
		ret = assemble(&b, slots, gen, walk, words, nwords, tier, err);
out:
	side_free(&b.side[0]);
	side_free(&b.side[1]);
	free(b.triples);
	free(b.classes.w);
	free(b.groups.w);
	free(b.lo.w);
	free(b.hi.w);
	free(b.rule.w);
	free(b.chains.w);
	free(b.known);
	free(b.spans);
	free(b.cuts);
	free(b.slices);
	free(b.links);
	return ret;
}

/* --- lookup --- */

static __u128 range_addr(const __u32 *w, __u32 at, __u32 i, bool ip6)
{
	__u64 half[2];

	if (!ip6)
		return w[at + i];
	memcpy(half, w + at + 4 * (size_t)i, sizeof(half));
	return (__u128)half[0] << 64 | half[1];
}

static __u32 classify(const __u32 *w, bool minor, bool ip6, const __be32 *addr)
{
	int dim = ip6 ? (minor ? NP_DIM_MINOR6 : NP_DIM_MAJOR6) :
			(minor ? NP_DIM_MINOR4 : NP_DIM_MAJOR4);
	const __u32 *d = w + NP_H_DIM + dim * NP_D_WORDS;
	__u32 lo = 0, hi = d[NP_D_N];
	__u128 x = 0;

	for (int i = 0; i < (ip6 ? 4 : 1); i++)
		x = x << 32 | ntohl(addr[i]);
	while (lo < hi) {
		__u32 mid = lo + (hi - lo) / 2;

		if (range_addr(w, d[NP_D_END], mid, ip6) < x)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == d[NP_D_N] || range_addr(w, d[NP_D_START], lo, ip6) > x)
		return d[NP_D_BASE];
	return w[d[NP_D_CLASS] + lo];
}

/* The first of lo..hi (exclusive) whose word, `stride` apart, is at least x. */
static __u32 lower_bound(const __u32 *w, __u32 stride, __u32 lo, __u32 hi, __u32 x)
{
	while (lo < hi) {
		__u32 mid = lo + (hi - lo) / 2;

		if (w[(size_t)mid * stride] < x)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* The first rule of a pair of classes that matches, or NP_NONE. */
static __u32 match_pair(const __u32 *w, __u32 major, __u32 minor, __u32 key, __u16 sport)
{
	const __u32 *cls = w + w[NP_H_CLASSES] + 2 * (size_t)major;
	__u32 from = cls[1], to = cls[3], rule;

	if (w[NP_H_FLAGS] & NP_F_MINOR) {
		const __u32 *groups = w + w[NP_H_GROUPS];
		__u32 g = lower_bound(groups, 2, from, to, minor);

		if (g == to || groups[2 * (size_t)g] != minor)
			return NP_NONE;
		from = groups[2 * (size_t)g + 1];
		to = groups[2 * (size_t)g + 3];
	}
	from = lower_bound(w + w[NP_H_CELL_HI], 1, from, to, key);
	if (from == to || w[w[NP_H_CELL_LO] + from] > key)
		return NP_NONE;
	rule = w[w[NP_H_CELL_RULE] + from];
	if (!(rule & NP_CHAIN))
		return rule;
	for (const __u32 *c = w + w[NP_H_CHAINS] + 2 * (size_t)(rule & ~NP_CHAIN);; c += 2) {
		if (sport >= c[1] >> 16 && sport <= (c[1] & 0xffff))
			return c[0] & ~NP_LAST;
		if (c[0] & NP_LAST)
			return NP_NONE;
	}
}

int np_table_match(const __u32 *w, const struct np_packet *pkt, __u32 *rule)
{
	bool dst_major = w[NP_H_FLAGS] & NP_F_DST_MAJOR, ip6 = pkt->family == 6;
	__u32 dir = w[NP_H_FLAGS] & NP_F_DIRS ? pkt->dir : 0;
	__u32 key = dir << DIR_SHIFT | pkt->proto << PROTO_SHIFT | pkt->sel;
	__u32 major = classify(w, false, ip6, dst_major ? pkt->dst : pkt->src);
	__u32 minor = classify(w, true, ip6, dst_major ? pkt->src : pkt->dst);
	__u32 best = NP_NONE, action;

	for (__u32 a = major; a != NP_NONE; a = w[w[NP_H_CLASSES] + 2 * (size_t)a])
		for (__u32 i = minor; i != NP_NONE; i = w[w[NP_H_MINORS] + i]) {
			__u32 r = match_pair(w, a, i, key, pkt->sport);

			if (r < best)
				best = r;
		}
	*rule = best;
	action = best == NP_NONE ? w[NP_H_DEFAULT] : w[w[NP_H_RULES] + best];
	return (action & NP_A_VERDICT) >> NP_A_SHIFT;
}

__u32 np_table_shadowed(const __u32 *w, __u32 *rules, __u32 max)
{
	__u32 n = 0, nrules = w[NP_H_NRULES];
	bool *seen = calloc(nrules + 1, 1);

	if (!seen)
		return 0;
	for (__u32 i = 0; i < w[NP_H_NCELLS]; i++)
		if (!(w[w[NP_H_CELL_RULE] + i] & NP_CHAIN))
			seen[w[w[NP_H_CELL_RULE] + i]] = true;
	for (__u32 at = w[NP_H_CHAINS]; at < w[NP_H_WORDS_USED]; at += 2)
		seen[w[at] & ~NP_LAST] = true;
	for (__u32 r = 0; r < nrules; r++) {
		if (seen[r])
			continue;
		if (n < max)
			rules[n] = r;
		n++;
	}
	free(seen);
	return n;
}

/* --- check --- */

static const char *check_action(__u32 action)
{
	return (action & NP_A_VERDICT) >> NP_A_SHIFT > NP_NEXT ||
	       action & ~(NP_A_SLOT | NP_A_VERDICT | NP_A_LOG) ? "unknown action" : NULL;
}

/* Each array where put_table() puts it. */
static const char *check_layout(const __u32 *w, __u32 n)
{
	__u64 at = NP_H_WORDS, nminors = (__u64)w[NP_H_GROUPS] - w[NP_H_MINORS];
	bool bad = false;

	bad |= w[NP_H_RULES] != at;
	at += w[NP_H_NRULES];
	bad |= w[NP_H_CLASSES] != at || !w[NP_H_NCLASSES];
	at += 2 * ((__u64)w[NP_H_NCLASSES] + 1);
	bad |= w[NP_H_MINORS] != at || w[NP_H_GROUPS] <= at;
	at += nminors;
	if (w[NP_H_FLAGS] & NP_F_MINOR)
		at += 2 * ((__u64)w[NP_H_NGROUPS] + 1);
	else
		bad |= w[NP_H_NGROUPS] || nminors != 1;
	bad |= w[NP_H_CELL_LO] != at;
	at += w[NP_H_NCELLS];
	bad |= w[NP_H_CELL_HI] != at;
	at += w[NP_H_NCELLS];
	bad |= w[NP_H_CELL_RULE] != at;
	at += w[NP_H_NCELLS];
	for (int i = 0; i < __NP_DIM_MAX; i++) {
		static const int order[] = {
			NP_DIM_MAJOR4, NP_DIM_MAJOR6, NP_DIM_MINOR4, NP_DIM_MINOR6,
		};
		const __u32 *d = w + NP_H_DIM + order[i] * NP_D_WORDS;
		__u64 words = d[NP_D_N];

		if (i & 1) {
			at += at & 1;
			words *= 4;
		}
		bad |= d[NP_D_START] != at;
		at += words;
		bad |= d[NP_D_END] != at;
		at += words;
		bad |= d[NP_D_CLASS] != at;
		at += d[NP_D_N];
	}
	bad |= w[NP_H_CHAINS] != at || w[NP_H_WORDS_USED] < at || w[NP_H_WORDS_USED] > n ||
	       (w[NP_H_WORDS_USED] - at) % 2;
	return bad ? "offsets do not fit the sizes" : NULL;
}

/* stride words apart. Parents come first, so that every walk up ends. */
static const char *check_parents(const __u32 *parent, __u32 n, __u32 stride)
{
	for (__u32 c = 0; c < n; c++)
		if (parent[(size_t)c * stride] != NP_NONE && parent[(size_t)c * stride] >= c)
			return "a class has no proper parent";
	return NULL;
}

static __u32 depth_of(const __u32 *parent, __u32 stride, __u32 c)
{
	__u32 n = 0;

	for (; c != NP_NONE && n <= MAX_DEPTH; c = parent[(size_t)c * stride])
		n++;
	return n;
}

static const char *check_dim(const __u32 *w, int dim, const __u32 *parent, __u32 n, __u32 stride,
			     __u32 *depth)
{
	const __u32 *d = w + NP_H_DIM + dim * NP_D_WORDS;
	bool ip6 = dim >= NP_DIM_MAJOR6;

	if (d[NP_D_BASE] && d[NP_D_BASE] != NP_NONE)
		return "addresses without a range have a class";
	*depth = depth_of(parent, stride, d[NP_D_BASE]);
	for (__u32 i = 0; i < d[NP_D_N]; i++) {
		__u128 start = range_addr(w, d[NP_D_START], i, ip6);
		__u32 c = w[d[NP_D_CLASS] + i], deep;

		if (start > range_addr(w, d[NP_D_END], i, ip6) ||
		    (i && start <= range_addr(w, d[NP_D_END], i - 1, ip6)))
			return "address ranges are not in order";
		if (c >= n)
			return "an address range has no class";
		deep = depth_of(parent, stride, c);
		if (deep > *depth)
			*depth = deep;
	}
	return NULL;
}

static const char *check_classes(const __u32 *w)
{
	const __u32 *major = w + w[NP_H_CLASSES], *minor = w + w[NP_H_MINORS];
	__u32 nminors = w[NP_H_GROUPS] - w[NP_H_MINORS], depth[__NP_DIM_MAX], walk, walk6;
	const char *why = check_parents(major, w[NP_H_NCLASSES], 2);

	if (!why)
		why = check_parents(minor, nminors, 1);
	for (int dim = 0; !why && dim < __NP_DIM_MAX; dim++)
		why = dim & 1 ? check_dim(w, dim, minor, nminors, 1, &depth[dim]) :
				check_dim(w, dim, major, w[NP_H_NCLASSES], 2, &depth[dim]);
	if (why)
		return why;
	walk = at_least_1(depth[NP_DIM_MAJOR4]) * at_least_1(depth[NP_DIM_MINOR4]);
	walk6 = at_least_1(depth[NP_DIM_MAJOR6]) * at_least_1(depth[NP_DIM_MINOR6]);
	if (walk6 > walk)
		walk = walk6;
	return walk != w[NP_H_WALK] || walk > NP_WALK_MAX ? "the depth of nesting is wrong" : NULL;
}

static const char *check_cells(const __u32 *w, __u32 from, __u32 to)
{
	const __u32 *lo = w + w[NP_H_CELL_LO], *hi = w + w[NP_H_CELL_HI];
	const __u32 *rule = w + w[NP_H_CELL_RULE];
	__u32 nchains = (w[NP_H_WORDS_USED] - w[NP_H_CHAINS]) / 2;

	if (from > to || to > w[NP_H_NCELLS])
		return "cells out of bounds";
	for (__u32 i = from; i < to; i++) {
		if (lo[i] > hi[i] || hi[i] >> KEY_BITS || (i > from && lo[i] <= hi[i - 1]))
			return "cells are not in order";
		if (rule[i] & NP_CHAIN ? (rule[i] & ~NP_CHAIN) >= nchains :
					 rule[i] >= w[NP_H_NRULES])
			return "a cell names no rule";
	}
	return NULL;
}

static const char *check_groups(const __u32 *w)
{
	const __u32 *cls = w + w[NP_H_CLASSES], *groups = w + w[NP_H_GROUPS];
	__u32 n = w[NP_H_NCLASSES], nminors = w[NP_H_GROUPS] - w[NP_H_MINORS];
	bool minor = w[NP_H_FLAGS] & NP_F_MINOR;
	const char *why = NULL;

	if (cls[1] || cls[2 * (size_t)n + 1] != (minor ? w[NP_H_NGROUPS] : w[NP_H_NCELLS]))
		return "classes do not cover all groups";
	for (size_t c = 0; !why && c < n; c++) {
		__u32 from = cls[2 * c + 1], to = cls[2 * c + 3];

		if (!minor) {
			why = check_cells(w, from, to);
			continue;
		}
		if (from > to || to > w[NP_H_NGROUPS])
			return "groups out of bounds";
		for (size_t g = from; !why && g < to; g++) {
			if (groups[2 * g] >= nminors ||
			    (g > from && groups[2 * g] <= groups[2 * g - 2]))
				return "groups are not in order";
			why = check_cells(w, groups[2 * g + 1], groups[2 * g + 3]);
		}
	}
	return why;
}

static const char *check_chains(const __u32 *w)
{
	__u32 entries = 0;

	for (__u32 at = w[NP_H_CHAINS]; at < w[NP_H_WORDS_USED]; at += 2) {
		if ((w[at] & ~NP_LAST) >= w[NP_H_NRULES] ||
		    w[at + 1] >> 16 > (w[at + 1] & 0xffff))
			return "a chain names no rule";
		if (++entries > NP_CHAIN_MAX)
			return "a chain is too long";
		if (w[at] & NP_LAST)
			entries = 0;
	}
	return entries ? "a chain has no end" : NULL;
}

const char *np_table_check(const __u32 *w, __u32 n)
{
	const char *why;

	if (n < NP_H_WORDS || w[NP_H_MAGIC] != NP_MAGIC)
		return "not a table of this version";
	if (!w[NP_H_GEN])
		return "no generation";
	if (w[NP_H_FLAGS] & ~(NP_F_STATELESS | NP_F_DST_MAJOR | NP_F_MINOR | NP_F_DIRS))
		return "unknown flags";
	why = check_layout(w, n);
	if (!why)
		why = check_action(w[NP_H_DEFAULT]);
	for (__u32 r = 0; !why && r < w[NP_H_NRULES]; r++)
		why = check_action(w[w[NP_H_RULES] + r]);
	if (!why)
		why = check_classes(w);
	if (!why)
		why = check_groups(w);
	if (why)
		return why;
	why = check_chains(w);
	if (why)
		return why;
	for (__u32 at = w[NP_H_WORDS_USED]; at < n; at++)
		if (w[at])
			return "words behind the end are not zero";
	return NULL;
}

/* --- counter slots --- */

#define MAX_SLOT	(NP_SLOT_PAGE * NP_SLOT_PAGES - 1)

/* The rules of one identity but for the occurrence number. */
struct ident {
	const struct np_rule *rule;	/* any of them, NULL: free */
	__u32 hash;
	__u32 old;		/* the next rule of the old policy that can hand on its slot */
	__u32 slot;		/* count NAME: what new rules of the name have, 0: none yet */
};

struct idents {
	struct ident *tab;
	size_t mask;
	__u32 *next;		/* of each old rule: the next with the same text */
};

static const char *ident_text(const struct np_rule *rule)
{
	return rule->counter ? rule->counter : rule->text;
}

static struct ident *find_ident(struct idents *t, const struct np_rule *rule)
{
	__u32 hash = 2166136261u;

	for (const char *s = ident_text(rule); *s; s++)
		hash = (hash ^ (unsigned char)*s) * 16777619u;
	hash ^= hash >> 15;
	for (size_t at = hash & t->mask;; at = (at + 1) & t->mask) {
		struct ident *e = &t->tab[at];

		if (!e->rule) {
			*e = (struct ident){ rule, hash, NP_NONE, 0 };
			return e;
		}
		if (e->hash == hash && !e->rule->counter == !rule->counter &&
		    !strcmp(ident_text(e->rule), ident_text(rule)))
			return e;
	}
}

static bool slot_valid(__u32 slot)
{
	return slot && slot <= MAX_SLOT;
}

/* How many rules the policies begin or (from the end) end with alike, at most n. */
static __u32 common(const struct np_policy *new, const struct np_policy *old,
		    const __u32 *old_slots, __u32 n, bool end)
{
	__u32 i;

	for (i = 0; i < n; i++) {
		__u32 a = end ? new->nrules - 1 - i : i, b = end ? old->nrules - 1 - i : i;
		const char *x = new->rules[a].text, *y = old->rules[b].text;

		/* An edited policy has the same strings. */
		if ((x != y && strcmp(x, y)) || !slot_valid(old_slots[b]))
			break;
	}
	return i;
}

/* From the last to the first, so that lists begin with the first occurrence. */
static void know_old(struct idents *t, const struct np_policy *old, const __u32 *slots,
		     __u32 from, __u32 to)
{
	for (__u32 r = to; r-- > from; ) {
		struct ident *e = find_ident(t, &old->rules[r]);

		if (!slot_valid(slots[r]))
			continue;
		t->next[r] = e->old;
		e->old = r;
	}
}

static __u32 counters_named(const struct np_policy *policy)
{
	__u32 n = 0;

	for (__u32 r = 0; r < policy->nrules; r++)
		n += !!policy->rules[r].counter;
	return n;
}

int np_slots_assign(const struct np_policy *new, const struct np_policy *old,
		    const __u32 *old_slots, __u32 *new_slots, bool *fresh, __u32 *high)
{
	__u32 nold = old ? old->nrules : 0, free_slot = 1, head = 0, tail = 0, least;
	struct idents t = { .mask = 1 };
	__u8 *used = NULL;
	int ret = -ENOMEM;

	/* What both begin and end with keeps its slots; only the rest has to be looked up. */
	if (old) {
		least = nold < new->nrules ? nold : new->nrules;
		head = common(new, old, old_slots, least, false);
		tail = common(new, old, old_slots, least - head, true);
	}
	while (t.mask < 2 * ((size_t)nold + new->nrules - 2 * (head + tail) + counters_named(new)))
		t.mask *= 2;
	t.tab = calloc(t.mask--, sizeof(*t.tab));
	t.next = malloc((nold + 1) * sizeof(*t.next));
	used = calloc(MAX_SLOT / 8 + 1, 1);
	if (!t.tab || !t.next || !used)
		goto out;
	for (__u32 r = 0; r < nold; r++)
		if (slot_valid(old_slots[r]))
			used[old_slots[r] / 8] |= 1 << old_slots[r] % 8;
	*high = 0;
	for (__u32 i = 0; i < head + tail; i++) {
		__u32 r = i < head ? i : new->nrules - 1 - (i - head);

		new_slots[r] = old_slots[i < head ? i : nold - 1 - (i - head)];
		if (fresh)
			fresh[r] = false;
		if (new->rules[r].counter)
			find_ident(&t, &new->rules[r])->slot = new_slots[r];
		if (new_slots[r] > *high)
			*high = new_slots[r];
	}
	if (old)
		know_old(&t, old, old_slots, head, nold - tail);
	ret = 0;
	for (__u32 r = head; r < new->nrules - tail; r++) {
		struct ident *e = find_ident(&t, &new->rules[r]);
		bool is_new = false;
		__u32 slot = e->slot;

		if (!slot && e->old != NP_NONE) {
			slot = old_slots[e->old];
			e->old = t.next[e->old];
		} else if (!slot) {
			while (free_slot <= MAX_SLOT && used[free_slot / 8] & 1 << free_slot % 8)
				free_slot++;
			if (free_slot > MAX_SLOT) {
				ret = -ENOSPC;
				break;
			}
			slot = free_slot++;
			is_new = true;
		}
		if (new->rules[r].counter)
			e->slot = slot;
		new_slots[r] = slot;
		if (fresh)
			fresh[r] = is_new;
		if (slot > *high)
			*high = slot;
	}
out:
	free(t.tab);
	free(t.next);
	free(used);
	return ret;
}
