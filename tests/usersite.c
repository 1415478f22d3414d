// SPDX-License-Identifier: GPL-2.0-only
/*
 * A thread at the entry of a patched function: what it has in its registers and on its stack,
 * the instructions that are moved, and faults of the program and of the function. This
 * process patches itself; the oracle is the same call without the patch.
 *
 *   usersite registers|sites|faults|stack [TEST]
 *
 * Lines of "ok" and "not ok"; exit 1 after one of the latter.
 */
#include <cpuid.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <ucontext.h>

#include "userlink.h"

/* A pidfd: each test is a process. */
#define self own_pidfd()
static int own_pidfd(void)
{
	static int fd;

	if (!fd)
		fd = syscall(SYS_pidfd_open, getpid(), 0);
	if (fd < 0)
		err(2, "pidfd");
	return fd;
}

#define TRAPS(link) (link_info(link).text_poke.trap_hits)
#define FAULTS(link) (link_info(link).text_poke.faults)
#define SKIPPED(link) (link_info(link).text_poke.skipped)

/* --- registers. In the order of their numbers: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8.. */

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9 };

#define XSAVE_MAX 4096	/* without AMX */
#define RED_ZONE 128
#define FLAG_DF 0x400

struct state {
	__u64 gpr[16];
	__u64 flags;
	__u64 pad[7];
	__u8 red[RED_ZONE];
	__u8 xsave[XSAVE_MAX] __attribute__((aligned(64)));
};

_Static_assert(offsetof(struct state, red) == 192 && offsetof(struct state, xsave) == 320, "asm");

struct state regs_in, regs_seen, regs_out, regs_clean;
__u64 regs_fn, regs_sp, regs_mask;

#define GPRS(insn) \
	insn(0, rax) insn(8, rcx) insn(16, rdx) insn(24, rbx) insn(40, rbp) insn(48, rsi) \
	insn(56, rdi) insn(64, r8) insn(72, r9) insn(80, r10) insn(88, r11) insn(96, r12) \
	insn(104, r13) insn(112, r14) insn(120, r15)
#define LOAD_IN(off, reg) "	mov regs_in + " #off "(%rip), %" #reg "\n"
#define STORE_OUT(off, reg) "	mov %" #reg ", regs_out + " #off "(%rip)\n"
#define STORE_SEEN(off, reg) "	mov %" #reg ", regs_seen + " #off "(%rip)\n"
#define RED(off) \
	"	mov -128 + " #off "(%rsp), %rax; mov %rax, regs_seen + 192 + " #off "(%rip)\n"
#define MASK "	mov regs_mask(%rip), %eax; xor %edx, %edx\n"

/* Calls regs_fn with regs_in, from a stack pointer that is off by @skew. */
typeof(void (__u64)) call_full;
asm(".globl call_full\n"
	".type call_full, @function\n"
	"call_full:\n"
	"	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
	"	mov %rsp, regs_sp(%rip)\n"
	"	sub $4096, %rsp; and $-64, %rsp; sub %rdi, %rsp\n"
	"	lea -8 - 128(%rsp), %rdi; mov $0x5a, %al; mov $128, %ecx; rep stosb\n"
	MASK
	"	xrstor64 regs_in + 320(%rip)\n"
	GPRS(LOAD_IN)
	"	call *regs_fn(%rip)\n"
	GPRS(STORE_OUT)
	"	mov %rsp, regs_out + 32(%rip)\n"
	"	pushf; pop regs_out + 128(%rip); cld\n"
	MASK
	"	xsave64 regs_out + 320(%rip)\n"
	"	xrstor64 regs_clean + 320(%rip)\n"
	"	mov regs_sp(%rip), %rsp\n"
	"	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
	"	ret\n"
	".size call_full, . - call_full\n");

/* Writes down what it was called with. */
FUNCTION(observe,
	 GPRS(STORE_SEEN)
	 "	mov %rsp, regs_seen + 32(%rip)\n"
	 RED(0) RED(8) RED(16) RED(24) RED(32) RED(40) RED(48) RED(56)
	 RED(64) RED(72) RED(80) RED(88) RED(96) RED(104) RED(112) RED(120)
	 MASK
	 "	xsave64 regs_seen + 320(%rip)\n"
	 "	pushf; pop regs_seen + 128(%rip)\n"
	 "	mov regs_seen + 16(%rip), %rdx\n"
	 "	mov $0x1234, %eax\n"
	 "	ret");

static __u32 component(int n)
{
	__u32 a, b, c, d;

	__cpuid_count(0xd, n, a, b, c, d);
	return a ? b : 0;
}

/* Fill what the CPU has: x87, MXCSR, xmm, ymm, opmask and zmm. */
static void fill_registers(void)
{
	static const int parts[] = { 2, 5, 6, 7 };
	static const int sizes[] = { 256, 64, 512, 1024 };
	__u32 a, b, c, d, xcr0;
	__u8 *x = regs_in.xsave;

	__cpuid(1, a, b, c, d);
	if (!(c & bit_OSXSAVE))
		errx(2, "no XSAVE");
	asm("xgetbv" : "=a"(xcr0), "=d"(d) : "c"(0));
	regs_mask = xcr0 & 0xe7;
	asm volatile("xsave64 %0" : "=m"(regs_in.xsave) : "a"((__u32)regs_mask), "d"(0));
	memcpy(regs_clean.xsave, x, XSAVE_MAX);

	*(__u16 *)x = 0x0f7f;			/* control word: round to zero */
	*(__u16 *)(x + 2) = 0x1800;		/* status word: the top is 3 */
	x[4] = 0xff;				/* all eight are in use */
	*(__u32 *)(x + 24) = 0x7f80;		/* MXCSR: round to zero */
	for (int i = 0; i < 8; i++) {
		*(__u64 *)(x + 32 + 16 * i) = 0x8000000000001000ull + i;
		*(__u16 *)(x + 40 + 16 * i) = 0x4000 + i;
	}
	for (int i = 0; i < 256; i++)
		x[160 + i] = 0x11 + i;
	*(__u64 *)(x + 512) |= 3;
	for (int k = 0; k < 4; k++) {
		__u32 off = component(parts[k]);

		if (!(regs_mask & (1 << parts[k])) || off + sizes[k] > XSAVE_MAX)
			continue;
		for (int i = 0; i < sizes[k]; i++)
			x[off + i] = 0x81 + 3 * i;
		*(__u64 *)(x + 512) |= 1 << parts[k];
	}
	for (int i = 0; i < 16; i++)
		regs_in.gpr[i] = 0x0123456789abcd00ull * (2 * i + 3) + i;
}

static void run_full(int skew)
{
	memset(&regs_seen, 0, sizeof(regs_seen));
	memset(&regs_out, 0, sizeof(regs_out));
	regs_fn = ADDR(observe);
	call_full(skew);
	/* of these, only the direction is part of a call */
	regs_seen.flags &= FLAG_DF;
	regs_out.flags &= FLAG_DF;
}

static bool same_state(const char *what, int skew, const struct state *got,
		       const struct state *want)
{
	bool ok = true;

	for (int i = 0; i < 16; i++)
		ok &= check(got->gpr[i] == want->gpr[i], "%s, skew %d: register %d: %#llx, not %#llx",
			    what, skew, i, got->gpr[i], want->gpr[i]);
	ok &= check(got->flags == want->flags, "%s, skew %d: flags", what, skew);
	ok &= check(!memcmp(got->red, want->red, RED_ZONE), "%s, skew %d: red zone", what, skew);
	for (int i = 0; i < XSAVE_MAX; i++)
		if (got->xsave[i] != want->xsave[i])
			return check(false, "%s, skew %d: state at %d: %#x, not %#x", what, skew, i,
				     got->xsave[i], want->xsave[i]);
	return ok;
}

static void test_registers(void)
{
	static const int argument[] = { RDI, RSI, RDX, RCX, R8, R9 };
	static struct state seen[16], out[16], want;
	int nothing = load_nothing(), change, link;

	fill_registers();
	change = LOAD(ST(BPF_DW, 1, 0, -100), ST(BPF_DW, 1, 8, -101), ST(BPF_DW, 1, 16, -102),
		      ST(BPF_DW, 1, 24, -103), ST(BPF_DW, 1, 32, -104), ST(BPF_DW, 1, 40, -105),
		      MOV_K(1, 1), MOV_K(2, 2), MOV_K(3, 3), MOV_K(4, 4), MOV_K(5, 5),
		      MOV_K(6, 6), MOV_K(7, 7), MOV_K(8, 8), MOV_K(9, 9), CONTINUE);
	for (int skew = 0; skew < 16; skew++) {
		run_full(skew);
		seen[skew] = regs_seen;
		out[skew] = regs_out;
		for (int i = 0; i < 16; i++)
			if (i != RSP)
				is("unpatched", regs_seen.gpr[i], regs_in.gpr[i]);
	}
	/* else nothing is compared */
	check(memcmp(regs_seen.xsave + 160, regs_clean.xsave + 160, 256), "no vectors");
	is("red zone", regs_seen.red[0], 0x5a);

	link = attach(nothing, self, observe);
	for (int skew = 0; skew < 16; skew++) {
		run_full(skew);
		same_state("seen", skew, &regs_seen, &seen[skew]);
		same_state("afterwards", skew, &regs_out, &out[skew]);
	}
	is("traps", TRAPS(link), 16);

	is("update", bpf_link_update(link, change, NULL), 0);
	for (int skew = 0; skew < 16; skew++) {
		run_full(skew);
		want = seen[skew];
		for (int i = 0; i < 6; i++)
			want.gpr[argument[i]] = -100 - i;
		same_state("changed", skew, &regs_seen, &want);
	}

	/* without the function: all is as it was before the call, but the result */
	is("update", bpf_link_update(link, load_return(-22), NULL), 0);
	for (int skew = 0; skew < 16; skew++) {
		static const struct state none;

		run_full(skew);
		same_state("not called", skew, &regs_seen, &none);
		want = out[skew];
		for (int i = 0; i < 16; i++)
			if (i != RSP)
				want.gpr[i] = regs_in.gpr[i];
		want.gpr[RAX] = -22;
		same_state("returned", skew, &regs_out, &want);
	}
	close(link);
	run_full(0);
	same_state("unpatched again", 0, &regs_seen, &seen[0]);
}

__attribute__((noipa, section(".text.patched"))) static double add_up(int n, ...)
{
	double sum = 0;
	va_list ap;

	va_start(ap, n);
	for (int i = 0; i < n; i++)
		sum += va_arg(ap, double);
	va_end(ap);
	return sum;
}

static void test_variadic(void)
{
	int link = attach(load_nothing(), self, add_up);

	for (int i = 0; i < 10; i++) {
		check(add_up(3, 1.5, 2.25, 4.0) == 7.75, "three");
		check(add_up(10, 1., 2., 3., 4., 5., 6., 7., 8., 9., 10.) == 55, "ten");
		check(add_up(0) == 0, "none");
	}
	is("traps", TRAPS(link), 30);
	close(link);
}

/* --- sites: a function with the same result for each kind of first instruction */

__u64 site_words[8];

#define SITE(name, code) \
	asm(ASM_FUNCTION(site_##name, code) ASM_FUNCTION(endbr_##name, "endbr64; " code))

SITE(push, "push %rbx; mov %rdi, %rbx; lea 1(%rbx), %rax; pop %rbx; ret");
SITE(push_r12, "push %r12; mov %rdi, %r12; lea 1(%r12), %rax; pop %r12; ret");
SITE(sub, "sub $24, %rsp; mov %rdi, 8(%rsp); mov 8(%rsp), %rax; add $24, %rsp; ret");
SITE(sub_imm32, "sub $0x1230, %rsp; mov %rdi, %rax; add $0x1230, %rsp; ret");
SITE(lea_rip, "lea site_words(%rip), %rax; mov (%rax), %rax; add %rdi, %rax; ret");
SITE(load_rip, "mov site_words(%rip), %rax; add %rdi, %rax; ret");
SITE(store_rip, "mov %rdi, site_words + 8(%rip); mov site_words + 8(%rip), %rax; ret");
SITE(store_imm_rip, "movl $0x1234567, site_words + 8(%rip); mov site_words + 8(%rip), %rax; ret");
SITE(cmp8_rip, "cmpl $5, site_words(%rip); sete %al; movzbl %al, %eax; add %rdi, %rax; ret");
SITE(cmp32_rip, "cmpl $0x12345678, site_words(%rip); setb %al; movzbl %al, %eax; ret");
SITE(sse_rip, "movdqu site_words(%rip), %xmm0; movq %xmm0, %rax; add %rdi, %rax; ret");
SITE(sse_imm_rip, "pshufd $0x1b, site_words(%rip), %xmm1; movq %xmm1, %rax; ret");
SITE(avx_rip, "vmovdqu site_words(%rip), %ymm1; vmovq %xmm1, %rax; vzeroupper; ret");
SITE(avx_imm_rip, "vpermilps $0x1b, site_words(%rip), %xmm1; vmovq %xmm1, %rax; ret");
SITE(lock_rip, "lock incq site_words + 16(%rip); mov site_words + 16(%rip), %rax; ret");
SITE(xchg_rip, "xchg %rdi, site_words + 24(%rip); mov %rdi, %rax; ret");
SITE(jmp8, "jmp 2f; 1: ud2; 2: lea 3(%rdi), %rax; ret");
SITE(jmp32, "jmp 2f; 1: .skip 200, 0xcc; 2: lea 3(%rdi), %rax; ret");
SITE(ret, "ret");
SITE(ret_imm, "ret $0");
SITE(xor, "xor %eax, %eax; add %rdi, %rax; ret");
SITE(test, "test %rdi, %rdi; setne %al; movzbl %al, %eax; ret");
SITE(cmp, "cmp $5, %rdi; seta %al; movzbl %al, %eax; ret");
SITE(mov, "mov %rdi, %rax; ret");
SITE(mov_imm32, "mov $0x12345678, %eax; add %rdi, %rax; ret");
SITE(movabs, "movabs $0x1122334455667788, %rax; add %rdi, %rax; ret");
SITE(fs, "mov %fs:0, %rax; sub %fs:0, %rax; add %rdi, %rax; ret");
SITE(nop15, ".byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0\n"
	    "mov %rdi, %rax; ret");
SITE(nops, "nop; nop; nop; nop; nop; lea 7(%rdi), %rax; ret");
SITE(nop5, "nopl 0(%rax,%rax,1); lea 7(%rdi), %rax; ret");
SITE(pushf, "pushf; pop %rax; mov %rdi, %rax; ret");
SITE(cpuid, "mov %rbx, %r8; mov $0, %eax; cpuid; mov %r8, %rbx; ret");
SITE(rep, "rep stosb; lea site_words + 40(%rip), %rax; sub %rdi, %rax; ret");

#define JCC8(cc) \
	SITE(cc##_8, #cc " 2f; 1: lea 3(%rdi), %rax; ret; 2: mov %rdi, %rax; add $3, %rax; ret")
#define JCC32(cc) \
	SITE(cc##_32, #cc " 2f; 1: lea 3(%rdi), %rax; ret; .skip 200, 0xcc\n" \
		      "2: mov %rdi, %rax; add $3, %rax; ret")
JCC8(jo);
JCC32(jo);
JCC8(jno);
JCC32(jno);
JCC8(jb);
JCC32(jb);
JCC8(jae);
JCC32(jae);
JCC8(je);
JCC32(je);
JCC8(jne);
JCC32(jne);
JCC8(jbe);
JCC32(jbe);
JCC8(ja);
JCC32(ja);
JCC8(js);
JCC32(js);
JCC8(jns);
JCC32(jns);
JCC8(jp);
JCC32(jp);
JCC8(jnp);
JCC32(jnp);
JCC8(jl);
JCC32(jl);
JCC8(jge);
JCC32(jge);
JCC8(jle);
JCC32(jle);
JCC8(jg);
JCC32(jg);

/* in pages of their own: the last byte of one, and instructions that begin in one */
asm(".pushsection .text.patched, \"ax\"\n"
	".balign 4096\n"
	".skip 4096 - 1\n"
	".globl site_last\n"
	"site_last:	ret\n"
	".skip 4096 - 3\n"
	".globl site_cross\n"
	"site_cross:	movabs $0x1122334455667788, %rax; add %rdi, %rax; ret\n"
	".balign 4096\n"
	".skip 4096 - 4\n"
	".globl endbr_cross\n"
	"endbr_cross:	endbr64\n"
	"	movabs $0x1122334455667788, %rax; add %rdi, %rax; ret\n"
	".balign 4096\n"
	".skip 4096 - 5\n"
	".globl endbr_last\n"
	"endbr_last:	endbr64\n"
	"	ret\n"
	".popsection\n");

#define SITES(X) \
	X(push) X(push_r12) X(sub) X(sub_imm32) X(lea_rip) X(load_rip) X(store_rip) \
	X(store_imm_rip) X(cmp8_rip) X(cmp32_rip) X(sse_rip) X(sse_imm_rip) X(avx_rip) \
	X(avx_imm_rip) X(lock_rip) X(xchg_rip) X(jmp8) X(jmp32) X(ret) X(ret_imm) X(xor) X(test) \
	X(cmp) X(mov) X(mov_imm32) X(movabs) X(fs) X(nop15) X(nops) X(nop5) X(pushf) X(cpuid) \
	X(rep) X(last) X(cross) \
	X(jo_8) X(jno_8) X(jb_8) X(jae_8) X(je_8) X(jne_8) X(jbe_8) X(ja_8) \
	X(js_8) X(jns_8) X(jp_8) X(jnp_8) X(jl_8) X(jge_8) X(jle_8) X(jg_8) \
	X(jo_32) X(jno_32) X(jb_32) X(jae_32) X(je_32) X(jne_32) X(jbe_32) X(ja_32) \
	X(js_32) X(jns_32) X(jp_32) X(jnp_32) X(jl_32) X(jge_32) X(jle_32) X(jg_32)

#define NAMES(name) site_##name, endbr_##name,
#define ENTRY(name) { #name, { site_##name, endbr_##name } },

function SITES(NAMES) observe;

static const struct site {
	const char *name;
	void *fn[2];	/* without endbr64, and with it */
} sites[] = { SITES(ENTRY) };

/* fn(a, b, c, 16) with a number in rax, which functions without code return */
typeof(__u64 (void *, __u64)) call_site;
asm(".globl call_site\n"
	".type call_site, @function\n"
	"call_site:\n"
	"	sub $8, %rsp\n"
	"	mov %rdi, %r11; mov %rsi, %rdi\n"
	"	mov $16, %ecx; mov $0x7777, %eax\n"
	"	call *%r11\n"
	"	add $8, %rsp\n"
	"	ret\n"
	".size call_site, . - call_site\n");

static __u64 run_site(const struct site *s, int endbr, __u64 a, __u64 *words)
{
	__u64 r;

	for (int i = 0; i < 8; i++)
		site_words[i] = 5 + 0x1000 * i;
	if (!strcmp(s->name, "rep"))
		a = ADDR(&site_words[3]);
	r = call_site(s->fn[endbr], a);
	memcpy(words, site_words, sizeof(site_words));
	return r;
}

static void check_site(const struct site *s, int endbr, int nothing, int add)
{
	static const __u64 values[] = { 0, 1, 5, 6, 0x12345678, -1, INT64_MIN };
	__u64 want[ARRAY_SIZE(values)][9], words[8];
	int link, skip = endbr ? 4 : 0, before = test_failures;

	for (size_t i = 0; i < ARRAY_SIZE(values); i++)
		want[i][8] = run_site(s, endbr, values[i], want[i]);
	link = try_attach(nothing, self, s->fn[endbr]);
	if (!check(link >= 0, "%s: attach: %s", s->name, strerror(-link)))
		return;
	check(text_is_patched(getpid(), s->fn[endbr], skip), "text");
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		is("patched", run_site(s, endbr, values[i], words), want[i][8]);
		check(!memcmp(words, want[i], sizeof(words)), "memory");
	}
	is("traps", TRAPS(link), ARRAY_SIZE(values));
	is("update", bpf_link_update(link, add, NULL), 0);
	is("changed", run_site(s, endbr, values[0], words), want[1][8]);
	check(!memcmp(words, want[1], sizeof(words)), "memory");
	is("update", bpf_link_update(link, load_return(-22), NULL), 0);
	is("returned", run_site(s, endbr, 0, words), -22);
	close(link);
	check(text_is_files(getpid(), s->fn[endbr]), "text, closed");
	for (size_t i = 0; i < ARRAY_SIZE(values); i++)
		is("closed", run_site(s, endbr, values[i], words), want[i][8]);
	if (test_failures > before)
		printf("not ok: these were of %s%s\n", endbr ? "endbr64 and " : "", s->name);
}

static bool has_avx(void)
{
	return __builtin_cpu_supports("avx2");
}

static void test_sites(void)
{
	int nothing = load_nothing();
	/* args[0] = 1, but not where it is a pointer */
	int add = LOAD(LDX(BPF_DW, 2, 1, 0), JMP_K(BPF_JNE, 2, 0, 1), ST(BPF_DW, 1, 0, 1),
		       CONTINUE);

	for (size_t i = 0; i < ARRAY_SIZE(sites); i++) {
		if (strstr(sites[i].name, "avx") && !has_avx())
			continue;
		for (int endbr = 0; endbr < 2; endbr++)
			check_site(&sites[i], endbr, nothing, add);
	}
}

/* A loop whose head is the entry: the program runs in each round. */
FUNCTION(loop_head, "1: dec %rdi; jg 1b; mov %rdi, %rax; ret");

static void test_loop_head(void)
{
	int link = attach(load_nothing(), self, loop_head);

	is("result", loop_head(10, 0, 0, 0, 0, 0), 0);
	is("traps", TRAPS(link), 10);
	close(link);
	is("closed", loop_head(10, 0, 0, 0, 0, 0), 0);
}

#define REFUSE(name, code) \
	asm(ASM_FUNCTION(refuse_##name, code) ASM_FUNCTION(endbre_##name, "endbr64; " code))

REFUSE(call, "call observe");
REFUSE(call_reg, "call *%rax");
REFUSE(call_mem, "call *site_words(%rip)");
REFUSE(jmp_reg, "jmp *%rax");
REFUSE(jmp_mem, "jmp *site_words(%rip)");
REFUSE(notrack, "notrack jmp *%rax");
REFUSE(syscall, "syscall");
REFUSE(sysenter, "sysenter");
REFUSE(int3, "int3");
REFUSE(int80, "int $0x80");
REFUSE(int1, ".byte 0xf1");
REFUSE(loop, "1: loop 1b");
REFUSE(loope, "1: loope 1b");
REFUSE(loopne, "1: loopne 1b");
REFUSE(jrcxz, "1: jrcxz 1b");
REFUSE(hlt, "hlt");
REFUSE(ud2, "ud2");
REFUSE(lret, "lretq");
REFUSE(iret, "iretq");
REFUSE(xbegin, "1: xbegin 1b");
REFUSE(mov_ss, "mov %eax, %ss");
REFUSE(endbr, "endbr64; endbr64");
REFUSE(bad, ".byte 0x06");

#define REFUSED(X) \
	X(call) X(call_reg) X(call_mem) X(jmp_reg) X(jmp_mem) X(notrack) X(syscall) X(sysenter) \
	X(int3) X(int80) X(int1) X(loop) X(loope) X(loopne) X(jrcxz) X(hlt) X(ud2) X(lret) \
	X(iret) X(xbegin) X(mov_ss) X(endbr) X(bad)
#define REFUSED_NAMES(name) refuse_##name, endbre_##name,
#define REFUSED_ENTRY(name) { #name, { refuse_##name, endbre_##name } },

function REFUSED(REFUSED_NAMES) observe;

static void test_refused(void)
{
	static const struct site refused[] = { REFUSED(REFUSED_ENTRY) };
	int prog = load_nothing();

	for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
		for (int endbr = 0; endbr < 2; endbr++) {
			function *fn = refused[i].fn[endbr];

			fails(refused[i].name, try_attach(prog, self, fn), EILSEQ);
			check(text_is_files(getpid(), fn), "text of %s", refused[i].name);
		}
	is("images", count_maps(getpid(), "bpf_user_patch"), 0);
}

/* --- faults of the program */

#define AT 0x500000000000ul	/* where this process has nothing else */
#define VALUE 0x8182838485868788ull

static void *map_at(unsigned long at, size_t len, int prot, int fd)
{
	void *p = mmap((void *)at, len, prot,
		       MAP_FIXED_NOREPLACE | MAP_PRIVATE | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);

	if (p == MAP_FAILED)
		err(2, "mmap");
	return p;
}

static int uffd;
static volatile int uffd_faults;

static void *answer_faults(void *page)
{
	static __u8 content[PAGE] __attribute__((aligned(4096)));
	struct uffd_msg msg;

	for (size_t i = 0; i < PAGE; i += 8)
		*(__u64 *)(content + i) = VALUE;
	while (read(uffd, &msg, sizeof(msg)) == sizeof(msg)) {
		struct uffdio_copy copy = {
			.dst = msg.arg.pagefault.address & -PAGE, .src = ADDR(content), .len = PAGE,
		};

		usleep(10000);
		uffd_faults++;
		if (ioctl(uffd, UFFDIO_COPY, &copy))
			err(2, "UFFDIO_COPY");
	}
	return NULL;
}

static __u64 uffd_page(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	pthread_t thread;

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	reg.range.start = ADDR(map_at(AT + (1 << 30), PAGE, PROT_READ, -1));
	reg.range.len = PAGE;
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &reg) ||
	    pthread_create(&thread, NULL, answer_faults, NULL))
		err(2, "userfaultfd");
	return reg.range.start;
}

static int empty_file(void)
{
	int fd = syscall(SYS_memfd_create, "empty", 0);

	if (fd < 0)
		err(2, "memfd");
	return fd;
}

static void test_reads(void)
{
	static const struct { int size, bytes; bool sx; } widths[] = {
		{ BPF_DW, 8, false }, { BPF_W, 4, false }, { BPF_H, 2, false }, { BPF_B, 1, false },
		{ BPF_W, 4, true }, { BPF_H, 2, true }, { BPF_B, 1, true },
	};
	int cast = kfunc_id("bpf_rdonly_cast"), link = -1;
	__u64 *page = map_at(AT, PAGE, PROT_READ | PROT_WRITE, -1);
	__u64 none = ADDR(map_at(AT + (2 << 20), PAGE, PROT_NONE, -1));
	__u64 eof = ADDR(map_at(AT + (4 << 20), PAGE, PROT_READ, empty_file()));
	struct { const char *name; __u64 addr; bool good; } reads[] = {
		{ "good", AT, true }, { "NULL", 0, false }, { "page 1", 4096, false },
		{ "behind the last page", AT + PAGE, false }, { "PROT_NONE", none, false },
		{ "end of file", eof, false }, { "non-canonical", 0x8000000000000000ull, false },
		{ "first non-canonical", 0x800000000000ull, false },
		{ "below the kernel's", 0xffff7fffffffff00ull, false },
		{ "kernel", 0xffffffff81000000ull, false },
		{ "kernel's memory", 0xffff888000000000ull, false },
		{ "vsyscall", 0xffffffffff600000ull, false }, { "last", ~0ull - 7, false },
		{ "userfaultfd", 0, true }, { "good again", AT + 8, true },
	};
	__u64 faults = 0, want;

	for (size_t i = 0; i < PAGE / 8; i++)
		page[i] = VALUE;
	for (size_t w = 0; w < ARRAY_SIZE(widths); w++) {
		int shift = 64 - 8 * widths[w].bytes, prog;

		/* args[1] becomes what args[0] points to */
		prog = LOAD(MOV_X(6, 1), LDX(BPF_DW, 1, 6, 0), MOV_K(2, 0),
			    CALL(BPF_PSEUDO_KFUNC_CALL, 0, cast), MOV_K(3, 77),
			    INSN(BPF_LDX | (widths[w].sx ? BPF_MEMSX : BPF_MEM) | widths[w].size, 3,
				 0, 0, 0),
			    STX(BPF_DW, 6, 3, 8), CONTINUE);
		if (link < 0)
			link = attach(prog, self, weigh);
		else
			is("update", bpf_link_update(link, prog, NULL), 0);
		close(prog);
		want = VALUE << shift;
		want = widths[w].sx ? (__u64)((__s64)want >> shift) : want >> shift;
		for (size_t i = 0; i < ARRAY_SIZE(reads); i++) {
			__u64 addr = reads[i].addr;

			if (!strcmp(reads[i].name, "userfaultfd")) {
				if (w)	/* the page is there now */
					continue;
				addr = uffd_page();
			}
			is(reads[i].name, weigh(addr, 55, 0, 0, 0, 0),
			   addr + 3 * (reads[i].good ? want : 0));
			faults += !reads[i].good;
			is("faults", FAULTS(link), faults);
		}
		/* half of it is there */
		if (widths[w].bytes > 1) {
			is("across the end", weigh(AT + PAGE - 1, 55, 0, 0, 0, 0),
			   AT + PAGE - 1);
			is("faults", FAULTS(link), ++faults);
		}
	}
	is("answered by the thread", uffd_faults, 1);
	is("skipped", SKIPPED(link), 0);
	close(link);
	is("closed", weigh(1, 2, 3, 4, 5, 6), 183);
}

/* In an arena, or around it: what is not there reads 0, and is not written. */
static void test_arena(void)
{
	static const struct { __u32 low; int off; bool good; } at[] = {
		{ 0, 0, true }, { 0x1ff8, 0, true }, { 0x2000, 0, false }, { 0x3000, 0, false },
		{ 0x7ffffff8, 0, false }, { 0x80000000, 0, false }, { 0xfffffff8, 0, false },
		{ 0x2000, -8, true }, { 0, -8, false }, { 0xfffffff8, -8, false },
		{ 0x8000, -32768, true }, { 0, -32768, false }, { 0x7ff8, -32768, false },
		{ 0xfffffff8, -32768, false },
		{ 0x1ff0, 8, true }, { 0x1ff8, 8, false }, { 0xfffffff8, 8, false },
		{ 0x1000, 32760, false }, { 0x80000000, 32760, false },
		{ 0xfffffff8, 32760, false },
	};
	static const int offs[] = { 0, -8, -32768, 8, 32760 };
	int arena = arena_create(ARENA_START), link = -1;
	__u64 *words = arena_map(arena, ARENA_START);
	const __u64 old = 0x1111111111111111ull;

	for (size_t k = 0; k < ARRAY_SIZE(offs) * 6; k++) {
		int off = offs[k / 6], kind = k % 6;
		const struct bpf_insn kinds[] = {
			LDX(BPF_DW, 3, 2, off), STX(BPF_DW, 2, 3, off), ST(BPF_W, 2, off, 5),
			ATOMIC(BPF_DW, BPF_ADD | BPF_FETCH, 2, 3, off),
			ATOMIC(BPF_DW, BPF_ADD, 2, 3, off), ATOMIC(BPF_DW, BPF_XCHG, 2, 3, off),
		};
		static const bool reads[] = { true, false, false, true, false, true };
		int prog = LOAD(LD_IMM64(9, BPF_PSEUDO_MAP_FD, arena, 0), MOV_X(6, 1),
				LDX(BPF_DW, 2, 6, 0), CAST_KERN(2, 2), MOV_K(3, 77), kinds[kind],
				STX(BPF_DW, 6, 3, 8), CONTINUE);

		close(link);
		link = attach(prog, self, weigh);
		close(prog);
		for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
			__u64 r, faults = FAULTS(link);

			if (at[i].off != off)
				continue;
			memset(words, 0x11, ARENA_PAGES * PAGE);
			r = weigh(at[i].low, 0, 0, 0, 0, 0) - at[i].low;
			faults = FAULTS(link) - faults;
			check(faults == !at[i].good, "%#x%+d, kind %d: %llu faults", at[i].low, off,
			      kind, faults);
			if (at[i].good)
				is("result", r, 3 * (reads[kind] ? old : 77));
			else if (!kind)
				is("read", r, 0);
			for (size_t w = 0; !at[i].good && w < ARENA_PAGES * PAGE / 8; w++)
				if (!is("a word of the arena", words[w], old))
					return;
		}
	}
	close(link);
	is("closed", weigh(1, 2, 3, 4, 5, 6), 183);
}

/* Pages of an arena that nobody has touched: there when they are read, or not at all. */
static void test_hole(void)
{
	for (int segv = 0; segv < 2; segv++) {
		__u64 start = ARENA_START + ((__u64)segv << 33);
		LIBBPF_OPTS(bpf_map_create_opts, opts, .map_extra = start,
			    .map_flags = BPF_F_MMAPABLE | (segv ? BPF_F_SEGV_ON_FAULT : 0));
		int arena = bpf_map_create(BPF_MAP_TYPE_ARENA, "arena", 0, 0, 4, &opts), link;

		link = attach(LOAD(LD_IMM64(9, BPF_PSEUDO_MAP_FD, arena, 0), MOV_X(6, 1),
				   LDX(BPF_DW, 2, 6, 0), CAST_KERN(2, 2), MOV_K(3, 77),
				   LDX(BPF_DW, 3, 2, 0), STX(BPF_DW, 6, 3, 8), CONTINUE), self,
			      weigh);
		is("hole", weigh(0x3000, 5, 0, 0, 0, 0), 0x3000);
		is("faults", FAULTS(link), segv);
		is("hole", weigh(0x1000, 5, 0, 0, 0, 0), 0x1000);
		is("faults", FAULTS(link), 2 * segv);
		close(link);
	}
}

/* --- faults of the function, by the instruction that was moved */

FUNCTION(load_first, "mov (%rdi), %rax; ret");
FUNCTION(endbr_load, "endbr64; mov (%rdi), %rax; ret");
FUNCTION(store_first, "movq $77, (%rdi); mov $77, %eax; ret");
FUNCTION(div_first, "div %rsi; mov $1, %eax; ret");
FUNCTION(own_int3, "nop; int3; mov %rdi, %rax; ret");

static struct fault {
	int count, sig, code;
	__u64 addr, ip, sp;
	bool fix;
	sigjmp_buf out;
} fault;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	fault.count++;
	fault.sig = sig;
	fault.code = info->si_code;
	fault.addr = ADDR(info->si_addr);
	fault.ip = uc->uc_mcontext.gregs[REG_RIP];
	fault.sp = uc->uc_mcontext.gregs[REG_RSP];
	if (sig == SIGTRAP)
		return;
	if (!fault.fix)
		siglongjmp(fault.out, 1);
	*(__u64 *)map_at(fault.addr & -PAGE, PAGE, PROT_READ | PROT_WRITE, -1) = VALUE;
}

static void catch_faults(void)
{
	static const int sigs[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
	struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };

	for (size_t i = 0; i < ARRAY_SIZE(sigs); i++)
		sigaction(sigs[i], &sa, NULL);
}

/* The fault of a call: the handler leaves by a jump. */
static struct fault fault_of(function *fn, __u64 a, __u64 b)
{
	memset(&fault, 0, sizeof(fault));
	if (!sigsetjmp(fault.out, 1))
		fn(a, b, 0, 0, 0, 0);
	return fault;
}

static void test_own_faults(void)
{
	__u64 eof = ADDR(map_at(AT + (4 << 20), PAGE, PROT_READ, empty_file()));
	__u64 none = ADDR(map_at(AT + (2 << 20), PAGE, PROT_NONE, -1));
	const struct { const char *name; function *fn; __u64 a, b; int sig; } cases[] = {
		{ "NULL", load_first, 0, 1, SIGSEGV },
		{ "unmapped, store", store_first, AT, 1, SIGSEGV },
		{ "PROT_NONE", load_first, none, 1, SIGSEGV },
		{ "non-canonical", load_first, 1ull << 63, 1, SIGSEGV },
		{ "kernel", load_first, 0xffffffff81000000ull, 1, SIGSEGV },
		{ "end of file", load_first, eof, 1, SIGBUS },
		{ "behind endbr64", endbr_load, AT, 1, SIGSEGV },
		{ "division by 0", div_first, 1, 0, SIGFPE },
	};
	int prog = load_nothing();

	catch_faults();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fault want = fault_of(cases[i].fn, cases[i].a, cases[i].b), got;
		int link = attach(prog, self, cases[i].fn);

		is("signal, unpatched", want.sig, cases[i].sig);
		got = fault_of(cases[i].fn, cases[i].a, cases[i].b);
		check(got.count == 1 && got.sig == want.sig && got.code == want.code,
		      "%s: signal %d, code %d", cases[i].name, got.sig, got.code);
		check(got.addr == want.addr, "%s: si_addr %#llx, not %#llx", cases[i].name,
		      got.addr, want.addr);
		check(got.ip == want.ip, "%s: ip %#llx, not %#llx", cases[i].name, got.ip, want.ip);
		check(got.sp == want.sp, "%s: sp %#llx, not %#llx", cases[i].name, got.sp, want.sp);
		is("faults of the program", FAULTS(link), 0);
		is("traps", TRAPS(link), 1);
		close(link);
	}
}

/* A handler that maps the page, and returns to the instruction. */
static void test_handled(void)
{
	static function *const fns[] = { load_first, endbr_load };
	int prog = load_nothing();

	catch_faults();
	for (int i = 0; i < 2; i++) {
		int link = attach(prog, self, fns[i]);
		__u64 at = AT + ((__u64)i << 24);

		memset(&fault, 0, sizeof(fault));
		fault.fix = true;
		is("loaded", fns[i](at, 0, 0, 0, 0, 0), VALUE);
		is("faults", fault.count, 1);
		is("si_addr", fault.addr, at);
		is("ip", fault.ip, ADDR(fns[i]) + (i ? 4 : 0));
		is("traps", TRAPS(link), 2);
		is("loaded again", fns[i](at, 0, 0, 0, 0, 0), VALUE);
		is("faults", fault.count, 1);
		close(link);
	}
}

/* A breakpoint of the process is its own: elsewhere, and where a patch was. */
static void test_own_traps(void)
{
	int prog = load_nothing(), link = attach(prog, self, own_int3), status;
	pid_t pid;

	catch_faults();
	memset(&fault, 0, sizeof(fault));
	is("call", own_int3(9, 0, 0, 0, 0, 0), 9);
	is("signals", fault.count, 1);
	is("ip", fault.ip, ADDR(own_int3) + 2);
	is("traps", TRAPS(link), 1);
	close(link);

	close(attach(prog, self, load_first));
	signal(SIGTRAP, SIG_DFL);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		if (mprotect((void *)(ADDR(load_first) & -PAGE), PAGE, 7))
			_exit(255);
		*(volatile __u8 *)load_first = 0xcc;
		load_first(AT, 0, 0, 0, 0, 0);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	check(WIFSIGNALED(status) && WTERMSIG(status) == SIGTRAP, "status %#x", status);
}

/* --- the stack */

typeof(__u64 (void *, __u64, __u64)) call_on;
asm(".globl call_on\n"
	".type call_on, @function\n"
	"call_on:\n"
	"	push %rbp; mov %rsp, %rbp\n"
	"	mov %rdi, %rax; mov %rsi, %rdi; mov %rdx, %rsp\n"
	"	call *%rax\n"
	"	mov %rbp, %rsp; pop %rbp\n"
	"	ret\n"
	".size call_on, . - call_on\n");
FUNCTION(no_stack, "lea 1(%rdi), %rax; ret");

/* Where there is no room for the program the function is called without it. */
static void test_no_room(void)
{
	char *guard = map_at(AT, PAGE, PROT_NONE, -1), *stack;
	int link = attach(load_return(55), self, no_stack), with = 0, without = 0, last = 0;

	stack = map_at(ADDR(guard) + PAGE, PAGE, PROT_READ | PROT_WRITE, -1);
	for (int room = 16; room <= (int)PAGE; room += 8) {
		__u64 r = call_on(no_stack, 1, ADDR(stack) + room);

		if (!check(r == 55 || r == 2, "with %d bytes: %llu", room, r))
			return;
		if (r == 55) {
			with++;
		} else {
			without++;
			last = room;
		}
		is("skipped", SKIPPED(link), without);
		is("traps", TRAPS(link), with + without);
	}
	check(with && without, "%d with the program, %d without it", with, without);
	/* by how much room there is, not by chance */
	is("where it changes", (last - 16) / 8 + 1, without);
	check(last >= 256, "room for the program in %d bytes", last);
	is("faults", FAULTS(link), 0);
	close(link);
}

static unsigned long stack_start(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned long start = 0;
	char line[1024];

	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, "[stack]"))
			start = strtoul(line, NULL, 16);
	fclose(f);
	if (!start)
		errx(2, "no stack");
	return start;
}

/* The stack of the main thread grows for the program, up to its limit. */
static void test_growth(void)
{
	unsigned long start = stack_start();
	int link = attach(load_return(55), self, no_stack);
	struct rlimit r;

	is("call", call_on(no_stack, 1, start + 16), 55);
	check(stack_start() < start, "the stack has not grown");
	is("skipped", SKIPPED(link), 0);
	start = stack_start();
	getrlimit(RLIMIT_STACK, &r);
	r.rlim_cur = PAGE;
	setrlimit(RLIMIT_STACK, &r);
	is("call at the limit", call_on(no_stack, 1, start + 16), 2);
	is("skipped", SKIPPED(link), 1);
	close(link);
}

/* Programs that use all of their stack, and a function that is called within itself. */
FUNCTION(recurse, "test %rdi, %rdi; jz 1f; dec %rdi; call recurse; 1: inc %rax; ret");

static void test_recursion(void)
{
	int link = attach(load_nothing(), self, recurse);
	__u64 depth = 1000;

	is("depth", call_site(recurse, depth) - 0x7777, depth + 1);
	is("traps", TRAPS(link), depth + 1);
	close(link);
}

static const struct test tests[] = {
	{ "registers", "all of them", test_registers },
	{ "registers", "variadic", test_variadic },
	{ "sites", "first instructions", test_sites },
	{ "sites", "head of a loop", test_loop_head },
	{ "sites", "not to be moved", test_refused },
	{ "faults", "reads", test_reads },
	{ "faults", "arena", test_arena },
	{ "faults", "holes of an arena", test_hole },
	{ "faults", "of the function", test_own_faults },
	{ "faults", "mended by a handler", test_handled },
	{ "faults", "breakpoints", test_own_traps },
	{ "stack", "no room", test_no_room },
	{ "stack", "growth", test_growth },
	{ "stack", "recursion", test_recursion },
};

int main(int argc, char **argv)
{
	return run_tests(tests, ARRAY_SIZE(tests), argc, argv);
}
