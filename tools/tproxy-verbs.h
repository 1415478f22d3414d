/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tproxy: what its verbs share.
 */
#ifndef TPROXY_VERBS_H
#define TPROXY_VERBS_H

#include "common.h"
#include "tproxy-inst.h"
#include "tproxy-net.h"
#include "tproxy-rule.h"

#define TP_WORDS_MAX 64

extern struct tp_env {
	const char *netns;
	const char *to[2], *dst[TP_WORDS_MAX], *except[TP_WORDS_MAX];
	int nto, ndst, nexcept;
	__u8 protos;
	enum tp_missing missing;
	bool first, fix, ignore_missing, clear;
	const char *unix_path;
	__u32 pid, port;	/* 0: not told */
	__u32 count, seconds;	/* of log; 0: without end */
} env;

/* In the order of enum tp_missing. */
extern const char *const tp_missing_words[];

/* Whether connections that the namespace forwards are lost at tcx-egress. */
bool tp_early_demux(void);

int verb_register(int argc, char **argv);
int verb_show(int argc, char **argv);
int verb_stats(int argc, char **argv);
int verb_log(int argc, char **argv);
int verb_doctor(int argc, char **argv);

#endif
