// SPDX-License-Identifier: GPL-2.0-only
/*
 * Links that patch functions of a process: what they do and say, what they refuse, and what
 * becomes of them when the process forks, ends, or changes its mappings. The oracle is the
 * function itself, unpatched, and the file that it is in.
 *
 *   userlink basics|errors|mm|nomem|races [TEST]
 *   userlink hold		a link, described in a line, until stdin ends
 *   userlink refused ERRNO	an attach that the system does not allow
 *   userlink churn N		processes, links and images come and go: none is left
 *
 * Lines of "ok" and "not ok"; exit 1 after one of the latter.
 */
#include <dlfcn.h>
#include <elf.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/resource.h>

#include "fault.h"
#include "userlink.h"

#define GUARD 0x9000ul		/* of the arena: 32K that a 16-bit offset reaches, and a page */
#define IMAGE_PAGES 64

FUNCTION(entry_sp, "	mov %rsp, %rax\n	ret");
/* whose first instruction crosses a page; its second page may be missing */
asm(".pushsection .text.patched, \"ax\"\n"
	".balign 4096\n"
	".skip 4096 - 3\n"
	".globl crossing\n"
	".type crossing, @function\n"
	"crossing:	movabs $0x1122334455667788, %rax\n"
	"	add %rdi, %rax\n"
	"	ret\n"
	".size crossing, . - crossing\n"
	".popsection\n");
function crossing;

static int load_sum(void)
{
	/* args[0] += 1000 */
	return LOAD(LDX(BPF_DW, 2, 1, 0), ALU_K(BPF_ALU64, BPF_ADD, 2, 1000),
		    STX(BPF_DW, 1, 2, 0), CONTINUE);
}

/* Adds 1 to a word of the arena, and 1000 to the first argument. */
static int load_counter(int arena)
{
	return LOAD(LD_IMM64(9, BPF_PSEUDO_MAP_FD, arena, 0), MOV_X(6, 1), MOV_K(2, 64),
		    CAST_KERN(2, 2), MOV_K(3, 1), ATOMIC(BPF_DW, BPF_ADD, 2, 3, 0),
		    LDX(BPF_DW, 2, 6, 0), ALU_K(BPF_ALU64, BPF_ADD, 2, 1000),
		    STX(BPF_DW, 6, 2, 0), CONTINUE);
}

#define SIX 1, 2, 3, 4, 5, 6
#define WEIGHED 183ull		/* weigh(SIX) */

static bool calls_give(const struct target *t, const char *when, __u64 want)
{
	return is(when, ask(t, weigh, SIX), want);
}

static void is_unpatched(const struct target *t, const char *when)
{
	calls_give(t, when, WEIGHED);
	check(text_is_files(t->pid, weigh), "%s: text is not as in the file", when);
}

static __u32 link_state(int link)
{
	return link_info(link).text_poke.state;
}

static short link_poll(int link)
{
	struct pollfd p = { .fd = link, .events = POLLIN };

	if (poll(&p, 1, 0) < 0)
		err(2, "poll");
	return p.revents;
}

static void write_file(const char *path, const char *fmt, ...)
{
	va_list args;
	FILE *f = fopen(path, "w");

	if (!f)
		err(2, "%s", path);
	va_start(args, fmt);
	vfprintf(f, fmt, args);
	va_end(args);
	if (fclose(f))
		err(2, "%s", path);
}

static long read_number(const char *path)
{
	FILE *f = fopen(path, "r");
	long n;

	if (!f || fscanf(f, "%ld", &n) != 1)
		err(2, "%s", path);
	fclose(f);
	return n;
}

/* --- basics */

static void test_arguments(void)
{
	struct target t = start_target();
	int clamp = LOAD(LDX(BPF_DW, 2, 1, CTX(args[2])), JMP_K(BPF_JLE, 2, 64, 1),
			 ST(BPF_DW, 1, CTX(args[2]), 64), CONTINUE), link;

	calls_give(&t, "before", WEIGHED);
	link = attach(clamp, t.pidfd, weigh);
	is("large", ask(&t, weigh, 1, 2, 1000, 4, 5, 6), weigh(1, 2, 64, 4, 5, 6));
	is("small", ask(&t, weigh, 1, 2, 63, 4, 5, 6), weigh(1, 2, 63, 4, 5, 6));
	close(link);
	is("after", ask(&t, weigh, 1, 2, 1000, 4, 5, 6), weigh(1, 2, 1000, 4, 5, 6));

	for (int i = 0; i < 6; i++) {
		__u64 args[] = { SIX };
		int prog = LOAD(ST(BPF_DW, 1, CTX(args) + 8 * i, -77), CONTINUE);

		link = attach(prog, t.pidfd, weigh);
		args[i] = -77;
		is("replaced", ask(&t, weigh, SIX),
		   weigh(args[0], args[1], args[2], args[3], args[4], args[5]));
		close(link);
		close(prog);
	}
	is_unpatched(&t, "at the end");
}

static void test_results(void)
{
	struct target t = start_target();
	static const __s32 values[] = { 0, 1, -22, INT32_MIN, INT32_MAX };
	int link, prog;

	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		prog = load_return(values[i]);
		link = attach(prog, t.pidfd, weigh);
		calls_give(&t, "result", (__s64)values[i]);
		close(link);
		close(prog);
	}
	link = attach(LOAD(RETURN), t.pidfd, weigh);
	calls_give(&t, "none given", 0);
	close(link);
	/* a result without its verdict */
	link = attach(LOAD(ST(BPF_DW, 1, CTX(ret), 5), CONTINUE), t.pidfd, weigh);
	calls_give(&t, "function called", WEIGHED);
	close(link);
	is_unpatched(&t, "at the end");
}

static int load_field(int off)
{
	return LOAD(LDX(BPF_DW, 2, 1, off), STX(BPF_DW, 1, 2, CTX(ret)), RETURN);
}

static void test_context(void)
{
	struct target t = start_target();
	const __u64 cookie = 0xfedcba9876543210ull;
	__u64 sp = ask(&t, entry_sp, SIX);
	int link;

	for (int i = 0; i < 6; i++) {
		link = attach(load_field(CTX(args) + 8 * i), t.pidfd, weigh);
		is("argument", ask(&t, weigh, 11, 12, 13, 14, 15, 16), 11 + i);
		close(link);
	}
	link = attach(load_field(CTX(cookie)), t.pidfd, weigh, .text_poke.cookie = cookie);
	calls_give(&t, "cookie", cookie);
	close(link);
	link = attach(load_field(CTX(cookie)), t.pidfd, weigh, .text_poke.cookie = 5);
	calls_give(&t, "cookie of the next link", 5);
	close(link);
	link = attach(load_field(CTX(ip)), t.pidfd, weigh);
	calls_give(&t, "ip", ADDR(weigh));
	close(link);
	link = attach(load_field(CTX(ret)), t.pidfd, weigh);
	calls_give(&t, "ret", 0);
	close(link);
	link = attach(load_field(CTX(sp)), t.pidfd, entry_sp);
	is("sp", ask(&t, entry_sp, SIX), sp);
	close(link);
	is("sp, unpatched", ask(&t, entry_sp, SIX), sp);
}

static void test_counters(void)
{
	struct target t = start_target();
	int link = attach(load_sum(), t.pidfd, weigh);
	struct bpf_link_info info;

	for (int i = 1; i <= 100; i++) {
		calls_give(&t, "patched", WEIGHED + 1000);
		info = link_info(link);
		is("traps", info.text_poke.trap_hits, i);
	}
	is("faults", info.text_poke.faults, 0);
	is("skipped", info.text_poke.skipped, 0);
	is("interior", info.text_poke.interior_hits, 0);
	close(link);
	/* the next one counts from 0 */
	calls_give(&t, "unpatched", WEIGHED);
	link = attach(load_sum(), t.pidfd, weigh);
	is("traps of the next link", link_info(link).text_poke.trap_hits, 0);
	calls_give(&t, "patched", WEIGHED + 1000);
	is("traps of the next link", link_info(link).text_poke.trap_hits, 1);
}

static size_t own_build_id(__u8 *id)
{
	const Elf64_Phdr *ph = (const void *)getauxval(AT_PHDR);
	size_t n = getauxval(AT_PHNUM), len;
	unsigned long base = 0;

	for (size_t i = 0; i < n; i++)
		if (ph[i].p_type == PT_PHDR)
			base = (unsigned long)ph - ph[i].p_vaddr;
	for (size_t i = 0; i < n; i++) {
		const char *note = (const char *)base + ph[i].p_vaddr, *end = note + ph[i].p_filesz;

		if (ph[i].p_type != PT_NOTE)
			continue;
		while (note + sizeof(Elf64_Nhdr) < end) {
			const Elf64_Nhdr *nh = (const void *)note;
			const char *name = note + sizeof(*nh);
			const char *desc = name + ((nh->n_namesz + 3) & ~3u);

			if (nh->n_type == NT_GNU_BUILD_ID && !strcmp(name, "GNU")) {
				len = nh->n_descsz;
				memcpy(id, desc, len);
				return len;
			}
			note = desc + ((nh->n_descsz + 3) & ~3u);
		}
	}
	errx(2, "this program has no build ID");
}

static int info_with_path(int link, struct bpf_link_info *info, char *path, __u32 size)
{
	__u32 len = sizeof(*info);

	memset(info, 0, len);
	info->text_poke.path = ADDR(path);
	info->text_poke.path_size = size;
	return bpf_link_get_info_by_fd(link, info, &len);
}

static void test_info(void)
{
	struct target t = start_target();
	int prog = load_sum(), link = attach(prog, t.pidfd, weigh, .text_poke.cookie = 42);
	char path[512], line[512], what[64], text[512];
	struct bpf_prog_info prog_info = {};
	__u32 len = sizeof(prog_info);
	struct bpf_link_info info;
	struct object obj;
	__u8 id[64];
	FILE *f;

	find_object(weigh, &obj);
	calls_give(&t, "call", WEIGHED + 1000);
	is("info", info_with_path(link, &info, path, sizeof(path)), 0);
	bpf_prog_get_info_by_fd(prog, &prog_info, &len);
	is("type", info.type, BPF_LINK_TYPE_TEXT_POKE);
	is("prog", info.prog_id, prog_info.id);
	check(!strcmp(path, obj.path), "path: %s", path);
	is("path_size", info.text_poke.path_size, strlen(obj.path) + 1);
	is("pid", info.text_poke.pid, t.pid);
	is("offset", info.text_poke.offset, obj.offset);
	is("vaddr", info.text_poke.vaddr, ADDR(weigh));
	is("cookie", info.text_poke.cookie, 42);
	is("image_len", info.text_poke.image_len, IMAGE_PAGES * PAGE);
	is("flags", info.text_poke.flags, BPF_F_USER_PATCH_PATH_FD);
	is("mode", info.text_poke.mode, BPF_TEXT_POKE_TRAP);
	is("state", info.text_poke.state, BPF_TEXT_POKE_ATTACHED);
	is("nr_mm", info.text_poke.nr_mm, 1);
	is("nr_updates", info.text_poke.nr_updates, 0);
	is("build_id_sz", info.text_poke.build_id_sz, own_build_id(id));
	check(!memcmp(info.text_poke.build_id, id, info.text_poke.build_id_sz), "build_id");
	snprintf(line, sizeof(line), "%08lx-%08lx r-xp", (unsigned long)info.text_poke.image_vaddr,
		 (unsigned long)info.text_poke.image_vaddr + info.text_poke.image_len);
	is("image in maps", count_maps(t.pid, line), 1);

	is("without a buffer", info_with_path(link, &info, NULL, 0), 0);
	is("path_size alone", info.text_poke.path_size, strlen(obj.path) + 1);
	fails("buffer without its size", info_with_path(link, &info, path, 0), EINVAL);
	fails("size without a buffer", info_with_path(link, &info, NULL, 9), EINVAL);
	fails("a short buffer", info_with_path(link, &info, path, strlen(obj.path)), ENOSPC);
	fails("a bad buffer", info_with_path(link, &info, (char *)8, 512), EFAULT);

	snprintf(line, sizeof(line), "/proc/self/fdinfo/%d", link);
	f = fopen(line, "r");
	*text = 0;
	while (fgets(line, sizeof(line), f))
		if (strlen(text) + strlen(line) < sizeof(text))
			strcat(text, line);
	fclose(f);
	link_info(link);
#define HAS(fmt, ...) do { \
	snprintf(what, sizeof(what), fmt "\n", __VA_ARGS__); \
	check(strstr(text, what), "fdinfo lacks %s: %s", what, text); \
} while (0)
	HAS("link_type:\t%s", "text_poke");
	HAS("pid:\t%d", t.pid);
	HAS("offset:\t%#lx", (unsigned long)obj.offset);
	HAS("vaddr:\t%#lx", (unsigned long)ADDR(weigh));
	HAS("cookie:\t%d", 42);
	HAS("mode:\t%s", "trap");
	HAS("nr_mm:\t%d", 1);
	HAS("trap_hits:\t%d", 1);
	HAS("faults:\t%d", 0);
	HAS("skipped:\t%d", 0);
	check(strstr(text, obj.path), "fdinfo lacks the path: %s", text);
}

static void test_text(void)
{
	struct target other = start_target(), t = start_target();
	int link = attach(load_sum(), t.pidfd, weigh);

	check(text_is_patched(t.pid, weigh, 0), "no trap in the text, or more than that");
	check(text_is_files(other.pid, weigh), "a trap in another process");
	check(text_is_files(getpid(), weigh), "a trap in this process");
	calls_give(&other, "another process", WEIGHED);
	close(link);
	check(text_is_files(t.pid, weigh), "text is not as before");
	is_unpatched(&t, "afterwards");
}

static void test_poll(void)
{
	struct target t = start_target();
	int link = attach(load_sum(), t.pidfd, weigh);

	calls_give(&t, "patched", WEIGHED + 1000);
	is("poll", link_poll(link), 0);
	end_target(&t);
	is("poll when it has ended", link_poll(link), POLLHUP);
	is("state", link_state(link), BPF_TEXT_POKE_GONE);
	is("pid", link_info(link).text_poke.pid, 0);
	is("nr_mm", link_info(link).text_poke.nr_mm, 0);
	is("detach", bpf_link_detach(link), 0);
	is("state", link_state(link), BPF_TEXT_POKE_DETACHED);
}

/* Who waits in poll is woken. */
static void test_poll_wait(void)
{
	struct target t = start_target();
	int link = attach(load_sum(), t.pidfd, weigh);
	struct pollfd p = { .fd = link };
	pid_t killer;

	fflush(stdout);
	killer = fork();
	if (!killer) {
		usleep(100000);
		kill(t.pid, SIGKILL);
		_exit(0);
	}
	is("poll", poll(&p, 1, 60000), 1);
	is("event", p.revents, POLLHUP);
}

static void test_update(void)
{
	struct target t = start_target();
	int a = load_sum(), b = load_return(5);
	int link = attach(a, t.pidfd, weigh);
	LIBBPF_OPTS(bpf_link_update_opts, old, .old_prog_fd = a, .flags = BPF_F_REPLACE);
	const struct bpf_insn pass[] = { CONTINUE };
	int filter = bpf_prog_load(BPF_PROG_TYPE_SOCKET_FILTER, "test", "GPL", pass, 2, NULL);

	calls_give(&t, "first", WEIGHED + 1000);
	is("update", bpf_link_update(link, b, NULL), 0);
	calls_give(&t, "second", 5);
	is("updates", link_info(link).text_poke.nr_updates, 1);
	fails("of another program", bpf_link_update(link, b, &old), EPERM);
	calls_give(&t, "not replaced", 5);
	is("to itself", bpf_link_update(link, b, NULL), 0);
	is("updates", link_info(link).text_poke.nr_updates, 1);
	old.old_prog_fd = b;
	is("of this program", bpf_link_update(link, a, &old), 0);
	calls_give(&t, "back", WEIGHED + 1000);
	fails("of another type", bpf_link_update(link, filter, NULL), EINVAL);
	calls_give(&t, "after refusals", WEIGHED + 1000);

	is("detach", bpf_link_detach(link), 0);
	is_unpatched(&t, "detached");
	is("state", link_state(link), BPF_TEXT_POKE_DETACHED);
	fails("when detached", bpf_link_update(link, b, NULL), ENOLINK);
	is("detach again", bpf_link_detach(link), 0);
	is_unpatched(&t, "still");
}

static void test_killed(void)
{
	struct target t = start_target();
	int ready[2], prog = load_sum();
	pid_t holder;
	char c;

	if (pipe(ready))
		err(2, "pipe");
	fflush(stdout);
	holder = fork();
	if (!holder) {
		attach(prog, t.pidfd, weigh);
		(void)!write(ready[1], "", 1);
		pause();
	}
	close(ready[1]);
	if (!is("holder", read(ready[0], &c, 1), 1))
		return;
	calls_give(&t, "held", WEIGHED + 1000);
	kill(holder, SIGKILL);
	waitpid(holder, NULL, 0);
	is_unpatched(&t, "holder killed");
}

static void test_pinned(void)
{
	static const char pin[] = "/sys/fs/bpf/userlink";
	struct target t = start_target();
	int link = attach(load_sum(), t.pidfd, weigh);

	unlink(pin);
	is("pin", bpf_obj_pin(link, pin), 0);
	close(link);
	calls_give(&t, "pinned", WEIGHED + 1000);
	link = bpf_obj_get(pin);
	is("state", link_state(link), BPF_TEXT_POKE_ATTACHED);
	unlink(pin);
	calls_give(&t, "open", WEIGHED + 1000);
	close(link);
	is_unpatched(&t, "closed");
}

/* The image of a function is taken over by the next link to it. */
static void test_again(void)
{
	struct target t = start_target();
	int prog = load_sum(), link = attach(prog, t.pidfd, weigh), n, size;
	__u64 image = link_info(link).text_poke.image_vaddr;

	n = count_maps(t.pid, NULL);
	for (int i = scaled(2000); i > 0 && !test_failures; i--) {
		close(link);
		if (i % 100 == 0)
			is_unpatched(&t, "detached");
		link = attach(prog, t.pidfd, weigh);
		if (i % 100 == 0)
			calls_give(&t, "attached", WEIGHED + 1000);
	}
	size = count_maps(t.pid, NULL);
	is("mappings", size, n);
	is("image", link_info(link).text_poke.image_vaddr, image);
	close(link);
	is_unpatched(&t, "at the end");
}

static void test_update_often(void)
{
	struct target t = start_target();
	int progs[] = { load_sum(), load_return(5) };
	int link = attach(progs[0], t.pidfd, weigh);

	for (int i = 1; i <= 500 && !test_failures; i++) {
		is("update", bpf_link_update(link, progs[i % 2], NULL), 0);
		if (i % 25 == 0)
			calls_give(&t, "updated", i % 2 ? 5 : WEIGHED + 1000);
	}
	is("updates", link_info(link).text_poke.nr_updates, 500);
}

#define BODIES (IMAGE_PAGES - 2)

static void test_full(void)
{
	struct target t = start_target();
	int first = load_return(0), link = attach(first, t.pidfd, weigh), prog, e = 0, i;

	for (i = 1; i < BODIES + 5 && !e; i++) {
		prog = load_return(i);
		e = bpf_link_update(link, prog, NULL);
		close(prog);
		if (!e)
			calls_give(&t, "updated", i);
	}
	is("the image is full", e, -ENOSPC);
	is("at", i - 1, BODIES);
	calls_give(&t, "the last that had room", BODIES - 1);
	is("one that is there already", bpf_link_update(link, first, NULL), 0);
	calls_give(&t, "it", 0);
	close(link);
	is_unpatched(&t, "closed");
	link = attach(first, t.pidfd, weigh);
	calls_give(&t, "attached again", 0);
	close(link);
}

/* A full image is no reason to refuse the next link. */
static void test_full_again(void)
{
	struct target t = start_target();
	int prog, link;

	for (int i = 0; i < BODIES + 5 && !test_failures; i++) {
		prog = load_return(i);
		link = try_attach(prog, t.pidfd, weigh);
		if (check(link >= 0, "program %d: %s", i, strerror(-link)))
			calls_give(&t, "attached", i);
		close(link);
		close(prog);
	}
	is_unpatched(&t, "at the end");
}

static int load_long(int n)
{
	struct bpf_insn *insns = calloc(n + 2, sizeof(*insns));
	int fd;

	for (int i = 0; i < n; i++)
		insns[i] = MOV_K(2, -1 - i);	/* 7 bytes */
	insns[n] = MOV_K(0, 1);
	insns[n + 1] = EXIT;
	fd = load_insns(insns, n + 2);
	free(insns);
	return fd;
}

static void test_long(void)
{
	struct target t = start_target();
	int some = load_long(3000), most = load_long(35000), more = load_long(37000), link;

	fails("longer than the image", try_attach(more, t.pidfd, weigh), E2BIG);
	is_unpatched(&t, "refused");
	link = attach(some, t.pidfd, weigh);
	calls_give(&t, "several pages", 0);
	fails("update to one that is longer", bpf_link_update(link, more, NULL), E2BIG);
	fails("update to one that has no room", bpf_link_update(link, most, NULL), ENOSPC);
	calls_give(&t, "several pages", 0);
	close(link);
	is_unpatched(&t, "closed");
	end_target(&t);
	t = start_target();
	link = attach(most, t.pidfd, weigh);
	calls_give(&t, "all of the image", 0);
	close(link);
	is_unpatched(&t, "closed");
}

/* Two functions of one process, two links; and one function of two processes. */
static void test_several(void)
{
	struct target t = start_target(), u = start_target();
	int sum = load_sum(), ret = load_return(5);
	int a = attach(sum, t.pidfd, weigh), b = attach(ret, t.pidfd, entry_sp);
	int c = attach(ret, u.pidfd, weigh);

	calls_give(&t, "first function", WEIGHED + 1000);
	is("second function", ask(&t, entry_sp, SIX), 5);
	calls_give(&u, "second process", 5);
	close(a);
	calls_give(&t, "first function, closed", WEIGHED);
	is("second function", ask(&t, entry_sp, SIX), 5);
	calls_give(&u, "second process", 5);
	close(b);
	close(c);
	is_unpatched(&t, "first");
	is_unpatched(&u, "second");
}

/* Of this process itself. */
static void test_self(void)
{
	int self = syscall(SYS_pidfd_open, getpid(), 0), link = attach(load_sum(), self, weigh);

	is("patched", weigh(SIX), WEIGHED + 1000);
	close(link);
	is("closed", weigh(SIX), WEIGHED);
}

/* Somebody has changed the byte since: it is left alone. */
static void test_residual(void)
{
	struct target t = start_target();
	int link = attach(load_sum(), t.pidfd, weigh);
	static const __u8 nop = 0x90;
	__u8 push, now;

	peek(getpid(), weigh, &push, 1);
	check(poke(t.pid, weigh, &nop, 1), "cannot write");
	is("detach", bpf_link_detach(link), 0);
	is("state", link_state(link), BPF_TEXT_POKE_RESIDUAL);
	peek(t.pid, weigh, &now, 1);
	is("byte", now, nop);
	poke(t.pid, weigh, &push, 1);
	is_unpatched(&t, "byte back");
}

static void test_arena(void)
{
	int arena = arena_create(ARENA_START), prog = load_counter(arena), link;
	struct target t = start_target();
	__u64 *words = arena_map(arena, ARENA_START);

	words[8] = 100;
	link = attach(prog, t.pidfd, weigh);
	for (int i = 0; i < 10; i++)
		calls_give(&t, "patched", WEIGHED + 1000);
	is("counter", words[8], 110);
	is("guards", count_maps(t.pid, "[bpf_arena_guard]"), 2);
	close(link);
	is_unpatched(&t, "closed");
	link = attach(prog, t.pidfd, weigh);
	is("guards, as before", count_maps(t.pid, "[bpf_arena_guard]"), 2);
	calls_give(&t, "patched", WEIGHED + 1000);
	is("counter", words[8], 111);
}

/* --- what is refused. After each, the target is as it was. */

static int raw_link(const union bpf_attr *attr)
{
	int fd = syscall(SYS_bpf, BPF_LINK_CREATE, attr, sizeof(*attr));

	return fd < 0 ? -errno : fd;
}

static union bpf_attr good_attr(int prog, const struct target *t)
{
	union bpf_attr attr = {};
	struct object obj;

	find_object(weigh, &obj);
	attr.link_create.prog_fd = prog;
	attr.link_create.target_fd = t->pidfd;
	attr.link_create.attach_type = BPF_USER_PATCH;
	attr.link_create.text_poke.path_fd = obj.fd;
	attr.link_create.text_poke.offset = obj.offset;
	attr.link_create.text_poke.flags = BPF_F_USER_PATCH_PATH_FD;
	return attr;
}

#define REFUSED(want, change) do { \
	union bpf_attr attr = good_attr(prog, &t); \
	typeof(attr.link_create) *l = &attr.link_create; \
	typeof(l->text_poke) *p = &l->text_poke; \
	(void)p; \
	change; \
	fails(#change, raw_link(&attr), want); \
	is_unpatched(&t, #change); \
} while (0)

static void test_attr(void)
{
	struct target t = start_target();
	int prog = load_sum(), zero = open("/dev/zero", O_RDONLY), link;
	__u8 id[64], other[64] = {};
	size_t size = own_build_id(id);
	union bpf_attr good = good_attr(prog, &t);

	link = raw_link(&good);
	check(link >= 0, "what is refused with changes: %s", strerror(-link));
	calls_give(&t, "good", WEIGHED + 1000);
	close(link);

	REFUSED(EINVAL, l->flags = 1);
	REFUSED(EINVAL, l->attach_type = BPF_XDP);
	REFUSED(EINVAL, p->flags |= 8);
	REFUSED(EINVAL, p->flags = 0);
	REFUSED(EINVAL, (p->flags = 0, p->build_id = ADDR(id), p->build_id_sz = size));
	REFUSED(EINVAL, (p->flags = 0, p->path_fd = 0));
	REFUSED(EINVAL, p->build_id = ADDR(id));
	REFUSED(EINVAL, p->build_id_sz = size);
	REFUSED(EINVAL, (p->build_id = ADDR(id), p->build_id_sz = 21));
	REFUSED(EFAULT, (p->build_id = 8, p->build_id_sz = size));
	REFUSED(EOPNOTSUPP, p->helpers = ADDR(id));
	REFUSED(EOPNOTSUPP, p->helper_cnt = 1);
	REFUSED(EOPNOTSUPP, p->flags |= BPF_F_USER_PATCH_NO_TRAP);
	REFUSED(EBADF, p->path_fd = -1);
	REFUSED(EBADF, p->path_fd = 999);
	REFUSED(EBADF, l->target_fd = -1);
	REFUSED(EBADF, l->target_fd = zero);
	REFUSED(EBADF, l->prog_fd = -1);
	REFUSED(ENOENT, p->path_fd = zero);
	REFUSED(ENOENT, p->offset = 1ull << 40);
	REFUSED(ENOENT, p->offset = -1ull);
	REFUSED(ENOENT, p->offset = 0);
	REFUSED(ENOENT, p->vaddr = ADDR(weigh) + 1);
	REFUSED(ENOENT, p->vaddr = -1ull);
	REFUSED(ESTALE, (p->build_id = ADDR(other), p->build_id_sz = size));
	REFUSED(ESTALE, (p->build_id = ADDR(id), p->build_id_sz = size - 1));
	REFUSED(ENOENT, (p->flags = 0, p->path_fd = 0, p->build_id = ADDR(other),
			 p->build_id_sz = size));
	REFUSED(ENODATA, p->func_size = 1; p->offset += ADDR(crossing) - ADDR(weigh));

	/* what is named in other ways is found */
	for (int i = 0; i < 4; i++) {
		union bpf_attr attr = good_attr(prog, &t);
		typeof(attr.link_create.text_poke) *p = &attr.link_create.text_poke;

		if (i == 1)
			p->flags |= BPF_F_USER_PATCH_TRAP_ONLY;
		if (i == 2)
			p->vaddr = ADDR(weigh);
		if (i == 3)
			p->flags = p->path_fd = 0;
		if (i) {
			p->build_id = ADDR(id);
			p->build_id_sz = size;
			p->func_size = 64;
		}
		link = raw_link(&attr);
		check(link >= 0, "way %d: %s", i, strerror(-link));
		calls_give(&t, "named so", WEIGHED + 1000);
		close(link);
		is_unpatched(&t, "closed");
	}
}

static void test_no_process(void)
{
	struct target zombie = start_target(), gone = start_target();
	int prog = load_sum(), kthread = syscall(SYS_pidfd_open, 2, 0), fd;

	kill(zombie.pid, SIGKILL);
	waitid(P_PID, zombie.pid, NULL, WEXITED | WNOWAIT);
	fails("a zombie", try_attach(prog, zombie.pidfd, weigh), ESRCH);
	fd = dup(gone.pidfd);
	end_target(&gone);
	fails("a dead process", try_attach(prog, fd, weigh), ESRCH);
	fails("a kernel thread", try_attach(prog, kthread, weigh), ESRCH);
}

static void test_busy(void)
{
	struct target t = start_target();
	int prog = load_sum(), link = attach(prog, t.pidfd, weigh);
	static const __u8 int3 = 0xcc;
	__u8 push;

	fails("a second link", try_attach(load_return(5), t.pidfd, weigh), EBUSY);
	calls_give(&t, "the first", WEIGHED + 1000);
	close(link);
	is_unpatched(&t, "closed");

	peek(t.pid, weigh, &push, 1);
	poke(t.pid, weigh, &int3, 1);
	fails("a breakpoint", try_attach(prog, t.pidfd, weigh), EBUSY);
	poke(t.pid, weigh, &push, 1);
	is_unpatched(&t, "breakpoint removed");
	link = attach(prog, t.pidfd, weigh);
	calls_give(&t, "without the breakpoint", WEIGHED + 1000);
}

/* Functions that targets run. */
static __u64 do_munmap(__u64 addr, __u64 len)
{
	return munmap((void *)addr, len) ? errno : 0;
}

static __u64 do_mprotect(__u64 addr, __u64 len, __u64 prot)
{
	return mprotect((void *)addr, len, prot) ? errno : 0;
}

static __u64 do_madvise(__u64 addr, __u64 len, __u64 advice)
{
	return madvise((void *)addr, len, advice) ? errno : 0;
}

static __u64 do_mremap(__u64 addr, __u64 len)
{
	return mremap((void *)addr, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, 0x600000000000ul) ==
	       MAP_FAILED ? errno : 0;
}

static __u64 do_map(__u64 addr, __u64 len, __u64 flags)
{
	return mmap((void *)addr, len, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0) ==
	       MAP_FAILED ? errno : 0;
}

static __u64 map_text(__u64 addr, __u64 at, __u64 pages, int flags)
{
	struct object obj;
	char *p;

	if (!find_object((void *)addr, &obj))
		return 0;
	p = mmap((void *)(at & -PAGE), pages * PAGE, PROT_READ | PROT_EXEC, flags, obj.fd,
		 obj.offset & -PAGE);
	close(obj.fd);
	return p == MAP_FAILED ? 0 : ADDR(p) + addr % PAGE;
}

/* The function at addr in a second mapping of its file, of some pages. */
static __u64 do_map_text(__u64 addr, __u64 pages, __u64 flags)
{
	return map_text(addr, 0, pages, flags);
}

static __u64 do_map_text_at(__u64 addr, __u64 at)
{
	return map_text(addr, at, 1, MAP_PRIVATE | MAP_FIXED_NOREPLACE);
}

static void test_text_busy(void)
{
	struct target t = start_target();
	int prog = load_sum(), link;
	__u64 shared = ask(&t, do_map_text, ADDR(weigh), 1, MAP_SHARED);
	__u64 private = ask(&t, do_map_text, ADDR(weigh), 1, MAP_PRIVATE);
	__u64 part = ask(&t, do_map_text, ADDR(crossing), 1, MAP_PRIVATE);

	fails("shared", try_attach(prog, t.pidfd, weigh, .text_poke.vaddr = shared), ETXTBSY);
	is("call", ask(&t, shared, SIX), WEIGHED);
	is("mprotect", ask(&t, do_mprotect, private & -PAGE, PAGE, 7), 0);
	fails("writable", try_attach(prog, t.pidfd, weigh, .text_poke.vaddr = private), ETXTBSY);
	is("call", ask(&t, private, SIX), WEIGHED);
	is("mprotect", ask(&t, do_mprotect, private & -PAGE, PAGE, PROT_READ | PROT_EXEC), 0);
	link = attach(prog, t.pidfd, weigh, .text_poke.vaddr = private);
	is("call", ask(&t, private, SIX), WEIGHED + 1000);
	close(link);
	fails("an instruction that is not all mapped",
	      try_attach(prog, t.pidfd, crossing, .text_poke.vaddr = part), ENODATA);
	is_unpatched(&t, "at the end");
}

static void test_window(void)
{
	static const __u64 at[] = { ARENA_START - GUARD, ARENA_START + (1 << 30),
				    ARENA_START + ARENA_PAGES * PAGE,
				    ARENA_START + (1ull << 32) + GUARD - PAGE };
	int arena = arena_create(ARENA_START), prog = load_counter(arena), link;
	int high = load_counter(arena_create(0x7fff00000000ull));
	struct target t = start_target();

	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		is("map", ask(&t, do_map, at[i], PAGE, MAP_FIXED_NOREPLACE), 0);
		fails("something in the window", try_attach(prog, t.pidfd, weigh), EADDRINUSE);
		is_unpatched(&t, "refused");
		is("no guard", count_maps(t.pid, "[bpf_arena_guard]"), 0);
		is("unmap", ask(&t, do_munmap, at[i], PAGE), 0);
	}
	is("map", ask(&t, do_map, ARENA_START - GUARD - PAGE, PAGE, MAP_FIXED_NOREPLACE), 0);
	is("map", ask(&t, do_map, ARENA_START + (1ull << 32) + GUARD, PAGE, MAP_FIXED_NOREPLACE),
	   0);
	fails("a window that no process has", try_attach(high, t.pidfd, weigh), EINVAL);
	is_unpatched(&t, "refused");
	link = attach(prog, t.pidfd, weigh);
	calls_give(&t, "neighbours of the window", WEIGHED + 1000);
	close(link);
	/* another arena in the same window */
	prog = load_counter(arena_create(ARENA_START + (1 << 20)));
	fails("an arena in the window of another", try_attach(prog, t.pidfd, weigh), EADDRINUSE);
	/* and in a window of its own */
	prog = load_counter(arena_create(ARENA_START + (1ull << 33)));
	link = attach(prog, t.pidfd, weigh);
	calls_give(&t, "another arena", WEIGHED + 1000);
}

#define SYSCTL "/proc/sys/kernel/bpf_user_patch"

/* What is refused for good reason adds nothing to the process. */
static void test_sysctl(void)
{
	struct target t = start_target();
	int prog = load_sum(), link, other, n;
	long max = read_number(SYSCTL "_max");

	is("default", read_number(SYSCTL), 1);
	link = attach(prog, t.pidfd, weigh);
	write_file(SYSCTL, "0");
	fails("when it is off", try_attach(prog, t.pidfd, entry_sp), EPERM);
	calls_give(&t, "what was there", WEIGHED + 1000);
	write_file(SYSCTL, "1");
	write_file(SYSCTL "_max", "1");
	fails("more than allowed", try_attach(prog, t.pidfd, entry_sp), EMLINK);
	n = count_maps(t.pid, NULL);
	for (int i = 0; i < 20; i++)
		fails("more than allowed", try_attach(prog, t.pidfd, entry_sp), EMLINK);
	is("mappings", count_maps(t.pid, NULL), n);
	calls_give(&t, "what was there", WEIGHED + 1000);
	close(link);
	link = attach(prog, t.pidfd, weigh);
	calls_give(&t, "the same function", WEIGHED + 1000);
	write_file(SYSCTL "_max", "2");
	other = attach(load_return(5), t.pidfd, entry_sp);
	is("another function", ask(&t, entry_sp, SIX), 5);
	write_file(SYSCTL "_max", "%ld", max);
	close(link);
	close(other);
	is_unpatched(&t, "at the end");
}

/* In a process of these capabilities: what attach returns. */
static int attach_with(__u64 caps, uid_t uid, int prog, const struct target *t)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = caps, .permitted = caps },
		{ .effective = caps >> 32, .permitted = caps >> 32 },
	};
	int status, fd;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		if (uid && (prctl(PR_SET_KEEPCAPS, 1) || setuid(uid)))
			_exit(255);
		if (syscall(SYS_capset, &head, data))
			_exit(255);
		fd = try_attach(prog, t->pidfd, weigh);
		_exit(fd < 0 ? -fd : 0);
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -255;
}

static __u64 do_drop(__u64 uid)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = {};

	if (uid && setuid(uid))
		return errno;
	if (syscall(SYS_capset, &head, data))
		return errno;
	return prctl(PR_SET_DUMPABLE, 1) ? errno : 0;
}

static __u64 do_dumpable(__u64 n)
{
	return prctl(PR_SET_DUMPABLE, n) ? errno : 0;
}

#define CAP(n) (1ull << CAP_##n)

static void test_rights(void)
{
	struct target t = start_target(), root = start_target(), other = start_target();
	const __u64 bpf = CAP(BPF) | CAP(PERFMON), all = (1ull << (CAP_LAST_CAP + 1)) - 1;
	int prog = load_sum();

	is("drop", ask(&t, do_drop, 0), 0);
	is("drop", ask(&other, do_drop, 1000), 0);
	is("all that it takes", attach_with(bpf, 0, prog, &t), 0);
	fails("no capability", attach_with(0, 0, prog, &t), EPERM);
	fails("CAP_BPF", attach_with(CAP(BPF), 0, prog, &t), EPERM);
	fails("CAP_PERFMON", attach_with(CAP(PERFMON), 0, prog, &t), EPERM);
	fails("all but CAP_BPF", attach_with(all & ~CAP(BPF) & ~CAP(SYS_ADMIN), 0, prog, &t),
	      EPERM);
	fails("another user, with a program's fd", attach_with(0, 1000, prog, &t), EPERM);
	fails("a process with more capabilities", attach_with(bpf, 0, prog, &root), EACCES);
	fails("a process of another user", attach_with(bpf, 0, prog, &other), EACCES);
	is("with CAP_SYS_PTRACE", attach_with(bpf | CAP(SYS_PTRACE), 0, prog, &other), 0);
	is("dumpable", ask(&t, do_dumpable, 0), 0);
	fails("a process that is not dumpable", attach_with(bpf, 0, prog, &t), EACCES);
	is("dumpable", ask(&t, do_dumpable, 1), 0);
	is("dumpable again", attach_with(bpf, 0, prog, &t), 0);
	is_unpatched(&t, "first");
	is_unpatched(&root, "second");
	is_unpatched(&other, "third");
}

/* Map whatever is free as far as a jump reaches. */
static __u64 do_fill(__u64 around)
{
	unsigned long at = around - (3ul << 30), end = around + (3ul << 30), start, stop;
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned long gaps[256][2], n = 0;
	char line[1024];

	while (f && fgets(line, sizeof(line), f) && n < 256) {
		if (sscanf(line, "%lx-%lx", &start, &stop) != 2 || stop <= at)
			continue;
		if (start >= end)
			break;
		if (start > at) {
			gaps[n][0] = at;
			gaps[n++][1] = start;
		}
		at = stop;
	}
	fclose(f);
	if (at < end && n < 256) {
		gaps[n][0] = at;
		gaps[n++][1] = end;
	}
	for (unsigned long i = 0; i < n; i++)
		if (mmap((void *)gaps[i][0], gaps[i][1] - gaps[i][0], PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1,
			 0) == MAP_FAILED)
			return errno;
	return 0;
}

static void test_no_room(void)
{
	struct target t = start_target();
	int prog = load_sum();

	is("fill", ask(&t, do_fill, ADDR(weigh)), 0);
	fails("no room for the image", try_attach(prog, t.pidfd, weigh), ENOSPC);
	is_unpatched(&t, "refused");
}

static __u64 do_rlimit(__u64 resource, __u64 value)
{
	struct rlimit r = { value, RLIM_INFINITY };

	return setrlimit(resource, &r) ? errno : 0;
}

static long status_kb(pid_t pid, const char *field)
{
	char path[64], line[256];
	long kb = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, field, strlen(field)))
			kb = atol(line + strlen(field) + 1);
	if (!f || kb < 0)
		err(2, "%s", field);
	fclose(f);
	return kb;
}

static void test_limits(void)
{
	int counter = load_counter(arena_create(ARENA_START)), prog = load_sum(), link;
	static const char path[] = "/proc/sys/vm/max_map_count";
	struct target t = start_target();
	long max = read_number(path);
	__u64 size = status_kb(t.pid, "VmSize") << 10;

	is("rlimit", ask(&t, do_rlimit, RLIMIT_AS, size + (IMAGE_PAGES - 1) * PAGE), 0);
	fails("no address space for the image", try_attach(prog, t.pidfd, weigh), ENOMEM);
	is_unpatched(&t, "refused");
	is("rlimit", ask(&t, do_rlimit, RLIMIT_AS, size + (IMAGE_PAGES << 13)), 0);
	fails("no address space for the arena", try_attach(counter, t.pidfd, weigh), ENOMEM);
	is_unpatched(&t, "refused");
	link = attach(prog, t.pidfd, weigh);
	calls_give(&t, "enough for the image", WEIGHED + 1000);
	close(link);
	is("rlimit", ask(&t, do_rlimit, RLIMIT_AS, RLIM_INFINITY), 0);
	end_target(&t);

	t = start_target();
	write_file(path, "%d", count_maps(t.pid, NULL) - count_maps(t.pid, "[vsyscall]"));
	link = try_attach(prog, t.pidfd, weigh);
	write_file(path, "%ld", max);
	fails("no more mappings", link, ENOMEM);
	is_unpatched(&t, "refused");
	link = attach(counter, t.pidfd, weigh);
	calls_give(&t, "without the limit", WEIGHED + 1000);
}

/* --- what processes do with their memory */

/* Pipes of children of targets, which are to have them before they are forked. */
static int spare[3][4], spares;

static void need_spares(void)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (size_t i = 0; i < ARRAY_SIZE(spare); i++)
		if (pipe2(spare[i], O_CLOEXEC) || pipe2(spare[i] + 2, O_CLOEXEC))
			err(2, "pipe");
}

static __u64 do_fork(__u64 from, __u64 to)
{
	pid_t pid = fork();

	if (!pid)
		serve(from, to);
	return pid;
}

/* A child of the target, as a target. */
static struct target fork_target(const struct target *t)
{
	int *p = spare[spares++];
	struct target child = { .to = p[1], .from = p[2] };

	child.pid = ask(t, do_fork, p[0], p[3]);
	child.pidfd = syscall(SYS_pidfd_open, child.pid, 0);
	if (child.pid <= 0 || child.pidfd < 0)
		err(2, "child of a target");
	return child;
}

static void test_fork(void)
{
	struct target t, child, grandchild;
	struct bpf_link_info info;
	int link;

	need_spares();
	t = start_target();
	link = attach(load_sum(), t.pidfd, weigh);
	child = fork_target(&t);
	grandchild = fork_target(&child);
	calls_give(&t, "parent", WEIGHED + 1000);
	calls_give(&child, "child", WEIGHED + 1000);
	calls_give(&grandchild, "grandchild", WEIGHED + 1000);
	info = link_info(link);
	is("traps", info.text_poke.trap_hits, 3);
	is("processes", info.text_poke.nr_mm, 3);
	fails("a link to the child", try_attach(load_return(5), child.pidfd, weigh), EBUSY);
	is("update", bpf_link_update(link, load_return(5), NULL), 0);
	calls_give(&t, "parent, updated", 5);
	calls_give(&child, "child, updated", 5);
	calls_give(&grandchild, "grandchild, updated", 5);
	close(link);
	is_unpatched(&t, "parent, closed");
	is_unpatched(&child, "child, closed");
	is_unpatched(&grandchild, "grandchild, closed");
}

static void test_orphans(void)
{
	struct target t, child, grandchild;
	int link;

	need_spares();
	t = start_target();
	link = attach(load_counter(arena_create(ARENA_START)), t.pidfd, weigh);
	child = fork_target(&t);
	end_target(&t);
	calls_give(&child, "parent dead", WEIGHED + 1000);
	is("state", link_state(link), BPF_TEXT_POKE_ATTACHED);
	is("poll", link_poll(link), 0);
	is("pid", link_info(link).text_poke.pid, 0);
	is("processes", link_info(link).text_poke.nr_mm, 1);
	grandchild = fork_target(&child);
	calls_give(&grandchild, "grandchild", WEIGHED + 1000);
	is("traps", link_info(link).text_poke.trap_hits, 2);
	close(link);
	is_unpatched(&child, "child");
	is_unpatched(&grandchild, "grandchild");
	/* those that were unpatched can be patched again, each for itself */
	link = attach(load_return(5), child.pidfd, weigh);
	calls_give(&child, "child", 5);
	is_unpatched(&grandchild, "its child");
	is("second link", !!attach(load_return(6), grandchild.pidfd, weigh), 1);
	calls_give(&grandchild, "grandchild", 6);
	calls_give(&child, "child", 5);
	close(link);
	is_unpatched(&child, "child");
	calls_give(&grandchild, "grandchild", 6);
}

static int shared_gate, shared_out;

static __u64 do_fork_many(__u64 n)
{
	__u64 r;
	char c;

	for (__u64 i = 0; i < n; i++) {
		pid_t pid = fork();

		if (pid < 0)
			return i;
		if (pid)
			continue;
		alarm(1800);
		while (read(shared_gate, &c, 1) == 1) {
			r = weigh(SIX);
			if (write(shared_out, &r, sizeof(r)) != sizeof(r))
				break;
		}
		_exit(0);
	}
	return n;
}

/* More processes than are unpatched at a time. */
static void test_many(void)
{
	int gate[2], out[2], link;
	const int n = scaled(150) < 50 ? 50 : 150;
	struct target t;
	__u64 r;

	if (pipe(gate) || pipe(out))
		err(2, "pipe");
	shared_gate = gate[0];
	shared_out = out[1];
	t = start_target();
	link = attach(load_sum(), t.pidfd, weigh);
	is("children", ask(&t, do_fork_many, n), n);
	is("processes", link_info(link).text_poke.nr_mm, n + 1);
	close(link);
	for (int i = 0; i < n; i++) {
		(void)!write(gate[1], "", 1);
		if (read(out[0], &r, sizeof(r)) != sizeof(r) || r != WEIGHED) {
			is("a child", r, WEIGHED);
			break;
		}
	}
	is_unpatched(&t, "parent");
}

/* Children that call and end: how many of them were not right. */
static __u64 do_fork_storm(__u64 n)
{
	int status, bad = 0;

	while (n--) {
		pid_t pid = fork();

		if (!pid) {
			for (int i = 0; i < 20; i++) {
				__u64 r = weigh(SIX);

				if (r != WEIGHED && r != WEIGHED + 1000)
					_exit(1);
			}
			_exit(0);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
			bad++;
	}
	return bad;
}

static void test_fork_storm(void)
{
	struct target t = start_target();
	int prog = load_sum(), n = 0, link;
	struct pollfd p = { .fd = t.from, .events = POLLIN };

	tell(&t, do_fork_storm, scaled(400));
	while (!poll(&p, 1, 0) && !test_failures) {
		link = try_attach(prog, t.pidfd, weigh);
		/* a child that is about to end may still own the image */
		check(link >= 0 || link == -EBUSY, "attach: %s", strerror(-link));
		close(link);
		n++;
	}
	is("children that went wrong", answer(&t), 0);
	check(n > 1, "only %d links", n);
	is_unpatched(&t, "at the end");
}

static volatile __u64 seen_by_child;

static __u64 do_vfork(void)
{
	int status;
	pid_t pid = vfork();

	if (!pid) {
		seen_by_child = weigh(SIX);
		execl("/bin/true", "true", NULL);
		_exit(255);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		return 0;
	return seen_by_child;
}

static int call_weigh(void *arg)
{
	seen_by_child = weigh(SIX);
	return 0;
}

static __u64 do_clone_vm(void)
{
	static char stack[65536] __attribute__((aligned(16)));
	int status;
	pid_t pid = clone(call_weigh, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL);

	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		return 0;
	return seen_by_child;
}

/* The arena of a new program is mapped in all of the processes, or the program stays. */
static void test_update_arena(void)
{
	int arena = arena_create(ARENA_START), counter = load_counter(arena), link, other;
	__u64 *words = arena_map(arena, ARENA_START);
	int second = load_counter(arena_create(ARENA_START + (1ull << 33)));
	struct target t, child;

	need_spares();
	t = start_target();
	link = attach(load_return(5), t.pidfd, weigh);
	child = fork_target(&t);
	is("map", ask(&child, do_map, ARENA_START + (1 << 20), PAGE, MAP_FIXED_NOREPLACE), 0);
	fails("something in the child's window", bpf_link_update(link, counter, NULL), EADDRINUSE);
	calls_give(&t, "parent, refused", 5);
	calls_give(&child, "child, refused", 5);
	is("updates", link_info(link).text_poke.nr_updates, 0);
	is("unmap", ask(&child, do_munmap, ARENA_START + (1 << 20), PAGE), 0);
	is("update", bpf_link_update(link, counter, NULL), 0);
	calls_give(&t, "parent", WEIGHED + 1000);
	calls_give(&child, "child", WEIGHED + 1000);
	is("counter", words[8], 2);
	is("faults", link_info(link).text_poke.faults, 0);
	is("to another arena", bpf_link_update(link, second, NULL), 0);
	calls_give(&child, "child", WEIGHED + 1000);
	is("back", bpf_link_update(link, counter, NULL), 0);
	calls_give(&child, "child", WEIGHED + 1000);
	is("counter", words[8], 3);
	is("faults", link_info(link).text_poke.faults, 0);
	close(link);
	/* the next link, which takes over the image, with the other one */
	link = attach(second, t.pidfd, weigh);
	calls_give(&t, "parent", WEIGHED + 1000);
	is("update", bpf_link_update(link, counter, NULL), 0);
	calls_give(&t, "parent", WEIGHED + 1000);
	is("counter", words[8], 4);
	is("faults", link_info(link).text_poke.faults, 0);
	other = load_counter(arena_create(ARENA_START + (1 << 20)));
	fails("in the window of another", bpf_link_update(link, other, NULL), EADDRINUSE);
	calls_give(&t, "parent", WEIGHED + 1000);
	is("counter", words[8], 5);
	close(link);
	is_unpatched(&t, "parent");
	is_unpatched(&child, "child");
}

static void test_shared_mm(void)
{
	struct target t = start_target();
	int link = attach(load_sum(), t.pidfd, weigh);

	is("vfork", ask(&t, do_vfork), WEIGHED + 1000);
	is("CLONE_VM", ask(&t, do_clone_vm), WEIGHED + 1000);
	is("traps", link_info(link).text_poke.trap_hits, 2);
	is("processes", link_info(link).text_poke.nr_mm, 1);
	calls_give(&t, "parent", WEIGHED + 1000);
	close(link);
	is("vfork", ask(&t, do_vfork), WEIGHED);
	is("CLONE_VM", ask(&t, do_clone_vm), WEIGHED);
}

static __u64 do_exec(__u64 to)
{
	char text[16];

	fcntl(to, F_SETFD, 0);
	snprintf(text, sizeof(text), "%d", (int)to);
	execl("/proc/self/exe", "userlink", "call", text, NULL);
	return errno;
}

static void test_exec(void)
{
	struct target t;
	int link;
	__u64 r = 0;

	need_spares();
	t = start_target();
	link = attach(load_sum(), t.pidfd, weigh);
	calls_give(&t, "before", WEIGHED + 1000);
	tell(&t, do_exec, spare[0][1]);
	if (read(spare[0][0], &r, sizeof(r)) != sizeof(r))
		err(2, "read");
	is("after exec", r, WEIGHED);
	is("traps", link_info(link).text_poke.trap_hits, 1);
	is("state", link_state(link), BPF_TEXT_POKE_GONE);
	is("poll", link_poll(link), POLLHUP);
	check(text_is_files(t.pid, weigh), "text of the new program");
}

static void *object_handle;

static __u64 do_dlopen(void)
{
	object_handle = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
	return object_handle ? ADDR(dlsym(object_handle, "__fpclassify")) : 0;
}

static __u64 do_dlclose(void)
{
	return dlclose(object_handle);
}

static __u64 do_classify(__u64 fn, __u64 bits)
{
	double d;

	memcpy(&d, &bits, sizeof(d));
	return ((int (*)(double))fn)(d);
}

static void test_dlopen(void)
{
	int prog = load_return(77), sum = load_return(78), link, next, n;
	const __u64 one = 0x3ff0000000000000ull;
	struct object obj;
	struct target t;
	__u64 fn, want;

	fn = do_dlopen();
	want = do_classify(fn, one);
	if (!fn || !find_object((void *)fn, &obj))
		errx(2, "libm");
	do_dlclose();
	if (count_maps(getpid(), "libm.so"))
		errx(2, "libm stays");
	t = start_target();
#define LINK_OBJECT(prog) ({ \
	LIBBPF_OPTS(bpf_link_create_opts, o, .text_poke.path_fd = obj.fd, \
		    .text_poke.offset = obj.offset, .text_poke.flags = BPF_F_USER_PATCH_PATH_FD); \
	bpf_link_create(prog, t.pidfd, BPF_USER_PATCH, &o); })

	fails("not mapped yet", LINK_OBJECT(prog), ENOENT);
	fn = ask(&t, do_dlopen);
	is("object", ask(&t, do_classify, fn, one), want);
	link = LINK_OBJECT(prog);
	check(link >= 0, "attach: %s", strerror(-link));
	is("patched", ask(&t, do_classify, fn, one), 77);
	is("dlclose", ask(&t, do_dlclose), 0);
	is("mappings of it", count_maps(t.pid, "libm.so"), 0);
	is("state", link_state(link), BPF_TEXT_POKE_GONE);
	is("poll", link_poll(link), POLLHUP);
	fn = ask(&t, do_dlopen);
	is("opened again", ask(&t, do_classify, fn, one), want);
	is("state", link_state(link), BPF_TEXT_POKE_GONE);
	next = LINK_OBJECT(sum);
	check(next >= 0, "attach again: %s", strerror(-next));
	is("patched again", ask(&t, do_classify, fn, one), 78);
	close(link);
	is("first link closed", ask(&t, do_classify, fn, one), 78);
	is("dlclose", ask(&t, do_dlclose), 0);
	close(next);
	/* many times, with the image taken over */
	for (n = 0; n < 20; n++) {
		fn = ask(&t, do_dlopen);
		link = LINK_OBJECT(prog);
		is("patched", ask(&t, do_classify, fn, one), 77);
		if (n % 2)
			close(link);
		is("dlclose", ask(&t, do_dlclose), 0);
		if (n % 2 == 0)
			close(link);
	}
	check(count_maps(t.pid, "bpf_user_patch") < 5, "%d images",
	      count_maps(t.pid, "bpf_user_patch"));
	is_unpatched(&t, "at the end");
}

static void test_twice(void)
{
	struct target t = start_target();
	__u64 copy = ask(&t, do_map_text, ADDR(weigh), 1, MAP_PRIVATE);
	int prog = load_sum(), link, other;

	fails("mapped twice", try_attach(prog, t.pidfd, weigh), ENOTUNIQ);
	is_unpatched(&t, "refused");
	link = attach(prog, t.pidfd, weigh, .text_poke.vaddr = copy);
	is("copy", ask(&t, copy, SIX), WEIGHED + 1000);
	is("vaddr", link_info(link).text_poke.vaddr, copy);
	is_unpatched(&t, "the original");
	other = attach(load_return(5), t.pidfd, weigh, .text_poke.vaddr = ADDR(weigh));
	calls_give(&t, "the original", 5);
	is("copy", ask(&t, copy, SIX), WEIGHED + 1000);
	close(link);
	is("copy", ask(&t, copy, SIX), WEIGHED);
	calls_give(&t, "the original", 5);
	close(other);
	is_unpatched(&t, "at the end");
}

static void test_mprotect(void)
{
	struct target t = start_target();
	__u64 copy = ask(&t, do_map_text, ADDR(weigh), 2, MAP_PRIVATE), page = copy & -PAGE;
	int prog = load_sum();
	int link = attach(prog, t.pidfd, weigh, .text_poke.vaddr = copy);

	is("to RW", ask(&t, do_mprotect, page, PAGE, PROT_READ | PROT_WRITE), 0);
	is("and back", ask(&t, do_mprotect, page, PAGE, PROT_READ | PROT_EXEC), 0);
	is("patched", ask(&t, copy, SIX), WEIGHED + 1000);
	is("state", link_state(link), BPF_TEXT_POKE_ATTACHED);
	is("to RWX", ask(&t, do_mprotect, page, PAGE, 7), 0);
	is("patched", ask(&t, copy, SIX), WEIGHED + 1000);
	close(link);
	is("closed while it is writable", ask(&t, copy, SIX), WEIGHED);
	is("back", ask(&t, do_mprotect, page, PAGE, PROT_READ | PROT_EXEC), 0);
	link = attach(prog, t.pidfd, weigh, .text_poke.vaddr = copy);
	is("patched", ask(&t, copy, SIX), WEIGHED + 1000);
	is("to none", ask(&t, do_mprotect, page, PAGE, PROT_NONE), 0);
	close(link);
	is("back", ask(&t, do_mprotect, page, PAGE, PROT_READ | PROT_EXEC), 0);
	is("closed while it was not to be read", ask(&t, copy, SIX), WEIGHED);
}

static void test_sealed(void)
{
	int link, prog = load_counter(arena_create(ARENA_START));
	struct target t = start_target();
	__u64 copy = ask(&t, do_map_text, ADDR(weigh), 1, MAP_PRIVATE), at[4];

	link = attach(prog, t.pidfd, weigh, .text_poke.vaddr = copy);
	is("patched", ask(&t, copy, SIX), WEIGHED + 1000);
	at[0] = link_info(link).text_poke.image_vaddr;
	at[1] = ARENA_START;
	at[2] = ARENA_START - GUARD;
	at[3] = ARENA_START + ARENA_PAGES * PAGE;
	for (int i = 0; i < 4; i++) {
		is("munmap", ask(&t, do_munmap, at[i], PAGE), EPERM);
		is("munmap all around", ask(&t, do_munmap, at[i] - PAGE, 3 * PAGE), EPERM);
		is("mprotect", ask(&t, do_mprotect, at[i], PAGE, PROT_NONE), EPERM);
		is("mremap", ask(&t, do_mremap, at[i], PAGE), EPERM);
		is("MAP_FIXED", ask(&t, do_map, at[i], PAGE, MAP_FIXED), EPERM);
		is("patched", ask(&t, copy, SIX), WEIGHED + 1000);
	}
	is("mremap of text", ask(&t, do_mremap, copy & -PAGE, PAGE), EPERM);
	is("patched", ask(&t, copy, SIX), WEIGHED + 1000);
	close(link);
	is("closed", ask(&t, copy, SIX), WEIGHED);
	is("mremap of text", ask(&t, do_mremap, copy & -PAGE, PAGE), 0);
	is("image stays", ask(&t, do_munmap, at[0], PAGE), EPERM);
}

static void test_dontneed(void)
{
	struct target t = start_target();
	__u64 copy = ask(&t, do_map_text, ADDR(weigh), 1, MAP_PRIVATE);
	int link = attach(load_sum(), t.pidfd, weigh, .text_poke.vaddr = copy), next;

	is("patched", ask(&t, copy, SIX), WEIGHED + 1000);
	is("MADV_DONTNEED", ask(&t, do_madvise, copy & -PAGE, PAGE, MADV_DONTNEED), 0);
	is("dropped", ask(&t, copy, SIX), WEIGHED);
	is("state", link_state(link), BPF_TEXT_POKE_GONE);
	next = attach(load_return(5), t.pidfd, weigh, .text_poke.vaddr = copy);
	is("second link", ask(&t, copy, SIX), 5);
	is("state", link_state(link), BPF_TEXT_POKE_GONE);
	is("state", link_state(next), BPF_TEXT_POKE_ATTACHED);
	is("update of the first", bpf_link_update(link, load_return(6), NULL), 0);
	is("second link", ask(&t, copy, SIX), 5);
	close(link);
	is("second link", ask(&t, copy, SIX), 5);
	/* a mapping in its place */
	is("munmap", ask(&t, do_munmap, copy & -PAGE, PAGE), 0);
	is("state", link_state(next), BPF_TEXT_POKE_GONE);
	is("map", ask(&t, do_map, copy & -PAGE, PAGE, MAP_FIXED), 0);
	close(next);
	is_unpatched(&t, "the original");
}

/* What a process does to itself with madvise() must not do more than that. */
static void test_dontfork(void)
{
	struct target t, child;
	struct bpf_link_info info;
	int link, next;
	__u64 copy;

	need_spares();
	t = start_target();
	link = attach(load_sum(), t.pidfd, weigh);
	calls_give(&t, "patched", WEIGHED + 1000);
	info = link_info(link);
	ask(&t, do_madvise, info.text_poke.image_vaddr, info.text_poke.image_len, MADV_DONTFORK);
	ask(&t, do_madvise, info.text_poke.image_vaddr, info.text_poke.image_len, MADV_DONTNEED);
	ask(&t, do_madvise, info.text_poke.image_vaddr, info.text_poke.image_len, MADV_WIPEONFORK);
	child = fork_target(&t);
	calls_give(&t, "parent", WEIGHED + 1000);
	calls_give(&child, "child", WEIGHED + 1000);
	is("processes", link_info(link).text_poke.nr_mm, 2);
	close(link);
	is_unpatched(&t, "parent");
	is_unpatched(&child, "child");
	end_target(&child);
	link = attach(load_sum(), t.pidfd, weigh);
	calls_give(&t, "patched", WEIGHED + 1000);
	close(link);

	/* A child without the text has nothing that is patched, until it maps text there. */
	copy = ask(&t, do_map_text, ADDR(weigh), 1, MAP_PRIVATE);
	link = attach(load_sum(), t.pidfd, weigh, .text_poke.vaddr = copy);
	is("MADV_DONTFORK", ask(&t, do_madvise, copy & -PAGE, PAGE, MADV_DONTFORK), 0);
	child = fork_target(&t);
	is("parent", ask(&t, copy, SIX), WEIGHED + 1000);
	is("processes", link_info(link).text_poke.nr_mm, 1);
	is("map", ask(&child, do_map_text_at, ADDR(weigh), copy), copy);
	is("child", ask(&child, copy, SIX), WEIGHED);
	next = attach(load_return(5), child.pidfd, weigh, .text_poke.vaddr = copy);
	is("child", ask(&child, copy, SIX), 5);
	is("parent", ask(&t, copy, SIX), WEIGHED + 1000);
	close(link);
	is("parent", ask(&t, copy, SIX), WEIGHED);
	is("child", ask(&child, copy, SIX), 5);
	close(next);
	is("child", ask(&child, copy, SIX), WEIGHED);
}

static __u64 do_mlockall(__u64 flags)
{
	return mlockall(flags) ? errno : 0;
}

static void test_mlockall(void)
{
	int counter = load_counter(arena_create(ARENA_START)), link;
	struct target t = start_target();
	long locked;

	is("mlockall", ask(&t, do_mlockall, MCL_FUTURE), 0);
	locked = status_kb(t.pid, "VmLck");
	link = attach(counter, t.pidfd, weigh);
	calls_give(&t, "patched", WEIGHED + 1000);
	is("locked memory", status_kb(t.pid, "VmLck"), locked);
	is("mlockall", ask(&t, do_mlockall, MCL_CURRENT), 0);
	calls_give(&t, "patched", WEIGHED + 1000);
	close(link);
	is_unpatched(&t, "closed");
}

#define KSM "/sys/kernel/mm/ksm/"

static void test_ksm(void)
{
	struct target t[2] = { start_target(), start_target() };
	int prog = load_sum(), link[2], n = 0;
	__u64 copy[2];

	if (access(KSM "run", W_OK)) {
		printf("ok: no KSM here: not tested\n");
		return;
	}
	for (int i = 0; i < 2; i++) {
		copy[i] = ask(&t[i], do_map_text, ADDR(weigh), 1, MAP_PRIVATE);
		link[i] = attach(prog, t[i].pidfd, weigh, .text_poke.vaddr = copy[i]);
		is("MADV_MERGEABLE", ask(&t[i], do_madvise, copy[i] & -PAGE, PAGE, MADV_MERGEABLE),
		   0);
	}
	write_file(KSM "sleep_millisecs", "1");
	write_file(KSM "run", "1");
	while (!read_number(KSM "pages_sharing") && n++ < 3000)
		usleep(10000);
	check(read_number(KSM "pages_sharing"), "the pages were not merged");
	is("patched", ask(&t[0], copy[0], SIX), WEIGHED + 1000);
	close(link[0]);
	is("closed", ask(&t[0], copy[0], SIX), WEIGHED);
	is("the other", ask(&t[1], copy[1], SIX), WEIGHED + 1000);
	close(link[1]);
	is("closed", ask(&t[1], copy[1], SIX), WEIGHED);
	write_file(KSM "run", "2");
	write_file(KSM "run", "0");
}

static __u64 do_map_arena(__u64 fd)
{
	return mmap((void *)ARENA_START, ARENA_PAGES * PAGE, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0) == MAP_FAILED ? errno : 0;
}

static __u64 do_read_word(__u64 addr)
{
	return *(volatile __u64 *)addr;
}

static void test_own_arena(void)
{
	int arena = arena_create(ARENA_START), prog = load_counter(arena), link;
	struct target t, child;

	need_spares();
	t = start_target();
	is("map", ask(&t, do_map_arena, arena), 0);
	link = attach(prog, t.pidfd, weigh);
	calls_give(&t, "patched", WEIGHED + 1000);
	is("word", ask(&t, do_read_word, ARENA_START + 64), 1);
	is("munmap", ask(&t, do_munmap, ARENA_START, ARENA_PAGES * PAGE), EPERM);
	child = fork_target(&t);
	calls_give(&child, "child", WEIGHED + 1000);
	is("word", ask(&t, do_read_word, ARENA_START + 64), 2);
	end_target(&t);
	calls_give(&child, "child", WEIGHED + 1000);
	is("word", ask(&child, do_read_word, ARENA_START + 64), 3);
	close(link);
	is_unpatched(&child, "child");
}

/* --- several at once */

/* @run in @n children; how many of them failed. */
static int children(int n, int (*run)(int i))
{
	int status, bad = 0;

	fflush(stdout);
	for (int i = 0; i < n; i++) {
		pid_t pid = fork();

		if (pid < 0)
			err(2, "fork");
		if (!pid) {
			int failed = run(i);

			fflush(stdout);
			_exit(!!failed);
		}
	}
	while (n--)
		bad += wait(&status) < 0 || status;
	return bad;
}

static struct target racer;
static int race_progs[2], race_link;

static int attach_often(int i)
{
	int done = 0, link;

	for (int k = scaled(500); k > 0; k--) {
		link = try_attach(race_progs[i], racer.pidfd, weigh);
		if (!check(link >= 0 || link == -EBUSY, "attach: %s", strerror(-link)))
			break;
		done += link >= 0;
		close(link);
	}
	return test_failures || !done;
}

static void test_attach_race(void)
{
	racer = start_target();
	race_progs[0] = load_sum();
	race_progs[1] = load_return(5);
	is("who has failed", children(2, attach_often), 0);
	is_unpatched(&racer, "at the end");
}

/* One updates, one asks, and in the end one detaches. */
static int use_link(int i)
{
	int e, n = 0;

	if (!i) {
		while (!(e = bpf_link_update(race_link, race_progs[n % 2], NULL)))
			n++;
		return !is("update", e, -ENOLINK);
	}
	if (i == 1) {
		while (link_state(race_link) == BPF_TEXT_POKE_ATTACHED)
			n++;
		return !is("state", link_state(race_link), BPF_TEXT_POKE_DETACHED);
	}
	for (n = scaled(200); n > 0; n--) {
		__u64 r = ask(&racer, weigh, SIX);

		if (!check(r == 5 || r == WEIGHED + 1000, "result %llu", r))
			break;
	}
	return !is("detach", bpf_link_detach(race_link), 0);
}

static void test_use_race(void)
{
	racer = start_target();
	race_progs[0] = load_return(5);
	race_progs[1] = load_sum();
	race_link = attach(race_progs[1], racer.pidfd, weigh);
	is("who has failed", children(3, use_link), 0);
	is_unpatched(&racer, "at the end");
}

/* --- without memory: the kernel's own allocations fail, one after the other */

static void fail_all_kinds(void)
{
	fault_all("failslab");
	fault_all("fail_page_alloc");
	fault_option("fail_page_alloc", "min-order", "0");
	fault_option("fail_page_alloc", "ignore-gfp-highmem", "N");
}

/* What is refused leaves the process as it was, and is possible afterwards. */
static void test_attach_nomem(void)
{
	int arena = arena_create(ARENA_START), prog = load_counter(arena), nth = fault_nth(), link;
	int refused = 0, made = 0;
	bool failed = true;

	arena_map(arena, ARENA_START);
	fail_all_kinds();
	for (long n = 1; failed; n++) {
		struct target t = start_target();
		union bpf_attr attr = good_attr(prog, &t);

		fault_number(nth, n);
		link = raw_link(&attr);
		failed = fault_happened(nth);
		close(attr.link_create.text_poke.path_fd);
		if (link < 0) {
			refused++;
			is("errno", -link, ENOMEM);
			is_unpatched(&t, "refused");
			link = attach(prog, t.pidfd, weigh);
		} else {
			made++;
		}
		calls_give(&t, "attached", WEIGHED + 1000);
		close(link);
		is_unpatched(&t, "closed");
		end_target(&t);
	}
	printf("# attach: %d refused, %d made\n", refused, made);
	check(refused > 10 && made > 0, "%d refused, %d made", refused, made);
}

/* Have each page of the image that is there mapped, by a read. */
static void touch_image(const struct target *t, int link)
{
	struct bpf_link_info info = link_info(link);
	char byte;

	for (__u64 at = 0; at < info.text_poke.image_len; at += PAGE)
		peek(t->pid, (void *)(info.text_poke.image_vaddr + at), &byte, 1);
}

/* The old program stays until there is all that @prog needs, which makes it @want. */
static void update_nomem(const char *what, int prog, __u64 want)
{
	int old = load_return(5), nth = fault_nth(), refused = 0, made = 0, link, got;
	bool failed = true;

	for (long n = 1; failed; n++) {
		struct target t = start_target();

		link = attach(old, t.pidfd, weigh);
		fault_number(nth, n);
		got = bpf_link_update(link, prog, NULL);
		failed = fault_happened(nth);
		if (got) {
			refused++;
			is("errno", -got, ENOMEM);
			calls_give(&t, "refused", 5);
			touch_image(&t, link);
			is("update", bpf_link_update(link, prog, NULL), 0);
		} else {
			made++;
		}
		calls_give(&t, "updated", want);
		close(link);
		is_unpatched(&t, "closed");
		end_target(&t);
	}
	close(nth);
	printf("# update to %s: %d refused, %d made\n", what, refused, made);
	check(refused > 2 && made > 0, "%d refused, %d made", refused, made);
}

static void test_update_nomem(void)
{
	int arena = arena_create(ARENA_START);

	arena_map(arena, ARENA_START);
	fail_all_kinds();
	update_nomem("another arena", load_counter(arena), WEIGHED + 1000);
	update_nomem("several pages", load_long(3000), 0);
}

enum { FORK_WHOLE, FORK_REFUSED, FORK_WRONG, FORK_FAULTLESS = 4 };

/* In the target: fork while the @n th fails. There is no child, or it is patched as well. */
static __u64 do_fork_nomem(__u64 n)
{
	int nth = fault_nth(), status;
	__u64 result;
	pid_t pid;

	fault_number(nth, n);
	pid = fork();
	if (!pid)
		_exit(weigh(SIX) == WEIGHED + 1000 ? FORK_WHOLE : FORK_WRONG);
	result = fault_happened(nth) ? 0 : FORK_FAULTLESS;
	close(nth);
	if (pid < 0)
		return result | (errno == ENOMEM || errno == EAGAIN ? FORK_REFUSED : FORK_WRONG);
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return result | FORK_WRONG;
	return result | WEXITSTATUS(status);
}

static void test_fork_nomem(void)
{
	int arena = arena_create(ARENA_START), prog = load_counter(arena), link;
	int count[3] = {};
	struct target t;
	__u64 got = 0;

	arena_map(arena, ARENA_START);
	fail_all_kinds();
	t = start_target();
	link = attach(prog, t.pidfd, weigh);
	for (long n = 1; !(got & FORK_FAULTLESS); n++) {
		got = ask(&t, do_fork_nomem, n);
		count[got & 3]++;
		check((got & 3) != FORK_WRONG, "fork while allocation %ld fails", n);
		calls_give(&t, "parent", WEIGHED + 1000);
	}
	close(link);
	is_unpatched(&t, "closed");
	printf("# fork: %d refused, %d made\n", count[FORK_REFUSED], count[FORK_WHOLE]);
	check(count[FORK_REFUSED] > 20 && count[FORK_WHOLE], "%d refused, %d made",
	      count[FORK_REFUSED], count[FORK_WHOLE]);
}

static const struct test tests[] = {
	{ "basics", "arguments", test_arguments },
	{ "basics", "results", test_results },
	{ "basics", "context", test_context },
	{ "basics", "counters", test_counters },
	{ "basics", "info", test_info },
	{ "basics", "text", test_text },
	{ "basics", "poll", test_poll },
	{ "basics", "poll that waits", test_poll_wait },
	{ "basics", "update", test_update },
	{ "basics", "several links", test_several },
	{ "basics", "its own process", test_self },
	{ "basics", "arena", test_arena },
	{ "basics", "killed holder", test_killed },
	{ "basics", "pinned", test_pinned },
	{ "basics", "changed text", test_residual },
	{ "basics", "again and again", test_again },
	{ "basics", "many updates", test_update_often },
	{ "basics", "many programs", test_full },
	{ "basics", "many programs, a link each", test_full_again },
	{ "basics", "long programs", test_long },
	{ "errors", "attributes", test_attr },
	{ "errors", "no process", test_no_process },
	{ "errors", "busy", test_busy },
	{ "errors", "text that others write", test_text_busy },
	{ "errors", "arena's window", test_window },
	{ "errors", "no room", test_no_room },
	{ "errors", "limits", test_limits },
	{ "errors", "sysctl", test_sysctl },
	{ "errors", "rights", test_rights },
	{ "mm", "fork", test_fork },
	{ "mm", "orphans", test_orphans },
	{ "mm", "arena of an update", test_update_arena },
	{ "mm", "many children", test_many },
	{ "mm", "fork storm", test_fork_storm },
	{ "mm", "vfork and CLONE_VM", test_shared_mm },
	{ "mm", "exec", test_exec },
	{ "mm", "dlopen", test_dlopen },
	{ "mm", "mapped twice", test_twice },
	{ "mm", "mprotect", test_mprotect },
	{ "mm", "sealed", test_sealed },
	{ "mm", "MADV_DONTNEED", test_dontneed },
	{ "mm", "MADV_DONTFORK", test_dontfork },
	{ "mm", "mlockall", test_mlockall },
	{ "mm", "KSM", test_ksm },
	{ "mm", "arena of its own", test_own_arena },
	{ "nomem", "attach", test_attach_nomem },
	{ "nomem", "update", test_update_nomem },
	{ "nomem", "fork", test_fork_nomem },
	{ "races", "two who attach", test_attach_race },
	{ "races", "update, info and detach", test_use_race },
};

/* --- verbs of their own */

static int hold(void)
{
	struct target t = start_target();
	int link = attach(load_sum(), t.pidfd, weigh, .text_poke.cookie = 42);
	struct bpf_link_info info = link_info(link);
	struct object obj;
	char c;

	find_object(weigh, &obj);
	for (int i = 0; i < 3; i++)
		ask(&t, weigh, SIX);
	printf("%u %d %llu %llu %llu %s\n", info.id, t.pid, info.text_poke.vaddr,
	       info.text_poke.offset, info.text_poke.image_vaddr, obj.path);
	fflush(stdout);
	while (read(0, &c, 1) > 0)
		;
	end_target(&t);
	return 0;
}

static int refused(int want)
{
	struct target t = start_target();

	test_name = "refused";
	if (want)
		fails("attach", try_attach(load_sum(), t.pidfd, weigh), want);
	else
		check(try_attach(load_sum(), t.pidfd, weigh) >= 0, "attach");
	/* its text may be what the system does not let us look at */
	calls_give(&t, "call", want ? WEIGHED : WEIGHED + 1000);
	if (!test_failures)
		printf("ok: %s\n", strerror(want));
	end_target(&t);
	return !!test_failures;
}

static long free_kb(void)
{
	char line[256];
	long kb = 0;
	FILE *f = fopen("/proc/meminfo", "r");

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "MemFree:", 8))
			kb = atol(line + 8);
	fclose(f);
	return kb;
}

static void churn_once(int progs[2], int counter)
{
	struct target t = start_target();
	int link = attach(counter, t.pidfd, weigh), other = attach(progs[0], t.pidfd, entry_sp);

	ask(&t, weigh, SIX);
	bpf_link_update(other, progs[1], NULL);
	ask(&t, entry_sp, SIX);
	close(other);
	close(attach(progs[0], t.pidfd, entry_sp));
	is("children", ask(&t, do_fork_storm, 1), 0);
	end_target(&t);
	close(link);
}

/*
 * Pages of images, tables and processes that are not freed are missing at the end, each time;
 * what the kernel keeps for later use is so once.
 */
static int churn(int n)
{
	int progs[] = { load_sum(), load_return(5) };
	int counter = load_counter(arena_create(ARENA_START));
	long before, lost = LONG_MAX;

	test_name = "churn";
	for (int k = 0; k < 4 && lost >= n * 12; k++) {
		before = free_kb();
		for (int i = 0; i < n; i++)
			churn_once(progs, counter);
		sleep(6);	/* kfree_rcu() may take 5 */
		lost = before - free_kb();
	}
	/* an image alone is 3 pages, and there are 2 in each round */
	check(lost < n * 12, "%ld KB lost in %d rounds", lost, n);
	if (!test_failures)
		printf("ok: %d rounds, %ld KB less than before\n", n, lost);
	return !!test_failures;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";
	__u64 r;

	if (!strcmp(verb, "hold"))
		return hold();
	if (!strcmp(verb, "refused") && argc > 2)
		return refused(atoi(argv[2]));
	if (!strcmp(verb, "churn") && argc > 2)
		return churn(atoi(argv[2]));
	if (!strcmp(verb, "call") && argc > 2) {	/* of test_exec() */
		r = weigh(SIX);
		if (write(atoi(argv[2]), &r, sizeof(r)) != sizeof(r))
			return 1;
		pause();
	}
	return run_tests(tests, ARRAY_SIZE(tests), argc, argv);
}
