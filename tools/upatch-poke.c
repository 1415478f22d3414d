// SPDX-License-Identifier: GPL-2.0-only
/*
 * The back end whose programs the patched process runs in user mode: a text_poke link for each
 * process, which its children inherit. Their pins are at-PID.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>
#include <bpf/bpf.h>

#include "upatch-patch.h"

#define IMAGE "anon_inode:[bpf_user_patch]" /* as /proc/PID/maps has it */

static bool there(bool writes, char *why)
{
	LIBBPF_OPTS(bpf_prog_load_opts, prog_opts, .expected_attach_type = BPF_USER_PATCH);
	LIBBPF_OPTS(bpf_link_create_opts, opts);
	static const struct bpf_insn insns[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K},
		{.code = BPF_JMP | BPF_EXIT},
	};
	int prog, link;

	prog = bpf_prog_load(BPF_PROG_TYPE_USER_PATCH, "upatch_probe", "GPL", insns,
			     ARRAY_SIZE(insns), &prog_opts);
	if (prog < 0) {
		up_fail(why, prog == -EPERM ? "cannot load a program: CAP_BPF and CAP_PERFMON are "
					      "needed; are you root?" :
			"this kernel has no programs for user mode, for which kernel/upatch "
			"and CONFIG_BPF_USER_PATCH are needed");
		return false;
	}
	/* no process: a kernel that has the link gets that far */
	opts.text_poke.build_id = "";
	opts.text_poke.build_id_sz = 1;
	link = bpf_link_create(prog, -1, BPF_USER_PATCH, &opts);
	close(prog);
	if (link == -EBADF)
		return true;
	if (link >= 0)
		close(link);
	up_fail(why, link == -EPERM ? "this kernel allows no TEXT_POKE link: CAP_BPF and "
				      "CAP_PERFMON are needed, no lockdown, and "
				      "kernel.bpf_user_patch = 1" :
		"this kernel has no TEXT_POKE link, for which kernel/upatch is needed");
	return false;
}

/* --- links --- */

static int link_info(int fd, struct bpf_link_info *info)
{
	__u32 len = sizeof(*info);

	memset(info, 0, sizeof(*info));
	return bpf_link_get_info_by_fd(fd, info, &len) ? -errno : 0;
}

static const char *attach_error(int err)
{
	switch (-err) {
	case EACCES:
		return "this user may not trace it (see ptrace(2))";
	case EADDRINUSE:
		return "it uses addresses around the arena; detach, and apply it anew";
	case EBUSY:
		return "a probe, a breakpoint or another patch is at the function";
	case EILSEQ:
	case ENODATA:
		return "the first instruction of the function cannot run elsewhere";
	case EMLINK:
		return "it has had too many patches (see sysctl kernel.bpf_user_patch_max)";
	case ENOENT:
		return "it has the function not mapped any more";
	case ENOMEM:
		return "no memory, or its RLIMIT_AS is in the way";
	case ENOSPC:
		return "there is no room within 2 GB of the function";
	case EOPNOTSUPP:
		return "it is not a 64-bit process";
	case EPERM:
		return "not allowed: CAP_BPF and CAP_PERFMON, no lockdown, and "
		       "kernel.bpf_user_patch = 1 are needed";
	case ESRCH:
		return "has ended";
	case ESTALE:
		return "its object has another build-id";
	case ETXTBSY:
		return "its code is mapped shared or writable";
	default:
		return strerror(-err);
	}
}

/* Who is patched is the kernel's to know: the map of members is for uprobes. */
static int prepare(struct up_patch *p, const struct up_patch *old, struct bpf_object *obj,
		   char *why)
{
	struct bpf_map *map = bpf_object__find_map_by_name(obj, "upatch_members");

	if (map)
		bpf_map__set_autocreate(map, false);
	return 0;
}

static int attach(struct up_patch *p, const struct up_target *t, char *why)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts);
	char name[32];
	int pidfd, link, err;

	pidfd = pidfd_open(t->pid, 0);
	if (pidfd < 0)
		return up_fail(why, "%s", errno == ESRCH ? "has ended" : strerror(errno));
	opts.text_poke.path_fd = t->object->fd;
	opts.text_poke.flags = BPF_F_USER_PATCH_PATH_FD;
	opts.text_poke.offset = p->meta.offset;
	opts.text_poke.vaddr = t->addr;
	opts.text_poke.cookie = p->meta.id;
	link = bpf_link_create(p->prog, pidfd, BPF_USER_PATCH, &opts);
	if (link == -ENOENT && t->object->build_id_len) {
		/* overlayfs has copied the file up: it runs from what is below it */
		opts.text_poke.path_fd = 0;
		opts.text_poke.flags = 0;
		opts.text_poke.build_id = t->object->build_id;
		opts.text_poke.build_id_sz = t->object->build_id_len;
		link = bpf_link_create(p->prog, pidfd, BPF_USER_PATCH, &opts);
	}
	close(pidfd);
	if (link < 0)
		return up_fail(why, "%s", attach_error(link));
	snprintf(name, sizeof(name), "at-%u", t->pid);
	err = pin_put(link, p->dir, name);
	if (err == -EEXIST) {
		/* of a process with that number that has ended, or executed another program */
		pin_unlink(p->dir, name);
		err = pin_put(link, p->dir, name);
	}
	close(link);
	return err ? up_fail(why, "%s: cannot pin the link: %s", p->dir, strerror(-err)) : 0;
}

/*
 * A link that is also that of the patch in force, UP_ROOT/ID, goes on with the program of that:
 * this one was to replace it and did not come to it, or is replaced.
 */
static int unpin(const char *name, int fd, void *arg, char *why)
{
	struct up_patch *p = arg;
	char dir[PIN_PATH], id[16];
	int other, prog, err;

	snprintf(id, sizeof(id), "%u", p->meta.id);
	pin_path(dir, UP_ROOT, id);
	other = strcmp(dir, p->dir) ? pin_get(dir, name) : -ENOENT;
	if (other >= 0) {
		prog = pin_get(dir, "prog");
		err = prog < 0 ? prog : bpf_link_update(other, prog, NULL);
		if (prog >= 0)
			close(prog);
		close(other);
		if (err && err != -ENOLINK)
			return up_fail(why, "%s/%s: cannot bring its program back: %s", dir, name,
				       strerror(-err));
	}
	/* the descriptor of whoever called is closed last, and ends it at once */
	err = pin_unlink(p->dir, name);
	return err ? up_fail(why, "%s/%s: cannot remove it: %s", p->dir, name, strerror(-err)) : 0;
}

static int detach(struct up_patch *p, char *why)
{
	return up_each_link(p, why, unpin, p);
}

static int share(const char *name, int fd, void *arg, char *why)
{
	struct up_patch *fresh = arg;
	int err = pin_put(fd, fresh->dir, name);

	return err ? up_fail(why, "%s: cannot pin the link: %s", fresh->dir, strerror(-err)) : 0;
}

static int exchange(const char *name, int fd, void *arg, char *why)
{
	struct up_patch *fresh = arg;
	int err = bpf_link_update(fd, fresh->prog, NULL);

	return err ? up_fail(why, "%s: %s", name, err == -ENOSPC ?
			     "it has had too many programs; detach, and attach it anew" :
			     attach_error(err)) : 0;
}

/* Each link has its pin in both of them until the names are exchanged. */
static int replace(struct up_patch *old, struct up_patch *fresh, char *why)
{
	if (up_each_link(old, why, share, fresh))
		return -1;
	__atomic_store_n(&fresh->arena->on, __atomic_load_n(&old->arena->on, __ATOMIC_ACQUIRE),
			 __ATOMIC_RELEASE);
	return up_each_link(fresh, why, exchange, fresh);
}

/* --- the processes that are patched --- */

struct seen {
	struct up_targets *ts;
	struct up_site *site;
	__u32 *pids;
	size_t n;
};

/* The image is there, and something else than the file's byte at the function. */
static bool runs(const struct up_target *t, const struct up_site *site, __u64 image)
{
	struct up_maps maps = {};
	bool found = false;

	if (up_maps_read(t->pid, &maps))
		return false;
	for (size_t i = 0; i < maps.n && !found; i++)
		found = maps.map[i].start == image && !strcmp(maps.map[i].path, IMAGE);
	up_maps_free(&maps);
	return found && !up_target_intact(t, site);
}

static int collect(const char *name, int fd, void *arg, char *why)
{
	struct seen *seen = arg;
	struct bpf_link_info info;
	int err = link_info(fd, &info);
	__u32 *more;

	if (err)
		return up_fail(why, "%s: cannot ask the kernel about it: %s", name, strerror(-err));
	if (info.text_poke.state != BPF_TEXT_POKE_ATTACHED)
		return 0;
	for (size_t i = 0; i < seen->ts->n; i++) {
		struct up_target *t = &seen->ts->target[i];

		if (!t->object || up_pid_in(t->pid, seen->pids, seen->n) ||
		    up_target_place(t, seen->site) || t->addr != info.text_poke.vaddr ||
		    pread(t->object->fd, seen->site->bytes, sizeof(seen->site->bytes),
			  seen->site->offset) <= 0 ||
		    !runs(t, seen->site, info.text_poke.image_vaddr))
			continue;
		more = realloc(seen->pids, (seen->n + 1) * sizeof(*more));
		if (!more)
			return up_fail(why, "no memory");
		seen->pids = more;
		more[seen->n++] = t->pid;
	}
	return 0;
}

static int pids(const struct up_patch *p, __u32 **list, size_t *n, char *why)
{
	struct up_site site = {.offset = p->meta.offset};
	struct up_targets ts = {};
	struct seen seen = {.ts = &ts, .site = &site};
	int err;

	up_targets_of_object(p->meta.build_id, p->meta.build_id_len, p->meta.object, &ts);
	err = up_each_link(p, why, collect, &seen);
	up_targets_free(&ts);
	*list = seen.pids;
	*n = seen.n;
	if (err) {
		free(seen.pids);
		*list = NULL;
		*n = 0;
	}
	return err;
}

static int add_up(const char *name, int fd, void *arg, char *why)
{
	struct bpf_link_info info, *sum = arg;

	if (!link_info(fd, &info)) {
		sum->text_poke.trap_hits += info.text_poke.trap_hits;
		sum->text_poke.faults += info.text_poke.faults;
		sum->text_poke.skipped += info.text_poke.skipped;
	}
	return 0;
}

/* The mode, and what the kernel has counted. */
static void info(const struct up_patch *p, json_t *doc)
{
	struct bpf_link_info sum = {};
	char why[UP_WHY];

	up_each_link(p, why, add_up, &sum);
	json_object_set_new(doc, "mode", json_string("trap"));
	json_object_set_new(doc, "traps", json_integer(sum.text_poke.trap_hits));
	json_object_set_new(doc, "program_faults", json_integer(sum.text_poke.faults));
	json_object_set_new(doc, "skipped", json_integer(sum.text_poke.skipped));
}

const struct up_backend up_poke = {
	.name = "poke",
	.suffix = "poke",
	.there = there,
	.prepare = prepare,
	.attach = attach,
	.detach = detach,
	.replace = replace,
	.pids = pids,
	.info = info,
};
