/* SPDX-License-Identifier: Apache-2.0 */
/* Bad pointers given to system calls end in EFAULT, never in a crash, and change nothing. */
#include "guest.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

int main(void)
{
    int fds[2];
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
    return guest_passed("efault");
}
