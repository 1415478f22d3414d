// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <bpf/btf.h>
#include <linux/if_link.h>
#include <netinet/ether.h>

#include "podlink-verbs.h"

struct pl_env env = {
	.host.fd = -1,
	.peer_name = "eth0",
	.kind = PL_NETKIT,
	.mode = NETKIT_L3,
	.mtu = -1,
	.gso_max = -1,
	.headroom = -1,
	.tailroom = -1,
	.policy = NETKIT_PASS,
	.peer_policy = NETKIT_DROP,
	.scrub = NETKIT_SCRUB_DEFAULT,
	.rounds = 5,
	.count = 2000,
};

const char *argp_program_version = "podlink (skelkit) 0.1";

bool pl_ours(const struct pl_link *link)
{
	return !strncmp(link->alias, PL_ALIAS, strlen(PL_ALIAS)) &&
	       (!link->alias[strlen(PL_ALIAS)] || link->alias[strlen(PL_ALIAS)] == ' ') &&
	       (link->kind == PL_VETH || (link->kind == PL_NETKIT && link->netkit.primary));
}

int pl_find(struct pl_ns *ns, const char *name, struct pl_link *link)
{
	int rc = pl_link_get(ns, name, 0, -1, link);

	if (rc == NOTHING)
		complain("%s: no such device", name);
	if (rc || pl_ours(link))
		return rc;
	complain("%s: is not a link of podlink, and is left alone", name);
	return FAILED;
}

const char *pl_pod_path(const struct pl_link *link)
{
	const char *rest = link->alias + strlen(PL_ALIAS);

	return *rest ? rest + 1 : rest;
}

int pl_pod_of(struct pl_ns *host, const struct pl_link *link, struct pl_ns *pod,
	      struct pl_link *peer)
{
	const char *path = pl_pod_path(link);
	int fd = *path ? netns_open(path) : -ENOENT, rc;

	pod->fd = -1;
	if (fd < 0)
		return NOTHING;
	rc = pl_ns_open(pod, fd);
	/* the path may lead elsewhere by now: the pair knows its ends */
	if (!rc)
		rc = pl_link_get(pod, NULL, link->peer, -1, peer);
	if (!rc && (peer->peer != link->ifindex || peer->kind != link->kind))
		rc = NOTHING;
	if (rc)
		pl_ns_close(pod);
	return rc;
}

/* --- set --- */

static const struct {
	const char *name;
	__u32 min, max;
	bool of_netkit;
	const char *type, *member; /* what only a kernel that can has; type NULL: a function */
	const char *patch;
} settings[] = {
	{"mtu", 68, 65535, false, NULL, "netkit_change_mtu", "0002"},
	{"gso-max", 1500, 524280, false, "net_device_ops", "ndo_gso_limits_changed", "0003"},
	{"headroom", 0, 1024, true, "netkit", "headroom_cfg", "0004"},
	{"tailroom", 0, 1024, true, "netkit", "headroom_cfg", "0004"},
};

/* netkit is never a module, so the kernel's own BTF tells. */
static bool kernel_has(const char *type, const char *name)
{
	struct btf *btf = btf__load_vmlinux_btf();
	const struct btf_type *t;
	bool has;
	int id;

	if (!btf)
		return false;
	id = btf__find_by_name_kind(btf, type ?: name, type ? BTF_KIND_STRUCT : BTF_KIND_FUNC);
	has = id > 0 && !type;
	t = id > 0 && type ? btf__type_by_id(btf, id) : NULL;
	for (__u32 i = 0; t && i < btf_vlen(t); i++)
		has |= !strcmp(btf__name_by_offset(btf, btf_members(t)[i].name_off), name);
	btf__free(btf);
	return has;
}

static int set(int argc, char **argv)
{
	struct pl_link_want want = PL_LINK_WANT;
	struct pl_link link;
	__u32 value, was;
	size_t i = 0;
	int rc;

	while (argc == 3 && i < ARRAY_SIZE(settings) && strcmp(argv[1], settings[i].name))
		i++;
	if (argc != 3 || i == ARRAY_SIZE(settings))
		return usage_error("set",
				"takes NAME, one of mtu, gso-max, headroom and tailroom, and a "
				"number");
	if (!parse_u32(argv[2], settings[i].min, settings[i].max, &value)) {
		complain("%s: %s is a number from %u to %u", argv[2], argv[1], settings[i].min,
			 settings[i].max);
		return USAGE;
	}
	rc = pl_find(&env.host, argv[0], &link);
	if (rc)
		return rc;
	if (link.kind == PL_VETH) {
		if (settings[i].of_netkit)
			complain("%s: a veth has no %s", argv[0], argv[1]);
		else
			complain("%s: a veth's ends do not change as one, and neither was changed; "
				 "set both with ip link, here and in %s",
				 argv[0], pl_pod_path(&link));
		return FAILED;
	}
	if (!kernel_has(settings[i].type, settings[i].member)) {
		complain("%s: this kernel lacks kernel/podlink/%s, without which the pod's end "
			 "would not follow; nothing was changed",
			 argv[0], settings[i].patch);
		return LACKING;
	}
	switch (i) {
	case 0:
		was = link.mtu;
		want.mtu = value;
		break;
	case 1:
		was = link.gso_max;
		want.gso_max = value;
		break;
	case 2:
		was = link.netkit.headroom;
		want.headroom = value;
		break;
	default:
		was = link.netkit.tailroom;
		want.tailroom = value;
	}
	if (was != value && !asked.dry_run)
		rc = pl_link_set(&env.host, &link, &want, NULL);
	if (!rc && was != value)
		change(argv[0], "change %s from %u to %u", argv[1], was, value);
	return report("link", argv[0], rc);
}

/* --- del --- */

static int del(int argc, char **argv)
{
	struct pl_ns *host = &env.host;
	struct pl_path path = {.pods = -1};
	struct pl_link link;
	__u32 swept = 0;
	int rc, lock = -1;

	if (argc != 1)
		return usage_error("del", "takes NAME");
	rc = pins_change(PL_ROOT, &lock) ?: pl_path_open(&path);
	if (!rc) {
		if (env.ignore_missing && pl_link_get(host, argv[0], 0, -1, &link) == NOTHING)
			rc = -1;
		else
			rc = pl_find(host, argv[0], &link);
	}
	if (!rc) {
		change(argv[0], "delete both ends");
		if (!asked.dry_run)
			rc = pl_link_del(host, &link) ?: pl_path_del(&path, link.ifindex) ?:
			     pl_path_sweep(&path, host, false, &swept);
	}
	pl_path_close(&path);
	pins_unlock(lock);
	return report("link", argv[0], rc < 0 ? DONE : rc);
}

/* --- probe --- */

static int probe(void)
{
	bool netkit = kernel_has(NULL, "netkit_link_attach");
	bool tcx = kernel_has(NULL, "tcx_link_attach");
	const struct need needs[] = {
		/* one of the two will do */
		{"netkit", "CONFIG_NETKIT, Linux 6.7; else --type veth", netkit, tcx},
		{"tcx", "Linux 6.6, for --type veth and --uplink", tcx, netkit},
		{"set mtu", "kernel/podlink/0002",
		 kernel_has(settings[0].type, settings[0].member), true},
		{"set gso-max", "kernel/podlink/0003",
		 kernel_has(settings[1].type, settings[1].member), true},
		{"set headroom", "kernel/podlink/0004; tailroom likewise",
		 kernel_has(settings[2].type, settings[2].member), true},
	};

	return report_needs(needs, ARRAY_SIZE(needs));
}

/* --- main --- */

static const struct verb verbs[] = {
	{"add", verb_add}, {"set", set}, {"show", verb_show},
	{"del", del}, {"doctor", verb_doctor}, {"bench", verb_bench}, {}};

enum {
	OPT_NETNS = 256,
	OPT_TYPE,
	OPT_MODE,
	OPT_PEER_NAME,
	OPT_ADDR,
	OPT_GATEWAY,
	OPT_MAC,
	OPT_PEER_MAC,
	OPT_MTU,
	OPT_GSO,
	OPT_HEADROOM,
	OPT_TAILROOM,
	OPT_POLICY,
	OPT_PEER_POLICY,
	OPT_SCRUB,
	OPT_FORWARD,
	OPT_UPLINK,
	OPT_FIX,
	OPT_IGNORE,
	OPT_CONTENDERS,
	OPT_PATHS,
	OPT_ROUNDS,
	OPT_COUNT,
	OPT_SECONDS,
};

static const struct argp_option options[] = {
	{"netns", OPT_NETNS, "POD", 0, "add: the pod's network namespace: a name or a path", 0},
	{"type", OPT_TYPE, "KIND", 0, "add: netkit (default) or veth", 0},
	{"mode", OPT_MODE, "MODE", 0, "add: l3 (default) or l2, with MACs and ARP", 0},
	{"peer-name", OPT_PEER_NAME, "NAME", 0, "add: of the device in the pod (default eth0)", 0},
	{"addr", OPT_ADDR, "CIDR", 0, "add: an address of the pod; up to 16", 0},
	{"gateway", OPT_GATEWAY, "ADDR", 0, "add: the pod's default route; one of each family", 0},
	{"mac", OPT_MAC, "MAC", 0, "add: of the host's end", 0},
	{"peer-mac", OPT_PEER_MAC, "MAC", 0, "add: of the pod's end", 0},
	{"mtu", OPT_MTU, "BYTES", 0, "add: of both ends", 0},
	{"gso-max", OPT_GSO, "BYTES", 0,
	 "add: of both ends and families, for BIG TCP; bench: the third size of tcp-", 0},
	{"headroom", OPT_HEADROOM, "BYTES", 0,
	 "add: kept free in front of packets; bench: of netkit-room (default 128)", 0},
	{"tailroom", OPT_TAILROOM, "BYTES", 0,
	 "add: kept free behind packets; bench: of netkit-room (default 64)", 0},
	{"policy", OPT_POLICY, "VERDICT", 0,
	 "add: pass (default) or drop to the pod where no program decides", 0},
	{"peer-policy", OPT_PEER_POLICY, "VERDICT", 0,
	 "add: pass or drop (default) from the pod where no program decides", 0},
	{"scrub", OPT_SCRUB, "WHAT", 0, "add: none, so that mark and priority survive, or default",
	 0},
	{"forward", OPT_FORWARD, NULL, 0, "add: the datapath between pods", 0},
	{"uplink", OPT_UPLINK, "DEV", 0, "add: and to the world by this device", 0},
	{"ignore-missing", OPT_IGNORE, NULL, 0, "del: nothing there is fine", 0},
	{"fix", OPT_FIX, NULL, 0, "doctor: remove what is ours and dead", 0},
	{"contenders", OPT_CONTENDERS, "LIST", 0,
	 "bench: of host, netkit-l3, netkit-l2, veth, netkit-stack, veth-stack and netkit-room", 0},
	{"paths", OPT_PATHS, "LIST", 0,
	 "bench: of out, in, pod, rr-out, rr-pod, tcp-out, tcp-in, tcp-pod, each also with a 6 "
	 "behind it, and vxlan and wireguard", 0},
	{"rounds", OPT_ROUNDS, "N", 0, "bench: how many (default 5)", 0},
	{"count", OPT_COUNT, "N", 0, "bench: packets of a round, or round trips (default 2000)", 0},
	{"seconds", OPT_SECONDS, "N", 0, "bench: begin no further round after that", 0},
	{}};

static void mac_arg(struct argp_state *state, const char *arg, __u8 *mac, bool *has)
{
	const struct ether_addr *a = ether_aton(arg);

	if (!a || a->ether_addr_octet[0] & 1)
		argp_error(state, "%s: not the MAC of a station", arg);
	else
		memcpy(mac, a->ether_addr_octet, 6);
	*has = true;
}

static error_t parse_opt(int key, char *arg, struct argp_state *state)
{
	/* in the order of their enums */
	static const char *const kinds[] = {"netkit", "veth", NULL};
	static const char *const modes[] = {"l2", "l3", NULL};
	static const char *const scrubs[] = {"none", "default", NULL};
	static const char *const verdicts[] = {"pass", "drop", NULL};
	static const int actions[] = {NETKIT_PASS, NETKIT_DROP};

	switch (key) {
	case OPT_NETNS:
		env.netns = arg;
		break;
	case OPT_TYPE:
		env.kind = option_word(state, "type", arg, kinds);
		break;
	case OPT_MODE:
		env.mode = option_word(state, "mode", arg, modes);
		env.of_netkit = true;
		break;
	case OPT_PEER_NAME:
		env.peer_name = arg;
		break;
	case OPT_ADDR:
		if (env.naddr == PL_ADDRS_MAX)
			argp_error(state, "--addr can be given %d times", PL_ADDRS_MAX);
		else if (!pl_cidr_parse(arg, &env.addr[env.naddr++]))
			argp_error(state,
				   "--addr: %s: not an address with the length of its prefix", arg);
		break;
	case OPT_GATEWAY:
		if (env.ngateway == 2 || !pl_cidr_parse(arg, &env.gateway[env.ngateway]) ||
		    strchr(arg, '/') ||
		    (env.ngateway && env.gateway[0].family == env.gateway[1].family))
			argp_error(state,
				   "--gateway: %s: not an address, or a second one of its family",
				   arg);
		env.ngateway++;
		break;
	case OPT_MAC:
		mac_arg(state, arg, env.mac, &env.has_mac);
		break;
	case OPT_PEER_MAC:
		mac_arg(state, arg, env.peer_mac, &env.has_peer_mac);
		break;
	case OPT_MTU:
		env.mtu = option_u32(state, "mtu", arg, 68, 65535);
		break;
	case OPT_GSO:
		env.gso_max = option_u32(state, "gso-max", arg, 1500, 524280);
		break;
	case OPT_HEADROOM:
		env.headroom = option_u32(state, "headroom", arg, 0, 65535);
		break;
	case OPT_TAILROOM:
		env.tailroom = option_u32(state, "tailroom", arg, 0, 65535);
		break;
	case OPT_POLICY:
		env.policy = actions[option_word(state, "policy", arg, verdicts)];
		env.of_netkit = true;
		break;
	case OPT_PEER_POLICY:
		env.peer_policy = actions[option_word(state, "peer-policy", arg, verdicts)];
		env.of_netkit = true;
		break;
	case OPT_SCRUB:
		env.scrub = option_word(state, "scrub", arg, scrubs);
		env.of_netkit = true;
		break;
	case OPT_FORWARD:
		env.forward = true;
		break;
	case OPT_UPLINK:
		env.uplink = arg;
		break;
	case OPT_IGNORE:
		env.ignore_missing = true;
		break;
	case OPT_FIX:
		env.fix = true;
		break;
	case OPT_CONTENDERS:
		env.contenders = arg;
		break;
	case OPT_PATHS:
		env.paths = arg;
		break;
	case OPT_ROUNDS:
		env.rounds = option_u32(state, "rounds", arg, 1, 1000);
		break;
	case OPT_COUNT:
		env.count = option_u32(state, "count", arg, 1, 20000);
		break;
	case OPT_SECONDS:
		env.seconds = option_u32(state, "seconds", arg, 1, 86400);
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const char args_doc[] = "add NAME --netns POD\nset NAME mtu|gso-max|headroom|tailroom N\n"
			       "show [NAME]\ndel NAME\ndoctor\nbench";

static const char doc[] =
	"Links for pods, by netkit or veth, and the datapath between them.\v"
	"NAME: of the device on the host.\n"
	"Exit codes: 0 done or already so, 1 failed, 2 usage or bad input, 3 nothing matched, "
	"4 the kernel lacks something.\n\n"
	"EXAMPLES\n"
	"  podlink add web0 --netns web --addr 10.0.0.2/32 --gateway 10.0.0.1 --forward --uplink "
	"eth0\n"
	"  podlink show web0 -j\n"
	"  podlink set web0 mtu 9000\n"
	"  podlink del web0\n"
	"  podlink bench --paths out,in,pod,vxlan --seconds 30\n";

static int ready(void)
{
	return pl_ns_open(&env.host, -1);
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
	int rc = tool_main(&tool, argc, argv);

	pl_ns_close(&env.host);
	return rc;
}
