/* SPDX-License-Identifier: Apache-2.0 */
/* Threads come and go: 1000 one after the other, 64 at once, each with its own thread-locals. */
#include "guest.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>

static __thread long mine = 42;
static atomic_long total;

static void *brief(void *argument)
{
    EXPECT(mine == 42);
    mine = (long)argument;
    atomic_fetch_add(&total, mine);
    EXPECT(mine == (long)argument);
    return (void *)(mine * 2);
}

static void *meet(void *barrier)
{
    pid_t tid = (pid_t)syscall(SYS_gettid);
    EXPECT(tid != getpid());
    pthread_barrier_wait(barrier);
    EXPECT(tid == (pid_t)syscall(SYS_gettid));
    return (void *)(long)tid;
}

int main(void)
{
    for (long i = 0; i < 1000; i++) {
        pthread_t thread;
        void *result;
        EXPECT(pthread_create(&thread, NULL, brief, (void *)i) == 0);
        EXPECT(pthread_join(thread, &result) == 0 && result == (void *)(i * 2));
    }
    EXPECT(atomic_load(&total) == 999 * 1000 / 2);

    pthread_t threads[64];
    long tids[64];
    pthread_barrier_t barrier;
    EXPECT(pthread_barrier_init(&barrier, NULL, 64) == 0);
    for (int i = 0; i < 64; i++)
        EXPECT(pthread_create(&threads[i], NULL, meet, &barrier) == 0);
    for (int i = 0; i < 64; i++) {
        EXPECT(pthread_join(threads[i], (void **)&tids[i]) == 0);
        for (int j = 0; j < i; j++)
            EXPECT(tids[i] != tids[j]);
    }
    EXPECT(mine == 42);
    return guest_passed("threads_many");
}
