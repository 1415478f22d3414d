/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * upatch: ELF objects as processes have them mapped, and functions in them. What goes wrong
 * is told in words, into a buffer of UP_WHY bytes: it is the reason in a line of its own.
 */
#ifndef UPATCH_ELF_H
#define UPATCH_ELF_H

#include <stdbool.h>
#include <sys/types.h>
#include <linux/types.h>

#include "upatch.h"

#define UP_WHY 256

/* Says why, and is -1. */
int up_fail(char *why, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

struct up_object {
	int fd;
	dev_t dev; /* as /proc/PID/maps has them */
	ino_t ino;
	char path[UP_PATH];
	__u8 build_id[UP_ID_MAX];
	__u32 build_id_len; /* 0: it has none */
	char build_id_text[2 * UP_ID_MAX + 1];
	struct up_object *next;
};

struct up_site {
	char function[UP_NAME]; /* as it is told: SYMBOL, SYMBOL+OFFSET or 0xOFFSET */
	__u64 offset;		/* in the file */
	__u64 size;		/* 0: not known */
	__s64 gadget;		/* from there to a `ret` */
	__u8 bytes[16];		/* what the file has there */
	bool debug;		/* the symbol is of a separate debug file */
};

/* The object behind a descriptor, which it takes; NULL: see why. Kept until the tool ends. */
struct up_object *up_object_get(int fd, dev_t dev, ino_t ino, const char *path, char *why);
struct up_object *up_object_known(dev_t dev, ino_t ino);

/* "ab12..." 0 or -1. */
int up_build_id_parse(const char *text, __u8 *id, __u32 *len);
bool up_build_id_is(const struct up_object *o, const __u8 *id, __u32 len);

/* SYMBOL, SYMBOL+OFFSET or 0xOFFSET. 0 or -1. */
int up_site_find(const struct up_object *o, const char *function, struct up_site *site, char *why);

#endif
