/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waits with a mask of their own (ppoll, pselect, epoll_pwait): a signal that it blocks does not
 * end them. It is handled afterwards. One that it lets through ends them, and only that.
 */
#include "guest.h"

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/time.h>

static const struct timespec wait_time = {0, 300000000};
static volatile sig_atomic_t alarms;

static void on_alarm(int number)
{
    (void)number;
    alarms++;
}

static int by_ppoll(const sigset_t *mask)
{
    return ppoll(NULL, 0, &wait_time, mask);
}

static int by_pselect(const sigset_t *mask)
{
    return pselect(0, NULL, NULL, NULL, &wait_time, mask);
}

static int by_epoll(const sigset_t *mask)
{
    struct epoll_event event;
    int fd = epoll_create1(0), result = epoll_pwait(fd, &event, 1, 300, mask), error = errno;
    close(fd);
    errno = error;
    return result;
}

int main(void)
{
    static int (*const waits[])(const sigset_t *) = {by_ppoll, by_pselect, by_epoll};
    const struct itimerval soon = {{0, 0}, {0, 50000}};
    const struct sigaction action = {.sa_handler = on_alarm};
    sigset_t none, alarm_set;

    sigemptyset(&none);
    sigemptyset(&alarm_set);
    sigaddset(&alarm_set, SIGALRM);
    EXPECT(sigaction(SIGALRM, &action, NULL) == 0);
    for (size_t i = 0; i < sizeof(waits) / sizeof(waits[0]); i++) {
        double start = guest_now_s();
        alarms = 0;
        EXPECT(setitimer(ITIMER_REAL, &soon, NULL) == 0);
        EXPECT(waits[i](&alarm_set) == 0);
        EXPECT(alarms == 1 && guest_now_s() - start >= 0.299);

        alarms = 0;
        EXPECT(sigprocmask(SIG_BLOCK, &alarm_set, NULL) == 0);
        EXPECT(setitimer(ITIMER_REAL, &soon, NULL) == 0);
        EXPECT(waits[i](&none) == -1 && errno == EINTR && alarms == 1);
        EXPECT(sigprocmask(SIG_UNBLOCK, &alarm_set, NULL) == 0);
    }
    return guest_passed("masked_waits");
}
