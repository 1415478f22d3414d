/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of patched processes share. A target is a fork of the test, which has its
 * functions at the same addresses and calls those that it is asked to.
 */
#ifndef USERLINK_H
#define USERLINK_H

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "insn.h"
#include "userload.h"

#define CTX(field) offsetof(struct bpf_user_patch_ctx, field)
#define ARRAY_SIZE(a) (sizeof(a) / sizeof(*(a)))
#define ADDR(p) ((__u64)(unsigned long)(p))
#define PAGE 4096ul

/* --- results. A test is a process of its own: "ok" is said of one without "not ok". */

static const char *test_name = "";
static int test_failures;

__attribute__((format(printf, 2, 3)))
static bool check(bool ok, const char *fmt, ...)
{
	va_list args;

	if (ok)
		return true;
	test_failures++;
	printf("not ok: %s: ", test_name);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	return false;
}

static inline bool is(const char *what, __u64 got, __u64 want)
{
	return check(got == want, "%s: %#" PRIx64 ", not %#" PRIx64, what, (uint64_t)got,
		     (uint64_t)want);
}

/* An error as system calls of libbpf return it: 0 or an fd, or -errno. */
static inline bool fails(const char *what, int got, int want)
{
	return check(got == -want, "%s: %s, not %s", what, got < 0 ? strerror(-got) : "done",
		     strerror(want));
}

struct test {
	const char *verb, *name;
	void (*run)(void);
};

static volatile pid_t running;

/* Not to leave a group of processes behind, which would keep the output open. */
static void on_term(int sig)
{
	if (running > 0)
		kill(-running, SIGKILL);
	_exit(128 + sig);
}

static bool run_test(const struct test *test)
{
	int status;
	pid_t pid;

	fflush(stdout);
	signal(SIGTERM, on_term);
	pid = running = fork();
	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		signal(SIGTERM, SIG_DFL);
		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		test_name = test->name;
		test->run();
		if (!test_failures)
			printf("ok: %s\n", test->name);
		fflush(stdout);
		_exit(!!test_failures);
	}
	if (waitpid(pid, &status, 0) != pid)
		err(1, "wait");
	kill(-pid, SIGKILL);	/* what it has left */
	if (WIFSIGNALED(status))
		printf("not ok: %s: %s\n", test->name, strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status) > 1)
		printf("not ok: %s: exit %d\n", test->name, WEXITSTATUS(status));
	return !status;
}

/* PROGRAM VERB [NAME]: those of the verb, or the one that is called that */
static inline int run_tests(const struct test *tests, size_t n, int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "", *name = argc > 2 ? argv[2] : NULL;
	int found = 0, bad = 0;

	for (size_t i = 0; i < n; i++) {
		if (strcmp(tests[i].verb, verb) || (name && strcmp(tests[i].name, name)))
			continue;
		found++;
		bad += !run_test(&tests[i]);
	}
	if (found)
		return !!bad;
	fprintf(stderr, "usage: %s VERB [NAME]; verbs:", argv[0]);
	for (size_t i = 0; i < n; i++)
		if (!i || strcmp(tests[i - 1].verb, tests[i].verb))
			fprintf(stderr, " %s", tests[i].verb);
	fputc('\n', stderr);
	return 2;
}

/* How much of a loop fits the machine: all on the release kernel, less on the debug one. */
static inline int scaled(int n)
{
	const char *f = getenv("TIMEOUT_FACTOR");

	return f && atoi(f) > 3 ? n / 10 ?: 1 : n;
}

/* --- programs */

static inline int load_insns(const struct bpf_insn *insns, size_t n)
{
	static char log[1 << 16];
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = BPF_USER_PATCH,
		    .log_buf = log, .log_size = sizeof(log));
	int fd = bpf_prog_load(BPF_PROG_TYPE_USER_PATCH, "test", "GPL", insns, n, &opts);

	if (fd < 0)
		err(2, "load\n%s", log);
	return fd;
}

#define LOAD(...) ({ \
	const struct bpf_insn insns_[] = { __VA_ARGS__ }; \
	load_insns(insns_, ARRAY_SIZE(insns_)); })

#define CONTINUE MOV_K(0, 0), EXIT
#define RETURN	 MOV_K(0, 1), EXIT

/* Changes nothing, but each register that a program has. */
static inline int load_nothing(void)
{
	return LOAD(MOV_K(1, -1), MOV_K(2, -2), MOV_K(3, -3), MOV_K(4, -4), MOV_K(5, -5),
		    MOV_K(6, -6), MOV_K(7, -7), MOV_K(8, -8), MOV_K(9, -9),
		    ST(BPF_DW, 10, -256, -1), ST(BPF_DW, 10, -8, -1), CONTINUE);
}

static inline int load_return(__s32 value)
{
	return LOAD(ST(BPF_DW, 1, CTX(ret), value), RETURN);
}

/* --- the object that a function of this program is in, and links to it */

struct object {
	char path[512];
	__u64 offset;
	int fd;
};

static inline bool find_object(const void *addr, struct object *obj)
{
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned long start, end, off;
	bool found = false;
	char line[1024];

	if (!f)
		err(2, "maps");
	while (!found && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx %*s %lx %*s %*s %511s", &start, &end, &off,
			   obj->path) != 4 || ADDR(addr) < start || ADDR(addr) >= end)
			continue;
		obj->offset = off + (ADDR(addr) - start);
		found = true;
	}
	fclose(f);
	obj->fd = found ? open(obj->path, O_RDONLY | O_CLOEXEC) : -1;
	return obj->fd >= 0;
}

static inline int attach_opts(int prog, int pidfd, const void *fn,
			      const struct bpf_link_create_opts *add)
{
	struct bpf_link_create_opts opts = *add;
	struct object obj;
	int fd;

	if (!find_object(fn, &obj))
		errx(2, "%p is in no file", fn);
	opts.sz = sizeof(opts);
	if (!opts.text_poke.offset)
		opts.text_poke.offset = obj.offset;
	opts.text_poke.path_fd = obj.fd;
	opts.text_poke.flags |= BPF_F_USER_PATCH_PATH_FD;
	fd = bpf_link_create(prog, pidfd, BPF_USER_PATCH, &opts);
	close(obj.fd);
	return fd;
}

/* Attach @prog to @fn of a process, with fields of text_poke: a link, or -errno. */
#define try_attach(prog, pidfd, fn, ...) \
	attach_opts(prog, pidfd, (const void *)(fn), &(struct bpf_link_create_opts){ \
		.sz = sizeof(struct bpf_link_create_opts), __VA_ARGS__ })

#define attach(...) ({ \
	int link_ = try_attach(__VA_ARGS__); \
	if (link_ < 0) { \
		check(false, "line %d: attach: %s", __LINE__, strerror(-link_)); \
		_exit(1); \
	} \
	link_; })

static inline struct bpf_link_info link_info(int link)
{
	struct bpf_link_info info = {};
	__u32 len = sizeof(info);

	if (bpf_link_get_info_by_fd(link, &info, &len))
		err(2, "info of a link");
	return info;
}

/* --- targets */

/* What targets call, and tests patch. */
typedef __u64 function(__u64 a, __u64 b, __u64 c, __u64 d, __u64 e, __u64 f);

struct args {
	__u64 v[6];
};

struct call {
	function *fn;
	struct args args;
};

struct target {
	pid_t pid;
	int pidfd, to, from;
};

static inline void serve(int from, int to)
{
	struct call c;
	__u64 *a = c.args.v, r;

	alarm(1800);
	while (read(from, &c, sizeof(c)) == sizeof(c)) {
		r = c.fn(a[0], a[1], a[2], a[3], a[4], a[5]);
		if (write(to, &r, sizeof(r)) != sizeof(r))
			break;
	}
	_exit(0);
}

static inline struct target start_target(void)
{
	int to[2], from[2];
	struct target t;

	if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
		err(2, "pipe");
	fflush(stdout);
	t.pid = fork();
	if (t.pid < 0)
		err(2, "fork");
	if (!t.pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(to[1]);
		close(from[0]);
		serve(to[0], from[1]);
	}
	close(to[0]);
	close(from[1]);
	t.to = to[1];
	t.from = from[0];
	t.pidfd = syscall(SYS_pidfd_open, t.pid, 0);
	if (t.pidfd < 0)
		err(2, "pidfd");
	return t;
}

static inline void tell_args(const struct target *t, void *fn, struct args args)
{
	struct call c = { .fn = fn, .args = args };

	if (write(t->to, &c, sizeof(c)) != sizeof(c))
		err(2, "ask");
}

static inline __u64 answer(const struct target *t)
{
	int status;
	__u64 r;

	if (read(t->from, &r, sizeof(r)) == sizeof(r))
		return r;
	waitpid(t->pid, &status, 0);
	check(false, "the target died: %s",
	      WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "exit");
	_exit(1);
}

static inline __u64 ask_args(const struct target *t, void *fn, struct args args)
{
	tell_args(t, fn, args);
	return answer(t);
}

/* Have the target call @fn, and wait for its result or not. */
#define ask(t, fn, ...) ask_args(t, (void *)(fn), (struct args){ { __VA_ARGS__ } })
#define tell(t, fn, ...) tell_args(t, (void *)(fn), (struct args){ { __VA_ARGS__ } })

static inline void end_target(struct target *t)
{
	int status;

	kill(t->pid, SIGKILL);
	waitpid(t->pid, &status, 0);
	close(t->pidfd);
	close(t->to);
	close(t->from);
}

static inline bool peek(pid_t pid, const void *addr, void *buf, size_t len)
{
	char path[64];
	int fd;
	bool ok;

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ok = pread(fd, buf, len, (off_t)ADDR(addr)) == (ssize_t)len;
	close(fd);
	return ok;
}

/* Only for who traces it: where that is not the caller, it is for a moment. */
static inline bool poke(pid_t pid, void *addr, const void *buf, size_t len)
{
	bool traced = !ptrace(PTRACE_SEIZE, pid, 0, 0), ok;
	char path[64];
	int fd;

	if (traced && (ptrace(PTRACE_INTERRUPT, pid, 0, 0) || waitpid(pid, NULL, 0) != pid))
		err(2, "ptrace");
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ok = pwrite(fd, buf, len, (off_t)ADDR(addr)) == (ssize_t)len;
	close(fd);
	if (traced && ptrace(PTRACE_DETACH, pid, 0, 0))
		err(2, "ptrace");
	return ok;
}

#define TEXT 64		/* bytes of a function that are looked at */

/* Is the text at @fn in process @pid as it is in the file? */
static inline bool text_is_files(pid_t pid, const void *fn)
{
	__u8 now[TEXT], file[TEXT];
	struct object obj;
	bool same;

	if (!find_object(fn, &obj))
		return false;
	same = peek(pid, fn, now, TEXT) && pread(obj.fd, file, TEXT, obj.offset) == TEXT &&
	       !memcmp(now, file, TEXT);
	close(obj.fd);
	return same;
}

/* As in the file, but for a trap at @skip. */
static inline bool text_is_patched(pid_t pid, const void *fn, int skip)
{
	__u8 now[TEXT], file[TEXT];
	struct object obj;
	bool same;

	if (!find_object(fn, &obj))
		return false;
	same = peek(pid, fn, now, TEXT) && pread(obj.fd, file, TEXT, obj.offset) == TEXT;
	close(obj.fd);
	same = same && file[skip] != 0xcc;
	file[skip] = 0xcc;
	return same && !memcmp(now, file, TEXT);
}

/* Lines of /proc/PID/maps, or of those with @word. */
static inline int count_maps(pid_t pid, const char *word)
{
	char path[64], line[1024];
	int n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	f = fopen(path, "r");
	if (!f)
		err(2, "%s", path);
	while (fgets(line, sizeof(line), f))
		n += !word || strstr(line, word);
	fclose(f);
	return n;
}

/* --- functions to patch. A section of their own: the test itself does not run there. */

#define ASM_FUNCTION(name, code) \
	".pushsection .text.patched, \"ax\"\n" \
	".balign 16\n" \
	".globl " #name "\n" \
	".type " #name ", @function\n" \
	#name ":\n" code "\n" \
	".size " #name ", . - " #name "\n" \
	".popsection\n"

#define FUNCTION(name, code) \
	function name; \
	asm(ASM_FUNCTION(name, code))

/* a + 3b + 5c + 7d + 11e + 13f: each argument is to be seen in it */
FUNCTION(weigh,
	 "	push %rbx\n"
	 "	lea (%rsi,%rsi,2), %rax; add %rdi, %rax\n"
	 "	lea (%rdx,%rdx,4), %rbx; add %rbx, %rax\n"
	 "	imul $7, %rcx, %rbx; add %rbx, %rax\n"
	 "	imul $11, %r8, %rbx; add %rbx, %rax\n"
	 "	imul $13, %r9, %rbx; add %rbx, %rax\n"
	 "	pop %rbx\n"
	 "	ret");

#endif
