/* SPDX-License-Identifier: Apache-2.0 */
/* Bad pointers given to system calls end in EFAULT, never in a crash, and change nothing. */
#include "guest.h"

#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define MANY (100 * (size_t)4096)

/* A length beyond all memory is cut, as is what lies beyond the end of the mapping. */
static void lengths_beyond_all_memory(void)
{
    const volatile size_t most = SIZE_MAX;
    int pair[2];
    char *many =
        mmap(NULL, MANY + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(many != MAP_FAILED && munmap(many + MANY, 4096) == 0);
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    for (unsigned i = 0; i < 20; i++) {
        ssize_t got = getrandom(many, most - i, 0);
        EXPECT(got == (ssize_t)MANY || (got == -1 && errno == EFAULT)); /* kernels differ */
        EXPECT(write(pair[0], "12345", 5) == 5);
        EXPECT(recv(pair[1], many, most - i, 0) == 5 && memcmp(many, "12345", 5) == 0);
        EXPECT(read(pair[1], many, 0) == 0);
        got = send(pair[0], many, most - i, MSG_DONTWAIT);
        EXPECT(got > 0 || (got == -1 && (errno == EFAULT || errno == EAGAIN)));
        while (recv(pair[1], many, MANY, MSG_DONTWAIT) > 0)
            continue;
    }
    EXPECT(close(pair[0]) == 0 && close(pair[1]) == 0);
}

/* Edges that could not be told for want of a place are told the next time. */
static void edges_stay(void)
{
    int set = epoll_create1(0), pair[4], count = 0;
    size_t page = 4096;
    char *two = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct epoll_event *last = (void *)(two + page - sizeof(struct epoll_event)), got[4];

    EXPECT(two != MAP_FAILED && mprotect(two + page, page, PROT_READ) == 0);
    EXPECT(set >= 0 && pipe(pair) == 0 && pipe(pair + 2) == 0);
    EXPECT(epoll_wait(set, last + 1, 4, 0) == 0);
    for (int i = 0; i < 4; i += 2) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = 7u + (unsigned)i};
        EXPECT(epoll_ctl(set, EPOLL_CTL_ADD, pair[i], &event) == 0);
        EXPECT(write(pair[i + 1], "x", 1) == 1);
    }
    EXPECT(epoll_wait(set, last + 1, 4, -1) == -1 && errno == EFAULT);
    EXPECT(epoll_wait(set, last + 1, 4, 100) == -1 && errno == EFAULT);
    EXPECT(epoll_wait(set, last, 4, 100) == 1 && (last->data.u64 == 7 || last->data.u64 == 9));
    EXPECT(epoll_wait(set, last + 1, 4, 100) == -1 && errno == EFAULT);
    count = epoll_wait(set, got, 4, 100);
    EXPECT(count == 1 && got[0].data.u64 == 16 - last->data.u64);
    EXPECT(epoll_wait(set, got, 4, 0) == 0);
    for (int i = 0; i < 4; i++)
        EXPECT(close(pair[i]) == 0);
    EXPECT(close(set) == 0 && munmap(two, 2 * page) == 0);
}

int main(void)
{
    int fds[2], zeroes;
    struct stat info;
    char *none = mmap(NULL, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *fixed = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *wild = (char *)0x7fff00000000;

    EXPECT(pipe(fds) == 0);
    EXPECT(write(fds[1], none, 5) == -1 && errno == EFAULT);
    EXPECT(write(fds[1], wild, 5) == -1 && errno == EFAULT);
    EXPECT(write(fds[1], (char *)-4096, 5) == -1 && errno == EFAULT);
    EXPECT(write(fds[1], fixed, 5) == 5); /* read-only memory may be read */
    EXPECT(read(fds[0], fixed, 5) == -1 && errno == EFAULT);
    EXPECT(open(none, O_RDONLY) == -1 && errno == EFAULT);
    const char *volatile null = NULL;
    EXPECT(open(null, O_RDONLY) == -1 && errno == EFAULT);
    EXPECT(fstat(0, (struct stat *)(void *)none) == -1 && errno == EFAULT);
    EXPECT(stat("/", (struct stat *)(void *)fixed) == -1 && errno == EFAULT);
    EXPECT(stat("/", &info) == 0);
    EXPECT(writev(fds[1], (struct iovec *)(void *)wild, 2) == -1 && errno == EFAULT);
    EXPECT(poll((struct pollfd *)(void *)none, 1, 0) == -1 && errno == EFAULT);
    EXPECT(pipe((int *)(void *)none) == -1 && errno == EFAULT);

    /* A string that runs into the end of its mapping. */
    EXPECT(mprotect(none, 4096, PROT_READ | PROT_WRITE) == 0);
    memset(none, 'x', 4096);
    EXPECT(open(none + 4090, O_RDONLY) == -1 && errno == EFAULT);
    strcpy(none + 4086, "/dev/null");
    int fd = open(none + 4086, O_RDONLY);
    EXPECT(fd >= 0);
    EXPECT(read(fd, none, 10) == 0);
    lengths_beyond_all_memory();
    /* Where a guest's kernel has addresses, most of them without memory. */
    EXPECT((zeroes = open("/dev/zero", O_RDONLY)) >= 0);
    for (uintptr_t at = 0x3fd0000000 + 0x7000000; at < 0x3fe0000000; at += 1 << 20)
        EXPECT(read(zeroes, (void *)at, 1 << 20) == -1 && errno == EFAULT);
    edges_stay();
    return guest_passed("efault");
}
