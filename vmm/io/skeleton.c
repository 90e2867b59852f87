/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's bare root: a real, private host directory with the skeleton of "/" (so that listings
 * and stat of "/", "/dev", "/proc" need no special cases) and its /dev/shm, in memory where the
 * host offers that, and its /tmp, on disk where it may grow.
 *
 * Removed when the VMM ends. One left by a killed VMM is told by its free lock and removed by the
 * next run. Main thread, but for place and link, which any thread may call.
 */
#include "vmm/io/hostio_internal.h"

#include "support.h"

#include <dirent.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

/* A name nobody else gives: what is left over under it gets removed. */
#define SCRATCH_PREFIX  ".farvisor-scratch."
#define SCRATCH_YOUNG_S 60 /* a starting VMM may not have locked it yet */
#define TREE_ROUNDS_MAX 1000000u

/* Moves the subdirectories of top/name up into top, removes its files, then itself. */
static void tree_flatten(int top, const char *name, unsigned *serial)
{
    int fd = openat(top, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *directory;
    struct dirent *entry;
    char moved[32];

    if (fd < 0 && errno == EACCES && !fchmodat(top, name, 0700, 0))
        fd = openat(top, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory)
        return;
    (void)fchmod(fd, 0700);
    while ((entry = readdir(directory))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (!unlinkat(fd, entry->d_name, 0))
            continue;
        snprintf(moved, sizeof(moved), ".gone-%u", (*serial)++);
        (void)fchmodat(fd, entry->d_name, 0700, 0);
        (void)renameat(fd, entry->d_name, top, moved);
    }
    closedir(directory);
    (void)unlinkat(top, name, AT_REMOVEDIR);
}

/* Empties a directory without recursion: a guest can nest deeper than any stack. */
static void tree_empty(int top)
{
    unsigned serial = 0;
    bool more = true;

    /* Each round moves what lay deeper up to the top, until a round finds nothing to move. */
    for (unsigned round = 0; more && round < TREE_ROUNDS_MAX; round++) {
        int fd = openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *directory = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *entry;
        unsigned before = serial;

        if (!directory)
            return;
        while ((entry = readdir(directory))) {
            if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
                continue;
            if (unlinkat(top, entry->d_name, 0))
                tree_flatten(top, entry->d_name, &serial);
        }
        closedir(directory);
        more = serial != before;
    }
}

/* Removes base/name if it is a scratch directory of ours that nobody holds. */
static void scratch_reap(int base, const char *name)
{
    int fd = openat(base, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat status;

    if (fd < 0)
        return;
    if (!fstat(fd, &status) && status.st_uid == geteuid() && (status.st_mode & 07777) == 0700 &&
        status.st_ctime + SCRATCH_YOUNG_S < time(NULL) && !flock(fd, LOCK_EX | LOCK_NB)) {
        tree_empty(fd);
        (void)unlinkat(base, name, AT_REMOVEDIR);
    }
    close(fd);
}

static void scratch_reap_all(const char *base)
{
    DIR *directory = opendir(base);
    struct dirent *entry;

    if (!directory)
        return;
    while ((entry = readdir(directory))) {
        if (!strncmp(entry->d_name, SCRATCH_PREFIX, strlen(SCRATCH_PREFIX)) &&
            strlen(entry->d_name) == strlen(SCRATCH_PREFIX "XXXXXX"))
            scratch_reap(dirfd(directory), entry->d_name);
    }
    closedir(directory);
}

/* One message on failure. */
static int scratch_create(struct io_scratch *scratch, const char *base)
{
    char path[PATH_MAX];
    int error = 0;

    scratch_reap_all(base);
    if (snprintf(path, sizeof(path), "%s/" SCRATCH_PREFIX "XXXXXX", base) >= (int)sizeof(path))
        error = -ENAMETOOLONG;
    else if (!mkdtemp(path))
        error = -errno;
    if (!error) {
        scratch->path = strdup(path);
        scratch->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        error = !scratch->path ? -ENOMEM : scratch->fd < 0 ? -errno : 0;
    }
    if (error)
        message_error("%s: cannot make a private directory: %s (set TMPDIR)", base,
                      strerror(-error));
    else
        (void)flock(scratch->fd, LOCK_EX | LOCK_NB);
    return error;
}

static void scratch_remove(const struct io_scratch *scratch)
{
    if (scratch->fd < 0)
        return;
    tree_empty(scratch->fd);
    (void)rmdir(scratch->path);
}

static void scratch_destroy(struct io_scratch *scratch)
{
    scratch_remove(scratch);
    if (scratch->fd >= 0)
        close(scratch->fd);
    free(scratch->path);
    *scratch = (struct io_scratch){.fd = -1};
}

/* A directory in the scratch with exactly this mode, whatever the umask is. */
static int scratch_mkdir(const struct io_scratch *scratch, const char *name, mode_t mode)
{
    if (mkdirat(scratch->fd, name, mode) || fchmodat(scratch->fd, name, mode, 0))
        return -errno;
    return 0;
}

static bool is_in_memory(const char *path)
{
    struct statfs status;

    return !statfs(path, &status) && status.f_type == TMPFS_MAGIC && !access(path, W_OK | X_OK);
}

int io_skeleton_create(struct io_mounts *mounts)
{
    const char *disk = getenv("TMPDIR");
    int error;

    mounts->root_fd = -1;
    mounts->disk = mounts->memory = (struct io_scratch){.fd = -1};
    if (!disk || disk[0] != '/')
        disk = "/tmp";
    error = scratch_create(&mounts->disk, disk);
    if (!error)
        error = scratch_create(&mounts->memory, is_in_memory("/dev/shm") ? "/dev/shm" : disk);
    if (error)
        goto destroy; /* it said why */
    error = scratch_mkdir(&mounts->disk, "tmp", 01777);
    if (!error)
        error = scratch_mkdir(&mounts->memory, "root", 0755);
    if (!error)
        error = scratch_mkdir(&mounts->memory, "shm", 01777);
    if (!error) {
        mounts->root_fd = openat(mounts->memory.fd, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
        error = mounts->root_fd < 0 ? -errno : 0;
    }
    if (!error)
        return 0;
    message_error("%s: %s", mounts->memory.path, strerror(-error));
destroy:
    io_skeleton_destroy(mounts);
    return error;
}

void io_skeleton_remove(const struct io_mounts *mounts)
{
    scratch_remove(&mounts->disk);
    scratch_remove(&mounts->memory);
}

void io_skeleton_destroy(struct io_mounts *mounts)
{
    scratch_destroy(&mounts->disk);
    scratch_destroy(&mounts->memory);
    if (mounts->root_fd >= 0)
        close(mounts->root_fd);
    mounts->root_fd = -1;
}

int io_skeleton_place(struct io_mounts *mounts, const char *path, bool directory)
{
    bool tmp = !strncmp(path, "/tmp/", 5); /* a mount of its own that shows what is mounted in it */
    int base = tmp ? mounts->disk.fd : mounts->root_fd;
    char relative[PATH_MAX];
    int fd;

    if (snprintf(relative, sizeof(relative), "%s", path + (path[0] == '/')) >= PATH_MAX)
        return -ENAMETOOLONG;
    if (!relative[0])
        return 0;
    for (char *slash = strchr(relative, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdirat(base, relative, 0755) && errno != EEXIST)
            return -errno;
        *slash = '/';
    }
    if (directory)
        return mkdirat(base, relative, 0755) && errno != EEXIST ? -errno : 0;
    fd = openat(base, relative, O_CREAT | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0444);
    if (fd < 0)
        return -errno;
    close(fd);
    return 0;
}

int io_skeleton_link(struct io_mounts *mounts, const char *path, const char *target)
{
    (void)unlinkat(mounts->root_fd, path + 1, 0);
    return symlinkat(target, mounts->root_fd, path + 1) ? -errno : 0;
}
