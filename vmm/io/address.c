/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Socket addresses on their way between the program and the host, and the question whether the
 * program may use them. A Unix socket's host name is of no use to the program: only its family is
 * told.
 */
#include "vmm/io/hostio_internal.h"

#include "support.h"

#include <netinet/in.h>
#include <string.h>

int io_address_read(const struct io_call *call, gpa_t gpa, uint32_t bytes,
                    struct sockaddr_storage *address)
{
    int error;

    if (bytes < sizeof(sa_family_t) || bytes > sizeof(*address))
        return -EINVAL;
    memset(address, 0, sizeof(*address));
    error = guestmem_read(call->vm, address, gpa, bytes);
    if (error)
        return error;
    switch (address->ss_family) {
    case AF_UNSPEC: /* connect: forget the other end */
        return 0;
    case AF_INET:
        return bytes < sizeof(struct sockaddr_in) ? -EINVAL : 0;
    case AF_INET6: /* as Linux, which knows an older form without the scope */
        return bytes < offsetof(struct sockaddr_in6, sin6_scope_id) ? -EINVAL : 0;
    default:
        return -EAFNOSUPPORT;
    }
}

socklen_t io_address_visible(const struct sockaddr_storage *address)
{
    switch (address->ss_family) {
    case AF_INET:
        return sizeof(struct sockaddr_in);
    case AF_INET6:
        return sizeof(struct sockaddr_in6);
    case AF_UNIX:
        return sizeof(sa_family_t);
    default:
        return 0;
    }
}

int io_address_write(const struct io_call *call, gpa_t to, gpa_t bytes_gpa,
                     const struct sockaddr_storage *address)
{
    uint32_t room, bytes = io_address_visible(address);
    int error;

    if (!to || !bytes_gpa)
        return 0;
    error = guestmem_read(call->vm, &room, bytes_gpa, sizeof(room));
    if (!error && (int32_t)room < 0)
        error = -EINVAL;
    if (!error)
        error = guestmem_write(call->vm, to, address, room < bytes ? room : bytes);
    return error ? error : guestmem_write(call->vm, bytes_gpa, &bytes, sizeof(bytes));
}

int io_connect_check(const struct io_call *call, struct sockaddr_storage *address)
{
    char text[NET_TEXT_BYTES];
    int error = net_connect_check(call->io->config, address);

    if (error && !atomic_exchange(&call->io->connect_warned, true))
        message_warning("network: %s: the program may not connect there (--allow-connect)",
                        net_text(address, text));
    return error;
}

int io_bind_check(const struct io_call *call, struct sockaddr_storage *address, bool udp)
{
    char text[NET_TEXT_BYTES];
    int error = net_bind_check(call->io->config, address, udp);

    if (error == -EACCES && !atomic_exchange(&call->io->bind_warned, true))
        message_warning("network: %s: the program may not listen there (--publish)",
                        net_text(address, text));
    return error;
}
