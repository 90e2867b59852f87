/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transfers of the verbs transport. Work requests of one rdma_queue_post are chained and handed to
 * the device together, with one doorbell. A demand read asks for a completion each; of prefetches
 * and write-backs only every eighth and the last of a run do, since a queue pair completes in
 * order: a completion stands for all before it.
 *
 * A completed WRITE is visible to a later READ through another queue pair: the device acknowledges
 * what it placed, and its own reads do not overtake its writes on their way to memory (PCIe's
 * ordering; relaxed ordering, which would allow it, has to be asked for at registration).
 */
#include "rdma/verbs.h"
#include "support.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SIGNAL_EVERY  8u
#define POLL_MAX      32
#define DRAIN_LOOK_US 50

static int verbs_queue_create(struct rdma_queue *queue)
{
    const struct verbs_node *shared = queue->node->private;
    struct verbs_queue *own = calloc(1, sizeof(*own));

    if (!own)
        return -ENOMEM;
    queue->private = own;
    own->limit = queue->depth < shared->depth_max ? queue->depth : shared->depth_max;
    own->requests = calloc(own->limit, sizeof(own->requests[0]));
    own->pieces = calloc(own->limit, sizeof(own->pieces[0]));
    own->slots = calloc(own->limit, sizeof(own->slots[0]));
    return own->requests && own->pieces && own->slots ? 0 : -ENOMEM;
}

static int verbs_collect(struct rdma_queue *queue);

/*
 * The queue pair of transfers that are under way must not be destroyed: see verbs_abandoned. They
 * end in time, or the node does.
 */
static void verbs_drain(struct rdma_queue *queue)
{
    const struct verbs_queue *own = queue->private;
    struct patience patience = rdma_patience(queue->node);

    while (own->link.cq && own->completed < own->handed_over && !rdma_node_error(queue->node)) {
        if (verbs_collect(queue) || own->completed == own->handed_over)
            return;
        if (patience_spend(&patience))
            rdma_node_fail(queue->node, -ETIMEDOUT, "a transfer did not end in time");
        usleep(DRAIN_LOOK_US);
    }
}

void verbs_queue_close(struct rdma_queue *queue)
{
    struct verbs_queue *own = queue->private;

    if (!own)
        return;
    verbs_drain(queue);
    if (own->events_unacknowledged)
        verbs.ibv_ack_cq_events(own->link.cq, own->events_unacknowledged);
    verbs_link_close(queue->node->private, &own->link);
    free(own->requests);
    free(own->pieces);
    free(own->slots);
    free(own);
    queue->private = NULL;
}

int verbs_queue_open(struct rdma_queue *queue)
{
    struct rdma_node *node = queue->node;
    const char *why = "memory";
    char text[128];
    int error = verbs_queue_create(queue);

    if (!error) {
        struct verbs_queue *own = queue->private;

        error = verbs_link_open(node, &own->link, (uint16_t)queue->kind, own->limit, &why);
    }
    if (!error)
        return 0;
    snprintf(text, sizeof(text), "%s: %s", why, strerror(-error));
    rdma_queue_refused(node, error, text);
    verbs_queue_close(queue);
    return error;
}

/* Finds the key of a local buffer; 0, or -EINVAL: not from rdma_buffer_alloc. */
static int verbs_local_key(struct rdma_queue *queue, uintptr_t local, size_t bytes, uint32_t *key)
{
    struct verbs_node *shared = queue->node->private;
    struct verbs_queue *own = queue->private;
    unsigned changed = atomic_load_explicit(&shared->buffers_changed, memory_order_acquire);
    int error = -EINVAL;

    if (own->buffers_seen == changed && local >= own->base && local + bytes <= own->end) {
        *key = own->key;
        return 0;
    }
    pthread_mutex_lock(&shared->buffer_lock);
    for (const struct verbs_buffer *at = shared->buffers; at; at = at->next) {
        if (local < at->base || local + bytes > at->base + at->bytes)
            continue;
        own->buffers_seen = atomic_load(&shared->buffers_changed);
        own->base = at->base;
        own->end = at->base + at->bytes;
        *key = own->key = at->region->lkey;
        error = 0;
        break;
    }
    pthread_mutex_unlock(&shared->buffer_lock);
    return error;
}

int verbs_post(struct rdma_queue *queue, uint32_t slot, uint64_t remote, uint64_t key)
{
    struct verbs_queue *own = queue->private;
    const struct rdma_request *request = &queue->slots[slot].request;
    size_t bytes = rdma_request_bytes(request);
    uint32_t place = (uint32_t)(own->chained % own->limit);
    struct ibv_send_wr *work = &own->requests[place];
    uint32_t local_key;
    int error;

    if (own->chained - own->reported == own->limit)
        return 0;
    error = verbs_local_key(queue, (uintptr_t)request->local, bytes, &local_key);
    if (error)
        return error;
    own->pieces[place] = (struct ibv_sge){
        .addr = (uintptr_t)request->local, .length = (uint32_t)bytes, .lkey = local_key};
    *work = (struct ibv_send_wr){
        .wr_id = own->chained,
        .sg_list = &own->pieces[place],
        .num_sge = 1,
        .opcode = request->op == RDMA_READ ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE,
        .wr.rdma = {.remote_addr = remote, .rkey = (uint32_t)key},
    };
    if (queue->kind == RDMA_QUEUE_DEMAND || own->chained % SIGNAL_EVERY == 0)
        work->send_flags = IBV_SEND_SIGNALED;
    if (own->chained > own->handed_over)
        own->requests[(own->chained - 1) % own->limit].next = work;
    own->slots[place] = slot;
    own->chained++;
    return 1;
}

int verbs_flush(struct rdma_queue *queue)
{
    struct verbs_queue *own = queue->private;
    struct ibv_send_wr *first = &own->requests[own->handed_over % own->limit];
    struct ibv_send_wr *bad;
    int error;

    if (own->chained == own->handed_over)
        return 0;
    own->requests[(own->chained - 1) % own->limit].send_flags = IBV_SEND_SIGNALED;
    own->handed_over = own->chained;
    error = ibv_post_send(own->link.id->qp, first, &bad);
    if (!error)
        return 0;
    rdma_node_fail(queue->node, -ECONNRESET, "cannot start a transfer: %s",
                   strerror(error < 0 ? -error : error));
    return rdma_node_error(queue->node);
}

static int verbs_failed(struct rdma_queue *queue, enum ibv_wc_status status)
{
    const struct verbs_fault *fault = verbs_fault_of(status);

    rdma_node_fail(queue->node, fault->error, "a transfer failed: %s (%s)",
                   verbs.ibv_wc_status_str(status), fault->hint);
    return rdma_node_error(queue->node);
}

/* Takes what the device finished. 0 or -errno. */
static int verbs_collect(struct rdma_queue *queue)
{
    struct verbs_queue *own = queue->private;
    struct ibv_wc done[POLL_MAX];
    int got = ibv_poll_cq(own->link.cq, POLL_MAX, done);

    if (got < 0)
        return verbs_failed(queue, IBV_WC_GENERAL_ERR);
    for (int i = 0; i < got; i++) {
        if (done[i].status != IBV_WC_SUCCESS)
            return verbs_failed(queue, done[i].status);
        own->completed = done[i].wr_id + 1;
    }
    return 0;
}

int verbs_poll(struct rdma_queue *queue, struct rdma_finished *finished, uint32_t max)
{
    struct verbs_queue *own = queue->private;
    int got = 0;

    if (own->reported == own->completed) {
        int error = verbs_collect(queue);

        if (error)
            return error;
    }
    while (own->reported < own->completed && (uint32_t)got < max) {
        finished[got].slot = own->slots[own->reported % own->limit];
        finished[got++].status = 0;
        own->reported++;
    }
    return got;
}

/* Clears the channel; the notice says nothing but "look". */
static void verbs_notice_take(struct verbs_queue *own)
{
    struct ibv_cq *cq;
    void *context;

    if (verbs.ibv_get_cq_event(own->link.completions, &cq, &context))
        return;
    own->armed = false;
    /* Acknowledging takes a lock; the count is given back in bulk. */
    if (++own->events_unacknowledged == 64) {
        verbs.ibv_ack_cq_events(cq, own->events_unacknowledged);
        own->events_unacknowledged = 0;
    }
}

void verbs_wait(struct rdma_queue *queue, uint64_t until_ns)
{
    struct verbs_queue *own = queue->private;
    struct pollfd descriptors[] = {{.fd = own->link.completions->fd, .events = POLLIN},
                                   {.fd = queue->node->event_fd, .events = POLLIN}};
    uint64_t now = clock_now_ns();
    struct timespec sleep;

    /* What finished before the notice was asked for brings none: the caller looks once more. */
    if (!own->armed) {
        own->armed = ibv_req_notify_cq(own->link.cq, 0) == 0;
        return;
    }
    if (until_ns <= now)
        return;
    sleep.tv_sec = (time_t)((until_ns - now) / 1000000000);
    sleep.tv_nsec = (long)((until_ns - now) % 1000000000);
    if (ppoll(descriptors, 2, &sleep, NULL) > 0 && descriptors[0].revents)
        verbs_notice_take(own);
}
