/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the benchmark programs share. Each is deterministic, takes its size as an argument and
 * prints `key value` lines: the seconds of its phases (setup, then run, the one that is compared)
 * and a checksum of its result, that must be the same on every system. With BENCH_STOP=PHASE in the
 * environment a program ends after that phase, so that counters of a phase can be told apart.
 */
#ifndef BENCH_H
#define BENCH_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BENCH_PAGE 4096u

static inline double bench_now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static inline void bench_fail(const char *what)
{
    perror(what);
    exit(1);
}

/* The phase that ends here began where the last one ended; the first one at the first call. */
static inline void bench_phase(const char *ended)
{
    static double since_s;
    const char *stop = getenv("BENCH_STOP");

    if (ended)
        printf("%s_s %.6f\n", ended, bench_now_s() - since_s);
    if (ended && stop && strcmp(stop, ended) == 0)
        exit(0);
    since_s = bench_now_s();
}

/* splitmix64: any counter is a good seed, so that word n of a region can be told without n steps.
 */
static inline uint64_t bench_mix(uint64_t value)
{
    value += 0x9e3779b97f4a7c15u;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

static inline uint64_t bench_random(uint64_t *state)
{
    return bench_mix((*state)++);
}

static inline uint64_t bench_hash(uint64_t hash, const void *data, size_t length_bytes)
{
    const uint8_t *at = data;
    uint64_t word;

    for (; length_bytes >= sizeof word; at += sizeof word, length_bytes -= sizeof word) {
        memcpy(&word, at, sizeof word);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
    }
    for (; length_bytes; at++, length_bytes--)
        hash = (hash ^ *at) * 0x100000001b3u;
    return hash;
}

static inline void bench_checksum(uint64_t hash)
{
    printf("checksum %016llx\n", (unsigned long long)hash);
}

/* Fresh anonymous memory in 4 KiB pages on every system, also where huge pages are the default. */
static inline void *bench_allocate(size_t length_bytes)
{
    length_bytes += !length_bytes;
    void *memory =
        mmap(NULL, length_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        bench_fail("bench: memory");
    madvise(memory, length_bytes, MADV_NOHUGEPAGE);
    return memory;
}

/* A whole file in anonymous memory: an input must not be page cache, for that no system pages. */
static inline void *bench_load(const char *path, size_t *length_bytes)
{
    enum { PIECE_BYTES = 1 << 20 };
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    size_t done = 0;

    if (fd < 0 || fstat(fd, &status) < 0)
        bench_fail(path);
    size_t size = (size_t)status.st_size;
    char *memory = bench_allocate(size);
    while (done < size) {
        size_t piece = size - done < PIECE_BYTES ? size - done : PIECE_BYTES;
        ssize_t got = read(fd, memory + done, piece);
        if (got <= 0)
            bench_fail(path);
        done += (size_t)got;
    }
    close(fd);
    *length_bytes = size;
    return memory;
}

static inline void bench_store(const char *path, const void *data, size_t length_bytes, int append)
{
    FILE *file = fopen(path, append ? "ab" : "wb");

    if (!file || fwrite(data, 1, length_bytes, file) != length_bytes || fclose(file) != 0)
        bench_fail(path);
}

#endif
