/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open demands: whoever needs the page lands it, nothing is held meanwhile, and no byte is lost
 * however many threads, evictions and discards come in between. Needs $MEMSERVER and /dev/kvm.
 */
#include "fault/engine_internal.h"

/* After the engine's own header, whose inline functions name a parameter as this one its engine. */
#include "tests/unit/fault/engine.h"

#include <pthread.h>

#define OPENERS     4u
#define OPENER_WORK 1500u
#define STORM_PAGES (LOCAL_PAGES + 1024u)

static void setup_far(void)
{
    transport =
        "loopback,delay=20ms"; /* so that the page is still on its way when it is asked for */
    setup();
}

static void setup_near(void)
{
    transport = "loopback,delay=100us,jitter=300us";
    setup();
}

/* Writes more than there is room for; a page of it that left. `nth`: another one each. */
static uint64_t remote_page(unsigned nth)
{
    static bool written;
    uint64_t page = FIRST;
    for (uint64_t i = 0; i < LOCAL_PAGES + 256 && !written; i++)
        page_put(context, FIRST + i, i + 1);
    written = true;
    for (int i = 0; i < 600 && counters().resident_pages > LOCAL_PAGES - 8; i++)
        usleep(50000);
    while (page < FIRST + LOCAL_PAGES && (residency(page) != FV_PAGE_REMOTE || nth-- > 0))
        page++;
    ck_assert_uint_lt(page, FIRST + LOCAL_PAGES);
    return page;
}

static unsigned lane_of(uint64_t page)
{
    return word_lane(atomic_load(&engine->words[page]));
}

START_TEST(one_is_opened_and_closed)
{
    uint64_t page = remote_page(0), before = counters().demand_fetches;
    uint64_t timed = counters().fetch_ns.count;
    ck_assert_int_eq(fault_demand_close(context), 0); /* nothing is open */
    ck_assert_int_eq(fault_demand_open(context, page, false), 1);
    ck_assert_uint_eq(lane_of(page), LANES + 1 + context->lane);
    ck_assert_int_eq(fault_demand_close(context), 1);
    ck_assert_int_eq(residency(page), FV_PAGE_LOCAL);
    ck_assert_uint_eq(counters().demand_fetches, before + 1);
    ck_assert_uint_eq(counters().fetch_ns.count, timed + 1); /* to its end: that is what it took */
    ck_assert_int_eq(fault_demand_open(context, page, false), 0); /* it is here */
    ck_assert_uint_eq(page_get(context, page), page - FIRST + 1);
}
END_TEST

START_TEST(nobody_has_to_close_one)
{
    uint64_t page = remote_page(0);
    ck_assert_int_eq(fault_demand_open(context, page, true), 1);
    for (int i = 0; i < 100 && residency(page) != FV_PAGE_LOCAL; i++)
        usleep(20000); /* the lander */
    ck_assert_int_eq(residency(page), FV_PAGE_LOCAL);
    ck_assert_int_eq(fault_demand_close(context), 0);
    ck_assert_uint_eq(page_get(context, page), page - FIRST + 1);
}
END_TEST

START_TEST(the_thread_itself_may_need_it_or_another_page)
{
    uint64_t page = remote_page(0), other = remote_page(1);
    ck_assert_int_eq(fault_demand_open(context, page, false), 1);
    ck_assert_int_eq(fault_resolve(context, other, false), 0); /* the same queue and buffer */
    ck_assert_int_eq(residency(page), FV_PAGE_LOCAL);
    ck_assert_uint_eq(page_get(context, other), other - FIRST + 1);
    ck_assert_int_eq(fault_demand_close(context), 0);
    page = remote_page(0);
    ck_assert_int_eq(fault_demand_open(context, page, false), 1);
    ck_assert_uint_eq(page_get(context, page), page - FIRST + 1);
    ck_assert_int_eq(fault_demand_close(context), 0);
}
END_TEST

START_TEST(another_thread_or_a_discard_does_not_wait_for_the_close)
{
    struct fault_context *other;
    uint64_t page = remote_page(0);
    ck_assert_int_eq(fault_context_create(engine, &other), 0);
    ck_assert_int_eq(fault_demand_open(context, page, false), 1);
    ck_assert_uint_eq(page_get(other, page), page - FIRST + 1);
    page = remote_page(0);
    ck_assert_int_eq(fault_demand_open(context, page, false), 1);
    ck_assert_int_eq(fault_discard(other, page, 1, false), 0);
    ck_assert_int_eq(residency(page), FV_PAGE_ABSENT);
    ck_assert_int_eq(fault_demand_close(context), 0);
    ck_assert_uint_eq(page_get(context, page), 0);
    fault_context_destroy(other);
}
END_TEST

/* ---- under storm ---- */

static pthread_mutex_t page_locks[STORM_PAGES];
static uint64_t versions[STORM_PAGES];

/* Opens, sometimes does something else meanwhile, closes, then changes the page. */
static void *opener(void *number)
{
    uint64_t random = 88172645463325252u + (uintptr_t)number;
    struct fault_context *own;
    ck_assert_int_eq(fault_context_create(engine, &own), 0);
    own->lane = (uint32_t)(uintptr_t)number % 2; /* two share a lane */
    for (unsigned i = 0; i < OPENER_WORK; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        uint64_t at = (random >> 33) % STORM_PAGES, other = (random >> 13) % STORM_PAGES;
        int opened = fault_demand_open(own, FIRST + at, true);
        ck_assert_int_ge(opened, 0);
        if (random & 1)
            ck_assert_int_eq(fault_resolve(own, FIRST + other, false), 0);
        if (random & 2)
            (void)fault_prefetch(own, FIRST + other, 8);
        if (random & 4) /* else it is left to others, until the next one */
            ck_assert_int_ge(fault_demand_close(own), 0);
        pthread_mutex_lock(&page_locks[at]);
        ck_assert_uint_eq(page_get(own, FIRST + at), versions[at]);
        page_put(own, FIRST + at, ++versions[at]);
        pthread_mutex_unlock(&page_locks[at]);
    }
    ck_assert_int_ge(fault_demand_close(own), 0);
    fault_context_destroy(own);
    return NULL;
}

START_TEST(no_byte_is_lost_in_a_storm)
{
    pthread_t threads[OPENERS];
    for (uint64_t i = 0; i < STORM_PAGES; i++) {
        pthread_mutex_init(&page_locks[i], NULL);
        page_put(context, FIRST + i, versions[i] = i + 1);
    }
    for (uintptr_t i = 0; i < OPENERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, opener, (void *)i), 0);
    for (unsigned i = 0; i < OPENERS; i++)
        pthread_join(threads[i], NULL);
    for (uint64_t i = 0; i < STORM_PAGES; i++)
        ck_assert_uint_eq(page_get(context, FIRST + i), versions[i]);
    ck_assert_uint_le(counters().resident_peak_pages, LOCAL_PAGES);
    for (unsigned i = 0; i < LANES; i++)
        ck_assert_uint_eq(atomic_load(&engine->lanes[i].open_page), PAGE_NONE);
}
END_TEST

int main(void)
{
    engine_requirements();
    Suite *suite = suite_create("open");
    TCase *far = tcase_create("far"), *near = tcase_create("near");
    tcase_add_checked_fixture(far, setup_far, teardown);
    tcase_add_test(far, one_is_opened_and_closed);
    tcase_add_test(far, nobody_has_to_close_one);
    tcase_add_test(far, the_thread_itself_may_need_it_or_another_page);
    tcase_add_test(far, another_thread_or_a_discard_does_not_wait_for_the_close);
    tcase_set_timeout(far, 60);
    suite_add_tcase(suite, far);
    tcase_add_checked_fixture(near, setup_near, teardown);
    tcase_add_test(near, no_byte_is_lost_in_a_storm);
    tcase_set_timeout(near, 120);
    suite_add_tcase(suite, near);
    return unit_run(suite);
}
