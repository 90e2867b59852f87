/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Majority trend: the distance that more than half of a thread's recent touches share, looked for
 * in windows of growing length (Boyer-Moore vote). Kept to compare with. Source: Leap, USENIX ATC
 * 2020, section 4.1.
 */
#include "fault/prefetch.h"

#define VOTE_LEAST 4u
#define VOTE_FIRST 8u
#define WINDOW_MAX 64u

static int64_t history_at(const struct prefetch_state *state, uint32_t back)
{
    return state->history[(state->touches - 1 - back) % PREFETCH_HISTORY];
}

/* The majority among the latest `count` distances; 0: there is none. */
static int64_t majority(const struct prefetch_state *state, uint32_t count)
{
    int64_t candidate = 0;
    uint32_t votes = 0, total = 0;
    for (uint32_t i = 0; i < count; i++) {
        int64_t step = history_at(state, i);
        if (votes == 0)
            candidate = step;
        if (step == candidate)
            votes++;
        else
            votes--;
    }
    for (uint32_t i = 0; i < count; i++)
        total += history_at(state, i) == candidate;
    return total > count / 2 ? candidate : 0;
}

static int64_t trend_find(const struct prefetch_state *state)
{
    uint32_t known = state->touches < PREFETCH_HISTORY ? state->touches : PREFETCH_HISTORY;
    if (known < VOTE_LEAST)
        return 0;
    for (uint32_t count = VOTE_FIRST; count <= PREFETCH_HISTORY; count *= 2) {
        int64_t trend = majority(state, count < known ? count : known);
        if (trend || count >= known)
            return trend;
    }
    return 0;
}

static void trend_plan(struct prefetch_state *state, const struct prefetch_touch *touch,
                       struct prefetch_plan *plan)
{
    struct prefetch_stream *stream = &state->streams[0];
    uint32_t most = touch->max_pages / 2 < WINDOW_MAX ? touch->max_pages / 2 : WINDOW_MAX;
    int64_t lead = (int64_t)(stream->edge - stream->last);
    int64_t step = (int64_t)(touch->page - stream->last);
    plan->count = plan->stream = 0;
    /* A touch within what was fetched followed the trend, step by step. */
    bool followed = stream->window && step % stream->stride == 0 &&
                    (stream->stride > 0 ? step > 0 && step <= lead : step < 0 && step >= lead);
    state->history[state->touches++ % PREFETCH_HISTORY] = followed ? stream->stride : step;
    stream->last = touch->page;
    stream->write = touch->write;
    int64_t trend = trend_find(state);
    if (!trend || trend != (int32_t)trend || !most) {
        stream->window = 0;
        return;
    }
    if (followed && trend == stream->stride) {
        stream->window = stream->window * 2 < most ? stream->window * 2 : most;
    } else {
        stream->window = 1;
        stream->stride = (int32_t)trend;
        stream->edge = touch->page + (uint64_t)trend;
    }
    prefetch_stream_plan(stream, touch, plan);
}

static void trend_posted(struct prefetch_state *state, const struct prefetch_plan *plan,
                         uint32_t pages)
{
    if (plan->count)
        prefetch_stream_posted(&state->streams[0], prefetch_plan_pages(plan), pages);
}

const struct prefetcher prefetch_trend = {"trend", trend_plan, trend_posted};
