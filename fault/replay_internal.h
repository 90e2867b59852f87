/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the simulator's files (replay_*.c). */
#ifndef FARVISOR_FAULT_REPLAY_INTERNAL_H
#define FARVISOR_FAULT_REPLAY_INTERNAL_H

#include "fault/clock.h"
#include "fault/replay.h"

#define NO_PAGE UINT32_MAX
#define NEVER   UINT32_MAX

/* ---- replay_input.c: a trace made ready ---- */

/*
 * Pages are renumbered: 2 MiB blocks that the trace speaks of, one after the other, so that tables
 * are as large as the trace needs and not as its address space.
 */
enum replay_event_kind { EVENT_TOUCH, EVENT_FILL, EVENT_DISCARD };

struct replay_event {
    uint32_t page;    /* renumbered */
    uint32_t ticks;   /* the thread computed before the touch */
    uint32_t stretch; /* TOUCH, DISCARD: its first one's index in `stretches` */
    uint16_t pages;
    uint8_t kind;
    uint8_t thread; /* TRACE_NOBODY: nobody learns from it */
    bool write;
};

/*
 * Consecutive pages of one event that are touched next by the same one. One record may speak of 512
 * pages, so nothing is kept for each of them. There are at most four stretches a record: think of
 * the pages, backwards in time, as intervals that are touched next by the same event. An event with
 * k stretches replaces k intervals by three at most: its own, and what is left of two at its ends.
 */
struct replay_stretch {
    uint32_t
        next; /* event that touches these contents next, or NEVER; DISCARD: the next contents */
    uint16_t pages;
};

struct replay_input {
    struct replay_event *events;
    size_t count;
    struct replay_stretch *stretches; /* of all events */
    uint32_t *first;                  /* event that touches each page first, or NEVER */
    uint64_t *numbers;                /* of the blocks, in the program's address space */
    uint32_t blocks;
    struct {
        uint64_t number;
        uint32_t block;          /* + 1; 0: empty */
    } * index;                   /* hash from numbers to blocks */
    uint32_t slots;              /* a power of two */
    uint64_t touches, footprint; /* in pages */
};

/* Renumbers; NO_PAGE if the trace does not speak of the page's block. */
uint32_t replay_page_find(const struct replay_input *input, uint64_t page);

static inline uint64_t replay_page_number(const struct replay_input *input, uint32_t page)
{
    return input->numbers[page >> BLOCK_SHIFT] << BLOCK_SHIFT | (page & (BLOCK_PAGES - 1));
}

static inline bool replay_in_range(const struct replay_input *input, uint32_t page,
                                   struct replay_range range)
{
    return !range.pages || replay_page_number(input, page) - range.first_page < range.pages;
}

/* ---- replay.c: the simulation ---- */

/* A page's flags */
#define SIM_ACCESSED 1u /* the Accessed bit */
#define SIM_UNUSED   2u /* prefetched, not yet touched */
#define SIM_SAMPLED  4u /* prefetched, and its Accessed bit can tell */
#define SIM_KEPT     8u /* heap_clean's own */

#define SIM_FLIGHTS      64u /* of all threads, as the engine's buffers */
#define SIM_FLIGHTS_EACH 16u
#define SIM_MARKERS      16u

struct sim_flight {
    uint32_t page, pages; /* 0: free */
    uint32_t thread;
    uint64_t lands_ns;
};

struct sim_thread {
    uint64_t now_ns;
    uint32_t flights;
    uint32_t markers[SIM_MARKERS];
    uint32_t marker_next;
    struct prefetch_state state;
};

struct sim_queue { /* FIFO and LRU: a ring of pages by number, `pages` is its end */
    uint32_t *after, *before;
    uint32_t end;
};

struct sim_heap { /* Belady: resident pages by next touch; entries may be out of date */
    struct {
        uint32_t next, page;
    } * entries;
    size_t count, room;
};

struct sim {
    const struct replay_input *input;
    struct replay_config config;
    uint64_t pages; /* in all tables below */
    ept_word_t *words;
    struct block *blocks;
    uint8_t *flags;
    uint32_t *next;    /* event that touches it next, of each page */
    uint64_t *left_at; /* `evicted` when the page left */
    uint64_t resident, low_free, high_free;
    struct clock clock;
    struct sim_queue queue;
    struct sim_heap heap;
    struct sim_flight flights[SIM_FLIGHTS];
    unsigned in_flight;
    uint32_t accuracy; /* in 1/65536 */
    struct sim_thread threads[TRACE_THREADS];
    struct replay_result result;
    struct replay_result elsewhere; /* touches out of the range */
};

static inline uint64_t sim_free(const struct sim *sim)
{
    return sim->resident < sim->config.local_pages ? sim->config.local_pages - sim->resident : 0;
}

/* Frees frames up to the high mark when they are below the low one. */
void sim_reclaim(struct sim *sim);
/* A page in FETCHING or ABSENT, whose frame is taken, becomes LOCAL. */
void sim_arrive(struct sim *sim, uint32_t page, bool demanded);
/* The page's Accessed bit is looked at. */
void sim_sample(struct sim *sim, uint32_t page);
/* A page leaves: its state and the counters, not the policy's queues. */
void sim_page_left(struct sim *sim, uint32_t page, uint64_t stamp);

/* ---- replay_policy.c ---- */
int sim_policy_create(struct sim *sim);
void sim_policy_destroy(struct sim *sim);
/* The page is LOCAL from now. */
void sim_policy_arrived(struct sim *sim, uint32_t page);
void sim_policy_touched(struct sim *sim, uint32_t page);
void sim_policy_discarded(struct sim *sim, uint32_t page, bool active);
/* Evicts some pages, at least one; false: there is none that may leave. */
bool sim_policy_evict(struct sim *sim);

/* ---- replay_prefetch.c ---- */
/* Tells the prefetcher of a touch, and starts what it plans. */
void sim_prefetch(struct sim *sim, unsigned thread, uint32_t page, enum prefetch_cause cause,
                  bool write);
/* Lands what has arrived by `now_ns`. */
void sim_land(struct sim *sim, uint64_t now_ns);
/* When a page in flight arrives. */
uint64_t sim_lands_at(const struct sim *sim, uint32_t page);
/* A page that is here was touched: was it a marker of the thread's? */
bool sim_marker_reached(struct sim *sim, unsigned thread, uint32_t page);

#endif
