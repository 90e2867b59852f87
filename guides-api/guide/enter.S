/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ways into and out of a guide's code. Each saves the registers (struct guide_regs), lets
 * guard.c say in `slot` where to go on, and goes there with the registers as guard.c left them: all
 * of them, because a caller that was compiled together with the hooked function may know that it
 * leaves some alone that the ABI lets it change (gcc -fipa-ra).
 */
#include "farvisor/hints.h"

#define XMM_BYTES  256
#define SLOT       (XMM_BYTES + 15 * 8)

        .text

        /* With `slot` on top of the stack. */
        .macro  save_regs
        pushq   %rdi
        pushq   %rsi
        pushq   %rdx
        pushq   %rcx
        pushq   %r8
        pushq   %r9
        pushq   %rax
        pushq   %r10
        pushq   %r11
        pushq   %rbx
        pushq   %rbp
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        subq    $XMM_BYTES, %rsp
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        movups  %xmm\n, \n*16(%rsp)
        .endr
        .endm

        .macro  load_regs base
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        movups  \n*16(\base), %xmm\n
        .endr
        movq    256(\base), %r15
        movq    264(\base), %r14
        movq    272(\base), %r13
        movq    280(\base), %r12
        movq    288(\base), %rbp
        movq    296(\base), %rbx
        movq    304(\base), %r11
        movq    312(\base), %r10
        movq    320(\base), %rax
        movq    328(\base), %r9
        movq    336(\base), %r8
        movq    344(\base), %rcx
        movq    352(\base), %rdx
        movq    360(\base), %rsi
        movq    368(\base), %rdi
        .endm

        .macro  passage name, ask, slot_is_new
        .globl  \name
        .hidden \name
        .type   \name, @function
\name:
        .if     \slot_is_new
        subq    $8, %rsp
        .endif
        cld
        save_regs
        movq    %rsp, %rbx
        movq    %rsp, %rdi
        andq    $-16, %rsp
        call    \ask
        movq    %rbx, %rsp
        load_regs %rsp
        leaq    SLOT(%rsp), %rsp
        ret                             /* to *slot */
        .size   \name, . - \name
        .endm

        passage guide_hook_enter, guide_on_enter, 0
        passage guide_original_enter, guide_on_original, 0
        passage guide_hook_return, guide_on_return, 1
        passage guide_original_return, guide_on_original_return, 1

/* The guest kernel put us here (fv_hint_ring.rescue): rdi says why. Registers are the guide's. */
        .globl  guide_rescue_entry
        .hidden guide_rescue_entry
        .type   guide_rescue_entry, @function
guide_rescue_entry:
        cld
        xorl    %ebp, %ebp
        andq    $-16, %rsp
        call    guide_on_rescue
        ud2
        .size   guide_rescue_entry, . - guide_rescue_entry

/*
 * The guest kernel put us here while a page is on its way: rdi = struct fv_fault, rsp = the top of
 * the guide's own stack. It puts the program back when we say that we are done.
 */
        .globl  guide_fault_entry
        .hidden guide_fault_entry
        .type   guide_fault_entry, @function
guide_fault_entry:
        xorl    %ebp, %ebp
        andq    $-16, %rsp
        call    guide_on_upcall
        movl    $FV_SYS_GUIDE, %eax
        movl    $FV_GUIDE_FAULT_END, %edi
        syscall
        ud2
        .size   guide_fault_entry, . - guide_fault_entry

/* rdi = struct guide_regs, rsi = stack, with the address to go on at on its top. */
        .globl  guide_resume
        .hidden guide_resume
        .type   guide_resume, @function
guide_resume:
        movq    %rsi, %rsp
        load_regs %rdi
        ret
        .size   guide_resume, . - guide_resume

        .section .note.GNU-stack, "", @progbits
