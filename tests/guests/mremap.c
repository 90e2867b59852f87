/* SPDX-License-Identifier: Apache-2.0 */
/* mremap grows, shrinks and moves mappings with their bytes, also far ones. */
#include "guest.h"

#include <stdint.h>
#include <sys/mman.h>

#define PAGE ((size_t)4096)

static char *map(size_t pages)
{
    char *at = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(at != MAP_FAILED);
    return at;
}

static void fill(char *at, size_t pages, uint64_t tag)
{
    for (size_t i = 0; i < pages; i++)
        *(uint64_t *)(void *)(at + i * PAGE + 8) = tag + i;
}

static void expect_filled(char *at, size_t pages, uint64_t tag)
{
    for (size_t i = 0; i < pages; i++)
        EXPECT(*(uint64_t *)(void *)(at + i * PAGE + 8) == tag + i);
}

static int mapped(char *at)
{
    unsigned char residency;
    return mincore(at, PAGE, &residency) == 0;
}

/* As realloc() makes an array grow: each time a little further, with something in the way. */
static void grow_again_and_again(size_t pages)
{
    char *at = map(pages);
    fill(at, pages, 77);
    for (size_t round = 0; round < 5; round++, pages += pages / 2) {
        size_t more = pages + pages / 2;
        char *target = map(more);
        EXPECT(mremap(at, pages * PAGE, more * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) ==
               target);
        at = target;
        expect_filled(at, pages, 77);
        for (size_t i = pages; i < more; i++)
            EXPECT(at[i * PAGE] == 0);
        fill(at + pages * PAGE, more - pages, 77 + pages);
    }
    EXPECT(munmap(at, pages * PAGE) == 0);
}

int main(int argc, char **argv)
{
    size_t pages = argc > 1 ? strtoul(argv[1], NULL, 10) << 8 : 2048;
    char *area = map(pages);
    fill(area, pages, 1000);

    char *blocker = mmap(area + pages * PAGE, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(blocker != MAP_FAILED);
    char *moved = mremap(area, pages * PAGE, 2 * pages * PAGE, MREMAP_MAYMOVE);
    EXPECT(moved != MAP_FAILED);
    expect_filled(moved, pages, 1000);
    for (size_t i = pages; i < 2 * pages; i += 7)
        EXPECT(moved[i * PAGE] == 0);
    if (moved != area)
        EXPECT(!mapped(area));

    EXPECT(mremap(moved, 2 * pages * PAGE, pages * PAGE, 0) == moved);
    EXPECT(!mapped(moved + pages * PAGE));
    expect_filled(moved, pages, 1000);

    char *target = map(pages);
    fill(target, pages, 5);
    EXPECT(mremap(moved, pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) ==
           target);
    expect_filled(target, pages, 1000);
    EXPECT(!mapped(moved));

    char *middle = target + pages / 4 * PAGE; /* a part of a mapping */
    char *part = mremap(middle, pages / 4 * PAGE, pages / 2 * PAGE, MREMAP_MAYMOVE);
    EXPECT(part != MAP_FAILED);
    expect_filled(part, pages / 4, 1000 + pages / 4);
    expect_filled(target, pages / 4, 1000);
    expect_filled(target + pages / 2 * PAGE, pages / 2, 1000 + pages / 2);

    grow_again_and_again(300);

    EXPECT(mremap((char *)16384, PAGE, 2 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED && errno == EFAULT);
    EXPECT(mremap(target + 1, PAGE, 2 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED && errno == EINVAL);
    return guest_passed("mremap");
}
