/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For every program: kernel types, libbpf's headers, and the constants that
 * headers define as macros and BTF therefore lacks.
 */
#ifndef COMMON_BPF_H
#define COMMON_BPF_H

#include "vmlinux.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETH_HLEN	14
#define ETH_P_IP	0x0800
#define ETH_P_ARP	0x0806
#define ETH_P_8021Q	0x8100
#define ETH_P_IPV6	0x86dd
#define ETH_P_8021AD	0x88a8

/* The verdicts of tcx, netkit and tc's direct action share their values. */
#define ACT_NEXT	(-1)
#define ACT_PASS	0
#define ACT_DROP	2

/* include/uapi/linux/in6.h */
#define IPPROTO_HOPOPTS		0
#define IPPROTO_ROUTING		43
#define IPPROTO_FRAGMENT	44
#define IPPROTO_ICMPV6		58
#define IPPROTO_DSTOPTS		60

#define IP_MF		0x2000
#define IP_OFFSET	0x1fff

#define NSEC_PER_SEC	1000000000ULL

#endif
