// SPDX-License-Identifier: GPL-2.0-only
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/nsfs.h>
#include <linux/sockios.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"
#include "sockkill-netns.h"

/* --- mounts --- */

static struct mount {
	__u32 inum;
	char *path;
} *mounts;
static size_t nmounts;
static bool mounts_read;

/* In mountinfo spaces and the like are \ooo. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && isdigit((unsigned char)s[2]) &&
		    isdigit((unsigned char)s[3])) {
			*to++ = (s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0');
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = 0;
}

static void read_mounts(void)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, *path;
	struct mount *more;
	size_t room = 0;
	__u32 inum;

	mounts_read = true;
	while (f && getline(&line, &room, f) > 0) {
		if (sscanf(line, "%*s %*s %*s net:[%u] %ms", &inum, &path) != 2)
			continue;
		more = realloc(mounts, (nmounts + 1) * sizeof(*mounts));
		if (!more) {
			free(path);
			break;
		}
		unescape(path);
		mounts = more;
		mounts[nmounts++] = (struct mount){inum, path};
	}
	free(line);
	if (f)
		fclose(f);
}

const char *sk_netns_name(__u32 inum)
{
	static const char run[] = "/run/netns/";
	const char *path = "";

	if (!mounts_read)
		read_mounts();
	for (size_t i = 0; i < nmounts; i++) {
		if (mounts[i].inum != inum)
			continue;
		path = mounts[i].path;
		if (!strncmp(path, run, strlen(run)))
			return path + strlen(run);
	}
	return path;
}

int sk_netns_resolve(const char *text, __u32 *inum)
{
	char path[64];
	struct stat st;
	int fd, err = 0;
	__u32 pid;

	if (parse_u32(text, 1, UINT_MAX, inum))
		return 0;
	if (sscanf(text, "net:[%u]", inum) == 1)
		return 0;
	if (!strncmp(text, "pid:", 4)) {
		if (!parse_u32(text + 4, 1, INT_MAX, &pid))
			return -EINVAL;
		snprintf(path, sizeof(path), "/proc/%u/ns/net", pid);
		text = path;
	}
	fd = netns_open(text);
	if (fd < 0)
		return fd;
	if (ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET || fstat(fd, &st))
		err = -EINVAL;
	else
		*inum = st.st_ino;
	close(fd);
	return err;
}

/* --- ways in --- */

#define INIT_PID_NS 0xeffffffc /* include/linux/ns/ns_common.h of the kernel: since 3.8 */

static struct sk_netns *find(struct sk_netns_list *list, __u32 inum)
{
	struct sk_netns *more;

	for (size_t i = 0; i < list->n; i++)
		if (list->ns[i].inum == inum)
			return &list->ns[i];
	if (list->n == list->room) {
		list->room = list->room ? 2 * list->room : 64;
		more = realloc(list->ns, list->room * sizeof(*more));
		if (!more)
			return NULL;
		list->ns = more;
	}
	list->ns[list->n] = (struct sk_netns){.inum = inum, .fd = -1};
	return &list->ns[list->n++];
}

/* Take fd, or -errno, as the way into the namespace, if it is what it should be. */
static void way(struct sk_netns *ns, int fd)
{
	struct stat st;

	if (fd < 0) {
		ns->err = -fd;
		return;
	}
	if (ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET && !fstat(fd, &st) && st.st_ino == ns->inum) {
		ns->fd = fd;
		return;
	}
	ns->err = ESTALE;
	close(fd);
}

static int open_at(int dir, const char *path)
{
	int fd = openat(dir, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* The namespace of PID/ns/net below dir. */
static int of_task(struct sk_netns_list *list, int dir, const char *pid)
{
	char path[NAME_MAX + 16];
	struct sk_netns *ns;
	struct stat st;

	snprintf(path, sizeof(path), "%s/ns/net", pid);
	if (fstatat(dir, path, &st, 0)) {
		list->hidden += errno != ENOENT && errno != ESRCH;
		return 0;
	}
	ns = find(list, st.st_ino);
	if (ns && ns->fd < 0)
		way(ns, open_at(dir, path));
	return ns ? 0 : -ENOMEM;
}

/* All tasks: a thread may have entered another namespace than its process. */
static int of_tasks(struct sk_netns_list *list)
{
	DIR *proc = opendir("/proc"), *tasks;
	struct dirent *p, *t;
	char path[NAME_MAX + 16];
	int err = 0, fd;

	if (!proc)
		return 0;
	while (!err && (p = readdir(proc))) {
		if (!isdigit((unsigned char)p->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "%s/task", p->d_name);
		fd = openat(dirfd(proc), path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		tasks = fd < 0 ? NULL : fdopendir(fd);
		if (!tasks) {
			if (fd >= 0)
				close(fd);
			continue;
		}
		while (!err && (t = readdir(tasks)))
			if (isdigit((unsigned char)t->d_name[0]))
				err = of_task(list, dirfd(tasks), t->d_name);
		closedir(tasks);
	}
	closedir(proc);
	return err;
}

/* A socket in another process's hands leads to its namespace. */
static int by_socket(const struct sk_file *f)
{
	int pidfd = syscall(SYS_pidfd_open, f->pid, 0), sock, fd;

	if (pidfd < 0)
		return -errno;
	sock = syscall(SYS_pidfd_getfd, pidfd, f->fd, 0);
	fd = sock < 0 ? -1 : ioctl(sock, SIOCGSKNS);
	if (fd < 0)
		fd = -errno;
	if (sock >= 0)
		close(sock);
	close(pidfd);
	return fd;
}

int sk_netns_collect(struct sk_netns_list *list, const struct sk_file *files, size_t nfiles)
{
	int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC), err, fd;
	struct rlimit files_max;
	struct sk_netns *ns;
	struct stat st;
	char path[64];

	if (proc < 0)
		return -errno;
	/* one descriptor for each namespace */
	if (!getrlimit(RLIMIT_NOFILE, &files_max)) {
		files_max.rlim_cur = files_max.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files_max);
	}
	/* of the processes outside of a PID namespace nothing is known */
	if (fstatat(proc, "self/ns/pid", &st, 0) || st.st_ino != INIT_PID_NS)
		list->hidden++;
	err = of_task(list, proc, "self") ?: of_tasks(list);
	if (!mounts_read)
		read_mounts();
	for (size_t i = 0; !err && i < nmounts; i++) {
		ns = find(list, mounts[i].inum);
		if (!ns)
			err = -ENOMEM;
		else if (ns->fd < 0)
			way(ns, open_at(proc, mounts[i].path));
	}
	for (size_t i = 0; !err && i < nfiles; i++) {
		const struct sk_file *f = &files[i];

		if (f->netns) {
			ns = find(list, f->netns);
			if (ns && ns->fd < 0)
				way(ns, by_socket(f));
			err = ns ? 0 : -ENOMEM;
			continue;
		}
		/* a namespace, but of which kind? */
		snprintf(path, sizeof(path), "%u/fd/%u", f->pid, f->fd);
		fd = open_at(proc, path);
		if (fd >= 0 && ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET) {
			ns = find(list, f->ino);
			if (ns && ns->fd < 0) {
				way(ns, fd);
				continue;
			}
			err = ns ? 0 : -ENOMEM;
		}
		if (fd >= 0)
			close(fd);
	}
	close(proc);
	return err;
}

void sk_netns_free(struct sk_netns_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		if (list->ns[i].fd >= 0)
			close(list->ns[i].fd);
	free(list->ns);
	*list = (struct sk_netns_list){};
}
