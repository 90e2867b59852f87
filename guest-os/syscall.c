/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System call dispatch. syscalls.def is the one list of what is answered where; numbers that are
 * not in it do not exist here, as numbers beyond a kernel's table do not on Linux.
 */
#include "guest-os/kernel.h"

#define SYSCALLS_MAX 512

struct entry {
    const char *name;
    syscall_fn *handler;
};

static int64_t refuse(struct frame *frame);

static const struct entry entries[SYSCALLS_MAX] = {
#define GUEST(number, name, handler, note) [number] = {#name, handler},
#define VMM(number, name)                  [number] = {#name, syscall_forward},
#define REFUSED(number, name, note)        [number] = {#name, refuse},
#include "guest-os/syscalls.def"
#undef GUEST
#undef VMM
#undef REFUSED
};

bool syscall_was_interrupted(int64_t result)
{
    return result <= -LINUX_ERESTARTSYS && result >= -FV_ERESTART_SO_FAR;
}

/*
 * A kick need not have been for this thread: what came may be another's, or be blocked until the
 * call is over. Linux would not have come out of its wait for that. So it is asked for again from
 * here, and not by the program's instruction anew, before which a handler could run: the call would
 * wait again, though that handler should have ended it.
 */
static int64_t forward(const struct frame *frame, bool polls)
{
    uint32_t number = (uint32_t)frame->orig_rax;
    for (;;) {
        if (polls)
            signal_fd_show();
        int64_t result =
            vmm_call(number, frame->rdi, frame->rsi, frame->rdx, frame->r10, frame->r8, frame->r9);
        if (result == -FV_ERESTART_SO_FAR) /* at once: a look may make calls */
            thread_current()->so_far = vcpu_current()->call.args[0];
        if (!syscall_was_interrupted(result) || signal_look())
            return result;
        if (result == -LINUX_ERESTART_RESTARTBLOCK || result == -FV_ERESTART_SO_FAR)
            number = LINUX_SYS_RESTART;
    }
}

/* Does it look whether descriptors are ready, or may it go on with a call that does? */
static bool is_poll(uint32_t number)
{
    switch (number) {
    case LINUX_SYS_POLL:
    case LINUX_SYS_SELECT:
    case LINUX_SYS_RESTART:
    case LINUX_SYS_EPOLL_WAIT:
    case LINUX_SYS_PSELECT6:
    case LINUX_SYS_PPOLL:
    case LINUX_SYS_EPOLL_PWAIT:
    case LINUX_SYS_EPOLL_PWAIT2:
        return true;
    default:
        return false;
    }
}

int64_t syscall_forward(struct frame *frame)
{
    if (!is_poll((uint32_t)frame->orig_rax))
        return forward(frame, false);
    signal_fd_poll(true);
    int64_t result = forward(frame, true);
    signal_fd_poll(false);
    return result;
}

int64_t syscall_refuse(struct frame *frame, const char *name)
{
    static atomic_uint warned[SYSCALLS_MAX];
    if (atomic_exchange(&warned[frame->orig_rax], 1) == 0)
        warn(name, ": the program asked for what a guest does not have", " (it was told ENOSYS)");
    return -LINUX_ENOSYS;
}

static int64_t refuse(struct frame *frame)
{
    return syscall_refuse(frame, entries[frame->orig_rax].name);
}

/* Writing where nobody reads: Linux raises SIGPIPE before the call returns. */
static void raise_pipe(void)
{
    struct linux_siginfo info = {.signal = LINUX_SIGPIPE,
                                 .code = LINUX_SI_USER,
                                 .sent.pid = process.pid,
                                 .sent.uid = process.uid};
    signal_send(thread_current()->tid, &info);
}

int64_t sys_write_signalling(struct frame *frame)
{
    int64_t result = syscall_forward(frame);
    if (result == -LINUX_EPIPE)
        raise_pipe();
    return result;
}

#define MSG_NOSIGNAL 0x4000

int64_t syscall_sendmmsg_told(const struct frame *frame, int64_t result)
{
    bool broken = result == -LINUX_EPIPE || (result > 0 && (result & FV_SENDMMSG_PIPE) != 0);
    if (broken && (frame->r10 & MSG_NOSIGNAL) == 0)
        raise_pipe();
    return result > 0 ? result & ~FV_SENDMMSG_PIPE : result;
}

int64_t sys_sendmmsg(struct frame *frame)
{
    return syscall_sendmmsg_told(frame, syscall_forward(frame));
}

void syscall_dispatch(struct frame *frame)
{
    uint64_t number = (uint32_t)frame->orig_rax; /* as Linux: eax */
    int64_t result = -LINUX_ENOSYS;
    frame->orig_rax = (int64_t)number;
    if (thread_current()->in_fault && guide_fault_escapes(frame)) {
        (void)guide_rescue(frame, true);
        return;
    }
    if (number < SYSCALLS_MAX && entries[number].handler != NULL) {
        result = entries[number].handler(frame);
    } else if (number == FV_SYS_GUIDE) {
        result = sys_guide(frame);
    } else {
        frame->orig_rax = -1;
    }
    frame->rax = (uint64_t)result;
    /* Whether it starts again is decided where signals are delivered. */
    if (syscall_was_interrupted(result))
        __atomic_store_n(&vcpu_current()->pending, FV_PENDING_SIGNAL, __ATOMIC_RELEASE);
}
