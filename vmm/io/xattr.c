/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extended attributes: the path forms on /proc/self/fd names serve all. Only user attributes and
 * access lists may be changed; the others mean something to the host's security.
 */
#include "vmm/io/hostio_internal.h"

#include <linux/limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

struct xattr_target {
    struct io_node node;
    struct io_file *file;
    char link[IO_FD_LINK_BYTES];
};

static int xattr_path(const struct io_call *call, bool nofollow, bool change,
                      struct xattr_target *target)
{
    int error =
        io_object_arg(call, AT_FDCWD, 0, nofollow ? AT_SYMLINK_NOFOLLOW : 0, change, &target->node);

    target->file = NULL;
    if (error)
        io_node_done(&target->node);
    else
        io_fd_link(target->node.fd, target->link);
    return error;
}

static int xattr_fd(const struct io_call *call, bool change, struct xattr_target *target)
{
    target->node.fd = -1;
    target->file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    if (!target->file)
        return -EBADF;
    io_fd_link(target->file->fd, target->link);
    if (!change || !target->file->frozen)
        return 0;
    io_file_put(target->file);
    return -EROFS;
}

static void xattr_done(struct xattr_target *target)
{
    io_node_done(&target->node);
    if (target->file)
        io_file_put(target->file);
}

static int xattr_name(const struct io_call *call, char name[XATTR_NAME_MAX + 1])
{
    long bytes = guestmem_read_string(call->vm, name, call->args[1], XATTR_NAME_MAX + 1);

    return bytes == -ENAMETOOLONG || !bytes ? -ERANGE : bytes < 0 ? (int)bytes : 0;
}

/* Reads through a buffer of the host: values are small. `name` NULL: the list of names. */
static int64_t xattr_read(const struct io_call *call, const struct xattr_target *target,
                          const char *name, gpa_t out, uint64_t bytes)
{
    uint64_t most = name ? XATTR_SIZE_MAX : XATTR_LIST_MAX;
    void *buffer;
    int64_t result;
    int error = 0;

    if (bytes > most)
        bytes = most;
    buffer = bytes ? malloc(bytes) : NULL;
    if (bytes && !buffer)
        return -ENOMEM;
    result = name ? IO_HOST4(SYS_getxattr, target->link, name, buffer, bytes)
                  : IO_HOST3(SYS_listxattr, target->link, buffer, bytes);
    if (result > 0 && bytes)
        error = guestmem_write(call->vm, out, buffer, (size_t)result);
    free(buffer);
    return error ? error : result;
}

static int64_t xattr_get(const struct io_call *call, struct xattr_target *target)
{
    char name[XATTR_NAME_MAX + 1];
    int64_t result = xattr_name(call, name);

    if (!result)
        result = xattr_read(call, target, name, call->args[2], call->args[3]);
    xattr_done(target);
    return result;
}

int64_t io_getxattr(const struct io_call *call)
{
    struct xattr_target target;
    int error = xattr_path(call, call->number == SYS_lgetxattr, false, &target);

    return error ? error : xattr_get(call, &target);
}

int64_t io_fgetxattr(const struct io_call *call)
{
    struct xattr_target target;
    int error = xattr_fd(call, false, &target);

    return error ? error : xattr_get(call, &target);
}

int64_t io_listxattr(const struct io_call *call)
{
    struct xattr_target target;
    int64_t result = xattr_path(call, call->number == SYS_llistxattr, false, &target);

    if (result)
        return result;
    result = xattr_read(call, &target, NULL, call->args[1], call->args[2]);
    xattr_done(&target);
    return result;
}

int64_t io_flistxattr(const struct io_call *call)
{
    struct xattr_target target;
    int64_t result = xattr_fd(call, false, &target);

    if (result)
        return result;
    result = xattr_read(call, &target, NULL, call->args[1], call->args[2]);
    xattr_done(&target);
    return result;
}

static bool name_changeable(const char *name)
{
    return !strncmp(name, "user.", 5) || !strncmp(name, "system.posix_acl_", 17);
}

static int64_t xattr_set(const struct io_call *call, struct xattr_target *target)
{
    char name[XATTR_NAME_MAX + 1];
    void *value = NULL;
    int64_t result = xattr_name(call, name);

    if (!result && !name_changeable(name))
        result = -EPERM;
    if (!result && call->args[3] > XATTR_SIZE_MAX)
        result = -E2BIG;
    if (!result && call->args[3]) {
        value = malloc(call->args[3]);
        result = value ? guestmem_read(call->vm, value, call->args[2], call->args[3]) : -ENOMEM;
    }
    if (!result)
        result = IO_HOST5(SYS_setxattr, target->link, name, value, call->args[3], call->args[4]);
    free(value);
    xattr_done(target);
    return result;
}

int64_t io_setxattr(const struct io_call *call)
{
    struct xattr_target target;
    int error = xattr_path(call, call->number == SYS_lsetxattr, true, &target);

    return error ? error : xattr_set(call, &target);
}

int64_t io_fsetxattr(const struct io_call *call)
{
    struct xattr_target target;
    int error = xattr_fd(call, true, &target);

    return error ? error : xattr_set(call, &target);
}

static int64_t xattr_remove(const struct io_call *call, struct xattr_target *target)
{
    char name[XATTR_NAME_MAX + 1];
    int64_t result = xattr_name(call, name);

    if (!result && !name_changeable(name))
        result = -EPERM;
    if (!result)
        result = IO_HOST2(SYS_removexattr, target->link, name);
    xattr_done(target);
    return result;
}

int64_t io_removexattr(const struct io_call *call)
{
    struct xattr_target target;
    int error = xattr_path(call, call->number == SYS_lremovexattr, true, &target);

    return error ? error : xattr_remove(call, &target);
}

int64_t io_fremovexattr(const struct io_call *call)
{
    struct xattr_target target;
    int error = xattr_fd(call, true, &target);

    return error ? error : xattr_remove(call, &target);
}
