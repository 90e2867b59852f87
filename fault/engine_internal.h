/* SPDX-License-Identifier: Apache-2.0 */
/* Private to fault/: the engine's state and what its files offer each other. */
#ifndef FARVISOR_FAULT_INTERNAL_H
#define FARVISOR_FAULT_INTERNAL_H

#include "fault/fault.h"

#include <pthread.h>
#include <stdatomic.h>

/* A block is 2 MiB: one leaf table, one slab of the memory node, one stop of the clock's hand. */
#define BLOCK_SHIFT 9
#define BLOCK_PAGES (1u << BLOCK_SHIFT)

#define WINDOW_MAX_PAGES 64u  /* most pages one fault fetches */
#define FILL_MAX_PAGES   256u /* most pages one first touch fills */
#define LANES_MAX        16u
#define BLOCK_LOCKS      64u
#define CONTEXTS_MAX     (FV_VCPU_MAX + 64u)

_Static_assert(BLOCK_PAGES == RDMA_SLAB_PAGES, "a block's copies live in one slab");

struct block {
    atomic_uint existing;   /* pages not ABSENT, and claims about to be made by every thread */
    atomic_ushort resident; /* pages that hold a frame */
    atomic_ushort copies;   /* remote copies, plus write-backs under way; under its block lock */
    atomic_uchar queued;    /* is in the clock's ring */
    atomic_uchar reserved;  /* the memory node holds a slab for it; under its block lock */
};
_Static_assert(sizeof(struct block) == 12, "12 bytes for 2 MiB");

/* A queue to the memory node with its landing buffer; shared when there are more threads than
 * lanes. */
struct lane {
    pthread_mutex_t lock;
    struct rdma_queue *queue; /* made when first used */
    uint8_t *buffer;          /* WINDOW_MAX_PAGES pages */
};

/* Counters of one context: written by its thread alone, read by anyone. */
struct tally {
    _Atomic uint64_t faults, spurious, zero_filled, file_filled, demand_fetches, prefetched;
    _Atomic uint64_t discarded, frame_waits, rescued;
    struct fault_histogram fault_ns, fetch_ns, install_ns;
};

/*
 * Sequences that a thread follows at once (merge passes, several arrays): each is known by the page
 * it is expected to touch next, and its window doubles while it does.
 */
#define STREAMS 8u
struct streams {
    struct {
        uint64_t next;   /* page after the last run */
        uint32_t window; /* pages */
        uint32_t used;   /* turn of its last use, for replacement */
    } of[STREAMS];
    uint32_t turn;
};

struct fault_context {
    struct fault_engine *engine;
    uint32_t index;
    atomic_bool inside;  /* the vCPU is in KVM_RUN ... */
    atomic_uint entered; /* ... since this epoch */
    struct streams fills, fetches;
    struct tally tally;
};

struct reclaimer;

struct fault_engine {
    struct fault_config config;
    struct ept *ept;
    ept_word_t *words;
    struct block *blocks; /* indexed by page >> BLOCK_SHIFT */
    uint64_t span_pages;
    bool paged;

    _Atomic uint64_t resident_pages, resident_peak, existing_pages, existing_peak;
    uint64_t low_free_pages, high_free_pages; /* reclaim starts below low, stops above high */
    atomic_uint frames_sequence;              /* futex: bumped when frames became free */
    atomic_uint reclaim_wanted;               /* futex: bumped to wake the reclaimer */

    /* Number of the next batch of evictions; see fault_epoch_passed. */
    atomic_uint epoch;

    atomic_int error; /* sticky -errno of far memory */
    int error_fd;     /* eventfd: written with the first error */
    struct lane lanes[LANES_MAX];
    pthread_mutex_t block_locks[BLOCK_LOCKS];

    pthread_mutex_t context_lock;
    struct fault_context *contexts[CONTEXTS_MAX];
    atomic_uint context_count;
    struct tally retired; /* of contexts that are gone; under context_lock */

    struct reclaimer *reclaimer;
    struct event_threads *events;

    _Atomic uint64_t evicted, evicted_clean, evicted_zero, rescued;
};

static inline void tally_add(_Atomic uint64_t *counter, uint64_t n)
{
    /* One writer: a plain add, only made atomic for the reader. */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static inline struct block *block_of(struct fault_engine *engine, uint64_t page)
{
    return &engine->blocks[page >> BLOCK_SHIFT];
}

static inline pthread_mutex_t *block_lock(struct fault_engine *engine, uint64_t page)
{
    return &engine->block_locks[(page >> BLOCK_SHIFT) % BLOCK_LOCKS];
}

/* ---- engine.c ---- */
int fault_fail(struct fault_engine *engine, int error); /* remembers the first; returns it */
void fault_histogram_add(struct fault_histogram *histogram, uint64_t ns);
/* Has every vCPU left KVM_RUN since the batch of evictions `epoch`? */
bool fault_epoch_passed(struct fault_engine *engine, uint32_t epoch);

/* ---- word.c: waiting for and settling page words ---- */
/* Leaves a busy state that the caller owns; wakes whoever waited. */
void word_settle(ept_word_t *word, uint64_t value);
void word_wake(ept_word_t *word);
/*
 * How long a caller is still ready to wait. Only time spent awake counts, in slices, so that a VMM
 * that was stopped for an hour (SIGSTOP, Ctrl-Z) has not waited for an hour.
 */
struct patience {
    uint64_t left_ns;
};
#define PATIENCE_SLICE_NS 100000000u
/* Charges what passed since start_ns, at most a slice. 0, or -ETIMEDOUT when it is used up. */
int patience_spend(struct patience *patience, uint64_t start_ns);

/* Sleeps at most a slice, or until *word differs from `seen`. 0, or -ETIMEDOUT at the end of
 * patience. */
int word_wait(ept_word_t *word, uint64_t seen, struct patience *patience);
/* Futex on a plain counter. */
void counter_wake(atomic_uint *counter);
int counter_wait(atomic_uint *counter, unsigned seen, uint64_t timeout_ns);

/* ---- frames.c: the residency bound and the quota ---- */
/* Takes between 1 and `want` frames within the bound, waiting for the first. Count or -errno. */
int64_t frames_take(struct fault_context *context, uint64_t want, bool optional);
void frames_give(struct fault_engine *engine, uint64_t count);
/* Like frames_take for the quota on existing pages; never waits. */
int64_t quota_take(struct fault_engine *engine, uint64_t want);
void quota_give(struct fault_engine *engine, uint64_t count);
uint64_t frames_free(const struct fault_engine *engine);

/* ---- copies.c: which blocks have remote memory ---- */
/* A write-back of pages of this block begins: its slab exists until the matching copies_settle. */
int copies_begin(struct fault_engine *engine, uint64_t page);
/* `change` copies more or less; ends a copies_begin if `began`. Frees the slab with its last copy.
 */
void copies_settle(struct fault_engine *engine, uint64_t page, int change, bool began);

/* ---- streams.c ---- */
/* The stream that a touch of `page` continues, its window doubled up to `max`; or a new one of
 * `first`. */
unsigned streams_find(struct streams *streams, uint64_t page, uint32_t first, uint32_t max,
                      bool skips);

/* ---- resolve.c ---- */
int lane_fetch(struct fault_context *context, uint64_t page, uint32_t pages, void **data,
               struct lane **held);

/* ---- reclaim.c ---- */
int reclaimer_start(struct fault_engine *engine);
void reclaimer_stop(struct fault_engine *engine);
void reclaimer_block_resident(struct fault_engine *engine, uint64_t page);

/* ---- evict.c ---- */
struct evictor;
int evictor_create(struct fault_engine *engine, struct evictor **out);
void evictor_destroy(struct evictor *evictor);
/* Evicts those of the block's candidate pages (bitmap) that still may go. Pages freed, or -errno.
 */
int64_t evictor_run(struct evictor *evictor, uint64_t first_page, const uint64_t candidates[8]);

/* ---- events.c ---- */
void fault_events_stop(struct fault_engine *engine);

#endif
