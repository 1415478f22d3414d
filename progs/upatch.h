/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * upatch: what programs and the tool share. The arena is mapped into the patched process
 * too, where user mode runs the programs: whoever reads it takes nothing in it for granted.
 * What the tool relies on is in a map of its own, struct up_meta.
 */
#ifndef UPATCH_H
#define UPATCH_H

#define UP_MAGIC   0x68637061 /* "apch" */
#define UP_VERSION 2

/* A call at the entry of a function: as struct bpf_user_patch_ctx, but no CO-RE for it. */
struct up_call {
	__u64 args[6];
	__u64 ret;
	__u64 sp, ip, cookie;
};

_Static_assert(sizeof(struct up_call) == 80, "the kernel's ABI");

enum up_verdict { UP_CONTINUE, UP_RETURN };

/* --- rules --- */

enum up_kind { UP_COUNT, UP_CLAMP, UP_DENY, UP_OWN, UP_KINDS };
enum up_test { UP_ALWAYS, UP_EQ, UP_ABOVE, UP_BELOW, UP_STARTS, UP_TESTS };

#define UP_PREFIX 32

/* Of clamp: min to max. Of deny: the test, and what is returned. */
struct up_rule {
	__u32 gen; /* the generation that it belongs to */
	__u8 kind, test;
	__u8 arg;	/* 0 to 5 */
	__u8 bytes;	/* of the argument: 1, 2, 4 or 8 */
	__u8 is_signed; /* the argument, and with it min, max and value */
	__u8 prefix_len;
	__u8 pad[6];
	__u64 min, max;
	__u64 value;
	__u64 ret;
	union {
		__u8 prefix[UP_PREFIX];
		__u64 words[UP_PREFIX / 8];
	};
};

_Static_assert(sizeof(struct up_rule) == 80, "no padding");

/* --- what programs tell --- */

enum up_what { UP_CALLED, UP_CLAMPED, UP_DENIED, UP_TOLD, UP_WHATS };

/*
 * seq is 2 * ticket + 1 while it is written, and one more when it is there. In user mode
 * nothing tells the time or the thread: ns, pid and tid are 0 then, and sp says who.
 */
struct up_event {
	__u64 seq;
	__u64 ns; /* since boot */
	__u64 args[6];
	__u64 value; /* clamped: the argument as it is now; denied: what is returned */
	__u64 sp;
	__u32 pid, tid;
	__u32 what;
	__u32 pad;
};

_Static_assert(sizeof(struct up_event) == 96, "no padding");

/* who: the thread's id; in user mode the megabyte of stack that it runs on. 0: free. */
struct up_thread {
	__u64 who;
	__u64 calls;
};

#define UP_RING	   256 /* a power of two */
#define UP_THREADS 128 /* a power of two */

struct up_arena {
	__u32 magic, version;
	__u32 on;  /* 0: programs do nothing */
	__u32 gen; /* rules[gen & 1] is in force; the other is written, then gen is raised */
	__u64 calls;
	__u64 hits;    /* clamped, denied, or told so by a program of the user's */
	__u64 others;  /* traps in processes that are not patched; uprobe only */
	__u64 faults;  /* reads of memory that is not there; uprobe only */
	__u64 stale;   /* calls that met a rule in the middle of two changes, and let it be */
	__u64 crowded; /* calls of threads that have no place below */
	__u64 head;    /* tickets of the ring that were given */
	__u64 drops;   /* events lost, since another was being written in their place */
	struct up_rule rules[2];
	struct up_thread threads[UP_THREADS];
	struct up_event ring[UP_RING];
};

/* --- for the tool alone --- */

#define UP_NAME	   128
#define UP_PATH	   512
#define UP_ID_MAX  32 /* bytes of a build-id */

struct up_meta {
	__u32 magic, version;
	__u32 id;
	__u32 kind; /* enum up_kind */
	__u32 backend;
	__u32 build_id_len;
	__u8 build_id[UP_ID_MAX];
	__u64 offset;	 /* of the function in the file */
	__u64 since;	 /* seconds of CLOCK_REALTIME */
	__u64 prog_hash; /* of the user's object */
	__u64 arena_start;
	__u32 arena_pages;
	__u32 arena_off; /* of struct up_arena */
	__u32 updates;
	__u32 pad;
	__s64 gadget; /* from the function to a `ret` */
	char function[UP_NAME];
	char object[UP_PATH];
	char program[UP_NAME];
};

#endif
