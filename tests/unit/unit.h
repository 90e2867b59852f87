/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every unit test program's main does: run one Check suite, one line a failed test, exit
 * status 1 if any failed. tests/unit/run.sh reads Check's summary line. A suite whose prerequisite
 * is missing says so with unit_skip instead of passing emptily.
 */
#ifndef FARVISOR_UNIT_H
#define FARVISOR_UNIT_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#define UNIT_SKIPPED 77 /* exit status, as automake's test drivers have it */

/* How many times slower than real ones the processors here are: a bound on processor time for a
 * given amount of work grows with it. TIME_FACTOR, which tests/lab/tester.sh sets; otherwise 1. */
static inline int unit_slowness(void)
{
    const char *factor = getenv("TIME_FACTOR");
    int slowness = factor ? atoi(factor) : 1;
    return slowness > 1 ? slowness : 1;
}

static inline int unit_run(Suite *suite)
{
    SRunner *runner = srunner_create(suite);

    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* Ends the program: none of its tests can run here. */
static inline _Noreturn void unit_skip(const char *reason)
{
    printf("skip: %s\n", reason);
    exit(UNIT_SKIPPED);
}

/* For tests that map something where the guest has it: AddressSanitizer's shadow is there. */
static inline void unit_needs_guest_addresses(void)
{
#ifdef __SANITIZE_ADDRESS__
    unit_skip("AddressSanitizer has its shadow at the guest's addresses");
#endif
}

#endif
