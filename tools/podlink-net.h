/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * podlink: links, addresses and routes, through rtnetlink in one network namespace or
 * another. What fails is told here, in the kernel's own words; callers get an exit code.
 */
#ifndef PODLINK_NET_H
#define PODLINK_NET_H

#include <net/if.h>
#include <stdbool.h>
#include <linux/types.h>

#include "podlink.h"

/* A network namespace with its sockets. */
struct pl_ns {
	int fd;
	struct ynl_sock *link, *addr, *route;
};

/* A namespace as a descriptor, which it takes; -1: this one. */
int pl_ns_open(struct pl_ns *ns, int fd);
/* A new one. It is gone, with all devices in it, when *ns is closed. */
int pl_ns_new(struct pl_ns *ns);
void pl_ns_close(struct pl_ns *ns);
/* Whether both are one and the same. */
bool pl_ns_same(const struct pl_ns *a, const struct pl_ns *b);
/* This thread into a namespace. */
int pl_ns_enter(const struct pl_ns *ns);

enum pl_kind { PL_NETKIT, PL_VETH, PL_OTHER };

extern const char *const pl_kinds[]; /* by enum pl_kind */

struct pl_link {
	char name[IF_NAMESIZE];
	__u32 ifindex;
	__u16 arphrd;
	enum pl_kind kind;
	bool up;
	char alias[256];
	__u8 mac[6];
	__u32 mtu;
	__u32 gso_max, gso_ipv4_max; /* bytes */
	__u32 rx_queues, tx_queues;
	__u32 peer;	 /* its index; 0: none */
	__s32 peer_nsid; /* of its namespace as seen here; -1: the same one */
	struct {
		bool primary;
		int mode;		 /* enum netkit_mode */
		int policy, peer_policy; /* enum netkit_action */
		int scrub, peer_scrub;	 /* enum netkit_scrub */
		__u16 headroom, tailroom;
	} netkit;
	__u64 rx_packets, rx_bytes, rx_dropped, tx_packets, tx_bytes, tx_dropped;
};

/*
 * By name, or by index where name is NULL; nsid: in that namespace instead, as seen from
 * ns, or -1. DONE, NOTHING (not told), or FAILED.
 */
int pl_link_get(struct pl_ns *ns, const char *name, __u32 ifindex, __s32 nsid,
		struct pl_link *link);
/* All of them; to be freed. */
int pl_link_list(struct pl_ns *ns, struct pl_link **links, size_t *n);

/* What is asked of a link. Numbers that are -1, and pointers that are NULL, are left alone. */
struct pl_link_want {
	const char *name, *alias;
	const __u8 *mac;
	__s64 mtu, gso_max, headroom, tailroom;
	int up;
	int to;	       /* a namespace */
	__s64 ifindex; /* there */
};

#define PL_LINK_WANT                                                                               \
	{                                                                                          \
		.mtu = -1, .gso_max = -1, .headroom = -1, .tailroom = -1, .up = -1, .to = -1,      \
		.ifindex = -1                                                                      \
	}

struct pl_pair_want {
	enum pl_kind kind;
	int mode, policy, peer_policy, scrub, peer_scrub;
	__s64 headroom, tailroom;
};

/* A pair with a name for the primary end; the other gets one from the kernel. told: its name
 * in messages. DONE, LACKING or FAILED.
 */
int pl_pair_new(struct pl_ns *ns, const char *name, const char *told,
		const struct pl_pair_want *want);
/* Where errnum is not NULL, it tells why this failed, and nothing is said. */
int pl_link_set(struct pl_ns *ns, const struct pl_link *link, const struct pl_link_want *want,
		int *errnum);
/* Say then what the kernel said; FAILED. */
int pl_link_refused(struct pl_ns *ns, const char *name, const char *what);
int pl_link_del(struct pl_ns *ns, const struct pl_link *link);

struct pl_cidr {
	struct pl_addr addr;
	int family;
	__u8 len; /* of the prefix, in the family's own bits */
};

/* "10.0.0.1/24", "fd00::1"; without a length it is that of one address. */
bool pl_cidr_parse(const char *text, struct pl_cidr *cidr);
const char *pl_addr_text(const struct pl_addr *addr, char text[46]);

/* Already there is fine: *changed, where it is not NULL, is then left alone. */
int pl_addr_add(struct pl_ns *ns, __u32 ifindex, const struct pl_cidr *cidr, bool *changed);
/* gateway NULL: on the link itself. */
int pl_route_add(struct pl_ns *ns, __u32 ifindex, const struct pl_cidr *dst,
		 const struct pl_cidr *gateway, bool *changed);
/*
 * The default route that pl_route_add() would meet: its gateway (family 0: it has none, or
 * more than one) and device. DONE, NOTHING (there is none) or FAILED.
 */
int pl_default_get(struct pl_ns *ns, int family, struct pl_cidr *gateway, __u32 *ifindex);
/* By which device an address is reached; 0: none. */
int pl_route_get(struct pl_ns *ns, const struct pl_addr *addr, __u32 *ifindex);
int pl_addr_list(struct pl_ns *ns, __u32 ifindex, struct pl_cidr **list, size_t *n);

#endif
