/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tutorial's guide (docs/guides.md): tells farvisor which orders a request is about to read, as
 * soon as the request is known. orders.c is not changed for it.
 */
#include <farvisor/guide.h>
#include <stdio.h>

/* What the guide knows of the program: how long an order is, and where in it the amount lies. */
#define ORDER_BYTES   1024u
#define AMOUNT_OFFSET 8u

typedef uint64_t total_fn(const void *table, const uint32_t *numbers, size_t count);
static total_fn *original;

/* Called in place of orders_total, with its arguments; its result is what the program gets. */
static uint64_t guided_total(const void *table, const uint32_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const char *order = (const char *)table + (size_t)numbers[i] * ORDER_BYTES;

        guide_prefetch(order + AMOUNT_OFFSET, sizeof(uint64_t));
    }
    return original(table, numbers, count);
}

static int start(void)
{
    int error = guide_hook("orders_total", (void *)guided_total, (void **)&original);

    if (error)
        fprintf(stderr, "example guide: orders_total cannot be hooked (error %d)\n", -error);
    return error;
}

GUIDE("example", start)
