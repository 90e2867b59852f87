/* SPDX-License-Identifier: Apache-2.0 */
/* Writes memory once, then reads it in sequence, pass by pass, without writing to it again: what a
 * cache of clean pages and reading ahead are for. Odd passes go upwards, even ones down.
 * usage: sequential MIB PASSES */
#include "guest.h"

#include <stdint.h>
#include <sys/mman.h>

#define PAGE_WORDS 512u

static uint64_t expected(size_t page)
{
    return page * 0x9e3779b97f4a7c15u + 1;
}

int main(int argc, char **argv)
{
    size_t pages = (argc > 1 ? strtoul(argv[1], NULL, 10) : 32) << 8;
    unsigned long passes = argc > 2 ? strtoul(argv[2], NULL, 10) : 2;
    uint64_t *area =
        mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(area != MAP_FAILED);
    for (size_t page = 0; page < pages; page++) {
        area[page * PAGE_WORDS] = expected(page);
        area[page * PAGE_WORDS + PAGE_WORDS - 1] = ~expected(page);
    }
    for (unsigned long pass = 1; pass <= passes; pass++) {
        for (size_t i = 0; i < pages; i++) {
            size_t page = pass % 2 ? i : pages - 1 - i;
            EXPECT(area[page * PAGE_WORDS] == expected(page));
            EXPECT(area[page * PAGE_WORDS + PAGE_WORDS - 1] == ~expected(page));
        }
    }
    return guest_passed("sequential");
}
