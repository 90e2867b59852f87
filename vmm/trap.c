/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exceptions and upcalls. An exception enters a vector stub in ring 0 on the vCPU's trap stack,
 * which knocks; the stub never goes on: either the interrupted code is resumed exactly where it
 * was, or the guest kernel is (a fixup), or the guest kernel's upcall entry runs with the program's
 * registers in fv_vcpu.saved. All three mean going back to ring 3 here. Own vCPU thread only.
 */
#include "vmm/machine.h"

#include "support.h"

#include <string.h>
#include <sys/ioctl.h>

#define VECTOR_DEBUG      1
#define VECTOR_UNDEFINED  6
#define VECTOR_PROTECTION 13
#define VECTOR_X87        16
#define VECTOR_PAGE       14
#define VECTOR_SIMD       19
#define RFLAGS_IOPL3      0x3000ULL
#define RFLAGS_IF         0x200ULL
#define RFLAGS_FIXED      0x2ULL
#define RFLAGS_TF         0x100ULL

/* What a vector stub leaves on the trap stack. */
struct trap_frame {
    uint64_t vector, error_code;
    uint64_t rip, cs, rflags, rsp, ss;
};

bool trap_in_kernel(const struct vm *vm, gpa_t rip)
{
    return rip >= vm->image.text_begin && rip < vm->image.text_end;
}

/* Ring 3 at the given place; the other registers keep what they have in run->s.regs. */
static void resume(struct vcpu *vcpu, uint64_t rip, uint64_t rsp, uint64_t rflags)
{
    struct kvm_sync_regs *sync = &vcpu->run->s.regs;
    sync->regs.rip = rip;
    sync->regs.rsp = rsp;
    sync->regs.rflags = rflags | RFLAGS_IOPL3 | RFLAGS_IF | RFLAGS_FIXED;
    system_tables_ring3(&sync->sregs);
    vcpu->run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
}

void trap_upcall(struct vcpu *vcpu, const struct kvm_regs *at, uint32_t reason)
{
    struct fv_vcpu *page = vcpu->page;
    page->saved = (struct fv_regs){
        .rax = at->rax,
        .rbx = at->rbx,
        .rcx = at->rcx,
        .rdx = at->rdx,
        .rsi = at->rsi,
        .rdi = at->rdi,
        .rbp = at->rbp,
        .rsp = at->rsp,
        .r8 = at->r8,
        .r9 = at->r9,
        .r10 = at->r10,
        .r11 = at->r11,
        .r12 = at->r12,
        .r13 = at->r13,
        .r14 = at->r14,
        .r15 = at->r15,
        .rip = at->rip,
        /* As the program knows them: IF set (PVM pushes it clear), IOPL 0. */
        .rflags = (at->rflags & ~RFLAGS_IOPL3) | RFLAGS_IF,
    };
    page->upcall_reason = reason;
    gpa_t stack = FV_VCPU_BASE + (gpa_t)(vcpu->index + 1) * FV_VCPU_STRIDE;
    resume(vcpu, vcpu->vm->image.upcall_entry, stack, 0);
}

/* Copied at each look-up from the image's own table, so the guest gains nothing by changing it. */
static bool fixup_find(const struct vm *vm, gpa_t rip, gpa_t *resume_rip)
{
    const struct fv_fixup *table = ept_hva(vm->ept, vm->image.fixups);
    for (uint64_t i = 0; i < vm->image.fixup_count; i++) {
        if (table[i].fault_rip == rip) {
            *resume_rip = table[i].resume_rip;
            return true;
        }
    }
    return false;
}

static void kernel_fault(struct vcpu *vcpu, const struct kvm_regs *at, const struct fv_trap *trap)
{
    gpa_t rip;
    if (fixup_find(vcpu->vm, at->rip, &rip)) {
        resume(vcpu, rip, at->rsp, at->rflags);
        return;
    }
    if (vm_end(vcpu->vm, EXIT_FARVISOR))
        message_error("guest kernel: exception %u (error 0x%x) at rip 0x%llx, address 0x%llx",
                      trap->vector, trap->error_code, (unsigned long long)at->rip,
                      (unsigned long long)trap->address);
}

void trap_raise(struct vcpu *vcpu, const struct kvm_regs *at, const struct fv_trap *trap)
{
    vcpu->run->s.regs.regs = *at;
    if (trap_in_kernel(vcpu->vm, at->rip)) {
        kernel_fault(vcpu, at, trap);
        return;
    }
    vcpu->page->trap = *trap;
    trap_upcall(vcpu, at, FV_UPCALL_TRAP);
}

/* The program's rights may only need tables that were not made yet; then it just goes on. */
static bool page_fault(struct vcpu *vcpu, const struct trap_frame *frame, struct fv_trap *trap)
{
    int code = 0;
    gpa_t address = vcpu->run->s.regs.sregs.cr2;
    int signal = mm_access_fault(vcpu, address, (uint32_t)frame->error_code, &code);
    if (!signal)
        return false;
    *trap = (struct fv_trap){
        .vector = VECTOR_PAGE,
        .error_code = (uint32_t)frame->error_code,
        .address = address,
        .signal = (uint32_t)signal,
        .code = code,
    };
    return true;
}

/* What only some exceptions need, and each costs a call to KVM. */
static void exception_details(struct vcpu *vcpu, struct exception_state *state)
{
    struct kvm_debugregs debug;
    struct kvm_xsave area; /* not KVM_GET_FPU: it leaves MXCSR out */
    if (state->vector == VECTOR_DEBUG && ioctl(vcpu->fd, KVM_GET_DEBUGREGS, &debug) == 0)
        state->dr6 = debug.dr6;
    if ((state->vector == VECTOR_X87 || state->vector == VECTOR_SIMD) &&
        ioctl(vcpu->fd, KVM_GET_XSAVE, &area) == 0) {
        state->x87_control = (uint16_t)area.region[0];
        state->x87_status = (uint16_t)(area.region[0] >> 16);
        state->mxcsr = area.region[6];
    }
}

/* `int n` is a general protection fault without a gate for it; PVM makes #UD of it. */
static bool is_software_interrupt(struct vm *vm, gpa_t rip)
{
    uint8_t opcode;
    return guestmem_read(vm, &opcode, rip, 1) == 0 && opcode == 0xcd;
}

static bool other_exception(struct vcpu *vcpu, const struct trap_frame *frame, struct fv_trap *trap)
{
    struct exception_state state = {
        .vector = (uint32_t)frame->vector,
        .error_code = (uint32_t)frame->error_code,
        .rip = frame->rip,
    };
    if (state.vector == VECTOR_UNDEFINED && is_software_interrupt(vcpu->vm, frame->rip))
        state.vector = VECTOR_PROTECTION;
    exception_details(vcpu, &state);
    exception_to_trap(&state, trap);
    return trap->signal != 0;
}

/* Copies the stub's frame; false when this is no stub on its trap stack: ring 3 rang by itself. */
static bool frame_read(struct vcpu *vcpu, struct trap_frame *frame)
{
    const struct kvm_sync_regs *sync = &vcpu->run->s.regs;
    gpa_t rsp = sync->regs.rsp;
    if (sync->sregs.cs.selector != FV_CS_KERNEL || rsp < system_trap_stack_bottom(vcpu->index) ||
        rsp > system_trap_stack_top(vcpu->index) - sizeof(*frame) || rsp & 7)
        return false;
    memcpy(frame, ept_hva(vcpu->vm->ept, rsp), sizeof(*frame));
    return true;
}

/*
 * The interrupted code, as it was. The race: a kick that came while the vCPU was in the stub made
 * KVM_RUN return there, where nobody could be told, and is used up; and no other comes while
 * `pending` is set.
 */
static void go_on(struct vcpu *vcpu, const struct kvm_regs *at)
{
    resume(vcpu, at->rip, at->rsp, at->rflags);
    trap_deliver_pending(vcpu);
}

void trap_handle(struct vcpu *vcpu)
{
    struct kvm_regs at = vcpu->run->s.regs.regs;
    struct fv_trap trap = {.vector = VECTOR_PROTECTION, .signal = SIGSEGV, .code = SI_KERNEL};
    struct trap_frame frame;
    if (!frame_read(vcpu, &frame)) {
        trap_raise(vcpu, &at, &trap);
        return;
    }
    at.rip = frame.rip;
    at.rsp = frame.rsp;
    at.rflags = frame.rflags;
    bool wrong = frame.vector == VECTOR_PAGE ? page_fault(vcpu, &frame, &trap)
                                             : other_exception(vcpu, &frame, &trap);
    if ((frame.cs & 3) != 3)
        vcpu_fatal(vcpu, "exception in ring 0");
    else if (wrong)
        trap_raise(vcpu, &at, &trap);
    else
        go_on(vcpu, &at);
}

/*
 * The guest kernel looks at `pending` by itself before it returns to the program, so only program
 * code needs an upcall, and the return sequence itself, between its look and its last instruction,
 * has to start again.
 */
void trap_deliver_pending(struct vcpu *vcpu)
{
    const struct fv_image *image = &vcpu->vm->image;
    struct kvm_regs at = vcpu->run->s.regs.regs;
    if (!__atomic_load_n(&vcpu->page->pending, __ATOMIC_SEQ_CST))
        return;
    if (at.rip >= image->return_begin && at.rip < image->return_end) {
        vcpu->run->s.regs.regs.rip = image->return_begin;
        vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
    } else if (!trap_in_kernel(vcpu->vm, at.rip) && vcpu->run->s.regs.sregs.cs.dpl == 3) {
        trap_upcall(vcpu, &at, FV_UPCALL_EVENT);
    }
}
