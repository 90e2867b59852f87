/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening files by name.
 *
 * Resolution gives an O_PATH descriptor on the very object; what it is and where it lies is
 * checked on that, and only then is it opened for use, through its /proc/self/fd name: nothing can
 * be swapped in between, and a device or FIFO is never opened by accident.
 */
#include "vmm/io/hostio_internal.h"

#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct opening {
    const struct io_call *call;
    struct io_node node;
    uint64_t flags;
    mode_t mode;
};

static bool opens_to_write(uint64_t flags)
{
    return !(flags & O_PATH) &&
           ((flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC || (flags & O_TMPFILE) == O_TMPFILE);
}

/* Takes host_fd over. */
static int64_t opening_install(const struct opening *opening, int host_fd)
{
    const struct io_mount *mount = opening->node.mount;
    struct io_file *file;

    if (host_fd < 0)
        return host_fd;
    file = io_file_create(host_fd, opening->node.path);
    if (!file)
        return -ENOMEM;
    file->read_only = mount && !mount->writable;
    file->frozen = mount && (!mount->writable || mount->device);
    return io_install_file(opening->call->io, file, opening->flags & O_CLOEXEC);
}

/*
 * Only a FIFO's open waits for somebody, and can be interrupted. No other is to fail with EINTR,
 * for programs do not reckon with it, though file systems of other machines may say it. Should it
 * be a FIFO by now, that does not wait.
 */
static long open_host(const struct opening *opening, int dir_fd, const char *name, uint64_t flags,
                      bool waits)
{
    long fd;

    flags |= O_CLOEXEC | O_NOCTTY;
    fd = vcpu_syscall(opening->call->vcpu, SYS_openat, dir_fd, (long)name, (long)flags,
                      opening->mode, 0, 0);
    if (fd != -EINTR)
        return fd;
    if (waits)
        return -FV_ERESTARTSYS;
    fd = IO_HOST4(SYS_openat, dir_fd, name, flags | O_NONBLOCK, opening->mode);
    if (fd >= 0 && !(flags & O_NONBLOCK))
        (void)fcntl((int)fd, F_SETFL, fcntl((int)fd, F_GETFL) & ~O_NONBLOCK);
    return fd;
}

/* Opens the object behind node.fd anew. */
static int64_t reopen(const struct opening *opening)
{
    char link[IO_FD_LINK_BYTES];
    uint64_t flags = opening->flags & ~(uint64_t)(O_NOFOLLOW | O_CREAT | O_EXCL);
    struct stat status;
    bool fifo = !fstat(opening->node.fd, &status) && S_ISFIFO(status.st_mode);

    return opening_install(
        opening,
        (int)open_host(opening, AT_FDCWD, io_fd_link(opening->node.fd, link), flags, fifo));
}

/* What open says about an existing object before it looks at anything else. */
static int check_object(const struct opening *opening)
{
    const struct io_mount *mount = opening->node.mount;
    struct stat status;

    if (fstat(opening->node.fd, &status))
        return -errno;
    if (S_ISLNK(status.st_mode))
        return opening->flags & O_DIRECTORY ? -ENOTDIR : -ELOOP;
    if (opening->flags & O_DIRECTORY && !S_ISDIR(status.st_mode))
        return -ENOTDIR;
    if (S_ISDIR(status.st_mode) && (opening->flags & O_CREAT) &&
        (opening->flags & O_TMPFILE) != O_TMPFILE)
        return -EISDIR;
    if (S_ISDIR(status.st_mode) && (opening->flags & O_ACCMODE) != O_RDONLY &&
        (opening->flags & O_TMPFILE) != O_TMPFILE)
        return -EISDIR;
    if (S_ISBLK(status.st_mode) || (S_ISCHR(status.st_mode) && mount && !mount->device))
        return -EACCES;
    if (opens_to_write(opening->flags) && mount && !mount->writable &&
        (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode)))
        return mount->proc ? -EACCES : -EROFS;
    return 0;
}

/*
 * /proc/self/fd/N: a new open of what N has open, no wider than N came. Standard streams may lie
 * where the sandbox lets nothing be opened any more; a duplicate serves as well.
 */
static int64_t open_alias(const struct opening *opening)
{
    struct io_file *file, *copy;
    int64_t result;

    if (opening->node.read_only && opens_to_write(opening->flags))
        return -EROFS;
    result = reopen(opening);
    if (result != -EACCES)
        return result;
    file = io_fds_get(&opening->call->io->fds, opening->node.alias);
    if (!file)
        return -ENOENT;
    if (!file->path) {
        result = io_file_dup(file, &copy);
        if (!result)
            result = io_install_file(opening->call->io, copy, opening->flags & O_CLOEXEC);
    }
    io_file_put(file);
    return result;
}

static int64_t open_object(struct opening *opening)
{
    int error, fd;

    if (opening->node.alias >= 0)
        return open_alias(opening);
    if (opening->flags & O_PATH) {
        if (opening->flags & O_DIRECTORY && (error = check_object(opening)))
            return error;
        fd = fcntl(opening->node.fd, F_DUPFD_CLOEXEC, 3);
        return opening_install(opening, fd < 0 ? -errno : fd);
    }
    error = check_object(opening);
    if (error)
        return error;
    if (opening->node.mount && opening->node.mount->proc) {
        fd = io_proc_open(opening->call->io, opening->node.path);
        if (fd != -ENOENT)
            return opening_install(opening, fd);
    }
    return reopen(opening);
}

static int64_t open_existing(struct opening *opening, int dir_fd, const char *path)
{
    unsigned follow = opening->flags & O_NOFOLLOW ? 0 : IO_FOLLOW;
    int64_t result = io_resolve(opening->call->io, dir_fd, path, follow, &opening->node);

    if (result)
        return result;
    result = open_object(opening);
    io_node_done(&opening->node);
    return result;
}

/* The name does not exist, or is a plain file in a place the program may write to. */
static int64_t create_in(struct opening *opening)
{
    struct io_node *node = &opening->node;
    struct stat status;
    long fd;

    if (node->slash)
        return -EISDIR;
    fd = open_host(opening, node->fd, node->name, opening->flags | O_NOFOLLOW, false);
    if (fd < 0)
        return fd;
    if (!fstat((int)fd, &status) && (S_ISBLK(status.st_mode) || S_ISCHR(status.st_mode))) {
        close((int)fd);
        return -EACCES;
    }
    return opening_install(opening, (int)fd);
}

static int64_t open_creating(struct opening *opening, int dir_fd, const char *path)
{
    struct io_node *node = &opening->node;
    bool exclusive = opening->flags & O_EXCL;
    unsigned follow = exclusive || opening->flags & O_NOFOLLOW ? 0 : IO_FOLLOW;
    int64_t result = io_resolve(opening->call->io, dir_fd, path, IO_PARENT | follow, node);

    if (result)
        return result;
    if (!node->name[0])
        result = exclusive ? -EEXIST : open_object(opening);
    else if (node->mount->writable)
        result = create_in(opening);
    else
        result = 1; /* only what exists can be opened here */
    io_node_done(node);
    if (result != 1)
        return result;
    result = open_existing(opening, dir_fd, path);
    if (result >= 0 && exclusive) {
        (void)io_fds_close(&opening->call->io->fds, (int)result);
        return -EEXIST;
    }
    return result == -ENOENT && !node->mount->proc ? -EROFS : result;
}

static int64_t open_path(const struct io_call *call, int dir_fd, unsigned index, uint64_t flags,
                         mode_t mode)
{
    struct opening opening = {.call = call, .flags = flags, .mode = mode & 07777};
    char path[PATH_MAX];
    int error = io_path_arg(call, index, path);

    if (!error) /* no file is made or cut for want of a descriptor */
        error = io_fds_room(&call->io->fds, io_nofile(call->io));
    if (error)
        return error;
    if (flags & O_PATH)
        opening.flags &= O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    opening.node.fd = -1;
    if (opening.flags & O_CREAT)
        return open_creating(&opening, dir_fd, path);
    return open_existing(&opening, dir_fd, path);
}

int64_t io_open(const struct io_call *call)
{
    return open_path(call, AT_FDCWD, 0, io_arg_u32(call, 1), io_arg_u32(call, 2));
}

int64_t io_creat(const struct io_call *call)
{
    return open_path(call, AT_FDCWD, 0, O_CREAT | O_WRONLY | O_TRUNC, io_arg_u32(call, 1));
}

int64_t io_openat(const struct io_call *call)
{
    return open_path(call, io_arg_int(call, 0), 1, io_arg_u32(call, 2), io_arg_u32(call, 3));
}

int64_t io_openat2(const struct io_call *call)
{
    struct open_how how;
    int error;

    if (call->args[3] < sizeof(how))
        return -EINVAL;
    if (call->args[3] > sizeof(how))
        return -E2BIG;
    error = guestmem_read(call->vm, &how, call->args[2], sizeof(how));
    if (error)
        return error;
    if (how.resolve & ~(uint64_t)(RESOLVE_NO_MAGICLINKS | RESOLVE_CACHED) || how.mode & ~07777ULL)
        return -EINVAL;
    return open_path(call, io_arg_int(call, 0), 1, how.flags & UINT32_MAX, (mode_t)how.mode);
}
