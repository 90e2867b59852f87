/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many messages by one call: sendmmsg, recvmmsg. Each is sent or received as by sendmsg or recvmsg
 * (io/message.c), on the file that the descriptor named first.
 */
#include "vmm/io/hostio_internal.h"

#include <stddef.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/* How far a call has come. */
struct many {
    const struct io_call *call;
    struct io_file *file;
    uint32_t done;  /* messages */
    uint64_t inner; /* bytes of the next one, where it waits for more */
    uint64_t told;  /* messages that the program is told of, the one that waits included */
    uint64_t serial, deadline_ns;
};

static struct many many_begin(const struct io_call *call)
{
    return (struct many){.call = call,
                         .file = io_call_file(call),
                         .done = (uint32_t)call->part->done,
                         .inner = call->part->inner,
                         .deadline_ns = UINT64_MAX};
}

/* Bytes, which are noted in the program's mmsghdr, or -errno. */
static int64_t one_of_many(struct many *many, int flags, struct io_message_end *end)
{
    const struct io_call *call = many->call;
    gpa_t at = call->args[1] + many->done * sizeof(struct mmsghdr);
    const uint64_t args[6] = {call->args[0], at, (uint32_t)flags};
    struct io_part part = {.file = many->file,
                           .done = many->inner,
                           .resumed = call->part->resumed && many->done == call->part->done};
    struct io_call one = *call;
    int64_t result;
    uint32_t bytes;
    bool waits;

    one.args = args;
    one.part = &part;
    one.of = call;
    atomic_fetch_add(&many->file->references, 1);
    result = io_message_vector(&one, call->number == SYS_sendmmsg, end);
    waits = result == -FV_ERESTART_SO_FAR;
    many->inner = waits ? part.done : 0;
    hostio_part_end(&part); /* if it did not come to use the file */
    bytes = (uint32_t)(waits ? end->told : (uint64_t)result);
    if ((result >= 0 || waits) &&
        guestmem_write(call->vm, at + offsetof(struct mmsghdr, msg_len), &bytes, sizeof(bytes)))
        return -EFAULT;
    many->done += result >= 0;
    return result;
}

/* Drops the file. Did a kick end it where Linux would wait for the next message, or its rest? */
static bool many_end(struct many *many, bool send, int64_t result)
{
    bool waits = result == -FV_ERESTART_SO_FAR;
    bool goes_on = (waits || io_is_interrupted(result)) && !io_is_limited(many->file, send);

    many->told = many->done + waits;
    many->serial = many->file->serial;
    io_call_put(many->call, many->file);
    return goes_on && many->told;
}

static int64_t many_so_far(const struct many *many)
{
    return io_resumable_so_far(many->call, &(struct io_resume){.told = many->told,
                                                               .done = many->done,
                                                               .inner = many->inner,
                                                               .serial = many->serial,
                                                               .deadline_ns = many->deadline_ns});
}

/* As Linux: how many were sent before one was not, or not in full; why not, only if none was. */
int64_t io_sendmmsg(const struct io_call *call)
{
    uint32_t wanted = io_arg_u32(call, 2);
    struct many many = many_begin(call);
    struct io_message_end end = {0};
    int64_t result = 0;

    if (!many.file)
        return -EBADF;
    if (!S_ISSOCK(many.file->type))
        result = -ENOTSOCK;
    if (wanted > IOV_MAX)
        wanted = IOV_MAX;
    while (result >= 0 && many.done < wanted && !end.left)
        result = one_of_many(&many, io_arg_int(call, 3), &end);
    if (many_end(&many, true, result))
        return many_so_far(&many);
    if (!many.told)
        return result;
    return (int64_t)many.told | (result == -EPIPE ? FV_SENDMMSG_PIPE : 0);
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

/* From the next message on. What the last one met: bytes, or -errno. */
static int64_t receive_more(struct many *many)
{
    const struct io_call *call = many->call;
    uint32_t wanted = io_arg_u32(call, 2);
    int flags = io_arg_int(call, 3), only_first = flags & MSG_WAITFORONE;
    struct io_message_end end = {0};
    struct timespec left = {1, 0};
    int64_t result = 0;

    flags &= ~MSG_WAITFORONE;
    /* As Linux: the time is looked at between messages only, and may long be over then. */
    while (result >= 0 && many->done < wanted && (left.tv_sec || left.tv_nsec) &&
           !(end.flags & MSG_OOB)) {
        result = one_of_many(many, flags | (many->done && only_first ? MSG_DONTWAIT : 0), &end);
        if (call->args[4])
            left = io_time_left(many->deadline_ns);
    }
    return result;
}

/* As Linux: an error after messages were received is for the next call to tell. */
static int64_t receive_until(const struct io_call *call, uint64_t deadline_ns)
{
    struct many many = many_begin(call);
    struct timespec left;
    int64_t result = 0;
    bool goes_on;

    if (!many.file)
        return -EBADF;
    many.deadline_ns = deadline_ns;
    if (!call->part->resumed)
        result = error_of(many.file, io_arg_int(call, 3));
    if (!result)
        result = receive_more(&many);
    if (many.done && result < 0 && result != -EAGAIN && result != -FV_ERESTART_SO_FAR &&
        !io_is_interrupted(result))
        atomic_store(&many.file->sight.late_error, (int)-result);
    goes_on = many_end(&many, false, result);
    if (!many.told)
        return result;
    left = io_time_left(deadline_ns);
    if (call->args[4] && guestmem_write(call->vm, call->args[4], &left, sizeof(left)))
        return -EFAULT;
    return goes_on ? many_so_far(&many) : (int64_t)many.told;
}

int64_t io_recvmmsg(const struct io_call *call)
{
    struct timespec timeout;
    int64_t result;

    if (call->part->resumed)
        return receive_until(call, call->part->deadline_ns);
    if (!call->args[4])
        return receive_until(call, UINT64_MAX);
    result = guestmem_read(call->vm, &timeout, call->args[4], sizeof(timeout));
    if (!result && !io_timespec_valid(&timeout))
        result = -EINVAL;
    return result ? result : receive_until(call, io_deadline_ns(&timeout));
}
