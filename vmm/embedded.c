/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A memory server of our own on this host: the memserver program, started as a child with a socket
 * in a private directory, for runs whose memory does not fit --local and that name no server.
 *
 * The child is in a process group of its own, so that Ctrl-C is the guest program's alone, and dies
 * with our main thread whatever happens to us.
 */
#include "vmm/machine.h"

#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define READY_MS 10000
#define STOP_MS  1000
#define FD_TEXT  16

struct embedded {
    pid_t pid;
    char directory[64];
    char socket[96];
    char address[128];
};

/* In the child, between fork and exec. Never returns. */
static void child_exec(const struct embedded *embedded, const char *program, pid_t parent,
                       uint64_t capacity_bytes, int ready_fd)
{
    char fd_text[FD_TEXT], capacity[32];
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(1);
    int null = open("/dev/null", O_RDWR);
    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
    }
    fcntl(ready_fd, F_SETFD, 0);
    snprintf(fd_text, sizeof(fd_text), "%d", ready_fd);
    snprintf(capacity, sizeof(capacity), "%llu", (unsigned long long)capacity_bytes);
    execl(program, INSTALL_MEMSERVER_NAME, "--listen", embedded->address, "--capacity", capacity,
          "--ready-fd", fd_text, "--quiet", (char *)NULL);
    message_error("%s: cannot start: %s", program, strerror(errno));
    _exit(1);
}

/* One byte says it listens; end of file without it, that it ended after a message of its own. */
static int ready_wait(int fd)
{
    struct pollfd pollfd = {.fd = fd, .events = POLLIN};
    uint64_t end_ns = clock_now_ns() + READY_MS * 1000000ULL;
    for (;;) {
        uint64_t now_ns = clock_now_ns();
        int ready = now_ns < end_ns ? poll(&pollfd, 1, (int)((end_ns - now_ns) / 1000000)) : 0;
        char byte;
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return ready < 0 ? -errno : -ETIMEDOUT;
        return read(fd, &byte, 1) == 1 ? 0 : -ECONNREFUSED;
    }
}

static int directory_make(struct embedded *embedded)
{
    snprintf(embedded->directory, sizeof(embedded->directory), "/tmp/fvmem-XXXXXX");
    if (!mkdtemp(embedded->directory))
        return -errno;
    snprintf(embedded->socket, sizeof(embedded->socket), "%s/socket", embedded->directory);
    snprintf(embedded->address, sizeof(embedded->address), "unix:%s", embedded->socket);
    return 0;
}

static int child_start(struct embedded *embedded, const char *program, uint64_t capacity_bytes)
{
    int pipe_fds[2];
    pid_t parent = getpid();
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return -errno;
    embedded->pid = fork();
    if (embedded->pid == 0)
        child_exec(embedded, program, parent, capacity_bytes, pipe_fds[1]);
    int error = embedded->pid < 0 ? -errno : 0;
    close(pipe_fds[1]);
    if (!error)
        error = ready_wait(pipe_fds[0]);
    close(pipe_fds[0]);
    return error;
}

int embedded_start(struct embedded **out, uint64_t capacity_bytes, const char **address)
{
    char program[PATH_MAX] = INSTALL_MEMSERVER_NAME;
    struct embedded *embedded = calloc(1, sizeof(*embedded));
    if (!embedded)
        return -ENOMEM;
    int error =
        install_find(INSTALL_MEMSERVER_VARIABLE, INSTALL_MEMSERVER_NAME, program, sizeof(program));
    if (!error)
        error = directory_make(embedded);
    if (!error)
        error = child_start(embedded, program, capacity_bytes);
    if (error) {
        message_error("embedded memserver: %s: cannot start: %s (or give --memserver)", program,
                      strerror(-error));
        embedded_stop(embedded);
        return error;
    }
    *address = embedded->address;
    *out = embedded;
    return 0;
}

static void directory_remove(struct embedded *embedded)
{
    if (!embedded->directory[0])
        return;
    unlink(embedded->socket);
    rmdir(embedded->directory);
    embedded->directory[0] = '\0';
}

void embedded_connected(struct embedded *embedded)
{
    /* Connections outlive the name; so nothing is left behind even if we are killed. */
    if (embedded)
        directory_remove(embedded);
}

/* Its one tenant is gone and its memory nobody's: if it does not end by itself, it is ended. */
static void child_stop(pid_t pid)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    kill(pid, SIGTERM);
    if (pidfd >= 0) {
        struct pollfd pollfd = {.fd = pidfd, .events = POLLIN};
        (void)poll(&pollfd, 1, STOP_MS);
        close(pidfd);
    }
    if (waitpid(pid, NULL, WNOHANG) == pid)
        return;
    kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
}

void embedded_stop(struct embedded *embedded)
{
    if (!embedded)
        return;
    if (embedded->pid > 0)
        child_stop(embedded->pid);
    directory_remove(embedded);
    free(embedded);
}
