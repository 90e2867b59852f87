/* SPDX-License-Identifier: Apache-2.0 */
/* Private to peek.c and chain.c: what a context has in flight beside its fetches. */
#ifndef FARVISOR_FAULT_LOOKER_H
#define FARVISOR_FAULT_LOOKER_H

#include "fault/engine_internal.h"

#define LOOKS  64u /* one bit each */
#define CHAINS 4u  /* what a queue takes at once */
#define YIELDS 16u /* pages remembered that somebody waited for */

struct look {
    uint64_t page;
    struct fault_peek *peek;
};

struct yield {
    uint64_t page, until_ns;
};

struct looker {
    struct rdma_queue *queue;
    uint8_t *buffer; /* FAULT_PEEK_MAX_BYTES for each look */
    uint64_t busy;   /* looks in use */
    struct look looks[LOOKS];
    struct yield yields[YIELDS]; /* by page; another page may take the place: it is courtesy */
    struct fault_chain *chains[CHAINS]; /* in flight; completions have cookie LOOKS + index */
};

/* peek.c: the context's looker, made when first asked for. 0 or -errno. */
int looker_get(struct fault_context *context, struct looker **out);

/* ---- chain.c ---- */
unsigned chains_flying(const struct looker *looker);
void chain_landed(struct fault_context *context, unsigned index, int status);

#endif
