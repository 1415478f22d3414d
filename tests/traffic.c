// SPDX-License-Identifier: GPL-2.0-only
/* The source and the sink of the tests' traffic, in one process. See usage(). */
#include <getopt.h>
#include <linux/types.h>
#include <signal.h>

#include "flow.h"

static void usage(void)
{
	fprintf(stderr,
		"usage: traffic -a NETNS -b NETNS MODE FLOW...\n"
		"FLOW: tcp|udp|icmp|NUMBER SRC[:PORT] > DST[:PORT] [= drop|oneway|pass|any|a|b]\n"
		"probe    one message on each flow, print what came of it; exit 1 if not as wanted\n"
		"session  the same at each line of stdin; a line may hold new outcomes, one a flow\n"
		"stream   numbered messages [-r ROUNDS a second] until SIGTERM or [-n ROUNDS] are out;\n"
		"         prints 'ready', then a report. 'a' and 'b' are the flows that one of two\n"
		"         rule sets lets through: the report tells how often the sets changed\n");
	exit(2);
}

static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
	(void)sig;
	stop = 1;
}

static int session(struct flow *flows, int n, int ns[2])
{
	char line[1024], *tok, *save;
	bool all = true, ok;
	int i;

	while (fgets(line, sizeof(line), stdin)) {
		i = 0;
		for (tok = strtok_r(line, "\n ", &save); tok; tok = strtok_r(NULL, "\n ", &save)) {
			if (i == n)
				errx(2, "more outcomes than flows");
			flows[i++].want = want_parse(tok);
		}
		ok = flows_round(flows, n, ns);
		all &= ok;
		if (!ok)
			flows_print(flows, n, stderr);
		puts(ok ? "ok" : "wrong");
		fflush(stdout);
	}
	return !all;
}

/* What arrived, a bit for each flow, by the number of the message. */
static __u64 *arrived;
static __u64 arrived_max;

static void stream_seen(struct flow *flows, const struct msg *msg, bool at_server)
{
	struct flow *f = &flows[msg->flow];
	__u64 t = now_ns();

	/* echo replies are seen by the client, all else by the server */
	if (at_server == f->icmp || msg->seq > arrived_max)
		return;
	if (arrived[msg->seq] & 1ull << msg->flow) {
		f->dups++;
		return;
	}
	arrived[msg->seq] |= 1ull << msg->flow;
	if (!f->received)
		f->first = msg->seq;
	else if (t - f->last_ns > f->max_gap)
		f->max_gap = t - f->last_ns;
	f->last_ns = t;
	f->last = msg->seq;
	f->received++;
}

/* Changes of the rule set that the arrivals imply, in the order of sending. */
static void print_flips(const struct flow *flows, int n, __u64 rounds)
{
	__u64 flips = 0, worst = 0, in_round, seq;
	int i, set = -1;

	for (seq = 1; seq <= rounds; seq++) {
		in_round = 0;
		for (i = 0; i < n; i++) {
			bool came = arrived[seq] & 1ull << i;
			int now;

			if (flows[i].want != WANT_A && flows[i].want != WANT_B)
				continue;
			now = came == (flows[i].want == WANT_A);
			if (set >= 0 && now != set)
				in_round++;
			set = now;
		}
		flips += in_round;
		if (in_round > worst)
			worst = in_round;
	}
	printf("flips=%llu worst=%llu\n", flips, worst);
}

static bool stream_done(const struct flow *flows, int n)
{
	int i;

	for (i = 0; i < n; i++)
		if (flows[i].want == WANT_PASS && flows[i].received < flows[i].sent)
			return false;
	return true;
}

static int stream(struct flow *flows, int n, int ns[2], unsigned int rate, __u64 rounds)
{
	__u64 seq = 0, next, t, end;
	bool ready = false, wrong = false;
	struct flow *f;
	int i;

	if (n > 64)
		errx(2, "at most 64 flows");
	arrived_max = 1 << 16;
	arrived = calloc(arrived_max + 1, sizeof(*arrived));
	for (f = flows; f < flows + n; f++) {
		end = now_ns() + slow_ms(5000) * 1000000ull;
		while (f->proto == IPPROTO_TCP && f->want == WANT_PASS && now_ns() < end &&
		       !(f->established && f->conn >= 0))
			flows_poll(flows, n, 10000000, false, stream_seen);
	}
	next = now_ns();
	while (!stop && (!rounds || seq < rounds)) {
		if (++seq > arrived_max) {
			arrived = realloc(arrived, (2 * arrived_max + 1) * sizeof(*arrived));
			memset(arrived + arrived_max + 1, 0, arrived_max * sizeof(*arrived));
			arrived_max *= 2;
		}
		for (f = flows; f < flows + n; f++) {
			f->seq = seq - 1;
			if (f->client >= 0 && (f->proto != IPPROTO_TCP || f->established))
				f->sent += flow_send(f, f - flows);
		}
		next += 1000000000ull / rate;
		do {
			t = now_ns();
			flows_poll(flows, n, next > t ? next - t : 0, false, stream_seen);
		} while (now_ns() < next && !stop);
		if (!ready && stream_done(flows, n)) {
			ready = true;
			puts("ready");
			fflush(stdout);
		}
	}
	/* what is to arrive has until the deadline, what is not to arrive a moment */
	end = now_ns() + slow_ms(5000) * 1000000ull;
	while (!stream_done(flows, n) && now_ns() < end)
		flows_poll(flows, n, 10000000, false, stream_seen);
	end = now_ns() + slow_ms(grace_ms) * 1000000ull;
	while ((t = now_ns()) < end)
		flows_poll(flows, n, end - t, false, stream_seen);

	for (i = 0; i < n; i++) {
		struct tcp_info ti = { 0 };
		socklen_t len = sizeof(ti);
		bool bad;

		f = &flows[i];
		bad = (f->want == WANT_PASS && (!f->sent || f->received != f->sent || f->dups)) ||
		      (f->want == WANT_DROP && f->received);
		wrong |= bad;
		printf("%s%s: sent=%llu received=%llu lost=%llu ", bad ? "WRONG " : "", f->text,
		       f->sent, f->received, f->sent - f->received);
		printf("dup=%llu first=%llu last=%llu gap_ms=%llu", f->dups, f->first, f->last,
		       f->max_gap / 1000000);
		if (f->proto == IPPROTO_TCP &&
		    !getsockopt(f->client, IPPROTO_TCP, TCP_INFO, &ti, &len))
			printf(" retrans=%u", ti.tcpi_total_retrans);
		putchar('\n');
	}
	printf("rounds=%llu\n", seq);
	print_flips(flows, n, seq);
	return wrong;
}

int main(int argc, char **argv)
{
	const char *name[2] = { "/proc/self/ns/net", "/proc/self/ns/net" };
	struct sigaction sa = { .sa_handler = on_signal };
	unsigned int rate = 500;
	struct flow *flows;
	__u64 rounds = 0;
	int c, i, n, ns[2];
	const char *mode;

	while ((c = getopt(argc, argv, "a:b:n:r:")) != -1) {
		switch (c) {
		case 'a':
		case 'b':
			name[c - 'a'] = optarg;
			break;
		case 'n':
			rounds = strtoull(optarg, NULL, 0);
			break;
		case 'r':
			rate = atoi(optarg) > 0 ? atoi(optarg) : 1;
			break;
		default:
			usage();
		}
	}
	n = argc - optind - 1;
	if (n < 1)
		usage();
	mode = argv[optind];
	for (i = 0; i < 2; i++)
		ns[i] = netns_open(name[i]);
	flows = calloc(n, sizeof(*flows));
	for (i = 0; i < n; i++)
		flow_parse(&flows[i], argv[optind + 1 + i]);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	flows_open(flows, n, ns);

	if (!strcmp(mode, "probe")) {
		bool ok = flows_round(flows, n, ns);

		flows_print(flows, n, stdout);
		return !ok;
	}
	if (!strcmp(mode, "session"))
		return session(flows, n, ns);
	if (!strcmp(mode, "stream"))
		return stream(flows, n, ns, rate, rounds);
	usage();
}
