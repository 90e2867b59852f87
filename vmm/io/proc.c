/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's /proc: a skeleton of names whose contents are made when they are opened. What says
 * something about the machine's processor and kernel is the host's; what says something about
 * memory, mappings, arguments and descriptors is the guest's.
 *
 * Any vCPU thread.
 */
#include "vmm/io/hostio_internal.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define KIB 1024u

typedef void (*proc_writer)(struct hostio *io, FILE *out);

static void write_host(const char *path, FILE *out)
{
    char buffer[4096];
    FILE *in = fopen(path, "re");
    size_t bytes;

    if (!in)
        return;
    while ((bytes = fread(buffer, 1, sizeof(buffer), in)) > 0)
        fwrite(buffer, 1, bytes, out);
    fclose(in);
}

static void write_meminfo(struct hostio *io, FILE *out)
{
    unsigned long long total = io->config->memory_bytes / KIB;
    unsigned long long available = io_memory_free(io) / KIB;

    fprintf(out,
            "MemTotal:       %8llu kB\nMemFree:        %8llu kB\nMemAvailable:   %8llu kB\n"
            "Buffers:        %8d kB\nCached:         %8d kB\nSwapCached:     %8d kB\n"
            "SwapTotal:      %8d kB\nSwapFree:       %8d kB\nCommitLimit:    %8llu kB\n"
            "Committed_AS:   %8llu kB\nHugePages_Total:   %5d\nHugePages_Free:    %5d\n"
            "Hugepagesize:   %8d kB\n",
            total, available, available, 0, 0, 0, 0, 0, total, total - available, 0, 0, 2048);
}

static void write_maps(struct hostio *io, FILE *out)
{
    if (io->vm && io->vm->mm)
        mm_print_maps(io->vm->mm, out);
}

static void write_cmdline(struct hostio *io, FILE *out)
{
    for (char *const *arg = io->config->argv; arg && *arg; arg++)
        fwrite(*arg, 1, strlen(*arg) + 1, out);
}

static void write_environ(struct hostio *io, FILE *out)
{
    for (char **entry = io->config->envp; entry && *entry; entry++)
        fwrite(*entry, 1, strlen(*entry) + 1, out);
}

static void write_comm(struct hostio *io, FILE *out)
{
    fprintf(out, "%s\n", io->comm);
}

/* The host's, under the program's name. */
static void write_status(struct hostio *io, FILE *out)
{
    char line[4096];
    FILE *in = fopen("/proc/self/status", "re");

    if (!in)
        return;
    while (fgets(line, sizeof(line), in)) {
        if (!strncmp(line, "Name:", 5)) {
            fputs("Name:\t", out);
            write_comm(io, out);
        } else {
            fputs(line, out);
        }
    }
    fclose(in);
}

static void write_mounts(struct hostio *io, FILE *out)
{
    for (unsigned i = io->mounts.count; i-- > 0;) {
        const struct io_mount *mount = io->mounts.list[i];

        if (!mount->hidden)
            fprintf(out, "farvisor %s %s %s 0 0\n", mount->guest_bytes ? mount->guest : "/",
                    mount->proc ? "proc" : "farvisor", mount->writable ? "rw" : "ro");
    }
}

static void write_limits(struct hostio *io, FILE *out)
{
    static const char *const names[RLIM_NLIMITS] = {
        "Max cpu time",       "Max file size",     "Max data size",         "Max stack size",
        "Max core file size", "Max resident set",  "Max processes",         "Max open files",
        "Max locked memory",  "Max address space", "Max file locks",        "Max pending signals",
        "Max msgqueue size",  "Max nice priority", "Max realtime priority", "Max realtime timeout",
    };

    fprintf(out, "%-25s %-20s %-20s %-10s\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    for (unsigned i = 0; i < RLIM_NLIMITS; i++) {
        char text[2][24];
        const rlim_t values[2] = {io->limits[i].rlim_cur, io->limits[i].rlim_max};

        for (unsigned k = 0; k < 2; k++) {
            if (values[k] == RLIM_INFINITY)
                snprintf(text[k], sizeof(text[k]), "unlimited");
            else
                snprintf(text[k], sizeof(text[k]), "%llu", (unsigned long long)values[k]);
        }
        fprintf(out, "%-25s %-20s %-20s\n", names[i], text[0], text[1]);
    }
}

/* NULL: the host's file of that name. */
static const struct {
    const char *path; /* below /proc, or below /proc/PID if own */
    proc_writer write;
    bool own;
} entries[] = {
    {"cpuinfo", NULL, false},
    {"meminfo", write_meminfo, false},
    {"stat", NULL, false},
    {"uptime", NULL, false},
    {"loadavg", NULL, false},
    {"version", NULL, false},
    {"filesystems", NULL, false},
    {"sys/vm/overcommit_memory", NULL, false},
    {"sys/vm/max_map_count", NULL, false},
    {"sys/vm/mmap_min_addr", NULL, false},
    {"sys/fs/file-max", NULL, false},
    {"sys/fs/pipe-max-size", NULL, false},
    {"sys/kernel/osrelease", NULL, false},
    {"sys/kernel/ostype", NULL, false},
    {"sys/kernel/version", NULL, false},
    {"sys/kernel/hostname", NULL, false},
    {"sys/kernel/pid_max", NULL, false},
    {"sys/kernel/threads-max", NULL, false},
    {"sys/kernel/ngroups_max", NULL, false},
    {"sys/kernel/cap_last_cap", NULL, false},
    {"sys/kernel/random/boot_id", NULL, false},
    {"sys/kernel/random/uuid", NULL, false},
    {"maps", write_maps, true},
    {"cmdline", write_cmdline, true},
    {"environ", write_environ, true},
    {"comm", write_comm, true},
    {"status", write_status, true},
    {"stat", NULL, true},
    {"statm", NULL, true},
    {"cgroup", NULL, true},
    {"mounts", write_mounts, true},
    {"limits", write_limits, true},
};
#define ENTRY_COUNT (sizeof(entries) / sizeof(entries[0]))

static void entry_path(const struct hostio *io, size_t index, char out[PATH_MAX])
{
    if (entries[index].own)
        snprintf(out, PATH_MAX, "/proc/%d/%s", (int)io->mounts.pid, entries[index].path);
    else
        snprintf(out, PATH_MAX, "/proc/%s", entries[index].path);
}

static void own_link(struct hostio *io, const char *name, const char *target)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)io->mounts.pid, name);
    (void)io_skeleton_link(&io->mounts, path, target);
}

/* A name that cannot be made is missing in the guest's /proc; nothing else depends on it. */
void io_proc_fill(struct hostio *io)
{
    char path[PATH_MAX], pid[16];

    if (atomic_load(&io->proc_filled))
        return;
    pthread_mutex_lock(&io->lock);
    if (!atomic_load(&io->proc_filled)) {
        for (size_t i = 0; i < ENTRY_COUNT; i++) {
            entry_path(io, i, path);
            (void)io_skeleton_place(&io->mounts, path, false);
        }
        snprintf(pid, sizeof(pid), "%d", (int)io->mounts.pid);
        snprintf(path, sizeof(path), "/proc/%s/fd", pid);
        (void)io_skeleton_place(&io->mounts, path, true);
        (void)io_skeleton_link(&io->mounts, "/proc/self", pid);
        (void)io_skeleton_link(&io->mounts, "/proc/thread-self", pid);
        (void)io_skeleton_link(&io->mounts, "/proc/mounts", "self/mounts");
        own_link(io, "root", "/");
        own_link(io, "cwd", io->cwd);
        if (io->program)
            own_link(io, "exe", io->program);
        atomic_store(&io->proc_filled, true);
    }
    pthread_mutex_unlock(&io->lock);
}

/* A read-only descriptor on what `write` (or the host's file) says now. */
static int content_open(struct hostio *io, proc_writer write, const char *path)
{
    char link[IO_FD_LINK_BYTES];
    int fd = memfd_create("proc", MFD_CLOEXEC);
    int read_fd;
    FILE *out = fd < 0 ? NULL : fdopen(fd, "w");

    if (!out) {
        if (fd >= 0)
            close(fd);
        return -ENOMEM;
    }
    if (write)
        write(io, out);
    else
        write_host(path, out);
    fflush(out);
    read_fd = open(io_fd_link(fd, link), O_RDONLY | O_CLOEXEC);
    if (read_fd < 0)
        read_fd = -errno;
    fclose(out);
    return read_fd;
}

int io_proc_open(struct hostio *io, const char *path)
{
    char own[PATH_MAX];

    for (size_t i = 0; i < ENTRY_COUNT; i++) {
        entry_path(io, i, own);
        if (!strcmp(own, path))
            return content_open(io, entries[i].write, path);
    }
    return -ENOENT;
}

/* What /proc/PID/fd/N says: the guest path, or the host's name for what has none. */
static void fd_target(struct hostio *io, int fd, char out[PATH_MAX])
{
    char link[IO_FD_LINK_BYTES];
    struct io_file *file = io_fds_get(&io->fds, fd);
    ssize_t bytes = -1;

    snprintf(out, PATH_MAX, "unknown:");
    if (!file)
        return;
    if (file->path)
        snprintf(out, PATH_MAX, "%s", file->path);
    else
        bytes = readlink(io_fd_link(file->fd, link), out, PATH_MAX - 1);
    if (bytes >= 0)
        out[bytes] = '\0';
    io_file_put(file);
}

void io_proc_refresh_fds(struct hostio *io)
{
    char path[PATH_MAX], target[PATH_MAX];
    DIR *directory;
    struct dirent *entry;
    int fd;

    snprintf(path, sizeof(path), "proc/%d/fd", (int)io->mounts.pid);
    fd = io_open_beneath(io->mounts.root_fd, path, O_RDONLY | O_DIRECTORY, 0);
    directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory)
        return;
    while ((entry = readdir(directory))) {
        if (entry->d_name[0] != '.')
            (void)unlinkat(fd, entry->d_name, 0);
    }
    for (int guest = io_fds_next(&io->fds, 0); guest >= 0;
         guest = io_fds_next(&io->fds, guest + 1)) {
        fd_target(io, guest, target);
        snprintf(path, sizeof(path), "%d", guest);
        (void)symlinkat(target, fd, path);
    }
    closedir(directory);
}

void io_proc_set_cwd(struct hostio *io, const char *guest_path)
{
    if (atomic_load(&io->proc_filled))
        own_link(io, "cwd", guest_path);
}
