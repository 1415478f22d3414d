// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the verifier must refuse of programs for user mode, and beside it what is nearly
 * the same and right. A line for each; exit 1 when one was not as it should be. With -v,
 * or then, also what the verifier said. With -u, who may load one at all.
 */
#include <linux/capability.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "insn.h"
#include "userload.h"

enum fd { NONE, ARENA, LOW, SECOND, ARRAY, INSNS, NR_FD };

#define CTX(field) offsetof(struct bpf_user_patch_ctx, field)
#define MAX 16

static int kfunc_rdonly_cast, kfunc_alloc, kfunc_rcu;

/* the instruction's immediate is filled in before the load: an fd, or the id of a kfunc */
#define MAP(dst, src, fd, off) LD_IMM64(dst, src, -(fd), off)
#define K_RDONLY_CAST CALL(BPF_PSEUDO_KFUNC_CALL, 0, -1)
#define K_ALLOC CALL(BPF_PSEUDO_KFUNC_CALL, 0, -2)
#define K_RCU CALL(BPF_PSEUDO_KFUNC_CALL, 0, -3)
#define OK MOV_K(BPF_REG_0, 0), EXIT

static const struct {
	const char *name, *says;	/* no says: loads */
	struct bpf_insn insns[MAX];
	__u32 flags, no_attach_type, attach_btf_id, error;
} tests[] = {
	{ "nothing", NULL, .insns = { OK } },
	{ "return 1", NULL, .insns = { MOV_K(0, 1), EXIT } },
	{ "return 2", "should have been in [0, 1]", .insns = { MOV_K(0, 2), EXIT } },
	{ "return -1", "should have been in [0, 1]", .insns = { MOV_K(0, -1), EXIT } },
	{ "return an argument", "should have been in [0, 1]",
	  .insns = { LDX(BPF_DW, 0, 1, CTX(args)), EXIT } },

	{ "read all of the context", NULL,
	  .insns = { LDX(BPF_DW, 2, 1, CTX(args[5])), LDX(BPF_W, 2, 1, CTX(sp)),
	    LDX(BPF_H, 2, 1, CTX(ip) + 2),
	    LDX(BPF_B, 2, 1, CTX(cookie) + 7), LDX(BPF_DW, 2, 1, CTX(ret)), OK } },
	{ "read before the context", "invalid bpf_context access off=-8",
	  .insns = { LDX(BPF_DW, 2, 1, -8), OK } },
	{ "read behind the context", "invalid bpf_context access off=80",
	  .insns = { LDX(BPF_B, 2, 1, sizeof(struct bpf_user_patch_ctx)), OK } },
	{ "read across fields", "misaligned", .insns = { LDX(BPF_DW, 2, 1, 4), OK },
	  .flags = BPF_F_STRICT_ALIGNMENT },
	{ "read across fields, any alignment", "invalid bpf_context access off=4 size=8",
	  .insns = { LDX(BPF_DW, 2, 1, 4), OK } },
	{ "write arguments and result", NULL,
	  .insns = { MOV_K(2, 7), STX(BPF_DW, 1, 2, CTX(args)), STX(BPF_DW, 1, 2, CTX(args[5])),
	    ST(BPF_DW, 1, CTX(ret), -22), OK } },
	{ "write half of an argument", "invalid bpf_context access off=0 size=4",
	  .insns = { ST(BPF_W, 1, CTX(args), 0), OK } },
	{ "write the stack pointer", "invalid bpf_context access off=56",
	  .insns = { ST(BPF_DW, 1, CTX(sp), 0), OK } },
	{ "write the function's address", "invalid bpf_context access off=64",
	  .insns = { ST(BPF_DW, 1, CTX(ip), 0), OK } },
	{ "write the cookie", "invalid bpf_context access off=72",
	  .insns = { ST(BPF_DW, 1, CTX(cookie), 0), OK } },
	{ "atomic on the context", "BPF_ATOMIC stores into R1 ctx is not allowed",
	  .insns = { MOV_K(2, 1), ATOMIC(BPF_DW, BPF_ADD, 1, 2, 0), OK } },
	{ "context at a variable offset", "variable ctx access",
	  .insns = { LDX(BPF_DW, 2, 1, 0), ALU_K(BPF_ALU64, BPF_AND, 2, 8),
	    ALU_X(BPF_ALU64, BPF_ADD, 1, 2),
	    LDX(BPF_DW, 2, 1, 0), OK } },

	{ "kernel helper", "cannot use helper bpf_ktime_get_ns#5",
	  .insns = { CALL(0, 0, BPF_FUNC_ktime_get_ns), OK } },
	{ "tail call", "cannot use helper bpf_tail_call#12",
	  .insns = { MAP(2, BPF_PSEUDO_MAP_FD, ARENA, 0), MOV_K(3, 0),
	    CALL(0, 0, BPF_FUNC_tail_call), OK } },
	{ "user helper", "invalid func unknown#65537", .insns = { CALL(0, 0, 0x10001), OK } },
	{ "kernel function for all programs",
	  "calling kernel function bpf_rcu_read_lock is not allowed",
	  .insns = { K_RCU, OK } },
	{ "arena's own kernel function",
	  "calling kernel function bpf_arena_alloc_pages is not allowed",
	  .insns = { MAP(1, BPF_PSEUDO_MAP_FD, ARENA, 0), MOV_K(2, 0), MOV_K(3, 1), MOV_K(4, 0),
	    MOV_K(5, 0),
	    K_ALLOC, OK } },
	{ "another function", "cannot have other functions",
	  .insns = { CALL(BPF_PSEUDO_CALL, 0, 2), OK, OK } },
	{ "address of another function", "cannot have other functions",
	  .insns = { LD_IMM64(2, BPF_PSEUDO_FUNC, 3, 0), OK, OK } },
	{ "address of the program itself", "address of a kernel variable or function",
	  .insns = { LD_IMM64(2, BPF_PSEUDO_FUNC, -1, 0), OK } },
	{ "variable of the kernel", "address of a kernel variable or function",
	  .insns = { LD_IMM64(2, BPF_PSEUDO_BTF_ID, -4, 0), OK } },
	{ "LD_ABS", "BPF_LD_[ABS|IND] instructions not allowed for this program type",
	  .insns = { MOV_X(6, 1), INSN(BPF_LD | BPF_ABS | BPF_W, 0, 0, 0, 0), OK } },

	{ "load of an argument", "invalid mem access 'scalar'",
	  .insns = { LDX(BPF_DW, 2, 1, 0), LDX(BPF_DW, 2, 2, 0), OK } },
	{ "read through a cast argument", NULL,
	  .insns = { LDX(BPF_DW, 1, 1, 0), MOV_K(2, 0), K_RDONLY_CAST, LDX(BPF_DW, 2, 0, 8), OK } },
	{ "write through a cast argument", "R0 cannot write into rdonly_untrusted_mem",
	  .insns = { LDX(BPF_DW, 1, 1, 0), MOV_K(2, 0), K_RDONLY_CAST, ST(BPF_DW, 0, 0, 0), OK } },
	{ "atomic through a cast argument", "R0 cannot write into rdonly_untrusted_mem",
	  .insns = { LDX(BPF_DW, 1, 1, 0), MOV_K(2, 0), K_RDONLY_CAST, MOV_K(2, 1),
	    ATOMIC(BPF_DW, BPF_ADD, 0, 2, 0), OK } },

	{ "arena", NULL,
	  .insns = { MAP(2, BPF_PSEUDO_MAP_FD, ARENA, 0), MOV_K(2, 64), CAST_KERN(2, 2),
	    MOV_K(3, 1),
	    STX(BPF_DW, 2, 3, 0), ATOMIC(BPF_DW, BPF_ADD, 2, 3, 0), CAST_USER(4, 2), OK } },
	{ "global in the arena", NULL,
	  .insns = { MAP(2, BPF_PSEUDO_MAP_VALUE, ARENA, 0), CAST_KERN(2, 2), LDX(BPF_B, 3, 2, 0),
	    OK } },
	{ "arena below 4G", "must start at 4G or above",
	  .insns = { MAP(2, BPF_PSEUDO_MAP_FD, LOW, 0), MOV_K(2, 64), CAST_KERN(2, 2),
	    LDX(BPF_B, 3, 2, 0), OK } },
	{ "two arenas", "Only one arena per program",
	  .insns = { MAP(2, BPF_PSEUDO_MAP_FD, ARENA, 0), MAP(2, BPF_PSEUDO_MAP_FD, SECOND, 0),
	    OK } },
	{ "array", "is in kernel memory",
	  .insns = { MAP(2, BPF_PSEUDO_MAP_FD, ARRAY, 0), OK } },
	{ "global in an array", "is in kernel memory",
	  .insns = { MAP(2, BPF_PSEUDO_MAP_VALUE, ARRAY, 0), LDX(BPF_B, 3, 2, 0), OK } },
	{ "jump table", "is in kernel memory",
	  .insns = { MAP(2, BPF_PSEUDO_MAP_VALUE, INSNS, 0), LDX(BPF_DW, 3, 2, 0), OK } },
	{ "the arena's struct", "cannot read the kernel's side of map",
	  .insns = { MAP(2, BPF_PSEUDO_MAP_FD, ARENA, 0), LDX(BPF_W, 3, 2, 24), OK } },
	{ "the arena's address", "R0 is not a known value (map_ptr)",
	  .insns = { MAP(0, BPF_PSEUDO_MAP_FD, ARENA, 0), EXIT } },

	{ "stack of 256", NULL, .insns = { ST(BPF_DW, 10, -256, 0), OK } },
	{ "stack of 264", "stack of 264 bytes, a user_patch program can have 256",
	  .insns = { ST(BPF_DW, 10, -264, 0), OK } },
	{ "bounded loop", NULL,
	  .insns = { MOV_K(0, 10), ALU_K(BPF_ALU64, BPF_SUB, 0, 1), JMP_K(BPF_JNE, 0, 0, -2),
	    OK } },
	{ "endless loop", "infinite loop",
	  .insns = { LDX(BPF_DW, 2, 1, 0), JMP_K(BPF_JNE, 2, 0, -1), OK } },
	{ "may_goto", NULL, .insns = { MAY_GOTO(1), JA(-2), OK } },

	{ "sleepable", "Program of this type cannot be sleepable", .insns = { OK },
	  .flags = BPF_F_SLEEPABLE },
	{ "without its attach type", "", .insns = { OK }, .no_attach_type = 1, .error = EINVAL },
	{ "with a function of the kernel to attach to", "", .insns = { OK }, .attach_btf_id = 1,
	  .error = EINVAL },
};

static char log_buf[1 << 16];

static bool check(int i, const int *fds, bool verbose)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .prog_flags = tests[i].flags,
		    .log_buf = log_buf, .log_size = sizeof(log_buf), .log_level = 2,
		    .expected_attach_type = tests[i].no_attach_type ? 0 : BPF_USER_PATCH,
		    .attach_btf_id = tests[i].attach_btf_id);
	const int kfuncs[] = { 0, kfunc_rdonly_cast, kfunc_alloc, kfunc_rcu };
	const char *says = tests[i].says;
	struct bpf_insn insns[MAX];
	int n, fd, error;
	bool ok;

	memcpy(insns, tests[i].insns, sizeof(insns));
	for (n = MAX; n > 0 && !insns[n - 1].code; n--)
		;
	for (int k = 0; k < n; k++) {
		struct bpf_insn *in = &insns[k];

		if (in->code == (BPF_LD | BPF_IMM | BPF_DW)) {
			if (in->src_reg == BPF_PSEUDO_MAP_FD || in->src_reg == BPF_PSEUDO_MAP_VALUE)
				in->imm = fds[-in->imm];
			else if (in->src_reg == BPF_PSEUDO_BTF_ID)
				in->imm = kfunc_rcu;
			k++;
		} else if (in->code == (BPF_JMP | BPF_CALL) &&
			   in->src_reg == BPF_PSEUDO_KFUNC_CALL) {
			in->imm = kfuncs[-in->imm];
		}
	}

	*log_buf = 0;
	fd = bpf_prog_load(BPF_PROG_TYPE_USER_PATCH, "test", "GPL", insns, n, &opts);
	error = fd < 0 ? errno : 0;
	ok = says ? fd < 0 && strstr(log_buf, says) : fd >= 0;
	ok = ok && (!tests[i].error || error == (int)tests[i].error);
	printf("%s: %s: %s\n", ok ? "ok" : "not ok", tests[i].name,
	       fd < 0 ? strerror(error) : "loaded");
	if (!ok || verbose)
		puts(log_buf);
	if (fd >= 0)
		close(fd);
	return ok;
}

/* Whoever has the capabilities in @mask, and no others, loads with this result. */
static bool check_caps(const char *who, __u64 mask, int want)
{
	static const struct bpf_insn insns[] = { OK };
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = BPF_USER_PATCH);
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = mask, .permitted = mask },
		{ .effective = mask >> 32, .permitted = mask >> 32 },
	};
	int status, fd;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		if (syscall(SYS_capset, &head, data))
			_exit(255);
		fd = bpf_prog_load(BPF_PROG_TYPE_USER_PATCH, "test", "GPL", insns, 2, &opts);
		_exit(fd < 0 ? errno : 0);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		errx(1, "%s: died", who);
	printf("%s: %s: %s\n", WEXITSTATUS(status) == want ? "ok" : "not ok", who,
	       strerror(WEXITSTATUS(status)));
	return WEXITSTATUS(status) == want;
}

/* One that is loaded is code for a process: the kernel has no way to run it. */
static bool check_not_run(void)
{
	static const struct bpf_insn insns[] = { OK };
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = BPF_USER_PATCH);
	struct bpf_user_patch_ctx ctx = {};
	LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = &ctx, .ctx_size_in = sizeof(ctx));
	int fd = bpf_prog_load(BPF_PROG_TYPE_USER_PATCH, "test", "GPL", insns, 2, &opts);
	const struct { const char *how; int err, want; } ways[] = {
		{ "test run", bpf_prog_test_run_opts(fd, &run), -524 /* ENOTSUPP */ },
		{ "attach to nothing", bpf_prog_attach(fd, 0, BPF_USER_PATCH, 0), -EINVAL },
		{ "link to nothing", bpf_link_create(fd, 0, BPF_USER_PATCH, NULL), -EINVAL },
		{ "link as another", bpf_link_create(fd, 0, BPF_XDP, NULL), -EINVAL },
	};
	bool ok = fd >= 0;

	for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
		printf("%s: %s: %s\n", ways[i].err == ways[i].want ? "ok" : "not ok", ways[i].how,
		       strerror(-ways[i].err));
		ok &= ways[i].err == ways[i].want;
	}
	return ok;
}

#define BIT(n) (1ull << (n))

int main(int argc, char **argv)
{
	bool verbose = argc > 1 && !strcmp(argv[1], "-v"), ok = true;
	int fds[NR_FD] = {};

	if (argc > 1 && !strcmp(argv[1], "-u")) {
		ok &= check_caps("nobody", 0, EPERM);
		ok &= check_caps("CAP_BPF", BIT(CAP_BPF), EPERM);
		ok &= check_caps("CAP_PERFMON", BIT(CAP_PERFMON), EPERM);
		ok &= check_caps("CAP_BPF and CAP_NET_ADMIN", BIT(CAP_BPF) | BIT(CAP_NET_ADMIN),
				 EPERM);
		ok &= check_caps("CAP_BPF and CAP_PERFMON", BIT(CAP_BPF) | BIT(CAP_PERFMON), 0);
		return !ok;
	}

	fds[ARENA] = arena_create(ARENA_START);
	fds[SECOND] = arena_create(ARENA_START + (1ull << 32));
	fds[LOW] = arena_create(0x10000000);
	fds[ARRAY] = bpf_map_create(BPF_MAP_TYPE_ARRAY, "array", 4, 8, 1, NULL);
	fds[INSNS] = bpf_map_create(BPF_MAP_TYPE_INSN_ARRAY, "insns", 4,
				    sizeof(struct bpf_insn_array_value), 1, NULL);
	if (fds[ARRAY] < 0 || fds[INSNS] < 0)
		err(1, "maps");
	kfunc_rdonly_cast = kfunc_id("bpf_rdonly_cast");
	kfunc_alloc = kfunc_id("bpf_arena_alloc_pages");
	kfunc_rcu = kfunc_id("bpf_rcu_read_lock");

	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++)
		ok &= check(i, fds, verbose);
	ok &= check_not_run();
	return !ok;
}
