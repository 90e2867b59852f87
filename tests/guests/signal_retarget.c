/* SPDX-License-Identifier: Apache-2.0 */
/* A signal of the process that a thread was to take, and then blocks, is taken by another one. */
#include "guest.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>

#define ROUNDS  30
#define LIMIT_S 10

static atomic_int first;
static atomic_int second;
static atomic_int round_number;
static atomic_bool late;

/* Runs with SIGUSR2 blocked, which may have come together with SIGUSR1: the other thread takes it.
 */
static void on_first(int number)
{
    double limit = guest_now_s() + LIMIT_S;
    (void)number;
    while (atomic_load(&second) < atomic_load(&round_number) && guest_now_s() < limit)
        ;
    if (atomic_load(&second) < atomic_load(&round_number))
        atomic_store(&late, true);
    atomic_fetch_add(&first, 1);
}

static void on_second(int number)
{
    (void)number;
    atomic_fetch_add(&second, 1);
}

static void *helper(void *argument)
{
    sigset_t open;
    sigemptyset(&open);
    for (;;)
        sigsuspend(&open);
    return argument;
}

/* From a third thread, so that the main one runs and is the one to be told of both. */
static void *sender(void *argument)
{
    pthread_t *main_thread = argument;
    for (int i = 1; i <= ROUNDS; i++) {
        while (atomic_load(&first) < i - 1)
            usleep(100);
        atomic_store(&round_number, i);
        EXPECT(pthread_kill(*main_thread, SIGUSR1) == 0);
        EXPECT(kill(getpid(), SIGUSR2) == 0);
    }
    return NULL;
}

int main(void)
{
    pthread_t self = pthread_self();
    pthread_t threads[2];
    sigset_t both;
    struct sigaction action = {.sa_handler = on_second};

    sigemptyset(&both);
    sigaddset(&both, SIGUSR2);
    EXPECT(sigaction(SIGUSR2, &action, NULL) == 0);
    action = (struct sigaction){.sa_handler = on_first, .sa_mask = both};
    EXPECT(sigaction(SIGUSR1, &action, NULL) == 0);
    sigaddset(&both, SIGUSR1);
    EXPECT(pthread_sigmask(SIG_BLOCK, &both, NULL) == 0);
    EXPECT(pthread_create(&threads[0], NULL, helper, NULL) == 0);
    usleep(100000);
    EXPECT(pthread_create(&threads[1], NULL, sender, &self) == 0);
    EXPECT(pthread_sigmask(SIG_UNBLOCK, &both, NULL) == 0);
    while (atomic_load(&first) < ROUNDS && !atomic_load(&late))
        ;
    EXPECT(!atomic_load(&late));
    EXPECT(atomic_load(&second) == ROUNDS);
    return guest_passed("signal_retarget");
}
