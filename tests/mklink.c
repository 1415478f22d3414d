// SPDX-License-Identifier: GPL-2.0-only
/*
 * Make a netkit pair: the iproute2 of Debian 12 is older than netkit.
 * Prints nothing; an error is told in the kernel's own words.
 */
#include <err.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <ynl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <netinet/ether.h>

#include "rt-link-user.h"

static void usage(void)
{
	fprintf(stderr,
		"usage: mklink NAME PEER [KEY VALUE]...\n"
		"in NETNS, netns NETNS (the peer's; name, path or pid), mode l2|l3,\n"
		"policy|peer-policy forward|blackhole, scrub|peer-scrub none|default,\n"
		"mac|peer-mac ADDRESS, headroom|tailroom|gso-max|peer-gso-max BYTES\n");
	exit(2);
}

static int netns_open(const char *name)
{
	char path[256];
	int fd;

	if (strchr(name, '/'))
		snprintf(path, sizeof(path), "%s", name);
	else if (strspn(name, "0123456789") == strlen(name))
		snprintf(path, sizeof(path), "/proc/%s/ns/net", name);
	else
		snprintf(path, sizeof(path), "/run/netns/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		err(1, "%s", path);
	return fd;
}

/* One of two words: 0 or 1. */
static int choice(const char *value, const char *zero, const char *one)
{
	if (!strcmp(value, zero))
		return 0;
	if (!strcmp(value, one))
		return 1;
	errx(2, "%s: neither %s nor %s", value, zero, one);
}

static const struct ether_addr *mac(const char *value)
{
	const struct ether_addr *a = ether_aton(value);

	if (!a)
		errx(2, "%s: not a link-layer address", value);
	return a;
}

/* The specification has the peer's part as opaque bytes: a link message of its own. */
struct peer {
	struct ifinfomsg ifi;
	char attrs[128];
	size_t len;
};

static void peer_put(struct peer *p, int type, const void *data, size_t len)
{
	struct rtattr *a = (void *)(p->attrs + p->len);

	a->rta_type = type;
	a->rta_len = RTA_LENGTH(len);
	memcpy(RTA_DATA(a), data, len);
	p->len += RTA_SPACE(len);
}

int main(int argc, char **argv)
{
	struct rt_link_newlink_req *req = rt_link_newlink_req_alloc();
	struct peer peer = { 0 };
	struct ynl_error yerr;
	struct ynl_sock *ys;
	const char *key, *v;
	int i, fd, mode;
	size_t len;
	__u32 gso;

	if (argc < 3 || argc % 2 == 0)
		usage();
	rt_link_newlink_req_set_nlflags(req, NLM_F_CREATE | NLM_F_EXCL);
	rt_link_newlink_req_set_ifname(req, argv[1]);
	rt_link_newlink_req_set_linkinfo_kind(req, "netkit");
	peer_put(&peer, IFLA_IFNAME, argv[2], strlen(argv[2]) + 1);
	for (i = 3; i < argc; i += 2) {
		key = argv[i];
		v = argv[i + 1];
#define POLICY(v) (choice(v, "forward", "blackhole") ? NETKIT_DROP : NETKIT_PASS)
#define SCRUB(v) (choice(v, "none", "default") ? NETKIT_SCRUB_DEFAULT : NETKIT_SCRUB_NONE)
		if (!strcmp(key, "in")) {
			fd = netns_open(v);
			if (setns(fd, CLONE_NEWNET))
				err(1, "%s: setns", v);
			close(fd);
		} else if (!strcmp(key, "netns")) {
			fd = netns_open(v);
			peer_put(&peer, IFLA_NET_NS_FD, &fd, sizeof(fd));
		} else if (!strcmp(key, "mode")) {
			mode = choice(v, "l2", "l3") ? NETKIT_L3 : NETKIT_L2;
			rt_link_newlink_req_set_linkinfo_data_netkit_mode(req, mode);
		} else if (!strcmp(key, "policy")) {
			rt_link_newlink_req_set_linkinfo_data_netkit_policy(req, POLICY(v));
		} else if (!strcmp(key, "peer-policy")) {
			rt_link_newlink_req_set_linkinfo_data_netkit_peer_policy(req, POLICY(v));
		} else if (!strcmp(key, "scrub")) {
			rt_link_newlink_req_set_linkinfo_data_netkit_scrub(req, SCRUB(v));
		} else if (!strcmp(key, "peer-scrub")) {
			rt_link_newlink_req_set_linkinfo_data_netkit_peer_scrub(req, SCRUB(v));
		} else if (!strcmp(key, "mac")) {
			rt_link_newlink_req_set_address(req, mac(v), 6);
		} else if (!strcmp(key, "peer-mac")) {
			peer_put(&peer, IFLA_ADDRESS, mac(v), 6);
		} else if (!strcmp(key, "headroom")) {
			rt_link_newlink_req_set_linkinfo_data_netkit_headroom(req, atoi(v));
		} else if (!strcmp(key, "tailroom")) {
			rt_link_newlink_req_set_linkinfo_data_netkit_tailroom(req, atoi(v));
		} else if (!strcmp(key, "gso-max")) {
			rt_link_newlink_req_set_gso_max_size(req, atoi(v));
		} else if (!strcmp(key, "peer-gso-max")) {
			gso = atoi(v);
			peer_put(&peer, IFLA_GSO_MAX_SIZE, &gso, sizeof(gso));
		} else {
			usage();
		}
	}
	len = offsetof(struct peer, attrs) + peer.len;
	rt_link_newlink_req_set_linkinfo_data_netkit_peer_info(req, &peer, len);

	ys = ynl_sock_create(&ynl_rt_link_family, &yerr);
	if (!ys)
		errx(1, "netlink: %s", yerr.msg);
	if (rt_link_newlink(ys, req))
		errx(1, "%s: %s", argv[1], ys->err.msg);
	rt_link_newlink_req_free(req);
	ynl_sock_destroy(ys);
	return 0;
}
