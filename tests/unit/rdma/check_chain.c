/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chains followed by the memory node, against a real one; and the simulated delay of a transport
 * that has a network of its own.
 */
#include "tests/unit/rdma/server_fixture.h"

#define QUOTA (64 * FIXTURE_SLAB_BYTES)
#define SLABS 3u
#define NODE  64u
#define NODES 60u
#define NEXT  24u

static struct server_fixture server;
static uint64_t address_of[NODES];
static uint8_t got[RDMA_CHAIN_NODES_MAX * RDMA_CHAIN_NODE_MAX_BYTES];

static void set_up(void)
{
    static const char *const options[] = {"--capacity", "256M", NULL};

    message_init("check_chain", MESSAGE_NORMAL);
    fixture_start(&server, options);
}

static void tear_down(void)
{
    fixture_stop(&server, SIGKILL);
}

static void node_fill(uint8_t *node, unsigned number, uint64_t next)
{
    for (unsigned i = 0; i < NODE; i++)
        node[i] = (uint8_t)(number * 3 + i);
    memcpy(node + NEXT, &next, sizeof(next));
}

/* Slabs 5, 7 and 6, from one to the other and back; some nodes cross pages, one crosses slabs. */
static void chain_write(struct rdma_node *node, struct rdma_queue *queue, uint64_t last_next)
{
    static uint8_t image[SLABS * FIXTURE_SLAB_BYTES];
    const uint64_t first = 5 * RDMA_SLAB_PAGES;
    void *buffer = NULL;

    for (unsigned i = 0; i < NODES; i++)
        address_of[i] = first * 4096 + (i * 7 % SLABS) * FIXTURE_SLAB_BYTES + i * 4096ULL * 3 +
                        (i % 5 == 0 ? 4096 - 40 : i * 64);
    address_of[9] = first * 4096 + FIXTURE_SLAB_BYTES - 20;
    for (unsigned i = 0; i < NODES; i++)
        node_fill(image + (address_of[i] - first * 4096), i,
                  i + 1 < NODES ? address_of[i + 1] : last_next);
    ck_assert_int_eq(rdma_buffer_alloc(node, FIXTURE_SLAB_BYTES, &buffer), 0);
    ck_assert_int_eq(rdma_reserve(node, first, SLABS * RDMA_SLAB_PAGES), 0);
    for (unsigned i = 0; i < SLABS; i++) {
        memcpy(buffer, image + i * FIXTURE_SLAB_BYTES, FIXTURE_SLAB_BYTES);
        ck_assert_int_eq(fixture_transfer(queue, RDMA_WRITE, first + i * RDMA_SLAB_PAGES,
                                          RDMA_SLAB_PAGES, buffer),
                         0);
    }
    rdma_buffer_free(node, buffer, FIXTURE_SLAB_BYTES);
}

static struct rdma_request chain_request(uint64_t address, uint32_t nodes, void *to,
                                         uint32_t *chain_got)
{
    return (struct rdma_request){.op = RDMA_CHAIN,
                                 .page = address / 4096,
                                 .offset_bytes = address % 4096,
                                 .bytes = NODE,
                                 .chain_nodes = nodes,
                                 .chain_next = NEXT,
                                 .chain_got = chain_got,
                                 .local = to};
}

static uint32_t chain_follow(struct rdma_queue *queue, uint64_t address, uint32_t nodes)
{
    uint32_t chain_got = 0;
    struct rdma_request request = chain_request(address, nodes, got, &chain_got);
    struct rdma_completion done;

    ck_assert_int_eq(rdma_queue_post(queue, &request, 1), 1);
    ck_assert_int_eq(rdma_queue_poll(queue, &done, 1, FIXTURE_TIMEOUT_NS), 1);
    ck_assert_int_eq(done.status, 0);
    return chain_got;
}

static void expect_nodes(const uint8_t *from, unsigned first, unsigned count, uint64_t last_next)
{
    for (unsigned i = 0; i < count; i++) {
        uint8_t wanted[NODE];
        unsigned number = first + i;

        node_fill(wanted, number, number + 1 < NODES ? address_of[number + 1] : last_next);
        ck_assert_mem_eq(from + i * NODE, wanted, NODE);
    }
}

START_TEST(a_chain_comes_whole_whatever_slabs_it_is_in)
{
    struct rdma_node *node = fixture_connect_as(&server, "ofi", QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 8);

    ck_assert(rdma_chains(node));
    chain_write(node, queue, 0);
    ck_assert_uint_eq(chain_follow(queue, address_of[0], RDMA_CHAIN_NODES_MAX), NODES);
    expect_nodes(got, 0, NODES, 0);
    ck_assert_uint_eq(chain_follow(queue, address_of[10], 7), 7);
    expect_nodes(got, 10, 7, 0);
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

/* Where a chain may lead that is not the tenant's, or not in one piece. */
static const uint64_t nowhere[] = {1,
                                   4096,
                                   8 * FIXTURE_SLAB_BYTES + 100,
                                   8 * FIXTURE_SLAB_BYTES - 20, /* its end is in no slab */
                                   5 * FIXTURE_SLAB_BYTES - 20, /* nor is the start of this one */
                                   1ULL << 52,
                                   (1ULL << 52) - 8,
                                   UINT64_MAX,
                                   UINT64_MAX - 60};

START_TEST(what_the_tenant_does_not_hold_ends_a_chain)
{
    struct rdma_node *node = fixture_connect_as(&server, "ofi", QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 8);

    chain_write(node, queue, nowhere[_i]);
    ck_assert_uint_eq(chain_follow(queue, address_of[0], RDMA_CHAIN_NODES_MAX), NODES);
    expect_nodes(got, 0, NODES, nowhere[_i]);
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(a_slab_given_back_is_followed_into_no_more)
{
    struct rdma_node *node = fixture_connect_as(&server, "ofi", QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 8);
    uint8_t *page = NULL;

    chain_write(node, queue, 0);
    ck_assert_int_eq(rdma_release_slab(node, 6 * RDMA_SLAB_PAGES), 0);
    ck_assert_int_eq(rdma_reserve(node, 20 * RDMA_SLAB_PAGES, 1), 0); /* after the release */
    ck_assert_uint_eq(chain_follow(queue, address_of[0], RDMA_CHAIN_NODES_MAX), 1);
    ck_assert_int_eq(rdma_reserve(node, 6 * RDMA_SLAB_PAGES, 1), 0);
    /* New memory: the second node has no successor. */
    ck_assert_uint_eq(chain_follow(queue, address_of[0], RDMA_CHAIN_NODES_MAX), 2);
    ck_assert_int_eq(rdma_buffer_alloc(node, 4096, (void **)&page), 0);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, 5 * RDMA_SLAB_PAGES, 1, page), 0);
    rdma_buffer_free(node, page, 4096);
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(many_chains_and_reads_share_a_queue)
{
    struct rdma_node *node = fixture_connect_as(&server, _i ? "ofi,delay=30us" : "ofi", QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 32);
    static uint8_t to[32][8 * NODE];
    uint32_t nodes[32] = {0}, posted = 0, finished = 0;

    chain_write(node, queue, 0);
    while (finished < 3000) {
        struct rdma_completion done[32];
        struct rdma_request request =
            chain_request(address_of[posted % 50], 8, to[posted % 32], &nodes[posted % 32]);

        request.cookie = posted;
        if (posted % 3 == 1) /* a plain look at the same place */
            request = (struct rdma_request){.op = RDMA_READ,
                                            .page = request.page,
                                            .offset_bytes = request.offset_bytes,
                                            .bytes = 16,
                                            .local = to[posted % 32],
                                            .cookie = posted};
        if (posted - finished < 32 && posted < 3000) {
            int taken = rdma_queue_post(queue, &request, 1);

            ck_assert_int_ge(taken, 0);
            posted += (uint32_t)taken;
            if (taken)
                continue;
        }
        /* Out of order at most by what is in flight: each one's buffer is its own till then. */
        int count = rdma_queue_poll(queue, done, 32, FIXTURE_TIMEOUT_NS);
        ck_assert_int_gt(count, 0);
        for (int i = 0; i < count; i++, finished++) {
            uint64_t number = done[i].cookie;

            ck_assert_int_eq(done[i].status, 0);
            if (number % 3 == 1)
                continue;
            ck_assert_uint_eq(nodes[number % 32], 8);
            expect_nodes(to[number % 32], (unsigned)(number % 50), 8, 0);
        }
    }
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(nonsense_is_refused_before_it_is_sent)
{
    struct rdma_node *node = fixture_connect_as(&server, "ofi", QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 8);
    uint32_t nodes = 0;

    chain_write(node, queue, 0);
    for (unsigned i = 0; i < 6; i++) {
        struct rdma_request request = chain_request(address_of[0], 8, got, &nodes);

        request.bytes = i == 0 ? 7 : i == 1 ? RDMA_CHAIN_NODE_MAX_BYTES + 1 : NODE;
        request.chain_nodes = i == 2 ? 0 : i == 3 ? RDMA_CHAIN_NODES_MAX + 1 : 8;
        request.chain_next = i == 4 ? NODE - 7 : NEXT;
        request.chain_got = i == 5 ? NULL : &nodes;
        ck_assert_int_eq(rdma_queue_post(queue, &request, 1), -EINVAL);
    }
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(a_transport_that_cannot_says_so)
{
    struct rdma_node *node = fixture_connect_as(&server, "loopback", QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 8);
    uint32_t nodes = 0;
    struct rdma_request request = chain_request(4096, 8, got, &nodes);

    ck_assert(!rdma_chains(node));
    ck_assert_int_eq(rdma_reserve(node, 1, 1), 0);
    ck_assert_int_eq(rdma_queue_post(queue, &request, 1), -EINVAL);
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(a_delay_is_kept_and_named)
{
    struct rdma_node *node = fixture_connect_as(&server, "ofi,delay=3ms", QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 4);
    void *page = NULL;

    ck_assert_str_eq(rdma_node_describe(node), "ofi/tcp (simulated delay=3000000ns)");
    ck_assert_int_eq(rdma_buffer_alloc(node, 4096, &page), 0);
    ck_assert_int_eq(rdma_reserve(node, 1, 1), 0);
    for (unsigned i = 0; i < 5; i++) {
        uint64_t start_ns = clock_now_ns();

        ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, 1, 1, page), 0);
        ck_assert_uint_ge(clock_now_ns() - start_ns, 3000000);
    }
    rdma_buffer_free(node, page, 4096);
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("chain");
    TCase *tests = tcase_create("chains");

    if (fixture_rdma())
        return 0; /* of libfabric alone */
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, a_chain_comes_whole_whatever_slabs_it_is_in);
    tcase_add_loop_test(tests, what_the_tenant_does_not_hold_ends_a_chain, 0,
                        (int)(sizeof(nowhere) / sizeof(nowhere[0])));
    tcase_add_test(tests, a_slab_given_back_is_followed_into_no_more);
    tcase_add_loop_test(tests, many_chains_and_reads_share_a_queue, 0, 2);
    tcase_add_test(tests, nonsense_is_refused_before_it_is_sent);
    tcase_add_test(tests, a_transport_that_cannot_says_so);
    tcase_add_test(tests, a_delay_is_kept_and_named);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
