/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that read, write, send, receive, seek and wait at the same time while signals interrupt
 * them: every byte arrives once and in order, every count and position is Linux's.
 */
#include "guest.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>

#define STREAM_BYTES (1u << 20)
#define PIECE_MAX    20000u
#define FILE_BYTES   300000u
#define ROUNDS       500u

static atomic_bool finished;

static void handler(int number)
{
    (void)number;
}

static uint8_t byte_at(uint32_t position)
{
    return (uint8_t)(position * 2654435761u >> 13);
}

struct stream {
    int in, out;
    bool message; /* by send and recv */
    uint32_t seed;
};

static uint32_t next(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* All of it: a blocking write of a pipe or stream is not short unless interrupted. */
static void *writer(void *argument)
{
    struct stream *stream = argument;
    uint8_t buffer[PIECE_MAX];
    uint32_t seed = stream->seed;

    for (uint32_t at = 0; at < STREAM_BYTES;) {
        uint32_t bytes = 1 + next(&seed) % PIECE_MAX;

        if (bytes > STREAM_BYTES - at)
            bytes = STREAM_BYTES - at;
        for (uint32_t i = 0; i < bytes; i++)
            buffer[i] = byte_at(at + i);
        struct iovec parts[2] = {{buffer, bytes / 3}, {buffer + bytes / 3, bytes - bytes / 3}};
        ssize_t got = stream->message ? send(stream->out, buffer, bytes, 0)
                      : bytes % 2     ? write(stream->out, buffer, bytes)
                                      : writev(stream->out, parts, 2);
        if (got < 0 && errno == EINTR)
            continue;
        EXPECT(got > 0);
        at += (uint32_t)got;
    }
    close(stream->out);
    return NULL;
}

static void *reader(void *argument)
{
    struct stream *stream = argument;
    static _Thread_local uint8_t buffer[PIECE_MAX];
    uint32_t seed = stream->seed * 7 + 1, at = 0;

    for (;;) {
        uint32_t bytes = 1 + next(&seed) % PIECE_MAX;
        ssize_t got =
            stream->message ? recv(stream->in, buffer, bytes, 0) : read(stream->in, buffer, bytes);
        if (got < 0 && errno == EINTR)
            continue;
        EXPECT(got >= 0);
        if (!got)
            break;
        for (uint32_t i = 0; i < (uint32_t)got; i++)
            EXPECT(buffer[i] == byte_at(at + i));
        at += (uint32_t)got;
    }
    EXPECT(at == STREAM_BYTES);
    return NULL;
}

/* A file of one's own: positions, vectors, reads beyond the end. */
static void *filer(void *argument)
{
    static _Thread_local uint8_t buffer[FILE_BYTES];
    char name[] = "mixed_io.XXXXXX";
    int fd = mkstemp(name);
    uint32_t seed = 5;

    EXPECT(fd >= 0 && unlink(name) == 0);
    for (uint32_t i = 0; i < FILE_BYTES; i++)
        buffer[i] = byte_at(i);
    EXPECT(write(fd, buffer, FILE_BYTES) == FILE_BYTES);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint32_t at = next(&seed) % FILE_BYTES, bytes = next(&seed) % PIECE_MAX;
        uint32_t there = bytes < FILE_BYTES - at ? bytes : FILE_BYTES - at;

        EXPECT(lseek(fd, (off_t)at, SEEK_SET) == (off_t)at);
        EXPECT(read(fd, buffer, bytes) == (ssize_t)there);
        for (uint32_t i = 0; i < there; i += 97)
            EXPECT(buffer[i] == byte_at(at + i));
        EXPECT(lseek(fd, 0, SEEK_CUR) == (off_t)(at + there));
        EXPECT(pread(fd, buffer, bytes, (off_t)at) == (ssize_t)there);
        EXPECT(pwrite(fd, buffer, there, (off_t)at) == (ssize_t)there);
    }
    close(fd);
    return argument;
}

/* Waits that come to nothing, and a descriptor that does not wait. */
static void *waiter(void *argument)
{
    int ends[2], set = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    void *volatile nowhere = (void *)16;
    char byte;

    EXPECT(pipe2(ends, O_NONBLOCK) == 0 && set >= 0);
    EXPECT(epoll_ctl(set, EPOLL_CTL_ADD, ends[0], &event) == 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct pollfd entry = {.fd = ends[0], .events = POLLIN};

        EXPECT(read(ends[0], &byte, 1) == -1 && errno == EAGAIN);
        EXPECT(poll(&entry, 1, 0) == 0);
        EXPECT(epoll_wait(set, &event, 1, 0) == 0);
        EXPECT(write(ends[1], "x", 1) == 1);
        EXPECT(poll(&entry, 1, 1000) == 1 && entry.revents == POLLIN);
        EXPECT(epoll_wait(set, &event, 1, 1000) == 1);
        EXPECT(read(ends[0], &byte, 1) == 1 && byte == 'x');
        EXPECT(read(999, &byte, 1) == -1 && errno == EBADF);
        EXPECT(read(ends[0], nowhere, 1) == -1 && (errno == EFAULT || errno == EAGAIN));
    }
    return argument;
}

static void *interrupter(void *argument)
{
    pthread_t *threads = argument;

    do {
        for (unsigned i = 0; i < 4; i++)
            pthread_kill(threads[i], SIGUSR1);
        usleep(300);
    } while (!atomic_load(&finished));
    return NULL;
}

int main(void)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    struct stream streams[2] = {{.seed = 1}, {.seed = 2, .message = true}};
    pthread_t threads[6], interrupts;
    int ends[2];

    EXPECT(sigaction(SIGUSR1, &action, NULL) == 0);
    EXPECT(pipe(ends) == 0);
    streams[0].in = ends[0];
    streams[0].out = ends[1];
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    streams[1].in = ends[0];
    streams[1].out = ends[1];
    for (unsigned i = 0; i < 2; i++) {
        EXPECT(pthread_create(&threads[2 * i], NULL, writer, &streams[i]) == 0);
        EXPECT(pthread_create(&threads[2 * i + 1], NULL, reader, &streams[i]) == 0);
    }
    EXPECT(pthread_create(&threads[4], NULL, filer, NULL) == 0);
    EXPECT(pthread_create(&threads[5], NULL, waiter, NULL) == 0);
    EXPECT(pthread_create(&interrupts, NULL, interrupter, threads) == 0);
    for (unsigned i = 4; i < 6; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
    atomic_store(&finished, true);
    EXPECT(pthread_join(interrupts, NULL) == 0);
    for (unsigned i = 0; i < 4; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
    return guest_passed("mixed_io");
}
