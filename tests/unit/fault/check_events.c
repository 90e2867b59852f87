/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of --fault-mode uffd that cannot be had: whoever starts them is told, or a guest would
 * sleep at its first miss.
 */
#include "fault/engine_internal.h"
#include "tests/unit/fault/engine.h"

START_TEST(handlers_without_a_context_do_not_start)
{
    struct fault_context *others[CONTEXTS_MAX] = {NULL};
    unsigned count = 0;
    while (fault_context_create(engine, &others[count]) == 0)
        count++;
    ck_assert_uint_gt(count, 4);
    for (unsigned left = 0; left < 4; left++) { /* up to one fewer than the handlers want */
        ck_assert_int_eq(fault_events_start(engine, false), -ENOMEM);
        fault_events_stop(engine);
        fault_context_destroy(others[--count]);
    }
    ck_assert_int_eq(fault_events_start(engine, false), 0);
    fault_events_stop(engine);
    while (count)
        fault_context_destroy(others[--count]);
}
END_TEST

int main(void)
{
    engine_requirements();
    Suite *suite = suite_create("events");
    TCase *tests = tcase_create("events");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, handlers_without_a_context_do_not_start);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
