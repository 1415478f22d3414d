/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tproxy: what the program and the tool share. The tool writes what is constant for a
 * program, the program reads it; the program counts and tells, the tool reads.
 */
#ifndef TPROXY_H
#define TPROXY_H

/* An IPv6 address, or an IPv4 one as ::ffff:a.b.c.d. */
struct tp_addr {
	union {
		__u8 b[16];
		__u32 w[4];
		__u64 d[2];
	};
};

enum tp_hook {
	TP_TCX_INGRESS,
	TP_TCX_EGRESS,
	TP_NETKIT_PEER,
	TP_NETKIT_PRIMARY,
	TP_HOOKS,
};

enum tp_missing { TP_DROP, TP_PASS, TP_RESET };

/* Bits of a rule's protocols, and places in tp_listeners: protocol and family. */
enum { TP_TCP = 1, TP_UDP = 2, TP_BOTH = 3 };
enum { TP_TCP4, TP_TCP6, TP_UDP4, TP_UDP6, TP_LISTENERS };

/*
 * What the packets of a proxied connection are marked with, so that the rule of the tool
 * finds the table whose only route makes every address one of this host.
 */
#define TP_MARK 0x74

#define TP_RULES 256
#define TP_SENDERS 16
#define TP_NAME 240

/* A destination. */
struct tp_rule {
	struct tp_addr addr, mask;
	__u16 from, to; /* ports, in host order */
	__u8 protos;
	__u8 family; /* 4, 6, or 0: both */
	__u8 len;    /* of the prefix, as users write it */
	__u8 except;
};

/* A sender whose packets pass by. */
enum tp_sender_kind { TP_BY_MARK, TP_BY_CGROUP, TP_BY_UID };

struct tp_sender {
	__u64 value; /* mark, id of the cgroup, or user */
	__u32 more;  /* mask of the mark, or level of the cgroup */
	__u32 kind;
};

struct tp_to {
	struct tp_addr addr;
	__u32 port; /* 0: none */
	__u32 pad;
};

struct tp_conf {
	struct tp_to to[2]; /* of IPv4 and of IPv6 */
	__u32 hook;
	__u32 l2_len; /* of the link-layer header that the program sees */
	__u32 missing;
	__u32 nrules, nsenders;
	__u32 pad;
};

enum tp_stat {
	/* given to a socket */
	TP_CONNECTIONS, /* first segments of connections, to the listener */
	TP_SEGMENTS,	/* others without a connection, to the listener */
	TP_DATAGRAMS,	/* to the UDP listener */
	TP_ESTABLISHED, /* to a connection, or to a UDP socket that is connected */
	/* passed by */
	TP_BY_ADDRESS, /* excepted by its destination */
	TP_BY_SENDER,  /* excepted by its mark, cgroup or user */
	TP_BY_PROXY,   /* sent by a transparent socket: the proxy's own */
	/* what was in the way, and what was done then */
	TP_NO_LISTENER,
	TP_NOT_TRANSPARENT,
	TP_NOT_ASSIGNED,
	TP_FRAGMENT,
	TP_TIME_WAIT,
	TP_MALFORMED,
	TP_DROPPED,
	TP_PASSED,
	TP_ANSWERED,
	TP_STATS,
};

struct tp_count {
	__u64 packets;
	__u64 bytes; /* with the link-layer header */
};

/* A connection, a UDP flow, or what was in the way. */
struct tp_event {
	__u64 ns; /* since boot */
	struct tp_addr src, dst;
	__u16 sport, dport; /* in host order */
	__u8 protocol;	    /* of IANA */
	__u8 stat;	    /* enum tp_stat */
	__u8 done;	    /* enum tp_stat: what was done, where something was in the way */
	__u8 pad;
};

#endif
