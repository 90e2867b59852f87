/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hands of the replacement policy (clock.h). The queues hold blocks, the decisions are about
 * pages: a block popped from probation gives up those pages that arrived in the older half of the
 * time it waited, which is first in, first out to within half a turn, and keeps batches contiguous.
 * In reclaimers.
 */
#include "fault/clock_internal.h"

#include <string.h>

#define COLD_AGE   (1u << 30) /* batches: older than anything that only waited */
#define AGE_BLOCKS 2u         /* blocks looked at for each one evicted from */
/* Beyond this many ACTIVE pages, one that is seen again on trial goes round once more. */
#define SEEN_SHARE(local) (CLOCK_ACTIVE_SHARE(local) + (local) / 16)
/*
 * A system call that unmaps for looking, 2 to 3 us, must help to find a quarter of a page that is
 * used again and would have been missed, which costs 15 times as much; not all that is seen again
 * would have been missed.
 */
#define SEEN_WORTH 4
#define WORTH_MAX  1024
#define PROBE_EACH 16u /* of the blocks, while looks are not worth it */

/* ---- the hand of the active queue ---- */

static bool page_demote(struct clock *clock, uint64_t page)
{
    uint64_t word = atomic_load(&clock->words[page]), want;
    do {
        if (ept_word_state(word) != EPT_LOCAL || !(word & EPT_ACTIVE))
            return false;
        want = (word & EPT_LOW_HALF & ~EPT_ACTIVE) | (uint64_t)clock_now(clock) << EPT_STAMP_SHIFT;
    } while (!atomic_compare_exchange_weak(&clock->words[page], &word, want));
    clock_deactivated(clock, page);
    return true;
}

/* Second chance: accessed pages lose the bit, the others (without `mercy`: all) go back to
 * probation. */
static void block_age(struct clock *clock, uint64_t first, bool mercy)
{
    unsigned demoted = 0, run = 0;
    int looked = 0;
    for (unsigned i = 0; i <= BLOCK_PAGES; i++) {
        uint64_t word = i < BLOCK_PAGES ? atomic_load(&clock->words[first + i]) : 0;
        bool spared = false;
        if (ept_word_state(word) == EPT_LOCAL && word & EPT_ACTIVE) {
            looked++;
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
    atomic_fetch_sub_explicit(&clock->looks_due, looked, memory_order_relaxed);
    if (demoted)
        clock_queue_block(clock, first >> BLOCK_SHIFT, CLOCK_PROBATION);
}

/* Are there too many, or does somebody have to make room for others? */
static bool active_due(const struct clock *clock)
{
    return atomic_load(&clock->active_pages) > CLOCK_ACTIVE_SHARE(clock->local_pages) ||
           atomic_load_explicit(&clock->looks_due, memory_order_relaxed) > 0;
}

static void active_age(struct clock *clock, bool force, bool mercy)
{
    struct clock_entry entry;
    for (unsigned i = 0; i < AGE_BLOCKS; i++) {
        if (!force && !active_due(clock))
            return;
        if (!clock_pop(clock, CLOCK_ACTIVE, &entry))
            return;
        block_age(clock, (uint64_t)entry.block << BLOCK_SHIFT, mercy);
        entry.stamp = clock_now(clock);
        clock_requeue(clock, entry, CLOCK_ACTIVE, false);
    }
}

/* ---- looks on probation ---- */

/*
 * The word of a page on probation becomes `(word & ~clear) | set`, its stamp now if it is
 * `renewed`. False: it is not there any more, or ACTIVE.
 */
static bool page_mark(struct clock *clock, uint64_t page, uint64_t clear, uint64_t set,
                      bool renewed)
{
    uint64_t word = atomic_load(&clock->words[page]), want;
    do {
        if (ept_word_state(word) != EPT_LOCAL || word & EPT_ACTIVE)
            return false;
        want = (word & ~clear) | set;
        if (renewed)
            want = (want & EPT_LOW_HALF) | (uint64_t)clock_now(clock) << EPT_STAMP_SHIFT;
    } while (!atomic_compare_exchange_weak(&clock->words[page], &word, want));
    return true;
}

static void worth_count(struct clock *clock, int found)
{
    int worth = atomic_load_explicit(&clock->worth, memory_order_relaxed) + found;
    worth = worth < -WORTH_MAX ? -WORTH_MAX : worth > WORTH_MAX ? WORTH_MAX : worth;
    atomic_store_explicit(&clock->worth, worth, memory_order_relaxed);
}

/*
 * A page that goes round often is not looked at as often: each look costs it 4 us. While looks find
 * too little, a few go on, which tell when that changes.
 */
static bool look_worth(struct clock *clock)
{
    if (atomic_load_explicit(&clock->returns, memory_order_relaxed) < CLOCK_RETURNS_ENOUGH ||
        atomic_load_explicit(&clock->budget, memory_order_relaxed) <= 0)
        return false;
    return atomic_load_explicit(&clock->worth, memory_order_relaxed) > -WORTH_MAX ||
           atomic_fetch_add_explicit(&clock->unlooked, 1, memory_order_relaxed) % PROBE_EACH == 0;
}

/* Is the Accessed bit of this page to begin to tell? `age`: batches since it came. */
static bool look_due(uint64_t word, uint32_t age, uint32_t spared)
{
    return ept_word_state(word) == EPT_LOCAL && age >= spared &&
           !(word & (EPT_ACTIVE | EPT_LOOKED | EPT_PREFETCHED));
}

/*
 * Unmaps the older pages of a block on probation, in runs that may have pages between them which
 * are not here (on their way in or out at most: unmapping changes no contents and no protection).
 * Races, which cost advice and nothing else: a page that leaves and comes back between its mark and
 * the unmapping has lost its Accessed bit without being LOOKED, and nobody asks for it; another
 * reclaimer that finds the mark before the bit is cleared takes the page for seen again. Whether
 * any is LOOKED now.
 */
static bool block_look(struct clock *clock, const struct clock_entry *entry)
{
    uint64_t first = (uint64_t)entry->block << BLOCK_SHIFT;
    uint32_t batch = clock_now(clock), spared = (batch - entry->stamp) / 2;
    unsigned begin = 0, end = 0;
    int marked = 0;
    bool any = false;
    for (unsigned i = 0; i <= BLOCK_PAGES; i++) {
        uint64_t word = i < BLOCK_PAGES ? atomic_load(&clock->words[first + i]) : EPT_LOCAL;
        any |= i < BLOCK_PAGES && word & EPT_LOOKED;
        if (i < BLOCK_PAGES &&
            look_due(word, batch - (uint32_t)(word >> EPT_STAMP_SHIFT), spared) &&
            page_mark(clock, first + i, 0, EPT_LOOKED, false)) {
            clock->ops->accessed_clear(clock->owner, first + i);
            begin = end ? begin : i;
            end = i + 1;
            marked++;
        } else if (ept_word_state(word) == EPT_LOCAL && end) {
            clock->ops->age(clock->owner, first + begin, end - begin);
            worth_count(clock, -1);
            end = 0;
        }
    }
    atomic_fetch_sub_explicit(&clock->budget, marked, memory_order_relaxed);
    return any || marked;
}

/* Keeps half of the blocks on probation on trial, as far as a few looks get. */
static void probation_look(struct clock *clock)
{
    struct clock_entry entry;
    for (unsigned i = 0; i < AGE_BLOCKS && look_worth(clock); i++) {
        if (2 * atomic_load(&clock->rings[CLOCK_TRIAL].count) >=
            atomic_load(&clock->rings[CLOCK_PROBATION].count))
            return;
        if (!clock_pop(clock, CLOCK_PROBATION, &entry))
            return;
        if (block_look(clock, &entry))
            clock_queue_block(clock, entry.block, CLOCK_TRIAL);
        entry.stamp = clock_now(clock);
        clock_requeue(clock, entry, CLOCK_PROBATION, false);
    }
}

/*
 * A page on trial was touched again: it becomes ACTIVE, or where those are too many goes round.
 * Counted before its word says so, as everywhere.
 */
static void page_seen(struct clock *clock, uint64_t page)
{
    bool room = atomic_load(&clock->active_pages) < SEEN_SHARE(clock->local_pages);
    if (room)
        clock_activated(clock, page, 1);
    if (!page_mark(clock, page, EPT_LOOKED, room ? EPT_ACTIVE : 0, true) && room)
        clock_deactivated(clock, page);
    clock_owe(&clock->looks_due, CLOCK_LOOKS_MAX);
    worth_count(clock, SEEN_WORTH);
}

/* ---- the hand of probation ---- */

/* Does what was seen of the page speak for it? A page that somebody called cold has no say. */
static bool page_spared(struct clock *clock, const struct clock_choice *choice, unsigned i,
                        uint64_t word)
{
    if (choice->queue == CLOCK_COLD)
        return false;
    if (!(word & EPT_LOOKED))
        return choice->queue == CLOCK_TRIAL;
    if (!clock->ops->accessed(clock->owner, choice->first_page + i))
        return false;
    page_seen(clock, choice->first_page + i);
    return true;
}

static void block_scan(struct clock *clock, struct clock_choice *choice, uint64_t want, bool urgent)
{
    uint32_t batch = clock_now(clock), waited = batch - choice->stamp;
    uint32_t spared = choice->queue == CLOCK_COLD    ? COLD_AGE
                      : choice->queue == CLOCK_TRIAL ? 0
                                                     : waited / 2;
    for (unsigned i = 0; i < BLOCK_PAGES; i++) {
        uint64_t word =
            atomic_load_explicit(&clock->words[choice->first_page + i], memory_order_relaxed);
        uint32_t age = batch - (uint32_t)(word >> EPT_STAMP_SHIFT);
        if (ept_word_state(word) != EPT_LOCAL || word & EPT_PIN_MASK ||
            (!urgent && (word & EPT_ACTIVE || age < spared)))
            continue;
        if (!urgent && page_spared(clock, choice, i, word))
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
    bool any = clock_pop(clock, CLOCK_COLD, &entry);
    if (!any) {
        probation_look(clock);
        choice->queue = CLOCK_TRIAL;
        any = clock_pop(clock, CLOCK_TRIAL, &entry);
    }
    if (!any) {
        choice->queue = CLOCK_PROBATION;
        any = clock_pop(clock, CLOCK_PROBATION, &entry);
    }
    /*
     * All that is here is ACTIVE. Where all of it is in use too (random touches of a little more
     * than fits), Accessed bits tell nothing, and turns of the hand in search of one that is clear
     * would keep whoever waits for a frame waiting: the oldest block goes then.
     */
    for (unsigned mercy = 2; mercy-- > 0 && !any;) {
        active_age(clock, true, mercy);
        any = clock_pop(clock, CLOCK_PROBATION, &entry);
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
                                choice->more ? choice->stamp : clock_now(clock)};
    clock_requeue(clock, entry, choice->queue, choice->more);
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
                 !atomic_compare_exchange_weak(&clock->words[page], &word,
                                               (word & EPT_LOW_HALF) |
                                                   (uint64_t)(clock_now(clock) - COLD_AGE)
                                                       << EPT_STAMP_SHIFT));
    }
    /* The one visit may find them pinned: without probation no hand would ever come by again. */
    if (demoted)
        clock_queue_block(clock, number, CLOCK_PROBATION);
    clock_queue_block(clock, number, CLOCK_COLD);
}
