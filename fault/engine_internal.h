/* SPDX-License-Identifier: Apache-2.0 */
/* Private to fault/: the engine's state and what its files offer each other. */
#ifndef FARVISOR_FAULT_INTERNAL_H
#define FARVISOR_FAULT_INTERNAL_H

#include "farvisor/hints.h"
#include "fault/clock.h"
#include "fault/fault.h"
#include "fault/lane.h"
#include "fault/prefetch.h"
#include "fault/probes.h"
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>

#define FILL_MAX_PAGES  256u /* most pages one first touch fills */
#define LIVE_UNIT_BYTES ((unsigned)FV_HEAP_UNIT_BYTES)
#define BLOCK_LOCKS     64u
#define CONTEXTS_MAX    (FV_VCPU_MAX + 64u)
#define SAMPLE_PAGES    8u /* one page in so many tells whether prefetches are used */
#define SAMPLE_HISTORY  64 /* ... averaged over about so many */
#define RECLAIMERS_MAX  4u

_Static_assert(BLOCK_PAGES == RDMA_SLAB_PAGES, "a block's copies live in one slab");

/* Counters of one context: written by its thread alone, read by anyone. */
struct tally {
    _Atomic uint64_t faults, spurious, zero_filled, file_filled, demand_fetches;
    _Atomic uint64_t discarded, frame_waits, late_hits;
    struct fault_histogram fault_ns, fetch_ns, install_ns;
};

/*
 * First touches that follow each other: each sequence is known by the page it is expected to touch
 * next, and its window doubles while it does.
 */
#define FILL_STREAMS 8u
struct streams {
    struct {
        uint64_t next;   /* page after the last run */
        uint32_t window; /* pages */
        uint32_t used;   /* turn of its last use, for replacement */
    } of[FILL_STREAMS];
    uint32_t turn;
};

/* What was around a page when its miss began (arrivals.c). */
struct arrivals {
    uint64_t page;
    bool above, below; /* its neighbour there was not here */
    bool filled;       /* it is a first touch */
};

struct fault_context {
    struct fault_engine *engine;
    uint32_t index;
    uint32_t lane; /* which lane its fetches use; uffd mode: by faulting thread */
    struct streams fills;
    struct arrivals arrivals;
    struct looker *looker; /* peek.c; NULL until something was looked at */
    struct {
        uint64_t page; /* PAGE_NONE: none */
        uint64_t start_ns, seen;
        bool write, learnt; /* learnt: the prefetcher knows of it */
    } open;                 /* open.c */
    struct tally tally;
};

/* Where a vCPU is. Lives as long as the engine, so that nobody needs a lock to look at all. */
struct whereabouts {
    atomic_bool inside;  /* in KVM_RUN ... */
    atomic_uint entered; /* ... since this epoch */
    atomic_int tid;
} __attribute__((aligned(64))); /* written at every exit: a cache line of its own */

struct reclaimer;
struct lander;

/* Where the guest's allocator keeps what lives in its heap; set once (live.c). */
struct live_map {
    _Atomic uint64_t claimed; /* somebody has set it; never cleared */
    _Atomic uint64_t pages;   /* of the heap, 0: none (any more); written last */
    uint64_t first_page;
    gpa_t map;
};

struct fault_engine {
    struct fault_config config;
    struct ept *ept;
    ept_word_t *words;
    struct block *blocks;        /* indexed by page >> BLOCK_SHIFT */
    _Atomic uint16_t *host_pins; /* indexed by page: pins of what the host kernel fills (pin.c) */
    uint64_t span_pages;
    bool paged;

    _Atomic uint64_t resident_pages, resident_peak, existing_pages, existing_peak;
    uint64_t low_free_pages, high_free_pages;       /* reclaim starts below low, stops above high */
    atomic_uint frames_sequence;                    /* futex: bumped when frames became free */
    atomic_uint reclaim_wanted;                     /* futex: bumped to wake a reclaimer */
    _Atomic uint64_t admitted_pages, admitted_peak; /* that requests may pin */
    atomic_uint admit_sequence;                     /* futex: bumped when fewer are admitted ... */
    atomic_uint admit_waiting;                      /* ... while somebody waits for that */

    struct clock clock;
    atomic_uint departures; /* evictions that made pages REMOTE: the last number given */
    struct live_map live;

    atomic_int error; /* sticky -errno of far memory */
    int error_fd;     /* eventfd: written with the first error */
    const struct prefetcher *prefetcher;
    struct lane lanes[LANES];
    struct buffers buffers;
    _Atomic uint64_t lanes_busy; /* bit a lane: it has flights or markers for the lander */
    struct lander *lander;
    pthread_mutex_t block_locks[BLOCK_LOCKS];

    pthread_mutex_t context_lock;
    struct whereabouts whereabouts[CONTEXTS_MAX]; /* by context index */
    struct fault_context *contexts[CONTEXTS_MAX];
    atomic_uint context_count;
    struct tally retired; /* of contexts that are gone; under context_lock */

    struct reclaimer *reclaimer;
    struct event_threads *events;

    _Atomic uint64_t evicted_dead, unwritten_bytes, unread_bytes; /* live.c's savings */
    _Atomic uint64_t evicted_clean, evicted_zero, rescued, prefetched, refaults, distrusted;
    _Atomic uint64_t samples_used, samples_wasted;
    atomic_uint accuracy; /* of recent samples, in 1/65536 */
};

static inline void tally_add(_Atomic uint64_t *counter, uint64_t n)
{
    /* One writer: a plain add, only made atomic for the reader. */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

/*
 * Who brings a page that is FETCHING: 0: a thread that waits for it; up to LANES: a flight of lane
 * number - 1; above: the open demand of lane number - LANES - 1.
 */
static inline unsigned word_lane(uint64_t word)
{
    return ept_word_state(word) == EPT_FETCHING
               ? (unsigned)((word & EPT_PIN_MASK) >> EPT_LANE_SHIFT)
               : 0;
}

static inline bool word_in_flight(uint64_t word)
{
    return word_lane(word) > 0 && word_lane(word) <= LANES;
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
/* Remembers the first error, wakes the watchdog, and says why unless somebody did; returns it. */
int fault_fail(struct fault_engine *engine, int error);
int fault_fail_told(struct fault_engine *engine, int error); /* the caller has printed a message */
/* Has every vCPU left KVM_RUN since the batch of evictions `epoch`? */
bool fault_epoch_passed(struct fault_engine *engine, uint32_t epoch);

/* ---- counters.c ---- */
void fault_histogram_add(struct fault_histogram *histogram, uint64_t ns);
void tally_merge(struct tally *to, struct tally *from);
/* A page fetched unasked leaves, or was looked at: was it used? Only sampled pages can tell. */
void sample_take(struct fault_engine *engine, uint64_t page);

/* ---- word.c: waiting for and settling page words ---- */
/* Leaves a busy state that the caller owns; wakes whoever waited. */
void word_settle(ept_word_t *word, uint64_t value);
void word_wake(ept_word_t *word);
/*
 * One for everything that one page needs, so that a chain of waits (for a frame, for the read, for
 * another thread) is bounded as one wait is. It is twice the timeout: the queues and the control
 * connection give a node that does not answer up after one, and say so, which ends every wait. A
 * demand read, once posted, has one of its own: a late frame is not the node's fault
 * (lane_demand_wait).
 */
#define PATIENCE_SLICE_NS 100000000u
struct patience patience_begin(const struct fault_engine *engine);

/* Sleeps at most a slice, or until *word differs from `seen`. 0, or -ETIMEDOUT at the end of
 * patience. */
int word_wait(ept_word_t *word, uint64_t seen, struct patience *patience);
/* Likewise for a page in any busy state; lands the page itself if it is on its way. */
int page_wait(struct fault_engine *engine, uint64_t page, uint64_t seen, struct patience *patience);
/* Futex on a plain counter. */
void counter_wake(atomic_uint *counter);
int counter_wait(atomic_uint *counter, unsigned seen, uint64_t timeout_ns);

/* ---- run.c: consecutive pages in one state ---- */
/* LOCAL, REMOTE or ABSENT to a busy state; `lane` as in EPT_LANE_SHIFT. Pages claimed. */
uint64_t run_claim(struct fault_engine *engine, uint64_t page, uint64_t want, enum ept_state from,
                   enum ept_state to, unsigned lane);
void run_release(struct fault_engine *engine, uint64_t page, uint64_t pages, enum ept_state to);
/* Counts pages as existing (or no more). */
void run_existing(struct fault_engine *engine, uint64_t page, uint64_t pages, int sign);
/* Puts pages about to settle in the clock's hands. `active`: 1 if the first will be ACTIVE. */
void run_resident(struct fault_engine *engine, uint64_t page, uint64_t pages, unsigned active);
/* Marks those pages whose D bit cannot be trusted. */
void run_distrust(struct fault_engine *engine, uint64_t page, uint64_t pages);
int install_failed(struct fault_engine *engine, uint64_t page, int error);
/* A fetched run whose bytes are in `data`: FETCHING -> LOCAL. 0 or -errno, claims kept then. */
int run_land(struct fault_engine *engine, uint64_t page, uint64_t pages, const void *data,
             bool write, bool prefetched);

/* ---- live.c: what of a page travels ---- */
#define LIVE_SEGMENTS 3u
struct live_page {
    unsigned count; /* segments, in order; 0: nothing on the page lives */
    uint32_t bytes; /* in all */
    struct {
        uint16_t start, bytes;
    } of[LIVE_SEGMENTS];
};
/* The caller has the page in EVICTING, protected, or in FETCHING. In doubt all of it. */
void live_page_read(struct fault_engine *engine, uint64_t page, struct live_page *out);
/* The part of it that only computes: a bit for each 16 bytes. */
void live_segments(const uint64_t bits[4], struct live_page *out);
/* Advice only: nothing lives on the page, for all that is known. */
bool live_none(struct fault_engine *engine, uint64_t page);
/* Reads of what lives of a claimed run, each to its place in `to`, whose rest is zeroed; at most
 * `most` > 0 of them, so where few are left, of whole pages. How many; 0: nothing to be read. */
unsigned live_reads(struct fault_engine *engine, uint64_t page, uint64_t pages, uint8_t *to,
                    uint64_t cookie, struct rdma_request requests[], unsigned most);
/* The program gave these addresses up: if the heap or its map was there, it is forgotten. */
void live_unmapped(struct fault_engine *engine, uint64_t page, uint64_t pages);

/* ---- open.c; caller holds lane->demand_lock for the first two ---- */
/* Takes what has arrived of the lane's open demand within timeout_ns. 1: none is open (any more);
 * 0: it is still out; -errno. */
int lane_open_step(struct fault_engine *engine, struct lane *lane, uint64_t timeout_ns);
/* Waits for it: its queue and buffer are wanted. 0 or -errno. */
int lane_open_settle(struct fault_engine *engine, struct lane *lane, struct patience *patience);
/* If it is this page: lands it, or waits for a slice; else sleeps on its word, `seen` last. 0 or
 * -errno. Takes the lock itself. */
int lane_open_help(struct fault_engine *engine, struct lane *lane, uint64_t page, uint64_t seen,
                   struct patience *patience);
/* If it has arrived and nobody is at it: lands it. Takes the lock itself. */
bool lane_open_look(struct fault_engine *engine, struct lane *lane);

/* ---- pin.c ---- */
/* 0: pinned; 1: not resident now; -EBUSY: too many pins. */
int pin_try(ept_word_t *word, bool write);

/* ---- peek.c ---- */
/* Waits for what is in flight; the context's thread is gone or is the caller. */
void looker_destroy(struct fault_context *context);

/* ---- resolve.c ---- */
/* As fault_resolve; `rescue`: the page may not leave, though it could be read meanwhile. */
int page_resolve(struct fault_context *context, uint64_t page, bool write, bool rescue,
                 struct patience *patience);

/* ---- arrivals.c ---- */
void arrivals_begin(struct fault_context *context, uint64_t page); /* a page within the span */

/* ---- fetch.c, fill.c: one miss; 0, -EAGAIN (look again) or -errno; fill: 1 not ours ---- */
int fault_fetch(struct fault_context *context, uint64_t page, bool write,
                struct patience *patience);
int fault_fill(struct fault_context *context, uint64_t page, struct patience *patience);
/* Tells the prefetcher of a miss unless somebody is at the lane. Returns whether it did. */
bool fault_touched_try(struct fault_context *context, uint64_t page, bool write);
void fault_touched(struct fault_context *context, uint64_t page, bool write);
/* Tells the prefetcher of a touch that found its page in flight. */
void fault_touched_late(struct fault_context *context, uint64_t page, bool write);

/* ---- frames.c: the residency bound and the quota ---- */
/* Takes between 1 and `want` frames within the bound, waiting for the first. Count or -errno;
 * -EBUSY: none became free. */
int64_t frames_take(struct fault_context *context, uint64_t want, struct patience *patience);
/* Takes what is free beyond the reserve for demand faults, perhaps nothing. */
uint64_t frames_take_optional(struct fault_engine *engine, uint64_t want);
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
unsigned streams_find(struct streams *streams, uint64_t page, uint32_t first, uint32_t max);

/* ---- lander.c ---- */
int lander_start(struct fault_engine *engine);
void lander_stop(struct fault_engine *engine);
void lander_wake(struct fault_engine *engine);

/* ---- reclaim.c ---- */
int reclaimer_start(struct fault_engine *engine);
void reclaimer_stop(struct fault_engine *engine);

/* ---- writer.c: write-backs of one block at a time ---- */
struct writer {
    struct fault_engine *engine;
    struct rdma_queue *queue;
    uint8_t *buffer; /* one block, for transports that cannot send guest memory */
    uint64_t first;  /* block's first page */
    unsigned inflight;
    uint32_t start, bytes; /* what is to be written next, in the block; 0 bytes: nothing */
};
/* 0 or -errno; writer_destroy in any case. Of a zeroed struct. */
int writer_create(struct writer *writer, struct fault_engine *engine);
void writer_destroy(struct writer *writer);
void writer_begin(struct writer *writer, uint64_t first_page);
/* Bytes of the block to be written, in ascending order. They stay as they are until the end. */
int writer_add(struct writer *writer, uint32_t start, uint32_t bytes);
/* Posts what was added last. */
int writer_flush(struct writer *writer);
/* Waits for all of them. */
int writer_finish(struct writer *writer);

/* ---- evict.c ---- */
struct evictor;
int evictor_create(struct fault_engine *engine, struct evictor **out);
void evictor_destroy(struct evictor *evictor);
/*
 * Starts to evict those of the block's candidate pages (bitmap) that still may go: claimed,
 * protected, their write-backs posted. Pages claimed (0: nothing to finish), or -errno.
 */
int64_t evictor_begin(struct evictor *evictor, uint64_t first_page, const uint64_t candidates[8]);
/* Waits for the write-backs and frees the pages. Pages freed, or -errno. */
int64_t evictor_finish(struct evictor *evictor);

/* ---- events.c ---- */
void fault_events_stop(struct fault_engine *engine);

#endif
