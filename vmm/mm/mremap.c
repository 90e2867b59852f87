/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mremap. A mapping grows in place where it can. Moving copies what exists page by page, since a
 * guest address is where the memory is; the new place leaves room to grow, so that an array that
 * realloc() grows again and again is copied once.
 */
#include "vmm/miss.h"
#include "vmm/mm/internal.h"

#include "fault/fault.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define MOVE_BATCH_PAGES 512u
#define MOVE_ENTRIES     4u /* of the table: two mappings cut in two, the new one, one to spare */
#define ROOM_MAX         (8ULL << 30)

static int page_copy(struct mm *mm, uint64_t from, uint64_t to)
{
    struct fault_context *context = mm_context(mm);
    int error = fault_pin(context, from, 1, false);
    if (error)
        return error;
    error = fault_pin(context, to, 1, true);
    if (!error) {
        memcpy(ept_hva(mm->vm->ept, to << EPT_PAGE_SHIFT),
               ept_hva(mm->vm->ept, from << EPT_PAGE_SHIFT), EPT_PAGE_BYTES);
        fault_unpin(mm->vm->engine, to, 1);
    }
    fault_unpin(mm->vm->engine, from, 1);
    return error;
}

/* Moves contents batch by batch, giving up the old pages on the way: the quota never sees both. */
static int contents_move(struct mm *mm, const struct mapping *map, gpa_t to, uint64_t bytes)
{
    uint64_t first = map->start >> EPT_PAGE_SHIFT, end = first + (bytes >> EPT_PAGE_SHIFT);
    uint64_t target = to >> EPT_PAGE_SHIFT, done = first;
    int error = 0;
    for (uint64_t page = first; !error;) {
        page = fault_next_existing(mm->vm->engine, page, end);
        if (page >= done + MOVE_BATCH_PAGES || page >= end) {
            uint64_t until = page < end ? page : end;
            error = fault_discard(mm_context(mm), done, until - done, false);
            done = until;
        }
        if (page >= end || error)
            break;
        error = page_copy(mm, page, target + (page - first));
        page++;
    }
    return error;
}

/* Anonymous memory that nobody pages is the host kernel's to move. */
static int bytes_move(struct mm *mm, const struct mapping *map, gpa_t to, uint64_t bytes)
{
    bool paged = mm->vm->config->local_bytes < mm->vm->config->memory_bytes;
    guide_pins_drop(mm->vm->hints, map->start, map->start + bytes);
    if (!map->file && !paged)
        return ept_move(mm->vm->ept, map->start >> EPT_PAGE_SHIFT, to >> EPT_PAGE_SHIFT,
                        bytes >> EPT_PAGE_SHIFT);
    return mm_is_host_file(map) ? 0 : contents_move(mm, map, to, bytes);
}

static int64_t move(struct mm *mm, const struct mapping *map, gpa_t to, uint64_t old_bytes,
                    uint64_t new_bytes)
{
    struct mapping moved = *map;
    moved.start = to;
    moved.end = to + new_bytes;
    int error = mm_lay_range(mm, &moved, EPT_NONE);
    if (error)
        return error;
    /* What is stored to it now must be what is moved. */
    error = mm_grant_range(mm, map, map->start, map->start + old_bytes, EPT_NONE);
    if (!error)
        error = bytes_move(mm, map, to, old_bytes < new_bytes ? old_bytes : new_bytes);
    if (error) /* half here, half there: a program must not go on with that */
        return miss_fatal(vcpu_self(), to, error);
    error = mm_unmap_range(mm, map->start, map->start + old_bytes);
    if (error)
        return miss_fatal(vcpu_self(), to, error);
    /* Where there is no room for a leaf table now, the first touch asks again (mm_access_fault). */
    (void)mm_grant_range(mm, &moved, to, to + new_bytes, moved.access);
    return (int64_t)to;
}

/* Neither a part of what is moved shows before all of it has, nor its place without it. */
static int64_t move_at_once(struct mm *mm, const struct mapping *map, gpa_t to, uint64_t old_bytes,
                            uint64_t new_bytes)
{
    struct mm_range target = {to, to + new_bytes}, source = {map->start, map->start + old_bytes};
    mm_replace_begin(mm, target, source);
    pthread_rwlock_wrlock(&mm->table);
    int64_t result = mm_reserve(mm, MOVE_ENTRIES);
    pthread_rwlock_unlock(&mm->table);
    if (!result && !mm_is_free(mm, target.start, target.end))
        result = mm_unmap_range(mm, target.start, target.end);
    if (!result)
        result = move(mm, map, to, old_bytes, new_bytes);
    mm_replace_end(mm);
    return result;
}

static int64_t grow_in_place(struct mm *mm, const struct mapping *map, uint64_t old_bytes,
                             uint64_t new_bytes)
{
    struct mapping more = *map;
    more.start = map->start + old_bytes;
    more.end = map->start + new_bytes;
    if (more.end > ept_span(mm->vm->ept) ||
        (more.start < FV_KERNEL_BASE && more.end > FV_KERNEL_BASE) ||
        !mm_is_free(mm, more.start, more.end))
        return -ENOMEM;
    more.offset_bytes += map->file ? old_bytes : 0;
    int error = mm_map_range(mm, &more);
    return error ? error : (int64_t)map->start;
}

int64_t mm_remap(struct mm *mm, const uint64_t args[6])
{
    gpa_t start = args[0];
    uint64_t old_bytes = MM_PAGE_UP(args[1]), new_bytes = MM_PAGE_UP(args[2]);
    if (start & 0xfff || !old_bytes || !new_bytes || new_bytes < args[2] ||
        args[3] & ~(uint64_t)(MREMAP_MAYMOVE | MREMAP_FIXED) ||
        (args[3] & MREMAP_FIXED && !(args[3] & MREMAP_MAYMOVE)))
        return -EINVAL;
    const struct mapping *found = mm_find(mm, start);
    if (!found || found->end - start < old_bytes)
        return -EFAULT;
    struct mapping map = *found; /* the array may move under edits */
    map.offset_bytes += map.file ? start - map.start : 0;
    map.start = start;
    if (!(args[3] & MREMAP_FIXED)) {
        if (new_bytes == old_bytes)
            return (int64_t)start;
        if (new_bytes < old_bytes)
            return mm_unmap_range(mm, start + new_bytes, start + old_bytes) ?: (int64_t)start;
        if (new_bytes > mm->vm->config->memory_bytes)
            return -ENOMEM;
        int64_t grown = grow_in_place(mm, &map, old_bytes, new_bytes);
        if (grown >= 0 || !(args[3] & MREMAP_MAYMOVE))
            return grown;
    }
    gpa_t to = args[4];
    if (args[3] & MREMAP_FIXED) {
        if (to & 0xfff || to < FV_USER_MIN || to > ept_span(mm->vm->ept) ||
            new_bytes > ept_span(mm->vm->ept) - to ||
            (to < start + old_bytes && start < to + new_bytes) ||
            (to < FV_USER_HIGH_BASE && to + new_bytes > FV_KERNEL_BASE))
            return -EINVAL;
    } else {
        uint64_t room = new_bytes * 4 < ROOM_MAX ? new_bytes * 4 : ROOM_MAX;
        to = mm_place(mm, new_bytes, room, false);
        if (!to)
            return -ENOMEM;
    }
    mm_file_get(map.file);
    int64_t result = move_at_once(mm, &map, to, old_bytes, new_bytes);
    mm_file_put(map.file);
    return result;
}
