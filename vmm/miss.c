/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A second-stage miss in exit mode: KVM_RUN returned EFAULT in the vCPU's own thread, and no kernel
 * up to 6.18 says for which address. So the instruction at rip is decoded, and of its code and data
 * pages those that are not resident are resolved. Finding none is normal when another thread was
 * faster; finding none again and again at one rip is a bug, and ends the guest with its cause.
 */
#include "vmm/miss.h"

#include "fault/fault.h"
#include "support.h"
#include "vmm/mm/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#define FRUITLESS_MAX 1000u
#define CODE_MAX      15u

/* Per-thread memory of attempts that found nothing to do. */
static _Thread_local struct {
    uint64_t rip;
    unsigned count;
} fruitless;

static bool is_pageable(const struct vm *vm, gpa_t gpa)
{
    return (gpa >= FV_USER_MIN && gpa < FV_KERNEL_BASE) ||
           (gpa >= FV_USER_HIGH_BASE && gpa < ept_span(vm->ept));
}

/*
 * What came with the page is mapped while we are out of the guest anyway: else each of those pages
 * costs another way out and back, though only as far as KVM. A page alone is not worth a call.
 */
static void map_ahead(struct vcpu *vcpu)
{
    struct ept *ept = vcpu->vm->ept;
    uint64_t first, pages;
    if (!ept_maps_ahead(ept))
        return;
    pages = fault_arrivals(vcpu->fault, &first);
    if (pages < 2)
        return;
    pages = ept_map_ahead(ept, vcpu->fd, first, pages);
    atomic_fetch_add_explicit(&vcpu->ahead_calls, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&vcpu->ahead_pages, pages, memory_order_relaxed);
}

/* 1: something was resolved; 0: it is there; -errno. */
static int page_resolve(struct vcpu *vcpu, gpa_t gpa, bool write)
{
    struct vm *vm = vcpu->vm;
    if (!is_pageable(vm, gpa))
        return 0;
    uint64_t page = gpa >> EPT_PAGE_SHIFT;
    uint64_t word = atomic_load(&ept_words(vm->ept)[page]);
    if (ept_word_state(word) == EPT_LOCAL)
        return 0;
    int result = fault_resolve(vcpu->fault, page, write);
    if (result == 0)
        map_ahead(vcpu);
    /* Unmapped meanwhile: the guest's own page tables refuse the access with a proper fault. */
    if (result == -EFAULT)
        return 0;
    /* 1: memory that the host kernel fills by itself, so not what was missing. */
    return result < 0 ? result : !result;
}

static int access_resolve(struct vcpu *vcpu, const struct access *access, bool force_write)
{
    gpa_t last = access->gpa + (access->bytes ? access->bytes - 1 : 0);
    if (last < access->gpa)
        return 0;
    int resolved = 0;
    /* By number: the last page of all addresses has no end. */
    for (uint64_t page = access->gpa >> EPT_PAGE_SHIFT; page <= last >> EPT_PAGE_SHIFT; page++) {
        int step = page_resolve(vcpu, page << EPT_PAGE_SHIFT, access->write || force_write);
        if (step < 0)
            return step;
        resolved |= step;
    }
    return resolved;
}

/* Copies the code bytes at rip, resolving their pages. Bytes, or 0 after resolving, or -errno. */
static int code_fetch(struct vcpu *vcpu, gpa_t rip, uint8_t code[CODE_MAX])
{
    struct vm *vm = vcpu->vm;
    if (!is_pageable(vm, rip)) {
        memcpy(code, ept_hva(vm->ept, rip), CODE_MAX);
        return CODE_MAX;
    }
    for (gpa_t at = rip; at < rip + CODE_MAX; at = (at | 0xfff) + 1) {
        if (at != rip && mm_access(vm->mm, at) == EPT_NONE)
            break; /* the instruction may well end before */
        int step = page_resolve(vcpu, at, false);
        if (step)
            return step < 0 ? step : 0;
    }
    if (guestmem_read(vm, code, rip, CODE_MAX) == 0)
        return CODE_MAX;
    /* The next page is not the program's: the instruction ends before it, or faults for good. */
    size_t here = 0x1000 - (rip & 0xfff);
    if (here < CODE_MAX && guestmem_read(vm, code, rip, here) == 0)
        return (int)here;
    return -EFAULT;
}

static int data_resolve(struct vcpu *vcpu, const struct kvm_regs *regs,
                        const struct kvm_sregs *sregs, const uint8_t *code, int bytes)
{
    struct access accesses[ACCESS_MAX];
    int count = address_decode(vcpu, regs, sregs, code, (size_t)bytes, accesses);
    if (count < 0)
        return count;
    if (guide_fault_begin(vcpu, regs, accesses, count))
        return 1;
    bool force_write = fruitless.count > FRUITLESS_MAX / 2;
    int resolved = 0;
    for (int i = 0; i < count; i++) {
        int step = access_resolve(vcpu, &accesses[i], force_write);
        if (step < 0)
            return step;
        resolved |= step;
    }
    return resolved;
}

static int give_up(struct vcpu *vcpu, gpa_t rip, const uint8_t *code, int bytes)
{
    char text[3 * CODE_MAX + 1] = "";
    for (int i = 0; i < bytes; i++)
        snprintf(text + 3 * i, 4, " %02x", code[i]);
    if (vm_end(vcpu->vm, EXIT_FARVISOR))
        message_error("vcpu %u: second-stage miss at rip 0x%llx: no missing page found (code%s)",
                      vcpu->index, (unsigned long long)rip, text);
    return -EFAULT;
}

static void out_of_memory(struct vcpu *vcpu, gpa_t gpa)
{
    const struct run_config *config = vcpu->vm->config;
    char quota[32];
    if (vm_end(vcpu->vm, EXIT_SIGNAL_BASE + SIGKILL))
        message_error("guest: out of memory at 0x%llx: all %s are in use (see --memory)",
                      (unsigned long long)gpa,
                      format_bytes(config->memory_bytes, quota, sizeof(quota)));
}

static void out_of_frames(struct vcpu *vcpu)
{
    const struct run_config *config = vcpu->vm->config;
    char local[32];
    if (vm_end(vcpu->vm, EXIT_FARVISOR))
        message_error("guest: none of the %s on this host could be freed in time (see --local)",
                      format_bytes(config->local_bytes, local, sizeof(local)));
}

int miss_fatal(struct vcpu *vcpu, gpa_t gpa, int error)
{
    if (error == -ENOMEM)
        out_of_memory(vcpu, gpa);
    else if (error == -EBUSY)
        out_of_frames(vcpu);
    else if (vm_end(vcpu->vm, EXIT_FARVISOR) && !fault_engine_error(vcpu->vm->engine))
        message_error("guest: far memory: %s", strerror(-error)); /* else who lost it said so */
    return error;
}

int miss_resolve(struct vcpu *vcpu)
{
    struct kvm_regs *regs = &vcpu->run->s.regs.regs;
    uint8_t code[CODE_MAX] = {0};
    gpa_t rip = regs->rip;
    int bytes = code_fetch(vcpu, rip, code);
    int resolved = bytes > 0    ? data_resolve(vcpu, regs, &vcpu->run->s.regs.sregs, code, bytes)
                   : bytes == 0 ? 1
                                : bytes;
    if (resolved == -EIO && !fault_engine_error(vcpu->vm->engine))
        return 1; /* file contents are not there: SIGBUS */
    if (resolved < 0 && resolved != -EINVAL && resolved != -EFAULT)
        return miss_fatal(vcpu, rip, resolved);
    if (resolved > 0 || fruitless.rip != rip)
        fruitless.count = 0;
    fruitless.rip = rip;
    if (resolved <= 0 && ++fruitless.count > FRUITLESS_MAX)
        return give_up(vcpu, rip, code, bytes);
    return 0;
}
