// SPDX-License-Identifier: GPL-2.0-only
#include <argp.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sockkill-verbs.h"

const char *argp_program_version = "sockkill (skelkit) 0.1";

#define NETNS_MAX 1024

static __u32 netns[NETNS_MAX];
static __u32 states;

struct sk_job sk_defaults = {
	.want = {{true, true}, {true, true}},
	.netns = netns,
	.deadline = 2000,
	.records = -1,
};

struct sk_env env = {
	.name = "default",
	.interval = 10,
	.linger = 3600,
	.records = 1 << 18,
};

/* --- list and kill --- */

static char *joined(int argc, char **argv)
{
	size_t len = 1;
	char *text;

	for (int i = 0; i < argc; i++)
		len += strlen(argv[i]) + 1;
	text = calloc(1, len);
	for (int i = 0; text && i < argc; i++)
		sprintf(text + strlen(text), "%s%s", i ? " " : "", argv[i]);
	return text;
}

/* The filter that the words after the verb are; DONE, or an exit code and a message. */
static int read_filter(int argc, char **argv, struct sk_filter *filter)
{
	char *text = joined(argc, argv);
	struct sk_error err = {};
	int rc = text ? sk_filter_parse(text, filter, &err) : -ENOMEM;

	if (rc == -EINVAL) {
		complain("%s", err.msg);
		fprintf(stderr, "  %s\n  %*s^\n", text, (int)err.col, "");
	} else if (rc) {
		complain_err(rc, "filter", "cannot read");
	}
	free(text);
	return rc == -EINVAL ? USAGE : rc ? FAILED : DONE;
}

static int find(int argc, char **argv, bool destroy)
{
	struct sk_job job = sk_defaults;
	struct sk_filter filter;
	struct sk_result result;
	size_t left = 0;
	int rc = read_filter(argc, argv, &filter);

	if (rc)
		return rc;
	if (filter.states && states)
		return usage_error("--state", "the filter names states already");
	if (destroy && !filter.narrow && !env.force) {
		complain("kill: the filter has no address, port, device, mark, cgroup or cookie that "
			 "a socket must have: add one, look at what `list` says, or give --force");
		return USAGE;
	}
	if (destroy && !sk_has_destroy()) {
		complain("kill: this kernel lacks bpf_sock_destroy() (Linux 6.5); nothing was "
			 "changed");
		return LACKING;
	}
	if (filter.records || job.recorded) {
		job.records = sk_records_open();
		if (job.records == -ENOENT) {
			complain("the recorder is off: sockkill record on, and it knows of the sockets "
				 "that connect from then on");
			return FAILED;
		}
		if (job.records < 0) {
			complain_err(job.records, "records", "cannot read");
			return FAILED;
		}
	}
	job.filter = &filter;
	job.destroy = destroy && !asked.dry_run;
	job.states = filter.states ?: states;
	if (!job.states)
		job.states = destroy ? SK_STATES_KILL : SK_STATES_LIST;

	rc = sk_pass(&job, &result);
	if (!rc) {
		for (size_t i = 0; i < result.n; i++)
			left += result.victim[i].err == SK_UNRECORDED ||
				(result.victim[i].err < 0 && result.victim[i].err != -ENOENT);
		sk_warn(&result);
		if (asked.json)
			rc = json_out(sk_json(&result));
		else
			sk_text(&job, &result);
		left += result.untold + result.nunreachable;
		if (!rc && destroy && (left || result.incomplete))
			rc = FAILED;
		else if (!rc && !result.n)
			rc = NOTHING;
	}
	sk_result_free(&result);
	if (job.records >= 0)
		close(job.records);
	return rc;
}

static int list(int argc, char **argv)
{
	return find(argc, argv, false);
}

static int kill_verb(int argc, char **argv)
{
	return find(argc, argv, true);
}

/* --- probe --- */

static int probe(void)
{
	const struct need needs[] = {
		{"destroy", "bpf_sock_destroy() (Linux 6.5)", sk_has_destroy(), false},
		{"one-pass", "kernel/sockkill; without it each network namespace is entered and walked",
		 sk_has_iterators(), true},
	};

	return report_needs(needs, ARRAY_SIZE(needs));
}

/* --- main --- */

enum {
	OPT_NETNS = 0x1000,
	OPT_ALL_NETNS,
	OPT_PROTO,
	OPT_STATE,
	OPT_FAMILY,
	OPT_FORCE,
	OPT_DEADLINE,
	OPT_KERNEL,
	OPT_PER_NETNS,
	OPT_BACKENDS,
	OPT_NAME,
	OPT_INTERVAL,
	OPT_LINGER,
	OPT_FRESH,
	OPT_RECORDED,
	OPT_RECORDS,
};

static const struct argp_option options[] = {
	{"netns", OPT_NETNS, "NS", 0,
	 "only of this network namespace: a name, a path, pid:N or its number; can be repeated", 0},
	{"all-netns", OPT_ALL_NETNS, NULL, 0, "of all of them (default)", 0},
	{"proto", OPT_PROTO, "PROTO", 0, "tcp, udp or both (default)", 0},
	{"state", OPT_STATE, "STATE", 0, "as in ss(8); can be repeated", 0},
	{"family", OPT_FAMILY, "FAMILY", 0, "of the sockets: 4, 6 or both (default)", 0},
	{"force", OPT_FORCE, NULL, 0,
	 "kill: also by a filter that nearly all match; watch: an empty list is meant so", 0},
	{"deadline", OPT_DEADLINE, "SECONDS", 0, "how long to try again what is busy (default 2)",
	 0},
	{"recorded", OPT_RECORDED, NULL, 0,
	 "only sockets that reached their peer by a service, as far as the recorder saw it", 0},
	{"records", OPT_RECORDS, "N", 0, "record on: room for so many sockets (default 262144)", 0},
	{"backends", OPT_BACKENDS, "FILE", 0, "watch: the list, or - for changes by standard input",
	 0},
	{"interval", OPT_INTERVAL, "SECONDS", 0,
	 "watch: how often to look again for what has left (default 10)", 0},
	{"linger", OPT_LINGER, "SECONDS", 0, "watch: for how long to do that (default 3600)", 0},
	{"name", OPT_NAME, "NAME", 0, "watch: of what it remembers over a restart (default: default)",
	 0},
	{"fresh", OPT_FRESH, NULL, 0, "watch: forget what an earlier one has seen", 0},
	{"kernel", OPT_KERNEL, NULL, 0, "also sockets of the kernel itself, as of NFS", 0},
	{"per-netns", OPT_PER_NETNS, NULL, 0,
	 "enter and walk each network namespace, as on a kernel without kernel/sockkill", 0},
	{}};

static void netns_option(struct argp_state *state, const char *arg)
{
	int err;

	if (sk_defaults.nnetns == NETNS_MAX) {
		argp_error(state, "--netns can be given %d times", NETNS_MAX);
		return;
	}
	err = sk_netns_resolve(arg, &netns[sk_defaults.nnetns++]);
	if (err)
		argp_error(state, "--netns: %s: %s", arg,
			   err == -EINVAL ? "not a network namespace" : strerror(-err));
}

#define NAME_CHARS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

static error_t parse_opt(int key, char *arg, struct argp_state *state)
{
	static bool proto[2] = {true, true}, family[2] = {true, true};
	static const char *const protos[] = {"both", "tcp", "udp", NULL};
	static const char *const families[] = {"both", "4", "6", NULL};
	int i;

	switch (key) {
	case OPT_NETNS:
		netns_option(state, arg);
		break;
	case OPT_ALL_NETNS:
		sk_defaults.nnetns = 0;
		break;
	case OPT_PROTO:
		i = option_word(state, "proto", arg, protos);
		proto[0] = i != 2;
		proto[1] = i != 1;
		break;
	case OPT_FAMILY:
		i = option_word(state, "family", arg, families);
		family[0] = i != 2;
		family[1] = i != 1;
		break;
	case OPT_STATE:
		if (!sk_state_mask(arg))
			argp_error(state, "--state: %s: not a state; they are named as in ss(8)",
				   arg);
		states |= sk_state_mask(arg);
		break;
	case OPT_FORCE:
		env.force = true;
		break;
	case OPT_DEADLINE:
		sk_defaults.deadline = 1000 * option_u32(state, "deadline", arg, 0, 3600);
		break;
	case OPT_KERNEL:
		sk_defaults.kernel_socks = true;
		break;
	case OPT_PER_NETNS:
		sk_defaults.per_netns = true;
		break;
	case OPT_BACKENDS:
		env.backends = arg;
		break;
	case OPT_NAME:
		if (!*arg || strlen(arg) > 32 || strspn(arg, NAME_CHARS) != strlen(arg))
			argp_error(state, "--name takes up to 32 letters, digits, - and _");
		env.name = arg;
		break;
	case OPT_INTERVAL:
		env.interval = option_u32(state, "interval", arg, 1, 86400);
		break;
	case OPT_RECORDED:
		sk_defaults.recorded = true;
		break;
	case OPT_RECORDS:
		env.records = option_u32(state, "records", arg, 1, 1 << 24);
		break;
	case OPT_LINGER:
		env.linger = option_u32(state, "linger", arg, 0, UINT32_MAX);
		break;
	case OPT_FRESH:
		env.fresh = true;
		break;
	case ARGP_KEY_END:
		for (i = 0; i < 4; i++)
			sk_defaults.want[i / 2][i % 2] = proto[i / 2] && family[i % 2];
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const struct verb verbs[] = {{"list", list}, {"kill", kill_verb}, {"watch", verb_watch},
				    {"record", verb_record}, {}};

static const char doc[] =
	"Find sockets in all network namespaces, and destroy them.\v"
	"FILTER: as in ss(8), with `and`, `or`, `not` and parentheses: dst ADDR[/LEN][:PORT], src, "
	"dport OP :PORT, sport, service ADDR[:PORT], dev NAME, fwmark MARK[/MASK], cgroup PATH, cookie N, state STATE, "
	"exclude STATE. Names are not resolved.\n"
	"`watch` reads a list of backends, ADDR:PORT[/tcp|/udp] a line or as JSON, and destroys the "
	"sockets that are connected to one that left it, at once, and for --linger seconds again. With - "
	"it reads changes: + ADDR:PORT, - ADDR:PORT.\n"
	"`record` keeps what each socket dialled and, behind programs that translate it, reached. With it "
	"`service ADDR[:PORT]` finds the clients of a service, whatever their backend.\n"
	"`list` leaves out listening and unconnected sockets, `kill` also those in TIME_WAIT and "
	"requests, unless states are named.\n"
	"Exit codes: 0 done, 1 failed or something is left, 2 usage or bad input, 3 nothing matched, "
	"4 the kernel lacks something.\n\n"
	"EXAMPLES\n"
	"  sockkill list dst 10.0.0.1:53\n"
	"  sockkill kill dst 10.0.0.1:53 or dst '[fd00::1]:53'\n"
	"  sockkill kill --netns web --proto tcp 'dport >= 8000' state established --dry-run\n"
	"  sockkill watch --backends /run/lb/backends\n";

int main(int argc, char **argv)
{
	static const struct tool tool = {
		.options = options,
		.parse = parse_opt,
		.args_doc = "list [FILTER...]\nkill FILTER...\nwatch --backends FILE|-\nrecord on|off|show",
		.doc = doc,
		.verbs = verbs,
		.probe = probe,
	};

	return tool_main(&tool, argc, argv);
}
