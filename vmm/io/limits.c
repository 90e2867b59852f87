/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Resource limits: kept for the program, whose process this is not. RLIMIT_NOFILE is enforced by
 * the descriptor table; the guest kernel and the address space ask for the others they know.
 */
#include "vmm/io/hostio_internal.h"

#include <unistd.h>

#define DESCRIPTORS_MAX (1u << 20) /* as fs.nr_open is by default */

void io_descriptors_bound(struct rlimit *limit)
{
    if (limit->rlim_max > DESCRIPTORS_MAX)
        limit->rlim_max = DESCRIPTORS_MAX;
    if (limit->rlim_cur > limit->rlim_max)
        limit->rlim_cur = limit->rlim_max;
}

int64_t io_getrlimit(const struct io_call *call)
{
    uint32_t which = io_arg_u32(call, 0);
    struct rlimit limit;

    if (which >= RLIM_NLIMITS)
        return -EINVAL;
    pthread_mutex_lock(&call->io->lock);
    limit = call->io->limits[which];
    pthread_mutex_unlock(&call->io->lock);
    return guestmem_write(call->vm, call->args[1], &limit, sizeof(limit));
}

static int limit_set(struct hostio *io, uint32_t which, const struct rlimit *limit)
{
    struct rlimit *now = &io->limits[which];
    int error = 0;

    if (limit->rlim_cur > limit->rlim_max)
        return -EINVAL;
    pthread_mutex_lock(&io->lock);
    /* Even root's guest: more descriptors than the VMM may open there cannot be. */
    if (limit->rlim_max > now->rlim_max && (geteuid() || which == RLIMIT_NOFILE))
        error = -EPERM;
    else
        *now = *limit;
    pthread_mutex_unlock(&io->lock);
    return error;
}

int64_t io_setrlimit(const struct io_call *call)
{
    struct rlimit limit;
    int error;

    if (io_arg_u32(call, 0) >= RLIM_NLIMITS)
        return -EINVAL;
    error = guestmem_read(call->vm, &limit, call->args[1], sizeof(limit));
    return error ? error : limit_set(call->io, io_arg_u32(call, 0), &limit);
}

int64_t io_prlimit64(const struct io_call *call)
{
    uint32_t which = io_arg_u32(call, 1);
    struct rlimit limit, old;
    int error = 0;

    if (!io_is_ours(call, io_arg_int(call, 0)))
        return -ESRCH;
    if (which >= RLIM_NLIMITS)
        return -EINVAL;
    if (call->args[2])
        error = guestmem_read(call->vm, &limit, call->args[2], sizeof(limit));
    pthread_mutex_lock(&call->io->lock);
    old = call->io->limits[which];
    pthread_mutex_unlock(&call->io->lock);
    if (!error && call->args[2])
        error = limit_set(call->io, which, &limit);
    if (!error && call->args[3])
        error = guestmem_write(call->vm, call->args[3], &old, sizeof(old));
    return error;
}
