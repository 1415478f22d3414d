// SPDX-License-Identifier: GPL-2.0-only
/*
 * Load each program of sockdeny.bpf.c alone and compare what the verifier says.
 * A line for each; exit 1 when one was not as it should be. With -v, or
 * then, also what the verifier said. With -t what it says to a container, to which
 * all of BPF was delegated by a token.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sockdeny.skel.h"

static const struct {
	const char *prog;
	const char *says;	/* NULL: loads */
} tests[] = {
	{ "after_next", "R1 is scalar expected STRUCT sock_common" },
	{ "after_next_read", "invalid mem access 'scalar'" },
	{ "after_loop", "R1 is scalar expected STRUCT sock_common" },
	{ "after_next_cast", "R1 type=scalar expected=" },
	{ "net_after_next", "R2 is scalar expected STRUCT net" },
	{ "after_next_subprog", "R1 is scalar expected STRUCT sock_common" },
	{ "after_next_match", "R1 is scalar expected STRUCT sock_common" },
	{ "match_beyond", "invalid read from stack" },
	{ "in_rcu", "kernel func bpf_sock_destroy is sleepable within rcu_read_lock region" },
	{ "in_preempt", "kernel func bpf_sock_destroy is sleepable within non-preemptible region" },
	{ "in_irq", "kernel func bpf_sock_destroy is sleepable within IRQ-disabled region" },
	{ "in_spin_lock", "not allowed while holding a lock" },
	{ "next_in_rcu", "kernel func bpf_iter_tcp_next is sleepable within rcu_read_lock region" },
	{ "not_sleepable", "program must be sleepable to call sleepable kfunc bpf_iter_tcp_new" },
	{ "destroy_not_sleepable",
	  "program must be sleepable to call sleepable kfunc bpf_sock_destroy" },
	{ "destroy_traced", "program must be sleepable to call sleepable kfunc bpf_sock_destroy" },
	{ "iter_task", "calling kernel function bpf_iter_tcp_new is not allowed" },
	{ "iter_tcp", "calling kernel function bpf_iter_udp_new is not allowed" },
	{ "raw_tp", "calling kernel function bpf_iter_net_new is not allowed" },
	{ "untrusted_net", "must be referenced or trusted" },
	{ "not_destroyed", "Unreleased reference" },
	{ "other_iterator", "expected an initialized iter_udp" },
	{ "good_two", NULL },
	{ "good_nets", NULL },
	{ "good_cast", NULL },
	{ "good_fentry", NULL },
	{ "good_iter_nets", NULL },
	{ "good_iter_tcp", NULL },
};

static const struct {
	const char *prog, *says;
} by_token[] = {
	{ "good_nothing", NULL },
	{ "good_nets", "calling kernel function bpf_iter_net_new is not allowed" },
	{ "good_two", "calling kernel function bpf_iter_tcp_new is not allowed" },
};

static char log_buf[1 << 20];

static int quiet(enum libbpf_print_level level, const char *fmt, va_list args)
{
	return 0;
}

static bool check(const char *name, const char *says, bool verbose, const char *token)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .bpf_token_path = token);
	struct sockdeny *skel = sockdeny__open_opts(&opts);
	struct bpf_program *prog;
	bool ok;
	int err;

	if (!skel)
		return false;
	prog = bpf_object__find_program_by_name(skel->obj, name);
	bpf_program__set_autoload(prog, true);
	log_buf[0] = '\0';
	bpf_program__set_log_buf(prog, log_buf, sizeof(log_buf));
	bpf_program__set_log_level(prog, 1);
	err = sockdeny__load(skel);
	ok = says ? err && strstr(log_buf, says) : !err;
	printf("%s %s: %s\n", ok ? "ok" : "not ok", name, err ? strerror(-err) : "loads");
	if (verbose || !ok)
		printf("%s\n", log_buf);
	sockdeny__destroy(skel);
	return ok;
}

/* --- by a token */

/* One descriptor through a socket: sent with fd >= 0, else received. */
static int pass_fd(int sock, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = {};
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	if (fd >= 0) {
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
		return sendmsg(sock, &msg, 0) == 1 ? 0 : -1;
	}
	if (recvmsg(sock, &msg, 0) != 1 || !CMSG_FIRSTHDR(&msg))
		return -1;
	memcpy(&fd, CMSG_DATA(c), sizeof(int));
	return fd;
}

static int fsconfig_set(int fs, const char *key, const char *value)
{
	return syscall(SYS_fsconfig, fs, value ? FSCONFIG_SET_STRING : FSCONFIG_CMD_CREATE, key,
		       value, 0);
}

/* Root of a user namespace, with a file system of BPF that the host's root has set up. */
static int contained(int sock, bool verbose)
{
	int fs, mount, bad = 0;
	char token[32], byte;

	if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
		err(1, "user namespace");
	fs = syscall(SYS_fsopen, "bpf", 0);
	if (fs < 0 || pass_fd(sock, fs) || read(sock, &byte, 1) != 1)
		err(1, "bpf file system");
	mount = syscall(SYS_fsmount, fs, 0, 0);
	if (mount < 0)
		err(1, "mount");
	snprintf(token, sizeof(token), "/proc/self/fd/%d", mount);
	for (size_t i = 0; i < sizeof(by_token) / sizeof(*by_token); i++)
		bad += !check(by_token[i].prog, by_token[i].says, verbose, token);
	return bad;
}

static int delegate(bool verbose)
{
	static const char *const what[] = { "delegate_cmds", "delegate_maps", "delegate_progs",
					    "delegate_attachs" };
	int sock[2], fs, status;
	pid_t child;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sock))
		err(1, "socket");
	child = fork();
	if (!child) {
		close(sock[0]);
		exit(contained(sock[1], verbose));
	}
	close(sock[1]);
	fs = pass_fd(sock[0], -1);
	for (size_t i = 0; fs >= 0 && i < sizeof(what) / sizeof(*what); i++)
		if (fsconfig_set(fs, what[i], "any"))
			err(1, "%s", what[i]);
	if (fs < 0 || fsconfig_set(fs, NULL, NULL) || write(sock[0], "", 1) != 1)
		err(1, "bpf file system");
	return waitpid(child, &status, 0) != child || !WIFEXITED(status) ? 1 : WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
	bool verbose = argc > 1 && !strcmp(argv[1], "-v");
	int bad = 0;

	libbpf_set_print(quiet);
	if (argc > 1 && !strcmp(argv[1], "-t"))
		return delegate(argc > 2) ? EXIT_FAILURE : EXIT_SUCCESS;
	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++)
		bad += !check(tests[i].prog, tests[i].says, verbose, NULL);
	return bad ? EXIT_FAILURE : EXIT_SUCCESS;
}
