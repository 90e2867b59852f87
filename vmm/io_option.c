/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Socket options: the usual ones, by number. An option that is not in the list could name host
 * descriptors, run programs in the host's kernel, or reach beyond what was granted.
 */
#include "vmm/hostio_internal.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define OPTION_MAX_BYTES 256

static const struct {
    int level, name;
} internet_options[] = {
    {IPPROTO_TCP, TCP_NODELAY},
    {IPPROTO_TCP, TCP_MAXSEG},
    {IPPROTO_TCP, TCP_CORK},
    {IPPROTO_TCP, TCP_KEEPIDLE},
    {IPPROTO_TCP, TCP_KEEPINTVL},
    {IPPROTO_TCP, TCP_KEEPCNT},
    {IPPROTO_TCP, TCP_SYNCNT},
    {IPPROTO_TCP, TCP_LINGER2},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT},
    {IPPROTO_TCP, TCP_WINDOW_CLAMP},
    {IPPROTO_TCP, TCP_INFO},
    {IPPROTO_TCP, TCP_QUICKACK},
    {IPPROTO_TCP, TCP_CONGESTION},
    {IPPROTO_TCP, TCP_USER_TIMEOUT},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT},
    {IPPROTO_IP, IP_TOS},
    {IPPROTO_IP, IP_TTL},
    {IPPROTO_IP, IP_RECVERR},
    {IPPROTO_IP, IP_MTU_DISCOVER},
    {IPPROTO_IP, IP_MTU},
    {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT},
    {IPPROTO_IPV6, IPV6_V6ONLY},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS},
    {IPPROTO_IPV6, IPV6_RECVERR},
    {IPPROTO_IPV6, IPV6_MTU_DISCOVER},
    {IPPROTO_IPV6, IPV6_TCLASS},
};

static int internet_option_check(int level, int name)
{
    for (size_t i = 0; i < sizeof(internet_options) / sizeof(internet_options[0]); i++) {
        if (internet_options[i].level == level && internet_options[i].name == name)
            return 0;
    }
    return -ENOPROTOOPT;
}

static int set_check(int level, int name)
{
    if (level != SOL_SOCKET)
        return internet_option_check(level, name);
    switch (name) {
    case SO_ATTACH_FILTER: /* a program run in the host's kernel */
    case SO_ATTACH_BPF:
    case SO_ATTACH_REUSEPORT_CBPF:
    case SO_ATTACH_REUSEPORT_EBPF:
    case SO_BINDTODEVICE:
    case SO_MARK:
        return -EPERM;
    case SO_ZEROCOPY: /* the host would still read pages that left meanwhile */
        return -EOPNOTSUPP;
    default:
        return 0;
    }
}

int64_t io_setsockopt(const struct io_call *call)
{
    struct io_file *file;
    uint8_t value[OPTION_MAX_BYTES];
    uint32_t bytes = io_arg_u32(call, 4);
    int64_t result = set_check(io_arg_int(call, 1), io_arg_int(call, 2));

    if (result)
        return result;
    if (bytes > sizeof(value))
        return -EINVAL;
    file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    if (!file)
        return -EBADF;
    result = guestmem_read(call->vm, value, call->args[3], bytes);
    if (!result)
        result = IO_HOST5(SYS_setsockopt, file->fd, io_arg_int(call, 1), io_arg_int(call, 2), value,
                          bytes);
    io_file_put(file);
    return result;
}

int64_t io_getsockopt(const struct io_call *call)
{
    int level = io_arg_int(call, 1), name = io_arg_int(call, 2);
    struct io_file *file;
    uint8_t value[OPTION_MAX_BYTES];
    uint32_t bytes;
    int64_t result = guestmem_read(call->vm, &bytes, call->args[4], sizeof(bytes));

    if (!result && level != SOL_SOCKET)
        result = internet_option_check(level, name);
    if (result)
        return result;
    /* Answers by descriptor would name the host's. */
    if (level == SOL_SOCKET && name > SO_BUSY_POLL)
        return -ENOPROTOOPT;
    if (bytes > sizeof(value))
        bytes = sizeof(value);
    file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    if (!file)
        return -EBADF;
    result = IO_HOST5(SYS_getsockopt, file->fd, level, name, value, &bytes);
    io_file_put(file);
    if (!result)
        result = guestmem_write(call->vm, call->args[3], value, bytes);
    return result ? result : guestmem_write(call->vm, call->args[4], &bytes, sizeof(bytes));
}
