/* SPDX-License-Identifier: Apache-2.0 */
/* A shared futex is the memory behind it, not its address: it is woken through another mapping, by
 * a call, by an unlock, and by the end of the thread that held a robust mutex. */
#include "guest.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define WORDS 16
#define PAGE  4096

struct shared {
    uint32_t words[WORDS];
    pthread_mutex_t robust;
    pthread_mutex_t plain;
};

static struct shared *one;
static struct shared *other;

static void *sleeper(void *argument)
{
    uint32_t *word = argument;
    EXPECT(syscall(SYS_futex, word, FUTEX_WAIT, 0, NULL, NULL, 0) == 0);
    return NULL;
}

static void wake_through(uint32_t *word)
{
    double limit = guest_now_s() + 10;
    while (syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0) != 1) {
        EXPECT(guest_now_s() < limit);
        usleep(1000);
    }
}

static void *hold_and_end(void *argument)
{
    EXPECT(pthread_mutex_lock(&one->robust) == 0);
    usleep(200000); /* the other one comes meanwhile, and sleeps */
    return argument;
}

static void *take_plain(void *argument)
{
    EXPECT(pthread_mutex_lock(&other->plain) == 0);
    EXPECT(pthread_mutex_unlock(&other->plain) == 0);
    return argument;
}

static void mutexes(void)
{
    struct timespec until;
    pthread_mutexattr_t attributes;
    pthread_t thread;

    EXPECT(pthread_mutexattr_init(&attributes) == 0);
    EXPECT(pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) == 0);
    EXPECT(pthread_mutex_init(&one->plain, &attributes) == 0);
    EXPECT(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) == 0);
    EXPECT(pthread_mutex_init(&one->robust, &attributes) == 0);

    EXPECT(pthread_mutex_lock(&one->plain) == 0);
    EXPECT(pthread_create(&thread, NULL, take_plain, NULL) == 0);
    usleep(200000);
    EXPECT(pthread_mutex_unlock(&one->plain) == 0);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    EXPECT(pthread_timedjoin_np(thread, NULL, &until) == 0);

    EXPECT(pthread_create(&thread, NULL, hold_and_end, NULL) == 0);
    usleep(100000);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    EXPECT(pthread_mutex_timedlock(&other->robust, &until) == EOWNERDEAD);
    EXPECT(pthread_mutex_consistent(&other->robust) == 0);
    EXPECT(pthread_mutex_unlock(&other->robust) == 0);
    EXPECT(pthread_join(thread, NULL) == 0);
}

int main(void)
{
    int fd = memfd_create("futexes", 0);
    EXPECT(fd >= 0 && ftruncate(fd, PAGE) == 0);
    one = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    other = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    EXPECT(one != MAP_FAILED && other != MAP_FAILED && one != other);
    for (int i = 0; i < WORDS; i++) {
        pthread_t thread;
        EXPECT(pthread_create(&thread, NULL, sleeper, &one->words[i]) == 0);
        wake_through(&other->words[i]);
        EXPECT(pthread_join(thread, NULL) == 0);
    }
    mutexes();
    return guest_passed("futex_shared");
}
