// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <stdlib.h>
#include <linux/if_link.h>

#include "podlink-verbs.h"

static json_t *mac_json(const __u8 *mac)
{
	char text[18];

	snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2],
		 mac[3], mac[4], mac[5]);
	return json_string(text);
}

static void set_number(json_t *o, const char *key, __u64 value)
{
	json_object_set_new(o, key, json_integer(value));
}

static json_t *addrs_json(struct pl_ns *ns, __u32 ifindex)
{
	char addr[46], text[sizeof(addr) + 4];
	json_t *addrs = json_array();
	struct pl_cidr *list = NULL;
	size_t n = 0;

	if (!pl_addr_list(ns, ifindex, &list, &n))
		for (size_t i = 0; i < n; i++) {
			snprintf(text, sizeof(text), "%s/%u", pl_addr_text(&list[i].addr, addr),
				 list[i].len);
			json_array_append_new(addrs, json_string(text));
		}
	free(list);
	return addrs;
}

static json_t *end_json(struct pl_ns *ns, const struct pl_link *l)
{
	json_t *o = json_object(), *c = json_object();

	json_object_set_new(o, "name", json_string(l->name));
	set_number(o, "ifindex", l->ifindex);
	json_object_set_new(o, "up", json_boolean(l->up));
	json_object_set_new(o, "mac", mac_json(l->mac));
	json_object_set_new(o, "addresses", addrs_json(ns, l->ifindex));
	set_number(o, "mtu", l->mtu);
	set_number(o, "gso_max", l->gso_max);
	set_number(o, "gso_ipv4_max", l->gso_ipv4_max);
	set_number(o, "rx_queues", l->rx_queues);
	set_number(o, "tx_queues", l->tx_queues);
	set_number(c, "rx_packets", l->rx_packets);
	set_number(c, "rx_bytes", l->rx_bytes);
	set_number(c, "rx_dropped", l->rx_dropped);
	set_number(c, "tx_packets", l->tx_packets);
	set_number(c, "tx_bytes", l->tx_bytes);
	set_number(c, "tx_dropped", l->tx_dropped);
	json_object_set_new(o, "counters", c);
	return o;
}

static const char *const stat_names[PL_STATS_MAX] = {
	[PL_TO_POD] = "to_pod",		[PL_TO_UPLINK] = "to_uplink", [PL_TO_STACK] = "to_stack",
	[PL_FROM_STACK] = "from_stack", [PL_ANSWERED] = "answered",   [PL_DENIED] = "denied",
};

static json_t *count_json(const struct pl_count *c)
{
	return json_pack("{s:I, s:I}", "packets", (json_int_t)c->packets, "bytes",
			 (json_int_t)c->bytes);
}

static json_t *forward_json(const struct pl_path *path, __u32 ifindex)
{
	json_t *o = json_object(), *progs = json_object(), *stats = json_object(), *up;
	json_t *addrs = json_array();
	struct pl_path_info info;
	struct pl_addr *list;
	char text[46];
	size_t n;

	if (pl_path_info(path, ifindex, &info) == DONE) {
		if (!pl_path_addrs(path, ifindex, &list, &n))
			for (size_t i = 0; i < n; i++)
				json_array_append_new(addrs,
						      json_string(pl_addr_text(&list[i], text)));
		free(list);
		set_number(progs, "peer", info.peer_prog);
		set_number(progs, "primary", info.primary_prog);
		for (int i = 0; i < PL_STATS_MAX; i++)
			json_object_set_new(stats, stat_names[i], count_json(&info.count[i]));
		json_object_set(o, "addresses", addrs);
		json_object_set(o, "programs", progs);
		json_object_set(o, "counters", stats);
		if (info.uplink_prog) {
			up = json_object();
			set_number(up, "ifindex", info.uplink);
			set_number(up, "program", info.uplink_prog);
			json_object_set_new(up, "in", count_json(&info.in));
			json_object_set_new(o, "uplink", up);
		}
	} else {
		json_decref(o);
		o = json_null();
	}
	json_decref(addrs);
	json_decref(progs);
	json_decref(stats);
	return o;
}

static void set_choice(json_t *o, const char *key, bool first, const char *one, const char *other)
{
	json_object_set_new(o, key, json_string(first ? one : other));
}

static void netkit_json(json_t *o, const struct pl_link *l)
{
	set_choice(o, "mode", l->netkit.mode == NETKIT_L2, "l2", "l3");
	set_choice(o, "policy", l->netkit.policy == NETKIT_PASS, "pass", "drop");
	set_choice(o, "peer_policy", l->netkit.peer_policy == NETKIT_PASS, "pass", "drop");
	set_choice(o, "scrub", l->netkit.scrub == NETKIT_SCRUB_NONE, "none", "default");
	set_choice(o, "peer_scrub", l->netkit.peer_scrub == NETKIT_SCRUB_NONE, "none", "default");
	set_number(o, "headroom", l->netkit.headroom);
	set_number(o, "tailroom", l->netkit.tailroom);
}

static json_t *link_json(struct pl_ns *host, const struct pl_path *path, const struct pl_link *link)
{
	struct pl_link peer;
	struct pl_ns pod;
	json_t *o;
	int rc = pl_pod_of(host, link, &pod, &peer);

	o = json_pack("{s:s, s:s, s:o}", "name", link->name, "type", pl_kinds[link->kind], "host",
		      end_json(host, link));
	if (link->kind == PL_NETKIT)
		netkit_json(o, link);
	if (!rc) {
		json_object_set_new(o, "netns", json_string(pl_pod_path(link)));
		json_object_set_new(o, "pod", end_json(&pod, &peer));
		pl_ns_close(&pod);
	} else {
		json_object_set_new(o, "pod", json_null());
	}
	json_object_set_new(o, "forward", forward_json(path, link->ifindex));
	return o;
}

static const char *str(json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key)) ?: "?";
}

static long long num(json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

static void print_end(const char *what, json_t *end)
{
	json_t *c = json_object_get(end, "counters"), *addr;
	size_t i;

	printf("  %s %s (%lld) %s mtu %lld gso %lld ipv4 %lld queues %lld/%lld mac %s\n", what,
	       str(end, "name"), num(end, "ifindex"),
	       json_is_true(json_object_get(end, "up")) ? "up" : "down", num(end, "mtu"),
	       num(end, "gso_max"), num(end, "gso_ipv4_max"), num(end, "rx_queues"),
	       num(end, "tx_queues"), str(end, "mac"));
	json_array_foreach(json_object_get(end, "addresses"), i, addr)
		printf("    %s\n", json_string_value(addr));
	printf("    rx %lld packets %lld bytes %lld dropped, tx %lld packets %lld bytes %lld "
	       "dropped\n",
	       num(c, "rx_packets"), num(c, "rx_bytes"), num(c, "rx_dropped"), num(c, "tx_packets"),
	       num(c, "tx_bytes"), num(c, "tx_dropped"));
}

static void print_link(json_t *o)
{
	json_t *f = json_object_get(o, "forward"), *pod = json_object_get(o, "pod"), *v;
	const char *key;

	printf("%s: %s", str(o, "name"), str(o, "type"));
	if (json_object_get(o, "mode"))
		printf(" %s policy %s/%s scrub %s/%s headroom %lld tailroom %lld", str(o, "mode"),
		       str(o, "policy"), str(o, "peer_policy"), str(o, "scrub"),
		       str(o, "peer_scrub"), num(o, "headroom"), num(o, "tailroom"));
	putchar('\n');
	print_end("host", json_object_get(o, "host"));
	if (json_is_null(pod)) {
		puts("  pod  cannot be found: its namespace has no name any more, or has gone");
	} else {
		printf("  in %s\n", str(o, "netns"));
		print_end("pod ", pod);
	}
	if (json_is_null(f))
		return;
	v = json_object_get(f, "programs");
	printf("  forward: programs peer %lld primary %lld\n", num(v, "peer"), num(v, "primary"));
	json_object_foreach(json_object_get(f, "counters"), key, v) printf(
		"    %-10s %lld packets %lld bytes\n", key, num(v, "packets"), num(v, "bytes"));
	v = json_object_get(f, "uplink");
	if (v)
		printf("    uplink %lld: program %lld, in for all pods: %lld packets %lld bytes\n",
		       num(v, "ifindex"), num(v, "program"),
		       num(json_object_get(v, "in"), "packets"),
		       num(json_object_get(v, "in"), "bytes"));
}

int verb_show(int argc, char **argv)
{
	struct pl_ns *host = &env.host;
	struct pl_path path = {.pods = -1};
	struct pl_link *links = NULL, one;
	json_t *all = json_array(), *o;
	size_t n = 0, i;
	int rc;

	if (argc > 1)
		return usage_error("show", "takes one NAME at most");
	if (argc)
		rc = pl_find(host, argv[0], &one);
	else
		rc = pl_link_list(host, &links, &n);
	if (!rc)
		rc = pins_check() ?: pl_path_open(&path);
	if (!rc && argc)
		json_array_append_new(all, link_json(host, &path, &one));
	for (i = 0; !rc && i < n; i++)
		if (pl_ours(&links[i]))
			json_array_append_new(all, link_json(host, &path, &links[i]));
	free(links);
	pl_path_close(&path);
	if (!rc && asked.json)
		return json_out(json_pack("{s:o}", "links", all));
	json_array_foreach(all, i, o) print_link(o);
	json_decref(all);
	return rc;
}
