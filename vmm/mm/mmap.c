/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mmap, munmap, mprotect, brk, msync: what Linux does, on the table of mappings, the guest's page
 * tables (rights) and the paging engine (contents). Runs in the calling vCPU's thread under
 * `change`.
 */
#include "vmm/mm/internal.h"

#include "fault/fault.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define HEAP_STEP_MAX   (2ULL << 20)
#define CHANGE_SLICE_NS 20000000u

static unsigned access_of(uint64_t prot)
{
    unsigned access = 0;
    if (prot & (PROT_READ | PROT_WRITE | PROT_EXEC))
        access |= EPT_READ; /* x86 has no write-only or execute-only pages */
    return access | (prot & PROT_WRITE ? EPT_WRITE : 0) | (prot & PROT_EXEC ? EPT_EXEC : 0);
}

/* Is [start, end) a range a program may have at all? */
static bool range_valid(const struct mm *mm, gpa_t start, uint64_t bytes)
{
    gpa_t end;
    if (start & 0xfff || !bytes || __builtin_add_overflow(start, bytes, &end))
        return false;
    return (start >= FV_USER_MIN && end <= FV_KERNEL_BASE) ||
           (start >= FV_USER_HIGH_BASE && end <= ept_span(mm->vm->ept));
}

/* ---- mmap ---- */

/* Nothing is opened and closed again for the question: mm/file.c. 1: anonymous, by another name. */
static int file_check(const struct stat *st, int flags, const uint64_t args[6])
{
    bool shared_write = (args[3] & MAP_TYPE) != MAP_PRIVATE && args[2] & PROT_WRITE;
    if (flags == O_WRONLY || (shared_write && flags != O_RDWR))
        return -EACCES;
    if (S_ISCHR(st->st_mode) && st->st_rdev == makedev(1, 5)) /* /dev/zero */
        return 1;
    return S_ISREG(st->st_mode) ? 0 : -ENODEV;
}

/* They do not come in pages of 4 KiB, nor at any address. */
static bool is_of_huge_pages(int fd)
{
    struct statfs system;
    return fstatfs(fd, &system) == 0 && system.f_type == HUGETLBFS_MAGIC;
}

static int file_open(struct mm *mm, const uint64_t args[6], struct mm_file **out)
{
    struct stat st;
    int flags = 0, error = hostio_fd_stat(mm->vm->io, (int)args[4], &st, &flags);
    if (!error)
        error = file_check(&st, flags, args);
    if (error)
        return error == 1 ? 0 : error;
    *out = mm_file_find(st.st_dev, st.st_ino, flags == O_RDWR);
    if (*out)
        return 0;
    struct mm_file *file = calloc(1, sizeof(*file));
    if (!file)
        return -ENOMEM;
    int fd = hostio_dup_host(mm->vm->io, (int)args[4], &flags);
    /* The number may name another file by now, that was not looked at. */
    error = fd < 0 ? fd : fstat(fd, &st) < 0 ? -errno : file_check(&st, flags, args);
    if (!error && is_of_huge_pages(fd))
        error = -ENODEV;
    if (error) {
        if (fd >= 0)
            close(fd);
        free(file);
        return error == 1 ? -EBADF : error;
    }
    char link[64], path[4096];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t bytes = readlink(link, path, sizeof(path) - 1);
    *file = (struct mm_file){.users = 1,
                             .fd = fd,
                             .writable = flags == O_RDWR,
                             .device = st.st_dev,
                             .inode = st.st_ino,
                             .path = bytes > 0 ? strndup(path, (size_t)bytes) : NULL};
    *out = file;
    return 0;
}

/* Chooses or checks the address. The address, or -errno as a negative number. */
static int64_t mmap_address(struct mm *mm, const uint64_t args[6], uint64_t bytes)
{
    gpa_t wish = args[0] & ~0xfffULL;
    bool fixed = args[3] & (MAP_FIXED | MAP_FIXED_NOREPLACE);
    if (fixed && args[0] & 0xfff)
        return -EINVAL;
    if (wish && range_valid(mm, wish, bytes)) {
        bool is_free = mm_is_free(mm, wish, wish + bytes);
        if (is_free || (fixed && !(args[3] & MAP_FIXED_NOREPLACE)))
            return (int64_t)wish;
        if (args[3] & MAP_FIXED_NOREPLACE)
            return -EEXIST;
    } else if (fixed) {
        return wish < FV_USER_MIN ? -EPERM : -ENOMEM;
    }
    gpa_t at = mm_place(mm, bytes, 0, args[3] & MAP_32BIT);
    return at ? (int64_t)at : -ENOMEM;
}

/* What Linux's heuristic overcommit refuses: one mapping larger than all the memory there is. */
static bool overcommits(const struct mm *mm, const uint64_t args[6], uint64_t bytes)
{
    if (!(args[2] & PROT_WRITE) || args[3] & MAP_NORESERVE)
        return false;
    const struct run_config *config = mm->vm->config;
    if (bytes > config->memory_bytes)
        return true;
    /* Nothing is paged: the host fills pages without asking us, so ask it what exists. */
    return config->local_bytes == config->memory_bytes &&
           ept_resident_bytes(mm->vm->ept) > config->memory_bytes;
}

int64_t mm_map_at(struct mm *mm, const uint64_t args[6], struct mm_file *file)
{
    uint64_t bytes = MM_PAGE_UP(args[1]);
    int64_t at = mmap_address(mm, args, bytes);
    if (at < 0)
        return at;
    struct mapping mapping = {
        .start = (gpa_t)at,
        .end = (gpa_t)at + bytes,
        .access = access_of(args[2]),
        .shared = (args[3] & MAP_TYPE) != MAP_PRIVATE,
        .stack = args[3] & (MAP_STACK | MAP_GROWSDOWN),
        .file = file,
        .offset_bytes = file ? args[5] : 0,
        .label = args[3] & MAP_GROWSDOWN ? "[stack]" : NULL,
    };
    int error = mm_is_free(mm, mapping.start, mapping.end) ? mm_map_range(mm, &mapping)
                                                           : mm_map_over(mm, &mapping);
    return error ? error : at;
}

static int64_t mm_mmap(struct mm *mm, const uint64_t args[6])
{
    uint64_t bytes = MM_PAGE_UP(args[1]), type = args[3] & MAP_TYPE;
    struct mm_file *file = NULL;
    if (!args[1] || args[5] & 0xfff ||
        (type != MAP_PRIVATE && type != MAP_SHARED && type != MAP_SHARED_VALIDATE))
        return -EINVAL;
    if (bytes < args[1] || bytes > ept_span(mm->vm->ept) || args[3] & MAP_HUGETLB)
        return -ENOMEM;
    /* Who is given MAP_SYNC flushes the processor's caches instead of the file. */
    if (type == MAP_SHARED_VALIDATE && args[3] & (MAP_SYNC | MAP_ANONYMOUS))
        return args[3] & MAP_ANONYMOUS ? -EINVAL : -EOPNOTSUPP;
    if (overcommits(mm, args, bytes))
        return -ENOMEM;
    int error = args[3] & MAP_ANONYMOUS ? 0 : file_open(mm, args, &file);
    if (error)
        return error;
    int64_t at = mm_map_at(mm, args, file);
    mm_file_put(file);
    return at;
}

/* ---- munmap, mprotect, brk, msync ---- */

static int64_t mm_munmap(struct mm *mm, const uint64_t args[6])
{
    uint64_t bytes = MM_PAGE_UP(args[1]);
    if (!range_valid(mm, args[0], bytes))
        return -EINVAL;
    return mm_unmap_range(mm, args[0], args[0] + bytes);
}

static int64_t mm_mprotect(struct mm *mm, const uint64_t args[6])
{
    gpa_t start = args[0], end = start + MM_PAGE_UP(args[1]);
    uint64_t known = PROT_READ | PROT_WRITE | PROT_EXEC | PROT_GROWSDOWN | PROT_GROWSUP;
    if (start & 0xfff || args[2] & ~known)
        return -EINVAL;
    if (end < start || MM_PAGE_UP(args[1]) < args[1])
        return -ENOMEM;
    if (start == end)
        return 0;
    unsigned access = access_of(args[2]);
    if (!mm_is_covered(mm, start, end))
        return -ENOMEM;
    for (size_t i = mm_index(mm, start); i < mm->count && mm->maps[i].start < end; i++)
        if (mm_is_host_file(&mm->maps[i]) && access & EPT_WRITE && !mm->maps[i].file->writable)
            return -EACCES;
    int error = access ? ept_back(mm->vm->ept, start, end - start) : 0;
    if (error)
        return error;
    pthread_rwlock_wrlock(&mm->table);
    error = mm_split(mm, start);
    if (!error)
        error = mm_split(mm, end);
    for (size_t i = mm_index(mm, start); !error && i < mm->count && mm->maps[i].start < end; i++) {
        struct mapping *map = &mm->maps[i];
        map->access = access;
        error = mm_protect(mm, map, map->start, map->end, map->access);
    }
    mm_merge_around(mm, start, end);
    pthread_rwlock_unlock(&mm->table);
    return error;
}

/*
 * Where nothing is paged, what malloc adds to the heap in its small steps is filled at once: it is
 * wanted now, and a fault inside the host for each page costs the program the translations that
 * its processor had cached. A program that reserves a large heap keeps its lazy pages.
 */
static void heap_fill(struct mm *mm, gpa_t old_end, gpa_t end)
{
    bool paged = mm->vm->config->local_bytes < mm->vm->config->memory_bytes;
    if (paged || end - old_end > HEAP_STEP_MAX)
        return;
    ept_populate(mm->vm->ept, old_end >> EPT_PAGE_SHIFT, (end - old_end) >> EPT_PAGE_SHIFT);
}

static int64_t mm_brk(struct mm *mm, const uint64_t args[6])
{
    gpa_t wanted = args[0], old_end = MM_PAGE_UP(mm->brk), end = MM_PAGE_UP(wanted);
    if (wanted < mm->brk_base || end < wanted ||
        wanted - mm->brk_base > mm->vm->config->memory_bytes)
        return (int64_t)mm->brk;
    int error = 0;
    if (end > old_end) {
        struct mapping heap = {
            .start = old_end, .end = end, .access = EPT_READ | EPT_WRITE, .label = "[heap]"};
        error = range_valid(mm, old_end, end - old_end) && mm_is_free(mm, old_end, end)
                    ? mm_map_range(mm, &heap)
                    : -ENOMEM;
        if (!error)
            heap_fill(mm, old_end, end);
    } else if (end < old_end) {
        error = mm_unmap_range(mm, end, old_end);
    }
    if (!error)
        mm->brk = wanted;
    return (int64_t)mm->brk;
}

/*
 * Another thread may hold it for long (a populate, far memory that does not answer), and a signal
 * that ends the program must not wait for that: on a kick the guest kernel looks at what came, and
 * asks again.
 */
static int64_t change_take(struct mm *mm, const struct vcpu *vcpu)
{
    while (pthread_mutex_trylock(&mm->change)) {
        uint64_t until_ns = clock_now_ns() + CHANGE_SLICE_NS;
        struct timespec until = {(time_t)(until_ns / 1000000000), (long)(until_ns % 1000000000)};
        if (pthread_mutex_clocklock(&mm->change, CLOCK_MONOTONIC, &until) == 0)
            break;
        if (atomic_load(&vcpu->kicked) || atomic_load(&mm->vm->ending))
            return -FV_ERESTARTNOINTR;
    }
    return 0;
}

/* The next file of [*at, end) whose pages are the host's, with a reference; or NULL. 0 or -errno.
 */
static int64_t next_host_file(struct mm *mm, const struct vcpu *vcpu, gpa_t *at, gpa_t end,
                              struct mm_file **file)
{
    *file = NULL;
    int64_t error = change_take(mm, vcpu);
    if (error)
        return error;
    size_t i = mm_index(mm, *at);
    while (i < mm->count && mm->maps[i].start < end && !mm_is_host_file(&mm->maps[i]))
        i++;
    *at = end;
    if (i < mm->count && mm->maps[i].start < end) {
        *at = mm->maps[i].end;
        *file = mm_file_get(mm->maps[i].file);
    }
    pthread_mutex_unlock(&mm->change);
    return 0;
}

/*
 * Shared file pages are the file's own in the host's cache: only durability is left to ask for. A
 * disk may take its time, and other threads want memory meanwhile: `change` is not held.
 */
static int64_t mm_msync(struct mm *mm, const struct vcpu *vcpu, const uint64_t args[6])
{
    gpa_t start = args[0], end = start + MM_PAGE_UP(args[1]);
    if (start & 0xfff || end < start + args[1] ||
        args[2] & ~(uint64_t)(MS_ASYNC | MS_INVALIDATE | MS_SYNC) ||
        (args[2] & MS_ASYNC && args[2] & MS_SYNC))
        return -EINVAL;
    int64_t error = change_take(mm, vcpu);
    if (error)
        return error;
    bool covered = mm_is_covered(mm, start, end);
    pthread_mutex_unlock(&mm->change);
    if (!covered)
        return -ENOMEM;
    for (gpa_t at = start; at < end && args[2] & MS_SYNC;) {
        struct mm_file *file;
        error = next_host_file(mm, vcpu, &at, end, &file);
        if (file && fdatasync(file->fd) < 0)
            error = -errno;
        mm_file_put(file);
        if (error)
            return error;
    }
    return 0;
}

int64_t mm_call(struct vcpu *vcpu, uint32_t number, const uint64_t args[6])
{
    struct mm *mm = vcpu->vm->mm;
    if (number == SYS_msync)
        return mm_msync(mm, vcpu, args);
    int64_t result = change_take(mm, vcpu);
    if (result)
        return result;
    switch (number) {
    case SYS_mmap:
        result = mm_mmap(mm, args);
        break;
    case SYS_munmap:
        result = mm_munmap(mm, args);
        break;
    case SYS_mprotect:
        result = mm_mprotect(mm, args);
        break;
    case SYS_brk:
        result = mm_brk(mm, args);
        break;
    case SYS_mremap:
        result = mm_remap(mm, args);
        break;
    case SYS_madvise:
        result = mm_advise(mm, args);
        break;
    case SYS_mincore:
        result = mm_incore(mm, args);
        break;
    case SYS_shmget:
    case SYS_shmat:
    case SYS_shmdt:
    case SYS_shmctl:
        result = mm_shm_call(mm, number, args);
        break;
    /* Residency is the paging engine's business; a lock is taken as the hint that it is. */
    case SYS_mlock:
    case SYS_mlock2:
    case SYS_munlock:
    case SYS_mlockall:
    case SYS_munlockall:
        result = 0;
        break;
    default:
        result = -ENOSYS;
        break;
    }
    mm_shm_sweep(mm);
    pthread_mutex_unlock(&mm->change);
    return result;
}
