// SPDX-License-Identifier: GPL-2.0-only
/*
 * Connections to a proxy that answers with what it was sent: what it takes until all of N are
 * there, what a request on each takes, and that each answer is right. A line for each round.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX 1024

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static void until(int s, short what)
{
	struct pollfd p = {s, what, 0};

	if (poll(&p, 1, 60000) != 1 || p.revents & (POLLERR | POLLHUP))
		errx(1, "a connection failed");
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	struct linger rst = {1, 0};
	static int s[MAX];
	char request[100], answer[100];
	int n, rounds, requests;

	if (argc != 6 || inet_pton(AF_INET, argv[4], &to.sin_addr) != 1)
		errx(2, "usage: conns CONNECTIONS ROUNDS REQUESTS ADDR PORT");
	n = atoi(argv[1]);
	rounds = atoi(argv[2]);
	requests = atoi(argv[3]);
	to.sin_port = htons(atoi(argv[5]));
	if (n < 1 || n > MAX || requests < 1)
		errx(2, "connections: 1 to %d", MAX);
	memset(request, 'x', sizeof(request));
	for (int round = 0; round < rounds; round++) {
		uint64_t start = now_ns(), connected, done;

		for (int i = 0; i < n; i++) {
			s[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
			if (s[i] < 0)
				err(1, "socket");
			if (connect(s[i], (void *)&to, sizeof(to)) && errno != EINPROGRESS)
				err(1, "connect");
		}
		for (int i = 0; i < n; i++)
			until(s[i], POLLOUT);
		connected = now_ns();
		for (int r = 0; r < requests; r++) {
			for (int i = 0; i < n; i++)
				if (send(s[i], request, sizeof(request), 0) != sizeof(request))
					err(1, "send");
			for (int i = 0; i < n; i++) {
				until(s[i], POLLIN);
				if (recv(s[i], answer, sizeof(answer), 0) != sizeof(answer) ||
				    memcmp(request, answer, sizeof(answer)))
					errx(1, "a wrong answer");
			}
		}
		done = now_ns();
		for (int i = 0; i < n; i++) {
			/* nothing shall wait for the next round */
			setsockopt(s[i], SOL_SOCKET, SO_LINGER, &rst, sizeof(rst));
			close(s[i]);
		}
		printf("%.1f %.1f\n", (double)(connected - start) / n,
		       (double)(done - connected) / n / requests);
	}
	return 0;
}
