/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that come and go: joined, detached and cancelled by the hundred, from several threads at
 * once; and a mutex with priority inheritance whose owner ended says so.
 */
#include "guest.h"

#include <pthread.h>
#include <stdatomic.h>

#define SPAWNERS  4
#define JOINS     100
#define DETACHED  400
#define CANCELLED 100

static atomic_int detached;
static atomic_int reading;
static atomic_int cleaned;
static pthread_mutex_t inheriting;

static void *same(void *argument)
{
    return argument;
}

static void *spawn(void *argument)
{
    for (int i = 0; i < JOINS; i++) {
        pthread_t thread;
        void *result = NULL;
        EXPECT(pthread_create(&thread, NULL, same, &detached) == 0);
        EXPECT(pthread_join(thread, &result) == 0 && result == &detached);
    }
    return argument;
}

static void *come_and_go(void *argument)
{
    atomic_fetch_add(&detached, 1);
    return argument;
}

static void detach_many(void)
{
    double limit = guest_now_s() + 60;
    pthread_attr_t attributes;
    EXPECT(pthread_attr_init(&attributes) == 0);
    EXPECT(pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0);
    for (int i = 0; i < DETACHED; i++) {
        pthread_t thread;
        int error;
        while ((error = pthread_create(&thread, &attributes, come_and_go, NULL)) == EAGAIN)
            EXPECT(guest_now_s() < limit); /* all still ending: wait for one */
        EXPECT(error == 0);
    }
    while (atomic_load(&detached) < DETACHED)
        EXPECT(guest_now_s() < limit);
}

static void count_cleanup(void *argument)
{
    (void)argument;
    atomic_fetch_add(&cleaned, 1);
}

static void *read_for_ever(void *argument)
{
    const int *ends = argument;
    char byte;
    pthread_cleanup_push(count_cleanup, NULL);
    atomic_fetch_add(&reading, 1);
    while (read(ends[0], &byte, 1) >= 0)
        ;
    pthread_cleanup_pop(0);
    return NULL;
}

static void cancel_many(void)
{
    int ends[2];
    EXPECT(pipe(ends) == 0);
    for (int i = 0; i < CANCELLED; i++) {
        pthread_t thread;
        void *result = NULL;
        int before = atomic_load(&reading);
        EXPECT(pthread_create(&thread, NULL, read_for_ever, ends) == 0);
        /* Every other one is about to read by then, or has just begun. */
        while (i % 2 && atomic_load(&reading) == before)
            usleep(100);
        EXPECT(pthread_cancel(thread) == 0);
        EXPECT(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
    }
    EXPECT(atomic_load(&cleaned) == atomic_load(&reading));
}

static void *take(void *argument)
{
    EXPECT(pthread_mutex_lock(&inheriting) == 0);
    return argument;
}

static void owner_ends(void)
{
    pthread_mutexattr_t attributes;
    pthread_t thread;
    EXPECT(pthread_mutexattr_init(&attributes) == 0);
    EXPECT(pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT) == 0);
    EXPECT(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) == 0);
    EXPECT(pthread_mutex_init(&inheriting, &attributes) == 0);
    EXPECT(pthread_create(&thread, NULL, take, NULL) == 0 && pthread_join(thread, NULL) == 0);
    EXPECT(pthread_mutex_lock(&inheriting) == EOWNERDEAD);
}

int main(void)
{
    pthread_t spawners[SPAWNERS];
    for (int i = 0; i < SPAWNERS; i++)
        EXPECT(pthread_create(&spawners[i], NULL, spawn, NULL) == 0);
    for (int i = 0; i < SPAWNERS; i++)
        EXPECT(pthread_join(spawners[i], NULL) == 0);
    detach_many();
    cancel_many();
    owner_ends();
    return guest_passed("thread_ends");
}
