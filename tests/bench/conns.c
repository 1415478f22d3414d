// SPDX-License-Identifier: GPL-2.0-only
/*
 * Connections to a proxy that answers with what it was sent: what it takes until all of N are
 * there, what a request on each takes, what one after the other takes with a request and its
 * end; and that each answer is right. A line for each round: ns for each of the three, and the
 * segments, both ways, by the counters of this network namespace.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX 1024
#define SIZE 100 /* of a request */
#define WHOLE 20  /* one after the other */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* Segments that came in and went out. */
static uint64_t segments(void)
{
	unsigned long long in = 0, out = 0;
	FILE *f = fopen("/proc/thread-self/net/snmp", "re");
	char line[1024];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Tcp: %*d %*d %*d %*d %*d %*d %*d %*d %*d %llu %llu", &in,
			   &out) == 2)
			break;
	if (f)
		fclose(f);
	return in + out;
}

static void until(int s, short what)
{
	struct pollfd p = {s, what, 0};

	if (poll(&p, 1, 60000) != 1 || p.revents & (POLLERR | POLLHUP))
		errx(1, "a connection failed");
}

static struct sockaddr_in to = {.sin_family = AF_INET};

static int begin(void)
{
	int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	if (s < 0)
		err(1, "socket");
	if (connect(s, (void *)&to, sizeof(to)) && errno != EINPROGRESS)
		err(1, "connect");
	return s;
}

static void ask(int s, char what)
{
	char request[SIZE];

	memset(request, what, sizeof(request));
	if (send(s, request, sizeof(request), 0) != sizeof(request))
		err(1, "send");
}

static void hear(int s, char what)
{
	char answer[SIZE];

	until(s, POLLIN);
	if (recv(s, answer, sizeof(answer), 0) != sizeof(answer))
		errx(1, "no whole answer");
	for (int i = 0; i < SIZE; i++)
		if (answer[i] != what)
			errx(1, "a wrong answer");
}

static void end(int s)
{
	struct linger rst = {1, 0};

	/* nothing shall wait for the next one */
	setsockopt(s, SOL_SOCKET, SO_LINGER, &rst, sizeof(rst));
	close(s);
}

/*
 * Since the last call: ns and segments, for each of n. What the other side still has to do is
 * of no lap: else it would be sometimes of the one, sometimes of the next.
 */
static void lap(double took[2], int n)
{
	static uint64_t ns, seen;
	uint64_t now = now_ns(), all = segments();

	took[0] = (double)(now - ns) / n;
	took[1] = (double)(all - seen) / n;
	usleep(10000);
	seen = segments();
	ns = now_ns();
}

int main(int argc, char **argv)
{
	const struct sched_param first = {.sched_priority = 1};
	double connection[2], request[2], whole[2];
	int n, rounds, requests;
	static int s[MAX];

	if (argc != 6 || inet_pton(AF_INET, argv[4], &to.sin_addr) != 1)
		errx(2, "usage: conns CONNECTIONS ROUNDS REQUESTS ADDR PORT");
	n = atoi(argv[1]);
	rounds = atoi(argv[2]);
	requests = atoi(argv[3]);
	to.sin_port = htons(atoi(argv[5]));
	if (n < 1 || n > MAX || requests < 1)
		errx(2, "connections: 1 to %d", MAX);
	/* When the other side runs is chance otherwise: here while this one waits. */
	if (sched_setscheduler(0, SCHED_FIFO, &first))
		err(1, "sched_setscheduler");
	for (int round = 0; round < rounds; round++) {
		lap(connection, 1);
		for (int i = 0; i < n; i++)
			s[i] = begin();
		for (int i = 0; i < n; i++)
			until(s[i], POLLOUT);
		lap(connection, n);
		for (int r = 0; r < requests; r++) {
			for (int i = 0; i < n; i++)
				ask(s[i], r);
			for (int i = 0; i < n; i++)
				hear(s[i], r);
		}
		lap(request, n * requests);
		for (int i = 0; i < WHOLE; i++) {
			int one = begin();

			until(one, POLLOUT);
			ask(one, i);
			hear(one, i);
			end(one);
		}
		lap(whole, WHOLE);
		for (int i = 0; i < n; i++)
			end(s[i]);
		printf("%.1f %.1f %.1f %.2f %.2f %.2f\n", connection[0], request[0], whole[0],
		       connection[1], request[1], whole[1]);
	}
	return 0;
}
