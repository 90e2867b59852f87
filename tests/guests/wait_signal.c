/* SPDX-License-Identifier: Apache-2.0 */
/* Says it is ready, then waits for SIGTERM or SIGINT from outside and exits with 40 + its number;
 * with an argument it has no handler and dies of it. */
#include "guest.h"

#include <signal.h>

static volatile sig_atomic_t got;

static void on_signal(int number)
{
    got = number;
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc == 1) {
        signal(SIGTERM, on_signal);
        signal(SIGINT, on_signal);
    }
    puts("ready");
    fflush(stdout);
    while (!got)
        pause();
    return 40 + got;
}
