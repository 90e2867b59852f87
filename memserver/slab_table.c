/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hash table from a tenant's slab numbers, which the tenant chooses, to places in its memory
 * file. Its size follows what is held at most, which the quota bounds, never the numbers. Open
 * addressing, at most half full. A table has a secret key, so that no tenant can choose numbers
 * that meet in one place: the supervisor serves every tenant. No locks.
 */
#include "memserver/memserver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define PAIR_BITS_FIRST 6u
#define PAIR_EMPTY      0u

struct slab_pair {
    uint64_t slab_plus_one; /* 0: empty */
    uint64_t index;
};

/*
 * The top bits of a product: those that every bit of the number reaches. The fold between the two
 * keeps numbers that differ in high bits alone apart.
 */
static uint64_t pair_home(const struct slab_table *table, uint64_t slab_plus_one)
{
    uint64_t mixed = (slab_plus_one ^ table->key[0]) * 0x9e3779b97f4a7c15ULL;

    mixed = (mixed ^ mixed >> 32) * (table->key[1] | 1);
    return mixed >> (64 - table->pair_bits);
}

static uint64_t pairs_mask(const struct slab_table *table)
{
    return (1ULL << table->pair_bits) - 1;
}

/* The slab's pair, or the empty one where it would go. The table is never full. */
static struct slab_pair *pair_find(const struct slab_table *table, uint64_t slab_plus_one)
{
    uint64_t at = pair_home(table, slab_plus_one);

    while (table->pairs[at].slab_plus_one != PAIR_EMPTY &&
           table->pairs[at].slab_plus_one != slab_plus_one)
        at = (at + 1) & pairs_mask(table);
    return &table->pairs[at];
}

static int pairs_grow(struct slab_table *table)
{
    struct slab_table larger = *table;

    if (!table->pairs &&
        getrandom(larger.key, sizeof(larger.key), 0) != (ssize_t)sizeof(larger.key))
        return -errno;
    larger.pair_bits = table->pairs ? table->pair_bits + 1 : PAIR_BITS_FIRST;
    larger.pairs = calloc(1ULL << larger.pair_bits, sizeof(larger.pairs[0]));
    if (!larger.pairs)
        return -ENOMEM;
    for (uint64_t i = 0; table->pairs && i <= pairs_mask(table); i++) {
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
    int error = 0;

    if (!table->pairs || table->held_slabs + 1 > 1ULL << table->pair_bits >> 1)
        error = pairs_grow(table);
    if (error < 0)
        return error;
    pair = pair_find(table, slab + 1);
    if (pair->slab_plus_one == PAIR_EMPTY)
        table->held_slabs++;
    *pair = (struct slab_pair){.slab_plus_one = slab + 1, .index = index};
    return 0;
}

int slab_table_find(const struct slab_table *table, uint64_t slab, uint64_t *index)
{
    const struct slab_pair *pair = table->pairs ? pair_find(table, slab + 1) : NULL;

    if (!pair || pair->slab_plus_one == PAIR_EMPTY)
        return -ENOENT;
    *index = pair->index;
    return 0;
}

/* Closes the gap so that later pairs of the same run are still found. */
void slab_table_remove(struct slab_table *table, uint64_t slab)
{
    struct slab_pair *gone = table->pairs ? pair_find(table, slab + 1) : NULL;
    uint64_t mask = pairs_mask(table), hole;

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
