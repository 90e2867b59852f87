/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes: demand reads, flights, and the landing of flights (lane.h says who may do what). */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>
#include <string.h>

#define DEMAND_DEPTH   4u
#define BUFFER_BYTES   ((size_t)FLIGHT_PAGES * EPT_PAGE_BYTES)
#define AHEAD_MAX      (LANE_FLIGHTS * FLIGHT_PAGES)
#define AHEAD_SHARE    16u      /* most pages ahead of one touch: a sixteenth of the host's share */
#define MARKER_LIFE_NS 5000000u /* without any being reached; then the next miss has to tell */

/* ---- life ---- */

int lanes_create(struct fault_engine *engine)
{
    /* What is in flight already counts as resident: at most a quarter of it may be. */
    uint64_t most = engine->config.local_pages / (4 * FLIGHT_PAGES);
    engine->buffers.most = most < BUFFERS_MAX ? (unsigned)most : BUFFERS_MAX;
    pthread_mutex_init(&engine->buffers.lock, NULL);
    for (unsigned i = 0; i < LANES; i++) {
        struct lane *lane = &engine->lanes[i];
        lane->index = i;
        pthread_mutex_init(&lane->demand_lock, NULL);
        pthread_mutex_init(&lane->lock, NULL);
        for (unsigned j = 0; j < LANE_MARKERS; j++)
            lane->markers[j] = MARKER_NONE;
    }
    return 0;
}

void lanes_destroy(struct fault_engine *engine)
{
    struct rdma_node *node = engine->config.node;
    for (unsigned i = 0; i < LANES; i++) {
        struct lane *lane = &engine->lanes[i];
        rdma_queue_destroy(lane->demand);
        rdma_queue_destroy(lane->prefetch);
        if (lane->demand_buffer)
            rdma_buffer_free(node, lane->demand_buffer, EPT_PAGE_BYTES);
        for (unsigned j = 0; j < LANE_FLIGHTS; j++)
            if (lane->flights[j].busy)
                rdma_buffer_free(node, lane->flights[j].buffer, BUFFER_BYTES);
        pthread_mutex_destroy(&lane->demand_lock);
        pthread_mutex_destroy(&lane->lock);
    }
    for (unsigned i = 0; i < engine->buffers.free_count; i++)
        rdma_buffer_free(node, engine->buffers.free[i], BUFFER_BYTES);
    pthread_mutex_destroy(&engine->buffers.lock);
}

/* ---- demand ---- */

static int demand_open(struct fault_engine *engine, struct lane *lane)
{
    void *buffer;
    if (lane->demand)
        return 0;
    int error = rdma_buffer_alloc(engine->config.node, EPT_PAGE_BYTES, &buffer);
    if (error)
        return error;
    error = rdma_queue_create(engine->config.node, RDMA_QUEUE_DEMAND, DEMAND_DEPTH, &lane->demand);
    if (!error) {
        lane->demand_buffer = buffer;
        return 0;
    }
    rdma_buffer_free(engine->config.node, buffer, EPT_PAGE_BYTES);
    return fault_fail_told(engine, error);
}

int lane_demand_post(struct fault_engine *engine, struct lane *lane, uint64_t page)
{
    int error = demand_open(engine, lane);
    if (error)
        return error;
    struct rdma_request request = {
        .op = RDMA_READ, .pages = 1, .page = page, .local = lane->demand_buffer, .cookie = page};
    int posted = rdma_queue_post(lane->demand, &request, 1);
    return posted == 1 ? 0 : posted < 0 ? posted : -EIO;
}

int lane_demand_wait(struct lane *lane, uint64_t page, struct patience *patience)
{
    struct rdma_completion completion;
    for (;;) {
        int got = rdma_queue_poll(lane->demand, &completion, 1, PATIENCE_SLICE_NS);
        if (got < 0)
            return got;
        if (got == 1) /* any other cookie would be the answer to a question given up: wrong bytes */
            return completion.cookie == page ? completion.status : -EIO;
        if (patience_spend(patience))
            return -ETIMEDOUT;
    }
}

/* ---- flights ---- */

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

/* A flight with a buffer that is not under way, or NULL: as much is in flight as may be. */
static struct flight *flight_get(struct fault_engine *engine, struct lane *lane)
{
    if (lane->in_flight == LANE_FLIGHTS)
        return NULL;
    struct flight *flight = lane->flights;
    while (flight->busy)
        flight++;
    flight->buffer = buffer_get(engine);
    return flight->buffer ? flight : NULL;
}

static void flight_end(struct fault_engine *engine, struct lane *lane, struct flight *flight)
{
    buffer_put(engine, flight->buffer);
    flight->busy = flight->landing = false;
    lane->in_flight--;
}

/* A lane without a second queue, because the node or the device has no more, only fetches less. */
static int prefetch_open(struct fault_engine *engine, struct lane *lane)
{
    if (lane->prefetch)
        return 0;
    if (!lane->refused && rdma_queue_create(engine->config.node, RDMA_QUEUE_PREFETCH, LANE_FLIGHTS,
                                            &lane->prefetch) == 0)
        return 0;
    lane->refused = true;
    return -EAGAIN;
}

static int flight_post(struct fault_engine *engine, struct lane *lane, struct flight *flight)
{
    struct rdma_request request = {.op = RDMA_READ,
                                   .pages = flight->pages,
                                   .page = flight->page,
                                   .local = flight->buffer,
                                   .cookie = (uint64_t)(flight - lane->flights)};
    int posted = prefetch_open(engine, lane);
    if (!posted)
        posted = rdma_queue_post(lane->prefetch, &request, 1);
    if (posted == 1) {
        flight->busy = true;
        flight->posted_ns = clock_now_ns();
        lane->in_flight++;
        atomic_fetch_or(&engine->lanes_busy, 1ULL << lane->index);
        return 0;
    }
    buffer_put(engine, flight->buffer);
    return posted < 0 ? posted : -EAGAIN;
}

/* Pages of [page, page + most) that are remote, claimed for a flight with frames. How many. */
static uint64_t flight_claim(struct fault_engine *engine, const struct lane *lane, uint64_t page,
                             uint64_t most)
{
    uint64_t to_block_end = BLOCK_PAGES - page % BLOCK_PAGES;
    most = most < to_block_end ? most : to_block_end;
    most = most < FLIGHT_PAGES ? most : FLIGHT_PAGES;
    uint64_t frames = frames_take_optional(engine, most);
    uint64_t got = run_claim(engine, page, frames, EPT_REMOTE, EPT_FETCHING, lane->index + 1);
    frames_give(engine, frames - got);
    return got;
}

uint64_t lane_fetch(struct fault_engine *engine, struct lane *lane, uint64_t page, uint64_t pages,
                    bool write, uint64_t *marker)
{
    uint64_t at = page, end = page + pages;
    while (at < end && at < engine->span_pages) {
        if (ept_word_state(atomic_load(&engine->words[at])) != EPT_REMOTE) {
            at++;
            continue;
        }
        struct flight *flight = flight_get(engine, lane);
        if (!flight)
            break;
        uint64_t got = flight_claim(engine, lane, at, end - at);
        flight->page = at;
        flight->pages = (uint32_t)got;
        flight->write = write;
        int error = got ? flight_post(engine, lane, flight) : -EAGAIN;
        if (!got)
            buffer_put(engine, flight->buffer);
        if (error) {
            run_release(engine, at, got, EPT_REMOTE);
            frames_give(engine, got);
            if (error != -EAGAIN)
                fault_fail(engine, error);
            break;
        }
        /* Only sampled pages can tell that they were touched (run.c). */
        if (marker && *marker == MARKER_NONE)
            *marker =
                got < SAMPLE_PAGES ? at : (at + SAMPLE_PAGES - 1) / SAMPLE_PAGES * SAMPLE_PAGES;
        atomic_fetch_add_explicit(&engine->prefetched, got, memory_order_relaxed);
        probe_fetch_ahead(lane->index, at, got);
        at += got;
    }
    return at - page;
}

/* ---- markers ---- */

static void marker_set(struct fault_engine *engine, struct lane *lane, uint64_t page, bool write)
{
    lane->marker_next = (lane->marker_next + 1) % LANE_MARKERS;
    lane->markers[lane->marker_next] = page;
    lane->marker_writes[lane->marker_next] = write;
    lane->marker_ns = clock_now_ns();
    atomic_fetch_or(&engine->lanes_busy, 1ULL << lane->index);
}

void lane_touched(struct fault_engine *engine, struct lane *lane, uint64_t page,
                  enum prefetch_cause cause, bool write)
{
    const struct prefetcher *prefetcher = engine->prefetcher;
    uint64_t most = engine->config.local_pages / AHEAD_SHARE;
    struct prefetch_touch touch = {
        .page = page,
        .cause = cause,
        .write = write,
        .max_pages = most < AHEAD_MAX ? (uint32_t)most : AHEAD_MAX,
        .accuracy_percent =
            atomic_load_explicit(&engine->accuracy, memory_order_relaxed) * 100 >> 16,
    };
    struct prefetch_plan plan;
    uint64_t marker = MARKER_NONE;
    uint32_t done = 0;
    prefetcher->plan(&lane->state, &touch, &plan);
    for (uint32_t i = 0; i < plan.count; i++) {
        uint64_t passed =
            lane_fetch(engine, lane, plan.runs[i].page, plan.runs[i].pages, plan.write, &marker);
        done += (uint32_t)passed;
        if (passed < plan.runs[i].pages)
            break;
    }
    if (plan.count)
        prefetcher->posted(&lane->state, &plan, done);
    if (marker == MARKER_NONE)
        return;
    marker_set(engine, lane, marker, plan.write);
    lander_wake(engine);
}

/* 1: it was touched; 0: not yet; -1: it is not here (any more), or can tell nothing. */
static int marker_look(const struct fault_engine *engine, uint64_t page)
{
    uint64_t word = atomic_load(&engine->words[page]);
    if (ept_word_state(word) == EPT_FETCHING)
        return 0;
    if (ept_word_state(word) != EPT_LOCAL || !(word & EPT_PREFETCHED))
        return -1;
    return ept_accessed(engine->ept, page);
}

bool lane_follow(struct fault_engine *engine, struct lane *lane)
{
    bool any = false, waiting = false;
    bool expired = clock_now_ns() - lane->marker_ns > MARKER_LIFE_NS;
    for (unsigned i = 0; i < LANE_MARKERS; i++) {
        uint64_t page = lane->markers[i];
        int look = page == MARKER_NONE ? -1 : marker_look(engine, page);
        if (look == 0 && !expired) {
            waiting = true;
            continue;
        }
        lane->markers[i] = MARKER_NONE;
        if (look <= 0)
            continue;
        any = true;
        lane->marker_ns = clock_now_ns();
        probe_touched(lane->index, TRACE_REACHED, page);
        sample_take(engine, page);
        lane_touched(engine, lane, page, PREFETCH_REACHED,
                     lane->marker_writes[i] || ept_dirty(engine->ept, page));
    }
    if (!any && !waiting && !lane->in_flight)
        atomic_fetch_and(&engine->lanes_busy, ~(1ULL << lane->index));
    return any;
}

/* ---- landing ---- */

/*
 * Installs a flight's pages with the lane's lock released: the lander, the thread itself and
 * whoever helps each land another flight at the same time. Nobody else touches this one meanwhile:
 * its completion was taken, its pages are in no state that others may leave, and it stays busy.
 */
static void flight_land(struct fault_engine *engine, struct lane *lane, struct flight *flight,
                        int error)
{
    fault_histogram_add(&lane->flight_ns, clock_now_ns() - flight->posted_ns);
    flight->landing = true;
    pthread_mutex_unlock(&lane->lock);
    if (!error)
        error = run_land(engine, flight->page, flight->pages, flight->buffer, flight->write, true);
    if (error) {
        run_release(engine, flight->page, flight->pages, EPT_REMOTE);
        frames_give(engine, flight->pages);
        fault_fail(engine, error);
    }
    pthread_mutex_lock(&lane->lock);
    flight_end(engine, lane, flight);
}

int lane_land(struct fault_engine *engine, struct lane *lane, unsigned most, uint64_t timeout_ns)
{
    struct rdma_completion done;
    unsigned landed = 0;
    int got = 0;
    /* One completion at a time: those not taken yet are there for others to land. */
    while (landed < most && lane->in_flight) {
        got = rdma_queue_poll(lane->prefetch, &done, 1, landed ? 0 : timeout_ns);
        if (got <= 0)
            break;
        flight_land(engine, lane, &lane->flights[done.cookie], done.status);
        landed++;
    }
    int error = fault_engine_error(engine);
    return got < 0 ? fault_fail(engine, got) : error ? error : (int)landed;
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
        if (flight->busy && flight->landing && page - flight->page < flight->pages)
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
