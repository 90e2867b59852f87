/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The storm: N threads do random things to a region for a while, and every page knows who it should
 * be. Ends with a full check of the region and one line of counts; exit status 1 on any mismatch.
 *
 * usage: storm [--threads N] [--bytes MIB] [--seconds N] [--seed N] [--no-files]
 */
#include "storm.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 64

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void *thread_main(void *argument)
{
    struct storm_thread *thread = argument;
    for (unsigned turn = 0; turn % 64 || now_s() < thread->storm->deadline_s; turn++)
        storm_op_run(thread);
    return NULL;
}

static uint8_t *map_or_die(uint64_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        fprintf(stderr, "storm: mmap of %llu bytes: %s\n", (unsigned long long)bytes,
                strerror(errno));
        exit(2);
    }
    return at;
}

static int file_open(unsigned index)
{
    char name[32];
    snprintf(name, sizeof name, "storm.%u.tmp", index);
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        fprintf(stderr, "storm: %s: %s\n", name, strerror(errno));
        exit(2);
    }
    unlink(name);
    return fd;
}

static void run_threads(struct storm *storm, unsigned threads, uint64_t seed, bool files)
{
    static struct storm_thread contexts[THREADS_MAX];
    pthread_t handles[THREADS_MAX];

    for (unsigned i = 0; i < threads; i++) {
        contexts[i] = (struct storm_thread){.storm = storm, .file_fd = -1};
        contexts[i].random = seed * 1000 + i;
        contexts[i].file_fd = files ? file_open(i) : -1;
        if (pipe2(contexts[i].pipe_fds, O_CLOEXEC)) {
            perror("storm: pipe");
            exit(2);
        }
        int error = pthread_create(&handles[i], NULL, thread_main, &contexts[i]);
        if (error) {
            fprintf(stderr, "storm: pthread_create: %s\n", strerror(error));
            exit(2);
        }
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_join(handles[i], NULL);
}

static int report(struct storm *storm)
{
    static const char *const names[STORM_OPS] = {"reads",  "rewrites", "spans", "small", "discards",
                                                 "remaps", "protects", "io",    "sweep"};
    unsigned long total = 0;
    printf("storm:");
    for (unsigned op = 0; op < STORM_OPS; op++) {
        printf(" %s=%lu", names[op], storm->counts[op]);
        total += storm->counts[op];
    }
    printf(" total=%lu mismatches=%lu\n", total, storm->mismatches);
    return storm->mismatches ? 1 : 0;
}

static const struct option storm_options[] = {
    {"threads", required_argument, NULL, 't'}, {"bytes", required_argument, NULL, 'b'},
    {"seconds", required_argument, NULL, 's'}, {"seed", required_argument, NULL, 'r'},
    {"no-files", no_argument, NULL, 'n'},      {NULL, 0, NULL, 0},
};

int main(int argc, char **argv)
{
    unsigned threads = 8;
    uint64_t mib = 256;
    double seconds = 10;
    uint64_t seed = 1;
    bool files = true;

    for (int option; (option = getopt_long(argc, argv, "", storm_options, NULL)) != -1;) {
        switch (option) {
        case 't':
            threads = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'b':
            mib = strtoull(optarg, NULL, 10);
            break;
        case 's':
            seconds = strtod(optarg, NULL);
            break;
        case 'r':
            seed = strtoull(optarg, NULL, 10);
            break;
        case 'n':
            files = false;
            break;
        default:
            return 2;
        }
    }
    if (threads < 1 || threads > THREADS_MAX || mib < 1) {
        fprintf(stderr, "storm: 1 to %d threads and at least 1 MiB\n", THREADS_MAX);
        return 2;
    }
    static struct storm storm;
    storm.pages = mib << 8;
    storm.region = map_or_die(mib << 20);
    storm.truth = (void *)map_or_die(storm.pages * sizeof *storm.truth);
    storm.deadline_s = now_s() + seconds;
    run_threads(&storm, threads, seed, files);
    for (uint64_t page = 0; page < storm.pages; page++)
        storm_check(&storm, page, true);
    return report(&storm);
}
