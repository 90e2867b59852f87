/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long a read of one page takes through our transport, one after the other, spinning as a
 * demand read does: to be put beside what perftest measures on the same devices.
 * Usage: read_latency ADDRESS TRANSPORT COUNT      prints "p50 p99 mean" in microseconds
 */
#include "rdma/rdma.h"
#include "support.h"

#include <stdio.h>
#include <stdlib.h>

#define TIMEOUT_NS 10000000000ULL
#define PAGES      64u

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* 0 and the time it took, or -errno. */
static int read_once(struct rdma_queue *queue, void *page, uint64_t number, uint64_t *ns)
{
    struct rdma_request request = {
        .op = RDMA_READ, .pages = 1, .page = number % PAGES, .local = page};
    struct rdma_completion done;
    uint64_t began = clock_now_ns();
    int got = rdma_queue_post(queue, &request, 1);

    while (got >= 0 && (got = rdma_queue_poll(queue, &done, 1, 0)) == 0)
        continue;
    *ns = clock_now_ns() - began;
    return got < 0 ? got : done.status;
}

static int measure(struct rdma_node *node, uint64_t *ns, size_t count)
{
    struct rdma_queue *queue = NULL;
    uint64_t sum = 0;
    void *page;
    int error = rdma_buffer_alloc(node, RDMA_PAGE_BYTES, &page);

    if (error)
        return error;
    error = rdma_queue_create(node, RDMA_QUEUE_DEMAND, 1, &queue);
    if (!error)
        error = rdma_reserve(node, 0, PAGES);
    for (size_t i = 0; i < count && !error; i++) {
        error = read_once(queue, page, i, &ns[i]);
        sum += ns[i];
    }
    rdma_queue_destroy(queue);
    rdma_buffer_free(node, page, RDMA_PAGE_BYTES);
    if (error)
        return error;
    qsort(ns, count, sizeof(ns[0]), compare);
    printf("%.1f %.1f %.1f\n", (double)ns[count / 2] / 1e3, (double)ns[count * 99 / 100] / 1e3,
           (double)sum / (double)count / 1e3);
    return 0;
}

int main(int argc, char **argv)
{
    size_t count = argc == 4 ? strtoul(argv[3], NULL, 10) : 0;
    uint64_t *ns = calloc(count ? count : 1, sizeof(ns[0]));
    struct rdma_config config = {.quota_bytes = 4 << 20,
                                 .span_pages = 1 << 20,
                                 .name = "read_latency",
                                 .timeout_ns = TIMEOUT_NS};
    struct rdma_node *node;
    int error;

    message_init("read_latency", MESSAGE_NORMAL);
    if (!count || !ns) {
        message_error("usage: read_latency ADDRESS TRANSPORT COUNT");
        return 2;
    }
    config.address = argv[1];
    config.transport = argv[2];
    error = rdma_node_connect(&node, &config);
    if (!error) {
        error = measure(node, ns, count);
        rdma_node_destroy(node);
    }
    free(ns);
    return error ? 1 : 0;
}
