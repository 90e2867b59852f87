/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hot set beside a scan: one thread reads pages of a region of half the local memory at random,
 * until another has read four times the local memory in order, so often. The scan never gets ahead
 * of the hot reads, however the two are scheduled. A page is one word read and checked, so that a
 * trace of it is the pattern and nothing else. Prints where the hot set lies, for `farvisor replay
 * --range`.
 *
 * usage: scan LOCAL_MIB PASSES      (LOCAL_MIB at least 2: that of --local)
 */
#include "bench.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>

enum { MIB_PAGES = 256, PACE_PAGES = 64, PAGE_WORDS = BENCH_PAGE / 8 };

static volatile uint64_t *hot, *cold;
static uint64_t hot_pages, cold_pages, passes;
static atomic_ullong hot_reads;
static uint64_t hot_sum, cold_sum;
static pthread_barrier_t start_line;
static atomic_bool scanned;

/* Contents of a page: nothing a compressor could use. */
static volatile uint64_t *region_make(uint64_t pages, uint64_t seed)
{
    uint64_t *region = bench_allocate(pages * BENCH_PAGE);
    for (uint64_t i = 0; i < pages * PAGE_WORDS; i++)
        region[i] = bench_mix(seed + i);
    return region;
}

/* A word's excess over what it must be: sums of it are 0 where every read was right. */
static uint64_t read_page(const volatile uint64_t *region, uint64_t page, uint64_t seed)
{
    return region[page * PAGE_WORDS] - bench_mix(seed + page * PAGE_WORDS);
}

static void *hot_main(void *unused)
{
    uint64_t state = 1ULL << 40, wrong = 0;
    pthread_barrier_wait(&start_line);
    while (!atomic_load_explicit(&scanned, memory_order_relaxed)) {
        wrong |= read_page(hot, bench_random(&state) % hot_pages, 0);
        atomic_fetch_add_explicit(&hot_reads, 1, memory_order_relaxed);
    }
    hot_sum = wrong;
    return unused;
}

static void *scan_main(void *unused)
{
    uint64_t wrong = 0;
    pthread_barrier_wait(&start_line);
    for (uint64_t i = 0; i < passes * cold_pages; i++) {
        while (i % PACE_PAGES == 0 && atomic_load(&hot_reads) < i)
            sched_yield();
        wrong |= read_page(cold, i % cold_pages, 1ULL << 32);
    }
    atomic_store(&scanned, true);
    cold_sum = wrong;
    return unused;
}

static void run(void)
{
    pthread_t thread;
    pthread_barrier_init(&start_line, NULL, 2);
    if (pthread_create(&thread, NULL, hot_main, NULL) != 0)
        bench_fail("scan: thread");
    scan_main(NULL);
    pthread_join(thread, NULL);
}

int main(int argc, char **argv)
{
    uint64_t local_mib = argc == 3 ? strtoull(argv[1], NULL, 10) : 0;
    passes = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
    if (local_mib < 2 || local_mib > 1 << 20 || passes < 1) {
        fprintf(stderr, "usage: scan LOCAL_MIB PASSES\n");
        return 2;
    }
    hot_pages = local_mib * MIB_PAGES / 2;
    cold_pages = local_mib * MIB_PAGES * 4;
    bench_phase(NULL);
    hot = region_make(hot_pages, 0);
    cold = region_make(cold_pages, 1ULL << 32);
    bench_phase("setup");
    run();
    bench_phase("run");
    printf("hot_range 0x%llx:0x%llx\n", (unsigned long long)(uintptr_t)hot,
           (unsigned long long)(uintptr_t)hot + hot_pages * BENCH_PAGE);
    printf("hot_reads %llu\n", (unsigned long long)atomic_load(&hot_reads));
    uint64_t sums[] = {hot_sum, cold_sum, hot_pages, passes * cold_pages};
    bench_checksum(bench_hash(0, sums, sizeof sums));
    return hot_sum || cold_sum ? 1 : 0;
}
