/* SPDX-License-Identifier: Apache-2.0 */
/* MADV_DONTNEED empties pages, leaves neighbours and shared memory alone; other advice is accepted.
 */
#include "guest.h"

#include <stdbool.h>
#include <sys/mman.h>

#define PAGE ((size_t)4096)

static bool is_all(const char *area, char byte)
{
    for (size_t i = 0; i < 3 * PAGE; i++)
        if (area[i] != byte)
            return false;
    return true;
}

/* Its pages are not this mapping's alone: DONTNEED leaves them, REMOVE takes them. */
static void shared(int fd)
{
    int flags = fd < 0 ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED;
    char *area = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
    EXPECT(area != MAP_FAILED);
    memset(area, 'x', 3 * PAGE);
    EXPECT(madvise(area, 3 * PAGE, MADV_DONTNEED) == 0 && is_all(area, 'x'));
    EXPECT(madvise(area, 3 * PAGE, MADV_FREE) == -1 && errno == EINVAL);
    EXPECT(is_all(area, 'x'));
    EXPECT(madvise(area, 3 * PAGE, MADV_REMOVE) == 0 && is_all(area, 0));
    EXPECT(munmap(area, 3 * PAGE) == 0);
}

static void kinds(void)
{
    int fd = memfd_create("shared", 0);
    EXPECT(fd >= 0 && ftruncate(fd, 3 * PAGE) == 0);
    shared(-1);
    shared(fd);
    char *area = mmap(NULL, 3 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    EXPECT(area != MAP_FAILED);
    EXPECT(madvise(area, PAGE, MADV_POPULATE_WRITE) == -1 && errno == EINVAL);
    EXPECT(munmap(area, 3 * PAGE) == 0);
    area = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(area != MAP_FAILED);
    EXPECT(madvise(area, PAGE, MADV_REMOVE) == -1 && errno == EINVAL);
    /* What is there is emptied, also beside a hole. */
    memset(area, 'x', 3 * PAGE);
    EXPECT(munmap(area + PAGE, PAGE) == 0);
    EXPECT(madvise(area, 3 * PAGE, MADV_DONTNEED) == -1 && errno == ENOMEM);
    EXPECT(area[0] == 0 && area[2 * PAGE] == 0);
    EXPECT(mprotect(area, PAGE, PROT_NONE) == 0);
    EXPECT(madvise(area, PAGE, MADV_POPULATE_READ) == -1 && errno == EINVAL);
    EXPECT(munmap(area, 3 * PAGE) == 0);
    EXPECT(mmap(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC, fd, 0) == MAP_FAILED);
    EXPECT(errno == EOPNOTSUPP && close(fd) == 0);
}

int main(int argc, char **argv)
{
    size_t pages = argc > 1 ? strtoul(argv[1], NULL, 10) << 8 : 2048;
    char *area =
        mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(area != MAP_FAILED);
    for (int round = 1; round <= 3; round++) {
        for (size_t i = 0; i < pages; i++)
            memset(area + i * PAGE, round, PAGE);
        for (size_t i = 0; i < pages; i += 10)
            EXPECT(madvise(area + i * PAGE, 3 * PAGE < (pages - i) * PAGE ? 3 * PAGE : PAGE,
                           MADV_DONTNEED) == 0);
        for (size_t i = 0; i + 10 < pages; i++)
            EXPECT(area[i * PAGE + 77] == (i % 10 < 3 ? 0 : round));
    }
    EXPECT(madvise(area, pages * PAGE, MADV_WILLNEED) == 0);
    EXPECT(madvise(area, pages * PAGE, MADV_SEQUENTIAL) == 0);
    EXPECT(madvise(area, pages * PAGE, MADV_DONTNEED) == 0);
    for (size_t i = 0; i < pages; i++)
        EXPECT(area[i * PAGE] == 0);
    EXPECT(madvise(area, PAGE, 12345) == -1 && errno == EINVAL);
    EXPECT(munmap(area + PAGE, PAGE) == 0);
    EXPECT(madvise(area, 3 * PAGE, MADV_DONTNEED) == -1 && errno == ENOMEM);
    kinds();
    return guest_passed("madvise");
}
