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

/* There can be 65,530 mappings: what is refused for that changes nothing. */
static void refused_where_mappings_are_too_many(void)
{
    char path[] = "mremap-XXXXXX", *area = map(8), *files[4];
    size_t many = 70000, i = 1, count = 0;
    char *rest = mmap(NULL, many * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = mkstemp(path);

    EXPECT(rest != MAP_FAILED && fd >= 0 && unlink(path) == 0);
    EXPECT(write(fd, "file", 4) == 4 && ftruncate(fd, 2 * (off_t)PAGE) == 0);
    fill(area, 8, 5);
    while (i < many && mprotect(rest + i * PAGE, PAGE, PROT_READ) == 0)
        i += 2;
    EXPECT(i < many && errno == ENOMEM);
    EXPECT(mremap(area + 2 * PAGE, 2 * PAGE, 4 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED &&
           errno == ENOMEM);
    expect_filled(area, 8, 5);
    while (count < 4 && (files[count] = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                                             0)) != MAP_FAILED)
        count++;
    EXPECT(count < 4 && errno == ENOMEM);
    EXPECT(munmap(rest, many * PAGE) == 0);
    for (i = 0; i < 4; i++) { /* where the file would have been */
        char *memory = map(2);
        EXPECT(memory[0] == 0);
        memory[0] = 'm';
        EXPECT(write(1, memory, 0) == 0 && pread(fd, memory + PAGE, 4, 0) == 4);
        EXPECT(memcmp(memory + PAGE, "file", 4) == 0);
    }
    EXPECT(mremap(area + 2 * PAGE, 2 * PAGE, 4 * PAGE, MREMAP_MAYMOVE) != MAP_FAILED);
    EXPECT(close(fd) == 0);
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
    refused_where_mappings_are_too_many();

    EXPECT(mremap((char *)16384, PAGE, 2 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED && errno == EFAULT);
    EXPECT(mremap(target + 1, PAGE, 2 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED && errno == EINVAL);
    return guest_passed("mremap");
}
