// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "upatch-verbs.h"

static const char *const what_words[] = {"called", "clamped", "denied", "told"};

int up_each(int argc, char **argv, const char *verb,
	    int (*f)(struct up_patch *p, json_t *list))
{
	json_t *list = json_array();
	struct up_patches all = {};
	int rc = pins_check(), err;
	bool named[argc + 1];
	__u32 id;

	memset(named, 0, sizeof(named));
	for (int i = 0; !rc && i < argc; i++)
		if (!parse_u32(argv[i], 1, UINT32_MAX, &id))
			rc = usage_error(verb, "takes IDs of patches (see upatch list)");
	err = rc ? 0 : up_patches_get(&all);
	if (err)
		complain_err(err, UP_ROOT, "cannot read");
	if (err || all.others)
		rc = FAILED;
	for (size_t i = 0; i < all.n && (rc == DONE || rc == FAILED); i++) {
		struct up_patch *p = &all.patch[i];
		bool meant = !argc;
		char why[UP_WHY];

		for (int k = 0; k < argc; k++)
			if (parse_u32(argv[k], 1, UINT32_MAX, &id) && id == p->meta.id)
				meant = named[k] = true;
		if (!meant)
			continue;
		if (up_patch_map(p, why)) {
			complain("%s", why);
			rc = FAILED;
			continue;
		}
		rc = f(p, list) ?: rc;
		up_patch_close(p);
	}
	for (int i = 0; i < argc && (rc == DONE || rc == FAILED); i++)
		if (!named[i]) {
			complain("%s: no such patch; see upatch list", argv[i]);
			rc = rc ?: NOTHING;
		}
	up_patches_free(&all);
	if (!asked.json || rc == USAGE) {
		json_decref(list);
		return rc;
	}
	return json_out(json_pack("{s:o}", "patches", list)) ?: rc;
}

/* --- list and show --- */

static const char *when(__u64 seconds, char text[32])
{
	time_t t = seconds;
	struct tm tm;

	gmtime_r(&t, &tm);
	strftime(text, 32, "%FT%TZ", &tm);
	return text;
}

static void build_id_text(const struct up_meta *m, char text[2 * UP_ID_MAX + 1])
{
	*text = 0;
	for (__u32 i = 0; i < m->build_id_len; i++)
		sprintf(text + 2 * i, "%02x", m->build_id[i]);
}

static const char *state_of(const struct up_patch *p, size_t n)
{
	return !n ? "ended" : p->arena->on ? "on" : "off";
}

static json_t *patch_json(const struct up_patch *p, json_t *pids, size_t n)
{
	char id[2 * UP_ID_MAX + 1], since[32];
	struct up_rule rule;
	json_t *doc;

	build_id_text(&p->meta, id);
	doc = json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:I, s:s, s:i, s:s, s:I, s:I, s:I, s:o}",
			"id", p->meta.id, "kind", up_kinds[p->meta.kind], "backend",
			up_patch_backend(p)->name, "state", state_of(p, n), "function",
			p->meta.function, "object", p->meta.object, "offset",
			(json_int_t)p->meta.offset, "build_id", id, "updates", p->meta.updates,
			"since", when(p->meta.since, since), "calls",
			(json_int_t)p->arena->calls, "hits", (json_int_t)p->arena->hits, "faults",
			(json_int_t)p->arena->faults, "pids", pids);
	if (p->meta.kind == UP_OWN)
		json_object_set_new(doc, "program", json_string(p->meta.program));
	else if (up_rule_get(p, &rule) && rule.kind == p->meta.kind)
		json_object_set_new(doc, "rule", up_rule_json(&rule));
	up_patch_backend(p)->info(p, doc);
	return doc;
}

static int patch_pids(const struct up_patch *p, json_t **list, size_t *n)
{
	__u32 *pids = NULL;
	char why[UP_WHY];

	*list = json_array();
	*n = 0;
	if (up_patch_backend(p)->pids(p, &pids, n, why)) {
		complain("%s", why);
		return FAILED;
	}
	for (size_t i = 0; i < *n; i++)
		json_array_append_new(*list, json_integer(pids[i]));
	free(pids);
	return DONE;
}

static int list_one(struct up_patch *p, json_t *list)
{
	char id[2 * UP_ID_MAX + 1], since[32], why[UP_WHY];
	json_t *pids, *first;
	size_t n;
	int rc = patch_pids(p, &pids, &n);

	first = json_array_get(pids, 0);
	build_id_text(&p->meta, id);
	if (!asked.json)
		printf("%u %s %s %s at %#" PRIx64 " of %s %.16s: %s, %zu processes%s%lld, "
		       "%llu calls, %llu hits, %llu faults, since %s\n", p->meta.id,
		       up_kinds[p->meta.kind], up_patch_backend(p)->name, p->meta.function,
		       (uint64_t)p->meta.offset,
		       p->meta.object, *id ? id : "-", state_of(p, n), n, n ? ", first " : ", ",
		       first ? (long long)json_integer_value(first) : 0, p->arena->calls,
		       p->arena->hits, p->arena->faults, when(p->meta.since, since));
	json_array_append_new(list, patch_json(p, pids, n));
	if (rc || n || asked.dry_run)
		return rc;
	/* nobody is left that it could be in */
	if (!up_patch_remove(p, why))
		return DONE;
	complain("%s", why);
	return FAILED;
}

int verb_list(int argc, char **argv)
{
	unsigned int leftovers = 0;
	char why[UP_WHY];
	int lock, rc = pins_check();

	if (rc)
		return rc;
	/* who may not clean up, or while another is at work, lists */
	lock = pins_lock(UP_ROOT, false);
	if (lock < 0)
		asked.dry_run = true;
	if (up_sweep(asked.dry_run, &leftovers, why))
		complain("%s", why);
	else if (leftovers)
		complain("%u unfinished: %s", leftovers, asked.dry_run ? "upatch detach --all "
			 "removes them, unless another is at work" : "removed");
	rc = up_each(argc, argv, "list", list_one);
	pins_unlock(lock);
	return rc;
}

/* --- the log --- */

/* Events from *next on, in their order; what was overwritten meanwhile is added to *lost. */
static bool event_get(const struct up_arena *a, __u64 ticket, struct up_event *e)
{
	const struct up_event *from = &a->ring[ticket % UP_RING];

	if (__atomic_load_n(&from->seq, __ATOMIC_ACQUIRE) != 2 * ticket + 2)
		return false;
	memcpy(e, from, sizeof(*e));
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return __atomic_load_n(&from->seq, __ATOMIC_RELAXED) == 2 * ticket + 2 &&
	       e->what < UP_WHATS;
}

static __u64 boot_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* Of one in user mode nothing tells the time: it is that of the reader, if it waits for it. */
static json_t *event_json(const struct up_event *e, __u64 now)
{
	json_t *args = json_array(), *doc;
	char text[32];

	for (int i = 0; i < 6; i++) {
		snprintf(text, sizeof(text), "%#llx", e->args[i]);
		json_array_append_new(args, json_string(text));
	}
	snprintf(text, sizeof(text), "%#llx", e->value);
	doc = json_pack("{s:s, s:o, s:s}", "what", what_words[e->what], "args", args, "value",
			text);
	if (e->ns || now)
		json_object_set_new(doc, "time",
				    json_string(when(time(NULL) - (e->ns && e->ns < boot_ns() ?
						     (boot_ns() - e->ns) / 1000000000 : 0), text)));
	if (e->tid) {
		json_object_set_new(doc, "pid", json_integer(e->pid));
		json_object_set_new(doc, "tid", json_integer(e->tid));
	} else {
		snprintf(text, sizeof(text), "%#llx", e->sp);
		json_object_set_new(doc, "stack", json_string(text));
	}
	return doc;
}

static void event_print(const json_t *e)
{
	const json_t *args = json_object_get(e, "args");
	const char *t = json_string_value(json_object_get(e, "time")), *stack;

	if (t)
		printf("%s ", t);
	stack = json_string_value(json_object_get(e, "stack"));
	if (stack)
		printf("stack %s", stack);
	else
		printf("%lld/%lld", (long long)json_integer_value(json_object_get(e, "pid")),
		       (long long)json_integer_value(json_object_get(e, "tid")));
	printf(" %s", json_string_value(json_object_get(e, "what")));
	for (size_t i = 0; i < json_array_size(args); i++)
		printf("%s%s", i ? ", " : " (", json_string_value(json_array_get(args, i)));
	printf("): %s\n", json_string_value(json_object_get(e, "value")));
}

static volatile sig_atomic_t stopped;

static void stop(int sig)
{
	stopped = 1;
}

int verb_log(int argc, char **argv)
{
	const struct timespec pause = {.tv_nsec = 20000000};
	struct up_patches all = {};
	struct up_patch *p = NULL;
	__u64 next, head, end, lost = 0, tries = 0;
	__u32 id, lines = 0;
	char why[UP_WHY];
	int rc;

	if (argc != 1 || !parse_u32(argv[0], 1, UINT32_MAX, &id))
		return usage_error("log", "takes the ID of a patch (see upatch list)");
	rc = pins_check();
	if (rc)
		return rc;
	up_patches_get(&all);
	for (size_t i = 0; i < all.n; i++)
		if (all.patch[i].meta.id == id)
			p = &all.patch[i];
	if (!p || up_patch_map(p, why)) {
		complain("%s: %s", argv[0], p ? why : "no such patch; see upatch list");
		up_patches_free(&all);
		return p ? FAILED : NOTHING;
	}
	signal(SIGINT, stop);
	signal(SIGTERM, stop);
	head = __atomic_load_n(&p->arena->head, __ATOMIC_ACQUIRE);
	next = head > UP_RING ? head - UP_RING : 0;
	end = env.seconds ? boot_ns() + env.seconds * 1000000000ULL : ~0ULL;
	while (!stopped && !(env.count && lines >= env.count) && boot_ns() < end) {
		struct up_event e;
		json_t *line;

		if (next >= head) {
			if (!env.follow)
				break;
			if (fflush(stdout))
				break;
			nanosleep(&pause, NULL);
			head = __atomic_load_n(&p->arena->head, __ATOMIC_ACQUIRE);
			/* what writes there may write anything: no more than fits in at once */
			if (head - next > UP_RING && head > next) {
				lost += head - next - UP_RING;
				next = head - UP_RING;
			}
			continue;
		}
		if (!event_get(p->arena, next, &e)) {
			/* one that is being written: a moment, then it is lost */
			if (p->arena->ring[next % UP_RING].seq == 2 * next + 1 && tries++ < 50) {
				nanosleep(&pause, NULL);
				continue;
			}
			tries = 0;
			lost++;
			next++;
			continue;
		}
		tries = 0;
		next++;
		lines++;
		line = event_json(&e, env.follow);
		if (asked.json) {
			json_dumpf(line, stdout, JSON_COMPACT);
			putchar('\n');
		} else {
			event_print(line);
		}
		json_decref(line);
	}
	if (lost || p->arena->drops)
		complain("%u: %llu events overwritten before they were read, %llu dropped", id,
			 lost, p->arena->drops);
	up_patches_free(&all);
	return DONE;
}

/* --- show and stats --- */

static json_t *last_event(const struct up_patch *p)
{
	__u64 head = __atomic_load_n(&p->arena->head, __ATOMIC_ACQUIRE);
	struct up_event e;

	for (__u64 i = 0; i < UP_RING && i < head; i++)
		if (event_get(p->arena, head - 1 - i, &e))
			return event_json(&e, 0);
	return NULL;
}

static int show_one(struct up_patch *p, json_t *list)
{
	char id[2 * UP_ID_MAX + 1], since[32], text[256];
	json_t *pids, *doc, *last = last_event(p), *pid;
	struct up_rule rule;
	size_t n, i;
	int rc = patch_pids(p, &pids, &n);

	doc = patch_json(p, pids, n);
	if (last)
		json_object_set(doc, "last", last);
	json_array_append_new(list, doc);
	if (!asked.json) {
		build_id_text(&p->meta, id);
		printf("%u: %s, by %s, since %s\n", p->meta.id, state_of(p, n),
		       up_patch_backend(p)->name, when(p->meta.since, since));
		printf("  function %s, at %#llx of %s\n  build-id %s\n", p->meta.function,
		       p->meta.offset, p->meta.object, *id ? id : "none");
		if (p->meta.kind == UP_OWN)
			printf("  program %s, replaced %u times\n", p->meta.program,
			       p->meta.updates);
		else if (up_rule_get(p, &rule) && rule.kind == p->meta.kind)
			printf("  %s\n", up_rule_text(&rule, text));
		else
			printf("  rule written by others\n");
		printf("  processes");
		json_array_foreach(pids, i, pid)
			printf(" %lld", (long long)json_integer_value(pid));
		printf("\n  %llu calls, %llu hits, %llu faults\n", p->arena->calls, p->arena->hits,
		       p->arena->faults);
		if (last) {
			printf("  last: ");
			event_print(last);
		}
	}
	json_decref(last);
	return rc;
}

int verb_show(int argc, char **argv)
{
	return up_each(argc, argv, "show", show_one);
}

static int stats_one(struct up_patch *p, json_t *list)
{
	const struct up_arena *a = p->arena;
	const struct {
		const char *name, *what;
		__u64 n;
	} counts[] = {
		{"calls", "of the function", a->calls},
		{"hits", "of these, in which the patch did something", a->hits},
		{"skipped", "traps in processes that are not patched", a->others},
		{"faults", "reads of memory that was not there", a->faults},
		{"stale", "calls let be, since the rule changed twice meanwhile", a->stale},
		{"events", "in the log so far", a->head},
		{"dropped", "events lost in a race for their place", a->drops},
		{"crowded", "calls of threads that are not told below", a->crowded},
	};
	json_t *doc = json_pack("{s:i}", "id", p->meta.id), *threads = json_array();

	if (!asked.json)
		printf("%u\n", p->meta.id);
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		json_object_set_new(doc, counts[i].name, json_integer(counts[i].n));
		if (!asked.json)
			printf("  %-8s %12llu  %s\n", counts[i].name, counts[i].n, counts[i].what);
	}
	for (int i = 0; i < UP_THREADS; i++) {
		__u64 who = a->threads[i].who, n = a->threads[i].calls;
		bool tid = who <= INT32_MAX;

		if (!who)
			continue;
		json_array_append_new(threads, json_pack("{s:I, s:I}", tid ? "tid" : "stack",
							 (json_int_t)who, "calls", (json_int_t)n));
		if (!asked.json)
			printf(tid ? "  thread %llu: %llu\n" : "  stack %#llx: %llu\n", who, n);
	}
	json_object_set_new(doc, "threads", threads);
	json_array_append_new(list, doc);
	return DONE;
}

int verb_stats(int argc, char **argv)
{
	return up_each(argc, argv, "stats", stats_one);
}

/* --- verify --- */

static int verify_one(struct up_patch *p, json_t *list)
{
	struct up_site site = {.offset = p->meta.offset};
	json_t *procs = json_array();
	unsigned int good = 0, bad = 0;
	struct up_targets ts = {};
	__u32 *pids = NULL;
	char why[UP_WHY];
	size_t n = 0;
	int rc;

	if (up_patch_backend(p)->pids(p, &pids, &n, why)) {
		complain("%s", why);
		json_decref(procs);
		return FAILED;
	}
	rc = up_targets_of_object(p->meta.build_id, p->meta.build_id_len, p->meta.object, &ts);
	for (size_t i = 0; !rc && i < ts.n; i++) {
		struct up_target *t = &ts.target[i];
		int intact = 0;
		bool ok = false;

		if (t->object && !up_target_place(t, &site)) {
			if (pread(t->object->fd, site.bytes, sizeof(site.bytes), site.offset) < 5)
				up_fail(t->why, "its file cannot be read");
			else
				intact = up_target_intact(t, &site);
			if (!up_pid_in(t->pid, pids, n))
				up_fail(t->why, "runs without it");
			else if (intact > 0)
				up_fail(t->why, "has the bytes of the file: the patch is not in "
					"its code");
			else if (intact < 0)
				up_fail(t->why, "its code cannot be read: %s", strerror(-intact));
			else if (!p->arena->on)
				up_fail(t->why, "has the patch, which is off");
			else
				ok = true;
		}
		good += ok;
		bad += !ok;
		json_array_append_new(procs, json_pack("{s:i, s:s, s:b, s:s}", "pid", t->pid,
						       "comm", t->comm, "patched", ok, "reason",
						       ok ? "" : t->why));
		if (!asked.json)
			printf("%u: %u %s: %s%s\n", p->meta.id, t->pid, t->comm,
			       ok ? "patched" : "not patched: ", ok ? "" : t->why);
	}
	if (!asked.json)
		printf("%u: %u patched, %u not, %u could not be looked at\n", p->meta.id, good, bad,
		       ts.hidden);
	json_array_append_new(list, json_pack("{s:i, s:o, s:i, s:i, s:i}", "id", p->meta.id,
					      "processes", procs, "patched", good, "not_patched",
					      bad, "hidden", ts.hidden));
	rc = rc || bad || ts.hidden || !good ? FAILED : DONE;
	up_targets_free(&ts);
	free(pids);
	return rc;
}

int verb_verify(int argc, char **argv)
{
	return up_each(argc, argv, "verify", verify_one);
}
