/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PageRank (pull, as the GAP benchmark's) and betweenness centrality (Brandes, breadth first from a
 * few sources, one thread) over a graph that was generated before and is loaded into memory.
 *
 * usage: graph generate SCALE DEGREE FILE
 *        graph pagerank FILE ROUNDS [THREADS]
 *        graph betweenness FILE SOURCES
 */
#include "graph.h"

#include "bench.h"

#include <pthread.h>

#define DAMPING 0.85f
enum { MOST_THREADS = 64, UNSEEN = -1 };

static struct graph load(const char *path)
{
    size_t length_bytes;
    const struct graph_header *header = bench_load(path, &length_bytes);

    if (length_bytes < sizeof *header || header->magic != GRAPH_MAGIC) {
        fprintf(stderr, "graph: %s: not a graph\n", path);
        exit(1);
    }
    const uint32_t *offsets = (const uint32_t *)(header + 1);
    return (struct graph){(uint32_t)header->vertices, (uint32_t)header->edges, offsets,
                          offsets + header->vertices + 1};
}

/* ---- PageRank ---- */

struct ranking {
    struct graph graph;
    float *scores;
    float *shares; /* a vertex's score by its number of neighbours */
    int rounds;
    pthread_barrier_t barrier;
};

struct ranker {
    struct ranking *ranking;
    uint32_t first, end; /* its vertices */
    pthread_t thread;
};

static void *rank(void *argument)
{
    struct ranker *mine = argument;
    struct ranking *all = mine->ranking;
    const uint32_t *offsets = all->graph.offsets;
    float base = (1 - DAMPING) / (float)all->graph.vertices;

    for (int round = 0; round < all->rounds; round++) {
        for (uint32_t v = mine->first; v < mine->end; v++) {
            uint32_t degree = offsets[v + 1] - offsets[v];
            all->shares[v] = degree ? all->scores[v] / (float)degree : 0;
        }
        pthread_barrier_wait(&all->barrier);
        for (uint32_t v = mine->first; v < mine->end; v++) {
            float sum = 0;
            for (uint32_t i = offsets[v]; i < offsets[v + 1]; i++)
                sum += all->shares[all->graph.neighbours[i]];
            all->scores[v] = base + DAMPING * sum;
        }
        pthread_barrier_wait(&all->barrier);
    }
    return NULL;
}

static void pagerank(const char *path, int rounds, unsigned threads)
{
    bench_phase(NULL);
    struct ranking all = {.graph = load(path), .rounds = rounds};
    struct ranker rankers[MOST_THREADS];
    uint32_t vertices = all.graph.vertices;

    all.scores = bench_allocate(vertices * sizeof *all.scores);
    all.shares = bench_allocate(vertices * sizeof *all.shares);
    for (uint32_t v = 0; v < vertices; v++)
        all.scores[v] = 1 / (float)vertices;
    pthread_barrier_init(&all.barrier, NULL, threads);
    bench_phase("setup");
    for (unsigned t = 0; t < threads; t++) {
        rankers[t] = (struct ranker){&all, (uint32_t)((uint64_t)vertices * t / threads),
                                     (uint32_t)((uint64_t)vertices * (t + 1) / threads), 0};
        if (t > 0 && pthread_create(&rankers[t].thread, NULL, rank, &rankers[t]) != 0)
            bench_fail("graph: thread");
    }
    rank(&rankers[0]);
    for (unsigned t = 1; t < threads; t++)
        pthread_join(rankers[t].thread, NULL);
    bench_phase("run");
    bench_checksum(bench_hash(0, all.scores, vertices * sizeof *all.scores));
}

/* ---- betweenness centrality ---- */

struct brandes {
    struct graph graph;
    int32_t *depths;
    double *paths;      /* shortest paths from the source */
    double *dependency; /* of the source on the vertex */
    double *scores;
    uint32_t *queue; /* vertices in the order in which they were found */
};

static uint32_t find_paths(struct brandes *b, uint32_t source)
{
    const uint32_t *offsets = b->graph.offsets;
    uint32_t found = 1;

    for (uint32_t v = 0; v < b->graph.vertices; v++) {
        b->depths[v] = UNSEEN;
        b->paths[v] = b->dependency[v] = 0;
    }
    b->depths[source] = 0;
    b->paths[source] = 1;
    b->queue[0] = source;
    for (uint32_t next = 0; next < found; next++) {
        uint32_t v = b->queue[next];
        for (uint32_t i = offsets[v]; i < offsets[v + 1]; i++) {
            uint32_t w = b->graph.neighbours[i];
            if (b->depths[w] == UNSEEN) {
                b->depths[w] = b->depths[v] + 1;
                b->queue[found++] = w;
            }
            if (b->depths[w] == b->depths[v] + 1)
                b->paths[w] += b->paths[v];
        }
    }
    return found;
}

static void add_up(struct brandes *b, uint32_t source, uint32_t found)
{
    const uint32_t *offsets = b->graph.offsets;

    for (uint32_t next = found; next-- > 0;) {
        uint32_t v = b->queue[next];
        double sum = 0;
        for (uint32_t i = offsets[v]; i < offsets[v + 1]; i++) {
            uint32_t w = b->graph.neighbours[i];
            if (b->depths[w] == b->depths[v] + 1)
                sum += b->paths[v] / b->paths[w] * (1 + b->dependency[w]);
        }
        b->dependency[v] = sum;
        if (v != source)
            b->scores[v] += sum;
    }
}

static void betweenness(const char *path, unsigned sources)
{
    uint64_t state = 7;

    bench_phase(NULL);
    struct brandes b = {.graph = load(path)};
    uint32_t vertices = b.graph.vertices;
    b.depths = bench_allocate(vertices * sizeof *b.depths);
    b.paths = bench_allocate(vertices * sizeof *b.paths);
    b.dependency = bench_allocate(vertices * sizeof *b.dependency);
    b.scores = bench_allocate(vertices * sizeof *b.scores);
    b.queue = bench_allocate(vertices * sizeof *b.queue);
    bench_phase("setup");
    for (unsigned done = 0; done < sources && b.graph.edges;) {
        uint32_t source = (uint32_t)(bench_random(&state) % vertices);
        if (b.graph.offsets[source] == b.graph.offsets[source + 1])
            continue; /* a vertex without neighbours tells nothing */
        add_up(&b, source, find_paths(&b, source));
        done++;
    }
    bench_phase("run");
    bench_checksum(bench_hash(0, b.scores, vertices * sizeof *b.scores));
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "generate") == 0) {
        graph_generate(argv[4], (unsigned)atoi(argv[2]), (unsigned)atoi(argv[3]));
        return 0;
    }
    if ((argc == 4 || argc == 5) && strcmp(argv[1], "pagerank") == 0) {
        unsigned threads = argc == 5 ? (unsigned)atoi(argv[4]) : 1;
        pagerank(argv[2], atoi(argv[3]), threads < 1 ? 1 : threads % (MOST_THREADS + 1));
        return 0;
    }
    if (argc == 4 && strcmp(argv[1], "betweenness") == 0) {
        betweenness(argv[2], (unsigned)atoi(argv[3]));
        return 0;
    }
    fprintf(stderr, "usage: graph generate SCALE DEGREE FILE | graph pagerank FILE ROUNDS [THREADS]"
                    " | graph betweenness FILE SOURCES\n");
    return 2;
}
