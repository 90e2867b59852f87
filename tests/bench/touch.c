/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Touches the pages of a region that is larger than the local memory, one word in every cache line,
 * and tells what it cost as the program sees it: throughput, and the time of those single pages
 * that were too slow to be anything but misses. Each thread has a share of the region for itself.
 *
 * usage: touch MIB PATTERN read|write TOUCHES [THREADS]      (0 touches: one for every page)
 * PATTERN: seq, reverse, stride (every 8th page, then again from the next), random, or mixed (three
 * streams forward and one backward, page by page in turn).
 */
#include "bench.h"

#include <pthread.h>
#include <x86intrin.h>

#define MISS_NS 4000.0 /* a page slower than this left the guest; faster is KVM's own mapping */

enum { STRIDE = 8, STREAMS = 4, LINE_WORDS = 8, PAGE_WORDS = BENCH_PAGE / 8, MOST_THREADS = 64 };
enum { SUB_BUCKETS = 16, BUCKETS = 64 * SUB_BUCKETS }; /* durations to 1/16 */
enum pattern { SEQ, REVERSE, STRIDED, RANDOM, MIXED, PATTERNS };

static const char *const pattern_names[PATTERNS] = {"seq", "reverse", "stride", "random", "mixed"};

struct toucher {
    volatile uint64_t *region;
    uint64_t pages, touches, seed;
    uint64_t sum;
    enum pattern pattern;
    int write;
    double start_s, end_s;
    uint64_t histogram[BUCKETS]; /* of ticks */
    pthread_t thread;
};

static pthread_barrier_t start_line;

static uint64_t page_of(const struct toucher *t, uint64_t i, uint64_t *state)
{
    uint64_t at = i % t->pages;
    uint64_t lane = t->pages / STREAMS;

    switch (t->pattern) {
    case REVERSE:
        return t->pages - 1 - at;
    case STRIDED:
        return at % (t->pages / STRIDE) * STRIDE + at / (t->pages / STRIDE);
    case RANDOM:
        return bench_random(state) % t->pages;
    case MIXED:
        return at % STREAMS == STREAMS - 1 ? t->pages - 1 - at / STREAMS
                                           : at % STREAMS * lane + at / STREAMS;
    default:
        return at;
    }
}

static unsigned bucket_of(uint64_t ticks)
{
    if (ticks < SUB_BUCKETS)
        return (unsigned)ticks;
    unsigned top = 63 - (unsigned)__builtin_clzll(ticks);
    return (top - 3) * SUB_BUCKETS + (unsigned)(ticks >> (top - 4) & (SUB_BUCKETS - 1));
}

static double bucket_ticks(unsigned bucket)
{
    unsigned top = bucket / SUB_BUCKETS + 3;
    if (bucket < SUB_BUCKETS)
        return bucket;
    return (double)((SUB_BUCKETS + bucket % SUB_BUCKETS) * 2 + 1) * (double)(1ull << (top - 4)) / 2;
}

static void *touch(void *argument)
{
    struct toucher *t = argument;
    uint64_t state = t->seed;

    pthread_barrier_wait(&start_line);
    t->start_s = bench_now_s();
    for (uint64_t i = 0; i < t->touches; i++) {
        volatile uint64_t *page = t->region + page_of(t, i, &state) * PAGE_WORDS;
        uint64_t start = __rdtsc();
        if (t->write)
            for (int w = 0; w < PAGE_WORDS; w += LINE_WORDS)
                page[w] = i + (uint64_t)w;
        else
            for (int w = 0; w < PAGE_WORDS; w += LINE_WORDS)
                t->sum += page[w];
        t->histogram[bucket_of(__rdtsc() - start)]++;
    }
    t->end_s = bench_now_s();
    return NULL;
}

static void report_misses(const uint64_t *histogram, double ns_per_tick)
{
    uint64_t misses = 0, seen = 0;
    double quantiles[] = {0.5, 0.99, 0.999};
    const char *names[] = {"miss_p50_us", "miss_p99_us", "miss_p999_us"};
    int next = 0;

    for (unsigned i = 0; i < BUCKETS; i++)
        if (bucket_ticks(i) * ns_per_tick >= MISS_NS)
            misses += histogram[i];
    printf("misses %llu\n", (unsigned long long)misses);
    for (unsigned i = 0; i < BUCKETS && misses; i++) {
        if (bucket_ticks(i) * ns_per_tick < MISS_NS)
            continue;
        seen += histogram[i];
        for (; next < 3 && (double)seen >= quantiles[next] * (double)misses && seen; next++)
            printf("%s %.2f\n", names[next], bucket_ticks(i) * ns_per_tick / 1e3);
    }
}

static void report(struct toucher *touchers, unsigned threads, double ns_per_tick)
{
    double start_s = touchers[0].start_s, end_s = 0, fastest_s = 1e9, slowest_s = 0;
    uint64_t touches = 0;

    for (unsigned t = 0; t < threads; t++) {
        struct toucher *one = &touchers[t];
        double took_s = one->end_s - one->start_s;
        start_s = one->start_s < start_s ? one->start_s : start_s;
        end_s = one->end_s > end_s ? one->end_s : end_s;
        fastest_s = took_s < fastest_s ? took_s : fastest_s;
        slowest_s = took_s > slowest_s ? took_s : slowest_s;
        touches += one->touches;
        for (unsigned i = 0; i < BUCKETS && t > 0; i++)
            touchers[0].histogram[i] += one->histogram[i];
    }
    printf("ns_per_page %.1f\n", (end_s - start_s) * 1e9 / (double)touches);
    printf("mb_per_s %.1f\n", (double)touches * BENCH_PAGE / (end_s - start_s) / 1e6);
    printf("thread_spread %.3f\n", slowest_s / fastest_s);
    report_misses(touchers[0].histogram, ns_per_tick);
}

static struct toucher *prepare(char **argv, unsigned threads, uint64_t *region)
{
    uint64_t pages = (strtoull(argv[1], NULL, 10) << 8) / threads;
    uint64_t touches = strtoull(argv[4], NULL, 10) / threads;
    struct toucher *touchers = bench_allocate(threads * sizeof *touchers);

    for (unsigned t = 0; t < threads; t++) {
        touchers[t].region = region + t * pages * PAGE_WORDS;
        touchers[t].pages = pages;
        touchers[t].touches = touches ? touches : pages;
        touchers[t].seed = (uint64_t)t << 32;
        touchers[t].write = strcmp(argv[3], "write") == 0;
        while (strcmp(pattern_names[touchers[t].pattern], argv[2]) != 0)
            if (++touchers[t].pattern == PATTERNS)
                exit(2);
    }
    return touchers;
}

static void touch_all(struct toucher *touchers, unsigned threads)
{
    pthread_barrier_init(&start_line, NULL, threads);
    for (unsigned t = 1; t < threads; t++)
        if (pthread_create(&touchers[t].thread, NULL, touch, &touchers[t]) != 0)
            bench_fail("touch: thread");
    touch(&touchers[0]);
    for (unsigned t = 1; t < threads; t++)
        pthread_join(touchers[t].thread, NULL);
}

int main(int argc, char **argv)
{
    unsigned threads = argc > 5 ? (unsigned)atoi(argv[5]) : 1;
    if (argc < 5 || threads < 1 || threads > MOST_THREADS) {
        fprintf(stderr, "usage: touch MIB seq|reverse|stride|random|mixed read|write TOUCHES"
                        " [THREADS]\n");
        return 2;
    }
    size_t words = strtoull(argv[1], NULL, 10) << 17;
    uint64_t *region = bench_allocate(words * sizeof *region);

    bench_phase(NULL);
    for (size_t i = 0; i < words; i++) /* nothing a compressor could use */
        region[i] = bench_mix(i);
    struct toucher *touchers = prepare(argv, threads, region);
    bench_phase("setup");
    double start_s = bench_now_s();
    uint64_t start_ticks = __rdtsc();
    touch_all(touchers, threads);
    double ns_per_tick = (bench_now_s() - start_s) * 1e9 / (double)(__rdtsc() - start_ticks);
    bench_phase("run");
    report(touchers, threads, ns_per_tick);
    uint64_t hash = 0;
    for (unsigned t = 0; t < threads; t++)
        hash = bench_hash(hash, &touchers[t].sum, sizeof touchers[t].sum);
    bench_checksum(touchers[0].write ? bench_hash(hash, region, words * sizeof *region) : hash);
    return 0;
}
