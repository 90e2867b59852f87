/* SPDX-License-Identifier: Apache-2.0 */
/* Fills its memory, says "running", then starts another thread every 20 ms that reads all of it:
 * each opens its own way to the memory node, at any time. usage: late_threads MIB SECONDS */
#include "guest.h"

#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define THREADS 100

static uint64_t *area;
static size_t words;

static void *reader(void *argument)
{
    size_t start = (size_t)(uintptr_t)argument * words / THREADS / 512 * 512;
    for (size_t n = 0; n < words; n += 512) {
        size_t i = (start + n) % words;
        EXPECT(area[i] == i + 1);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    words = (argc > 1 ? strtoul(argv[1], NULL, 10) : 64) << 17;
    double limit = guest_now_s() + (argc > 2 ? strtod(argv[2], NULL) : 60);
    area = mmap(NULL, words * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(area != MAP_FAILED);
    for (size_t i = 0; i < words; i += 512)
        area[i] = i + 1;
    puts("running");
    fflush(stdout);
    for (uintptr_t n = 0; n < THREADS && guest_now_s() < limit; n++) {
        pthread_t thread;
        EXPECT(pthread_create(&thread, NULL, reader, (void *)n) == 0);
        usleep(20000);
    }
    pause();
    return 0;
}
