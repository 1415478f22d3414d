// SPDX-License-Identifier: GPL-2.0-only
/* One TCP connection, always busy, and a look at its packets. See usage(). */
#include <getopt.h>
#include <linux/types.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>

#include "flow.h"

static void usage(void)
{
	fprintf(stderr,
		"usage: bulk -a NETNS -b NETNS -d DEVICE ADDRESS\n"
		"sends from -a to ADDRESS in -b, where the packets come in by DEVICE. Prints\n"
		"'ready', and for each line of stdin what there was since the last one:\n"
		"BYTES, the longest PACKET with its headers, the longest SEGMENT in a GSO packet\n");
	exit(2);
}

static char buf[1 << 20];

static void force(int fd, int opt)
{
	int size = 8 << 20;

	if (setsockopt(fd, SOL_SOCKET, opt, &size, sizeof(size)))
		err(1, "socket buffer");
}

/* With a struct virtio_net_hdr in front, which has the size of the segments. */
static int observer(const char *device)
{
	struct sockaddr_ll ll = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0), one = 1;

	ll.sll_ifindex = if_nametoindex(device);
	if (fd < 0 || !ll.sll_ifindex ||
	    setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)))
		err(1, "%s", device);
	force(fd, SO_RCVBUFFORCE);
	if (bind(fd, (struct sockaddr *)&ll, sizeof(ll)))
		err(1, "%s: bind", device);
	return fd;
}

static void connection(int ns[2], char *text, int *client, int *conn)
{
	union addr a;
	int fd, one = 1;

	addr_parse(&a, text, text);
	addr_set_port(&a, htons(5001));
	netns_enter(ns[1]);
	fd = socket(a.sa.sa_family, SOCK_STREAM, 0);
	force(fd, SO_RCVBUFFORCE);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, &a.sa, addr_len(&a)) || listen(fd, 1))
		err(1, "%s: listen", text);
	netns_enter(ns[0]);
	*client = socket(a.sa.sa_family, SOCK_STREAM, 0);
	force(*client, SO_SNDBUFFORCE);
	if (connect(*client, &a.sa, addr_len(&a)))
		err(1, "%s: connect", text);
	*conn = accept4(fd, NULL, NULL, SOCK_NONBLOCK);
	if (*conn < 0 || fcntl(*client, F_SETFL, O_NONBLOCK))
		err(1, "%s: accept", text);
}

int main(int argc, char **argv)
{
	unsigned long bytes = 0, longest = 0, segment = 0;
	const char *device = NULL;
	struct pollfd p[4] = { 0 };
	int c, ns[2] = { -1, -1 };
	ssize_t n;

	while ((c = getopt(argc, argv, "a:b:d:")) != -1) {
		if (c == 'd')
			device = optarg;
		else if (c == 'a' || c == 'b')
			ns[c - 'a'] = netns_open(optarg);
		else
			usage();
	}
	if (ns[0] < 0 || ns[1] < 0 || !device || optind != argc - 1)
		usage();
	netns_enter(ns[1]);
	p[2].fd = observer(device);
	connection(ns, argv[optind], &p[0].fd, &p[1].fd);
	p[0].events = POLLOUT;
	p[1].events = POLLIN;
	p[2].events = POLLIN;
	p[3].events = POLLIN;
	puts("ready");
	fflush(stdout);
	while (poll(p, 4, -1) > 0) {
		struct virtio_net_hdr *h = (void *)buf;

		if (p[0].revents && send(p[0].fd, buf, sizeof(buf), MSG_NOSIGNAL) < 0 &&
		    errno != EAGAIN)
			err(1, "send");
		while (p[2].revents && (n = recv(p[2].fd, buf, sizeof(*h), MSG_TRUNC)) > 0) {
			n -= sizeof(*h);
			if ((unsigned long)n > longest)
				longest = n;
			if (h->gso_type != VIRTIO_NET_HDR_GSO_NONE && h->gso_size > segment)
				segment = h->gso_size;
		}
		while (p[1].revents && (n = recv(p[1].fd, buf, sizeof(buf), 0)) > 0)
			bytes += n;
		if (!p[3].revents)
			continue;
		if (!fgets(buf, sizeof(buf), stdin))
			return 0;
		printf("%lu %lu %lu\n", bytes, longest, segment);
		fflush(stdout);
		bytes = 0;
		longest = 0;
		segment = 0;
	}
	return 1;
}
