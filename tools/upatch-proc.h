/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * upatch: processes, and what they have mapped.
 */
#ifndef UPATCH_PROC_H
#define UPATCH_PROC_H

#include "upatch-elf.h"

/* A part of a process' memory. */
struct up_map {
	__u64 start, end, offset;
	char perms[5];
	dev_t dev;
	ino_t ino;
	char path[UP_PATH]; /* with " (deleted)" where it is; "": not a file's */
};

struct up_maps {
	struct up_map *map;
	size_t n;
};

/* 0 or -errno: -EACCES without the right to look, 0 and none for a kernel thread. */
int up_maps_read(__u32 pid, struct up_maps *maps);
void up_maps_free(struct up_maps *maps);

void up_comm(__u32 pid, char comm[16]);

/* The file behind a mapping, though it was replaced on disk. NULL: see why. */
struct up_object *up_mapped_object(__u32 pid, const struct up_map *map, char *why);

/* A process that is to be patched, and whether it was. */
enum up_state { UP_TODO, UP_DONE, UP_UNCHANGED, UP_SKIPPED, UP_FAILED };

struct up_target {
	__u32 pid;
	char comm[16];
	struct up_object *object; /* NULL: state says what is wrong */
	__u64 addr;		  /* of the function, once it is placed */
	enum up_state state;
	char why[UP_WHY];
};

struct up_targets {
	struct up_target *target;
	size_t n;
	unsigned int hidden; /* processes that could not be looked at */
};

struct up_target *up_targets_add(struct up_targets *ts, __u32 pid);
void up_targets_free(struct up_targets *ts);

/*
 * Who is meant: one process and an object in it (NULL: its program; a path or a base name), all
 * that have a file mapped, or all that have one with a build-id. 0, or an exit code and a message.
 */
int up_targets_of_pid(__u32 pid, const char *object, struct up_targets *ts);
int up_targets_of_file(const char *path, struct up_targets *ts);
int up_targets_of_build_id(const __u8 *id, __u32 len, struct up_targets *ts);
/* Of a file in any copy, as one patch has it. */
int up_targets_of_object(const __u8 *id, __u32 len, const char *path, struct up_targets *ts);

/* Where the function is in the process, or why it cannot be patched there. 0 or -1. */
int up_target_place(struct up_target *t, const struct up_site *site);
/* Whether the process has at addr what the file has. 0 no, 1 yes, -errno. */
int up_target_intact(const struct up_target *t, const struct up_site *site);

/* A start for an arena where none of them, nor this process, has anything for 4G. 0: none. */
__u64 up_free_window(const struct up_targets *ts);

#endif
