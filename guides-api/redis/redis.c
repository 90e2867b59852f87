/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guide for redis-server 7.0, as distributions build it: the program exports its functions for
 * its modules' sake, so that they can be hooked though it is stripped. The program is not changed.
 *
 *   addReplyBulk(client, object)          GET and others: a long string is about to be copied out
 *   addListRangeReply(client, object, start, end, reverse)   LRANGE: a quicklist will be walked
 *
 * The guide looks at what the program itself touches next (a string's header, the nodes up to the
 * range's end), so that looking costs no fetch of its own, names the pages that the reply will be
 * made of, all at once, and calls the function. A list's nodes are small and mostly here, so they
 * are followed directly: a look through the channel (guide_read_chain) would wait for another
 * thread.
 *
 * Nothing is written. A layout other than the expected one makes wrong hints, or a bad pointer, at
 * which the guide is switched off with one warning.
 * Layouts: Redis 7.0, src/server.h (redisObject), src/sds.h, src/quicklist.h, 64-bit little-endian.
 */
#include <farvisor/guide.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define OBJECT_STRING    0u
#define OBJECT_LIST      1u
#define ENCODING_RAW     0u /* a string of its own; shorter ones lie beside their object */
#define ENCODING_QUICK   9u /* a list: quicklist */
#define PAGE_BYTES       4096u
#define STRING_MAX_BYTES (8u << 20) /* more than that is left to the prefetcher */

#define RANGE_NODES 4096u /* a longer walk outlives what was prefetched for it */

struct object {
    uint32_t type : 4, encoding : 4, lru : 24;
    int32_t references;
    const void *value;
};

struct list_node {
    const struct list_node *previous, *next;
    const void *entry;
    uint64_t bytes;
    uint32_t count : 16, encoding : 2, container : 2, other : 12;
    uint32_t padding;
};
_Static_assert(sizeof(struct list_node) == 40, "quicklistNode of Redis 7.0");

struct list {
    const struct list_node *head, *tail;
    uint64_t count, nodes;
};

static void (*original_bulk)(void *client, struct object *object);
static void (*original_range)(void *client, struct object *object, long start, long end,
                              int reverse);

/* The length in the header, which ends at the text; 0: not worth anything. */
static uint64_t string_bytes(const uint8_t *text)
{
    /* len, alloc, flags: the kind in the low three bits of the flags is the lengths' width. */
    unsigned kind = text[-1] & 7, width = kind ? 1u << (kind - 1) : 0;
    uint64_t length = 0;
    if (kind > 4 || width == 0)
        return 0;
    memcpy(&length, text - 1 - 2 * (size_t)width, width);
    return length;
}

static void guided_bulk(void *client, struct object *object)
{
    if (object && object->type == OBJECT_STRING && object->encoding == ENCODING_RAW) {
        const uint8_t *text = object->value;
        uint64_t bytes = string_bytes(text);
        if (bytes >= PAGE_BYTES && bytes <= STRING_MAX_BYTES)
            guide_prefetch(text, bytes);
    }
    original_bulk(client, object);
}

/* Names the pages of the elements [start, end], both counted from the end that it walks from. */
static void range_prefetch(const struct list *list, uint64_t start, uint64_t end, bool from_tail)
{
    const struct list_node *at = from_tail ? list->tail : list->head;
    uint64_t first = 0;
    for (unsigned i = 0; at && first <= end && i < RANGE_NODES; i++) {
        first += at->count;
        if (first > start && at->bytes <= STRING_MAX_BYTES)
            guide_prefetch(at->entry, at->bytes);
        at = from_tail ? at->previous : at->next;
    }
}

static void guided_range(void *client, struct object *object, long start, long end, int reverse)
{
    if (object && object->type == OBJECT_LIST && object->encoding == ENCODING_QUICK &&
        ((const struct list *)object->value)->nodes > 1) {
        const struct list *list = object->value;
        long count = (long)list->count;
        long from = start < 0 ? start + count : start, to = end < 0 ? end + count : end;
        from = from < 0 ? 0 : from;
        to = to >= count ? count - 1 : to;
        /* From the nearer end, as the program finds its first element. */
        if (from <= to && from <= count - 1 - to)
            range_prefetch(list, (uint64_t)from, (uint64_t)to, false);
        else if (from <= to)
            range_prefetch(list, (uint64_t)(count - 1 - to), (uint64_t)(count - 1 - from), true);
    }
    original_range(client, object, start, end, reverse);
}

static int start(void)
{
    int bulk = guide_hook("addReplyBulk", (void *)guided_bulk, (void **)&original_bulk);
    int range = guide_hook("addListRangeReply", (void *)guided_range, (void **)&original_range);
    return bulk ? bulk : range;
}

GUIDE("redis", start)
