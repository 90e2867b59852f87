/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of the redis guide: the library's calls, recorded instead of made, and structures
 * as redis-server 7.0 has them, in memory of which each page that is named is known. guide_hook is
 * each test program's own. Included once by each.
 */
#ifndef TESTS_UNIT_GUIDE_REDIS_H
#define TESTS_UNIT_GUIDE_REDIS_H

#include "redis/internal.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE     4096u
#define ARENA    4096u /* pages */
#define ELEMENTS 300u

/* ---- the library ---- */

static uint8_t *arena; /* ARENA pages: whatever the tests build */
static unsigned named[ARENA], elsewhere, hints, chains;
static unsigned slow_ms; /* the next hint takes so long */

int guide_prefetch(const void *start, size_t bytes)
{
    uintptr_t first = (uintptr_t)start, end = first + bytes;
    hints++;
    if (slow_ms)
        usleep(slow_ms * 1000);
    slow_ms = 0;
    for (uintptr_t page = first / PAGE; page <= (end - 1) / PAGE; page++) {
        uintptr_t index = page - (uintptr_t)arena / PAGE;
        if (index < ARENA)
            named[index]++;
        else
            elsewhere++;
    }
    return 0;
}

int guide_is_far(void)
{
    return 1;
}

static int (*guide)(void); /* what it does first */

int guide_start(const char *name, int (*start)(void))
{
    (void)name;
    guide = start;
    return 0;
}

long guide_read_chain(const void *first, size_t node_bytes, size_t next_offset, void *to,
                      size_t nodes)
{
    const uint8_t *at = first;
    size_t got = 0;
    chains++;
    for (; at && got < nodes; got++) {
        memcpy((uint8_t *)to + got * node_bytes, at, node_bytes);
        memcpy(&at, at + next_offset, sizeof(at));
    }
    return (long)got;
}

/* ---- what the server would have built ---- */

static size_t arena_used;

static inline void *take(size_t bytes)
{
    void *taken = arena + arena_used;
    arena_used += (bytes + 15) / 16 * 16;
    ck_assert_uint_le(arena_used, (size_t)ARENA * PAGE);
    return taken;
}

/* Each on a page of its own, so that naming one is not naming another. */
static inline void *take_page(void)
{
    arena_used = (arena_used + PAGE - 1) / PAGE * PAGE;
    return take(PAGE);
}

static inline uint8_t *text_make(uint64_t bytes)
{
    arena_used = (arena_used + PAGE - 1) / PAGE * PAGE;
    uint8_t *header = take(TEXT_HEADER_MAX + bytes + 1);
    memcpy(header, &bytes, sizeof(bytes));
    memcpy(header + 8, &bytes, sizeof(bytes));
    header[16] = 4;
    return header + TEXT_HEADER_MAX;
}

static inline bool is_named(const void *object)
{
    return named[((uintptr_t)object - (uintptr_t)arena) / PAGE] > 0;
}

static inline void setup(void)
{
    arena = mmap(NULL, (size_t)ARENA * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                 -1, 0);
    ck_assert_ptr_ne(arena, MAP_FAILED);
    pages_late_ns = 100000000000u;
    pages_begin(ARENA);
}

static inline struct dict *dict_make(int8_t exponent, int8_t second)
{
    struct dict *dict = take(sizeof(*dict));
    dict->exponent[0] = exponent;
    dict->exponent[1] = second;
    dict->rehash_index = second < 0 ? -1 : 0;
    for (unsigned i = 0; i < 2; i++)
        if (dict->exponent[i] >= 0)
            dict->table[i] = take(sizeof(void *) << dict->exponent[i]);
    return dict;
}

/* Into a bucket, before what is there. */
static inline struct entry *dict_put(struct dict *dict, unsigned table, uint64_t bucket)
{
    const struct entry **head = (const struct entry **)(uintptr_t)&dict->table[table][bucket];
    struct entry *entry = take_page();
    entry->key = text_make(40);
    entry->value = text_make(600);
    entry->next = *head;
    *head = entry;
    return entry;
}

static inline struct list_node *list_make(struct list *list, struct list_node **node,
                                          unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        node[i] = take_page();
        node[i]->entry = take_page();
        node[i]->bytes = 3000;
        node[i]->count = 10;
        node[i]->previous = i ? node[i - 1] : NULL;
        if (i)
            ((struct list_node *)(uintptr_t)node[i - 1])->next = node[i];
    }
    *list = (struct list){node[0], node[count - 1], 10ULL * count, count};
    return node[0];
}

#endif
