// SPDX-License-Identifier: GPL-2.0-only
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <ynl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/wireguard.h>

#include "common.h"
#include "podlink-lab.h"
#include "rt-link-user.h"
#include "wireguard-user.h"

#define VXLAN_PORT 4789
#define WG_PORT	   51820

const char *const pl_contenders[PL_CONTENDERS] = {
	"host", "netkit-l3", "netkit-l2", "veth", "netkit-stack", "veth-stack", "netkit-room",
};

const char *const pl_tunnels[PL_TUNNELS] = {"vxlan", "wireguard"};

static struct pl_cidr cidr(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static struct pl_cidr cidr(const char *fmt, ...)
{
	struct pl_cidr c = {0};
	char text[64];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	pl_cidr_parse(text, &c);
	return c;
}

/* Of the namespace that this thread is in: /proc/sys/net shows no other. */
static int sysctl(const char *key, const char *value)
{
	char path[96];
	int fd, rc = DONE;

	snprintf(path, sizeof(path), "/proc/sys/net/%s", key);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, value, strlen(value)) < 0) {
		complain_err(errno, path, "cannot set it to %s", value);
		rc = FAILED;
	}
	if (fd >= 0)
		close(fd);
	return rc;
}

/* What the machine has set for its own devices would be inherited. */
static int sysctls(const struct pl_lab *lab, const struct pl_ns *ns)
{
	int rc = pl_ns_enter(ns)
			 ?: sysctl("ipv4/conf/all/rp_filter", "0")
			 ?: sysctl("ipv4/conf/default/rp_filter", "0")
			 ?: sysctl("ipv4/ip_forward", ns == &lab->host ? "1" : "0");

	if (lab->six)
		rc = rc ?: sysctl("ipv6/conf/all/disable_ipv6", "0")
			 ?: sysctl("ipv6/conf/default/disable_ipv6", "0")
			 ?: sysctl("ipv6/conf/all/forwarding", ns == &lab->host ? "1" : "0");
	return rc;
}

static int leave(const struct pl_ns *own, int rc)
{
	int back = pl_ns_enter(own);

	return rc ?: back;
}

/* A pair between two namespaces, up; the other end is called eth0. */
static int pair(struct pl_ns *here, struct pl_ns *there, const char *name,
		const struct pl_pair_want *want, struct pl_link *link, struct pl_link *peer)
{
	struct pl_link_want up = PL_LINK_WANT, go = PL_LINK_WANT;

	up.up = 1;
	go.name = "eth0";
	go.to = there->fd;
	return pl_pair_new(here, name, name, want)
		       ?: pl_link_get(here, name, 0, -1, link)
		       ?: pl_link_get(here, NULL, link->peer, -1, peer)
		       ?: pl_link_set(here, peer, &go, NULL)
		       ?: pl_link_get(there, "eth0", 0, -1, peer)
		       ?: pl_link_set(there, peer, &up, NULL)
		       ?: pl_link_set(here, link, &up, NULL);
}

static int addr(const struct pl_lab *lab, struct pl_ns *ns, const struct pl_link *link,
		struct pl_cidr four, struct pl_cidr six)
{
	return pl_addr_add(ns, link->ifindex, &four, NULL)
		       ?: lab->six ? pl_addr_add(ns, link->ifindex, &six, NULL) : DONE;
}

/* via NULL: on the link */
static int route(const struct pl_lab *lab, struct pl_ns *ns, const struct pl_link *link,
		 struct pl_cidr four, const struct pl_cidr *via4, struct pl_cidr six,
		 const struct pl_cidr *via6)
{
	return pl_route_add(ns, link->ifindex, &four, via4, NULL)
		       ?: lab->six ? pl_route_add(ns, link->ifindex, &six, via6, NULL) : DONE;
}

int pl_lab_open(struct pl_lab *lab)
{
	const struct pl_pair_want veth = {.kind = PL_VETH};
	struct pl_cidr via4 = cidr("192.0.2.1"), via6 = cidr("2001:db8::1");
	struct pl_ns own;
	int rc;

	*lab = (struct pl_lab){
		.host = {.fd = -1}, .world = {.fd = -1}, .path = {.pods = -1},
		.six = !access("/proc/sys/net/ipv6", F_OK),
	};
	for (int c = 0; c < PL_CONTENDERS; c++)
		for (int e = 0; e < 2; e++)
			lab->pod[c][e].ns.fd = -1;
	rc = pl_ns_open(&own, -1);
	if (rc)
		return rc;
	rc = pl_ns_new(&lab->host) ?: pl_ns_new(&lab->world);
	if (!rc)
		rc = leave(&own, sysctls(lab, &lab->host) ?: sysctls(lab, &lab->world));
	pl_ns_close(&own);
	return rc ?: pair(&lab->host, &lab->world, "uplink", &veth, &lab->uplink, &lab->eth0)
		  ?: addr(lab, &lab->host, &lab->uplink, cidr("192.0.2.1/24"),
			  cidr("2001:db8::1/64"))
		  ?: addr(lab, &lab->world, &lab->eth0, cidr("192.0.2.9/24"),
			  cidr("2001:db8::9/64"))
		  ?: route(lab, &lab->world, &lab->eth0, cidr("10.0.0.0/16"), &via4,
			   cidr("fd00::/64"), &via6);
}

/* The programs, as podlink add --forward --uplink has them. */
static int forward(struct pl_lab *lab, struct pl_lab_pod *pod, const struct pl_cidr *addrs)
{
	struct pl_cidr via4 = cidr("10.0.0.1"), via6 = cidr("fd00::1");
	struct pl_forward fwd = {
		.kind = pod->link.kind,
		.l2 = pod->link.kind == PL_VETH || pod->link.netkit.mode == NETKIT_L2,
		.gateway4 = &via4.addr,
		.gateway6 = &via6.addr,
		.uplink = lab->uplink.ifindex,
		.addrs = addrs,
		.naddrs = 2,
	};
	struct pl_ns own;
	int rc;

	memcpy(fwd.host_mac, pod->link.mac, sizeof(fwd.host_mac));
	memcpy(fwd.mac, pod->peer.mac, sizeof(fwd.mac));
	rc = pl_ns_open(&own, -1);
	if (rc)
		return rc;
	rc = pl_ns_enter(&lab->host);
	if (!rc)
		rc = leave(&own, pl_path_hold(&pod->held, &lab->path, pod->link.name,
					      pod->link.ifindex, &fwd));
	pl_ns_close(&own);
	return rc;
}

int pl_lab_add(struct pl_lab *lab, enum pl_contender c, __u32 headroom, __u32 tailroom)
{
	const bool netkit = c != PL_VETH_PATH && c != PL_VETH_STACK;
	const bool stack = c >= PL_NETKIT_STACK;
	const struct pl_pair_want want = {
		.kind = netkit ? PL_NETKIT : PL_VETH,
		.mode = c == PL_NETKIT_L2 ? NETKIT_L2 : NETKIT_L3,
		.policy = NETKIT_PASS,
		.peer_policy = stack ? NETKIT_PASS : NETKIT_DROP,
		.scrub = NETKIT_SCRUB_DEFAULT,
		.peer_scrub = NETKIT_SCRUB_DEFAULT,
		.headroom = c == PL_NETKIT_ROOM ? (__s64)headroom : -1,
		.tailroom = c == PL_NETKIT_ROOM ? (__s64)tailroom : -1,
	};
	struct pl_cidr via4 = cidr("10.0.0.1"), via6 = cidr("fd00::1");
	int rc = DONE;

	for (int e = 0; !rc && e < 2; e++) {
		struct pl_cidr own[] = {cidr("10.0.%d.%d", c, e + 2),
					cidr("fd00::%d:%d", c, e + 2)};
		struct pl_lab_pod *pod = &lab->pod[c][e];
		char name[IF_NAMESIZE];

		snprintf(name, sizeof(name), "%s.%d", pl_contenders[c], e);
		rc = pl_ns_new(&pod->ns)
			     ?: pair(&lab->host, &pod->ns, name, &want, &pod->link, &pod->peer)
			     ?: addr(lab, &pod->ns, &pod->peer, own[0], own[1])
			     ?: route(lab, &pod->ns, &pod->peer, via4, NULL, via6, NULL)
			     ?: route(lab, &pod->ns, &pod->peer, cidr("0.0.0.0/0"), &via4,
				      cidr("::/0"), &via6)
			     ?: route(lab, &lab->host, &pod->link, own[0], NULL, own[1], NULL);
		/* the stack answers for the gateway only if that is an address of its own */
		if (!rc && c == PL_VETH_STACK)
			rc = addr(lab, &lab->host, &pod->link, via4, via6);
		if (!rc && !stack)
			rc = forward(lab, pod, own);
	}
	for (int e = 0; rc && e < 2; e++)
		pl_ns_close(&lab->pod[c][e].ns);
	return rc;
}

/* --- tunnels --- */

/* A tunnel device, up. libynl has no attributes of vxlan. */
static int device(struct pl_ns *ns, enum pl_tunnel tunnel, const char *remote,
		  struct pl_link *link)
{
	struct ynl_req_state state = {.yarg = {.ys = ns->link}};
	struct nlmsghdr *msg = ynl_msg_start_req(ns->link, RTM_NEWLINK,
						 NLM_F_CREATE | NLM_F_EXCL);
	struct pl_link_want up = PL_LINK_WANT;
	struct ifinfomsg *hdr = ynl_nlmsg_put_extra_header(msg, sizeof(*hdr));
	struct nlattr *info, *data;
	__be32 group;

	up.up = 1;
	memset(hdr, 0, sizeof(*hdr));
	ynl_attr_put_str(msg, IFLA_IFNAME, pl_tunnels[tunnel]);
	info = ynl_attr_nest_start(msg, IFLA_LINKINFO);
	ynl_attr_put_str(msg, IFLA_INFO_KIND, pl_tunnels[tunnel]);
	if (tunnel == PL_VXLAN) {
		inet_pton(AF_INET, remote, &group);
		data = ynl_attr_nest_start(msg, IFLA_INFO_DATA);
		ynl_attr_put_u32(msg, IFLA_VXLAN_ID, 7);
		ynl_attr_put(msg, IFLA_VXLAN_GROUP, &group, sizeof(group));
		ynl_attr_put_u16(msg, IFLA_VXLAN_PORT, htons(VXLAN_PORT));
		ynl_attr_nest_end(msg, data);
	}
	ynl_attr_nest_end(msg, info);
	if (ynl_exec(ns->link, msg, &state) < 0)
		return (int)ns->link->err.code == EOPNOTSUPP
			       ? LACKING
			       : pl_link_refused(ns, pl_tunnels[tunnel], "cannot make the tunnel");
	return pl_link_get(ns, pl_tunnels[tunnel], 0, -1, link) ?: pl_link_set(ns, link, &up, NULL);
}

typedef __u8 wg_key[WG_KEY_LEN];

static int wg_refused(struct ynl_sock *ys)
{
	complain("wireguard: cannot set it up: %s", ys->err.msg);
	return FAILED;
}

/* A new key for a device. The kernel computes the public one of it. */
static int wg_identity(struct ynl_sock *ys, __u32 ifindex, wg_key public)
{
	struct wireguard_set_device_req *set = wireguard_set_device_req_alloc();
	struct wireguard_get_device_req *get = wireguard_get_device_req_alloc();
	struct wireguard_get_device_list *list;
	wg_key private;
	int rc = FAILED;

	if (getrandom(private, sizeof(private), 0) != sizeof(private)) {
		complain_err(errno, "wireguard", "no random numbers");
		goto out;
	}
	wireguard_set_device_req_set_ifindex(set, ifindex);
	wireguard_set_device_req_set_private_key(set, private, sizeof(private));
	wireguard_set_device_req_set_listen_port(set, WG_PORT);
	wireguard_get_device_req_set_ifindex(get, ifindex);
	if (wireguard_set_device(ys, set)) {
		wg_refused(ys);
		goto out;
	}
	list = wireguard_get_device_dump(ys, get);
	if (!list) {
		wg_refused(ys);
		goto out;
	}
	ynl_dump_foreach(list, d)
	{
		if (d->_len.public_key != WG_KEY_LEN)
			continue;
		memcpy(public, d->public_key, WG_KEY_LEN);
		rc = DONE;
	}
	wireguard_get_device_list_free(list);
out:
	wireguard_set_device_req_free(set);
	wireguard_get_device_req_free(get);
	return rc;
}

/* The other end, for all addresses. */
static int wg_peer(struct ynl_sock *ys, __u32 ifindex, const wg_key public, const char *addr)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(WG_PORT)};
	struct wireguard_set_device_req *set = wireguard_set_device_req_alloc();
	struct wireguard_wgallowedip *all = wireguard_wgallowedip_alloc(1);
	struct wireguard_wgpeer *peer = wireguard_wgpeer_alloc(1);
	const __be32 any = 0;
	int rc = DONE;

	inet_pton(AF_INET, addr, &at.sin_addr);
	wireguard_wgallowedip_set_family(all, AF_INET);
	wireguard_wgallowedip_set_ipaddr(all, &any, sizeof(any));
	wireguard_wgallowedip_set_cidr_mask(all, 0);
	wireguard_wgpeer_set_public_key(peer, public, WG_KEY_LEN);
	wireguard_wgpeer_set_endpoint(peer, &at, sizeof(at));
	__wireguard_wgpeer_set_allowedips(peer, all, 1);
	wireguard_set_device_req_set_ifindex(set, ifindex);
	__wireguard_set_device_req_set_peers(set, peer, 1);
	if (wireguard_set_device(ys, set))
		rc = wg_refused(ys);
	wireguard_set_device_req_free(set);
	return rc;
}

static struct ynl_sock *wg_sock(const struct pl_ns *ns, const struct pl_ns *own)
{
	struct ynl_sock *ys = NULL;
	struct ynl_error err;

	if (pl_ns_enter(ns))
		return NULL;
	ys = ynl_sock_create(&ynl_wireguard_family, &err);
	if (!ys)
		complain("wireguard: %s", err.msg);
	if (pl_ns_enter(own) && ys) {
		ynl_sock_destroy(ys);
		return NULL;
	}
	return ys;
}

static int wireguard(struct pl_lab *lab, const struct pl_link *here, const struct pl_link *there)
{
	struct ynl_sock *a = NULL, *b = NULL;
	wg_key of_a, of_b;
	struct pl_ns own;
	int rc = pl_ns_open(&own, -1);

	if (rc)
		return rc;
	a = wg_sock(&lab->host, &own);
	b = a ? wg_sock(&lab->world, &own) : NULL;
	pl_ns_close(&own);
	rc = !b ? FAILED
		: wg_identity(a, here->ifindex, of_a)
			  ?: wg_identity(b, there->ifindex, of_b)
			  ?: wg_peer(a, here->ifindex, of_b, "192.0.2.9")
			  ?: wg_peer(b, there->ifindex, of_a, "192.0.2.1");
	if (a)
		ynl_sock_destroy(a);
	if (b)
		ynl_sock_destroy(b);
	return rc;
}

int pl_lab_tunnel(struct pl_lab *lab, enum pl_tunnel tunnel)
{
	struct pl_link here, there;
	struct pl_cidr a = cidr("10.%d.0.1/24", tunnel + 1), b = cidr("10.%d.0.9/24", tunnel + 1);

	return device(&lab->host, tunnel, "192.0.2.9", &here)
		       ?: device(&lab->world, tunnel, "192.0.2.1", &there)
		       ?: (tunnel == PL_WIREGUARD ? wireguard(lab, &here, &there) : DONE)
		       ?: pl_addr_add(&lab->host, here.ifindex, &a, NULL)
		       ?: pl_addr_add(&lab->world, there.ifindex, &b, NULL);
}

int pl_lab_gso(struct pl_lab *lab, __u32 bytes)
{
	struct pl_link_want want = PL_LINK_WANT;
	int rc;

	want.gso_max = bytes;
	rc = pl_link_set(&lab->host, &lab->uplink, &want, NULL)
		     ?: pl_link_set(&lab->world, &lab->eth0, &want, NULL);
	for (int c = 0; c < PL_CONTENDERS; c++)
		for (int e = 0; !rc && e < 2; e++) {
			struct pl_lab_pod *pod = &lab->pod[c][e];

			if (pod->ns.fd >= 0)
				rc = pl_link_set(&lab->host, &pod->link, &want, NULL)
					     ?: pl_link_set(&pod->ns, &pod->peer, &want, NULL);
		}
	return rc;
}

void pl_lab_close(struct pl_lab *lab)
{
	for (int c = 0; c < PL_CONTENDERS; c++)
		for (int e = 0; e < 2; e++) {
			pl_path_release(lab->pod[c][e].held);
			pl_ns_close(&lab->pod[c][e].ns);
		}
	pl_path_close(&lab->path);
	pl_ns_close(&lab->host);
	pl_ns_close(&lab->world);
}
