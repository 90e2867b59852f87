/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Touches few pages of a large region, as thread stacks and sparse tables do:
 * sparse REGION_MIB STEP_KIB. Every page touched must still hold its number in the end.
 */
#include "guest.h"

#include <stdint.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
    EXPECT(argc == 3);
    uint64_t bytes = strtoull(argv[1], NULL, 10) << 20, step = strtoull(argv[2], NULL, 10) << 10;
    char *region = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    EXPECT(region != MAP_FAILED && step > 0);
    for (int pass = 1; pass <= 3; pass++) {
        for (uint64_t at = 0; at < bytes; at += step) {
            uint64_t *number = (uint64_t *)(void *)(region + at);
            EXPECT(*number == (pass == 1 ? 0 : at + (uint64_t)pass - 1));
            *number = at + (uint64_t)pass;
        }
    }
    printf("sparse: ok\n");
    return 0;
}
