// SPDX-License-Identifier: GPL-2.0-only
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"

int verbosity;

void complain(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "%s: ", program_invocation_short_name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

void complain_err(int err, const char *object, const char *fmt, ...)
{
	va_list ap;

	err = abs(err);
	fflush(stdout);
	fprintf(stderr, "%s: %s: ", program_invocation_short_name, object);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, ": %s%s\n", strerror(err),
		err == EPERM || (err == EACCES && geteuid()) ?
		" (CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are needed; are you root?)" : "");
}

int libbpf_printer(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	if (verbosity < (level == LIBBPF_DEBUG ? 2 : 1))
		return 0;
	return vfprintf(stderr, fmt, ap);
}

bool parse_u32(const char *text, __u32 min, __u32 max, __u32 *value)
{
	unsigned long long n;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno || *end || n < min || n > max)
		return false;
	*value = n;
	return true;
}

int read_file(const char *path, size_t max, char **text, size_t *len)
{
	size_t size = 0, room = 0;
	char *buf = NULL, *more;
	int fd = 0, err = 0;
	ssize_t n;

	if (strcmp(path, "-"))
		fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	do {
		if (room - size < 2) {
			room = room ? 2 * room : 65536;
			more = realloc(buf, room);
			if (!more) {
				err = -ENOMEM;
				break;
			}
			buf = more;
		}
		n = read(fd, buf + size, room - size - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			err = -errno;
		else
			size += n;
		if (size > max)
			err = -EFBIG;
	} while (!err && n);
	if (fd)
		close(fd);
	if (err) {
		free(buf);
		return err;
	}
	buf[size] = 0;
	*text = buf;
	*len = size;
	return 0;
}

int netns_open(const char *name)
{
	char path[PATH_MAX];
	int fd;

	if (snprintf(path, sizeof(path), "%s%s", strchr(name, '/') ? "" : "/run/netns/", name) >=
	    (int)sizeof(path))
		return -ENAMETOOLONG;
	/* O_NONBLOCK: what stands there may be a FIFO that nobody writes to */
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int netns_enter(const char *name)
{
	int fd = netns_open(name), err = 0;

	if (fd < 0)
		return fd;
	if (setns(fd, CLONE_NEWNET))
		err = -errno;
	close(fd);
	return err;
}

__u64 netns_cookie(void)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	__u64 cookie = 0;
	socklen_t len = sizeof(cookie);

	if (fd < 0)
		return 0;
	if (getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len))
		cookie = 0;
	close(fd);
	return cookie;
}

bool json_out(json_t *doc)
{
	bool ok = doc && !json_dumpf(doc, stdout, JSON_INDENT(2)) && putchar('\n') != EOF &&
		  !fflush(stdout);

	json_decref(doc);
	return ok;
}

int finish(int rc, const struct argp *argp)
{
	if (rc < 0) {
		argp_help(argp, stderr, ARGP_HELP_STD_USAGE, program_invocation_short_name);
		return USAGE;
	}
	if (!fflush(stdout) || rc)
		return rc;
	complain_err(errno, "standard output", "cannot write");
	return FAILED;
}
