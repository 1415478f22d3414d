// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sends UDP datagrams between network namespaces, a round for each path in turn, and
 * prints what each costs: "path round nanoseconds hops received", the first two a
 * datagram. Where a clock tick is an instruction (tests/vm -i), so is a nanosecond. Hops
 * are passes through the receive path.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORT	9
#define BYTES	18
#define RCVBUF	(64 << 20)

struct path {
	const char *name;
	int from;			/* a socket */
	int to;
};

static void enter(const char *netns)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s%s", strchr(netns, '/') ? "" : "/run/netns/", netns);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET))
		err(1, "%s", path);
	close(fd);
}

static int udp(const char *netns, const char *addr, bool sender)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(PORT) };
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	bool six = strchr(addr, ':');
	void *sa = six ? (void *)&v6 : (void *)&v4;
	socklen_t len = six ? sizeof(v6) : sizeof(v4);
	int size = RCVBUF, fd;

	if (inet_pton(six ? AF_INET6 : AF_INET, addr,
		      six ? (void *)&v6.sin6_addr : (void *)&v4.sin_addr) != 1)
		errx(2, "%s: not an address", addr);
	enter(netns);
	fd = socket(six ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || (sender ? connect(fd, sa, len) : bind(fd, sa, len)) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)))
		err(1, "%s: socket to %s", netns, addr);
	return fd;
}

/* The first column is of packets that any CPU has received. */
static long processed(void)
{
	FILE *f = fopen("/proc/net/softnet_stat", "re");
	char line[512];
	long sum = 0;

	if (!f)
		err(1, "softnet_stat");
	while (fgets(line, sizeof(line), f))
		sum += strtol(line, NULL, 16);
	fclose(f);
	return sum;
}

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void run(const struct path *p, int round, int count)
{
	char buf[BYTES] = { 0 };
	int sent = 0, received = 0;
	long long from, to;
	long hops;

	hops = processed();
	from = now();
	while (sent < count && send(p->from, buf, sizeof(buf), 0) == sizeof(buf))
		sent++;
	to = now();
	if (sent < count)
		err(1, "%s: send", p->name);
	usleep(50000);
	hops = processed() - hops;
	while (recv(p->to, buf, sizeof(buf), MSG_DONTWAIT) == sizeof(buf))
		received++;
	if (round >= 0)
		printf("%s %d %.2f %.3f %d\n", p->name, round, (double)(to - from) / count,
		       (double)hops / count, received);
}

int main(int argc, char **argv)
{
	int n = (argc - 3) / 4, rounds, count;
	struct path *paths;

	if (n < 1 || (argc - 3) % 4)
		errx(2, "usage: pods ROUNDS COUNT {NAME FROM-NETNS TO-NETNS TO-ADDRESS}...");
	rounds = atoi(argv[1]);
	count = atoi(argv[2]);
	paths = calloc(n, sizeof(*paths));
	if (!paths)
		err(1, "paths");
	for (int i = 0; i < n; i++) {
		char **a = argv + 3 + 4 * i;

		paths[i].name = a[0];
		paths[i].to = -1;
		/* one receiver for all that send there */
		for (int j = 0; j < i; j++) {
			char **b = argv + 3 + 4 * j;

			if (!strcmp(b[2], a[2]) && !strcmp(b[3], a[3]))
				paths[i].to = paths[j].to;
		}
		if (paths[i].to < 0)
			paths[i].to = udp(a[2], a[3], false);
		paths[i].from = udp(a[1], a[3], true);
	}
	/* a round that does not count fills the neighbour and route caches */
	for (int round = -1; round < rounds; round++)
		for (int i = 0; i < n; i++)
			run(&paths[i], round, count);
	return 0;
}
