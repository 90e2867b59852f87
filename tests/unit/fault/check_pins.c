/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pins of pages that the host kernel fills (shared files), which have no state, beside those of
 * ordinary pages that were mapped in their place while a request still held them.
 */
#include "tests/unit/fault/engine.h"

#include <pthread.h>

#define PAGES  64u
#define ROUNDS 4000u

static unsigned pins_of(uint64_t page)
{
    uint64_t word = atomic_load(&ept_words(ept)[page]);
    return ept_word_state(word) == EPT_LOCAL ? (unsigned)((word & EPT_PIN_MASK) / EPT_PIN) : 0;
}

static void pin_as(bool host, uint64_t page, uint64_t pages)
{
    atomic_store(&host_fills, host);
    ck_assert_int_eq(fault_pin(context, page, pages, true), 0);
    atomic_store(&host_fills, false);
}

static void crowd_out(void)
{
    for (uint64_t i = PAGES; i < PAGES + 4 * LOCAL_PAGES; i++)
        page_put(context, FIRST + i, i);
}

START_TEST(pages_of_the_host_have_no_state)
{
    pin_as(true, FIRST, PAGES);
    for (uint64_t i = 0; i < PAGES; i++)
        ck_assert_uint_eq(atomic_load(&ept_words(ept)[FIRST + i]), 0);
    fault_unpin(engine, FIRST, PAGES);
    ck_assert_uint_eq(page_get(context, FIRST), 0);
    ck_assert_uint_eq(pins_of(FIRST), 0);
}
END_TEST

/* A file's page is held, memory is mapped over it and held; the first lets go before the second. */
START_TEST(who_held_the_file_does_not_let_go_for_who_holds_the_memory)
{
    pin_as(true, FIRST, PAGES);
    pin_as(false, FIRST, PAGES);
    memset(bytes_of(FIRST), 0x11, PAGES * EPT_PAGE_BYTES);
    fault_unpin(engine, FIRST, PAGES);
    crowd_out();
    for (uint64_t i = 0; i < PAGES; i++)
        ck_assert_uint_eq(pins_of(FIRST + i), 1);
    memset(bytes_of(FIRST), 0x22, PAGES * EPT_PAGE_BYTES); /* a missing page would end the test */
    fault_unpin(engine, FIRST, PAGES);
    crowd_out();
    ck_assert_uint_eq(resident(FIRST, PAGES), 0);
    for (uint64_t i = 0; i < PAGES; i++) {
        ck_assert_int_eq(fault_pin(context, FIRST + i, 1, false), 0);
        ck_assert_uint_eq(bytes_of(FIRST + i)[511], 0x2222222222222222);
        fault_unpin(engine, FIRST + i, 1);
        ck_assert_uint_eq(pins_of(FIRST + i), 0);
    }
}
END_TEST

/* The other way round, a page stays longer than it has to: until both have let go. */
START_TEST(the_last_to_let_go_ends_the_pin)
{
    pin_as(true, FIRST, 1);
    pin_as(false, FIRST, 1);
    pin_as(false, FIRST, 1);
    for (unsigned left = 2;; left--) {
        ck_assert_uint_eq(pins_of(FIRST), left);
        if (left == 0)
            break;
        if (left == 2)
            fault_unpin(engine, FIRST, 1); /* takes the file's */
        fault_unpin(engine, FIRST, 1);
    }
}
END_TEST

START_TEST(pins_of_one_page_are_bounded)
{
    int error = 0;
    unsigned count = 0;
    atomic_store(&host_fills, true);
    while (count <= UINT16_MAX && !(error = fault_pin(context, FIRST, 1, false)))
        count++;
    ck_assert_int_eq(error, -EBUSY);
    ck_assert_uint_eq(count, UINT16_MAX);
    while (count--)
        fault_unpin(engine, FIRST, 1);
    atomic_store(&host_fills, false);
    ck_assert_uint_eq(page_get(context, FIRST), 0);
    ck_assert_uint_eq(pins_of(FIRST), 0);
}
END_TEST

static atomic_bool over;

/* Holds the page as whichever it finds, and lets go of it. */
static void *holder(void *unused)
{
    struct fault_context *own;
    (void)unused;
    ck_assert_int_eq(fault_context_create(engine, &own), 0);
    while (!atomic_load(&over))
        if (!fault_pin(own, FIRST, 1, true))
            fault_unpin(engine, FIRST, 1);
    fault_context_destroy(own);
    return NULL;
}

/* Mapped as the one and the other again and again: at no time may the pin of ours be taken off. */
START_TEST(a_pin_holds_among_holders_of_both_kinds)
{
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, holder, NULL), 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        atomic_store(&host_fills, true);
        ck_assert_int_eq(fault_discard(context, FIRST, 1, true), 0);
        if (round % 16 == 0)
            usleep(100);
        atomic_store(&host_fills, false);
        ck_assert_int_eq(fault_pin(context, FIRST, 1, true), 0);
        for (int i = 0; i < 50; i++)
            ck_assert_uint_ge(pins_of(FIRST), 1);
        fault_unpin(engine, FIRST, 1);
    }
    atomic_store(&over, true);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(pins_of(FIRST), 0);
    crowd_out();
    ck_assert_uint_eq(resident(FIRST, 1), 0);
}
END_TEST

int main(void)
{
    engine_requirements();
    Suite *suite = suite_create("pins");
    TCase *tests = tcase_create("pins");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, pages_of_the_host_have_no_state);
    tcase_add_test(tests, who_held_the_file_does_not_let_go_for_who_holds_the_memory);
    tcase_add_test(tests, the_last_to_let_go_ends_the_pin);
    tcase_add_test(tests, pins_of_one_page_are_bounded);
    tcase_add_test(tests, a_pin_holds_among_holders_of_both_kinds);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
