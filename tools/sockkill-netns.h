/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Network namespaces, by the number of their inode: names for people and, for kernels without
 * iterators over all of them, the ways into each.
 */
#ifndef SOCKKILL_NETNS_H
#define SOCKKILL_NETNS_H

#include <linux/types.h>
#include <stddef.h>

#include "sockkill.h"

struct sk_netns {
	__u32 inum;
	int fd;				/* -1: there is no way in */
	int err;			/* then: what the last try said, an errno */
};

struct sk_netns_list {
	struct sk_netns *ns;
	size_t n, room;
	size_t hidden;			/* processes that did not let their namespace be seen */
};

/* "web" for /run/netns/web, else a path where it is mounted, or "". */
const char *sk_netns_name(__u32 inum);
/* A name, a path, pid:N, or the number itself. 0 or -errno; -ENOENT for a number unknown here. */
int sk_netns_resolve(const char *text, __u32 *inum);

/*
 * All that processes, mounts and the files in `files` lead to, each once; the first is that
 * of the caller. 0 or -ENOMEM.
 */
int sk_netns_collect(struct sk_netns_list *list, const struct sk_file *files, size_t nfiles);
void sk_netns_free(struct sk_netns_list *list);

#endif
