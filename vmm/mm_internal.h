/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to mm*.c: the program's address space. Mappings are kept in one sorted array: programs
 * have tens to thousands, look-ups are binary, and an edit moves some kilobytes.
 *
 * Locks: `change` serialises whole operations that edit (mmap_lock of Linux, for writers), and may
 * be held while pages are waited for; `table` protects the array and the guest's page tables and is
 * never held across a wait. A fault takes only `table`, for reading.
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

struct mm {
    struct vm *vm;
    pthread_mutex_t change;
    pthread_rwlock_t table;
    struct mapping *maps;
    size_t count, capacity;
    gpa_t high_first, high_end; /* where mappings without an address go */
    gpa_t brk_base, brk;
    atomic_bool host_files; /* a shared file was mapped once */
    pthread_mutex_t pipe_lock;
    int pipe[2]; /* for copies that must survive a truncated file (guestmem.c) */
};

#define MM_PAGE_UP(x) (((x) + 0xfff) & ~0xfffULL)

/* ---- mm.c: the table; caller holds `table` as noted ---- */
/* Index of the mapping that holds gpa, or of the first one after it. Read lock. */
size_t mm_index(const struct mm *mm, gpa_t gpa);
struct mapping *mm_find(const struct mm *mm, gpa_t gpa); /* read lock */
bool mm_is_free(const struct mm *mm, gpa_t start, gpa_t end);
/* True if every page of the range is mapped. */
bool mm_is_covered(const struct mm *mm, gpa_t start, gpa_t end);
/* Cuts mappings at `at` so that one starts there. Write lock. 0 or -ENOMEM. */
int mm_split(struct mm *mm, gpa_t at);
int mm_insert(struct mm *mm,
              const struct mapping *mapping);             /* write lock; merges with neighbours */
void mm_erase(struct mm *mm, size_t first, size_t count); /* write lock */
void mm_merge_around(struct mm *mm, gpa_t start, gpa_t end); /* write lock */
struct mm_file *mm_file_get(struct mm_file *file);
void mm_file_put(struct mm_file *file);
/* The calling thread's handle on the paging engine. */
struct fault_context *mm_context(struct mm *mm);

/* Are the pages of this mapping the host's own, of a shared file? */
static inline bool mm_is_host_file(const struct mapping *mapping)
{
    return mapping->file && mapping->shared;
}

/* ---- mm_place.c ---- */
/* A free range of `bytes` (page multiple), `room` free bytes after it wished; 0 if there is none.
 */
gpa_t mm_place(const struct mm *mm, uint64_t bytes, uint64_t room, bool low);

/* ---- mmap.c; caller holds `change` ---- */
int mm_unmap_range(struct mm *mm, gpa_t start, gpa_t end);
int mm_map_range(struct mm *mm, const struct mapping *mapping);
/* What ept_protect is to be told for a mapping. */
unsigned mm_table_access(const struct mapping *mapping);

/* ---- mm_place.c ---- */
/* A free range of `bytes` (page multiple), `room` free bytes after it wished; 0 if there is none.
 */
gpa_t mm_place(const struct mm *mm, uint64_t bytes, uint64_t room, bool low);

/* ---- mmap.c; caller holds `change` ---- */
int mm_unmap_range(struct mm *mm, gpa_t start, gpa_t end);
int mm_map_range(struct mm *mm, const struct mapping *mapping);
/* Writes what the program changed in shared mappings of the range into their files. */
int mm_sync_range(struct mm *mm, gpa_t start, gpa_t end);

/* ---- mremap.c, madvise.c ---- */
int64_t mm_remap(struct mm *mm, const uint64_t args[6]);
int64_t mm_advise(struct mm *mm, const uint64_t args[6]);
int64_t mm_incore(struct mm *mm, const uint64_t args[6]);

#endif
