// SPDX-License-Identifier: GPL-2.0-only
/* Packets from text and from capture files. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "common.h"
#include "netpol-packet.h"
#include "tap.h"

static void hex(const struct np_frame *f, char *out)
{
	*out = 0;
	for (__u32 i = 0; i < f->len; i++)
		out += sprintf(out, "%02x", f->data[i]);
}

/* "45 00" and "4500" are the same. */
static void squeeze(const char *s, char *out)
{
	for (; *s; s++)
		if (*s != ' ')
			*out++ = *s;
	*out = 0;
}

static bool build(const char *text, unsigned int l2, struct np_frame *f)
{
	struct np_error err;
	int rc = np_frame_parse(text, strlen(text), l2, f, &err);

	check(!rc, "%s: %d %u: %s", text, rc, err.col, err.msg);
	return !rc;
}

/* The sums were made by another program. */
static void bytes(void)
{
	static const struct {
		const char *text, *want;
	} t[] = {
		{ "tcp 10.0.0.1:1234 > 10.0.0.2:443",
		  "45000028 00000000 400666ce 0a000001 0a000002"
		  "04d2 01bb 00000000 00000000 5002 ffff 9553 0000" },
		{ "udp 10.0.0.1:53 > 10.0.0.2:5353 ttl 1 id 7",
		  "4500001c 00070000 0111a5c8 0a000001 0a000002" "0035 14e9 0008 d6bd" },
		{ "icmp 10.0.0.1 > 10.0.0.2 type destination-unreachable/4",
		  "4500001c 00000000 400166df 0a000001 0a000002" "0304 fcfb 00000000" },
		{ "icmp6 fe80::1 > ff02::1 type 133",
		  "60000000 0008 3a 40 fe800000000000000000000000000001 ff020000000000000000000000000001"
		  "8500 7d37 00000000" },
		{ "esp 10.0.0.1 > 10.0.0.2 len 20", NULL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		char got[512], want[512];
		struct np_error err;
		struct np_frame f;

		if (!t[i].want) {
			check(np_frame_parse(t[i].text, strlen(t[i].text), 0, &f, &err) == -EINVAL);
			continue;
		}
		if (!build(t[i].text, 0, &f))
			continue;
		hex(&f, got);
		squeeze(t[i].want, want);
		check_str(got, want);
		np_frame_free(&f);
	}
}

static __u16 get16(const unsigned char *p)
{
	return p[0] << 8 | p[1];
}

static __u16 sum(const unsigned char *p, size_t n, __u32 start)
{
	for (size_t i = 0; i < n; i++)
		start += i & 1 ? p[i] : p[i] << 8;
	while (start >> 16)
		start = (start & 0xffff) + (start >> 16);
	return start;
}

/* Sums of anything right are all ones. */
static void sums_and_lengths(void)
{
	static const struct {
		const char *text;
		__u8 proto;
		size_t l4, total;
	} t[] = {
		{ "tcp 10.0.0.1:1 > 10.0.0.2:2 len 1000", 6, 20, 1000 },
		{ "tcp 10.0.0.1:1 > 10.0.0.2:2 len 65535 syn ack", 6, 20, 65535 },
		{ "udp 10.0.0.1:1 > 10.0.0.2:2 len 99", 17, 20, 99 },
		{ "udplite 10.0.0.1:1 > 10.0.0.2:2", 136, 20, 28 },
		{ "dccp 10.0.0.1:1 > 10.0.0.2:2", 33, 20, 40 },
		{ "tcp [2001:db8::1]:1 > [2001:db8::2]:2 len 61", 6, 40, 61 },
		{ "udp [2001:db8::1]:1 > [2001:db8::2]:2 ext hbh,dst,rt,ah", 17, 80, 88 },
		{ "icmp6 2001:db8::1 > 2001:db8::2 ext hbh", 58, 48, 56 },
		{ "6 10.0.0.1:1 > 10.0.0.2:2", 6, 20, 40 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		const unsigned char *ip;
		struct np_frame f;
		size_t n, at;

		if (!build(t[i].text, 14, &f))
			continue;
		check(f.len == t[i].total + 14, "%s: %u", t[i].text, f.len);
		ip = f.data + 14;
		check(get16(f.data + 12) == (ip[0] >> 4 == 4 ? 0x0800 : 0x86dd));
		for (int k = 0; k < 12; k++)
			check(!f.data[k]);
		n = t[i].total - t[i].l4;
		if (ip[0] >> 4 == 4) {
			check(get16(ip + 2) == t[i].total && sum(ip, 20, 0) == 0xffff);
			check(ip[9] == t[i].proto);
			at = 12;
		} else {
			check(get16(ip + 4) == t[i].total - 40);
			at = 8;
		}
		check(sum(ip + t[i].l4, n, t[i].proto + n +
			  sum(ip + at, ip[0] >> 4 == 4 ? 8 : 32, 0)) == 0xffff, "%s", t[i].text);
		np_frame_free(&f);
	}
}

static void sctp_sum(void)
{
	struct np_frame f;

	if (!build("sctp 10.0.0.1:1 > 10.0.0.2:2", 0, &f))
		return;
	/* CRC32c of 00 01 00 02 and eight zeros, by another program. */
	check(f.len == 32 && !memcmp(f.data + 28, "\xfd\x98\x80\x51", 4), "%02x%02x%02x%02x",
	      f.data[28], f.data[29], f.data[30], f.data[31]);
	np_frame_free(&f);
}

static void options(void)
{
	struct np_frame f;

	if (build("tcp 10.0.0.1:1>10.0.0.2:2 rst  ack\tout ttl 9 id 258", 0, &f)) {
		check(f.data[33] == 0x14 && f.data[8] == 9 && get16(f.data + 4) == 258);
		check(f.dir == NP_OUT);
		np_frame_free(&f);
	}
	if (build("tcp 10.0.0.1:1 > 10.0.0.2:2 fin psh urg in", 0, &f)) {
		check(f.data[33] == 0x29 && f.dir == NP_IN);
		np_frame_free(&f);
	}
	if (build("99 10.0.0.1 > 10.0.0.2", 0, &f)) {
		check(f.len == 28 && f.data[9] == 99 && f.dir == -1);
		np_frame_free(&f);
	}
	if (build("icmp6 [2001:db8::1] > 2001:db8::2", 0, &f)) {
		check(f.data[40] == 128 && !f.data[41]);
		np_frame_free(&f);
	}
	if (build("icmp 10.0.0.1 > 10.0.0.2", 0, &f)) {
		check(f.data[20] == 8 && !f.data[21]);
		np_frame_free(&f);
	}
}

static void fragments(void)
{
	char got[512];
	struct np_frame f;

	if (build("udp 10.0.0.1:1 > 10.0.0.2:2 frag 0+ id 5", 0, &f)) {
		check(f.len == 28 && get16(f.data + 6) == 0x2000 && get16(f.data + 22) == 2);
		np_frame_free(&f);
	}
	if (build("tcp 10.0.0.1:1 > 10.0.0.2:2 frag 0+", 0, &f)) {
		check(f.len == 44, "%u: all but the last are multiples of 8", f.len);
		np_frame_free(&f);
	}
	if (build("tcp 10.0.0.1 > 10.0.0.2 frag 1480", 0, &f)) {
		check(f.len == 28 && get16(f.data + 6) == 185 && f.data[9] == 6);
		check(!get16(f.data + 20), "no header in a later fragment");
		np_frame_free(&f);
	}
	if (build("tcp 10.0.0.1 > 10.0.0.2 frag 8+ len 21", 0, &f)) {
		check(f.len == 21 && get16(f.data + 6) == 0x2001);
		np_frame_free(&f);
	}
	if (build("udp [::1]:1 > [::2]:2 frag 0+ id 4294967", 0, &f)) {
		hex(&f, got);
		check(f.len == 56 && f.data[6] == 44);
		check(!strncmp(got + 80, "1100000100418937", 16), "%s", got);
		np_frame_free(&f);
	}
	if (build("udp ::1 > ::2 ext hbh,frag,dst frag 16", 0, &f)) {
		hex(&f, got);
		check(f.len == 64, "%u", f.len);
		check(!strncmp(got + 80, "2c000104000000003c00001000000000", 32), "%s",
		      got + 80);
		check(f.data[6] == 0);
		np_frame_free(&f);
	}
	if (build("udp [::1]:1 > [::2]:2 ext frag", 0, &f)) {
		hex(&f, got);
		check(!strncmp(got + 80, "1100000000000000" "00010002", 24), "an atomic one: %s",
		      got + 80);
		np_frame_free(&f);
	}
	if (build("udp [::1]:1 > [::2]:2 ext hbh,ah,rt", 0, &f)) {
		hex(&f, got);
		check(!strncmp(got + 80, "3300010400000000" "2b020000000000000000000000000000"
			       "1100000000000000" "00010002", 72), "%s", got + 80);
		np_frame_free(&f);
	}
}

static void errors(void)
{
	static const struct {
		const char *text;
		unsigned int col;
		const char *msg;
	} t[] = {
		{ "", 1, "the packet is empty" },
		{ "   ", 4, "the packet is empty" },
		{ "tpc 10.0.0.1:1 > 10.0.0.2:2", 1, "\"tpc\" is no protocol" },
		{ "256 10.0.0.1 > 10.0.0.2", 1, "\"256\" is no protocol" },
		{ "tcp", 4, "an address is missing" },
		{ "tcp 10.0.0.1:1", 15, "expected \">\"" },
		{ "tcp 10.0.0.1:1 10.0.0.2:2", 16, "expected \">\"" },
		{ "tcp 10.0.0.1:1 >", 17, "an address is missing" },
		{ "tcp 10.0.0:1 > 10.0.0.2:2", 5, "\"10.0.0\" is not an address" },
		{ "tcp 10.0.0.1:65536 > 10.0.0.2:2", 14, "this is no port" },
		{ "tcp 10.0.0.1: > 10.0.0.2:2", 14, "this is no port" },
		{ "tcp [::1:1 > [::2]:2", 5, "the bracket is not closed" },
		{ "tcp [::1]1 > [::2]:2", 10, "expected \":\"" },
		{ "tcp [10.0.0.1]:1 > 10.0.0.2:2", 6, "not an address" },
		{ "tcp [::1]:1 > 10.0.0.2:2", 15, "one address is IPv4" },
		{ "tcp 10.0.0.1 > 10.0.0.2:2", 5, "tcp needs a port here" },
		{ "tcp 10.0.0.1:2 > 10.0.0.2", 18, "tcp needs a port here" },
		{ "icmp 10.0.0.1:2 > 10.0.0.2", 6, "has no ports" },
		{ "icmp 10.0.0.1 > 10.0.0.2:2", 17, "has no ports" },
		{ "icmp ::1 > ::2", 1, "icmp does not go with IPv6" },
		{ "icmp6 10.0.0.1 > 10.0.0.2", 1, "icmp6 does not go with IPv4" },
		{ "tcp 10.0.0.1:1 > 10.0.0.2:2 snk", 29, "unknown word \"snk\"" },
		{ "tcp 10.0.0.1:1 > 10.0.0.2:2 > in", 29, "unknown word \">\"" },
		{ "udp 10.0.0.1:1 > 10.0.0.2:2 syn", 29, "\"syn\" goes with tcp alone" },
		{ "tcp 10.0.0.1:1 > 10.0.0.2:2 len", 32, "\"len\" needs a number" },
		{ "tcp 10.0.0.1:1 > 10.0.0.2:2 len 65536", 33,
		  "\"65536\" is no number for \"len\"" },
		{ "tcp 10.0.0.1:1 > 10.0.0.2:2 len 39", 1, "this packet needs 40" },
		{ "udp [::1]:1 > [::2]:2 ext hbh len 55", 1, "this packet needs 56" },
		{ "tcp 10.0.0.1:1 > 10.0.0.2:2 ttl 256", 33, "\"256\" is no number for \"ttl\"" },
		{ "tcp 10.0.0.1:1 > 10.0.0.2:2 id -1", 32, "\"-1\" is no number for \"id\"" },
		{ "tcp 10.0.0.1:1 > 10.0.0.2:2 frag 7", 34, "multiple of 8" },
		{ "tcp 10.0.0.1:1 > 10.0.0.2:2 frag +", 34, "multiple of 8" },
		{ "tcp 10.0.0.1:1 > 10.0.0.2:2 frag 65536", 34, "multiple of 8" },
		{ "tcp 10.0.0.1:1 > 10.0.0.2:2 ext hbh", 29, "IPv4 has no extension headers" },
		{ "tcp [::1]:1 > [::2]:2 ext hbh,xxx", 31, "\"xxx\" is no extension header" },
		{ "tcp [::1]:1 > [::2]:2 ext", 26, "\"\" is no extension header" },
		{ "tcp 10.0.0.1:1 > 10.0.0.2:2 type 8", 29, "\"type\" goes with icmp" },
		{ "icmp 10.0.0.1 > 10.0.0.2 type mld-query", 31,
		  "\"mld-query\" is no type of icmp" },
		{ "icmp 10.0.0.1 > 10.0.0.2 type 8/256", 33, "this is no ICMP code" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct np_error err;
		struct np_frame f;
		int rc = np_frame_parse(t[i].text, strlen(t[i].text), 0, &f, &err);

		check(rc == -EINVAL && !f.data, "\"%s\": %d", t[i].text, rc);
		check(err.line == 1 && err.col == t[i].col, "\"%s\": %u, want %u (%s)", t[i].text,
		      err.col, t[i].col, err.msg);
		check(strstr(err.msg, t[i].msg), "\"%s\": %s", t[i].text, err.msg);
	}
}

/* Words of every length in any order: nothing may read outside of the text. */
static void random_text(void)
{
	static const char *const words[] = {
		"tcp", "udp", "icmp", "icmp6", "99", " ", " ", " ", "10.0.0.1", "::1", "[::1]", ":",
		"1", ">", " > ", "10.0.0.1:1", "[::1]:2", "frag", "0+", "8", "ext", "hbh", ",", "len",
		"60000", "type", "/", "in", "syn", "[", "]", "\xff", "ah", "dst",
	};
	unsigned int seed = 7, good = 0;

	for (int i = 0; i < 100000; i++) {
		char text[256] = "", *exact;
		struct np_error err;
		struct np_frame f;
		size_t len;

		if (i & 1)
			strcpy(text, i & 2 ? "udp [::1]:1 > [::2]:2 " : "tcp 10.0.0.1:1 > 10.0.0.2:2 ");
		for (int n = rand_r(&seed) % 12; n; n--)
			strcat(text, words[rand_r(&seed) % ARRAY_SIZE(words)]);
		len = strlen(text);
		exact = malloc(len ?: 1);	/* no NUL: the sanitizer sees a byte too many */
		memcpy(exact, text, len);
		if (!np_frame_parse(exact, len, 14, &f, &err)) {
			good++;
			np_frame_free(&f);
		}
		free(exact);
	}
	check(good > 1000, "%u", good);
}

static char path[32];

static void put32(unsigned char **p, __u32 v, bool big)
{
	for (int i = 0; i < 4; i++)
		*(*p)++ = v >> 8 * (big ? 3 - i : i);
}

static unsigned char *put_head(unsigned char *p, __u32 magic, __u32 link, bool big)
{
	put32(&p, magic, big);
	put32(&p, big ? 2 << 16 | 4 : 4 << 16 | 2, big);
	put32(&p, 0, big);
	put32(&p, 0, big);
	put32(&p, 65535, big);
	put32(&p, link, big);
	return p;
}

static unsigned char *put_record(unsigned char *p, __u32 have, __u32 len, const void *data,
				 bool big)
{
	put32(&p, 1, big);
	put32(&p, 2, big);
	put32(&p, have, big);
	put32(&p, len, big);
	memcpy(p, data, have);
	return p + have;
}

static int open_bytes(const unsigned char *data, size_t len, unsigned int l2, struct np_pcap **pcap,
		      struct np_error *err)
{
	FILE *f = fopen(path, "w");

	check(f && fwrite(data, 1, len, f) == len);
	fclose(f);
	return np_pcap_open(path, l2, pcap, err);
}

static void pcap_flavours(void)
{
	static const unsigned char ip[20] = { 0x45, [19] = 9 }, ip6[40] = { 0x60 };
	static const unsigned char ether[34] = { 1, 2, 3, [12] = 8, [14] = 0x45, [33] = 9 };
	static const unsigned char none[4] = { 0x10 };
	static const unsigned char arp[20] = { [12] = 8, [13] = 6 };

	for (int k = 0; k < 24; k++) {
		__u32 link = k & 8 ? (k & 16 ? 12 : 101) : 1;
		unsigned int l2 = k & 4 ? 14 : 0;
		__u32 magic = k & 2 ? 0xa1b23c4d : 0xa1b2c3d4;
		unsigned char data[1024], *p;
		struct np_pcap *pcap;
		struct np_error err;
		struct np_frame f;
		bool big = k & 1;
		int rc;

		p = put_head(data, magic, link == 1 ? 1 | 0x14000000 : link, big);
		if (link == 1) {
			p = put_record(p, 34, 34, ether, big);
			p = put_record(p, 20, 20, arp, big);
			p = put_record(p, 34, 60, ether, big);
			p = put_record(p, 5, 5, ether, big);
		} else {
			p = put_record(p, 20, 20, ip, big);
			p = put_record(p, 40, 40, ip6, big);
			p = put_record(p, 4, 4, none, big);
			p = put_record(p, 0, 0, none, big);
		}
		rc = open_bytes(data, p - data, l2, &pcap, &err);
		check(!rc, "%d: %d %s", k, rc, err.msg);
		if (rc)
			continue;
		check(np_pcap_next(pcap, &f, &err) == 1);
		check(f.len == 20 + l2 && f.data[l2] == 0x45 && f.data[f.len - 1] == 9, "%d", k);
		check(!l2 || get16(f.data + 12) == 0x0800);
		check(!l2 || f.data[0] == (link == 1));
		check(f.dir == -1);
		check(np_pcap_next(pcap, &f, &err) == 1);
		if (link != 1) {
			check(f.len == 40 + l2 && (!l2 || get16(f.data + 12) == 0x86dd));
			check(np_pcap_next(pcap, &f, &err) == 1 && f.len == 4 + l2);
			check(!l2 || !get16(f.data + 12));
			check(np_pcap_next(pcap, &f, &err) == 1 && f.len == l2);
		} else {
			if (l2) {
				check(f.len == 20 && get16(f.data + 12) == 0x0806);
				check(np_pcap_next(pcap, &f, &err) == 1);
			}
			check(f.len == 46 + l2, "as long as it was: %u", f.len);
			check(f.data[19 + l2] == 9 && !f.data[20 + l2] && !f.data[45 + l2]);
			if (l2)
				check(np_pcap_next(pcap, &f, &err) == 1 && f.len == 5);
		}
		check(!np_pcap_next(pcap, &f, &err));
		np_pcap_close(pcap);
	}
}

static void bad_pcaps(void)
{
	unsigned char data[512] = {}, *p;
	struct np_pcap *pcap;
	struct np_error err;
	struct np_frame f;
	int rc;

#define REFUSED(what) \
	check(rc == -EINVAL && strstr(err.msg, what) && !err.line, "%d: %s", rc, err.msg)
	check(np_pcap_open("/nonexistent/x", 0, &pcap, &err) == -ENOENT && !pcap);
	rc = np_pcap_open("/", 0, &pcap, &err);
	check((rc == -EISDIR || rc == -EIO) && !pcap, "%d", rc);
	rc = open_bytes(data, 0, 0, &pcap, &err);
	REFUSED("no capture file, it has 0 bytes");
	rc = open_bytes(data, 24, 0, &pcap, &err);
	REFUSED("this is no capture file");
	put_head(data, 0x0a0d0d0a, 1, false);
	rc = open_bytes(data, 24, 0, &pcap, &err);
	REFUSED("pcapng");
	put_head(data, 0xa1b2c3d4, 1, false);
	rc = open_bytes(data, 23, 0, &pcap, &err);
	REFUSED("ends in its header");
	put_head(data, 0xa1b2c3d4, 113, true);
	rc = open_bytes(data, 24, 0, &pcap, &err);
	REFUSED("link type 113");

	/* Records: a header cut short, data cut short, lengths that lie. */
	p = put_head(data, 0xa1b2c3d4, 101, false);
	for (int have = 1; have < 36; have++) {
		put_record(p, 20, 20, data + 100, false);
		rc = open_bytes(data, 24 + have, 14, &pcap, &err);
		check(!rc);
		rc = np_pcap_next(pcap, &f, &err);
		REFUSED("the file ends in packet 1");
		np_pcap_close(pcap);
	}
	put_record(p, 0, 0, data, false);
	memcpy(p + 8, "\xff\xff\xff\xff", 4);
	rc = open_bytes(data, 40, 14, &pcap, &err);
	rc = rc ?: np_pcap_next(pcap, &f, &err);
	REFUSED("packet 1 claims 4294967295 bytes");
	np_pcap_close(pcap);
	put_record(p, 1, 0xffffffff, data, false);
	rc = open_bytes(data, 41, 14, &pcap, &err);
	rc = rc ?: np_pcap_next(pcap, &f, &err);
	check(rc == 1 && f.len <= NP_FRAME_MAX + 14, "%d %u", rc, f.len);
	np_pcap_close(pcap);
	put_record(p, 8, 3, data, false);
	rc = open_bytes(data, 48, 0, &pcap, &err);
	rc = rc ?: np_pcap_next(pcap, &f, &err);
	check(rc == 1 && f.len == 8, "%d %u", rc, f.len);
	np_pcap_close(pcap);
#undef REFUSED
}

int main(int argc, char **argv)
{
	int fd;

	snprintf(path, sizeof(path), "/tmp/netpol-packet.XXXXXX");
	fd = mkstemp(path);
	if (fd < 0) {
		perror(path);
		return 1;
	}
	close(fd);
	tap_start(argc, argv);
	run(bytes);
	run(sums_and_lengths);
	run(sctp_sum);
	run(options);
	run(fragments);
	run(errors);
	run(random_text);
	run(pcap_flavours);
	run(bad_pcaps);
	unlink(path);
	return tap_end();
}
