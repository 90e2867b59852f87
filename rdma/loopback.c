/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared memory with a memory server on this host: a one-sided operation is a pread or pwrite of
 * its memory file by the polling thread. The file is not mapped: pages of the memory node would
 * count as resident in this process, whose bound is --local, and a mapping's first touch costs as
 * much as the system call (docs/performance.md). Files of huge pages are mapped after all: the
 * kernel has no pwrite for them, and does not count them as resident. With delay=, jitter= and
 * bandwidth= each queue behaves like a network link of its own: a transfer happens, and is
 * reported, when it is due. The copy is made at that moment, not when posted, so that a caller that
 * looks too early reads old bytes, as with real hardware.
 */
#include "rdma/transport.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define SPIN_SLEEP_NS                                                                              \
    70000ULL /* shorter sleeps last longer than asked: default timer slack 50 us */

struct loopback {
    int file;
    uint8_t *map; /* huge pages only, else NULL */
};

static bool loopback_simulates(const struct rdma_node *node)
{
    return node->network.delay_ns || node->network.jitter_ns || node->network.bits_per_s;
}

/* A server that could shrink the file later could take pages away that it had granted. */
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

/* Keeps the file, and maps it where that is the only way to write to it. */
static int loopback_keep(const struct rdma_node *node, struct loopback *loopback, int passed_fd)
{
    struct statfs kind;
    void *map;

    loopback->file = fcntl(passed_fd, F_DUPFD_CLOEXEC, 3);
    if (loopback->file < 0 || fstatfs(loopback->file, &kind) < 0)
        return -errno;
    if (kind.f_type != HUGETLBFS_MAGIC)
        return 0;
    map = mmap(NULL, node->ready.map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
               loopback->file, 0);
    if (map == MAP_FAILED)
        return -errno;
    /* A forked child must not keep a lost tenant's memory alive. */
    madvise(map, node->ready.map_bytes, MADV_DONTFORK);
    loopback->map = map;
    return 0;
}

static int loopback_open(struct rdma_node *node, int passed_fd)
{
    struct loopback *loopback;
    int error = loopback_check(node, passed_fd);

    if (error) {
        message_error("memory node %s: offered memory that cannot be trusted", node->address_text);
        return error;
    }
    loopback = calloc(1, sizeof(*loopback));
    node->private = loopback;
    error = loopback ? loopback_keep(node, loopback, passed_fd) : -ENOMEM;
    if (error)
        message_error("memory node %s: cannot keep its memory file: %s", node->address_text,
                      strerror(-error));
    return error;
}

static void loopback_close(struct rdma_node *node)
{
    struct loopback *loopback = node->private;

    if (!loopback)
        return;
    if (loopback->map)
        munmap(loopback->map, node->ready.map_bytes);
    if (loopback->file >= 0)
        close(loopback->file);
    free(loopback);
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
                        ? loopback_due(queue, rdma_request_bytes(&entry->request))
                        : 0;
    return 1;
}

static int loopback_copy(struct rdma_queue *queue, const struct queue_slot *slot)
{
    const struct loopback *loopback = queue->node->private;
    uint8_t *local = slot->request.local;
    size_t bytes = rdma_request_bytes(&slot->request), done = 0;
    bool read = slot->request.op == RDMA_READ;

    if (loopback->map) {
        uint8_t *remote = loopback->map + slot->remote;

        memcpy(read ? local : remote, read ? remote : local, bytes);
        return 0;
    }
    while (done < bytes) {
        off_t at = (off_t)(slot->remote + done);
        ssize_t moved = read ? pread(loopback->file, local + done, bytes - done, at)
                             : pwrite(loopback->file, local + done, bytes - done, at);
        if (moved > 0)
            done += (size_t)moved;
        else if (moved == 0 || errno != EINTR) {
            rdma_node_fail(queue->node, -EIO, "a transfer failed: %s (did the server end?)",
                           strerror(moved ? errno : EIO));
            return -EIO;
        }
    }
    return 0;
}

/* The transfer posted first among those that are due, or NULL. */
static struct queue_slot *loopback_first_due(struct rdma_queue *queue, uint64_t now)
{
    struct queue_slot *first = NULL;
    uint32_t seen = 0;

    for (uint32_t i = 0; i < queue->depth && seen < queue->in_flight; i++) {
        struct queue_slot *slot = &queue->slots[i];

        if (!slot->busy)
            continue;
        seen++;
        if (slot->due_ns <= now && (!first || slot->turn < first->turn))
            first = slot;
    }
    return first;
}

/* In order of posting: whoever takes them one by one pays for the copies one by one. */
static int loopback_poll(struct rdma_queue *queue, struct rdma_finished *finished, uint32_t max)
{
    uint64_t now = loopback_simulates(queue->node) ? clock_now_ns() : 0;
    struct queue_slot *slot;
    uint32_t got = 0;

    while (got < max && (slot = loopback_first_due(queue, now))) {
        finished[got].slot = (uint32_t)(slot - queue->slots);
        finished[got++].status = loopback_copy(queue, slot);
        slot->due_ns = UINT64_MAX; /* done; the queue frees the slot */
    }
    return (int)got;
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
};
