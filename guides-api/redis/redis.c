/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guide for redis-server 7.0, as distributions build it: the program exports its functions for
 * its modules' sake, so that they can be hooked though it is stripped. The program is not changed.
 *
 *   addReplyBulk(client, object)          GET and others: a long string is about to be copied out
 *   addListRangeReply(client, object, start, end, reverse)   LRANGE: a quicklist will be walked
 *   genericHgetallCommand, hashTypeInitIterator   HGETALL, HKEYS, HVALS: all of a hash
 *   setTypeInitIterator(object)           SMEMBERS, SUNION, SDIFF and others: all of a set
 *   scanGenericCommand(client, object, cursor)    HSCAN, SSCAN, ZSCAN: some buckets
 *   genericZrangeby{rank,score,lex}Command        ZRANGE and kin: a skiplist will be walked
 *   processInputBuffer(client), call(client, flags)   requests that wait behind one another
 *
 * The guide looks at what the program itself touches next (a table, a string's header, the nodes up
 * to the range's end), so that looking costs no fetch of its own, names the pages that the reply
 * will be made of, many at once, and calls the function.
 *
 * Nothing is written, and no pointer outlives the hook that found it. What is read is checked where
 * a wrong value could lead astray; a bad pointer nevertheless switches the guide off with one
 * warning.
 */
#include "internal.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define WALK_PAGES 4096u /* named for one command at most: 16 MiB */
#define SCAN_COUNT 10u   /* without COUNT */
#define SCAN_MAX   1000u
#define PAGE_BYTES 4096u

typedef void range_rank_fn(void *handler, struct object *object, long start, long end, int scores,
                           int reverse);
typedef void range_score_fn(void *handler, const struct score_range *range, struct object *object,
                            long offset, long limit, int reverse);
typedef void range_lex_fn(void *handler, void *range, struct object *object, int scores,
                          long offset, long limit, int reverse);
typedef const struct skip_node *find_fn(const struct skiplist *list, const void *range);

static void (*original_bulk)(void *client, struct object *object);
static void (*original_range)(void *client, struct object *object, long start, long end,
                              int reverse);
static void (*original_hgetall)(void *client, int what);
static void *(*original_hash)(struct object *object);
static void *(*original_set)(struct object *object);
static void (*original_scan)(struct client *client, struct object *object, unsigned long cursor);
static range_rank_fn *original_rank;
static range_score_fn *original_score;
static range_lex_fn *original_lex;
static void (*original_input)(struct client *client);
static void (*original_call)(struct client *client, int flags);

/* The program's own, which only read: where a range starts. */
static const struct skip_node *(*node_by_rank)(const struct skiplist *list, unsigned long rank);
static find_fn *first_in_score, *last_in_score, *first_in_lex, *last_in_lex;

static pthread_t main_thread;
static bool native;
static unsigned hash_what = NAME_KEYS | NAME_VALUES; /* of the HGETALL under way */

/* Its structures are the main thread's; and there must be somebody to listen. */
static bool active(void)
{
    if (!pthread_equal(pthread_self(), main_thread) || !(native || guide_is_far()))
        return false;
    pages_begin(WALK_PAGES);
    return true;
}

static bool is(const struct object *object, unsigned type, unsigned encoding)
{
    return sane_link(object) && object->type == type && object->encoding == encoding &&
           sane(object->value);
}

static void guided_bulk(void *client, struct object *object)
{
    if (is(object, TYPE_STRING, ENCODING_RAW) && active() && !pipeline_named(object->value)) {
        uint64_t bytes = text_bytes(object->value);
        if (bytes >= PAGE_BYTES)
            pages_name(object->value, bytes);
    }
    original_bulk(client, object);
}

/* ---- lists ---- */

/* Indices as the commands have them, negative ones from the end. false: nothing is in the range. */
static bool indices_clip(long *start, long *end, uint64_t length)
{
    long count = (long)length;
    *start = *start < 0 ? *start + count : *start;
    *end = *end < 0 ? *end + count : *end;
    *start = *start < 0 ? 0 : *start;
    *end = *end >= count ? count - 1 : *end;
    return *start <= *end;
}

static void guided_range(void *client, struct object *object, long start, long end, int reverse)
{
    long from = start, to = end;
    const struct list *list;
    if (is(object, TYPE_LIST, ENCODING_QUICKLIST) && (list = object->value)->nodes > 1 &&
        active() && indices_clip(&from, &to, list->count)) {
        long count = (long)list->count;
        /* From the nearer end, as the program finds its first element. */
        if (from <= count - 1 - to)
            list_name(list, (uint64_t)from, (uint64_t)to, false);
        else
            list_name(list, (uint64_t)(count - 1 - to), (uint64_t)(count - 1 - from), true);
    }
    original_range(client, object, start, end, reverse);
}

/* ---- hashes and sets ---- */

static void guided_hgetall(void *client, int what)
{
    hash_what = (unsigned)what & (NAME_KEYS | NAME_VALUES);
    original_hgetall(client, what);
    hash_what = NAME_KEYS | NAME_VALUES;
}

static void *guided_hash(struct object *object)
{
    if (is(object, TYPE_HASH, ENCODING_HT) && active())
        dict_name(object->value, hash_what);
    else if (is(object, TYPE_HASH, ENCODING_LISTPACK) && active())
        block_name(object);
    return original_hash(object);
}

static void *guided_set(struct object *object)
{
    if (is(object, TYPE_SET, ENCODING_HT) && active())
        dict_name(object->value, NAME_KEYS);
    else if (sane_link(object) && object->type == TYPE_SET && active())
        block_name(object);
    return original_set(object);
}

/* The number behind COUNT, in the arguments behind the cursor. */
static uint64_t scan_count(const struct client *client)
{
    for (int i = 3; i + 1 < client->argc; i++) {
        const char *word = client->argv[i]->value;
        if (strcasecmp(word, "count") == 0) {
            uint64_t count = strtoull(client->argv[i + 1]->value, NULL, 10);
            return count < SCAN_MAX ? count : SCAN_MAX;
        }
    }
    return SCAN_COUNT;
}

static void guided_scan(struct client *client, struct object *object, unsigned long cursor)
{
    if (is(object, TYPE_HASH, ENCODING_HT) && active()) /* a key and a value count two */
        dict_name_scan(object->value, cursor, (scan_count(client) + 1) / 2,
                       NAME_KEYS | NAME_VALUES);
    else if (is(object, TYPE_SET, ENCODING_HT) && active())
        dict_name_scan(object->value, cursor, scan_count(client), NAME_KEYS);
    else if (is(object, TYPE_ZSET, ENCODING_SKIPLIST) && active())
        dict_name_scan(((const struct zset *)object->value)->dict, cursor,
                       (scan_count(client) + 1) / 2, NAME_KEYS | NAME_SCORES);
    else if (sane_link(object) && active())
        block_name(object);
    original_scan(client, object, cursor);
}

/* ---- sorted sets ---- */

/* The skiplist of a sorted set; of one in a block, which is named, NULL. */
static const struct skiplist *skiplist_of(const struct object *object)
{
    if (is(object, TYPE_ZSET, ENCODING_LISTPACK) && active())
        block_name(object);
    if (!is(object, TYPE_ZSET, ENCODING_SKIPLIST) || !active())
        return NULL;
    const struct skiplist *list = ((const struct zset *)object->value)->list;
    return sane_link(list) ? list : NULL;
}

static void guided_rank(void *handler, struct object *object, long start, long end, int scores,
                        int reverse)
{
    const struct skiplist *list = skiplist_of(object);
    long from = start, to = end;
    if (list && indices_clip(&from, &to, list->length)) {
        unsigned long rank = (unsigned long)from + 1;
        if (reverse)
            rank = list->length - (unsigned long)from;
        skiplist_name(node_by_rank(list, rank), reverse, 0, (uint64_t)(to - from) + 1, NULL);
    }
    original_rank(handler, object, start, end, scores, reverse);
}

/* OFFSET and COUNT as the commands have them: a negative count is none. */
static void limit_name(const struct skip_node *node, long offset, long limit, int reverse,
                       const struct score_range *range)
{
    if (sane_link(node) && offset >= 0)
        skiplist_name(node, reverse, (uint64_t)offset, limit < 0 ? UINT64_MAX : (uint64_t)limit,
                      range);
}

static void guided_score(void *handler, const struct score_range *range, struct object *object,
                         long offset, long limit, int reverse)
{
    const struct skiplist *list = skiplist_of(object);
    if (list)
        limit_name((reverse ? last_in_score : first_in_score)(list, range), offset, limit, reverse,
                   range);
    original_score(handler, range, object, offset, limit, reverse);
}

/* Where a range of words ends is not to be seen in a node: without a limit nothing is named. */
static void guided_lex(void *handler, void *range, struct object *object, int scores, long offset,
                       long limit, int reverse)
{
    const struct skiplist *list = skiplist_of(object);
    if (list && limit > 0)
        limit_name((reverse ? last_in_lex : first_in_lex)(list, range), offset, limit, reverse,
                   NULL);
    original_lex(handler, range, object, scores, offset, limit, reverse);
}

/* ---- pipelines ---- */

static void guided_input(struct client *client)
{
    if (active())
        pipeline_look(client, true);
    original_input(client);
}

static void guided_call(struct client *client, int flags)
{
    if (active())
        pipeline_look(client, false);
    original_call(client, flags);
}

/* ---- start ---- */

static const struct {
    const char *symbol;
    void *replacement;
    void **original;
} hooks[] = {
    {"addReplyBulk", (void *)guided_bulk, (void **)&original_bulk},
    {"addListRangeReply", (void *)guided_range, (void **)&original_range},
    {"genericHgetallCommand", (void *)guided_hgetall, (void **)&original_hgetall},
    {"hashTypeInitIterator", (void *)guided_hash, (void **)&original_hash},
    {"setTypeInitIterator", (void *)guided_set, (void **)&original_set},
    {"scanGenericCommand", (void *)guided_scan, (void **)&original_scan},
    {"genericZrangebyrankCommand", (void *)guided_rank, (void **)&original_rank},
    {"genericZrangebyscoreCommand", (void *)guided_score, (void **)&original_score},
    {"genericZrangebylexCommand", (void *)guided_lex, (void **)&original_lex},
    {"processInputBuffer", (void *)guided_input, (void **)&original_input},
    {"call", (void *)guided_call, (void **)&original_call},
};

static const struct {
    const char *symbol;
    void **function;
} functions[] = {
    {"zslGetElementByRank", (void **)&node_by_rank}, {"zslFirstInRange", (void **)&first_in_score},
    {"zslLastInRange", (void **)&last_in_score},     {"zslFirstInLexRange", (void **)&first_in_lex},
    {"zslLastInLexRange", (void **)&last_in_lex},
};

/* 0: this is the program whose structures we know. */
static int program_check(void)
{
    int (*version_of)(void);
    *(void **)&version_of = dlsym(RTLD_DEFAULT, "RM_GetServerVersion");
    if (!version_of) {
        fprintf(stderr, "redis guide: this is not redis-server 7.0: nothing is looked ahead\n");
        return -1;
    }
    unsigned version = (unsigned)version_of();
    if (version >> 8 == REDIS_VERSION)
        return 0;
    fprintf(stderr,
            "redis guide: this is redis-server %u.%u.%u, not 7.0: nothing is looked ahead\n",
            version >> 16, version >> 8 & 255, version & 255);
    return -1;
}

static int start(void)
{
    int error = 0;
    if (program_check())
        return 0;
    for (size_t i = 0; i < sizeof(functions) / sizeof(*functions); i++)
        if (!(*functions[i].function = dlsym(RTLD_DEFAULT, functions[i].symbol)))
            error = -1;
    if (error || pipeline_open()) {
        fprintf(stderr,
                "redis guide: functions of the program are missing: nothing is looked ahead\n");
        return 0;
    }
    main_thread = pthread_self();
    native = !guide_is_far();
    chains_open();
    for (size_t i = 0; i < sizeof(hooks) / sizeof(*hooks); i++) {
        error = guide_hook(hooks[i].symbol, hooks[i].replacement, hooks[i].original);
        if (error)
            fprintf(stderr, "redis guide: %s cannot be hooked (error %d)\n", hooks[i].symbol,
                    -error);
    }
    return 0;
}

GUIDE("redis", start)
