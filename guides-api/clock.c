/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one clock that deadlines and measurements use: monotonic, so that neither NTP nor an
 * administrator setting the date can stretch a bounded wait. Any thread; tens of nanoseconds.
 */
#include "support.h"

#include <errno.h>
#include <time.h>

uint64_t clock_now_ns(void)
{
    struct timespec now;

    /* Cannot fail: the clock exists on every Linux and the pointer is ours. */
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

struct patience patience_of(uint64_t ns, uint64_t slice_ns)
{
    return (struct patience){.left_ns = ns, .slice_ns = slice_ns, .looked_ns = clock_now_ns()};
}

int patience_spend(struct patience *patience)
{
    uint64_t now_ns = clock_now_ns(), passed_ns = now_ns - patience->looked_ns;

    patience->looked_ns = now_ns;
    if (passed_ns > patience->slice_ns)
        passed_ns = patience->slice_ns;
    patience->left_ns -= passed_ns < patience->left_ns ? passed_ns : patience->left_ns;
    return patience->left_ns ? 0 : -ETIMEDOUT;
}
