/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hypercall dispatch (docs/hypercalls.md). The request is copied out of the shared page once and
 * only the copy is looked at, because another thread of the guest may be changing the original.
 * Runs on the calling vCPU's thread; results travel through the page, so no register is touched.
 */
#include "vmm/machine.h"

#include "support.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

#define WARNING_BYTES_MAX 200u
#define WARNINGS_MAX      20u /* a run: a program that keeps asking for fork fills no terminal */

static int64_t call_exit_group(struct vcpu *vcpu, const uint64_t args[6])
{
    unsigned signal = (unsigned)args[1] & 0x7f;
    vcpu->leaving = true;
    vm_end(vcpu->vm, signal ? EXIT_SIGNAL_BASE + (int)signal : (int)(args[0] & 0xff));
    return 0;
}

static int64_t call_kick(struct vcpu *vcpu, const uint64_t args[6])
{
    struct vcpu *target = vcpu_by_tid(vcpu->vm, (pid_t)args[0]);
    if (!target)
        return -ESRCH;
    vcpu_kick(target);
    return 0;
}

static int64_t call_brk_base(struct vcpu *vcpu, const uint64_t args[6])
{
    if (args[0] < FV_USER_MIN || args[0] >= FV_KERNEL_BASE)
        return -EINVAL;
    mm_set_brk_base(vcpu->vm->mm, args[0]);
    return 0;
}

static int64_t call_crash(struct vcpu *vcpu, const uint64_t args[6])
{
    struct fv_regs regs;
    int error = guestmem_read(vcpu->vm, &regs, args[3], sizeof(regs));
    if (!error)
        crash_report(vcpu, (int)args[0], (int)args[1], args[2], &regs);
    return error;
}

static int64_t call_warn(struct vcpu *vcpu, const uint64_t args[6])
{
    static atomic_uint warnings;
    char text[WARNING_BYTES_MAX + 1];
    size_t bytes = args[1] < WARNING_BYTES_MAX ? (size_t)args[1] : WARNING_BYTES_MAX;
    int error = guestmem_read(vcpu->vm, text, args[0], bytes);
    if (error)
        return error;
    /* One line of plain text, whatever the guest sends: it ends up on somebody's terminal. */
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] < ' ' || text[i] > '~')
            text[i] = i + 1 == bytes ? '\0' : ' ';
    }
    text[bytes] = '\0';
    unsigned before = atomic_fetch_add(&warnings, 1);
    if (before < WARNINGS_MAX && args[2])
        message_error("guest: %s", text); /* why it ends: said even if quiet */
    else if (before < WARNINGS_MAX)
        message_warning("guest: %s%s", text,
                        before + 1 == WARNINGS_MAX ? " (further warnings are left out)" : "");
    return 0;
}

static int64_t call_own(struct vcpu *vcpu, uint32_t number, const uint64_t args[6])
{
    switch (number) {
    case FV_CALL_THREAD_CREATE:
        return vcpu_thread_create(vcpu, args[0]);
    case FV_CALL_THREAD_EXIT:
        vcpu->leaving = true;
        return 0;
    case FV_CALL_EXIT_GROUP:
        return call_exit_group(vcpu, args);
    case FV_CALL_KICK:
        return call_kick(vcpu, args);
    case FV_CALL_BRK_BASE:
        return call_brk_base(vcpu, args);
    case FV_CALL_TIMER_SET:
        return timers_set(vcpu, args);
    case FV_CALL_TIMER_GET:
        return timers_get(vcpu, args);
    case FV_CALL_CRASH:
        return call_crash(vcpu, args);
    case FV_CALL_WARN:
        return call_warn(vcpu, args);
    case FV_CALL_GUIDE:
        return guide_call(vcpu, args);
    case FV_CALL_SIGNALFD:
        return hostio_signalfd(vcpu, args);
    case FV_CALL_FINISH:
        return poller_finish(vcpu);
    default:
        return -ENOSYS;
    }
}

static bool is_memory_call(uint32_t number)
{
    switch (number) {
    case SYS_mmap:
    case SYS_mprotect:
    case SYS_munmap:
    case SYS_brk:
    case SYS_mremap:
    case SYS_msync:
    case SYS_mincore:
    case SYS_madvise:
    case SYS_mlock:
    case SYS_mlock2:
    case SYS_munlock:
    case SYS_mlockall:
    case SYS_munlockall:
    case SYS_shmget:
    case SYS_shmat:
    case SYS_shmdt:
    case SYS_shmctl:
        return true;
    default:
        return false;
    }
}

void call_dispatch(struct vcpu *vcpu)
{
    struct fv_call call;
    memcpy(&call, &vcpu->page->call, sizeof(call));
    /*
     * An event that came after the guest kernel last looked must not be slept through: the call
     * acts as if the kick arrived now, and the next entry clears it again.
     */
    if (__atomic_load_n(&vcpu->page->pending, __ATOMIC_SEQ_CST)) {
        atomic_store(&vcpu->kicked, 1);
        vcpu->run->immediate_exit = 1;
    }
    if (fv_call_postable(call.number))
        poller_note_exit(vcpu);
    hostio_settle(vcpu);
    int64_t result;
    if (call.number > FV_CALL_LINUX_MAX)
        result = call_own(vcpu, call.number, call.args);
    else if (is_memory_call(call.number))
        result = mm_call(vcpu, call.number, call.args);
    else
        result = hostio_call(vcpu, call.number, call.args);
    vcpu->page->call.result = result;
}
