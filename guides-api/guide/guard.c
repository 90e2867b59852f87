/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps account of a guide's code on the program's threads. Each call of a hooked function is a
 * record on the thread's own stack of records, which says what is needed to go on without the
 * guide: the call as it was made, or its result. The rescue (the guest kernel sends a guide there
 * that faulted or did not come back) does just that. Time in guides is counted; when it becomes too
 * large a share, or after a rescue, hooks are no longer entered.
 *
 * No calls into libc on the way in and out: it could change the upper halves of vector registers
 * that hold arguments, and the hooked function may be one it needs.
 */
#include "guide/internal.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <x86intrin.h>

#define SLOW_MIN_TICKS 400000000ULL /* some 0.2 s of a thread's life: before that, chance */
#define NAME_MAX_BYTES 64u

atomic_bool guide_is_off;
static const char *starting = "";

const char *guide_starting(void)
{
    return starting;
}

const char *guide_running(void)
{
    const struct guide_thread *thread = guide_thread_self();
    if (*starting || !thread || thread->depth == 0)
        return starting;
    return guide_hook_at(thread->records[thread->depth - 1].hook)->guide;
}

/* No memcpy: see above. The return address is on the other's stack and is not copied back. */
static void regs_copy(struct guide_regs *to, const struct guide_regs *from)
{
    volatile uint64_t *words = (volatile uint64_t *)to;
    const uint64_t *source = (const uint64_t *)from;
    for (size_t i = 0; i < offsetof(struct guide_regs, return_address) / sizeof(*words); i++)
        words[i] = source[i];
}

/* ---- the clock: runs while a guide's code does ---- */

static void guide_begins(struct guide_thread *thread, const struct guide_record *record)
{
    struct fv_hint_ring *ring = thread->ring;
    thread->entered_ticks = __rdtsc();
    if (!thread->began_ticks)
        thread->began_ticks = thread->entered_ticks;
    if (!ring)
        return;
    ring->rescue = (uintptr_t)guide_rescue_entry;
    /* Below the hooked call's own frame, aligned as a function expects it. */
    ring->rescue_stack = ((record->entry_stack - sizeof(struct guide_regs) - 256) & ~15ULL) - 8;
    ring->entries++;
    __atomic_store_n(&ring->inside, FV_INSIDE_HOOK, __ATOMIC_RELEASE);
}

/* A rescue comes between any two instructions: what follows must not be done before. */
static void guide_leaves(struct fv_hint_ring *ring)
{
    __atomic_store_n(&ring->inside, 0, __ATOMIC_RELEASE);
    atomic_signal_fence(memory_order_seq_cst);
}

static void guide_off(uint64_t why, const char *name)
{
    size_t bytes = 0;
    if (atomic_exchange(&guide_is_off, true))
        return;
    while (bytes < NAME_MAX_BYTES && name[bytes])
        bytes++;
    (void)guide_call(FV_GUIDE_OFF, why, (uintptr_t)name, bytes);
}

static void guide_ends(struct guide_thread *thread, uint32_t hook)
{
    struct fv_hint_ring *ring = thread->ring;
    uint64_t now = __rdtsc();
    thread->guide_ticks += now - thread->entered_ticks;
    if (!ring)
        return;
    guide_leaves(ring);
    uint64_t life = now - thread->began_ticks;
    if (life > SLOW_MIN_TICKS && ring->time_percent &&
        thread->guide_ticks > life / 100 * ring->time_percent)
        guide_off(FV_OFF_SLOW, guide_hook_at(hook)->guide);
}

/* ---- in and out of hooks ---- */

/* The stack of signal handlers, if this is one that runs there; else no bytes. */
static stack_t signal_stack(void)
{
    stack_t now = {.ss_flags = 0};
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"((long)SYS_sigaltstack), "D"(NULL), "S"(&now)
                     : "rcx", "r11", "memory");
    if (result < 0 || !(now.ss_flags & SS_ONSTACK))
        now.ss_size = 0;
    return now;
}

/*
 * Records that a longjmp left behind are of frames below the stack pointer, or at the same place
 * when the function was called anew. A tail call is at the same place, too, but has its caller's
 * return address, which is ours. A signal handler on a stack of its own finds those of the code
 * that it interrupted anywhere: they are not its to drop.
 */
static void records_drop_stale(struct guide_thread *thread, const struct guide_regs *regs)
{
    uint64_t stack = (uintptr_t)&regs->return_address;
    bool tail_call = regs->return_address == (uintptr_t)guide_hook_return ||
                     regs->return_address == (uintptr_t)guide_original_return;
    bool asked = false;
    stack_t own = {.ss_size = 0};
    while (thread->depth > 0 && thread->records[thread->depth - 1].phase != GUIDE_CALLED &&
           thread->records[thread->depth - 1].entry_stack < stack + !tail_call) {
        if (!asked)
            own = signal_stack();
        asked = true;
        if (own.ss_size &&
            thread->records[thread->depth - 1].entry_stack - (uintptr_t)own.ss_sp >= own.ss_size)
            return;
        thread->depth--;
    }
}

static bool in_guide(const struct guide_thread *thread)
{
    return thread->depth > 0 && thread->records[thread->depth - 1].phase != GUIDE_WITHIN;
}

/* Half a hook (`held`) is no time for a guide: a fault there would be the program's. */
static bool may_enter(const struct guide_thread *thread)
{
    const struct fv_hint_ring *ring = thread ? thread->ring : NULL;
    if (!thread || thread->entering)
        return false;
    return !ring || (!ring->held && !__atomic_load_n(&ring->guides_off, __ATOMIC_RELAXED));
}

static void record_enter(struct guide_thread *thread, struct guide_regs *regs, uint32_t hook)
{
    struct guide_record *record = &thread->records[thread->depth];
    record->hook = hook;
    record->phase = GUIDE_BEFORE;
    regs_copy(&record->entry, regs);
    record->entry_stack = (uintptr_t)&regs->return_address;
    record->entry.return_address = regs->return_address;
    atomic_signal_fence(memory_order_seq_cst);
    thread->depth++;
    regs->return_address = (uintptr_t)guide_hook_return;
    regs->slot = (uintptr_t)guide_hook_at(hook)->replacement;
    guide_begins(thread, record);
}

void guide_on_enter(struct guide_regs *regs)
{
    uint32_t hook = (uint32_t)regs->slot;
    regs->slot = (uintptr_t)guide_hook_at(hook)->trampoline;
    /* A handler of a fault that calls a hooked function means the function. */
    if (atomic_load_explicit(&guide_is_off, memory_order_relaxed) || guide_fault_self())
        return;
    struct guide_thread *thread = guide_thread_self();
    if (!may_enter(thread))
        return;
    thread->entering = true;
    atomic_signal_fence(memory_order_seq_cst);
    records_drop_stale(thread, regs);
    if (thread->depth < GUIDE_DEPTH && !in_guide(thread))
        record_enter(thread, regs, hook);
    atomic_signal_fence(memory_order_seq_cst);
    thread->entering = false;
}

/*
 * Registers as the hooked function itself would have left them. Results are the guide's, or the
 * original's after a rescue (`from`). rdx and xmm1 are results only of functions that return two
 * words: of those, the original changed them.
 */
static void regs_for_caller(const struct guide_record *record, const struct guide_regs *from,
                            struct guide_regs *out)
{
    bool called = record->phase == GUIDE_AFTER;
    bool second = !called || record->result.rdx != record->passed.rdx;
    bool second_vector = !called || record->result.xmm[1][0] != record->passed.xmm[1][0] ||
                         record->result.xmm[1][1] != record->passed.xmm[1][1];
    struct guide_regs results;
    regs_copy(&results, from); /* may be `out` itself */
    regs_copy(out, &record->entry);
    out->rax = results.rax;
    out->xmm[0][0] = results.xmm[0][0];
    out->xmm[0][1] = results.xmm[0][1];
    if (second)
        out->rdx = results.rdx;
    if (second_vector) {
        out->xmm[1][0] = results.xmm[1][0];
        out->xmm[1][1] = results.xmm[1][1];
    }
    out->slot = record->entry.return_address;
}

void guide_on_return(struct guide_regs *regs)
{
    struct guide_thread *thread = guide_thread_self();
    struct guide_record *record = &thread->records[thread->depth - 1];
    guide_ends(thread, record->hook);
    regs_for_caller(record, regs, regs);
    /* Only now: the next one to enter, a signal handler say, makes its record in this place. */
    atomic_signal_fence(memory_order_seq_cst);
    thread->depth--;
}

void guide_on_original(struct guide_regs *regs)
{
    uint32_t hook = (uint32_t)regs->slot;
    regs->slot = (uintptr_t)guide_hook_at(hook)->trampoline;
    if (guide_fault_self()) /* a hook's record may be the interrupted program's */
        return;
    struct guide_thread *thread = guide_thread_self();
    if (!thread || thread->depth == 0)
        return;
    struct guide_record *record = &thread->records[thread->depth - 1];
    /* Once a call: what a guide does beyond that is its own. */
    if (record->hook != hook || record->phase != GUIDE_BEFORE)
        return;
    guide_ends(thread, hook);
    record->phase = GUIDE_WITHIN;
    regs_copy(&record->passed, regs);
    record->original_return = regs->return_address;
    regs->return_address = (uintptr_t)guide_original_return;
}

void guide_on_original_return(struct guide_regs *regs)
{
    struct guide_thread *thread = guide_thread_self();
    uint64_t stack = (uintptr_t)&regs->slot; /* where the return address was */
    struct guide_record *record = &thread->records[thread->depth - 1];
    /* Hooked functions that the original called and that were left by longjmp. */
    while (record->phase != GUIDE_WITHIN || record->entry_stack < stack)
        record = &thread->records[--thread->depth - 1];
    regs_copy(&record->result, regs);
    record->phase = GUIDE_AFTER;
    regs->slot = record->original_return;
    guide_begins(thread, record);
}

/* ---- rescue ---- */

_Noreturn void guide_on_rescue(uint64_t why)
{
    struct guide_thread *thread = guide_thread_self();
    struct guide_record *record = &thread->records[thread->depth - 1];
    uint64_t *stack = (uint64_t *)record->entry_stack;
    bool called = record->phase == GUIDE_CALLED;
    guide_off(why, called ? starting : guide_hook_at(record->hook)->guide);
    atomic_signal_fence(memory_order_seq_cst);
    thread->depth--; /* from here on no handler makes a record: guides are off */
    thread->entering = false;
    if (called)
        longjmp(*record->start, 1);
    /* Registers are loaded from the record: what lies below the stack is a signal handler's. */
    if (record->phase == GUIDE_AFTER) {
        regs_for_caller(record, &record->result, &record->entry);
        *stack = record->entry.slot;
        guide_resume(&record->entry, record->entry_stack);
    }
    /* The return address was replaced in place. */
    *stack = record->entry.return_address;
    *--stack = (uintptr_t)guide_hook_at(record->hook)->trampoline;
    guide_resume(&record->entry, (uintptr_t)stack);
}

void guide_hold(void)
{
    struct guide_thread *thread = guide_thread_self();
    if (thread && thread->ring)
        thread->ring->held = 1;
    atomic_signal_fence(memory_order_seq_cst);
}

/*
 *   held      overdue   who
 *   0 -> 1    any       library: from here on the guest kernel leaves an overdue guide alone
 *   1         0 -> 1    VMM; the guest kernel, if it is told, changes nothing
 *   1 -> 0    1         library: sees it after `held` and goes to the rescue itself
 *   1 -> 0    0 -> 1    VMM, after the look: the guest kernel finds `held` 0, as ever
 */
void guide_let_go(bool progress)
{
    struct guide_thread *thread = guide_thread_self();
    struct fv_hint_ring *ring = thread ? thread->ring : NULL;
    if (!ring)
        return;
    if (progress)
        ring->entries++; /* the stall watch starts anew */
    atomic_signal_fence(memory_order_seq_cst);
    ring->held = 0;
    atomic_signal_fence(memory_order_seq_cst);
    if (ring->inside != FV_INSIDE_HOOK || !__atomic_load_n(&ring->overdue, __ATOMIC_ACQUIRE))
        return;
    __atomic_store_n(&ring->overdue, 0, __ATOMIC_RELAXED);
    if (progress)
        return;
    guide_leaves(ring);
    guide_on_rescue(FV_OFF_STALL);
}

GUIDE_PUBLIC int guide_start(const char *name, int (*start)(void))
{
    struct guide_thread *thread = guide_thread_self();
    jmp_buf back;
    int result = -ECANCELED;
    if (guide_fault_self())
        return -EAGAIN;
    if (!thread || thread->depth == GUIDE_DEPTH)
        return -ENOMEM;
    if (atomic_load(&guide_is_off))
        return -ECANCELED;
    starting = name;
    thread->entering = true;
    atomic_signal_fence(memory_order_seq_cst);
    struct guide_record *record = &thread->records[thread->depth];
    record->phase = GUIDE_CALLED;
    record->start = &back;
    record->entry_stack = (uintptr_t)__builtin_frame_address(0) - 1024;
    atomic_signal_fence(memory_order_seq_cst);
    thread->depth++;
    thread->entering = false;
    if (_setjmp(back) == 0) {
        guide_begins(thread, record);
        result = start();
        if (thread->ring)
            guide_leaves(thread->ring);
        thread->depth--;
    } else {
        result = -ECANCELED;
    }
    starting = "";
    return result;
}
