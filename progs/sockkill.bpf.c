// SPDX-License-Identifier: GPL-2.0-only
/*
 * sockkill: find sockets in all network namespaces, and destroy them.
 *
 * A service's backend dies, and clients in any pod still hang on connections to it. The
 * kernel has all TCP sockets in one table and all UDP sockets in another, whatever their
 * namespace, but all it offers is to walk such a table for one namespace at a time: N
 * namespaces, N walks over everybody's sockets. Here the table is walked once.
 *
 *   sockkill_pass	runs once, by BPF_PROG_TEST_RUN, and visits each TCP and UDP socket
 *			by the open-coded iterators of kernel/sockkill. It is attached to
 *			nothing.
 *   sockkill_tcp,
 *   sockkill_udp	are for kernels without them: iter/tcp and iter/udp, which the tool
 *			reads once in each network namespace that it can enter. The socket
 *			is locked meanwhile.
 *   sockkill_dial4, 6	the recorder: at a cgroup's connect hooks, in front of the programs
 *   sockkill_reach4, 6	that translate a service's address to that of a backend, and behind
 *   sockkill_release	them. By the socket's cookie they keep what was dialled and what was
 *			reached, until the socket is released: its address is zero by then.
 *   sockkill_files	visits open files: which process a victim belongs to, and which
 *			namespaces are known by a file only.
 *
 * What a socket is judged by does not change while the tool runs it: protocol, family, state
 * and namespaces by rodata, the rest by the filter, a list of predicates that each name the
 * next one (sockkill.h). Addresses are compared in IPv6's form, so that a filter for IPv4
 * finds IPv4 on IPv6 sockets too.
 *
 * A victim is destroyed only when there is room to tell of it: each has a record in a ring
 * buffer, and what did not fit is counted, left alone, and found by the next pass. The same
 * holds for a socket that somebody has locked: sockkill_pass does not wait for the owner,
 * who may sleep for ever, and gets -EBUSY.
 *
 * Between judging and destroying nothing is locked in sockkill_pass. A UDP client that connects
 * elsewhere in that instant gets one ECONNABORTED for nothing.
 *
 * A record counts for a socket only as long as its peer is what was reached: who has been
 * disconnected, or connects elsewhere unseen, is judged by what it is now. The map of records
 * forgets nothing by itself; a connect that finds it full is counted, and its socket is one
 * that was never recorded, like those that are older than the recorder.
 *
 * A destroyed UDP socket is still there, without a peer. So that a filter by its own port
 * does not take it again, the tool lists in sk_done what earlier passes have dealt with.
 */
#include "common.bpf.h"
#include <bpf/bpf_core_read.h>
#include "sockkill.h"

#define AF_INET	 2
#define AF_INET6 10

#define E2BIG	 7

#define NSFS_MAGIC 0x6e736673

#define CGROUP_DEPTH_MAX 32

char LICENSE[] SEC("license") = "GPL";

/* The tool sets all of them; as they are here the verifier sees all of the program. */
const volatile struct sk_op ops[SK_OPS_MAX];
const volatile __u32 nops = 1;		       /* 0: all that the rest leaves */
const volatile __u32 states = SK_STATES_ALL;   /* mask of 1 << state */
const volatile bool want[2][2] = {{true, true}, {true, true}}; /* [UDP, not TCP][IPv6, not IPv4] */
const volatile bool some_netns = true;	       /* only those in sk_netns */
const volatile bool kernel_socks;	       /* also those that the kernel has for itself */
const volatile bool destroy = true;	       /* else only list */
const volatile bool recorded = true;	       /* only who reached its peer by a service */

int walk_err; /* of sockkill_pass: sockets were left out; -errno */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32); /* inode number of a network namespace */
	__type(value, __u8);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} sk_netns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct sk_endpoint);
	__type(value, __u8);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} sk_backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64); /* cookie */
	__type(value, __u8);
	__uint(max_entries, 1 << 20);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} sk_done SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64); /* cookie */
	__type(value, struct sk_record);
	__uint(max_entries, 1); /* the tool sets it, or takes that of the recorder at work */
	__uint(map_flags, BPF_F_NO_PREALLOC);
} sk_records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct sk_recorder);
	__uint(max_entries, 1);
} sk_recorder SEC(".maps");

/* Per namespace; what the table cannot hold is under 0. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct sk_total);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} sk_totals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20); /* bytes; the tool sets it by the number of sockets */
} sk_victims SEC(".maps");

static __always_inline bool same_bits(const volatile __u8 *a, const __u8 *b, __u32 bits)
{
	__u32 i;

	for (i = 0; i < 16 && bits >= 8; i++, bits -= 8)
		if (a[i] != b[i])
			return false;
	return i == 16 || !bits || !((a[i] ^ b[i]) >> (8 - bits));
}

static __always_inline bool is_mapped(const __u8 *addr)
{
	static const __u8 prefix[12] = {[10] = 0xff, [11] = 0xff};

	return !__builtin_memcmp(addr, prefix, sizeof(prefix));
}

static __always_inline void map_v4(__u8 *to, __be32 addr)
{
	__builtin_memset(to, 0, 10);
	to[10] = to[11] = 0xff;
	__builtin_memcpy(to + 12, &addr, 4);
}

static __always_inline bool has_sock(const struct sock_common *skc)
{
	return skc->skc_state != TCP_TIME_WAIT && skc->skc_state != TCP_NEW_SYN_RECV;
}

static bool in_cgroup(struct sock *sk, __u64 id)
{
	struct cgroup_subsys_state *css = &sk->sk_cgrp_data.cgroup->self;
	int i;

	bpf_for(i, 0, CGROUP_DEPTH_MAX) {
		if (!css)
			break;
		if (BPF_CORE_READ(css, cgroup, kn, id) == id)
			return true;
		css = BPF_CORE_READ(css, parent);
	}
	return false;
}

static __always_inline bool same_endpoint(const struct sk_endpoint *a, const struct sk_endpoint *b)
{
	return !__builtin_memcmp(a, b, sizeof(*a));
}

static __always_inline void peer_of(const struct sk_victim *v, struct sk_endpoint *peer)
{
	__builtin_memcpy(peer->addr, v->daddr, sizeof(peer->addr));
	peer->port = v->dport;
	peer->proto = v->proto;
	peer->pad = 0;
}

/* How it came to its peer; NULL: not recorded, or its peer is another by now. */
static const struct sk_record *record_of(const struct sk_victim *v, struct sock_common *skc)
{
	__u64 cookie = bpf_get_socket_cookie(skc);
	const struct sk_record *r = bpf_map_lookup_elem(&sk_records, &cookie);
	struct sk_endpoint peer;

	peer_of(v, &peer);
	return r && r->time && same_endpoint(&r->reached, &peer) ? r : NULL;
}

/* Whether a filter's op holds for the socket, of which v tells what is asked for most. */
static bool holds(const volatile struct sk_op *op, const struct sk_victim *v,
		  struct sock_common *skc)
{
	const __u8 *addr = op->what == SK_DST ? v->daddr : v->saddr;
	__u16 port = bpf_ntohs(op->what == SK_DPORT ? v->dport : v->sport);
	const struct sk_record *r;
	struct sk_endpoint peer;

	switch (op->what) {
	case SK_DST:
	case SK_SRC:
		if (op->family == 4 ? !is_mapped(addr) : v->family != AF_INET6)
			return false;
		return same_bits(op->addr, addr, op->bits);
	case SK_DPORT:
	case SK_SPORT:
		return port >= op->lo && port <= op->hi;
	case SK_DEV:
		return v->dev == op->value;
	case SK_MARK:
		return (v->mark & (op->value >> 32)) == (__u32)op->value;
	case SK_CGROUP:
		return has_sock(skc) && in_cgroup(bpf_core_cast(skc, struct sock), op->value);
	case SK_COOKIE:
		return bpf_get_socket_cookie(skc) == op->value;
	case SK_BACKEND:
		peer_of(v, &peer);
		return bpf_map_lookup_elem(&sk_backends, &peer);
	case SK_SERVICE:
		r = record_of(v, skc);
		return r && same_bits(op->addr, r->dialled.addr, 128) &&
		       (!op->lo || bpf_ntohs(r->dialled.port) == op->lo);
	}
	return false;
}

static bool accepts(const struct sk_victim *v, struct sock_common *skc)
{
	__u32 pc = 0;
	int i;

	if (!nops)
		return true;
	bpf_for(i, 0, SK_OPS_MAX) {
		if (pc >= SK_OPS_MAX)
			break;
		pc = holds(&ops[pc], v, skc) ? ops[pc].yes : ops[pc].no;
	}
	return pc == SK_ACCEPT;
}

static __always_inline struct sk_total *total_of(__u32 netns)
{
	struct sk_total none = {}, *t = bpf_map_lookup_elem(&sk_totals, &netns);

	if (t)
		return t;
	/* -EEXIST: another CPU was first; -E2BIG: the rest shares an entry */
	if (bpf_map_update_elem(&sk_totals, &netns, &none, BPF_NOEXIST) == -E2BIG)
		netns = 0;
	return bpf_map_lookup_elem(&sk_totals, &netns);
}

/*
 * Whether it is one that the kernel has for itself. A path of an MPTCP connection, which the
 * kernel makes, is its owner's.
 */
static __always_inline bool of_kernel(struct sock *sk, __u8 proto)
{
	struct inet_connection_sock *icsk = bpf_core_cast(sk, struct inet_connection_sock);
	struct mptcp_subflow_context *path;
	char ulp[8] = "";

	if (proto == IPPROTO_TCP && icsk->icsk_ulp_ops &&
	    bpf_core_type_exists(struct mptcp_subflow_context)) {
		bpf_core_read_str(ulp, sizeof(ulp), &icsk->icsk_ulp_ops->name);
		path = bpf_core_cast(icsk->icsk_ulp_data, struct mptcp_subflow_context);
		if (!__builtin_memcmp(ulp, "mptcp", 6))
			sk = path->conn;
	}
	return BPF_CORE_READ_BITFIELD(sk, sk_kern_sock);
}

/*
 * Whether the socket is to be told of, as *v, and its namespace's counters as *t. Fields are
 * read in the order of what most often says no.
 */
static __always_inline bool judge(struct sock_common *skc, __u8 proto, struct sk_victim *v,
				  struct sk_total **t)
{
	__u16 family = skc->skc_family;
	struct sock *sk;

	if ((family != AF_INET && family != AF_INET6) ||
	    !want[proto == IPPROTO_UDP][family == AF_INET6])
		return false;
	v->netns = skc->skc_net.net->ns.inum;
	if (some_netns && !bpf_map_lookup_elem(&sk_netns, &v->netns))
		return false;
	*t = total_of(v->netns);
	if (!*t)
		return false;
	__sync_fetch_and_add(&(*t)->seen, 1);
	v->state = skc->skc_state;
	/* as ss has it: a socket in FIN_WAIT2 without an owner is kept as if in TIME_WAIT */
	if (v->state == TCP_TIME_WAIT)
		v->state = bpf_core_cast(skc, struct inet_timewait_sock)->tw_substate;
	if (!(states & 1 << (v->state & 31)))
		return false;

	v->proto = proto;
	v->family = family;
	v->sport = bpf_htons(skc->skc_num);
	v->dport = skc->skc_dport;
	v->dev = skc->skc_bound_dev_if;
	if (family == AF_INET) {
		map_v4(v->saddr, skc->skc_rcv_saddr);
		map_v4(v->daddr, skc->skc_daddr);
	} else {
		__builtin_memcpy(v->saddr, &skc->skc_v6_rcv_saddr, sizeof(v->saddr));
		__builtin_memcpy(v->daddr, &skc->skc_v6_daddr, sizeof(v->daddr));
	}
	if (has_sock(skc)) {
		sk = bpf_core_cast(skc, struct sock);
		if (!kernel_socks && of_kernel(sk, proto))
			return false;
		v->mark = sk->sk_mark;
	}
	if (!accepts(v, skc))
		return false;

	v->cookie = bpf_get_socket_cookie(skc);
	if (bpf_map_lookup_elem(&sk_done, &v->cookie))
		return false;
	if (has_sock(skc)) {
		struct socket_alloc *file;

		sk = bpf_core_cast(skc, struct sock);
		v->uid = sk->sk_uid.val;
		if (sk->sk_socket) {
			file = container_of(sk->sk_socket, struct socket_alloc, socket);
			v->ino = BPF_CORE_READ(file, vfs_inode.i_ino);
		}
	}
	if (recorded) {
		const struct sk_record *r = record_of(v, skc);

		/* a record goes with the socket's owner: without one there is nobody to tell */
		if (r ? same_endpoint(&r->dialled, &r->reached) : !v->ino)
			return false;
		if (!r)
			v->err = SK_UNRECORDED;
	}
	return true;
}

static __always_inline void visit(struct sock_common *skc, __u8 proto)
{
	struct sk_victim v = {}, *told;
	struct sk_total *t = NULL;

	if (!judge(skc, proto, &v, &t))
		return;
	told = bpf_ringbuf_reserve(&sk_victims, sizeof(*told), 0);
	if (!told) {
		__sync_fetch_and_add(&t->untold, 1);
		return;
	}
	if (!v.err)
		v.err = destroy ? bpf_sock_destroy(skc) : SK_LISTED;
	__builtin_memcpy(told, &v, sizeof(v));
	bpf_ringbuf_submit(told, 0);
}

SEC("syscall")
int sockkill_pass(void *ctx)
{
	struct sock_common *skc;
	struct bpf_iter_tcp tcp;
	struct bpf_iter_udp udp;

	walk_err = 0;
	if (want[0][0] || want[0][1]) {
		bpf_iter_tcp_new(&tcp, NULL);
		while ((skc = bpf_iter_tcp_next(&tcp)))
			visit(skc, IPPROTO_TCP);
		walk_err = bpf_iter_tcp_err(&tcp);
		bpf_iter_tcp_destroy(&tcp);
	}
	if (want[1][0] || want[1][1]) {
		bpf_iter_udp_new(&udp, NULL);
		while ((skc = bpf_iter_udp_next(&udp)))
			visit(skc, IPPROTO_UDP);
		walk_err = walk_err ?: bpf_iter_udp_err(&udp);
		bpf_iter_udp_destroy(&udp);
	}
	return 0;
}

SEC("iter/tcp")
int sockkill_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;

	if (skc)
		visit(skc, IPPROTO_TCP);
	return 0;
}

SEC("iter/udp")
int sockkill_udp(struct bpf_iter__udp *ctx)
{
	struct udp_sock *sk = ctx->udp_sk;

	if (sk)
		visit((struct sock_common *)sk, IPPROTO_UDP);
	return 0;
}

/* A record for each file that is a socket or a namespace, for the tool to sort out. */
SEC("iter/task_file")
int sockkill_files(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct sk_file f = {};
	struct socket *sock;

	if (!file || !task)
		return 0;
	sock = bpf_sock_from_file(file);
	if (sock && sock->sk)
		f.netns = BPF_CORE_READ(sock->sk, __sk_common.skc_net.net, ns.inum);
	else if (file->f_inode->i_sb->s_magic != NSFS_MAGIC)
		return 0;
	f.ino = file->f_inode->i_ino;
	f.pid = task->tgid;
	f.fd = ctx->fd;
	bpf_probe_read_kernel_str(f.comm, sizeof(f.comm), task->group_leader->comm);
	bpf_seq_write(ctx->meta->seq, &f, sizeof(f));
	return 0;
}

/* --- the recorder --- */

/* The hook for IPv4 has no IPv6 address to read, and the other way round. */
static __always_inline void endpoint_of(struct bpf_sock_addr *ctx, bool six, struct sk_endpoint *e)
{
	__be32 a[4] = {0, 0, bpf_htonl(0xffff)};

	if (six) {
		a[0] = ctx->user_ip6[0];
		a[1] = ctx->user_ip6[1];
		a[2] = ctx->user_ip6[2];
		a[3] = ctx->user_ip6[3];
	} else {
		a[3] = ctx->user_ip4;
	}
	__builtin_memcpy(e->addr, a, sizeof(e->addr));
	e->port = ctx->user_port;
	e->proto = ctx->protocol;
	e->pad = 0;
}

static __always_inline void dial(struct bpf_sock_addr *ctx, bool six)
{
	struct sk_record r = {.pid = bpf_get_current_pid_tgid() >> 32};
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct sk_recorder *count;
	__u32 zero = 0;

	if (ctx->protocol != IPPROTO_TCP && ctx->protocol != IPPROTO_UDP)
		return;
	endpoint_of(ctx, six, &r.dialled);
	bpf_get_current_comm(r.comm, sizeof(r.comm));
	if (!bpf_map_update_elem(&sk_records, &cookie, &r, BPF_ANY))
		return;
	count = bpf_map_lookup_elem(&sk_recorder, &zero);
	if (count)
		__sync_fetch_and_add(&count->lost, 1);
}

static __always_inline void reach(struct bpf_sock_addr *ctx, bool six)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct sk_record *r = bpf_map_lookup_elem(&sk_records, &cookie);
	struct sk_recorder *count;
	__u32 zero = 0;

	if (!r)
		return;
	endpoint_of(ctx, six, &r->reached);
	r->time = bpf_ktime_get_ns();
	count = bpf_map_lookup_elem(&sk_recorder, &zero);
	if (count)
		__sync_fetch_and_add(&count->recorded, 1);
}

SEC("cgroup/connect4")
int sockkill_dial4(struct bpf_sock_addr *ctx)
{
	dial(ctx, false);
	return 1;
}

SEC("cgroup/connect6")
int sockkill_dial6(struct bpf_sock_addr *ctx)
{
	dial(ctx, true);
	return 1;
}

SEC("cgroup/connect4")
int sockkill_reach4(struct bpf_sock_addr *ctx)
{
	reach(ctx, false);
	return 1;
}

SEC("cgroup/connect6")
int sockkill_reach6(struct bpf_sock_addr *ctx)
{
	reach(ctx, true);
	return 1;
}

SEC("cgroup/sock_release")
int sockkill_release(struct bpf_sock *ctx)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);

	bpf_map_delete_elem(&sk_records, &cookie);
	return 1;
}
