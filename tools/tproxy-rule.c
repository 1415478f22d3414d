// SPDX-License-Identifier: GPL-2.0-only
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <linux/magic.h>

#include "common.h"
#include "tproxy-rule.h"

static const __u8 v4_mapped[12] = {[10] = 0xff, [11] = 0xff};

/* The family, 0: no address. */
static int addr_parse(const char *text, size_t len, struct tp_addr *addr)
{
	char copy[INET6_ADDRSTRLEN];

	memset(addr, 0, sizeof(*addr));
	if (len >= sizeof(copy))
		return 0;
	memcpy(copy, text, len);
	copy[len] = 0;
	if (inet_pton(AF_INET, copy, addr->b + 12) == 1) {
		memcpy(addr->b, v4_mapped, sizeof(v4_mapped));
		return 4;
	}
	return inet_pton(AF_INET6, copy, addr->b) == 1 ? 6 : 0;
}

static bool number(const char *text, size_t len, __u32 min, __u32 max, __u32 *n)
{
	char copy[16];

	if (!len || len >= sizeof(copy))
		return false;
	memcpy(copy, text, len);
	copy[len] = 0;
	return parse_u32(copy, min, max, n);
}

/* --- rules --- */

static const char *cidr(const char *text, size_t len, struct tp_rule *r)
{
	const char *slash = memchr(text, '/', len);
	size_t addr_len = slash ? (size_t)(slash - text) : len;
	__u32 bits, max, family;

	family = addr_parse(text, addr_len, &r->addr);
	if (!family)
		return "not an address, nor a CIDR, nor any";
	max = family == 4 ? 32 : 128;
	bits = max;
	if (slash && !number(slash + 1, len - addr_len - 1, 0, max, &bits))
		return "the length of the prefix is wrong";
	r->family = family;
	r->len = bits;
	bits += 128 - max;
	for (__u32 i = 0; i < 16; i++) {
		r->mask.b[i] = bits >= 8 * (i + 1) ? 0xff :
			       bits <= 8 * i	   ? 0 :
						     0xff << (8 - bits % 8);
		if (r->addr.b[i] & ~r->mask.b[i])
			return "the address has bits beyond its prefix";
	}
	return NULL;
}

/* Where the ports begin, behind their colon; NULL: there are none. *len: of what is before. */
static const char *split(const char *text, size_t *len)
{
	const char *colon = strchr(text, ':');

	if (*text == '[') {
		const char *end = strchr(text, ']');

		colon = end ? strchr(end, ':') : NULL;
	} else if (colon && strchr(colon + 1, ':')) {
		colon = NULL; /* an IPv6 address */
	}
	*len = colon ? (size_t)(colon - text) : strlen(text);
	return colon ? colon + 1 : NULL;
}

size_t tp_rule_parse(const char *text, __u8 protos, bool except, struct tp_rule *rules, size_t max,
		     const char **why)
{
	struct tp_rule r = {.protos = protos, .except = except, .to = 65535};
	char plain[INET6_ADDRSTRLEN + 8];
	const char *ports;
	size_t len, n = 0;

	*why = NULL;
	ports = split(text, &len);
	if (len != 3 || memcmp(text, "any", 3)) {
		const char *end = *text == '[' ? memchr(text, ']', len) : NULL;

		/* brackets are around the address, or around the length of the prefix too */
		if (end && (end[1] == '/' || end + 1 == text + len) && len - 2 < sizeof(plain)) {
			memcpy(plain, text + 1, end - text - 1);
			memcpy(plain + (end - text - 1), end + 1, text + len - end - 1);
			*why = cidr(plain, len - 2, &r);
			if (!*why && r.family != 6)
				*why = "brackets are for IPv6";
		} else {
			*why = cidr(text, len, &r);
		}
		if (*why)
			return 0;
	}
	if (!ports) {
		if (max < 1)
			*why = "too many rules";
		else
			rules[n++] = r;
		return n;
	}
	for (;;) {
		size_t end = strcspn(ports, ","), dash = strcspn(ports, ",-");
		__u32 from = 0, to;

		bool ok = number(ports, dash, 0, 65535, &from);

		to = from;
		if (ok && dash < end)
			ok = number(ports + dash + 1, end - dash - 1, from, 65535, &to);
		if (!ok) {
			*why = "ports are a list of numbers and ranges, such as 80,8000-8080";
			return 0;
		}
		if (n == max) {
			*why = "too many rules";
			return 0;
		}
		r.from = from;
		r.to = to;
		rules[n++] = r;
		if (!ports[end])
			return n;
		ports += end + 1;
	}
}

const char *tp_addr_text(const struct tp_addr *addr, char text[46])
{
	if (!memcmp(addr->b, v4_mapped, sizeof(v4_mapped)))
		return inet_ntop(AF_INET, addr->b + 12, text, 46);
	return inet_ntop(AF_INET6, addr->b, text, 46);
}

static bool has_ports(const struct tp_rule *r)
{
	return r->from || r->to != 65535;
}

const char *tp_cidr_text(const struct tp_rule *r, char text[TP_RULE_TEXT])
{
	bool v6 = r->family == 6, brackets = v6 && has_ports(r);
	char addr[46];

	if (!r->family)
		return strcpy(text, "any");
	if (v6)
		inet_ntop(AF_INET6, r->addr.b, addr, sizeof(addr));
	else
		inet_ntop(AF_INET, r->addr.b + 12, addr, sizeof(addr));
	snprintf(text, TP_RULE_TEXT, "%s%s/%u%s", brackets ? "[" : "", addr, r->len,
		 brackets ? "]" : "");
	return text;
}

const char *tp_rule_text(const struct tp_rule *r, char text[TP_RULE_TEXT])
{
	static const char *const protos[] = {"", "tcp", "udp", "both"};
	char where[TP_RULE_TEXT], ports[16] = "";

	if (has_ports(r) && r->from == r->to)
		snprintf(ports, sizeof(ports), ":%u", r->from);
	else if (has_ports(r))
		snprintf(ports, sizeof(ports), ":%u-%u", r->from, r->to);
	snprintf(text, TP_RULE_TEXT, "%s%s %.60s%s", r->except ? "except " : "",
		 protos[r->protos & TP_BOTH], tp_cidr_text(r, where), ports);
	return text;
}

/* --- senders --- */

/* cgroup v2 is there, or below it on a system with both. */
static const char *const cgroups[] = {"/sys/fs/cgroup/unified", "/sys/fs/cgroup"};

static const char *cgroup_parse(const char *path, struct tp_sender *s)
{
	struct {
		struct file_handle h;
		__u64 id;
	} handle = {.h.handle_bytes = sizeof(__u64)};
	char full[PATH_MAX];
	const char *root = NULL, *rest;
	struct statfs st;
	int mount;

	for (size_t i = 0; !root && i < ARRAY_SIZE(cgroups); i++)
		if (!statfs(cgroups[i], &st) && st.f_type == CGROUP2_SUPER_MAGIC)
			root = cgroups[i];
	if (!root)
		return "cgroup v2 is not mounted at /sys/fs/cgroup";
	if (!strncmp(path, root, strlen(root)) && strchr("/", path[strlen(root)]))
		path += strlen(root);
	if (snprintf(full, sizeof(full), "%s/%s", root, path) >= (int)sizeof(full))
		return "the path is too long";
	if (statfs(full, &st) || st.f_type != CGROUP2_SUPER_MAGIC ||
	    name_to_handle_at(AT_FDCWD, full, &handle.h, &mount, 0))
		return "there is no such cgroup";
	s->kind = TP_BY_CGROUP;
	memcpy(&s->value, handle.h.f_handle, sizeof(s->value));
	s->more = 0;
	for (rest = path; *rest; rest += strcspn(rest, "/")) {
		rest += strspn(rest, "/");
		if (!strncmp(rest, "..", 2) || !strncmp(rest, "./", 2))
			return "the path must be a plain one";
		s->more += !!*rest;
	}
	return NULL;
}

static const char *uid_parse(const char *text, struct tp_sender *s)
{
	const struct passwd *pw;
	__u32 uid;

	/* what the kernel says of a packet without a socket is no user to tell apart */
	if (!parse_u32(text, 0, UINT_MAX - 1, &uid)) {
		pw = getpwnam(text);
		if (!pw)
			return "there is no such user";
		uid = pw->pw_uid;
	}
	if (uid == 65534)
		return "user 65534 is also what packets without a socket have";
	s->kind = TP_BY_UID;
	s->value = uid;
	s->more = 0;
	return NULL;
}

static const char *mark_parse(const char *text, struct tp_sender *s)
{
	unsigned long long mark, mask = 0xffffffff;
	char *end;

	errno = 0;
	mark = strtoull(text, &end, 0);
	if (end != text && *end == '/') {
		text = end + 1;
		mask = strtoull(text, &end, 0);
	}
	if (errno || end == text || *end || *text == '-' || mark > UINT_MAX || mask > UINT_MAX ||
	    !mask || mark & ~mask)
		return "a mark is a number, or a number and a mask that holds it, such as "
		       "0x100/0xf00";
	s->kind = TP_BY_MARK;
	s->value = mark;
	s->more = mask;
	return NULL;
}

bool tp_sender_parse(const char *text, struct tp_sender *sender, char name[TP_NAME],
		     const char **why)
{
	static const struct {
		const char *word;
		const char *(*parse)(const char *text, struct tp_sender *s);
	} kinds[] = {{"mark:", mark_parse}, {"cgroup:", cgroup_parse}, {"uid:", uid_parse}};

	*why = "";
	memset(sender, 0, sizeof(*sender));
	memset(name, 0, TP_NAME);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (strncmp(text, kinds[i].word, strlen(kinds[i].word)))
			continue;
		*why = strlen(text) < TP_NAME ?
			       kinds[i].parse(text + strlen(kinds[i].word), sender) :
			       "too long";
		snprintf(name, TP_NAME, "%s", text);
		return !*why;
	}
	return false;
}

/* --- where to --- */

bool tp_to_parse(const char *text, struct tp_to to[2])
{
	const char *colon = strrchr(text, ':');
	struct tp_addr addr;
	__u32 port;
	int family;
	size_t len;

	if (!colon || !parse_u32(colon + 1, 1, 65535, &port))
		return false;
	len = colon - text;
	if (!len) {
		for (int i = 0; i < 2; i++)
			to[i].port = port;
		addr_parse("127.0.0.1", 9, &to[0].addr);
		addr_parse("::1", 3, &to[1].addr);
		return true;
	}
	if (*text == '[') {
		if (text[len - 1] != ']' || len < 4)
			return false;
		family = addr_parse(text + 1, len - 2, &addr);
	} else {
		family = addr_parse(text, len, &addr);
	}
	if (family != (*text == '[' ? 6 : 4))
		return false;
	to[family == 6].addr = addr;
	to[family == 6].port = port;
	return true;
}

const char *tp_to_text(const struct tp_to *to, char text[TP_RULE_TEXT])
{
	bool v4 = !memcmp(to->addr.b, v4_mapped, sizeof(v4_mapped));
	char addr[46];

	snprintf(text, TP_RULE_TEXT, v4 ? "%s:%u" : "[%s]:%u", tp_addr_text(&to->addr, addr),
		 to->port);
	return text;
}

/* --- sets --- */

static __u32 find(const struct tp_set *set, const struct tp_rule *rule)
{
	__u32 i = 0;

	while (i < set->conf.nrules && memcmp(&set->rules[i], rule, sizeof(*rule)))
		i++;
	return i;
}

int tp_set_add(struct tp_set *set, const struct tp_rule *rule)
{
	__u32 n = set->conf.nrules, at = n;

	if (find(set, rule) < n)
		return 0;
	if (n == TP_RULES)
		return -1;
	if (rule->except)
		for (at = 0; at < n && set->rules[at].except;)
			at++;
	memmove(&set->rules[at + 1], &set->rules[at], (n - at) * sizeof(*rule));
	set->rules[at] = *rule;
	set->conf.nrules++;
	return 1;
}

int tp_set_del(struct tp_set *set, const struct tp_rule *rule)
{
	__u32 at = find(set, rule), n = set->conf.nrules;

	if (at == n)
		return 0;
	memmove(&set->rules[at], &set->rules[at + 1], (n - at - 1) * sizeof(*rule));
	memset(&set->rules[n - 1], 0, sizeof(*rule));
	set->conf.nrules--;
	return 1;
}

static __u32 find_sender(const struct tp_set *set, const struct tp_sender *sender)
{
	__u32 i = 0;

	while (i < set->conf.nsenders && memcmp(&set->senders[i], sender, sizeof(*sender)))
		i++;
	return i;
}

int tp_set_add_sender(struct tp_set *set, const struct tp_sender *sender, const char *name)
{
	__u32 n = set->conf.nsenders;

	if (find_sender(set, sender) < n)
		return 0;
	if (n == TP_SENDERS)
		return -1;
	set->senders[n] = *sender;
	memset(set->names[n], 0, TP_NAME);
	snprintf(set->names[n], TP_NAME, "%s", name);
	set->conf.nsenders++;
	return 1;
}

int tp_set_del_sender(struct tp_set *set, const struct tp_sender *sender)
{
	__u32 at = find_sender(set, sender), n = set->conf.nsenders;

	if (at == n)
		return 0;
	memmove(&set->senders[at], &set->senders[at + 1], (n - at - 1) * sizeof(*sender));
	memmove(set->names[at], set->names[at + 1], (n - at - 1) * TP_NAME);
	memset(&set->senders[n - 1], 0, sizeof(*sender));
	memset(set->names[n - 1], 0, TP_NAME);
	set->conf.nsenders--;
	return 1;
}
