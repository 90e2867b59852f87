/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time by system call, for programs that do not use the vDSO: the same reading, and the VMM for the
 * clocks that only the host has (processor time).
 */
#include "guest-os/kernel.h"
#include "guest-os/vdso/clock.h"

#define NS_PER_US 1000

int64_t sys_clock_gettime(struct frame *frame)
{
    struct linux_timespec now;
    if (!clock_read((int32_t)frame->rdi, &now))
        return syscall_forward(frame);
    return user_write(frame->rsi, &now, sizeof(now));
}

int64_t sys_clock_getres(struct frame *frame)
{
    struct linux_timespec resolution;
    if (!clock_resolution((int32_t)frame->rdi, &resolution))
        return syscall_forward(frame);
    return frame->rsi != 0 ? user_write(frame->rsi, &resolution, sizeof(resolution)) : 0;
}

int64_t sys_gettimeofday(struct frame *frame)
{
    static const uint64_t no_zone;
    struct linux_timespec now;
    clock_read(CLOCK_ID_REALTIME, &now);
    struct linux_timeval value = {.seconds = now.seconds,
                                  .microseconds = now.nanoseconds / NS_PER_US};
    if (frame->rdi != 0 && user_write(frame->rdi, &value, sizeof(value)) != 0)
        return -LINUX_EFAULT;
    return frame->rsi != 0 ? user_write(frame->rsi, &no_zone, sizeof(no_zone)) : 0;
}

int64_t sys_time(struct frame *frame)
{
    struct linux_timespec now;
    clock_read(CLOCK_ID_REALTIME, &now);
    if (frame->rdi != 0 && user_put64(frame->rdi, (uint64_t)now.seconds) != 0)
        return -LINUX_EFAULT;
    return now.seconds;
}
