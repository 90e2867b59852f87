/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals on the way back to the program: handlers, default actions, and what becomes of the system
 * call that a signal interrupted.
 */
#include "guest-os/kernel.h"

#define SYSCALL_BYTES 2 /* length of the `syscall` instruction */

static const char *const names[] = {
    "0",    "HUP",  "INT",  "QUIT", "ILL",    "TRAP",   "ABRT",  "BUS",  "FPE",  "KILL", "USR1",
    "SEGV", "USR2", "PIPE", "ALRM", "TERM",   "STKFLT", "CHLD",  "CONT", "STOP", "TSTP", "TTIN",
    "TTOU", "URG",  "XCPU", "XFSZ", "VTALRM", "PROF",   "WINCH", "IO",   "PWR",  "SYS",
};

enum default_action { ACTION_TERMINATE, ACTION_CORE, ACTION_IGNORE, ACTION_STOP };

static enum default_action default_action(unsigned signal)
{
    switch (signal) {
    case LINUX_SIGCHLD:
    case LINUX_SIGURG:
    case LINUX_SIGWINCH:
    case LINUX_SIGCONT:
        return ACTION_IGNORE;
    case LINUX_SIGSTOP:
    case LINUX_SIGTSTP:
    case LINUX_SIGTTIN:
    case LINUX_SIGTTOU:
        return ACTION_STOP;
    case LINUX_SIGQUIT:
    case LINUX_SIGILL:
    case LINUX_SIGTRAP:
    case LINUX_SIGABRT:
    case LINUX_SIGBUS:
    case LINUX_SIGFPE:
    case LINUX_SIGSEGV:
    case LINUX_SIGXCPU:
    case LINUX_SIGXFSZ:
    case LINUX_SIGSYS:
        return ACTION_CORE;
    default:
        return ACTION_TERMINATE;
    }
}

bool signal_ends_program(void)
{
    bool ends = false;
    lock_take(&process.lock);
    const struct thread *thread = thread_current();
    uint64_t set = (thread->pending.set | process.pending.set) & ~thread->blocked;
    for (; set != 0 && !ends; set &= set - 1) {
        unsigned signal = (unsigned)__builtin_ctzll(set) + 1;
        enum default_action action = default_action(signal);
        ends = process.actions[signal].handler == LINUX_SIG_DFL &&
               (action == ACTION_TERMINATE || action == ACTION_CORE);
    }
    lock_release(&process.lock);
    return ends;
}

static void frame_to_regs(const struct frame *frame, struct fv_regs *regs)
{
    *regs = (struct fv_regs){
        .rax = frame->rax,
        .rbx = frame->rbx,
        .rcx = frame->rcx,
        .rdx = frame->rdx,
        .rsi = frame->rsi,
        .rdi = frame->rdi,
        .rbp = frame->rbp,
        .rsp = frame->rsp,
        .r8 = frame->r8,
        .r9 = frame->r9,
        .r10 = frame->r10,
        .r11 = frame->r11,
        .r12 = frame->r12,
        .r13 = frame->r13,
        .r14 = frame->r14,
        .r15 = frame->r15,
        .rip = frame->rip,
        .rflags = frame->rflags,
    };
}

static void frame_from_regs(struct frame *frame, const struct fv_regs *regs)
{
    *frame = (struct frame){
        .rax = regs->rax,
        .rbx = regs->rbx,
        .rcx = regs->rcx,
        .rdx = regs->rdx,
        .rsi = regs->rsi,
        .rdi = regs->rdi,
        .rbp = regs->rbp,
        .rsp = regs->rsp,
        .r8 = regs->r8,
        .r9 = regs->r9,
        .r10 = regs->r10,
        .r11 = regs->r11,
        .r12 = regs->r12,
        .r13 = regs->r13,
        .r14 = regs->r14,
        .r15 = regs->r15,
        .rip = regs->rip,
        .rflags = regs->rflags,
        .cs = FV_CS_USER,
        .ss = FV_SS_USER,
        .orig_rax = -1,
    };
}

static bool is_fault(const struct linux_siginfo *info)
{
    return info->code > 0 && (info->signal == LINUX_SIGSEGV || info->signal == LINUX_SIGBUS ||
                              info->signal == LINUX_SIGFPE || info->signal == LINUX_SIGILL ||
                              info->signal == LINUX_SIGTRAP);
}

static _Noreturn void die(const struct frame *frame, const struct linux_siginfo *info)
{
    unsigned signal = (unsigned)info->signal;
    bool core = default_action(signal) == ACTION_CORE;
    if (core) {
        struct fv_regs regs;
        frame_to_regs(frame, &regs);
        vmm_call(FV_CALL_CRASH, signal, (uint64_t)(int64_t)info->code,
                 is_fault(info) ? info->address : 0, (uint64_t)&regs, 0, 0);
    }
    vmm_exit_group(0, signal, core);
}

/*
 * The interrupted call goes on by restart_syscall. A handler may still run before that, in which
 * another call may be interrupted: so the handler ends this one, with the result that it had if the
 * handler had run at once.
 */
static void resume_arrange(struct frame *frame, uint64_t unless)
{
    struct thread *thread = thread_current();
    thread->resumes_at = frame->rip - SYSCALL_BYTES;
    thread->resumes_unless = unless;
    if ((uint64_t)frame->orig_rax != LINUX_SYS_RESTART)
        thread->resumes_number = (uint32_t)frame->orig_rax;
    frame->rax = LINUX_SYS_RESTART;
    frame->rip = thread->resumes_at;
}

static void resume_end(struct frame *frame)
{
    struct thread *thread = thread_current();
    if (thread->resumes_at != 0 && frame->rip == thread->resumes_at &&
        frame->rax == LINUX_SYS_RESTART) {
        frame->rip += SYSCALL_BYTES;
        frame->rax = thread->resumes_unless;
        thread->resumes_masked = false;
    }
    thread->resumes_at = 0;
}

/* The interrupted call, if there is one to go back to, given that a handler will or won't run. */
static void finish_call(struct frame *frame, const struct linux_sigaction *action)
{
    if (frame->orig_rax < 0)
        return;
    uint64_t number = (uint64_t)frame->orig_rax;
    switch ((int64_t)frame->rax) {
    case -FV_ERESTART_SO_FAR:
        if (action != NULL) {
            frame->rax = thread_current()->so_far;
            break;
        }
        resume_arrange(frame, thread_current()->so_far);
        break;
    case -LINUX_ERESTART_RESTARTBLOCK:
        if (action == NULL) {
            resume_arrange(frame, (uint64_t)-LINUX_EINTR);
            break;
        }
        /* fall through */
    case -LINUX_ERESTARTNOHAND:
        if (action != NULL) {
            thread_current()->resumes_masked = false;
            frame->rax = (uint64_t)-LINUX_EINTR;
            break;
        }
        goto restart;
    case -LINUX_ERESTARTSYS:
        if (action != NULL && (action->flags & LINUX_SA_RESTART) == 0) {
            frame->rax = (uint64_t)-LINUX_EINTR;
            break;
        }
        /* fall through */
    case -LINUX_ERESTARTNOINTR:
    restart:
        frame->rax = number;
        frame->rip -= SYSCALL_BYTES;
        break;
    default:
        break;
    }
    frame->orig_rax = -1;
}

static void run_handler(struct frame *frame, const struct linux_siginfo *info,
                        const struct linux_sigaction *action, const struct fv_trap *trap)
{
    struct thread *thread = thread_current();
    finish_call(frame, action);
    resume_end(frame);
    if (signal_frame_push(frame, info, action, trap) != 0) {
        /* No room for the frame. SIGSEGV's own handler may have a stack of its own. */
        struct linux_siginfo fatal = {.signal = LINUX_SIGSEGV, .code = LINUX_SI_KERNEL};
        if (info->signal == LINUX_SIGSEGV)
            die(frame, &fatal);
        signal_force(frame, &fatal, NULL);
        return;
    }
    thread->restore_mask = false;
    uint64_t mask = thread->blocked | action->mask;
    if ((action->flags & LINUX_SA_NODEFER) == 0)
        mask |= signal_bit((unsigned)info->signal);
    signal_set_blocked(mask);
}

/* A copy of the action; SA_RESETHAND takes effect by the taking. */
static void action_take(unsigned signal, struct linux_sigaction *action)
{
    lock_take(&process.lock);
    *action = process.actions[signal];
    if (action->handler > LINUX_SIG_IGN && (action->flags & LINUX_SA_RESETHAND) != 0)
        process.actions[signal].handler = LINUX_SIG_DFL;
    lock_release(&process.lock);
}

static void deliver(struct frame *frame, const struct linux_siginfo *info)
{
    unsigned signal = (unsigned)info->signal;
    struct linux_sigaction action;
    action_take(signal, &action);
    if (action.handler == LINUX_SIG_IGN)
        return;
    if (action.handler != LINUX_SIG_DFL) {
        run_handler(frame, info, &action, NULL);
        return;
    }
    switch (default_action(signal)) {
    case ACTION_IGNORE:
        return;
    case ACTION_STOP:
        warn("signal SIG", names[signal], " ignored: a guest cannot be stopped");
        return;
    default:
        die(frame, info);
    }
}

void signal_deliver_pending(struct frame *frame)
{
    struct thread *thread = thread_current();
    struct linux_siginfo info;
    bool again;
    /* Before handlers: they would run on the guide's stack and return into it. */
    bool rescued = guide_rescue(frame, false);
    if (guide_fault_defers(frame)) {
        finish_call(frame, NULL);
        return;
    }
    do {
        __atomic_exchange_n(&thread->vcpu->pending, 0, __ATOMIC_ACQ_REL);
        events_drain();
        while (signal_take(~thread->blocked, &info) != 0)
            deliver(frame, &info);
        again = thread->restore_mask;
        if (again) {
            /* No handler ran: the mask of before the call is valid again, and may let one through.
             */
            thread->restore_mask = false;
            signal_set_blocked(thread->saved_mask);
        }
    } while (again);
    if (!rescued)
        finish_call(frame, NULL);
    else
        thread->resumes_masked = false; /* the call was the guide's, and is not gone on with */
}

void signal_force(struct frame *frame, struct linux_siginfo *info, const struct fv_trap *trap)
{
    struct linux_sigaction action;
    unsigned signal = (unsigned)info->signal;
    if (guide_rescue(frame, true))
        return;
    action_take(signal, &action);
    bool blocked = (thread_current()->blocked & signal_bit(signal)) != 0;
    if (blocked || action.handler <= LINUX_SIG_IGN)
        die(frame, info);
    run_handler(frame, info, &action, trap);
}

#define VECTOR_STACK_SEGMENT 12
#define VECTOR_PROTECTION    13

void upcall_dispatch(struct frame *frame)
{
    struct fv_vcpu *vcpu = vcpu_current();
    frame_from_regs(frame, &vcpu->saved);
    if (vcpu->upcall_reason == FV_UPCALL_FAULT)
        guide_fault_begin(frame);
    if (vcpu->upcall_reason != FV_UPCALL_TRAP)
        return; /* the way out looks at `pending` */
    struct fv_trap trap = vcpu->trap;
    struct linux_siginfo info = {.signal = (int32_t)trap.signal, .code = trap.code};
    if (trap.signal == 0 || trap.signal > LINUX_NSIG)
        info.signal = LINUX_SIGSEGV;
    /* The CPU does not say which address a general protection fault is about; Linux says 0. */
    if (trap.vector != VECTOR_PROTECTION && trap.vector != VECTOR_STACK_SEGMENT)
        info.address = trap.address;
    signal_force(frame, &info, &trap);
}
