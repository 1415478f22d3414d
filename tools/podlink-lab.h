/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * podlink bench: a host with its pods, an uplink and a world behind it, in network
 * namespaces that only this process holds. Nothing of it has a name outside, and nothing
 * is left of it, however the process ends.
 *
 * The host has 192.0.2.1 and 2001:db8::1 on the uplink, the world .9 and ::9; pod E of
 * contender K has 10.0.K.E+2 and fd00::K:E+2. Beyond a tunnel the host is 10.1.0.1 and the
 * world 10.1.0.9 (vxlan), or 10.2.0.1 and 10.2.0.9 (wireguard).
 */
#ifndef PODLINK_LAB_H
#define PODLINK_LAB_H

#include "podlink-net.h"
#include "podlink-path.h"

enum pl_contender {
	PL_HOST,	 /* no pod: a socket of the host */
	PL_NETKIT_L3,	 /* with podlink's datapath */
	PL_NETKIT_L2,
	PL_VETH_PATH,
	PL_NETKIT_STACK, /* the host's stack forwards */
	PL_VETH_STACK,
	PL_NETKIT_ROOM,	 /* as NETKIT_STACK, with headroom; behind a tunnel only */
	PL_CONTENDERS,
};

extern const char *const pl_contenders[PL_CONTENDERS];

enum pl_tunnel { PL_VXLAN, PL_WIREGUARD, PL_TUNNELS };

extern const char *const pl_tunnels[PL_TUNNELS];

struct pl_lab_pod {
	struct pl_ns ns;
	struct pl_link link, peer;	/* the host's end, the pod's */
	struct podlink *held;
};

struct pl_lab {
	struct pl_ns host, world;
	struct pl_link uplink, eth0;	/* the host's end, the world's */
	struct pl_path path;
	struct pl_lab_pod pod[PL_CONTENDERS][2];
	bool six;			/* the kernel has IPv6 */
};

/* *lab is to be closed in any case. DONE, LACKING: cannot make namespaces, or FAILED. */
int pl_lab_open(struct pl_lab *lab);
/* A contender's pods. LACKING: told already; the others are as they were. */
int pl_lab_add(struct pl_lab *lab, enum pl_contender c, __u32 headroom, __u32 tailroom);
/* A tunnel from the host to the world. */
int pl_lab_tunnel(struct pl_lab *lab, enum pl_tunnel tunnel);
/* The GSO size of all devices that a contender's packets pass. */
int pl_lab_gso(struct pl_lab *lab, __u32 bytes);
void pl_lab_close(struct pl_lab *lab);

#endif
