/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One miss, as the thread that faulted sees the state machine: ABSENT pages are filled (fill.c),
 * REMOTE ones fetched (fetch.c), pages on their way are landed or waited for. Two threads on one
 * page: one wins the compare-and-swap and works, the other sleeps on the word.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>

enum step { STEP_RESIDENT, STEP_NOT_OURS, STEP_AGAIN };

/* The page is on its way, or on its way out: waits for whoever moves it. */
static int step_wait(struct fault_context *context, uint64_t page, uint64_t seen, bool write,
                     struct patience *patience)
{
    struct fault_engine *engine = context->engine;
    int error = fault_engine_error(engine);
    if (!error)
        error = page_wait(engine, page, seen, patience);
    if (error)
        return error;
    if (word_in_flight(seen)) {
        tally_add(&context->tally.late_hits, 1);
        fault_touched_late(context, page, write);
    }
    return STEP_AGAIN;
}

/* One step as a faulting thread sees it: enum step, or -errno. */
static int resolve_step(struct fault_context *context, uint64_t page, bool write, bool rescue,
                        struct patience *patience)
{
    struct fault_engine *engine = context->engine;
    ept_word_t *word = &engine->words[page];
    uint64_t seen = atomic_load(word);
    int error;
    switch (ept_word_state(seen)) {
    case EPT_LOCAL:
        return STEP_RESIDENT;
    case EPT_ABSENT:
        error = fault_fill(context, page, patience);
        return error == -EAGAIN ? STEP_AGAIN : error;
    case EPT_REMOTE:
        error = fault_fetch(context, page, write, patience);
        return error == -EAGAIN ? STEP_AGAIN : error;
    case EPT_EVICTING:
        if (!rescue)
            return STEP_RESIDENT; /* write-protected, still readable */
        if (!(seen & EPT_RESCUE) && !atomic_compare_exchange_strong(word, &seen, seen | EPT_RESCUE))
            return STEP_AGAIN;
        seen |= EPT_RESCUE;
        break;
    default:
        break;
    }
    return step_wait(context, page, seen, write, patience);
}

int page_resolve(struct fault_context *context, uint64_t page, bool write, bool rescue,
                 struct patience *patience)
{
    struct fault_engine *engine = context->engine;
    uint64_t start_ns = clock_now_ns();
    if (page >= engine->span_pages)
        return -EFAULT;
    tally_add(&context->tally.faults, 1);
    uint64_t seen = atomic_load(&engine->words[page]);
    if (ept_word_state(seen) == EPT_LOCAL) {
        tally_add(&context->tally.spurious, 1);
        return 0;
    }
    probe_fault_begin(context->lane, page, write);
    const struct fault_source *source = &engine->config.source;
    int step = STEP_AGAIN;
    while (step == STEP_AGAIN) {
        step = resolve_step(context, page, write, rescue, patience);
        if (step == -EFAULT && source->replaced && source->replaced(source->owner, page))
            step = STEP_AGAIN;
    }
    fault_histogram_add(&context->tally.fault_ns, clock_now_ns() - start_ns);
    probe_fault_end(context->lane, page, write, seen, engine->words[page], start_ns, step);
    return step;
}

int fault_resolve(struct fault_context *context, uint64_t page, bool write)
{
    struct patience patience = patience_begin(context->engine);
    if (page < context->engine->span_pages)
        arrivals_begin(context, page);
    return page_resolve(context, page, write, write, &patience);
}
