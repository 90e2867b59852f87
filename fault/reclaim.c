/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reclaimers: threads that keep frames free ahead of need. The policy (clock.c) names pages, the
 * evictors (evict.c) take them out, several blocks at a time so that a slow memory node costs its
 * latency once and not once a block.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IDLE_NS     1000000000u /* a missed wake-up costs at most this */
#define BACKOFF_NS  2000000u    /* nothing evictable: look again a little later */
#define UNDER_WAY   4u          /* blocks of one reclaimer */
#define BATCH_SHARE 32u       /* a batch is at most so small a part of the host's share, but ... */
#define BATCH_MIN   64u       /* ... not smaller than this */
#define EXPEL_NS    10000000u /* an exit of each vCPU in 10 ms costs 0.3 % at worst */
#define CPUS_EACH   4u        /* one reclaimer for so many CPUs */

struct worker {
    struct fault_engine *engine;
    pthread_t thread;
    bool running;
    struct evictor *evictors[UNDER_WAY];
    unsigned begun, first; /* evictors under way, in order; the oldest */
    uint64_t leaving;      /* pages they will free, at most */
    uint64_t claimed[UNDER_WAY];
    uint64_t distrusted, expelled_ns; /* laggards_expel */
};

struct reclaimer {
    atomic_bool stop;
    unsigned count;
    struct worker workers[RECLAIMERS_MAX];
};

/* Frames freed, or -errno. */
static int64_t oldest_finish(struct worker *worker)
{
    unsigned index = worker->first;
    worker->first = (index + 1) % UNDER_WAY;
    worker->begun--;
    worker->leaving -= worker->claimed[index];
    return evictor_finish(worker->evictors[index]);
}

static int all_finish(struct worker *worker)
{
    int64_t freed = 0;
    while (worker->begun && freed >= 0)
        freed = oldest_finish(worker);
    return freed < 0 ? (int)freed : 0;
}

/* Starts on one block. Pages that are leaving, 0 if the block had none, or -errno. */
static int64_t block_begin(struct worker *worker, bool urgent, bool *any)
{
    struct fault_engine *engine = worker->engine;
    struct clock_choice choice;
    uint64_t most = engine->config.local_pages / BATCH_SHARE;
    *any = clock_choose(&engine->clock, most > BATCH_MIN ? most : BATCH_MIN, urgent, &choice);
    if (!*any)
        return 0;
    int64_t claimed = 0;
    if (choice.count && worker->begun == UNDER_WAY)
        claimed = oldest_finish(worker);
    if (choice.count && claimed >= 0) {
        unsigned next = (worker->first + worker->begun) % UNDER_WAY;
        claimed = evictor_begin(worker->evictors[next], choice.first_page, choice.candidates);
        worker->claimed[next] = claimed > 0 ? (uint64_t)claimed : 0;
        worker->leaving += worker->claimed[next];
        worker->begun += claimed > 0;
    }
    clock_return(&engine->clock, &choice);
    return claimed;
}

/*
 * A vCPU that stays in KVM_RUN keeps the pages evicted meanwhile from being trusted when they come
 * back (engine.c, "Epochs"), and each of those would be written once more than needed. So where
 * that happens, the vCPUs that have been inside for long are asked to leave once.
 */
static void laggards_expel(struct worker *worker)
{
    struct fault_engine *engine = worker->engine;
    const struct fault_source *source = &engine->config.source;
    uint64_t distrusted = atomic_load_explicit(&engine->distrusted, memory_order_relaxed);
    uint64_t now_ns = clock_now_ns();
    if (!source->expel || distrusted == worker->distrusted ||
        now_ns - worker->expelled_ns < EXPEL_NS)
        return;
    worker->distrusted = distrusted;
    worker->expelled_ns = now_ns;
    uint32_t epoch = atomic_load(&engine->clock.epoch);
    for (unsigned i = 0; i < atomic_load(&engine->context_count); i++) {
        struct whereabouts *at = &engine->whereabouts[i];
        if (atomic_load(&at->inside) && atomic_load(&at->entered) != epoch)
            source->expel(source->owner, atomic_load(&at->tid));
    }
}

/* Frees frames up to the high mark. 0, or -errno when far memory is lost. */
static int reclaim(struct worker *worker, const atomic_bool *stop)
{
    struct fault_engine *engine = worker->engine;
    uint64_t fruitless = 0;
    while (!atomic_load(stop) && frames_free(engine) + worker->leaving < engine->high_free_pages) {
        laggards_expel(worker);
        /* A whole turn without a page: whoever waits for a frame cannot wait for another turn. */
        bool urgent = fruitless > clock_blocks(&engine->clock) + 1, any;
        int64_t claimed = block_begin(worker, urgent, &any);
        if (claimed < 0)
            return (int)claimed;
        fruitless = claimed ? 0 : fruitless + 1;
        if (claimed && any)
            continue;
        if (worker->begun && all_finish(worker))
            return fault_engine_error(engine);
        if (!any || fruitless > 2 * clock_blocks(&engine->clock) + 2) {
            counter_wait(&engine->reclaim_wanted, atomic_load(&engine->reclaim_wanted), BACKOFF_NS);
            if (!any)
                return 0;
            fruitless = 0;
        }
    }
    return all_finish(worker);
}

static void *worker_main(void *argument)
{
    struct worker *worker = argument;
    struct fault_engine *engine = worker->engine;
    const atomic_bool *stop = &engine->reclaimer->stop;
    for (;;) {
        unsigned seen = atomic_load(&engine->reclaim_wanted);
        if (atomic_load(stop)) /* after `seen`, or its wake-up could be missed */
            break;
        if (frames_free(engine) >= engine->low_free_pages) {
            counter_wait(&engine->reclaim_wanted, seen, IDLE_NS);
            continue;
        }
        if (reclaim(worker, stop)) {
            counter_wake(&engine->frames_sequence); /* those who wait learn of the error */
            break;
        }
    }
    return NULL;
}

static int worker_start(struct worker *worker, struct fault_engine *engine)
{
    worker->engine = engine;
    for (unsigned i = 0; i < UNDER_WAY; i++) {
        int error = evictor_create(engine, &worker->evictors[i]);
        if (error)
            return error;
    }
    int error = -pthread_create(&worker->thread, NULL, worker_main, worker);
    worker->running = !error;
    if (error)
        message_error("host: reclaimer thread: %s", strerror(-error));
    return error;
}

int reclaimer_start(struct fault_engine *engine)
{
    struct reclaimer *reclaimer = calloc(1, sizeof(*reclaimer));
    if (!reclaimer)
        return -ENOMEM;
    engine->reclaimer = reclaimer;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned count = cpus > (long)CPUS_EACH ? (unsigned)cpus / CPUS_EACH : 1;
    count = count < RECLAIMERS_MAX ? count : RECLAIMERS_MAX;
    int error = 0;
    for (; reclaimer->count < count && !error; reclaimer->count++)
        error = worker_start(&reclaimer->workers[reclaimer->count], engine);
    return error;
}

void reclaimer_stop(struct fault_engine *engine)
{
    struct reclaimer *reclaimer = engine->reclaimer;
    if (!reclaimer)
        return;
    atomic_store(&reclaimer->stop, true);
    counter_wake(&engine->reclaim_wanted);
    for (unsigned i = 0; i < reclaimer->count; i++) {
        struct worker *worker = &reclaimer->workers[i];
        if (worker->running)
            pthread_join(worker->thread, NULL);
        for (unsigned j = 0; j < UNDER_WAY; j++)
            evictor_destroy(worker->evictors[j]);
    }
    free(reclaimer);
    engine->reclaimer = NULL;
}
