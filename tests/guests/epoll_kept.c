/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An event that cannot be told, for the buffer is unmapped while epoll_wait sleeps, is not lost,
 * though it is an edge or told once: EFAULT, and the next call tells it. Once.
 */
#include "guest.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define BUFFER_BYTES 4096
#define WAIT_MS      20000

static int ends[2];
static void *buffer;

static void *unmap_and_write(void *argument)
{
    usleep(200000);
    EXPECT(munmap(buffer, BUFFER_BYTES) == 0 && write(ends[1], "x", 1) == 1);
    return argument;
}

static void kept(uint32_t how)
{
    struct epoll_event event = {.events = EPOLLIN | how, .data.u64 = 0xfedcba9876543210};
    struct epoll_event told[4] = {0};
    pthread_t thread;
    char byte;
    int set = epoll_create1(0);
    EXPECT(pipe(ends) == 0 && set >= 0);
    EXPECT(epoll_ctl(set, EPOLL_CTL_ADD, ends[0], &event) == 0);
    buffer = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(buffer != MAP_FAILED);
    EXPECT(pthread_create(&thread, NULL, unmap_and_write, NULL) == 0);
    EXPECT(epoll_wait(set, buffer, 4, WAIT_MS) == -1 && errno == EFAULT);
    EXPECT(pthread_join(thread, NULL) == 0);
    EXPECT(epoll_wait(set, told, 4, 0) == 1);
    EXPECT(told[0].events == EPOLLIN && told[0].data.u64 == event.data.u64);
    EXPECT(epoll_wait(set, told, 4, 0) == (how ? 0 : 1));
    EXPECT(read(ends[0], &byte, 1) == 1 && write(ends[1], "y", 1) == 1);
    EXPECT(epoll_wait(set, told, 4, 0) == (how & EPOLLONESHOT ? 0 : 1));
    EXPECT(close(ends[0]) == 0 && close(ends[1]) == 0 && close(set) == 0);
}

/*
 * What comes of a byte written to `end` cannot be told of the set. fill: a descriptor that is
 * copied until no more are to be had; or -1.
 */
static void lose(int set, int end, int fill)
{
    pthread_t thread;
    ends[1] = end;
    buffer = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(buffer != MAP_FAILED);
    EXPECT(pthread_create(&thread, NULL, unmap_and_write, NULL) == 0);
    while (fill >= 0 && dup(fill) >= 0)
        continue;
    EXPECT(epoll_wait(set, buffer, 4, WAIT_MS) == -1 && errno == EFAULT);
    EXPECT(pthread_join(thread, NULL) == 0);
}

static void add(int set, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = {.events = events, .data.u64 = data};
    EXPECT(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
}

/* All that was asked for is told once, not only what could not be told before. */
static void whole_mask_kept(void)
{
    struct epoll_event told[4];
    char bytes[4096] = {0};
    int pair[2], set = epoll_create1(0);
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0 && set >= 0);
    while (write(pair[0], bytes, sizeof(bytes)) > 0)
        continue;
    add(set, pair[0], EPOLLIN | EPOLLOUT | EPOLLONESHOT, 5);
    lose(set, pair[1], -1); /* EPOLLIN */
    EXPECT(read(pair[0], bytes, 1) == 1 && epoll_wait(set, told, 4, 0) == 0);
    while (read(pair[1], bytes, sizeof(bytes)) > 0)
        continue;
    EXPECT(epoll_wait(set, told, 4, 0) == 1 && told[0].events == EPOLLOUT);
    EXPECT(told[0].data.u64 == 5 && epoll_wait(set, told, 4, 0) == 0);
    EXPECT(close(pair[0]) == 0 && close(pair[1]) == 0 && close(set) == 0);
}

/*
 * A number that two files of the set are known by, for the older one has another descriptor: what
 * is kept of the newer one is its own data word and events.
 */
static void number_twice(uint64_t older_data, uint64_t newer_data)
{
    struct epoll_event told[4];
    int older[2], newer[2], copy, found = 0, set = epoll_create1(0);
    EXPECT(pipe(older) == 0 && set >= 0);
    add(set, older[0], EPOLLIN | EPOLLET, older_data);
    copy = dup(older[0]);
    EXPECT(copy >= 0 && close(older[0]) == 0 && pipe(newer) == 0 && newer[0] == older[0]);
    add(set, newer[0], EPOLLIN | EPOLLET | EPOLLRDHUP, newer_data);
    lose(set, older[1], -1);
    EXPECT(write(newer[1], "y", 1) == 1);
    for (int count = epoll_wait(set, told, 4, 0); count > 0; count--)
        found += told[count - 1].data.u64 == newer_data;
    EXPECT(found == 1);
    EXPECT(close(copy) == 0 && close(older[1]) == 0 && close(newer[0]) == 0);
    EXPECT(close(newer[1]) == 0 && close(set) == 0);
}

/* With no descriptor left, here or on the host. */
static void none_left(void)
{
    int set = epoll_create1(0), pair[2];
    EXPECT(pipe(pair) == 0 && set >= 0);
    add(set, pair[0], EPOLLIN | EPOLLET, 1);
    lose(set, pair[1], pair[0]);
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1) {
        none_left();
        return guest_passed("epoll_kept");
    }
    kept(0);
    kept(EPOLLET);
    kept(EPOLLONESHOT);
    kept(EPOLLET | EPOLLONESHOT);
    kept(EPOLLET | EPOLLEXCLUSIVE);
    whole_mask_kept();
    number_twice(1, 2);
    number_twice(2, 1);
    return guest_passed("epoll_kept");
}
