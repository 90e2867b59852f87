/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RDMA_CHAIN over libfabric: a request as a message of 32 bytes, the answer as one message, on the
 * connection that the queue's reads use (chain_wire.h). Answers come in the order of requests, so
 * the buffers form a ring:
 *
 *   done <= sent <= armed <= done + CHAIN_DEPTH
 *   armed: a buffer waits for an answer; sent: the request for it is out; done: it came
 *
 * A buffer can be armed before its request could be sent: the next request then uses it. What
 * answers is not trusted: an answer to another question ends the node.
 */
#include "rdma/chain_wire.h"
#include "rdma/ofi_internal.h"

#include <errno.h>
#include <rdma/fi_errno.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(RDMA_CHAIN_NODES_MAX == CHAIN_NODES_MAX, "what one request may ask");
_Static_assert(RDMA_CHAIN_NODE_MAX_BYTES == CHAIN_NODE_MAX_BYTES, "what one request may ask");

struct ofi_chain {
    uint32_t slot;
    struct chain_request request;
    struct chain_answer answer;
};

struct ofi_chains {
    uint64_t armed, sent, done;
    struct ofi_chain ring[CHAIN_DEPTH];
};

static void chain_describe(struct ofi_chain *chain, const struct rdma_request *from,
                           uint64_t cookie)
{
    chain->request = (struct chain_request){
        .magic = CHAIN_MAGIC,
        .nodes = (uint16_t)from->chain_nodes,
        .node_bytes = (uint16_t)from->bytes,
        .next_bytes = (uint16_t)from->chain_next,
        .address = from->page * RDMA_PAGE_BYTES + from->offset_bytes,
        .cookie = cookie,
    };
}

int ofi_chain_post(struct rdma_queue *queue, uint32_t slot)
{
    struct ofi_queue *ofi = queue->private;
    struct ofi_chains *chains = ofi->chains;
    struct ofi_chain *chain;
    ssize_t error;

    if (!chains)
        chains = ofi->chains = calloc(1, sizeof(*chains));
    if (!chains)
        return -FI_ENOMEM;
    if (chains->sent - chains->done == CHAIN_DEPTH)
        return -FI_EAGAIN;
    chain = &chains->ring[chains->sent % CHAIN_DEPTH];
    if (chains->armed == chains->sent) {
        memset(&chain->answer, 0, offsetof(struct chain_answer, data));
        error = fi_recv(ofi->ep, &chain->answer, sizeof(chain->answer), NULL, 0, chain);
        if (error)
            return (int)error;
        chains->armed++;
    }
    chain_describe(chain, &queue->slots[slot].request, chains->sent);
    chain->slot = slot;
    error = fi_inject(ofi->ep, &chain->request, sizeof(chain->request), 0);
    if (error)
        return (int)error;
    chains->sent++;
    return 0;
}

int ofi_chain_completed(struct rdma_queue *queue, const void *context,
                        struct rdma_finished *finished)
{
    struct ofi_queue *ofi = queue->private;
    struct ofi_chains *chains = ofi->chains;
    const struct rdma_request *request;
    const struct ofi_chain *chain;

    if (!chains || (const char *)context < (const char *)chains->ring ||
        (const char *)context >= (const char *)(chains->ring + CHAIN_DEPTH))
        return 0;
    chain = &chains->ring[chains->done % CHAIN_DEPTH];
    /* Whose answer it would be cannot be told: it ends no request, the node's end ends them all. */
    if (context != chain || chains->done == chains->sent ||
        !chain_answer_valid(&chain->answer, &chain->request)) {
        rdma_node_fail(queue->node, -EPROTO, "answered a request that was not made");
        return rdma_node_error(queue->node);
    }
    chains->done++;
    request = &queue->slots[chain->slot].request;
    *request->chain_got = chain->answer.nodes;
    memcpy(request->local, chain->answer.data, (size_t)chain->answer.nodes * request->bytes);
    *finished = (struct rdma_finished){.slot = chain->slot};
    return 1;
}
