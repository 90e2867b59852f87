/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random lookups by a program that knows its next keys: a hash table and a B-tree, whose leaves are
 * pages of their own. With hints it names the place of the key it will look up `ahead` lookups
 * later; without, or with 0, it just looks up. The keys are the same either way.
 *
 * usage: lookups MIB hash|btree LOOKUPS AHEAD
 */
#include "bench.h"

#include <farvisor/guide.h>
#include <stdbool.h>

#define PAGE      BENCH_PAGE
#define LEAF_KEYS 255u
#define FANOUT    256u
#define AHEAD_MAX 256u
#define PRIME     2654435761u

struct leaf {
    uint64_t count;
    uint64_t keys[LEAF_KEYS];
    uint64_t values[LEAF_KEYS + 1];
};
_Static_assert(sizeof(struct leaf) == PAGE, "a leaf is a page");

static struct leaf *leaves; /* of the tree; buckets of the table */
static uint64_t leaf_count;
static uint64_t *separators[4]; /* inner levels, lowest first: small and hot */
static unsigned levels;

static uint64_t mix(uint64_t x)
{
    x ^= x >> 31;
    x *= 0x9e3779b97f4a7c15u;
    return x ^ x >> 29;
}

/* First key of the tree's leaf i is i * LEAF_KEYS * 2: keys are even numbers. */
static uint64_t tree_leaf(uint64_t key)
{
    uint64_t at = 0;
    for (unsigned level = levels; level-- > 0;) {
        const uint64_t *first = separators[level] + at * FANOUT;
        unsigned low = 0, high = FANOUT;
        while (high - low > 1) {
            unsigned middle = (low + high) / 2;
            if (first[middle] <= key)
                low = middle;
            else
                high = middle;
        }
        at = at * FANOUT + low;
    }
    return at;
}

static uint64_t table_bucket(uint64_t key)
{
    return key / 2 * PRIME % leaf_count;
}

static void tree_build(void)
{
    uint64_t step = LEAF_KEYS * 2, nodes = leaf_count;
    for (uint64_t i = 0; i < leaf_count; i++) {
        leaves[i].count = LEAF_KEYS;
        for (unsigned k = 0; k < LEAF_KEYS; k++) {
            leaves[i].keys[k] = i * step + k * 2;
            leaves[i].values[k] = mix(leaves[i].keys[k]);
        }
    }
    for (; nodes > 1; levels++, step *= FANOUT) {
        uint64_t parents = (nodes + FANOUT - 1) / FANOUT;
        separators[levels] = malloc(parents * FANOUT * sizeof(uint64_t));
        for (uint64_t i = 0; i < parents * FANOUT; i++)
            separators[levels][i] = i < nodes ? i * step : UINT64_MAX;
        nodes = parents;
    }
}

/* Bucket by bucket: were the keys put in one after the other, building would be all that is seen.
 */
static void table_build(uint64_t keys)
{
    for (uint64_t i = 0; i < leaf_count; i++) {
        struct leaf *bucket = &leaves[table_bucket(i * 2)];
        for (uint64_t key = i * 2; key < keys * 2; key += leaf_count * 2) {
            bucket->keys[bucket->count] = key;
            bucket->values[bucket->count++] = mix(key);
        }
    }
}

static uint64_t leaf_find(const struct leaf *leaf, uint64_t key)
{
    for (unsigned i = 0; i < leaf->count; i++)
        if (leaf->keys[i] == key)
            return leaf->values[i];
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: lookups MIB hash|btree LOOKUPS AHEAD\n");
        return 2;
    }
    bool tree = strcmp(argv[2], "btree") == 0;
    uint64_t lookups = strtoull(argv[3], NULL, 10), ahead = strtoull(argv[4], NULL, 10), sum = 0;
    uint64_t (*place)(uint64_t) = tree ? tree_leaf : table_bucket;
    leaf_count = (strtoull(argv[1], NULL, 10) << 20) / PAGE;
    if (leaf_count == 0 || ahead > AHEAD_MAX)
        return 2;
    leaves = bench_allocate(leaf_count * PAGE);
    uint64_t keys = leaf_count * LEAF_KEYS / (tree ? 1 : 2);
    if (tree)
        tree_build();
    else
        table_build(keys);
    double start = bench_now_s();
    for (uint64_t i = 0; i < lookups; i++) {
        if (ahead)
            guide_prefetch(&leaves[place(mix(i + ahead) % keys * 2)], PAGE);
        uint64_t key = mix(i) % keys * 2;
        sum += leaf_find(&leaves[place(key)], key);
    }
    double us = (bench_now_s() - start) * 1e6 / (double)lookups;
    printf("us_a_lookup %.3f\n", us);
    bench_checksum(sum);
    return 0;
}
