/* SPDX-License-Identifier: Apache-2.0 */
/* Advice: hints into the ring, or madvise and its relatives where there is none. */
#include "guide/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE_BYTES 4096u

#ifndef MADV_COLD
#define MADV_COLD 20
#endif

/* Whole pages around the range, as madvise wants them. */
static int advise(const void *start, size_t bytes, int advice)
{
    uintptr_t first = (uintptr_t)start & ~(uintptr_t)(PAGE_BYTES - 1);
    int saved = errno;
    int error = madvise((void *)first, (uintptr_t)start + bytes - first, advice) == 0 ? 0 : -errno;
    errno = saved;
    return error;
}

static int hint_or_advise(uint32_t op, const void *start, size_t bytes, int advice)
{
    struct fv_hint hint = {.op = op, .address = (uintptr_t)start, .bytes = bytes};
    struct fv_fault *fault = guide_fault_self();
    if (bytes == 0)
        return 0;
    if (fault)
        return guide_fault_answer(fault, &hint);
    struct guide_thread *thread = guide_thread_self();
    if (!thread || !thread->ring)
        return advise(start, bytes, advice);
    if (!guide_ring()) /* switched off */
        return 0;
    int error = guide_post(thread, &hint);
    if (error)
        thread->ring->dropped++;
    return error;
}

GUIDE_PUBLIC int guide_is_far(void)
{
    return guide_fault_self() || guide_ring();
}

GUIDE_PUBLIC int guide_prefetch(const void *start, size_t bytes)
{
    return hint_or_advise(FV_HINT_PREFETCH, start, bytes, MADV_WILLNEED);
}

GUIDE_PUBLIC int guide_prefetch_many(const struct iovec *ranges, size_t count)
{
    int taken = 0;
    for (size_t i = 0; i < count; i++)
        taken += guide_prefetch(ranges[i].iov_base, ranges[i].iov_len) == 0;
    return taken;
}

/* Natively MADV_COLD, never MADV_DONTNEED: contents are not ours to give up. */
GUIDE_PUBLIC int guide_will_not_need(const void *start, size_t bytes)
{
    return hint_or_advise(FV_HINT_COLD, start, bytes, MADV_COLD);
}

static bool has_channel(void)
{
    if (guide_fault_self())
        return true;
    struct guide_thread *thread = guide_thread_self();
    return thread && thread->ring;
}

GUIDE_PUBLIC int guide_pin(const void *start, size_t bytes)
{
    if (guide_fault_self())
        return -EAGAIN;
    if (has_channel())
        return (int)guide_call(FV_GUIDE_PIN, (uintptr_t)start, bytes, 0);
    int saved = errno, error = mlock(start, bytes) == 0 ? 0 : -errno;
    errno = saved;
    return error == -ENOMEM || error == -EPERM ? -EDQUOT : error;
}

GUIDE_PUBLIC int guide_unpin(const void *start, size_t bytes)
{
    if (guide_fault_self())
        return -EAGAIN;
    if (has_channel())
        return (int)guide_call(FV_GUIDE_UNPIN, (uintptr_t)start, bytes, 0);
    int saved = errno, error = munlock(start, bytes) == 0 ? 0 : -errno;
    errno = saved;
    return error;
}

GUIDE_PUBLIC int guide_residency(const void *start, size_t bytes, unsigned char *states)
{
    if (bytes == 0)
        return -EINVAL;
    if (has_channel())
        return (int)guide_call(FV_GUIDE_RESIDENCY, (uintptr_t)start, bytes, (uintptr_t)states);
    uintptr_t first = (uintptr_t)start & ~(uintptr_t)(PAGE_BYTES - 1);
    size_t length = (uintptr_t)start + bytes - first;
    int saved = errno, error = mincore((void *)first, length, states) == 0 ? 0 : -errno;
    errno = saved;
    for (size_t i = 0; !error && i < (length + PAGE_BYTES - 1) / PAGE_BYTES; i++)
        states[i] = states[i] & 1 ? GUIDE_LOCAL : GUIDE_ABSENT;
    return error;
}
