/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many messages by one call: sendmmsg, recvmmsg. Each is sent or received as by sendmsg or recvmsg
 * (io/message.c), on the file that the descriptor named first.
 */
#include "vmm/io/hostio_internal.h"

#include <stddef.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/* Bytes, which are noted in the program's mmsghdr, or -errno. */
static int64_t one_of_many(const struct io_call *call, struct io_file *file, uint32_t index,
                           int flags, struct io_message_end *end)
{
    gpa_t at = call->args[1] + index * sizeof(struct mmsghdr);
    const uint64_t args[6] = {call->args[0], at, (uint32_t)flags};
    struct io_part part = {.file = file};
    struct io_call one = *call;
    int64_t result;
    uint32_t bytes;

    one.args = args;
    one.part = &part;
    one.of = call;
    atomic_fetch_add(&file->references, 1);
    result = io_message_vector(&one, call->number == SYS_sendmmsg, end);
    hostio_part_end(&part); /* if it did not come to use the file */
    bytes = (uint32_t)result;
    if (result >= 0 &&
        guestmem_write(call->vm, at + offsetof(struct mmsghdr, msg_len), &bytes, sizeof(bytes)))
        return -EFAULT;
    return result;
}

/* As Linux: how many were sent before one was not, or not in full; why not, only if none was. */
int64_t io_sendmmsg(const struct io_call *call)
{
    uint32_t wanted = io_arg_u32(call, 2), sent = 0;
    struct io_file *file = io_call_file(call);
    struct io_message_end end = {0};
    int64_t result = 0;

    if (!file)
        return -EBADF;
    if (!S_ISSOCK(file->type))
        result = -ENOTSOCK;
    if (wanted > IOV_MAX)
        wanted = IOV_MAX;
    while (result >= 0 && sent < wanted && !end.left) {
        result = one_of_many(call, file, sent, io_arg_int(call, 3), &end);
        sent += result >= 0;
    }
    io_call_put(call, file);
    if (!sent)
        return result;
    return sent | (result == -EPIPE ? FV_SENDMMSG_PIPE : 0);
}

/*
 * What went wrong before is told first, even if there are messages: the host's call of its kind
 * does so if it is to receive none. 0 or -errno.
 */
static int64_t error_of(struct io_file *file, int flags)
{
    int64_t error = flags & MSG_ERRQUEUE ? 0 : io_ahead_error(file);

    return error ? error : IO_HOST5(SYS_recvmmsg, file->fd, NULL, 0, flags, NULL);
}

/* From message *got on, which it counts. What the last one met: bytes, or -errno. */
static int64_t receive_more(const struct io_call *call, struct io_file *file, uint64_t deadline_ns,
                            uint32_t *got)
{
    uint32_t wanted = io_arg_u32(call, 2);
    int flags = io_arg_int(call, 3), only_first = flags & MSG_WAITFORONE;
    struct io_message_end end = {0};
    struct timespec left = {1, 0};
    int64_t result = 0;

    flags &= ~MSG_WAITFORONE;
    /* As Linux: the time is looked at between messages only, and may long be over then. */
    while (result >= 0 && *got < wanted && (left.tv_sec || left.tv_nsec) &&
           !(end.flags & MSG_OOB)) {
        result =
            one_of_many(call, file, *got, flags | (*got && only_first ? MSG_DONTWAIT : 0), &end);
        *got += result >= 0;
        if (call->args[4])
            left = io_time_left(deadline_ns);
    }
    return result;
}

/* As Linux: an error after messages were received is for the next call to tell. */
static int64_t receive_until(const struct io_call *call, uint64_t deadline_ns)
{
    uint32_t got = (uint32_t)call->part->done; /* before it was interrupted */
    struct io_file *file = io_call_file(call);
    struct timespec left;
    uint64_t serial;
    bool goes_on;
    int64_t result;

    if (!file)
        return got ? (int64_t)got : -EBADF;
    result = got ? 0 : error_of(file, io_arg_int(call, 3));
    if (!result)
        result = receive_more(call, file, deadline_ns, &got);
    if (got && result < 0 && result != -EAGAIN && !io_is_interrupted(result))
        atomic_store(&file->sight.late_error, (int)-result);
    serial = file->serial;
    goes_on = io_is_interrupted(result) && !io_is_limited(file, false);
    io_call_put(call, file);
    if (!got)
        return result;
    left = io_time_left(deadline_ns);
    if (call->args[4] && guestmem_write(call->vm, call->args[4], &left, sizeof(left)))
        return -EFAULT;
    return goes_on ? io_resumable_so_far(call, serial, got, deadline_ns) : got;
}

int64_t io_recvmmsg(const struct io_call *call)
{
    struct timespec timeout;
    int64_t result;

    if (call->part->done)
        return receive_until(call, call->part->deadline_ns);
    if (!call->args[4])
        return receive_until(call, UINT64_MAX);
    result = guestmem_read(call->vm, &timeout, call->args[4], sizeof(timeout));
    if (!result && !io_timespec_valid(&timeout))
        result = -EINVAL;
    return result ? result : receive_until(call, io_deadline_ns(&timeout));
}
