/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest paths as text, in normal form: absolute, no empty, "." or ".." component, no '/' at the
 * end. And the one way a host file is opened by name: beneath a mount, following no link.
 */
#include "vmm/io/hostio_internal.h"

#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int io_open_beneath(int dir_fd, const char *rest, uint64_t flags, mode_t mode)
{
    struct open_how how = {
        .flags = flags | O_CLOEXEC,
        .mode = mode,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    long fd = syscall(SYS_openat2, dir_fd, *rest ? rest : ".", &how, sizeof(how));

    return fd < 0 ? -errno : (int)fd;
}

int io_mount_open(const struct io_mount *mount, const char *rest, uint64_t flags, mode_t mode)
{
    char link[IO_FD_LINK_BYTES];
    int fd;

    if (mount->directory || *rest)
        return io_open_beneath(mount->fd, rest, flags, mode);
    /* The mount is this very file, and only a name opens anew: its own descriptor's. */
    fd = open(io_fd_link(mount->fd, link), (int)(flags & ~(uint64_t)O_NOFOLLOW) | O_CLOEXEC, mode);
    return fd < 0 ? -errno : fd;
}

/* Appends one component; out holds a normal form without trailing '/' ("" is the root). */
int io_path_push(char out[PATH_MAX], size_t *bytes, const char *name, size_t name_bytes)
{
    if (*bytes + 1 + name_bytes >= PATH_MAX)
        return -ENAMETOOLONG;
    out[(*bytes)++] = '/';
    memcpy(out + *bytes, name, name_bytes);
    *bytes += name_bytes;
    out[*bytes] = '\0';
    return 0;
}

void io_path_pop(char out[PATH_MAX], size_t *bytes)
{
    while (*bytes && out[*bytes - 1] != '/')
        (*bytes)--;
    if (*bytes)
        (*bytes)--;
    out[*bytes] = '\0';
}

/* Start and length of the next component; false at the end. */
bool io_path_next(const char **at, size_t *bytes)
{
    *at += strspn(*at, "/");
    *bytes = strcspn(*at, "/");
    return *bytes != 0;
}

int io_path_join(const char *base, const char *path, char out[PATH_MAX])
{
    const char *parts[2] = {*path == '/' ? "" : base, path};
    size_t bytes = 0;
    int dots = 0;

    out[0] = '\0';
    for (unsigned i = 0; i < 2; i++) {
        const char *at = parts[i];
        size_t length;

        for (; io_path_next(&at, &length); at += length) {
            if (length == 1 && *at == '.')
                continue;
            if (length == 2 && !memcmp(at, "..", 2)) {
                dots = 1;
                io_path_pop(out, &bytes);
                continue;
            }
            if (io_path_push(out, &bytes, at, length))
                return -ENAMETOOLONG;
        }
    }
    if (!bytes)
        memcpy(out, "/", 2);
    return dots;
}
