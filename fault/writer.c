/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Write-backs of one block: extents of live bytes, those that follow each other in one request,
 * straight from guest memory where the transport can. In the reclaimer's thread.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>
#include <string.h>

#define WRITE_DEPTH  64u
#define BUFFER_BYTES ((size_t)BLOCK_PAGES * EPT_PAGE_BYTES)

int writer_create(struct writer *writer, struct fault_engine *engine)
{
    struct rdma_node *node = engine->config.node;
    writer->engine = engine;
    int error = rdma_queue_create(node, RDMA_QUEUE_WRITEBACK, WRITE_DEPTH, &writer->queue);
    if (!error && rdma_needs_buffer(node)) {
        void *buffer;
        error = rdma_buffer_alloc(node, BUFFER_BYTES, &buffer);
        writer->buffer = error ? NULL : buffer;
    }
    return error;
}

void writer_destroy(struct writer *writer)
{
    rdma_queue_destroy(writer->queue);
    if (writer->buffer)
        rdma_buffer_free(writer->engine->config.node, writer->buffer, BUFFER_BYTES);
}

void writer_begin(struct writer *writer, uint64_t first_page)
{
    writer->first = first_page;
    writer->start = writer->bytes = writer->inflight = 0;
}

/*
 * Takes finished write-backs, waiting for one. 0 or -errno. The queue itself gives a node that does
 * not answer up, and says so; it does not count the time for which we were stopped, and neither may
 * we: libfabric moves bytes only while it is asked, so after a SIGSTOP the first look finds
 * nothing.
 */
static int collect(struct writer *writer)
{
    struct patience patience = patience_begin(writer->engine);
    struct rdma_completion done[16];
    int got, error = 0;
    do {
        got = rdma_queue_poll(writer->queue, done, 16, PATIENCE_SLICE_NS);
        error = got ? 0 : patience_spend(&patience);
    } while (!got && !error);
    if (got <= 0)
        return got < 0 ? got : error;
    for (int i = 0; i < got; i++)
        if (done[i].status)
            return done[i].status;
    writer->inflight -= (unsigned)got;
    return 0;
}

int writer_flush(struct writer *writer)
{
    uint32_t start = writer->start, bytes = writer->bytes;
    uint8_t *local =
        (uint8_t *)ept_hva(writer->engine->ept, writer->first << EPT_PAGE_SHIFT) + start;
    bool whole = (start | bytes) % EPT_PAGE_BYTES == 0;
    if (!bytes)
        return 0;
    if (writer->buffer)
        local = memcpy(writer->buffer + start, local, bytes);
    struct rdma_request request = {.op = RDMA_WRITE,
                                   .pages = whole ? bytes / EPT_PAGE_BYTES : 0,
                                   .page = writer->first + start / EPT_PAGE_BYTES,
                                   .local = local,
                                   .offset_bytes = start % EPT_PAGE_BYTES,
                                   .bytes = whole ? 0 : bytes};
    writer->bytes = 0;
    for (;;) {
        int posted = rdma_queue_post(writer->queue, &request, 1);
        if (posted < 0)
            return posted;
        if (posted == 1) {
            writer->inflight++;
            return 0;
        }
        int error = writer->inflight ? collect(writer) : -EIO;
        if (error)
            return error;
    }
}

int writer_add(struct writer *writer, uint32_t start, uint32_t bytes)
{
    if (writer->bytes && writer->start + writer->bytes == start) {
        writer->bytes += bytes;
        return 0;
    }
    int error = writer_flush(writer);
    writer->start = start;
    writer->bytes = bytes;
    return error;
}

int writer_finish(struct writer *writer)
{
    int error = 0;
    while (writer->inflight && !error)
        error = collect(writer);
    return error;
}
