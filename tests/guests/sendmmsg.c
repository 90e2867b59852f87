/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sendmmsg tells how many messages were sent before one was not, or not in full, and why not only
 * if none was; each has its length noted; a broken stream raises SIGPIPE.
 */
#include "interrupt.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define MANY  1030 /* more than Linux takes at a time: 1024 */
#define PAGE  4096
#define LARGE (1 << 20)

static struct mmsghdr messages[MANY];
static struct iovec pieces[MANY][2];
static int pair[2];
static atomic_int signals;

static void on_signal(int number)
{
    (void)number;
    atomic_fetch_add(&signals, 1);
}

/* Each message is "head" and a byte of its own, in pages that may have to be fetched. */
static void messages_make(char *area)
{
    for (int i = 0; i < MANY; i++) {
        area[(size_t)i * PAGE] = (char)(i % 100);
        pieces[i][0] = (struct iovec){"head", 4};
        pieces[i][1] = (struct iovec){area + (size_t)i * PAGE, 1};
        messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = pieces[i], .msg_iovlen = 2}};
    }
}

static void pair_make(int kind)
{
    EXPECT(socketpair(AF_UNIX, kind, 0, pair) == 0);
}

static void pair_close(void)
{
    EXPECT(close(pair[0]) == 0 && close(pair[1]) == 0);
}

static void expect_received(int from, int count)
{
    char text[16];
    for (int i = from; i < from + count; i++) {
        EXPECT(messages[i].msg_len == 5);
        EXPECT(recv(pair[1], text, sizeof(text), MSG_DONTWAIT) == 5);
        EXPECT(memcmp(text, "head", 4) == 0 && text[4] == (char)(i % 100));
    }
}

static void datagrams(void)
{
    void *base = messages[2].msg_hdr.msg_iov;
    char byte;
    pair_make(SOCK_DGRAM);
    EXPECT(sendmmsg(pair[0], messages, 5, 0) == 5);
    expect_received(0, 5);
    EXPECT(sendmmsg(pair[0], messages, 0, 0) == 0);
    messages[2].msg_hdr.msg_iov = NULL;
    EXPECT(sendmmsg(pair[0], messages, 5, 0) == 2);
    EXPECT(sendmmsg(pair[0], messages + 2, 3, 0) == -1 && errno == EFAULT);
    messages[2].msg_hdr.msg_iov = base;
    expect_received(0, 2);
    int count = sendmmsg(pair[0], messages, MANY, MSG_DONTWAIT);
    EXPECT(count > 0 && count < MANY);
    EXPECT(sendmmsg(pair[0], messages, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
    expect_received(0, count);
    EXPECT(recv(pair[1], &byte, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
    pair_close();
}

static void refused(void)
{
    int ends[2];
    EXPECT(pipe(ends) == 0);
    EXPECT(sendmmsg(ends[1], messages, 1, 0) == -1 && errno == ENOTSOCK);
    EXPECT(close(ends[0]) == 0 && close(ends[1]) == 0);
    EXPECT(sendmmsg(ends[1], messages, 1, 0) == -1 && errno == EBADF);
}

static void streams(void)
{
    static char text[MANY * 5];
    char *large = mmap(NULL, LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct iovec whole = {large, LARGE};
    struct mmsghdr two[2] = {{.msg_hdr = {.msg_iov = &whole, .msg_iovlen = 1}}};
    EXPECT(large != MAP_FAILED);
    two[1] = two[0];
    pair_make(SOCK_STREAM);
    EXPECT(sendmmsg(pair[0], messages, MANY, MSG_DONTWAIT) <= 1024);
    while (recv(pair[1], text, sizeof(text), MSG_DONTWAIT) > 0)
        ;
    EXPECT(sendmmsg(pair[0], two, 2, MSG_DONTWAIT) == 1);
    EXPECT(two[0].msg_len > 0 && two[0].msg_len < LARGE && two[1].msg_len == 0);
    pair_close();
    EXPECT(munmap(large, LARGE) == 0);
}

static void broken(void)
{
    const struct sigaction count = {.sa_handler = on_signal};
    EXPECT(sigaction(SIGPIPE, &count, NULL) == 0);
    pair_make(SOCK_STREAM);
    EXPECT(close(pair[1]) == 0);
    EXPECT(sendmmsg(pair[0], messages, 3, MSG_NOSIGNAL) == -1 && errno == EPIPE);
    EXPECT(atomic_load(&signals) == 0);
    EXPECT(sendmmsg(pair[0], messages, 3, 0) == -1 && errno == EPIPE);
    EXPECT(atomic_load(&signals) == 1 && close(pair[0]) == 0);
}

/* What was sent counts; without any, it is the signal's turn. */
static void interrupted(void)
{
    const struct sigaction plain = {.sa_handler = on_signal};
    pthread_t self = pthread_self(), thread;
    EXPECT(sigaction(SIGUSR1, &plain, NULL) == 0);
    pair_make(SOCK_DGRAM);
    EXPECT(pthread_create(&thread, NULL, interrupt, &self) == 0);
    int count = sendmmsg(pair[0], messages, MANY, 0);
    EXPECT(count > 0 && count < MANY && pthread_join(thread, NULL) == 0);
    EXPECT(pthread_create(&thread, NULL, interrupt, &self) == 0);
    EXPECT(sendmmsg(pair[0], messages, MANY, 0) == -1 && errno == EINTR);
    EXPECT(pthread_join(thread, NULL) == 0);
    expect_received(0, count);
    pair_close();
}

int main(void)
{
    char *area =
        mmap(NULL, (size_t)MANY * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(area != MAP_FAILED);
    messages_make(area);
    datagrams();
    refused();
    streams();
    broken();
    interrupted();
    return guest_passed("sendmmsg");
}
