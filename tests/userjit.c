// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs compiled for user mode, called as functions of this process. The oracle is the
 * kernel: the same instructions, loaded as a syscall program and run there on the same
 * context and arena, must leave the same context, arena and verdict.
 *
 *   userjit cases		loops, jumps, stacks and casts that compilers write
 *   userjit random N [SEED]	N programs of random instructions
 *   userjit reads		arguments that are pointers: only user mode can follow them
 *   userjit addresses		nothing of the kernel is in the code
 *
 * Lines of "ok" and "not ok"; exit 1 after one of the latter.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "insn.h"
#include "userload.h"

#define MAX_INSNS 1024
#define CTX(field) offsetof(struct bpf_user_patch_ctx, field)

struct prog {
	struct bpf_insn insns[MAX_INSNS];
	int n;
};

static int arena_fd;
static __u8 *arena;
static size_t arena_size;
static char log_buf[1 << 20];

static void emit(struct prog *p, struct bpf_insn insn)
{
	if (p->n == MAX_INSNS)
		errx(1, "program too long");
	p->insns[p->n++] = insn;
}

#define EMIT(p, ...) do { \
	const struct bpf_insn insns_[] = { __VA_ARGS__ }; \
	for (size_t i_ = 0; i_ < sizeof(insns_) / sizeof(*insns_); i_++) \
		emit(p, insns_[i_]); \
} while (0)

/* --- the two ways to run one */

static int load(const struct prog *p, enum bpf_prog_type type)
{
	bool user = type == BPF_PROG_TYPE_USER_PATCH;
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .log_buf = log_buf, .log_size = sizeof(log_buf),
		    .expected_attach_type = user ? BPF_USER_PATCH : 0,
		    .prog_flags = user ? 0 : BPF_F_SLEEPABLE);

	*log_buf = 0;
	return bpf_prog_load(type, "test", "GPL", p->insns, p->n, &opts);
}

struct code {
	void *fn;
	size_t len, mapped;
};

/* The code of a program, where this process can call it. */
static struct code dump(int fd)
{
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info), func_len = 0;
	__u64 ksym = 1;
	struct code c = {};

	if (bpf_prog_get_info_by_fd(fd, &info, &len))
		err(1, "info");
	c.len = info.jited_prog_len;
	if (!c.len)
		errx(1, "the program is not compiled");
	c.mapped = (c.len + 4095) & ~4095ul;
	c.fn = mmap(NULL, c.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (c.fn == MAP_FAILED)
		err(1, "mmap");
	memset(c.fn, 0xcc, c.mapped);
	memset(&info, 0, sizeof(info));
	info.jited_prog_insns = (__u64)(unsigned long)c.fn;
	info.jited_prog_len = c.len;
	info.jited_ksyms = (__u64)(unsigned long)&ksym;
	info.nr_jited_ksyms = 1;
	info.jited_func_lens = (__u64)(unsigned long)&func_len;
	info.nr_jited_func_lens = 1;
	len = sizeof(info);
	if (bpf_prog_get_info_by_fd(fd, &info, &len))
		err(1, "dump");
	if (info.type == BPF_PROG_TYPE_USER_PATCH) {
		if (ksym || func_len != c.len)
			errx(1, "at %#llx with %u bytes, not at 0 with %zu", ksym, func_len, c.len);
		if (memcmp(c.fn, "\xf3\x0f\x1e\xfa", 4))
			errx(1, "the code does not begin with endbr64");
	}
	if (mprotect(c.fn, c.mapped, PROT_READ | PROT_EXEC))
		err(1, "mprotect");
	return c;
}

/* fn(ctx) with a value in each register that it must keep; a bit of *bad: it did not. */
__u64 call_checked(void *fn, struct bpf_user_patch_ctx *ctx, __u64 *bad);
asm(".globl call_checked\n"
	".type call_checked, @function\n"
	"call_checked:\n"
	"	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; push %rdx\n"
	"	mov $0x11111111, %ebx; mov $0x22222222, %ebp; mov $0x33333333, %r12d\n"
	"	mov $0x44444444, %r13d; mov $0x55555555, %r14d; mov $0x66666666, %r15d\n"
	"	mov %rdi, %rax; mov %rsi, %rdi\n"
	"	call *%rax\n"
	"	pop %rdx; xor %ecx, %ecx\n"
	"	cmp $0x11111111, %rbx; je 1f; or $1, %ecx\n"
	"1:	cmp $0x22222222, %rbp; je 1f; or $2, %ecx\n"
	"1:	cmp $0x33333333, %r12; je 1f; or $4, %ecx\n"
	"1:	cmp $0x44444444, %r13; je 1f; or $8, %ecx\n"
	"1:	cmp $0x55555555, %r14; je 1f; or $16, %ecx\n"
	"1:	cmp $0x66666666, %r15; je 1f; or $32, %ecx\n"
	"1:	mov %rcx, (%rdx)\n"
	"	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
	"	ret\n"
	".size call_checked, . - call_checked\n");

static __u64 run_user(int fd, struct bpf_user_patch_ctx *ctx)
{
	struct code c = dump(fd);
	__u64 bad = 0, verdict = (__u32)call_checked(c.fn, ctx, &bad);

	if (bad)
		errx(1, "not ok: registers lost: %#" PRIx64, (uint64_t)bad);
	munmap(c.fn, c.mapped);
	return verdict;
}

static __u64 run_kernel(int fd, struct bpf_user_patch_ctx *ctx)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = ctx, .ctx_size_in = sizeof(*ctx));

	if (bpf_prog_test_run_opts(fd, &opts))
		err(1, "run in the kernel");
	return opts.retval;
}

/* --- random numbers: the same for a seed on every machine */

static __u64 state;

static __u64 rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state * 0x2545f4914f6cdd1dull;
}

static __u32 below(__u32 n)
{
	return (rnd() >> 33) % n;
}

/* Values at whose edges instructions differ. */
static __u64 value(void)
{
	static const __u64 edges[] = {
		0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000,
		0xffffffff, 0x100000000, INT64_MAX, 1ull << 63, ~0ull, ~0ull << 31,
	};

	return below(3) ? edges[below(sizeof(edges) / sizeof(*edges))] + below(3) - 1 : rnd();
}

static void fill(struct bpf_user_patch_ctx *ctx)
{
	for (int i = 0; i < 6; i++)
		ctx->args[i] = value();
	ctx->ret = value();
	ctx->sp = rnd();
	ctx->ip = rnd();
	ctx->cookie = rnd();
	for (size_t i = 0; i < arena_size; i++)
		arena[i] = rnd();
}

/* --- both, compared */

static bool same(const char *name, const struct prog *p)
{
	static __u8 before[ARENA_PAGES << 12], after[ARENA_PAGES << 12];
	struct bpf_user_patch_ctx in, k, u;
	int kfd = load(p, BPF_PROG_TYPE_SYSCALL), ufd;
	__u64 kv, uv;

	if (kfd < 0) {
		printf("not ok: %s: the kernel: %s\n%s", name, strerror(errno), log_buf);
		return false;
	}
	ufd = load(p, BPF_PROG_TYPE_USER_PATCH);
	if (ufd < 0) {
		printf("not ok: %s: for user mode: %s\n%s", name, strerror(errno), log_buf);
		return false;
	}
	fill(&in);
	k = u = in;
	memcpy(before, arena, arena_size);
	kv = run_kernel(kfd, &k);
	memcpy(after, arena, arena_size);
	memcpy(arena, before, arena_size);
	uv = run_user(ufd, &u);
	close(kfd);
	close(ufd);
	if (kv == uv && !memcmp(&k, &u, sizeof(k)) && !memcmp(after, arena, arena_size))
		return true;

	printf("not ok: %s: verdict %" PRIu64 " in the kernel, %" PRIu64 " here\n", name,
	       (uint64_t)kv, (uint64_t)uv);
	for (size_t i = 0; i < sizeof(k) / 8; i++) {
		uint64_t a = ((__u64 *)&k)[i], b = ((__u64 *)&u)[i];

		if (a != b)
			printf("  context + %zu: %#" PRIx64 ", %#" PRIx64 "\n", i * 8, a, b);
	}
	for (size_t i = 0; i < arena_size; i++)
		if (after[i] != arena[i])
			printf("  arena + %#zx: %#x, %#x\n", i, after[i], arena[i]);
	return false;
}

static bool result(const char *name, bool ok)
{
	if (ok)
		printf("ok: %s\n", name);
	fflush(stdout);
	return ok;
}

/* --- random programs. r6: context, r9: arena, the others hold numbers. */

static const int regs[] = { 0, 1, 2, 3, 4, 5, 7, 8 };
static const int sizes[] = { BPF_B, BPF_H, BPF_W, BPF_DW };
static const int bytes[] = { 1, 2, 4, 8 };

static int reg(void)
{
	return regs[below(sizeof(regs) / sizeof(*regs))];
}

static void gen_alu(struct prog *p, bool positive)
{
	static const int ops[] = {
		BPF_ADD, BPF_SUB, BPF_MUL, BPF_OR, BPF_AND, BPF_XOR, BPF_LSH, BPF_RSH, BPF_ARSH,
		BPF_MOV, BPF_DIV, BPF_MOD, BPF_NEG, BPF_END,
	};
	int width = below(2) ? BPF_ALU64 : BPF_ALU, op = ops[below(sizeof(ops) / sizeof(*ops))];
	struct bpf_insn in = ALU_X(width, op, reg(), reg());
	int bits = width == BPF_ALU64 ? 64 : 32;

	if (op == BPF_NEG) {
		in = ALU_K(width, op, reg(), 0);
	} else if (op == BPF_END) {
		/* 64-bit: swap; 32-bit: to little or big endian */
		in = ALU_K(width, op, reg(), 16 << below(3));
		if (width == BPF_ALU)
			in.code |= below(2) ? BPF_TO_BE : BPF_TO_LE;
	} else if (below(2)) {
		in = ALU_K(width, op, reg(), positive ? (__s32)below(INT32_MAX) : (__s32)value());
		if (op == BPF_LSH || op == BPF_RSH || op == BPF_ARSH)
			in.imm = below(bits);
		else if ((op == BPF_DIV || op == BPF_MOD) && !in.imm)
			in.imm = 3;
	} else if (op == BPF_MOV && below(2)) {
		in.off = 8 << below(bits == 64 ? 3 : 2);	/* with sign extension */
	}
	if ((op == BPF_DIV || op == BPF_MOD) && below(2))
		in.off = 1;					/* signed */
	emit(p, in);
}

static void gen_atomic(struct prog *p, int base, int off)
{
	static const int rmw[] = {
		BPF_ADD, BPF_AND, BPF_OR, BPF_XOR, BPF_ADD | BPF_FETCH, BPF_XCHG, BPF_CMPXCHG,
		/* from here on not in an arena */
		BPF_AND | BPF_FETCH, BPF_OR | BPF_FETCH, BPF_XOR | BPF_FETCH,
	};
	int size = below(2) ? BPF_DW : BPF_W;

	off &= ~7;
	switch (below(4)) {
	case 0:
		emit(p, ATOMIC(sizes[below(4)], BPF_LOAD_ACQ, reg(), base, off));
		break;
	case 1:
		emit(p, ATOMIC(sizes[below(4)], BPF_STORE_REL, base, reg(), off));
		break;
	default:
		emit(p, ATOMIC(size, rmw[below(base == BPF_REG_10 ? 10 : 7)], base, reg(), off));
	}
}

static void gen_memory(struct prog *p, int base, int off)
{
	int s = below(4);

	off &= -bytes[s];
	switch (below(5)) {
	case 0:
		emit(p, LDX(sizes[s], reg(), base, off));
		break;
	case 1:
		if (sizes[s] == BPF_DW)
			emit(p, STX(BPF_DW, base, reg(), off));
		else
			emit(p, INSN(BPF_LDX | BPF_MEMSX | sizes[s], reg(), base, off, 0));
		break;
	case 2:
		emit(p, STX(sizes[s], base, reg(), off));
		break;
	case 3:
		emit(p, ST(sizes[s], base, off, below(INT32_MAX)));
		break;
	default:
		gen_atomic(p, base, off);
	}
}

static void gen_arena(struct prog *p, bool positive)
{
	EMIT(p, ALU_K(BPF_ALU, BPF_MOV, 9, 512 + below(arena_size - 2048)),
	     ALU_K(BPF_ALU, BPF_AND, 9, ~7),
	     CAST_KERN(9, 9));
	for (int i = 1 + below(3); i > 0; i--)
		gen_memory(p, 9, (int)below(1024) - (positive ? 0 : 512));
	if (!below(4))
		emit(p, CAST_USER(reg(), 9));
}

static void gen_context(struct prog *p)
{
	int size = below(4);

	if (below(2))
		emit(p, LDX(sizes[size], reg(), 6,
			    below(sizeof(struct bpf_user_patch_ctx)) & -bytes[size]));
	else
		emit(p, STX(BPF_DW, 6, reg(), 8 * below(7)));
}

#define STACK 8		/* slots that hold numbers */

static void generate(struct prog *p, bool positive)
{
	static const int conds[] = { BPF_JEQ, BPF_JNE, BPF_JGT, BPF_JGE, BPF_JLT, BPF_JLE,
				     BPF_JSGT, BPF_JSGE, BPF_JSLT, BPF_JSLE, BPF_JSET };
	int nops = 10 + below(120), starts[256], jumps[256][2], njumps = 0, stack, i;

	p->n = 0;
	EMIT(p, LD_IMM64(9, BPF_PSEUDO_MAP_FD, arena_fd, 0), MOV_X(6, 1));
	for (i = 0; i < 6; i++)
		emit(p, LDX(BPF_DW, i, 6, 8 * i));
	emit(p, LDX(BPF_DW, 7, 6, CTX(ret)));
	if (positive)
		EMIT(p, LD_IMM64(8, 0, below(INT32_MAX), below(INT32_MAX)));
	else
		EMIT(p, LD_IMM64(8, 0, (__s32)value(), (__s32)rnd()));
	for (i = 1; i <= STACK; i++)
		emit(p, STX(BPF_DW, 10, reg(), -8 * i));
	stack = below(4) ? 0 : 8 * (STACK + 1 + below(256 / 8 - STACK));
	if (stack && !positive)
		emit(p, ST(BPF_DW, 10, -stack, 1));

	for (i = 0; i < nops; i++) {
		starts[i] = p->n;
		switch (below(16)) {
		case 0: case 1: case 2:
			gen_arena(p, positive);
			break;
		case 3:
			gen_context(p);
			break;
		case 4: case 5:
			gen_memory(p, BPF_REG_10, -(int)(1 + below(8 * STACK)));
			break;
		case 6: {
			int op = conds[below(sizeof(conds) / sizeof(*conds))];
			int class = below(2) ? BPF_JMP : BPF_JMP32;

			if (njumps > 24)
				break;
			jumps[njumps][0] = p->n;
			jumps[njumps++][1] = i + 1 + below(below(4) ? 6 : 60);
			if (below(2))
				emit(p, INSN(class | BPF_X | op, reg(), reg(), 0, 0));
			else
				emit(p, INSN(class | BPF_K | op, reg(), 0, 0,
					     positive ? (__s32)below(INT32_MAX) : (__s32)value()));
			break;
		}
		default:
			gen_alu(p, positive);
		}
	}
	starts[nops] = p->n;
	for (i = 0; i < njumps; i++) {
		int to = jumps[i][1] > nops ? nops : jumps[i][1];

		p->insns[jumps[i][0]].off = starts[to] - jumps[i][0] - 1;
	}
	/* all that was computed is to be seen */
	for (i = 0; i < 6; i++)
		emit(p, STX(BPF_DW, 6, i, 8 * i));
	for (i = 1; i <= STACK; i++)
		EMIT(p, LDX(BPF_DW, 0, 10, -8 * i), ALU_X(BPF_ALU64, BPF_XOR, 7, 0),
		     ALU_K(BPF_ALU64, BPF_MUL, 7, 31));
	EMIT(p, ALU_X(BPF_ALU64, BPF_XOR, 7, 8), STX(BPF_DW, 6, 7, CTX(ret)), MOV_K(0, below(2)),
	     EXIT);
}

static bool run_random(int n, __u64 seed)
{
	static struct prog p;
	char name[64];

	for (int i = 0; i < n; i++) {
		state = seed + i * 0x9e3779b97f4a7c15ull;
		rnd();
		generate(&p, false);
		snprintf(name, sizeof(name), "random %d of seed %" PRIu64 ", %d instructions", i,
			 (uint64_t)seed, p.n);
		if (!same(name, &p))
			return false;
	}
	printf("ok: %d random programs of seed %" PRIu64 "\n", n, (uint64_t)seed);
	return true;
}

/* --- what compilers write */

static bool run_cases(void)
{
	static struct prog p;
	bool ok = true;

#define CASE(name, ...) do { \
	p.n = 0; \
	EMIT(&p, LD_IMM64(9, BPF_PSEUDO_MAP_FD, arena_fd, 0), MOV_X(6, 1)); \
	EMIT(&p, __VA_ARGS__); \
	ok &= result(name, same(name, &p)); \
} while (0)

	state = 1;
	CASE("verdict 0", MOV_K(0, 0), EXIT);
	CASE("verdict 1", MOV_K(0, 1), EXIT);
	CASE("clamp",
	     LDX(BPF_DW, 2, 6, CTX(args[2])), JMP_K(BPF_JLE, 2, 64, 1),
	     ST(BPF_DW, 6, CTX(args[2]), 64),
	     MOV_K(0, 0), EXIT);
	CASE("deny", ST(BPF_DW, 6, CTX(ret), -22), MOV_K(0, 1), EXIT);
	CASE("several exits",
	     LDX(BPF_DW, 2, 6, 0), JMP_K(BPF_JSET, 2, 1, 2), MOV_K(0, 0), EXIT, MOV_K(0, 1), EXIT);
	CASE("a loop with a bound",
	     MOV_K(2, 100), MOV_K(3, 0), ALU_X(BPF_ALU64, BPF_ADD, 3, 2),
	     ALU_K(BPF_ALU64, BPF_SUB, 2, 1),
	     JMP_K(BPF_JNE, 2, 0, -3), STX(BPF_DW, 6, 3, 0), MOV_K(0, 0), EXIT);
	CASE("may_goto, ended by the program",
	     LDX(BPF_DW, 2, 6, 0), ALU_K(BPF_ALU64, BPF_AND, 2, 0xffff), MOV_K(3, 0),
	     MAY_GOTO(3), ALU_K(BPF_ALU64, BPF_ADD, 3, 1),
	     INSN(BPF_JMP | BPF_X | BPF_JGE, 3, 2, 1, 0), JA(-4),
	     STX(BPF_DW, 6, 3, 0), MOV_K(0, 0), EXIT);
	CASE("256 bytes of stack",
	     ST(BPF_DW, 10, -256, 7), ST(BPF_DW, 10, -8, 9), LDX(BPF_DW, 2, 10, -256),
	     LDX(BPF_DW, 3, 10, -8),
	     STX(BPF_DW, 6, 2, 0), STX(BPF_DW, 6, 3, 8), MOV_K(0, 0), EXIT);
	CASE("every register",
	     MOV_K(0, 10), MOV_K(1, 11), MOV_K(2, 12), MOV_K(3, 13), MOV_K(4, 14), MOV_K(5, 15),
	     MOV_K(7, 17),
	     MOV_K(8, 18), MOV_K(9, 19), STX(BPF_DW, 6, 0, 0), STX(BPF_DW, 6, 1, 8),
	     STX(BPF_DW, 6, 2, 16),
	     STX(BPF_DW, 6, 3, 24), STX(BPF_DW, 6, 4, 32), STX(BPF_DW, 6, 5, 40),
	     ALU_X(BPF_ALU64, BPF_ADD, 7, 8), ALU_X(BPF_ALU64, BPF_ADD, 7, 9),
	     STX(BPF_DW, 6, 7, 48),
	     MOV_K(0, 0), EXIT);
	CASE("counter in the arena",
	     MOV_K(2, 64), CAST_KERN(2, 2), MOV_K(3, 1), ATOMIC(BPF_DW, BPF_ADD, 2, 3, 0),
	     MOV_K(0, 0), EXIT);
	CASE("global in the arena, and its address",
	     LD_IMM64(2, BPF_PSEUDO_MAP_VALUE, arena_fd, 16), MOV_X(4, 2), CAST_KERN(2, 2),
	     LDX(BPF_W, 3, 2, 4), STX(BPF_DW, 6, 3, 0), STX(BPF_DW, 6, 4, 8), CAST_USER(5, 2),
	     STX(BPF_DW, 6, 5, 16), MOV_K(0, 0), EXIT);
	CASE("NULL of the arena stays NULL",
	     MOV_K(2, 0), CAST_KERN(2, 2), CAST_USER(3, 2), STX(BPF_DW, 6, 3, 0), MOV_K(0, 0),
	     EXIT);

	p.n = 0;
	EMIT(&p, LD_IMM64(9, BPF_PSEUDO_MAP_FD, arena_fd, 0), MOV_X(6, 1), LDX(BPF_DW, 2, 6, 0),
	     JMP_K(BPF_JSGT, 2, 0, 400));
	for (int i = 0; i < 400; i++)
		emit(&p, ALU_K(BPF_ALU64, BPF_XOR, 2, i * 77777));
	EMIT(&p, STX(BPF_DW, 6, 2, 0), MOV_K(0, 0), EXIT);
	ok &= result("a jump over more than 127 bytes", same("long jump", &p));
	return ok;
}

/* --- pointers of the process */

static bool run_reads(void)
{
	static const struct { int size, n; bool sx; } reads[] = {
		{ BPF_B, 1, false }, { BPF_H, 2, false }, { BPF_W, 4, false }, { BPF_DW, 8, false },
		{ BPF_B, 1, true }, { BPF_H, 2, true }, { BPF_W, 4, true },
	};
	const __u64 word = 0x8182838485868788ull;
	struct { __u64 pad, word; } target = { 0, word };
	int cast = kfunc_id("bpf_rdonly_cast");
	bool ok = true;

	for (size_t i = 0; i < sizeof(reads) / sizeof(*reads); i++) {
		struct bpf_user_patch_ctx ctx = { .args = { (__u64)(unsigned long)&target } };
		int shift = 64 - 8 * reads[i].n, fd;
		__u64 want = word << shift;
		struct prog p = {};
		char name[64];

		want = reads[i].sx ? (__u64)((__s64)want >> shift) : want >> shift;
		EMIT(&p, MOV_X(6, 1), LDX(BPF_DW, 1, 6, 0), MOV_K(2, 0),
		     CALL(BPF_PSEUDO_KFUNC_CALL, 0, cast),
		     INSN(BPF_LDX | (reads[i].sx ? BPF_MEMSX : BPF_MEM) | reads[i].size, 3, 0,
			  offsetof(typeof(target), word), 0),
		     STX(BPF_DW, 6, 3, 8), MOV_K(0, 0), EXIT);
		fd = load(&p, BPF_PROG_TYPE_USER_PATCH);
		if (fd < 0)
			err(1, "load\n%s", log_buf);
		run_user(fd, &ctx);
		close(fd);
		snprintf(name, sizeof(name), "%d bytes%s", reads[i].n,
			 reads[i].sx ? ", with their sign" : "");
		if (ctx.args[1] != want)
			printf("not ok: %s: %#llx, not %#llx\n", name, ctx.args[1], want);
		ok &= result(name, ctx.args[1] == want);
	}
	return ok;
}

/* --- addresses: whatever eight bytes of the code are one that only the kernel has */

static int kernel_addresses(int fd)
{
	struct code c = dump(fd);
	int found = 0;
	__u64 v;

	for (size_t i = 0; i + sizeof(v) <= c.len; i++) {
		memcpy(&v, c.fn + i, sizeof(v));
		found += v >= 0xffff800000000000ull;
	}
	munmap(c.fn, c.mapped);
	return found;
}

/* Its numbers are positive, so that none of them looks like an address. */
static bool run_addresses(int n)
{
	static struct prog p;
	int kernel = 0, user = 0;

	for (int i = 0; i < n; i++) {
		int fd;

		state = 7 + i * 0x9e3779b97f4a7c15ull;
		rnd();
		generate(&p, true);
		fd = load(&p, BPF_PROG_TYPE_USER_PATCH);
		if (fd < 0)
			err(1, "load\n%s", log_buf);
		user += !!kernel_addresses(fd);
		close(fd);
		/* what the search finds when there is something to find */
		fd = load(&p, BPF_PROG_TYPE_SYSCALL);
		if (fd < 0)
			err(1, "load\n%s", log_buf);
		kernel += !!kernel_addresses(fd);
		close(fd);
	}
	printf("%s: kernel addresses in %d of %d programs for user mode, %d of the kernel's\n",
	       !user && kernel == n ? "ok" : "not ok", user, n, kernel);
	return !user && kernel == n;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";
	bool ok;

	arena_fd = arena_create(ARENA_START);
	arena = arena_map(arena_fd, ARENA_START);
	arena_size = ARENA_PAGES * sysconf(_SC_PAGESIZE);
	if (!strcmp(verb, "cases"))
		ok = run_cases();
	else if (!strcmp(verb, "random") && argc > 2)
		ok = run_random(atoi(argv[2]), argc > 3 ? strtoull(argv[3], NULL, 0) : 1);
	else if (!strcmp(verb, "reads"))
		ok = run_reads();
	else if (!strcmp(verb, "addresses"))
		ok = run_addresses(50);
	else
		errx(2, "usage: userjit cases|random N [SEED]|reads|addresses");
	return !ok;
}
