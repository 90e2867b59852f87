/* SPDX-License-Identifier: Apache-2.0 */
/* What prefetchers share: their table, and how a sequence becomes runs of pages. */
#include "fault/prefetch.h"

#include <string.h>

static void none_plan(struct prefetch_state *state, const struct prefetch_touch *touch,
                      struct prefetch_plan *plan)
{
    (void)state;
    (void)touch;
    plan->count = 0;
}

static void none_posted(struct prefetch_state *state, const struct prefetch_plan *plan,
                        uint32_t pages)
{
    (void)state;
    (void)plan;
    (void)pages;
}

const struct prefetcher prefetch_none = {"none", none_plan, none_posted};

const struct prefetcher *prefetch_find(const char *name)
{
    static const struct prefetcher *const all[] = {&prefetch_none, &prefetch_readahead,
                                                   &prefetch_trend, &prefetch_auto};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    return NULL;
}

uint32_t prefetch_plan_pages(const struct prefetch_plan *plan)
{
    uint32_t pages = 0;
    for (uint32_t i = 0; i < plan->count; i++)
        pages += plan->runs[i].pages;
    return pages;
}

static bool run_append(struct prefetch_plan *plan, uint64_t page, uint32_t pages)
{
    if (plan->count == PREFETCH_RUNS)
        return false;
    plan->runs[plan->count].page = page;
    plan->runs[plan->count++].pages = pages;
    return true;
}

uint32_t prefetch_append(struct prefetch_plan *plan, uint64_t page, int64_t stride, uint32_t steps)
{
    uint32_t done = 0;
    while (done < steps) {
        uint32_t chunk = 1;
        uint64_t at = page + (uint64_t)(stride * (int64_t)done);
        if (stride == 1 || stride == -1) {
            /* To a boundary first, so that later runs are aligned with blocks and neighbours. */
            uint64_t left = stride == 1 ? PREFETCH_RUN_PAGES - at % PREFETCH_RUN_PAGES
                                        : at % PREFETCH_RUN_PAGES + 1;
            chunk = left < steps - done ? (uint32_t)left : steps - done;
            if (stride == -1)
                at -= chunk - 1;
        }
        if (!run_append(plan, at, chunk))
            break;
        done += chunk;
    }
    return done;
}

/*
 * Pages of a sequence to fetch from `edge` on, near `want` and at most `most`, so that the plan
 * ends with a whole run: else each plan would leave a short one behind and the next begin with
 * another.
 */
static uint64_t whole_runs(uint64_t edge, int64_t stride, uint64_t want, uint64_t most)
{
    uint64_t end = edge + want; /* behind the last page, as the sequence goes */
    uint64_t over = end % PREFETCH_RUN_PAGES;
    if (stride < 0) {
        end = edge - want + 1; /* lowest page of the plan */
        over = (PREFETCH_RUN_PAGES - end % PREFETCH_RUN_PAGES) % PREFETCH_RUN_PAGES;
    }
    uint64_t rest = over ? PREFETCH_RUN_PAGES - over : 0;
    if (rest <= most - want && (stride > 0 || rest < end)) /* page 0 is nobody's */
        return want + rest;
    return want > over ? want - over : want;
}

void prefetch_stream_plan(struct prefetch_stream *stream, const struct prefetch_touch *touch,
                          struct prefetch_plan *plan)
{
    int64_t stride = stream->stride;
    uint64_t ahead = 2ULL * stream->window;
    uint64_t span = (uint64_t)(stride < 0 ? -stride : stride);
    if (ahead > touch->max_pages)
        ahead = touch->max_pages;
    /* Steps already ahead; a touch beyond the edge (or a reversal) starts it anew. */
    int64_t lead = ((int64_t)(stream->edge - stream->last)) * (stride < 0 ? -1 : 1);
    if (lead <= 0 || (uint64_t)lead > span * (2ULL * touch->max_pages + 1)) {
        stream->edge = stream->last + (uint64_t)stride;
        lead = (int64_t)span;
    }
    uint64_t posted = (uint64_t)lead / span - 1;
    if (posted >= ahead)
        return;
    /* A descending sequence ends at page 0 at the latest. */
    uint64_t want = ahead - posted;
    if (stride < 0 && want > stream->edge / span)
        want = stream->edge / span;
    if (span == 1 && stream->window >= PREFETCH_RUN_PAGES) /* a proven sequence */
        want = whole_runs(stream->edge, stride, want, touch->max_pages - posted);
    plan->write = stream->write;
    stream->edge +=
        (uint64_t)(stride * (int64_t)prefetch_append(plan, stream->edge, stride, (uint32_t)want));
}

void prefetch_stream_posted(struct prefetch_stream *stream, uint32_t planned, uint32_t pages)
{
    if (pages < planned)
        stream->edge -= (uint64_t)((int64_t)stream->stride * (int64_t)(planned - pages));
}
