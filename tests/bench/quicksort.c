/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sorts random 32-bit integers in place: Hoare's partition around the median of three, insertion
 * sort for short runs, the smaller half first so that the stack stays small.
 *
 * usage: quicksort MIB
 */
#include "bench.h"

enum { SHORT_RUN = 24 };

static void swap(int32_t *a, int32_t *b)
{
    int32_t kept = *a;
    *a = *b;
    *b = kept;
}

static void insertion_sort(int32_t *first, int32_t *last)
{
    for (int32_t *next = first + 1; next <= last; next++) {
        int32_t value = *next;
        int32_t *hole = next;
        for (; hole > first && hole[-1] > value; hole--)
            *hole = hole[-1];
        *hole = value;
    }
}

static int32_t median_of_three(int32_t *first, int32_t *last)
{
    int32_t *middle = first + (last - first) / 2;

    if (*middle < *first)
        swap(middle, first);
    if (*last < *middle)
        swap(last, middle);
    if (*middle < *first)
        swap(middle, first);
    return *middle;
}

static void quicksort(int32_t *first, int32_t *last)
{
    while (last - first >= SHORT_RUN) {
        int32_t pivot = median_of_three(first, last);
        int32_t *left = first;
        int32_t *right = last;
        while (left <= right) {
            while (*left < pivot)
                left++;
            while (*right > pivot)
                right--;
            if (left <= right)
                swap(left++, right--);
        }
        if (right - first < last - left) {
            quicksort(first, right);
            first = left;
        } else {
            quicksort(left, last);
            last = right;
        }
    }
    insertion_sort(first, last);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: quicksort MIB\n");
        return 2;
    }
    size_t count = (strtoull(argv[1], NULL, 10) << 20) / sizeof(int32_t);
    int32_t *values = bench_allocate(count * sizeof *values);
    uint64_t state = 1;

    bench_phase(NULL);
    for (size_t i = 0; i < count; i++)
        values[i] = (int32_t)bench_random(&state);
    bench_phase("setup");
    if (count)
        quicksort(values, values + count - 1);
    bench_phase("run");
    for (size_t i = 1; i < count; i++) {
        if (values[i - 1] > values[i]) {
            fprintf(stderr, "quicksort: element %zu is out of order\n", i);
            return 1;
        }
    }
    bench_checksum(bench_hash(0, values, count * sizeof *values));
    return 0;
}
