/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages are received one at a time, also into a buffer that is longer than its mapping and in
 * part not there yet, and a socket's least count is waited for.
 */
#include "guest.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>

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

int main(void)
{
    one_at_a_time();
    the_least_is_waited_for();
    return guest_passed("messages");
}
