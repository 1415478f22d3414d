// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "upatch-verbs.h"

struct up_env env = {.arg = -1};

const char *argp_program_version = "upatch (skelkit) 0.1";

const char *const up_states[] = {"to do", "done", "unchanged", "skipped", "failed"};

/* --- who --- */

static int targets_scan(const __u8 *id, __u32 len, struct up_targets *ts)
{
	return env.pid ? up_targets_of_pid(env.pid, env.object, ts) :
	       env.exe ? up_targets_of_file(env.exe, ts) :
			 up_targets_of_build_id(id, len, ts);
}

static void targets_gate(const __u8 *id, __u32 len, struct up_targets *ts)
{
	for (size_t i = 0; env.build_id && i < ts->n; i++) {
		struct up_target *t = &ts->target[i];

		if (!t->object || up_build_id_is(t->object, id, len))
			continue;
		t->state = UP_FAILED;
		up_fail(t->why, "%s has build-id %s", t->object->path,
			t->object->build_id_len ? t->object->build_id_text : "none");
	}
}

static int targets_get(const char *verb, struct up_targets *ts)
{
	__u8 id[UP_ID_MAX];
	__u32 len = 0;
	int rc;

	if (!env.function)
		return usage_error(verb, "takes -f FUNC");
	if (!!env.pid + !!env.exe > 1 || !(env.pid || env.exe || env.build_id))
		return usage_error(verb, "takes one of -p PID, --exe PATH and --build-id HEX");
	if (env.object && !env.pid)
		return usage_error(verb, "--object is for -p PID");
	if (env.build_id && up_build_id_parse(env.build_id, id, &len))
		return usage_error(verb, "--build-id takes an even number of hexadecimal digits");
	rc = targets_scan(id, len, ts);
	if (!rc && ts->hidden)
		complain("%u processes could not be looked at (CAP_SYS_PTRACE is needed)",
			 ts->hidden);
	if (!rc && !ts->n) {
		complain("no process has it mapped");
		return NOTHING;
	}
	if (!rc)
		targets_gate(id, len, ts);
	return rc;
}

/* The function in each of them: all have the same build-id, or are one file. */
static void targets_place(struct up_targets *ts, struct up_site *site, const struct up_object **o)
{
	char why[UP_WHY] = "";
	int err = 0;

	*o = NULL;
	for (size_t i = 0; i < ts->n; i++) {
		struct up_target *t = &ts->target[i];

		if (t->state != UP_TODO)
			continue;
		if (!*o && !err) {
			err = up_site_find(t->object, env.function, site, why);
			*o = err ? NULL : t->object;
		}
		if (err) {
			t->state = UP_FAILED;
			memcpy(t->why, why, sizeof(why));
		} else if (up_target_place(t, site)) {
			t->state = UP_FAILED;
		}
	}
}

static const struct up_backend *backend_get(bool writes, int *rc)
{
	char why[UP_WHY], first[UP_WHY] = "";

	*rc = LACKING;
	for (int i = 0; i < UP_BACKENDS; i++) {
		const struct up_backend *b = env.backend ?: up_backends[i];

		if (b->there(writes, why)) {
			*rc = DONE;
			return b;
		}
		if (env.backend) {
			complain("%s: %s", b->name, why);
			return NULL;
		}
		if (!*first)
			snprintf(first, sizeof(first), "%s: %.200s", b->name, why);
	}
	complain("%s; uprobe: %s", first, why);
	return NULL;
}

/* --- one line for each, and their sum --- */

static int targets_report(const struct up_targets *ts, __u32 id, const struct up_backend *b,
			  const struct up_site *site, const struct up_object *o)
{
	unsigned int n[UP_FAILED + 1] = {};
	json_t *list = json_array();

	for (size_t i = 0; i < ts->n; i++)
		n[ts->target[i].state]++;
	if (!asked.json && n[UP_DONE] + n[UP_TODO] + n[UP_UNCHANGED])
		printf("patch %u: %s at %s in %s, by %s%s\n", id, asked.dry_run ? "would be" : "is",
		       site->function, o->path, b->name,
		       site->debug ? ", symbol of a debug file" : "");
	for (size_t i = 0; i < ts->n; i++) {
		const struct up_target *t = &ts->target[i];

		json_array_append_new(list, json_pack("{s:i, s:s, s:s, s:s}", "pid", t->pid,
						      "comm", t->comm, "state",
						      up_states[t->state], "reason", t->why));
		if (!asked.json)
			printf("%u %s: %s%s%s\n", t->pid, t->comm,
			       t->state == UP_TODO ? "would be done" : up_states[t->state],
			       *t->why ? ": " : "", t->why);
	}
	if (asked.json)
		json_out(json_pack("{s:i, s:s?, s:b, s:o, s:i, s:i, s:i, s:i, s:i}", "id", id,
				   "backend", b ? b->name : NULL, "dry_run", asked.dry_run,
				   "targets", list, "done", n[UP_DONE] + n[UP_TODO], "unchanged",
				   n[UP_UNCHANGED], "skipped", n[UP_SKIPPED], "failed",
				   n[UP_FAILED], "hidden", ts->hidden));
	else
		json_decref(list);
	if (!asked.json)
		printf("total: %u done, %u unchanged, %u skipped, %u failed\n", n[UP_DONE] +
		       n[UP_TODO], n[UP_UNCHANGED], n[UP_SKIPPED], n[UP_FAILED]);
	if (n[UP_FAILED] || ts->hidden)
		return FAILED;
	return n[UP_DONE] + n[UP_UNCHANGED] + n[UP_TODO] ? DONE : NOTHING;
}

/* --- apply --- */

static bool same_object(const struct up_meta *m, const struct up_object *o)
{
	return m->build_id_len ? up_build_id_is(o, m->build_id, m->build_id_len) :
				 !o->build_id_len && !strcmp(m->object, o->path);
}

static bool same_patch(struct up_patch *p, const struct up_spec *spec)
{
	char name[UP_NAME];
	struct up_rule rule;
	char why[UP_WHY];

	if (p->meta.kind != spec->kind || up_patch_backend(p) != spec->backend)
		return false;
	if (spec->kind == UP_OWN) {
		snprintf(name, sizeof(name), "%s", spec->name ?: p->meta.program);
		return p->meta.prog_hash == spec->hash && !strcmp(name, p->meta.program);
	}
	return spec->kind == UP_COUNT || (!up_patch_map(p, why) && up_rule_get(p, &rule) &&
					  up_rule_same(&rule, &spec->rule));
}

/* Which of the patches at the function are there already; the one that is the same is *join. */
static void find_same(struct up_patches *all, const struct up_spec *spec,
		      const struct up_object *o, const struct up_site *site, struct up_targets *ts,
		      struct up_patch **join)
{
	*join = NULL;
	for (size_t i = 0; i < all->n; i++) {
		struct up_patch *p = &all->patch[i];
		__u32 *pids = NULL;
		char why[UP_WHY];
		size_t n = 0;
		bool same;

		if (p->meta.offset != site->offset || !same_object(&p->meta, o))
			continue;
		same = same_patch(p, spec);
		if (same && !*join)
			*join = p;
		up_patch_backend(p)->pids(p, &pids, &n, why);
		for (size_t k = 0; k < ts->n; k++) {
			struct up_target *t = &ts->target[k];

			if (t->state != UP_TODO || !up_pid_in(t->pid, pids, n))
				continue;
			t->state = same ? UP_UNCHANGED : UP_FAILED;
			if (!same)
				up_fail(t->why, "patch %u is at this function: update or detach "
					"it", p->meta.id);
		}
		free(pids);
	}
}

static bool any_to_do(const struct up_targets *ts)
{
	for (size_t i = 0; i < ts->n; i++)
		if (ts->target[i].state == UP_TODO)
			return true;
	return false;
}

static void all_failed(struct up_targets *ts, const char *why)
{
	for (size_t i = 0; i < ts->n; i++)
		if (ts->target[i].state == UP_TODO) {
			ts->target[i].state = UP_FAILED;
			snprintf(ts->target[i].why, UP_WHY, "%s", why);
		}
}

/* All that are to do, into one patch. How many were. */
static unsigned int attach_all(struct up_patch *p, struct up_targets *ts)
{
	unsigned int n = 0;

	for (size_t i = 0; i < ts->n; i++) {
		struct up_target *t = &ts->target[i];

		if (t->state != UP_TODO)
			continue;
		t->state = up_patch_backend(p)->attach(p, t, t->why) ? UP_FAILED : UP_DONE;
		n += t->state == UP_DONE;
	}
	return n;
}

/*
 * Of a file's processes some may have been forked while others were looked at. Who is a child
 * of one that is patched by now is patched too; whoever else is new is done, until nobody is.
 */
#define ROUNDS 10

static void attach_more(struct up_patch *p, struct up_targets *ts, const struct up_site *site)
{
	__u8 id[UP_ID_MAX];
	__u32 len = 0;
	bool more = !env.pid;

	if (env.build_id)
		up_build_id_parse(env.build_id, id, &len);
	for (int round = 0; more && round < ROUNDS; round++) {
		struct up_targets now = {};

		more = false;
		if (!targets_scan(id, len, &now))
			targets_gate(id, len, &now);
		for (size_t i = 0; i < now.n; i++) {
			struct up_target *t;
			bool known = false;

			for (size_t k = 0; k < ts->n; k++)
				known |= ts->target[k].pid == now.target[i].pid;
			t = known || now.target[i].state != UP_TODO ? NULL :
			    up_targets_add(ts, now.target[i].pid);
			if (!t)
				continue;
			*t = now.target[i];
			more = true;
			if (up_target_place(t, site))
				t->state = UP_FAILED;
		}
		up_targets_free(&now);
		attach_all(p, ts);
	}
}

static int apply_to(const struct up_spec *spec, struct up_targets *ts, const struct up_object *o,
		    const struct up_site *site, __u32 *id)
{
	struct up_patch made = {.prog = -1}, *join;
	unsigned int leftovers;
	struct up_patches all;
	char why[UP_WHY] = "";
	int rc = DONE, lock = -1, err;

	rc = pins_change(UP_ROOT, &lock);
	if (rc)
		return rc;
	err = up_patches_get(&all);
	if (err) {
		complain_err(err, UP_ROOT, "cannot read");
		rc = FAILED;
		goto out;
	}
	if (up_sweep(asked.dry_run, &leftovers, why)) {
		complain("%s", why);
		rc = FAILED;
		goto out;
	}
	find_same(&all, spec, o, site, ts, &join);
	*id = join ? join->meta.id : up_patch_next_id(&all);
	if (!any_to_do(ts) || asked.dry_run)
		goto out;
	if (join) {
		if (up_patch_prog(join, why))
			all_failed(ts, why);
		else if (attach_all(join, ts))
			attach_more(join, ts, site);
	} else if (up_patch_make(&made, NULL, *id, spec, o, site, ts, why)) {
		all_failed(ts, why);
	} else if (!attach_all(&made, ts)) {
		up_patch_remove(&made, why);
	} else {
		attach_more(&made, ts, site);
		if (up_patch_commit(&made, NULL, why)) {
			complain("%s", why);
			rc = FAILED;
		}
	}
	up_patch_close(&made);
out:
	up_patches_free(&all);
	pins_unlock(lock);
	return rc;
}

/* FILE[:NAME] */
static int own_program(struct up_spec *spec)
{
	static char file[UP_PATH], name[UP_NAME];
	const char *colon;
	size_t len;
	char *data;
	int err;

	if (!env.prog)
		return usage_error("attach", "takes --prog FILE[:NAME]");
	colon = strrchr(env.prog, ':');
	if (colon && strchr(colon, '/'))
		colon = NULL;
	snprintf(file, sizeof(file), "%.*s", colon ? (int)(colon - env.prog) : UP_PATH - 1,
		 env.prog);
	snprintf(name, sizeof(name), "%s", colon ? colon + 1 : "");
	err = read_file(file, 16 << 20, &data, &len);
	if (err) {
		complain_err(err, file, "cannot read");
		return FAILED;
	}
	spec->hash = 0xcbf29ce484222325;
	for (size_t i = 0; i < len; i++)
		spec->hash = (spec->hash ^ (__u8)data[i]) * 0x100000001b3;
	free(data);
	spec->file = file;
	spec->name = *name ? name : NULL;
	return DONE;
}

static int apply(enum up_kind kind, int argc)
{
	struct up_spec spec = {.kind = kind};
	const struct up_object *o = NULL;
	struct up_targets ts = {};
	struct up_site site = {};
	__u32 id = 0;
	int rc;

	if (argc)
		return usage_error(up_kinds[kind], "takes options only");
	rc = up_rule_parse(kind, &spec.rule) ?: kind == UP_OWN ? own_program(&spec) : DONE;
	if (rc)
		return rc;
	/* what the kernel lacks is told before anything else is looked at */
	spec.backend = backend_get(kind == UP_CLAMP || kind == UP_DENY, &rc);
	rc = rc ?: targets_get(kind == UP_OWN ? "attach" : up_kinds[kind], &ts);
	if (!rc) {
		targets_place(&ts, &site, &o);
		if (any_to_do(&ts))
			rc = apply_to(&spec, &ts, o, &site, &id);
		rc = rc ?: targets_report(&ts, id, spec.backend, &site, o);
	}
	up_targets_free(&ts);
	return rc;
}

static int count(int argc, char **argv)
{
	return apply(UP_COUNT, argc);
}

static int clamp(int argc, char **argv)
{
	return apply(UP_CLAMP, argc);
}

static int deny(int argc, char **argv)
{
	return apply(UP_DENY, argc);
}

static int attach(int argc, char **argv)
{
	return apply(UP_OWN, argc);
}

/* --- check --- */

static void check_backends(json_t *ways, bool *any)
{
	char why[UP_WHY];

	*any = false;
	for (int i = 0; i < UP_BACKENDS; i++) {
		const struct up_backend *b = up_backends[i];
		bool ok;

		if (env.backend && env.backend != b)
			continue;
		*why = 0;
		ok = b->there(true, why);
		*any |= ok;
		json_array_append_new(ways, json_pack("{s:s, s:b, s:s}", "backend", b->name,
						      "there", ok, "reason", why));
		if (!asked.json)
			printf("%s: %s%s\n", b->name, ok ? "yes" : "no: ", why);
	}
}

static int check(int argc, char **argv)
{
	json_t *ways, *list;
	const struct up_object *o;
	struct up_targets ts = {};
	struct up_site site = {};
	unsigned int failed = 0;
	char bytes[3 * 16 + 1] = "";
	bool any = false;
	int rc;

	if (argc)
		return usage_error("check", "takes options only");
	rc = targets_get("check", &ts);
	if (rc)
		goto out;
	targets_place(&ts, &site, &o);
	ways = json_array();
	list = json_array();
	for (size_t i = 0; o && i < sizeof(site.bytes); i++)
		sprintf(bytes + 3 * i, "%02x ", site.bytes[i]);
	if (o && !asked.json)
		printf("%s: in %s, build-id %s, at %#llx of the file, %llu bytes%s\n"
		       "begins with %s\n", site.function, o->path,
		       o->build_id_len ? o->build_id_text : "none", site.offset, site.size,
		       site.size ? "" : " (not known)", bytes);
	check_backends(ways, &any);
	for (size_t i = 0; i < ts.n; i++) {
		struct up_target *t = &ts.target[i];
		int intact = t->state == UP_TODO ? up_target_intact(t, &site) : 0;

		if (t->state != UP_TODO)
			failed++;
		else if (intact < 0)
			up_fail(t->why, "its code cannot be read: %s", strerror(-intact));
		else if (!intact)
			up_fail(t->why, "has other bytes there than the file: a patch, a probe "
				"or a debugger is at work");
		json_array_append_new(list, json_pack("{s:i, s:s, s:b, s:I, s:s}", "pid", t->pid,
						      "comm", t->comm, "ok", t->state == UP_TODO,
						      "address", (json_int_t)t->addr, "reason",
						      t->why));
		if (!asked.json && t->state == UP_TODO)
			printf("%u %s: can be patched, at %#llx%s%s\n", t->pid, t->comm, t->addr,
			       *t->why ? "; it " : "", t->why);
		else if (!asked.json)
			printf("%u %s: cannot be patched: %s\n", t->pid, t->comm, t->why);
	}
	if (asked.json)
		rc = json_out(json_pack("{s:s, s:s, s:s, s:I, s:I, s:s, s:b, s:o, s:o}",
					"function", site.function, "object", o ? o->path : "",
					"build_id", o ? o->build_id_text : "", "offset",
					(json_int_t)site.offset, "size", (json_int_t)site.size,
					"bytes", bytes, "debug_symbol", site.debug, "backends",
					ways, "targets", list));
	if (!asked.json) {
		json_decref(ways);
		json_decref(list);
	}
	rc = rc ?: failed ? FAILED : any ? DONE : LACKING;
out:
	up_targets_free(&ts);
	return rc;
}

/* --- update --- */

/* The processes that a patch has, as targets; each that cannot be is said. */
static void members(const struct up_patch *p, const struct up_site *site, struct up_targets *ts)
{
	struct up_targets found = {};
	__u32 *pids = NULL;
	char why[UP_WHY];
	size_t n = 0;

	if (up_patch_backend(p)->pids(p, &pids, &n, why))
		complain("%s", why);
	up_targets_of_object(p->meta.build_id, p->meta.build_id_len, p->meta.object, &found);
	for (size_t i = 0; i < found.n; i++) {
		struct up_target *t;

		if (!found.target[i].object || !up_pid_in(found.target[i].pid, pids, n))
			continue;
		t = up_targets_add(ts, found.target[i].pid);
		if (!t)
			break;
		*t = found.target[i];
		if (up_target_place(t, site))
			t->state = UP_FAILED;
	}
	up_targets_free(&found);
	free(pids);
}

static int replace(struct up_patch *p)
{
	const struct up_backend *b = up_patch_backend(p);
	struct up_spec spec = {.kind = UP_OWN, .backend = b};
	struct up_patch fresh = {.prog = -1};
	const struct up_object *o = NULL;
	struct up_targets ts = {};
	struct up_site site = {.offset = p->meta.offset, .gadget = p->meta.gadget};
	char why[UP_WHY];
	int rc = own_program(&spec), err;
	unsigned int failed = 0;

	if (rc)
		return rc;
	if (same_patch(p, &spec))
		return DONE;
	change(p->dir + strlen(UP_ROOT) + 1, "replace the program");
	if (asked.dry_run)
		return DONE;
	memcpy(site.function, p->meta.function, sizeof(site.function));
	members(p, &site, &ts);
	for (size_t i = 0; i < ts.n && !o; i++)
		o = ts.target[i].object;
	if (!o) {
		complain("%u: none of its processes is there any more", p->meta.id);
		return NOTHING;
	}
	err = up_patch_make(&fresh, p, p->meta.id, &spec, o, &site, &ts, why);
	if (!err && b->replace) {
		err = b->replace(p, &fresh, why);
	} else if (!err) {
		attach_all(&fresh, &ts);
		for (size_t i = 0; i < ts.n; i++)
			if (ts.target[i].state == UP_FAILED) {
				failed++;
				complain("%u: %s", ts.target[i].pid, ts.target[i].why);
			}
		if (failed)
			err = up_fail(why, "%u: the program stays the old one", p->meta.id);
	}
	if (!err)
		err = up_patch_commit(&fresh, p, why);
	if (err)
		complain("%s", why);
	if (err && fresh.mapped)
		up_patch_remove(&fresh, why);
	else if (!err && up_patch_remove(p, why))
		complain("%s", why);
	up_patch_close(&fresh);
	up_targets_free(&ts);
	return err ? FAILED : DONE;
}

/* What is not told stays as it is. */
static int change_rule(struct up_patch *p)
{
	struct up_rule rule, old;
	char text[256], min[32], max[32], type[8];
	int rc;

	if (!up_rule_get(p, &old) || old.kind != p->meta.kind) {
		complain("%u: its arena was written by others; detach it", p->meta.id);
		return FAILED;
	}
	snprintf(type, sizeof(type), "%c%d", old.is_signed ? 's' : 'u', 8 * old.bytes);
	env.type = env.type ?: type;
	if (env.arg < 0 && (old.kind == UP_CLAMP || old.test != UP_ALWAYS || env.eq || env.above ||
			    env.below || env.prefix))
		env.arg = old.arg;
	if (old.kind == UP_CLAMP) {
		snprintf(min, sizeof(min), old.is_signed ? "%lld" : "%llu", old.min);
		snprintf(max, sizeof(max), old.is_signed ? "%lld" : "%llu", old.max);
		env.min = env.min ?: min;
		env.max = env.max ?: max;
	} else if (!env.ret) {
		snprintf(min, sizeof(min), "%lld", old.ret);
		env.ret = min;
	}
	if (old.kind == UP_DENY && !env.eq && !env.above && !env.below && !env.prefix) {
		/* only the result changes */
		struct up_rule one = old;

		env.arg = -1;
		rc = up_rule_parse(UP_DENY, &rule);
		one.ret = rule.ret;
		rule = one;
	} else {
		rc = up_rule_parse(old.kind, &rule);
	}
	if (rc || up_rule_same(&rule, &old))
		return rc;
	change(p->dir + strlen(UP_ROOT) + 1, "%s", up_rule_text(&rule, text));
	if (!asked.dry_run)
		up_rule_put(p, &rule);
	return DONE;
}

static struct up_patch *patch_of(struct up_patches *all, const char *text)
{
	__u32 id;

	for (size_t i = 0; parse_u32(text, 1, UINT32_MAX, &id) && i < all->n; i++)
		if (all->patch[i].meta.id == id)
			return &all->patch[i];
	return NULL;
}

static int update_one(struct up_patch *p)
{
	bool rule = env.min || env.max || env.eq || env.above || env.below || env.prefix ||
		    env.ret || env.arg >= 0 || env.type;
	char why[UP_WHY];
	int rc = DONE;
	__u32 on;

	if (!rule && !env.prog && !env.on && !env.off)
		return usage_error("update", "takes what is to change");
	if (env.on && env.off)
		return usage_error("update", "--on and --off cannot be both");
	if (rule && p->meta.kind != UP_CLAMP && p->meta.kind != UP_DENY)
		return usage_error("update", "that patch has no rule");
	if (env.prog && p->meta.kind != UP_OWN)
		return usage_error("update", "--prog is for patches of upatch attach");
	if (up_patch_map(p, why)) {
		complain("%s", why);
		return FAILED;
	}
	if (rule)
		rc = change_rule(p);
	if (!rc && env.prog)
		rc = replace(p);
	if (rc || (!env.on && !env.off))
		return rc;
	on = __atomic_load_n(&p->arena->on, __ATOMIC_ACQUIRE);
	if (!!on == env.on)
		return DONE;
	change(p->dir + strlen(UP_ROOT) + 1, env.on ? "on" : "off");
	if (!asked.dry_run)
		__atomic_store_n(&p->arena->on, env.on, __ATOMIC_RELEASE);
	return DONE;
}

static int update(int argc, char **argv)
{
	struct up_patches all = {};
	unsigned int leftovers;
	struct up_patch *p;
	char why[UP_WHY];
	int rc, lock = -1;

	if (argc != 1)
		return usage_error("update", "takes the ID of a patch (see upatch list)");
	rc = pins_change(UP_ROOT, &lock);
	if (!rc && up_sweep(asked.dry_run, &leftovers, why)) {
		complain("%s", why);
		rc = FAILED;
	}
	if (!rc) {
		up_patches_get(&all);
		p = patch_of(&all, argv[0]);
		if (!p)
			complain("%s: no such patch; see upatch list", argv[0]);
		rc = p ? update_one(p) : NOTHING;
	}
	up_patches_free(&all);
	pins_unlock(lock);
	return report("patch", argv[0], rc);
}

/* --- detach --- */

static int detach_one(struct up_patch *p)
{
	char why[UP_WHY], id[16];

	snprintf(id, sizeof(id), "%u", p->meta.id);
	change(id, "detach");
	if (asked.dry_run || !up_patch_remove(p, why))
		return DONE;
	complain("%s", why);
	return FAILED;
}

static int detach(int argc, char **argv)
{
	struct up_patches all = {};
	unsigned int leftovers = 0;
	char why[UP_WHY];
	int rc, lock = -1;

	if (env.all ? argc : argc < 1)
		return usage_error("detach", "takes the IDs of patches, or --all");
	rc = pins_change(UP_ROOT, &lock);
	if (!rc && up_sweep(asked.dry_run, &leftovers, why)) {
		complain("%s", why);
		rc = FAILED;
	}
	if (!rc && leftovers)
		change("unfinished", "remove %u", leftovers);
	if (!rc)
		up_patches_get(&all);
	if (env.all && all.others)
		rc = FAILED;
	for (size_t i = 0; env.all && i < all.n; i++)
		rc = detach_one(&all.patch[i]) ?: rc;
	for (int i = 0; i < argc; i++) {
		struct up_patch *p = patch_of(&all, argv[i]);

		if (p) {
			rc = detach_one(p) ?: rc;
		} else {
			complain("%s: no such patch; see upatch list", argv[i]);
			rc = rc ?: NOTHING;
		}
	}
	up_patches_free(&all);
	pins_unlock(lock);
	return report("patch", env.all ? "all" : argv[0], rc);
}

/* --- probe --- */

static int probe(void)
{
	char poke[UP_WHY] = "", count_why[UP_WHY] = "", write_why[UP_WHY] = "";
	bool has_poke = up_poke.there(true, poke), counts = up_uprobe.there(false, count_why),
	     writes = up_uprobe.there(true, write_why);
	const struct need needs[] = {
		{"counting", count_why, counts, has_poke},
		{"uprobe", write_why, writes, true},
		{"poke", poke, has_poke, true},
	};

	return report_needs(needs, ARRAY_SIZE(needs));
}

/* --- main --- */

static const struct verb verbs[] = {
	{"count", count}, {"clamp", clamp}, {"deny", deny}, {"attach", attach}, {"check", check},
	{"list", verb_list}, {"show", verb_show}, {"stats", verb_stats}, {"log", verb_log},
	{"update", update}, {"detach", detach}, {"verify", verb_verify}, {}};

enum {
	OPT_EXE = 256, OPT_BUILD_ID, OPT_OBJECT, OPT_ARG, OPT_MIN, OPT_MAX, OPT_EQ, OPT_ABOVE,
	OPT_BELOW, OPT_PREFIX, OPT_RETURN, OPT_TYPE, OPT_PROG, OPT_BACKEND, OPT_ALL, OPT_ON,
	OPT_OFF, OPT_FOLLOW, OPT_COUNT, OPT_SECONDS,
};

static const struct argp_option options[] = {
	{"pid", 'p', "PID", 0, "one process", 0},
	{"exe", OPT_EXE, "PATH", 0, "every process that has this file mapped now", 0},
	{"build-id", OPT_BUILD_ID, "HEX", 0,
	 "every process that has an object of it mapped now; with one of the others: it must be that",
	 0},
	{"object", OPT_OBJECT, "NAME", 0,
	 "with -p: the shared library that has the function, by its path or base name (default: "
	 "the program)", 0},
	{"function", 'f', "FUNC", 0, "SYMBOL, SYMBOL+OFFSET, or 0xOFFSET in the file", 0},
	{"arg", OPT_ARG, "N", 0, "clamp, deny: the argument, 0 to 5", 0},
	{"type", OPT_TYPE, "TYPE", 0, "of the argument: u64 (default), s64, u32, s32 and so on", 0},
	{"min", OPT_MIN, "A", 0, "clamp: what is less becomes that", 0},
	{"max", OPT_MAX, "B", 0, "clamp: what is more becomes that", 0},
	{"eq", OPT_EQ, "V", 0, "deny: if the argument is that", 0},
	{"above", OPT_ABOVE, "V", 0, "deny: if the argument is more", 0},
	{"below", OPT_BELOW, "V", 0, "deny: if the argument is less", 0},
	{"prefix", OPT_PREFIX, "STR", 0, "deny: if the argument points to text that begins so", 0},
	{"return", OPT_RETURN, "V", 0, "deny: what the caller gets", 0},
	{"prog", OPT_PROG, "FILE[:NAME]", 0,
	 "attach, update: an object made with upatch.bpf.h", 0},
	{"backend", OPT_BACKEND, "B", 0,
	 "poke: in user mode; uprobe: by traps; auto (default): the first that is there", 0},
	{"all", OPT_ALL, NULL, 0, "detach: every patch, and what is left unfinished", 0},
	{"on", OPT_ON, NULL, 0, "update: obey it again", 0},
	{"off", OPT_OFF, NULL, 0, "update: as if it were not there, until --on", 0},
	{"follow", OPT_FOLLOW, NULL, 0, "log: go on with what happens from now on", 0},
	{"count", OPT_COUNT, "N", 0, "log: end after so many lines", 0},
	{"seconds", OPT_SECONDS, "N", 0, "log: end after this time", 0},
	{}};

static error_t parse_opt(int key, char *arg, struct argp_state *state)
{
	static const char *const backends[] = {"poke", "uprobe", "auto", NULL};
	int i;

	switch (key) {
	case 'p':
		env.pid = option_u32(state, "pid", arg, 1, INT32_MAX);
		break;
	case 'f':
		env.function = arg;
		break;
	case OPT_EXE:
		env.exe = arg;
		break;
	case OPT_BUILD_ID:
		env.build_id = arg;
		break;
	case OPT_OBJECT:
		env.object = arg;
		break;
	case OPT_ARG:
		env.arg = option_u32(state, "arg", arg, 0, 5);
		break;
	case OPT_TYPE:
		env.type = arg;
		break;
	case OPT_MIN:
		env.min = arg;
		break;
	case OPT_MAX:
		env.max = arg;
		break;
	case OPT_EQ:
		env.eq = arg;
		break;
	case OPT_ABOVE:
		env.above = arg;
		break;
	case OPT_BELOW:
		env.below = arg;
		break;
	case OPT_PREFIX:
		env.prefix = arg;
		break;
	case OPT_RETURN:
		env.ret = arg;
		break;
	case OPT_PROG:
		env.prog = arg;
		break;
	case OPT_BACKEND:
		i = option_word(state, "backend", arg, backends);
		env.backend = i < UP_BACKENDS ? up_backends[i] : NULL;
		break;
	case OPT_ALL:
		env.all = true;
		break;
	case OPT_ON:
		env.on = true;
		break;
	case OPT_OFF:
		env.off = true;
		break;
	case OPT_FOLLOW:
		env.follow = true;
		break;
	case OPT_COUNT:
		env.count = option_u32(state, "count", arg, 1, 1000000000);
		break;
	case OPT_SECONDS:
		env.seconds = option_u32(state, "seconds", arg, 1, 86400);
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const char args_doc[] =
	"count TARGET -f FUNC\nclamp TARGET -f FUNC --arg N [--min A] [--max B]\n"
	"deny TARGET -f FUNC [--arg N TEST] --return V\n"
	"attach TARGET -f FUNC --prog FILE[:NAME]\ncheck TARGET -f FUNC\n"
	"list|show|stats|verify [ID...]\nlog ID\nupdate ID WHAT\ndetach ID...|--all";

static const char doc[] =
	"Patch functions of running processes by BPF.\v"
	"TARGET: -p PID [--object NAME], --exe PATH or --build-id HEX. Children of a patched "
	"process are patched too; a process that executes another program no longer is. A patch stays "
	"until it is detached, or its last process has ended.\n"
	"TEST: --eq V, --above V, --below V or --prefix STR; without, every call is denied.\n"
	"verify tells whether every process that has the object mapped runs the patch.\n"
	"The uprobe back end traps at each call, in every process that has the file mapped, and "
	"passes by those that are not patched: what is called millions of times a second becomes "
	"slow in all of them.\n"
	"Exit codes: 0 done or already so, 1 failed, 2 usage or bad input, 3 nothing matched, "
	"4 the kernel lacks something.\n\n"
	"EXAMPLES\n"
	"  upatch check -p 4711 -f copy_record\n"
	"  upatch clamp -p 4711 -f copy_record --arg 2 --max 64\n"
	"  upatch deny --exe /usr/sbin/server -f open_path --arg 0 --prefix /etc/ --return -13\n"
	"  upatch count -p 4711 --object libc.so.6 -f getenv\n"
	"  upatch update 1 --max 32\n"
	"  upatch stats 1 -j\n"
	"  upatch detach --all\n";

int main(int argc, char **argv)
{
	static const struct tool tool = {
		.options = options,
		.parse = parse_opt,
		.args_doc = args_doc,
		.doc = doc,
		.verbs = verbs,
		.probe = probe,
	};

	return tool_main(&tool, argc, argv);
}
