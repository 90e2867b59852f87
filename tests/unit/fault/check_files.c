/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of files, which are not written back but read again: of a program at work most are its
 * code.
 */
#include "tests/unit/fault/engine.h"

#define HOT_PAGES   40u
#define HOT_STRIDE  64u  /* pages: each is filled apart */
#define FRESH_PAGES 400u /* a round */
#define ROUNDS      24u

static uint64_t hot_page(unsigned i)
{
    return FILE_FIRST + (uint64_t)i * HOT_STRIDE;
}

static void setup_file(void)
{
    has_file = true;
    setup();
}

/* Touched again and again beside data that comes once and goes, they come back as hot. */
START_TEST(code_that_is_used_stays)
{
    uint64_t fresh = FIRST, early = 0, late = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t before = counters().faults;
        for (unsigned i = 0; i < HOT_PAGES; i++)
            ck_assert_uint_eq(page_get(context, hot_page(i)), hot_page(i));
        *(round < ROUNDS / 2 ? &early : &late) += counters().faults - before;
        for (unsigned i = 0; i < FRESH_PAGES; i++)
            page_put(context, fresh++, i + 1);
        usleep(20000); /* the reclaimer works ahead; give it its time */
    }
    ck_assert_uint_ge(early, HOT_PAGES);
    ck_assert_uint_lt(late, HOT_PAGES); /* in twelve rounds; each round, if it were not known */
    ck_assert_uint_ge(counters().refaulted_pages, HOT_PAGES / 2);
    ck_assert_uint_ge(atomic_load(&file_reads), HOT_PAGES);
    ck_assert_uint_le(counters().resident_peak_pages, LOCAL_PAGES);
}
END_TEST

int main(void)
{
    engine_requirements();
    Suite *suite = suite_create("files");
    TCase *tests = tcase_create("files");
    tcase_add_checked_fixture(tests, setup_file, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, code_that_is_used_stays);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
