/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of faults. The guest kernel enters guide_fault_entry (enter.S) on the thread that
 * faulted, at any instruction of the program, perhaps inside of its malloc or of this library: so
 * nothing here takes a lock, allocates, or uses what belongs to the thread's hooks and posts. A
 * handler's advice does not go into the ring, whose writer may have been interrupted, but into the
 * fault itself.
 */
#include "guide/internal.h"

#include <errno.h>
#include <pthread.h>

_Static_assert(GUIDE_HITS_MAX == FV_FAULT_HITS, "guide.h");
_Static_assert(GUIDE_ANSWERS_MAX == FV_FAULT_ANSWERS, "guide.h");

#define RANGES_MAX 64u

struct range {
    _Atomic uintptr_t start, end; /* end 0: free, or not ready */
    guide_fault_handler *_Atomic handler;
    void *_Atomic argument;
};

static struct range ranges[RANGES_MAX];
static pthread_mutex_t ranges_lock = PTHREAD_MUTEX_INITIALIZER; /* changes; no handler takes it */

/* Set by the first handler on a thread. Its vCPU, and so its ring, stays the same for its life. */
static __thread struct fv_fault *told __attribute__((tls_model("initial-exec")));

static struct fv_hint_ring *ring_around(struct fv_fault *fault)
{
    return (struct fv_hint_ring *)((char *)fault - offsetof(struct fv_hint_ring, fault));
}

struct fv_fault *guide_fault_self(void)
{
    struct fv_fault *fault = told;
    /* One that was abandoned did not clear `told`; the guest kernel has cleared `inside`. */
    return fault &&
                   __atomic_load_n(&ring_around(fault)->inside, __ATOMIC_RELAXED) == FV_INSIDE_FAULT
               ? fault
               : NULL;
}

int guide_fault_answer(struct fv_fault *fault, const struct fv_hint *hint)
{
    if (fault->count >= FV_FAULT_ANSWERS)
        return -EAGAIN;
    fault->answers[fault->count++] = *hint;
    return 0;
}

static struct range *range_of(uintptr_t address)
{
    for (unsigned i = 0; i < RANGES_MAX; i++)
        if (address >= atomic_load(&ranges[i].start) && address < atomic_load(&ranges[i].end))
            return &ranges[i];
    return NULL;
}

void guide_on_upcall(struct fv_fault *fault)
{
    struct guide_fault shown = {.address = (const void *)fault->address,
                                .write = fault->write != 0,
                                .hit_count = fault->hit_count};
    struct range *range = range_of(fault->address);
    told = fault;
    for (unsigned i = 0; i < FV_FAULT_HITS && i < fault->hit_count; i++)
        shown.hits[i] = (const void *)fault->hits[i];
    guide_fault_handler *handler = range ? atomic_load(&range->handler) : NULL;
    if (handler)
        handler(&shown, atomic_load(&range->argument));
}

/* Caller holds ranges_lock. */
static struct range *range_exact(uintptr_t start, uintptr_t end)
{
    for (unsigned i = 0; i < RANGES_MAX; i++)
        if (atomic_load(&ranges[i].start) == start && atomic_load(&ranges[i].end) == end)
            return &ranges[i];
    return NULL;
}

static int watch(uintptr_t start, size_t bytes)
{
    struct fv_watch watch = {.entry = (uintptr_t)guide_fault_entry};
    uintptr_t thread_pointer;
    if (!guide_has_channel())
        return 0;
    /* %fs:0 holds its own address (x86-64 ABI, TLS variant II). */
    __asm__("movq %%fs:0, %0" : "=r"(thread_pointer));
    watch.errno_offset_bytes = (int64_t)((uintptr_t)&errno - thread_pointer);
    const char *name = guide_running();
    for (unsigned i = 0; i < FV_WATCH_NAME && name[i]; i++)
        watch.name[i] = name[i];
    long result = guide_call(FV_GUIDE_WATCH, start, bytes, (uintptr_t)&watch);
    return result == -EINVAL ? -EOPNOTSUPP : (int)result; /* an older farvisor */
}

GUIDE_PUBLIC int guide_on_fault(const void *start, size_t bytes, guide_fault_handler *handler,
                                void *argument)
{
    uintptr_t first = (uintptr_t)start, end = first + bytes;
    if (guide_fault_self())
        return -EAGAIN;
    if (!handler || end <= first)
        return -EINVAL;
    pthread_mutex_lock(&ranges_lock);
    struct range *range = range_exact(first, end) ? NULL : range_exact(0, 0);
    int error = range ? 0 : range_exact(first, end) ? -EINVAL : -ENOSPC;
    if (range) {
        atomic_store(&range->handler, handler);
        atomic_store(&range->argument, argument);
        atomic_store(&range->start, first);
        atomic_store(&range->end, end); /* before anybody can ask */
        error = watch(first, bytes);
    }
    if (range && error) {
        atomic_store(&range->end, 0);
        atomic_store(&range->start, 0);
    }
    pthread_mutex_unlock(&ranges_lock);
    return error;
}

GUIDE_PUBLIC int guide_off_fault(const void *start, size_t bytes)
{
    uintptr_t first = (uintptr_t)start;
    if (guide_fault_self())
        return -EAGAIN;
    pthread_mutex_lock(&ranges_lock);
    struct range *range = bytes ? range_exact(first, first + bytes) : NULL;
    if (range) {
        if (guide_has_channel())
            (void)guide_call(FV_GUIDE_UNWATCH, first, bytes, 0);
        atomic_store(&range->end, 0);
        atomic_store(&range->start, 0);
    }
    pthread_mutex_unlock(&ranges_lock);
    return range ? 0 : -EINVAL;
}
