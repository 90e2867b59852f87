/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hash table from a tenant's slab numbers, which the tenant chooses, to places in its memory
 * file. Its size follows what is held at most, which the quota bounds, never the numbers. Open
 * addressing, at most half full. No locks.
 */
#include "memserver/memserver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAIRS_FIRST 64u
#define PAIR_EMPTY  0u

struct slab_pair {
    uint64_t slab_plus_one; /* 0: empty */
    uint64_t index;
};

/* Fibonacci hashing: neighbouring numbers, the usual case, spread evenly. */
static uint64_t pair_home(const struct slab_table *table, uint64_t slab_plus_one)
{
    return (slab_plus_one * 0x9e3779b97f4a7c15ULL >> 20) & (table->pair_count - 1);
}

/* The slab's pair, or the empty one where it would go. The table is never full. */
static struct slab_pair *pair_find(const struct slab_table *table, uint64_t slab_plus_one)
{
    uint64_t at = pair_home(table, slab_plus_one);

    while (table->pairs[at].slab_plus_one != PAIR_EMPTY &&
           table->pairs[at].slab_plus_one != slab_plus_one)
        at = (at + 1) & (table->pair_count - 1);
    return &table->pairs[at];
}

static int pairs_grow(struct slab_table *table)
{
    struct slab_table larger = *table;

    larger.pair_count = table->pair_count ? table->pair_count * 2 : PAIRS_FIRST;
    larger.pairs = calloc(larger.pair_count, sizeof(larger.pairs[0]));
    if (!larger.pairs)
        return -ENOMEM;
    for (uint64_t i = 0; i < table->pair_count; i++) {
        if (table->pairs[i].slab_plus_one != PAIR_EMPTY)
            *pair_find(&larger, table->pairs[i].slab_plus_one) = table->pairs[i];
    }
    free(table->pairs);
    *table = larger;
    return 0;
}

int slab_table_put(struct slab_table *table, uint64_t slab, uint64_t index)
{
    struct slab_pair *pair;

    if (table->held_slabs + 1 > table->pair_count / 2 && pairs_grow(table) < 0)
        return -ENOMEM;
    pair = pair_find(table, slab + 1);
    if (pair->slab_plus_one == PAIR_EMPTY)
        table->held_slabs++;
    *pair = (struct slab_pair){.slab_plus_one = slab + 1, .index = index};
    return 0;
}

int slab_table_find(const struct slab_table *table, uint64_t slab, uint64_t *index)
{
    const struct slab_pair *pair = table->pair_count ? pair_find(table, slab + 1) : NULL;

    if (!pair || pair->slab_plus_one == PAIR_EMPTY)
        return -ENOENT;
    *index = pair->index;
    return 0;
}

/* Closes the gap so that later pairs of the same run are still found. */
void slab_table_remove(struct slab_table *table, uint64_t slab)
{
    struct slab_pair *gone = table->pair_count ? pair_find(table, slab + 1) : NULL;
    uint64_t mask = table->pair_count - 1, hole;

    if (!gone || gone->slab_plus_one == PAIR_EMPTY)
        return;
    hole = (uint64_t)(gone - table->pairs);
    for (uint64_t at = (hole + 1) & mask; table->pairs[at].slab_plus_one != PAIR_EMPTY;
         at = (at + 1) & mask) {
        uint64_t home = pair_home(table, table->pairs[at].slab_plus_one);

        if (((at - home) & mask) >= ((at - hole) & mask)) {
            table->pairs[hole] = table->pairs[at];
            hole = at;
        }
    }
    table->pairs[hole].slab_plus_one = PAIR_EMPTY;
    table->held_slabs--;
}

void slab_table_free(struct slab_table *table)
{
    free(table->pairs);
    memset(table, 0, sizeof(*table));
}
