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
 * Signatures are those of Redis 7.0: src/networking.c, t_list.c, t_hash.c, t_set.c, t_zset.c, db.c,
 * server.c. Hooks nest: call() is hooked around those that a command calls.
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

#define WALK_PAGES   4096u /* named in one look at most: 16 MiB */
#define SCAN_COUNT   10u   /* without COUNT */
#define SCAN_MAX     4096u
#define SCAN_OPTIONS 3 /* the first option, behind the command, the key and the cursor */
#define PAGE_BYTES   4096u

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
static int (*original_input)(struct client *client);
static void (*original_call)(struct client *client, int flags);

/* The program's own, which only read: where a range starts. */
static const struct skip_node *(*node_by_rank)(const struct skiplist *list, unsigned long rank);
static find_fn *first_in_score, *last_in_score, *first_in_lex, *last_in_lex;

static pthread_t main_thread;
static bool native;
static enum { LAYOUT_UNSEEN, LAYOUT_KNOWN, LAYOUT_OTHER } layout;
static unsigned hash_what = NAME_KEYS | NAME_VALUES; /* of the HGETALL under way */
static bool set_in_part; /* the command under way may end before it has walked a set */

/* Its structures are the main thread's; and there must be somebody to listen. */
static bool listened(void)
{
    return pthread_equal(pthread_self(), main_thread) && (native || guide_is_far());
}

/* May this hook look ahead? Then a look begins. */
static bool look(void)
{
    if (!listened() || layout != LAYOUT_KNOWN)
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
    if (is(object, TYPE_STRING, ENCODING_RAW) && look() && !pipeline_named(object->value)) {
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
    if (is(object, TYPE_LIST, ENCODING_QUICKLIST) && (list = object->value)->nodes > 1 && look() &&
        indices_clip(&from, &to, list->count)) {
        long last = (long)list->count - 1;
        /* From the end that the program seeks its first element from. */
        if ((reverse ? to : from) <= last / 2)
            list_name(list, (uint64_t)from, (uint64_t)to, false);
        else
            list_name(list, (uint64_t)(last - to), (uint64_t)(last - from), true);
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
    if (sane_link(object) && object->type == TYPE_HASH && look()) {
        if (object->encoding == ENCODING_HT)
            dict_name(object->value, hash_what);
        else
            block_name(object);
    }
    return original_hash(object);
}

static void *guided_set(struct object *object)
{
    if (sane_link(object) && object->type == TYPE_SET && !set_in_part && look()) {
        if (object->encoding == ENCODING_HT)
            dict_name(object->value, NAME_KEYS);
        else
            block_name(object);
    }
    return original_set(object);
}

/* A word of a command's; NULL where it is not a text. */
static const char *argument(const struct client *client, int number)
{
    if (number < 0 || number >= client->argc)
        return NULL;
    const struct object *word = client->argv[number];
    return sane_link(word) && object_has_text(word) && sane(word->value) ? word->value : NULL;
}

static bool argument_is(const struct client *client, int number, const char *name)
{
    const char *word = argument(client, number);
    return word && strcasecmp(word, name) == 0;
}

/* The number behind COUNT; options come in pairs, and the last one counts. */
static uint64_t scan_count(const struct client *client)
{
    uint64_t count = SCAN_COUNT;
    for (int i = SCAN_OPTIONS; i + 1 < client->argc; i += 2) {
        const char *number = argument_is(client, i, "count") ? argument(client, i + 1) : NULL;
        long wanted = number ? strtol(number, NULL, 10) : 0;
        if (number)
            count = wanted < 0 ? 0 : (uint64_t)wanted;
    }
    return count < SCAN_MAX ? count : SCAN_MAX;
}

/*
 * Elements that come in pairs count two, and twice as many are asked for: so COUNT says how many
 * elements there are in any case. The bound of ten calls of dictScan each becomes twenty.
 */
static void guided_scan(struct client *client, struct object *object, unsigned long cursor)
{
    if (sane_link(object) && look()) {
        uint64_t count = scan_count(client), visits = 10 * count + 1;
        if (is(object, TYPE_HASH, ENCODING_HT))
            dict_name_scan(object->value, cursor, count, 2 * visits, NAME_KEYS | NAME_VALUES);
        else if (is(object, TYPE_SET, ENCODING_HT))
            dict_name_scan(object->value, cursor, count, visits, NAME_KEYS);
        else if (is(object, TYPE_ZSET, ENCODING_SKIPLIST))
            dict_name_scan(((const struct zset *)object->value)->dict, cursor, count, 2 * visits,
                           NAME_KEYS | NAME_SCORES);
        else
            block_name(object);
    }
    original_scan(client, object, cursor);
}

/* ---- sorted sets ---- */

/* A look begins. The skiplist of a sorted set; of one in a block, which is named, NULL. */
static const struct skiplist *look_at_skiplist(const struct object *object)
{
    if (!sane_link(object) || object->type != TYPE_ZSET || !look())
        return NULL;
    block_name(object);
    if (!is(object, TYPE_ZSET, ENCODING_SKIPLIST))
        return NULL;
    const struct skiplist *list = ((const struct zset *)object->value)->list;
    return sane_link(list) && sane_link(list->header) ? list : NULL;
}

/* Where the program begins; the ends it finds without a search, and so is it done here. */
static const struct skip_node *rank_start(const struct skiplist *list, long from, bool reverse)
{
    if (from == 0)
        return reverse ? list->tail : list->header->forward;
    return node_by_rank(list, reverse ? list->length - (uint64_t)from : (uint64_t)from + 1);
}

static void guided_rank(void *handler, struct object *object, long start, long end, int scores,
                        int reverse)
{
    const struct skiplist *list = look_at_skiplist(object);
    long from = start, to = end;
    if (list && indices_clip(&from, &to, list->length))
        skiplist_name(rank_start(list, from, reverse), reverse, 0, (uint64_t)(to - from) + 1, NULL);
    original_rank(handler, object, start, end, scores, reverse);
}

/* OFFSET and COUNT as the commands have them: a negative count is none. */
static void limit_name(const struct skip_node *node, long offset, long limit, int reverse,
                       const struct score_range *range)
{
    skiplist_name(node, reverse, (uint64_t)offset, limit < 0 ? UINT64_MAX : (uint64_t)limit, range);
}

/* Nothing is searched for that the program would not search for. */
static bool offset_within(const struct skiplist *list, long offset)
{
    return list && offset >= 0 && (uint64_t)offset < list->length;
}

static void guided_score(void *handler, const struct score_range *range, struct object *object,
                         long offset, long limit, int reverse)
{
    const struct skiplist *list = look_at_skiplist(object);
    if (offset_within(list, offset))
        limit_name((reverse ? last_in_score : first_in_score)(list, range), offset, limit, reverse,
                   range);
    original_score(handler, range, object, offset, limit, reverse);
}

/* Where a range of words ends is not to be seen in a node: without a limit nothing is named. */
static void guided_lex(void *handler, void *range, struct object *object, int scores, long offset,
                       long limit, int reverse)
{
    const struct skiplist *list = look_at_skiplist(object);
    if (limit > 0 && offset_within(list, offset))
        limit_name((reverse ? last_in_lex : first_in_lex)(list, range), offset, limit, reverse,
                   NULL);
    original_lex(handler, range, object, scores, offset, limit, reverse);
}

/* ---- commands, and pipelines of them ---- */

/* The program is told apart from one that only says it is 7.0. */
static void layout_look(const struct client *client)
{
    layout = keyspace_known(client) ? LAYOUT_KNOWN : LAYOUT_OTHER;
    if (layout == LAYOUT_OTHER)
        fprintf(stderr,
                "redis guide: this redis-server 7.0 keeps its clients or databases in another way: "
                "nothing is looked ahead\n");
}

/* Returns what the program's does: whether the client is still there. */
static int guided_input(struct client *client)
{
    if (listened() && layout == LAYOUT_KNOWN)
        pipeline_look(client, true);
    return original_input(client);
}

/* SINTERCARD with LIMIT looks at as many members as it takes. */
static bool ends_early(const struct client *client)
{
    return argument_is(client, 0, "sintercard") && argument_is(client, client->argc - 2, "limit");
}

static void guided_call(struct client *client, int flags)
{
    bool outer = set_in_part; /* a command can run others: a script, MULTI */
    if (listened() && layout != LAYOUT_OTHER) {
        if (layout == LAYOUT_UNSEEN)
            layout_look(client);
        if (layout == LAYOUT_KNOWN) {
            pipeline_look(client, false);
            set_in_part = ends_early(client);
        }
    }
    original_call(client, flags);
    set_in_part = outer;
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
    if (error || keyspace_open() || pipeline_open()) {
        fprintf(stderr,
                "redis guide: functions of the program are missing: nothing is looked ahead\n");
        return 0;
    }
    main_thread = pthread_self();
    native = !guide_is_far();
    pages_open();
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
