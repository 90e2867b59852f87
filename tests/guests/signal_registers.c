/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A signal leaves no trace in what it interrupts: vector registers survive handlers that spoil
 * them, a handler may edit the context it returns to, and rounding modes pass to new threads.
 */
#include "guest.h"

#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <ucontext.h>

#define WORKERS 3
#define SIGNALS 1500
#define ANSWER  1234
#define LANE    77

static atomic_int handled;
static atomic_int stop;

static void spoil(int number)
{
    (void)number;
    __asm__ volatile(
        "pcmpeqd %%xmm0, %%xmm0; movdqa %%xmm0, %%xmm1; movdqa %%xmm0, %%xmm15; fldz" ::
            : "xmm0", "xmm1", "xmm15");
    atomic_fetch_add(&handled, 1);
}

static void *worker(void *argument)
{
    double lanes[2] __attribute__((aligned(16))) = {1, 2};
    long rounds = 0;
    while (!atomic_load(&stop)) {
        double one[2] __attribute__((aligned(16))) = {1, 1};
        __asm__ volatile(
            "movapd (%0), %%xmm0; movapd (%1), %%xmm1; mov $2000, %%ecx\n"
            "1: addpd %%xmm1, %%xmm0; dec %%ecx; jnz 1b; movapd %%xmm0, (%0)" ::"r"(lanes),
            "r"(one)
            : "xmm0", "xmm1", "ecx", "memory");
        rounds += 2000;
        EXPECT(lanes[0] == 1.0 + (double)rounds && lanes[1] == 2.0 + (double)rounds);
    }
    return argument;
}

static void registers_survive(void)
{
    pthread_t threads[WORKERS];
    signal(SIGUSR1, spoil);
    for (int i = 0; i < WORKERS; i++)
        EXPECT(pthread_create(&threads[i], NULL, worker, NULL) == 0);
    for (int i = 0; i < SIGNALS; i++)
        EXPECT(pthread_kill(threads[i % WORKERS], SIGUSR1) == 0);
    double limit = guest_now_s() + 20;
    while (atomic_load(&handled) < WORKERS)
        EXPECT(guest_now_s() < limit);
    atomic_store(&stop, 1);
    for (int i = 0; i < WORKERS; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
}

static void edit(int number, siginfo_t *info, void *context)
{
    ucontext_t *user = context;
    EXPECT(number == SIGILL && info->si_addr == (void *)user->uc_mcontext.gregs[REG_RIP]);
    user->uc_mcontext.gregs[REG_RIP] += 2; /* over the ud2 */
    user->uc_mcontext.gregs[REG_RAX] = ANSWER;
    EXPECT(user->uc_mcontext.fpregs != NULL);
    user->uc_mcontext.fpregs->_xmm[0].element[0] = LANE;
}

static void context_is_writable(void)
{
    struct sigaction action = {.sa_sigaction = edit, .sa_flags = SA_SIGINFO};
    long answer;
    int lane;
    EXPECT(sigaction(SIGILL, &action, NULL) == 0);
    __asm__ volatile("pxor %%xmm0, %%xmm0; ud2; movd %%xmm0, %1"
                     : "=a"(answer), "=r"(lane)::"xmm0");
    EXPECT(answer == ANSWER && lane == LANE);
}

static void *rounding(void *argument)
{
    *(int *)argument = fegetround();
    return NULL;
}

static void rounding_is_inherited(void)
{
    pthread_t thread;
    int seen = -1;
    EXPECT(fesetround(FE_UPWARD) == 0);
    EXPECT(pthread_create(&thread, NULL, rounding, &seen) == 0);
    EXPECT(pthread_join(thread, NULL) == 0);
    EXPECT(seen == FE_UPWARD && fesetround(FE_TONEAREST) == 0);
}

int main(void)
{
    registers_survive();
    context_is_writable();
    rounding_is_inherited();
    return guest_passed("signal_registers");
}
