/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sleeping, and the clocks that only the host can tell: processor time. A guest thread is a host
 * thread, so its processor time is that thread's since it lives there, the VMM's share included.
 */
#include "vmm/io/hostio_internal.h"

#include "support.h"

#include <string.h>
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
    if (result)
        return result;
    inherit_clock_to_guest(call->vcpu, clock, &now);
    return guestmem_write(call->vm, call->args[1], &now, sizeof(now));
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

bool io_timespec_valid(const struct timespec *timeout)
{
    return timeout->tv_sec >= 0 && timeout->tv_nsec >= 0 && timeout->tv_nsec < (long)IO_NS_PER_S;
}

uint64_t io_deadline_ns(const struct timespec *timeout)
{
    uint64_t ns = 0;

    if (__builtin_mul_overflow((uint64_t)timeout->tv_sec, IO_NS_PER_S, &ns) ||
        __builtin_add_overflow(ns, (uint64_t)timeout->tv_nsec, &ns) ||
        __builtin_add_overflow(ns, clock_now_ns(), &ns))
        return UINT64_MAX;
    return ns;
}

struct timespec io_time_left(uint64_t deadline_ns)
{
    uint64_t now = clock_now_ns();
    uint64_t left = deadline_ns > now ? deadline_ns - now : 0;

    return (struct timespec){(time_t)(left / IO_NS_PER_S), (long)(left % IO_NS_PER_S)};
}

/* A guest thread is a host thread: what it may go on with is its own. */
static _Thread_local struct io_resume resume_kept;

int64_t io_resumable_later(const struct io_resume *wait)
{
    resume_kept = *wait;
    return -IO_ERESTART_RESUME;
}

static int64_t resume_later(const struct io_call *call, const struct io_resume *wait)
{
    resume_kept = *wait;
    call->vcpu->page->call.args[0] = wait->told;
    return -FV_ERESTART_SO_FAR;
}

/* What cannot go on (the file is closed, its descriptor another's; memory is gone) ends with what
 * was done. The file is not held meanwhile, for its peer waits to hear that it was closed. */
static int64_t resume_rest(const struct io_call *call, const struct io_resume *wait)
{
    struct io_part part = {.done = wait->done,
                           .inner = wait->inner,
                           .other = wait->other,
                           .offsets = {wait->offsets[0], wait->offsets[1]},
                           .resumed = true,
                           .deadline_ns = wait->deadline_ns};
    int64_t result = (int64_t)wait->told;

    part.file = io_fds_get(&call->io->fds, (int)wait->args[0]);
    if (part.file && part.file->serial == wait->serial)
        result = hostio_call_part(call->vcpu, wait->number, wait->args, &part);
    hostio_part_end(&part);        /* if it did not come to use the file */
    if (io_is_interrupted(result)) /* nothing more was done */
        return resume_later(call, wait);
    return result >= 0 || result == -FV_ERESTART_SO_FAR ? result : (int64_t)wait->told;
}

int64_t io_resumable_so_far(const struct io_call *call, const struct io_resume *so_far)
{
    struct io_resume wait = *so_far;

    wait.run = resume_rest;
    wait.number = call->number;
    memcpy(wait.args, call->args, sizeof(wait.args));
    return resume_later(call, &wait);
}

int64_t io_resumable_run(const struct io_call *call, const struct io_resume *wait)
{
    int64_t result = wait->run(call, wait);

    return result == -EINTR ? io_resumable_later(wait) : result;
}

int64_t io_restart_syscall(const struct io_call *call)
{
    struct io_resume wait = resume_kept;

    return wait.run ? io_resumable_run(call, &wait) : -EINTR;
}

/* args: 0 clock, 1 where the rest goes when interrupted, or 0. */
static int64_t sleep_relative(const struct io_call *call, const struct io_resume *wait)
{
    struct timespec left = io_time_left(wait->deadline_ns);
    int64_t result =
        vcpu_syscall(call->vcpu, SYS_clock_nanosleep, (long)wait->args[0], 0, (long)&left, 0, 0, 0);

    if (result != -EINTR || !wait->args[1])
        return result;
    left = io_time_left(wait->deadline_ns);
    return guestmem_write(call->vm, wait->args[1], &left, sizeof(left)) ? -EFAULT : result;
}

static int64_t sleep_run(const struct io_call *call, clockid_t clock, int flags, gpa_t request,
                         gpa_t rest)
{
    struct io_resume wait = {.run = sleep_relative, .args = {(uint64_t)clock, rest}};
    struct timespec wanted;
    int64_t result = guestmem_read(call->vm, &wanted, request, sizeof(wanted));

    if (result)
        return result;
    if (!io_timespec_valid(&wanted))
        return -EINVAL;
    if (flags & TIMER_ABSTIME) {
        inherit_clock_to_host(call->vcpu, clock, &wanted);
        return io_restart_nohand(
            vcpu_syscall(call->vcpu, SYS_clock_nanosleep, clock, flags, (long)&wanted, 0, 0, 0));
    }
    wait.deadline_ns = io_deadline_ns(&wanted);
    return io_resumable_run(call, &wait);
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
    if (who == RUSAGE_THREAD)
        inherit_usage(call->vcpu, &usage);
    return guestmem_write(call->vm, call->args[1], &usage, sizeof(usage));
}
