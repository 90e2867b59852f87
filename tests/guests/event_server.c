/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An event-driven server: `event_server PORT CONNECTIONS [edge|level] [wait|nowait]`. The first
 * byte of a connection says what it is to do with the rest:
 *
 *   e  echo, until the peer has sent its last
 *   h  read ten bytes, whatever more is there, and close
 *   s  read 1000 bytes, answer with their sum, close
 *
 * It reads in pieces of changing size, by read, recv and readv, from time to time by another thread
 * or after a look (MSG_PEEK, FIONREAD, poll), which must agree with what is read then.
 */
#include "guest.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define CONNECTIONS_MAX 256
#define EVENTS          64
#define PIECE_MAX       6000
#define HELD_MAX        (1 << 20) /* echo that its peer does not take yet */
#define SUM_BYTES       1000

struct connection {
    bool open, ended; /* ended: the peer has sent its last */
    char kind;
    uint32_t sum, bytes;
    char *held;
    size_t held_from, held_bytes;
};

static struct connection connections[CONNECTIONS_MAX];
static int epoll_fd, over;
static bool edge, waits;
static uint32_t state = 1;

static uint32_t number(void)
{
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

static void finish(int fd)
{
    struct connection *one = &connections[fd];
    free(one->held);
    *one = (struct connection){.open = false};
    EXPECT(close(fd) == 0);
    over++;
}

/* ---- reading, in every way ---- */

static ssize_t read_somehow(int fd, char *to, size_t bytes)
{
    struct iovec parts[2] = {{to, bytes / 2}, {to + bytes / 2, bytes - bytes / 2}};
    switch (number() % 8) {
    case 0:
        return readv(fd, parts, 2);
    case 1:
    case 2:
        return recv(fd, to, bytes, MSG_DONTWAIT);
    default:
        return read(fd, to, bytes);
    }
}

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int fd; /* -1: nothing to do */
    char *to;
    size_t bytes;
    ssize_t result;
    int error;
} job = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .fd = -1};

static void *helper(void *none)
{
    pthread_mutex_lock(&job.lock);
    for (;;) {
        while (job.fd < 0)
            pthread_cond_wait(&job.changed, &job.lock);
        job.result = read_somehow(job.fd, job.to, job.bytes);
        job.error = errno;
        job.fd = -1;
        pthread_cond_broadcast(&job.changed);
    }
    return none;
}

static ssize_t read_by_helper(int fd, char *to, size_t bytes)
{
    pthread_mutex_lock(&job.lock);
    job.to = to;
    job.bytes = bytes;
    job.fd = fd;
    pthread_cond_broadcast(&job.changed);
    while (job.fd >= 0)
        pthread_cond_wait(&job.changed, &job.lock);
    pthread_mutex_unlock(&job.lock);
    errno = job.error;
    return job.result;
}

/* What looks say before a read must be true of it. */
static ssize_t read_after_looks(int fd, char *to, size_t bytes)
{
    static char seen[PIECE_MAX];
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    int there = -1;
    EXPECT(ioctl(fd, FIONREAD, &there) == 0);
    EXPECT(poll(&ready, 1, 0) >= 0); /* the last look of the two: more may come in between */
    EXPECT(there == 0 || ready.revents & POLLIN);
    ssize_t looked = recv(fd, seen, bytes, MSG_PEEK | MSG_DONTWAIT);
    int error = errno;
    EXPECT(looked < 0 || (size_t)looked >= ((size_t)there < bytes ? (size_t)there : bytes));
    if (looked <= 0 && waits) { /* it might wait */
        errno = error;
        return looked;
    }
    ssize_t got = read(fd, to, bytes);
    EXPECT(looked <= 0 || (got >= looked && memcmp(seen, to, (size_t)looked) == 0));
    return got;
}

/* ---- what to do with it ---- */

/* In one of the ways that there are, each of them at any place of the stream. */
static ssize_t send_some(int fd, char *bytes, size_t count)
{
    struct iovec pieces[3] = {
        {bytes, count / 3}, {NULL, 0}, {bytes + count / 3, count - count / 3}};
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = 3};
    if (number() % 2)
        return sendmsg(fd, &message, MSG_NOSIGNAL);
    return send(fd, bytes, count, MSG_NOSIGNAL);
}

static void send_held(int fd)
{
    struct connection *one = &connections[fd];
    while (one->held_bytes) {
        ssize_t n = send_some(fd, one->held + one->held_from, one->held_bytes);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            EXPECT(errno == ECONNRESET || errno == EPIPE);
            finish(fd);
            return;
        }
        one->held_from += (size_t)n;
        one->held_bytes -= (size_t)n;
    }
    one->held_from = 0;
    if (one->ended)
        finish(fd);
}

static void watch(int operation, int fd)
{
    struct connection *one = &connections[fd];
    uint32_t events = edge ? EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
                           : (one->held_bytes < HELD_MAX / 2 && !one->ended ? EPOLLIN : 0) |
                                 (one->held_bytes ? EPOLLOUT : 0);
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t)fd << 32 | 7};
    EXPECT(epoll_ctl(epoll_fd, operation, fd, &event) == 0);
}

static void echo(int fd, const char *bytes, size_t count)
{
    struct connection *one = &connections[fd];
    if (!one->held)
        one->held = malloc(HELD_MAX);
    if (one->held_from + one->held_bytes + count > HELD_MAX) {
        memmove(one->held, one->held + one->held_from, one->held_bytes);
        one->held_from = 0;
    }
    EXPECT(one->held_bytes + count <= HELD_MAX);
    memcpy(one->held + one->held_from + one->held_bytes, bytes, count);
    one->held_bytes += count;
    send_held(fd);
}

static void take(int fd, const char *bytes, size_t count)
{
    struct connection *one = &connections[fd];
    if (!one->kind && count) {
        one->kind = *bytes++;
        count--;
    }
    if (one->kind == 'e' && count) {
        echo(fd, bytes, count);
        return;
    }
    for (size_t i = 0; i < count; i++)
        one->sum = one->sum * 31 + (uint8_t)bytes[i];
    one->bytes += (uint32_t)count;
    if (one->kind == 'h' && one->bytes >= 10)
        finish(fd);
    if (one->kind == 's' && one->bytes == SUM_BYTES) {
        char answer[32];
        int length = snprintf(answer, sizeof answer, "%u", one->sum);
        EXPECT(write(fd, answer, (size_t)length) == length);
        finish(fd);
    }
}

/* How much to ask for: the command, then never more than the connection is to read. */
static size_t piece(const struct connection *one)
{
    if (one->kind == 'h')
        return 10 - one->bytes;
    if (one->kind == 's')
        return SUM_BYTES - one->bytes;
    return one->kind ? 1 + number() % PIECE_MAX : 1;
}

/* Returns whether there may be more: edges are told once, and a short count ends one. */
static bool serve_once(int fd)
{
    struct connection *one = &connections[fd];
    static char buffer[PIECE_MAX];
    size_t bytes = piece(one);
    uint32_t how = number() % 16;
    if (how == 2) /* asks the VMM, which ends what was shown */
        EXPECT(read(fd, buffer, 0) == 0);
    ssize_t got = how == 0   ? read_by_helper(fd, buffer, bytes)
                  : how == 1 ? read_after_looks(fd, buffer, bytes)
                             : read_somehow(fd, buffer, bytes);
    if (got < 0 && errno == EAGAIN)
        return false;
    if (got < 0) {
        EXPECT(errno == ECONNRESET);
        finish(fd);
        return false;
    }
    if (got == 0) {
        one->ended = true;
        if (!one->held_bytes)
            finish(fd);
        return false;
    }
    take(fd, buffer, (size_t)got);
    return one->open && (size_t)got == bytes && one->held_bytes < HELD_MAX / 2;
}

/* last: the peer has sent its last, which a short count may come before. */
static void serve(int fd, bool last)
{
    struct connection *one = &connections[fd];
    if (one->held_bytes)
        send_held(fd);
    bool more = one->open && !one->ended && one->held_bytes < HELD_MAX / 2;
    while (more)
        more = (serve_once(fd) && edge) ||
               (last && one->open && !one->ended && one->held_bytes < HELD_MAX / 2);
    /* What was left because too much is held is told again. */
    if (one->open && (!edge || one->held_bytes))
        watch(EPOLL_CTL_MOD, fd);
}

static void accept_one(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | (waits ? 0 : SOCK_NONBLOCK));
    EXPECT(fd > 0 && fd < CONNECTIONS_MAX);
    connections[fd].open = true;
    watch(EPOLL_CTL_ADD, fd);
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN};
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pthread_t thread;

    EXPECT(argc == 5);
    edge = strcmp(argv[3], "edge") == 0;
    waits = strcmp(argv[4], "wait") == 0;
    address.sin_port = htons((uint16_t)atoi(argv[1]));
    EXPECT(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
    EXPECT(bind(listener, (struct sockaddr *)&address, sizeof address) == 0);
    EXPECT(listen(listener, CONNECTIONS_MAX) == 0);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    event.data.u64 = (uint64_t)listener << 32 | 7;
    EXPECT(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event) == 0);
    EXPECT(pthread_create(&thread, NULL, helper, NULL) == 0);
    printf("ready\n");
    fflush(stdout);
    while (over < atoi(argv[2])) {
        int count = epoll_wait(epoll_fd, events, EVENTS, 60000);
        EXPECT(count > 0);
        for (int i = 0; i < count; i++) {
            int fd = (int)(events[i].data.u64 >> 32);
            if (fd == listener)
                accept_one(listener);
            else if (connections[fd].open)
                serve(fd, edge && events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR));
        }
    }
    return guest_passed("event_server");
}
