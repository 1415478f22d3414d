// SPDX-License-Identifier: GPL-2.0-only
#include <net/if.h>		/* before the headers of the kernel that define the same */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <linux/if_arp.h>
#include <linux/if_ether.h>
#include <linux/magic.h>

#include "common.h"

struct asked asked;

/* --- messages --- */

void complain(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "%s: ", program_invocation_short_name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

void complain_err(int err, const char *object, const char *fmt, ...)
{
	va_list ap;

	err = abs(err);
	fflush(stdout);
	fprintf(stderr, "%s: %s: ", program_invocation_short_name, object);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, ": %s%s\n", strerror(err),
		err == EPERM || (err == EACCES && geteuid()) ?
		" (CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are needed; are you root?)" : "");
}

static int libbpf_printer(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	if (asked.verbose < (level == LIBBPF_DEBUG ? 2 : 1))
		return 0;
	return vfprintf(stderr, fmt, ap);
}

/* --- results --- */

int json_out(json_t *doc)
{
	bool ok = doc && !json_dumpf(doc, stdout, JSON_INDENT(2)) && putchar('\n') != EOF &&
		  !fflush(stdout);

	if (!ok)
		complain_err(doc ? errno : ENOMEM, "standard output", "cannot write");
	json_decref(doc);
	return ok ? DONE : FAILED;
}

static json_t *changes;

void change(const char *object, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (!changes)
		changes = json_array();
	json_array_append_new(changes, json_string(line));
	if (!asked.json)
		printf("%s: %s%s\n", object, asked.dry_run ? "would " : "", line);
}

int report(const char *kind, const char *object, int rc)
{
	bool changed = json_array_size(changes);

	if (rc || !asked.json) {
		json_decref(changes);
		if (!rc && !changed)
			printf("%s: unchanged\n", object);
		return rc;
	}
	return json_out(json_pack("{s:s, s:b, s:b, s:o}", kind, object, "dry_run", asked.dry_run,
				  "changed", changed, "changes", changes ?: json_array()));
}

int report_needs(const struct need *needs, size_t n)
{
	json_t *list = json_array();
	bool ok = true;
	int rc = DONE;

	for (size_t i = 0; i < n; i++) {
		const struct need *need = &needs[i];

		ok &= need->there || need->optional;
		json_array_append_new(list, json_pack("{s:s, s:b, s:b, s:s}", "name", need->name,
						      "present", need->there, "optional",
						      need->optional, "need", need->what));
		if (!asked.json)
			printf("%-14s %s%s%s\n", need->name, need->there ? "yes" : "no: ",
			       need->there ? "" : need->what,
			       !need->there && need->optional ? " (optional)" : "");
	}
	if (asked.json)
		rc = json_out(json_pack("{s:b, s:o}", "ok", ok, "needs", list));
	else
		json_decref(list);
	return rc ?: ok ? DONE : LACKING;
}

/* --- input --- */

bool parse_u32(const char *text, __u32 min, __u32 max, __u32 *value)
{
	unsigned long long n;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno || *end || n < min || n > max)
		return false;
	*value = n;
	return true;
}

int read_file(const char *path, size_t max, char **text, size_t *len)
{
	size_t size = 0, room = 0;
	char *buf = NULL, *more;
	int fd = 0, err = 0;
	ssize_t n;

	if (strcmp(path, "-"))
		fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	do {
		if (room - size < 2) {
			room = room ? 2 * room : 65536;
			more = realloc(buf, room);
			if (!more) {
				err = -ENOMEM;
				break;
			}
			buf = more;
		}
		n = read(fd, buf + size, room - size - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			err = -errno;
		else
			size += n;
		if (size > max)
			err = -EFBIG;
	} while (!err && n);
	if (fd)
		close(fd);
	if (err) {
		free(buf);
		return err;
	}
	buf[size] = 0;
	*text = buf;
	*len = size;
	return 0;
}

/* --- network namespaces --- */

int netns_open(const char *name)
{
	char path[PATH_MAX];
	int fd;

	if (snprintf(path, sizeof(path), "%s%s", strchr(name, '/') ? "" : "/run/netns/", name) >=
	    (int)sizeof(path))
		return -ENAMETOOLONG;
	/* O_NONBLOCK: what stands there may be a FIFO that nobody writes to */
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int netns_enter(const char *name)
{
	int fd = netns_open(name), err = 0;

	if (fd < 0)
		return fd;
	if (setns(fd, CLONE_NEWNET))
		err = -errno;
	close(fd);
	return err;
}

__u64 netns_cookie(void)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	__u64 cookie = 0;
	socklen_t len = sizeof(cookie);

	if (fd < 0)
		return 0;
	if (getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len))
		cookie = 0;
	close(fd);
	return cookie;
}

/* --- devices and links --- */

_Static_assert(sizeof(((struct net_dev *)0)->name) == IF_NAMESIZE, "the name of a device");

int dev_find(const char *text, struct net_dev *dev)
{
	struct ifreq req = {};
	int fd, err = 0;

	memset(dev, 0, sizeof(*dev));
	dev->ifindex = if_nametoindex(text);
	if (!dev->ifindex && !parse_u32(text, 1, INT32_MAX, &dev->ifindex))
		return -ENODEV;
	if (!if_indextoname(dev->ifindex, dev->name))
		return errno == ENXIO ? -ENODEV : -errno;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	memcpy(req.ifr_name, dev->name, sizeof(req.ifr_name));
	if (ioctl(fd, SIOCGIFHWADDR, &req))
		err = -errno;
	close(fd);
	dev->arphrd = req.ifr_hwaddr.sa_family;
	dev->netns = netns_cookie();
	if (!err && !dev->netns)
		err = -EOPNOTSUPP;
	return err;
}

int dev_arg(const char *text, struct net_dev *dev)
{
	int err = dev_find(text, dev);

	switch (err) {
	case 0:
		return DONE;
	case -ENODEV:
		complain("%s: no such device", text);
		return NOTHING;
	case -EOPNOTSUPP:
		complain("the kernel does not tell network namespaces apart; Linux 5.14 is needed");
		return LACKING;
	default:
		complain_err(err, text, "cannot look at it");
		return FAILED;
	}
}

int arphrd_l2_len(__u32 arphrd)
{
	switch (arphrd) {
	case ARPHRD_ETHER:	/* netkit has this type in L3 mode too */
	case ARPHRD_LOOPBACK:
		return ETH_HLEN;
	case ARPHRD_NONE:
	case ARPHRD_RAWIP:
	case ARPHRD_TUNNEL:
	case ARPHRD_TUNNEL6:
	case ARPHRD_SIT:
	case ARPHRD_PPP:
		return 0;
	default:
		return -1;
	}
}

int chain_get(__u32 ifindex, enum bpf_attach_type type, struct chain *chain)
{
	LIBBPF_OPTS(bpf_prog_query_opts, opts, .prog_ids = chain->ids, .link_ids = chain->links,
		    .count = CHAIN_MAX);

	memset(chain, 0, sizeof(*chain));
	if (bpf_prog_query_opts(ifindex, type, &opts))
		return -errno;
	chain->revision = opts.revision;
	chain->n = opts.count;
	return 0;
}

/* --- pins --- */

bool pin_path(char path[PIN_PATH], const char *dir, const char *name)
{
	return snprintf(path, PIN_PATH, "%s/%s", dir, name) < PIN_PATH;
}

int pin_get(const char *dir, const char *name)
{
	char path[PIN_PATH];
	int fd;

	if (!pin_path(path, dir, name))
		return -ENAMETOOLONG;
	fd = bpf_obj_get(path);
	return fd < 0 ? -errno : fd;
}

int pin_put(int fd, const char *dir, const char *name)
{
	char path[PIN_PATH];

	if (!pin_path(path, dir, name))
		return -ENAMETOOLONG;
	return bpf_obj_pin(fd, path) ? -errno : 0;
}

int pin_unlink(const char *dir, const char *name)
{
	char path[PIN_PATH];

	if (!pin_path(path, dir, name))
		return -ENAMETOOLONG;
	return unlink(path) ? -errno : 0;
}

int pin_dir_remove(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int err = 0;

	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while (!err && (e = readdir(d)))
		if (e->d_name[0] != '.' && unlinkat(dirfd(d), e->d_name, 0))
			err = -errno;
	closedir(d);
	return !err && rmdir(dir) ? -errno : err;
}

/* Elsewhere it takes CAP_SYS_ADMIN. Where there is none, it stays empty. */
static void link_tag(int fd, char tag[LINK_TAG])
{
	char path[64], line[128];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "re");
	if (!f)
		return;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "prog_tag: %16[0-9a-f]", tag) == 1)
			break;
	fclose(f);
}

int link_open(const char *dir, const char *name, struct pinned_link *link)
{
	struct bpf_link_info info = {};
	__u32 len = sizeof(info);

	memset(link, 0, sizeof(*link));
	link->fd = pin_get(dir, name);
	if (link->fd < 0) {
		int err = link->fd;

		link->fd = -1;
		return err == -ENOENT ? 0 : err;
	}
	if (bpf_link_get_info_by_fd(link->fd, &info, &len))
		return -errno;
	link->id = info.id;
	link->prog_id = info.prog_id;
	link->ifindex = info.type == BPF_LINK_TYPE_NETKIT ? info.netkit.ifindex : info.tcx.ifindex;
	link_tag(link->fd, link->tag);
	return 0;
}

void link_close(struct pinned_link *link)
{
	if (link->fd >= 0)
		close(link->fd);
	link->fd = -1;
}

int pins_check(void)
{
	struct statfs st;

	if (!statfs(BPFFS, &st) && st.f_type == BPF_FS_MAGIC)
		return DONE;
	complain("%s: no BPF file system is mounted there; mount -t bpf bpffs %s, or, instead of "
		 "`ip netns exec NAME`, use nsenter --net=/run/netns/NAME",
		 BPFFS, BPFFS);
	return FAILED;
}

int pins_lock(const char *root, bool wait)
{
	int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err;

	if (fd < 0)
		return -errno;
	if (!flock(fd, LOCK_EX | LOCK_NB))
		return fd;
	if (errno == EWOULDBLOCK && wait) {
		if (asked.verbose)
			complain("waiting for another %s to finish", program_invocation_short_name);
		if (!flock(fd, LOCK_EX))
			return fd;
	}
	err = -errno;
	close(fd);
	return err;
}

int pins_change(const char *root, int *fd)
{
	int rc = pins_check();

	*fd = -1;
	if (rc || asked.dry_run)
		return rc;
	if ((mkdir(PIN_ROOT, 0755) && errno != EEXIST) || (mkdir(root, 0755) && errno != EEXIST)) {
		complain_err(errno, root, "cannot create the directory");
		return FAILED;
	}
	*fd = pins_lock(root, true);
	if (*fd >= 0)
		return DONE;
	complain_err(*fd, root, "cannot lock");
	return FAILED;
}

void pins_unlock(int fd)
{
	if (fd >= 0)
		close(fd);
}

/* --- the command line --- */

enum {
	OPT_DRY_RUN = 256,
	OPT_PROBE,
};

static const struct argp_option options[] = {
	{"json", 'j', NULL, 0, "print JSON", 0},
	{"dry-run", OPT_DRY_RUN, NULL, 0, "say what would change", 0},
	{"probe", OPT_PROBE, NULL, 0, "say what this kernel has of what is needed", 0},
	{"verbose", 'v', NULL, 0, "show libbpf's warnings; twice: all it says", 0},
	{}};

/* What is no option, wherever it stands. */
struct words {
	char **arg;
	int n;
	bool probe;
};

static error_t parse_opt(int key, char *arg, struct argp_state *state)
{
	struct words *words = state->input;

	switch (key) {
	case 'j':
		asked.json = true;
		break;
	case OPT_DRY_RUN:
		asked.dry_run = true;
		break;
	case OPT_PROBE:
		words->probe = true;
		break;
	case 'v':
		asked.verbose++;
		break;
	case ARGP_KEY_ARG:
		words->arg[words->n++] = arg;
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

__u32 option_u32(struct argp_state *state, const char *option, const char *arg, __u32 min,
		 __u32 max)
{
	__u32 n = min;

	if (!parse_u32(arg, min, max, &n))
		argp_error(state, "--%s takes a number from %u to %u", option, min, max);
	return n;
}

int option_word(struct argp_state *state, const char *option, const char *arg,
		const char *const *words)
{
	char list[256] = "";

	for (int i = 0; words[i]; i++) {
		if (!strcmp(arg, words[i]))
			return i;
		snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s",
			 !i ? "" : words[i + 1] ? ", " : " or ", words[i]);
	}
	argp_error(state, "--%s takes %s", option, list);
	return 0;
}

int usage_error(const char *verb, const char *what)
{
	complain("%s: %s; see %s --help", verb, what, program_invocation_short_name);
	return USAGE;
}

static int run(const struct tool *tool, const struct words *words)
{
	const struct verb *verb = tool->verbs;
	int rc;

	if (words->probe && words->n)
		return usage_error("--probe", "takes no arguments");
	if (!words->probe) {
		while (verb->name && strcmp(verb->name, words->arg[0]))
			verb++;
		if (!verb->name)
			return usage_error(words->arg[0], "no such verb");
	}
	rc = tool->ready ? tool->ready() : DONE;
	if (rc)
		return rc;
	return words->probe ? tool->probe() : verb->run(words->n - 1, words->arg + 1);
}

int tool_main(const struct tool *tool, int argc, char **argv)
{
	const struct argp own = {tool->options, tool->parse, NULL, NULL, NULL, NULL, NULL};
	const struct argp_child children[] = {{&own, 0, NULL, 0}, {}};
	const struct argp argp = {options, parse_opt, tool->args_doc, tool->doc, children, NULL,
				  NULL};
	struct words words = {.arg = calloc(argc + 1ul, sizeof(*words.arg))};
	int rc;

	if (!words.arg)
		return FAILED;
	argv[0] = program_invocation_short_name;
	argp_err_exit_status = USAGE;
	libbpf_set_print(libbpf_printer);
	if (argp_parse(&argp, argc, argv, 0, NULL, &words)) {
		rc = USAGE;
	} else if (!words.n && !words.probe) {
		argp_help(&argp, stderr, ARGP_HELP_STD_USAGE, program_invocation_short_name);
		rc = USAGE;
	} else {
		rc = run(tool, &words);
	}
	free(words.arg);
	/* what standard output did not take is a failure */
	if (rc || !fflush(stdout))
		return rc;
	complain_err(errno, "standard output", "cannot write");
	return FAILED;
}
