/* SPDX-License-Identifier: GPL-2.0-only */
/* What programs do by a request of sockiter.h: judge a socket, account for its end. */
#ifndef SOCKITER_BPF_H
#define SOCKITER_BPF_H

#include "sockiter.h"

#define ENOENT	2
#define EBUSY	16

static __always_inline bool match(struct sockiter_req *r, struct sock_common *skc)
{
	__u16 lport = skc->skc_num, dport = bpf_ntohs(skc->skc_dport);

	return (r->lport && lport == r->lport) || (r->dport && dport == r->dport);
}

static __always_inline void account(struct sockiter_req *r, int err)
{
	switch (err) {
	case 0:
		r->killed++;
		break;
	case -EBUSY:
		r->busy++;
		break;
	case -ENOENT:
		r->gone++;
		break;
	default:
		r->err = err;
	}
}

#endif
