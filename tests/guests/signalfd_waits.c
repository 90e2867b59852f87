/* SPDX-License-Identifier: Apache-2.0 */
/*
 * signalfd beside other threads: what a blocked reader waits for, and whose signals a thread sees.
 */
#include "guest.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>

typedef struct signalfd_siginfo info_t;

static sigset_t set_of(int a, int b)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, a);
    sigaddset(&set, b);
    return set;
}

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

int main(void)
{
    sigset_t all;
    sigfillset(&all);

    EXPECT(sigprocmask(SIG_BLOCK, &all, NULL) == 0);
    widened();
    return guest_passed("signalfd_waits");
}
