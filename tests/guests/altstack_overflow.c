/* SPDX-License-Identifier: Apache-2.0 */
/* Handlers nest on an alternate stack until it is full: that ends the program by SIGSEGV, instead
 * of writing over what lies below. */
#include "guest.h"

#include <signal.h>

#define STACK_BYTES 16384
#define DEPTH_MAX   (STACK_BYTES / 512) /* a frame is larger */

static char memory[4 * STACK_BYTES];
static int depth;

static void on_signal(int number)
{
    if (++depth > DEPTH_MAX)
        _exit(1);
    raise(number);
}

int main(void)
{
    stack_t stack = {.ss_sp = memory + 3 * STACK_BYTES, .ss_size = STACK_BYTES};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_NODEFER};

    EXPECT(sigaltstack(&stack, NULL) == 0);
    EXPECT(sigaction(SIGUSR1, &action, NULL) == 0);
    raise(SIGUSR1);
    return 2;
}
