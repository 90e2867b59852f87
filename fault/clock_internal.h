/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the replacement policy's files (clock.c, clock_hands.c). */
#ifndef FARVISOR_FAULT_CLOCK_INTERNAL_H
#define FARVISOR_FAULT_CLOCK_INTERNAL_H

#include "fault/clock.h"

/* ACTIVE pages may fill three quarters; beyond that the coldest of them go back to probation. */
#define CLOCK_ACTIVE_SHARE(local) ((local) / 4 * 3)
/* A sixteenth of what comes back must do so soon for looks on probation to be worth it. */
#define CLOCK_RETURNS_ENOUGH (65536u / 16)
#define CLOCK_LOOKS_MAX      (2 * (int)BLOCK_PAGES)

static inline uint32_t clock_now(const struct clock *clock)
{
    return atomic_load_explicit(&clock->epoch, memory_order_relaxed);
}

/* One more of something that is owed; what it is behind with is bounded. */
static inline void clock_owe(atomic_int *owed, int most)
{
    if (atomic_load_explicit(owed, memory_order_relaxed) < most)
        atomic_fetch_add_explicit(owed, 1, memory_order_relaxed);
}

bool clock_pop(struct clock *clock, enum clock_queue queue, struct clock_entry *entry);
/* Appends a block that is not in the queue. */
void clock_queue_block(struct clock *clock, uint64_t number, enum clock_queue queue);
/* Gives a popped block back, or leaves it out if it has no business in the queue. */
void clock_requeue(struct clock *clock, struct clock_entry entry, enum clock_queue queue,
                   bool front);
/* Pages of one block are about to be ACTIVE; a page is so no more. */
void clock_activated(struct clock *clock, uint64_t page, unsigned pages);
void clock_deactivated(struct clock *clock, uint64_t page);

#endif
