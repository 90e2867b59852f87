/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The default prefetcher. Tells interleaved sequences of one thread apart, each with its own
 * stride, direction and window. A sequence must show itself before anything is fetched for it (two
 * neighbouring pages, or the same distance twice), so random access costs next to nothing. The
 * window doubles while touches come too early for it: at its edge (everything ahead was used up) or
 * on a page in flight (fetches take longer than the window lasts). That makes it follow bandwidth
 * times latency without measuring either.
 */
#include "fault/prefetch.h"

#define WINDOW_FIRST   2u
#define WINDOW_STEADY  64u /* reached without being late: an exit here and there is paid for */
#define WINDOW_DOUBTED 8u  /* most while half of what is fetched is wasted */
#define STRIDE_MAX     64
#define DOUBT_PERCENT  50u
#define NONE           PREFETCH_STREAMS

static int64_t distance(const struct prefetch_stream *stream, uint64_t page)
{
    return (int64_t)(page - stream->last);
}

/* How far beyond its last touch a confirmed stream expects this page; -1: not at all. */
static int64_t expected(const struct prefetch_stream *stream, uint64_t page)
{
    int64_t step = distance(stream, page), span = stream->stride;
    int64_t lead = (int64_t)(stream->edge - stream->last);
    if (span < 0) {
        step = -step;
        span = -span;
        lead = -lead;
    }
    if (step < 0 || step > lead + span * (int64_t)stream->window || step % span)
        return -1;
    return step;
}

/* The stream that the touch continues, confirmed ones first, the nearest of those; or NONE. */
static unsigned stream_find(const struct prefetch_state *state, uint64_t page)
{
    unsigned best = NONE;
    int64_t best_step = INT64_MAX;
    for (unsigned i = 0; i < PREFETCH_STREAMS; i++) {
        const struct prefetch_stream *stream = &state->streams[i];
        int64_t step = stream->window ? expected(stream, page) : -1;
        if (step >= 0 && step < best_step) {
            best_step = step;
            best = i;
        }
    }
    for (unsigned i = 0; i < PREFETCH_STREAMS && best == NONE; i++) {
        const struct prefetch_stream *stream = &state->streams[i];
        int64_t step = distance(stream, page);
        if (!stream->window && stream->used && step && step <= STRIDE_MAX && step >= -STRIDE_MAX)
            best = i;
    }
    return best;
}

static unsigned stream_replace(struct prefetch_state *state, uint64_t page)
{
    unsigned oldest = 0;
    for (unsigned i = 1; i < PREFETCH_STREAMS; i++)
        if (state->turn - state->streams[i].used > state->turn - state->streams[oldest].used)
            oldest = i;
    state->streams[oldest] = (struct prefetch_stream){.last = page, .edge = page};
    return oldest;
}

/* A second or third touch: is it a sequence? */
static void stream_confirm(struct prefetch_stream *stream, const struct prefetch_touch *touch)
{
    int32_t step = (int32_t)distance(stream, touch->page);
    bool neighbours = step == 1 || step == -1;
    bool doubted = touch->accuracy_percent < DOUBT_PERCENT;
    if (stream->stride == step || (neighbours && !doubted))
        stream->window = WINDOW_FIRST;
    stream->stride = step;
    stream->last = touch->page;
    stream->edge = touch->page + (uint64_t)(int64_t)step;
}

/*
 * A touch at the edge, or of a page in flight, wants more. A miss anywhere else is a page that was
 * skipped or lost, or no part of the sequence at all: less, or random touches near an old sequence
 * would each cost a whole window.
 */
static void window_adapt(struct prefetch_stream *stream, const struct prefetch_touch *touch)
{
    uint32_t most = touch->max_pages / 2;
    if (touch->cause == PREFETCH_MISS && touch->page != stream->edge) {
        stream->window = stream->window / 4 > WINDOW_FIRST ? stream->window / 4 : WINDOW_FIRST;
        stream->edge = touch->page + (uint64_t)(int64_t)stream->stride;
        return;
    }
    if (touch->cause == PREFETCH_REACHED && most > WINDOW_STEADY)
        most = WINDOW_STEADY;
    if (touch->accuracy_percent < DOUBT_PERCENT && most > WINDOW_DOUBTED)
        most = WINDOW_DOUBTED;
    if (stream->window < most)
        stream->window = stream->window * 2 < most ? stream->window * 2 : most;
}

static void auto_plan(struct prefetch_state *state, const struct prefetch_touch *touch,
                      struct prefetch_plan *plan)
{
    plan->count = 0;
    state->turn++;
    unsigned index = stream_find(state, touch->page);
    plan->stream = index;
    if (index == NONE) {
        if (touch->cause == PREFETCH_MISS)
            state->streams[stream_replace(state, touch->page)].used = state->turn;
        return;
    }
    struct prefetch_stream *stream = &state->streams[index];
    stream->used = state->turn;
    if (touch->cause != PREFETCH_REACHED || touch->write)
        stream->write = touch->write;
    if (stream->window) {
        window_adapt(stream, touch);
        stream->last = touch->page;
    } else {
        stream_confirm(stream, touch);
    }
    if (stream->window)
        prefetch_stream_plan(stream, touch, plan);
}

static void auto_posted(struct prefetch_state *state, const struct prefetch_plan *plan,
                        uint32_t pages)
{
    if (plan->stream != NONE)
        prefetch_stream_posted(&state->streams[plan->stream], prefetch_plan_pages(plan), pages);
}

const struct prefetcher prefetch_auto = {"auto", auto_plan, auto_posted};
