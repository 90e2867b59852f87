/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many threads wait for each other in reads and writes of several pages: more than may be pinned
 * of all of them together, so none may hold a pin while it waits. Each wait ends as it should: with
 * its data, its least, all of it, a part of it when interrupted, or after its time.
 * usage: blocked_io THREADS
 */
#include "guest.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BYTES   16384u
#define SMALL   8192u
#define LEAST   6000
#define FIRST   1000u /* of what is told to arrive in two parts */
#define SLOW_MS 300

enum kind {
    RECV,        /* a part comes: it is all there is */
    READ_SOCKET, /* likewise */
    READ_PIPE,
    READ_EVENT,
    RECV_ALL,         /* MSG_WAITALL, in two parts */
    RECV_LEAST,       /* SO_RCVLOWAT, in two parts */
    RECV_TIME,        /* SO_RCVTIMEO, and nothing comes */
    RECV_INTERRUPTED, /* EINTR */
    ALL_INTERRUPTED,  /* ... with a part */
    SEND,             /* the socket is full */
    WRITE_SOCKET,     /* likewise */
    WRITE_PIPE,
    KINDS
};

struct wait {
    pthread_t thread;
    enum kind kind;
    int ours, theirs; /* the thread's end and main's */
    size_t filled;    /* bytes in the way of what is sent */
    uint8_t seed;
    atomic_bool done;
};

static void fill(uint8_t *at, size_t bytes, uint8_t seed)
{
    for (size_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)(seed + i * 7 + (i >> 8));
}

static bool is_right(const uint8_t *at, size_t bytes, uint8_t seed)
{
    for (size_t i = 0; i < bytes; i++) {
        if (at[i] != (uint8_t)(seed + i * 7 + (i >> 8)))
            return false;
    }
    return true;
}

static void on_signal(int number)
{
    (void)number;
}

static void recv_time(const struct wait *wait, uint8_t *area)
{
    struct timeval slow = {0, SLOW_MS * 1000};
    struct timespec from, to;
    EXPECT(setsockopt(wait->ours, SOL_SOCKET, SO_RCVTIMEO, &slow, sizeof(slow)) == 0);
    clock_gettime(CLOCK_MONOTONIC, &from);
    EXPECT(recv(wait->ours, area, BYTES, 0) == -1 && errno == EAGAIN);
    clock_gettime(CLOCK_MONOTONIC, &to);
    int64_t took_ms = (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000;
    EXPECT(took_ms >= SLOW_MS - 20);
}

static void wait_read(const struct wait *wait, uint8_t *area)
{
    uint64_t value;
    ssize_t got = 0;
    switch (wait->kind) {
    case RECV:
        got = recv(wait->ours, area, BYTES, 0);
        break;
    case READ_SOCKET:
        got = read(wait->ours, area, BYTES);
        break;
    case READ_PIPE:
        got = read(wait->ours, area, SMALL);
        break;
    case READ_EVENT:
        EXPECT(read(wait->ours, &value, sizeof(value)) == 8 && value == wait->seed + 1u);
        return;
    case RECV_ALL:
        EXPECT(recv(wait->ours, area, BYTES, MSG_WAITALL) == BYTES);
        got = BYTES;
        break;
    case RECV_LEAST:
        got = recv(wait->ours, area, BYTES, 0);
        EXPECT(got >= LEAST);
        break;
    case RECV_INTERRUPTED:
        EXPECT(recv(wait->ours, area, BYTES, 0) == -1 && errno == EINTR);
        return;
    case ALL_INTERRUPTED:
        got = recv(wait->ours, area, BYTES, MSG_WAITALL);
        EXPECT(got == FIRST);
        break;
    default:
        recv_time(wait, area);
        return;
    }
    EXPECT(got >= (ssize_t)FIRST && is_right(area, (size_t)got, wait->seed));
}

static void *wait_main(void *argument)
{
    struct wait *wait = argument;
    uint8_t *area = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(area != MAP_FAILED);
    fill(area, BYTES, wait->kind >= SEND ? wait->seed : 0);
    if (wait->kind == SEND)
        EXPECT(send(wait->ours, area, BYTES, 0) == BYTES);
    else if (wait->kind == WRITE_SOCKET)
        EXPECT(write(wait->ours, area, BYTES) == BYTES);
    else if (wait->kind == WRITE_PIPE)
        EXPECT(write(wait->ours, area, SMALL) == SMALL);
    else
        wait_read(wait, area);
    atomic_store(&wait->done, true);
    EXPECT(munmap(area, BYTES) == 0);
    return NULL;
}

/* Until nothing more fits. */
static size_t stuff(int fd)
{
    static const char nothing[4096];
    size_t bytes = 0;
    ssize_t n;
    EXPECT(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    while ((n = write(fd, nothing, sizeof(nothing))) > 0)
        bytes += (size_t)n;
    EXPECT(n == -1 && errno == EAGAIN && fcntl(fd, F_SETFL, 0) == 0);
    return bytes;
}

static void wait_start(struct wait *wait, int index)
{
    int ends[2], least = LEAST;
    *wait = (struct wait){.kind = (enum kind)(index % KINDS), .seed = (uint8_t)index};
    if (wait->kind == READ_EVENT)
        ends[0] = ends[1] = eventfd(0, 0);
    else if (wait->kind == READ_PIPE || wait->kind == WRITE_PIPE)
        EXPECT(pipe(ends) == 0);
    else
        EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    wait->ours = ends[wait->kind == WRITE_PIPE];
    wait->theirs = ends[wait->kind != WRITE_PIPE];
    if (wait->kind == RECV_LEAST)
        EXPECT(setsockopt(wait->ours, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof(least)) == 0);
    if (wait->kind >= SEND)
        wait->filled = stuff(wait->ours);
    EXPECT(pthread_create(&wait->thread, NULL, wait_main, wait) == 0);
}

/* What stood in the way, then what was waiting. */
static void drain(const struct wait *wait, uint8_t *area)
{
    size_t bytes = wait->kind == WRITE_PIPE ? SMALL : BYTES, got = 0;
    for (size_t left = wait->filled; left;) {
        ssize_t n = read(wait->theirs, area, left < BYTES ? left : BYTES);
        EXPECT(n > 0);
        left -= (size_t)n;
    }
    while (got < bytes) {
        ssize_t n = read(wait->theirs, area + got, bytes - got);
        EXPECT(n > 0);
        got += (size_t)n;
    }
    EXPECT(is_right(area, bytes, wait->seed));
}

/* All wait, and whoever does not goes on. */
static void file_round(uint8_t *area)
{
    int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    EXPECT(fd >= 0);
    fill(area, BYTES, 1);
    EXPECT(pwrite(fd, area, BYTES, 0) == BYTES);
    memset(area, 0, BYTES);
    EXPECT(pread(fd, area, BYTES, 0) == BYTES && is_right(area, BYTES, 1));
    EXPECT(close(fd) == 0);
}

static void first_part(const struct wait *wait, uint8_t *area)
{
    uint64_t value = wait->seed + 1u;
    fill(area, BYTES, wait->seed);
    if (wait->kind >= SEND)
        drain(wait, area);
    else if (wait->kind == READ_EVENT)
        EXPECT(write(wait->theirs, &value, sizeof(value)) == 8);
    else if (wait->kind != RECV_TIME && wait->kind != RECV_INTERRUPTED)
        EXPECT(write(wait->theirs, area, FIRST) == FIRST);
}

static void second_part(const struct wait *wait, uint8_t *area)
{
    fill(area, BYTES, wait->seed);
    if (wait->kind == RECV_ALL || wait->kind == RECV_LEAST)
        EXPECT(write(wait->theirs, area + FIRST, BYTES - FIRST) == BYTES - FIRST);
    if (wait->kind == RECV_INTERRUPTED || wait->kind == ALL_INTERRUPTED)
        EXPECT(pthread_kill(wait->thread, SIGUSR1) == 0);
}

static bool is_two_parts(const struct wait *wait)
{
    return wait->kind == RECV_ALL || wait->kind == RECV_LEAST || wait->kind == RECV_INTERRUPTED ||
           wait->kind == ALL_INTERRUPTED;
}

int main(int argc, char **argv)
{
    static struct wait waits[512];
    static uint8_t area[BYTES];
    struct sigaction action = {.sa_handler = on_signal}; /* without SA_RESTART */
    int count = argc > 1 ? atoi(argv[1]) : 48;
    EXPECT(count > 0 && count <= 512 && sigaction(SIGUSR1, &action, NULL) == 0);
    for (int i = 0; i < count; i++)
        wait_start(&waits[i], i);
    usleep(1000000); /* all of them wait by then */
    file_round(area);
    for (int i = 0; i < count; i++)
        EXPECT(waits[i].kind == RECV_TIME || !atomic_load(&waits[i].done));
    for (int i = 0; i < count; i++)
        first_part(&waits[i], area);
    usleep(200000);
    for (int i = 0; i < count; i++)
        EXPECT(!is_two_parts(&waits[i]) || !atomic_load(&waits[i].done));
    for (int i = 0; i < count; i++)
        second_part(&waits[i], area);
    for (int i = 0; i < count; i++) {
        EXPECT(pthread_join(waits[i].thread, NULL) == 0);
        EXPECT(close(waits[i].ours) == 0);
        EXPECT(waits[i].kind == READ_EVENT || close(waits[i].theirs) == 0);
    }
    return guest_passed("blocked_io");
}
