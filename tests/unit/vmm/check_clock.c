/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's clock page: read as the guest reads it, it agrees with the host, never steps back,
 * and catches up where it ran ahead. Without a vCPU: the rate is then measured.
 */
#include "support.h"
#include "tests/unit/unit.h"
#include "vmm/machine.h"

#include <string.h>
#include <time.h>
#include <x86intrin.h>

/* Preempted between two readings on a busy machine: generous, yet far below a wrong rate. */
#define TOLERANCE_NS 2000000

static struct fv_shared shared;
static struct vcpu vcpu = {.fd = -1};
static struct vm vm = {.kvm_fd = -1, .shared = &shared, .vcpus = {&vcpu}};

static uint64_t guest_mono_ns(void)
{
    const struct fv_clock *clock = &shared.clock;
    return clock->mono_base_ns +
           (uint64_t)((unsigned __int128)(__rdtsc() - clock->tsc_base) * clock->mult >> 32);
}

static void wait_ns(uint64_t ns)
{
    uint64_t end_ns = clock_now_ns() + ns;
    while (clock_now_ns() < end_ns)
        ;
}

START_TEST(guest_time_agrees_with_the_hosts)
{
    struct clock_state state = {0};
    clock_start(&vm, &state);
    for (int i = 0; i < 20; i++) {
        wait_ns(2000000);
        int64_t difference_ns = (int64_t)(guest_mono_ns() - clock_now_ns());
        ck_assert_int_lt(difference_ns, TOLERANCE_NS);
        ck_assert_int_gt(difference_ns, -TOLERANCE_NS);
        clock_refresh(&vm, &state);
        ck_assert_uint_eq(shared.clock.sequence & 1, 0);
    }
}
END_TEST

START_TEST(guest_time_never_steps_back_over_a_refresh)
{
    struct clock_state state = {0};
    clock_start(&vm, &state);
    uint64_t last_ns = guest_mono_ns();
    for (int i = 0; i < 2000; i++) {
        if (i % 20 == 0)
            clock_refresh(&vm, &state);
        uint64_t now_ns = guest_mono_ns();
        ck_assert_uint_ge(now_ns, last_ns);
        last_ns = now_ns;
    }
}
END_TEST

START_TEST(a_guest_ahead_of_the_host_is_slowed_not_stopped)
{
    struct clock_state state = {0};
    clock_start(&vm, &state);
    state.mono_ns += 50000; /* as if the rate had been too fast */
    uint64_t ahead_from_ns = state.mono_ns;
    for (int i = 0; i < 10; i++) {
        wait_ns(2000000);
        clock_refresh(&vm, &state);
        ck_assert_uint_gt(state.mono_ns, ahead_from_ns);
        ck_assert_uint_gt(state.mult, 0);
        ahead_from_ns = state.mono_ns;
    }
    int64_t difference_ns = (int64_t)(state.mono_ns - state.host_mono_ns);
    ck_assert_int_lt(difference_ns, 50000);
}
END_TEST

START_TEST(other_clocks_keep_their_distance)
{
    struct clock_state state = {0};
    struct timespec real;
    clock_start(&vm, &state);
    uint64_t first_ns = shared.clock.real_base_ns - shared.clock.mono_base_ns;
    clock_gettime(CLOCK_REALTIME, &real);
    uint64_t real_ns = (uint64_t)real.tv_sec * 1000000000 + (uint64_t)real.tv_nsec;
    ck_assert_uint_lt(real_ns - shared.clock.real_base_ns, 1000000000);
    wait_ns(2000000);
    clock_refresh(&vm, &state);
    ck_assert_uint_eq(shared.clock.real_base_ns - shared.clock.mono_base_ns, first_ns);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("clock");
    TCase *tests = tcase_create("page");
    tcase_add_test(tests, guest_time_agrees_with_the_hosts);
    tcase_add_test(tests, guest_time_never_steps_back_over_a_refresh);
    tcase_add_test(tests, a_guest_ahead_of_the_host_is_slowed_not_stopped);
    tcase_add_test(tests, other_clocks_keep_their_distance);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
