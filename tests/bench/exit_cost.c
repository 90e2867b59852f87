/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What leaving the guest costs: a system call that only the VMM can answer, with nothing to do
 * (seek on a descriptor that is not open), less one that the guest's kernel answers by itself.
 *
 * usage: exit_cost CALLS
 */
#include "bench.h"

#include <sys/syscall.h>

int main(int argc, char **argv)
{
    long calls = argc > 1 ? atol(argv[1]) : 1000;
    if (calls < 1)
        return 2;

    bench_phase(NULL);
    double start_s = bench_now_s();
    for (long i = 0; i < calls; i++)
        syscall(SYS_getpid);
    double inside_s = bench_now_s() - start_s;
    bench_phase("setup");
    start_s = bench_now_s();
    for (long i = 0; i < calls; i++)
        syscall(SYS_lseek, -1, 0, SEEK_SET);
    double outside_s = bench_now_s() - start_s;
    bench_phase("run");
    printf("exit_us %.3f\n", (outside_s - inside_s) * 1e6 / (double)calls);
    return 0;
}
