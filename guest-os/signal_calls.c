/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls on signals: actions, masks, waiting, sending. Results and argument checks are those
 * of kernel/signal.c of Linux.
 */
#include "guest-os/kernel.h"

#define SIGSET_BYTES 8
#define SIG_BLOCK    0
#define SIG_UNBLOCK  1
#define SIG_SETMASK  2

/* Smallest alternate stack Linux accepts (MINSIGSTKSZ). */
#define ALTSTACK_MIN 2048

static bool is_signal(uint64_t signal)
{
    return signal >= 1 && signal <= LINUX_NSIG;
}

int64_t sys_rt_sigaction(struct frame *frame)
{
    unsigned signal = (unsigned)frame->rdi;
    struct linux_sigaction action, old;
    if (frame->r10 != SIGSET_BYTES || !is_signal(signal))
        return -LINUX_EINVAL;
    if (frame->rsi != 0 && (signal == LINUX_SIGKILL || signal == LINUX_SIGSTOP))
        return -LINUX_EINVAL;
    if (frame->rsi != 0 && user_read(&action, frame->rsi, sizeof(action)) != 0)
        return -LINUX_EFAULT;
    lock_take(&process.lock);
    old = process.actions[signal];
    if (frame->rsi != 0) {
        action.mask &= ~(signal_bit(LINUX_SIGKILL) | signal_bit(LINUX_SIGSTOP));
        process.actions[signal] = action;
        bool ignores = signal == LINUX_SIGCHLD || signal == LINUX_SIGURG ||
                       signal == LINUX_SIGWINCH || signal == LINUX_SIGCONT;
        if (action.handler == LINUX_SIG_IGN || (action.handler == LINUX_SIG_DFL && ignores)) {
            signal_discard(&process.pending, signal_bit(signal));
            for (struct thread *thread = process.threads; thread != NULL; thread = thread->next)
                signal_discard(&thread->pending, signal_bit(signal));
            signal_fd_went(signal_bit(signal));
        }
    }
    lock_release(&process.lock);
    signal_fd_tell();
    return frame->rdx != 0 ? user_write(frame->rdx, &old, sizeof(old)) : 0;
}

int64_t sys_rt_sigprocmask(struct frame *frame)
{
    uint64_t set, old = thread_current()->blocked;
    if (frame->r10 != SIGSET_BYTES)
        return -LINUX_EINVAL;
    if (frame->rsi != 0) {
        if (user_get64(&set, frame->rsi) != 0)
            return -LINUX_EFAULT;
        switch ((unsigned)frame->rdi) {
        case SIG_BLOCK:
            set |= old;
            break;
        case SIG_UNBLOCK:
            set = old & ~set;
            break;
        case SIG_SETMASK:
            break;
        default:
            return -LINUX_EINVAL;
        }
        signal_set_blocked(set);
    }
    return frame->rdx != 0 ? user_put64(frame->rdx, old) : 0;
}

int64_t sys_rt_sigpending(struct frame *frame)
{
    if (frame->rsi > SIGSET_BYTES)
        return -LINUX_EINVAL;
    uint64_t set = signal_waiting_set() & thread_current()->blocked;
    return user_write(frame->rdi, &set, frame->rsi);
}

/* Sleeps until a signal that is not blocked has come; the way out delivers it. */
static int64_t wait_for_signal(void)
{
    while (!signal_look())
        (void)vmm_sleep(-1);
    return -LINUX_ERESTARTNOHAND; /* so the way out looks at what is pending */
}

int64_t sys_pause(struct frame *frame)
{
    (void)frame;
    return wait_for_signal();
}

int64_t sys_rt_sigsuspend(struct frame *frame)
{
    struct thread *thread = thread_current();
    uint64_t set;
    if (frame->rsi != SIGSET_BYTES)
        return -LINUX_EINVAL;
    if (user_get64(&set, frame->rdi) != 0)
        return -LINUX_EFAULT;
    thread->saved_mask = thread->blocked;
    thread->restore_mask = true;
    signal_set_blocked(set);
    return wait_for_signal();
}

#define NS_MAX 999999999

static int deadline_read(gpa_t at, uint64_t *deadline_ns)
{
    struct linux_timespec timeout;
    *deadline_ns = TIME_NEVER;
    if (at == 0)
        return 0;
    if (user_read(&timeout, at, sizeof(timeout)) != 0)
        return -LINUX_EFAULT;
    if (timeout.seconds < 0 || timeout.nanoseconds < 0 || timeout.nanoseconds > NS_MAX)
        return -LINUX_EINVAL;
    *deadline_ns = time_deadline_ns(&timeout);
    return 0;
}

/* Waits for one of `set`: its number, 0 when the time is over, -EINTR for another signal. */
static int64_t wait_for_set(uint64_t set, uint64_t deadline_ns, struct linux_siginfo *info)
{
    int64_t result;
    signal_set_waiting(set);
    for (;;) {
        (void)signal_look();
        result = signal_take(set, info);
        if (result == 0 && signal_is_due())
            result = -LINUX_EINTR;
        int left_ms = time_left_ms(deadline_ns);
        if (result != 0 || left_ms == 0)
            break;
        (void)vmm_sleep(left_ms);
    }
    signal_set_waiting(0);
    __atomic_store_n(&thread_current()->vcpu->pending, FV_PENDING_SIGNAL, __ATOMIC_RELEASE);
    return result;
}

int64_t sys_rt_sigtimedwait(struct frame *frame)
{
    uint64_t set;
    struct linux_siginfo info;
    uint64_t deadline_ns;
    if (frame->r10 != SIGSET_BYTES)
        return -LINUX_EINVAL;
    if (user_get64(&set, frame->rdi) != 0)
        return -LINUX_EFAULT;
    int error = deadline_read(frame->rdx, &deadline_ns);
    if (error != 0)
        return error;
    set &= ~(signal_bit(LINUX_SIGKILL) | signal_bit(LINUX_SIGSTOP));
    int64_t signal = wait_for_set(set, deadline_ns, &info);
    if (signal == 0)
        return -LINUX_EAGAIN;
    if (signal > 0 && frame->rsi != 0 && user_write(frame->rsi, &info, sizeof(info)) != 0)
        return -LINUX_EFAULT;
    return signal;
}

int64_t sys_sigaltstack(struct frame *frame)
{
    struct thread *thread = thread_current();
    struct linux_stack new, old = signal_altstack_at(thread, frame->rsp);
    if (frame->rdi != 0) {
        if (user_read(&new, frame->rdi, sizeof(new)) != 0)
            return -LINUX_EFAULT;
        if ((old.flags & LINUX_SS_ONSTACK) != 0)
            return -LINUX_EPERM;
        uint32_t mode = new.flags & ~LINUX_SS_AUTODISARM;
        if (mode != 0 && mode != LINUX_SS_ONSTACK && mode != LINUX_SS_DISABLE)
            return -LINUX_EINVAL;
        if (mode == LINUX_SS_DISABLE)
            new.sp = new.bytes = 0;
        else if (new.bytes < ALTSTACK_MIN)
            return -LINUX_ENOMEM;
        new.flags &= LINUX_SS_AUTODISARM;
        new.pad = 0;
        thread->altstack = new;
    }
    return frame->rsi != 0 ? user_write(frame->rsi, &old, sizeof(old)) : 0;
}

static struct linux_siginfo info_of_caller(unsigned signal, int code)
{
    return (struct linux_siginfo){
        .signal = (int32_t)signal, .code = code, .sent.pid = process.pid, .sent.uid = process.uid};
}

/* There is one process here; only it, its own group and "0" name it. */
static bool names_process(int64_t pid)
{
    return pid == 0 || pid == (int64_t)process.pid || pid == -(int64_t)process.pgid;
}

int64_t sys_kill(struct frame *frame)
{
    unsigned signal = (unsigned)frame->rsi;
    if (signal > LINUX_NSIG)
        return -LINUX_EINVAL;
    if (!names_process((int32_t)frame->rdi))
        return -LINUX_ESRCH;
    struct linux_siginfo info = info_of_caller(signal, LINUX_SI_USER);
    return signal_send(0, &info);
}

static int64_t thread_kill(uint64_t tid, uint64_t number)
{
    unsigned signal = (unsigned)number;
    if ((int32_t)tid <= 0 || signal > LINUX_NSIG)
        return -LINUX_EINVAL;
    struct linux_siginfo info = info_of_caller(signal, LINUX_SI_TKILL);
    return signal_send((uint32_t)tid, &info);
}

int64_t sys_tkill(struct frame *frame)
{
    return thread_kill(frame->rdi, frame->rsi);
}

int64_t sys_tgkill(struct frame *frame)
{
    if ((int32_t)frame->rdi <= 0)
        return -LINUX_EINVAL;
    if ((uint32_t)frame->rdi != process.pid)
        return -LINUX_ESRCH;
    return thread_kill(frame->rsi, frame->rdx);
}

static int64_t queue_info(uint32_t tid, uint64_t signal, gpa_t at)
{
    struct linux_siginfo info;
    if (user_read(&info, at, sizeof(info)) != 0)
        return -LINUX_EFAULT;
    if ((uint32_t)signal > LINUX_NSIG)
        return -LINUX_EINVAL;
    info.signal = (int32_t)signal;
    return signal_send(tid, &info);
}

int64_t sys_rt_sigqueueinfo(struct frame *frame)
{
    if (!names_process((int32_t)frame->rdi))
        return -LINUX_ESRCH;
    return queue_info(0, frame->rsi, frame->rdx);
}

int64_t sys_rt_tgsigqueueinfo(struct frame *frame)
{
    if ((int32_t)frame->rdi <= 0 || (int32_t)frame->rsi <= 0)
        return -LINUX_EINVAL;
    if ((uint32_t)frame->rdi != process.pid)
        return -LINUX_ESRCH;
    return queue_info((uint32_t)frame->rsi, frame->rdx, frame->r10);
}
