/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One KVM vCPU from nothing to "ring 3, long mode, guest kernel entry": CPUID, control registers,
 * model specific registers, XCR0, TSC. Never creates an in-kernel interrupt controller: with one,
 * KVM's asynchronous page fault loop swallows misses (docs/architecture.md, "what KVM must not
 * have"). What only some hosts virtualise is tried and left alone where they refuse.
 */
#include "vmm/machine.h"

#include "support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define CR0_BITS         0x80050033ULL /* PG AM WP NE ET MP PE */
#define CR4_PAE          (1ULL << 5)
#define CR4_OSFXSR       (1ULL << 9)
#define CR4_OSXMMEXCPT   (1ULL << 10)
#define CR4_FSGSBASE     (1ULL << 16)
#define CR4_OSXSAVE      (1ULL << 18)
#define EFER_BITS        0xd01ULL   /* SCE LME LMA NXE */
#define RFLAGS_RING3     0x3202ULL  /* IOPL 3, IF: IOPL 0 makes `out` a #GP on NPT */
#define SYSCALL_MASK     0x44700ULL /* AC NT DF IF TF cleared on system call entry */
#define MSR_STAR         0xc0000081u
#define MSR_LSTAR        0xc0000082u
#define MSR_SYSCALL_MASK 0xc0000084u
#define STAR_BITS        (0x23ULL << 48 | (uint64_t)FV_CS_KERNEL << 32)
/* Places in the XSAVE area, in 32-bit words (SDM vol. 1, 13.4). */
#define XSAVE_FCW_WORD   0
#define XSAVE_MXCSR_WORD 6
#define XSAVE_STATE_WORD 128
#define CPUID_ENTRIES    256u

struct kvm_cpuid2 *vcpu_cpuid_query(int kvm_fd)
{
    struct kvm_cpuid2 *cpuid =
        calloc(1, sizeof(*cpuid) + CPUID_ENTRIES * sizeof(struct kvm_cpuid_entry2));
    if (!cpuid)
        return NULL;
    cpuid->nent = CPUID_ENTRIES;
    if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0) {
        free(cpuid);
        return NULL;
    }
    return cpuid;
}

/* The host's own features; only what would be untrue here is changed. */
static int cpuid_set(struct vcpu *vcpu)
{
    const struct kvm_cpuid2 *supported = vcpu->vm->cpuid;
    size_t bytes = sizeof(*supported) + supported->nent * sizeof(struct kvm_cpuid_entry2);
    struct kvm_cpuid2 *cpuid = malloc(bytes);
    if (!cpuid)
        return -ENOMEM;
    memcpy(cpuid, supported, bytes);
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];
        if (entry->function == 1) {
            entry->ebx = (entry->ebx & 0x00ffffff) | vcpu->index << 24;
            entry->ecx &= ~(1u << 21 | 1u << 24); /* x2APIC, TSC deadline: no APIC here */
        } else if (entry->function == 0xb || entry->function == 0x1f) {
            entry->edx = vcpu->index;
        }
    }
    int error = ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid) < 0 ? -errno : 0;
    free(cpuid);
    return error;
}

/* Features XCR0 may have here, from CPUID leaf 0xd; 0 where XSAVE is not virtualised (PVM). */
static uint64_t xcr0_supported(const struct kvm_cpuid2 *cpuid)
{
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        const struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];
        if (entry->function == 0xd && entry->index == 0)
            return entry->eax | (uint64_t)entry->edx << 32;
    }
    return 0;
}

/* Best effort: on PVM ring 3 runs with the host's XCR0 and KVM offers no other. */
static void xcr0_set(struct vcpu *vcpu)
{
    struct kvm_xcrs xcrs = {.nr_xcrs = 1};
    xcrs.xcrs[0].value = xcr0_supported(vcpu->vm->cpuid);
    if (xcrs.xcrs[0].value)
        (void)ioctl(vcpu->fd, KVM_SET_XCRS, &xcrs);
}

/* The guest reads time from the TSC against figures taken outside: both must see one counter. */
static void tsc_align(struct vcpu *vcpu)
{
    uint64_t offset = 0;
    struct kvm_device_attr attribute = {
        .group = KVM_VCPU_TSC_CTRL,
        .attr = KVM_VCPU_TSC_OFFSET,
        .addr = (uintptr_t)&offset,
    };
    (void)ioctl(vcpu->fd, KVM_SET_DEVICE_ATTR, &attribute);
}

static int msrs_set(struct vcpu *vcpu)
{
    struct {
        struct kvm_msrs header;
        struct kvm_msr_entry entries[3];
    } msrs = {
        .header.nmsrs = 3,
        .entries = {{.index = MSR_STAR, .data = STAR_BITS},
                    {.index = MSR_LSTAR, .data = vcpu->vm->image.syscall_entry},
                    {.index = MSR_SYSCALL_MASK, .data = SYSCALL_MASK}},
    };
    int set = ioctl(vcpu->fd, KVM_SET_MSRS, &msrs);
    if (set == 3)
        return 0;
    return set < 0 ? -errno : -ENOTSUP;
}

static gpa_t page_gpa(uint32_t index)
{
    return FV_VCPU_BASE + (gpa_t)index * FV_VCPU_STRIDE;
}

static gpa_t kernel_stack(uint32_t index)
{
    return page_gpa(index) + FV_VCPU_STRIDE;
}

static int sregs_set(struct vcpu *vcpu)
{
    struct kvm_sregs sregs;
    if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return -errno;
    system_tables_load(vcpu->index, &sregs);
    sregs.gs.base = page_gpa(vcpu->index);
    sregs.cr0 = CR0_BITS;
    sregs.cr3 = ept_root(vcpu->vm->ept);
    sregs.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_FSGSBASE | CR4_OSXSAVE;
    sregs.efer = EFER_BITS;
    if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) == 0)
        return 0;
    sregs.cr4 &= ~CR4_OSXSAVE; /* refused where CPUID hides XSAVE */
    return ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) < 0 ? -errno : 0;
}

/*
 * A new thread starts with clean vector registers, also where an old one lived before. Not
 * KVM_SET_FPU: it leaves MXCSR alone.
 */
static int vectors_clear(struct vcpu *vcpu)
{
    struct kvm_xsave area = {{0}};
    area.region[XSAVE_FCW_WORD] = 0x37f;
    area.region[XSAVE_MXCSR_WORD] = 0x1f80;
    area.region[XSAVE_STATE_WORD] = 3; /* x87 and SSE as given here, the rest as after a reset */
    return ioctl(vcpu->fd, KVM_SET_XSAVE, &area) < 0 ? -errno : 0;
}

int vcpu_reset(struct vcpu *vcpu, gpa_t rip, uint64_t argument)
{
    struct kvm_regs regs = {
        .rip = rip,
        .rsp = kernel_stack(vcpu->index),
        .rdi = argument,
        .rflags = RFLAGS_RING3,
    };
    struct fv_vcpu *page = vcpu->page;
    memset(page, 0, sizeof(*page));
    page->self = page_gpa(vcpu->index);
    page->index = vcpu->index;
    page->tid = (uint32_t)vcpu->tid;
    page->kernel_stack = kernel_stack(vcpu->index);
    vcpu->run->kvm_dirty_regs = 0;
    poller_forget(vcpu); /* the previous thread did not ask for it any more */
    int error = sregs_set(vcpu);
    if (!error)
        error = vectors_clear(vcpu);
    if (!error && ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0)
        error = -errno;
    return error;
}

static int memory_map(struct vcpu *vcpu)
{
    struct vm *vm = vcpu->vm;
    int error = system_tables_vcpu(vm, vcpu->index);
    if (!error)
        error = ept_map_kernel(vm->ept, page_gpa(vcpu->index), FV_VCPU_STRIDE, EPT_READ | EPT_WRITE,
                               true);
    vcpu->page = ept_hva(vm->ept, page_gpa(vcpu->index));
    return error;
}

static int run_map(struct vcpu *vcpu)
{
    void *run = mmap(NULL, vcpu->vm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (run == MAP_FAILED)
        return -errno;
    vcpu->run = run;
    vcpu->run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
    return 0;
}

/*
 * KVM keeps a vCPU until the machine is gone, closed or not, and refuses its number to another
 * (EEXIST). So where the set-up fails after it was made, the next attempt, whose index is the same,
 * takes another number: a moment without memory would else be the last that a thread could start.
 */
static int number_take(struct vm *vm)
{
    return (int)atomic_fetch_add(&vm->kvm_vcpus, 1);
}

int vcpu_open(struct vcpu *vcpu)
{
    vcpu->fd = ioctl(vcpu->vm->vm_fd, KVM_CREATE_VCPU, number_take(vcpu->vm));
    int error = vcpu->fd < 0 ? -errno : 0;
    if (!error)
        error = run_map(vcpu);
    if (!error)
        error = memory_map(vcpu);
    if (!error)
        error = cpuid_set(vcpu);
    if (!error)
        error = sregs_set(vcpu);
    if (!error)
        error = msrs_set(vcpu);
    if (error) {
        message_error("kvm: vcpu %u: set-up: %s", vcpu->index, strerror(-error));
        vcpu_close(vcpu);
        return error;
    }
    xcr0_set(vcpu);
    tsc_align(vcpu);
    kvm_counters_open(vcpu);
    return 0;
}

void vcpu_close(struct vcpu *vcpu)
{
    kvm_counters_close(vcpu);
    if (vcpu->run)
        munmap(vcpu->run, vcpu->vm->run_bytes);
    vcpu->run = NULL;
    if (vcpu->fd >= 0)
        close(vcpu->fd);
    vcpu->fd = -1;
}
