// SPDX-License-Identifier: GPL-2.0-only
/*
 * tproxy register: a proxy's listening sockets by reference, so that their addresses do not
 * matter. They stay registered until they are closed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>
#include <bpf/bpf.h>

#include "tproxy-verbs.h"

#define SOCKETS_MAX   64
#define UNIX_WAIT_MS  5000

static const char *const slots[TP_LISTENERS] = {"tcp, IPv4", "tcp, IPv6", "udp, IPv4", "udp, IPv6"};

struct found {
	int fd[TP_LISTENERS]; /* -1: none */
	int port[TP_LISTENERS];
	bool own[TP_LISTENERS]; /* of the family itself, not a dual-stack one */
	unsigned int opaque;	/* listeners that are not transparent */
	unsigned int elsewhere; /* or that are in another network namespace */
};

static int option(int fd, int level, int name)
{
	socklen_t len = sizeof(int);
	int value = 0;

	return getsockopt(fd, level, name, &value, &len) ? -1 : value;
}

/* False, with a message: two that cannot be told apart. */
static bool take(struct found *f, int slot, int fd, int port, bool own)
{
	if (f->fd[slot] >= 0 && f->port[slot] != port && f->own[slot] == own) {
		complain("there are listeners at ports %d and %d (%s); name one with --port",
			 f->port[slot], port, slots[slot]);
		return false;
	}
	if (f->fd[slot] >= 0 && f->own[slot] >= own)
		return true;
	f->fd[slot] = fd;
	f->port[slot] = port;
	f->own[slot] = own;
	return true;
}

/* An IP socket that listens, or one of datagrams that is not connected. */
static bool listens(int fd)
{
	int family = option(fd, SOL_SOCKET, SO_DOMAIN), type = option(fd, SOL_SOCKET, SO_TYPE);
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);

	if (family != AF_INET && family != AF_INET6)
		return false;
	if (type == SOCK_STREAM)
		return option(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1;
	return type == SOCK_DGRAM && getpeername(fd, (void *)&a, &len);
}

/* A socket that we hold: one that a proxy listens at? 1: yes, 0: no, -1: a message was told. */
static int look(struct found *f, int fd, __u64 netns)
{
	int family = option(fd, SOL_SOCKET, SO_DOMAIN), type = option(fd, SOL_SOCKET, SO_TYPE);
	struct sockaddr_storage a = {};
	socklen_t len = sizeof(a);
	__u64 cookie = 0;
	bool v6 = family == AF_INET6, only;
	int port, slot;

	if (!listens(fd))
		return 0;
	if (option(fd, SOL_SOCKET, SO_PROTOCOL) !=
	    (type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP))
		return 0;
	if (getsockname(fd, (void *)&a, &len))
		return 0;
	/* of both families at the same place */
	port = ntohs(((struct sockaddr_in *)&a)->sin_port);
	if (!port || (env.port && port != (int)env.port))
		return 0;
	len = sizeof(cookie);
	if (netns && !getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) &&
	    cookie != netns) {
		f->elsewhere++;
		return 0;
	}
	if (netns && (v6 ? option(fd, SOL_IPV6, IPV6_TRANSPARENT) :
			   option(fd, SOL_IP, IP_TRANSPARENT)) != 1) {
		/* a process may have many datagram sockets that are none of this */
		f->opaque += type == SOCK_STREAM;
		return 0;
	}
	slot = (type == SOCK_STREAM ? TP_TCP4 : TP_UDP4) + v6;
	only = v6 && option(fd, SOL_IPV6, IPV6_V6ONLY) == 1;
	if (!take(f, slot, fd, port, true) || (v6 && !only && !take(f, slot - 1, fd, port, false)))
		return -1;
	return 1;
}

/* --- of a process --- */

static int of_process(__u32 pid, int *fds, size_t *n)
{
	char dir[64], target[64];
	struct dirent *e;
	ssize_t len;
	int pidfd, fd;
	DIR *d;

	snprintf(dir, sizeof(dir), "/proc/%u/fd", pid);
	pidfd = syscall(SYS_pidfd_open, pid, 0);
	d = pidfd < 0 ? NULL : opendir(dir);
	if (!d) {
		int rc = errno == ESRCH || errno == ENOENT ? NOTHING : FAILED;

		if (rc == NOTHING)
			complain("there is no process %u", pid);
		else
			complain_err(errno, dir, "cannot look at the process");
		if (pidfd >= 0)
			close(pidfd);
		return rc;
	}
	while ((e = readdir(d)) && *n < SOCKETS_MAX) {
		len = readlinkat(dirfd(d), e->d_name, target, sizeof(target) - 1);
		if (len < 7 || memcmp(target, "socket:", 7))
			continue;
		fd = syscall(SYS_pidfd_getfd, pidfd, atoi(e->d_name), 0);
		if (fd < 0 && errno == EPERM) {
			complain_err(errno, dir, "cannot take its sockets, for which "
						 "CAP_SYS_PTRACE is needed");
			closedir(d);
			close(pidfd);
			return FAILED;
		}
		/* a proxy has few that listen, and thousands of connections */
		if (fd >= 0 && !listens(fd))
			close(fd);
		else if (fd >= 0)
			fds[(*n)++] = fd;
	}
	closedir(d);
	close(pidfd);
	return DONE;
}

/* --- sent to us --- */

static int of_unix(const char *path, int *fds, size_t *n)
{
	char control[CMSG_SPACE(SOCKETS_MAX * sizeof(int))], data[64];
	struct iovec iov = {data, sizeof(data)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), err = 0;
	struct pollfd p = {.fd = s, .events = POLLIN};

	if (strlen(path) >= sizeof(addr.sun_path)) {
		complain("%s: the path is too long", path);
		return USAGE;
	}
	strcpy(addr.sun_path, path);
	if (s < 0 || connect(s, (void *)&addr, sizeof(addr)))
		err = errno;
	else if (poll(&p, 1, UNIX_WAIT_MS) != 1)
		err = ETIMEDOUT;
	else if (recvmsg(s, &msg, MSG_CMSG_CLOEXEC) < 0)
		err = errno;
	if (err)
		complain_err(err, path, "no sockets from there");
	for (struct cmsghdr *c = err ? NULL : CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		*n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(c), *n * sizeof(int));
	}
	if (s >= 0)
		close(s);
	return err ? FAILED : DONE;
}

/* --- both --- */

static int enter(const struct net_dev *dev, const struct tp_inst *inst, const struct found *f)
{
	int map = pin_get(inst->dir, "tp_listeners"), rc = DONE;

	if (map < 0) {
		complain_err(map, inst->dir, "cannot open the registered listeners");
		return FAILED;
	}
	for (__u32 i = 0; !rc && i < TP_LISTENERS; i++) {
		__u64 fd = f->fd[i], was = 0, cookie = 0;
		socklen_t len = sizeof(cookie);
		bool had = !bpf_map_lookup_elem(map, &i, &was);

		if (f->fd[i] < 0) {
			/* another process takes the place of the earlier as a whole */
			if (!had)
				continue;
			change(dev->name, "forget the listener (%s)", slots[i]);
			if (!asked.dry_run && bpf_map_delete_elem(map, &i) && errno != EINVAL)
				rc = FAILED;
			continue;
		}
		getsockopt(f->fd[i], SOL_SOCKET, SO_COOKIE, &cookie, &len);
		if (had && was == cookie)
			continue;
		change(dev->name, "register the listener at port %d (%s)", f->port[i], slots[i]);
		if (!asked.dry_run && bpf_map_update_elem(map, &i, &fd, BPF_ANY)) {
			complain_err(errno, dev->name, "cannot register the listener at port %d",
				     f->port[i]);
			rc = FAILED;
		}
	}
	close(map);
	return rc;
}

int verb_register(int argc, char **argv)
{
	struct found f = {.fd = {-1, -1, -1, -1}};
	struct tp_inst inst = {.link.fd = -1};
	int fds[SOCKETS_MAX], rc, lock = -1;
	struct net_dev dev;
	size_t n = 0;

	if (argc != 1 || !!env.pid + !!env.unix_path + env.clear != 1)
		return usage_error("register", "takes DEV, and --pid, --unix or --clear");
	rc = dev_arg(argv[0], &dev) ?: pins_change(TP_ROOT, &lock) ?: tp_inst_get(&dev, &inst);
	if (!rc && env.pid)
		rc = of_process(env.pid, fds, &n);
	if (!rc && env.unix_path)
		rc = of_unix(env.unix_path, fds, &n);
	/* A proxy in a pod is in another namespace, and need not be transparent. */
	for (size_t i = 0; !rc && i < n; i++)
		if (look(&f, fds[i], tp_hooks[inst.set->conf.hook].routed ? dev.netns : 0) < 0)
			rc = USAGE;
	if (!rc && !env.clear && f.fd[0] < 0 && f.fd[1] < 0 && f.fd[2] < 0 && f.fd[3] < 0) {
		complain("%s: no listening socket%s", argv[0],
			 f.opaque    ? " that has IP_TRANSPARENT" :
			 f.elsewhere ? " that is in the network namespace of the device" :
				       "");
		rc = NOTHING;
	}
	if (!rc)
		rc = enter(&dev, &inst, &f);
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
	tp_inst_close(&inst);
	pins_unlock(lock);
	return report("device", argv[0], rc);
}
