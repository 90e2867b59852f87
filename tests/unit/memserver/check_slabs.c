/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node's accounting: quotas and capacity are exact, places are never given twice, and the table
 * survives growth and removal in any order (checked against a plain array).
 */
#include "memserver/memserver.h"
#include "tests/unit/unit.h"

#include <errno.h>

#define SLABS 2000u

START_TEST(a_quota_and_a_capacity_are_exact)
{
    struct slab_pool pool = {.capacity_slabs = 3};
    struct slab_map map, other;
    uint64_t index;

    slab_map_init(&map, 2);
    slab_map_init(&other, 100);
    ck_assert_int_eq(slab_map_add(&map, &pool, 7, &index), 0);
    ck_assert_int_eq(slab_map_add(&map, &pool, 7, &index), -EEXIST);
    ck_assert_int_eq(slab_map_add(&map, &pool, 8, &index), 0);
    ck_assert_int_eq(slab_map_add(&map, &pool, 9, &index), -EDQUOT);
    ck_assert_int_eq(slab_map_add(&other, &pool, 7, &index), 0);
    ck_assert_int_eq(slab_map_add(&other, &pool, 8, &index), -ENOSPC);
    slab_map_destroy(&map, &pool);
    ck_assert_uint_eq(pool.used_slabs, 1);
    ck_assert_int_eq(slab_map_add(&other, &pool, 8, &index), 0);
    slab_map_destroy(&other, &pool);
    ck_assert_uint_eq(pool.used_slabs, 0);
}
END_TEST

START_TEST(nothing_is_found_that_was_not_added)
{
    struct slab_pool pool = {.capacity_slabs = 3};
    struct slab_map map;
    uint64_t index;

    slab_map_init(&map, 2);
    ck_assert_int_eq(slab_map_find(&map, 0, &index), -ENOENT);
    slab_map_remove(&map, &pool, 0);
    ck_assert_int_eq(slab_map_add(&map, &pool, 5, &index), 0);
    ck_assert_int_eq(slab_map_find(&map, 0, &index), -ENOENT);
    ck_assert_int_eq(slab_map_find(&map, 5, &index), 0);
    slab_map_destroy(&map, &pool);
}
END_TEST

START_TEST(a_place_given_back_is_used_again)
{
    struct slab_pool pool = {.capacity_slabs = 10};
    struct slab_map map;
    uint64_t first, second;

    slab_map_init(&map, 1);
    for (uint64_t slab = 0; slab < 1000; slab++) {
        ck_assert_int_eq(slab_map_add(&map, &pool, slab, &second), 0);
        if (slab > 0)
            ck_assert_uint_eq(first, second);
        first = second;
        slab_map_remove(&map, &pool, slab);
    }
    slab_map_destroy(&map, &pool);
}
END_TEST

/* Random adds and removes of numbers far apart, beside an array that cannot be wrong. */
START_TEST(the_table_agrees_with_an_array)
{
    struct slab_pool pool = {.capacity_slabs = SLABS};
    struct slab_map map;
    static uint64_t index_of[SLABS];
    static bool there[SLABS], place_used[SLABS];
    uint64_t random = 88172645463325252U;

    slab_map_init(&map, SLABS);
    for (int step = 0; step < 200000; step++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        uint64_t which = random % SLABS, slab = which * (_i ? 1u : 1048573u), index;

        if (there[which]) {
            ck_assert_int_eq(slab_map_find(&map, slab, &index), 0);
            ck_assert_uint_eq(index, index_of[which]);
            if (random >> 63) {
                slab_map_remove(&map, &pool, slab);
                there[which] = place_used[index] = false;
            }
        } else {
            ck_assert_int_eq(slab_map_find(&map, slab, &index), -ENOENT);
            ck_assert_int_eq(slab_map_add(&map, &pool, slab, &index), 0);
            ck_assert_uint_lt(index, SLABS);
            ck_assert(!place_used[index]);
            there[which] = place_used[index] = true;
            index_of[which] = index;
        }
    }
    slab_map_destroy(&map, &pool);
    ck_assert_uint_eq(pool.used_slabs, 0);
}
END_TEST

/* As a worker keeps its tenant's slabs, whose numbers go up to the end of the span. */
START_TEST(a_number_put_again_moves)
{
    const uint64_t last = WIRE_SPAN_MAX_PAGES / 512 - 1;
    struct slab_table table = {0};
    uint64_t index = 0;

    slab_table_remove(&table, last);
    ck_assert_int_eq(slab_table_put(&table, last, 3), 0);
    ck_assert_int_eq(slab_table_put(&table, last, 4), 0);
    ck_assert_uint_eq(table.held_slabs, 1);
    ck_assert_int_eq(slab_table_find(&table, last, &index), 0);
    ck_assert_uint_eq(index, 4);
    slab_table_remove(&table, last);
    ck_assert_int_eq(slab_table_find(&table, last, &index), -ENOENT);
    ck_assert_uint_eq(table.held_slabs, 0);
    slab_table_free(&table);
}
END_TEST

/*
 * Numbers a power of two apart, up to as many as the span has, whatever the key: a hash that drops
 * bits puts them in one place, every look goes past all before it, and this meets its time limit.
 */
START_TEST(strided_numbers_do_not_meet)
{
    const uint64_t count = 1 << 17, span = WIRE_SPAN_MAX_PAGES / 512;
    uint64_t index = 0;
    bool right = true;

    for (uint64_t step = 1; step <= span / count; step *= 2) {
        struct slab_table table = {0};

        for (uint64_t i = 0; i < count; i++)
            right &= slab_table_put(&table, i * step, i) == 0;
        for (uint64_t i = 0; i < count; i++)
            right &= slab_table_find(&table, i * step, &index) == 0 && index == i;
        slab_table_free(&table);
        ck_assert(right);
    }
}
END_TEST

static Suite *slabs_suite(void)
{
    Suite *suite = suite_create("memserver slabs");
    TCase *cases = tcase_create("accounting");
    tcase_set_timeout(cases, 30); /* much arithmetic, on a machine that may be busy */

    tcase_add_test(cases, a_quota_and_a_capacity_are_exact);
    tcase_add_test(cases, nothing_is_found_that_was_not_added);
    tcase_add_test(cases, a_place_given_back_is_used_again);
    tcase_add_loop_test(cases, the_table_agrees_with_an_array, 0, 2);
    tcase_add_test(cases, a_number_put_again_moves);
    tcase_add_test(cases, strided_numbers_do_not_meet);
    suite_add_tcase(suite, cases);
    return suite;
}

int main(void)
{
    return unit_run(slabs_suite());
}
