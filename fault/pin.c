/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pins: the VMM reads and writes guest memory for the guest's system calls, and a page must not
 * leave under it. A pin is a count in the page word that the reclaimer's compare-and-swap respects.
 * A pin for writing sets DIRTY first: the store happens before the unpin, and only an unpinned page
 * can be evicted, so an eviction after the store sees DIRTY.
 *
 * A page that the host kernel fills (ept_map_file) has no state, so its pin is counted beside the
 * words, in host_pins. The race that this is for: a thread has such a page pinned, another one maps
 * ordinary memory over it, a third pins that, and now the first unpins. Its pin must not be the one
 * that is taken off the word. Nobody remembers which kind his pin was; need not, since whoever
 * unpins takes one of host_pins as long as there is one. The pins of both kinds are as many as
 * their holders at all times, so a word loses its last pin with its last holder or later, never
 * before.
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

static int pin_host_page(struct fault_engine *engine, uint64_t page)
{
    uint16_t seen = atomic_load(&engine->host_pins[page]);
    do {
        if (seen == UINT16_MAX)
            return -EBUSY;
    } while (!atomic_compare_exchange_weak(&engine->host_pins[page], &seen, (uint16_t)(seen + 1)));
    return 0;
}

static bool unpin_host_page(struct fault_engine *engine, uint64_t page)
{
    uint16_t seen = atomic_load(&engine->host_pins[page]);
    while (seen &&
           !atomic_compare_exchange_weak(&engine->host_pins[page], &seen, (uint16_t)(seen - 1)))
        ;
    return seen != 0;
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
        if (error)
            return error < 0 ? error : pin_host_page(engine, page);
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

void fault_unpin(struct fault_engine *engine, uint64_t page, uint64_t pages)
{
    for (uint64_t i = page; i < page + pages; i++) {
        if (unpin_host_page(engine, i))
            continue;
        uint64_t was = atomic_fetch_sub(&engine->words[i], EPT_PIN); /* LOCAL while it has pins */
        if (was & EPT_WAITERS)
            word_wake(&engine->words[i]);
    }
}
