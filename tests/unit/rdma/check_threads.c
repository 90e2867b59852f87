/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several threads on one node, as vCPUs are: each with a queue of its own, reserving, writing,
 * reading and releasing at once.
 */
#include "tests/unit/rdma/server_fixture.h"

#include <pthread.h>
#include <stdatomic.h>

static const char *const transports[] = {"loopback", "loopback,delay=50us,jitter=200us", "ofi",
                                         "verbs"};
#define QUOTA   (64 * FIXTURE_SLAB_BYTES)
#define THREADS 4

static struct server_fixture server;

static void set_up(void)
{
    static const char *const options[] = {"--capacity", "256M", NULL};

    message_init("check_threads", MESSAGE_NORMAL);
    fixture_start(&server, options);
}

static void tear_down(void)
{
    fixture_stop(&server, SIGKILL);
}

/* Every byte depends on the number and the place, and never is 0. */
static void fill(uint8_t *page, uint64_t number)
{
    for (uint32_t i = 0; i < RDMA_PAGE_BYTES; i++)
        page[i] = (uint8_t)((number * 31 + i * 7) | 1);
}

struct worker {
    struct rdma_node *node;
    uint64_t number;
    atomic_bool *failed;
};

/* Reserves, writes, reads and releases slabs of its own, all at once with the others. */
static void *work(void *argument)
{
    struct worker *worker = argument;
    struct rdma_queue *queue = fixture_queue(worker->node, 8);
    void *buffer = NULL;
    uint8_t *page;

    ck_assert_int_eq(rdma_buffer_alloc(worker->node, RDMA_PAGE_BYTES, &buffer), 0);
    page = buffer;

    for (uint64_t i = 0; i < 60; i++) {
        uint64_t at = (worker->number * 50 + i % 7) * RDMA_SLAB_PAGES;
        uint8_t wanted[RDMA_PAGE_BYTES];

        fill(wanted, at + i);
        memcpy(page, wanted, RDMA_PAGE_BYTES);
        if (rdma_reserve(worker->node, at, 1) || fixture_transfer(queue, RDMA_WRITE, at, 1, page))
            atomic_store(worker->failed, true);
        memset(page, 0, RDMA_PAGE_BYTES);
        if (fixture_transfer(queue, RDMA_READ, at, 1, page) ||
            memcmp(page, wanted, RDMA_PAGE_BYTES) != 0)
            atomic_store(worker->failed, true);
        if (i % 3 == 0 && rdma_release_slab(worker->node, at))
            atomic_store(worker->failed, true);
    }
    rdma_queue_destroy(queue);
    return NULL;
}

START_TEST(threads_share_a_node)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);
    pthread_t threads[THREADS];
    struct worker workers[THREADS];
    atomic_bool failed = false;

    for (uint64_t i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){node, i, &failed};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    ck_assert(!atomic_load(&failed));
    ck_assert_int_eq(rdma_node_error(node), 0);
    rdma_node_destroy(node);
}
END_TEST

/* All threads want the same slabs: each must be asked for once. */
static void *reserve_same(void *argument)
{
    struct worker *worker = argument;

    for (uint64_t slab = 0; slab < 40; slab++) {
        if (rdma_reserve(worker->node, slab * RDMA_SLAB_PAGES, 1))
            atomic_store(worker->failed, true);
    }
    return NULL;
}

START_TEST(threads_reserve_the_same_slabs)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);
    pthread_t threads[THREADS];
    struct worker workers[THREADS];
    atomic_bool failed = false;
    struct rdma_counters counters;

    for (uint64_t i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){node, i, &failed};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, reserve_same, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    ck_assert(!atomic_load(&failed));
    rdma_node_counters(node, &counters);
    ck_assert_uint_eq(counters.slabs_held, 40);
    rdma_node_destroy(node);
}
END_TEST

static Suite *threads_suite(void)
{
    Suite *suite = suite_create("rdma threads");
    TCase *each = tcase_create("each transport");

    tcase_add_checked_fixture(each, set_up, tear_down);
    tcase_set_timeout(each, 60);
    fixture_add_each(each, threads_share_a_node, transports);
    fixture_add_each(each, threads_reserve_the_same_slabs, transports);
    suite_add_tcase(suite, each);
    return suite;
}

int main(void)
{
    return unit_run(threads_suite());
}
