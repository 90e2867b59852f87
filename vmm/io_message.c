/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Data over sockets: sendto, recvfrom, sendmsg, recvmsg. One host call a request, straight between
 * the socket and pinned guest memory; a stream's longer transfers are short, as Linux may be.
 * Addresses and control messages do not pass: sockets are connected AF_UNIX ones.
 */
#include "vmm/hostio_internal.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static int64_t message_run(const struct io_call *call, struct io_cursor *cursor, int flags,
                           bool send, int *flags_out)
{
    struct io_file *file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    struct io_batch batch;
    struct msghdr header = {0};
    int64_t result;

    if (!file)
        return -EBADF;
    result = S_ISSOCK(file->type) ? 0 : -ENOTSOCK;
    if (!result)
        result = io_batch_pin(call->vm, &batch, cursor, !send);
    if (!result) {
        header.msg_iov = batch.iov;
        header.msg_iovlen = batch.count;
        result = vcpu_syscall(call->vcpu, send ? SYS_sendmsg : SYS_recvmsg, file->fd, (long)&header,
                              flags | (send ? MSG_NOSIGNAL : MSG_CMSG_CLOEXEC), 0, 0, 0);
        io_batch_unpin(call->vm, &batch);
    }
    io_file_put(file);
    if (flags_out)
        *flags_out = header.msg_flags & ~MSG_CMSG_CLOEXEC;
    return io_restart(result);
}

static int64_t plain(const struct io_call *call, bool send)
{
    struct iovec span = {.iov_base = (void *)call->args[1], .iov_len = call->args[2]};
    struct io_cursor cursor = {.spans = &span, .count = 1};
    uint32_t none = 0;
    int64_t result;

    if (send && call->args[4])
        return -EISCONN;
    result = message_run(call, &cursor, io_arg_int(call, 3), send, NULL);
    if (result >= 0 && !send && call->args[4] && call->args[5] &&
        guestmem_write(call->vm, call->args[5], &none, sizeof(none)))
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

static int64_t vector(const struct io_call *call, bool send)
{
    struct iovec small[IO_SPANS_SMALL], *spans;
    struct io_cursor cursor = {0};
    struct msghdr header;
    int64_t result = guestmem_read(call->vm, &header, call->args[1], sizeof(header));

    if (result)
        return result;
    if (send && header.msg_controllen)
        return -EOPNOTSUPP;
    if (send && header.msg_name)
        return -EISCONN;
    result = io_spans_read(call->vm, (gpa_t)header.msg_iov, header.msg_iovlen, small, &spans);
    if (result)
        return result == -EINVAL ? -EMSGSIZE : result;
    cursor.spans = spans;
    cursor.count = (unsigned)header.msg_iovlen;
    result = message_run(call, &cursor, io_arg_int(call, 2), send, &header.msg_flags);
    if (spans != small)
        free(spans);
    if (result < 0 || send)
        return result;
    header.msg_namelen = 0;
    header.msg_controllen = 0;
    return guestmem_write(call->vm, call->args[1], &header, sizeof(header)) ? -EFAULT : result;
}

int64_t io_sendmsg(const struct io_call *call)
{
    return vector(call, true);
}

int64_t io_recvmsg(const struct io_call *call)
{
    return vector(call, false);
}
