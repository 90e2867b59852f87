/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scheduling: a guest thread is a host thread with the same id, so these are host calls, on the
 * guest's own threads only.
 */
#include "vmm/io/hostio_internal.h"

#include <linux/membarrier.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MASK_MAX_BYTES   1024 /* 8192 processors */
#define SCHED_ATTR_BYTES 56   /* struct sched_attr with utilization clamps */

int64_t io_sched_yield(const struct io_call *call)
{
    (void)call;
    return IO_HOST1(SYS_sched_yield, 0);
}

int64_t io_getcpu(const struct io_call *call)
{
    unsigned values[2];
    int64_t result = IO_HOST3(SYS_getcpu, &values[0], &values[1], 0);

    for (unsigned i = 0; !result && i < 2; i++) {
        if (call->args[i])
            result = guestmem_write(call->vm, call->args[i], &values[i], sizeof(values[i]));
    }
    return result;
}

/* Calls without pointers: the priority limits of a policy. */
int64_t io_sched_plain(const struct io_call *call)
{
    return IO_HOST1(call->number, io_arg_int(call, 0));
}

int64_t io_sched_getscheduler(const struct io_call *call)
{
    pid_t tid = io_arg_int(call, 0);

    return io_is_ours(call, tid) ? IO_HOST1(SYS_sched_getscheduler, tid) : -ESRCH;
}

static int64_t param_set(const struct io_call *call, unsigned index, long policy)
{
    pid_t tid = io_arg_int(call, 0);
    struct sched_param param;
    int error;

    if (!io_is_ours(call, tid))
        return -ESRCH;
    error = guestmem_read(call->vm, &param, call->args[index], sizeof(param));
    if (error)
        return error;
    return call->number == SYS_sched_setparam
               ? IO_HOST2(SYS_sched_setparam, tid, &param)
               : IO_HOST3(SYS_sched_setscheduler, tid, policy, &param);
}

int64_t io_sched_setparam(const struct io_call *call)
{
    return param_set(call, 1, 0);
}

int64_t io_sched_setscheduler(const struct io_call *call)
{
    return param_set(call, 2, io_arg_int(call, 1));
}

int64_t io_sched_getparam(const struct io_call *call)
{
    pid_t tid = io_arg_int(call, 0);
    struct sched_param param;
    int64_t result;

    if (!io_is_ours(call, tid))
        return -ESRCH;
    result = IO_HOST2(SYS_sched_getparam, tid, &param);
    return result ? result : guestmem_write(call->vm, call->args[1], &param, sizeof(param));
}

int64_t io_sched_getattr(const struct io_call *call)
{
    pid_t tid = io_arg_int(call, 0);
    uint8_t attr[SCHED_ATTR_BYTES] = {0};
    uint32_t bytes = io_arg_u32(call, 2);
    int64_t result;

    if (!io_is_ours(call, tid))
        return -ESRCH;
    if (bytes > sizeof(attr))
        bytes = sizeof(attr);
    result = IO_HOST4(SYS_sched_getattr, tid, attr, bytes, io_arg_u32(call, 3));
    return result ? result : guestmem_write(call->vm, call->args[1], attr, bytes);
}

int64_t io_sched_rr_get_interval(const struct io_call *call)
{
    pid_t tid = io_arg_int(call, 0);
    struct timespec interval;
    int64_t result;

    if (!io_is_ours(call, tid))
        return -ESRCH;
    result = IO_HOST2(SYS_sched_rr_get_interval, tid, &interval);
    return result ? result : guestmem_write(call->vm, call->args[1], &interval, sizeof(interval));
}

int64_t io_sched_getaffinity(const struct io_call *call)
{
    pid_t tid = io_arg_int(call, 0);
    uint8_t mask[MASK_MAX_BYTES];
    uint32_t bytes = io_arg_u32(call, 1);
    int64_t result;
    int error = 0;

    if (!io_is_ours(call, tid))
        return -ESRCH;
    if (bytes % sizeof(long))
        return -EINVAL;
    if (bytes > sizeof(mask))
        bytes = sizeof(mask);
    result = IO_HOST3(SYS_sched_getaffinity, tid, bytes, mask);
    if (result > 0)
        error = guestmem_write(call->vm, call->args[2], mask, (size_t)result);
    return error ? error : result;
}

int64_t io_sched_setaffinity(const struct io_call *call)
{
    pid_t tid = io_arg_int(call, 0);
    uint8_t mask[MASK_MAX_BYTES];
    uint32_t bytes = io_arg_u32(call, 1);
    int error;

    if (!io_is_ours(call, tid))
        return -ESRCH;
    if (bytes > sizeof(mask))
        bytes = sizeof(mask);
    error = guestmem_read(call->vm, mask, call->args[2], bytes);
    return error ? error : IO_HOST3(SYS_sched_setaffinity, tid, bytes, mask);
}

static int priority_check(const struct io_call *call)
{
    pid_t tid = io_arg_int(call, 1);

    if (io_arg_int(call, 0) != PRIO_PROCESS)
        return tid ? -EPERM : 0;
    return io_is_ours(call, tid) ? 0 : -ESRCH;
}

int64_t io_getpriority(const struct io_call *call)
{
    int error = priority_check(call);

    return error ? error : IO_HOST2(SYS_getpriority, PRIO_PROCESS, io_arg_int(call, 1));
}

int64_t io_setpriority(const struct io_call *call)
{
    int error = priority_check(call);

    return error
               ? error
               : IO_HOST3(SYS_setpriority, PRIO_PROCESS, io_arg_int(call, 1), io_arg_int(call, 2));
}

/*
 * Every vCPU is a thread of this process, and the host's barrier reaches it in the guest too: it
 * interrupts the processor that runs it. Barriers that also concern code or restartable sequences
 * are not the host's to give.
 */
int64_t io_membarrier(const struct io_call *call)
{
    const int supported = MEMBARRIER_CMD_GLOBAL | MEMBARRIER_CMD_GLOBAL_EXPEDITED |
                          MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED |
                          MEMBARRIER_CMD_PRIVATE_EXPEDITED |
                          MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED;
    int command = io_arg_int(call, 0);
    int64_t result;

    if (call->args[1])
        return -EINVAL;
    if (command == MEMBARRIER_CMD_QUERY) {
        result = IO_HOST3(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
        return result < 0 ? result : result & supported;
    }
    return command & ~supported ? -EINVAL : IO_HOST3(SYS_membarrier, command, 0, 0);
}
