/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Live ranges: which bytes of a page are worth a transfer. The guest's allocator keeps a bit for
 * each 16 bytes of its heap (farvisor/hints.h, FV_GUIDE_HEAP); this file reads the bits of one page
 * and makes segments of them. Any thread; never waits, and says "all of it" whenever in doubt.
 *
 * The map is the guest's and not trusted: it decides which bytes of the guest's own page travel,
 * nothing else. When it may be read is what makes it safe (docs/allocator.md has the argument):
 *
 *   write-back   the page is EVICTING and protected: whoever allocates later and stores, faults
 *   fetch        the page is FETCHING: nobody stores to it before it is LOCAL
 *
 * Read earlier it would miss objects that were allocated, and stored to, in between.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>
#include <string.h>

#define MAP_WORDS  (EPT_PAGE_BYTES / LIVE_UNIT_BYTES / 64) /* of one page */
#define MAP_BYTES  (MAP_WORDS * 8)
#define PAGE_UNITS (EPT_PAGE_BYTES / LIVE_UNIT_BYTES)
/* A request costs about 100 bytes of headers over TCP, and a microsecond: less is not saved. */
#define HOLE_UNITS (256 / LIVE_UNIT_BYTES)

struct hole {
    unsigned start, units;
};

int fault_live_map(struct fault_engine *engine, gpa_t heap, uint64_t bytes, gpa_t map)
{
    struct live_map *live = &engine->live;
    uint64_t span_bytes = engine->span_pages * EPT_PAGE_BYTES, none = 0;
    if ((heap | bytes | map) % EPT_PAGE_BYTES || !bytes || bytes > span_bytes ||
        heap > span_bytes - bytes || map > span_bytes - bytes / (8 * LIVE_UNIT_BYTES))
        return -EINVAL;
    if (!atomic_compare_exchange_strong(&live->claimed, &none, 1))
        return -EBUSY;
    live->first_page = heap >> EPT_PAGE_SHIFT;
    live->map = map;
    atomic_store(&live->pages, bytes >> EPT_PAGE_SHIFT);
    return 0;
}

static bool overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

void live_unmapped(struct fault_engine *engine, uint64_t page, uint64_t pages)
{
    struct live_map *live = &engine->live;
    uint64_t heap_pages = atomic_load(&live->pages);
    if (heap_pages && (overlap(page, pages, live->first_page, heap_pages) ||
                       overlap(page << EPT_PAGE_SHIFT, pages << EPT_PAGE_SHIFT, live->map,
                               heap_pages * MAP_BYTES)))
        atomic_store(&live->pages, 0);
}

/* The bits of one page; false if it is not of the heap, or they are not to be had now. */
static bool map_read(struct fault_engine *engine, uint64_t page, uint64_t bits[MAP_WORDS])
{
    const struct live_map *live = &engine->live;
    uint64_t pages = atomic_load(&live->pages);
    if (!pages || page - live->first_page >= pages)
        return false;
    gpa_t at = live->map + (page - live->first_page) * MAP_BYTES;
    ept_word_t *word = &engine->words[at >> EPT_PAGE_SHIFT];
    /* A file that was mapped over the heap is not the allocator's. */
    if (atomic_load(&engine->words[page]) & EPT_FILE || pin_try(word, false))
        return false;
    const uint64_t *from = ept_hva(engine->ept, at);
    for (unsigned i = 0; i < MAP_WORDS; i++)
        bits[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
    fault_unpin(engine, at >> EPT_PAGE_SHIFT, 1);
    return true;
}

/* First unit from `i` on whose bit is `set`, or PAGE_UNITS. */
static unsigned next_unit(const uint64_t bits[MAP_WORDS], unsigned i, bool set)
{
    while (i < PAGE_UNITS) {
        uint64_t word = (set ? bits[i / 64] : ~bits[i / 64]) >> (i % 64);
        if (word)
            return i + (unsigned)__builtin_ctzll(word);
        i = (i / 64 + 1) * 64;
    }
    return PAGE_UNITS;
}

/* Keeps the two largest. */
static void hole_note(struct hole most[LIVE_SEGMENTS - 1], struct hole hole)
{
    for (unsigned i = 0; i < LIVE_SEGMENTS - 1 && hole.units >= HOLE_UNITS; i++) {
        if (hole.units > most[i].units) {
            struct hole smaller = most[i];
            most[i] = hole;
            hole = smaller;
        }
    }
}

static void segment_add(struct live_page *out, unsigned from, unsigned to)
{
    out->of[out->count].start = (uint16_t)(from * LIVE_UNIT_BYTES);
    out->of[out->count++].bytes = (uint16_t)((to - from) * LIVE_UNIT_BYTES);
    out->bytes += (to - from) * LIVE_UNIT_BYTES;
}

static void live_whole(struct live_page *out)
{
    *out = (struct live_page){.count = 1, .bytes = EPT_PAGE_BYTES, .of = {{0, EPT_PAGE_BYTES}}};
}

void live_segments(const uint64_t bits[4], struct live_page *out)
{
    struct hole most[LIVE_SEGMENTS - 1] = {{0}};
    unsigned first = next_unit(bits, 0, true), end = first;
    *out = (struct live_page){0};
    for (unsigned start = first; start < PAGE_UNITS; start = next_unit(bits, end, true)) {
        if (start > end)
            hole_note(most, (struct hole){end, start - end});
        end = next_unit(bits, start, false);
    }
    if (first == PAGE_UNITS)
        return;
    if (most[1].units && most[1].start < most[0].start) {
        struct hole later = most[0];
        most[0] = most[1];
        most[1] = later;
    }
    for (unsigned i = 0; i < LIVE_SEGMENTS - 1; i++) {
        if (!most[i].units)
            continue;
        segment_add(out, first, most[i].start);
        first = most[i].start + most[i].units;
    }
    segment_add(out, first, end);
    if (out->bytes + HOLE_UNITS * LIVE_UNIT_BYTES > EPT_PAGE_BYTES)
        live_whole(out);
}

void live_page_read(struct fault_engine *engine, uint64_t page, struct live_page *out)
{
    uint64_t bits[MAP_WORDS];
    if (map_read(engine, page, bits))
        live_segments(bits, out);
    else
        live_whole(out);
}

/* Zeroes what lies outside of the segments. */
static void holes_clear(const struct live_page *live, uint8_t *bytes)
{
    unsigned at = 0;
    for (unsigned i = 0; i < live->count; i++) {
        memset(bytes + at, 0, live->of[i].start - at);
        at = live->of[i].start + live->of[i].bytes;
    }
    memset(bytes + at, 0, EPT_PAGE_BYTES - at);
}

bool live_none(struct fault_engine *engine, uint64_t page)
{
    uint64_t bits[MAP_WORDS];
    return map_read(engine, page, bits) && !(bits[0] | bits[1] | bits[2] | bits[3]);
}

/* Bytes of a run that follow each other, perhaps of several pages. */
struct extent {
    uint64_t start, bytes;
};

static struct rdma_request extent_read(uint64_t page, uint8_t *to, uint64_t cookie,
                                       struct extent extent)
{
    bool whole = (extent.start | extent.bytes) % EPT_PAGE_BYTES == 0;
    return (struct rdma_request){.op = RDMA_READ,
                                 .pages = whole ? (uint32_t)(extent.bytes / EPT_PAGE_BYTES) : 0,
                                 .page = page + extent.start / EPT_PAGE_BYTES,
                                 .local = to + extent.start,
                                 .cookie = cookie,
                                 .offset_bytes = (uint32_t)(extent.start % EPT_PAGE_BYTES),
                                 .bytes = whole ? 0 : (uint32_t)extent.bytes};
}

unsigned live_reads(struct fault_engine *engine, uint64_t page, uint64_t pages, uint8_t *to,
                    uint64_t cookie, struct rdma_request requests[], unsigned most)
{
    struct extent open = {0, 0};
    uint64_t unread = 0;
    unsigned count = 0;
    for (uint64_t i = 0; i < pages; i++) {
        struct live_page live;
        /* Its segments, and one request for all pages behind it that find no room. */
        if (count + LIVE_SEGMENTS + (i + 1 < pages) < most)
            live_page_read(engine, page + i, &live);
        else
            live_whole(&live);
        holes_clear(&live, to + i * EPT_PAGE_BYTES);
        unread += EPT_PAGE_BYTES - live.bytes;
        for (unsigned j = 0; j < live.count; j++) {
            uint64_t start = i * EPT_PAGE_BYTES + live.of[j].start;
            if (open.bytes && open.start + open.bytes != start) {
                requests[count++] = extent_read(page, to, cookie, open);
                open.bytes = 0;
            }
            open.start = open.bytes ? open.start : start;
            open.bytes += live.of[j].bytes;
        }
    }
    if (open.bytes)
        requests[count++] = extent_read(page, to, cookie, open);
    FV_ASSERT(count <= most);
    if (unread)
        atomic_fetch_add_explicit(&engine->unread_bytes, unread, memory_order_relaxed);
    return count;
}
