/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signal frames exactly as Linux lays them out on x86-64 (arch/x86/kernel/signal.c and
 * kernel/fpu/signal.c of Linux): struct rt_sigframe, above it the XSAVE area with its magic words,
 * which unwinders, debuggers and handlers that edit their context rely on.
 */
#include "guest-os/kernel.h"

#define RED_ZONE_BYTES 128
#define XSAVE_ALIGN    64ULL
#define MAGIC2_BYTES   4
#define FXSAVE_BYTES   512

/* Flags a handler may hand back: carry, parity, adjust, zero, sign, trap, direction, overflow,
 * resume, alignment check. */
#define RFLAGS_USER   0x50dd5ULL
#define RFLAGS_FIXED  0x202ULL
#define RFLAGS_DF     0x400ULL
#define RFLAGS_TF     0x100ULL
#define RFLAGS_RF     0x10000ULL
#define ADDRESS_LIMIT 0x800000000000ULL

uint32_t signal_frame_bytes(void)
{
    return (uint32_t)(sizeof(struct linux_rt_sigframe) + xstate_bytes() + MAGIC2_BYTES +
                      XSAVE_ALIGN + 16 + RED_ZONE_BYTES);
}

static bool in_altstack(const struct thread *thread, uint64_t rsp)
{
    return rsp > thread->altstack.sp && rsp - thread->altstack.sp <= thread->altstack.bytes;
}

static bool on_altstack(const struct thread *thread, uint64_t rsp)
{
    return (thread->altstack.flags & LINUX_SS_AUTODISARM) == 0 && in_altstack(thread, rsp);
}

struct linux_stack signal_altstack_at(const struct thread *thread, uint64_t rsp)
{
    struct linux_stack stack = thread->altstack;
    if (stack.bytes == 0)
        stack.flags |= LINUX_SS_DISABLE;
    else if (on_altstack(thread, rsp))
        stack.flags |= LINUX_SS_ONSTACK;
    return stack;
}

static int push_xstate(gpa_t at)
{
    _Alignas(XSAVE_ALIGN) uint8_t area[XSTATE_MAX];
    struct linux_fpx_sw_bytes sw = {
        .magic1 = LINUX_FP_MAGIC1,
        .extended_bytes = xstate_bytes() + MAGIC2_BYTES,
        .features = xstate_features(),
        .xstate_bytes = xstate_bytes(),
    };
    memset(area, 0, xstate_bytes()); /* parts in their first state are not written by XSAVE */
    xstate_save(area);
    memcpy(area + LINUX_FPX_SW_OFFSET, &sw, sizeof(sw));
    if (user_write(at, area, xstate_bytes()) != 0)
        return -LINUX_EFAULT;
    return user_put32(at + xstate_bytes(), LINUX_FP_MAGIC2);
}

static void fill_context(struct linux_sigcontext *to, const struct frame *from,
                         const struct fv_trap *trap, gpa_t fpstate)
{
    *to = (struct linux_sigcontext){
        .r8 = from->r8,
        .r9 = from->r9,
        .r10 = from->r10,
        .r11 = from->r11,
        .r12 = from->r12,
        .r13 = from->r13,
        .r14 = from->r14,
        .r15 = from->r15,
        .rdi = from->rdi,
        .rsi = from->rsi,
        .rbp = from->rbp,
        .rbx = from->rbx,
        .rdx = from->rdx,
        .rax = from->rax,
        .rcx = from->rcx,
        .rsp = from->rsp,
        .rip = from->rip,
        .rflags = from->rflags,
        .cs = FV_CS_USER,
        .ss = FV_SS_USER,
        .fpstate = fpstate,
    };
    if (trap != NULL) {
        to->err = trap->error_code;
        to->trapno = trap->vector;
        to->cr2 = trap->vector == 14 ? trap->address : 0;
    }
}

int signal_frame_push(struct frame *frame, const struct linux_siginfo *info,
                      const struct linux_sigaction *action, const struct fv_trap *trap)
{
    struct thread *thread = thread_current();
    if ((action->flags & LINUX_SA_RESTORER) == 0)
        return -LINUX_EFAULT; /* x86-64 has no other way back */
    gpa_t sp = frame->rsp - RED_ZONE_BYTES;
    bool alternate = on_altstack(thread, frame->rsp);
    if ((action->flags & LINUX_SA_ONSTACK) != 0 && !alternate && thread->altstack.bytes != 0) {
        sp = thread->altstack.sp + thread->altstack.bytes;
        alternate = true;
    }
    gpa_t fpstate = (sp - xstate_bytes() - MAGIC2_BYTES) & ~(XSAVE_ALIGN - 1);
    gpa_t at = ((fpstate - sizeof(struct linux_rt_sigframe)) & ~15ULL) - 8;
    if (alternate && !in_altstack(thread, at))
        return -LINUX_EFAULT; /* what lies below it is not a stack */

    struct linux_rt_sigframe out = {
        .return_address = action->restorer,
        .uc.flags = LINUX_UC_FP_XSTATE | LINUX_UC_SIGCONTEXT_SS | LINUX_UC_STRICT_RESTORE_SS,
        .uc.stack = signal_altstack_at(thread, frame->rsp),
        .uc.sigmask = thread->restore_mask ? thread->saved_mask : thread->blocked,
        .info = *info,
    };
    fill_context(&out.uc.mcontext, frame, trap, fpstate);
    if (push_xstate(fpstate) != 0 || user_write(at, &out, sizeof(out)) != 0)
        return -LINUX_EFAULT;
    if ((thread->altstack.flags & LINUX_SS_AUTODISARM) != 0)
        thread->altstack = (struct linux_stack){.flags = LINUX_SS_DISABLE};

    frame->rdi = (uint64_t)info->signal;
    frame->rsi = at + offsetof(struct linux_rt_sigframe, info);
    frame->rdx = at + offsetof(struct linux_rt_sigframe, uc);
    frame->rax = 0;
    frame->rsp = at;
    frame->rip = action->handler;
    frame->rflags &= ~(RFLAGS_DF | RFLAGS_TF | RFLAGS_RF);
    frame->orig_rax = -1;
    xstate_reset();
    return frame->rip < ADDRESS_LIMIT ? 0 : -LINUX_EFAULT;
}

static int pop_xstate(gpa_t at)
{
    _Alignas(XSAVE_ALIGN) uint8_t area[XSTATE_MAX];
    struct linux_fpx_sw_bytes sw;
    uint32_t magic2;
    if (at == 0) {
        xstate_reset();
        return 0;
    }
    memset(area, 0, xstate_bytes());
    if (at % XSAVE_ALIGN != 0 || user_read(area, at, FXSAVE_BYTES) != 0)
        return -LINUX_EFAULT;
    memcpy(&sw, area + LINUX_FPX_SW_OFFSET, sizeof(sw));
    bool extended = sw.magic1 == LINUX_FP_MAGIC1 && sw.xstate_bytes == xstate_bytes() &&
                    user_get32(&magic2, at + xstate_bytes()) == 0 && magic2 == LINUX_FP_MAGIC2;
    if (extended) {
        if (user_read(area, at, xstate_bytes()) != 0)
            return -LINUX_EFAULT;
    } else {
        area[FXSAVE_BYTES] = 3; /* only x87 and SSE are there */
    }
    xstate_restore(area);
    return 0;
}

static void restore_context(struct frame *to, const struct linux_sigcontext *from)
{
    *to = (struct frame){
        .r8 = from->r8,
        .r9 = from->r9,
        .r10 = from->r10,
        .r11 = from->r11,
        .r12 = from->r12,
        .r13 = from->r13,
        .r14 = from->r14,
        .r15 = from->r15,
        .rdi = from->rdi,
        .rsi = from->rsi,
        .rbp = from->rbp,
        .rbx = from->rbx,
        .rdx = from->rdx,
        .rax = from->rax,
        .rcx = from->rcx,
        .rsp = from->rsp,
        .rip = from->rip,
        .cs = FV_CS_USER,
        .ss = FV_SS_USER,
        .orig_rax = -1,
        .rflags = (from->rflags & RFLAGS_USER) | RFLAGS_FIXED,
    };
}

int64_t sys_rt_sigreturn(struct frame *frame)
{
    struct thread *thread = thread_current();
    struct linux_ucontext uc;
    gpa_t at = frame->rsp - 8 + offsetof(struct linux_rt_sigframe, uc);
    if (user_read(&uc, at, sizeof(uc)) != 0 || pop_xstate(uc.mcontext.fpstate) != 0 ||
        uc.mcontext.rip >= ADDRESS_LIMIT) {
        struct linux_siginfo info = {.signal = LINUX_SIGSEGV, .code = LINUX_SI_KERNEL};
        signal_force(frame, &info, NULL);
        return (int64_t)frame->rax;
    }
    restore_context(frame, &uc.mcontext);
    if (!on_altstack(thread, frame->rsp)) {
        thread->altstack = uc.stack;
        thread->altstack.flags &= LINUX_SS_AUTODISARM;
        if ((uc.stack.flags & LINUX_SS_DISABLE) != 0)
            thread->altstack.sp = thread->altstack.bytes = 0;
    }
    signal_set_blocked(uc.sigmask);
    return (int64_t)frame->rax;
}
