// SPDX-License-Identifier: GPL-2.0-only
/*
 * What `netpol load` does, N times over in one process, with two policies in turn: the
 * tool's own code without the start of a program, which costs more than a load when
 * emulated. usage: netpol-reload DIR N FILE FILE
 */
#include <stdlib.h>
#include <stdio.h>
#include <unistd.h>

#include "common.h"
#include "netpol-load.h"

int main(int argc, char **argv)
{
	struct np_want want[2] = {};
	struct np_loaded loaded;
	char *text;
	int i, n, lock;

	if (argc != 5)
		return USAGE;
	n = atoi(argv[2]);
	for (i = 0; i < 2; i++) {
		want[i] = (struct np_want){ .file = argv[3 + i], .dflt = -1, .stateless = -1 };
		if (read_file(argv[3 + i], 1 << 20, &text, &want[i].len))
			return USAGE;
		want[i].text = text;
	}
	for (i = 0; i < n; i++) {
		lock = np_lock(true);
		if (lock < 0 || np_load(argv[1], "reload", &want[i & 1], false, &loaded))
			return FAILED;
		close(lock);
		if (loaded.unchanged)
			return FAILED;
	}
	printf("%d\n", n);
	return DONE;
}
