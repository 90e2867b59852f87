/* SPDX-License-Identifier: Apache-2.0 */
/* A handler that interrupts the wait for a priority-inheriting lock does not end it: who comes out
 * of it has the lock, for that is what the C library takes for granted. */
#include "guest.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>

#define SIGNALS 20

static _Atomic uint32_t word;
static pthread_mutex_t mutex;
static atomic_int handled;
static atomic_int owners;

static void on_signal(int number)
{
    (void)number;
    atomic_fetch_add(&handled, 1);
}

static void *by_call(void *argument)
{
    EXPECT(syscall(SYS_futex, &word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0) == 0);
    EXPECT((atomic_load(&word) & FUTEX_TID_MASK) == (uint32_t)gettid());
    EXPECT(syscall(SYS_futex, &word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0) == 0);
    return argument;
}

static void *by_library(void *argument)
{
    EXPECT(pthread_mutex_lock(&mutex) == 0);
    EXPECT(atomic_fetch_add(&owners, 1) == 0);
    atomic_fetch_sub(&owners, 1);
    EXPECT(pthread_mutex_unlock(&mutex) == 0);
    return argument;
}

/* Signals a thread that waits, one after the other so that each interrupts it anew. */
static void interrupt(pthread_t thread)
{
    double limit = guest_now_s() + 20;
    for (int i = 0; i < SIGNALS; i++) {
        int before = atomic_load(&handled);
        usleep(5000);
        EXPECT(pthread_kill(thread, SIGUSR1) == 0);
        while (atomic_load(&handled) == before)
            EXPECT(guest_now_s() < limit);
    }
}

int main(void)
{
    struct sigaction action = {.sa_handler = on_signal}; /* without SA_RESTART */
    pthread_mutexattr_t attributes;
    pthread_t thread;

    EXPECT(sigaction(SIGUSR1, &action, NULL) == 0);
    atomic_store(&word, (uint32_t)gettid());
    EXPECT(pthread_create(&thread, NULL, by_call, NULL) == 0);
    interrupt(thread);
    EXPECT((atomic_load(&word) & FUTEX_TID_MASK) == (uint32_t)gettid());
    EXPECT(syscall(SYS_futex, &word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0) == 0);
    EXPECT(pthread_join(thread, NULL) == 0);

    EXPECT(pthread_mutexattr_init(&attributes) == 0);
    EXPECT(pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT) == 0);
    EXPECT(pthread_mutex_init(&mutex, &attributes) == 0);
    EXPECT(pthread_mutex_lock(&mutex) == 0);
    atomic_fetch_add(&owners, 1);
    EXPECT(pthread_create(&thread, NULL, by_library, NULL) == 0);
    interrupt(thread);
    atomic_fetch_sub(&owners, 1);
    EXPECT(pthread_mutex_unlock(&mutex) == 0);
    EXPECT(pthread_join(thread, NULL) == 0);
    return guest_passed("futex_interrupted");
}
