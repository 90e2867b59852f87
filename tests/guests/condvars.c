/* SPDX-License-Identifier: Apache-2.0 */
/* Condition variables, barriers, read-write locks and semaphores of many threads: no lost wake. */
#include "guest.h"

#include <pthread.h>
#include <semaphore.h>

#define THREADS 8
#define ROUNDS  200

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_barrier_t barrier;
static sem_t semaphore;
static int turn;
static long shared;

static void *take_turns(void *argument)
{
    long me = (long)argument;
    for (int i = 0; i < ROUNDS; i++) {
        pthread_mutex_lock(&lock);
        while (turn % THREADS != me)
            pthread_cond_wait(&changed, &lock);
        turn++;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < ROUNDS; i++) {
        sem_wait(&semaphore);
        pthread_rwlock_wrlock(&rwlock);
        shared++;
        pthread_rwlock_unlock(&rwlock);
        sem_post(&semaphore);
        pthread_rwlock_rdlock(&rwlock);
        long seen = shared;
        pthread_rwlock_unlock(&rwlock);
        EXPECT(seen > 0 && seen <= THREADS * ROUNDS);
    }
    return NULL;
}

/* The argument, seconds: a wait of 50 ms that takes longer was not ended by its time. */
int main(int argc, char **argv)
{
    double limit_s = argc > 1 ? atof(argv[1]) : 5;
    pthread_t threads[THREADS];
    EXPECT(pthread_barrier_init(&barrier, NULL, THREADS) == 0);
    EXPECT(sem_init(&semaphore, 0, 2) == 0);
    for (long i = 0; i < THREADS; i++)
        EXPECT(pthread_create(&threads[i], NULL, take_turns, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
    EXPECT(turn == THREADS * ROUNDS && shared == THREADS * ROUNDS);

    struct timespec until;
    double start = guest_now_s();
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 50000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&lock);
    EXPECT(pthread_cond_timedwait(&changed, &lock, &until) == ETIMEDOUT);
    pthread_mutex_unlock(&lock);
    double took_s = guest_now_s() - start;
    EXPECT(took_s > 0.045);
    EXPECT(took_s < limit_s);
    return guest_passed("condvars");
}
