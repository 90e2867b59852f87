/* SPDX-License-Identifier: Apache-2.0 */
/* Ends as told: `exits N` with status N, `exits signal N` by that signal, `exits abort`,
 * `exits segv`: by a wild store in a function of that name. */
#include "guest.h"

#include <signal.h>

static __attribute__((noinline)) void wild_store(volatile int *at)
{
    *at = 1;
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "signal") == 0) {
        raise(atoi(argv[2]));
        return 99;
    }
    if (argc > 1 && strcmp(argv[1], "abort") == 0)
        abort();
    if (argc > 1 && strcmp(argv[1], "segv") == 0)
        wild_store((int *)0x123450);
    return argc > 1 ? atoi(argv[1]) : 0;
}
