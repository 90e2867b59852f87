/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the assembler finds things: fields of struct fv_vcpu (reached through %gs) and the size of
 * struct frame. C checks every number (kernel.h).
 */
#ifndef GUEST_OFFSETS_H
#define GUEST_OFFSETS_H

#define VCPU_KERNEL_STACK 16
#define VCPU_PENDING      24
#define VCPU_USER_RSP     264 /* fv_vcpu.guest[0]: the program's rsp between syscall and frame */
#define VCPU_THREAD       272 /* fv_vcpu.guest[1]: struct thread of the thread that runs here */

#define FRAME_BYTES 168
#define FRAME_SPACE 176 /* with the pad that keeps C's stack 16-byte aligned */

/* Interrupt flag, IOPL 3 and the bit that is always 1. */
#define KERNEL_RFLAGS 0x3202

#endif
