/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The storm's shared map: the region under test, and the truth about each of its pages.
 *
 * A page carries in its middle who it is (page number, version, checksum), so that spans crossing
 * page borders only meet payload. The truth is kept apart, 16 bytes a page behind a lock, and is
 * updated by the operation that changes the page: a write that gets lost, an old copy that comes
 * back, or another page's bytes all disagree with it.
 */
#ifndef TESTS_STORM_H
#define TESTS_STORM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STORM_PAGE_BYTES  4096u
#define STORM_PAGE_WORDS  512u
#define STORM_HEADER_WORD 256u /* first of three: page number + 1, version, checksum */
#define STORM_RUN_PAGES   16u  /* longest run of pages an operation locks at once */

struct storm_truth {
    atomic_uint lock;
    uint32_t version; /* 0: the page reads as zeroes */
    uint64_t sum;     /* of the payload words */
};

struct storm {
    uint8_t *region;
    uint64_t pages;
    struct storm_truth *truth;
    atomic_ulong mismatches;
    atomic_ulong counts[9]; /* by enum storm_op */
    double deadline_s;
};

enum storm_op {
    STORM_READ,
    STORM_REWRITE,
    STORM_SPAN,
    STORM_SMALL,
    STORM_DISCARD,
    STORM_REMAP,
    STORM_PROTECT,
    STORM_IO,
    STORM_SWEEP,
    STORM_OPS
};

/* One storming thread. */
struct storm_thread {
    struct storm *storm;
    uint64_t random;
    uint64_t walk;   /* where its sequential walk is */
    int file_fd;     /* -1: no file I/O */
    int pipe_fds[2]; /* its own pipe */
};

/* ---- storm_page.c: what is in a page, and whether that is right ---- */
uint64_t storm_random(uint64_t *state);
uint64_t storm_term(uint64_t index, uint64_t word); /* a word's share of the checksum */
uint64_t storm_sum(const uint64_t *page);           /* payload only */
uint64_t *storm_page(const struct storm *storm, uint64_t page);
void storm_lock(struct storm *storm, uint64_t page, uint64_t pages); /* in rising order only */
void storm_unlock(struct storm *storm, uint64_t page, uint64_t pages);
void storm_check(struct storm *storm, uint64_t page, bool whole); /* caller holds the lock */
void storm_stamp(struct storm *storm, uint64_t page, uint64_t sum);
void storm_forget(struct storm *storm, uint64_t page, uint64_t pages);
void storm_report(struct storm *storm, const char *what, uint64_t page, uint64_t want,
                  uint64_t found);

/* ---- storm_ops.c: one function an operation; each takes and drops its own locks ---- */
void storm_op_run(struct storm_thread *thread);

#endif
