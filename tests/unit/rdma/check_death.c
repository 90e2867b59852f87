/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory servers that die or stop at each step: whoever waits gets an error within the bound, the
 * event descriptor becomes readable, and everything can still be torn down.
 */
#include "tests/unit/rdma/server_fixture.h"

#include <pthread.h>
#include <stdatomic.h>

static const char *const transports[] = {"loopback", "ofi", "verbs"};
/* Those that give a tenant a worker process. */
static const char *const networks[] = {"ofi", "verbs"};
#define QUOTA (16 * FIXTURE_SLAB_BYTES)
/* Scheduling on a busy machine; the bound itself is FIXTURE_TIMEOUT_NS. */
#define SLACK_NS 1500000000ULL

static struct server_fixture server;

static void set_up(void)
{
    message_init("check_death", MESSAGE_NORMAL);
    fixture_start(&server, NULL);
}

static void tear_down(void)
{
    fixture_stop(&server, SIGKILL);
}

/* The node must be lost within the bound, and say so in every way it can. */
static void expect_lost(struct rdma_node *node, uint64_t began)
{
    struct pollfd event = {.fd = rdma_node_event_fd(node), .events = POLLIN};
    int error;

    ck_assert_int_eq(poll(&event, 1, (int)((FIXTURE_TIMEOUT_NS + SLACK_NS) / 1000000)), 1);
    ck_assert_uint_lt(clock_now_ns() - began, FIXTURE_TIMEOUT_NS + SLACK_NS);
    error = rdma_node_error(node);
    ck_assert(error == -ECONNRESET || error == -ETIMEDOUT);
    ck_assert_int_eq(rdma_reserve(node, 3 * RDMA_SLAB_PAGES, 1), error);
    ck_assert_int_eq(rdma_release_slab(node, 0), error);
}

START_TEST(a_killed_server_is_noticed_while_idle)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);
    uint64_t began = clock_now_ns();

    kill(server.pid, SIGKILL);
    expect_lost(node, began);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(a_stopped_server_is_noticed_while_idle)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);
    uint64_t began = clock_now_ns();

    kill(server.pid, SIGSTOP);
    expect_lost(node, began);
    rdma_node_destroy(node);
}
END_TEST

struct transfers {
    struct rdma_node *node;
    atomic_uint done;
};

/* Transfers one page after the other until the node is lost. */
static void *transfer_until_lost(void *argument)
{
    struct transfers *transfers = argument;
    struct rdma_node *node = transfers->node;
    struct rdma_queue *queue = fixture_queue(node, 4);
    void *page = NULL;
    int status = 0;

    ck_assert_int_eq(rdma_buffer_alloc(node, RDMA_PAGE_BYTES, &page), 0);
    for (; status == 0; atomic_fetch_add(&transfers->done, 1))
        status = fixture_transfer(queue, RDMA_READ, 0, 1, page);
    rdma_queue_destroy(queue);
    rdma_buffer_free(node, page, RDMA_PAGE_BYTES);
    return (void *)(intptr_t)status;
}

static void die_while_transferring(const char *transport, bool worker, int with_signal)
{
    struct rdma_node *node = fixture_connect_as(&server, transport, QUOTA);
    struct transfers transfers = {.node = node};
    pid_t victim = worker ? fixture_worker(&server) : server.pid;
    pthread_t thread;
    uint64_t began;
    void *status;

    ck_assert_int_gt(victim, 0);
    ck_assert_int_eq(rdma_reserve(node, 0, 1), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, transfer_until_lost, &transfers), 0);
    while (atomic_load(&transfers.done) < 10) /* its thread may have to wait for a processor */
        usleep(1000);
    began = clock_now_ns();
    kill(victim, with_signal);
    expect_lost(node, began);
    pthread_join(thread, &status);
    ck_assert_int_eq((int)(intptr_t)status, rdma_node_error(node));
    ck_assert_uint_lt(clock_now_ns() - began, FIXTURE_TIMEOUT_NS + SLACK_NS);
    rdma_node_destroy(node);
}

START_TEST(a_killed_server_ends_transfers)
{
    die_while_transferring(transports[_i], false, SIGKILL);
}
END_TEST

START_TEST(a_stopped_server_ends_transfers)
{
    die_while_transferring(transports[_i], false, SIGSTOP);
}
END_TEST

START_TEST(a_killed_worker_ends_transfers)
{
    die_while_transferring(networks[_i], true, SIGKILL);
}
END_TEST

START_TEST(a_stopped_worker_ends_transfers)
{
    die_while_transferring(networks[_i], true, SIGSTOP);
}
END_TEST

START_TEST(a_stopped_worker_is_noticed_while_idle)
{
    struct rdma_node *node = fixture_connect_as(&server, networks[_i], QUOTA);
    uint64_t began = clock_now_ns();

    kill(fixture_worker(&server), SIGSTOP);
    expect_lost(node, began);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(a_worker_that_dies_hurts_no_other_tenant)
{
    struct rdma_node *first = fixture_connect_as(&server, networks[_i], QUOTA);
    pid_t worker = fixture_worker(&server);
    struct rdma_node *second = fixture_connect_as(&server, networks[_i], QUOTA);
    struct rdma_queue *queue = fixture_queue(second, 4);
    uint64_t began = clock_now_ns();
    void *page = NULL;

    ck_assert_int_eq(rdma_buffer_alloc(second, RDMA_PAGE_BYTES, &page), 0);
    ck_assert_int_eq(rdma_reserve(second, 0, 1), 0);
    kill(worker, SIGKILL);
    expect_lost(first, began);
    for (int i = 0; i < 100; i++)
        ck_assert_int_eq(fixture_transfer(queue, RDMA_WRITE, 0, 1, page), 0);
    ck_assert_int_eq(rdma_node_error(second), 0);
    rdma_queue_destroy(queue);
    rdma_node_destroy(first);
    rdma_node_destroy(second);
}
END_TEST

START_TEST(a_reservation_does_not_outwait_a_stopped_server)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);
    uint64_t began = clock_now_ns();
    int error;

    kill(server.pid, SIGSTOP);
    error = rdma_reserve(node, 0, 1);
    ck_assert(error == -ETIMEDOUT || error == -ECONNRESET);
    ck_assert_uint_lt(clock_now_ns() - began, FIXTURE_TIMEOUT_NS + SLACK_NS);
    expect_lost(node, began);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(connecting_does_not_outwait_a_stopped_server)
{
    struct rdma_config config = {.transport = transports[_i],
                                 .address = fixture_address(&server, transports[_i]),
                                 .quota_bytes = QUOTA,
                                 .span_pages = 1 << 20,
                                 .timeout_ns = FIXTURE_TIMEOUT_NS};
    struct rdma_node *node;
    uint64_t began = clock_now_ns();

    kill(server.pid, SIGSTOP);
    ck_assert_int_eq(rdma_node_connect(&node, &config), -ETIMEDOUT);
    ck_assert_uint_lt(clock_now_ns() - began, FIXTURE_TIMEOUT_NS + SLACK_NS);
}
END_TEST

START_TEST(connecting_to_nobody_is_refused)
{
    struct rdma_config config = {.transport = transports[_i],
                                 .address = fixture_address(&server, transports[_i]),
                                 .quota_bytes = QUOTA,
                                 .span_pages = 1 << 20,
                                 .timeout_ns = FIXTURE_TIMEOUT_NS};
    struct rdma_node *node;

    fixture_stop(&server, SIGKILL);
    ck_assert_int_eq(rdma_node_connect(&node, &config), -ECONNREFUSED);
    ck_assert_ptr_null(node);
}
END_TEST

/* Ctrl-Z on the VMM for longer than the timeout must not cost the guest its memory. */
START_TEST(a_client_that_was_stopped_goes_on)
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);
        struct rdma_queue *queue = fixture_queue(node, 4);
        uint64_t deadline_ns = clock_now_ns() + 4 * FIXTURE_TIMEOUT_NS;
        void *page = NULL;

        if (rdma_buffer_alloc(node, RDMA_PAGE_BYTES, &page) || rdma_reserve(node, 0, 1))
            _exit(1);
        while (clock_now_ns() < deadline_ns) {
            if (fixture_transfer(queue, RDMA_WRITE, 0, 1, page))
                _exit(2);
        }
        _exit(rdma_node_error(node) ? 3 : 0);
    }
    usleep(1000000);
    kill(child, SIGSTOP);
    usleep(2 * FIXTURE_TIMEOUT_NS / 1000);
    kill(child, SIGCONT);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}
END_TEST

/* Waits for `silent`, which is stopped, and is stopped itself for longer than the timeout; the
 * answer comes a moment after it goes on. */
static void expect_survives_a_stop(pid_t child, pid_t silent)
{
    int status;

    usleep(600000);
    kill(child, SIGSTOP);
    usleep(2 * FIXTURE_TIMEOUT_NS / 1000);
    kill(child, SIGCONT);
    usleep(200000);
    kill(silent, SIGCONT);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}

/* The same while it waits for the server on the control connection, which has the answer ready
 * when it goes on, or a moment later. */
START_TEST(a_client_that_was_stopped_waiting_for_memory_goes_on)
{
    int connected[2];
    pid_t child;
    char byte = 0;

    ck_assert_int_eq(pipe(connected), 0);
    child = fork();
    if (child == 0) {
        struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);

        if (write(connected[1], &byte, 1) != 1)
            _exit(1);
        usleep(300000); /* the server is stopped by then */
        _exit(rdma_reserve(node, 0, 1) ? 2 : rdma_node_error(node) ? 3 : 0);
    }
    ck_assert_int_eq(read(connected[0], &byte, 1), 1);
    kill(server.pid, SIGSTOP);
    expect_survives_a_stop(child, server.pid);
    close(connected[0]);
    close(connected[1]);
}
END_TEST

/* And while it connects: the server says nothing until the client goes on, and a moment longer. */
START_TEST(a_client_that_was_stopped_connecting_goes_on)
{
    pid_t child;

    kill(server.pid, SIGSTOP);
    child = fork();
    if (child == 0)
        _exit(rdma_node_error(fixture_connect_as(&server, transports[_i], QUOTA)) ? 1 : 0);
    expect_survives_a_stop(child, server.pid);
}
END_TEST

/*
 * And while a queue's connection is made, by whoever serves it: the worker, over a network. Another
 * process has the same node's address; the worker is the only one.
 */
START_TEST(a_client_that_was_stopped_making_a_queue_goes_on)
{
    int connected[2];
    pid_t child;
    char byte = 0;

    ck_assert_int_eq(pipe(connected), 0);
    child = fork();
    if (child == 0) {
        struct rdma_node *node = fixture_connect_as(&server, networks[_i], QUOTA);

        if (write(connected[1], &byte, 1) != 1)
            _exit(1);
        usleep(300000); /* the worker is stopped by then */
        rdma_queue_destroy(fixture_queue(node, 4));
        _exit(rdma_node_error(node) ? 2 : 0);
    }
    ck_assert_int_eq(read(connected[0], &byte, 1), 1);
    pid_t worker = fixture_worker(&server);
    kill(worker, SIGSTOP);
    expect_survives_a_stop(child, worker);
    close(connected[0]);
    close(connected[1]);
}
END_TEST

static Suite *death_suite(void)
{
    Suite *suite = suite_create("rdma peers that die");
    TCase *each = tcase_create("each transport");
    TCase *worker = tcase_create("worker processes");

    tcase_add_checked_fixture(each, set_up, tear_down);
    tcase_add_checked_fixture(worker, set_up, tear_down);
    tcase_set_timeout(each, 30);
    tcase_set_timeout(worker, 30);
    fixture_add_each(each, a_killed_server_is_noticed_while_idle, transports);
    fixture_add_each(each, a_stopped_server_is_noticed_while_idle, transports);
    fixture_add_each(each, a_killed_server_ends_transfers, transports);
    fixture_add_each(each, a_stopped_server_ends_transfers, transports);
    fixture_add_each(each, a_reservation_does_not_outwait_a_stopped_server, transports);
    fixture_add_each(each, connecting_does_not_outwait_a_stopped_server, transports);
    fixture_add_each(each, connecting_to_nobody_is_refused, transports);
    fixture_add_each(each, a_client_that_was_stopped_goes_on, transports);
    fixture_add_each(each, a_client_that_was_stopped_waiting_for_memory_goes_on, transports);
    fixture_add_each(each, a_client_that_was_stopped_connecting_goes_on, transports);
    fixture_add_each(worker, a_client_that_was_stopped_making_a_queue_goes_on, networks);
    fixture_add_each(worker, a_killed_worker_ends_transfers, networks);
    fixture_add_each(worker, a_stopped_worker_ends_transfers, networks);
    fixture_add_each(worker, a_stopped_worker_is_noticed_while_idle, networks);
    fixture_add_each(worker, a_worker_that_dies_hurts_no_other_tenant, networks);
    suite_add_tcase(suite, each);
    suite_add_tcase(suite, worker);
    return suite;
}

int main(void)
{
    return unit_run(death_suite());
}
