/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program's side door to the hint channel: opening a thread's ring and the few requests that
 * need an answer. And the rescue: a guide's code runs on the program's threads, and when it faults
 * or does not come back it is not the program that has to pay. The library says where to go on
 * (fv_hint_ring.rescue); a wrong address there is the program's own harm, as any jump of its is.
 */
#include "guest-os/kernel.h"

static int64_t open_ring(void)
{
    struct thread *thread = thread_current();
    int64_t ring = vmm_call1(FV_CALL_GUIDE, FV_GUIDE_OPEN);
    if (ring > 0) {
        thread->hints = (struct fv_hint_ring *)ring;
        thread->hints->inside = thread->hints->overdue = thread->hints->held =
            0; /* perhaps left by an earlier thread */
    }
    return ring;
}

int64_t sys_guide(struct frame *frame)
{
    switch (frame->rdi) {
    case FV_GUIDE_OPEN:
        return open_ring();
    case FV_GUIDE_WATCH:
        return guide_watch(frame);
    case FV_GUIDE_FAULT_END:
        if (!thread_current()->in_fault)
            return -LINUX_EINVAL;
        guide_fault_end(frame, 0);
        return (int64_t)frame->rax; /* the program's: it made no call */
    default:
        break;
    }
    return vmm_call(FV_CALL_GUIDE, frame->rdi, frame->rsi, frame->rdx, frame->r10, frame->r8, 0);
}

bool guide_is_overdue(void)
{
    const struct fv_hint_ring *ring = thread_current()->hints;
    return ring != NULL && ring->held == 0 &&
           __atomic_load_n(&ring->overdue, __ATOMIC_ACQUIRE) != 0;
}

bool guide_rescue(struct frame *frame, bool fault)
{
    struct fv_hint_ring *ring = thread_current()->hints;
    if (ring == NULL || (!fault && ring->overdue == 0))
        return false;
    if (ring->held !=
        0) /* half a hook would break the program: the library goes when it is whole */
        return false;
    uint32_t overdue = ring->overdue;
    if (thread_current()->in_fault) {
        guide_fault_end(frame, overdue != 0 ? FV_OFF_STALL : FV_OFF_CRASH);
        return true;
    }
    ring->overdue = 0;
    if (ring->inside == 0)
        return false; /* it came back in time after all */
    ring->inside = 0;
    thread_current()->resumes_at = 0; /* nor does a call of its that was to go on */
    frame->rip = ring->rescue;
    frame->rsp = ring->rescue_stack;
    frame->rdi = overdue != 0 ? FV_OFF_STALL : FV_OFF_CRASH;
    frame->rflags &= ~0x400ULL; /* DF, as the ABI has it at a function's start */
    frame->orig_rax = -1;
    return true;
}
