/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef PACKETS_H
#define PACKETS_H

#define BENCH_MAC	"\x02\0\0\0\0\x01"	/* of the device where packets enter */
#define BENCH_FLOWS	65536
#define BENCH_SPORT	1024
#define BENCH_SPORTS	64000

struct bench_flow {
	__be32 saddr;
	__be32 daddr;
	__be16 dport;
	__u16 check;		/* of the IP header, the same in both directions */
};
_Static_assert(sizeof(struct bench_flow) == 12, "written by netpol");

struct bench_range {
	__u32 start, end;	/* host byte order, inclusive */
	__be16 port;
	__u16 pad;
};
_Static_assert(sizeof(struct bench_range) == 12, "written by netpol");

#endif
