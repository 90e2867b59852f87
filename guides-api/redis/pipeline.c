/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pipelines: a client sent several requests at once, and the program will run them one by one. The
 * keys of those that come next are looked up for all of them together, stage by stage: each stage
 * names what the next one touches (bucket, entry, key and object, value), so that the lookups of
 * many keys wait for far memory together and not one after the other.
 *
 * States of what is known of a client's query buffer:
 *
 *   from     to       when
 *   any      FRESH    something was received: processInputBuffer is entered
 *   any      FRESH    another buffer of this client, or a place outside of what was parsed
 *   FRESH    AHEAD    requests were parsed, `count` of them not yet run; ends[] says where they end
 *   AHEAD    AHEAD    a command runs: those that lie before it are taken off; once half of the
 *                     window is free it is filled again
 *   any      same     a command of another client runs: a script's, whose requests come from none
 *
 * Of the buffer only offsets are kept, and they are used for nothing but to find out where to go
 * on.
 */
#include "internal.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#define WINDOW        64u        /* requests looked ahead at most ... */
#define WINDOW_LEAST  2u         /* ... and at least */
#define WINDOW_BYTES  (2u << 20) /* named for them, or so: it has to fit --local beside the rest */
#define LOOKUPS       128u       /* keys at a time */
#define LOOKUP_PAGES  4096u
#define CHAIN_MAX     16u /* entries in one bucket that are looked at */
#define TABLE_BYTES   (64u << 10)
#define TEXTS         256u /* places of a hash of texts that were named; a collision costs a hint */
#define CONTAINER_MAX 64u  /* bytes of what an object that is not a string leads to */
#define KEY_MAX       512u /* bytes: hashing all of a longer key may take long */

static struct {
    const struct client *client;
    const uint8_t *query;
    uint64_t parsed;       /* offset where the next request starts */
    uint64_t ends[WINDOW]; /* offsets of the ends of those not yet run, from `first` on */
    unsigned first, count;
    uint64_t request_bytes; /* named for one request, on average */
} state;

struct lookup {
    const uint8_t *text;
    size_t bytes;
    uint64_t hash;
    enum request_reads reads;
    const struct entry *entry[2];
    const struct object *object;
};

static const void *named_text[TEXTS]; /* to be compared, not followed */

static uint64_t (*hash_of)(const void *text, size_t bytes); /* dictGenHashFunction: pure */
static struct links links = {.credit = LINKS_CREDIT};

int pipeline_open(void)
{
    *(void **)&hash_of = dlsym(RTLD_DEFAULT, "dictGenHashFunction");
    return hash_of ? 0 : -ENOENT;
}

/* ---- looking keys up ---- */

static const struct entry *const *bucket_of(const struct dict *dict, unsigned table, uint64_t hash)
{
    return &dict->table[table][hash & (table_size(dict, table) - 1)];
}

/*
 * Each stage leaves when it is late, at whatever key: entries and objects that were not found are
 * NULL, and the stages behind it do nothing with those.
 */
static void stage_buckets(const struct dict *dict, struct lookup *lookup, unsigned count)
{
    for (unsigned i = 0; i < count && !pages_late(); i++) {
        lookup[i].hash = hash_of(lookup[i].text, lookup[i].bytes);
        for (unsigned table = 0; table < dict_tables(dict); table++)
            links_name(&links, bucket_of(dict, table, lookup[i].hash), sizeof(void *));
    }
}

static void stage_entries(const struct dict *dict, struct lookup *lookup, unsigned count)
{
    for (unsigned i = 0; i < count && !pages_late(); i++)
        for (unsigned table = 0; table < dict_tables(dict); table++) {
            const struct entry *const *bucket = bucket_of(dict, table, lookup[i].hash);
            links_touch(&links, bucket);
            lookup[i].entry[table] = *bucket;
            if (sane_link(*bucket))
                links_name(&links, *bucket, sizeof(**bucket));
        }
}

/* The head of each bucket: the key that is compared, and the object that it most likely is. */
static void stage_heads(struct lookup *lookup, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        for (unsigned table = 0; table < 2; table++) {
            const struct entry *entry = lookup[i].entry[table];
            if (!sane_link(entry))
                continue;
            if (!links_touch(&links, entry))
                return;
            if (links.credit) {
                text_name(entry->key);
                links_name(&links, entry->value, sizeof(struct object));
                links_name(&links, entry->next, sizeof(*entry));
            }
        }
}

static bool key_is(const uint8_t *key, const struct lookup *lookup)
{
    if (!sane(key))
        return false;
    links_touch(&links, key - 1);
    uint64_t bytes = (key[-1] & 7) == 0 ? key[-1] >> 3 : text_bytes(key);
    return bytes == lookup->bytes && memcmp(key, lookup->text, bytes) == 0;
}

/* The object behind a key in one bucket, or NULL. */
static const struct object *bucket_find(const struct entry *entry, const struct lookup *lookup)
{
    for (unsigned i = 0; i < CHAIN_MAX && sane_link(entry) && !pages_late(); i++) {
        if (key_is(entry->key, lookup))
            return sane_link(entry->value) ? entry->value : NULL;
        entry = entry->next;
    }
    return NULL;
}

static void stage_objects(struct lookup *lookup, unsigned count)
{
    for (unsigned i = 0; i < count && !pages_late(); i++) {
        for (unsigned table = 0; table < 2 && !lookup[i].object; table++)
            lookup[i].object = bucket_find(lookup[i].entry[table], &lookup[i]);
        if (lookup[i].object)
            links_name(&links, lookup[i].object, sizeof(struct object));
    }
}

static void stage_values(struct lookup *lookup, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const struct object *object = lookup[i].object;
        if (!object)
            continue;
        if (!links_touch(&links, object))
            return;
        if (object->type == TYPE_STRING && object->encoding == ENCODING_RAW)
            text_name(object->value);
        else if (object->type != TYPE_STRING)
            pages_name(object->value, CONTAINER_MAX);
    }
}

static const void **text_place(const void *text)
{
    return &named_text[((uintptr_t)text >> 4 ^ (uintptr_t)text >> 12) % TEXTS];
}

bool pipeline_named(const void *text)
{
    const void **place = text_place(text);
    bool named = *place == text;
    *place = NULL;
    return named;
}

/* What the hook of a command that walks `object` begins with. */
static void container_name(const struct object *object)
{
    const struct zset *zset = object->value;
    const struct list *list = object->value;
    if (object->encoding == ENCODING_HT) {
        const struct dict *dict = object->value;
        if (dict_sane(dict) && table_size(dict, 0) * sizeof(void *) <= TABLE_BYTES)
            pages_name(dict->table[0], table_size(dict, 0) * sizeof(void *));
    } else if (object->encoding == ENCODING_SKIPLIST) {
        pages_name(zset->list, sizeof(*zset->list));
    } else if (object->encoding == ENCODING_QUICKLIST) {
        pages_name(list->head, sizeof(*list->head));
        pages_name(list->tail, sizeof(*list->tail));
    } else {
        block_name(object);
    }
}

static void stage_texts(struct lookup *lookup, unsigned count)
{
    for (unsigned i = 0; i < count && pages_left() && !pages_late(); i++) {
        const struct object *object = lookup[i].object;
        if (!object || lookup[i].reads != READS_ALL || !sane(object->value))
            continue;
        if (object->type != TYPE_STRING) {
            container_name(object);
        } else if (object->encoding == ENCODING_RAW) {
            text_name_rest(object->value);
            *text_place(object->value) = pages_left() ? object->value : NULL;
        }
    }
}

static void keys_look_up(const struct dict *dict, struct lookup *lookup, unsigned count)
{
    links_begin(&links);
    stage_buckets(dict, lookup, count);
    stage_entries(dict, lookup, count);
    stage_heads(lookup, count);
    stage_objects(lookup, count);
    stage_values(lookup, count);
    stage_texts(lookup, count);
}

/* ---- what of the buffer was parsed ---- */

static void state_advance(const struct client *client, bool fresh)
{
    uint64_t at = client->query_at;
    if (fresh || state.query != client->query || at > state.parsed) {
        state.client = client;
        state.query = client->query;
        state.parsed = at;
        state.first = state.count = 0;
    }
    while (state.count && state.ends[state.first] <= at) {
        state.first = (state.first + 1) % WINDOW;
        state.count--;
    }
}

/* Parses on until the window or the buffer ends. Returns how many keys there are to look up. */
static unsigned requests_take(unsigned window, uint64_t bytes, struct lookup *lookup)
{
    static struct request request;
    unsigned keys = 0;
    while (state.count < window && keys + REQUEST_KEYS <= LOOKUPS && !pages_late()) {
        size_t length = request_parse(state.query + state.parsed, bytes - state.parsed, &request);
        if (length == 0)
            break;
        state.parsed += length;
        state.ends[(state.first + state.count++) % WINDOW] = state.parsed;
        for (unsigned i = 0; i < request.keys; i++)
            if (request.key[i].bytes <= KEY_MAX)
                lookup[keys++] = (struct lookup){.text = request.key[i].text,
                                                 .bytes = request.key[i].bytes,
                                                 .reads = request.reads};
    }
    return keys;
}

static unsigned window_now(void)
{
    uint64_t window = WINDOW_BYTES / (state.request_bytes + 1);
    return window > WINDOW ? WINDOW : window < WINDOW_LEAST ? WINDOW_LEAST : (unsigned)window;
}

void pipeline_look(const struct client *client, bool fresh)
{
    static struct lookup lookup[LOOKUPS];
    if (!sane(client->query) || (!fresh && state.client != client))
        return;
    uint64_t bytes = text_bytes(client->query);
    state_advance(client, fresh);
    unsigned window = window_now(), before = state.count;
    if (before > window / 2 || state.parsed >= bytes)
        return;
    pages_begin(LOOKUP_PAGES);
    unsigned keys = requests_take(window, bytes, lookup);
    const struct dict *dict = keyspace_of(client);
    /* A request that is alone is looked up by the program in no more time. */
    if (keys < 2 || !dict || table_size(dict, 0) == 0)
        return;
    keys_look_up(dict, lookup, keys);
    uint64_t named = (uint64_t)(LOOKUP_PAGES - pages_left()) * 4096 / (state.count - before);
    state.request_bytes = (state.request_bytes * 3 + named) / 4;
}
