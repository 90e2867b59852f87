/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one clock that deadlines and measurements use: monotonic, so that neither NTP nor an
 * administrator setting the date can stretch a bounded wait. Any thread; tens of nanoseconds.
 */
#include "support.h"

#include <time.h>

uint64_t clock_now_ns(void)
{
    struct timespec now;

    /* Cannot fail: the clock exists on every Linux and the pointer is ours. */
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}
