/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Touches the pages of a region that is larger than the local memory, and tells what it cost as the
 * program sees it: throughput of a whole pass, and the time of those single touches that were too
 * slow to be anything but misses.
 *
 * usage: touch MIB seq|random read|write TOUCHES      (0 touches: one for every page)
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <x86intrin.h>

#define PAGE    4096u
#define MISS_NS 4000.0 /* a touch slower than this left the guest; faster is KVM's own mapping */

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static void run_touches(volatile uint8_t *region, uint64_t pages, uint64_t touches, int random,
                        int write, uint64_t *ticks)
{
    uint64_t state = 7;
    for (uint64_t i = 0; i < touches; i++) {
        volatile uint64_t *at =
            (volatile void *)(region + (random ? next_random(&state) % pages : i % pages) * PAGE);
        uint64_t start = __rdtsc();
        if (write)
            *at = i;
        else
            (void)*at;
        ticks[i] = __rdtsc() - start;
    }
}

static void report(uint64_t *ticks, uint64_t touches, double seconds, double ns_per_tick)
{
    uint64_t first_miss = 0;
    qsort(ticks, touches, sizeof *ticks, by_value);
    while (first_miss < touches && (double)ticks[first_miss] * ns_per_tick < MISS_NS)
        first_miss++;
    uint64_t misses = touches - first_miss;
    printf("ns_per_page %.0f\n", seconds * 1e9 / (double)touches);
    printf("mb_per_s %.0f\n", (double)touches * PAGE / seconds / 1e6);
    printf("misses %llu\n", (unsigned long long)misses);
    if (misses) {
        printf("miss_p50_us %.1f\n", (double)ticks[first_miss + misses / 2] * ns_per_tick / 1e3);
        printf("miss_p99_us %.1f\n",
               (double)ticks[first_miss + misses * 99 / 100] * ns_per_tick / 1e3);
    }
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: touch MIB seq|random read|write TOUCHES\n");
        return 2;
    }
    uint64_t pages = strtoull(argv[1], NULL, 10) << 8;
    int random = strcmp(argv[2], "random") == 0;
    int write = strcmp(argv[3], "write") == 0;
    uint64_t touches = strtoull(argv[4], NULL, 10);
    touches = touches ? touches : pages;
    uint8_t *region = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint64_t *ticks = malloc(touches * sizeof *ticks);
    if (region == MAP_FAILED || !ticks) {
        perror("touch: memory");
        return 1;
    }
    memset(ticks, 1, touches * sizeof *ticks);
    for (uint64_t i = 0; i < pages; i++) /* not compressible to zero pages */
        *(uint64_t *)(void *)(region + i * PAGE) = i * 0x9e3779b97f4a7c15u + 1;

    double start_ns = now_ns();
    uint64_t start_ticks = __rdtsc();
    run_touches(region, pages, touches, random, write, ticks);
    double ns = now_ns() - start_ns;
    report(ticks, touches, ns / 1e9, ns / (double)(__rdtsc() - start_ticks));
    return 0;
}
