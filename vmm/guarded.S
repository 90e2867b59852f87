/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A copy that survives pages that vanish, of a file that is cut short meanwhile: the handler of
 * SIGBUS (file_guard.c), if it finds RIP in [begin, end), moves it to `fault`. Words of 4 and 8
 * bytes are read and written whole, as futexes need it.
 */
        .text
        .globl  guarded_copy
        .globl  guarded_copy_begin
        .globl  guarded_copy_end
        .globl  guarded_copy_fault
        .type   guarded_copy, @function

/* int guarded_copy(void *to, const void *from, size_t bytes): 0 or -EFAULT */
guarded_copy:
        movq    %rdx, %rcx
guarded_copy_begin:
        cmpq    $4, %rcx
        je      1f
        cmpq    $8, %rcx
        je      2f
        rep movsb
        jmp     3f
1:      movl    (%rsi), %eax
        movl    %eax, (%rdi)
        jmp     3f
2:      movq    (%rsi), %rax
        movq    %rax, (%rdi)
3:
guarded_copy_end:
        xorl    %eax, %eax
        ret
guarded_copy_fault:
        movl    $-14, %eax              /* -EFAULT */
        ret
        .size   guarded_copy, . - guarded_copy
        .section .note.GNU-stack, "", @progbits
