/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The replacement policy (clock.h). The queues hold blocks, the decisions are about pages: a block
 * popped from probation gives up those pages that arrived in the older half of the time it waited,
 * which is first in, first out to within half a turn, and keeps batches contiguous.
 */
#include "fault/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* ACTIVE pages may fill three quarters; beyond that the coldest of them go back to probation. */
#define ACTIVE_SHARE(local) ((local) / 4 * 3)
/*
 * A page that came back becomes ACTIVE where there is room for it: had probation been as long as it
 * was away, it and the ACTIVE pages would have fitted. Where more comes back than fits (a loop over
 * a little more than the host's share), protecting all of it protects nothing; protecting what is
 * ACTIVE already keeps at least that. A page gone for a moment only is taken in any case.
 */
#define ROOM_SHARE(local)   ((local) / 8 * 7)
#define MOMENT_SHARE(local) (ACTIVE_SHARE(local) / 16)
/* So many pages that found no room make the hand look at one block, lest old friends stay. */
#define REFUSED_EACH BLOCK_PAGES
#define COLD_AGE     (1u << 30) /* batches: older than anything that only waited */
#define AGE_BLOCKS   2u         /* active blocks looked at for each one evicted from */

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

static bool ring_pop(struct clock_ring *ring, struct clock_entry *entry)
{
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

static uint32_t now(const struct clock *clock)
{
    return atomic_load_explicit(&clock->epoch, memory_order_relaxed);
}

static void block_queue(struct clock *clock, uint64_t number, enum clock_queue queue)
{
    unsigned char bit = (unsigned char)(1u << queue);
    if (atomic_load(&clock->blocks[number].queued) & bit ||
        atomic_fetch_or(&clock->blocks[number].queued, bit) & bit)
        return;
    ring_push(&clock->rings[queue], (struct clock_entry){(uint32_t)number, now(clock)}, false);
}

static bool block_belongs(const struct block *block, enum clock_queue queue)
{
    if (queue == CLOCK_COLD) /* one visit; what arrives after it is found by the other hands */
        return false;
    unsigned held = atomic_load(&block->held), active = held_active(held);
    return queue == CLOCK_ACTIVE ? active != 0 : held_resident(held) != active;
}

/*
 * Gives a popped block back, or leaves it out if it has no business in the queue. The race is a
 * page arriving after the look: it finds `queued` still set and does not push, hence the second
 * look.
 */
static void block_requeue(struct clock *clock, struct clock_entry entry, enum clock_queue queue,
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

uint64_t clock_arrival(struct clock *clock, uint64_t word, bool demanded)
{
    uint32_t batch = now(clock), left = (uint32_t)(word >> EPT_STAMP_SHIFT);
    uint64_t stamp = (uint64_t)batch << EPT_STAMP_SHIFT;
    if (!demanded || !(word & (EPT_COPY | EPT_FILE)) || batch - left >= CLOCK_MEMORY)
        return stamp;
    uint64_t then =
        atomic_load_explicit(&clock->evicted_at[left % CLOCK_MEMORY], memory_order_relaxed);
    uint64_t distance = atomic_load_explicit(&clock->evicted, memory_order_relaxed) - then;
    uint64_t active = atomic_load_explicit(&clock->active_pages, memory_order_relaxed);
    if (distance <= MOMENT_SHARE(clock->local_pages) ||
        distance + active <= ROOM_SHARE(clock->local_pages))
        return stamp | EPT_ACTIVE;
    if (distance <= ACTIVE_SHARE(clock->local_pages))
        atomic_fetch_add_explicit(&clock->refused, 1, memory_order_relaxed);
    return stamp;
}

void clock_arrived(struct clock *clock, uint64_t page, unsigned pages, unsigned active)
{
    uint64_t number = page >> BLOCK_SHIFT;
    atomic_fetch_add(&clock->blocks[number].held, block_held(pages, active));
    if (active < pages)
        block_queue(clock, number, CLOCK_PROBATION);
    if (!active)
        return;
    atomic_fetch_add(&clock->active_pages, active);
    block_queue(clock, number, CLOCK_ACTIVE);
}

void clock_left(struct clock *clock, uint64_t page, unsigned pages, unsigned active)
{
    atomic_fetch_sub(&clock->blocks[page >> BLOCK_SHIFT].held, block_held(pages, active));
    atomic_fetch_sub(&clock->active_pages, active);
}

uint64_t clock_rescued(struct clock *clock, uint64_t page, uint64_t word)
{
    if (word & EPT_ACTIVE)
        return 0;
    uint64_t number = page >> BLOCK_SHIFT;
    atomic_fetch_add(&clock->blocks[number].held, block_held(0, 1));
    atomic_fetch_add(&clock->active_pages, 1);
    block_queue(clock, number, CLOCK_ACTIVE);
    return EPT_ACTIVE;
}

uint32_t clock_batch(struct clock *clock, uint64_t pages)
{
    uint64_t evicted = atomic_fetch_add(&clock->evicted, pages) + pages;
    uint32_t batch = atomic_fetch_add(&clock->epoch, 1) + 1;
    atomic_store_explicit(&clock->evicted_at[batch % CLOCK_MEMORY], evicted, memory_order_relaxed);
    return batch;
}

/* ---- the hand of the active queue ---- */

static bool page_demote(struct clock *clock, uint64_t page)
{
    uint64_t word = atomic_load(&clock->words[page]), want;
    do {
        if (ept_word_state(word) != EPT_LOCAL || !(word & EPT_ACTIVE))
            return false;
        want = (word & EPT_LOW_HALF & ~EPT_ACTIVE) | (uint64_t)now(clock) << EPT_STAMP_SHIFT;
    } while (!atomic_compare_exchange_weak(&clock->words[page], &word, want));
    atomic_fetch_sub(&clock->blocks[page >> BLOCK_SHIFT].held, block_held(0, 1));
    atomic_fetch_sub(&clock->active_pages, 1);
    return true;
}

/* Second chance: accessed pages lose the bit, the others (without `mercy`: all) go back to
 * probation. */
static void block_age(struct clock *clock, uint64_t first, bool mercy)
{
    unsigned demoted = 0, run = 0;
    for (unsigned i = 0; i <= BLOCK_PAGES; i++) {
        uint64_t word = i < BLOCK_PAGES ? atomic_load(&clock->words[first + i]) : 0;
        bool spared = false;
        if (ept_word_state(word) == EPT_LOCAL && word & EPT_ACTIVE) {
            spared = mercy && clock->ops->accessed(clock->owner, first + i);
            if (spared)
                clock->ops->accessed_clear(clock->owner, first + i);
            else
                demoted += page_demote(clock, first + i);
        }
        if (!spared && run)
            clock->ops->age(clock->owner, first + i - run, run);
        run = spared ? run + 1 : 0;
    }
    if (demoted)
        block_queue(clock, first >> BLOCK_SHIFT, CLOCK_PROBATION);
}

/* Are there too many, or have enough pages found no room that somebody has to make some? */
static bool active_due(struct clock *clock)
{
    if (atomic_load(&clock->active_pages) > ACTIVE_SHARE(clock->local_pages))
        return true;
    uint64_t refused = atomic_load(&clock->refused);
    while (refused >= REFUSED_EACH)
        if (atomic_compare_exchange_weak(&clock->refused, &refused, refused - REFUSED_EACH))
            return true;
    return false;
}

static void active_age(struct clock *clock, bool force, bool mercy)
{
    struct clock_entry entry;
    for (unsigned i = 0; i < AGE_BLOCKS; i++) {
        if (!force && !active_due(clock))
            return;
        if (!ring_pop(&clock->rings[CLOCK_ACTIVE], &entry))
            return;
        block_age(clock, (uint64_t)entry.block << BLOCK_SHIFT, mercy);
        entry.stamp = now(clock);
        block_requeue(clock, entry, CLOCK_ACTIVE, false);
    }
}

/* ---- the hand of probation ---- */

static void block_scan(const struct clock *clock, struct clock_choice *choice, uint64_t want,
                       bool urgent)
{
    uint32_t batch = now(clock), waited = batch - choice->stamp;
    uint32_t spared = choice->queue == CLOCK_COLD ? COLD_AGE : waited / 2;
    for (unsigned i = 0; i < BLOCK_PAGES; i++) {
        uint64_t word =
            atomic_load_explicit(&clock->words[choice->first_page + i], memory_order_relaxed);
        uint32_t age = batch - (uint32_t)(word >> EPT_STAMP_SHIFT);
        if (ept_word_state(word) != EPT_LOCAL || word & EPT_PIN_MASK ||
            (!urgent && (word & EPT_ACTIVE || age < spared)))
            continue;
        if (choice->count == want) {
            choice->more = true;
            return;
        }
        choice->candidates[i / 64] |= 1ULL << (i % 64);
        choice->count++;
    }
}

bool clock_choose(struct clock *clock, uint64_t want, bool urgent, struct clock_choice *choice)
{
    struct clock_entry entry;
    memset(choice, 0, sizeof(*choice));
    active_age(clock, urgent, true);
    choice->queue = CLOCK_COLD;
    bool any = ring_pop(&clock->rings[CLOCK_COLD], &entry);
    if (!any) {
        choice->queue = CLOCK_PROBATION;
        any = ring_pop(&clock->rings[CLOCK_PROBATION], &entry);
    }
    /*
     * All that is here is ACTIVE. Where all of it is in use too (random touches of a little more
     * than fits), Accessed bits tell nothing, and turns of the hand in search of one that is clear
     * would keep whoever waits for a frame waiting: the oldest block goes then.
     */
    for (unsigned mercy = 2; mercy-- > 0 && !any;) {
        active_age(clock, true, mercy);
        any = ring_pop(&clock->rings[CLOCK_PROBATION], &entry);
    }
    if (!any)
        return false;
    choice->first_page = (uint64_t)entry.block << BLOCK_SHIFT;
    choice->stamp = entry.stamp;
    block_scan(clock, choice, want, urgent);
    return true;
}

void clock_return(struct clock *clock, const struct clock_choice *choice)
{
    struct clock_entry entry = {(uint32_t)(choice->first_page >> BLOCK_SHIFT),
                                choice->more ? choice->stamp : now(clock)};
    block_requeue(clock, entry, choice->queue, choice->more);
}

void clock_cold(struct clock *clock, uint64_t page, uint64_t pages)
{
    uint64_t number = page >> BLOCK_SHIFT;
    bool demoted = false;
    for (uint64_t end = page + pages; page < end; page++) {
        uint64_t word;
        demoted |= page_demote(clock, page);
        do {
            word = atomic_load(&clock->words[page]);
        } while (ept_word_state(word) == EPT_LOCAL &&
                 !atomic_compare_exchange_weak(
                     &clock->words[page], &word,
                     (word & EPT_LOW_HALF) | (uint64_t)(now(clock) - COLD_AGE) << EPT_STAMP_SHIFT));
    }
    /* The one visit may find them pinned: without probation no hand would ever come by again. */
    if (demoted)
        block_queue(clock, number, CLOCK_PROBATION);
    block_queue(clock, number, CLOCK_COLD);
}
