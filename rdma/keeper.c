/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper process. It is forked, not executed: the sandbox that this process may be in lets it
 * start no programs. Other threads may have held any lock at that moment, so the child makes
 * system calls only.
 */
#include "rdma/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Closes all but the `count` descriptors, which are in ascending order. */
static void keep_only(const int *kept, int count)
{
    unsigned next = 0;

    for (int i = 0; i < count; i++) {
        if ((unsigned)kept[i] > next)
            syscall(SYS_close_range, next, (unsigned)kept[i] - 1, 0);
        next = (unsigned)kept[i] + 1;
    }
    syscall(SYS_close_range, next, ~0U, 0);
}

static void sort(int *numbers, int count)
{
    for (int i = 1; i < count; i++) {
        for (int j = i; j > 0 && numbers[j] < numbers[j - 1]; j--) {
            int other = numbers[j];

            numbers[j] = numbers[j - 1];
            numbers[j - 1] = other;
        }
    }
}

static _Noreturn void keeper_main(const int *kept, int count, int parent)
{
    char byte;

    keep_only(kept, count);
    prctl(PR_SET_NAME, "farvisor-keeper", 0, 0, 0);
    /* The terminal's signals are for the parent, whose end is ours. */
    setsid();
    while (read(parent, &byte, 1) < 0 && errno == EINTR)
        continue;
    _exit(0);
}

int keeper_start(const int *files, int count)
{
    int kept[KEEPER_FILES_MAX + 1];
    sigset_t all, before;
    int ends[2];
    long pid;
    int error;

    if (count > KEEPER_FILES_MAX)
        return -EINVAL;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    for (int i = 0; i < count; i++)
        kept[i] = files[i];
    kept[count] = ends[0];
    sort(kept, count + 1);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    /* As fork does, but for the signal at its end: 0, none. */
    pid = syscall(SYS_clone, 0, NULL, NULL, NULL, NULL);
    if (pid == 0)
        keeper_main(kept, count + 1, ends[0]);
    error = pid < 0 ? -errno : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(ends[0]);
    if (error) {
        close(ends[1]);
        return error;
    }
    return ends[1];
}
