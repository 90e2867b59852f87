/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Servers that are late, lie about sizes, close early or send garbage: each lie must end in the
 * right error within the bound, never in a hang, a crash or a page from the wrong place.
 */
#include "rdma/rdma.h"
#include "support.h"
#include "tests/unit/rdma/hostile_server.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <poll.h>
#include <sys/mman.h>

#define TIMEOUT_NS 500000000ULL
#define SLACK_NS   1500000000ULL

static struct hostile_server server;
static struct rdma_node *node;

static int connect_to(enum hostile_lie lie)
{
    struct rdma_config config = {.transport = "loopback",
                                 .quota_bytes = 16 << 20,
                                 .span_pages = 1 << 20,
                                 .timeout_ns = TIMEOUT_NS};

    message_init("check_hostile", MESSAGE_NORMAL);
    hostile_server_start(&server, lie);
    config.address = server.address;
    return rdma_node_connect(&node, &config);
}

static const struct {
    enum hostile_lie lie;
    int error;
} refused[] = {
    {HOSTILE_CLOSES_AT_ONCE, -EPROTO},        {HOSTILE_SENDS_GARBAGE, -EPROTO},
    {HOSTILE_CLOSES_IN_A_MESSAGE, -EPROTO},   {HOSTILE_IS_SILENT, -ETIMEDOUT},
    {HOSTILE_TRICKLES, -ETIMEDOUT},           {HOSTILE_SPEAKS_ANOTHER_VERSION, -EPROTO},
    {HOSTILE_REFUSES_AS_FULL, -ENOSPC},       {HOSTILE_REFUSES_WITH_CONTROL_CHARACTERS, -EPROTO},
    {HOSTILE_GRANTS_LESS_QUOTA, -EPROTO},     {HOSTILE_PASSES_NO_MEMORY, -EPROTO},
    {HOSTILE_PASSES_SHORT_MEMORY, -EPROTO},   {HOSTILE_PASSES_SHRINKABLE_MEMORY, -EPROTO},
    {HOSTILE_CHANGES_THE_TRANSPORT, -EPROTO},
};

START_TEST(a_lie_while_connecting_is_refused)
{
    uint64_t began = clock_now_ns();

    ck_assert_int_eq(connect_to(refused[_i].lie), refused[_i].error);
    ck_assert_ptr_null(node);
    ck_assert_uint_lt(clock_now_ns() - began, TIMEOUT_NS + SLACK_NS);
    hostile_server_stop(&server);
}
END_TEST

static void expect_lost(uint64_t began)
{
    struct pollfd event = {.fd = rdma_node_event_fd(node), .events = POLLIN};

    ck_assert_int_eq(poll(&event, 1, (int)((TIMEOUT_NS + SLACK_NS) / 1000000)), 1);
    ck_assert_uint_lt(clock_now_ns() - began, TIMEOUT_NS + SLACK_NS);
    ck_assert(rdma_node_error(node) == -ECONNRESET || rdma_node_error(node) == -ETIMEDOUT);
    rdma_node_destroy(node);
    hostile_server_stop(&server);
}

START_TEST(a_lie_after_ready_ends_the_node)
{
    uint64_t began = clock_now_ns();

    ck_assert_int_eq(connect_to((enum hostile_lie)_i), 0);
    expect_lost(began);
}
END_TEST

START_TEST(a_lie_about_slabs_ends_the_node)
{
    uint64_t began = clock_now_ns();
    struct rdma_queue *queue;
    struct rdma_request request = {.op = RDMA_READ, .pages = 1, .page = 0};
    int error;

    ck_assert_int_eq(connect_to((enum hostile_lie)_i), 0);
    error = rdma_reserve(node, 0, 1);
    ck_assert(error == -ECONNRESET || error == -ETIMEDOUT);
    ck_assert_int_eq(rdma_queue_create(node, RDMA_QUEUE_DEMAND, 4, &queue), 0);
    ck_assert_int_eq(rdma_queue_post(queue, &request, 1), error);
    rdma_queue_destroy(queue);
    expect_lost(began);
}
END_TEST

static Suite *hostile_suite(void)
{
    Suite *suite = suite_create("rdma hostile servers");
    TCase *lies = tcase_create("lies");

    tcase_set_timeout(lies, 20);
    tcase_add_loop_test(lies, a_lie_while_connecting_is_refused, 0,
                        (int)(sizeof(refused) / sizeof(refused[0])));
    tcase_add_loop_test(lies, a_lie_after_ready_ends_the_node, HOSTILE_CLOSES_AFTER_READY,
                        HOSTILE_FORGETS_RESERVATIONS);
    tcase_add_loop_test(lies, a_lie_about_slabs_ends_the_node, HOSTILE_FORGETS_RESERVATIONS,
                        HOSTILE_END);
    suite_add_tcase(suite, lies);
    return suite;
}

int main(void)
{
    return unit_run(hostile_suite());
}
