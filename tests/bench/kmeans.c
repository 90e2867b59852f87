/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lloyd's k-means: points of 16 floats around 16 hidden centres, 6 rounds. Every round reads all
 * points once; sums are doubles added in one order, so that the result is the same to the bit.
 *
 * usage: kmeans MIB
 */
#include "bench.h"

#include <float.h>

enum { DIMENSIONS = 16, CLUSTERS = 16, ROUNDS = 6 };

struct point {
    float at[DIMENSIONS];
};

struct cluster {
    double sum[DIMENSIONS];
    uint64_t members;
};

static float unit(uint64_t *state)
{
    return (float)(bench_random(state) >> 40) / (float)(1 << 24);
}

static void generate(struct point *points, size_t count)
{
    struct point centres[CLUSTERS];
    uint64_t state = 2;

    for (int c = 0; c < CLUSTERS; c++)
        for (int d = 0; d < DIMENSIONS; d++)
            centres[c].at[d] = unit(&state) * 4;
    for (size_t i = 0; i < count; i++) {
        const struct point *centre = &centres[bench_random(&state) % CLUSTERS];
        for (int d = 0; d < DIMENSIONS; d++)
            points[i].at[d] = centre->at[d] + unit(&state) + unit(&state);
    }
}

static int nearest(const struct point *point, const struct point *means)
{
    float best = FLT_MAX;
    int chosen = 0;

    for (int c = 0; c < CLUSTERS; c++) {
        float distance = 0;
        for (int d = 0; d < DIMENSIONS; d++) {
            float delta = point->at[d] - means[c].at[d];
            distance += delta * delta;
        }
        if (distance < best) {
            best = distance;
            chosen = c;
        }
    }
    return chosen;
}

static void improve(const struct point *points, size_t count, struct point *means, int32_t *labels)
{
    struct cluster clusters[CLUSTERS] = {0};

    for (size_t i = 0; i < count; i++) {
        labels[i] = nearest(&points[i], means);
        struct cluster *mine = &clusters[labels[i]];
        for (int d = 0; d < DIMENSIONS; d++)
            mine->sum[d] += (double)points[i].at[d];
        mine->members++;
    }
    for (int c = 0; c < CLUSTERS; c++)
        for (int d = 0; d < DIMENSIONS && clusters[c].members; d++)
            means[c].at[d] = (float)(clusters[c].sum[d] / (double)clusters[c].members);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: kmeans MIB\n");
        return 2;
    }
    size_t count = (strtoull(argv[1], NULL, 10) << 20) / (sizeof(struct point) + sizeof(int32_t));
    if (count < CLUSTERS)
        count = CLUSTERS;
    struct point *points = bench_allocate(count * sizeof *points);
    int32_t *labels = bench_allocate(count * sizeof *labels);
    struct point means[CLUSTERS];

    bench_phase(NULL);
    generate(points, count);
    memcpy(means, points, sizeof means);
    bench_phase("setup");
    for (int round = 0; round < ROUNDS; round++)
        improve(points, count, means, labels);
    bench_phase("run");
    bench_checksum(bench_hash(bench_hash(0, means, sizeof means), labels, count * sizeof *labels));
    return 0;
}
