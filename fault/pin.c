/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pins: the VMM reads and writes guest memory for the guest's system calls, and a page must not
 * leave under it. A pin is a count in the page word that the reclaimer's compare-and-swap respects.
 * A pin for writing sets DIRTY first: the store happens before the unpin, and only an unpinned page
 * can be evicted, so an eviction after the store sees DIRTY.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>

int pin_try(ept_word_t *word, bool write)
{
    uint64_t seen = atomic_load(word), set;
    do {
        if (ept_word_state(seen) != EPT_LOCAL)
            return 1;
        if ((seen & EPT_PIN_MASK) == EPT_PIN_MASK)
            return -EBUSY;
        set = (write ? EPT_DIRTY : 0) | (seen & EPT_PREFETCHED ? EPT_USED : 0);
    } while (
        !atomic_compare_exchange_weak(word, &seen, ((seen & ~EPT_PREFETCHED) + EPT_PIN) | set));
    return 0;
}

static int pin_page(struct fault_context *context, uint64_t page, bool write)
{
    struct fault_engine *engine = context->engine;
    struct patience patience = patience_begin(engine);
    bool tired = false;
    for (;;) {
        int tried = pin_try(&engine->words[page], write);
        if (tried <= 0) {
            probe_pinned(context->lane, page);
            return tried;
        }
        if (tired) /* only now: what came last may have come late, but it came */
            return -ETIMEDOUT;
        int error = page_resolve(context, page, write, true, &patience);
        if (error) /* 1: never leaves, so needs no pin */
            return error < 0 ? error : 0;
        tired = patience_spend(&patience) != 0;
    }
}

int fault_pin(struct fault_context *context, uint64_t page, uint64_t pages, bool write)
{
    struct fault_engine *engine = context->engine;
    if (page >= engine->span_pages || pages > engine->span_pages - page)
        return -EFAULT;
    if (pages > 1 && engine->paged)
        fault_prefetch(context, page, pages);
    for (uint64_t i = 0; i < pages; i++) {
        int error = pin_page(context, page + i, write);
        if (error) {
            fault_unpin(engine, page, i);
            return error;
        }
    }
    return 0;
}

int fault_pin_resident(struct fault_context *context, uint64_t page, uint64_t pages, bool write)
{
    struct fault_engine *engine = context->engine;
    if (!engine->paged) /* nothing is far away */
        return fault_pin(context, page, pages, write);
    if (page >= engine->span_pages || pages > engine->span_pages - page)
        return -EFAULT;
    for (uint64_t i = 0; i < pages; i++) {
        int error = pin_try(&engine->words[page + i], write);
        if (error) {
            fault_unpin(engine, page, i);
            return error == 1 ? -EAGAIN : error;
        }
    }
    return 0;
}

/* A page that the host kernel fills was not pinned, and its word shows none. */
static void unpin_page(ept_word_t *word)
{
    uint64_t seen = atomic_load(word);
    while (seen & EPT_PIN_MASK && !atomic_compare_exchange_weak(word, &seen, seen - EPT_PIN))
        ;
    if (seen & EPT_PIN_MASK && seen & EPT_WAITERS)
        word_wake(word);
}

void fault_unpin(struct fault_engine *engine, uint64_t page, uint64_t pages)
{
    for (uint64_t i = page; i < page + pages; i++)
        unpin_page(&engine->words[i]);
}
