/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files mapped over locks with priority inheritance, and over a condition that is requeued to one,
 * for which threads sleep: the mappings come about, and no sleeper is in the way.
 */
#include "guest.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define ROUNDS 8
#define PAGE   4096

static atomic_int asleep;
static char *pages; /* a lock, a condition, the condition's lock */

static _Atomic uint32_t *word_of(int page)
{
    return (_Atomic uint32_t *)(void *)(pages + page * PAGE);
}

/* They are as good as lost: neither how they wake nor whether is anybody's business. */
static void *sleep_for_lock(void *argument)
{
    atomic_fetch_add(&asleep, 1);
    syscall(SYS_futex, word_of(0), FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0);
    return argument;
}

static void *sleep_for_condition(void *argument)
{
    atomic_fetch_add(&asleep, 1);
    syscall(SYS_futex, word_of(1), FUTEX_WAIT_REQUEUE_PI_PRIVATE, 0, NULL, word_of(2), 0);
    return argument;
}

static void map_over(int fd, int page)
{
    char *at = pages + page * PAGE;
    EXPECT(mmap(at, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0) == at);
    EXPECT(strcmp(at + 8, "of the file") == 0);
}

int main(void)
{
    int fd = memfd_create("lock_replaced", 0);
    EXPECT(fd >= 0 && ftruncate(fd, PAGE) == 0 && pwrite(fd, "of the file", 12, 8) == 12);
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t thread;
        pages = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        EXPECT(pages != MAP_FAILED);
        atomic_store(&asleep, 0);
        atomic_store(word_of(0), (uint32_t)gettid());
        EXPECT(pthread_create(&thread, NULL, sleep_for_lock, NULL) == 0);
        EXPECT(pthread_create(&thread, NULL, sleep_for_condition, NULL) == 0);
        while (atomic_load(&asleep) < 2)
            ;
        usleep(20000);
        for (int page = 0; page < 3; page++)
            map_over(fd, page);
    }
    puts("lock_replaced: ok");
    fflush(stdout);
    _exit(0);
}
