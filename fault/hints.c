/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What somebody knows about pages before they are touched: the VMM about a system call's buffer, a
 * guide about the program. Advice only: none of it waits, none of it can make a page wrong.
 */
#include "fault/engine_internal.h"

#include <errno.h>

int64_t fault_prefetch(struct fault_context *context, uint64_t page, uint64_t pages)
{
    struct fault_engine *engine = context->engine;
    struct lane *lane = &engine->lanes[context->lane];
    if (page >= engine->span_pages || pages > engine->span_pages - page)
        return -EFAULT;
    if (!engine->paged)
        return 0;
    if (pthread_mutex_trylock(&lane->lock))
        return 0;
    uint64_t passed = lane_fetch(engine, lane, page, pages, false, NULL);
    pthread_mutex_unlock(&lane->lock);
    lander_wake(engine);
    return (int64_t)passed;
}

void fault_cold(struct fault_engine *engine, uint64_t page, uint64_t pages)
{
    if (!engine->paged || page >= engine->span_pages || pages > engine->span_pages - page)
        return;
    for (uint64_t end = page + pages, next; page < end; page = next) {
        next = (page | (BLOCK_PAGES - 1)) + 1;
        next = next < end ? next : end;
        if (atomic_load(&block_of(engine, page)->resident))
            clock_cold(&engine->clock, page, next - page);
    }
}

int fault_residency(const struct fault_engine *engine, uint64_t page, uint64_t pages,
                    uint8_t *resident)
{
    if (page >= engine->span_pages || pages > engine->span_pages - page)
        return -EFAULT;
    for (uint64_t i = 0; i < pages; i++) {
        enum ept_state state = ept_word_state(atomic_load(&engine->words[page + i]));
        resident[i] = state == EPT_LOCAL || state == EPT_EVICTING;
    }
    return 0;
}
