/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets: AF_UNIX only, by pair or by a name within the granted directories. Networking is off;
 * other families are refused with EAFNOSUPPORT and, once, one line of warning.
 *
 * Names: the program's path is resolved in its own view and handed to the host as a path through
 * /proc/self/fd. Abstract names belong to the whole host and are refused.
 */
#include "vmm/hostio_internal.h"

#include "support.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define OPTION_MAX_BYTES 128

static int family_check(const struct io_call *call)
{
    if (io_arg_int(call, 0) == AF_UNIX)
        return 0;
    if (!atomic_exchange(&call->io->net_warned, true))
        message_warning("networking is off: the program's sockets other than AF_UNIX are refused");
    return -EAFNOSUPPORT;
}

int64_t io_socket(const struct io_call *call)
{
    int type = io_arg_int(call, 1);
    int fd = family_check(call);

    if (!fd)
        fd = (int)IO_HOST3(SYS_socket, AF_UNIX, type | SOCK_CLOEXEC, io_arg_int(call, 2));
    return fd < 0 ? fd : io_install(call->io, fd, NULL, type & SOCK_CLOEXEC);
}

int64_t io_socketpair(const struct io_call *call)
{
    int type = io_arg_int(call, 1);
    int host_fds[2];
    int64_t result = family_check(call);

    if (!result)
        result =
            IO_HOST4(SYS_socketpair, AF_UNIX, type | SOCK_CLOEXEC, io_arg_int(call, 2), host_fds);
    return result ? result : io_install_pair(call, host_fds, call->args[3], type & SOCK_CLOEXEC);
}

/* The program's socket path. 0 or -errno; abstract and unnamed addresses are refused. */
static int address_path(const struct io_call *call, char path[PATH_MAX])
{
    struct sockaddr_un address = {0};
    uint64_t bytes = io_arg_u32(call, 2);
    int error;

    if (bytes <= offsetof(struct sockaddr_un, sun_path) || bytes > sizeof(address))
        return -EINVAL;
    error = guestmem_read(call->vm, &address, call->args[1], bytes);
    if (error)
        return error;
    if (address.sun_family != AF_UNIX)
        return -EAFNOSUPPORT;
    if (!address.sun_path[0])
        return -EACCES;
    memcpy(path, address.sun_path, sizeof(address.sun_path));
    path[sizeof(address.sun_path)] = '\0';
    return 0;
}

int64_t io_connect(const struct io_call *call)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct io_file *file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    char path[PATH_MAX];
    struct io_node node = {.fd = -1};
    int64_t result;

    if (!file)
        return -EBADF;
    result = address_path(call, path);
    if (!result)
        result = io_resolve(call->io, AT_FDCWD, path, IO_FOLLOW, &node);
    if (!result) {
        io_fd_link(node.fd, address.sun_path);
        result = vcpu_syscall(call->vcpu, SYS_connect, file->fd, (long)&address, sizeof(address), 0,
                              0, 0);
    }
    io_node_done(&node);
    io_file_put(file);
    return io_restart(result);
}

int64_t io_bind(const struct io_call *call)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct io_file *file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    char path[PATH_MAX];
    struct io_node node = {.fd = -1};
    int64_t result;

    if (!file)
        return -EBADF;
    result = address_path(call, path);
    if (!result)
        result = io_resolve(call->io, AT_FDCWD, path, IO_PARENT, &node);
    if (!result && !node.name[0])
        result = -EADDRINUSE;
    if (!result && !node.mount->writable)
        result = -EROFS;
    if (!result && snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s",
                            node.fd, node.name) >= (int)sizeof(address.sun_path))
        result = -ENAMETOOLONG;
    if (!result)
        result = IO_HOST3(SYS_bind, file->fd, &address, sizeof(address));
    io_node_done(&node);
    io_file_put(file);
    return result;
}

/* Host names of sockets are of no use to the program: only the family is told. */
static int64_t address_write(const struct io_call *call, gpa_t to, gpa_t bytes_gpa)
{
    sa_family_t family = AF_UNIX;
    uint32_t room, bytes = sizeof(family);
    int error;

    if (!to || !bytes_gpa)
        return 0;
    error = guestmem_read(call->vm, &room, bytes_gpa, sizeof(room));
    if (!error && room)
        error = guestmem_write(call->vm, to, &family, room < bytes ? room : bytes);
    return error ? error : guestmem_write(call->vm, bytes_gpa, &bytes, sizeof(bytes));
}

static int64_t name_of(const struct io_call *call)
{
    struct io_file *file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    struct sockaddr_un address;
    socklen_t bytes = sizeof(address);
    int64_t result;

    if (!file)
        return -EBADF;
    result = IO_HOST3(call->number, file->fd, &address, &bytes);
    io_file_put(file);
    return result ? result : address_write(call, call->args[1], call->args[2]);
}

int64_t io_getsockname(const struct io_call *call)
{
    return name_of(call);
}

int64_t io_getpeername(const struct io_call *call)
{
    return name_of(call);
}

int64_t io_accept(const struct io_call *call)
{
    struct io_file *file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    int flags = call->number == SYS_accept4 ? io_arg_int(call, 3) : 0;
    int64_t fd;

    if (!file)
        return -EBADF;
    fd = vcpu_syscall(call->vcpu, SYS_accept4, file->fd, 0, 0, flags | SOCK_CLOEXEC, 0, 0);
    io_file_put(file);
    if (fd < 0)
        return io_restart(fd);
    fd = io_install(call->io, (int)fd, NULL, flags & SOCK_CLOEXEC);
    if (fd >= 0 && address_write(call, call->args[1], call->args[2])) {
        (void)io_fds_close(&call->io->fds, (int)fd);
        return -EFAULT;
    }
    return fd;
}

int64_t io_setsockopt(const struct io_call *call)
{
    struct io_file *file;
    uint8_t value[OPTION_MAX_BYTES];
    uint32_t bytes = io_arg_u32(call, 4);
    int64_t result = 0;

    if (io_arg_int(call, 1) != SOL_SOCKET)
        return -ENOPROTOOPT;
    /* A filter is a program run in the host's kernel. */
    if (io_arg_int(call, 2) == SO_ATTACH_FILTER || io_arg_int(call, 2) == SO_ATTACH_BPF)
        return -EPERM;
    if (bytes > sizeof(value))
        return -EINVAL;
    file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    if (!file)
        return -EBADF;
    result = guestmem_read(call->vm, value, call->args[3], bytes);
    if (!result)
        result = IO_HOST5(SYS_setsockopt, file->fd, SOL_SOCKET, io_arg_int(call, 2), value, bytes);
    io_file_put(file);
    return result;
}

int64_t io_getsockopt(const struct io_call *call)
{
    struct io_file *file;
    uint8_t value[OPTION_MAX_BYTES];
    uint32_t bytes;
    int64_t result = guestmem_read(call->vm, &bytes, call->args[4], sizeof(bytes));

    if (result)
        return result;
    /* Answers by descriptor would name the host's. */
    if (io_arg_int(call, 1) != SOL_SOCKET || io_arg_int(call, 2) > SO_BUSY_POLL)
        return -ENOPROTOOPT;
    if (bytes > sizeof(value))
        bytes = sizeof(value);
    file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    if (!file)
        return -EBADF;
    result = IO_HOST5(SYS_getsockopt, file->fd, SOL_SOCKET, io_arg_int(call, 2), value, &bytes);
    io_file_put(file);
    if (!result)
        result = guestmem_write(call->vm, call->args[3], value, bytes);
    return result ? result : guestmem_write(call->vm, call->args[4], &bytes, sizeof(bytes));
}
