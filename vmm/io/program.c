/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds the program to run as a shell in the guest would: a name with '/' is a path from the
 * working directory, any other is looked for along the guest's PATH.
 *
 * Main thread, before the guest runs.
 */
#include "vmm/io/hostio_internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_DEFAULT "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"

static const char *search_path(const struct run_config *config)
{
    for (char **entry = config->envp; entry && *entry; entry++) {
        if (!strncmp(*entry, "PATH=", 5))
            return *entry + 5;
    }
    return PATH_DEFAULT;
}

/* An executable regular file at `name`: guest descriptor with *path, or -errno. */
static int try_open(struct hostio *io, const char *name, char **path)
{
    char link[IO_FD_LINK_BYTES];
    struct io_node node;
    struct stat status;
    int fd, error = io_resolve(io, AT_FDCWD, name, IO_FOLLOW, &node);

    if (error)
        return error;
    if (fstat(node.fd, &status))
        error = -errno;
    else if (!S_ISREG(status.st_mode) || faccessat(AT_FDCWD, io_fd_link(node.fd, link), X_OK, 0))
        error = -EACCES;
    fd = error ? error : open(io_fd_link(node.fd, link), O_RDONLY | O_CLOEXEC);
    if (!error && fd < 0)
        fd = -errno;
    io_node_done(&node);
    if (fd < 0)
        return fd;
    *path = strdup(node.path);
    if (!*path) {
        close(fd);
        return -ENOMEM;
    }
    fd = io_install(io, fd, node.path, true);
    if (fd < 0)
        free(*path);
    return fd;
}

static int search(struct hostio *io, const char *name, char **path)
{
    const char *at = search_path(io->config);
    char candidate[PATH_MAX];
    int result = -ENOENT;

    for (;;) {
        size_t bytes = strcspn(at, ":");
        int fd, length = snprintf(candidate, sizeof(candidate), "%.*s/%s", bytes ? (int)bytes : 1,
                                  bytes ? at : ".", name);

        fd = length < PATH_MAX ? try_open(io, candidate, path) : -ENAMETOOLONG;
        if (fd >= 0)
            return fd;
        if (fd == -EACCES)
            result = fd; /* found, but not ours to run: worth telling over "not found" */
        if (!at[bytes])
            return result;
        at += bytes + 1;
    }
}

int hostio_open_program(struct hostio *io, const char *name, char **path)
{
    int fd;

    if (!*name)
        return -ENOENT;
    fd = strchr(name, '/') ? try_open(io, name, path) : search(io, name, path);
    if (fd < 0)
        return fd;
    free(io->program);
    io->program = strdup(*path);
    /* Of a script, the first name asked for stays, as Linux has it. */
    if (!io->comm[0])
        snprintf(io->comm, sizeof(io->comm), "%s",
                 strrchr(name, '/') ? strrchr(name, '/') + 1 : name);
    return fd;
}
