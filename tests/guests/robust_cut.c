/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main thread ends alone and holds a lock in a shared file, which was cut short since: who
 * waits for it is told that the word is gone.
 */
#include "guest.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define FILE_BYTES 4096
#define LIMIT_S    20

static _Atomic uint32_t *word;
static int file;

static void *wait_for_word(void *argument)
{
    struct timespec until;
    EXPECT(clock_gettime(CLOCK_REALTIME, &until) == 0);
    until.tv_sec += LIMIT_S;
    EXPECT(syscall(SYS_futex, word, FUTEX_LOCK_PI, 0, &until, NULL, 0) == -1 && errno == EFAULT);
    return argument;
}

static void *outlive_main(void *argument)
{
    pthread_t waiter;
    EXPECT(pthread_create(&waiter, NULL, wait_for_word, NULL) == 0);
    usleep(200000);
    EXPECT(ftruncate(file, 0) == 0);
    EXPECT(pthread_join(*(pthread_t *)argument, NULL) == 0);
    EXPECT(pthread_join(waiter, NULL) == 0);
    exit(guest_passed("robust_cut"));
}

int main(void)
{
    static pthread_t self;
    pthread_t thread;
    self = pthread_self();
    file = memfd_create("lock", 0);
    EXPECT(file >= 0 && ftruncate(file, FILE_BYTES) == 0);
    word = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    EXPECT(word != MAP_FAILED);
    atomic_store(word, (uint32_t)gettid());
    EXPECT(pthread_create(&thread, NULL, outlive_main, &self) == 0);
    usleep(600000);
    pthread_exit(NULL);
}
