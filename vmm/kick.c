/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kicks: a vCPU is made to look, out of KVM_RUN or out of a system call on the host; and what a
 * kick that came early means for such a call.
 */
#include "vmm/machine.h"

#include "support.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/* Between the signals to a call that a kick came before: what its wait costs at most. */
#define KICK_AGAIN_NS   200000
#define TURNED_AWAY_MAX 4u

void interruptible_redirect(void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    uintptr_t rip = (uintptr_t)registers[REG_RIP];
    if (rip >= (uintptr_t)interruptible_begin && rip < (uintptr_t)interruptible_end)
        registers[REG_RIP] = (greg_t)(uintptr_t)interruptible_cancel;
}

/*
 * Runs on the kicked thread. KVM_RUN not yet entered returns at once; a system call not yet made is
 * turned away (call_made_kicked); one under way returns EINTR because this handler ran (no
 * SA_RESTART). The race: between vcpu_kick's two steps its first may be undone by a look at
 * something else (run.c). The signal that comes then cuts calls short all the same, and what they
 * did is told apart from what was to be had by `kicked`. The next entry, which returns at once,
 * clears it.
 */
static void kick_handler(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    struct vcpu *self = vcpu_self();
    if (!self || !self->run) /* the poller has none */
        return;
    atomic_store(&self->kicked, 1);
    self->run->immediate_exit = 1;
    interruptible_redirect(context);
}

int vcpu_signals_init(void)
{
    struct sigaction action = {.sa_sigaction = kick_handler, .sa_flags = SA_SIGINFO};
    sigset_t kick;
    sigfillset(&action.sa_mask);
    sigemptyset(&kick);
    sigaddset(&kick, MACHINE_SIGNAL_KICK);
    if (sigaction(MACHINE_SIGNAL_KICK, &action, NULL) < 0)
        return -errno;
    return -pthread_sigmask(SIG_UNBLOCK, &kick, NULL); /* whoever started us may have blocked it */
}

void vcpu_kick(struct vcpu *vcpu)
{
    int saved = errno;
    atomic_store(&vcpu->kicked, 1);
    syscall(SYS_tgkill, vcpu->vm->pid, vcpu->tid, MACHINE_SIGNAL_KICK);
    errno = saved;
}

/* Counted for this user like a queued signal. */
int kick_timer_create(struct vcpu *vcpu)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = MACHINE_SIGNAL_KICK};
    static atomic_bool told;

    event._sigev_un._tid = atomic_load(&vcpu->tid);
    if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &vcpu->kick_timer) < 0) {
        int error = -errno;
        if (!atomic_exchange(&told, true))
            message_error("host: vcpu %u: timer: %s (ulimit -i)", vcpu->index, strerror(-error));
        return error;
    }
    vcpu->has_kick_timer = true;
    return 0;
}

void kick_timer_delete(struct vcpu *vcpu)
{
    if (vcpu->has_kick_timer)
        syscall(SYS_timer_delete, vcpu->kick_timer);
    vcpu->has_kick_timer = false;
}

/*
 * The rule for a kick that came before the call: as Linux has it for a signal, which ends a call
 * only where it would sleep. So the call is made all the same, with signals on their way as if the
 * kick came just then. What does not have to wait is done; what does is ended as by a kick that
 * came later: with a part of what was asked for, if it has one, else -EINTR. One signal could come
 * before the call began to sleep; so they come until it is back, from a timer that each host thread
 * has from its begin: made here it could be refused (RLIMIT_SIGPENDING), and the call with it.
 *
 * A call that the kernel would begin anew after each of them (FUTEX_LOCK_PI) is turned away, as is
 * one whose thread was kept from running just before it: the latter does not happen again and
 * again.
 */
static long call_made_kicked(struct vcpu *vcpu, long number, const long args[6])
{
    static const struct itimerspec soon = {{0, KICK_AGAIN_NS}, {0, KICK_AGAIN_NS}}, stop;
    static const atomic_int no_kick;
    long result = TURNED_AWAY;

    if (syscall(SYS_timer_settime, vcpu->kick_timer, 0, &soon, NULL) < 0)
        return -EINTR; /* not to sleep for ever, whatever is wrong with the timer */
    for (unsigned i = 0; result == TURNED_AWAY && i < TURNED_AWAY_MAX; i++)
        result = interruptible_syscall(&no_kick, number, args[0], args[1], args[2], args[3],
                                       args[4], args[5]);
    syscall(SYS_timer_settime, vcpu->kick_timer, 0, &stop, NULL);
    return result == TURNED_AWAY ? -EINTR : result;
}

long vcpu_syscall(struct vcpu *vcpu, long number, long a, long b, long c, long d, long e, long f)
{
    long result;

    if (vcpu->at_once)
        return at_once_syscall(vcpu, number, a, b, c, d, e, f);
    result = interruptible_syscall(&vcpu->kicked, number, a, b, c, d, e, f);
    if (result == TURNED_AWAY)
        result = call_made_kicked(vcpu, number, (const long[6]){a, b, c, d, e, f});
    return result;
}
