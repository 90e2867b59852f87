/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Upcalls at faults: a guide is asked what comes next while the page that the program touched is on
 * its way (docs/guides.md has the states and races). Here: which faults those are, what the handler
 * is told, and what becomes of its answer. Runs on the faulting vCPU's thread.
 *
 * Everything in the ring is the guest's: it is copied once, and only ever decides which pages come
 * and go. That a handler runs, and for how long, the VMM knows by itself.
 */
#include "vmm/guides/hints.h"

#include "support.h"
#include "vmm/machine.h"
#include "vmm/miss.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define BATCH_PAGES   64u
#define TRIES         4u         /* somebody lands on the lane just now */
#define SLOW_MIN_NS   200000000u /* of a thread's life with upcalls: before that, chance */
#define TELLS_EVERY   8u         /* of a run of pages these can tell of their use (fault.h) */
#define RFLAGS_TF     0x100ULL
#define ANSWERS_SHARE 8u /* most pages of one answer: an eighth of --local */

static struct hint_ring *ring_of(const struct vcpu *vcpu)
{
    return vcpu->vm->hints ? atomic_load(&vcpu->vm->hints->rings[vcpu->index]) : NULL;
}

/* ---- what is watched ---- */

int64_t guide_watch(struct vcpu *vcpu, gpa_t gpa, uint64_t bytes, gpa_t name, uint64_t name_bytes)
{
    struct hints *hints = vcpu->vm->hints;
    char text[GUIDE_NAME_BYTES];
    gpa_t end;
    unsigned i = 0;
    if (bytes == 0 || __builtin_add_overflow(gpa, bytes, &end) || end > ept_span(vcpu->vm->ept))
        return -EINVAL;
    guide_name_read(vcpu->vm, text, name, name_bytes);
    if (!*text) /* no guide beside a program, but the program */
        snprintf(text, sizeof(text), "of the program");
    if (vcpu->vm->config->fault_mode != FAULT_MODE_EXIT) {
        if (!atomic_exchange(&hints->uffd_warned, true))
            message_warning(
                "guide %s: is not asked at faults: --fault-mode %s has no exit for them", text,
                fault_mode_name(vcpu->vm->config->fault_mode));
        return -EOPNOTSUPP;
    }
    pthread_mutex_lock(&hints->watch_lock);
    while (i < GUIDE_WATCHES && atomic_load(&hints->watches[i].end))
        i++;
    if (i < GUIDE_WATCHES) {
        struct guide_watch *watch = &hints->watches[i];
        snprintf(watch->name, sizeof(watch->name), "%s", text);
        atomic_store(&watch->start, gpa);
        atomic_store(&watch->end, end);
        if (i >= atomic_load(&hints->watch_count))
            atomic_store(&hints->watch_count, i + 1);
    }
    pthread_mutex_unlock(&hints->watch_lock);
    if (i == GUIDE_WATCHES)
        return -ENOSPC;
    hints_ring_doorbell(hints); /* from now on it does not sleep for ever: handlers may stall */
    return 0;
}

int64_t guide_unwatch(struct vcpu *vcpu, gpa_t gpa, uint64_t bytes)
{
    struct hints *hints = vcpu->vm->hints;
    int64_t result = -EINVAL;
    pthread_mutex_lock(&hints->watch_lock);
    for (unsigned i = 0; i < GUIDE_WATCHES && result; i++) {
        struct guide_watch *watch = &hints->watches[i];
        if (atomic_load(&watch->end) && atomic_load(&watch->start) == gpa &&
            atomic_load(&watch->end) - gpa == bytes) {
            atomic_store(&watch->end, 0);
            result = 0;
        }
    }
    unsigned count = atomic_load(&hints->watch_count);
    while (count && !atomic_load(&hints->watches[count - 1].end))
        count--;
    atomic_store(&hints->watch_count, count); /* 0: misses need not look, and nobody wakes to */
    pthread_mutex_unlock(&hints->watch_lock);
    return result;
}

static bool is_watched(struct hints *hints, gpa_t gpa, unsigned *index)
{
    unsigned count = atomic_load(&hints->watch_count);
    for (unsigned i = 0; i < count; i++) {
        if (gpa >= atomic_load(&hints->watches[i].start) &&
            gpa < atomic_load(&hints->watches[i].end)) {
            *index = i;
            return true;
        }
    }
    return false;
}

/* ---- the way in ---- */

/* Of what the instruction touches, the first byte that is watched and remote. */
static bool fault_find(struct vcpu *vcpu, const struct access accesses[], int count, gpa_t *gpa,
                       bool *write, unsigned *watch)
{
    for (int i = 0; i < count; i++) {
        gpa_t last = accesses[i].gpa + (accesses[i].bytes ? accesses[i].bytes - 1 : 0);
        uint64_t first = accesses[i].gpa >> EPT_PAGE_SHIFT;
        /* By number: the last page of all addresses has no end. */
        for (uint64_t page = first; page <= last >> EPT_PAGE_SHIFT; page++) {
            gpa_t at = page == first ? accesses[i].gpa : page << EPT_PAGE_SHIFT;
            uint8_t state;
            if (!is_watched(vcpu->vm->hints, at, watch) ||
                fault_residency(vcpu->vm->engine, page, 1, &state) || state != FV_PAGE_REMOTE)
                continue;
            *gpa = at;
            *write = accesses[i].write;
            return true;
        }
    }
    return false;
}

/* The program itself, between two instructions, with nothing else to do first. */
static bool may_interrupt(const struct vcpu *vcpu, const struct kvm_regs *at)
{
    const struct hint_ring *ring = ring_of(vcpu);
    return vcpu->vm->config->fault_mode == FAULT_MODE_EXIT && !trap_in_kernel(vcpu->vm, at->rip) &&
           vcpu->run->s.regs.sregs.cs.dpl == 3 && !(at->rflags & RFLAGS_TF) &&
           !__atomic_load_n(&vcpu->page->pending, __ATOMIC_SEQ_CST) &&
           !(ring && (atomic_load(&ring->upcalls.active) ||
                      __atomic_load_n(&ring->shared->inside, __ATOMIC_RELAXED)));
}

/* Those pages of earlier answers that were used since; each is told once. */
static uint32_t hits_tell(struct hint_ring *ring, gpa_t hits[FV_FAULT_HITS])
{
    struct hint_upcalls *upcalls = &ring->upcalls;
    uint32_t count = 0;
    for (unsigned i = 0; i < GUIDE_RECENT && count < FV_FAULT_HITS; i++) {
        uint64_t *page = &upcalls->recent[(upcalls->recent_next - 1 - i) % GUIDE_RECENT];
        if (!*page || !fault_was_used(ring->hints->vm->engine, *page))
            continue;
        hits[count++] = *page << EPT_PAGE_SHIFT;
        *page = 0;
    }
    return count;
}

/* Of the calling thread. */
static struct hint_time time_now(void)
{
    struct timespec cpu = {0};
    struct rusage usage = {0};
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
    (void)getrusage(RUSAGE_THREAD, &usage);
    return (struct hint_time){.wall_ns = clock_now_ns(),
                              .cpu_ns = (uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec,
                              .waits = (uint64_t)usage.ru_nvcsw};
}

static void handler_enter(struct vcpu *vcpu, const struct kvm_regs *at, gpa_t gpa, bool write)
{
    struct hint_ring *ring = ring_of(vcpu);
    struct fv_fault *told = &ring->shared->fault;
    struct hint_upcalls *upcalls = &ring->upcalls;
    told->address = gpa;
    told->write = write;
    told->hit_count = hits_tell(ring, told->hits);
    told->count = 0;
    upcalls->at = *at;
    upcalls->start = time_now();
    if (upcalls->began_ns == 0)
        upcalls->began_ns = upcalls->start.wall_ns;
    atomic_fetch_add(&upcalls->entries, 1);
    atomic_store(&upcalls->active, true);
    /* The last watch ended meanwhile: who looks after handlers that stall may sleep for ever. */
    if (!atomic_load(&ring->hints->watch_count))
        hints_ring_doorbell(ring->hints);
    hint_count(&ring->hints->counters.upcalls, 1);
    trap_upcall(vcpu, at, FV_UPCALL_FAULT);
}

/*
 * The same instruction with the same registers touches the same places, so it is the same execution
 * of it, which has not got on: what it needs may have left again, perhaps because the handler saw
 * to that. An instruction may need several pages, and handlers may drive out each when another is
 * asked for: so one upcall an execution, not one a page, or the program might stay where it is.
 */
static bool is_asked_already(const struct hint_upcalls *upcalls, const struct kvm_regs *at)
{
    return memcmp(&upcalls->at, at, offsetof(struct kvm_regs, rflags)) == 0;
}

bool guide_fault_begin(struct vcpu *vcpu, const struct kvm_regs *at, const struct access accesses[],
                       int count)
{
    struct hints *hints = vcpu->vm->hints;
    gpa_t gpa = 0;
    bool write = false;
    unsigned watch = 0;
    if (!hints || !atomic_load(&hints->watch_count) || atomic_load(&hints->upcalls_off) ||
        atomic_load(&hints->off) || !may_interrupt(vcpu, at) ||
        !fault_find(vcpu, accesses, count, &gpa, &write, &watch))
        return false;
    if (!ring_of(vcpu) && hints_open(hints, vcpu))
        return false;
    struct hint_upcalls *upcalls = &ring_of(vcpu)->upcalls;
    if (is_asked_already(upcalls, at))
        return false;
    /* A sticky error is seen by the ordinary way that is gone now. */
    if (fault_demand_open(vcpu->fault, gpa >> EPT_PAGE_SHIFT, write) != 1)
        return false;
    upcalls->watch = watch;
    handler_enter(vcpu, at, gpa, write);
    return true;
}

void guide_fault_forget(struct vcpu *vcpu)
{
    struct hint_ring *ring = ring_of(vcpu);
    if (!ring)
        return;
    atomic_store(&ring->upcalls.active, false);
    /* It may have ended inside of a guide, and the next thread here may never open its ring. */
    __atomic_store_n(&ring->shared->inside, 0, __ATOMIC_RELAXED);
}

/* ---- the answer ---- */

/* Remembers the first page of a run that can tell of its use. */
static void recent_add(struct hint_upcalls *upcalls, uint64_t page, uint64_t pages)
{
    uint64_t tells =
        pages < TELLS_EVERY ? page : (page + TELLS_EVERY - 1) / TELLS_EVERY * TELLS_EVERY;
    upcalls->recent[upcalls->recent_next++ % GUIDE_RECENT] = tells;
}

/* The next `pages` are done with. */
static void pages_passed(struct hint_ring *ring, uint64_t page, uint64_t pages,
                         const uint8_t *state, uint64_t whole)
{
    uint64_t started =
        hint_worth_passed(ring->hints, &ring->upcalls.samples, page, pages, state, whole);
    hint_count(&ring->hints->counters.upcall_pages, started);
    if (started)
        recent_add(&ring->upcalls, page, pages);
}

static void pages_start(struct vcpu *vcpu, struct hint_ring *ring, uint64_t page, uint64_t pages)
{
    uint8_t state[BATCH_PAGES];
    uint64_t whole = pages;
    while (pages > 0) {
        uint64_t now = pages < BATCH_PAGES ? pages : BATCH_PAGES;
        int64_t passed = (int64_t)now;
        if (fault_residency(vcpu->vm->engine, page, now, state))
            return;
        if (memchr(state, FV_PAGE_REMOTE, now)) {
            passed = fault_prefetch(vcpu->fault, page, now);
            for (unsigned i = 1; i < TRIES && passed == 0; i++) {
                sched_yield();
                passed = fault_prefetch(vcpu->fault, page, now);
            }
        }
        if (passed <= 0)
            break;
        pages_passed(ring, page, (uint64_t)passed, state, whole);
        page += (uint64_t)passed;
        pages -= (uint64_t)passed;
    }
    hint_count(&ring->hints->counters.left_out_pages, pages);
}

static void answers_take(struct vcpu *vcpu, struct hint_ring *ring)
{
    struct hints *hints = ring->hints;
    const struct fv_fault *fault = &ring->shared->fault;
    uint32_t count = __atomic_load_n(&fault->count, __ATOMIC_RELAXED);
    uint64_t most = vcpu->vm->config->local_bytes / EPT_PAGE_BYTES / ANSWERS_SHARE;
    for (uint32_t i = 0; i < count && i < FV_FAULT_ANSWERS; i++) {
        struct fv_hint hint;
        uint64_t page, pages;
        memcpy(&hint, &fault->answers[i], sizeof(hint));
        __asm__ volatile("" ::: "memory"); /* only the copy is looked at */
        hint_count(&hints->counters.taken, 1);
        if (!hint_pages(hints, &hint, &page, &pages) ||
            (hint.op != FV_HINT_PREFETCH && hint.op != FV_HINT_COLD)) {
            hint_count(&hints->counters.malformed, 1);
            hint_count(&hints->counters.wasted_pages, 1);
            continue;
        }
        pages = pages < most ? pages : most;
        most -= pages;
        if (hint.op == FV_HINT_COLD) {
            fault_cold(vcpu->vm->engine, page, pages);
            hint_count(&hints->counters.cold_pages, pages);
            continue;
        }
        pages_start(vcpu, ring, page, pages);
    }
    fault_land(vcpu->fault); /* sends what was gathered */
}

/* ---- the end ---- */

/* No handler and no hook is entered any more. */
static void upcalls_switch_off(struct hints *hints, uint64_t why, unsigned watch)
{
    char name[GUIDE_NAME_BYTES];
    atomic_store(&hints->upcalls_off, true);
    for (uint32_t i = 0; i < atomic_load(&hints->ring_count); i++) {
        struct hint_ring *ring = atomic_load(&hints->rings[i]);
        if (ring)
            __atomic_store_n(&ring->shared->guides_off, 1, __ATOMIC_RELAXED);
    }
    pthread_mutex_lock(&hints->watch_lock); /* another thread may watch something there by now */
    memcpy(name, hints->watches[watch].name, sizeof(name));
    pthread_mutex_unlock(&hints->watch_lock);
    guide_warn_off(hints, why, name);
}

/*
 * A handler costs the program what it takes longer than the page would have taken anyway. That its
 * thread was kept from running by others is not its doing; what it waited for by itself is.
 */
static bool is_slow(const struct vcpu *vcpu, struct hint_ring *ring, bool waited)
{
    struct hint_upcalls *upcalls = &ring->upcalls;
    struct hint_time now = time_now(), *start = &upcalls->start;
    uint64_t took_ns =
        now.waits != start->waits ? now.wall_ns - start->wall_ns : now.cpu_ns - start->cpu_ns;
    uint64_t fetch_ns = fault_fetch_mean_ns(vcpu->fault);
    uint64_t life_ns = now.wall_ns - upcalls->began_ns;
    if (!waited && took_ns > fetch_ns)
        upcalls->charged_ns += took_ns - fetch_ns;
    return life_ns > SLOW_MIN_NS && vcpu->vm->config->guide_time_percent &&
           upcalls->charged_ns > life_ns / 100 * vcpu->vm->config->guide_time_percent;
}

int64_t guide_fault_end(struct vcpu *vcpu, uint64_t why)
{
    struct hints *hints = vcpu->vm->hints;
    struct hint_ring *ring = ring_of(vcpu);
    if (why > FV_OFF_SLOW || !ring || !atomic_exchange(&ring->upcalls.active, false))
        return -EINVAL;
    if (!why && !atomic_load(&hints->off))
        answers_take(vcpu, ring);
    /* An error is sticky: the program's next touch reports it. */
    bool waited = fault_demand_close(vcpu->fault) == 1;
    if (!why && is_slow(vcpu, ring, waited))
        why = FV_OFF_SLOW;
    if (why)
        upcalls_switch_off(hints, why, ring->upcalls.watch);
    return 0;
}

/* ---- reading without waiting ---- */

int64_t guide_copy(struct vcpu *vcpu, gpa_t from, gpa_t to, uint64_t bytes)
{
    struct vm *vm = vcpu->vm;
    uint8_t data[FV_READ_BYTES];
    gpa_t end;
    if (bytes == 0 || bytes > sizeof(data))
        return -EINVAL;
    if (!vcpu->fault)
        return -EAGAIN;
    if (__builtin_add_overflow(from, bytes, &end) || end > ept_span(vm->ept) ||
        !mm_allows(vm->mm, from, bytes, EPT_READ))
        return -EFAULT;
    uint64_t page = from >> EPT_PAGE_SHIFT;
    uint64_t pages = ((end - 1) >> EPT_PAGE_SHIFT) - page + 1;
    int error = fault_pin_resident(vcpu->fault, page, pages, false);
    if (error)
        return error == -EBUSY ? -EAGAIN : error;
    error = guarded_copy(data, ept_hva(vm->ept, from), bytes);
    fault_unpin(vm->engine, page, pages);
    return error ? error : guestmem_write(vm, to, data, bytes);
}
