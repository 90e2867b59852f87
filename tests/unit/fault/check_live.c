/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Live ranges: what segments the bits of a page make, and the engine with a map that threads
 * change while pages come and go. Needs $MEMSERVER and KVM but for the first tests.
 */
#include "fault/engine_internal.h"
#include "tests/unit/fault/engine.h"

#define HEAP_PAGES 8192u
#define MAP        (FIRST + HEAP_PAGES) /* its page */
#define UNITS      256u                 /* of a page */
#define APART      8u                   /* pages that are no neighbours */
#define THREADS    4
#define STEPS      40000

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

static uint8_t *octets_of(uint64_t page)
{
    return ept_hva(ept, page << EPT_PAGE_SHIFT);
}

static _Atomic uint64_t *map_word(uint64_t page, unsigned unit)
{
    return (_Atomic uint64_t *)octets_of(MAP) + (page - FIRST) * 4 + unit / 64;
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
    memset(octets_of(page), value, EPT_PAGE_BYTES);
    fault_unpin(engine, page, 1);
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
        const uint8_t *at = octets_of(FIRST + i);
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

/* Pages with three objects of 128 bytes, far from each other, all sent away. */
static void objects_send_away(uint64_t pages)
{
    for (uint64_t i = 0; i < pages; i++) {
        for (unsigned unit = 0; unit + 8 < UNITS; unit += UNITS / 3)
            *map_word(FIRST + i, unit) |= 0xffULL << unit % 32;
        fill(FIRST + i, 1 + (int)(i % 200));
    }
    for (uint64_t i = pages; i < 4 * LOCAL_PAGES; i++) /* on these nothing lives */
        fill(FIRST + i, 0x55);
}

/* Their bytes, and elsewhere those or zeroes. */
static bool objects_are_here(uint64_t page, bool dead)
{
    const uint8_t *at = octets_of(page);
    unsigned value = 1 + (unsigned)(page - FIRST) % 200, bad = 0;
    ck_assert_int_eq(fault_pin(context, page, 1, false), 0);
    for (unsigned i = 0; i < EPT_PAGE_BYTES; i++) {
        bool lives = !dead && *map_word(page, i / 16) >> i / 16 % 64 & 1;
        bad += at[i] != value && (lives || at[i]);
    }
    fault_unpin(engine, page, 1);
    return !bad;
}

static void prefetch_apart(uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i += APART)
        for (int tries = 0; tries < 5000 && fault_prefetch(context, FIRST + i, 1) == 0; tries++)
            usleep(1000); /* the reclaimer has just begun to free frames */
}

static void land_apart(uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i += APART) {
        for (int tries = 0; tries < 5000 && residency(FIRST + i) != FV_PAGE_LOCAL; tries++) {
            fault_land(context);
            usleep(1000);
        }
        ck_assert_int_eq(residency(FIRST + i), FV_PAGE_LOCAL);
    }
}

START_TEST(scattered_flights_read_what_lives)
{
    objects_send_away(1024);
    struct fault_counters before = counters();
    prefetch_apart(0, 1024);
    land_apart(0, 1024);
    struct fault_counters now = counters();
    uint64_t unread = now.unread_bytes - before.unread_bytes;
    ck_assert_uint_eq(now.demand_fetches, before.demand_fetches);
    ck_assert_uint_eq(now.fetched_bytes - before.fetched_bytes + unread,
                      1024 / APART * EPT_PAGE_BYTES);
    /* Seven of sixteen pieces by their ranges, then only whole pages find room among the reads. */
    ck_assert_uint_ge(unread, 1024 / APART * EPT_PAGE_BYTES / 3);
    for (uint64_t i = 0; i < 1024; i += APART)
        ck_assert(objects_are_here(FIRST + i, false));
}
END_TEST

START_TEST(objects_may_die_while_a_flight_is_gathered)
{
    objects_send_away(1024);
    for (uint64_t from = 0; from < 1024; from += 8 * APART) {
        prefetch_apart(from, from + 8 * APART);
        for (uint64_t i = from; i < from + 8 * APART; i++)
            for (unsigned unit = 0; unit < UNITS; unit += 64)
                *map_word(FIRST + i, unit) = 0;
        land_apart(from, from + 8 * APART);
        for (uint64_t i = from; i < from + 8 * APART; i += APART)
            ck_assert(objects_are_here(FIRST + i, true));
    }
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
    ck_assert_uint_eq(octets_of(FIRST)[4095], 0x55);
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
        uint8_t expected = value[me][n], *at = octets_of(page) + unit * 16;
        /* Hints for other threads' pages, too: flights of pieces, some of them dead by then. */
        for (unsigned j = 0; j < 4 && state >> 40 & 1; j++)
            (void)fault_prefetch(by, FIRST + ((state >> 41) + j * 997) % (3 * LOCAL_PAGES), 1);
        if (state >> 22 & 1)
            fault_land(by);
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
    tcase_add_test(tests, scattered_flights_read_what_lives);
    tcase_add_test(tests, objects_may_die_while_a_flight_is_gathered);
    tcase_add_test(tests, a_map_that_is_not_here_means_whole_pages);
    tcase_add_test(tests, bad_maps_are_refused_and_unmapping_ends_a_good_one);
    tcase_add_test(tests, objects_come_and_go_while_pages_do);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
