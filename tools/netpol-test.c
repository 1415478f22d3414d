// SPDX-License-Identifier: GPL-2.0-only
/*
 * netpol test: what a policy would do, by running the program itself on packets, with
 * maps of its own and nothing attached.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf.h>

#include "netpol-packet.h"
#include "netpol-verbs.h"
#include "netpol.skel.h"

struct bench {
	const char *file;
	struct np_policy *policy;
	__u32 *slots, *words, nwords;
	int tier;
	struct netpol *skel[2];		/* by enum np_dir */
	int prog_fd[2];
	json_t *packets;
	__u32 n;
};

static const char *const reasons[__NP_S_MAX] = {
	[NP_S_ALLOW] = "rule", [NP_S_FLOW] = "flow", [NP_S_FRAGMENT] = "as its first fragment",
	[NP_S_RELATED] = "error about a flow", [NP_S_NEIGH] = "neighbour discovery",
	[NP_S_ADOPTED] = "adopted", [NP_S_NEXT] = "rule", [NP_S_DENY_POLICY] = "rule",
	[NP_S_DENY_MALFORMED] = "malformed", [NP_S_DENY_FRAGMENT] = "first fragment not seen",
	[NP_S_DENY_MAP_FULL] = "map full", [NP_S_DENY_NONIP] = "not IP",
	[NP_S_DENY_NO_POLICY] = "no policy",
};

/* What rules see of a frame; false: fragments, extension headers, tags and what is cut short. */
static bool packet_of(const struct np_frame *frame, enum np_dir dir, struct np_packet *pkt)
{
	const unsigned char *l3 = frame->data + ETH_HLEN, *l4;
	struct ipv6hdr ip6;
	struct iphdr ip;
	__u16 ethertype;

	memset(pkt, 0, sizeof(*pkt));
	pkt->dir = dir;
	if (frame->len < ETH_HLEN + sizeof(ip) + 8)
		return false;
	memcpy(&ethertype, frame->data + ETH_HLEN - 2, 2);
	if (ethertype == htons(ETH_P_IP)) {
		memcpy(&ip, l3, sizeof(ip));
		l4 = l3 + ip.ihl * 4;
		if (ip.frag_off & htons(0x3fff))
			return false;
		pkt->family = 4;
		pkt->proto = ip.protocol;
		pkt->src[0] = ip.saddr;
		pkt->dst[0] = ip.daddr;
	} else if (ethertype == htons(ETH_P_IPV6) && frame->len >= ETH_HLEN + sizeof(ip6) + 8) {
		memcpy(&ip6, l3, sizeof(ip6));
		l4 = l3 + sizeof(ip6);
		pkt->family = 6;
		pkt->proto = ip6.nexthdr;
		memcpy(pkt->src, &ip6.saddr, 16);
		memcpy(pkt->dst, &ip6.daddr, 16);
	} else {
		return false;
	}
	if (l4 + 8 > frame->data + frame->len)
		return false;
	switch (pkt->proto) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_SCTP:
	case IPPROTO_DCCP:
		pkt->sport = l4[0] << 8 | l4[1];
		pkt->sel = l4[2] << 8 | l4[3];
		return true;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (pkt->proto == (pkt->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
			pkt->sel = l4[0] << 8 | l4[1];
		return true;
	default:
		return pkt->proto != IPPROTO_HOPOPTS && pkt->proto != IPPROTO_ROUTING &&
		       pkt->proto != IPPROTO_FRAGMENT && pkt->proto != IPPROTO_DSTOPTS &&
		       pkt->proto != IPPROTO_AH;
	}
}

static int bench_error(struct bench *b, const char *what, const char *text, size_t len,
		       const struct np_error *perr, int err)
{
	if (err == -EINVAL || err == -E2BIG) {
		fflush(stdout);
		np_error_print(stderr, what, text, len, perr);
		return USAGE;
	}
	complain_err(err, b->file, "cannot test");
	return FAILED;
}

static int bench_compile(struct bench *b, const char *text, size_t len)
{
	struct np_error perr = {};
	__u32 high;
	int err = np_policy_parse(text, len, &b->policy, &perr);

	if (err)
		return bench_error(b, b->file, text, len, &perr, err);
	if (env.dflt >= 0) {
		b->policy->has_default = true;
		b->policy->dflt = env.dflt;
	}
	if (!b->policy->has_default) {
		complain("%s: no default; add a line `default deny` (or allow, next), or give "
			 "--default",
			 b->file);
		return USAGE;
	}
	b->policy->stateless = env.stateless > 0;
	b->slots = calloc(b->policy->nrules + 1ul, sizeof(*b->slots));
	err = b->slots ? np_slots_assign(b->policy, NULL, NULL, b->slots, NULL, &high) : -ENOMEM;
	if (!err)
		err = np_table_build(b->policy, b->slots, 1, &b->words, &b->nwords, &b->tier,
				     &perr);
	return err ? bench_error(b, b->file, text, len, &perr, err) : DONE;
}

/* Each direction is loaded when a packet needs it; they do not share flows. */
static int bench_load(struct bench *b, enum np_dir dir)
{
	enum np_hook hook = dir == NP_IN ? NP_TCX_INGRESS : NP_TCX_EGRESS;
	struct bpf_program *gate;
	char tag[17];
	int err;

	if (b->skel[dir])
		return 0;
	err = np_prog_load(NULL, hook, ETH_HLEN, env.flows, &b->skel[dir], &gate, tag);
	if (!err)
		err = np_table_put(b->skel[dir], b->words, b->nwords, b->tier,
				   np_slots_used(b->words));
	if (!err)
		err = np_body_put(NULL, b->skel[dir], hook, b->tier, ETH_HLEN);
	if (!err)
		b->prog_fd[dir] = bpf_program__fd(gate);
	return err;
}

/* Which statistic went up, or -1. */
static int stat_delta(const struct np_count *before, const struct np_count *after)
{
	for (int i = 0; i < __NP_S_MAX; i++)
		if (after[i].packets != before[i].packets)
			return i;
	return -1;
}

/* Packets counted in a slot; false: without CAP_SYS_ADMIN that map is out of reach. */
static bool slot_packets(const struct netpol *skel, __u32 slot, __u64 *packets)
{
	__u32 page = slot / NP_SLOT_PAGE, id;
	struct np_count *counts = calloc(NP_SLOT_PAGE, sizeof(*counts));
	bool ok = false;
	int fd = -1;

	if (counts && !bpf_map_lookup_elem(bpf_map__fd(skel->maps.np_counts), &page, &id))
		fd = bpf_map_get_fd_by_id(id);
	if (fd >= 0) {
		ok = !np_page_read(fd, NP_SLOT_PAGE, counts);
		*packets = counts[slot % NP_SLOT_PAGE].packets;
		close(fd);
	}
	free(counts);
	return ok;
}

static int bench_run(struct bench *b, const struct np_frame *frame)
{
	/* The program changes no packet, but what it returns has to go somewhere. */
	static unsigned char out[NP_FRAME_MAX];
	enum np_dir dir = frame->dir == NP_OUT ? NP_OUT : NP_IN;
	struct np_count before[__NP_S_MAX], after[__NP_S_MAX];
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame->data, .data_size_in = frame->len,
		    .data_out = out, .data_size_out = sizeof(out));
	__u32 rule = NP_NONE, slot = 0;
	enum np_verdict verdict;
	struct np_packet pkt;
	__u64 from = 0, to = 0;
	int err = bench_load(b, dir), stats, stat, twin = -1;
	bool judged, counted;
	const char *text;

	if (err) {
		complain_err(err, b->file, "cannot load the program%s",
			     asked.verbose < 2 ? " (-vv shows more)" : "");
		return FAILED;
	}
	if (packet_of(frame, dir, &pkt)) {
		twin = np_table_match(b->words, &pkt, &rule);
		slot = rule == NP_NONE ? 0 : b->slots[rule];
	}
	stats = bpf_map__fd(b->skel[dir]->maps.np_stats);
	counted = slot_packets(b->skel[dir], slot, &from);
	err = np_page_read(stats, __NP_S_MAX, before);
	if (!err && bpf_prog_test_run_opts(b->prog_fd[dir], &opts))
		err = -errno;
	if (!err)
		err = np_page_read(stats, __NP_S_MAX, after);
	counted = counted && slot_packets(b->skel[dir], slot, &to);
	if (err) {
		complain_err(err, b->file, "cannot run the program");
		return FAILED;
	}
	b->n++;
	stat = stat_delta(before, after);
	verdict = (int)opts.retval == TC_ACT_OK ? NP_ALLOW :
		  (int)opts.retval == TC_ACT_SHOT ? NP_DENY : NP_NEXT;
	/* Only then have the rules been asked about this packet. */
	judged = twin >= 0 && (stat == NP_S_ALLOW || stat == NP_S_NEXT || stat == NP_S_DENY_POLICY);
	if (judged && (twin != (int)verdict || (counted && to != from + 1))) {
		complain("%s: packet %u: the program says %s, the table %s by rule %d; please "
			 "report this",
			 b->file, b->n, np_verdict_name(verdict), np_verdict_name(twin),
			 (int)rule + 1);
		return FAILED;
	}
	text = stat < 0 ? "unknown" : reasons[stat];
	if (asked.json) {
		json_t *o = json_pack("{s:I, s:s, s:s, s:s}", "packet", (json_int_t)b->n,
				      "direction", np_dir_name(dir), "verdict",
				      np_verdict_name(verdict), "reason",
				      judged && rule == NP_NONE ? "default" : text);

		if (judged && rule != NP_NONE) {
			json_object_set_new(o, "rule", json_integer(rule + 1));
			json_object_set_new(o, "line", json_integer(b->policy->rules[rule].line));
			json_object_set_new(o, "text", json_string(b->policy->rules[rule].text));
		}
		json_array_append_new(b->packets, o);
		return DONE;
	}
	if (env.pcap)
		printf("%u ", b->n);
	if (judged && rule != NP_NONE)
		printf("%s: rule %u, %s:%u: %s\n", np_verdict_name(verdict), rule + 1, b->file,
		       b->policy->rules[rule].line, b->policy->rules[rule].text);
	else
		printf("%s: %s\n", np_verdict_name(verdict), judged ? "default" : text);
	return DONE;
}

static int bench_packet(struct bench *b)
{
	struct np_error perr = {};
	struct np_frame frame = {};
	int err = np_frame_parse(env.packet, strlen(env.packet), ETH_HLEN, &frame, &perr), rc;

	if (err)
		return bench_error(b, "--packet", env.packet, strlen(env.packet), &perr, err);
	rc = bench_run(b, &frame);
	np_frame_free(&frame);
	return rc;
}

static int bench_pcap(struct bench *b)
{
	struct np_error perr = {};
	struct np_frame frame = {};
	struct np_pcap *pcap = NULL;
	int err = np_pcap_open(env.pcap, ETH_HLEN, &pcap, &perr), rc = DONE;

	while (!err && !rc) {
		err = np_pcap_next(pcap, &frame, &perr);
		if (err <= 0)
			break;
		err = 0;
		rc = bench_run(b, &frame);
	}
	if (err == -EINVAL) {
		rc = bench_error(b, env.pcap, NULL, 0, &perr, err);
	} else if (err < 0) {
		complain_err(err, env.pcap, "cannot read");
		rc = USAGE;
	}
	if (pcap)
		np_pcap_close(pcap);
	return rc;
}

int verb_test(int argc, char **argv)
{
	struct bench b = { .prog_fd = { -1, -1 } };
	char *text = NULL;
	size_t len;
	int err, rc;

	if (argc != 1 || (!env.packet && !env.pcap))
		return usage_error("test", "takes FILE, and --packet or --pcap");
	b.file = argv[0];
	err = read_file(argv[0], NP_MAX_TEXT, &text, &len);
	if (err) {
		complain_err(err, argv[0], "cannot read");
		return USAGE;
	}
	b.packets = json_array();
	rc = bench_compile(&b, text, len);
	if (!rc && env.packet)
		rc = bench_packet(&b);
	if (!rc && env.pcap)
		rc = bench_pcap(&b);
	if (!rc && asked.json)
		rc = json_out(json_pack("{s:O}", "packets", b.packets));
	netpol__destroy(b.skel[0]);
	netpol__destroy(b.skel[1]);
	json_decref(b.packets);
	np_policy_free(b.policy);
	free(b.slots);
	free(b.words);
	free(text);
	return rc;
}
