/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many threads at a time read and write a megabyte each, to a file, and through a pipe and a socket
 * whose other end waits with as much: more than may be here of all of them together, and all of it
 * right in the end. usage: crowded_io THREADS ROUNDS
 */
#include "guest.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define BYTES (1u << 20)
#define WORDS (BYTES / 8)
#define SPANS 256

static int rounds;

static void area_fill(uint64_t *area, uint64_t seed)
{
    for (uint64_t i = 0; i < WORDS; i += 8)
        area[i] = seed * WORDS + i + 1;
}

static void area_check(const uint64_t *area, uint64_t seed)
{
    for (uint64_t i = 0; i < WORDS; i += 8)
        EXPECT(area[i] == seed * WORDS + i + 1);
}

static uint64_t *area_new(void)
{
    void *area = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(area != MAP_FAILED);
    return area;
}

static void read_all(int fd, void *to, size_t bytes, int how)
{
    for (size_t done = 0; done < bytes;) {
        char *at = (char *)to + done;
        ssize_t got = how ? recv(fd, at, bytes - done, 0) : read(fd, at, bytes - done);
        EXPECT(got > 0);
        done += (size_t)got;
    }
}

/* As many pieces as pages: each a pin of its own. */
static void file_round(int fd, uint64_t *area, uint64_t seed)
{
    struct iovec spans[SPANS];
    for (size_t i = 0; i < SPANS; i++)
        spans[i] = (struct iovec){(char *)area + i * (BYTES / SPANS), BYTES / SPANS};
    area_fill(area, seed);
    EXPECT((seed & 1 ? pwritev(fd, spans, SPANS, 0) : pwrite(fd, area, BYTES, 0)) == BYTES);
    memset(area, 0, BYTES);
    EXPECT((seed & 1 ? pread(fd, area, BYTES, 0) : preadv(fd, spans, SPANS, 0)) == BYTES);
    area_check(area, seed);
}

struct waiter {
    int fd, how;
    uint64_t seed;
};

static void *waiter_main(void *argument)
{
    const struct waiter *waiter = argument;
    uint64_t *area = area_new();
    for (int i = 0; i < rounds; i++) {
        read_all(waiter->fd, area, BYTES, waiter->how);
        area_check(area, waiter->seed + (uint64_t)i);
    }
    EXPECT(munmap(area, BYTES) == 0);
    return NULL;
}

static void *worker_main(void *argument)
{
    uint64_t seed = (uint64_t)(uintptr_t)argument * 1000;
    uint64_t *area = area_new();
    int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), ends[2];
    int how = seed / 1000 & 1;
    pthread_t thread;
    EXPECT(fd >= 0 && (how ? socketpair(AF_UNIX, SOCK_STREAM, 0, ends) : pipe(ends)) == 0);
    struct waiter waiter = {ends[0], how, seed};
    EXPECT(pthread_create(&thread, NULL, waiter_main, &waiter) == 0);
    for (int i = 0; i < rounds; i++) {
        file_round(fd, area, seed + (uint64_t)i);
        EXPECT(write(ends[1], area, BYTES) == BYTES);
    }
    EXPECT(pthread_join(thread, NULL) == 0);
    EXPECT(close(fd) == 0 && close(ends[0]) == 0 && close(ends[1]) == 0);
    return NULL;
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 8;
    pthread_t threads[256];
    rounds = argc > 2 ? atoi(argv[2]) : 2;
    EXPECT(count > 0 && count <= 256);
    for (int i = 0; i < count; i++)
        EXPECT(pthread_create(&threads[i], NULL, worker_main, (void *)(uintptr_t)i) == 0);
    for (int i = 0; i < count; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
    return guest_passed("crowded_io");
}
