/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an operating system does: one window a thread, in the direction of the last two touches. It
 * doubles when a touch falls on what was fetched, halves when it does not, and fetches a little
 * even for a first touch. Kept to compare with; Linux: mm/swap_state.c, swap_vma_readahead.
 */
#include "fault/prefetch.h"

#define WINDOW_FIRST 4u
#define WINDOW_MAX   64u

/* Did the touch fall on what was fetched, or just behind it? */
static bool window_hit(const struct prefetch_stream *stream, uint64_t page)
{
    int64_t step = (int64_t)(page - stream->last), lead = (int64_t)(stream->edge - stream->last);
    if (stream->stride < 0) {
        step = -step;
        lead = -lead;
    }
    return stream->window && step >= 0 && step <= lead;
}

static void readahead_plan(struct prefetch_state *state, const struct prefetch_touch *touch,
                           struct prefetch_plan *plan)
{
    struct prefetch_stream *stream = &state->streams[0];
    uint32_t most = touch->max_pages / 2 < WINDOW_MAX ? touch->max_pages / 2 : WINDOW_MAX;
    plan->count = plan->stream = 0;
    if (window_hit(stream, touch->page)) {
        stream->window = stream->window * 2 < most ? stream->window * 2 : most;
    } else {
        int64_t step = (int64_t)(touch->page - stream->last);
        uint32_t window = stream->window ? stream->window / 2 : WINDOW_FIRST;
        stream->window = window ? window : 1;
        stream->stride = step < 0 && step > -(int64_t)WINDOW_MAX ? -1 : 1;
        stream->edge = touch->page + (uint64_t)(int64_t)stream->stride;
    }
    stream->last = touch->page;
    stream->write = touch->write;
    prefetch_stream_plan(stream, touch, plan);
}

static void readahead_posted(struct prefetch_state *state, const struct prefetch_plan *plan,
                             uint32_t pages)
{
    prefetch_stream_posted(&state->streams[0], prefetch_plan_pages(plan), pages);
}

const struct prefetcher prefetch_readahead = {"readahead", readahead_plan, readahead_posted};
