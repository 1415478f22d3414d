// SPDX-License-Identifier: GPL-2.0-only
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <ynl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include "common.h"
#include "podlink-net.h"
#include "rt-addr-user.h"
#include "rt-link-user.h"
#include "rt-route-user.h"

#define IP6_RT_PRIO_USER 1024	/* the metric that IPv6 gives a route without one */

const char *const pl_kinds[] = {"netkit", "veth", "other"};

/* --- namespaces --- */

static int self_ns(void)
{
	return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
}

int pl_ns_enter(const struct pl_ns *ns)
{
	if (!setns(ns->fd, CLONE_NEWNET))
		return DONE;
	complain_err(errno, "network namespace", "cannot enter it");
	return FAILED;
}

bool pl_ns_same(const struct pl_ns *a, const struct pl_ns *b)
{
	struct stat x, y;

	return !fstat(a->fd, &x) && !fstat(b->fd, &y) && x.st_dev == y.st_dev &&
	       x.st_ino == y.st_ino;
}

static int sockets(struct pl_ns *ns)
{
	const struct {
		const struct ynl_family *family;
		struct ynl_sock **sock;
	} all[] = {
		{&ynl_rt_link_family, &ns->link},
		{&ynl_rt_addr_family, &ns->addr},
		{&ynl_rt_route_family, &ns->route},
	};
	struct ynl_error err;

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		*all[i].sock = ynl_sock_create(all[i].family, &err);
		if (!*all[i].sock) {
			complain("netlink: %s", err.msg);
			return FAILED;
		}
	}
	return DONE;
}

/* Sockets belong to the namespace that they are made in. */
static int sockets_in(struct pl_ns *ns)
{
	struct pl_ns own = {.fd = self_ns()};
	int rc, back;

	if (own.fd < 0) {
		complain_err(errno, "network namespace", "cannot open it");
		return FAILED;
	}
	rc = pl_ns_enter(ns);
	if (!rc) {
		rc = sockets(ns);
		back = pl_ns_enter(&own);
		rc = rc ?: back;
	}
	close(own.fd);
	return rc;
}

int pl_ns_open(struct pl_ns *ns, int fd)
{
	*ns = (struct pl_ns){.fd = fd < 0 ? self_ns() : fd};
	if (ns->fd < 0) {
		complain_err(errno, "network namespace", "cannot open it");
		return FAILED;
	}
	return fd < 0 ? sockets(ns) : sockets_in(ns);
}

int pl_ns_new(struct pl_ns *ns)
{
	struct pl_ns own = {.fd = self_ns()};
	int rc = FAILED, back;

	*ns = (struct pl_ns){.fd = -1};
	if (own.fd >= 0 && !unshare(CLONE_NEWNET)) {
		ns->fd = self_ns();
		if (ns->fd >= 0)
			rc = sockets(ns);
		back = pl_ns_enter(&own);
		rc = rc ?: back;
	} else {
		complain_err(errno, "network namespace",
			     "cannot make one, for which CAP_SYS_ADMIN is needed");
	}
	if (own.fd >= 0)
		close(own.fd);
	return rc;
}

void pl_ns_close(struct pl_ns *ns)
{
	struct ynl_sock *socks[] = {ns->link, ns->addr, ns->route};

	for (size_t i = 0; i < ARRAY_SIZE(socks); i++)
		if (socks[i])
			ynl_sock_destroy(socks[i]);
	if (ns->fd >= 0)
		close(ns->fd);
	*ns = (struct pl_ns){.fd = -1};
}

/* --- links --- */

/* What libynl says names the attribute and quotes the kernel's extack. */
static int refused(const char *name, const char *what, const struct ynl_sock *ys)
{
	complain("%s: %s: %s", name, what, ys->err.msg);
	return FAILED;
}

static void take(struct pl_link *to, const struct rt_link_getlink_rsp *r)
{
	const struct rt_link_linkinfo_netkit_attrs *nk = &r->linkinfo.data.netkit;
	const struct rtnl_link_stats64 *s = r->stats64;

	*to = (struct pl_link){
		.ifindex = r->_hdr.ifi_index,
		.arphrd = r->_hdr.ifi_type,
		.up = r->_hdr.ifi_flags & IFF_UP,
		.kind = PL_OTHER,
		.mtu = r->mtu,
		.gso_max = r->gso_max_size,
		.gso_ipv4_max = r->gso_ipv4_max_size,
		.rx_queues = r->num_rx_queues,
		.tx_queues = r->num_tx_queues,
		.peer = r->_present.link ? r->link : 0,
		.peer_nsid = r->_present.link_netnsid ? r->link_netnsid : -1,
	};
	if (r->ifname)
		snprintf(to->name, sizeof(to->name), "%s", r->ifname);
	if (r->ifalias)
		snprintf(to->alias, sizeof(to->alias), "%s", r->ifalias);
	if (r->address && r->_len.address == sizeof(to->mac))
		memcpy(to->mac, r->address, sizeof(to->mac));
	if (r->linkinfo.kind && !strcmp(r->linkinfo.kind, "veth"))
		to->kind = PL_VETH;
	if (r->linkinfo.kind && !strcmp(r->linkinfo.kind, "netkit")) {
		to->kind = PL_NETKIT;
		to->netkit.primary = nk->primary;
		to->netkit.mode = nk->mode;
		to->netkit.policy = nk->policy;
		to->netkit.peer_policy = nk->peer_policy;
		to->netkit.scrub = nk->scrub;
		to->netkit.peer_scrub = nk->peer_scrub;
		to->netkit.headroom = nk->headroom;
		to->netkit.tailroom = nk->tailroom;
	}
	if (s) {
		to->rx_packets = s->rx_packets;
		to->rx_bytes = s->rx_bytes;
		to->rx_dropped = s->rx_dropped;
		to->tx_packets = s->tx_packets;
		to->tx_bytes = s->tx_bytes;
		to->tx_dropped = s->tx_dropped;
	}
}

int pl_link_get(struct pl_ns *ns, const char *name, __u32 ifindex, __s32 nsid, struct pl_link *link)
{
	struct rt_link_getlink_req *req = rt_link_getlink_req_alloc();
	struct rt_link_getlink_rsp *rsp;
	int rc = DONE;

	if (!req)
		return FAILED;
	if (name)
		rt_link_getlink_req_set_ifname(req, name);
	else
		req->_hdr.ifi_index = ifindex;
	if (nsid >= 0)
		rt_link_getlink_req_set_target_netnsid(req, nsid);
	rsp = rt_link_getlink(ns->link, req);
	if (rsp)
		take(link, rsp);
	else if ((int)ns->link->err.code == ENODEV)
		rc = NOTHING;
	else
		rc = refused(name ?: "link", "cannot look at it", ns->link);
	if (rsp)
		rt_link_getlink_rsp_free(rsp);
	rt_link_getlink_req_free(req);
	return rc;
}

int pl_link_list(struct pl_ns *ns, struct pl_link **links, size_t *n)
{
	struct rt_link_getlink_req_dump *req = rt_link_getlink_req_dump_alloc();
	struct rt_link_getlink_list *list = req ? rt_link_getlink_dump(ns->link, req) : NULL;
	int rc = DONE;
	size_t i = 0;

	*links = NULL;
	*n = 0;
	if (!list)
		return refused("links", "cannot list them", ns->link);
	ynl_dump_foreach(list, l)(*n)++;
	*links = calloc(*n + 1, sizeof(**links));
	if (*links) {
		ynl_dump_foreach(list, l) take(&(*links)[i++], l);
	} else {
		complain_err(ENOMEM, "links", "cannot list them");
		rc = FAILED;
	}
	rt_link_getlink_list_free(list);
	rt_link_getlink_req_dump_free(req);
	return rc;
}

int pl_pair_new(struct pl_ns *ns, const char *name, const char *told,
		const struct pl_pair_want *want)
{
	struct rt_link_newlink_req *req = rt_link_newlink_req_alloc();
	int rc = DONE;

	if (!req)
		return FAILED;
	rt_link_newlink_req_set_nlflags(req, NLM_F_CREATE | NLM_F_EXCL);
	rt_link_newlink_req_set_ifname(req, name);
	rt_link_newlink_req_set_linkinfo_kind(req, pl_kinds[want->kind]);
	if (want->kind == PL_NETKIT) {
		rt_link_newlink_req_set_linkinfo_data_netkit_mode(req, want->mode);
		rt_link_newlink_req_set_linkinfo_data_netkit_policy(req, want->policy);
		rt_link_newlink_req_set_linkinfo_data_netkit_peer_policy(req, want->peer_policy);
		rt_link_newlink_req_set_linkinfo_data_netkit_scrub(req, want->scrub);
		rt_link_newlink_req_set_linkinfo_data_netkit_peer_scrub(req, want->peer_scrub);
		if (want->headroom >= 0)
			rt_link_newlink_req_set_linkinfo_data_netkit_headroom(req, want->headroom);
		if (want->tailroom >= 0)
			rt_link_newlink_req_set_linkinfo_data_netkit_tailroom(req, want->tailroom);
	}
	if (rt_link_newlink(ns->link, req)) {
		rc = refused(told, "cannot make the pair", ns->link);
		/* what rtnetlink says of a kind that it does not know */
		if ((int)ns->link->err.code == EOPNOTSUPP &&
		    strstr(ns->link->err.msg, "device type")) {
			complain("%s: CONFIG_%s of Linux %s is needed", told,
				 want->kind == PL_NETKIT ? "NETKIT" : "VETH",
				 want->kind == PL_NETKIT ? "6.7" : "2.6.24");
			rc = LACKING;
		}
	}
	rt_link_newlink_req_free(req);
	return rc;
}

/* Head- and tailroom are of the kind, which RTM_SETLINK does not take. */
static int set_rooms(struct pl_ns *ns, const struct pl_link *link, const struct pl_link_want *want,
		     int *errnum)
{
	struct rt_link_newlink_req *req = rt_link_newlink_req_alloc();
	int rc = DONE;

	if (!req)
		return FAILED;
	req->_hdr.ifi_index = link->ifindex;
	rt_link_newlink_req_set_linkinfo_kind(req, pl_kinds[link->kind]);
	if (want->headroom >= 0)
		rt_link_newlink_req_set_linkinfo_data_netkit_headroom(req, want->headroom);
	if (want->tailroom >= 0)
		rt_link_newlink_req_set_linkinfo_data_netkit_tailroom(req, want->tailroom);
	if (rt_link_newlink(ns->link, req)) {
		rc = FAILED;
		if (errnum)
			*errnum = ns->link->err.code;
		else
			refused(link->name, "cannot change it", ns->link);
	}
	rt_link_newlink_req_free(req);
	return rc;
}

int pl_link_set(struct pl_ns *ns, const struct pl_link *link, const struct pl_link_want *want,
		int *errnum)
{
	struct rt_link_setlink_req *req;
	int rc = DONE;

	if (want->headroom >= 0 || want->tailroom >= 0)
		rc = set_rooms(ns, link, want, errnum);
	req = rc ? NULL : rt_link_setlink_req_alloc();
	if (!req)
		return rc ?: FAILED;
	req->_hdr.ifi_index = link->ifindex;
	if (want->up >= 0) {
		req->_hdr.ifi_change = IFF_UP;
		req->_hdr.ifi_flags = want->up ? IFF_UP : 0;
	}
	if (want->name)
		rt_link_setlink_req_set_ifname(req, want->name);
	if (want->alias)
		rt_link_setlink_req_set_ifalias(req, want->alias);
	if (want->mac)
		rt_link_setlink_req_set_address(req, want->mac, 6);
	if (want->mtu >= 0)
		rt_link_setlink_req_set_mtu(req, want->mtu);
	if (want->gso_max >= 0) {
		rt_link_setlink_req_set_gso_max_size(req, want->gso_max);
		rt_link_setlink_req_set_gso_ipv4_max_size(req, want->gso_max);
	}
	if (want->to >= 0)
		rt_link_setlink_req_set_net_ns_fd(req, want->to);
	if (want->ifindex >= 0)
		rt_link_setlink_req_set_new_ifindex(req, want->ifindex);
	if (rt_link_setlink(ns->link, req)) {
		rc = FAILED;
		if (errnum)
			*errnum = ns->link->err.code;
		else
			refused(want->name ?: link->name,
				want->to >= 0 ? "cannot move it" : "cannot change it", ns->link);
	}
	rt_link_setlink_req_free(req);
	return rc;
}

int pl_link_refused(struct pl_ns *ns, const char *name, const char *what)
{
	return refused(name, what, ns->link);
}

int pl_link_del(struct pl_ns *ns, const struct pl_link *link)
{
	struct rt_link_dellink_req *req = rt_link_dellink_req_alloc();
	int rc = DONE;

	if (!req)
		return FAILED;
	req->_hdr.ifi_index = link->ifindex;
	if (rt_link_dellink(ns->link, req))
		rc = refused(link->name, "cannot delete it", ns->link);
	rt_link_dellink_req_free(req);
	return rc;
}

/* --- addresses and routes --- */

static const __u8 v4_mapped[12] = {[10] = 0xff, [11] = 0xff};

bool pl_cidr_parse(const char *text, struct pl_cidr *cidr)
{
	const char *slash = strchr(text, '/');
	char addr[INET6_ADDRSTRLEN];
	size_t len = slash ? (size_t)(slash - text) : strlen(text);
	__u32 bits, max = 32;

	if (len >= sizeof(addr))
		return false;
	memcpy(addr, text, len);
	addr[len] = 0;
	memcpy(cidr->addr.b, v4_mapped, sizeof(v4_mapped));
	cidr->family = AF_INET;
	if (inet_pton(AF_INET, addr, cidr->addr.b + 12) != 1) {
		cidr->family = AF_INET6;
		max = 128;
		if (inet_pton(AF_INET6, addr, cidr->addr.b) != 1)
			return false;
	}
	bits = max;
	if (slash && !parse_u32(slash + 1, 0, max, &bits))
		return false;
	cidr->len = bits;
	return true;
}

const char *pl_addr_text(const struct pl_addr *addr, char text[46])
{
	if (!memcmp(addr->b, v4_mapped, sizeof(v4_mapped)))
		return inet_ntop(AF_INET, addr->b + 12, text, 46);
	return inet_ntop(AF_INET6, addr->b, text, 46);
}

static const void *raw(const struct pl_cidr *cidr)
{
	return cidr->addr.b + (cidr->family == AF_INET ? 12 : 0);
}

static size_t raw_len(const struct pl_cidr *cidr)
{
	return cidr->family == AF_INET ? 4 : 16;
}

/* The bytes of an address of cidr's family. */
static void cidr_take(struct pl_cidr *cidr, const void *addr)
{
	if (cidr->family == AF_INET)
		memcpy(cidr->addr.b, v4_mapped, sizeof(v4_mapped));
	memcpy(cidr->addr.b + (cidr->family == AF_INET ? 12 : 0), addr, raw_len(cidr));
}

int pl_addr_add(struct pl_ns *ns, __u32 ifindex, const struct pl_cidr *cidr, bool *changed)
{
	struct rt_addr_newaddr_req *req = rt_addr_newaddr_req_alloc();
	char text[46];
	int rc = DONE;

	if (!req)
		return FAILED;
	rt_addr_newaddr_req_set_nlflags(req, NLM_F_CREATE | NLM_F_EXCL);
	req->_hdr.ifa_family = cidr->family;
	req->_hdr.ifa_prefixlen = cidr->len;
	req->_hdr.ifa_index = ifindex;
	/* Nobody else is on the link to ask. */
	if (cidr->family == AF_INET6)
		req->_hdr.ifa_flags = IFA_F_NODAD;
	rt_addr_newaddr_req_set_local(req, raw(cidr), raw_len(cidr));
	rt_addr_newaddr_req_set_address(req, raw(cidr), raw_len(cidr));
	if (!rt_addr_newaddr(ns->addr, req)) {
		if (changed)
			*changed = true;
	} else if ((int)ns->addr->err.code != EEXIST) {
		rc = refused(pl_addr_text(&cidr->addr, text), "cannot add the address", ns->addr);
	}
	rt_addr_newaddr_req_free(req);
	return rc;
}

int pl_route_add(struct pl_ns *ns, __u32 ifindex, const struct pl_cidr *dst,
		 const struct pl_cidr *gateway, bool *changed)
{
	struct rt_route_newroute_req *req = rt_route_newroute_req_alloc();
	char text[46];
	int rc = DONE;

	if (!req)
		return FAILED;
	rt_route_newroute_req_set_nlflags(req, NLM_F_CREATE | NLM_F_EXCL);
	req->_hdr.rtm_family = dst->family;
	req->_hdr.rtm_dst_len = dst->len;
	req->_hdr.rtm_table = RT_TABLE_MAIN;
	req->_hdr.rtm_protocol = RTPROT_STATIC;
	req->_hdr.rtm_scope =
		gateway || dst->family == AF_INET6 ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
	req->_hdr.rtm_type = RTN_UNICAST;
	rt_route_newroute_req_set_oif(req, ifindex);
	if (dst->len)
		rt_route_newroute_req_set_dst(req, raw(dst), raw_len(dst));
	if (gateway)
		rt_route_newroute_req_set_gateway(req, raw(gateway), raw_len(gateway));
	if (!rt_route_newroute(ns->route, req)) {
		if (changed)
			*changed = true;
	} else if ((int)ns->route->err.code != EEXIST) {
		rc = refused(pl_addr_text(&dst->addr, text), "cannot add the route", ns->route);
	}
	rt_route_newroute_req_free(req);
	return rc;
}

int pl_default_get(struct pl_ns *ns, int family, struct pl_cidr *gateway, __u32 *ifindex)
{
	struct rt_route_getroute_req_dump *req = rt_route_getroute_req_dump_alloc();
	struct rt_route_getroute_list *all = NULL;
	int rc = NOTHING;

	if (req) {
		req->_hdr.rtm_family = family;
		all = rt_route_getroute_dump(ns->route, req);
	}
	rt_route_getroute_req_dump_free(req);
	if (!all)
		return refused("routes", "cannot list them", ns->route);
	ynl_dump_foreach(all, r)
	{
		__u32 metric = r->_present.priority ? r->priority : 0;

		if (r->_hdr.rtm_family != family || r->_hdr.rtm_dst_len ||
		    r->_hdr.rtm_table != RT_TABLE_MAIN ||
		    metric != (family == AF_INET6 ? IP6_RT_PRIO_USER : 0))
			continue;
		*ifindex = r->_present.oif ? r->oif : 0;
		*gateway = (struct pl_cidr){.family = family};
		if (r->gateway && r->_len.gateway == raw_len(gateway))
			cidr_take(gateway, r->gateway);
		else
			gateway->family = 0;
		rc = DONE;
		break;
	}
	rt_route_getroute_list_free(all);
	return rc;
}

int pl_route_get(struct pl_ns *ns, const struct pl_addr *addr, __u32 *ifindex)
{
	struct rt_route_getroute_req *req = rt_route_getroute_req_alloc();
	struct rt_route_getroute_rsp *rsp;
	struct pl_cidr dst = {.addr = *addr};

	*ifindex = 0;
	if (!req)
		return FAILED;
	dst.family = memcmp(addr->b, v4_mapped, sizeof(v4_mapped)) ? AF_INET6 : AF_INET;
	req->_hdr.rtm_family = dst.family;
	req->_hdr.rtm_dst_len = 8 * raw_len(&dst);
	rt_route_getroute_req_set_dst(req, raw(&dst), raw_len(&dst));
	rsp = rt_route_getroute(ns->route, req);
	if (rsp) {
		if (rsp->_present.oif)
			*ifindex = rsp->oif;
		rt_route_getroute_rsp_free(rsp);
	}
	rt_route_getroute_req_free(req);
	return DONE;
}

int pl_addr_list(struct pl_ns *ns, __u32 ifindex, struct pl_cidr **list, size_t *n)
{
	struct rt_addr_getaddr_req *req = rt_addr_getaddr_req_alloc();
	struct rt_addr_getaddr_list *all = req ? rt_addr_getaddr_dump(ns->addr, req) : NULL;
	size_t room = 0;

	*list = NULL;
	*n = 0;
	rt_addr_getaddr_req_free(req);
	if (!all)
		return refused("addresses", "cannot list them", ns->addr);
	ynl_dump_foreach(all, a) room++;
	*list = calloc(room + 1, sizeof(**list));
	ynl_dump_foreach(all, a)
	{
		const void *addr = a->local ?: a->address;
		struct pl_cidr *c = &(*list)[*n];

		if (!*list || a->_hdr.ifa_index != ifindex || !addr)
			continue;
		c->family = a->_hdr.ifa_family;
		c->len = a->_hdr.ifa_prefixlen;
		cidr_take(c, addr);
		(*n)++;
	}
	rt_addr_getaddr_list_free(all);
	return *list ? DONE : FAILED;
}
