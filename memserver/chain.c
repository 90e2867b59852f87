/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In a worker process: follows chains through its tenant's memory (rdma/chain_wire.h). Knows where
 * each slab that the tenant holds is, by the tenant's own number for it; whatever lies elsewhere
 * ends the chain. The worker's only thread also carries out the tenant's reads and writes, so a
 * node is never read half-written. Costs at most CHAIN_NODES_MAX small copies a request.
 */
#include "memserver/chain.h"

#include <errno.h>
#include <string.h>

#define SLAB_PAGES (WIRE_SLAB_BYTES / 4096u)

static struct {
    const uint8_t *base;
    uint64_t slabs;           /* numbers are below */
    struct slab_table places; /* by number: index in the memory file, of those held */
} chains;

int chains_open(uint64_t span_pages, const uint8_t *base)
{
    if (span_pages == 0 || span_pages > WIRE_SPAN_MAX_PAGES)
        return -EINVAL;
    chains.base = base;
    chains.slabs = (span_pages + SLAB_PAGES - 1) / SLAB_PAGES;
    return 0;
}

int chains_slab(uint64_t slab, uint64_t offset, bool held)
{
    if (slab >= chains.slabs)
        return -EINVAL;
    if (held)
        return slab_table_put(&chains.places, slab, offset / WIRE_SLAB_BYTES);
    slab_table_remove(&chains.places, slab);
    return 0;
}

/* The part of [address, address + bytes) that lies in one slab; NULL: not held. */
static const uint8_t *part_at(uint64_t address, uint32_t bytes, uint32_t *part_bytes)
{
    uint64_t slab = address / WIRE_SLAB_BYTES, offset = address % WIRE_SLAB_BYTES, place;

    if (slab >= chains.slabs || slab_table_find(&chains.places, slab, &place) < 0)
        return NULL;
    *part_bytes = bytes < WIRE_SLAB_BYTES - offset ? bytes : (uint32_t)(WIRE_SLAB_BYTES - offset);
    return chains.base + place * WIRE_SLAB_BYTES + offset;
}

/* A slab's end may lie within a node; an address near 2^64 wraps to one that is judged as it is. */
static bool node_copy(uint64_t address, uint32_t bytes, uint8_t *to)
{
    while (bytes > 0) {
        uint32_t part_bytes;
        const uint8_t *part = part_at(address, bytes, &part_bytes);

        if (!part)
            return false;
        memcpy(to, part, part_bytes);
        to += part_bytes;
        address += part_bytes;
        bytes -= part_bytes;
    }
    return true;
}

size_t chains_follow(const struct chain_request *request, struct chain_answer *answer)
{
    uint64_t address = request->address;

    answer->magic = CHAIN_MAGIC;
    answer->nodes = 0;
    answer->node_bytes = request->node_bytes;
    answer->cookie = request->cookie;
    if (chain_request_valid(request)) {
        while (answer->nodes < request->nodes && address) {
            uint8_t *node = answer->data + (size_t)answer->nodes * request->node_bytes;

            if (!node_copy(address, request->node_bytes, node))
                break;
            memcpy(&address, node + request->next_bytes, sizeof(address));
            answer->nodes++;
        }
    }
    return offsetof(struct chain_answer, data) + (size_t)answer->nodes * answer->node_bytes;
}
