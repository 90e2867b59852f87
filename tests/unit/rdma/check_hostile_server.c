/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Servers that are late, lie about sizes, close early or send garbage: each lie must end in the
 * right error within the bound, never in a hang, a crash or a page from the wrong place.
 */
#include "rdma/transport.h"
#include "support.h"
#include "tests/unit/rdma/hostile_fabric.h"
#include "tests/unit/rdma/hostile_server.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#define TIMEOUT_NS 500000000ULL
#define SLACK_NS   1500000000ULL

static struct hostile_server server;
static struct rdma_node *node;

static int connect_within(uint64_t timeout_ns, const char *transport, enum hostile_lie lie)
{
    struct rdma_config config = {.transport = transport,
                                 .quota_bytes = 16 << 20,
                                 .span_pages = 1 << 20,
                                 .timeout_ns = timeout_ns};

    message_init("check_hostile", MESSAGE_NORMAL);
    hostile_server_start(&server, lie);
    config.address = server.address;
    return rdma_node_connect(&node, &config);
}

static int connect_by(const char *transport, enum hostile_lie lie)
{
    return connect_within(TIMEOUT_NS, transport, lie);
}

static int connect_to(enum hostile_lie lie)
{
    return connect_by("loopback", lie);
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

/* The lock is what makes the control thread late: for two intervals and more, twice. */
START_TEST(a_late_control_thread_does_not_end_the_node)
{
    ck_assert_int_eq(connect_within(4000000000ULL, "loopback", HOSTILE_ANSWERS_PINGS_LATE), 0);
    while (!atomic_load(&server.pinged))
        usleep(1000);
    for (int i = 0; i < 2; i++) {
        pthread_mutex_lock(&node->lock);
        usleep(2100000);
        pthread_mutex_unlock(&node->lock);
        usleep(100000); /* its turn */
    }
    atomic_store(&server.may_answer, true);
    usleep(100000);
    ck_assert_int_eq(rdma_node_error(node), 0);
    ck_assert_int_eq(rdma_reserve(node, 0, 1), 0);
    rdma_node_destroy(node);
    hostile_server_stop(&server);
}
END_TEST

/* Each PING buys a starting server time, so many times the timeout in all. */
START_TEST(a_flood_while_connecting_ends_it)
{
    uint64_t began = clock_now_ns();

    ck_assert_int_eq(connect_to(HOSTILE_FLOODS_BEFORE_READY), -ETIMEDOUT);
    ck_assert_uint_lt(clock_now_ns() - began, 8 * TIMEOUT_NS + SLACK_NS);
    hostile_server_stop(&server);
}
END_TEST

/* It shows that it is alive, but nobody who waits for something else may wait for ever. */
START_TEST(a_flood_does_not_keep_others_waiting)
{
    uint64_t began = clock_now_ns();

    ck_assert_int_eq(connect_to(HOSTILE_FLOODS_AFTER_READY), 0);
    usleep(100000);
    ck_assert_int_eq(rdma_reserve(node, 0, 1), -ETIMEDOUT);
    expect_lost(began);
    ck_assert_uint_lt(clock_now_ns() - began, TIMEOUT_NS + SLACK_NS);
}
END_TEST

START_TEST(a_flood_does_not_keep_the_node_from_ending)
{
    uint64_t began = clock_now_ns();

    ck_assert_int_eq(connect_to(HOSTILE_FLOODS_AFTER_READY), 0);
    usleep(100000);
    rdma_node_destroy(node);
    ck_assert_uint_lt(clock_now_ns() - began, SLACK_NS);
    hostile_server_stop(&server);
}
END_TEST

static struct hostile_fabric fabric;
static uint32_t nodes_got[CHAIN_DEPTH];

static void chain_post(struct rdma_queue *queue, unsigned number)
{
    static uint8_t data[CHAIN_DEPTH][8 * 16];
    struct rdma_request request = {.op = RDMA_CHAIN,
                                   .offset_bytes = 64,
                                   .bytes = 16,
                                   .chain_nodes = 8,
                                   .chain_got = &nodes_got[number],
                                   .local = data[number],
                                   .cookie = number};

    ck_assert_int_eq(rdma_queue_post(queue, &request, 1), 1);
}

/* Until the server has sent that many answers, and they are here. */
static void answers_await(unsigned count)
{
    uint64_t began = clock_now_ns();

    while (atomic_load(&fabric.answered) < count) {
        ck_assert_uint_lt(clock_now_ns() - began, SLACK_NS);
        usleep(1000);
    }
    usleep(20000);
}

static struct rdma_queue *chains_connect(enum hostile_chains lie)
{
    struct rdma_queue *queue;

    message_init("check_hostile", MESSAGE_NORMAL);
    hostile_fabric_start(&fabric, lie);
    server.fabric_port = fabric.port;
    ck_assert_int_eq(connect_by("ofi", HOSTILE_FABRIC), 0);
    ck_assert_int_eq(rdma_reserve(node, 0, 1), 0);
    ck_assert_int_eq(rdma_queue_create(node, RDMA_QUEUE_PREFETCH, 8, &queue), 0);
    return queue;
}

/* No completion says which request has ended: the node has, and with it all of them. */
static void expect_no_completion(struct rdma_queue *queue)
{
    struct rdma_completion done[CHAIN_DEPTH];

    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(rdma_queue_poll(queue, done, CHAIN_DEPTH, TIMEOUT_NS), -EPROTO);
    ck_assert_int_eq(rdma_node_error(node), -EPROTO);
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
    hostile_fabric_stop(&fabric);
    hostile_server_stop(&server);
}

START_TEST(a_wrong_answer_to_a_chain_ends_none_of_them)
{
    struct rdma_queue *queue = chains_connect((enum hostile_chains)_i);

    /* Two in flight; both answers are there when the client looks. */
    chain_post(queue, 0);
    chain_post(queue, 1);
    answers_await(2);
    expect_no_completion(queue);
}
END_TEST

START_TEST(an_answer_that_nobody_asked_for_ends_the_node)
{
    struct rdma_queue *queue = chains_connect(HOSTILE_CHAIN_TWICE);
    struct rdma_completion done[CHAIN_DEPTH];

    chain_post(queue, 0);
    answers_await(2);
    ck_assert_int_eq(rdma_queue_poll(queue, done, CHAIN_DEPTH, TIMEOUT_NS), 1);
    ck_assert_int_eq(done[0].status, 0);
    ck_assert_uint_eq(nodes_got[0], 0);
    chain_post(queue, 1);
    expect_no_completion(queue);
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
    tcase_add_test(lies, a_late_control_thread_does_not_end_the_node);
    tcase_add_test(lies, a_flood_while_connecting_ends_it);
    tcase_add_test(lies, a_flood_does_not_keep_others_waiting);
    tcase_add_test(lies, a_flood_does_not_keep_the_node_from_ending);
    tcase_add_loop_test(lies, a_wrong_answer_to_a_chain_ends_none_of_them, 0, HOSTILE_CHAIN_TWICE);
    tcase_add_test(lies, an_answer_that_nobody_asked_for_ends_the_node);
    suite_add_tcase(suite, lies);
    return suite;
}

int main(void)
{
    return unit_run(hostile_suite());
}
