/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Data over sockets: sendto, recvfrom, sendmsg, recvmsg, straight between the socket and pinned
 * guest memory if that need not wait, by a copy if it has to.
 * Addresses are those of internet sockets (AF_UNIX ones are connected); control messages do not
 * pass.
 */
#include "vmm/io/hostio_internal.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/* More than any datagram that the host's limits let through as they usually are. */
#define MESSAGE_MAX_BYTES (1u << 20)
#define RECEIVE_MAX_BYTES (16u << 20) /* ... and than others may send if theirs are not */
#define DATAGRAM_BYTES    65536u      /* of UDP, at most */

struct message {
    const struct io_call *call;
    struct io_file *file;
    struct io_cursor cursor;
    struct msghdr header;
    struct sockaddr_storage address; /* where to, or where from */
    gpa_t to;                        /* the program's address to send to, or 0 */
    uint32_t to_bytes;
    int flags;
    bool send;
    uint64_t total; /* bytes sent or received */
    uint64_t rest;  /* missing of the least that an interrupted receive waits for; else 0 */
};

int64_t io_message_send(const struct io_call *call, const struct io_file *file,
                        const struct io_cursor *cursor, uint64_t bytes, const struct msghdr *header,
                        int flags)
{
    struct iovec whole = {.iov_len = bytes};
    struct msghdr message = *header;
    int64_t result;

    if (bytes > MESSAGE_MAX_BYTES)
        return -EMSGSIZE;
    whole.iov_base = malloc(bytes + 1);
    if (!whole.iov_base)
        return -ENOMEM;
    message.msg_iov = &whole;
    message.msg_iovlen = 1;
    result = io_cursor_read(call->vm, cursor, whole.iov_base, bytes);
    if (!result)
        result = vcpu_syscall(call->vcpu, SYS_sendmsg, file->fd, (long)&message,
                              flags | MSG_NOSIGNAL, 0, 0, 0);
    free(whole.iov_base);
    return result;
}

bool io_message_is_cut(const struct io_file *file, const struct io_batch *batch,
                       const struct io_cursor *cursor, bool send)
{
    if (!S_ISSOCK(file->type) || file->stream || io_batch_is_whole(batch, cursor))
        return false;
    return send || !io_is_inet(file) || batch->bytes < DATAGRAM_BYTES;
}

int64_t io_message_receive(const struct io_call *call, const struct io_file *file,
                           const struct io_cursor *cursor, uint64_t bytes, struct msghdr *header,
                           int flags)
{
    struct iovec whole = {.iov_len = bytes < RECEIVE_MAX_BYTES ? bytes : RECEIVE_MAX_BYTES};
    /* TCP takes it for "throw them away", and writes nothing. */
    bool thrown_away = file->stream && io_is_inet(file) && flags & MSG_TRUNC;
    int64_t result;
    int error = 0;

    if (call->vcpu->at_once) /* its memory may be far, and the message would be gone */
        return io_hand_back(call);
    whole.iov_base = malloc(whole.iov_len + 1);
    if (!whole.iov_base)
        return -ENOMEM;
    header->msg_iov = &whole;
    header->msg_iovlen = 1;
    result = vcpu_syscall(call->vcpu, SYS_recvmsg, file->fd, (long)header, flags, 0, 0, 0);
    /* With MSG_TRUNC it is the message's length. */
    if (result > 0 && !thrown_away)
        error =
            io_cursor_write(call->vm, cursor, whole.iov_base,
                            (uint64_t)result < whole.iov_len ? (uint64_t)result : whole.iov_len);
    free(whole.iov_base);
    header->msg_iov = NULL;
    header->msg_iovlen = 0;
    return error ? error : result;
}

uint64_t io_message_least(const struct io_file *file, uint64_t asked)
{
    int least = 1;
    socklen_t bytes = sizeof(least);

    if (!S_ISSOCK(file->type) || !file->stream || !atomic_load(&file->patient) ||
        getsockopt(file->fd, SOL_SOCKET, SO_RCVLOWAT, &least, &bytes) || least < 1)
        least = 1;
    return (uint64_t)least < asked ? (uint64_t)least : asked;
}

/* To be made by a copy. What is only looked at cannot be gone on with piece by piece either. */
static bool message_is_one(const struct message *message, const struct io_batch *batch)
{
    if (!message->send && message->flags & MSG_PEEK)
        return !io_batch_is_whole(batch, &message->cursor) && batch->bytes;
    return io_message_is_cut(message->file, batch, &message->cursor, message->send);
}

static int64_t message_copy(struct message *message, uint64_t bytes)
{
    int flags = message->flags | (message->rest ? MSG_WAITALL : 0);

    message->rest = 0;
    return message->send ? io_message_send(message->call, message->file, &message->cursor, bytes,
                                           &message->header, flags)
                         : io_message_receive(message->call, message->file, &message->cursor, bytes,
                                              &message->header, flags | MSG_CMSG_CLOEXEC);
}

static int64_t message_pinned(struct message *message, struct io_batch *batch, int flags)
{
    long number = message->send ? SYS_sendmsg : SYS_recvmsg;

    message->header.msg_iov = batch->iov;
    message->header.msg_iovlen = batch->count;
    flags |= message->flags | (message->send ? MSG_NOSIGNAL : MSG_CMSG_CLOEXEC);
    if (flags & MSG_DONTWAIT && !message->call->vcpu->at_once) /* made even if a kick came first */
        return IO_HOST3(number, message->file->fd, &message->header, flags);
    return vcpu_syscall(message->call->vcpu, number, message->file->fd, (long)&message->header,
                        flags, 0, 0, 0);
}

/* Asked not to wait, the host would do less than it is told to: less than the least or all. */
static bool message_is_patient(const struct message *message)
{
    if (message->flags & MSG_DONTWAIT)
        return false;
    if (message->send)
        return message->flags & MSG_FASTOPEN;
    return message->flags & MSG_WAITALL || atomic_load(&message->file->patient);
}

/* *bytes: how much was asked for. *waited: the host was told to wait for all of it. */
static int64_t message_piece(struct message *message, uint64_t *bytes, bool *waited)
{
    const struct io_call *call = message->call;
    bool at_once = call->vcpu->at_once, patient = message_is_patient(message), one;
    struct io_batch batch;
    int64_t result;

    /* Asked not to wait, the host gives less than the socket's least. */
    if (at_once && !message->send && atomic_load(&message->file->patient))
        return io_hand_back(call);
    result = io_batch_pin(call->vm, &batch, &message->cursor, !message->send);
    if (result)
        return result;
    *bytes = batch.bytes;
    one = message_is_one(message, &batch);
    result = -EAGAIN;
    if (!one && (at_once || !patient))
        result = message_pinned(message, &batch, at_once ? 0 : MSG_DONTWAIT);
    io_batch_unpin(call->vm, &batch);
    *waited = false;
    if (one)
        return message_copy(message, io_cursor_left(&message->cursor));
    if (at_once || result != -EAGAIN || message->flags & MSG_DONTWAIT ||
        (!patient && io_never_waits(message->file)))
        return result;
    *waited = true;
    *bytes = io_copy_bytes(message->file, &message->cursor, batch.bytes, message->send);
    if (message->rest && *bytes > message->rest)
        *bytes = message->rest;
    return message_copy(message, *bytes);
}

/* Where it goes to, or room for where it came from. 0 or -errno. */
static int message_address(struct message *message)
{
    int error = 0;

    if (!S_ISSOCK(message->file->type))
        return -ENOTSOCK;
    if (!message->send || message->to) {
        message->header.msg_name = &message->address;
        message->header.msg_namelen = sizeof(message->address);
    }
    if (!message->send || !message->to)
        return 0;
    if (!io_is_inet(message->file))
        return -EISCONN;
    error = io_address_read(message->call, message->to, message->to_bytes, &message->address);
    /* UDP takes "no family" for IPv4, a connected stream ignores it: not a way round the check. */
    if (!error && message->address.ss_family == AF_UNSPEC)
        error = -EAFNOSUPPORT;
    /* Whoever serves a UDP port has to answer whoever asks. */
    if (!error && (message->file->stream ||
                   net_listen_check(message->call->io->config, message->file->fd, true)))
        error = io_connect_check(message->call, &message->address);
    return error;
}

/*
 * A stream's send goes on until all is sent, as Linux's does where it may wait; where it may not,
 * the next piece says EAGAIN and the count is short. A receive goes on while its pieces are filled,
 * waiting for more only if told so.
 */
static bool message_goes_on(struct message *message, int64_t result, uint64_t bytes, bool waited)
{
    if (!message->file->stream || !result || message->cursor.index >= message->cursor.count)
        return false;
    if (message->send) /* a wait that ended early was interrupted, or took too long */
        return !waited || (uint64_t)result == bytes;
    if ((uint64_t)result < bytes || message->flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE))
        return false;
    if (!(message->flags & MSG_WAITALL))
        message->flags |= MSG_DONTWAIT;
    return true;
}

/* Would a peek begin elsewhere the next time? */
static bool peek_moves(const struct io_file *file)
{
    int at = -1;
    socklen_t bytes = sizeof(at);

    return getsockopt(file->fd, SOL_SOCKET, SO_PEEK_OFF, &at, &bytes) == 0 && at >= 0;
}

/* Is it to have more than it has? */
static bool message_wants_more(const struct message *message)
{
    if (message->cursor.index >= message->cursor.count || message->flags & MSG_DONTWAIT)
        return false;
    if (message->send)
        return true;
    if (message->flags & (MSG_OOB | MSG_ERRQUEUE) ||
        (message->flags & MSG_PEEK && peek_moves(message->file)))
        return false;
    return message->flags & MSG_WAITALL ||
           message->total <
               io_message_least(message->file, message->total + io_cursor_left(&message->cursor));
}

/*
 * Did a kick end its wait for the rest, of which `result` was the last piece? Linux would wait on,
 * unless a handler runs.
 */
static bool message_waits_on(const struct message *message, int64_t result, uint64_t bytes)
{
    return message->file->stream && io_is_kicked(message->call) &&
           (result == -EINTR || (result > 0 && (uint64_t)result < bytes)) &&
           message_wants_more(message) && !io_never_waits(message->file) &&
           !io_is_limited(message->file, message->send);
}

/* Where an interrupted receive, or one that the poller began, goes on. */
static void message_go_on(struct message *message)
{
    const struct io_part *part = message->call->part;
    uint64_t least = 0;

    if (part->resumed && !message->send && !(message->flags & (MSG_WAITALL | MSG_DONTWAIT)))
        least = io_message_least(message->file, io_cursor_left(&message->cursor));
    io_cursor_advance(&message->cursor, part->done);
    message->total = part->done;
    if (!part->done)
        return;
    if (part->done < least)
        message->rest = least - part->done;
    else if (!message->send && !(message->flags & MSG_WAITALL))
        message->flags |= MSG_DONTWAIT;
}

/* Pieces, until one was the last: that is the result. */
static int64_t message_pieces(struct message *message, uint64_t *bytes)
{
    bool waited = false;
    int64_t result;

    do {
        result = message_piece(message, bytes, &waited);
        if (result < 0)
            return result;
        message->total += (uint64_t)result;
        io_cursor_advance(&message->cursor, (uint64_t)result);
    } while (message_goes_on(message, result, *bytes, waited));
    return result;
}

/* What was only looked at is looked at from its begin again. One of many: io/many.c keeps it. */
static int64_t message_so_far(const struct message *message, uint64_t serial)
{
    struct io_part *part = message->call->part;
    struct io_resume so_far = {.told = message->total, .done = message->total, .serial = serial};

    if (message->flags & MSG_PEEK)
        so_far.done = 0;
    part->done = so_far.done;
    return message->call->of ? -FV_ERESTART_SO_FAR : io_resumable_so_far(message->call, &so_far);
}

static int64_t message_run(struct message *message)
{
    const struct io_call *call = message->call;
    uint64_t bytes = 0, serial;
    int64_t result;
    bool waits_on;

    message->file = io_call_file(call);
    if (!message->file)
        return -EBADF;
    message_go_on(message);
    message->address.ss_family = AF_UNSPEC; /* none was told */
    result = message_address(message);
    if (!result && !message->total && !call->part->resumed) /* else it is the next call's */
        result =
            message->send ? io_ahead_error(message->file) : io_ahead_error_received(message->file);
    if (!result)
        result = message_pieces(message, &bytes);
    waits_on = message->total && message_waits_on(message, result, bytes);
    serial = message->file->serial;
    if (message->total)
        io_ahead_keep_error(message->file, result);
    else
        result = io_restart_socket(call, message->file, message->send, result);
    io_call_put(call, message->file);
    message->header.msg_flags &= ~MSG_CMSG_CLOEXEC;
    call->part->done = message->total;
    if (result >= 0 && !message->send)
        io_commit(call);
    if (waits_on)
        return message_so_far(message, serial);
    return message->total ? (int64_t)message->total : result;
}

/* Something was received, though perhaps not all that it waits for. */
static bool message_is_told(int64_t result)
{
    return result >= 0 || result == -FV_ERESTART_SO_FAR;
}

static int64_t plain(const struct io_call *call, bool send)
{
    struct iovec span = {.iov_base = (void *)call->args[1], .iov_len = io_bytes(call->args[2])};
    struct message message = {.call = call,
                              .cursor = {.spans = &span, .count = 1},
                              .flags = io_arg_int(call, 3),
                              .send = send,
                              .to = call->args[4],
                              .to_bytes = io_arg_u32(call, 5)};
    int64_t result = message_run(&message);

    if (message_is_told(result) && !send &&
        io_address_write(call, call->args[4], call->args[5], &message.address))
        return -EFAULT;
    return result;
}

int64_t io_sendto(const struct io_call *call)
{
    return plain(call, true);
}

int64_t io_recvfrom(const struct io_call *call)
{
    return plain(call, false);
}

int64_t io_message_vector(const struct io_call *call, bool send, struct io_message_end *end)
{
    struct iovec small[IO_SPANS_SMALL], *spans;
    struct message message = {.call = call, .flags = io_arg_int(call, 2), .send = send};
    struct msghdr header;
    int64_t result = guestmem_read(call->vm, &header, call->args[1], sizeof(header));

    if (result)
        return result;
    if (send && header.msg_controllen)
        return -EOPNOTSUPP;
    if (header.msg_iovlen > IOV_MAX)
        return -EMSGSIZE;
    message.to = (gpa_t)header.msg_name;
    message.to_bytes = header.msg_namelen;
    result = io_spans_read(call->vm, (gpa_t)header.msg_iov, header.msg_iovlen, small, &spans);
    if (result)
        return result;
    message.cursor.spans = spans;
    message.cursor.count = (unsigned)header.msg_iovlen;
    result = message_run(&message);
    header.msg_flags = message.header.msg_flags;
    *end = (struct io_message_end){
        .left = io_cursor_left(&message.cursor), .told = message.total, .flags = header.msg_flags};
    if (spans != small)
        free(spans);
    if (!message_is_told(result) || send)
        return result;
    if (header.msg_name) {
        socklen_t bytes = io_address_visible(&message.address);

        if (guestmem_write(call->vm, (gpa_t)header.msg_name, &message.address,
                           bytes < header.msg_namelen ? bytes : header.msg_namelen))
            return -EFAULT;
        header.msg_namelen = bytes;
    }
    header.msg_controllen = 0;
    return guestmem_write(call->vm, call->args[1], &header, sizeof(header)) ? -EFAULT : result;
}

int64_t io_sendmsg(const struct io_call *call)
{
    struct io_message_end end;

    return io_message_vector(call, true, &end);
}

int64_t io_recvmsg(const struct io_call *call)
{
    struct io_message_end end;

    return io_message_vector(call, false, &end);
}
