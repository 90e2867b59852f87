/* SPDX-License-Identifier: Apache-2.0 */
/* libfaralloc as this program's own malloc: classes, the live map, threads, and what must end it.
 */
#include "alloc/internal.h"
#include "tests/unit/unit.h"

#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define MANY 40000u

static void *volatile escape; /* the compiler knows what malloc and free do */

static bool unit_is_live(const void *p, size_t byte)
{
    size_t unit = ((size_t)((const uint8_t *)p - tables->heap) + byte) / UNIT_BYTES;
    return tables->live[unit / 64] >> (unit % 64) & 1;
}

START_TEST(every_size_fits_the_smallest_class_for_it)
{
    for (size_t bytes = 1; bytes <= SMALL_BYTES; bytes++) {
        unsigned class = class_of(bytes);
        ck_assert_uint_lt(class, CLASSES);
        ck_assert_uint_ge(class_units(class) * UNIT_BYTES, bytes);
        ck_assert(class == 0 || class_units(class - 1) * UNIT_BYTES < bytes);
    }
    ck_assert_uint_eq(class_units(CLASSES - 1) * UNIT_BYTES, SMALL_BYTES);
}
END_TEST

START_TEST(the_map_shows_exactly_what_lives)
{
    for (size_t bytes = 1; bytes <= SMALL_BYTES; bytes += 13) {
        uint8_t *p = malloc(bytes);
        escape = p;
        size_t room = malloc_usable_size(p);
        ck_assert(is_small(p) && room >= bytes);
        for (size_t byte = 0; byte < room; byte += UNIT_BYTES)
            ck_assert(unit_is_live(p, byte));
        free(p);
        for (size_t byte = 0; byte < room; byte += UNIT_BYTES)
            ck_assert(!unit_is_live(escape, byte));
    }
}
END_TEST

START_TEST(blocks_do_not_overlap_and_keep_their_bytes)
{
    static uint8_t *blocks[MANY];
    for (unsigned i = 0; i < MANY; i++) {
        size_t bytes = 1 + i * 7919u % 1100;
        blocks[i] = malloc(bytes);
        memset(blocks[i], (int)(i % 251), bytes);
    }
    for (unsigned i = 0; i < MANY; i++) {
        size_t bytes = 1 + i * 7919u % 1100, more = 1 + i * 104729u % 2500;
        size_t wrong_bytes = 0; /* asserted once: Check writes a mark for each */
        for (size_t j = 0; j < bytes; j++)
            wrong_bytes += blocks[i][j] != i % 251;
        blocks[i] = realloc(blocks[i], more);
        for (size_t j = 0; j < bytes && j < more; j++)
            wrong_bytes += blocks[i][j] != i % 251;
        ck_assert_uint_eq(wrong_bytes, 0);
    }
    for (unsigned i = 0; i < MANY; i++)
        free(blocks[i]);
}
END_TEST

START_TEST(aligned_blocks_are)
{
    for (size_t alignment = 8; alignment <= 65536; alignment *= 2) {
        for (size_t bytes = 1; bytes < 5000; bytes += 331) {
            void *p = NULL;
            ck_assert_int_eq(posix_memalign(&p, alignment, bytes), 0);
            ck_assert_uint_eq((uintptr_t)p % alignment, 0);
            ck_assert_uint_ge(malloc_usable_size(p), bytes);
            memset(p, 1, bytes);
            free(p);
        }
    }
    void *p = NULL;
    ck_assert_int_ne(posix_memalign(&p, 24, 8), 0);
}
END_TEST

START_TEST(calloc_is_zero_where_something_was_before)
{
    for (unsigned round = 0; round < 3; round++) {
        uint8_t *blocks[1000];
        for (unsigned i = 0; i < 1000; i++) {
            blocks[i] = calloc(3, 50);
            unsigned set = 0;
            for (unsigned j = 0; j < 150; j++)
                set += blocks[i][j] != 0;
            ck_assert_uint_eq(set, 0);
            memset(blocks[i], 0xff, 150);
        }
        for (unsigned i = 0; i < 1000; i++)
            free(blocks[i]);
    }
    volatile size_t half = SIZE_MAX / 2;
    ck_assert_ptr_null(calloc(half, 3));
}
END_TEST

/* Frees what another thread allocated. */
static void *free_all(void *argument)
{
    void **blocks = argument;
    for (unsigned i = 0; i < MANY; i++)
        free(blocks[i]);
    return NULL;
}

START_TEST(what_other_threads_free_is_used_again)
{
    static void *blocks[MANY];
    size_t top = 0;
    for (unsigned round = 0; round < 20; round++) {
        pthread_t thread;
        for (unsigned i = 0; i < MANY; i++)
            blocks[i] = malloc(96);
        if (round == 1)
            top = tables->top_bytes;
        pthread_create(&thread, NULL, free_all, blocks);
        pthread_join(thread, NULL);
    }
    ck_assert_uint_le(tables->top_bytes, top + 32 * SPAN_BYTES);
}
END_TEST

START_TEST(empty_spans_serve_other_classes)
{
    static void *blocks[MANY];
    size_t top = 0;
    for (unsigned round = 0; round < 10; round++) {
        for (unsigned i = 0; i < MANY; i++)
            blocks[i] = malloc(64 + 32 * (round % 2));
        top = round == 2 ? tables->top_bytes : top;
        free_all(blocks);
    }
    ck_assert_uint_le(tables->top_bytes, top + 64 * SPAN_BYTES);
}
END_TEST

static atomic_uint wrong;

static void *churn(void *argument)
{
    static _Atomic(uint32_t *) shared[4096];
    uint64_t state = (uintptr_t)argument;
    for (unsigned i = 0; i < 200000; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint32_t words = 2 + (uint32_t)(state >> 40) % 60;
        uint32_t *fresh = malloc(words * sizeof(*fresh));
        fresh[0] = words;
        for (uint32_t j = 1; j < words; j++)
            fresh[j] = words * 31 + j;
        uint32_t *old = atomic_exchange(&shared[(state >> 20) % 4096], fresh);
        for (uint32_t j = 1; old && j < old[0]; j++)
            wrong += old[j] != old[0] * 31 + j;
        free(old);
    }
    return NULL;
}

START_TEST(threads_hand_each_other_blocks)
{
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, churn, (void *)(i + 1));
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(wrong, 0);
}
END_TEST

START_TEST(a_second_free_ends_the_program)
{
    escape = malloc(40);
    void *again = escape;
    free(escape);
    escape = again;
    free(escape);
}
END_TEST

START_TEST(a_pointer_into_a_block_ends_the_program)
{
    escape = malloc(40);
    escape = (uint8_t *)escape + 16;
    free(escape);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("alloc");
    TCase *tests = tcase_create("alloc");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, every_size_fits_the_smallest_class_for_it);
    tcase_add_test(tests, the_map_shows_exactly_what_lives);
    tcase_add_test(tests, blocks_do_not_overlap_and_keep_their_bytes);
    tcase_add_test(tests, aligned_blocks_are);
    tcase_add_test(tests, calloc_is_zero_where_something_was_before);
    tcase_add_test(tests, what_other_threads_free_is_used_again);
    tcase_add_test(tests, empty_spans_serve_other_classes);
    tcase_add_test(tests, threads_hand_each_other_blocks);
    tcase_add_test_raise_signal(tests, a_second_free_ends_the_program, SIGABRT);
    tcase_add_test_raise_signal(tests, a_pointer_into_a_block_ends_the_program, SIGABRT);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
