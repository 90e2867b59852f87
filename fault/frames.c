/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three budgets. Frames: pages resident on this host, a hard bound, refilled by the reclaimer ahead
 * of need; a fault waits for it only in an emergency, which is counted. Quota: pages that exist at
 * all. Budget is taken before a page is installed and given back after it is dropped, so the bound
 * holds at every moment. Pins of requests: see below.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>

static void peak_note(_Atomic uint64_t *peak, uint64_t used)
{
    uint64_t high = atomic_load_explicit(peak, memory_order_relaxed);
    while (used > high && !atomic_compare_exchange_weak(peak, &high, used))
        ;
}

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
    peak_note(peak, now + take);
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

/* ---- pins of requests ---- */

/*
 * A request that pins several pages holds some while it waits for others. Enough of them at a time
 * hold every frame, and each waits for the rest. So what requests may pin together is admitted
 * first, by a thread that holds no pin of its request yet:
 *
 *   up to an eighth of the host's share   as many as were asked for
 *   up to a quarter                       ADMIT_LEAST, so that all others get on, in small pieces
 *   beyond                                the thread waits, holding nothing
 *
 * Another quarter may be pinned by guides and a quarter be in flight: a quarter is left to be
 * evicted, so whoever was admitted gets its frames.
 */
#define ADMIT_LEAST 4u

static uint64_t admit(struct fault_engine *engine, uint64_t want)
{
    uint64_t local = engine->config.local_pages, least = want < ADMIT_LEAST ? want : ADMIT_LEAST;
    uint64_t now = atomic_load_explicit(&engine->admitted_pages, memory_order_relaxed), take;
    /* In one step: what a waiting thread took and gave back wakes all that wait, and itself. */
    do {
        take = local / 8 > now ? local / 8 - now : 0;
        if (take > want)
            take = want;
        if (take < least)
            take = least;
        if (now + take > local / 4)
            return 0;
    } while (!atomic_compare_exchange_weak(&engine->admitted_pages, &now, now + take));
    peak_note(&engine->admitted_peak, now + take);
    return take;
}

int64_t fault_admit(struct fault_context *context, uint64_t want, bool wait)
{
    struct fault_engine *engine = context->engine;
    uint64_t got = engine->paged ? admit(engine, want) : want;
    if (got || !want)
        return (int64_t)got;
    if (!wait)
        return -EAGAIN;
    struct patience patience = patience_begin(engine);
    int error = 0;
    atomic_fetch_add(&engine->admit_waiting, 1);
    while (!got && !error) {
        /* Before the budget is looked at: who gives some back later bumps it. */
        unsigned sequence = atomic_load(&engine->admit_sequence);
        got = admit(engine, want);
        if (got)
            break;
        error = fault_engine_error(engine);
        counter_wait(&engine->admit_sequence, sequence, PATIENCE_SLICE_NS);
        if (!error && patience_spend(&patience))
            error = -EBUSY;
    }
    atomic_fetch_sub(&engine->admit_waiting, 1);
    return error ? error : (int64_t)got;
}

void fault_dismiss(struct fault_engine *engine, uint64_t pages)
{
    if (!engine->paged || !pages)
        return;
    uint64_t before = atomic_fetch_sub(&engine->admitted_pages, pages);
    FV_ASSERT(before >= pages);
    if (atomic_load(&engine->admit_waiting))
        counter_wake(&engine->admit_sequence);
}
