/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conformance of transports: every test here runs on each of them against a real memory server. A
 * new transport joins by one line in the table.
 */
#include "rdma/transport.h"
#include "tests/unit/rdma/server_fixture.h"

static const char *const transports[] = {"loopback", "loopback,delay=50us,jitter=200us", "ofi",
                                         "verbs"};
#define QUOTA (64 * FIXTURE_SLAB_BYTES)
#define BATCH 32u

static struct server_fixture server;

static void set_up(void)
{
    static const char *const options[] = {"--capacity", "256M", NULL};

    message_init("check_queue", MESSAGE_NORMAL);
    fixture_start(&server, options);
}

static void tear_down(void)
{
    fixture_stop(&server, SIGKILL);
}

static uint8_t *pages_alloc(struct rdma_node *node, uint32_t pages)
{
    void *buffer = NULL;

    ck_assert_int_eq(rdma_buffer_alloc(node, (size_t)pages * RDMA_PAGE_BYTES, &buffer), 0);
    return buffer;
}

/* Every byte depends on its page and place, and never is 0. */
static void fill(uint8_t *page, uint64_t number)
{
    for (uint32_t i = 0; i < RDMA_PAGE_BYTES; i++)
        page[i] = (uint8_t)((number * 31 + i * 7) | 1);
}

static void expect(const uint8_t *page, uint64_t number)
{
    uint8_t wanted[RDMA_PAGE_BYTES];

    fill(wanted, number);
    ck_assert_mem_eq(page, wanted, RDMA_PAGE_BYTES);
}

START_TEST(new_memory_reads_as_zero)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 4);
    uint8_t *page = pages_alloc(node, 1);
    const uint8_t zero[RDMA_PAGE_BYTES] = {0};

    memset(page, 0xff, RDMA_PAGE_BYTES);
    ck_assert_int_eq(rdma_reserve(node, 100, 1), 0);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, 100, 1, page), 0);
    ck_assert_mem_eq(page, zero, RDMA_PAGE_BYTES);
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(what_was_written_is_read_back_through_another_queue)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);
    struct rdma_queue *writer = fixture_queue(node, 4);
    struct rdma_queue *reader = fixture_queue(node, 4);
    uint8_t *page = pages_alloc(node, 1);

    ck_assert_int_eq(rdma_reserve(node, 0, 600), 0);
    /* A completed write must be visible at once: an evicted page may be needed again. */
    for (uint64_t i = 0; i < 300; i++) {
        fill(page, i);
        ck_assert_int_eq(fixture_transfer(writer, RDMA_WRITE, i * 2, 1, page), 0);
        memset(page, 0, RDMA_PAGE_BYTES);
        ck_assert_int_eq(fixture_transfer(reader, RDMA_READ, i * 2, 1, page), 0);
        expect(page, i);
    }
    rdma_queue_destroy(writer);
    rdma_queue_destroy(reader);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(many_pages_travel_in_one_request)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 4);
    uint8_t *buffer = pages_alloc(node, RDMA_SLAB_PAGES);

    ck_assert_int_eq(rdma_reserve(node, RDMA_SLAB_PAGES, RDMA_SLAB_PAGES), 0);
    for (uint32_t i = 0; i < RDMA_SLAB_PAGES; i++)
        fill(buffer + (size_t)i * RDMA_PAGE_BYTES, i);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_WRITE, RDMA_SLAB_PAGES, RDMA_SLAB_PAGES, buffer),
                     0);
    memset(buffer, 0, (size_t)RDMA_SLAB_PAGES * RDMA_PAGE_BYTES);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, RDMA_SLAB_PAGES + 17, 300, buffer), 0);
    for (uint32_t i = 0; i < 300; i++)
        expect(buffer + (size_t)i * RDMA_PAGE_BYTES, i + 17);
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(a_full_queue_takes_part_of_a_batch_and_the_rest_later)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 8);
    uint8_t *buffer = pages_alloc(node, BATCH);
    struct rdma_request requests[BATCH];
    struct rdma_completion done[BATCH];
    uint32_t posted = 0, finished = 0;
    bool seen[BATCH] = {false};

    ck_assert_int_eq(rdma_reserve(node, 0, BATCH), 0);
    for (uint32_t i = 0; i < BATCH; i++) {
        fill(buffer + (size_t)i * RDMA_PAGE_BYTES, i);
        requests[i] = (struct rdma_request){.op = RDMA_WRITE,
                                            .pages = 1,
                                            .page = i,
                                            .local = buffer + (size_t)i * RDMA_PAGE_BYTES,
                                            .cookie = i};
    }
    ck_assert_int_eq(rdma_queue_post(queue, requests, BATCH), 8);
    posted = 8;
    ck_assert_int_eq(rdma_queue_post(queue, requests + posted, 1), 0);
    while (finished < BATCH) {
        int got = rdma_queue_poll(queue, done, BATCH, FIXTURE_TIMEOUT_NS);
        ck_assert_int_gt(got, 0);
        for (int i = 0; i < got; i++) {
            ck_assert_int_eq(done[i].status, 0);
            ck_assert(!seen[done[i].cookie]);
            seen[done[i].cookie] = true;
        }
        finished += (uint32_t)got;
        got = rdma_queue_post(queue, requests + posted, BATCH - posted);
        ck_assert_int_ge(got, 0);
        posted += (uint32_t)got;
    }
    for (uint32_t i = 0; i < BATCH; i++) {
        ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, i, 1, buffer), 0);
        expect(buffer, i);
    }
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(a_page_never_reserved_is_refused)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 4);
    uint8_t *page = pages_alloc(node, 1);

    ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, 5, 1, page), -EFAULT);
    ck_assert_int_eq(rdma_reserve(node, 5, 1), 0);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, 5, 1, page), 0);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, 5 + RDMA_SLAB_PAGES, 1, page), -EFAULT);
    ck_assert_int_eq(rdma_node_error(node), 0);
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(malformed_requests_are_refused)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 4);
    uint8_t *page = pages_alloc(node, 2);

    ck_assert_int_eq(rdma_reserve(node, 0, 1024), 0);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, 0, 0, page), -EINVAL);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, 511, 2, page), -EINVAL);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, 0, 1, page + 8), -EINVAL);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, 1ULL << 40, 1, page), -EINVAL);
    ck_assert_int_eq(rdma_reserve(node, (1 << 20) - 1, 2), -EINVAL);
    ck_assert_int_eq(rdma_reserve(node, UINT64_MAX, 2), -EINVAL);
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

/* Single bytes of pages, unaligned, across a page's end, and up to the last byte of a slab. */
START_TEST(bytes_of_pages_are_read_without_the_rest)
{
    static const uint32_t cases[][3] = {{3, 0, 1},     {3, 1, 255},   {3, 4095, 1},
                                        {3, 4000, 96}, {3, 4000, 97}, {511, 3840, 256}};
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 4);
    uint8_t *pages = pages_alloc(node, RDMA_SLAB_PAGES), *got = pages_alloc(node, 1);
    struct rdma_counters before, after;

    for (uint32_t i = 0; i < RDMA_SLAB_PAGES; i++)
        fill(pages + (size_t)i * RDMA_PAGE_BYTES, i);
    ck_assert_int_eq(rdma_reserve(node, 0, RDMA_SLAB_PAGES), 0);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_WRITE, 0, RDMA_SLAB_PAGES, pages), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint32_t page = cases[i][0], offset = cases[i][1], bytes = cases[i][2];

        memset(got, 0, RDMA_PAGE_BYTES);
        rdma_node_counters(node, &before);
        ck_assert_int_eq(fixture_transfer_bytes(queue, page, offset, bytes, got + 5), 0);
        rdma_node_counters(node, &after);
        ck_assert_mem_eq(got + 5, pages + (size_t)page * RDMA_PAGE_BYTES + offset, bytes);
        ck_assert_uint_eq(got[4] | got[5 + bytes], 0);
        ck_assert_uint_eq(after.read_bytes - before.read_bytes, bytes);
    }
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(malformed_byte_requests_are_refused)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 4);
    uint8_t *page = pages_alloc(node, 2);
    struct rdma_request both = {.op = RDMA_READ, .pages = 1, .bytes = 8, .local = page};
    struct rdma_request offset = {.op = RDMA_READ, .pages = 1, .offset_bytes = 8, .local = page};

    ck_assert_int_eq(rdma_reserve(node, 0, 1024), 0);
    ck_assert_int_eq(fixture_transfer_bytes(queue, 0, 4096, 1, page), -EINVAL);
    ck_assert_int_eq(fixture_transfer_bytes(queue, 511, 4000, 97, page), -EINVAL);
    ck_assert_int_eq(fixture_transfer_bytes(queue, 0, 1, UINT32_MAX, page), -EINVAL);
    ck_assert_int_eq(fixture_transfer_bytes(queue, 1ULL << 40, 0, 8, page), -EINVAL);
    ck_assert_int_eq(rdma_queue_post(queue, &both, 1), -EINVAL);
    ck_assert_int_eq(rdma_queue_post(queue, &offset, 1), -EINVAL);
    ck_assert_int_eq(rdma_node_error(node), 0);
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(a_look_at_an_idle_queue_returns_at_once)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 4);
    struct rdma_completion done;

    ck_assert_int_eq(rdma_queue_poll(queue, &done, 1, 0), 0);
    ck_assert_int_eq(rdma_queue_poll(queue, &done, 1, FIXTURE_TIMEOUT_NS), 0);
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(a_released_slab_is_free_on_the_node_and_zero_when_reserved_again)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 4);
    uint8_t *page = pages_alloc(node, 1);
    const uint8_t zero[RDMA_PAGE_BYTES] = {0};

    ck_assert_int_eq(rdma_reserve(node, 0, 4 * RDMA_SLAB_PAGES), 0);
    fill(page, 9);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_WRITE, RDMA_SLAB_PAGES, 1, page), 0);
    fixture_expect_status(&server, "used_bytes", 4 * FIXTURE_SLAB_BYTES);
    ck_assert_int_eq(rdma_release_slab(node, RDMA_SLAB_PAGES), 0);
    fixture_expect_status(&server, "used_bytes", 3 * FIXTURE_SLAB_BYTES);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, RDMA_SLAB_PAGES, 1, page), -EFAULT);
    ck_assert_int_eq(rdma_reserve(node, RDMA_SLAB_PAGES, 1), 0);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, RDMA_SLAB_PAGES, 1, page), 0);
    ck_assert_mem_eq(page, zero, RDMA_PAGE_BYTES);
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
    fixture_expect_status(&server, "used_bytes", 0);
}
END_TEST

START_TEST(a_quota_ends_in_enospc_and_a_release_makes_room_again)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], 8 * FIXTURE_SLAB_BYTES);
    struct rdma_counters counters;

    for (uint64_t slab = 0; slab < 8; slab++)
        ck_assert_int_eq(rdma_reserve(node, slab * RDMA_SLAB_PAGES, 1), 0);
    ck_assert_int_eq(rdma_reserve(node, 8 * RDMA_SLAB_PAGES, 1), -ENOSPC);
    ck_assert_int_eq(rdma_node_error(node), 0);
    ck_assert_int_eq(rdma_release_slab(node, 3 * RDMA_SLAB_PAGES), 0);
    ck_assert_int_eq(rdma_reserve(node, 8 * RDMA_SLAB_PAGES, 1), 0);
    rdma_node_counters(node, &counters);
    ck_assert_uint_eq(counters.slabs_held, 8);
    ck_assert_uint_eq(counters.slabs_peak, 8);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(slabs_asked_ahead_never_cost_a_tenant_its_quota)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], 8 * FIXTURE_SLAB_BYTES);
    /* Walking upwards asks ahead; then jump about for the rest. */
    static const uint64_t slabs[] = {0, 1, 100, 200, 300, 400, 500, 600};

    for (size_t i = 0; i < sizeof(slabs) / sizeof(slabs[0]); i++)
        ck_assert_int_eq(rdma_reserve(node, slabs[i] * RDMA_SLAB_PAGES, 1), 0);
    ck_assert_int_eq(rdma_reserve(node, 700 * RDMA_SLAB_PAGES, 1), -ENOSPC);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(a_node_that_is_full_says_so)
{
    struct rdma_node *first = fixture_connect_as(&server, transports[_i], 128 * FIXTURE_SLAB_BYTES);
    struct rdma_node *second = fixture_connect_as(&server, transports[_i], QUOTA);

    /* Not all at once: a slab may take milliseconds to register. Downwards: nothing asked ahead. */
    for (uint64_t slab = 127; slab-- > 0;)
        ck_assert_int_eq(rdma_reserve(first, slab * RDMA_SLAB_PAGES, 1), 0);
    ck_assert_int_eq(rdma_reserve(second, 0, 1), 0);
    ck_assert_int_eq(rdma_reserve(second, RDMA_SLAB_PAGES, 1), -ENOSPC);
    rdma_node_destroy(first);
    fixture_expect_status(&server, "used_bytes", FIXTURE_SLAB_BYTES);
    ck_assert_int_eq(rdma_reserve(second, RDMA_SLAB_PAGES, 1), 0);
    rdma_node_destroy(second);
}
END_TEST

START_TEST(counters_count_what_completed)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 4);
    uint8_t *buffer = pages_alloc(node, 4);
    struct rdma_counters counters;

    ck_assert_int_eq(rdma_reserve(node, 0, 4), 0);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_WRITE, 0, 4, buffer), 0);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, 1, 2, buffer), 0);
    rdma_node_counters(node, &counters);
    ck_assert_uint_eq(counters.writes, 1);
    ck_assert_uint_eq(counters.write_bytes, 4 * RDMA_PAGE_BYTES);
    ck_assert_uint_eq(counters.reads, 1);
    ck_assert_uint_eq(counters.read_bytes, 2 * RDMA_PAGE_BYTES);
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(a_simulated_network_is_named_and_takes_its_time)
{
    struct rdma_node *node = fixture_connect_as(&server, "loopback,delay=5ms", QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 4);
    uint8_t *page = pages_alloc(node, 1);
    uint64_t began;

    ck_assert_ptr_nonnull(strstr(rdma_node_describe(node), "simulated delay=5000000ns"));
    ck_assert_int_eq(rdma_reserve(node, 0, 1), 0);
    began = clock_now_ns();
    ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, 0, 1, page), 0);
    ck_assert_uint_ge(clock_now_ns() - began, 5000000);
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

/* What a guest holds of this host's memory is bounded: the node's must not count as ours. */
START_TEST(shared_memory_is_not_mapped)
{
    struct rdma_node *node = fixture_connect_as(&server, "auto", QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 4);
    uint8_t *page = pages_alloc(node, 1);
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");

    ck_assert_int_eq(rdma_reserve(node, 7, 1), 0);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_WRITE, 7, 1, page), 0);
    while (fgets(line, sizeof(line), maps))
        ck_assert_ptr_null(strstr(line, "memfd:"));
    fclose(maps);
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

/* ---- a transport that has no room for a while, though nothing is in flight ---- */

static struct rdma_transport busy;
static int (*room)(struct rdma_queue *queue, uint32_t slot, uint64_t remote, uint64_t key);
static int busy_times;

static int busy_post(struct rdma_queue *queue, uint32_t slot, uint64_t remote, uint64_t key)
{
    return busy_times-- > 0 ? 0 : room(queue, slot, remote, key);
}

static void make_busy(struct rdma_node *node, int times)
{
    busy = *node->transport;
    room = busy.post;
    busy.post = busy_post;
    busy_times = times;
    node->transport = &busy;
}

START_TEST(a_busy_transport_is_asked_again)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 4);
    uint8_t *page = pages_alloc(node, 1);

    ck_assert_int_eq(rdma_reserve(node, 7, 1), 0);
    make_busy(node, 100);
    fill(page, 7);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_WRITE, 7, 1, page), 0);
    memset(page, 0, RDMA_PAGE_BYTES);
    busy_times = 100;
    ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, 7, 1, page), 0);
    expect(page, 7);
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(a_transport_that_stays_busy_ends_the_node_in_time)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 4);
    uint8_t *page = pages_alloc(node, 1);
    struct rdma_request request = {.op = RDMA_READ, .pages = 1, .page = 7, .local = page};
    uint64_t start_ns = clock_now_ns();

    ck_assert_int_eq(rdma_reserve(node, 7, 1), 0);
    make_busy(node, 1 << 30);
    node->timeout_ns = 300000000;
    ck_assert_int_eq(rdma_queue_post(queue, &request, 1), -ETIMEDOUT);
    ck_assert_uint_lt(clock_now_ns() - start_ns, 5000000000u);
    ck_assert_int_eq(rdma_node_error(node), -ETIMEDOUT);
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

static Suite *queue_suite(void)
{
    Suite *suite = suite_create("rdma queues");
    TCase *each = tcase_create("each transport");
    TCase *loopback = tcase_create("loopback");

    tcase_add_checked_fixture(each, set_up, tear_down);
    tcase_add_checked_fixture(loopback, set_up, tear_down);
    tcase_set_timeout(each, 60);
    tcase_set_timeout(loopback, 60);
    fixture_add_each(each, new_memory_reads_as_zero, transports);
    fixture_add_each(each, what_was_written_is_read_back_through_another_queue, transports);
    fixture_add_each(each, many_pages_travel_in_one_request, transports);
    fixture_add_each(each, a_full_queue_takes_part_of_a_batch_and_the_rest_later, transports);
    fixture_add_each(each, a_page_never_reserved_is_refused, transports);
    fixture_add_each(each, malformed_requests_are_refused, transports);
    fixture_add_each(each, bytes_of_pages_are_read_without_the_rest, transports);
    fixture_add_each(each, malformed_byte_requests_are_refused, transports);
    fixture_add_each(each, a_look_at_an_idle_queue_returns_at_once, transports);
    fixture_add_each(each, a_released_slab_is_free_on_the_node_and_zero_when_reserved_again,
                     transports);
    fixture_add_each(each, a_quota_ends_in_enospc_and_a_release_makes_room_again, transports);
    fixture_add_each(each, slabs_asked_ahead_never_cost_a_tenant_its_quota, transports);
    fixture_add_each(each, a_node_that_is_full_says_so, transports);
    fixture_add_each(each, counters_count_what_completed, transports);
    fixture_add_each(each, a_busy_transport_is_asked_again, transports);
    fixture_add_each(each, a_transport_that_stays_busy_ends_the_node_in_time, transports);
    tcase_add_test(loopback, a_simulated_network_is_named_and_takes_its_time);
    tcase_add_test(loopback, shared_memory_is_not_mapped);
    suite_add_tcase(suite, each);
    suite_add_tcase(suite, loopback);
    return suite;
}

int main(void)
{
    return unit_run(queue_suite());
}
