/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An undirected graph in compressed sparse rows, as graph_generate() writes it to a file and the
 * measured programs load it: a header, vertices + 1 offsets, then the neighbours, sorted.
 */
#ifndef GRAPH_H
#define GRAPH_H

#include <stdint.h>

struct graph_header {
    uint64_t magic;
    uint64_t vertices;
    uint64_t edges; /* each counted in both directions */
};

#define GRAPH_MAGIC 0x3152534346564b52u

struct graph {
    uint32_t vertices;
    uint32_t edges;
    const uint32_t *offsets;
    const uint32_t *neighbours;
};

/* Writes a Kronecker (R-MAT) graph of 2^scale vertices and degree * 2^scale edges to path. */
void graph_generate(const char *path, unsigned scale, unsigned degree);

#endif
