/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A populate of far more than there is ends with the signal that ends the program, and one that a
 * handler interrupts goes on to its end. Status: as killed by SIGALRM.
 */
#include "guest.h"

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
    size_t bytes = (size_t)1 << 30;
    char *area = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    EXPECT(area != MAP_FAILED);
    EXPECT(signal(SIGALRM, handle) != SIG_ERR && setitimer(ITIMER_REAL, &often, NULL) == 0);
    while (handled < 5)
        EXPECT(madvise(area, bytes, MADV_POPULATE_READ) == 0);
    EXPECT(setitimer(ITIMER_REAL, &never, NULL) == 0);
    EXPECT(signal(SIGALRM, SIG_DFL) == handle && munmap(area, bytes) == 0);
}

int main(void)
{
    size_t bytes = (size_t)1 << 38;
    char *area = MAP_FAILED;

    interrupted_often();
    for (; area == MAP_FAILED && bytes; bytes /= 2)
        area = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    EXPECT(area != MAP_FAILED);
    guest_passed("populate_ends");
    fflush(stdout);
    alarm(1);
    for (;;)
        madvise(area, 2 * bytes, MADV_POPULATE_READ);
}
