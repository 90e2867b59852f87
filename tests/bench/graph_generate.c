/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes R-MAT graphs with the parameters of Graph500 (0.57, 0.19, 0.19, 0.05): few vertices have
 * very many neighbours. Vertices get random numbers, so that neighbours are not near in memory.
 */
#include "graph.h"

#include "bench.h"

struct edge {
    uint32_t from, to;
};

static struct edge random_edge(unsigned scale, uint64_t *state)
{
    struct edge edge = {0, 0};

    for (unsigned level = 0; level < scale; level++) {
        unsigned pick = (unsigned)(bench_random(state) % 100);
        edge.from = edge.from << 1 | (pick >= 76);
        edge.to = edge.to << 1 | ((pick >= 57 && pick < 76) || pick >= 95);
    }
    return edge;
}

static uint32_t *random_numbers(uint32_t count, uint64_t *state)
{
    uint32_t *numbers = bench_allocate(count * sizeof *numbers);

    for (uint32_t i = 0; i < count; i++) {
        uint32_t other = (uint32_t)(bench_random(state) % (i + 1));
        numbers[i] = numbers[other];
        numbers[other] = i;
    }
    return numbers;
}

/* Where each vertex's neighbours begin; loops are dropped, every edge counts for both ends. */
static uint32_t *count_offsets(const struct edge *edges, size_t count, uint32_t vertices)
{
    uint32_t *offsets = bench_allocate((vertices + 2ul) * sizeof *offsets);

    for (size_t i = 0; i < count; i++) {
        if (edges[i].from != edges[i].to) {
            offsets[edges[i].from + 1]++;
            offsets[edges[i].to + 1]++;
        }
    }
    for (uint32_t v = 0; v < vertices; v++)
        offsets[v + 1] += offsets[v];
    return offsets;
}

/* Placing the edges puts each list into the order of the edges; since the graph is symmetric,
 * turning the lists around once more leaves each in the order of its neighbours' numbers. */
static uint32_t *place(const struct edge *edges, size_t count, uint32_t vertices,
                       const uint32_t *offsets)
{
    uint32_t total = offsets[vertices];
    uint32_t *next = bench_allocate((vertices + 1ul) * sizeof *next);
    uint32_t *first = bench_allocate((total + 1ul) * sizeof *first);
    uint32_t *sorted = bench_allocate((total + 1ul) * sizeof *sorted);

    memcpy(next, offsets, vertices * sizeof *next);
    for (size_t i = 0; i < count; i++) {
        if (edges[i].from != edges[i].to) {
            first[next[edges[i].from]++] = edges[i].to;
            first[next[edges[i].to]++] = edges[i].from;
        }
    }
    memcpy(next, offsets, vertices * sizeof *next);
    for (uint32_t v = 0; v < vertices; v++)
        for (uint32_t i = offsets[v]; i < offsets[v + 1]; i++)
            sorted[next[first[i]]++] = v;
    return sorted;
}

void graph_generate(const char *path, unsigned scale, unsigned degree)
{
    uint32_t vertices = 1u << scale;
    size_t count = (size_t)vertices * degree;
    uint64_t state = 6;
    uint32_t *numbers = random_numbers(vertices, &state);
    struct edge *edges = bench_allocate(count * sizeof *edges);

    for (size_t i = 0; i < count; i++) {
        struct edge edge = random_edge(scale, &state);
        edges[i] = (struct edge){numbers[edge.from], numbers[edge.to]};
    }
    uint32_t *offsets = count_offsets(edges, count, vertices);
    uint32_t *neighbours = place(edges, count, vertices, offsets);
    struct graph_header header = {GRAPH_MAGIC, vertices, offsets[vertices]};
    bench_store(path, &header, sizeof header, 0);
    bench_store(path, offsets, (vertices + 1ul) * sizeof *offsets, 1);
    bench_store(path, neighbours, header.edges * sizeof *neighbours, 1);
}
