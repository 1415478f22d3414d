/* SPDX-License-Identifier: GPL-2.0-only */
/* Have allocations of the kernel fail: Documentation/fault-injection. On the debug kernel. */
#ifndef FAULT_H
#define FAULT_H

#include <err.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* An option of a kind: failslab or fail_page_alloc */
static inline void fault_option(const char *kind, const char *option, const char *value)
{
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/debug/%s/%s", kind, option);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		err(2, "%s", path);
	close(fd);
}

/* Also those fail that may sleep; quietly. */
static inline void fault_all(const char *kind)
{
	fault_option(kind, "verbose", "0");
	fault_option(kind, "ignore-gfp-wait", "N");
}

static inline void fault_number(int fd, long n)
{
	char text[32];

	if (write(fd, text, snprintf(text, sizeof(text), "%ld", n)) < 0)
		err(2, "a number of fault injection");
}

/* What is written to it: the Nth allocation of this thread, from now on, fails. */
static inline int fault_nth(void)
{
	int fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		err(2, "fail-nth");
	return fd;
}

/* Whether it has failed; none does any more. */
static inline bool fault_happened(int nth)
{
	char text[32] = "";

	if (pread(nth, text, sizeof(text) - 1, 0) < 0)
		err(2, "fail-nth");
	fault_number(nth, 0);
	return !atol(text);
}

#endif
