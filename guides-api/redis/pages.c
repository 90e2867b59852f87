/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Naming pages. Many small objects share a page, so a page is named once a hook. How far away
 * something is shows in the time a touch takes: no question has to be asked for it.
 */
#include "internal.h"

#include <errno.h>
#include <sched.h>
#include <x86intrin.h>

#define PAGE_BYTES 4096u
#define NAMED      512u  /* places of a hash of pages; a collision costs a second hint */
#define TEXT_GUESS 64u   /* of a text whose length is not known yet */
#define SLOW_TICKS 8000u /* some 3 us: more than any miss in the caches, less than any fault */
#define ROOM_LOOKS 500u  /* some 10 us for the hint thread to take what waits */
#define LATE_TICKS 100000000ULL /* some 40 ms: of the 0.1 s that a call of a guide may take */

static struct {
    uintptr_t page[NAMED];
    uint32_t hook[NAMED];
    uint32_t now;
    uint32_t left; /* pages that may still be named */
    uint64_t began_ticks;
    bool full; /* the ring did not empty while this hook waited: it waits no more */
} named;

void pages_begin(uint32_t pages)
{
    named.now++;
    named.left = pages;
    named.full = false;
    named.began_ticks = __rdtsc();
}

bool pages_late(void)
{
    return __rdtsc() - named.began_ticks > LATE_TICKS;
}

uint32_t pages_left(void)
{
    return named.left;
}

/* Was this page named in this hook? From now on it was. */
static bool named_already(uintptr_t page)
{
    unsigned place = (unsigned)(page ^ page >> 9) % NAMED;
    if (named.page[place] == page && named.hook[place] == named.now)
        return true;
    named.page[place] = page;
    named.hook[place] = named.now;
    return false;
}

/* Waits a moment for room; advice for which there is none is dropped. */
static void post(const void *start, uint64_t bytes)
{
    if (guide_prefetch(start, bytes) != -EAGAIN || named.full)
        return;
    for (unsigned looks = 0; looks < ROOM_LOOKS; looks++) {
        __builtin_ia32_pause();
        if (guide_prefetch(start, bytes) != -EAGAIN)
            return;
    }
    (void)sched_yield(); /* the hint thread may be waiting for this processor */
    named.full = guide_prefetch(start, bytes) == -EAGAIN;
}

bool pages_name(const void *start, uint64_t bytes)
{
    uintptr_t first = (uintptr_t)start / PAGE_BYTES;
    if (!sane(start) || bytes == 0 || bytes > TEXT_MAX_BYTES)
        return named.left > 0;
    uintptr_t last = ((uintptr_t)start + bytes - 1) / PAGE_BYTES;
    while (first <= last && named_already(first))
        first++;
    if (first > last)
        return named.left > 0;
    uint64_t pages = last - first + 1;
    if (pages > named.left)
        pages = named.left;
    if (pages == 0)
        return false;
    named.left -= (uint32_t)pages;
    for (uintptr_t page = first + 1; page < first + pages && page < first + NAMED; page++)
        (void)named_already(page);
    post((const void *)(first * PAGE_BYTES), pages * PAGE_BYTES);
    return true;
}

bool text_name(const uint8_t *text)
{
    return sane(text) && pages_name(text - TEXT_HEADER, TEXT_HEADER + TEXT_GUESS);
}

uint64_t text_name_rest(const uint8_t *text)
{
    uint64_t bytes = sane(text) ? text_bytes(text) : 0;
    if (bytes > TEXT_GUESS && bytes <= TEXT_MAX_BYTES)
        pages_name(text, bytes);
    return bytes;
}

void links_begin(struct links *links)
{
    if (links->far)
        links->credit = LINKS_CREDIT;
    links->far = false;
}

void links_name(const struct links *links, const void *link, uint64_t bytes)
{
    if (links->credit)
        pages_name(link, bytes);
}

void links_touch(struct links *links, const void *link)
{
    uint64_t before = __rdtsc();
    (void)*(const volatile uint8_t *)link;
    if (__rdtsc() - before > SLOW_TICKS) {
        links->credit = LINKS_CREDIT;
        links->far = true;
    } else if (links->credit) {
        links->credit--;
    }
}

void block_name(const struct object *object)
{
    const uint8_t *block = object->value;
    uint32_t head[2];
    if (!sane(block) ||
        (object->encoding != ENCODING_LISTPACK && object->encoding != ENCODING_INTSET))
        return;
    __builtin_memcpy(head, block, sizeof(head));
    if (object->encoding == ENCODING_LISTPACK) /* its length in bytes */
        pages_name(block, head[0]);
    else if (head[0] <= 8) /* bytes of a number, and how many there are */
        pages_name(block, sizeof(head) + (uint64_t)head[0] * head[1]);
}
