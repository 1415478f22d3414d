/* SPDX-License-Identifier: GPL-2.0-only */
/* Checks that report in TAP. A test is a function; -v lets it say more. */
#ifndef TAP_H
#define TAP_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static unsigned int tap_tests, tap_failed, tap_checks_failed;
static bool tap_verbose;

#define check(cond, ...) do {						\
	if (!(cond)) {							\
		tap_checks_failed++;					\
		printf("# %s:%d: %s:", __FILE__, __LINE__, #cond);	\
		printf(" " __VA_ARGS__);					\
		putchar('\n');						\
	}								\
} while (0)

#define check_str(got, want) do {					\
	const char *got_ = (got), *want_ = (want);			\
	check(got_ && !strcmp(got_, want_), "got \"%s\", want \"%s\"", got_ ?: "(null)", want_); \
} while (0)

#define run(test) do {							\
	tap_checks_failed = 0;						\
	test();								\
	printf("%s %u - %s\n", tap_checks_failed ? "not ok" : "ok", ++tap_tests, #test); \
	tap_failed += !!tap_checks_failed;				\
	fflush(stdout);							\
} while (0)

static inline void tap_start(int argc, char **argv)
{
	tap_verbose = argc > 1 && !strcmp(argv[1], "-v");
}

static inline int tap_end(void)
{
	printf("1..%u\n", tap_tests);
	return tap_failed != 0;
}

static inline double tap_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e3 + ts.tv_nsec / 1e6;
}

#endif
