// SPDX-License-Identifier: GPL-2.0-only
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <bpf/bpf.h>

#include "common.h"
#include "podlink-path.h"
#include "podlink.skel.h"

#define DIR_MODE 0755

/* --- pins --- */

static void link_dir(char dir[PIN_PATH], const struct pl_path *path, __u32 ifindex)
{
	snprintf(dir, PIN_PATH, "%s/if%u", path->dir, ifindex);
}

int pl_path_open(struct pl_path *path)
{
	__u64 cookie = netns_cookie();

	path->pods = -1;
	snprintf(path->dir, sizeof(path->dir), "%s/ns%llu", PL_ROOT, (unsigned long long)cookie);
	if (!cookie) {
		complain("the kernel does not tell network namespaces apart; Linux 5.14 is needed");
		return LACKING;
	}
	path->pods = pin_get(path->dir, "pods");
	if (path->pods >= 0 || path->pods == -ENOENT)
		return DONE;
	complain_err(path->pods, path->dir, "cannot open the endpoint table");
	return FAILED;
}

void pl_path_close(struct pl_path *path)
{
	if (path->pods >= 0)
		close(path->pods);
	path->pods = -1;
}

/* The index of the device that a pinned link hangs at; 0: dead. -errno. */
static int link_info(const char *dir, const char *name, __u32 *ifindex, __u32 *prog)
{
	struct bpf_link_info info = {0};
	__u32 len = sizeof(info);
	int fd = pin_get(dir, name), err = 0;

	*ifindex = 0;
	*prog = 0;
	if (fd < 0)
		return fd;
	if (bpf_link_get_info_by_fd(fd, &info, &len))
		err = -errno;
	close(fd);
	if (err)
		return err;
	*prog = info.prog_id;
	*ifindex = info.type == BPF_LINK_TYPE_TCX ? info.tcx.ifindex : info.netkit.ifindex;
	return 0;
}

/* Calls f for each link's directory. */
static int each_dir(const struct pl_path *path,
		    int (*f)(const struct pl_path *path, const char *dir, __u32 ifindex, void *ctx),
		    void *ctx)
{
	DIR *d = opendir(path->dir);
	struct dirent *e;
	int rc = 0;

	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while (!rc && (e = readdir(d))) {
		__u32 ifindex;
		char dir[PIN_PATH];

		if (strncmp(e->d_name, "if", 2) ||
		    !parse_u32(e->d_name + 2, 1, INT32_MAX, &ifindex))
			continue;
		link_dir(dir, path, ifindex);
		rc = f(path, dir, ifindex, ctx);
	}
	closedir(d);
	return rc;
}

/* --- attach --- */

struct uplink {
	__u32 ifindex;
	int fd; /* of the bpf_link; -1: none */
	int in; /* of its counter */
};

static int same_uplink(const struct pl_path *path, const char *dir, __u32 ifindex, void *ctx)
{
	struct uplink *up = ctx;
	__u32 at, prog;

	if (link_info(dir, "uplink", &at, &prog) || at != up->ifindex)
		return 0;
	up->in = pin_get(dir, "in");
	if (up->in >= 0)
		up->fd = pin_get(dir, "uplink");
	return up->fd >= 0;
}

static void set_constants(struct podlink *skel, const struct pl_forward *fwd)
{
	skel->rodata->l2 = fwd->l2;
	memcpy((void *)skel->rodata->host_mac, fwd->host_mac, 6);
	if (fwd->gateway4)
		memcpy((void *)&skel->rodata->gateway4, fwd->gateway4, sizeof(*fwd->gateway4));
	if (fwd->gateway6)
		memcpy((void *)&skel->rodata->gateway6, fwd->gateway6, sizeof(*fwd->gateway6));
	skel->rodata->uplink = fwd->uplink;
	for (size_t i = fwd->naddrs; i--;)
		memcpy((void *)(fwd->addrs[i].family == AF_INET ? &skel->rodata->own4
								: &skel->rodata->own6),
		       &fwd->addrs[i].addr, sizeof(fwd->addrs[i].addr));
}

static struct bpf_link *attach(const struct bpf_program *prog, const struct pl_forward *fwd,
			       __u32 ifindex)
{
	LIBBPF_OPTS(bpf_tcx_opts, tcx);
	LIBBPF_OPTS(bpf_netkit_opts, netkit);

	return fwd->kind == PL_NETKIT ? bpf_program__attach_netkit(prog, ifindex, &netkit)
				      : bpf_program__attach_tcx(prog, ifindex, &tcx);
}

static int attach_pinned(const struct bpf_program *prog, const struct pl_forward *fwd,
			 __u32 ifindex, const char *dir, const char *pin)
{
	struct bpf_link *link = attach(prog, fwd, ifindex);
	int err;

	if (!link)
		return -errno;
	err = pin_put(bpf_link__fd(link), dir, pin);
	bpf_link__destroy(link);
	return err;
}

static int attach_uplink(struct pl_path *path, const struct pl_ns *host, struct podlink *skel,
			 const char *dir, __u32 ifindex)
{
	struct uplink up = {.ifindex = ifindex, .fd = -1, .in = -1};
	struct bpf_link *link = NULL;
	LIBBPF_OPTS(bpf_tcx_opts, tcx);
	struct pl_ns own = {0};
	int err;

	err = each_dir(path, same_uplink, &up);
	if (err < 0)
		return err;
	err = 0;
	if (up.fd < 0) {
		own.fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
		if (own.fd < 0)
			return -errno;
		if (pl_ns_enter(host)) {
			close(own.fd);
			return -EPERM;
		}
		link = bpf_program__attach_tcx(skel->progs.podlink_uplink, ifindex, &tcx);
		err = link ? 0 : -errno;
		if (pl_ns_enter(&own) && !err)
			err = -EPERM;
		close(own.fd);
	}
	if (!err)
		err = pin_put(link ? bpf_map__fd(skel->maps.pl_uplink) : up.in, dir, "in");
	if (!err)
		err = pin_put(link ? bpf_link__fd(link) : up.fd, dir, "uplink");
	bpf_link__destroy(link);
	if (up.fd >= 0)
		close(up.fd);
	if (up.in >= 0)
		close(up.in);
	return err;
}

int pl_path_enter(struct pl_path *path, const char *name, __u32 ifindex,
		  const struct pl_forward *fwd, bool *changed)
{
	struct pl_pod pod = {.ifindex = ifindex}, was;

	memcpy(pod.mac, fwd->mac, sizeof(pod.mac));
	memcpy(pod.host_mac, fwd->host_mac, sizeof(pod.host_mac));
	for (size_t i = 0; i < fwd->naddrs; i++) {
		const struct pl_addr *addr = &fwd->addrs[i].addr;
		char text[46];

		pl_addr_text(addr, text);
		if (!bpf_map_lookup_elem(path->pods, addr, &was)) {
			if (!memcmp(&was, &pod, sizeof(pod)))
				continue;
			if (was.ifindex != ifindex) {
				complain("%s: %s is an address of the pod behind device %u", name,
					 text, was.ifindex);
				return FAILED;
			}
		}
		*changed = true;
		if (!bpf_map_update_elem(path->pods, addr, &pod, BPF_ANY))
			continue;
		complain_err(errno, name, "cannot enter %s%s", text,
			     errno == E2BIG ? ": the table of 65536 addresses is full" : "");
		return FAILED;
	}
	return DONE;
}

/* pods: a table that others have made already, or -1 */
static int load(struct podlink *skel, const struct pl_forward *fwd, bool uplink, int pods)
{
	int err = 0;

	if (fwd->kind == PL_VETH) {
		bpf_program__set_expected_attach_type(skel->progs.podlink_peer, BPF_TCX_INGRESS);
		bpf_program__set_expected_attach_type(skel->progs.podlink_primary, BPF_TCX_EGRESS);
	}
	bpf_program__set_autoload(skel->progs.podlink_uplink, uplink);
	set_constants(skel, fwd);
	if (pods >= 0)
		err = bpf_map__reuse_fd(skel->maps.pl_pods, pods);
	return err ?: podlink__load(skel);
}

static int load_refused(int err, const char *name, const char *what)
{
	complain_err(err, name, "%s%s", what,
		     err == -EACCES  ? " (without CAP_PERFMON the verifier refuses them)"
		     : asked.verbose < 2 ? " (-vv shows more)"
				     : "");
	return FAILED;
}

int pl_path_add(struct pl_path *path, const struct pl_ns *host, const char *name, __u32 at,
		__u32 ifindex, const struct pl_forward *fwd)
{
	struct podlink *skel = podlink__open();
	const char *what = "cannot load the programs";
	bool changed = false;
	char dir[PIN_PATH];
	int err = skel ? 0 : -errno, rc = DONE;

	link_dir(dir, path, ifindex);
	if (err)
		goto out;
	err = load(skel, fwd, fwd->uplink, path->pods);
	if (err)
		goto out;
	what = "cannot create the pins";
	if ((mkdir(path->dir, DIR_MODE) && errno != EEXIST) || mkdir(dir, DIR_MODE)) {
		err = -errno;
		goto out;
	}
	if (path->pods < 0) {
		err = pin_put(bpf_map__fd(skel->maps.pl_pods), path->dir, "pods");
		if (!err) {
			path->pods = pin_get(path->dir, "pods");
			err = path->pods < 0 ? path->pods : 0;
		}
	}
	if (!err)
		err = pin_put(bpf_map__fd(skel->maps.pl_stats), dir, "stats");
	if (!err)
		err = pin_put(bpf_map__fd(skel->maps.rodata), dir, "constants");
	if (!err) {
		what = "cannot attach";
		err = attach_pinned(skel->progs.podlink_peer, fwd, at, dir, "peer");
	}
	if (!err)
		err = attach_pinned(skel->progs.podlink_primary, fwd, at, dir, "primary");
	if (!err && fwd->uplink) {
		what = "cannot attach to the uplink";
		err = attach_uplink(path, host, skel, dir, fwd->uplink);
	}
	if (!err)
		rc = pl_path_enter(path, name, ifindex, fwd, &changed);
	if (err || rc)
		pl_path_del(path, ifindex);
out:
	podlink__destroy(skel);
	if (!err)
		return rc;
	return load_refused(err, name, what);
}

int pl_path_hold(struct podlink **held, struct pl_path *path, const char *name, __u32 ifindex,
		 const struct pl_forward *fwd)
{
	bool first = path->pods < 0, changed = false;
	struct podlink *skel = podlink__open();
	LIBBPF_OPTS(bpf_tcx_opts, tcx);
	int err = skel ? 0 : -errno;

	*held = skel;
	if (!err)
		err = load(skel, fwd, first, path->pods);
	if (err)
		return load_refused(err, name, "cannot load the programs");
	if (first)
		path->pods = fcntl(bpf_map__fd(skel->maps.pl_pods), F_DUPFD_CLOEXEC, 0);
	skel->links.podlink_peer = attach(skel->progs.podlink_peer, fwd, ifindex);
	if (skel->links.podlink_peer)
		skel->links.podlink_primary = attach(skel->progs.podlink_primary, fwd, ifindex);
	if (skel->links.podlink_primary && first)
		skel->links.podlink_uplink = bpf_program__attach_tcx(skel->progs.podlink_uplink,
								     fwd->uplink, &tcx);
	if (path->pods < 0 || !skel->links.podlink_primary ||
	    (first && !skel->links.podlink_uplink))
		return load_refused(-errno, name, "cannot attach");
	return pl_path_enter(path, name, ifindex, fwd, &changed);
}

void pl_path_release(struct podlink *held)
{
	podlink__destroy(held);
}

/* --- what is there --- */

int pl_path_addrs(const struct pl_path *path, __u32 ifindex, struct pl_addr **addrs, size_t *n)
{
	struct pl_addr key, *prev = NULL, *more;
	size_t room = 0;
	struct pl_pod pod;

	*addrs = NULL;
	*n = 0;
	if (path->pods < 0)
		return DONE;
	while (!bpf_map_get_next_key(path->pods, prev, &key)) {
		if (!bpf_map_lookup_elem(path->pods, &key, &pod) && pod.ifindex == ifindex) {
			if (*n == room) {
				room = room ? 2 * room : 8;
				more = realloc(*addrs, room * sizeof(**addrs));
				if (!more)
					return FAILED;
				*addrs = more;
			}
			(*addrs)[(*n)++] = key;
		}
		prev = &key;
	}
	return DONE;
}

int pl_path_del(struct pl_path *path, __u32 ifindex)
{
	struct pl_addr *addrs;
	char dir[PIN_PATH];
	size_t n;
	int err;

	/* The table first: nothing shall be sent to an index that may be another's soon. */
	if (pl_path_addrs(path, ifindex, &addrs, &n))
		return FAILED;
	for (size_t i = 0; i < n; i++)
		bpf_map_delete_elem(path->pods, &addrs[i]);
	free(addrs);
	link_dir(dir, path, ifindex);
	err = pin_dir_remove(dir);
	if (err) {
		complain_err(err, dir, "cannot remove the pins");
		return FAILED;
	}
	return DONE;
}

bool pl_path_has(const struct pl_path *path, __u32 ifindex)
{
	__u32 at, prog;
	char dir[PIN_PATH];

	link_dir(dir, path, ifindex);
	return !link_info(dir, "primary", &at, &prog) && at == ifindex;
}

struct sweep {
	struct pl_ns *host;	/* NULL: dirs of a namespace that we are not in */
	bool dry_run;
	__u32 dead, alive;
};

/* The index of the device that a link hangs at; 0: at none, or it is not pinned. 0 or -errno. */
static int link_at(const char *dir, const char *name, __u32 *ifindex)
{
	__u32 prog;
	int err = link_info(dir, name, ifindex, &prog);

	return err == -ENOENT ? 0 : err;
}

/* 1: its device is on the host, 0: it is not, -errno: cannot tell, and so not ours to remove */
static int is_alive(struct pl_ns *host, const char *dir, __u32 ifindex)
{
	__u32 peer, primary;
	struct pl_link link;
	/* for a netkit link of the peer's programs the index is that in the pod */
	int err = link_at(dir, "peer", &peer) ?: link_at(dir, "primary", &primary);

	if (err)
		return err;
	/*
	 * What is in a namespace that we are not in cannot be seen, but its device takes the
	 * links along when it goes, and so does the namespace with its devices. Whether the
	 * uplink's program hangs somewhere is no matter: that device may have outlived both.
	 */
	if (!host)
		return peer || primary;
	if (!peer || primary != ifindex)
		return 0;
	switch (pl_link_get(host, NULL, ifindex, -1, &link)) {
	case DONE:
		return link.kind != PL_OTHER;
	case NOTHING:
		return 0;
	}
	return -EIO;
}

static int sweep_one(const struct pl_path *path, const char *dir, __u32 ifindex, void *ctx)
{
	struct sweep *s = ctx;
	int alive = is_alive(s->host, dir, ifindex);

	if (alive < 0)
		return alive;
	s->alive += alive;
	s->dead += !alive;
	return alive || s->dry_run ? 0 : pl_path_del((struct pl_path *)path, ifindex);
}

static int sweep(struct pl_path *path, struct sweep *s)
{
	int err = each_dir(path, sweep_one, s);

	if (err < 0)
		complain_err(err, path->dir, "cannot list the pins");
	if (err)
		return FAILED;
	if (s->dry_run || s->alive)
		return DONE;
	pl_path_close(path);
	err = pin_dir_remove(path->dir);
	if (!err)
		return DONE;
	complain_err(err, path->dir, "cannot remove the pins");
	return FAILED;
}

int pl_path_sweep(struct pl_path *path, struct pl_ns *host, bool dry_run, __u32 *n)
{
	struct sweep s = {.host = host, .dry_run = dry_run};
	int rc = sweep(path, &s);

	*n = s.dead;
	return rc;
}

int pl_path_sweep_others(const struct pl_path *own, bool dry_run, __u32 *n)
{
	DIR *d = opendir(PL_ROOT);
	struct dirent *e;
	int rc = DONE;

	*n = 0;
	if (!d) {
		complain_err(errno, PL_ROOT, "cannot list the pins");
		return FAILED;
	}
	while (!rc && (e = readdir(d))) {
		struct sweep s = {.dry_run = dry_run};
		struct pl_path path;

		if (strncmp(e->d_name, "ns", 2) ||
		    snprintf(path.dir, sizeof(path.dir), "%s/%s", PL_ROOT, e->d_name) >=
			    (int)sizeof(path.dir) ||
		    !strcmp(path.dir, own->dir))
			continue;
		path.pods = pin_get(path.dir, "pods");
		rc = sweep(&path, &s);
		*n += s.dead || !s.alive;
		pl_path_close(&path);
	}
	closedir(d);
	return rc;
}

static void sum(int map, __u32 key, struct pl_count *c, int cpus, struct pl_count *total)
{
	if (bpf_map_lookup_elem(map, &key, c))
		return;
	for (int cpu = 0; cpu < cpus; cpu++) {
		total->packets += c[cpu].packets;
		total->bytes += c[cpu].bytes;
	}
}

/* A map that is too small is of a podlink with other constants, and tells nothing. */
static void gateways(const char *dir, struct pl_path_info *info)
{
	struct bpf_map_info map = {0};
	__u32 len = sizeof(map), zero = 0;
	int fd = pin_get(dir, "constants");
	struct podlink__rodata *c = NULL;

	if (fd < 0)
		return;
	/* the map ends with the last member, the struct may be larger */
	if (!bpf_map_get_info_by_fd(fd, &map, &len) &&
	    map.value_size >= offsetof(struct podlink__rodata, uplink))
		c = calloc(1, sizeof(*c) + map.value_size);
	if (c && !bpf_map_lookup_elem(fd, &zero, c)) {
		memcpy(&info->gateway4, &c->gateway4, sizeof(info->gateway4));
		memcpy(&info->gateway6, &c->gateway6, sizeof(info->gateway6));
	}
	free(c);
	close(fd);
}

int pl_path_info(const struct pl_path *path, __u32 ifindex, struct pl_path_info *info)
{
	int cpus = libbpf_num_possible_cpus(), fd;
	struct pl_count *c;
	char dir[PIN_PATH];
	__u32 at;

	memset(info, 0, sizeof(*info));
	link_dir(dir, path, ifindex);
	if (link_info(dir, "peer", &at, &info->peer_prog))
		return NOTHING;
	link_info(dir, "primary", &at, &info->primary_prog);
	link_info(dir, "uplink", &info->uplink, &info->uplink_prog);
	gateways(dir, info);
	c = cpus > 0 ? calloc(cpus, sizeof(*c)) : NULL;
	if (!c)
		return FAILED;
	fd = pin_get(dir, "stats");
	for (__u32 i = 0; fd >= 0 && i < PL_STATS_MAX; i++)
		sum(fd, i, c, cpus, &info->count[i]);
	if (fd >= 0)
		close(fd);
	fd = pin_get(dir, "in");
	if (fd >= 0)
		sum(fd, 0, c, cpus, &info->in);
	free(c);
	if (fd >= 0)
		close(fd);
	return DONE;
}

__u32 pl_path_behind(const struct pl_link *link, const struct pl_path_info *info)
{
	__u32 ids[64];
	LIBBPF_OPTS(bpf_prog_query_opts, opts, .prog_ids = ids, .prog_cnt = 64);
	bool seen = false;

	if (bpf_prog_query_opts(link->ifindex,
				link->kind == PL_NETKIT ? BPF_NETKIT_PEER : BPF_TCX_INGRESS, &opts))
		return 0;
	for (__u32 i = 0; i < opts.count; i++) {
		if (seen)
			return ids[i];
		seen = ids[i] == info->peer_prog;
	}
	return 0;
}
