/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to the hint channel's files: hints.c (rings and the thread), guides/reads.c (answers),
 * guides/worth.c (is it worth it), guides/calls.c and guides/pins.c (what is asked by a system
 * call).
 *
 * A ring's memory is the guest's: everything read from it is copied once and checked. What is here
 * is the VMM's own and belongs to the hint thread, unless a line says otherwise.
 */
#ifndef FARVISOR_VMM_HINTS_H
#define FARVISOR_VMM_HINTS_H

#include "farvisor/hints.h"
#include "fault/fault.h"
#include "vmm/vmm.h"

#define GUIDE_NAME_BYTES 64u /* of a guide's name as it is shown, with its NUL */

/* A READ or CHAIN under way, one an answer slot. */
struct hint_read {
    struct hint_ring *ring;
    struct fault_peek part[2]; /* the second where the bytes cross into another page */
    unsigned parts, open_parts, next_part;
    int failed; /* first bad status of its parts */
    bool active;
    uint16_t slot, hops; /* of the node being read; nodes left, this one included */
    uint32_t bytes;      /* of a node */
    uint64_t next_bytes; /* CHAIN: where its `next` is */
    unsigned plain;      /* so many nodes by looks before the memory node is asked again ... */
    unsigned reach;      /* ... for so many at most */
    bool chained;        /* the memory node follows it */
    gpa_t address;       /* of the node */
    uint8_t data[FV_READ_BYTES];
};

/* Started pages that wait for their judgement (guides/worth.c); of the thread that starts them. */
#define HINT_SAMPLE_EVERY 8u
#define HINT_SAMPLES      64u
struct hint_samples {
    uint64_t of[HINT_SAMPLES]; /* 0: none */
    uint64_t sampled, unsampled;
};

/* A moment of a thread's. */
struct hint_time {
    uint64_t wall_ns, cpu_ns;
    uint64_t waits; /* so often it went to sleep by itself */
};

/* Upcalls of one vCPU (guides/faults.c); its thread's, but for what is atomic. */
#define GUIDE_RECENT 32u
struct hint_upcalls {
    atomic_bool active;            /* a handler runs */
    atomic_uint entries;           /* so many ran; for the stall watch */
    unsigned watch;                /* index of the watch that the last one was about */
    struct kvm_regs at;            /* ... and its instruction, as the program stood at it */
    struct hint_time start;        /* of the last one */
    uint64_t began_ns;             /* of the first one */
    uint64_t charged_ns;           /* what handlers took longer than their pages */
    uint64_t recent[GUIDE_RECENT]; /* pages that were started and can tell of their use; 0: none */
    unsigned recent_next;
    struct hint_samples samples;
};

struct hint_ring {
    struct hints *hints;
    struct fv_hint_ring *shared; /* the guest's */
    uint32_t index;              /* of its vCPU */
    uint32_t tail;
    bool broken;
    uint64_t page, pages;    /* what is left of the prefetch hint taken last ... */
    uint64_t whole;          /* ... of so many pages */
    uint64_t stuck_ns;       /* since when there has been no room for it; 0: there is */
    uint32_t reading;        /* reads that are active */
    struct hint_read *reads; /* FV_READS; made with the first one */
    /* Since when the thread is inside of which entry of a guide; for the stall watch. */
    uint32_t watched_entry;
    uint64_t watched_cpu_ns, watched_ns;
    struct hint_upcalls upcalls;
};

struct hint_counters {
    _Atomic uint64_t taken, malformed, prefetch_pages, started_pages, left_out_pages, wasted_pages,
        cold_pages;
    _Atomic uint64_t sampled_used, sampled_unused; /* guides/worth.c */
    _Atomic uint64_t reads, read_bytes, sleeps;
    _Atomic uint64_t chains, chain_nodes, chain_stale_nodes;
    _Atomic uint64_t upcalls, upcall_pages; /* handlers run; pages started on their answers */
};

/* Memory whose faults a guide is asked about. Read by any vCPU while it changes: what comes of it
 * is an upcall that the library answers with nothing. */
struct guide_watch {
    _Atomic gpa_t start, end; /* end 0: free */
    char name[GUIDE_NAME_BYTES];
};
#define GUIDE_WATCHES 64u

struct guide_pin {
    gpa_t start, end;
    uint64_t ticket;    /* finds it again: entries move */
    bool coming, ended; /* being pinned, without the lock; ... and to be given up */
};
#define GUIDE_PINS_MAX 1024u

/* Chains that the memory node is asked to follow, all rings together. */
#define HINT_CHAINS 4u

struct hints {
    struct vm *vm;
    int doorbell_fd; /* eventfd, rung by KVM at FV_PORT_HINT */
    bool in_kernel;  /* ... so the port causes no exit to us */
    pthread_t thread;
    bool running; /* under `lock` */
    atomic_bool stop, off;
    struct fault_context *fault;
    pthread_mutex_t lock; /* opening of rings */
    _Atomic(struct hint_ring *) rings[FV_VCPU_MAX];
    atomic_uint ring_count; /* highest index opened, plus one */
    uint64_t spin_ns;
    struct hint_samples samples;        /* of the hint thread */
    _Atomic uint64_t judged, used;      /* guides/worth.c: judgements of samples */
    uint64_t last_started, last_wasted; /* counters at the last judgement of all */
    struct hint_counters counters;
    struct fault_chain *chains; /* HINT_CHAINS; made with the first one; owner NULL: free */

    pthread_mutex_t pin_lock;
    pthread_cond_t pin_settled; /* one that was coming is there, or gone */
    struct guide_pin pins[GUIDE_PINS_MAX];
    atomic_uint pin_count;
    uint64_t pinned_pages, pin_tickets;
    atomic_uint warned; /* OFF requests that were printed */

    pthread_mutex_t watch_lock; /* changes of: */
    struct guide_watch watches[GUIDE_WATCHES];
    atomic_uint watch_count; /* highest one used, plus one */
    atomic_bool upcalls_off; /* a handler failed */
    atomic_bool uffd_warned;
};

static inline void hint_count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* ---- hints.c ---- */
/* Maps and opens the ring of a vCPU, starting the thread with the first one. 0 or -errno. */
int hints_open(struct hints *hints, struct vcpu *vcpu);
/* Cuts [address, address + bytes) to whole pages of the guest's address space. false: none left. */
bool hint_pages(const struct hints *hints, const struct fv_hint *hint, uint64_t *page,
                uint64_t *pages);

/* ---- guides/reads.c ---- */
/* Begins what a copied READ or CHAIN asks; a nonsensical one is answered, or ignored. */
void hint_read_begin(struct hint_ring *ring, const struct fv_hint *hint);
/* Goes on with those that had to wait for a page to settle. */
void hint_reads_retry(struct hint_ring *ring);

/* ---- guides/worth.c ---- */
/*
 * Counts `pages` pages, a part of a hint of `hint_pages`, that are done with: started or not
 * needed, as state[i] (FV_PAGE_*, from before they were started) says. How many were started.
 */
uint64_t hint_worth_passed(struct hints *hints, struct hint_samples *samples, uint64_t page,
                           uint64_t pages, const uint8_t *state, uint64_t hint_pages);
/* Switches the hints of the guest off, with one warning, when too few of them are of use. */
void hint_worth_judge(struct hints *hints);
/* Has a guide been at it for too long? Sends those that have to their rescue. */
void hint_stalls_watch(struct hints *hints);
void hints_switch_off(struct hints *hints);

/* ---- guides/calls.c ---- */
/* A guide's name is the guest's text: printable ASCII up to its NUL, or it is not shown. */
void guide_name_read(struct vm *vm, char name[GUIDE_NAME_BYTES], gpa_t from, uint64_t bytes);
/* Prints once a run that a guide was switched off; `why` is an FV_OFF_*. */
void guide_warn_off(struct hints *hints, uint64_t why, const char *name);

/* ---- guides/faults.c ---- */
int64_t guide_watch(struct vcpu *vcpu, gpa_t gpa, uint64_t bytes, gpa_t name, uint64_t name_bytes);
int64_t guide_unwatch(struct vcpu *vcpu, gpa_t gpa, uint64_t bytes);
int64_t guide_fault_end(struct vcpu *vcpu, uint64_t why);
int64_t guide_copy(struct vcpu *vcpu, gpa_t from, gpa_t to, uint64_t bytes);

/* ---- guides/pins.c ---- */
int64_t guide_pin(struct vcpu *vcpu, gpa_t gpa, uint64_t bytes);
int64_t guide_unpin(struct vcpu *vcpu, gpa_t gpa, uint64_t bytes);

#endif
