/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program's address space: the table of mappings, access checks, where a page's first contents
 * come from, and what /proc/self/maps shows. Editing calls are in mmap.c, mremap.c and madvise.c.
 */
#include "vmm/miss.h"
#include "vmm/mm/internal.h"

#include "fault/fault.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define LEAF_BYTES   (2ULL << 20) /* what one leaf table covers */
#define MAPPINGS_MAX 65530u       /* as vm.max_map_count */

/* ---- the table ---- */

size_t mm_index(const struct mm *mm, gpa_t gpa)
{
    size_t low = 0, high = mm->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (mm->maps[middle].end <= gpa)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct mapping *mm_find(const struct mm *mm, gpa_t gpa)
{
    size_t i = mm_index(mm, gpa);
    return i < mm->count && mm->maps[i].start <= gpa ? &mm->maps[i] : NULL;
}

bool mm_is_free(const struct mm *mm, gpa_t start, gpa_t end)
{
    size_t i = mm_index(mm, start);
    return i == mm->count || mm->maps[i].start >= end;
}

bool mm_is_covered(const struct mm *mm, gpa_t start, gpa_t end)
{
    for (size_t i = mm_index(mm, start); start < end; i++) {
        if (i == mm->count || mm->maps[i].start > start)
            return false;
        start = mm->maps[i].end;
    }
    return true;
}

int mm_reserve(struct mm *mm, size_t room)
{
    if (mm->count + room > MAPPINGS_MAX)
        return -ENOMEM;
    if (mm->count + room > mm->capacity) {
        size_t capacity = mm->capacity ? mm->capacity * 2 : 64;
        struct mapping *maps = reallocarray(mm->maps, capacity, sizeof(*maps));
        if (!maps)
            return -ENOMEM;
        mm->maps = maps;
        mm->capacity = capacity;
    }
    return 0;
}

static int table_open(struct mm *mm, size_t at, size_t room)
{
    if (mm_reserve(mm, room))
        return -ENOMEM;
    memmove(&mm->maps[at + room], &mm->maps[at], (mm->count - at) * sizeof(*mm->maps));
    mm->count += room;
    return 0;
}

int mm_split(struct mm *mm, gpa_t at)
{
    size_t i = mm_index(mm, at);
    if (i == mm->count || mm->maps[i].start >= at)
        return 0;
    if (table_open(mm, i, 1))
        return -ENOMEM;
    struct mapping *left = &mm->maps[i], *right = &mm->maps[i + 1];
    *left = *right;
    left->end = right->start = at;
    if (right->file) {
        mm_file_get(right->file);
        right->offset_bytes += at - left->start;
    }
    return 0;
}

static bool mergeable(const struct mapping *a, const struct mapping *b)
{
    return a->end == b->start && a->access == b->access && a->shared == b->shared &&
           a->stack == b->stack && a->file == b->file && a->label == b->label &&
           (!a->file || a->offset_bytes + (a->end - a->start) == b->offset_bytes);
}

void mm_erase(struct mm *mm, size_t first, size_t count)
{
    if (!count) /* perhaps there is no table yet */
        return;
    for (size_t i = first; i < first + count; i++)
        mm_file_put(mm->maps[i].file);
    memmove(&mm->maps[first], &mm->maps[first + count],
            (mm->count - first - count) * sizeof(*mm->maps));
    mm->count -= count;
}

void mm_merge_around(struct mm *mm, gpa_t start, gpa_t end)
{
    size_t i = mm_index(mm, start);
    if (i > 0)
        i--;
    while (i + 1 < mm->count && mm->maps[i].start <= end) {
        if (!mergeable(&mm->maps[i], &mm->maps[i + 1])) {
            i++;
            continue;
        }
        mm->maps[i].end = mm->maps[i + 1].end;
        mm_erase(mm, i + 1, 1);
    }
}

int mm_insert(struct mm *mm, const struct mapping *mapping)
{
    size_t at = mm_index(mm, mapping->start);
    if (table_open(mm, at, 1))
        return -ENOMEM;
    mm->maps[at] = *mapping;
    mm_file_get(mapping->file);
    mm_merge_around(mm, mapping->start, mapping->end);
    return 0;
}

/* ---- life ---- */

int mm_create(struct mm **out, struct vm *vm)
{
    struct mm *mm = calloc(1, sizeof(*mm));
    if (!mm)
        return -ENOMEM;
    mm->vm = vm;
    pthread_mutex_init(&mm->change, NULL);
    pthread_rwlock_init(&mm->replace, NULL);
    pthread_rwlock_init(&mm->table, NULL);
    mm->high_end = ept_span(vm->ept);
    mm->high_first = mm->high_end > FV_USER_HIGH_BASE ? FV_USER_HIGH_BASE : FV_KERNEL_BASE / 2;
    if (mm->high_end <= FV_USER_HIGH_BASE)
        mm->high_end = FV_KERNEL_BASE;
    *out = mm;
    return 0;
}

void mm_destroy(struct mm *mm)
{
    if (!mm)
        return;
    mm_erase(mm, 0, mm->count);
    mm_shm_end(mm);
    mm_files_close();
    free(mm->maps);
    pthread_mutex_destroy(&mm->change);
    pthread_rwlock_destroy(&mm->replace);
    pthread_rwlock_destroy(&mm->table);
    free(mm);
}

struct fault_context *mm_context(struct mm *mm)
{
    struct vcpu *self = vcpu_self();
    return self ? self->fault : mm->vm->vcpus[0]->fault;
}

void mm_set_brk_base(struct mm *mm, gpa_t base)
{
    pthread_mutex_lock(&mm->change);
    mm->brk_base = mm->brk = MM_PAGE_UP(base);
    pthread_mutex_unlock(&mm->change);
}

/* ---- questions ---- */

unsigned mm_access(struct mm *mm, gpa_t gpa)
{
    enum mm_look look = mm_look_begin(mm, gpa, gpa + 1);
    const struct mapping *mapping = look == MM_LOOK_REFUSED ? NULL : mm_find(mm, gpa);
    unsigned access = mapping ? mapping->access : EPT_NONE;
    mm_look_end(mm, look);
    return access;
}

bool mm_allows(struct mm *mm, gpa_t gpa, uint64_t bytes, unsigned need)
{
    gpa_t end;
    if (__builtin_add_overflow(gpa, bytes, &end))
        return false;
    enum mm_look look = mm_look_begin(mm, gpa, end);
    bool allowed = look != MM_LOOK_REFUSED;
    for (size_t i = allowed ? mm_index(mm, gpa) : 0; allowed && gpa < end; i++) {
        allowed = i < mm->count && mm->maps[i].start <= gpa && (mm->maps[i].access & need) == need;
        if (allowed)
            gpa = mm->maps[i].end;
    }
    mm_look_end(mm, look);
    return allowed;
}

static unsigned needed_access(uint32_t error_code)
{
    if (error_code & 16) /* instruction fetch */
        return EPT_EXEC;
    return error_code & 2 ? EPT_WRITE : EPT_READ;
}

/*
 * Gives the leaf entries of the mapping around gpa, in its 2 MiB, their rights. Where nothing is
 * paged, a whole block of anonymous memory is filled now: one exit, and if possible one huge page,
 * in place of 512 faults inside the host. Read lock.
 */
static int leaf_fill(struct mm *mm, const struct mapping *mapping, gpa_t gpa)
{
    gpa_t first = gpa & ~(LEAF_BYTES - 1), last = first + LEAF_BYTES;
    bool paged = mm->vm->config->local_bytes < mm->vm->config->memory_bytes;
    bool whole = mapping->start <= first && last <= mapping->end;
    if (!paged && !mapping->file && ept_resident_bytes(mm->vm->ept) > mm->vm->config->memory_bytes)
        return -ENOMEM;
    /* Only while the program goes through it in order: a sparse one would pay 512 pages for one. */
    bool in_order = first == mapping->start ||
                    ept_table_access(mm->vm->ept, first - EPT_PAGE_BYTES) != EPT_NONE;
    if (whole && in_order && !paged && !mapping->file && !mapping->stack &&
        mapping->access & EPT_WRITE)
        ept_populate(mm->vm->ept, first >> EPT_PAGE_SHIFT, 512);
    first = first > mapping->start ? first : mapping->start;
    last = last < mapping->end ? last : mapping->end;
    return mm_protect(mm, mapping, first, last, mapping->access);
}

int mm_access_fault(struct vcpu *vcpu, gpa_t gpa, uint32_t error_code, int *si_code)
{
    struct mm *mm = vcpu->vm->mm;
    unsigned need = needed_access(error_code);
    int signal = 0;
    /* The whole of what leaf_fill may give rights to. */
    gpa_t block = gpa & ~(LEAF_BYTES - 1);
    enum mm_look look = mm_look_begin(mm, block, block + LEAF_BYTES);
    const struct mapping *mapping = look == MM_LOOK_REFUSED ? NULL : mm_find(mm, gpa);
    if (!mapping || (mapping->access & need) != need) {
        signal = SIGSEGV;
        *si_code = mapping ? SEGV_ACCERR : SEGV_MAPERR;
    } else if ((ept_table_access(vcpu->vm->ept, gpa) & need) != need &&
               leaf_fill(mm, mapping, gpa)) {
        miss_fatal(vcpu, gpa, -ENOMEM); /* no room for a page of its table */
    }
    mm_look_end(mm, look);
    return signal;
}

/* ---- where first contents come from (fault_source) ---- */

/* Pages of the file that the mapping covers, from its start. */
static uint64_t pages_in_file(const struct mapping *mapping)
{
    struct stat st;
    uint64_t end = fstat(mapping->file->fd, &st) < 0 ? 0 : (uint64_t)st.st_size;
    return end > mapping->offset_bytes ? MM_PAGE_UP(end - mapping->offset_bytes) >> EPT_PAGE_SHIFT
                                       : 0;
}

int mm_source_extent(void *owner, uint64_t page, uint64_t *first, uint64_t *last, bool *zero)
{
    struct mm *mm = owner;
    bool paged = mm->vm->config->local_bytes < mm->vm->config->memory_bytes;
    int result = 0;
    pthread_rwlock_rdlock(&mm->table);
    const struct mapping *mapping = mm_find(mm, page << EPT_PAGE_SHIFT);
    if (!mapping || mm_is_replaced(mm, page << EPT_PAGE_SHIFT)) {
        result = -EFAULT;
    } else {
        *first = mapping->start >> EPT_PAGE_SHIFT;
        *last = mapping->end >> EPT_PAGE_SHIFT;
        *zero = !mapping->file;
        if (mapping->file) {
            uint64_t there = pages_in_file(mapping);
            if (*last - *first > there)
                *last = *first + there;
            if (page >= *last)
                result = -EIO; /* beyond the end of the file: SIGBUS, as Linux */
        }
        if (!result && (mm_is_host_file(mapping) || (*zero && !paged)))
            result = 1;
    }
    pthread_rwlock_unlock(&mm->table);
    return result;
}

int mm_source_read(void *owner, uint64_t page, uint64_t pages, void *to)
{
    struct mm *mm = owner;
    struct mm_file *file = NULL;
    uint64_t offset = 0;
    pthread_rwlock_rdlock(&mm->table);
    const struct mapping *mapping = mm_find(mm, page << EPT_PAGE_SHIFT);
    if (mapping && mapping->file) {
        file = mm_file_get(mapping->file);
        offset = mapping->offset_bytes + ((page << EPT_PAGE_SHIFT) - mapping->start);
    }
    pthread_rwlock_unlock(&mm->table);
    if (!file)
        return -EFAULT;
    size_t bytes = (size_t)pages << EPT_PAGE_SHIFT, done = 0;
    int error = 0;
    while (done < bytes) {
        ssize_t got = pread(file->fd, (char *)to + done, bytes - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            error = -EIO;
        if (got <= 0)
            break;
        done += (size_t)got;
    }
    memset((char *)to + done, 0, bytes - done);
    mm_file_put(file);
    return error;
}

/* ---- /proc/self/maps ---- */

void mm_print_maps(struct mm *mm, FILE *out)
{
    enum mm_look look = mm_look_begin(mm, 0, UINT64_MAX);
    for (size_t i = 0; look != MM_LOOK_REFUSED && i < mm->count; i++) {
        const struct mapping *map = &mm->maps[i];
        const char *name = map->file ? map->file->path : map->label;
        uint64_t device = map->file ? map->file->device : 0;
        int width = fprintf(
            out, "%08" PRIx64 "-%08" PRIx64 " %c%c%c%c %08" PRIx64 " %02x:%02x %" PRIu64 " ",
            map->start, map->end, map->access & EPT_READ ? 'r' : '-',
            map->access & EPT_WRITE ? 'w' : '-', map->access & EPT_EXEC ? 'x' : '-',
            map->shared ? 's' : 'p', map->offset_bytes, major(device), minor(device),
            map->file ? map->file->inode : 0);
        fprintf(out, "%*s%s\n", name && width < 73 ? 73 - width : 0, "", name ? name : "");
    }
    mm_look_end(mm, look);
}
