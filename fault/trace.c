/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recorder. Each thread appends to a ring of its own, with two plain loads and a store; one
 * thread carries what is in the rings to the file. A ring that is full drops records and counts
 * them: recording never makes a fault wait, neither for a lock nor for a disk. The rings are
 * drained one after the other, so that the file is only nearly in order; its reader sorts it.
 */
#include "fault/engine_internal.h"
#include "fault/probes.h"
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RING_RECORDS 8192u    /* 128 KiB; at 200,000 faults a second they last for 40 ms */
#define RINGS_MAX    2048u    /* vCPUs, and what else runs in the engine */
#define DRAIN_NS     5000000u /* between two looks at the rings */
#define KNOWN_PAGES  64u      /* of those pinned lately, by thread ... */
#define KNOWN_NS     1000000u /* ... not recorded again so soon */

struct ring {
    _Atomic uint64_t head; /* records ever put in, by the owner */
    _Atomic uint64_t tail; /* ... taken out, by the writer */
    _Atomic uint64_t dropped;
    atomic_bool owned;
    struct trace_record records[RING_RECORDS];
};

atomic_bool trace_on;

static struct {
    int fd;
    uint64_t start_ns;
    pthread_t writer;
    pthread_key_t key; /* tells of a thread's end, so that its ring gets another owner */
    atomic_bool stop;
    bool running;
    pthread_mutex_t lock; /* rings being handed out */
    _Atomic(struct ring *) rings[RINGS_MAX];
    _Atomic uint64_t homeless; /* records of threads that got no ring */
    uint64_t written, lost;    /* the writer's own */
    int error;
} recorder = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local struct ring *own;

/* ---- any thread of the engine ---- */

static void ring_leave(void *ring)
{
    atomic_store_explicit(&((struct ring *)ring)->owned, false, memory_order_release);
}

/* Once a thread: the ring of one that has ended, or a new one; NULL if there is no memory. */
static struct ring *ring_get(void)
{
    struct ring *ring = NULL;
    pthread_mutex_lock(&recorder.lock);
    for (unsigned i = 0; i < RINGS_MAX && !ring; i++) {
        struct ring *at = atomic_load(&recorder.rings[i]);
        bool free_ring = false;
        if (!at) {
            at = calloc(1, sizeof(*at));
            if (!at)
                break;
            atomic_store(&at->owned, true);
            atomic_store(&recorder.rings[i], at);
            ring = at;
        } else if (atomic_compare_exchange_strong(&at->owned, &free_ring, true)) {
            ring = at;
        }
    }
    pthread_mutex_unlock(&recorder.lock);
    if (ring)
        pthread_setspecific(recorder.key, ring);
    return ring;
}

static void record_put(uint64_t what, uint64_t ns, uint64_t value)
{
    uint64_t ticks = (ns - recorder.start_ns) >> TRACE_TICK_SHIFT;
    if (!own)
        own = ring_get();
    if (!own || ticks >> TRACE_TIME_BITS) {
        atomic_fetch_add_explicit(&recorder.homeless, 1, memory_order_relaxed);
        return;
    }
    uint64_t head = atomic_load_explicit(&own->head, memory_order_relaxed);
    if (head - atomic_load_explicit(&own->tail, memory_order_acquire) == RING_RECORDS) {
        atomic_fetch_add_explicit(&own->dropped, 1, memory_order_relaxed);
        return;
    }
    own->records[head % RING_RECORDS] = (struct trace_record){what, ticks | value << 40};
    atomic_store_explicit(&own->head, head + 1, memory_order_release);
}

static uint64_t what_of(enum trace_type type, unsigned detail, unsigned thread, uint64_t page)
{
    thread = thread == TRACE_NOBODY ? thread : thread % TRACE_THREADS;
    return page | (uint64_t)thread << 40 | (uint64_t)type << 48 | (uint64_t)detail << 52;
}

void trace_fault(unsigned thread, uint64_t page, bool write, uint64_t seen, uint64_t now,
                 uint64_t start_ns)
{
    enum trace_cause cause = TRACE_WAIT;
    if (ept_word_state(seen) == EPT_REMOTE)
        cause = TRACE_MISS;
    else if (word_in_flight(seen))
        cause = TRACE_LATE;
    else if (ept_word_state(seen) == EPT_ABSENT)
        cause = now & EPT_FILE ? TRACE_FILE : TRACE_ZERO;
    uint64_t took = (clock_now_ns() - start_ns) >> TRACE_TICK_SHIFT;
    record_put(what_of(TRACE_FAULT, cause, thread, page) | (uint64_t)write << 55, start_ns,
               took < TRACE_DURATION_MAX ? took : TRACE_DURATION_MAX);
}

void trace_run(enum trace_type type, unsigned detail, unsigned thread, uint64_t page,
               uint64_t pages)
{
    uint64_t ns = clock_now_ns();
    for (uint64_t here; pages; page += here, pages -= here) {
        here = TRACE_RUN_MAX - page % TRACE_RUN_MAX;
        here = here < pages ? here : pages;
        record_put(what_of(type, detail, thread, page), ns, here);
    }
}

/*
 * The monitor looks at the code page of every miss, and at the same buffers in every system call:
 * one record a millisecond is enough to know that a page is in use.
 */
void trace_pinned(unsigned thread, uint64_t page)
{
    static _Thread_local struct {
        uint64_t page, ns;
    } known[KNOWN_PAGES];
    uint64_t ns = clock_now_ns();
    unsigned i = page % KNOWN_PAGES;
    if (known[i].page == page && ns - known[i].ns < KNOWN_NS)
        return;
    known[i].page = page;
    known[i].ns = ns;
    record_put(what_of(TRACE_TOUCH, TRACE_PINNED, thread, page), ns, 1);
}

void trace_pages(enum trace_type type, unsigned thread, const uint64_t pages[], uint64_t count)
{
    for (uint64_t i = 0, n; i < count; i += n) {
        for (n = 1; i + n < count && pages[i + n] == pages[i] + n;)
            n++;
        trace_run(type, 0, thread, pages[i], n);
    }
}

void trace_evicted(uint64_t first, const uint64_t set[], const uint8_t fates[], unsigned count)
{
    for (unsigned i = 0, n; i < count; i += n) {
        bool left = set[i / 64] >> (i % 64) & 1;
        for (n = 1; left && i + n < count && set[(i + n) / 64] >> ((i + n) % 64) & 1 &&
                    fates[i + n] == fates[i];)
            n++;
        if (left && fates[i])
            trace_run(TRACE_EVICT, fates[i] - 1u, TRACE_NOBODY, first + i, n);
    }
}

/* ---- the writer's thread ---- */

static void file_write(const void *data, size_t bytes, uint64_t records)
{
    const char *at = data;
    while (bytes && !recorder.error) {
        ssize_t done = write(recorder.fd, at, bytes);
        if (done < 0 && errno != EINTR)
            recorder.error = -errno;
        if (done > 0) {
            at += done;
            bytes -= (size_t)done;
        }
    }
    if (recorder.error)
        recorder.lost += records;
    else
        recorder.written += records;
}

static void ring_drain(struct ring *ring)
{
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
    while (tail != head) {
        uint64_t part = RING_RECORDS - tail % RING_RECORDS;
        part = part < head - tail ? part : head - tail;
        file_write(&ring->records[tail % RING_RECORDS], part * sizeof(struct trace_record), part);
        tail += part;
        atomic_store_explicit(&ring->tail, tail, memory_order_release);
    }
}

static void rings_drain(void)
{
    for (unsigned i = 0; i < RINGS_MAX; i++) {
        struct ring *ring = atomic_load(&recorder.rings[i]);
        if (!ring) /* handed out in order */
            return;
        ring_drain(ring);
    }
}

static void *writer_main(void *argument)
{
    (void)argument;
    while (!atomic_load(&recorder.stop)) {
        rings_drain();
        nanosleep(&(struct timespec){.tv_nsec = DRAIN_NS}, NULL);
    }
    rings_drain();
    return NULL;
}

/* ---- life ---- */

int trace_start(int fd, const struct trace_header *header)
{
    struct trace_header full = *header;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    memcpy(full.magic, TRACE_MAGIC, sizeof(full.magic));
    full.version = TRACE_VERSION;
    full.header_bytes = sizeof(full);
    full.record_bytes = sizeof(struct trace_record);
    full.page_bytes = EPT_PAGE_BYTES;
    full.started_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    recorder.fd = fd;
    recorder.start_ns = clock_now_ns();
    file_write(&full, sizeof(full), 0);
    int error = recorder.error;
    if (!error)
        error = -pthread_key_create(&recorder.key, ring_leave);
    if (!error)
        error = -pthread_create(&recorder.writer, NULL, writer_main, NULL);
    recorder.running = !error;
    atomic_store(&trace_on, !error);
    return error;
}

void trace_stop(struct trace_totals *out)
{
    memset(out, 0, sizeof(*out));
    if (!recorder.running)
        return;
    recorder.running = false;
    atomic_store(&trace_on, false);
    atomic_store(&recorder.stop, true);
    pthread_join(recorder.writer, NULL);
    /* The rings stay: a thread that did not come to its end may still write into its own. */
    uint64_t dropped = atomic_load(&recorder.homeless), most = (1ULL << TRACE_PAGE_BITS) - 1;
    for (unsigned i = 0; i < RINGS_MAX && atomic_load(&recorder.rings[i]); i++)
        dropped += atomic_load(&atomic_load(&recorder.rings[i])->dropped);
    struct trace_record end = {what_of(TRACE_END, 0, 0, dropped < most ? dropped : most), 0};
    out->records = recorder.written;
    file_write(&end, sizeof(end), 0);
    out->dropped = dropped + recorder.lost;
    out->error = recorder.error;
}
