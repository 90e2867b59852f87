/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps fv_shared.clock true, so that the program reads time without leaving the guest. Each
 * refresh fixes the point (TSC, host time) anew and the rate from the last interval. Monotonic time
 * never steps back: where the guest ran ahead of the host by some nanoseconds, it continues from
 * there at a rate that meets the host's at the next refresh. Events thread only, after clock_start.
 */
#include "vmm/machine.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <time.h>
#include <x86intrin.h>

#define SAMPLE_TRIES    5
#define OFFSET_NOISE_NS 10000 /* preempted between two reads of a clock: rarely longer */

struct sample {
    uint64_t tsc, mono_ns;
};

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* The tightest of a few brackets: being preempted in between would spoil the pair. */
static struct sample sample_take(void)
{
    struct sample best = {0};
    uint64_t best_width = UINT64_MAX;
    for (int i = 0; i < SAMPLE_TRIES; i++) {
        uint64_t before = __rdtsc();
        uint64_t mono_ns = clock_ns(CLOCK_MONOTONIC);
        uint64_t width = __rdtsc() - before;
        if (width < best_width) {
            best_width = width;
            best = (struct sample){.tsc = before + width / 2, .mono_ns = mono_ns};
        }
    }
    return best;
}

static uint64_t scale(uint64_t ticks, uint64_t mult)
{
    return (uint64_t)(((unsigned __int128)ticks * mult) >> 32);
}

/* 32.32 nanoseconds a tick. */
static uint64_t rate_of(uint64_t ns, uint64_t ticks)
{
    return ticks ? (uint64_t)(((unsigned __int128)ns << 32) / ticks) : 0;
}

/*
 * How far another clock is ahead of monotonic time. Both run at one rate, so the difference changes
 * only when somebody sets the clock; smaller changes are noise that would let time step back.
 */
static void offset_update(clockid_t clock, int64_t *offset_ns)
{
    int64_t before = (int64_t)clock_ns(CLOCK_MONOTONIC), at = (int64_t)clock_ns(clock);
    int64_t after = (int64_t)clock_ns(CLOCK_MONOTONIC);
    int64_t now_ns = at - before - (after - before) / 2, change_ns = now_ns - *offset_ns;
    if (change_ns > OFFSET_NOISE_NS || change_ns < -OFFSET_NOISE_NS)
        *offset_ns = now_ns;
}

static void publish(struct vm *vm, struct clock_state *state)
{
    struct fv_clock *clock = &vm->shared->clock;
    offset_update(CLOCK_REALTIME, &state->real_offset_ns);
    offset_update(CLOCK_BOOTTIME, &state->boot_offset_ns);
    offset_update(CLOCK_TAI, &state->tai_offset_ns);
    __atomic_store_n(&clock->sequence, clock->sequence | 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    clock->tsc_base = state->tsc;
    clock->mult = state->mult;
    clock->mono_base_ns = state->mono_ns;
    clock->real_base_ns = state->mono_ns + (uint64_t)state->real_offset_ns;
    clock->boot_base_ns = state->mono_ns + (uint64_t)state->boot_offset_ns;
    clock->tai_base_ns = state->mono_ns + (uint64_t)state->tai_offset_ns;
    __atomic_store_n(&clock->sequence, clock->sequence + 1, __ATOMIC_RELEASE);
}

void clock_start(struct vm *vm, struct clock_state *state)
{
    int khz = ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_GET_TSC_KHZ) > 0
                  ? ioctl(vm->vcpus[0]->fd, KVM_GET_TSC_KHZ, 0)
                  : 0;
    struct sample now = sample_take();
    if (khz > 0) {
        state->mult = rate_of(1000000, (uint64_t)khz);
    } else {
        struct sample later;
        do {
            later = sample_take();
        } while (later.mono_ns - now.mono_ns < 1000000); /* 1 ms gives 0.01 % until the refresh */
        state->mult = rate_of(later.mono_ns - now.mono_ns, later.tsc - now.tsc);
        now = later;
    }
    state->tsc = state->host_tsc = now.tsc;
    state->mono_ns = state->host_mono_ns = now.mono_ns;
    publish(vm, state);
}

void clock_refresh(struct vm *vm, struct clock_state *state)
{
    struct sample now = sample_take();
    uint64_t ticks = now.tsc - state->host_tsc;
    uint64_t interval_ns = now.mono_ns - state->host_mono_ns;
    if (!ticks || !interval_ns)
        return;
    uint64_t guest_ns = state->mono_ns + scale(now.tsc - state->tsc, state->mult);
    uint64_t ahead_ns = guest_ns > now.mono_ns ? guest_ns - now.mono_ns : 0;
    /* At most an eighth slower, so a long pause of this thread cannot stop the guest's time. */
    if (ahead_ns > interval_ns / 8)
        ahead_ns = interval_ns / 8;
    state->mult = rate_of(interval_ns - ahead_ns, ticks);
    state->tsc = now.tsc;
    state->mono_ns = guest_ns > now.mono_ns ? guest_ns : now.mono_ns;
    state->host_tsc = now.tsc;
    state->host_mono_ns = now.mono_ns;
    publish(vm, state);
}
