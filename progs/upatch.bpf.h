/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * upatch: for programs that run at the entry of a function of a process.
 *
 *	#include "upatch.bpf.h"
 *
 *	UPATCH(name)
 *	{
 *		if (UPATCH_ARG(2) > 64) {
 *			UPATCH_TELL(UPATCH_ARG(2));
 *			return UPATCH_RETURN(-22);
 *		}
 *		return UPATCH_CONTINUE;
 *	}
 *
 * makes of one body two programs: name_poke, which the patched process runs in user mode, and
 * name_uprobe, which the kernel runs in a trap. UPATCH_WATCH(name) instead of UPATCH(name) is
 * for a body that changes nothing: it can be had where uprobes may not write registers. Compile
 * it with clang --target=bpf -mcpu=v3 -O2 -g, then `upatch attach -p PID -f FUNC --prog FILE`.
 *
 *	UPATCH_ARG(n), UPATCH_SET_ARG(n, v)	integer arguments, from 0; n is a constant
 *	UPATCH_RETURN(v), UPATCH_CONTINUE	the verdict, to be returned
 *	UPATCH_READ(dst, size, address)		memory of the process; what is not there reads 0
 *	UPATCH_TELL(value)			count a hit, and put an event into the log
 *	UPATCH_WHO				the thread, as in struct up_thread
 *
 * Globals are in the arena: `__u64 __arena my_counter;`. User mode has no other memory, no
 * helpers and no functions that are not inlined, and 256 bytes of stack. A struct in the arena
 * is copied member by member, through volatile: clang's memcpy() does not know the arena.
 */
#ifndef UPATCH_BPF_H
#define UPATCH_BPF_H

#include "common.bpf.h"
#include "upatch.h"

#define __arena __attribute__((address_space(1)))

/* What others write meanwhile: once, and not by memcpy(). */
#define upatch_load(x) (*(volatile typeof(x) *)&(x))

/* The tool chooses start and size: where the process has room, and as large as the globals. */
struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 64);
	__ulong(map_extra, 0x200000010000ull);
} upatch_arena SEC(".maps");

struct up_arena __arena upatch = {.magic = UP_MAGIC, .version = UP_VERSION};

/*
 * uprobe: the processes that are patched, by tgid. A trap is seen by all that map the file;
 * children are added as they are forked, and whoever executes something is removed.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u32);	/* of its file: the upper half of a link's cookie */
	__uint(max_entries, 32768);
} upatch_members SEC(".maps");

/* uprobe: from the function to a `ret` instruction, which leaves it unrun. */
const volatile __s64 upatch_gadget;

void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

/* --- what a body uses: `call`, and `in_user`, a constant, are its arguments --- */

#define UPATCH_CONTINUE UP_CONTINUE
#define UPATCH_RETURN(v) (call->ret = (__u64)(v), UP_RETURN)
#define UPATCH_ARG(n) (call->args[n])
#define UPATCH_SET_ARG(n, v) (call->args[n] = (__u64)(v))
#define UPATCH_READ(dst, size, address) \
	upatch_read(dst, size, (const void *)(unsigned long)(address), in_user)
#define UPATCH_WHO upatch_who(call, in_user)
#define UPATCH_TELL(value)					\
	do {							\
		__sync_fetch_and_add(&upatch.hits, 1);		\
		upatch_event(call, UP_TOLD, (value), in_user);	\
	} while (0)

/* Threads have a stack each, and its upper end is what most of their calls run on. */
static __always_inline __u64 upatch_who(const struct up_call *call, const bool in_user)
{
	return in_user ? call->sp >> 20 << 20 : (__u32)bpf_get_current_pid_tgid();
}

/*
 * In the kernel what is not in memory is brought there first, since a value that was paged
 * out must not pass for another. size is a constant.
 */
static __always_inline void upatch_read(void *dst, __u32 size, const void *address,
					const bool in_user)
{
	__u8 *to = dst;

	if (!in_user && (!bpf_probe_read_user(dst, size, address) ||
			 !bpf_copy_from_user(dst, size, address)))
		return;
	if (!in_user)
		__sync_fetch_and_add(&upatch.faults, 1);
	for (__u32 i = 0; i < size; i++)
		if (in_user)
			to[i] = *(const volatile __u8 *)bpf_rdonly_cast(address + i, 0);
		else
			bpf_copy_from_user(&to[i], 1, address + i); /* 0 if it fails */
}

/*
 * Threads take tickets. A slot is claimed before it is written, so that of two in one slot
 * the later loses its event; one that died there has lost it a round later.
 */
static __always_inline void upatch_event(const struct up_call *call, __u32 what, __u64 value,
					 const bool in_user)
{
	__u64 ticket = __sync_fetch_and_add(&upatch.head, 1), was, id;
	__auto_type e = &upatch.ring[ticket % UP_RING];

	was = upatch_load(e->seq);
	if (((was & 1) && was + 4 * UP_RING > 2 * ticket + 1) || was > 2 * ticket ||
	    __sync_val_compare_and_swap(&e->seq, was, 2 * ticket + 1) != was) {
		__sync_fetch_and_add(&upatch.drops, 1);
		return;
	}
	e->what = what;
	e->value = value;
	e->sp = call->sp;
	e->args[0] = call->args[0];
	e->args[1] = call->args[1];
	e->args[2] = call->args[2];
	e->args[3] = call->args[3];
	e->args[4] = call->args[4];
	e->args[5] = call->args[5];
	if (!in_user) {
		id = bpf_get_current_pid_tgid();
		e->pid = id >> 32;
		e->tid = id;
		e->ns = bpf_ktime_get_boot_ns();
	}
	__sync_val_compare_and_swap(&e->seq, 2 * ticket + 1, 2 * ticket + 2);
}

/* --- around the body --- */

/* Whether the body is to be run. */
static __always_inline bool upatch_enter(const struct up_call *call, const bool in_user)
{
	__u64 who = upatch_who(call, in_user), was;
	__u32 at = in_user ? who >> 20 : who;

	if (!upatch_load(upatch.on))
		return false;
	__sync_fetch_and_add(&upatch.calls, 1);
	for (int i = 0; i < 8; i++) {
		__auto_type t = &upatch.threads[(at + i) % UP_THREADS];

		was = upatch_load(t->who);
		if (!was)
			was = __sync_val_compare_and_swap(&t->who, 0, who);
		if (!was || was == who) {
			__sync_fetch_and_add(&t->calls, 1);
			return true;
		}
	}
	__sync_fetch_and_add(&upatch.crowded, 1);
	return true;
}

/*
 * uprobe: whether the process is one of those that are patched, by this link. Containers of one
 * image have files of their own, on overlayfs, but a probe in one of them is hit in all.
 */
static __always_inline bool upatch_member(struct pt_regs *regs)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32, *of;

	of = bpf_map_lookup_elem(&upatch_members, &pid);
	if (!of)
		__sync_fetch_and_add(&upatch.others, 1);
	return of && *of == bpf_get_attach_cookie(regs) >> 32;
}

#define UPATCH_FROM_REGS(regs)						\
	struct up_call copy = {						\
		.args = {(regs)->di, (regs)->si, (regs)->dx, (regs)->cx, \
			 (regs)->r8, (regs)->r9},			\
		.sp = (regs)->sp,					\
		.ip = (regs)->ip,					\
		.cookie = (__u32)bpf_get_attach_cookie(regs),		\
	}

#define UPATCH_POKE(name)						\
	SEC("user_patch")						\
	int name##_poke(struct up_call *call)				\
	{								\
		if (!upatch_enter(call, true))				\
			return UP_CONTINUE;				\
		return name##_body(call, true) ? UP_RETURN : UP_CONTINUE; \
	}

#define UPATCH(name)							\
	static __always_inline int name##_body(struct up_call *call, const bool in_user); \
	UPATCH_POKE(name)						\
	SEC("uprobe.multi.s")						\
	int name##_uprobe(struct pt_regs *regs)				\
	{								\
		UPATCH_FROM_REGS(regs);					\
									\
		if (!upatch_member(regs) || !upatch_enter(&copy, false)) \
			return 0;					\
		if (name##_body(&copy, false)) {			\
			regs->ax = copy.ret;				\
			regs->ip = copy.ip + upatch_gadget;		\
			return 0;					\
		}							\
		regs->di = copy.args[0];				\
		regs->si = copy.args[1];				\
		regs->dx = copy.args[2];				\
		regs->cx = copy.args[3];				\
		regs->r8 = copy.args[4];				\
		regs->r9 = copy.args[5];				\
		return 0;						\
	}								\
	static __always_inline int name##_body(struct up_call *call, const bool in_user)

#define UPATCH_WATCH(name)						\
	static __always_inline int name##_body(struct up_call *call, const bool in_user); \
	UPATCH_POKE(name)						\
	SEC("uprobe.multi.s")						\
	int name##_uprobe(struct pt_regs *regs)				\
	{								\
		UPATCH_FROM_REGS(regs);					\
									\
		if (upatch_member(regs) && upatch_enter(&copy, false))	\
			name##_body(&copy, false);			\
		return 0;						\
	}								\
	static __always_inline int name##_body(struct up_call *call, const bool in_user)

#endif
