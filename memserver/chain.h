/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chains followed by a worker process: through the tenant's memory (chain.c), and the messages that
 * ask for it (fabric_chain.c). One thread.
 */
#ifndef FARVISOR_MEMSERVER_CHAIN_H
#define FARVISOR_MEMSERVER_CHAIN_H

#include "memserver/memserver.h"
#include "rdma/chain_wire.h"

/* ---- chain.c ---- */

/* The tenant's page numbers are below span_pages; `base` is its memory. 0 or -errno. */
int chains_open(uint64_t span_pages, const uint8_t *base);
/* The tenant's slab of this number is at `offset` of its memory, or is held no more. 0 or -errno.
 */
int chains_slab(uint64_t slab, uint64_t offset, bool held);
/* Answers a request that may be anything, a nonsensical one with no nodes. Bytes to send. */
size_t chains_follow(const struct chain_request *request, struct chain_answer *answer);

/* ---- fabric_chain.c ---- */

struct fabric;
struct fabric_chains;
struct fid_ep;

/* Waits for requests on a connection that was enabled. NULL: out of memory. */
struct fabric_chains *fabric_chains_open(struct fid_ep *endpoint);
/* After its endpoint was closed and the completion queue read empty; accepts NULL. */
void fabric_chains_free(struct fabric_chains *chains);
/* A completion with this context, not NULL, came. true: an answer could not be sent yet. */
bool fabric_chains_completed(void *context);
/* Sends what could not be sent before; true while there is such. */
bool fabric_chains_retry(struct fabric_chains *chains);

#endif
