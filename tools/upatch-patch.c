// SPDX-License-Identifier: GPL-2.0-only
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/btf.h>

#include "upatch-patch.h"
#include "upatch.skel.h"

#define ARENA_SECTION ".addr_space.1"
#define NEW	      "new-"
#define OLD	      "old-"

const struct up_backend *const up_backends[UP_BACKENDS] = {
	[UP_POKE] = &up_poke,
	[UP_UPROBE] = &up_uprobe,
};

const char *const up_kinds[] = {"count", "clamp", "deny", "own", NULL};

const struct up_backend *up_patch_backend(const struct up_patch *p)
{
	return up_backends[p->meta.backend];
}

bool up_pid_in(__u32 pid, const __u32 *pids, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (pids[i] == pid)
			return true;
	return false;
}

/* --- what is there --- */

static bool meta_valid(const struct up_meta *m)
{
	return m->magic == UP_MAGIC && m->version == UP_VERSION && m->kind < UP_KINDS &&
	       m->backend < UP_BACKENDS && m->build_id_len <= UP_ID_MAX &&
	       memchr(m->function, 0, sizeof(m->function)) &&
	       memchr(m->object, 0, sizeof(m->object)) &&
	       memchr(m->program, 0, sizeof(m->program));
}

static int meta_read(const char *dir, struct up_meta *meta)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info), zero = 0;
	int fd = pin_get(dir, "meta"), err = 0;

	if (fd < 0)
		return fd;
	if (bpf_map_get_info_by_fd(fd, &info, &len) || info.value_size != sizeof(*meta) ||
	    bpf_map_lookup_elem(fd, &zero, meta) || !meta_valid(meta))
		err = -EINVAL;
	close(fd);
	return err;
}

static int by_id(const void *a, const void *b)
{
	const struct up_patch *p = a, *q = b;

	return p->meta.id < q->meta.id ? -1 : p->meta.id > q->meta.id;
}

int up_patches_get(struct up_patches *all)
{
	static bool told;	/* a verb may look more than once */
	DIR *d = opendir(UP_ROOT);
	struct dirent *e;
	int err = 0;
	__u32 id;

	memset(all, 0, sizeof(*all));
	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while (!err && (e = readdir(d))) {
		struct up_patch p = {.prog = -1}, *more;

		if (!parse_u32(e->d_name, 1, UINT32_MAX, &id) ||
		    !pin_path(p.dir, UP_ROOT, e->d_name))
			continue;
		if (id > all->last_id)
			all->last_id = id;
		if (meta_read(p.dir, &p.meta)) {
			if (!told)
				complain("%s: was made by another version of upatch, and is left "
					 "alone: detach it with that one", p.dir);
			all->others++;
			continue;
		}
		p.meta.id = id;
		more = realloc(all->patch, (all->n + 1) * sizeof(*more));
		if (!more) {
			err = -ENOMEM;
			break;
		}
		all->patch = more;
		all->patch[all->n++] = p;
	}
	closedir(d);
	told = true;
	if (all->n)
		qsort(all->patch, all->n, sizeof(*all->patch), by_id);
	return err;
}

void up_patches_free(struct up_patches *all)
{
	for (size_t i = 0; i < all->n; i++)
		up_patch_close(&all->patch[i]);
	free(all->patch);
	memset(all, 0, sizeof(*all));
}

int up_patch_map(struct up_patch *p, char *why)
{
	__u64 len = (__u64)p->meta.arena_pages * sysconf(_SC_PAGESIZE);
	int fd;

	if (p->arena)
		return 0;
	if (p->meta.arena_off > len || len - p->meta.arena_off < sizeof(*p->arena))
		return up_fail(why, "%s: what it says of its arena cannot be", p->dir);
	fd = pin_get(p->dir, "arena");
	if (fd < 0)
		return up_fail(why, "%s: cannot open its arena: %s", p->dir, strerror(-fd));
	p->mapped = mmap((void *)(unsigned long)p->meta.arena_start, len, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
	close(fd);
	if (p->mapped == MAP_FAILED) {
		p->mapped = NULL;
		return up_fail(why, "%s: cannot map its arena: %s", p->dir, strerror(errno));
	}
	p->arena = p->mapped + p->meta.arena_off;
	return 0;
}

int up_patch_prog(struct up_patch *p, char *why)
{
	if (p->prog < 0)
		p->prog = pin_get(p->dir, "prog");
	return p->prog >= 0 ? 0 : up_fail(why, "%s: cannot open its program: %s", p->dir,
					  strerror(-p->prog));
}

void up_patch_close(struct up_patch *p)
{
	if (p->mapped)
		munmap(p->mapped, (size_t)p->meta.arena_pages * sysconf(_SC_PAGESIZE));
	p->mapped = p->arena = NULL;
	if (p->prog >= 0)
		close(p->prog);
	p->prog = -1;
}

__u32 up_patch_next_id(const struct up_patches *all)
{
	return all->last_id + 1;
}

int up_each_link(const struct up_patch *p, char *why,
		 int (*fn)(const char *name, int fd, void *arg, char *why), void *arg)
{
	DIR *d = opendir(p->dir);
	struct dirent *e;
	int err = 0;

	if (!d)
		return up_fail(why, "%s: %s", p->dir, strerror(errno));
	while (!err && (e = readdir(d))) {
		int fd;

		if (strncmp(e->d_name, "at-", 3))
			continue;
		fd = pin_get(p->dir, e->d_name);
		if (fd < 0) {
			err = up_fail(why, "%s/%s: cannot open it: %s", p->dir, e->d_name,
				      strerror(-fd));
			break;
		}
		err = fn(e->d_name, fd, arg, why);
		close(fd);
	}
	closedir(d);
	return err;
}

int up_sweep(bool dry_run, unsigned int *n, char *why)
{
	DIR *d = opendir(UP_ROOT);
	struct dirent *e;
	int err = 0;

	*n = 0;
	while (!err && d && (e = readdir(d))) {
		struct up_patch p = {.prog = -1};

		if ((strncmp(e->d_name, NEW, 4) && strncmp(e->d_name, OLD, 4)) ||
		    !pin_path(p.dir, UP_ROOT, e->d_name))
			continue;
		(*n)++;
		if (dry_run)
			continue;
		/* one without its meta has no links yet, or no more */
		if (meta_read(p.dir, &p.meta)) {
			if (pin_dir_remove(p.dir))
				err = up_fail(why, "%s: cannot remove it: %s", p.dir,
					      strerror(errno));
		} else {
			err = up_patch_remove(&p, why);
		}
	}
	if (d)
		closedir(d);
	return err;
}

/* --- rules --- */

/* Compared and shown, so it must be what programs read; the arena may be anybody's work. */
bool up_rule_get(const struct up_patch *p, struct up_rule *rule)
{
	__u32 gen = __atomic_load_n(&p->arena->gen, __ATOMIC_ACQUIRE);

	memcpy(rule, &p->arena->rules[gen & 1], sizeof(*rule));
	return rule->gen == gen && rule->kind < UP_KINDS && rule->test < UP_TESTS &&
	       rule->arg < 6 && rule->prefix_len <= UP_PREFIX &&
	       (rule->bytes == 1 || rule->bytes == 2 || rule->bytes == 4 || rule->bytes == 8);
}

bool up_rule_same(const struct up_rule *a, const struct up_rule *b)
{
	struct up_rule x = *a, y = *b;

	x.gen = y.gen = 0;
	return !memcmp(&x, &y, sizeof(x));
}

void up_rule_put(struct up_patch *p, const struct up_rule *rule)
{
	__u32 gen = __atomic_load_n(&p->arena->gen, __ATOMIC_ACQUIRE) + 1;
	struct up_rule *to = &p->arena->rules[gen & 1], copy = *rule;

	copy.gen = gen;
	memcpy(to, &copy, sizeof(copy));
	__atomic_store_n(&p->arena->gen, gen, __ATOMIC_RELEASE);
}

/* --- making one --- */

void *up_global(struct bpf_object *obj, const char *section, const char *name, __u32 *offset)
{
	const struct btf *btf = bpf_object__btf(obj);
	int id = btf ? btf__find_by_name_kind(btf, section, BTF_KIND_DATASEC) : -1;
	const struct btf_type *t = id > 0 ? btf__type_by_id(btf, id) : NULL;
	const struct btf_var_secinfo *v = t ? btf_var_secinfos(t) : NULL;
	struct bpf_map *map;
	size_t size = 0;
	void *data;

	map = bpf_object__find_map_by_name(obj, strcmp(section, ARENA_SECTION) ? section :
						 "upatch_arena");
	data = map ? bpf_map__initial_value(map, &size) : NULL;
	for (__u32 i = 0; data && t && i < btf_vlen(t); i++, v++) {
		const struct btf_type *var = btf__type_by_id(btf, v->type);

		if (strcmp(btf__name_by_offset(btf, var->name_off), name))
			continue;
		if (v->offset > size || size - v->offset < v->size)
			return NULL;
		*offset = v->offset;
		return data + v->offset;
	}
	return NULL;
}

/* The one that is asked for, or the only one of the back end; the others are not loaded. */
static struct bpf_program *choose(struct bpf_object *obj, const char *name, const char *suffix,
				  char *why)
{
	struct bpf_program *prog, *found = NULL;
	size_t end = strlen(suffix);
	int n = 0;

	bpf_object__for_each_program(prog, obj) {
		const char *is = bpf_program__name(prog);
		size_t len = strlen(is);
		bool ours = len > end + 1 && !strcmp(is + len - end, suffix) &&
			    is[len - end - 1] == '_';

		bpf_program__set_autoload(prog, false);
		if (!ours || (name && (strlen(name) != len - end - 1 || strncmp(is, name,
										len - end - 1))))
			continue;
		found = prog;
		n++;
	}
	if (n != 1) {
		up_fail(why, !n ? "the object has no program %s_%s (see progs/upatch.bpf.h)" :
				  "the object has several programs: name one, FILE:NAME",
			name ?: "NAME", suffix);
		return NULL;
	}
	bpf_program__set_autoload(found, true);
	return found;
}

static struct bpf_object *open_object(const struct up_spec *spec)
{
	const void *elf;
	size_t size;

	if (spec->file)
		return bpf_object__open_file(spec->file, NULL);
	elf = upatch__elf_bytes(&size);
	return bpf_object__open_mem(elf, size, NULL);
}

static int pin_meta(struct up_patch *p)
{
	int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "upatch_meta", sizeof(__u32), sizeof(p->meta),
				1, NULL), err;
	__u32 zero = 0;

	if (fd < 0)
		return fd;
	err = bpf_map_update_elem(fd, &zero, &p->meta, BPF_ANY) ?: pin_put(fd, p->dir, "meta");
	close(fd);
	return err;
}

/* Everything in place, and on == 0. */
static int fill(struct up_patch *p, const struct up_spec *spec, struct bpf_object *obj, char *why)
{
	struct bpf_map *arena = bpf_object__find_map_by_name(obj, "upatch_arena");
	long page = sysconf(_SC_PAGESIZE);
	struct up_arena *a;
	__s64 *gadget;
	size_t size = 0;
	__u32 off;

	if (!arena || bpf_map__type(arena) != BPF_MAP_TYPE_ARENA)
		return up_fail(why, "the object is not made with progs/upatch.bpf.h");
	a = up_global(obj, ARENA_SECTION, "upatch", &p->meta.arena_off);
	if (!a || a->magic != UP_MAGIC || a->version != UP_VERSION)
		return up_fail(why, "the object is made with progs/upatch.bpf.h of another version");
	a->rules[0] = spec->rule;
	bpf_map__initial_value(arena, &size);
	p->meta.arena_pages = roundup(size, page) / page;
	gadget = up_global(obj, ".rodata", "upatch_gadget", &off);
	if (gadget)
		*gadget = p->meta.gadget;
	/* as large as its globals: libbpf puts them at the end */
	if (bpf_map__set_max_entries(arena, p->meta.arena_pages) ||
	    bpf_map__set_map_extra(arena, p->meta.arena_start))
		return up_fail(why, "cannot size the arena: %s", strerror(errno));
	return 0;
}

static int load(struct up_patch *p, const struct up_patch *old, const struct up_spec *spec,
		char *why)
{
	const char *name = spec->file ? spec->name : up_kinds[spec->kind];
	struct bpf_object *obj = open_object(spec);
	struct bpf_program *prog;
	struct bpf_map *arena;
	char suffix_less[UP_NAME];
	int err;

	if (!obj)
		return up_fail(why, "%s: %s", spec->file ?: "the program", strerror(errno));
	prog = choose(obj, name, spec->backend->suffix, why);
	err = !prog || fill(p, spec, obj, why) || spec->backend->prepare(p, old, obj, why) ? -1 : 0;
	if (!err) {
		err = bpf_object__load(obj);
		if (err)
			err = up_fail(why, "cannot load the program: %s%s", strerror(-err),
				      asked.verbose < 2 ? " (-vv shows more)" : "");
	}
	if (!err) {
		snprintf(suffix_less, sizeof(suffix_less), "%s", bpf_program__name(prog));
		suffix_less[strlen(suffix_less) - strlen(spec->backend->suffix) - 1] = 0;
		memcpy(p->meta.program, suffix_less, sizeof(suffix_less));
		arena = bpf_object__find_map_by_name(obj, "upatch_arena");
		err = pin_meta(p) ?: pin_put(bpf_map__fd(arena), p->dir, "arena") ?:
		      pin_put(bpf_program__fd(prog), p->dir, "prog");
		if (err)
			err = up_fail(why, "%s: cannot create the pins: %s", p->dir,
				      strerror(-err));
	}
	/* which unmaps the arena, to be mapped again as that of a patch */
	bpf_object__close(obj);
	return err;
}

int up_patch_make(struct up_patch *p, const struct up_patch *old, __u32 id,
		  const struct up_spec *spec, const struct up_object *o,
		  const struct up_site *site, const struct up_targets *ts, char *why)
{
	char name[32];

	memset(p, 0, sizeof(*p));
	p->prog = -1;
	p->meta = (struct up_meta){
		.magic = UP_MAGIC,
		.version = UP_VERSION,
		.id = id,
		.kind = spec->kind,
		.build_id_len = o->build_id_len,
		.offset = site->offset,
		.since = time(NULL),
		.prog_hash = spec->hash,
		.arena_start = up_free_window(ts),
		.gadget = site->gadget,
		.updates = old ? old->meta.updates + 1 : 0,
	};
	for (int i = 0; i < UP_BACKENDS; i++)
		if (up_backends[i] == spec->backend)
			p->meta.backend = i;
	memcpy(p->meta.build_id, o->build_id, sizeof(p->meta.build_id));
	memcpy(p->meta.function, site->function, sizeof(p->meta.function));
	memcpy(p->meta.object, o->path, sizeof(p->meta.object));
	snprintf(name, sizeof(name), NEW "%u", id);
	if (!pin_path(p->dir, UP_ROOT, name) || mkdir(p->dir, 0755))
		return up_fail(why, "%s: cannot create it: %s", p->dir, strerror(errno));
	if (!p->meta.arena_start)
		up_fail(why, "there is no room of 4 GB that is free in all of the processes");
	else if (!load(p, old, spec, why) && !up_patch_map(p, why) && !up_patch_prog(p, why))
		return 0;
	up_patch_close(p);
	pin_dir_remove(p->dir);
	return -1;
}

int up_patch_commit(struct up_patch *p, struct up_patch *old, char *why)
{
	char dir[PIN_PATH], name[16];
	unsigned int flags = old ? RENAME_EXCHANGE : RENAME_NOREPLACE;

	snprintf(name, sizeof(name), "%u", p->meta.id);
	pin_path(dir, UP_ROOT, name);
	__atomic_store_n(&p->arena->on, 1, __ATOMIC_RELEASE);
	if (renameat2(AT_FDCWD, p->dir, AT_FDCWD, dir, flags))
		return up_fail(why, "%s: cannot rename it: %s", p->dir, strerror(errno));
	if (old)
		memcpy(old->dir, p->dir, sizeof(old->dir));
	memcpy(p->dir, dir, sizeof(p->dir));
	return 0;
}

int up_patch_remove(struct up_patch *p, char *why)
{
	char dir[PIN_PATH], name[32], not_now[UP_WHY];
	const char *last = strrchr(p->dir, '/') + 1;
	int err;

	/* from here on it is not to be, whoever completes it */
	if (strncmp(last, NEW, 4) && strncmp(last, OLD, 4)) {
		snprintf(name, sizeof(name), OLD "%u", p->meta.id);
		pin_path(dir, UP_ROOT, name);
		if (rename(p->dir, dir))
			return up_fail(why, "%s: cannot rename it: %s", p->dir, strerror(errno));
		memcpy(p->dir, dir, sizeof(p->dir));
	}
	if (!up_patch_map(p, not_now))
		__atomic_store_n(&p->arena->on, 0, __ATOMIC_RELEASE);
	err = up_patch_backend(p)->detach(p, why);
	up_patch_close(p);
	if (!err && pin_dir_remove(p->dir))
		err = up_fail(why, "%s: cannot remove it: %s", p->dir, strerror(errno));
	return err;
}
