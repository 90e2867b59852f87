/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets: AF_UNIX by pair or by a name within the granted directories, and with --net host TCP
 * and UDP over IPv4 and IPv6, to the ports and addresses that were granted (net_rules.c). Other
 * families are refused with EAFNOSUPPORT and, without --net, one line of warning.
 *
 * Unix names: the program's path is resolved in its own view and handed to the host as a path
 * through /proc/self/fd. Abstract names belong to the whole host and are refused.
 */
#include "vmm/io/hostio_internal.h"

#include "support.h"

#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define KIND_MASK 0xf /* of a socket type: the rest is SOCK_NONBLOCK and SOCK_CLOEXEC */

/* Streams and datagrams; raw sockets and the kernel's own families are not a program's business. */
static int family_check(const struct io_call *call)
{
    int family = io_arg_int(call, 0), kind = io_arg_int(call, 1) & KIND_MASK;
    int protocol = io_arg_int(call, 2);

    if (family == AF_UNIX)
        return 0;
    if (call->io->config->net && (family == AF_INET || family == AF_INET6)) {
        if (kind != SOCK_STREAM && kind != SOCK_DGRAM)
            return kind == SOCK_RAW ? -EPERM : -ESOCKTNOSUPPORT;
        return !protocol || protocol == (kind == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP)
                   ? 0
                   : -EPROTONOSUPPORT;
    }
    if (call->io->config->net)
        return -EAFNOSUPPORT;
    if (!atomic_exchange(&call->io->net_warned, true))
        message_warning("networking is off: the program's sockets other than AF_UNIX are refused");
    return -EAFNOSUPPORT;
}

int64_t io_socket(const struct io_call *call)
{
    int type = io_arg_int(call, 1);
    int fd = family_check(call);

    if (!fd)
        fd = (int)IO_HOST3(SYS_socket, io_arg_int(call, 0), type | SOCK_CLOEXEC,
                           io_arg_int(call, 2));
    return fd < 0 ? fd : io_install_socket(call->io, fd, NULL, type & SOCK_CLOEXEC);
}

int64_t io_socketpair(const struct io_call *call)
{
    int type = io_arg_int(call, 1);
    int host_fds[2];
    int64_t result = family_check(call);

    if (!result && io_arg_int(call, 0) != AF_UNIX)
        result = -EOPNOTSUPP;
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

static int64_t connect_unix(const struct io_call *call, const struct io_file *file)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char path[PATH_MAX];
    struct io_node node = {.fd = -1};
    int64_t result = address_path(call, path);

    if (!result)
        result = io_resolve(call->io, AT_FDCWD, path, IO_FOLLOW, &node);
    if (!result) {
        io_fd_link(node.fd, address.sun_path);
        result = vcpu_syscall(call->vcpu, SYS_connect, file->fd, (long)&address, sizeof(address), 0,
                              0, 0);
    }
    io_node_done(&node);
    return result;
}

static int64_t connect_inet(const struct io_call *call, const struct io_file *file)
{
    struct sockaddr_storage address;
    int64_t result = io_address_read(call, call->args[1], io_arg_u32(call, 2), &address);

    if (!result)
        result = io_connect_check(call, &address);
    if (!result)
        result = vcpu_syscall(call->vcpu, SYS_connect, file->fd, (long)&address, sizeof(address), 0,
                              0, 0);
    return result;
}

int64_t io_connect(const struct io_call *call)
{
    struct io_file *file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    int64_t result;

    if (!file)
        return -EBADF;
    result = io_is_inet(file) ? connect_inet(call, file) : connect_unix(call, file);
    if ((!result || result == -EINPROGRESS) && file->made_here && file->stream && io_is_inet(file))
        atomic_store(&file->sight.own, true);
    io_file_put(file);
    return io_restart(result);
}

static int64_t bind_unix(const struct io_call *call, const struct io_file *file)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char path[PATH_MAX];
    struct io_node node = {.fd = -1};
    int64_t result = address_path(call, path);

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
    return result;
}

static int64_t bind_inet(const struct io_call *call, const struct io_file *file)
{
    struct sockaddr_storage address;
    int64_t result = io_address_read(call, call->args[1], io_arg_u32(call, 2), &address);

    if (!result)
        result = io_bind_check(call, &address, !file->stream);
    if (!result)
        result = IO_HOST3(SYS_bind, file->fd, &address, sizeof(address));
    return result;
}

int64_t io_bind(const struct io_call *call)
{
    struct io_file *file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    int64_t result;

    if (!file)
        return -EBADF;
    result = io_is_inet(file) ? bind_inet(call, file) : bind_unix(call, file);
    io_file_put(file);
    return result;
}

/* An internet socket that was never bound would listen on a port of the host's choice. */
int64_t io_listen(const struct io_call *call)
{
    struct io_file *file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    int64_t result = 0;

    if (!file)
        return -EBADF;
    if (io_is_inet(file))
        result = net_listen_check(call->io->config, file->fd, false);
    if (!result)
        result = IO_HOST2(SYS_listen, file->fd, io_arg_int(call, 1));
    io_file_put(file);
    return result;
}

int64_t io_shutdown(const struct io_call *call)
{
    struct io_file *file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    int how = io_arg_int(call, 1);
    int64_t result;

    if (!file)
        return -EBADF;
    result = IO_HOST2(SYS_shutdown, file->fd, how);
    if (how != SHUT_RD)
        atomic_store(&file->sight.shut, true);
    io_file_put(file);
    return result;
}

static int64_t name_of(const struct io_call *call)
{
    struct io_file *file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    struct sockaddr_storage address;
    socklen_t bytes = sizeof(address);
    int64_t result;

    if (!file)
        return -EBADF;
    result = IO_HOST3(call->number, file->fd, &address, &bytes);
    io_file_put(file);
    return result ? result : io_address_write(call, call->args[1], call->args[2], &address);
}

int64_t io_getsockname(const struct io_call *call)
{
    return name_of(call);
}

int64_t io_getpeername(const struct io_call *call)
{
    return name_of(call);
}

/* Until there is something to receive, or the time is over; then the call is made anew. */
static int64_t receive_until(const struct io_call *call, const struct io_resume *wait)
{
    struct io_file *file = io_fds_get(&call->io->fds, (int)(uint32_t)wait->args[0]);
    struct timespec left = io_time_left(wait->deadline_ns);
    long result;

    if (!file)
        return -EBADF;
    struct pollfd ready = {.fd = file->fd, .events = POLLIN};
    result = vcpu_syscall(call->vcpu, SYS_ppoll, (long)&ready, 1, (long)&left, 0, 0, 0);
    io_file_put(file);
    if (result <= 0)
        return result ? result : -EAGAIN;
    return hostio_call(call->vcpu, wait->number, wait->args);
}

static struct timeval limit_of(const struct io_file *file, bool send)
{
    struct timeval limit = {0};
    socklen_t bytes = sizeof(limit);

    if (!S_ISSOCK(file->type) ||
        getsockopt(file->fd, SOL_SOCKET, send ? SO_SNDTIMEO : SO_RCVTIMEO, &limit, &bytes))
        limit = (struct timeval){0};
    return limit;
}

bool io_is_limited(const struct io_file *file, bool send)
{
    struct timeval limit = limit_of(file, send);

    return limit.tv_sec || limit.tv_usec;
}

int64_t io_restart_socket(const struct io_call *call, const struct io_file *file, bool send,
                          int64_t result)
{
    struct io_resume wait = {.run = receive_until};
    struct timeval limit;

    if (call->of)
        call = call->of;
    wait.number = call->number;
    if (result != -EINTR || call->vcpu->at_once || !io_is_limited(file, send))
        return io_restart(result);
    limit = limit_of(file, send);
    if (send)
        return io_restart_nohand(result);
    /* From now, not from its beginning: that only once, for this wait keeps to its time. */
    struct timespec timeout = {limit.tv_sec, limit.tv_usec * 1000};
    wait.deadline_ns = io_deadline_ns(&timeout);
    memcpy(wait.args, call->args, sizeof(wait.args));
    return io_resumable_later(&wait);
}

int64_t io_accept(const struct io_call *call)
{
    struct io_file *file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    int flags = call->number == SYS_accept4 ? io_arg_int(call, 3) : 0;
    struct sockaddr_storage address = {.ss_family = AF_UNIX};
    socklen_t bytes = sizeof(address);
    int64_t fd;

    if (!file)
        return -EBADF;
    fd =
        io_fds_room(&call->io->fds, io_nofile(call->io)); /* else the peer waits, and is not lost */
    if (!fd)
        fd = vcpu_syscall(call->vcpu, SYS_accept4, file->fd, (long)&address, (long)&bytes,
                          flags | SOCK_CLOEXEC, 0, 0);
    if (fd >= 0)
        fd = io_install_socket(call->io, (int)fd, file, flags & SOCK_CLOEXEC);
    fd = io_restart_socket(call, file, false, fd);
    io_file_put(file);
    if (fd < 0)
        return fd;
    if (fd >= 0 && io_address_write(call, call->args[1], call->args[2], &address)) {
        (void)io_fds_close(&call->io->fds, (int)fd);
        return -EFAULT;
    }
    return fd;
}
