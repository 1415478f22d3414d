// SPDX-License-Identifier: GPL-2.0-only
/*
 * netpol doctor: what is wrong, each with a next step. A problem makes the exit code 1,
 * a note does not.
 */
#include <net/if.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <bpf/bpf.h>

#include "netpol-verbs.h"

static struct {
	json_t *list;
	unsigned int problems;
	int lock; /* of NP_ROOT, -1: somebody else has it, or nobody needs it */
} found;

static void __attribute__((format(printf, 4, 5)))
say(bool problem, const char *object, const char *next, const char *fmt, ...)
{
	char what[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	found.problems += problem;
	json_array_append_new(found.list, json_pack("{s:s, s:s, s:s, s:s}", "severity",
						    problem ? "problem" : "note", "object", object,
						    "what", what, "next", next));
	if (!asked.json)
		printf("%s: %s: %s; %s\n", problem ? "problem" : "note", object, what, next);
}

/* --fix: a thing of ours that is dead. True: it is gone. */
static bool fixed(const char *name)
{
	int err;

	if (!env.fix || found.lock < 0)
		return false;
	if (!asked.dry_run) {
		err = np_dir_remove(name);
		if (err) {
			complain_err(err, name, "cannot remove");
			return false;
		}
	}
	say(false, name, "nothing is left to do", "%s",
	    asked.dry_run ? "would be removed" : "removed");
	return true;
}

static void check_mounts(void)
{
	char *line = NULL, point[256], type[64];
	unsigned int n = 0;
	size_t room = 0;
	FILE *f = fopen("/proc/self/mountinfo", "re");

	while (f && getline(&line, &room, f) > 0) {
		char *dash = strstr(line, " - ");

		if (dash && sscanf(line, "%*s %*s %*s %*s %255s", point) == 1 &&
		    sscanf(dash, " - %63s", type) == 1 && !strcmp(type, "bpf") &&
		    !strcmp(point, BPFFS))
			n++;
	}
	free(line);
	if (f)
		fclose(f);
	if (n > 1)
		say(true, BPFFS, "umount " BPFFS " until one is left, then look again",
		    "%u BPF file systems are mounted one over the other and hide pins", n);
}

static void check_half_made(void)
{
	char **names;

	/* While another netpol works, what it has half made is no residue. */
	if (found.lock < 0 || np_dir_list(true, &names))
		return;
	for (char **n = names; *n; n++)
		if (!fixed(*n))
			say(false, *n, "netpol doctor --fix removes it",
			    "left by a netpol that was killed");
	np_dir_list_free(names);
}

static void check_policy(const struct np_inst *inst)
{
	struct np_live live = {};
	const char *why = NULL;
	int err = np_live_read(inst->dir, true, &live, &why);

	if (err)
		say(true, inst->name, "load the policy anew with netpol load",
		    "the policy cannot be read: %s",
		    err == -ENOENT	     ? "none is loaded, all is denied"
		    : err == -EUCLEAN && why ? why
					     : strerror(-err));
	np_live_free(&live);
}

/* Whether any program uses the maps of an instance; -1: not allowed to look. */
static int inst_used(const struct np_inst *inst)
{
	struct np_prog prog;
	__u32 id = 0;
	int links = 0, users = 0;

	for (int i = 0; i < NP_HOOKS; i++)
		links += inst->link[i].fd >= 0 && !inst->link[i].ifindex;
	while (!bpf_prog_get_next_id(id, &id)) {
		memset(&prog, 0, sizeof(prog));
		/* The bodies are held by the maps alone. */
		if (!np_prog_get(id, inst, &prog) && prog.owner == NP_OURS &&
		    strncmp(prog.name, "body_", 5))
			users++;
	}
	if (errno == EPERM)
		return -1;
	return users > links;
}

/*
 * Whether a network namespace is named or has a process. True as well without CAP_SYS_ADMIN,
 * so that nothing is taken for dead for want of it. Single processes may be out of reach even
 * with it; they count for nothing.
 */
static bool netns_alive(__u64 cookie)
{
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), fd;
	bool alive = false;
	glob_t paths = {};

	if (home < 0)
		return true;
	glob("/run/netns/*", 0, NULL, &paths);
	glob("/proc/[0-9]*/ns/net", paths.gl_pathc ? GLOB_APPEND : 0, NULL, &paths);
	for (size_t i = 0; !alive && i < paths.gl_pathc; i++) {
		fd = open(paths.gl_pathv[i], O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		/* EINVAL: a mount point of a name whose namespace is gone. */
		if (setns(fd, CLONE_NEWNET))
			alive = errno == EPERM;
		else
			alive = netns_cookie() == cookie;
		close(fd);
	}
	globfree(&paths);
	if (setns(home, CLONE_NEWNET) && errno != EPERM)
		complain_err(errno, "/proc/self/ns/net", "cannot return to the network namespace");
	close(home);
	return alive;
}

static void check_links(const struct np_inst *inst)
{
	for (int i = 0; i < NP_HOOKS; i++)
		if (inst->link[i].fd >= 0 && !inst->link[i].ifindex)
			say(true, inst->name,
			    "attach again with --policy, or detach to remove the pin",
			    "link %u of %s is defunct: it was detached from outside",
			    inst->link[i].id, np_hooks[i].name);
}

static void check_inst(const char *name, __u64 here)
{
	struct np_inst inst;
	struct net_dev dev;
	char number[16];
	__u32 ifindex;
	__u64 netns;
	bool gone;

	if (np_inst_open(name, &inst) || !np_inst_parse(name, &netns, &ifindex)) {
		say(true, name, "see its pins with ls " NP_ROOT, "the instance cannot be read");
		np_inst_close(&inst);
		return;
	}
	snprintf(number, sizeof(number), "%u", ifindex);
	gone = netns == here && dev_find(number, &dev);
	if (!inst.exists) {
		if (!fixed(name))
			say(true, name, "netpol doctor --fix removes it",
			    "the instance has no maps");
	} else if (np_inst_links_dead(&inst) && (gone || netns != here)) {
		if (inst_used(&inst) > 0)
			say(false, name, "detach it in its network namespace",
			    "its links are dead, but a program still uses its maps");
		else if (!fixed(name))
			say(true, name, "netpol doctor --fix removes it",
			    "the device or its network namespace is gone");
	} else if ((gone || (netns != here && !netns_alive(netns))) && !inst_used(&inst)) {
		/* Of legacy filters, or kept: no link tells. */
		if (!fixed(name))
			say(true, name, "netpol doctor --fix removes it",
			    "the device or its network namespace is gone");
	} else {
		check_links(&inst);
		check_policy(&inst);
	}
	np_inst_close(&inst);
}

static void check_chain(const struct net_dev *dev, enum np_hook hook, const struct np_chain *chain)
{
	unsigned int ours = 0;
	char object[64];

	snprintf(object, sizeof(object), "%s %s", dev->name, np_hooks[hook].name);
	for (__u32 i = 0; i < chain->n; i++) {
		const struct np_prog *p = &chain->prog[i];

		ours += p->owner == NP_OURS;
		if (p->owner == NP_STRAY)
			say(true, object,
			    "detach it (bpftool link detach, or net detach), attach anew",
			    "program %u of netpol has lost its pins", p->id);
		for (__u32 k = 0; k < i; k++)
			if (p->name[0] && !strcmp(p->name, chain->prog[k].name))
				say(true, object, "detach the one too many",
				    "programs %u and %u are both called %s", chain->prog[k].id,
				    p->id, p->name);
	}
	if (ours > 1)
		say(true, object, "detach, then attach again", "netpol is attached %u times", ours);
	for (__u32 i = 0; ours && i < chain->n && chain->prog[i].owner != NP_OURS; i++)
		say(false, object, "attach with --first if netpol is to decide before it",
		    "program %u (%s) runs before netpol and may end the chain", chain->prog[i].id,
		    chain->prog[i].name[0] ? chain->prog[i].name : "?");
}

static void check_filters(const struct net_dev *dev, enum np_hook hook, const struct np_inst *inst)
{
	unsigned int ours = 0, strays = 0;
	struct np_filter *filters;
	char object[64];
	bool tcx;
	__u32 n;

	if (np_filters_get(dev, hook, inst, &filters, &n))
		return;
	snprintf(object, sizeof(object), "%s legacy %s", dev->name, np_hooks[hook].name);
	for (__u32 i = 0; i < n; i++) {
		ours += filters[i].prog.owner == NP_OURS;
		strays += filters[i].prog.owner == NP_STRAY;
	}
	tcx = inst->exists && inst->link[hook].fd >= 0 && inst->link[hook].ifindex;
	if (ours > 1)
		say(true, object, "netpol detach until none is left, then attach",
		    "netpol has %u filters", ours);
	else if (ours && tcx)
		say(false, object, "netpol upgrade finishes it",
		    "tcx and a legacy filter are both attached: an upgrade or downgrade was "
		    "interrupted");
	if (strays)
		say(true, object, "remove it with tc filter del, attach anew",
		    "%u filters of netpol have lost their pins", strays);
	free(filters);
}

static void check_dev(const struct net_dev *dev)
{
	struct np_chain chain;
	struct np_inst inst;
	bool attached = false;
	int err = np_inst_of(dev, &inst);

	if (err == -ESTALE) {
		say(true, dev->name, "change it there once, for instance with netpol load",
		    "%s is of a device that moved to another network namespace", inst.name);
		inst.exists = false;
	} else if (err) {
		say(true, dev->name, "see its pins with ls " NP_ROOT,
		    "its instance cannot be read: %s", strerror(-err));
		inst.exists = false;
	}
	if (inst.moved)
		say(false, dev->name, "the next change by netpol renames it",
		    "the device has moved here; its instance is still called %s", inst.name);
	for (int i = 0; i < NP_HOOKS; i++) {
		if (!np_chain_get(dev, i, &inst, &chain))
			check_chain(dev, i, &chain);
		for (__u32 k = 0; k < chain.n; k++)
			attached |= chain.prog[k].owner == NP_OURS;
		if (np_hooks[i].legacy) {
			struct np_filter *filters;
			__u32 n;

			check_filters(dev, i, &inst);
			if (!np_filters_get(dev, i, &inst, &filters, &n))
				attached |= !!np_filter_ours(filters, n);
			free(filters);
		}
	}
	if (inst.exists && !attached && !np_inst_links_dead(&inst))
		say(false, dev->name, "netpol attach uses it, netpol doctor --fix leaves it",
		    "a policy is kept, but no hook is attached");
	np_inst_close(&inst);
}

int verb_doctor(int argc, char **argv)
{
	struct if_nameindex *all;
	char **names = NULL;
	struct net_dev dev;
	__u64 here;
	int rc;

	if (argc)
		return usage_error("doctor", "takes no arguments");
	rc = pins_check();
	if (rc)
		return rc;
	found.list = json_array();
	/* --fix waits for its turn; only to look, nobody is held up. */
	found.lock = pins_lock(NP_ROOT, env.fix);
	here = netns_cookie();
	check_mounts();
	check_half_made();
	if (np_dir_list(false, &names))
		say(true, NP_ROOT, "look at its permissions", "cannot be read");
	for (char **n = names; n && *n; n++)
		check_inst(*n, here);
	np_dir_list_free(names);
	all = if_nameindex();
	for (struct if_nameindex *d = all; d && d->if_index; d++)
		if (!dev_find(d->if_name, &dev))
			check_dev(&dev);
	if_freenameindex(all);
	pins_unlock(found.lock);
	if (asked.json)
		rc = json_out(json_pack("{s:b, s:O}", "ok", !found.problems, "findings",
					found.list));
	else if (!json_array_size(found.list))
		printf("no problems\n");
	json_decref(found.list);
	return rc ?: found.problems ? FAILED : DONE;
}
