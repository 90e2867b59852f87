/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hash tables: hashes, sets, and sorted sets when they are scanned. The table says where entries
 * lie, an entry where key and value do. So entries are named a batch ahead, touched when they have
 * had time to come, and then what they lead to is named.
 *
 * A table may be large and nearly empty, or one bucket may hold all: each loop asks whether the
 * look has lasted long enough.
 */
#include "internal.h"

#define BATCH       128u
#define BATCH_HEADS 96u /* the rest is for entries behind others in their bucket */
#define LONG_BYTES  512u
#define PAGE_HEADS  512u         /* heads of buckets in a page */
#define PART_HEADS  (128u << 10) /* ... in a part of a table, named at once: 1 MiB */

struct batch {
    const struct entry *entry[BATCH];
    unsigned count;
};

static struct links links = {.credit = LINKS_CREDIT};

static void batch_add(struct batch *batch, const struct entry *entry)
{
    if (!sane_link(entry) || batch->count == BATCH)
        return;
    links_name(&links, entry, sizeof(*entry));
    batch->entry[batch->count++] = entry;
}

/* ---- what entries lead to ---- */

/* Texts that reach beyond what text_name named; asked of one, as those of a table are alike. */
static void batch_name_long(const struct batch *batch, unsigned what)
{
    for (unsigned i = 0; i < batch->count && !pages_late(); i++) {
        const struct entry *entry = batch->entry[i];
        uint64_t bytes = text_name_rest(what & NAME_VALUES ? entry->value : entry->key);
        if (i == 0 && bytes < LONG_BYTES)
            return;
    }
}

/* What one entry leads to. false: no more pages may be named, or it is late. */
static bool entry_name(const struct entry *entry, unsigned what)
{
    bool more = links_touch(&links, entry);
    if (what & NAME_KEYS)
        more &= text_name(entry->key);
    if (what & NAME_VALUES)
        more &= text_name(entry->value);
    if (what & NAME_SCORES)
        more &= pages_name(entry->value, sizeof(double));
    return more;
}

/* Entries that are behind others go to the end of the batch, or at once if it is full. */
static bool batch_name(struct batch *batch, unsigned what)
{
    bool more = true;
    for (unsigned i = 0; i < batch->count && more; i++) {
        const struct entry *entry = batch->entry[i];
        do {
            more = entry_name(entry, what);
            entry = entry->next;
        } while (more && batch->count == BATCH && sane_link(entry));
        batch_add(batch, entry);
    }
    if (batch->count && more && !(what & NAME_SCORES))
        batch_name_long(batch, what);
    return more;
}

/* ---- all of a table ---- */

struct walk {
    const struct dict *dict;
    unsigned table;
    uint64_t bucket; /* the next one */
};

/* The heads of the part that `bucket` lies in; there may be none. */
static void part_name(const struct dict *dict, unsigned table, uint64_t bucket)
{
    uint64_t start = bucket / PART_HEADS * PART_HEADS, heads = table_size(dict, table);
    if (start >= heads)
        return;
    heads = heads - start < PART_HEADS ? heads - start : PART_HEADS;
    pages_name(&dict->table[table][start], heads * sizeof(void *));
}

/* What has moved to the other table is behind rehash_index. */
static struct walk walk_begin(const struct dict *dict)
{
    struct walk walk = {.dict = dict};
    if (dict_tables(dict) == 2) {
        walk.bucket = (uint64_t)dict->rehash_index;
        part_name(dict, 1, 0);
    }
    part_name(dict, 0, walk.bucket);
    part_name(dict, 0, walk.bucket + PART_HEADS);
    return walk;
}

/* The next buckets of both tables. An empty batch: that was all, or all that time allows. */
static void batch_fill(struct batch *batch, struct walk *walk)
{
    const struct dict *dict = walk->dict;
    batch->count = 0;
    while (walk->table < dict_tables(dict) && batch->count < BATCH_HEADS) {
        if (walk->bucket >= table_size(dict, walk->table)) {
            walk->table++;
            walk->bucket = 0;
            continue;
        }
        if (walk->bucket % PAGE_HEADS == 0 && (pages_late() || pages_left() == 0))
            return;
        if (walk->bucket % PART_HEADS == 0)
            part_name(dict, walk->table, walk->bucket + PART_HEADS);
        batch_add(batch, dict->table[walk->table][walk->bucket++]);
    }
}

void dict_name(const struct dict *dict, unsigned what)
{
    struct batch batches[2], *now = &batches[0], *next = &batches[1];
    if (!sane_link(dict) || !dict_sane(dict))
        return;
    links_begin(&links);
    struct walk walk = walk_begin(dict);
    batch_fill(now, &walk);
    while (now->count) {
        batch_fill(next, &walk);
        if (!batch_name(now, what))
            return;
        struct batch *done = now;
        now = next;
        next = done;
    }
}

/* ---- some buckets of a table, as dictScan visits them ---- */

/* A visit is a bucket of the smaller table, and then those that it becomes in the larger one. */
struct scan {
    const struct dict *dict;
    unsigned small, large; /* the same where there is one table */
    uint64_t cursor, visits;
    bool within; /* a visit: the bucket of the smaller table is behind */
    bool over;
};

static uint64_t bits_reversed(uint64_t bits)
{
    uint64_t reversed = 0;
    for (unsigned i = 0; i < 64; i++, bits >>= 1)
        reversed = reversed << 1 | (bits & 1);
    return reversed;
}

/* The cursor after this one: its bits within the mask count from the highest down. */
static uint64_t cursor_next(uint64_t cursor, uint64_t mask)
{
    return bits_reversed(bits_reversed(cursor | ~mask) + 1);
}

/* The next head. */
static const struct entry *const *scan_next(struct scan *scan)
{
    const struct dict *dict = scan->dict;
    uint64_t mask = table_size(dict, scan->small) - 1, wide = table_size(dict, scan->large) - 1;
    if (scan->small != scan->large && !scan->within) {
        scan->within = true;
        return &dict->table[scan->small][scan->cursor & mask];
    }
    const struct entry *const *head = &dict->table[scan->large][scan->cursor & wide];
    scan->cursor = cursor_next(scan->cursor, wide);
    if (!(scan->cursor & (mask ^ wide))) {
        scan->within = false;
        scan->over = scan->cursor == 0 || --scan->visits == 0;
    }
    return head;
}

/* Heads of a scan lie far apart: they are named before the first of them is touched. */
static void batch_scan(struct batch *batch, struct scan *scan, uint64_t wanted)
{
    const struct entry *const *head[BATCH_HEADS];
    unsigned heads = 0;
    for (; heads < BATCH_HEADS && !scan->over && (heads < wanted || scan->within); heads++) {
        head[heads] = scan_next(scan);
        links_name(&links, head[heads], sizeof(**head));
    }
    batch->count = 0;
    for (unsigned i = 0; i < heads && links_touch(&links, head[i]); i++)
        batch_add(batch, *head[i]);
}

void dict_name_scan(const struct dict *dict, uint64_t cursor, uint64_t count, uint64_t visits,
                    unsigned what)
{
    struct scan scan = {.dict = dict, .cursor = cursor, .visits = visits, .over = visits == 0};
    struct batch batch;
    if (!sane_link(dict) || !dict_sane(dict) || table_size(dict, 0) == 0)
        return;
    if (dict_tables(dict) == 2) {
        scan.small = dict->exponent[0] > dict->exponent[1];
        scan.large = !scan.small;
    }
    links_begin(&links);
    for (uint64_t found = 0; !scan.over && (found < count || scan.within); found += batch.count) {
        batch_scan(&batch, &scan, found < count ? count - found : 1);
        if (!batch_name(&batch, what) || pages_late())
            return;
    }
}
