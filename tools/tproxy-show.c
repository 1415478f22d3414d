// SPDX-License-Identifier: GPL-2.0-only
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>
#include <bpf/bpf.h>

#include "tproxy-verbs.h"

/* DEV, or all that something is attached to. */
static int each(int argc, char **argv,
		int (*f)(const struct net_dev *dev, const struct tp_inst *inst, json_t *list),
		const char *verb)
{
	json_t *list = json_array();
	struct if_nameindex *all = NULL;
	struct tp_inst inst;
	struct net_dev dev;
	int rc;

	if (argc > 1) {
		json_decref(list);
		return usage_error(verb, "takes no more than DEV");
	}
	rc = pins_check();
	if (!rc && argc) {
		rc = dev_arg(argv[0], &dev) ?: tp_inst_get(&dev, &inst);
		if (!rc) {
			rc = f(&dev, &inst, list);
			tp_inst_close(&inst);
		}
	}
	if (!rc && !argc)
		all = if_nameindex();
	for (struct if_nameindex *i = all; !rc && i && i->if_index; i++) {
		if (dev_find(i->if_name, &dev))
			continue;
		if (!tp_inst_open(&dev, &inst) && inst.there && inst.set)
			rc = f(&dev, &inst, list);
		tp_inst_close(&inst);
	}
	if (all)
		if_freenameindex(all);
	if (rc || !asked.json) {
		json_decref(list);
		return rc;
	}
	return json_out(json_pack("{s:o}", "devices", list));
}

/* --- show --- */

static json_t *rule_json(const struct tp_rule *r)
{
	char text[TP_RULE_TEXT], cidr[TP_RULE_TEXT];
	json_t *protos = json_array();
	struct tp_rule bare = *r;

	bare.from = 0;
	bare.to = 65535;
	if (r->protos & TP_TCP)
		json_array_append_new(protos, json_string("tcp"));
	if (r->protos & TP_UDP)
		json_array_append_new(protos, json_string("udp"));
	return json_pack("{s:s, s:s, s:s, s:o, s:[i, i]}", "rule", tp_rule_text(r, text), "action",
			 r->except ? "except" : "redirect", "dst", tp_cidr_text(&bare, cidr),
			 "protocols", protos, "ports", r->from, r->to);
}

static const char *const slots[TP_LISTENERS][2] = {
	{"tcp", "ipv4"}, {"tcp", "ipv6"}, {"udp", "ipv4"}, {"udp", "ipv6"}};

static json_t *listeners(const struct tp_inst *inst)
{
	int map = pin_get(inst->dir, "tp_listeners");
	json_t *list = json_array();

	for (__u32 i = 0; map >= 0 && i < TP_LISTENERS; i++) {
		__u64 cookie = 0;

		if (!bpf_map_lookup_elem(map, &i, &cookie))
			json_array_append_new(list,
					      json_pack("{s:s, s:s, s:I}", "protocol", slots[i][0],
							"family", slots[i][1], "cookie",
							(json_int_t)cookie));
	}
	if (map >= 0)
		close(map);
	return list;
}

static int show_one(const struct net_dev *dev, const struct tp_inst *inst, json_t *list)
{
	const struct tp_set *set = inst->set;
	json_t *to = json_array(), *rules = json_array(), *senders = json_array(), *l, *doc;
	char text[TP_RULE_TEXT];
	size_t n;

	for (int i = 0; i < 2; i++)
		if (set->conf.to[i].port)
			json_array_append_new(to,
					      json_string(tp_to_text(&set->conf.to[i], text)));
	for (__u32 i = 0; i < set->conf.nrules; i++)
		json_array_append_new(rules, rule_json(&set->rules[i]));
	for (__u32 i = 0; i < set->conf.nsenders; i++)
		json_array_append_new(senders, json_string(set->names[i]));
	doc = json_pack("{s:s, s:i, s:s, s:o, s:s, s:o, s:o, s:o, s:i, s:i}", "device", dev->name,
			"ifindex", dev->ifindex, "hook", tp_hooks[set->conf.hook].name, "to", to,
			"on_missing", tp_missing_words[set->conf.missing], "rules", rules,
			"excepted_senders", senders, "listeners", listeners(inst), "program",
			inst->link.prog_id, "link", inst->link.id);
	if (doc && tp_hooks[set->conf.hook].routed)
		json_object_set_new(doc, "route",
				    json_pack("{s:i, s:i}", "mark", TP_MARK, "table", TP_TABLE));
	json_array_append_new(list, doc);
	if (asked.json)
		return DONE;
	printf("%s %s", dev->name, tp_hooks[set->conf.hook].name);
	for (int i = 0; i < 2; i++)
		if (set->conf.to[i].port)
			printf(" to %s", tp_to_text(&set->conf.to[i], text));
	printf(" on-missing %s\n", tp_missing_words[set->conf.missing]);
	for (__u32 i = 0; i < set->conf.nsenders; i++)
		printf("  except %s\n", set->names[i]);
	for (__u32 i = 0; i < set->conf.nrules; i++)
		printf("  %s\n", tp_rule_text(&set->rules[i], text));
	json_array_foreach(json_object_get(doc, "listeners"), n, l)
		printf("  registered: %s, %s, socket %lld\n",
		       json_string_value(json_object_get(l, "protocol")),
		       json_string_value(json_object_get(l, "family")),
		       (long long)json_integer_value(json_object_get(l, "cookie")));
	return DONE;
}

int verb_show(int argc, char **argv)
{
	return each(argc, argv, show_one, "show");
}

/* --- stats --- */

static const struct {
	const char *group, *name, *what;
} stats[TP_STATS] = {
	[TP_CONNECTIONS] = {"given", "connections", "first segments, to the listener"},
	[TP_SEGMENTS] = {"given", "segments", "of no connection, to the listener"},
	[TP_DATAGRAMS] = {"given", "datagrams", "to the listener"},
	[TP_ESTABLISHED] = {"given", "established", "to connections, connected UDP sockets"},
	[TP_BY_ADDRESS] = {"passed_by", "by_address", "excepted by destination"},
	[TP_BY_SENDER] = {"passed_by", "by_sender", "excepted by mark, cgroup or user"},
	[TP_BY_PROXY] = {"passed_by", "by_proxy", "sent by a transparent socket"},
	[TP_NO_LISTENER] = {"in_the_way", "no_listener", "nobody listens"},
	[TP_NOT_TRANSPARENT] = {"in_the_way", "not_transparent",
				"the listener lacks IP_TRANSPARENT"},
	[TP_NOT_ASSIGNED] = {"in_the_way", "not_assigned", "the kernel refused"},
	[TP_FRAGMENT] = {"in_the_way", "fragment", "fragmented"},
	[TP_TIME_WAIT] = {"in_the_way", "time_wait", "the port waits, and the host listens there"},
	[TP_MALFORMED] = {"in_the_way", "malformed", "too short, or too many headers"},
	[TP_DROPPED] = {"done", "dropped", "of these"},
	[TP_PASSED] = {"done", "passed", "of these"},
	[TP_ANSWERED] = {"done", "answered", "of these, by a reset or as unreachable"},
};

static int stats_one(const struct net_dev *dev, const struct tp_inst *inst, json_t *list)
{
	int map = pin_get(inst->dir, "tp_stats"), cpus = libbpf_num_possible_cpus();
	json_t *doc = json_pack("{s:s, s:s}", "device", dev->name, "hook",
				tp_hooks[inst->set->conf.hook].name);
	struct tp_count *c = cpus > 0 ? calloc(cpus, sizeof(*c)) : NULL;

	if (map < 0 || !c) {
		complain_err(map < 0 ? map : ENOMEM, dev->name, "cannot read the counters");
		json_decref(doc);
		free(c);
		return FAILED;
	}
	if (!asked.json)
		printf("%s %s\n", dev->name, tp_hooks[inst->set->conf.hook].name);
	for (__u32 i = 0; i < TP_STATS; i++) {
		struct tp_count sum = {};
		json_t *group = json_object_get(doc, stats[i].group);

		if (!bpf_map_lookup_elem(map, &i, c))
			for (int cpu = 0; cpu < cpus; cpu++) {
				sum.packets += c[cpu].packets;
				sum.bytes += c[cpu].bytes;
			}
		if (!group) {
			group = json_object();
			json_object_set_new(doc, stats[i].group, group);
		}
		json_object_set_new(group, stats[i].name,
				    json_pack("{s:I, s:I}", "packets", (json_int_t)sum.packets,
					      "bytes", (json_int_t)sum.bytes));
		if (!asked.json)
			printf("  %-16s %10llu packets %14llu bytes  %s\n", stats[i].name,
			       (unsigned long long)sum.packets, (unsigned long long)sum.bytes,
			       stats[i].what);
	}
	json_array_append_new(list, doc);
	close(map);
	free(c);
	return DONE;
}

int verb_stats(int argc, char **argv)
{
	return each(argc, argv, stats_one, "stats");
}

/* --- log --- */

#define READER_NS 3000000000ULL /* longer than between two signs of life */
#define POLL_MS	  500

static volatile sig_atomic_t stopped;

static void stop(int sig)
{
	stopped = 1;
}

static __u64 boot_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

struct reading {
	__u64 from;
	__u32 lines;
};

static const char *end_text(const struct tp_addr *addr, __u16 port, char text[TP_RULE_TEXT])
{
	struct tp_to to = {.addr = *addr, .port = port};

	return tp_to_text(&to, text);
}

static int event(void *ctx, void *data, size_t size)
{
	char src[TP_RULE_TEXT], dst[TP_RULE_TEXT], when[32];
	const struct tp_event *e = data;
	struct reading *r = ctx;
	struct timespec now;
	const char *what, *protocol;
	time_t then;
	struct tm tm;

	/* of an earlier reader, or of another tproxy */
	if (size < sizeof(*e) || e->ns < r->from || e->stat >= TP_STATS || e->done >= TP_STATS ||
	    (env.count && r->lines == env.count))
		return 0;
	clock_gettime(CLOCK_REALTIME, &now);
	then = now.tv_sec - (time_t)((boot_ns() - e->ns) / 1000000000);
	gmtime_r(&then, &tm);
	strftime(when, sizeof(when), "%FT%TZ", &tm);
	protocol = e->protocol == IPPROTO_TCP ? "tcp" : e->protocol == IPPROTO_UDP ? "udp" : "?";
	what = stats[e->stat].name;
	end_text(&e->src, e->sport, src);
	end_text(&e->dst, e->dport, dst);
	r->lines++;
	if (asked.json) {
		json_t *line = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "time", when, "protocol",
					 protocol, "src", src, "dst", dst, "what", what, "done",
					 e->done == e->stat ? "given" : stats[e->done].name);

		json_dumpf(line, stdout, JSON_COMPACT);
		putchar('\n');
		json_decref(line);
	} else {
		printf("%s %s %s > %s %s%s%s\n", when, protocol, src, dst, what,
		       e->done == e->stat ? "" : ", ",
		       e->done == e->stat ? "" : stats[e->done].name);
	}
	return 0;
}

static int read_log(const struct tp_inst *inst, int reader, int log)
{
	__u64 end = env.seconds ? boot_ns() + env.seconds * 1000000000ULL : ~0ULL, until;
	struct reading r = {.from = boot_ns()};
	struct ring_buffer *rb = ring_buffer__new(log, event, &r, NULL);
	__u32 zero = 0;
	int err = rb ? 0 : -errno;

	while (!err && !stopped && boot_ns() < end && !(env.count && r.lines >= env.count)) {
		until = boot_ns() + READER_NS;
		if (bpf_map_update_elem(reader, &zero, &until, BPF_ANY))
			err = -errno;
		if (!err)
			err = ring_buffer__poll(rb, POLL_MS);
		err = err > 0 || err == -EINTR ? 0 : err;
		if (fflush(stdout))
			break;
	}
	until = 0;
	bpf_map_update_elem(reader, &zero, &until, BPF_ANY);
	ring_buffer__free(rb);
	return err;
}

int verb_log(int argc, char **argv)
{
	struct tp_inst inst;
	struct net_dev dev;
	int rc, err, lock, reader, log;

	if (argc != 1)
		return usage_error("log", "takes DEV");
	rc = pins_check() ?: dev_arg(argv[0], &dev) ?: tp_inst_get(&dev, &inst);
	if (rc)
		return rc;
	/* two would each see half of it */
	lock = pins_lock(inst.dir, false);
	if (lock < 0) {
		if (lock == -EWOULDBLOCK)
			complain("%s: another tproxy reads the log", dev.name);
		else
			complain_err(lock, inst.dir, "cannot lock");
		tp_inst_close(&inst);
		return FAILED;
	}
	signal(SIGINT, stop);
	signal(SIGTERM, stop);
	reader = pin_get(inst.dir, "tp_reader");
	log = pin_get(inst.dir, "tp_log");
	err = reader < 0 ? reader : log < 0 ? log : read_log(&inst, reader, log);
	if (err)
		complain_err(err, dev.name, "cannot read the log");
	if (reader >= 0)
		close(reader);
	if (log >= 0)
		close(log);
	pins_unlock(lock);
	tp_inst_close(&inst);
	return err ? FAILED : DONE;
}
