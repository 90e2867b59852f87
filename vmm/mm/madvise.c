/* SPDX-License-Identifier: Apache-2.0 */
/* madvise and mincore: what a program says and asks about residency. */
#include "vmm/mm/internal.h"

#include "fault/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

static int discard(struct mm *mm, const struct mapping *map, gpa_t first, gpa_t last)
{
    uint64_t page = first >> EPT_PAGE_SHIFT, pages = (last - first) >> EPT_PAGE_SHIFT;
    if (!map->file && mm->vm->config->local_bytes >= mm->vm->config->memory_bytes)
        return ept_drop(mm->vm->ept, page, pages); /* the host kernel's own pages: no states */
    guide_pins_drop(mm->vm->hints, first, last);
    return fault_discard(mm_context(mm), page, pages, false);
}

/*
 * What one mapping loses. DONTNEED leaves what is shared as it is: only a mapping's view of it
 * would go, and Linux keeps the pages. REMOVE is the one that takes them.
 */
static int discard_in(struct mm *mm, const struct mapping *map, gpa_t first, gpa_t last, int advice)
{
    if (advice == MADV_DONTNEED && map->shared)
        return 0;
    if (advice == MADV_FREE && (map->shared || map->file))
        return -EINVAL;
    if (advice != MADV_REMOVE || !mm_is_host_file(map))
        return advice == MADV_REMOVE && !map->shared ? -EINVAL : discard(mm, map, first, last);
    if (!map->file->writable)
        return -EACCES;
    off_t offset = (off_t)(map->offset_bytes + (first - map->start));
    return fallocate(map->file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
                     (off_t)(last - first)) < 0
               ? -errno
               : 0;
}

/* As Linux: what is mapped of the range is discarded, also where not all of it is. */
static int advise_discard(struct mm *mm, gpa_t start, gpa_t end, int advice)
{
    int error = 0;
    for (size_t i = mm_index(mm, start); i < mm->count && mm->maps[i].start < end && !error; i++) {
        const struct mapping *map = &mm->maps[i];
        error = discard_in(mm, map, map->start > start ? map->start : start,
                           map->end < end ? map->end : end, advice);
    }
    return error ? error : mm_is_covered(mm, start, end) ? 0 : -ENOMEM;
}

/*
 * A range may be larger than all memory, and the signal that ends the program waits for this
 * thread: so a kick ends the call with how many bytes of it are done, and the guest kernel looks.
 * It makes the call again with that many, so each comes a page further at least.
 */
static int64_t advise_populate(struct mm *mm, gpa_t start, gpa_t end, bool write, uint64_t done)
{
    struct vcpu *self = vcpu_self();
    unsigned need = write ? EPT_WRITE : EPT_READ;
    if (done & (EPT_PAGE_BYTES - 1) || done > end - start)
        return -EINVAL;
    for (gpa_t at = start + done; at < end; at += EPT_PAGE_BYTES) {
        if ((mm_find(mm, at)->access & need) != need)
            return -EINVAL;
        int error = fault_resolve(mm_context(mm), at >> EPT_PAGE_SHIFT, write);
        if (error < 0)
            return error == -EIO ? -EFAULT : error;
        if (atomic_load(&mm->vm->ending))
            return -EINTR;
        if (atomic_load(&self->kicked) && at + EPT_PAGE_BYTES < end)
            return (int64_t)(at + EPT_PAGE_BYTES - start);
    }
    return 0;
}

int64_t mm_advise(struct mm *mm, const uint64_t args[6])
{
    gpa_t start = args[0], end = start + MM_PAGE_UP(args[1]);
    if (start & 0xfff || end < start || MM_PAGE_UP(args[1]) < args[1])
        return -EINVAL;
    if (start == end)
        return 0;
    int advice = (int)args[2];
    if (advice == MADV_DONTNEED || advice == MADV_FREE || advice == MADV_REMOVE)
        return advise_discard(mm, start, end, advice);
    if (!mm_is_covered(mm, start, end))
        return -ENOMEM;
    switch (advice) {
    case MADV_POPULATE_READ:
    case MADV_POPULATE_WRITE:
        return advise_populate(mm, start, end, advice == MADV_POPULATE_WRITE, args[3]);
    case MADV_NORMAL:
    case MADV_RANDOM:
    case MADV_SEQUENTIAL:
    case MADV_WILLNEED:
    case MADV_COLD:
    case MADV_PAGEOUT:
    case MADV_HUGEPAGE:
    case MADV_NOHUGEPAGE:
    case MADV_DONTFORK:
    case MADV_DOFORK:
    case MADV_DONTDUMP:
    case MADV_DODUMP:
        return 0;
    default:
        return -EINVAL;
    }
}

int64_t mm_incore(struct mm *mm, const uint64_t args[6])
{
    gpa_t start = args[0], end = start + MM_PAGE_UP(args[1]);
    if (start & 0xfff || end < start || MM_PAGE_UP(args[1]) < args[1])
        return -EINVAL;
    if (!mm_is_covered(mm, start, end))
        return -ENOMEM;
    const ept_word_t *words = ept_words(mm->vm->ept);
    for (gpa_t at = start; at < end; at += EPT_PAGE_BYTES) {
        uint64_t word = atomic_load(&words[at >> EPT_PAGE_SHIFT]);
        uint8_t resident =
            ept_word_state(word) == EPT_LOCAL || ept_word_state(word) == EPT_EVICTING;
        int error =
            guestmem_write(mm->vm, args[2] + ((at - start) >> EPT_PAGE_SHIFT), &resident, 1);
        if (error)
            return error;
    }
    return 0;
}
