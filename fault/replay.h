/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What-if: plays a trace against a cache of another size, replacement policy or prefetcher. "clock"
 * and the prefetchers are the engine's own code (clock.h, prefetch.h) over words and Accessed bits
 * of the simulator's; FIFO, LRU and Belady's optimum exist here only, to compare with. No threads,
 * no clocks: the same trace gives the same figures.
 */
#ifndef FARVISOR_FAULT_REPLAY_H
#define FARVISOR_FAULT_REPLAY_H

#include "fault/prefetch.h"
#include "fault/trace.h"

enum replay_policy { REPLAY_CLOCK, REPLAY_FIFO, REPLAY_LRU, REPLAY_BELADY, REPLAY_POLICIES };

#define REPLAY_LOCAL_MIN_PAGES 256u

/* Pages of the program's address space. All are played; touches of others are not counted. */
struct replay_range {
    uint64_t first_page;
    uint64_t pages; /* 0: every page counts */
};

struct replay_config {
    enum replay_policy policy;
    const struct prefetcher *prefetcher;
    uint64_t local_pages; /* >= REPLAY_LOCAL_MIN_PAGES */
    uint64_t latency_ns;  /* of a read, demanded or not; any number may fly at a time */
    struct replay_range range;
};

struct replay_result {
    uint64_t touches;    /* known from the trace; these five: in the range only */
    uint64_t first;      /* ... of pages without contents: no policy helps */
    uint64_t misses;     /* ... of pages that had left: demand fetches */
    uint64_t late;       /* ... of pages that were on their way */
    uint64_t refaults;   /* misses fewer evictions after the page left than the cache has pages */
    uint64_t prefetched; /* pages */
    uint64_t used;       /* ... touched while here, late ones included */
    uint64_t wasted;     /* ... that left, or were left over, untouched */
    uint64_t evicted;
    uint64_t stall_ns; /* waited for misses and late pages, all threads */
};

struct replay_input; /* a trace made ready; read-only, shared by any number of runs */

/* 0, or -EINVAL or -ENOMEM with *wrong (static text). The trace is not needed afterwards. */
int replay_input_create(struct replay_input **out, const struct trace *trace, const char **wrong);
void replay_input_destroy(struct replay_input *input);       /* accepts NULL */
uint64_t replay_footprint(const struct replay_input *input); /* distinct pages with contents */
uint64_t replay_touches(const struct replay_input *input, struct replay_range range);

/* One simulation. 0 or -ENOMEM. Cost: under 1 us a touch. */
int replay_run(const struct replay_input *input, const struct replay_config *config,
               struct replay_result *out);

const char *replay_policy_name(enum replay_policy policy);

#endif
