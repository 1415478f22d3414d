// SPDX-License-Identifier: GPL-2.0-only
/*
 * watch: a list of backends is what should be; what left it is destroyed at once, and again
 * and again, since a client may reach a backend that is on its way out a little later.
 *
 * What is known is in a pinned map, and is written before anything is done about it: who is
 * killed at any moment and started anew finds who left meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <bpf/bpf.h>

#include "sockkill-backends.h"
#include "sockkill-verbs.h"

#define FILE_MAX (8u << 20)		/* bytes of a list, and of a line of standard input */

/* The map's value of a backend: since when it is gone, in seconds of CLOCK_BOOTTIME. */
#define HERE 0

struct watch {
	struct sk_backends here, gone;
	char dir[PIN_PATH];
	int lock, map;
	int events, signals;		/* inotify; a signal that ends it */
	struct stat file;		/* as it was read last */
	char *input;			/* of standard input, not yet a whole line */
	size_t len, room;
};

/* --- what is remembered --- */

static __u64 uptime(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return ts.tv_sec + 1;
}

static int remember(const struct watch *w, const struct sk_endpoint *e, __u64 gone)
{
	if (w->map < 0)
		return 0;
	return bpf_map_update_elem(w->map, e, &gone, BPF_ANY) ? -errno : 0;
}

/* Backends of pods come and go for ever: what has long left is not looked for any more. */
static void forget(struct watch *w)
{
	__u64 now = uptime(), since;

	for (size_t i = w->gone.n; i-- && w->map >= 0;) {
		struct sk_endpoint e = w->gone.v[i];

		if (bpf_map_lookup_elem(w->map, &e, &since) || now - since <= env.linger)
			continue;
		bpf_map_delete_elem(w->map, &e);
		sk_backends_del(&w->gone, &e);
	}
}

/* A directory for each name, locked by whoever watches. */
static int open_memory(struct watch *w)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_NO_PREALLOC);
	int root, rc = pins_change(SK_ROOT, &root), err = 0;
	char name[40];

	if (rc || asked.dry_run)
		return rc;
	snprintf(name, sizeof(name), "watch_%s", env.name);
	pin_path(w->dir, SK_ROOT, name);
	if (mkdir(w->dir, 0700) && errno != EEXIST)
		err = -errno;
	w->lock = err ?: pins_lock(w->dir, false);
	pins_unlock(root);
	if (w->lock == -EWOULDBLOCK) {
		complain("watch: another one of the name %s is at work; give this one a --name",
			 env.name);
		return FAILED;
	}
	if (w->lock < 0) {
		complain_err(w->lock, w->dir, "cannot lock");
		return FAILED;
	}
	if (env.fresh)
		err = pin_unlink(w->dir, "backends");
	if (err == -ENOENT)
		err = 0;
	w->map = err ?: pin_get(w->dir, "backends");
	if (w->map == -ENOENT) {
		w->map = bpf_map_create(BPF_MAP_TYPE_HASH, "sk_watch", sizeof(struct sk_endpoint),
					sizeof(__u64), 2 * SK_BACKENDS_MAX, &opts);
		if (w->map < 0)
			w->map = -errno;
		else
			err = pin_put(w->map, w->dir, "backends");
	}
	if (w->map < 0 || err) {
		complain_err(err ?: w->map, w->dir, "cannot keep what is known");
		return FAILED;
	}
	return DONE;
}

static int recall(struct watch *w)
{
	struct sk_endpoint key, *prev = NULL;
	__u64 since;
	int err = 0;

	while (w->map >= 0 && !err && !bpf_map_get_next_key(w->map, prev, &key)) {
		prev = &key;
		if (!bpf_map_lookup_elem(w->map, &key, &since))
			err = sk_backends_add(since == HERE ? &w->here : &w->gone, &key);
	}
	return err;
}

/* --- what is done --- */

/* One pass for all of a list; a line, or several, if there is anything to tell. */
static int destroy(const struct sk_backends *list, const struct sk_backends *left)
{
	static const struct sk_filter by_backend = {
		.nops = 1,
		.op = {{.what = SK_BACKEND, .yes = SK_ACCEPT, .no = SK_REJECT}},
		.narrow = true,
	};
	struct sk_job job = sk_defaults;
	char text[SK_ENDPOINT_LEN];
	struct sk_result result;
	json_t *doc, *names;
	int rc;

	if (!list->n)
		return DONE;
	job.filter = &by_backend;
	job.states = SK_STATES_KILL;
	job.backends = list->v;
	job.nbackends = list->n;
	job.destroy = !asked.dry_run;
	rc = sk_pass(&job, &result);
	if (!rc && (left->n || result.n || result.untold || result.incomplete)) {
		sk_warn(&result);
		if (asked.json) {
			names = json_array();
			for (size_t i = 0; i < left->n; i++)
				json_array_append_new(
					names, json_string(sk_endpoint_text(text, &left->v[i])));
			doc = sk_json(&result);
			json_object_set_new(doc, "left", names);
			if (json_dumpf(doc, stdout, JSON_COMPACT) || putchar('\n') == EOF)
				rc = FAILED;
			json_decref(doc);
		} else {
			for (size_t i = 0; i < left->n; i++)
				printf("%s left\n", sk_endpoint_text(text, &left->v[i]));
			sk_text(&job, &result);
		}
		if (fflush(stdout)) {
			complain_err(errno, "standard output", "cannot write");
			rc = FAILED;
		}
	}
	sk_result_free(&result);
	return rc;
}

/*
 * A change of the list: backends that come, or come back, and backends that leave. A whole list
 * that is empty is more often a file that somebody is about to write.
 */
static int apply(struct watch *w, const struct sk_change *c, const char *source)
{
	struct sk_backends left = {};
	int err = 0, rc;

	if (c->whole && !c->add.n && w->here.n && !env.force) {
		complain("%s: the list is empty; the %zu backends known stay, unless --force is given",
			 source, w->here.n);
		return DONE;
	}
	for (size_t i = 0; !err && c->whole && i < w->here.n; i++)
		if (!sk_backends_has(&c->add, &w->here.v[i]))
			err = sk_backends_add(&left, &w->here.v[i]);
	for (size_t i = 0; !err && i < c->del.n; i++)
		if (!sk_backends_has(&c->add, &c->del.v[i]))
			err = sk_backends_add(&left, &c->del.v[i]);
	for (size_t i = 0; !err && i < left.n; i++) {
		sk_backends_del(&w->here, &left.v[i]);
		err = remember(w, &left.v[i], uptime()) ?: sk_backends_add(&w->gone, &left.v[i]);
	}
	for (size_t i = 0; !err && i < c->add.n; i++) {
		sk_backends_del(&w->gone, &c->add.v[i]);
		err = remember(w, &c->add.v[i], HERE) ?: sk_backends_add(&w->here, &c->add.v[i]);
	}
	if (err) {
		complain_err(err, source, "cannot remember the backends");
		rc = FAILED;
	} else {
		rc = destroy(&left, &left);
	}
	sk_backends_free(&left);
	return rc;
}

/* --- where changes come from --- */

/* The file, if it is another than before; what is wrong with it is told, and nothing changes. */
static int read_list(struct watch *w, bool first)
{
	struct sk_list_error err = {};
	struct sk_change c = {.whole = true};
	char *text = NULL;
	struct stat st;
	size_t len;
	int rc;

	rc = stat(env.backends, &st) ? -errno : 0;
	if (!rc && !first && st.st_ino == w->file.st_ino && st.st_size == w->file.st_size &&
	    st.st_mtim.tv_sec == w->file.st_mtim.tv_sec &&
	    st.st_mtim.tv_nsec == w->file.st_mtim.tv_nsec)
		return DONE;
	if (!rc)
		rc = read_file(env.backends, FILE_MAX, &text, &len);
	if (rc) {
		complain_err(rc, env.backends, first ? "cannot read" :
			     "cannot read; the backends known stay");
		return first ? USAGE : DONE;
	}
	w->file = st;
	rc = sk_backends_parse(text, &c.add, &err);
	if (rc == -EINVAL) {
		complain("%s:%u: %s%s", env.backends, err.line, err.msg,
			 first ? "" : "; the backends known stay");
		rc = first ? USAGE : DONE;
	} else if (rc) {
		complain_err(rc, env.backends, "cannot read");
		rc = FAILED;
	} else {
		rc = apply(w, &c, env.backends);
	}
	sk_backends_free(&c.add);
	free(text);
	return rc;
}

static int one_line(struct watch *w, char *line)
{
	struct sk_list_error err = {};
	struct sk_change c;
	int rc = sk_change_parse(line, &c, &err);

	if (rc == -EINVAL) {
		complain("standard input: %s; nothing is changed by that line", err.msg);
		return DONE;
	}
	if (rc) {
		complain_err(rc, "standard input", "cannot read");
		return FAILED;
	}
	rc = apply(w, &c, "standard input");
	sk_backends_free(&c.add);
	sk_backends_free(&c.del);
	return rc;
}

/* DONE, FAILED, or NOTHING: it has ended. */
static int read_lines(struct watch *w)
{
	char *more, *end, *line;
	int rc = DONE;
	ssize_t n;

	if (w->room - w->len < 4096) {
		if (w->room >= FILE_MAX) {
			complain("standard input: a line of more than %u bytes", FILE_MAX);
			return FAILED;
		}
		more = realloc(w->input, w->room + 65536);
		if (!more) {
			complain_err(ENOMEM, "standard input", "cannot read");
			return FAILED;
		}
		w->input = more;
		w->room += 65536;
	}
	n = read(STDIN_FILENO, w->input + w->len, w->room - w->len - 1);
	if (n < 0 && errno != EINTR && errno != EAGAIN) {
		complain_err(errno, "standard input", "cannot read");
		return FAILED;
	}
	if (n > 0)
		w->len += n;
	if (n == 0 && w->len)
		w->input[w->len++] = '\n';	/* the last line may lack it */
	line = w->input;
	while (!rc && w->len && (end = memchr(line, '\n', w->input + w->len - line))) {
		*end = 0;
		rc = one_line(w, line);
		line = end + 1;
	}
	w->len -= line - w->input;
	memmove(w->input, line, w->len);
	return rc ?: n ? DONE : NOTHING;
}

/* The directory, since a file is often replaced by another, or is a link that is. */
static int watch_file(struct watch *w)
{
	const char *slash = strrchr(env.backends, '/');
	char *dir = slash ? strndup(env.backends, slash - env.backends + 1) : strdup(".");
	int err = 0;

	w->events = dir ? inotify_init1(IN_CLOEXEC | IN_NONBLOCK) : -1;
	if (w->events < 0 ||
	    inotify_add_watch(w->events, dir, IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE) < 0)
		err = -errno;
	free(dir);
	return err;
}

static int wait_and_read(struct watch *w, int timeout, bool *end)
{
	struct pollfd fds[] = {{.fd = w->signals, .events = POLLIN},
			       {.fd = w->events, .events = POLLIN}};
	char buf[4096];
	int rc;

	if (poll(fds, 2, timeout) <= 0)
		return DONE;
	if (fds[0].revents) {
		*end = true;
		return DONE;
	}
	if (w->events == STDIN_FILENO) {
		rc = read_lines(w);
		*end = rc == NOTHING;
		return rc == NOTHING ? DONE : rc;
	}
	while (read(w->events, buf, sizeof(buf)) > 0)
		;
	return read_list(w, false);
}

static __s64 now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ll + ts.tv_nsec / 1000000;
}

static int run(struct watch *w)
{
	static const struct sk_backends none;
	__s64 next = now_ms();
	bool end = false;
	int rc = DONE;

	if (w->events != STDIN_FILENO)
		rc = read_list(w, true);
	while (!rc && !end) {
		if (now_ms() >= next) {
			forget(w);
			rc = destroy(&w->gone, &none);
			next = now_ms() + env.interval * 1000ll;
		}
		if (!rc)
			rc = wait_and_read(w, next > now_ms() ? next - now_ms() : 0, &end);
	}
	return rc;
}

int verb_watch(int argc, char **argv)
{
	struct watch w = {.lock = -1, .map = -1, .events = STDIN_FILENO};
	sigset_t set;
	int rc, err;

	if (argc || !env.backends)
		return usage_error("watch", "takes --backends FILE, or - for standard input");
	if (!sk_has_destroy()) {
		complain("watch: this kernel lacks bpf_sock_destroy() (Linux 6.5)");
		return LACKING;
	}
	if (strcmp(env.backends, "-") && access(env.backends, R_OK)) {
		complain_err(errno, env.backends, "cannot read");
		return USAGE;
	}
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	w.signals = signalfd(-1, &set, SFD_CLOEXEC);
	err = w.signals < 0 ? -errno : strcmp(env.backends, "-") ? watch_file(&w) : 0;
	if (err) {
		complain_err(err, env.backends, "cannot watch it");
		rc = FAILED;
	} else {
		rc = open_memory(&w);
		if (!rc && recall(&w))
			rc = FAILED;
		rc = rc ?: run(&w);
	}
	sk_backends_free(&w.here);
	sk_backends_free(&w.gone);
	free(w.input);
	if (w.signals >= 0)
		close(w.signals);
	if (w.events > STDIN_FILENO)
		close(w.events);
	if (w.map >= 0)
		close(w.map);
	if (w.lock >= 0)
		close(w.lock);
	return rc;
}
