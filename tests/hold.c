// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hold sockets, and tell what happens to them.
 *
 * usage: hold [-n NETNS] [-r] SOCKET...
 *   listen:ADDR:PORT	a TCP listener; what it accepts is held too
 *   bind:ADDR:PORT	a UDP socket without a peer
 *   tcp:ADDR:PORT[*N]	N connections; mapped: instead of tcp:, by an IPv6 socket to IPv4
 *   udp:ADDR:PORT[*N]	N connected UDP sockets
 *   syn:ADDR:PORT	a connection that is not waited for
 *   -n			make them in that network namespace, and leave it
 *   -r			a connection that fails is made anew
 * An IPv6 address is in brackets. "ready" when all are there; then a line for each that has
 * an error: SOCKET and the errno's name. Ends when standard input does.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>


enum kind { LISTEN, BIND, TCP, MAPPED, UDP, SYN, ACCEPTED };

static const char *const kinds[] = {"listen", "bind", "tcp", "mapped", "udp", "syn", "accepted"};

struct held {
	enum kind kind;
	struct sockaddr_in6 addr;
	socklen_t len;
	const char *name;
};

static struct held *held;
static struct pollfd *fds;
static size_t n;

static void add(int fd, const struct held *h)
{
	if (!(n & (n - 1))) {
		held = realloc(held, (n ? 2 * n : 1) * sizeof(*held));
		fds = realloc(fds, (n ? 2 * n : 1) * sizeof(*fds));
		if (!held || !fds)
			err(1, "%s", "memory");
	}
	held[n] = *h;
	fds[n] = (struct pollfd){fd, h->kind == LISTEN ? POLLIN : 0, 0};
	n++;
}

static int make(const struct held *h)
{
	bool udp = h->kind == BIND || h->kind == UDP;
	int type = (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC;
	int fd = socket(h->addr.sin6_family, type | (h->kind == SYN ? SOCK_NONBLOCK : 0), 0);
	const struct sockaddr *addr = (const void *)&h->addr;
	int one = 1, error;

	if (fd < 0)
		err(1, "%s", h->name);
	if (h->kind == LISTEN || h->kind == BIND) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(fd, addr, h->len) || (h->kind == LISTEN && listen(fd, 4096)))
			err(1, "%s", h->name);
	} else if (connect(fd, addr, h->len) && errno != EINPROGRESS) {
		error = errno;
		close(fd);
		return -error;
	}
	return fd;
}

static void parse(char *text)
{
	struct held h = {.name = strdup(text)};
	char *addr = strchr(text, ':'), *port, *times;
	struct sockaddr_in *v4 = (void *)&h.addr;
	unsigned long count = 1;

	if (!addr)
		err(1, "%s", text);
	*addr++ = 0;
	while (h.kind < ACCEPTED && strcmp(text, kinds[h.kind]))
		h.kind++;
	times = strchr(addr, '*');
	if (times) {
		*times++ = 0;
		count = strtoul(times, NULL, 10);
	}
	port = strrchr(addr, ':');
	if (h.kind == ACCEPTED || !port)
		err(1, "%s", h.name);
	*port++ = 0;
	if (*addr == '[' || h.kind == MAPPED) {
		char v6[64];

		if (h.kind == MAPPED)
			snprintf(v6, sizeof(v6), "::ffff:%s", addr);
		else
			snprintf(v6, sizeof(v6), "%.*s", (int)strlen(addr) - 2, addr + 1);
		h.addr.sin6_family = AF_INET6;
		h.addr.sin6_port = htons(atoi(port));
		h.len = sizeof(h.addr);
		if (inet_pton(AF_INET6, v6, &h.addr.sin6_addr) != 1)
			err(1, "%s", h.name);
	} else {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(atoi(port));
		h.len = sizeof(*v4);
		if (inet_pton(AF_INET, addr, &v4->sin_addr) != 1)
			err(1, "%s", h.name);
	}
	while (count--) {
		int fd = make(&h);

		if (fd < 0)
			errx(1, "%s: %s", h.name, strerror(-fd));
		add(fd, &h);
	}
}

static void failed(size_t i, bool again)
{
	int error = 0, fd;
	socklen_t len = sizeof(error);
	char byte;

	if (getsockopt(fds[i].fd, SOL_SOCKET, SO_ERROR, &error, &len))
		error = errno;
	if (!error && recv(fds[i].fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno != EAGAIN)
		error = errno;
	if (!error && !(fds[i].revents & (POLLHUP | POLLERR)))
		return;
	printf("%s %s\n", held[i].name, error ? strerrorname_np(error) : "closed");
	fflush(stdout);
	close(fds[i].fd);
	fds[i].fd = -1;
	if (!again || held[i].kind == ACCEPTED || held[i].kind == LISTEN)
		return;
	while ((fd = make(&held[i])) < 0) {
		printf("%s %s\n", held[i].name, strerrorname_np(-fd));
		usleep(10000);
	}
	fds[i].fd = fd;
	printf("%s again\n", held[i].name);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct held accepted = {.kind = ACCEPTED, .name = "accepted"};
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), fd, opt;
	const struct rlimit files = {65536, 65536};
	bool again = false;
	char path[64];

	while ((opt = getopt(argc, argv, "n:r")) != -1) {
		switch (opt) {
		case 'n':
			snprintf(path, sizeof(path), "/run/netns/%s", optarg);
			fd = open(path, O_RDONLY | O_CLOEXEC);
			if (fd < 0 || setns(fd, CLONE_NEWNET))
				err(1, "%s", path);
			close(fd);
			break;
		case 'r':
			again = true;
			break;
		default:
			return 2;
		}
	}

	if (setrlimit(RLIMIT_NOFILE, &files))
		err(1, "open files");
	add(STDIN_FILENO, &(struct held){.name = "stdin"});
	fds[0].events = POLLIN;
	for (int i = optind; i < argc; i++)
		parse(argv[i]);
	if (setns(home, CLONE_NEWNET))
		err(1, "setns");
	close(home);
	puts("ready");
	fflush(stdout);
	while (poll(fds, n, -1) >= 0 && !fds[0].revents) {
		for (size_t i = 1, end = n; i < end; i++) {
			if (fds[i].revents == POLLIN && held[i].kind == LISTEN) {
				fd = accept4(fds[i].fd, NULL, NULL, SOCK_CLOEXEC);
				if (fd >= 0)
					add(fd, &accepted);
			} else if (fds[i].revents) {
				failed(i, again);
			}
		}
	}
	return 0;
}
