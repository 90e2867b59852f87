/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared memory with a memory server on this host: its memory file is mapped here and a one-sided
 * operation is a memcpy by the polling thread. With delay=, jitter= and bandwidth= each queue
 * behaves like a network link of its own: a transfer happens, and is reported, when it is due.
 * The copy is made at that moment, not when posted, so that a caller that looks too early reads
 * old bytes, as with real hardware.
 */
#include "rdma/transport.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define SPIN_SLEEP_NS                                                                              \
    70000ULL /* shorter sleeps last longer than asked: default timer slack 50 us */

static bool loopback_simulates(const struct rdma_node *node)
{
    return node->network.delay_ns || node->network.jitter_ns || node->network.bits_per_s;
}

/* A server that could shrink the file later could kill us with SIGBUS. */
static int loopback_check(const struct rdma_node *node, int fd)
{
    struct stat status;
    int seals;

    if (fd < 0 || fstat(fd, &status) < 0)
        return -EPROTO;
    seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || (uint64_t)status.st_size < node->ready.map_bytes)
        return -EPROTO;
    return 0;
}

static int loopback_open(struct rdma_node *node, int passed_fd)
{
    int error = loopback_check(node, passed_fd);
    void *base;

    if (error) {
        message_error("memory node %s: offered memory that cannot be trusted", node->address_text);
        return error;
    }
    base = mmap(NULL, node->ready.map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                passed_fd, 0);
    if (base == MAP_FAILED) {
        error = -errno;
        message_error("memory node %s: cannot map its memory: %s", node->address_text,
                      strerror(-error));
        return error;
    }
    /* A forked child of ours must not keep a lost tenant's memory alive. */
    madvise(base, node->ready.map_bytes, MADV_DONTFORK);
    node->private = base;
    return 0;
}

static void loopback_close(struct rdma_node *node)
{
    if (node->private)
        munmap(node->private, node->ready.map_bytes);
    node->private = NULL;
}

static int loopback_queue_open(struct rdma_queue *queue)
{
    (void)queue;
    return 0;
}

static void loopback_queue_close(struct rdma_queue *queue)
{
    (void)queue;
}

/* xorshift64: spread of the jitter only, nothing secret. */
static uint64_t loopback_random(struct rdma_queue *queue)
{
    queue->random ^= queue->random << 13;
    queue->random ^= queue->random >> 7;
    queue->random ^= queue->random << 17;
    return queue->random;
}

static uint64_t loopback_due(struct rdma_queue *queue, uint64_t bytes)
{
    const struct loopback_network *network = &queue->node->network;
    uint64_t start = clock_now_ns();

    if (network->bits_per_s) {
        if (queue->link_free_ns > start)
            start = queue->link_free_ns;
        start += (uint64_t)((double)bytes * 8e9 / (double)network->bits_per_s);
        queue->link_free_ns = start;
    }
    start += network->delay_ns;
    if (network->jitter_ns)
        start += loopback_random(queue) % network->jitter_ns;
    return start;
}

static int loopback_post(struct rdma_queue *queue, uint32_t slot, uint64_t remote, uint64_t key)
{
    struct queue_slot *entry = &queue->slots[slot];

    (void)remote;
    (void)key;
    entry->due_ns = loopback_simulates(queue->node)
                        ? loopback_due(queue, (uint64_t)entry->request.pages * RDMA_PAGE_BYTES)
                        : 0;
    return 1;
}

static void loopback_copy(struct rdma_queue *queue, const struct queue_slot *slot)
{
    void *remote = (uint8_t *)queue->node->private + slot->remote;
    size_t bytes = (size_t)slot->request.pages * RDMA_PAGE_BYTES;

    if (slot->request.op == RDMA_READ)
        memcpy(slot->request.local, remote, bytes);
    else
        memcpy(remote, slot->request.local, bytes);
}

static int loopback_poll(struct rdma_queue *queue, struct rdma_finished *finished, uint32_t max)
{
    uint64_t now = loopback_simulates(queue->node) ? clock_now_ns() : 0;
    uint32_t seen = 0;
    int got = 0;

    for (uint32_t i = 0; i < queue->depth && seen < queue->in_flight; i++) {
        struct queue_slot *slot = &queue->slots[i];

        if (!slot->busy)
            continue;
        seen++;
        if (slot->due_ns > now)
            continue;
        if ((uint32_t)got == max)
            break;
        loopback_copy(queue, slot);
        finished[got].slot = i;
        finished[got++].status = 0;
    }
    return got;
}

static uint64_t loopback_next_due(const struct rdma_queue *queue)
{
    uint64_t next = UINT64_MAX;

    for (uint32_t i = 0; i < queue->depth; i++) {
        if (queue->slots[i].busy && queue->slots[i].due_ns < next)
            next = queue->slots[i].due_ns;
    }
    return next;
}

static void loopback_wait(struct rdma_queue *queue, uint64_t until_ns)
{
    struct pollfd lost = {.fd = queue->node->event_fd, .events = POLLIN};
    uint64_t next = loopback_next_due(queue);
    uint64_t now = clock_now_ns();
    struct timespec sleep;

    if (next < until_ns)
        until_ns = next;
    if (until_ns <= now + SPIN_SLEEP_NS)
        return;
    until_ns -= now + SPIN_SLEEP_NS;
    sleep.tv_sec = (time_t)(until_ns / 1000000000);
    sleep.tv_nsec = (long)(until_ns % 1000000000);
    ppoll(&lost, 1, &sleep, NULL);
}

static void *loopback_direct(struct rdma_node *node, uint64_t remote)
{
    return loopback_simulates(node) ? NULL : (uint8_t *)node->private + remote;
}

const struct rdma_transport rdma_loopback = {
    .name = "loopback",
    .wire = WIRE_LOOPBACK,
    .spin_ns = {0, 0, 0},
    .open = loopback_open,
    .close = loopback_close,
    .queue_open = loopback_queue_open,
    .queue_close = loopback_queue_close,
    .post = loopback_post,
    .poll = loopback_poll,
    .wait = loopback_wait,
    .direct = loopback_direct,
};
