/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tproxy: the way into the stack. A packet that a proxy's socket has been given must still be
 * routed to this host. In the network namespace of the device, for each family:
 *
 *	ip rule add pref 90 iif DEV fwmark 0x74 lookup 29808 protocol 116
 *	ip route add local default dev lo table 29808 protocol 116
 *
 * The device in the rule, and not the mark alone: with src_valid_mark=1 the kernel looks for
 * the way back with the mark too, but from no device, and would find that all sources are its
 * own. The protocol tells what is ours. The table is shared by all devices of the namespace.
 */
#ifndef TPROXY_NET_H
#define TPROXY_NET_H

#include <stdbool.h>
#include <stddef.h>

#include "tproxy-rule.h"

#define TP_TABLE    29808
#define TP_PROTOCOL 116
#define TP_PRIORITY 90

struct tp_net {
	struct ynl_sock *route, *rule, *addr;
};

struct tp_name {
	char dev[16];
};

/* In the current network namespace. An exit code, as all of these. */
int tp_net_open(struct tp_net *net);
void tp_net_close(struct tp_net *net);
/* The rules of dev, and the routes. *changed: something was missing, or with dry_run is. */
int tp_net_enter(struct tp_net *net, const char *dev, bool dry_run, bool *changed);
/* Rules of ours for devices that are not among these, and the routes if there are none. */
int tp_net_sweep(struct tp_net *net, const struct tp_name *devs, size_t n, bool dry_run,
		 bool *changed);
/* The addresses of the namespace, each a rule that excepts it. */
int tp_net_local(struct tp_net *net, struct tp_set *set);

#endif
