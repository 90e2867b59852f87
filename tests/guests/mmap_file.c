/* SPDX-License-Identifier: Apache-2.0 */
/* File mappings: private copies that never reach the file, shared read-only ones, offsets. */
#include "guest.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>

#define PAGE  ((size_t)4096)
#define PAGES ((size_t)4096)

static int make_file(void)
{
    int fd = open("mmap_file.tmp", O_RDWR | O_CREAT | O_TRUNC, 0600);
    EXPECT(fd >= 0);
    uint64_t page[PAGE / 8];
    for (size_t i = 0; i < PAGES; i++) {
        for (size_t j = 0; j < PAGE / 8; j++)
            page[j] = i * 1000 + j;
        EXPECT(write(fd, page, PAGE) == (ssize_t)PAGE);
    }
    return fd;
}

static uint64_t word(const char *map, size_t page, size_t index)
{
    return ((const uint64_t *)(const void *)(map + page * PAGE))[index];
}

/* Rights on the pages of a file that was opened to be read come and go, and the pages move. */
static void read_only_view(void)
{
    int fd = open("mmap_file.tmp", O_RDONLY), out[2];
    char *view = mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    char *place = mmap(NULL, 4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(fd >= 0 && view != MAP_FAILED && place != MAP_FAILED && pipe(out) == 0);
    for (int round = 0; round < 3; round++) {
        EXPECT(word(view, 1, 7) == 1007 && word(view, 3, 9) == 3009);
        EXPECT(mprotect(view + PAGE, 2 * PAGE, PROT_NONE) == 0);
        EXPECT(write(out[1], view + PAGE, 1) == -1 && errno == EFAULT);
        EXPECT(word(view, 3, 9) == 3009);
        EXPECT(mprotect(view, 4 * PAGE, PROT_READ | PROT_EXEC) == 0);
        EXPECT(mprotect(view, 4 * PAGE, PROT_READ) == 0);
    }
    EXPECT(mremap(view, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place) == place);
    EXPECT(word(place, 1, 7) == 1007 && word(place, 3, 9) == 3009);
    EXPECT(write(out[1], view, 1) == -1 && errno == EFAULT);
    EXPECT(munmap(place, 4 * PAGE) == 0 && close(fd) == 0);
    EXPECT(close(out[0]) == 0 && close(out[1]) == 0);
}

/* A file that cannot be mapped, over what is there: nothing of it shows, nor anything else. */
static void refused_file(void)
{
    int fd = open("/sys/devices/system/cpu/online", O_RDONLY);
    char *place = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(fd >= 0 && place != MAP_FAILED);
    memset(place, 7, 64 * PAGE);
    EXPECT(mmap(place, 64 * PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED);
    EXPECT(errno == ENODEV);
    EXPECT(mmap(place, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
                -1, 0) == place);
    for (size_t at = 0; at < 64 * PAGE; at += 8)
        EXPECT(word(place, 0, at / 8) == 0);
    EXPECT(munmap(place, 64 * PAGE) == 0 && close(fd) == 0);
}

int main(void)
{
    int fd = make_file();
    char *copy = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    char *view = mmap(NULL, PAGES * PAGE / 2, PROT_READ, MAP_SHARED, fd, (off_t)(PAGES * PAGE / 2));
    EXPECT(copy != MAP_FAILED && view != MAP_FAILED);
    EXPECT(close(fd) == 0); /* mappings outlive the descriptor */
    for (size_t i = 0; i < PAGES; i += 3)
        EXPECT(word(copy, i, i % 512) == i * 1000 + i % 512);
    for (size_t i = 0; i < PAGES; i += 2)
        ((uint64_t *)(void *)(copy + i * PAGE))[5] = 99;
    for (size_t i = 0; i < PAGES; i++)
        EXPECT(word(copy, i, 5) == (i % 2 ? i * 1000 + 5 : 99));
    for (size_t i = PAGES / 2; i < PAGES; i++)
        EXPECT(word(view, i - PAGES / 2, 5) == i * 1000 + 5);

    EXPECT(madvise(copy, 10 * PAGE, MADV_DONTNEED) == 0); /* the file's bytes come back */
    EXPECT(word(copy, 4, 5) == 4005);
    uint64_t in_file;
    fd = open("mmap_file.tmp", O_RDONLY);
    EXPECT(fd >= 0 && pread(fd, &in_file, 8, 8 * PAGE + 40) == 8 && in_file == 8005);
    EXPECT(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 100) == MAP_FAILED && errno == EINVAL);
    EXPECT(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, 999, 0) == MAP_FAILED && errno == EBADF);
    read_only_view();
    refused_file();
    EXPECT(unlink("mmap_file.tmp") == 0);
    return guest_passed("mmap_file");
}
