/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lane is one thread's way to the memory node: a demand queue, which never waits behind anything,
 * and a prefetch queue with its flights (reads on their way) and what the prefetcher knows of the
 * thread. With more threads than lanes some share one.
 *
 * Who may land a flight (install its pages): whoever takes its completion under the lane's lock.
 * That is the thread itself at its next miss, any thread that needs one of the pages, or the
 * lander, which keeps prefetched pages coming while the program runs without a miss. The installing
 * itself is done without the lock, so several can land different flights at once:
 *
 *   free -> gathering -> posted -> landing (all completions taken, lock released) -> free
 *
 * A flight has several pieces, runs of pages that are not neighbours: their reads are posted
 * together and they land together, so that every eighth page, or what a guide names one by one,
 * costs no more look-ups, locks and wake-ups than a sequence. Its pages are FETCHING from the
 * moment they are gathered; whoever lands on the lane sends first what is still gathered, so nobody
 * can wait for a read that nobody posts. A piece is read whole or, where the guest's allocator says
 * what of it lives (live.c), in several ranges; that is asked when the flight is sent, with all of
 * its pages claimed.
 *
 * A demand is its thread's, which holds demand_lock until it has landed, unless it is open
 * (open.c): then its thread runs a guide's handler with no lock held, and whoever takes demand_lock
 * may land it, and has to before the queue or the buffer is used for anything else.
 */
#ifndef FARVISOR_FAULT_LANE_H
#define FARVISOR_FAULT_LANE_H

#include "fault/fault.h"
#include "fault/prefetch.h"
#include "rdma/rdma.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define LANES           64u
#define LANE_FLIGHTS    16u
#define LANE_MARKERS    16u
#define FLIGHT_PAGES    PREFETCH_RUN_PAGES
#define FLIGHT_PIECES   16u
#define FLIGHT_REQUESTS 32u /* most ranges that its pieces are read in, one or more each */
#define BUFFERS_MAX     64u /* of FLIGHT_PAGES pages, all lanes together: 16 MiB */
#define PAGE_NONE       UINT64_MAX
#define MARKER_NONE     PAGE_NONE

struct fault_engine;
struct fault_context;
struct patience;

struct piece {
    uint64_t page;
    uint32_t pages;
};

struct flight {
    struct piece pieces[FLIGHT_PIECES];
    uint32_t count, pages; /* pieces; pages of all of them, which lie in buffer one by one */
    uint32_t whole;        /* pieces all of whose reads were posted; the others do not land */
    uint32_t waiting;      /* reads that have not ended */
    int status;            /* of the first read that failed, or 0 */
    bool busy, landing, write;
    uint64_t posted_ns;
    uint8_t *buffer;
};

struct lane {
    unsigned index;

    pthread_mutex_t demand_lock; /* the five below */
    struct rdma_queue *demand;   /* made when first used */
    uint8_t *demand_buffer;      /* one page */
    unsigned demand_parts;       /* requests out for it */
    _Atomic uint64_t open_page;  /* posted by a thread that does not wait (open.c), or PAGE_NONE */
    bool open_write;

    pthread_mutex_t lock; /* everything below; released while a flight lands */
    struct rdma_queue *prefetch;
    bool refused; /* it could not be made, and is not tried again */
    struct flight flights[LANE_FLIGHTS];
    struct flight *gathering;       /* not posted yet, or NULL */
    unsigned in_flight;             /* busy ones, with the one being gathered */
    uint32_t unsent_pages;          /* gathered, but the transport took no more: a running count */
    uint64_t markers[LANE_MARKERS]; /* sampled pages: accessed means that more is wanted */
    bool marker_writes[LANE_MARKERS];
    unsigned marker_next;
    uint64_t marker_ns; /* when a marker was set or reached last */
    struct prefetch_state state;
    struct fault_histogram flight_ns; /* from posted to landed */
};

/* Landing buffers of all lanes: made when first needed, used again. */
struct buffers {
    pthread_mutex_t lock;
    uint8_t *free[BUFFERS_MAX];
    unsigned free_count, made, most;
};

int lanes_create(struct fault_engine *engine);
void lanes_destroy(struct fault_engine *engine);

/* demand.c: reads one page on the demand queue into demand_buffer. Caller holds demand_lock for
 * both. */
int lane_demand_post(struct fault_engine *engine, struct lane *lane, uint64_t page,
                     struct patience *patience);
int lane_demand_wait(struct fault_engine *engine, struct lane *lane, uint64_t page,
                     struct patience *patience);

/* ---- flight.c: caller holds lane->lock; lane_land releases it in between ---- */

/*
 * Claims pages of [page, page + most), the first of them REMOTE, for the flight being gathered, or
 * a new one. Pages claimed; 0: no frames or buffers, or somebody was faster.
 */
uint64_t flight_gather(struct fault_engine *engine, struct lane *lane, uint64_t page, uint64_t most,
                       bool write);
/* Posts the flight being gathered, if any; what is not taken is REMOTE again (unsent_pages). */
void flight_send(struct fault_engine *engine, struct lane *lane);
/* Lands at most `most` flights that have arrived (and a few more that came with them), waiting at
 * most timeout_ns for the first read to end; 0 if that ended no flight. Flights landed, or -errno.
 */
int lane_land(struct fault_engine *engine, struct lane *lane, unsigned most, uint64_t timeout_ns);
/* Sees to it that `page`, in flight on this lane, lands. 0 or -errno. Takes the lock itself. */
int lane_help(struct fault_engine *engine, struct lane *lane, uint64_t page,
              struct patience *patience);
void buffers_create(struct fault_engine *engine);
void buffers_destroy(
    struct fault_engine *engine); /* after the last flight; takes its buffers too */

/* ---- lane.c: caller holds lane->lock ---- */

/* Asks the prefetcher what a touch calls for, and starts it. */
void lane_touched(struct fault_engine *engine, struct lane *lane, uint64_t page,
                  enum prefetch_cause cause, bool write);
/* Gathers those of the pages that are remote (flight_send starts the last of them). Pages passed,
 * fewer than `pages` when there are no frames or buffers left; lane_sent says how many of them were
 * not given up again. *marker (if not NULL and MARKER_NONE): a page near the first one started that
 * can tell whether it was touched. */
uint64_t lane_fetch(struct fault_engine *engine, struct lane *lane, uint64_t page, uint64_t pages,
                    bool write, uint64_t *marker);
/* Of `passed` pages, how many remain without what was given up since unsent_pages was `unsent`. */
uint64_t lane_sent(const struct lane *lane, uint32_t unsent, uint64_t passed);
/* Follows markers that were reached. True if any was. */
bool lane_follow(struct fault_engine *engine, struct lane *lane);

#endif
