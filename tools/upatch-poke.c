// SPDX-License-Identifier: GPL-2.0-only
/*
 * The back end whose programs the patched process runs in user mode: the kernel writes a jump
 * to them into the text of that process. So far kernels verify and compile such programs, and
 * have no link to attach them with: this tells whether that is there.
 */
#include <errno.h>
#include <unistd.h>
#include <bpf/bpf.h>

#include "upatch-patch.h"

static bool there(bool writes, char *why)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = BPF_USER_PATCH);
	static const struct bpf_insn insns[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K},
		{.code = BPF_JMP | BPF_EXIT},
	};
	int prog = bpf_prog_load(BPF_PROG_TYPE_USER_PATCH, "upatch_probe", "GPL", insns,
				 ARRAY_SIZE(insns), &opts);
	int link;

	if (prog < 0) {
		up_fail(why, "this kernel has no programs for user mode, for which kernel/upatch "
			"and CONFIG_BPF_USER_PATCH are needed");
		return false;
	}
	/* a process that cannot be: a kernel that has the link says so, one that has not, EINVAL */
	link = bpf_link_create(prog, -1, BPF_USER_PATCH, NULL);
	close(prog);
	if (link >= 0)
		close(link);
	up_fail(why, link == -EINVAL ? "this kernel has no TEXT_POKE link, for which kernel/upatch is "
		"needed" : "this upatch does not know the TEXT_POKE link of this kernel");
	return false;
}

const struct up_backend up_poke = {
	.name = "poke",
	.suffix = "poke",
	.there = there,
};
