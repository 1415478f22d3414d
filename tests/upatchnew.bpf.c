// SPDX-License-Identifier: GPL-2.0-only
/* What takes the place of a program of upown.bpf.c: all but 4 is refused. */
#include "upatch.bpf.h"

char LICENSE[] SEC("license") = "GPL";

UPATCH(even)
{
	if (UPATCH_ARG(0) == 4)
		return UPATCH_CONTINUE;
	UPATCH_TELL(UPATCH_WHO);
	return UPATCH_RETURN(-1);
}
