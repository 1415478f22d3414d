// SPDX-License-Identifier: GPL-2.0-only
/*
 * A process to be patched.
 *
 * victim serve PORT		records over TCP: four bytes of length, and as many more. Each is
 *				copied into 64 bytes of stack, whatever its length says
 * victim send PORT LEN		one record; tells the reply, or "closed"
 * victim client PORT		a record for each line of standard input
 * victim load PORT N THREADS	N records of 8 and of 48 bytes each; tells how many were ok,
 *				refused and lost
 * victim run			commands from standard input, a line of answer for each
 * victim once COMMAND		one of these
 *
 * The functions that are patched have external names and are called as such.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#ifndef STATIC
#include <dlfcn.h>
#endif

#define TARGET __attribute__((noinline, noipa, used))

#define RECORD 64
#define LONGEST 65536

/* --- what is patched --- */

/* The bug: len is whatever the client says. Returns how much it has copied. */
TARGET size_t copy_record(char *dst, const char *src, size_t len)
{
	memcpy(dst, src, len);
	return len;
}

TARGET int open_path(const char *path)
{
	return path ? 7 : 8;
}

TARGET long add_numbers(long a, long b)
{
	return a + 10 * b;
}

/* An int: the upper half of its register is anybody's. */
TARGET int add_ints(int a, int b)
{
	return a + b;
}

/* A first instruction that is neither push nor nop. */
TARGET long six_numbers(long a, long b, long c, long d, long e, long f)
{
	return a + 10 * b + 100 * c + 1000 * d + 10000 * e + 100000 * f;
}

/* --- a server --- */

/* A frame of its own, without the protector that a distribution may turn on. */
__attribute__((noinline, noipa, no_stack_protector))
static size_t handle(const char *data, uint32_t len)
{
	char record[RECORD];

	return copy_record(record, data, len);
}

static bool answer(int fd, uint32_t len, size_t n)
{
	char reply[64];

	if (n == len)
		snprintf(reply, sizeof(reply), "ok %zu\n", n);
	else
		snprintf(reply, sizeof(reply), "error: record of %u bytes is too long\n", len);
	return send(fd, reply, strlen(reply), MSG_NOSIGNAL) > 0;
}

static bool get(int fd, void *to, size_t len)
{
	while (len) {
		ssize_t n = recv(fd, to, len, 0);

		if (n <= 0)
			return false;
		to += n;
		len -= n;
	}
	return true;
}

static void *serve_one(void *arg)
{
	static __thread char data[LONGEST];
	int fd = (long)arg;
	uint32_t len;

	while (get(fd, &len, sizeof(len)) && (len = ntohl(len)) <= LONGEST && get(fd, data, len))
		if (!answer(fd, len, handle(data, len)))
			break;
	close(fd);
	return NULL;
}

static int serve(int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int s = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	pthread_attr_t attr;

	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(s, (struct sockaddr *)&a, sizeof(a)) || listen(s, 64))
		err(1, "port %d", port);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	puts("ready");
	fflush(stdout);
	for (;;) {
		long fd = accept(s, NULL, NULL);
		pthread_t t;

		if (fd >= 0 && pthread_create(&t, &attr, serve_one, (void *)fd))
			err(1, "thread");
	}
}

static int dial(int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int s = socket(AF_INET, SOCK_STREAM, 0);

	if (connect(s, (struct sockaddr *)&a, sizeof(a)))
		err(1, "connect to port %d", port);
	return s;
}

/* The reply to a record of so many bytes, without its end; "closed" where there is none. */
static const char *ask(int fd, uint32_t len, char reply[128])
{
	static const char fill[LONGEST] = {[0 ... LONGEST - 1] = 'A'};
	uint32_t head = htonl(len);
	size_t n = 0;

	if (send(fd, &head, sizeof(head), MSG_NOSIGNAL) != sizeof(head) ||
	    send(fd, fill, len, MSG_NOSIGNAL) != (ssize_t)len)
		return "closed";
	while (n < 127) {
		if (recv(fd, reply + n, 1, 0) != 1)
			return "closed";
		if (reply[n] == '\n')
			break;
		n++;
	}
	reply[n] = 0;
	return reply;
}

static int load_port, load_n;
static long load_ok, load_refused, load_lost;

static void *load_one(void *arg)
{
	int fd = dial(load_port);
	char reply[128];

	for (int i = 0; i < load_n; i++) {
		const char *r = ask(fd, i % 2 ? 48 : 8, reply);

		__sync_fetch_and_add(!strncmp(r, "ok", 2) ? &load_ok :
				     !strncmp(r, "error", 5) ? &load_refused : &load_lost, 1);
	}
	close(fd);
	return NULL;
}

static int load(int port, int n, int threads)
{
	pthread_t t[threads];

	load_port = port;
	load_n = n;
	for (int i = 0; i < threads; i++)
		pthread_create(&t[i], NULL, load_one, NULL);
	for (int i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
	printf("ok %ld refused %ld lost %ld\n", load_ok, load_refused, load_lost);
	return 0;
}

static int client(int port)
{
	char line[64], reply[128];
	int fd = dial(port);

	while (fgets(line, sizeof(line), stdin)) {
		puts(ask(fd, atoi(line), reply));
		fflush(stdout);
	}
	return 0;
}

/* --- registers: those at the entry of a function are those at its call --- */

struct regs {
	uint64_t gpr[16];	/* rax rbx rcx rdx rsi rdi rbp rsp r8 ... r15 */
	uint64_t xmm[32];
	uint64_t zone[16];	/* below the return address */
	uint64_t flags;
};

struct regs wanted_regs, seen_regs;

/*
 * look_regs stores what it is given, and nothing else but xmm and flags is needed for that.
 * Both see r15 as the address of what is wanted.
 */
asm(".pushsection .text\n"
	".macro each_xmm op, from\n"
	"	.irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
	"	.if \\from\n"
	"	movdqu 128+16*\\n(%r15), %xmm\\n\n"
	"	.else\n"
	"	movdqu %xmm\\n, 128+16*\\n(%r15)\n"
	"	.endif\n"
	"	.endr\n"
	".endm\n"
	".globl look_regs\n"
	".type look_regs, @function\n"
	"look_regs:\n"
	"	nop\n"
	"	push %r15\n"
	"	mov seen_regs@GOTPCREL(%rip), %r15\n"
	"	mov %rax, 0(%r15); mov %rbx, 8(%r15); mov %rcx, 16(%r15); mov %rdx, 24(%r15)\n"
	"	mov %rsi, 32(%r15); mov %rdi, 40(%r15); mov %rbp, 48(%r15); mov %rsp, 56(%r15)\n"
	"	addq $8, 56(%r15)\n"
	"	mov %r8, 64(%r15); mov %r9, 72(%r15); mov %r10, 80(%r15); mov %r11, 88(%r15)\n"
	"	mov %r12, 96(%r15); mov %r13, 104(%r15); mov %r14, 112(%r15)\n"
	"	pop %rax; push %rax; mov %rax, 120(%r15)\n"
	"	each_xmm save, 0\n"
	"	pop %r15\n"
	"	mov $77, %eax\n"
	"	ret\n"
	".size look_regs, . - look_regs\n"
	".globl call_regs\n"
	".type call_regs, @function\n"
	"call_regs:\n"
	"	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; sub $8, %rsp\n"
	"	mov wanted_regs@GOTPCREL(%rip), %r15\n"
	"	mov %rsp, %rax; sub $8, %rax; mov %rax, 56(%r15); mov %r15, 120(%r15)\n"
	"	each_xmm load, 1\n"
	"	mov 0(%r15), %rax; mov 8(%r15), %rbx; mov 16(%r15), %rcx; mov 24(%r15), %rdx\n"
	"	mov 32(%r15), %rsi; mov 40(%r15), %rdi; mov 48(%r15), %rbp\n"
	"	mov 64(%r15), %r8; mov 72(%r15), %r9; mov 80(%r15), %r10; mov 88(%r15), %r11\n"
	"	mov 96(%r15), %r12; mov 104(%r15), %r13; mov 112(%r15), %r14\n"
	"	call look_regs\n"
	"	add $8, %rsp; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
	"	ret\n"
	".size call_regs, . - call_regs\n"
	".popsection\n");

static void run_regs(void)
{
	static const char *const names[] = {"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",
					    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"};
	uint64_t r;
	int bad = 0;

	for (int i = 0; i < 16; i++)
		wanted_regs.gpr[i] = 0x1111111111111111u * (uint64_t)i;
	for (int i = 0; i < 32; i++)
		wanted_regs.xmm[i] = 0x0123456789abcdef * (i + 1);
	memset(&seen_regs, 0, sizeof(seen_regs));
	asm volatile("call call_regs" : "=a"(r) : : "rcx", "rdx", "rsi", "rdi", "r8", "r9",
		     "r10", "r11", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4",
		     "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
		     "xmm13", "xmm14", "xmm15");
	for (int i = 0; i < 16; i++)
		if (wanted_regs.gpr[i] != seen_regs.gpr[i])
			printf("%s%s", bad++ ? " " : "changed: ", names[i]);
	for (int i = 0; i < 32; i++)
		if (wanted_regs.xmm[i] != seen_regs.xmm[i])
			printf("%sxmm%d", bad++ ? " " : "changed: ", i / 2);
	printf("%s, returned %ld\n", bad ? "" : "unchanged", (long)r);
}

/* --- commands --- */

static int calls_n;
static long calls_bad;

static void *calls_one(void *arg)
{
	for (long i = 0; i < calls_n; i++)
		if (add_numbers(i, 1) != i + 10)
			__sync_fetch_and_add(&calls_bad, 1);
	return NULL;
}

static void calls(int n, int threads)
{
	pthread_t t[threads];

	calls_n = n;
	calls_bad = 0;
	for (int i = 0; i < threads; i++)
		pthread_create(&t[i], NULL, calls_one, NULL);
	for (int i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
	printf("%d calls, %ld wrong\n", n * threads, calls_bad);
}

/* A string that ends where the memory ends; without its NUL. */
static const char *at_edge(const char *text)
{
	char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	munmap(p + 4096, 4096);
	return memcpy(p + 4096 - strlen(text), text, strlen(text));
}

/* Code that something other than the file may be in, or that is at two addresses. */
static void map_oddly(bool twice)
{
	unsigned long page = (unsigned long)add_numbers & -4096ul, start, end, offset;
	char line[512], perms[8];
	FILE *f = fopen("/proc/self/maps", "r");

	if (!twice) {
		mprotect((void *)page, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
		fclose(f);
		return;
	}
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx %7s %lx", &start, &end, perms, &offset) == 4 &&
		    page >= start && page < end) {
			int fd = open("/proc/self/exe", O_RDONLY);

			mmap(NULL, end - start, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, offset);
			close(fd);
			break;
		}
	fclose(f);
}

static void *lib;

static void command(char *line);

static void in_child(char *line, bool execs)
{
	pid_t pid = fork();

	if (!pid && execs) {
		execl("/proc/self/exe", "victim", "once", line, NULL);
		_exit(1);
	} else if (!pid) {
		command(line);
		fflush(stdout);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

static void command(char *line)
{
	char word[32] = "", text[256] = "";
	long v[6] = {};
	int at = 0, v_n = 0;

	line[strcspn(line, "\n")] = 0;
	if (sscanf(line, "%31s %n", word, &at) < 1)
		return;
	snprintf(text, sizeof(text), "%s", line + at);
	for (char *from = text, *end; v_n < 6; from = end, v_n++) {
		v[v_n] = strtoul(from, &end, 0);
		if (end == from)
			break;
	}
	if (!strcmp(word, "add")) {
		printf("%ld\n", add_numbers(v[0], v[1]));
	} else if (!strcmp(word, "ints")) {
		/* with junk above the int, as compilers may leave it */
		int (*f)(long a, long b) = (void *)add_ints;

		printf("%d\n", f((v[0] & 0xffffffff) | 0x7700000000, v[1]));
	} else if (!strcmp(word, "six")) {
		printf("%ld\n", six_numbers(v[0], v[1], v[2], v[3], v[4], v[5]));
	} else if (!strcmp(word, "path")) {
		printf("%d\n", open_path(text));
	} else if (!strcmp(word, "edge")) {
		printf("%d\n", open_path(at_edge(text)));
	} else if (!strcmp(word, "wild")) {
		printf("%d\n", open_path((char *)v[0]));
	} else if (!strcmp(word, "calls")) {
		calls(v[0], v[1]);
	} else if (!strcmp(word, "regs")) {
		run_regs();
	} else if (!strcmp(word, "twice") || !strcmp(word, "writable")) {
		map_oddly(!strcmp(word, "twice"));
		puts("done");
	} else if (!strcmp(word, "fork")) {
		in_child(text, false);
	} else if (!strcmp(word, "exec")) {
		in_child(text, true);
	} else if (!strcmp(word, "become")) {
		fflush(stdout);
		execl("/proc/self/exe", "victim", "run", NULL);
#ifndef STATIC
	} else if (!strcmp(word, "dlopen")) {
		lib = dlopen(text, RTLD_NOW);
		puts(lib ? "loaded" : dlerror());
	} else if (!strcmp(word, "libadd")) {
		long (*f)(long a, long b) = dlsym(lib, "lib_add");

		printf("%ld\n", f(v[0], v[1]));
#endif
	} else {
		puts("?");
	}
}

static int run(void)
{
	char line[512];

	/* line by line, so that who executes this again finds the rest */
	setvbuf(stdin, NULL, _IONBF, 0);
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		command(line);
		fflush(stdout);
	}
	return 0;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	char reply[128];

	if (!strcmp(mode, "serve") && argc == 3)
		return serve(atoi(argv[2]));
	if (!strcmp(mode, "client") && argc == 3)
		return client(atoi(argv[2]));
	if (!strcmp(mode, "load") && argc == 5)
		return load(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]));
	if (!strcmp(mode, "send") && argc == 4) {
		puts(ask(dial(atoi(argv[2])), atoi(argv[3]), reply));
		return 0;
	}
	if (!strcmp(mode, "run"))
		return run();
	if (!strcmp(mode, "once") && argc == 3) {
		command(argv[2]);
		return 0;
	}
	errx(2, "usage: victim serve PORT | send PORT LEN | client PORT | load PORT N THREADS | "
		"run | once COMMAND");
}
