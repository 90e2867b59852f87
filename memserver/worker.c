/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supervisor's side of a tenant's worker process: starting it and exchanging datagrams. The
 * worker is this program executed anew, so that it inherits nothing but two file descriptors: no
 * other tenant's memory, no listening socket, and an address space laid out afresh.
 */
#include "memserver/memserver.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

/* Child: only async-signal-safe calls; the reaper thread may have held any lock. */
static _Noreturn void worker_exec(int control_fd, int memory_fd)
{
    static char *const arguments[] = {"memserver-worker", WORKER_ARGUMENT, NULL};
    sigset_t none;
    int control = fcntl(control_fd, F_DUPFD, 16);
    int memory = fcntl(memory_fd, F_DUPFD, 16);

    if (control < 0 || memory < 0 || dup2(control, WORKER_CONTROL_FD) < 0 ||
        dup2(memory, WORKER_MEMORY_FD) < 0)
        _exit(SERVER_FAILURE_STATUS);
    syscall(SYS_close_range, WORKER_MEMORY_FD + 1, ~0U, 0);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve("/proc/self/exe", arguments, environ);
    _exit(SERVER_FAILURE_STATUS);
}

int worker_spawn(pid_t *pid, int *fd, int memory_fd)
{
    int ends[2];
    int size = 1 << 20;
    int error;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
        return -errno;
    setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    *pid = fork();
    if (*pid == 0)
        worker_exec(ends[1], memory_fd);
    error = *pid < 0 ? -errno : 0;
    close(ends[1]);
    if (error) {
        close(ends[0]);
        return error;
    }
    *fd = ends[0];
    return 0;
}

int worker_send(int fd, const struct worker_message *message)
{
    ssize_t sent;

    do {
        sent = send(fd, message, sizeof(*message), MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return -errno;
    return sent == (ssize_t)sizeof(*message) ? 0 : -EIO;
}

int worker_receive(int fd, struct worker_message *message)
{
    ssize_t got;

    do {
        got = recv(fd, message, sizeof(*message), MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
    if (got == 0)
        return -ECONNRESET;
    return got == (ssize_t)sizeof(*message) && message->count <= WIRE_SLABS_MAX ? 1 : -EPROTO;
}
