// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <bpf/bpf.h>

#include "netpol-verbs.h"
#include "netpol.skel.h"

struct np_env env = { .dflt = -1, .stateless = -1 };

const char *argp_program_version = "netpol (skelkit) 0.1";

/* --- arguments --- */

static int inst_of(const struct net_dev *dev, struct np_inst *inst)
{
	int err = np_inst_of(dev, inst);

	if (err == -ESTALE)
		complain("%s: %s belongs to a device that has moved to another network namespace; "
			 "any netpol verb that changes it there makes room",
			 dev->name, inst->dir);
	else if (err)
		complain_err(err, dev->name, "cannot read %s", inst->dir);
	return err ? FAILED : DONE;
}

int np_inst_arg(const char *arg, struct net_dev *dev, struct np_inst *inst)
{
	int rc = pins_check();

	memset(inst, 0, sizeof(*inst));
	for (int i = 0; i < NP_HOOKS; i++)
		inst->link[i].fd = -1;
	if (!rc)
		rc = dev_arg(arg, dev);
	if (!rc)
		rc = inst_of(dev, inst);
	if (!rc && !inst->exists) {
		complain("%s: netpol is not attached; see netpol attach", dev->name);
		rc = NOTHING;
	}
	return rc;
}

int np_live_arg(const struct net_dev *dev, const struct np_inst *inst, struct np_live *live)
{
	const char *why = NULL;
	int err = np_live_read(inst->dir, true, live, &why);

	if (!err)
		return DONE;
	if (err == -EUCLEAN || err == -ENOENT)
		complain("%s: cannot read the policy: %s; load it anew", dev->name,
			 err == -ENOENT ? "none was loaded" : why);
	else
		complain_err(err, dev->name, "cannot read the policy");
	return FAILED;
}

static int want_read(struct np_want *want, const char *file, char **text)
{
	int err = read_file(file, NP_MAX_TEXT, text, &want->len);

	if (err) {
		complain_err(err, file, "cannot read");
		return USAGE;
	}
	want->file = strcmp(file, "-") ? file : "(standard input)";
	want->text = *text;
	return DONE;
}

static void want_init(struct np_want *want)
{
	*want = (struct np_want){
		.file = "(no rules)", .text = "", .dflt = env.dflt, .stateless = env.stateless,
		.adopt = env.adopt, .flows = env.flows,
	};
}

static void say_loaded(const struct net_dev *dev, const struct np_loaded *l)
{
	if (!l->unchanged)
		change(dev->name,
		       "load generation %u: %u rules (%u go on counting), default %s%s, %u bytes",
		       l->gen, l->nrules, l->kept, np_verdict_name(l->dflt),
		       l->stateless ? ", stateless" : "", l->bytes);
}

/* --- attach --- */

struct site {
	struct net_dev dev;
	enum np_hook hook;
	int l2_len;
	struct np_inst inst;
	struct np_chain chain;
	struct np_filter *filters;
	__u32 nfilters;
	bool legacy;
	struct netpol *skel;		/* with the gate of the hook */
	struct bpf_program *gate;
	char tag[17];
};

static void site_close(struct site *s)
{
	netpol__destroy(s->skel);
	s->skel = NULL;
	free(s->filters);
	s->filters = NULL;
	np_inst_close(&s->inst);
}

/* What is at the hook, and whether it can be one of ours. */
static int site_look(struct site *s)
{
	int err = np_chain_get(&s->dev, s->hook, &s->inst, &s->chain);
	bool netkit = !np_hooks[s->hook].legacy;
	const char *hook = np_hooks[s->hook].name;

	s->legacy = env.legacy == NP_LEGACY_ONLY;
	if (netkit && err == -EINVAL) {
		complain("%s: %s: the kernel has no netkit; CONFIG_NETKIT of Linux 6.7 is needed",
			 s->dev.name, hook);
		return LACKING;
	}
	if (netkit && (err == -ENXIO || err == -EACCES)) {
		complain("%s: %s: %s", s->dev.name, hook,
			 err == -ENXIO ? "not a netkit device; tcx-ingress and tcx-egress are for "
					 "the others"
				       : "this is the peer device of a netkit pair; name its "
					 "primary device, which has the programs of both sides");
		return FAILED;
	}
	if (!netkit && err == -EINVAL && !s->legacy) {
		if (env.legacy == NP_LEGACY_NEVER) {
			complain("%s: %s: the kernel has no tcx; Linux 6.6 is needed, or --legacy "
				 "auto",
				 s->dev.name, hook);
			return LACKING;
		}
		s->legacy = true;
	} else if (err && !(err == -EINVAL && s->legacy)) {
		complain_err(err, s->dev.name, "%s: cannot see what is attached", hook);
		return FAILED;
	}
	err = np_filters_get(&s->dev, s->hook, &s->inst, &s->filters, &s->nfilters);
	if (err) {
		complain_err(err, s->dev.name, "%s: cannot list the tc filters", hook);
		return FAILED;
	}
	return DONE;
}

static int site_load(struct site *s, const char *dir, __u32 flows)
{
	int err;

	netpol__destroy(s->skel);
	s->skel = NULL;
	err = np_prog_load(dir, s->hook, s->l2_len, flows, &s->skel, &s->gate, s->tag);
	if (!err)
		return DONE;
	complain_err(err, s->dev.name, "%s: cannot load the program%s%s", np_hooks[s->hook].name,
		     err == -EACCES ? " (without CAP_PERFMON the verifier refuses it)" : "",
		     asked.verbose < 2 ? " (-vv shows more)" : "");
	return FAILED;
}

static void inst_name(char name[64], const char *prefix, const struct net_dev *dev)
{
	snprintf(name, 64, "%sns%llu_if%u", prefix, (unsigned long long)dev->netns, dev->ifindex);
}

static int dir_failed(const struct net_dev *dev, const char *dir, int err)
{
	complain_err(err, dev->name, "cannot make %s", dir);
	return FAILED;
}

/* A new instance, complete with its policy before anyone can find it. */
static int inst_create(struct site *s, const struct np_want *want, struct np_loaded *loaded)
{
	char name[64], half[64], dir[PIN_PATH], final[PIN_PATH];
	int rc, err = 0;

	inst_name(name, "", &s->dev);
	inst_name(half, "new_", &s->dev);
	snprintf(dir, sizeof(dir), "%s/%s", NP_ROOT, half);
	snprintf(final, sizeof(final), "%s/%s", NP_ROOT, name);
	/* We hold the lock, so one that is there was left by somebody who was killed. */
	if (!access(dir, F_OK))
		err = np_dir_remove(half);
	if (!err && mkdir(dir, 0700))
		err = -errno;
	if (err)
		return dir_failed(&s->dev, dir, err);
	rc = site_load(s, dir, want->flows);
	if (!rc)
		rc = np_load(dir, s->dev.name, want, false, loaded);
	if (!rc && s->inst.exists) {
		np_inst_close(&s->inst);
		err = np_dir_remove(s->inst.name);
	}
	if (!rc && !err && rename(dir, final))
		err = -errno;
	if (rc || err) {
		np_dir_remove(half);
		return rc ?: dir_failed(&s->dev, final, err);
	}
	err = np_inst_open(name, &s->inst);
	return err ? dir_failed(&s->dev, final, err) : DONE;
}

/* Pin under the final name; what had that name goes, and with it the link. */
static int link_pin(struct site *s, int fd)
{
	char half[64], from[2 * PIN_PATH], to[2 * PIN_PATH];
	int err;

	snprintf(half, sizeof(half), "new_%s", np_hooks[s->hook].pin);
	snprintf(from, sizeof(from), "%s/%s", s->inst.dir, half);
	snprintf(to, sizeof(to), "%s/%s", s->inst.dir, np_hooks[s->hook].pin);
	if (s->inst.link[s->hook].fd < 0)
		return pin_put(fd, s->inst.dir, np_hooks[s->hook].pin);
	err = pin_unlink(s->inst.dir, half);
	if (err && err != -ENOENT)
		return err;
	err = pin_put(fd, s->inst.dir, half);
	if (!err && rename(from, to))
		err = -errno;
	return err;
}

static int attach_link(struct site *s)
{
	struct pinned_link *link = &s->inst.link[s->hook];
	const char *hook = np_hooks[s->hook].name;
	bool live = link->fd >= 0 && link->ifindex;
	int fd, err;

	/* The kernel compares it when a link is made, which may not be needed here. */
	if (env.order.revision && env.order.revision != s->chain.revision) {
		np_revision_wrong(&s->dev, s->hook, &s->chain, &env.order);
		return FAILED;
	}
	if (live && np_order_holds(&s->chain, link->id, &env.order)) {
		if (!strcmp(link->tag, s->tag))
			return DONE;
		change(s->dev.name, "update the program of %s (link %u)", hook, link->id);
		if (asked.dry_run)
			return DONE;
		if (!bpf_link_update(link->fd, bpf_program__fd(s->gate), NULL))
			return DONE;
		complain_err(errno, s->dev.name, "%s: cannot update link %u", hook, link->id);
		return FAILED;
	}
	if (asked.dry_run) {
		change(s->dev.name, "%s %s", live ? "move the program of" : "attach", hook);
		return DONE;
	}
	fd = np_link_make(&s->dev, s->hook, &s->chain, bpf_program__fd(s->gate), &env.order);
	if (fd < 0)
		return fd == -EINVAL && env.order.ref ? USAGE : FAILED;
	err = link_pin(s, fd);
	close(fd);
	if (err) {
		complain_err(err, s->dev.name, "%s: cannot pin the link", hook);
		return FAILED;
	}
	change(s->dev.name, "%s %s", live ? "move the program of" : "attach", hook);
	return DONE;
}

static int attach_filter(struct site *s, const struct np_filter *old)
{
	int err;

	if (old && !strcmp(old->prog.tag, s->tag))
		return DONE;
	if (env.order.place != NP_ANYWHERE || env.order.revision) {
		complain("%s: %s: a legacy filter has no order among programs; --first, --last, "
			 "--before, --after and --expected-revision need tcx (Linux 6.6)",
			 s->dev.name, np_hooks[s->hook].name);
		return LACKING;
	}
	change(s->dev.name, "%s the legacy filter of %s", old ? "update" : "attach",
	       np_hooks[s->hook].name);
	if (asked.dry_run)
		return DONE;
	err = np_filter_put(&s->dev, s->hook, s->filters, s->nfilters, old,
			    bpf_program__fd(s->gate));
	if (!err)
		return DONE;
	complain_err(err, s->dev.name, "%s: cannot attach the legacy filter",
		     np_hooks[s->hook].name);
	return FAILED;
}

/* A device that was moved to this network namespace brings its instance. */
static int inst_follow(struct site *s)
{
	char name[64], to[PIN_PATH];
	int err = 0;

	if (!s->inst.moved)
		return DONE;
	inst_name(name, "", &s->dev);
	snprintf(to, sizeof(to), "%s/%s", NP_ROOT, name);
	change(s->dev.name, "rename %s to %s, the device has moved", s->inst.name, name);
	if (asked.dry_run)
		return DONE;
	if (rename(s->inst.dir, to))
		err = -errno;
	np_inst_close(&s->inst);
	if (!err)
		err = np_inst_open(name, &s->inst);
	return err ? dir_failed(&s->dev, to, err) : DONE;
}

static int policy_update(struct site *s, struct np_want *want)
{
	struct np_loaded loaded;
	struct np_live live = {};
	int rc = DONE;

	/* Only options: with the rules that are there. */
	if (!env.policy) {
		rc = np_live_arg(&s->dev, &s->inst, &live);
		if (rc)
			return rc;
		want->file = "(the rules in force)";
		want->text = live.text;
		want->len = live.head.len;
	}
	rc = np_load(s->inst.dir, s->dev.name, want, asked.dry_run, &loaded);
	if (!rc)
		say_loaded(&s->dev, &loaded);
	np_live_free(&live);
	return rc;
}

static int attach_at(struct site *s, struct np_want *want)
{
	const struct np_filter *ours;
	struct np_loaded loaded;
	bool fresh;
	int rc = inst_of(&s->dev, &s->inst);

	if (!rc)
		rc = inst_follow(s);
	if (!rc)
		rc = site_look(s);
	if (rc)
		return rc;
	ours = np_filter_ours(s->filters, s->nfilters);
	/* Links that died with their device say nothing about this one. */
	fresh = !s->inst.exists || (np_inst_links_dead(&s->inst) && !ours);
	if (fresh && !env.policy && env.dflt < 0) {
		complain("%s: no policy is loaded yet; give --policy FILE, or --default "
			 "deny|allow|next to begin without rules",
			 s->dev.name);
		return USAGE;
	}
	if (fresh && asked.dry_run) {
		rc = np_load(NULL, s->dev.name, want, true, &loaded);
		if (rc)
			return rc;
		say_loaded(&s->dev, &loaded);
		change(s->dev.name, "attach %s%s", s->legacy ? "the legacy filter of " : "",
		       np_hooks[s->hook].name);
		return DONE;
	}
	if (fresh) {
		rc = inst_create(s, want, &loaded);
		ours = NULL;
	} else {
		if (env.flows)
			complain("%s: --flows is for the first attach; the flow table stays as it "
				 "is",
				 s->dev.name);
		if (env.policy || env.dflt >= 0 || env.stateless >= 0 || env.adopt)
			rc = policy_update(s, want);
		if (!rc)
			rc = site_load(s, s->inst.dir, 0);
	}
	if (rc)
		return rc;
	if (ours && env.legacy == NP_LEGACY_NEVER && s->inst.link[s->hook].fd < 0) {
		complain("%s: %s: a legacy filter of netpol is attached; netpol upgrade %s moves "
			 "it to tcx",
			 s->dev.name, np_hooks[s->hook].name, s->dev.name);
		return FAILED;
	}
	if (s->legacy || (ours && s->inst.link[s->hook].fd < 0))
		rc = attach_filter(s, ours);
	else
		rc = attach_link(s);
	if (fresh && rc)
		np_dir_remove(s->inst.name);
	else if (fresh)
		say_loaded(&s->dev, &loaded);
	return rc;
}

static int hook_arg(const char *verb, int argc, char **argv, struct site *s)
{
	int hook, rc;

	if (argc != 2)
		return usage_error(verb, "takes HOOK and DEV");
	hook = np_hook_find(argv[0]);
	if (hook < 0)
		return usage_error(verb, "HOOK is one of tcx-ingress, tcx-egress, netkit-primary, "
					 "netkit-peer");
	s->hook = hook;
	if (env.legacy == NP_LEGACY_ONLY && !np_hooks[hook].legacy)
		return usage_error(verb, "netkit has no legacy filters");
	rc = dev_arg(argv[1], &s->dev);
	if (rc)
		return rc;
	s->l2_len = arphrd_l2_len(s->dev.arphrd);
	if (s->l2_len >= 0)
		return DONE;
	complain("%s: netpol does not know how frames begin on this kind of device (ARPHRD %u)",
		 s->dev.name, s->dev.arphrd);
	return FAILED;
}

static void site_init(struct site *s)
{
	memset(s, 0, sizeof(*s));
	for (int i = 0; i < NP_HOOKS; i++)
		s->inst.link[i].fd = -1;
}

static int verb_attach(int argc, char **argv)
{
	struct np_want want;
	char *text = NULL;
	struct site s;
	int rc, lock = -1;

	site_init(&s);
	want_init(&want);
	rc = hook_arg("attach", argc, argv, &s);
	if (!rc && env.policy)
		rc = want_read(&want, env.policy, &text);
	if (!rc)
		rc = pins_change(NP_ROOT, &lock);
	if (!rc)
		rc = attach_at(&s, &want);
	site_close(&s);
	pins_unlock(lock);
	free(text);
	return report("device", s.dev.name, rc);
}

/* --- detach --- */

static int link_drop(struct site *s, bool *found)
{
	struct pinned_link *link = &s->inst.link[s->hook];
	int err;

	if (link->fd < 0)
		return DONE;
	*found = true;
	change(s->dev.name, "detach %s (link %u)", np_hooks[s->hook].name, link->id);
	if (asked.dry_run)
		return DONE;
	/* The pin first: killed in between, the link goes with us. */
	err = pin_unlink(s->inst.dir, np_hooks[s->hook].pin);
	if (!err && link->ifindex && bpf_link_detach(link->fd))
		err = -errno;
	close(link->fd);
	link->fd = -1;
	if (!err)
		return DONE;
	complain_err(err, s->dev.name, "%s: cannot detach", np_hooks[s->hook].name);
	return FAILED;
}

static int filter_drop(struct site *s, bool *found)
{
	const struct np_filter *ours = np_filter_ours(s->filters, s->nfilters);
	int err;

	if (!ours)
		return DONE;
	*found = true;
	change(s->dev.name, "detach the legacy filter of %s (priority %u)", np_hooks[s->hook].name,
	       ours->prio);
	if (asked.dry_run)
		return DONE;
	err = np_filter_del(&s->dev, s->hook, ours);
	if (!err)
		return DONE;
	complain_err(err, s->dev.name, "%s: cannot remove the legacy filter",
		     np_hooks[s->hook].name);
	return FAILED;
}

/* Whether any hook but s->hook is in use; a failure to look counts as use. */
static bool others_in_use(const struct site *s)
{
	struct np_filter *filters;
	bool used = false;
	__u32 n;

	for (int i = 0; i < NP_HOOKS && !used; i++) {
		if (i == (int)s->hook)
			continue;
		used = s->inst.link[i].fd >= 0 && s->inst.link[i].ifindex;
		if (!used && np_hooks[i].legacy) {
			used = np_filters_get(&s->dev, i, &s->inst, &filters, &n) ||
			       np_filter_ours(filters, n);
			free(filters);
		}
	}
	return used;
}

static int detach_at(struct site *s)
{
	bool found = false;
	int rc = inst_of(&s->dev, &s->inst), err;

	if (!rc && s->inst.exists)
		rc = np_filters_get(&s->dev, s->hook, &s->inst, &s->filters, &s->nfilters) ?
		     FAILED : DONE;
	if (!rc)
		rc = inst_follow(s);
	if (!rc)
		rc = link_drop(s, &found);
	if (!rc)
		rc = filter_drop(s, &found);
	if (rc)
		return rc;
	if (!found) {
		if (env.ignore_missing)
			return DONE;
		complain("%s: %s: netpol is not attached", s->dev.name, np_hooks[s->hook].name);
		return FAILED;
	}
	if (env.keep || others_in_use(s))
		return DONE;
	change(s->dev.name, "remove the policy and the maps");
	if (asked.dry_run)
		return DONE;
	err = np_dir_remove(s->inst.name);
	if (!err)
		return DONE;
	complain_err(err, s->dev.name, "cannot remove %s", s->inst.dir);
	return FAILED;
}

static int verb_detach(int argc, char **argv)
{
	struct site s;
	int rc, lock = -1;

	site_init(&s);
	rc = hook_arg("detach", argc, argv, &s);
	if (!rc)
		rc = pins_change(NP_ROOT, &lock);
	if (!rc)
		rc = detach_at(&s);
	site_close(&s);
	pins_unlock(lock);
	return report("device", s.dev.name, rc);
}

/* --- upgrade, downgrade --- */

/* tcx first, then the filter goes: a packet may meet both, never neither. */
static int upgrade_at(struct site *s)
{
	bool found;
	int rc;

	if (s->inst.link[s->hook].fd < 0 || !s->inst.link[s->hook].ifindex) {
		rc = site_load(s, s->inst.dir, 0);
		if (!rc)
			rc = attach_link(s);
		if (rc)
			return rc;
	}
	return filter_drop(s, &found);
}

/* The filter first, then the link goes. */
static int downgrade_at(struct site *s)
{
	bool found;
	int rc;

	if (!np_filter_ours(s->filters, s->nfilters)) {
		rc = site_load(s, s->inst.dir, 0);
		if (!rc)
			rc = attach_filter(s, NULL);
		if (rc)
			return rc;
	}
	return link_drop(s, &found);
}

static int convert(const char *verb, bool up, int argc, char **argv)
{
	int rc = DONE, lock = -1;
	struct site s;

	site_init(&s);
	if (argc != 1)
		return usage_error(verb, "takes DEV");
	env.legacy = up ? NP_LEGACY_NEVER : NP_LEGACY_AUTO;
	env.order = (struct np_order){};
	rc = pins_change(NP_ROOT, &lock);
	for (int hook = 0; !rc && hook < NP_HOOKS; hook++) {
		if (!np_hooks[hook].legacy)
			continue;
		site_init(&s);
		s.hook = hook;
		rc = np_inst_arg(argv[0], &s.dev, &s.inst);
		if (!rc)
			rc = inst_follow(&s);
		s.l2_len = arphrd_l2_len(s.dev.arphrd);
		if (!rc)
			rc = site_look(&s);
		if (!rc && up && np_filter_ours(s.filters, s.nfilters))
			rc = upgrade_at(&s);
		else if (!rc && !up && s.inst.link[hook].fd >= 0 && s.inst.link[hook].ifindex)
			rc = downgrade_at(&s);
		site_close(&s);
	}
	pins_unlock(lock);
	return report("device", s.dev.name, rc);
}

static int verb_upgrade(int argc, char **argv)
{
	return convert("upgrade", true, argc, argv);
}

static int verb_downgrade(int argc, char **argv)
{
	return convert("downgrade", false, argc, argv);
}

/* --- load, rule --- */

static int load_text(const struct net_dev *dev, const struct np_inst *inst, struct np_want *want)
{
	struct np_loaded loaded;
	int rc = np_load(inst->dir, dev->name, want, asked.dry_run, &loaded);

	if (!rc)
		say_loaded(dev, &loaded);
	return rc;
}

static int verb_load(int argc, char **argv)
{
	int rc, lock = -1;
	struct np_want want;
	struct site s;
	char *text = NULL;

	site_init(&s);
	want_init(&want);
	if (argc != 2)
		return usage_error("load", "takes DEV and FILE");
	rc = want_read(&want, argv[1], &text);
	if (!rc)
		rc = pins_change(NP_ROOT, &lock);
	if (!rc)
		rc = np_inst_arg(argv[0], &s.dev, &s.inst);
	if (!rc)
		rc = inst_follow(&s);
	if (!rc)
		rc = load_text(&s.dev, &s.inst, &want);
	site_close(&s);
	pins_unlock(lock);
	free(text);
	return report("device", s.dev.name, rc);
}

static char *words_join(int argc, char **argv)
{
	size_t len = 1;
	char *text;

	for (int i = 0; i < argc; i++)
		len += strlen(argv[i]) + 1;
	text = calloc(1, len);
	for (int i = 0; text && i < argc; i++) {
		if (i)
			strcat(text, " ");
		strcat(text, argv[i]);
	}
	return text;
}

static bool rule_there(const struct np_policy *policy, const struct np_rule *rule)
{
	for (__u32 i = 0; i < policy->nrules; i++)
		if (!strcmp(policy->rules[i].text, rule->text))
			return true;
	return false;
}

/* edit: the policy after the change; its text is NULL if there is nothing to change. */
static int rule_edit(bool add, struct np_live *live, const char *arg, struct np_edit *edit)
{
	enum np_where where = NP_AT_END;
	struct np_error perr = {};
	struct np_rule rule;
	__u32 number = 0;
	int err;

	if (add) {
		if (env.order.place == NP_BEFORE_REF || env.order.place == NP_AFTER_REF) {
			where = env.order.place == NP_BEFORE_REF ? NP_BEFORE : NP_AFTER;
			if (!parse_u32(env.order.ref, 1, NP_MAX_RULES, &number))
				return usage_error("rule add",
						   "--before and --after take a rule's number");
		} else if (env.order.place == NP_FIRST && live->policy->nrules) {
			where = NP_BEFORE;
			number = 1;
		}
		err = np_rule_parse(live->policy, arg, strlen(arg), &rule, &perr);
		if (!err && rule_there(live->policy, &rule))
			return DONE;
		if (!err)
			err = np_policy_add(live->policy, live->text, live->head.len, where, number,
					    arg, strlen(arg), edit, &perr);
	} else {
		err = np_policy_del(live->policy, live->text, live->head.len, arg, strlen(arg),
				    edit, &perr);
		if (err == -ENOENT && env.ignore_missing)
			return DONE;
	}
	if (!err)
		return DONE;
	if (err == -EINVAL || err == -ENOENT) {
		np_error_print(stderr, "RULE", arg, strlen(arg), &perr);
		return err == -EINVAL ? USAGE : NOTHING;
	}
	complain_err(err, "rule", "cannot edit the policy");
	return FAILED;
}

static int rule_change(bool add, int argc, char **argv)
{
	char *arg = words_join(argc - 1, argv + 1);
	struct np_edit edit = {};
	struct np_live live = {};
	int rc, lock = -1;
	struct np_want want;
	struct site s;

	site_init(&s);
	want_init(&want);
	rc = arg ? pins_change(NP_ROOT, &lock) : FAILED;
	if (!rc)
		rc = np_inst_arg(argv[0], &s.dev, &s.inst);
	if (!rc)
		rc = inst_follow(&s);
	if (!rc)
		rc = np_live_arg(&s.dev, &s.inst, &live);
	if (!rc)
		rc = rule_edit(add, &live, arg, &edit);
	if (!rc && edit.text) {
		want.file = "(the rules in force)";
		want.text = edit.text;
		want.len = edit.len;
		want.policy = edit.policy;
		want.live = &live;
		rc = load_text(&s.dev, &s.inst, &want);
	}
	np_live_free(&live);
	site_close(&s);
	pins_unlock(lock);
	np_edit_free(&edit);
	free(arg);
	return report("device", s.dev.name, rc);
}

static int rule_list(const char *arg)
{
	struct np_live live = {};
	struct np_inst inst;
	struct net_dev dev;
	json_t *doc;
	int rc;

	rc = np_inst_arg(arg, &dev, &inst);
	if (!rc)
		rc = np_live_arg(&dev, &inst, &live);
	if (!rc && asked.json) {
		doc = np_policy_json(live.policy);
		if (doc)
			json_object_set_new(doc, "generation", json_integer(live.head.gen));
		rc = json_out(doc);
	} else if (!rc) {
		rc = np_policy_print_rules(stdout, live.policy) ? FAILED : DONE;
	}
	np_live_free(&live);
	np_inst_close(&inst);
	return rc;
}

static int verb_rule(int argc, char **argv)
{
	bool add = argc && !strcmp(argv[0], "add");

	if (argc == 2 && !strcmp(argv[0], "list"))
		return rule_list(argv[1]);
	if (argc >= 3 && (add || !strcmp(argv[0], "del")))
		return rule_change(add, argc - 1, argv + 1);
	return usage_error("rule", "takes add DEV RULE, del DEV RULE|NUMBER or list DEV");
}

/* --- probe --- */

static bool hook_there(enum bpf_attach_type type)
{
	LIBBPF_OPTS(bpf_prog_query_opts, opts);

	/* The loopback device is no netkit, but only a kernel with netkit knows. */
	return !bpf_prog_query_opts(1, type, &opts) || errno == ENXIO;
}

static int probe(void)
{
	const struct need needs[] = {
		{"bpf", "CONFIG_BPF_SYSCALL, CAP_BPF and CAP_NET_ADMIN",
		 libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SCHED_CLS, NULL) == 1, false},
		{"map of maps", "Linux 4.12",
		 libbpf_probe_bpf_map_type(BPF_MAP_TYPE_ARRAY_OF_MAPS, NULL) == 1, false},
		{"ring buffer", "Linux 5.8",
		 libbpf_probe_bpf_map_type(BPF_MAP_TYPE_RINGBUF, NULL) == 1, false},
		{"bpf_loop", "Linux 5.17",
		 libbpf_probe_bpf_helper(BPF_PROG_TYPE_SCHED_CLS, BPF_FUNC_loop, NULL) == 1, false},
		{"coarse clock", "Linux 5.11",
		 libbpf_probe_bpf_helper(BPF_PROG_TYPE_SCHED_CLS, BPF_FUNC_ktime_get_coarse_ns,
					 NULL) == 1,
		 false},
		{"netns cookie", "Linux 5.14", netns_cookie() != 0, false},
		{"tcx", "Linux 6.6; else legacy filters", hook_there(BPF_TCX_INGRESS), true},
		{"netkit", "CONFIG_NETKIT, Linux 6.7", hook_there(BPF_NETKIT_PRIMARY), true},
	};

	return report_needs(needs, ARRAY_SIZE(needs));
}

/* --- command line --- */

static const struct verb verbs[] = {
	{"attach", verb_attach},
	{"detach", verb_detach},
	{"load", verb_load},
	{"rule", verb_rule},
	{"show", verb_show},
	{"stats", verb_stats},
	{"log", verb_log},
	{"test", verb_test},
	{"upgrade", verb_upgrade},
	{"downgrade", verb_downgrade},
	{"doctor", verb_doctor},
	{}};

enum {
	OPT_DEFAULT = 256,
	OPT_FIRST,
	OPT_LAST,
	OPT_BEFORE,
	OPT_AFTER,
	OPT_REVISION,
	OPT_LEGACY,
	OPT_IGNORE,
	OPT_KEEP,
	OPT_FLOWS,
	OPT_STATELESS,
	OPT_STATEFUL,
	OPT_ADOPT,
	OPT_PACKET,
	OPT_PCAP,
	OPT_FIX,
	OPT_NETNS,
};

static const struct argp_option options[] = {
	{"policy", 'p', "FILE", 0, "attach: the rules, in force before the first packet", 0},
	{"default", OPT_DEFAULT, "VERDICT", 0, "deny, allow or next, if the rules name none", 0},
	{"first", OPT_FIRST, NULL, 0, "attach: before all others; rule add: as rule 1", 0},
	{"last", OPT_LAST, NULL, 0, "attach: after all others", 0},
	{"before", OPT_BEFORE, "REF", 0,
	 "attach: before link:ID, prog:ID, prog:NAME or pin:PATH; "
	 "rule add: before this rule's number",
	 0},
	{"after", OPT_AFTER, "REF", 0, "likewise, after", 0},
	{"expected-revision", OPT_REVISION, "N", 0,
	 "attach: only if the hook is still as show told", 0},
	{"legacy", OPT_LEGACY, "WHEN", 0,
	 "attach: a tc filter instead of tcx: auto (where the kernel "
	 "has no tcx), never, only",
	 0},
	{"ignore-missing", OPT_IGNORE, NULL, 0, "detach, rule del: nothing there is fine", 0},
	{"keep", OPT_KEEP, NULL, 0, "detach: keep policy and counters when the last hook goes", 0},
	{"flows", OPT_FLOWS, "N", 0, "first attach: entries of the flow table (default 16384)", 0},
	{"stateless", OPT_STATELESS, NULL, 0, "do not remember flows: replies need rules", 0},
	{"stateful", OPT_STATEFUL, NULL, 0, "remember flows (the default at first)", 0},
	{"adopt", OPT_ADOPT, "SEC", 0,
	 "for so long let TCP connections go on that the policy "
	 "would have let open",
	 0},
	{"interval", 'i', "SEC", 0, "stats: print again every SEC seconds", 0},
	{"follow", 'f', NULL, 0, "log: wait for more", 0},
	{"packet", OPT_PACKET, "TEXT", 0, "test: this packet", 0},
	{"pcap", OPT_PCAP, "FILE", 0, "test: the packets of this capture", 0},
	{"fix", OPT_FIX, NULL, 0, "doctor: remove what is ours and dead", 0},
	{"netns", OPT_NETNS, "NAME", 0, "the network namespace of DEV: a name or a path", 0},
	{}};

static void set_place(struct argp_state *state, int place, const char *ref)
{
	if (env.order.place != NP_ANYWHERE)
		argp_error(state, "only one of --first, --last, --before and --after");
	env.order.place = place;
	env.order.ref = ref;
}

static error_t parse_opt(int key, char *arg, struct argp_state *state)
{
	static const char *const verdicts[] = { "deny", "allow", "next", NULL };
	static const char *const legacies[] = { "auto", "never", "only", NULL };

	switch (key) {
	case 'p':
		env.policy = arg;
		break;
	case OPT_DEFAULT:
		env.dflt = option_word(state, "default", arg, verdicts);
		break;
	case OPT_FIRST:
		set_place(state, NP_FIRST, NULL);
		break;
	case OPT_LAST:
		set_place(state, NP_LAST_PLACE, NULL);
		break;
	case OPT_BEFORE:
		set_place(state, NP_BEFORE_REF, arg);
		break;
	case OPT_AFTER:
		set_place(state, NP_AFTER_REF, arg);
		break;
	case OPT_REVISION:
		env.order.revision =
			option_u32(state, "expected-revision", arg, 1, UINT32_MAX);
		break;
	case OPT_LEGACY:
		env.legacy = option_word(state, "legacy", arg, legacies);
		break;
	case OPT_IGNORE:
		env.ignore_missing = true;
		break;
	case OPT_KEEP:
		env.keep = true;
		break;
	case OPT_FLOWS:
		env.flows = option_u32(state, "flows", arg, 16, 1 << 24);
		break;
	case OPT_STATELESS:
	case OPT_STATEFUL:
		env.stateless = key == OPT_STATELESS;
		break;
	case OPT_ADOPT:
		env.adopt = option_u32(state, "adopt", arg, 1, 86400);
		break;
	case 'i':
		env.interval = option_u32(state, "interval", arg, 1, 86400);
		break;
	case 'f':
		env.follow = true;
		break;
	case OPT_PACKET:
		env.packet = arg;
		break;
	case OPT_PCAP:
		env.pcap = arg;
		break;
	case OPT_FIX:
		env.fix = true;
		break;
	case OPT_NETNS:
		env.netns = arg;
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const char args_doc[] = "attach HOOK DEV\ndetach HOOK DEV\nload DEV FILE\nrule add|del|list "
			       "DEV [RULE]\nshow [DEV]\n"
			       "stats DEV\nlog DEV\ntest FILE\nupgrade|downgrade DEV\ndoctor";

static const char doc[] =
	"Ordered L3/L4 policy on tcx and netkit.\v"
	"HOOK: tcx-ingress, tcx-egress, netkit-primary, netkit-peer. DEV: a name or an index.\n"
	"Exit codes: 0 done or already so, 1 failed, 2 usage or bad input, 3 nothing matched, "
	"4 the kernel lacks something.\n\n"
	"EXAMPLES\n"
	"  netpol attach tcx-ingress eth0 --policy web.pol --first\n"
	"  netpol load eth0 web.pol --dry-run\n"
	"  netpol rule add eth0 'allow tcp from 10.0.0.0/8 to port 22'\n"
	"  netpol show eth0 -j\n"
	"  netpol test web.pol --packet 'tcp 10.0.0.1:1234 > 10.0.0.2:443'\n"
	"  netpol detach tcx-ingress eth0\n";

static int ready(void)
{
	int err = env.netns ? netns_enter(env.netns) : 0;

	if (!err)
		return DONE;
	complain_err(err, env.netns, "cannot enter the network namespace%s",
		     err == -EPERM ? " (CAP_SYS_ADMIN)" : "");
	return FAILED;
}

int main(int argc, char **argv)
{
	static const struct tool tool = {
		.options = options,
		.parse = parse_opt,
		.args_doc = args_doc,
		.doc = doc,
		.verbs = verbs,
		.ready = ready,
		.probe = probe,
	};

	return tool_main(&tool, argc, argv);
}
