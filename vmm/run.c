/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The run loop of a vCPU, on its own host thread: enter the guest, look at why it came back, serve
 * that, enter again. The order of the questions matters: a failed KVM_RUN is told apart by errno
 * alone, because kernels before 6.7 leave exit_reason at its old value then.
 */
#include "vmm/machine.h"

#include "farvisor/hints.h"
#include "fault/fault.h"
#include "support.h"
#include "vmm/miss.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#define IO_ROUNDS_MAX  16u
#define AGAIN_PAUSE_NS 1000000L
#define AGAIN_MAX      2000u

void vcpu_fatal(struct vcpu *vcpu, const char *what)
{
    if (vm_end(vcpu->vm, EXIT_FARVISOR))
        message_error("vcpu %u: rip 0x%llx: %s", vcpu->index,
                      (unsigned long long)vcpu->run->s.regs.regs.rip, what);
}

/*
 * Lets KVM finish its half of an I/O instruction, whose result it would otherwise write over
 * registers set meanwhile. The string forms take several rounds. The request to exit stays set, so
 * that a kick meanwhile is not lost; it costs one more turn of the loop.
 */
static void io_complete(struct vcpu *vcpu)
{
    vcpu->run->immediate_exit = 1;
    for (unsigned i = 0; i < IO_ROUNDS_MAX; i++) {
        if (ioctl(vcpu->fd, KVM_RUN, 0) < 0)
            return;
    }
}

/*
 * A second-stage address without a memslot was touched. The address space only hands out backed
 * addresses, so this is a string I/O instruction on absent memory, which KVM emulates: not
 * something a program may do.
 */
static void exit_mmio(struct vcpu *vcpu)
{
    struct kvm_regs at = vcpu->run->s.regs.regs;
    struct fv_trap trap = {
        .vector = 14, .address = vcpu->run->mmio.phys_addr, .signal = SIGBUS, .code = BUS_ADRERR};
    if (trap_in_kernel(vcpu->vm, at.rip)) {
        vcpu_fatal(vcpu, "guest kernel touched an address without memory");
        return;
    }
    io_complete(vcpu);
    trap_raise(vcpu, &at, &trap);
}

static void exit_io(struct vcpu *vcpu)
{
    const struct kvm_run *run = vcpu->run;
    bool out = run->io.direction == KVM_EXIT_IO_OUT && run->io.size == 1 && run->io.count == 1;
    if (out && run->io.port == FV_PORT_CALL) {
        atomic_fetch_add_explicit(&vcpu->calls, 1, memory_order_relaxed);
        call_dispatch(vcpu);
    } else if (out && run->io.port == FV_PORT_HINT) {
        hints_ring_doorbell(vcpu->vm->hints); /* only where KVM does not ring it by itself */
    } else if (out && run->io.port == FV_PORT_TRAP) {
        atomic_fetch_add_explicit(&vcpu->traps, 1, memory_order_relaxed);
        trap_handle(vcpu);
    } else {
        /* IOPL 3 lets the program try; Linux would have refused the instruction. */
        struct kvm_regs at = run->s.regs.regs;
        struct fv_trap trap = {.vector = 13, .signal = SIGSEGV, .code = SI_KERNEL};
        io_complete(vcpu);
        trap_raise(vcpu, &at, &trap);
    }
}

static void exit_internal_error(struct vcpu *vcpu)
{
    char text[96];
    snprintf(text, sizeof(text), "kvm: internal error %u (instruction it cannot emulate?)",
             vcpu->run->internal.suberror);
    vcpu_fatal(vcpu, text);
}

static void exit_handle(struct vcpu *vcpu)
{
    char text[96];
    switch (vcpu->run->exit_reason) {
    case KVM_EXIT_IO:
        exit_io(vcpu);
        break;
    case KVM_EXIT_MMIO:
        exit_mmio(vcpu);
        break;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        break;
    case KVM_EXIT_SHUTDOWN:
        vcpu_fatal(vcpu, "kvm: triple fault");
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        exit_internal_error(vcpu);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        snprintf(text, sizeof(text), "kvm: entry failed, hardware reason 0x%llx",
                 vcpu->run->fail_entry.hardware_entry_failure_reason);
        vcpu_fatal(vcpu, text);
        break;
    default:
        snprintf(text, sizeof(text), "kvm: unexpected exit %u", vcpu->run->exit_reason);
        vcpu_fatal(vcpu, text);
    }
}

/* File contents behind a mapping are gone (truncated, unreadable): SIGBUS where it was touched. */
static void raise_bus(struct vcpu *vcpu)
{
    struct kvm_regs at = vcpu->run->s.regs.regs;
    struct fv_trap trap = {.vector = 14, .address = at.rip, .signal = SIGBUS, .code = BUS_ADRERR};
    struct access accesses[ACCESS_MAX];
    uint8_t code[15];
    if (guestmem_read(vcpu->vm, code, at.rip, sizeof(code)) == 0 &&
        address_decode(vcpu, &at, &vcpu->run->s.regs.sregs, code, sizeof(code), accesses) > 0)
        trap.address = accesses[0].gpa;
    trap_raise(vcpu, &at, &trap);
}

/*
 * KVM asks to be called again. Since Linux 6.14 it also says so while it is refused the thread that
 * it makes at the first entry (RLIMIT_NPROC, a control group's pids.max), which may be for ever.
 * Returns the error that it is, once there was nothing else for some two seconds.
 */
static int run_again(struct vcpu *vcpu)
{
    static const struct timespec pause = {.tv_nsec = AGAIN_PAUSE_NS};
    if (vcpu->agains++) /* counted, not timed: it may have been stopped itself */
        nanosleep(&pause, NULL);
    return vcpu->agains < AGAIN_MAX ? EINTR : EAGAIN;
}

static void run_failed(struct vcpu *vcpu, int error)
{
    char text[96];
    if (error == EAGAIN)
        error = run_again(vcpu);
    else
        vcpu->agains = 0;
    switch (error) {
    case EINTR:
        /* Cleared before anything is looked at: a kick from here on makes the next entry return. */
        vcpu->run->immediate_exit = 0;
        atomic_store(&vcpu->kicked, 0);
        /* uffd mode found a page without contents: this thread's instruction says which. */
        if (atomic_exchange(&vcpu->look_again, false) && miss_resolve(vcpu) == 1)
            raise_bus(vcpu); /* the guest kernel looks at what is pending by itself */
        else
            trap_deliver_pending(vcpu);
        break;
    case EFAULT:
        atomic_store(&vcpu->look_again, false); /* looks now */
        if (!vcpu->fault)
            vcpu_fatal(vcpu, "kvm: memory that is always here cannot be reached");
        else if (miss_resolve(vcpu) == 1)
            raise_bus(vcpu);
        break;
    default:
        snprintf(text, sizeof(text), "kvm: run: %s%s", strerror(error),
                 error == EAGAIN ? " (threads: ulimit -u, pids.max)" : "");
        vcpu_fatal(vcpu, text);
    }
}

void vcpu_loop(struct vcpu *vcpu)
{
    struct fault_context *fault = vcpu->fault;
    vcpu->leaving = false;
    while (!atomic_load(&vcpu->vm->ending) && !vcpu->leaving) {
        if (fault)
            fault_context_enter(fault);
        int error = ioctl(vcpu->fd, KVM_RUN, 0) < 0 ? errno : 0;
        if (fault)
            fault_context_leave(fault);
        atomic_fetch_add_explicit(&vcpu->exits, 1, memory_order_relaxed);
        if (error) {
            run_failed(vcpu, error);
        } else {
            vcpu->agains = 0;
            exit_handle(vcpu);
        }
    }
}
