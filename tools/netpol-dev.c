// SPDX-License-Identifier: GPL-2.0-only
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/pkt_sched.h>
#include <bpf/bpf.h>
#include <tc-user.h>
#include <ynl.h>

#include "common.h"
#include "netpol-dev.h"
#include "netpol.skel.h"

const struct np_hook_desc np_hooks[NP_HOOKS] = {
	[NP_TCX_INGRESS] = { "tcx-ingress", "netpol_tcx_ingress", "body_tcx_ingress", "jump_in",
			     "link_tcx_ingress", BPF_TCX_INGRESS, BPF_TC_INGRESS },
	[NP_TCX_EGRESS] = { "tcx-egress", "netpol_tcx_egress", "body_tcx_egress", "jump_out",
			    "link_tcx_egress", BPF_TCX_EGRESS, BPF_TC_EGRESS },
	[NP_PRIMARY] = { "netkit-primary", "netpol_primary", "body_primary", "jump_primary",
			 "link_netkit_primary", BPF_NETKIT_PRIMARY, 0 },
	[NP_PEER] = { "netkit-peer", "netpol_peer", "body_peer", "jump_peer",
		      "link_netkit_peer", BPF_NETKIT_PEER, 0 },
};

int np_hook_find(const char *name)
{
	for (int i = 0; i < NP_HOOKS; i++)
		if (!strcmp(name, np_hooks[i].name))
			return i;
	return -1;
}

/* --- directories of pins --- */

static bool half_made_name(const char *name)
{
	return !strncmp(name, "new_", 4) || !strncmp(name, "old_", 4);
}

int np_dir_remove(const char *name)
{
	char dir[PIN_PATH], gone[PIN_PATH];
	int err;

	if (!pin_path(dir, NP_ROOT, name))
		return -ENAMETOOLONG;
	if (!half_made_name(name)) {
		/* A name that is taken was left by a removal that was killed. */
		if (snprintf(gone, sizeof(gone), "%s/old_%s", NP_ROOT, name) >= PIN_PATH)
			return -ENAMETOOLONG;
		err = access(gone, F_OK) ? 0 : np_dir_remove(gone + strlen(NP_ROOT) + 1);
		if (err)
			return err;
		if (rename(dir, gone))
			return -errno;
		memcpy(dir, gone, sizeof(dir));
	}
	return pin_dir_remove(dir);
}

void np_dir_list_free(char **names)
{
	for (char **n = names; n && *n; n++)
		free(*n);
	free(names);
}

int np_dir_list(bool half_made, char ***names)
{
	char **list = calloc(1, sizeof(*list)), **more;
	DIR *d = opendir(NP_ROOT);
	size_t n = 0;
	struct dirent *e;
	int err = 0;
	__u64 netns;
	__u32 ifindex;

	if (!list)
		err = -ENOMEM;
	else if (!d && errno != ENOENT)
		err = -errno;
	while (!err && d && (e = readdir(d))) {
		if (half_made ? !half_made_name(e->d_name) :
				!np_inst_parse(e->d_name, &netns, &ifindex))
			continue;
		more = realloc(list, (n + 2) * sizeof(*list));
		if (more) {
			list = more;
			list[n] = strdup(e->d_name);
			list[n + 1] = NULL;
		}
		if (!more || !list[n++])
			err = -ENOMEM;
	}
	if (d)
		closedir(d);
	if (err) {
		np_dir_list_free(list);
		list = NULL;
	}
	*names = list;
	return err;
}

/* --- instances --- */

bool np_inst_parse(const char *name, __u64 *netns, __u32 *ifindex)
{
	unsigned long long cookie;
	unsigned int index;
	int end = 0;

	if (sscanf(name, "ns%llu_if%u%n", &cookie, &index, &end) != 2 || name[end])
		return false;
	*netns = cookie;
	*ifindex = index;
	return true;
}

int np_inst_open(const char *name, struct np_inst *inst)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);
	int fd, err = 0;

	memset(inst, 0, sizeof(*inst));
	for (int i = 0; i < NP_HOOKS; i++)
		inst->link[i].fd = -1;
	if (snprintf(inst->name, sizeof(inst->name), "%s", name) >= (int)sizeof(inst->name) ||
	    !pin_path(inst->dir, NP_ROOT, name))
		return -ENAMETOOLONG;
	fd = pin_get(inst->dir, "np_state");
	if (fd < 0)
		return fd == -ENOENT && access(inst->dir, F_OK) ? 0 : fd;
	inst->exists = true;
	if (bpf_map_get_info_by_fd(fd, &info, &len))
		err = -errno;
	inst->state_id = info.id;
	close(fd);
	for (int i = 0; !err && i < NP_HOOKS; i++)
		err = link_open(inst->dir, np_hooks[i].pin, &inst->link[i]);
	return err;
}

void np_inst_close(struct np_inst *inst)
{
	for (int i = 0; i < NP_HOOKS; i++)
		link_close(&inst->link[i]);
}

bool np_inst_links_dead(const struct np_inst *inst)
{
	bool any = false;

	for (int i = 0; i < NP_HOOKS; i++) {
		if (inst->link[i].fd >= 0 && inst->link[i].ifindex)
			return false;
		any |= inst->link[i].fd >= 0;
	}
	return any;
}

/* Whether the live links of an instance are at this device; false as well if there are none. */
static bool inst_is_at(const struct np_inst *inst, const struct net_dev *dev)
{
	struct chain chain;

	for (int i = 0; i < NP_HOOKS; i++) {
		const struct pinned_link *link = &inst->link[i];

		/* The kernel tells the ifindex of the netkit device whose packets are seen. */
		if (link->fd < 0 || !link->ifindex ||
		    (i != NP_PEER && link->ifindex != dev->ifindex) ||
		    chain_get(dev->ifindex, np_hooks[i].type, &chain))
			continue;
		for (__u32 k = 0; k < chain.n; k++)
			if (chain.links[k] == link->id)
				return true;
	}
	return false;
}

static bool inst_has_live_link(const struct np_inst *inst)
{
	for (int i = 0; i < NP_HOOKS; i++)
		if (inst->link[i].fd >= 0 && inst->link[i].ifindex)
			return true;
	return false;
}

int np_inst_of(const struct net_dev *dev, struct np_inst *inst)
{
	char name[64], **names;
	int err;

	snprintf(name, sizeof(name), "ns%llu_if%u", (unsigned long long)dev->netns, dev->ifindex);
	err = np_inst_open(name, inst);
	if (err)
		return err;
	if (inst->exists)
		return inst_has_live_link(inst) && !inst_is_at(inst, dev) ? -ESTALE : 0;

	/* A device takes its links along to another network namespace. */
	err = np_dir_list(false, &names);
	for (char **n = names; !err && n && *n; n++) {
		np_inst_close(inst);
		if (!np_inst_open(*n, inst) && inst->exists && inst_is_at(inst, dev)) {
			inst->moved = true;
			break;
		}
	}
	np_dir_list_free(names);
	if (!err && !inst->moved) {
		np_inst_close(inst);
		err = np_inst_open(name, inst);
	}
	return err;
}

/* --- what is attached --- */

static void tag_hex(char hex[17], const __u8 *tag)
{
	for (int i = 0; i < BPF_TAG_SIZE; i++)
		sprintf(hex + 2 * i, "%02x", tag[i]);
}

static bool map_is_state(__u32 id)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);
	int fd = bpf_map_get_fd_by_id(id);
	bool yes;

	if (fd < 0)
		return false;
	yes = !bpf_map_get_info_by_fd(fd, &info, &len) && !strcmp(info.name, "np_state");
	close(fd);
	return yes;
}

int np_prog_get(__u32 id, const struct np_inst *inst, struct np_prog *prog)
{
	struct bpf_prog_info info = {};
	__u32 ids[64] = {}, len = sizeof(info);
	int fd = bpf_prog_get_fd_by_id(id), err = 0;

	prog->id = id;
	if (fd < 0)
		return -errno;
	info.map_ids = (__u64)(unsigned long)ids;
	info.nr_map_ids = ARRAY_SIZE(ids);
	if (bpf_prog_get_info_by_fd(fd, &info, &len))
		err = -errno;
	close(fd);
	if (err)
		return err;
	prog->known = true;
	memcpy(prog->name, info.name, sizeof(prog->name));
	tag_hex(prog->tag, info.tag);
	if (info.nr_map_ids > ARRAY_SIZE(ids))
		info.nr_map_ids = ARRAY_SIZE(ids);
	for (__u32 i = 0; i < info.nr_map_ids; i++) {
		if (inst && inst->exists && ids[i] == inst->state_id)
			prog->owner = NP_OURS;
	}
	for (__u32 i = 0; prog->owner == NP_FOREIGN && i < info.nr_map_ids; i++)
		if (!strncmp(info.name, "netpol_", 7) && map_is_state(ids[i]))
			prog->owner = NP_STRAY;
	return 0;
}

int np_chain_get(const struct net_dev *dev, enum np_hook hook, const struct np_inst *inst,
		 struct np_chain *chain)
{
	struct chain all;
	int err = chain_get(dev->ifindex, np_hooks[hook].type, &all);

	memset(chain, 0, sizeof(*chain));
	if (err)
		return err;
	chain->revision = all.revision;
	chain->n = all.n;
	for (__u32 i = 0; i < chain->n; i++) {
		struct np_prog *prog = &chain->prog[i];

		prog->link_id = all.links[i];
		/* Without inst only the order is asked for. EPERM: the id is all one can know. */
		if (!inst)
			prog->id = all.ids[i];
		else
			np_prog_get(all.ids[i], inst, prog);
		if (inst && inst->exists && inst->link[hook].fd >= 0 &&
		    inst->link[hook].id == all.links[i]) {
			prog->owner = NP_OURS;
			memcpy(prog->tag, inst->link[hook].tag, sizeof(prog->tag));
		}
	}
	return 0;
}

static int filter_cmp(const void *a, const void *b)
{
	const struct np_filter *x = a, *y = b;

	if (x->chain != y->chain)
		return x->chain < y->chain ? -1 : 1;
	return x->prio < y->prio ? -1 : x->prio > y->prio;
}

static void filter_fill(struct np_filter *f, const struct tc_gettfilter_rsp *rsp,
			const struct np_inst *inst)
{
	const struct tc_bpf_attrs *bpf = &rsp->options.bpf;

	f->handle = rsp->_hdr.tcm_handle;
	f->prio = TC_H_MAJ(rsp->_hdr.tcm_info) >> 16;
	f->chain = rsp->_present.chain ? rsp->chain : 0;
	snprintf(f->kind, sizeof(f->kind), "%s", rsp->kind ?: "");
	if (!rsp->_present.options || !rsp->options._present.bpf)
		return;
	if (bpf->_present.id && !np_prog_get(bpf->id, inst, &f->prog))
		return;
	/* Without CAP_SYS_ADMIN the name has to do. */
	f->prog.id = bpf->_present.id ? bpf->id : 0;
	if (bpf->name)
		snprintf(f->prog.name, sizeof(f->prog.name), "%.15s", bpf->name);
	if (bpf->_len.tag >= BPF_TAG_SIZE)
		tag_hex(f->prog.tag, bpf->tag);
	if (inst && inst->exists && !strncmp(f->prog.name, "netpol_tcx_", 11))
		f->prog.owner = NP_OURS;
}

int np_filters_get(const struct net_dev *dev, enum np_hook hook, const struct np_inst *inst,
		   struct np_filter **filters, __u32 *n)
{
	struct tc_gettfilter_req_dump *req = NULL;
	struct tc_gettfilter_list *list = NULL;
	struct np_filter *out = NULL, *more;
	struct ynl_error yerr = {};
	struct ynl_sock *ys;
	int err = 0;

	*filters = NULL;
	*n = 0;
	if (!np_hooks[hook].legacy)
		return 0;
	ys = ynl_sock_create(&ynl_tc_family, &yerr);
	if (!ys)
		return yerr.code && yerr.code < __YNL_ERRNO_END ? -(int)yerr.code : -EIO;
	req = tc_gettfilter_req_dump_alloc();
	if (!req) {
		err = -ENOMEM;
		goto out;
	}
	req->_hdr.tcm_ifindex = dev->ifindex;
	req->_hdr.tcm_parent = TC_H_MAKE(TC_H_CLSACT, np_hooks[hook].legacy == BPF_TC_INGRESS ?
					 TC_H_MIN_INGRESS : TC_H_MIN_EGRESS);
	list = tc_gettfilter_dump(ys, req);
	if (!list) {
		err = ys->err.code && ys->err.code < __YNL_ERRNO_END ? -(int)ys->err.code : -EIO;
		/* A kernel without tc has no filters. */
		if (err == -EOPNOTSUPP)
			err = 0;
		goto out;
	}
	ynl_dump_foreach(list, rsp) {
		/* Handle 0 stands for a priority as a whole. */
		if (!rsp->_hdr.tcm_handle)
			continue;
		more = realloc(out, (*n + 1) * sizeof(*out));
		if (!more) {
			err = -ENOMEM;
			break;
		}
		out = more;
		memset(&out[*n], 0, sizeof(*out));
		filter_fill(&out[(*n)++], rsp, inst);
	}
	if (*n)
		qsort(out, *n, sizeof(*out), filter_cmp);
out:
	if (list)
		tc_gettfilter_list_free(list);
	tc_gettfilter_req_dump_free(req);
	ynl_sock_destroy(ys);
	if (err) {
		free(out);
		out = NULL;
		*n = 0;
	}
	*filters = out;
	return err;
}

const struct np_filter *np_filter_ours(const struct np_filter *filters, __u32 n)
{
	for (__u32 i = 0; i < n; i++)
		if (filters[i].prog.owner == NP_OURS)
			return &filters[i];
	return NULL;
}

/* --- attaching --- */

/* Every map comes from its pin, or goes to it. */
static int maps_by_pin(struct bpf_object *obj, const char *dir, __u32 flows)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);
	struct bpf_map *map;
	char path[PIN_PATH];
	int fd, err;

	bpf_object__for_each_map(map, obj) {
		const char *name = bpf_map__name(map);

		if (bpf_map__is_internal(map))
			continue;
		if (!pin_path(path, dir, name))
			return -ENAMETOOLONG;
		err = bpf_map__set_pin_path(map, path);
		if (err)
			return err;
		if (strcmp(name, "np_flows"))
			continue;
		/* Its size is up to whoever made it. */
		fd = bpf_obj_get(path);
		if (fd >= 0) {
			err = bpf_map_get_info_by_fd(fd, &info, &len) ? -errno : 0;
			close(fd);
			if (err)
				return err;
			flows = info.max_entries;
		}
		if (flows) {
			err = bpf_map__set_max_entries(map, flows);
			if (err)
				return err;
		}
	}
	return 0;
}

/* Only this program of the object is to be loaded; NULL: there is none of the name. */
static struct bpf_program *only_program(struct netpol *skel, const char *name)
{
	struct bpf_program *p, *found = NULL;

	bpf_object__for_each_program(p, skel->obj) {
		bool wanted = !strcmp(bpf_program__name(p), name);

		bpf_program__set_autoload(p, wanted);
		if (wanted)
			found = p;
	}
	return found;
}

static int maps_by_fd(struct netpol *skel, const struct netpol *like)
{
	struct bpf_map *map, *other;
	int err;

	bpf_object__for_each_map(map, skel->obj) {
		if (bpf_map__is_internal(map))
			continue;
		other = bpf_object__find_map_by_name(like->obj, bpf_map__name(map));
		err = other ? bpf_map__reuse_fd(map, bpf_map__fd(other)) : -ENOENT;
		if (err)
			return err;
	}
	return 0;
}

static int prog_tag(int fd, __u8 tag[BPF_TAG_SIZE])
{
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);

	if (bpf_prog_get_info_by_fd(fd, &info, &len))
		return -errno;
	memcpy(tag, info.tag, BPF_TAG_SIZE);
	return 0;
}

/* Of the object and of the constants that a body is loaded with (FNV-1a); never 0. */
static __u64 body_hash(__u32 tier, __u32 l2_len)
{
	__u64 hash = 0xcbf29ce484222325;
	const __u8 *elf;
	size_t size;

	elf = netpol__elf_bytes(&size);
	for (size_t i = 0; i < size; i++)
		hash = (hash ^ elf[i]) * 0x100000001b3;
	hash = (hash ^ tier) * 0x100000001b3;
	hash = (hash ^ l2_len) * 0x100000001b3;
	return hash ?: 1;
}

/* Verification is most of the cost of an attach: not again for a body that is there. */
static bool body_there(const char *dir, enum np_hook hook, __u32 tier, __u64 hash)
{
	int jump = pin_get(dir, np_hooks[hook].jump), notes = pin_get(dir, "np_bodies");
	__u32 slot = hook * NP_TIERS + tier, id;
	__u64 note;
	bool there = jump >= 0 && notes >= 0 && !bpf_map_lookup_elem(jump, &tier, &id) &&
		     !bpf_map_lookup_elem(notes, &slot, &note) && note == hash;

	if (jump >= 0)
		close(jump);
	if (notes >= 0)
		close(notes);
	return there;
}

int np_body_put(const char *dir, const struct netpol *like, enum np_hook hook, __u32 tier,
		__u32 l2_len)
{
	__u64 hash = body_hash(tier, l2_len), none = 0;
	__u32 slot = hook * NP_TIERS + tier;
	struct bpf_program *body;
	int err, fd, jump, notes;
	struct netpol *skel;

	if (dir && body_there(dir, hook, tier, hash))
		return 0;
	skel = netpol__open();
	if (!skel)
		return -errno;
	skel->rodata->l2_len = l2_len;
	skel->rodata->tier = tier;
	body = only_program(skel, np_hooks[hook].body);
	err = !body ? -ENOENT : dir ? maps_by_pin(skel->obj, dir, 0) : maps_by_fd(skel, like);
	if (!err)
		err = netpol__load(skel);
	if (err)
		goto out;
	fd = bpf_program__fd(body);
	jump = bpf_map__fd(bpf_object__find_map_by_name(skel->obj, np_hooks[hook].jump));
	notes = bpf_map__fd(skel->maps.np_bodies);
	/* Killed in between, the note says nothing rather than something wrong. */
	if (bpf_map_update_elem(notes, &slot, &none, BPF_ANY) ||
	    bpf_map_update_elem(jump, &tier, &fd, BPF_ANY) ||
	    bpf_map_update_elem(notes, &slot, &hash, BPF_ANY))
		err = -errno;
out:
	netpol__destroy(skel);
	return err;
}

int np_bodies_follow(const char *dir, __u32 from, __u32 to, __u32 l2_len)
{
	int err = 0;

	for (int hook = 0; !err && hook < NP_HOOKS; hook++) {
		int jump = pin_get(dir, np_hooks[hook].jump);
		__u32 id;

		if (jump < 0)
			return jump;
		if (!bpf_map_lookup_elem(jump, &from, &id))
			err = np_body_put(dir, NULL, hook, to, l2_len);
		close(jump);
	}
	return err;
}

int np_prog_load(const char *dir, enum np_hook hook, __u32 l2_len, __u32 flows,
		 struct netpol **skel, struct bpf_program **prog, char tag[LINK_TAG])
{
	__u32 zero = 0;
	struct np_state state;
	__u8 raw[BPF_TAG_SIZE];
	int err, state_fd;

	*skel = netpol__open();
	if (!*skel)
		return -errno;
	*prog = only_program(*skel, np_hooks[hook].prog);
	if (!*prog)
		err = -ENOENT;
	else if (dir)
		err = maps_by_pin((*skel)->obj, dir, flows);
	else
		err = flows ? bpf_map__set_max_entries((*skel)->maps.np_flows, flows) : 0;
	if (!err)
		err = netpol__load(*skel);
	if (err)
		goto out;
	err = prog_tag(bpf_program__fd(*prog), raw);
	if (err)
		goto out;
	tag_hex(tag, raw);
	if (!dir)
		goto out;
	/* The body before anything can come through the gate. */
	state_fd = bpf_map__fd((*skel)->maps.np_state);
	if (bpf_map_lookup_elem(state_fd, &zero, &state)) {
		err = -errno;
		goto out;
	}
	if (state.l2_len != l2_len) {
		state.l2_len = l2_len;
		if (bpf_map_update_elem(state_fd, &zero, &state, BPF_ANY)) {
			err = -errno;
			goto out;
		}
	}
	err = np_body_put(dir, NULL, hook, state.tier, l2_len);
out:
	if (err) {
		netpol__destroy(*skel);
		*skel = NULL;
	}
	return err;
}

/* Where an entry named by its program or link stands, -1: nowhere. */
static int chain_index(const struct np_chain *chain, __u32 prog_id, __u32 link_id)
{
	for (__u32 i = 0; i < chain->n; i++)
		if ((prog_id && chain->prog[i].id == prog_id) ||
		    (link_id && chain->prog[i].link_id == link_id))
			return i;
	return -1;
}

/* link:ID, prog:ID, prog:NAME, pin:PATH -> index into the chain, or -errno. */
static int ref_index(const struct np_chain *chain, const char *ref)
{
	const char *arg = strchr(ref, ':');
	__u32 id, len;
	int fd, found = -1;

	if (!arg++)
		return -EINVAL;
	if (!strncmp(ref, "link:", 5)) {
		if (!parse_u32(arg, 1, UINT32_MAX, &id))
			return -EINVAL;
		found = chain_index(chain, 0, id);
	} else if (!strncmp(ref, "prog:", 5) && parse_u32(arg, 1, UINT32_MAX, &id)) {
		found = chain_index(chain, id, 0);
	} else if (!strncmp(ref, "prog:", 5)) {
		/* The kernel keeps the first 15 bytes of a name. */
		for (__u32 i = 0; i < chain->n; i++) {
			if (!chain->prog[i].name[0] ||
			    strncmp(arg, chain->prog[i].name, BPF_OBJ_NAME_LEN - 1))
				continue;
			if (found >= 0)
				return -ENOTUNIQ;
			found = i;
		}
	} else if (!strncmp(ref, "pin:", 4)) {
		struct bpf_link_info link = {};
		struct bpf_prog_info prog = {};

		fd = bpf_obj_get(arg);
		if (fd < 0)
			return -errno;
		len = sizeof(link);
		if (!bpf_link_get_info_by_fd(fd, &link, &len)) {
			found = chain_index(chain, 0, link.id);
		} else {
			len = sizeof(prog);
			if (!bpf_prog_get_info_by_fd(fd, &prog, &len))
				found = chain_index(chain, prog.id, 0);
		}
		close(fd);
	} else {
		return -EINVAL;
	}
	return found < 0 ? -ENOENT : found;
}

bool np_order_holds(const struct np_chain *chain, __u32 link_id, const struct np_order *order)
{
	int at = chain_index(chain, 0, link_id), ref;

	switch (order->place) {
	case NP_FIRST:
		return at == 0;
	case NP_LAST_PLACE:
		return at == (int)chain->n - 1;
	case NP_BEFORE_REF:
	case NP_AFTER_REF:
		ref = ref_index(chain, order->ref);
		if (ref < 0)
			return false;
		if (ref == at)	/* itself */
			return true;
		return order->place == NP_BEFORE_REF ? at < ref : at > ref;
	default:
		return true;
	}
}

void np_revision_wrong(const struct net_dev *dev, enum np_hook hook, const struct np_chain *chain,
		       const struct np_order *order)
{
	complain("%s: %s: the revision is %llu, not the expected %llu; see netpol show", dev->name,
		 np_hooks[hook].name, (unsigned long long)chain->revision,
		 (unsigned long long)order->revision);
}

int np_link_make(const struct net_dev *dev, enum np_hook hook, const struct np_chain *chain,
		 int prog_fd, const struct np_order *order)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts);
	__u32 relative = 0;
	int ref, fd;

	switch (order->place) {
	case NP_FIRST:
		opts.flags = BPF_F_BEFORE;
		break;
	case NP_LAST_PLACE:
		opts.flags = BPF_F_AFTER;
		break;
	case NP_BEFORE_REF:
	case NP_AFTER_REF:
		ref = ref_index(chain, order->ref);
		if (ref < 0) {
			complain("%s: %s: %s: %s", dev->name, np_hooks[hook].name, order->ref,
				 ref == -ENOENT	    ? "not attached here; see netpol show"
				 : ref == -ENOTUNIQ ? "more than one program has this name; use "
						      "prog:ID"
				 : ref == -EINVAL
					 ? "must be link:ID, prog:ID, prog:NAME or pin:PATH"
					 : strerror(-ref));
			return ref;
		}
		opts.flags = (order->place == NP_BEFORE_REF ? BPF_F_BEFORE : BPF_F_AFTER) |
			     BPF_F_ID;
		relative = chain->prog[ref].link_id;
		if (relative)
			opts.flags |= BPF_F_LINK;
		else
			relative = chain->prog[ref].id;
		break;
	default:
		break;
	}
	/* The members of .netkit lie where those of .tcx do. */
	opts.tcx.relative_id = relative;
	opts.tcx.expected_revision = order->revision;
	fd = bpf_link_create(prog_fd, dev->ifindex, np_hooks[hook].type, &opts);
	if (fd >= 0)
		return fd;
	fd = -errno;
	if (fd == -ESTALE)
		np_revision_wrong(dev, hook, chain, order);
	else if (fd == -ERANGE)
		complain("%s: %s: %u programs are attached, no more fit", dev->name,
			 np_hooks[hook].name, chain->n);
	else
		complain_err(fd, dev->name, "%s: cannot attach", np_hooks[hook].name);
	return fd;
}

/* The kernel gives filters without a priority numbers from here downwards. */
#define FILTER_PRIO	0xc000
#define FILTER_HANDLE	1

static bool prio_free(const struct np_filter *filters, __u32 n, __u32 prio)
{
	for (__u32 i = 0; i < n; i++)
		if (filters[i].prio == prio)
			return false;
	return true;
}

int np_filter_put(const struct net_dev *dev, enum np_hook hook, const struct np_filter *filters,
		  __u32 n, const struct np_filter *old, int prog_fd)
{
	LIBBPF_OPTS(bpf_tc_hook, tc, .ifindex = dev->ifindex,
		    .attach_point = np_hooks[hook].legacy);
	LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = prog_fd, .handle = FILTER_HANDLE,
		    .priority = FILTER_PRIO);
	int err;

	if (old) {
		opts.handle = old->handle;
		opts.priority = old->prio;
		opts.flags = BPF_TC_F_REPLACE;
		return bpf_tc_attach(&tc, &opts);
	}
	err = bpf_tc_hook_create(&tc);
	if (err && err != -EEXIST)
		return err;
	while (!prio_free(filters, n, opts.priority))
		opts.priority--;
	return bpf_tc_attach(&tc, &opts);
}

int np_filter_del(const struct net_dev *dev, enum np_hook hook, const struct np_filter *filter)
{
	LIBBPF_OPTS(bpf_tc_hook, tc, .ifindex = dev->ifindex,
		    .attach_point = np_hooks[hook].legacy);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = filter->handle, .priority = filter->prio);

	return bpf_tc_detach(&tc, &opts);
}
