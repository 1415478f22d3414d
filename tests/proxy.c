// SPDX-License-Identifier: GPL-2.0-only
/*
 * A transparent proxy that answers by itself, with what it was sent, and says who wanted
 * whom; and its client.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef IPV6_TRANSPARENT
#define IPV6_TRANSPARENT 75
#endif

#define SOCKS 256
#define CHUNK 65536

static void usage(void)
{
	fprintf(stderr,
		"usage: proxy listen [-T] [-c] [-d] [-n N] [-x SOCK] [ADDR]:PORT\n"
		"       proxy ask [-Hwz] [-m MARK] [-p PORT] [-s BYTES] [-t MS] tcp|udp|udp-bare\n"
		"                 ADDR:PORT...\n"
		"listen: TCP and UDP; without ADDR at all addresses of both families\n"
		"-T  not transparent\n"
		"-c  UDP: a connected socket for each flow\n"
		"-d  TCP: close first, at once, so that TIME_WAIT is here\n"
		"-n  N sockets of each kind with SO_REUSEPORT\n"
		"-x  who connects to SOCK is sent the listening sockets\n"
		"ask: all at once, from one port with -p; so much is sent and must come back\n"
		"-H  hold: again for each line of standard input\n"
		"-m  the mark of what is sent\n"
		"-w  do not wait for an answer\n"
		"-z  send with MSG_ZEROCOPY, and spoil the data as soon as that is allowed\n"
		"udp-bare: with a socket that is not connected\n"
		"Tells of each address: ok, refused, reset, timeout, closed, or wrong.\n");
	exit(2);
}

static void on(int s, int level, int name)
{
	int one = 1;

	if (setsockopt(s, level, name, &one, sizeof(one)))
		err(1, "option %d of level %d", name, level);
}

/* "A.B.C.D:PORT", "[V6]:PORT" or ":PORT" */
static socklen_t parse(const char *text, struct sockaddr_storage *ss)
{
	struct sockaddr_in6 *a6 = (void *)ss;
	struct sockaddr_in *a4 = (void *)ss;
	char copy[64], *colon;

	memset(ss, 0, sizeof(*ss));
	snprintf(copy, sizeof(copy), "%s", text);
	colon = strrchr(copy, ':');
	if (!colon)
		usage();
	*colon = 0;
	if (*copy == '[' || !*copy) {
		ss->ss_family = AF_INET6;
		a6->sin6_port = htons(atoi(colon + 1));
		if (*copy) {
			colon[-1] = 0;
			if (inet_pton(AF_INET6, copy + 1, &a6->sin6_addr) != 1)
				usage();
		}
		return sizeof(*a6);
	}
	ss->ss_family = AF_INET;
	a4->sin_port = htons(atoi(colon + 1));
	if (inet_pton(AF_INET, copy, &a4->sin_addr) != 1)
		usage();
	return sizeof(*a4);
}

static const char *text(const struct sockaddr_storage *ss, char *buf)
{
	const struct sockaddr_in6 *a6 = (void *)ss;
	const struct sockaddr_in *a4 = (void *)ss;
	char addr[INET6_ADDRSTRLEN];

	if (ss->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&a6->sin6_addr))
		sprintf(buf, "%s:%u",
			inet_ntop(AF_INET, &a6->sin6_addr.s6_addr[12], addr, sizeof(addr)),
			ntohs(a6->sin6_port));
	else if (ss->ss_family == AF_INET6)
		sprintf(buf, "[%s]:%u", inet_ntop(AF_INET6, &a6->sin6_addr, addr, sizeof(addr)),
			ntohs(a6->sin6_port));
	else
		sprintf(buf, "%s:%u", inet_ntop(AF_INET, &a4->sin_addr, addr, sizeof(addr)),
			ntohs(a4->sin_port));
	return buf;
}

static void tell(const char *proto, const struct sockaddr_storage *from,
		 const struct sockaddr_storage *to, int socket)
{
	char a[64], b[64];

	printf("%s %s > %s by %d\n", proto, text(from, a), text(to, b), socket);
	fflush(stdout);
}

/* --- listen --- */

static bool transparent = true, connected, close_first;

static void be_transparent(int s, int family)
{
	if (!transparent)
		return;
	if (family == AF_INET6)
		on(s, SOL_IPV6, IPV6_TRANSPARENT);
	else
		on(s, SOL_IP, IP_TRANSPARENT);
}

static int listener(int type, const struct sockaddr_storage *at, socklen_t len, bool shared)
{
	int s = socket(at->ss_family, type | SOCK_CLOEXEC, 0);

	if (s < 0)
		err(1, "socket");
	on(s, SOL_SOCKET, SO_REUSEADDR);
	if (shared)
		on(s, SOL_SOCKET, SO_REUSEPORT);
	be_transparent(s, at->ss_family);
	if (type == SOCK_DGRAM) {
		if (at->ss_family == AF_INET6)
			on(s, SOL_IPV6, IPV6_RECVORIGDSTADDR);
		on(s, SOL_IP, IP_RECVORIGDSTADDR);
	}
	if (bind(s, (void *)at, len))
		err(1, "bind");
	if (type == SOCK_STREAM && listen(s, 1024))
		err(1, "listen");
	return s;
}

/* From the address that was meant, with a socket of its own. It is kept where flows have one. */
static int answer(const struct sockaddr_storage *from, const struct sockaddr_storage *to,
		  const char *data, size_t len)
{
	socklen_t n = from->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) :
						    sizeof(struct sockaddr_in);
	int s = socket(from->ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	on(s, SOL_SOCKET, SO_REUSEADDR);
	be_transparent(s, from->ss_family);
	if (bind(s, (void *)to, n) || connect(s, (void *)from, n) || send(s, data, len, 0) < 0)
		warn("answer");
	if (connected)
		return s;
	close(s);
	return -1;
}

static int datagram(int s, int index)
{
	struct sockaddr_storage from = {}, to = {};
	char data[CHUNK], control[256];
	struct iovec iov = {data, sizeof(data)};
	struct msghdr msg = {.msg_name = &from,
			     .msg_namelen = sizeof(from),
			     .msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(s, &msg, 0);

	if (n < 0)
		return -1;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_level == SOL_IP && c->cmsg_type == IP_RECVORIGDSTADDR)
			memcpy(&to, CMSG_DATA(c), sizeof(struct sockaddr_in));
		if (c->cmsg_level == SOL_IPV6 && c->cmsg_type == IPV6_RECVORIGDSTADDR)
			memcpy(&to, CMSG_DATA(c), sizeof(struct sockaddr_in6));
	}
	tell("udp", &from, &to, index);
	/* a dual-stack socket tells IPv4 addresses of senders in IPv6's form */
	if (to.ss_family == AF_INET && from.ss_family == AF_INET6) {
		struct sockaddr_in6 a6 = *(struct sockaddr_in6 *)&from;
		struct sockaddr_in *a4 = (void *)&from;

		memset(&from, 0, sizeof(from));
		a4->sin_family = AF_INET;
		a4->sin_port = a6.sin6_port;
		memcpy(&a4->sin_addr, &a6.sin6_addr.s6_addr[12], 4);
	}
	return answer(&from, &to, data, n);
}

/* What a connection is still to be sent back, so that a slow reader does not hold up others. */
struct conn {
	char *data;
	size_t at, len;
};

static int serve(int argc, char **argv)
{
	int c, n = 1, fds = 0, control = -1, listeners;
	static struct conn conns[SOCKS];
	static struct pollfd p[SOCKS];
	static enum { TCP, UDP, CONN, FLOW, CONTROL } kind[SOCKS];
	struct sockaddr_storage at;
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	socklen_t len;

	while ((c = getopt(argc, argv, "Tcdn:x:")) != -1) {
		switch (c) {
		case 'T':
			transparent = false;
			break;
		case 'c':
			connected = true;
			break;
		case 'd':
			close_first = true;
			break;
		case 'n':
			n = atoi(optarg);
			break;
		case 'x':
			snprintf(un.sun_path, sizeof(un.sun_path), "%s", optarg);
			break;
		default:
			usage();
		}
	}
	if (optind + 1 != argc)
		usage();
	signal(SIGPIPE, SIG_IGN);
	len = parse(argv[optind], &at);
	for (int i = 0; i < n; i++) {
		kind[fds] = TCP;
		p[fds++] = (struct pollfd){listener(SOCK_STREAM, &at, len, n > 1), POLLIN, 0};
		kind[fds] = UDP;
		p[fds++] = (struct pollfd){listener(SOCK_DGRAM, &at, len, n > 1), POLLIN, 0};
	}
	listeners = fds;
	if (*un.sun_path) {
		control = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (bind(control, (void *)&un, sizeof(un)) || listen(control, 4))
			err(1, "%s", un.sun_path);
		kind[fds] = CONTROL;
		p[fds++] = (struct pollfd){control, POLLIN, 0};
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		/* what was closed costs nothing; benchmarks would measure it */
		while (p[fds - 1].fd < 0)
			fds--;
		if (poll(p, fds, -1) < 0)
			err(1, "poll");
		for (int i = 0, now = fds; i < now; i++) {
			struct sockaddr_storage from = {}, to = {};
			socklen_t fl = sizeof(from), tl = sizeof(to);
			struct conn *conn = &conns[i];
			int s = -1;
			ssize_t got;

			if (p[i].fd < 0 || !p[i].revents)
				continue;
			switch (kind[i]) {
			case TCP:
				s = accept4(p[i].fd, (void *)&from, &fl,
					    SOCK_CLOEXEC | SOCK_NONBLOCK);
				if (s < 0)
					break;
				getsockname(s, (void *)&to, &tl);
				tell("tcp", &from, &to, i / 2);
				if (close_first)
					shutdown(s, SHUT_WR);
				break;
			case UDP:
				s = datagram(p[i].fd, i / 2);
				break;
			case FLOW: {
				char data[CHUNK];

				got = recv(p[i].fd, data, sizeof(data), 0);
				if (got < 0 || send(p[i].fd, data, got, 0) < 0)
					break;
				puts("udp, by the socket of its flow");
				fflush(stdout);
				break;
			}
			case CONTROL: {
				char data = 0, room[CMSG_SPACE(SOCKS * sizeof(int))] = {};
				struct iovec iov = {&data, 1};
				const size_t size = listeners * sizeof(int);
				struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1,
						     .msg_control = room,
						     .msg_controllen = CMSG_SPACE(size)};
				struct cmsghdr *h = CMSG_FIRSTHDR(&msg);

				h->cmsg_level = SOL_SOCKET;
				h->cmsg_type = SCM_RIGHTS;
				h->cmsg_len = CMSG_LEN(size);
				for (int k = 0; k < listeners; k++)
					((int *)CMSG_DATA(h))[k] = p[k].fd;
				got = accept(p[i].fd, NULL, NULL);
				if (got >= 0 && sendmsg(got, &msg, 0) < 0)
					warn("sendmsg");
				if (got >= 0)
					close(got);
				break;
			}
			case CONN:
				if (!conn->data)
					conn->data = malloc(CHUNK);
				if (conn->at == conn->len) {
					conn->at = 0;
					got = read(p[i].fd, conn->data, CHUNK);
					conn->len = got > 0 && !close_first ? got : 0;
				} else {
					got = 1;
				}
				if (conn->len > conn->at) {
					ssize_t sent = write(p[i].fd, conn->data + conn->at,
							     conn->len - conn->at);

					if (sent > 0)
						conn->at += sent;
					else if (errno != EAGAIN)
						got = 0;
				}
				p[i].events = conn->at < conn->len ? POLLOUT : POLLIN;
				if (got > 0 || (got < 0 && errno == EAGAIN))
					break;
				close(p[i].fd);
				p[i].fd = -1;
				conn->at = conn->len = 0;
				break;
			}
			if (s >= 0) {
				int free = listeners;

				while (free < fds && (p[free].fd >= 0 || kind[free] == CONTROL))
					free++;
				if (free == SOCKS)
					errx(1, "too many sockets");
				kind[free] = kind[i] == TCP ? CONN : FLOW;
				p[free] = (struct pollfd){s, POLLIN, 0};
				if (free == fds)
					fds++;
			}
		}
	}
}

/* --- ask --- */

static int timeout_ms = 10000;
static bool zerocopy;

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

/* Byte number `at` of a stream. */
static char pattern(uint64_t at)
{
	return at * 2654435761U >> 24 ^ at >> 16;
}

static const char *why(int error)
{
	static char buf[64];

	switch (error) {
	case ECONNREFUSED:
		return "refused";
	case ECONNRESET:
	case EPIPE:
		return "reset";
	case ETIMEDOUT:
	case EAGAIN:
		return "timeout";
	}
	snprintf(buf, sizeof(buf), "error %s", strerror(error));
	return buf;
}

/* Whether the kernel needs no longer what was sent last. */
static bool released(int s, uint64_t end)
{
	union {
		struct cmsghdr h;
		char room[256];
	} control;
	struct msghdr msg = {.msg_control = &control, .msg_controllen = sizeof(control)};
	const struct sock_extended_err *e = (void *)CMSG_DATA(&control.h);
	struct pollfd p = {s, 0, 0};

	for (uint64_t now = now_ms(); now < end; now = now_ms())
		if (poll(&p, 1, end - now) == 1 && !recvmsg(s, &msg, MSG_ERRQUEUE))
			return msg.msg_controllen && e->ee_origin == SO_EE_ORIGIN_ZEROCOPY;
	return false;
}

/* Send `bytes` and have them back, both at once. */
static const char *exchange(int s, bool stream, size_t bytes, uint64_t from, bool wait)
{
	uint64_t end = now_ms() + timeout_ms;
	static char buf[CHUNK], out[CHUNK];
	size_t sent = 0, got = 0;

	while (sent < bytes || (wait && got < bytes)) {
		struct pollfd p = {s, (wait ? POLLIN : 0) | (sent < bytes ? POLLOUT : 0), 0};
		uint64_t now = now_ms();
		ssize_t n;

		if (now >= end || poll(&p, 1, end - now) <= 0)
			return "timeout";
		if (p.revents & (POLLIN | POLLERR | POLLHUP)) {
			n = recv(s, buf, sizeof(buf), MSG_DONTWAIT);
			if (n < 0 && errno != EAGAIN)
				return why(errno);
			if (!n && stream)
				return "closed";
			for (ssize_t i = 0; i < n; i++)
				if (buf[i] != pattern(from + got + i))
					return "wrong";
			if (n > 0) {
				got += n;
				/* progress, not the whole, is what the time is for */
				end = now + timeout_ms;
			}
		}
		if (p.revents & POLLOUT) {
			size_t len = bytes - sent < sizeof(out) ? bytes - sent : sizeof(out);

			for (size_t i = 0; i < len; i++)
				out[i] = pattern(from + sent + i);
			n = send(s, out, len,
				 MSG_DONTWAIT | MSG_NOSIGNAL | (zerocopy ? MSG_ZEROCOPY : 0));
			if (n < 0 && errno != EAGAIN)
				return why(errno);
			if (n > 0 && zerocopy && !released(s, end))
				return "not released";
			memset(out, 0, len);
			if (n > 0)
				sent += n;
		}
	}
	return "ok";
}

/* With a socket that is not connected, each answer must be from whom was asked. */
static const char *bare(int s, const struct sockaddr_storage *to, socklen_t len, size_t bytes)
{
	struct sockaddr_storage from;
	socklen_t n = sizeof(from);
	struct pollfd p = {s, POLLIN, 0};
	char buf[CHUNK], a[64], b[64];
	ssize_t got;

	for (size_t i = 0; i < bytes; i++)
		buf[i] = pattern(i);
	if (sendto(s, buf, bytes, 0, (void *)to, len) < 0)
		return why(errno);
	if (poll(&p, 1, timeout_ms) != 1)
		return "timeout";
	got = recvfrom(s, buf, sizeof(buf), 0, (void *)&from, &n);
	if (got != (ssize_t)bytes)
		return "wrong";
	return strcmp(text(&from, a), text(to, b)) ? "wrong" : "ok";
}

static int ask(int argc, char **argv)
{
	struct sockaddr_storage to[SOCKS], own = {};
	bool hold = false, wait = true, stream, unconnected;
	int s[SOCKS], c, n, port = 0, mark = 0, one = 1;
	const char *state[SOCKS] = {};
	size_t bytes = 1000;
	uint64_t from = 0;
	socklen_t len[SOCKS];
	char line[64];

	while ((c = getopt(argc, argv, "Hm:p:s:t:wz")) != -1) {
		switch (c) {
		case 'H':
			hold = true;
			break;
		case 'm':
			mark = strtol(optarg, NULL, 0);
			break;
		case 'p':
			port = atoi(optarg);
			break;
		case 's':
			bytes = atoll(optarg);
			break;
		case 't':
			timeout_ms = atoi(optarg);
			break;
		case 'w':
			wait = false;
			break;
		case 'z':
			zerocopy = true;
			break;
		default:
			usage();
		}
	}
	n = argc - optind - 1;
	if (n < 1 || n > SOCKS)
		usage();
	stream = !strcmp(argv[optind], "tcp");
	unconnected = !strcmp(argv[optind], "udp-bare");
	for (int i = 0; i < n; i++) {
		len[i] = parse(argv[optind + 1 + i], &to[i]);
		s[i] = socket(to[i].ss_family, stream ? SOCK_STREAM : SOCK_DGRAM, 0);
		own = (struct sockaddr_storage){.ss_family = to[i].ss_family};
		/* of both families at the same place */
		((struct sockaddr_in *)&own)->sin_port = htons(port);
		setsockopt(s[i], SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (mark && setsockopt(s[i], SOL_SOCKET, SO_MARK, &mark, sizeof(mark)))
			err(1, "mark %d", mark);
		if (zerocopy)
			on(s[i], SOL_SOCKET, SO_ZEROCOPY);
		if (port && bind(s[i], (void *)&own, len[i]))
			err(1, "port %d", port);
		fcntl(s[i], F_SETFL, O_NONBLOCK);
		if (!unconnected && connect(s[i], (void *)&to[i], len[i]) && errno != EINPROGRESS)
			state[i] = why(errno);
	}
	for (int i = 0; stream && i < n; i++) {
		struct pollfd p = {s[i], POLLOUT, 0};
		socklen_t l = sizeof(int);
		int error = 0;

		if (state[i])
			continue;
		if (poll(&p, 1, timeout_ms) != 1)
			state[i] = "timeout";
		else if (!getsockopt(s[i], SOL_SOCKET, SO_ERROR, &error, &l) && error)
			state[i] = why(error);
	}
	do {
		bool bad = false;

		for (int i = 0; i < n; i++) {
			if (!state[i] || !strcmp(state[i], "ok"))
				state[i] = unconnected ? bare(s[i], &to[i], len[i], bytes) :
							 exchange(s[i], stream, bytes, from, wait);
			printf("%s %s\n", argv[optind + 1 + i], state[i]);
			bad |= !!strcmp(state[i], "ok");
		}
		fflush(stdout);
		from += bytes;
		if (!hold)
			return bad;
	} while (fgets(line, sizeof(line), stdin));
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "listen"))
		return serve(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "ask"))
		return ask(argc - 1, argv + 1);
	usage();
}
