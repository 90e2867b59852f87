/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The door to the host: makes and ends the guest's descriptors, file system view and limits, and
 * hands each forwarded system call to its handler (io/table.def).
 *
 * hostio_call runs on the calling vCPU's thread, or on the poller; any number at a time.
 */
#include "vmm/io/hostio_internal.h"

#include "support.h"

#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define IO_CALL(number, name, handler, note)                                                       \
    _Static_assert(SYS_##name == (number), #name " has another number");
#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#include "vmm/io/table.def"
#undef IO_CALL

#define IO_CALL(number, name, handler, note) [number] = handler,
static const io_handler handlers[] = {
#include "vmm/io/table.def"
};
#undef IO_CALL

int64_t hostio_call(struct vcpu *vcpu, uint32_t number, const uint64_t args[6])
{
    struct io_part part = {0};

    return hostio_call_part(vcpu, number, args, &part);
}

int64_t hostio_call_part(struct vcpu *vcpu, uint32_t number, const uint64_t args[6],
                         struct io_part *part)
{
    struct io_call call = {
        .io = vcpu->vm->io,
        .vm = vcpu->vm,
        .vcpu = vcpu,
        .number = number,
        .args = args,
        .part = part,
    };

    if (number >= sizeof(handlers) / sizeof(handlers[0]) || !handlers[number])
        return -ENOSYS;
    return handlers[number](&call);
}

void hostio_part_end(struct io_part *part)
{
    if (part->file)
        io_file_put(part->file);
    *part = (struct io_part){0};
}

struct io_file *io_call_file(const struct io_call *call)
{
    struct io_file *file = call->part->file;

    call->part->file = NULL;
    return file ? file : io_fds_get(&call->io->fds, io_arg_int(call, 0));
}

struct io_file *io_call_look(const struct io_call *call)
{
    struct io_file *file = call->part->file;

    call->part->file = NULL;
    return file ? file : io_fds_look(&call->io->fds, io_arg_int(call, 0));
}

void io_call_put(const struct io_call *call, struct io_file *file)
{
    if (call->vcpu->at_once && call->vcpu->handed_back)
        call->part->file = file;
    else
        io_file_put(file);
}

long io_host(long number, long a, long b, long c, long d, long e, long f)
{
    long result = syscall(number, a, b, c, d, e, f);

    return result < 0 ? -errno : result;
}

uint64_t io_nofile(struct hostio *io)
{
    uint64_t limit;

    pthread_mutex_lock(&io->lock);
    limit = io->limits[RLIMIT_NOFILE].rlim_cur;
    pthread_mutex_unlock(&io->lock);
    return limit < INT_MAX ? limit : INT_MAX;
}

int io_install_file(struct hostio *io, struct io_file *file, bool cloexec)
{
    return io_fds_add(&io->fds, file, 0, io_nofile(io), cloexec);
}

int io_install(struct hostio *io, int host_fd, const char *path, bool cloexec)
{
    struct io_file *file = io_file_create(host_fd, path);

    return file ? io_install_file(io, file, cloexec) : -ENOMEM;
}

int io_install_socket(struct hostio *io, int host_fd, const struct io_file *from, bool cloexec)
{
    struct io_file *file = io_file_create(host_fd, NULL);

    if (!file)
        return -ENOMEM;
    file->made_here = true;
    if (from) {
        atomic_store(&file->sight.own, file->stream && io_is_inet(file));
        atomic_store(&file->sight.odd, atomic_load(&from->sight.odd));
    }
    return io_install_file(io, file, cloexec);
}

int io_path_arg(const struct io_call *call, unsigned index, char path[PATH_MAX])
{
    long bytes = guestmem_read_string(call->vm, path, call->args[index], PATH_MAX);

    return bytes < 0 ? (int)bytes : 0;
}

bool io_is_ours(const struct io_call *call, pid_t tid)
{
    return !tid || tid == call->io->mounts.pid || vcpu_by_tid(call->vm, tid);
}

const char *io_fd_link(int host_fd, char out[IO_FD_LINK_BYTES])
{
    snprintf(out, IO_FD_LINK_BYTES, "/proc/self/fd/%d", host_fd);
    return out;
}

static bool stdio_closed[3];

void hostio_keep_stdio(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0)
            stdio_closed[fd] = open("/dev/null", O_RDWR | O_CLOEXEC) == fd;
    }
}

/* 0, 1 and 2 are the VMM's own; one that is closed stays closed. */
static int adopt_stdio(struct hostio *io)
{
    for (int fd = 0; fd <= 2; fd++) {
        int host_fd = stdio_closed[fd] ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
        struct io_file *file;

        if (stdio_closed[fd] || (host_fd < 0 && errno == EBADF))
            continue;
        if (host_fd < 0)
            return -errno;
        file = io_file_create(host_fd, NULL);
        if (!file)
            return -ENOMEM;
        file->frozen = true; /* whoever started us owns them: /dev/null, say */
        if (io_fds_replace(&io->fds, file, fd, 3, false) < 0)
            return -ENOMEM;
    }
    return 0;
}

/* The guest's limits start as the VMM's; the VMM itself then takes all descriptors it may have. */
static void adopt_limits(struct hostio *io)
{
    struct rlimit most;

    for (unsigned i = 0; i < RLIM_NLIMITS; i++)
        (void)getrlimit((__rlimit_resource_t)i, &io->limits[i]);
    most = io->limits[RLIMIT_NOFILE];
    io_descriptors_bound(&io->limits[RLIMIT_NOFILE]);
    most.rlim_cur = most.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &most);
}

/* --workdir is a guest path; without it the guest starts where we are, if that was granted. */
static int enter_workdir(struct hostio *io)
{
    char cwd[PATH_MAX];
    const char *wish = io->config->workdir;
    struct io_node node;
    int error;

    if (!wish)
        wish = getcwd(cwd, sizeof(cwd)) ? cwd : "/";
    error = io_resolve(io, AT_FDCWD, wish, IO_FOLLOW, &node);
    if (error && !io->config->workdir)
        return 0;
    if (error) {
        message_error("--workdir %s: %s", wish, strerror(-error));
        return error;
    }
    io_node_done(&node);
    free(io->cwd);
    io->cwd = strdup(node.path);
    return io->cwd ? 0 : -ENOMEM;
}

int hostio_create(struct hostio **out, struct vm *vm)
{
    struct hostio *io = calloc(1, sizeof(*io));
    int error = -ENOMEM;

    if (!io)
        return -ENOMEM;
    io->vm = vm;
    io->config = vm->config;
    pthread_mutex_init(&io->lock, NULL);
    pthread_rwlock_init(&io->sets, NULL);
    pthread_mutex_init(&io->signals.lock, NULL);
    pthread_mutex_init(&io->futexes.lock, NULL);
    pthread_mutex_init(&io->futexes.bequest, NULL);
    (void)signal(SIGPIPE, SIG_IGN); /* EPIPE goes to the guest, which raises its own */
    io->cwd = strdup("/");
    if (!io->cwd || io_fds_create(&io->fds))
        goto free_io;
    io_aheads_create(&io->aheads, &io->fds);
    error = adopt_stdio(io);
    if (error)
        goto destroy_fds;
    adopt_limits(io);
    error = io_mounts_create(&io->mounts, io->config);
    if (error)
        goto destroy_fds;
    error = enter_workdir(io);
    if (error)
        goto destroy_mounts;
    *out = io;
    return 0;
destroy_mounts:
    io_mounts_destroy(&io->mounts);
destroy_fds:
    io_fds_destroy(&io->fds);
    io_aheads_destroy(&io->aheads);
free_io:
    free(io->cwd);
    free(io);
    return error;
}

void hostio_destroy(struct hostio *io)
{
    if (!io)
        return;
    hostio_end_sight(io);
    io_fds_destroy(&io->fds);
    io_aheads_destroy(&io->aheads);
    io_mounts_destroy(&io->mounts);
    free(io->cwd);
    free(io->program);
    free(io);
}

void hostio_abandon(struct hostio *io)
{
    if (io)
        io_skeleton_remove(&io->mounts);
}

int hostio_dup_host(struct hostio *io, int guest_fd, int *flags)
{
    struct io_file *file = io_fds_get(&io->fds, guest_fd);
    int fd, status;

    if (!file)
        return -EBADF;
    fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 3);
    status = fcntl(file->fd, F_GETFL);
    if (flags)
        *flags = status < 0 ? O_RDONLY : status & O_ACCMODE;
    io_file_put(file);
    return fd < 0 ? -errno : fd;
}

int hostio_fd_stat(struct hostio *io, int guest_fd, struct stat *status, int *flags)
{
    struct io_file *file = io_fds_get(&io->fds, guest_fd);
    int error, now;

    if (!file)
        return -EBADF;
    error = fstat(file->fd, status) ? -errno : 0;
    now = fcntl(file->fd, F_GETFL);
    *flags = now < 0 ? O_RDONLY : now & O_ACCMODE;
    io_file_put(file);
    return error;
}

int hostio_host_fd(struct hostio *io, int guest_fd)
{
    struct io_file *file = io_fds_get(&io->fds, guest_fd);
    int fd = file ? file->fd : -EBADF;

    if (file)
        io_file_put(file);
    return fd;
}

int hostio_host_path(struct hostio *io, const char *guest_path, char *out, size_t bytes)
{
    char link[IO_FD_LINK_BYTES];
    struct io_node node;
    ssize_t length;
    int error = io_resolve(io, AT_FDCWD, guest_path, IO_FOLLOW, &node);

    if (error)
        return error;
    length = readlink(io_fd_link(node.fd, link), out, bytes - 1);
    error = length < 0 ? -errno : 0;
    if (!error)
        out[length] = '\0';
    io_node_done(&node);
    return error;
}
