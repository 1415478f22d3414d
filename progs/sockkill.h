/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What sockkill's programs and its tool share. The tool writes the filter and the lists of
 * backends and namespaces, and reads victims and totals.
 */
#ifndef SOCKKILL_H
#define SOCKKILL_H

#define SK_OPS_MAX	128		/* predicates of one filter */

/* What an op asks of a socket. Addresses are in IPv6's form: 10.0.0.1 is ::ffff:10.0.0.1. */
enum sk_what {
	SK_DST,				/* peer's address: its first bits, of sockets of family */
	SK_SRC,				/* the socket's own */
	SK_DPORT,			/* peer's port, from lo to hi */
	SK_SPORT,
	SK_DEV,				/* bound to the device of that index, in value */
	SK_MARK,			/* mark & (value >> 32) == (__u32)value */
	SK_CGROUP,			/* of that id, in value, or below it */
	SK_COOKIE,			/* is value */
	SK_BACKEND,			/* peer's address and port are in the map of backends */
	SK_SERVICE,			/* recorded: what was dialled; port lo, 0: any */
};

/* A filter runs from op 0; each op names the next one, or the end. */
enum {
	SK_ACCEPT = 0xfffe,
	SK_REJECT = 0xffff,
};

struct sk_op {
	__u16 what;			/* enum sk_what */
	__u16 yes, no;			/* index of an op, SK_ACCEPT or SK_REJECT */
	__u8 family;			/* 4: also IPv4 on IPv6 sockets; 6 */
	__u8 bits;			/* 0 to 128 */
	__u16 lo, hi;			/* ports, host order, both inclusive */
	__u32 pad;
	__u64 value;
	__u8 addr[16];
};

_Static_assert(sizeof(struct sk_op) == 40, "layout of struct sk_op");

/* A peer: a backend's address, in IPv6's form, port and protocol (IPPROTO_TCP, IPPROTO_UDP). */
struct sk_endpoint {
	__u8 addr[16];
	__be16 port;
	__u8 proto;
	__u8 pad;
};

_Static_assert(sizeof(struct sk_endpoint) == 20, "layout of struct sk_endpoint");

/* What became of a victim: an errno, or one of these. */
#define SK_LISTED	1		/* nothing was asked for but its name */
#define SK_UNRECORDED	2		/* left alone: the recorder has not seen it connect */

/* From the programs to the tool. */
struct sk_victim {
	__u64 cookie;
	__u64 ino;			/* of the socket's file; 0: it has none */
	__u8 saddr[16], daddr[16];	/* in IPv6's form */
	__be16 sport, dport;
	__u8 family;			/* AF_INET, AF_INET6: the socket's */
	__u8 proto;			/* IPPROTO_TCP, IPPROTO_UDP */
	__u8 state;			/* 1 to 12, as in the state mask */
	__u8 pad;
	__u32 netns;			/* inode number of its network namespace */
	__u32 uid;
	__u32 dev;			/* index of the device that it is bound to; 0: none */
	__u32 mark;
	__s32 err;			/* 0: destroyed; SK_LISTED; -errno of bpf_sock_destroy() */
	__u32 pad2;
};

_Static_assert(sizeof(struct sk_victim) == 80, "layout of struct sk_victim");

/* Of one network namespace, in one pass or more; sockets. */
struct sk_total {
	__u64 seen;			/* of the protocols and families that were asked for */
	__u64 untold;			/* to be taken, but no room to tell of it: left alone */
};

/* What a socket asked for, and what it got, by the recorder: before and after translation. */
struct sk_record {
	struct sk_endpoint dialled, reached;
	__u64 time;			/* ns of CLOCK_MONOTONIC; 0: not connected yet */
	__u32 pid;
	char comm[16];
	__u32 pad;
};

_Static_assert(sizeof(struct sk_record) == 72, "layout of struct sk_record");

/* Since the recorder was turned on. */
struct sk_recorder {
	__u64 recorded;			/* connects */
	__u64 lost;			/* connects for which the map had no room */
};

/* An open file: a socket, or a namespace when netns is 0. */
struct sk_file {
	__u64 ino;
	__u32 netns;			/* of the socket */
	__u32 pid, fd;
	char comm[16];
	__u32 pad;
};

_Static_assert(sizeof(struct sk_file) == 40, "layout of struct sk_file");

/* Bits of the state mask: 1 << TCP_ESTABLISHED (1) to 1 << TCP_NEW_SYN_RECV (12). */
#define SK_STATES_ALL	0x1ffe
/* Without a word about states: all but listening (10) and unconnected (7) sockets; to destroy
 * also not those in TIME_WAIT (6) and requests (12).
 */
#define SK_STATES_LIST	(SK_STATES_ALL & ~(1 << 10 | 1 << 7))
#define SK_STATES_KILL	(SK_STATES_LIST & ~(1 << 6 | 1 << 12))

#endif
