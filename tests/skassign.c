// SPDX-License-Identifier: GPL-2.0-only
/*
 * bpf_sk_assign() at tc ingress, tc egress and netkit: a proxy in one network namespace, a
 * client in another, and what becomes of the packets, the sockets and their references.
 * Each test is a verb; "ok" and "not ok" lines tell of its steps.
 *
 * usage: skassign HOST POD VERB [ARG]...
 * HOST and POD are namespaces; the device in each has its name.
 */
#include "sockets.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/errqueue.h>
#include <linux/filter.h>
#include <linux/if_link.h>
#include <linux/membarrier.h>
#include <linux/net_tstamp.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "skassign.h"
#include "skassign.skel.h"

#ifndef IPV6_TRANSPARENT
#define IPV6_TRANSPARENT	75
#endif
#ifndef IPV6_RECVORIGDSTADDR
#define IPV6_RECVORIGDSTADDR	74
#endif

enum { PROXY = 15001, PORT = 80, MARK = 0x200, GROUP_SIZE = 4 };

#define PIN	"/sys/fs/bpf/test/"
#define LIMIT	(3000 * factor)		/* milliseconds, for what takes none */
#define NEVER	(300 * factor)		/* for what must not happen */

static int factor = 1;
static int host, pod;
static const char *host_dev, *pod_dev;
static struct skassign *skel;

/* --- namespaces, devices, programs */

static int open_net(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "/run/netns/%s", name);
	return must(open(path, O_RDONLY | O_CLOEXEC));
}

static void enter(int net)
{
	must(setns(net, CLONE_NEWNET));
}

__attribute__((format(printf, 1, 2)))
static void shell(const char *fmt, ...)
{
	char command[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(command, sizeof(command), fmt, args);
	va_end(args);
	if (system(command)) {
		fprintf(stderr, "failed: %s\n", command);
		exit(EXIT_FAILURE);
	}
}

static void put_dev(const char *fmt, const char *dev, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), fmt, dev);
	put_file(path, value);
}

/* What is marked and comes in by the device is for this machine, whatever its address. */
static void divert(int net, const char *dev)
{
	enter(net);
	put_file("/proc/sys/net/ipv4/conf/all/rp_filter", "0");
	put_dev("/proc/sys/net/ipv4/conf/%s/rp_filter", dev, "0");
	put_dev("/proc/sys/net/ipv4/conf/%s/accept_local", dev, "1");
	shell("ip rule add iif %s fwmark %d lookup 100 && "
	      "ip route add local default dev lo table 100 && "
	      "ip -6 rule add iif %s fwmark %d lookup 100 && "
	      "ip -6 route add local default dev lo table 100", dev, MARK, dev, MARK);
}

static void forwarding(int net)
{
	enter(net);
	put_file("/proc/sys/net/ipv4/ip_forward", "1");
	put_file("/proc/sys/net/ipv6/conf/all/forwarding", "1");
}

static __u32 ifindex(const char *dev)
{
	__u32 i = if_nametoindex(dev);

	if (!i)
		must(-1);
	return i;
}

static void mac_of(const char *dev, __u8 *mac)
{
	struct ifreq req = {};
	int s = must(socket(AF_INET, SOCK_DGRAM, 0));

	snprintf(req.ifr_name, sizeof(req.ifr_name), "%s", dev);
	must(ioctl(s, SIOCGIFHWADDR, &req));
	memcpy(mac, req.ifr_hwaddr.sa_data, 6);
	close(s);
}

static struct bpf_link *attach(int at, int net, const char *dev)
{
	struct bpf_link *link;

	enter(net);
	if (at == AT_NETKIT)
		link = bpf_program__attach_netkit(skel->progs.at_netkit, ifindex(dev), NULL);
	else if (at == AT_EGRESS)
		link = bpf_program__attach_tcx(skel->progs.at_egress, ifindex(dev), NULL);
	else
		link = bpf_program__attach_tcx(skel->progs.at_ingress, ifindex(dev), NULL);
	if (!link)
		must(-1);
	return link;
}

static struct skassign_job *job_at(int at)
{
	struct skassign_job *job = &skel->bss->jobs[at];

	memset(job, 0, sizeof(*job));
	memset(&skel->bss->reports[at], 0, sizeof(skel->bss->reports[at]));
	job->proxy = PROXY;
	__sync_synchronize();
	job->port = PORT;
	return job;
}

/* The socket in the map */
static void put_socket(int s)
{
	__u32 zero = 0;
	__u64 fd = s;

	must(bpf_map_update_elem(bpf_map__fd(skel->maps.sockets), &zero, &fd, BPF_ANY));
}

static void drop_socket(void)
{
	__u32 zero = 0;

	must(bpf_map_delete_elem(bpf_map__fd(skel->maps.sockets), &zero));
}

static volatile struct skassign_report *report_at(int at)
{
	return &skel->bss->reports[at];
}

/* --- sockets */

static const char *const family_names[] = { [AF_INET] = "IPv4", [AF_INET6] = "IPv6" };
static const char *const type_names[] = { [SOCK_STREAM] = "TCP", [SOCK_DGRAM] = "UDP" };

static const int families[] = { AF_INET, AF_INET6 }, types[] = { SOCK_STREAM, SOCK_DGRAM };

#define for_each(x, in) for (size_t x##_ = 0; x##_ < 2 && (x = in[x##_], true); x##_++)

static socklen_t to(struct sockaddr_storage *ss, int family, const char *v4, const char *v6,
		    int port)
{
	socklen_t len = address(ss, family, port);

	must(inet_pton(family, family == AF_INET ? v4 : v6, family == AF_INET ?
		       (void *)&((struct sockaddr_in *)ss)->sin_addr :
		       (void *)&((struct sockaddr_in6 *)ss)->sin6_addr) - 1);
	return len;
}

/* Where nobody is, and where the pod's packets go. */
static socklen_t nowhere(struct sockaddr_storage *ss, int family)
{
	return to(ss, family, "203.0.113.7", "2001:db8::7", PORT);
}

static void say(char *buf, size_t len, const struct sockaddr_storage *ss)
{
	const struct sockaddr_in *a4 = (void *)ss;
	const struct sockaddr_in6 *a6 = (void *)ss;
	char name[INET6_ADDRSTRLEN] = "?";

	inet_ntop(ss->ss_family, ss->ss_family == AF_INET ? (void *)&a4->sin_addr :
		  (void *)&a6->sin6_addr, name, sizeof(name));
	snprintf(buf, len, "%s %d", name, ntohs(a4->sin_port));
}

static bool same(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	char one[64], two[64];

	say(one, sizeof(one), a);
	say(two, sizeof(two), b);
	return !strcmp(one, two);
}

static void impatient(int s)
{
	struct timeval limit = { LIMIT / 1000, LIMIT % 1000 * 1000 };

	must(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	must(setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)));
}

static int new_socket(int net, int family, int type)
{
	int s;

	enter(net);
	s = must(socket(family, type | SOCK_CLOEXEC, 0));
	impatient(s);
	return s;
}

static void option(int s, int level, int name)
{
	int one = 1;

	must(setsockopt(s, level, name, &one, sizeof(one)));
}

/* A socket that may have any address, and is bound to one. */
static int transparent(int net, int type, bool share, struct sockaddr_storage *a, socklen_t len)
{
	int s = new_socket(net, a->ss_family, type);

	option(s, SOL_SOCKET, share ? SO_REUSEPORT : SO_REUSEADDR);
	if (a->ss_family == AF_INET) {
		option(s, SOL_IP, IP_TRANSPARENT);
		option(s, SOL_IP, IP_RECVORIGDSTADDR);
	} else {
		option(s, SOL_IPV6, IPV6_TRANSPARENT);
		option(s, SOL_IPV6, IPV6_RECVORIGDSTADDR);
	}
	must(bind(s, (void *)a, len));
	return s;
}

static int proxy(int net, int family, int type, bool share)
{
	struct sockaddr_storage a;
	socklen_t len = address(&a, family, PROXY);
	int s = transparent(net, type, share, &a, len);

	if (type == SOCK_STREAM)
		must(listen(s, 128));
	return s;
}

/* Who is served without a proxy: bound to all addresses. */
static int server(int net, int family, int type)
{
	struct sockaddr_storage a;
	socklen_t len = to(&a, family, "0.0.0.0", "::", PORT);
	int s = new_socket(net, family, type);

	option(s, SOL_SOCKET, SO_REUSEADDR);
	must(bind(s, (void *)&a, len));
	if (type == SOCK_STREAM)
		must(listen(s, 128));
	return s;
}

/* A client that has begun to talk: a SYN is out, or a datagram. */
static int client(int net, int type, struct sockaddr_storage *a, socklen_t len)
{
	int s = new_socket(net, a->ss_family, type | SOCK_NONBLOCK);

	if (connect(s, (void *)a, len) && errno != EINPROGRESS)
		must(-1);
	if (type == SOCK_DGRAM)
		must(send(s, "ping", 4, 0));
	return s;
}

static bool readable(int s, int ms)
{
	struct pollfd p = { .fd = s, .events = POLLIN };

	return must(poll(&p, 1, ms)) && p.revents & POLLIN;
}

/* Whether the client's packets are answered: what came of its connect(). */
static int outcome(int s)
{
	struct pollfd p = { .fd = s, .events = POLLOUT };

	return must(poll(&p, 1, LIMIT)) ? sock_err(s) : ETIMEDOUT;
}

/* --- references of the sockets at the proxy's port */

static __u32 refs(int net, int type)
{
	struct bpf_link *link = bpf_program__attach_iter(type == SOCK_STREAM ?
							 skel->progs.count_tcp :
							 skel->progs.count_udp, NULL);
	char buf[64];
	int fd;

	if (!link)
		must(-1);
	skel->bss->refs_port = PROXY;
	skel->bss->refs = 0;
	skel->bss->refs_sockets = 0;
	enter(net);
	fd = must(bpf_iter_create(bpf_link__fd(link)));
	while (must(read(fd, buf, sizeof(buf))))
		;
	close(fd);
	bpf_link__destroy(link);
	return skel->bss->refs;
}

static long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Packets are freed asynchronously. */
static bool refs_become(int net, int type, __u32 want)
{
	long end = now_ms() + LIMIT;

	while (refs(net, type) != want) {
		if (now_ms() > end)
			return false;
		usleep(10000);
	}
	return true;
}

/* --- a conversation by the proxy */

enum { CHUNK = 65536, CHUNKS = 32 };

static bool send_all(int from, int at, const char *data, char *buf)
{
	if (send(from, data, CHUNK, MSG_NOSIGNAL) != CHUNK)
		return false;
	return recv(at, buf, CHUNK, MSG_WAITALL) == CHUNK && !memcmp(data, buf, CHUNK);
}

static void talk_tcp(int net, int listener, int from, int family, const char *what)
{
	struct sockaddr_storage a, name = {}, peer = {}, own = {};
	static char data[CHUNK], buf[CHUNK];
	socklen_t len = nowhere(&a, family), n = sizeof(name);
	int c = client(from, SOCK_STREAM, &a, len), s = -1, err, done = 0;
	char text[64];

	err = outcome(c);
	if (!err && readable(listener, LIMIT))
		s = must(accept(listener, NULL, NULL));
	ok(!err && s >= 0, "%s: connect: %s", what, strerror(err));
	if (s < 0)
		goto out;
	impatient(s);
	must(getsockname(s, (void *)&name, &n));
	n = sizeof(peer);
	must(getpeername(s, (void *)&peer, &n));
	n = sizeof(own);
	must(getsockname(c, (void *)&own, &n));
	say(text, sizeof(text), &name);
	ok(same(&name, &a) && same(&peer, &own), "%s: the proxy's end is %s", what, text);
	must(fcntl(c, F_SETFL, 0));
	for (done = 0; done < CHUNKS; done++) {
		memset(data, done, sizeof(data));
		if (!send_all(c, s, data, buf) || !send_all(s, c, data, buf))
			break;
	}
	ok(done == CHUNKS, "%s: %d of %d chunks there and back", what, done, CHUNKS);
	must(shutdown(c, SHUT_WR));
	ok(!recv(s, buf, sizeof(buf), 0), "%s: its end is seen", what);
	close(s);
out:
	close(c);
}

static void talk_udp(int net, int at, int from, int family, const char *what)
{
	struct sockaddr_storage a, peer = {}, orig = {};
	socklen_t len = nowhere(&a, family);
	int c = client(from, SOCK_DGRAM, &a, len), s;
	struct iovec iov;
	char data[16] = "", control[256], text[64];
	struct msghdr msg = {
		.msg_name = &peer, .msg_namelen = sizeof(peer), .msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};

	iov = (struct iovec) { data, sizeof(data) };
	if (!readable(at, LIMIT) || recvmsg(at, &msg, 0) != 4) {
		ok(false, "%s: no datagram", what);
		goto out;
	}
	for (struct cmsghdr *cm = CMSG_FIRSTHDR(&msg); cm; cm = CMSG_NXTHDR(&msg, cm))
		if ((cm->cmsg_level == SOL_IP && cm->cmsg_type == IP_ORIGDSTADDR) ||
		    (cm->cmsg_level == SOL_IPV6 && cm->cmsg_type == IPV6_ORIGDSTADDR))
			memcpy(&orig, CMSG_DATA(cm), len);
	say(text, sizeof(text), &orig);
	ok(same(&orig, &a), "%s: a datagram for %s", what, text);
	s = transparent(net, SOCK_DGRAM, false, &orig, len);
	must(sendto(s, "pong", 4, 0, (void *)&peer, len));
	ok(readable(c, LIMIT) && recv(c, data, sizeof(data), 0) == 4 && !memcmp(data, "pong", 4),
	   "%s: an answer from there", what);
	close(s);
out:
	close(c);
}

/* All kinds of packets by the job at a hook, and no reference too many afterwards. */
static void converse(int net, int from, int at)
{
	int family, type, s;
	char what[32];
	__u32 base;

	for_each(type, types) {
		for_each(family, families) {
			snprintf(what, sizeof(what), "%s over %s", type_names[type],
				 family_names[family]);
			s = proxy(net, family, type, false);
			base = refs(net, type);
			report_at(at)->assigned = 0;
			if (type == SOCK_STREAM)
				talk_tcp(net, s, from, family, what);
			else
				talk_udp(net, s, from, family, what);
			ok(report_at(at)->assigned, "%s: %u packets assigned, %s", what,
			   report_at(at)->assigned, strerror(-report_at(at)->err));
			ok(refs_become(net, type, base), "%s: %u references, %u before", what,
			   skel->bss->refs, base);
			close(s);
		}
	}
}

/* --- what works */

static void test_netkit(void)
{
	struct skassign_job *job = job_at(AT_NETKIT);

	divert(host, host_dev);
	job->mark = MARK;
	attach(AT_NETKIT, host, host_dev);
	converse(host, pod, AT_NETKIT);
}

/* Forwarded packets, caught where they leave the host. */
static void test_uplink(void)
{
	struct skassign_job *job = job_at(AT_EGRESS);

	forwarding(host);
	/* It finds the proxy's connection where the packet comes in, to be forwarded. */
	put_file("/proc/sys/net/ipv4/tcp_early_demux", "0");
	shell("ip link add up0 type dummy && ip link set up0 up && ip route add default dev up0 && "
	      "ip -6 route add default dev up0");
	divert(host, "up0");
	job->mark = MARK;
	job->then = SKASSIGN_REDIRECT;
	job->redirect_flags = BPF_F_INGRESS;
	mac_of("up0", job->mac);
	attach(AT_EGRESS, host, "up0");
	converse(host, pod, AT_EGRESS);
}

/* A pod's own packets, by a proxy in the pod. */
static void test_own(void)
{
	struct skassign_job *job = job_at(AT_EGRESS);

	divert(pod, pod_dev);
	job->mark = MARK;
	job->then = SKASSIGN_REDIRECT;
	job->redirect_flags = BPF_F_INGRESS;
	mac_of(pod_dev, job->mac);
	attach(AT_EGRESS, pod, pod_dev);
	converse(pod, pod, AT_EGRESS);
}

/* As ever. */
static void test_ingress(void)
{
	struct skassign_job *job = job_at(AT_INGRESS);

	divert(host, host_dev);
	job->mark = MARK;
	attach(AT_INGRESS, host, host_dev);
	converse(host, pod, AT_INGRESS);
}

/* The action leaves the verdict to the next one. */
static void test_action(void)
{
	struct skassign_job *job = job_at(AT_INGRESS);

	divert(host, host_dev);
	job->mark = MARK;
	job->verdict = TCX_NEXT;
	must(bpf_program__pin(skel->progs.as_action, PIN "action"));
	shell("tc qdisc add dev %s clsact && tc filter add dev %s ingress matchall "
	      "action bpf object-pinned " PIN "action pipe action ok", host_dev, host_dev);
	for (int verdict = -1; verdict <= 3; verdict += 4) {	/* configured one, pipe */
		job->verdict = verdict;
		converse(host, pod, AT_INGRESS);
	}
}

/* --- groups */

static int group_clients(int type, int family, int n, int *clients)
{
	struct sockaddr_storage a;
	socklen_t len = nowhere(&a, family);
	int refused = 0;

	for (int i = 0; i < n; i++)
		clients[i] = client(pod, type, &a, len);
	for (int i = 0; i < n; i++)
		refused += outcome(clients[i]) != 0;
	return refused;
}

/* The number of connections or datagrams that a member has got. */
static int got(int s, int type, int want)
{
	char buf[16];
	int n, c;

	for (n = 0; readable(s, n < want ? LIMIT : 0); n++) {
		if (type == SOCK_DGRAM) {
			must(recv(s, buf, sizeof(buf), 0));
		} else {
			c = must(accept(s, NULL, NULL));
			close(c);
		}
	}
	return n;
}

static void test_group(void)
{
	enum { CLIENTS = 16 };
	int members[GROUP_SIZE], clients[CLIENTS], family, type, prog, n[GROUP_SIZE], sum, busy;
	struct skassign_job *job = job_at(AT_NETKIT);
	__u32 base;

	divert(host, host_dev);
	job->mark = MARK;
	attach(AT_NETKIT, host, host_dev);
	prog = bpf_program__fd(skel->progs.choose);
	for_each(type, types) {
		for_each(family, families) {
			const char *t = type_names[type], *f = family_names[family];

			for (int i = 0; i < GROUP_SIZE; i++)
				members[i] = proxy(host, family, type, true);
			base = refs(host, type);

			group_clients(type, family, CLIENTS, clients);
			sum = busy = 0;
			for (int i = 0; i < GROUP_SIZE; i++) {
				n[i] = got(members[i], type, 0);
				sum += n[i];
				busy += n[i] > 0;
			}
			for (int i = 0; sum < CLIENTS && i < 100; i++) {
				usleep(10000);
				for (int k = 0; k < GROUP_SIZE; k++)
					sum += got(members[k], type, 0);
			}
			for (int i = 0; i < CLIENTS; i++)
				close(clients[i]);
			ok(sum == CLIENTS && busy > 1, "%s over %s: %d of %d, %d members", t, f,
			   sum, CLIENTS, busy);

			must(setsockopt(members[0], SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &prog,
					sizeof(prog)));
			for (__u32 i = 0; i < GROUP_SIZE; i++) {
				__u64 fd = members[i];

				must(bpf_map_update_elem(bpf_map__fd(skel->maps.group), &i, &fd,
							 BPF_ANY));
			}
			base = refs(host, type);
			skel->bss->chosen = 2;
			group_clients(type, family, 4, clients);
			sum = got(members[2], type, 4);
			ok(sum == 4, "%s over %s: the program chose a member for %d of 4", t, f,
			   sum);
			for (int i = 0; i < 4; i++)
				close(clients[i]);
			ok(refs_become(host, type, base), "%s over %s: %u references, %u before",
			   t, f, skel->bss->refs, base);

			/* of the program's own lookup nothing comes then: assign by the map,
			 * which does not take what is in another one
			 */
			for (__u32 i = 0; i < GROUP_SIZE; i++)
				must(bpf_map_delete_elem(bpf_map__fd(skel->maps.group), &i));
			put_socket(members[1]);
			base = refs(host, type);
			job->how = SKASSIGN_MAP;
			skel->bss->choices = 0;
			skel->bss->chosen = SKASSIGN_DROP;
			group_clients(type, family, 1, clients);
			for (sum = 0; sum < 100 && !*(volatile __u32 *)&skel->bss->choices; sum++)
				usleep(10000);
			sum = 0;
			for (int i = 0; i < GROUP_SIZE; i++)
				sum += readable(members[i], i ? 0 : NEVER);
			ok(!sum && skel->bss->choices, "%s over %s: the program drops: %d got it",
			   t, f, sum);
			close(clients[0]);
			ok(refs_become(host, type, base), "%s over %s: %u references, %u before",
			   t, f, skel->bss->refs, base);
			job->how = SKASSIGN_LOOKUP;
			drop_socket();
			for (int i = 0; i < GROUP_SIZE; i++)
				close(members[i]);
			skel->bss->chosen = 0;
		}
	}
}

/* --- packets in a queue */

static const char *const ways[] = { "redirect", "neigh", "filter", "mirred", "reqsk", "egress" };
enum { REDIRECT, NEIGH, FILTER, MIRRED, REQSK, EGRESS };

/*
 * From the pod to a queue that nobody serves, with a socket of the proxy: at the host's
 * ingress, or at the pod's egress.
 */
static int queued_by(int way)
{
	int at = way == EGRESS ? AT_EGRESS : AT_INGRESS, net = way == EGRESS ? pod : host;
	const char *dev = way == EGRESS ? pod_dev : "up0";
	struct skassign_job *job = job_at(at);

	enter(net);
	if (way != EGRESS)
		shell("ip link add up0 type dummy && ip link set up0 up && "
		      "ip addr add 198.51.100.1/24 dev up0 && ip route add default dev up0 && "
		      "ip -6 route add default dev up0");
	job->ifindex = ifindex(dev);
	job->how = way == REQSK ? SKASSIGN_REQSK : SKASSIGN_LOOKUP;
	job->then = way == NEIGH ? SKASSIGN_NEIGH : way == MIRRED || way == EGRESS ?
		    SKASSIGN_RETURN : SKASSIGN_REDIRECT;
	job->verdict = -1;	/* a match, for mirred to follow; the next one */
	if (way == FILTER || way == MIRRED) {
		must(bpf_program__pin(way == FILTER ? skel->progs.as_filter : skel->progs.as_match,
				      PIN "filter"));
		shell("tc qdisc add dev %s clsact && tc filter add dev %s ingress bpf %s "
		      "object-pinned " PIN "filter %s", host_dev, host_dev,
		      way == FILTER ? "da" : "",
		      way == MIRRED ? "action mirred egress redirect dev up0" : "");
	} else {
		attach(at, net, way == EGRESS ? pod_dev : host_dev);
	}
	/* Neighbours are known before the queue is closed. */
	if (way == EGRESS)
		shell("ping -c 1 -W 5 10.0.0.1 >/dev/null && ping -6 -c 1 -W 5 fd00::1 >/dev/null");
	shell("tc qdisc add dev %s root plug limit 1000000", dev);
	return net;
}

static int way_of(const char *name)
{
	for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++)
		if (!strcmp(name, ways[i]))
			return i;
	exit(2);
}

static void grace_periods(void)
{
	for (int i = 0; i < 5; i++)
		must(syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0));
}

static void test_queue(const char *name, bool closes)
{
	int way = way_of(name), net = queued_by(way), family, type, s, c;
	int at = way == EGRESS ? AT_EGRESS : AT_INGRESS;
	const char *dev = way == EGRESS ? pod_dev : "up0";
	struct sockaddr_storage a;
	socklen_t len;
	__u32 base;

	for_each(type, types) {
		if (way == REQSK && type != SOCK_STREAM)
			continue;
		for_each(family, families) {
			s = proxy(net, family, type, false);
			base = refs(net, type);
			report_at(at)->assigned = 0;
			len = nowhere(&a, family);
			c = client(pod, type, &a, len);
			for (int i = 0; i < 500 && !report_at(at)->assigned; i++)
				usleep(10000);
			if (closes) {
				close(s);
				grace_periods();
			} else {
				ok(refs(net, type) > base,
				   "%s over %s: %u references, %u without %u packets",
				   type_names[type], family_names[family], skel->bss->refs, base,
				   report_at(at)->assigned);
			}
			close(c);
			enter(net);
			shell("tc qdisc replace dev %s root pfifo && "
			      "tc qdisc replace dev %s root plug limit 1000000", dev, dev);
			if (closes) {
				ok(refs_become(net, type, 0) && report_at(at)->assigned,
				   "%s over %s: %u packets, %u references left", type_names[type],
				   family_names[family], report_at(at)->assigned, skel->bss->refs);
				continue;
			}
			ok(refs_become(net, type, base), "%s over %s: %u references, %u before",
			   type_names[type], family_names[family], skel->bss->refs, base);
			close(s);
		}
	}
}

/* --- packets that leave the namespace */

/* Who serves the client: the one that it wants, or the proxy that must not. */
static void served(int at, int from, int family, int type, int wanted, int other,
		   const char *v4, const char *v6, const char *what)
{
	struct sockaddr_storage a;
	socklen_t len = to(&a, family, v4, v6, PORT);
	bool here, there;
	int c;

	report_at(at)->assigned = 0;
	c = client(from, type, &a, len);
	here = readable(wanted, LIMIT);
	there = readable(other, 0);
	ok(here && !there && report_at(at)->assigned, "%s, %s over %s: %s%s, %u assigned, %s", what,
	   type_names[type], family_names[family], here ? "served" : "not served",
	   there ? " by the proxy" : "", report_at(at)->assigned,
	   strerror(-report_at(at)->err));
	close(c);
}

static void served_all(int at, int from, int net, int proxy_net, const char *v4, const char *v6,
		       const char *what)
{
	int type, family, wanted, other;

	for_each(type, types) {
		for_each(family, families) {
			wanted = server(net, family, type);
			other = proxy(proxy_net, family, type, false);
			served(at, from, family, type, wanted, other, v4, v6, what);
			close(wanted);
			close(other);
		}
	}
}

/* From a client through the host to a pod: by the host's end of the pod's pair. */
static void test_peer(const char *client_name, const char *link, __u64 flags)
{
	struct skassign_job *job = job_at(AT_INGRESS);
	int from = open_net(client_name);

	forwarding(host);
	job->then = SKASSIGN_PEER;
	job->redirect_flags = flags;
	enter(host);
	job->ifindex = ifindex(link);
	if (flags)		/* what the pod seems to send comes to the host */
		mac_of(link, job->mac);
	attach(AT_INGRESS, host, host_dev);
	served_all(AT_INGRESS, from, pod, host, "10.1.0.2", "fd01::2",
		   flags ? "egress" : "ingress");
}

/* The pod has the VLAN device on top of the host's. */
static void test_vlan(const char *client_name)
{
	struct skassign_job *job = job_at(AT_INGRESS);
	int from = open_net(client_name);

	job->verdict = TCX_NEXT;
	attach(AT_INGRESS, host, host_dev);
	served_all(AT_INGRESS, from, pod, host, "10.5.0.2", "fd05::2", "VLAN");
}

/* The pod assigns one of its own to a packet that the host forwards. */
static void test_forward(const char *client_name)
{
	struct skassign_job *job = job_at(AT_EGRESS);
	int at = open_net(client_name);

	forwarding(host);
	job->verdict = TCX_NEXT;
	attach(AT_EGRESS, pod, pod_dev);
	served_all(AT_EGRESS, pod, at, pod, "10.0.0.1", "fd00::1", "forwarded");
}

/* --- what is refused */

static void expect(const char *what, int at, int want)
{
	struct sockaddr_storage a;
	int c, family, s, o;

	for_each(family, families) {
		socklen_t len = nowhere(&a, family);
		__u32 base;

		s = proxy(host, family, SOCK_DGRAM, false);
		o = server(pod, family, SOCK_DGRAM);
		if (skel->bss->jobs[at].how == SKASSIGN_MAP)
			put_socket(o);
		base = refs(host, SOCK_DGRAM);
		report_at(at)->seen = 0;
		report_at(at)->err = 1;
		c = client(at == AT_EGRESS ? host : pod, SOCK_DGRAM, &a, len);
		for (int i = 0; i < 500 && !report_at(at)->seen; i++)
			usleep(10000);
		ok(report_at(at)->err == want && !readable(s, NEVER) &&
		   refs_become(host, SOCK_DGRAM, base), "%s over %s: %s, %u references, %u before",
		   what, family_names[family], strerror(-report_at(at)->err), skel->bss->refs,
		   base);
		close(c);
		close(s);
		close(o);
	}
}

static void test_refused(void)
{
	struct skassign_job *job = job_at(AT_NETKIT);
	char packet[64] = { [12] = 8, [14] = 0x45, [23] = IPPROTO_UDP, [37] = PORT };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = sizeof(packet));
	int s;

	attach(AT_NETKIT, host, host_dev);
	job->mark = MARK;
	job->flags = 1;
	divert(host, host_dev);
	expect("flags", AT_NETKIT, -EINVAL);
	job->flags = 0;
	job->how = SKASSIGN_MAP;
	expect("a socket of the pod", AT_NETKIT, -ENETUNREACH);
	job->how = SKASSIGN_LOOKUP;
	job->mark = 0;
	forwarding(host);
	expect("without a route to here", AT_NETKIT, 0);

	enter(host);
	shell("ip link add up0 type dummy && ip link set up0 up && "
	      "ip addr add 198.51.100.1/24 dev up0 && ip addr add fd09::1/64 dev up0 nodad && "
	      "ip route add default dev up0 && ip -6 route add default dev up0");
	must(bpf_program__pin(skel->progs.in_qdisc, PIN "qdisc"));
	shell("tc qdisc add dev up0 root handle 1: htb && tc filter add dev up0 parent 1: "
	      "bpf da object-pinned " PIN "qdisc && tc qdisc add dev up0 clsact");
	job_at(AT_EGRESS);
	expect("a qdisc's classifier", AT_EGRESS, -EOPNOTSUPP);

	/* test_run's packets come in by the loopback device of its own namespace */
	job_at(AT_TEST_RUN);
	s = proxy(host, AF_INET, SOCK_DGRAM, false);
	must(bpf_prog_test_run_opts(bpf_program__fd(skel->progs.test_run), &opts));
	ok(report_at(AT_TEST_RUN)->seen && report_at(AT_TEST_RUN)->err == -EOPNOTSUPP,
	   "test_run: %u seen, %s", report_at(AT_TEST_RUN)->seen,
	   strerror(-report_at(AT_TEST_RUN)->err));
	close(s);
}

/* --- XDP_TX on the pod's device comes to netkit without __dev_queue_xmit() */

static void test_xdp(const char *client_name, const char *link)
{
	struct skassign_job *job = job_at(AT_INGRESS), *back = job_at(AT_NETKIT);
	int from = open_net(client_name), s, c;
	struct sockaddr_storage a;
	socklen_t len = to(&a, AF_INET, "10.1.0.2", "fd01::2", PORT);

	enter(pod);
	must(bpf_xdp_attach(ifindex(pod_dev), bpf_program__fd(skel->progs.turn_back),
			    XDP_FLAGS_SKB_MODE, NULL));
	enter(host);
	job->how = SKASSIGN_NONE;
	job->then = SKASSIGN_PEER;
	job->ifindex = ifindex(link);
	attach(AT_INGRESS, host, host_dev);
	back->mark = MARK;
	attach(AT_NETKIT, host, link);
	s = proxy(host, AF_INET, SOCK_DGRAM, false);
	c = client(from, SOCK_DGRAM, &a, len);
	for (int i = 0; i < 500 && !report_at(AT_NETKIT)->seen; i++)
		usleep(10000);
	ok(report_at(AT_NETKIT)->seen && !report_at(AT_NETKIT)->err &&
	   report_at(AT_NETKIT)->refs == 1, "%u seen, %s, %d references taken",
	   report_at(AT_NETKIT)->seen, strerror(-report_at(AT_NETKIT)->err),
	   report_at(AT_NETKIT)->refs);
	close(c);
	close(s);
}

/* --- timestamps of what the pod sends */

static bool stamped(int s, int ms)
{
	struct pollfd p = { .fd = s };

	return must(poll(&p, 1, ms)) && p.revents & POLLERR;
}

static void test_stamps(void)
{
	int want = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE, family, s, c, at;
	struct skassign_job *job;
	struct sockaddr_storage a;
	socklen_t len;
	char buf[256];

	attach(AT_EGRESS, pod, pod_dev);
	for_each(family, families) {
		job = job_at(AT_EGRESS);
		job->verdict = TCX_NEXT;
		job->how = SKASSIGN_NONE;
		at = server(host, family, SOCK_DGRAM);
		s = proxy(pod, family, SOCK_DGRAM, false);
		must(setsockopt(s, SOL_SOCKET, SO_TIMESTAMPING, &want, sizeof(want)));
		len = to(&a, family, "10.0.0.1", "fd00::1", PORT);
		c = new_socket(pod, family, SOCK_DGRAM);
		must(setsockopt(c, SOL_SOCKET, SO_TIMESTAMPING, &want, sizeof(want)));
		must(connect(c, (void *)&a, len));
		must(send(c, "ping", 4, 0));
		ok(stamped(c, LIMIT), "%s: the sender is told without an assignment",
		   family_names[family]);
		must(recv(at, buf, sizeof(buf), 0));
		job->how = SKASSIGN_LOOKUP;
		must(send(c, "ping", 4, 0));
		ok(readable(at, LIMIT) && report_at(AT_EGRESS)->assigned == 1 && !stamped(s, 0),
		   "%s: the socket that was assigned is not told", family_names[family]);
		close(c);
		close(s);
		close(at);
	}
}

/* --- user space sees the packet in between */

static int queue_open(void)
{
	struct {
		struct nlmsghdr nlh;
		struct nfgenmsg nfg;
		struct nlattr cmd_attr;
		struct nfqnl_msg_config_cmd cmd;
		struct nlattr params_attr;
		struct nfqnl_msg_config_params params;
		__u8 pad[3];
	} __attribute__((packed)) req = {
		.nlh = {
			.nlmsg_len = sizeof(req),
			.nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_CONFIG,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK,
		},
		.nfg = { .version = NFNETLINK_V0, .res_id = htons(5) },
		.cmd_attr = { NLA_HDRLEN + sizeof(req.cmd), NFQA_CFG_CMD },
		.cmd = { .command = NFQNL_CFG_CMD_BIND },
		.params_attr = { NLA_HDRLEN + sizeof(req.params), NFQA_CFG_PARAMS },
		.params = { .copy_range = htonl(0), .copy_mode = NFQNL_COPY_META },
	};
	struct {
		struct nlmsghdr nlh;
		struct nlmsgerr err;
	} answer;
	int s = must(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));

	must(send(s, &req, sizeof(req), 0));
	must(recv(s, &answer, sizeof(answer), 0));
	errno = -answer.err.error;
	must(answer.nlh.nlmsg_type == NLMSG_ERROR ? answer.err.error : -1);
	return s;
}

/* One packet: let it go on. */
static bool queue_accept(int s)
{
	struct {
		struct nlmsghdr nlh;
		struct nfgenmsg nfg;
		struct nlattr attr;
		struct nfqnl_msg_verdict_hdr verdict;
	} req = {
		.nlh = {
			.nlmsg_len = sizeof(req),
			.nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT,
			.nlmsg_flags = NLM_F_REQUEST,
		},
		.nfg = { .version = NFNETLINK_V0, .res_id = htons(5) },
		.attr = { NLA_HDRLEN + sizeof(req.verdict), NFQA_VERDICT_HDR },
		.verdict = { .verdict = htonl(NF_ACCEPT) },
	};
	char buf[8192];
	int n, off = NLMSG_HDRLEN + sizeof(struct nfgenmsg);

	if (!readable(s, LIMIT))
		return false;
	n = must(recv(s, buf, sizeof(buf), 0));
	while (off + NLA_HDRLEN <= n) {
		struct nlattr *a = (void *)(buf + off);

		if ((a->nla_type & NLA_TYPE_MASK) == NFQA_PACKET_HDR)
			req.verdict.id = *(__be32 *)(buf + off + NLA_HDRLEN);
		off += NLA_ALIGN(a->nla_len);
	}
	must(send(s, &req, sizeof(req), 0));
	return true;
}

static void test_nfqueue(void)
{
	struct skassign_job *job = job_at(AT_INGRESS);
	int members[2], family, type, prog = bpf_program__fd(skel->progs.choose), q, c;
	struct sockaddr_storage a;
	socklen_t len;
	__u32 base;

	divert(host, host_dev);
	q = queue_open();
	shell("nft add table inet q && nft add chain inet q c "
	      "'{ type filter hook prerouting priority -300; }' && "
	      "nft add rule inet q c meta l4proto '{ tcp, udp }' th dport %d queue num 5", PORT);
	job->mark = MARK;
	job->how = SKASSIGN_MAP;
	attach(AT_INGRESS, host, host_dev);
	for_each(type, types) {
		for_each(family, families) {
			bool seen;

			for (int i = 0; i < 2; i++) {
				members[i] = proxy(host, family, type, true);
				if (!i)
					must(setsockopt(members[0], SOL_SOCKET,
							SO_ATTACH_REUSEPORT_EBPF, &prog,
							sizeof(prog)));
			}
			put_socket(members[0]);
			skel->bss->chosen = SKASSIGN_ANY;
			skel->bss->choices = 0;
			base = refs(host, type);
			len = nowhere(&a, family);
			c = client(pod, type, &a, len);
			seen = queue_accept(q);
			for (int i = 0; i < 500 && !*(volatile __u32 *)&skel->bss->choices; i++)
				usleep(10000);
			ok(seen && skel->bss->choices, "%s over %s: %s, the group's program was %s",
			   type_names[type], family_names[family], seen ? "seen" : "not seen",
			   skel->bss->choices ? "asked" : "not asked");
			close(c);
			drop_socket();
			close(members[0]);
			close(members[1]);
			while (readable(q, 0))
				queue_accept(q);
			ok(refs_become(host, type, 0), "%s over %s: %u references left of %u",
			   type_names[type], family_names[family], skel->bss->refs, base);
		}
	}
}

/* --- fragments lose the assignment when they are put together */

static void test_fragments(void)
{
	struct skassign_job *job = job_at(AT_NETKIT);
	int family, s, c, none = IP_PMTUDISC_DONT;
	static char big[4000];
	struct sockaddr_storage a;
	__u32 base;

	divert(host, host_dev);
	shell("ip rule add iif %s lookup 100 && ip -6 rule add iif %s lookup 100", host_dev,
	      host_dev);
	job->mark = MARK;
	attach(AT_NETKIT, host, host_dev);
	for_each(family, families) {
		socklen_t len = nowhere(&a, family);

		s = proxy(host, family, SOCK_DGRAM, false);
		base = refs(host, SOCK_DGRAM);
		c = client(pod, SOCK_DGRAM, &a, len);
		ok(readable(s, LIMIT) && recv(s, big, sizeof(big), 0) == 4, "%s: a small one",
		   family_names[family]);
		if (family == AF_INET)
			must(setsockopt(c, SOL_IP, IP_MTU_DISCOVER, &none, sizeof(none)));
		must(send(c, big, sizeof(big), 0));
		ok(!readable(s, NEVER), "%s: fragments do not reach the proxy",
		   family_names[family]);
		ok(refs_become(host, SOCK_DGRAM, base), "%s: %u references, %u before",
		   family_names[family], skel->bss->refs, base);
		close(c);
		close(s);
	}
}

/* --- packets are fragmented on their way into a tunnel */

/* Fragments that the host has made. */
static unsigned long fragments(void)
{
	unsigned long n = 0;
	char line[1024];
	FILE *f;

	enter(host);
	f = fopen("/proc/thread-self/net/snmp", "r");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Ip: %*d %*d %*d %*d %*d %*d %*d %*d %*d %*d %*d %*d %*d %*d %*d "
				 "%*d %*d %*d %lu", &n) == 1)
			break;
	if (f)
		fclose(f);
	return n;
}

/* What the socket is charged for as if it had sent it. */
static int charged(int s)
{
	int n;

	must(ioctl(s, SIOCOUTQ, &n));
	return n;
}

/*
 * In one buffer, or as a list of them that the pod's stack would have sent as fragments: the
 * MTU of the route counts while the datagram is made, that of the device when it is sent.
 */
static void send_big(int c, int family, bool list)
{
	int level = family == AF_INET ? SOL_IP : SOL_IPV6;
	int name = family == AF_INET ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER;
	int route = IP_PMTUDISC_DONT, device = IP_PMTUDISC_OMIT;
	static char data[3000];

	must(setsockopt(c, level, name, list ? &route : &device, sizeof(int)));
	must(send(c, data, sizeof(data), MSG_MORE));
	must(setsockopt(c, level, name, &device, sizeof(int)));
	must(send(c, data, 8, 0));
}

static void test_tunnel(void)
{
	struct skassign_job *job = job_at(AT_INGRESS);
	struct sockaddr_storage a;
	unsigned long made;
	int family, s, c;
	socklen_t len;
	__u32 base;

	enter(pod);
	shell("ip link set %s mtu 9000 && ip route change default via 10.0.0.1 mtu 1500 && "
	      "ip -6 route change default via fd00::1 mtu 1500", pod_dev);
	enter(host);
	shell("ip link set %s mtu 9000 && ip link add up0 mtu 2000 type dummy && "
	      "ip link set up0 up && ip addr add 198.51.100.1/24 dev up0 && "
	      "ip link add gre1 mtu 9000 type gre local 198.51.100.1 remote 198.51.100.9 "
	      "nopmtudisc && ip link set gre1 up && tc qdisc add dev up0 root plug limit 1000000",
	      host_dev);
	job->then = SKASSIGN_REDIRECT;
	job->ifindex = ifindex("gre1");
	attach(AT_INGRESS, host, host_dev);
	for_each(family, families) {
		for (int list = 0; list < 2; list++) {
			const char *f = family_names[family], *kind = list ? "list" : "buffer";

			s = proxy(host, family, SOCK_DGRAM, false);
			base = refs(host, SOCK_DGRAM);
			len = nowhere(&a, family);
			c = new_socket(pod, family, SOCK_DGRAM);
			must(connect(c, (void *)&a, len));
			report_at(AT_INGRESS)->assigned = 0;
			made = fragments();
			send_big(c, family, list);
			for (int i = 0; i < 500 && fragments() < made + 2; i++)
				usleep(10000);
			made = fragments() - made;
			ok(report_at(AT_INGRESS)->assigned == 1 && made >= 2,
			   "%s, one %s: %u assigned, %lu fragments", f, kind,
			   report_at(AT_INGRESS)->assigned, made);
			ok(!charged(s) && refs(host, SOCK_DGRAM) == base,
			   "%s, one %s: the receiver is charged %d, %u references, %u before", f,
			   kind, charged(s), skel->bss->refs, base);
			close(c);
			enter(host);
			shell("tc qdisc replace dev up0 root pfifo && "
			      "tc qdisc replace dev up0 root plug limit 1000000");
			ok(!charged(s) && refs_become(host, SOCK_DGRAM, base),
			   "%s, one %s, sent: the receiver is charged %d, %u references", f, kind,
			   charged(s), skel->bss->refs);
			close(s);
		}
	}
}

/* --- sockets come and go while packets are assigned to them */

static pid_t storm_child(void (*f)(int family, int type), int family, int type)
{
	pid_t pid = must(fork());

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		f(family, type);
}

static void storm_proxy(int family, int type)
{
	int s = proxy(host, family, type, type == SOCK_DGRAM);

	usleep(rand() % 2000);
	close(s);
}

static void storm_client(int family, int type)
{
	struct sockaddr_storage a;
	socklen_t len = nowhere(&a, family);
	int s = new_socket(pod, family, type | SOCK_NONBLOCK);

	connect(s, (void *)&a, len);
	for (int i = 0; type == SOCK_DGRAM && i < 20; i++)
		send(s, "ping", 4, 0);
	if (rand() % 2)
		usleep(1000);
	close(s);
}

static void test_storm(int seconds)
{
	struct skassign_job *job = job_at(AT_NETKIT);
	pid_t children[8];
	int family, type, n = 0;

	divert(host, host_dev);
	job->mark = MARK;
	attach(AT_NETKIT, host, host_dev);
	for_each(family, families) {
		for_each(type, types) {
			children[n++] = storm_child(storm_proxy, family, type);
			children[n++] = storm_child(storm_client, family, type);
		}
	}
	sleep(seconds);
	for (int i = 0; i < n; i++) {
		ok(!waitpid(children[i], NULL, WNOHANG), "storm %d lives", i);
		kill(children[i], SIGKILL);
		waitpid(children[i], NULL, 0);
	}
	ok(report_at(AT_NETKIT)->assigned > 100, "%u packets assigned",
	   report_at(AT_NETKIT)->assigned);
	for_each(type, types)
		ok(refs_become(host, type, 0), "%s: %u references left", type_names[type],
		   skel->bss->refs);
}

static void usage(void)
{
	fprintf(stderr,
		"usage: skassign HOST POD VERB [ARG]...\n"
		"netkit | uplink | own | ingress | action\tconversations by a proxy\n"
		"group\t\t\t\t\tof proxies that share a port\n"
		"queue WAY | close WAY\t\t\tredirect, neigh, filter, mirred, reqsk, egress\n"
		"peer CLIENT LINK FLAGS | vlan CLIENT | forward CLIENT | xdp CLIENT LINK\n"
		"refused | stamps | nfqueue | fragments | tunnel | storm SECONDS\n");
	exit(2);
}

int main(int argc, char **argv)
{
	const char *verb = argc > 3 ? argv[3] : "", *f = getenv("TIMEOUT_FACTOR");

	if (argc < 4)
		usage();
	if (f)
		factor = atoi(f);
	host_dev = argv[1];
	pod_dev = argv[2];
	host = open_net(host_dev);
	pod = open_net(pod_dev);
	skel = skassign__open_and_load();
	if (!skel)
		return EXIT_FAILURE;

	if (!strcmp(verb, "netkit"))
		test_netkit();
	else if (!strcmp(verb, "uplink"))
		test_uplink();
	else if (!strcmp(verb, "own"))
		test_own();
	else if (!strcmp(verb, "ingress"))
		test_ingress();
	else if (!strcmp(verb, "action"))
		test_action();
	else if (!strcmp(verb, "group"))
		test_group();
	else if (!strcmp(verb, "queue") && argc > 4)
		test_queue(argv[4], false);
	else if (!strcmp(verb, "close") && argc > 4)
		test_queue(argv[4], true);
	else if (!strcmp(verb, "peer") && argc > 6)
		test_peer(argv[4], argv[5], strtoul(argv[6], NULL, 0));
	else if (!strcmp(verb, "vlan") && argc > 4)
		test_vlan(argv[4]);
	else if (!strcmp(verb, "forward") && argc > 4)
		test_forward(argv[4]);
	else if (!strcmp(verb, "xdp") && argc > 5)
		test_xdp(argv[4], argv[5]);
	else if (!strcmp(verb, "refused"))
		test_refused();
	else if (!strcmp(verb, "stamps"))
		test_stamps();
	else if (!strcmp(verb, "nfqueue"))
		test_nfqueue();
	else if (!strcmp(verb, "fragments"))
		test_fragments();
	else if (!strcmp(verb, "tunnel"))
		test_tunnel();
	else if (!strcmp(verb, "storm") && argc > 4)
		test_storm(atoi(argv[4]));
	else
		usage();
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
