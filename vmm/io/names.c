/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making, removing and renaming names: each works on the last component inside an already resolved
 * parent directory, so no link is followed by accident. Moves between two grants give EXDEV, as
 * between two file systems.
 */
#include "vmm/io/hostio_internal.h"

#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The parent of the path in argument `index`. 0 or -errno. */
static int parent_arg(const struct io_call *call, int dir_fd, unsigned index, unsigned flags,
                      struct io_node *node)
{
    char path[PATH_MAX];
    int error = io_path_arg(call, index, path);

    node->fd = -1;
    return error ? error : io_resolve(call->io, dir_fd, path, IO_PARENT | flags, node);
}

/* May names be changed here? An object that is in the way, or missing, is told first, as Linux. */
static int parent_check(const struct hostio *io, const struct io_node *node, bool make)
{
    struct stat status;
    bool there;

    if (!node->name[0])
        return make ? -EEXIST : -EBUSY;
    if (!make && io_mounts_below(&io->mounts, node->path))
        return -EBUSY;
    if (node->mount->writable)
        return 0;
    there = !fstatat(node->fd, node->name, &status, AT_SYMLINK_NOFOLLOW);
    if (make)
        return there ? -EEXIST : -EROFS;
    return there ? -EROFS : -ENOENT;
}

static int64_t mkdir_at(const struct io_call *call, int dir_fd, unsigned index)
{
    struct io_node node;
    int64_t result = parent_arg(call, dir_fd, index, 0, &node);

    if (!result)
        result = parent_check(call->io, &node, true);
    if (!result)
        result = IO_HOST3(SYS_mkdirat, node.fd, node.name, io_arg_u32(call, index + 1));
    io_node_done(&node);
    return result;
}

int64_t io_mkdir(const struct io_call *call)
{
    return mkdir_at(call, AT_FDCWD, 0);
}

int64_t io_mkdirat(const struct io_call *call)
{
    return mkdir_at(call, io_arg_int(call, 0), 1);
}

/* FIFOs, sockets' names and plain files; a device node would be a door of its own. */
static int64_t mknod_at(const struct io_call *call, int dir_fd, unsigned index)
{
    mode_t mode = io_arg_u32(call, index + 1);
    struct io_node node;
    int64_t result;

    if (S_ISCHR(mode) || S_ISBLK(mode))
        return -EPERM;
    result = parent_arg(call, dir_fd, index, 0, &node);
    if (!result)
        result = parent_check(call->io, &node, true);
    if (!result)
        result = IO_HOST4(SYS_mknodat, node.fd, node.name, mode, 0);
    io_node_done(&node);
    return result;
}

int64_t io_mknod(const struct io_call *call)
{
    return mknod_at(call, AT_FDCWD, 0);
}

int64_t io_mknodat(const struct io_call *call)
{
    return mknod_at(call, io_arg_int(call, 0), 1);
}

static int64_t unlink_at(const struct io_call *call, int dir_fd, unsigned index, int flags)
{
    struct io_node node;
    int64_t result;

    if (flags & ~AT_REMOVEDIR)
        return -EINVAL;
    result = parent_arg(call, dir_fd, index, 0, &node);
    if (result)
        return result;
    if (!node.name[0] && !flags)
        result = node.mount->directory ? -EISDIR : -EBUSY;
    else
        result = parent_check(call->io, &node, false);
    if (!result && node.slash && !flags)
        result = -ENOTDIR;
    if (!result)
        result = IO_HOST3(SYS_unlinkat, node.fd, node.name, flags);
    io_node_done(&node);
    return result;
}

int64_t io_unlink(const struct io_call *call)
{
    return unlink_at(call, AT_FDCWD, 0, 0);
}

int64_t io_rmdir(const struct io_call *call)
{
    return unlink_at(call, AT_FDCWD, 0, AT_REMOVEDIR);
}

int64_t io_unlinkat(const struct io_call *call)
{
    return unlink_at(call, io_arg_int(call, 0), 1, io_arg_int(call, 2));
}

/* Two parents; *from and *to are to be ended by the caller in any case. */
static int parents_of_pair(const struct io_call *call, const int dir_fds[2],
                           const unsigned indexes[2], unsigned from_flags, struct io_node *from,
                           struct io_node *to)
{
    int error;

    to->fd = -1;
    error = parent_arg(call, dir_fds[0], indexes[0], from_flags, from);
    if (!error)
        error = parent_arg(call, dir_fds[1], indexes[1], 0, to);
    return error;
}

static bool is_directory_at(const struct io_node *node)
{
    struct stat status;

    return !fstatat(node->fd, node->name, &status, AT_SYMLINK_NOFOLLOW) && S_ISDIR(status.st_mode);
}

static int64_t rename_at(const struct io_call *call, const int dir_fds[2],
                         const unsigned indexes[2], unsigned flags)
{
    struct io_node from, to;
    int64_t result = parents_of_pair(call, dir_fds, indexes, 0, &from, &to);

    if (!result && (!from.name[0] || !to.name[0]))
        result = -EBUSY;
    if (!result && from.mount != to.mount)
        result = -EXDEV;
    if (!result)
        result = parent_check(call->io, &from, false);
    if (!result && io_mounts_below(&call->io->mounts, to.path))
        result = -EBUSY;
    if (!result && (from.slash || to.slash) && !is_directory_at(&from))
        result = -ENOTDIR;
    if (!result)
        result = IO_HOST5(SYS_renameat2, from.fd, from.name, to.fd, to.name, flags);
    io_node_done(&from);
    io_node_done(&to);
    return result;
}

int64_t io_rename(const struct io_call *call)
{
    return rename_at(call, (const int[]){AT_FDCWD, AT_FDCWD}, (const unsigned[]){0, 1}, 0);
}

int64_t io_renameat(const struct io_call *call)
{
    return rename_at(call, (const int[]){io_arg_int(call, 0), io_arg_int(call, 2)},
                     (const unsigned[]){1, 3}, 0);
}

int64_t io_renameat2(const struct io_call *call)
{
    unsigned flags = io_arg_u32(call, 4);

    /* A whiteout is a device node. */
    if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE))
        return -EINVAL;
    return rename_at(call, (const int[]){io_arg_int(call, 0), io_arg_int(call, 2)},
                     (const unsigned[]){1, 3}, flags);
}

/* The nameless file of a descriptor (O_TMPFILE) gets a name. */
static int64_t link_alias(const struct io_call *call, const struct io_node *from,
                          const struct io_node *to)
{
    struct io_file *file = io_fds_get(&call->io->fds, from->alias);
    char link[IO_FD_LINK_BYTES];
    int64_t result = -EXDEV;

    if (!file)
        return -ENOENT;
    if (!file->frozen)
        result = IO_HOST5(SYS_linkat, AT_FDCWD, io_fd_link(file->fd, link), to->fd, to->name,
                          AT_SYMLINK_FOLLOW);
    io_file_put(file);
    return result;
}

static int64_t link_at(const struct io_call *call, const int dir_fds[2], const unsigned indexes[2],
                       int at)
{
    struct io_node from, to;
    int64_t result;

    if (at & ~AT_SYMLINK_FOLLOW)
        return at & AT_EMPTY_PATH ? -ENOENT : -EINVAL;
    result = parents_of_pair(call, dir_fds, indexes, at ? IO_FOLLOW : 0, &from, &to);
    if (!result)
        result = parent_check(call->io, &to, true);
    if (!result && from.alias >= 0) {
        result = link_alias(call, &from, &to);
    } else if (!result) {
        if (!from.name[0])
            result = from.mount->directory ? -EPERM : -EXDEV;
        else if (from.mount != to.mount)
            result = -EXDEV;
        else
            result = IO_HOST5(SYS_linkat, from.fd, from.name, to.fd, to.name, 0);
    }
    io_node_done(&from);
    io_node_done(&to);
    return result;
}

int64_t io_link(const struct io_call *call)
{
    return link_at(call, (const int[]){AT_FDCWD, AT_FDCWD}, (const unsigned[]){0, 1}, 0);
}

int64_t io_linkat(const struct io_call *call)
{
    return link_at(call, (const int[]){io_arg_int(call, 0), io_arg_int(call, 2)},
                   (const unsigned[]){1, 3}, io_arg_int(call, 4));
}

static int64_t symlink_at(const struct io_call *call, int dir_fd, unsigned index)
{
    char target[PATH_MAX];
    struct io_node node;
    int64_t result = io_path_arg(call, 0, target);

    if (result)
        return result;
    result = parent_arg(call, dir_fd, index, 0, &node);
    if (!result)
        result = parent_check(call->io, &node, true);
    if (!result)
        result = IO_HOST3(SYS_symlinkat, target, node.fd, node.name);
    io_node_done(&node);
    return result;
}

int64_t io_symlink(const struct io_call *call)
{
    return symlink_at(call, AT_FDCWD, 1);
}

int64_t io_symlinkat(const struct io_call *call)
{
    return symlink_at(call, io_arg_int(call, 1), 2);
}
