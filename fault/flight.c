/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flights: reads of several runs of pages, or of what lives of them, that are posted together and
 * land together (lane.h has their states and who may do what). Runs in the thread that faulted, the
 * hint thread or the lander.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>

#define BUFFER_BYTES   ((size_t)FLIGHT_PAGES * EPT_PAGE_BYTES)
#define FLIGHTS_STEADY 4u /* under way: then a run that gets few frames rather waits for more */

/* ---- landing buffers ---- */

void buffers_create(struct fault_engine *engine)
{
    /* What is in flight already counts as resident: at most a quarter of it may be. */
    uint64_t most = engine->config.local_pages / (4 * FLIGHT_PAGES);
    engine->buffers.most = most < BUFFERS_MAX ? (unsigned)most : BUFFERS_MAX;
    pthread_mutex_init(&engine->buffers.lock, NULL);
}

void buffers_destroy(struct fault_engine *engine)
{
    struct rdma_node *node = engine->config.node;
    for (unsigned i = 0; i < LANES * LANE_FLIGHTS; i++) {
        struct flight *flight = &engine->lanes[i / LANE_FLIGHTS].flights[i % LANE_FLIGHTS];
        if (flight->busy)
            rdma_buffer_free(node, flight->buffer, BUFFER_BYTES);
    }
    for (unsigned i = 0; i < engine->buffers.free_count; i++)
        rdma_buffer_free(node, engine->buffers.free[i], BUFFER_BYTES);
    pthread_mutex_destroy(&engine->buffers.lock);
}

static uint8_t *buffer_get(struct fault_engine *engine)
{
    struct buffers *buffers = &engine->buffers;
    void *buffer = NULL;
    pthread_mutex_lock(&buffers->lock);
    if (buffers->free_count)
        buffer = buffers->free[--buffers->free_count];
    else if (buffers->made < buffers->most &&
             rdma_buffer_alloc(engine->config.node, BUFFER_BYTES, &buffer) == 0)
        buffers->made++;
    pthread_mutex_unlock(&buffers->lock);
    return buffer;
}

static void buffer_put(struct fault_engine *engine, uint8_t *buffer)
{
    pthread_mutex_lock(&engine->buffers.lock);
    engine->buffers.free[engine->buffers.free_count++] = buffer;
    pthread_mutex_unlock(&engine->buffers.lock);
}

/* ---- gathering ---- */

/* A lane without a second queue, because the node or the device has no more, only fetches less. */
static int prefetch_open(struct fault_engine *engine, struct lane *lane)
{
    if (lane->prefetch)
        return 0;
    if (!lane->refused && rdma_queue_create(engine->config.node, RDMA_QUEUE_PREFETCH,
                                            LANE_FLIGHTS * FLIGHT_REQUESTS, &lane->prefetch) == 0)
        return 0;
    lane->refused = true;
    return -EAGAIN;
}

/*
 * An empty flight to gather, or NULL: as much is in flight as may be, or the lane has no queue.
 * What is gathered can be posted then, unless the transport is too busy.
 */
static struct flight *flight_begin(struct fault_engine *engine, struct lane *lane, bool write)
{
    if (lane->in_flight == LANE_FLIGHTS || lane->refused)
        return NULL;
    struct flight *flight = lane->flights;
    while (flight->busy)
        flight++;
    uint8_t *buffer = buffer_get(engine);
    if (!buffer)
        return NULL;
    if (prefetch_open(engine, lane)) {
        buffer_put(engine, buffer);
        return NULL;
    }
    *flight = (struct flight){.busy = true, .write = write, .buffer = buffer};
    lane->in_flight++;
    lane->gathering = flight;
    atomic_fetch_or(&engine->lanes_busy, 1ULL << lane->index);
    return flight;
}

static void flight_end(struct fault_engine *engine, struct lane *lane, struct flight *flight)
{
    buffer_put(engine, flight->buffer);
    flight->busy = flight->landing = false;
    lane->in_flight--;
}

/* Gives up the pages of the pieces from `first` on. */
static void flight_release(struct fault_engine *engine, const struct flight *flight, uint32_t first)
{
    for (uint32_t i = first; i < flight->count; i++) {
        const struct piece *piece = &flight->pieces[i];
        run_release(engine, piece->page, piece->pages, EPT_REMOTE);
        frames_give(engine, piece->pages);
    }
}

/* Pages of [page, page + most) that are remote, claimed with frames. How many. */
static uint64_t flight_claim(struct fault_engine *engine, const struct lane *lane, uint64_t page,
                             uint64_t most)
{
    uint64_t frames = frames_take_optional(engine, most);
    /* Frames come back in batches: crumbs of a run would each cost a read and an install. */
    if (frames < most / 4 && lane->in_flight > FLIGHTS_STEADY) {
        frames_give(engine, frames);
        return 0;
    }
    uint64_t got = run_claim(engine, page, frames, EPT_REMOTE, EPT_FETCHING, lane->index + 1);
    frames_give(engine, frames - got);
    return got;
}

uint64_t flight_gather(struct fault_engine *engine, struct lane *lane, uint64_t page, uint64_t most,
                       bool write)
{
    uint64_t to_block_end = BLOCK_PAGES - page % BLOCK_PAGES;
    most = most < to_block_end ? most : to_block_end;
    most = most < FLIGHT_PAGES ? most : FLIGHT_PAGES;
    struct flight *flight = lane->gathering;
    if (flight && (flight->write != write || most > FLIGHT_PAGES - flight->pages))
        flight_send(engine, lane);
    flight = lane->gathering ? lane->gathering : flight_begin(engine, lane, write);
    if (!flight)
        return 0;
    uint64_t got = flight_claim(engine, lane, page, most);
    if (got) {
        flight->pieces[flight->count++] = (struct piece){.page = page, .pages = (uint32_t)got};
        flight->pages += (uint32_t)got;
    } else if (!flight->count) {
        lane->gathering = NULL;
        flight_end(engine, lane, flight);
    }
    if (flight->count == FLIGHT_PIECES || flight->pages == FLIGHT_PAGES)
        flight_send(engine, lane);
    return got;
}

/* ---- posting ---- */

/*
 * The reads of a flight, those of a piece behind each other; ends[i]: how many up to the end of
 * piece i. Its pages are claimed: only now may be asked what lives of them. How many, at least 1.
 */
static uint32_t flight_reads(struct fault_engine *engine, const struct lane *lane,
                             const struct flight *flight, struct rdma_request requests[],
                             uint32_t ends[])
{
    uint64_t cookie = (uint64_t)(flight - lane->flights);
    uint8_t *to = flight->buffer;
    uint32_t count = 0;
    for (uint32_t i = 0; i < flight->count; i++) {
        const struct piece *piece = &flight->pieces[i];
        uint32_t behind = flight->count - i - 1; /* pieces, which need one each */
        count += live_reads(engine, piece->page, piece->pages, to, cookie, requests + count,
                            FLIGHT_REQUESTS - behind - count);
        ends[i] = count;
        to += (size_t)piece->pages * EPT_PAGE_BYTES;
    }
    if (count)
        return count;
    /* The last object of all of it was freed just now: something has to arrive. */
    requests[0] = (struct rdma_request){.op = RDMA_READ,
                                        .page = flight->pieces[0].page,
                                        .local = flight->buffer,
                                        .cookie = cookie,
                                        .bytes = LIVE_UNIT_BYTES};
    ends[flight->count - 1] = 1;
    return 1;
}

/*
 * What the queue did not take is given up. Not so a piece of which it took some reads and others
 * not: until those have ended it stays claimed, else its slab could be given back under them.
 */
static void flight_posted(struct fault_engine *engine, struct lane *lane, struct flight *flight,
                          uint32_t posted, const uint32_t ends[])
{
    uint32_t whole = 0, sent = 0;
    for (; posted && whole < flight->count && ends[whole] <= posted; whole++) {
        probe_fetch_ahead(lane->index, flight->pieces[whole].page, flight->pieces[whole].pages);
        sent += flight->pieces[whole].pages;
    }
    atomic_fetch_add_explicit(&engine->prefetched, sent, memory_order_relaxed);
    lane->unsent_pages += flight->pages - sent;
    bool torn = whole < flight->count && posted > (whole ? ends[whole - 1] : 0);
    flight->whole = whole;
    flight->waiting = posted;
    flight_release(engine, flight, whole + torn);
    flight->count = whole + torn;
}

void flight_send(struct fault_engine *engine, struct lane *lane)
{
    struct flight *flight = lane->gathering;
    struct rdma_request requests[FLIGHT_REQUESTS];
    uint32_t ends[FLIGHT_PIECES];
    if (!flight)
        return;
    lane->gathering = NULL;
    int posted = rdma_queue_post(lane->prefetch, requests,
                                 flight_reads(engine, lane, flight, requests, ends));
    flight->posted_ns = clock_now_ns();
    flight_posted(engine, lane, flight, posted > 0 ? (uint32_t)posted : 0, ends);
    if (!flight->waiting)
        flight_end(engine, lane, flight);
    if (posted < 0 && posted != -EAGAIN)
        fault_fail(engine, posted);
}

/* ---- landing ---- */

/*
 * Installs a flight's pages with the lane's lock released: the lander, the thread itself and
 * whoever helps each land another flight at the same time. Nobody else touches this one meanwhile:
 * its completions were taken, its pages are in no state that others may leave, and it stays busy.
 */
static void flight_land(struct fault_engine *engine, struct lane *lane, struct flight *flight)
{
    const uint8_t *from = flight->buffer;
    uint32_t landed = 0;
    int error = flight->status;
    fault_histogram_add(&lane->flight_ns, clock_now_ns() - flight->posted_ns);
    pthread_mutex_unlock(&lane->lock);
    while (!error && landed < flight->whole) {
        const struct piece *piece = &flight->pieces[landed];
        error = run_land(engine, piece->page, piece->pages, from, flight->write, true);
        if (error)
            break;
        from += (size_t)piece->pages * EPT_PAGE_BYTES;
        landed++;
    }
    flight_release(engine, flight, landed);
    if (error)
        fault_fail(engine, error);
    pthread_mutex_lock(&lane->lock);
    flight_end(engine, lane, flight);
}

/* Reads of the flight posted first that are still out: transfers mostly end in order. */
static uint32_t flight_first_waiting(const struct lane *lane)
{
    const struct flight *first = NULL;
    for (unsigned i = 0; i < LANE_FLIGHTS; i++) {
        const struct flight *flight = &lane->flights[i];
        if (flight->busy && flight->waiting && (!first || flight->posted_ns < first->posted_ns))
            first = flight;
    }
    return first ? first->waiting : 1;
}

/* Takes completions and lands what is complete with them; flights landed, or what poll said. */
static int lane_land_some(struct fault_engine *engine, struct lane *lane, uint64_t timeout_ns)
{
    struct rdma_completion done[FLIGHT_REQUESTS];
    struct flight *complete[FLIGHT_REQUESTS];
    int landed = 0;
    /* No more than one flight as a rule: what is not taken yet is there for others to land. */
    int got = rdma_queue_poll(lane->prefetch, done, flight_first_waiting(lane), timeout_ns);
    for (int i = 0; i < got; i++) {
        struct flight *flight = &lane->flights[done[i].cookie];
        if (done[i].status && !flight->status)
            flight->status = done[i].status;
        if (--flight->waiting)
            continue;
        flight->landing = true; /* before the lock is released for another */
        complete[landed++] = flight;
    }
    for (int i = 0; i < landed; i++)
        flight_land(engine, lane, complete[i]);
    return got < 0 ? got : got == 0 ? -EAGAIN : landed;
}

int lane_land(struct fault_engine *engine, struct lane *lane, unsigned most, uint64_t timeout_ns)
{
    unsigned landed = 0;
    int got = 0;
    flight_send(engine, lane);
    /* Waits once: a node whose reads trickle in could hold the lane for as long as it pleases. */
    while (landed < most && lane->in_flight) {
        got = lane_land_some(engine, lane, timeout_ns);
        if (got < 0)
            break;
        landed += (unsigned)got;
        timeout_ns = 0;
    }
    int error = fault_engine_error(engine);
    return got < 0 && got != -EAGAIN ? fault_fail(engine, got) : error ? error : (int)landed;
}

static bool flight_has(const struct flight *flight, uint64_t page)
{
    for (uint32_t i = 0; i < flight->count; i++)
        if (page - flight->pieces[i].page < flight->pieces[i].pages)
            return true;
    return false;
}

static bool on_lane(const struct lane *lane, uint64_t word)
{
    return ept_word_state(word) == EPT_FETCHING &&
           (word & EPT_PIN_MASK) >> EPT_LANE_SHIFT == lane->index + 1;
}

static bool is_landing(const struct lane *lane, uint64_t page)
{
    for (unsigned i = 0; i < LANE_FLIGHTS; i++) {
        const struct flight *flight = &lane->flights[i];
        if (flight->busy && flight->landing && flight_has(flight, page))
            return true;
    }
    return false;
}

int lane_help(struct fault_engine *engine, struct lane *lane, uint64_t page,
              struct patience *patience)
{
    ept_word_t *word = &engine->words[page];
    uint64_t seen;
    int error = 0;
    pthread_mutex_lock(&lane->lock);
    while (!error && on_lane(lane, seen = atomic_load(word))) {
        if (is_landing(lane, page)) {
            /* Somebody is at it: the word tells when it is done. */
            pthread_mutex_unlock(&lane->lock);
            error = word_wait(word, seen, patience);
            pthread_mutex_lock(&lane->lock);
            continue;
        }
        /* Oldest first, and no more than needed: what comes later can land while we go on. */
        int got = lane_land(engine, lane, 1, PATIENCE_SLICE_NS);
        error = got < 0 ? got : patience_spend(patience);
    }
    pthread_mutex_unlock(&lane->lock);
    return error;
}
