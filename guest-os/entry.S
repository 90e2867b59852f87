/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every way into the unikernel and the one way out.
 *
 * The kernel runs in ring 3 like the program. `syscall` enters syscall_entry in ring 0 on VMX and
 * SVM and in ring 3 on PVM, so nothing before its iretq may need or assume a privilege; sysret is
 * never used because PVM does not emulate it. %gs always points at the vCPU's struct fv_vcpu: there
 * is no swapgs. The frame of the program's registers lies at a fixed place, the top of the vCPU's
 * kernel stack, which makes the return sequence restartable.
 */
#include "farvisor/abi.h"
#include "guest-os/offsets.h"

        .section .fv_image, "a"
        .globl  fv_image
fv_image:
        .quad   FV_IMAGE_MAGIC
        .long   FV_ABI_VERSION
        .long   fv_image_end - fv_image
        .quad   boot_entry
        .quad   thread_entry
        .quad   syscall_entry
        .quad   upcall_entry
        .quad   vectors
        .quad   guest_text_begin
        .quad   guest_text_end
        .quad   return_begin
        .quad   return_end
        .quad   guest_fixups_begin
        .quad   guest_fixup_count
fv_image_end:

        .text
/* rcx = the program's rip, r11 = its rflags, the kernel's own registers unknown. */
        .globl  syscall_entry
syscall_entry:
        movq    %rsp, %gs:VCPU_USER_RSP
        movq    %gs:VCPU_KERNEL_STACK, %rsp
        pushq   $FV_SS_USER
        pushq   %gs:VCPU_KERNEL_STACK
        pushq   $KERNEL_RFLAGS
        pushq   $FV_CS_USER
        pushq   syscall_ring3_address(%rip)
        iretq

syscall_ring3:
        pushq   $0                      /* pad */
        pushq   $FV_SS_USER
        pushq   %gs:VCPU_USER_RSP
        pushq   %r11
        pushq   $FV_CS_USER
        pushq   %rcx
        pushq   %rax                    /* orig_rax */
        pushq   %rdi
        pushq   %rsi
        pushq   %rdx
        pushq   %rcx
        pushq   %rax
        pushq   %r8
        pushq   %r9
        pushq   %r10
        pushq   %r11
        pushq   %rbx
        pushq   %rbp
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        movq    %rsp, %rdi
        call    syscall_dispatch

/*
 * Back to the program. A kick that finds rip in [return_begin, return_end) moves it to
 * return_begin: so the look at `pending` and the iretq are as good as one instruction. Nothing here
 * may depend on a register or change the frame.
 */
        .globl  return_begin
return_begin:
        movq    %gs:VCPU_KERNEL_STACK, %rsp
        subq    $FRAME_SPACE, %rsp
        cmpl    $0, %gs:VCPU_PENDING
        jne     return_slow
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbp
        popq    %rbx
        popq    %r11
        popq    %r10
        popq    %r9
        popq    %r8
        popq    %rax
        popq    %rcx
        popq    %rdx
        popq    %rsi
        popq    %rdi
        leaq    8(%rsp), %rsp           /* orig_rax */
        iretq
        .globl  return_end
return_end:

return_slow:
        movq    %rsp, %rdi
        call    signal_deliver_pending
        jmp     return_begin

/* The VMM stopped the program: its registers are in fv_vcpu.saved. */
        .globl  upcall_entry
upcall_entry:
        movq    %gs:VCPU_KERNEL_STACK, %rsp
        subq    $FRAME_SPACE, %rsp
        cld
        movq    %rsp, %rdi
        call    upcall_dispatch
        jmp     return_begin

/* First vCPU: rdi = FV_FDT_BASE. libfdt comes with stack protection, which reads %fs:0x28. */
        .globl  boot_entry
boot_entry:
        movq    %gs:VCPU_KERNEL_STACK, %rsp
        subq    $FRAME_SPACE, %rsp
        leaq    boot_tls(%rip), %rax
        wrfsbase %rax
        movq    %rdi, %rsi
        movq    %rsp, %rdi
        call    boot_main
        jmp     return_begin

/* Every further vCPU: rdi = the struct thread given to FV_CALL_THREAD_CREATE. */
        .globl  thread_entry
thread_entry:
        movq    %gs:VCPU_KERNEL_STACK, %rsp
        subq    $FRAME_SPACE, %rsp
        movq    %rdi, %rsi
        movq    %rsp, %rdi
        call    thread_main
        jmp     return_begin

/*
 * Ring 0, on the vCPU's trap stack: exception stubs. They leave [vector][error code][rip][cs]
 * [rflags][rsp][ss] on the stack and knock; the VMM never lets them go on.
 */
        .p2align 4
        .globl  vectors
vectors:
        .set    vector, 0
        .rept   FV_VECTOR_COUNT
        .p2align 4
        /* #DF #TS #NP #SS #GP #PF #AC #CP #VC #SX push an error code (SDM vol. 3, 6.3.1). */
        .if     ((0x60227d00 >> vector) & 1) == 0
        pushq   $0
        .endif
        pushq   $vector
        outb    %al, $FV_PORT_TRAP
0:      jmp     0b
        .set    vector, vector + 1
        .endr

        .section .rodata
        .p2align 3
syscall_ring3_address:
        .quad   syscall_ring3

        .bss
        .p2align 6
boot_tls:
        .zero   64

        .section .note.GNU-stack, "", @progbits
