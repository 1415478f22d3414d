// SPDX-License-Identifier: GPL-2.0-only
/*
 * Send packets to one contender and say what they cost.
 *
 * usage: packets [OPTION...] DEVICE
 *   -a shot|range  attach this to the device's tcx ingress
 *   -c CPU         stay on it
 *   -d             what is in a range is denied, the rest not (default: the opposite)
 *   -f FILE        the flows: struct bench_flow each, a power of two of them
 *   -n             every packet begins a new flow
 *   -r FILE        the ranges: struct bench_range each, sorted
 *   -s DEVICE      count and drop what leaves by this device
 *   -t             without a network: BPF_PROG_TEST_RUN of what is attached
 * Then, from standard input, a line each:
 *   run N          send N packets; "NS RECEIVED SUNK": thread CPU time of all, how
 *                  many IP has received, how many the sink has
 *   back N         the same with the replies
 *   judge N        (-t) one by one; "DROPPED PASSED NEXT"
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <net/if.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "packets.h"
#include "bench/packets.skel.h"

#define BATCH	64
#define IP_WORDS	(sizeof(struct iphdr) / sizeof(__u16))

static struct packets *skel;
static int ifindex, prog_fd;
static bool testrun;
static char frame[60];

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *fmt, ...)
{
	int err = errno;
	va_list ap;

	va_start(ap, fmt);
	fputs("packets: ", stderr);
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, ": %s\n", strerror(err));
	exit(1);
}

/* A file of whole elements; their number. */
static size_t slurp(const char *path, void **data, size_t size)
{
	int fd = open(path, O_RDONLY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		die("%s", path);
	*data = malloc(st.st_size + 1);
	if (!*data || read(fd, *data, st.st_size) != st.st_size || st.st_size % size)
		die("%s: cannot read", path);
	close(fd);
	return st.st_size / size;
}

static void make_frame(void)
{
	struct ethhdr *eth = (void *)frame;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);

	memcpy(eth->h_dest, BENCH_MAC, ETH_ALEN);
	memcpy(eth->h_source, "\x02\0\0\0\0\x02", ETH_ALEN);
	eth->h_proto = htons(ETH_P_IP);
	ip->version = 4;
	ip->ihl = 5;
	ip->tot_len = htons(sizeof(frame) - sizeof(*eth));
	ip->ttl = 64;
	ip->protocol = IPPROTO_UDP;
	udp->len = htons(sizeof(frame) - sizeof(*eth) - sizeof(*ip));
}

static __u16 ip_check(const struct bench_flow *f)
{
	__u16 words[IP_WORDS];
	struct iphdr ip;
	__u32 sum = 0;

	memcpy(&ip, frame + sizeof(struct ethhdr), sizeof(ip));
	ip.saddr = f->saddr;
	ip.daddr = f->daddr;
	memcpy(words, &ip, sizeof(words));
	for (size_t i = 0; i < IP_WORDS; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum += sum >> 16;
	return ~sum;
}

static void load_flows(const char *path)
{
	struct bench_flow *f;
	size_t n = slurp(path, (void **)&f, sizeof(*f));

	if (!n || n > BENCH_FLOWS || n & (n - 1)) {
		errno = EINVAL;
		die("%s: %zu flows", path, n);
	}
	for (size_t i = 0; i < n; i++)
		f[i].check = ip_check(&f[i]);
	memcpy(skel->bss->flows, f, n * sizeof(*f));
	skel->rodata->flow_mask = n - 1;
	free(f);
}

static struct bench_range *load_ranges(const char *path, __u32 *bytes)
{
	struct bench_range *r, *all;
	__u32 n = slurp(path, (void **)&r, sizeof(*r)), size = 2;

	while (size < n + 1)
		size *= 2;
	all = calloc(size, sizeof(*all));
	if (!all)
		die("%s", path);
	memcpy(all + 1, r, n * sizeof(*r));
	for (__u32 i = n + 1; i < size; i++)
		all[i].start = 0xffffffff;
	free(r);
	skel->rodata->range_mask = size - 1;
	skel->rodata->range_step = size / 2;
	*bytes = size * sizeof(*all);
	return all;
}

static void attach(struct bpf_program *prog, const char *device)
{
	if (!bpf_program__attach_tcx(prog, if_nametoindex(device), NULL))
		die("%s: cannot attach %s", device, bpf_program__name(prog));
}

/* The first program at the device's tcx ingress. */
static int first_prog(void)
{
	__u32 ids[16] = {};
	LIBBPF_OPTS(bpf_prog_query_opts, q, .prog_ids = ids, .prog_cnt = 16);

	if (bpf_prog_query_opts(ifindex, BPF_TCX_INGRESS, &q))
		die("cannot ask for the programs");
	if (!q.prog_cnt) {
		errno = ENOENT;
		die("nothing is attached");
	}
	return bpf_prog_get_fd_by_id(ids[0]);
}

/* InReceives of this network namespace. */
static __u64 ip_received(void)
{
	FILE *f = fopen("/proc/self/net/snmp", "r");
	unsigned long long n = 0;
	char line[1024];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Ip: %*d %*d %llu", &n) == 1)
			break;
	if (f)
		fclose(f);
	return n;
}

static __u64 cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static int run_once(__u32 n)
{
	struct xdp_md ctx = { .data_end = sizeof(frame), .ingress_ifindex = ifindex };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = sizeof(frame),
		    .repeat = n);

	if (!testrun) {
		opts.ctx_in = &ctx;
		opts.ctx_size_in = sizeof(ctx);
		opts.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
		opts.batch_size = BATCH;
	}
	if (bpf_prog_test_run_opts(prog_fd, &opts))
		die("cannot run");
	return opts.retval;
}

static void run(__u32 n)
{
	__u64 received = ip_received(), sunk = skel->bss->sunk, ns = cpu_ns();

	run_once(n);
	ns = cpu_ns() - ns;
	printf("%llu %llu %llu\n", (unsigned long long)ns,
	       (unsigned long long)(ip_received() - received),
	       (unsigned long long)(skel->bss->sunk - sunk));
}

static void judge(__u32 n)
{
	__u32 drop = 0, pass = 0, next = 0;

	while (n--) {
		switch (run_once(1)) {
		case 2:
			drop++;
			break;
		case 0:
			pass++;
			break;
		default:
			next++;
		}
	}
	printf("%u %u %u\n", drop, pass, next);
}

int main(int argc, char **argv)
{
	const char *own = NULL, *ranges = NULL, *sink = NULL, *flows = NULL;
	struct bpf_program *prog;
	struct bench_range *r = NULL;
	__u32 bytes = 0, zero = 0, n;
	int opt, cpu = -1, fd;
	char line[64];
	cpu_set_t set;

	skel = packets__open();
	if (!skel)
		die("cannot open the programs");
	while ((opt = getopt(argc, argv, "a:c:df:nr:s:t")) > 0) {
		switch (opt) {
		case 'a':
			own = optarg;
			break;
		case 'c':
			cpu = atoi(optarg);
			break;
		case 'd':
			skel->rodata->deny = true;
			break;
		case 'f':
			flows = optarg;
			break;
		case 'n':
			skel->rodata->fresh = true;
			break;
		case 'r':
			ranges = optarg;
			break;
		case 's':
			sink = optarg;
			break;
		case 't':
			testrun = true;
			break;
		default:
			return 2;
		}
	}
	if (optind != argc - 1 || !flows) {
		fputs("packets: a device and -f FILE are needed; see the source\n", stderr);
		return 2;
	}
	ifindex = if_nametoindex(argv[optind]);
	if (!ifindex)
		die("%s", argv[optind]);
	make_frame();
	load_flows(flows);
	if (ranges) {
		r = load_ranges(ranges, &bytes);
		bpf_map__set_value_size(skel->maps.ranges, bytes);
	}
	bpf_object__for_each_program(prog, skel->obj) {
		const char *name = bpf_program__name(prog);

		bpf_program__set_autoload(prog, prog == (testrun ? skel->progs.spin :
								   skel->progs.inject) ||
						(own && !strcmp(name, own)) ||
						(sink && prog == skel->progs.sink));
	}
	if (packets__load(skel))
		die("cannot load the programs");
	if (r && bpf_map__update_elem(skel->maps.ranges, &zero, sizeof(zero), r, bytes, 0))
		die("cannot store the ranges");
	if (own) {
		prog = bpf_object__find_program_by_name(skel->obj, own);
		if (!prog) {
			errno = ENOENT;
			die("%s", own);
		}
		attach(prog, argv[optind]);
	}
	if (sink)
		attach(skel->progs.sink, sink);
	prog_fd = bpf_program__fd(testrun ? skel->progs.spin : skel->progs.inject);
	if (testrun) {
		fd = first_prog();
		if (fd < 0 || bpf_map__update_elem(skel->maps.contender, &zero, sizeof(zero), &fd,
						   sizeof(fd), 0))
			die("cannot call the contender");
		close(fd);
	}
	if (cpu >= 0) {
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		if (sched_setaffinity(0, sizeof(set), &set))
			die("CPU %d", cpu);
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "run %u", &n) == 1) {
			skel->bss->backwards = false;
			run(n);
		} else if (sscanf(line, "back %u", &n) == 1) {
			skel->bss->backwards = true;
			run(n);
		} else if (testrun && sscanf(line, "judge %u", &n) == 1) {
			judge(n);
		} else {
			fprintf(stderr, "packets: what is %s", line);
			return 2;
		}
	}
	return 0;
}
