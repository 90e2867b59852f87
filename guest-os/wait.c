/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls that wait with another signal mask (ppoll, pselect6, epoll_pwait, epoll_pwait2): the mask
 * is swapped here, the waiting is the VMM's, which never looks at it. And those that wait for a
 * time that is told nowhere else (epoll_wait and its kin): a thread is also woken for what turns
 * out to be another's signal, and then waits only for what is left of its time.
 */
#include "guest-os/kernel.h"

#define SIGSET_BYTES     8
#define NS_PER_S         1000000000
#define NS_PER_MS        1000000
#define MS_PER_S         1000
#define SYS_EPOLL_PWAIT2 441

static bool was_interrupted(int64_t result)
{
    return result == -LINUX_EINTR ||
           (result <= -LINUX_ERESTARTSYS && result >= -LINUX_ERESTART_RESTARTBLOCK);
}

static int64_t epoll_call(const struct frame *frame, uint64_t timeout)
{
    return vmm_call((uint32_t)frame->orig_rax, frame->rdi, frame->rsi, frame->rdx, timeout,
                    frame->r8, frame->r9);
}

/* epoll_pwait2 has a timespec, the others whole milliseconds. */
static int64_t epoll_for(struct frame *frame, bool has_timespec, const struct linux_timespec *time)
{
    uint64_t deadline_ns = time_deadline_ns(time);
    int64_t result = epoll_call(frame, frame->r10);
    while (was_interrupted(result) && !signal_look()) {
        uint64_t left_ns = time_left_ns(deadline_ns);
        struct linux_timespec left = {(int64_t)(left_ns / NS_PER_S), (int64_t)(left_ns % NS_PER_S)};
        result =
            epoll_call(frame, has_timespec ? (uint64_t)&left : (uint64_t)time_left_ms(deadline_ns));
    }
    return result;
}

int64_t sys_epoll_wait(struct frame *frame)
{
    struct linux_timespec time;
    int32_t ms = (int32_t)frame->r10;
    if (frame->orig_rax == SYS_EPOLL_PWAIT2) {
        if (frame->r10 == 0)
            return syscall_forward(frame);
        if (user_read(&time, frame->r10, sizeof(time)) != 0)
            return -LINUX_EFAULT;
        return epoll_for(frame, true, &time);
    }
    if (ms <= 0) /* at once, or for ever: nothing is left of these */
        return syscall_forward(frame);
    time.seconds = ms / MS_PER_S;
    time.nanoseconds = (int64_t)(ms % MS_PER_S) * NS_PER_MS;
    return epoll_for(frame, false, &time);
}

/* The call with the mask at mask_at, if there is one. */
static int64_t wait_masked(struct frame *frame, bool epoll, gpa_t mask_at, uint64_t mask_bytes)
{
    struct thread *thread = thread_current();
    uint64_t mask;
    if (mask_at == 0)
        return epoll ? sys_epoll_wait(frame) : syscall_forward(frame);
    if (mask_bytes != SIGSET_BYTES)
        return -LINUX_EINVAL;
    if (user_get64(&mask, mask_at) != 0)
        return -LINUX_EFAULT;
    thread->saved_mask = thread->blocked;
    signal_set_blocked(mask);
    int64_t result = epoll ? sys_epoll_wait(frame) : syscall_forward(frame);
    /* A handler of the signal that interrupted it runs under the new mask, and restores the old. */
    if (was_interrupted(result)) {
        thread->restore_mask = true;
        __atomic_store_n(&thread->vcpu->pending, FV_PENDING_SIGNAL, __ATOMIC_RELEASE);
    } else {
        signal_set_blocked(thread->saved_mask);
    }
    return result;
}

int64_t sys_ppoll(struct frame *frame)
{
    return wait_masked(frame, false, frame->r10, frame->r8);
}

int64_t sys_pselect6(struct frame *frame)
{
    uint64_t mask_at = 0, mask_bytes = 0;
    if (frame->r9 != 0 &&
        (user_get64(&mask_at, frame->r9) != 0 || user_get64(&mask_bytes, frame->r9 + 8) != 0))
        return -LINUX_EFAULT;
    return wait_masked(frame, false, mask_at, mask_bytes);
}

int64_t sys_epoll_pwait(struct frame *frame)
{
    return wait_masked(frame, true, frame->r8, frame->r9);
}
