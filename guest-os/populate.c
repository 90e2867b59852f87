/* SPDX-License-Identifier: Apache-2.0 */
/*
 * madvise(MADV_POPULATE_*), which may take as long as the memory is large. On Linux a signal waits
 * until it is through, but for one that ends the program. Here the same, though it is this thread
 * that has to see what came: the VMM comes back on a kick and says how far it is, and from there it
 * is asked to go on. How far belongs to this call alone: no code of the program runs meanwhile.
 */
#include "guest-os/kernel.h"

#define POPULATE_READ  22
#define POPULATE_WRITE 23

/* Looks at what came. Its signal, if it is to be delivered now, ends the program. */
static bool must_end(void)
{
    if (!signal_look())
        return false;
    return guide_is_overdue() || (!thread_current()->in_fault && signal_ends_program());
}

static int64_t populate(const struct frame *frame)
{
    uint64_t done_bytes = 0;
    for (;;) {
        int64_t result =
            vmm_call(LINUX_SYS_MADVISE, frame->rdi, frame->rsi, frame->rdx, done_bytes, 0, 0);
        /* That one comes where others change mappings, too: no further this time. */
        if (result <= 0 && result != -LINUX_ERESTARTNOINTR)
            return result;
        if (must_end())
            return -LINUX_ERESTARTNOINTR;
        if (result > 0)
            done_bytes = (uint64_t)result;
    }
}

int64_t sys_madvise(struct frame *frame)
{
    unsigned advice = (unsigned)frame->rdx;
    if (advice != POPULATE_READ && advice != POPULATE_WRITE)
        return syscall_forward(frame);
    int64_t result = populate(frame);
    /* What was looked at and left waits for the way out. */
    __atomic_store_n(&thread_current()->vcpu->pending, FV_PENDING_SIGNAL, __ATOMIC_RELEASE);
    return result;
}
