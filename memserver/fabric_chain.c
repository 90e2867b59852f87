/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to follow a chain, as messages of libfabric: each connection has CHAIN_DEPTH slots, and
 * each slot goes round by itself:
 *
 *   waits for a request (fi_recv) -> follows the chain -> sends the answer (fi_send) -> waits ...
 *
 * A client that asks more at once than there are slots is held up by its own connection; one that
 * does not take its answers keeps CHAIN_DEPTH buffers and nothing more.
 */
#include "memserver/chain.h"

#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <stdlib.h>

enum slot_state { SLOT_IDLE, SLOT_WAITS, SLOT_ANSWERS, SLOT_SENDS };

struct chain_slot {
    struct fid_ep *endpoint;
    enum slot_state state;
    struct chain_request request;
    size_t answer_bytes;
    struct chain_answer answer;
};

struct fabric_chains {
    struct chain_slot slots[CHAIN_DEPTH];
};

static void slot_wait(struct chain_slot *slot)
{
    ssize_t error = fi_recv(slot->endpoint, &slot->request, sizeof(slot->request), NULL, 0, slot);

    slot->state = error ? SLOT_IDLE : SLOT_WAITS;
}

static void slot_send(struct chain_slot *slot)
{
    ssize_t error = fi_send(slot->endpoint, &slot->answer, slot->answer_bytes, NULL, 0, slot);

    slot->state = error == 0 ? SLOT_SENDS : error == -FI_EAGAIN ? SLOT_ANSWERS : SLOT_IDLE;
}

struct fabric_chains *fabric_chains_open(struct fid_ep *endpoint)
{
    /* The answers' pages appear with the first requests. */
    struct fabric_chains *chains = calloc(1, sizeof(*chains));

    for (unsigned i = 0; chains && i < CHAIN_DEPTH; i++) {
        chains->slots[i].endpoint = endpoint;
        slot_wait(&chains->slots[i]);
    }
    return chains;
}

void fabric_chains_free(struct fabric_chains *chains)
{
    free(chains);
}

bool fabric_chains_completed(void *context)
{
    struct chain_slot *slot = context;

    if (slot->state == SLOT_SENDS) {
        slot_wait(slot);
    } else if (slot->state == SLOT_WAITS) {
        slot->answer_bytes = chains_follow(&slot->request, &slot->answer);
        /* What a shorter request leaves of this one must not count as its own. */
        slot->request = (struct chain_request){0};
        slot_send(slot);
    }
    return slot->state == SLOT_ANSWERS;
}

bool fabric_chains_retry(struct fabric_chains *chains)
{
    bool left = false;

    for (unsigned i = 0; chains && i < CHAIN_DEPTH; i++) {
        if (chains->slots[i].state == SLOT_ANSWERS)
            slot_send(&chains->slots[i]);
        left |= chains->slots[i].state == SLOT_ANSWERS;
    }
    return left;
}
