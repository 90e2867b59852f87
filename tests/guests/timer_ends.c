/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timers of threads that end: on their processor time, which stands still from then on, and to be
 * told by signal, which nobody is any more. Others with the same numbers, of timers or of threads,
 * have nothing to do with them.
 */
#include "guest.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#define ROUNDS  300
#define LIMIT_S 30

static const struct itimerspec never_due = {{0, 0}, {100000, 0}};
static const struct itimerspec often = {{0, 1000000}, {0, 1000000}};
static atomic_int made;
static atomic_int told;

static void on_signal(int number)
{
    (void)number;
    atomic_fetch_add(&told, 1);
}

static void *time_itself(void *argument)
{
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    timer_t *timer = argument;
    EXPECT(timer_create(CLOCK_THREAD_CPUTIME_ID, &event, timer) == 0);
    EXPECT(timer_settime(*timer, 0, &never_due, NULL) == 0);
    atomic_store(&made, 1);
    return argument;
}

/* Its timer is deleted as the thread ends, and another made at once, which goes on. */
static void number_given_anew(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    for (int i = 0; i < ROUNDS; i++) {
        struct itimerspec left;
        pthread_t thread;
        timer_t timer, next;
        atomic_store(&made, 0);
        EXPECT(pthread_create(&thread, NULL, time_itself, &timer) == 0);
        while (!atomic_load(&made))
            ;
        for (volatile int spin = 0; spin < i * 50; spin++)
            ;
        EXPECT(timer_delete(timer) == 0);
        EXPECT(timer_create(CLOCK_MONOTONIC, &event, &next) == 0);
        EXPECT(timer_settime(next, 0, &never_due, NULL) == 0);
        EXPECT(pthread_join(thread, NULL) == 0);
        EXPECT(timer_gettime(next, &left) == 0 && left.it_value.tv_sec > 0);
        EXPECT(timer_delete(next) == 0);
    }
}

/* Set again and again by another thread until its own has gone; then it cannot be any more. */
static void clock_gone(void)
{
    double limit = guest_now_s() + LIMIT_S;
    struct itimerspec left;
    pthread_t thread;
    timer_t timer;
    atomic_store(&made, 0);
    EXPECT(pthread_create(&thread, NULL, time_itself, &timer) == 0);
    while (!atomic_load(&made))
        ;
    while (timer_settime(timer, 0, &never_due, NULL) == 0)
        EXPECT(guest_now_s() < limit);
    EXPECT(errno == ESRCH);
    EXPECT(pthread_join(thread, NULL) == 0);
    EXPECT(timer_gettime(timer, &left) == 0 && left.it_value.tv_sec == 0);
    EXPECT(timer_settime(timer, 0, &never_due, NULL) == -1 && errno == ESRCH);
    EXPECT(timer_delete(timer) == 0);
    EXPECT(timer_settime(timer, 0, &never_due, NULL) == -1 && errno == EINVAL);
}

static void *be_told(void *argument)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN};
    event._sigev_un._tid = gettid();
    EXPECT(timer_create(CLOCK_MONOTONIC, &event, argument) == 0);
    EXPECT(timer_settime(*(timer_t *)argument, 0, &often, NULL) == 0);
    double limit = guest_now_s() + LIMIT_S;
    while (!atomic_load(&told))
        EXPECT(guest_now_s() < limit);
    return argument;
}

static void *be_told_nothing(void *argument)
{
    double end = guest_now_s() + 0.1;
    atomic_store(&told, 0);
    while (guest_now_s() < end)
        ;
    EXPECT(atomic_load(&told) == 0);
    return argument;
}

static void nobody_told(void)
{
    struct itimerspec left;
    pthread_t thread;
    timer_t timer;
    EXPECT(pthread_create(&thread, NULL, be_told, &timer) == 0 && pthread_join(thread, NULL) == 0);
    EXPECT(pthread_create(&thread, NULL, be_told_nothing, NULL) == 0);
    EXPECT(pthread_join(thread, NULL) == 0);
    EXPECT(timer_gettime(timer, &left) == 0 &&
           left.it_interval.tv_nsec == often.it_interval.tv_nsec);
    EXPECT(timer_delete(timer) == 0 && timer_delete(timer) == -1 && errno == EINVAL);
}

/* What waits of a timer that was deleted counts for none that has its number. */
static void signal_left(void)
{
    const struct timespec now = {0}, some = {0, 50000000};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1};
    sigset_t set;
    timer_t timer, next;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    EXPECT(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    EXPECT(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    EXPECT(timer_settime(timer, 0, &often, NULL) == 0 && nanosleep(&some, NULL) == 0);
    EXPECT(sigtimedwait(&set, NULL, &now) == SIGRTMIN + 1 && timer_getoverrun(timer) > 0);
    EXPECT(nanosleep(&some, NULL) == 0 && timer_delete(timer) == 0);
    EXPECT(timer_create(CLOCK_MONOTONIC, &event, &next) == 0);
    (void)sigtimedwait(&set, NULL, &now); /* newer systems forget it */
    EXPECT(timer_getoverrun(next) == 0 && timer_delete(next) == 0);
}

int main(void)
{
    EXPECT(signal(SIGRTMIN, on_signal) != SIG_ERR);
    number_given_anew();
    for (int i = 0; i < 20; i++)
        clock_gone();
    nobody_told();
    signal_left();
    return guest_passed("timer_ends");
}
