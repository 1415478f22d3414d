// SPDX-License-Identifier: GPL-2.0-only
/* A program for user mode as clang and libbpf make one: a length is clamped, and counted. */
#include "common.bpf.h"

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__ulong(map_extra, 0x7e0000000000ull);
} arena SEC(".maps");

#define __arena __attribute__((address_space(1)))

__u64 __arena clamped;

SEC("user_patch/clamp")
int clamp(struct bpf_user_patch_ctx *ctx)
{
	if (ctx->args[2] > 64) {
		ctx->args[2] = 64;
		__sync_fetch_and_add(&clamped, 1);
	}
	return BPF_USER_PATCH_CONTINUE;
}
