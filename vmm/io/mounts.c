/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which part of the host the guest sees where: system directories read-only, the current
 * directory and what --dir grants, a few device files, and a private skeleton under it all.
 *
 * Built once before the guest runs and constant afterwards, so look-ups take no lock.
 */
#include "vmm/io/hostio_internal.h"

#include "support.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Enough for a system's programs, their libraries and data. Links (/bin -> usr/bin) stay links. */
static const char *const system_dirs[] = {
    "/usr",
    "/etc",
    "/opt",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/gnu/store",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
};

/* Secrets in the above that root's guest could otherwise read. */
static const char *const hidden[] = {
    "/etc/shadow",      "/etc/shadow-",          "/etc/gshadow", "/etc/gshadow-",
    "/etc/sudoers",     "/etc/sudoers.d",        "/etc/ssh",     "/etc/ssl/private",
    "/etc/krb5.keytab", "/etc/security/opasswd",
};

static const char *const devices[] = {
    "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty",
};

/* Granting these as the "current directory" would hand over the host's innards. */
static const char *const never_cwd[] = {"/proc", "/sys", "/dev"};

static bool path_within(const char *path, const char *top)
{
    size_t bytes = strlen(top);

    return !strncmp(path, top, bytes) && (path[bytes] == '/' || !path[bytes]);
}

static void mount_free(struct io_mount *mount)
{
    if (mount->fd >= 0)
        close(mount->fd);
    free(mount->guest);
    free(mount->host);
    free(mount);
}

/* Takes the mount over; one at the same place is replaced. */
static int mounts_insert(struct io_mounts *mounts, struct io_mount *mount)
{
    unsigned at = 0;

    while (at < mounts->count && mounts->list[at]->guest_bytes > mount->guest_bytes)
        at++;
    for (unsigned i = at; i < mounts->count; i++) {
        if (!strcmp(mounts->list[i]->guest, mount->guest)) {
            mount_free(mounts->list[i]);
            mounts->list[i] = mount;
            return 0;
        }
    }
    if (mounts->count == IO_MOUNTS_MAX) {
        mount_free(mount);
        return -ENOSPC;
    }
    memmove(&mounts->list[at + 1], &mounts->list[at],
            (mounts->count - at) * sizeof(mounts->list[0]));
    mounts->list[at] = mount;
    mounts->count++;
    return 0;
}

enum mount_kind { MOUNT_READ_ONLY, MOUNT_READ_WRITE, MOUNT_HIDDEN, MOUNT_DEVICE, MOUNT_PROC };

/* host == guest path in most cases. 0 or -errno without a message. */
static int mounts_add(struct io_mounts *mounts, const char *host, const char *guest,
                      enum mount_kind kind)
{
    struct io_mount *mount = calloc(1, sizeof(*mount));
    char normal[PATH_MAX];
    struct stat status;
    int error = -ENOMEM;

    if (!mount)
        return -ENOMEM;
    mount->fd = open(host, O_PATH | O_CLOEXEC);
    if (mount->fd < 0 || fstat(mount->fd, &status)) {
        error = -errno;
        goto fail;
    }
    if (io_path_join("/", guest, normal) < 0) {
        error = -ENAMETOOLONG;
        goto fail;
    }
    mount->guest = strdup(strcmp(normal, "/") ? normal : "");
    mount->host = strdup(host);
    if (!mount->guest || !mount->host)
        goto fail;
    mount->guest_bytes = strlen(mount->guest);
    mount->directory = S_ISDIR(status.st_mode);
    mount->writable = kind == MOUNT_READ_WRITE || kind == MOUNT_DEVICE;
    mount->hidden = kind == MOUNT_HIDDEN;
    mount->device = kind == MOUNT_DEVICE;
    mount->proc = kind == MOUNT_PROC;
    error = mounts_insert(mounts, mount);
    return error;
fail:
    mount_free(mount);
    return error;
}

/* A mount of a host path that may be missing, shown in the skeleton when outside other grants. */
static int mounts_add_same(struct io_mounts *mounts, const char *path, enum mount_kind kind)
{
    struct stat status;
    char target[PATH_MAX];
    ssize_t bytes;

    if (lstat(path, &status))
        return 0;
    if (S_ISLNK(status.st_mode)) {
        bytes = readlink(path, target, sizeof(target) - 1);
        if (bytes < 0)
            return 0;
        target[bytes] = '\0';
        return io_skeleton_link(mounts, path, target);
    }
    if (kind != MOUNT_HIDDEN)
        (void)io_skeleton_place(mounts, path, S_ISDIR(status.st_mode));
    return mounts_add(mounts, path, path, kind);
}

static int mounts_add_defaults(struct io_mounts *mounts)
{
    int error = 0;

    for (size_t i = 0; !error && i < sizeof(system_dirs) / sizeof(system_dirs[0]); i++)
        error = mounts_add_same(mounts, system_dirs[i], MOUNT_READ_ONLY);
    for (size_t i = 0; !error && i < sizeof(hidden) / sizeof(hidden[0]); i++)
        error = mounts_add_same(mounts, hidden[i], MOUNT_HIDDEN);
    for (size_t i = 0; !error && i < sizeof(devices) / sizeof(devices[0]); i++)
        error = mounts_add_same(mounts, devices[i], MOUNT_DEVICE);
    return error;
}

static int mounts_add_scratch(struct io_mounts *mounts)
{
    const struct {
        const struct io_scratch *scratch;
        const char *name, *guest;
        enum mount_kind kind;
    } parts[] = {
        {&mounts->memory, "root", "/", MOUNT_READ_ONLY},
        {&mounts->memory, "root/proc", "/proc", MOUNT_PROC},
        {&mounts->memory, "shm", "/dev/shm", MOUNT_READ_WRITE},
        {&mounts->disk, "tmp", "/tmp", MOUNT_READ_WRITE},
        {&mounts->disk, "tmp", "/var/tmp", MOUNT_READ_WRITE},
    };
    static const char *const links[][2] = {
        {"/dev/fd", "/proc/self/fd"},
        {"/dev/stdin", "/proc/self/fd/0"},
        {"/dev/stdout", "/proc/self/fd/1"},
        {"/dev/stderr", "/proc/self/fd/2"},
    };
    char host[PATH_MAX];
    int error = 0;

    for (size_t i = 0; !error && i < sizeof(parts) / sizeof(parts[0]); i++) {
        error = io_skeleton_place(mounts, parts[i].guest, true);
        snprintf(host, sizeof(host), "%s/%s", parts[i].scratch->path, parts[i].name);
        if (!error)
            error = mounts_add(mounts, host, parts[i].guest, parts[i].kind);
    }
    for (size_t i = 0; !error && i < sizeof(links) / sizeof(links[0]); i++)
        error = io_skeleton_link(mounts, links[i][0], links[i][1]);
    return error;
}

/* One message on failure. */
static int mounts_grant(struct io_mounts *mounts, const char *host, const char *guest,
                        bool writable)
{
    int error = mounts_add(mounts, host, guest, writable ? MOUNT_READ_WRITE : MOUNT_READ_ONLY);
    const struct io_mount *mount = error ? NULL : io_mounts_at(mounts, guest);

    if (error == -ENOSPC)
        message_error("--dir %s: more than %d directories", host, IO_MOUNTS_MAX);
    else if (error)
        message_error("--dir %s: cannot open: %s", host, strerror(-error));
    else
        (void)io_skeleton_place(mounts, guest, !mount || mount->directory);
    return error;
}

static int mounts_grant_cwd(struct io_mounts *mounts)
{
    char cwd[PATH_MAX];

    if (!getcwd(cwd, sizeof(cwd)) || cwd[0] != '/' || !cwd[1])
        return 0;
    for (size_t i = 0; i < sizeof(never_cwd) / sizeof(never_cwd[0]); i++) {
        if (path_within(cwd, never_cwd[i])) {
            message_warning("%s: not given to the guest as its current directory (use --dir)", cwd);
            return 0;
        }
    }
    return mounts_grant(mounts, cwd, cwd, true);
}

/* Where names are looked up may lie outside of /etc: often a link into /run. */
static int mounts_add_resolver(struct io_mounts *mounts)
{
    char *file = realpath("/etc/resolv.conf", NULL);
    int error = 0;

    if (file && !path_within(file, "/etc") && !path_within(file, "/usr")) {
        error = io_skeleton_place(mounts, file, false);
        if (!error)
            error = mounts_add_same(mounts, file, MOUNT_READ_ONLY);
    }
    free(file);
    return error;
}

int io_mounts_create(struct io_mounts *mounts, const struct run_config *config)
{
    int error;

    mounts->pid = getpid();
    mounts->count = 0;
    error = io_skeleton_create(mounts);
    if (error)
        return error; /* it said why */
    error = mounts_add_scratch(mounts);
    if (!error)
        error = mounts_add_defaults(mounts);
    if (error) {
        message_error("%s: cannot set up the guest's file system: %s", mounts->memory.path,
                      strerror(-error));
        goto destroy;
    }
    error = config->net ? mounts_add_resolver(mounts) : 0;
    if (!error)
        error = mounts_grant_cwd(mounts);
    for (size_t i = 0; !error && i < config->dir_count; i++) {
        const struct dir_grant *grant = &config->dirs[i];

        error = mounts_grant(mounts, grant->host, grant->guest, grant->writable);
    }
    if (!error)
        return 0;
destroy:
    io_mounts_destroy(mounts);
    return error;
}

void io_mounts_destroy(struct io_mounts *mounts)
{
    for (unsigned i = 0; i < mounts->count; i++)
        mount_free(mounts->list[i]);
    mounts->count = 0;
    io_skeleton_destroy(mounts);
}

const struct io_mount *io_mounts_find(const struct io_mounts *mounts, const char *path,
                                      const char **rest)
{
    for (unsigned i = 0; i < mounts->count; i++) {
        const struct io_mount *mount = mounts->list[i];

        if (path_within(path, mount->guest)) {
            *rest = path + mount->guest_bytes;
            *rest += **rest == '/';
            return mount;
        }
    }
    FV_ASSERT(!"the root mount holds every path");
    return NULL;
}

const struct io_mount *io_mounts_at(const struct io_mounts *mounts, const char *path)
{
    const char *rest;
    const struct io_mount *mount = io_mounts_find(mounts, path, &rest);

    return *rest ? NULL : mount;
}

bool io_mounts_below(const struct io_mounts *mounts, const char *path)
{
    size_t bytes = strlen(path);

    if (bytes == 1)
        bytes = 0; /* "/" */
    for (unsigned i = 0; i < mounts->count && mounts->list[i]->guest_bytes > bytes; i++) {
        if (!strncmp(mounts->list[i]->guest, path, bytes) && mounts->list[i]->guest[bytes] == '/')
            return true;
    }
    return false;
}
