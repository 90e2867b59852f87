/* SPDX-License-Identifier: Apache-2.0 */
/* The futex system call itself: values, timeouts, bitsets, requeue, and addresses that fault. */
#include "guest.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

static uint32_t first;
static uint32_t second;
static atomic_int woken;

static long futex(void *word, int op, uint32_t value, const void *timeout, void *word2,
                  uint32_t value3)
{
    return syscall(SYS_futex, word, op, value, timeout, word2, value3);
}

static void *sleeper(void *argument)
{
    EXPECT(futex(&first, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0) == 0);
    atomic_fetch_add(&woken, 1);
    return argument;
}

int main(void)
{
    struct timespec brief = {0, 30000000};
    pthread_t threads[4];

    first = 5;
    EXPECT(futex(&first, FUTEX_WAIT, 4, NULL, NULL, 0) == -1 && errno == EAGAIN);
    double start = guest_now_s();
    EXPECT(futex(&first, FUTEX_WAIT, 5, &brief, NULL, 0) == -1 && errno == ETIMEDOUT);
    EXPECT(guest_now_s() - start >= 0.029);
    struct timespec past = {1, 0};
    EXPECT(futex(&first, FUTEX_WAIT_BITSET, 5, &past, NULL, 1) == -1 && errno == ETIMEDOUT);
    EXPECT(futex(&first, FUTEX_WAKE, 1, NULL, NULL, 0) == 0);
    EXPECT(futex((char *)&first + 1, FUTEX_WAKE, 1, NULL, NULL, 0) == -1 && errno == EINVAL);
    void *hole = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(futex(hole, FUTEX_WAIT, 0, &brief, NULL, 0) == -1 && errno == EFAULT);

    first = 0;
    for (int i = 0; i < 4; i++)
        EXPECT(pthread_create(&threads[i], NULL, sleeper, NULL) == 0);
    long moved = 0;
    double limit = guest_now_s() + 20;
    while (moved < 4) { /* all asleep on the first word, moved to the second without waking */
        long now = futex(&first, FUTEX_CMP_REQUEUE_PRIVATE, 0, (void *)4, &second, 0);
        EXPECT(now >= 0 && guest_now_s() < limit);
        moved += now;
    }
    EXPECT(atomic_load(&woken) == 0);
    EXPECT(futex(&first, FUTEX_WAKE_PRIVATE, 9, NULL, NULL, 0) == 0);
    EXPECT(futex(&second, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) == 1);
    EXPECT(futex(&second, FUTEX_WAKE_PRIVATE, 9, NULL, NULL, 0) == 3);
    for (int i = 0; i < 4; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
    return guest_passed("futex_raw");
}
