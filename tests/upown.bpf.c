// SPDX-License-Identifier: GPL-2.0-only
/* Programs as users write them: two that change things, one that only watches. */
#include "upatch.bpf.h"

char LICENSE[] SEC("license") = "GPL";

__u64 __arena seen;

/* Odd numbers are refused, others are doubled. */
UPATCH(even)
{
	__sync_fetch_and_add(&seen, 1);
	if (UPATCH_ARG(0) & 1) {
		UPATCH_TELL(UPATCH_ARG(0));
		return UPATCH_RETURN(-22);
	}
	UPATCH_SET_ARG(0, 2 * UPATCH_ARG(0));
	return UPATCH_CONTINUE;
}

/* Tells the first bytes of the text that an argument points to. */
UPATCH_WATCH(look)
{
	__u64 text = 0;

	UPATCH_READ(&text, sizeof(text), UPATCH_ARG(0));
	UPATCH_TELL(text);
	return UPATCH_CONTINUE;
}
