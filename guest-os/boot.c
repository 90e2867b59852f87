/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The start: device tree, program, stack, first thread. Runs once, on the first vCPU, in ring 3;
 * afterwards entry.S returns to the frame made here, which is the program's first instruction.
 */
#include "guest-os/kernel.h"

#define SCRATCH_BYTES  0x10000
#define NOT_RUNNABLE   126
#define PROGRAM_RFLAGS 0x202

struct process process;

static bool pending_deferred;

void boot_defer_pending(void)
{
    vcpu_current()->pending = 0;
    pending_deferred = true;
}

void boot_fail(const char *what, const char *why)
{
    complain(what, ": cannot run: ", why);
    vmm_exit_group(NOT_RUNNABLE, 0, false);
}

void boot_main(struct frame *frame, const void *fdt)
{
    static struct program program;
    static struct loaded loaded, interpreter;

    devicetree_read(fdt, &program);
    xstate_init();
    thread_boot(vcpu_current()->tid);
    gpa_t top = stack_map(program.stack_bytes);
    load_program(&program, top - SCRATCH_BYTES, &loaded, &interpreter);
    bool dynamic = loaded.interpreter[0] != '\0';
    if (loaded.executable_stack)
        stack_make_executable(top, program.stack_bytes);

    memset(frame, 0, sizeof(*frame));
    frame->orig_rax = -1;
    frame->rsp = stack_fill(&program, top, &loaded, dynamic ? &interpreter : NULL);
    frame->rip = dynamic ? interpreter.entry : loaded.entry;
    frame->cs = FV_CS_USER;
    frame->ss = FV_SS_USER;
    frame->rflags = PROGRAM_RFLAGS;
    xstate_reset();
    __asm__ volatile("wrfsbase %0" ::"r"(0ULL));
    if (pending_deferred)
        vcpu_current()->pending = FV_PENDING_SIGNAL;
}
