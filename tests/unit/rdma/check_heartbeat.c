/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a silent memory node is given up: by a control thread that is on time, and by one that is
 * late, because its host is starved or it was stopped. Lateness is made up here, turn by turn.
 */
#include "rdma/heartbeat.h"
#include "tests/unit/unit.h"

#define START_NS 1000000000000ULL
#define MS       1000000ULL

/* As --timeout says; 5 s is the default. */
static const uint64_t timeouts_ns[] = {8 * MS, 500 * MS, 5000 * MS, 60000 * MS};
#define TIMEOUTS (int)(sizeof(timeouts_ns) / sizeof(timeouts_ns[0]))

static struct heartbeat heartbeat;
static uint64_t now_ns;

/* A PING is out from now on. */
static void begin(uint64_t timeout_ns)
{
    now_ns = START_NS;
    heartbeat = heartbeat_begin(timeout_ns, now_ns);
    ck_assert_int_eq(heartbeat_turn(&heartbeat, now_ns), HEARTBEAT_PING);
}

static enum heartbeat_turn turn_after(uint64_t ns)
{
    now_ns += ns;
    return heartbeat_turn(&heartbeat, now_ns);
}

START_TEST(a_dead_peer_is_given_up_within_the_timeout)
{
    enum heartbeat_turn turn = HEARTBEAT_GO_ON;

    begin(timeouts_ns[_i]);
    while (turn == HEARTBEAT_GO_ON)
        turn = turn_after(heartbeat.interval_ns / 2);
    ck_assert_int_eq(turn, HEARTBEAT_LOST);
    /* It may have died just after it had answered: then the PING went out an interval later. */
    ck_assert_uint_le(now_ns - START_NS + heartbeat.interval_ns, timeouts_ns[_i]);
}
END_TEST

START_TEST(two_late_turns_end_nothing)
{
    begin(timeouts_ns[_i]);
    ck_assert_int_eq(turn_after(10 * heartbeat.interval_ns), HEARTBEAT_GO_ON);
    ck_assert_int_eq(turn_after(10 * heartbeat.interval_ns), HEARTBEAT_GO_ON);
    ck_assert(heartbeat_pong(&heartbeat, heartbeat.stamp));
    ck_assert_int_eq(turn_after(10 * heartbeat.interval_ns), HEARTBEAT_PING);
}
END_TEST

/* Every turn is late, and each answer too: nobody got a processor. */
START_TEST(a_starved_host_loses_nothing)
{
    begin(timeouts_ns[_i]);
    for (int i = 0; i < 1000; i++) {
        ck_assert_int_ne(turn_after((uint64_t)(2 + i % 7) * heartbeat.interval_ns), HEARTBEAT_LOST);
        if (i % 2 == 1)
            heartbeat_pong(&heartbeat, heartbeat.stamp);
    }
}
END_TEST

START_TEST(a_stop_counts_for_one_interval)
{
    begin(timeouts_ns[_i]);
    ck_assert_int_eq(turn_after(3600000 * MS), HEARTBEAT_GO_ON);
    ck_assert_uint_eq(heartbeat.quiet_ns, heartbeat.interval_ns);
}
END_TEST

/* However late the turns are, there is a last one. */
START_TEST(late_turns_give_a_dead_peer_up_too)
{
    uint64_t most = (heartbeat_begin(timeouts_ns[_i], 0).limit_ns - 1) /
                        heartbeat_begin(timeouts_ns[_i], 0).interval_ns +
                    1;
    uint64_t turns = 1;

    begin(timeouts_ns[_i]);
    while (turn_after(3600000 * MS) == HEARTBEAT_GO_ON)
        ck_assert_uint_lt(turns++, most);
    ck_assert_uint_eq(turns, most);
}
END_TEST

START_TEST(only_the_answer_to_the_last_ping_counts)
{
    begin(timeouts_ns[_i]);
    ck_assert(!heartbeat_pong(&heartbeat, heartbeat.stamp + 1));
    ck_assert(heartbeat_pong(&heartbeat, heartbeat.stamp));
    ck_assert(!heartbeat_pong(&heartbeat, heartbeat.stamp));
    ck_assert_int_eq(turn_after(heartbeat.interval_ns), HEARTBEAT_PING);
}
END_TEST

static Suite *heartbeat_suite(void)
{
    Suite *suite = suite_create("rdma heartbeat");
    TCase *turns = tcase_create("turns");

    tcase_add_loop_test(turns, a_dead_peer_is_given_up_within_the_timeout, 0, TIMEOUTS);
    tcase_add_loop_test(turns, two_late_turns_end_nothing, 0, TIMEOUTS);
    tcase_add_loop_test(turns, a_starved_host_loses_nothing, 0, TIMEOUTS);
    tcase_add_loop_test(turns, a_stop_counts_for_one_interval, 0, TIMEOUTS);
    tcase_add_loop_test(turns, late_turns_give_a_dead_peer_up_too, 0, TIMEOUTS);
    tcase_add_loop_test(turns, only_the_answer_to_the_last_ping_counts, 0, TIMEOUTS);
    suite_add_tcase(suite, turns);
    return suite;
}

int main(void)
{
    return unit_run(heartbeat_suite());
}
