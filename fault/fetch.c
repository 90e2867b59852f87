/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A demanded page: its read goes out first and alone, on a queue where nothing waits before it.
 * While it flies the prefetcher chooses what to fetch along, on another queue. Runs in the thread
 * that faulted.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>

/* Learns from the touch, now if the lane is free: a landing elsewhere may not delay the demand. */
bool fault_touched_try(struct fault_context *context, uint64_t page, bool write)
{
    struct fault_engine *engine = context->engine;
    struct lane *lane = &engine->lanes[context->lane];
    if (pthread_mutex_trylock(&lane->lock))
        return false;
    lane_touched(engine, lane, page, PREFETCH_MISS, write);
    pthread_mutex_unlock(&lane->lock);
    return true;
}

static void touched(struct fault_engine *engine, struct lane *lane, uint64_t page,
                    enum prefetch_cause cause, bool write)
{
    pthread_mutex_lock(&lane->lock);
    lane_touched(engine, lane, page, cause, write);
    pthread_mutex_unlock(&lane->lock);
}

void fault_touched(struct fault_context *context, uint64_t page, bool write)
{
    touched(context->engine, &context->engine->lanes[context->lane], page, PREFETCH_MISS, write);
}

void fault_touched_late(struct fault_context *context, uint64_t page, bool write)
{
    touched(context->engine, &context->engine->lanes[context->lane], page, PREFETCH_LATE, write);
}

/* With the page claimed and the demand lock held. *learnt: the prefetcher knows of it. */
static int demand(struct fault_context *context, struct lane *lane, uint64_t page, bool write,
                  bool *learnt, struct patience *patience)
{
    struct fault_engine *engine = context->engine;
    uint64_t start_ns = clock_now_ns();
    int error = lane_demand_post(engine, lane, page, patience);
    if (error)
        return error;
    probe_fetch_demand(page);
    *learnt = fault_touched_try(context, page, write);
    error = lane_demand_wait(engine, lane, page, patience);
    if (error)
        return error;
    uint64_t fetched_ns = clock_now_ns();
    error = run_land(engine, page, 1, lane->demand_buffer, write, false);
    if (error)
        return error;
    fault_histogram_add(&context->tally.fetch_ns, fetched_ns - start_ns);
    fault_histogram_add(&context->tally.install_ns, clock_now_ns() - fetched_ns);
    tally_add(&context->tally.demand_fetches, 1);
    return 0;
}

int fault_fetch(struct fault_context *context, uint64_t page, bool write, struct patience *patience)
{
    struct fault_engine *engine = context->engine;
    struct lane *lane = &engine->lanes[context->lane];
    int64_t frames = frames_take(context, 1, patience);
    if (frames <= 0)
        return (int)frames;
    if (!run_claim(engine, page, 1, EPT_REMOTE, EPT_FETCHING, 0)) {
        frames_give(engine, 1);
        return -EAGAIN;
    }
    pthread_mutex_lock(&lane->demand_lock);
    bool learnt = false;
    int error = fault_engine_error(engine);
    if (!error)
        error = lane_open_settle(engine, lane, patience);
    if (!error)
        error = demand(context, lane, page, write, &learnt, patience);
    pthread_mutex_unlock(&lane->demand_lock);
    /* Not before: who holds the lane may be waiting for a flight, and others want to demand. */
    if (!error && !learnt)
        fault_touched(context, page, write);
    if (!error)
        return 0;
    frames_give(engine, 1);
    run_release(engine, page, 1, EPT_REMOTE);
    return fault_fail(engine, error);
}
