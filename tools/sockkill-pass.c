// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/btf.h>

#include "common.h"
#include "sockkill-pass.h"
#include "sockkill.skel.h"

#define RING_MIN (1u << 20)		/* bytes */
#define RING_MAX (1u << 26)
#define DONE_MIN (1u << 17)	/* sockets; those of UDP cannot be counted */
#define DONE_MAX (1u << 22)
#define WAIT_MIN 2			/* ms between passes for what is busy; doubled each time */
#define WAIT_MAX 64

struct pass {
	const struct sk_job *job;
	struct sk_result *result;
	struct sockkill *skel;
	struct ring_buffer *ring;
	struct sk_netns_list netns;
	struct sk_file *files;
	size_t nfiles, room;
	size_t settled;			/* victims that no later pass need look at */
	int err;			/* of the ring's callback */
};

/* --- what the kernel has --- */

static bool has_kfunc(const char *name)
{
	struct btf *btf = btf__load_vmlinux_btf();
	bool has = btf && btf__find_by_name_kind(btf, name, BTF_KIND_FUNC) > 0;

	btf__free(btf);
	return has;
}

bool sk_has_iterators(void)
{
	return has_kfunc("bpf_iter_tcp_new") && has_kfunc("bpf_iter_udp_new");
}

bool sk_has_destroy(void)
{
	return has_kfunc("bpf_sock_destroy");
}

/* --- loading --- */

/*
 * How many sockets there may be, for the size of what is set up for them: the TCP sockets of
 * all namespaces (/proc/net/sockstat). More of them only means more passes.
 */
static __u32 sockets(void)
{
	FILE *f = fopen("/proc/net/sockstat", "re");
	unsigned int n = 0, tcp = 0;
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "TCP: inuse %*u orphan %*u tw %*u alloc %u", &n) == 1)
			tcp = n;
	if (f)
		fclose(f);
	return tcp;
}

static __u32 power_of_two(__u64 n, __u32 min, __u32 max)
{
	while (min < n && min < max)
		min *= 2;
	return min;
}

static int fill(struct bpf_map *map, const void *keys, size_t size, size_t n)
{
	__u8 one = 1;
	int err = 0;

	for (size_t i = 0; !err && i < n; i++)
		err = bpf_map__update_elem(map, (const char *)keys + i * size, size, &one,
					   sizeof(one), BPF_ANY);
	return err;
}

static int on_victim(void *ctx, void *data, size_t size)
{
	struct pass *p = ctx;
	struct sk_result *r = p->result;
	struct sk_victim *more;

	if (!(r->n & (r->n - 1))) {
		more = realloc(r->victim, (r->n ? 2 * r->n : 1) * sizeof(*more));
		if (!more) {
			p->err = -ENOMEM;
			return 0;
		}
		r->victim = more;
	}
	memcpy(&r->victim[r->n++], data, sizeof(*more));
	return 0;
}

static int load(struct pass *p)
{
	const struct sk_job *job = p->job;
	__u32 tcp = sockets();
	struct sockkill *skel;
	int err = 0;

	p->result->one_pass = !job->per_netns && sk_has_iterators();
	skel = p->skel = sockkill__open();
	if (!skel) {
		complain_err(errno, "BPF object", "cannot open");
		return FAILED;
	}
	struct bpf_program *const recorder[] = {
		skel->progs.sockkill_dial4, skel->progs.sockkill_dial6,
		skel->progs.sockkill_reach4, skel->progs.sockkill_reach6,
		skel->progs.sockkill_release,
	};
	for (size_t i = 0; i < ARRAY_SIZE(recorder); i++)
		bpf_program__set_autoload(recorder[i], false);
	bpf_program__set_autoload(skel->progs.sockkill_pass, p->result->one_pass);
	bpf_program__set_autoload(skel->progs.sockkill_tcp, !p->result->one_pass);
	bpf_program__set_autoload(skel->progs.sockkill_udp, !p->result->one_pass);
	memcpy((void *)skel->rodata->ops, job->filter->op, sizeof(job->filter->op));
	memcpy((void *)skel->rodata->want, job->want, sizeof(job->want));
	skel->rodata->nops = job->filter->nops;
	skel->rodata->states = job->states;
	skel->rodata->some_netns = job->nnetns;
	skel->rodata->kernel_socks = job->kernel_socks;
	skel->rodata->destroy = job->destroy;
	skel->rodata->recorded = job->recorded;
	bpf_map__set_max_entries(skel->maps.sk_victims,
				 power_of_two((tcp + 8ull) * (sizeof(struct sk_victim) + 8),
					      RING_MIN, RING_MAX));
	bpf_map__set_max_entries(skel->maps.sk_done,
				 power_of_two(2ull * tcp, DONE_MIN, DONE_MAX));
	bpf_map__set_max_entries(skel->maps.sk_netns, job->nnetns ?: 1);
	bpf_map__set_max_entries(skel->maps.sk_backends, job->nbackends ?: 1);
	if (job->records >= 0)
		err = bpf_map__reuse_fd(skel->maps.sk_records, job->records);
	err = err ?: sockkill__load(skel);
	if (!err)
		err = fill(skel->maps.sk_netns, job->netns, sizeof(*job->netns), job->nnetns);
	if (!err)
		err = fill(skel->maps.sk_backends, job->backends, sizeof(*job->backends),
			   job->nbackends);
	if (err) {
		complain_err(err, "BPF programs", "cannot load");
		return FAILED;
	}
	p->ring = ring_buffer__new(bpf_map__fd(skel->maps.sk_victims), on_victim, p, NULL);
	if (p->ring)
		return DONE;
	complain_err(errno, "ring buffer", "cannot map");
	return FAILED;
}

/* --- files --- */

/* Read all that the iterator over open files tells. */
static int read_files(struct pass *p)
{
	struct bpf_link *link = bpf_program__attach_iter(p->skel->progs.sockkill_files, NULL);
	int fd = link ? bpf_iter_create(bpf_link__fd(link)) : -1;
	int err = link && fd >= 0 ? 0 : -errno;
	struct sk_file *more;
	ssize_t n = 1;

	p->nfiles = 0;
	while (!err && n) {
		if (p->room - p->nfiles < 1024) {
			more = realloc(p->files, (p->room + 65536) * sizeof(*more));
			if (!more) {
				err = -ENOMEM;
				break;
			}
			p->files = more;
			p->room += 65536;
		}
		/* whole records: what the program writes at once is not torn by a read of theirs */
		n = read(fd, p->files + p->nfiles, (p->room - p->nfiles) * sizeof(*p->files));
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			err = -errno;
		if (n > 0)
			p->nfiles += n / sizeof(*p->files);
	}
	if (fd >= 0)
		close(fd);
	bpf_link__destroy(link);
	return err;
}

static int by_ino_and_pid(const void *a, const void *b)
{
	const struct sk_file *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return (x->pid > y->pid) - (x->pid < y->pid);
}

/* The first file of that number, or of the next one; NULL: there is none. */
static const struct sk_file *file_of(const struct pass *p, __u64 ino)
{
	size_t lo = 0, hi = p->nfiles, mid;

	while (lo < hi) {
		mid = lo + (hi - lo) / 2;
		if (p->files[mid].ino < ino)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < p->nfiles ? &p->files[lo] : NULL;
}

/* Of those that have a victim's file open the oldest, mostly. How many have none yet. */
static size_t match_owners(struct pass *p)
{
	struct sk_result *r = p->result;
	const struct sk_file *f;
	size_t left = 0;

	qsort(p->files, p->nfiles, sizeof(*p->files), by_ino_and_pid);
	for (size_t i = 0; i < r->n; i++) {
		if (!r->victim[i].ino || r->owner[i].pid)
			continue;
		f = file_of(p, r->victim[i].ino);
		if (f && r->victim[i].ino == f->ino)
			r->owner[i] = *f;
		else
			left++;
	}
	return left;
}

/*
 * By the files that were open before, since an owner often closes at once what was destroyed;
 * then by those that are open now.
 */
static int find_owners(struct pass *p)
{
	struct sk_result *r = p->result;
	int err;

	r->owner = calloc(r->n ?: 1, sizeof(*r->owner));
	if (!r->owner)
		return -ENOMEM;
	if (!match_owners(p))
		return 0;
	err = read_files(p);
	if (!err)
		match_owners(p);
	return err;
}

/* --- passes --- */

static int over_all(struct pass *p)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts);
	int err = bpf_prog_test_run_opts(bpf_program__fd(p->skel->progs.sockkill_pass), &opts);

	if (err)
		complain_err(err, "sockets", "cannot walk them");
	p->result->incomplete = -p->skel->bss->walk_err;
	return err ? FAILED : DONE;
}

/* One walk of a program in the current namespace. 0 or -errno. */
static int walk(struct bpf_link *link)
{
	int fd = bpf_iter_create(bpf_link__fd(link)), err = 0;
	char none[64];
	ssize_t n;

	if (fd < 0)
		return -errno;
	do {
		n = read(fd, none, sizeof(none));
	} while (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)));
	if (n < 0)
		err = -errno;
	close(fd);
	return err;
}

static bool wanted(const struct sk_job *job, __u32 inum)
{
	for (size_t i = 0; i < job->nnetns; i++)
		if (job->netns[i] == inum)
			return true;
	return !job->nnetns;
}

static int unreachable(struct sk_result *r, __u32 inum, int err)
{
	struct sk_unreachable *more =
		realloc(r->unreachable, (r->nunreachable + 1) * sizeof(*more));

	if (!more)
		return -ENOMEM;
	r->unreachable = more;
	r->unreachable[r->nunreachable++] = (struct sk_unreachable){inum, err};
	return 0;
}

/* What was asked for, and is in none of the namespaces that were found, counts as well. */
static int list_unreachable(struct pass *p)
{
	const struct sk_job *job = p->job;
	bool found;
	int err = 0;

	for (size_t i = 0; !err && i < p->netns.n; i++)
		if (p->netns.ns[i].fd < 0 && wanted(job, p->netns.ns[i].inum))
			err = unreachable(p->result, p->netns.ns[i].inum, p->netns.ns[i].err);
	for (size_t i = 0; !err && i < job->nnetns; i++) {
		found = false;
		for (size_t j = 0; j < p->netns.n; j++)
			found |= p->netns.ns[j].inum == job->netns[i];
		if (!found)
			err = unreachable(p->result, job->netns[i], ENOENT);
	}
	for (size_t i = 0; !err && !job->nnetns && i < p->netns.hidden; i++)
		err = unreachable(p->result, 0, EACCES);
	return err;
}

static int one_by_one(struct pass *p)
{
	struct bpf_link *link[2] = {};
	const struct sk_job *job = p->job;
	struct sk_netns *home = p->netns.ns;
	bool moved = false;
	int err = 0;

	for (int i = 0; !err && i < 2; i++) {
		if (!job->want[i][0] && !job->want[i][1])
			continue;
		link[i] = bpf_program__attach_iter(i ? p->skel->progs.sockkill_udp
						     : p->skel->progs.sockkill_tcp, NULL);
		if (!link[i])
			err = -errno;
	}
	for (size_t i = 0; !err && i < p->netns.n; i++) {
		struct sk_netns *ns = &p->netns.ns[i];

		if (ns->fd < 0 || !wanted(job, ns->inum))
			continue;
		if (setns(ns->fd, CLONE_NEWNET)) {
			ns->err = errno;
			close(ns->fd);
			ns->fd = -1;
			continue;
		}
		moved |= ns != home;
		for (int j = 0; !err && j < 2; j++)
			err = link[j] ? walk(link[j]) : 0;
	}
	if (moved && setns(home->fd, CLONE_NEWNET))
		err = err ?: -errno;
	bpf_link__destroy(link[0]);
	bpf_link__destroy(link[1]);
	if (err)
		complain_err(err, "sockets", "cannot walk them");
	return err ? FAILED : DONE;
}

/* Seen in the first pass, untold in the last: read the counters, and begin anew. */
static int read_totals(struct pass *p)
{
	struct bpf_map *map = p->skel->maps.sk_totals;
	struct sk_result *r = p->result;
	struct sk_netns_total *more;
	struct sk_total t;
	int err;
	__u32 key;

	r->untold = 0;
	/*
	 * An entry that is written anew goes to the front of its bucket: a loop that left it in
	 * the map would not end where two share one.
	 */
	while (!bpf_map__get_next_key(map, NULL, &key, sizeof(key))) {
		err = bpf_map__lookup_and_delete_elem(map, &key, sizeof(key), &t, sizeof(t), 0);
		if (err)
			return err;
		r->untold += t.untold;
		if (r->passes)
			continue;
		more = realloc(r->total, (r->ntotals + 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		r->total = more;
		r->total[r->ntotals++] = (struct sk_netns_total){.netns = key, .seen = t.seen};
	}
	return 0;
}

static size_t count_busy(const struct pass *p)
{
	const struct sk_result *r = p->result;
	size_t busy = 0;

	for (size_t i = p->settled; i < r->n; i++)
		busy += r->victim[i].err == -EBUSY;
	return busy;
}

/*
 * Before another pass: it need not look again at what has been dealt with. What was busy is
 * dropped here, for it to find.
 */
static int settle(struct pass *p)
{
	struct bpf_map *done = p->skel->maps.sk_done;
	struct sk_result *r = p->result;
	size_t n = p->settled;
	__u8 one = 1;
	int err = 0;

	for (size_t i = p->settled; !err && i < r->n; i++) {
		struct sk_victim *v = &r->victim[i];

		if (v->err == -EBUSY)
			continue;
		err = bpf_map__update_elem(done, &v->cookie, sizeof(v->cookie), &one, sizeof(one),
					   BPF_ANY);
		r->victim[n++] = *v;
	}
	r->n = p->settled = n;
	return err;
}

static __u64 now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ull + ts.tv_nsec / 1000000;
}

static int by_netns(const void *a, const void *b)
{
	const struct sk_netns_total *x = a, *y = b;

	return (x->netns > y->netns) - (x->netns < y->netns);
}

/* The victims of each namespace; one that came into being after the first pass is new here. */
static int add_up(struct sk_result *r)
{
	qsort(r->total, r->ntotals, sizeof(*r->total), by_netns);
	for (size_t i = 0; i < r->n; i++) {
		const struct sk_victim *v = &r->victim[i];
		struct sk_netns_total key = {.netns = v->netns}, *t, *more;

		t = r->ntotals ? bsearch(&key, r->total, r->ntotals, sizeof(key), by_netns) : NULL;
		if (!t) {
			more = realloc(r->total, (r->ntotals + 1) * sizeof(*more));
			if (!more)
				return -ENOMEM;
			r->total = more;
			r->total[r->ntotals++] = key;
			qsort(r->total, r->ntotals, sizeof(*r->total), by_netns);
			t = bsearch(&key, r->total, r->ntotals, sizeof(key), by_netns);
		}
		t->matched++;
		t->destroyed += !v->err;
		t->busy += v->err == -EBUSY;
		t->gone += v->err == -ENOENT;
		t->unrecorded += v->err == SK_UNRECORDED;
		t->failed += v->err < 0 && v->err != -EBUSY && v->err != -ENOENT;
	}
	return 0;
}

static int repeat(struct pass *p)
{
	__u64 end = now_ms() + p->job->deadline;
	struct sk_result *r = p->result;
	__u32 wait = WAIT_MIN;
	size_t busy, had;
	bool again;
	int rc, err;

	do {
		had = r->n;
		rc = r->one_pass ? over_all(p) : one_by_one(p);
		if (rc)
			return rc;
		ring_buffer__consume(p->ring);
		err = p->err ?: read_totals(p);
		r->passes++;
		busy = count_busy(p);
		/* What there was no room for is found by as many passes as it takes. */
		again = r->untold ? r->n > had : busy && now_ms() < end;
		if (!err && again)
			err = settle(p);
		if (err) {
			complain_err(err, "victims", "cannot be told of any more");
			return FAILED;
		}
		if (again && !r->untold) {
			usleep(wait * 1000);
			wait = wait < WAIT_MAX ? 2 * wait : WAIT_MAX;
		}
	} while (again);
	return DONE;
}

int sk_pass(const struct sk_job *job, struct sk_result *result)
{
	struct pass p = {.job = job, .result = result};
	int rc, err = 0;

	memset(result, 0, sizeof(*result));
	rc = load(&p);
	if (!rc) {
		err = read_files(&p);
		if (err) {
			complain_err(err, "open files", "cannot be listed");
			rc = FAILED;
		}
	}
	if (!rc && !result->one_pass) {
		err = sk_netns_collect(&p.netns, p.files, p.nfiles);
		if (!err && (!p.netns.n || p.netns.ns[0].fd < 0))
			err = -ESRCH;
		if (err) {
			complain_err(err, "network namespaces", "cannot be listed");
			rc = FAILED;
		}
	}
	if (!rc)
		rc = repeat(&p);
	if (!rc) {
		if (!result->one_pass)
			err = list_unreachable(&p);
		err = err ?: add_up(result) ?: find_owners(&p);
		if (err) {
			complain_err(err, "victims", "cannot be told of");
			rc = FAILED;
		}
	}
	ring_buffer__free(p.ring);
	sockkill__destroy(p.skel);
	sk_netns_free(&p.netns);
	free(p.files);
	return rc;
}

void sk_result_free(struct sk_result *r)
{
	free(r->victim);
	free(r->owner);
	free(r->total);
	free(r->unreachable);
	memset(r, 0, sizeof(*r));
}
