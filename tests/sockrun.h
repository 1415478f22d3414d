/* SPDX-License-Identifier: GPL-2.0-only */
/* Start programs of sockiter.bpf.c by a request, and look up which sockets they saw. */
#ifndef SOCKRUN_H
#define SOCKRUN_H

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "sockets.h"
#include "sockiter.h"
#include "sockiter.skel.h"

static struct sockiter *skel;

static inline __u64 cookie(int s)
{
	socklen_t len = sizeof(__u64);
	__u64 c;

	must(getsockopt(s, SOL_SOCKET, SO_COOKIE, &c, &len));
	return c;
}

static inline void forget(struct bpf_map *map)
{
	int fd = bpf_map__fd(map);
	__u64 key;

	while (!bpf_map_get_next_key(fd, NULL, &key))
		bpf_map_delete_elem(fd, &key);
}

static inline __u32 times(struct bpf_map *map, __u64 key)
{
	__u32 n = 0;

	bpf_map_lookup_elem(bpf_map__fd(map), &key, &n);
	return n;
}

static inline bool once(int s)
{
	return times(skel->maps.cookies, cookie(s)) == 1;
}

/* The number of keys that were seen more often than once. */
static inline int repeats(struct bpf_map *map)
{
	__u64 key, *prev = NULL;
	int n = 0;

	while (!bpf_map_get_next_key(bpf_map__fd(map), prev, &key)) {
		n += times(map, key) > 1;
		prev = &key;
	}
	return n;
}

static inline int try_prog(struct bpf_program *prog, struct sockiter_req *req)
{
	/* The kernel writes the answer where it read the request. */
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = req, .ctx_size_in = sizeof(*req));

	return bpf_prog_test_run_opts(bpf_program__fd(prog), &opts);
}

static inline void run_prog(struct bpf_program *prog, struct sockiter_req *req)
{
	must(try_prog(prog, req));
}

static inline struct sockiter_req run(int mode, int proto, int kill, int lport, int dport)
{
	struct sockiter_req req = {
		.mode = mode, .proto = proto, .kill = kill, .lport = lport, .dport = dport,
	};

	forget(skel->maps.cookies);
	forget(skel->maps.net_cookies);
	run_prog(skel->progs.sockiter_run, &req);
	return req;
}

#endif
