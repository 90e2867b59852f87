/* SPDX-License-Identifier: Apache-2.0 */
/* The vDSO's file, as it is, inside the kernel image (guest.mk defines VDSO_FILE). */
        .section .vdso, "a"
        .p2align 12
        .globl  vdso_image
vdso_image:
        .incbin VDSO_FILE
        .p2align 12
        .section .note.GNU-stack, "", @progbits
