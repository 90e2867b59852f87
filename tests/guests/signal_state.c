/* SPDX-License-Identifier: Apache-2.0 */
/* A handler sees and may change the interrupted registers; vector state survives it. */
#include "guest.h"

#include <signal.h>
#include <sys/time.h>
#include <sys/ucontext.h>

static volatile int ticks;
static volatile int nested;

static void on_tick(int number)
{
    (void)number;
    volatile double noise[8];
    for (int i = 0; i < 8; i++)
        noise[i] = i * 3.25 + ticks; /* dirties the vector registers */
    ticks += noise[7] > 0;
}

static void on_trap(int number, siginfo_t *info, void *context)
{
    ucontext_t *user = context;
    EXPECT(number == SIGILL);
    EXPECT((long)info->si_addr == user->uc_mcontext.gregs[REG_RIP]);
    user->uc_mcontext.gregs[REG_RIP] += 2; /* over ud2 */
    user->uc_mcontext.gregs[REG_RAX] = 4711;
}

static void on_divide(int number, siginfo_t *info, void *context)
{
    ucontext_t *user = context;
    EXPECT(number == SIGFPE && info->si_code == FPE_INTDIV);
    user->uc_mcontext.gregs[REG_RCX] = 5; /* the divisor: run it again */
}

static void on_nested(int number)
{
    if (++nested < 3)
        raise(number);
}

static double spin_for_ticks(int wanted)
{
    double a = 1;
    double b = 0.5;
    for (long turn = 0; ticks < wanted; turn++) {
        double before = a * 1.25 + b;
        __asm__ volatile("" : "+x"(a), "+x"(b));
        EXPECT(a * 1.25 + b == before);
    }
    return a + b;
}

int main(void)
{
    struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
    struct itimerval every = {{0, 2000}, {0, 2000}};
    EXPECT(sigaction(SIGALRM, &action, NULL) == 0);
    EXPECT(setitimer(ITIMER_REAL, &every, NULL) == 0);
    EXPECT(spin_for_ticks(100) == 1.5);
    every = (struct itimerval){{0, 0}, {0, 0}};
    EXPECT(setitimer(ITIMER_REAL, &every, NULL) == 0);

    action = (struct sigaction){.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    EXPECT(sigaction(SIGILL, &action, NULL) == 0);
    long result = 0;
    __asm__ volatile("ud2" : "+a"(result));
    EXPECT(result == 4711);

    action.sa_sigaction = on_divide;
    EXPECT(sigaction(SIGFPE, &action, NULL) == 0);
    int quotient = 100;
    int zero = 0;
    __asm__ volatile("cltd; idivl %%ecx" : "+a"(quotient), "+c"(zero) : : "rdx");
    EXPECT(quotient == 20);

    action = (struct sigaction){.sa_handler = on_nested, .sa_flags = SA_NODEFER};
    EXPECT(sigaction(SIGUSR2, &action, NULL) == 0);
    EXPECT(raise(SIGUSR2) == 0 && nested == 3);
    action.sa_flags = (int)SA_RESETHAND;
    EXPECT(sigaction(SIGUSR2, &action, NULL) == 0);
    EXPECT(raise(SIGUSR2) == 0);
    EXPECT(sigaction(SIGUSR2, NULL, &action) == 0 && action.sa_handler == SIG_DFL);
    return guest_passed("signal_state");
}
