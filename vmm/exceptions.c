/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which signal Linux raises for an x86 exception in user mode, with its si_code and si_addr: after
 * arch/x86/kernel/traps.c and fpu__exception_code. Pure arithmetic, no vCPU.
 */
#include "vmm/machine.h"

#define DR6_SINGLE_STEP (1ULL << 14)

/* A pending unmasked x87 or SIMD condition, most serious first; 0: none, run on. */
static int floating_point_code(const struct exception_state *state)
{
    uint32_t raised = state->vector == 16 ? (uint32_t)(state->x87_status & ~state->x87_control)
                                          : ~(state->mxcsr >> 7) & state->mxcsr;
    if (raised & 0x01)
        return FPE_FLTINV;
    if (raised & 0x04)
        return FPE_FLTDIV;
    if (raised & 0x08)
        return FPE_FLTOVF;
    if (raised & 0x12)
        return FPE_FLTUND;
    return raised & 0x20 ? FPE_FLTRES : 0;
}

static void set(struct fv_trap *out, int signal, int code, gpa_t address)
{
    out->signal = (uint32_t)signal;
    out->code = code;
    out->address = address;
}

void exception_to_trap(const struct exception_state *state, struct fv_trap *out)
{
    *out = (struct fv_trap){.vector = state->vector, .error_code = state->error_code};
    int code;
    switch (state->vector) {
    case 0: /* #DE */
        set(out, SIGFPE, FPE_INTDIV, state->rip);
        break;
    case 1: /* #DB */
        set(out, SIGTRAP, state->dr6 & DR6_SINGLE_STEP ? TRAP_TRACE : TRAP_HWBKPT, state->rip);
        break;
    case 3: /* #BP */
        set(out, SIGTRAP, SI_KERNEL, 0);
        break;
    case 6: /* #UD */
        set(out, SIGILL, ILL_ILLOPN, state->rip);
        break;
    case 11: /* #NP */
    case 12: /* #SS */
        set(out, SIGBUS, SI_KERNEL, 0);
        break;
    case 16: /* #MF */
    case 19: /* #XM */
        code = floating_point_code(state);
        if (code)
            set(out, SIGFPE, code, state->rip);
        break;
    case 17: /* #AC */
        set(out, SIGBUS, BUS_ADRALN, 0);
        break;
    default: /* #GP and whatever else user code can provoke */
        set(out, SIGSEGV, SI_KERNEL, 0);
    }
}
