/* SPDX-License-Identifier: Apache-2.0 */
/*
 * recvmmsg tells how many messages came before one did not, each with its length and sender; what
 * went wrong after the first is the next call's to tell. With an argument, a UDP port: over the
 * network, too.
 */
#include "interrupt.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define MANY 100
#define PAGE 4096

static struct mmsghdr messages[MANY];
static struct iovec pieces[MANY][2];
static char heads[MANY][4];
static char *area;
static int pair[2];

/* Each is received into four bytes and a page that may have to be fetched. */
static void messages_make(void)
{
    for (int i = 0; i < MANY; i++) {
        pieces[i][0] = (struct iovec){heads[i], sizeof(heads[i])};
        pieces[i][1] = (struct iovec){area + (size_t)i * PAGE, PAGE};
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

/* Message i is "head" and i + 1 times the same letter. */
static void send_some(int count)
{
    char text[4 + MANY] = "head";
    for (int i = 0; i < count; i++) {
        memset(text + 4, 'a' + i % 26, (size_t)i + 1);
        EXPECT(send(pair[0], text, (size_t)i + 5, 0) == i + 5);
    }
}

static void expect_received(int count)
{
    for (int i = 0; i < count; i++) {
        EXPECT(messages[i].msg_len == (unsigned)i + 5);
        EXPECT(memcmp(heads[i], "head", 4) == 0);
        for (int k = 0; k <= i; k++)
            EXPECT(area[(size_t)i * PAGE + (size_t)k] == 'a' + i % 26);
    }
    EXPECT(madvise(area, (size_t)MANY * PAGE, MADV_DONTNEED) == 0);
    memset(heads, 0, sizeof(heads));
}

static void datagrams(void)
{
    void *base = messages[2].msg_hdr.msg_iov;
    char byte;
    pair_make(SOCK_DGRAM);
    send_some(5);
    EXPECT(recvmmsg(pair[1], messages, 5, 0, NULL) == 5);
    expect_received(5);
    EXPECT(recvmmsg(pair[1], messages, 0, 0, NULL) == 0);
    EXPECT(recvmmsg(pair[1], messages, 5, MSG_DONTWAIT, NULL) == -1 && errno == EAGAIN);
    send_some(3);
    EXPECT(recvmmsg(pair[1], messages, 5, MSG_DONTWAIT, NULL) == 3);
    expect_received(3);
    send_some(3);
    EXPECT(recvmmsg(pair[1], messages, 5, MSG_WAITFORONE, NULL) == 3);
    expect_received(3);
    EXPECT(fcntl(pair[1], F_SETFL, O_NONBLOCK) == 0);
    send_some(2);
    EXPECT(recvmmsg(pair[1], messages, 5, 0, NULL) == 2);
    expect_received(2);
    EXPECT(recvmmsg(pair[1], messages, 5, 0, NULL) == -1 && errno == EAGAIN);
    /* The error is told by the next call, whatever there is to receive, and once. */
    messages[2].msg_hdr.msg_iov = NULL;
    send_some(2);
    EXPECT(send(pair[0], "3", 1, 0) == 1 && send(pair[0], "4", 1, 0) == 1);
    EXPECT(recvmmsg(pair[1], messages, 5, 0, NULL) == 2);
    expect_received(2);
    messages[2].msg_hdr.msg_iov = base;
    EXPECT(recvmmsg(pair[1], messages, 5, 0, NULL) == -1 && errno == EFAULT);
    while (recv(pair[1], &byte, 1, 0) == 1)
        continue;
    pair_close();
}

static void refused(void)
{
    struct timespec odd = {1, 1000000000};
    struct timespec *nowhere = (struct timespec *)(void *)8;
    int ends[2];
    EXPECT(pipe(ends) == 0);
    EXPECT(recvmmsg(ends[0], messages, 1, 0, NULL) == -1 && errno == ENOTSOCK);
    EXPECT(recvmmsg(ends[0], messages, 1, 0, &odd) == -1 && errno == EINVAL);
    EXPECT(recvmmsg(ends[0], messages, 1, 0, nowhere) == -1 && errno == EFAULT);
    EXPECT(close(ends[0]) == 0 && close(ends[1]) == 0);
    EXPECT(recvmmsg(ends[0], messages, 1, 0, NULL) == -1 && errno == EBADF);
}

/* Many at a time, and of a stream what there is: at its end that is nothing, of each. */
static void streams(void)
{
    pair_make(SOCK_SEQPACKET);
    send_some(MANY);
    EXPECT(recvmmsg(pair[1], messages, MANY, MSG_DONTWAIT, NULL) == MANY);
    expect_received(MANY);
    pair_close();
    pair_make(SOCK_STREAM);
    send_some(1);
    EXPECT(recvmmsg(pair[1], messages, 2, MSG_WAITFORONE, NULL) == 1);
    expect_received(1);
    EXPECT(close(pair[0]) == 0);
    EXPECT(recvmmsg(pair[1], messages, 3, 0, NULL) == 3);
    for (int i = 0; i < 3; i++)
        EXPECT(messages[i].msg_len == 0);
    EXPECT(close(pair[1]) == 0);
}

static void *send_slowly(void *argument)
{
    for (int i = 0; i < 3; i++) {
        usleep(200000);
        EXPECT(send(pair[0], "head1", 5, 0) == 5);
    }
    return argument;
}

/* It is looked at after each message, and what is left of it told. */
static void timeouts(void)
{
    struct timespec none = {0, 0}, soon = {0, 50000000}, enough = {1000, 0};
    pthread_t thread;
    pair_make(SOCK_DGRAM);
    send_some(5);
    EXPECT(recvmmsg(pair[1], messages, 2, 0, &enough) == 2);
    EXPECT(enough.tv_sec > 0 && enough.tv_sec < 1000);
    EXPECT(recvmmsg(pair[1], messages, 3, 0, &none) == 1);
    EXPECT(none.tv_sec == 0 && none.tv_nsec == 0);
    EXPECT(recvmmsg(pair[1], messages, 3, MSG_DONTWAIT, NULL) == 2);
    EXPECT(pthread_create(&thread, NULL, send_slowly, NULL) == 0);
    EXPECT(recvmmsg(pair[1], messages, 3, 0, &soon) == 1 && soon.tv_sec == 0 && soon.tv_nsec == 0);
    EXPECT(recvmmsg(pair[1], messages, 2, 0, NULL) == 2);
    EXPECT(pthread_join(thread, NULL) == 0);
    pair_close();
}

static void on_signal(int number)
{
    (void)number;
}

/* What was received counts; without any, it is the signal's turn. */
static void interrupted(void)
{
    const struct sigaction plain = {.sa_handler = on_signal};
    pthread_t self = pthread_self(), thread;
    EXPECT(sigaction(SIGUSR1, &plain, NULL) == 0);
    pair_make(SOCK_DGRAM);
    EXPECT(pthread_create(&thread, NULL, interrupt, &self) == 0);
    EXPECT(recvmmsg(pair[1], messages, 5, 0, NULL) == -1 && errno == EINTR);
    EXPECT(pthread_join(thread, NULL) == 0);
    send_some(2);
    EXPECT(pthread_create(&thread, NULL, interrupt, &self) == 0);
    EXPECT(recvmmsg(pair[1], messages, 5, 0, NULL) == 2);
    expect_received(2);
    EXPECT(pthread_join(thread, NULL) == 0);
    pair_close();
}

static void senders_are_told(unsigned short port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)}, own[2], from[4];
    int server = socket(AF_INET, SOCK_DGRAM, 0), clients[2];
    socklen_t bytes = sizeof(own[0]);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT(bind(server, (struct sockaddr *)&to, sizeof(to)) == 0);
    for (int i = 0; i < 4; i++) {
        messages[i].msg_hdr.msg_name = &from[i];
        messages[i].msg_hdr.msg_namelen = sizeof(from[i]);
        if (i < 2)
            EXPECT((clients[i] = socket(AF_INET, SOCK_DGRAM, 0)) >= 0);
        pair[0] = clients[i % 2];
        EXPECT(connect(pair[0], (struct sockaddr *)&to, sizeof(to)) == 0);
        EXPECT(getsockname(pair[0], (struct sockaddr *)&own[i % 2], &bytes) == 0);
        EXPECT(send(pair[0], "head", (size_t)i + 1, 0) == i + 1);
    }
    EXPECT(recvmmsg(server, messages, 4, 0, NULL) == 4);
    for (int i = 0; i < 4; i++) {
        EXPECT(messages[i].msg_len == (unsigned)i + 1 &&
               memcmp(heads[i], "head", (size_t)i + 1) == 0);
        EXPECT(messages[i].msg_hdr.msg_namelen == sizeof(from[i]));
        EXPECT(from[i].sin_port == own[i % 2].sin_port);
    }
    EXPECT(close(clients[0]) == 0 && close(clients[1]) == 0 && close(server) == 0);
}

int main(int argc, char **argv)
{
    area =
        mmap(NULL, (size_t)MANY * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(area != MAP_FAILED);
    messages_make();
    datagrams();
    refused();
    streams();
    timeouts();
    interrupted();
    if (argc > 1)
        senders_are_told((unsigned short)atoi(argv[1]));
    return guest_passed("recvmmsg");
}
