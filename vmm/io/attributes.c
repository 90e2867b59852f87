/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing what a file carries: mode, owner, times, length. By name or by descriptor; refused with
 * EROFS where the file comes from a read-only grant, however it was reached.
 */
#include "vmm/io/hostio_internal.h"

#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>
#include <utime.h>

int io_object_arg(const struct io_call *call, int dir_fd, unsigned index, int at, bool change,
                  struct io_node *node)
{
    char path[PATH_MAX];
    unsigned flags =
        (at & AT_SYMLINK_NOFOLLOW ? 0 : IO_FOLLOW) | (at & AT_EMPTY_PATH ? IO_EMPTY : 0);
    int error = io_path_arg(call, index, path);

    node->fd = -1;
    if (!error)
        error = io_resolve(call->io, dir_fd, path, flags, node);
    if (!error && change &&
        (node->frozen || (node->mount && (!node->mount->writable || node->mount->device))))
        error = -EROFS;
    return error;
}

static int64_t chmod_at(const struct io_call *call, int dir_fd, unsigned index, int at)
{
    char link[IO_FD_LINK_BYTES];
    struct io_node node;
    int64_t result = io_object_arg(call, dir_fd, index, at, true, &node);

    if (!result)
        result = IO_HOST3(SYS_fchmodat, AT_FDCWD, io_fd_link(node.fd, link),
                          io_arg_u32(call, index + 1));
    io_node_done(&node);
    return result;
}

int64_t io_chmod(const struct io_call *call)
{
    return chmod_at(call, AT_FDCWD, 0, 0);
}

int64_t io_fchmodat(const struct io_call *call)
{
    int at = call->number == SYS_fchmodat ? 0 : io_arg_int(call, 3);

    if (at & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
        return -EINVAL;
    return chmod_at(call, io_arg_int(call, 0), 1, at);
}

static int64_t chown_at(const struct io_call *call, int dir_fd, unsigned index, int at)
{
    struct io_node node;
    int64_t result = io_object_arg(call, dir_fd, index, at, true, &node);

    if (!result)
        result = IO_HOST5(SYS_fchownat, node.fd, "", io_arg_u32(call, index + 1),
                          io_arg_u32(call, index + 2), AT_EMPTY_PATH);
    io_node_done(&node);
    return result;
}

int64_t io_chown(const struct io_call *call)
{
    return chown_at(call, AT_FDCWD, 0, 0);
}

int64_t io_lchown(const struct io_call *call)
{
    return chown_at(call, AT_FDCWD, 0, AT_SYMLINK_NOFOLLOW);
}

int64_t io_fchownat(const struct io_call *call)
{
    int at = io_arg_int(call, 4);

    if (at & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
        return -EINVAL;
    return chown_at(call, io_arg_int(call, 0), 1, at);
}

/* fchmod, fchown: the same arguments, the descriptor first. */
int64_t io_fd_change(const struct io_call *call)
{
    struct io_file *file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    int64_t result;

    if (!file)
        return -EBADF;
    result = file->frozen ? -EROFS : IO_HOST3(call->number, file->fd, call->args[1], call->args[2]);
    io_file_put(file);
    return result;
}

int64_t io_truncate(const struct io_call *call)
{
    char link[IO_FD_LINK_BYTES];
    struct io_node node;
    int64_t result = io_object_arg(call, AT_FDCWD, 0, 0, true, &node);

    if (!result)
        result = IO_HOST2(SYS_truncate, io_fd_link(node.fd, link), call->args[1]);
    io_node_done(&node);
    return result;
}

/* ---- times ---- */

/* path 0: the descriptor itself. times NULL: now. */
static int64_t set_times(const struct io_call *call, int dir_fd, unsigned index, int at,
                         const struct timespec times[2])
{
    struct io_file *file;
    struct io_node node;
    int64_t result;

    if (call->args[index]) {
        result = io_object_arg(call, dir_fd, index, at, true, &node);
        if (!result)
            result = IO_HOST4(SYS_utimensat, node.fd, "", times, AT_EMPTY_PATH);
        io_node_done(&node);
        return result;
    }
    file = io_fds_get(&call->io->fds, dir_fd);
    if (!file)
        return -EBADF;
    result = file->frozen ? -EROFS : IO_HOST4(SYS_utimensat, file->fd, 0, times, 0);
    io_file_put(file);
    return result;
}

int64_t io_utimensat(const struct io_call *call)
{
    struct timespec times[2];
    int at = io_arg_int(call, 3);
    int error = 0;

    if (at & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
        return -EINVAL;
    if (call->args[2])
        error = guestmem_read(call->vm, times, call->args[2], sizeof(times));
    if (error)
        return error;
    return set_times(call, io_arg_int(call, 0), 1, at, call->args[2] ? times : NULL);
}

static int64_t timevals_set(const struct io_call *call, int dir_fd, unsigned index)
{
    gpa_t gpa = call->args[index + 1];
    struct timeval old[2];
    struct timespec times[2];
    int error = gpa ? guestmem_read(call->vm, old, gpa, sizeof(old)) : 0;

    for (unsigned i = 0; !error && gpa && i < 2; i++) {
        if (old[i].tv_usec < 0 || old[i].tv_usec >= 1000000)
            return -EINVAL;
        times[i] = (struct timespec){old[i].tv_sec, old[i].tv_usec * 1000};
    }
    return error ? error : set_times(call, dir_fd, index, 0, gpa ? times : NULL);
}

int64_t io_utimes(const struct io_call *call)
{
    return timevals_set(call, AT_FDCWD, 0);
}

int64_t io_futimesat(const struct io_call *call)
{
    return timevals_set(call, io_arg_int(call, 0), 1);
}

int64_t io_utime(const struct io_call *call)
{
    struct utimbuf old;
    struct timespec times[2] = {{0}};
    int error = call->args[1] ? guestmem_read(call->vm, &old, call->args[1], sizeof(old)) : 0;

    if (error)
        return error;
    if (call->args[1]) {
        times[0].tv_sec = old.actime;
        times[1].tv_sec = old.modtime;
    }
    return set_times(call, AT_FDCWD, 0, 0, call->args[1] ? times : NULL);
}
