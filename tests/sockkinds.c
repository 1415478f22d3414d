// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sockets that are more than TCP: what destroying them does to their owners and peers,
 * that a walk without memory says so, and that nothing keeps a reference.
 *
 * usage: sockkinds mptcp | tls | fastopen | sockmap | mapped [SOCKKILL]
 *	  sockkinds failures | references | storm SECONDS
 * Programs of sockiter.bpf.c destroy; with SOCKKILL that tool does, where it can.
 */
#include <linux/filter.h>
#include <linux/tls.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "fault.h"
#include "sockrun.h"
#include <linux/mptcp.h>

enum kind { MPTCP, TLS, FASTOPEN, SOCKMAP, MAPPED, KINDS };

static const char *const kinds[] = { "mptcp", "tls", "fastopen", "sockmap", "mapped" };

enum { PLAIN = 5555, HALF = 7001, HALF_QUEUED, HALF_LATE };	/* more ports */

#define NETS 2		/* the second with a table of its own */
#define LIMIT 40	/* seconds, for what takes none */

struct pair {
	int client, server;
};

struct site {
	int net;
	int listener, bystanders;	/* who listens for victims, and for the others */
	struct pair victim, bystander;
};

static int home, held = -1;		/* held: the map of what is in one */
static const char *tool;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static int shell(const char *command)
{
	int status = system(command);	/* sh: these are tests */

	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* --- a connection of each kind */

/* For what a namespace needs, in it. */
static void prepare(enum kind kind)
{
	if (kind == MPTCP) {
		put_file("/proc/sys/net/mptcp/close_timeout", "1");
		if (shell("ip mptcp limits set subflow 2 add_addr_accepted 2 && "
			  "ip mptcp endpoint add 127.0.0.2 dev lo subflow"))
			exit(EXIT_FAILURE);
	} else if (kind == FASTOPEN) {
		/* clients, servers, and all listeners without asking */
		put_file("/proc/sys/net/ipv4/tcp_fastopen", "1027");
	}
}

static int mptcp_socket(void)
{
	return must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP));
}

static int listen_at(enum kind kind, int port)
{
	struct sockaddr_storage a;
	int one = 1, s;
	socklen_t len;

	if (kind != MPTCP)
		return listener(AF_INET, port);
	s = mptcp_socket();
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	len = address(&a, AF_INET, port);
	must(bind(s, (void *)&a, len));
	must(listen(s, 16));
	return s;
}

static void start_tls(struct pair p)
{
	struct tls12_crypto_info_aes_gcm_128 keys = {
		.info = { TLS_1_2_VERSION, TLS_CIPHER_AES_GCM_128 },
		.key = "0123456789abcdef", .salt = "salt",
	};

	for (int i = 0; i < 2; i++) {
		int s = i ? p.server : p.client;

		must(setsockopt(s, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")));
		must(setsockopt(s, SOL_TLS, TLS_TX, &keys, sizeof(keys)));
		must(setsockopt(s, SOL_TLS, TLS_RX, &keys, sizeof(keys)));
	}
}

/* Data with the SYN: there is a cookie. */
static struct pair fast_pair(int l, int port, int bound)
{
	struct pair p = { sock(AF_INET, SOCK_STREAM, bound, 0), -1 };
	struct sockaddr_storage a;
	socklen_t len = address(&a, AF_INET, port);
	char byte;

	must(sendto(p.client, "x", 1, MSG_FASTOPEN, (void *)&a, len));
	p.server = must(accept(l, NULL, NULL));
	must(read(p.server, &byte, 1));
	return p;
}

static void hold_in_map(int s)
{
	__u32 key = s;
	__u64 fd = s;

	if (held < 0)
		held = must(bpf_map_create(BPF_MAP_TYPE_SOCKHASH, "held", sizeof(key), sizeof(fd),
					   1024, NULL));
	must(bpf_map_update_elem(held, &key, &fd, BPF_ANY));
}

static bool is_held(int s)
{
	__u32 key = s;
	__u64 c;

	return !bpf_map_lookup_elem(held, &key, &c);
}

static struct pair connect_to(enum kind kind, int l, int port)
{
	struct sockaddr_storage a;
	socklen_t len = address(&a, AF_INET, port);
	struct sockaddr_in6 *a6 = (void *)&a;
	struct pair p;

	switch (kind) {
	case FASTOPEN:
		p = fast_pair(l, port, 0);	/* gets the cookie, the first time */
		close(p.client);
		close(p.server);
		return fast_pair(l, port, 0);
	case MPTCP:
		p.client = mptcp_socket();
		break;
	case MAPPED:
		p.client = must(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
		len = address(&a, AF_INET6, port);
		must(inet_pton(AF_INET6, "::ffff:127.0.0.1", &a6->sin6_addr));
		break;
	default:
		p.client = must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	}
	must(connect(p.client, (void *)&a, len));
	p.server = must(accept(l, NULL, NULL));
	if (kind == TLS)
		start_tls(p);
	if (kind == SOCKMAP) {
		hold_in_map(p.client);
		hold_in_map(p.server);
	}
	return p;
}

static void close_pair(struct pair p)
{
	close(p.client);
	close(p.server);
}

/* Subflows beside the first; none of what fell back to TCP. */
static int subflows(int s)
{
	struct mptcp_info info = {};
	socklen_t len = sizeof(info);

	if (getsockopt(s, SOL_MPTCP, MPTCP_INFO, &info, &len) ||
	    info.mptcpi_flags & MPTCP_INFO_FLAG_FALLBACK)
		return -1;
	return info.mptcpi_extra_subflows;
}

static bool is_of(enum kind kind, int s, bool client)
{
	struct sockaddr_in6 peer = {};
	struct tcp_info info = {};
	socklen_t len = sizeof(info);
	char ulp[16] = "";

	switch (kind) {
	case MPTCP:
		for (double end = now() + LIMIT; now() < end && subflows(s) != 1; )
			usleep(10000);
		return subflows(s) == 1;
	case TLS:
		len = sizeof(ulp);
		must(getsockopt(s, IPPROTO_TCP, TCP_ULP, ulp, &len));
		return !strcmp(ulp, "tls");
	case FASTOPEN:
		must(getsockopt(s, IPPROTO_TCP, TCP_INFO, &info, &len));
		return info.tcpi_options & TCPI_OPT_SYN_DATA;
	case SOCKMAP:
		return is_held(s);
	case MAPPED:
		len = sizeof(peer);
		must(getpeername(s, (void *)&peer, &len));
		return !client || (peer.sin6_family == AF_INET6 &&
				   IN6_IS_ADDR_V4MAPPED(&peer.sin6_addr));
	default:
		return false;
	}
}

static bool says(int from, int to)
{
	struct pollfd p = { .fd = to, .events = POLLIN };
	char buf[8];

	return send(from, "hello", 5, MSG_NOSIGNAL) == 5 && poll(&p, 1, LIMIT * 1000) == 1 &&
	       recv(to, buf, sizeof(buf), 0) == 5 && !memcmp(buf, "hello", 5);
}

static bool talk(struct pair p)
{
	return says(p.client, p.server) && says(p.server, p.client);
}

/* --- and its end */

/* What epoll tells of a socket, at last. */
static __u32 events(int s, __u32 wanted)
{
	struct epoll_event e = { .events = EPOLLIN | EPOLLRDHUP };
	int ep = must(epoll_create1(EPOLL_CLOEXEC));
	double end = now() + LIMIT;

	must(epoll_ctl(ep, EPOLL_CTL_ADD, s, &e));
	do {
		e.events = 0;
		must(epoll_wait(ep, &e, 1, 1000));
	} while (!(e.events & wanted) && !usleep(10000) && now() < end);
	close(ep);
	return e.events;
}

static int read_err(int s)
{
	char byte;

	return recv(s, &byte, 1, MSG_DONTWAIT) < 0 ? errno : 0;
}

static int write_err(int s)
{
	return send(s, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? errno : 0;
}

static void make_sites(enum kind kind, struct site *sites)
{
	for (struct site *s = sites; s < sites + NETS; s++) {
		s->net = new_net(home, s > sites, false);
		must(setns(s->net, CLONE_NEWNET));
		prepare(kind);
		s->listener = listen_at(kind, VICTIM);
		s->bystanders = listen_at(kind, BYSTANDER);
		s->victim = connect_to(kind, s->listener, VICTIM);
		s->bystander = connect_to(kind, s->bystanders, BYSTANDER);
		must(setns(home, CLONE_NEWNET));
	}
}

static void check_sites(enum kind kind, struct site *sites)
{
	int wrong = 0;

	for (struct site *s = sites; s < sites + NETS; s++) {
		/* MPTCP has one path more only when data was on the first */
		wrong += !talk(s->victim) + !talk(s->bystander);
		wrong += !is_of(kind, s->victim.client, true);
		wrong += !is_of(kind, s->victim.server, false);
		wrong += !is_of(kind, s->bystander.client, true);
	}
	ok(!wrong, "%s connections: %d wrong", kinds[kind], wrong);
}

static void destroy(const char *what, int lport, int dport, unsigned int expected)
{
	struct sockiter_req r;
	char command[256];

	if (tool) {
		snprintf(command, sizeof(command), "%s kill %s %d %s", tool,
			 lport ? "sport" : "dport", lport ?: dport, lport ? "state listening" : "");
		ok(!shell(command), "%s", command);
	} else {
		r = run(SOCKITER_ONE, IPPROTO_TCP, 1, lport, dport);
		ok(r.matched == expected && r.killed == expected && !r.err,
		   "%s: %u of %u matched, %u killed, %u busy, error %d", what, r.matched, expected,
		   r.killed, r.busy, r.err);
	}
	r = run(SOCKITER_ONE, IPPROTO_TCP, 0, lport, dport);
	ok(!r.matched && !r.err, "%s: %u left", what, r.matched);
}

/* The owner is told when it reads or writes, and by epoll. */
static void check_ends(struct pair p, const char *what, bool writes)
{
	__u32 client = events(p.client, EPOLLERR), server = events(p.server, EPOLLERR);
	int err = writes ? write_err(p.client) : read_err(p.client), reset = sock_err(p.server);

	ok((client & (EPOLLERR | EPOLLHUP)) == (EPOLLERR | EPOLLHUP) && err == ECONNABORTED,
	   "%s: client polls %#x, %s %s", what, client, writes ? "writes" : "reads",
	   strerrorname_np(err));
	ok((server & (EPOLLERR | EPOLLHUP)) == (EPOLLERR | EPOLLHUP) && reset == ECONNRESET,
	   "%s: server polls %#x, has %s", what, server, strerrorname_np(reset));
}

/*
 * An MPTCP connection outlives its subflows, for it can have new ones. When net.mptcp's
 * close_timeout is over, it ends: without an error, but it can't be used.
 */
static void check_mptcp_ends(struct pair p)
{
	for (int i = 0; i < 2; i++) {
		int s = i ? p.server : p.client;
		__u32 e = events(s, EPOLLHUP);
		int err = sock_err(s), in = read_err(s), out = write_err(s);

		ok(e & EPOLLHUP && !err && in == ENOTCONN && out == EPIPE,
		   "%s polls %#x, has %s, reads %s, writes %s", i ? "server" : "client", e,
		   strerrorname_np(err), strerrorname_np(in), strerrorname_np(out));
	}
}

static void more_mptcp(struct site *sites)
{
	struct sockiter_req r = run(SOCKITER_ONE, IPPROTO_TCP, 1, VICTIM, 0);
	int wrong = 0;

	ok(r.matched == NETS && !r.killed && r.err == -EINVAL,
	   "listeners of MPTCP: %u matched, %u killed, error %d", r.matched, r.killed, r.err);
	for (struct site *s = sites; s < sites + NETS; s++) {
		struct pair p;
		int l;

		must(setns(s->net, CLONE_NEWNET));
		p = connect_to(MPTCP, s->listener, VICTIM);
		wrong += !talk(p);
		close_pair(p);

		/* who fell back to TCP has only that */
		l = listen_at(MAPPED, PLAIN);
		p = connect_to(MPTCP, l, PLAIN);
		ok(subflows(p.client) < 0, "fell back");
		destroy("fallen back", 0, PLAIN, 1);
		check_ends(p, "fallen back", false);
		close_pair(p);
		close(l);
		must(setns(home, CLONE_NEWNET));
	}
	ok(!wrong, "listeners of MPTCP listen on: %d do not", wrong);
}

/* A client that hears nothing but a reset. */
static int half_client(int bound)
{
	struct sock_filter deaf[] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),		/* flags of TCP */
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 4, 0, 1),	/* RST */
		BPF_STMT(BPF_RET | BPF_K, 0xffff),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog prog = { sizeof(deaf) / sizeof(*deaf), deaf };
	int s = sock(AF_INET, SOCK_STREAM, bound, 0);
	struct sockaddr_storage a;
	socklen_t len = address(&a, AF_INET, VICTIM);

	must(setsockopt(s, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)));
	must(sendto(s, "x", 1, MSG_FASTOPEN | MSG_DONTWAIT, (void *)&a, len));
	return s;
}

static void check_refused(int s, const char *what)
{
	__u32 e = events(s, EPOLLERR);
	int err = sock_err(s);

	ok(e & EPOLLERR && err == ECONNREFUSED, "%s: its peer polls %#x, has %s", what, e,
	   strerrorname_np(err));
}

/* Fast open gives the server a socket while the handshake goes on: SYN_RECV. */
static void more_fastopen(struct site *sites)
{
	int client[NETS], child[NETS], late[NETS];
	struct sockiter_req r;
	__u32 e;

	for (int i = 0; i < NETS; i++) {
		int queued;

		must(setns(sites[i].net, CLONE_NEWNET));
		client[i] = half_client(HALF);
		child[i] = must(accept(sites[i].listener, NULL, NULL));
		ok(tcp_state(child[i]) == TCP_SYN_RECV && tcp_state(client[i]) == TCP_SYN_SENT,
		   "half open: states %d and %d", tcp_state(child[i]), tcp_state(client[i]));
		destroy("half open", 0, HALF, 1);
		e = events(child[i], EPOLLERR);
		ok(e & EPOLLERR && sock_err(child[i]) == ECONNABORTED, "half open: polls %#x", e);
		check_refused(client[i], "half open");
		close(child[i]);
		close(client[i]);

		queued = half_client(HALF_QUEUED);
		destroy("half open, to be accepted", 0, HALF_QUEUED, 1);
		check_refused(queued, "half open, to be accepted");
		child[i] = must(accept(sites[i].listener, NULL, NULL));
		ok(sock_err(child[i]) == ECONNABORTED, "half open, accepted too late");
		close(child[i]);
		close(queued);
	}

	for (int i = 0; i < NETS; i++) {
		must(setns(sites[i].net, CLONE_NEWNET));
		client[i] = half_client(HALF);
		child[i] = must(accept(sites[i].listener, NULL, NULL));
		late[i] = half_client(HALF_LATE);
	}
	must(setns(home, CLONE_NEWNET));

	/* listeners go first, and take along what they have not accepted */
	r = run(SOCKITER_ONE, IPPROTO_TCP, 0, 0, HALF_LATE);
	ok(r.matched == NETS, "to be accepted: %u", r.matched);
	r = run(SOCKITER_ONE, IPPROTO_TCP, 1, VICTIM, 0);
	ok(r.matched == 2 * NETS && r.killed == 2 * NETS && !r.err,
	   "listeners and half open ones: %u matched, %u killed, %u gone, error %d", r.matched,
	   r.killed, r.gone, r.err);
	for (int i = 0; i < NETS; i++) {
		ok(sock_err(child[i]) == ECONNABORTED &&
		   sock_err(sites[i].listener) == ECONNABORTED,
		   "listeners and half open ones are told");
		check_refused(client[i], "half open, accepted");
		check_refused(late[i], "half open, not accepted");
		close(child[i]);
		close(client[i]);
		close(late[i]);
	}
}

/* What the owner has not closed stays in the map, but has no more data for it. */
static void more_sockmap(struct site *sites)
{
	__u32 key, *prev = NULL;
	int left = 0;

	for (struct site *s = sites; s < sites + NETS; s++)
		hold_in_map(s->listener);
	destroy("listeners", VICTIM, 0, NETS);
	for (struct site *s = sites; s < sites + NETS; s++) {
		close_pair(s->victim);
		close(s->listener);
	}
	for (; !bpf_map_get_next_key(held, prev, &key); prev = &key)
		left++;
	ok(left == 2 * NETS, "in the map are the bystanders: %d of %d", left, 2 * NETS);
}

static void test_kind(enum kind kind)
{
	static const char record[8000];
	struct site sites[NETS];
	int wrong = 0;

	make_sites(kind, sites);
	check_sites(kind, sites);
	/* with records on the way */
	for (struct site *s = sites; kind == TLS && s < sites + NETS; s++)
		while (send(s->victim.client, record, sizeof(record), MSG_DONTWAIT) > 0)
			;
	destroy(kinds[kind], 0, VICTIM, kind == MPTCP ? 2 * NETS : NETS);
	for (struct site *s = sites; s < sites + NETS; s++) {
		if (kind == MPTCP)
			check_mptcp_ends(s->victim);
		else
			check_ends(s->victim, kinds[kind], s > sites);
	}
	if (kind == MPTCP)
		more_mptcp(sites);
	else if (kind == FASTOPEN)
		more_fastopen(sites);
	else if (kind == SOCKMAP)
		more_sockmap(sites);
	for (struct site *s = sites; s < sites + NETS; s++)
		wrong += !talk(s->bystander);
	ok(!wrong, "bystanders talk on: %d do not", wrong);
}

/* --- without memory */

/* Sockets of one bucket; the batch starts with room for fewer, and grows within a slab. */
enum { CROWD = 600 };

struct outcomes {
	int refused, not_made, early, whole, wrong;
};

static void judge(struct outcomes *o, int err, const struct sockiter_req *r, const int *crowd)
{
	int missing = 0;

	if (err) {
		o->refused++;
		return;
	}
	if (r->made || r->err)
		o->wrong += r->err != -ENOMEM || repeats(skel->maps.cookies) > 0;
	if (r->made) {
		o->not_made++;
		o->wrong += r->made != -ENOMEM || r->seen;
	} else if (r->err) {
		o->early++;
	} else {
		o->whole++;
		for (int i = 0; i < CROWD; i++)
			missing += !once(crowd[i]);
		o->wrong += missing || repeats(skel->maps.cookies);
	}
}

/*
 * Let allocations of the walk fail: one after the other alone, then all from one on. A
 * walk says that it is not whole, or is.
 */
static void starve(int proto, const int *crowd)
{
	int nth = fault_nth();
	int fails = must(open("/proc/self/make-it-fail", O_RDWR | O_CLOEXEC));
	int space = must(open("/sys/kernel/debug/failslab/space", O_RDWR | O_CLOEXEC));
	struct outcomes one = {}, all = {};
	struct sockiter_req ask = { .mode = SOCKITER_ONE, .proto = proto }, r;
	bool failed = true;
	int err, runs;

	for (runs = 1; failed; runs++) {
		r = ask;
		forget(skel->maps.cookies);
		fault_number(nth, runs);
		err = try_prog(skel->progs.sockiter_run, &r);
		failed = fault_happened(nth);
		judge(&one, err, &r, crowd);
	}
	ok(!one.wrong && one.refused && one.not_made && one.whole > 1,
	   "%s: the Nth alone fails, %d runs: %d refused, %d not begun, %d early, %d whole, %d wrong",
	   proto == IPPROTO_TCP ? "TCP" : "UDP", runs - 1, one.refused, one.not_made, one.early,
	   one.whole, one.wrong);

	for (runs = 0; !all.whole; runs++) {
		r = ask;
		forget(skel->maps.cookies);
		fault_number(space, runs * 32);
		fault_number(fails, 1);
		err = try_prog(skel->progs.sockiter_run, &r);
		fault_number(fails, 0);
		judge(&all, err, &r, crowd);
	}
	ok(!all.wrong && all.refused && all.not_made && all.early,
	   "%s: those after N bytes fail, %d runs: %d refused, %d not begun, %d early, %d wrong",
	   proto == IPPROTO_TCP ? "TCP" : "UDP", runs, all.refused, all.not_made, all.early,
	   all.wrong);
	close(nth);
	close(fails);
	close(space);
}

static void test_failures(void)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM };
	int crowd[CROWD], net = new_net(home, false, false);

	fault_all("failslab");
	fault_option("failslab", "task-filter", "Y");
	fault_option("failslab", "times", "-1");
	fault_option("failslab", "probability", "100");
	must(setns(net, CLONE_NEWNET));
	for (int t = 0; t < 2; t++) {
		struct outcomes o = {};
		struct sockiter_req r;

		for (int i = 0; i < CROWD; i++) {
			crowd[i] = sock(AF_INET, types[t], GROUP, 0);
			if (types[t] == SOCK_STREAM)
				must(listen(crowd[i], 1));
		}
		starve(t ? IPPROTO_UDP : IPPROTO_TCP, crowd);
		r = run(SOCKITER_ONE, t ? IPPROTO_UDP : IPPROTO_TCP, 0, 0, 0);
		judge(&o, 0, &r, crowd);
		ok(o.whole && !o.wrong, "with memory all is seen: %u", r.seen);
		for (int i = 0; i < CROWD; i++)
			close(crowd[i]);
	}
	must(setns(home, CLONE_NEWNET));
	fault_option("failslab", "probability", "0");
}

/* --- references */

/* TCP sockets of all namespaces that are allocated, and namespaces. */
struct counts {
	long sockets;
	__u32 nets;
};

static struct counts count_all(void)
{
	FILE *f = fopen("/proc/net/sockstat", "re");
	struct counts c = { .nets = run(SOCKITER_NETS, 0, 0, 0, 0).nets };
	char line[256], *at;

	if (!f)
		must(-1);
	while (fgets(line, sizeof(line), f)) {
		at = strstr(line, " alloc ");
		if (!strncmp(line, "TCP:", 4) && at)
			c.sockets = atol(at + 7);
	}
	fclose(f);
	return c;
}

/* Orphans, and namespaces without users, go in their own time. */
static struct counts settle(struct counts at, int seconds)
{
	double end = now() + seconds;
	struct counts c;

	do
		c = count_all();
	while ((c.sockets > at.sockets || c.nets > at.nets) && !usleep(20000) && now() < end);
	return c;
}

static bool back(struct counts c, struct counts at)
{
	return c.sockets <= at.sockets && c.nets <= at.nets;
}

/* One socket that is held shows that the counts would tell of a leak. */
static void test_references(void)
{
	enum { SITES = 6 };
	int fds[SITES * (4 * KINDS + 8)], n = 0, kept;
	struct counts before, with, after;
	struct sockiter_req r;

	/* what stays from the first of its kind on */
	close(mptcp_socket());
	before = count_all();
	for (int i = 0; i < SITES; i++) {
		int net = new_net(home, i == 1 || i == 2, i == 2 || i == 3);

		must(setns(net, CLONE_NEWNET));
		for (int kind = 0; kind < KINDS; kind++) {
			int l;

			prepare(kind);
			l = listen_at(kind, VICTIM + kind);
			for (int k = 0; k < 2; k++) {
				struct pair p = connect_to(kind, l, VICTIM + kind);

				must(talk(p) ? 0 : -1);
				fds[n++] = p.client;
				fds[n++] = p.server;
			}
			fds[n++] = l;
		}
		fds[n++] = sock(AF_INET, SOCK_DGRAM, VICTIM, 0);
		fds[n++] = sock(AF_INET, SOCK_DGRAM, 0, VICTIM);
		/* a request: half of it, for a listener who waits for data */
		fds[n] = sock(AF_INET, SOCK_STREAM, PLAIN, 0);
		must(setsockopt(fds[n], IPPROTO_TCP, TCP_DEFER_ACCEPT, &(int){ 60 }, sizeof(int)));
		must(listen(fds[n++], 16));
		fds[n++] = sock(AF_INET, SOCK_STREAM, 0, PLAIN);
		must(setns(home, CLONE_NEWNET));
		close(net);
	}
	with = count_all();
	/* one kind is looked at, and not destroyed */
	for (int mode = 0; mode < 2; mode++)
		for (int port = VICTIM; port < VICTIM + KINDS; port++) {
			r = run(mode, IPPROTO_TCP, port != VICTIM + MAPPED, 0, port);
			if (r.err)
				ok(false, "walk: error %d", r.err);
			run(mode, IPPROTO_UDP, 1, port, 0);
		}
	r = (struct sockiter_req) { .lport = PLAIN, .dport = PLAIN };
	run_prog(skel->progs.sockiter_twice, &r);
	kept = fds[--n];
	while (n--)
		close(fds[n]);
	close(held);
	after = settle(before, 3);
	ok(with.sockets > before.sockets + SITES * 10 && with.nets == before.nets + SITES &&
	   !back(after, before), "one is kept: %ld of %ld sockets more, %u of %u namespaces",
	   after.sockets - before.sockets, with.sockets - before.sockets,
	   after.nets - before.nets, with.nets - before.nets);
	close(kept);
	after = settle(before, LIMIT);
	ok(back(after, before), "none is kept: %ld sockets more, %d namespaces",
	   after.sockets - before.sockets, (int)(after.nets - before.nets));
}

/* --- while all moves */

enum { STORM_NETS = 4, EACH = 4, CROWD_UDP = 5000, OTHER = 6000 };

/* In a namespace of its own, with all that is in it, which nobody destroys. */
static void storm_nets(void)
{
	int net = new_net(home, rand() % 2, rand() % 2), fds[3 * KINDS], n = 0;

	must(setns(net, CLONE_NEWNET));
	prepare(FASTOPEN);
	for (int kind = 0; kind < KINDS; kind++) {
		int l = listen_at(kind, OTHER + kind);
		struct pair p = connect_to(kind, l, OTHER + kind);

		if (!talk(p))
			exit(EXIT_FAILURE);
		fds[n++] = l;
		fds[n++] = p.client;
		fds[n++] = p.server;
	}
	must(setns(home, CLONE_NEWNET));
	close(net);
	while (n--)
		close(fds[n]);
}

static pid_t storm_child(void)
{
	pid_t pid = must(fork());

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		srand(getpid());
		for (;;)
			storm_nets();
	}
	return pid;
}

static pthread_barrier_t start;

/* A socket that is locked just then is left: again, until there is none. */
static void *destroyer(void *arg)
{
	struct sockiter_req *sum = arg, r;

	pthread_barrier_wait(&start);
	for (int port = VICTIM; port < VICTIM + 2; port++)
		do {
			r = (struct sockiter_req) {
				.mode = SOCKITER_ONE, .proto = IPPROTO_TCP, .kill = 1,
				.dport = port,
			};
			run_prog(skel->progs.sockiter_run, &r);
			sum->matched += r.matched;
			sum->killed += r.killed;
			sum->busy += r.busy;
			sum->gone += r.gone;
			sum->err = r.err ?: sum->err;
		} while (r.matched);
	return NULL;
}

static void *nester(void *arg)
{
	struct sockiter_req *r = arg;

	pthread_barrier_wait(&start);
	*r = (struct sockiter_req) { .lport = PLAIN, .dport = PLAIN };
	run_prog(skel->progs.sockiter_twice, r);
	return NULL;
}

struct tally {
	int rounds, victims, wrong, busy, gone, nested, udp_rounds, udp_wrong;
};

/* Victims of all kinds for two destroyers at once, and others for one that meets itself. */
static void round_tcp(const int *nets, struct tally *t)
{
	struct pair pairs[STORM_NETS][KINDS][EACH], plain[STORM_NETS][EACH];
	int listeners[STORM_NETS][3], victims = 0, wrong = 0;
	struct sockiter_req sums[2] = {}, nested;
	pthread_t threads[3];

	for (int i = 0; i < STORM_NETS; i++) {
		must(setns(nets[i], CLONE_NEWNET));
		listeners[i][0] = listen_at(MAPPED, VICTIM);
		listeners[i][1] = listen_at(MPTCP, VICTIM + 1);
		listeners[i][2] = listen_at(MAPPED, PLAIN);
		for (int k = 0; k < EACH; k++) {
			for (int kind = 0; kind < KINDS; kind++)
				pairs[i][kind][k] = connect_to(kind, listeners[i][kind == MPTCP],
							       VICTIM + (kind == MPTCP));
			plain[i][k] = connect_to(MAPPED, listeners[i][2], PLAIN);
			victims += KINDS;
		}
	}
	must(setns(home, CLONE_NEWNET));

	for (int i = 0; i < 2; i++)
		must(-pthread_create(&threads[i], NULL, destroyer, &sums[i]));
	must(-pthread_create(&threads[2], NULL, nester, &nested));
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);

	for (int i = 0; i < STORM_NETS; i++) {
		for (int k = 0; k < EACH; k++) {
			for (int kind = 0; kind < KINDS; kind++) {
				struct pair p = pairs[i][kind][k];

				if (kind != MPTCP)
					wrong += sock_err(p.client) != ECONNABORTED ||
						 sock_err(p.server) != ECONNRESET;
				close_pair(p);
			}
			wrong += tcp_state(plain[i][k].client) != TCP_CLOSE ||
				 tcp_state(plain[i][k].server) != TCP_CLOSE;
			close_pair(plain[i][k]);
		}
		for (int k = 0; k < 3; k++)
			close(listeners[i][k]);
	}
	/* each once, by one of the two: none of the MPTCP connections has a second path */
	if (wrong || sums[0].killed + sums[1].killed != (__u32)victims || sums[0].err ||
	    sums[1].err || nested.err)
		ok(false, "round %d: %d wrong, %u + %u of %d killed, errors %d, %d, %d", t->rounds,
		   wrong, sums[0].killed, sums[1].killed, victims, sums[0].err, sums[1].err,
		   nested.err);
	t->wrong += wrong;
	t->victims += victims;
	t->busy += sums[0].busy + sums[1].busy;
	t->gone += sums[0].gone + sums[1].gone;
	t->nested += nested.killed;
}

/* A large bucket: destroyed or not, bound sockets stay in it. */
static void round_udp(const int *crowd, struct tally *t)
{
	struct sockiter_req r = run(SOCKITER_ONE, IPPROTO_UDP, t->udp_rounds % 2, GROUP, 0);
	int missing = 0, untold = 0;

	for (int i = 0; i < CROWD_UDP; i++) {
		missing += !once(crowd[i]);
		untold += sock_err(crowd[i]) != (t->udp_rounds % 2 ? ECONNABORTED : 0);
	}
	if (missing || untold || r.matched != CROWD_UDP || r.err)
		ok(false, "UDP: %d of %d missing, %d untold, %u matched, %u busy, error %d",
		   missing, CROWD_UDP, untold, r.matched, r.busy, r.err);
	t->udp_wrong += missing + untold;
	t->udp_rounds++;
}

static void test_storm(double seconds)
{
	int nets[STORM_NETS], crowd[CROWD_UDP], status;
	double end = now() + seconds;
	struct tally t = {};
	pid_t children[2];

	pthread_barrier_init(&start, NULL, 3);
	for (int i = 0; i < STORM_NETS; i++) {
		nets[i] = new_net(home, i == 1, i == 2);
		must(setns(nets[i], CLONE_NEWNET));
		prepare(FASTOPEN);
		must(setns(home, CLONE_NEWNET));
	}
	must(setns(nets[0], CLONE_NEWNET));
	for (int i = 0; i < CROWD_UDP; i++)
		crowd[i] = sock(AF_INET, SOCK_DGRAM, GROUP, 0);
	must(setns(home, CLONE_NEWNET));
	for (int i = 0; i < 2; i++)
		children[i] = storm_child();

	do {
		round_tcp(nets, &t);
		if (!(t.rounds % 4))
			round_udp(crowd, &t);
		t.rounds++;
	} while (now() < end);

	for (int i = 0; i < 2; i++) {
		ok(!waitpid(children[i], &status, WNOHANG), "storm %d lives", i);
		kill(children[i], SIGKILL);
		waitpid(children[i], &status, 0);
	}
	ok(!t.wrong, "%d rounds: %d of %d victims wrong", t.rounds, t.wrong, t.victims);
	ok(!t.udp_wrong, "%d rounds of %d UDP sockets: %d wrong", t.udp_rounds, CROWD_UDP,
	   t.udp_wrong);
	ok(t.nested > 0, "%d busy, %d gone meanwhile, %d by nested loops", t.busy, t.gone,
	   t.nested);
}

int main(int argc, char **argv)
{
	struct rlimit files = { 1 << 20, 1 << 20 };
	const char *verb = argc > 1 ? argv[1] : "";
	int kind = 0;

	tool = argc > 2 ? argv[2] : NULL;
	setrlimit(RLIMIT_NOFILE, &files);
	home = must(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
	skel = sockiter__open_and_load();
	if (!skel)
		return EXIT_FAILURE;
	while (kind < KINDS && strcmp(verb, kinds[kind]))
		kind++;
	if (kind < KINDS)
		test_kind(kind);
	else if (!strcmp(verb, "failures"))
		test_failures();
	else if (!strcmp(verb, "references"))
		test_references();
	else if (!strcmp(verb, "storm") && argc > 2)
		test_storm(atof(argv[2]));
	else
		return 2;
	sockiter__destroy(skel);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
