// SPDX-License-Identifier: GPL-2.0-only
#include <net/if_arp.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/if_link.h>

#include "podlink-verbs.h"

#define LIMBO_NAME "host" /* not one that the kernel gives to the other end */

/* Let the stack forward what comes from the pod, as the programs do. */
static int let_forward(const char *name)
{
	static const struct {
		const char *key;
		bool needed;
	} keys[] = {
		{"ipv4/conf/%s/forwarding", true},
		{"ipv6/conf/%s/forwarding", false}, /* IPv6 may be off */
		/* Linux 6.17; else IPv6 heeds only the host's own switch, which is not ours */
		{"ipv6/conf/%s/force_forwarding", false},
	};
	char path[128];
	int rc = DONE;

	for (size_t i = 0; !rc && i < ARRAY_SIZE(keys); i++) {
		int fd, n = snprintf(path, sizeof(path), "/proc/sys/net/");

		snprintf(path + n, sizeof(path) - n, keys[i].key, name);
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT && !keys[i].needed)
			continue;
		if (fd < 0 || write(fd, "1\n", 2) != 2) {
			complain_err(errno, path, "cannot allow forwarding from the pod");
			rc = FAILED;
		}
		if (fd >= 0)
			close(fd);
	}
	return rc;
}

/* An address without its prefix. */
static struct pl_cidr single(const struct pl_cidr *cidr)
{
	struct pl_cidr one = *cidr;

	one.len = cidr->family == AF_INET ? 32 : 128;
	return one;
}

/* Whether the pod's default route is free, or already this one. */
static int default_free(struct pl_ns *pod, const struct pl_link *peer,
			const struct pl_cidr *gateway)
{
	struct pl_cidr has;
	char text[46];
	__u32 by;
	int rc = pl_default_get(pod, gateway->family, &has, &by);

	if (rc == NOTHING)
		return DONE;
	if (rc || (by == peer->ifindex && has.family &&
		   !memcmp(&has.addr, &gateway->addr, sizeof(has.addr))))
		return rc;
	complain("%s: has a default route already, by %s of device %u; remove it, or leave out "
		 "--gateway",
		 env.netns, has.family ? pl_addr_text(&has.addr, text) : "no gateway", by);
	return FAILED;
}

static int pod_side(struct pl_ns *pod, const struct pl_link *peer, bool *changed)
{
	struct pl_link_want up = PL_LINK_WANT;
	int rc = DONE;

	up.up = 1;
	for (__u32 i = 0; !rc && i < env.ngateway; i++)
		rc = default_free(pod, peer, &env.gateway[i]);
	for (__u32 i = 0; !rc && i < env.naddr; i++)
		rc = pl_addr_add(pod, peer->ifindex, &env.addr[i], changed);
	if (!rc && !peer->up)
		rc = pl_link_set(pod, peer, &up, NULL);
	for (__u32 i = 0; !rc && i < env.ngateway; i++) {
		struct pl_cidr via = single(&env.gateway[i]), all = {.family = via.family};

		rc = pl_route_add(pod, peer->ifindex, &via, NULL, changed);
		if (!rc)
			rc = pl_route_add(pod, peer->ifindex, &all, &via, changed);
	}
	return rc;
}

static int host_side(struct pl_ns *host, const struct pl_link *link, bool *changed)
{
	char text[46];
	int rc = DONE;
	__u32 by;

	if (env.forward)
		rc = let_forward(link->name);
	for (__u32 i = 0; !rc && i < env.naddr; i++) {
		struct pl_cidr one = single(&env.addr[i]);

		rc = pl_route_add(host, link->ifindex, &one, NULL, changed);
		if (rc || pl_route_get(host, &one.addr, &by) || by == link->ifindex)
			continue;
		complain("%s: the host reaches %s by device %u; remove that route first",
			 link->name, pl_addr_text(&one.addr, text), by);
		rc = FAILED;
	}
	return rc;
}

static void forward_init(struct pl_forward *fwd, const struct pl_link *link,
			 const struct pl_link *peer, __u32 uplink)
{
	*fwd = (struct pl_forward){
		.kind = link->kind,
		.uplink = uplink,
		.addrs = env.addr,
		.naddrs = env.naddr,
		.l2 = link->kind == PL_VETH || link->netkit.mode == NETKIT_L2,
	};
	memcpy(fwd->host_mac, link->mac, sizeof(fwd->host_mac));
	memcpy(fwd->mac, peer->mac, sizeof(fwd->mac));
	for (__u32 i = 0; i < env.ngateway; i++) {
		if (env.gateway[i].family == AF_INET)
			fwd->gateway4 = &env.gateway[i].addr;
		else
			fwd->gateway6 = &env.gateway[i].addr;
	}
}

/* An index that is free on the host: nothing else may name the device before it is there. */
static int free_index(struct pl_ns *host, __u32 *ifindex)
{
	struct pl_link *links;
	size_t n;
	int rc = pl_link_list(host, &links, &n);

	for (size_t i = 0; i < n; i++)
		if (links[i].ifindex >= *ifindex)
			*ifindex = links[i].ifindex + 1;
	free(links);
	return rc;
}

/*
 * The pair is made in a namespace that lives as long as this process; the pod's end moves
 * to the pod, gets all it needs, and with one last message the host's end appears on the
 * host. Whoever dies before that leaves nothing.
 */
static int make(struct pl_ns *host, struct pl_ns *pod, struct pl_path *path, const char *name,
		__u32 uplink)
{
	struct pl_pair_want pair = {
		.kind = env.kind,
		.mode = env.mode,
		.policy = env.policy,
		.peer_policy = env.peer_policy,
		.scrub = env.scrub,
		.peer_scrub = env.scrub,
		.headroom = env.headroom,
		.tailroom = env.tailroom,
	};
	struct pl_link_want here = PL_LINK_WANT, there = PL_LINK_WANT, go = PL_LINK_WANT;
	struct pl_link link = {0}, peer = {0};
	char alias[sizeof(link.alias)];
	struct pl_forward fwd;
	struct pl_ns limbo;
	__u32 ifindex = 1;
	bool pinned = false, there_now = false;
	int rc, err = 0;

	snprintf(alias, sizeof(alias), "%s %s", PL_ALIAS, env.netns);
	here.alias = alias;
	here.mac = env.has_mac ? env.mac : NULL;
	here.mtu = env.mtu;
	here.gso_max = env.gso_max;
	there.name = env.peer_name;
	there.to = pod->fd;
	there.mac = env.has_peer_mac ? env.peer_mac : NULL;
	there.mtu = env.mtu;
	there.gso_max = env.gso_max;

	rc = pl_ns_new(&limbo);
	if (!rc)
		rc = pl_pair_new(&limbo, LIMBO_NAME, name, &pair);
	if (!rc)
		rc = pl_link_get(&limbo, LIMBO_NAME, 0, -1, &link);
	if (!rc)
		rc = pl_link_set(&limbo, &link, &here, NULL);
	if (!rc)
		rc = pl_link_get(&limbo, NULL, link.peer, -1, &peer);
	if (!rc)
		rc = pl_link_set(&limbo, &peer, &there, NULL);
	if (!rc)
		rc = pl_link_get(pod, env.peer_name, 0, -1, &peer);
	if (!rc)
		rc = pl_link_get(&limbo, LIMBO_NAME, 0, -1, &link);
	if (!rc)
		rc = pod_side(pod, &peer, NULL);
	while (!rc) {
		rc = free_index(host, &ifindex);
		if (!rc && env.forward) {
			forward_init(&fwd, &link, &peer, uplink);
			rc = pl_ns_enter(&limbo);
			if (!rc)
				rc = pl_path_add(path, host, name, link.ifindex, ifindex, &fwd);
			pinned = !rc;
			if (pl_ns_enter(host))
				rc = FAILED;
		}
		if (rc)
			break;
		go.name = name;
		go.to = host->fd;
		go.ifindex = ifindex;
		go.up = 1;
		rc = pl_link_set(&limbo, &link, &go, &err);
		there_now = !rc;
		if (!rc)
			break;
		/* EBUSY: somebody was faster with this index */
		if (err != EBUSY)
			pl_link_refused(&limbo, name, "cannot move it to the host");
		else if (!pinned || !pl_path_del(path, ifindex))
			rc = DONE;
	}
	if (!rc)
		rc = pl_link_get(host, name, 0, -1, &link);
	if (!rc)
		rc = host_side(host, &link, NULL);
	if (rc && there_now)
		pl_link_del(host, &link);
	if (rc && pinned)
		pl_path_del(path, ifindex);
	pl_ns_close(&limbo);
	return rc;
}

/* What an existing link has otherwise than it is asked for; NULL: nothing. */
static const char *differs(const struct pl_link *link, const struct pl_link *peer)
{
	if (link->kind != env.kind)
		return "type";
	if (link->kind == PL_NETKIT) {
		if (link->netkit.mode != env.mode)
			return "mode";
		if (link->netkit.policy != env.policy ||
		    link->netkit.peer_policy != env.peer_policy)
			return "policy";
		if (link->netkit.scrub != env.scrub || link->netkit.peer_scrub != env.scrub)
			return "scrub";
		if (env.headroom >= 0 && link->netkit.headroom != env.headroom)
			return "headroom";
		if (env.tailroom >= 0 && link->netkit.tailroom != env.tailroom)
			return "tailroom";
	}
	if (strcmp(peer->name, env.peer_name))
		return "name in the pod";
	if ((env.has_mac && memcmp(link->mac, env.mac, 6)) ||
	    (env.has_peer_mac && memcmp(peer->mac, env.peer_mac, 6)))
		return "MAC";
	if (env.mtu >= 0 && (link->mtu != env.mtu || peer->mtu != env.mtu))
		return "MTU";
	if (env.gso_max >= 0 && (link->gso_max != env.gso_max || peer->gso_max != env.gso_max))
		return "GSO size";
	return NULL;
}

/* Whether the pod, or the programs if they answer for it, have another gateway. */
static bool differs_gateway(struct pl_ns *pod, const struct pl_link *link,
			    const struct pl_link *peer, const struct pl_path_info *info)
{
	bool answer = info && (link->kind == PL_VETH || link->netkit.mode == NETKIT_L2);
	struct pl_cidr has;
	__u32 by;

	for (__u32 i = 0; i < env.ngateway; i++) {
		const struct pl_cidr *asked_for = &env.gateway[i];
		const size_t len = sizeof(asked_for->addr);

		if (answer && memcmp(asked_for->family == AF_INET ? &info->gateway4 :
								    &info->gateway6,
				     &asked_for->addr, len))
			return true;
		if (!pl_default_get(pod, asked_for->family, &has, &by) && by == peer->ifindex &&
		    (!has.family || memcmp(&has.addr, &asked_for->addr, len)))
			return true;
	}
	return false;
}

/* The link is there: complete it, or say why it is another. */
static int make_again(struct pl_ns *host, struct pl_path *path, struct pl_link *link, __u32 uplink)
{
	struct pl_path_info info;
	struct pl_forward fwd;
	struct pl_link peer;
	struct pl_ns pod;
	const char *what;
	bool changed = false, forwards;
	int rc = pl_pod_of(host, link, &pod, &peer);

	if (rc == NOTHING) {
		complain("%s: its end in %s is not there any more; podlink del %s", link->name,
			 env.netns, link->name);
		return FAILED;
	}
	if (rc)
		return rc;
	what = strcmp(pl_pod_path(link), env.netns) ? "pod" : differs(link, &peer);
	forwards = pl_path_has(path, link->ifindex) && !pl_path_info(path, link->ifindex, &info);
	if (!what && env.forward && forwards && info.uplink != uplink)
		what = "uplink";
	if (!what && differs_gateway(&pod, link, &peer, forwards ? &info : NULL))
		what = "gateway";
	if (what) {
		complain("%s: is there already, with another %s; podlink set or del it first",
			 link->name, what);
		rc = FAILED;
	} else if (asked.dry_run) {
		rc = DONE;
	} else {
		rc = pod_side(&pod, &peer, &changed);
		forward_init(&fwd, link, &peer, uplink);
		if (!rc && env.forward && !forwards) {
			rc = pl_path_add(path, host, link->name, link->ifindex, link->ifindex,
					 &fwd);
			changed = true;
		} else if (!rc && env.forward) {
			rc = pl_path_enter(path, link->name, link->ifindex, &fwd, &changed);
		}
		if (!rc)
			rc = host_side(host, link, &changed);
		if (!rc && changed)
			change(link->name, "complete what was missing");
	}
	pl_ns_close(&pod);
	return rc;
}

int verb_add(int argc, char **argv)
{
	struct pl_ns *host = &env.host;
	struct pl_path path = {.pods = -1};
	struct pl_link link, uplink = {0};
	struct pl_ns pod = {.fd = -1};
	int rc, fd, lock = -1;
	__u32 swept;

	if (argc != 1 || !env.netns)
		return usage_error("add", "takes NAME and --netns");
	if (env.kind == PL_VETH && (env.headroom >= 0 || env.tailroom >= 0 || env.of_netkit))
		return usage_error("add",
				"head- and tailroom, mode, policies and scrub are of netkit");
	if (env.kind == PL_NETKIT && env.mode == NETKIT_L3 && (env.has_mac || env.has_peer_mac))
		return usage_error("add", "a link in L3 mode has no MAC; --mode l2 has");
	if (env.uplink && !env.forward)
		return usage_error("add", "--uplink goes with --forward");
	if (env.forward && !env.naddr)
		return usage_error("add", "--forward needs an --addr to forward to");
	if (strlen(argv[0]) >= IF_NAMESIZE || strlen(env.peer_name) >= IF_NAMESIZE)
		return usage_error("add", "a device's name has at most 15 characters");
	if (env.netns[0] != '/' && strchr(env.netns, '/'))
		return usage_error("add", "--netns: a path must begin with /, since it is remembered");
	if (strlen(env.netns) >= sizeof(link.alias) - sizeof(PL_ALIAS))
		return usage_error("add", "--netns: the path is too long to be remembered");
	rc = pins_change(PL_ROOT, &lock) ?: pl_path_open(&path);
	if (!rc && !asked.dry_run)
		rc = pl_path_sweep(&path, host, false, &swept);
	if (!rc && env.uplink) {
		rc = pl_link_get(host, env.uplink, 0, -1, &uplink);
		if (rc == NOTHING)
			complain("%s: no such device", env.uplink);
		else if (!rc && uplink.arphrd != ARPHRD_ETHER)
			complain("%s: not an Ethernet device", env.uplink);
		rc = rc || uplink.arphrd != ARPHRD_ETHER ? FAILED : DONE;
	}
	if (rc)
		goto out;
	rc = pl_link_get(host, argv[0], 0, -1, &link);
	if (!rc) {
		rc = pl_find(host, argv[0], &link);
		if (!rc)
			rc = make_again(host, &path, &link, uplink.ifindex);
		goto out;
	}
	if (rc != NOTHING)
		goto out;
	fd = netns_open(env.netns);
	if (fd < 0) {
		complain_err(fd, env.netns, "cannot open the network namespace");
		rc = FAILED;
		goto out;
	}
	rc = pl_ns_open(&pod, fd);
	if (!rc && pl_ns_same(host, &pod)) {
		complain("%s: is this network namespace; a pod has one of its own", env.netns);
		rc = FAILED;
	}
	if (!rc && !asked.dry_run)
		rc = make(host, &pod, &path, argv[0], uplink.ifindex);
	if (!rc)
		change(argv[0], "make a %s link%s to %s in %s%s", pl_kinds[env.kind],
		       env.kind != PL_NETKIT   ? ""
		       : env.mode == NETKIT_L2 ? " in L2 mode"
					       : " in L3 mode",
		       env.peer_name, env.netns, env.forward ? ", and forward" : "");
out:
	pl_ns_close(&pod);
	pl_path_close(&path);
	pins_unlock(lock);
	return report("link", argv[0], rc);
}
