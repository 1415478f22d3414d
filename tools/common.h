/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What every tool does in the same way. A tool describes itself in a struct tool, and its
 * main() calls tool_main(), which does the rest of main(). Each of its verbs returns an
 * exit code and has told by then what went wrong.
 */
#ifndef COMMON_H
#define COMMON_H

#include <argp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/libbpf.h>
#include <jansson.h>
#include <linux/types.h>

enum {
	DONE = 0,		/* or already so */
	FAILED = 1,
	USAGE = 2,		/* or bad input */
	NOTHING = 3,		/* nothing matched */
	LACKING = 4,		/* the kernel lacks something */
};

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* --- the command line --- */

/* The options that all tools have. */
extern struct asked {
	bool json;		/* -j */
	bool dry_run;
	int verbose;		/* -v: libbpf's warnings, -vv: all, with the verifier's log */
} asked;

struct verb {
	const char *name;
	int (*run)(int argc, char **argv);	/* with the arguments behind the name */
};

struct tool {
	const struct argp_option *options;	/* those of its own */
	argp_parser_t parse;
	const char *args_doc, *doc;
	const struct verb *verbs;		/* to one without a name */
	int (*ready)(void);			/* before a verb or --probe; NULL: nothing */
	int (*probe)(void);
};

int tool_main(const struct tool *tool, int argc, char **argv);

/* For a tool's parser; what does not fit is a usage error. */
__u32 option_u32(struct argp_state *state, const char *option, const char *arg, __u32 min,
		 __u32 max);
/* One of two words or more, NULL at the end: which. */
int option_word(struct argp_state *state, const char *option, const char *arg,
		const char *const *words);

/* What is wrong with a verb's arguments; USAGE. */
int usage_error(const char *verb, const char *what);

/* --- messages --- */

/* "TOOL: ..." and a newline to stderr. */
void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* "TOOL: OBJECT: WHAT: strerror(err)", with a hint about capabilities on EPERM. */
void complain_err(int err, const char *object, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* --- results --- */

/* One document and a newline to stdout; takes the reference. DONE or FAILED. */
int json_out(json_t *doc);

/* One change: a line, or with -j an element of "changes"; with --dry-run what would be done. */
void change(const char *object, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The end of a verb that changes things. kind: what the object is called in JSON. */
int report(const char *kind, const char *object, int rc);

/* A line of --probe. */
struct need {
	const char *name;
	const char *what;		/* to install or to configure where it is not there */
	bool there, optional;
};

/* All of --probe. LACKING where something is not there that is not optional. */
int report_needs(const struct need *needs, size_t n);

/* --- input --- */

/* A whole decimal number in [min, max]. */
bool parse_u32(const char *text, __u32 min, __u32 max, __u32 *value);

/* A file, or "-": standard input. malloc'd with a NUL behind it. 0 or -errno; -EFBIG above max. */
int read_file(const char *path, size_t max, char **text, size_t *len);

/* --- network namespaces --- */

/* A path, or a name below /run/netns. 0 or -errno. */
int netns_open(const char *name);
int netns_enter(const char *name);
/* The cookie that names the current network namespace for good; 0: not known. */
__u64 netns_cookie(void);

/* --- devices and links --- */

struct net_dev {
	char name[16];			/* IF_NAMESIZE, whose header not all can include */
	__u32 ifindex;
	__u16 arphrd;
	__u64 netns;			/* cookie */
};

/* Name or index. 0 or -errno: -EOPNOTSUPP where there are no cookies, before Linux 5.14. */
int dev_find(const char *text, struct net_dev *dev);
/* The same for a tool's argument: DONE, or an exit code and a message. */
int dev_arg(const char *text, struct net_dev *dev);

/* Bytes of link-layer header that programs see at a device of that kind; -1: not known. */
int arphrd_l2_len(__u32 arphrd);

/* The programs at a hook of a device, in order. */
#define CHAIN_MAX 64
struct chain {
	__u64 revision;
	__u32 n, ids[CHAIN_MAX];
	__u32 links[CHAIN_MAX];	/* 0: attached without a link */
};

/* 0 or -errno: -EINVAL the kernel has no such hook, -ENXIO the device is no netkit. */
int chain_get(__u32 ifindex, enum bpf_attach_type type, struct chain *chain);

#define LINK_TAG 17
struct pinned_link {
	int fd;			/* -1: not pinned */
	__u32 id, prog_id;
	__u32 ifindex;		/* 0: the link is dead */
	char tag[LINK_TAG];	/* of the program */
};

/* --- pins --- */

#define BPFFS		"/sys/fs/bpf"
#define PIN_ROOT	BPFFS "/skelkit"	/* each tool has a directory here: its root */
#define PIN_PATH	160

/* dir/name, or false: too long. */
bool pin_path(char path[PIN_PATH], const char *dir, const char *name);
/* A descriptor, or -errno. */
int pin_get(const char *dir, const char *name);
/* 0 or -errno. */
int pin_put(int fd, const char *dir, const char *name);
int pin_unlink(const char *dir, const char *name);
/* A directory, if it is there, with its pins. */
int pin_dir_remove(const char *dir);

/* A link at tcx or netkit. 0, also where there is no such pin, or -errno. */
int link_open(const char *dir, const char *name, struct pinned_link *link);
void link_close(struct pinned_link *link);

/* Whether pins can be at all: DONE, or an exit code and a message. */
int pins_check(void);
/* Lock a tool's root: a descriptor, closed to unlock, or -errno; -EWOULDBLOCK only without wait. */
int pins_lock(const char *root, bool wait);
/*
 * The begin of a verb that changes things: pins_check(), make the root, lock it. *fd is closed
 * to unlock; with --dry-run there is nothing to lock, and it is -1.
 */
int pins_change(const char *root, int *fd);
/* And its end, on any way out. */
void pins_unlock(int fd);

#endif
