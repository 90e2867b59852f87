/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to mm*.c: the program's address space. Mappings are kept in one sorted array: programs
 * have tens to thousands, look-ups are binary, and an edit moves some kilobytes.
 *
 * Locks, in this order: `change` serialises whole operations that edit (mmap_lock of Linux, for
 * writers), and may be held while pages are waited for; so may `replace`, by those that replace one
 * mapping by another (mm/replace.c); `table` protects the array and the guest's page tables and is
 * never held across a wait. A fault takes only `table`, for reading, unless it comes into a
 * replacement.
 */
#ifndef FARVISOR_MM_INTERNAL_H
#define FARVISOR_MM_INTERNAL_H

#include "vmm/vmm.h"

/* A host file behind mappings; counted, because splits share it. */
struct mm_file {
    atomic_uint users;
    int fd;
    bool writable;          /* opened for writing too */
    uint64_t device, inode; /* for /proc/self/maps */
    char *path;
    struct mm_file *next; /* among those that are kept without users */
};

struct mapping {
    gpa_t start, end;
    unsigned access;       /* EPT_* */
    bool shared;           /* with a file: its own pages, mapped by the host (ept_map_file) */
    bool stack;            /* touched at one end only: no reason to fill it ahead */
    struct mm_file *file;  /* NULL: anonymous */
    uint64_t offset_bytes; /* of start, in the file */
    const char *label;     /* "[heap]", "[stack]" or NULL */
};

struct mm_range {
    gpa_t start, end; /* empty if both are 0 */
};

/* System V segments: mm/shm.c. */
struct mm_shm {
    struct mm_segment *segments;
    size_t count;
    size_t removed; /* of them, those that go with their last mapping */
    unsigned made;
};

#define MM_HIDDEN 2u /* what is replaced, and what is moved there */

struct mm {
    struct vm *vm;
    pthread_mutex_t change;
    pthread_rwlock_t replace;
    pthread_rwlock_t table;
    struct mm_range hidden[MM_HIDDEN]; /* being replaced; under `table`, as the next two */
    bool hiding;
    const struct vcpu *replacer;
    struct mapping *maps;
    size_t count, capacity;
    gpa_t high_first, high_end; /* where mappings without an address go */
    gpa_t brk_base, brk;
    struct mm_shm shm;
};

#define MM_PAGE_UP(x) (((x) + 0xfff) & ~0xfffULL)

/* ---- mm.c: the table; caller holds `table` as noted ---- */
/* Index of the mapping that holds gpa, or of the first one after it. Read lock. */
size_t mm_index(const struct mm *mm, gpa_t gpa);
struct mapping *mm_find(const struct mm *mm, gpa_t gpa); /* read lock */
bool mm_is_free(const struct mm *mm, gpa_t start, gpa_t end);
/* True if every page of the range is mapped. */
bool mm_is_covered(const struct mm *mm, gpa_t start, gpa_t end);
/* Room for so many more entries of the table: the next ones cannot fail. Write lock. 0 or -ENOMEM.
 */
int mm_reserve(struct mm *mm, size_t room);
/* Cuts mappings at `at` so that one starts there. Write lock. 0 or -ENOMEM. */
int mm_split(struct mm *mm, gpa_t at);
int mm_insert(struct mm *mm,
              const struct mapping *mapping);             /* write lock; merges with neighbours */
void mm_erase(struct mm *mm, size_t first, size_t count); /* write lock */
void mm_merge_around(struct mm *mm, gpa_t start, gpa_t end); /* write lock */
/* The calling thread's handle on the paging engine. */
struct fault_context *mm_context(struct mm *mm);

/* Are the pages of this mapping the host's own, of a shared file? */
static inline bool mm_is_host_file(const struct mapping *mapping)
{
    return mapping->file && mapping->shared;
}

/* Sets the rights of [start, end), a part of the mapping, in the program's page tables. */
static inline int mm_protect(const struct mm *mm, const struct mapping *mapping, gpa_t start,
                             gpa_t end, unsigned access)
{
    unsigned kind = mm_is_host_file(mapping) ? EPT_HOST_FILE : 0;
    return ept_protect(mm->vm->ept, start, end - start, access | kind);
}

/* ---- mm/replace.c ---- */
/*
 * What is done to two ranges from here on is one step for the program; holds `replace`. Caller
 * holds `change`, and never waits for somebody who could look at the ranges. Empty ones are fine.
 */
void mm_replace_begin(struct mm *mm, struct mm_range target, struct mm_range source);
void mm_replace_end(struct mm *mm);

enum mm_look { MM_LOOK_AT_ONCE, MM_LOOK_WAITED, MM_LOOK_REFUSED };
/*
 * mm_look_begin - takes `table` for reading at a moment when no part of [start, end) is being
 * replaced, which may be waited for. MM_LOOK_REFUSED: the calling thread may not wait; nothing is
 * held, and it has to take the range for unmapped. mm_look_end in any case.
 */
enum mm_look mm_look_begin(struct mm *mm, gpa_t start, gpa_t end);
void mm_look_end(struct mm *mm, enum mm_look look);
/*
 * mm_users_wait - waits until no other thread's request uses the range (mm_use_begin). Nobody can
 * begin to: it is hidden, or nothing is mapped there. False: a request took too long, or the guest
 * ends.
 */
bool mm_users_wait(const struct mm *mm, struct mm_range range);
/* Is the page of gpa being replaced, by another thread? Lock: `table`. */
bool mm_is_replaced(const struct mm *mm, gpa_t gpa);

/* ---- mm/file.c ---- */
struct mm_file *mm_file_get(struct mm_file *file); /* NULL is fine, below too */
void mm_file_put(struct mm_file *file);
/* One that is kept though nothing maps it any more, with a user now; or NULL. */
struct mm_file *mm_file_find(uint64_t device, uint64_t inode, bool writable);
/* A new one in the host's memory, with one user; NULL: no memory, or no more descriptors. */
struct mm_file *mm_file_memory(const char *name, uint64_t bytes);
/* The same file, not to be written; likewise. Nobody has record locks on it. */
struct mm_file *mm_file_reader(const struct mm_file *file);
void mm_files_close(void); /* those that are kept */

/* ---- mm/place.c ---- */
/* A free range of `bytes` (page multiple), `room` free bytes after it wished; 0 if there is none.
 */
gpa_t mm_place(const struct mm *mm, uint64_t bytes, uint64_t room, bool low);

/* ---- mm/range.c; caller holds `change` ---- */
int mm_unmap_range(struct mm *mm, gpa_t start, gpa_t end);
int mm_map_range(struct mm *mm, const struct mapping *mapping);
/* As mm_map_range, but the program's page tables are given `access` alone. */
int mm_lay_range(struct mm *mm, const struct mapping *mapping, unsigned access);
/* As mm_map_range, over what is there: one step for the program (mm/replace.c). */
int mm_map_over(struct mm *mm, const struct mapping *mapping);
/* What the program's page tables allow in a part of the mapping. 0 or -errno. */
int mm_grant_range(struct mm *mm, const struct mapping *mapping, gpa_t start, gpa_t end,
                   unsigned access);

/* ---- mmap.c, mremap.c, madvise.c, shm.c; caller holds `change` ---- */
/* As mmap, of this file (NULL: anonymous) and not of args[4]. The address, or -errno. */
int64_t mm_map_at(struct mm *mm, const uint64_t args[6], struct mm_file *file);
int64_t mm_remap(struct mm *mm, const uint64_t args[6]);
int64_t mm_advise(struct mm *mm, const uint64_t args[6]);
int64_t mm_incore(struct mm *mm, const uint64_t args[6]);
int64_t mm_shm_call(struct mm *mm, uint32_t number, const uint64_t args[6]);
/* After mappings went: removed segments that have none any more go. */
void mm_shm_sweep(struct mm *mm);
void mm_shm_end(struct mm *mm);

#endif
