// SPDX-License-Identifier: GPL-2.0-only
/*
 * Kills a command with SIGKILL before each of its system calls that could change
 * something, one run for each, and looks each time at which rule set is in force.
 * Between two such calls the world stays the same, so this covers a kill at any point.
 */
#include <getopt.h>
#include <linux/types.h>
#include <linux/bpf.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "flow.h"

static void usage(void)
{
	fprintf(stderr,
		"usage: killer [-a NETNS -b NETNS] [-o] [-r N] [-s SETUP] [-u CHECK] -A COMMAND [-B COMMAND] [FLOW...]\n"
		"-A, -B  what puts rule set a, b in force; a run picks the set that is not in force\n"
		"-r      kill N times, before whichever call, at random\n"
		"-s      before each run\n"
		"-u      after each kill, must exit with 0; so must -A and -B when not killed\n"
		"-o      all flows may also pass: nothing is attached yet\n"
		"FLOW    as for traffic, want 'a': passes with set a; 'b'; 'pass': with both; 'drop': never;\n"
		"        without any, only CHECK judges\n"
		"Commands are split at blanks, without a shell. Prints the number of kills.\n");
	exit(2);
}

static unsigned int random_kills;

static bool changes(const struct __ptrace_syscall_info *si)
{
	if (random_kills)
		return true;
	switch (si->entry.nr) {
	case SYS_bpf:
		switch (si->entry.args[0]) {
		case BPF_MAP_UPDATE_ELEM:
		case BPF_MAP_DELETE_ELEM:
		case BPF_MAP_UPDATE_BATCH:
		case BPF_MAP_DELETE_BATCH:
		case BPF_OBJ_PIN:
		case BPF_PROG_ATTACH:
		case BPF_PROG_DETACH:
		case BPF_LINK_CREATE:
		case BPF_LINK_UPDATE:
		case BPF_LINK_DETACH:
			return true;
		}
		return false;
	case SYS_mkdir:
	case SYS_mkdirat:
	case SYS_rmdir:
	case SYS_rename:
	case SYS_renameat:
	case SYS_renameat2:
	case SYS_unlink:
	case SYS_unlinkat:
	case SYS_flock:
	case SYS_ftruncate:
	case SYS_sendto:
	case SYS_sendmsg:
		return true;
	}
	return false;
}

static char **split(char *command)
{
	char **argv = calloc(strlen(command) / 2 + 2, sizeof(*argv));
	int n = 0;

	for (char *t = strtok(command, " "); t; t = strtok(NULL, " "))
		argv[n++] = t;
	return argv;
}

static void be_quiet(void)
{
	int fd = open("/dev/null", O_RDWR);

	dup2(fd, 0);
	dup2(fd, 1);
}

static int run(char **argv)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		be_quiet();
		execvp(argv[0], argv);
		err(127, "%s", argv[0]);
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* True: killed before call n. False: it ended before that, with *status. */
static bool run_killed(char **argv, int n, int *status)
{
	struct __ptrace_syscall_info si;
	bool started = false;
	pid_t pid = fork();

	if (!pid) {
		be_quiet();
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		execvp(argv[0], argv);
		err(127, "%s", argv[0]);
	}
	waitpid(pid, status, 0);
	ptrace(PTRACE_SETOPTIONS, pid, 0,
	       PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL | PTRACE_O_TRACEEXEC);
	for (;;) {
		int sig = 0;

		if (WIFSTOPPED(*status) && WSTOPSIG(*status) == (SIGTRAP | 0x80)) {
			if (started &&
			    ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(si), &si) > 0 &&
			    si.op == PTRACE_SYSCALL_INFO_ENTRY && changes(&si) && --n == 0) {
				kill(pid, SIGKILL);
				waitpid(pid, status, 0);
				return true;
			}
		} else if (WIFSTOPPED(*status) && *status >> 16 == PTRACE_EVENT_EXEC) {
			started = true;
		} else if (WIFSTOPPED(*status) && WSTOPSIG(*status) != SIGSTOP) {
			sig = WSTOPSIG(*status);
		}
		ptrace(PTRACE_SYSCALL, pid, 0, sig);
		waitpid(pid, status, 0);
		if (WIFEXITED(*status) || WIFSIGNALED(*status))
			break;
	}
	*status = WIFEXITED(*status) ? WEXITSTATUS(*status) : 128 + WTERMSIG(*status);
	return false;
}

/* The set that the outcomes are those of: 'a', 'b', 'o' (all pass), 0: none. */
static char in_force(struct flow *flows, int n, int ns[2], bool open)
{
	bool a = true, b = true, o = open;
	enum want want[n + 1];
	int i;

	if (!n)
		return 'o';

	for (i = 0; i < n; i++) {
		want[i] = flows[i].want;
		if (want[i] != WANT_PASS)
			flows[i].want = WANT_ANY;
	}
	flows_round(flows, n, ns);
	for (i = 0; i < n; i++) {
		bool pass = flows[i].got == PASS;

		flows[i].want = want[i];
		a &= pass == (want[i] == WANT_A || want[i] == WANT_PASS);
		b &= pass == (want[i] == WANT_B || want[i] == WANT_PASS);
		o &= pass;
	}
	return a ? 'a' : b ? 'b' : o ? 'o' : 0;
}

int main(int argc, char **argv)
{
	char **load[2] = { NULL, NULL }, **setup = NULL, **check = NULL;
	const char *name[2] = { "/proc/self/ns/net", "/proc/self/ns/net" };
	int c, i, n, kills = 0, done[2] = { 0 }, ns[2], own, status;
	bool open_too = false, finished = false, complete[2] = { false };
	struct flow *flows;
	cpu_set_t one;
	char was, set = 0;

	while ((c = getopt(argc, argv, "A:B:a:b:or:s:u:")) != -1) {
		switch (c) {
		case 'A':
		case 'B':
			load[c - 'A'] = split(optarg);
			break;
		case 'a':
		case 'b':
			name[c - 'a'] = optarg;
			break;
		case 'o':
			open_too = true;
			break;
		case 'r':
			random_kills = atoi(optarg);
			break;
		case 's':
			setup = split(optarg);
			break;
		case 'u':
			check = split(optarg);
			break;
		default:
			usage();
		}
	}
	n = argc - optind;
	if (!load[0] || (!n && (load[1] || !check)))
		usage();
	own = netns_open("/proc/self/ns/net");
	for (i = 0; i < 2; i++)
		ns[i] = netns_open(name[i]);
	flows = calloc(n, sizeof(*flows));
	for (i = 0; i < n; i++)
		flow_parse(&flows[i], argv[optind + i]);
	flows_open(flows, n, ns);
	netns_enter(own);

	/*
	 * On one CPU packets stay in order: when the last flow, one that is to pass,
	 * has its answer, so have those before it, or never will.
	 */
	if (n && flows[n - 1].want != WANT_PASS)
		errx(2, "the last flow must be one that passes with both sets");
	grace_ms = 5;
	srand(now_ns());
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	sched_setaffinity(0, sizeof(one), &one);

	/* done[set]: the last call before which a change to that set was killed */
	while (random_kills ? kills < (int)random_kills :
	       !complete[0] || (load[1] && !complete[1])) {
		int to;

		if (setup && run(setup))
			errx(1, "%s %s: failed", setup[0], setup[1]);
		if (setup || !set)
			set = in_force(flows, n, ns, open_too);
		was = set;
		if (!was) {
			flows_print(flows, n, stderr);
			errx(1, "to begin with, neither set is in force");
		}
		to = load[1] && was == 'a' ? 1 : 0;
		netns_enter(own);
		if (random_kills)
			done[to] = rand() % 200;
		finished = !run_killed(load[to], done[to] + 1, &status);
		complete[to] |= finished;
		if (finished && status)
			errx(1, "%s %s: exit %d", load[to][0], load[to][1], status);
		if (!finished) {
			done[to]++;
			kills++;
		}
		set = in_force(flows, n, ns, open_too);
		if (set != was && set != 'a' + to) {
			flows_print(flows, n, stderr);
			errx(1, "before call %d of %s %s: neither old (%c) nor new set in force",
			     done[to], load[to][0], load[to][1], was);
		}
		if (n && finished && set != 'a' + to)
			errx(1, "%s %s ended well, but its set is not in force", load[to][0],
			     load[to][1]);
		netns_enter(own);
		if (check && run(check))
			errx(1, "before call %d of %s %s: %s %s finds a problem", done[to],
			     load[to][0], load[to][1], check[0], check[1]);
	}
	if (!kills)
		errx(1, "no call was found at which to kill");
	printf("%d\n", kills);
	return 0;
}
