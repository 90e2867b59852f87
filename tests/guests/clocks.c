/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clocks never run backwards, on one thread or between threads, and agree with each other. With
 * --costs it prints what cheap calls cost, in ns, for the benchmark.
 */
#include "guest.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/time.h>

static _Atomic uint64_t latest_ns;

static uint64_t now_ns(clockid_t clock)
{
    struct timespec now;
    EXPECT(clock_gettime(clock, &now) == 0);
    EXPECT(now.tv_nsec >= 0 && now.tv_nsec < 1000000000);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *race(void *argument)
{
    for (int i = 0; i < 200000; i++) {
        uint64_t seen = atomic_load(&latest_ns); /* another thread has read this already */
        uint64_t mine = now_ns(CLOCK_MONOTONIC);
        EXPECT(mine >= seen);
        while (seen < mine && !atomic_compare_exchange_weak(&latest_ns, &seen, mine))
            ;
    }
    return argument;
}

static void print_cost(const char *name, double seconds, int rounds)
{
    printf("%s %.1f\n", name, seconds * 1e9 / rounds);
}

static int costs(void)
{
    enum { ROUNDS = 100000 };
    static uint32_t word;
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

    double start = guest_now_s();
    for (int i = 0; i < ROUNDS; i++)
        now_ns(CLOCK_MONOTONIC);
    print_cost("clock_gettime_ns", guest_now_s() - start, ROUNDS);
    start = guest_now_s();
    for (int i = 0; i < ROUNDS; i++)
        syscall(SYS_getpid);
    print_cost("getpid_ns", guest_now_s() - start, ROUNDS);
    start = guest_now_s();
    for (int i = 0; i < ROUNDS; i++) {
        pthread_mutex_lock(&lock);
        pthread_mutex_unlock(&lock);
    }
    print_cost("mutex_ns", guest_now_s() - start, ROUNDS);
    start = guest_now_s();
    for (int i = 0; i < ROUNDS; i++)
        syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    print_cost("futex_wake_nobody_ns", guest_now_s() - start, ROUNDS);
    return 0;
}

int main(int argc, char **argv)
{
    pthread_t threads[4];

    if (argc > 1 && strcmp(argv[1], "--costs") == 0)
        return costs();
    for (int i = 0; i < 4; i++)
        EXPECT(pthread_create(&threads[i], NULL, race, NULL) == 0);
    for (int i = 0; i < 4; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);

    uint64_t mono = now_ns(CLOCK_MONOTONIC);
    uint64_t real = now_ns(CLOCK_REALTIME);
    usleep(200000);
    uint64_t mono_ns = now_ns(CLOCK_MONOTONIC) - mono;
    uint64_t real_ns = now_ns(CLOCK_REALTIME) - real;
    EXPECT(mono_ns >= 200000000 && mono_ns < 5000000000);
    EXPECT(real_ns > mono_ns * 9 / 10 && real_ns < mono_ns * 11 / 10 + 1000000);
    uint64_t boot = now_ns(CLOCK_BOOTTIME);
    EXPECT(boot + 1000000 >= mono);
    EXPECT(now_ns(CLOCK_PROCESS_CPUTIME_ID) > 0 && now_ns(CLOCK_THREAD_CPUTIME_ID) > 0);
    EXPECT(now_ns(CLOCK_MONOTONIC_COARSE) <= now_ns(CLOCK_MONOTONIC));

    struct timeval day;
    EXPECT(gettimeofday(&day, NULL) == 0);
    EXPECT(labs((long)time(NULL) - (long)day.tv_sec) <= 1);
    EXPECT(clock_gettime(12345, &(struct timespec){0}) == -1 && errno == EINVAL);
    return guest_passed("clocks");
}
