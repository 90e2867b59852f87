/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hash tables: hashes, sets, and sorted sets when they are scanned. The table says where entries
 * lie, an entry where key and value do. So entries are named a batch ahead, touched when they have
 * had time to come, and then what they lead to is named.
 */
#include "internal.h"

#define BATCH       128u
#define BATCH_HEADS 96u /* the rest is for entries behind others in their bucket */
#define LONG_BYTES  512u
#define TABLE_BYTES (1u << 20) /* of a table, named at once */

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

static void table_name(const struct dict *dict, unsigned table)
{
    uint64_t bytes = table_size(dict, table) * sizeof(void *);
    pages_name(dict->table[table], bytes < TABLE_BYTES ? bytes : TABLE_BYTES);
}

/* Texts that reach beyond what text_name named; asked of one, as those of a table are alike. */
static void batch_name_long(const struct batch *batch, unsigned what)
{
    const uint8_t *first = batch->entry[0]->value;
    if (!(what & NAME_VALUES))
        first = batch->entry[0]->key;
    if (text_name_rest(first) < LONG_BYTES)
        return;
    for (unsigned i = 1; i < batch->count; i++)
        text_name_rest(what & NAME_VALUES ? batch->entry[i]->value : batch->entry[i]->key);
}

/* What one entry leads to. false: no more pages may be named. */
static bool entry_name(const struct entry *entry, unsigned what)
{
    bool more = true;
    links_touch(&links, entry);
    if (what & NAME_KEYS)
        more = text_name(entry->key);
    if (what & NAME_VALUES)
        more = text_name(entry->value);
    if (what & NAME_SCORES)
        more = pages_name(entry->value, sizeof(double));
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

/* The next buckets of all of both tables. */
static void batch_fill(struct batch *batch, const struct dict *dict, unsigned *table,
                       uint64_t *bucket)
{
    batch->count = 0;
    while (*table < dict_tables(dict) && batch->count < BATCH_HEADS) {
        if (*bucket == table_size(dict, *table)) {
            ++*table;
            *bucket = 0;
        } else {
            batch_add(batch, dict->table[*table][(*bucket)++]);
        }
    }
}

void dict_name(const struct dict *dict, unsigned what)
{
    struct batch batches[2], *now = &batches[0], *next = &batches[1];
    unsigned table = 0;
    uint64_t bucket = 0;
    if (!sane_link(dict) || !dict_sane(dict))
        return;
    links_begin(&links);
    for (unsigned i = 0; i < dict_tables(dict); i++)
        table_name(dict, i);
    batch_fill(now, dict, &table, &bucket);
    while (now->count) {
        batch_fill(next, dict, &table, &bucket);
        if (!batch_name(now, what) || pages_late())
            return;
        struct batch *done = now;
        now = next;
        next = done;
    }
}

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

/* What one dictScan visits: a bucket of the smaller table, and those it becomes in the larger. */
static uint64_t batch_scan(struct batch *batch, const struct dict *dict, uint64_t cursor)
{
    unsigned small = 0, large = 1;
    if (dict_tables(dict) == 1) {
        uint64_t mask = table_size(dict, 0) - 1;
        batch_add(batch, dict->table[0][cursor & mask]);
        return cursor_next(cursor, mask);
    }
    if (dict->exponent[0] > dict->exponent[1]) {
        small = 1;
        large = 0;
    }
    uint64_t mask = table_size(dict, small) - 1, wide = table_size(dict, large) - 1;
    batch_add(batch, dict->table[small][cursor & mask]);
    do {
        batch_add(batch, dict->table[large][cursor & wide]);
        cursor = cursor_next(cursor, wide);
    } while (cursor & (mask ^ wide));
    return cursor;
}

void dict_name_scan(const struct dict *dict, uint64_t cursor, uint64_t count, unsigned what)
{
    struct batch batch;
    bool more = true;
    if (!sane_link(dict) || !dict_sane(dict) || table_size(dict, 0) == 0)
        return;
    links_begin(&links);
    for (uint64_t visits = count * 10, found = 0; more && found < count && visits > 0;) {
        batch.count = 0;
        while (batch.count < BATCH_HEADS && found + batch.count < count && visits-- > 0) {
            cursor = batch_scan(&batch, dict, cursor);
            if (cursor == 0)
                break;
        }
        more = batch_name(&batch, what) && cursor != 0 && !pages_late();
        found += batch.count;
    }
}
