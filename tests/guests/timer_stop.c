/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stopping a timer: it has expired and its signal was handled, or time was left and it never comes;
 * also where another thread is told of it. And a new timer with the number of a deleted one gets
 * nothing of that one's.
 */
#include "guest.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>

#define ROUNDS 200

static volatile sig_atomic_t fired;
static volatile sig_atomic_t value;
static atomic_int stopped;

static void on_alarm(int number)
{
    (void)number;
    fired++;
}

static void on_timer(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    value = info->si_value.sival_int;
}

static void spin_until(double end_s)
{
    while (guest_now_s() < end_s)
        ;
}

/* Stopped a little before and a little after it is due. */
static void *stop_itimer(void *argument)
{
    const struct itimerval none = {{0, 0}, {0, 0}};
    sigset_t set;
    int expired = 0;
    EXPECT(sigemptyset(&set) == 0 && sigaddset(&set, SIGALRM) == 0);
    EXPECT(pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
    for (int i = 0; i < ROUNDS; i++) {
        const struct itimerval soon = {{0, 0}, {0, 2000}};
        struct itimerval left;
        fired = 0;
        double start = guest_now_s();
        EXPECT(setitimer(ITIMER_REAL, &soon, NULL) == 0);
        spin_until(start + 0.0015 + i * 0.000005);
        EXPECT(setitimer(ITIMER_REAL, &none, &left) == 0);
        int is_over = left.it_value.tv_sec == 0 && left.it_value.tv_usec == 0;
        EXPECT(fired == is_over);
        expired += is_over;
        spin_until(guest_now_s() + 0.0005);
        EXPECT(fired == is_over);
    }
    EXPECT(expired > 0);
    atomic_store(&stopped, 1);
    return argument;
}

/* The main thread, which is told of what comes, blocks it: the other one is to take it. */
static void stop_beside(void)
{
    pthread_t thread;
    sigset_t set, old;
    EXPECT(sigemptyset(&set) == 0 && sigaddset(&set, SIGALRM) == 0);
    EXPECT(pthread_sigmask(SIG_BLOCK, &set, &old) == 0);
    EXPECT(pthread_create(&thread, NULL, stop_itimer, NULL) == 0);
    while (!atomic_load(&stopped))
        ;
    EXPECT(pthread_join(thread, NULL) == 0);
    EXPECT(pthread_sigmask(SIG_SETMASK, &old, NULL) == 0);
}

static void deleted(void)
{
    struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};

    EXPECT(sigaction(SIGRTMIN, &action, NULL) == 0);
    for (int i = 0; i < ROUNDS; i++) {
        const struct itimerspec soon = {{0, 0}, {0, 1000000}};
        timer_t timer, next;
        double start = guest_now_s();
        event.sigev_value.sival_int = i;
        EXPECT(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
        EXPECT(timer_settime(timer, 0, &soon, NULL) == 0);
        spin_until(start + 0.001 + i * 0.000002);
        EXPECT(timer_delete(timer) == 0);
        event.sigev_value.sival_int = -1; /* never set: never comes */
        EXPECT(timer_create(CLOCK_MONOTONIC, &event, &next) == 0);
        spin_until(guest_now_s() + 0.0005);
        EXPECT(value >= 0 && timer_delete(next) == 0);
    }
}

int main(void)
{
    EXPECT(signal(SIGALRM, on_alarm) != SIG_ERR);
    (void)stop_itimer(NULL);
    atomic_store(&stopped, 0);
    stop_beside();
    deleted();
    return guest_passed("timer_stop");
}
