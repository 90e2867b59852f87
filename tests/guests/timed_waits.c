/* SPDX-License-Identifier: Apache-2.0 */
/* A wait with a timeout ends in time although a timer's signals for another thread come all along.
 */
#include "guest.h"

#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define EVERY_NS 20000000L /* between two signals */
#define WAIT_MS  300
#define LATEST_S 5 /* a busy machine is slow; a wait that starts anew each time has no end */

static atomic_int tid;
static atomic_int signals;
static atomic_bool stop;

/* Takes the signals. */
static void *taker(void *argument)
{
    sigset_t *set = argument;
    struct timespec brief = {0, 100000000};
    atomic_store(&tid, (int)gettid());
    while (!atomic_load(&stop)) {
        if (sigtimedwait(set, NULL, &brief) == SIGRTMIN)
            atomic_fetch_add(&signals, 1);
    }
    return NULL;
}

static void by_sigtimedwait(void)
{
    sigset_t set;
    struct timespec timeout = {0, WAIT_MS * 1000000L};
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    EXPECT(sigtimedwait(&set, NULL, &timeout) == -1 && errno == EAGAIN);
}

static void by_epoll(int kind)
{
    struct epoll_event event;
    struct timespec timeout = {0, WAIT_MS * 1000000L};
    sigset_t set;
    int fd = epoll_create1(0);
    sigfillset(&set);
    if (kind == 0)
        EXPECT(epoll_wait(fd, &event, 1, WAIT_MS) == 0);
    else if (kind == 1)
        EXPECT(epoll_pwait(fd, &event, 1, WAIT_MS, &set) == 0);
    else
        EXPECT(syscall(SYS_epoll_pwait2, fd, &event, 1, &timeout, &set, 8) == 0);
    EXPECT(close(fd) == 0);
}

static void by_epoll_wait(void)
{
    by_epoll(0);
}

static void by_epoll_pwait(void)
{
    by_epoll(1);
}

static void by_epoll_pwait2(void)
{
    by_epoll(2);
}

static void by_poll(void)
{
    EXPECT(poll(NULL, 0, WAIT_MS) == 0);
}

static void by_ppoll(void)
{
    const struct timespec timeout = {0, WAIT_MS * 1000000L};
    EXPECT(ppoll(NULL, 0, &timeout, NULL) == 0);
}

static void by_select(void)
{
    struct timeval timeout = {0, WAIT_MS * 1000L};
    EXPECT(select(0, NULL, NULL, NULL, &timeout) == 0);
}

static void by_nanosleep(void)
{
    struct timespec timeout = {0, WAIT_MS * 1000000L};
    EXPECT(nanosleep(&timeout, NULL) == 0);
}

static void by_semaphore(void)
{
    sem_t semaphore;
    struct timespec until;
    EXPECT(sem_init(&semaphore, 0, 0) == 0);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += WAIT_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    EXPECT(sem_timedwait(&semaphore, &until) == -1 && errno == ETIMEDOUT);
}

static void receive(bool by_read)
{
    const struct timeval limit = {0, WAIT_MS * 1000L};
    int ends[2];
    char byte;
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    EXPECT(setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
    EXPECT((by_read ? read(ends[0], &byte, 1) : recv(ends[0], &byte, 1, 0)) == -1);
    EXPECT(errno == EAGAIN && close(ends[0]) == 0 && close(ends[1]) == 0);
}

static void by_recv(void)
{
    receive(false);
}

static void by_read(void)
{
    receive(true);
}

int main(void)
{
    static void (*const waits[])(void) = {
        by_sigtimedwait, by_epoll_wait, by_epoll_pwait, by_epoll_pwait2, by_poll, by_ppoll,
        by_select,       by_nanosleep,  by_semaphore,   by_recv,         by_read};
    struct itimerspec every = {{0, EVERY_NS}, {0, EVERY_NS}};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN};
    pthread_t thread;
    sigset_t set;
    timer_t timer;

    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    sigaddset(&set, SIGUSR2);
    EXPECT(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    sigdelset(&set, SIGUSR2);
    EXPECT(pthread_create(&thread, NULL, taker, &set) == 0);
    while (!atomic_load(&tid))
        usleep(1000);
    event._sigev_un._tid = atomic_load(&tid);
    EXPECT(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    EXPECT(timer_settime(timer, 0, &every, NULL) == 0);

    for (size_t i = 0; i < sizeof(waits) / sizeof(waits[0]); i++) {
        int before = atomic_load(&signals);
        double start = guest_now_s();
        waits[i]();
        double took = guest_now_s() - start;
        EXPECT(took >= 0.299 && took < LATEST_S);
        EXPECT(atomic_load(&signals) > before);                       /* they did come */
        EXPECT(syscall(SYS_restart_syscall) == -1 && errno == EINTR); /* nothing is left of it */
    }
    atomic_store(&stop, true);
    EXPECT(timer_delete(timer) == 0 && pthread_join(thread, NULL) == 0);
    return guest_passed("timed_waits");
}
