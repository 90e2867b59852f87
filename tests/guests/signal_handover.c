/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No wake-up is lost: two threads hand a turn back and forth by sigsuspend and pthread_kill, and a
 * reader that is signalled all the time loses no byte and sees no EINTR with SA_RESTART.
 */
#include "guest.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#define TURNS 1000
#define BYTES 500

static pthread_t players[2];
static atomic_int ready;
static atomic_int turn;
static int pipe_ends[2];
static atomic_int received;

static void nothing(int number)
{
    (void)number;
}

static void *play(void *argument)
{
    int me = argument != NULL;
    sigset_t block;
    sigset_t open;
    sigemptyset(&block);
    sigaddset(&block, SIGUSR2);
    EXPECT(pthread_sigmask(SIG_BLOCK, &block, &open) == 0);
    atomic_fetch_add(&ready, 1);
    while (atomic_load(&ready) < 3)
        __builtin_ia32_pause();
    for (int i = 0; i < TURNS; i++) {
        while (atomic_load(&turn) != me)
            EXPECT(sigsuspend(&open) == -1 && errno == EINTR);
        atomic_store(&turn, !me);
        EXPECT(pthread_kill(players[!me], SIGUSR2) == 0);
    }
    /* Neither may end while the other may still signal it. */
    atomic_fetch_add(&ready, 1);
    while (atomic_load(&ready) < 5)
        __builtin_ia32_pause();
    return argument;
}

static void *reader(void *argument)
{
    char byte;
    while (read(pipe_ends[0], &byte, 1) == 1)
        atomic_fetch_add(&received, 1);
    return argument;
}

int main(void)
{
    pthread_t thread;
    struct sigaction restart = {.sa_handler = nothing, .sa_flags = SA_RESTART};

    alarm(60); /* a lost wake-up ends here */
    signal(SIGUSR2, nothing);
    for (int i = 0; i < 2; i++)
        EXPECT(pthread_create(&players[i], NULL, play, i ? &players : NULL) == 0);
    atomic_fetch_add(&ready, 1);
    for (int i = 0; i < 2; i++)
        EXPECT(pthread_join(players[i], NULL) == 0);

    EXPECT(sigaction(SIGUSR1, &restart, NULL) == 0 && pipe(pipe_ends) == 0);
    EXPECT(pthread_create(&thread, NULL, reader, NULL) == 0);
    for (int i = 0; i < BYTES; i++) {
        EXPECT(pthread_kill(thread, SIGUSR1) == 0);
        EXPECT(write(pipe_ends[1], "x", 1) == 1);
    }
    EXPECT(close(pipe_ends[1]) == 0 && pthread_join(thread, NULL) == 0);
    EXPECT(atomic_load(&received) == BYTES);
    return guest_passed("signal_handover");
}
