/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timers that Linux refuses, by clock and by thread; one signal is always kept for a timer, however
 * many are queued; and a signal to a thread that is not there ends nothing, whichever it is.
 */
#include "guest.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>

#define FIRST_CLOCK (-33)
#define NO_CLOCK    16
#define NOBODY      0x3ffffff0
#define QUEUED_MAX  2000000

static int created(int clock, struct sigevent *event)
{
    int id;
    if (syscall(SYS_timer_create, clock, event, &id) != 0)
        return errno;
    EXPECT(syscall(SYS_timer_delete, id) == 0);
    return 0;
}

/* As the kernel's posix-timers have them: of what a clock cannot do EOPNOTSUPP, else EINVAL. */
static int expected(int clock)
{
    static const int numbered[NO_CLOCK] = {
        [4] = EOPNOTSUPP, [5] = EOPNOTSUPP, [6] = EOPNOTSUPP, [10] = EINVAL,
        [12] = EINVAL,    [13] = EINVAL,    [14] = EINVAL,    [15] = EINVAL,
    };
    if (clock >= 0)
        return numbered[clock];
    if ((clock & 7) == 3)
        return EOPNOTSUPP;
    return (clock & 3) == 3 || ~(clock >> 3) != 0 ? EINVAL : 0;
}

static void clocks(void)
{
    struct sigevent bad = {.sigev_signo = 99};
    for (int clock = FIRST_CLOCK; clock < NO_CLOCK; clock++) {
        /* Alarm clocks depend on the host's devices and our rights; low numbers may be processes */
        if (clock == 8 || clock == 9 || (clock < -8 && expected(clock) != EOPNOTSUPP))
            continue;
        EXPECT(created(clock, NULL) == expected(clock));
    }
    EXPECT(created((int)(~(unsigned)NOBODY << 3 | 2), NULL) == EINVAL);
    EXPECT(created((int)(~(unsigned)NOBODY << 3 | 6), NULL) == EINVAL);
    EXPECT(created((int)(~(unsigned)getpid() << 3 | 2), NULL) == 0);
    EXPECT(created((int)(~(unsigned)gettid() << 3 | 6), NULL) == 0);
    EXPECT(created(4, (struct sigevent *)8) == EFAULT);
    EXPECT(created(4, &bad) == EOPNOTSUPP && created(1, &bad) == EINVAL);
}

static timer_t timer_for(int number)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = number};
    timer_t timer;
    event.sigev_value.sival_int = number;
    EXPECT(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    return timer;
}

static void taken(const sigset_t *set, int number)
{
    const struct timespec limit = {20, 0};
    siginfo_t info;
    EXPECT(sigtimedwait(set, &info, &limit) == number);
    EXPECT(info.si_code == SI_TIMER && info.si_value.sival_int == number);
}

/* Two timers with one standard signal, and one whose signal comes after all room is taken. */
static void queue_is_full(void)
{
    const struct itimerspec soon = {.it_value = {0, 1000000}};
    timer_t first = timer_for(SIGUSR1), second = timer_for(SIGUSR1), late = timer_for(SIGRTMIN + 1);
    sigset_t set, only;
    int queued = 0;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN + 1);
    sigaddset(&set, SIGRTMIN + 2);
    EXPECT(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    while (queued < QUEUED_MAX &&
           sigqueue(getpid(), SIGRTMIN + 2, (union sigval){.sival_int = queued}) == 0)
        queued++;
    EXPECT(queued < QUEUED_MAX && errno == EAGAIN);
    EXPECT(timer_settime(late, 0, &soon, NULL) == 0);
    EXPECT(timer_settime(first, 0, &soon, NULL) == 0);
    EXPECT(timer_settime(second, 0, &soon, NULL) == 0);
    usleep(100000);
    sigemptyset(&only);
    sigaddset(&only, SIGRTMIN + 1);
    taken(&only, SIGRTMIN + 1);
    sigemptyset(&only);
    sigaddset(&only, SIGUSR1);
    taken(&only, SIGUSR1);
    taken(&only, SIGUSR1);
    EXPECT(signal(SIGRTMIN + 2, SIG_IGN) != SIG_ERR); /* all forgotten: there is room again */
    EXPECT(timer_settime(late, 0, &soon, NULL) == 0);
    sigemptyset(&only);
    sigaddset(&only, SIGRTMIN + 1);
    taken(&only, SIGRTMIN + 1);
    EXPECT(timer_delete(first) == 0 && timer_delete(second) == 0 && timer_delete(late) == 0);
}

static void nobody_is_killed(void)
{
    EXPECT(syscall(SYS_tgkill, getpid(), NOBODY, SIGKILL) == -1 && errno == ESRCH);
    EXPECT(syscall(SYS_tkill, NOBODY, SIGKILL) == -1 && errno == ESRCH);
    EXPECT(syscall(SYS_tgkill, getpid(), NOBODY, SIGTERM) == -1 && errno == ESRCH);
}

int main(void)
{
    nobody_is_killed();
    clocks();
    queue_is_full();
    return guest_passed("timers_refused");
}
