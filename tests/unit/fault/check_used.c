/* SPDX-License-Identifier: Apache-2.0 */
/* What the engine says of a page that was fetched unasked: was it used? Also when it has left. */
#include "fault/engine_internal.h"
#include "tests/unit/fault/engine.h"

#define RANGE 64u

/* With tables, so that there are A bits. */
static void setup_tables(void)
{
    setup();
    ck_assert_int_eq(
        ept_protect(ept, FIRST << EPT_PAGE_SHIFT, EPT_EAGER_BYTES, EPT_READ | EPT_WRITE), 0);
}

/* As a CPU does that reads the page. */
static void read_by_cpu(uint64_t page)
{
    ept_prime(ept, page, 1, true, false);
}

static void used_are(bool first, bool second, bool third)
{
    ck_assert_int_eq(fault_was_used(engine, FIRST), first);
    ck_assert_int_eq(fault_was_used(engine, FIRST + 8), second);
    ck_assert_int_eq(fault_was_used(engine, FIRST + 16), third);
}

static void range_prefetch(void)
{
    range_send_away(RANGE);
    prefetch_until_resident(FIRST, RANGE);
    used_are(false, false, false);
}

/* Others come until the range has left. */
static void range_push_out(void)
{
    for (uint64_t i = RANGE; i < RANGE + 2 * LOCAL_PAGES; i++)
        page_put(context, FIRST + i, 7);
    ck_assert_uint_eq(resident(FIRST, RANGE), 0);
}

/* Pages that come unasked are on probation, and leave before anybody asks what became of them. */
START_TEST(a_page_was_used_or_not_also_after_it_left)
{
    range_prefetch();
    read_by_cpu(FIRST);
    ck_assert_uint_eq(page_get(context, FIRST + 8), 9000); /* by a pin */
    used_are(true, true, false);
    range_push_out();
    used_are(true, true, false);
    /* Wanted after all, but the advice had come too early. */
    ck_assert_uint_eq(page_get(context, FIRST), 1000);
    ck_assert_uint_eq(page_get(context, FIRST + 16), 17000);
    used_are(true, true, false);
    range_push_out();
    used_are(true, true, false);
    prefetch_until_resident(FIRST, RANGE); /* anew */
    used_are(false, false, false);
}
END_TEST

/* Between the claim and the drop a page can be read without a fault, and be wanted by one. */
START_TEST(a_page_that_is_used_while_it_leaves_was_used)
{
    const uint64_t candidates[8] = {1ULL << 0 | 1ULL << 8 | 1ULL << 16};
    struct evictor *evictor;
    range_prefetch();
    ck_assert_int_eq(evictor_create(engine, &evictor), 0);
    ck_assert_int_eq(evictor_begin(evictor, FIRST, candidates), 3);
    read_by_cpu(FIRST);
    used_are(true, false, false);
    atomic_fetch_or(&engine->words[FIRST + 8], EPT_RESCUE);
    ck_assert_int_eq(evictor_finish(evictor), 2);
    evictor_destroy(evictor);
    ck_assert_uint_eq(residency(FIRST), FV_PAGE_REMOTE);
    ck_assert_uint_eq(residency(FIRST + 8), FV_PAGE_LOCAL);
    used_are(true, true, false);
    struct fault_counters now = counters();
    ck_assert_uint_ge(now.samples_used, 1);
    ck_assert_uint_ge(now.samples_wasted, 1);
}
END_TEST

/* A page that its program freed, or emptied, was used all the same. */
START_TEST(a_page_that_is_given_up_was_used)
{
    range_prefetch();
    read_by_cpu(FIRST);
    ck_assert_int_eq(fault_discard(context, FIRST, 1, false), 0);
    ck_assert_int_eq(fault_pin(context, FIRST + 8, 1, true), 0);
    memset(bytes_of(FIRST + 8), 0, EPT_PAGE_BYTES);
    fault_unpin(engine, FIRST + 8, 1);
    ck_assert_int_eq(fault_discard(context, FIRST + 16, 1, false), 0);
    used_are(true, true, false);
    range_push_out();
    ck_assert_uint_eq(residency(FIRST + 8), FV_PAGE_ABSENT);
    used_are(true, true, false);
    page_put(context, FIRST, 3);
    page_put(context, FIRST + 16, 3);
    used_are(true, true, false);
}
END_TEST

int main(void)
{
    engine_requirements();
    Suite *suite = suite_create("used");
    TCase *tests = tcase_create("pages");
    tcase_add_checked_fixture(tests, setup_tables, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, a_page_was_used_or_not_also_after_it_left);
    tcase_add_test(tests, a_page_that_is_used_while_it_leaves_was_used);
    tcase_add_test(tests, a_page_that_is_given_up_was_used);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
