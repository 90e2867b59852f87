/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranges of the address space, mapped and unmapped: the table of mappings, the program's page
 * tables and the contents together. Runs in the calling vCPU's thread under `change`.
 */
#include "vmm/mm/internal.h"

#include "fault/fault.h"
#include "support.h"

#include <errno.h>
#include <time.h>

#define PINS_WAIT_NS  2000000000ULL
#define PINS_SLICE_NS 50000L

/*
 * Takes the mappings of the range out of the table, and the program's rights with them. Where the
 * host has no room to take a file away, *end becomes what precedes it, and that is all that goes.
 * *watched: some of it is watched for misses though not all memory is.
 */
static int range_erase(struct mm *mm, gpa_t start, gpa_t *end, bool *watched)
{
    pthread_rwlock_wrlock(&mm->table);
    int error = mm_split(mm, start);
    if (!error)
        error = mm_split(mm, *end);
    size_t first = mm_index(mm, start), last = first;
    for (; !error && last < mm->count && mm->maps[last].start < *end; last += !error) {
        const struct mapping *map = &mm->maps[last];
        mm_protect(mm, map, map->start, map->end, EPT_NONE);
        if (mm_is_host_file(map))
            error = ept_map_memory(mm->vm->ept, map->start, map->end - map->start);
        if (error) {
            mm_protect(mm, map, map->start, map->end, map->access);
            *end = map->start;
        } else {
            *watched |= map->file && !map->shared;
        }
    }
    mm_erase(mm, first, last - first);
    pthread_rwlock_unlock(&mm->table);
    return error;
}

/* Nobody can map the range anew before its old contents are gone: the caller holds `change`. */
static int range_discard(struct mm *mm, gpa_t start, gpa_t end)
{
    guide_pins_drop(mm->vm->hints, start, end);
    return fault_discard(mm_context(mm), start >> EPT_PAGE_SHIFT, (end - start) >> EPT_PAGE_SHIFT,
                         true);
}

/*
 * Watched to the end of the discard: who had claimed a page of a file before the mapping went
 * installs it, and the discard waits for that. Where nothing is watched it could not.
 */
int mm_unmap_range(struct mm *mm, gpa_t start, gpa_t end)
{
    bool watched = false;
    gpa_t erased = end;
    int error = range_erase(mm, start, &erased, &watched);
    if (!error || erased < end) {
        int discarded = erased > start ? range_discard(mm, start, erased) : 0;
        error = error ? error : discarded;
    }
    if (watched)
        ept_watch(mm->vm->ept, start, erased - start, false);
    return error;
}

/*
 * A request that was under way when the range was unmapped may have filled a page since. Contents
 * of before never show: they are discarded again. A file does not go where a page is still pinned,
 * so that is waited for: a guide's look holds it for a copy of some bytes, a request for as long as
 * the host transfers. None of them waits for us (holds_pins). Who sleeps on a priority-inheriting
 * lock there lets go when told (io/futex_owner.c). What takes longer than PINS_WAIT_NS is refused.
 */
static int range_make_empty(struct mm *mm, const struct mapping *mapping)
{
    static const struct timespec slice = {.tv_nsec = PINS_SLICE_NS};
    uint64_t end = mapping->end >> EPT_PAGE_SHIFT, until_ns = clock_now_ns() + PINS_WAIT_NS;
    for (;;) {
        int error = range_discard(mm, mapping->start, mapping->end);
        if (error || !mapping->file ||
            fault_next_existing(mm->vm->engine, mapping->start >> EPT_PAGE_SHIFT, end) >= end)
            return error;
        if (clock_now_ns() >= until_ns || atomic_load(&mm->vm->ending))
            return -ENOMEM;
        hostio_let_go(mm->vm, mapping->start, mapping->end);
        nanosleep(&slice, NULL);
    }
}

/* What a file needs of the second stage, undone. */
static void range_restore(struct mm *mm, const struct mapping *mapping)
{
    uint64_t bytes = mapping->end - mapping->start;
    if (mm_is_host_file(mapping))
        ept_map_memory(mm->vm->ept, mapping->start, bytes);
    else if (mapping->file)
        ept_watch(mm->vm->ept, mapping->start, bytes, false);
}

int mm_lay_range(struct mm *mm, const struct mapping *mapping, unsigned access)
{
    struct ept *ept = mm->vm->ept;
    uint64_t bytes = mapping->end - mapping->start;
    /* A reservation gets its memory slots with its rights: mprotect. */
    int error = mapping->access || mapping->file ? ept_back(ept, mapping->start, bytes) : 0;
    /* Memory that is not paged has no pins: a request that used it before it was unmapped would
     * find pages of the file missing. */
    if (!error && mapping->file &&
        !mm_users_wait(mm, (struct mm_range){mapping->start, mapping->end}))
        error = -ENOMEM;
    if (!error)
        error = range_make_empty(mm, mapping);
    if (!error && mm_is_host_file(mapping))
        error = ept_map_file(ept, mapping->start, bytes, mapping->file->fd, mapping->offset_bytes,
                             mapping->file->writable);
    else if (!error && mapping->file)
        error = ept_watch(ept, mapping->start, bytes, true);
    if (error)
        return error;
    pthread_rwlock_wrlock(&mm->table);
    error = mm_insert(mm, mapping);
    if (error)
        range_restore(mm, mapping); /* no room in the table: as if it had not been tried */
    else
        error = mm_protect(mm, mapping, mapping->start, mapping->end, access);
    pthread_rwlock_unlock(&mm->table);
    return error;
}

int mm_map_range(struct mm *mm, const struct mapping *mapping)
{
    return mm_lay_range(mm, mapping, mapping->access);
}

int mm_grant_range(struct mm *mm, const struct mapping *mapping, gpa_t start, gpa_t end,
                   unsigned access)
{
    pthread_rwlock_wrlock(&mm->table);
    int error = mm_protect(mm, mapping, start, end, access);
    pthread_rwlock_unlock(&mm->table);
    return error;
}

/* For the program one step: mm/replace.c. */
int mm_map_over(struct mm *mm, const struct mapping *mapping)
{
    struct mm_range target = {mapping->start, mapping->end}, none = {0, 0};
    mm_replace_begin(mm, target, none);
    int error = mm_unmap_range(mm, mapping->start, mapping->end);
    if (!error)
        error = mm_map_range(mm, mapping);
    mm_replace_end(mm);
    return error;
}
