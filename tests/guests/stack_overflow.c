/* SPDX-License-Identifier: Apache-2.0 */
/* Unbounded recursion ends in SIGSEGV, handled on the alternate stack; for threads too. */
#include "guest.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>

static __thread sigjmp_buf after_overflow;
static __thread char *alternate;
static __thread volatile uintptr_t fault_address;

static void on_overflow(int number, siginfo_t *info, void *context)
{
    char here;
    (void)number;
    (void)context;
    EXPECT(&here >= alternate && &here < alternate + 65536);
    fault_address = (uintptr_t)info->si_addr;
    siglongjmp(after_overflow, 1);
}

static volatile int endless = 1;

static __attribute__((noinline)) int recurse(volatile char *above)
{
    volatile char frame[1024];
    frame[0] = above[0];
    return endless ? recurse(frame) + frame[1] : 0;
}

static void *overflow(void *argument)
{
    volatile char here = 0;
    alternate = malloc(65536);
    stack_t stack = {.ss_sp = alternate, .ss_size = 65536};
    EXPECT(sigaltstack(&stack, NULL) == 0);
    if (sigsetjmp(after_overflow, 1) == 0) {
        recurse(&here);
        EXPECT(!"the recursion to end");
    }
    EXPECT((uintptr_t)&here - fault_address < 16u << 20);
    EXPECT((uintptr_t)&here - fault_address > 64u << 10);
    stack.ss_flags = SS_DISABLE;
    EXPECT(sigaltstack(&stack, NULL) == 0);
    return argument;
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = on_overflow, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    EXPECT(sigaction(SIGSEGV, &action, NULL) == 0);
    overflow(NULL);
    pthread_attr_t attributes;
    pthread_t thread;
    EXPECT(pthread_attr_init(&attributes) == 0);
    EXPECT(pthread_attr_setstacksize(&attributes, 256 << 10) == 0);
    EXPECT(pthread_create(&thread, &attributes, overflow, NULL) == 0);
    EXPECT(pthread_join(thread, NULL) == 0);
    return guest_passed("stack_overflow");
}
