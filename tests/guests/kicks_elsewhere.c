/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As signals_elsewhere, for calls that take several steps: between two descriptors, of many
 * messages, for a least number of bytes, and for bytes that are only looked at. With a port over
 * TCP, whose sockets wait where others do not.
 */
#include "interrupt.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#define COUNT 60
#define LARGE (1 << 20)
#define SMALL 65536
#define LONG  (16 << 20)

static char large[LARGE];
static atomic_int ticks, own, over, overwritten;
static int pair[2];
static int tcp; /* port, or 0 */

static void on_tick(int number)
{
    (void)number;
    atomic_fetch_add(&ticks, 1);
}

static void on_own(int number)
{
    (void)number;
    atomic_fetch_add(&own, 1);
}

/* Has SIGUSR2, sent to it by a timer every 2 ms, and sleeps. */
static void *be_ticked(void *argument)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR2};
    const struct itimerspec often = {{0, 2000000}, {0, 2000000}};
    timer_t timer;
    event._sigev_un._tid = gettid();
    EXPECT(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    EXPECT(timer_settime(timer, 0, &often, NULL) == 0);
    while (!atomic_load(&over))
        usleep(1000);
    EXPECT(timer_delete(timer) == 0);
    return argument;
}

static void connected(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)tcp),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t bytes = sizeof(address);
    int listener, yes = 1;
    if (!tcp) {
        EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        return;
    }
    listener = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) == 0);
    EXPECT(bind(listener, (struct sockaddr *)&address, bytes) == 0 && listen(listener, 1) == 0);
    pair[0] = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT(connect(pair[0], (struct sockaddr *)&address, bytes) == 0);
    pair[1] = accept(listener, NULL, NULL);
    EXPECT(pair[1] >= 0 && close(listener) == 0);
}

static void disconnected(void)
{
    EXPECT(close(pair[0]) == 0 && close(pair[1]) == 0);
}

/* "abc..." one by one: what arrives can be told from what was left out. */
static void *send_bytes(void *argument)
{
    for (int i = 0; i < COUNT; i++) {
        char byte = (char)('A' + i);
        usleep(3000);
        EXPECT(send(pair[0], &byte, 1, 0) == 1);
    }
    return argument;
}

static void expect_bytes(const char *text, int from, int count)
{
    for (int i = 0; i < count; i++)
        EXPECT(text[i] == 'A' + from + i);
}

/* Until the end; *argument is the sum of all bytes. */
static void *read_slowly(void *argument)
{
    static unsigned char text[LARGE / 64];
    size_t *sum = argument;
    for (ssize_t n = 1; n > 0;) {
        usleep(1000);
        n = read(pair[1], text, sizeof(text));
        EXPECT(n >= 0);
        for (ssize_t i = 0; i < n; i++)
            *sum += text[i] + 1u;
    }
    return argument;
}

static pthread_t beside(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, run, argument) == 0);
    return thread;
}

static size_t sum_of_large(size_t bytes)
{
    size_t sum = 0;
    for (size_t i = 0; i < bytes; i++)
        sum += (unsigned char)large[i] + 1u;
    return sum;
}

static void between_descriptors(void)
{
    int file = memfd_create("large", 0), ends[2];
    off_t at = 1000;
    size_t sum = 0;
    pthread_t thread;
    EXPECT(file >= 0 && write(file, large, LARGE) == LARGE);
    connected();
    thread = beside(read_slowly, &sum);
    EXPECT(sendfile(pair[0], file, &at, LARGE) == LARGE - 1000 && at == LARGE);
    EXPECT(lseek(file, 0, SEEK_SET) == 0);
    EXPECT(sendfile(pair[0], file, NULL, 1000) == 1000 && lseek(file, 0, SEEK_CUR) == 1000);
    EXPECT(shutdown(pair[0], SHUT_WR) == 0 && pthread_join(thread, NULL) == 0);
    EXPECT(sum == sum_of_large(LARGE));
    disconnected();

    EXPECT(pipe(ends) == 0 && write(ends[1], large, SMALL) == SMALL);
    connected();
    EXPECT(fcntl(pair[0], F_SETFL, O_NONBLOCK) == 0);
    sum = 0;
    while (write(pair[0], large, 4096) == 4096)
        sum += sum_of_large(4096);
    EXPECT(fcntl(pair[0], F_SETFL, 0) == 0);
    sum = 0;
    thread = beside(read_slowly, &sum);
    size_t moved = 0;
    ssize_t n = splice(ends[0], NULL, pair[0], NULL, 2 * SMALL, 0);
    EXPECT(n > 0); /* what the pipe held, but for a host that tells of each buffer */
    moved = (size_t)n;
    EXPECT(moved == SMALL);
    EXPECT(shutdown(pair[0], SHUT_WR) == 0 && pthread_join(thread, NULL) == 0);
    disconnected();
    EXPECT(close(ends[0]) == 0 && close(ends[1]) == 0 && close(file) == 0);
}

/* From file to file, which waits for nobody: all of it, though the host's own copying is cut. */
static void between_files(void)
{
    int from = memfd_create("from", 0), to = memfd_create("to", 0);
    off_t at, in, out;
    EXPECT(from >= 0 && to >= 0 && ftruncate(from, LONG) == 0);
    for (int i = 0; i < 5; i++) {
        at = in = out = 4096;
        EXPECT(lseek(to, 0, SEEK_SET) == 0);
        EXPECT(sendfile(to, from, &at, LONG) == LONG - 4096 && at == LONG);
        EXPECT(lseek(to, 0, SEEK_CUR) == LONG - 4096);
        EXPECT(copy_file_range(from, &in, to, &out, LONG, 0) == LONG - 4096);
        EXPECT(in == LONG && out == LONG && lseek(from, 0, SEEK_CUR) == 0);
    }
    EXPECT(close(from) == 0 && close(to) == 0);
}

static void *overwrite(void *argument)
{
    _Atomic off_t *at = argument;
    while (!atomic_load(&overwritten))
        atomic_store(at, 0);
    return NULL;
}

/* What the program writes where it told the offset is nothing to a call that has begun. */
static void offset_is_read_once(void)
{
    static _Atomic off_t at;
    int file = memfd_create("large", 0);
    char piece[4096];
    size_t sum = 0, expected = 0;
    pthread_t thread, other;
    EXPECT(file >= 0);
    for (int i = 0; i < LARGE / 4096; i++) { /* each other than any before it */
        memset(piece, i, sizeof(piece));
        EXPECT(write(file, piece, sizeof(piece)) == sizeof(piece));
        expected += sizeof(piece) * (size_t)(i % 256 + 1);
    }
    connected();
    thread = beside(read_slowly, &sum);
    other = beside(overwrite, &at);
    EXPECT(sendfile(pair[0], file, (off_t *)&at, LARGE) == LARGE);
    atomic_store(&overwritten, 1);
    EXPECT(pthread_join(other, NULL) == 0);
    EXPECT(shutdown(pair[0], SHUT_WR) == 0 && pthread_join(thread, NULL) == 0);
    EXPECT(sum == expected);
    EXPECT(close(file) == 0);
    disconnected();
}

static void *receive_slowly(void *argument)
{
    static char text[4096];
    for (int i = 0; i < COUNT; i++) {
        usleep(3000);
        EXPECT(recv(pair[1], text, sizeof(text), 0) == 100 + i);
    }
    return argument;
}

static void many_messages(void)
{
    static struct mmsghdr messages[COUNT];
    static struct iovec pieces[COUNT];
    size_t sum = 0, expected = 0;
    pthread_t thread;
    int most = 4608;
    for (int i = 0; i < COUNT; i++) {
        pieces[i] = (struct iovec){large, 100 + (size_t)i};
        messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &pieces[i], .msg_iovlen = 1}};
    }
    EXPECT(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    EXPECT(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &most, sizeof(most)) == 0);
    thread = beside(receive_slowly, NULL);
    EXPECT(sendmmsg(pair[0], messages, COUNT, 0) == COUNT && pthread_join(thread, NULL) == 0);
    for (int i = 0; i < COUNT; i++)
        EXPECT(messages[i].msg_len == 100 + (unsigned)i);
    disconnected();

    connected();
    for (int i = 0; i < 4; i++) {
        pieces[i] = (struct iovec){large, LARGE};
        expected += sum_of_large(LARGE);
    }
    thread = beside(read_slowly, &sum);
    EXPECT(sendmmsg(pair[0], messages, 4, 0) == 4);
    for (int i = 0; i < 4; i++)
        EXPECT(messages[i].msg_len == LARGE);
    EXPECT(shutdown(pair[0], SHUT_WR) == 0 && pthread_join(thread, NULL) == 0 && sum == expected);
    disconnected();

    static char text[3][COUNT];
    connected();
    for (int i = 0; i < 3; i++)
        pieces[i] = (struct iovec){text[i], COUNT / 3};
    thread = beside(send_bytes, NULL);
    EXPECT(recvmmsg(pair[1], messages, 3, MSG_WAITALL, NULL) == 3);
    for (int i = 0; i < 3; i++) {
        EXPECT(messages[i].msg_len == COUNT / 3);
        expect_bytes(text[i], i * COUNT / 3, COUNT / 3);
    }
    EXPECT(pthread_join(thread, NULL) == 0);
    disconnected();
}

static void at_least(bool by_read, int flags)
{
    char text[COUNT + 1];
    int least = COUNT - 5;
    pthread_t thread;
    connected();
    EXPECT(setsockopt(pair[1], SOL_SOCKET, SO_RCVLOWAT, &least, sizeof(least)) == 0);
    thread = beside(send_bytes, NULL);
    ssize_t n =
        by_read ? read(pair[1], text, sizeof(text)) : recv(pair[1], text, sizeof(text), flags);
    EXPECT(n > 0 && n <= COUNT && (n >= least || (flags & MSG_PEEK && !tcp)));
    expect_bytes(text, 0, (int)n);
    EXPECT(pthread_join(thread, NULL) == 0);
    disconnected();
}

/* The peek of a Unix socket waits for the first bytes alone. */
static void only_looked_at(void)
{
    char text[COUNT];
    pthread_t thread;
    connected();
    thread = beside(send_bytes, NULL);
    ssize_t n = recv(pair[1], text, COUNT, MSG_PEEK | MSG_WAITALL);
    EXPECT(tcp ? n == COUNT : n > 0);
    expect_bytes(text, 0, (int)n);
    EXPECT(recv(pair[1], text, COUNT, MSG_WAITALL) == COUNT);
    expect_bytes(text, 0, COUNT);
    EXPECT(pthread_join(thread, NULL) == 0);
    disconnected();
}

/* Its own handler ends each with what there is. */
static void interrupted(void)
{
    pthread_t self = pthread_self(), thread;
    static char text[2][COUNT];
    struct iovec pieces[2] = {{text[0], 2}, {text[1], COUNT}};
    struct mmsghdr messages[2] = {{.msg_hdr = {.msg_iov = &pieces[0], .msg_iovlen = 1}},
                                  {.msg_hdr = {.msg_iov = &pieces[1], .msg_iovlen = 1}}};
    connected();
    EXPECT(send(pair[0], "12345", 5, 0) == 5);
    thread = beside(interrupt, &self);
    EXPECT(recvmmsg(pair[1], messages, 2, MSG_WAITALL, NULL) == 2);
    EXPECT(messages[0].msg_len == 2 && messages[1].msg_len == 3 && !memcmp(text[1], "345", 3));
    EXPECT(pthread_join(thread, NULL) == 0 && atomic_load(&own) == 1);
    int least = COUNT;
    EXPECT(setsockopt(pair[1], SOL_SOCKET, SO_RCVLOWAT, &least, sizeof(least)) == 0);
    EXPECT(send(pair[0], "678", 3, 0) == 3);
    thread = beside(interrupt, &self);
    EXPECT(read(pair[1], text, COUNT) == 3 && atomic_load(&own) == 2);
    EXPECT(pthread_join(thread, NULL) == 0);
    disconnected();
}

int main(int argc, char **argv)
{
    const struct sigaction tick = {.sa_handler = on_tick}, plain = {.sa_handler = on_own};
    pthread_t ticked;
    tcp = argc > 1 ? atoi(argv[1]) : 0;
    for (size_t i = 0; i < LARGE; i++)
        large[i] = (char)(i * 7 >> 3);
    EXPECT(sigaction(SIGUSR2, &tick, NULL) == 0 && sigaction(SIGUSR1, &plain, NULL) == 0);
    ticked = beside(be_ticked, NULL);
    between_descriptors();
    between_files();
    offset_is_read_once();
    many_messages();
    at_least(false, 0);
    at_least(true, 0);
    at_least(false, MSG_PEEK);
    only_looked_at();
    interrupted();
    EXPECT(atomic_load(&ticks) > 0);
    atomic_store(&over, 1);
    EXPECT(pthread_join(ticked, NULL) == 0);
    return guest_passed("kicks_elsewhere");
}
