/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages came along with one that was missing: filled or fetched by the same miss, or landed
 * by the lander while the thread waited. They are here but not in the second stage, since until a
 * moment ago they were in no place it could map; whoever runs the vCPU may have them mapped in one
 * call before it goes on (ept/ahead.c). In the thread that faulted.
 *
 * A guess, made of a few words: wrong, it costs the look-up of a page that is mapped already, or
 * leaves out one that is not. What says "came along" is that a neighbour was not here when the miss
 * began, and that those behind it arrived at about the same time, by the number of evictions until
 * then. The direction follows: a sequence finds only what lies ahead of it missing.
 */
#include "fault/engine_internal.h"

/* Batches of evictions between two arrivals that count as one: a flight of single-page batches. */
#define TOGETHER_BATCHES FLIGHT_PAGES

static bool is_here(const struct fault_engine *engine, uint64_t page)
{
    if (page >= engine->span_pages)
        return true; /* nothing can arrive there */
    enum ept_state state = ept_word_state(atomic_load(&engine->words[page]));
    return state == EPT_LOCAL || state == EPT_EVICTING || state == EPT_DROPPING;
}

void arrivals_begin(struct fault_context *context, uint64_t page)
{
    const struct fault_engine *engine = context->engine;
    context->arrivals = (struct arrivals){
        .page = page,
        .above = !is_here(engine, page + 1),
        .below = page && !is_here(engine, page - 1),
        .filled = ept_word_state(atomic_load(&engine->words[page])) == EPT_ABSENT,
    };
}

static bool came_with(const struct fault_engine *engine, uint64_t page, uint64_t word)
{
    uint64_t other = page < engine->span_pages ? atomic_load(&engine->words[page]) : 0;
    uint32_t apart = (uint32_t)(word >> EPT_STAMP_SHIFT) - (uint32_t)(other >> EPT_STAMP_SHIFT);
    return ept_word_state(other) == EPT_LOCAL && apart + TOGETHER_BATCHES <= 2 * TOGETHER_BATCHES;
}

uint64_t fault_arrivals(const struct fault_context *context, uint64_t *first)
{
    const struct fault_engine *engine = context->engine;
    const struct arrivals *arrivals = &context->arrivals;
    uint64_t word = atomic_load(&engine->words[arrivals->page]);
    uint64_t most = arrivals->filled ? FILL_MAX_PAGES : FLIGHT_PAGES;
    uint64_t begin = arrivals->page, end = begin + 1;
    if (ept_word_state(word) != EPT_LOCAL)
        return 0;
    while (arrivals->above && end - begin < most && came_with(engine, end, word))
        end++;
    while (arrivals->below && end - begin < most && begin && came_with(engine, begin - 1, word))
        begin--;
    *first = begin;
    return end - begin;
}
