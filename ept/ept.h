/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The second stage: guest-physical memory, its page table of states, and the mechanisms that move a
 * page between states. Knows nothing of why a page moves (fault/) nor where its bytes come from.
 *
 * Two tables cover the same addresses, because guest-virtual equals guest-physical:
 *   - the page table of states, one atomic 64-bit word a page (struct below), the VMM's own;
 *   - the guest's x86 page tables, 4 KiB leaves, written only by the VMM. They carry the program's
 *     protections (so a guard page really faults, with an address) and the CPU's or KVM's Accessed
 *     and Dirty bits (so a clean page is known without an exit, on EPT, NPT and shadow alike).
 *     Demand paging itself never touches them: a remote page is a second-stage miss.
 *
 * Page states and every legal transition (tests/model/page.pml checks them):
 *
 *   from      to        who                      meaning
 *   ABSENT    FILLING   faulting thread          first touch: zero page or file contents
 *   REMOTE    FETCHING  faulting/prefetch thread a read from the memory node is on its way
 *   FILLING   LOCAL     the same thread          installed
 *   FETCHING  LOCAL     the same thread          installed; guest D bit is the dirty state from
 * here FILLING   ABSENT    the same thread          fill failed or was cancelled FETCHING  REMOTE
 * the same thread          fetch failed or was cancelled LOCAL     EVICTING  reclaimer, pins = 0
 * write-protected; reads still hit; writers wait EVICTING  LOCAL     reclaimer rescued: a writer or
 * a pin asked for it EVICTING  DROPPING  reclaimer                written back (or clean), nobody
 * asked for it DROPPING  REMOTE    reclaimer                page freed here; the remote copy is the
 * only one DROPPING  ABSENT    reclaimer                page freed here; it held only zeroes or
 * clean file bytes LOCAL     DISCARDING, REMOTE DISCARDING, ABSENT DISCARDING   munmap/madvise
 * thread, pins = 0 DISCARDING ABSENT   the same thread          contents gone for good, remote copy
 * forgotten
 */
#ifndef FARVISOR_EPT_H
#define FARVISOR_EPT_H

#include "farvisor/abi.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EPT_PAGE_SHIFT 12
#define EPT_PAGE_BYTES 4096u
#define EPT_SLOT_BYTES (1ULL << 30) /* memslots are added in these units, aligned */

/* What the program may do with a page. */
#define EPT_NONE  0u
#define EPT_READ  1u
#define EPT_WRITE 2u
#define EPT_EXEC  4u

struct ept;

struct ept_config {
    int kvm_fd;
    int vm_fd;
    bool paged;     /* pages come and go by userfaultfd; false: the host kernel fills every page */
    bool exit_mode; /* misses end KVM_RUN with EFAULT (else they become userfaultfd events) */
};

/* ---- ept.c: life, memslots, addresses ---- */

/* Creates guest memory and the pinned kernel region. Returns 0 or -errno after one message. */
int ept_create(struct ept **out, const struct ept_config *config);
void ept_destroy(struct ept *ept);

gpa_t ept_span(const struct ept *ept); /* end of guest-physical address space, exclusive */

/* Host address of a guest address. Pure arithmetic: touch it only if the page is pinned. */
void *ept_hva(const struct ept *ept, gpa_t gpa);
bool ept_gpa_of(const struct ept *ept, const void *hva, gpa_t *gpa);

/* Makes [gpa, gpa + bytes) backed by memslots; must precede any guest access. 0 or -errno. */
int ept_back(struct ept *ept, gpa_t gpa, uint64_t bytes);

/* userfaultfd for reading events (uffd mode), else -1. */
int ept_event_fd(const struct ept *ept);

/* ---- tables.c: the guest's page tables ---- */

uint64_t ept_root(const struct ept *ept); /* guest CR3 */

/* Maps part of the pinned kernel region; `user`: reachable from ring 3. */
int ept_map_kernel(struct ept *ept, gpa_t gpa, uint64_t bytes, unsigned access, bool user);

/*
 * Sets the program's access to [gpa, gpa + bytes) (page aligned). Leaf tables are made only for
 * ranges up to EPT_EAGER_BYTES; the rest appear at ept_table_fault. Revoked rights are flushed from
 * every vCPU before it returns.
 */
int ept_protect(struct ept *ept, gpa_t gpa, uint64_t bytes, unsigned access);

/* Leaf entries for the 2 MiB around gpa within [first, last) get `access`, where they have none. */
int ept_table_fault(struct ept *ept, gpa_t gpa, gpa_t first, gpa_t last, unsigned access);
#endif
