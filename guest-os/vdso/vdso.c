/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vDSO: what the C library calls instead of a system call, to read the time without leaving the
 * program. A shared object of its own, embedded in the kernel image (vdso_image.S); programs find
 * it by AT_SYSINFO_EHDR. It runs as program code, with the program's right to crash on bad
 * pointers.
 */
#include "guest-os/vdso/clock.h"

#include <stddef.h>

#define SYS_CLOCK_GETTIME 228
#define SYS_CLOCK_GETRES  229
#define SYS_GETCPU        309
#define NS_PER_US         1000

int __vdso_clock_gettime(int32_t id, struct linux_timespec *out);
int __vdso_clock_getres(int32_t id, struct linux_timespec *out);
int __vdso_gettimeofday(struct linux_timeval *out, struct linux_timeval *zone);
int64_t __vdso_time(int64_t *out);
int __vdso_getcpu(unsigned *cpu, unsigned *node, void *unused);

static long system_call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return result;
}

int __vdso_clock_gettime(int32_t id, struct linux_timespec *out)
{
    struct linux_timespec now;
    if (!clock_read(id, &now))
        return (int)system_call(SYS_CLOCK_GETTIME, id, (long)out, 0);
    *out = now;
    return 0;
}

int __vdso_clock_getres(int32_t id, struct linux_timespec *out)
{
    struct linux_timespec resolution;
    if (!clock_resolution(id, &resolution))
        return (int)system_call(SYS_CLOCK_GETRES, id, (long)out, 0);
    if (out != NULL)
        *out = resolution;
    return 0;
}

int __vdso_gettimeofday(struct linux_timeval *out, struct linux_timeval *zone)
{
    struct linux_timespec now;
    if (out != NULL) {
        clock_read(CLOCK_ID_REALTIME, &now);
        out->seconds = now.seconds;
        out->microseconds = now.nanoseconds / NS_PER_US;
    }
    if (zone != NULL)
        zone->seconds = 0; /* struct timezone: two ints, both zero */
    return 0;
}

int64_t __vdso_time(int64_t *out)
{
    struct linux_timespec now;
    clock_read(CLOCK_ID_REALTIME, &now);
    if (out != NULL)
        *out = now.seconds;
    return now.seconds;
}

/* What the CPU could say by itself (rdtscp, rdpid) is not the guest's on every kind of host. */
int __vdso_getcpu(unsigned *cpu, unsigned *node, void *unused)
{
    (void)unused;
    return (int)system_call(SYS_GETCPU, (long)cpu, (long)node, 0);
}

#define WEAK(name, alias_of) __typeof__(alias_of) name __attribute__((weak, alias(#alias_of)))
WEAK(clock_gettime, __vdso_clock_gettime);
WEAK(clock_getres, __vdso_clock_getres);
WEAK(gettimeofday, __vdso_gettimeofday);
WEAK(time, __vdso_time);
WEAK(getcpu, __vdso_getcpu);
