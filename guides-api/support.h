/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small things every host program of the project shares: messages, sizes, clocks, assertions, and
 * one option table that makes parsing, --help, the man page's synopsis and shell completion.
 */
#ifndef FARVISOR_SUPPORT_H
#define FARVISOR_SUPPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FV_VERSION "0.1.0"

/* ---- message.c: one line on standard error, "prog: object: what failed: reason (hint)" ---- */
enum message_level { MESSAGE_QUIET, MESSAGE_NORMAL, MESSAGE_VERBOSE };
void message_init(const char *program, enum message_level level);
/* All three add "prog: " and the newline, write the line with one write(2), and keep errno. */
void message_error(const char *format, ...) __attribute__((format(printf, 1, 2))); /* always */
/* How many error lines were printed: has somebody said why something failed? */
unsigned message_errors(void);
void message_warning(const char *format, ...)
    __attribute__((format(printf, 1, 2)));                                        /* not if quiet */
void message_info(const char *format, ...) __attribute__((format(printf, 1, 2))); /* if verbose */

/* Impossible states only; never for what a guest, peer or user sent. Prints file:line and aborts.
 */
#define FV_ASSERT(condition)                                                                       \
    ((condition) ? (void)0 : fv_assert_failed(#condition, __FILE__, __LINE__))
_Noreturn void fv_assert_failed(const char *condition, const char *file, int line);

/* ---- parse.c: strict text to number; all return 0, -EINVAL (malformed) or -ERANGE ---- */
int parse_size(const char *text, uint64_t *bytes);      /* 4096, 64K, 512M, 2G, 1T; nothing else */
int parse_duration(const char *text, uint64_t *ns);     /* 10ns, 20us, 5ms, 3s */
int parse_rate(const char *text, uint64_t *bits_per_s); /* 100M, 25G */
int parse_u64(const char *text, uint64_t *value);
/* Writes e.g. "1.5 GiB"; returns buffer. */
const char *format_bytes(uint64_t bytes, char *buffer, size_t buffer_bytes);

/* ---- clock.c ---- */
uint64_t clock_now_ns(void); /* CLOCK_MONOTONIC */
/*
 * How long a caller is still ready to wait for somebody. Only time spent awake counts: what passed
 * between two looks counts for a slice at most, so that a process that was stopped for an hour
 * (SIGSTOP, Ctrl-Z, a container paused), or got no processor, has not waited for an hour. Whoever
 * uses it sleeps for a slice at most.
 */
struct patience {
    uint64_t left_ns, slice_ns, looked_ns;
};
struct patience patience_of(uint64_t ns, uint64_t slice_ns);
/* Charges what passed since the last look, at most a slice. 0, or -ETIMEDOUT when it is used up. */
int patience_spend(struct patience *patience);

/* ---- options.c: one table a program ---- */
struct option_spec {
    const char *name;                            /* without dashes; NULL ends the table */
    char short_name;                             /* or 0 */
    const char *argument;                        /* "SIZE"; NULL: a flag */
    const char *help;                            /* one line */
    int (*set)(void *config, const char *value); /* 0, or -errno after printing one message */
};
/*
 * Parses GNU long options up to the first operand or "--". Returns the index of the first operand,
 * or -EINVAL after the two-line usage error (what is wrong; "Try 'PROG --help'").
 */
int options_parse(const struct option_spec *table, const char *command, void *config, int argc,
                  char **argv);
void options_print_help(const struct option_spec *table, const char *usage, const char *about);

#endif
