/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Path resolution in the guest's view.
 *
 * Two ways, one result. The fast one joins the path textually, picks the mount by longest prefix
 * and lets openat2 walk the rest, refusing every symbolic link: right whenever there is neither a
 * link nor "..". The slow one walks component by component, each opened O_PATH|O_NOFOLLOW under
 * its parent's descriptor, links read and continued in the guest's view, ".." taken on the
 * normal-form guest path. Neither can name a host file outside of the grants: the worst a racing
 * rename can do is an error or another file of the same grant.
 *
 * Any vCPU thread; no locks held.
 */
#include "vmm/io/hostio_internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void io_node_done(struct io_node *node)
{
    if (node->fd >= 0)
        close(node->fd);
    node->fd = -1;
}

/* ---- the slow way ---- */

struct walk {
    struct hostio *io;
    struct io_node *node; /* node->path is the normal form of what was walked */
    size_t done;          /* its length; 0 for "/" */
    char *rest;           /* still to walk; PATH_MAX bytes */
    unsigned flags;
    unsigned links;
};

/* Makes node->fd stand for the directory node->path. */
static int walk_reopen(struct walk *walk)
{
    struct io_node *node = walk->node;
    const char *rest;
    int fd;

    node->mount = io_mounts_find(&walk->io->mounts, walk->done ? node->path : "/", &rest);
    if (node->mount->hidden)
        return -EACCES;
    if (node->mount->proc)
        io_proc_fill(walk->io);
    fd = io_mount_open(node->mount, rest, O_PATH, 0);
    if (fd < 0)
        return fd == -ELOOP ? -ENOENT : fd; /* it was a directory a moment ago: renamed */
    io_node_done(node);
    node->fd = fd;
    return 0;
}

/* /proc/PID/fd/N, or -1. */
static int walk_alias(const struct walk *walk)
{
    char prefix[48];
    char *end;
    long fd;
    int bytes = snprintf(prefix, sizeof(prefix), "/proc/%d/fd/", (int)walk->io->mounts.pid);

    if (strncmp(walk->node->path, prefix, (size_t)bytes))
        return -1;
    fd = strtol(walk->node->path + bytes, &end, 10);
    return *end || end == walk->node->path + bytes || fd < 0 || fd > INT_MAX ? -1 : (int)fd;
}

/* Replaces the last component by its link's text in front of what is left. */
static int walk_link(struct walk *walk, int fd, const char *after)
{
    char target[PATH_MAX];
    ssize_t bytes = readlinkat(fd, "", target, sizeof(target) - 1);
    size_t after_bytes = strlen(after);

    if (bytes < 0)
        return -errno;
    if (++walk->links > IO_LINKS_MAX)
        return -ELOOP;
    if ((size_t)bytes + 1 + after_bytes + 1 > PATH_MAX)
        return -ENAMETOOLONG;
    memmove(walk->rest + bytes + 1, after, after_bytes + 1);
    memcpy(walk->rest, target, (size_t)bytes);
    walk->rest[bytes] = '/';
    if (!after_bytes)
        walk->rest[bytes] = '\0';
    io_path_pop(walk->node->path, &walk->done);
    if (target[0] != '/')
        return 0;
    walk->done = 0;
    walk->node->path[0] = '\0';
    return walk_reopen(walk);
}

/* The host descriptor of what node->path, just appended to, names: object or link. */
static int walk_open(struct walk *walk, const char *name, const struct io_mount *mount, bool last)
{
    struct io_node *node = walk->node;
    int alias = node->mount->proc ? walk_alias(walk) : -1;
    struct io_file *file;
    int fd;

    if (alias >= 0 && last && (walk->flags & IO_FOLLOW || node->slash)) {
        file = io_fds_get(&walk->io->fds, alias);
        if (!file)
            return -ENOENT;
        node->alias = alias;
        node->read_only = file->read_only; /* the number may name another file soon */
        fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 3);
        io_file_put(file);
    } else if (mount) {
        fd = fcntl(mount->fd, F_DUPFD_CLOEXEC, 3);
    } else {
        fd = openat(node->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    }
    return fd < 0 ? -errno : fd;
}

/* One component that is neither "." nor "..", already appended to node->path. */
static int walk_enter(struct walk *walk, const char *name, const char *after, bool last)
{
    struct io_node *node = walk->node;
    const struct io_mount *mount = io_mounts_at(&walk->io->mounts, node->path);
    struct stat status = {.st_mode = 0};
    int fd;

    if (mount && mount->hidden)
        return -EACCES;
    if (mount && mount->proc)
        io_proc_fill(walk->io);
    if (node->mount->proc && !strcmp(name, "fd"))
        io_proc_refresh_fds(walk->io);
    fd = walk_open(walk, name, mount, last);
    if (fd < 0)
        return fd;
    (void)fstat(fd, &status); /* cannot fail: the descriptor is ours */
    if (S_ISLNK(status.st_mode) && node->alias < 0 &&
        (!last || node->slash || walk->flags & IO_FOLLOW)) {
        int error = walk_link(walk, fd, after);

        close(fd);
        return error;
    }
    if (!last && !S_ISDIR(status.st_mode)) {
        close(fd);
        return -ENOTDIR;
    }
    io_node_done(node);
    node->fd = fd;
    node->mount = mount ? mount : node->mount;
    memmove(walk->rest, after, strlen(after) + 1);
    return 0;
}

/* With IO_PARENT: does the walk end before this last component? */
static int walk_stop_here(struct walk *walk, const char *name, size_t name_bytes, bool *stop)
{
    struct io_node *node = walk->node;
    char target[4];

    *stop = false;
    if (name_bytes > NAME_MAX)
        return -ENAMETOOLONG;
    if (io_mounts_at(&walk->io->mounts, node->path))
        return 0;
    if (walk->flags & IO_FOLLOW && node->mount->proc && walk_alias(walk) >= 0)
        return 0;
    if (walk->flags & IO_FOLLOW && readlinkat(node->fd, name, target, sizeof(target)) >= 0)
        return 0;
    memcpy(node->name, name, name_bytes);
    node->name[name_bytes] = '\0';
    *stop = true;
    return 0;
}

/* One step. 1: arrived; 0: go on; -errno. */
static int walk_step(struct walk *walk)
{
    char name[NAME_MAX + 1];
    const char *at = walk->rest;
    const char *after;
    size_t bytes;
    bool last, stop = false;
    int error;

    if (!io_path_next(&at, &bytes))
        return 1;
    after = at + bytes;
    after += strspn(after, "/");
    last = !*after;
    if ((bytes == 1 && *at == '.') || (bytes == 2 && !memcmp(at, "..", 2))) {
        memmove(walk->rest, after, strlen(after) + 1);
        if (bytes == 1)
            return 0;
        io_path_pop(walk->node->path, &walk->done);
        return walk_reopen(walk);
    }
    if (bytes > NAME_MAX)
        return -ENAMETOOLONG;
    memcpy(name, at, bytes);
    name[bytes] = '\0';
    error = io_path_push(walk->node->path, &walk->done, name, bytes);
    if (!error && last && walk->flags & IO_PARENT)
        error = walk_stop_here(walk, name, bytes, &stop);
    if (error)
        return error;
    return stop ? 1 : walk_enter(walk, name, after, last);
}

static int resolve_slow(struct hostio *io, const char *base, const char *path, unsigned flags,
                        struct io_node *node)
{
    char rest[PATH_MAX];
    struct walk walk = {.io = io, .node = node, .rest = rest, .flags = flags};
    int step;

    if (snprintf(node->path, PATH_MAX, "%s", *path == '/' ? "" : base) >= PATH_MAX ||
        snprintf(rest, PATH_MAX, "%s", path) >= PATH_MAX)
        return -ENAMETOOLONG;
    if (!strcmp(node->path, "/"))
        node->path[0] = '\0';
    walk.done = strlen(node->path);
    node->alias = -1;
    node->name[0] = '\0';
    step = walk_reopen(&walk);
    while (!step)
        step = walk_step(&walk);
    if (step < 0)
        io_node_done(node);
    if (!node->path[0])
        memcpy(node->path, "/", 2);
    return step < 0 ? step : 0;
}

/* ---- the fast way: 0, or -EAGAIN for the slow one, or the answer's -errno ---- */
static int resolve_fast(struct hostio *io, const char *base, const char *path, unsigned flags,
                        struct io_node *node)
{
    const char *rest, *last;
    int fd, dots = io_path_join(base, path, node->path);

    if (dots)
        return dots < 0 ? dots : -EAGAIN;
    node->mount = io_mounts_find(&io->mounts, node->path, &rest);
    if (node->mount->hidden)
        return -EACCES;
    if (node->mount->proc || flags & IO_PARENT)
        return -EAGAIN;
    last = strrchr(node->path, '/') + 1;
    if (strlen(last) > NAME_MAX)
        return -ENAMETOOLONG;
    fd = io_mount_open(node->mount, rest,
                       O_PATH | (flags & IO_FOLLOW || node->slash ? 0 : O_NOFOLLOW), 0);
    if (fd == -ELOOP || fd == -EXDEV)
        return -EAGAIN;
    node->fd = fd < 0 ? -1 : fd;
    return fd < 0 ? fd : 0;
}

/* The guest path relative paths start from. 0 or -errno. */
static int base_path(struct hostio *io, int dir_fd, char base[PATH_MAX])
{
    struct io_file *file;
    int error = 0;

    if (dir_fd == AT_FDCWD) {
        pthread_mutex_lock(&io->lock);
        snprintf(base, PATH_MAX, "%s", io->cwd);
        pthread_mutex_unlock(&io->lock);
        return 0;
    }
    file = io_fds_get(&io->fds, dir_fd);
    if (!file)
        return -EBADF;
    if (!S_ISDIR(file->type) || !file->path)
        error = -ENOTDIR;
    else
        snprintf(base, PATH_MAX, "%s", file->path);
    io_file_put(file);
    return error;
}

/* AT_EMPTY_PATH: the descriptor itself. */
static int resolve_empty(struct hostio *io, int dir_fd, struct io_node *node)
{
    struct io_file *file;
    const char *rest;

    if (dir_fd == AT_FDCWD)
        return io_resolve(io, dir_fd, ".", IO_FOLLOW, node);
    file = io_fds_get(&io->fds, dir_fd);
    if (!file)
        return -EBADF;
    node->fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 3);
    snprintf(node->path, PATH_MAX, "%s", file->path ? file->path : "/");
    node->frozen = file->frozen;
    node->mount = file->path ? io_mounts_find(&io->mounts, file->path, &rest) : NULL;
    io_file_put(file);
    return node->fd < 0 ? -errno : 0;
}

static int check_directory(struct io_node *node)
{
    struct stat status;

    if (!fstat(node->fd, &status) && S_ISDIR(status.st_mode))
        return 0;
    io_node_done(node);
    return -ENOTDIR;
}

int io_resolve(struct hostio *io, int dir_fd, const char *path, unsigned flags,
               struct io_node *node)
{
    char base[PATH_MAX];
    size_t bytes = strlen(path);
    int error = 0;

    node->fd = -1;
    node->alias = -1;
    node->frozen = node->read_only = false;
    node->mount = NULL;
    node->name[0] = '\0';
    node->slash =
        bytes && (path[bytes - 1] == '/' || (bytes > 1 && !strcmp(path + bytes - 2, "/.")));
    if (!bytes)
        return flags & IO_EMPTY ? resolve_empty(io, dir_fd, node) : -ENOENT;
    if (bytes >= PATH_MAX)
        return -ENAMETOOLONG;
    if (*path != '/')
        error = base_path(io, dir_fd, base);
    if (error)
        return error;
    error = resolve_fast(io, base, path, flags, node);
    if (error == -EAGAIN)
        error = resolve_slow(io, base, path, flags, node);
    if (!error && node->slash && !(flags & IO_PARENT))
        error = check_directory(node);
    return error;
}
