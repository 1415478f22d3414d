// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>
#include <bpf/bpf.h>

#include "common.h"
#include "netpol-load.h"
#include "netpol.skel.h"

static const __u32 zero;

/* --- reading back --- */

static int map_info(int fd, struct bpf_map_info *info)
{
	__u32 len = sizeof(*info);

	memset(info, 0, sizeof(*info));
	return bpf_map_get_info_by_fd(fd, info, &len) ? -errno : 0;
}

/* The one value of a map, malloc'd. */
static int value_read(int fd, void **value, __u32 *size)
{
	struct bpf_map_info info;
	int err = map_info(fd, &info);

	if (err)
		return err;
	*value = malloc(info.value_size);
	if (!*value)
		return -ENOMEM;
	*size = info.value_size;
	if (!bpf_map_lookup_elem(fd, &zero, *value))
		return 0;
	err = -errno;
	free(*value);
	*value = NULL;
	return err;
}

/* Open, read or write element 0 of a pinned map, close. */
static int pinned_get(const char *dir, const char *name, void *value)
{
	int fd = pin_get(dir, name), err;

	if (fd < 0)
		return fd;
	err = bpf_map_lookup_elem(fd, &zero, value) ? -errno : 0;
	close(fd);
	return err;
}

static void tier_name(char name[16], __u32 tier)
{
	snprintf(name, 16, "tier%u", tier);
}

/* The id of the live table; 0: none. */
static int live_id(const char *dir, __u32 *tier, __u32 *id)
{
	struct np_state state;
	char name[16];
	int err = pinned_get(dir, "np_state", &state);

	*id = 0;
	if (err)
		return err;
	*tier = state.tier;
	if (state.tier >= NP_TIERS)
		return 0;
	tier_name(name, state.tier);
	err = pinned_get(dir, name, id);
	return err == -ENOENT ? 0 : err;
}

/* The pin of the table with this id; by its id alone if there is none, for the tools of others. */
static int table_open(const char *dir, __u32 id)
{
	struct bpf_map_info info;
	char name[16];

	for (int i = 0; i < 2; i++) {
		int fd;

		snprintf(name, sizeof(name), "table%d", i);
		fd = pin_get(dir, name);
		if (fd < 0)
			continue;
		if (!map_info(fd, &info) && info.id == id)
			return fd;
		close(fd);
	}
	return -ENOENT;
}

static int text_read(const char *dir, struct np_live *live, const char **why)
{
	__u32 gen = live->words[NP_H_GEN], size;
	unsigned char *value;
	char name[16];
	size_t len;
	int fd, err;

	snprintf(name, sizeof(name), "text%u", gen & 1);
	*why = "the pin of the policy's text is missing";
	fd = pin_get(dir, name);
	if (fd < 0)
		return fd == -ENOENT ? -EUCLEAN : fd;
	err = value_read(fd, (void **)&value, &size);
	close(fd);
	if (err)
		return err;
	err = -EUCLEAN;
	*why = "the policy's text is not of the table's generation";
	memcpy(&live->head, value, sizeof(live->head));
	if (size < sizeof(live->head) || live->head.magic != NP_TEXT_MAGIC || live->head.gen != gen)
		goto out;
	*why = "the policy's text is damaged";
	if (live->head.zlen > size - sizeof(live->head) || live->head.len > NP_MAX_TEXT)
		goto out;
	live->text = malloc(live->head.len + 1ul);
	if (!live->text) {
		err = -ENOMEM;
		goto out;
	}
	len = ZSTD_decompress(live->text, live->head.len + 1ul, value + sizeof(live->head),
			      live->head.zlen);
	if (ZSTD_isError(len) || len != live->head.len)
		goto out;
	live->text[len] = 0;
	err = 0;
out:
	free(value);
	return err;
}

static void policy_complete(struct np_policy *policy, const struct np_text *head)
{
	if (head->flags & NP_TEXT_DEFAULT) {
		policy->has_default = true;
		policy->dflt = head->dflt;
	}
	policy->stateless = head->flags & NP_TEXT_STATELESS;
}

static int live_parse(struct np_live *live, const char **why)
{
	const __u32 *words = live->words;
	struct np_error perr;
	int err;

	*why = "the policy's text does not parse";
	err = np_policy_parse(live->text, live->head.len, &live->policy, &perr);
	if (err)
		return err == -EINVAL ? -EUCLEAN : err;
	policy_complete(live->policy, &live->head);
	*why = "the policy's text and table differ";
	if (live->policy->nrules != words[NP_H_NRULES])
		return -EUCLEAN;
	live->slots = malloc((live->policy->nrules + 1ul) * sizeof(*live->slots));
	if (!live->slots)
		return -ENOMEM;
	for (__u32 i = 0; i < live->policy->nrules; i++)
		live->slots[i] = words[words[NP_H_RULES] + i] & NP_A_SLOT;
	return 0;
}

static int live_try(const char *dir, bool parse, struct np_live *live, const char **why)
{
	__u32 id, size;
	int fd, err;

	memset(live, 0, sizeof(*live));
	err = live_id(dir, &live->tier, &id);
	if (err)
		return err;
	if (!id)
		return -ENOENT;
	*why = "the pin of the live table is missing";
	fd = table_open(dir, id);
	if (fd < 0)
		return -EUCLEAN;
	err = value_read(fd, (void **)&live->words, &size);
	close(fd);
	if (err)
		return err;
	live->nwords = size / 4;
	*why = np_table_check(live->words, live->nwords);
	if (*why)
		return -EUCLEAN;
	err = text_read(dir, live, why);
	return err || !parse ? err : live_parse(live, why);
}

int np_live_read(const char *dir, bool parse, struct np_live *live, const char **why)
{
	const char *unused;
	int err;

	/* Who does not hold the lock may see a load half way; it is over soon. */
	for (int i = 0; i < 50; i++) {
		err = live_try(dir, parse, live, why ?: &unused);
		if (err != -EUCLEAN)
			break;
		if (i < 49) {
			np_live_free(live);
			usleep(2000);
		}
	}
	if (err)
		np_live_free(live);
	return err;
}

void np_live_free(struct np_live *live)
{
	free(live->words);
	free(live->text);
	free(live->slots);
	np_policy_free(live->policy);
	memset(live, 0, sizeof(*live));
}

/* --- counters --- */

__u32 np_slots_used(const __u32 *words)
{
	__u32 high = 0;

	for (__u32 i = 0; i < words[NP_H_NRULES]; i++) {
		__u32 slot = words[words[NP_H_RULES] + i] & NP_A_SLOT;

		if (slot > high)
			high = slot;
	}
	return high + 1;
}

int np_page_read(int fd, __u32 n, struct np_count *counts)
{
	int cpus = libbpf_num_possible_cpus(), err = 0;
	__u32 got = n, next;
	struct np_count *all;
	__u32 *keys;

	if (cpus < 0)
		return cpus;
	all = calloc((size_t)n * cpus, sizeof(*all));
	keys = calloc(n, sizeof(*keys));
	memset(counts, 0, n * sizeof(*counts));
	if (!all || !keys)
		err = -ENOMEM;
	/* ENOENT: there was less than fits, and all of it was read. */
	else if (bpf_map_lookup_batch(fd, NULL, &next, keys, all, &got, NULL) && errno != ENOENT)
		err = -errno;
	for (__u32 i = 0; !err && i < got; i++) {
		if (keys[i] >= n)
			continue;
		for (int cpu = 0; cpu < cpus; cpu++) {
			counts[keys[i]].packets += all[(size_t)i * cpus + cpu].packets;
			counts[keys[i]].bytes += all[(size_t)i * cpus + cpu].bytes;
		}
	}
	free(all);
	free(keys);
	return err;
}

int np_counts_read(const char *dir, __u32 n, struct np_count *counts)
{
	char name[16];
	int fd, err = 0;

	memset(counts, 0, n * sizeof(*counts));
	for (__u32 at = 0; !err && at < n; at += NP_SLOT_PAGE) {
		snprintf(name, sizeof(name), "count%u", at / NP_SLOT_PAGE);
		fd = pin_get(dir, name);
		if (fd < 0)
			return fd;
		err = np_page_read(fd, n - at < NP_SLOT_PAGE ? n - at : NP_SLOT_PAGE, counts + at);
		close(fd);
	}
	return err;
}

int np_stats_read(const char *dir, struct np_count stats[__NP_S_MAX])
{
	int fd = pin_get(dir, "np_stats"), err;

	if (fd < 0)
		return fd;
	err = np_page_read(fd, __NP_S_MAX, stats);
	close(fd);
	return err;
}

/*
 * Pages that are new. They go into np_counts by the batch, since the kernel waits for a
 * grace period at the end of each update of a map of maps.
 */
struct pages {
	__u32 n, page[256];
	int fd[256];
};

static int pages_flush(struct pages *new, int counts_fd)
{
	__u32 n = new->n;
	int err = 0;

	if (n && bpf_map_update_batch(counts_fd, new->page, new->fd, &n, NULL))
		err = -errno;
	for (__u32 i = 0; i < new->n; i++)
		close(new->fd[i]);
	new->n = 0;
	return err;
}

static int page_new(const char *dir, int counts_fd, __u32 page, struct pages *new)
{
	char name[16];
	int fd, err;

	if (new->n == ARRAY_SIZE(new->page)) {
		err = pages_flush(new, counts_fd);
		if (err)
			return err;
	}
	fd = bpf_map_create(BPF_MAP_TYPE_PERCPU_ARRAY, "np_count", sizeof(__u32),
			    sizeof(struct np_count), NP_SLOT_PAGE, NULL);
	if (fd < 0)
		return -errno;
	new->page[new->n] = page;
	new->fd[new->n++] = fd;
	if (!dir)
		return 0;
	/* The pin is older than the entry, so that no page is in use and out of reach. */
	snprintf(name, sizeof(name), "count%u", page);
	err = pin_unlink(dir, name);
	return err && err != -ENOENT ? err : pin_put(fd, dir, name);
}

/* A page that is in use, or -ENOENT. */
static int page_open(const char *dir, int counts_fd, __u32 page)
{
	char name[16];
	__u32 id;

	if (bpf_map_lookup_elem(counts_fd, &page, &id))
		return -errno;
	snprintf(name, sizeof(name), "count%u", page);
	return pin_get(dir, name);
}

static int slots_clear(int fd, __u32 *keys, __u32 n)
{
	int cpus = libbpf_num_possible_cpus(), err = 0;
	struct np_count *zeros;

	if (cpus < 0)
		return cpus;
	zeros = calloc((size_t)n * cpus, sizeof(*zeros));
	if (!zeros)
		return -ENOMEM;
	if (bpf_map_update_batch(fd, keys, zeros, &n, NULL))
		err = -errno;
	free(zeros);
	return err;
}

static int slot_cmp(const void *a, const void *b)
{
	__u32 x = *(const __u32 *)a, y = *(const __u32 *)b;

	return x < y ? -1 : x > y;
}

/* Pages for slots 0..high, and zeros in the slots of rules that are new. */
static int counts_prepare(const char *dir, const __u32 *slots, const bool *fresh, __u32 n,
			  __u32 high)
{
	__u32 *clear = malloc((n + 1ul) * sizeof(*clear)), nclear = 0, at = 0;
	int counts_fd = pin_get(dir, "np_counts"), fd, err = 0, flushed;
	struct pages new = {};

	if (!clear)
		err = -ENOMEM;
	else if (counts_fd < 0)
		err = counts_fd;
	for (__u32 i = 0; !err && i < n; i++)
		if (fresh[i])
			clear[nclear++] = slots[i];
	if (!err)
		qsort(clear, nclear, sizeof(*clear), slot_cmp);
	for (__u32 page = 0; !err && page <= high / NP_SLOT_PAGE; page++) {
		__u32 from = at;

		for (; at < nclear && clear[at] / NP_SLOT_PAGE == page; at++)
			clear[at] %= NP_SLOT_PAGE;
		fd = page_open(dir, counts_fd, page);
		if (fd == -ENOENT) {
			err = page_new(dir, counts_fd, page, &new);
		} else if (fd < 0) {
			err = fd;
		} else {
			if (at > from)
				err = slots_clear(fd, clear + from, at - from);
			close(fd);
		}
	}
	flushed = pages_flush(&new, counts_fd);
	if (counts_fd >= 0)
		close(counts_fd);
	free(clear);
	return err ?: flushed;
}

/* --- replacing --- */

static int map_of_value(const char *name, const void *value, __u32 size)
{
	int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, name, sizeof(__u32), size, 1, NULL), err;

	if (fd < 0)
		return -errno;
	if (!bpf_map_update_elem(fd, &zero, value, BPF_ANY))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

static int pin_replace(int fd, const char *dir, const char *name, __u32 gen)
{
	char pin[16];
	int err;

	snprintf(pin, sizeof(pin), "%s%u", name, gen & 1);
	err = pin_unlink(dir, pin);
	return err && err != -ENOENT ? err : pin_put(fd, dir, pin);
}

static int text_put(const char *dir, const char *ifname, struct np_text *head, const char *text)
{
	size_t room = ZSTD_compressBound(head->len), zlen;
	char *value = malloc(sizeof(*head) + room);
	int fd, err;

	if (!value)
		return -ENOMEM;
	zlen = ZSTD_compress(value + sizeof(*head), room, text, head->len, 1);
	if (ZSTD_isError(zlen)) {
		free(value);
		return -ENOMEM;
	}
	head->zlen = zlen;
	snprintf(head->ifname, sizeof(head->ifname), "%s", ifname);
	memcpy(value, head, sizeof(*head));
	fd = map_of_value("np_text", value, sizeof(*head) + zlen);
	free(value);
	if (fd < 0)
		return fd;
	err = pin_replace(fd, dir, "text", head->gen);
	close(fd);
	return err;
}

/*
 * The flip. The same tier: one store of a pointer. Another: the table is put in place,
 * np_state names it, and when no program can still be in the old one that one goes.
 */
static int table_flip(const char *dir, int fd, __u32 tier, __u32 gen, __u32 adopt)
{
	int state_fd = pin_get(dir, "np_state"), tier_fd[NP_TIERS], err = 0;
	struct np_state old, new = { .tier = tier };
	struct timespec now;
	char name[16];
	__u32 id;

	for (__u32 t = 0; t < NP_TIERS; t++) {
		tier_name(name, t);
		tier_fd[t] = pin_get(dir, name);
		if (tier_fd[t] < 0)
			err = tier_fd[t];
	}
	if (state_fd < 0)
		err = state_fd;
	if (!err && bpf_map_lookup_elem(state_fd, &zero, &old))
		err = -errno;
	if (err)
		goto out;
	if (adopt) {
		clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
		new.adopt_until = now.tv_sec + adopt;
	}
	new.l2_len = old.l2_len;
	if (old.tier != tier)
		err = np_bodies_follow(dir, old.tier, tier, old.l2_len);
	if (!err)
		err = pin_replace(fd, dir, "table", gen);
	if (err)
		goto out;
	/* Programs that still see the old table find no flows to adopt in a time that is over. */
	if (old.tier == tier && new.adopt_until != old.adopt_until &&
	    bpf_map_update_elem(state_fd, &zero, &new, BPF_ANY))
		err = -errno;
	if (!err && bpf_map_update_elem(tier_fd[tier], &zero, &fd, BPF_ANY))
		err = -errno;
	if (err || old.tier == tier)
		goto out;
	if (bpf_map_update_elem(state_fd, &zero, &new, BPF_ANY)) {
		err = -errno;
		goto out;
	}
	/*
	 * Returns when all programs that saw the old np_state are done: see
	 * maybe_wait_bpf_programs().
	 */
	if (bpf_map_update_elem(tier_fd[tier], &zero, &fd, BPF_ANY))
		err = -errno;
	for (__u32 t = 0; !err && t < NP_TIERS; t++)
		if (t != tier && !bpf_map_lookup_elem(tier_fd[t], &zero, &id) &&
		    bpf_map_delete_elem(tier_fd[t], &zero))
			err = -errno;
out:
	for (__u32 t = 0; t < NP_TIERS; t++)
		if (tier_fd[t] >= 0)
			close(tier_fd[t]);
	if (state_fd >= 0)
		close(state_fd);
	return err;
}

/* The default and statefulness to go with the text; an exit code. */
static int settle(struct np_policy *policy, const struct np_want *want, const struct np_text *live,
		  struct np_text *head)
{
	if (policy->has_default && want->dflt >= 0 && want->dflt != (int)policy->dflt) {
		complain("%s:%u: default is %s, but --default says %s; leave one of them out",
			 want->file, policy->default_line, np_verdict_name(policy->dflt),
			 np_verdict_name(want->dflt));
		return USAGE;
	}
	if (!policy->has_default) {
		head->flags |= NP_TEXT_DEFAULT;
		if (want->dflt >= 0) {
			head->dflt = want->dflt;
		} else if (live && (live->flags & NP_TEXT_DEFAULT)) {
			head->dflt = live->dflt;
		} else {
			complain("%s: no default; add a line `default deny` (or allow, next), or "
				 "give --default",
				 want->file);
			return USAGE;
		}
	}
	if (want->stateless > 0 || (want->stateless < 0 && live && live->flags & NP_TEXT_STATELESS))
		head->flags |= NP_TEXT_STATELESS;
	policy_complete(policy, head);
	return DONE;
}

static void warn_shadowed(const char *file, const struct np_policy *policy, const __u32 *words)
{
	__u32 rules[5], n = np_table_shadowed(words, rules, ARRAY_SIZE(rules));

	for (__u32 i = 0; i < n && i < ARRAY_SIZE(rules); i++)
		complain("%s:%u: warning: no packet reaches this rule: %s", file,
			 policy->rules[rules[i]].line, policy->rules[rules[i]].text);
	if (n > ARRAY_SIZE(rules))
		complain("%s: warning: %u more rules are not reached", file,
			 n - (__u32)ARRAY_SIZE(rules));
}

static int say_error(const struct np_want *want, const struct np_error *err)
{
	fflush(stdout);
	np_error_print(stderr, want->file, want->text, want->len, err);
	return USAGE;
}

int np_load(const char *dir, const char *ifname, const struct np_want *want, bool dry_run,
	    struct np_loaded *loaded)
{
	__u32 *words = NULL, *slots = NULL, nwords, high;
	struct np_text head = { .magic = NP_TEXT_MAGIC, .len = want->len };
	struct np_policy *policy = NULL;
	struct np_live live = {};
	struct np_error perr = {};
	const char *why = NULL;
	bool *fresh = NULL, had = false;
	int err = 0, rc = DONE, tier, fd = -1;

	memset(loaded, 0, sizeof(*loaded));
	policy = want->policy;
	if (!policy)
		err = np_policy_parse(want->text, want->len, &policy, &perr);
	if (err == -EINVAL)
		return say_error(want, &perr);
	if (err)
		goto failed;
	if (want->live) {
		/* Ours from now on. */
		live = *want->live;
		memset(want->live, 0, sizeof(*want->live));
		had = true;
	} else if (dir) {
		err = np_live_read(dir, false, &live, &why);
		had = !err;
		if (err && err != -EUCLEAN && err != -ENOENT)
			goto failed;
	}
	rc = settle(policy, want, had ? &live.head : NULL, &head);
	if (rc)
		goto out;
	loaded->nrules = policy->nrules;
	loaded->dflt = policy->dflt;
	loaded->stateless = policy->stateless;
	if (had && !want->adopt && live.head.flags == head.flags && live.head.dflt == head.dflt &&
	    live.head.len == want->len && !memcmp(live.text, want->text, want->len)) {
		loaded->unchanged = true;
		loaded->gen = live.head.gen;
		loaded->bytes = 4 * live.words[NP_H_WORDS_USED];
		loaded->kept = policy->nrules;
		goto out;
	}
	if (had && !live.policy) {
		err = live_parse(&live, &why);
		if (err && err != -EUCLEAN)
			goto failed;
	}
	if (err == -EUCLEAN)
		complain("%s: what is in force cannot be read and is replaced: %s; its counters "
			 "start anew",
			 ifname, why);
	/* An unreadable table: its generation is not to be had, and must not come again. */
	head.gen = had ? live.head.gen + 1 : err == -EUCLEAN ? (__u32)time(NULL) : 1;

	slots = calloc(policy->nrules + 1ul, sizeof(*slots));
	fresh = calloc(policy->nrules + 1ul, sizeof(*fresh));
	err = slots && fresh ? np_slots_assign(policy, live.slots ? live.policy : NULL, live.slots,
					       slots, fresh, &high) : -ENOMEM;
	if (err == -ENOSPC) {
		complain("%s: no counter is free while the old and the new rules are both loaded; "
			 "load a smaller policy first, or use `count NAME`",
			 want->file);
		rc = FAILED;
		goto out;
	}
	if (!err)
		err = np_table_build(policy, slots, head.gen, &words, &nwords, &tier, &perr);
	if (err == -E2BIG) {
		rc = say_error(want, &perr);
		goto out;
	}
	if (err)
		goto failed;
	warn_shadowed(want->file, policy, words);
	for (__u32 i = 0; i < policy->nrules; i++)
		loaded->kept += !fresh[i];
	loaded->gen = head.gen;
	loaded->bytes = 4 * words[NP_H_WORDS_USED];
	if (!dir || dry_run)
		goto out;

	err = counts_prepare(dir, slots, fresh, policy->nrules, high);
	if (err)
		goto failed;
	fd = map_of_value("np_table", words, 4 * nwords);
	if (fd < 0) {
		err = fd;
		goto failed;
	}
	/* The text of a table that is live must be there before it is. */
	err = text_put(dir, ifname, &head, want->text);
	if (!err)
		err = table_flip(dir, fd, tier, head.gen, want->adopt);
	if (!err)
		goto out;
failed:
	complain_err(err, ifname, "cannot load the policy");
	rc = FAILED;
out:
	if (fd >= 0)
		close(fd);
	free(words);
	free(slots);
	free(fresh);
	np_live_free(&live);
	if (policy != want->policy)
		np_policy_free(policy);
	return rc;
}

int np_table_put(struct netpol *skel, const __u32 *words, __u32 nwords, int tier, __u32 nslots)
{
	int counts_fd = bpf_map__fd(skel->maps.np_counts), fd, err = 0, flushed;
	struct np_state state = { .tier = tier };
	struct pages new = {};
	struct bpf_map *outer;
	char name[16];

	for (__u32 page = 0; !err && page <= nslots / NP_SLOT_PAGE; page++)
		err = page_new(NULL, counts_fd, page, &new);
	flushed = pages_flush(&new, counts_fd);
	if (err || flushed)
		return err ?: flushed;
	tier_name(name, tier);
	outer = bpf_object__find_map_by_name(skel->obj, name);
	fd = map_of_value("np_table", words, 4 * nwords);
	if (fd < 0)
		return fd;
	if (bpf_map_update_elem(bpf_map__fd(outer), &zero, &fd, BPF_ANY) ||
	    bpf_map_update_elem(bpf_map__fd(skel->maps.np_state), &zero, &state, BPF_ANY))
		err = -errno;
	close(fd);
	return err;
}
