/* SPDX-License-Identifier: Apache-2.0 */
/* A busy heap: allocations of all sizes from several threads keep their bytes. */
#include "guest.h"

#include <pthread.h>
#include <stdint.h>

#define THREADS 4
#define SLOTS   256

static void *churn(void *argument)
{
    uint64_t random = (uint64_t)argument + 1;
    unsigned char *blocks[SLOTS] = {0};
    size_t sizes[SLOTS] = {0};

    for (int i = 0; i < 8000; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        size_t slot = (size_t)(random >> 33) % SLOTS;
        size_t bytes = 1 + ((size_t)(random >> 20) & ((random >> 60) ? 0xfff : 0x3ffff));
        if (blocks[slot]) {
            EXPECT(blocks[slot][0] == (unsigned char)slot);
            EXPECT(blocks[slot][sizes[slot] - 1] == (unsigned char)slot);
        }
        if (random & 1 << 18) {
            blocks[slot] = realloc(blocks[slot], bytes);
        } else {
            free(blocks[slot]);
            blocks[slot] = malloc(bytes);
        }
        EXPECT(blocks[slot]);
        memset(blocks[slot], (int)slot, bytes);
        sizes[slot] = bytes;
    }
    for (int i = 0; i < SLOTS; i++)
        free(blocks[i]);
    return argument;
}

int main(void)
{
    pthread_t threads[THREADS];
    for (long i = 0; i < THREADS; i++)
        EXPECT(pthread_create(&threads[i], NULL, churn, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
    return guest_passed("heap");
}
