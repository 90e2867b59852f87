/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read, write and their vector and positioned forms: the host kernel copies straight between the
 * host descriptor and pinned guest memory, in pieces.
 *
 * Linux's counts are kept. A regular file or memory device goes on until all is done or the host
 * is short; a blocking write to a pipe or socket likewise; a read from a pipe, terminal or socket
 * returns what its first piece got. An error after something was transferred shows as a short
 * count.
 */
#include "vmm/hostio_internal.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/* A wait that holds more than this pinned is made before pinning, with poll. */
#define PINNED_WAIT_MAX_BYTES 8192u

struct transfer {
    const struct io_call *call;
    struct io_file *file;
    struct io_cursor cursor;
    int64_t offset; /* -1: the file position */
    int flags;      /* RWF_* */
    bool write;
};

/* Pipes and terminals may make us wait long: not with much memory pinned. 0 or -EINTR. */
static int wait_ready(const struct transfer *transfer)
{
    const struct io_file *file = transfer->file;
    struct pollfd ready = {.fd = file->fd, .events = (short)(transfer->write ? POLLOUT : POLLIN)};
    long result;

    if ((!S_ISFIFO(file->type) && !S_ISCHR(file->type)) || file->whole)
        return 0;
    if (io_cursor_left(&transfer->cursor) <= PINNED_WAIT_MAX_BYTES)
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
                        transfer->file->fd, (long)&header, MSG_NOSIGNAL, 0, 0, 0);
}

static long transfer_piece(const struct transfer *transfer, const struct io_batch *batch)
{
    bool at_once = transfer->call->vcpu->at_once;
    long number = transfer->write ? SYS_pwritev2 : SYS_preadv2;
    int64_t offset = transfer->offset;

    if (transfer->offset < 0 && !transfer->flags) {
        /* The plain forms: every kind of descriptor has them. */
        number = transfer->write ? SYS_writev : SYS_readv;
        offset = 0;
    }
    if (at_once && S_ISSOCK(transfer->file->type))
        return socket_piece(transfer, batch);
    if (at_once && transfer->write && transfer->file->slow)
        return io_hand_back(transfer->call);
    /* A write to the page cache waits for nobody; a read may wait for a disk. */
    if (transfer->file->whole && (transfer->write || !at_once))
        return io_host(number, transfer->file->fd, (long)batch->iov, batch->count, offset, 0,
                       transfer->flags);
    return vcpu_syscall(transfer->call->vcpu, number, transfer->file->fd, (long)batch->iov,
                        batch->count, offset, 0, transfer->flags);
}

static bool transfer_goes_on(const struct transfer *transfer, const struct io_batch *batch, long n)
{
    if (!n || transfer->cursor.index >= transfer->cursor.count)
        return false;
    /* On the poller a short count may only mean that more would have to be waited for. */
    if ((uint64_t)n < batch->bytes && !transfer->call->vcpu->at_once)
        return false;
    return transfer->file->whole || transfer->write;
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
    struct msghdr header = {0};

    return transfer->write
               ? io_message_send(transfer->call, transfer->file, &transfer->cursor, &header, 0)
               : io_message_receive(transfer->call, transfer->file, &transfer->cursor, &header, 0);
}

static int64_t transfer_pieces(struct transfer *transfer)
{
    struct vm *vm = transfer->call->vm;
    uint64_t *done = &transfer->call->part->done;
    struct io_batch batch;
    int64_t total = (int64_t)*done;
    long result;

    io_cursor_advance(&transfer->cursor, *done);
    if (transfer->offset >= 0)
        transfer->offset += total;

    do {
        result = wait_ready(transfer);
        if (!result)
            result = io_batch_pin(vm, &batch, &transfer->cursor, !transfer->write);
        if (result)
            break;
        if (io_message_is_cut(transfer->file, &batch, &transfer->cursor, transfer->write)) {
            io_batch_unpin(vm, &batch);
            result = transfer_message(transfer);
            total = result < 0 ? total : result;
            break;
        }
        result = takes_long(transfer, &batch) ? io_hand_back(transfer->call)
                                              : transfer_piece(transfer, &batch);
        io_batch_unpin(vm, &batch);
        if (result < 0)
            break;
        total += result;
        if (transfer->offset >= 0)
            transfer->offset += result;
        io_cursor_advance(&transfer->cursor, (uint64_t)result);
    } while (transfer_goes_on(transfer, &batch, result));
    *done = (uint64_t)total;
    return total ? total : io_restart(result);
}

/* Takes the spans' length limit and the file position lock; drops the file. */
static int64_t transfer_run(struct transfer *transfer)
{
    struct io_file *file = transfer->file;
    bool position = transfer->offset < 0 && S_ISREG(file->type);
    int64_t result;

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
    /* As Linux: never more than this in one call. */
    uint64_t bytes = call->args[2] < 0x7ffff000 ? call->args[2] : 0x7ffff000;
    struct iovec span = {.iov_base = (void *)call->args[1], .iov_len = bytes};
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
    struct iovec span = {.iov_base = (void *)call->args[0], .iov_len = call->args[1]};
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
        result = vcpu_syscall(call->vcpu, SYS_getrandom, (long)batch.iov[0].iov_base,
                              (long)batch.iov[0].iov_len, (long)call->args[2], 0, 0, 0);
        io_batch_unpin(call->vm, &batch);
        if (result < 0)
            break;
        total += result;
        io_cursor_advance(&cursor, (uint64_t)result);
    } while ((uint64_t)result == batch.bytes && cursor.index < cursor.count);
    return total ? total : io_restart(result);
}
