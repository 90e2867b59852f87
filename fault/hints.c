/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What somebody knows about pages before they are touched: the VMM about a system call's buffer, a
 * guide about the program. Advice only: none of it waits, none of it can make a page wrong.
 */
#include "farvisor/hints.h"
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
    uint32_t unsent = lane->unsent_pages;
    uint64_t passed = lane_fetch(engine, lane, page, pages, false, NULL);
    if (passed < pages && lane->in_flight && lane->unsent_pages == unsent) {
        (void)lane_land(engine, lane, LANE_FLIGHTS, 0); /* makes room; an error is sticky */
        passed += lane_fetch(engine, lane, page + passed, pages - passed, false, NULL);
    }
    passed = lane_sent(lane, unsent, passed);
    pthread_mutex_unlock(&lane->lock);
    return (int64_t)passed;
}

void fault_land(struct fault_context *context)
{
    struct fault_engine *engine = context->engine;
    struct lane *lane = &engine->lanes[context->lane];
    if (!engine->paged)
        return;
    bool theirs = pthread_mutex_trylock(&lane->lock) != 0, left = theirs;
    if (!theirs) {
        if (lane->in_flight)
            (void)lane_land(engine, lane, LANE_FLIGHTS, 0);
        left = lane->in_flight > 0;
        pthread_mutex_unlock(&lane->lock);
    }
    if (left) /* the caller may sleep before they arrive */
        lander_wake(engine);
}

void fault_cold(struct fault_engine *engine, uint64_t page, uint64_t pages)
{
    if (!engine->paged || page >= engine->span_pages || pages > engine->span_pages - page)
        return;
    for (uint64_t end = page + pages, next; page < end; page = next) {
        next = (page | (BLOCK_PAGES - 1)) + 1;
        next = next < end ? next : end;
        if (held_resident(atomic_load(&block_of(engine, page)->held)))
            clock_cold(&engine->clock, page, next - page);
    }
}

static uint8_t residency_of(uint64_t word)
{
    switch (ept_word_state(word)) {
    case EPT_ABSENT:
        return FV_PAGE_ABSENT;
    case EPT_LOCAL:
    case EPT_EVICTING: /* readable until it is dropped */
        return FV_PAGE_LOCAL;
    case EPT_REMOTE:
        return FV_PAGE_REMOTE;
    default:
        return FV_PAGE_MOVING;
    }
}

int fault_residency(const struct fault_engine *engine, uint64_t page, uint64_t pages,
                    uint8_t *state)
{
    if (page >= engine->span_pages || pages > engine->span_pages - page)
        return -EFAULT;
    for (uint64_t i = 0; i < pages; i++)
        state[i] =
            engine->paged ? residency_of(atomic_load(&engine->words[page + i])) : FV_PAGE_LOCAL;
    return 0;
}

bool fault_was_used(const struct fault_engine *engine, uint64_t page)
{
    uint64_t word = atomic_load(&engine->words[page]);
    return word & EPT_PREFETCHED ? ept_accessed(engine->ept, page) : (word & EPT_USED) != 0;
}
