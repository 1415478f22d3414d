// SPDX-License-Identifier: GPL-2.0-only
/*
 * Find TCP sockets in many network namespaces, and destroy them, in several ways.
 *
 * usage: destroy NETNS SOCKETS WALKS KILLS COUNT WAY...
 *   in each of NETNS namespaces SOCKETS connections over lo to a port, and one beside
 *   them to another; each way finds their clients WALKS times and destroys them KILLS
 *   times, one way after the other in each round, with sockets made anew for each kill;
 *   once only what took more than half a second.
 *   COUNT 1: there are rounds before, not measured, in which system calls are counted.
 * A line each: walk|kill WAY NS IDLE_NS SEEN MATCHED KILLED CALLS SETNS
 *   NS in which the CPU was at work, for whomever, IDLE_NS in which it was not: a command is
 *   waited for while it is read from the disk; both 0 in a round that was not measured
 * Ways:
 *   ss			fork, setns and exec of ss (-K) for each namespace
 *   inet_diag		a process that enters each namespace, dumps what the kernel's filter
 *			leaves, and sends SOCK_DESTROY for it in batches
 *   iter/tcp		it reads a program of iter/tcp in each namespace
 *   nested		it runs a program that loops over namespaces, and over the sockets of each
 *   one-pass		it runs a program that loops over the sockets of all namespaces
 *   match		it runs one that loops over those which the kernel finds to match
 * to destroy only:
 *   tool, tool-netns	all of sockkill: it loads its programs, and finds who owns a victim
 * and to find only, where nothing matches:
 *   pass-miss		one-pass
 *   match-miss		match
 *   iter-foreign	iter/tcp in a namespace without sockets: what it visits is not its own
 * A line "lacks CONFIG_INET_DIAG_DESTROY" tells that ss and inet_diag can only find.
 * exit: 4 when the kernel has no loop over the sockets of all namespaces; 1 when a way sees,
 * finds or destroys more or less than is there.
 */
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>

#include "../sockets.h"
#include "../sockiter.h"
#include "bench/destroy.skel.h"

#define BATCH		1024		/* requests to destroy in a message */
#define NOBODY		1		/* a port */
#define SETTLE_US	50000		/* for what the kernel does later */
#define LONG_NS		500000000	/* a round that is not repeated */

static struct destroy *skel;
static int iter_link, home, *nets, nnets, nsocks;

/* What a way says that it has done. */
struct account {
	__u64 seen, matched, killed;
};

/* --- those who hold the sockets: a process of its own, so that no fork copies its files */

struct census {
	long dead, alive;
};

static int holder;

struct held {
	int listen, listen_by, by, clients[];
};

static struct held *make_site(int net)
{
	struct held *h = malloc(sizeof(*h) + nsocks * sizeof(int));

	must(h ? 0 : -1);
	must(setns(net, CLONE_NEWNET));
	/* who is not accepted stays in the queue */
	h->listen = listener(AF_INET, VICTIM);
	h->listen_by = listener(AF_INET, BYSTANDER);
	h->by = sock(AF_INET, SOCK_STREAM, 0, BYSTANDER);
	for (int i = 0; i < nsocks; i++)
		h->clients[i] = sock(AF_INET, SOCK_STREAM, 0, VICTIM);
	must(setns(home, CLONE_NEWNET));
	return h;
}

static void look(const struct held *h, struct census *c)
{
	for (int i = 0; i < nsocks; i++)
		c->dead += tcp_state(h->clients[i]) == TCP_CLOSE &&
			   sock_err(h->clients[i]) == ECONNABORTED;
	c->alive += tcp_state(h->by) == TCP_ESTABLISHED;
	c->alive += tcp_state(h->listen) == TCP_LISTEN;
	c->alive += tcp_state(h->listen_by) == TCP_LISTEN;
}

static void drop_site(struct held *h)
{
	for (int i = 0; i < nsocks; i++)
		close(h->clients[i]);
	close(h->by);
	close(h->listen);
	close(h->listen_by);
	free(h);
}

static void __attribute__((noreturn)) hold(int fd)
{
	struct held **sites = calloc(nnets, sizeof(*sites));
	char what;

	must(sites ? 0 : -1);
	while (read(fd, &what, 1) == 1) {
		struct census c = {};

		for (int i = 0; i < nnets; i++)
			if (what == 'm')
				sites[i] = make_site(nets[i]);
			else if (what == 'd')
				drop_site(sites[i]);
			else
				look(sites[i], &c);
		must(write(fd, &c, sizeof(c)));
	}
	exit(EXIT_SUCCESS);
}

static struct census ask(char what)
{
	struct census c;

	must(write(holder, &what, 1));
	if (must(read(holder, &c, sizeof(c))) != sizeof(c)) {
		fprintf(stderr, "destroy: the holder of the sockets died\n");
		exit(EXIT_FAILURE);
	}
	return c;
}

static void start_holder(void)
{
	pid_t self = getpid();
	int pair[2];

	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	if (!must(fork())) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != self)
			exit(EXIT_FAILURE);
		close(pair[0]);
		hold(pair[1]);
	}
	close(pair[1]);
	holder = pair[0];
}

/* --- a way: commands */

/* Run it; its output is a file to read. */
static FILE *command(int net, char *const *argv)
{
	int status, out = must(memfd_create("out", MFD_CLOEXEC));
	pid_t pid = must(fork());

	if (!pid) {
		if (net >= 0)
			must(setns(net, CLONE_NEWNET));
		must(dup2(out, STDOUT_FILENO));
		execvp(argv[0], argv);
		must(-1);
	}
	must(waitpid(pid, &status, 0));
	if (status) {
		fprintf(stderr, "destroy: %s: status 0x%x\n", argv[0], status);
		exit(EXIT_FAILURE);
	}
	return fdopen(out, "r");
}

static char port_word[16];

static void by_ss(bool kill, FILE **outs)
{
	char *const argv[] = { "ss", "-t", "-n", "-H", "state", "established", "dport", "=",
			       port_word, kill ? "-K" : NULL, NULL };

	for (int i = 0; i < nnets; i++)
		outs[i] = command(nets[i], argv);
}

static FILE *by_tool(bool per_netns)
{
	char *const argv[] = { "sockkill", "kill", "dport", "=", port_word, "--proto", "tcp",
			       per_netns ? "--per-netns" : NULL, NULL };

	return command(-1, argv);
}

/* A line for each socket. */
static void read_ss(FILE **outs, bool kill, struct account *a)
{
	char line[512];

	for (int i = 0; i < nnets; i++) {
		rewind(outs[i]);
		while (fgets(line, sizeof(line), outs[i]))
			a->matched++;
		fclose(outs[i]);
	}
	if (kill)
		a->killed = a->matched;
}

static void read_tool(FILE *out, struct account *a)
{
	unsigned long long v[3] = {};
	char line[512];

	rewind(out);
	while (fgets(line, sizeof(line), out))
		sscanf(line, "seen %llu in %*u network namespaces, matched %llu, destroyed %llu",
		       &v[0], &v[1], &v[2]);
	fclose(out);
	*a = (struct account) { v[0], v[1], v[2] };
}

/* --- a way: inet_diag */

struct request {
	struct nlmsghdr h;
	struct inet_diag_req_v2 r;
};

struct dump {
	struct request q;
	struct nlattr attr;
	struct inet_diag_bc_op op[2];
};

static void dump(int s, int port, struct request **victims, __u64 *n, __u64 *room)
{
	struct dump d = {
		.q.h = {
			.nlmsg_len = sizeof(d),
			.nlmsg_type = SOCK_DIAG_BY_FAMILY,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
		},
		.q.r = {
			.sdiag_family = AF_INET,
			.sdiag_protocol = IPPROTO_TCP,
			.idiag_states = 1 << TCP_ESTABLISHED,
		},
		.attr = { sizeof(d.attr) + sizeof(d.op), INET_DIAG_REQ_BYTECODE },
		/* yes: to the end; no: beyond it. The second one is the port. */
		.op = { { INET_DIAG_BC_D_EQ, sizeof(d.op), sizeof(d.op) + 4 }, { .no = port } },
	};
	static char buf[1 << 16] __attribute__((aligned(8)));

	must(send(s, &d, sizeof(d), 0));
	for (;;) {
		int len = must(recv(s, buf, sizeof(buf), 0));

		for (struct nlmsghdr *h = (void *)buf; NLMSG_OK(h, len); h = NLMSG_NEXT(h, len)) {
			struct inet_diag_msg *m = NLMSG_DATA(h);

			if (h->nlmsg_type == NLMSG_DONE)
				return;
			if (h->nlmsg_type != SOCK_DIAG_BY_FAMILY) {
				fprintf(stderr, "destroy: inet_diag: message %u\n", h->nlmsg_type);
				exit(EXIT_FAILURE);
			}
			if (*n == *room) {
				*room = *room * 2 ?: BATCH;
				*victims = realloc(*victims, *room * sizeof(**victims));
				must(*victims ? 0 : -1);
			}
			(*victims)[(*n)++] = (struct request) {
				.h = {
					.nlmsg_len = sizeof(struct request),
					.nlmsg_type = SOCK_DESTROY,
					.nlmsg_flags = NLM_F_REQUEST,
				},
				.r = {
					.sdiag_family = m->idiag_family,
					.sdiag_protocol = IPPROTO_TCP,
					.id = m->id,
				},
			};
		}
	}
}

/* What cannot be destroyed is answered, the rest is not. */
static __u64 refused(int s)
{
	char buf[4096] __attribute__((aligned(8)));
	__u64 n = 0;
	int len;

	while ((len = recv(s, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
		for (struct nlmsghdr *h = (void *)buf; NLMSG_OK(h, len); h = NLMSG_NEXT(h, len))
			n += h->nlmsg_type == NLMSG_ERROR;
	return n;
}

/* Whether it destroys, by a request for a socket that nobody has. */
static bool diag_destroys(void)
{
	struct request q = {
		.h = {
			.nlmsg_len = sizeof(q),
			.nlmsg_type = SOCK_DESTROY,
			.nlmsg_flags = NLM_F_REQUEST,
		},
		.r = {
			.sdiag_family = AF_INET,
			.sdiag_protocol = IPPROTO_TCP,
			.id.idiag_cookie = { INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE },
		},
	};
	struct {
		struct nlmsghdr h;
		struct nlmsgerr e;
	} answer = {};
	int s = must(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));

	must(send(s, &q, sizeof(q), 0));
	must(recv(s, &answer, sizeof(answer), 0));
	close(s);
	return answer.e.error != -EOPNOTSUPP;
}

static void by_diag(bool kill, struct account *a)
{
	static struct request *victims;
	static __u64 room;

	for (int i = 0; i < nnets; i++) {
		__u64 n = 0;
		int s;

		must(setns(nets[i], CLONE_NEWNET));
		s = must(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
		dump(s, VICTIM, &victims, &n, &room);
		a->matched += n;
		if (kill) {
			for (__u64 k = 0; k < n; k += BATCH)
				must(send(s, victims + k,
					  (n - k < BATCH ? n - k : BATCH) * sizeof(*victims), 0));
			a->killed += n - refused(s);
		}
		close(s);
	}
	must(setns(home, CLONE_NEWNET));
}

/* --- ways: BPF */

static void to_account(const struct sockiter_req *r, struct account *a)
{
	if (r->err || r->busy || r->gone) {
		fprintf(stderr, "destroy: error %d, %u busy, %u gone\n", r->err, r->busy, r->gone);
		exit(EXIT_FAILURE);
	}
	*a = (struct account) { r->seen, r->matched, r->killed };
}

static void read_iter(void)
{
	char buf[4096];
	int fd = must(bpf_iter_create(iter_link));

	while (must(read(fd, buf, sizeof(buf))))
		;
	close(fd);
}

static void by_iter(bool kill, struct account *a)
{
	skel->bss->req = (struct sockiter_req) { .kill = kill, .dport = VICTIM };
	for (int i = 0; i < nnets; i++) {
		must(setns(nets[i], CLONE_NEWNET));
		read_iter();
	}
	must(setns(home, CLONE_NEWNET));
	to_account(&skel->bss->req, a);
}

static void by_foreign(struct account *a)
{
	skel->bss->req = (struct sockiter_req) { .dport = VICTIM };
	read_iter();
	to_account(&skel->bss->req, a);
}

static void by_pass(struct bpf_program *prog, bool kill, int port, struct account *a)
{
	struct sockiter_req r = {
		.kill = kill, .dport = port,
		.match = {
			.proto = IPPROTO_TCP, .family = AF_INET, .dport = htons(port),
			.daddr = { htonl(INADDR_LOOPBACK) },
		},
	};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &r, .ctx_size_in = sizeof(r));

	must(bpf_prog_test_run_opts(bpf_program__fd(prog), &opts));
	to_account(&r, a);
}

/* --- rounds */

enum way {
	SS, DIAG, ITER, NESTED, PASS, MATCH, TOOL, TOOL_NETNS,
	PASS_MISS, MATCH_MISS, ITER_FOREIGN,
	NWAYS
};

static const char *const names[NWAYS] = {
	"ss", "inet_diag", "iter/tcp", "nested", "one-pass", "match", "tool", "tool-netns",
	"pass-miss", "match-miss", "iter-foreign",
};

static __u64 now(void)
{
	struct timespec t;

	must(clock_gettime(CLOCK_MONOTONIC, &t));
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static void expect(enum way way, const char *what, __u64 is, __u64 want)
{
	if (is == want)
		return;
	fprintf(stderr, "destroy: %s, %d namespaces with %d connections: %s %llu, not %llu\n",
		names[way], nnets, nsocks, what, (unsigned long long)is, (unsigned long long)want);
	exit(EXIT_FAILURE);
}

static void check(enum way way, bool kill, const struct account *a)
{
	/* both ends of each connection, and two listeners */
	__u64 victims = (__u64)nnets * nsocks, all = 2 * victims + 4 * (__u64)nnets;

	/*
	 * ss and inet_diag see no more than what they find, and with a victim its peer goes,
	 * who is seen only when it came first.
	 */
	if (way == MATCH)
		expect(way, "seen", a->seen, victims);
	else if (way != SS && way != DIAG && !kill)
		expect(way, "seen", a->seen, way == ITER_FOREIGN || way == MATCH_MISS ? 0 : all);
	expect(way, "matched", a->matched, way < PASS_MISS ? victims : 0);
	expect(way, "killed", a->killed, kill ? victims : 0);
}

/* What it took, in ns; 0: not measured. */
static __u64 go(enum way way, bool kill, bool count)
{
	static bool made;
	FILE **outs = calloc(nnets, sizeof(*outs));
	__u64 from, took, idle, calls, setns_calls;
	struct bpf_link *link = NULL;
	struct account a = {};
	struct census c;

	must(outs ? 0 : -1);
	if (!made)
		ask('m');
	made = !kill;
	if (count) {
		link = bpf_program__attach(skel->progs.destroy_count);
		must(link ? 0 : -1);
	}
	usleep(SETTLE_US);

	idle = skel->bss->idle;
	calls = skel->bss->calls;
	setns_calls = skel->bss->setns_calls;
	from = now();
	switch (way) {
	case SS:
		by_ss(kill, outs);
		break;
	case DIAG:
		by_diag(kill, &a);
		break;
	case ITER:
		by_iter(kill, &a);
		break;
	case NESTED:
		by_pass(skel->progs.destroy_nested, kill, VICTIM, &a);
		break;
	case PASS:
	case PASS_MISS:
		by_pass(skel->progs.destroy_pass, kill, way == PASS ? VICTIM : NOBODY, &a);
		break;
	case MATCH:
	case MATCH_MISS:
		by_pass(skel->progs.destroy_match, kill, way == MATCH ? VICTIM : NOBODY, &a);
		break;
	case ITER_FOREIGN:
		by_foreign(&a);
		break;
	default:
		outs[0] = by_tool(way == TOOL_NETNS);
	}
	took = now() - from;
	calls = skel->bss->calls - calls;
	setns_calls = skel->bss->setns_calls - setns_calls;
	idle = skel->bss->idle - idle;

	bpf_link__destroy(link);
	if (way == SS)
		read_ss(outs, kill, &a);
	else if (way == TOOL || way == TOOL_NETNS)
		read_tool(outs[0], &a);
	free(outs);
	check(way, kill, &a);
	if (kill) {
		c = ask('c');
		expect(way, "dead", c.dead, (__u64)nnets * nsocks);
		expect(way, "spared", c.alive, 3 * (__u64)nnets);
		ask('d');
	}
	took = count ? 0 : took - idle;
	if (count)
		idle = 0;
	printf("%s %s %llu %llu %llu %llu %llu %llu %llu\n", kill ? "kill" : "walk", names[way],
	       (unsigned long long)took, (unsigned long long)idle, (unsigned long long)a.seen,
	       (unsigned long long)a.matched, (unsigned long long)a.killed,
	       (unsigned long long)calls, (unsigned long long)setns_calls);
	fflush(stdout);
	return took;
}

static bool can(enum way way, bool kill)
{
	switch (way) {
	case SS:
	case DIAG:
		return !kill || diag_destroys();
	case ITER:
	case NESTED:
	case PASS:
	case MATCH:
		return true;
	case TOOL:
	case TOOL_NETNS:
		return kill;
	default:
		return !kill;
	}
}

static void rounds(int n, bool kill, bool count, char **ways)
{
	__u64 took[NWAYS] = {};

	if (count && n)
		n++;
	for (int i = 0; i < n; i++)
		for (char **w = ways; *w; w++) {
			enum way way = 0;

			while (way < NWAYS && strcmp(*w, names[way]))
				way++;
			if (way == NWAYS)
				exit(2);
			if (can(way, kill) && took[way] < LONG_NS)
				took[way] = go(way, kill, count && !i);
		}
}

static bool has_iterators(void)
{
	struct btf *btf = btf__load_vmlinux_btf();
	bool has = btf && btf__find_by_name_kind(btf, "bpf_iter_sk_match_new",
						 BTF_KIND_FUNC) > 0;

	btf__free(btf);
	return has;
}

int main(int argc, char **argv)
{
	struct rlimit files = { 1 << 20, 1 << 20 };
	struct bpf_link *link, *idle;

	if (argc < 6)
		return 2;
	if (!has_iterators()) {
		fprintf(stderr, "destroy: this kernel has no loop over the sockets of all "
			"namespaces (kernel/sockkill)\n");
		return 4;
	}
	nnets = atoi(argv[1]);
	nsocks = atoi(argv[2]);
	nets = calloc(nnets, sizeof(*nets));
	must(nets ? 0 : -1);
	must(setrlimit(RLIMIT_NOFILE, &files));
	snprintf(port_word, sizeof(port_word), ":%d", VICTIM);
	home = must(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
	for (int i = 0; i < nnets; i++)
		nets[i] = new_net(home, false, false);
	start_holder();

	skel = destroy__open();
	if (!skel)
		return EXIT_FAILURE;
	skel->rodata->pid = getpid();
	if (destroy__load(skel))
		return EXIT_FAILURE;
	link = bpf_program__attach_iter(skel->progs.destroy_iter, NULL);
	must(link ? 0 : -1);
	iter_link = bpf_link__fd(link);
	idle = bpf_program__attach(skel->progs.destroy_idle);
	must(idle ? 0 : -1);

	if (!diag_destroys())
		puts("lacks CONFIG_INET_DIAG_DESTROY");
	rounds(atoi(argv[3]), false, atoi(argv[5]), argv + 6);
	rounds(atoi(argv[4]), true, atoi(argv[5]), argv + 6);
	bpf_link__destroy(idle);
	bpf_link__destroy(link);
	destroy__destroy(skel);
	return EXIT_SUCCESS;
}
