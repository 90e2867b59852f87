/* SPDX-License-Identifier: Apache-2.0 */
/* An OpenMP program: parallel fill, reduction, tasks and critical sections over a shared array. */
#include "guest.h"

#include <omp.h>

static long fibonacci(int n)
{
    long a;
    long b;
    if (n < 12)
        return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
#pragma omp task shared(a)
    a = fibonacci(n - 1);
    b = fibonacci(n - 2);
#pragma omp taskwait
    return a + b;
}

int main(int argc, char **argv)
{
    long count = (argc > 1 ? atol(argv[1]) : 32) << 17;
    double *values = malloc((size_t)count * sizeof *values);
    double sum = 0;
    long hits = 0;
    long fib = 0;

    EXPECT(values);
    omp_set_num_threads(4);
#pragma omp parallel for schedule(static)
    for (long i = 0; i < count; i++)
        values[i] = (double)(i % 1000);
#pragma omp parallel for reduction(+ : sum) schedule(dynamic, 4096)
    for (long i = 0; i < count; i++)
        sum += values[i];
#pragma omp parallel
    for (int i = 0; i < 100; i++)
#pragma omp critical
        hits++;
#pragma omp parallel
#pragma omp single
    fib = fibonacci(20);
    EXPECT(hits == 400);
    printf("openmp_sum: sum %.0f fib %ld\n", sum, fib);
    free(values);
    return 0;
}
