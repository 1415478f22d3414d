// SPDX-License-Identifier: GPL-2.0-only
/*
 * What `netpol load` does, N times over in one process, with two policies in turn: the
 * tool's own code without the start of a program, which costs more than a load when
 * emulated. After each load PACKETS packets must have been judged before the next: those
 * that watch see every load. usage: netpol-reload DIR N PACKETS FILE FILE
 */
#include <stdlib.h>
#include <stdio.h>
#include <unistd.h>

#include "common.h"
#include "netpol-load.h"

static __u64 judged(const char *dir)
{
	struct np_count stats[__NP_S_MAX];
	__u64 sum = 0;

	if (np_stats_read(dir, stats))
		exit(FAILED);
	for (int i = 0; i < __NP_S_MAX; i++)
		sum += stats[i].packets;
	return sum;
}

int main(int argc, char **argv)
{
	struct np_want want[2] = {};
	struct np_loaded loaded;
	char *text;
	int i, n, lock, packets;
	__u64 before;

	if (argc != 6)
		return USAGE;
	n = atoi(argv[2]);
	packets = atoi(argv[3]);
	for (i = 0; i < 2; i++) {
		want[i] = (struct np_want){ .file = argv[4 + i], .dflt = -1, .stateless = -1 };
		if (read_file(argv[4 + i], 1 << 20, &text, &want[i].len))
			return USAGE;
		want[i].text = text;
	}
	for (i = 0; i < n; i++) {
		lock = pins_lock(NP_ROOT, true);
		if (lock < 0 || np_load(argv[1], "reload", &want[i & 1], false, &loaded))
			return FAILED;
		pins_unlock(lock);
		if (loaded.unchanged)
			return FAILED;
		for (before = judged(argv[1]); judged(argv[1]) < before + packets;)
			usleep(500);
	}
	printf("%d\n", n);
	return DONE;
}
