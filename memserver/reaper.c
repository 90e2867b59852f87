/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread that closes memory files. The last close of a file with many GiB frees its pages one by
 * one, 0.2 us each or more: done in the supervisor's loop it would silence every other tenant's
 * heartbeat. File descriptors arrive through a pipe.
 */
#include "memserver/memserver.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <unistd.h>

static void *reaper_main(void *argument)
{
    int pipe_fd = (int)(intptr_t)argument;
    int fd;

    while (read(pipe_fd, &fd, sizeof(fd)) == (ssize_t)sizeof(fd))
        close(fd);
    close(pipe_fd);
    return NULL;
}

int reaper_start(int *fd)
{
    int ends[2];
    pthread_t thread;
    int error;

    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    /* All signals are blocked by now; the thread inherits that. */
    error = -pthread_create(&thread, NULL, reaper_main, (void *)(intptr_t)ends[0]);
    if (error) {
        close(ends[0]);
        close(ends[1]);
        return error;
    }
    pthread_detach(thread);
    *fd = ends[1];
    return 0;
}
