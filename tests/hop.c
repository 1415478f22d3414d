// SPDX-License-Identifier: GPL-2.0-only
/*
 * One packet through a program that is loaded, with a sum over the whole of it, such as
 * some NICs bring along (CHECKSUM_COMPLETE). The kernel looks whether the sum is still that
 * of the packet when the program is done.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <bpf/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <netinet/in.h>

#define HOPS 64

/* A header is all the program looks at: of UDP, without UDP. */
struct packet {
	struct ethhdr eth;
	union {
		struct iphdr v4;
		struct ipv6hdr v6;
	};
	__u8 payload[32];
} __attribute__((packed));

static void usage(void)
{
	fprintf(stderr,
		"usage: hop PROGRAM-ID DEV SRC DST   a packet that comes in by DEV\n"
		"prints the verdict and the hops that are left\n");
	exit(2);
}

static __u16 ip_sum(const void *ip)
{
	__u16 words[sizeof(struct iphdr) / 2];
	__u32 sum = 0;

	memcpy(words, ip, sizeof(words));
	for (size_t i = 0; i < sizeof(words) / 2; i++)
		sum += words[i];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

int main(int argc, char **argv)
{
	struct packet in = {0}, out;
	struct __sk_buff ctx = {0};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = &in, .data_size_in = sizeof(in),
		    .data_out = &out, .data_size_out = sizeof(out), .ctx_in = &ctx,
		    .ctx_size_in = sizeof(ctx), .repeat = 1,
		    .flags = BPF_F_TEST_SKB_CHECKSUM_COMPLETE);
	bool v6;
	int fd;

	if (argc != 5)
		usage();
	fd = bpf_prog_get_fd_by_id(atoi(argv[1]));
	if (fd < 0)
		err(1, "program %s", argv[1]);
	ctx.ifindex = if_nametoindex(argv[2]);
	if (!ctx.ifindex)
		err(1, "%s", argv[2]);
	memset(in.payload, 0x5a, sizeof(in.payload));
	v6 = strchr(argv[3], ':');
	if (v6) {
		in.eth.h_proto = htons(ETH_P_IPV6);
		in.v6.version = 6;
		in.v6.payload_len = htons(sizeof(in) - offsetof(struct packet, v6) - sizeof(in.v6));
		in.v6.nexthdr = IPPROTO_UDP;
		in.v6.hop_limit = HOPS;
		if (inet_pton(AF_INET6, argv[3], &in.v6.saddr) != 1 ||
		    inet_pton(AF_INET6, argv[4], &in.v6.daddr) != 1)
			usage();
	} else {
		in.eth.h_proto = htons(ETH_P_IP);
		in.v4.version = 4;
		in.v4.ihl = 5;
		in.v4.tot_len = htons(sizeof(in) - offsetof(struct packet, v4));
		in.v4.protocol = IPPROTO_UDP;
		in.v4.ttl = HOPS;
		if (inet_pton(AF_INET, argv[3], &in.v4.saddr) != 1 ||
		    inet_pton(AF_INET, argv[4], &in.v4.daddr) != 1)
			usage();
		in.v4.check = ip_sum(&in.v4);
	}
	if (bpf_prog_test_run_opts(fd, &opts))
		errx(1, "%s", errno == EBADMSG ? "the sum is not that of the packet any more" :
						 strerror(errno));
	if (!v6 && ip_sum(&out.v4))
		errx(1, "the IPv4 header's checksum is wrong");
	printf("verdict %d hops %u\n", opts.retval, v6 ? out.v6.hop_limit : out.v4.ttl);
	return 0;
}
