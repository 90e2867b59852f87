/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages leave: the replacement policy alone. It moves nothing, so that `farvisor replay` runs
 * the same code over its own words and access bits.
 *
 * Two queues of 2 MiB blocks. New pages are on probation: first in, first out, by the time at which
 * each arrived, without a look at access bits (a fetched page was just touched, and telling a
 * second touch costs an unmap). A page that is demanded again soon after it left (fewer evictions
 * ago than the host holds pages) was wrongly evicted: it becomes ACTIVE where there is room for it,
 * and ACTIVE pages get a second chance by their Accessed bits. A scan, whose pages do not come back
 * soon, passes through probation and flushes nothing. Source: S3-FIFO, SOSP 2023; Linux
 * mm/workingset.c.
 */
#ifndef FARVISOR_FAULT_CLOCK_H
#define FARVISOR_FAULT_CLOCK_H

#include "ept/ept.h"

#include <pthread.h>

/* A block is 2 MiB: one leaf table, one slab of the memory node, one stop of the clock's hand. */
#define BLOCK_SHIFT 9
#define BLOCK_PAGES (1u << BLOCK_SHIFT)

struct block {
    atomic_uint existing;  /* pages not ABSENT, and claims about to be made by every thread */
    atomic_uint held;      /* pages that hold a frame, and in the high half how many are ACTIVE */
    atomic_ushort copies;  /* remote copies, plus write-backs under way; under its block lock */
    atomic_uchar queued;   /* bit a queue: the block is in it */
    atomic_uchar reserved; /* the memory node holds a slab for it; under its block lock */
    atomic_uint departed;  /* number of the eviction that left it last (chain.c) */
};
_Static_assert(sizeof(struct block) == 16, "16 bytes for 2 MiB");

/* Both of `held` in one step: looked at one after the other while pages come and go, as many might
 * seem ACTIVE as there are, and the block of a page that is not be left out of its queue. */
static inline unsigned block_held(unsigned resident, unsigned active)
{
    return resident | active << 16;
}

static inline unsigned held_resident(unsigned held)
{
    return held & 0xffffu;
}

static inline unsigned held_active(unsigned held)
{
    return held >> 16;
}

enum clock_queue { CLOCK_PROBATION, CLOCK_ACTIVE, CLOCK_COLD, CLOCK_QUEUES };

struct clock_entry {
    uint32_t block;
    uint32_t stamp; /* batch of evictions at which it was queued */
};

struct clock_ring {
    pthread_mutex_t lock; /* taken once for up to 512 pages: not worth being clever */
    struct clock_entry *entries;
    uint64_t size, head;
    _Atomic uint64_t count; /* changed under the lock, looked at without */
};

struct clock_ops {
    bool (*accessed)(void *owner, uint64_t page);
    void (*accessed_clear)(void *owner, uint64_t page);
    /* Makes the next touch of the range set Accessed again. */
    void (*age)(void *owner, uint64_t page, uint64_t pages);
};

struct clock {
    ept_word_t *words;
    struct block *blocks;
    uint64_t local_pages;
    const struct clock_ops *ops;
    void *owner;
    atomic_uint epoch; /* number of the last batch of evictions */
    _Atomic uint64_t evicted, active_pages;
    _Atomic uint64_t refused;     /* pages that came back soon and found no room */
    _Atomic uint64_t *evicted_at; /* `evicted` at each of the last CLOCK_MEMORY epochs */
    struct clock_ring rings[CLOCK_QUEUES];
};

#define CLOCK_MEMORY 65536u

/* words, blocks, local_pages, ops and owner are set. 0 or -ENOMEM. */
int clock_create(struct clock *clock, uint64_t span_pages);
void clock_destroy(struct clock *clock);

/*
 * The word's upper half and flags (EPT_ACTIVE or nothing) of a page about to be LOCAL, from its
 * word as it was while away. `demanded`: touched, not guessed.
 */
uint64_t clock_arrival(struct clock *clock, uint64_t word, bool demanded);
/* Pages of one block hold frames now, `active` of them ACTIVE. Before their words say LOCAL. */
void clock_arrived(struct clock *clock, uint64_t page, unsigned pages, unsigned active);
/* Frames of one block were freed, `active` of which had been ACTIVE. */
void clock_left(struct clock *clock, uint64_t page, unsigned pages, unsigned active);
/* A writer saved a page from eviction: flags to add to its word. */
uint64_t clock_rescued(struct clock *clock, uint64_t page, uint64_t word);
/* A batch of evictions is over: its number, for the words of its pages. */
uint32_t clock_batch(struct clock *clock, uint64_t pages);
/* Pages of one block are not needed any more: they are next. */
void clock_cold(struct clock *clock, uint64_t page, uint64_t pages);

struct clock_choice {
    uint64_t first_page;
    uint64_t candidates[BLOCK_PAGES / 64]; /* a bit a page */
    unsigned count;
    bool more;      /* the block has further candidates */
    uint32_t stamp; /* of its queue entry */
    enum clock_queue queue;
};

/*
 * clock_choose - takes the next block out of the queue and names at most about `want` of its pages
 * to evict, perhaps none. `urgent`: no page is spared. False: there is no block. Every choice is
 * given back with clock_return; by then its candidates are claimed, or were not to be had.
 */
bool clock_choose(struct clock *clock, uint64_t want, bool urgent, struct clock_choice *choice);
void clock_return(struct clock *clock, const struct clock_choice *choice);
uint64_t clock_blocks(const struct clock *clock); /* queued for probation, about */

#endif
