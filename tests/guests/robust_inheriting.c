/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lock with priority inheritance whose owner's thread ends while others sleep on it: the next
 * owner is told, whether by the C library's robust mutex or by the word itself, and each after it
 * that follows a dead one; who follows a live one is not.
 */
#include "guest.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>

#define WAITERS 4

static pthread_mutex_t mutex;
static atomic_int taken;
static atomic_int asleep;
static atomic_int died; /* were told of a dead owner */
static _Atomic uint32_t word;

/* Until the owner may end: `count` threads are in the host kernel, or about to be. */
static void await_sleepers(int count)
{
    double limit = guest_now_s() + 30;
    while (atomic_load(&asleep) < count)
        EXPECT(guest_now_s() < limit);
    usleep(50000);
}

static void *take_and_die(void *argument)
{
    EXPECT(pthread_mutex_lock(&mutex) == 0);
    atomic_store(&taken, 1);
    await_sleepers(WAITERS);
    return argument; /* holding it */
}

/* The first two follow a dead owner, and the first dies like it. */
static void *wait_for_it(void *argument)
{
    atomic_fetch_add(&asleep, 1);
    int error = pthread_mutex_lock(&mutex);
    EXPECT(error == 0 || error == EOWNERDEAD);
    if (error == EOWNERDEAD) {
        EXPECT(pthread_mutex_consistent(&mutex) == 0);
        if (atomic_fetch_add(&died, 1) == 0)
            return argument;
    } else {
        EXPECT(atomic_load(&died) == 2);
    }
    EXPECT(pthread_mutex_unlock(&mutex) == 0);
    return argument;
}

static void by_library(void)
{
    pthread_mutexattr_t attributes;
    pthread_t owner, waiters[WAITERS];
    EXPECT(pthread_mutexattr_init(&attributes) == 0);
    EXPECT(pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT) == 0);
    EXPECT(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) == 0);
    EXPECT(pthread_mutex_init(&mutex, &attributes) == 0);
    atomic_store(&taken, 0);
    atomic_store(&asleep, 0);
    atomic_store(&died, 0);
    EXPECT(pthread_create(&owner, NULL, take_and_die, NULL) == 0);
    while (!atomic_load(&taken))
        usleep(1000);
    for (int i = 0; i < WAITERS; i++)
        EXPECT(pthread_create(&waiters[i], NULL, wait_for_it, NULL) == 0);
    EXPECT(pthread_join(owner, NULL) == 0);
    for (int i = 0; i < WAITERS; i++)
        EXPECT(pthread_join(waiters[i], NULL) == 0);
    EXPECT(atomic_load(&died) == 2);
    EXPECT(pthread_mutex_lock(&mutex) == 0 && pthread_mutex_unlock(&mutex) == 0);
    EXPECT(pthread_mutex_destroy(&mutex) == 0);
}

/* On no list: it is the kernel that knows that somebody waits. */
static void *own_word(void *argument)
{
    atomic_store(&word, (uint32_t)gettid());
    atomic_store(&taken, 1);
    await_sleepers(1);
    return argument;
}

static void *wait_for_word(void *argument)
{
    atomic_fetch_add(&asleep, 1);
    EXPECT(syscall(SYS_futex, &word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0) == 0);
    EXPECT((atomic_load(&word) & FUTEX_TID_MASK) == (uint32_t)gettid());
    EXPECT(atomic_load(&word) & FUTEX_OWNER_DIED);
    EXPECT(syscall(SYS_futex, &word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0) == 0);
    EXPECT(atomic_load(&word) == 0);
    return argument;
}

static void by_word(void)
{
    pthread_t owner, waiter;
    atomic_store(&taken, 0);
    atomic_store(&asleep, 0);
    EXPECT(pthread_create(&owner, NULL, own_word, NULL) == 0);
    while (!atomic_load(&taken))
        usleep(1000);
    EXPECT(pthread_create(&waiter, NULL, wait_for_word, NULL) == 0);
    EXPECT(pthread_join(owner, NULL) == 0 && pthread_join(waiter, NULL) == 0);
}

int main(void)
{
    for (int i = 0; i < 3; i++) {
        by_library();
        by_word();
    }
    return guest_passed("robust_inheriting");
}
