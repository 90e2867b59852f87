/* SPDX-License-Identifier: Apache-2.0 */
/* MADV_DONTNEED empties pages, leaves neighbours alone, and other advice is accepted. */
#include "guest.h"

#include <sys/mman.h>

#define PAGE ((size_t)4096)

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
    return guest_passed("madvise");
}
