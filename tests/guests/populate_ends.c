/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A populate of far more than there is ends with the signal that ends the program, and one that a
 * handler interrupts goes on to its end. `populate_ends beside`: another thread populates, and the
 * first one, which maps and unmaps, gets the signal. Status: as killed by SIGALRM.
 */
#include "guest.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

static volatile sig_atomic_t handled;

static void handle(int number)
{
    (void)number;
    handled++;
}

static void interrupted_often(void)
{
    const struct itimerval often = {{0, 5000}, {0, 5000}}, never = {{0, 0}, {0, 0}};
    size_t some = (size_t)1 << 30;
    char *here = mmap(NULL, some, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    EXPECT(here != MAP_FAILED);
    EXPECT(signal(SIGALRM, handle) != SIG_ERR && setitimer(ITIMER_REAL, &often, NULL) == 0);
    while (handled < 5)
        EXPECT(madvise(here, some, MADV_POPULATE_READ) == 0);
    EXPECT(setitimer(ITIMER_REAL, &never, NULL) == 0);
    EXPECT(signal(SIGALRM, SIG_DFL) == handle && munmap(here, some) == 0);
}

static char *area = MAP_FAILED;
static size_t bytes = (size_t)1 << 38;

static void *populate_all(void *unused)
{
    for (;;)
        madvise(area, 2 * bytes, MADV_POPULATE_READ);
    return unused;
}

static void map_and_unmap(void)
{
    for (;;) {
        void *at = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        EXPECT(at != MAP_FAILED && munmap(at, 4096) == 0);
    }
}

int main(int argc, char **argv)
{
    pthread_t thread;

    (void)argv;
    interrupted_often();
    for (; area == MAP_FAILED && bytes; bytes /= 2)
        area = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    EXPECT(area != MAP_FAILED);
    guest_passed("populate_ends");
    fflush(stdout);
    alarm(1);
    if (argc == 1)
        populate_all(NULL);
    EXPECT(pthread_create(&thread, NULL, populate_all, NULL) == 0);
    map_and_unmap();
}
