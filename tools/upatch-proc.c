// SPDX-License-Identifier: GPL-2.0-only
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common.h"
#include "upatch-proc.h"

#define DELETED " (deleted)"

/* --- maps --- */

void up_comm(__u32 pid, char comm[16])
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%u/comm", pid);
	f = fopen(path, "re");
	comm[0] = 0;
	if (!f)
		return;
	if (!fgets(comm, 16, f))
		comm[0] = 0;
	comm[strcspn(comm, "\n")] = 0;
	fclose(f);
}

/* "\012" and the like, which the kernel writes for what would end a line. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && s[1] == '0' && isdigit(s[2]) && isdigit(s[3])) {
			*to++ = (s[2] - '0') * 8 + s[3] - '0';
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = 0;
}

int up_maps_read(__u32 pid, struct up_maps *maps)
{
	char path[64], line[UP_PATH + 128];
	size_t room = 0;
	int err = 0;
	FILE *f;

	memset(maps, 0, sizeof(*maps));
	snprintf(path, sizeof(path), "/proc/%u/maps", pid);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f)) {
		unsigned long long start, end, offset, ino;
		unsigned int major, minor;
		struct up_map *m;
		int at = 0;

		if (maps->n == room) {
			room = room ? 2 * room : 64;
			m = realloc(maps->map, room * sizeof(*m));
			if (!m) {
				err = -ENOMEM;
				break;
			}
			maps->map = m;
		}
		m = &maps->map[maps->n];
		memset(m, 0, sizeof(*m));
		if (sscanf(line, "%llx-%llx %4s %llx %x:%x %llu %n", &start, &end, m->perms,
			   &offset, &major, &minor, &ino, &at) < 7 || !at)
			continue;
		m->start = start;
		m->end = end;
		m->offset = offset;
		m->dev = makedev(major, minor);
		m->ino = ino;
		line[strcspn(line, "\n")] = 0;
		snprintf(m->path, sizeof(m->path), "%.*s", UP_PATH - 1, line + at);
		unescape(m->path);
		maps->n++;
	}
	if (!err && ferror(f))
		err = -errno;
	fclose(f);
	if (err)
		up_maps_free(maps);
	return err;
}

void up_maps_free(struct up_maps *maps)
{
	free(maps->map);
	memset(maps, 0, sizeof(*maps));
}

/* Of a path: without what the kernel says behind it. */
static size_t path_len(const struct up_map *m)
{
	size_t len = strlen(m->path), del = strlen(DELETED);

	return len > del && !strcmp(m->path + len - del, DELETED) ? len - del : len;
}

/* A regular file, as maps have it: overlayfs and btrfs show another device to stat(). */
static int open_file(const char *path, dev_t *dev, ino_t *ino)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), err;
	struct up_maps maps = {};
	struct stat st;
	void *p;

	if (fd < 0)
		return -errno;
	err = fstat(fd, &st) ? -errno : S_ISREG(st.st_mode) ? 0 : -EINVAL;
	p = err ? MAP_FAILED : mmap(NULL, 1, PROT_READ, MAP_PRIVATE, fd, 0);
	if (!err)
		err = p == MAP_FAILED ? -errno : up_maps_read(getpid(), &maps) ?: -ENOENT;
	for (size_t i = 0; i < maps.n && err; i++) {
		if ((__u64)p < maps.map[i].start || (__u64)p >= maps.map[i].end)
			continue;
		*dev = maps.map[i].dev;
		*ino = maps.map[i].ino;
		err = 0;
	}
	if (p != MAP_FAILED)
		munmap(p, 1);
	up_maps_free(&maps);
	if (err)
		close(fd);
	return err ?: fd;
}

static int open_if(const char *path, const struct up_map *m)
{
	dev_t dev;
	ino_t ino;
	int fd = open_file(path, &dev, &ino);

	if (fd >= 0 && (dev != m->dev || ino != m->ino)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

struct up_object *up_mapped_object(__u32 pid, const struct up_map *m, char *why)
{
	struct up_object *o = up_object_known(m->dev, m->ino);
	char path[UP_PATH + 64];
	int fd;

	if (o)
		return o;
	/* the file itself, whatever its name is by now; this takes CAP_CHECKPOINT_RESTORE */
	snprintf(path, sizeof(path), "/proc/%u/map_files/%llx-%llx", pid, m->start, m->end);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		snprintf(path, sizeof(path), "/proc/%u/exe", pid);
		fd = open_if(path, m);
	}
	if (fd < 0 && path_len(m) == strlen(m->path)) {
		snprintf(path, sizeof(path), "/proc/%u/root%s", pid, m->path);
		fd = open_if(path, m);
	}
	if (fd < 0) {
		up_fail(why, "cannot reach the mapped file %s: it takes CAP_CHECKPOINT_RESTORE or "
			"CAP_SYS_ADMIN once it is replaced on disk", m->path);
		return NULL;
	}
	return up_object_get(fd, m->dev, m->ino, m->path, why);
}

/* --- targets --- */

struct up_target *up_targets_add(struct up_targets *ts, __u32 pid)
{
	struct up_target *t = realloc(ts->target, (ts->n + 1) * sizeof(*t));

	if (!t)
		return NULL;
	ts->target = t;
	t += ts->n++;
	memset(t, 0, sizeof(*t));
	t->pid = pid;
	up_comm(pid, t->comm);
	return t;
}

void up_targets_free(struct up_targets *ts)
{
	free(ts->target);
	memset(ts, 0, sizeof(*ts));
}

static bool executable(const struct up_map *m)
{
	return m->ino && m->perms[2] == 'x';
}

static bool named(const struct up_map *m, const char *object)
{
	size_t len = path_len(m), want = strlen(object);

	if (strchr(object, '/'))
		return len == want && !strncmp(m->path, object, len);
	return len > want && m->path[len - want - 1] == '/' &&
	       !strncmp(m->path + len - want, object, want);
}

int up_targets_of_pid(__u32 pid, const char *object, struct up_targets *ts)
{
	const struct up_map *found = NULL;
	struct up_target *t;
	struct up_maps maps;
	char path[64];
	dev_t dev;
	ino_t ino;
	int fd, err = up_maps_read(pid, &maps);

	if (err) {
		if (err == -ENOENT || err == -ESRCH)
			complain("process %u: there is none", pid);
		else
			complain("process %u: cannot look at it: %s (CAP_SYS_PTRACE is needed)",
				 pid, strerror(-err));
		return err == -ENOENT || err == -ESRCH ? NOTHING : FAILED;
	}
	snprintf(path, sizeof(path), "/proc/%u/exe", pid);
	if (!object) {
		fd = open_file(path, &dev, &ino);
		if (fd < 0) {
			complain("process %u: is one of the kernel's, or cannot be looked at", pid);
			up_maps_free(&maps);
			return FAILED;
		}
		close(fd);
	}
	for (size_t i = 0; i < maps.n; i++) {
		const struct up_map *m = &maps.map[i];

		if (!executable(m) ||
		    (object ? !named(m, object) : m->ino != ino || m->dev != dev))
			continue;
		if (found && (found->ino != m->ino || found->dev != m->dev)) {
			complain("process %u: has %s and %s: give --object a whole path", pid,
				 found->path, m->path);
			up_maps_free(&maps);
			return FAILED;
		}
		found = found ?: m;
	}
	t = found ? up_targets_add(ts, pid) : NULL;
	if (!found)
		complain("process %u: has no code of %s mapped", pid, object ?: "its program");
	else if (t)
		t->object = up_mapped_object(pid, found, t->why);
	if (t && !t->object)
		t->state = UP_FAILED;
	up_maps_free(&maps);
	return t ? DONE : found ? FAILED : NOTHING;
}

/* Whether a mapping is meant; true with *why set: it is, but not as it should be. */
struct wanted {
	bool (*is)(const struct wanted *w, __u32 pid, const struct up_map *m,
		   struct up_object **object, char *why);
	const char *path;
	dev_t dev;
	ino_t ino;
	const __u8 *id;
	__u32 len;
};

static int scan(const struct wanted *w, struct up_targets *ts)
{
	DIR *d = opendir("/proc");
	struct dirent *e;

	if (!d) {
		complain_err(errno, "/proc", "cannot read");
		return FAILED;
	}
	while ((e = readdir(d))) {
		struct up_target *t = NULL;
		struct up_maps maps;
		__u32 pid;
		int err;

		if (!parse_u32(e->d_name, 1, INT32_MAX, &pid) || pid == (__u32)getpid())
			continue;
		err = up_maps_read(pid, &maps);
		if (err) {
			ts->hidden += err == -EACCES || err == -EPERM;
			continue;
		}
		for (size_t i = 0; i < maps.n && (!t || !t->object); i++) {
			struct up_object *o = NULL;
			char why[UP_WHY] = "";

			if (!executable(&maps.map[i]) || !w->is(w, pid, &maps.map[i], &o, why))
				continue;
			t = t ?: up_targets_add(ts, pid);
			if (!t)
				break;
			t->object = o;
			t->state = o ? UP_TODO : UP_SKIPPED;
			memcpy(t->why, why, sizeof(why));
		}
		up_maps_free(&maps);
	}
	closedir(d);
	return DONE;
}

static bool is_file(const struct wanted *w, __u32 pid, const struct up_map *m,
		    struct up_object **object, char *why)
{
	if (m->ino == w->ino && m->dev == w->dev) {
		*object = up_object_known(m->dev, m->ino);
		return true;
	}
	if (path_len(m) == strlen(m->path) || !named(m, w->path))
		return false;
	up_fail(why, "has a file mapped that was replaced: -p, or --build-id, reaches it");
	return true;
}

int up_targets_of_file(const char *path, struct up_targets *ts)
{
	char why[UP_WHY], *whole = realpath(path, NULL);
	struct wanted w = {.is = is_file, .path = whole};
	int fd = whole ? open_file(whole, &w.dev, &w.ino) : -errno, rc = FAILED;

	if (fd < 0)
		complain("%s: %s", path, fd == -EINVAL ? "is no file" : strerror(-fd));
	else if (up_object_get(fd, w.dev, w.ino, whole, why))
		rc = scan(&w, ts);
	else
		complain("%s", why);
	free(whole);
	return rc;
}

static bool is_build_id(const struct wanted *w, __u32 pid, const struct up_map *m,
			struct up_object **object, char *why)
{
	*object = up_mapped_object(pid, m, why);
	if (*object && !up_build_id_is(*object, w->id, w->len))
		*object = NULL;
	return *object;
}

int up_targets_of_build_id(const __u8 *id, __u32 len, struct up_targets *ts)
{
	struct wanted w = {.is = is_build_id, .id = id, .len = len};

	return scan(&w, ts);
}

static bool is_path(const struct wanted *w, __u32 pid, const struct up_map *m,
		    struct up_object **object, char *why)
{
	if (path_len(m) != strlen(w->path) || strncmp(m->path, w->path, path_len(m)))
		return false;
	*object = up_mapped_object(pid, m, why);
	return true;
}

int up_targets_of_object(const __u8 *id, __u32 len, const char *path, struct up_targets *ts)
{
	struct wanted w = {.is = is_path, .path = path};

	return len ? up_targets_of_build_id(id, len, ts) : scan(&w, ts);
}

/* --- in one process --- */

int up_target_place(struct up_target *t, const struct up_site *site)
{
	const struct up_map *in = NULL;
	struct up_maps maps;
	int err = up_maps_read(t->pid, &maps);

	if (err)
		return up_fail(t->why, "%s", err == -EACCES ? "cannot be looked at" : "has ended");
	for (size_t i = 0; i < maps.n && !err; i++) {
		const struct up_map *m = &maps.map[i];

		if (m->ino != t->object->ino || m->dev != t->object->dev ||
		    site->offset < m->offset || site->offset - m->offset >= m->end - m->start)
			continue;
		if (m->perms[2] != 'x')
			continue;
		if (in)
			err = up_fail(t->why, "has the function mapped twice, at %#llx and %#llx",
				      in->start, m->start);
		in = m;
	}
	if (!err && !in)
		err = up_fail(t->why, "has the function not mapped");
	else if (!err && in->perms[3] == 's')
		err = up_fail(t->why, "has its code mapped shared");
	else if (!err && in->perms[1] == 'w')
		err = up_fail(t->why, "has its code mapped writable");
	if (!err)
		t->addr = in->start + (site->offset - in->offset);
	up_maps_free(&maps);
	return err;
}

int up_target_intact(const struct up_target *t, const struct up_site *site)
{
	__u8 bytes[5];
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%u/mem", t->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = pread(fd, bytes, sizeof(bytes), t->addr);
	n = n < 0 ? -errno : n;
	close(fd);
	return n < 0 ? n : n == sizeof(bytes) && !memcmp(bytes, site->bytes, sizeof(bytes));
}

/* --- room for an arena --- */

#define WINDOW	   (1ULL << 32)
#define FIRST	   0x2000ULL /* in windows: above what sanitizers, Go and Java take */
#define LAST	   0x4000ULL
#define INTO	   0x10000 /* so that no pointer into it is 0 in its lower half */
#define AROUND	   0x10000

static bool window_free(const struct up_maps *maps, __u64 start)
{
	for (size_t i = 0; i < maps->n; i++)
		if (maps->map[i].start < start + WINDOW + AROUND &&
		    maps->map[i].end > start - AROUND)
			return false;
	return true;
}

__u64 up_free_window(const struct up_targets *ts)
{
	struct up_maps *maps = calloc(ts->n + 1, sizeof(*maps));
	__u64 found = 0;

	if (!maps)
		return 0;
	up_maps_read(getpid(), &maps[ts->n]);
	for (size_t i = 0; i < ts->n; i++)
		if (ts->target[i].object)
			up_maps_read(ts->target[i].pid, &maps[i]);
	for (__u64 w = FIRST; w < LAST && !found; w++) {
		bool ok = true;

		for (size_t i = 0; i <= ts->n && ok; i++)
			ok = window_free(&maps[i], w * WINDOW);
		if (ok)
			found = w * WINDOW + INTO;
	}
	for (size_t i = 0; i <= ts->n; i++)
		up_maps_free(&maps[i]);
	free(maps);
	return found;
}
