/* SPDX-License-Identifier: Apache-2.0 */
/* The replacement policy alone, over words, blocks and Accessed bits of the test's own. */
#include "tests/unit/unit.h"

#include "fault/clock.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS 16u
#define PAGES  (BLOCKS * BLOCK_PAGES)
#define LOCAL  2048u

static ept_word_t words[PAGES];
static struct block blocks[BLOCKS];
static bool accessed[PAGES];
static struct clock policy;
static unsigned resident;
static unsigned aged;

static bool get_accessed(void *owner, uint64_t page)
{
    (void)owner;
    return accessed[page];
}

static void clear_accessed(void *owner, uint64_t page)
{
    (void)owner;
    accessed[page] = false;
}

static void age(void *owner, uint64_t page, uint64_t pages)
{
    (void)owner;
    (void)page;
    aged += (unsigned)pages;
}

static const struct clock_ops ops = {
    .accessed = get_accessed, .accessed_clear = clear_accessed, .age = age};

static void setup(void)
{
    memset(&policy, 0, sizeof(policy));
    policy.words = words;
    policy.blocks = blocks;
    policy.local_pages = LOCAL;
    policy.ops = &ops;
    ck_assert_int_eq(clock_create(&policy, PAGES), 0);
}

static void teardown(void)
{
    clock_destroy(&policy);
}

static void arrive(uint64_t page, bool demanded)
{
    uint64_t word = words[page], stamp = clock_arrival(&policy, word, demanded);
    clock_arrived(&policy, page, 1, (stamp & EPT_ACTIVE) != 0);
    words[page] = stamp | (word & EPT_COPY) | EPT_LOCAL;
    accessed[page] = demanded;
    resident++;
}

/* What evict.c and reclaim.c do with a choice. Pages that left. */
static unsigned leave(const struct clock_choice *choice)
{
    unsigned active = 0;
    for (unsigned i = 0; i < BLOCK_PAGES; i++)
        if (choice->candidates[i / 64] >> (i % 64) & 1)
            active += (words[choice->first_page + i] & EPT_ACTIVE) != 0;
    uint64_t stamp = (uint64_t)clock_batch(&policy, choice->count) << EPT_STAMP_SHIFT;
    for (unsigned i = 0; i < BLOCK_PAGES; i++)
        if (choice->candidates[i / 64] >> (i % 64) & 1)
            words[choice->first_page + i] = stamp | EPT_COPY | EPT_REMOTE;
    clock_left(&policy, choice->first_page, choice->count, active);
    clock_return(&policy, choice);
    resident -= choice->count;
    return choice->count;
}

static unsigned evict(uint64_t want, bool urgent)
{
    struct clock_choice choice;
    return clock_choose(&policy, want, urgent, &choice) ? leave(&choice) : 0;
}

/* Makes room as the reclaimer does, and brings a page in. True: it had to be fetched. */
static bool touch(uint64_t page)
{
    if (ept_word_state(words[page]) == EPT_LOCAL) {
        accessed[page] = true;
        return false;
    }
    for (unsigned i = 0; resident + LOCAL / 16 > LOCAL; i++)
        evict(64, i > 2 * BLOCKS);
    arrive(page, true);
    return true;
}

static bool here(uint64_t page)
{
    return ept_word_state(words[page]) == EPT_LOCAL;
}

START_TEST(new_pages_leave_first_in_first_out)
{
    for (unsigned block = 0; block < 4; block++) {
        for (unsigned i = 0; i < BLOCK_PAGES; i++)
            arrive(block * BLOCK_PAGES + i, true);
        clock_batch(&policy, 0); /* time passes */
        clock_batch(&policy, 0);
    }
    for (unsigned block = 0; block < 4; block++) {
        ck_assert(here(block * BLOCK_PAGES));
        for (unsigned left = 0; left < BLOCK_PAGES;)
            left += evict(100, false);
        ck_assert(!here(block * BLOCK_PAGES));
        ck_assert_uint_eq(resident, (3 - block) * BLOCK_PAGES);
    }
    ck_assert_uint_eq(evict(100, false), 0);
}
END_TEST

START_TEST(late_arrivals_of_a_block_stay_while_its_old_pages_leave)
{
    for (unsigned i = 0; i < 100; i++)
        arrive(i, true);
    for (unsigned i = 0; i < 100; i++)
        clock_batch(&policy, 0);
    for (unsigned i = 100; i < 200; i++)
        arrive(i, true);
    ck_assert_uint_eq(evict(BLOCK_PAGES, false), 100);
    ck_assert(!here(0));
    ck_assert(here(100));
}
END_TEST

START_TEST(a_hot_set_survives_a_scan)
{
    unsigned late = 0, hot = LOCAL / 2;
    for (unsigned i = 0; i < 40000; i++) {
        bool missed = touch((uint64_t)i * 7919 % hot);
        touch(hot + i % (PAGES - hot));
        late += missed && i > 20000;
    }
    ck_assert_uint_le(late, 400); /* of 20,000 */
    ck_assert_uint_gt(aged + policy.active_pages, hot / 2);
}
END_TEST

START_TEST(a_scan_alone_never_becomes_active)
{
    for (unsigned i = 0; i < 4 * PAGES; i++)
        touch(i % PAGES);
    ck_assert_uint_eq(policy.active_pages, 0);
}
END_TEST

START_TEST(active_pages_leave_room_for_probation)
{
    for (unsigned i = 0; i < 60000; i++) {
        touch((uint64_t)i * 7919 % (LOCAL + LOCAL / 4));
        ck_assert_uint_le(policy.active_pages, LOCAL / 4 * 3 + LOCAL / 8);
    }
}
END_TEST

START_TEST(a_page_not_accessed_loses_its_second_chance)
{
    touch(3);
    while (here(3))
        evict(64, false);
    arrive(3, true);
    ck_assert_uint_eq(policy.active_pages, 1);
    accessed[3] = false;
    evict(64, false); /* nothing is on probation: the active ones are looked at */
    ck_assert_uint_eq(policy.active_pages, 0);
}
END_TEST

START_TEST(guessed_pages_do_not_become_active)
{
    touch(3);
    while (here(3))
        evict(64, false);
    arrive(3, false);
    ck_assert_uint_eq(policy.active_pages, 0);
}
END_TEST

START_TEST(cold_pages_are_next)
{
    for (unsigned i = 0; i < 3 * BLOCK_PAGES; i++)
        arrive(i, true);
    clock_cold(&policy, 2 * BLOCK_PAGES + 10, 20);
    ck_assert_uint_eq(evict(BLOCK_PAGES, false), 20);
    ck_assert(!here(2 * BLOCK_PAGES + 10));
    ck_assert(here(0));
    ck_assert(here(2 * BLOCK_PAGES + 9));
}
END_TEST

START_TEST(pinned_pages_are_not_chosen_however_urgent)
{
    arrive(1, true);
    arrive(2, true);
    words[1] += EPT_PIN;
    for (unsigned i = 0; i < 4; i++)
        evict(64, true);
    ck_assert(here(1));
    ck_assert(!here(2));
}
END_TEST

START_TEST(urgent_takes_active_pages)
{
    for (unsigned i = 0; i < 64; i++)
        arrive(i, true);
    while (evict(64, false))
        ;
    for (unsigned i = 0; i < 64; i++)
        arrive(i, true);
    ck_assert_uint_eq(policy.active_pages, 64);
    for (unsigned i = 0; i < 4; i++)
        evict(64, true);
    ck_assert_uint_eq(resident, 0);
    ck_assert_uint_eq(policy.active_pages, 0);
}
END_TEST

/* ---- threads: arrivals race with the hands ---- */

#define ARRIVALS 200000u

static atomic_bool done;

static void *arrive_main(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument;
    uint64_t state = seed;
    for (unsigned i = 0; i < ARRIVALS; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint64_t page = state >> 33 & (PAGES - 1), word = words[page];
        enum ept_state was = ept_word_state(word);
        if ((was != EPT_ABSENT && was != EPT_REMOTE) ||
            !atomic_compare_exchange_strong(&words[page], &word,
                                            (word & ~EPT_STATE_MASK) | EPT_FETCHING))
            continue;
        uint64_t stamp = clock_arrival(&policy, word, true);
        clock_arrived(&policy, page, 1, (stamp & EPT_ACTIVE) != 0);
        atomic_store(&words[page], stamp | (word & EPT_COPY) | EPT_LOCAL);
    }
    return NULL;
}

static unsigned claim_and_leave(struct clock_choice *choice)
{
    unsigned left = 0, active = 0;
    for (unsigned i = 0; i < BLOCK_PAGES; i++) {
        uint64_t page = choice->first_page + i, word = words[page];
        bool chosen = choice->candidates[i / 64] >> (i % 64) & 1;
        if (chosen && ept_word_state(word) == EPT_LOCAL &&
            atomic_compare_exchange_strong(&words[page], &word,
                                           (word & ~EPT_STATE_MASK) | EPT_EVICTING)) {
            active += (word & EPT_ACTIVE) != 0;
            left++;
        } else {
            choice->candidates[i / 64] &= ~(1ULL << (i % 64));
        }
    }
    clock_return(&policy, choice);
    uint64_t stamp = (uint64_t)clock_batch(&policy, left) << EPT_STAMP_SHIFT;
    for (unsigned i = 0; i < BLOCK_PAGES; i++)
        if (choice->candidates[i / 64] >> (i % 64) & 1)
            atomic_store(&words[choice->first_page + i], stamp | EPT_COPY | EPT_REMOTE);
    clock_left(&policy, choice->first_page, left, active);
    return left;
}

static void *evict_main(void *argument)
{
    (void)argument;
    for (unsigned turn = 0; !atomic_load(&done); turn++) {
        struct clock_choice choice;
        if (clock_choose(&policy, 64, turn % 8 == 0, &choice))
            claim_and_leave(&choice);
    }
    return NULL;
}

/* Every page must be found again: a block lost from its queue would keep its pages for good. */
START_TEST(no_block_is_lost_while_pages_arrive_and_leave)
{
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, i < 2 ? arrive_main : evict_main,
                       (void *)(uintptr_t)(i + 1));
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&done, true);
    for (unsigned i = 2; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < 100 * BLOCKS; i++) {
        struct clock_choice choice;
        if (clock_choose(&policy, BLOCK_PAGES, true, &choice))
            claim_and_leave(&choice);
    }
    for (unsigned i = 0; i < PAGES; i++)
        ck_assert(!here(i));
    ck_assert_uint_eq(policy.active_pages, 0);
    for (unsigned i = 0; i < BLOCKS; i++) {
        ck_assert_uint_eq(blocks[i].held, 0);
    }
    for (unsigned i = 0; i < CLOCK_QUEUES; i++)
        ck_assert_uint_le(policy.rings[i].count, BLOCKS);
}
END_TEST

static void *come_and_go(void *argument)
{
    (void)argument;
    while (!atomic_load(&done)) {
        clock_arrived(&policy, 1, 1, 1);
        clock_left(&policy, 1, 1, 1);
    }
    return NULL;
}

/* The block is looked at all the time while one page is held on probation and ACTIVE ones come and
 * go: however their numbers are read, it stays in the queue. */
START_TEST(a_block_stays_on_probation_while_active_pages_come_and_go)
{
    pthread_t threads[2];
    clock_arrived(&policy, 0, 1, 0);
    words[0] = EPT_LOCAL | EPT_PIN;
    for (unsigned i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, come_and_go, NULL);
    for (unsigned i = 0; i < 300000; i++) {
        struct clock_choice choice;
        if (clock_choose(&policy, 64, false, &choice))
            clock_return(&policy, &choice);
        ck_assert(atomic_load(&blocks[0].queued) & 1u << CLOCK_PROBATION);
    }
    atomic_store(&done, true);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}
END_TEST

/* Candidates of so many choices, for a reclaimer that is in no hurry. */
static unsigned candidates(unsigned choices)
{
    unsigned count = 0;
    for (unsigned i = 0; i < choices; i++) {
        struct clock_choice choice;
        if (!clock_choose(&policy, BLOCK_PAGES, false, &choice))
            continue;
        count += choice.count;
        clock_return(&policy, &choice);
    }
    return count;
}

static void arrive_active(uint64_t page, unsigned pages)
{
    clock_arrived(&policy, page, pages, pages);
    for (uint64_t i = page; i < page + pages; i++) {
        words[i] = EPT_LOCAL | EPT_ACTIVE;
        accessed[i] = true;
    }
}

START_TEST(something_leaves_though_all_is_active_and_in_use)
{
    for (uint64_t block = 0; block < BLOCKS; block++)
        arrive_active(block * BLOCK_PAGES, BLOCK_PAGES);
    ck_assert_uint_gt(candidates(1), 0);
}
END_TEST

/* Advice that a page is cold, given while a request holds it, may not hide it from the hands. */
START_TEST(a_cold_page_that_was_pinned_leaves_later)
{
    arrive_active(0, 8);
    for (uint64_t i = 0; i < 8; i++)
        words[i] += EPT_PIN;
    clock_cold(&policy, 0, 8);
    ck_assert_uint_eq(candidates(4), 0);
    for (uint64_t i = 0; i < 8; i++)
        words[i] -= EPT_PIN;
    ck_assert_uint_gt(candidates(4), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("clock");
    TCase *tcase = tcase_create("policy");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, new_pages_leave_first_in_first_out);
    tcase_add_test(tcase, late_arrivals_of_a_block_stay_while_its_old_pages_leave);
    tcase_add_test(tcase, a_hot_set_survives_a_scan);
    tcase_add_test(tcase, a_scan_alone_never_becomes_active);
    tcase_add_test(tcase, active_pages_leave_room_for_probation);
    tcase_add_test(tcase, a_page_not_accessed_loses_its_second_chance);
    tcase_add_test(tcase, guessed_pages_do_not_become_active);
    tcase_add_test(tcase, cold_pages_are_next);
    tcase_add_test(tcase, pinned_pages_are_not_chosen_however_urgent);
    tcase_add_test(tcase, urgent_takes_active_pages);
    tcase_add_test(tcase, no_block_is_lost_while_pages_arrive_and_leave);
    tcase_add_test(tcase, a_block_stays_on_probation_while_active_pages_come_and_go);
    tcase_add_test(tcase, something_leaves_though_all_is_active_and_in_use);
    tcase_add_test(tcase, a_cold_page_that_was_pinned_leaves_later);
    suite_add_tcase(suite, tcase);
    return unit_run(suite);
}
