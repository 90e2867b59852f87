/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls on a descriptor itself: closing, duplicating, flags and locks, and those whose
 * arguments after the descriptor are plain numbers and so pass unchanged.
 */
#include "vmm/io/hostio_internal.h"

#include <linux/close_range.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

int64_t io_close(const struct io_call *call)
{
    return io_fds_close(&call->io->fds, io_arg_int(call, 0));
}

int64_t io_close_range(const struct io_call *call)
{
    uint32_t first = io_arg_u32(call, 0), last = io_arg_u32(call, 1);
    const bool cloexec = true;

    if (call->args[2] & ~(uint64_t)(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) || first > last)
        return -EINVAL;
    if (first > INT_MAX)
        return 0;
    for (int fd = io_fds_next(&call->io->fds, (int)first); fd >= 0 && (uint32_t)fd <= last;
         fd = io_fds_next(&call->io->fds, fd + 1)) {
        if (call->args[2] & CLOSE_RANGE_CLOEXEC)
            (void)io_fds_cloexec(&call->io->fds, fd, &cloexec);
        else
            (void)io_fds_close(&call->io->fds, fd);
    }
    return 0;
}

/* A copy of a descriptor's file, or -EBADF. */
static int file_copy(const struct io_call *call, int fd, struct io_file **copy)
{
    struct io_file *file = io_fds_get(&call->io->fds, fd);
    int error;

    if (!file)
        return -EBADF;
    error = io_file_dup(file, copy);
    io_file_put(file);
    return error;
}

static int64_t dup_from(const struct io_call *call, int fd, int from, bool cloexec)
{
    struct io_file *copy;
    int error;

    if (from < 0 || (uint64_t)from >= io_nofile(call->io))
        return -EINVAL;
    error = file_copy(call, fd, &copy);
    return error ? error : io_fds_add(&call->io->fds, copy, from, io_nofile(call->io), cloexec);
}

int64_t io_dup(const struct io_call *call)
{
    return dup_from(call, io_arg_int(call, 0), 0, false);
}

static int64_t dup_onto(const struct io_call *call, int fd, int onto, bool cloexec)
{
    struct io_file *copy;
    int error = file_copy(call, fd, &copy);

    return error ? error : io_fds_replace(&call->io->fds, copy, onto, io_nofile(call->io), cloexec);
}

int64_t io_dup2(const struct io_call *call)
{
    int fd = io_arg_int(call, 0), onto = io_arg_int(call, 1);

    if (fd == onto)
        return io_fds_cloexec(&call->io->fds, fd, NULL) < 0 ? -EBADF : fd;
    return dup_onto(call, fd, onto, false);
}

int64_t io_dup3(const struct io_call *call)
{
    int fd = io_arg_int(call, 0), onto = io_arg_int(call, 1);

    if (fd == onto || io_arg_int(call, 2) & ~O_CLOEXEC)
        return -EINVAL;
    return dup_onto(call, fd, onto, io_arg_int(call, 2) & O_CLOEXEC);
}

/* Record locks: the VMM is the process that holds them, as the guest is one process. */
static int64_t fcntl_lock(const struct io_call *call, const struct io_file *file, int command)
{
    struct flock lock;
    int64_t result = guestmem_read(call->vm, &lock, call->args[2], sizeof(lock));

    if (result)
        return result;
    if (command == F_SETLKW || command == F_OFD_SETLKW)
        return io_restart(
            vcpu_syscall(call->vcpu, SYS_fcntl, file->fd, command, (long)&lock, 0, 0, 0));
    result = IO_HOST3(SYS_fcntl, file->fd, command, &lock);
    if (!result && (command == F_GETLK || command == F_OFD_GETLK))
        result = guestmem_write(call->vm, call->args[2], &lock, sizeof(lock));
    return result;
}

static int64_t fcntl_file(const struct io_call *call, struct io_file *file, int command)
{
    long value = (long)call->args[2];
    int64_t result;

    switch (command) {
    case F_GETFL:
    case F_GETPIPE_SZ:
    case F_SETPIPE_SZ:
    case F_GET_SEALS:
    case F_ADD_SEALS:
        return IO_HOST3(SYS_fcntl, file->fd, command, value);
    case F_SETFL: /* no signals from the host's descriptors */
        result = IO_HOST3(SYS_fcntl, file->fd, command, value & ~(long)O_ASYNC);
        io_file_flags_changed(file);
        return result;
    case F_GETLK:
    case F_SETLK:
    case F_SETLKW:
    case F_OFD_GETLK:
    case F_OFD_SETLK:
    case F_OFD_SETLKW:
        return fcntl_lock(call, file, command);
    case F_GETOWN:
    case F_GETSIG:
        return 0;
    default:
        return -EINVAL;
    }
}

int64_t io_fcntl(const struct io_call *call)
{
    int fd = io_arg_int(call, 0), command = io_arg_int(call, 1);
    const bool cloexec = call->args[2] & FD_CLOEXEC;
    struct io_file *file;
    int64_t result;

    switch (command) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
        return dup_from(call, fd, io_arg_int(call, 2), command == F_DUPFD_CLOEXEC);
    case F_GETFD:
        return io_fds_cloexec(&call->io->fds, fd, NULL);
    case F_SETFD:
        result = io_fds_cloexec(&call->io->fds, fd, &cloexec);
        return result < 0 ? result : 0;
    default:
        file = io_fds_get(&call->io->fds, fd);
        if (!file)
            return -EBADF;
        result = fcntl_file(call, file, command);
        io_file_put(file);
        return result;
    }
}

/* lseek on the poller: looking for holes reads from a disk, and a transfer holds the position. */
static bool seek_waits(const struct io_call *call, struct io_file *file)
{
    if (!call->vcpu->at_once)
        return false;
    if (io_file_is_slow(file) || io_arg_int(call, 2) > SEEK_END ||
        pthread_mutex_trylock(&file->seek))
        return true;
    pthread_mutex_unlock(&file->seek);
    return false;
}

/* lseek, fsync, ftruncate, fallocate and the like. */
int64_t io_fd_plain(const struct io_call *call)
{
    struct io_file *file = io_call_file(call);
    int64_t result;

    if (!file)
        return -EBADF;
    if (seek_waits(call, file))
        result = io_hand_back(call);
    else
        result = IO_HOST5(call->number, file->fd, call->args[1], call->args[2], call->args[3], 0);
    io_call_put(call, file);
    return result;
}

int64_t io_flock(const struct io_call *call)
{
    struct io_file *file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    int operation = io_arg_int(call, 1);
    int64_t result;

    if (!file)
        return -EBADF;
    result = vcpu_syscall(call->vcpu, SYS_flock, file->fd, operation, 0, 0, 0, 0);
    io_file_put(file);
    return io_restart(result);
}
