/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptor tables and trap stacks, in FV_SYSTEM_BASE: reachable from ring 0 only, so a program
 * cannot forge them. One IDT for all; one page a vCPU with its GDT, TSS and trap stack, so that
 * exceptions of different vCPUs never share memory. SDM vol. 3, chapters 3, 6 and 8.
 */
#include "vmm/machine.h"

#include <string.h>

#define GDT_ENTRIES    9 /* null, unused, code 0, data 0, unused, data 3, code 3, TSS (16 bytes) */
#define TSS_SELECTOR   0x38
#define TSS_OFFSET     0x80
#define TSS_LIMIT      0x67
#define GDT_CODE_RING0 0x00af9b000000ffffULL
#define GDT_DATA_RING0 0x00cf93000000ffffULL
#define GDT_CODE_RING3 0x00affb000000ffffULL
#define GDT_DATA_RING3 0x00cff3000000ffffULL

#define IDT_BASE   FV_SYSTEM_BASE
#define VCPU_PAGES (FV_SYSTEM_BASE + FV_PAGE_SIZE)

_Static_assert((FV_VCPU_MAX + 1) * FV_PAGE_SIZE <= FV_SYSTEM_SIZE, "one page a vCPU and the IDT");

static gpa_t vcpu_page(uint32_t index)
{
    return VCPU_PAGES + (gpa_t)index * FV_PAGE_SIZE;
}

gpa_t system_trap_stack_top(uint32_t index)
{
    return vcpu_page(index) + FV_PAGE_SIZE;
}

gpa_t system_trap_stack_bottom(uint32_t index)
{
    return vcpu_page(index) + TSS_OFFSET + TSS_LIMIT + 1;
}

/* 64-bit interrupt gate through IST 1: whatever runs, a trap starts on the vCPU's own stack. */
static void gate_set(uint64_t *gate, gpa_t handler, unsigned dpl)
{
    uint64_t flags = 0x8e01ULL | (uint64_t)dpl << 13;
    gate[0] = (handler & 0xffff) | (uint64_t)FV_CS_KERNEL << 16 | flags << 32 |
              (handler >> 16 & 0xffff) << 48;
    /* flags' low byte is the IST index, its high byte type, DPL and present. */
    gate[1] = handler >> 32;
}

int system_tables_create(struct vm *vm)
{
    uint64_t *idt = ept_hva(vm->ept, IDT_BASE);
    for (unsigned vector = 0; vector < FV_VECTOR_COUNT; vector++) {
        /* int3 and into are the two a program may raise by an instruction of its own. */
        unsigned dpl = vector == 3 || vector == 4 ? 3 : 0;
        gate_set(&idt[(size_t)vector * 2], vm->image.vectors + (gpa_t)vector * FV_VECTOR_STRIDE,
                 dpl);
    }
    return ept_map_kernel(vm->ept, IDT_BASE, FV_PAGE_SIZE, EPT_READ | EPT_WRITE, false);
}

int system_tables_vcpu(struct vm *vm, uint32_t index)
{
    gpa_t page = vcpu_page(index), tss = page + TSS_OFFSET, stack = system_trap_stack_top(index);
    uint8_t *host = ept_hva(vm->ept, page);
    uint64_t gdt[GDT_ENTRIES] = {0};
    gdt[FV_CS_KERNEL / 8] = GDT_CODE_RING0;
    gdt[FV_SS_KERNEL / 8] = GDT_DATA_RING0;
    gdt[FV_SS_USER / 8] = GDT_DATA_RING3;
    gdt[FV_CS_USER / 8] = GDT_CODE_RING3;
    gdt[TSS_SELECTOR / 8] =
        TSS_LIMIT | (tss & 0xffffff) << 16 | 0x8bULL << 40 | (tss >> 24 & 0xff) << 56;
    gdt[TSS_SELECTOR / 8 + 1] = tss >> 32;
    memcpy(host, gdt, sizeof(gdt));
    memcpy(host + TSS_OFFSET + 0x04, &stack, sizeof(stack)); /* RSP0 */
    memcpy(host + TSS_OFFSET + 0x24, &stack, sizeof(stack)); /* IST 1 */
    return ept_map_kernel(vm->ept, page, FV_PAGE_SIZE, EPT_READ | EPT_WRITE, false);
}

static struct kvm_segment segment(uint16_t selector, uint8_t type, uint8_t dpl, bool code)
{
    return (struct kvm_segment){
        .limit = 0xffffffff,
        .selector = selector,
        .type = type,
        .present = 1,
        .dpl = dpl,
        .db = !code,
        .s = 1,
        .l = code,
        .g = 1,
    };
}

void system_tables_load(uint32_t index, struct kvm_sregs *sregs)
{
    system_tables_ring3(sregs);
    sregs->ds = sregs->es = sregs->ss;
    sregs->fs = sregs->gs = segment(0, 3, 3, false);
    sregs->ldt = (struct kvm_segment){.unusable = 1};
    sregs->tr = (struct kvm_segment){
        .base = vcpu_page(index) + TSS_OFFSET,
        .limit = TSS_LIMIT,
        .selector = TSS_SELECTOR,
        .type = 11,
        .present = 1,
    };
    sregs->gdt = (struct kvm_dtable){.base = vcpu_page(index), .limit = GDT_ENTRIES * 8 - 1};
    sregs->idt = (struct kvm_dtable){.base = IDT_BASE, .limit = FV_VECTOR_COUNT * 16 - 1};
}

void system_tables_ring3(struct kvm_sregs *sregs)
{
    sregs->cs = segment(FV_CS_USER, 11, 3, true);
    sregs->ss = segment(FV_SS_USER, 3, 3, false);
}
