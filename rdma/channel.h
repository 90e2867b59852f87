/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One control connection: a non-blocking stream socket with bounded buffers both ways that hands
 * out whole, checked messages. Used by both ends; not locked, its owner serialises.
 */
#ifndef FARVISOR_RDMA_CHANNEL_H
#define FARVISOR_RDMA_CHANNEL_H

#include "rdma/wire.h"

#include <stdbool.h>

#define CHANNEL_OUT_BYTES (64u << 10)

struct channel {
    int fd;        /* -1: none */
    int passed_fd; /* last file descriptor received and not yet taken, or -1 */
    enum wire_direction receives;
    bool ended; /* the peer closed its side */
    uint32_t in_bytes, out_bytes;
    uint8_t in[WIRE_MESSAGE_MAX_BYTES];
    uint8_t out[CHANNEL_OUT_BYTES];
};

/* Takes fd over, which must be non-blocking. */
void channel_init(struct channel *channel, int fd, enum wire_direction receives);
void channel_close(struct channel *channel);

/*
 * channel_receive - read what is there and hand out one message.
 * Returns 1 (one message in *out), 0 (none complete yet), -EPROTO, -EPROTONOSUPPORT, -ECONNRESET
 * (closed by the peer, also in the middle of a message) or another -errno of recvmsg.
 */
int channel_receive(struct channel *channel, union wire_message *out);

/*
 * channel_send - queue a message and send as much as goes now. Returns 0, -ENOBUFS (peer does not
 * read: bounded buffer full; nothing was queued), or the socket's -errno.
 */
int channel_send(struct channel *channel, const union wire_message *message);
/* The same at once with a file descriptor, which stays the caller's. Nothing may be queued. */
int channel_send_fd(struct channel *channel, const union wire_message *message, int fd);
/* Sends more of what is queued. 0 or -errno. */
int channel_flush(struct channel *channel);
static inline bool channel_wants_write(const struct channel *channel)
{
    return channel->out_bytes > 0;
}

#endif
