/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bounded, non-blocking message stream over a socket. A peer that does not read fills our bounded
 * buffer and gets an error, never our memory; one that sends half a message holds one buffer until
 * its owner's deadline ends it. File descriptors beyond the one expected are closed at once.
 */
#include "rdma/channel.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void channel_init(struct channel *channel, int fd, enum wire_direction receives)
{
    channel->fd = fd;
    channel->passed_fd = -1;
    channel->receives = receives;
    channel->ended = false;
    channel->in_bytes = 0;
    channel->out_bytes = 0;
}

void channel_close(struct channel *channel)
{
    if (channel->fd >= 0)
        close(channel->fd);
    if (channel->passed_fd >= 0)
        close(channel->passed_fd);
    channel->fd = -1;
    channel->passed_fd = -1;
}

/* Keeps the newest descriptor; a peer that floods us with them must not exhaust our table. */
static void channel_take_fds(struct channel *channel, struct msghdr *header)
{
    struct cmsghdr *control;

    for (control = CMSG_FIRSTHDR(header); control; control = CMSG_NXTHDR(header, control)) {
        if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(control) + i * sizeof(int), sizeof(fd));
            if (channel->passed_fd >= 0)
                close(channel->passed_fd);
            channel->passed_fd = fd;
        }
    }
}

/* One recvmsg into the free part of the buffer. 0 or -errno; -EAGAIN: nothing there. */
static int channel_fill(struct channel *channel)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec vector = {channel->in + channel->in_bytes,
                           sizeof(channel->in) - channel->in_bytes};
    struct msghdr header = {.msg_iov = &vector,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof(control.bytes)};
    ssize_t got;

    do {
        got = recvmsg(channel->fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    channel_take_fds(channel, &header);
    if (got == 0)
        channel->ended = true;
    channel->in_bytes += (uint32_t)got;
    return 0;
}

int channel_receive(struct channel *channel, union wire_message *out)
{
    for (;;) {
        int used = wire_message_parse(channel->receives, channel->in, channel->in_bytes, out);

        if (used < 0)
            return used;
        if (used > 0) {
            channel->in_bytes -= (uint32_t)used;
            memmove(channel->in, channel->in + used, channel->in_bytes);
            return 1;
        }
        if (channel->ended)
            return -ECONNRESET;
        int error = channel_fill(channel);

        if (error == -EAGAIN || error == -EWOULDBLOCK)
            return 0;
        if (error)
            return error;
    }
}

int channel_flush(struct channel *channel)
{
    while (channel->out_bytes > 0) {
        ssize_t sent =
            send(channel->fd, channel->out, channel->out_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
        channel->out_bytes -= (uint32_t)sent;
        memmove(channel->out, channel->out + sent, channel->out_bytes);
    }
    return 0;
}

int channel_send(struct channel *channel, const union wire_message *message)
{
    uint32_t bytes = message->header.bytes;

    if (bytes > sizeof(channel->out) - channel->out_bytes)
        return -ENOBUFS;
    memcpy(channel->out + channel->out_bytes, message, bytes);
    channel->out_bytes += bytes;
    return channel_flush(channel);
}

int channel_send_fd(struct channel *channel, const union wire_message *message, int fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    union wire_message copy = *message;
    struct iovec vector = {&copy, message->header.bytes};
    struct msghdr header = {.msg_iov = &vector,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
    ssize_t sent;

    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
    do {
        sent = sendmsg(channel->fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return errno == EAGAIN ? -ENOBUFS : -errno;
    /* The first message on a fresh socket always fits whole. */
    return (size_t)sent == vector.iov_len ? 0 : -EIO;
}
