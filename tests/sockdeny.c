// SPDX-License-Identifier: GPL-2.0-only
/*
 * Load each program of sockdeny.bpf.c alone and compare what the verifier says.
 * A line for each; exit 1 when one was not as it should be. With -v, or
 * then, also what the verifier said.
 */
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
	{ "good_cast", NULL },
	{ "good_fentry", NULL },
	{ "good_iter_nets", NULL },
	{ "good_iter_tcp", NULL },
};

static char log_buf[1 << 20];

static int quiet(enum libbpf_print_level level, const char *fmt, va_list args)
{
	return 0;
}

static bool check(const char *name, const char *says, bool verbose)
{
	struct sockdeny *skel = sockdeny__open();
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

int main(int argc, char **argv)
{
	bool verbose = argc > 1 && !strcmp(argv[1], "-v");
	int bad = 0;

	libbpf_set_print(quiet);
	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++)
		bad += !check(tests[i].prog, tests[i].says, verbose);
	return bad ? EXIT_FAILURE : EXIT_SUCCESS;
}
