// SPDX-License-Identifier: GPL-2.0-only
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <linux/if_link.h>

#include "podlink-verbs.h"

static json_t *findings;
static bool bad;

static void __attribute__((format(printf, 2, 3))) finding(bool is_bad, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	bad |= is_bad;
	json_array_append_new(findings, json_pack("{s:b, s:s}", "bad", is_bad, "text", line));
	if (!asked.json)
		puts(line);
}

static void examine(struct pl_ns *host, const struct pl_path *path, const struct pl_link *link)
{
	struct pl_path_info info;
	struct pl_addr *addrs;
	struct pl_link peer;
	struct pl_ns pod;
	char text[46];
	__u32 by;
	size_t n;
	int rc = pl_pod_of(host, link, &pod, &peer);

	if (rc) {
		finding(!link->peer, "%s: %s", link->name,
			link->peer ? "the pod's end is in a namespace that has no name any more"
				   : "has no other end; podlink del it");
	} else {
		if (peer.mtu != link->mtu)
			finding(true, "%s: MTU %u on the host, %u in the pod", link->name,
				link->mtu, peer.mtu);
		if (peer.gso_max != link->gso_max)
			finding(true, "%s: GSO size %u on the host, %u in the pod", link->name,
				link->gso_max, peer.gso_max);
		if (!peer.up)
			finding(true, "%s: down in the pod", link->name);
		pl_ns_close(&pod);
	}
	if (!link->up)
		finding(true, "%s: down on the host", link->name);
	if (link->kind == PL_NETKIT && link->netkit.peer_policy == NETKIT_DROP &&
	    !pl_path_has(path, link->ifindex))
		finding(false, "%s: what the pod sends is dropped unless a program decides",
			link->name);
	if (!pl_path_info(path, link->ifindex, &info) && pl_path_behind(link, &info))
		finding(true,
			"%s: program %u is behind podlink's and does not see what is redirected; "
			"attach it in front, as with netpol attach --first",
			link->name, pl_path_behind(link, &info));
	if (pl_path_addrs(path, link->ifindex, &addrs, &n))
		return;
	for (size_t i = 0; i < n; i++)
		if (!pl_route_get(host, &addrs[i], &by) && by != link->ifindex)
			finding(true, "%s: the host has no route to %s by it; podlink add it again",
				link->name, pl_addr_text(&addrs[i], text));
	free(addrs);
}

int verb_doctor(int argc, char **argv)
{
	struct pl_ns *host = &env.host;
	struct pl_path path = {.pods = -1};
	struct pl_link *links = NULL;
	int rc, lock = -1;
	const bool look = !env.fix || asked.dry_run;
	const char *next = look ? "; podlink doctor --fix removes them" : ", removed";
	__u32 dead = 0, others = 0;
	size_t n = 0;

	if (argc)
		return usage_error("doctor", "takes no arguments");
	findings = json_array();
	rc = pins_check();
	if (!rc && !access(PL_ROOT, F_OK)) {
		lock = pins_lock(PL_ROOT, true);
		if (lock < 0) {
			complain_err(lock, PL_ROOT, "cannot lock");
			rc = FAILED;
		}
	}
	if (!rc)
		rc = pl_path_open(&path);
	if (!rc && lock >= 0)
		rc = pl_path_sweep(&path, host, look, &dead) ?:
		     pl_path_sweep_others(&path, look, &others);
	if (!rc && dead)
		finding(false, "pins of %u links that are gone%s", dead, next);
	if (!rc && others)
		finding(false, "pins of links that are gone, of %u other network namespaces%s",
			others, next);
	if (!rc)
		rc = pl_link_list(host, &links, &n);
	for (size_t i = 0; !rc && i < n; i++)
		if (pl_ours(&links[i]))
			examine(host, &path, &links[i]);
	free(links);
	pl_path_close(&path);
	pins_unlock(lock);
	if (rc) {
		json_decref(findings);
		return rc;
	}
	if (asked.json)
		rc = json_out(json_pack("{s:b, s:o}", "ok", !bad, "findings", findings));
	else
		json_decref(findings);
	return rc ?: bad ? FAILED : DONE;
}
