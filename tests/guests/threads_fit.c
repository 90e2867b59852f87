/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two threads end, of which the first has made itself nicer. Those that come then, one after the
 * other, begin as their maker is.
 */
#include "guest.h"

#include <pthread.h>
#include <sys/resource.h>

#define COME_AND_GO 4

static pthread_barrier_t both;

static void *end_together(void *argument)
{
    if (argument)
        EXPECT(setpriority(PRIO_PROCESS, (id_t)gettid(), 5) == 0);
    pthread_barrier_wait(&both);
    return NULL;
}

static void *begin(void *argument)
{
    EXPECT(getpriority(PRIO_PROCESS, (id_t)gettid()) == getpriority(PRIO_PROCESS, (id_t)getpid()));
    return argument;
}

int main(void)
{
    pthread_t threads[2];
    EXPECT(pthread_barrier_init(&both, NULL, 2) == 0);
    for (int i = 0; i < 2; i++)
        EXPECT(pthread_create(&threads[i], NULL, end_together, i == 0 ? &both : NULL) == 0);
    for (int i = 0; i < 2; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < COME_AND_GO; i++) {
        usleep(300000); /* joined is not yet gone */
        EXPECT(pthread_create(&threads[0], NULL, begin, NULL) == 0);
        EXPECT(pthread_join(threads[0], NULL) == 0);
    }
    return guest_passed("threads_fit");
}
