/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes: what to fetch ahead when (lane.h says who may do what). */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>
#include <string.h>

#define AHEAD_MAX      (LANE_FLIGHTS * FLIGHT_PAGES)
#define AHEAD_SHARE    16u      /* most pages ahead of one touch: a sixteenth of the host's share */
#define MARKER_LIFE_NS 5000000u /* without any being reached; then the next miss has to tell */

/* ---- life ---- */

int lanes_create(struct fault_engine *engine)
{
    buffers_create(engine);
    for (unsigned i = 0; i < LANES; i++) {
        struct lane *lane = &engine->lanes[i];
        lane->index = i;
        pthread_mutex_init(&lane->demand_lock, NULL);
        atomic_store(&lane->open_page, PAGE_NONE);
        pthread_mutex_init(&lane->lock, NULL);
        for (unsigned j = 0; j < LANE_MARKERS; j++)
            lane->markers[j] = MARKER_NONE;
    }
    return 0;
}

void lanes_destroy(struct fault_engine *engine)
{
    struct rdma_node *node = engine->config.node;
    for (unsigned i = 0; i < LANES; i++) {
        struct lane *lane = &engine->lanes[i];
        rdma_queue_destroy(lane->demand);
        rdma_queue_destroy(lane->prefetch);
        if (lane->demand_buffer)
            rdma_buffer_free(node, lane->demand_buffer, EPT_PAGE_BYTES);
        pthread_mutex_destroy(&lane->demand_lock);
        pthread_mutex_destroy(&lane->lock);
    }
    buffers_destroy(engine); /* no queue is left whose reads could write into them */
}

/* ---- ahead ---- */

uint64_t lane_fetch(struct fault_engine *engine, struct lane *lane, uint64_t page, uint64_t pages,
                    bool write, uint64_t *marker)
{
    uint64_t at = page, end = page + pages;
    uint32_t unsent = lane->unsent_pages;
    while (at < end && at < engine->span_pages && lane->unsent_pages == unsent) {
        if (ept_word_state(atomic_load(&engine->words[at])) != EPT_REMOTE ||
            live_none(engine, at)) { /* costs a fault if it is used again, and no read then */
            at++;
            continue;
        }
        uint64_t got = flight_gather(engine, lane, at, end - at, write);
        if (!got)
            break;
        /* Only sampled pages can tell that they were touched (run.c). */
        if (marker && *marker == MARKER_NONE)
            *marker =
                got < SAMPLE_PAGES ? at : (at + SAMPLE_PAGES - 1) / SAMPLE_PAGES * SAMPLE_PAGES;
        at += got;
    }
    return at - page;
}

uint64_t lane_sent(const struct lane *lane, uint32_t unsent, uint64_t passed)
{
    uint32_t since = lane->unsent_pages - unsent;
    return passed > since ? passed - since : 0;
}

/* ---- markers ---- */

static void marker_set(struct fault_engine *engine, struct lane *lane, uint64_t page, bool write)
{
    lane->marker_next = (lane->marker_next + 1) % LANE_MARKERS;
    lane->markers[lane->marker_next] = page;
    lane->marker_writes[lane->marker_next] = write;
    lane->marker_ns = clock_now_ns();
    atomic_fetch_or(&engine->lanes_busy, 1ULL << lane->index);
}

void lane_touched(struct fault_engine *engine, struct lane *lane, uint64_t page,
                  enum prefetch_cause cause, bool write)
{
    const struct prefetcher *prefetcher = engine->prefetcher;
    uint64_t most = engine->config.local_pages / AHEAD_SHARE;
    struct prefetch_touch touch = {
        .page = page,
        .cause = cause,
        .write = write,
        .max_pages = most < AHEAD_MAX ? (uint32_t)most : AHEAD_MAX,
        .accuracy_percent =
            atomic_load_explicit(&engine->accuracy, memory_order_relaxed) * 100 >> 16,
    };
    struct prefetch_plan plan;
    uint64_t marker = MARKER_NONE;
    uint64_t done = 0;
    uint32_t unsent = lane->unsent_pages;
    prefetcher->plan(&lane->state, &touch, &plan);
    for (uint32_t i = 0; i < plan.count; i++) {
        uint64_t passed =
            lane_fetch(engine, lane, plan.runs[i].page, plan.runs[i].pages, plan.write, &marker);
        done += passed;
        if (passed < plan.runs[i].pages)
            break;
    }
    flight_send(engine, lane);
    if (plan.count)
        prefetcher->posted(&lane->state, &plan, (uint32_t)lane_sent(lane, unsent, done));
    if (marker == MARKER_NONE)
        return;
    marker_set(engine, lane, marker, plan.write);
    lander_wake(engine);
}

/* 1: it was touched; 0: not yet; -1: it is not here (any more), or can tell nothing. */
static int marker_look(const struct fault_engine *engine, uint64_t page)
{
    uint64_t word = atomic_load(&engine->words[page]);
    if (ept_word_state(word) == EPT_FETCHING)
        return 0;
    if (ept_word_state(word) != EPT_LOCAL || !(word & EPT_PREFETCHED))
        return -1;
    return ept_accessed(engine->ept, page);
}

bool lane_follow(struct fault_engine *engine, struct lane *lane)
{
    bool any = false, waiting = false;
    bool expired = clock_now_ns() - lane->marker_ns > MARKER_LIFE_NS;
    for (unsigned i = 0; i < LANE_MARKERS; i++) {
        uint64_t page = lane->markers[i];
        int look = page == MARKER_NONE ? -1 : marker_look(engine, page);
        if (look == 0 && !expired) {
            waiting = true;
            continue;
        }
        lane->markers[i] = MARKER_NONE;
        if (look <= 0)
            continue;
        any = true;
        lane->marker_ns = clock_now_ns();
        probe_touched(lane->index, TRACE_REACHED, page);
        sample_take(engine, page);
        lane_touched(engine, lane, page, PREFETCH_REACHED,
                     lane->marker_writes[i] || ept_dirty(engine->ept, page));
    }
    /* One that is opened just now may be missed: its thread, or who needs it, lands it as well. */
    if (!any && !waiting && !lane->in_flight && atomic_load(&lane->open_page) == PAGE_NONE)
        atomic_fetch_and(&engine->lanes_busy, ~(1ULL << lane->index));
    return any;
}
