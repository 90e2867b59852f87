/* SPDX-License-Identifier: Apache-2.0 */
/* exit() in a thread ends the program though the others sleep, spin and read. */
#include "guest.h"

#include <pthread.h>

static void *spin(void *argument)
{
    for (volatile long i = 0;; i++)
        ;
    return argument;
}

static void *block(void *argument)
{
    char byte;
    int fds[2];
    EXPECT(pipe(fds) == 0);
    EXPECT(read(fds[0], &byte, 1) == 1);
    return argument;
}

static void *leave(void *argument)
{
    usleep(50000);
    puts("exit_from_thread: ok");
    exit(9);
    return argument;
}

int main(void)
{
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, spin, NULL) == 0);
    EXPECT(pthread_create(&thread, NULL, block, NULL) == 0);
    EXPECT(pthread_create(&thread, NULL, leave, NULL) == 0);
    pthread_join(thread, NULL);
    sleep(100);
    return 1;
}
