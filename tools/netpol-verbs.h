/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * netpol: what its verbs share. Each takes its arguments after the verb and returns an
 * exit code.
 */
#ifndef NETPOL_VERBS_H
#define NETPOL_VERBS_H

#include "common.h"
#include "netpol-dev.h"
#include "netpol-load.h"

enum np_legacy { NP_LEGACY_AUTO, NP_LEGACY_NEVER, NP_LEGACY_ONLY };

extern struct np_env {
	bool ignore_missing, keep, follow, fix;
	const char *netns, *policy, *packet, *pcap;
	int dflt, stateless;		/* -1: not told */
	struct np_order order;
	enum np_legacy legacy;
	__u32 flows, adopt, interval;
} env;

/* The device and its instance, which must exist. */
int np_inst_arg(const char *arg, struct net_dev *dev, struct np_inst *inst);
/* The policy in force, or a message. */
int np_live_arg(const struct net_dev *dev, const struct np_inst *inst, struct np_live *live);

int verb_show(int argc, char **argv);
int verb_stats(int argc, char **argv);
int verb_log(int argc, char **argv);
int verb_test(int argc, char **argv);
int verb_doctor(int argc, char **argv);

#endif
