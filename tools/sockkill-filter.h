/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * sockkill's filter, in the words of ss(8):
 *
 *	FILTER = { state STATE | exclude STATE | EXPR }...
 *	EXPR   = EXPR or EXPR | EXPR [and] EXPR | not EXPR | ( EXPR ) | PREDICATE
 *	PREDICATE = dst|src [OP] ADDR[/LEN][:PORT] | dport|sport [OP] [:]PORT
 *		| service [OP] ADDR[:PORT] | dev [OP] NAME | fwmark [OP] MARK[/MASK]
 *		| cgroup [OP] PATH | cookie [OP] NUMBER
 *	OP = one of = == eq != ne neq, and for ports < <= > >= lt le gt ge
 *
 * `and` binds closer than `or`; &, && and |, || and ! are the same words. An IPv6 address with
 * a port is in brackets. `service` asks for what the recorder has seen dialled. Names of hosts
 * and services are not resolved.
 */
#ifndef SOCKKILL_FILTER_H
#define SOCKKILL_FILTER_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>

#include "sockkill.h"

struct sk_filter {
	__u32 nops;			/* 0: every socket of these states */
	struct sk_op op[SK_OPS_MAX];
	__u32 states;			/* mask; 0: none was named */
	bool records;			/* it asks for a service */
	/* A socket must have one of the addresses, ports, devices, marks, cgroups or cookies
	 * named: not "not dst 10.0.0.1", which is nearly all.
	 */
	bool narrow;
};

struct sk_error {
	size_t col;			/* in the text, from 0 */
	char msg[256];
};

/* 0, or -EINVAL and err. Devices and cgroups are looked up by their names now. */
int sk_filter_parse(const char *text, struct sk_filter *filter, struct sk_error *err);

/* ADDR:PORT, [ADDR]:PORT. */
bool sk_endpoint_parse(const char *text, __u8 addr[16], __u16 *port);

/* In the words of ss. A mask, 0: there is no such state; a name, NULL: none of that number. */
__u32 sk_state_mask(const char *name);
const char *sk_state_name(unsigned int state);

#endif
