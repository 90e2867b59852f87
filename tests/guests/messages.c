/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages are received one at a time, also into a buffer that is longer than its mapping and in
 * part not there yet, and a socket's least count is waited for.
 */
#include "guest.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define PAGE   4096
#define ROUNDS 100

static int pair[2];

static void one_at_a_time(void)
{
    EXPECT(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair) == 0);
    for (int i = 0; i < ROUNDS; i++) {
        char *buffer =
            mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        EXPECT(buffer != MAP_FAILED && munmap(buffer + 2 * PAGE, PAGE) == 0);
        buffer[0] = 1;
        EXPECT(send(pair[0], "first", 5, 0) == 5 && send(pair[0], "second", 6, 0) == 6);
        EXPECT(madvise(buffer + PAGE, PAGE, MADV_DONTNEED) == 0);
        EXPECT(recv(pair[1], buffer, 3 * PAGE, 0) == 5 && memcmp(buffer, "first", 5) == 0);
        EXPECT(recv(pair[1], buffer, PAGE, 0) == 6 && memcmp(buffer, "second", 6) == 0);
        EXPECT(munmap(buffer, 2 * PAGE) == 0);
    }
    EXPECT(close(pair[0]) == 0 && close(pair[1]) == 0);
}

static void *send_rest(void *argument)
{
    usleep(5000);
    EXPECT(send(pair[0], "5678", 4, 0) == 4);
    return argument;
}

static void the_least_is_waited_for(void)
{
    int least = 8;
    char text[16];
    pthread_t thread;
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    EXPECT(setsockopt(pair[1], SOL_SOCKET, SO_RCVLOWAT, &least, sizeof(least)) == 0);
    for (int i = 0; i < 10; i++) {
        EXPECT(send(pair[0], "1234", 4, 0) == 4);
        EXPECT(pthread_create(&thread, NULL, send_rest, NULL) == 0);
        EXPECT(i % 2 ? read(pair[1], text, 16) == 8 : recv(pair[1], text, 16, 0) == 8);
        EXPECT(memcmp(text, "12345678", 8) == 0 && pthread_join(thread, NULL) == 0);
    }
    EXPECT(close(pair[0]) == 0 && close(pair[1]) == 0);
}

#define PIECES 1024

/* One byte in each of 1024 pages, so that no two pieces are neighbours. */
static char *sparse;
static struct iovec pieces[PIECES + 1];
static char plain[PIECES];

static void expect_filled(int count)
{
    for (int i = 0; i < PIECES; i++)
        EXPECT(sparse[(size_t)i * PAGE] == (i < count ? plain[i] : 0));
    EXPECT(madvise(sparse, (size_t)PIECES * PAGE, MADV_DONTNEED) == 0);
}

static void receive_pieces(int kind, int flags, int count)
{
    struct msghdr header = {.msg_iov = pieces, .msg_iovlen = PIECES};
    struct msghdr too_many = {.msg_iov = pieces, .msg_iovlen = PIECES + 1};
    EXPECT(recvmsg(pair[1], &too_many, 0) == -1 && errno == EMSGSIZE);
    EXPECT(sendmsg(pair[0], &too_many, 0) == -1 && errno == EMSGSIZE);
    EXPECT(send(pair[0], plain, (size_t)count, 0) == count);
    EXPECT(recvmsg(pair[1], &header, flags | MSG_PEEK) == count);
    EXPECT((header.msg_flags & MSG_TRUNC) == 0);
    expect_filled(count);
    EXPECT(recvmsg(pair[1], &header, flags) == count && (header.msg_flags & MSG_TRUNC) == 0);
    expect_filled(count);
    EXPECT(recv(pair[1], plain, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
    EXPECT(send(pair[0], plain, (size_t)count, 0) == count);
    if (kind != SOCK_STREAM) {
        header.msg_iovlen = PIECES / 2;
        int most = count < PIECES / 2 ? count : PIECES / 2;
        EXPECT(recvmsg(pair[1], &header, flags) == most);
        EXPECT(!!(header.msg_flags & MSG_TRUNC) == (count > most));
        expect_filled(most);
        EXPECT(send(pair[0], plain, (size_t)count, 0) == count);
        EXPECT(readv(pair[1], pieces, PIECES) == count);
        expect_filled(count);
    } else {
        EXPECT(recv(pair[1], sparse, (size_t)count, MSG_WAITALL) == count);
        EXPECT(madvise(sparse, (size_t)PIECES * PAGE, MADV_DONTNEED) == 0);
        /* Not short while more is there: with edges that says that nothing is. */
        EXPECT(send(pair[0], plain, (size_t)count, 0) == count);
        EXPECT(readv(pair[1], pieces, PIECES) == count);
        expect_filled(count);
    }
}

#define WIDE_PIECES 100
#define WIDE_BYTES  100

/* Likewise of a pipe that does not wait; one of packets gives one of them. */
static void pipes_are_read_to_their_end(void)
{
    static char text[WIDE_PIECES * WIDE_BYTES];
    struct iovec wide[WIDE_PIECES];
    for (int i = 0; i < WIDE_PIECES; i++) {
        wide[i] = (struct iovec){sparse + (size_t)i * PAGE, WIDE_BYTES};
        memset(text + i * WIDE_BYTES, 'a' + i % 26, WIDE_BYTES);
    }
    EXPECT(pipe2(pair, O_NONBLOCK) == 0);
    EXPECT(write(pair[1], text, sizeof(text)) == sizeof(text));
    EXPECT(readv(pair[0], wide, WIDE_PIECES) == sizeof(text));
    for (int i = 0; i < WIDE_PIECES; i++)
        EXPECT(memcmp(sparse + (size_t)i * PAGE, text + i * WIDE_BYTES, WIDE_BYTES) == 0);
    EXPECT(readv(pair[0], wide, WIDE_PIECES) == -1 && errno == EAGAIN);
    EXPECT(close(pair[0]) == 0 && close(pair[1]) == 0);
    EXPECT(pipe2(pair, O_NONBLOCK | O_DIRECT) == 0);
    EXPECT(write(pair[1], plain, 64) == 64 && write(pair[1], plain, 64) == 64);
    EXPECT(readv(pair[0], pieces, PIECES) == 64);
    EXPECT(readv(pair[0], pieces, PIECES) == 64);
    EXPECT(madvise(sparse, (size_t)PIECES * PAGE, MADV_DONTNEED) == 0);
    EXPECT(close(pair[0]) == 0 && close(pair[1]) == 0);
}

static void *send_halves(void *argument)
{
    for (int i = 0; i < 2; i++) {
        usleep(5000);
        EXPECT(send(pair[0], plain + i * PIECES / 2, PIECES / 2, 0) == PIECES / 2);
    }
    return argument;
}

static void many_pieces_are_one_message(void)
{
    static const int kinds[] = {SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM};
    struct msghdr header = {.msg_iov = pieces, .msg_iovlen = PIECES};
    pthread_t thread;
    sparse = mmap(NULL, (size_t)PIECES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                  -1, 0);
    EXPECT(sparse != MAP_FAILED);
    for (int i = 0; i < PIECES; i++) {
        pieces[i] = (struct iovec){sparse + (size_t)i * PAGE, 1};
        plain[i] = (char)(i % 100 + 1);
    }
    pieces[PIECES] = pieces[0];
    for (int i = 0; i < 3; i++) {
        EXPECT(socketpair(AF_UNIX, kinds[i], 0, pair) == 0);
        for (int count = 60; count <= PIECES; count += 241)
            receive_pieces(kinds[i], 0, count);
        receive_pieces(kinds[i], 0, PIECES);
        EXPECT(close(pair[0]) == 0 && close(pair[1]) == 0);
    }
    pipes_are_read_to_their_end();
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    EXPECT(pthread_create(&thread, NULL, send_halves, NULL) == 0);
    EXPECT(recvmsg(pair[1], &header, MSG_WAITALL) == PIECES && pthread_join(thread, NULL) == 0);
    expect_filled(PIECES);
    EXPECT(close(pair[0]) == 0 && close(pair[1]) == 0);
}

int main(void)
{
    many_pieces_are_one_message();
    one_at_a_time();
    the_least_is_waited_for();
    return guest_passed("messages");
}
