/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks with priority inheritance, in no robust list, whose owner ended: who comes later is told
 * (ESRCH) and does not wait for ever; who came before gets the lock, and is told so, too.
 */
#include "guest.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>

#define TURNS   300
#define LIMIT_S 20

static _Atomic uint32_t word, held, condition, foreign;
static atomic_int taken, may_wait;

static long futex(_Atomic uint32_t *at, int operation, uint32_t value, const void *fourth,
                  _Atomic uint32_t *second, uint32_t sixth)
{
    return syscall(SYS_futex, at, operation | FUTEX_PRIVATE_FLAG, value, fourth, second, sixth);
}

/* Absolute: what would wait for ever is told ETIMEDOUT. */
static struct timespec limit(void)
{
    struct timespec until;
    EXPECT(clock_gettime(CLOCK_REALTIME, &until) == 0);
    until.tv_sec += LIMIT_S;
    return until;
}

static long lock(_Atomic uint32_t *at)
{
    struct timespec until = limit();
    return futex(at, FUTEX_LOCK_PI, 0, &until, NULL, 0);
}

static void *leave_behind(void *argument)
{
    _Atomic uint32_t *at = argument;
    EXPECT(lock(at) == 0);
    atomic_fetch_add(&taken, 1);
    return argument;
}

/* To be moved to the lock, which is the argument. */
static void *wait_for_condition(void *argument)
{
    _Atomic uint32_t *at = argument;
    struct timespec until = limit();
    while (!atomic_load(&may_wait))
        usleep(1000);
    EXPECT(futex(&condition, FUTEX_WAIT_REQUEUE_PI, 0, &until, at, 0) == 0);
    EXPECT(futex(at, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0) == 0);
    return argument;
}

static void *wait_to_be_woken(void *argument)
{
    struct timespec until = {LIMIT_S, 0};
    EXPECT(futex(&condition, FUTEX_WAIT, 0, &until, NULL, 0) == 0);
    return argument;
}

static long requeue(uint32_t wakes, long moves, _Atomic uint32_t *to)
{
    return futex(&condition, FUTEX_CMP_REQUEUE_PI, wakes, (void *)moves, to, 0);
}

/* Nobody waited for it. A guest's thread is joined a moment before it has left. */
static uint32_t left_alone(void)
{
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, leave_behind, &word) == 0);
    EXPECT(pthread_join(thread, NULL) == 0);
    usleep(200000);
    return atomic_load(&word) & FUTEX_TID_MASK;
}

static void left_before(void)
{
    uint32_t dead = left_alone();
    EXPECT(dead != 0 && lock(&word) == -1 && errno == ESRCH);
    EXPECT(futex(&word, FUTEX_TRYLOCK_PI, 0, NULL, NULL, 0) == -1 && errno == ESRCH);
    EXPECT((atomic_load(&word) & FUTEX_TID_MASK) == dead);
    EXPECT(requeue(1, 1, &word) == 0);
    EXPECT(requeue(0, 1, &word) == -1 && errno == EINVAL);
    EXPECT(requeue(2, 1, &word) == -1 && errno == EINVAL);
    EXPECT(requeue(1, -1, &word) == -1 && errno == EINVAL);
    EXPECT(futex(&condition, FUTEX_CMP_REQUEUE_PI, 1, (void *)1, &word, 1) == -1 &&
           errno == EAGAIN);
    atomic_store(&word, 0);
}

/*
 * The waiter's thread begins before the owner's, so each has a thread of the host; it waits for the
 * condition from before or from after the owner's end.
 */
static pthread_t wait_and_leave(_Atomic uint32_t *to, int before)
{
    pthread_t waiter;
    atomic_store(&may_wait, before);
    EXPECT(pthread_create(&waiter, NULL, wait_for_condition, to) == 0);
    usleep(200000); /* asleep, mostly */
    EXPECT(left_alone() != 0);
    atomic_store(&may_wait, 1);
    usleep(200000);
    return waiter;
}

/* Who waits for a condition is not moved to it. */
static void not_moved(int before)
{
    pthread_t waiter = wait_and_leave(&word, before);
    EXPECT(requeue(1, 1, &word) == -1 && errno == ESRCH);
    atomic_store(&word, 0);
    EXPECT(requeue(1, 1, &word) == 1);
    EXPECT(pthread_join(waiter, NULL) == 0 && atomic_load(&word) == 0);
}

/* Who was moved to another lock before does not wait for the condition any more. */
static void moved_before(int before)
{
    EXPECT(lock(&held) == 0);
    pthread_t waiter = wait_and_leave(&held, before);
    EXPECT(requeue(1, 0, &held) == 1 && requeue(1, 1, &word) == 0);
    EXPECT(futex(&held, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0) == 0);
    EXPECT(pthread_join(waiter, NULL) == 0);
    atomic_store(&word, 0);
}

/* Who only waits to be woken cannot be moved to a lock. */
static void not_to_be_moved(void)
{
    pthread_t waiter;
    EXPECT(pthread_create(&waiter, NULL, wait_to_be_woken, NULL) == 0);
    usleep(200000); /* asleep, mostly */
    EXPECT(left_alone() != 0);
    EXPECT(requeue(1, 1, &word) == -1 && errno == EINVAL);
    EXPECT(futex(&condition, FUTEX_WAKE, 2, NULL, NULL, 0) == 1);
    EXPECT(pthread_join(waiter, NULL) == 0);
    atomic_store(&word, 0);
}

/* The owner ends just as somebody comes: lock or ESRCH, but an answer. */
static void left_meanwhile(void)
{
    static _Atomic uint32_t words[TURNS];
    for (int i = 0; i < TURNS; i++) {
        pthread_t thread;
        int before = atomic_load(&taken);
        EXPECT(pthread_create(&thread, NULL, leave_behind, &words[i]) == 0);
        while (atomic_load(&taken) == before)
            ;
        if (lock(&words[i]) == 0) {
            EXPECT((atomic_load(&words[i]) & FUTEX_TID_MASK) == (uint32_t)gettid());
            EXPECT(atomic_load(&words[i]) & FUTEX_OWNER_DIED);
            EXPECT(futex(&words[i], FUTEX_UNLOCK_PI, 0, NULL, NULL, 0) == 0);
        } else {
            EXPECT(errno == ESRCH);
        }
        EXPECT(pthread_join(thread, NULL) == 0);
    }
}

int main(void)
{
    left_before();
    for (int before = 0; before < 2; before++) {
        not_moved(before);
        moved_before(before);
    }
    not_to_be_moved();
    left_meanwhile();
    atomic_store(&foreign, 0x3ffffff0); /* nobody's */
    EXPECT(lock(&foreign) == -1 && errno == ESRCH);
    return guest_passed("futex_orphans");
}
