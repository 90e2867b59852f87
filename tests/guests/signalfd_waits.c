/* SPDX-License-Identifier: Apache-2.0 */
/*
 * signalfd beside other threads: what a blocked reader waits for, and whose signals a thread sees.
 */
#include "signalfd.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/uio.h>

static uint32_t taken(int fd)
{
    info_t info;
    EXPECT(read(fd, &info, sizeof(info)) == sizeof(info));
    return info.ssi_signo;
}

/* A thread that does one thing with fd, and how far it is. */
struct helper {
    pthread_t thread;
    int fd;
    atomic_int begun, stop;
    uint32_t got;
};

static void start(struct helper *helper, int fd, void *(*run)(void *))
{
    *helper = (struct helper){.fd = fd};
    EXPECT(pthread_create(&helper->thread, NULL, run, helper) == 0);
    while (!atomic_load(&helper->begun))
        sched_yield();
    usleep(20000); /* most likely asleep in its call */
}

static uint32_t joined(struct helper *helper)
{
    EXPECT(pthread_join(helper->thread, NULL) == 0);
    return helper->got;
}

static void *reads(void *argument)
{
    struct helper *helper = argument;
    atomic_store(&helper->begun, 1);
    helper->got = taken(helper->fd);
    return NULL;
}

/* A mask with nothing in it, made wider under who reads; the signal waits already, or comes. */
static void widened(void)
{
    struct helper one;
    sigset_t none, set = set_of(SIGUSR1, SIGUSR2);
    sigemptyset(&none);
    for (int late = 0; late < 2; late++) {
        int fd = signalfd(-1, &none, 0);
        EXPECT(fd >= 0);
        EXPECT(late || kill(getpid(), SIGUSR1) == 0);
        start(&one, fd, reads);
        EXPECT(signalfd(fd, &set, 0) == fd);
        usleep(late ? 20000 : 0);
        EXPECT(!late || kill(getpid(), SIGUSR1) == 0);
        EXPECT(joined(&one) == SIGUSR1 && close(fd) == 0);
    }
}

/* One read of all spans, as from Linux 6.10 on: it waits for the first signal only. */
static void spans(void)
{
    info_t info[2];
    int fd = made(SIGUSR1, SIGUSR2, 0);
    struct iovec whole[2] = {{&info[0], sizeof(info[0])}, {&info[1], sizeof(info[0])}};
    struct iovec parts[3] = {{&info[0], 100}, {(char *)&info[0] + 100, 150}, {&info[1], 0}};
    parts[2] = (struct iovec){(char *)&info[0] + 250, 6};
    EXPECT(kill(getpid(), SIGUSR2) == 0);
    EXPECT(readv(fd, whole, 2) == sizeof(info[0]) && info[0].ssi_signo == SIGUSR2);
    EXPECT(kill(getpid(), SIGUSR1) == 0 && kill(getpid(), SIGUSR2) == 0);
    EXPECT(readv(fd, parts, 3) == sizeof(info));
    EXPECT(info[0].ssi_signo == SIGUSR1 && info[1].ssi_signo == SIGUSR2);
    EXPECT(info[1].ssi_pid == (uint32_t)getpid());
    EXPECT(readv(fd, parts, 0) == 0);
    EXPECT(readv(fd, &parts[2], 1) == -1 && errno == EINVAL);
    /* Where nothing can be written, nothing is taken. */
    EXPECT(kill(getpid(), SIGUSR1) == 0);
    EXPECT(syscall(SYS_read, fd, 1L << 63, sizeof(info)) == -1 && errno == EFAULT);
    whole[1].iov_base = (void *)(1UL << 63);
    EXPECT(readv(fd, whole, 2) == -1 && errno == EFAULT);
    EXPECT(taken(fd) == SIGUSR1);
    close(fd);
}

/* Whatever its number names meanwhile: a read is of one file or the other. */
static void *reads_always(void *argument)
{
    struct helper *helper = argument;
    char bytes[sizeof(info_t)];
    struct iovec span = {bytes, sizeof(bytes)};
    atomic_store(&helper->begun, 1);
    while (!atomic_load(&helper->stop)) {
        EXPECT(read(helper->fd, bytes, sizeof(bytes)) == -1 && errno == EAGAIN);
        EXPECT(readv(helper->fd, &span, 1) == -1 && errno == EAGAIN);
    }
    return NULL;
}

static void replaced(void)
{
    struct helper one;
    int ends[2], signals = made(SIGUSR1, SIGUSR1, SFD_NONBLOCK), fd = dup(signals);
    EXPECT(pipe2(ends, O_NONBLOCK) == 0);
    start(&one, fd, reads_always);
    for (int i = 0; i < 5000; i++)
        EXPECT(dup2(i % 2 ? signals : ends[0], fd) == fd);
    atomic_store(&one.stop, 1);
    EXPECT(joined(&one) == 0);
    close(fd), close(signals), close(ends[0]), close(ends[1]);
}

static int ready(int fd, int ms)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return poll(&one, 1, ms);
}

static int set_with(int fd, uint32_t events)
{
    struct epoll_event event = {.events = events};
    int set = epoll_create1(0);
    EXPECT(set >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
    return set;
}

static int told(int set, int ms)
{
    struct epoll_event event;
    return epoll_wait(set, &event, 1, ms);
}

static int selected(int fd)
{
    struct timeval none = {0};
    fd_set in;
    FD_ZERO(&in);
    FD_SET(fd, &in);
    return select(fd + 1, &in, NULL, NULL, &none);
}

/* As a thread that a broken pipe met: SIGPIPE waits for it alone. It polls what never is ready. */
static void *polls_others(void *argument)
{
    struct helper *helper = argument;
    int fd = made(SIGTERM, SIGTERM, 0), set = set_with(fd, EPOLLIN), ends[2];
    EXPECT(pipe(ends) == 0 && raise(SIGPIPE) == 0);
    atomic_store(&helper->begun, 1);
    while (!atomic_load(&helper->stop))
        EXPECT(ready(ends[0], 1) == 0 && told(set, 1) == 0 && ready(fd, 1) == 0 &&
               ready(set, 1) == 0);
    EXPECT(ready(helper->fd, 0) == 1 && selected(helper->fd) == 1);
    helper->got = taken(helper->fd);
    close(set), close(fd), close(ends[0]), close(ends[1]);
    return NULL;
}

/* It has the descriptor in a set, but was told of the edge, and waits for another. */
static void *polls_for_edges(void *argument)
{
    struct helper *helper = argument;
    int set = set_with(helper->fd, EPOLLIN | EPOLLET);
    EXPECT(raise(SIGPIPE) == 0 && told(set, 0) == 1);
    atomic_store(&helper->begun, 1);
    while (!atomic_load(&helper->stop))
        EXPECT(told(set, 1) == 0);
    helper->got = taken(helper->fd);
    close(set);
    return NULL;
}

/* What waits for one thread no other finds readable, whatever that one polls. */
static void for_another(void)
{
    struct helper one;
    int fd = made(SIGPIPE, SIGUSR1, SFD_NONBLOCK), set = set_with(fd, EPOLLIN);
    for (int edges = 0; edges < 2; edges++) {
        info_t info;
        start(&one, fd, edges ? polls_for_edges : polls_others);
        double until = guest_now_s() + 0.3;
        (void)told(set, 0); /* when it came */
        while (guest_now_s() < until) {
            EXPECT(ready(fd, 0) == 0 && ready(fd, 1) == 0 && selected(fd) == 0);
            EXPECT(told(set, 0) == 0 && told(set, 1) == 0 && ready(set, 0) == 0);
            EXPECT(read(fd, &info, sizeof(info)) == -1 && errno == EAGAIN);
        }
        atomic_store(&one.stop, 1);
        EXPECT(joined(&one) == SIGPIPE);
    }
    close(set), close(fd);
}

static void *polls(void *argument)
{
    struct helper *helper = argument;
    EXPECT(raise(SIGUSR1) == 0);
    atomic_store(&helper->begun, 1);
    EXPECT(ready(helper->fd, 60000) == 1);
    helper->got = taken(helper->fd);
    return NULL;
}

/* In a set in a set, and by a duplicate of a set that was made before. */
static void nested(void)
{
    int fd = made(SIGUSR1, SIGUSR1, SFD_NONBLOCK), inner = epoll_create1(0), copy = dup(inner);
    int outer = set_with(inner, EPOLLIN), edge = set_with(inner, EPOLLIN | EPOLLET);
    struct epoll_event event = {.events = EPOLLIN};
    EXPECT(epoll_ctl(copy, EPOLL_CTL_ADD, fd, &event) == 0);
    EXPECT(told(outer, 0) == 0 && told(copy, 0) == 0 && ready(outer, 0) == 0);
    EXPECT(raise(SIGUSR1) == 0);
    EXPECT(told(edge, 0) == 1 && told(outer, 0) == 1 && told(inner, 0) == 1 && told(copy, 0) == 1);
    EXPECT(ready(outer, 0) == 1 && ready(copy, 0) == 1 && selected(inner) == 1);
    EXPECT(taken(fd) == SIGUSR1);
    EXPECT(told(outer, 0) == 0 && told(copy, 0) == 0 && ready(outer, 0) == 0);
    EXPECT(raise(SIGUSR1) == 0 && epoll_ctl(inner, EPOLL_CTL_DEL, fd, NULL) == 0);
    EXPECT(told(outer, 0) == 0 && told(copy, 0) == 0 && ready(inner, 0) == 0);
    EXPECT(epoll_ctl(inner, EPOLL_CTL_ADD, fd, &event) == 0 && told(copy, 1) == 1);
    event.events = EPOLLIN | EPOLLONESHOT;
    EXPECT(epoll_ctl(inner, EPOLL_CTL_MOD, fd, &event) == 0 && told(copy, 0) == 1);
    EXPECT(told(copy, 0) == 0 && epoll_ctl(inner, EPOLL_CTL_MOD, fd, &event) == 0);
    EXPECT(told(copy, 0) == 1 && taken(fd) == SIGUSR1);
    close(fd), close(inner), close(copy), close(outer), close(edge);
}

/* The mask gets what waits for the thread that polls. */
static void widened_poll(void)
{
    struct helper one;
    sigset_t set = set_of(SIGUSR1, SIGUSR1);
    int fd = made(SIGUSR2, SIGUSR2, 0);
    start(&one, fd, polls);
    EXPECT(signalfd(fd, &set, 0) == fd && joined(&one) == SIGUSR1);
    close(fd);
}

/*
 * On one processor, who is signalled above who signals: once woken it runs before that one goes on.
 */
static int put_first(int priority)
{
    struct sched_param first = {.sched_priority = priority};
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(0, &one);
    int error = pthread_setschedparam(pthread_self(), SCHED_FIFO, &first);
    return error ? error : pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
}

#define ROUNDS 1000

static void *polls_often(void *argument)
{
    struct helper *helper = argument;
    EXPECT(put_first(3) == 0);
    atomic_store(&helper->begun, 1);
    for (int i = 0; i < ROUNDS; i++) {
        EXPECT(ready(helper->fd, 60000) == 1 && taken(helper->fd) == SIGUSR1);
        atomic_fetch_add(&helper->begun, 1);
    }
    return NULL;
}

static void *signals_often(void *argument)
{
    struct helper *helper = argument;
    sigset_t none, set = set_of(SIGUSR1, SIGUSR1);
    sigemptyset(&none);
    EXPECT(put_first(2) == 0);
    for (int i = 1; i <= ROUNDS; i++) {
        EXPECT(kill(getpid(), SIGUSR1) == 0);
        while (atomic_load(&helper->begun) <= i) /* it has taken it, and will wait again */
            usleep(100);
        if (i % 8 == 0)
            EXPECT(signalfd(helper->fd, &none, 0) == helper->fd &&
                   signalfd(helper->fd, &set, 0) == helper->fd);
    }
    return NULL;
}

static void priorities(void)
{
    struct helper one;
    pthread_t other;
    int fd = made(SIGUSR1, SIGUSR1, 0);
    if (put_first(1)) {
        close(fd); /* not allowed here */
        return;
    }
    start(&one, fd, polls_often);
    EXPECT(pthread_create(&other, NULL, signals_often, &one) == 0);
    EXPECT(pthread_join(other, NULL) == 0 && joined(&one) == 0);
    close(fd);
}

int main(void)
{
    sigset_t all;
    sigfillset(&all);

    EXPECT(sigprocmask(SIG_BLOCK, &all, NULL) == 0);
    widened();
    spans();
    replaced();
    for_another();
    nested();
    widened_poll();
    priorities();
    return guest_passed("signalfd_waits");
}
