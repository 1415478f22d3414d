// SPDX-License-Identifier: GPL-2.0-only
#include <net/if.h>		/* before the headers of the kernel that define the same */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/btf.h>

#include "common.h"
#include "tproxy-inst.h"
#include "tproxy.skel.h"

const struct tp_hook_desc tp_hooks[TP_HOOKS] = {
	[TP_TCX_INGRESS] = {"tcx-ingress", BPF_TCX_INGRESS, false, true, false},
	[TP_TCX_EGRESS] = {"tcx-egress", BPF_TCX_EGRESS, true, true, true},
	[TP_NETKIT_PEER] = {"netkit-peer", BPF_NETKIT_PEER, true, true, true},
	[TP_NETKIT_PRIMARY] = {"netkit-primary", BPF_NETKIT_PRIMARY, true, false, true},
};

int tp_hook_find(const char *name)
{
	for (int i = 0; i < TP_HOOKS; i++)
		if (!strcmp(name, tp_hooks[i].name))
			return i;
	return -1;
}

bool tp_kernel_has(const char *function)
{
	static struct btf *btf;

	if (!btf)
		btf = btf__load_vmlinux_btf();
	return btf && btf__find_by_name_kind(btf, function, BTF_KIND_FUNC) > 0;
}

/* --- what is attached --- */

const char *tp_prog_name(__u32 id, char name[BPF_OBJ_NAME_LEN])
{
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);
	int fd = bpf_prog_get_fd_by_id(id);

	name[0] = 0;
	if (fd < 0)
		return name;
	if (!bpf_prog_get_info_by_fd(fd, &info, &len))
		memcpy(name, info.name, BPF_OBJ_NAME_LEN);
	close(fd);
	return name;
}

static void set_take(struct tp_set *set, const struct tproxy__rodata *c)
{
	memcpy(&set->conf, (void *)&c->conf, sizeof(set->conf));
	memcpy(set->rules, (void *)c->rules, sizeof(set->rules));
	memcpy(set->senders, (void *)c->senders, sizeof(set->senders));
	memcpy(set->names, (void *)c->sender_names, sizeof(set->names));
}

static bool set_valid(const struct tp_set *set)
{
	return set->conf.hook < TP_HOOKS && set->conf.missing <= TP_RESET &&
	       set->conf.nrules <= TP_RULES && set->conf.nsenders <= TP_SENDERS;
}

/* One of another size is of a tproxy with other constants. */
static void set_read(struct tp_inst *inst)
{
	struct tproxy__rodata *c = calloc(1, sizeof(*c));
	struct bpf_map_info info = {};
	__u32 len = sizeof(info), zero = 0;
	char pin[32];
	int fd;

	snprintf(pin, sizeof(pin), "conf%u", inst->link.prog_id);
	fd = pin_get(inst->dir, pin);
	if (c && fd >= 0 && !bpf_map_get_info_by_fd(fd, &info, &len) &&
	    info.value_size == sizeof(*c) && !bpf_map_lookup_elem(fd, &zero, c)) {
		inst->set = calloc(1, sizeof(*inst->set));
		if (inst->set)
			set_take(inst->set, c);
		if (inst->set && !set_valid(inst->set)) {
			free(inst->set);
			inst->set = NULL;
		}
	}
	if (fd >= 0)
		close(fd);
	free(c);
}

int tp_inst_open(const struct net_dev *dev, struct tp_inst *inst)
{
	struct chain chain;
	int err;

	memset(inst, 0, sizeof(*inst));
	snprintf(inst->dir, sizeof(inst->dir), "%s/ns%llu_if%u", TP_ROOT,
		 (unsigned long long)dev->netns, dev->ifindex);
	err = link_open(inst->dir, "link", &inst->link);
	if (err || inst->link.fd < 0 || !inst->link.ifindex)
		return err;
	/* a device that moved to another namespace took the link along */
	for (int i = 0; !inst->there && i < TP_HOOKS; i++) {
		if (chain_get(dev->ifindex, tp_hooks[i].type, &chain))
			continue;
		for (__u32 k = 0; k < chain.n; k++)
			inst->there |= chain.links[k] == inst->link.id;
	}
	if (inst->there)
		set_read(inst);
	return 0;
}

void tp_inst_close(struct tp_inst *inst)
{
	link_close(&inst->link);
	free(inst->set);
	inst->set = NULL;
}

int tp_inst_get(const struct net_dev *dev, struct tp_inst *inst)
{
	int err = tp_inst_open(dev, inst);

	if (err) {
		complain_err(err, dev->name, "cannot open its pins");
	} else if (!inst->there) {
		complain("%s: nothing is attached", dev->name);
		tp_inst_close(inst);
		return NOTHING;
	} else if (!inst->set) {
		complain("%s: its program is of another tproxy; attach it anew", dev->name);
	} else {
		return DONE;
	}
	tp_inst_close(inst);
	return FAILED;
}

/* --- attach --- */

static struct bpf_map **shared(struct tproxy *skel, int i)
{
	struct bpf_map **maps[] = {&skel->maps.tp_stats, &skel->maps.tp_listeners,
				   &skel->maps.tp_reader, &skel->maps.tp_log};

	return i < (int)ARRAY_SIZE(maps) ? maps[i] : NULL;
}

static int load(const struct tp_inst *inst, const struct tp_set *set, struct tproxy **out)
{
	struct tproxy *skel = tproxy__open();
	struct bpf_map **map;
	int err = skel ? 0 : -errno;

	*out = skel;
	if (err)
		return err;
	bpf_program__set_expected_attach_type(skel->progs.tproxy_divert,
					      tp_hooks[set->conf.hook].type);
	memcpy((void *)&skel->rodata->conf, &set->conf, sizeof(set->conf));
	memcpy((void *)skel->rodata->rules, set->rules, sizeof(set->rules));
	memcpy((void *)skel->rodata->senders, set->senders, sizeof(set->senders));
	memcpy((void *)skel->rodata->sender_names, set->names, sizeof(set->names));
	for (int i = 0; !err && inst->there && (map = shared(skel, i)); i++) {
		int fd = pin_get(inst->dir, bpf_map__name(*map));

		if (fd < 0)
			return fd;
		err = bpf_map__reuse_fd(*map, fd);
		close(fd);
	}
	return err ?: tproxy__load(skel);
}

static int prog_info(int fd, __u32 *id, char tag[LINK_TAG])
{
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);

	if (bpf_prog_get_info_by_fd(fd, &info, &len))
		return -errno;
	*id = info.id;
	for (int i = 0; i < BPF_TAG_SIZE; i++)
		sprintf(tag + 2 * i, "%02x", info.tag[i]);
	return 0;
}

static int pin_conf(const struct tproxy *skel, const char *dir, __u32 id)
{
	char pin[32];

	snprintf(pin, sizeof(pin), "conf%u", id);
	return pin_put(bpf_map__fd(skel->maps.rodata), dir, pin);
}

/* Files of a directory that are of no use. */
static int stale(const char *dir, __u32 prog_id, bool dry_run, unsigned int *n)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	char live[32];
	int err = 0;

	if (!d)
		return -errno;
	snprintf(live, sizeof(live), "conf%u", prog_id);
	while (!err && (e = readdir(d))) {
		if (strncmp(e->d_name, "conf", 4) || !strcmp(e->d_name, live))
			continue;
		(*n)++;
		if (!dry_run && unlinkat(dirfd(d), e->d_name, 0))
			err = -errno;
	}
	closedir(d);
	return err;
}

/* Behind what is there, since policies shall see all, but in front of what redirects. */
static int attach(const struct net_dev *dev, int prog, const struct tp_hook_desc *hook, bool first)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts);
	char name[BPF_OBJ_NAME_LEN];
	struct chain chain;
	int fd;

	if (first) {
		opts.flags = BPF_F_BEFORE;
	} else if (!chain_get(dev->ifindex, hook->type, &chain)) {
		for (__u32 i = 0; i < chain.n; i++) {
			if (strncmp(tp_prog_name(chain.ids[i], name), "podlink_", 8))
				continue;
			opts.flags = BPF_F_BEFORE | BPF_F_ID | (chain.links[i] ? BPF_F_LINK : 0);
			/* the members of .netkit lie where those of .tcx do */
			opts.tcx.relative_id = chain.links[i] ?: chain.ids[i];
			break;
		}
	}
	fd = bpf_link_create(prog, dev->ifindex, hook->type, &opts);
	return fd < 0 ? -errno : fd;
}

static int attach_refused(const struct net_dev *dev, const struct tp_hook_desc *hook, int err)
{
	bool netkit = hook->type == BPF_NETKIT_PEER || hook->type == BPF_NETKIT_PRIMARY;

	if (netkit && (err == -ENXIO || err == -EACCES))
		complain("%s: %s is for the primary device of a netkit pair, which this is not",
			 dev->name, hook->name);
	else
		complain_err(err, dev->name, "cannot attach to %s", hook->name);
	return FAILED;
}

/* Nothing is there, but may be of one that was killed. */
static int put_new(const struct net_dev *dev, struct tp_inst *inst, const struct tp_set *set,
		   struct tproxy *skel, __u32 id, bool first)
{
	const struct tp_hook_desc *hook = &tp_hooks[set->conf.hook];
	struct bpf_map **map;
	int err, fd = -1;

	err = tp_inst_remove(inst);
	if (err)
		return FAILED;
	if (mkdir(inst->dir, 0755))
		err = -errno;
	for (int i = 0; !err && (map = shared(skel, i)); i++)
		err = pin_put(bpf_map__fd(*map), inst->dir, bpf_map__name(*map));
	if (!err)
		err = pin_conf(skel, inst->dir, id);
	if (err) {
		complain_err(err, inst->dir, "cannot create the pins");
	} else {
		fd = attach(dev, bpf_program__fd(skel->progs.tproxy_divert), hook, first);
		if (fd < 0) {
			err = fd;
			attach_refused(dev, hook, err);
		} else {
			err = pin_put(fd, inst->dir, "link");
			if (err)
				complain_err(err, inst->dir, "cannot pin the link");
			close(fd);
		}
	}
	if (err)
		pin_dir_remove(inst->dir);
	return err ? FAILED : DONE;
}

int tp_inst_put(const struct net_dev *dev, struct tp_inst *inst, const struct tp_set *wanted,
		bool first, bool *changed)
{
	struct tp_set *set = malloc(sizeof(*set));
	struct tproxy *skel = NULL;
	unsigned int n = 0;
	char tag[LINK_TAG] = "";
	int len = arphrd_l2_len(dev->arphrd), err, rc = FAILED;
	__u32 id = 0;

	if (!set)
		return FAILED;
	if (len < 0) {
		complain("%s: is of a kind (ARPHRD %u) whose packets tproxy cannot read", dev->name,
			 dev->arphrd);
		goto out;
	}
	memcpy(set, wanted, sizeof(*set));
	set->conf.l2_len = len;
	err = load(inst, set, &skel);
	if (!err)
		err = prog_info(bpf_program__fd(skel->progs.tproxy_divert), &id, tag);
	if (err) {
		complain_err(err, dev->name, "cannot load the program%s",
			     err == -EACCES ? " (without CAP_PERFMON the verifier refuses it)" :
			     asked.verbose < 2 ? " (-vv shows more)" :
						 "");
		goto out;
	}
	*changed = !inst->there || !inst->set || strcmp(tag, inst->link.tag) ||
		   memcmp(inst->set, set, sizeof(*set));
	rc = DONE;
	if (!*changed || asked.dry_run)
		goto out;
	if (!inst->there) {
		rc = put_new(dev, inst, set, skel, id, first);
		goto out;
	}
	err = pin_conf(skel, inst->dir, id);
	if (!err)
		err = bpf_link_update(inst->link.fd, bpf_program__fd(skel->progs.tproxy_divert),
				      NULL);
	if (!err)
		err = stale(inst->dir, id, false, &n);
	if (err) {
		complain_err(err, dev->name, "cannot replace the program");
		rc = FAILED;
	}
out:
	tproxy__destroy(skel);
	free(set);
	return rc;
}

int tp_inst_remove(struct tp_inst *inst)
{
	int err = inst->link.fd >= 0 ? pin_unlink(inst->dir, "link") : 0;

	link_close(&inst->link);
	if (!err)
		err = pin_dir_remove(inst->dir);
	if (!err)
		return DONE;
	complain_err(err, inst->dir, "cannot remove the pins");
	return FAILED;
}

/* --- what is dead --- */

/* One of this namespace. dev->name is empty where it is not alive. */
static int sweep_own(struct net_dev *dev, bool dry_run, struct tp_dead *dead, bool *routed)
{
	struct tp_inst inst;
	int err, rc = DONE;

	if (!if_indextoname(dev->ifindex, dev->name))
		dev->name[0] = 0;
	err = tp_inst_open(dev, &inst);
	if (err) {
		complain_err(err, inst.dir, "cannot look at the pins");
		rc = FAILED;
	} else if (!dev->name[0] || !inst.there) {
		dev->name[0] = 0;
		dead->dead++;
		rc = dry_run ? DONE : tp_inst_remove(&inst);
	} else {
		/* one that cannot be read may need them */
		*routed = !inst.set || tp_hooks[inst.set->conf.hook].routed;
		stale(inst.dir, inst.link.prog_id, dry_run, &dead->stale);
	}
	tp_inst_close(&inst);
	return rc;
}

static int sweep_other(const char *name, bool dry_run, struct tp_dead *dead)
{
	struct tp_inst inst = {.link.fd = -1};
	int err, rc = DONE;

	if (!pin_path(inst.dir, TP_ROOT, name))
		return DONE;
	err = link_open(inst.dir, "link", &inst.link);
	/* a device that lives in a namespace we are not in has its link there */
	if (!err && !inst.link.ifindex) {
		dead->others++;
		rc = dry_run ? DONE : tp_inst_remove(&inst);
	}
	tp_inst_close(&inst);
	return rc;
}

int tp_sweep(struct tp_net *net, bool dry_run, struct tp_dead *dead)
{
	__u64 here = netns_cookie();
	struct tp_name *alive = NULL;
	size_t n = 0;
	DIR *d = opendir(TP_ROOT);
	struct dirent *e;
	int rc = DONE;

	memset(dead, 0, sizeof(*dead));
	while (!rc && d && (e = readdir(d))) {
		unsigned long long netns;
		struct net_dev dev = {};
		bool routed = false;
		void *more;
		int end = 0;

		if (sscanf(e->d_name, "ns%llu_if%u%n", &netns, &dev.ifindex, &end) != 2 ||
		    e->d_name[end])
			continue;
		dev.netns = netns;
		if (netns != here) {
			rc = sweep_other(e->d_name, dry_run, dead);
			continue;
		}
		rc = sweep_own(&dev, dry_run, dead, &routed);
		if (rc || !dev.name[0] || !routed)
			continue;
		more = realloc(alive, (n + 1) * sizeof(*alive));
		if (!more) {
			rc = FAILED;
			break;
		}
		alive = more;
		memcpy(alive[n++].dev, dev.name, sizeof(alive->dev));
	}
	if (d)
		closedir(d);
	if (!rc)
		rc = tp_net_sweep(net, alive, n, dry_run, &dead->routes);
	free(alive);
	return rc;
}
