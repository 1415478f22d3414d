// SPDX-License-Identifier: GPL-2.0-only
/*
 * Somebody else's program at a hook of ours: counts what reaches it and has no
 * opinion. A program that ended the chain before it would show in the count.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

__u64 seen;

SEC("tcx/ingress")
int foreign_tcx(struct __sk_buff *skb)
{
	__sync_fetch_and_add(&seen, 1);
	return TCX_NEXT;
}

SEC("netkit/primary")
int foreign_netkit(struct __sk_buff *skb)
{
	__sync_fetch_and_add(&seen, 1);
	return NETKIT_NEXT;
}

SEC("tc")
int foreign_legacy(struct __sk_buff *skb)
{
	__sync_fetch_and_add(&seen, 1);
	return -1;	/* TC_ACT_UNSPEC */
}
