/* SPDX-License-Identifier: Apache-2.0 */
/* The paging engine: what is read is what was written, within the bounds, whatever goes on. */
#include "tests/unit/fault/engine.h"

#include <pthread.h>
#include <string.h>

#define THREADS 4
#define ROUNDS  20000

static atomic_int wrong;

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

#define SHORT_NS 1000000000u /* a busy host's delays must be small beside it */

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

START_TEST(who_waits_to_be_admitted_sleeps)
{
    struct timespec from, to;
    uint64_t admitted = LOCAL_PAGES / 8 + 1;
    int64_t got;
    ck_assert_int_eq(fault_admit(context, LOCAL_PAGES / 8, false), LOCAL_PAGES / 8);
    ck_assert_int_eq(fault_admit(context, 1, false), 1);
    while ((got = fault_admit(context, 64, false)) > 0)
        admitted += (uint64_t)got;
    ck_assert_uint_eq(admitted, LOCAL_PAGES / 4 - 3); /* and the least is four */
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    ck_assert_int_eq(fault_admit(context, 64, true), -EBUSY);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    int64_t ns = (to.tv_sec - from.tv_sec) * 1000000000 + to.tv_nsec - from.tv_nsec;
    ck_assert_int_lt(ns, 15000000 * unit_slowness());
    fault_dismiss(engine, admitted);
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
    engine_requirements();
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
    tcase_add_test(impatient, who_waits_to_be_admitted_sleeps);
    suite_add_tcase(suite, impatient);
    return unit_run(suite);
}
