// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tproxy-verbs.h"

struct tp_env env = {
	.protos = TP_TCP,
};

const char *argp_program_version = "tproxy (skelkit) 0.1";

const char *const tp_missing_words[] = {"drop", "pass", "reset", NULL};

/* The patch that opens the other hooks, and what tells that it is there. */
#define PATCH "kernel/tproxy/0010"
#define PATCH_FUNCTION "skb_sk_assign_ref"

/* --- rules and senders, from words --- */

static int add_rule(struct tp_set *set, const char *text, __u8 protos, bool except,
		    int (*change_set)(struct tp_set *set, const struct tp_rule *rule), int *changed)
{
	struct tp_rule rules[TP_RULES];
	const char *why;
	size_t n = tp_rule_parse(text, protos, except, rules, ARRAY_SIZE(rules), &why);

	if (!n) {
		complain("'%s': %s", text, why);
		return USAGE;
	}
	for (size_t i = 0; i < n; i++) {
		char line[TP_RULE_TEXT];
		int rc = change_set(set, &rules[i]);

		if (rc < 0) {
			complain("'%s': more than %d rules", text, TP_RULES);
			return FAILED;
		}
		if (rc && changed)
			change(tp_rule_text(&rules[i], line), "%s",
			       change_set == tp_set_add ? "add" : "delete");
		if (changed)
			*changed += rc;
	}
	return DONE;
}

/* "except" WORD: an address or a sender. */
static int add_except(struct tp_net *net, struct tp_set *set, const char *text)
{
	struct tp_sender sender;
	char name[TP_NAME];
	const char *why;

	if (!strcmp(text, "local"))
		return tp_net_local(net, set);
	if (tp_sender_parse(text, &sender, name, &why)) {
		if (tp_set_add_sender(set, &sender, name) >= 0)
			return DONE;
		complain("'%s': more than %d marks, cgroups and users", text, TP_SENDERS);
		return FAILED;
	}
	if (*why) {
		complain("'%s': %s", text, why);
		return USAGE;
	}
	return add_rule(set, text, TP_BOTH, true, tp_set_add, NULL);
}

/* A hook where packets have lost their sender's socket can only know its mark. */
static int check_senders(const struct tp_set *set)
{
	const struct tp_hook_desc *hook = &tp_hooks[set->conf.hook];

	for (__u32 i = 0; i < set->conf.nsenders; i++)
		if (set->senders[i].kind != TP_BY_MARK && !hook->sender) {
			complain("'%s': at %s nothing tells who sent a packet; a mark may",
				 set->names[i], hook->name);
			return USAGE;
		}
	return DONE;
}

/* --- attach --- */

static int set_of_options(struct tp_net *net, struct tp_set *set)
{
	int rc = DONE;

	set->conf.missing = env.missing;
	for (int i = 0; i < env.nto; i++)
		if (!tp_to_parse(env.to[i], set->conf.to)) {
			complain("--to %s: not [ADDR]:PORT, with IPv6 in brackets", env.to[i]);
			return USAGE;
		}
	for (int i = 0; !rc && i < env.nexcept; i++)
		rc = add_except(net, set, env.except[i]);
	if (!rc && !env.ndst)
		rc = tp_net_local(net, set) ?:
		     add_rule(set, "any", env.protos, false, tp_set_add, NULL);
	if (!rc && env.ndst == 1 && !strcmp(env.dst[0], "none"))
		return check_senders(set);
	for (int i = 0; !rc && i < env.ndst; i++)
		rc = add_rule(set, env.dst[i], env.protos, false, tp_set_add, NULL);
	return rc ?: check_senders(set);
}

/* What the kernel has to have, told before anything is touched. */
static int check_kernel(const char *dev, int hook)
{
	if (!tp_kernel_has("tcx_link_attach")) {
		complain("%s: Linux 6.6 is needed, for tcx; nothing is attached", dev);
		return LACKING;
	}
	if (tp_hooks[hook].patched && !tp_kernel_has(PATCH_FUNCTION)) {
		complain("%s: %s needs a kernel with " PATCH ", without which "
			 "bpf_sk_assign() is for tcx-ingress alone; nothing is attached",
			 dev, tp_hooks[hook].name);
		return LACKING;
	}
	return DONE;
}

static int attach(int argc, char **argv)
{
	struct tp_inst inst = {.link.fd = -1};
	bool routes = false, changed = false;
	int hook, rc, err, lock = -1;
	struct tp_set *set = NULL;
	struct tp_net net = {};
	struct tp_dead dead;
	struct net_dev dev;

	hook = argc == 2 ? tp_hook_find(argv[0]) : -1;
	if (hook < 0)
		return usage_error("attach", "takes one of netkit-peer, netkit-primary, tcx-egress "
					     "and tcx-ingress, and DEV");
	rc = dev_arg(argv[1], &dev) ?: check_kernel(argv[1], hook) ?: tp_net_open(&net);
	set = rc ? NULL : calloc(1, sizeof(*set));
	if (!set) {
		rc = rc ?: FAILED;
		goto out;
	}
	set->conf.hook = hook;
	rc = set_of_options(&net, set) ?: pins_change(TP_ROOT, &lock);
	if (rc)
		goto out;
	err = tp_inst_open(&dev, &inst);
	if (err) {
		complain_err(err, dev.name, "cannot open its pins");
		rc = FAILED;
		goto out;
	}
	if (inst.there && inst.set && inst.set->conf.hook != set->conf.hook) {
		complain("%s: is attached at %s; tproxy detach %s first", dev.name,
			 tp_hooks[inst.set->conf.hook].name, dev.name);
		rc = FAILED;
		goto out;
	}
	if (!inst.there)
		rc = tp_sweep(&net, asked.dry_run, &dead);
	/* what the sweep has removed is not there to be closed */
	if (!rc && !inst.there) {
		tp_inst_close(&inst);
		tp_inst_open(&dev, &inst);
	}
	/* The way into the stack first: a packet that is given to the proxy needs it. */
	if (!rc && tp_hooks[hook].routed)
		rc = tp_net_enter(&net, dev.name, asked.dry_run, &routes);
	if (!rc)
		rc = tp_inst_put(&dev, &inst, set, env.first, &changed);
	if (rc && routes && !inst.there && !asked.dry_run)
		tp_sweep(&net, false, &dead);
	if (!rc && routes)
		change(dev.name, "add a routing rule, and the table %d", TP_TABLE);
	if (!rc && hook == TP_TCX_EGRESS && tp_early_demux())
		complain("%s: TCP that this host forwards is lost behind the first segment unless "
			 "net.ipv4.tcp_early_demux is 0; what it sends itself is not concerned",
			 dev.name);
	if (!rc && changed)
		change(dev.name, inst.there ? "replace the program at %s" : "attach to %s",
		       tp_hooks[hook].name);
out:
	tp_inst_close(&inst);
	pins_unlock(lock);
	tp_net_close(&net);
	free(set);
	return report("device", argv[1], rc);
}

static int detach(int argc, char **argv)
{
	struct tp_inst inst = {.link.fd = -1};
	struct tp_net net = {};
	int rc, found, err, lock = -1;
	struct tp_dead dead;
	struct net_dev dev;

	if (argc != 1)
		return usage_error("detach", "takes DEV");
	rc = pins_change(TP_ROOT, &lock) ?: tp_net_open(&net);
	if (rc)
		goto out;
	found = dev_arg(argv[0], &dev);
	err = found ? 0 : tp_inst_open(&dev, &inst);
	if (err) {
		complain_err(err, dev.name, "cannot open its pins");
		rc = FAILED;
	} else if (!found && inst.there) {
		change(dev.name, "detach");
		if (!asked.dry_run)
			rc = tp_inst_remove(&inst);
	} else if (!found) {
		if (!env.ignore_missing)
			complain("%s: nothing is attached", dev.name);
		found = NOTHING;
	}
	/* Its rules, and what belongs to devices that went without being detached. */
	rc = rc ?: tp_sweep(&net, asked.dry_run, &dead);
	if (!rc && found && !(found == NOTHING && env.ignore_missing))
		rc = found;
out:
	tp_inst_close(&inst);
	pins_unlock(lock);
	tp_net_close(&net);
	return report("device", argv[0], rc);
}

/* --- rules at run time --- */

/* [tcp|udp|both] WHERE, or except WHERE|SENDER, in words or as one. */
static int change_rule(const char *verb, int argc, char **argv)
{
	static const char *const protos[] = {"tcp", "udp", "both"};
	bool add = !strcmp(verb, "add"), except = false, changed = false;
	__u8 bits = env.protos;
	struct tp_inst inst = {.link.fd = -1};
	char text[512] = "", name[TP_NAME], *word, *save, *where = NULL;
	struct tp_sender sender;
	const char *why = "";
	struct net_dev dev;
	int rc, lock = -1, n = 0;

	for (int i = 1; i < argc; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s", i > 1 ? " " : "",
			 argv[i]);
	for (word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		bool known = false;

		if (!where && !except && !strcmp(word, "except")) {
			except = known = true;
			bits = TP_BOTH;
		}
		for (int i = 0; !where && !known && i < 3; i++)
			if (!strcmp(word, protos[i])) {
				bits = i + 1;
				known = true;
			}
		if (!known && where) {
			where = NULL;
			break;
		}
		if (!known)
			where = word;
	}
	if (argc < 2 || !where)
		return usage_error(verb, "takes DEV and [tcp|udp|both] CIDR[:PORTS] or except "
					 "CIDR[:PORTS]|mark:N[/MASK]|cgroup:PATH|uid:N");
	rc = dev_arg(argv[0], &dev) ?: pins_change(TP_ROOT, &lock) ?: tp_inst_get(&dev, &inst);
	if (rc)
		goto out;
	if (except && tp_sender_parse(where, &sender, name, &why)) {
		n = add ? tp_set_add_sender(inst.set, &sender, name) :
			  tp_set_del_sender(inst.set, &sender);
		if (n < 0) {
			complain("'%s': more than %d marks, cgroups and users", where, TP_SENDERS);
			rc = FAILED;
		} else if (n) {
			change(where, "%s", add ? "add" : "delete");
		}
		rc = rc ?: check_senders(inst.set);
	} else if (*why) {
		complain("'%s': %s", where, why);
		rc = USAGE;
	} else {
		rc = add_rule(inst.set, where, bits, except, add ? tp_set_add : tp_set_del, &n);
	}
	if (!rc && !add && !n) {
		complain("%s: has no such rule; see tproxy show %s", dev.name, dev.name);
		rc = NOTHING;
	}
	if (!rc && n) {
		struct tp_set *wanted = inst.set;

		/* what is in force differs by now, so there is nothing to compare with */
		inst.set = NULL;
		rc = tp_inst_put(&dev, &inst, wanted, false, &changed);
		inst.set = wanted;
	}
out:
	tp_inst_close(&inst);
	pins_unlock(lock);
	return report("device", argv[0], rc);
}

static int add(int argc, char **argv)
{
	return change_rule("add", argc, argv);
}

static int del(int argc, char **argv)
{
	return change_rule("del", argc, argv);
}

/* --- probe --- */

static int probe(void)
{
	bool series = tp_kernel_has(PATCH_FUNCTION);
	const struct need needs[] = {
		{"tcx", "Linux 6.6", tp_kernel_has("tcx_link_attach"), false},
		{"routing rules", "CONFIG_IP_MULTIPLE_TABLES", tp_kernel_has("fib4_rules_init"),
		 false},
		{"tcx-ingress", "CONFIG_INET, Linux 6.6", tp_kernel_has("bpf_rdonly_cast"), false},
		{"tcx-egress", PATCH, series, true},
		{"netkit-peer", tp_kernel_has("netkit_link_attach") ? PATCH : "CONFIG_NETKIT",
		 series && tp_kernel_has("netkit_link_attach"), true},
		{"netkit-primary", tp_kernel_has("netkit_link_attach") ? PATCH : "CONFIG_NETKIT",
		 series && tp_kernel_has("netkit_link_attach"), true},
	};

	return report_needs(needs, ARRAY_SIZE(needs));
}

/* --- main --- */

static const struct verb verbs[] = {
	{"attach", attach}, {"detach", detach}, {"add", add}, {"del", del},
	{"register", verb_register}, {"show", verb_show}, {"stats", verb_stats}, {"log", verb_log},
	{"doctor", verb_doctor}, {}};

enum {
	OPT_NETNS = 256,
	OPT_TO,
	OPT_PROTO,
	OPT_DST,
	OPT_EXCEPT,
	OPT_MISSING,
	OPT_FIRST,
	OPT_IGNORE,
	OPT_PID,
	OPT_UNIX,
	OPT_PORT,
	OPT_CLEAR,
	OPT_COUNT,
	OPT_SECONDS,
	OPT_FIX,
};

static const struct argp_option options[] = {
	{"netns", OPT_NETNS, "NAME", 0, "the network namespace of DEV: a name or a path", 0},
	{"to", OPT_TO, "[ADDR]:PORT", 0,
	 "attach: where the proxy listens, once for each family; without ADDR on loopback", 0},
	{"proto", OPT_PROTO, "PROTO", 0, "attach, add: tcp (default), udp or both", 0},
	{"dst", OPT_DST, "CIDR[:PORTS]", 0,
	 "attach: what is redirected (default: any but the addresses of the namespace); none: only "
	 "what belongs to connections",
	 0},
	{"except", OPT_EXCEPT, "WHAT", 0,
	 "attach: what passes by: CIDR[:PORTS], local, mark:N[/MASK], cgroup:PATH or uid:N", 0},
	{"on-missing", OPT_MISSING, "WHAT", 0,
	 "attach: drop (default), pass or reset what cannot be given to the proxy", 0},
	{"first", OPT_FIRST, NULL, 0, "attach: in front of all other programs", 0},
	{"ignore-missing", OPT_IGNORE, NULL, 0, "detach: nothing there is fine", 0},
	{"pid", OPT_PID, "N", 0, "register: the process that has the listening sockets", 0},
	{"unix", OPT_UNIX, "SOCK", 0,
	 "register: a UNIX socket at which who connects is sent the listening sockets", 0},
	{"port", OPT_PORT, "N", 0, "register: of several listening sockets those at this port", 0},
	{"clear", OPT_CLEAR, NULL, 0, "register: none any more", 0},
	{"count", OPT_COUNT, "N", 0, "log: end after so many lines", 0},
	{"seconds", OPT_SECONDS, "N", 0, "log: end after this time", 0},
	{"fix", OPT_FIX, NULL, 0,
	 "doctor: remove what is ours and dead, add routing rules and routes that are missing", 0},
	{}};

static void word_arg(struct argp_state *state, const char *option, const char *arg,
		     const char **list, int *n, int max)
{
	if (*n == max)
		argp_error(state, "--%s can be given %d times", option, max);
	else
		list[(*n)++] = arg;
}

static error_t parse_opt(int key, char *arg, struct argp_state *state)
{
	static const char *const protos[] = {"tcp", "udp", "both", NULL};

	switch (key) {
	case OPT_NETNS:
		env.netns = arg;
		break;
	case OPT_TO:
		word_arg(state, "to", arg, env.to, &env.nto, ARRAY_SIZE(env.to));
		break;
	case OPT_PROTO:
		env.protos = option_word(state, "proto", arg, protos) + 1;
		break;
	case OPT_DST:
		word_arg(state, "dst", arg, env.dst, &env.ndst, TP_WORDS_MAX);
		break;
	case OPT_EXCEPT:
		word_arg(state, "except", arg, env.except, &env.nexcept, TP_WORDS_MAX);
		break;
	case OPT_MISSING:
		env.missing = option_word(state, "on-missing", arg, tp_missing_words);
		break;
	case OPT_FIRST:
		env.first = true;
		break;
	case OPT_IGNORE:
		env.ignore_missing = true;
		break;
	case OPT_PID:
		env.pid = option_u32(state, "pid", arg, 1, INT32_MAX);
		break;
	case OPT_UNIX:
		env.unix_path = arg;
		break;
	case OPT_PORT:
		env.port = option_u32(state, "port", arg, 1, 65535);
		break;
	case OPT_CLEAR:
		env.clear = true;
		break;
	case OPT_COUNT:
		env.count = option_u32(state, "count", arg, 1, 1000000000);
		break;
	case OPT_SECONDS:
		env.seconds = option_u32(state, "seconds", arg, 1, 86400);
		break;
	case OPT_FIX:
		env.fix = true;
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const char args_doc[] =
	"attach HOOK DEV --to [ADDR]:PORT\ndetach DEV\nadd|del DEV RULE\n"
	"register DEV --pid N|--unix SOCK\nshow|stats [DEV]\nlog DEV\ndoctor";

static const char doc[] =
	"Connections and datagrams of others are given to a proxy on this host, which sees where "
	"they were going.\v"
	"HOOK: tcx-ingress: what comes in by DEV; netkit-peer: what the pod behind the netkit "
	"device DEV sends; netkit-primary: what is sent to that pod, for a proxy in it; "
	"tcx-egress: what leaves by DEV. All but tcx-ingress need a kernel with " PATCH ".\n"
	"RULE: [tcp|udp|both] CIDR[:PORTS], or except CIDR[:PORTS]|mark:N[/MASK]|cgroup:PATH|uid:N. "
	"IPv6 with ports is in brackets.\n"
	"The proxy's sockets need IP_TRANSPARENT; getsockname() is the original destination, of "
	"datagrams IP_RECVORIGDSTADDR tells it.\n"
	"Exit codes: 0 done or already so, 1 failed, 2 usage or bad input, 3 nothing matched, "
	"4 the kernel lacks something.\n\n"
	"EXAMPLES\n"
	"  tproxy attach tcx-ingress web0 --to :15001 --dst any:80,443\n"
	"  tproxy attach netkit-peer web0 --to :15001 --proto both --except 10.0.0.0/8\n"
	"  tproxy add web0 udp 203.0.113.0/24:53\n"
	"  tproxy register web0 --pid 4711\n"
	"  tproxy stats web0 -j\n"
	"  tproxy detach web0\n";

/* Devices, sockets, routes and addresses are all of one network namespace. */
static int ready(void)
{
	int err = env.netns ? netns_enter(env.netns) : 0;

	if (!err)
		return DONE;
	complain_err(err, env.netns, "cannot enter the network namespace%s",
		     err == -EPERM ? ", for which CAP_SYS_ADMIN is needed too" : "");
	return FAILED;
}

int main(int argc, char **argv)
{
	static const struct tool tool = {
		.options = options,
		.parse = parse_opt,
		.args_doc = args_doc,
		.doc = doc,
		.verbs = verbs,
		.ready = ready,
		.probe = probe,
	};

	return tool_main(&tool, argc, argv);
}
