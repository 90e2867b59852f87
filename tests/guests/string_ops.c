/* SPDX-License-Identifier: Apache-2.0 */
/*
 * String instructions and unaligned accesses over far pages: each may fault in the middle, on
 * either operand, on both sides of a page border, and must go on where it was.
 */
#include "guest.h"

#include <stdint.h>
#include <sys/mman.h>

#define PAGE ((size_t)4096)

static void move_up(void *to, const void *from, size_t bytes)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

static void move_down(unsigned char *to, const unsigned char *from, size_t bytes)
{
    void *last_to = to + bytes - 1;
    const void *last_from = from + bytes - 1;
    __asm__ volatile("std; rep movsb; cld"
                     : "+D"(last_to), "+S"(last_from), "+c"(bytes)
                     :
                     : "memory");
}

static void store_words(void *to, uint64_t value, size_t words)
{
    __asm__ volatile("rep stosq" : "+D"(to), "+c"(words) : "a"(value) : "memory");
}

static size_t scan(const void *at, unsigned char wanted, size_t bytes)
{
    size_t left = bytes;
    __asm__ volatile("repne scasb" : "+D"(at), "+c"(left) : "a"(wanted) : "memory", "cc");
    return bytes - left - 1;
}

static size_t first_difference(const void *a, const void *b, size_t bytes)
{
    size_t left = bytes;
    __asm__ volatile("repe cmpsb" : "+S"(a), "+D"(b), "+c"(left) : : "memory", "cc");
    return bytes - left - 1;
}

static void cross_borders(unsigned char *area, size_t pages)
{
    for (size_t i = 1; i < pages; i++) {
        uint64_t *word = (void *)(area + i * PAGE - 1 - i % 7);
        uint64_t value = i * 0x0101010101010101u;
        __asm__ volatile("movq %1, (%0)" : : "r"(word), "r"(value) : "memory");
    }
    for (size_t i = 1; i < pages; i++) {
        uint64_t *word = (void *)(area + i * PAGE - 1 - i % 7);
        uint64_t value;
        __asm__ volatile("movq (%1), %0" : "=r"(value) : "r"(word) : "memory");
        EXPECT(value == i * 0x0101010101010101u);
        __asm__ volatile("addq %1, (%0)" : : "r"(word), "r"(value) : "memory", "cc");
        __asm__ volatile("pushq (%1); popq %0" : "=r"(value) : "r"(word) : "memory");
        EXPECT(value == 2 * i * 0x0101010101010101u);
    }
}

int main(int argc, char **argv)
{
    size_t bytes = (argc > 1 ? strtoul(argv[1], NULL, 10) : 32) << 20;
    unsigned char *area = mmap(NULL, 2 * bytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    unsigned char *other = area + bytes;
    EXPECT(area != MAP_FAILED);

    store_words(area, 0x1122334455667788u, bytes / 8);
    area[bytes - 5] = 0xee;
    EXPECT(scan(area, 0xee, bytes) == bytes - 5);
    move_up(other + 3, area, bytes - 3);
    EXPECT(first_difference(other + 3, area, bytes - 3) == bytes - 4);
    other[bytes / 2 + 1] = 0;
    EXPECT(first_difference(other + 3, area, bytes - 3) == bytes / 2 - 2);
    move_down(area + 1001, area + 1, bytes / 2);
    EXPECT(area[1001] == 0x77 && area[1000 + bytes / 2] == area[8]);
    EXPECT(memcmp(area + 1001, area + 1, 1000) == 0);
    memmove(other, area + 77, bytes - 77);
    EXPECT(memcmp(other, area + 77, bytes - 77) == 0);
    cross_borders(area, bytes / PAGE);
    EXPECT(munmap(area, 2 * bytes) == 0);
    return guest_passed("string_ops");
}
