/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the behaviour guests: small unmodified Linux programs that each check one thing about the
 * system they run on. A guest prints what failed on standard error and exits 1, or prints a
 * deterministic line on standard output and exits 0, so that a native run is its specification.
 */
#ifndef TESTS_GUEST_H
#define TESTS_GUEST_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Ends the guest with status 1 unless the condition holds. */
#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: expected %s (errno %d: %s)\n", __FILE__, __LINE__, #condition, \
                    errno, strerror(errno));                                                       \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static inline double guest_now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* The behaviour's name, so that a log reads by itself. */
static inline int guest_passed(const char *behaviour)
{
    printf("%s: ok\n", behaviour);
    return 0;
}

#endif
