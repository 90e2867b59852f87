/* SPDX-License-Identifier: Apache-2.0 */
/* A robust mutex whose owner's thread ended says so; a priority-inheriting one works. */
#include "guest.h"

#include <pthread.h>

static pthread_mutex_t robust;
static pthread_mutex_t inheriting;
static long counter;

static void *take_and_die(void *argument)
{
    EXPECT(pthread_mutex_lock(&robust) == 0);
    return argument;
}

static void *count(void *argument)
{
    for (int i = 0; i < 500; i++) {
        EXPECT(pthread_mutex_lock(&inheriting) == 0);
        counter++;
        EXPECT(pthread_mutex_unlock(&inheriting) == 0);
    }
    return argument;
}

int main(void)
{
    pthread_mutexattr_t attributes;
    pthread_t threads[4];

    EXPECT(pthread_mutexattr_init(&attributes) == 0);
    EXPECT(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) == 0);
    EXPECT(pthread_mutex_init(&robust, &attributes) == 0);
    EXPECT(pthread_create(&threads[0], NULL, take_and_die, NULL) == 0);
    EXPECT(pthread_join(threads[0], NULL) == 0);
    EXPECT(pthread_mutex_lock(&robust) == EOWNERDEAD);
    EXPECT(pthread_mutex_consistent(&robust) == 0);
    EXPECT(pthread_mutex_unlock(&robust) == 0);
    EXPECT(pthread_mutex_lock(&robust) == 0 && pthread_mutex_unlock(&robust) == 0);

    EXPECT(pthread_mutexattr_init(&attributes) == 0);
    EXPECT(pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT) == 0);
    EXPECT(pthread_mutex_init(&inheriting, &attributes) == 0);
    for (int i = 0; i < 4; i++)
        EXPECT(pthread_create(&threads[i], NULL, count, NULL) == 0);
    for (int i = 0; i < 4; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
    EXPECT(counter == 2000);
    return guest_passed("robust_mutex");
}
