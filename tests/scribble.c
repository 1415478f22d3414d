// SPDX-License-Identifier: GPL-2.0-only
/*
 * Writes into a pinned arena what a hostile process could.
 * usage: scribble PIN SEED		junk all over; ff where the seed is 0
 *	  scribble PIN OFFSET BYTE	one byte
 */
#include <bpf/bpf.h>
#include <err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);
	size_t size;
	__u8 *p;
	int fd;

	if (argc != 3 && argc != 4)
		errx(2, "usage: scribble PIN SEED | PIN OFFSET BYTE");
	fd = bpf_obj_get(argv[1]);
	if (fd < 0 || bpf_map_get_info_by_fd(fd, &info, &len))
		err(1, "%s", argv[1]);
	size = info.max_entries * sysconf(_SC_PAGESIZE);
	p = mmap((void *)(unsigned long)info.map_extra, size, PROT_READ | PROT_WRITE, MAP_SHARED,
		 fd, 0);
	if (p == MAP_FAILED)
		err(1, "mmap");
	if (argc == 4) {
		p[atoi(argv[2])] = atoi(argv[3]);
		return 0;
	}
	srand(atoi(argv[2]));
	for (size_t i = 0; i < size; i++)
		p[i] = atoi(argv[2]) ? rand() : 0xff;
	return 0;
}
