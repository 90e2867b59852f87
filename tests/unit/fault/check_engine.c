/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The paging engine against a real memserver, second stage and userfaultfd; the threads of the
 * tests stand where vCPUs and the VMM's system calls would, using pins. Needs $MEMSERVER.
 */
#include "farvisor/hints.h"
#include "fault/fault.h"
#include "support.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define FIRST        ((1ULL << 38) / EPT_PAGE_BYTES + 512)
#define LOCAL_PAGES  2048u
#define MEMORY_PAGES 32768u
#define THREADS      4
#define ROUNDS       20000

static int kvm = -1, vm = -1;
static pid_t server;
static struct ept *ept;
static struct rdma_node *node;
static struct fault_engine *engine;
static struct fault_context *context;
static char address[128];
static const char *transport = "auto";
static uint64_t timeout_ns = 5000000000u;
static atomic_int wrong;

static void server_start(void)
{
    int ready[2];
    char fd[16], line[128] = "";
    snprintf(address, sizeof(address), "unix:/tmp/check_engine.%d", (int)getpid());
    ck_assert_int_eq(pipe(ready), 0);
    server = fork();
    ck_assert_int_ge(server, 0);
    if (server == 0) {
        close(ready[0]);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        snprintf(fd, sizeof(fd), "%d", ready[1]);
        execl(getenv("MEMSERVER"), "memserver", "--listen", address, "--capacity", "256M",
              "--ready-fd", fd, (char *)NULL);
        _exit(127);
    }
    close(ready[1]);
    ck_assert_int_gt(read(ready[0], line, sizeof(line) - 1), 0);
    close(ready[0]);
}

static int extent(void *owner, uint64_t page, uint64_t *first, uint64_t *last, bool *zero)
{
    (void)owner;
    if (page < FIRST || page >= FIRST + 2 * MEMORY_PAGES)
        return -EFAULT;
    *first = FIRST;
    *last = FIRST + 2 * MEMORY_PAGES;
    *zero = true;
    return 0;
}

static void setup(void)
{
    message_init("check_engine", MESSAGE_NORMAL);
    server_start();
    kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    vm = ioctl(kvm, KVM_CREATE_VM, 0);
    ck_assert_int_ge(vm, 0);
    struct ept_config second = {.kvm_fd = kvm, .vm_fd = vm, .paged = true, .exit_mode = true};
    ck_assert_int_eq(ept_create(&ept, &second), 0);
    gpa_t gpa = FIRST << EPT_PAGE_SHIFT;
    ck_assert_int_eq(ept_back(ept, gpa, 2ULL * MEMORY_PAGES * EPT_PAGE_BYTES), 0);
    ck_assert_int_eq(ept_protect(ept, gpa, 16 << 20, EPT_READ | EPT_WRITE), 0);
    struct rdma_config far = {.transport = transport,
                              .address = address,
                              .name = "check_engine",
                              .quota_bytes = 128 << 20,
                              .timeout_ns = 5000000000u,
                              .span_pages = ept_span(ept) >> EPT_PAGE_SHIFT};
    ck_assert_int_eq(rdma_node_connect(&node, &far), 0);
    struct fault_config config = {.ept = ept,
                                  .node = node,
                                  .memory_pages = MEMORY_PAGES,
                                  .local_pages = LOCAL_PAGES,
                                  .timeout_ns = timeout_ns,
                                  .source = {.extent = extent}};
    ck_assert_int_eq(fault_engine_create(&engine, &config), 0);
    ck_assert_int_eq(fault_context_create(engine, &context), 0);
}

static void teardown(void)
{
    fault_context_destroy(context);
    fault_engine_destroy(engine);
    rdma_node_destroy(node);
    ept_destroy(ept);
    close(vm);
    close(kvm);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
}

static uint64_t *bytes_of(uint64_t page)
{
    return ept_hva(ept, page << EPT_PAGE_SHIFT);
}

static void page_put(struct fault_context *by, uint64_t page, uint64_t value)
{
    ck_assert_int_eq(fault_pin(by, page, 1, true), 0);
    for (int i = 0; i < 512; i += 73)
        bytes_of(page)[i] = value + (uint64_t)i;
    fault_unpin(engine, page, 1);
}

static uint64_t page_get(struct fault_context *by, uint64_t page)
{
    ck_assert_int_eq(fault_pin(by, page, 1, false), 0);
    uint64_t value = bytes_of(page)[0];
    for (int i = 0; i < 512; i += 73)
        ck_assert_uint_eq(bytes_of(page)[i], value ? value + (uint64_t)i : 0);
    fault_unpin(engine, page, 1);
    return value;
}

static struct fault_counters counters(void)
{
    struct fault_counters now;
    fault_engine_counters(engine, &now);
    return now;
}

START_TEST(first_touch_reads_zero)
{
    ck_assert_uint_eq(page_get(context, FIRST + 77), 0);
    ck_assert_uint_eq(counters().demand_fetches, 0);
    ck_assert_int_eq(fault_resolve(context, FIRST - 1, false), -EFAULT);
}
END_TEST

START_TEST(contents_survive_eviction)
{
    for (uint64_t i = 0; i < 4 * LOCAL_PAGES; i++)
        page_put(context, FIRST + i, 1000 * i + 1000);
    for (uint64_t i = 0; i < 4 * LOCAL_PAGES; i++)
        ck_assert_uint_eq(page_get(context, FIRST + i), 1000 * i + 1000);
    struct fault_counters now = counters();
    ck_assert_uint_le(now.resident_peak_pages, LOCAL_PAGES);
    ck_assert_uint_gt(now.evicted_pages, 3 * LOCAL_PAGES);
    ck_assert_uint_le(ept_resident_bytes(ept), LOCAL_PAGES * EPT_PAGE_BYTES);
}
END_TEST

START_TEST(pages_never_written_are_never_fetched)
{
    for (uint64_t i = 0; i < 4 * LOCAL_PAGES; i++)
        ck_assert_uint_eq(page_get(context, FIRST + i), 0);
    struct fault_counters now = counters();
    ck_assert_uint_eq(now.written_bytes, 0);
    ck_assert_uint_eq(now.fetched_bytes, 0);
}
END_TEST

START_TEST(discarded_pages_read_zero_and_free_the_node)
{
    struct rdma_counters wire;
    for (uint64_t i = 0; i < 4 * LOCAL_PAGES; i++)
        page_put(context, FIRST + i, 5000 * i + 5000);
    /* All of it: a first touch may have filled pages beyond those written. */
    ck_assert_int_eq(fault_discard(context, FIRST, 2 * MEMORY_PAGES, true), 0);
    struct fault_counters now = counters();
    ck_assert_uint_eq(now.existing_pages, 0);
    ck_assert_uint_eq(now.resident_pages, 0);
    rdma_node_counters(node, &wire);
    ck_assert_uint_eq(wire.slabs_held, 0);
    for (uint64_t i = 0; i < LOCAL_PAGES; i++)
        ck_assert_uint_eq(page_get(context, FIRST + i), 0);
}
END_TEST

START_TEST(quota_is_a_bound)
{
    int error = 0;
    uint64_t i = 0;
    for (; !error && i <= MEMORY_PAGES; i++) {
        error = fault_pin(context, FIRST + i, 1, true);
        if (!error) {
            bytes_of(FIRST + i)[0] = i + 1;
            fault_unpin(engine, FIRST + i, 1);
        }
    }
    ck_assert_int_eq(error, -ENOMEM);
    ck_assert_uint_eq(i, MEMORY_PAGES + 1);
    ck_assert_uint_le(counters().existing_peak_pages, MEMORY_PAGES);
}
END_TEST

START_TEST(pinned_pages_stay)
{
    ck_assert_int_eq(fault_pin(context, FIRST, 64, true), 0);
    memset(bytes_of(FIRST), 0x77, 64 * EPT_PAGE_BYTES);
    for (uint64_t i = 64; i < 6 * LOCAL_PAGES; i++)
        page_put(context, FIRST + i, i);
    const ept_word_t *words = ept_words(ept);
    for (uint64_t i = 0; i < 64; i++)
        ck_assert_int_eq(ept_word_state(atomic_load(&words[FIRST + i])), EPT_LOCAL);
    fault_unpin(engine, FIRST, 64);
}
END_TEST

#define SHORT_NS 300000000u

static void setup_short(void)
{
    timeout_ns = SHORT_NS;
    setup();
}

/* Pins all that may be here; every other page then waits in vain. */
static void pin_everything(void)
{
    for (uint64_t i = 0; i < LOCAL_PAGES; i++)
        ck_assert_int_eq(fault_pin(context, FIRST + i, 1, true), 0);
}

START_TEST(a_wait_for_frames_is_bounded_and_not_taken_for_used_up_memory)
{
    pin_everything();
    for (int write = 0; write < 2; write++) {
        uint64_t start_ns = clock_now_ns();
        ck_assert_int_eq(fault_resolve(context, FIRST + 3 * LOCAL_PAGES, write), -EBUSY);
        ck_assert_uint_le(clock_now_ns() - start_ns, 3ULL * SHORT_NS);
        ck_assert_uint_ge(clock_now_ns() - start_ns, SHORT_NS);
    }
    ck_assert_int_eq(fault_pin(context, FIRST + 3 * LOCAL_PAGES, 2, true), -EBUSY);
    ck_assert_int_eq(fault_engine_error(engine), 0);
    fault_unpin(engine, FIRST, LOCAL_PAGES);
    ck_assert_int_eq(fault_resolve(context, FIRST + 3 * LOCAL_PAGES, true), 0);
}
END_TEST

START_TEST(what_requests_pin_together_is_admitted_first)
{
    uint64_t admitted = 0, start_ns;
    int64_t got;
    ck_assert_int_eq(fault_admit(context, 64, true), 64);
    for (admitted = 64; (got = fault_admit(context, 64, false)) > 0; admitted += (uint64_t)got)
        ck_assert_uint_le(admitted + (uint64_t)got, LOCAL_PAGES / 4);
    ck_assert_int_eq(got, -EAGAIN);
    ck_assert_uint_gt(admitted, LOCAL_PAGES / 4 - 4);
    start_ns = clock_now_ns();
    ck_assert_int_eq(fault_admit(context, 64, true), -EBUSY);
    ck_assert_uint_ge(clock_now_ns() - start_ns, SHORT_NS);
    fault_dismiss(engine, 4);
    ck_assert_int_eq(fault_admit(context, 64, true), 4); /* a small piece */
    fault_dismiss(engine, admitted);
    ck_assert_int_eq(fault_admit(context, 64, true), 64);
    fault_dismiss(engine, 64);
}
END_TEST

/* Each pins what it may, and waits for its pages while it does: never a pin in vain. */
static void *pinner(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument + 1;
    struct fault_context *own;
    ck_assert_int_eq(fault_context_create(engine, &own), 0);
    for (int i = 0; i < 40; i++) {
        uint64_t page = FIRST + (uint64_t)rand_r(&seed) % (8 * LOCAL_PAGES);
        int64_t pages = fault_admit(own, 64, true);
        if (pages <= 0 || fault_pin(own, page, (uint64_t)pages, true)) {
            atomic_fetch_add(&wrong, 1);
            break;
        }
        usleep(1000);
        fault_unpin(engine, page, (uint64_t)pages);
        fault_dismiss(engine, (uint64_t)pages);
    }
    fault_context_destroy(own);
    return NULL;
}

START_TEST(a_crowd_that_pins_does_not_wait_for_itself)
{
    pthread_t threads[100];
    for (uintptr_t i = 0; i < 100; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, pinner, (void *)i), 0);
    for (size_t i = 0; i < 100; i++)
        pthread_join(threads[i], NULL);
    ck_assert_int_eq(wrong, 0);
    ck_assert_uint_le(counters().resident_peak_pages, LOCAL_PAGES);
}
END_TEST

/* ---- hints ---- */

static uint8_t residency(uint64_t page)
{
    uint8_t state = 99;
    ck_assert_int_eq(fault_residency(engine, page, 1, &state), 0);
    return state;
}

static uint64_t first_remote(uint64_t from)
{
    while (residency(from) != FV_PAGE_REMOTE)
        from++;
    return from;
}

START_TEST(a_look_brings_its_bytes_and_leaves_the_page_remote)
{
    uint64_t got = 0;
    for (uint64_t i = 0; i < 4 * LOCAL_PAGES; i++)
        page_put(context, FIRST + i, 10 * i + 10);
    uint64_t page = first_remote(FIRST), fetched = counters().fetched_bytes;
    gpa_t gpa = (page << EPT_PAGE_SHIFT) + 73 * sizeof(got);
    ck_assert_int_eq(fault_peek(context, gpa, sizeof(got), &got), 0);
    ck_assert_uint_eq(got, 10 * (page - FIRST) + 10 + 73);
    ck_assert_uint_eq(counters().fetched_bytes - fetched, sizeof(got));
    ck_assert_uint_eq(residency(page), FV_PAGE_REMOTE);
    ck_assert_int_eq(fault_peek(context, FIRST + 5 * LOCAL_PAGES, 300, &got), -EFAULT);
    ck_assert_int_eq(fault_peek(context, gpa | 0xfff, 2, &got), -EFAULT);
    got = 1;
    ck_assert_int_eq(fault_peek(context, (FIRST + MEMORY_PAGES + 7) << 12, 8, &got), 0);
    ck_assert_uint_eq(got, 0); /* never written */
}
END_TEST

/* ---- chains: two nodes, each at the start of a block ---- */

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

/* ---- many threads: every page belongs to one thread at a time, its value is known ---- */

static atomic_uint_fast64_t truth[8 * LOCAL_PAGES];
static pthread_mutex_t owner[256];

static void storm_step(struct fault_context *by, unsigned *seed)
{
    uint64_t i = (uint64_t)rand_r(seed) % (8 * LOCAL_PAGES);
    uint64_t value = 0;
    ck_assert_int_ge(fault_prefetch(by, FIRST + (uint64_t)rand_r(seed) % (8 * LOCAL_PAGES), 2), 0);
    pthread_mutex_lock(&owner[i % 256]);
    if (fault_peek(by, (FIRST + i) << EPT_PAGE_SHIFT, sizeof(value), &value) || value != truth[i])
        atomic_fetch_add(&wrong, 1);
    fault_land(by);
    if (page_get(by, FIRST + i) != truth[i])
        atomic_fetch_add(&wrong, 1);
    int what = rand_r(seed) % 16;
    if (what == 0) {
        truth[i] = 0;
        ck_assert_int_eq(fault_discard(by, FIRST + i, 1, false), 0);
    } else if (what < 8) {
        truth[i] = (uint64_t)rand_r(seed) + 1;
        page_put(by, FIRST + i, truth[i]);
    }
    pthread_mutex_unlock(&owner[i % 256]);
}

static void *storm_main(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument + 1;
    struct fault_context *mine;
    ck_assert_int_eq(fault_context_create(engine, &mine), 0);
    for (int i = 0; i < ROUNDS; i++)
        storm_step(mine, &seed);
    fault_context_destroy(mine);
    return NULL;
}

START_TEST(threads_lose_nothing)
{
    pthread_t threads[THREADS];
    for (size_t i = 0; i < 256; i++)
        pthread_mutex_init(&owner[i], NULL);
    for (uintptr_t i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, storm_main, (void *)i), 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_int_eq(wrong, 0);
    ck_assert_uint_le(counters().resident_peak_pages, LOCAL_PAGES);
}
END_TEST

/* A range whose pages were all written and are all away now. */
static void range_send_away(uint64_t pages)
{
    for (uint64_t i = 0; i < pages; i++)
        page_put(context, FIRST + i, 1000 * i + 1000);
    for (uint64_t i = pages; i < pages + 2 * LOCAL_PAGES; i++)
        page_put(context, FIRST + i, 7);
}

static unsigned resident(uint64_t page, uint64_t pages)
{
    uint8_t here[512];
    unsigned count = 0;
    ck_assert_int_eq(fault_residency(engine, page, pages, here), 0);
    for (uint64_t i = 0; i < pages; i++)
        count += here[i] == FV_PAGE_LOCAL;
    return count;
}

/* Advice may find no frame free, or the lane busy: given again until it was taken. */
static void prefetch_until_resident(uint64_t page, uint64_t pages)
{
    for (int i = 0; i < 5000 && resident(page, pages) < pages; i++) {
        ck_assert_int_ge(fault_prefetch(context, page, pages), 0);
        usleep(1000);
    }
    ck_assert_uint_eq(resident(page, pages), pages);
}

START_TEST(prefetched_pages_arrive_untouched)
{
    range_send_away(512);
    uint64_t demanded = counters().demand_fetches;
    ck_assert_uint_eq(resident(FIRST, 64), 0);
    prefetch_until_resident(FIRST, 64);
    for (uint64_t i = 0; i < 64; i++)
        ck_assert_uint_eq(page_get(context, FIRST + i), 1000 * i + 1000);
    ck_assert_uint_eq(counters().demand_fetches, demanded);
    ck_assert_int_eq(fault_prefetch(context, UINT64_MAX - 1, 2), -EFAULT);
}
END_TEST

START_TEST(pages_in_flight_can_be_demanded_and_discarded)
{
    range_send_away(1024);
    for (uint64_t round = 0; round < 64; round++) {
        uint64_t page = FIRST + round * 16;
        fault_prefetch(context, page, 16);
        ck_assert_uint_eq(page_get(context, page + 3), 1000 * (page - FIRST + 3) + 1000);
        ck_assert_int_eq(fault_discard(context, page, 16, false), 0);
        ck_assert_uint_eq(page_get(context, page + 3), 0);
        ck_assert_uint_eq(page_get(context, page + 15), 0);
    }
}
END_TEST

START_TEST(scattered_pages_are_read_and_landed_together)
{
    range_send_away(1024);
    uint64_t flights = counters().flight_ns.count, demanded = counters().demand_fetches;
    for (uint64_t i = 0; i < 1024; i += 32)
        for (int tries = 0; tries < 5000 && fault_prefetch(context, FIRST + i, 1) == 0; tries++)
            usleep(1000); /* the reclaimer has just begun to free frames */
    for (uint64_t i = 0; i < 1024; i += 32) {
        for (int tries = 0; tries < 5000 && !resident(FIRST + i, 1); tries++) {
            fault_land(context);
            usleep(1000);
        }
        ck_assert_uint_eq(page_get(context, FIRST + i), 1000 * i + 1000);
    }
    ck_assert_uint_eq(counters().demand_fetches, demanded);
    /* Two, but for the lander and the wait for frames, which each send what is gathered. */
    ck_assert_uint_le(counters().flight_ns.count - flights, 16);
}
END_TEST

START_TEST(pages_only_gathered_can_be_demanded_and_discarded)
{
    range_send_away(1024);
    for (uint64_t page = FIRST; page < FIRST + 1024; page += 16) {
        fault_prefetch(context, page, 1);
        fault_prefetch(context, page + 5, 2);
        fault_prefetch(context, page + 9, 1);
        ck_assert_uint_eq(page_get(context, page + 6), 1000 * (page - FIRST + 6) + 1000);
        fault_prefetch(context, page + 12, 1);
        ck_assert_int_eq(fault_discard(context, page, 16, false), 0);
        ck_assert_uint_eq(page_get(context, page + 12), 0);
    }
}
END_TEST

START_TEST(a_sequence_is_mostly_prefetched)
{
    range_send_away(4 * LOCAL_PAGES);
    struct fault_counters before = counters();
    for (uint64_t i = 0; i < 4 * LOCAL_PAGES; i++)
        ck_assert_uint_eq(page_get(context, FIRST + i), 1000 * i + 1000);
    struct fault_counters after = counters();
    ck_assert_uint_lt(after.demand_fetches - before.demand_fetches, 4 * LOCAL_PAGES / 10);
    ck_assert_uint_gt(after.prefetched_pages, 3 * LOCAL_PAGES);
    ck_assert_uint_le(after.resident_peak_pages, LOCAL_PAGES);
}
END_TEST

START_TEST(cold_pages_leave_first)
{
    for (uint64_t i = 0; i < 1024; i++)
        page_put(context, FIRST + i, i + 1);
    fault_cold(engine, FIRST + 512, 512);
    for (uint64_t i = 1024; i < LOCAL_PAGES + 256; i++)
        page_put(context, FIRST + i, i + 1);
    usleep(100000); /* the reclaimer works ahead; give it its time */
    ck_assert_uint_lt(resident(FIRST + 512, 512), resident(FIRST, 512));
}
END_TEST

static void setup_slow(void)
{
    transport = "loopback,delay=100us";
    setup();
}

static struct {
    uint64_t page;
    atomic_bool stop;
    atomic_uint_fast64_t looks;
} stared;

static void *starer(void *argument)
{
    struct fault_context *own;
    uint64_t got;
    (void)argument;
    ck_assert_int_eq(fault_context_create(engine, &own), 0);
    while (!atomic_load(&stared.stop))
        if (!fault_peek(own, stared.page << EPT_PAGE_SHIFT, sizeof(got), &got))
            atomic_fetch_add(&stared.looks, 1);
    fault_context_destroy(own);
    return NULL;
}

static uint64_t far_reads(void)
{
    struct rdma_counters wire;
    rdma_node_counters(node, &wire);
    return wire.reads;
}

/* Each look claims its page for a round trip: one after the other may not keep a fault waiting. */
START_TEST(a_stream_of_looks_lets_a_fault_through)
{
    uint64_t most = 0;
    range_send_away(1024);
    for (uint64_t i = 0; i < 48; i++) {
        pthread_t thread;
        uint64_t at = i * 397 % 1024; /* no sequence */
        stared.page = FIRST + at;
        atomic_store(&stared.stop, false);
        atomic_store(&stared.looks, 0);
        ck_assert_int_eq(pthread_create(&thread, NULL, starer, NULL), 0);
        while (atomic_load(&stared.looks) < 10)
            usleep(100);
        uint64_t before = far_reads();
        ck_assert_uint_eq(page_get(context, stared.page), 1000 * at + 1000);
        uint64_t reads = far_reads() - before;
        most = reads > most ? reads : most;
        atomic_store(&stared.stop, true);
        pthread_join(thread, NULL);
    }
    ck_assert_uint_lt(most, 100); /* hundreds where it had to be lucky */
}
END_TEST

START_TEST(lost_node_is_an_error_not_a_hang)
{
    for (uint64_t i = 0; i < 2 * LOCAL_PAGES; i++)
        page_put(context, FIRST + i, i + 1);
    kill(server, SIGKILL);
    uint64_t start_ns = clock_now_ns();
    int error = 0;
    for (uint64_t i = 0; i < 8 * LOCAL_PAGES && !error; i++) {
        error = fault_pin(context, FIRST + i, 1, true);
        if (!error)
            fault_unpin(engine, FIRST + i, 1);
    }
    ck_assert(error == -ECONNRESET || error == -ETIMEDOUT);
    ck_assert_uint_lt(clock_now_ns() - start_ns, 10000000000u);
    ck_assert_int_ne(fault_engine_error(engine), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fault");
    TCase *tests = tcase_create("engine");
    if (access("/dev/kvm", R_OK | W_OK))
        unit_skip("no /dev/kvm");
    if (!getenv("MEMSERVER"))
        unit_skip("$MEMSERVER is not set");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, first_touch_reads_zero);
    tcase_add_test(tests, contents_survive_eviction);
    tcase_add_test(tests, pages_never_written_are_never_fetched);
    tcase_add_test(tests, discarded_pages_read_zero_and_free_the_node);
    tcase_add_test(tests, quota_is_a_bound);
    tcase_add_test(tests, pinned_pages_stay);
    tcase_add_test(tests, prefetched_pages_arrive_untouched);
    tcase_add_test(tests, pages_in_flight_can_be_demanded_and_discarded);
    tcase_add_test(tests, scattered_pages_are_read_and_landed_together);
    tcase_add_test(tests, pages_only_gathered_can_be_demanded_and_discarded);
    tcase_add_test(tests, a_sequence_is_mostly_prefetched);
    tcase_add_test(tests, cold_pages_leave_first);
    tcase_add_test(tests, a_look_brings_its_bytes_and_leaves_the_page_remote);
    tcase_add_test(tests, threads_lose_nothing);
    tcase_add_test(tests, a_crowd_that_pins_does_not_wait_for_itself);
    tcase_add_test(tests, lost_node_is_an_error_not_a_hang);
    suite_add_tcase(suite, tests);
    TCase *slow = tcase_create("slow");
    tcase_add_checked_fixture(slow, setup_slow, teardown);
    tcase_set_timeout(slow, 120);
    tcase_add_test(slow, a_stream_of_looks_lets_a_fault_through);
    suite_add_tcase(suite, slow);
    TCase *impatient = tcase_create("impatient");
    tcase_add_checked_fixture(impatient, setup_short, teardown);
    tcase_set_timeout(impatient, 60);
    tcase_add_test(impatient, a_wait_for_frames_is_bounded_and_not_taken_for_used_up_memory);
    tcase_add_test(impatient, what_requests_pin_together_is_admitted_first);
    suite_add_tcase(suite, impatient);
    TCase *chains = tcase_create("chains");
    tcase_add_checked_fixture(chains, chain_setup, teardown);
    tcase_set_timeout(chains, 60);
    tcase_add_test(chains, a_chain_comes_but_for_what_is_here);
    tcase_add_test(chains, a_node_written_back_after_it_was_read_is_not_taken);
    tcase_add_test(chains, a_node_discarded_meanwhile_is_not_taken);
    suite_add_tcase(suite, chains);
    return unit_run(suite);
}
