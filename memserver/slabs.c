/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accounting of the node's memory in slabs of 2 MiB: the pool all tenants draw from, and for each
 * tenant a hash table from its slab numbers to places in its memory file. Grows with what is held,
 * not with what is promised. The supervisor's only thread uses it: no locks.
 */
#include "memserver/memserver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAIRS_FIRST 64u
#define PAIR_EMPTY  0u

struct slab_pair {
    uint64_t slab_plus_one; /* 0: empty */
    uint64_t index;
};

void slab_map_init(struct slab_map *map, uint64_t quota_slabs)
{
    memset(map, 0, sizeof(*map));
    map->quota_slabs = quota_slabs;
}

void slab_map_destroy(struct slab_map *map, struct slab_pool *pool)
{
    pool->used_slabs -= map->held_slabs;
    free(map->pairs);
    free(map->free_indices);
    memset(map, 0, sizeof(*map));
}

/* Fibonacci hashing: neighbouring numbers, the usual case, spread evenly. */
static uint64_t pair_home(const struct slab_map *map, uint64_t slab_plus_one)
{
    return (slab_plus_one * 0x9e3779b97f4a7c15ULL >> 20) & (map->pair_count - 1);
}

/* The slab's pair, or the empty one where it would go. The table is never full. */
static struct slab_pair *pair_find(const struct slab_map *map, uint64_t slab_plus_one)
{
    uint64_t at = pair_home(map, slab_plus_one);

    while (map->pairs[at].slab_plus_one != PAIR_EMPTY &&
           map->pairs[at].slab_plus_one != slab_plus_one)
        at = (at + 1) & (map->pair_count - 1);
    return &map->pairs[at];
}

static int pairs_grow(struct slab_map *map)
{
    struct slab_map larger = *map;

    larger.pair_count = map->pair_count ? map->pair_count * 2 : PAIRS_FIRST;
    larger.pairs = calloc(larger.pair_count, sizeof(larger.pairs[0]));
    if (!larger.pairs)
        return -ENOMEM;
    for (uint64_t i = 0; i < map->pair_count; i++) {
        if (map->pairs[i].slab_plus_one != PAIR_EMPTY)
            *pair_find(&larger, map->pairs[i].slab_plus_one) = map->pairs[i];
    }
    free(map->pairs);
    *map = larger;
    return 0;
}

int slab_map_add(struct slab_map *map, struct slab_pool *pool, uint64_t slab, uint64_t *index)
{
    struct slab_pair *pair;

    if (map->pair_count && pair_find(map, slab + 1)->slab_plus_one == slab + 1)
        return -EEXIST;
    if (map->held_slabs >= map->quota_slabs)
        return -EDQUOT;
    if (pool->used_slabs >= pool->capacity_slabs)
        return -ENOSPC;
    if (map->held_slabs + 1 > map->pair_count / 2 && pairs_grow(map) < 0)
        return -ENOMEM;
    pair = pair_find(map, slab + 1);
    pair->slab_plus_one = slab + 1;
    pair->index = map->free_count ? map->free_indices[--map->free_count] : map->fresh_index++;
    *index = pair->index;
    map->held_slabs++;
    pool->used_slabs++;
    return 0;
}

int slab_map_find(const struct slab_map *map, uint64_t slab, uint64_t *index)
{
    const struct slab_pair *pair = map->pair_count ? pair_find(map, slab + 1) : NULL;

    if (!pair || pair->slab_plus_one != slab + 1)
        return -ENOENT;
    *index = pair->index;
    return 0;
}

/* Closes the gap so that later pairs of the same run are still found. */
static void pair_erase(struct slab_map *map, struct slab_pair *gone)
{
    uint64_t mask = map->pair_count - 1;
    uint64_t hole = (uint64_t)(gone - map->pairs);

    for (uint64_t at = (hole + 1) & mask; map->pairs[at].slab_plus_one != PAIR_EMPTY;
         at = (at + 1) & mask) {
        uint64_t home = pair_home(map, map->pairs[at].slab_plus_one);

        if (((at - home) & mask) >= ((at - hole) & mask)) {
            map->pairs[hole] = map->pairs[at];
            hole = at;
        }
    }
    map->pairs[hole].slab_plus_one = PAIR_EMPTY;
}

void slab_map_remove(struct slab_map *map, struct slab_pool *pool, uint64_t slab)
{
    struct slab_pair *pair = map->pair_count ? pair_find(map, slab + 1) : NULL;

    if (!pair || pair->slab_plus_one != slab + 1)
        return;
    if (map->free_count == map->free_room) {
        uint64_t room = map->free_room ? map->free_room * 2 : PAIRS_FIRST;
        uint64_t *larger = realloc(map->free_indices, room * sizeof(larger[0]));

        /* Out of memory: keep the slab held; it is freed with the tenant. */
        if (!larger)
            return;
        map->free_indices = larger;
        map->free_room = room;
    }
    map->free_indices[map->free_count++] = pair->index;
    pair_erase(map, pair);
    map->held_slabs--;
    pool->used_slabs--;
}

/* Value of one "Name:  123 kB" or "Name:  123" line of /proc/meminfo; 0 if there is none. */
static uint64_t meminfo_value(const char *name)
{
    char line[256];
    uint64_t value = 0;
    size_t length = strlen(name);
    FILE *file = fopen("/proc/meminfo", "re");

    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, name, length) == 0 && line[length] == ':') {
            value = strtoull(line + length + 1, NULL, 10);
            break;
        }
    }
    if (file)
        fclose(file);
    return value;
}

uint64_t slab_huge_available(void)
{
    uint64_t reserved = meminfo_value("HugePages_Rsvd");
    uint64_t free_pages = meminfo_value("HugePages_Free");

    /* Other sizes than 2 MiB would not be slabs. */
    if (meminfo_value("Hugepagesize") != WIRE_SLAB_BYTES / 1024)
        return 0;
    return free_pages > reserved ? free_pages - reserved : 0;
}

uint64_t slab_memory_available_bytes(void)
{
    return meminfo_value("MemAvailable") * 1024;
}
