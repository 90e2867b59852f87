/* SPDX-License-Identifier: Apache-2.0 */
/* Interval timers, POSIX timers by signal and by thread, alarm, timerfd, and sleeping. */
#include "guest.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/time.h>
#include <sys/timerfd.h>

static atomic_int fired;
static atomic_int alarms; /* apart: a SIGEV_THREAD timer's last threads may outlive it */
static atomic_int value;

static void on_timer(int number, siginfo_t *info, void *context)
{
    (void)context;
    if (info->si_code == SI_TIMER)
        atomic_store(&value, info->si_value.sival_int);
    atomic_fetch_add(number == SIGALRM ? &alarms : &fired, 1);
}

static void on_thread_timer(union sigval argument)
{
    atomic_store(&value, argument.sival_int);
    atomic_fetch_add(&fired, 1);
}

static void wait_for(atomic_int *counter, int count)
{
    double limit = guest_now_s() + 20;
    while (atomic_load(counter) < count) {
        EXPECT(guest_now_s() < limit);
        usleep(1000);
    }
}

static void run_posix_timer(struct sigevent *event, int count)
{
    timer_t timer;
    struct itimerspec every = {{0, 5000000}, {0, 5000000}};
    struct itimerspec left;

    atomic_store(&fired, 0);
    EXPECT(timer_create(CLOCK_MONOTONIC, event, &timer) == 0);
    EXPECT(timer_settime(timer, 0, &every, NULL) == 0);
    wait_for(&fired, count);
    EXPECT(timer_gettime(timer, &left) == 0 && left.it_interval.tv_nsec == 5000000);
    EXPECT(timer_delete(timer) == 0);
    EXPECT(atomic_load(&value) == event->sigev_value.sival_int);
}

/* Of a timer whose signal is blocked one signal waits, and counts what came meanwhile. */
static void blocked_timer(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1};
    struct itimerspec every = {{0, 20000000}, {0, 20000000}};
    const struct timespec at_once = {0, 0};
    int more = 0;
    sigset_t set;
    siginfo_t info;
    timer_t timer;

    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    EXPECT(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    event.sigev_value.sival_int = 79;
    EXPECT(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    EXPECT(timer_settime(timer, 0, &every, NULL) == 0);
    usleep(500000);
    EXPECT(sigtimedwait(&set, &info, &at_once) == SIGRTMIN + 1);
    EXPECT(info.si_value.sival_int == 79 && info.si_overrun >= 15);
    EXPECT(timer_getoverrun(timer) == info.si_overrun);
    while (sigtimedwait(&set, &info, &at_once) == SIGRTMIN + 1)
        more++;
    EXPECT(more < 8); /* those that came just now */
    EXPECT(timer_delete(timer) == 0);
    while (sigtimedwait(&set, &info, &at_once) == SIGRTMIN + 1)
        ;
    EXPECT(sigprocmask(SIG_UNBLOCK, &set, NULL) == 0);
}

#define CPU_NS       20000000L    /* what a timer is set to, of processor time */
#define CPU_LIMIT_NS 10000000000L /* by then it has come, however long that takes */

static long cpu_ns(void)
{
    struct timespec now;
    EXPECT(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) == 0);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

static timer_t cpu_timer_start(long ns, int flags)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    struct itimerspec once = {{0, 0}, {ns / 1000000000L, ns % 1000000000L}};
    timer_t timer;

    event.sigev_value.sival_int = 80;
    atomic_store(&fired, 0);
    EXPECT(timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer) == 0);
    EXPECT(timer_settime(timer, flags, &once, NULL) == 0);
    return timer;
}

/* On the processor time of the thread that makes it. */
static void *run_cpu_timer(void *argument)
{
    for (int i = 0; i < 2; i++) {
        long start = cpu_ns();
        timer_t timer = cpu_timer_start(i ? start + CPU_NS : CPU_NS, i ? TIMER_ABSTIME : 0);
        while (!atomic_load(&fired))
            EXPECT(cpu_ns() - start < CPU_LIMIT_NS);
        EXPECT(cpu_ns() - start >= CPU_NS);
        EXPECT(atomic_load(&value) == 80 && timer_delete(timer) == 0);
    }
    return argument;
}

static void *leave_cpu_timer(void *argument)
{
    *(timer_t *)argument = cpu_timer_start(10 * CPU_NS, 0);
    return argument;
}

static void *outlive_cpu_timer(void *argument)
{
    while (cpu_ns() < 20 * CPU_NS)
        ;
    EXPECT(!atomic_load(&fired));
    return argument;
}

/* One after the other, with the same number, and on whatever they may inherit of one another. */
static void cpu_timers(void)
{
    pthread_t thread;
    timer_t left;
    (void)run_cpu_timer(NULL);
    for (int i = 0; i < 2; i++) {
        EXPECT(pthread_create(&thread, NULL, run_cpu_timer, NULL) == 0);
        EXPECT(pthread_join(thread, NULL) == 0);
    }
    EXPECT(pthread_create(&thread, NULL, leave_cpu_timer, &left) == 0);
    EXPECT(pthread_join(thread, NULL) == 0);
    EXPECT(pthread_create(&thread, NULL, outlive_cpu_timer, NULL) == 0);
    EXPECT(pthread_join(thread, NULL) == 0 && timer_delete(left) == 0);
}

/* The argument, seconds: what is to come within one has come within these. */
int main(int argc, char **argv)
{
    double limit_s = argc > 1 ? atof(argv[1]) : 5, took_s;
    struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO};
    EXPECT(sigaction(SIGALRM, &action, NULL) == 0);
    EXPECT(sigaction(SIGRTMIN, &action, NULL) == 0);

    double start = guest_now_s();
    struct itimerval every = {{0, 10000}, {0, 10000}};
    EXPECT(setitimer(ITIMER_REAL, &every, NULL) == 0);
    wait_for(&alarms, 5);
    EXPECT(guest_now_s() - start >= 0.049);
    EXPECT(getitimer(ITIMER_REAL, &every) == 0 && every.it_interval.tv_usec == 10000);
    every = (struct itimerval){{0, 0}, {0, 0}};
    EXPECT(setitimer(ITIMER_REAL, &every, NULL) == 0);

    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    event.sigev_value.sival_int = 77;
    run_posix_timer(&event, 5);
    event = (struct sigevent){.sigev_notify = SIGEV_THREAD};
    event.sigev_notify_function = on_thread_timer;
    event.sigev_value.sival_int = 78;
    run_posix_timer(&event, 3);

    atomic_store(&alarms, 0);
    start = guest_now_s();
    EXPECT(alarm(1) == 0);
    EXPECT(pause() == -1 && errno == EINTR);
    EXPECT(atomic_load(&alarms) == 1);
    took_s = guest_now_s() - start;
    EXPECT(took_s >= 0.99);
    EXPECT(took_s < limit_s);

    uint64_t expirations = 0;
    struct itimerspec soon = {{0, 0}, {0, 20000000}};
    int fd = timerfd_create(CLOCK_MONOTONIC, 0);
    EXPECT(fd >= 0 && timerfd_settime(fd, 0, &soon, NULL) == 0);
    EXPECT(read(fd, &expirations, 8) == 8 && expirations == 1);

    start = guest_now_s();
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += 1;
    EXPECT(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == 0);
    took_s = guest_now_s() - start;
    EXPECT(took_s >= 0.99);
    EXPECT(took_s < limit_s);
    blocked_timer();
    cpu_timers();
    return guest_passed("timers");
}
