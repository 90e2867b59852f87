/* SPDX-License-Identifier: Apache-2.0 */
/* poll, select, epoll and eventfd: readiness, timeouts, edges, wake-ups by another thread. */
#include "guest.h"

#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>

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
    return guest_passed("polling");
}
