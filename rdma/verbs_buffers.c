/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local memory that transfers may name. It comes out of chunks of 2 MiB that are registered as one
 * region each, on a huge page where the host has one free: the device then keeps one translation
 * for all of a vCPU's buffers instead of one a page. Pages of a chunk are handed out by a bit map.
 * What a request may name is a buffer that somebody holds, not all of the chunk.
 *
 * Allocating and freeing are slow paths under buffer_lock: threads that start or end. The fast one
 * (verbs_queue.c) takes the lock only when the list changed since its last look.
 *
 * A transfer that is under way names pages of a chunk. Buffers are freed after their queue was
 * drained, or when the node is lost; then the chunk's pages stay pinned until the keeper ends, so
 * that what still arrives lands in memory that nobody else can have got.
 */
#include "rdma/verbs.h"
#include "support.h"

#include <errno.h>
#include <linux/mman.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CHUNK_BYTES (2u << 20)
#define CHUNK_PAGES (CHUNK_BYTES / RDMA_PAGE_BYTES)

struct verbs_chunk {
    struct verbs_chunk *next;
    uint8_t *base;
    size_t bytes;
    struct ibv_mr *region;
    uint32_t used_pages;
    bool used[CHUNK_PAGES]; /* of a chunk of CHUNK_BYTES; larger ones are one buffer's alone */
};

/* Memory of our own for the device; on huge pages if there are any, which is told once if not. */
static void *chunk_map(struct rdma_node *node, size_t bytes)
{
    struct verbs_node *shared = node->private;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    void *base;

    /* Reserved here, or refused: no fault later can fail for want of a huge page. */
    base =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags | MAP_HUGETLB | (int)MAP_HUGE_2MB, -1, 0);
    if (base != MAP_FAILED)
        return base;
    if (!shared->pages_told)
        message_info("memory node %s: no 2 MiB pages are free for buffers: normal ones are used "
                     "(sysctl vm.nr_hugepages)",
                     node->address_text);
    shared->pages_told = true;
    return mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
}

static void chunk_destroy(struct verbs_node *shared, struct verbs_chunk *chunk)
{
    /* Of an abandoned node the device may still write to it: the pages are pinned, not ours. */
    if (chunk->region && !verbs_abandoned(shared))
        verbs.ibv_dereg_mr(chunk->region);
    if (chunk->base != MAP_FAILED)
        munmap(chunk->base, chunk->bytes);
    free(chunk);
}

static int chunk_create(struct rdma_node *node, size_t bytes, struct verbs_chunk **out)
{
    struct verbs_node *shared = node->private;
    struct verbs_chunk *chunk = calloc(1, sizeof(*chunk));
    int error;

    if (!chunk)
        return -ENOMEM;
    chunk->bytes = bytes;
    chunk->base = chunk_map(node, bytes);
    if (chunk->base == MAP_FAILED) {
        error = -errno;
        chunk_destroy(shared, chunk);
        return error;
    }
    /* The device knows the pages, not the addresses: after a fork the child's copies must not be
     * what our addresses lead to. */
    madvise(chunk->base, bytes, MADV_DONTFORK);
    chunk->region = verbs.ibv_reg_mr_iova2(shared->pd, chunk->base, bytes, (uintptr_t)chunk->base,
                                           IBV_ACCESS_LOCAL_WRITE);
    if (!chunk->region) {
        error = -errno;
        message_error("memory node %s: cannot register a buffer: %s (see ulimit -l)",
                      node->address_text, strerror(-error));
        chunk_destroy(shared, chunk);
        return error;
    }
    chunk->next = shared->chunks;
    shared->chunks = chunk;
    *out = chunk;
    return 0;
}

/* First page of a free run of this many, or -1. */
static int chunk_find(const struct verbs_chunk *chunk, uint32_t pages)
{
    uint32_t run = 0;

    if (chunk->bytes != CHUNK_BYTES || CHUNK_PAGES - chunk->used_pages < pages)
        return -1;
    for (uint32_t i = 0; i < CHUNK_PAGES; i++) {
        run = chunk->used[i] ? 0 : run + 1;
        if (run == pages)
            return (int)(i + 1 - pages);
    }
    return -1;
}

static void chunk_mark(struct verbs_chunk *chunk, uint32_t first, uint32_t pages, bool used)
{
    if (chunk->bytes == CHUNK_BYTES)
        memset(&chunk->used[first], used, pages);
    if (used)
        chunk->used_pages += pages;
    else
        chunk->used_pages -= pages;
}

/* With buffer_lock held: a chunk with room, an old one or a new; *first is the place in it. */
static int chunk_get(struct rdma_node *node, uint32_t pages, struct verbs_chunk **out, int *first)
{
    struct verbs_node *shared = node->private;
    size_t bytes = ((size_t)pages * RDMA_PAGE_BYTES + CHUNK_BYTES - 1) & ~(CHUNK_BYTES - 1ULL);

    for (*out = shared->chunks; *out; *out = (*out)->next) {
        *first = chunk_find(*out, pages);
        if (*first >= 0)
            return 0;
    }
    *first = 0;
    return chunk_create(node, bytes, out);
}

int verbs_buffer_alloc(struct rdma_node *node, size_t bytes, void **out)
{
    struct verbs_node *shared = node->private;
    struct verbs_buffer *buffer = calloc(1, sizeof(*buffer));
    uint32_t pages = (uint32_t)((bytes + RDMA_PAGE_BYTES - 1) / RDMA_PAGE_BYTES);
    int first, error;

    if (!buffer)
        return -ENOMEM;
    pthread_mutex_lock(&shared->buffer_lock);
    error = chunk_get(node, pages, &buffer->chunk, &first);
    if (!error) {
        chunk_mark(buffer->chunk, (uint32_t)first, pages, true);
        buffer->base = (uintptr_t)buffer->chunk->base + (size_t)first * RDMA_PAGE_BYTES;
        buffer->bytes = bytes;
        buffer->region = buffer->chunk->region;
        buffer->next = shared->buffers;
        shared->buffers = buffer;
        atomic_fetch_add(&shared->buffers_changed, 1);
        *out = buffer->chunk->base + (size_t)first * RDMA_PAGE_BYTES;
    }
    pthread_mutex_unlock(&shared->buffer_lock);
    if (error)
        free(buffer);
    else
        memset(*out, 0, bytes); /* as new memory is */
    return error;
}

/* With buffer_lock held. */
static void chunk_put(struct verbs_node *shared, struct verbs_chunk *chunk)
{
    struct verbs_chunk **link = &shared->chunks;

    if (chunk->used_pages)
        return;
    while (*link != chunk)
        link = &(*link)->next;
    *link = chunk->next;
    chunk_destroy(shared, chunk);
}

void verbs_buffer_free(struct rdma_node *node, void *base)
{
    struct verbs_node *shared = node->private;
    struct verbs_buffer **link, *buffer;

    pthread_mutex_lock(&shared->buffer_lock);
    link = &shared->buffers;
    while (*link && (*link)->base != (uintptr_t)base)
        link = &(*link)->next;
    buffer = *link;
    if (buffer) {
        size_t offset = buffer->base - (uintptr_t)buffer->chunk->base;

        *link = buffer->next;
        atomic_fetch_add(&shared->buffers_changed, 1);
        chunk_mark(buffer->chunk, (uint32_t)(offset / RDMA_PAGE_BYTES),
                   (uint32_t)((buffer->bytes + RDMA_PAGE_BYTES - 1) / RDMA_PAGE_BYTES), false);
        chunk_put(shared, buffer->chunk);
    }
    pthread_mutex_unlock(&shared->buffer_lock);
    free(buffer);
}

void verbs_buffers_close(struct rdma_node *node)
{
    const struct verbs_node *shared = node->private;

    while (shared->buffers) {
        const struct verbs_buffer *first = shared->buffers;

        verbs_buffer_free(node, first->chunk->base + (first->base - (uintptr_t)first->chunk->base));
    }
}
