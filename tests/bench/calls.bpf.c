// SPDX-License-Identifier: GPL-2.0-only
/*
 * How often a process enters the kernel of its own accord: system calls, page faults, and
 * traps, which on x86 are either those of a patched function or told to uprobes.
 * calls_trap is left out on a kernel that patches no functions.
 */
#include "common.bpf.h"
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

const volatile pid_t tgid;
__u64 entries;

static __always_inline void count(bool enters)
{
	if (enters && bpf_get_current_pid_tgid() >> 32 == tgid)
		__sync_fetch_and_add(&entries, 1);
}

SEC("raw_tp/sys_enter")
int calls_syscall(void *ctx)
{
	count(true);
	return 0;
}

SEC("raw_tp/page_fault_user")
int calls_fault(void *ctx)
{
	count(true);
	return 0;
}

SEC("fentry/arch_uprobe_exception_notify")
int BPF_PROG(calls_notify, struct notifier_block *self, unsigned long val)
{
	count(val == DIE_INT3 || val == DIE_DEBUG);
	return 0;
}

SEC("fexit/bpf_user_patch_trap")
int BPF_PROG(calls_trap, struct pt_regs *regs, unsigned long addr, bool handled)
{
	count(handled);
	return 0;
}
