/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A call that need not wait does what it is for, whenever a signal comes: EINTR is for one that
 * would have slept. Signals come as fast as they are handled, by a handler without SA_RESTART.
 * With an argument: the calls of that number alone.
 */
#include "guest.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>

#define ROUNDS 200
#define PAGE   4096
#define PIECES 100 /* in as many pages: more than are pinned at a time */
#define WIDE   16384

static atomic_int handled, stop;
static pthread_t pestered;
static char *sparse;
static struct iovec pieces[PIECES];

static void on_signal(int number)
{
    (void)number;
    atomic_fetch_add(&handled, 1);
}

static void *pester(void *argument)
{
    while (!atomic_load(&stop)) {
        int before = atomic_load(&handled);
        EXPECT(pthread_kill(pestered, SIGUSR1) == 0);
        while (atomic_load(&handled) == before && !atomic_load(&stop))
            __builtin_ia32_pause();
    }
    return argument;
}

static void messages(int i)
{
    struct msghdr header = {.msg_iov = pieces, .msg_iovlen = PIECES};
    static int pair[2];
    if (i == 0)
        EXPECT(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    EXPECT(sendmsg(pair[0], &header, 0) == PIECES);
    EXPECT(recvmsg(pair[1], &header, MSG_PEEK) == PIECES);
    EXPECT(recvmsg(pair[1], &header, 0) == PIECES);
    EXPECT(recvmsg(pair[1], &header, MSG_DONTWAIT) == -1 && errno == EAGAIN);
}

/* All that is asked for is there, or a part, which is then what a signal leaves of it. */
static void whole_messages(int i)
{
    struct iovec piece = {sparse, 8};
    struct msghdr header = {.msg_iov = &piece, .msg_iovlen = 1};
    static int pair[2];
    const int least = 4;
    if (i == 0) {
        EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        EXPECT(setsockopt(pair[1], SOL_SOCKET, SO_RCVLOWAT, &least, sizeof(least)) == 0);
    }
    EXPECT(send(pair[0], "12345678", 8, 0) == 8);
    EXPECT(recvmsg(pair[1], &header, MSG_WAITALL) == 8);
    EXPECT(send(pair[0], "12345678", 8, 0) == 8);
    EXPECT(recv(pair[1], sparse, 16, 0) == 8);
    EXPECT(send(pair[0], "12345678", 8, 0) == 8);
    EXPECT(read(pair[1], sparse, 16) == 8);
    EXPECT(send(pair[0], "1234", 4, 0) == 4);
    EXPECT(recvmsg(pair[1], &header, MSG_WAITALL) == 4);
}

static void accepts(int i)
{
    static const struct sockaddr_un address = {AF_UNIX, "unwaited.socket"};
    static int listener;
    int connected, accepted;
    if (i == 0) {
        EXPECT((listener = socket(AF_UNIX, SOCK_STREAM, 0)) >= 0);
        EXPECT(bind(listener, (const struct sockaddr *)&address, sizeof(address)) == 0);
        EXPECT(listen(listener, 8) == 0);
    }
    EXPECT(fcntl(listener, F_SETFL, i % 2 ? O_NONBLOCK : 0) == 0);
    EXPECT((connected = socket(AF_UNIX, SOCK_STREAM, 0)) >= 0);
    EXPECT(connect(connected, (const struct sockaddr *)&address, sizeof(address)) == 0);
    EXPECT((accepted = accept4(listener, NULL, NULL, 0)) >= 0);
    EXPECT(!(i % 2) || (accept4(listener, NULL, NULL, 0) == -1 && errno == EAGAIN));
    EXPECT(close(connected) == 0 && close(accepted) == 0);
    EXPECT(i + 1 < ROUNDS || (close(listener) == 0 && unlink(address.sun_path) == 0));
}

/* Something is ready, or nobody wants to wait. (Linux's poll and select look for signals even so.)
 */
static void readiness(int i)
{
    static int set, ends[2];
    struct epoll_event event = {.events = EPOLLIN};
    struct timespec for_long = {100, 0};
    fd_set reading;
    if (i == 0) {
        EXPECT(pipe(ends) == 0 && (set = epoll_create1(0)) >= 0);
        EXPECT(epoll_ctl(set, EPOLL_CTL_ADD, ends[0], &event) == 0);
    }
    struct pollfd ready = {.fd = ends[0], .events = POLLIN};
    EXPECT(epoll_wait(set, &event, 1, 0) == 0);
    EXPECT(write(ends[1], "x", 1) == 1);
    EXPECT(epoll_wait(set, &event, 1, -1) == 1 && epoll_wait(set, &event, 1, 100000) == 1);
    EXPECT(poll(&ready, 1, -1) == 1 && poll(&ready, 1, 0) == 1);
    EXPECT(ppoll(&ready, 1, &for_long, NULL) == 1);
    FD_ZERO(&reading);
    FD_SET(ends[0], &reading);
    EXPECT(select(ends[0] + 1, &reading, NULL, NULL, NULL) == 1);
    EXPECT(pselect(ends[0] + 1, &reading, NULL, NULL, &for_long, NULL) == 1);
    EXPECT(read(ends[0], sparse, WIDE) == 1); /* for which it looks before it reads */
}

static void descriptors(int i)
{
    static int event, timer;
    const struct itimerspec soon = {.it_value.tv_nsec = 1};
    uint64_t value = 1;
    uint32_t word = 1;
    int bytes, fifo;
    if (i == 0) {
        EXPECT((event = eventfd(0, 0)) >= 0);
        EXPECT((timer = timerfd_create(CLOCK_MONOTONIC, 0)) >= 0);
        EXPECT(mkfifo("unwaited.fifo", 0600) == 0);
    }
    EXPECT(write(event, &value, sizeof(value)) == sizeof(value));
    EXPECT(read(event, &value, sizeof(value)) == sizeof(value) && value == 1);
    struct pollfd expired = {.fd = timer, .events = POLLIN};
    EXPECT(timerfd_settime(timer, 0, &soon, NULL) == 0);
    while (poll(&expired, 1, 1) != 1)
        continue;
    EXPECT(read(timer, &value, sizeof(value)) == sizeof(value) && value == 1);
    EXPECT((fifo = open("unwaited.fifo", O_RDWR)) >= 0 && write(fifo, "x", 1) == 1);
    EXPECT(ioctl(fifo, FIONREAD, &bytes) == 0 && bytes == 1 && close(fifo) == 0);
    EXPECT((fifo = open("unwaited.fifo", O_RDONLY | O_NONBLOCK)) >= 0 && close(fifo) == 0);
    EXPECT(syscall(SYS_futex, &word, FUTEX_WAIT, 2, NULL, NULL, 0) == -1 && errno == EAGAIN);
    EXPECT(i + 1 < ROUNDS || unlink("unwaited.fifo") == 0);
}

int main(int argc, char **argv)
{
    static void (*const calls[])(int) = {messages, whole_messages, accepts, readiness, descriptors};
    const struct sigaction plain = {.sa_handler = on_signal};
    pthread_t thread;
    pestered = pthread_self();
    sparse = mmap(NULL, (size_t)PIECES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                  -1, 0);
    EXPECT(sparse != MAP_FAILED && sigaction(SIGUSR1, &plain, NULL) == 0);
    for (int i = 0; i < PIECES; i++)
        pieces[i] = (struct iovec){sparse + (size_t)i * PAGE, 1};
    EXPECT(pthread_create(&thread, NULL, pester, NULL) == 0);
    for (size_t k = 0; k < sizeof(calls) / sizeof(calls[0]); k++) {
        for (int i = 0; i < ROUNDS && (argc < 2 || (size_t)atoi(argv[1]) == k); i++)
            calls[k](i);
    }
    atomic_store(&stop, 1);
    EXPECT(pthread_join(thread, NULL) == 0);
    return guest_passed("unwaited");
}
