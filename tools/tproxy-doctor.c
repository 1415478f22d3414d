// SPDX-License-Identifier: GPL-2.0-only
/*
 * tproxy doctor: what is wrong, each with a next step. A problem makes the exit code 1, a note
 * does not.
 */
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <bpf/bpf.h>

#include "tproxy-verbs.h"

static json_t *findings;
static unsigned int problems;

static void __attribute__((format(printf, 4, 5)))
say(bool problem, const char *object, const char *next, const char *fmt, ...)
{
	char what[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	problems += problem;
	json_array_append_new(findings, json_pack("{s:s, s:s, s:s, s:s}", "severity",
						  problem ? "problem" : "note", "object", object,
						  "what", what, "next", next));
	if (!asked.json)
		printf("%s: %s: %s; %s\n", problem ? "problem" : "note", object, what, next);
}

/* --- the namespace --- */

#define CONF "/proc/sys/net/ipv4/conf/%s/%s"

static int sysctl(const char *fmt, const char *dev, const char *name)
{
	char path[128];
	int value = 0;
	FILE *f;

	snprintf(path, sizeof(path), fmt, dev, name);
	f = fopen(path, "re");
	if (f && fscanf(f, "%d", &value) != 1)
		value = 0;
	if (f)
		fclose(f);
	return value;
}

/*
 * What comes in for an established connection finds its socket before it is routed, and what has
 * a socket is not forwarded.
 */
bool tp_early_demux(void)
{
	const char *const ipv4 = "/proc/sys/net/ipv4/%s%s";

	return sysctl(ipv4, "tcp_early_demux", "") && sysctl(ipv4, "ip_early_demux", "") &&
	       (sysctl(ipv4, "ip_forward", "") ||
		sysctl("/proc/sys/net/ipv6/conf/%s/%s", "all", "forwarding"));
}

/* Whether a socket is at the address, or at all addresses, by one of the kernel's tables. */
static bool listed(const char *table, const struct tp_to *to, bool v4, bool tcp)
{
	char path[64], line[512], local[40];
	unsigned int port, state;
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/thread-self/net/%s", table);
	f = fopen(path, "re");
	while (!found && f && fgets(line, sizeof(line), f)) {
		__u32 w[4] = {};

		if (sscanf(line, " %*u: %32[0-9A-F]:%X %*[0-9A-F]:%*X %X", local, &port,
			   &state) != 3 ||
		    port != to->port || state != (tcp ? 10 : 7))
			continue;
		if (strlen(local) == 8) {
			w[2] = htonl(0xffff);
			found = sscanf(local, "%8X", &w[3]) == 1 &&
				(!w[3] || w[3] == to->addr.w[3]);
		} else {
			/* all addresses: of both families, unless IPv6 only, which is not told */
			found = sscanf(local, "%8X%8X%8X%8X", &w[0], &w[1], &w[2], &w[3]) == 4 &&
				((!w[0] && !w[1] && !w[2] && !w[3]) ||
				 !memcmp(w, &to->addr, sizeof(w)));
		}
	}
	if (f)
		fclose(f);
	return found;
}

static bool listens(const struct tp_to *to, bool v4, bool tcp)
{
	return (v4 && listed(tcp ? "tcp" : "udp", to, v4, tcp)) ||
	       listed(tcp ? "tcp6" : "udp6", to, v4, tcp);
}

/* --- a device --- */

/* What is redirected of a family. */
static __u8 protos(const struct tp_set *set, __u8 family)
{
	__u8 all = 0;

	for (__u32 i = 0; i < set->conf.nrules; i++)
		if (!set->rules[i].except &&
		    (!set->rules[i].family || set->rules[i].family == family))
			all |= set->rules[i].protos;
	return all;
}

static void check_listeners(const struct net_dev *dev, const struct tp_inst *inst)
{
	const struct tp_set *set = inst->set;
	int map = pin_get(inst->dir, "tp_listeners");
	bool any = false;
	__u64 cookie;

	for (__u32 i = 0; i < TP_LISTENERS; i++) {
		const struct tp_to *to = &set->conf.to[i & 1];
		bool tcp = i < TP_UDP4;
		char text[TP_RULE_TEXT];

		if (!(protos(set, i & 1 ? 6 : 4) & (tcp ? TP_TCP : TP_UDP)))
			continue;
		if (map >= 0 && !bpf_map_lookup_elem(map, &i, &cookie)) {
			any = true;
			continue;
		}
		any |= !!to->port;
		/* those of a proxy in a pod are not to be seen from here */
		if (!to->port || !tp_hooks[set->conf.hook].routed || listens(to, !(i & 1), tcp))
			continue;
		say(true, dev->name, "start the proxy there",
		    "nobody listens at %s (%s), and what is for it is %s",
		    tp_to_text(to, text), tcp ? "tcp" : "udp",
		    set->conf.missing == TP_DROP ? "dropped" :
		    set->conf.missing == TP_PASS ? "passed" :
						   "answered with a reset");
	}
	if ((protos(set, 4) || protos(set, 6)) && !any)
		say(true, dev->name, "attach it with --to, or tproxy register a process",
		    "no listener is known");
	if (map >= 0)
		close(map);
}

static void check_order(const struct net_dev *dev, const struct tp_inst *inst)
{
	enum bpf_attach_type type = tp_hooks[inst->set->conf.hook].type;
	char name[BPF_OBJ_NAME_LEN];
	struct chain chain;

	if (chain_get(dev->ifindex, type, &chain))
		return;
	for (__u32 i = 0; i < chain.n && chain.links[i] != inst->link.id; i++) {
		if (!strncmp(tp_prog_name(chain.ids[i], name), "podlink_", 8))
			say(true, dev->name, "tproxy detach and attach it again",
			    "podlink's program %u is in front and redirects packets away",
			    chain.ids[i]);
		else if (strncmp(name, "netpol_", 7))
			say(false, dev->name, "tproxy attach it with --first if that is not wanted",
			    "program %u (%s) is in front and may end the chain", chain.ids[i],
			    *name ? name : "?");
	}
}

static void check_net(struct tp_net *net, const struct net_dev *dev, const struct tp_set *set,
		      bool look)
{
	bool missing = false;

	if (!tp_hooks[set->conf.hook].routed)
		return;
	if (tp_net_enter(net, dev->name, look, &missing))
		say(true, dev->name, "see the message before this",
		    "its routing rules and the routes of table %d cannot be %s", TP_TABLE,
		    look ? "read" : "added");
	else if (missing)
		say(look, dev->name, look ? "tproxy doctor --fix adds it" : "added",
		    "a routing rule for it or a route of table %d is missing; was it renamed?",
		    TP_TABLE);
	if (set->conf.hook == TP_TCX_EGRESS && tp_early_demux())
		say(true, dev->name, "set net.ipv4.tcp_early_demux to 0",
		    "TCP that this host forwards is lost behind the first segment");
	/* what local sockets send has an address of this host, and comes in by the device */
	if (set->conf.hook == TP_TCX_EGRESS && !sysctl(CONF, dev->name, "accept_local") &&
	    !sysctl(CONF, "all", "accept_local"))
		say(false, dev->name, "set net.ipv4.conf.DEV.accept_local if that is wanted",
		    "IPv4 connections of the host itself are not accepted when turned round");
	/* the larger of the two counts, and 2 is loose */
	if (set->conf.hook == TP_TCX_EGRESS && sysctl(CONF, dev->name, "rp_filter") < 2 &&
	    sysctl(CONF, "all", "rp_filter") < 2 &&
	    (sysctl(CONF, dev->name, "rp_filter") || sysctl(CONF, "all", "rp_filter")))
		say(true, dev->name, "set net.ipv4.conf.DEV.rp_filter to 2",
		    "with a strict rp_filter what is turned round is dropped");
}

static void check_senders(const struct net_dev *dev, const struct tp_set *set)
{
	struct tp_sender now;
	char name[TP_NAME];
	const char *why;

	for (__u32 i = 0; i < set->conf.nsenders; i++)
		if (set->senders[i].kind == TP_BY_CGROUP &&
		    (!tp_sender_parse(set->names[i], &now, name, &why) ||
		     now.value != set->senders[i].value))
			say(true, dev->name, "tproxy attach it again",
			    "%s is gone, or is another one by now", set->names[i]);
}

static void check_dev(struct tp_net *net, const struct net_dev *dev, bool look)
{
	struct tp_inst inst;

	if (tp_inst_open(dev, &inst)) {
		say(true, dev->name, "see its pins with ls " TP_ROOT, "its pins cannot be read");
	} else if (inst.there && !inst.set) {
		say(true, dev->name, "tproxy attach it again",
		    "its program is of another tproxy and cannot be read");
	} else if (inst.there) {
		check_net(net, dev, inst.set, look);
		check_listeners(dev, &inst);
		check_order(dev, &inst);
		check_senders(dev, inst.set);
	}
	tp_inst_close(&inst);
}

int verb_doctor(int argc, char **argv)
{
	const bool look = !env.fix || asked.dry_run;
	const char *next = look ? "tproxy doctor --fix removes it" : "removed";
	struct if_nameindex *all = NULL;
	struct tp_net net = {};
	struct tp_dead dead;
	struct net_dev dev;
	int rc, lock = -1;

	if (argc)
		return usage_error("doctor", "takes no arguments");
	findings = json_array();
	rc = pins_check() ?: tp_net_open(&net);
	/* while another tproxy works, what it has half made is no residue */
	if (!rc && !access(TP_ROOT, F_OK)) {
		lock = pins_lock(TP_ROOT, true);
		if (lock < 0) {
			complain_err(lock, TP_ROOT, "cannot lock");
			rc = FAILED;
		}
	}
	if (!rc)
		rc = tp_sweep(&net, look, &dead);
	if (!rc && dead.dead)
		say(false, TP_ROOT, next, "pins of %u devices that are gone, or were never attached",
		    dead.dead);
	if (!rc && dead.others)
		say(false, TP_ROOT, next, "pins of %u devices of other network namespaces, gone",
		    dead.others);
	if (!rc && dead.stale)
		say(false, TP_ROOT, next, "%u pins of rules that never came in force", dead.stale);
	if (!rc && dead.routes)
		say(false, "routes", next, "rules or routes of table %d that nobody needs",
		    TP_TABLE);
	if (!rc)
		all = if_nameindex();
	for (struct if_nameindex *i = all; i && i->if_index; i++)
		if (!dev_find(i->if_name, &dev))
			check_dev(&net, &dev, look);
	if (all)
		if_freenameindex(all);
	pins_unlock(lock);
	tp_net_close(&net);
	if (!rc && asked.json)
		rc = json_out(json_pack("{s:b, s:O}", "ok", !problems, "findings", findings));
	else if (!rc && !json_array_size(findings))
		puts("no problems");
	json_decref(findings);
	return rc ?: problems ? FAILED : DONE;
}
