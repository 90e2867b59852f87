/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes pages of one 2 MiB block out of this host without losing a write. In the reclaimer's
 * thread:
 *
 *   1. claim     LOCAL -> EVICTING where nothing is pinned
 *   2. protect   no store gets through any more; the D bit is final from here
 *   3. classify  clean (drop), zero or dead (forget), else write back what lives
 *   4. write     one-sided writes straight from guest memory, all extents in flight at once
 *   5. decide    EVICTING -> DROPPING, or back to LOCAL if a writer or a pin asked (RESCUE)
 *   6. drop      free the frames, clear D, take an epoch (engine.c), then -> REMOTE or ABSENT
 *
 * A store that races with 2 faults, sets RESCUE and sleeps until 5 or 6. Reads go on until 6. Steps
 * 1 to 4 are evictor_begin, 5 and 6 evictor_finish: a reclaimer has several blocks under way, so
 * that it does not wait for one write-back after the other.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum fate { FATE_NONE, FATE_COPY_VALID, FATE_FORGET, FATE_WRITE };

struct evictor {
    struct fault_engine *engine;
    struct writer writer;
    bool began; /* copies_begin was called and is not settled */
    int error;  /* of a write-back that was posted */
    unsigned active;
    uint64_t first;  /* block's first page */
    uint64_t set[8]; /* pages at work, a bit each */
    uint8_t fate[BLOCK_PAGES];
    struct live_page live[BLOCK_PAGES]; /* of those to be written */
};

/* Departure numbers wrap. One is later than another by less than this, far more than there can be
 * in the time of one publish(); what seems later by more was left at the block before the wrap. */
#define DEPARTED_AHEAD (1u << 30)

static bool in_set(const uint64_t set[8], unsigned i)
{
    return set[i / 64] >> (i % 64) & 1;
}

/* Next run of set bits from *i on; its length, 0 at the end. */
static unsigned next_run(const uint64_t set[8], unsigned *i)
{
    while (*i < BLOCK_PAGES && !in_set(set, *i))
        (*i)++;
    unsigned n = 0;
    while (*i + n < BLOCK_PAGES && in_set(set, *i + n))
        n++;
    return n;
}

int evictor_create(struct fault_engine *engine, struct evictor **out)
{
    struct evictor *evictor = calloc(1, sizeof(*evictor));
    if (!evictor)
        return -ENOMEM;
    evictor->engine = engine;
    int error = writer_create(&evictor->writer, engine);
    if (error)
        evictor_destroy(evictor);
    else
        *out = evictor;
    return error;
}

void evictor_destroy(struct evictor *evictor)
{
    if (!evictor)
        return;
    writer_destroy(&evictor->writer);
    free(evictor);
}

/* ---- 1: claim ---- */

static bool page_claim(struct fault_engine *engine, uint64_t page)
{
    uint64_t seen = atomic_load(&engine->words[page]);
    if (ept_word_state(seen) != EPT_LOCAL || seen & EPT_PIN_MASK)
        return false;
    return atomic_compare_exchange_strong(&engine->words[page], &seen,
                                          (seen & ~EPT_STATE_MASK) | EPT_EVICTING);
}

static unsigned claim(struct evictor *evictor, const uint64_t candidates[8])
{
    unsigned count = 0;
    memset(evictor->set, 0, sizeof(evictor->set));
    for (unsigned i = 0; i < BLOCK_PAGES; i++) {
        evictor->fate[i] = FATE_NONE;
        if (in_set(candidates, i) && page_claim(evictor->engine, evictor->first + i)) {
            evictor->set[i / 64] |= 1ULL << (i % 64);
            count++;
        }
    }
    return count;
}

/* ---- 2: protect ---- */

static int protect(struct evictor *evictor)
{
    for (unsigned i = 0, n; (n = next_run(evictor->set, &i)); i += n) {
        int error = ept_write_protect(evictor->engine->ept, evictor->first + i, n, true);
        if (error)
            return error;
    }
    return 0;
}

/* Back to LOCAL, stores allowed again. `written`: the remote copy is now as good as ours. */
static void rescue(struct evictor *evictor, unsigned i, bool written)
{
    struct fault_engine *engine = evictor->engine;
    ept_word_t *word = &engine->words[evictor->first + i];
    ept_write_protect(engine->ept, evictor->first + i, 1, false);
    uint64_t keep = atomic_load(word) & ~(EPT_STATE_MASK | EPT_RESCUE | EPT_PREFETCHED);
    keep |= clock_rescued(&engine->clock, evictor->first + i, keep) | EPT_USED;
    word_settle(word, keep | EPT_LOCAL | (written ? EPT_COPY : 0));
    atomic_fetch_add(&engine->rescued, 1);
    evictor->set[i / 64] &= ~(1ULL << (i % 64));
}

static void rescue_all(struct evictor *evictor)
{
    for (unsigned i = 0; i < BLOCK_PAGES; i++)
        if (in_set(evictor->set, i))
            rescue(evictor, i, false);
}

/* ---- 3: classify ---- */

static bool page_is_zero(const void *page)
{
    const uint64_t *at = page;
    /* Most pages that are not zero show it in their first words. */
    if (at[0] | at[1] | at[255] | at[511])
        return false;
    return memcmp(at, at + 1, EPT_PAGE_BYTES - sizeof(*at)) == 0;
}

static enum fate classify_page(struct evictor *evictor, uint64_t page)
{
    struct fault_engine *engine = evictor->engine;
    uint64_t word = atomic_load(&engine->words[page]);
    bool dirty = word & EPT_DIRTY || ept_dirty(engine->ept, page);
    struct live_page *live = &evictor->live[page - evictor->first];
    live_page_read(engine, page, live); /* stores are stopped: later objects will fault (live.c) */
    if (!live->count) {
        atomic_fetch_add_explicit(&engine->evicted_dead, 1, memory_order_relaxed);
        return FATE_FORGET;
    }
    if (!dirty && word & EPT_COPY)
        return FATE_COPY_VALID;
    if (!dirty && word & EPT_FILE)
        return FATE_FORGET;
    /* A page of a file mapping may not become ABSENT when it is zero: its file would come back. */
    if (!(word & EPT_FILE) && page_is_zero(ept_hva(engine->ept, page << EPT_PAGE_SHIFT)))
        return FATE_FORGET;
    return FATE_WRITE;
}

static unsigned classify(struct evictor *evictor)
{
    unsigned writes = 0;
    for (unsigned i = 0; i < BLOCK_PAGES; i++) {
        if (!in_set(evictor->set, i))
            continue;
        evictor->fate[i] = (uint8_t)classify_page(evictor, evictor->first + i);
        writes += evictor->fate[i] == FATE_WRITE;
    }
    return writes;
}

/* ---- 4: write ---- */

static int write_back(struct evictor *evictor)
{
    uint64_t unwritten = 0;
    int error = 0;
    for (unsigned i = 0; i < BLOCK_PAGES && !error; i++) {
        const struct live_page *live = &evictor->live[i];
        if (evictor->fate[i] != FATE_WRITE || !in_set(evictor->set, i))
            continue;
        for (unsigned j = 0; j < live->count && !error; j++)
            error = writer_add(&evictor->writer, i * EPT_PAGE_BYTES + live->of[j].start,
                               live->of[j].bytes);
        unwritten += EPT_PAGE_BYTES - live->bytes;
    }
    if (!error)
        error = writer_flush(&evictor->writer);
    if (unwritten)
        atomic_fetch_add(&evictor->engine->unwritten_bytes, unwritten);
    return error;
}

/* ---- 5: decide ---- */

/* Pages that have a remote copy now and had none before. */
static int copies_gained(const struct evictor *evictor)
{
    int gained = 0;
    for (unsigned i = 0; i < BLOCK_PAGES; i++)
        if (in_set(evictor->set, i) && evictor->fate[i] == FATE_WRITE)
            gained += !(atomic_load(&evictor->engine->words[evictor->first + i]) & EPT_COPY);
    return gained;
}

/* Counts the copies that go with pages forgotten. */
static int decide(struct evictor *evictor)
{
    int lost = 0;
    for (unsigned i = 0; i < BLOCK_PAGES; i++) {
        if (!in_set(evictor->set, i))
            continue;
        ept_word_t *word = &evictor->engine->words[evictor->first + i];
        uint64_t seen = atomic_load(word);
        bool written = evictor->fate[i] == FATE_WRITE;
        while (!(seen & EPT_RESCUE) &&
               !atomic_compare_exchange_weak(word, &seen, (seen & ~EPT_STATE_MASK) | EPT_DROPPING))
            ;
        if (seen & EPT_RESCUE)
            rescue(evictor, i, written);
        else
            lost += evictor->fate[i] == FATE_FORGET && seen & EPT_COPY;
        evictor->active += !(seen & EPT_RESCUE) && seen & EPT_ACTIVE;
    }
    return lost;
}

/* ---- 6: drop ---- */

static int drop_frames(struct evictor *evictor, unsigned *freed)
{
    struct fault_engine *engine = evictor->engine;
    for (unsigned i = 0, n; (n = next_run(evictor->set, &i)); i += n) {
        int error = ept_drop(engine->ept, evictor->first + i, n);
        if (error)
            return error;
        for (unsigned j = i; j < i + n; j++) {
            ept_dirty_clear(engine->ept, evictor->first + j);
            /* Until now it could be read, and so used. */
            sample_take(engine, evictor->first + j);
        }
        *freed += n;
    }
    return 0;
}

/* Before any word says REMOTE, and after the write-backs: chain.c relies on both. */
static void depart(struct fault_engine *engine, struct block *block)
{
    unsigned number = atomic_fetch_add(&engine->departures, 1) + 1;
    unsigned seen = atomic_load(&block->departed);
    /* Another reclaimer may have been given a later one for the same block. */
    while (seen - number >= DEPARTED_AHEAD &&
           !atomic_compare_exchange_weak(&block->departed, &seen, number))
        ;
}

static void publish(struct evictor *evictor, unsigned freed)
{
    struct fault_engine *engine = evictor->engine;
    depart(engine, block_of(engine, evictor->first));
    probe_evicted(evictor->first, evictor->set, evictor->fate, BLOCK_PAGES, freed);
    uint64_t epoch = (uint64_t)clock_batch(&engine->clock, freed) << EPT_STAMP_SHIFT;
    unsigned forgotten = 0, clean = 0;
    for (unsigned i = 0; i < BLOCK_PAGES; i++) {
        if (!in_set(evictor->set, i))
            continue;
        ept_word_t *word = &engine->words[evictor->first + i];
        bool forget = evictor->fate[i] == FATE_FORGET;
        uint64_t seen = atomic_load(word), keep = seen & EPT_USED;
        forgotten += forget;
        clean += evictor->fate[i] == FATE_COPY_VALID;
        /* What is read from its file again is known to have been here, too: fill.c. */
        keep |= seen & EPT_FILE;
        word_settle(word, epoch | keep | (forget ? EPT_ABSENT : EPT_REMOTE | EPT_COPY));
    }
    atomic_fetch_sub(&block_of(engine, evictor->first)->existing, forgotten);
    clock_left(&engine->clock, evictor->first, freed, evictor->active);
    quota_give(engine, forgotten);
    frames_give(engine, freed);
    atomic_fetch_add(&engine->evicted_zero, forgotten);
    atomic_fetch_add(&engine->evicted_clean, clean);
}

int64_t evictor_begin(struct evictor *evictor, uint64_t first_page, const uint64_t candidates[8])
{
    struct fault_engine *engine = evictor->engine;
    evictor->first = first_page;
    evictor->began = false;
    evictor->active = 0;
    writer_begin(&evictor->writer, first_page);
    unsigned claimed = claim(evictor, candidates);
    if (!claimed)
        return 0;
    int error = protect(evictor);
    if (!error && classify(evictor)) {
        error = copies_begin(engine, first_page);
        evictor->began = !error;
    }
    evictor->error = evictor->began ? write_back(evictor) : error;
    return claimed;
}

int64_t evictor_finish(struct evictor *evictor)
{
    struct fault_engine *engine = evictor->engine;
    int error = evictor->error;
    if (!error)
        error = writer_finish(&evictor->writer);
    if (error) {
        /* Nothing was given up yet: every page is still here, and stays. */
        rescue_all(evictor);
        if (evictor->began)
            copies_settle(engine, evictor->first, 0, true);
        return fault_fail(engine, error);
    }
    /* Counted before any word shows COPY: whoever discards such a page takes it off again. */
    if (evictor->began)
        copies_settle(engine, evictor->first, copies_gained(evictor), true);
    unsigned freed = 0;
    int lost = decide(evictor);
    error = drop_frames(evictor, &freed);
    if (error) {
        message_error("second stage: free pages: %s", strerror(-error));
        return fault_fail_told(engine, error);
    }
    publish(evictor, freed);
    if (lost)
        copies_settle(engine, evictor->first, -lost, false);
    return freed;
}
