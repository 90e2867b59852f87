/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An event that cannot be told, for the buffer is unmapped while epoll_wait sleeps, is not lost,
 * though it is an edge or told once: EFAULT, and the next call tells it. Once.
 */
#include "guest.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/mman.h>

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

int main(void)
{
    kept(0);
    kept(EPOLLET);
    kept(EPOLLONESHOT);
    kept(EPOLLET | EPOLLONESHOT);
    return guest_passed("epoll_kept");
}
