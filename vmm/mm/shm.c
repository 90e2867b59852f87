/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System V shared memory: shmget, shmat, shmdt, shmctl. Nobody shares it with the one process there
 * is, but programs keep it as their lock on a data directory, or for memory that children were to
 * see, and end without it.
 *
 * A segment is a file in the host's memory, an attachment a shared mapping of it: two of them are
 * the same pages, and what was written stays when none is left, as Linux promises. Its keys are the
 * guest's own. What Linux counts as attached are the mappings; a removed segment goes with the
 * last, whatever took that away. What is attached with SHM_RDONLY is of a file that cannot be
 * written, or mprotect would give what shmat did not.
 *
 * Runs in the calling vCPU's thread under `change`.
 */
#include "vmm/mm/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SEGMENTS_MAX 4096 /* as kernel.shmmni */
#define MODE_BITS    0777u
#define ALIGNMENT    4096u /* SHMLBA */

struct mm_segment {
    struct mm_file *file;   /* NULL: nothing here */
    struct mm_file *reader; /* the same one, not to be written; NULL until it is asked for */
    int id;               /* its index, and a multiple of SEGMENTS_MAX that tells it from others */
    struct shmid_ds stat; /* less shm_nattch */
};

static bool is_of(const struct mm_segment *segment, const struct mm_file *file)
{
    return file && (file == segment->file || file == segment->reader);
}

/*
 * Nobody has it mapped. Looked for after every call that maps or unmaps, as programs like to remove
 * a segment as soon as they have attached it: so not by the table. A file that msync waits for has
 * a user more, and is looked for again after the next of these calls.
 */
static bool is_unused(const struct mm_segment *segment)
{
    return atomic_load(&segment->file->users) == 1 &&
           (!segment->reader || atomic_load(&segment->reader->users) == 1);
}

/* Only what the table has counts. */
static size_t attachments(const struct mm *mm, const struct mm_segment *segment)
{
    size_t count = 0;

    for (size_t i = 0; i < mm->count; i++)
        count += is_of(segment, mm->maps[i].file);
    return count;
}

static void segment_drop(struct mm_segment *segment)
{
    mm_file_put(segment->file);
    mm_file_put(segment->reader);
    segment->file = segment->reader = NULL;
}

void mm_shm_sweep(struct mm *mm)
{
    struct mm_shm *shm = &mm->shm;

    for (size_t i = 0; shm->removed && i < shm->count; i++) {
        struct mm_segment *segment = &shm->segments[i];

        if (!segment->file || !(segment->stat.shm_perm.mode & SHM_DEST) || !is_unused(segment))
            continue;
        segment_drop(segment);
        shm->removed--;
    }
}

/* As ipcperms of Linux: `wanted` is of the owner's, the group's or the others' three bits. */
static bool segment_allows(const struct mm_segment *segment, unsigned wanted)
{
    const struct ipc_perm *perm = &segment->stat.shm_perm;
    unsigned granted = perm->mode;

    wanted = (wanted >> 6 | wanted >> 3 | wanted) & 7u;
    if (geteuid() == perm->cuid || geteuid() == perm->uid)
        granted >>= 6;
    else if (getegid() == perm->cgid || getegid() == perm->gid)
        granted >>= 3;
    return geteuid() == 0 || !(wanted & ~granted);
}

static struct mm_segment *segment_find(struct mm *mm, int id)
{
    struct mm_shm *shm = &mm->shm;
    size_t index = (unsigned)id % SEGMENTS_MAX;

    if (id < 0 || index >= shm->count || !shm->segments[index].file ||
        shm->segments[index].id != id)
        return NULL;
    return &shm->segments[index];
}

static struct mm_segment *segment_of_key(struct mm *mm, key_t key)
{
    struct mm_shm *shm = &mm->shm;

    for (size_t i = 0; key != IPC_PRIVATE && i < shm->count; i++) {
        if (shm->segments[i].file && shm->segments[i].stat.shm_perm.__key == key)
            return &shm->segments[i];
    }
    return NULL;
}

static struct mm_segment *segment_of_file(struct mm *mm, const struct mm_file *file)
{
    struct mm_shm *shm = &mm->shm;

    for (size_t i = 0; i < shm->count; i++) {
        if (is_of(&shm->segments[i], file))
            return &shm->segments[i];
    }
    return NULL;
}

/* ---- shmget ---- */

/* A free place in the table; NULL if there is none, or segments would take more than --memory. */
static struct mm_segment *segment_room(struct mm *mm, uint64_t bytes)
{
    struct mm_shm *shm = &mm->shm;
    uint64_t pages = 0, most = mm->vm->config->memory_bytes >> EPT_PAGE_SHIFT;
    struct mm_segment *found = NULL;

    if (!shm->segments)
        shm->segments = calloc(SEGMENTS_MAX, sizeof(*shm->segments));
    if (!shm->segments)
        return NULL;
    for (size_t i = 0; i < shm->count; i++) {
        if (shm->segments[i].file)
            pages += MM_PAGE_UP(shm->segments[i].stat.shm_segsz) >> EPT_PAGE_SHIFT;
        else if (!found)
            found = &shm->segments[i];
    }
    if (pages + (MM_PAGE_UP(bytes) >> EPT_PAGE_SHIFT) > most)
        return NULL;
    return found || shm->count == SEGMENTS_MAX ? found : &shm->segments[shm->count];
}

static int64_t segment_make(struct mm *mm, key_t key, uint64_t bytes, int flags)
{
    struct mm_shm *shm = &mm->shm;
    struct mm_segment *segment;
    struct mm_file *file;
    char name[32];

    if (bytes < 1 || bytes > mm->vm->config->memory_bytes)
        return -EINVAL;
    if (flags & SHM_HUGETLB)
        return -ENOMEM; /* as mmap: they do not come in pages of 4 KiB */
    segment = segment_room(mm, bytes);
    if (!segment)
        return shm->segments ? -ENOSPC : -ENOMEM;
    snprintf(name, sizeof(name), "SYSV%08x", (unsigned)key);
    file = mm_file_memory(name, MM_PAGE_UP(bytes));
    if (!file)
        return -ENOMEM;
    if (segment == &shm->segments[shm->count])
        shm->count++;
    shm->made = (shm->made + 1) % (INT32_MAX / SEGMENTS_MAX);
    *segment = (struct mm_segment){
        .file = file,
        .id = (int)(segment - shm->segments) + (int)shm->made * SEGMENTS_MAX,
        .stat = {.shm_perm = {.__key = key,
                              .uid = geteuid(),
                              .gid = getegid(),
                              .cuid = geteuid(),
                              .cgid = getegid(),
                              .mode = (unsigned)flags & MODE_BITS,
                              .__seq = (unsigned short)shm->made},
                 .shm_segsz = bytes,
                 .shm_ctime = time(NULL),
                 .shm_cpid = mm->vm->pid},
    };
    return segment->id;
}

static int64_t shm_get(struct mm *mm, key_t key, uint64_t bytes, int flags)
{
    struct mm_segment *segment = segment_of_key(mm, key);

    if (!segment)
        return key == IPC_PRIVATE || flags & IPC_CREAT ? segment_make(mm, key, bytes, flags)
                                                       : -ENOENT;
    if (flags & IPC_CREAT && flags & IPC_EXCL)
        return -EEXIST;
    if (bytes > segment->stat.shm_segsz)
        return -EINVAL;
    return segment_allows(segment, (unsigned)flags) ? segment->id : -EACCES;
}

/* ---- shmat, shmdt ---- */

/* What is mapped of it, or NULL: no memory, or no more descriptors. */
static struct mm_file *segment_view(struct mm_segment *segment, bool writable)
{
    if (!writable && !segment->reader)
        segment->reader = mm_file_reader(segment->file);
    return writable ? segment->file : segment->reader;
}

/* Where it is to be attached; 0: anywhere. 0 or -EINVAL. */
static int attach_place(const struct mm_segment *segment, gpa_t *at, int flags, uint64_t *placed)
{
    gpa_t end;

    *placed = *at ? MAP_FIXED : 0;
    if (*at & (ALIGNMENT - 1) && !(flags & SHM_RND))
        return -EINVAL;
    *at &= ~(uint64_t)(ALIGNMENT - 1);
    if (flags & SHM_REMAP)
        return *at ? 0 : -EINVAL;
    if (*placed)
        *placed = MAP_FIXED_NOREPLACE;
    return __builtin_add_overflow(*at, segment->stat.shm_segsz, &end) ? -EINVAL : 0;
}

static int64_t shm_attach(struct mm *mm, int id, gpa_t at, int flags)
{
    struct mm_segment *segment = segment_find(mm, id);
    unsigned access = SHM_R | (flags & SHM_RDONLY ? 0 : SHM_W) | (flags & SHM_EXEC ? S_IXUSR : 0);
    struct mm_file *view;
    uint64_t placed;
    int64_t result;

    if (!segment || attach_place(segment, &at, flags, &placed))
        return -EINVAL;
    if (!segment_allows(segment, access))
        return -EACCES;
    view = segment_view(segment, access & SHM_W);
    if (!view)
        return -ENOMEM;
    const uint64_t args[6] = {at, segment->stat.shm_segsz,
                              PROT_READ | (access & SHM_W ? PROT_WRITE : 0) |
                                  (access & S_IXUSR ? PROT_EXEC : 0),
                              MAP_SHARED | placed};
    result = mm_map_at(mm, args, view);
    if (result < 0)
        return result == -EEXIST ? -EINVAL : result;
    segment->stat.shm_atime = time(NULL);
    segment->stat.shm_lpid = mm->vm->pid;
    return result;
}

/*
 * The first part of a segment, from `from` on, that lies where it would if the whole were attached
 * at `at`. file NULL: of any segment, however it was attached.
 */
static const struct mapping *attached_part(struct mm *mm, gpa_t at, gpa_t from,
                                           const struct mm_file *file)
{
    for (size_t i = mm_index(mm, from); i < mm->count; i++) {
        const struct mapping *map = &mm->maps[i];
        bool wanted = file ? map->file == file : segment_of_file(mm, map->file) != NULL;

        if (wanted && map->start >= from && map->start - at == map->offset_bytes)
            return map;
    }
    return NULL;
}

static int64_t shm_detach(struct mm *mm, gpa_t at)
{
    const struct mapping *part = at & (ALIGNMENT - 1) ? NULL : attached_part(mm, at, at, NULL);
    struct mm_segment *segment = part ? segment_of_file(mm, part->file) : NULL;
    const struct mm_file *view = part ? part->file : NULL;
    int64_t error = 0;

    if (!segment)
        return -EINVAL;
    while (!error && part && part->start - at < segment->stat.shm_segsz) {
        gpa_t start = part->start, end = part->end;

        error = mm_unmap_range(mm, start, end);
        part = attached_part(mm, at, end, view);
    }
    segment->stat.shm_dtime = time(NULL);
    segment->stat.shm_lpid = mm->vm->pid;
    return error;
}

/* ---- shmctl ---- */

static int64_t shm_tell(struct mm *mm, const struct mm_segment *segment, gpa_t to)
{
    struct shmid_ds stat = segment->stat;

    if (!segment_allows(segment, SHM_R))
        return -EACCES;
    stat.shm_nattch = attachments(mm, segment);
    return guestmem_write(mm->vm, to, &stat, sizeof(stat));
}

static int64_t shm_change(struct mm *mm, struct mm_segment *segment, gpa_t from)
{
    struct shmid_ds change;
    int error = guestmem_read(mm->vm, &change, from, sizeof(change));

    if (error)
        return error;
    if (change.shm_perm.uid == (uid_t)-1 || change.shm_perm.gid == (gid_t)-1)
        return -EINVAL;
    segment->stat.shm_perm.uid = change.shm_perm.uid;
    segment->stat.shm_perm.gid = change.shm_perm.gid;
    segment->stat.shm_perm.mode =
        (segment->stat.shm_perm.mode & ~MODE_BITS) | (change.shm_perm.mode & MODE_BITS);
    segment->stat.shm_ctime = time(NULL);
    return 0;
}

static int64_t shm_control(struct mm *mm, int id, int command, gpa_t argument)
{
    struct mm_segment *segment = segment_find(mm, id);

    if (!segment)
        return -EINVAL;
    switch (command) {
    case IPC_STAT:
        return shm_tell(mm, segment, argument);
    case IPC_SET:
        return shm_change(mm, segment, argument);
    case IPC_RMID: /* found by its number alone from here on */
        mm->shm.removed += !(segment->stat.shm_perm.mode & SHM_DEST);
        segment->stat.shm_perm.__key = IPC_PRIVATE;
        segment->stat.shm_perm.mode |= SHM_DEST;
        return 0;
    case SHM_LOCK: /* no effect, as mlock */
        segment->stat.shm_perm.mode |= SHM_LOCKED;
        return 0;
    case SHM_UNLOCK:
        segment->stat.shm_perm.mode &= (unsigned)~SHM_LOCKED;
        return 0;
    default:
        return -EINVAL;
    }
}

/* ---- for mm.c, mmap.c ---- */

int64_t mm_shm_call(struct mm *mm, uint32_t number, const uint64_t args[6])
{
    int64_t result = -ENOSYS;

    switch (number) {
    case SYS_shmget:
        result = shm_get(mm, (key_t)args[0], args[1], (int)args[2]);
        break;
    case SYS_shmat:
        result = shm_attach(mm, (int)args[0], args[1], (int)args[2]);
        break;
    case SYS_shmdt:
        result = shm_detach(mm, args[0]);
        break;
    case SYS_shmctl:
        result = shm_control(mm, (int)args[0], (int)args[1], args[2]);
        break;
    default:
        break;
    }
    return result;
}

void mm_shm_end(struct mm *mm)
{
    for (size_t i = 0; i < mm->shm.count; i++)
        segment_drop(&mm->shm.segments[i]);
    free(mm->shm.segments);
}
