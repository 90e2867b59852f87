/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A populate out of which a signal handler jumps is over: the next one of the same range begins at
 * its begin. Of a file, for whose pages mincore tells whether they are here.
 */
#include "guest.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define ROUNDS 150
#define PAGES  1024
#define BYTES  ((size_t)PAGES * 4096)

static sigjmp_buf left;
static const struct itimerval never = {{0, 0}, {0, 0}};

static void leave(int number)
{
    siglongjmp(left, number);
}

static void populate_until_left(char *area, long us)
{
    const struct itimerval soon = {{0, 0}, {0, us}};
    EXPECT(madvise(area, BYTES, MADV_DONTNEED) == 0);
    if (sigsetjmp(left, 1) != 0)
        return;
    EXPECT(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    for (;;)
        EXPECT(madvise(area, BYTES, MADV_POPULATE_READ) == 0);
}

int main(void)
{
    static unsigned char here[PAGES];
    int fd = memfd_create("populate_left", 0);
    EXPECT(fd >= 0 && ftruncate(fd, (off_t)BYTES) == 0);
    for (off_t page = 0; page < PAGES; page++)
        EXPECT(pwrite(fd, &page, sizeof(page), page * 4096) == (ssize_t)sizeof(page));
    char *area = mmap(NULL, BYTES, PROT_READ, MAP_PRIVATE, fd, 0);
    EXPECT(area != MAP_FAILED && signal(SIGALRM, leave) != SIG_ERR);
    for (int round = 0; round < ROUNDS; round++) {
        populate_until_left(area, 100 + round * 50);
        EXPECT(setitimer(ITIMER_REAL, &never, NULL) == 0);
        EXPECT(madvise(area, BYTES, MADV_DONTNEED) == 0);
        EXPECT(madvise(area, BYTES, MADV_POPULATE_READ) == 0);
        EXPECT(mincore(area, BYTES, here) == 0);
        for (size_t page = 0; page < PAGES; page++)
            EXPECT(here[page] & 1);
    }
    return guest_passed("populate_left");
}
