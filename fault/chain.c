/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chains of nodes followed by the memory node itself, one round trip for many hops.
 *
 * The memory node does not know which of its pages are out of date, and which pages a chain leads
 * to is not known before. So it reads whatever it holds, and the answer is judged afterwards: a
 * node counts only if the memory node's copy of its pages is, at the moment of judging, the page's
 * contents, and was not written to since before the request was posted. Both can be told without
 * having known the page:
 *
 *   - the copy is the contents while the page is REMOTE, or FETCHING, which comes from REMOTE
 *     (but for bytes that nobody owns: live.c);
 *   - the only writes to a copy are write-backs, and a page that was written back becomes REMOTE
 *     in publish() (evict.c) alone. That takes the next number of engine->departures, after the
 *     write-back is done, and leaves it at the block before the word says REMOTE. A request notes
 *     the last number given when it is posted.
 *
 * So if the word says REMOTE or FETCHING and the block's number is not later than the request's:
 * the publish() that made the page REMOTE took its number, and so had its write-back done, before
 * the request was posted, and every write to the copy came before that. (A write-back that is under
 * way, or was given up, leaves the page in EVICTING, DROPPING or LOCAL; a page discarded and
 * written anew passes through publish() again; a slab is not given back while it has copies.) The
 * node is then what a look at this moment would bring. Otherwise nothing is known, and the caller
 * looks at the page by itself.
 *
 *   race                                            judged by
 *   page here and changed                           state LOCAL
 *   ... and being written back while the chain reads   EVICTING, DROPPING, or a later number
 *   ... written back in between                     later number
 *   page fetched and changed in between, still here    state
 *   page discarded in between                       ABSENT or DISCARDING, or a later number
 *   another page of the block left in between       later number (in vain: costs a look)
 *
 * No page is claimed, so nobody ever waits for a chain.
 */
#include "fault/looker.h"

#include <errno.h>
#include <stdlib.h>

_Static_assert(FAULT_CHAIN_NODES == RDMA_CHAIN_NODES_MAX, "one request");
_Static_assert(FAULT_PEEK_MAX_BYTES == RDMA_CHAIN_NODE_MAX_BYTES, "one request");

unsigned chains_flying(const struct looker *looker)
{
    unsigned flying = 0;
    for (unsigned i = 0; i < CHAINS; i++)
        flying += looker->chains[i] != NULL;
    return flying;
}

static int chain_slot(const struct looker *looker)
{
    for (unsigned i = 0; i < CHAINS; i++)
        if (!looker->chains[i])
            return (int)i;
    return -EAGAIN;
}

static int chain_post(struct looker *looker, unsigned index, struct fault_chain *chain)
{
    struct rdma_request request = {.op = RDMA_CHAIN,
                                   .page = chain->gpa >> EPT_PAGE_SHIFT,
                                   .offset_bytes = (uint32_t)(chain->gpa % EPT_PAGE_BYTES),
                                   .bytes = chain->node_bytes,
                                   .chain_nodes = chain->nodes,
                                   .chain_next = chain->next_bytes,
                                   .chain_got = &chain->got,
                                   .local = chain->data,
                                   .cookie = LOOKS + index};
    int posted = rdma_queue_post(looker->queue, &request, 1);
    return posted == 1 ? 0 : posted < 0 ? posted : -EAGAIN;
}

int fault_chain_start(struct fault_context *context, struct fault_chain *chain)
{
    struct fault_engine *engine = context->engine;
    uint64_t page = chain->gpa >> EPT_PAGE_SHIFT;
    struct looker *looker;
    if (!engine->paged || !rdma_chains(engine->config.node) || page >= engine->span_pages ||
        ept_word_state(atomic_load(&engine->words[page])) != EPT_REMOTE)
        return 0;
    int error = looker_get(context, &looker);
    int index = error ? error : chain_slot(looker);
    if (index < 0)
        return index == -EAGAIN ? index : 0; /* a look tells what is the matter */
    chain->got = 0;
    chain->departure = atomic_load(&engine->departures);
    error = chain_post(looker, (unsigned)index, chain);
    if (error == -EAGAIN || error == -EFAULT) /* full; or the page has left meanwhile */
        return error == -EAGAIN ? error : 0;
    if (error)
        return fault_fail(engine, error);
    looker->chains[index] = chain;
    return 1;
}

void chain_landed(struct fault_context *context, unsigned index, int status)
{
    struct fault_chain *chain = context->looker->chains[index];
    if (!chain) /* it ended with the node */
        return;
    context->looker->chains[index] = NULL;
    if (status) {
        chain->got = 0;
        fault_fail(context->engine, status);
    }
    chain->done(chain);
}

bool fault_chain_valid(const struct fault_engine *engine, const struct fault_chain *chain,
                       gpa_t gpa)
{
    /* By number: what begins in the last page of all addresses has no end. */
    uint64_t page = gpa >> EPT_PAGE_SHIFT,
             last = page + (gpa % EPT_PAGE_BYTES + chain->node_bytes - 1) / EPT_PAGE_BYTES;
    for (; page <= last; page++) {
        if (page >= engine->span_pages)
            return false;
        enum ept_state state = ept_word_state(atomic_load(&engine->words[page]));
        uint32_t departed = atomic_load(&engine->blocks[page >> BLOCK_SHIFT].departed);
        /* Numbers wrap; a block left alone for 2^31 of them is looked at in vain. */
        if ((state != EPT_REMOTE && state != EPT_FETCHING) ||
            (int32_t)(departed - chain->departure) > 0)
            return false;
    }
    return true;
}
