/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Socket options: the usual ones, by number. An option that is not in the list could name host
 * descriptors, run programs in the host's kernel, or reach beyond what was granted.
 */
#include "vmm/io/hostio_internal.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
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

/*
 * What is not here: filters (programs in the host's kernel, whose getsockopt counts instructions,
 * not bytes), devices and marks (ways around routing), the *FORCE forms (more of the host's memory
 * than its limits say, for root), busy polling, zero copy (the host would still read pages that
 * left meanwhile), and answers that name host descriptors.
 */
static const int socket_options[] = {
    SO_DEBUG,           SO_REUSEADDR, SO_TYPE,      SO_ERROR,       SO_DONTROUTE,  SO_BROADCAST,
    SO_SNDBUF,          SO_RCVBUF,    SO_KEEPALIVE, SO_OOBINLINE,   SO_NO_CHECK,   SO_PRIORITY,
    SO_LINGER,          SO_REUSEPORT, SO_PASSCRED,  SO_PEERCRED,    SO_RCVLOWAT,   SO_SNDLOWAT,
    SO_RCVTIMEO,        SO_SNDTIMEO,  SO_TIMESTAMP, SO_TIMESTAMPNS, SO_ACCEPTCONN, SO_PEERSEC,
    SO_PASSSEC,         SO_PROTOCOL,  SO_DOMAIN,    SO_RXQ_OVFL,    SO_PEEK_OFF,   SO_INCOMING_CPU,
    SO_MAX_PACING_RATE,
};

static int socket_option_check(int name)
{
    for (size_t i = 0; i < sizeof(socket_options) / sizeof(socket_options[0]); i++) {
        if (socket_options[i] == name)
            return 0;
    }
    return -ENOPROTOOPT;
}

static int option_check(int level, int name)
{
    return level == SOL_SOCKET ? socket_option_check(name) : internet_option_check(level, name);
}

static int set_check(int level, int name)
{
    if (level != SOL_SOCKET)
        return internet_option_check(level, name);
    switch (name) {
    case SO_ATTACH_FILTER:
    case SO_ATTACH_BPF:
    case SO_ATTACH_REUSEPORT_CBPF:
    case SO_ATTACH_REUSEPORT_EBPF:
    case SO_BINDTODEVICE:
    case SO_BINDTOIFINDEX:
    case SO_MARK:
    case SO_SNDBUFFORCE: /* as for a user without rights: a program then asks for less */
    case SO_RCVBUFFORCE:
        return -EPERM;
    case SO_ZEROCOPY:
        return -EOPNOTSUPP;
    default:
        return socket_option_check(name);
    }
}

/*
 * Where a look differs from a read, or moves what the program's own looks see; where a send can
 * fail on a connection that goes on, or be short though the queue is empty.
 */
static bool is_odd(int level, int name)
{
    switch (level) {
    case SOL_SOCKET:
        return name == SO_PEEK_OFF || name == SO_OOBINLINE;
    case IPPROTO_IP:
        return name == IP_RECVERR;
    case IPPROTO_IPV6:
        return name == IPV6_RECVERR;
    case IPPROTO_TCP:
        return name == TCP_NOTSENT_LOWAT;
    default:
        return false;
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
    if (is_odd(io_arg_int(call, 1), io_arg_int(call, 2))) /* before it is, for who accepts */
        atomic_store(&file->sight.odd, true);
    result = guestmem_read(call->vm, value, call->args[3], bytes);
    if (!result && io_arg_int(call, 1) == IPPROTO_TCP && io_arg_int(call, 2) == TCP_CONGESTION)
        result = net_congestion_check((const char *)value, bytes);
    if (!result)
        result = IO_HOST5(SYS_setsockopt, file->fd, io_arg_int(call, 1), io_arg_int(call, 2), value,
                          bytes);
    if (!result && io_arg_int(call, 1) == SOL_SOCKET && io_arg_int(call, 2) == SO_RCVLOWAT)
        atomic_store(&file->patient, true);
    io_file_put(file);
    return result;
}

/* SO_ERROR: one that a look met comes before the host's. */
static void error_merge(struct io_file *file, uint8_t value[], uint32_t bytes)
{
    int late = -io_ahead_error(file);

    if (late)
        memcpy(value, &late, bytes < sizeof(late) ? bytes : sizeof(late));
}

int64_t io_getsockopt(const struct io_call *call)
{
    int level = io_arg_int(call, 1), name = io_arg_int(call, 2);
    struct io_file *file;
    uint8_t value[OPTION_MAX_BYTES];
    uint32_t bytes;
    int64_t result = guestmem_read(call->vm, &bytes, call->args[4], sizeof(bytes));

    if (!result)
        result = option_check(level, name);
    if (result)
        return result;
    if (bytes > sizeof(value))
        bytes = sizeof(value);
    file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    if (!file)
        return -EBADF;
    result = IO_HOST5(SYS_getsockopt, file->fd, level, name, value, &bytes);
    if (!result && level == SOL_SOCKET && name == SO_ERROR)
        error_merge(file, value, bytes);
    io_file_put(file);
    if (!result)
        result = guestmem_write(call->vm, call->args[3], value, bytes);
    return result ? result : guestmem_write(call->vm, call->args[4], &bytes, sizeof(bytes));
}
