/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Naming pages. Many small objects share a page, so a page is named once a look. How far away
 * something is shows in the time a touch takes: no question has to be asked for it.
 */
#include "internal.h"

#include <errno.h>
#include <sched.h>
#include <time.h>
#include <x86intrin.h>

#define PAGE_BYTES   4096u
#define NAMED        512u  /* places of a hash of pages; a collision costs a second hint */
#define TEXT_GUESS   64u   /* of a text whose length is not known yet */
#define SLOW_NS      3000u /* more than any miss in the caches, less than any fault */
#define ROOM_LOOKS   500u  /* some 10 us for the hint thread to take what waits */
#define CALIBRATE_NS 1000000u

static struct {
    uintptr_t page[NAMED];
    uint32_t look[NAMED];
    uint32_t now;
    uint32_t left; /* pages that may still be named */
    uint64_t began_ticks;
    bool late; /* and it stays so */
    bool full; /* the ring did not empty while this look waited: it waits no more */
} named;

uint64_t pages_late_ns = 40000000; /* a call of a guide may take 0.1 s of processor time */

/* In ticks of the time-stamp counter; until pages_open knows better, at 2.5 GHz. */
static struct {
    uint64_t us, slow, late;
} ticks_of = {2500, 2500 * SLOW_NS / 1000, 0};

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void pages_open(void)
{
    uint64_t start_ns = clock_ns(), start_ticks = __rdtsc(), ns;
    while ((ns = clock_ns() - start_ns) < CALIBRATE_NS)
        __builtin_ia32_pause();
    uint64_t ticks = (__rdtsc() - start_ticks) * 1000 / ns;
    ticks_of.us = ticks ? ticks : 1;
    ticks_of.slow = pages_ticks(SLOW_NS);
}

uint64_t pages_ticks(uint64_t ns)
{
    return ns * ticks_of.us / 1000;
}

void pages_begin(uint32_t pages)
{
    named.now++;
    named.left = pages;
    named.full = named.late = false;
    ticks_of.late = pages_ticks(pages_late_ns);
    named.began_ticks = __rdtsc();
}

static bool late_at(uint64_t ticks)
{
    named.late |= ticks - named.began_ticks > ticks_of.late;
    return named.late;
}

bool pages_late(void)
{
    return late_at(__rdtsc());
}

uint32_t pages_left(void)
{
    return named.left;
}

/* Was this page named in this look? From now on it was. */
static bool named_already(uintptr_t page)
{
    unsigned place = (unsigned)(page ^ page >> 9) % NAMED;
    if (named.page[place] == page && named.look[place] == named.now)
        return true;
    named.page[place] = page;
    named.look[place] = named.now;
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

bool links_touch(struct links *links, const void *link)
{
    uint64_t before = __rdtsc();
    (void)*(const volatile uint8_t *)link;
    uint64_t after = __rdtsc();
    if (after - before > ticks_of.slow) {
        links->credit = LINKS_CREDIT;
        links->far = true;
    } else if (links->credit) {
        links->credit--;
    }
    return !late_at(after);
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
