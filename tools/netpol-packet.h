/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Packets for `netpol test`: from a line of text or a pcap file to a frame.
 *
 *	PROTO ADDR[:PORT] > ADDR[:PORT] [OPTION]...
 *	tcp [2001:db8::1]:1234 > [2001:db8::2]:443 syn in
 *	icmp 10.0.0.1 > 10.0.0.2 type echo-request/0
 *
 * PROTO by name or number; the protocols that have ports need them. Options:
 * TCP flags, a word each (fin syn rst psh ack urg; syn when there is none), in,
 * out, len N (the IP packet's bytes), id N, ttl N, frag OFFSET[+] (bytes, `+`:
 * more fragments follow), ext NAME[,NAME]... (IPv6: hbh dst rt frag ah), type
 * TYPE[/CODE] (echo-request when not given).
 */
#ifndef NETPOL_PACKET_H
#define NETPOL_PACKET_H

#include "netpol-rules.h"

#define NP_FRAME_MAX	(14 + 40 + 65535)	/* Ethernet and IPv6 headers, 64 KiB - 1 */

struct np_frame {
	__u32 len;			/* bytes in data */
	signed char dir;		/* -1 not told, NP_IN, NP_OUT */
	unsigned char *data;		/* malloc'd; of a pcap: valid until the next call */
};

/*
 * l2: bytes of link-layer header wanted, 14 (Ethernet, addresses zero) or 0.
 * 0, -EINVAL (err is filled in; line 1) or -ENOMEM.
 */
int np_frame_parse(const char *text, size_t len, unsigned int l2, struct np_frame *frame,
		   struct np_error *err);
void np_frame_free(struct np_frame *frame);

/*
 * A classic pcap file of Ethernet or raw IP, made to fit l2. open: 0, -EINVAL
 * (err tells) or -errno of the file. next: 1 a frame, 0 the end, -EINVAL (err
 * tells) or -errno. What the capture cut off a packet is zeros again.
 */
struct np_pcap;
int np_pcap_open(const char *path, unsigned int l2, struct np_pcap **pcap, struct np_error *err);
int np_pcap_next(struct np_pcap *pcap, struct np_frame *frame, struct np_error *err);
void np_pcap_close(struct np_pcap *pcap);

#endif
