/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life of the second stage: the address space on the host side and its memslots. All guest memory
 * is one linear reservation, so that a host address is base + guest address; 1 GiB pieces of it
 * become a memslot, backed by one memfd, when the program first maps something there (KVM keeps 8
 * bytes of reverse map a page of a slot under shadow paging: one slot of terabytes would be dear).
 */
#include "ept/ept_internal.h"
#include "support.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

static unsigned host_address_bits(void)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(0x80000008, &a, &b, &c, &d))
        return 36;
    return a & 0xff;
}

static void *reserve(size_t bytes, int protection)
{
    void *at = mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

/*
 * A second-stage entry covers 2 MiB only where guest and host address are the same modulo 2 MiB,
 * and Linux before 6.7 gives a large mapping any page's address.
 */
static void *reserve_aligned(size_t bytes, size_t alignment)
{
    uint8_t *at = reserve(bytes + alignment, PROT_NONE);
    if (!at)
        return NULL;
    size_t before = -(uintptr_t)at & (alignment - 1);
    if (before)
        munmap(at, before);
    munmap(at + before + bytes, alignment - before);
    return at + before;
}

static int slot_set(struct ept *ept, gpa_t gpa)
{
    struct kvm_userspace_memory_region region = {
        .slot = (uint32_t)(gpa / EPT_SLOT_BYTES),
        .guest_phys_addr = gpa,
        .memory_size = EPT_SLOT_BYTES,
        .userspace_addr = (uintptr_t)(ept->base + gpa),
    };
    if (ioctl(ept->config.vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0) {
        int error = errno;
        message_error("kvm: memory slot at 0x%llx: %s", (unsigned long long)gpa, strerror(error));
        return -error;
    }
    atomic_store(&ept->slot_backed[region.slot], true);
    return 0;
}

/* The kernel region is ordinary private memory: never registered, never punched, always there. */
static int kernel_region_create(struct ept *ept)
{
    void *at = ept->base + FV_KERNEL_BASE;
    if (mprotect(at, FV_KERNEL_SIZE, PROT_READ | PROT_WRITE) < 0)
        return -errno;
    madvise(at, FV_KERNEL_SIZE, MADV_NOHUGEPAGE);
    return slot_set(ept, FV_KERNEL_BASE);
}

static int address_space_create(struct ept *ept)
{
    unsigned bits = host_address_bits();
    if (bits < 39) {
        message_error("host: %u physical address bits: farvisor needs 39", bits);
        return -ENOTSUP;
    }
    if (bits > EPT_SPAN_BITS_MAX)
        bits = EPT_SPAN_BITS_MAX;
    ept->span_bytes = 1ULL << bits;
    ept->base = reserve_aligned(ept->span_bytes, EPT_SLOT_BYTES);
    ept->words =
        reserve((ept->span_bytes >> EPT_PAGE_SHIFT) * sizeof(ept_word_t), PROT_READ | PROT_WRITE);
    if (!ept->base || !ept->words) {
        message_error("host: reserve %llu GiB of address space: %s (see ulimit -v)",
                      (unsigned long long)(ept->span_bytes >> 30), strerror(errno));
        return -ENOMEM;
    }
    madvise(ept->words, (ept->span_bytes >> EPT_PAGE_SHIFT) * sizeof(ept_word_t), MADV_NOHUGEPAGE);
    ept->memory_fd = memfd_create("farvisor-guest", MFD_CLOEXEC);
    if (ept->memory_fd < 0 || ftruncate(ept->memory_fd, (off_t)ept->span_bytes) < 0) {
        int error = errno;
        message_error("host: guest memory file: %s", strerror(error));
        return -error;
    }
    return 0;
}

int ept_create(struct ept **out, const struct ept_config *config)
{
    struct ept *ept = calloc(1, sizeof(*ept));
    if (!ept)
        return -ENOMEM;
    ept->config = *config;
    ept->memory_fd = ept->uffd = -1;
    ept->statm_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    pthread_mutex_init(&ept->slot_lock, NULL);
    pthread_mutex_init(&ept->table_lock, NULL);
    int error = address_space_create(ept);
    if (!error)
        error = kernel_region_create(ept);
    if (!error)
        error = ept_tables_create(ept);
    if (!error)
        error = ept_frames_create(ept);
    if (!error)
        ept_ahead_create(ept);
    if (error) {
        ept_destroy(ept);
        return error;
    }
    *out = ept;
    return 0;
}

void ept_destroy(struct ept *ept)
{
    if (!ept)
        return;
    if (ept->base)
        munmap(ept->base, ept->span_bytes);
    if (ept->words)
        munmap(ept->words, (ept->span_bytes >> EPT_PAGE_SHIFT) * sizeof(ept_word_t));
    if (ept->uffd >= 0)
        close(ept->uffd);
    if (ept->memory_fd >= 0)
        close(ept->memory_fd);
    if (ept->statm_fd >= 0)
        close(ept->statm_fd);
    pthread_mutex_destroy(&ept->slot_lock);
    pthread_mutex_destroy(&ept->table_lock);
    free(ept);
}

gpa_t ept_span(const struct ept *ept)
{
    return ept->span_bytes;
}

ept_word_t *ept_words(const struct ept *ept)
{
    return ept->words;
}

void *ept_hva(const struct ept *ept, gpa_t gpa)
{
    return ept->base + gpa;
}

bool ept_gpa_of(const struct ept *ept, const void *hva, gpa_t *gpa)
{
    uintptr_t at = (uintptr_t)hva, base = (uintptr_t)ept->base;
    if (at < base || at - base >= ept->span_bytes)
        return false;
    *gpa = at - base;
    return true;
}

/* Of memory in use: with what the host has there now nobody may go on. */
static _Noreturn void memory_lost(gpa_t gpa, int error)
{
    message_error("host: guest memory at 0x%llx: lost: %s", (unsigned long long)gpa,
                  strerror(error));
    _exit(125);
}

/*
 * Puts a mapping that was made elsewhere into the guest's memory, in one step. It is not made
 * there: what Linux refuses late (a file of sysfs, say) leaves a hole where the old mapping was,
 * and what this process maps next, a stack or a heap, would lie there in the guest's hands.
 */
static int range_place(struct ept *ept, void *aside, gpa_t gpa, uint64_t bytes)
{
    void *at = ept->base + gpa;
    if (mremap(aside, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, at) != MAP_FAILED)
        return 0;
    int error = errno;
    munmap(aside, bytes);
    if (msync(at, bytes, MS_ASYNC) < 0)
        memory_lost(gpa, error);
    return -error;
}

/*
 * Paged memory is a shared mapping of the memfd: its pages can be unmapped without being lost, and
 * punched out. Unpaged memory is ordinary private memory. Neither gets huge pages by itself: where
 * pages move one by one a huge page would be installed, evicted and counted as one, and elsewhere a
 * program that uses a little of much would hold more than it may. ept_populate asks for them.
 */
int ept_map_memory(struct ept *ept, gpa_t gpa, uint64_t bytes)
{
    bool paged = ept->config.paged;
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_NORESERVE | (paged ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS),
                    paged ? ept->memory_fd : -1, paged ? (off_t)gpa : 0);
    if (at == MAP_FAILED)
        return -errno;
    int error = range_place(ept, at, gpa, bytes);
    if (error)
        return error;
    at = ept->base + gpa;
    madvise(at, bytes, MADV_NOHUGEPAGE); /* here, where the neighbours have it, too, and merge */
    if (paged) {
        error = ept_frames_watch(ept, gpa, bytes);
        if (error && atomic_load(&ept->slot_backed[gpa / EPT_SLOT_BYTES]))
            memory_lost(gpa, -error);
        return error;
    }
    /* Parts that differ for a while become one mapping of the host again only if all of it had a
     * page before (Linux before 6.16): ept_populate would leave one for every 2 MiB. */
    uint8_t *last = (uint8_t *)at + bytes - EPT_PAGE_BYTES;
    madvise(last, EPT_PAGE_BYTES, MADV_POPULATE_WRITE);
    madvise(last, EPT_PAGE_BYTES, MADV_DONTNEED);
    return 0;
}

int ept_map_file(struct ept *ept, gpa_t gpa, uint64_t bytes, int fd, uint64_t offset_bytes,
                 bool writable)
{
    void *at = mmap(NULL, bytes, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd,
                    (off_t)offset_bytes);
    return at == MAP_FAILED ? -errno : range_place(ept, at, gpa, bytes);
}

static int slot_back(struct ept *ept, gpa_t gpa)
{
    int error = ept_map_memory(ept, gpa, EPT_SLOT_BYTES);
    return error ? error : slot_set(ept, gpa);
}

int ept_back(struct ept *ept, gpa_t gpa, uint64_t bytes)
{
    gpa_t end;
    if (__builtin_add_overflow(gpa, bytes, &end) || end > ept->span_bytes)
        return -ENOMEM;
    for (gpa_t at = gpa & ~(EPT_SLOT_BYTES - 1); at < end; at += EPT_SLOT_BYTES) {
        if (atomic_load_explicit(&ept->slot_backed[at / EPT_SLOT_BYTES], memory_order_acquire))
            continue;
        int error = 0;
        pthread_mutex_lock(&ept->slot_lock);
        if (!atomic_load(&ept->slot_backed[at / EPT_SLOT_BYTES]))
            error = slot_back(ept, at);
        pthread_mutex_unlock(&ept->slot_lock);
        if (error)
            return error;
    }
    return 0;
}

uint64_t ept_resident_bytes(const struct ept *ept)
{
    struct stat st;
    char text[128];
    if (ept->config.paged)
        return fstat(ept->memory_fd, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
    ssize_t got = pread(ept->statm_fd, text, sizeof(text) - 1, 0);
    unsigned long long total, resident;
    text[got > 0 ? got : 0] = 0;
    return sscanf(text, "%llu %llu", &total, &resident) == 2 ? resident * EPT_PAGE_BYTES : 0;
}
