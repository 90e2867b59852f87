/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's x86 page tables (SDM vol. 3, 4.5: 4-level paging, 4 KiB leaves). Identity mapping, so
 * an entry says nothing about where a page is, only what the program may do with it; and the CPU
 * (EPT, NPT) or KVM (shadow paging) keeps Accessed and Dirty bits in it for us at no cost in exits.
 *
 * Written by the VMM alone, from a pool that is mapped at no guest-virtual address. Tables are
 * never freed: a guest can make at most one leaf table for each 2 MiB it ever mapped.
 */
#include "ept/ept_internal.h"
#include "support.h"

#include <errno.h>
#include <string.h>

#define PTE_PRESENT  (1ULL << 0)
#define PTE_WRITE    (1ULL << 1)
#define PTE_USER     (1ULL << 2)
#define PTE_ACCESSED (1ULL << 5)
#define PTE_DIRTY    (1ULL << 6)
#define PTE_NX       (1ULL << 63)
#define PTE_FRAME    0x000ffffffffff000ULL
#define PTE_RIGHTS   (PTE_PRESENT | PTE_WRITE | PTE_USER | PTE_NX)

#define LEAF_PAGES 512u
#define LEAF_BYTES (LEAF_PAGES * (uint64_t)EPT_PAGE_BYTES)

typedef _Atomic uint64_t pte_t;

static pte_t *table_at(const struct ept *ept, gpa_t table)
{
    return ept_hva(ept, table);
}

/* Caller holds table_lock. 0 when the pool is exhausted. */
static gpa_t table_alloc(struct ept *ept)
{
    if (ept->table_next >= FV_TABLES_SIZE / EPT_PAGE_BYTES)
        return 0;
    return FV_TABLES_BASE + EPT_PAGE_BYTES * ept->table_next++;
}

/* The leaf table for gpa, or NULL. Lock-free: entries of upper tables change once, from 0. */
static pte_t *leaf_find(const struct ept *ept, gpa_t gpa)
{
    gpa_t table = FV_TABLES_BASE;
    for (int shift = 39; shift > 12; shift -= 9) {
        uint64_t entry =
            atomic_load_explicit(&table_at(ept, table)[gpa >> shift & 511], memory_order_acquire);
        if (!(entry & PTE_PRESENT))
            return NULL;
        table = entry & PTE_FRAME;
    }
    return table_at(ept, table);
}

/* Caller holds table_lock. */
static pte_t *leaf_make(struct ept *ept, gpa_t gpa)
{
    gpa_t table = FV_TABLES_BASE;
    for (int shift = 39; shift > 12; shift -= 9) {
        pte_t *entry = &table_at(ept, table)[gpa >> shift & 511];
        uint64_t value = atomic_load(entry);
        if (!(value & PTE_PRESENT)) {
            gpa_t next = table_alloc(ept);
            if (!next)
                return NULL;
            value = next | PTE_PRESENT | PTE_WRITE | PTE_USER | PTE_ACCESSED;
            atomic_store_explicit(entry, value, memory_order_release);
        }
        table = value & PTE_FRAME;
    }
    return table_at(ept, table);
}

static uint64_t rights_of(unsigned access)
{
    if (!(access & (EPT_READ | EPT_WRITE | EPT_EXEC)))
        return 0;
    return PTE_PRESENT | PTE_USER | (access & EPT_WRITE ? PTE_WRITE : 0) |
           (access & EPT_EXEC ? 0 : PTE_NX);
}

/* Would a translation cached under `old` allow what `new` forbids? NX counts the other way round.
 */
static bool revokes(uint64_t old, uint64_t new)
{
    if (!(old & PTE_PRESENT))
        return false;
    return !(new &PTE_PRESENT) || (old & PTE_WRITE && !(new &PTE_WRITE)) ||
           (!(old & PTE_NX) && new &PTE_NX);
}

/*
 * Changes rights and keeps A and D: even in an entry that is not present they stay true of the
 * page, which may become accessible again. The compare-and-swap is against the CPU setting A or D.
 */
static bool entry_set(pte_t *entry, gpa_t gpa, uint64_t rights, uint64_t new_bits)
{
    uint64_t old = atomic_load_explicit(entry, memory_order_relaxed), new;
    do {
        uint64_t kept = old ? old & (PTE_ACCESSED | PTE_DIRTY) : 0;
        new = gpa | rights | kept | (rights ? new_bits : 0);
        if (!rights && !old)
            return false;
    } while (!atomic_compare_exchange_weak(entry, &old, new));
    return revokes(old, new);
}

int ept_tables_create(struct ept *ept)
{
    ept->table_next = 1; /* the root */
    return 0;
}

uint64_t ept_root(const struct ept *ept)
{
    (void)ept;
    return FV_TABLES_BASE;
}

uint64_t ept_table_bytes(const struct ept *ept)
{
    return ept->table_next * EPT_PAGE_BYTES;
}

int ept_map_kernel(struct ept *ept, gpa_t gpa, uint64_t bytes, unsigned access, bool user)
{
    uint64_t rights = rights_of(access) & (user ? ~0ULL : ~PTE_USER);
    int error = 0;
    FV_ASSERT(gpa >= FV_KERNEL_BASE && gpa + bytes <= FV_TABLES_BASE);
    pthread_mutex_lock(&ept->table_lock);
    for (gpa_t at = gpa & ~0xfffULL; at < gpa + bytes && !error; at += EPT_PAGE_BYTES) {
        pte_t *leaf = leaf_make(ept, at);
        if (leaf)
            entry_set(&leaf[at >> 12 & 511], at, rights, PTE_ACCESSED | PTE_DIRTY);
        else
            error = -ENOMEM;
    }
    pthread_mutex_unlock(&ept->table_lock);
    return error;
}

/* Sets [gpa, end), all in one leaf table; *flush gathers whether rights were taken away. */
static int leaf_protect(struct ept *ept, gpa_t gpa, gpa_t end, unsigned access, bool make,
                        bool *flush)
{
    pte_t *leaf = leaf_find(ept, gpa);
    if (!leaf) {
        if (!make || !rights_of(access))
            return 0;
        leaf = leaf_make(ept, gpa);
        if (!leaf)
            return -ENOMEM;
    }
    uint64_t rights = rights_of(access);
    uint64_t bits = PTE_ACCESSED | (ept->config.paged ? 0 : PTE_DIRTY);
    for (; gpa < end; gpa += EPT_PAGE_BYTES)
        *flush |= entry_set(&leaf[gpa >> 12 & 511], gpa, rights, bits);
    return 0;
}

/* Pages of a file that are the host's own come back by themselves; and where the file may not be
 * written to, or not be executed, ept_flush would be refused. */
static int range_flush(struct ept *ept, gpa_t gpa, uint64_t bytes, bool host_file)
{
    uint64_t page = gpa >> EPT_PAGE_SHIFT, pages = bytes >> EPT_PAGE_SHIFT;
    return host_file ? ept_unmap(ept, page, pages) : ept_flush(ept, page, pages);
}

int ept_protect(struct ept *ept, gpa_t gpa, uint64_t bytes, unsigned access)
{
    bool make = bytes <= EPT_EAGER_BYTES, flush = false;
    gpa_t end = gpa + bytes;
    int error = 0;
    pthread_mutex_lock(&ept->table_lock);
    for (gpa_t at = gpa, next; at < end && !error; at = next) {
        next = (at & ~(LEAF_BYTES - 1)) + LEAF_BYTES;
        if (next > end)
            next = end;
        bool leaf_flush = false;
        /* Unpaged, a whole block waits for its first touch: mm.c then has it filled at once. */
        bool whole = !ept->config.paged && next - at == LEAF_BYTES && bytes > LEAF_BYTES;
        error = leaf_protect(ept, at, next, access, make && !whole, &leaf_flush);
        flush |= leaf_flush;
    }
    pthread_mutex_unlock(&ept->table_lock);
    int flushed = flush ? range_flush(ept, gpa, bytes, access & EPT_HOST_FILE) : 0;
    return error ? error : flushed;
}

unsigned ept_table_access(const struct ept *ept, gpa_t gpa)
{
    pte_t *leaf = leaf_find(ept, gpa);
    uint64_t entry = leaf ? atomic_load(&leaf[gpa >> 12 & 511]) : 0;
    if (!(entry & PTE_PRESENT))
        return EPT_NONE;
    return EPT_READ | (entry & PTE_WRITE ? EPT_WRITE : 0) | (entry & PTE_NX ? 0 : EPT_EXEC);
}

static bool bit_test(const struct ept *ept, uint64_t page, uint64_t bit)
{
    pte_t *leaf = leaf_find(ept, page << EPT_PAGE_SHIFT);
    return leaf && atomic_load(&leaf[page & 511]) & bit;
}

bool ept_dirty(const struct ept *ept, uint64_t page)
{
    return bit_test(ept, page, PTE_DIRTY);
}

bool ept_accessed(const struct ept *ept, uint64_t page)
{
    return bit_test(ept, page, PTE_ACCESSED);
}

void ept_prime(struct ept *ept, uint64_t page, uint64_t pages, bool accessed, bool dirty)
{
    uint64_t bits = (accessed ? PTE_ACCESSED : 0) | (dirty ? PTE_DIRTY : 0);
    for (uint64_t end = page + pages; page < end;) {
        uint64_t leaf_end = (page | (LEAF_PAGES - 1)) + 1;
        pte_t *leaf = leaf_find(ept, page << EPT_PAGE_SHIFT);
        for (; page < leaf_end && page < end; page++)
            if (leaf &&
                (atomic_load_explicit(&leaf[page & 511], memory_order_relaxed) & bits) != bits &&
                atomic_load_explicit(&leaf[page & 511], memory_order_relaxed))
                atomic_fetch_or(&leaf[page & 511], bits);
    }
}

void ept_dirty_clear(struct ept *ept, uint64_t page)
{
    pte_t *leaf = leaf_find(ept, page << EPT_PAGE_SHIFT);
    if (leaf)
        atomic_fetch_and(&leaf[page & 511], ~PTE_DIRTY);
}

void ept_accessed_clear(struct ept *ept, uint64_t page)
{
    pte_t *leaf = leaf_find(ept, page << EPT_PAGE_SHIFT);
    if (leaf)
        atomic_fetch_and(&leaf[page & 511], ~PTE_ACCESSED);
}
