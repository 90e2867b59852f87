/* SPDX-License-Identifier: Apache-2.0 */
/* The break grows and shrinks; what it gives anew is zero. */
#include "guest.h"

#include <stdint.h>

int main(void)
{
    char *start = sbrk(0);
    EXPECT(start != (void *)-1);
    for (int round = 0; round < 5; round++) {
        EXPECT(sbrk(8 << 20) != (void *)-1);
        for (size_t i = 0; i < 8u << 20; i += 4096) {
            EXPECT(start[i] == 0);
            start[i] = 1;
        }
        EXPECT(sbrk(-(8 << 20)) != (void *)-1);
        EXPECT(sbrk(0) == start);
    }
    EXPECT(sbrk(100) == start && sbrk(-100) == start + 100); /* not page aligned */
    EXPECT(sbrk((intptr_t)1 << 46) == (void *)-1 && errno == ENOMEM);
    return guest_passed("brk");
}
