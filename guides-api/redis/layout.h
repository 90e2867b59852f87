/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What redis-server 7.0 keeps in memory, as far as the guide looks at it (64-bit, little-endian).
 * Everything here is the program's and read-only. On the program's main thread, inside of a hook,
 * it is consistent, because nobody else changes it; nothing found in it is kept after the hook.
 * Sources: Redis 7.0, src/server.h, sds.h, dict.h, quicklist.h, listpack.c, intset.h.
 */
#ifndef REDIS_GUIDE_LAYOUT_H
#define REDIS_GUIDE_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REDIS_VERSION 0x0700u /* RM_GetServerVersion() >> 8: any patch of 7.0 */

enum { TYPE_STRING, TYPE_LIST, TYPE_SET, TYPE_ZSET, TYPE_HASH };
enum {
    ENCODING_RAW = 0, /* a string of its own */
    ENCODING_HT = 2,
    ENCODING_INTSET = 6,
    ENCODING_SKIPLIST = 7,
    ENCODING_EMBEDDED = 8, /* a string beside its object */
    ENCODING_QUICKLIST = 9,
    ENCODING_LISTPACK = 11
};

struct object {
    uint32_t type : 4, encoding : 4, lru : 24;
    int32_t references;
    const void *value;
};
_Static_assert(sizeof(struct object) == 16, "redisObject of Redis 7.0");

struct entry {
    const uint8_t *key;
    const void *value;
    const struct entry *next;
};

struct dict {
    const void *type;
    const struct entry *const *table[2];
    uint64_t used[2];
    int64_t rehash_index; /* -1: only table[0] is in use */
    int16_t rehash_pauses;
    int8_t exponent[2]; /* of a table's size; -1: none */
};
_Static_assert(offsetof(struct dict, exponent) == 50, "dict of Redis 7.0");

struct list_node {
    const struct list_node *previous, *next;
    const void *entry;
    uint64_t bytes; /* of a compressed node: what they become */
    uint32_t count : 16, encoding : 2, container : 2, other : 12;
    uint32_t padding;
};
_Static_assert(sizeof(struct list_node) == 40, "quicklistNode of Redis 7.0");

#define LIST_NODE_COMPRESSED 2u /* its encoding */

struct list {
    const struct list_node *head, *tail;
    uint64_t count, nodes;
};

/* The part of a skiplist's node that a walk along its lowest level reads. */
struct skip_node {
    const uint8_t *element;
    double score;
    const struct skip_node *backward, *forward;
};

struct skiplist {
    const struct skip_node *header, *tail;
    uint64_t length;
    int32_t level;
};

struct zset {
    const struct dict *dict;
    const struct skiplist *list;
};

struct score_range {
    double least, most;
    int least_excluded, most_excluded;
};

struct database {
    const struct dict *keys;
};

struct client {
    uint64_t id, flags;
    void *connection;
    int32_t protocol;
    const struct database *database;
    void *name;
    const uint8_t *query; /* what was received, as an sds */
    uint64_t query_at;    /* how far that has been parsed */
    uint64_t query_peak;
    int32_t argc;
    const struct object *const *argv;
};
_Static_assert(offsetof(struct client, query_at) == 0x38, "client of Redis 7.0");
_Static_assert(offsetof(struct client, argc) == 0x48, "client of Redis 7.0");

#define TEXT_HEADER_MAX 17u        /* bytes before an sds's text ... */
#define TEXT_HEADER     5u         /* ... of one that is shorter than 64 KiB */
#define TEXT_MAX_BYTES  (8u << 20) /* more than that is left to the prefetcher */
#define TABLE_EXP_MAX   40

/* A string with a text of its own; others hold a number in place of the pointer. */
static inline bool object_has_text(const struct object *object)
{
    return object->type == TYPE_STRING &&
           (object->encoding == ENCODING_RAW || object->encoding == ENCODING_EMBEDDED);
}

/* Could this be an object of the program's? Sieves out what would fault for sure. */
static inline bool sane(const void *pointer)
{
    uintptr_t address = (uintptr_t)pointer;
    return address >= 4096 && address < 1ULL << 47;
}

static inline bool sane_link(const void *pointer)
{
    return sane(pointer) && (uintptr_t)pointer % 8 == 0;
}

static inline bool dict_sane(const struct dict *dict)
{
    for (unsigned i = 0; i < 2; i++)
        if (dict->exponent[i] > TABLE_EXP_MAX ||
            (dict->exponent[i] >= 0 && !sane_link(dict->table[i])))
            return false;
    return true;
}

static inline uint64_t table_size(const struct dict *dict, unsigned table)
{
    return dict->exponent[table] < 0 ? 0 : 1ULL << dict->exponent[table];
}

/* Tables to look into: the second one is filled while the first is emptied. */
static inline unsigned dict_tables(const struct dict *dict)
{
    return dict->rehash_index >= 0 && dict->exponent[1] >= 0 ? 2 : 1;
}

/* The length in the header that ends at the text; 0: unknown, or shorter than 32 bytes. */
static inline uint64_t text_bytes(const uint8_t *text)
{
    /* len, alloc, flags: the kind in the low three bits of the flags is the lengths' width. */
    unsigned kind = text[-1] & 7, width = kind ? 1u << (kind - 1) : 0;
    uint64_t length = 0;
    if (kind > 4 || width == 0)
        return 0;
    __builtin_memcpy(&length, text - 1 - 2 * (size_t)width, width);
    return length;
}

#endif
