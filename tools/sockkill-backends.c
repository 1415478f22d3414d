// SPDX-License-Identifier: GPL-2.0-only
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "sockkill-backends.h"
#include "sockkill-filter.h"

/* --- lists --- */

static size_t place(const struct sk_backends *list, const struct sk_endpoint *e)
{
	size_t lo = 0, hi = list->n, mid;

	while (lo < hi) {
		mid = lo + (hi - lo) / 2;
		if (memcmp(&list->v[mid], e, sizeof(*e)) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

bool sk_backends_has(const struct sk_backends *list, const struct sk_endpoint *e)
{
	size_t i = place(list, e);

	return i < list->n && !memcmp(&list->v[i], e, sizeof(*e));
}

int sk_backends_add(struct sk_backends *list, const struct sk_endpoint *e)
{
	struct sk_endpoint *more;
	size_t i = place(list, e);

	if (i < list->n && !memcmp(&list->v[i], e, sizeof(*e)))
		return 0;
	if (list->n == list->room) {
		more = realloc(list->v, (list->room ? 2 * list->room : 64) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		list->v = more;
		list->room = list->room ? 2 * list->room : 64;
	}
	memmove(&list->v[i + 1], &list->v[i], (list->n - i) * sizeof(*e));
	list->v[i] = *e;
	list->n++;
	return 0;
}

void sk_backends_del(struct sk_backends *list, const struct sk_endpoint *e)
{
	size_t i = place(list, e);

	if (i == list->n || memcmp(&list->v[i], e, sizeof(*e)))
		return;
	list->n--;
	memmove(&list->v[i], &list->v[i + 1], (list->n - i) * sizeof(*e));
}

void sk_backends_free(struct sk_backends *list)
{
	free(list->v);
	*list = (struct sk_backends){};
}

const char *sk_endpoint_text(char out[SK_ENDPOINT_LEN], const struct sk_endpoint *e)
{
	bool v4 = IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)e->addr);
	char addr[INET6_ADDRSTRLEN];

	inet_ntop(v4 ? AF_INET : AF_INET6, e->addr + (v4 ? 12 : 0), addr, sizeof(addr));
	snprintf(out, SK_ENDPOINT_LEN, v4 ? "%s:%u/%s" : "[%s]:%u/%s", addr, ntohs(e->port),
		 e->proto == IPPROTO_TCP ? "tcp" : "udp");
	return out;
}

/* --- text --- */

static int __attribute__((format(printf, 3, 4)))
wrong(struct sk_list_error *err, unsigned int line, const char *fmt, ...)
{
	va_list ap;

	err->line = line;
	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* One backend is one or two entries. */
static int add_text(struct sk_backends *list, const char *text, unsigned int line,
		    struct sk_list_error *err)
{
	char buf[SK_ENDPOINT_LEN], *slash;
	struct sk_endpoint e = {};
	bool tcp, udp;
	__u16 port;
	int rc = 0;

	if (strlen(text) >= sizeof(buf))
		return wrong(err, line, "%.40s...: too long for an address and a port", text);
	strcpy(buf, text);
	slash = strrchr(buf, '/');
	if (slash)
		*slash++ = 0;
	tcp = !slash || !strcmp(slash, "tcp");
	udp = !slash || !strcmp(slash, "udp");
	if (!tcp && !udp)
		return wrong(err, line, "%s: /%s is neither /tcp nor /udp", text, slash);
	if (!sk_endpoint_parse(buf, e.addr, &port))
		return wrong(err, line, "%s: not ADDR:PORT or [ADDR]:PORT; names are not resolved",
			     text);
	if (list->n + tcp + udp > SK_BACKENDS_MAX)
		return wrong(err, line, "more than %d backends, of which one without /tcp or /udp "
			     "counts twice", SK_BACKENDS_MAX);
	e.port = htons(port);
	if (tcp) {
		e.proto = IPPROTO_TCP;
		rc = sk_backends_add(list, &e);
	}
	if (!rc && udp) {
		e.proto = IPPROTO_UDP;
		rc = sk_backends_add(list, &e);
	}
	return rc;
}

static int add_json(struct sk_backends *list, const json_t *array, const char *what,
		    unsigned int line, struct sk_list_error *err)
{
	const json_t *item;
	size_t i;
	int rc = 0;

	if (!json_is_array(array))
		return wrong(err, line, "%s: not a list of \"ADDR:PORT\"", what);
	json_array_foreach(array, i, item) {
		if (!json_is_string(item))
			return wrong(err, line, "%s: entry %zu is no string", what, i + 1);
		rc = add_text(list, json_string_value(item), line, err);
		if (rc)
			break;
	}
	return rc;
}

static json_t *load(const char *text, struct sk_list_error *err)
{
	json_error_t at;
	json_t *doc = json_loads(text, JSON_REJECT_DUPLICATES, &at);

	if (!doc)
		wrong(err, at.line, "not JSON: %s", at.text);
	return doc;
}

static int parse_json(const char *text, struct sk_backends *list, struct sk_list_error *err)
{
	json_t *doc = load(text, err), *array = doc;
	int rc;

	if (!doc)
		return -EINVAL;
	if (json_is_object(doc)) {
		array = json_object_get(doc, "backends");
		if (json_object_size(doc) != 1 || !array) {
			json_decref(doc);
			return wrong(err, 0, "expected {\"backends\": [...]} and nothing else");
		}
	}
	rc = add_json(list, array, "backends", 0, err);
	json_decref(doc);
	return rc;
}

/* Without space at either end. */
static char *trim(char *s)
{
	char *end;

	while (isspace((unsigned char)*s))
		s++;
	end = s + strlen(s);
	while (end > s && isspace((unsigned char)end[-1]))
		*--end = 0;
	return s;
}

/* A [ is also the first letter of an IPv6 address. */
static bool is_json(const char *text)
{
	text += strspn(text, " \t\r\n");
	if (*text == '[') {
		text += 1 + strspn(text + 1, " \t\r\n");
		return *text == '"' || *text == ']';
	}
	return *text == '{';
}

int sk_backends_parse(const char *text, struct sk_backends *list, struct sk_list_error *err)
{
	char *copy, *rest, *line, *hash;
	unsigned int n = 0;
	int rc = 0;

	*list = (struct sk_backends){};
	if (is_json(text)) {
		rc = parse_json(text, list, err);
	} else {
		copy = rest = strdup(text);
		if (!copy)
			return -ENOMEM;
		while (!rc && (line = strsep(&rest, "\n"))) {
			n++;
			hash = strchr(line, '#');
			if (hash)
				*hash = 0;
			line = trim(line);
			if (*line)
				rc = add_text(list, line, n, err);
		}
		free(copy);
	}
	if (rc)
		sk_backends_free(list);
	return rc;
}

static int parse_change(char *line, struct sk_change *c, struct sk_list_error *err)
{
	const char *key;
	json_t *doc, *value;
	int rc = 0;

	if (*line == '+' || *line == '-')
		return add_text(*line == '+' ? &c->add : &c->del, trim(line + 1), 0, err);
	if (*line != '{')
		return wrong(err, 0, "%.60s: expected + ADDR:PORT, - ADDR:PORT or {...}", line);
	doc = load(line, err);
	if (!doc)
		return -EINVAL;
	json_object_foreach(doc, key, value) {
		if (!strcmp(key, "add"))
			rc = add_json(&c->add, value, key, 0, err);
		else if (!strcmp(key, "del"))
			rc = add_json(&c->del, value, key, 0, err);
		else if (!strcmp(key, "backends") && json_object_size(doc) == 1)
			rc = add_json(&c->add, value, key, 0, err);
		else
			rc = wrong(err, 0, "\"%s\": expected \"add\" and \"del\", or \"backends\" "
				   "alone", key);
		c->whole |= !strcmp(key, "backends");
		if (rc)
			break;
	}
	json_decref(doc);
	return rc;
}

int sk_change_parse(const char *line, struct sk_change *change, struct sk_list_error *err)
{
	char *copy = strdup(line), *text;
	int rc = 0;

	*change = (struct sk_change){};
	if (!copy)
		return -ENOMEM;
	text = trim(copy);
	if (*text && *text != '#')
		rc = parse_change(text, change, err);
	free(copy);
	if (rc) {
		sk_backends_free(&change->add);
		sk_backends_free(&change->del);
	}
	return rc;
}
