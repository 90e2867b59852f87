/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's working directory: a normal-form guest path, never the VMM's own directory.
 */
#include "vmm/io/hostio_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int64_t cwd_set(struct hostio *io, const char *path)
{
    char *copy = strdup(path), *old;

    if (!copy)
        return -ENOMEM;
    pthread_mutex_lock(&io->lock);
    old = io->cwd;
    io->cwd = copy;
    io_proc_set_cwd(io, copy);
    pthread_mutex_unlock(&io->lock);
    free(old);
    return 0;
}

static int64_t cwd_enter(struct hostio *io, int host_fd, const char *path)
{
    struct stat status;
    long error;

    if (fstat(host_fd, &status))
        return -errno;
    if (!S_ISDIR(status.st_mode))
        return -ENOTDIR;
    error = IO_HOST4(SYS_faccessat2, host_fd, "", X_OK, AT_EMPTY_PATH | AT_EACCESS);
    return error ? error : cwd_set(io, path);
}

int64_t io_chdir(const struct io_call *call)
{
    char path[PATH_MAX];
    struct io_node node;
    int64_t result = io_path_arg(call, 0, path);

    if (!result)
        result = io_resolve(call->io, AT_FDCWD, path, IO_FOLLOW, &node);
    if (result)
        return result;
    result = cwd_enter(call->io, node.fd, node.path);
    io_node_done(&node);
    return result;
}

int64_t io_fchdir(const struct io_call *call)
{
    struct io_file *file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    int64_t result;

    if (!file)
        return -EBADF;
    result = file->path ? cwd_enter(call->io, file->fd, file->path) : -ENOTDIR;
    io_file_put(file);
    return result;
}

int64_t io_getcwd(const struct io_call *call)
{
    char path[PATH_MAX];
    size_t bytes;
    int error;

    pthread_mutex_lock(&call->io->lock);
    bytes = strlen(call->io->cwd) + 1;
    memcpy(path, call->io->cwd, bytes);
    pthread_mutex_unlock(&call->io->lock);
    if (bytes > call->args[1])
        return -ERANGE;
    error = guestmem_write(call->vm, call->args[0], path, bytes);
    return error ? error : (int64_t)bytes;
}
