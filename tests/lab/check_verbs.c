/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What only verbs can show, on a real or software RDMA device: that a tenant's keys are of no use
 * to another, that they die with slab and tenant, and that a connection which fails ends the node
 * in the promised way. Works on raw connections, past the transport's own checks, as a hostile
 * tenant would. The transport's ordinary duties are in tests/unit/rdma, which the lab runs over
 * verbs too.
 */
#include "rdma/verbs.h"
#include "tests/unit/rdma/server_fixture.h"

#include <sys/socket.h>

#define QUOTA       (16 * FIXTURE_SLAB_BYTES)
#define WAIT_NS     10000000000ULL
#define SLOT_UNUSED 0x5a

static struct server_fixture server;

static void set_up(void)
{
    message_init("check_verbs", MESSAGE_NORMAL);
    fixture_start(&server, NULL);
}

static void tear_down(void)
{
    fixture_stop(&server, SIGKILL);
}

/* A tenant with a raw connection and one registered page. */
struct tenant {
    struct rdma_node *node;
    struct verbs_link link;
    uint8_t *page;
    uint32_t local_key;
};

static struct tenant tenant_open(void)
{
    struct tenant tenant = {.node = fixture_connect_as(&server, "verbs", QUOTA)};
    struct verbs_node *shared = tenant.node->private;
    const char *why = NULL;
    void *page;

    ck_assert_int_eq(verbs_link_open(tenant.node, &tenant.link, 0, 4, &why), 0);
    ck_assert_int_eq(rdma_buffer_alloc(tenant.node, RDMA_PAGE_BYTES, &page), 0);
    tenant.page = page;
    tenant.local_key = shared->buffers->region->lkey;
    memset(page, SLOT_UNUSED, RDMA_PAGE_BYTES);
    return tenant;
}

static void tenant_close(struct tenant *tenant)
{
    verbs_link_close(tenant->node->private, &tenant->link);
    rdma_node_destroy(tenant->node);
}

/* One raw transfer of the tenant's page; how it ended. */
static enum ibv_wc_status transfer(struct tenant *tenant, enum ibv_wr_opcode opcode,
                                   uint64_t remote, uint32_t key)
{
    struct ibv_sge piece = {
        .addr = (uintptr_t)tenant->page, .length = RDMA_PAGE_BYTES, .lkey = tenant->local_key};
    struct ibv_send_wr work = {.sg_list = &piece,
                               .num_sge = 1,
                               .opcode = opcode,
                               .send_flags = IBV_SEND_SIGNALED,
                               .wr.rdma = {.remote_addr = remote, .rkey = key}};
    struct ibv_send_wr *bad;
    struct ibv_wc done = {.status = IBV_WC_GENERAL_ERR};
    uint64_t deadline_ns = clock_now_ns() + WAIT_NS;

    ck_assert_int_eq(ibv_post_send(tenant->link.id->qp, &work, &bad), 0);
    while (ibv_poll_cq(tenant->link.cq, 1, &done) == 0)
        ck_assert_uint_lt(clock_now_ns(), deadline_ns);
    return done.status;
}

static uint64_t slab_address(const struct tenant *tenant, uint64_t slab)
{
    return atomic_load(&tenant->node->slabs[slab].place) & ~SLAB_FLAGS;
}

static uint32_t slab_key(const struct tenant *tenant, uint64_t slab)
{
    return (uint32_t)atomic_load(&tenant->node->slabs[slab].key);
}

static void expect_untouched(const struct tenant *tenant)
{
    for (uint32_t i = 0; i < RDMA_PAGE_BYTES; i++)
        ck_assert_uint_eq(tenant->page[i], SLOT_UNUSED);
}

START_TEST(a_raw_transfer_with_the_right_key_works)
{
    struct tenant tenant = tenant_open();

    ck_assert_int_eq(rdma_reserve(tenant.node, 0, 1), 0);
    ck_assert_int_eq(
        transfer(&tenant, IBV_WR_RDMA_WRITE, slab_address(&tenant, 0), slab_key(&tenant, 0)),
        IBV_WC_SUCCESS);
    memset(tenant.page, 0, RDMA_PAGE_BYTES);
    ck_assert_int_eq(
        transfer(&tenant, IBV_WR_RDMA_READ, slab_address(&tenant, 0), slab_key(&tenant, 0)),
        IBV_WC_SUCCESS);
    expect_untouched(&tenant); /* what was written came back */
    tenant_close(&tenant);
}
END_TEST

/* The strongest guess there is: key and address are right, only the tenant is not. */
static void guess(enum ibv_wr_opcode opcode)
{
    struct tenant victim = tenant_open();
    struct tenant attacker = tenant_open();
    uint64_t address;
    uint32_t key;

    ck_assert_int_eq(rdma_reserve(victim.node, 0, 1), 0);
    ck_assert_int_eq(rdma_reserve(attacker.node, 0, 1), 0);
    address = slab_address(&victim, 0);
    key = slab_key(&victim, 0);
    memset(victim.page, 'v', RDMA_PAGE_BYTES);
    ck_assert_int_eq(transfer(&victim, IBV_WR_RDMA_WRITE, address, key), IBV_WC_SUCCESS);
    ck_assert_int_eq(transfer(&attacker, opcode, address, key), IBV_WC_REM_ACCESS_ERR);
    expect_untouched(&attacker);
    memset(victim.page, 0, RDMA_PAGE_BYTES);
    ck_assert_int_eq(transfer(&victim, IBV_WR_RDMA_READ, address, key), IBV_WC_SUCCESS);
    for (uint32_t i = 0; i < RDMA_PAGE_BYTES; i++)
        ck_assert_uint_eq(victim.page[i], 'v');
    ck_assert_int_eq(rdma_node_error(victim.node), 0);
    tenant_close(&attacker);
    tenant_close(&victim);
}

START_TEST(another_tenants_key_reads_nothing)
{
    guess(IBV_WR_RDMA_READ);
}
END_TEST

START_TEST(another_tenants_key_writes_nothing)
{
    guess(IBV_WR_RDMA_WRITE);
}
END_TEST

START_TEST(nothing_beyond_a_slab_is_reached)
{
    struct tenant tenant = tenant_open();

    ck_assert_int_eq(rdma_reserve(tenant.node, 0, 1), 0);
    ck_assert_int_eq(transfer(&tenant, IBV_WR_RDMA_READ,
                              slab_address(&tenant, 0) + WIRE_SLAB_BYTES - RDMA_PAGE_BYTES / 2,
                              slab_key(&tenant, 0)),
                     IBV_WC_REM_ACCESS_ERR);
    expect_untouched(&tenant);
    tenant_close(&tenant);
}
END_TEST

START_TEST(a_released_slabs_key_is_dead)
{
    struct tenant tenant = tenant_open();
    uint64_t address;
    uint32_t key;

    ck_assert_int_eq(rdma_reserve(tenant.node, 0, 1), 0);
    address = slab_address(&tenant, 0);
    key = slab_key(&tenant, 0);
    ck_assert_int_eq(rdma_release_slab(tenant.node, 0), 0);
    fixture_expect_status(&server, "used_bytes", 0);
    ck_assert_int_eq(transfer(&tenant, IBV_WR_RDMA_READ, address, key), IBV_WC_REM_ACCESS_ERR);
    expect_untouched(&tenant);
    tenant_close(&tenant);
}
END_TEST

/* Its data connection stays up as far as it can help it; only its control connection goes. */
START_TEST(a_gone_tenants_keys_are_dead)
{
    struct tenant tenant = tenant_open();

    ck_assert_int_eq(rdma_reserve(tenant.node, 0, 1), 0);
    shutdown(tenant.node->channel.fd, SHUT_RDWR);
    fixture_expect_status(&server, "tenants_now", 0);
    ck_assert_int_ne(
        transfer(&tenant, IBV_WR_RDMA_READ, slab_address(&tenant, 0), slab_key(&tenant, 0)),
        IBV_WC_SUCCESS);
    expect_untouched(&tenant);
    tenant_close(&tenant);
}
END_TEST

START_TEST(a_wrong_token_is_refused)
{
    struct rdma_node *node = fixture_connect_as(&server, "verbs", QUOTA);
    struct rdma_queue *queue = NULL;

    node->ready.token[3] ^= 1;
    ck_assert_int_eq(rdma_queue_create(node, RDMA_QUEUE_DEMAND, 4, &queue), -EACCES);
    ck_assert_ptr_null(queue);
    node->ready.token[3] ^= 1;
    rdma_queue_destroy(fixture_queue(node, 4));
    rdma_node_destroy(node);
}
END_TEST

START_TEST(a_port_where_nobody_listens_is_refused)
{
    struct rdma_node *node = fixture_connect_as(&server, "verbs", QUOTA);
    struct rdma_queue *queue = NULL;
    uint64_t began = clock_now_ns();

    node->ready.fabric_port = 9;
    ck_assert_int_lt(rdma_queue_create(node, RDMA_QUEUE_DEMAND, 4, &queue), 0);
    ck_assert_uint_lt(clock_now_ns() - began, 2 * FIXTURE_TIMEOUT_NS);
    ck_assert_int_eq(rdma_node_error(node), 0);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(memory_that_is_not_registered_is_refused)
{
    struct rdma_node *node = fixture_connect_as(&server, "verbs", QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 4);
    static _Alignas(RDMA_PAGE_BYTES) uint8_t page[RDMA_PAGE_BYTES];
    void *buffer;

    ck_assert(rdma_needs_buffer(node));
    ck_assert_int_eq(rdma_reserve(node, 0, 4), 0);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, 0, 1, page), -EINVAL);
    ck_assert_int_eq(rdma_buffer_alloc(node, RDMA_PAGE_BYTES, &buffer), 0);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, 0, 1, buffer), 0);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, 0, 2, buffer), -EINVAL);
    rdma_buffer_free(node, buffer, RDMA_PAGE_BYTES);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, 0, 1, buffer), -EINVAL);
    ck_assert_int_eq(rdma_node_error(node), 0);
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

/* As if the device had found a fault: the queue pair goes into its error state. */
START_TEST(a_pair_forced_into_error_ends_transfers)
{
    struct rdma_node *node = fixture_connect_as(&server, "verbs", QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 4);
    struct ibv_qp_attr failed = {.qp_state = IBV_QPS_ERR};
    const struct verbs_queue *own = queue->private;
    void *page;

    ck_assert_int_eq(rdma_buffer_alloc(node, RDMA_PAGE_BYTES, &page), 0);
    ck_assert_int_eq(rdma_reserve(node, 0, 1), 0);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, 0, 1, page), 0);
    ck_assert_int_eq(verbs.ibv_modify_qp(own->link.id->qp, &failed, IBV_QP_STATE), 0);
    ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, 0, 1, page), -ECONNRESET);
    ck_assert_int_eq(rdma_node_error(node), -ECONNRESET);
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(auto_takes_verbs_and_says_so)
{
    struct rdma_config config = {.transport = "auto",
                                 .address = server.rdma_address,
                                 .quota_bytes = QUOTA,
                                 .span_pages = 1 << 20,
                                 .timeout_ns = FIXTURE_TIMEOUT_NS};
    struct rdma_node *node;

    ck_assert_int_eq(rdma_node_connect(&node, &config), 0);
    ck_assert_ptr_nonnull(strstr(rdma_node_describe(node), "verbs/"));
    rdma_node_destroy(node);
}
END_TEST

static Suite *verbs_suite(void)
{
    Suite *suite = suite_create("verbs on a device");
    TCase *device = tcase_create("device");

    tcase_add_checked_fixture(device, set_up, tear_down);
    tcase_set_timeout(device, 60);
    tcase_add_test(device, a_raw_transfer_with_the_right_key_works);
    tcase_add_test(device, another_tenants_key_reads_nothing);
    tcase_add_test(device, another_tenants_key_writes_nothing);
    tcase_add_test(device, nothing_beyond_a_slab_is_reached);
    tcase_add_test(device, a_released_slabs_key_is_dead);
    tcase_add_test(device, a_gone_tenants_keys_are_dead);
    tcase_add_test(device, a_wrong_token_is_refused);
    tcase_add_test(device, a_port_where_nobody_listens_is_refused);
    tcase_add_test(device, memory_that_is_not_registered_is_refused);
    tcase_add_test(device, a_pair_forced_into_error_ends_transfers);
    tcase_add_test(device, auto_takes_verbs_and_says_so);
    suite_add_tcase(suite, device);
    return suite;
}

int main(void)
{
    if (!fixture_rdma())
        unit_skip("FARVISOR_TEST_RDMA names no address with an RDMA device");
    return unit_run(verbs_suite());
}
