/* SPDX-License-Identifier: Apache-2.0 */
/* Moves a region to and fro with mremap until stopped: busy_mover MIB SECONDS. */
#include "guest.h"

#include <sys/mman.h>

int main(int argc, char **argv)
{
    EXPECT(argc == 3);
    size_t bytes = strtoull(argv[1], NULL, 10) << 20;
    double end = guest_now_s() + atof(argv[2]);
    char *places = mmap(NULL, 2 * bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    EXPECT(places != MAP_FAILED);
    memset(places, 1, bytes);
    printf("running\n");
    fflush(stdout);
    for (int at = 0; guest_now_s() < end; at = !at) {
        char *from = places + (at ? bytes : 0), *to = places + (at ? 0 : bytes);
        EXPECT(mremap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
        EXPECT(to[bytes - 1] == 1);
    }
    return 0;
}
