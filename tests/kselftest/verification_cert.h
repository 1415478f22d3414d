/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * In place of the key that the selftests' Makefile makes for light skeletons which
 * are signed: we build none, and a kernel without keys would refuse this one, on
 * which test_progs ends. It is not added; whatever needs it fails.
 */
#include <sys/syscall.h>

#undef __NR_add_key
#define __NR_add_key __NR_gettid

static const char test_progs_verification_cert[1];
static const unsigned int test_progs_verification_cert_len;
