/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a storming thread does: reads, writes of all sizes and kinds, discards, remaps, protection
 * changes, and host I/O straight into and out of the region. Every operation first compares what it
 * is about to touch with the truth.
 */
#include "storm.h"

#include <immintrin.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

/* Far, near and hot pages, so that eviction, read-ahead and hits all have work. */
static uint64_t pick(struct storm_thread *thread, uint64_t run)
{
    struct storm *storm = thread->storm;
    uint64_t last = storm->pages - run;
    uint64_t dice = storm_random(&thread->random);

    switch (dice & 7) {
    case 0:
    case 1:
        thread->walk = (thread->walk + run) % (last + 1);
        return thread->walk;
    case 2:
        return storm_random(&thread->random) % (last / 32 + 1);
    case 3:
        thread->walk = storm_random(&thread->random) % (last + 1);
        return thread->walk;
    default:
        return storm_random(&thread->random) % (last + 1);
    }
}

static void op_read(struct storm_thread *thread)
{
    uint64_t page = pick(thread, 1);
    storm_lock(thread->storm, page, 1);
    storm_check(thread->storm, page, (storm_random(&thread->random) & 3) == 0);
    storm_unlock(thread->storm, page, 1);
}

static void op_rewrite(struct storm_thread *thread)
{
    struct storm *storm = thread->storm;
    uint64_t page = pick(thread, 1);

    storm_lock(storm, page, 1);
    /* Half of them write first, so that the first touch of a far page is a store. */
    if (storm_random(&thread->random) & 1)
        storm_check(storm, page, true);
    uint64_t *words = storm_page(storm, page);
    uint64_t sum = 0;
    for (uint64_t i = 0; i < STORM_PAGE_WORDS; i++) {
        if (i >= STORM_HEADER_WORD && i < STORM_HEADER_WORD + 3)
            continue;
        words[i] = storm_random(&thread->random);
        sum += storm_term(i, words[i]);
    }
    storm_stamp(storm, page, sum);
    storm_unlock(storm, page, 1);
}

/* Share in the checksums of the words that bytes [from, from + bytes) of two pages touch. */
static void span_sums(struct storm *storm, uint64_t page, uint64_t from, uint64_t bytes,
                      uint64_t sums[2])
{
    sums[0] = sums[1] = 0;
    for (uint64_t i = from / 8; i <= (from + bytes - 1) / 8; i++)
        sums[i / STORM_PAGE_WORDS] += storm_term(i % STORM_PAGE_WORDS, storm_page(storm, page)[i]);
}

/* The ways a program stores bytes that a fault's address must be found for. */
static void store_bytes(uint8_t *to, const uint8_t *from, uint64_t bytes, unsigned how)
{
    if (how == 0) {
        void *out = to;
        const void *in = from;
        __asm__ volatile("rep movsb" : "+D"(out), "+S"(in), "+c"(bytes) : : "memory");
        return;
    }
    uint64_t i = 0;
    if (how == 1)
        for (; i + 16 <= bytes; i += 16)
            _mm_storeu_si128((__m128i *)(void *)(to + i),
                             _mm_loadu_si128((const __m128i *)(const void *)(from + i)));
    if (how == 2)
        for (; i + 4 <= bytes; i += 4)
            __builtin_memcpy(to + i, from + i, 4);
    if (how == 3)
        for (; i + 8 <= bytes; i += 8)
            __builtin_memcpy(to + i, from + i, 8);
    for (; i < bytes; i++)
        ((volatile uint8_t *)to)[i] = from[i];
}

static void op_span(struct storm_thread *thread)
{
    struct storm *storm = thread->storm;
    uint64_t dice = storm_random(&thread->random);
    uint64_t before = 1 + dice % 2000; /* bytes in the first page; the headers stay out of it */
    uint64_t after = 1 + (dice >> 16) % 2000;
    uint64_t from = STORM_PAGE_BYTES - before;
    uint64_t page = pick(thread, 2);
    uint64_t old_sums[2];
    uint64_t new_sums[2];
    uint8_t bytes[4000];

    for (uint64_t i = 0; i < before + after; i += 8) {
        uint64_t word = storm_random(&thread->random);
        memcpy(bytes + i, &word, before + after - i < 8 ? before + after - i : 8);
    }
    storm_lock(storm, page, 2);
    storm_check(storm, page, false);
    storm_check(storm, page + 1, false);
    span_sums(storm, page, from, before + after, old_sums);
    store_bytes((uint8_t *)storm_page(storm, page) + from, bytes, before + after,
                (unsigned)(dice >> 40) & 3);
    span_sums(storm, page, from, before + after, new_sums);
    for (uint64_t i = 0; i < 2; i++)
        storm_stamp(storm, page + i, storm->truth[page + i].sum - old_sums[i] + new_sums[i]);
    storm_unlock(storm, page, 2);
}

/* A read-modify-write of one word: the smallest change there is. */
static void change_word(struct storm_thread *thread, uint64_t page)
{
    struct storm *storm = thread->storm;
    uint64_t index = storm_random(&thread->random) % STORM_HEADER_WORD;

    storm_lock(storm, page, 1);
    uint64_t *word = storm_page(storm, page) + index;
    uint64_t old = __atomic_fetch_add(word, 0x100000001u, __ATOMIC_SEQ_CST);
    uint64_t sum =
        storm->truth[page].sum - storm_term(index, old) + storm_term(index, old + 0x100000001u);
    storm_check(storm, page, false);
    storm_stamp(storm, page, sum);
    storm_unlock(storm, page, 1);
}

static void op_small(struct storm_thread *thread)
{
    change_word(thread, pick(thread, 1));
}

/* A sequence, up or down, with or without gaps: what is fetched ahead meets everybody else. */
static void op_sweep(struct storm_thread *thread)
{
    static const int strides[8] = {1, 1, 1, 1, -1, -1, 2, 3};
    struct storm *storm = thread->storm;
    uint64_t dice = storm_random(&thread->random);
    int64_t stride = strides[dice & 7];
    uint64_t steps = 16 + (dice >> 8) % 240;
    uint64_t page = pick(thread, 1);
    bool writes = dice & (1u << 20);

    for (; steps && page < storm->pages; steps--, page += (uint64_t)stride) {
        if (writes) {
            change_word(thread, page);
            continue;
        }
        storm_lock(storm, page, 1);
        storm_check(storm, page, steps % 8 == 0);
        storm_unlock(storm, page, 1);
    }
}

static void op_discard(struct storm_thread *thread)
{
    struct storm *storm = thread->storm;
    uint64_t run = 1 + storm_random(&thread->random) % STORM_RUN_PAGES;
    uint64_t page = pick(thread, run);

    storm_lock(storm, page, run);
    if (madvise(storm_page(storm, page), run * STORM_PAGE_BYTES, MADV_DONTNEED))
        storm_report(storm, "madvise failed", page, 0, run);
    storm_forget(storm, page, run);
    storm_check(storm, page, true);
    storm_check(storm, page + run - 1, true);
    storm_unlock(storm, page, run);
}

static void op_remap(struct storm_thread *thread)
{
    struct storm *storm = thread->storm;
    uint64_t run = 1 + storm_random(&thread->random) % STORM_RUN_PAGES;
    uint64_t page = pick(thread, run);
    void *at = storm_page(storm, page);

    storm_lock(storm, page, run);
    if (munmap(at, run * STORM_PAGE_BYTES))
        storm_report(storm, "munmap failed", page, 0, run);
    void *got = mmap(at, run * STORM_PAGE_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    if (got != at)
        storm_report(storm, "mmap failed", page, (uintptr_t)at, (uintptr_t)got);
    storm_forget(storm, page, run);
    storm_check(storm, page + run / 2, true);
    storm_unlock(storm, page, run);
}

static void op_protect(struct storm_thread *thread)
{
    struct storm *storm = thread->storm;
    uint64_t run = 1 + storm_random(&thread->random) % STORM_RUN_PAGES;
    uint64_t page = pick(thread, run);
    void *at = storm_page(storm, page);

    storm_lock(storm, page, run);
    if (mprotect(at, run * STORM_PAGE_BYTES, PROT_READ))
        storm_report(storm, "mprotect to read-only failed", page, 0, run);
    storm_check(storm, page, true);
    if (mprotect(at, run * STORM_PAGE_BYTES, PROT_READ | PROT_WRITE))
        storm_report(storm, "mprotect to read-write failed", page, 0, run);
    storm_check(storm, page + run - 1, false);
    storm_unlock(storm, page, run);
}

/* Moves `bytes` from one place of the region to another through a pipe or a file. */
static ssize_t io_move(struct storm_thread *thread, void *to, void *from, size_t bytes, bool file)
{
    ssize_t wrote =
        file ? pwrite(thread->file_fd, from, bytes, 0) : write(thread->pipe_fds[1], from, bytes);
    if (wrote != (ssize_t)bytes)
        return -1;
    struct iovec halves[2] = {{to, bytes / 2 + 1}, {(char *)to + bytes / 2 + 1, bytes / 2 - 1}};
    return file ? preadv(thread->file_fd, halves, 2, 0) : read(thread->pipe_fds[0], to, bytes);
}

static void op_io(struct storm_thread *thread)
{
    struct storm *storm = thread->storm;
    bool file = thread->file_fd >= 0 && (storm_random(&thread->random) & 1);
    uint64_t run = 1 + storm_random(&thread->random) % (file ? STORM_RUN_PAGES : 8);
    uint64_t low = pick(thread, 2 * run);
    uint64_t high = low + run + storm_random(&thread->random) % (storm->pages - low - 2 * run + 1);
    bool upwards = storm_random(&thread->random) & 1;
    uint64_t from = upwards ? low : high;
    uint64_t to = upwards ? high : low;

    storm_lock(storm, low, run);
    storm_lock(storm, high, run);
    ssize_t moved = io_move(thread, storm_page(storm, to), storm_page(storm, from),
                            run * STORM_PAGE_BYTES, file);
    if (moved != (ssize_t)(run * STORM_PAGE_BYTES))
        storm_report(storm, "host I/O came short", from, run * STORM_PAGE_BYTES, (uint64_t)moved);
    for (uint64_t i = 0; i < run; i++) {
        storm_check(storm, from + i, false);
        uint64_t sum = storm_sum(storm_page(storm, to + i));
        if (sum != storm->truth[from + i].sum)
            storm_report(storm, "bytes changed in host I/O", from + i, storm->truth[from + i].sum,
                         sum);
        storm_stamp(storm, to + i, sum);
    }
    storm_unlock(storm, high, run);
    storm_unlock(storm, low, run);
}

/* How often each operation comes, of 100. */
static const struct {
    unsigned share;
    void (*run)(struct storm_thread *thread);
} storm_ops[STORM_OPS] = {
    [STORM_READ] = {45, op_read},      [STORM_REWRITE] = {15, op_rewrite},
    [STORM_SPAN] = {12, op_span},      [STORM_SMALL] = {20, op_small},
    [STORM_DISCARD] = {2, op_discard}, [STORM_REMAP] = {1, op_remap},
    [STORM_PROTECT] = {1, op_protect}, [STORM_IO] = {3, op_io},
    [STORM_SWEEP] = {1, op_sweep},
};

void storm_op_run(struct storm_thread *thread)
{
    unsigned dice = (unsigned)(storm_random(&thread->random) >> 33) % 100;
    for (unsigned op = 0; op < STORM_OPS; op++) {
        if (dice < storm_ops[op].share) {
            storm_ops[op].run(thread);
            atomic_fetch_add_explicit(&thread->storm->counts[op], 1, memory_order_relaxed);
            return;
        }
        dice -= storm_ops[op].share;
    }
}
