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
 *   free -> busy (posted) -> landing (completion taken, lock released) -> free
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

#define LANES        64u
#define LANE_FLIGHTS 16u
#define LANE_MARKERS 16u
#define FLIGHT_PAGES PREFETCH_RUN_PAGES
#define BUFFERS_MAX  64u /* of FLIGHT_PAGES pages, all lanes together: 16 MiB */
#define MARKER_NONE  UINT64_MAX

struct fault_engine;
struct fault_context;
struct patience;

struct flight {
    uint64_t page;
    uint32_t pages;
    bool busy, landing, write;
    uint64_t posted_ns;
    uint8_t *buffer;
};

struct lane {
    unsigned index;

    pthread_mutex_t demand_lock; /* the two below */
    struct rdma_queue *demand;   /* made when first used */
    uint8_t *demand_buffer;      /* one page */

    pthread_mutex_t lock; /* everything below; released while a flight lands */
    struct rdma_queue *prefetch;
    bool refused; /* it could not be made, and is not tried again */
    struct flight flights[LANE_FLIGHTS];
    unsigned in_flight;
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

/* Reads one page on the demand queue into demand_buffer. Caller holds demand_lock for both. */
int lane_demand_post(struct fault_engine *engine, struct lane *lane, uint64_t page);
int lane_demand_wait(struct lane *lane, uint64_t page, struct patience *patience);

/* ---- caller holds lane->lock; lane_land releases it in between ---- */

/* Asks the prefetcher what a touch calls for, and starts it. */
void lane_touched(struct fault_engine *engine, struct lane *lane, uint64_t page,
                  enum prefetch_cause cause, bool write);
/* Starts fetching those of the pages that are remote. Pages passed, fewer than `pages` when there
 * are no frames, buffers or queue slots left. *marker (if not NULL and MARKER_NONE): a page near
 * the first one started that can tell whether it was touched. */
uint64_t lane_fetch(struct fault_engine *engine, struct lane *lane, uint64_t page, uint64_t pages,
                    bool write, uint64_t *marker);
/* Lands at most `most` flights that have arrived, waiting at most timeout_ns for the first. Flights
 * landed, or -errno. */
int lane_land(struct fault_engine *engine, struct lane *lane, unsigned most, uint64_t timeout_ns);
/* Follows markers that were reached. True if any was. */
bool lane_follow(struct fault_engine *engine, struct lane *lane);
/* Sees to it that `page`, in flight on this lane, lands. 0 or -errno. Takes the lock itself. */
int lane_help(struct fault_engine *engine, struct lane *lane, uint64_t page,
              struct patience *patience);

#endif
