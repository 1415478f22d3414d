// SPDX-License-Identifier: GPL-2.0-only
/*
 * Another agent's loader: attaches the programs of foreign.bpf.c by bpf_link and pins
 * the link. bpftool does as much for tcx (without an order), but not for netkit, and not
 * for the legacy filters that come with a clsact.
 */
#include <err.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "foreign.skel.h"

static void usage(void)
{
	fprintf(stderr,
		"usage: foreign [-n NETNS] attach HOOK DEV DIR [first|last|before ID|after ID]\n"
		"       foreign [-n NETNS] legacy ingress|egress DEV DIR   a filter, priority 1\n"
		"       foreign seen DIR                                   packets so far\n"
		"HOOK: tcx-ingress tcx-egress netkit-primary netkit-peer; ID: of a link\n"
		"DIR: a directory of bpffs for the pins 'link' and 'seen'\n");
	exit(2);
}

static const struct {
	const char *name;
	enum bpf_attach_type type;
} hooks[] = {
	{ "tcx-ingress", BPF_TCX_INGRESS },
	{ "tcx-egress", BPF_TCX_EGRESS },
	{ "netkit-primary", BPF_NETKIT_PRIMARY },
	{ "netkit-peer", BPF_NETKIT_PEER },
};

static const char *pin(const char *dir, const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void load(struct foreign *skel, struct bpf_program *prog, const char *dir)
{
	bpf_program__set_autoload(prog, true);
	if (foreign__load(skel))
		errx(1, "load");
	bpf_map__unpin(skel->maps.bss, pin(dir, "seen"));
	if (bpf_map__pin(skel->maps.bss, pin(dir, "seen")))
		err(1, "%s", pin(dir, "seen"));
}

static void attach(struct foreign *skel, char **argv)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts);
	const char *place = argv[3];
	struct bpf_program *prog;
	unsigned int i;
	int fd;

	for (i = 0; i < sizeof(hooks) / sizeof(*hooks); i++)
		if (!strcmp(argv[0], hooks[i].name))
			break;
	if (i == sizeof(hooks) / sizeof(*hooks))
		usage();
	prog = i < 2 ? skel->progs.foreign_tcx : skel->progs.foreign_netkit;
	bpf_program__set_expected_attach_type(prog, hooks[i].type);
	load(skel, prog, argv[2]);
	if (place && !strcmp(place, "first")) {
		opts.flags = BPF_F_BEFORE;
	} else if (place && !strcmp(place, "last")) {
		opts.flags = BPF_F_AFTER;
	} else if (place) {
		if (!argv[4] || (strcmp(place, "before") && strcmp(place, "after")))
			usage();
		opts.flags = BPF_F_ID | BPF_F_LINK | (*place == 'b' ? BPF_F_BEFORE : BPF_F_AFTER);
		opts.tcx.relative_id = atoi(argv[4]);	/* netkit has it at the same place */
	}
	fd = bpf_link_create(bpf_program__fd(prog), if_nametoindex(argv[1]), hooks[i].type, &opts);
	if (fd < 0)
		err(1, "%s: %s", argv[1], argv[0]);
	if (bpf_obj_pin(fd, pin(argv[2], "link")))
		err(1, "%s", pin(argv[2], "link"));
}

static void legacy(struct foreign *skel, char **argv)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = if_nametoindex(argv[1]),
		    .attach_point = strcmp(argv[0], "egress") ? BPF_TC_INGRESS : BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 1, .priority = 1);
	int rc;

	load(skel, skel->progs.foreign_legacy, argv[2]);
	opts.prog_fd = bpf_program__fd(skel->progs.foreign_legacy);
	rc = bpf_tc_hook_create(&hook);
	if (rc && rc != -EEXIST)
		errx(1, "%s: clsact: %s", argv[1], strerror(-rc));
	rc = bpf_tc_attach(&hook, &opts);
	if (rc)
		errx(1, "%s: filter: %s", argv[1], strerror(-rc));
}

static void seen(const char *dir)
{
	struct foreign__bss bss;
	__u32 zero = 0;
	int fd = bpf_obj_get(pin(dir, "seen"));

	if (fd < 0 || bpf_map_lookup_elem(fd, &zero, &bss))
		err(1, "%s", pin(dir, "seen"));
	printf("%llu\n", (unsigned long long)bss.seen);
}

int main(int argc, char **argv)
{
	struct foreign *skel;
	struct bpf_program *p;

	if (argc > 3 && !strcmp(argv[1], "-n")) {
		char path[256];
		int fd;

		snprintf(path, sizeof(path), "/run/netns/%s", argv[2]);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || setns(fd, CLONE_NEWNET))
			err(1, "%s", path);
		close(fd);
		argc -= 2;
		argv += 2;
	}
	if (argc == 3 && !strcmp(argv[1], "seen")) {
		seen(argv[2]);
		return 0;
	}
	if (argc < 5)
		usage();
	skel = foreign__open();
	if (!skel)
		err(1, "open");
	bpf_object__for_each_program(p, skel->obj)
		bpf_program__set_autoload(p, false);
	if (!strcmp(argv[1], "attach"))
		attach(skel, argv + 2);
	else if (!strcmp(argv[1], "legacy"))
		legacy(skel, argv + 2);
	else
		usage();
	foreign__destroy(skel);
	return 0;
}
