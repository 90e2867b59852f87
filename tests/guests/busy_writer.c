/* SPDX-License-Identifier: Apache-2.0 */
/* Writes all of its memory again and again until it is stopped: prey for the failure tests.
 * usage: busy_writer MIB SECONDS; says "running" once the first pass is done. */
#include "guest.h"

#include <stdint.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
    size_t words = (argc > 1 ? strtoul(argv[1], NULL, 10) : 64) << 17;
    double limit = guest_now_s() + (argc > 2 ? strtod(argv[2], NULL) : 60);
    uint64_t *area =
        mmap(NULL, words * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(area != MAP_FAILED);
    for (uint64_t pass = 1; guest_now_s() < limit; pass++) {
        for (size_t i = 0; i < words; i += 512) {
            EXPECT(area[i] == (pass == 1 ? 0 : pass - 1 + i));
            area[i] = pass + i;
        }
        if (pass == 1) {
            puts("running");
            fflush(stdout);
        }
    }
    return 0;
}
