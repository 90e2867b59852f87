/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contents that the program gave up (munmap, MADV_DONTNEED): frames are freed in runs, remote
 * copies forgotten, and a slab of the memory node goes back when its last copy does.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>
#include <string.h>

uint64_t fault_next_existing(const struct fault_engine *engine, uint64_t page, uint64_t end)
{
    while (page < end) {
        const struct block *block = &engine->blocks[page >> BLOCK_SHIFT];
        uint64_t block_end = (page | (BLOCK_PAGES - 1)) + 1;
        if (!atomic_load(&block->existing)) {
            page = block_end;
            continue;
        }
        for (; page < block_end && page < end; page++)
            if (ept_word_state(atomic_load(&engine->words[page])) != EPT_ABSENT)
                return page;
    }
    return end;
}

bool fault_page_exists(const struct fault_engine *engine, uint64_t page)
{
    return ept_word_state(atomic_load(&engine->words[page])) != EPT_ABSENT;
}

/* A request under way holds the page: it keeps its frame, but its contents become as if new. */
static int page_renew_in_place(struct fault_context *context, uint64_t page)
{
    struct fault_engine *engine = context->engine;
    const struct fault_source *source = &engine->config.source;
    void *at = ept_hva(engine->ept, page << EPT_PAGE_SHIFT);
    int error = fault_pin(context, page, 1, true);
    if (error) /* -EFAULT: unpinned, evicted and forgotten meanwhile; nothing is left */
        return error == -EFAULT ? 0 : error;
    bool file = atomic_load(&engine->words[page]) & EPT_FILE;
    if (!file || source->read(source->owner, page, 1, at)) {
        memset(at, 0, EPT_PAGE_BYTES);
        atomic_fetch_and(&engine->words[page], ~EPT_FILE);
    }
    fault_unpin(engine, page, 1);
    return 0;
}

enum claimed { CLAIMED_NOTHING, CLAIMED_FRAME, CLAIMED_REMOTE };

/* Takes one page into DISCARDING, waiting for whoever moves it. *was: its word until then. */
static int page_take(struct fault_context *context, uint64_t page, enum claimed *what,
                     uint64_t *was)
{
    struct fault_engine *engine = context->engine;
    ept_word_t *word = &engine->words[page];
    struct patience patience = patience_begin(engine);
    *what = CLAIMED_NOTHING;
    for (;;) {
        uint64_t seen = atomic_load(word);
        enum ept_state state = ept_word_state(seen);
        if (state == EPT_ABSENT)
            return 0;
        if (state == EPT_LOCAL && seen & EPT_PIN_MASK)
            return page_renew_in_place(context, page);
        if (state == EPT_LOCAL || state == EPT_REMOTE) {
            if (!atomic_compare_exchange_strong(word, &seen,
                                                (seen & ~EPT_STATE_MASK) | EPT_DISCARDING))
                continue;
            *what = state == EPT_LOCAL ? CLAIMED_FRAME : CLAIMED_REMOTE;
            *was = seen;
            return 0;
        }
        int error = fault_engine_error(engine);
        if (!error)
            error = page_wait(engine, page, seen, &patience);
        if (error)
            return error;
    }
}

/*
 * The D bit was cleared when the page left last, at an epoch not after the present one. Its own
 * stamp does not tell: of a LOCAL page it is an arrival, and one on advice that the page is cold
 * (clock.c) is long before any eviction.
 */
static void page_forget(struct fault_engine *engine, uint64_t page)
{
    uint64_t epoch = (uint64_t)atomic_load(&engine->clock.epoch) << EPT_STAMP_SHIFT;
    uint64_t used = fault_was_used(engine, page) ? EPT_USED : 0;
    word_settle(&engine->words[page], epoch | used | EPT_ABSENT);
}

/* Frees the frames of a run in DISCARDING. */
static int run_drop(struct fault_engine *engine, uint64_t page, uint64_t pages, unsigned active)
{
    if (!pages)
        return 0;
    int error = ept_drop(engine->ept, page, pages);
    if (error)
        return fault_fail(engine, error);
    clock_left(&engine->clock, page, (unsigned)pages, active);
    frames_give(engine, pages);
    return 0;
}

/* [page, end) lies in one block. */
static int block_discard(struct fault_context *context, uint64_t page, uint64_t end)
{
    struct fault_engine *engine = context->engine;
    uint64_t taken[BLOCK_PAGES], count = 0, run = 0;
    unsigned active = 0;
    int copies = 0, error = 0;
    for (; page < end && !error; page++) {
        enum claimed what;
        uint64_t was = 0;
        error = page_take(context, page, &what, &was);
        if (what != CLAIMED_FRAME || error) {
            int failed = run_drop(engine, page - run, run, active);
            error = error ? error : failed;
            run = active = 0;
        } else {
            run++;
            active += (was & EPT_ACTIVE) != 0;
        }
        if (what != CLAIMED_NOTHING && !error) {
            taken[count++] = page;
            copies += (was & EPT_COPY) != 0;
        }
    }
    if (!error)
        error = run_drop(engine, page - run, run, active);
    for (uint64_t i = 0; i < count; i++)
        page_forget(engine, taken[i]);
    probe_discarded(context->lane, taken, count);
    if (count) {
        atomic_fetch_sub(&block_of(engine, taken[0])->existing, (unsigned)count);
        quota_give(engine, count);
        tally_add(&context->tally.discarded, count);
    }
    if (copies)
        copies_settle(engine, taken[0], -copies, false);
    return error;
}

/* Where the run of existing pages that begins at `page` ends, within its block. */
static uint64_t run_end(const struct fault_engine *engine, uint64_t page, uint64_t end)
{
    uint64_t block_end = (page | (BLOCK_PAGES - 1)) + 1;
    end = end < block_end ? end : block_end;
    while (page < end && fault_page_exists(engine, page))
        page++;
    return page;
}

int fault_discard(struct fault_context *context, uint64_t page, uint64_t pages, bool unmapped)
{
    struct fault_engine *engine = context->engine;
    if (page >= engine->span_pages || pages > engine->span_pages - page)
        return -EFAULT;
    if (unmapped)
        live_unmapped(engine, page, pages);
    for (uint64_t end = page + pages, next; page < end; page = next) {
        next = fault_next_existing(engine, page, end);
        /* What has no state here may still have memory: the host kernel fills unpaged pages. */
        bool gap = unmapped && !engine->paged && next > page;
        int error = gap ? ept_drop(engine->ept, page, next - page) : 0;
        if (!error && next < end) {
            page = next;
            next = run_end(engine, page, end);
            error = block_discard(context, page, next > page ? next : page + 1);
            next = next > page ? next : page + 1;
        }
        if (error)
            return error;
    }
    return 0;
}
