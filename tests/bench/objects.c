/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects of one size behind a table of pointers, as a cache or key-value store holds them. Phases:
 * fill; del, of 70 % at random; get, of the others at random. Everything read is checked. The
 * section `live` has what travels in each.
 *
 * usage: objects MIB BYTES
 */
#include "bench.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DELETED_PERCENT 70

static uint64_t mask;

/* A permutation of 0 .. mask: each step has an inverse. */
static size_t shuffled(uint64_t x, uint64_t seed)
{
    unsigned half = (unsigned)__builtin_popcountll(mask) / 2;
    x = ((x ^ seed) * 0x9e3779b97f4a7c15u) & mask;
    x ^= x >> half;
    x = (x * 0xbf58476d1ce4e5b9u) & mask;
    x ^= x >> half;
    return (x * 0x94d049bb133111ebu) & mask;
}

static void fill(uint64_t **table, size_t count, size_t bytes)
{
    for (size_t i = 0; i < count; i++) {
        table[i] = malloc(bytes);
        if (!table[i])
            exit(2);
        for (size_t j = 0; j < bytes / 8; j++)
            table[i][j] = bench_mix(i * 1024 + j);
    }
}

/* Like a store, it looks at the key before it believes that it has found the object. */
static size_t delete_most(uint64_t **table, size_t count)
{
    size_t deleted = 0;
    for (uint64_t turn = 0; turn <= mask; turn++) {
        size_t i = shuffled(turn, 1);
        if (i >= count || bench_mix(i) % 100 >= DELETED_PERCENT)
            continue;
        if (table[i][0] != bench_mix(i * 1024))
            exit(1);
        free(table[i]);
        table[i] = NULL;
        deleted++;
    }
    return deleted;
}

static uint64_t look_up(uint64_t **table, size_t count, size_t bytes)
{
    uint64_t sum = 0;
    for (uint64_t turn = 0; turn <= mask; turn++) {
        size_t i = shuffled(turn, 2);
        for (size_t j = 0; i < count && table[i] && j < bytes / 8; j++) {
            if (table[i][j] != bench_mix(i * 1024 + j))
                exit(1);
            sum += table[i][j];
        }
    }
    return sum;
}

int main(int argc, char **argv)
{
    size_t bytes = argc == 3 ? strtoul(argv[2], NULL, 0) : 0;
    if (bytes < 8 || bytes > 8192) {
        fprintf(stderr, "usage: objects MIB BYTES\n");
        return 2;
    }
    size_t count = (strtoul(argv[1], NULL, 0) << 20) / bytes;
    uint64_t **table = malloc(count * sizeof(*table));
    if (!table || !count)
        return 2;
    for (mask = 1; mask < count; mask = mask * 2 + 1)
        ;
    bench_phase(NULL);
    fill(table, count, bytes);
    bench_phase("fill");
    size_t deleted = delete_most(table, count);
    bench_phase("del");
    uint64_t sum = look_up(table, count, bytes);
    bench_phase("get");
    printf("objects %zu\ndeleted %zu\n", count, deleted);
    bench_checksum(sum);
    return 0;
}
