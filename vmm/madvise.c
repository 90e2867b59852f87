/* SPDX-License-Identifier: Apache-2.0 */
/* madvise and mincore: what a program says and asks about residency. */
#include "vmm/mm_internal.h"

#include "fault/fault.h"

#include <errno.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

/* Of a shared file nothing is discarded: its pages are the file's. */
static int advise_discard(struct mm *mm, gpa_t start, gpa_t end)
{
    int error = 0;
    for (size_t i = mm_index(mm, start); i < mm->count && mm->maps[i].start < end && !error; i++) {
        const struct mapping *map = &mm->maps[i];
        gpa_t first = map->start > start ? map->start : start;
        gpa_t last = map->end < end ? map->end : end;
        uint64_t page = first >> EPT_PAGE_SHIFT, pages = (last - first) >> EPT_PAGE_SHIFT;
        bool paged = mm->vm->config->local_bytes < mm->vm->config->memory_bytes;
        if (!map->file && !paged) /* the host kernel's own pages: no states */
            error = ept_drop(mm->vm->ept, page, pages);
        else if (!mm_is_host_file(map)) {
            guide_pins_drop(mm->vm->hints, first, last);
            error = fault_discard(mm_context(mm), page, pages, false);
        }
    }
    return error;
}

static int advise_populate(struct mm *mm, gpa_t start, gpa_t end, bool write)
{
    for (gpa_t at = start; at < end; at += EPT_PAGE_BYTES) {
        int error = fault_resolve(mm_context(mm), at >> EPT_PAGE_SHIFT, write);
        if (error < 0)
            return error == -EIO ? -EFAULT : error;
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
    if (!mm_is_covered(mm, start, end))
        return -ENOMEM;
    switch ((int)args[2]) {
    case MADV_DONTNEED:
    case MADV_FREE:
    case MADV_REMOVE:
        return advise_discard(mm, start, end);
    case MADV_POPULATE_READ:
    case MADV_POPULATE_WRITE:
        return advise_populate(mm, start, end, args[2] == MADV_POPULATE_WRITE);
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
