/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policies that are compared. clock is the engine's own (clock.c), driven as reclaim.c drives
 * it. FIFO and LRU take one page at a time from a queue. Belady evicts the page whose next touch is
 * farthest away; it is the optimum where every touch is known and nothing is prefetched.
 */
#include "fault/replay_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_SHARE 32u /* as reclaim.c has them */
#define BATCH_MIN   64u

/* ---- FIFO, LRU ---- */

static int queue_create(struct sim_queue *queue, uint64_t pages)
{
    queue->end = (uint32_t)pages;
    queue->after = malloc((pages + 1) * sizeof(*queue->after));
    queue->before = malloc((pages + 1) * sizeof(*queue->before));
    if (!queue->after || !queue->before)
        return -ENOMEM;
    queue->after[queue->end] = queue->before[queue->end] = queue->end;
    return 0;
}

static void queue_append(struct sim_queue *queue, uint32_t page)
{
    uint32_t last = queue->before[queue->end];
    queue->after[last] = page;
    queue->before[page] = last;
    queue->after[page] = queue->end;
    queue->before[queue->end] = page;
}

static void queue_remove(struct sim_queue *queue, uint32_t page)
{
    queue->after[queue->before[page]] = queue->after[page];
    queue->before[queue->after[page]] = queue->before[page];
}

static bool queue_evict(struct sim *sim)
{
    uint32_t page = sim->queue.after[sim->queue.end];
    if (page == sim->queue.end)
        return false;
    queue_remove(&sim->queue, page);
    sim_page_left(sim, page, 0);
    return true;
}

/* ---- Belady ---- */

static void heap_swap(struct sim_heap *heap, size_t a, size_t b)
{
    uint32_t next = heap->entries[a].next, page = heap->entries[a].page;
    heap->entries[a] = heap->entries[b];
    heap->entries[b].next = next;
    heap->entries[b].page = page;
}

/* Of what one event touches, the last page is touched last. */
static bool is_later(const struct sim_heap *heap, size_t a, size_t b)
{
    if (heap->entries[a].next != heap->entries[b].next)
        return heap->entries[a].next > heap->entries[b].next;
    return heap->entries[a].page > heap->entries[b].page;
}

static void heap_sink(struct sim_heap *heap, size_t at)
{
    for (;;) {
        size_t most = at, left = 2 * at + 1, right = left + 1;
        if (left < heap->count && is_later(heap, left, most))
            most = left;
        if (right < heap->count && is_later(heap, right, most))
            most = right;
        if (most == at)
            return;
        heap_swap(heap, at, most);
        at = most;
    }
}

/* Does the entry still tell the truth? */
static bool entry_valid(const struct sim *sim, size_t i)
{
    uint32_t page = sim->heap.entries[i].page;
    return ept_word_state(sim->words[page]) == EPT_LOCAL &&
           sim->next[page] == sim->heap.entries[i].next;
}

/* Drops entries that are out of date, when most are. */
static void heap_clean(struct sim *sim)
{
    struct sim_heap *heap = &sim->heap;
    size_t kept = 0;
    for (size_t i = 0; i < heap->count; i++) {
        uint32_t page = heap->entries[i].page;
        if (!entry_valid(sim, i) || sim->flags[page] & SIM_KEPT)
            continue;
        sim->flags[page] |= SIM_KEPT; /* a page that came back may have two that are true */
        heap->entries[kept++] = heap->entries[i];
    }
    for (size_t i = 0; i < kept; i++)
        sim->flags[heap->entries[i].page] &= (uint8_t)~SIM_KEPT;
    heap->count = kept;
    for (size_t i = kept / 2; i-- > 0;)
        heap_sink(heap, i);
}

static void heap_push(struct sim *sim, uint32_t page)
{
    struct sim_heap *heap = &sim->heap;
    if (heap->count == heap->room)
        heap_clean(sim); /* to what is resident, which is less than half of it */
    size_t at = heap->count++;
    heap->entries[at].next = sim->next[page];
    heap->entries[at].page = page;
    for (; at && is_later(heap, at, (at - 1) / 2); at = (at - 1) / 2)
        heap_swap(heap, at, (at - 1) / 2);
}

static bool heap_evict(struct sim *sim)
{
    struct sim_heap *heap = &sim->heap;
    while (heap->count) {
        bool valid = entry_valid(sim, 0);
        uint32_t page = heap->entries[0].page;
        heap->entries[0] = heap->entries[--heap->count];
        heap_sink(heap, 0);
        if (valid) {
            sim_page_left(sim, page, 0);
            return true;
        }
    }
    return false;
}

/* ---- clock ---- */

static bool accessed(void *owner, uint64_t page)
{
    return ((struct sim *)owner)->flags[page] & SIM_ACCESSED;
}

static void accessed_clear(void *owner, uint64_t page)
{
    ((struct sim *)owner)->flags[page] &= (uint8_t)~SIM_ACCESSED;
}

static void age(void *owner, uint64_t page, uint64_t pages)
{
    (void)owner; /* here the next touch sets Accessed anyway */
    (void)page;
    (void)pages;
}

static const struct clock_ops clock_ops = {
    .accessed = accessed, .accessed_clear = accessed_clear, .age = age};

/* The pages of a choice leave, as one batch. How many. */
static unsigned choice_evict(struct sim *sim, const struct clock_choice *choice)
{
    unsigned active = 0;
    clock_return(&sim->clock, choice);
    if (!choice->count)
        return 0;
    uint32_t stamp = clock_batch(&sim->clock, choice->count);
    for (unsigned i = 0; i < BLOCK_PAGES; i++) {
        uint32_t page = (uint32_t)choice->first_page + i;
        if (!(choice->candidates[i / 64] >> (i % 64) & 1))
            continue;
        active += (sim->words[page] & EPT_ACTIVE) != 0;
        sim_page_left(sim, page, stamp);
    }
    clock_left(&sim->clock, choice->first_page, choice->count, active);
    return choice->count;
}

static bool clock_evict(struct sim *sim)
{
    uint64_t most = sim->config.local_pages / BATCH_SHARE, turn = clock_blocks(&sim->clock) + 1;
    most = most > BATCH_MIN ? most : BATCH_MIN;
    for (uint64_t fruitless = 0; fruitless <= 2 * turn + 2; fruitless++) {
        struct clock_choice choice;
        if (!clock_choose(&sim->clock, most, fruitless > turn, &choice))
            return false;
        if (choice_evict(sim, &choice))
            return true;
    }
    return false;
}

static int clock_policy_create(struct sim *sim)
{
    sim->clock.words = sim->words;
    sim->clock.blocks = sim->blocks;
    sim->clock.local_pages = sim->config.local_pages;
    sim->clock.ops = &clock_ops;
    sim->clock.owner = sim;
    return clock_create(&sim->clock, sim->pages);
}

/* ---- which of them ---- */

int sim_policy_create(struct sim *sim)
{
    if (sim->config.policy == REPLAY_CLOCK)
        return clock_policy_create(sim);
    if (sim->config.policy != REPLAY_BELADY)
        return queue_create(&sim->queue, sim->pages);
    uint64_t most = sim->config.local_pages < sim->pages ? sim->config.local_pages : sim->pages;
    sim->heap.room = 2 * most + 2;
    sim->heap.entries = malloc(sim->heap.room * sizeof(*sim->heap.entries));
    return sim->heap.entries ? 0 : -ENOMEM;
}

void sim_policy_destroy(struct sim *sim)
{
    clock_destroy(&sim->clock);
    free(sim->queue.after);
    free(sim->queue.before);
    free(sim->heap.entries);
}

void sim_policy_arrived(struct sim *sim, uint32_t page)
{
    if (sim->config.policy == REPLAY_CLOCK)
        clock_arrived(&sim->clock, page, 1, (sim->words[page] & EPT_ACTIVE) != 0);
    else if (sim->config.policy == REPLAY_BELADY)
        heap_push(sim, page);
    else
        queue_append(&sim->queue, page);
}

void sim_policy_touched(struct sim *sim, uint32_t page)
{
    if (sim->config.policy == REPLAY_BELADY) {
        heap_push(sim, page);
    } else if (sim->config.policy == REPLAY_LRU) {
        queue_remove(&sim->queue, page);
        queue_append(&sim->queue, page);
    }
}

void sim_policy_discarded(struct sim *sim, uint32_t page, bool active)
{
    if (sim->config.policy == REPLAY_CLOCK)
        clock_left(&sim->clock, page, 1, active);
    else if (sim->config.policy != REPLAY_BELADY) /* there: its entry is out of date */
        queue_remove(&sim->queue, page);
}

bool sim_policy_evict(struct sim *sim)
{
    switch (sim->config.policy) {
    case REPLAY_CLOCK:
        return clock_evict(sim);
    case REPLAY_BELADY:
        return heap_evict(sim);
    default:
        return queue_evict(sim);
    }
}
