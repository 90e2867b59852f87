/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls between two descriptors; the data never passes through the guest: sendfile,
 * copy_file_range, splice, tee.
 */
#include "vmm/io/hostio_internal.h"

#include <sys/syscall.h>

/* Two files, or neither. */
static int files_get(const struct io_call *call, unsigned first, unsigned second,
                     struct io_file *files[2])
{
    int error;

    files[0] = io_fds_get(&call->io->fds, io_arg_int(call, first));
    files[1] = files[0] ? io_fds_get(&call->io->fds, io_arg_int(call, second)) : NULL;
    error = files[1] ? 0 : -EBADF;
    for (unsigned i = 0; i < 2 && !error; i++)
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

/* An optional offset argument: *at points at *value or is NULL. */
static int offset_read(const struct io_call *call, gpa_t gpa, int64_t *value, int64_t **at)
{
    *at = gpa ? value : NULL;
    return gpa ? guestmem_read(call->vm, value, gpa, sizeof(*value)) : 0;
}

/* Tells the program how far it came; its own bad address shows as EFAULT. */
static int64_t offset_write(const struct io_call *call, gpa_t gpa, const int64_t *at,
                            int64_t result)
{
    int error = 0;

    if (at && result > 0)
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

int64_t io_sendfile(const struct io_call *call)
{
    struct io_file *files[2];
    int64_t value, *at;
    int64_t result = offset_read(call, call->args[2], &value, &at);

    if (!result)
        result = files_get(call, 0, 1, files);
    if (result)
        return result;
    result = copy_run(call, files[0], end_waits(files[0], 0) || end_waits(files[1], 0),
                      (const long[6]){files[0]->fd, files[1]->fd, (long)at, (long)call->args[3]});
    files_put(files);
    return offset_write(call, call->args[2], at, result);
}

/* copy_file_range and splice: (fd_in, off_in, fd_out, off_out, bytes, flags). */
int64_t io_copy_pair(const struct io_call *call)
{
    struct io_file *files[2];
    int64_t values[2], *at[2];
    unsigned flags;
    int64_t result = offset_read(call, call->args[1], &values[0], &at[0]);

    if (!result)
        result = offset_read(call, call->args[3], &values[1], &at[1]);
    if (!result)
        result = files_get(call, 0, 2, files);
    if (result)
        return result;
    flags = call->number == SYS_splice ? io_arg_u32(call, 5) : 0;
    result = copy_run(call, files[1], end_waits(files[0], flags) || end_waits(files[1], flags),
                      (const long[6]){files[0]->fd, (long)at[0], files[1]->fd, (long)at[1],
                                      (long)call->args[4], (long)call->args[5]});
    files_put(files);
    result = offset_write(call, call->args[1], at[0], result);
    return offset_write(call, call->args[3], at[1], result);
}

int64_t io_tee(const struct io_call *call)
{
    struct io_file *files[2];
    unsigned flags;
    int64_t result = files_get(call, 0, 1, files);

    if (result)
        return result;
    flags = io_arg_u32(call, 3);
    result = copy_run(
        call, files[1], end_waits(files[0], flags) || end_waits(files[1], flags),
        (const long[6]){files[0]->fd, files[1]->fd, (long)call->args[2], (long)call->args[3]});
    files_put(files);
    return result;
}
