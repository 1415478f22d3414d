/* SPDX-License-Identifier: GPL-2.0-only */
/* What the tests of programs for user mode share: their arena, and how they are loaded. */
#ifndef USERLOAD_H
#define USERLOAD_H

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <err.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define ARENA_START 0x7e0000000000ull	/* no process of the tests has anything there */
#define ARENA_PAGES 2

/* An arena that its user space maps at @start. */
static inline int arena_create(__u64 start)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE, .map_extra = start);
	int fd = bpf_map_create(BPF_MAP_TYPE_ARENA, "arena", 0, 0, ARENA_PAGES, &opts);

	if (fd < 0)
		err(1, "arena");
	return fd;
}

static inline void *arena_map(int fd, __u64 start)
{
	size_t size = ARENA_PAGES * sysconf(_SC_PAGESIZE);
	void *p = mmap((void *)start, size, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_FIXED_NOREPLACE,
		       fd, 0);

	if (p == MAP_FAILED)
		err(1, "arena at %#llx", start);
	return p;
}

/* The type of kernel function @name. */
static inline int kfunc_id(const char *name)
{
	struct btf *btf = btf__load_vmlinux_btf();
	int id = btf__find_by_name_kind(btf, name, BTF_KIND_FUNC);

	btf__free(btf);
	if (id < 0)
		errx(1, "%s: no such function in the kernel's types", name);
	return id;
}

#endif
