// SPDX-License-Identifier: GPL-2.0-only
/*
 * record: programs at the root cgroup that keep what each socket dialled and reached. Links
 * and maps are pinned. What puts records in is attached last and goes first, so that there is
 * never a record that nobody would remove.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <linux/magic.h>

#include "sockkill-backends.h"
#include "sockkill-verbs.h"
#include "sockkill.skel.h"

#define DIR_RECORDS SK_ROOT "/records"

/* In the order of attaching. */
enum { RELEASE, REACH4, REACH6, DIAL4, DIAL6, LINKS };

static const char *const links[LINKS] = {"release", "reach4", "reach6", "dial4", "dial6"};

static bool is_on(void)
{
	char path[PIN_PATH];

	return pin_path(path, DIR_RECORDS, links[DIAL6]) && !access(path, F_OK);
}

int sk_records_open(void)
{
	return is_on() ? pin_get(DIR_RECORDS, "records") : -ENOENT;
}

/* The root of cgroup2, which a hybrid hierarchy has elsewhere. */
static int cgroup_root(void)
{
	static const char *const roots[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
	struct statfs st;
	int fd;

	for (size_t i = 0; i < ARRAY_SIZE(roots); i++) {
		if (statfs(roots[i], &st) || st.f_type != CGROUP2_SUPER_MAGIC)
			continue;
		fd = open(roots[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		return fd < 0 ? -errno : fd;
	}
	return -ENOENT;
}

static int attach(struct bpf_program *prog, int cgroup, int i)
{
	/* in front of all other programs, of all cgroups, where the kernel can (6.16) */
	LIBBPF_OPTS(bpf_cgroup_opts, opts, .flags = i >= DIAL4 ? BPF_F_PREORDER : 0);
	struct bpf_link *link = bpf_program__attach_cgroup_opts(prog, cgroup, &opts);
	int err;

	if (!link && i >= DIAL4) {
		opts.flags = 0;
		link = bpf_program__attach_cgroup_opts(prog, cgroup, &opts);
		if (link && i == DIAL4)
			complain("record: this kernel cannot put it in front of programs that "
				 "translate addresses: services are not known (Linux 6.16)");
	}
	if (!link)
		return -errno;
	err = pin_put(bpf_link__fd(link), DIR_RECORDS, links[i]);
	bpf_link__destroy(link);
	return err;
}

static int remove_all(void)
{
	int err = 0;

	for (int i = LINKS; !err && i--;) {
		err = pin_unlink(DIR_RECORDS, links[i]);
		if (err == -ENOENT)
			err = 0;
	}
	return err ?: pin_dir_remove(DIR_RECORDS);
}

static int turn_on(void)
{
	struct sockkill *skel = sockkill__open();
	int err = skel ? 0 : -errno, cgroup = -1;
	struct bpf_program *prog;

	if (!err) {
		bpf_object__for_each_program(prog, skel->obj)
			bpf_program__set_autoload(prog, false);
		struct bpf_program *const progs[LINKS] = {
			skel->progs.sockkill_release, skel->progs.sockkill_reach4,
			skel->progs.sockkill_reach6, skel->progs.sockkill_dial4,
			skel->progs.sockkill_dial6,
		};

		for (int i = 0; i < LINKS; i++)
			bpf_program__set_autoload(progs[i], true);
		bpf_map__set_max_entries(skel->maps.sk_records, env.records);
		err = sockkill__load(skel);
		if (!err) {
			cgroup = cgroup_root();
			err = cgroup < 0 ? cgroup : 0;
		}
		/* of one that was killed half-way */
		err = err ?: remove_all();
		if (!err && mkdir(DIR_RECORDS, 0700))
			err = -errno;
		err = err ?: pin_put(bpf_map__fd(skel->maps.sk_records), DIR_RECORDS, "records");
		err = err ?: pin_put(bpf_map__fd(skel->maps.sk_recorder), DIR_RECORDS, "recorder");
		for (int i = 0; !err && i < LINKS; i++)
			err = attach(progs[i], cgroup, i);
	}
	if (cgroup >= 0)
		close(cgroup);
	sockkill__destroy(skel);
	if (!err)
		return DONE;
	complain_err(err, "record", "cannot turn the recorder on");
	err = remove_all();
	if (err)
		complain_err(err, DIR_RECORDS, "cannot remove what is there already");
	return FAILED;
}

static int turn(bool on)
{
	int lock, rc = pins_change(SK_ROOT, &lock), err;

	if (!rc && on != is_on()) {
		change("recorder", on ? "turn on" : "turn off");
		if (!asked.dry_run && on) {
			rc = turn_on();
		} else if (!asked.dry_run) {
			err = remove_all();
			if (err) {
				complain_err(err, DIR_RECORDS, "cannot remove");
				rc = FAILED;
			}
		}
	}
	pins_unlock(lock);
	return report("object", "recorder", rc);
}

/* --- show --- */

static json_t *record_json(__u64 cookie, const struct sk_record *r)
{
	char dialled[SK_ENDPOINT_LEN], reached[SK_ENDPOINT_LEN], text[20];

	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)cookie);
	return json_pack("{s:s, s:s, s:s, s:I, s:o}", "cookie", text, "dialled",
			 sk_endpoint_text(dialled, &r->dialled), "reached",
			 r->time ? sk_endpoint_text(reached, &r->reached) : "", "pid",
			 (json_int_t)r->pid, "command", json_string(r->comm) ?: json_string("?"));
}

static int show_records(int fd, const struct sk_recorder *count)
{
	char dialled[SK_ENDPOINT_LEN], reached[SK_ENDPOINT_LEN];
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);
	__u64 key, *prev = NULL, n = 0;
	json_t *all = json_array();
	struct sk_record r;

	if (bpf_map_get_info_by_fd(fd, &info, &len)) {
		complain_err(errno, "records", "cannot read");
		json_decref(all);
		return FAILED;
	}
	/* a record that goes meanwhile sends the walk back to the begin: so many steps, no more */
	for (__u64 i = 0; i < 2ull * info.max_entries; i++) {
		if (bpf_map_get_next_key(fd, prev, &key))
			break;
		prev = &key;
		if (bpf_map_lookup_elem(fd, &key, &r))
			continue;
		n++;
		if (asked.json) {
			json_array_append_new(all, record_json(key, &r));
			continue;
		}
		printf("cookie %llx: %s reached %s, pid %u (%s)\n", (unsigned long long)key,
		       sk_endpoint_text(dialled, &r.dialled),
		       r.time ? sk_endpoint_text(reached, &r.reached) : "nothing yet", r.pid,
		       r.comm);
	}
	if (asked.json)
		return json_out(json_pack("{s:b, s:I, s:I, s:I, s:o}", "on", true, "room",
					  (json_int_t)info.max_entries, "recorded",
					  (json_int_t)count->recorded, "lost",
					  (json_int_t)count->lost, "records", all));
	json_decref(all);
	printf("%llu records of %u, %llu connects recorded, %llu lost for want of room\n",
	       (unsigned long long)n, info.max_entries, (unsigned long long)count->recorded,
	       (unsigned long long)count->lost);
	return DONE;
}

static int show(void)
{
	int records = sk_records_open(), counts = -1, rc = FAILED;
	struct sk_recorder count = {};
	__u32 zero = 0;

	if (records == -ENOENT) {
		if (asked.json)
			return json_out(json_pack("{s:b}", "on", false));
		puts("the recorder is off");
		return DONE;
	}
	if (records >= 0)
		counts = pin_get(DIR_RECORDS, "recorder");
	if (counts < 0 || bpf_map_lookup_elem(counts, &zero, &count))
		complain_err(records < 0 ? records : counts < 0 ? counts : errno, "records",
			     "cannot read");
	else
		rc = show_records(records, &count);
	if (records >= 0)
		close(records);
	if (counts >= 0)
		close(counts);
	return rc;
}

int verb_record(int argc, char **argv)
{
	if (argc == 1 && !strcmp(argv[0], "on"))
		return turn(true);
	if (argc == 1 && !strcmp(argv[0], "off"))
		return turn(false);
	if (argc == 1 && !strcmp(argv[0], "show"))
		return show();
	return usage_error("record", "takes on, off or show");
}
