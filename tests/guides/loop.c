/* SPDX-License-Identifier: Apache-2.0 */
/* A guide that does not come back: busy, or (LOOP=asleep) in a system call without an end. */
#include <farvisor/guide.h>
#include <stdlib.h>
#include <unistd.h>

typedef uint64_t total_fn(const void *table, const uint32_t *numbers, size_t count);
static total_fn *original;
static unsigned calls;

static uint64_t guided_total(const void *table, const uint32_t *numbers, size_t count)
{
    static volatile int for_ever = 1;
    while (++calls == 10 && for_ever) {
        calls--;
        if (getenv("LOOP"))
            pause();
    }
    return original(table, numbers, count);
}

static int start(void)
{
    return guide_hook("orders_total", (void *)guided_total, (void **)&original);
}

GUIDE("loop", start)
