/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prefetchers against access patterns: pure prediction, so a small world stands in for the engine.
 * A page is here once it was fetched; touches of the others are misses; a marker is reached when
 * the program gets to the first page of the latest plan.
 */
#include "fault/prefetch.h"
#include "tests/unit/unit.h"

#include <stdlib.h>
#include <string.h>

#define PAGES     65536u
#define MAX_AHEAD 256u
#define MARKERS   16u

static struct prefetch_state state;
static bool here[PAGES], used[PAGES];
static uint64_t markers[MARKERS];
static unsigned misses, fetched, next_marker;

static void world_reset(void)
{
    memset(&state, 0, sizeof(state));
    memset(here, 0, sizeof(here));
    memset(used, 0, sizeof(used));
    memset(markers, 0xff, sizeof(markers));
    misses = fetched = next_marker = 0;
}

static void tell(const struct prefetcher *by, uint64_t page, enum prefetch_cause cause)
{
    struct prefetch_touch touch = {
        .page = page, .cause = cause, .max_pages = MAX_AHEAD, .accuracy_percent = 100};
    struct prefetch_plan plan;
    uint64_t marker = UINT64_MAX;
    by->plan(&state, &touch, &plan);
    ck_assert_uint_le(plan.count, PREFETCH_RUNS);
    for (uint32_t i = 0; i < plan.count; i++) {
        ck_assert_uint_ge(plan.runs[i].pages, 1);
        ck_assert_uint_le(plan.runs[i].pages, PREFETCH_RUN_PAGES);
        for (uint64_t at = plan.runs[i].page; at < plan.runs[i].page + plan.runs[i].pages; at++) {
            if (at >= PAGES || here[at])
                continue;
            here[at] = true;
            fetched++;
            marker = marker == UINT64_MAX ? at : marker;
        }
    }
    if (plan.count)
        by->posted(&state, &plan, prefetch_plan_pages(&plan));
    if (marker != UINT64_MAX)
        markers[next_marker++ % MARKERS] = marker;
}

static void touch_page(const struct prefetcher *by, uint64_t page)
{
    ck_assert_uint_lt(page, PAGES);
    used[page] = true;
    for (unsigned i = 0; i < MARKERS; i++) {
        if (markers[i] == page) {
            markers[i] = UINT64_MAX;
            tell(by, page, PREFETCH_REACHED);
        }
    }
    if (here[page])
        return;
    here[page] = true;
    misses++;
    tell(by, page, PREFETCH_MISS);
}

static unsigned wasted(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < PAGES; i++)
        count += here[i] && !used[i];
    return count;
}

static const struct prefetcher *const followers[] = {&prefetch_readahead, &prefetch_trend,
                                                     &prefetch_auto};

START_TEST(none_fetches_nothing)
{
    world_reset();
    for (uint64_t i = 0; i < 1000; i++)
        touch_page(&prefetch_none, i);
    ck_assert_uint_eq(fetched, 0);
    ck_assert_uint_eq(misses, 1000);
}
END_TEST

START_TEST(a_sequence_is_covered)
{
    world_reset();
    for (uint64_t i = 0; i < 20000; i++)
        touch_page(followers[_i], 100 + i);
    ck_assert_uint_le(misses, 1000); /* coverage of 95 % */
    ck_assert_uint_le(wasted(), 2 * MAX_AHEAD);
}
END_TEST

START_TEST(a_sequence_downwards_is_covered)
{
    world_reset();
    for (uint64_t i = 0; i < 20000; i++)
        touch_page(followers[_i], PAGES - 100 - i);
    ck_assert_uint_le(misses, 1000);
    ck_assert_uint_le(wasted(), 2 * MAX_AHEAD);
}
END_TEST

START_TEST(a_sequence_that_ends_at_page_0_stops_there)
{
    world_reset();
    for (uint64_t i = 200; i > 0; i--)
        touch_page(&prefetch_auto, i);
    ck_assert_uint_lt(misses, 40);
}
END_TEST

START_TEST(strides_are_followed)
{
    static const int strides[] = {2, 3, 7, -5, 16};
    world_reset();
    int64_t page = strides[_i] > 0 ? 50 : PAGES - 50;
    for (unsigned i = 0; i < 3000; i++, page += strides[_i])
        touch_page(&prefetch_auto, (uint64_t)page);
    ck_assert_uint_le(misses, 150);
    ck_assert_uint_le(wasted(), 2 * MAX_AHEAD);
}
END_TEST

START_TEST(interleaved_sequences_are_told_apart)
{
    world_reset();
    for (uint64_t i = 0; i < 3000; i++)
        for (uint64_t s = 0; s < 8; s++)
            touch_page(&prefetch_auto, s * 8000 + (s % 2 ? 4000 - i : i));
    ck_assert_uint_le(misses, 3000 * 8 / 20);
    ck_assert_uint_le(wasted(), 8 * 2 * MAX_AHEAD);
}
END_TEST

START_TEST(random_touches_cost_almost_nothing)
{
    world_reset();
    srand(7);
    for (unsigned i = 0; i < 20000; i++)
        touch_page(&prefetch_auto, (uint64_t)rand() % PAGES);
    ck_assert_uint_le(fetched, misses / 20);
}
END_TEST

START_TEST(random_touches_after_a_sequence_do_not_revive_it)
{
    world_reset();
    for (uint64_t i = 0; i < 20000; i++)
        touch_page(&prefetch_auto, i);
    unsigned before = fetched, missed = misses;
    memset(here, 0, sizeof(here));
    srand(8);
    for (unsigned i = 0; i < 20000; i++)
        touch_page(&prefetch_auto, (uint64_t)rand() % PAGES);
    ck_assert_uint_le(fetched - before, (misses - missed) / 20 + 2 * MAX_AHEAD);
}
END_TEST

START_TEST(pages_that_could_not_be_started_are_planned_again)
{
    struct prefetch_touch touch = {.max_pages = MAX_AHEAD, .accuracy_percent = 100};
    struct prefetch_plan plan;
    world_reset();
    for (touch.page = 10; touch.page < 13; touch.page++)
        prefetch_auto.plan(&state, &touch, &plan);
    ck_assert_uint_ge(plan.count, 1);
    uint64_t first = plan.runs[0].page;
    prefetch_auto.posted(&state, &plan, 0);
    touch.page = 13;
    touch.cause = PREFETCH_LATE;
    prefetch_auto.plan(&state, &touch, &plan);
    ck_assert_uint_ge(plan.count, 1);
    ck_assert_uint_le(plan.runs[0].page, first > 14 ? first : 14);
}
END_TEST

START_TEST(lateness_widens_the_window_and_waste_narrows_it)
{
    struct prefetch_touch touch = {.max_pages = 1024, .accuracy_percent = 100};
    struct prefetch_plan plan;
    uint32_t widest = 0;
    world_reset();
    for (uint64_t i = 0; i < 12; i++) {
        touch.cause = i < 2 ? PREFETCH_MISS : PREFETCH_LATE;
        touch.page = 1000 + i;
        prefetch_auto.plan(&state, &touch, &plan);
        widest = prefetch_plan_pages(&plan) > widest ? prefetch_plan_pages(&plan) : widest;
        prefetch_auto.posted(&state, &plan, prefetch_plan_pages(&plan));
    }
    ck_assert_uint_ge(widest, 256);
    world_reset();
    touch.accuracy_percent = 10;
    for (uint64_t i = 0; i < 200; i++) {
        touch.cause = PREFETCH_MISS;
        touch.page = 1000 + i;
        prefetch_auto.plan(&state, &touch, &plan);
        ck_assert_uint_le(prefetch_plan_pages(&plan), 16);
        prefetch_auto.posted(&state, &plan, prefetch_plan_pages(&plan));
    }
}
END_TEST

/* Sees every marker, that is the first page of every plan, reached in time. */
START_TEST(a_proven_sequence_is_fetched_in_whole_runs)
{
    struct prefetch_touch touch = {.max_pages = 512, .accuracy_percent = 100, .page = 1000};
    struct prefetch_plan plan;
    uint32_t whole = 0, runs = 0;
    world_reset();
    for (unsigned i = 0; i < 64; i++) {
        touch.cause = i < 2 ? PREFETCH_MISS : i < 12 ? PREFETCH_LATE : PREFETCH_REACHED;
        prefetch_auto.plan(&state, &touch, &plan);
        prefetch_auto.posted(&state, &plan, prefetch_plan_pages(&plan));
        for (uint32_t j = 0; i >= 16 && j < plan.count; j++, runs++)
            whole += plan.runs[j].pages == PREFETCH_RUN_PAGES;
        touch.page += i < 12 ? 1 : PREFETCH_RUN_PAGES - touch.page % PREFETCH_RUN_PAGES;
    }
    ck_assert_uint_ge(runs, 40);
    ck_assert_uint_ge(whole + 2, runs);
}
END_TEST

START_TEST(names_are_known)
{
    ck_assert_ptr_eq(prefetch_find("auto"), &prefetch_auto);
    ck_assert_ptr_eq(prefetch_find("none"), &prefetch_none);
    ck_assert_ptr_eq(prefetch_find("readahead"), &prefetch_readahead);
    ck_assert_ptr_eq(prefetch_find("trend"), &prefetch_trend);
    ck_assert_ptr_null(prefetch_find("best"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("prefetch");
    TCase *tcase = tcase_create("patterns");
    tcase_add_test(tcase, none_fetches_nothing);
    tcase_add_loop_test(tcase, a_sequence_is_covered, 0, 3);
    tcase_add_loop_test(tcase, a_sequence_downwards_is_covered, 0, 3);
    tcase_add_test(tcase, a_sequence_that_ends_at_page_0_stops_there);
    tcase_add_loop_test(tcase, strides_are_followed, 0, 5);
    tcase_add_test(tcase, interleaved_sequences_are_told_apart);
    tcase_add_test(tcase, random_touches_cost_almost_nothing);
    tcase_add_test(tcase, random_touches_after_a_sequence_do_not_revive_it);
    tcase_add_test(tcase, pages_that_could_not_be_started_are_planned_again);
    tcase_add_test(tcase, lateness_widens_the_window_and_waste_narrows_it);
    tcase_add_test(tcase, a_proven_sequence_is_fetched_in_whole_runs);
    tcase_add_test(tcase, names_are_known);
    suite_add_tcase(suite, tcase);
    return unit_run(suite);
}
