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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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

struct mm_file *mm_file_memory(const char *name, uint64_t bytes)
{
    struct mm_file *file = calloc(1, sizeof(*file));
    int fd = file ? (int)syscall(SYS_memfd_create, name, MFD_CLOEXEC) : -1;
    struct stat st;

    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0 || fstat(fd, &st) < 0) {
        if (fd >= 0)
            close(fd);
        free(file);
        return NULL;
    }
    *file = (struct mm_file){
        .users = 1, .fd = fd, .writable = true, .device = st.st_dev, .inode = st.st_ino};
    if (asprintf(&file->path, "/%s (deleted)", name) < 0)
        file->path = NULL;
    return file;
}

struct mm_file *mm_file_reader(const struct mm_file *file)
{
    struct mm_file *reader = calloc(1, sizeof(*reader));
    int fd = reader ? fcntl(file->fd, F_DUPFD_CLOEXEC, 3) : -1;

    if (fd < 0) {
        free(reader);
        return NULL;
    }
    *reader = (struct mm_file){.users = 1,
                               .fd = fd,
                               .device = file->device,
                               .inode = file->inode,
                               .path = file->path ? strdup(file->path) : NULL};
    return reader;
}

void mm_files_close(void)
{
    pthread_mutex_lock(&lock);
    kept_sweep(true);
    pthread_mutex_unlock(&lock);
}
