// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a node's agent does on the uplink: IPv4 goes straight into a pod, by the host's
 * end of the pod's pair of devices.
 */
#include <vmlinux.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETH_P_IP	0x0800

char LICENSE[] SEC("license") = "GPL";

const volatile __u32 target;	/* ifindex */

__u64 redirected;

SEC("tcx/ingress")
int redirect_pod(struct __sk_buff *skb)
{
	if (skb->protocol != bpf_htons(ETH_P_IP))
		return TCX_NEXT;
	__sync_fetch_and_add(&redirected, 1);
	return bpf_redirect_peer(target, 0);
}
