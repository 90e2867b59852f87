/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread's end of the hint channel: finding it, and posting into its ring (farvisor/hints.h has
 * the state tables). The one who posts is the only writer of the ring, but for a signal handler
 * that interrupts a post: that one's advice is dropped.
 */
#include "guide/internal.h"

#include <errno.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define YIELD_AFTER 4000u /* looks, some 0.1 ms: then the other side needs our processor */

static __thread struct guide_thread *self __attribute__((tls_model("initial-exec")));
static pthread_key_t thread_key;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;

static void thread_free(void *thread)
{
    self = NULL;
    munmap(thread, sizeof(struct guide_thread));
}

static void key_make(void)
{
    (void)pthread_key_create(&thread_key, thread_free);
}

long guide_call(long operation, uint64_t a, uint64_t b, uint64_t c)
{
    long result;
    register uint64_t r10 __asm__("r10") = c;
    /* Not syscall(3): errno is the program's, and a hook may run anywhere. */
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"((long)FV_SYS_GUIDE), "D"(operation), "S"(a), "d"(b), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}

bool guide_has_channel(void)
{
    return getauxval(FV_AT_HINTS) == FV_HINT_VERSION;
}

static struct fv_hint_ring *ring_open(void)
{
    if (!guide_has_channel())
        return NULL;
    long ring = guide_call(FV_GUIDE_OPEN, 0, 0, 0);
    return ring > 0 ? (struct fv_hint_ring *)ring : NULL;
}

struct guide_thread *guide_thread_self(void)
{
    if (self)
        return self;
    int saved = errno;
    /* Not mmap(3): a guide may have hooked it, and a hook asks for this. */
    long at = syscall(SYS_mmap, NULL, sizeof(struct guide_thread), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L);
    struct guide_thread *thread = (struct guide_thread *)at;
    if (at == -1) {
        errno = saved;
        return NULL;
    }
    thread->ring = ring_open();
    self = thread;
    pthread_once(&key_once, key_make);
    (void)pthread_setspecific(thread_key, thread);
    errno = saved;
    return thread;
}

struct fv_hint_ring *guide_ring(void)
{
    struct guide_thread *thread = guide_thread_self();
    struct fv_hint_ring *ring = thread ? thread->ring : NULL;
    return ring && __atomic_load_n(&ring->state, __ATOMIC_RELAXED) == FV_HINT_ON ? ring : NULL;
}

int guide_post(struct guide_thread *thread, const struct fv_hint *hint)
{
    struct fv_hint_ring *ring = thread->ring;
    if (thread->posting)
        return -EAGAIN;
    thread->posting = true;
    __asm__ volatile("" ::: "memory");
    uint32_t head = ring->head;
    bool room = head - __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE) < FV_HINTS;
    if (room) {
        ring->hints[head % FV_HINTS] = *hint;
        __atomic_store_n(&ring->head, head + 1, __ATOMIC_SEQ_CST);
    }
    __asm__ volatile("" ::: "memory");
    thread->posting = false;
    /* Exchanged before the bell rings: one bell a sleep, and none lost to a store that is late. */
    if (!__atomic_load_n(&ring->awake, __ATOMIC_SEQ_CST) &&
        !__atomic_exchange_n(&ring->awake, 1, __ATOMIC_SEQ_CST))
        __asm__ volatile("outb %%al, %0" ::"N"(FV_PORT_HINT) : "memory");
    return room ? 0 : -EAGAIN;
}

int guide_post_wait(struct guide_thread *thread, const struct fv_hint *hint)
{
    for (unsigned looks = 1;; looks++) {
        if (thread->posting || __atomic_load_n(&thread->ring->state, __ATOMIC_RELAXED))
            return -EAGAIN;
        if (guide_post(thread, hint) == 0)
            return 0;
        if (looks % YIELD_AFTER == 0)
            syscall(SYS_sched_yield);
        __builtin_ia32_pause();
    }
}
