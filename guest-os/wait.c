/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls that wait with another signal mask (ppoll, pselect6, epoll_pwait, epoll_pwait2): the mask
 * is swapped here, also when such a wait goes on after an interruption (restart_syscall); the
 * waiting is the VMM's, which never looks at it.
 */
#include "guest-os/kernel.h"

#define SIGSET_BYTES 8

static int64_t wait_masked(struct frame *frame, uint64_t mask)
{
    struct thread *thread = thread_current();
    thread->saved_mask = thread->blocked;
    signal_set_blocked(mask);
    int64_t result = syscall_forward(frame);
    /* A handler of the signal that interrupted it runs under the new mask, and restores the old. */
    if (result == -LINUX_EINTR || syscall_was_interrupted(result)) {
        thread->restore_mask = true;
        __atomic_store_n(&thread->vcpu->pending, FV_PENDING_SIGNAL, __ATOMIC_RELEASE);
    } else {
        signal_set_blocked(thread->saved_mask);
    }
    thread->resume_mask = mask;
    thread->resumes_masked = result == -LINUX_ERESTART_RESTARTBLOCK;
    return result;
}

static int64_t forward_masked(struct frame *frame, gpa_t mask_at, uint64_t mask_bytes)
{
    uint64_t mask;
    if (mask_at == 0)
        return syscall_forward(frame);
    if (mask_bytes != SIGSET_BYTES)
        return -LINUX_EINVAL;
    if (user_get64(&mask, mask_at) != 0)
        return -LINUX_EFAULT;
    return wait_masked(frame, mask);
}

/* What it goes on with is what was interrupted last: a handler would have ended it (resume_end). */
int64_t sys_restart_syscall(struct frame *frame)
{
    struct thread *thread = thread_current();
    bool resumes = thread->resumes_at != 0;
    thread->resumes_at = 0;
    if (!resumes)
        return -LINUX_EINTR;
    int64_t result =
        thread->resumes_masked ? wait_masked(frame, thread->resume_mask) : syscall_forward(frame);
    return thread->resumes_number == LINUX_SYS_SENDMMSG ? syscall_sendmmsg_told(frame, result)
                                                        : result;
}

int64_t sys_ppoll(struct frame *frame)
{
    return forward_masked(frame, frame->r10, frame->r8);
}

int64_t sys_pselect6(struct frame *frame)
{
    uint64_t mask_at = 0, mask_bytes = 0;
    if (frame->r9 != 0 &&
        (user_get64(&mask_at, frame->r9) != 0 || user_get64(&mask_bytes, frame->r9 + 8) != 0))
        return -LINUX_EFAULT;
    return forward_masked(frame, mask_at, mask_bytes);
}

int64_t sys_epoll_pwait(struct frame *frame)
{
    return forward_masked(frame, frame->r8, frame->r9);
}
