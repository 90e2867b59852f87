/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ways of touching memory that replacement policies are told apart by. Each touches one word a
 * page, so that what is traced is the pattern and nothing else.
 *
 * usage: patterns scan|loop|zipf|kmeans|phases MIB TURNS
 *   scan    a hot eighth is touched at random, twice for every page that a scan over the rest reads
 *   loop    all of it in order, again and again: what LRU and FIFO are worst at
 *   zipf    page n is touched in proportion to 1/n, pages shuffled
 *   kmeans  points are read in order each turn, with one page of centres and of sums each (an
 * eighth) phases  a working set of a quarter, at random, which moves on every turn
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096u

static volatile uint8_t *region;
static uint64_t pages, state = 11;

static uint64_t next_random(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 33;
}

static void touch(uint64_t page)
{
    (void)*(volatile uint64_t *)(region + page * PAGE);
}

static void run_scan(uint64_t turns)
{
    uint64_t hot = pages / 8;
    for (uint64_t i = 0; i < turns * (pages - hot); i++) {
        touch(hot + i % (pages - hot));
        touch(next_random() % hot);
        touch(next_random() % hot);
    }
}

static void run_loop(uint64_t turns)
{
    for (uint64_t i = 0; i < turns * pages; i++)
        touch(i % pages);
}

/* By inversion: the sum of 1/n grows as its logarithm, so a power of `pages` is as good as Zipf. */
static void run_zipf(uint64_t turns)
{
    unsigned bits = 63u - (unsigned)__builtin_clzll(pages);
    for (uint64_t i = 0; i < turns * pages; i++) {
        uint64_t octave = next_random() % bits;
        uint64_t rank = (1ULL << octave) + next_random() % (1ULL << octave);
        touch(rank * 2654435761u % pages);
    }
}

static void run_kmeans(uint64_t turns)
{
    uint64_t centres = pages / 8;
    for (uint64_t i = 0; i < turns; i++) {
        for (uint64_t point = 2 * centres; point < pages; point++) {
            uint64_t nearest = next_random() % centres;
            touch(point);
            touch(nearest);
            touch(centres + nearest);
        }
    }
}

static void run_phases(uint64_t turns)
{
    uint64_t set = pages / 4;
    for (uint64_t turn = 0; turn < turns; turn++)
        for (uint64_t i = 0; i < 4 * set; i++)
            touch((turn * set / 2 + next_random() % set) % pages);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(uint64_t turns);
    } patterns[] = {{"scan", run_scan},
                    {"loop", run_loop},
                    {"zipf", run_zipf},
                    {"kmeans", run_kmeans},
                    {"phases", run_phases}};
    if (argc != 4) {
        fprintf(stderr, "usage: patterns scan|loop|zipf|kmeans|phases MIB TURNS\n");
        return 2;
    }
    pages = strtoull(argv[2], NULL, 10) * 256;
    uint8_t *memory =
        mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || pages < 256)
        return 1;
    for (uint64_t i = 0; i < pages; i++) /* contents, or an evicted page would just be forgotten */
        memset(memory + i * PAGE, (int)(i | 1), 64);
    region = memory;
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
        if (strcmp(patterns[i].name, argv[1]) != 0)
            continue;
        patterns[i].run(strtoull(argv[3], NULL, 10));
        return 0;
    }
    return 2;
}
