// SPDX-License-Identifier: GPL-2.0-only
/*
 * The back end that traps: a uprobe.multi link for each file, in all processes that map it,
 * and a map of those that are patched. A trap in any other is passed by.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>
#include <bpf/bpf.h>

#include "upatch-patch.h"
#include "upatch.skel.h"

#define DI	   112	/* of struct pt_regs */
#define RESTORE_MS 10000
#define INIT_PID_NS 0xeffffffcU	/* its inode, in every kernel */

/* --- probe --- */

static int probe_prog(bool writes)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = BPF_TRACE_UPROBE_MULTI,
		    .prog_flags = BPF_F_SLEEPABLE);
	const struct bpf_insn insns[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K},
		{.code = BPF_STX | BPF_MEM | BPF_DW, .dst_reg = 1, .off = DI},
		{.code = BPF_JMP | BPF_EXIT},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K},
		{.code = BPF_JMP | BPF_EXIT},
	};

	return bpf_prog_load(BPF_PROG_TYPE_KPROBE, "upatch_probe", "GPL", insns + (writes ? 0 : 3),
			     writes ? 3 : 2, &opts);
}

static bool there(bool writes, char *why)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts);
	unsigned long offset = 0;
	int prog, link, arena;

	arena = bpf_map_create(BPF_MAP_TYPE_ARENA, "upatch_probe", 0, 0, 1,
			       &(struct bpf_map_create_opts){.sz = sizeof(struct
									  bpf_map_create_opts),
							     .map_flags = BPF_F_MMAPABLE});
	if (arena < 0) {
		up_fail(why, arena == -EPERM ? "cannot make an arena: CAP_BPF and CAP_PERFMON are "
					       "needed; are you root?" :
			"this kernel has no BPF arena: Linux 6.9 is needed");
		return false;
	}
	close(arena);
	prog = probe_prog(false);
	if (prog < 0) {
		up_fail(why, prog == -EPERM ? "cannot load a program: CAP_BPF and CAP_PERFMON are "
					      "needed; are you root?" :
			"this kernel has no uprobe.multi: Linux 6.6 is needed");
		return false;
	}
	/* a directory has no functions: who knows the link says so */
	opts.uprobe_multi.path = "/";
	opts.uprobe_multi.offsets = &offset;
	opts.uprobe_multi.cnt = 1;
	link = bpf_link_create(prog, 0, BPF_TRACE_UPROBE_MULTI, &opts);
	close(prog);
	if (link != -EBADF) {
		if (link >= 0)
			close(link);
		up_fail(why, "this kernel has no uprobe.multi: CONFIG_UPROBES and Linux 6.6 are "
			"needed");
		return false;
	}
	if (!writes)
		return true;
	prog = probe_prog(true);
	if (prog < 0) {
		up_fail(why, "uprobes of this kernel may not write registers, which some have from "
			"Linux 6.18 on: counting works, clamping and denying do not");
		return false;
	}
	close(prog);
	return true;
}

/* --- the processes that are patched --- */

/* Of the patch that is replaced: members come and go meanwhile. */
static int share(struct up_patch *p, const struct up_patch *old)
{
	static const char *const pins[] = {"members", "lost", "fork", "exec", "exit"};
	int err = 0;

	for (size_t i = 0; !err && i < ARRAY_SIZE(pins); i++) {
		int fd = pin_get(old->dir, pins[i]);

		err = fd < 0 ? fd : pin_put(fd, p->dir, pins[i]);
		if (fd >= 0)
			close(fd);
	}
	return err;
}

static int watch(struct up_patch *p)
{
	struct upatch *skel = upatch__open();
	struct bpf_program *prog;
	int err;

	if (!skel)
		return -errno;
	bpf_object__for_each_program(prog, skel->obj)
		bpf_program__set_autoload(prog, !strncmp(bpf_program__name(prog), "upatch_", 7));
	bpf_map__set_autocreate(skel->maps.upatch_arena, false);
	err = upatch__load(skel) ?: upatch__attach(skel);
	if (!err)
		err = pin_put(bpf_map__fd(skel->maps.upatch_members), p->dir, "members") ?:
		      pin_put(bpf_map__fd(skel->maps.bss), p->dir, "lost") ?:
		      pin_put(bpf_link__fd(skel->links.upatch_fork), p->dir, "fork") ?:
		      pin_put(bpf_link__fd(skel->links.upatch_exec), p->dir, "exec") ?:
		      pin_put(bpf_link__fd(skel->links.upatch_exit), p->dir, "exit");
	upatch__destroy(skel);
	return err;
}

static int prepare(struct up_patch *p, const struct up_patch *old, struct bpf_object *obj,
		   char *why)
{
	struct bpf_map *map = bpf_object__find_map_by_name(obj, "upatch_members");
	int err = !map ? -ENOENT : old ? share(p, old) : watch(p), fd;

	if (!err) {
		fd = pin_get(p->dir, "members");
		err = fd < 0 ? fd : bpf_map__reuse_fd(map, fd);
		if (fd >= 0)
			close(fd);
	}
	if (!err)
		return 0;
	return !map ? up_fail(why, "the object is not made with progs/upatch.bpf.h") :
		      up_fail(why, "cannot watch forks: %s%s", strerror(-err),
			      asked.verbose < 2 ? " (-vv shows more)" : "");
}

static int pids(const struct up_patch *p, __u32 **list, size_t *n, char *why)
{
	int fd = pin_get(p->dir, "members");
	__u32 key, *prev = NULL, *more;

	*list = NULL;
	*n = 0;
	if (fd < 0)
		return up_fail(why, "%s: cannot open the map of members: %s", p->dir,
			       strerror(-fd));
	while (!bpf_map_get_next_key(fd, prev, &key)) {
		if (!(*n & (*n + 1))) {
			more = realloc(*list, 2 * (*n + 1) * sizeof(*more));
			if (!more)
				break;
			*list = more;
		}
		(*list)[(*n)++] = key;
		prev = &key;
	}
	close(fd);
	return 0;
}

/* --- links --- */

static void link_name(char name[64], const struct up_object *o)
{
	snprintf(name, 64, "at-%u-%u-%lu", major(o->dev), minor(o->dev), (unsigned long)o->ino);
}

/* Of a file, for its members and its link: another one for each, but for one time in 2^32. */
static __u32 file_key(const struct up_object *o)
{
	const __u64 mix = 0x9e3779b97f4a7c15;	/* 2^64 by the golden ratio */

	return ((o->ino * mix ^ o->dev) * mix) >> 32;
}

static int attach_file(struct up_patch *p, const struct up_object *o, char *why)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts);
	unsigned long offset = p->meta.offset;
	__u64 cookie = p->meta.id | (__u64)file_key(o) << 32;
	char name[64], path[64];
	int fd, err;

	link_name(name, o);
	fd = pin_get(p->dir, name);
	if (fd >= 0) {
		close(fd);
		return 0;
	}
	/* by its descriptor: it may have no name by now */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", o->fd);
	opts.uprobe_multi.path = path;
	opts.uprobe_multi.offsets = &offset;
	opts.uprobe_multi.cookies = &cookie;
	opts.uprobe_multi.cnt = 1;
	fd = bpf_link_create(p->prog, 0, BPF_TRACE_UPROBE_MULTI, &opts);
	if (fd < 0)
		return up_fail(why, "cannot put a uprobe there: %s%s", strerror(fd == -524 ?
									 ENOTSUP : -fd),
			       fd == -EINVAL || fd == -524 || fd == -EOPNOTSUPP ?
			       " (the kernel cannot step over its first instruction)" : "");
	err = pin_put(fd, p->dir, name);
	close(fd);
	return err ? up_fail(why, "%s: cannot pin the link: %s", p->dir, strerror(-err)) : 0;
}

static int attach(struct up_patch *p, const struct up_target *t, char *why)
{
	struct up_target now = *t;
	struct up_site site = {.offset = p->meta.offset};
	struct stat ns;
	__u32 key = file_key(t->object);
	int fd, err;

	if (stat("/proc/self/ns/pid", &ns) || ns.st_ino != INIT_PID_NS)
		return up_fail(why, "its number is another to uprobes: upatch must run in the "
			       "host's PID namespace");
	err = attach_file(p, t->object, why);
	if (err)
		return err;
	fd = pin_get(p->dir, "members");
	if (fd < 0)
		return up_fail(why, "%s: cannot open the map of members: %s", p->dir,
			       strerror(-fd));
	err = bpf_map_update_elem(fd, &t->pid, &key, BPF_ANY);
	if (err)
		up_fail(why, "cannot add it to the members: %s", strerror(-err));
	/* it may have ended, or executed another program, in front of that */
	if (!err && (up_target_place(&now, &site) || now.addr != t->addr)) {
		bpf_map_delete_elem(fd, &t->pid);
		err = up_fail(why, "has ended, or executed another program");
	}
	/* uprobes are where the file is now */
	if (!err && pread(t->object->fd, site.bytes, sizeof(site.bytes), site.offset) > 0 &&
	    up_target_intact(t, &site) > 0) {
		bpf_map_delete_elem(fd, &t->pid);
		err = up_fail(why, "runs from the file as it was before overlayfs copied it up");
	}
	close(fd);
	return err ? -1 : 0;
}

/* The descriptor of whoever called is closed last, and the kernel ends the link at once. */
static int unpin(const char *name, int fd, void *arg, char *why)
{
	const struct up_patch *p = arg;
	int err = pin_unlink(p->dir, name);

	return err ? up_fail(why, "%s/%s: cannot remove it: %s", p->dir, name, strerror(-err)) : 0;
}

static bool has_other(const struct up_patch *p)
{
	struct up_patches all;
	bool found = false;

	up_patches_get(&all);
	for (size_t i = 0; i < all.n; i++)
		found |= all.patch[i].meta.offset == p->meta.offset &&
			 !strcmp(all.patch[i].meta.object, p->meta.object);
	up_patches_free(&all);
	return found;
}

/* The bytes of the file are back in each process that was patched. */
static int wait_restored(const struct up_patch *p, char *why)
{
	struct up_site site = {.offset = p->meta.offset};
	const struct timespec pause = {.tv_nsec = 5000000};
	struct up_targets ts = {};
	int waited = 0, err = 0;

	/* whoever else has a probe there keeps it */
	if (has_other(p))
		return 0;
	up_targets_of_object(p->meta.build_id, p->meta.build_id_len, p->meta.object, &ts);
	for (size_t i = 0; i < ts.n && !err; i++) {
		struct up_target *t = &ts.target[i];

		if (!t->object || up_target_place(t, &site) ||
		    pread(t->object->fd, site.bytes, sizeof(site.bytes), site.offset) <= 0)
			continue;
		while (!up_target_intact(t, &site) && waited < RESTORE_MS) {
			nanosleep(&pause, NULL);
			waited += 5;
		}
		if (waited >= RESTORE_MS)
			err = up_fail(why, "process %u still has other bytes at %#llx than the "
				      "file: another tracer's?", t->pid, t->addr);
	}
	up_targets_free(&ts);
	return err;
}

static int detach(struct up_patch *p, char *why)
{
	char not_restored[UP_WHY];
	int err = up_each_link(p, why, unpin, p);

	if (!err && wait_restored(p, not_restored))
		complain("%u: %s", p->meta.id, not_restored);
	return err;
}

static void info(const struct up_patch *p, json_t *doc)
{
	int fd = pin_get(p->dir, "lost");
	__u32 zero = 0;
	__u64 lost = 0;

	if (fd >= 0) {
		bpf_map_lookup_elem(fd, &zero, &lost);
		close(fd);
	}
	json_object_set_new(doc, "children_lost", json_integer(lost));
}

const struct up_backend up_uprobe = {
	.name = "uprobe",
	.suffix = "uprobe",
	.there = there,
	.prepare = prepare,
	.attach = attach,
	.detach = detach,
	.pids = pids,
	.info = info,
};
