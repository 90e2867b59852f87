/* SPDX-License-Identifier: Apache-2.0 */
/* Chains that the memory node follows: two nodes, each at the start of a block. */
#include "fault/engine_internal.h"
#include "tests/unit/fault/engine.h"

#define NODE_A FIRST
#define NODE_B (FIRST + 1024)

static struct fault_chain chain;
static bool chain_came;

static void chain_done(struct fault_chain *done)
{
    chain_came = done == &chain;
}

static void node_put(uint64_t page, uint64_t next_page, uint64_t value)
{
    ck_assert_int_eq(fault_pin(context, page, 1, true), 0);
    bytes_of(page)[0] = next_page << EPT_PAGE_SHIFT;
    bytes_of(page)[1] = value;
    fault_unpin(engine, page, 1);
}

/* Uses other pages until this one has left. */
static void push_out(uint64_t page)
{
    for (uint64_t i = 0; residency(page) != FV_PAGE_REMOTE; i++) {
        if (i % 256 == 0) /* it was wanted again, and would be kept */
            fault_cold(engine, page, 1);
        page_put(context, FIRST + 2 * LOCAL_PAGES + i % (3 * LOCAL_PAGES), i + 1);
    }
}

static void chain_start(void)
{
    chain = (struct fault_chain){
        .gpa = NODE_A << EPT_PAGE_SHIFT, .node_bytes = 64, .nodes = 10, .done = chain_done};
    chain_came = false;
    ck_assert_int_eq(fault_chain_start(context, &chain), 1);
}

static void chain_wait(void)
{
    while (!chain_came)
        ck_assert_int_ge(fault_peek_poll(context, 1000000), 0);
    ck_assert_uint_eq(chain.got, 2);
}

static uint64_t chain_value(unsigned number)
{
    return ((uint64_t *)(void *)(chain.data + (size_t)number * chain.node_bytes))[1];
}

static bool chain_good(uint64_t page)
{
    return fault_chain_valid(engine, &chain, page << EPT_PAGE_SHIFT);
}

static void chain_setup(void)
{
    transport = "ofi";
    setup();
    node_put(NODE_A, NODE_B, 1);
    node_put(NODE_B, 0, 1);
    node_put(NODE_B + 1, 0, 1); /* keeps the slab when NODE_B is discarded */
    push_out(NODE_A);
    push_out(NODE_B);
    push_out(NODE_B + 1);
}

START_TEST(a_chain_comes_but_for_what_is_here)
{
    chain_start();
    chain_wait();
    ck_assert(chain_good(NODE_A) && chain_good(NODE_B));
    ck_assert(chain_value(0) == 1 && chain_value(1) == 1);
    ck_assert(residency(NODE_A) == FV_PAGE_REMOTE && residency(NODE_B) == FV_PAGE_REMOTE);
    for (gpa_t at = UINT64_MAX - chain.node_bytes; at != 0; at++) /* to the last byte there is */
        ck_assert(!fault_chain_valid(engine, &chain, at));
    node_put(NODE_B, 0, 2);
    chain_start();
    chain_wait();
    ck_assert(chain_good(NODE_A) && !chain_good(NODE_B));
    node_put(NODE_A, NODE_B, 2);
    ck_assert_int_eq(fault_chain_start(context, &chain), 0);
}
END_TEST

START_TEST(a_node_written_back_after_it_was_read_is_not_taken)
{
    node_put(NODE_B, 0, 2);
    chain_start();
    usleep(50000); /* the memory node has read what it had */
    push_out(NODE_B);
    chain_wait();
    ck_assert_uint_eq(chain_value(1), 1);
    ck_assert(!chain_good(NODE_B));
    chain_start();
    chain_wait();
    ck_assert(chain_value(1) == 2 && chain_good(NODE_B));
}
END_TEST

START_TEST(a_node_discarded_meanwhile_is_not_taken)
{
    chain_start();
    ck_assert_int_eq(fault_discard(context, NODE_B, 1, false), 0);
    chain_wait();
    ck_assert(!chain_good(NODE_B));
}
END_TEST

/* Half of all numbers have been given since pages of the node's block left last. */
START_TEST(a_node_written_back_after_a_long_time_is_not_taken)
{
    uint32_t departed = atomic_load(&engine->blocks[NODE_B >> BLOCK_SHIFT].departed);
    node_put(NODE_B, 0, 2);
    atomic_store(&engine->departures, departed + INT32_MAX);
    chain_start();
    usleep(50000); /* the memory node has read what it had */
    push_out(NODE_B);
    chain_wait();
    ck_assert_uint_eq(chain_value(1), 1);
    ck_assert(!chain_good(NODE_B));
    chain_start();
    chain_wait();
    ck_assert(chain_value(1) == 2 && chain_good(NODE_B));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("chain");
    engine_requirements();
    TCase *chains = tcase_create("chains");
    tcase_add_checked_fixture(chains, chain_setup, teardown);
    tcase_set_timeout(chains, 60);
    tcase_add_test(chains, a_chain_comes_but_for_what_is_here);
    tcase_add_test(chains, a_node_written_back_after_it_was_read_is_not_taken);
    tcase_add_test(chains, a_node_discarded_meanwhile_is_not_taken);
    tcase_add_test(chains, a_node_written_back_after_a_long_time_is_not_taken);
    suite_add_tcase(suite, chains);
    return unit_run(suite);
}
