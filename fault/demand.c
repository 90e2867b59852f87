/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The read of one demanded page: of what lives of it, so perhaps of several ranges, or of none. On
 * a queue of its own, where nothing waits before it. The caller holds the lane's demand_lock.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>
#include <string.h>

#define DEMAND_DEPTH 4u
_Static_assert(DEMAND_DEPTH > LIVE_SEGMENTS, "a demand is posted at once");

static int demand_open(struct fault_engine *engine, struct lane *lane)
{
    struct rdma_node *node = engine->config.node;
    unsigned told = message_errors();
    void *buffer;
    if (lane->demand)
        return 0;
    int error = rdma_buffer_alloc(node, EPT_PAGE_BYTES, &buffer);
    if (!error) {
        error = rdma_queue_create(node, RDMA_QUEUE_DEMAND, DEMAND_DEPTH, &lane->demand);
        if (!error) {
            lane->demand_buffer = buffer;
            return 0;
        }
        rdma_buffer_free(node, buffer, EPT_PAGE_BYTES);
    }
    /* For want of memory here, say, which would pass for the guest's being full. */
    if (message_errors() == told && !rdma_node_error(node))
        message_error("far memory: cannot make a queue: %s", strerror(-error));
    return fault_fail_told(engine, error);
}

/*
 * Waits for one of the demand's requests. What was waited for before the read was posted may have
 * used `patience` up, which is no reason to give up a node that is answering: a read has a patience
 * of its own, and the queue ends it sooner (one timeout, when nothing came). The caller's is
 * charged all the same.
 */
static int demand_collect(struct lane *lane, uint64_t page, struct patience *own,
                          struct patience *patience)
{
    struct rdma_completion completion;
    for (;;) {
        int got = rdma_queue_poll(lane->demand, &completion, 1, PATIENCE_SLICE_NS);
        if (got < 0)
            return got;
        if (got == 1) {
            lane->demand_parts--;
            /* Any other cookie would be the answer to a question given up: wrong bytes. */
            return completion.cookie == page ? completion.status : -EIO;
        }
        (void)patience_spend(patience);
        if (patience_spend(own))
            return -ETIMEDOUT;
    }
}

int lane_demand_post(struct fault_engine *engine, struct lane *lane, uint64_t page,
                     struct patience *patience)
{
    struct rdma_request requests[DEMAND_DEPTH];
    int error = demand_open(engine, lane);
    if (error)
        return error;
    unsigned count = live_reads(engine, page, 1, lane->demand_buffer, page, requests, DEMAND_DEPTH),
             done = 0;
    struct patience own = patience_begin(engine);
    lane->demand_parts = 0;
    while (done < count && !error) {
        int posted = rdma_queue_post(lane->demand, requests + done, count - done);
        if (posted > 0) {
            lane->demand_parts += (unsigned)posted;
            done += (unsigned)posted;
        } else {
            error = posted < 0           ? posted
                    : lane->demand_parts ? demand_collect(lane, page, &own, patience)
                                         : -EIO;
        }
    }
    return error;
}

int lane_demand_wait(struct fault_engine *engine, struct lane *lane, uint64_t page,
                     struct patience *patience)
{
    struct patience own = patience_begin(engine); /* for all parts: they may not trickle in */
    int error = 0;
    while (lane->demand_parts && !error)
        error = demand_collect(lane, page, &own, patience);
    return error;
}
