/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The replacement policy (clock.h): its queues, and what the engine tells it. In faulting threads,
 * landers and reclaimers.
 */
#include "fault/clock_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/*
 * A page that came back becomes ACTIVE where there is room for it: had probation been as long as it
 * was away, it and the ACTIVE pages would have fitted. Where more comes back than fits (a loop over
 * a little more than the host's share), protecting all of it protects nothing; protecting what is
 * ACTIVE already keeps at least that. A page gone for a moment only is taken in any case.
 */
#define ROOM_SHARE(local)   ((local) / 8 * 7)
#define MOMENT_SHARE(local) (CLOCK_ACTIVE_SHARE(local) / 16)
#define HORIZON(local)      ((local)*2) /* away for longer: as good as new */
#define BEYOND_EACH         8u
#define BUDGET_MAX(local)   ((int)((local) < INT32_MAX ? (local) : INT32_MAX))
#define RETURN_HISTORY      1024 /* pages that the average of returns is over, about */

/* ---- queues ---- */

static void *table_make(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

static void ring_push(struct clock_ring *ring, struct clock_entry entry, bool front)
{
    pthread_mutex_lock(&ring->lock);
    if (front)
        ring->head = (ring->head + ring->size - 1) % ring->size;
    ring->entries[(ring->head + (front ? 0 : ring->count)) % ring->size] = entry;
    ring->count++;
    pthread_mutex_unlock(&ring->lock);
}

bool clock_pop(struct clock *clock, enum clock_queue queue, struct clock_entry *entry)
{
    struct clock_ring *ring = &clock->rings[queue];
    pthread_mutex_lock(&ring->lock);
    bool any = ring->count > 0;
    if (any) {
        *entry = ring->entries[ring->head];
        ring->head = (ring->head + 1) % ring->size;
        ring->count--;
    }
    pthread_mutex_unlock(&ring->lock);
    return any;
}

void clock_queue_block(struct clock *clock, uint64_t number, enum clock_queue queue)
{
    unsigned char bit = (unsigned char)(1u << queue);
    if (atomic_load(&clock->blocks[number].queued) & bit ||
        atomic_fetch_or(&clock->blocks[number].queued, bit) & bit)
        return;
    ring_push(&clock->rings[queue], (struct clock_entry){(uint32_t)number, clock_now(clock)},
              false);
}

static bool block_belongs(const struct block *block, enum clock_queue queue)
{
    if (queue == CLOCK_COLD || queue == CLOCK_TRIAL)
        return false; /* one visit; what arrives after it is found by the other hands */
    unsigned active = atomic_load(&block->active);
    return queue == CLOCK_ACTIVE ? active != 0 : atomic_load(&block->resident) != active;
}

/*
 * The race is a page arriving after the look: it finds `queued` still set and does not push, hence
 * the second look.
 */
void clock_requeue(struct clock *clock, struct clock_entry entry, enum clock_queue queue,
                   bool front)
{
    struct block *block = &clock->blocks[entry.block];
    unsigned char bit = (unsigned char)(1u << queue);
    if (!block_belongs(block, queue) && !front) {
        atomic_fetch_and(&block->queued, (unsigned char)~bit);
        if (!block_belongs(block, queue) || atomic_fetch_or(&block->queued, bit) & bit)
            return;
    }
    ring_push(&clock->rings[queue], entry, front);
}

int clock_create(struct clock *clock, uint64_t span_pages)
{
    uint64_t blocks = span_pages >> BLOCK_SHIFT;
    clock->evicted_at = table_make(CLOCK_MEMORY * sizeof(*clock->evicted_at));
    bool made = clock->evicted_at != NULL;
    for (unsigned i = 0; i < CLOCK_QUEUES; i++) {
        struct clock_ring *ring = &clock->rings[i];
        pthread_mutex_init(&ring->lock, NULL);
        ring->size = blocks;
        ring->entries = table_make(blocks * sizeof(struct clock_entry));
        made &= ring->entries != NULL;
    }
    clock->returns = CLOCK_RETURNS_ENOUGH;
    return made ? 0 : -ENOMEM;
}

void clock_destroy(struct clock *clock)
{
    if (clock->evicted_at)
        munmap(clock->evicted_at, CLOCK_MEMORY * sizeof(*clock->evicted_at));
    for (unsigned i = 0; i < CLOCK_QUEUES; i++) {
        struct clock_ring *ring = &clock->rings[i];
        if (ring->entries)
            munmap(ring->entries, ring->size * sizeof(struct clock_entry));
        if (ring->size)
            pthread_mutex_destroy(&ring->lock);
    }
    memset(clock, 0, sizeof(*clock));
}

uint64_t clock_blocks(const struct clock *clock)
{
    return atomic_load_explicit(&clock->rings[CLOCK_PROBATION].count, memory_order_relaxed);
}

/* ---- what the engine tells ---- */

/* A page of which there is a copy arrives. A guess tells only that what it names is long gone. */
static void returns_count(struct clock *clock, uint64_t away, bool demanded)
{
    bool soon = away <= clock->local_pages / 2;
    if (soon && !demanded)
        return;
    int returns = (int)atomic_load_explicit(&clock->returns, memory_order_relaxed);
    returns += ((soon ? 65536 : 0) - returns) / RETURN_HISTORY;
    atomic_store_explicit(&clock->returns, (unsigned)returns, memory_order_relaxed);
}

/* Evictions since a batch; UINT64_MAX: more than are remembered. */
static uint64_t evicted_since(const struct clock *clock, uint32_t batch)
{
    if (clock_now(clock) - batch >= CLOCK_MEMORY)
        return UINT64_MAX;
    return atomic_load_explicit(&clock->evicted, memory_order_relaxed) -
           atomic_load_explicit(&clock->evicted_at[batch % CLOCK_MEMORY], memory_order_relaxed);
}

/* Is there room to protect a page that was away for so many evictions? */
static bool has_room(struct clock *clock, uint64_t away)
{
    uint64_t local = clock->local_pages;
    uint64_t active = atomic_load_explicit(&clock->active_pages, memory_order_relaxed);
    if (away <= MOMENT_SHARE(local))
        return true;
    if (active >= CLOCK_ACTIVE_SHARE(local) || away > HORIZON(local))
        return false;
    if (away + active <= ROOM_SHARE(local))
        return true;
    unsigned beyond = atomic_fetch_add_explicit(&clock->beyond, 1, memory_order_relaxed);
    return beyond % BEYOND_EACH == 0;
}

uint64_t clock_arrival(struct clock *clock, uint64_t word, bool demanded)
{
    uint64_t stamp = (uint64_t)clock_now(clock) << EPT_STAMP_SHIFT;
    if (demanded || !(word & EPT_COPY))
        clock_owe(&clock->budget, BUDGET_MAX(clock->local_pages));
    if (!(word & EPT_COPY))
        return stamp;
    uint64_t away = evicted_since(clock, (uint32_t)(word >> EPT_STAMP_SHIFT));
    returns_count(clock, away, demanded);
    if (!demanded)
        return stamp;
    if (has_room(clock, away))
        return stamp | EPT_ACTIVE;
    if (away <= CLOCK_ACTIVE_SHARE(clock->local_pages))
        clock_owe(&clock->looks_due, CLOCK_LOOKS_MAX);
    return stamp;
}

void clock_activated(struct clock *clock, uint64_t page, unsigned pages)
{
    uint64_t number = page >> BLOCK_SHIFT;
    atomic_fetch_add(&clock->blocks[number].active, (unsigned short)pages);
    atomic_fetch_add(&clock->active_pages, pages);
    clock_queue_block(clock, number, CLOCK_ACTIVE);
}

void clock_deactivated(struct clock *clock, uint64_t page)
{
    atomic_fetch_sub(&clock->blocks[page >> BLOCK_SHIFT].active, 1);
    atomic_fetch_sub(&clock->active_pages, 1);
}

void clock_arrived(struct clock *clock, uint64_t page, unsigned pages, unsigned active)
{
    uint64_t number = page >> BLOCK_SHIFT;
    atomic_fetch_add(&clock->blocks[number].resident, (unsigned short)pages);
    if (active < pages)
        clock_queue_block(clock, number, CLOCK_PROBATION);
    if (active)
        clock_activated(clock, page, active);
}

void clock_left(struct clock *clock, uint64_t page, unsigned pages, unsigned active)
{
    struct block *block = &clock->blocks[page >> BLOCK_SHIFT];
    atomic_fetch_sub(&block->active, (unsigned short)active);
    atomic_fetch_sub(&clock->active_pages, active);
    atomic_fetch_sub(&block->resident, (unsigned short)pages);
}

uint64_t clock_rescued(struct clock *clock, uint64_t page, uint64_t word)
{
    if (word & EPT_ACTIVE)
        return 0;
    clock_activated(clock, page, 1);
    return EPT_ACTIVE;
}

uint32_t clock_batch(struct clock *clock, uint64_t pages)
{
    uint64_t evicted = atomic_fetch_add(&clock->evicted, pages) + pages;
    uint32_t batch = atomic_fetch_add(&clock->epoch, 1) + 1;
    atomic_store_explicit(&clock->evicted_at[batch % CLOCK_MEMORY], evicted, memory_order_relaxed);
    return batch;
}
