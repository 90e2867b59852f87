/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guide for programs that compute on a graph in compressed sparse rows (tests/bench/graph), which
 * are not changed for it. Nothing of theirs is exported, but they have to read the graph from a
 * file and allocate their arrays: so libc's read and mmap are hooked, and tell where everything is.
 *
 *   read     the file's header begins with a magic number: from it where offsets and neighbours are
 *   mmap     arrays of one number a vertex, in order: of 4 bytes (narrow) and of 8 bytes (wide)
 *
 * From there on the guide is asked at faults (guide_on_fault):
 *
 *   neighbours, no wide array: PageRank goes through the rows in order. Remembers where it is.
 *   shares (narrow[1])         PageRank looks up a number for each neighbour: finds the touched
 *                              vertex among the neighbours that follow, and names the pages of
 *                              those after it
 *   wide arrays:               betweenness, whose rows come in the order of a queue: not guided
 */
#include <farvisor/guide.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define GRAPH_MAGIC 0x3152534346564b52u
#define PAGE_BYTES  4096u
#define ARRAYS      4u
#define SEARCH_MAX  16384u /* neighbours looked through for the touched vertex: 64 KiB */
#define AHEAD_MAX   1024u  /* neighbours looked at behind it */

struct header {
    uint64_t magic, vertices, edges;
};

static struct {
    uint64_t vertices, edges;
    const uint32_t *offsets, *neighbours;
    const uint32_t *narrow[ARRAYS]; /* one number of 4 bytes a vertex */
    atomic_uint narrow_count, wide_count;
} graph;

/* Where a thread's walk was last; wrong after another walk began, and then found anew. */
static __thread uint64_t at_edge __attribute__((tls_model("initial-exec")));

static ssize_t (*original_read)(int fd, void *to, size_t bytes);
static void *(*original_mmap)(void *at, size_t bytes, int rights, int flags, int fd, off_t offset);

/* ---- PageRank ---- */

static void share_touched(uint64_t vertex)
{
    const uint32_t *neighbours = graph.neighbours;
    const char *shares = (const char *)graph.narrow[1];
    uint64_t edge = at_edge, end = at_edge + SEARCH_MAX, named = UINT64_MAX;
    end = end < graph.edges ? end : graph.edges;
    while (edge < end && neighbours[edge] != vertex)
        edge++;
    if (edge == end) /* lost: the next fault among the neighbours tells */
        return;
    at_edge = edge;
    end = edge + AHEAD_MAX < graph.edges ? edge + AHEAD_MAX : graph.edges;
    for (edge++; edge < end; edge++) {
        uint64_t page = (uint64_t)neighbours[edge] * sizeof(float) / PAGE_BYTES;
        if (page == named)
            continue;
        named = page;
        if (guide_prefetch(shares + page * PAGE_BYTES, 1))
            return;
    }
}

/* ---- what is asked ---- */

static void neighbour_fault(const struct guide_fault *fault, void *argument)
{
    uint64_t edge = (uint64_t)((const uint32_t *)fault->address - graph.neighbours);
    (void)argument;
    if (edge >= graph.edges || graph.wide_count > 0)
        return;
    at_edge = edge;
    guide_prefetch(graph.neighbours + edge, 16 * PAGE_BYTES);
}

static void share_fault(const struct guide_fault *fault, void *argument)
{
    uint64_t vertex = (uint64_t)((const float *)fault->address - (const float *)argument);
    if (vertex < graph.vertices && !fault->write && graph.wide_count == 0)
        share_touched(vertex);
}

/* ---- finding the arrays ---- */

static void graph_found(const struct header *header)
{
    graph.vertices = header->vertices;
    graph.edges = header->edges;
    graph.offsets = (const uint32_t *)(header + 1);
    graph.neighbours = graph.offsets + header->vertices + 1;
    graph.narrow_count = graph.wide_count = 0;
    (void)guide_on_fault(graph.neighbours, header->edges * sizeof(uint32_t), neighbour_fault, NULL);
}

static ssize_t guided_read(int fd, void *to, size_t bytes)
{
    ssize_t got = original_read(fd, to, bytes);
    const struct header *header = to;
    if (got >= (ssize_t)sizeof(*header) && graph.vertices == 0 &&
        (uintptr_t)to % sizeof(uint64_t) == 0 && header->magic == GRAPH_MAGIC &&
        header->vertices > 0 && header->vertices < UINT32_MAX && header->edges > 0 &&
        header->edges < UINT32_MAX)
        graph_found(header);
    return got;
}

static void *guided_mmap(void *at, size_t bytes, int rights, int flags, int fd, off_t offset)
{
    void *got = original_mmap(at, bytes, rights, flags, fd, offset);
    if (graph.vertices == 0 || fd >= 0 || got == (void *)-1)
        return got;
    if (bytes == graph.vertices * sizeof(uint32_t)) {
        unsigned place = atomic_fetch_add(&graph.narrow_count, 1);
        if (place < ARRAYS)
            graph.narrow[place] = got;
        if (place == 1)
            (void)guide_on_fault(got, bytes, share_fault, got);
    }
    graph.wide_count += bytes == graph.vertices * sizeof(double);
    return got;
}

static int start(void)
{
    int error = guide_hook("read", (void *)guided_read, (void **)&original_read);
    if (!error)
        error = guide_hook("mmap", (void *)guided_mmap, (void **)&original_mmap);
    if (error)
        fprintf(stderr, "graph guide: libc's read and mmap cannot be hooked (error %d)\n", -error);
    return error;
}

GUIDE("graph", start)
