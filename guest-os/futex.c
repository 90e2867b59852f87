/* SPDX-License-Identifier: Apache-2.0 */
/*
 * futex: what needs no exit. Sleeping is the VMM's (the host's own futex on the same word); it
 * counts the sleepers of each hash bucket in fv_shared, so a wake that can meet nobody ends here,
 * and so does a wait for a value that has already changed.
 *
 * The count is by address. It tells of a private futex all there is, but not of a shared one, which
 * may be slept on through another mapping of its file, or by a process beside the guest.
 */
#include "guest-os/kernel.h"

static bool nobody_waits(gpa_t word)
{
    /* A sleeper is counted before it compares the word; this fence pairs with that count. */
    atomic_thread_fence(memory_order_seq_cst);
    return FV_SHARED->futex_waiters[fv_futex_bucket(word)] == 0;
}

int64_t sys_futex(struct frame *frame)
{
    unsigned command =
        (unsigned)frame->rsi & ~(unsigned)(LINUX_FUTEX_PRIVATE | LINUX_FUTEX_CLOCK_REALTIME);
    gpa_t word = frame->rdi;
    uint32_t value;
    if (word % sizeof(value) != 0)
        return -LINUX_EINVAL;
    switch (command) {
    case LINUX_FUTEX_WAKE:
    case LINUX_FUTEX_WAKE_BITSET:
        if (command == LINUX_FUTEX_WAKE_BITSET && (uint32_t)frame->r9 == 0)
            return -LINUX_EINVAL;
        if (!user_range(word, sizeof(value)))
            return -LINUX_EFAULT;
        if ((frame->rsi & LINUX_FUTEX_PRIVATE) != 0 && nobody_waits(word))
            return 0;
        break;
    case LINUX_FUTEX_WAIT:
        if (user_get32(&value, word) != 0)
            return -LINUX_EFAULT;
        if (value != (uint32_t)frame->rdx)
            return -LINUX_EAGAIN;
        break;
    default:
        break;
    }
    return syscall_forward(frame);
}

static void wake_one(gpa_t word)
{
    vmm_call3(LINUX_SYS_FUTEX, word, LINUX_FUTEX_WAKE, 1);
}

void futex_wake_joiner(gpa_t word)
{
    if (!nobody_waits(word))
        wake_one(word);
}

/*
 * The robust list of a thread that ends (kernel/futex/core.c of Linux): each futex it still holds
 * gets the bit that tells the next owner. The list is the program's and may be anything, so its
 * length is bounded and every access may fail.
 */
#define ROBUST_MAX 2048

/*
 * Sleepers of a futex with priority inheritance queue in the host kernel, behind its owner's host
 * thread: the VMM has it handed on (vmm/io/futex_owner.c).
 */
static int word_died(gpa_t word, uint32_t tid, bool priority, bool pending)
{
    uint32_t value;
    if (word % sizeof(value) != 0 || user_get32(&value, word) != 0)
        return -LINUX_EFAULT;
    /* It died between unlocking and waking: somebody must still be woken. */
    if (pending && (value & LINUX_FUTEX_TID_MASK) == 0 && !priority) {
        wake_one(word);
        return 0;
    }
    while ((value & LINUX_FUTEX_TID_MASK) == tid) {
        uint32_t seen = value;
        uint32_t next = (value & LINUX_FUTEX_WAITERS) | LINUX_FUTEX_OWNER_DIED;
        if (user_cmpxchg32(word, &seen, next) != 0)
            return -LINUX_EFAULT;
        if (seen == value) {
            if (!priority && (value & LINUX_FUTEX_WAITERS) != 0)
                wake_one(word);
            return 0;
        }
        value = seen;
    }
    return 0;
}

#define PRIORITY_BIT 1ULL /* in a list pointer: this futex has priority inheritance */

void futex_exit_robust_list(gpa_t head, uint32_t tid)
{
    uint64_t entry, offset, pending;
    if (head == 0 || user_get64(&entry, head) != 0 || user_get64(&offset, head + 8) != 0 ||
        user_get64(&pending, head + 16) != 0)
        return;
    for (unsigned i = 0; (entry & ~PRIORITY_BIT) != head && i < ROBUST_MAX; i++) {
        uint64_t next;
        gpa_t at = entry & ~PRIORITY_BIT;
        bool failed = user_get64(&next, at) != 0;
        if (at != (pending & ~PRIORITY_BIT) &&
            word_died(at + offset, tid, (entry & PRIORITY_BIT) != 0, false) != 0)
            return;
        if (failed)
            return;
        entry = next;
    }
    if (pending != 0)
        word_died((pending & ~PRIORITY_BIT) + offset, tid, (pending & PRIORITY_BIT) != 0, true);
}
