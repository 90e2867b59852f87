/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entry hooks. A jump at the start of the function leads to its island, a few instructions within
 * reach of a 32-bit offset, and from there to enter.S; the instructions that the jump replaced live
 * on in the island as the trampoline to the function itself.
 *
 * An island: the way in (0), what a guide calls as the original (16), the two addresses they load
 * (32), and the trampoline (48).
 */
#include "guide/internal.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#define HOOKS_MAX     256u
#define SYMBOL_BYTES  4096u /* longest name, with its NUL */
#define ISLAND_BYTES  128u
#define AT_ORIGINAL   16u
#define AT_ADDRESSES  32u
#define AT_TRAMPOLINE 48u
#define PAGE_BYTES    4096u
#define REACH_BYTES   (1ULL << 30) /* half of what a jump reaches: the function has a length, too */
#define STEP_BYTES    (1ULL << 20)
_Static_assert(AT_TRAMPOLINE + GUIDE_MOVED_MAX <= ISLAND_BYTES, "a trampoline fits");

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

static struct guide_hooked hooked[HOOKS_MAX];
static atomic_uint hook_count;
static pthread_mutex_t hook_lock = PTHREAD_MUTEX_INITIALIZER;
static uint8_t *island_page; /* with room from island_used on; under hook_lock */
static size_t island_used = PAGE_BYTES;

const struct guide_hooked *guide_hook_at(uint32_t index)
{
    return &hooked[index];
}

static bool in_reach(const uint8_t *from, const uint8_t *to)
{
    return to > from ? (uint64_t)(to - from) < REACH_BYTES : (uint64_t)(from - to) < REACH_BYTES;
}

/* A fresh page near the function, or NULL. */
static uint8_t *page_near(const uint8_t *function)
{
    uintptr_t around = (uintptr_t)function & ~(uintptr_t)(STEP_BYTES - 1);
    for (uintptr_t away = STEP_BYTES; away < REACH_BYTES; away += STEP_BYTES) {
        uintptr_t wanted[] = {around - away, around + away};
        for (unsigned i = 0; i < 2; i++) {
            void *page = mmap((void *)wanted[i], PAGE_BYTES, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
            if (page == MAP_FAILED)
                continue;
            if (in_reach(function, page))
                return page;
            munmap(page, PAGE_BYTES); /* an old kernel took the wish for a hint */
        }
    }
    return NULL;
}

static uint8_t *island_get(const uint8_t *function)
{
    if (island_used + ISLAND_BYTES > PAGE_BYTES || !in_reach(function, island_page)) {
        uint8_t *page = page_near(function);
        if (!page)
            return NULL;
        island_page = page;
        island_used = 0;
    }
    return island_page + island_used;
}

/* push $index; jmp *where(%rip) */
static void entrance_put(uint8_t *at, uint32_t index, const uint8_t *where)
{
    int32_t offset = (int32_t)(where - (at + 11));
    at[0] = 0x68;
    memcpy(at + 1, &index, sizeof(index));
    at[5] = 0xff;
    at[6] = 0x25;
    memcpy(at + 7, &offset, sizeof(offset));
}

/* Writes the island; returns the moved bytes or -errno. */
static int island_fill(uint8_t *island, uint32_t index, const uint8_t *function, size_t bytes)
{
    void (*enter)(void) = guide_hook_enter, (*original)(void) = guide_original_enter;
    int moved = guide_relocate(function, bytes, island + AT_TRAMPOLINE);
    if (moved < 0)
        return moved;
    entrance_put(island, index, island + AT_ADDRESSES);
    entrance_put(island + AT_ORIGINAL, index, island + AT_ADDRESSES + 8);
    memcpy(island + AT_ADDRESSES, &enter, sizeof(enter));
    memcpy(island + AT_ADDRESSES + 8, &original, sizeof(original));
    return moved;
}

/* Code is read-only but for this moment. */
static int function_patch(uint8_t *function, const uint8_t *island)
{
    uintptr_t first = (uintptr_t)function & ~(uintptr_t)(PAGE_BYTES - 1);
    size_t bytes = (uintptr_t)function + GUIDE_PATCH_BYTES - first;
    int32_t offset = (int32_t)(island - (function + GUIDE_PATCH_BYTES));
    if (mprotect((void *)first, bytes, PROT_READ | PROT_WRITE | PROT_EXEC) < 0)
        return -errno;
    memcpy(function + 1, &offset, sizeof(offset));
    function[0] = 0xe9;
    return mprotect((void *)first, bytes, PROT_READ | PROT_EXEC) < 0 ? -errno : 0;
}

/* Caller holds hook_lock. */
static int hook_make(uint8_t *function, size_t bytes, void *replacement, void **original)
{
    unsigned index = atomic_load(&hook_count);
    for (unsigned i = 0; i < index; i++)
        if (hooked[i].function == function)
            return -EBUSY;
    if (index == HOOKS_MAX)
        return -ENOSPC;
    uint8_t *island = island_get(function);
    if (!island || mprotect(island_page, PAGE_BYTES, PROT_READ | PROT_WRITE) < 0)
        return -ENOMEM;
    int moved = island_fill(island, index, function, bytes);
    if (mprotect(island_page, PAGE_BYTES, PROT_READ | PROT_EXEC) < 0)
        return -errno;
    if (moved < 0)
        return moved;
    hooked[index] = (struct guide_hooked){.replacement = replacement,
                                          .trampoline = island + AT_TRAMPOLINE,
                                          .function = function,
                                          .guide = guide_starting()};
    if (original)
        *original = island + AT_ORIGINAL;
    atomic_store(&hook_count, index + 1);
    island_used += ISLAND_BYTES;
    return function_patch(function, island);
}

static int hook_symbol(const char *symbol, void *replacement, void **original)
{
    Dl_info info;
    const ElfW(Sym) *entry = NULL;
    size_t bytes = 0;
    void *function = dlsym(RTLD_DEFAULT, symbol);
    if (!function)
        return -ENOENT;
    if (dladdr1(function, &info, (void **)&entry, RTLD_DL_SYMENT) && entry &&
        info.dli_saddr == function)
        bytes = entry->st_size;
    pthread_mutex_lock(&hook_lock);
    int error = hook_make(function, bytes, replacement, original);
    pthread_mutex_unlock(&hook_lock);
    return error;
}

/*
 * A guide that were abandoned amid this would leave islands that cannot be executed, a function of
 * which half is patched, or locks of ld.so and ours. What the guide itself could have wrong, its
 * pointers, is touched before. Hooks that were made are bounded in number, those refused are not.
 */
GUIDE_PUBLIC int guide_hook(const char *symbol, void *replacement, void **original)
{
    int saved = errno;
    char name[SYMBOL_BYTES];
    size_t bytes = 0;
    if (guide_fault_self()) /* in a handler: it must not take ld.so's lock */
        return -EAGAIN;
    while (bytes < sizeof(name) && (name[bytes] = ((const volatile char *)symbol)[bytes]))
        bytes++;
    if (bytes == sizeof(name))
        return -EINVAL;
    if (original)
        *(void *volatile *)original = *original;
    guide_hold();
    int error = hook_symbol(name, replacement, original);
    guide_let_go(error == 0);
    errno = saved;
    return error;
}
