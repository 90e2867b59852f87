/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accounting of the node's memory in slabs of 2 MiB: the pool all tenants draw from, and for each
 * tenant the places in its memory file that are free, and by slab number those that are not
 * (slab_table.c). Grows with what is held, not with what is promised. The supervisor's only thread
 * uses it: no locks.
 */
#include "memserver/memserver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INDICES_FIRST 64u

void slab_map_init(struct slab_map *map, uint64_t quota_slabs)
{
    memset(map, 0, sizeof(*map));
    map->quota_slabs = quota_slabs;
}

void slab_map_destroy(struct slab_map *map, struct slab_pool *pool)
{
    pool->used_slabs -= map->table.held_slabs;
    slab_table_free(&map->table);
    free(map->free_indices);
    memset(map, 0, sizeof(*map));
}

int slab_map_add(struct slab_map *map, struct slab_pool *pool, uint64_t slab, uint64_t *index)
{
    uint64_t place = map->free_count ? map->free_indices[map->free_count - 1] : map->fresh_index;

    if (slab_table_find(&map->table, slab, index) == 0)
        return -EEXIST;
    if (map->table.held_slabs >= map->quota_slabs)
        return -EDQUOT;
    if (pool->used_slabs >= pool->capacity_slabs)
        return -ENOSPC;
    if (slab_table_put(&map->table, slab, place) < 0)
        return -ENOMEM;
    if (map->free_count)
        map->free_count--;
    else
        map->fresh_index++;
    *index = place;
    pool->used_slabs++;
    return 0;
}

int slab_map_find(const struct slab_map *map, uint64_t slab, uint64_t *index)
{
    return slab_table_find(&map->table, slab, index);
}

void slab_map_remove(struct slab_map *map, struct slab_pool *pool, uint64_t slab)
{
    uint64_t index;

    if (slab_table_find(&map->table, slab, &index) < 0)
        return;
    if (map->free_count == map->free_room) {
        uint64_t room = map->free_room ? map->free_room * 2 : INDICES_FIRST;
        uint64_t *larger = realloc(map->free_indices, room * sizeof(larger[0]));

        /* Out of memory: keep the slab held; it is freed with the tenant. */
        if (!larger)
            return;
        map->free_indices = larger;
        map->free_room = room;
    }
    map->free_indices[map->free_count++] = index;
    slab_table_remove(&map->table, slab);
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
