/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host system call that a kick interrupts without a lost wake-up (the technique of musl's thread
 * cancellation). Between the look at `kicked` and the system call there is a gap in which a kick
 * would go unseen; the kick's signal handler closes it: if it finds RIP in [begin, end) it moves it
 * to `cancel`. A call that the kernel restarts by itself has RIP back on `syscall`, inside the
 * window and without any effect so far; one that was interrupted has RIP on `end`, outside.
 * A call that was not made returns TURNED_AWAY (machine.h), which no call does.
 */
        .text
        .globl  interruptible_syscall
        .globl  interruptible_begin
        .globl  interruptible_end
        .globl  interruptible_cancel
        .type   interruptible_syscall, @function

/* long interruptible_syscall(const int *kicked, number, a, b, c, d, e, f) */
interruptible_syscall:
        movq    %rdi, %r11
        movq    %rsi, %rax
        movq    %rdx, %rdi
        movq    %rcx, %rsi
        movq    %r8, %rdx
        movq    %r9, %r10
        movq    8(%rsp), %r8
        movq    16(%rsp), %r9
interruptible_begin:
        cmpl    $0, (%r11)
        jne     interruptible_cancel
        syscall
interruptible_end:
        ret
interruptible_cancel:
        movq    $-4096, %rax            /* TURNED_AWAY */
        ret
        .size   interruptible_syscall, . - interruptible_syscall
        .section .note.GNU-stack, "", @progbits
