/* SPDX-License-Identifier: Apache-2.0 */
/* The recorder (nothing lost, nothing waits, what is dropped is counted) and the strict reader. */
#include "tests/unit/unit.h"

#include "ept/ept.h"
#include "fault/probes.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define THREADS 8u
#define EVENTS  900u

static const struct trace_header sample = {.memory_pages = 262144,
                                           .local_pages = 2048,
                                           .prefetcher = "none",
                                           .fault_mode = "exit",
                                           .transport = "loopback",
                                           .program = "unit"};

static int file_make(void)
{
    char path[] = "/tmp/farvisor-trace.XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    unlink(path);
    return fd;
}

/* Reads back what was recorded; the test owns *out. */
static void file_parse(int fd, struct trace *out)
{
    off_t bytes = lseek(fd, 0, SEEK_END);
    char *data = malloc((size_t)bytes);
    const char *wrong;
    size_t at;
    ck_assert_int_eq(pread(fd, data, (size_t)bytes, 0), bytes);
    ck_assert_int_eq(trace_parse(data, (size_t)bytes, out, &wrong, &at), 0);
    free(data);
}

static void *thread_record(void *argument)
{
    unsigned thread = (unsigned)(uintptr_t)argument;
    for (unsigned i = 0; i < EVENTS; i++)
        probe_fault_end(thread, 1000 * thread + i % 1000, i & 1, EPT_REMOTE, EPT_LOCAL,
                        clock_now_ns(), 0);
    return NULL;
}

START_TEST(records_of_every_thread_reach_the_file)
{
    pthread_t threads[THREADS];
    struct trace_totals totals;
    struct trace trace;
    unsigned seen[THREADS] = {0};
    int fd = file_make();
    ck_assert_int_eq(trace_start(fd, &sample), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, thread_record, (void *)(uintptr_t)i);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    trace_stop(&totals);
    ck_assert_int_eq(totals.error, 0);
    ck_assert_uint_eq(totals.records + totals.dropped, THREADS * EVENTS);
    ck_assert_uint_eq(totals.dropped, 0);
    file_parse(fd, &trace);
    ck_assert(trace.ended);
    ck_assert_str_eq(trace.header.program, "unit");
    for (size_t i = 0; i < trace.count; i++) {
        unsigned thread = trace_thread(&trace.records[i]);
        ck_assert_uint_lt(thread, THREADS);
        ck_assert_uint_eq(trace_page(&trace.records[i]), 1000 * thread + seen[thread] % 1000);
        ck_assert(trace_write(&trace.records[i]) == (seen[thread] & 1));
        seen[thread]++;
    }
    for (unsigned i = 0; i < THREADS; i++)
        ck_assert_uint_eq(seen[i], EVENTS);
    trace_free(&trace);
    close(fd);
}
END_TEST

static uint64_t own_time_ns(void)
{
    struct timespec now;

    ck_assert_int_eq(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now), 0);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

START_TEST(a_full_ring_drops_and_counts)
{
    struct trace_totals totals;
    struct trace trace;
    int fd = file_make();
    uint64_t put = 0, until = 0;
    ck_assert_int_eq(trace_start(fd, &sample), 0);
    /* Faster than any disk for longer than the writer sleeps: time of our own, for others may keep
     * us from running while it writes. */
    for (until = own_time_ns() + 50000000u; put % 256 || own_time_ns() < until; put++)
        trace_run(TRACE_PREFETCH, 0, 1, put % 1000, 1);
    trace_stop(&totals);
    ck_assert_uint_gt(totals.dropped, 0);
    ck_assert_uint_eq(totals.records + totals.dropped, put);
    file_parse(fd, &trace);
    ck_assert_uint_eq(trace.count, totals.records);
    ck_assert_uint_eq(trace.dropped, totals.dropped);
    trace_free(&trace);
    close(fd);
}
END_TEST

START_TEST(a_full_disk_is_an_error)
{
    struct trace_totals totals;
    int fd = open("/dev/full", O_WRONLY);
    ck_assert_int_eq(trace_start(fd, &sample), -ENOSPC);
    trace_run(TRACE_PREFETCH, 0, 1, 1, 1);
    trace_stop(&totals);
    ck_assert_uint_eq(totals.records, 0);
    close(fd);
}
END_TEST

START_TEST(runs_are_cut_at_blocks)
{
    struct trace_totals totals;
    struct trace trace;
    const uint64_t pages[] = {5, 6, 7, 20, 511, 512};
    int fd = file_make();
    ck_assert_int_eq(trace_start(fd, &sample), 0);
    trace_run(TRACE_FILL, 1, 3, 500, 600);
    trace_pages(TRACE_DISCARD, 3, pages, 6);
    trace_stop(&totals);
    file_parse(fd, &trace);
    const uint64_t expected[][2] = {{500, 12}, {512, 512}, {1024, 76}, {5, 3},
                                    {20, 1},   {511, 1},   {512, 1}};
    ck_assert_uint_eq(trace.count, 7);
    for (unsigned i = 0; i < 7; i++) {
        ck_assert_uint_eq(trace_page(&trace.records[i]), expected[i][0]);
        ck_assert_uint_eq(trace_value(&trace.records[i]), expected[i][1]);
    }
    trace_free(&trace);
    close(fd);
}
END_TEST

START_TEST(evictions_are_told_by_fate)
{
    struct trace_totals totals;
    struct trace trace;
    uint64_t set[8] = {0x3f, 1};
    uint8_t fates[512] = {1, 1, 3, 3, 2, 1, 3, 3};
    int fd = file_make();
    fates[64] = 3;
    ck_assert_int_eq(trace_start(fd, &sample), 0);
    probe_evicted(1024, set, fates, 512, 7);
    trace_stop(&totals);
    file_parse(fd, &trace);
    const unsigned expected[][3] = {{1024, 2, TRACE_CLEAN},
                                    {1026, 2, TRACE_WRITTEN},
                                    {1028, 1, TRACE_FORGOTTEN},
                                    {1029, 1, TRACE_CLEAN},
                                    {1088, 1, TRACE_WRITTEN}};
    ck_assert_uint_eq(trace.count, 5);
    for (unsigned i = 0; i < 5; i++) {
        ck_assert_uint_eq(trace_page(&trace.records[i]), expected[i][0]);
        ck_assert_uint_eq(trace_value(&trace.records[i]), expected[i][1]);
        ck_assert_uint_eq(trace_detail(&trace.records[i]), expected[i][2]);
    }
    trace_free(&trace);
    close(fd);
}
END_TEST

START_TEST(a_page_pinned_again_and_again_is_recorded_once)
{
    struct trace_totals totals;
    int fd = file_make();
    ck_assert_int_eq(trace_start(fd, &sample), 0);
    uint64_t start_ns = clock_now_ns();
    for (unsigned i = 0; i < 100; i++)
        probe_pinned(1, 7);
    uint64_t most = 1 + (clock_now_ns() - start_ns) / 1000000u;
    trace_stop(&totals);
    ck_assert_uint_ge(totals.records, 1);
    ck_assert_uint_le(totals.records, most);
    close(fd);
}
END_TEST

/* Every damaged file of the fuzz corpus, and the reason it is refused for. */
static const struct {
    const char *name, *reason;
} damaged[] = {
    {"short", "too short for a header"},
    {"other_magic", "not a trace of farvisor's"},
    {"other_version", "recorded by another version of farvisor"},
    {"local_zero", "damaged header"},
    {"local_beyond_memory", "damaged header"},
    {"memory_huge", "damaged header"},
    {"name_unterminated", "damaged header"},
    {"name_control", "damaged header"},
    {"unknown_type", "damaged record"},
    {"unknown_detail", "damaged record"},
    {"run_crosses_block", "damaged record"},
    {"run_empty", "damaged record"},
    {"thread_beyond", "damaged record"},
    {"reserved_bits", "damaged record"},
    {"after_end", "something follows the end mark"},
};

static size_t corpus_read(const char *name, char data[], size_t room)
{
    char path[128];
    snprintf(path, sizeof(path), "tests/fuzz/corpus/trace/%s", name);
    FILE *file = fopen(path, "rb");
    ck_assert_ptr_nonnull(file);
    size_t bytes = fread(data, 1, room, file);
    fclose(file);
    return bytes;
}

START_TEST(a_damaged_file_is_refused_with_its_reason)
{
    static char data[65536];
    struct trace trace;
    const char *wrong;
    size_t at, bytes = corpus_read(damaged[_i].name, data, sizeof(data));
    ck_assert_int_eq(trace_parse(data, bytes, &trace, &wrong, &at), -EINVAL);
    ck_assert_str_eq(wrong, damaged[_i].reason);
}
END_TEST

START_TEST(a_recording_cut_off_is_usable_and_says_so)
{
    static char data[65536];
    struct trace trace;
    const char *wrong;
    size_t at, bytes = corpus_read("unfinished", data, sizeof(data));
    ck_assert_int_eq(trace_parse(data, bytes, &trace, &wrong, &at), 0);
    ck_assert(!trace.ended);
    ck_assert_uint_eq(trace.count, 1);
    trace_free(&trace);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("trace");
    TCase *recorder = tcase_create("recorder"), *reader = tcase_create("reader");
    tcase_add_test(recorder, records_of_every_thread_reach_the_file);
    tcase_add_test(recorder, a_full_ring_drops_and_counts);
    tcase_add_test(recorder, a_full_disk_is_an_error);
    tcase_add_test(recorder, runs_are_cut_at_blocks);
    tcase_add_test(recorder, evictions_are_told_by_fate);
    tcase_add_test(recorder, a_page_pinned_again_and_again_is_recorded_once);
    tcase_add_loop_test(reader, a_damaged_file_is_refused_with_its_reason, 0,
                        (int)(sizeof(damaged) / sizeof(damaged[0])));
    tcase_add_test(reader, a_recording_cut_off_is_usable_and_says_so);
    suite_add_tcase(suite, recorder);
    suite_add_tcase(suite, reader);
    return unit_run(suite);
}
