/* SPDX-License-Identifier: Apache-2.0 */
/* From a trace's records to what the simulator steps through. */
#include "fault/replay_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS_MAX (1u << 18) /* 512 GiB of touched 2 MiB blocks */

static uint32_t slot_of(const struct replay_input *input, uint64_t number)
{
    uint64_t at = number * 0x9e3779b97f4a7c15ULL >> 32;
    for (;; at++) {
        uint32_t slot = (uint32_t)at & (input->slots - 1);
        if (!input->index[slot].block || input->index[slot].number == number)
            return slot;
    }
}

uint32_t replay_page_find(const struct replay_input *input, uint64_t page)
{
    uint32_t block = input->index[slot_of(input, page >> BLOCK_SHIFT)].block;
    return block ? (block - 1) << BLOCK_SHIFT | (uint32_t)(page & (BLOCK_PAGES - 1)) : NO_PAGE;
}

static void slot_fill(struct replay_input *input, uint32_t block)
{
    uint32_t slot = slot_of(input, input->numbers[block]);
    input->index[slot].number = input->numbers[block];
    input->index[slot].block = block + 1;
}

static int index_grow(struct replay_input *input)
{
    uint32_t slots = input->slots ? input->slots * 2 : 1024;
    void *bigger = calloc(slots, sizeof(*input->index));
    uint64_t *numbers = realloc(input->numbers, slots * sizeof(*numbers));
    input->numbers = numbers ? numbers : input->numbers;
    if (!bigger || !numbers) {
        free(bigger);
        return -ENOMEM;
    }
    free(input->index);
    input->index = bigger;
    input->slots = slots;
    for (uint32_t i = 0; i < input->blocks; i++)
        slot_fill(input, i);
    return 0;
}

/* Renumbers a page, its block perhaps new. Page, or -ENOMEM or -E2BIG. */
static int64_t page_add(struct replay_input *input, uint64_t page)
{
    uint32_t known = replay_page_find(input, page);
    if (known != NO_PAGE)
        return known;
    if (input->blocks == BLOCKS_MAX)
        return -E2BIG;
    if (input->blocks * 2 >= input->slots && index_grow(input))
        return -ENOMEM;
    input->numbers[input->blocks] = page >> BLOCK_SHIFT;
    slot_fill(input, input->blocks++);
    return replay_page_find(input, page);
}

/* What the thread did between its last record and this one, without the wait in that. */
static uint32_t compute_ticks(uint64_t busy_until[TRACE_THREADS], const struct trace_record *record)
{
    uint8_t thread = trace_thread(record);
    if (thread >= TRACE_THREADS)
        return 0;
    uint64_t begin = trace_ticks(record), until = busy_until[thread];
    bool fault = trace_type(record) == TRACE_FAULT;
    uint64_t end = begin + (fault ? trace_value(record) : 0);
    busy_until[thread] = end > until ? end : until;
    uint64_t ticks = begin > until ? begin - until : 0;
    return ticks < UINT32_MAX ? (uint32_t)ticks : UINT32_MAX;
}

static bool is_event(const struct trace_record *record, enum replay_event_kind *kind)
{
    switch (trace_type(record)) {
    case TRACE_FAULT:
    case TRACE_TOUCH:
        *kind = EVENT_TOUCH;
        return true;
    case TRACE_FILL:
        *kind = EVENT_FILL;
        return true;
    case TRACE_DISCARD:
        *kind = EVENT_DISCARD;
        return true;
    default: /* what the recording's own policy and prefetcher did is not played again */
        return false;
    }
}

static int record_add(struct replay_input *input, const struct trace_record *record, size_t room,
                      enum replay_event_kind kind, uint32_t ticks)
{
    uint32_t pages = trace_type(record) == TRACE_FAULT ? 1 : trace_value(record);
    int64_t page = page_add(input, trace_page(record));
    if (page < 0)
        return (int)page;
    struct replay_event event = {
        .page = (uint32_t)page,
        .ticks = ticks,
        .pages = (uint16_t)pages,
        .kind = (uint8_t)kind,
        .thread = trace_thread(record),
        .write = trace_write(record),
    };
    input->touches += kind == EVENT_TOUCH ? pages : 0;
    if (input->count == room || input->touches > NEVER)
        return -E2BIG;
    input->events[input->count++] = event;
    return 0;
}

static size_t events_count(const struct trace *trace)
{
    size_t count = 0;
    for (size_t i = 0; i < trace->count; i++) {
        const struct trace_record *record = &trace->records[i];
        enum replay_event_kind kind;
        count += is_event(record, &kind);
    }
    return count;
}

/* The stretches of a run of pages, to `out` unless that is NULL. How many. */
static uint32_t stretches_of(const uint32_t *next, uint32_t pages, struct replay_stretch *out)
{
    uint32_t count = 0, start = 0;
    for (uint32_t i = 1; i <= pages; i++) {
        if (i < pages && next[i] == next[start])
            continue;
        if (out)
            out[count] =
                (struct replay_stretch){.next = next[start], .pages = (uint16_t)(i - start)};
        count++;
        start = i;
    }
    return count;
}

/*
 * Backwards: which event touches a page next. A discard ends the contents that touches before it
 * were of. Stretches in all, kept if there is room for them by now.
 */
static uint64_t next_find(struct replay_input *input)
{
    uint64_t pages = (uint64_t)input->blocks << BLOCK_SHIFT, count = 0;
    memset(input->first, 0xff, pages * sizeof(*input->first)); /* NEVER */
    for (size_t i = input->count; i-- > 0;) {
        struct replay_event *event = &input->events[i];
        uint32_t *first = input->first + event->page;
        if (event->kind == EVENT_FILL)
            continue;
        event->stretch = (uint32_t)count;
        count +=
            stretches_of(first, event->pages, input->stretches ? input->stretches + count : NULL);
        for (uint32_t j = 0; j < event->pages; j++)
            first[j] = event->kind == EVENT_TOUCH ? (uint32_t)i : NEVER;
    }
    return count;
}

/* Counts the stretches, then keeps them. 0, -ENOMEM or -E2BIG. */
static int stretches_make(struct replay_input *input)
{
    uint64_t pages = (uint64_t)input->blocks << BLOCK_SHIFT;
    input->first = malloc((pages ? pages : 1) * sizeof(*input->first));
    if (!input->first)
        return -ENOMEM;
    uint64_t count = next_find(input);
    if (count > UINT32_MAX)
        return -E2BIG;
    input->stretches = malloc((count ? count : 1) * sizeof(*input->stretches));
    if (!input->stretches)
        return -ENOMEM;
    next_find(input);
    return 0;
}

static int footprint_count(struct replay_input *input)
{
    size_t words = ((size_t)input->blocks << BLOCK_SHIFT) / 64;
    uint64_t *seen = calloc(words ? words : 1, sizeof(*seen));
    if (!seen)
        return -ENOMEM;
    for (size_t i = 0; i < input->count; i++) {
        const struct replay_event *event = &input->events[i];
        for (uint32_t j = event->page;
             event->kind != EVENT_DISCARD && j < event->page + event->pages; j++)
            seen[j / 64] |= 1ULL << (j % 64);
    }
    for (size_t i = 0; i < words; i++)
        input->footprint += (uint64_t)__builtin_popcountll(seen[i]);
    free(seen);
    return 0;
}

int replay_input_create(struct replay_input **out, const struct trace *trace, const char **wrong)
{
    uint64_t busy_until[TRACE_THREADS] = {0};
    struct replay_input *input = calloc(1, sizeof(*input));
    size_t room = events_count(trace);
    int error = 0;
    *wrong = "out of memory";
    if (!input)
        return -ENOMEM;
    input->events = malloc((room ? room : 1) * sizeof(*input->events));
    if (!input->events || index_grow(input))
        error = -ENOMEM;
    for (size_t i = 0; i < trace->count && !error; i++) {
        enum replay_event_kind kind;
        uint32_t ticks = compute_ticks(busy_until, &trace->records[i]);
        if (is_event(&trace->records[i], &kind))
            error = record_add(input, &trace->records[i], room, kind, ticks);
    }
    if (!error)
        error = stretches_make(input);
    if (!error)
        error = footprint_count(input);
    if (error == -E2BIG) {
        *wrong = "too large to replay";
        error = -EINVAL;
    }
    if (error)
        replay_input_destroy(input);
    else
        *out = input;
    return error;
}

void replay_input_destroy(struct replay_input *input)
{
    if (!input)
        return;
    free(input->events);
    free(input->stretches);
    free(input->first);
    free(input->numbers);
    free(input->index);
    free(input);
}

uint64_t replay_footprint(const struct replay_input *input)
{
    return input->footprint;
}

uint64_t replay_touches(const struct replay_input *input, struct replay_range range)
{
    uint64_t touches = 0;
    for (size_t i = 0; i < input->count; i++) {
        const struct replay_event *event = &input->events[i];
        for (uint32_t j = 0; event->kind == EVENT_TOUCH && j < event->pages; j++)
            touches += replay_in_range(input, event->page + j, range);
    }
    return touches;
}
