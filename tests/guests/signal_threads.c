/* SPDX-License-Identifier: Apache-2.0 */
/* Signals between threads: to one thread, to the process, masked, waited for, with values. */
#include "guest.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>

static atomic_int handled;
static volatile pthread_t handler_thread;
static atomic_int stop;

static void on_signal(int number)
{
    (void)number;
    handler_thread = pthread_self();
    atomic_fetch_add(&handled, 1);
}

static void *spinner(void *argument)
{
    while (!atomic_load(&stop))
        __builtin_ia32_pause();
    return argument;
}

static void *waiter(void *argument)
{
    sigset_t set;
    siginfo_t info;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    for (int i = 0; i < 100; i++) {
        EXPECT(sigwaitinfo(&set, &info) == SIGRTMIN + 1);
        EXPECT(info.si_value.sival_int == i);
        EXPECT(info.si_code == SI_QUEUE && info.si_pid == getpid());
    }
    return argument;
}

static void wait_for(int count)
{
    double limit = guest_now_s() + 20;
    while (atomic_load(&handled) < count)
        EXPECT(guest_now_s() < limit);
}

int main(void)
{
    sigset_t set;
    pthread_t spin;
    pthread_t wait;
    struct sigaction action = {.sa_handler = on_signal};

    EXPECT(sigaction(SIGUSR1, &action, NULL) == 0);
    EXPECT(pthread_create(&spin, NULL, spinner, NULL) == 0);
    for (int i = 1; i <= 50; i++) { /* a thread that makes no system call is reached */
        EXPECT(pthread_kill(spin, SIGUSR1) == 0);
        wait_for(i);
        EXPECT(pthread_equal(handler_thread, spin));
    }
    EXPECT(raise(SIGUSR1) == 0); /* synchronous: handled before raise returns */
    EXPECT(atomic_load(&handled) == 51 && pthread_equal(handler_thread, pthread_self()));

    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    EXPECT(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    EXPECT(kill(getpid(), SIGUSR1) == 0); /* masked here: the other thread takes it */
    wait_for(52);
    EXPECT(pthread_equal(handler_thread, spin));
    EXPECT(pthread_kill(pthread_self(), SIGUSR1) == 0);
    EXPECT(sigpending(&set) == 0 && sigismember(&set, SIGUSR1));
    EXPECT(atomic_load(&handled) == 52);
    EXPECT(pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
    EXPECT(atomic_load(&handled) == 53);
    atomic_store(&stop, 1);
    EXPECT(pthread_join(spin, NULL) == 0);

    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    EXPECT(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    EXPECT(pthread_create(&wait, NULL, waiter, NULL) == 0);
    for (int i = 0; i < 100; i++) /* real-time signals queue in order */
        EXPECT(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i}) == 0);
    EXPECT(pthread_join(wait, NULL) == 0);
    EXPECT(syscall(SYS_tgkill, getpid(), 1 << 30, SIGUSR1) == -1 && errno == ESRCH);
    return guest_passed("signal_threads");
}
