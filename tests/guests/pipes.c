/* SPDX-License-Identifier: Apache-2.0 */
/* Pipes and socket pairs between threads: bytes in order, blocking, end of file, EPIPE. */
#include "guest.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define BYTES (8u << 20)

static void *produce(void *argument)
{
    int fd = *(int *)argument;
    uint32_t block[4096];
    for (uint32_t at = 0; at < BYTES / 4; at += 4096) {
        for (uint32_t i = 0; i < 4096; i++)
            block[i] = at + i;
        for (size_t done = 0; done < sizeof block;) {
            ssize_t wrote = write(fd, (char *)block + done, sizeof block - done);
            EXPECT(wrote > 0);
            done += (size_t)wrote;
        }
    }
    EXPECT(close(fd) == 0);
    return argument;
}

static void consume(int fd)
{
    static uint32_t all[BYTES / 4 + 1];
    size_t got = 0;
    for (ssize_t now; (now = read(fd, (char *)all + got, sizeof all - got)) != 0;) {
        EXPECT(now > 0);
        got += (size_t)now;
    }
    EXPECT(got == BYTES);
    for (uint32_t i = 0; i < BYTES / 4; i++)
        EXPECT(all[i] == i);
    EXPECT(close(fd) == 0);
}

/* ---- as many pieces on as many pages, and yet one write ---- */

#define PIECES  100u
#define PIECE   40u
#define RECORD  (PIECES * PIECE) /* less than PIPE_BUF: not torn apart by other writers */
#define RECORDS 100

struct writer {
    int fd;
    char letter;
};

static void *write_records(void *argument)
{
    const struct writer *writer = argument;
    char *area = malloc(PIECES * 4096);
    struct iovec vector[PIECES];
    EXPECT(area);
    for (size_t i = 0; i < PIECES; i++) {
        vector[i] = (struct iovec){area + i * 4096, PIECE};
        memset(vector[i].iov_base, writer->letter, PIECE);
    }
    for (int i = 0; i < RECORDS; i++)
        EXPECT(writev(writer->fd, vector, PIECES) == RECORD);
    free(area);
    return NULL;
}

static void records_stay_whole(void)
{
    struct writer writers[4];
    pthread_t threads[4];
    char record[RECORD];
    int fds[2];
    EXPECT(pipe(fds) == 0);
    for (int i = 0; i < 4; i++) {
        writers[i] = (struct writer){fds[1], (char)('a' + i)};
        EXPECT(pthread_create(&threads[i], NULL, write_records, &writers[i]) == 0);
    }
    for (int n = 0; n < 4 * RECORDS; n++) {
        for (size_t got = 0; got < RECORD;) {
            ssize_t now = read(fds[0], record + got, RECORD - got);
            EXPECT(now > 0);
            got += (size_t)now;
        }
        for (size_t i = 1; i < RECORD; i++)
            EXPECT(record[i] == record[0]);
    }
    for (int i = 0; i < 4; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
    EXPECT(close(fds[0]) == 0 && close(fds[1]) == 0);
}

int main(void)
{
    int fds[2];
    pthread_t thread;

    EXPECT(pipe(fds) == 0);
    EXPECT(pthread_create(&thread, NULL, produce, &fds[1]) == 0);
    consume(fds[0]);
    EXPECT(pthread_join(thread, NULL) == 0);
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    EXPECT(pthread_create(&thread, NULL, produce, &fds[1]) == 0);
    consume(fds[0]);
    EXPECT(pthread_join(thread, NULL) == 0);

    records_stay_whole();
    char parts[3][8] = {"one", "two", "three"};
    struct iovec vector[3] = {{parts[0], 4}, {parts[1], 4}, {parts[2], 6}};
    EXPECT(pipe2(fds, O_NONBLOCK | O_CLOEXEC) == 0);
    EXPECT(read(fds[0], parts, 1) == -1 && errno == EAGAIN);
    EXPECT(writev(fds[1], vector, 3) == 14);
    memset(parts, 0, sizeof parts);
    EXPECT(readv(fds[0], vector, 3) == 14 && strcmp(parts[2], "three") == 0);
    signal(SIGPIPE, SIG_IGN);
    EXPECT(close(fds[0]) == 0);
    EXPECT(write(fds[1], "x", 1) == -1 && errno == EPIPE);
    return guest_passed("pipes");
}
