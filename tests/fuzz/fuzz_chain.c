/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes what a memory node does for a tenant that asks it to follow a chain: the first 32 bytes
 * are the request, the rest is the tenant's memory, at the start of one slab and the end of
 * another. Whatever is asked, the answer keeps within what was asked and what the tenant holds.
 */
#include "memserver/chain.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define PROMISE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

#define SLABS 3u

/* Slabs 0, 2 and 3 of the tenant, in the order 2, 0, 3; exactly what it may be shown. */
static uint8_t *memory;

static void set_up(void)
{
    memory = calloc(SLABS, WIRE_SLAB_BYTES);
    PROMISE(memory && chains_open(5 * 512, memory) == 0);
    PROMISE(chains_slab(2, 0, true) == 0);
    PROMISE(chains_slab(0, WIRE_SLAB_BYTES, true) == 0);
    PROMISE(chains_slab(3, 2 * WIRE_SLAB_BYTES, true) == 0);
    PROMISE(chains_slab(4, 0, true) == 0);
    PROMISE(chains_slab(4, 0, false) == 0);
    PROMISE(chains_slab(UINT64_MAX, 0, true) < 0); /* beyond what the tenant has */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct chain_answer answer;
    struct chain_request request;
    size_t sent, tail;

    if (!memory)
        set_up();
    if (bytes < sizeof(request))
        return 0;
    memcpy(&request, data, sizeof(request));
    data += sizeof(request);
    bytes -= sizeof(request);
    bytes = bytes < 8192 ? bytes : 8192;
    tail = bytes / 2;
    memcpy(memory, data, bytes - tail);
    memcpy(memory + SLABS * WIRE_SLAB_BYTES - tail, data + bytes - tail, tail);
    memset(&answer, 0xee, sizeof(answer));
    sent = chains_follow(&request, &answer);
    PROMISE(sent <= sizeof(answer) && answer.cookie == request.cookie);
    PROMISE(sent == offsetof(struct chain_answer, data) + (size_t)answer.nodes * answer.node_bytes);
    PROMISE(!chain_request_valid(&request) ? answer.nodes == 0
                                           : chain_answer_valid(&answer, &request));
    for (size_t i = sent; i < sizeof(answer) && answer.nodes < CHAIN_NODES_MAX; i++)
        PROMISE(((uint8_t *)&answer)[i] == 0xee || i < sent + CHAIN_NODE_MAX_BYTES);
    memset(memory, 0, bytes - tail);
    memset(memory + SLABS * WIRE_SLAB_BYTES - tail, 0, tail);
    return 0;
}
