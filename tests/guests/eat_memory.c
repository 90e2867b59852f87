/* SPDX-License-Identifier: Apache-2.0 */
/* Takes and fills memory until there is no more. */
#include <stdlib.h>
#include <string.h>

int main(void)
{
    for (;;) {
        char *more = malloc(1 << 20);
        if (!more)
            return 1; /* promised memory is there, or its absence ends the program */
        memset(more, 1, 1 << 20);
    }
}
