/* SPDX-License-Identifier: Apache-2.0 */
/* What came along with a page that was missing: never a page that was here before. */
#include "tests/unit/fault/engine.h"

/* As a vCPU touches a page: only what is not here is a miss. Pages that came, from *first on. */
static uint64_t touch(uint64_t page, uint64_t *first)
{
    uint64_t word = atomic_load(&ept_words(ept)[page]);
    if (ept_word_state(word) == EPT_LOCAL || ept_word_state(word) == EPT_EVICTING)
        return 0;
    ck_assert_int_eq(fault_resolve(context, page, false), 0);
    uint64_t pages = fault_arrivals(context, first);
    if (pages)
        ck_assert(*first <= page && page < *first + pages);
    return pages;
}

START_TEST(first_touches_come_in_runs)
{
    uint64_t first = 0, at = FIRST + 100, run = touch(at, &first);
    ck_assert_uint_eq(first, at);
    ck_assert_uint_gt(run, 1);
    for (int i = 0; i < 3; i++) { /* the next run begins behind it: what lies below was here */
        at += run;
        run = touch(at, &first);
        ck_assert_uint_eq(first, at);
        ck_assert_uint_gt(run, 1);
    }
    ck_assert_uint_eq(touch(at + 1, &first), 0);
    /* Resident: the page itself, though its neighbours are here too. */
    ck_assert_int_eq(fault_resolve(context, at + 1, false), 0);
    ck_assert_uint_eq(fault_arrivals(context, &first), 1);
    ck_assert_uint_eq(first, at + 1);
}
END_TEST

/* The ends of the address space have neighbours that can never come. */
START_TEST(nothing_comes_from_beyond_the_span)
{
    uint64_t first, last = (ept_span(ept) >> EPT_PAGE_SHIFT) - 1;
    ck_assert_int_eq(fault_resolve(context, last + 1, false), -EFAULT);
    ck_assert_int_eq(fault_resolve(context, last, false), -EFAULT);
    ck_assert_uint_eq(fault_arrivals(context, &first), 0);
}
END_TEST

/* Pages far away, read in one direction: what comes along lies ahead, and is no page twice. */
static void read_far(bool down)
{
    uint64_t most = 4 * LOCAL_PAGES, came = 0, first = 0;
    for (uint64_t i = 0; i < most; i++)
        page_put(context, FIRST + i, i + 1);
    for (uint64_t i = 0; i < 2 * LOCAL_PAGES; i++) {
        uint64_t page = FIRST + (down ? most - LOCAL_PAGES - 1 - i : i);
        uint64_t pages = touch(page, &first);
        ck_assert_uint_le(pages, 64);
        if (pages > 1 && i > 64)
            ck_assert_uint_eq(down ? first + pages - 1 : first, page);
        came += pages;
        ck_assert_uint_eq(page_get(context, page), page - FIRST + 1);
    }
    ck_assert_uint_gt(came, 0);
    ck_assert_uint_le(came, 2 * LOCAL_PAGES + 64);
}

START_TEST(a_sequence_finds_them_ahead)
{
    read_far(false);
}
END_TEST

START_TEST(a_descending_sequence_finds_them_below)
{
    read_far(true);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("arrivals");
    TCase *tests = tcase_create("engine");
    engine_requirements();
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, first_touches_come_in_runs);
    tcase_add_test(tests, nothing_comes_from_beyond_the_span);
    tcase_add_test(tests, a_sequence_finds_them_ahead);
    tcase_add_test(tests, a_descending_sequence_finds_them_below);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
