/* SPDX-License-Identifier: Apache-2.0 */
/*
 * First touches: ABSENT pages are filled with zeroes or file contents, with their neighbours,
 * because leaving the guest costs far more than one more page. Runs in the thread that faulted.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>

#define FILL_MIN_PAGES  8u
#define FILE_FILL_PAGES 32u

/* Gives up a claimed run of first touches. */
static void fill_release(struct fault_engine *engine, uint64_t page, uint64_t pages)
{
    run_release(engine, page, pages, EPT_ABSENT);
    run_existing(engine, page, pages, -1);
}

/* Consecutive first touches double the window; others start small, not to waste frames. */
static uint64_t fill_window(struct fault_context *context, uint64_t page, unsigned *stream)
{
    /* Guessed pages count against the quota: fewer guesses when it is no longer far away. */
    const struct fault_engine *engine = context->engine;
    bool plenty = atomic_load(&engine->existing_pages) < engine->config.memory_pages / 4;
    *stream = streams_find(&context->fills, page, plenty ? FILL_MIN_PAGES : 1, FILL_MAX_PAGES);
    uint64_t window = context->fills.of[*stream].window;
    uint64_t room = frames_free(engine) / 8;
    return room < window ? room + 1 : window;
}

static int fill_install(struct fault_context *context, uint64_t page, uint64_t pages, bool zero)
{
    struct fault_engine *engine = context->engine;
    uint8_t buffer[FILE_FILL_PAGES * EPT_PAGE_BYTES] __attribute__((aligned(4096)));
    if (zero)
        return ept_install_zero(engine->ept, page, pages);
    const struct fault_source *source = &engine->config.source;
    int error = source->read(source->owner, page, pages, buffer);
    return error ? error : ept_install(engine->ept, page, buffer, pages);
}

/* The first page was asked for; of a file it may have been here before, as its neighbours may. */
static void fill_settle(struct fault_context *context, uint64_t page, uint64_t pages, bool zero)
{
    struct fault_engine *engine = context->engine;
    uint64_t left = zero ? 0 : atomic_load(&engine->words[page]);
    uint64_t arrival = clock_arrival(&engine->clock, left, !zero);
    unsigned active = (arrival & EPT_ACTIVE) != 0;
    run_resident(engine, page, pages, active);
    atomic_fetch_add_explicit(&engine->refaults, active, memory_order_relaxed);
    probe_filled(context->lane, page, pages, zero);
    for (uint64_t i = page; i < page + pages; i++) {
        uint64_t word = atomic_load(&engine->words[i]);
        uint64_t flags = (word & EPT_USED) | (zero ? EPT_DIRTY : EPT_FILE | (word & EPT_DIRTY));
        word_settle(&engine->words[i], arrival | flags | EPT_LOCAL);
        arrival = clock_arrival(&engine->clock, 0, false);
    }
    tally_add(zero ? &context->tally.zero_filled : &context->tally.file_filled, pages);
}

/* Frames for a claimed run: waits for the first page's, takes what is free for the others. */
static int64_t fill_frames(struct fault_context *context, uint64_t pages, struct patience *patience)
{
    int64_t got = frames_take(context, 1, patience);
    if (got > 0 && pages > 1)
        got += (int64_t)frames_take_optional(context->engine, pages - 1);
    return got;
}

/* Budget for a claimed run, shortening it to what there is. Pages or -errno; the claim shrinks too.
 */
static int64_t fill_budget(struct fault_context *context, uint64_t page, uint64_t count,
                           struct patience *patience)
{
    struct fault_engine *engine = context->engine;
    int64_t quota = quota_take(engine, count);
    if (quota == 0) {
        fill_release(engine, page, count);
        return -ENOMEM;
    }
    int64_t frames = fill_frames(context, (uint64_t)quota, patience);
    int64_t kept = frames > 0 ? frames : 0;
    quota_give(engine, (uint64_t)(quota - kept));
    fill_release(engine, page + (uint64_t)kept, count - (uint64_t)kept);
    return frames;
}

/*
 * Claims a run of ABSENT pages of one origin. The origin is looked up again after the claim: an
 * munmap that came between has already looked at these pages, and they must stay ABSENT. Pages or
 * -errno.
 */
static int64_t fill_claim(struct fault_context *context, uint64_t page, bool *zero)
{
    struct fault_engine *engine = context->engine;
    const struct fault_source *source = &engine->config.source;
    uint64_t first, last;
    int error = source->extent(source->owner, page, &first, &last, zero);
    if (error)
        return error < 0 ? error : 0; /* 0: the host kernel fills it */
    unsigned stream = 0;
    uint64_t want = *zero ? fill_window(context, page, &stream) : FILE_FILL_PAGES;
    want = want < last - page ? want : last - page;
    run_existing(engine, page, want, 1);
    uint64_t count = run_claim(engine, page, want, EPT_ABSENT, EPT_FILLING, 0);
    run_existing(engine, page + count, want - count, -1);
    if (!count)
        return -EAGAIN;
    bool still_zero = false;
    error = source->extent(source->owner, page, &first, &last, &still_zero);
    if (error || still_zero != *zero || last < page + count) {
        fill_release(engine, page, count);
        return error < 0 ? error : -EAGAIN;
    }
    if (*zero)
        context->fills.of[stream].next = page + count;
    return (int64_t)count;
}

int fault_fill(struct fault_context *context, uint64_t page, struct patience *patience)
{
    struct fault_engine *engine = context->engine;
    bool zero = false;
    int64_t count = fill_claim(context, page, &zero);
    if (count > 0)
        count = fill_budget(context, page, (uint64_t)count, patience);
    if (count <= 0)
        return count == 0 ? 1 : (int)count;
    uint64_t pages = (uint64_t)count, start_ns = clock_now_ns();
    ept_prime(engine->ept, page, pages, true, zero); /* a zero page is about to be written */
    if (!zero)
        run_distrust(engine, page, pages);
    int error = fill_install(context, page, pages, zero);
    if (error) {
        frames_give(engine, pages);
        quota_give(engine, pages);
        fill_release(engine, page, pages);
        return error == -EIO || error == -EFAULT ? error : install_failed(engine, page, error);
    }
    fault_histogram_add(&context->tally.install_ns, clock_now_ns() - start_ns);
    fill_settle(context, page, pages, zero);
    return 0;
}
