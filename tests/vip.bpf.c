// SPDX-License-Identifier: GPL-2.0-only
/* A service as in socket load balancing: who connects to 10.96.0.10:80 gets its backend. */
#include "common.bpf.h"

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __be32); /* 0: there is none */
	__uint(max_entries, 1);
} backend SEC(".maps");

SEC("cgroup/connect4")
int vip(struct bpf_sock_addr *ctx)
{
	__u32 zero = 0;
	__be32 *to = bpf_map_lookup_elem(&backend, &zero);

	if (to && *to && ctx->user_ip4 == bpf_htonl(0x0a60000a) && ctx->user_port == bpf_htons(80))
		ctx->user_ip4 = *to;
	return 1;
}
