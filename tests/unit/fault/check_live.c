/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Live ranges: what segments the bits of a page make, and the engine with a map that threads
 * change while pages come and go. Needs $MEMSERVER and KVM but for the first tests.
 */
#include "farvisor/hints.h"
#include "fault/engine_internal.h"
#include "support.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define FIRST        ((1ULL << 38) / EPT_PAGE_BYTES + 512)
#define LOCAL_PAGES  2048u
#define MEMORY_PAGES 32768u
#define HEAP_PAGES   8192u
#define MAP          (FIRST + HEAP_PAGES) /* its page */
#define UNITS        256u                 /* of a page */
#define THREADS      4
#define STEPS        40000

/* ---- segments ---- */

static bool covered(const struct live_page *live, unsigned unit)
{
    for (unsigned i = 0; i < live->count; i++)
        if (unit * 16 >= live->of[i].start &&
            unit * 16 + 16 <= live->of[i].start + live->of[i].bytes)
            return true;
    return false;
}

static struct live_page segments(const uint64_t bits[4])
{
    struct live_page live;
    uint32_t bytes = 0, end = 0;
    live_segments(bits, &live);
    ck_assert_uint_le(live.count, LIVE_SEGMENTS);
    for (unsigned i = 0; i < live.count; i++) {
        ck_assert(i == 0 || live.of[i].start > end);
        end = (uint32_t)live.of[i].start + live.of[i].bytes;
        bytes += live.of[i].bytes;
    }
    ck_assert_uint_le(end, EPT_PAGE_BYTES);
    ck_assert_uint_eq(bytes, live.bytes);
    unsigned lost = 0; /* asserted once: Check writes a mark for each */
    for (unsigned unit = 0; unit < UNITS; unit++)
        lost += bits[unit / 64] >> unit % 64 & 1 && !covered(&live, unit);
    ck_assert_uint_eq(lost, 0);
    return live;
}

START_TEST(segments_cover_what_lives)
{
    uint64_t state = 1, bits[4];
    for (unsigned round = 0; round < 4000; round++) {
        for (unsigned i = 0; i < 4; i++) {
            uint64_t sparse = ~0ULL;
            for (unsigned j = 0; j < 1 + round % 4; j++) {
                state = state * 6364136223846793005u + 1442695040888963407u;
                sparse &= state ^ state >> 29;
            }
            /* Runs rather than single bits, at times. */
            bits[i] = round % 2 ? sparse | sparse << 1 | sparse << 2 | sparse << 3 : sparse;
            bits[i] = round % 7 == i ? 0 : bits[i];
        }
        (void)segments(bits);
    }
}
END_TEST

START_TEST(segments_leave_out_the_largest_holes)
{
    ck_assert_uint_eq(segments((uint64_t[]){0, 0, 0, 0}).count, 0);
    ck_assert_uint_eq(segments((uint64_t[]){~0ULL, ~0ULL, ~0ULL, ~0ULL}).bytes, EPT_PAGE_BYTES);
    /* One small hole: not worth it. */
    ck_assert_uint_eq(segments((uint64_t[]){~0xf0ULL, ~0ULL, ~0ULL, ~0ULL}).bytes, EPT_PAGE_BYTES);
    struct live_page live = segments((uint64_t[]){1, 1, 1, 1ULL << 63});
    ck_assert_uint_eq(live.count, 3);
    /* Holes of 63, 63 and 126 units: the last one and one of the others go. */
    ck_assert_uint_eq(live.bytes, (UNITS - 63 - 126) * 16);
    live = segments((uint64_t[]){0, 0xff00, 0, 0});
    ck_assert_uint_eq(live.count, 1);
    ck_assert_uint_eq(live.of[0].start, (64 + 8) * 16);
    ck_assert_uint_eq(live.of[0].bytes, 8 * 16);
}
END_TEST

/* ---- the engine ---- */

static int kvm = -1, vm = -1;
static pid_t server;
static struct ept *ept;
static struct rdma_node *node;
static struct fault_engine *engine;
static struct fault_context *context;
static char address[128];

static void server_start(void)
{
    int ready[2];
    char fd[16], line[128] = "";
    snprintf(address, sizeof(address), "unix:/tmp/check_live.%d", (int)getpid());
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
    message_init("check_live", MESSAGE_NORMAL);
    server_start();
    kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    vm = ioctl(kvm, KVM_CREATE_VM, 0);
    ck_assert_int_ge(vm, 0);
    struct ept_config second = {.kvm_fd = kvm, .vm_fd = vm, .paged = true, .exit_mode = true};
    ck_assert_int_eq(ept_create(&ept, &second), 0);
    gpa_t gpa = FIRST << EPT_PAGE_SHIFT;
    ck_assert_int_eq(ept_back(ept, gpa, 2ULL * MEMORY_PAGES * EPT_PAGE_BYTES), 0);
    ck_assert_int_eq(ept_protect(ept, gpa, 16 << 20, EPT_READ | EPT_WRITE), 0);
    struct rdma_config far = {.transport = "auto",
                              .address = address,
                              .name = "check_live",
                              .quota_bytes = 128 << 20,
                              .timeout_ns = 5000000000u,
                              .span_pages = ept_span(ept) >> EPT_PAGE_SHIFT};
    ck_assert_int_eq(rdma_node_connect(&node, &far), 0);
    struct fault_config config = {.ept = ept,
                                  .node = node,
                                  .memory_pages = MEMORY_PAGES,
                                  .local_pages = LOCAL_PAGES,
                                  .timeout_ns = 5000000000u,
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

static uint8_t *bytes_of(uint64_t page)
{
    return ept_hva(ept, page << EPT_PAGE_SHIFT);
}

static _Atomic uint64_t *map_word(uint64_t page, unsigned unit)
{
    return (_Atomic uint64_t *)bytes_of(MAP) + (page - FIRST) * 4 + unit / 64;
}

static void setup_live(void)
{
    setup();
    ck_assert_int_eq(fault_pin(context, MAP, HEAP_PAGES * 32 / EPT_PAGE_BYTES, true), 0);
    ck_assert_int_eq(fault_live_map(engine, FIRST << EPT_PAGE_SHIFT,
                                    (uint64_t)HEAP_PAGES * EPT_PAGE_BYTES, MAP << EPT_PAGE_SHIFT),
                     0);
}

static void fill(uint64_t page, int value)
{
    ck_assert_int_eq(fault_pin(context, page, 1, true), 0);
    memset(bytes_of(page), value, EPT_PAGE_BYTES);
    fault_unpin(engine, page, 1);
}

static struct fault_counters counters(void)
{
    struct fault_counters now;
    fault_engine_counters(engine, &now);
    return now;
}

START_TEST(pages_on_which_nothing_lives_are_forgotten)
{
    for (uint64_t i = 0; i < 3 * LOCAL_PAGES; i++)
        fill(FIRST + i, 0x55);
    struct fault_counters now = counters();
    ck_assert_uint_eq(now.written_bytes, 0);
    ck_assert_uint_gt(now.evicted_dead_pages, LOCAL_PAGES);
    ck_assert_uint_lt(now.existing_pages, 2 * LOCAL_PAGES);
}
END_TEST

START_TEST(only_live_bytes_travel_and_the_rest_is_zero)
{
    for (uint64_t i = 0; i < 3 * LOCAL_PAGES; i++) {
        *map_word(FIRST + i, 64) = ~0ULL; /* the second quarter of the page */
        fill(FIRST + i, 1 + (int)(i % 200));
    }
    struct fault_counters now = counters();
    ck_assert_uint_eq(now.written_bytes % 1024, 0);
    /* What is under way is counted in the former only. */
    ck_assert_uint_gt(now.written_bytes, 0);
    ck_assert_uint_ge(now.unwritten_bytes, 3 * now.written_bytes);
    for (uint64_t i = 0; i < LOCAL_PAGES / 2; i++) {
        ck_assert_int_eq(fault_pin(context, FIRST + i, 1, false), 0);
        const uint8_t *at = bytes_of(FIRST + i);
        ck_assert_uint_eq(at[1023], 0);
        ck_assert_uint_eq(at[1024], 1 + i % 200);
        ck_assert_uint_eq(at[2047], 1 + i % 200);
        ck_assert_uint_eq(at[2048], 0);
        fault_unpin(engine, FIRST + i, 1);
    }
    now = counters();
    ck_assert_uint_gt(now.fetched_bytes, 0);
    /* A flight has a limited number of requests, and takes whole pages beyond it. */
    ck_assert_uint_gt(now.unread_bytes, now.fetched_bytes / 2);
}
END_TEST

START_TEST(a_map_that_is_not_here_means_whole_pages)
{
    uint64_t pages = HEAP_PAGES * 32 / EPT_PAGE_BYTES;
    fault_unpin(engine, MAP, pages);
    ck_assert_int_eq(fault_discard(context, MAP, pages, false), 0);
    for (uint64_t i = 0; i < 3 * LOCAL_PAGES; i++)
        fill(FIRST + i, 0x55);
    struct fault_counters now = counters();
    ck_assert_uint_eq(now.evicted_dead_pages, 0);
    ck_assert_uint_eq(now.unwritten_bytes, 0);
    ck_assert_int_eq(fault_pin(context, FIRST, 1, false), 0);
    ck_assert_uint_eq(bytes_of(FIRST)[4095], 0x55);
    fault_unpin(engine, FIRST, 1);
}
END_TEST

START_TEST(bad_maps_are_refused_and_unmapping_ends_a_good_one)
{
    gpa_t heap = FIRST << EPT_PAGE_SHIFT;
    uint64_t span = ept_span(ept);
    ck_assert_int_eq(fault_live_map(engine, heap, EPT_PAGE_BYTES, heap), -EBUSY);
    ck_assert_int_eq(fault_live_map(engine, heap + 8, EPT_PAGE_BYTES, heap), -EINVAL);
    ck_assert_int_eq(fault_live_map(engine, heap, 0, heap), -EINVAL);
    ck_assert_int_eq(fault_live_map(engine, span, EPT_PAGE_BYTES, heap), -EINVAL);
    ck_assert_int_eq(fault_live_map(engine, heap, span, heap), -EINVAL);
    ck_assert_int_eq(fault_live_map(engine, heap, 1 << 30, span - EPT_PAGE_BYTES), -EINVAL);
    ck_assert_int_eq(fault_discard(context, FIRST + 7, 1, true), 0);
    for (uint64_t i = 0; i < 3 * LOCAL_PAGES; i++)
        fill(FIRST + i, 0x55);
    ck_assert_uint_eq(counters().evicted_dead_pages, 0);
}
END_TEST

/*
 * Objects of one unit. A thread owns those whose number is its own modulo THREADS, so that threads
 * share pages and words of the map; it does with the map what the allocator does.
 */
static atomic_uint wrong;

static void *churn(void *argument)
{
    struct fault_context *by;
    uint64_t me = (uintptr_t)argument, state = me + 99;
    static uint8_t value[THREADS][3 * LOCAL_PAGES];
    ck_assert_int_eq(fault_context_create(engine, &by), 0);
    for (unsigned i = 0; i < STEPS; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint64_t n = (state >> 33) % (3 * LOCAL_PAGES), page = FIRST + n;
        unsigned unit = (unsigned)(n * 37 % (UNITS / THREADS)) * THREADS + (unsigned)me;
        uint64_t bit = 1ULL << unit % 64;
        uint8_t expected = value[me][n], *at = bytes_of(page) + unit * 16;
        if (!expected)
            atomic_fetch_or(map_word(page, unit), bit);
        if (fault_pin(by, page, 1, !expected || state >> 20 & 1))
            abort();
        for (unsigned j = 0; j < 16 && expected; j++)
            wrong += at[j] != expected;
        if (!expected || state >> 20 & 1)
            memset(at, value[me][n] = (uint8_t)(1 + (state >> 24) % 255), 16);
        fault_unpin(engine, page, 1);
        if (state >> 21 & 1) {
            atomic_fetch_and(map_word(page, unit), ~bit);
            value[me][n] = 0;
        }
    }
    fault_context_destroy(by);
    return NULL;
}

START_TEST(objects_come_and_go_while_pages_do)
{
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, churn, (void *)i);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    struct fault_counters now = counters();
    ck_assert_uint_eq(wrong, 0);
    ck_assert_uint_gt(now.demand_fetches, LOCAL_PAGES);
    ck_assert_uint_gt(now.unwritten_bytes, 0);
    ck_assert_uint_gt(now.unread_bytes, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("live");
    TCase *pure = tcase_create("segments");
    tcase_set_timeout(pure, 60);
    tcase_add_test(pure, segments_cover_what_lives);
    tcase_add_test(pure, segments_leave_out_the_largest_holes);
    suite_add_tcase(suite, pure);
    if (access("/dev/kvm", R_OK | W_OK) || !getenv("MEMSERVER"))
        return unit_run(suite);
    TCase *tests = tcase_create("engine");
    tcase_add_checked_fixture(tests, setup_live, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, pages_on_which_nothing_lives_are_forgotten);
    tcase_add_test(tests, only_live_bytes_travel_and_the_rest_is_zero);
    tcase_add_test(tests, a_map_that_is_not_here_means_whole_pages);
    tcase_add_test(tests, bad_maps_are_refused_and_unmapping_ends_a_good_one);
    tcase_add_test(tests, objects_come_and_go_while_pages_do);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
