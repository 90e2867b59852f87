/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread that computes, and calls nothing, handles what it is sent while it faults: on the first
 * page of a region in each 2 MiB, for which a guest's tables are made only then.
 */
#include "guest.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>

#define STRIDE ((size_t)4 << 20)
#define BYTES  ((size_t)24 << 30)
#define LATE_S 5.0

static char *region;
static atomic_int handled, touched, over;

static void on_signal(int number)
{
    (void)number;
    atomic_fetch_add(&handled, 1);
}

static void *compute(void *argument)
{
    for (size_t at = STRIDE; at < BYTES && !atomic_load(&over); at += STRIDE)
        region[at] = 1;
    atomic_store(&touched, 1);
    while (!atomic_load(&over))
        __builtin_ia32_pause();
    return argument;
}

int main(void)
{
    const struct sigaction action = {.sa_handler = on_signal};
    pthread_t thread;

    region = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                  -1, 0);
    EXPECT(region != MAP_FAILED && madvise(region, BYTES, MADV_NOHUGEPAGE) == 0);
    EXPECT(sigaction(SIGUSR1, &action, NULL) == 0);
    EXPECT(pthread_create(&thread, NULL, compute, NULL) == 0);
    for (int i = 1; !atomic_load(&touched); i++) {
        double until_s = guest_now_s() + LATE_S;
        EXPECT(pthread_kill(thread, SIGUSR1) == 0);
        while (atomic_load(&handled) < i) {
            EXPECT(guest_now_s() < until_s);
            sched_yield();
        }
    }
    atomic_store(&over, 1);
    EXPECT(pthread_join(thread, NULL) == 0);
    return guest_passed("signal_in_fault");
}
