/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulator: its LRU, FIFO and Belady against plain ones that search all pages, and what the
 * engine's own policy and prefetchers are there for.
 */
#include "tests/unit/unit.h"

#include "fault/replay.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#define LOCAL REPLAY_LOCAL_MIN_PAGES
#define LOW   (LOCAL / 16)
#define HIGH  (2 * LOW)
#define PAGES 1024u
#define MAX   40000u
#define BASE  0x55500u

static struct trace_record records[MAX];
static uint32_t touched[MAX];
static struct trace trace;
static uint64_t state;

static uint32_t next_random(uint32_t below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

static void add(enum trace_type type, unsigned thread, uint64_t page, uint64_t value)
{
    ck_assert_uint_lt(trace.count, MAX);
    touched[trace.count] = (uint32_t)page;
    records[trace.count] =
        (struct trace_record){(BASE + page) | (uint64_t)thread << 40 | (uint64_t)type << 48,
                              trace.count * 200 | value << 40};
    trace.count++;
}

static void touch(uint64_t page)
{
    add(TRACE_FAULT, 0, page, 10);
}

static void reset(void)
{
    memset(&trace, 0, sizeof(trace));
    trace.records = records;
    state = 5;
}

static struct replay_result run_range(enum replay_policy policy, const char *prefetcher,
                                      struct replay_range range)
{
    struct replay_config config = {.policy = policy,
                                   .prefetcher = prefetch_find(prefetcher),
                                   .local_pages = LOCAL,
                                   .latency_ns = 10000,
                                   .range = range};
    struct replay_input *input;
    struct replay_result result;
    const char *wrong;
    ck_assert_int_eq(replay_input_create(&input, &trace, &wrong), 0);
    ck_assert_int_eq(replay_run(input, &config, &result), 0);
    ck_assert_uint_eq(result.touches, replay_touches(input, range));
    replay_input_destroy(input);
    ck_assert_uint_eq(result.prefetched, result.used + result.wasted);
    return result;
}

static struct replay_result run(enum replay_policy policy, const char *prefetcher)
{
    return run_range(policy, prefetcher, (struct replay_range){0});
}

/* ---- plain ones ---- */

static struct {
    bool here, known;
    uint64_t key; /* the largest is evicted */
} plain[PAGES];

static uint64_t plain_key(enum replay_policy policy, size_t now, uint32_t page, uint64_t before)
{
    if (policy == REPLAY_FIFO && plain[page].here)
        return before;
    if (policy != REPLAY_BELADY)
        return UINT64_MAX - now;
    for (size_t i = now + 1; i < trace.count; i++)
        if (touched[i] == page)
            return i;
    return UINT64_MAX;
}

static unsigned plain_evict(unsigned resident)
{
    while (LOCAL - resident < HIGH) {
        uint32_t worst = PAGES;
        for (uint32_t i = 0; i < PAGES; i++)
            if (plain[i].here && (worst == PAGES || plain[i].key > plain[worst].key))
                worst = i;
        plain[worst].here = false;
        resident--;
    }
    return resident;
}

static uint64_t plain_misses(enum replay_policy policy)
{
    unsigned resident = 0;
    uint64_t misses = 0;
    memset(plain, 0, sizeof(plain));
    for (size_t i = 0; i < trace.count; i++) {
        uint32_t page = touched[i];
        bool here = plain[page].here;
        if (!here && LOCAL - resident < LOW)
            resident = plain_evict(resident);
        misses += !here && plain[page].known;
        resident += !here;
        plain[page].key = plain_key(policy, i, page, plain[page].key);
        plain[page].here = plain[page].known = true;
    }
    return misses;
}

START_TEST(policies_agree_with_plain_ones)
{
    reset();
    for (unsigned i = 0; i < 6000; i++) /* squared: some pages are much hotter than others */
        touch(next_random(PAGES) * (uint64_t)next_random(PAGES) / PAGES);
    enum replay_policy policy = (enum replay_policy)_i;
    ck_assert_uint_eq(run(policy, "none").misses, plain_misses(policy));
}
END_TEST

/* ---- what must hold ---- */

START_TEST(what_fits_never_misses)
{
    reset();
    for (unsigned i = 0; i < 5000; i++)
        touch(next_random(LOCAL - HIGH));
    for (unsigned policy = 0; policy < REPLAY_POLICIES; policy++) {
        struct replay_result result = run((enum replay_policy)policy, "none");
        ck_assert_uint_eq(result.misses, 0);
        ck_assert_uint_eq(result.first, LOCAL - HIGH);
    }
}
END_TEST

START_TEST(belady_is_beaten_by_none)
{
    reset();
    for (unsigned i = 0; i < 20000; i++)
        touch(i % 3 ? next_random(200) : i % PAGES);
    uint64_t best = run(REPLAY_BELADY, "none").misses;
    for (unsigned policy = 0; policy < REPLAY_POLICIES; policy++)
        ck_assert_uint_ge(run((enum replay_policy)policy, "none").misses, best);
}
END_TEST

START_TEST(a_loop_defeats_lru_but_not_belady)
{
    reset();
    for (unsigned i = 0; i < 8 * PAGES; i++)
        touch(i % PAGES);
    ck_assert_uint_eq(run(REPLAY_LRU, "none").misses, 7 * PAGES);
    ck_assert_uint_lt(run(REPLAY_BELADY, "none").misses, 6 * PAGES);
}
END_TEST

START_TEST(a_hot_set_survives_a_scan)
{
    reset();
    for (unsigned i = 0; i < 30000; i++)
        touch(i & 1 ? next_random(100) : 100 + i / 2 % (PAGES - 100));
    uint64_t scanned = 15000 - (PAGES - 100); /* these miss whatever one does, but for Belady */
    uint64_t clock = run(REPLAY_CLOCK, "none").misses, fifo = run(REPLAY_FIFO, "none").misses;
    ck_assert_uint_le(clock, scanned + 600);
    ck_assert_uint_ge(fifo, scanned + 3000);
}
END_TEST

START_TEST(a_range_counts_its_own_touches_and_changes_nothing)
{
    reset();
    uint64_t hot = 0;
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t page = i % 3 ? next_random(PAGES) : 100 + next_random(50);
        hot += page >= 100 && page < 150;
        touch(page);
    }
    struct replay_range parts[] = {{BASE, 100}, {BASE + 100, 50}, {BASE + 150, PAGES - 150}};
    for (unsigned policy = 0; policy < REPLAY_POLICIES; policy++) {
        struct replay_result whole = run((enum replay_policy)policy, "readahead"), sum = {0};
        for (unsigned i = 0; i < 3; i++) {
            struct replay_result part =
                run_range((enum replay_policy)policy, "readahead", parts[i]);
            ck_assert_uint_eq(part.evicted, whole.evicted);
            ck_assert_uint_eq(part.prefetched, whole.prefetched);
            ck_assert_uint_eq(part.stall_ns, whole.stall_ns);
            ck_assert(i != 1 || (part.touches == hot && part.first <= 50));
            sum.touches += part.touches;
            sum.first += part.first;
            sum.misses += part.misses;
            sum.late += part.late;
            sum.refaults += part.refaults;
        }
        ck_assert_uint_eq(sum.touches, whole.touches);
        ck_assert_uint_eq(sum.first, whole.first);
        ck_assert_uint_eq(sum.misses, whole.misses);
        ck_assert_uint_eq(sum.late, whole.late);
        ck_assert_uint_eq(sum.refaults, whole.refaults);
    }
}
END_TEST

START_TEST(prefetchers_are_the_engines_own)
{
    reset();
    for (unsigned i = 0; i < 6 * PAGES; i++)
        touch(i % PAGES);
    struct replay_result none = run(REPLAY_CLOCK, "none"), ahead = run(REPLAY_CLOCK, "auto");
    ck_assert_uint_eq(none.prefetched, 0);
    ck_assert_uint_gt(none.misses, 4 * PAGES);
    ck_assert_uint_lt(ahead.misses, none.misses / 10);
    ck_assert_uint_ge(ahead.used * 100, ahead.prefetched * 90);
    ck_assert_uint_lt(ahead.stall_ns, none.stall_ns);
}
END_TEST

START_TEST(discarded_pages_come_back_as_new)
{
    reset();
    for (unsigned turn = 0; turn < 10; turn++) {
        for (unsigned i = 0; i < 100; i++)
            touch(i);
        add(TRACE_DISCARD, 0, 0, 100);
    }
    for (unsigned policy = 0; policy < REPLAY_POLICIES; policy++) {
        struct replay_result result = run((enum replay_policy)policy, "none");
        ck_assert_uint_eq(result.first, 1000);
        ck_assert_uint_eq(result.misses + result.evicted, 0);
    }
}
END_TEST

START_TEST(the_same_trace_gives_the_same_figures)
{
    reset();
    for (unsigned i = 0; i < 10000; i++)
        add(TRACE_FAULT, i % 5, i % 7 ? next_random(PAGES) : i % PAGES, 3);
    struct replay_result a = run(REPLAY_CLOCK, "auto"), b = run(REPLAY_CLOCK, "auto");
    ck_assert_mem_eq(&a, &b, sizeof(a));
}
END_TEST

/* ---- records of many pages ---- */

/* A run of pages within one block of 512, as the format has it. */
static void add_run(enum trace_type type, unsigned thread, uint32_t blocks)
{
    uint64_t at = next_random(blocks * TRACE_RUN_MAX);
    uint32_t most = TRACE_RUN_MAX - (uint32_t)((BASE + at) % TRACE_RUN_MAX);
    add(type, thread, at, 1 + next_random(most < 60 ? most : 60));
}

/* Each page of each touch and discard is a record of its own. */
static void flatten(const struct trace_record *runs, size_t count)
{
    trace.count = 0;
    for (size_t i = 0; i < count; i++) {
        for (uint64_t j = 0; j < trace_value(&runs[i]); j++) {
            ck_assert_uint_lt(trace.count, MAX);
            records[trace.count++] = (struct trace_record){
                runs[i].what + j, trace_ticks(&runs[i]) | 1ULL << TRACE_TIME_BITS};
        }
    }
}

START_TEST(a_touch_of_many_pages_is_so_many_touches)
{
    static const char *const prefetchers[] = {"none", "readahead", "auto"};
    static struct trace_record runs[1000];
    struct replay_result whole[REPLAY_POLICIES][3];
    reset();
    for (unsigned i = 0; i < 1000; i++)
        add_run(i % 50 == 49 ? TRACE_DISCARD : TRACE_TOUCH, i % 3 ? i % 5 : TRACE_NOBODY, 2);
    memcpy(runs, records, sizeof(runs));
    for (unsigned i = 0; i < REPLAY_POLICIES * 3; i++)
        whole[i / 3][i % 3] = run((enum replay_policy)(i / 3), prefetchers[i % 3]);
    flatten(runs, 1000);
    for (unsigned i = 0; i < REPLAY_POLICIES * 3; i++) {
        struct replay_result flat = run((enum replay_policy)(i / 3), prefetchers[i % 3]);
        ck_assert_uint_gt(flat.evicted, 0);
        ck_assert_mem_eq(&flat, &whole[i / 3][i % 3], sizeof(flat));
    }
}
END_TEST

/* 20 MB of touches of up to 512 pages each, none as long as the one before it at the same place. */
START_TEST(a_large_trace_takes_no_more_than_four_times_its_size)
{
    const size_t bytes = 20000000, count = bytes / sizeof(struct trace_record);
    struct trace large = {.records = malloc(bytes), .count = count};
    struct replay_input *input;
    const char *wrong;
    ck_assert_ptr_nonnull(large.records);
    state = 7;
    for (size_t i = 0; i < count; i++) {
        uint64_t at = next_random(64 * TRACE_RUN_MAX), most = TRACE_RUN_MAX - at % TRACE_RUN_MAX;
        large.records[i] = (struct trace_record){
            at | (uint64_t)TRACE_TOUCH << 48, i | (1 + next_random((uint32_t)most)) * (1ULL << 40)};
    }
    struct mallinfo2 before = mallinfo2();
    ck_assert_int_eq(replay_input_create(&input, &large, &wrong), 0);
    struct mallinfo2 after = mallinfo2();
    ck_assert_uint_gt(replay_touches(input, (struct replay_range){0}), 100 * count);
    ck_assert_uint_lt(after.uordblks + after.hblkhd - before.uordblks - before.hblkhd, 4 * bytes);
    replay_input_destroy(input);
    free(large.records);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("replay");
    TCase *tcase = tcase_create("what-if");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, policies_agree_with_plain_ones, REPLAY_FIFO, REPLAY_POLICIES);
    tcase_add_test(tcase, what_fits_never_misses);
    tcase_add_test(tcase, belady_is_beaten_by_none);
    tcase_add_test(tcase, a_loop_defeats_lru_but_not_belady);
    tcase_add_test(tcase, a_hot_set_survives_a_scan);
    tcase_add_test(tcase, a_range_counts_its_own_touches_and_changes_nothing);
    tcase_add_test(tcase, prefetchers_are_the_engines_own);
    tcase_add_test(tcase, discarded_pages_come_back_as_new);
    tcase_add_test(tcase, the_same_trace_gives_the_same_figures);
    tcase_add_test(tcase, a_touch_of_many_pages_is_so_many_touches);
    tcase_add_test(tcase, a_large_trace_takes_no_more_than_four_times_its_size);
    suite_add_tcase(suite, tcase);
    return unit_run(suite);
}
