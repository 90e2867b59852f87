/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Upcalls at faults (docs/guides.md has the states and races): a guide's handler runs on the thread
 * that touched a remote page, while the page is on its way. What the program is made of -
 * registers, vector state, fs base, signal mask, errno - is put away here, in memory that no guide
 * writes to by accident, and comes back from here however the handler ends. The handler runs on a
 * stack of its own, one a vCPU, made when first needed.
 */
#include "guest-os/kernel.h"

#define STACK_BYTES    0x10000
#define GUARD_BYTES    0x1000
#define HANDLER_RFLAGS 0x202

/*
 * Calls that a handler may not make: they raise signals, take the program's, return from them, make
 * threads, or change what a thread is known by.
 */
enum {
    SYS_RT_SIGRETURN = 15,
    SYS_CLONE = 56,
    SYS_KILL = 62,
    SYS_RT_SIGTIMEDWAIT = 128,
    SYS_RT_SIGQUEUEINFO = 129,
    SYS_RT_SIGSUSPEND = 130,
    SYS_SIGALTSTACK = 131,
    SYS_TKILL = 200,
    SYS_SET_TID_ADDRESS = 218,
    SYS_TGKILL = 234,
    SYS_SET_ROBUST_LIST = 273,
    SYS_SIGNALFD = 282,
    SYS_SIGNALFD4 = 289,
    SYS_RT_TGSIGQUEUEINFO = 297,
    SYS_PIDFD_SEND_SIGNAL = 424,
    SYS_CLONE3 = 435,
};

struct guide_save {
    _Alignas(64) uint8_t xstate[XSTATE_MAX];
    struct frame frame;
    uint64_t fs_base, blocked, saved_mask;
    bool restore_mask;
    bool deferred; /* signals came meanwhile */
    bool has_errno;
    uint32_t errno_value;
    gpa_t errno_at;
};

static struct guide_save saves[FV_VCPU_MAX];
static gpa_t stacks[FV_VCPU_MAX]; /* lowest address; 0: none yet */
static _Atomic uint64_t entry;    /* the library's; 0: nothing is watched */
static _Atomic int64_t errno_offset_bytes;

int64_t guide_watch(const struct frame *frame)
{
    struct fv_watch watch;
    if (user_read(&watch, frame->r10, sizeof(watch)) != 0)
        return -LINUX_EFAULT;
    if (watch.entry == 0 || !user_range(watch.entry, 1))
        return -LINUX_EINVAL;
    errno_offset_bytes = watch.errno_offset_bytes;
    entry = watch.entry; /* before the VMM knows of anything to watch */
    return vmm_call(FV_CALL_GUIDE, FV_GUIDE_WATCH, frame->rsi, frame->rdx,
                    frame->r10 + offsetof(struct fv_watch, name), FV_WATCH_NAME, 0);
}

/*
 * Of this vCPU; 0: no memory for it, or another thread is changing mappings, which is not waited
 * for here: the next fault is asked about.
 */
static gpa_t stack_get(uint32_t index)
{
    static gpa_t bare[FV_VCPU_MAX]; /* without a guard yet */
    if (stacks[index] != 0)
        return stacks[index];
    if (bare[index] == 0) {
        int64_t at = vmm_call(
            LINUX_SYS_MMAP, 0, GUARD_BYTES + STACK_BYTES, LINUX_PROT_READ | LINUX_PROT_WRITE,
            LINUX_MAP_PRIVATE | LINUX_MAP_ANON | LINUX_MAP_NORESERVE, UINT64_MAX, 0);
        if (at <= 0)
            return 0;
        bare[index] = (gpa_t)at;
    }
    if (vmm_call3(LINUX_SYS_MPROTECT, bare[index], GUARD_BYTES, 0) == -FV_ERESTARTNOINTR)
        return 0;
    return stacks[index] = bare[index];
}

static void state_save(struct guide_save *save, const struct frame *frame)
{
    struct thread *thread = thread_current();
    save->frame = *frame;
    save->frame.orig_rax = -1;
    __asm__ volatile("rdfsbase %0" : "=r"(save->fs_base));
    save->blocked = thread->blocked;
    save->saved_mask = thread->saved_mask;
    save->restore_mask = thread->restore_mask;
    save->deferred = false;
    save->errno_at = save->fs_base + (uint64_t)errno_offset_bytes;
    /* One that is another thread's, too, may change meanwhile: that store would be lost. */
    save->has_errno = !thread->shares_tls && user_get32(&save->errno_value, save->errno_at) == 0;
    xstate_save(save->xstate);
}

static void state_restore(struct guide_save *save, struct frame *frame)
{
    struct thread *thread = thread_current();
    uint32_t now;
    __asm__ volatile("wrfsbase %0" ::"r"(save->fs_base));
    if (save->has_errno && user_get32(&now, save->errno_at) == 0 && now != save->errno_value)
        (void)user_put32(save->errno_at, save->errno_value);
    thread->saved_mask = save->saved_mask;
    thread->restore_mask = save->restore_mask;
    if (thread->blocked != save->blocked)
        signal_set_blocked(save->blocked);
    xstate_restore(save->xstate);
    *frame = save->frame;
    if (save->deferred)
        __atomic_store_n(&thread->vcpu->pending, FV_PENDING_SIGNAL, __ATOMIC_RELEASE);
}

void guide_fault_begin(struct frame *frame)
{
    struct fv_vcpu *vcpu = vcpu_current();
    struct thread *thread = thread_current();
    uint64_t ring_at =
        FV_HINT_BASE + (uint64_t)vcpu->index * FV_HINT_STRIDE; /* the VMM opened it */
    struct fv_hint_ring *ring = (struct fv_hint_ring *)ring_at;
    gpa_t stack = entry != 0 ? stack_get(vcpu->index) : 0;
    thread->hints = ring;
    ring->overdue = 0;
    if (stack == 0) {
        vmm_call3(FV_CALL_GUIDE, FV_GUIDE_FAULT_END, 0, 0);
        return;
    }
    state_save(&saves[vcpu->index], frame);
    xstate_reset();
    thread->in_fault = true;
    ring->inside = FV_INSIDE_FAULT;
    *frame = (struct frame){
        .rdi = (uint64_t)&ring->fault,
        .rip = entry,
        .rsp = stack + GUARD_BYTES + STACK_BYTES,
        .rflags = HANDLER_RFLAGS,
        .cs = FV_CS_USER,
        .ss = FV_SS_USER,
        .orig_rax = -1,
    };
}

void guide_fault_end(struct frame *frame, uint32_t why)
{
    struct thread *thread = thread_current();
    thread->hints->inside = 0;
    thread->in_fault = false;
    vmm_call3(FV_CALL_GUIDE, FV_GUIDE_FAULT_END, why, 0);
    thread->hints->overdue = 0; /* from here on the VMM does not set it for this upcall */
    state_restore(&saves[vcpu_current()->index], frame);
}

static bool on_stack(const struct frame *frame)
{
    return frame->rsp - stacks[vcpu_current()->index] <= GUARD_BYTES + STACK_BYTES;
}

bool guide_fault_escapes(const struct frame *frame)
{
    switch (frame->orig_rax) {
    case SYS_RT_SIGRETURN:
    case SYS_RT_SIGTIMEDWAIT:
    case SYS_SET_TID_ADDRESS:
    case SYS_SET_ROBUST_LIST:
    case SYS_CLONE:
    case SYS_KILL:
    case SYS_RT_SIGQUEUEINFO:
    case SYS_RT_SIGSUSPEND:
    case SYS_SIGNALFD:
    case SYS_SIGNALFD4:
    case SYS_SIGALTSTACK:
    case SYS_TKILL:
    case SYS_TGKILL:
    case SYS_RT_TGSIGQUEUEINFO:
    case SYS_PIDFD_SEND_SIGNAL:
    case SYS_CLONE3:
        return true;
    default:
        return !on_stack(frame);
    }
}

bool guide_fault_defers(struct frame *frame)
{
    struct thread *thread = thread_current();
    if (!thread->in_fault)
        return false;
    if (!on_stack(frame)) {
        guide_fault_end(frame, FV_OFF_CRASH);
        return false;
    }
    saves[thread->vcpu->index].deferred = true;
    __atomic_exchange_n(&thread->vcpu->pending, 0, __ATOMIC_ACQ_REL);
    events_drain();             /* others may be to have them */
    if (thread->restore_mask) { /* a call of the handler's that swapped the mask is over */
        thread->restore_mask = false;
        signal_set_blocked(thread->saved_mask);
    }
    return true;
}
