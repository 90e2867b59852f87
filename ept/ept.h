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
 *   from        to          who, and what it means
 *   ABSENT      FILLING     faulting thread: first touch, zero page or file contents
 *   FILLING     LOCAL       the same thread: installed
 *   FILLING     ABSENT      the same thread: the fill failed, something else is mapped there by
 *                           now, or only the claim was wanted
 *   REMOTE      FETCHING    faulting thread (demand) or holder of a lane (prefetch): a read is out
 *   FETCHING    LOCAL       demand: the same thread; prefetch and open demand: whoever took the
 *                           completion of the read (fault/lane.h). Guest D bit is the dirty state
 *                           from here
 *   FETCHING    REMOTE      likewise: the read failed, or only some bytes were wanted
 *   LOCAL       EVICTING    reclaimer, pins = 0: write-protected; reads still hit, writers wait
 *   EVICTING    LOCAL       reclaimer: rescued, a writer or a pin asked for it
 *   EVICTING    DROPPING    reclaimer: written back (or clean), and nobody asked for it
 *   DROPPING    REMOTE      reclaimer: freed here; the remote copy is the only one
 *   DROPPING    ABSENT      reclaimer: freed here; it held only zeroes, clean file bytes, or
 *                           nothing that lives (fault/live.c)
 *   LOCAL       DISCARDING  munmap/madvise thread, pins = 0
 *   REMOTE      DISCARDING  likewise
 *   DISCARDING  ABSENT      the same thread: contents gone for good, remote copy forgotten
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
/* No right, for ept_protect: the host's own pages of a file lie there (ept_map_file). */
#define EPT_HOST_FILE 8u

/* Ranges up to this get their leaf tables at once; larger ones 2 MiB at a time, when touched. */
#define EPT_EAGER_BYTES (4ULL << 20)

struct ept;

struct ept_config {
    int kvm_fd;
    int vm_fd;
    bool paged;     /* pages come and go; false: the host kernel fills anonymous memory by itself */
    bool exit_mode; /* misses end KVM_RUN with EFAULT (else they become userfaultfd events) */
    bool map_ahead; /* wanted, where KVM can: ahead.c */
};

/* ---- ept.c: life, memslots, addresses ---- */

/* Creates guest memory and the pinned kernel region. Returns 0 or -errno after one message. */
int ept_create(struct ept **out, const struct ept_config *config);
void ept_destroy(struct ept *ept); /* accepts NULL; after the last vCPU is gone */

gpa_t ept_span(const struct ept *ept); /* end of guest-physical address space, exclusive */

/* Host address of a guest address. Pure arithmetic: touch it only if the page is pinned. */
void *ept_hva(const struct ept *ept, gpa_t gpa);
bool ept_gpa_of(const struct ept *ept, const void *hva, gpa_t *gpa);

/* Makes [gpa, gpa + bytes) backed by memslots; must precede any guest access. 0 or -errno. */
int ept_back(struct ept *ept, gpa_t gpa, uint64_t bytes);

/*
 * ept_map_file - put the host's own pages of a file at [gpa, gpa + bytes): shared with every other
 * user of the file, filled and written by the host kernel, no business of the page table of states.
 * Ends with ept_map_memory, which makes the range ordinary empty memory again. No access may be
 * possible meanwhile.
 */
int ept_map_file(struct ept *ept, gpa_t gpa, uint64_t bytes, int fd, uint64_t offset_bytes,
                 bool writable);
int ept_map_memory(struct ept *ept, gpa_t gpa, uint64_t bytes);

/* Bytes of host memory behind the program's pages (paged) or of the whole process (not paged). */
uint64_t ept_resident_bytes(const struct ept *ept);

/* ---- tables.c: the guest's page tables ---- */

uint64_t ept_root(const struct ept *ept); /* guest CR3 */
uint64_t ept_table_bytes(const struct ept *ept);

/* Maps part of the pinned kernel region; `user`: reachable from ring 3. */
int ept_map_kernel(struct ept *ept, gpa_t gpa, uint64_t bytes, unsigned access, bool user);

/*
 * ept_protect - set the program's access to [gpa, gpa + bytes), page aligned. Leaf tables are made
 * at once for ranges up to EPT_EAGER_BYTES, else by ept_table_fault. Rights that were taken away
 * are flushed from every vCPU before it returns, and how depends on what lies there: EPT_HOST_FILE
 * with the access, or not. Callers serialise. Returns 0 or -errno: -ENOMEM, or the flush failed.
 */
int ept_protect(struct ept *ept, gpa_t gpa, uint64_t bytes, unsigned access);

/* What the leaf entry of gpa allows now; EPT_NONE where there is none. */
unsigned ept_table_access(const struct ept *ept, gpa_t gpa);

/* Accessed and dirty state of a page in its leaf entry; false or nothing where there is none. */
bool ept_dirty(const struct ept *ept, uint64_t page);
void ept_dirty_clear(struct ept *ept, uint64_t page);
bool ept_accessed(const struct ept *ept, uint64_t page);
void ept_accessed_clear(struct ept *ept, uint64_t page);
/*
 * ept_prime - set A if `accessed`, and D if `dirty`, for pages about to be installed. KVM's shadow
 * paging maps neighbours of a fault only where A is set, and writable only where D is: 0.9 us a
 * page, not 2.7.
 */
void ept_prime(struct ept *ept, uint64_t page, uint64_t pages, bool accessed, bool dirty);

/* ---- the page table of states (inline: it is on every hot path) ---- */

enum ept_state {
    EPT_ABSENT = 0,
    EPT_LOCAL,
    EPT_REMOTE,
    EPT_FILLING,
    EPT_FETCHING,
    EPT_EVICTING,
    EPT_DROPPING,
    EPT_DISCARDING,
};

/* clang-format off */
#define EPT_STATE_MASK  7ULL
#define EPT_DIRTY       (1ULL << 3) /* written by the VMM, or the D bit cannot be trusted */
#define EPT_COPY        (1ULL << 4) /* the memory node holds a copy (maybe older than ours) */
#define EPT_FILE        (1ULL << 5) /* clean means: can be read from its file again; ABSENT: it was */
#define EPT_RESCUE      (1ULL << 6) /* EVICTING only: somebody wants it to stay */
#define EPT_WAITERS     (1ULL << 7) /* somebody sleeps on the low half of the word */
#define EPT_PREFETCHED  (1ULL << 8) /* LOCAL until it is dropped: fetched unasked, not yet seen used */
#define EPT_ACTIVE      (1ULL << 9) /* LOCAL only: came back soon after it left (fault/clock.c) */
#define EPT_USED        (1ULL << 11) /* was touched after it had been fetched unasked the last time */
#define EPT_PIN         (1ULL << 12)
#define EPT_PIN_MASK    (0xfffULL << 12)
/* FETCHING pages have no pins: the field tells who will install them, 0 a faulting thread;
 * fault/engine_internal.h, word_lane. */
#define EPT_LANE_SHIFT  12
#define EPT_STAMP_SHIFT 32          /* batch of evictions: the page's own (not LOCAL), or the last
                                     * one before it arrived (LOCAL) */
#define EPT_LOW_HALF    0xffffffffULL
/* clang-format on */

/* Bits that are disjoint add up to what they are together. */
_Static_assert(EPT_STATE_MASK + EPT_DIRTY + EPT_COPY + EPT_FILE + EPT_RESCUE + EPT_WAITERS +
                       EPT_PREFETCHED + EPT_ACTIVE + EPT_USED + EPT_PIN_MASK ==
                   (EPT_STATE_MASK | EPT_DIRTY | EPT_COPY | EPT_FILE | EPT_RESCUE | EPT_WAITERS |
                    EPT_PREFETCHED | EPT_ACTIVE | EPT_USED | EPT_PIN_MASK),
               "two flags of a page's word share a bit");

typedef _Atomic uint64_t ept_word_t;

ept_word_t *ept_words(const struct ept *ept); /* indexed by page number, ept_span >> 12 of them */

static inline enum ept_state ept_word_state(uint64_t word)
{
    return (enum ept_state)(word & EPT_STATE_MASK);
}

/* ---- frames.c: mechanisms of the second stage; page numbers and counts; 0 or -errno ---- */

/* Watches an empty range for misses where the table is not paged as a whole (file mappings). */
int ept_watch(struct ept *ept, gpa_t gpa, uint64_t bytes, bool on);
/* Copies `pages` pages from `from` into missing pages. -EEXIST: one was there already. */
int ept_install(struct ept *ept, uint64_t page, const void *from, uint64_t pages);
int ept_install_zero(struct ept *ept, uint64_t page, uint64_t pages);
int ept_write_protect(struct ept *ept, uint64_t page, uint64_t pages, bool on);
/* Stays resident; the next touch maps it again. */
int ept_unmap(struct ept *ept, uint64_t page, uint64_t pages);
int ept_drop(struct ept *ept, uint64_t page, uint64_t pages); /* frees the frames */
/* Takes every translation of the range out of all TLBs; contents stay. */
int ept_flush(struct ept *ept, uint64_t page, uint64_t pages);
/* Not paged only: moves contents within ordinary memory; the old range is empty afterwards. */
int ept_move(struct ept *ept, uint64_t from_page, uint64_t to_page, uint64_t pages);
/* Not paged only: has the host fill a range now, 2 MiB blocks with huge pages if it has some. */
void ept_populate(struct ept *ept, uint64_t page, uint64_t pages);
/* Takes this process's access to a page away (KVM_RUN fails where it touches it), or gives it
 * back. */
int ept_bar(struct ept *ept, uint64_t page, bool on);
/* userfaultfd for reading events (uffd mode), else -1; and wake-up of whoever waits on a range. */
int ept_event_fd(const struct ept *ept);
int ept_wake(struct ept *ept, uint64_t page, uint64_t pages);

/* ---- ahead.c ---- */
/* Can KVM map pages before they are touched, and is it wanted? Cheap. */
bool ept_maps_ahead(const struct ept *ept);
/*
 * ept_map_ahead - maps installed pages in the second stage, for every vCPU, as a read would. Only
 * where ept_maps_ahead, in the thread of the vCPU vcpu_fd, outside KVM_RUN. Returns how many of
 * them from the first on: fewer where one is missing or a signal came, which does no harm.
 */
uint64_t ept_map_ahead(struct ept *ept, int vcpu_fd, uint64_t page, uint64_t pages);

#endif
