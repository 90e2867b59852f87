/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Following a chain of nodes near the data: the one request that a tenant's worker on the memory
 * node carries out with its own processor. It travels as a message over the tenant's own data
 * connection (libfabric only), 32 bytes, and is answered in order by one message: a header and the
 * nodes' bytes. A part of the wire protocol (wire.h) and of its version.
 *
 * Addresses are the tenant's: page number * 4096 + offset, in those slabs that the tenant holds. A
 * node's successor is the 8 bytes at `next_bytes` of it, so that the client can work out from the
 * answer which addresses it is about; nothing else tells. The server does not know which of its
 * pages are out of date because the tenant has them: the client judges that (fault/chain.c).
 *
 * Freestanding; little-endian.
 */
#ifndef FARVISOR_RDMA_CHAIN_WIRE_H
#define FARVISOR_RDMA_CHAIN_WIRE_H

#include <stddef.h>
#include <stdint.h>

#define CHAIN_MAGIC          0x434d5646u /* "FVMC" */
#define CHAIN_NODES_MAX      64u
#define CHAIN_NODE_MAX_BYTES 256u
#define CHAIN_DEPTH          4u /* requests that a connection may have under way */

struct chain_request {
    uint32_t magic;
    /* IN */
    uint16_t nodes;      /* 1 .. CHAIN_NODES_MAX */
    uint16_t node_bytes; /* sizeof(uint64_t) .. CHAIN_NODE_MAX_BYTES */
    uint16_t next_bytes; /* where in a node the next one's address is; it fits the node */
    uint16_t zero[3];
    uint64_t address; /* of the first node */
    uint64_t cookie;  /* handed back */
};
_Static_assert(sizeof(struct chain_request) == 32, "wire format");

struct chain_answer {
    uint32_t magic;
    /* OUT */
    uint16_t nodes;      /* brought: fewer at the chain's end, or where it leaves the slabs held */
    uint16_t node_bytes; /* as asked */
    uint64_t cookie;
    uint8_t data[CHAIN_NODES_MAX * CHAIN_NODE_MAX_BYTES]; /* only nodes * node_bytes are sent */
};
_Static_assert(offsetof(struct chain_answer, data) == 16, "wire format");

/* A peer's request or answer may be looked at further. */
static inline int chain_request_valid(const struct chain_request *request)
{
    return request->magic == CHAIN_MAGIC && request->nodes > 0 &&
           request->nodes <= CHAIN_NODES_MAX && request->node_bytes >= sizeof(uint64_t) &&
           request->node_bytes <= CHAIN_NODE_MAX_BYTES &&
           request->next_bytes <= request->node_bytes - sizeof(uint64_t) && !request->zero[0] &&
           !request->zero[1] && !request->zero[2];
}

static inline int chain_answer_valid(const struct chain_answer *answer,
                                     const struct chain_request *request)
{
    return answer->magic == CHAIN_MAGIC && answer->cookie == request->cookie &&
           answer->node_bytes == request->node_bytes && answer->nodes <= request->nodes;
}

#endif
