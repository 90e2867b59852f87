/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guide whose time is over while the library makes a hook: refusing to hook long_function takes
 * most of it, because all of its million instructions are looked at before the jump into its own
 * start is found. What was hooked before still works.
 */
#include <farvisor/guide.h>
#include <unistd.h>

__asm__(".text\n"
        ".globl long_function\n"
        ".type long_function, @function\n"
        "long_function:\n"
        "0:      nop\n"
        "1:      .fill 1048576, 1, 0x90\n"
        "        jmp 1b\n"
        ".size long_function, . - long_function\n");

int hooked_before(int a);
typedef int hooked_fn(int a);
static hooked_fn *original, *none;

__attribute__((noinline)) int hooked_before(int a)
{
    __asm__ volatile("nop; nop; nop; nop; nop; nop; nop; nop" : "+r"(a));
    return a + 1;
}

static int guided(int a)
{
    return original(a);
}

static int start(void)
{
    if (guide_hook("hooked_before", (void *)guided, (void **)&original))
        return -1;
    while (guide_hook("long_function", (void *)guided, (void **)&none) != 0)
        continue;
    return 0;
}

GUIDE("half", start)

__attribute__((constructor)) static void call_it(void)
{
    hooked_fn *volatile call = hooked_before;
    if (call(41) != 42)
        _exit(3);
}
