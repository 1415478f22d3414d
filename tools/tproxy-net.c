// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <ynl.h>
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>

#include "common.h"
#include "rt-addr-user.h"
#include "rt-route-user.h"
#include "rt-rule-user.h"
#include "tproxy-net.h"

#define LOOPBACK 1 /* the index of lo, in each namespace */

static const int families[] = {AF_INET, AF_INET6};

int tp_net_open(struct tp_net *net)
{
	const struct {
		const struct ynl_family *family;
		struct ynl_sock **sock;
	} all[] = {
		{&ynl_rt_route_family, &net->route},
		{&ynl_rt_rule_family, &net->rule},
		{&ynl_rt_addr_family, &net->addr},
	};
	struct ynl_error err;

	memset(net, 0, sizeof(*net));
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		*all[i].sock = ynl_sock_create(all[i].family, &err);
		if (!*all[i].sock) {
			complain("netlink: %s", err.msg);
			tp_net_close(net);
			return FAILED;
		}
	}
	return DONE;
}

void tp_net_close(struct tp_net *net)
{
	struct ynl_sock *socks[] = {net->route, net->rule, net->addr};

	for (size_t i = 0; i < ARRAY_SIZE(socks); i++)
		if (socks[i])
			ynl_sock_destroy(socks[i]);
	memset(net, 0, sizeof(*net));
}

static int refused(const char *what, const struct ynl_sock *ys)
{
	complain("%s: %s", what, ys->err.msg);
	return FAILED;
}

/* What a kernel says that has no IPv6, or has it switched off. */
static bool off(int family, const struct ynl_sock *ys)
{
	int err = ys->err.code;

	return family == AF_INET6 && (err == EAFNOSUPPORT || err == EOPNOTSUPP || err == EACCES);
}

/* --- routes --- */

/* 1: ours is there, 0: it is not, -1: somebody else's table; < -1: an error was told. */
static int route_there(struct tp_net *net, int family)
{
	struct rt_route_getroute_req_dump *req = rt_route_getroute_req_dump_alloc();
	struct rt_route_getroute_list *all = NULL;
	int there = 0;

	if (req) {
		req->_hdr.rtm_family = family;
		all = rt_route_getroute_dump(net->route, req);
	}
	rt_route_getroute_req_dump_free(req);
	if (!all)
		return off(family, net->route) ? 0 : -1 - refused("cannot list routes", net->route);
	ynl_dump_foreach(all, r)
	{
		if (r->_hdr.rtm_family != family || !r->_present.table || r->table != TP_TABLE)
			continue;
		if (r->_hdr.rtm_protocol != TP_PROTOCOL)
			there = -1;
		else if (!there)
			there = 1;
	}
	rt_route_getroute_list_free(all);
	return there;
}

static int route_add(struct tp_net *net, int family, bool *changed)
{
	struct rt_route_newroute_req *req = rt_route_newroute_req_alloc();
	int rc = DONE;

	if (!req)
		return FAILED;
	rt_route_newroute_req_set_nlflags(req, NLM_F_CREATE | NLM_F_EXCL);
	req->_hdr.rtm_family = family;
	req->_hdr.rtm_table = RT_TABLE_UNSPEC;
	req->_hdr.rtm_protocol = TP_PROTOCOL;
	req->_hdr.rtm_scope = RT_SCOPE_HOST;
	req->_hdr.rtm_type = RTN_LOCAL;
	rt_route_newroute_req_set_table(req, TP_TABLE);
	rt_route_newroute_req_set_oif(req, LOOPBACK);
	if (!rt_route_newroute(net->route, req)) {
		*changed = true;
	} else if ((int)net->route->err.code != EEXIST && !off(family, net->route)) {
		rc = refused("cannot add the local route", net->route);
		if ((int)net->route->err.code == ENETDOWN)
			complain("lo must be up, as with ip link set lo up");
	}
	rt_route_newroute_req_free(req);
	return rc;
}

static int route_del(struct tp_net *net, int family)
{
	struct rt_route_delroute_req *req = rt_route_delroute_req_alloc();
	int rc = DONE;

	if (!req)
		return FAILED;
	req->_hdr.rtm_family = family;
	req->_hdr.rtm_table = RT_TABLE_UNSPEC;
	req->_hdr.rtm_protocol = TP_PROTOCOL;
	req->_hdr.rtm_scope = RT_SCOPE_HOST;
	req->_hdr.rtm_type = RTN_LOCAL;
	rt_route_delroute_req_set_table(req, TP_TABLE);
	rt_route_delroute_req_set_oif(req, LOOPBACK);
	if (rt_route_delroute(net->route, req) && (int)net->route->err.code != ESRCH)
		rc = refused("cannot remove the local route", net->route);
	rt_route_delroute_req_free(req);
	return rc;
}

/* --- rules --- */

struct rule {
	int family;
	char dev[16];
};

/* Those of ours. malloc'd. */
static int rules_get(struct tp_net *net, struct rule **rules, size_t *n)
{
	*rules = NULL;
	*n = 0;
	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		struct rt_rule_getrule_req *req = calloc(1, sizeof(*req));
		struct rt_rule_getrule_list *all = NULL;
		struct rule *more;
		size_t room = *n;

		if (req) {
			req->_hdr.family = families[i];
			all = rt_rule_getrule_dump(net->rule, req);
		}
		free(req);
		if (!all && off(families[i], net->rule))
			continue;
		if (!all) {
			free(*rules);
			*rules = NULL;
			return refused("cannot list the routing rules (CONFIG_IP_MULTIPLE_TABLES)",
				       net->rule);
		}
		ynl_dump_foreach(all, r) room++;
		more = realloc(*rules, (room + 1) * sizeof(**rules));
		if (more)
			*rules = more;
		ynl_dump_foreach(all, r)
		{
			if (!more || r->_hdr.family != families[i] || !r->_present.protocol ||
			    r->protocol != TP_PROTOCOL || !r->_present.table ||
			    r->table != TP_TABLE || !r->iifname)
				continue;
			more[*n].family = families[i];
			snprintf(more[*n].dev, sizeof(more[*n].dev), "%s", r->iifname);
			(*n)++;
		}
		rt_rule_getrule_list_free(all);
		if (!more)
			return FAILED;
	}
	return DONE;
}

static int rule_add(struct tp_net *net, int family, const char *dev, bool *changed)
{
	struct rt_rule_newrule_req *req = rt_rule_newrule_req_alloc();
	int rc = DONE;

	if (!req)
		return FAILED;
	rt_rule_newrule_req_set_nlflags(req, NLM_F_CREATE | NLM_F_EXCL);
	req->_hdr.family = family;
	req->_hdr.action = FR_ACT_TO_TBL;
	rt_rule_newrule_req_set_iifname(req, dev);
	rt_rule_newrule_req_set_priority(req, TP_PRIORITY);
	rt_rule_newrule_req_set_fwmark(req, TP_MARK);
	rt_rule_newrule_req_set_fwmask(req, 0xffffffff);
	rt_rule_newrule_req_set_table(req, TP_TABLE);
	rt_rule_newrule_req_set_protocol(req, TP_PROTOCOL);
	if (!rt_rule_newrule(net->rule, req))
		*changed = true;
	else if ((int)net->rule->err.code != EEXIST && !off(family, net->rule))
		rc = refused("cannot add the routing rule", net->rule);
	rt_rule_newrule_req_free(req);
	return rc;
}

static int rule_del(struct tp_net *net, const struct rule *rule)
{
	struct rt_rule_delrule_req *req = rt_rule_delrule_req_alloc();
	int rc = DONE;

	if (!req)
		return FAILED;
	req->_hdr.family = rule->family;
	req->_hdr.action = FR_ACT_TO_TBL;
	rt_rule_delrule_req_set_iifname(req, rule->dev);
	rt_rule_delrule_req_set_priority(req, TP_PRIORITY);
	rt_rule_delrule_req_set_fwmark(req, TP_MARK);
	rt_rule_delrule_req_set_fwmask(req, 0xffffffff);
	rt_rule_delrule_req_set_table(req, TP_TABLE);
	rt_rule_delrule_req_set_protocol(req, TP_PROTOCOL);
	if (rt_rule_delrule(net->rule, req) && (int)net->rule->err.code != ENOENT)
		rc = refused("cannot remove the routing rule", net->rule);
	rt_rule_delrule_req_free(req);
	return rc;
}

/* --- both --- */

int tp_net_enter(struct tp_net *net, const char *dev, bool dry_run, bool *changed)
{
	struct rule *rules;
	size_t n;
	int rc = rules_get(net, &rules, &n);

	for (size_t i = 0; !rc && i < ARRAY_SIZE(families); i++) {
		int there = route_there(net, families[i]);
		size_t k = 0;

		if (there == -1)
			complain("table %d has a route that is not of tproxy", TP_TABLE);
		if (there < 0) {
			rc = FAILED;
			break;
		}
		if (!there && dry_run)
			*changed = true;
		else if (!there)
			rc = route_add(net, families[i], changed);
		while (k < n && (rules[k].family != families[i] || strcmp(rules[k].dev, dev)))
			k++;
		if (!rc && k == n && dry_run)
			*changed = true;
		else if (!rc && k == n)
			rc = rule_add(net, families[i], dev, changed);
	}
	free(rules);
	return rc;
}

int tp_net_sweep(struct tp_net *net, const struct tp_name *devs, size_t n, bool dry_run,
		 bool *changed)
{
	struct rule *rules;
	size_t nrules;
	int rc = rules_get(net, &rules, &nrules);

	for (size_t i = 0; !rc && i < nrules; i++) {
		size_t k = 0;

		while (k < n && strcmp(rules[i].dev, devs[k].dev))
			k++;
		if (k < n)
			continue;
		*changed = true;
		rc = dry_run ? DONE : rule_del(net, &rules[i]);
	}
	free(rules);
	for (size_t i = 0; !rc && !n && i < ARRAY_SIZE(families); i++) {
		int there = route_there(net, families[i]);

		if (there < -1)
			return FAILED;
		if (there != 1)
			continue;
		*changed = true;
		rc = dry_run ? DONE : route_del(net, families[i]);
	}
	return rc;
}

int tp_net_local(struct tp_net *net, struct tp_set *set)
{
	struct rt_addr_getaddr_req *req = rt_addr_getaddr_req_alloc();
	struct rt_addr_getaddr_list *all = req ? rt_addr_getaddr_dump(net->addr, req) : NULL;
	int rc = DONE;

	rt_addr_getaddr_req_free(req);
	if (!all)
		return refused("cannot list addresses", net->addr);
	ynl_dump_foreach(all, a)
	{
		const __u8 *addr = a->local ?: a->address;
		bool v4 = a->_hdr.ifa_family == AF_INET;
		struct tp_rule r = {.protos = TP_BOTH,
				    .except = 1,
				    .to = 65535,
				    .family = v4 ? 4 : 6,
				    .len = v4 ? 32 : 128};

		if (!addr)
			continue;
		if (v4)
			r.addr.b[10] = r.addr.b[11] = 0xff;
		memcpy(r.addr.b + (v4 ? 12 : 0), addr, v4 ? 4 : 16);
		memset(r.mask.b, 0xff, 16);
		if (tp_set_add(set, &r) < 0) {
			complain("more than %d rules: this network namespace has too many "
				 "addresses; name with --dst what is to be redirected",
				 TP_RULES);
			rc = FAILED;
			break;
		}
	}
	rt_addr_getaddr_list_free(all);
	return rc;
}
