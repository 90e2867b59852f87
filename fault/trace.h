/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traces of the paging engine (docs/trace.md): the file's format, its recorder and its reader. A
 * file is a header of 512 bytes, then records of 16, in about the order of time; the last one says
 * that the recording ended properly. All little endian.
 */
#ifndef FARVISOR_FAULT_TRACE_H
#define FARVISOR_FAULT_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the file's order is this machine's");

#define TRACE_MAGIC        "FVTRACE\n"
#define TRACE_VERSION      1u
#define TRACE_TICK_SHIFT   8 /* a tick is 256 ns */
#define TRACE_PAGE_BITS    40
#define TRACE_TIME_BITS    40 /* 78 hours */
#define TRACE_RUN_MAX      512u
#define TRACE_THREADS      64u   /* a thread's number is taken modulo this */
#define TRACE_NOBODY       0xffu /* which thread is not known */
#define TRACE_DURATION_MAX 0xffffu

struct trace_header {
    char magic[8];
    uint32_t version;
    uint32_t header_bytes;
    uint32_t record_bytes;
    uint32_t page_bytes;
    uint64_t memory_pages;
    uint64_t local_pages; /* at most so many pages were resident while it was recorded */
    uint64_t started_ns;  /* since 1970 */
    /* Text: printable, ended by NUL. */
    char prefetcher[16];
    char fault_mode[16];
    char transport[176];
    char program[256];
};
_Static_assert(sizeof(struct trace_header) == 512, "part of the format");

/*
 * what: page 0-39, thread 40-47, type 48-51, detail 52-54, write 55, the rest 0.
 * when: ticks since the start 0-39, value 40-55, the rest 0. The value is a number of pages, all of
 * them in one aligned run of 512; of a fault, how many ticks it took.
 */
struct trace_record {
    uint64_t what, when;
};
_Static_assert(sizeof(struct trace_record) == 16, "part of the format");

enum trace_type {
    TRACE_FAULT = 1, /* the guest touched a page that was not here; detail: enum trace_cause */
    TRACE_TOUCH,     /* a page that was here is known to have been touched; detail: trace_seen */
    TRACE_FILL,      /* first contents; detail: 0 zeroes, 1 file */
    TRACE_PREFETCH,  /* asked of the memory node, unasked for by the program */
    TRACE_LAND,      /* ... and installed */
    TRACE_EVICT,     /* detail: enum trace_fate */
    TRACE_DISCARD,   /* contents given up by the program */
    TRACE_END = 15,  /* page: how many records were dropped */
};

enum trace_cause { TRACE_MISS, TRACE_LATE, TRACE_ZERO, TRACE_FILE, TRACE_WAIT, TRACE_CAUSES };
enum trace_seen { TRACE_PINNED, TRACE_REACHED, TRACE_ACCESSED, TRACE_SEENS };
enum trace_fate { TRACE_CLEAN, TRACE_FORGOTTEN, TRACE_WRITTEN, TRACE_FATES };

static inline uint64_t trace_page(const struct trace_record *record)
{
    return record->what & ((1ULL << TRACE_PAGE_BITS) - 1);
}

static inline uint8_t trace_thread(const struct trace_record *record)
{
    return (uint8_t)(record->what >> 40);
}

static inline enum trace_type trace_type(const struct trace_record *record)
{
    return (enum trace_type)(record->what >> 48 & 15);
}

static inline unsigned trace_detail(const struct trace_record *record)
{
    return record->what >> 52 & 7;
}

static inline bool trace_write(const struct trace_record *record)
{
    return record->what >> 55 & 1;
}

static inline uint64_t trace_ticks(const struct trace_record *record)
{
    return record->when & ((1ULL << TRACE_TIME_BITS) - 1);
}

static inline uint32_t trace_value(const struct trace_record *record)
{
    return record->when >> 40 & 0xffff;
}

/* ---- trace.c: the recorder, one a process ---- */

struct trace_totals {
    uint64_t records; /* written */
    uint64_t dropped; /* no room in a buffer: recording never makes a fault wait */
    int error;        /* of writing the file: -errno or 0 */
};

/*
 * trace_start - records what the engine does from now on into `fd`, which stays the caller's.
 * Fills in the header's constants and time. Starts the writing thread. 0 or -errno.
 */
int trace_start(int fd, const struct trace_header *header);
/* Writes what is left and the end mark. Without trace_start: all zero. */
void trace_stop(struct trace_totals *out);

/* ---- trace_parse.c ---- */

struct trace {
    struct trace_header header;
    struct trace_record *records; /* sorted by time */
    size_t count;                 /* without the end mark */
    uint64_t dropped;
    bool ended; /* false: whoever recorded was killed */
};

/*
 * trace_parse - checks every byte of a file's contents and sorts the records. Hostile contents are
 * refused, never trusted: pages, types and lengths are within the bounds above afterwards.
 * Returns 0, or -EINVAL or -ENOMEM with *wrong (static text) saying why and *at where in the file.
 */
int trace_parse(const void *data, size_t bytes, struct trace *out, const char **wrong, size_t *at);
void trace_free(struct trace *trace);

#endif
