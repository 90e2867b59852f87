/* SPDX-License-Identifier: Apache-2.0 */
/* A guide that faults: before, or after (CRASH=after), it called the function it hooked. */
#include <farvisor/guide.h>
#include <stdlib.h>

typedef uint64_t total_fn(const void *table, const uint32_t *numbers, size_t count);
static total_fn *original;
static int after;
static unsigned calls;
static volatile int *volatile nowhere = (volatile int *)8;

static uint64_t guided_total(const void *table, const uint32_t *numbers, size_t count)
{
    int now = ++calls == 10;
    if (now && !after)
        *nowhere = 1;
    uint64_t total = original(table, numbers, count);
    if (now)
        *nowhere = 1;
    return total;
}

static int start(void)
{
    const char *when = getenv("CRASH");
    after = when && when[0] == 'a';
    if (when && when[0] == 's')
        *nowhere = 1;
    return guide_hook("orders_total", (void *)guided_total, (void **)&original);
}

GUIDE("crash", start)
