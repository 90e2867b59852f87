/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hint channel: how a program in a guest tells the VMM what it will touch, without leaving the
 * guest. Freestanding C11; a part of the guest/host ABI (abi.h) with a version of its own, because
 * the other end is a library that programs and guides were linked with (guide.h).
 *
 * One ring a vCPU at FV_HINT_BASE + index * FV_HINT_STRIDE, in the pinned kernel region, mapped
 * for ring 3 when a thread asks for it (FV_GUIDE_OPEN). A vCPU runs one guest thread at a time, so
 * a ring has one writer; the thread finds its own at once, the index being in %gs:8. A program
 * learns that there is a channel from its auxiliary vector (FV_AT_HINTS), so nothing has to be
 * tried outside of farvisor. Explained in docs/hypercalls.md.
 *
 * Nothing here is trusted by the VMM. It copies a hint once and checks the copy; what it reads
 * beside hints (head, inside, ...) only ever decides what happens to this ring's own thread.
 *
 * The ring as a state table. `head` and `tail` run freely; head - tail hints wait.
 *
 *   who        when                      does
 *   thread     head - tail < FV_HINTS    writes hints[head % FV_HINTS], then head + 1 (release)
 *   thread     head - tail == FV_HINTS   leaves advice out and counts it in `dropped`; a read waits
 *   thread     after head + 1 (seq_cst)  `awake` 0 -> 1, and if it was 0: out %al, FV_PORT_HINT
 *   VMM        head - tail > FV_HINTS    broken ring: state = FV_HINT_OFF, never looked at again
 *   VMM        head != tail              copies one hint, tail + 1 (release), checks, acts
 *   VMM        nothing for a while       awake = 0 (seq_cst), looks at head once more, sleeps
 *   VMM        doorbell                  awake = 1
 *   VMM        hints are of no use       state = FV_HINT_OFF; posted hints are taken and ignored
 *
 * An answer slot:
 *
 *   from            to              who
 *   FREE            PENDING         thread, before it posts the hint that names the slot
 *   PENDING         WAITED          thread, when it goes to sleep on it (FV_GUIDE_WAIT)
 *   PENDING, WAITED DONE .. FAULT   VMM, after it wrote `bytes`, `address` and the data
 *   DONE .. FAULT   FREE            thread, once it has copied the data
 */
#ifndef FARVISOR_HINTS_H
#define FARVISOR_HINTS_H

#include "farvisor/abi.h"

#define FV_HINT_VERSION 1

/* a_type in the auxiliary vector; a_val is FV_HINT_VERSION. "fv" and far from Linux's numbers. */
#define FV_AT_HINTS 0x66760001

#define FV_HINT_BASE   0x3fc8000000
#define FV_HINT_STRIDE 0x0000010000 /* 64 KiB, mapped for what the structure below needs */

#define FV_PORT_HINT 0xf2 /* doorbell: the VMM's hint thread looks; caught inside of KVM */

/* System call number of the few requests that are not hints: rdi = FV_GUIDE_*, then arguments. */
#define FV_SYS_GUIDE 0x66760001

#define FV_GUIDE_OPEN      0 /* () -> address of this vCPU's ring */
#define FV_GUIDE_WAIT      1 /* (slot, timeout_ns) -> 0, -EINTR, -ETIMEDOUT: not PENDING any more */
#define FV_GUIDE_PIN       2 /* (gpa, bytes) -> 0; -EDQUOT over the quota; else as mlock */
#define FV_GUIDE_UNPIN     3 /* (gpa, bytes) -> 0; -EINVAL: no pin of exactly these pages */
#define FV_GUIDE_RESIDENCY 4 /* (gpa, bytes, *vector) -> 0; a byte a page, FV_PAGE_* */
#define FV_GUIDE_OFF       5 /* (why, *name, bytes) -> 0; this thread's guides are off: one warning */
#define FV_GUIDE_HEAP      6 /* (gpa, bytes, map) -> 0; -EBUSY: there is one; -EOPNOTSUPP: unwanted */

/* The guest kernel keeps *fv_watch, and passes the name alone on. */
#define FV_GUIDE_WATCH     7  /* (gpa, bytes, *fv_watch) -> 0; -ENOSPC; -EOPNOTSUPP: uffd mode */
#define FV_GUIDE_UNWATCH   8  /* (gpa, bytes) -> 0; -EINVAL: exactly this is not watched */
#define FV_GUIDE_FAULT_END 9  /* (why) -> the program goes on; -EINVAL: not in an upcall */
#define FV_GUIDE_COPY      10 /* (from, to, bytes) -> 0; -EAGAIN: not all of it is here */

/*
 * FV_GUIDE_HEAP: of the heap [gpa, gpa + bytes), page aligned, only bytes that live travel. The bit
 * of its byte b is bit (b / FV_HEAP_UNIT_BYTES) % 64 of the 64-bit word at map + 8 * (b / 1024),
 * set at least from before the first store to an object until its last load (docs/allocator.md).
 * Bytes whose bit is clear may read as anything.
 */
#define FV_HEAP_UNIT_BYTES 16

/* Why a guide was switched off. */
#define FV_OFF_CRASH 1
#define FV_OFF_STALL 2
#define FV_OFF_SLOW  3

/* fv_hint_ring.inside */
#define FV_INSIDE_HOOK  1 /* a hook, or a guide's start: a fault goes to `rescue` */
#define FV_INSIDE_FAULT 2 /* a handler of a fault: a fault ends the upcall */

#define FV_FAULT_HITS    8u
#define FV_FAULT_ANSWERS 64u
#define FV_WATCH_NAME    48u

#define FV_PAGE_ABSENT 0 /* never written: costs no fetch */
#define FV_PAGE_LOCAL  1
#define FV_PAGE_REMOTE 2
#define FV_PAGE_MOVING 3 /* on its way in or out */

#define FV_HINTS      256u
#define FV_READS      128u
#define FV_READ_BYTES 256u

/* fv_hint_ring.state */
#define FV_HINT_ON  0
#define FV_HINT_OFF 1

/* fv_hint.op */
#define FV_HINT_PREFETCH 1 /* [address, address + bytes) will be touched soon */
#define FV_HINT_COLD     2 /* ... will not be touched for long */
#define FV_HINT_READ     3 /* copy `bytes` <= FV_READ_BYTES to answer slot `slot` */
#define FV_HINT_CHAIN    4 /* likewise for up to `hops` nodes, to slots from `slot` on */

/* fv_read.status; from DONE on the slot is answered */
#define FV_READ_FREE    0
#define FV_READ_PENDING 1
#define FV_READ_WAITED  2
#define FV_READ_DONE    3 /* the bytes are in data[slot] */
#define FV_READ_TOUCH   4 /* nothing to read from afar there: touch it */
#define FV_READ_END     5 /* a chain ended before this node */
#define FV_READ_FAULT   6 /* the program may not read that, or it is gone */

#ifndef __ASSEMBLER__

struct fv_hint {
    uint32_t op;         /* IN */
    uint16_t slot;       /* IN: READ, CHAIN */
    uint16_t hops;       /* IN: CHAIN, 1 .. FV_READS - slot */
    uint64_t address;    /* IN: any alignment */
    uint64_t bytes;      /* IN: of a node for CHAIN */
    uint64_t next_bytes; /* IN: CHAIN: where in a node its 8-byte `next` is; 0 ends the chain */
};

struct fv_read {
    uint32_t status; /* both: FV_READ_* */
    uint32_t bytes;  /* OUT */
    gpa_t address;   /* OUT: of the node, for CHAIN */
};

/* FV_GUIDE_WATCH: who is asked, and what the guest kernel must know of the program for it. */
struct fv_watch {
    uint64_t entry;             /* IN: rdi = struct fv_fault, on a stack of the guest kernel's */
    int64_t errno_offset_bytes; /* IN: where errno is, from %fs:0; the same in every thread */
    char name[FV_WATCH_NAME];   /* IN: the guide's, for messages; NUL ended if shorter */
};

/* A fault, as a handler is told of it, and its answer. */
struct fv_fault {
    gpa_t address;             /* OUT: touched; its page is on its way */
    uint32_t write;            /* OUT: 1: by a store */
    uint32_t hit_count;        /* OUT */
    gpa_t hits[FV_FAULT_HITS]; /* OUT: pages of earlier answers that were used since */
    uint32_t count;            /* IN: of answers */
    uint32_t pad;
    struct fv_hint answers[FV_FAULT_ANSWERS]; /* IN: PREFETCH and COLD */
};

struct fv_hint_ring {
    /* The thread's. */
    uint32_t head;
    uint32_t dropped;
    uint32_t inside;    /* runs a guide's code: FV_INSIDE_*, or 0 */
    uint32_t entries;   /* how often a guide was entered: a loop is one that does not end */
    gpa_t rescue;       /* where the guest kernel sends a guide that must stop ... */
    gpa_t rescue_stack; /* ... and its stack pointer there */
    uint32_t held; /* the library is amid what it must end: it looks at `overdue` itself then */
    uint32_t thread_pad[7];
    /* The VMM's, on a cache line of its own. */
    uint32_t tail;
    uint32_t awake;
    uint32_t state;
    uint32_t overdue;      /* both: 1: `inside` for too long; cleared by the rescue */
    uint32_t time_percent; /* most of a thread's time its guides may take */
    uint32_t guides_off;   /* 1: a handler of a fault failed: hooks are not entered either */
    uint32_t vmm_pad[10];

    struct fv_read reads[FV_READS];
    struct fv_hint hints[FV_HINTS];
    uint8_t data[FV_READS][FV_READ_BYTES];
    struct fv_fault fault; /* of an upcall under way */
};

_Static_assert(sizeof(struct fv_hint) == 32, "fv_hint layout");
_Static_assert(offsetof(struct fv_hint_ring, tail) == 64, "two cache lines");
_Static_assert(offsetof(struct fv_hint_ring, reads) == 128, "two cache lines");
_Static_assert(sizeof(struct fv_hint_ring) <= FV_HINT_STRIDE, "a ring fits its place");
_Static_assert(FV_HINT_BASE >= FV_VCPU_BASE + FV_VCPU_MAX * (uint64_t)FV_VCPU_STRIDE,
               "rings lie behind the vCPU areas");
_Static_assert(FV_HINT_BASE + FV_VCPU_MAX * (uint64_t)FV_HINT_STRIDE <= FV_AHEAD_BASE,
               "and before what sockets hold");
#endif /* __ASSEMBLER__ */
#endif
