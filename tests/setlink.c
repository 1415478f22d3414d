// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the iproute2 of Debian 12 cannot say of a link: netkit's head- and tailroom
 * and the GSO limit of IPv4. An error is told in the kernel's own words.
 */
#include <err.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ynl.h>

#include "rt-link-user.h"

static void usage(void)
{
	fprintf(stderr,
		"usage: setlink DEV [KEY VALUE]...   change the device in one request, or print it\n"
		"KEY: headroom tailroom gso-max gso-ipv4-max gso-segs\n");
	exit(2);
}

static void show(struct ynl_sock *ys, int ifindex, const char *name)
{
	struct rt_link_getlink_req *req = rt_link_getlink_req_alloc();
	struct rt_link_getlink_rsp *rsp;

	req->_hdr.ifi_index = ifindex;
	rsp = rt_link_getlink(ys, req);
	if (!rsp)
		errx(1, "%s: %s", name, ys->err.msg);
	printf("headroom %u tailroom %u ", rsp->linkinfo.data.netkit.headroom,
	       rsp->linkinfo.data.netkit.tailroom);
	printf("gso-max %u gso-ipv4-max %u gso-segs %u ", rsp->gso_max_size,
	       rsp->gso_ipv4_max_size, rsp->gso_max_segs);
	printf("gro-max %u gro-ipv4-max %u\n", rsp->gro_max_size, rsp->gro_ipv4_max_size);
	rt_link_getlink_rsp_free(rsp);
	rt_link_getlink_req_free(req);
}

static void set(struct ynl_sock *ys, int ifindex, char **argv)
{
	struct rt_link_newlink_req *req = rt_link_newlink_req_alloc();
	char **arg;

	req->_hdr.ifi_index = ifindex;
	for (arg = argv + 2; *arg; arg += 2) {
		unsigned int v = strtoul(arg[1], NULL, 0);

		if (!strcmp(*arg, "headroom") || !strcmp(*arg, "tailroom"))
			rt_link_newlink_req_set_linkinfo_kind(req, "netkit");
		if (!strcmp(*arg, "headroom"))
			rt_link_newlink_req_set_linkinfo_data_netkit_headroom(req, v);
		else if (!strcmp(*arg, "tailroom"))
			rt_link_newlink_req_set_linkinfo_data_netkit_tailroom(req, v);
		else if (!strcmp(*arg, "gso-max"))
			rt_link_newlink_req_set_gso_max_size(req, v);
		else if (!strcmp(*arg, "gso-ipv4-max"))
			rt_link_newlink_req_set_gso_ipv4_max_size(req, v);
		else if (!strcmp(*arg, "gso-segs"))
			rt_link_newlink_req_set_gso_max_segs(req, v);
		else
			usage();
	}
	if (rt_link_newlink(ys, req))
		errx(1, "%s: %s", argv[1], ys->err.msg);
	rt_link_newlink_req_free(req);
}

int main(int argc, char **argv)
{
	struct ynl_error yerr;
	struct ynl_sock *ys;
	int ifindex;

	if (argc < 2 || argc % 2)
		usage();
	ifindex = if_nametoindex(argv[1]);
	if (!ifindex)
		err(1, "%s", argv[1]);
	ys = ynl_sock_create(&ynl_rt_link_family, &yerr);
	if (!ys)
		errx(1, "netlink: %s", yerr.msg);
	if (argc == 2)
		show(ys, ifindex, argv[1]);
	else
		set(ys, ifindex, argv);
	ynl_sock_destroy(ys);
	return 0;
}
