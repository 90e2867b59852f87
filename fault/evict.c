/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes pages of one 2 MiB block out of this host without losing a write. In the reclaimer's
 * thread:
 *
 *   1. claim     LOCAL -> EVICTING where nothing is pinned
 *   2. protect   no store gets through any more; the D bit is final from here
 *   3. classify  clean (drop), zero (forget), else write back
 *   4. write     one-sided writes straight from guest memory, all runs in flight at once
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
    struct rdma_queue *queue;
    uint8_t *buffer; /* one block, for transports that cannot send guest memory */
    bool began;      /* copies_begin was called and is not settled */
    int error;       /* of a write-back that was posted */
    unsigned inflight, active;
    uint64_t first;  /* block's first page */
    uint64_t set[8]; /* pages at work, a bit each */
    uint8_t fate[BLOCK_PAGES];
};

#define EVICT_QUEUE_DEPTH 64u
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
    struct rdma_node *node = engine->config.node;
    int error = rdma_queue_create(node, RDMA_QUEUE_WRITEBACK, EVICT_QUEUE_DEPTH, &evictor->queue);
    if (!error && rdma_needs_buffer(node)) {
        void *buffer;
        error = rdma_buffer_alloc(node, (size_t)BLOCK_PAGES * EPT_PAGE_BYTES, &buffer);
        evictor->buffer = error ? NULL : buffer;
    }
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
    rdma_queue_destroy(evictor->queue);
    if (evictor->buffer)
        rdma_buffer_free(evictor->engine->config.node, evictor->buffer,
                         (size_t)BLOCK_PAGES * EPT_PAGE_BYTES);
    free(evictor);
}

/* ---- 1: claim ---- */

static bool page_claim(struct fault_engine *engine, uint64_t page)
{
    uint64_t seen = atomic_load(&engine->words[page]);
    if (ept_word_state(seen) != EPT_LOCAL || seen & EPT_PIN_MASK)
        return false;
    if (seen & EPT_PREFETCHED) {
        sample_take(engine, page);
        seen = atomic_load(&engine->words[page]);
    }
    uint64_t want = (seen & ~(EPT_STATE_MASK | EPT_PREFETCHED)) | EPT_EVICTING;
    return ept_word_state(seen) == EPT_LOCAL && !(seen & EPT_PIN_MASK) &&
           atomic_compare_exchange_strong(&engine->words[page], &seen, want);
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
    uint64_t keep = atomic_load(word) & ~(EPT_STATE_MASK | EPT_RESCUE);
    keep |= clock_rescued(&engine->clock, evictor->first + i, keep);
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

/*
 * Takes finished write-backs, waiting for one. 0 or -errno. The queue itself gives a node that does
 * not answer up, and says so; it does not count the time for which we were stopped, and neither may
 * we: libfabric moves bytes only while it is asked, so after a SIGSTOP the first look finds
 * nothing.
 */
static int collect(struct evictor *evictor)
{
    struct patience patience = patience_begin(evictor->engine);
    struct rdma_completion done[16];
    int got, error = 0;
    do {
        got = rdma_queue_poll(evictor->queue, done, 16, PATIENCE_SLICE_NS);
        error = got ? 0 : patience_spend(&patience);
    } while (!got && !error);
    if (got <= 0)
        return got < 0 ? got : error;
    for (int i = 0; i < got; i++)
        if (done[i].status)
            return done[i].status;
    evictor->inflight -= (unsigned)got;
    return 0;
}

static int post(struct evictor *evictor, unsigned i, unsigned n)
{
    void *local = ept_hva(evictor->engine->ept, (evictor->first + i) << EPT_PAGE_SHIFT);
    if (evictor->buffer) {
        uint8_t *copy = evictor->buffer + (size_t)i * EPT_PAGE_BYTES;
        memcpy(copy, local, (size_t)n * EPT_PAGE_BYTES);
        local = copy;
    }
    struct rdma_request request = {
        .op = RDMA_WRITE, .pages = n, .page = evictor->first + i, .local = local, .cookie = i};
    for (;;) {
        int posted = rdma_queue_post(evictor->queue, &request, 1);
        if (posted < 0)
            return posted;
        if (posted == 1) {
            evictor->inflight++;
            return 0;
        }
        int error = evictor->inflight ? collect(evictor) : -EIO;
        if (error)
            return error;
    }
}

static int write_back(struct evictor *evictor)
{
    int error = 0;
    for (unsigned i = 0, n; i < BLOCK_PAGES && !error; i += n ? n : 1) {
        for (n = 0; i + n < BLOCK_PAGES && evictor->fate[i + n] == FATE_WRITE &&
                    in_set(evictor->set, i + n);)
            n++;
        if (n)
            error = post(evictor, i, n);
    }
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
        for (unsigned j = i; j < i + n; j++)
            ept_dirty_clear(engine->ept, evictor->first + j);
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
        uint64_t file = atomic_load(word) & EPT_FILE;
        forgotten += forget;
        clean += evictor->fate[i] == FATE_COPY_VALID;
        word_settle(word, epoch | (forget ? EPT_ABSENT : EPT_REMOTE | EPT_COPY | file));
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
    evictor->inflight = evictor->active = 0;
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
    while (evictor->inflight && !error)
        error = collect(evictor);
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
