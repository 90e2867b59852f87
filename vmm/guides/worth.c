/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What hints and guides cost, and the end of those that are not worth it. Two measures: of the
 * pages fetched on advice, the share that was used (--guide-accuracy), and how long a guide's code
 * keeps a thread of the program. The third, its share of the thread's time, the library measures
 * itself and reports (guides/calls.c). Runs on the hint thread.
 */
#include "vmm/guides/hints.h"

#include "support.h"
#include "vmm/machine.h"

#include <time.h>

#define JUDGE_PAGES      4096u         /* hinted pages between two judgements */
#define STALL_CPU_NS     100000000ULL  /* 0.1 s of processor time in one call of a guide */
#define STALL_NS         2000000000ULL /* or 2 s of any kind: asleep, waiting for a lock */
#define THREAD_CPU_CLOCK 6u            /* its kind (kernel: include/linux/posix-timers.h) */

void hints_switch_off(struct hints *hints)
{
    atomic_store(&hints->off, true);
    for (uint32_t i = 0; i < atomic_load(&hints->ring_count); i++) {
        struct hint_ring *ring = atomic_load(&hints->rings[i]);
        if (ring)
            __atomic_store_n(&ring->shared->state, FV_HINT_OFF, __ATOMIC_RELAXED);
    }
}

/*
 * A page of a hint was started. Every 8th is looked at again when SAMPLES more were sampled: was it
 * touched, before it left if it has? Of a run only pages whose number is a multiple of 8 can tell
 * (fault_was_used).
 */
static void sample(struct hints *hints, struct hint_samples *samples, uint64_t page,
                   uint64_t hint_pages)
{
    if (hint_pages >= HINT_SAMPLE_EVERY && page % HINT_SAMPLE_EVERY)
        return;
    if (hint_pages < HINT_SAMPLE_EVERY && samples->unsampled++ % HINT_SAMPLE_EVERY)
        return;
    uint64_t *place = &samples->of[samples->sampled++ % HINT_SAMPLES];
    if (*place) {
        bool used = fault_was_used(hints->vm->engine, *place);
        hint_count(used ? &hints->counters.sampled_used : &hints->counters.sampled_unused, 1);
        hint_count(&hints->judged, 1);
        hint_count(&hints->used, used);
    }
    *place = page;
}

uint64_t hint_worth_passed(struct hints *hints, struct hint_samples *samples, uint64_t page,
                           uint64_t pages, const uint8_t *state, uint64_t hint_pages)
{
    uint64_t absent = 0, remote = 0;
    for (uint64_t i = 0; i < pages; i++) {
        absent += state[i] == FV_PAGE_ABSENT;
        remote += state[i] == FV_PAGE_REMOTE;
        if (state[i] == FV_PAGE_REMOTE)
            sample(hints, samples, page + i, hint_pages);
    }
    hint_count(&hints->counters.prefetch_pages, pages);
    hint_count(&hints->counters.started_pages, remote);
    hint_count(&hints->counters.wasted_pages, absent);
    return remote;
}

void hint_worth_judge(struct hints *hints)
{
    const struct hint_counters *counters = &hints->counters;
    uint64_t started = atomic_load(&counters->started_pages) - hints->last_started;
    uint64_t wasted = atomic_load(&counters->wasted_pages) - hints->last_wasted;
    uint64_t pages = started + wasted;
    if (pages < JUDGE_PAGES || atomic_load(&hints->off))
        return;
    /* What was never written was not fetched either, and cannot have been used. */
    uint64_t judged = atomic_load(&hints->judged), used = atomic_load(&hints->used);
    uint64_t useful = judged ? started * used / judged : wasted > pages / 2 ? 0 : started;
    hints->last_started += started;
    hints->last_wasted += wasted;
    atomic_store(&hints->judged, 0);
    atomic_store(&hints->used, 0);
    if (useful * 100 >= pages * hints->vm->config->guide_accuracy_percent)
        return;
    hints_switch_off(hints);
    message_warning("hints: switched off: %llu%% of the pages they named were used, and "
                    "--guide-accuracy asks for %u%%",
                    (unsigned long long)(useful * 100 / pages),
                    hints->vm->config->guide_accuracy_percent);
}

/* Also of one that is gone, which pthread_getcpuclockid must not be asked for: 0. */
static uint64_t thread_cpu_ns(pid_t tid)
{
    struct timespec now = {0};
    (void)clock_gettime((clockid_t)(~(unsigned)tid << 3 | THREAD_CPU_CLOCK), &now);
    return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

static void stall_watch(struct hint_ring *ring, struct vcpu *vcpu)
{
    struct fv_hint_ring *shared = ring->shared;
    /* Of a handler the VMM knows by itself that it runs; of a hook it is told. */
    uint32_t entry =
        __atomic_load_n(&shared->entries, __ATOMIC_RELAXED) + atomic_load(&ring->upcalls.entries);
    if (!__atomic_load_n(&shared->inside, __ATOMIC_RELAXED) &&
        !atomic_load(&ring->upcalls.active)) {
        ring->watched_ns = 0;
        return;
    }
    uint64_t now_ns = clock_now_ns(), cpu_ns = thread_cpu_ns(vcpu->tid);
    if (ring->watched_ns == 0 || ring->watched_entry != entry) {
        ring->watched_entry = entry;
        ring->watched_ns = now_ns;
        ring->watched_cpu_ns = cpu_ns;
        return;
    }
    if (cpu_ns - ring->watched_cpu_ns < STALL_CPU_NS && now_ns - ring->watched_ns < STALL_NS)
        return;
    ring->watched_ns = 0; /* once more after the same time, should the rescue itself be stuck */
    __atomic_store_n(&shared->overdue, 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_or(&vcpu->page->pending, FV_PENDING_SIGNAL, __ATOMIC_SEQ_CST);
    vcpu_kick(vcpu);
}

void hint_stalls_watch(struct hints *hints)
{
    for (uint32_t i = 0; i < atomic_load(&hints->ring_count); i++) {
        struct hint_ring *ring = atomic_load(&hints->rings[i]);
        if (ring)
            stall_watch(ring, hints->vm->vcpus[ring->index]);
    }
}
