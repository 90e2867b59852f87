/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the files that belong to this program are: the guest image, the memory server, the guides'
 * library and the allocator. Looked for beside the running executable (a build folder), then where
 * `make install` puts them relative to it, so that an installed tree may be moved as a whole.
 */
#include "vmm/vmm.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int install_find(const char *variable, const char *name, char *path, size_t bytes)
{
    static const char *const places[] = {"", "../lib/farvisor/", "../lib/"};
    char program[PATH_MAX];
    const char *chosen = getenv(variable);

    if (chosen) {
        if ((size_t)snprintf(path, bytes, "%s", chosen) >= bytes)
            return -ENAMETOOLONG;
        return access(path, R_OK) ? -errno : 0;
    }
    ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);
    if (length < 0)
        return -errno;
    program[length] = '\0';
    *(strrchr(program, '/') + 1) = '\0';
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        int written = snprintf(path, bytes, "%s%s%s", program, places[i], name);

        if (written < 0 || (size_t)written >= bytes)
            return -ENAMETOOLONG;
        if (access(path, R_OK) == 0)
            return 0;
    }
    return -ENOENT;
}
