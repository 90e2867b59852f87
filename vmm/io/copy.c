/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls between two descriptors; the data never passes through the guest: sendfile,
 * copy_file_range, splice, tee.
 */
#include "vmm/io/hostio_internal.h"

#include <sys/ioctl.h>
#include <sys/syscall.h>

#define COPY_MAX_BYTES 0x7ffff000ull /* MAX_RW_COUNT of Linux: of one call */

/* Two files, or neither: argument 0's and another's. A call that goes on does with the same. */
static int files_get(const struct io_call *call, unsigned second, struct io_file *files[2])
{
    uint64_t other = call->part->other;
    int error;

    files[0] = io_call_file(call);
    files[1] = files[0] ? io_fds_get(&call->io->fds, io_arg_int(call, second)) : NULL;
    error = files[1] && (!other || files[1]->serial == other) ? 0 : -EBADF;
    for (unsigned i = 0; i < 2 && !error && !call->part->resumed; i++) /* else the next call's */
        error = io_ahead_error(files[i]);
    for (unsigned i = 0; i < 2 && error; i++) {
        if (files[i])
            io_file_put(files[i]);
    }
    return error;
}

static void files_put(struct io_file *files[2])
{
    io_file_put(files[0]);
    io_file_put(files[1]);
}

/*
 * An optional offset argument, the call's first or second: *at points at the part's or is NULL. It
 * is read once: the program may write there while a call waits that goes on.
 */
static int offset_read(const struct io_call *call, gpa_t gpa, unsigned index, int64_t **at)
{
    int64_t *value = &call->part->offsets[index];

    *at = gpa ? value : NULL;
    return gpa && !call->part->resumed ? guestmem_read(call->vm, value, gpa, sizeof(*value)) : 0;
}

/* Tells the program how far it came; its own bad address shows as EFAULT. */
static int64_t offset_write(const struct io_call *call, gpa_t gpa, const int64_t *at,
                            int64_t result)
{
    int error = 0;

    if (at && (result > 0 || result == -FV_ERESTART_SO_FAR))
        error = guestmem_write(call->vm, gpa, at, sizeof(*at));
    return error ? error : result;
}

/* Can an end of it let the call wait? The flag is splice's and tee's. */
static bool end_waits(const struct io_file *file, unsigned flags)
{
    return !file->whole && !(S_ISFIFO(file->type) && flags & SPLICE_F_NONBLOCK) &&
           !io_never_waits(file);
}

/* A system call that moves data to `to`. Bytes, or -errno for the guest kernel. */
static int64_t copy_run(const struct io_call *call, const struct io_file *to, bool waits,
                        const long args[6])
{
    long result = vcpu_syscall(call->vcpu, call->number, args[0], args[1], args[2], args[3],
                               args[4], args[5]);

    /* These look for signals even where they need not wait, and programs do not reckon with it. */
    if (result == -EINTR && !waits)
        result = io_host(call->number, args[0], args[1], args[2], args[3], args[4], args[5]);
    return io_restart_socket(call, to, true, result);
}

/* How much is left to be moved of the `asked`. */
static uint64_t copy_left(const struct io_call *call, uint64_t asked)
{
    return (asked < COPY_MAX_BYTES ? asked : COPY_MAX_BYTES) - call->part->done;
}

/* Is a short count never the program's own answer? Not of what is neither a file nor a stream. */
static bool copies_all(struct io_file *files[2], const struct io_file *to)
{
    if (files[0]->whole && files[1]->whole)
        return true;
    return S_ISSOCK(to->type) && to->stream && !io_never_waits(to) && !io_is_limited(to, true);
}

/*
 * Did a kick end the wait for room of a socket, or the copying of a file, which Linux would go on
 * with? A short count means nothing else there but the end of the file (then the next try says so)
 * or that the pipe it comes from is empty; into a pipe goes what there is room for.
 */
static int64_t copy_so_far(const struct io_call *call, struct io_file *files[2], struct io_file *to,
                           uint64_t asked, int64_t result)
{
    uint64_t moved = result > 0 ? (uint64_t)result : 0;
    struct io_resume so_far = {.told = call->part->done + moved,
                               .done = call->part->done + moved,
                               .serial = files[0]->serial,
                               .other = files[1]->serial,
                               .offsets = {call->part->offsets[0], call->part->offsets[1]}};

    if (result < 0 && call->part->done) /* told is what was moved before, and the next call hears */
        io_ahead_keep_error(to, result);
    if (result < 0)
        return result;
    if (moved && moved < copy_left(call, asked) && io_is_kicked(call) && copies_all(files, to))
        return io_resumable_so_far(call, &so_far);
    return (int64_t)so_far.told;
}

/* Is the rest of an interrupted splice one that Linux would not have waited for? */
static bool source_is_empty(const struct io_call *call, const struct io_file *from)
{
    int bytes = 1;

    return call->part->resumed && S_ISFIFO(from->type) && ioctl(from->fd, FIONREAD, &bytes) == 0 &&
           !bytes;
}

int64_t io_sendfile(const struct io_call *call)
{
    struct io_file *files[2];
    int64_t *at;
    int64_t result = offset_read(call, call->args[2], 0, &at);

    if (!result)
        result = files_get(call, 1, files);
    if (result)
        return result;
    result = copy_run(call, files[0], end_waits(files[0], 0) || end_waits(files[1], 0),
                      (const long[6]){files[0]->fd, files[1]->fd, (long)at,
                                      (long)copy_left(call, call->args[3])});
    result = copy_so_far(call, files, files[0], call->args[3], result);
    files_put(files);
    return offset_write(call, call->args[2], at, result);
}

/* copy_file_range and splice: (fd_in, off_in, fd_out, off_out, bytes, flags). */
int64_t io_copy_pair(const struct io_call *call)
{
    struct io_file *files[2];
    int64_t *at[2];
    unsigned flags;
    int64_t result = offset_read(call, call->args[1], 0, &at[0]);

    if (!result)
        result = offset_read(call, call->args[3], 1, &at[1]);
    if (!result)
        result = files_get(call, 2, files);
    if (result)
        return result;
    flags = call->number == SYS_splice ? io_arg_u32(call, 5) : 0;
    if (!source_is_empty(call, files[0]))
        result =
            copy_run(call, files[1], end_waits(files[0], flags) || end_waits(files[1], flags),
                     (const long[6]){files[0]->fd, (long)at[0], files[1]->fd, (long)at[1],
                                     (long)copy_left(call, call->args[4]), (long)call->args[5]});
    result = copy_so_far(call, files, files[1], call->args[4], result);
    files_put(files);
    result = offset_write(call, call->args[1], at[0], result);
    return offset_write(call, call->args[3], at[1], result);
}

int64_t io_tee(const struct io_call *call)
{
    struct io_file *files[2];
    unsigned flags;
    int64_t result = files_get(call, 1, files);

    if (result)
        return result;
    flags = io_arg_u32(call, 3);
    result = copy_run(
        call, files[1], end_waits(files[0], flags) || end_waits(files[1], flags),
        (const long[6]){files[0]->fd, files[1]->fd, (long)call->args[2], (long)call->args[3]});
    files_put(files);
    return result;
}
