/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reclaimer: one thread that keeps frames free ahead of need. A clock over 2 MiB blocks in the
 * order in which they became resident. The hand gives every page a second chance: A set: clear it
 * and unmap the block, so that the next touch sets it again (without an exit); A clear: the page
 * was not touched for a whole turn, evict it.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define IDLE_NS    1000000000u /* a missed wake-up costs at most this */
#define BACKOFF_NS 2000000u    /* nothing evictable: look again a little later */

struct reclaimer {
    struct fault_engine *engine;
    struct evictor *evictor;
    pthread_t thread;
    bool running;
    atomic_bool stop;

    pthread_mutex_t ring_lock; /* taken once for 512 pages: not worth being clever */
    uint32_t *ring;            /* block numbers; every block is in at most once */
    uint64_t ring_size, head, count;
};

static void ring_push(struct reclaimer *reclaimer, uint64_t block)
{
    pthread_mutex_lock(&reclaimer->ring_lock);
    reclaimer->ring[(reclaimer->head + reclaimer->count) % reclaimer->ring_size] = (uint32_t)block;
    reclaimer->count++;
    pthread_mutex_unlock(&reclaimer->ring_lock);
}

static bool ring_pop(struct reclaimer *reclaimer, uint64_t *block)
{
    pthread_mutex_lock(&reclaimer->ring_lock);
    bool any = reclaimer->count > 0;
    if (any) {
        *block = reclaimer->ring[reclaimer->head];
        reclaimer->head = (reclaimer->head + 1) % reclaimer->ring_size;
        reclaimer->count--;
    }
    pthread_mutex_unlock(&reclaimer->ring_lock);
    return any;
}

void reclaimer_block_resident(struct fault_engine *engine, uint64_t page)
{
    if (!atomic_exchange(&block_of(engine, page)->queued, 1))
        ring_push(engine->reclaimer, page >> BLOCK_SHIFT);
}

/*
 * Puts the block back behind the others while it holds pages. The race is a page becoming resident
 * after the look at `resident`: it finds `queued` still set and does not push, hence the second
 * look.
 */
static void block_requeue(struct reclaimer *reclaimer, uint64_t number)
{
    struct block *block = &reclaimer->engine->blocks[number];
    if (!atomic_load(&block->resident)) {
        atomic_store(&block->queued, 0);
        if (!atomic_load(&block->resident) || atomic_exchange(&block->queued, 1))
            return;
    }
    ring_push(reclaimer, number);
}

/* Looks at every page of a block: fills `candidates` (at most `want`), ages the others. */
static uint64_t block_scan(struct fault_engine *engine, uint64_t first, uint64_t want,
                           uint64_t candidates[8])
{
    uint64_t found = 0;
    bool aged = false;
    memset(candidates, 0, 8 * sizeof(candidates[0]));
    for (unsigned i = 0; i < BLOCK_PAGES; i++) {
        uint64_t word = atomic_load(&engine->words[first + i]);
        if (ept_word_state(word) != EPT_LOCAL || word & EPT_PIN_MASK)
            continue;
        if (ept_accessed(engine->ept, first + i)) {
            ept_accessed_clear(engine->ept, first + i);
            aged = true;
        } else if (found < want) {
            candidates[i / 64] |= 1ULL << (i % 64);
            found++;
        }
    }
    if (aged)
        ept_unmap(engine->ept, first, BLOCK_PAGES);
    return found;
}

static int64_t block_visit(struct reclaimer *reclaimer, uint64_t number)
{
    struct fault_engine *engine = reclaimer->engine;
    uint64_t free_pages = frames_free(engine), candidates[8];
    uint64_t want = engine->high_free_pages > free_pages ? engine->high_free_pages - free_pages : 0;
    /* A few pages more than needed, where that keeps a batch contiguous. */
    want = (want + 63) & ~63ULL;
    if (!block_scan(engine, number << BLOCK_SHIFT, want, candidates))
        return 0;
    return evictor_run(reclaimer->evictor, number << BLOCK_SHIFT, candidates);
}

/* Frees frames up to the high mark. 0, or -errno when far memory is lost. */
static int reclaim(struct reclaimer *reclaimer)
{
    struct fault_engine *engine = reclaimer->engine;
    uint64_t fruitless = 0, number;
    while (!atomic_load(&reclaimer->stop) && frames_free(engine) < engine->high_free_pages) {
        if (!ring_pop(reclaimer, &number))
            return 0;
        int64_t freed = block_visit(reclaimer, number);
        block_requeue(reclaimer, number);
        if (freed < 0)
            return (int)freed;
        fruitless = freed ? 0 : fruitless + 1;
        if (fruitless > 2 * reclaimer->count + 2) {
            counter_wait(&engine->reclaim_wanted, atomic_load(&engine->reclaim_wanted), BACKOFF_NS);
            fruitless = 0;
        }
    }
    return 0;
}

static void *reclaimer_main(void *argument)
{
    struct reclaimer *reclaimer = argument;
    struct fault_engine *engine = reclaimer->engine;
    while (!atomic_load(&reclaimer->stop)) {
        unsigned seen = atomic_load(&engine->reclaim_wanted);
        if (frames_free(engine) >= engine->low_free_pages) {
            counter_wait(&engine->reclaim_wanted, seen, IDLE_NS);
            continue;
        }
        if (reclaim(reclaimer)) {
            counter_wake(&engine->frames_sequence); /* those who wait learn of the error */
            break;
        }
    }
    return NULL;
}

int reclaimer_start(struct fault_engine *engine)
{
    struct reclaimer *reclaimer = calloc(1, sizeof(*reclaimer));
    if (!reclaimer)
        return -ENOMEM;
    engine->reclaimer = reclaimer;
    reclaimer->engine = engine;
    pthread_mutex_init(&reclaimer->ring_lock, NULL);
    reclaimer->ring_size = engine->span_pages >> BLOCK_SHIFT;
    void *ring = mmap(NULL, reclaimer->ring_size * sizeof(uint32_t), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ring == MAP_FAILED)
        return -ENOMEM;
    reclaimer->ring = ring;
    int error = evictor_create(engine, &reclaimer->evictor);
    if (!error)
        error = -pthread_create(&reclaimer->thread, NULL, reclaimer_main, reclaimer);
    reclaimer->running = !error;
    return error;
}

void reclaimer_stop(struct fault_engine *engine)
{
    struct reclaimer *reclaimer = engine->reclaimer;
    if (!reclaimer)
        return;
    atomic_store(&reclaimer->stop, true);
    counter_wake(&engine->reclaim_wanted);
    if (reclaimer->running)
        pthread_join(reclaimer->thread, NULL);
    evictor_destroy(reclaimer->evictor);
    if (reclaimer->ring)
        munmap(reclaimer->ring, reclaimer->ring_size * sizeof(uint32_t));
    pthread_mutex_destroy(&reclaimer->ring_lock);
    free(reclaimer);
    engine->reclaimer = NULL;
}
