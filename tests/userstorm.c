// SPDX-License-Identifier: GPL-2.0-only
/*
 * Threads that call a function, with signals, other stacks and a debugger, while it is patched,
 * changed and restored; and uprobes beside a patch. A result is the function's, or that of one
 * of the two programs, and at the end all bytes are as they were.
 *
 *   userstorm storm ROUNDS [SECONDS]	links come and go while threads call
 *   userstorm step|probes [TEST]
 *
 * Lines of "ok" and "not ok"; exit 1 after one of the latter.
 */
#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <sys/user.h>
#include <time.h>
#include <ucontext.h>

#include "userlink.h"

FUNCTION(with_endbr, "endbr64; push %rbx; lea 7(%rdi), %rax; pop %rbx; ret");

#define REST 182	/* weigh(a, 2, 3, 4, 5, 6) is a + REST */
#define ADDED 1000
#define RETURNED 5

static int load_add(void)
{
	return LOAD(LDX(BPF_DW, 2, 1, 0), ALU_K(BPF_ALU64, BPF_ADD, 2, ADDED),
		    STX(BPF_DW, 1, 2, 0), CONTINUE);
}

/* --- storm */

static struct storm {
	volatile bool stop;
	__u64 plain, added, returned, wrong, signals, switches;
} *storm;

static void call_once(__u64 a)
{
	__u64 r = weigh(a, 2, 3, 4, 5, 6);

	if (r == a + REST)
		__atomic_add_fetch(&storm->plain, 1, __ATOMIC_RELAXED);
	else if (r == a + REST + ADDED)
		__atomic_add_fetch(&storm->added, 1, __ATOMIC_RELAXED);
	else if (r == RETURNED)
		__atomic_add_fetch(&storm->returned, 1, __ATOMIC_RELAXED);
	else
		__atomic_add_fetch(&storm->wrong, 1, __ATOMIC_RELAXED);
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	__atomic_add_fetch(&storm->signals, 1, __ATOMIC_RELAXED);
	call_once(sig * 0x100000);
}

static __thread ucontext_t here, there;

static void on_other_stack(void)
{
	for (__u64 i = 0;; i++) {
		call_once(i * 0x10000);
		__atomic_add_fetch(&storm->switches, 1, __ATOMIC_RELAXED);
		swapcontext(&there, &here);
	}
}

static void *caller(void *arg)
{
	stack_t alt = { .ss_sp = malloc(65536), .ss_size = 65536 };

	sigaltstack(&alt, NULL);
	getcontext(&there);
	there.uc_stack.ss_sp = malloc(65536);
	there.uc_stack.ss_size = 65536;
	makecontext(&there, on_other_stack, 0);
	for (__u64 i = 0; !storm->stop; i++) {
		for (int k = 0; k < 8; k++)
			call_once(i * 8 + k + 0x100);
		swapcontext(&here, &there);
	}
	return NULL;
}

static __u64 do_storm(void)
{
	struct sigaction sa = { .sa_sigaction = on_signal,
				.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };
	const struct itimerval often = { { 0, 2000 }, { 0, 2000 } }, never = {};
	int n = 2 * sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t threads[64];

	sigaction(SIGPROF, &sa, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	setitimer(ITIMER_PROF, &often, NULL);
	n = n > 64 ? 64 : n;
	for (int i = 0; i < n; i++)
		if (pthread_create(&threads[i], NULL, caller, NULL))
			err(2, "thread");
	while (!storm->stop) {
		for (int i = 0; i < n; i++)
			pthread_kill(threads[i], SIGUSR1);
		usleep(3000);
	}
	for (int i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	setitimer(ITIMER_PROF, &never, NULL);
	return 0;
}

static int rounds, seconds = 86400;

static void test_storm(void)
{
	int add = load_add(), ret = LOAD(ST(BPF_DW, 1, CTX(ret), RETURNED), RETURN), link;
	__u64 traps = 0, patched;
	time_t end = time(NULL) + seconds;
	struct target t;
	int i;

	storm = mmap(NULL, sizeof(*storm), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	t = start_target();
	tell(&t, do_storm);
	while (!storm->plain)
		usleep(1000);
	/* else it waits for its turn among the threads, with nothing patched */
	sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){ .sched_priority = 1 });
	for (i = 0; i < rounds && !test_failures && time(NULL) < end; i++) {
		link = attach(add, t.pidfd, weigh);
		is("update", bpf_link_update(link, ret, NULL), 0);
		is("update", bpf_link_update(link, add, NULL), 0);
		if (i % 2)
			bpf_link_detach(link);
		traps += link_info(link).text_poke.trap_hits;
		close(link);
		if (waitpid(t.pid, NULL, WNOHANG) || storm->wrong)
			break;
	}
	storm->stop = true;
	is("threads", answer(&t), 0);
	is("wrong results", storm->wrong, 0);
	check(storm->plain && storm->added && storm->returned && storm->signals && storm->switches,
	      "%llu plain, %llu added, %llu returned, %llu signals, %llu switches", storm->plain,
	      storm->added, storm->returned, storm->signals, storm->switches);
	/* a trap may come between the last look at the counter and the end of the link */
	patched = storm->added + storm->returned;
	check(traps && traps <= patched + storm->plain, "%llu traps for %llu patched calls", traps,
	      patched);
	check(text_is_files(t.pid, weigh), "text");
	is("images", count_maps(t.pid, "bpf_user_patch"), 1);
	printf("# %d rounds: %llu plain, %llu added, %llu returned, %llu signals, %llu switches\n",
	       i, storm->plain, storm->added, storm->returned, storm->signals,
	       storm->switches);
}

/* --- single steps */

static void stop_target(pid_t pid)
{
	int status;

	if (ptrace(PTRACE_SEIZE, pid, 0, 0) || ptrace(PTRACE_INTERRUPT, pid, 0, 0) ||
	    waitpid(pid, &status, 0) != pid)
		err(2, "ptrace");
}

static __u64 step_target(pid_t pid)
{
	struct user_regs_struct regs;
	int status;

	if (ptrace(PTRACE_SINGLESTEP, pid, 0, 0) || waitpid(pid, &status, 0) != pid)
		err(2, "step");
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) {
		check(false, "status %#x", status);
		_exit(1);
	}
	if (ptrace(PTRACE_GETREGS, pid, 0, &regs))
		err(2, "registers");
	return regs.rip;
}

/* The target is stopped at the entry of weigh(). */
static void stop_at_entry(const struct target *t, __u64 a)
{
	stop_target(t->pid);
	tell(t, weigh, a, 2, 3, 4, 5, 6);
	for (int i = 0; i < 5000; i++)
		if (step_target(t->pid) == ADDR(weigh))
			return;
	errx(2, "it does not come to the function");
}

static bool inside(__u64 ip, __u64 start, __u64 len)
{
	return ip - start < len;
}

enum { DETACH, UPDATE, NOTHING };

/* After @n steps from the entry something happens to the link; false: it had returned. */
static bool after_steps(const struct target *t, int add, int ret, int n, int what)
{
	int link = attach(add, t->pidfd, weigh), images = 0;
	__u64 image = link_info(link).text_poke.image_vaddr, ip = ADDR(weigh), r;
	bool in = true;

	stop_at_entry(t, 1);
	for (int i = 0; i < n && in; i++) {
		ip = step_target(t->pid);
		in = inside(ip, ADDR(weigh), TEXT) || inside(ip, image, 64 * PAGE);
		images += inside(ip, image, 64 * PAGE);
	}
	if (what == DETACH)
		is("detach", bpf_link_detach(link), 0);
	else if (what == UPDATE)
		is("update", bpf_link_update(link, ret, NULL), 0);
	if (ptrace(PTRACE_DETACH, t->pid, 0, 0))
		err(2, "ptrace");
	r = answer(t);
	if (what == NOTHING || !in)
		is("all of the program", r, 1 + REST + ADDED);
	else
		check(r == 1 + REST + ADDED || r == (what == UPDATE ? RETURNED : 1 + REST),
		      "%d steps, at %#llx: %llu", n, ip, r);
	if (what == NOTHING)
		check(images > 20, "%d steps in the image", images);
	if (what == NOTHING || !in)
		is("traps", link_info(link).text_poke.trap_hits, 1);
	close(link);
	check(text_is_files(t->pid, weigh), "text after %d steps", n);
	is("afterwards", ask(t, weigh, 1, 2, 3, 4, 5, 6), 1 + REST);
	return in && !test_failures;
}

static void test_step(void)
{
	int add = load_add(), ret = LOAD(ST(BPF_DW, 1, CTX(ret), RETURNED), RETURN), n;
	struct target t = start_target();

	after_steps(&t, add, ret, 5000, NOTHING);
	for (n = 0; after_steps(&t, add, ret, n, DETACH); n += n ? scaled(30) / 10 ?: 7 : 1)
		;
	check(n > 50, "only %d steps", n);
	for (n = 0; after_steps(&t, add, ret, n, UPDATE); n += 7)
		;
}

/* A debugger's breakpoint behind the entry, and its registers. */
static void test_debugger(void)
{
	struct target t = start_target();
	static const __u8 int3 = 0xcc;
	int link = attach(load_add(), t.pidfd, weigh), status;
	struct user_regs_struct regs;
	__u8 lea;

	peek(t.pid, (__u8 *)weigh + 1, &lea, 1);
	if (ptrace(PTRACE_SEIZE, t.pid, 0, 0))
		err(2, "ptrace");
	check(poke(t.pid, (__u8 *)weigh + 1, &int3, 1), "breakpoint");
	tell(&t, weigh, 1, 2, 3, 4, 5, 6);
	waitpid(t.pid, &status, 0);
	check(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP, "status %#x", status);
	ptrace(PTRACE_GETREGS, t.pid, 0, &regs);
	is("ip", regs.rip, ADDR(weigh) + 2);
	is("argument", regs.rdi, 1 + ADDED);
	poke(t.pid, (__u8 *)weigh + 1, &lea, 1);
	regs.rip--;
	ptrace(PTRACE_SETREGS, t.pid, 0, &regs);
	ptrace(PTRACE_DETACH, t.pid, 0, 0);
	is("result", answer(&t), 1 + REST + ADDED);
	is("traps", link_info(link).text_poke.trap_hits, 1);
	close(link);
	check(text_is_files(t.pid, weigh), "text");
	is("afterwards", ask(&t, weigh, 1, 2, 3, 4, 5, 6), 1 + REST);
}

/* --- uprobes and hardware breakpoints */

static int perf_open(struct perf_event_attr *attr, pid_t pid, int cpu)
{
	int fd;

	attr->size = sizeof(*attr);
	fd = syscall(SYS_perf_event_open, attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
	if (fd < 0)
		err(2, "perf event");
	return fd;
}

static int uprobe(const void *fn, int off, pid_t pid, int cpu)
{
	struct perf_event_attr attr = {};
	struct object obj;
	FILE *f = fopen("/sys/bus/event_source/devices/uprobe/type", "r");
	int fd;

	if (!f || fscanf(f, "%u", &attr.type) != 1)
		errx(2, "no uprobes");
	fclose(f);
	find_object(fn, &obj);
	attr.uprobe_path = ADDR(obj.path);
	attr.probe_offset = obj.offset + off;
	fd = perf_open(&attr, pid, cpu);
	close(obj.fd);
	return fd;
}

static __u64 count_of(int fd)
{
	__u64 n = 0;

	if (read(fd, &n, sizeof(n)) != sizeof(n))
		err(2, "counter");
	return n;
}

static __u64 call_weigh(const struct target *t)
{
	return ask(t, weigh, 1, 2, 3, 4, 5, 6);
}

#define PLAIN (1 + REST)
#define PATCHED (1 + REST + ADDED)

static void test_uprobe_first(void)
{
	struct target t = start_target();
	int prog = load_add(), probe = uprobe(weigh, 0, t.pid, -1), link;

	is("probed", call_weigh(&t), PLAIN);
	is("probe", count_of(probe), 1);
	fails("a probed function", try_attach(prog, t.pidfd, weigh), EBUSY);
	is("probed", call_weigh(&t), PLAIN);
	is("probe", count_of(probe), 2);
	close(probe);
	link = attach(prog, t.pidfd, weigh);
	is("patched", call_weigh(&t), PATCHED);
	close(link);
	is("closed", call_weigh(&t), PLAIN);
	check(text_is_files(t.pid, weigh), "text");
}

static void test_uprobe_later(void)
{
	struct target t = start_target(), other = start_target();
	cpu_set_t cpu;
	int prog = load_add(), link = attach(prog, t.pidfd, weigh), probe;

	CPU_ZERO(&cpu);
	CPU_SET(0, &cpu);
	sched_setaffinity(t.pid, sizeof(cpu), &cpu);
	sched_setaffinity(other.pid, sizeof(cpu), &cpu);
	probe = uprobe(weigh, 0, -1, 0);
	is("patched", call_weigh(&t), PATCHED);
	is("probe", count_of(probe), 0);
	is("another process", call_weigh(&other), PLAIN);
	is("probe", count_of(probe), 1);
	close(probe);
	check(text_is_patched(t.pid, weigh, 0), "text, without the probe");
	check(text_is_files(other.pid, weigh), "text of another process");
	is("patched", call_weigh(&t), PATCHED);
	is("traps", link_info(link).text_poke.trap_hits, 2);

	/* the patch goes first */
	probe = uprobe(weigh, 0, -1, 0);
	close(link);
	is("closed", call_weigh(&t), PLAIN);
	close(probe);
	is("without the probe", call_weigh(&t), PLAIN);
	check(text_is_files(t.pid, weigh), "text");
	link = attach(prog, t.pidfd, weigh);
	is("patched", call_weigh(&t), PATCHED);
}

/* Behind the instruction that was moved: both, in whatever order they come and go. */
static void test_uprobe_behind(void)
{
	struct target t = start_target();
	int prog = load_add();

	for (int order = 0; order < 4; order++) {
		int probe = order & 1 ? uprobe(weigh, 1, t.pid, -1) : -1;
		int link = attach(prog, t.pidfd, weigh);

		if (probe < 0)
			probe = uprobe(weigh, 1, t.pid, -1);
		for (int i = 1; i <= 5; i++) {
			is("both", call_weigh(&t), PATCHED);
			is("probe", count_of(probe), i);
			is("traps", link_info(link).text_poke.trap_hits, i);
		}
		if (order & 2) {
			close(link);
			is("probe alone", call_weigh(&t), PLAIN);
			is("probe", count_of(probe), 6);
			close(probe);
		} else {
			close(probe);
			is("patch alone", call_weigh(&t), PATCHED);
			is("traps", link_info(link).text_poke.trap_hits, 6);
			close(link);
		}
		is("neither", call_weigh(&t), PLAIN);
		check(text_is_files(t.pid, weigh), "text, order %d", order);
	}
}

/* An endbr64 stays where it is, and can have a probe. */
static void test_uprobe_endbr(void)
{
	struct target t = start_target();
	int link = attach(load_add(), t.pidfd, with_endbr);
	int probe = uprobe(with_endbr, 0, t.pid, -1);

	is("both", ask(&t, with_endbr, 1), 1 + 7 + ADDED);
	is("probe", count_of(probe), 1);
	is("traps", link_info(link).text_poke.trap_hits, 1);
	close(probe);
	is("patch", ask(&t, with_endbr, 1), 1 + 7 + ADDED);
	close(link);
	is("neither", ask(&t, with_endbr, 1), 1 + 7);
	check(text_is_files(t.pid, with_endbr), "text");
}

/* What a fork does with both. */
static __u64 do_fork_call(void)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(weigh(1, 2, 3, 4, 5, 6) != PATCHED);
	waitpid(pid, &status, 0);
	return status;
}

static void test_uprobe_fork(void)
{
	struct target t = start_target();
	int link = attach(load_add(), t.pidfd, weigh), probe = uprobe(weigh, 1, t.pid, -1);

	is("child", ask(&t, do_fork_call), 0);
	is("traps", link_info(link).text_poke.trap_hits, 1);
	is("parent", call_weigh(&t), PATCHED);
	is("probe", count_of(probe), 1);
	close(link);
	close(probe);
	is("closed", call_weigh(&t), PLAIN);
	check(text_is_files(t.pid, weigh), "text");
}

static void test_breakpoint(void)
{
	struct target t = start_target();
	int link = attach(load_add(), t.pidfd, weigh), probe;
	struct perf_event_attr attr = {
		.type = PERF_TYPE_BREAKPOINT, .bp_type = HW_BREAKPOINT_X,
		.bp_addr = ADDR(weigh), .bp_len = sizeof(long),
	};

	probe = perf_open(&attr, t.pid, -1);
	for (int i = 1; i <= 5; i++) {
		is("both", call_weigh(&t), PATCHED);
		is("breakpoint", count_of(probe), i);
		is("traps", link_info(link).text_poke.trap_hits, i);
	}
	close(link);
	is("breakpoint alone", call_weigh(&t), PLAIN);
	is("breakpoint", count_of(probe), 6);
}

static const struct test tests[] = {
	{ "storm", "calls, signals and stacks", test_storm },
	{ "step", "single steps", test_step },
	{ "step", "debugger", test_debugger },
	{ "probes", "uprobe first", test_uprobe_first },
	{ "probes", "uprobe later", test_uprobe_later },
	{ "probes", "uprobe behind it", test_uprobe_behind },
	{ "probes", "uprobe on endbr64", test_uprobe_endbr },
	{ "probes", "uprobe and fork", test_uprobe_fork },
	{ "probes", "hardware breakpoint", test_breakpoint },
};

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "storm")) {
		rounds = atoi(argv[2]);
		if (argc > 3)
			seconds = atoi(argv[3]);
		argc = 2;
	}
	return run_tests(tests, ARRAY_SIZE(tests), argc, argv);
}
