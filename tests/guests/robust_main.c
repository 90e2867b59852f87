/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main thread ends alone and holds locks with priority inheritance: a robust one of the C
 * library, a word on no list, and one that nobody waits for. As after any other thread's end, who
 * waits gets them and is told.
 */
#include "guest.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>

#define WAITERS 4
#define LIMIT_S 30

static pthread_mutex_t mutex;
static atomic_int asleep;
static atomic_int died; /* were told of a dead owner */
static _Atomic uint32_t word, unwanted;

static long lock_word(_Atomic uint32_t *at)
{
    return syscall(SYS_futex, at, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0);
}

static long unlock_word(_Atomic uint32_t *at)
{
    return syscall(SYS_futex, at, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0);
}

static void *wait_for_mutex(void *argument)
{
    atomic_fetch_add(&asleep, 1);
    int error = pthread_mutex_lock(&mutex);
    EXPECT(error == 0 || error == EOWNERDEAD);
    if (error == EOWNERDEAD) {
        atomic_fetch_add(&died, 1);
        EXPECT(pthread_mutex_consistent(&mutex) == 0);
    }
    EXPECT(pthread_mutex_unlock(&mutex) == 0);
    return argument;
}

static void *wait_for_word(void *argument)
{
    atomic_fetch_add(&asleep, 1);
    EXPECT(lock_word(&word) == 0);
    EXPECT((atomic_load(&word) & FUTEX_TID_MASK) == (uint32_t)gettid());
    EXPECT(atomic_load(&word) & FUTEX_OWNER_DIED);
    EXPECT(unlock_word(&word) == 0 && atomic_load(&word) == 0);
    return argument;
}

static void *outlive_main(void *argument)
{
    pthread_t threads[WAITERS + 1];
    double limit = guest_now_s() + LIMIT_S;
    for (int i = 0; i < WAITERS; i++)
        EXPECT(pthread_create(&threads[i], NULL, wait_for_mutex, NULL) == 0);
    EXPECT(pthread_create(&threads[WAITERS], NULL, wait_for_word, NULL) == 0);
    EXPECT(pthread_join(*(pthread_t *)argument, NULL) == 0);
    for (int i = 0; i <= WAITERS; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
    EXPECT(atomic_load(&died) == 1);
    EXPECT(pthread_mutex_lock(&mutex) == 0 && pthread_mutex_unlock(&mutex) == 0);
    while (lock_word(&unwanted) == -1 && errno != ESRCH)
        EXPECT(errno == EINTR && guest_now_s() < limit);
    EXPECT((atomic_load(&unwanted) & FUTEX_TID_MASK) == (uint32_t)getpid());
    exit(guest_passed("robust_main"));
}

int main(void)
{
    static pthread_t self;
    pthread_mutexattr_t attributes;
    pthread_t thread;
    self = pthread_self();
    EXPECT(pthread_mutexattr_init(&attributes) == 0);
    EXPECT(pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT) == 0);
    EXPECT(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) == 0);
    EXPECT(pthread_mutex_init(&mutex, &attributes) == 0 && pthread_mutex_lock(&mutex) == 0);
    atomic_store(&word, (uint32_t)gettid());
    atomic_store(&unwanted, (uint32_t)gettid());
    EXPECT(pthread_create(&thread, NULL, outlive_main, &self) == 0);
    double limit = guest_now_s() + LIMIT_S;
    while (atomic_load(&asleep) < WAITERS + 1)
        EXPECT(guest_now_s() < limit);
    usleep(50000);
    pthread_exit(NULL);
}
