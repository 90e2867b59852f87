/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to libfaralloc, which is the program's malloc: so nothing here may allocate, and no lock
 * is held while anything else is called. docs/allocator.md has the design.
 *
 * States of a span, and who changes them:
 *
 *   from     to       who
 *   IDLE     OPEN     a thread that needs one: it is the owner now (tables.c gives it out once)
 *   OPEN     FULL     the owner: it found no free block. Then it looks at `used` once more
 *   FULL     OPEN     the owner, if `used` says that a block was freed meanwhile
 *   FULL     RETURNED any thread that freed a block of it: it pushes it on the owner's stack
 *   RETURNED OPEN     the owner, when it empties its stack
 *   OPEN     IDLE     the owner: no block is in use
 *
 * A thread that frees changes the bits, then `used`, then looks at the state: either it sees FULL,
 * or the owner sees its block. From its last access to `used` on the span may already be another
 * owner's: the rest is only done after the step from FULL to RETURNED, which makes it hold still.
 */
#ifndef FARALLOC_INTERNAL_H
#define FARALLOC_INTERNAL_H

#include "farvisor/hints.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ALLOC_HIDDEN __attribute__((visibility("hidden")))
#define ALLOC_PUBLIC __attribute__((visibility("default")))

#define UNIT_BYTES  ((size_t)FV_HEAP_UNIT_BYTES)
#define SPAN_SHIFT  16
#define SPAN_BYTES  ((size_t)1 << SPAN_SHIFT)
#define SPAN_WORDS  (SPAN_BYTES / UNIT_BYTES / 64) /* of the live map */
#define SMALL_BYTES 1024u                          /* largest block; larger ones are mimalloc's */
#define CLASSES     20u
#define HEAPS_MAX   1024u /* threads at once; more of them use mimalloc alone */

enum { SPAN_IDLE, SPAN_OPEN, SPAN_FULL, SPAN_RETURNED };

struct span {
    _Atomic uint32_t used; /* blocks */
    _Atomic uint32_t state;
    struct heap *heap; /* the owner's */
    struct span *next; /* in the list or stack it is in */
    uint16_t blocks;   /* how many it has */
    uint16_t units;    /* of a block */
    uint8_t class;
    uint8_t word; /* of its live map: the owner looks for free blocks from here on */
    uint8_t reserved[30];
};
_Static_assert(sizeof(struct span) == 64, "64 bytes a span");

/* A thread's. The first two of a class are touched by the owner alone. */
struct heap {
    struct {
        struct span *current, *open;
        _Atomic(struct span *) returned;
    } of[CLASSES];
    struct heap *next; /* among those without a thread */
};

struct tables {
    uint64_t starts[CLASSES][SPAN_WORDS]; /* bits where a block begins */
    _Atomic uint64_t *live;               /* the live map */
    struct span *spans;
    struct heap *heaps;
    uint8_t *heap; /* first byte of the heap; NULL: none could be had */
    size_t heap_bytes;
    pthread_mutex_t lock; /* the rest */
    size_t top_bytes;     /* of the heap, given out so far; whole spans */
    size_t pinned_bytes;  /* of the heap, whose tables are pinned */
    struct span *idle;
    unsigned idle_count, heap_count;
    struct heap *orphans;
    bool far; /* in a farvisor guest, and pins are to be had */
};

extern ALLOC_HIDDEN struct tables *tables; /* NULL until tables_ready */

/* ---- classes.c ---- */
ALLOC_HIDDEN unsigned class_of(size_t bytes); /* 1 .. SMALL_BYTES */
ALLOC_HIDDEN unsigned class_units(unsigned class);
ALLOC_HIDDEN void classes_fill(uint64_t starts[CLASSES][SPAN_WORDS]);

/* ---- tables.c ---- */
/* Makes the tables when first called; false: there is no memory, ever. */
ALLOC_HIDDEN bool tables_ready(void);
/* An idle span, or NULL: the heap is full. `grow`: also one never used before. */
ALLOC_HIDDEN struct span *span_get(bool grow);
/* Takes an empty span back, whose pages are discarded unless it is likely used again at once. */
ALLOC_HIDDEN void span_put(struct span *span);
ALLOC_HIDDEN struct heap *heap_get(void);
ALLOC_HIDDEN void heap_put(struct heap *heap);

static inline bool is_small(const void *p)
{
    return tables && (size_t)((const uint8_t *)p - tables->heap) < tables->heap_bytes;
}

static inline struct span *span_of(const void *p)
{
    return &tables->spans[(size_t)((const uint8_t *)p - tables->heap) >> SPAN_SHIFT];
}

/* ---- small.c ---- */
/* A block of a class, or NULL. */
ALLOC_HIDDEN void *small_alloc(unsigned class);
ALLOC_HIDDEN void small_free(void *p);
/* Bytes of the block at p; ends the program if there is none. */
ALLOC_HIDDEN size_t small_bytes(const void *p);

#endif
