// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a call costs of a function that a program is attached to, by a link that patches it
 * and by uprobes, and what it takes to attach and to detach.
 *
 *   calls cost ROUNDS N		ways take turns, N calls each
 *   calls apply ROUNDS SITES THREADS	the same with 1 to 100 functions of a process that
 *					has so many threads, which call them now and then
 *
 * Every program sees to it that the third argument is at most 64; those of a uretprobe, and of
 * uprobes that may not write registers, only look. That the functions give what is expected
 * then, and that the programs run once for each call, is asked before and after: else it ends.
 * Lines of "cost WAY NS", "entries WAY N", "apply WAY NS CPU NS CPU" (attach and detach: until
 * it is done, and of them the CPU time of the caller) and "lacks WAY WHAT".
 */
#include <pthread.h>
#include <sys/user.h>
#include <time.h>

#include "../userlink.h"
#include "bench/calls.skel.h"

#define SITES	100
#define STRIDE	16
#define LIMIT	64
#define BIG	200	/* an argument above it */
#define COUNTED 1000	/* calls while entries are counted */
#define ENOTSUPP 524	/* the kernel's own */
#define RDX	offsetof(struct user_regs_struct, rdx)

/* Gives its third argument; what tells ways apart is the first instruction. */
#define RETURN_THIRD "	mov %rdx, %rax\n	pop %rbx\n	ret"
FUNCTION(call_bare,	   "	push %rbx\n" RETURN_THIRD);
FUNCTION(call_poke,	   "	push %rbx\n" RETURN_THIRD);
FUNCTION(call_poke_lea,	   "	lea (%rdi,%rsi), %rax\n	push %rbx\n" RETURN_THIRD);
FUNCTION(call_uprobe,	   "	push %rbx\n" RETURN_THIRD);
FUNCTION(call_uprobe_lea,  "	lea (%rdi,%rsi), %rax\n	push %rbx\n" RETURN_THIRD);
FUNCTION(call_uprobe_nop,  "	nop\n	push %rbx\n" RETURN_THIRD);
FUNCTION(call_uprobe_nop5, "	.byte 0x0f, 0x1f, 0x44, 0, 0\n	push %rbx\n" RETURN_THIRD);
FUNCTION(call_uprobe_nop10, "	.byte 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0\n"
			    "	push %rbx\n" RETURN_THIRD);
FUNCTION(call_uretprobe,   "	push %rbx\n" RETURN_THIRD);
FUNCTION(call_getppid,	   "	mov $110, %eax\n	syscall\n	ret");	/* __NR_getppid */
FUNCTION(call_sites,	   ".rept 100\n	.balign 16\n	push %rbx\n" RETURN_THIRD "\n.endr");

static const struct way {
	const char *name;
	function *fn;
	enum { BARE, POKE, UPROBE, URETPROBE, SYSCALL } how;
} ways[] = {
	{"bare", call_bare, BARE},
	{"poke", call_poke, POKE},
	{"poke-lea", call_poke_lea, POKE},
	{"uprobe", call_uprobe, UPROBE},
	{"uprobe-lea", call_uprobe_lea, UPROBE},
	{"uprobe-nop", call_uprobe_nop, UPROBE},
	{"uprobe-nop5", call_uprobe_nop5, UPROBE},
	{"uprobe-nop10", call_uprobe_nop10, UPROBE},
	{"uretprobe", call_uretprobe, URETPROBE},
	{"getppid", call_getppid, SYSCALL},
};

static int progs[SYSCALL];	/* by how; those that the kernel does not load are negative */
static bool uprobes_write;
static bool no_site[ARRAY_SIZE(ways)];	/* where uprobes cannot be */

static __u64 now_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static int load(int type, int attach_type, const struct bpf_insn *insns, size_t n)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = attach_type);

	return bpf_prog_load(type, "calls", "GPL", insns, n, &opts);
}

static void load_programs(void)
{
	const struct bpf_insn poke[] = {
		LDX(BPF_DW, 2, 1, CTX(args[2])), JMP_K(BPF_JLE, 2, LIMIT, 1),
		ST(BPF_DW, 1, CTX(args[2]), LIMIT), CONTINUE}, write[] = {
		LDX(BPF_DW, 2, 1, RDX), JMP_K(BPF_JLE, 2, LIMIT, 2), MOV_K(2, LIMIT),
		STX(BPF_DW, 1, 2, RDX), CONTINUE}, look[] = {
		LDX(BPF_DW, 2, 1, RDX), JMP_K(BPF_JLE, 2, LIMIT, 2), MOV_K(2, LIMIT),
		MOV_K(2, LIMIT), CONTINUE};

	progs[POKE] = load(BPF_PROG_TYPE_USER_PATCH, BPF_USER_PATCH, poke, ARRAY_SIZE(poke));
	progs[UPROBE] = load(BPF_PROG_TYPE_KPROBE, BPF_TRACE_UPROBE_MULTI, write,
			     ARRAY_SIZE(write));
	uprobes_write = progs[UPROBE] >= 0;
	if (!uprobes_write)
		progs[UPROBE] = load(BPF_PROG_TYPE_KPROBE, BPF_TRACE_UPROBE_MULTI, look,
				     ARRAY_SIZE(look));
	progs[URETPROBE] = load(BPF_PROG_TYPE_KPROBE, BPF_TRACE_UPROBE_MULTI, look,
				ARRAY_SIZE(look));
}

static const char *lacks(const struct way *w)
{
	if (w->how == BARE || w->how == SYSCALL)
		return NULL;
	if (progs[w->how] >= 0)
		return no_site[w - ways] ? "uprobes at such an instruction" : NULL;
	return w->how == POKE ? "kernel/upatch" : "uprobe.multi";
}

/* --- attaching: functions @stride apart, one link each where it takes that */

static int attach_uprobe(const struct way *w, const struct target *t, int n)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts);
	unsigned long offsets[SITES];
	struct object obj;
	int fd;

	if (!find_object(w->fn, &obj))
		errx(1, "%s is in no file", w->name);
	for (int i = 0; i < n; i++)
		offsets[i] = obj.offset + i * STRIDE;
	opts.uprobe_multi.path = obj.path;
	opts.uprobe_multi.offsets = offsets;
	opts.uprobe_multi.cnt = n;
	opts.uprobe_multi.pid = t->pid;
	opts.uprobe_multi.flags = w->how == URETPROBE ? BPF_F_UPROBE_MULTI_RETURN : 0;
	fd = bpf_link_create(progs[w->how], 0, BPF_TRACE_UPROBE_MULTI, &opts);
	close(obj.fd);
	return fd;
}

/* The links that it made, or -ENOTSUPP of uprobes. */
static int attach_way(const struct way *w, const struct target *t, int n, int links[])
{
	LIBBPF_OPTS(bpf_link_create_opts, opts);
	struct object obj;
	int made = 1;

	if (w->how == UPROBE || w->how == URETPROBE) {
		links[0] = attach_uprobe(w, t, n);
	} else {
		if (!find_object(w->fn, &obj))
			errx(1, "%s is in no file", w->name);
		opts.text_poke.path_fd = obj.fd;
		opts.text_poke.flags = BPF_F_USER_PATCH_PATH_FD;
		for (made = 0; made < n; made++) {
			opts.text_poke.offset = obj.offset + made * STRIDE;
			links[made] = bpf_link_create(progs[POKE], t->pidfd, BPF_USER_PATCH, &opts);
			if (links[made] < 0)
				errx(1, "%s: attach: %s", w->name, strerror(-links[made]));
		}
		close(obj.fd);
	}
	if (links[0] == -ENOTSUPP)
		return links[0];
	if (links[0] < 0)
		errx(1, "%s: attach: %s", w->name, strerror(-links[0]));
	return made;
}

/* --- cost */

/* In the target: ns of @n calls */
static __u64 many(__u64 which, __u64 n, __u64 c, __u64 d, __u64 e, __u64 f)
{
	function *volatile fn = ways[which].fn;
	__u64 from = now_ns(CLOCK_MONOTONIC);

	for (__u64 i = 0; i < n; i++)
		fn(1, 2, c, d, e, f);
	return now_ns(CLOCK_MONOTONIC) - from;
}

static __u64 runs(int prog)
{
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);

	if (bpf_prog_get_info_by_fd(prog, &info, &len))
		err(1, "info of a program");
	return info.run_cnt;
}

/* Each way does what it is said to, and each call runs its program once. */
static void must_work(const struct way *w, const struct target *t)
{
	bool clamps = w->how == POKE || (w->how == UPROBE && uprobes_write);
	__u64 got, want = clamps ? LIMIT : BIG;

	if (w->how == SYSCALL) {
		got = ask(t, w->fn, 0);
		want = getpid();
	} else {
		got = ask(t, w->fn, 1, 2, BIG);
	}
	if (got != want)
		errx(1, "%s gives %llu, not %llu", w->name, got, want);
	if (w->how == UPROBE || w->how == URETPROBE) {
		int stats = bpf_enable_stats(BPF_STATS_RUN_TIME);
		__u64 before = runs(progs[w->how]);

		if (stats < 0)
			errx(1, "statistics of programs: %s", strerror(-stats));
		ask(t, many, w - ways, 10, BIG);
		got = runs(progs[w->how]) - before;
		close(stats);
		if (got != 10)
			errx(1, "%s runs its program %llu times in 10 calls", w->name, got);
	}
}

static void count_entries(const struct target *t)
{
	struct calls *skel;

	libbpf_set_print(NULL);	/* what fails is said below */
	skel = calls__open();
	if (!skel)
		err(1, "skeleton");
	skel->rodata->tgid = t->pid;
	bpf_program__set_autoload(skel->progs.calls_trap, progs[POKE] >= 0);
	if (calls__load(skel) || calls__attach(skel)) {
		printf("lacks entries programs that count them: %s\n", strerror(errno));
		calls__destroy(skel);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		__u64 before;

		if (lacks(&ways[i]))
			continue;
		ask(t, many, i, COUNTED, BIG);
		before = skel->bss->entries;
		ask(t, many, i, COUNTED, BIG);
		printf("entries %s %.2f\n", ways[i].name,
		       (skel->bss->entries - before) / (double)COUNTED);
	}
	calls__destroy(skel);
}

static void cost(int rounds, int n)
{
	struct target t = start_target();
	int link;

	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		/* until this process ends */
		if (!lacks(&ways[i]) && ways[i].how != BARE && ways[i].how != SYSCALL)
			no_site[i] = attach_way(&ways[i], &t, 1, &link) < 0;
		if (lacks(&ways[i]))
			printf("lacks %s %s\n", ways[i].name, lacks(&ways[i]));
	}
	if (!uprobes_write)
		puts("lacks writes uprobes that may write registers: theirs only look");
	count_entries(&t);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
		if (!lacks(&ways[i]))
			must_work(&ways[i], &t);
	for (int r = 0; r < rounds; r++)
		for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
			if (!lacks(&ways[i]))
				printf("cost %s %.3f\n", ways[i].name,
				       ask(&t, many, i, n, BIG) / (double)n);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
		if (!lacks(&ways[i]))
			must_work(&ways[i], &t);
	end_target(&t);
}

/* --- apply */

static __u64 sum_sites(__u64 n, __u64 b, __u64 c, __u64 d, __u64 e, __u64 f)
{
	__u64 sum = 0;

	for (__u64 i = 0; i < n; i++)
		sum += ((function *)((char *)call_sites + i * STRIDE))(1, b, c, d, e, f);
	return sum;
}

static void *calls_now_and_then(void *arg)
{
	for (;;) {
		sum_sites((unsigned long)arg, 2, BIG, 4, 5, 6);
		usleep(1000);
	}
	return NULL;
}

static __u64 more_threads(__u64 n, __u64 sites, __u64 c, __u64 d, __u64 e, __u64 f)
{
	pthread_t thread;

	for (__u64 i = 0; i < n; i++)
		if (pthread_create(&thread, NULL, calls_now_and_then, (void *)sites))
			err(1, "thread");
	return c + d + e + f;
}

static void must_sum(const struct way *w, const struct target *t, int sites, __u64 want)
{
	__u64 got = ask(t, sum_sites, sites, 2, BIG);

	if (got != want * sites)
		errx(1, "%s: %d sites give %llu, not %llu", w->name, sites, got, want * sites);
}

static void apply_once(const struct way *w, int sites, int threads)
{
	__u64 took[2], cpu[2], limit = w->how == POKE || uprobes_write ? LIMIT : BIG;
	struct target t = start_target();
	int links[SITES] = {-1}, n;

	ask(&t, more_threads, threads - 1, sites);
	must_sum(w, &t, sites, BIG);
	took[0] = now_ns(CLOCK_MONOTONIC);
	cpu[0] = now_ns(CLOCK_THREAD_CPUTIME_ID);
	n = attach_way(w, &t, sites, links);
	cpu[0] = now_ns(CLOCK_THREAD_CPUTIME_ID) - cpu[0];
	took[0] = now_ns(CLOCK_MONOTONIC) - took[0];
	must_sum(w, &t, sites, limit);
	took[1] = now_ns(CLOCK_MONOTONIC);
	cpu[1] = now_ns(CLOCK_THREAD_CPUTIME_ID);
	for (int i = 0; i < n; i++)
		close(links[i]);
	cpu[1] = now_ns(CLOCK_THREAD_CPUTIME_ID) - cpu[1];
	took[1] = now_ns(CLOCK_MONOTONIC) - took[1];
	must_sum(w, &t, sites, BIG);
	end_target(&t);
	printf("apply %s %llu %llu %llu %llu\n", w->name, took[0], cpu[0], took[1], cpu[1]);
}

static void apply(int rounds, int sites, int threads)
{
	const struct way two[] = {{"poke", call_sites, POKE}, {"uprobe", call_sites, UPROBE}};

	for (int r = 0; r < rounds; r++)
		for (size_t i = 0; i < ARRAY_SIZE(two); i++)
			if (progs[two[i].how] >= 0)
				apply_once(&two[i], sites, threads);
}

int main(int argc, char **argv)
{
	int n[3] = {};

	for (int i = 0; i < 3 && i + 2 < argc; i++)
		n[i] = atoi(argv[i + 2]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	load_programs();
	if (argc == 4 && !strcmp(argv[1], "cost") && n[0] > 0 && n[1] > 0)
		cost(n[0], n[1]);
	else if (argc == 5 && !strcmp(argv[1], "apply") && n[0] > 0 && n[1] > 0 &&
		 n[1] <= SITES && n[2] > 0)
		apply(n[0], n[1], n[2]);
	else
		errx(2, "usage: calls cost ROUNDS N | apply ROUNDS SITES THREADS");
	return 0;
}
