/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queues: what all transports share. Checks requests, keeps a slot for each one in flight, spins
 * for a short while and then sleeps, counts, and ends the node when it was polled in vain for the
 * node's timeout. One thread at a time; nothing here is locked.
 */
#include "rdma/transport.h"
#include "support.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define POLL_BATCH     64u
#define STALL_LOOKS    8u /* a stall shorter than timeout / 8 between two looks counts in full */
#define BUSY_LOOK_NS   20000L /* between two tries of a transport that is busy */
#define SLOT_NONE      UINT32_MAX
#define SLEEP_SLICE_NS 100000000ULL /* look at the stall clock at least every 100 ms */

int rdma_queue_create(struct rdma_node *node, enum rdma_queue_kind kind, uint32_t depth,
                      struct rdma_queue **out)
{
    struct rdma_queue *queue;
    int error;

    *out = NULL;
    if (depth == 0 || depth > QUEUE_DEPTH_MAX || (unsigned)kind > RDMA_QUEUE_WRITEBACK)
        return -EINVAL;
    queue = calloc(1, sizeof(*queue) + depth * sizeof(queue->slots[0]));
    if (!queue)
        return -ENOMEM;
    queue->node = node;
    queue->kind = kind;
    queue->depth = depth;
    queue->random = clock_now_ns() | 1;
    for (uint32_t i = 0; i < depth; i++)
        queue->slots[i].next_free = i + 1 < depth ? i + 1 : SLOT_NONE;
    error = rdma_delay_create(queue);
    if (!error)
        error = node->transport->queue_open(queue);
    if (error) {
        rdma_delay_destroy(queue);
        free(queue);
        return error;
    }
    *out = queue;
    return 0;
}

void rdma_queue_refused(struct rdma_node *node, int error, const char *why)
{
    if (error == -ETIMEDOUT)
        rdma_node_fail(node, error, "cannot open a data connection: %s", why);
    else if (!rdma_node_error(node))
        message_error("memory node %s: cannot open a data connection: %s", node->address_text, why);
}

void rdma_queue_destroy(struct rdma_queue *queue)
{
    if (!queue)
        return;
    queue->node->transport->queue_close(queue);
    rdma_delay_destroy(queue);
    free(queue);
}

bool rdma_chains(const struct rdma_node *node)
{
    return node->transport->chains;
}

/* The first node may reach into another slab: the memory node looks each up. */
static bool chain_is_valid(const struct rdma_queue *queue, const struct rdma_request *request)
{
    return queue->node->transport->chains && request->page < queue->node->span_pages &&
           request->pages == 0 && request->offset_bytes < RDMA_PAGE_BYTES &&
           request->bytes >= sizeof(uint64_t) && request->bytes <= RDMA_CHAIN_NODE_MAX_BYTES &&
           request->chain_next <= request->bytes - sizeof(uint64_t) && request->chain_nodes > 0 &&
           request->chain_nodes <= RDMA_CHAIN_NODES_MAX && request->chain_got;
}

/* Whole pages or bytes, not both, and within one slab. */
static bool request_is_valid(const struct rdma_request *request, uint64_t span_pages)
{
    uint64_t room = RDMA_SLAB_PAGES - request->page % RDMA_SLAB_PAGES;

    if ((unsigned)request->op > RDMA_WRITE || request->page >= span_pages)
        return false;
    if (request->bytes)
        return request->pages == 0 && request->offset_bytes < RDMA_PAGE_BYTES &&
               request->bytes <= room * RDMA_PAGE_BYTES - request->offset_bytes;
    return request->pages > 0 && request->pages <= room && request->offset_bytes == 0 &&
           (uintptr_t)request->local % RDMA_PAGE_BYTES == 0;
}

/* Finds where the bytes are; 0, -EINVAL or -EFAULT. */
static int queue_locate(const struct rdma_queue *queue, const struct rdma_request *request,
                        uint64_t *remote, uint64_t *key)
{
    const struct rdma_node *node = queue->node;
    uint64_t offset = request->page % RDMA_SLAB_PAGES;
    const struct slab_entry *entry;
    uint64_t place;

    if (request->op == RDMA_CHAIN ? !chain_is_valid(queue, request)
                                  : !request_is_valid(request, node->span_pages))
        return -EINVAL;
    entry = &node->slabs[request->page / RDMA_SLAB_PAGES];
    place = atomic_load_explicit(&entry->place, memory_order_acquire);
    if (!(place & SLAB_CLAIMED))
        return -EFAULT;
    *remote = (place & ~SLAB_FLAGS) + offset * RDMA_PAGE_BYTES + request->offset_bytes;
    *key = atomic_load_explicit(&entry->key, memory_order_relaxed);
    return 0;
}

/* 1 taken, 0 full, -errno. */
static int queue_post_one(struct rdma_queue *queue, const struct rdma_request *request)
{
    uint32_t slot = queue->free_slot;
    uint64_t remote, key;
    int taken = queue_locate(queue, request, &remote, &key);

    if (taken < 0)
        return taken;
    if (slot == SLOT_NONE)
        return 0;
    queue->slots[slot].request = *request;
    queue->slots[slot].remote = remote;
    queue->slots[slot].turn = queue->turn++;
    taken = queue->node->transport->post(queue, slot, remote, key);
    if (taken <= 0)
        return taken;
    queue->free_slot = queue->slots[slot].next_free;
    queue->slots[slot].busy = true;
    if (queue->in_flight++ == 0)
        queue->stall_ns = queue->looked_ns = 0;
    return 1;
}

/* Transfers are out and nothing came: counts that time, ends the node when it is too much. */
static int queue_stalled(struct rdma_queue *queue, uint64_t now)
{
    struct rdma_node *node = queue->node;
    uint64_t most = node->timeout_ns / STALL_LOOKS;
    uint64_t passed = queue->looked_ns ? now - queue->looked_ns : 0;

    queue->looked_ns = now;
    queue->stall_ns += passed < most ? passed : most;
    if (queue->stall_ns < node->timeout_ns)
        return rdma_node_error(node);
    rdma_node_fail(node, -ETIMEDOUT, "a transfer did not finish within %.1f s",
                   (double)node->timeout_ns / 1e9);
    return rdma_node_error(node);
}

/*
 * A transport may be too busy to take a request though nothing is in flight whose end would make
 * room: then it has to get on with what it does. Prefetches do not wait for that. Bounded as a
 * transfer is; 1 taken or -errno.
 */
static int queue_post_again(struct rdma_queue *queue, const struct rdma_request *request)
{
    int taken;

    queue->stall_ns = queue->looked_ns = 0;
    do {
        int error = queue_stalled(queue, clock_now_ns());

        if (error)
            return error;
        nanosleep(&(struct timespec){.tv_nsec = BUSY_LOOK_NS}, NULL);
        taken = queue_post_one(queue, request);
    } while (taken == 0);
    return taken;
}

int rdma_queue_post(struct rdma_queue *queue, const struct rdma_request *requests, uint32_t count)
{
    const struct rdma_transport *transport = queue->node->transport;
    uint32_t done = 0;
    int taken = 1;
    int error = rdma_node_error(queue->node);

    if (error)
        return error;
    for (; done < count; done++) {
        taken = queue_post_one(queue, &requests[done]);
        if (taken == 0 && !queue->in_flight && queue->kind != RDMA_QUEUE_PREFETCH)
            taken = queue_post_again(queue, &requests[done]);
        if (taken <= 0)
            break;
    }
    if (done && transport->flush)
        error = transport->flush(queue);
    if (error)
        return error;
    /* What was taken before a bad one is under way and must be reported as such. */
    return done || taken > 0 ? (int)done : taken;
}

static void queue_count(struct rdma_node *node, const struct rdma_request *request)
{
    bool chain = request->op == RDMA_CHAIN, read = request->op != RDMA_WRITE;
    uint64_t bytes = rdma_request_bytes(request) * (chain ? *request->chain_got : 1);

    atomic_fetch_add_explicit(read ? &node->reads : &node->writes, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(read ? &node->read_bytes : &node->write_bytes, bytes,
                              memory_order_relaxed);
}

/* Looks once; how many completions, or -errno. */
static int queue_collect(struct rdma_queue *queue, struct rdma_completion *out, uint32_t max)
{
    struct rdma_finished finished[POLL_BATCH];
    uint32_t most = max < POLL_BATCH ? max : POLL_BATCH;
    int got = queue->delay ? rdma_delay_poll(queue, finished, most)
                           : queue->node->transport->poll(queue, finished, most);

    for (int i = 0; i < got; i++) {
        struct queue_slot *slot = &queue->slots[finished[i].slot];

        out[i].cookie = slot->request.cookie;
        out[i].status = finished[i].status;
        if (finished[i].status == 0)
            queue_count(queue->node, &slot->request);
        slot->busy = false;
        slot->next_free = queue->free_slot;
        queue->free_slot = finished[i].slot;
        queue->in_flight--;
    }
    if (got > 0)
        queue->stall_ns = queue->looked_ns = 0;
    return got;
}

/* Sleeps until about `timeout_ns` from now, in slices short enough for the stall clock. */
static void queue_sleep(struct rdma_queue *queue, uint64_t now, uint64_t timeout_ns)
{
    uint64_t slice = queue->node->timeout_ns / STALL_LOOKS;

    if (slice > SLEEP_SLICE_NS)
        slice = SLEEP_SLICE_NS;
    if (slice > timeout_ns)
        slice = timeout_ns;
    if (queue->delay)
        rdma_delay_wait(queue, now + slice);
    else
        queue->node->transport->wait(queue, now + slice);
}

int rdma_queue_poll(struct rdma_queue *queue, struct rdma_completion *out, uint32_t max,
                    uint64_t timeout_ns)
{
    uint64_t spin_ns = queue->node->transport->spin_ns[queue->kind];
    uint64_t began = 0;
    bool spinning = false;
    int error = rdma_node_error(queue->node);

    if (error)
        return error;
    while (queue->in_flight > 0 && max > 0) {
        int got = queue_collect(queue, out, max);
        uint64_t now;

        if (got > 0 && spinning)
            spin_ended(&queue->spin, true);
        if (got != 0)
            return got;
        now = clock_now_ns();
        error = queue_stalled(queue, now);
        if (error)
            return error;
        if (!began) {
            began = now;
            spinning = timeout_ns > spin_ns && spin_ns > 0 && spin_wanted(&queue->spin);
        }
        if (now - began >= timeout_ns)
            return 0;
        if (spinning && now - began < spin_ns)
            continue;
        if (spinning)
            spin_ended(&queue->spin, false);
        spinning = false;
        queue_sleep(queue, now, timeout_ns - (now - began));
    }
    return 0;
}
