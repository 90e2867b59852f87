/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks: some bytes of a remote page, without the page. Many are in flight at once, on a queue of
 * their context's own, so that a demand fetch never stands behind them.
 *
 * A look claims its page as a fetch does (REMOTE -> FETCHING, lane 0), reads some bytes, and gives
 * it up as a fetch that failed does (FETCHING -> REMOTE): no transition that the state table does
 * not have. While the claim stands nobody can discard the page, so its slab cannot be released, and
 * nobody can fetch, change and write it back, so the bytes are of one moment. A fault that comes
 * meanwhile waits for one round trip. Looks at one page share the claim, unless somebody waits for
 * it: then the next look tries again later, and a new claim is left alone until whoever waited has
 * had time to wake up, or a stream of looks could keep a fault waiting until it gives up.
 */
#include "fault/looker.h"
#include "support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define YIELD_NS 1000000u /* a sleeper's wake-up on a busy host */

int looker_get(struct fault_context *context, struct looker **out)
{
    struct rdma_node *node = context->engine->config.node;
    struct looker *looker = context->looker;
    void *buffer = NULL;
    int error = 0;
    if (!looker) {
        looker = calloc(1, sizeof(*looker));
        error = looker ? rdma_buffer_alloc(node, (size_t)LOOKS * FAULT_PEEK_MAX_BYTES, &buffer)
                       : -ENOMEM;
        if (!error)
            error = rdma_queue_create(node, RDMA_QUEUE_PREFETCH, LOOKS + CHAINS, &looker->queue);
        if (error) {
            rdma_buffer_free(node, buffer, (size_t)LOOKS * FAULT_PEEK_MAX_BYTES);
            free(looker);
            return error;
        }
        looker->buffer = buffer;
        context->looker = looker;
    }
    *out = looker;
    return 0;
}

static uint8_t *look_buffer(const struct looker *looker, unsigned index)
{
    return looker->buffer + (size_t)index * FAULT_PEEK_MAX_BYTES;
}

/* Is one of our looks at this page in flight, whose claim another may share? */
static bool claim_shared(struct fault_context *context, const struct looker *looker, uint64_t page)
{
    for (uint64_t left = looker->busy; left; left &= left - 1)
        if (looker->looks[__builtin_ctzll(left)].page == page)
            return !(atomic_load(&context->engine->words[page]) & EPT_WAITERS);
    return false;
}

/* Gives the claim up, noting whether somebody waited for it. */
static void claim_end(struct fault_context *context, uint64_t page)
{
    if (atomic_load(&context->engine->words[page]) & EPT_WAITERS)
        context->looker->yields[page % YIELDS] =
            (struct yield){.page = page, .until_ns = clock_now_ns() + YIELD_NS};
    run_release(context->engine, page, 1, EPT_REMOTE);
}

static bool claim_yields(const struct looker *looker, uint64_t page)
{
    const struct yield *yield = &looker->yields[page % YIELDS];
    return yield->until_ns && yield->page == page && clock_now_ns() < yield->until_ns;
}

static int look_post(struct looker *looker, unsigned index, const struct fault_peek *peek)
{
    struct rdma_request request = {.op = RDMA_READ,
                                   .page = peek->gpa >> EPT_PAGE_SHIFT,
                                   .offset_bytes = (uint32_t)(peek->gpa % EPT_PAGE_BYTES),
                                   .bytes = peek->bytes,
                                   .local = look_buffer(looker, index),
                                   .cookie = index};
    int posted = rdma_queue_post(looker->queue, &request, 1);
    return posted == 1 ? 0 : posted < 0 ? posted : -EAGAIN;
}

/* ---- starting ---- */

static int peek_finish(struct fault_peek *peek, int status)
{
    peek->status = status;
    return 0;
}

/* Never written: zeroes, or file contents, which only a touch brings. */
static int peek_absent(struct fault_engine *engine, struct fault_peek *peek, uint64_t page)
{
    const struct fault_source *source = &engine->config.source;
    uint64_t first, last;
    bool zero = false;
    int error = source->extent(source->owner, page, &first, &last, &zero);
    if (error < 0)
        return peek_finish(peek, error);
    if (error > 0 || !zero)
        return peek_finish(peek, -ENODATA);
    /* What was asked about may be laid there just now, with the contents that it had elsewhere. */
    if (ept_word_state(atomic_load(&engine->words[page])) != EPT_ABSENT)
        return -EAGAIN;
    memset(peek->to, 0, peek->bytes);
    return peek_finish(peek, 0);
}

static int peek_local(struct fault_engine *engine, struct fault_peek *peek, uint64_t page)
{
    int tried = pin_try(&engine->words[page], false);
    if (tried)
        return -EAGAIN;
    memcpy(peek->to, ept_hva(engine->ept, peek->gpa), peek->bytes);
    fault_unpin(engine, page, 1);
    return peek_finish(peek, 0);
}

static int peek_remote(struct fault_context *context, struct fault_peek *peek, uint64_t page)
{
    struct fault_engine *engine = context->engine;
    struct looker *looker;
    int error = looker_get(context, &looker);
    if (error)
        return peek_finish(peek, error);
    if (looker->busy == UINT64_MAX)
        return -EAGAIN;
    bool shared = claim_shared(context, looker, page);
    if (!shared && claim_yields(looker, page))
        return -EAGAIN;
    if (!shared && !run_claim(engine, page, 1, EPT_REMOTE, EPT_FETCHING, 0))
        return -EAGAIN;
    unsigned index = (unsigned)__builtin_ctzll(~looker->busy);
    error = look_post(looker, index, peek);
    if (error) {
        if (!shared)
            run_release(engine, page, 1, EPT_REMOTE);
        return error == -EAGAIN ? error : peek_finish(peek, fault_fail(engine, error));
    }
    looker->looks[index] = (struct look){.page = page, .peek = peek};
    looker->busy |= 1ULL << index;
    return 1;
}

int fault_peek_start(struct fault_context *context, struct fault_peek *peek)
{
    struct fault_engine *engine = context->engine;
    uint64_t page = peek->gpa >> EPT_PAGE_SHIFT;
    uint64_t offset = peek->gpa % EPT_PAGE_BYTES;
    if (page >= engine->span_pages || peek->bytes == 0 || peek->bytes > FAULT_PEEK_MAX_BYTES ||
        peek->bytes > EPT_PAGE_BYTES - offset)
        return peek_finish(peek, -EFAULT);
    if (!engine->paged)
        return peek_finish(peek, -ENODATA);
    switch (ept_word_state(atomic_load(&engine->words[page]))) {
    case EPT_ABSENT:
        return peek_absent(engine, peek, page);
    case EPT_LOCAL:
        return peek_local(engine, peek, page);
    case EPT_REMOTE:
    case EPT_FETCHING: /* perhaps by a look of our own */
        return peek_remote(context, peek, page);
    default:
        return -EAGAIN;
    }
}

/* ---- arrival ---- */

static void look_landed(struct fault_context *context, unsigned index, int status)
{
    struct looker *looker = context->looker;
    struct look look = looker->looks[index];
    bool last = true;
    looker->busy &= ~(1ULL << index);
    if (status)
        fault_fail(context->engine, status);
    else
        memcpy(look.peek->to, look_buffer(looker, index), look.peek->bytes);
    for (uint64_t left = looker->busy; left && last; left &= left - 1)
        last = looker->looks[__builtin_ctzll(left)].page != look.page;
    if (last)
        claim_end(context, look.page);
    look.peek->status = status;
    look.peek->done(look.peek);
}

/* Far memory is lost: nothing will arrive, and nothing that did would be looked at. */
static void looks_fail(struct fault_context *context, int error)
{
    while (context->looker->busy)
        look_landed(context, (unsigned)__builtin_ctzll(context->looker->busy), error);
    for (unsigned i = 0; i < CHAINS; i++)
        if (context->looker->chains[i])
            chain_landed(context, i, error);
}

int fault_peek_poll(struct fault_context *context, uint64_t wait_ns)
{
    struct looker *looker = context->looker;
    struct rdma_completion done[16];
    if (!looker || (!looker->busy && !chains_flying(looker)))
        return 0;
    int got = rdma_queue_poll(looker->queue, done, 16, wait_ns);
    if (got < 0) {
        fault_fail(context->engine, got);
        looks_fail(context, got);
        return got;
    }
    for (int i = 0; i < got; i++) {
        unsigned index = (unsigned)done[i].cookie;
        if (index < LOOKS)
            look_landed(context, index, done[i].status);
        else
            chain_landed(context, index - LOOKS, done[i].status);
    }
    return __builtin_popcountll(looker->busy) + (int)chains_flying(looker);
}

static void peek_done(struct fault_peek *peek)
{
    *(bool *)peek->owner = true;
}

/* The page moves, or too many looks are out: goes on when that may have changed. */
static int peek_wait(struct fault_context *context, uint64_t page, struct patience *patience)
{
    struct fault_engine *engine = context->engine;
    uint64_t seen = atomic_load(&engine->words[page]);
    enum ept_state state = ept_word_state(seen);
    int polled = fault_peek_poll(context, 0);
    if (polled < 0)
        return polled;
    if (fault_engine_error(engine))
        return fault_engine_error(engine);
    if (state == EPT_LOCAL || state == EPT_REMOTE || state == EPT_ABSENT || polled)
        return patience_spend(patience);
    return page_wait(engine, page, seen, patience);
}

int fault_peek(struct fault_context *context, gpa_t gpa, uint32_t bytes, void *to)
{
    bool finished = false;
    struct fault_peek peek = {
        .gpa = gpa, .bytes = bytes, .to = to, .done = peek_done, .owner = &finished};
    struct patience patience = patience_begin(context->engine);
    int started;
    while ((started = fault_peek_start(context, &peek)) == -EAGAIN) {
        int error = peek_wait(context, gpa >> EPT_PAGE_SHIFT, &patience);
        if (error)
            return error;
    }
    while (started == 1 && !finished) {
        int polled = fault_peek_poll(context, PATIENCE_SLICE_NS);
        if (polled < 0)
            return polled;
    }
    return peek.status;
}

void looker_destroy(struct fault_context *context)
{
    struct looker *looker = context->looker;
    int left = 1;
    if (!looker)
        return;
    while (left > 0) /* the queue ends the wait: it gives a node that does not answer up */
        left = fault_peek_poll(context, PATIENCE_SLICE_NS);
    rdma_queue_destroy(looker->queue);
    rdma_buffer_free(context->engine->config.node, looker->buffer,
                     (size_t)LOOKS * FAULT_PEEK_MAX_BYTES);
    free(looker);
    context->looker = NULL;
}
