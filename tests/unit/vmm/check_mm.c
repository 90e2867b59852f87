/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of mappings by itself, without a machine: what the system tests cannot reach.
 */
#include "ept/ept_internal.h"
#include "tests/unit/unit.h"
#include "vmm/mm_internal.h"

static struct ept ept = {.span_bytes = 1ULL << 39};
static struct vm vm = {.ept = &ept};

/* A run that fails early takes its table down before anything was mapped. */
START_TEST(an_empty_table_can_be_destroyed)
{
    struct mm *mm = NULL;
    ck_assert_int_eq(mm_create(&mm, &vm), 0);
    mm_destroy(mm);
}
END_TEST

START_TEST(erasing_the_last_mapping_leaves_an_empty_table)
{
    struct mm *mm = NULL;
    struct mapping one = {.start = 1 << 20, .end = 2 << 20, .access = EPT_READ};
    ck_assert_int_eq(mm_create(&mm, &vm), 0);
    ck_assert_int_eq(mm_insert(mm, &one), 0);
    ck_assert_uint_eq(mm->count, 1);
    mm_erase(mm, 0, 1);
    ck_assert_uint_eq(mm->count, 0);
    mm_destroy(mm);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mm");
    TCase *tests = tcase_create("table");
    tcase_add_test(tests, an_empty_table_can_be_destroyed);
    tcase_add_test(tests, erasing_the_last_mapping_leaves_an_empty_table);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
