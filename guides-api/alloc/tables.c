/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the allocator keeps outside of the heap: live map, span headers, heaps of threads. All of it
 * is reserved at once, as large as the program's memory asks for, and becomes real where the heap
 * is used. In a farvisor guest the VMM is told of the map, and the parts in use are pinned, so that
 * neither malloc nor the VMM ever waits for them.
 */
#include "alloc/internal.h"

#include <errno.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

#define PAGE        4096u
#define PIN_BYTES   ((size_t)16 << 20) /* of the heap, whose tables are pinned by one request */
#define HEAP_MAX    ((size_t)1 << 40)
#define WARM_SPANS  16u /* idle ones that keep their pages */
#define PAGE_UP(n)  (((n) + PAGE - 1) & ~(size_t)(PAGE - 1))
#define LIVE_BYTES  (UNIT_BYTES * 8) /* of the heap, for a byte of the map */
#define SPANS_OF(n) ((n) / SPAN_BYTES * sizeof(struct span))

struct tables *tables;
static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;

/* Not syscall(3): errno is the program's. */
static long guide_call(long operation, uint64_t a, uint64_t b, uint64_t c)
{
    long result;
    register uint64_t r10 __asm__("r10") = c;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"((long)FV_SYS_GUIDE), "D"(operation), "S"(a), "d"(b), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}

static void *reserve(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

/* The heap, aligned to a span; less than was asked for where so much is not to be had. */
static uint8_t *heap_reserve(size_t *bytes)
{
    for (; *bytes >= PIN_BYTES; *bytes /= 2) {
        uint8_t *at = reserve(*bytes + SPAN_BYTES);
        if (at)
            return (uint8_t *)(((uintptr_t)at + SPAN_BYTES - 1) & ~(uintptr_t)(SPAN_BYTES - 1));
    }
    return NULL;
}

static struct tables *tables_make(void)
{
    struct sysinfo info;
    size_t bytes = sysinfo(&info) ? PIN_BYTES : (size_t)info.totalram * info.mem_unit;
    bytes = (bytes < HEAP_MAX ? bytes : HEAP_MAX) + PIN_BYTES - 1;
    bytes -= bytes % PIN_BYTES;
    uint8_t *heap = heap_reserve(&bytes);
    size_t fixed = PAGE_UP(sizeof(struct tables)), live = bytes / LIVE_BYTES;
    uint8_t *at =
        heap ? reserve(fixed + live + PAGE_UP(SPANS_OF(bytes)) + HEAPS_MAX * sizeof(struct heap))
             : NULL;
    if (!at)
        return NULL;
    struct tables *made = (struct tables *)at;
    classes_fill(made->starts);
    made->live = (_Atomic uint64_t *)(at + fixed);
    made->spans = (struct span *)(at + fixed + live);
    made->heaps = (struct heap *)(at + fixed + live + PAGE_UP(SPANS_OF(bytes)));
    made->heap = heap;
    made->heap_bytes = bytes;
    pthread_mutex_init(&made->lock, NULL);
    if (getauxval(FV_AT_HINTS) == FV_HINT_VERSION) {
        (void)guide_call(FV_GUIDE_HEAP, (uint64_t)heap, bytes, (uint64_t)made->live);
        made->far = guide_call(FV_GUIDE_PIN, (uint64_t)made, sizeof(*made), 0) == 0;
    }
    return made;
}

bool tables_ready(void)
{
    static atomic_bool failed;
    if (tables)
        return true;
    if (atomic_load(&failed))
        return false;
    int saved = errno;
    pthread_mutex_lock(&making);
    if (!tables && !atomic_load(&failed)) {
        struct tables *made = tables_make();
        atomic_store(&failed, !made);
        atomic_thread_fence(memory_order_release);
        tables = made;
    }
    pthread_mutex_unlock(&making);
    errno = saved;
    return tables != NULL;
}

/* Pins the tables of what is about to be used. Caller holds the lock. */
static void tables_pin(void)
{
    size_t from = tables->pinned_bytes;
    uint64_t live = (uint64_t)tables->live + from / LIVE_BYTES;
    uint64_t spans = (uint64_t)tables->spans + SPANS_OF(from);
    tables->pinned_bytes += PIN_BYTES;
    if (tables->far && (guide_call(FV_GUIDE_PIN, live, PIN_BYTES / LIVE_BYTES, 0) ||
                        guide_call(FV_GUIDE_PIN, spans, SPANS_OF(PIN_BYTES), 0)))
        tables->far = false; /* the quota for pins is used up: from here on they are only hot */
}

struct span *span_get(bool grow)
{
    pthread_mutex_lock(&tables->lock);
    struct span *span = tables->idle;
    if (span) {
        tables->idle = span->next;
        tables->idle_count--;
    } else if (grow && tables->top_bytes < tables->heap_bytes) {
        if (tables->top_bytes == tables->pinned_bytes)
            tables_pin();
        span = span_of(tables->heap + tables->top_bytes);
        tables->top_bytes += SPAN_BYTES;
    }
    pthread_mutex_unlock(&tables->lock);
    return span;
}

void span_put(struct span *span)
{
    int saved = errno;
    atomic_store(&span->state, SPAN_IDLE);
    pthread_mutex_lock(&tables->lock);
    bool warm = tables->idle_count < WARM_SPANS;
    pthread_mutex_unlock(&tables->lock);
    /* Nobody has it: its pages can go without the lock. */
    if (!warm)
        (void)madvise(tables->heap + ((size_t)(span - tables->spans) << SPAN_SHIFT), SPAN_BYTES,
                      MADV_DONTNEED);
    pthread_mutex_lock(&tables->lock);
    span->next = tables->idle;
    tables->idle = span;
    tables->idle_count++;
    pthread_mutex_unlock(&tables->lock);
    errno = saved;
}

struct heap *heap_get(void)
{
    pthread_mutex_lock(&tables->lock);
    struct heap *heap = tables->orphans;
    if (heap)
        tables->orphans = heap->next;
    else if (tables->heap_count < HEAPS_MAX)
        heap = &tables->heaps[tables->heap_count++];
    pthread_mutex_unlock(&tables->lock);
    return heap;
}

void heap_put(struct heap *heap)
{
    pthread_mutex_lock(&tables->lock);
    heap->next = tables->orphans;
    tables->orphans = heap;
    pthread_mutex_unlock(&tables->lock);
}
