/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starts a program, waits for it and writes what it used as `key value` lines into a file. The
 * harness does not do so itself because a process inherits its parent's peak of resident memory
 * over fork and exec, and an interpreter's would hide a small program's own.
 *
 * usage: launch [-g CGROUP_DIRECTORY] RESULTS PROGRAM [ARG...]
 */
#include "bench.h"

#include <errno.h>
#include <sys/resource.h>
#include <sys/wait.h>

static void enter_cgroup(const char *directory)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/cgroup.procs", directory);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1)
        bench_fail(path);
    close(fd);
}

static double seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

int main(int argc, char **argv)
{
    int at = 1;
    if (argc > 2 && strcmp(argv[1], "-g") == 0) {
        enter_cgroup(argv[2]);
        at = 3;
    }
    if (argc < at + 2) {
        fprintf(stderr, "usage: launch [-g CGROUP_DIRECTORY] RESULTS PROGRAM [ARG...]\n");
        return 2;
    }
    FILE *results = fopen(argv[at], "we");
    if (!results)
        bench_fail(argv[at]);
    double start_s = bench_now_s();
    pid_t child = fork();
    if (child == 0) {
        execvp(argv[at + 1], argv + at + 1);
        _exit(errno == ENOENT ? 127 : 126);
    }
    int status;
    struct rusage usage;
    if (child < 0 || wait4(child, &status, 0, &usage) < 0)
        bench_fail(argv[at + 1]);
    fprintf(results, "wall_s %.6f\nuser_s %.6f\nsystem_s %.6f\npeak_rss_bytes %ld\n",
            bench_now_s() - start_s, seconds(usage.ru_utime), seconds(usage.ru_stime),
            usage.ru_maxrss * 1024);
    fprintf(results, "major_faults %ld\n", usage.ru_majflt);
    if (fclose(results) != 0)
        bench_fail(argv[at]);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
