/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the clocks from fv_shared.clock and the TSC, shared by the vDSO and the kernel. Only
 * inline functions, no data: the vDSO is a shared object without relocations.
 */
#ifndef GUEST_VDSO_CLOCK_H
#define GUEST_VDSO_CLOCK_H

#include "farvisor/abi.h"
#include "guest-os/linux.h"

#include <stdbool.h>

#define CLOCK_ID_REALTIME         0
#define CLOCK_ID_MONOTONIC        1
#define CLOCK_ID_MONOTONIC_RAW    4
#define CLOCK_ID_REALTIME_COARSE  5
#define CLOCK_ID_MONOTONIC_COARSE 6
#define CLOCK_ID_BOOTTIME         7
#define CLOCK_ID_TAI              11

#define CLOCK_NS_PER_S  1000000000ULL
#define CLOCK_COARSE_NS 4000000 /* what Linux says with its usual tick */

/* Base of a clock in ns, or NULL: not one that is read here. */
static inline const volatile uint64_t *clock_base(const volatile struct fv_clock *clock, int32_t id)
{
    switch (id) {
    case CLOCK_ID_REALTIME:
    case CLOCK_ID_REALTIME_COARSE:
        return &clock->real_base_ns;
    case CLOCK_ID_MONOTONIC:
    case CLOCK_ID_MONOTONIC_RAW:
    case CLOCK_ID_MONOTONIC_COARSE:
        return &clock->mono_base_ns;
    case CLOCK_ID_BOOTTIME:
        return &clock->boot_base_ns;
    case CLOCK_ID_TAI:
        return &clock->tai_base_ns;
    default:
        return NULL;
    }
}

/*
 * rdtsc may run ahead of the loads before it; the fence keeps it behind them. It never needs to be
 * exact to the cycle, only not to go backwards within a thread.
 */
static inline uint64_t clock_tsc(void)
{
    uint32_t low, high;
    __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high)::"memory");
    return (uint64_t)high << 32 | low;
}

static inline bool clock_read(int32_t id, struct linux_timespec *out)
{
    const volatile struct fv_clock *clock = &((volatile struct fv_shared *)FV_SHARED_BASE)->clock;
    const volatile uint64_t *base = clock_base(clock, id);
    uint64_t ns, elapsed;
    uint32_t sequence;
    if (base == NULL)
        return false;
    do {
        while (((sequence = __atomic_load_n(&clock->sequence, __ATOMIC_ACQUIRE)) & 1) != 0)
            __asm__ volatile("pause");
        uint64_t tsc = clock_tsc(), tsc_base = clock->tsc_base;
        /* Another core's TSC may be a little behind the one the VMM read. */
        elapsed = tsc > tsc_base ? tsc - tsc_base : 0;
        ns = *base + (uint64_t)((unsigned __int128)elapsed * clock->mult >> 32);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
    } while (clock->sequence != sequence);
    out->seconds = (int64_t)(ns / CLOCK_NS_PER_S);
    out->nanoseconds = (int64_t)(ns % CLOCK_NS_PER_S);
    return true;
}

static inline bool clock_resolution(int32_t id, struct linux_timespec *out)
{
    bool coarse = id == CLOCK_ID_REALTIME_COARSE || id == CLOCK_ID_MONOTONIC_COARSE;
    const volatile struct fv_clock *clock = &((volatile struct fv_shared *)FV_SHARED_BASE)->clock;
    if (clock_base(clock, id) == NULL)
        return false;
    out->seconds = 0;
    out->nanoseconds = coarse ? CLOCK_COARSE_NS : 1;
    return true;
}

#endif
