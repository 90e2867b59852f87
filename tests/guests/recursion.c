/* SPDX-License-Identifier: Apache-2.0 */
/* Deep recursion, on the main stack and on a 64 MiB thread stack, keeps every frame. */
#include "guest.h"

#include <pthread.h>
#include <stdint.h>

static __attribute__((noinline)) uint64_t descend(unsigned depth)
{
    volatile uint64_t frame[64];
    frame[depth % 64] = depth;
    uint64_t below = depth ? descend(depth - 1) : 0;
    EXPECT(frame[depth % 64] == depth);
    return below + frame[depth % 64];
}

static void *thread_main(void *argument)
{
    for (int round = 0; round < 3; round++)
        EXPECT(descend(100000) == 100000ull * 100001 / 2);
    return argument;
}

int main(void)
{
    pthread_attr_t attributes;
    pthread_t threads[2];
    EXPECT(descend(10000) == 10000ull * 10001 / 2);
    EXPECT(pthread_attr_init(&attributes) == 0);
    EXPECT(pthread_attr_setstacksize(&attributes, 64 << 20) == 0);
    for (int i = 0; i < 2; i++)
        EXPECT(pthread_create(&threads[i], &attributes, thread_main, NULL) == 0);
    for (int i = 0; i < 2; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
    return guest_passed("recursion");
}
