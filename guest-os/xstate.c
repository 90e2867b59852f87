/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program's FPU and vector state. The kernel never uses it, so it simply stays in the
 * registers; only signal frames save and restore it, by XSAVE in its standard form. Components
 * beyond AVX-512 are left alone: nobody can enable AMX here (arch_prctl refuses), and protection
 * keys are not part of a program's first state. SDM vol. 1, chapter 13.
 */
#include "guest-os/kernel.h"

#define FEATURES_LEGACY 0x3  /* x87, SSE */
#define FEATURES_KNOWN  0xe7 /* and AVX, AVX-512 */
#define LEGACY_BYTES    512
#define HEADER_BYTES    64
#define MXCSR_OFFSET    24
#define MXCSR_DEFAULT   0x1f80
#define MXCSR_VALID     0xffff
#define X87_DEFAULT     0x37f

static uint64_t features = FEATURES_LEGACY;
static uint32_t area_bytes = LEGACY_BYTES + HEADER_BYTES;

static void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t *eax, uint32_t *ebx)
{
    uint32_t ecx = subleaf, edx;
    __asm__ volatile("cpuid" : "=a"(*eax), "=b"(*ebx), "+c"(ecx), "=d"(edx) : "0"(leaf));
}

void xstate_init(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    features = low & FEATURES_KNOWN;
    area_bytes = LEGACY_BYTES + HEADER_BYTES;
    for (uint32_t component = 2; component < 8; component++) {
        uint32_t bytes, offset;
        if ((features >> component & 1) == 0)
            continue;
        cpuid(0xd, component, &bytes, &offset);
        if (offset + bytes > XSTATE_MAX)
            features &= ~(1ULL << component);
        else if (offset + bytes > area_bytes)
            area_bytes = offset + bytes;
    }
}

uint32_t xstate_bytes(void)
{
    return area_bytes;
}

uint64_t xstate_features(void)
{
    return features;
}

void xstate_save(void *area)
{
    memset((char *)area + LEGACY_BYTES, 0, HEADER_BYTES);
    __asm__ volatile("xsave64 (%0)" ::"r"(area), "a"((uint32_t)features), "d"(0) : "memory");
}

void xstate_restore(void *area)
{
    /* XRSTOR faults on what it does not know; the program may have written anything. */
    uint64_t *header = (uint64_t *)((char *)area + LEGACY_BYTES);
    uint32_t *mxcsr = (uint32_t *)((char *)area + MXCSR_OFFSET);
    header[0] &= features;
    memset(header + 1, 0, HEADER_BYTES - sizeof(*header));
    *mxcsr &= MXCSR_VALID;
    __asm__ volatile("xrstor64 (%0)" ::"r"(area), "a"((uint32_t)features), "d"(0) : "memory");
}

void xstate_reset(void)
{
    /* xstate_bv zero gives every component its first state. The rest of the area is not used, but
     * the CPU may check that all of it can be read (AMD's does). */
    _Alignas(64) uint8_t area[XSTATE_MAX];
    memset(area, 0, LEGACY_BYTES + HEADER_BYTES);
    uint32_t mxcsr = MXCSR_DEFAULT;
    memcpy(area + MXCSR_OFFSET, &mxcsr, sizeof(mxcsr));
    xstate_restore(area);
}

void xstate_control_get(uint32_t *mxcsr, uint16_t *x87_control)
{
    __asm__ volatile("stmxcsr %0; fnstcw %1" : "=m"(*mxcsr), "=m"(*x87_control));
}

void xstate_control_set(uint32_t mxcsr, uint16_t x87_control)
{
    __asm__ volatile("ldmxcsr %0; fldcw %1" ::"m"(mxcsr), "m"(x87_control));
}
