/* SPDX-License-Identifier: Apache-2.0 */
/* mprotect splits and joins mappings, keeps their bytes, and makes written code runnable. */
#include "guest.h"

#include <stdint.h>
#include <sys/mman.h>

#define PAGE  ((size_t)4096)
#define PAGES ((size_t)512)

typedef int (*function)(void);

int main(void)
{
    static const unsigned char code[] = {0xb8, 0x2a, 0, 0, 0, 0xc3}; /* mov $42, %eax; ret */
    char *area =
        mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(area != MAP_FAILED);
    for (size_t i = 0; i < PAGES; i++)
        area[i * PAGE] = (char)(i * 7);
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < PAGES; i += 16)
            EXPECT(mprotect(area + i * PAGE, 8 * PAGE, round % 2 ? PROT_NONE : PROT_READ) == 0);
        EXPECT(mprotect(area, PAGES * PAGE, PROT_READ | PROT_WRITE) == 0);
        area[(size_t)round * PAGE + 1] = 1;
    }
    for (size_t i = 0; i < PAGES; i++)
        EXPECT(area[i * PAGE] == (char)(i * 7));

    memcpy(area, code, sizeof code);
    EXPECT(mprotect(area, PAGE, PROT_READ | PROT_EXEC) == 0);
    EXPECT(((function)(uintptr_t)area)() == 42);
    EXPECT(mprotect(area, PAGE, PROT_READ | PROT_WRITE) == 0);
    area[1] = 43;
    EXPECT(mprotect(area, PAGE, PROT_READ | PROT_EXEC) == 0);
    EXPECT(((function)(uintptr_t)area)() == 43);

    EXPECT(munmap(area + 5 * PAGE, PAGE) == 0);
    EXPECT(mprotect(area, 10 * PAGE, PROT_READ) == -1 && errno == ENOMEM);
    EXPECT(mprotect(area + 1, PAGE, PROT_READ) == -1 && errno == EINVAL);
    return guest_passed("mprotect");
}
