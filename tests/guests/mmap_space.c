/* SPDX-License-Identifier: Apache-2.0 */
/* The address space: hints, fixed places, huge sparse reservations, holes, and its limits. */
#include "guest.h"

#include <stdint.h>
#include <sys/mman.h>

#define GIB ((size_t)1 << 30)

static char *map(void *hint, size_t bytes, int flags)
{
    return mmap(hint, bytes, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
}

int main(void)
{
    char *sparse = map(NULL, 32 * GIB, 0); /* far more than there is memory */
    EXPECT(sparse != MAP_FAILED);
    for (size_t i = 0; i < 32; i++)
        sparse[i * GIB + 12345] = (char)(i + 1);
    for (size_t i = 0; i < 32; i++)
        EXPECT(sparse[i * GIB + 12345] == (char)(i + 1) && sparse[i * GIB + 12345 - 8192] == 0);

    char *inside = sparse + 7 * GIB;
    EXPECT(map(inside, 8192, MAP_FIXED_NOREPLACE) == MAP_FAILED && errno == EEXIST);
    EXPECT(map(inside, 65536, MAP_FIXED) == inside && inside[12345] == 0);
    EXPECT(munmap(sparse + GIB, GIB) == 0);
    EXPECT(map(sparse + GIB, 4096, 0) == sparse + GIB); /* a free hint is taken */
    EXPECT(sparse[12345] == 1 && sparse[2 * GIB + 12345] == 3);
    EXPECT(munmap(sparse, 32 * GIB) == 0); /* with holes */
    EXPECT(munmap(sparse, 32 * GIB) == 0); /* nothing there: fine */
    EXPECT(munmap(sparse + 1, 4096) == -1 && errno == EINVAL);
    EXPECT(map(NULL, 0, 0) == MAP_FAILED && errno == EINVAL);
    EXPECT(map(NULL, (size_t)1 << 50, 0) == MAP_FAILED && errno == ENOMEM);
    EXPECT(map(NULL, SIZE_MAX - 8191, 0) == MAP_FAILED && errno == ENOMEM);

    char *shared = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT(shared != MAP_FAILED);
    shared[4096] = 1;
    EXPECT(shared[4096] == 1 && shared[8192] == 0);

    for (int i = 0; i < 3000; i++) { /* many small mappings, no leak */
        char *small = map(NULL, 4096 * (size_t)(1 + i % 5), 0);
        EXPECT(small != MAP_FAILED && small[0] == 0);
        small[0] = 1;
        EXPECT(munmap(small, 4096 * (size_t)(1 + i % 5)) == 0);
    }
    return guest_passed("mmap_space");
}
