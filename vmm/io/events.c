/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors without a name: pipes, eventfd, timerfd, memfd, inotify. The host's own, under guest
 * numbers.
 */
#include "vmm/io/hostio_internal.h"

#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define MEMFD_NAME_BYTES 250 /* with its end, as Linux has it */

int io_install_pair(const struct io_call *call, const int host_fds[2], gpa_t out, bool cloexec)
{
    int guest[2];
    int error;

    guest[0] = io_install(call->io, host_fds[0], NULL, cloexec);
    guest[1] = io_install(call->io, host_fds[1], NULL, cloexec);
    error = guest[0] < 0 ? guest[0] : guest[1] < 0 ? guest[1] : 0;
    if (!error)
        error = guestmem_write(call->vm, out, guest, sizeof(guest));
    if (!error)
        return 0;
    for (unsigned i = 0; i < 2; i++) {
        if (guest[i] >= 0)
            (void)io_fds_close(&call->io->fds, guest[i]);
    }
    return error;
}

int64_t io_pipe(const struct io_call *call)
{
    int flags = call->number == SYS_pipe2 ? io_arg_int(call, 1) : 0;
    int host_fds[2];

    if (flags & ~(O_CLOEXEC | O_NONBLOCK | O_DIRECT))
        return -EINVAL;
    if (pipe2(host_fds, flags | O_CLOEXEC))
        return -errno;
    return io_install_pair(call, host_fds, call->args[0], flags & O_CLOEXEC);
}

int64_t io_eventfd(const struct io_call *call)
{
    int flags = call->number == SYS_eventfd2 ? io_arg_int(call, 1) : 0;
    int fd = (int)IO_HOST2(SYS_eventfd2, io_arg_u32(call, 0), flags | EFD_CLOEXEC);

    return fd < 0 ? fd : io_install(call->io, fd, NULL, flags & EFD_CLOEXEC);
}

int64_t io_memfd_create(const struct io_call *call)
{
    unsigned flags = io_arg_u32(call, 1);
    char name[MEMFD_NAME_BYTES];
    long bytes = guestmem_read_string(call->vm, name, call->args[0], sizeof(name));
    int fd;

    if (bytes < 0)
        return bytes == -ENAMETOOLONG ? -EINVAL : bytes;
    fd = (int)IO_HOST2(SYS_memfd_create, name, flags | MFD_CLOEXEC);
    return fd < 0 ? fd : io_install(call->io, fd, NULL, flags & MFD_CLOEXEC);
}

int64_t io_timerfd_create(const struct io_call *call)
{
    int flags = io_arg_int(call, 1);
    int fd = (int)IO_HOST2(SYS_timerfd_create, io_arg_int(call, 0), flags | TFD_CLOEXEC);

    return fd < 0 ? fd : io_install(call->io, fd, NULL, flags & TFD_CLOEXEC);
}

int64_t io_timerfd_settime(const struct io_call *call)
{
    struct io_file *file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    struct itimerspec value, old;
    int64_t result;

    if (!file)
        return -EBADF;
    result = guestmem_read(call->vm, &value, call->args[2], sizeof(value));
    if (!result)
        result = IO_HOST4(SYS_timerfd_settime, file->fd, io_arg_int(call, 1), &value, &old);
    io_file_put(file);
    if (!result && call->args[3])
        result = guestmem_write(call->vm, call->args[3], &old, sizeof(old));
    return result;
}

int64_t io_timerfd_gettime(const struct io_call *call)
{
    struct io_file *file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    struct itimerspec value;
    int64_t result;

    if (!file)
        return -EBADF;
    result = IO_HOST2(SYS_timerfd_gettime, file->fd, &value);
    io_file_put(file);
    return result ? result : guestmem_write(call->vm, call->args[1], &value, sizeof(value));
}

int64_t io_inotify_init(const struct io_call *call)
{
    int flags = call->number == SYS_inotify_init1 ? io_arg_int(call, 0) : 0;
    int fd = (int)IO_HOST1(SYS_inotify_init1, flags | IN_CLOEXEC);

    return fd < 0 ? fd : io_install(call->io, fd, NULL, flags & IN_CLOEXEC);
}

int64_t io_inotify_add_watch(const struct io_call *call)
{
    struct io_file *file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    uint32_t mask = io_arg_u32(call, 2);
    char path[PATH_MAX], link[IO_FD_LINK_BYTES];
    struct io_node node;
    int64_t result;

    if (!file)
        return -EBADF;
    node.fd = -1;
    result = io_path_arg(call, 1, path);
    if (!result)
        result = io_resolve(call->io, AT_FDCWD, path, mask & IN_DONT_FOLLOW ? 0 : IO_FOLLOW, &node);
    /* The name given to the host is a link of /proc itself and must be followed. */
    if (!result)
        result = IO_HOST3(SYS_inotify_add_watch, file->fd, io_fd_link(node.fd, link),
                          mask & ~(uint32_t)IN_DONT_FOLLOW);
    io_node_done(&node);
    io_file_put(file);
    return result;
}
