// SPDX-License-Identifier: GPL-2.0-only
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sockkill-verbs.h"

#define ENDPOINT_LEN (INET6_ADDRSTRLEN + 8)

static const char *proto_name(__u8 proto)
{
	return proto == IPPROTO_TCP ? "tcp" : "udp";
}

/* IPv4 on an IPv6 socket is shown as ss does: [::ffff:10.0.0.1]. */
static void address(char out[INET6_ADDRSTRLEN], const struct sk_victim *v, const __u8 *addr)
{
	if (v->family == AF_INET)
		inet_ntop(AF_INET, addr + 12, out, INET6_ADDRSTRLEN);
	else
		inet_ntop(AF_INET6, addr, out, INET6_ADDRSTRLEN);
}

static const char *endpoint(char out[ENDPOINT_LEN], const struct sk_victim *v, const __u8 *addr,
			    __be16 port)
{
	char text[INET6_ADDRSTRLEN];

	address(text, v, addr);
	snprintf(out, ENDPOINT_LEN, v->family == AF_INET ? "%s:%u" : "[%s]:%u", text, ntohs(port));
	return out;
}

static const char *fate(const struct sk_victim *v)
{
	switch (v->err) {
	case SK_LISTED:
		return asked.dry_run ? "would be destroyed" : "";
	case SK_UNRECORDED:
		return "not recorded, left alone";
	case 0:
		return "destroyed";
	case -EBUSY:
		return "busy";
	case -ENOENT:
		return "gone";
	}
	return strerror(-v->err);
}

static void line(const struct sk_victim *v, const struct sk_file *owner)
{
	char src[ENDPOINT_LEN], dst[ENDPOINT_LEN];
	const char *name = sk_netns_name(v->netns), *end = fate(v);

	printf("%s %s %s > %s netns %s%s%u%s cookie %llx", proto_name(v->proto),
	       sk_state_name(v->state) ?: "?", endpoint(src, v, v->saddr, v->sport),
	       endpoint(dst, v, v->daddr, v->dport), name, *name ? " (" : "", v->netns,
	       *name ? ")" : "", (unsigned long long)v->cookie);
	if (v->dev)
		printf(" ifindex %u", v->dev);
	if (owner->pid)
		printf(" pid %u (%s)", owner->pid, owner->comm);
	printf("%s%s\n", *end ? ": " : "", end);
}

static json_t *victim_json(const struct sk_victim *v, const struct sk_file *owner)
{
	char src[INET6_ADDRSTRLEN], dst[INET6_ADDRSTRLEN], cookie[20];
	const char *end = fate(v);
	json_t *doc;

	address(src, v, v->saddr);
	address(dst, v, v->daddr);
	/* as text: JSON's numbers are exact up to 2^53 only */
	snprintf(cookie, sizeof(cookie), "0x%llx", (unsigned long long)v->cookie);
	doc = json_pack("{s:s, s:s, s:s, s:s, s:i, s:s, s:i, s:I, s:s, s:s, s:I, s:I, s:I}",
			"proto", proto_name(v->proto), "family",
			v->family == AF_INET ? "ipv4" : "ipv6", "state",
			sk_state_name(v->state) ?: "?", "src", src, "sport", (int)ntohs(v->sport),
			"dst", dst, "dport", (int)ntohs(v->dport), "netns", (json_int_t)v->netns,
			"netns_name", sk_netns_name(v->netns), "cookie", cookie, "uid",
			(json_int_t)v->uid, "mark", (json_int_t)v->mark, "ifindex",
			(json_int_t)v->dev);
	if (doc && owner->pid) {
		json_object_set_new(doc, "pid", json_integer(owner->pid));
		/* a command is bytes; what is not UTF-8 has no JSON */
		json_object_set_new(doc, "command", json_string(owner->comm) ?: json_string("?"));
	}
	if (doc && v->err != SK_LISTED) {
		if (v->err == SK_UNRECORDED)
			end = "unrecorded";
		else if (v->err && v->err != -EBUSY && v->err != -ENOENT)
			end = "failed";
		json_object_set_new(doc, "result", json_string(end));
		if (v->err < 0)
			json_object_set_new(doc, "error", json_string(strerror(-v->err)));
	}
	return doc;
}

static json_t *total_json(const struct sk_netns_total *t)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "seen", (json_int_t)t->seen,
			 "matched", (json_int_t)t->matched, "destroyed", (json_int_t)t->destroyed,
			 "busy", (json_int_t)t->busy, "gone", (json_int_t)t->gone, "failed",
			 (json_int_t)t->failed, "unrecorded", (json_int_t)t->unrecorded);
}

static struct sk_netns_total sum(const struct sk_result *r)
{
	struct sk_netns_total all = {};

	for (size_t i = 0; i < r->ntotals; i++) {
		all.seen += r->total[i].seen;
		all.matched += r->total[i].matched;
		all.destroyed += r->total[i].destroyed;
		all.busy += r->total[i].busy;
		all.gone += r->total[i].gone;
		all.failed += r->total[i].failed;
		all.unrecorded += r->total[i].unrecorded;
	}
	return all;
}

json_t *sk_json(const struct sk_result *r)
{
	json_t *socks = json_array(), *spaces = json_array(), *missing = json_array(), *doc;
	struct sk_netns_total all = sum(r);

	for (size_t i = 0; i < r->n; i++)
		json_array_append_new(socks, victim_json(&r->victim[i], &r->owner[i]));
	for (size_t i = 0; i < r->ntotals; i++) {
		json_t *t = total_json(&r->total[i]);

		json_object_set_new(t, "netns", json_integer(r->total[i].netns));
		json_object_set_new(t, "name", json_string(sk_netns_name(r->total[i].netns)));
		json_array_append_new(spaces, t);
	}
	for (size_t i = 0; i < r->nunreachable; i++)
		json_array_append_new(missing, json_pack("{s:I, s:s}", "netns",
							 (json_int_t)r->unreachable[i].netns,
							 "error", strerror(r->unreachable[i].err)));
	doc = total_json(&all);
	if (doc) {
		json_object_set_new(doc, "untold", json_integer(r->untold));
		json_object_set_new(doc, "passes", json_integer(r->passes));
		json_object_set_new(doc, "netns", spaces);
	}
	return json_pack("{s:b, s:b, s:o, s:o, s:o, s:s?}", "dry_run", asked.dry_run, "one_pass",
			 r->one_pass, "sockets", socks, "totals", doc, "unreachable", missing,
			 "incomplete", r->incomplete ? strerror(r->incomplete) : NULL);
}

void sk_warn(const struct sk_result *r)
{
	for (size_t i = 0; i < r->nunreachable; i++) {
		const struct sk_unreachable *u = &r->unreachable[i];

		if (u->netns)
			complain("network namespace %u: cannot be entered, its sockets were not "
				 "seen: %s", u->netns, strerror(u->err));
	}
	if (r->nunreachable && !r->unreachable[r->nunreachable - 1].netns)
		complain("the network namespaces of some processes are hidden: CAP_SYS_PTRACE and "
			 "the host's PID namespace are needed");
	if (r->incomplete)
		complain("some sockets were not seen: too many in one place, or no memory for them: "
			 "%s", strerror(r->incomplete));
	if (r->untold)
		complain("%llu sockets were left alone: no room to tell of them",
			 (unsigned long long)r->untold);
}

void sk_text(const struct sk_job *job, const struct sk_result *r)
{
	struct sk_netns_total all = sum(r);

	for (size_t i = 0; i < r->n; i++)
		line(&r->victim[i], &r->owner[i]);
	if (asked.verbose)
		for (size_t i = 0; i < r->ntotals; i++) {
			const struct sk_netns_total *t = &r->total[i];
			const char *name = sk_netns_name(t->netns);

			printf("netns %s%s%u%s: seen %llu, matched %llu, destroyed %llu, busy %llu, "
			       "gone %llu, failed %llu\n",
			       name, *name ? " (" : "", t->netns, *name ? ")" : "",
			       (unsigned long long)t->seen, (unsigned long long)t->matched,
			       (unsigned long long)t->destroyed, (unsigned long long)t->busy,
			       (unsigned long long)t->gone, (unsigned long long)t->failed);
		}
	printf("seen %llu in %zu network namespaces, matched %llu", (unsigned long long)all.seen,
	       r->ntotals, (unsigned long long)all.matched);
	if (job->destroy)
		printf(", destroyed %llu, busy %llu, gone %llu, failed %llu",
		       (unsigned long long)all.destroyed, (unsigned long long)all.busy,
		       (unsigned long long)all.gone, (unsigned long long)all.failed);
	if (all.unrecorded)
		printf(", not recorded %llu", (unsigned long long)all.unrecorded);
	putchar('\n');
}
