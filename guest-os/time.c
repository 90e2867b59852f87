/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time by system call, for programs that do not use the vDSO: the same reading, and the VMM for the
 * clocks that only the host has (processor time).
 */
#include "guest-os/kernel.h"
#include "guest-os/vdso/clock.h"

#define NS_PER_US  1000
#define NS_PER_MS  1000000
#define MS_FOREVER (-1)
#define MS_LONGEST 0x7fffffff

static uint64_t now_ns(void)
{
    struct linux_timespec now;
    clock_read(CLOCK_ID_MONOTONIC, &now);
    return (uint64_t)now.seconds * CLOCK_NS_PER_S + (uint64_t)now.nanoseconds;
}

uint64_t time_deadline_ns(const struct linux_timespec *timeout)
{
    uint64_t ns;
    if (__builtin_mul_overflow((uint64_t)timeout->seconds, CLOCK_NS_PER_S, &ns) ||
        __builtin_add_overflow(ns, (uint64_t)timeout->nanoseconds, &ns) ||
        __builtin_add_overflow(ns, now_ns(), &ns))
        return TIME_NEVER;
    return ns;
}

uint64_t time_left_ns(uint64_t deadline_ns)
{
    uint64_t now = now_ns();
    return deadline_ns > now ? deadline_ns - now : 0;
}

int time_left_ms(uint64_t deadline_ns)
{
    if (deadline_ns == TIME_NEVER)
        return MS_FOREVER;
    uint64_t ms = (time_left_ns(deadline_ns) + NS_PER_MS - 1) / NS_PER_MS;
    return ms < MS_LONGEST ? (int)ms : MS_LONGEST;
}

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
