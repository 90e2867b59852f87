/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sleeping, and the clocks that only the host can tell: processor time. A guest thread is a host
 * thread, so its processor time is that thread's, the VMM's share included.
 */
#include "vmm/hostio_internal.h"

#include <sys/syscall.h>
#include <sys/times.h>
#include <time.h>
#include <unistd.h>

/*
 * Clock ids below zero name one process or thread: ~(id >> 3) is its pid or tid. Only ours, and no
 * clock device (whose ids are host descriptors).
 */
#define CLOCK_KIND_BITS 7
#define CLOCK_KIND_FD   3

static bool clock_allowed(const struct io_call *call, clockid_t clock)
{
    if (clock >= 0)
        return true;
    if ((clock & CLOCK_KIND_BITS) == CLOCK_KIND_FD || (clock & CLOCK_KIND_BITS) == CLOCK_KIND_BITS)
        return false;
    return io_is_ours(call, ~(clock >> 3));
}

int64_t io_clock_gettime(const struct io_call *call)
{
    clockid_t clock = io_arg_int(call, 0);
    struct timespec now;
    int64_t result;

    if (!clock_allowed(call, clock))
        return -EINVAL;
    result = IO_HOST2(SYS_clock_gettime, clock, &now);
    return result ? result : guestmem_write(call->vm, call->args[1], &now, sizeof(now));
}

int64_t io_clock_getres(const struct io_call *call)
{
    clockid_t clock = io_arg_int(call, 0);
    struct timespec resolution;
    int64_t result;

    if (!clock_allowed(call, clock))
        return -EINVAL;
    result = IO_HOST2(SYS_clock_getres, clock, &resolution);
    if (result || !call->args[1])
        return result;
    return guestmem_write(call->vm, call->args[1], &resolution, sizeof(resolution));
}

/* The rest of a relative sleep, when interrupted and asked for. */
static int64_t sleep_run(const struct io_call *call, clockid_t clock, int flags, gpa_t request,
                         gpa_t rest)
{
    struct timespec wanted, left = {0};
    int64_t result = guestmem_read(call->vm, &wanted, request, sizeof(wanted));

    if (result)
        return result;
    left = wanted; /* a kick before the call began leaves all of it */
    result = vcpu_syscall(call->vcpu, SYS_clock_nanosleep, clock, flags, (long)&wanted, (long)&left,
                          0, 0);
    if (result == -EINTR && rest && !(flags & TIMER_ABSTIME) &&
        guestmem_write(call->vm, rest, &left, sizeof(left)))
        return -EFAULT;
    return result;
}

int64_t io_nanosleep(const struct io_call *call)
{
    return sleep_run(call, CLOCK_MONOTONIC, 0, call->args[0], call->args[1]);
}

int64_t io_clock_nanosleep(const struct io_call *call)
{
    clockid_t clock = io_arg_int(call, 0);

    if (!clock_allowed(call, clock))
        return -EINVAL;
    return sleep_run(call, clock, io_arg_int(call, 1), call->args[2], call->args[3]);
}

/* The guest kernel restarts calls itself and never needs this one answered otherwise. */
int64_t io_restart_syscall(const struct io_call *call)
{
    (void)call;
    return -EINTR;
}

int64_t io_times(const struct io_call *call)
{
    struct tms used;
    clock_t now = times(&used);

    used.tms_cutime = 0; /* the VMM's children are not the program's */
    used.tms_cstime = 0;
    if (call->args[0] && guestmem_write(call->vm, call->args[0], &used, sizeof(used)))
        return -EFAULT;
    return now;
}

int64_t io_getrusage(const struct io_call *call)
{
    struct rusage usage = {0};
    int who = io_arg_int(call, 0);

    if (who != RUSAGE_SELF && who != RUSAGE_THREAD && who != RUSAGE_CHILDREN)
        return -EINVAL;
    if (who != RUSAGE_CHILDREN)
        (void)getrusage((__rusage_who_t)who, &usage);
    return guestmem_write(call->vm, call->args[1], &usage, sizeof(usage));
}
