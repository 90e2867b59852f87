/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals of another thread cut nothing short: a wait for all bytes, for room to write all, or for
 * all messages goes on. Only a handler of the waiting thread's own ends it, with what there is.
 */
#include "interrupt.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#define COUNT 60
#define LARGE (1 << 20)

static char large[LARGE];
static atomic_int ticks, own;
static int pair[2], ends[2];

static void on_tick(int number)
{
    (void)number;
    atomic_fetch_add(&ticks, 1);
}

static void on_own(int number)
{
    (void)number;
    atomic_fetch_add(&own, 1);
}

/* Has SIGUSR2, sent to it by a timer every 2 ms, and sleeps. */
static void *be_ticked(void *argument)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR2};
    const struct itimerspec often = {{0, 2000000}, {0, 2000000}};
    timer_t timer;
    event._sigev_un._tid = gettid();
    EXPECT(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    EXPECT(timer_settime(timer, 0, &often, NULL) == 0);
    while (!atomic_load(&own))
        usleep(1000);
    EXPECT(timer_delete(timer) == 0);
    return argument;
}

static void *send_bytes(void *argument)
{
    for (int i = 0; i < COUNT; i++) {
        usleep(3000);
        EXPECT(send(pair[0], "x", 1, 0) == 1);
    }
    return argument;
}

static void *read_slowly(void *argument)
{
    static char text[LARGE / 64];
    for (ssize_t got = 0, n = 1; got < LARGE && n > 0; got += n) {
        usleep(1000);
        n = read(pair[1], text, sizeof(text));
        EXPECT(n > 0);
    }
    return argument;
}

static pthread_t beside(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, run, argument) == 0);
    return thread;
}

/* The write that is under way is the pipe's, whatever its descriptor names when it goes on. */
static void *change_descriptor(void *argument)
{
    static char text[LARGE];
    size_t *got = argument;
    ssize_t n;
    usleep(100000);
    EXPECT(dup2(pair[1], pair[0]) == pair[0]);
    usleep(100000);
    while ((n = read(ends[0], text, sizeof(text))) > 0)
        *got += (size_t)n;
    EXPECT(n == 0);
    return argument;
}

static void write_while_the_descriptor_changes(void)
{
    size_t got = 0;
    EXPECT(pipe(ends) == 0);
    pair[0] = ends[1];
    pair[1] = memfd_create("other", 0);
    EXPECT(pair[1] >= 0);
    pthread_t thread = beside(change_descriptor, &got);
    ssize_t wrote = write(pair[0], large, LARGE);
    EXPECT(pthread_join(thread, NULL) == 0);
    EXPECT(wrote > 0 && (size_t)wrote == got && lseek(pair[1], 0, SEEK_END) == 0);
    EXPECT(close(pair[0]) == 0 && close(pair[1]) == 0 && close(ends[0]) == 0);
}

int main(void)
{
    const struct sigaction tick = {.sa_handler = on_tick}, plain = {.sa_handler = on_own};
    static struct mmsghdr messages[COUNT];
    struct iovec piece = {large, 1};
    pthread_t self = pthread_self(), ticked, thread;
    EXPECT(sigaction(SIGUSR2, &tick, NULL) == 0 && sigaction(SIGUSR1, &plain, NULL) == 0);
    ticked = beside(be_ticked, NULL);

    EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    thread = beside(send_bytes, NULL);
    EXPECT(recv(pair[1], large, COUNT, MSG_WAITALL) == COUNT);
    EXPECT(pthread_join(thread, NULL) == 0);
    thread = beside(read_slowly, NULL);
    EXPECT(send(pair[0], large, LARGE, 0) == LARGE && pthread_join(thread, NULL) == 0);
    thread = beside(read_slowly, NULL);
    EXPECT(write(pair[0], large, LARGE) == LARGE && pthread_join(thread, NULL) == 0);
    EXPECT(close(pair[0]) == 0 && close(pair[1]) == 0);
    EXPECT(pipe(ends) == 0);
    pair[0] = ends[1];
    pair[1] = ends[0];
    thread = beside(read_slowly, NULL);
    EXPECT(write(pair[0], large, LARGE) == LARGE && pthread_join(thread, NULL) == 0);
    EXPECT(close(pair[0]) == 0 && close(pair[1]) == 0);

    write_while_the_descriptor_changes();
    EXPECT(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    for (int i = 0; i < COUNT; i++)
        messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &piece, .msg_iovlen = 1}};
    thread = beside(send_bytes, NULL);
    EXPECT(recvmmsg(pair[1], messages, COUNT, 0, NULL) == COUNT);
    EXPECT(pthread_join(thread, NULL) == 0 && atomic_load(&ticks) > 0);
    EXPECT(close(pair[0]) == 0 && close(pair[1]) == 0);

    EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && send(pair[0], "123", 3, 0) == 3);
    thread = beside(interrupt, &self);
    EXPECT(recv(pair[1], large, COUNT, MSG_WAITALL) == 3 && atomic_load(&own) == 1);
    EXPECT(pthread_join(thread, NULL) == 0 && pthread_join(ticked, NULL) == 0);
    return guest_passed("signals_elsewhere");
}
