/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two budgets. Frames: pages resident on this host, a hard bound, refilled by the reclaimer ahead
 * of need; a fault waits for it only in an emergency, which is counted. Quota: pages that exist at
 * all. Budget is taken before a page is installed and given back after it is dropped, so the bound
 * holds at every moment.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>

/* Takes up to `want` from a budget of `limit`, none beyond; remembers the peak. */
static uint64_t budget_take(_Atomic uint64_t *used, _Atomic uint64_t *peak, uint64_t limit,
                            uint64_t want)
{
    uint64_t now = atomic_load_explicit(used, memory_order_relaxed), take;
    do {
        take = limit > now ? limit - now : 0;
        if (take > want)
            take = want;
        if (!take)
            return 0;
    } while (!atomic_compare_exchange_weak(used, &now, now + take));
    uint64_t high = atomic_load_explicit(peak, memory_order_relaxed);
    while (now + take > high && !atomic_compare_exchange_weak(peak, &high, now + take))
        ;
    return take;
}

uint64_t frames_free(const struct fault_engine *engine)
{
    uint64_t used = atomic_load(&engine->resident_pages);
    return used < engine->config.local_pages ? engine->config.local_pages - used : 0;
}

static void reclaim_ahead(struct fault_engine *engine)
{
    if (engine->paged && frames_free(engine) < engine->low_free_pages)
        counter_wake(&engine->reclaim_wanted);
}

/* Guessed pages may not eat the reserve that keeps demand faults from waiting. */
static uint64_t optional_limit(const struct fault_engine *engine)
{
    uint64_t reserve = engine->paged ? engine->low_free_pages / 2 : 0;
    return engine->config.local_pages - reserve;
}

uint64_t frames_take_optional(struct fault_engine *engine, uint64_t want)
{
    uint64_t got =
        budget_take(&engine->resident_pages, &engine->resident_peak, optional_limit(engine), want);
    reclaim_ahead(engine);
    return got;
}

int64_t frames_take(struct fault_context *context, uint64_t want, struct patience *patience)
{
    struct fault_engine *engine = context->engine;
    uint64_t limit = engine->config.local_pages;
    bool waited = false;
    for (;;) {
        unsigned sequence = atomic_load(&engine->frames_sequence);
        uint64_t got = budget_take(&engine->resident_pages, &engine->resident_peak, limit, want);
        reclaim_ahead(engine);
        if (got)
            return (int64_t)got;
        if (fault_engine_error(engine))
            return fault_engine_error(engine);
        if (!waited)
            tally_add(&context->tally.frame_waits, 1);
        waited = true;
        counter_wait(&engine->frames_sequence, sequence, PATIENCE_SLICE_NS);
        if (patience_spend(patience))
            return -EBUSY;
    }
}

void frames_give(struct fault_engine *engine, uint64_t count)
{
    if (!count)
        return;
    uint64_t before = atomic_fetch_sub(&engine->resident_pages, count);
    FV_ASSERT(before >= count);
    counter_wake(&engine->frames_sequence);
}

int64_t quota_take(struct fault_engine *engine, uint64_t want)
{
    return (int64_t)budget_take(&engine->existing_pages, &engine->existing_peak,
                                engine->config.memory_pages, want);
}

void quota_give(struct fault_engine *engine, uint64_t count)
{
    uint64_t before = atomic_fetch_sub(&engine->existing_pages, count);
    FV_ASSERT(before >= count);
}
