// SPDX-License-Identifier: GPL-2.0-only
/*
 * The filter: recursive descent to a tree, the tree to ops that jump. A tree's leaf is a
 * predicate; `not` is never kept, since it only swaps where a predicate leads to.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"
#include "sockkill-filter.h"

/* --- states --- */

#define BIT(n) (1u << (n))
#define CONNECTED (SK_STATES_ALL & ~(BIT(7) | BIT(10)))

/* The first name of a number is the canonical one; 1 to 12 are the kernel's. */
static const struct {
	const char *name;
	__u32 mask;
} states[] = {
	{"established", BIT(1)},
	{"syn-sent", BIT(2)},
	{"syn-recv", BIT(3)},
	{"fin-wait-1", BIT(4)},
	{"fin-wait-2", BIT(5)},
	{"time-wait", BIT(6)},
	{"closed", BIT(7)},
	{"close-wait", BIT(8)},
	{"last-ack", BIT(9)},
	{"listening", BIT(10)},
	{"closing", BIT(11)},
	{"new-syn-recv", BIT(12)},
	{"estab", BIT(1)},
	{"unconnected", BIT(7)},
	{"listen", BIT(10)},
	{"all", SK_STATES_ALL},
	{"connected", CONNECTED},
	{"synchronized", CONNECTED & ~BIT(2)},
	{"bucket", BIT(3) | BIT(6) | BIT(12)},
	{"big", SK_STATES_ALL & ~(BIT(3) | BIT(6) | BIT(12))},
};

const char *sk_state_name(unsigned int state)
{
	for (size_t i = 0; i < ARRAY_SIZE(states); i++)
		if (state < 32 && states[i].mask == BIT(state))
			return states[i].name;
	return NULL;
}

__u32 sk_state_mask(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(states); i++)
		if (!strcmp(name, states[i].name))
			/* ss has one word for both kinds of a connection that is not there yet */
			return states[i].mask == BIT(3) ? BIT(3) | BIT(12) : states[i].mask;
	return 0;
}

/* --- words --- */

enum token {
	T_END,
	T_OPEN,
	T_CLOSE,
	T_AND,
	T_OR,
	T_NOT,
	T_CMP,				/* cmp says which */
	T_WORD,
};

enum cmp { EQ, NE, LT, LE, GT, GE };

static const struct {
	const char *text;
	enum token token;
	enum cmp cmp;
} fixed[] = {
	/* the longer of two that begin alike comes first */
	{"&&", T_AND, EQ}, {"&", T_AND, EQ},  {"||", T_OR, EQ},	 {"|", T_OR, EQ},
	{"!=", T_CMP, NE}, {"!", T_NOT, EQ},  {"==", T_CMP, EQ}, {"=", T_CMP, EQ},
	{"<=", T_CMP, LE}, {"<", T_CMP, LT},  {">=", T_CMP, GE}, {">", T_CMP, GT},
	{"(", T_OPEN, EQ}, {")", T_CLOSE, EQ},
};

static const struct {
	const char *text;
	enum token token;
	enum cmp cmp;
} words[] = {
	{"and", T_AND, EQ}, {"or", T_OR, EQ},  {"not", T_NOT, EQ}, {"eq", T_CMP, EQ},
	{"ne", T_CMP, NE},  {"neq", T_CMP, NE}, {"lt", T_CMP, LT},  {"le", T_CMP, LE},
	{"gt", T_CMP, GT},  {"ge", T_CMP, GE},
};

struct node {
	enum { LEAF, AND, OR } kind;
	bool negate;			/* of a leaf */
	bool narrow;			/* of a leaf: asks for something in particular */
	struct sk_op op;
	struct node *a, *b;
};

/* Each leaf and each joint of two: an expression of n predicates has 2n - 1 nodes. */
#define NODES_MAX (2 * SK_OPS_MAX)
#define DEPTH_MAX 64

struct parser {
	const char *text, *at;		/* at: behind the current token */
	size_t col;			/* of the current token */
	enum token token;
	enum cmp cmp;
	char word[256];
	unsigned int depth;
	__u32 nnodes, nleaves;
	struct node node[NODES_MAX];
	__u32 states, excluded;
	struct sk_error *err;
	bool failed;
};

static void __attribute__((format(printf, 3, 4)))
wrong(struct parser *p, size_t col, const char *fmt, ...)
{
	va_list ap;

	if (p->failed)
		return;
	p->failed = true;
	p->err->col = col;
	va_start(ap, fmt);
	vsnprintf(p->err->msg, sizeof(p->err->msg), fmt, ap);
	va_end(ap);
}

static void next(struct parser *p)
{
	size_t len;

	while (isspace((unsigned char)*p->at))
		p->at++;
	p->col = p->at - p->text;
	p->token = T_END;
	if (!*p->at)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
		len = strlen(fixed[i].text);
		if (strncmp(p->at, fixed[i].text, len))
			continue;
		p->token = fixed[i].token;
		p->cmp = fixed[i].cmp;
		p->at += len;
		return;
	}
	p->token = T_WORD;
	len = strcspn(p->at, " \t\n\v\f\r&|!=<>()");
	if (len >= sizeof(p->word)) {
		wrong(p, p->col, "a word of more than %zu bytes", sizeof(p->word) - 1);
		len = 0;
	}
	memcpy(p->word, p->at, len);
	p->word[len] = 0;
	p->at += len;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (strcmp(p->word, words[i].text))
			continue;
		p->token = words[i].token;
		p->cmp = words[i].cmp;
	}
}

static bool is(const struct parser *p, const char *word)
{
	return p->token == T_WORD && !strcmp(p->word, word);
}

/* --- values --- */

static bool port_parse(const char *text, __u16 *port)
{
	__u32 n;

	if (!parse_u32(text, 0, 65535, &n))
		return false;
	*port = n;
	return true;
}

/* ADDR, [ADDR] or *, without a port: family 0 for *. */
static bool addr_parse(const char *text, __u8 addr[16], __u8 *family)
{
	static const __u8 mapped[12] = {[10] = 0xff, [11] = 0xff};
	char buf[INET6_ADDRSTRLEN + 2];
	size_t len = strlen(text);

	if (!strcmp(text, "*")) {
		*family = 0;
		return true;
	}
	if (len >= sizeof(buf))
		return false;
	if (*text == '[') {
		if (text[len - 1] != ']')
			return false;
		memcpy(buf, text + 1, len - 2);
		buf[len - 2] = 0;
		*family = 6;
		return inet_pton(AF_INET6, buf, addr) == 1;
	}
	if (inet_pton(AF_INET, text, addr + 12) == 1) {
		memcpy(addr, mapped, sizeof(mapped));
		*family = 4;
		return true;
	}
	*family = 6;
	return inet_pton(AF_INET6, text, addr) == 1;
}

/*
 * The port behind the last colon, which is cut off. True: there is none, or it is right.
 * Without brackets an address of two colons has no port.
 */
static bool port_cut(char *text, bool *has, __u16 *port)
{
	char *colon = strrchr(text, ':'), *bracket = strrchr(text, ']');

	*has = colon && (bracket ? colon > bracket : strchr(text, ':') == colon);
	if (!*has)
		return true;
	*colon++ = 0;
	return port_parse(colon, port);
}

bool sk_endpoint_parse(const char *text, __u8 addr[16], __u16 *port)
{
	char buf[INET6_ADDRSTRLEN + 16];
	__u8 family;
	bool has;

	if (strlen(text) >= sizeof(buf))
		return false;
	strcpy(buf, text);
	return port_cut(buf, &has, port) && has && *port && addr_parse(buf, addr, &family) &&
	       family;
}

/* A cgroup's id is the number of its directory, which is named from cgroup2's root, as in ss. */
static bool cgroup_id(const char *name, __u64 *id)
{
	char path[512];
	struct stat st;

	snprintf(path, sizeof(path), "/sys/fs/cgroup/%s", name);
	if (stat(path, &st) && stat(name, &st))
		return false;
	*id = st.st_ino;
	return S_ISDIR(st.st_mode);
}

static bool number(const char *text, int base, __u64 max, __u64 *value)
{
	char *end;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	*value = strtoull(text, &end, base);
	return !errno && !*end && *value <= max;
}

static bool mark_parse(char *text, __u64 *value)
{
	__u64 mark, mask = UINT32_MAX;
	char *slash = strchr(text, '/');

	if (slash)
		*slash++ = 0;
	if (!number(text, 0, UINT32_MAX, &mark) || (slash && !number(slash, 0, UINT32_MAX, &mask)))
		return false;
	*value = mask << 32 | (mark & mask);
	return true;
}

/* --- the tree --- */

static struct node *node(struct parser *p, int kind)
{
	static struct node spare;
	struct node *n = &spare;

	if (kind == LEAF && ++p->nleaves > SK_OPS_MAX)
		wrong(p, p->col, "more than %d predicates; give backends in a file", SK_OPS_MAX);
	else
		n = &p->node[p->nnodes++];
	memset(n, 0, sizeof(*n));
	n->kind = kind;
	return n;
}

static struct node *join(struct parser *p, int kind, struct node *a, struct node *b)
{
	struct node *n;

	if (p->failed || !a || !b)
		return a ?: b;
	n = node(p, kind);
	n->a = a;
	n->b = b;
	return n;
}

static void ports(struct node *n, enum cmp how, __u16 port)
{
	n->op.lo = how == GT || how == GE ? port : 0;
	n->op.hi = how == LT || how == LE ? port : 65535;
	if (how == EQ || how == NE)
		n->op.lo = n->op.hi = port;
	/* above 65535 and below 0 there is none: lo > hi never matches */
	if ((how == GT && port == 65535) || (how == LT && !port)) {
		n->op.lo = 1;
		n->op.hi = 0;
	} else {
		n->op.lo += how == GT;
		n->op.hi -= how == LT;
	}
	n->negate = how == NE;
	n->narrow = n->op.lo > 0 || n->op.hi < 65535;
}

/* dst|src VALUE: an address, a port or both */
static struct node *host(struct parser *p, bool dst, enum cmp cmp, size_t col)
{
	struct node *n = NULL, *m = NULL;
	__u8 addr[16] = {}, family = 0;
	__u16 port = 0;
	__u32 bits = 0;
	bool has;
	char *slash;

	if (!port_cut(p->word, &has, &port)) {
		wrong(p, col, "%s: not a port", p->word + strlen(p->word) + 1);
		return NULL;
	}
	slash = strchr(p->word, '/');
	if (slash)
		*slash++ = 0;
	if (*p->word && !addr_parse(p->word, addr, &family)) {
		wrong(p, col, "%s: not an address; names are not resolved", p->word);
		return NULL;
	}
	if (slash && (!family || !parse_u32(slash, 0, family == 4 ? 32 : 128, &bits))) {
		wrong(p, col, "/%s: not the length of a prefix", slash);
		return NULL;
	}
	if (family) {
		n = node(p, LEAF);
		n->op.what = dst ? SK_DST : SK_SRC;
		n->op.family = family;
		n->op.bits = (slash ? bits : family == 4 ? 32 : 128) + (family == 4 ? 96 : 0);
		memcpy(n->op.addr, addr, sizeof(addr));
		n->negate = cmp == NE;
		n->narrow = n->op.bits > (family == 4 ? 96 : 0);
	}
	if (has) {
		m = node(p, LEAF);
		m->op.what = dst ? SK_DPORT : SK_SPORT;
		ports(m, cmp, port);
	}
	if (!n && !m)
		wrong(p, col, "%s: neither address nor port", p->word);
	return join(p, cmp == NE ? OR : AND, n, m);
}

static struct node *predicate(struct parser *p)
{
	static const char *const names[] = {"dst", "src",    "dport",  "sport",	"service",
					    "dev", "fwmark", "cgroup", "cookie"};
	size_t col = p->col, i = 0;
	enum cmp cmp = EQ;
	struct node *n;
	char *value;
	__u16 port;
	bool has;

	while (i < ARRAY_SIZE(names) && !is(p, names[i]))
		i++;
	if (p->token == T_END || i == ARRAY_SIZE(names)) {
		if (p->token == T_WORD)
			wrong(p, col, "%s: expected dst, src, dport, sport, service, dev, fwmark, "
			      "cgroup, cookie or state", p->word);
		else
			wrong(p, col, "expected dst, src, dport, sport, service, dev, fwmark, "
			      "cgroup, cookie or state here");
		return NULL;
	}
	next(p);
	if (p->token == T_CMP) {
		cmp = p->cmp;
		if (cmp > NE && i != 2 && i != 3)
			wrong(p, p->col, "only ports are compared by size");
		next(p);
	}
	if (p->token != T_WORD) {
		wrong(p, p->col, "%s: of which value?", names[i]);
		return NULL;
	}
	col = p->col;
	if (i < 2) {
		n = host(p, i == 0, cmp, col);
		next(p);
		return n;
	}
	n = node(p, LEAF);
	value = p->word;
	switch (i) {
	case 2:
	case 3:
		n->op.what = i == 2 ? SK_DPORT : SK_SPORT;
		value += *value == ':';
		if (!port_parse(value, &port))
			wrong(p, col, "%s: not a port; names are not resolved", value);
		else
			ports(n, cmp, port);
		break;
	case 4:
		n->op.what = SK_SERVICE;
		if (!port_cut(value, &has, &n->op.lo) ||
		    !addr_parse(value, n->op.addr, &n->op.family) || !n->op.family)
			wrong(p, col, "%s: not ADDR or ADDR:PORT; names are not resolved", value);
		break;
	case 5:
		n->op.what = SK_DEV;
		n->op.value = if_nametoindex(value);
		if (!n->op.value)
			wrong(p, col, "%s: no such device here", value);
		break;
	case 6:
		n->op.what = SK_MARK;
		if (!mark_parse(value, &n->op.value))
			wrong(p, col, "%s: not a mark, or mark and mask", value);
		n->narrow = n->op.value >> 32;
		break;
	case 7:
		n->op.what = SK_CGROUP;
		if (!cgroup_id(value, &n->op.value))
			wrong(p, col, "%s: no such cgroup", value);
		break;
	default:
		n->op.what = SK_COOKIE;
		if (!number(value, 0, UINT64_MAX, &n->op.value))
			wrong(p, col, "%s: not a cookie", value);
	}
	if (i > 3) {
		n->negate = cmp == NE;
		n->narrow |= i != 6;
	}
	next(p);
	return n;
}

static struct node *expression(struct parser *p);

/* Not of an expression: by De Morgan, down to the leaves. */
static void negate(struct node *n)
{
	if (n->kind == LEAF) {
		n->negate = !n->negate;
		return;
	}
	n->kind = n->kind == AND ? OR : AND;
	negate(n->a);
	negate(n->b);
}

static struct node *factor(struct parser *p)
{
	struct node *n = NULL;
	bool not = false;

	while (p->token == T_NOT) {
		not = !not;
		next(p);
	}
	if (p->token == T_OPEN) {
		if (++p->depth > DEPTH_MAX) {
			wrong(p, p->col, "more than %d parentheses in each other", DEPTH_MAX);
			return NULL;
		}
		next(p);
		n = expression(p);
		p->depth--;
		if (p->token != T_CLOSE)
			wrong(p, p->col, "expected )");
		next(p);
	} else {
		n = predicate(p);
	}
	if (n && not && !p->failed)
		negate(n);
	return n;
}

/* state and exclude stand between predicates, but limit the whole. */
static bool state(struct parser *p)
{
	bool exclude = is(p, "exclude");
	__u32 mask;

	if (!exclude && !is(p, "state"))
		return false;
	if (p->depth)
		wrong(p, p->col, "%s: not in parentheses", p->word);
	next(p);
	mask = p->token == T_WORD ? sk_state_mask(p->word) : 0;
	if (!mask) {
		wrong(p, p->col, "%s: not a state; they are named as in ss(8)",
		      p->token == T_WORD ? p->word : "");
		return false;
	}
	*(exclude ? &p->excluded : &p->states) |= mask;
	next(p);
	return true;
}

static struct node *term(struct parser *p)
{
	struct node *n = NULL;

	while (!p->failed) {
		while (state(p))
			;
		if (p->token == T_END || p->token == T_CLOSE || p->token == T_OR)
			break;
		n = join(p, AND, n, factor(p));
		while (state(p))
			;
		if (p->token != T_AND)
			continue;
		next(p);
		if (p->token == T_END || p->token == T_CLOSE || p->token == T_OR)
			wrong(p, p->col, "expected a predicate behind `and`");
	}
	return n;
}

static struct node *expression(struct parser *p)
{
	struct node *n = term(p);

	while (p->token == T_OR && !p->failed) {
		struct node *m;

		if (!n)
			wrong(p, p->col, "expected a predicate in front of `or`");
		next(p);
		m = term(p);
		if (!m)
			wrong(p, p->col, "expected a predicate behind `or`");
		n = join(p, OR, n, m);
	}
	if (p->depth && !n)
		wrong(p, p->col, "expected a predicate in the parentheses");
	return n;
}

/* --- the ops --- */

/* From the last to the first, so that where an op leads to is known when it is written. */
static __u16 emit(const struct node *n, struct sk_filter *f, __u32 *free, __u16 yes, __u16 no)
{
	struct sk_op *op;

	if (n->kind == AND)
		return emit(n->a, f, free, emit(n->b, f, free, yes, no), no);
	if (n->kind == OR)
		return emit(n->a, f, free, yes, emit(n->b, f, free, yes, no));
	op = &f->op[--*free];
	*op = n->op;
	op->yes = n->negate ? no : yes;
	op->no = n->negate ? yes : no;
	return *free;
}

static bool narrow(const struct node *n)
{
	if (n->kind == AND)
		return narrow(n->a) || narrow(n->b);
	if (n->kind == OR)
		return narrow(n->a) && narrow(n->b);
	return n->narrow && !n->negate;
}

int sk_filter_parse(const char *text, struct sk_filter *filter, struct sk_error *err)
{
	struct parser *p = calloc(1, sizeof(*p));
	struct node *n;
	__u32 free_op;
	int rc = 0;

	memset(filter, 0, sizeof(*filter));
	if (!p)
		return -ENOMEM;
	p->text = p->at = text;
	p->err = err;
	next(p);
	n = expression(p);
	if (p->token == T_CLOSE)
		wrong(p, p->col, "nothing was opened that ) could close");
	if (p->failed) {
		rc = -EINVAL;
	} else {
		filter->states = (p->states ?: p->excluded ? SK_STATES_ALL : 0) & ~p->excluded;
		if ((p->states || p->excluded) && !filter->states) {
			wrong(p, 0, "no state is left");
			rc = -EINVAL;
		}
	}
	if (!rc && n) {
		filter->nops = free_op = p->nleaves;
		emit(n, filter, &free_op, SK_ACCEPT, SK_REJECT);
		filter->narrow = narrow(n);
		for (__u32 i = 0; i < filter->nops; i++)
			filter->records |= filter->op[i].what == SK_SERVICE;
	}
	free(p);
	return rc;
}
