/* SPDX-License-Identifier: Apache-2.0 */
/* Reads a trace that anybody may have written: every field is checked before anything uses it. */
#include "fault/trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES  4096u
#define PAGES_LIMIT (1ULL << TRACE_PAGE_BITS)

static bool text_good(const char *text, size_t room)
{
    size_t length = strnlen(text, room);
    for (size_t i = 0; i < length; i++)
        if (text[i] < ' ' || text[i] > '~')
            return false;
    return length < room;
}

static const char *header_wrong(const struct trace_header *header)
{
    if (memcmp(header->magic, TRACE_MAGIC, sizeof(header->magic)) != 0)
        return "not a trace of farvisor's";
    if (header->version != TRACE_VERSION)
        return "recorded by another version of farvisor";
    if (header->header_bytes != sizeof(*header) || header->page_bytes != PAGE_BYTES ||
        header->record_bytes != sizeof(struct trace_record))
        return "damaged header";
    if (!header->local_pages || header->local_pages > header->memory_pages ||
        header->memory_pages > PAGES_LIMIT)
        return "damaged header";
    if (!text_good(header->prefetcher, sizeof(header->prefetcher)) ||
        !text_good(header->fault_mode, sizeof(header->fault_mode)) ||
        !text_good(header->transport, sizeof(header->transport)) ||
        !text_good(header->program, sizeof(header->program)))
        return "damaged header";
    return NULL;
}

static bool detail_good(const struct trace_record *record)
{
    static const unsigned details[16] = {
        [TRACE_FAULT] = TRACE_CAUSES,
        [TRACE_TOUCH] = TRACE_SEENS,
        [TRACE_FILL] = 2,
        [TRACE_PREFETCH] = 1,
        [TRACE_LAND] = 1,
        [TRACE_EVICT] = TRACE_FATES,
        [TRACE_DISCARD] = 1,
        [TRACE_END] = 1,
    };
    return trace_detail(record) < details[trace_type(record)]; /* an unknown type has none */
}

static bool record_good(const struct trace_record *record)
{
    enum trace_type type = trace_type(record);
    uint8_t thread = trace_thread(record);
    if (!detail_good(record) || record->what >> 56 || record->when >> 56)
        return false;
    if (type == TRACE_END)
        return !thread && !trace_write(record) && !record->when;
    if (thread >= TRACE_THREADS && (thread != TRACE_NOBODY || type == TRACE_FAULT))
        return false;
    if (type == TRACE_FAULT)
        return true;
    uint32_t pages = trace_value(record);
    return !trace_write(record) && pages &&
           trace_page(record) % TRACE_RUN_MAX + pages <= TRACE_RUN_MAX;
}

/* Stable, and next to free for records that are in order. */
static int records_sort(struct trace_record *records, size_t count)
{
    struct trace_record *spare = malloc((count ? count : 1) * sizeof(*spare));
    if (!spare)
        return -ENOMEM;
    for (size_t width = 1; width < count; width *= 2) {
        for (size_t left = 0; left + width < count; left += 2 * width) {
            size_t middle = left + width, end = middle + width < count ? middle + width : count;
            if (trace_ticks(&records[middle - 1]) <= trace_ticks(&records[middle]))
                continue;
            memcpy(spare, records + left, width * sizeof(*spare));
            for (size_t a = 0, b = middle, to = left; a < width; to++) {
                bool second = b < end && trace_ticks(&records[b]) < trace_ticks(&spare[a]);
                records[to] = second ? records[b++] : spare[a++];
            }
        }
    }
    free(spare);
    return 0;
}

static const char *records_wrong(struct trace *trace, size_t bytes, size_t *at)
{
    for (size_t i = 0; i < trace->count; i++) {
        *at = sizeof(trace->header) + i * sizeof(*trace->records);
        if (!record_good(&trace->records[i]))
            return "damaged record";
        if (trace_type(&trace->records[i]) != TRACE_END)
            continue;
        if (i != trace->count - 1 || bytes % sizeof(*trace->records))
            return "something follows the end mark";
        trace->ended = true;
        trace->dropped = trace_page(&trace->records[i]);
        trace->count--;
    }
    return NULL;
}

int trace_parse(const void *data, size_t bytes, struct trace *out, const char **wrong, size_t *at)
{
    memset(out, 0, sizeof(*out));
    *at = 0;
    *wrong = "too short for a header";
    if (bytes < sizeof(out->header))
        return -EINVAL;
    memcpy(&out->header, data, sizeof(out->header));
    *wrong = header_wrong(&out->header);
    if (*wrong)
        return -EINVAL;
    bytes -= sizeof(out->header);
    out->count = bytes / sizeof(*out->records); /* a killed recorder may have left half a record */
    *wrong = "out of memory";
    out->records = malloc((out->count ? out->count : 1) * sizeof(*out->records));
    if (!out->records)
        return -ENOMEM;
    memcpy(out->records, (const char *)data + sizeof(out->header),
           out->count * sizeof(*out->records));
    const char *bad = records_wrong(out, bytes, at);
    int error = bad ? -EINVAL : records_sort(out->records, out->count);
    *wrong = bad ? bad : *wrong;
    if (error)
        trace_free(out);
    return error;
}

void trace_free(struct trace *trace)
{
    free(trace->records);
    memset(trace, 0, sizeof(*trace));
}
