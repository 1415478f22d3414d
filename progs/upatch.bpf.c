// SPDX-License-Identifier: GPL-2.0-only
/*
 * upatch: a program at the entry of a function of a running process counts its calls, clamps
 * an argument, or denies the call and returns a value in its place.
 *
 * Each of them is there twice (upatch.bpf.h): for user mode, where the process itself runs it,
 * and for a uprobe, whose program may write registers. Both do what the rule in the arena says
 * that is in force when the function is called: another rule is a store into the arena.
 *
 * A rule is read without locks: the tool writes the one of two that is not in force, then
 * raises the generation. A reader that sees the generation change has read nothing, and tries
 * again; after a few times, which takes as many changes within one call, it lets the call be
 * and counts that.
 *
 * With uprobes everybody who maps the file traps. Which processes are patched is in a map, and
 * three more programs keep that: children are patched as their parents, who executes another
 * program is no longer, and who ends is forgotten before its number is another's.
 *
 * A call is let be where the map has no room for a child (32768), and where the kernel cannot
 * run the program at all: the function then runs as if there were no patch.
 */
#include "upatch.bpf.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

/* Children that did not fit into upatch_members. */
__u64 lost;

/* --- rules --- */

static __always_inline bool rule_get(struct up_rule *rule)
{
	for (int i = 0; i < 4; i++) {
		__u32 gen = upatch_load(upatch.gen);
		__auto_type r = &upatch.rules[gen & 1];

		rule->gen = upatch_load(r->gen);
		rule->test = r->test;
		rule->arg = r->arg;
		rule->bytes = r->bytes;
		rule->is_signed = r->is_signed;
		rule->prefix_len = r->prefix_len;
		rule->min = r->min;
		rule->max = r->max;
		rule->value = r->value;
		rule->ret = r->ret;
		/* volatile, lest clang make it a memcpy(), which knows of no arena */
		for (int k = 0; k < UP_PREFIX / 8; k++)
			rule->words[k] = upatch_load(r->words[k]);
		barrier();
		if (rule->gen == gen && upatch_load(upatch.gen) == gen)
			return true;
	}
	__sync_fetch_and_add(&upatch.stale, 1);
	return false;
}

/* The context must be read and written at constant offsets, and clang must not merge them. */
static __always_inline __u64 arg_get(const struct up_call *call, __u8 n)
{
	const volatile struct up_call *c = call;

	return n == 0 ? c->args[0] : n == 1 ? c->args[1] : n == 2 ? c->args[2] :
	       n == 3 ? c->args[3] : n == 4 ? c->args[4] : c->args[5];
}

static __always_inline void arg_set(struct up_call *call, __u8 n, __u64 value)
{
	volatile struct up_call *c = call;

	if (n == 0)
		c->args[0] = value;
	else if (n == 1)
		c->args[1] = value;
	else if (n == 2)
		c->args[2] = value;
	else if (n == 3)
		c->args[3] = value;
	else if (n == 4)
		c->args[4] = value;
	else
		c->args[5] = value;
}

/* What the function takes for its argument: of an int the upper half of a register is junk. */
static __always_inline __u64 narrow(__u64 v, const struct up_rule *rule)
{
	__u32 shift = (64 - 8 * rule->bytes) & 63;

	v <<= shift;
	return rule->is_signed ? (__u64)((__s64)v >> shift) : v >> shift;
}

static __always_inline bool less(__u64 a, __u64 b, bool is_signed)
{
	return is_signed ? (__s64)a < (__s64)b : a < b;
}

static __always_inline bool starts(const struct up_call *call, const struct up_rule *rule,
				   const bool in_user)
{
	__u8 text[UP_PREFIX] = {};

	upatch_read(text, UP_PREFIX, (const void *)arg_get(call, rule->arg), in_user);
	for (int i = 0; i < UP_PREFIX; i++)
		if (i < rule->prefix_len && text[i] != rule->prefix[i])
			return false;
	return true;
}

/* --- the programs --- */

UPATCH_WATCH(count)
{
	upatch_event(call, UP_CALLED, 0, in_user);
	return UPATCH_CONTINUE;
}

UPATCH(clamp)
{
	struct up_rule rule;
	__u64 v, to;

	if (!rule_get(&rule))
		return UPATCH_CONTINUE;
	v = narrow(arg_get(call, rule.arg), &rule);
	to = less(v, rule.min, rule.is_signed) ? rule.min :
	     less(rule.max, v, rule.is_signed) ? rule.max : v;
	if (to != v) {
		__sync_fetch_and_add(&upatch.hits, 1);
		upatch_event(call, UP_CLAMPED, to, in_user);
		arg_set(call, rule.arg, to);
	}
	return UPATCH_CONTINUE;
}

UPATCH(deny)
{
	struct up_rule rule;
	bool hit;
	__u64 v;

	if (!rule_get(&rule))
		return UPATCH_CONTINUE;
	v = narrow(arg_get(call, rule.arg), &rule);
	switch (rule.test) {
	case UP_ALWAYS:
		hit = true;
		break;
	case UP_EQ:
		hit = v == rule.value;
		break;
	case UP_ABOVE:
		hit = less(rule.value, v, rule.is_signed);
		break;
	case UP_BELOW:
		hit = less(v, rule.value, rule.is_signed);
		break;
	case UP_STARTS:
		hit = starts(call, &rule, in_user);
		break;
	default:
		hit = false;
	}
	if (!hit)
		return UPATCH_CONTINUE;
	__sync_fetch_and_add(&upatch.hits, 1);
	upatch_event(call, UP_DENIED, rule.ret, in_user);
	return UPATCH_RETURN(rule.ret);
}

/* --- who is patched --- */

SEC("tp_btf/sched_process_fork")
int BPF_PROG(upatch_fork, struct task_struct *parent, struct task_struct *child)
{
	__u32 from = parent->tgid, to = child->tgid, *file, of;

	file = from != to ? bpf_map_lookup_elem(&upatch_members, &from) : NULL;
	if (!file)
		return 0;
	of = *file;
	if (bpf_map_update_elem(&upatch_members, &to, &of, BPF_ANY))
		__sync_fetch_and_add(&lost, 1);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(upatch_exec, struct task_struct *task)
{
	__u32 pid = task->tgid;

	bpf_map_delete_elem(&upatch_members, &pid);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(upatch_exit, struct task_struct *task)
{
	__u32 pid = task->tgid;

	if (!task->signal->live.counter)
		bpf_map_delete_elem(&upatch_members, &pid);
	return 0;
}
