/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VMM's end of the hint channel (farvisor/hints.h has the state tables): one thread that takes
 * hints out of the rings of all vCPUs in turn and hands them to the paging engine, so that a guest
 * thread that gives a hint does not leave the guest. Looks for new hints for a moment after the
 * last one, then sleeps on the doorbell.
 */
#include "vmm/guides/hints.h"

#include "support.h"
#include "vmm/machine.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define TURN_HINTS     32u       /* of one ring before the next one's turn */
#define TURN_PAGES     64u       /* of one hint */
#define STUCK_NS       1000000u  /* no frame or buffer free for so long: the advice is stale */
#define SPIN_MIN_NS    10000u    /* 10 us: less than a doorbell costs */
#define SPIN_MAX_NS    200000u   /* 0.2 ms: a thread that hints again later can ring */
#define SHORT_SLEEP_NS 300000u   /* a sleep shorter than this was not worth it */
#define WATCH_NS       20000000u /* looks for stalled guides this often */
#define PEEK_WAIT_NS   50000u    /* wait for what is in flight, with nothing else to do */
#define STACK_BYTES    (256u << 10)

/* ---- one ring ---- */

/* Goes on with the hint taken last; gives it up when there has been no room for long. */
static void prefetch_some(struct hint_ring *ring)
{
    struct hints *hints = ring->hints;
    uint8_t state[TURN_PAGES];
    uint64_t pages = ring->pages < TURN_PAGES ? ring->pages : TURN_PAGES, remote = 0;
    int64_t passed = (int64_t)pages;
    if (fault_residency(hints->vm->engine, ring->page, pages, state))
        passed = -EFAULT;
    for (uint64_t i = 0; i < pages && passed > 0; i++)
        remote += state[i] == FV_PAGE_REMOTE;
    if (remote)
        passed = fault_prefetch(hints->fault, ring->page, pages);
    uint64_t now_ns = clock_now_ns();
    if (passed > 0) {
        hint_worth_passed(hints, &hints->samples, ring->page, (uint64_t)passed, state, ring->whole);
        ring->page += (uint64_t)passed;
        ring->pages -= (uint64_t)passed;
        ring->stuck_ns = 0;
    } else if (passed == 0 && ring->stuck_ns == 0) {
        ring->stuck_ns = now_ns;
    } else if (passed < 0 || now_ns - ring->stuck_ns > STUCK_NS) {
        hint_count(&hints->counters.left_out_pages, ring->pages);
        ring->pages = ring->stuck_ns = 0;
    }
}

bool hint_pages(const struct hints *hints, const struct fv_hint *hint, uint64_t *page,
                uint64_t *pages)
{
    gpa_t end, span = ept_span(hints->vm->ept);
    if (hint->bytes == 0 || __builtin_add_overflow(hint->address, hint->bytes, &end) || end > span)
        return false;
    *page = hint->address >> EPT_PAGE_SHIFT;
    *pages = ((end - 1) >> EPT_PAGE_SHIFT) - *page + 1;
    return true;
}

static void advice_act(struct hint_ring *ring, const struct fv_hint *hint)
{
    struct hints *hints = ring->hints;
    uint64_t page, pages, most = hints->vm->config->local_bytes / EPT_PAGE_BYTES;
    if (!hint_pages(hints, hint, &page, &pages)) {
        hint_count(&hints->counters.malformed, 1);
        hint_count(&hints->counters.wasted_pages, 1);
        return;
    }
    if (atomic_load(&hints->off))
        return;
    if (hint->op == FV_HINT_PREFETCH) {
        /* Advice for more than may be here at all is advice for nothing in particular. */
        ring->page = page;
        ring->pages = ring->whole = pages < most / 2 ? pages : most / 2;
        return;
    }
    pages = pages < most ? pages : most;
    fault_cold(hints->vm->engine, page, pages);
    hint_count(&hints->counters.cold_pages, pages);
}

static void hint_act(struct hint_ring *ring, const struct fv_hint *hint)
{
    hint_count(&ring->hints->counters.taken, 1);
    switch (hint->op) {
    case FV_HINT_PREFETCH:
    case FV_HINT_COLD:
        advice_act(ring, hint);
        break;
    case FV_HINT_READ:
    case FV_HINT_CHAIN:
        hint_read_begin(ring, hint);
        break;
    default:
        hint_count(&ring->hints->counters.malformed, 1);
        break;
    }
}

/* Takes a few hints. Returns whether there was anything to do. */
static bool ring_turn(struct hint_ring *ring)
{
    struct fv_hint_ring *shared = ring->shared;
    bool busy = ring->pages > 0;
    if (ring->pages)
        prefetch_some(ring);
    if (ring->reading)
        hint_reads_retry(ring);
    for (unsigned i = 0; i < TURN_HINTS && !ring->pages && !ring->broken; i++) {
        if (atomic_load_explicit(&ring->hints->stop, memory_order_relaxed))
            break; /* 32 of the largest hints of every ring take their time */
        uint32_t waiting = __atomic_load_n(&shared->head, __ATOMIC_ACQUIRE) - ring->tail;
        struct fv_hint hint;
        if (waiting == 0)
            break;
        if (waiting > FV_HINTS) {
            ring->broken = true;
            __atomic_store_n(&shared->state, FV_HINT_OFF, __ATOMIC_RELAXED);
            break;
        }
        memcpy(&hint, &shared->hints[ring->tail % FV_HINTS], sizeof(hint));
        /* The copy is what is judged: the guest may go on changing the original. */
        __asm__ volatile("" ::: "memory");
        __atomic_store_n(&shared->tail, ++ring->tail, __ATOMIC_RELEASE);
        __atomic_store_n(&shared->awake, 1, __ATOMIC_RELAXED); /* a ring opened just now */
        hint_act(ring, &hint);
        if (ring->pages) /* at once: pages of several hints are read and landed together */
            prefetch_some(ring);
        busy = true;
    }
    return busy;
}

/* ---- the thread ---- */

static struct hint_ring *ring_at(struct hints *hints, uint32_t index)
{
    return atomic_load_explicit(&hints->rings[index], memory_order_acquire);
}

static void awake_set(struct hints *hints, uint32_t awake)
{
    uint32_t count = atomic_load(&hints->ring_count);
    for (uint32_t i = 0; i < count; i++) {
        struct hint_ring *ring = ring_at(hints, i);
        if (ring)
            __atomic_store_n(&ring->shared->awake, awake, __ATOMIC_SEQ_CST);
    }
}

static bool rings_turn(struct hints *hints)
{
    uint32_t count = atomic_load(&hints->ring_count);
    bool busy = false;
    for (uint32_t i = 0; i < count; i++) {
        struct hint_ring *ring = ring_at(hints, i);
        if (ring)
            busy |= ring_turn(ring);
    }
    return busy;
}

/* Does something wait that no doorbell will announce? */
static bool reads_wait(struct hints *hints)
{
    uint32_t count = atomic_load(&hints->ring_count);
    for (uint32_t i = 0; i < count; i++) {
        struct hint_ring *ring = ring_at(hints, i);
        if (ring && ring->reading)
            return true;
    }
    return false;
}

/* Handlers may stall, or come. One that comes when there is no watch any more rings. */
static bool handlers_run(struct hints *hints)
{
    uint32_t count = atomic_load(&hints->ring_count);
    bool any = atomic_load(&hints->watch_count) > 0;
    for (uint32_t i = 0; i < count && !any; i++) {
        struct hint_ring *ring = ring_at(hints, i);
        any = ring && atomic_load(&ring->upcalls.active);
    }
    return any;
}

static void doorbell_wait(struct hints *hints)
{
    struct pollfd doorbell = {.fd = hints->doorbell_fd, .events = POLLIN};
    bool soon = reads_wait(hints); /* for a page that moves */
    struct timespec period = {.tv_nsec = soon ? PEEK_WAIT_NS : WATCH_NS};
    bool for_ever = !soon && hints->vm->config->guide_count == 0 && !handlers_run(hints);
    uint64_t rings;
    hint_count(&hints->counters.sleeps, 1);
    (void)ppoll(&doorbell, 1, for_ever ? NULL : &period, NULL);
    (void)!read(hints->doorbell_fd, &rings, sizeof(rings));
}

/*
 * `awake` is cleared before the last look: a thread that posts after that look sees it cleared and
 * rings, one that posted before is seen.
 */
static void sleep_until_rung(struct hints *hints)
{
    awake_set(hints, 0);
    if (!rings_turn(hints) && !atomic_load(&hints->stop)) {
        uint64_t start_ns = clock_now_ns();
        doorbell_wait(hints);
        bool soon = clock_now_ns() - start_ns < SHORT_SLEEP_NS;
        uint64_t spin_ns = soon ? hints->spin_ns * 2 : hints->spin_ns / 2;
        hints->spin_ns = spin_ns < SPIN_MIN_NS   ? SPIN_MIN_NS
                         : spin_ns > SPIN_MAX_NS ? SPIN_MAX_NS
                                                 : spin_ns;
    }
    awake_set(hints, 1);
}

static void *hints_main(void *argument)
{
    struct hints *hints = argument;
    uint64_t busy_ns = clock_now_ns(), watched_ns = busy_ns;
    pthread_setname_np(pthread_self(), "hints");
    while (!atomic_load(&hints->stop)) {
        bool busy = rings_turn(hints);
        /* An error is sticky and the events thread's to act on; the looks were told. */
        int flying = fault_peek_poll(hints->fault, busy ? 0 : PEEK_WAIT_NS);
        fault_land(hints->fault);
        uint64_t now_ns = clock_now_ns();
        if (busy || flying > 0)
            busy_ns = now_ns;
        if (now_ns - watched_ns >= WATCH_NS) {
            watched_ns = now_ns;
            hint_worth_judge(hints);
            hint_stalls_watch(hints);
        }
        if (now_ns - busy_ns >= hints->spin_ns && flying <= 0) {
            sleep_until_rung(hints);
            busy_ns = clock_now_ns();
        }
    }
    return NULL;
}

/* ---- life ---- */

/* Runs with the sandbox closed; under hints->lock. */
static int thread_start(struct hints *hints)
{
    pthread_attr_t attributes;
    int error = fault_context_create(hints->vm->engine, &hints->fault);
    if (error)
        return error;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    error = -pthread_create(&hints->thread, &attributes, hints_main, hints);
    pthread_attr_destroy(&attributes);
    if (error) {
        fault_context_destroy(hints->fault);
        hints->fault = NULL;
    }
    hints->running = !error;
    return error;
}

static int ring_open(struct hints *hints, struct vcpu *vcpu)
{
    struct vm *vm = hints->vm;
    gpa_t gpa = FV_HINT_BASE + (gpa_t)vcpu->index * FV_HINT_STRIDE;
    struct hint_ring *ring = calloc(1, sizeof(*ring));
    if (!ring)
        return -ENOMEM;
    int error = ept_map_kernel(vm->ept, gpa, sizeof(*ring->shared), EPT_READ | EPT_WRITE, true);
    if (error) {
        free(ring);
        return error;
    }
    ring->hints = hints;
    ring->index = vcpu->index;
    ring->shared = ept_hva(vm->ept, gpa);
    memset(ring->shared, 0, sizeof(*ring->shared));
    ring->shared->time_percent = vm->config->guide_time_percent;
    ring->shared->state = atomic_load(&hints->off) ? FV_HINT_OFF : FV_HINT_ON;
    atomic_store(&hints->rings[vcpu->index], ring);
    if (vcpu->index >= atomic_load(&hints->ring_count))
        atomic_store(&hints->ring_count, vcpu->index + 1);
    /* After it can be found: whoever switches them off does so in the rings that are there. */
    if (atomic_load(&hints->upcalls_off))
        __atomic_store_n(&ring->shared->guides_off, 1, __ATOMIC_RELAXED);
    return 0;
}

int hints_open(struct hints *hints, struct vcpu *vcpu)
{
    int error = 0;
    pthread_mutex_lock(&hints->lock);
    if (!hints->running)
        error = thread_start(hints);
    if (!error && !atomic_load(&hints->rings[vcpu->index]))
        error = ring_open(hints, vcpu);
    pthread_mutex_unlock(&hints->lock);
    return error;
}

void hints_ring_doorbell(struct hints *hints)
{
    eventfd_write(hints->doorbell_fd, 1);
}

int hints_create(struct hints **out, struct vm *vm)
{
    struct hints *hints = calloc(1, sizeof(*hints));
    if (!hints)
        return -ENOMEM;
    hints->vm = vm;
    hints->spin_ns = SPIN_MIN_NS;
    pthread_mutex_init(&hints->lock, NULL);
    pthread_mutex_init(&hints->pin_lock, NULL);
    pthread_mutex_init(&hints->watch_lock, NULL);
    pthread_cond_init(&hints->pin_settled, NULL);
    hints->doorbell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (hints->doorbell_fd < 0) {
        int error = -errno;
        message_error("host: doorbell of the hint channel: %s", strerror(-error));
        hints_destroy(hints);
        return error;
    }
    /* Best effort: without it the port is an exit, and run.c rings. */
    struct kvm_ioeventfd at_port = {
        .addr = FV_PORT_HINT, .len = 1, .fd = hints->doorbell_fd, .flags = KVM_IOEVENTFD_FLAG_PIO};
    hints->in_kernel = ioctl(vm->vm_fd, KVM_IOEVENTFD, &at_port) == 0;
    *out = hints;
    return 0;
}

void hints_stop(struct hints *hints)
{
    if (!hints)
        return;
    pthread_mutex_lock(&hints->lock);
    bool running = hints->running;
    atomic_store(&hints->stop, true);
    pthread_mutex_unlock(&hints->lock);
    if (running) {
        hints_ring_doorbell(hints);
        pthread_join(hints->thread, NULL);
        fault_context_destroy(hints->fault);
        hints->fault = NULL;
        hints->running = false;
    }
}

void hints_destroy(struct hints *hints)
{
    if (!hints)
        return;
    hints_stop(hints);
    for (uint32_t i = 0; i < atomic_load(&hints->ring_count); i++) {
        struct hint_ring *ring = ring_at(hints, i);
        if (ring)
            free(ring->reads);
        free(ring);
    }
    free(hints->chains);
    if (hints->doorbell_fd >= 0)
        close(hints->doorbell_fd);
    pthread_mutex_destroy(&hints->lock);
    pthread_mutex_destroy(&hints->pin_lock);
    pthread_mutex_destroy(&hints->watch_lock);
    pthread_cond_destroy(&hints->pin_settled);
    free(hints);
}
