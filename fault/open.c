/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open demands: the read of a page that a thread faulted on, while the thread does not wait for it
 * but runs a guide's handler in the guest. Posted as every demand is, on the lane's demand queue,
 * but the lock is released. So whoever next takes the lane's demand_lock may land the page, and has
 * to before queue and buffer are used for another: a thread that needs the page (page_wait, by the
 * lane in its word), the next demand of the lane, the lander, or the thread itself in the end.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>

/* The claim and what it holds are given up; the error is sticky. */
static int open_fail(struct fault_engine *engine, struct lane *lane, int error)
{
    uint64_t page = atomic_load(&lane->open_page);
    atomic_store(&lane->open_page, PAGE_NONE);
    frames_give(engine, 1);
    run_release(engine, page, 1, EPT_REMOTE);
    return fault_fail(engine, error);
}

int lane_open_step(struct fault_engine *engine, struct lane *lane, uint64_t timeout_ns)
{
    uint64_t page = atomic_load(&lane->open_page);
    if (page == PAGE_NONE)
        return 1;
    while (lane->demand_parts) {
        struct rdma_completion completion;
        int got = rdma_queue_poll(lane->demand, &completion, 1, timeout_ns);
        if (got == 0)
            return 0;
        if (got > 0) {
            lane->demand_parts--;
            /* As in demand_collect: any other answer would be wrong bytes. */
            got = completion.cookie == page ? completion.status : -EIO;
        }
        if (got < 0)
            return open_fail(engine, lane, got);
    }
    int error = run_land(engine, page, 1, lane->demand_buffer, lane->open_write, false);
    if (error)
        return open_fail(engine, lane, error);
    atomic_store(&lane->open_page, PAGE_NONE);
    return 1;
}

int lane_open_settle(struct fault_engine *engine, struct lane *lane, struct patience *patience)
{
    if (atomic_load(&lane->open_page) == PAGE_NONE) /* every demand read comes by */
        return 0;
    struct patience own = patience_begin(engine); /* the read's: see demand_collect */
    int step;
    while ((step = lane_open_step(engine, lane, PATIENCE_SLICE_NS)) == 0) {
        (void)patience_spend(patience);
        if (patience_spend(&own))
            return open_fail(engine, lane, -ETIMEDOUT);
    }
    return step < 0 ? step : 0;
}

int lane_open_help(struct fault_engine *engine, struct lane *lane, uint64_t page, uint64_t seen,
                   struct patience *patience)
{
    int step = 0;
    pthread_mutex_lock(&lane->demand_lock);
    bool posted = atomic_load(&lane->open_page) == page;
    if (posted)
        step = lane_open_step(engine, lane, PATIENCE_SLICE_NS);
    pthread_mutex_unlock(&lane->demand_lock);
    if (!posted) /* claimed a moment ago, or landed since */
        return word_wait(&engine->words[page], seen, patience);
    return step < 0 ? step : step > 0 ? 0 : patience_spend(patience);
}

bool lane_open_look(struct fault_engine *engine, struct lane *lane)
{
    int step = 0;
    if (atomic_load(&lane->open_page) == PAGE_NONE || pthread_mutex_trylock(&lane->demand_lock))
        return false;
    if (atomic_load(&lane->open_page) != PAGE_NONE)
        step = lane_open_step(engine, lane, 0);
    pthread_mutex_unlock(&lane->demand_lock);
    return step > 0;
}

/* With the page claimed and a frame for it. 0 or -errno. */
static int open_post(struct fault_context *context, struct lane *lane, uint64_t page, bool write,
                     struct patience *patience)
{
    struct fault_engine *engine = context->engine;
    pthread_mutex_lock(&lane->demand_lock);
    int error = fault_engine_error(engine);
    if (!error)
        error = lane_open_settle(engine, lane, patience);
    if (!error)
        error = lane_demand_post(engine, lane, page, patience);
    if (!error) {
        lane->open_write = write;
        atomic_store(&lane->open_page, page);
    }
    pthread_mutex_unlock(&lane->demand_lock);
    return error;
}

int fault_demand_open(struct fault_context *context, uint64_t page, bool write)
{
    struct fault_engine *engine = context->engine;
    struct lane *lane = &engine->lanes[context->lane];
    struct patience patience = patience_begin(engine);
    uint64_t start_ns = clock_now_ns();
    if (!engine->paged || page >= engine->span_pages)
        return 0;
    uint64_t seen = atomic_load(&engine->words[page]);
    if (ept_word_state(seen) != EPT_REMOTE || frames_take(context, 1, &patience) <= 0)
        return 0; /* fault_resolve says why */
    if (!run_claim(engine, page, 1, EPT_REMOTE, EPT_FETCHING, LANES + 1 + lane->index)) {
        frames_give(engine, 1);
        return 0;
    }
    int error = open_post(context, lane, page, write, &patience);
    if (error) {
        frames_give(engine, 1);
        run_release(engine, page, 1, EPT_REMOTE);
        return fault_fail(engine, error);
    }
    probe_fault_begin(context->lane, page, write);
    probe_fetch_demand(page);
    tally_add(&context->tally.faults, 1);
    tally_add(&context->tally.demand_fetches, 1);
    context->open.page = page;
    context->open.seen = seen;
    context->open.write = write;
    context->open.start_ns = start_ns;
    context->open.learnt = fault_touched_try(context, page, write);
    atomic_fetch_or(&engine->lanes_busy, 1ULL << lane->index);
    lander_wake(engine);
    return 1;
}

int fault_demand_close(struct fault_context *context)
{
    struct fault_engine *engine = context->engine;
    uint64_t page = context->open.page, seen;
    struct patience patience = patience_begin(engine);
    int error = 0, waited = 0;
    if (page == PAGE_NONE)
        return 0;
    context->open.page = PAGE_NONE;
    if (!context->open.learnt)
        fault_touched(context, page, context->open.write);
    /* Not for what others may do with it since: the program finds out when it runs on. */
    while (!error &&
           word_lane(seen = atomic_load(&engine->words[page])) == LANES + 1 + context->lane) {
        waited = 1;
        error = fault_engine_error(engine);
        if (!error)
            error = page_wait(engine, page, seen, &patience);
    }
    uint64_t took_ns = clock_now_ns() - context->open.start_ns;
    if (waited && !error) /* else it may have been here for long */
        fault_histogram_add(&context->tally.fetch_ns, took_ns);
    fault_histogram_add(&context->tally.fault_ns, took_ns);
    probe_fault_end(context->lane, page, context->open.write, context->open.seen,
                    engine->words[page], context->open.start_ns, error);
    return error ? error : waited;
}

uint64_t fault_fetch_mean_ns(const struct fault_context *context)
{
    const struct fault_histogram *fetches = &context->tally.fetch_ns;
    return fetches->count ? fetches->sum_ns / fetches->count : 0;
}
