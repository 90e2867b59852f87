/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One miss, from claim to installed: ABSENT pages are filled (zeroes or file contents), REMOTE
 * pages fetched, each with neighbours, because leaving the guest costs far more than one more page.
 * Runs in the thread that faulted. Two threads on one page: one wins the compare-and-swap and
 * works, the other sleeps on the word.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>
#include <string.h>

enum step { STEP_RESIDENT, STEP_NOT_OURS, STEP_AGAIN };

#define FILL_MIN_PAGES  8u
#define FILE_FILL_PAGES 32u

/* ---- claims: consecutive pages in one state, taken by compare-and-swap ---- */

static bool page_claim(struct fault_engine *engine, uint64_t page, enum ept_state from,
                       enum ept_state to)
{
    uint64_t word = atomic_load(&engine->words[page]);
    if (ept_word_state(word) != from)
        return false;
    return atomic_compare_exchange_strong(&engine->words[page], &word,
                                          (word & ~EPT_STATE_MASK) | to);
}

static void run_release(struct fault_engine *engine, uint64_t page, uint64_t pages,
                        enum ept_state to)
{
    for (uint64_t i = page; i < page + pages; i++)
        word_settle(&engine->words[i],
                    (atomic_load(&engine->words[i]) & ~(EPT_STATE_MASK | EPT_DIRTY)) | to);
}

static uint64_t run_claim(struct fault_engine *engine, uint64_t page, uint64_t want,
                          enum ept_state from, enum ept_state to)
{
    uint64_t count = 0;
    while (count < want && page_claim(engine, page + count, from, to))
        count++;
    return count;
}

/* Frames for a claimed run: waits for the first page's, takes what is free for the others. */
static int64_t run_frames(struct fault_context *context, uint64_t pages)
{
    int64_t got = frames_take(context, 1, false);
    if (got > 0 && pages > 1)
        got += frames_take(context, pages - 1, true);
    return got;
}

static void run_resident(struct fault_engine *engine, uint64_t page, uint64_t pages)
{
    while (pages) {
        uint64_t here = BLOCK_PAGES - page % BLOCK_PAGES;
        if (here > pages)
            here = pages;
        atomic_fetch_add(&block_of(engine, page)->resident, (unsigned short)here);
        if (engine->paged)
            reclaimer_block_resident(engine, page);
        page += here;
        pages -= here;
    }
}

/*
 * Counted before the claim, so that a discard that skips blocks without existing pages cannot miss
 * a page being filled.
 */
static void run_existing(struct fault_engine *engine, uint64_t page, uint64_t pages, int sign)
{
    while (pages) {
        uint64_t here = BLOCK_PAGES - page % BLOCK_PAGES;
        if (here > pages)
            here = pages;
        atomic_fetch_add(&block_of(engine, page)->existing, (unsigned)(sign * (int)here));
        page += here;
        pages -= here;
    }
}

/* Gives up a claimed run of first touches. */
static void fill_release(struct fault_engine *engine, uint64_t page, uint64_t pages)
{
    run_release(engine, page, pages, EPT_ABSENT);
    run_existing(engine, page, pages, -1);
}

/*
 * Marks those pages of a claimed run whose D bit cannot be trusted (engine.c, "Epochs"). Must come
 * before the install: a vCPU that walked the guest's table before D was cleared could map the new
 * page, store to it and leave KVM_RUN, and would pass for quiet afterwards.
 */
static void run_distrust(struct fault_engine *engine, uint64_t page, uint64_t pages)
{
    uint32_t judged = 0;
    bool trusted = false;
    for (uint64_t i = page; i < page + pages; i++) {
        uint32_t epoch = (uint32_t)(atomic_load(&engine->words[i]) >> EPT_EPOCH_SHIFT);
        if (i == page || epoch != judged) /* neighbours were mostly evicted together */
            trusted = fault_epoch_passed(engine, epoch);
        judged = epoch;
        if (!trusted)
            atomic_fetch_or(&engine->words[i], EPT_DIRTY);
    }
}

static int install_failed(struct fault_engine *engine, uint64_t page, int error)
{
    message_error("second stage: install page at 0x%llx: %s",
                  (unsigned long long)page << EPT_PAGE_SHIFT, strerror(-error));
    return fault_fail(engine, error);
}

/* ---- first touch ---- */

/* Consecutive first touches double the window; others start small, not to waste frames. */
static uint64_t fill_window(struct fault_context *context, uint64_t page, unsigned *stream)
{
    /* Guessed pages count against the quota: fewer guesses when it is no longer far away. */
    const struct fault_engine *engine = context->engine;
    bool plenty = atomic_load(&engine->existing_pages) < engine->config.memory_pages / 4;
    *stream =
        streams_find(&context->fills, page, plenty ? FILL_MIN_PAGES : 1, FILL_MAX_PAGES, false);
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

static void fill_settle(struct fault_context *context, uint64_t page, uint64_t pages, bool zero)
{
    struct fault_engine *engine = context->engine;
    for (uint64_t i = page; i < page + pages; i++) {
        uint64_t word = atomic_load(&engine->words[i]);
        uint64_t flags = zero ? EPT_DIRTY : EPT_FILE | (word & EPT_DIRTY);
        word_settle(&engine->words[i], (word & ~EPT_LOW_HALF) | flags | EPT_LOCAL);
    }
    tally_add(zero ? &context->tally.zero_filled : &context->tally.file_filled, pages);
}

/* Budget for a claimed run, shortening it to what there is. Pages or -errno; the claim shrinks too.
 */
static int64_t fill_budget(struct fault_context *context, uint64_t page, uint64_t count)
{
    struct fault_engine *engine = context->engine;
    int64_t quota = quota_take(engine, count);
    if (quota == 0) {
        fill_release(engine, page, count);
        return -ENOMEM;
    }
    int64_t frames = run_frames(context, (uint64_t)quota);
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
    uint64_t count = run_claim(engine, page, want, EPT_ABSENT, EPT_FILLING);
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

static int fill(struct fault_context *context, uint64_t page)
{
    struct fault_engine *engine = context->engine;
    bool zero = false;
    int64_t count = fill_claim(context, page, &zero);
    if (count > 0)
        count = fill_budget(context, page, (uint64_t)count);
    if (count <= 0)
        return count == 0 ? STEP_NOT_OURS : (int)count;
    uint64_t pages = (uint64_t)count, start_ns = clock_now_ns();
    ept_prime(engine->ept, page, pages, zero); /* a zero page is about to be written */
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
    run_resident(engine, page, pages);
    return 0;
}

/* ---- fetch ---- */

static uint64_t fetch_window(struct fault_context *context, uint64_t page, unsigned *stream)
{
    *stream = streams_find(&context->fetches, page, 1, WINDOW_MAX_PAGES, true);
    uint64_t window = context->fetches.of[*stream].window;
    uint64_t to_block_end = BLOCK_PAGES - page % BLOCK_PAGES;
    return window < to_block_end ? window : to_block_end;
}

static int lane_open(struct fault_engine *engine, struct lane *lane)
{
    void *buffer;
    if (lane->queue)
        return 0;
    int error =
        rdma_buffer_alloc(engine->config.node, (size_t)WINDOW_MAX_PAGES * EPT_PAGE_BYTES, &buffer);
    if (error)
        return error;
    error = rdma_queue_create(engine->config.node, RDMA_QUEUE_DEMAND, 16, &lane->queue);
    if (error) {
        rdma_buffer_free(engine->config.node, buffer, (size_t)WINDOW_MAX_PAGES * EPT_PAGE_BYTES);
        return error;
    }
    lane->buffer = buffer;
    return 0;
}

static int lane_read(struct fault_engine *engine, struct lane *lane, uint64_t page, uint32_t pages)
{
    struct rdma_request request = {
        .op = RDMA_READ, .pages = pages, .page = page, .local = lane->buffer, .cookie = page};
    struct rdma_completion completion;
    int posted = rdma_queue_post(lane->queue, &request, 1);
    if (posted != 1)
        return posted < 0 ? posted : -EIO;
    struct patience patience = {.left_ns = engine->config.timeout_ns};
    for (;;) {
        uint64_t start_ns = clock_now_ns();
        int got = rdma_queue_poll(lane->queue, &completion, 1, PATIENCE_SLICE_NS);
        if (got < 0)
            return got;
        if (got == 1) /* any other cookie would be the answer to a question given up: wrong bytes */
            return completion.cookie == page ? completion.status : -EIO;
        if (patience_spend(&patience, start_ns))
            return -ETIMEDOUT;
    }
}

int lane_fetch(struct fault_context *context, uint64_t page, uint32_t pages, void **data,
               struct lane **held)
{
    struct fault_engine *engine = context->engine;
    *held = NULL;
    struct lane *lane = &engine->lanes[context->index % LANES_MAX];
    pthread_mutex_lock(&lane->lock);
    int error = fault_engine_error(engine);
    if (!error)
        error = lane_open(engine, lane);
    if (!error)
        error = lane_read(engine, lane, page, pages);
    if (error) {
        pthread_mutex_unlock(&lane->lock);
        return fault_fail(engine, error);
    }
    *data = lane->buffer;
    *held = lane;
    return 0;
}

static void fetch_settle(struct fault_context *context, uint64_t page, uint64_t pages)
{
    struct fault_engine *engine = context->engine;
    for (uint64_t i = page; i < page + pages; i++) {
        uint64_t word = atomic_load(&engine->words[i]);
        uint64_t flags = EPT_LOCAL | EPT_COPY | (word & (EPT_FILE | EPT_DIRTY));
        if (i != page)
            flags |= EPT_PREFETCHED;
        word_settle(&engine->words[i], (word & ~EPT_LOW_HALF) | flags);
    }
    tally_add(&context->tally.demand_fetches, 1);
    tally_add(&context->tally.prefetched, pages - 1);
}

static int fetch(struct fault_context *context, uint64_t page, bool write)
{
    struct fault_engine *engine = context->engine;
    unsigned stream;
    uint64_t window = fetch_window(context, page, &stream);
    uint64_t count = run_claim(engine, page, window, EPT_REMOTE, EPT_FETCHING);
    if (!count)
        return -EAGAIN;
    int64_t frames = run_frames(context, count);
    uint64_t kept = frames > 0 ? (uint64_t)frames : 0;
    run_release(engine, page + kept, count - kept, EPT_REMOTE);
    if (frames < 0)
        return (int)frames;
    void *data = NULL;
    struct lane *lane = NULL;
    uint64_t start_ns = clock_now_ns();
    int error = lane_fetch(context, page, (uint32_t)kept, &data, &lane);
    uint64_t fetched_ns = clock_now_ns();
    if (!error) {
        /* A store is likely to be followed by stores next door: spare KVM their D bit faults. */
        ept_prime(engine->ept, page, kept, write);
        run_distrust(engine, page, kept);
        error = ept_install(engine->ept, page, data, kept);
        if (error)
            install_failed(engine, page, error);
    }
    if (lane)
        pthread_mutex_unlock(&lane->lock);
    if (error) {
        frames_give(engine, kept);
        run_release(engine, page, kept, EPT_REMOTE);
        return error;
    }
    fault_histogram_add(&context->tally.fetch_ns, fetched_ns - start_ns);
    fault_histogram_add(&context->tally.install_ns, clock_now_ns() - fetched_ns);
    fetch_settle(context, page, kept);
    run_resident(engine, page, kept);
    context->fetches.of[stream].next = page + kept;
    return 0;
}

/* ---- the state machine as a faulting thread sees it ---- */

/* One step as a faulting thread sees it: enum step, or -errno. */
static int resolve_step(struct fault_context *context, uint64_t page, bool write,
                        struct patience *patience)
{
    struct fault_engine *engine = context->engine;
    ept_word_t *word = &engine->words[page];
    uint64_t seen = atomic_load(word);
    int error;
    switch (ept_word_state(seen)) {
    case EPT_LOCAL:
        return 0;
    case EPT_ABSENT:
        error = fill(context, page);
        return error == -EAGAIN ? STEP_AGAIN : error;
    case EPT_REMOTE:
        error = fetch(context, page, write);
        return error == -EAGAIN ? STEP_AGAIN : error;
    case EPT_EVICTING:
        if (!write)
            return 0; /* write-protected, still readable */
        if (!(seen & EPT_RESCUE) && !atomic_compare_exchange_strong(word, &seen, seen | EPT_RESCUE))
            return STEP_AGAIN;
        seen |= EPT_RESCUE;
        break;
    default:
        break;
    }
    error = fault_engine_error(engine);
    return error ? error : word_wait(word, seen, patience) == 0 ? STEP_AGAIN : -ETIMEDOUT;
}

int fault_resolve(struct fault_context *context, uint64_t page, bool write)
{
    struct fault_engine *engine = context->engine;
    uint64_t start_ns = clock_now_ns();
    if (page >= engine->span_pages)
        return -EFAULT;
    tally_add(&context->tally.faults, 1);
    if (ept_word_state(atomic_load(&engine->words[page])) == EPT_LOCAL) {
        tally_add(&context->tally.spurious, 1);
        return 0;
    }
    struct patience patience = {.left_ns = engine->config.timeout_ns};
    int step = STEP_AGAIN;
    while (step == STEP_AGAIN)
        step = resolve_step(context, page, write, &patience);
    fault_histogram_add(&context->tally.fault_ns, clock_now_ns() - start_ns);
    return step;
}
