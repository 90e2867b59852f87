/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The only kernel instructions that touch the program's memory. Each has a fixup entry: when the
 * program's page tables refuse the access, the VMM resumes at the entry's second address, which
 * answers -EFAULT. (A second-stage miss is not seen here: the VMM mends it and runs on.)
 * usercopy.c checks addresses before it calls these.
 */
        .macro  fixup at, to
        .pushsection .fv_fixups, "a"
        .quad   \at, \to
        .popsection
        .endm

        .text
/* int usercopy_bytes(void *to, const void *from, size_t bytes) */
        .globl  usercopy_bytes
usercopy_bytes:
        movq    %rdx, %rcx
1:      rep movsb
        xorl    %eax, %eax
        ret
        fixup   1b, usercopy_failed

/* int usercopy_zero(void *to, size_t bytes) */
        .globl  usercopy_zero
usercopy_zero:
        movq    %rsi, %rcx
        xorl    %eax, %eax
1:      rep stosb
        ret
        fixup   1b, usercopy_failed

/* int usercopy_get32(uint32_t *to, const void *from) */
        .globl  usercopy_get32
usercopy_get32:
1:      movl    (%rsi), %eax
        movl    %eax, (%rdi)
        xorl    %eax, %eax
        ret
        fixup   1b, usercopy_failed

/* int usercopy_get64(uint64_t *to, const void *from) */
        .globl  usercopy_get64
usercopy_get64:
1:      movq    (%rsi), %rax
        movq    %rax, (%rdi)
        xorl    %eax, %eax
        ret
        fixup   1b, usercopy_failed

/* int usercopy_put32(void *to, uint32_t value) */
        .globl  usercopy_put32
usercopy_put32:
1:      movl    %esi, (%rdi)
        xorl    %eax, %eax
        ret
        fixup   1b, usercopy_failed

/* int usercopy_put64(void *to, uint64_t value) */
        .globl  usercopy_put64
usercopy_put64:
1:      movq    %rsi, (%rdi)
        xorl    %eax, %eax
        ret
        fixup   1b, usercopy_failed

/* int usercopy_cmpxchg32(void *at, uint32_t *expected, uint32_t desired): 0 whether or not equal */
        .globl  usercopy_cmpxchg32
usercopy_cmpxchg32:
        movl    (%rsi), %eax
1:      lock cmpxchgl %edx, (%rdi)
        movl    %eax, (%rsi)
        xorl    %eax, %eax
        ret
        fixup   1b, usercopy_failed

usercopy_failed:
        movl    $-14, %eax              /* -EFAULT */
        ret

        .section .note.GNU-stack, "", @progbits
