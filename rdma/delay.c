/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A farther memory node than there is: holds back what has arrived for the time that --transport
 * ofi,delay=20us says, on top of what the transport itself took. For measurements and tests on one
 * host; the output always names it. Loopback has a delay of its own (loopback.c). Arrived means
 * seen by a poll: as exact as its caller is often. The thread of the queue; nothing is locked.
 */
#include "rdma/transport.h"
#include "support.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define NO_SLEEP_NS 80000u /* a sleep takes that much longer than asked: spin instead */

struct held {
    struct rdma_finished finished;
    uint64_t due_ns;
};

/* The delay is the same for all, so what arrived first is due first. */
struct delay_line {
    uint32_t first, count;
    struct held held[];
};

int rdma_delay_create(struct rdma_queue *queue)
{
    struct delay_line *line;

    if (queue->node->transport == &rdma_loopback || !queue->node->network.delay_ns)
        return 0;
    line = calloc(1, sizeof(*line) + queue->depth * sizeof(line->held[0]));
    if (!line)
        return -ENOMEM;
    queue->delay = line;
    return 0;
}

void rdma_delay_destroy(struct rdma_queue *queue)
{
    free(queue->delay);
    queue->delay = NULL;
}

int rdma_delay_poll(struct rdma_queue *queue, struct rdma_finished *finished, uint32_t max)
{
    struct delay_line *line = queue->delay;
    int arrived = queue->node->transport->poll(queue, finished, max);
    uint64_t now = clock_now_ns();
    uint32_t got = 0;

    if (arrived < 0)
        return arrived;
    /* Each request is held at most once: the line has room for the whole queue. */
    for (int i = 0; i < arrived; i++)
        line->held[(line->first + line->count++) % queue->depth] =
            (struct held){finished[i], now + queue->node->network.delay_ns};
    while (got < max && line->count > 0 && line->held[line->first].due_ns <= now) {
        finished[got++] = line->held[line->first].finished;
        line->first = (line->first + 1) % queue->depth;
        line->count--;
    }
    return (int)got;
}

void rdma_delay_wait(struct rdma_queue *queue, uint64_t until_ns)
{
    const struct delay_line *line = queue->delay;
    uint64_t now = clock_now_ns();

    /* Something is held: wakes in time for it, though more may arrive before. */
    if (line->count > 0) {
        uint64_t due_ns = line->held[line->first].due_ns;

        if (due_ns <= now + NO_SLEEP_NS)
            return;
        if (due_ns - NO_SLEEP_NS < until_ns)
            until_ns = due_ns - NO_SLEEP_NS;
    }
    queue->node->transport->wait(queue, until_ns);
}
