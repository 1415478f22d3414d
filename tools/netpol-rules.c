// SPDX-License-Identifier: GPL-2.0-only
/*
 * netpol's rule language: one pass over the text, by recursive descent over a
 * one-token window. What a policy keeps lies in an arena; lists grow in
 * scratch vectors and are copied when they are complete.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "netpol-rules.h"

typedef unsigned __int128 u128;

/* Names. */

struct name {
	const char *name;
	int value;
};

/* The first name of a number is the canonical one. */
static const struct name protos[] = {
	{ "tcp", IPPROTO_TCP },		{ "udp", IPPROTO_UDP },
	{ "icmp", IPPROTO_ICMP },	{ "icmp6", IPPROTO_ICMPV6 },
	{ "icmpv6", IPPROTO_ICMPV6 },	{ "ipv6-icmp", IPPROTO_ICMPV6 },
	{ "sctp", IPPROTO_SCTP },	{ "dccp", IPPROTO_DCCP },
	{ "udplite", IPPROTO_UDPLITE },	{ "esp", IPPROTO_ESP },
	{ "ah", IPPROTO_AH },		{ "gre", IPPROTO_GRE },
	{ "igmp", IPPROTO_IGMP },	{ "ipip", IPPROTO_IPIP },
	{ "ipv6", IPPROTO_IPV6 },	{ "eigrp", 88 },
	{ "ospf", 89 },			{ "pim", IPPROTO_PIM },
	{ "ipcomp", IPPROTO_COMP },	{ "vrrp", 112 },
	{ "l2tp", 115 },	{ NULL, 0 }
};

static const struct name icmp_types[] = {
	{ "echo-request", 8 },		{ "echo-reply", 0 },
	{ "destination-unreachable", 3 }, { "source-quench", 4 },
	{ "redirect", 5 },		{ "router-advertisement", 9 },
	{ "router-solicitation", 10 },	{ "time-exceeded", 11 },
	{ "parameter-problem", 12 },	{ "timestamp-request", 13 },
	{ "timestamp-reply", 14 },	{ NULL, 0 }
};

static const struct name icmp6_types[] = {
	{ "echo-request", 128 },	{ "echo-reply", 129 },
	{ "destination-unreachable", 1 }, { "packet-too-big", 2 },
	{ "time-exceeded", 3 },		{ "parameter-problem", 4 },
	{ "mld-query", 130 },		{ "mld-report", 131 },
	{ "mld-done", 132 },		{ "router-solicitation", 133 },
	{ "router-advertisement", 134 },
	{ "neighbour-solicitation", 135 }, { "neighbor-solicitation", 135 },
	{ "neighbour-advertisement", 136 }, { "neighbor-advertisement", 136 },
	{ "redirect", 137 },		{ "mld2-report", 143 },
	{ "mld-listener-query", 130 },	{ "mld-listener-report", 131 },
	{ "mld-listener-done", 132 },	{ "mld2-listener-report", 143 },
	{ NULL, 0 }
};

static const char *const verdict_words[] = { "allow", "deny", "next", NULL };
static const char *const statement_words[] = { "allow", "deny", "next", "default", "set", NULL };
static const char *const dir_words[] = { "in", "out", NULL };
static const char *const clause_words[] = { "type", "from", "to", "log", "count", NULL };
static const char *const port_word[] = { "port", NULL };
static const char *const log_word[] = { "log", NULL };

/* What other firewalls call it. */
static const struct {
	const char *theirs, *ours;
} synonyms[] = {
	{ "accept", "allow" },	{ "pass", "allow" },	{ "permit", "allow" },
	{ "drop", "deny" },	{ "block", "deny" },	{ "reject", "deny" },
	{ "continue", "next" },	{ "policy", "default" },
	{ "ingress", "in" },	{ "egress", "out" },
	{ "src", "from" },	{ "saddr", "from" },	{ "source", "from" },
	{ "dst", "to" },	{ "daddr", "to" },	{ "destination", "to" },
	{ "sport", "from port" }, { "dport", "to port" }, { "ports", "port" },
	{ "counter", "count" },
};

static int lookup(const struct name *t, const char *name, size_t len)
{
	for (; t->name; t++)
		if (!strncmp(t->name, name, len) && !t->name[len])
			return t->value;
	return -1;
}

static const char *lookup_name(const struct name *t, int value)
{
	for (; t->name; t++)
		if (t->value == value)
			return t->name;
	return NULL;
}

static const struct name *icmp_table(__u8 proto)
{
	return proto == IPPROTO_ICMP ? icmp_types : icmp6_types;
}

const char *np_verdict_name(enum np_verdict verdict)
{
	return verdict == NP_ALLOW ? "allow" : verdict == NP_DENY ? "deny" : "next";
}

const char *np_dir_name(int dir)
{
	return dir == NP_IN ? "in" : dir == NP_OUT ? "out" : "both";
}

const char *np_proto_name(__u8 proto)
{
	return lookup_name(protos, proto);
}

const char *np_icmp_name(__u8 proto, __u8 type)
{
	return lookup_name(icmp_table(proto), type);
}

int np_proto_number(const char *name, size_t len)
{
	return lookup(protos, name, len);
}

int np_icmp_number(__u8 proto, const char *name, size_t len)
{
	return lookup(icmp_table(proto), name, len);
}

/* Spelling. */

#define WORD_MAX 32

struct nearest {
	const char *word;
	size_t len;
	const char *best;
	unsigned int distance;
};

/* Insertions, deletions, replacements and swaps of neighbours. */
static unsigned int distance(const char *a, size_t n, const char *b, size_t m)
{
	unsigned int d[WORD_MAX + 1][WORD_MAX + 1];
	size_t i, j;

	for (i = 0; i <= n; i++)
		d[i][0] = i;
	for (j = 0; j <= m; j++)
		d[0][j] = j;
	for (i = 1; i <= n; i++) {
		for (j = 1; j <= m; j++) {
			bool same = tolower((unsigned char)a[i - 1]) == b[j - 1];
			unsigned int v = d[i - 1][j - 1] + !same;

			if (v > d[i - 1][j] + 1)
				v = d[i - 1][j] + 1;
			if (v > d[i][j - 1] + 1)
				v = d[i][j - 1] + 1;
			if (i > 1 && j > 1 && tolower((unsigned char)a[i - 2]) == b[j - 1] &&
			    tolower((unsigned char)a[i - 1]) == b[j - 2] && v > d[i - 2][j - 2] + 1)
				v = d[i - 2][j - 2] + 1;
			d[i][j] = v;
		}
	}
	return d[n][m];
}

static struct nearest nearest_init(const char *word, size_t len)
{
	/* A third of the word may be wrong, one letter of a short one. */
	return (struct nearest){ word, len, NULL, len < 2 ? 1 : len < 6 ? 2 : len / 3 + 1 };
}

static void nearest_try(struct nearest *n, const char *candidate)
{
	size_t len = strlen(candidate);
	unsigned int d;

	if (n->len > WORD_MAX || len > WORD_MAX)
		return;
	d = distance(n->word, n->len, candidate, len);
	if (d < n->distance) {
		n->distance = d;
		n->best = candidate;
	}
}

static void nearest_words(struct nearest *n, const char *const *words)
{
	for (; *words; words++)
		nearest_try(n, *words);
}

static void nearest_names(struct nearest *n, const struct name *t)
{
	for (; t->name; t++)
		nearest_try(n, t->name);
}

const char *np_nearest(const char *word, size_t len, const char *const *words)
{
	struct nearest n = nearest_init(word, len);

	nearest_words(&n, words);
	return n.best;
}

static const char *synonym(const char *word, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(synonyms); i++)
		if (strlen(synonyms[i].theirs) == len &&
		    !strncasecmp(synonyms[i].theirs, word, len))
			return synonyms[i].ours;
	return NULL;
}

/* Memory. */

struct chunk {
	struct chunk *next;
	char data[] __attribute__((aligned(8)));
};

struct np_mem {
	unsigned int refs;		/* policies: one that was edited shares it */
	struct chunk *chunks;
	char *at;
	size_t left, next_size;
	__u32 *hash;			/* set number + 1 by name, 0: empty */
	__u32 hash_size;		/* a power of two */
	__u32 sets_size;
	__u32 elems;
};

#define CHUNK_MIN 4096u
#define CHUNK_MAX (1u << 20)

static void *mem_alloc(struct np_mem *mem, size_t n)
{
	struct chunk *c;
	void *p;

	n = (n + 7) & ~(size_t)7;
	if (n > mem->left) {
		size_t size = n > mem->next_size ? n : mem->next_size;

		c = malloc(sizeof(*c) + size);
		if (!c)
			return NULL;
		c->next = mem->chunks;
		mem->chunks = c;
		mem->at = c->data;
		mem->left = size;
		if (mem->next_size < CHUNK_MAX)
			mem->next_size *= 2;
	}
	p = mem->at;
	mem->at += n;
	mem->left -= n;
	return p;
}

static void *mem_copy(struct np_mem *mem, const void *from, size_t n)
{
	void *p = mem_alloc(mem, n);

	return p ? memcpy(p, from, n) : NULL;
}

static char *mem_string(struct np_mem *mem, const char *s, size_t n)
{
	char *p = mem_alloc(mem, n + 1);

	if (p) {
		memcpy(p, s, n);
		p[n] = 0;
	}
	return p;
}

struct vec {
	void *data;
	size_t n, size;			/* elements */
};

static bool vec_grow(struct vec *v, size_t n, size_t elem)
{
	size_t size = v->size ? v->size : 64;
	void *p;

	while (size - v->n < n)
		size *= 2;
	p = realloc(v->data, size * elem);
	if (!p)
		return false;
	v->data = p;
	v->size = size;
	return true;
}

static inline void *vec_add(struct vec *v, size_t n, size_t elem)
{
	if ((!v->data || v->size - v->n < n) && !vec_grow(v, n, elem))
		return NULL;
	v->n += n;
	return (char *)v->data + (v->n - n) * elem;
}

static void mem_put(struct np_mem *mem)
{
	if (--mem->refs)
		return;
	for (struct chunk *c = mem->chunks, *next; c; c = next) {
		next = c->next;
		free(c);
	}
	free(mem->hash);
	free(mem);
}

void np_policy_free(struct np_policy *policy)
{
	if (!policy)
		return;
	mem_put(policy->mem);
	free(policy->rules);
	free(policy->sets);
	free(policy);
}

static struct np_policy *policy_new(void)
{
	struct np_policy *policy = calloc(1, sizeof(*policy));

	if (!policy)
		return NULL;
	policy->mem = calloc(1, sizeof(*policy->mem));
	if (!policy->mem) {
		free(policy);
		return NULL;
	}
	policy->mem->refs = 1;
	policy->mem->next_size = CHUNK_MIN;
	return policy;
}

/* Sets by name. */

static __u32 *set_slot(const struct np_policy *policy, const char *name, size_t len)
{
	const struct np_mem *mem = policy->mem;
	__u32 h = 2166136261u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (unsigned char)name[i]) * 16777619u;
	for (h &= mem->hash_size - 1; mem->hash[h]; h = (h + 1) & (mem->hash_size - 1)) {
		const char *have = policy->sets[mem->hash[h] - 1].name;

		if (!strncmp(have, name, len) && !have[len])
			break;
	}
	return &mem->hash[h];
}

static struct np_set *set_find(const struct np_policy *policy, const char *name, size_t len)
{
	__u32 *slot;

	if (!policy->mem->hash)
		return NULL;
	slot = set_slot(policy, name, len);
	return *slot ? &policy->sets[*slot - 1] : NULL;
}

static int set_add(struct np_policy *policy, const struct np_set *set)
{
	struct np_mem *mem = policy->mem;

	if (policy->nsets == mem->sets_size) {
		__u32 size = mem->sets_size ? mem->sets_size * 2 : 16;
		struct np_set *sets = realloc(policy->sets, size * sizeof(*sets));

		if (!sets)
			return -ENOMEM;
		policy->sets = sets;
		mem->sets_size = size;
	}
	if (policy->nsets * 2 >= mem->hash_size) {
		__u32 size = mem->hash_size ? mem->hash_size * 2 : 32;
		__u32 *hash = calloc(size, sizeof(*hash));

		if (!hash)
			return -ENOMEM;
		free(mem->hash);
		mem->hash = hash;
		mem->hash_size = size;
		for (__u32 i = 0; i < policy->nsets; i++) {
			const char *name = policy->sets[i].name;

			*set_slot(policy, name, strlen(name)) = i + 1;
		}
	}
	policy->sets[policy->nsets++] = *set;
	*set_slot(policy, set->name, strlen(set->name)) = policy->nsets;
	return 0;
}

/* Addresses, as 128-bit numbers with the first bit of the address on top. */

static u128 addr_get(const struct np_prefix *p)
{
	return (u128)ntohl(p->addr[0]) << 96 | (u128)ntohl(p->addr[1]) << 64 |
	       (u128)ntohl(p->addr[2]) << 32 | ntohl(p->addr[3]);
}

static void addr_set(struct np_prefix *p, u128 a)
{
	for (int i = 3; i >= 0; i--, a >>= 32)
		p->addr[i] = htonl((__u32)a);
}

static u128 mask_of(unsigned int plen)
{
	return plen ? ~(u128)0 << (128 - plen) : 0;
}

static unsigned int addr_bits(const struct np_prefix *p)
{
	return p->family == 4 ? 32 : 128;
}

static int prefix_cmp(const void *pa, const void *pb)
{
	const struct np_prefix *a = pa, *b = pb;
	int c;

	if (a->family != b->family)
		return a->family - b->family;
	c = memcmp(a->addr, b->addr, sizeof(a->addr));
	return c ? c : a->plen - b->plen;
}

/* Sort; drop what a shorter prefix holds, join halves. Returns how many are left. */
static size_t prefixes_normalise(struct np_prefix *v, size_t n)
{
	size_t i, out = 0;

	for (i = 1; i < n && prefix_cmp(&v[i - 1], &v[i]) < 0; i++)
		;
	if (i < n)
		qsort(v, n, sizeof(*v), prefix_cmp);
	for (i = 0; i < n; i++) {
		if (out && v[out - 1].family == v[i].family &&
		    !((addr_get(&v[out - 1]) ^ addr_get(&v[i])) & mask_of(v[out - 1].plen)))
			continue;
		v[out++] = v[i];
		while (out > 1 && v[out - 2].family == v[out - 1].family &&
		       v[out - 2].plen == v[out - 1].plen &&
		       !((addr_get(&v[out - 2]) ^ addr_get(&v[out - 1])) &
			 mask_of(v[out - 1].plen - 1))) {
			out--;
			v[out - 1].plen--;
		}
	}
	return out;
}

/* Text in canonical form. */

static char *put_u32(char *s, __u32 v)
{
	char tmp[10];
	int n = 0;

	do
		tmp[n++] = '0' + v % 10;
	while (v /= 10);
	while (n)
		*s++ = tmp[--n];
	return s;
}

static char *put_addr(char *s, const struct np_prefix *p)
{
	const unsigned char *b = (const unsigned char *)p->addr;

	if (p->family == 6) {
		inet_ntop(AF_INET6, p->addr, s, INET6_ADDRSTRLEN);
		return s + strlen(s);
	}
	for (int i = 0; i < 4; i++) {
		s = put_u32(s, b[i]);
		*s++ = '.';
	}
	return s - 1;
}

static char *put_prefix(char *s, const struct np_prefix *p)
{
	s = put_addr(s, p);
	if (p->plen != addr_bits(p)) {
		*s++ = '/';
		s = put_u32(s, p->plen);
	}
	return s;
}

char *np_prefix_str(char buf[NP_PREFIX_STR], const struct np_prefix *prefix)
{
	*put_prefix(buf, prefix) = 0;
	return buf;
}

/* Parser. */

enum kind { T_END, T_EOL, T_WORD, T_COMMA, T_OPEN, T_CLOSE, T_EQUAL, T_BAD };

struct token {
	enum kind kind;
	const char *s;
	__u32 len, line;
};

struct parser {
	const char *text, *p, *end;
	const char *last;		/* behind the last token that was taken */
	__u32 line;
	__u32 set_limit;		/* sets from this line on are not seen, 0: all are */
	const char *brace;		/* open one, or NULL */
	struct token tok;
	struct np_policy *policy;
	struct np_error *err;
	struct vec out, prefixes, ranges;
	char quoted[2][48];
};

#define is(tok, word) ((tok)->kind == T_WORD && (tok)->len == sizeof(word) - 1 && \
		       !memcmp((tok)->s, word, sizeof(word) - 1))

static const unsigned char word_char[256] = {
	['!' ... '"'] = 1, ['$' ... '+'] = 1, ['-' ... '<'] = 1, ['>' ... 'z'] = 1,
	['|'] = 1, ['~'] = 1, [0x80 ... 0xff] = 1,
};

static bool is_blank(const struct parser *ps, const char *p)
{
	return *p == ' ' || *p == '\t' || (*p == '\r' && p + 1 < ps->end && p[1] == '\n');
}

static void advance(struct parser *ps)
{
	struct token *t = &ps->tok;
	const char *p = ps->p;

	ps->last = t->s + t->len;
	for (;;) {
		while (p < ps->end && is_blank(ps, p))
			p++;
		if (p < ps->end && *p == '#') {
			p = memchr(p, '\n', ps->end - p);
			if (!p)
				p = ps->end;
		}
		if (p == ps->end || *p != '\n' || !ps->brace)
			break;
		p++;
		ps->line++;
	}
	t->s = p;
	t->line = ps->line;
	t->len = p < ps->end;
	if (p == ps->end) {
		t->kind = T_END;
	} else if (word_char[(unsigned char)*p]) {
		do
			p++;
		while (p < ps->end && word_char[(unsigned char)*p]);
		t->kind = T_WORD;
		t->len = p - t->s;
	} else {
		switch (*p++) {
		case '\n':
			t->kind = T_EOL;
			ps->line++;
			break;
		case ',':
			t->kind = T_COMMA;
			break;
		case '{':
			t->kind = T_OPEN;
			break;
		case '}':
			t->kind = T_CLOSE;
			break;
		case '=':
			t->kind = T_EQUAL;
			break;
		default:
			t->kind = T_BAD;
		}
	}
	ps->p = p;
}

/* The length of the byte order mark that some editors write. */
static size_t bom(const char *text, size_t len)
{
	return len >= 3 && !memcmp(text, "\xef\xbb\xbf", 3) ? 3 : 0;
}

__attribute__((format(printf, 3, 4)))
static int fail(struct parser *ps, const char *at, const char *fmt, ...)
{
	const char *bol = ps->text + bom(ps->text, ps->end - ps->text);
	unsigned int line = 1;
	va_list ap;

	for (const char *p; (p = memchr(bol, '\n', at - bol)); bol = p + 1)
		line++;
	ps->err->line = line;
	ps->err->col = at - bol + 1;
	ps->err->hint[0] = 0;
	va_start(ap, fmt);
	vsnprintf(ps->err->msg, sizeof(ps->err->msg), fmt, ap);
	va_end(ap);
	return -EINVAL;
}

__attribute__((format(printf, 2, 3)))
static int hint(struct parser *ps, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(ps->err->hint, sizeof(ps->err->hint), fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static int did_you_mean(struct parser *ps, const char *word)
{
	return word ? hint(ps, "did you mean \"%s\"?", word) : -EINVAL;
}

/* Part of the text for a message: short, and nothing that a terminal would obey. */
static const char *quote(struct parser *ps, int slot, const char *s, size_t len)
{
	char *q = ps->quoted[slot];
	size_t max = sizeof(ps->quoted[slot]) - 6, i;

	for (i = 0; i < len && i < max; i++)
		q[i] = s[i] >= 0x20 && s[i] < 0x7f ? s[i] : '?';
	strcpy(q + i, len > max ? "..." : "");
	return q;
}

static const char *token_text(struct parser *ps)
{
	const struct token *t = &ps->tok;

	if (t->kind == T_END)
		return "the end of the text";
	if (t->kind == T_EOL)
		return "the end of the line";
	if (t->kind == T_BAD)
		snprintf(ps->quoted[0], sizeof(ps->quoted[0]), "byte 0x%02x", (unsigned char)*t->s);
	else
		snprintf(ps->quoted[0], sizeof(ps->quoted[0]), "\"%.*s\"",
			 (int)sizeof(ps->quoted[0]) - 3, quote(ps, 1, t->s, t->len));
	return ps->quoted[0];
}

static int expected(struct parser *ps, const char *what)
{
	return fail(ps, ps->tok.s, "expected %s, found %s", what, token_text(ps));
}

static bool at_line_end(const struct parser *ps)
{
	return ps->tok.kind == T_EOL || ps->tok.kind == T_END;
}

long np_number(const char *s, size_t len, unsigned long max)
{
	unsigned long v = 0;

	if (!len || len > 9 || (len > 1 && *s == '0'))
		return -1;
	for (size_t i = 0; i < len; i++) {
		if (s[i] < '0' || s[i] > '9')
			return -1;
		v = v * 10 + (s[i] - '0');
	}
	return v <= max ? (long)v : -1;
}

static bool valid_name(const char *s, size_t len)
{
	if (!len || len > NP_NAME_LEN || *s < 'a' || *s > 'z')
		return false;
	for (size_t i = 1; i < len; i++)
		if (!(s[i] >= 'a' && s[i] <= 'z') && !(s[i] >= '0' && s[i] <= '9') &&
		    s[i] != '_' && s[i] != '-')
			return false;
	return true;
}

static int bad_name(struct parser *ps, const char *what, const char *s, size_t len)
{
	fail(ps, s, "\"%s\" is no name for a %s", quote(ps, 0, s, len), what);
	return hint(ps, "a name is a lower-case letter, then at most %d of a-z 0-9 _ -",
		    NP_NAME_LEN - 1);
}

static int put(struct parser *ps, const char *s, size_t len)
{
	char *p = vec_add(&ps->out, len, 1);

	if (!p)
		return -ENOMEM;
	memcpy(p, s, len);
	return 0;
}

static int put_word(struct parser *ps, const char *word)
{
	if (ps->out.n && put(ps, " ", 1))
		return -ENOMEM;
	return put(ps, word, strlen(word));
}

static int put_item(struct parser *ps, bool first, const char *s, size_t len)
{
	return put(ps, first ? " " : ", ", first ? 1 : 2) ?: put(ps, s, len);
}

/* The elements of a list. */

static int add_prefixes(struct parser *ps, const char *at, const struct np_prefix *v, size_t n)
{
	struct np_prefix *p;

	if (n > NP_MAX_ELEMS - ps->policy->mem->elems) {
		fail(ps, at, "more than %u addresses in one policy", NP_MAX_ELEMS);
		return hint(ps, "name long lists once as a set, and name it alone: from @NAME");
	}
	p = vec_add(&ps->prefixes, n, sizeof(*v));
	if (!p)
		return -ENOMEM;
	memcpy(p, v, n * sizeof(*v));
	ps->policy->mem->elems += n;
	return 0;
}

bool np_addr_parse(const char *s, size_t len, struct np_prefix *p)
{
	char buf[INET6_ADDRSTRLEN];

	memset(p, 0, sizeof(*p));
	if (!memchr(s, ':', len)) {
		unsigned char *b = (unsigned char *)p->addr;
		const char *end = s + len;

		for (int i = 0; i < 4; i++) {
			const char *from = s;
			unsigned int v = 0;

			while (s < end && *s >= '0' && *s <= '9' && s - from < 3)
				v = v * 10 + (*s++ - '0');
			if (s == from || v > 255 || (s - from > 1 && *from == '0'))
				return false;
			b[i] = v;
			if (i < 3 && (s == end || *s++ != '.'))
				return false;
		}
		p->family = 4;
		p->plen = 32;
		return s == end;
	}
	if (len >= sizeof(buf))
		return false;
	memcpy(buf, s, len);
	buf[len] = 0;
	p->family = 6;
	p->plen = 128;
	return inet_pton(AF_INET6, buf, p->addr) == 1;
}

static int bad_addr(struct parser *ps, const char *s, size_t len)
{
	fail(ps, s, "\"%s\" is not an address", quote(ps, 0, s, len));
	if (!len || *s == '-' || *s == '/')
		return hint(ps, "write ADDR, ADDR/LEN or ADDR-ADDR without blanks, or @SET");
	if (set_find(ps->policy, s, len))
		return hint(ps, "did you mean \"@%s\"?", quote(ps, 0, s, len));
	if (memchr(s, '%', len))
		return hint(ps, "an address has no zone here; leave out what follows the %%");
	if ((len == 3 && !memcmp(s, "any", 3)) || (len == 3 && !memcmp(s, "all", 3)))
		return hint(ps, "for any address leave the address out");
	if (*s >= '0' && *s <= '9')
		return hint(ps, "an IPv4 address has four numbers 0-255 without leading zeros");
	return hint(ps, "write ADDR, ADDR/LEN, ADDR-ADDR or @SET; host names are not looked up");
}

/* From lo to hi in as few prefixes as there can be. */
static int add_range(struct parser *ps, const char *at, const struct np_prefix *lo,
		     const struct np_prefix *hi)
{
	unsigned int unused = 128 - addr_bits(lo);
	u128 a = addr_get(lo) >> unused, b = addr_get(hi) >> unused;
	struct np_prefix v[2 * 128];
	size_t n = 0;

	for (;;) {
		struct np_prefix *p = &v[n++];
		unsigned int plen = addr_bits(lo);
		u128 size = 1;		/* addresses of the prefix, 0: all of IPv6 */

		while (plen && !(a & size) && b - a >= 2 * size - 1) {
			size *= 2;
			plen--;
		}
		*p = (struct np_prefix){ .family = lo->family, .plen = plen };
		addr_set(p, a << unused);
		if (a + size - 1 == b)
			break;
		a += size;
	}
	return add_prefixes(ps, at, v, n);
}

static int parse_range(struct parser *ps, const char *dash, bool first)
{
	const char *s = ps->tok.s, *end = s + ps->tok.len;
	char text[2 * INET6_ADDRSTRLEN], *t;
	struct np_prefix lo, hi;
	int order, rc;

	if (!np_addr_parse(s, dash - s, &lo))
		return bad_addr(ps, s, dash - s);
	if (!np_addr_parse(dash + 1, end - dash - 1, &hi))
		return bad_addr(ps, dash + 1, end - dash - 1);
	if (lo.family != hi.family)
		return fail(ps, s, "the range has an IPv4 end and an IPv6 end");
	order = memcmp(lo.addr, hi.addr, sizeof(lo.addr));
	t = put_addr(text, order > 0 ? &hi : &lo);
	if (order) {
		*t++ = '-';
		t = put_addr(t, order > 0 ? &lo : &hi);
	}
	if (order > 0) {
		fail(ps, s, "the range runs backwards");
		return hint(ps, "did you mean \"%.*s\"?", (int)(t - text), text);
	}
	rc = add_range(ps, s, &lo, &hi);
	return rc ?: put_item(ps, first, text, t - text);
}

static int parse_set_ref(struct parser *ps, bool first, const struct np_set **found)
{
	const char *s = ps->tok.s + 1;
	size_t len = ps->tok.len - 1;
	struct np_set *set;
	struct nearest n = nearest_init(s, len);

	if (!valid_name(s, len))
		return bad_name(ps, "set", s, len);
	set = set_find(ps->policy, s, len);
	if (set && (!ps->set_limit || set->line < ps->set_limit)) {
		*found = set;
		return put_item(ps, first, s - 1, len + 1);
	}
	fail(ps, s - 1, "there is no set \"%s\" above this line", quote(ps, 0, s, len));
	if (set)
		return hint(ps, "it is defined in line %u; a rule comes below the sets it names",
			    set->line);
	for (__u32 i = 0; i < ps->policy->nsets && i < 4096; i++)
		if (!ps->set_limit || ps->policy->sets[i].line < ps->set_limit)
			nearest_try(&n, ps->policy->sets[i].name);
	if (n.best)
		return hint(ps, "did you mean \"@%s\"?", n.best);
	return hint(ps, "define it first: set %s = { ADDR, ... }", quote(ps, 0, s, len));
}

static int parse_prefix(struct parser *ps, bool first)
{
	const char *s = ps->tok.s, *end = s + ps->tok.len;
	const char *slash = memchr(s, '/', ps->tok.len);
	char text[NP_PREFIX_STR];
	struct np_prefix p;
	u128 host;
	int rc;

	if (!np_addr_parse(s, (slash ?: end) - s, &p))
		return bad_addr(ps, s, (slash ?: end) - s);
	if (slash) {
		long plen = np_number(slash + 1, end - slash - 1, addr_bits(&p));

		if (plen < 0) {
			fail(ps, slash + 1, "\"%s\" is no prefix length",
			     quote(ps, 0, slash + 1, end - slash - 1));
			return hint(ps, "an IPv%u prefix length is a number 0-%u", p.family,
				    addr_bits(&p));
		}
		p.plen = plen;
		host = addr_get(&p) & ~mask_of(plen);
		if (host) {
			addr_set(&p, addr_get(&p) ^ host);
			fail(ps, s, "the address has bits set behind its prefix length");
			return did_you_mean(ps, np_prefix_str(text, &p));
		}
	}
	rc = add_prefixes(ps, s, &p, 1);
	return rc ?: put_item(ps, first, text, put_prefix(text, &p) - text);
}

static int parse_elem(struct parser *ps, bool first, const struct np_set **set)
{
	const char *dash;
	int rc;

	*set = NULL;
	if (ps->tok.kind != T_WORD)
		return expected(ps, "an address or @SET");
	dash = memchr(ps->tok.s, '-', ps->tok.len);
	if (*ps->tok.s == '@')
		rc = parse_set_ref(ps, first, set);
	else if (dash)
		rc = parse_range(ps, dash, first);
	else
		rc = parse_prefix(ps, first);
	if (!rc)
		advance(ps);
	return rc;
}

/* Elements, with or without braces, up to what can't belong to the list. */
static int parse_elems(struct parser *ps, const struct np_prefix **elems, __u32 *n)
{
	const struct np_set *set, *alone = NULL;
	bool braces = ps->tok.kind == T_OPEN;
	const char *at = ps->tok.s;
	size_t count = 0;
	int rc;

	ps->prefixes.n = 0;
	if (braces) {
		ps->brace = at;
		advance(ps);
		if (ps->tok.kind == T_CLOSE) {
			fail(ps, at, "the list is empty");
			return hint(ps, "an empty list would match nothing; leave the line out");
		}
	}
	for (;;) {
		const char *elem = ps->tok.s;

		rc = parse_elem(ps, !count, &set);
		if (rc)
			goto missing_brace;
		if (alone) {
			rc = add_prefixes(ps, at, alone->elems, alone->n);
			alone = NULL;
		}
		if (!rc && set && !count)
			alone = set;
		else if (!rc && set)
			rc = add_prefixes(ps, elem, set->elems, set->n);
		if (rc)
			return rc;
		count++;
		if (ps->tok.kind != T_COMMA)
			break;
		advance(ps);
		if (braces && ps->tok.kind == T_CLOSE)
			break;
	}
	if (braces) {
		if (ps->tok.kind != T_CLOSE) {
			rc = expected(ps, "\",\" or \"}\"");
			goto missing_brace;
		}
		ps->brace = NULL;
		advance(ps);
	}
	if (alone) {
		*elems = alone->elems;
		*n = alone->n;
		return 0;
	}
	if (ps->prefixes.n > 1)
		ps->prefixes.n = prefixes_normalise(ps->prefixes.data, ps->prefixes.n);
	*n = ps->prefixes.n;
	*elems = mem_copy(ps->policy->mem, ps->prefixes.data, *n * sizeof(**elems));
	return *elems ? 0 : -ENOMEM;

missing_brace:
	if (rc == -EINVAL && braces) {
		if (ps->tok.kind == T_END) {
			fail(ps, at, "the brace is not closed");
			return hint(ps, "end the list with \"}\"");
		}
		if (ps->tok.kind == T_WORD && np_nearest(ps->tok.s, ps->tok.len, statement_words))
			return hint(ps, "is a \"}\" missing above this line?");
	}
	return rc;
}

static int add_value_range(struct parser *ps, __u16 lo, __u16 hi)
{
	struct np_range *r = vec_add(&ps->ranges, 1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	*r = (struct np_range){ lo, hi };
	return 0;
}

static int range_cmp(const void *pa, const void *pb)
{
	const struct np_range *a = pa, *b = pb;

	return a->lo != b->lo ? (int)a->lo - b->lo : (int)a->hi - b->hi;
}

/* Sort and join what the list holds; keep it. */
static int keep_ranges(struct parser *ps, const struct np_range **ranges, __u32 *n)
{
	struct np_range *v = ps->ranges.data;
	size_t out = 0;

	if (ps->ranges.n > 1)
		qsort(v, ps->ranges.n, sizeof(*v), range_cmp);
	for (size_t i = 0; i < ps->ranges.n; i++) {
		if (out && v[i].lo <= v[out - 1].hi + 1) {
			if (v[out - 1].hi < v[i].hi)
				v[out - 1].hi = v[i].hi;
		} else {
			v[out++] = v[i];
		}
	}
	*n = out;
	*ranges = mem_copy(ps->policy->mem, v, out * sizeof(*v));
	return *ranges ? 0 : -ENOMEM;
}

static int parse_port(struct parser *ps, bool first)
{
	const char *s = ps->tok.s, *end = s + ps->tok.len, *dash;
	char text[16], *t = text;
	long lo, hi;
	int rc;

	if (ps->tok.kind == T_OPEN) {
		expected(ps, "a port");
		return hint(ps, "ports are listed without braces: port 22, 8000-8100");
	}
	if (ps->tok.kind != T_WORD)
		return expected(ps, "a port");
	dash = memchr(s, '-', end - s);
	lo = np_number(s, (dash ?: end) - s, 65535);
	hi = dash ? np_number(dash + 1, end - dash - 1, 65535) : lo;
	if (lo < 0 || hi < 0) {
		if (lo >= 0)
			s = dash + 1;
		else if (dash && *s >= '0' && *s <= '9')
			end = dash;
		fail(ps, s, "\"%s\" is not a port", quote(ps, 0, s, end - s));
		return hint(ps, "write a number 0-65535, or FIRST-LAST without blanks");
	}
	if (lo > hi) {
		fail(ps, s, "the range runs backwards");
		return hint(ps, "did you mean \"%ld-%ld\"?", hi, lo);
	}
	t = put_u32(t, lo);
	if (lo != hi) {
		*t++ = '-';
		t = put_u32(t, hi);
	}
	rc = add_value_range(ps, lo, hi) ?: put_item(ps, first, text, t - text);
	if (!rc)
		advance(ps);
	return rc;
}

static bool has_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP ||
	       proto == IPPROTO_DCCP || proto == IPPROTO_UDPLITE;
}

static int parse_ports(struct parser *ps, const struct np_rule *rule,
		       const struct np_range **ranges, __u32 *n)
{
	bool first = true;
	int rc;

	for (__u32 i = 0; i < rule->nproto; i++) {
		const char *name = np_proto_name(rule->proto[i]);

		if (has_ports(rule->proto[i]))
			continue;
		if (name)
			fail(ps, ps->tok.s, "%s has no ports", name);
		else
			fail(ps, ps->tok.s, "protocol %u has no ports", rule->proto[i]);
		return hint(ps, "\"port\" goes with tcp, udp, sctp, dccp and udplite alone");
	}
	if (!rule->nproto) {
		fail(ps, ps->tok.s, "\"port\" needs a protocol");
		return hint(ps, "name it in front of \"from\" and \"to\": %s tcp, udp ...",
			    np_verdict_name(rule->verdict));
	}
	if (put_word(ps, "port"))
		return -ENOMEM;
	ps->ranges.n = 0;
	do {
		advance(ps);
		rc = parse_port(ps, first);
		if (rc)
			return rc;
		first = false;
	} while (ps->tok.kind == T_COMMA);
	return keep_ranges(ps, ranges, n);
}

static bool is_clause(const struct token *t)
{
	return is(t, "type") || is(t, "from") || is(t, "to") || is(t, "log") || is(t, "count");
}

enum { IPV4 = 1, IPV6 = 2 };

/* Families of a side's addresses. */
static unsigned int families(const struct np_prefix *v, __u32 n)
{
	unsigned int set = n ? 0 : IPV4 | IPV6;

	for (__u32 i = 0; i < n; i++)
		set |= v[i].family == 4 ? IPV4 : IPV6;
	return set;
}

/* A rule that no packet can match is a mistake. at: the addresses read last */
static int check_families(struct parser *ps, const struct np_rule *rule, const char *at)
{
	unsigned int from = families(rule->from, rule->nfrom), to = families(rule->to, rule->nto);

	if (!(from & to)) {
		fail(ps, at, "no packet goes from IPv%d to IPv%d", from == IPV4 ? 4 : 6,
		     to == IPV4 ? 4 : 6);
		return hint(ps, "write a rule for each family");
	}
	/* Before the addresses only types are known, and ports are not. */
	if (rule->nsel) {
		bool icmp = rule->proto[0] == IPPROTO_ICMP;

		if (from & to & (icmp ? IPV4 : IPV6))
			return 0;
		fail(ps, at, "%s has no types in IPv%d", icmp ? "icmp" : "icmp6", icmp ? 6 : 4);
		return hint(ps, "%s has them", icmp ? "icmp6" : "icmp");
	}
	return 0;
}

static int parse_side(struct parser *ps, struct np_rule *rule, bool from)
{
	const struct np_prefix **elems = from ? &rule->from : &rule->to;
	struct np_span *span = from ? &rule->from_text : &rule->to_text;
	const char *word = from ? "from" : "to";
	int rc;

	if (put_word(ps, word))
		return -ENOMEM;
	advance(ps);
	if (at_line_end(ps) || is_clause(&ps->tok)) {
		fail(ps, ps->tok.s, "\"%s\" needs an address, a set or \"port\"", word);
		return hint(ps, "for any address leave \"%s\" out", word);
	}
	if (!is(&ps->tok, "port")) {
		const char *at = ps->tok.s;

		span->off = ps->out.n + 1;
		rc = parse_elems(ps, elems, from ? &rule->nfrom : &rule->nto);
		if (!rc)
			rc = check_families(ps, rule, at);
		if (rc)
			return rc;
		span->len = ps->out.n - span->off;
	}
	if (!is(&ps->tok, "port"))
		return 0;
	return from ? parse_ports(ps, rule, &rule->sport, &rule->nsport) :
		      parse_ports(ps, rule, &rule->sel, &rule->nsel);
}

/* A word that fits nowhere; what could stand here is in the hint. */
static int unknown(struct parser *ps, const char *const *words, const char *const *more,
		   const struct name *names)
{
	struct nearest n = nearest_init(ps->tok.s, ps->tok.len);
	const char *other = synonym(ps->tok.s, ps->tok.len);

	if (ps->tok.kind != T_WORD)
		return fail(ps, ps->tok.s, "unexpected %s", token_text(ps));
	fail(ps, ps->tok.s, "unknown word %s", token_text(ps));
	if (other)
		return did_you_mean(ps, other);
	nearest_words(&n, words);
	if (more)
		nearest_words(&n, more);
	if (names)
		nearest_names(&n, names);
	return did_you_mean(ps, n.best);
}

static int parse_protos(struct parser *ps, struct np_rule *rule)
{
	__u64 seen[4] = {};
	__u8 list[256];
	bool first = true;

	for (;; advance(ps)) {
		const char *s = ps->tok.s, *name;
		char text[4];
		long proto;

		if (ps->tok.kind != T_WORD && !first)
			return expected(ps, "a protocol");
		proto = np_number(s, ps->tok.len, 255);
		if (proto < 0)
			proto = np_proto_number(s, ps->tok.len);
		if (proto < 0 && ps->tok.kind == T_WORD && *s >= '0' && *s <= '9') {
			fail(ps, s, "\"%s\" is no protocol", quote(ps, 0, s, ps->tok.len));
			return hint(ps, "a protocol is a name or 0-255; "
				    "addresses follow \"from\" or \"to\"");
		}
		if (proto < 0)
			return unknown(ps, clause_words, first && rule->dir < 0 ? dir_words : NULL,
				       protos);
		seen[proto / 64] |= 1ull << proto % 64;
		name = np_proto_name(proto);
		if (!name) {
			*put_u32(text, proto) = 0;
			name = text;
		}
		if (put_item(ps, first, name, strlen(name)))
			return -ENOMEM;
		first = false;
		advance(ps);
		if (ps->tok.kind != T_COMMA)
			break;
	}
	for (int i = 0; i < 4; i++)
		for (; seen[i]; seen[i] &= seen[i] - 1)
			list[rule->nproto++] = 64 * i + __builtin_ctzll(seen[i]);
	rule->proto = mem_copy(ps->policy->mem, list, rule->nproto);
	return rule->proto ? 0 : -ENOMEM;
}

static int parse_type(struct parser *ps, __u8 proto, bool first)
{
	const char *s = ps->tok.s, *end = s + ps->tok.len, *slash, *name;
	char text[64], *t = text;
	long type, code = -1;
	int rc;

	if (ps->tok.kind != T_WORD)
		return expected(ps, "an ICMP type");
	slash = memchr(s, '/', end - s);
	type = np_number(s, (slash ?: end) - s, 255);
	if (type < 0)
		type = np_icmp_number(proto, s, (slash ?: end) - s);
	if (type < 0) {
		__u8 other = proto == IPPROTO_ICMP ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
		struct nearest n = nearest_init(s, (slash ?: end) - s);

		fail(ps, s, "\"%s\" is no type of %s", quote(ps, 0, s, (slash ?: end) - s),
		     np_proto_name(proto));
		if (np_icmp_number(other, s, (slash ?: end) - s) >= 0)
			return hint(ps, "it is one of %s", np_proto_name(other));
		nearest_names(&n, icmp_table(proto));
		if (n.best)
			return did_you_mean(ps, n.best);
		return hint(ps, "write a name such as echo-request, or a number 0-255");
	}
	if (slash) {
		code = np_number(slash + 1, end - slash - 1, 255);
		if (code < 0) {
			fail(ps, slash + 1, "\"%s\" is no ICMP code",
			     quote(ps, 0, slash + 1, end - slash - 1));
			return hint(ps, "a code is a number 0-255");
		}
	}
	name = np_icmp_name(proto, type);
	t = name ? stpcpy(t, name) : put_u32(t, type);
	if (slash) {
		*t++ = '/';
		t = put_u32(t, code);
	}
	rc = add_value_range(ps, type << 8 | (slash ? code : 0), type << 8 | (slash ? code : 255));
	rc = rc ?: put_item(ps, first, text, t - text);
	if (!rc)
		advance(ps);
	return rc;
}

static int parse_types(struct parser *ps, struct np_rule *rule)
{
	bool first = true;
	int rc;

	if (rule->nproto != 1 ||
	    (rule->proto[0] != IPPROTO_ICMP && rule->proto[0] != IPPROTO_ICMPV6)) {
		fail(ps, ps->tok.s, "\"type\" needs icmp or icmp6 as the only protocol");
		return hint(ps, "write a rule for each: %s icmp type ...",
			    np_verdict_name(rule->verdict));
	}
	if (put_word(ps, "type"))
		return -ENOMEM;
	ps->ranges.n = 0;
	do {
		advance(ps);
		rc = parse_type(ps, rule->proto[0], first);
		if (rc)
			return rc;
		first = false;
	} while (ps->tok.kind == T_COMMA);
	return keep_ranges(ps, &rule->sel, &rule->nsel);
}

static int parse_count(struct parser *ps, struct np_rule *rule)
{
	advance(ps);
	if (ps->tok.kind != T_WORD)
		return 0;		/* every rule counts: nothing to keep */
	if (is_clause(&ps->tok)) {
		fail(ps, ps->tok.s, "\"%s\" comes after \"count\"",
		     quote(ps, 0, ps->tok.s, ps->tok.len));
		return hint(ps, "\"count\" is the last word of a rule, but for the counter's name");
	}
	if (!valid_name(ps->tok.s, ps->tok.len))
		return bad_name(ps, "counter", ps->tok.s, ps->tok.len);
	rule->counter = mem_string(ps->policy->mem, ps->tok.s, ps->tok.len);
	if (!rule->counter || put_word(ps, "count") || put_word(ps, rule->counter))
		return -ENOMEM;
	advance(ps);
	return 0;
}

static bool take_verdict(struct parser *ps, enum np_verdict *verdict)
{
	if (is(&ps->tok, "allow"))
		*verdict = NP_ALLOW;
	else if (is(&ps->tok, "deny"))
		*verdict = NP_DENY;
	else if (is(&ps->tok, "next"))
		*verdict = NP_NEXT;
	else
		return false;
	advance(ps);
	return true;
}

static int end_of_rule(struct parser *ps)
{
	const struct token *t = &ps->tok;

	if (at_line_end(ps))
		return 0;
	if (is_clause(t) || is(t, "in") || is(t, "out") ||
	    (t->kind == T_WORD && np_proto_number(t->s, t->len) >= 0)) {
		fail(ps, t->s, "%s is out of place", token_text(ps));
		return hint(ps, "the order is: in or out, protocols, type, from, to, log, count");
	}
	if (t->kind == T_WORD && ((*t->s >= '0' && *t->s <= '9') || *t->s == '@')) {
		fail(ps, t->s, "unexpected %s", token_text(ps));
		return hint(ps, "the parts of a list are separated by commas");
	}
	return unknown(ps, clause_words, port_word, NULL);
}

/* The current token is the rule's first. */
static int parse_rule(struct parser *ps, struct np_rule *rule)
{
	const char *start = ps->tok.s;
	int rc;

	*rule = (struct np_rule){ .dir = -1, .line = ps->tok.line };
	ps->out.n = 0;
	if (!take_verdict(ps, &rule->verdict)) {
		if (ps->tok.kind != T_WORD)
			return expected(ps, "a rule, \"set\" or \"default\"");
		return unknown(ps, statement_words, NULL, NULL);
	}
	if (put_word(ps, np_verdict_name(rule->verdict)))
		return -ENOMEM;
	if (is(&ps->tok, "in") || is(&ps->tok, "out")) {
		rule->dir = is(&ps->tok, "in") ? NP_IN : NP_OUT;
		if (put_word(ps, np_dir_name(rule->dir)))
			return -ENOMEM;
		advance(ps);
	}
	if (!at_line_end(ps) && !is_clause(&ps->tok)) {
		rc = parse_protos(ps, rule);
		if (rc)
			return rc;
	}
	if (is(&ps->tok, "type")) {
		rc = parse_types(ps, rule);
		if (rc)
			return rc;
	}
	if (is(&ps->tok, "from")) {
		rc = parse_side(ps, rule, true);
		if (rc)
			return rc;
	}
	if (is(&ps->tok, "to")) {
		rc = parse_side(ps, rule, false);
		if (rc)
			return rc;
	}
	if (is(&ps->tok, "log")) {
		rule->log = true;
		if (put_word(ps, "log"))
			return -ENOMEM;
		advance(ps);
	}
	if (is(&ps->tok, "count")) {
		rc = parse_count(ps, rule);
		if (rc)
			return rc;
	}
	rc = end_of_rule(ps);
	if (rc)
		return rc;
	rule->src.off = start - ps->text;
	rule->src.len = ps->last - start;
	rule->text = mem_string(ps->policy->mem, ps->out.data, ps->out.n);
	return rule->text ? 0 : -ENOMEM;
}

static int parse_default(struct parser *ps)
{
	struct np_policy *policy = ps->policy;
	const struct token start = ps->tok;

	if (policy->has_default) {
		fail(ps, start.s, "a second \"default\"");
		return hint(ps, "the first one is in line %u; keep one of them",
			    policy->default_line);
	}
	advance(ps);
	if (!take_verdict(ps, &policy->dflt)) {
		if (ps->tok.kind != T_WORD)
			return expected(ps, "\"allow\", \"deny\" or \"next\"");
		return unknown(ps, verdict_words, NULL, NULL);
	}
	policy->has_default = true;
	policy->default_line = start.line;
	if (is(&ps->tok, "log")) {
		policy->default_log = true;
		advance(ps);
	}
	return at_line_end(ps) ? 0 : unknown(ps, log_word, NULL, NULL);
}

static int parse_set(struct parser *ps)
{
	struct np_set set = { .line = ps->tok.line }, *have;
	struct token name;
	int rc;

	advance(ps);
	name = ps->tok;
	if (name.kind != T_WORD)
		return expected(ps, "the name of the set");
	if (*name.s == '@') {
		bad_name(ps, "set", name.s, name.len);
		return hint(ps, "the \"@\" comes only where a rule names the set");
	}
	if (!valid_name(name.s, name.len))
		return bad_name(ps, "set", name.s, name.len);
	have = set_find(ps->policy, name.s, name.len);
	if (have) {
		fail(ps, name.s, "a second set \"%s\"", have->name);
		return hint(ps, "the first one is in line %u; give this one another name",
			    have->line);
	}
	advance(ps);
	if (ps->tok.kind != T_EQUAL)
		return expected(ps, "\"=\"");
	advance(ps);
	if (ps->tok.kind != T_OPEN)
		return expected(ps, "\"{\"");
	ps->out.n = 0;
	rc = parse_elems(ps, &set.elems, &set.n);
	if (rc)
		return rc;
	if (!at_line_end(ps)) {
		expected(ps, "the end of the line");
		return hint(ps, "one statement a line");
	}
	set.name = mem_string(ps->policy->mem, name.s, name.len);
	return set.name ? set_add(ps->policy, &set) : -ENOMEM;
}

/* What has to hold for all of the text; tells how many lines there are. */
static int check_text(struct parser *ps, size_t *lines)
{
	const char *p = ps->text, *nl;

	*lines = 0;
	if (ps->end - ps->text > NP_MAX_TEXT)
		return np_error_set(ps->err, 0, 0, "split it, or write its lists as prefixes",
				    "the text is longer than %u MiB", NP_MAX_TEXT >> 20);
	nl = memchr(p, 0, ps->end - p);
	if (nl) {
		fail(ps, nl, "the text has a NUL byte");
		return hint(ps, "is this a text file, in UTF-8?");
	}
	for (; p < ps->end; p = nl + 1) {
		nl = memchr(p, '\n', ps->end - p) ?: ps->end;
		if (nl - p > NP_MAX_LINE + (nl > p && nl[-1] == '\r')) {
			fail(ps, p + NP_MAX_LINE, "the line is longer than %u bytes", NP_MAX_LINE);
			return hint(ps, "break the line inside braces");
		}
		++*lines;
	}
	return 0;
}

static void parser_init(struct parser *ps, struct np_policy *policy, const char *text, size_t len,
			struct np_error *err)
{
	*ps = (struct parser){
		.text = text, .p = text, .end = text + len, .line = 1,
		.policy = policy, .err = err,
	};
	memset(err, 0, sizeof(*err));
	ps->p += bom(text, len);
	ps->tok.s = ps->p;
}

static void parser_free(struct parser *ps)
{
	free(ps->out.data);
	free(ps->prefixes.data);
	free(ps->ranges.data);
}

static int parse_policy(struct parser *ps)
{
	struct np_policy *policy = ps->policy;
	size_t lines, size;
	int rc;

	rc = check_text(ps, &lines);
	if (rc)
		return rc;
	/* A rule takes a line at least. What is never written to costs nothing. */
	size = lines < NP_MAX_RULES ? lines : NP_MAX_RULES;
	policy->rules = malloc((size ?: 1) * sizeof(*policy->rules));
	if (!policy->rules)
		return -ENOMEM;
	for (advance(ps); ps->tok.kind != T_END; ) {
		if (ps->tok.kind == T_EOL) {
			advance(ps);
			continue;
		}
		if (is(&ps->tok, "default")) {
			rc = parse_default(ps);
		} else if (is(&ps->tok, "set")) {
			rc = parse_set(ps);
		} else if (policy->nrules == NP_MAX_RULES) {
			fail(ps, ps->tok.s, "more than %u rules", NP_MAX_RULES);
			rc = hint(ps, "rules that differ in addresses alone can be one with a set");
		} else {
			rc = parse_rule(ps, &policy->rules[policy->nrules]);
			policy->nrules += !rc;
		}
		if (rc)
			return rc;
	}
	if (policy->nrules && policy->nrules < size / 2) {
		struct np_rule *rules = realloc(policy->rules, policy->nrules * sizeof(*rules));

		if (rules)
			policy->rules = rules;
	}
	return 0;
}

int np_policy_parse(const char *text, size_t len, struct np_policy **policy, struct np_error *err)
{
	struct parser ps;
	int rc;

	*policy = policy_new();
	if (!*policy)
		return -ENOMEM;
	parser_init(&ps, *policy, text, len, err);
	rc = parse_policy(&ps);
	parser_free(&ps);
	if (rc) {
		np_policy_free(*policy);
		*policy = NULL;
	}
	return rc;
}

static int rule_parse(struct np_policy *policy, __u32 set_limit, const char *text, size_t len,
		      struct np_rule *rule, struct np_error *err)
{
	struct parser ps;
	size_t lines;
	int rc;

	parser_init(&ps, policy, text, len, err);
	ps.set_limit = set_limit;
	rc = check_text(&ps, &lines);
	if (rc)
		goto out;
	do
		advance(&ps);
	while (ps.tok.kind == T_EOL);
	if (ps.tok.kind == T_END) {
		rc = np_error_set(err, 0, 0, "write it in quotes: 'allow tcp to port 22'",
				  "there is no rule in the text");
	} else if (is(&ps.tok, "set") || is(&ps.tok, "default")) {
		fail(&ps, ps.tok.s, "%s is not a rule", token_text(&ps));
		rc = hint(&ps, "change the policy's file and load it");
	} else {
		rc = parse_rule(&ps, rule);
	}
	while (!rc && ps.tok.kind == T_EOL)
		advance(&ps);
	if (!rc && ps.tok.kind != T_END) {
		fail(&ps, ps.tok.s, "more than one rule");
		rc = hint(&ps, "give one rule at a time, or load a file");
	}
out:
	parser_free(&ps);
	return rc;
}

int np_rule_parse(struct np_policy *policy, const char *text, size_t len, struct np_rule *rule,
		  struct np_error *err)
{
	return rule_parse(policy, 0, text, len, rule, err);
}

/* Errors. */

int np_error_set(struct np_error *err, unsigned int line, unsigned int col, const char *hint,
		 const char *fmt, ...)
{
	va_list ap;

	err->line = line;
	err->col = col;
	snprintf(err->hint, sizeof(err->hint), "%s", hint ?: "");
	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	for (char *p = err->msg; *p; p++)
		if (*p < 0x20 || *p == 0x7f)
			*p = '?';
	return -EINVAL;
}

#define SHOW_BEFORE 60
#define SHOW_AFTER 40

static bool continues_utf8(char c)
{
	return ((unsigned char)c & 0xc0) == 0x80;
}

/* The line around the error, and below it the caret. */
static void print_line(FILE *f, const char *bol, const char *eol, const char *at)
{
	const char *from = at - bol > SHOW_BEFORE ? at - SHOW_BEFORE : bol;
	const char *to = eol - at > SHOW_AFTER ? at + SHOW_AFTER : eol;

	while (from < at && continues_utf8(*from))
		from++;
	while (to > at && to < eol && continues_utf8(*to))
		to--;
	fprintf(f, "    %s", from > bol ? "..." : "");
	for (const char *p = from; p < to; p++)
		fputc(((unsigned char)*p < 0x20 && *p != '\t') || *p == 0x7f ? '?' : *p, f);
	fprintf(f, "%s\n    %s", to < eol ? "..." : "", from > bol ? "   " : "");
	for (const char *p = from; p < at; p++)
		if (!continues_utf8(*p))
			fputc(*p == '\t' ? '\t' : ' ', f);
	fputs("^\n", f);
}

int np_error_print(FILE *f, const char *file, const char *text, size_t len,
		   const struct np_error *err)
{
	const char *bol = text ? text + bom(text, len) : NULL, *eol, *end = text + len;

	fprintf(f, "%s:", file);
	if (err->line)
		fprintf(f, "%u:", err->line);
	if (err->line && err->col)
		fprintf(f, "%u:", err->col);
	fprintf(f, " %s\n", err->msg);
	if (text && err->line) {
		for (unsigned int line = 1; bol && line < err->line; line++) {
			bol = memchr(bol, '\n', end - bol);
			bol = bol ? bol + 1 : NULL;
		}
		if (bol && err->col && err->col - 1 <= end - bol) {
			eol = memchr(bol, '\n', end - bol) ?: end;
			if (eol > bol && eol[-1] == '\r')
				eol--;
			if (bol + err->col - 1 <= eol)
				print_line(f, bol, eol, bol + err->col - 1);
		}
	}
	if (err->hint[0])
		fprintf(f, "    %s\n", err->hint);
	return ferror(f) ? -EIO : 0;
}

/* Editing. */

static const char *line_start(const char *text, size_t len, const char *p)
{
	while (p > text && p[-1] != '\n')
		p--;
	return p == text ? p + bom(text, len) : p;
}

/* Behind the line's end. */
static const char *line_after(const char *p, const char *end)
{
	p = memchr(p, '\n', end - p);
	return p ? p + 1 : end;
}

static __u32 count_lines(const char *from, const char *to)
{
	__u32 n = 0;

	while ((from = memchr(from, '\n', to - from))) {
		from++;
		n++;
	}
	return n;
}

/* The limits of a text as a whole, which the rule alone does not show. */
static int check_edited(const struct np_edit *edit, struct np_error *err)
{
	struct np_error inner;
	struct parser ps;
	size_t lines;

	parser_init(&ps, NULL, edit->text, edit->len, &inner);
	if (!check_text(&ps, &lines))
		return 0;
	return np_error_set(err, 0, 0, inner.hint, "the policy would have an error in line %u: %.180s",
			    inner.line, inner.msg);
}

/*
 * The new text: `insert` in the place of [from, to). The new policy: the old one with room
 * for a rule more, the places of its parts as they are in the new text.
 */
static int splice(const struct np_policy *policy, const char *text, size_t len, const char *from,
		  const char *to, const struct vec *insert, struct np_edit *edit,
		  struct np_error *err)
{
	size_t before = from - text, after = text + len - to;
	__u32 line = 1 + count_lines(text, from), more = 0, less = count_lines(from, to);
	struct np_policy *new;
	int rc;

	edit->len = before + insert->n + after;
	edit->text = malloc(edit->len + 1);
	if (!edit->text)
		return -ENOMEM;
	memcpy(edit->text, text, before);
	if (insert->n) {
		memcpy(edit->text + before, insert->data, insert->n);
		more = count_lines(insert->data, (char *)insert->data + insert->n);
	}
	memcpy(edit->text + before + insert->n, to, after);
	edit->text[edit->len] = 0;
	rc = check_edited(edit, err);
	if (rc)
		return rc;

	new = malloc(sizeof(*new));
	if (!new)
		return -ENOMEM;
	*new = *policy;
	/* As the text has them, and not who uses it. */
	new->has_default = new->default_line;
	new->stateless = false;
	new->rules = malloc((policy->nrules + 1ul) * sizeof(*new->rules));
	new->sets = malloc((policy->nsets + 1ul) * sizeof(*new->sets));
	new->mem->refs++;
	edit->policy = new;
	if (!new->rules || !new->sets)
		return -ENOMEM;
	memcpy(new->rules, policy->rules, policy->nrules * sizeof(*new->rules));
	if (policy->nsets)
		memcpy(new->sets, policy->sets, policy->nsets * sizeof(*new->sets));
	for (__u32 i = 0; i < new->nrules; i++) {
		if (new->rules[i].src.off < before)
			continue;
		new->rules[i].src.off += insert->n - (to - from);
		new->rules[i].line += more - less;
	}
	/* An insertion at the end of a text without a last line break moves nothing. */
	if (after || less) {
		for (__u32 i = 0; i < new->nsets; i++)
			if (new->sets[i].line >= line)
				new->sets[i].line += more - less;
		if (new->default_line >= line)
			new->default_line += more - less;
	}
	return 0;
}

/* One end for all: a failed edit leaves nothing. */
static int edited(int rc, struct np_edit *edit)
{
	if (rc)
		np_edit_free(edit);
	return rc;
}

void np_edit_free(struct np_edit *edit)
{
	free(edit->text);
	np_policy_free(edit->policy);
	memset(edit, 0, sizeof(*edit));
}

static int vec_put(struct vec *v, const char *s, size_t n)
{
	char *p = vec_add(v, n, 1);

	if (!p)
		return -ENOMEM;
	memcpy(p, s, n);
	return 0;
}

static int no_such_rule(struct np_error *err, const struct np_policy *policy, __u32 number)
{
	np_error_set(err, 0, 0, "see `netpol rule list`", "there is no rule %u, the policy has %u",
		     number, policy->nrules);
	return -ENOENT;
}

/* The new lines: the rule as it was written, indented and ended as its neighbours are. */
static int lines_for(const char *text, size_t len, const char *at, const char *indent,
		     const char *rule, size_t rule_len, struct vec *v, size_t *rule_at)
{
	const char *nl = memchr(text, '\n', len);
	const char *eol = nl && nl > text && nl[-1] == '\r' ? "\r\n" : "\n";
	size_t n = 0;

	while (indent + n < text + len && (indent[n] == ' ' || indent[n] == '\t'))
		n++;
	if (at > line_start(text, len, at) && vec_put(v, eol, strlen(eol)))
		return -ENOMEM;
	if (vec_put(v, indent, n))
		return -ENOMEM;
	*rule_at = v->n;
	return vec_put(v, rule, rule_len) || vec_put(v, eol, strlen(eol)) ? -ENOMEM : 0;
}

int np_policy_add(struct np_policy *policy, const char *text, size_t len, enum np_where where,
		  __u32 number, const char *rule, size_t rule_len, struct np_edit *edit,
		  struct np_error *err)
{
	const char *end = text + len, *at = end, *indent = end;
	__u32 line = 0, index = policy->nrules;
	struct vec lines = {};
	struct np_rule *new, parsed;
	size_t skip, rule_at;
	int rc;

	memset(edit, 0, sizeof(*edit));
	while (rule_len && isspace((unsigned char)rule[rule_len - 1]))
		rule_len--;
	if (where != NP_AT_END) {
		const struct np_rule *near;

		if (!number || number > policy->nrules)
			return no_such_rule(err, policy, number);
		near = &policy->rules[number - 1];
		indent = line_start(text, len, text + near->src.off);
		at = indent;
		line = near->line;
		index = number - (where == NP_BEFORE);
		if (where == NP_AFTER)
			at = line_after(text + near->src.off + near->src.len, end);
	}
	rc = rule_parse(policy, line, rule, rule_len, &parsed, err);
	if (rc)
		return rc;
	if (policy->nrules == NP_MAX_RULES)
		return np_error_set(err, 0, 0, "rules that differ in addresses alone can be one "
				    "with a set", "more than %u rules", NP_MAX_RULES);
	for (skip = bom(rule, rule_len); skip < rule_len && isspace((unsigned char)rule[skip]); )
		skip++;
	rc = lines_for(text, len, at, indent, rule + skip, rule_len - skip, &lines, &rule_at);
	rc = rc ?: splice(policy, text, len, at, at, &lines, edit, err);
	if (!rc) {
		new = &edit->policy->rules[index];
		memmove(new + 1, new, (policy->nrules - index) * sizeof(*new));
		*new = parsed;
		new->src.off = at - text + rule_at + parsed.src.off - skip;
		new->line = 1 + count_lines(edit->text, edit->text + new->src.off);
		edit->policy->nrules++;
	}
	free(lines.data);
	return edited(rc, edit);
}

static int find_rule(struct np_policy *policy, const char *which, size_t len, __u32 *found,
		     struct np_error *err)
{
	struct np_rule rule;
	__u32 n = 0, second = 0;
	long nr;
	int rc;

	*found = 0;
	while (len && isspace((unsigned char)which[len - 1]))
		len--;
	while (len && isspace((unsigned char)*which)) {
		which++;
		len--;
	}
	nr = np_number(which, len, 999999999);
	if (nr >= 0) {
		*found = nr - 1;
		return nr && nr <= policy->nrules ? 0 : no_such_rule(err, policy, nr);
	}
	rc = np_rule_parse(policy, which, len, &rule, err);
	if (rc)
		return rc;
	for (__u32 i = 0; i < policy->nrules; i++) {
		if (strcmp(policy->rules[i].text, rule.text))
			continue;
		if (!n++)
			*found = i;
		else if (n == 2)
			second = i;
	}
	if (!n) {
		np_error_set(err, 0, 0, "see `netpol rule list`", "no rule reads \"%.200s\"",
			     rule.text);
		return -ENOENT;
	}
	if (n > 1)
		return np_error_set(err, 0, 0, "delete it by its number",
				    "%u rules read like this, the first are %u and %u", n,
				    *found + 1, second + 1);
	return 0;
}

int np_policy_del(struct np_policy *policy, const char *text, size_t len, const char *which,
		  size_t which_len, struct np_edit *edit, struct np_error *err)
{
	const char *first, *last;
	const struct vec none = {};
	struct np_rule *gone;
	__u32 i;
	int rc;

	memset(edit, 0, sizeof(*edit));
	rc = find_rule(policy, which, which_len, &i, err);
	if (rc)
		return rc;
	first = text + policy->rules[i].src.off;
	last = first + policy->rules[i].src.len;
	rc = splice(policy, text, len, line_start(text, len, first), line_after(last, text + len),
		    &none, edit, err);
	if (!rc) {
		gone = &edit->policy->rules[i];
		memmove(gone, gone + 1, (policy->nrules - i - 1) * sizeof(*gone));
		edit->policy->nrules--;
	}
	return edited(rc, edit);
}

/* Views. */

int np_policy_print_rules(FILE *f, const struct np_policy *policy)
{
	for (__u32 i = 0; i < policy->nrules; i++)
		fprintf(f, "%6u  %s\n", i + 1, policy->rules[i].text);
	if (policy->has_default)
		fprintf(f, "        default %s%s\n", np_verdict_name(policy->dflt),
			policy->default_log ? " log" : "");
	return ferror(f) ? -EIO : 0;
}

/* A list as the rule has it: "a, b" to ["a", "b"]. */
static json_t *json_list(const char *s, size_t len)
{
	json_t *list = json_array();
	const char *end = s + len, *comma;

	for (; list && s < end; s = comma + 2) {
		comma = memchr(s, ',', end - s) ?: end;
		if (json_array_append_new(list, json_stringn(s, comma - s))) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static json_t *json_ranges(const struct np_range *v, __u32 n)
{
	json_t *list = json_array();

	for (__u32 i = 0; list && i < n; i++) {
		json_t *s = v[i].lo == v[i].hi ? json_sprintf("%u", v[i].lo) :
						 json_sprintf("%u-%u", v[i].lo, v[i].hi);

		if (json_array_append_new(list, s)) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static json_t *json_protos(const struct np_rule *rule)
{
	json_t *list = json_array();

	for (__u32 i = 0; list && i < rule->nproto; i++) {
		const char *name = np_proto_name(rule->proto[i]);
		json_t *s = name ? json_string(name) : json_sprintf("%u", rule->proto[i]);

		if (json_array_append_new(list, s)) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

/* The types as the rule has them: between "type" and what follows. */
static json_t *json_types(const struct np_rule *rule)
{
	const char *from = strstr(rule->text, " type "), *to;

	if (!from || rule->nproto != 1 || has_ports(rule->proto[0]))
		return json_array();
	from += strlen(" type ");
	for (to = from + strcspn(from, " "); *to && to[-1] == ','; )
		to += 1 + strcspn(to + 1, " ");
	return json_list(from, to - from);
}

json_t *np_rule_json(const struct np_rule *rule, __u32 number)
{
	bool ports = rule->nproto && has_ports(rule->proto[0]);

	return json_pack("{s:i, s:i, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:s?}",
			 "index", (int)number, "line", (int)rule->line, "text", rule->text,
			 "verdict", np_verdict_name(rule->verdict),
			 "direction", np_dir_name(rule->dir),
			 "protocols", json_protos(rule), "types", json_types(rule),
			 "from", json_list(rule->text + rule->from_text.off, rule->from_text.len),
			 "source_ports", json_ranges(rule->sport, rule->nsport),
			 "to", json_list(rule->text + rule->to_text.off, rule->to_text.len),
			 "ports", json_ranges(rule->sel, ports ? rule->nsel : 0),
			 "log", rule->log, "counter", rule->counter);
}

static json_t *json_set(const struct np_set *set)
{
	json_t *list = json_array();
	char buf[NP_PREFIX_STR];

	for (__u32 i = 0; list && i < set->n; i++) {
		if (json_array_append_new(list, json_string(np_prefix_str(buf, &set->elems[i])))) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

json_t *np_policy_json(const struct np_policy *policy)
{
	json_t *sets = json_object(), *rules = json_array();
	int rc = !sets || !rules;

	for (__u32 i = 0; !rc && i < policy->nsets; i++)
		rc = json_object_set_new(sets, policy->sets[i].name, json_set(&policy->sets[i]));
	for (__u32 i = 0; !rc && i < policy->nrules; i++)
		rc = json_array_append_new(rules, np_rule_json(&policy->rules[i], i + 1));
	if (rc) {
		json_decref(sets);
		json_decref(rules);
		return NULL;
	}
	return json_pack("{s:s?, s:b, s:o, s:o}",
			 "default", policy->has_default ? np_verdict_name(policy->dflt) : NULL,
			 "default_log", policy->default_log, "sets", sets, "rules", rules);
}
