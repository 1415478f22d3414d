/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What every tool does in the same way.
 */
#ifndef COMMON_H
#define COMMON_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/libbpf.h>
#include <jansson.h>
#include <linux/types.h>

enum {
	DONE = 0,		/* or already so */
	FAILED = 1,
	USAGE = 2,		/* or bad input */
	NOTHING = 3,		/* nothing matched */
	LACKING = 4,		/* the kernel lacks something */
};

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

extern int verbosity;		/* -v: libbpf's warnings, -vv: all, with the verifier's log */

/* "TOOL: ..." and a newline to stderr. */
void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* "TOOL: OBJECT: WHAT: strerror(err)", with a hint about capabilities on EPERM. */
void complain_err(int err, const char *object, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

int libbpf_printer(enum libbpf_print_level level, const char *fmt, va_list ap);

/* A whole decimal number in [min, max]. */
bool parse_u32(const char *text, __u32 min, __u32 max, __u32 *value);

/* A file, or "-": standard input. malloc'd with a NUL behind it. 0 or -errno; -EFBIG above max. */
int read_file(const char *path, size_t max, char **text, size_t *len);

/* A path, or a name below /run/netns. 0 or -errno. */
int netns_open(const char *name);
int netns_enter(const char *name);
/* The cookie that names the current network namespace for good; 0: not known. */
__u64 netns_cookie(void);

/* One document and a newline to stdout; takes the reference. False: no memory, or a full disk. */
bool json_out(json_t *doc);

/* The end of main: what standard output did not take is a failure; rc < 0 asks for usage. */
struct argp;
int finish(int rc, const struct argp *argp);

#endif
