/* SPDX-License-Identifier: Apache-2.0 */
/* A signal ends a blocked call with EINTR, or restarts it under SA_RESTART; none is lost. */
#include "guest.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

static atomic_int handled;
static pthread_t blocked;
static int pipe_fds[2];

static void on_signal(int number)
{
    (void)number;
    atomic_fetch_add(&handled, 1);
}

static void *interrupt(void *argument)
{
    int rounds = *(int *)argument;
    for (int i = 0; i < rounds; i++) {
        usleep(20000);
        EXPECT(pthread_kill(blocked, SIGUSR1) == 0);
    }
    usleep(20000);
    EXPECT(write(pipe_fds[1], "x", 1) == 1);
    return argument;
}

int main(void)
{
    char byte;
    int rounds = 3;
    pthread_t thread;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    blocked = pthread_self();
    EXPECT(pipe(pipe_fds) == 0);
    EXPECT(sigaction(SIGUSR1, &action, NULL) == 0);
    EXPECT(pthread_create(&thread, NULL, interrupt, &rounds) == 0);
    EXPECT(read(pipe_fds[0], &byte, 1) == 1 && byte == 'x');
    EXPECT(pthread_join(thread, NULL) == 0);
    EXPECT(atomic_load(&handled) == 3);

    action.sa_flags = 0;
    rounds = 1;
    EXPECT(sigaction(SIGUSR1, &action, NULL) == 0);
    EXPECT(pthread_create(&thread, NULL, interrupt, &rounds) == 0);
    EXPECT(read(pipe_fds[0], &byte, 1) == -1 && errno == EINTR);
    EXPECT(atomic_load(&handled) == 4);
    EXPECT(read(pipe_fds[0], &byte, 1) == 1);
    EXPECT(pthread_join(thread, NULL) == 0);

    struct timespec wanted = {.tv_sec = 10};
    struct timespec left;
    EXPECT(pthread_create(&thread, NULL, interrupt, &rounds) == 0);
    EXPECT(nanosleep(&wanted, &left) == -1 && errno == EINTR); /* never restarted */
    EXPECT(left.tv_sec == 9);
    EXPECT(pthread_join(thread, NULL) == 0);

    sigset_t none;
    sigemptyset(&none);
    EXPECT(pthread_create(&thread, NULL, interrupt, &rounds) == 0);
    EXPECT(sigsuspend(&none) == -1 && errno == EINTR);
    EXPECT(pthread_join(thread, NULL) == 0);
    EXPECT(atomic_load(&handled) == 6);
    return guest_passed("signal_interrupts");
}
