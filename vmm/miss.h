/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A second-stage miss, from the instruction that missed to what is done about it.
 */
#ifndef FARVISOR_MISS_H
#define FARVISOR_MISS_H

#include "vmm/vmm.h"

/* ---- miss.c: a second-stage miss (KVM_RUN returned EFAULT) ---- */
/*
 * Reads the sync registers. 0: mended, run on; 1: the page's file contents do not exist, raise
 * SIGBUS (BUS_ADRERR) at rip; else -errno after vm_end was called.
 */
int miss_resolve(struct vcpu *vcpu);
/* Says once why memory cannot be had any more, and ends the guest: as killed, as Linux does, when
 * it is used up (-ENOMEM), else as our own failure. Returns `error`. */
int miss_fatal(struct vcpu *vcpu, gpa_t gpa, int error);

/* ---- address.c: which guest addresses the instruction at rip touches (Zydis) ---- */
struct access {
    gpa_t gpa;
    uint32_t bytes;
    bool write;
};
#define ACCESS_MAX 40 /* a 16-element gather or scatter, plus stack and code pages */
/*
 * Decodes code[0..bytes) as the instruction at regs->rip. Returns the number of accesses found, or
 * -EINVAL. xsave: the vCPU's XSAVE area for vector indices, fetched only when asked for.
 */
int address_decode(struct vcpu *vcpu, const struct kvm_regs *regs, const struct kvm_sregs *sregs,
                   const uint8_t *code, size_t bytes, struct access out[ACCESS_MAX]);

/* For its tests: vector registers come from a callback. */
typedef int (*address_vectors_fn)(void *owner, uint8_t xsave[], size_t bytes);
#define ADDRESS_XSAVE_BYTES 4096
int address_decode_with(const struct kvm_regs *regs, const struct kvm_sregs *sregs,
                        const uint8_t *code, size_t bytes, address_vectors_fn vectors, void *owner,
                        struct access out[ACCESS_MAX]);

/* ---- guides/faults.c: a guide is asked while a demanded page is on its way ---- */
/*
 * guide_fault_begin - if the instruction at `at` touches a remote page of watched memory and may be
 * interrupted for it: posts the page's read and has the guest run the guide's handler next. Returns
 * whether it does: then the miss is solved for now. The vCPU's thread, after a miss.
 */
bool guide_fault_begin(struct vcpu *vcpu, const struct kvm_regs *at, const struct access accesses[],
                       int count);
/* The guest thread of this vCPU is over. */
void guide_fault_forget(struct vcpu *vcpu);

#endif
