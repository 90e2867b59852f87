/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long a fetch is waited for, over a network that is slow but healthy, and what is said of
 * pages that could not be fetched ahead. Needs $MEMSERVER.
 */
#include "fault/engine_internal.h"

/* After the engine's own header, whose inline functions name a parameter as this one its engine. */
#include "tests/unit/fault/engine.h"

static void setup_late(void)
{
    transport = "loopback,delay=250ms"; /* more than two slices of patience */
    setup();
}

/* Writes more than there is room for, and waits until there are frames to spare. */
static void pages_send_away(void)
{
    for (uint64_t i = 0; i < LOCAL_PAGES + 256; i++)
        page_put(context, FIRST + i, i + 1);
    for (int i = 0; i < 600 && counters().resident_pages > LOCAL_PAGES - 8; i++)
        usleep(50000);
    ck_assert_uint_le(counters().resident_pages, LOCAL_PAGES - 8);
}

static uint64_t remote_page(void)
{
    uint64_t page = FIRST;
    while (page < FIRST + LOCAL_PAGES && residency(page) != FV_PAGE_REMOTE)
        page++;
    ck_assert_uint_lt(page, FIRST + LOCAL_PAGES);
    return page;
}

START_TEST(a_read_is_not_given_up_for_what_was_waited_for_before_it)
{
    pages_send_away();
    uint64_t page = 0;
    struct patience patience = patience_begin(engine);
    patience.left_ns = 1; /* the frame came at the last moment */
    /* On a busy host a read may be there before this thread gets to wait for it: then another. */
    for (int tries = 0; tries < 20 && patience.left_ns; tries++) {
        page = remote_page();
        ck_assert_int_eq(page_resolve(context, page, false, true, &patience), 0);
    }
    ck_assert_uint_eq(patience.left_ns, 0);
    ck_assert_int_eq(fault_engine_error(engine), 0);
    ck_assert_uint_eq(page_get(context, page), page - FIRST + 1);
}
END_TEST

static void setup_trickling(void)
{
    transport = "loopback,bandwidth=400K"; /* a page takes 82 ms, less than a slice of patience */
    setup();
}

/* Makes them leave: cold, and more zeroes than there is room for, which cost no write. */
static void scattered_send_away(unsigned pages)
{
    for (uint64_t i = 0; i < pages; i++)
        page_put(context, FIRST + 2 * i, i + 1);
    fault_cold(engine, FIRST, 2 * pages);
    for (uint64_t page = FIRST + 512; page < FIRST + 512 + 4 * LOCAL_PAGES; page++) {
        ck_assert_int_eq(fault_pin(context, page, 1, true), 0);
        fault_unpin(engine, page, 1);
    }
    for (uint64_t i = 0, waits = 0; i < pages && waits < 600; waits++) {
        if (residency(FIRST + 2 * i) == FV_PAGE_REMOTE &&
            frames_free(engine) >= engine->low_free_pages)
            i++;
        else
            usleep(50000); /* being written, or the reclaimer is not done */
    }
}

START_TEST(reads_that_trickle_in_do_not_hold_the_lane)
{
    struct lane *lane = &engine->lanes[context->lane];
    scattered_send_away(FLIGHT_PIECES);
    pthread_mutex_lock(&lane->lock); /* or the lander would send or land some of it */
    for (uint64_t i = 0; i < FLIGHT_PIECES; i++)
        ck_assert_uint_eq(flight_gather(engine, lane, FIRST + 2 * i, 1, false), 1);
    /* The flight takes 1.3 s to arrive, and a bit of it always comes in time. */
    ck_assert_int_eq(lane_land(engine, lane, 1, PATIENCE_SLICE_NS), 0);
    pthread_mutex_unlock(&lane->lock);
    for (uint64_t i = 0; i < FLIGHT_PIECES; i++)
        ck_assert_uint_eq(page_get(context, FIRST + 2 * i), i + 1);
}
END_TEST

/* As when the memory node has no connection to spare. */
START_TEST(a_lane_without_a_queue_passes_no_page_as_prefetched)
{
    pages_send_away();
    uint64_t page = remote_page(), before = counters().prefetched_pages;
    engine->lanes[context->lane].refused = true;
    rdma_queue_destroy(engine->lanes[context->lane].prefetch);
    engine->lanes[context->lane].prefetch = NULL;
    ck_assert_int_eq(fault_prefetch(context, page, 1), 0);
    ck_assert_uint_eq(residency(page), FV_PAGE_REMOTE);
    ck_assert_uint_eq(page_get(context, page), page - FIRST + 1);
    ck_assert_uint_eq(counters().prefetched_pages, before);
    ck_assert_int_eq(fault_engine_error(engine), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fetch");
    TCase *late = tcase_create("late");
    engine_requirements();
    tcase_add_checked_fixture(late, setup_late, teardown);
    tcase_set_timeout(late, 120);
    tcase_add_test(late, a_read_is_not_given_up_for_what_was_waited_for_before_it);
    suite_add_tcase(suite, late);
    TCase *trickling = tcase_create("trickling");
    tcase_add_checked_fixture(trickling, setup_trickling, teardown);
    tcase_set_timeout(trickling, 120);
    tcase_add_test(trickling, reads_that_trickle_in_do_not_hold_the_lane);
    suite_add_tcase(suite, trickling);
    TCase *alone = tcase_create("alone");
    tcase_add_checked_fixture(alone, setup, teardown);
    tcase_set_timeout(alone, 120);
    tcase_add_test(alone, a_lane_without_a_queue_passes_no_page_as_prefetched);
    suite_add_tcase(suite, alone);
    return unit_run(suite);
}
