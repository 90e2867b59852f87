/* SPDX-License-Identifier: Apache-2.0 */
/* poll, select, epoll and eventfd: readiness, timeouts, edges, wake-ups by another thread. */
#include "guest.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/time.h>

static int event_fd;

static void *ring(void *argument)
{
    uint64_t one = 1;
    usleep(50000);
    EXPECT(write(event_fd, &one, 8) == 8);
    return argument;
}

static void start_ring(pthread_t *thread)
{
    EXPECT(pthread_create(thread, NULL, ring, NULL) == 0);
}

static void finish_ring(pthread_t thread)
{
    uint64_t value = 0;
    EXPECT(read(event_fd, &value, 8) == 8 && value == 1);
    EXPECT(pthread_join(thread, NULL) == 0);
}

static atomic_uint alarms;
static atomic_bool over;

static void on_alarm(int number)
{
    (void)number;
    atomic_fetch_add(&alarms, 1);
}

/* The only thread that takes alarms. */
static void *take_alarms(void *argument)
{
    sigset_t alarm;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    EXPECT(pthread_sigmask(SIG_UNBLOCK, &alarm, NULL) == 0);
    while (!atomic_load(&over))
        usleep(1000);
    EXPECT(pthread_sigmask(SIG_BLOCK, &alarm, NULL) == 0);
    return argument;
}

/* Signals that are another thread's, one each 20 ms, keep no wait from its end. */
static void waits_end_though_others_take_signals(int epoll_fd)
{
    const struct itimerval often = {{0, 20000}, {0, 20000}}, never = {{0, 0}, {0, 0}};
    const struct timespec limit = {0, 200000000};
    struct sigaction action = {.sa_handler = on_alarm};
    struct timeval select_limit = {0, 200000};
    struct epoll_event event;
    sigset_t alarm;
    pthread_t thread;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    EXPECT(sigaction(SIGALRM, &action, NULL) == 0);
    EXPECT(pthread_sigmask(SIG_BLOCK, &alarm, NULL) == 0);
    EXPECT(pthread_create(&thread, NULL, take_alarms, NULL) == 0);
    EXPECT(setitimer(ITIMER_REAL, &often, NULL) == 0);
    double start = guest_now_s();
    EXPECT(epoll_wait(epoll_fd, &event, 1, 200) == 0);
    EXPECT(epoll_pwait(epoll_fd, &event, 1, 200, &alarm) == 0);
    EXPECT(epoll_pwait2(epoll_fd, &event, 1, &limit, &alarm) == 0);
    EXPECT(poll(NULL, 0, 200) == 0);
    EXPECT(ppoll(NULL, 0, &limit, &alarm) == 0);
    EXPECT(select(0, NULL, NULL, NULL, &select_limit) == 0);
    EXPECT(guest_now_s() - start >= 1.19 && atomic_load(&alarms) > 1);
    atomic_store(&over, true);
    EXPECT(pthread_join(thread, NULL) == 0);

    /* Now nobody takes them, but this wait, whose mask lets them through. */
    sigset_t none;
    sigemptyset(&none);
    EXPECT(epoll_pwait(epoll_fd, &event, 1, 30000, &none) == -1 && errno == EINTR);
    EXPECT(setitimer(ITIMER_REAL, &never, NULL) == 0);
}

int main(void)
{
    pthread_t thread;
    event_fd = eventfd(0, EFD_CLOEXEC);
    EXPECT(event_fd >= 0);

    struct pollfd entry = {.fd = event_fd, .events = POLLIN};
    double start = guest_now_s();
    EXPECT(poll(&entry, 1, 30) == 0 && guest_now_s() - start >= 0.029);
    start_ring(&thread);
    EXPECT(poll(&entry, 1, 10000) == 1 && entry.revents == POLLIN);
    finish_ring(thread);

    fd_set set;
    struct timeval limit = {10, 0};
    FD_ZERO(&set);
    FD_SET(event_fd, &set);
    start_ring(&thread);
    EXPECT(select(event_fd + 1, &set, NULL, NULL, &limit) == 1 && FD_ISSET(event_fd, &set));
    finish_ring(thread);
    limit = (struct timeval){0, 20000};
    FD_ZERO(&set);
    FD_SET(event_fd, &set);
    EXPECT(select(event_fd + 1, &set, NULL, NULL, &limit) == 0 && !FD_ISSET(event_fd, &set));

    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x1234567890abcdef};
    EXPECT(epoll_fd >= 0 && epoll_ctl(epoll_fd, EPOLL_CTL_ADD, event_fd, &event) == 0);
    EXPECT(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, event_fd, &event) == -1 && errno == EEXIST);
    memset(&event, 0, sizeof event);
    EXPECT(epoll_wait(epoll_fd, &event, 1, 10) == 0);
    start_ring(&thread);
    EXPECT(epoll_wait(epoll_fd, &event, 1, 10000) == 1);
    EXPECT(event.events == EPOLLIN && event.data.u64 == 0x1234567890abcdef);
    finish_ring(thread);
    EXPECT(epoll_ctl(epoll_fd, EPOLL_CTL_DEL, event_fd, NULL) == 0);
    entry.fd = 900;
    EXPECT(poll(&entry, 1, 0) == 1 && entry.revents == POLLNVAL);
    waits_end_though_others_take_signals(epoll_fd);
    return guest_passed("polling");
}
