/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What to fetch next: prediction only. A prefetcher sees the touches of one thread that the engine
 * can see (misses, touches of pages still in flight, and markers found accessed) and answers with
 * pages. It knows no page states, queues or threads, so that `farvisor replay` runs the same code.
 */
#ifndef FARVISOR_FAULT_PREFETCH_H
#define FARVISOR_FAULT_PREFETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PREFETCH_RUNS      64u
#define PREFETCH_RUN_PAGES 64u
#define PREFETCH_STREAMS   16u
#define PREFETCH_HISTORY   32u

enum prefetch_cause {
    PREFETCH_MISS,    /* the page had to be demanded */
    PREFETCH_LATE,    /* it was on its way */
    PREFETCH_REACHED, /* it was there: the marker of an earlier plan was found accessed */
};

struct prefetch_touch {
    uint64_t page;
    enum prefetch_cause cause;
    bool write;
    uint32_t max_pages;        /* most pages that may be ahead of this touch */
    uint32_t accuracy_percent; /* of recent prefetches of all threads; 100 when unknown */
};

/* Runs in the order in which they will be needed; none crosses PREFETCH_RUN_PAGES. */
struct prefetch_plan {
    struct {
        uint64_t page;
        uint32_t pages;
    } runs[PREFETCH_RUNS];
    uint32_t count;
    uint32_t stream; /* the prefetcher's own, for `posted` */
    bool write;      /* the pages are about to be written */
};

/* A sequence with a constant stride. */
struct prefetch_stream {
    uint64_t last; /* page touched last */
    uint64_t edge; /* next page to fetch */
    int32_t stride;
    uint32_t window; /* strides fetched ahead at a time; 0: not confirmed yet */
    uint32_t used;   /* turn of its last touch, for replacement */
    bool write;
};

/* Everything a prefetcher remembers of one thread. Zeroed is a fresh start. */
struct prefetch_state {
    struct prefetch_stream streams[PREFETCH_STREAMS];
    uint32_t turn;
    uint64_t last;                     /* trend: page touched last */
    int64_t history[PREFETCH_HISTORY]; /* trend: distances between touches */
    uint32_t touches;
};

struct prefetcher {
    const char *name;
    /* Fills *plan (count 0: nothing), at most max_pages ahead. */
    void (*plan)(struct prefetch_state *state, const struct prefetch_touch *touch,
                 struct prefetch_plan *plan);
    /* Only the first `pages` pages of the plan could be started. */
    void (*posted)(struct prefetch_state *state, const struct prefetch_plan *plan, uint32_t pages);
};

extern const struct prefetcher prefetch_none, prefetch_readahead, prefetch_trend, prefetch_auto;

/* "none", "readahead", "trend", "auto"; NULL for any other name. */
const struct prefetcher *prefetch_find(const char *name);

/* ---- for prefetchers ---- */

/* Appends `steps` pages from `page` on at `stride`, as runs. Pages appended. */
uint32_t prefetch_append(struct prefetch_plan *plan, uint64_t page, int64_t stride, uint32_t steps);
/* Plans what a confirmed stream lacks to be two windows ahead of `last`. */
void prefetch_stream_plan(struct prefetch_stream *stream, const struct prefetch_touch *touch,
                          struct prefetch_plan *plan);
void prefetch_stream_posted(struct prefetch_stream *stream, uint32_t planned, uint32_t pages);
uint32_t prefetch_plan_pages(const struct prefetch_plan *plan);

#endif
