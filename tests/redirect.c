// SPDX-License-Identifier: GPL-2.0-only
/* Loader of redirect.bpf.c; the pins end what it began. See usage(). */
#include <err.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "redirect.skel.h"

#define PIN_LINK	"/sys/fs/bpf/test/link"
#define PIN_COUNT	"/sys/fs/bpf/test/redirected"

static void usage(void)
{
	fprintf(stderr,
		"usage: redirect DEV TARGET   what comes in by DEV goes to TARGET's peer\n"
		"       redirect count        packets so far\n"
		"The pins are in /sys/fs/bpf/test, which must be there\n");
	exit(2);
}

static void count(void)
{
	struct redirect__bss bss;
	__u32 zero = 0;
	int fd = bpf_obj_get(PIN_COUNT);

	if (fd < 0 || bpf_map_lookup_elem(fd, &zero, &bss))
		err(1, "%s", PIN_COUNT);
	printf("%llu\n", (unsigned long long)bss.redirected);
}

int main(int argc, char **argv)
{
	struct bpf_link *link;
	struct redirect *skel;

	if (argc == 2 && !strcmp(argv[1], "count")) {
		count();
		return 0;
	}
	if (argc != 3)
		usage();
	skel = redirect__open();
	if (!skel)
		err(1, "open");
	skel->rodata->target = if_nametoindex(argv[2]);
	if (redirect__load(skel))
		err(1, "load");
	link = bpf_program__attach_tcx(skel->progs.redirect_pod, if_nametoindex(argv[1]), NULL);
	if (!link || bpf_link__pin(link, PIN_LINK) || bpf_map__pin(skel->maps.bss, PIN_COUNT))
		err(1, "%s", argv[1]);
	bpf_link__disconnect(link);
	redirect__destroy(skel);
	return 0;
}
