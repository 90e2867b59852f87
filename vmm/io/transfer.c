/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read, write and their vector and positioned forms: the host kernel copies straight between the
 * host descriptor and pinned guest memory, in pieces. What has to wait for a peer waits unpinned.
 *
 * Linux's counts are kept. A regular file or memory device goes on until all is done or the host
 * is short; a blocking write to a pipe or socket likewise; a read from a pipe, terminal or socket
 * returns what is there: of a stream, piece by piece until one is not filled, for a short count
 * tells a program that waits for edges that nothing is left. An error after something was
 * transferred shows as a short count.
 */
#include "vmm/io/hostio_internal.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/* For more than this a pipe or terminal is waited for with poll, so that it need not be copied. */
#define COPIED_WAIT_MAX_BYTES 8192u

struct transfer {
    const struct io_call *call;
    struct io_file *file;
    struct io_cursor cursor;
    int64_t offset; /* -1: the file position */
    int flags;      /* RWF_* */
    bool write;
    uint64_t asked; /* bytes of the last piece */
    uint64_t least; /* of a read that was interrupted before it had so many: SO_RCVLOWAT; else 0 */
    bool tried;     /* it was told not to wait though the program does */
    bool more;      /* something was read: what follows is only taken if it is there */
};

/* Before anything is pinned. A try may be in vain even so: others may be faster. 0 or -EINTR. */
static int wait_ready(const struct transfer *transfer)
{
    const struct io_file *file = transfer->file;
    struct pollfd ready = {.fd = file->fd, .events = (short)(transfer->write ? POLLOUT : POLLIN)};
    long result;

    if ((!S_ISFIFO(file->type) && !S_ISCHR(file->type)) || file->whole)
        return 0;
    if (io_cursor_left(&transfer->cursor) <= COPIED_WAIT_MAX_BYTES)
        return 0;
    if (fcntl(file->fd, F_GETFL) & O_NONBLOCK)
        return 0;
    result = vcpu_syscall(transfer->call->vcpu, SYS_poll, (long)&ready, 1, -1, 0, 0, 0);
    return result == -EINTR ? -EINTR : 0;
}

/* On the poller; RWF_NOWAIT would do, but kernels before 6.4 do not have it for sockets. */
static long socket_piece(const struct transfer *transfer, const struct io_batch *batch)
{
    struct msghdr header = {.msg_iov = (struct iovec *)batch->iov, .msg_iovlen = batch->count};

    if (!transfer->write && atomic_load(&transfer->file->patient))
        return io_hand_back(transfer->call);
    if (!batch->bytes || transfer->offset >= 0 || transfer->flags) /* odd: as it would be anyway */
        return vcpu_syscall(transfer->call->vcpu, -1, 0, 0, 0, 0, 0, 0);
    return vcpu_syscall(transfer->call->vcpu, transfer->write ? SYS_sendmsg : SYS_recvmsg,
                        transfer->file->fd, (long)&header,
                        MSG_NOSIGNAL | (transfer->more ? MSG_DONTWAIT : 0), 0, 0, 0);
}

/* The plain forms where they do: every kind of descriptor has them. */
static long transfer_host(const struct transfer *transfer, const struct iovec *iov, unsigned count)
{
    bool plain = transfer->offset < 0 && !transfer->flags;
    long offset = plain ? 0 : transfer->offset, number;

    if (plain)
        number = transfer->write ? SYS_writev : SYS_readv;
    else
        number = transfer->write ? SYS_pwritev2 : SYS_preadv2;
    return vcpu_syscall(transfer->call->vcpu, number, transfer->file->fd, (long)iov, count, offset,
                        0, transfer->flags);
}

static long transfer_piece(const struct transfer *transfer, const struct io_batch *batch)
{
    bool at_once = transfer->call->vcpu->at_once;

    if (at_once && S_ISSOCK(transfer->file->type))
        return socket_piece(transfer, batch);
    if (at_once && transfer->write && io_file_is_slow(transfer->file))
        return io_hand_back(transfer->call);
    /* A write to the page cache waits for nobody; a read may wait for a disk. */
    if (transfer->file->whole && (transfer->write || !at_once))
        return io_host(transfer->write ? SYS_pwritev2 : SYS_preadv2, transfer->file->fd,
                       (long)batch->iov, batch->count, transfer->offset, 0, transfer->flags);
    return transfer_host(transfer, batch->iov, batch->count);
}

/* Pinned, so told not to wait, and made even if a kick came first. -EOPNOTSUPP: cannot be told. */
static long transfer_try(const struct transfer *transfer, const struct io_batch *batch)
{
    struct msghdr header = {.msg_iov = (struct iovec *)batch->iov, .msg_iovlen = batch->count};

    if (S_ISSOCK(transfer->file->type) && transfer->offset < 0 && !transfer->flags)
        return IO_HOST3(transfer->write ? SYS_sendmsg : SYS_recvmsg, transfer->file->fd, &header,
                        MSG_DONTWAIT | MSG_NOSIGNAL);
    return IO_HOST6(transfer->write ? SYS_pwritev2 : SYS_preadv2, transfer->file->fd, batch->iov,
                    batch->count, transfer->offset, 0, transfer->flags | RWF_NOWAIT);
}

/* Nothing pinned while the host waits. */
static long transfer_copy(const struct transfer *transfer, uint64_t bytes)
{
    struct iovec whole = {.iov_base = malloc(bytes + 1), .iov_len = bytes};
    struct vm *vm = transfer->call->vm;
    long result = whole.iov_base ? 0 : -ENOMEM;
    int error = 0;

    if (!result && transfer->write)
        result = io_cursor_read(vm, &transfer->cursor, whole.iov_base, bytes);
    if (!result)
        result = transfer_host(transfer, &whole, 1);
    if (result > 0 && !transfer->write)
        error = io_cursor_write(vm, &transfer->cursor, whole.iov_base, (uint64_t)result);
    free(whole.iov_base);
    return error ? error : result;
}

/* A pipe keeps so little together whoever else writes: not two host calls because of the pins. */
static bool tears_apart(const struct transfer *transfer, const struct io_batch *batch)
{
    const struct io_file *file = transfer->file;

    return transfer->write && (S_ISFIFO(file->type) || S_ISCHR(file->type)) && !file->whole &&
           !io_batch_is_whole(batch, &transfer->cursor) &&
           io_cursor_left(&transfer->cursor) <= PIPE_BUF;
}

/*
 * On the poller a file's transfer is one piece or none: others wait meanwhile, and what it began
 * would be gone on with after others had their turn at the file position.
 */
static bool takes_long(const struct transfer *transfer, const struct io_batch *batch)
{
    return transfer->call->vcpu->at_once && transfer->file->whole &&
           !io_batch_is_whole(batch, &transfer->cursor);
}

static int64_t transfer_message(const struct transfer *transfer)
{
    uint64_t bytes = io_cursor_left(&transfer->cursor);
    struct msghdr header = {0};

    return transfer->write ? io_message_send(transfer->call, transfer->file, &transfer->cursor,
                                             bytes, &header, 0)
                           : io_message_receive(transfer->call, transfer->file, &transfer->cursor,
                                                bytes, &header, 0);
}

/* All that is left, by a copy: it may not be cut. */
static int64_t transfer_whole(struct transfer *transfer)
{
    if (S_ISSOCK(transfer->file->type))
        return transfer_message(transfer);
    transfer->asked = io_cursor_left(&transfer->cursor);
    return transfer_copy(transfer, transfer->asked);
}

/* What is left of a stream that filled the pieces before. Bytes, or -errno that is not told. */
static int64_t transfer_more(struct transfer *transfer)
{
    struct vm *vm = transfer->call->vm;
    struct io_batch batch;
    int64_t result = io_batch_pin(vm, &batch, &transfer->cursor, true);

    if (result)
        return result;
    transfer->asked = batch.bytes;
    if (transfer->call->vcpu->at_once)
        result = transfer_piece(transfer, &batch);
    else
        result = transfer_try(transfer, &batch);
    /* A pipe that cannot be told (before Linux 6.4): it does not wait, or we would not be here. */
    if (result == -EOPNOTSUPP && io_never_waits(transfer->file))
        result = transfer_host(transfer, batch.iov, batch.count);
    io_batch_unpin(vm, &batch);
    return result;
}

/* What is missing of the least that the socket waits for. */
static int64_t transfer_rest(struct transfer *transfer, uint64_t bytes)
{
    struct msghdr header = {0};

    transfer->asked = bytes;
    return io_message_receive(transfer->call, transfer->file, &transfer->cursor, bytes, &header,
                              MSG_WAITALL);
}

/* The next piece; notes what was asked for. Bytes or -errno. */
static int64_t transfer_next(struct transfer *transfer)
{
    struct vm *vm = transfer->call->vm;
    struct io_file *file = transfer->file;
    bool patient = !transfer->write && atomic_load(&file->patient), cut;
    struct io_batch batch;
    int64_t result = wait_ready(transfer);

    if (!result)
        result = io_batch_pin(vm, &batch, &transfer->cursor, !transfer->write);
    if (result)
        return result;
    transfer->asked = batch.bytes;
    cut = io_message_is_cut(file, &batch, &transfer->cursor, transfer->write) ||
          tears_apart(transfer, &batch);
    transfer->tried = !cut && !transfer->call->vcpu->at_once && !file->whole && batch.bytes &&
                      !(transfer->flags & RWF_NOWAIT);
    result = -EAGAIN;
    if (takes_long(transfer, &batch))
        result = io_hand_back(transfer->call);
    else if (transfer->tried && !patient)
        result = transfer_try(transfer, &batch);
    else if (!transfer->tried && !cut)
        result = transfer_piece(transfer, &batch);
    io_batch_unpin(vm, &batch);
    if (cut)
        return transfer_whole(transfer);
    if (!transfer->tried ||
        (result != -EOPNOTSUPP && (result != -EAGAIN || (!patient && io_never_waits(file)))))
        return result;
    transfer->tried = false;
    transfer->asked = io_copy_bytes(file, &transfer->cursor, batch.bytes, transfer->write);
    return transfer_copy(transfer, transfer->asked);
}

/*
 * A pipe that waits is read once. So is one whose answer could be a packet of O_DIRECT, which only
 * its writing end knows of: those are shorter.
 */
static bool stream_goes_on(const struct io_file *file, int64_t n)
{
    if (S_ISSOCK(file->type))
        return true;
    return S_ISFIFO(file->type) && n > PIPE_BUF && io_never_waits(file);
}

static bool transfer_goes_on(const struct transfer *transfer, int64_t n)
{
    const struct io_file *file = transfer->file;

    if (!n || transfer->cursor.index >= transfer->cursor.count)
        return false;
    if (S_ISSOCK(file->type) && !file->stream)
        return false;
    if (!transfer->write && !file->whole)
        return (uint64_t)n == transfer->asked && stream_goes_on(file, n);
    /* On the poller, or tried, a short count may only mean that more has to be waited for. */
    if ((uint64_t)n < transfer->asked && !transfer->call->vcpu->at_once &&
        !(transfer->tried && (S_ISFIFO(file->type) || S_ISSOCK(file->type))))
        return false;
    return true;
}

/*
 * Did a kick end the write's wait for room, or the read's for the socket's least, of which `result`
 * was the last piece? Linux would wait on, unless a handler runs.
 */
static bool transfer_waits_on(const struct transfer *transfer, uint64_t total, int64_t result)
{
    const struct io_file *file = transfer->file;

    if (file->whole || transfer->offset >= 0 || transfer->flags ||
        transfer->cursor.index >= transfer->cursor.count || (S_ISSOCK(file->type) && !file->stream))
        return false;
    if (!transfer->write &&
        total >= io_message_least(file, total + io_cursor_left(&transfer->cursor)))
        return false;
    return io_is_kicked(transfer->call) && !io_never_waits(file) &&
           !io_is_limited(file, transfer->write) &&
           (result == -EINTR || (result > 0 && (uint64_t)result < transfer->asked));
}

/* The next bytes after `total`, the first of the call if that is 0. */
static int64_t transfer_step(struct transfer *transfer, uint64_t total)
{
    if (total < transfer->least)
        return transfer_rest(transfer, transfer->least - total);
    transfer->more = total && !transfer->write && !transfer->file->whole;
    return transfer->more ? transfer_more(transfer) : transfer_next(transfer);
}

static int64_t transfer_pieces(struct transfer *transfer)
{
    uint64_t *done = &transfer->call->part->done;
    int64_t total = (int64_t)*done, result = 0;

    if (!total && (transfer->write || io_cursor_left(&transfer->cursor))) /* not read(fd, p, 0) */
        result = transfer->write ? io_ahead_error(transfer->file)
                                 : io_ahead_error_received(transfer->file);
    if (result)
        return result;
    if (transfer->call->part->resumed && !transfer->write)
        transfer->least = io_message_least(transfer->file, io_cursor_left(&transfer->cursor));
    io_cursor_advance(&transfer->cursor, *done);
    if (transfer->offset >= 0)
        transfer->offset += total;

    do {
        result = transfer_step(transfer, (uint64_t)total);
        if (result < 0)
            break;
        total += result;
        if (transfer->offset >= 0)
            transfer->offset += result;
        io_cursor_advance(&transfer->cursor, (uint64_t)result);
    } while (transfer_goes_on(transfer, result));
    *done = (uint64_t)total;
    if (total)
        io_ahead_keep_error(transfer->file, result);
    if (total && transfer_waits_on(transfer, (uint64_t)total, result))
        return io_resumable_so_far(
            transfer->call,
            &(struct io_resume){.told = *done, .done = *done, .serial = transfer->file->serial});
    return total ? total
                 : io_restart_socket(transfer->call, transfer->file, transfer->write, result);
}

/* Takes the spans' length limit and the file position lock; drops the file. */
static int64_t transfer_run(struct transfer *transfer)
{
    struct io_file *file = transfer->file;
    bool position = transfer->offset < 0 && S_ISREG(file->type);
    int64_t result;

    if (file->signals && !transfer->write && transfer->offset < 0 && !transfer->flags) {
        io_call_put(transfer->call, file);
        return -FV_ESIGNALFD;
    }
    if (position && transfer->call->vcpu->at_once && pthread_mutex_trylock(&file->seek)) {
        /* Its holder may be waiting for far memory. */
        result = io_hand_back(transfer->call);
        io_call_put(transfer->call, file);
        return result;
    }
    if (position && !transfer->call->vcpu->at_once)
        pthread_mutex_lock(&file->seek);
    result = transfer_pieces(transfer);
    if (position)
        pthread_mutex_unlock(&file->seek);
    io_call_put(transfer->call, file);
    return result;
}

static int64_t transfer_one(const struct io_call *call, bool write, int64_t offset)
{
    struct iovec span = {.iov_base = (void *)call->args[1], .iov_len = io_bytes(call->args[2])};
    struct transfer transfer = {
        .call = call,
        .file = io_call_file(call),
        .cursor = {.spans = &span, .count = 1},
        .offset = offset,
        .write = write,
    };

    if (!transfer.file)
        return -EBADF;
    return transfer_run(&transfer);
}

int64_t io_read(const struct io_call *call)
{
    return transfer_one(call, false, -1);
}

int64_t io_write(const struct io_call *call)
{
    return transfer_one(call, true, -1);
}

int64_t io_pread(const struct io_call *call)
{
    return (int64_t)call->args[3] < 0 ? -EINVAL : transfer_one(call, false, (int64_t)call->args[3]);
}

int64_t io_pwrite(const struct io_call *call)
{
    return (int64_t)call->args[3] < 0 ? -EINVAL : transfer_one(call, true, (int64_t)call->args[3]);
}

static int64_t transfer_vector(const struct io_call *call, bool write, int64_t offset, int flags)
{
    struct iovec small[IO_SPANS_SMALL], *spans;
    struct transfer transfer = {.call = call, .offset = offset, .flags = flags, .write = write};
    int64_t result;

    transfer.file = io_call_file(call);
    if (!transfer.file)
        return -EBADF;
    result = io_spans_read(call->vm, call->args[1], call->args[2], small, &spans);
    if (result) {
        io_call_put(call, transfer.file);
        return result;
    }
    transfer.cursor = (struct io_cursor){.spans = spans, .count = (unsigned)call->args[2]};
    result = transfer_run(&transfer);
    if (spans != small)
        free(spans);
    return result;
}

int64_t io_readv(const struct io_call *call)
{
    return transfer_vector(call, false, -1, 0);
}

int64_t io_writev(const struct io_call *call)
{
    return transfer_vector(call, true, -1, 0);
}

int64_t io_preadv(const struct io_call *call)
{
    int64_t offset = (int64_t)call->args[3];

    return offset < 0 ? -EINVAL : transfer_vector(call, false, offset, 0);
}

int64_t io_pwritev(const struct io_call *call)
{
    int64_t offset = (int64_t)call->args[3];

    return offset < 0 ? -EINVAL : transfer_vector(call, true, offset, 0);
}

int64_t io_preadv2(const struct io_call *call)
{
    int64_t offset = (int64_t)call->args[3];

    return offset < -1 ? -EINVAL : transfer_vector(call, false, offset, io_arg_int(call, 5));
}

int64_t io_pwritev2(const struct io_call *call)
{
    int64_t offset = (int64_t)call->args[3];

    return offset < -1 ? -EINVAL : transfer_vector(call, true, offset, io_arg_int(call, 5));
}

/* getrandom has no descriptor, yet the same pieces. */
int64_t io_getrandom(const struct io_call *call)
{
    struct iovec span = {.iov_base = (void *)call->args[0], .iov_len = io_bytes(call->args[1])};
    struct io_cursor cursor = {.spans = &span, .count = 1};
    struct io_batch batch;
    int64_t total = 0;
    long result;

    do {
        result = io_batch_pin(call->vm, &batch, &cursor, true);
        if (result)
            break;
        if (!batch.count)
            return IO_HOST3(SYS_getrandom, &span, 0, call->args[2]);
        /* It waits for nobody, and promises that no signal ends a short one. */
        result =
            IO_HOST3(SYS_getrandom, batch.iov[0].iov_base, batch.iov[0].iov_len, call->args[2]);
        io_batch_unpin(call->vm, &batch);
        if (result < 0)
            break;
        total += result;
        io_cursor_advance(&cursor, (uint64_t)result);
    } while ((uint64_t)result == batch.bytes && cursor.index < cursor.count);
    return total ? total : io_restart(result);
}
