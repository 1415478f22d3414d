// SPDX-License-Identifier: GPL-2.0-only
/*
 * netpol: show, stats and log: what is there and what it did.
 */
#include <net/if.h>
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include <netinet/in.h>
#include <bpf/bpf.h>

#include "netpol-verbs.h"

/* --- show --- */

static const char *const owners[] = { "foreign", "netpol", "stray" };

static json_t *prog_json(const struct np_prog *prog)
{
	json_t *o = json_pack("{s:I, s:s, s:s, s:s}", "id", (json_int_t)prog->id, "name",
			      prog->name, "tag", prog->tag, "owner", owners[prog->owner]);

	if (o && prog->link_id)
		json_object_set_new(o, "link_id", json_integer(prog->link_id));
	return o;
}

static json_t *chain_json(const struct np_chain *chain)
{
	json_t *progs = json_array();

	for (__u32 i = 0; i < chain->n; i++)
		json_array_append_new(progs, prog_json(&chain->prog[i]));
	return json_pack("{s:I, s:o}", "revision", (json_int_t)chain->revision, "programs", progs);
}

static json_t *filters_json(const struct np_filter *filters, __u32 n)
{
	json_t *list = json_array(), *o;

	for (__u32 i = 0; i < n; i++) {
		o = json_pack("{s:s, s:I, s:I, s:I}", "kind", filters[i].kind,
			      "priority", (json_int_t)filters[i].prio,
			      "handle", (json_int_t)filters[i].handle,
			      "chain", (json_int_t)filters[i].chain);
		if (o && filters[i].prog.id)
			json_object_set_new(o, "program", prog_json(&filters[i].prog));
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *policy_json(const struct np_inst *inst)
{
	struct np_live live = {};
	const char *why = NULL;
	json_t *o;
	int err = np_live_read(inst->dir, true, &live, &why);

	if (err)
		return json_pack("{s:s}", "error", err == -ENOENT ? "none loaded" :
				 why && err == -EUCLEAN ? why : strerror(-err));
	o = json_pack("{s:I, s:I, s:s, s:b, s:I, s:I}",
		      "generation", (json_int_t)live.head.gen,
		      "rules", (json_int_t)live.policy->nrules,
		      "default", np_verdict_name(live.policy->dflt),
		      "stateless", live.policy->stateless,
		      "table_bytes", (json_int_t)live.words[NP_H_WORDS_USED] * 4,
		      "tier", (json_int_t)live.tier);
	np_live_free(&live);
	return o;
}

/* Everything about one device; NULL (and *rc) on failure. *any: something is attached. */
static json_t *dev_json(const struct net_dev *dev, bool *any, int *rc)
{
	json_t *doc, *hooks = json_object(), *legacy = json_object();
	struct np_filter *filters;
	struct np_chain chain;
	struct np_inst inst;
	__u32 n, xdp = 0;
	int err = np_inst_of(dev, &inst);

	*any = inst.exists;
	if (err && err != -ESTALE) {
		complain_err(err, dev->name, "cannot read the instance");
		*rc = FAILED;
	}
	/* The place is that of a device which has moved away. */
	if (err)
		inst.exists = false;
	for (int i = 0; i < NP_HOOKS; i++) {
		if (!np_chain_get(dev, i, &inst, &chain)) {
			json_object_set_new(hooks, np_hooks[i].name, chain_json(&chain));
			*any |= chain.n > 0;
		}
		if (!np_hooks[i].legacy)
			continue;
		if (np_filters_get(dev, i, &inst, &filters, &n)) {
			complain("%s: %s: cannot list the tc filters", dev->name, np_hooks[i].name);
			*rc = FAILED;
			continue;
		}
		json_object_set_new(legacy,
				    np_hooks[i].legacy == BPF_TC_INGRESS ? "ingress" : "egress",
				    filters_json(filters, n));
		*any |= n > 0;
		free(filters);
	}
	doc = json_pack("{s:s, s:I, s:I, s:o, s:o}", "device", dev->name,
			"ifindex", (json_int_t)dev->ifindex, "netns_cookie", (json_int_t)dev->netns,
			"hooks", hooks, "legacy", legacy);
	if (!bpf_xdp_query_id(dev->ifindex, 0, &xdp) && xdp) {
		struct np_prog prog = {};

		np_prog_get(xdp, &inst, &prog);
		json_object_set_new(doc, "xdp", prog_json(&prog));
		*any = true;
	}
	if (inst.exists) {
		json_object_set_new(doc, "instance", json_string(inst.dir));
		json_object_set_new(doc, "moved", json_boolean(inst.moved));
		json_object_set_new(doc, "policy", policy_json(&inst));
	}
	np_inst_close(&inst);
	return doc;
}

static const char *str_of(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s && *s ? s : "-";
}

static json_int_t int_of(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

static void prog_print(const json_t *prog)
{
	printf("prog %" JSON_INTEGER_FORMAT " %s tag %s", int_of(prog, "id"), str_of(prog, "name"),
	       str_of(prog, "tag"));
	if (json_object_get(prog, "link_id"))
		printf(" link %" JSON_INTEGER_FORMAT, int_of(prog, "link_id"));
	printf(" %s\n", str_of(prog, "owner"));
}

static void dev_print(json_t *doc)
{
	json_t *policy = json_object_get(doc, "policy"), *o, *p;
	const char *key;
	size_t i;

	printf("%s (index %" JSON_INTEGER_FORMAT ")\n", str_of(doc, "device"),
	       int_of(doc, "ifindex"));
	if (json_object_get(policy, "error"))
		printf("  policy: cannot be read: %s\n", str_of(policy, "error"));
	else if (policy)
		printf("  policy: generation %" JSON_INTEGER_FORMAT ", %" JSON_INTEGER_FORMAT
		       " rules, default %s%s\n",
		       int_of(policy, "generation"), int_of(policy, "rules"),
		       str_of(policy, "default"),
		       json_is_true(json_object_get(policy, "stateless")) ? ", stateless" : "");
	json_object_foreach(json_object_get(doc, "hooks"), key, o) {
		json_t *progs = json_object_get(o, "programs");

		if (!json_array_size(progs))
			continue;
		printf("  %s: revision %" JSON_INTEGER_FORMAT "\n", key, int_of(o, "revision"));
		json_array_foreach(progs, i, p) {
			printf("    %zu ", i + 1);
			prog_print(p);
		}
	}
	json_object_foreach(json_object_get(doc, "legacy"), key, o) {
		json_array_foreach(o, i, p) {
			printf("  legacy %s: %s priority %" JSON_INTEGER_FORMAT " handle %"
			       JSON_INTEGER_FORMAT, key, str_of(p, "kind"), int_of(p, "priority"),
			       int_of(p, "handle"));
			if (json_object_get(p, "program")) {
				printf(" ");
				prog_print(json_object_get(p, "program"));
			} else {
				printf("\n");
			}
		}
	}
	if (json_object_get(doc, "xdp")) {
		printf("  xdp: ");
		prog_print(json_object_get(doc, "xdp"));
	}
}

/* Instances of devices in other network namespaces, which this one cannot look into. */
static json_t *elsewhere_json(__u64 here)
{
	json_t *list = json_array();
	char **names = NULL;
	__u32 ifindex;
	__u64 netns;

	if (np_dir_list(false, &names))
		return list;
	for (char **n = names; *n; n++)
		if (np_inst_parse(*n, &netns, &ifindex) && netns != here)
			json_array_append_new(list, json_pack("{s:s, s:I, s:I}", "instance", *n,
							      "netns_cookie", (json_int_t)netns,
							      "ifindex", (json_int_t)ifindex));
	np_dir_list_free(names);
	return list;
}

int verb_show(int argc, char **argv)
{
	json_t *devices = json_array(), *others = NULL, *o;
	struct if_nameindex *all = NULL;
	int rc = pins_check();
	struct net_dev dev;
	bool any;
	size_t i;

	if (argc > 1)
		rc = usage_error("show", "takes at most DEV");
	if (!rc && argc) {
		rc = dev_arg(argv[0], &dev);
		if (!rc)
			json_array_append_new(devices, dev_json(&dev, &any, &rc));
	} else if (!rc) {
		all = if_nameindex();
		for (struct if_nameindex *d = all; d && d->if_index; d++) {
			/* It may be gone by now. */
			if (dev_find(d->if_name, &dev))
				continue;
			o = dev_json(&dev, &any, &rc);
			if (any)
				json_array_append(devices, o);
			json_decref(o);
		}
		if_freenameindex(all);
		others = elsewhere_json(netns_cookie());
	}
	if (rc) {
		json_decref(devices);
		json_decref(others);
		return rc;
	}
	if (asked.json)
		return json_out(json_pack("{s:o, s:o}", "devices", devices, "elsewhere",
					  others ?: json_array()));
	json_array_foreach(devices, i, o)
		dev_print(o);
	json_array_foreach(others, i, o)
		printf("%s: in another network namespace; look there with --netns\n",
		       str_of(o, "instance"));
	json_decref(devices);
	json_decref(others);
	return DONE;
}

/* --- stats --- */

static const char *const stat_names[__NP_S_MAX] = {
	[NP_S_ALLOW] = "allow", [NP_S_FLOW] = "flow", [NP_S_FRAGMENT] = "fragment",
	[NP_S_RELATED] = "related", [NP_S_NEIGH] = "neighbour", [NP_S_ADOPTED] = "adopted",
	[NP_S_NEXT] = "next", [NP_S_DENY_POLICY] = "deny_policy",
	[NP_S_DENY_MALFORMED] = "deny_malformed", [NP_S_DENY_FRAGMENT] = "deny_fragment",
	[NP_S_DENY_MAP_FULL] = "deny_map_full", [NP_S_DENY_NONIP] = "deny_not_ip",
	[NP_S_DENY_NO_POLICY] = "deny_no_policy",
};

static json_t *count_json(const struct np_count *c)
{
	return json_pack("{s:I, s:I}", "packets", (json_int_t)c->packets,
			 "bytes", (json_int_t)c->bytes);
}

static json_t *stats_json(const struct np_live *live, const struct np_count *counts,
			  const struct np_count *stats)
{
	json_t *rules = json_array(), *packets = json_object(), *o;

	for (__u32 i = 0; i < live->policy->nrules; i++) {
		o = np_rule_json(&live->policy->rules[i], i + 1);
		json_object_update_new(o, count_json(&counts[live->slots[i]]));
		json_array_append_new(rules, o);
	}
	o = count_json(&counts[0]);
	json_object_set_new(o, "verdict", json_string(np_verdict_name(live->policy->dflt)));
	for (int i = 0; i < __NP_S_MAX; i++)
		json_object_set_new(packets, stat_names[i], count_json(&stats[i]));
	return json_pack("{s:I, s:o, s:o, s:o}", "generation", (json_int_t)live->head.gen,
			 "rules", rules, "default", o, "reasons", packets);
}

static void stats_print(const struct np_live *live, const struct np_count *counts,
			const struct np_count *stats)
{
	const struct np_count *c;

	printf("%12s %16s  rule\n", "packets", "bytes");
	for (__u32 i = 0; i < live->policy->nrules; i++) {
		c = &counts[live->slots[i]];
		printf("%12llu %16llu  %u %s\n", c->packets, c->bytes, i + 1,
		       live->policy->rules[i].text);
	}
	printf("%12llu %16llu  default %s\n", counts[0].packets, counts[0].bytes,
	       np_verdict_name(live->policy->dflt));
	printf("%12s %16s  reason\n", "packets", "bytes");
	for (int i = 0; i < __NP_S_MAX; i++)
		printf("%12llu %16llu  %s\n", stats[i].packets, stats[i].bytes, stat_names[i]);
}

static int stats_once(const struct net_dev *dev, const struct np_inst *inst)
{
	struct np_count stats[__NP_S_MAX], *counts = NULL;
	struct np_live live = {};
	int rc = np_live_arg(dev, inst, &live), err = 0;
	__u32 n;

	if (rc)
		return rc;
	n = np_slots_used(live.words);
	counts = calloc(n, sizeof(*counts));
	err = counts ? np_counts_read(inst->dir, n, counts) : -ENOMEM;
	if (!err)
		err = np_stats_read(inst->dir, stats);
	if (err) {
		complain_err(err, dev->name, "cannot read the counters");
		rc = FAILED;
	} else if (asked.json) {
		rc = json_out(stats_json(&live, counts, stats));
	} else {
		stats_print(&live, counts, stats);
		rc = fflush(stdout) ? FAILED : DONE;
	}
	free(counts);
	np_live_free(&live);
	return rc;
}

/* SIGINT and SIGTERM as a file descriptor, or -errno. */
static int signals_open(void)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int epoll_with(int epoll, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.fd = fd };

	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

int verb_stats(int argc, char **argv)
{
	int signals = -1, timer = -1, epoll = -1, rc;
	struct itimerspec every = {};
	struct epoll_event ev;
	struct np_inst inst;
	struct net_dev dev;
	__u64 ticks;

	if (argc != 1)
		return usage_error("stats", "takes DEV");
	rc = np_inst_arg(argv[0], &dev, &inst);
	if (!rc)
		rc = stats_once(&dev, &inst);
	if (rc || !env.interval)
		goto out;
	every.it_value.tv_sec = every.it_interval.tv_sec = env.interval;
	signals = signals_open();
	timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	if (signals < 0 || timer < 0 || epoll < 0 || timerfd_settime(timer, 0, &every, NULL) ||
	    epoll_with(epoll, signals) || epoll_with(epoll, timer)) {
		complain_err(errno, dev.name, "cannot wait");
		rc = FAILED;
	}
	while (!rc && epoll_wait(epoll, &ev, 1, -1) == 1 && ev.data.fd == timer)
		if (read(timer, &ticks, sizeof(ticks)) > 0)
			rc = stats_once(&dev, &inst);
out:
	if (signals >= 0)
		close(signals);
	if (timer >= 0)
		close(timer);
	if (epoll >= 0)
		close(epoll);
	np_inst_close(&inst);
	return rc;
}

/* --- log --- */

struct log {
	const struct np_inst *inst;
	struct np_live live;		/* of the generation seen last */
	json_t *events;
	__u64 seen;
	bool failed;
};

/* The rule's text, or NULL if the policy that decided is gone. */
static const char *log_rule(struct log *log, const struct np_event *e)
{
	if (e->rule == NP_NONE)
		return "default";
	if (!log->live.policy || log->live.head.gen != e->gen) {
		np_live_free(&log->live);
		if (np_live_read(log->inst->dir, true, &log->live, NULL))
			return NULL;
	}
	if (log->live.head.gen != e->gen || e->rule >= log->live.policy->nrules)
		return NULL;
	return log->live.policy->rules[e->rule].text;
}

static void event_addr(char *buf, size_t len, const struct np_event *e, const __be32 *addr)
{
	if (!inet_ntop(e->family == 4 ? AF_INET : AF_INET6, addr, buf, len))
		snprintf(buf, len, "-");
}

static int log_event(void *ctx, void *data, size_t size)
{
	char src[INET6_ADDRSTRLEN], dst[INET6_ADDRSTRLEN];
	const struct np_event *e = data;
	struct timespec mono, real;
	struct log *log = ctx;
	const char *rule, *proto;
	char number[8];
	double when;
	bool icmp;

	if (size < sizeof(*e))
		return 0;
	log->seen++;
	clock_gettime(CLOCK_MONOTONIC, &mono);
	clock_gettime(CLOCK_REALTIME, &real);
	when = real.tv_sec - mono.tv_sec + (real.tv_nsec - mono.tv_nsec) / 1e9 + e->time / 1e9;
	rule = log_rule(log, e);
	event_addr(src, sizeof(src), e, e->src);
	event_addr(dst, sizeof(dst), e, e->dst);
	proto = np_proto_name(e->proto);
	snprintf(number, sizeof(number), "%u", e->proto);
	icmp = e->proto == (e->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
	if (asked.json) {
		json_t *o = json_pack("{s:f, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I}",
				      "time", when, "verdict", np_verdict_name(e->verdict),
				      "direction", np_dir_name(e->dir), "proto", proto ?: number,
				      "src", src, "dst", dst, "len", (json_int_t)e->len,
				      "ifindex", (json_int_t)e->ifindex,
				      "generation", (json_int_t)e->gen,
				      "suppressed", (json_int_t)e->suppressed);

		if (icmp) {
			json_object_set_new(o, "type", json_integer(ntohs(e->dport) >> 8));
			json_object_set_new(o, "code", json_integer(ntohs(e->dport) & 0xff));
		} else {
			json_object_set_new(o, "sport", json_integer(ntohs(e->sport)));
			json_object_set_new(o, "dport", json_integer(ntohs(e->dport)));
		}
		if (e->rule != NP_NONE)
			json_object_set_new(o, "rule", json_integer(e->rule + 1));
		json_object_set_new(o, "text", rule ? json_string(rule) : json_null());
		/* Followed, an event a line; else one document. */
		if (env.follow) {
			log->failed |= !o || json_dumpf(o, stdout, JSON_COMPACT) ||
				       putchar('\n') == EOF || fflush(stdout);
			json_decref(o);
		} else {
			json_array_append_new(log->events, o);
		}
		return 0;
	}
	printf("%.6f %s %s %s %s", when, np_verdict_name(e->verdict), np_dir_name(e->dir),
	       proto ?: number, src);
	if (icmp)
		printf(" > %s type %u/%u", dst, ntohs(e->dport) >> 8, ntohs(e->dport) & 0xff);
	else
		printf(" port %u > %s port %u", ntohs(e->sport), dst, ntohs(e->dport));
	printf(" len %u", e->len);
	if (rule)
		printf(" rule: %s", rule);
	else
		printf(" rule %u of generation %u", e->rule + 1, e->gen);
	if (e->suppressed)
		printf(" (%u more not logged)", e->suppressed);
	printf("\n");
	if (env.follow)
		log->failed |= fflush(stdout) != 0;
	return 0;
}

static int log_follow(struct ring_buffer *ring, const struct log *log)
{
	int signals = signals_open(), epoll = epoll_create1(EPOLL_CLOEXEC), rc = DONE;
	struct epoll_event ev;

	if (signals < 0 || epoll < 0 || epoll_with(epoll, signals) ||
	    epoll_with(epoll, ring_buffer__epoll_fd(ring))) {
		complain_err(errno, "log", "cannot wait");
		rc = FAILED;
	}
	while (!rc && epoll_wait(epoll, &ev, 1, -1) == 1 && ev.data.fd != signals)
		if (ring_buffer__consume(ring) < 0 || log->failed)
			rc = FAILED;
	if (signals >= 0)
		close(signals);
	if (epoll >= 0)
		close(epoll);
	return rc;
}

int verb_log(int argc, char **argv)
{
	struct ring_buffer *ring = NULL;
	struct log log = {};
	struct np_inst inst;
	struct net_dev dev;
	int fd = -1, rc;

	if (argc != 1)
		return usage_error("log", "takes DEV");
	rc = np_inst_arg(argv[0], &dev, &inst);
	if (rc)
		goto out;
	log.inst = &inst;
	log.events = json_array();
	fd = pin_get(inst.dir, "np_events");
	if (fd >= 0)
		ring = ring_buffer__new(fd, log_event, &log, NULL);
	if (!ring || ring_buffer__consume(ring) < 0) {
		complain_err(fd < 0 ? fd : errno, dev.name, "cannot read the log");
		rc = FAILED;
	} else if (env.follow) {
		rc = log_follow(ring, &log);
		complain("%s: %" PRIu64 " packets", dev.name, (uint64_t)log.seen);
	} else if (asked.json) {
		rc = json_out(json_pack("{s:O}", "events", log.events));
	}
	json_decref(log.events);
	np_live_free(&log.live);
	ring_buffer__free(ring);
	if (fd >= 0)
		close(fd);
out:
	np_inst_close(&inst);
	return rc;
}
