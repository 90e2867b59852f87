/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lander: a thread that installs prefetched pages when they arrive, and asks for more when it
 * sees that the program has reached a marker, so that a program running along a sequence does not
 * leave the guest at all. It only ever does what a faulting thread could do itself: without it
 * everything works, at the price of more exits. Sleeps when there is nothing on its way.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#define IDLE_NS      1000000000u /* a missed wake-up costs at most this */
#define PAUSE_MIN_NS 20000u      /* between two looks that found nothing ... */
#define PAUSE_MAX_NS 200000u     /* ... growing to this */

struct lander {
    struct fault_engine *engine;
    pthread_t thread;
    bool running;
    atomic_bool stop;
    atomic_bool asleep;
    atomic_uint wanted; /* futex */
};

void lander_wake(struct fault_engine *engine)
{
    struct lander *lander = engine->lander;
    /* The lander says that it sleeps before it looks for work a last time. */
    if (lander && atomic_load(&lander->asleep))
        counter_wake(&lander->wanted);
}

/* One look at every busy lane; true if anything moved. */
static bool lanes_look(struct fault_engine *engine)
{
    uint64_t busy = atomic_load(&engine->lanes_busy);
    bool moved = false;
    for (; busy; busy &= busy - 1) {
        struct lane *lane = &engine->lanes[__builtin_ctzll(busy)];
        moved |= lane_open_look(engine, lane);
        if (pthread_mutex_trylock(&lane->lock)) /* somebody lands there already */
            continue;
        moved |= lane_land(engine, lane, LANE_FLIGHTS, 0) > 0;
        moved |= lane_follow(engine, lane);
        pthread_mutex_unlock(&lane->lock);
    }
    return moved;
}

static void lander_sleep(struct lander *lander)
{
    unsigned seen = atomic_load(&lander->wanted);
    atomic_store(&lander->asleep, true);
    if (!atomic_load(&lander->engine->lanes_busy) && !atomic_load(&lander->stop))
        counter_wait(&lander->wanted, seen, IDLE_NS);
    atomic_store(&lander->asleep, false);
}

static void *lander_main(void *argument)
{
    struct lander *lander = argument;
    struct fault_engine *engine = lander->engine;
    uint64_t pause_ns = PAUSE_MIN_NS;
    prctl(PR_SET_TIMERSLACK, 1000ul, 0ul, 0ul, 0ul); /* ns; the default adds 50 us to each pause */
    while (!atomic_load(&lander->stop) && !fault_engine_error(engine)) {
        if (lanes_look(engine)) {
            pause_ns = PAUSE_MIN_NS;
        } else if (!atomic_load(&engine->lanes_busy)) {
            lander_sleep(lander);
        } else {
            struct timespec pause = {.tv_nsec = (long)pause_ns};
            nanosleep(&pause, NULL);
            pause_ns = pause_ns * 2 < PAUSE_MAX_NS ? pause_ns * 2 : PAUSE_MAX_NS;
        }
    }
    return NULL;
}

int lander_start(struct fault_engine *engine)
{
    struct lander *lander = calloc(1, sizeof(*lander));
    if (!lander)
        return -ENOMEM;
    lander->engine = engine;
    engine->lander = lander;
    int error = -pthread_create(&lander->thread, NULL, lander_main, lander);
    lander->running = !error;
    if (error)
        message_error("host: lander thread: %s", strerror(-error));
    return error;
}

void lander_stop(struct fault_engine *engine)
{
    struct lander *lander = engine->lander;
    if (!lander)
        return;
    atomic_store(&lander->stop, true);
    counter_wake(&lander->wanted);
    if (lander->running)
        pthread_join(lander->thread, NULL);
    engine->lander = NULL;
    free(lander);
}
