/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks up to 1 KiB. Neither allocating nor freeing touches the block: a free one is a clear bit
 * in the live map, which is what the VMM reads too. internal.h has the states of spans.
 */
#include "alloc/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static __thread struct heap *own __attribute__((tls_model("initial-exec")));
static pthread_key_t own_key;
static pthread_once_t own_once = PTHREAD_ONCE_INIT;

/* ---- threads ---- */

static void thread_ends(void *heap)
{
    own = NULL;
    heap_put(heap);
}

static void key_make(void)
{
    (void)pthread_key_create(&own_key, thread_ends);
}

static struct heap *heap_own(void)
{
    if (own)
        return own;
    if (!tables_ready())
        return NULL;
    own = heap_get(); /* first: setting the key may allocate */
    pthread_once(&own_once, key_make);
    if (own)
        (void)pthread_setspecific(own_key, own);
    return own;
}

/* ---- the live map ---- */

struct place {
    _Atomic uint64_t *word; /* where its bits begin ... */
    uint64_t first, second; /* ... which of them, and those in the next word */
};

static _Atomic uint64_t *span_live(const struct span *span)
{
    return tables->live + (size_t)(span - tables->spans) * SPAN_WORDS;
}

static struct place place_of(const struct span *span, unsigned unit)
{
    uint64_t mask = ~0ULL >> (64 - span->units);
    unsigned bit = unit % 64;
    return (struct place){.word = span_live(span) + unit / 64,
                          .first = mask << bit,
                          .second = bit + span->units > 64 ? mask >> (64 - bit) : 0};
}

/* ---- allocating ---- */

static void *block_take(struct span *span, unsigned unit)
{
    struct place place = place_of(span, unit);
    atomic_fetch_or_explicit(place.word, place.first, memory_order_acq_rel);
    if (place.second)
        atomic_fetch_or_explicit(place.word + 1, place.second, memory_order_acq_rel);
    atomic_fetch_add_explicit(&span->used, 1, memory_order_relaxed);
    return tables->heap + ((size_t)(span - tables->spans) << SPAN_SHIFT) + unit * UNIT_BYTES;
}

/* A free block of the caller's span, the first from where it looked last; or NULL. */
static void *span_take(struct span *span)
{
    const uint64_t *starts = tables->starts[span->class];
    _Atomic uint64_t *live = span_live(span);
    for (unsigned i = span->word; i < SPAN_WORDS; i++) {
        uint64_t can = starts[i] & ~atomic_load_explicit(&live[i], memory_order_acquire);
        if (!can)
            continue;
        span->word = (uint8_t)i;
        return block_take(span, i * 64 + (unsigned)__builtin_ctzll(can));
    }
    return NULL;
}

/* Takes a span off the owner's hands if it is full; false: blocks were freed meanwhile. */
static bool span_leave(struct span *span)
{
    uint32_t full = SPAN_FULL;
    span->word = 0;
    if (atomic_load(&span->used) < span->blocks)
        return false;
    atomic_store(&span->state, SPAN_FULL);
    return atomic_load(&span->used) == span->blocks ||
           !atomic_compare_exchange_strong(&span->state, &full, SPAN_OPEN);
}

/* Takes back the spans of which other threads (or this one) freed blocks. */
static void returned_take(struct heap *heap, unsigned class)
{
    struct span *span = atomic_exchange(&heap->of[class].returned, NULL);
    while (span) {
        struct span *next = span->next;
        span->word = 0;
        span->next = heap->of[class].open;
        heap->of[class].open = span;
        atomic_store(&span->state, SPAN_OPEN);
        span = next;
    }
}

/* Gives the empty spans of a heap to whoever needs one. */
static void heap_sweep(struct heap *heap)
{
    for (unsigned class = 0; class < CLASSES; class ++) {
        returned_take(heap, class);
        struct span **link = &heap->of[class].open;
        while (*link) {
            struct span *span = *link;
            if (atomic_load(&span->used)) {
                link = &span->next;
                continue;
            }
            *link = span->next;
            span_put(span);
        }
    }
}

static struct span *span_new(struct heap *heap, unsigned class)
{
    struct span *span = span_get(false);
    if (!span) {
        /* About to grow: every 32nd time it is worth looking at what there is. */
        if (tables->top_bytes % (32 * SPAN_BYTES) == 0) {
            heap_sweep(heap);
            span = span_get(true);
        } else {
            span = span_get(true);
        }
    }
    if (!span)
        return NULL;
    span->heap = heap;
    span->class = (uint8_t) class;
    span->units = (uint16_t)class_units(class);
    span->blocks = (uint16_t)(SPAN_WORDS * 64 / span->units);
    span->word = 0;
    atomic_store(&span->state, SPAN_OPEN);
    return span;
}

static struct span *span_next(struct heap *heap, unsigned class)
{
    if (!heap->of[class].open)
        returned_take(heap, class);
    struct span *span = heap->of[class].open;
    if (span)
        heap->of[class].open = span->next;
    return span ? span : span_new(heap, class);
}

void *small_alloc(unsigned class)
{
    struct heap *heap = heap_own();
    if (!heap)
        return NULL;
    for (;;) {
        struct span *span = heap->of[class].current;
        void *block = span ? span_take(span) : NULL;
        if (block)
            return block;
        if (span && !span_leave(span))
            continue;
        heap->of[class].current = span_next(heap, class);
        if (!heap->of[class].current)
            return NULL;
    }
}

/* ---- freeing ---- */

static void give_up(const char *why)
{
    /* No stdio: it may want to allocate. */
    if (write(STDERR_FILENO, why, strlen(why)) < 0)
        _exit(134);
    abort();
}

/* The block that begins at p: its place in the live map. */
static struct place block_of(const struct span *span, const void *p)
{
    size_t byte = (size_t)((const uint8_t *)p - tables->heap) % SPAN_BYTES;
    unsigned unit = (unsigned)(byte / UNIT_BYTES);
    if (byte % UNIT_BYTES || !span->units || unit % span->units)
        give_up("libfaralloc: free or realloc: invalid pointer\n");
    struct place place = place_of(span, unit);
    uint64_t start = place.first & -place.first;
    if (!(atomic_load_explicit(place.word, memory_order_relaxed) & start))
        give_up("libfaralloc: free or realloc: not allocated, or freed already\n");
    return place;
}

size_t small_bytes(const void *p)
{
    const struct span *span = span_of(p);
    (void)block_of(span, p);
    return span->units * UNIT_BYTES;
}

static void span_return(struct span *span)
{
    _Atomic(struct span *) *stack = &span->heap->of[span->class].returned;
    span->next = atomic_load(stack);
    while (!atomic_compare_exchange_weak(stack, &span->next, span))
        ;
}

void small_free(void *p)
{
    struct span *span = span_of(p);
    struct place place = block_of(span, p);
    uint32_t full = SPAN_FULL;
    /* The program's last access to the block comes before; its first bit goes last. */
    if (place.second)
        atomic_fetch_and_explicit(place.word + 1, ~place.second, memory_order_acq_rel);
    atomic_fetch_and_explicit(place.word, ~place.first, memory_order_acq_rel);
    atomic_fetch_sub(&span->used, 1);
    if (atomic_load(&span->state) == SPAN_FULL &&
        atomic_compare_exchange_strong(&span->state, &full, SPAN_RETURNED))
        span_return(span);
}
