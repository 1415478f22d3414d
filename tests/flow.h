/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Flows between two network namespaces, both ends in one process and one
 * thread: a socket stays in the namespace it was made in. Shared by the test
 * programs traffic and killer.
 *
 * A flow is "PROTO SRC[:SPORT] > DST[:DPORT] [= WANT]", with IPv6 as [ADDR]:PORT.
 * The end that has SRC is the client. PROTO is tcp, udp, icmp or a number.
 */
#ifndef TEST_FLOW_H
#define TEST_FLOW_H

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/icmp6.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum got { DROP, ONEWAY, PASS };
enum want { WANT_DROP, WANT_ONEWAY, WANT_PASS, WANT_ANY, WANT_A, WANT_B };

static const char *const got_names[] = { "drop", "oneway", "pass" };
static const char *const want_names[] = { "drop", "oneway", "pass", "any", "a", "b" };

/* How long to wait for what must not come, when all that must come is there. */
static int grace_ms = 60;

union addr {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

#define MSG_MAGIC 0x74726166u
struct msg {
	__u32 magic, flow, seq, pad;
};

struct flow {
	char *text;
	int proto;
	bool icmp;
	union addr src, dst;
	enum want want;
	enum got got;
	int client, listener, conn;	/* conn: accepted TCP */
	bool established;		/* client side of TCP */
	__u32 seq;			/* of the last message that was sent */
	char in[2][sizeof(struct msg)];	/* TCP reassembly: conn, client */
	size_t have[2];
	/* statistics of a stream */
	__u64 sent, received, dups, first, last, max_gap, last_ns;
};

static inline __u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

/* Milliseconds, stretched for slow machines. */
static inline int slow_ms(int ms)
{
	const char *f = getenv("TIMEOUT_FACTOR");

	return ms * (f && atoi(f) > 0 ? atoi(f) : 1);
}

static inline int netns_open(const char *name)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s%s", strchr(name, '/') ? "" : "/run/netns/", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		err(2, "%s", path);
	return fd;
}

static inline void netns_enter(int fd)
{
	if (setns(fd, CLONE_NEWNET))
		err(1, "setns");
}

static inline socklen_t addr_len(const union addr *a)
{
	return a->sa.sa_family == AF_INET ? sizeof(a->in) : sizeof(a->in6);
}

static inline in_port_t addr_port(const union addr *a)
{
	return a->sa.sa_family == AF_INET ? a->in.sin_port : a->in6.sin6_port;
}

static inline void addr_set_port(union addr *a, in_port_t port)
{
	if (a->sa.sa_family == AF_INET)
		a->in.sin_port = port;
	else
		a->in6.sin6_port = port;
}

static inline bool addr_eq(const union addr *a, const union addr *b)
{
	if (a->sa.sa_family != b->sa.sa_family || addr_port(a) != addr_port(b))
		return false;
	return a->sa.sa_family == AF_INET ?
		a->in.sin_addr.s_addr == b->in.sin_addr.s_addr :
		!memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, 16);
}

static inline void addr_parse(union addr *a, char *s, const char *text)
{
	char *port = NULL, *end;

	memset(a, 0, sizeof(*a));
	if (*s == '[') {
		end = strchr(++s, ']');
		if (!end)
			errx(2, "%s: no ]", text);
		*end = 0;
		port = end[1] == ':' ? end + 2 : NULL;
	} else if (strchr(s, ':') == strrchr(s, ':')) {
		port = strchr(s, ':');
		if (port)
			*port++ = 0;
	}
	if (inet_pton(AF_INET, s, &a->in.sin_addr) == 1)
		a->sa.sa_family = AF_INET;
	else if (inet_pton(AF_INET6, s, &a->in6.sin6_addr) == 1)
		a->sa.sa_family = AF_INET6;
	else
		errx(2, "%s: not an address: %s", text, s);
	if (port)
		addr_set_port(a, htons(strtoul(port, NULL, 10)));
}

static inline enum want want_parse(const char *s)
{
	unsigned int i;

	for (i = 0; i < sizeof(want_names) / sizeof(*want_names); i++)
		if (!strcmp(s, want_names[i]))
			return i;
	errx(2, "not an outcome: %s (drop, oneway, pass, any, a, b)", s);
}

static inline void flow_parse(struct flow *f, const char *text)
{
	char proto[16], src[64], dst[64], want[16] = "any";

	memset(f, 0, sizeof(*f));
	f->client = -1;
	f->listener = -1;
	f->conn = -1;
	f->text = strdup(text);
	if (sscanf(text, "%15s %63s > %63s = %15s", proto, src, dst, want) < 3)
		errx(2, "not a flow: %s", text);
	addr_parse(&f->src, src, text);
	addr_parse(&f->dst, dst, text);
	f->want = want_parse(want);
	if (f->src.sa.sa_family != f->dst.sa.sa_family)
		errx(2, "%s: two families", text);
	if (!strcmp(proto, "tcp")) {
		f->proto = IPPROTO_TCP;
	} else if (!strcmp(proto, "udp")) {
		f->proto = IPPROTO_UDP;
	} else if (!strcmp(proto, "icmp")) {
		f->proto = f->src.sa.sa_family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6;
		f->icmp = true;
	} else {
		f->proto = atoi(proto);
		if (f->proto <= 0 || f->proto > 255)
			errx(2, "%s: protocol", text);
	}
}

static inline int flow_type(const struct flow *f)
{
	return f->proto == IPPROTO_TCP ? SOCK_STREAM :
	       f->proto == IPPROTO_UDP ? SOCK_DGRAM : SOCK_RAW;
}

/* A socket in the current namespace; -1 if it lacks the address. */
static inline int flow_socket(const struct flow *f, const union addr *local)
{
	union addr a = *local;
	int one = 1, size = 8 << 20;
	int fd = socket(a.sa.sa_family, flow_type(f) | SOCK_NONBLOCK | SOCK_CLOEXEC,
			f->proto);

	if (fd < 0)
		err(1, "%s: socket", f->text);
	if (flow_type(f) == SOCK_RAW)
		addr_set_port(&a, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	if (f->proto == IPPROTO_TCP)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (!bind(fd, &a.sa, addr_len(&a)))
		return fd;
	if (errno != EADDRNOTAVAIL)
		err(1, "%s: bind", f->text);
	close(fd);
	return -1;
}

static inline void flow_connect(struct flow *f, int ns[2])
{
	int i, rc;

	if (f->client >= 0)
		close(f->client);
	if (f->conn >= 0)
		close(f->conn);
	f->conn = -1;
	f->established = false;
	f->have[0] = 0;
	f->have[1] = 0;
	for (i = 0; i < 2; i++) {
		netns_enter(ns[i]);
		f->client = flow_socket(f, &f->src);
		if (f->client >= 0)
			break;
	}
	if (f->client < 0)
		errx(1, "%s: neither namespace has the source address", f->text);
	if (f->proto != IPPROTO_TCP)
		return;
	rc = connect(f->client, &f->dst.sa, addr_len(&f->dst));
	if (rc && errno != EINPROGRESS)
		warn("%s: connect", f->text);
}

/* Listeners for all flows; the flows of one address and port share one. */
static inline void flows_open(struct flow *flows, int n, int ns[2])
{
	struct flow *f, *g;

	for (f = flows; f < flows + n; f++) {
		if (f->icmp)
			continue;
		for (g = flows; g < f; g++)
			if (g->proto == f->proto && addr_eq(&g->dst, &f->dst) && g->listener >= 0)
				break;
		if (g < f)
			continue;
		netns_enter(ns[0]);
		f->listener = flow_socket(f, &f->dst);
		if (f->listener < 0) {
			netns_enter(ns[1]);
			f->listener = flow_socket(f, &f->dst);
		}
		if (f->listener < 0)
			errx(1, "%s: neither namespace has the destination address", f->text);
		if (f->proto == IPPROTO_TCP && listen(f->listener, 64))
			err(1, "%s: listen", f->text);
	}
	for (f = flows; f < flows + n; f++)
		flow_connect(f, ns);
}

static inline __u16 csum(const void *data, size_t len)
{
	const __u16 *p = data;
	__u32 sum = 0;

	for (; len > 1; len -= 2)
		sum += *p++;
	sum = (sum >> 16) + (sum & 0xffff);
	return ~(sum + (sum >> 16));
}

/* One message from the client. False: no room or no connection now. */
static inline bool flow_send(struct flow *f, int index)
{
	struct {
		struct icmphdr icmp;
		struct msg msg;
	} p = { .msg = { MSG_MAGIC, index, ++f->seq, 0 } };
	union addr to = f->dst;
	int rc;

	if (f->proto == IPPROTO_TCP) {
		rc = send(f->client, &p.msg, sizeof(p.msg), MSG_NOSIGNAL);
		return rc == sizeof(p.msg);
	}
	if (flow_type(f) == SOCK_RAW)
		addr_set_port(&to, 0);
	if (!f->icmp)
		return sendto(f->client, &p.msg, sizeof(p.msg), 0, &to.sa, addr_len(&to)) > 0;
	p.icmp.type = f->proto == IPPROTO_ICMP ? ICMP_ECHO : ICMP6_ECHO_REQUEST;
	p.icmp.un.echo.id = htons(0x5000 + index);
	p.icmp.un.echo.sequence = htons(f->seq);
	if (f->proto == IPPROTO_ICMP)
		p.icmp.checksum = csum(&p, sizeof(p));
	return sendto(f->client, &p, sizeof(p), 0, &to.sa, addr_len(&to)) > 0;
}

/* Called for each message: at the server's end, then at the client's. */
typedef void flow_seen_fn(struct flow *flows, const struct msg *msg, bool at_server);

static inline void flow_datagrams(struct flow *flows, int n, struct flow *f, bool at_server,
				  bool echo, flow_seen_fn *seen)
{
	int fd = at_server ? f->listener : f->client;
	char buf[2048];
	struct msg msg;
	union addr from;
	socklen_t len;
	ssize_t got;
	size_t skip;

	for (;;) {
		len = sizeof(from);
		got = recvfrom(fd, buf, sizeof(buf), 0, &from.sa, &len);
		if (got < 0)
			return;	/* nothing there, or an ICMP error: the next round tells */
		skip = 0;
		if (flow_type(f) == SOCK_RAW && f->src.sa.sa_family == AF_INET)
			skip = (buf[0] & 15) * 4;
		if (f->icmp) {
			/* a raw socket sees the namespace's requests as well */
			if (buf[skip] != (f->proto == IPPROTO_ICMP ? ICMP_ECHOREPLY :
					  (char)ICMP6_ECHO_REPLY))
				continue;
			skip += sizeof(struct icmphdr);
		}
		if (got < (ssize_t)(skip + sizeof(msg)))
			continue;
		memcpy(&msg, buf + skip, sizeof(msg));
		if (msg.magic != MSG_MAGIC || msg.flow >= (__u32)n ||
		    flows[msg.flow].proto != f->proto)
			continue;
		if (!at_server && &flows[msg.flow] != f)
			continue;
		seen(flows, &msg, at_server);
		if (at_server && echo)
			(void)!sendto(fd, &msg, sizeof(msg), 0, &from.sa, len);
	}
}

static inline void flow_bytes(struct flow *flows, int n, struct flow *f, bool at_server,
			      bool echo, flow_seen_fn *seen)
{
	int fd = at_server ? f->conn : f->client;
	int side = at_server ? 0 : 1;
	struct msg msg;
	ssize_t got;

	while ((got = recv(fd, f->in[side] + f->have[side], sizeof(msg) - f->have[side], 0)) > 0) {
		f->have[side] += got;
		if (f->have[side] < sizeof(msg))
			continue;
		f->have[side] = 0;
		memcpy(&msg, f->in[side], sizeof(msg));
		if (msg.magic != MSG_MAGIC || msg.flow >= (__u32)n)
			errx(1, "%s: the byte stream is damaged", f->text);
		seen(flows, &msg, at_server);
		if (at_server && echo)
			(void)!send(fd, &msg, sizeof(msg), MSG_NOSIGNAL);
	}
}

static inline void flow_accept(struct flow *flows, int n, struct flow *f)
{
	struct flow *g;
	union addr from;
	socklen_t len = sizeof(from);
	int fd;

	while ((fd = accept4(f->listener, &from.sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		union addr local;
		socklen_t llen;

		for (g = flows; g < flows + n; g++) {
			llen = sizeof(local);
			if (g->proto != IPPROTO_TCP || !addr_eq(&g->dst, &f->dst) ||
			    getsockname(g->client, &local.sa, &llen) || !addr_eq(&local, &from))
				continue;
			if (g->conn >= 0)
				close(g->conn);
			g->conn = fd;
			g->have[0] = 0;
			break;
		}
		if (g == flows + n)
			close(fd);
		len = sizeof(from);
	}
}

/* Take in what has arrived, for at most this long. */
static inline void flows_poll(struct flow *flows, int n, __u64 ns, bool echo, flow_seen_fn *seen)
{
	struct timespec ts = { ns / 1000000000, ns % 1000000000 };
	struct pollfd pfd[3 * n];
	struct flow *f;
	int i;

	for (i = 0; i < n; i++) {
		f = &flows[i];
		pfd[3 * i] = (struct pollfd){ f->listener, POLLIN, 0 };
		pfd[3 * i + 1] = (struct pollfd){ f->conn, POLLIN, 0 };
		pfd[3 * i + 2] = (struct pollfd){ f->client, POLLIN, 0 };
		if (f->proto == IPPROTO_TCP && !f->established)
			pfd[3 * i + 2].events = POLLOUT;
	}
	if (ppoll(pfd, 3 * n, &ts, NULL) <= 0)
		return;
	for (i = 0; i < n; i++) {
		bool tcp = flows[i].proto == IPPROTO_TCP;

		f = &flows[i];
		if (pfd[3 * i].revents && tcp)
			flow_accept(flows, n, f);
		else if (pfd[3 * i].revents)
			flow_datagrams(flows, n, f, true, echo, seen);
		if (pfd[3 * i + 1].revents)
			flow_bytes(flows, n, f, true, echo, seen);
		if (!pfd[3 * i + 2].revents)
			continue;
		if (!tcp) {
			flow_datagrams(flows, n, f, false, echo, seen);
		} else if (f->established) {
			flow_bytes(flows, n, f, false, echo, seen);
		} else {
			int e = 0;
			socklen_t len = sizeof(e);

			getsockopt(f->client, SOL_SOCKET, SO_ERROR, &e, &len);
			f->established = !e && (pfd[3 * i + 2].revents & POLLOUT) &&
					 !(pfd[3 * i + 2].revents & (POLLERR | POLLHUP));
			if (!f->established && f->client >= 0) {
				close(f->client);
				f->client = -1;
			}
		}
	}
}

static inline void round_seen(struct flow *flows, const struct msg *msg, bool at_server)
{
	struct flow *f = &flows[msg->flow];

	if (msg->seq == f->seq)
		f->got = at_server && f->got != PASS ? ONEWAY : PASS;
}

static inline bool flow_wrong(const struct flow *f)
{
	return f->want <= WANT_PASS && (int)f->want != (int)f->got;
}

/*
 * One message on each flow. Waits for all that are to pass and then a little, so
 * that one which must not pass would be seen. Fills `got`; true if as wanted.
 */
static inline bool flows_round(struct flow *flows, int n, int ns[2])
{
	__u64 end = now_ns() + slow_ms(5000) * 1000000ull, grace = 0, t;
	bool sent[n], ok = true;
	int i;

	for (i = 0; i < n; i++) {
		struct flow *f = &flows[i];

		f->got = DROP;
		if (f->proto == IPPROTO_TCP && !f->established)
			flow_connect(f, ns);
		sent[i] = f->proto != IPPROTO_TCP || f->established;
		if (sent[i])
			flow_send(f, i);
	}
	while ((t = now_ns()) < (grace ?: end)) {
		bool missing = false, negative = false;

		for (i = 0; i < n; i++) {
			struct flow *f = &flows[i];

			if (!sent[i] && f->established)
				sent[i] = flow_send(f, i);
			negative |= f->want != WANT_PASS && f->got != PASS;
			missing |= (f->want == WANT_PASS && f->got != PASS) ||
				   (f->want == WANT_ONEWAY && f->got == DROP);
		}
		if (!missing && !negative)
			break;
		/* Also when nothing at all is to come. */
		if (!missing && !grace)
			grace = t + slow_ms(grace_ms) * 1000000ull;
		flows_poll(flows, n, (grace ?: end) - t, true, round_seen);
	}
	for (i = 0; i < n; i++)
		ok &= !flow_wrong(&flows[i]);
	return ok;
}

static inline void flows_print(const struct flow *flows, int n, FILE *out)
{
	int i;

	for (i = 0; i < n; i++)
		fprintf(out, "%s%s: %s\n", flow_wrong(&flows[i]) ? "WRONG " : "", flows[i].text,
			got_names[flows[i].got]);
}

#endif
