/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking at files: stat and its forms, access, readlink, directory listings, file system facts.
 * Names are resolved to an O_PATH descriptor first, so each answer is about one object.
 */
#include "vmm/io/hostio_internal.h"

#include <string.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Resolves the path in argument `index`; `at` are AT_* flags. 0 or -errno. */
static int node_arg(const struct io_call *call, int dir_fd, unsigned index, int at,
                    struct io_node *node)
{
    char path[PATH_MAX];
    unsigned flags = at & AT_SYMLINK_NOFOLLOW ? 0 : IO_FOLLOW;
    int error = io_path_arg(call, index, path);

    if (error)
        return error;
    if (at & AT_EMPTY_PATH)
        flags |= IO_EMPTY;
    return io_resolve(call->io, dir_fd, path, flags, node);
}

static int64_t stat_node(const struct io_call *call, int dir_fd, unsigned path, unsigned out,
                         int at)
{
    struct io_node node;
    struct stat status;
    int error = node_arg(call, dir_fd, path, at, &node);

    if (error)
        return error;
    error = fstat(node.fd, &status) ? -errno : 0;
    io_node_done(&node);
    return error ? error : guestmem_write(call->vm, call->args[out], &status, sizeof(status));
}

int64_t io_stat(const struct io_call *call)
{
    return stat_node(call, AT_FDCWD, 0, 1, 0);
}

int64_t io_lstat(const struct io_call *call)
{
    return stat_node(call, AT_FDCWD, 0, 1, AT_SYMLINK_NOFOLLOW);
}

static int64_t stat_fd(const struct io_call *call, int fd, gpa_t out)
{
    struct io_file *file = io_fds_get(&call->io->fds, fd);
    struct stat status;
    int error;

    if (!file)
        return -EBADF;
    if (call->vcpu->at_once && io_file_is_slow(file))
        error = (int)io_hand_back(call);
    else
        error = fstat(file->fd, &status) ? -errno : 0;
    io_file_put(file);
    return error ? error : guestmem_write(call->vm, out, &status, sizeof(status));
}

int64_t io_fstat(const struct io_call *call)
{
    return stat_fd(call, io_arg_int(call, 0), call->args[1]);
}

int64_t io_newfstatat(const struct io_call *call)
{
    int at = io_arg_int(call, 3);
    char first;

    if (at & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT))
        return -EINVAL;
    /* How libc spells fstat: worth a short way. */
    if (at & AT_EMPTY_PATH && io_arg_int(call, 0) >= 0 &&
        !guestmem_read(call->vm, &first, call->args[1], 1) && !first)
        return stat_fd(call, io_arg_int(call, 0), call->args[2]);
    return stat_node(call, io_arg_int(call, 0), 1, 2, at);
}

int64_t io_statx(const struct io_call *call)
{
    struct io_node node;
    struct statx status;
    int at = io_arg_int(call, 2);
    int error;

    if (at & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_SYNC_TYPE))
        return -EINVAL;
    error = node_arg(call, io_arg_int(call, 0), 1, at, &node);
    if (error)
        return error;
    error = (int)IO_HOST5(SYS_statx, node.fd, "", (at & AT_STATX_SYNC_TYPE) | AT_EMPTY_PATH,
                          io_arg_u32(call, 3), &status);
    io_node_done(&node);
    return error ? error : guestmem_write(call->vm, call->args[4], &status, sizeof(status));
}

int64_t io_statfs(const struct io_call *call)
{
    struct io_node node;
    struct statfs status;
    int error = node_arg(call, AT_FDCWD, 0, 0, &node);

    if (error)
        return error;
    error = fstatfs(node.fd, &status) ? -errno : 0;
    io_node_done(&node);
    return error ? error : guestmem_write(call->vm, call->args[1], &status, sizeof(status));
}

int64_t io_fstatfs(const struct io_call *call)
{
    struct io_file *file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    struct statfs status;
    int error;

    if (!file)
        return -EBADF;
    error = fstatfs(file->fd, &status) ? -errno : 0;
    io_file_put(file);
    return error ? error : guestmem_write(call->vm, call->args[1], &status, sizeof(status));
}

static int64_t access_node(const struct io_call *call, int dir_fd, unsigned path, int mode, int at)
{
    struct io_node node;
    struct stat status;
    int error;

    if (mode & ~(R_OK | W_OK | X_OK))
        return -EINVAL;
    error = node_arg(call, dir_fd, path, at, &node);
    if (error)
        return error;
    error = (int)IO_HOST4(SYS_faccessat2, node.fd, "", mode, AT_EMPTY_PATH | (at & AT_EACCESS));
    if (!error && mode & W_OK && node.mount && !node.mount->writable && !fstat(node.fd, &status) &&
        (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode)))
        error = -EROFS;
    io_node_done(&node);
    return error;
}

int64_t io_access(const struct io_call *call)
{
    return access_node(call, AT_FDCWD, 0, io_arg_int(call, 1), 0);
}

int64_t io_faccessat(const struct io_call *call)
{
    int at = call->number == SYS_faccessat ? 0 : io_arg_int(call, 3);

    if (at & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_EACCESS))
        return -EINVAL;
    return access_node(call, io_arg_int(call, 0), 1, io_arg_int(call, 2), at);
}

static int64_t readlink_node(const struct io_call *call, int dir_fd, unsigned index)
{
    char target[PATH_MAX];
    struct io_node node;
    struct stat status;
    int64_t bytes = call->args[index + 2] < PATH_MAX ? (int64_t)call->args[index + 2] : PATH_MAX;
    int error;

    if (io_arg_int(call, index + 2) <= 0)
        return -EINVAL;
    error = node_arg(call, dir_fd, index, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH, &node);
    if (error)
        return error;
    if (fstat(node.fd, &status) || !S_ISLNK(status.st_mode))
        bytes = -EINVAL;
    else
        bytes = IO_HOST4(SYS_readlinkat, node.fd, "", target, bytes);
    io_node_done(&node);
    if (bytes > 0)
        error = guestmem_write(call->vm, call->args[index + 1], target, (size_t)bytes);
    return error ? error : bytes;
}

int64_t io_readlink(const struct io_call *call)
{
    return readlink_node(call, AT_FDCWD, 0);
}

int64_t io_readlinkat(const struct io_call *call)
{
    return readlink_node(call, io_arg_int(call, 0), 1);
}

/* Both forms of getdents: straight into the program's buffer, or as much of it as may be pinned. */
int64_t io_getdents(const struct io_call *call)
{
    struct io_file *file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    size_t bytes = io_arg_u32(call, 2);
    struct iovec span = {(void *)call->args[1], bytes};
    struct io_cursor cursor = {.spans = &span, .count = 1};
    struct io_batch batch;
    int64_t result;

    if (!file)
        return -EBADF;
    result = S_ISDIR(file->type) ? 0 : -ENOTDIR;
    if (!result && !bytes)
        result = -EINVAL;
    if (!result)
        result = io_batch_pin(call->vm, &batch, &cursor, true);
    if (!result) {
        result = IO_HOST3(call->number, file->fd, batch.iov[0].iov_base, batch.iov[0].iov_len);
        io_batch_unpin(call->vm, &batch);
    }
    io_file_put(file);
    return result;
}
