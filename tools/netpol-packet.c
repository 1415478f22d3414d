// SPDX-License-Identifier: GPL-2.0-only
/*
 * Packets for `netpol test`. Classic pcap is a header and records, so it is read
 * here: libpcap would bring seven libraries into every start of the tool.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "netpol-packet.h"

#define IP4_HLEN 20
#define IP6_HLEN 40
#define EXT_MAX 64

enum { EXT_HBH = 0, EXT_RT = 43, EXT_FRAG = 44, EXT_AH = 51, EXT_DST = 60 };

static const struct {
	const char *name;
	__u8 proto, len;
} exts[] = {
	{ "hbh", EXT_HBH, 8 }, { "dst", EXT_DST, 8 }, { "rt", EXT_RT, 8 },
	{ "frag", EXT_FRAG, 8 }, { "ah", EXT_AH, 16 },
};

static const struct {
	const char *name;
	__u8 bit;
} tcp_flags[] = {
	{ "fin", 1 }, { "syn", 2 }, { "rst", 4 }, { "psh", 8 }, { "ack", 16 }, { "urg", 32 },
};

static const char *const option_words[] = {
	"fin", "syn", "rst", "psh", "ack", "urg", "in", "out", "len", "id", "ttl", "frag", "ext",
	"type", NULL
};

struct packet {
	__u8 proto, flags, ttl, type, code;
	struct np_prefix src, dst;
	__u16 sport, dport;
	bool more, fragment;
	__u32 offset, id;
	long len;			/* -1: as long as it must be */
	unsigned int n_ext;
	__u8 ext[EXT_MAX];		/* index into exts */
};

struct text {
	const char *start, *p, *end;
	const char *s;			/* current word, */
	size_t len;			/* 0: the end */
	struct np_error *err;
};

#define bad(t, at, hint, ...) \
	np_error_set((t)->err, 1, (at) - (t)->start + 1, hint, __VA_ARGS__)

/* For %.*s: not too much of it. */
#define WORD(t) (int)((t)->len < 40 ? (t)->len : 40), (t)->s

static void next_word(struct text *t)
{
	while (t->p < t->end && (*t->p == ' ' || *t->p == '\t'))
		t->p++;
	t->s = t->p;
	if (t->p < t->end && *t->p == '>')
		t->p++;
	else
		while (t->p < t->end && *t->p != ' ' && *t->p != '\t' && *t->p != '>')
			t->p++;
	t->len = t->p - t->s;
}

static bool word_is(const struct text *t, const char *word)
{
	return strlen(word) == t->len && !memcmp(word, t->s, t->len);
}

static bool has_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP ||
	       proto == IPPROTO_DCCP || proto == IPPROTO_UDPLITE;
}

static bool is_icmp(__u8 proto)
{
	return proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6;
}

/* ADDR, [ADDR], ADDR4:PORT or [ADDR6]:PORT. port -1: none. */
static int parse_end(struct text *t, struct np_prefix *addr, long *port)
{
	const char *s = t->s, *end = s + t->len, *stop = end, *colon = NULL;

	*port = -1;
	if (!t->len)
		return bad(t, s, "write PROTO ADDR[:PORT] > ADDR[:PORT]", "an address is missing");
	if (*s == '[') {
		stop = memchr(s, ']', t->len);
		if (!stop)
			return bad(t, s, "write [2001:db8::1]:443", "the bracket is not closed");
		s++;
		if (stop + 1 < end) {
			if (stop[1] != ':')
				return bad(t, stop + 1, "write [2001:db8::1]:443",
					   "expected \":\" and a port");
			colon = stop + 1;
		}
	} else {
		colon = memchr(s, ':', t->len);
		if (colon && memchr(colon + 1, ':', end - colon - 1))
			colon = NULL;
		else if (colon)
			stop = colon;
	}
	if (!np_addr_parse(s, stop - s, addr) || (*t->s == '[' && addr->family != 6))
		return bad(t, s, "write 10.0.0.1:443, 2001:db8::1 or [2001:db8::1]:443",
			   "\"%.*s\" is not an address", (int)(stop - s < 46 ? stop - s : 46), s);
	if (colon) {
		*port = np_number(colon + 1, end - colon - 1, 65535);
		if (*port < 0)
			return bad(t, colon + 1, "a port is a number 0-65535", "this is no port");
	}
	return 0;
}

static int parse_number(struct text *t, const char *what, unsigned long max, long *v)
{
	char hint[64];

	next_word(t);
	*v = np_number(t->s, t->len, max);
	if (*v >= 0)
		return 0;
	snprintf(hint, sizeof(hint), "\"%s\" takes a number 0-%lu", what, max);
	if (!t->len)
		return bad(t, t->s, hint, "\"%s\" needs a number", what);
	return bad(t, t->s, hint, "\"%.*s\" is no number for \"%s\"", WORD(t), what);
}

static int parse_frag(struct text *t, struct packet *p)
{
	long offset;
	size_t len;

	next_word(t);
	len = t->len;
	if (len && t->s[len - 1] == '+') {
		p->more = true;
		len--;
	}
	offset = np_number(t->s, len, 65528);
	if (offset < 0 || offset % 8)
		return bad(t, t->s, "bytes, then + when more fragments follow: frag 0+, frag 1480",
			   "a fragment's offset is a multiple of 8 up to 65528");
	p->offset = offset;
	p->fragment = true;
	return 0;
}

static int parse_ext(struct text *t, struct packet *p)
{
	const char *s, *end, *comma;

	next_word(t);
	s = t->s;
	end = s + t->len;
	do {
		size_t i, len;

		comma = memchr(s, ',', end - s);
		len = (comma ?: end) - s;
		for (i = 0; i < ARRAY_SIZE(exts); i++)
			if (strlen(exts[i].name) == len && !memcmp(exts[i].name, s, len))
				break;
		if (i == ARRAY_SIZE(exts))
			return bad(t, s, "they are hbh, dst, rt, frag, ah: ext hbh,dst",
				   "\"%.*s\" is no extension header",
				   (int)(len < 40 ? len : 40), s);
		if (p->n_ext == EXT_MAX)
			return bad(t, s, NULL, "more than %d extension headers", EXT_MAX);
		p->ext[p->n_ext++] = i;
		s = comma + 1;
	} while (comma);
	return 0;
}

static int parse_icmp_type(struct text *t, struct packet *p)
{
	const char *slash;
	long type, code = 0;
	size_t len;

	if (!is_icmp(p->proto))
		return bad(t, t->s, NULL, "\"type\" goes with icmp and icmp6 alone");
	next_word(t);
	slash = memchr(t->s, '/', t->len);
	len = slash ? (size_t)(slash - t->s) : t->len;
	type = np_number(t->s, len, 255);
	if (type < 0)
		type = np_icmp_number(p->proto, t->s, len);
	if (type < 0)
		return bad(t, t->s, "write a name such as echo-request, or a number 0-255",
			   "\"%.*s\" is no type of %s", (int)(len < 40 ? len : 40), t->s,
			   np_proto_name(p->proto));
	if (slash)
		code = np_number(slash + 1, t->s + t->len - slash - 1, 255);
	if (code < 0)
		return bad(t, slash + 1, "a code is a number 0-255", "this is no ICMP code");
	p->type = type;
	p->code = code;
	return 0;
}

static int parse_option(struct text *t, struct packet *p, signed char *dir)
{
	char hint[64];
	const char *near;
	long v;
	int rc;

	for (size_t i = 0; i < ARRAY_SIZE(tcp_flags); i++) {
		if (!word_is(t, tcp_flags[i].name))
			continue;
		if (p->proto != IPPROTO_TCP)
			return bad(t, t->s, NULL, "\"%s\" goes with tcp alone", tcp_flags[i].name);
		p->flags |= tcp_flags[i].bit;
		return 0;
	}
	if (word_is(t, "in") || word_is(t, "out")) {
		*dir = word_is(t, "in") ? NP_IN : NP_OUT;
		return 0;
	}
	if (word_is(t, "len"))
		return parse_number(t, "len", 65535, &p->len);
	if (word_is(t, "ttl")) {
		rc = parse_number(t, "ttl", 255, &v);
		p->ttl = v;
		return rc;
	}
	if (word_is(t, "id")) {
		rc = parse_number(t, "id", p->src.family == 4 ? 65535 : 0xffffffff, &v);
		p->id = v;
		return rc;
	}
	if (word_is(t, "frag"))
		return parse_frag(t, p);
	if (word_is(t, "type"))
		return parse_icmp_type(t, p);
	if (word_is(t, "ext")) {
		if (p->src.family == 4)
			return bad(t, t->s, NULL, "IPv4 has no extension headers");
		return parse_ext(t, p);
	}
	near = np_nearest(t->s, t->len, option_words);
	snprintf(hint, sizeof(hint), near ? "did you mean \"%s\"?" : "see netpol --help", near);
	return bad(t, t->s, hint, "unknown word \"%.*s\"", WORD(t));
}

static int parse_text(struct text *t, struct packet *p, signed char *dir)
{
	const char *src, *dst;
	long proto, sport, dport;

	next_word(t);
	if (!t->len)
		return bad(t, t->s, "write PROTO ADDR[:PORT] > ADDR[:PORT]", "the packet is empty");
	proto = np_number(t->s, t->len, 255);
	if (proto < 0)
		proto = np_proto_number(t->s, t->len);
	if (proto < 0)
		return bad(t, t->s, "write PROTO ADDR[:PORT] > ADDR[:PORT]",
			   "\"%.*s\" is no protocol", WORD(t));
	p->proto = proto;
	next_word(t);
	src = t->s;
	if (parse_end(t, &p->src, &sport))
		return -EINVAL;
	next_word(t);
	if (!word_is(t, ">"))
		return bad(t, t->s, "write PROTO ADDR[:PORT] > ADDR[:PORT]",
			   "expected \">\" between the addresses");
	next_word(t);
	dst = t->s;
	if (parse_end(t, &p->dst, &dport))
		return -EINVAL;
	if (p->src.family != p->dst.family)
		return bad(t, dst, NULL, "one address is IPv4 and the other IPv6");
	if ((proto == IPPROTO_ICMP && p->src.family == 6) ||
	    (proto == IPPROTO_ICMPV6 && p->src.family == 4))
		return bad(t, t->start, proto == IPPROTO_ICMP ? "did you mean \"icmp6\"?" :
			   "did you mean \"icmp\"?", "%s does not go with IPv%u",
			   np_proto_name(proto), p->src.family);
	if (!has_ports(proto) && (sport >= 0 || dport >= 0))
		return bad(t, sport >= 0 ? src : dst, "leave the port out",
			   "this protocol has no ports");
	p->type = proto == IPPROTO_ICMP ? 8 : 128;
	for (next_word(t); t->len; next_word(t))
		if (parse_option(t, p, dir))
			return -EINVAL;
	if (has_ports(proto) && !p->offset && (sport < 0 || dport < 0))
		return bad(t, sport < 0 ? src : dst, "write ADDR:PORT or [ADDR]:PORT",
			   "%s needs a port here", np_proto_name(proto));
	p->sport = sport < 0 ? 0 : sport;
	p->dport = dport < 0 ? 0 : dport;
	if (proto == IPPROTO_TCP && !p->flags)
		p->flags = 2;
	return 0;
}

/* Checksums. */

static __u32 sum_bytes(__u32 sum, const unsigned char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sum += i & 1 ? p[i] : p[i] << 8;
	return sum;
}

static __u16 sum_fold(__u32 sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static void put16(unsigned char *p, __u16 v)
{
	p[0] = v >> 8;
	p[1] = v;
}

static void put32(unsigned char *p, __u32 v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

static __u32 crc32c(const unsigned char *p, size_t n)
{
	__u32 crc = ~0u;

	while (n--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	return ~crc;
}

static size_t l4_min(__u8 proto)
{
	switch (proto) {
	case IPPROTO_TCP:
	case IPPROTO_DCCP:
		return 20;
	case IPPROTO_SCTP:
		return 12;
	default:
		return 8;
	}
}

/* l4 is zeroed, and at least l4_min() long. */
static void build_l4(const struct packet *p, unsigned char *l4, size_t n)
{
	size_t alen = p->src.family == 4 ? 4 : 16;
	unsigned char *check;
	__u32 sum = 0;
	__u16 v;

	if (has_ports(p->proto)) {
		put16(l4, p->sport);
		put16(l4 + 2, p->dport);
	}
	switch (p->proto) {
	case IPPROTO_TCP:
		l4[12] = 5 << 4;
		l4[13] = p->flags;
		put16(l4 + 14, 65535);
		check = l4 + 16;
		break;
	case IPPROTO_UDP:
		put16(l4 + 4, n);
		check = l4 + 6;
		break;
	case IPPROTO_UDPLITE:
		check = l4 + 6;		/* coverage 0: all of it */
		break;
	case IPPROTO_DCCP:
		l4[4] = 5;
		l4[8] = 1;		/* request, long sequence numbers */
		check = l4 + 6;
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		l4[0] = p->type;
		l4[1] = p->code;
		check = l4 + 2;
		break;
	case IPPROTO_SCTP: {
		__le32 crc = htole32(crc32c(l4, n));

		memcpy(l4 + 8, &crc, sizeof(crc));
		return;
	}
	default:
		return;
	}
	if (p->proto != IPPROTO_ICMP) {
		sum = sum_bytes(sum, (const unsigned char *)p->src.addr, alen);
		sum = sum_bytes(sum, (const unsigned char *)p->dst.addr, alen);
		sum += n + p->proto;
	}
	v = sum_fold(sum_bytes(sum, l4, n));
	put16(check, v ?: 0xffff);
}

/* Extension headers that this packet has; `next` of the last is set to what follows. */
static unsigned char *build_exts(const struct packet *p, unsigned char *next, unsigned char *at)
{
	for (unsigned int i = 0; i < p->n_ext; i++) {
		__u8 proto = exts[p->ext[i]].proto;

		*next = proto;
		next = at;
		if (proto == EXT_HBH || proto == EXT_DST) {
			at[2] = 1;	/* PadN of 4 */
			at[3] = 4;
		} else if (proto == EXT_AH) {
			at[1] = exts[p->ext[i]].len / 4 - 2;
		} else if (proto == EXT_FRAG) {
			put16(at + 2, p->offset | p->more);
			put32(at + 4, p->id);
		}
		at += exts[p->ext[i]].len;
		if (proto == EXT_FRAG && p->offset) {
			*next = i + 1 < p->n_ext ? exts[p->ext[i + 1]].proto : p->proto;
			return at;
		}
	}
	*next = p->proto;
	return at;
}

static size_t exts_len(const struct packet *p)
{
	size_t len = 0;

	for (unsigned int i = 0; i < p->n_ext; i++) {
		len += exts[p->ext[i]].len;
		if (exts[p->ext[i]].proto == EXT_FRAG && p->offset)
			break;
	}
	return len;
}

static void build_ip4(const struct packet *p, unsigned char *ip, size_t total)
{
	ip[0] = 0x45;
	put16(ip + 2, total);
	put16(ip + 4, p->id);
	put16(ip + 6, p->offset / 8 | (p->more ? 0x2000 : 0));
	ip[8] = p->ttl;
	ip[9] = p->proto;
	memcpy(ip + 12, p->src.addr, 4);
	memcpy(ip + 16, p->dst.addr, 4);
	put16(ip + 10, sum_fold(sum_bytes(0, ip, IP4_HLEN)));
}

static void build_ip6(const struct packet *p, unsigned char *ip, size_t total)
{
	ip[0] = 0x60;
	put16(ip + 4, total - IP6_HLEN);
	ip[7] = p->ttl;
	memcpy(ip + 8, p->src.addr, 16);
	memcpy(ip + 24, p->dst.addr, 16);
}

static int build(struct text *t, struct packet *p, unsigned int l2, struct np_frame *frame)
{
	bool v6 = p->src.family == 6, later = p->offset;
	size_t headers, payload, total;
	unsigned char *ip;

	if (v6 && p->fragment) {
		unsigned int i = 0;

		while (i < p->n_ext && exts[p->ext[i]].proto != EXT_FRAG)
			i++;
		if (i == p->n_ext) {
			if (i == EXT_MAX)
				return bad(t, t->start, NULL, "more than %d extension headers",
					   EXT_MAX);
			for (i = 0; exts[i].proto != EXT_FRAG; i++)
				;
			p->ext[p->n_ext++] = i;
		}
	}
	headers = v6 ? IP6_HLEN + exts_len(p) : IP4_HLEN;
	payload = later ? 8 : l4_min(p->proto);
	if (p->more)
		payload = (payload + 7) & ~(size_t)7;
	total = headers + payload;
	if (p->len >= 0) {
		size_t least = headers + (later ? 0 : l4_min(p->proto));

		if ((size_t)p->len < least)
			return bad(t, t->start, NULL,
				   "\"len %ld\" is too short, this packet needs %zu",
				   p->len, least);
		total = p->len;
	}
	frame->len = l2 + total;
	frame->data = calloc(1, frame->len);
	if (!frame->data)
		return -ENOMEM;
	if (l2)
		put16(frame->data + 12, v6 ? ETHERTYPE_IPV6 : ETHERTYPE_IP);
	ip = frame->data + l2;
	if (v6) {
		build_ip6(p, ip, total);
		build_exts(p, ip + 6, ip + IP6_HLEN);
	} else {
		build_ip4(p, ip, total);
	}
	if (!later)
		build_l4(p, ip + headers, total - headers);
	return 0;
}

int np_frame_parse(const char *text, size_t len, unsigned int l2, struct np_frame *frame,
		   struct np_error *err)
{
	struct text t = { .start = text, .p = text, .end = text + len, .err = err };
	struct packet p = { .ttl = 64, .len = -1 };

	*frame = (struct np_frame){ .dir = -1 };
	memset(err, 0, sizeof(*err));
	return parse_text(&t, &p, &frame->dir) ?: build(&t, &p, l2, frame);
}

void np_frame_free(struct np_frame *frame)
{
	free(frame->data);
	*frame = (struct np_frame){ .dir = -1 };
}

/* Capture files. */

#define PCAP_US		0xa1b2c3d4
#define PCAP_NS		0xa1b23c4d
#define PCAPNG		0x0a0d0d0a
#define PCAP_MAX	262144		/* the longest record that libpcap writes */
#define PCAP_HLEN	24
#define RECORD_HLEN	16

enum { LINK_ETHERNET = 1, LINK_RAW_BSD = 12, LINK_RAW = 101 };

struct np_pcap {
	FILE *f;
	bool swapped;
	__u32 link, record;
	unsigned int l2;
	unsigned char data[ETH_HLEN + PCAP_MAX];
};

static __u32 get32(const struct np_pcap *pcap, const unsigned char *p)
{
	__u32 v;

	memcpy(&v, p, sizeof(v));
	return pcap->swapped ? __builtin_bswap32(v) : v;
}

static int read_header(struct np_pcap *pcap, struct np_error *err)
{
	unsigned char h[PCAP_HLEN];
	size_t n = fread(h, 1, sizeof(h), pcap->f);
	__u32 magic;

	if (ferror(pcap->f))
		return -EIO;
	if (n < 4)
		return np_error_set(err, 0, 0, NULL, "this is no capture file, it has %zu bytes",
				    n);
	magic = get32(pcap, h);
	if (magic == PCAPNG)
		return np_error_set(err, 0, 0, "convert it: tcpdump -r FILE -w NEW",
				    "this is a pcapng file, classic pcap is needed");
	if (magic != PCAP_US && magic != PCAP_NS) {
		pcap->swapped = true;
		magic = get32(pcap, h);
	}
	if (magic != PCAP_US && magic != PCAP_NS)
		return np_error_set(err, 0, 0, "capture with: tcpdump -i DEV -w FILE",
				    "this is no capture file");
	if (n < sizeof(h))
		return np_error_set(err, 0, 0, NULL, "the file ends in its header");
	pcap->link = get32(pcap, h + 20) & 0x03ffffff;	/* above: about the FCS */
	if (pcap->link != LINK_ETHERNET && pcap->link != LINK_RAW && pcap->link != LINK_RAW_BSD)
		return np_error_set(err, 0, 0, "capture on one device, not on \"any\"",
				    "link type %u is neither Ethernet (1) nor raw IP (101, 12)",
				    pcap->link);
	return 0;
}

int np_pcap_open(const char *path, unsigned int l2, struct np_pcap **pcap, struct np_error *err)
{
	struct np_pcap *p;
	int rc;

	*pcap = NULL;
	memset(err, 0, sizeof(*err));
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->l2 = l2;
	p->f = fopen(path, "re");
	rc = p->f ? read_header(p, err) : -errno;
	if (rc)
		np_pcap_close(p);
	else
		*pcap = p;
	return rc;
}

static int cut_short(const struct np_pcap *pcap, struct np_error *err)
{
	if (ferror(pcap->f))
		return -EIO;
	return np_error_set(err, 0, 0, "the capture was cut off; what is in front of it was read",
			    "the file ends in packet %u", pcap->record);
}

/* Make the frame at data + ETH_HLEN fit pcap->l2; false: a device without it never has such. */
static bool fit(struct np_pcap *pcap, __u32 len, struct np_frame *frame)
{
	unsigned char *p = pcap->data + ETH_HLEN;
	bool ether = pcap->link == LINK_ETHERNET;

	if (ether && !pcap->l2) {
		__u16 type = len < ETH_HLEN ? 0 : p[12] << 8 | p[13];

		if (type != ETHERTYPE_IP && type != ETHERTYPE_IPV6)
			return false;
		p += ETH_HLEN;
		len -= ETH_HLEN;
	} else if (!ether && pcap->l2) {
		__u16 type = !len ? 0 : *p >> 4 == 4 ? ETHERTYPE_IP :
			     *p >> 4 == 6 ? ETHERTYPE_IPV6 : 0;

		p -= ETH_HLEN;
		len += ETH_HLEN;
		memset(p, 0, ETH_HLEN);
		put16(p + 12, type);
	}
	*frame = (struct np_frame){ .len = len, .dir = -1, .data = p };
	return true;
}

int np_pcap_next(struct np_pcap *pcap, struct np_frame *frame, struct np_error *err)
{
	unsigned char h[RECORD_HLEN];
	__u32 have, len;
	size_t n;

	memset(err, 0, sizeof(*err));
	do {
		n = fread(h, 1, sizeof(h), pcap->f);
		if (!n && !ferror(pcap->f))
			return 0;
		pcap->record++;
		if (n < sizeof(h))
			return cut_short(pcap, err);
		have = get32(pcap, h + 8);
		len = get32(pcap, h + 12);
		if (have > PCAP_MAX)
			return np_error_set(err, 0, 0, "the file is damaged",
					    "packet %u claims %u bytes, more than any has",
					    pcap->record, have);
		if (fread(pcap->data + ETH_HLEN, 1, have, pcap->f) < have)
			return cut_short(pcap, err);
		if (len > NP_FRAME_MAX)
			len = NP_FRAME_MAX;
		if (len < have)
			len = have;
		memset(pcap->data + ETH_HLEN + have, 0, len - have);
	} while (!fit(pcap, len, frame));
	return 1;
}

void np_pcap_close(struct np_pcap *pcap)
{
	if (!pcap)
		return;
	if (pcap->f)
		fclose(pcap->f);
	free(pcap);
}
