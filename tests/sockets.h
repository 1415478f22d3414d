/* SPDX-License-Identifier: GPL-2.0-only */
/* Sockets on the loopback of network namespaces, for tests that look for them or kill them. */
#ifndef SOCKETS_H
#define SOCKETS_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Ports; that of the group is one that its sockets share. */
enum { VICTIM = 7777, BYSTANDER = 8888, GROUP = 9999 };

#define must(x) ({									\
	long r_ = (long)(x);								\
	if (r_ < 0) {									\
		fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #x, strerror(errno));	\
		exit(EXIT_FAILURE);							\
	}										\
	r_;										\
})

static bool failed;

static inline void ok(bool good, const char *fmt, ...)
{
	va_list args;

	printf("%s ", good ? "ok" : "not ok");
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	failed |= !good;
}

static inline void put_file(const char *path, const char *value)
{
	int fd = must(open(path, O_WRONLY));

	must(write(fd, value, strlen(value)));
	close(fd);
}

static inline void lo_up(void)
{
	struct ifreq req = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int s = must(socket(AF_INET, SOCK_DGRAM, 0));

	must(ioctl(s, SIOCSIFFLAGS, &req));
	close(s);
}

/* A namespace with hash tables of its own or the common ones; the current one is home. */
static inline int new_net(int home, bool own_tcp, bool own_udp)
{
	int fd;

	put_file("/proc/sys/net/ipv4/tcp_child_ehash_entries", own_tcp ? "64" : "0");
	put_file("/proc/sys/net/ipv4/udp_child_hash_entries", own_udp ? "128" : "0");
	must(unshare(CLONE_NEWNET));
	lo_up();
	fd = must(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
	must(setns(home, CLONE_NEWNET));
	return fd;
}

static inline int sock_err(int s)
{
	socklen_t len = sizeof(int);
	int err;

	must(getsockopt(s, SOL_SOCKET, SO_ERROR, &err, &len));
	return err;
}

static inline int tcp_state(int s)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	must(getsockopt(s, IPPROTO_TCP, TCP_INFO, &info, &len));
	return info.tcpi_state;
}

static inline socklen_t address(struct sockaddr_storage *ss, int family, int port)
{
	struct sockaddr_in6 *a6 = (void *)ss;
	struct sockaddr_in *a4 = (void *)ss;

	memset(ss, 0, sizeof(*ss));
	ss->ss_family = family;
	a4->sin_port = htons(port);
	if (family == AF_INET) {
		a4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		return sizeof(*a4);
	}
	a6->sin6_addr = in6addr_loopback;
	return sizeof(*a6);
}

/* A socket in the namespace that is current: bound to one port, connected to another. */
static inline int sock(int family, int type, int bound, int peer)
{
	struct linger rst = { 1, 0 };
	struct sockaddr_storage a;
	int one = 1, s = must(socket(family, type | SOCK_CLOEXEC, 0));
	socklen_t len;

	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(s, SOL_SOCKET, SO_LINGER, &rst, sizeof(rst));
	if (bound == GROUP)
		setsockopt(s, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
	if (bound) {
		len = address(&a, family, bound);
		must(bind(s, (void *)&a, len));
	}
	if (peer) {
		len = address(&a, family, peer);
		must(connect(s, (void *)&a, len));
	}
	return s;
}

static inline int listener(int family, int port)
{
	int s = sock(family, SOCK_STREAM, port, 0);

	must(listen(s, 4096));
	return s;
}

#endif
