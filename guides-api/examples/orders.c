/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tutorial's program (docs/guides.md), which knows nothing of farvisor: a table of orders, far
 * larger than what is kept here, and requests that each name 32 of them by number.
 *
 * usage: orders [MIB] [REQUESTS]
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BATCH 32

struct order {
    uint64_t number, amount;
    char text[1008];
};

uint64_t orders_total(const struct order *table, const uint32_t *numbers, size_t count);

/* Exported (-rdynamic), so that a guide can hook it. */
__attribute__((noinline)) uint64_t orders_total(const struct order *table, const uint32_t *numbers,
                                                size_t count)
{
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += table[numbers[i]].amount;
    return total;
}

int main(int argc, char **argv)
{
    size_t mib = argc > 1 ? strtoul(argv[1], NULL, 10) : 256;
    size_t requests = argc > 2 ? strtoul(argv[2], NULL, 10) : 2000;
    uint32_t orders = (uint32_t)((mib << 20) / sizeof(struct order)), numbers[BATCH], state = 1;
    struct order *table = calloc(orders, sizeof(*table));
    struct timespec start, end;
    uint64_t total = 0;

    if (!table || orders == 0)
        return 1;
    for (uint32_t i = 0; i < orders; i++)
        table[i] = (struct order){.number = i, .amount = i % 1000 + 1};
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (size_t request = 0; request < requests; request++) {
        for (int i = 0; i < BATCH; i++) {
            state = state * 1664525u + 1013904223u;
            numbers[i] = (uint32_t)((uint64_t)state * orders >> 32);
        }
        total += orders_total(table, numbers, BATCH);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds =
        (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9;
    printf("total %llu\n", (unsigned long long)total);
    fprintf(stderr, "%.1f us a request\n", seconds * 1e6 / (double)requests);
    free(table);
    return 0;
}
