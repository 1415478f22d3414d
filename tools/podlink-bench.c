// SPDX-License-Identifier: GPL-2.0-only
/*
 * podlink bench: what a packet costs on each way, by each kind of link, on this machine.
 *
 * One thread, on one CPU, is both ends of every connection, so that all that a packet
 * costs lies between two readings of a clock, and nobody has to be woken up. Contenders
 * are there at once and each round goes through them in turn: what else the machine does
 * meets all of them. Ratios are of figures of the same round. A run counts only when all
 * that was sent has arrived.
 */
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <linux/perf_event.h>

#include "podlink-lab.h"
#include "podlink-verbs.h"

#define PORT	 5000		/* and on: each pair of sockets has one */
#define BYTES	 18		/* of a datagram */
#define BUFFER	 (64 << 20)	/* of its receiver's socket */
#define BULK	 8192		/* bytes of a connection per --count */
#define BIG_TCP	 196608
#define WINDOW	 32		/* datagrams on the way through a tunnel */
#define SECOND	 1000000000LL
#define PATIENCE 5		/* seconds, for what must arrive */

enum what { DATAGRAM, ROUND_TRIP, STREAM };

static const char *const units[] = {"packet", "round trip", "KiB"};

enum way { OUT, IN, POD };

static const struct path {
	const char *name;
	enum what what;
	enum way way;
	bool six;
} paths[] = {
	{"out", DATAGRAM, OUT, false},	   {"in", DATAGRAM, IN, false},
	{"pod", DATAGRAM, POD, false},	   {"out6", DATAGRAM, OUT, true},
	{"in6", DATAGRAM, IN, true},	   {"pod6", DATAGRAM, POD, true},
	{"rr-out", ROUND_TRIP, OUT, false},  {"rr-pod", ROUND_TRIP, POD, false},
	{"rr-out6", ROUND_TRIP, OUT, true},  {"rr-pod6", ROUND_TRIP, POD, true},
	{"tcp-out", STREAM, OUT, false},	   {"tcp-in", STREAM, IN, false},
	{"tcp-pod", STREAM, POD, false},	   {"tcp-out6", STREAM, OUT, true},
	{"tcp-in6", STREAM, IN, true},	   {"tcp-pod6", STREAM, POD, true},
};

/* One end: a socket's namespace, and its address. */
struct end {
	struct pl_ns *ns;
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} addr;
	socklen_t len;
	const struct pl_link *link; /* by which it receives */
};

struct sample {
	double ns, instructions; /* of a unit */
	double passes;		 /* of the receive path, per packet that was sent or unit */
	double bytes;		 /* of a packet that was received; STREAM */
};

/* One line of the result. */
struct row {
	const struct path *path;
	enum pl_contender contender;
	__u32 gso; /* STREAM; 0: not one of the size */
	struct end from, to;
	int fd[2]; /* from, to */
	struct sample *samples;
};

static struct {
	struct pl_lab lab;
	bool present[PL_CONTENDERS];
	struct row *rows;
	size_t nrows;
	__u32 rounds, count, done;
	int counter; /* of instructions; -1: none */
	int cpu;
	json_t *warnings, *skipped, *copies;
} bench;

static void __attribute__((format(printf, 1, 2))) warning(const char *fmt, ...)
{
	char line[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	json_array_append_new(bench.warnings, json_string(line));
	complain("bench: %s", line);
}

static void skip(const char *what, const char *why)
{
	json_array_append_new(bench.skipped, json_pack("{s:s, s:s}", "what", what, "why", why));
	complain("bench: %s is left out: %s", what, why);
}

/* --- clocks and counters --- */

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND + t.tv_nsec;
}

static int perf_open(__u32 type, __u64 config, const char *probe, int cpu)
{
	struct perf_event_attr attr = {
		.type = type,
		.size = sizeof(attr),
		.config = config,
		.config1 = (__u64)(uintptr_t)probe,
	};

	return syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);
}

static __u64 perf_read(int fd)
{
	__u64 n = 0;

	return fd >= 0 && read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

/* The first column is of packets that a CPU has received. */
static long passes(void)
{
	FILE *f = fopen("/proc/net/softnet_stat", "re");
	char line[512];
	long sum = 0;

	while (f && fgets(line, sizeof(line), f))
		sum += strtol(line, NULL, 16);
	if (f)
		fclose(f);
	return sum;
}

struct reading {
	long long ns;
	__u64 instructions;
	long passes;
};

static struct reading begin(void)
{
	struct reading r = {.passes = passes()};

	r.instructions = perf_read(bench.counter);
	r.ns = now();
	return r;
}

/* The passes are read later: when all has arrived. */
static void end(struct reading *r)
{
	r->ns = now() - r->ns;
	r->instructions = perf_read(bench.counter) - r->instructions;
}

static struct sample sample(const struct reading *r, double units_done)
{
	return (struct sample){
		.ns = r->ns / units_done,
		.instructions = r->instructions / units_done,
		.passes = (passes() - r->passes) / units_done,
	};
}

/* --- sockets --- */

static struct end end_of(struct pl_ns *ns, const struct pl_link *link, bool six, const char *four,
			 const char *addr6)
{
	struct end e = {.ns = ns, .link = link};

	if (six) {
		e.len = sizeof(e.addr.in6);
		e.addr.in6.sin6_family = AF_INET6;
		inet_pton(AF_INET6, addr6, &e.addr.in6.sin6_addr);
	} else {
		e.len = sizeof(e.addr.in);
		e.addr.in.sin_family = AF_INET;
		inet_pton(AF_INET, four, &e.addr.in.sin_addr);
	}
	return e;
}

static struct end end_pod(enum pl_contender c, int which, bool six)
{
	struct pl_lab_pod *pod = &bench.lab.pod[c][which];
	char four[32], addr6[32];

	snprintf(four, sizeof(four), "10.0.%d.%d", c, which + 2);
	snprintf(addr6, sizeof(addr6), "fd00::%d:%d", c, which + 2);
	return end_of(&pod->ns, &pod->peer, six, four, addr6);
}

static void ends(struct row *row, __u16 port)
{
	const struct path *p = row->path;
	struct end pod, world = end_of(&bench.lab.world, &bench.lab.eth0, p->six, "192.0.2.9",
				       "2001:db8::9");

	pod = row->contender == PL_HOST ? end_of(&bench.lab.host, &bench.lab.uplink, p->six,
						 "192.0.2.1", "2001:db8::1")
					: end_pod(row->contender, 0, p->six);
	row->from = p->way == IN ? world : pod;
	row->to = p->way == IN ? pod : p->way == OUT ? world : end_pod(row->contender, 1, p->six);
	/* at one place in both */
	row->to.addr.in.sin_port = htons(port);
}

static int told(const struct row *row, const char *what)
{
	complain_err(errno, row->path ? row->path->name : "tunnel", "%s: %s",
		     pl_contenders[row->contender], what);
	return FAILED;
}

static int sock(const struct row *row, const struct end *e, int type)
{
	const struct timeval patience = {.tv_sec = PATIENCE};
	const int size = BUFFER, one = 1;
	int fd;

	if (pl_ns_enter(e->ns))
		return -1;
	fd = socket(e->addr.sa.sa_family, type | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    (type == SOCK_STREAM && setsockopt(fd, SOL_TCP, TCP_NODELAY, &one, sizeof(one)))) {
		told(row, "cannot make a socket");
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return fd;
}

static void disconnect(struct row *row)
{
	for (int i = 0; i < 2; i++) {
		if (row->fd[i] >= 0)
			close(row->fd[i]);
		row->fd[i] = -1;
	}
}

static int associate(struct row *row)
{
	row->fd[1] = sock(row, &row->to, SOCK_DGRAM);
	if (row->fd[1] < 0)
		return FAILED;
	row->fd[0] = sock(row, &row->from, SOCK_DGRAM);
	if (row->fd[0] < 0)
		return FAILED;
	if (bind(row->fd[1], &row->to.addr.sa, row->to.len) ||
	    connect(row->fd[0], &row->to.addr.sa, row->to.len))
		return told(row, "cannot connect");
	return DONE;
}

static int establish(struct row *row)
{
	int listener = sock(row, &row->to, SOCK_STREAM), rc = DONE;
	const struct timeval patience = {.tv_sec = PATIENCE};

	if (listener < 0)
		return FAILED;
	row->fd[0] = sock(row, &row->from, SOCK_STREAM);
	if (row->fd[0] < 0 || bind(listener, &row->to.addr.sa, row->to.len) ||
	    listen(listener, 1) || connect(row->fd[0], &row->to.addr.sa, row->to.len))
		rc = told(row, "cannot connect");
	if (!rc) {
		row->fd[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (row->fd[1] < 0 || setsockopt(row->fd[1], SOL_SOCKET, SO_RCVTIMEO, &patience,
						 sizeof(patience)))
			rc = told(row, "cannot accept");
	}
	close(listener);
	return rc;
}

/* --- runs --- */

/* n datagrams, without a pause between them */
static int datagrams(const struct row *row, __u32 n, struct reading *r)
{
	char buf[BYTES] = {0};
	__u32 sent = 0, received = 0;

	*r = begin();
	while (sent < n && send(row->fd[0], buf, sizeof(buf), 0) == sizeof(buf))
		sent++;
	end(r);
	if (sent < n)
		return told(row, "cannot send");
	while (received < n && recv(row->fd[1], buf, sizeof(buf), 0) == sizeof(buf))
		received++;
	if (received == n)
		return DONE;
	complain("%s: %s: %u of %u datagrams arrived; with a lower --count more may",
		 row->path ? row->path->name : "tunnel", pl_contenders[row->contender], received,
		 n);
	return FAILED;
}

static int round_trips(const struct row *row, __u32 n, struct reading *r)
{
	char byte = 0;

	*r = begin();
	for (__u32 i = 0; i < n; i++)
		for (int e = 0; e < 2; e++)
			if (send(row->fd[e], &byte, 1, MSG_NOSIGNAL) != 1 ||
			    recv(row->fd[!e], &byte, 1, 0) != 1)
				return told(row, "an answer did not arrive");
	end(r);
	return DONE;
}

static int stream(const struct row *row, size_t n, struct reading *r)
{
	static char buf[1 << 20];
	size_t sent = 0, received = 0;

	*r = begin();
	while (received < n) {
		size_t want = n - sent < sizeof(buf) ? n - sent : sizeof(buf);
		ssize_t out = 0, in;

		if (want)
			out = send(row->fd[0], buf, want, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (out < 0 && errno != EAGAIN)
			return told(row, "cannot send");
		in = recv(row->fd[1], buf, sizeof(buf), MSG_DONTWAIT);
		if (in < 0 && errno != EAGAIN)
			return told(row, "cannot receive");
		sent += out > 0 ? out : 0;
		received += in > 0 ? in : 0;
		if (out <= 0 && in <= 0) {
			struct pollfd p[] = {{row->fd[1], POLLIN, 0},
					     {row->fd[0], want ? POLLOUT : 0, 0}};

			if (poll(p, 2, PATIENCE * 1000) <= 0) {
				errno = ETIMEDOUT;
				return told(row, "the connection stands still");
			}
		}
	}
	end(r);
	return DONE;
}

/* What a connection's size depends on is asked when it is made: a new one each time. */
static int measure_stream(struct row *row, struct sample *s)
{
	size_t n = (size_t)bench.count * BULK;
	struct pl_link before, after;
	struct reading r;
	int rc = establish(row) ?: stream(row, n / 8 + 1, &r)
				?: pl_link_get(row->to.ns, NULL, row->to.link->ifindex, -1, &before)
				?: stream(row, n, &r)
				?: pl_link_get(row->to.ns, NULL, row->to.link->ifindex, -1, &after);

	disconnect(row);
	if (rc)
		return rc;
	*s = sample(&r, n / 1024.0);
	if (after.rx_packets > before.rx_packets)
		s->bytes = (double)(after.rx_bytes - before.rx_bytes) /
			   (after.rx_packets - before.rx_packets);
	return DONE;
}

static int measure(struct row *row, struct sample *s)
{
	struct reading r;
	int rc;

	switch (row->path->what) {
	case STREAM:
		return measure_stream(row, s);
	case ROUND_TRIP:
		rc = round_trips(row, bench.count, &r);
		break;
	default:
		rc = datagrams(row, bench.count, &r);
	}
	if (!rc)
		*s = sample(&r, bench.count);
	return rc;
}

/* The first one may have to wait for a neighbour, or be lost for it. */
static int warm_up(const struct row *row)
{
	struct pollfd p = {.fd = row->fd[1], .events = POLLIN};
	char buf[BYTES] = {0};

	for (int i = 0; i < 10 * PATIENCE; i++) {
		if (send(row->fd[0], buf, sizeof(buf), 0) < 0)
			return told(row, "cannot send");
		if (poll(&p, 1, 100) == 1)
			break;
	}
	/* late ones too */
	usleep(1000);
	for (int n = 0;; n++)
		if (recv(row->fd[1], buf, sizeof(buf), MSG_DONTWAIT) < 0) {
			errno = ETIMEDOUT;
			return n ? DONE : told(row, "nothing arrives");
		}
}

static void progress(const char *fmt, __u32 n, __u32 of)
{
	if (asked.json || !isatty(STDERR_FILENO))
		return;
	fputs("\r\033[K", stderr);
	if (fmt)
		fprintf(stderr, fmt, n, of);
	fflush(stderr);
}

static int rounds(void)
{
	long long until = now() + env.seconds * SECOND;
	__u32 gso = 0;
	int rc = DONE;

	for (size_t i = 0; !rc && i < bench.nrows; i++) {
		struct row *row = &bench.rows[i];

		if (row->path->what == DATAGRAM)
			rc = associate(row) ?: warm_up(row);
		else if (row->path->what == ROUND_TRIP)
			rc = establish(row);
	}
	/* the first one, which does not count, fills the caches */
	for (int round = -1; !rc && round < (int)bench.rounds; round++) {
		progress("round %u of %u", round + 1, bench.rounds);
		for (size_t i = 0; !rc && i < bench.nrows; i++) {
			struct row *row = &bench.rows[i];
			struct sample s;

			if (row->gso && row->gso != gso)
				rc = pl_lab_gso(&bench.lab, row->gso);
			gso = row->gso ?: gso;
			if (!rc)
				rc = measure(row, &s);
			if (!rc && round >= 0)
				row->samples[round] = s;
		}
		bench.done = round + 1;
		if (!rc && env.seconds && bench.done && now() > until)
			break;
	}
	progress(NULL, 0, 0);
	if (!rc && bench.done < bench.rounds)
		warning("only %u of %u rounds in %u seconds", bench.done, bench.rounds,
			env.seconds);
	return rc;
}

/* --- copies behind a tunnel --- */

struct copies {
	int *fd; /* one for each CPU */
	long n;
};

static int copies_open(struct copies *c)
{
	char *text = NULL;
	size_t len;
	__u32 type;
	int err = read_file("/sys/bus/event_source/devices/kprobe/type", 16, &text, &len);

	*c = (struct copies){.n = sysconf(_SC_NPROCESSORS_CONF)};
	if (!err && len && text[len - 1] == '\n')
		text[len - 1] = 0;
	if (err || !parse_u32(text, 0, INT32_MAX, &type)) {
		free(text);
		return LACKING;
	}
	free(text);
	c->fd = calloc(c->n, sizeof(*c->fd));
	if (!c->fd)
		return FAILED;
	for (int i = 0; i < c->n; i++) {
		c->fd[i] = perf_open(type, 0, "pskb_expand_head", i);
		/* ENODEV: a CPU that is off */
		if (c->fd[i] < 0 && errno != ENODEV)
			return LACKING;
	}
	return DONE;
}

static __u64 copies_read(const struct copies *c)
{
	__u64 sum = 0;

	for (int i = 0; i < c->n; i++)
		sum += perf_read(c->fd[i]);
	return sum;
}

static void copies_close(struct copies *c)
{
	for (int i = 0; c->fd && i < c->n; i++)
		if (c->fd[i] >= 0)
			close(c->fd[i]);
	free(c->fd);
}

static int order(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

struct range {
	double median, min, max;
};

static struct range range(double *v, size_t n)
{
	qsort(v, n, sizeof(*v), order);
	return (struct range){
		.median = n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2,
		.min = v[0],
		.max = v[n - 1],
	};
}

static json_t *range_json(const struct range *r)
{
	return json_pack("{s:f, s:f, s:f}", "median", r->median, "min", r->min, "max", r->max);
}

static const enum pl_contender through[] = {PL_VETH_STACK, PL_NETKIT_STACK, PL_NETKIT_ROOM};

static int copy_rounds(enum pl_tunnel t, const struct copies *c)
{
	double per[ARRAY_SIZE(through)][bench.rounds];
	struct row rows[ARRAY_SIZE(through)];
	struct reading r;
	char addr[16];
	int rc = DONE;

	snprintf(addr, sizeof(addr), "10.%d.0.9", t + 1);
	for (size_t i = 0; i < ARRAY_SIZE(through); i++) {
		rows[i] = (struct row){.contender = through[i], .fd = {-1, -1}};
		if (!rc && bench.present[through[i]]) {
			rows[i].from = end_pod(through[i], 0, false);
			rows[i].to = end_of(&bench.lab.world, NULL, false, addr, NULL);
			rows[i].to.addr.in.sin_port = htons(PORT + i);
			rc = associate(&rows[i]) ?: warm_up(&rows[i]);
		}
	}
	for (__u32 round = 0; !rc && round < bench.rounds; round++)
		for (size_t i = 0; !rc && i < ARRAY_SIZE(through); i++) {
			__u64 before = copies_read(c);
			__u32 sent = 0;

			while (bench.present[through[i]] && !rc && sent < bench.count) {
				__u32 n = bench.count - sent;

				rc = datagrams(&rows[i], n < WINDOW ? n : WINDOW, &r);
				sent += n < WINDOW ? n : WINDOW;
			}
			per[i][round] = (double)(copies_read(c) - before) / bench.count;
		}
	for (size_t i = 0; i < ARRAY_SIZE(through); i++) {
		const struct pl_link *link = &bench.lab.pod[through[i]][0].link;
		struct range all;
		json_t *one;

		disconnect(&rows[i]);
		if (rc || !bench.present[through[i]])
			continue;
		all = range(per[i], bench.rounds);
		one = range_json(&all);
		json_object_set_new(one, "tunnel", json_string(pl_tunnels[t]));
		json_object_set_new(one, "contender", json_string(pl_contenders[through[i]]));
		json_object_set_new(one, "headroom", json_integer(link->netkit.headroom));
		json_object_set_new(one, "tailroom", json_integer(link->netkit.tailroom));
		json_array_append_new(bench.copies, one);
	}
	return rc;
}

static bool chosen(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = list; p; p = strchr(p, ',')) {
		p += *p == ',';
		if (!strncmp(p, word, len) && (!p[len] || p[len] == ','))
			return true;
	}
	return !list;
}

static int copies(void)
{
	struct copies c = {0};
	int rc = DONE;

	for (enum pl_tunnel t = 0; !rc && t < PL_TUNNELS; t++) {
		if (!chosen(env.paths, pl_tunnels[t]))
			continue;
		rc = c.fd ? DONE : copies_open(&c);
		if (rc == LACKING) {
			skip("tunnels", "this kernel counts no calls (CONFIG_KPROBE_EVENTS)");
			rc = DONE;
			break;
		}
		if (!rc)
			rc = pl_lab_tunnel(&bench.lab, t);
		if (rc == LACKING) {
			skip(pl_tunnels[t], "this kernel has none");
			rc = DONE;
			continue;
		}
		if (!rc)
			rc = copy_rounds(t, &c);
	}
	copies_close(&c);
	return rc;
}

/* --- what there is to measure --- */

static bool tunnels(void)
{
	bool any = false;

	for (enum pl_tunnel t = 0; t < PL_TUNNELS; t++)
		any |= chosen(env.paths, pl_tunnels[t]);
	return any;
}

static int known(const char *list, const char *option)
{
	for (const char *p = list; p; p = strchr(p, ',')) {
		size_t len;
		bool is = false;

		p += *p == ',';
		len = strcspn(p, ",");
#define IS(name) is |= strlen(name) == len && !strncmp(p, name, len)
		for (size_t i = 0; list == env.paths && i < ARRAY_SIZE(paths); i++)
			IS(paths[i].name);
		for (size_t i = 0; list == env.paths && i < PL_TUNNELS; i++)
			IS(pl_tunnels[i]);
		for (size_t i = 0; list == env.contenders && i < PL_CONTENDERS; i++)
			IS(pl_contenders[i]);
#undef IS
		if (is)
			continue;
		complain("bench: --%s has no '%.*s'; podlink --help lists them", option, (int)len,
			 p);
		return USAGE;
	}
	return DONE;
}

static int contenders(void)
{
	const __u32 headroom = env.headroom < 0 ? 128 : env.headroom;
	const __u32 tailroom = env.tailroom < 0 ? 64 : env.tailroom;
	bool netkit = true;
	int rc = DONE;

	bench.present[PL_HOST] = chosen(env.contenders, pl_contenders[PL_HOST]);
	for (enum pl_contender c = PL_HOST + 1; !rc && c < PL_CONTENDERS; c++) {
		const bool veth = c == PL_VETH_PATH || c == PL_VETH_STACK;

		if (!chosen(env.contenders, pl_contenders[c]) ||
		    (c == PL_NETKIT_ROOM && !tunnels()))
			continue;
		rc = veth || netkit ? pl_lab_add(&bench.lab, c, headroom, tailroom) : LACKING;
		bench.present[c] = !rc;
		netkit &= veth || !rc;
		if (rc == LACKING) {
			skip(pl_contenders[c], "this kernel has no such links");
			rc = DONE;
		} else if (!rc && c == PL_NETKIT_ROOM &&
			   bench.lab.pod[c][0].link.netkit.headroom != headroom) {
			skip(pl_contenders[c], "netkit of this kernel has no headroom");
			bench.present[c] = false;
		}
	}
	return rc;
}

/* Paths outside, contenders inside, so that what is compared is measured at one time. */
static int table(void)
{
	const __u32 sizes[] = {1500, 65536, env.gso_max < 0 ? BIG_TCP : env.gso_max};
	size_t room = ARRAY_SIZE(paths) * ARRAY_SIZE(sizes) * PL_CONTENDERS;

	bench.rows = calloc(room, sizeof(*bench.rows));
	for (size_t p = 0; bench.rows && p < ARRAY_SIZE(paths); p++) {
		bool bulk = paths[p].what == STREAM;

		if (!chosen(env.paths, paths[p].name) || (paths[p].six && !bench.lab.six))
			continue;
		for (size_t g = 0; g < (bulk ? ARRAY_SIZE(sizes) : 1); g++)
			for (enum pl_contender c = 0; c < PL_NETKIT_ROOM; c++) {
				struct row *row = &bench.rows[bench.nrows];

				if (!bench.present[c] || (c == PL_HOST && paths[p].way == POD))
					continue;
				*row = (struct row){
					.path = &paths[p],
					.contender = c,
					.gso = bulk ? sizes[g] : 0,
					.fd = {-1, -1},
					.samples = calloc(bench.rounds, sizeof(*row->samples)),
				};
				if (!row->samples)
					return FAILED;
				ends(row, PORT + bench.nrows);
				bench.nrows++;
			}
	}
	return bench.rows ? DONE : FAILED;
}

/* --- the result --- */

static double column(const struct sample *s, int column)
{
	const double all[] = {s->ns, s->instructions, s->passes, s->bytes};

	return all[column];
}

static struct range row_range(const struct row *row, int col)
{
	double v[bench.done];

	for (__u32 i = 0; i < bench.done; i++)
		v[i] = column(&row->samples[i], col);
	return range(v, bench.done);
}

static const struct row *host_row(const struct row *row)
{
	for (size_t i = 0; i < bench.nrows; i++) {
		const struct row *h = &bench.rows[i];

		if (h->contender == PL_HOST && h->path == row->path && h->gso == row->gso)
			return h;
	}
	return NULL;
}

/* To the host's figure of the same round. */
static struct range ratio(const struct row *row, const struct row *host)
{
	double v[bench.done];

	for (__u32 i = 0; i < bench.done; i++)
		v[i] = row->samples[i].ns / host->samples[i].ns;
	return range(v, bench.done);
}

static json_t *row_json(const struct row *row)
{
	struct range ns = row_range(row, 0), insn = row_range(row, 1);
	const struct row *host = host_row(row);
	json_t *o = json_pack("{s:s, s:s, s:s, s:o, s:f}", "path", row->path->name, "contender",
			      pl_contenders[row->contender], "unit", units[row->path->what], "ns",
			      range_json(&ns), "passes", row_range(row, 2).median);

	if (bench.counter >= 0)
		json_object_set_new(o, "instructions", range_json(&insn));
	if (host) {
		struct range r = ratio(row, host);

		json_object_set_new(o, "ratio", range_json(&r));
	}
	if (row->gso) {
		json_object_set_new(o, "gso_max", json_integer(row->gso));
		json_object_set_new(o, "packet_bytes", json_real(row_range(row, 3).median));
		json_object_set_new(o, "mbit", json_real(8192e3 / ns.median));
	}
	return o;
}

static void row_print(const struct row *row)
{
	struct range ns = row_range(row, 0);
	const struct row *host = host_row(row);
	char span[32], rel[16] = "", insn[16] = "", more[64] = "";

	snprintf(span, sizeof(span), "[%.0f..%.0f]", ns.min, ns.max);
	if (host)
		snprintf(rel, sizeof(rel), "%.2f", ratio(row, host).median);
	if (bench.counter >= 0)
		snprintf(insn, sizeof(insn), "%.0f", row_range(row, 1).median);
	if (row->gso)
		snprintf(more, sizeof(more), "  gso %u: %.0f Mbit/s, packets of %.0f", row->gso,
			 8192e3 / ns.median, row_range(row, 3).median);
	printf("%-9s%-14s%9.0f %-20s%6s%10s%8.2f%s\n", row->path->name,
	       pl_contenders[row->contender], ns.median, span, rel, insn,
	       row_range(row, 2).median, more);
}

static void print(void)
{
	const struct path *last = NULL;
	json_t *c;
	size_t i;

	if (bench.nrows)
		printf("ns per packet, round trip (rr-) or KiB (tcp-): median [least..most] of %u "
		       "rounds of %u; ratio to the host's\n%-23s%9s %-20s%6s%10s%8s\n",
		       bench.done, bench.count, "", "ns", "", "ratio", "instr.", "passes");
	for (i = 0; i < bench.nrows; i++) {
		if (last && last != bench.rows[i].path)
			putchar('\n');
		last = bench.rows[i].path;
		row_print(&bench.rows[i]);
	}
	if (json_array_size(bench.copies))
		printf("\ncopies for want of room, per packet that leaves by a tunnel\n");
	json_array_foreach(bench.copies, i, c) {
		const char *tunnel, *who;
		int head, tail;
		double n;

		json_unpack(c, "{s:s, s:s, s:i, s:i, s:F}", "tunnel", &tunnel, "contender", &who,
			    "headroom", &head, "tailroom", &tail, "median", &n);
		printf("%-11s%-14sheadroom %4d, tailroom %4d:%8.2f\n", tunnel, who, head, tail, n);
	}
}

/* What makes the figures doubtful. */
static void doubts(void)
{
	double worst = 0;
	const struct row *at = NULL;

	for (size_t i = 0; bench.done > 1 && i < bench.nrows; i++) {
		struct range r = row_range(&bench.rows[i], 0);

		if ((r.max - r.min) / r.median > worst) {
			worst = (r.max - r.min) / r.median;
			at = &bench.rows[i];
		}
	}
	if (worst > .2)
		warning("a noisy machine: rounds differ by up to %.0f %% (%s %s); ratios are "
			"safer, and more --rounds",
			100 * worst, at->path->name, pl_contenders[at->contender]);
}

static int result(void)
{
	json_t *rows;

	doubts();
	if (!asked.json) {
		print();
		return DONE;
	}
	rows = json_array();
	for (size_t i = 0; i < bench.nrows; i++)
		json_array_append_new(rows, row_json(&bench.rows[i]));
	return json_out(json_pack("{s:i, s:i, s:i, s:O, s:O, s:o, s:O}", "rounds", bench.done,
				  "count", bench.count, "cpu", bench.cpu, "warnings",
				  bench.warnings, "skipped", bench.skipped, "rows", rows, "copies",
				  bench.copies));
}

static int pin(void)
{
	cpu_set_t set;

	bench.cpu = sched_getcpu();
	CPU_ZERO(&set);
	CPU_SET(bench.cpu, &set);
	if (bench.cpu >= 0 && !sched_setaffinity(0, sizeof(set), &set))
		return DONE;
	complain_err(errno, "bench", "cannot stay on one CPU");
	return FAILED;
}

int verb_bench(int argc, char **argv)
{
	double load = 0;
	int rc;

	if (argc)
		return usage_error("bench", "takes no arguments");
	rc = known(env.paths, "paths") ?: known(env.contenders, "contenders");
	if (rc)
		return rc;
	bench.rounds = env.rounds;
	bench.count = env.count;
	bench.warnings = json_array();
	bench.skipped = json_array();
	bench.copies = json_array();
	rc = pin();
	if (!rc)
		rc = pl_lab_open(&bench.lab);
	if (!rc) {
		bench.counter = perf_open(PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS, NULL,
					  bench.cpu);
		if (bench.counter < 0)
			warning("no counter of instructions here (%s): time only", strerror(errno));
		if (getloadavg(&load, 1) == 1 && load > 1)
			warning("the load is %.1f: others use the CPUs too", load);
		rc = contenders();
	}
	if (!rc)
		rc = table() ?: rounds();
	if (!rc && tunnels())
		rc = copies();
	if (!rc)
		rc = result();
	for (size_t i = 0; i < bench.nrows; i++) {
		disconnect(&bench.rows[i]);
		free(bench.rows[i].samples);
	}
	free(bench.rows);
	pl_lab_close(&bench.lab);
	if (bench.counter >= 0)
		close(bench.counter);
	json_decref(bench.warnings);
	json_decref(bench.skipped);
	json_decref(bench.copies);
	return rc;
}
