/* SPDX-License-Identifier: Apache-2.0 */
/*
 * malloc and its relatives, as glibc's manual has them: small blocks from small.c, the rest from
 * mimalloc. Which of the two a pointer belongs to is its address.
 */
#include "alloc/internal.h"

#include <errno.h>
#include <malloc.h>
#include <mimalloc.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096u

ALLOC_PUBLIC void *malloc(size_t bytes)
{
    void *block = bytes <= SMALL_BYTES ? small_alloc(class_of(bytes)) : NULL;
    return block ? block : mi_malloc(bytes);
}

ALLOC_PUBLIC void free(void *p)
{
    if (is_small(p))
        small_free(p);
    else
        mi_free(p);
}

ALLOC_PUBLIC void *calloc(size_t count, size_t bytes)
{
    size_t all;
    void *block = NULL;
    if (!__builtin_mul_overflow(count, bytes, &all) && all <= SMALL_BYTES)
        block = small_alloc(class_of(all));
    /* Never taken for zero because it was never used: a page that was away need not be. */
    return block ? memset(block, 0, all) : mi_calloc(count, bytes);
}

ALLOC_PUBLIC size_t malloc_usable_size(void *p)
{
    return !p ? 0 : is_small(p) ? small_bytes(p) : mi_usable_size(p);
}

ALLOC_PUBLIC void *realloc(void *p, size_t bytes)
{
    if (!p)
        return malloc(bytes);
    if (!bytes) {
        free(p);
        return NULL;
    }
    if (!is_small(p) && bytes > SMALL_BYTES)
        return mi_realloc(p, bytes);
    size_t before = malloc_usable_size(p);
    if (is_small(p) && bytes <= SMALL_BYTES && class_of(bytes) == class_of(before))
        return p;
    void *moved = malloc(bytes);
    if (moved) {
        memcpy(moved, p, before < bytes ? before : bytes);
        free(p);
    }
    return moved;
}

ALLOC_PUBLIC void *reallocarray(void *p, size_t count, size_t bytes)
{
    size_t all;
    if (__builtin_mul_overflow(count, bytes, &all)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(p, all);
}

/* Blocks of a power of two lie at multiples of it. */
static void *aligned(size_t alignment, size_t bytes)
{
    size_t least = bytes > alignment ? bytes : alignment;
    if (alignment <= UNIT_BYTES)
        return malloc(bytes);
    if (least <= SMALL_BYTES) {
        size_t power = (size_t)1 << (64 - __builtin_clzll(least - 1));
        void *block = small_alloc(class_of(power));
        if (block)
            return block;
    }
    return mi_malloc_aligned(bytes, alignment);
}

static bool is_power(size_t n)
{
    return n && !(n & (n - 1));
}

ALLOC_PUBLIC void *memalign(size_t alignment, size_t bytes)
{
    if (!is_power(alignment)) {
        errno = EINVAL;
        return NULL;
    }
    return aligned(alignment, bytes);
}

ALLOC_PUBLIC void *aligned_alloc(size_t alignment, size_t bytes)
{
    return memalign(alignment, bytes);
}

ALLOC_PUBLIC int posix_memalign(void **out, size_t alignment, size_t bytes)
{
    if (!is_power(alignment) || alignment % sizeof(void *))
        return EINVAL;
    int saved = errno;
    void *block = aligned(alignment, bytes);
    errno = saved;
    if (!block)
        return ENOMEM;
    *out = block;
    return 0;
}

ALLOC_PUBLIC void *valloc(size_t bytes)
{
    return aligned(PAGE, bytes);
}

ALLOC_PUBLIC void *pvalloc(size_t bytes)
{
    if (bytes > SIZE_MAX - PAGE) {
        errno = ENOMEM;
        return NULL;
    }
    return aligned(PAGE, (bytes + PAGE - 1) & ~(size_t)(PAGE - 1));
}

/*
 * libmimalloc brings operators delete of its own, which know nothing of our blocks, and the order
 * of libraries decides whose is called. Ours know both; operator new may be anybody's.
 */
#define DELETE(name, ...)                                                                          \
    ALLOC_PUBLIC void delete_##name(void *p, ##__VA_ARGS__) __asm__(#name);                        \
    void delete_##name(void *p, ##__VA_ARGS__)                                                     \
    {                                                                                              \
        free(p);                                                                                   \
    }
DELETE(_ZdlPv)
DELETE(_ZdaPv)
DELETE(_ZdlPvm, __attribute__((unused)) size_t bytes)
DELETE(_ZdaPvm, __attribute__((unused)) size_t bytes)
DELETE(_ZdlPvSt11align_val_t, __attribute__((unused)) size_t alignment)
DELETE(_ZdaPvSt11align_val_t, __attribute__((unused)) size_t alignment)
DELETE(_ZdlPvmSt11align_val_t, __attribute__((unused)) size_t bytes,
       __attribute__((unused)) size_t alignment)
DELETE(_ZdaPvmSt11align_val_t, __attribute__((unused)) size_t bytes,
       __attribute__((unused)) size_t alignment)
