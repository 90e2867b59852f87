/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hung_lock FILE: a thread asks for a lock with priority inheritance in a mapped file whose page
 * never comes, and the program ends, with status 7.
 */
#include "guest.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define BYTES 4096

static void *take_lock(void *word)
{
    syscall(SYS_futex, word, FUTEX_LOCK_PI, 0, NULL, NULL, 0);
    return word;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    EXPECT(argc == 2);
    int fd = open(argv[1], O_RDWR);
    EXPECT(fd >= 0);
    void *word = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    EXPECT(word != MAP_FAILED);
    EXPECT(pthread_create(&thread, NULL, take_lock, word) == 0);
    for (double end_s = guest_now_s() + 1; guest_now_s() < end_s;)
        ;
    _exit(7);
}
