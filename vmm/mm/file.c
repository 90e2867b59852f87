/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files behind mappings, each with a descriptor of its own, for the program may close its.
 *
 * Closing any descriptor of a file lets go of every record lock (fcntl F_SETLK) that a process has
 * on it, and the VMM is the process that has the program's. An unmapping must not do that: so where
 * there are such locks the file is kept, mapped again it is used again, and it is closed when the
 * locks are gone. They go when the program closes a descriptor of its own: so no more files are
 * kept than the program has open, twice.
 *
 * Any thread; the lock is held over host calls that ask about locks and close.
 */
#include "vmm/mm/internal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct mm_file *kept; /* without users; under `lock` */

/* Whosever they are: another process's may be told first. */
static bool has_record_locks(const struct mm_file *file)
{
    struct flock any = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    return fcntl(file->fd, F_OFD_GETLK, &any) == 0 && any.l_type != F_UNLCK && any.l_pid > 0;
}

static void file_close(struct mm_file *file)
{
    close(file->fd);
    free(file->path);
    free(file);
}

/* Lock held. */
static void kept_sweep(bool all)
{
    struct mm_file **link = &kept;

    while (*link) {
        struct mm_file *file = *link;

        if (!all && has_record_locks(file)) {
            link = &file->next;
            continue;
        }
        *link = file->next;
        file_close(file);
    }
}

struct mm_file *mm_file_get(struct mm_file *file)
{
    if (file)
        atomic_fetch_add(&file->users, 1);
    return file;
}

void mm_file_put(struct mm_file *file)
{
    if (!file || atomic_fetch_sub(&file->users, 1) != 1)
        return;
    pthread_mutex_lock(&lock);
    file->next = kept;
    kept = file;
    kept_sweep(false);
    pthread_mutex_unlock(&lock);
}

struct mm_file *mm_file_find(uint64_t device, uint64_t inode, bool writable)
{
    struct mm_file *file;

    pthread_mutex_lock(&lock);
    for (struct mm_file **link = &kept; (file = *link); link = &file->next) {
        if (file->device == device && file->inode == inode && file->writable == writable) {
            *link = file->next;
            atomic_store(&file->users, 1);
            break;
        }
    }
    kept_sweep(false);
    pthread_mutex_unlock(&lock);
    return file;
}

void mm_files_close(void)
{
    pthread_mutex_lock(&lock);
    kept_sweep(true);
    pthread_mutex_unlock(&lock);
}
