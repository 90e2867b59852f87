/* SPDX-License-Identifier: Apache-2.0 */
/* What the programs about signalfd share. */
#ifndef SIGNALFD_H
#define SIGNALFD_H

#include "guest.h"

#include <signal.h>
#include <sys/signalfd.h>

typedef struct signalfd_siginfo info_t;

static inline sigset_t set_of(int a, int b)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, a);
    sigaddset(&set, b);
    return set;
}

static inline int made(int a, int b, int flags)
{
    sigset_t set = set_of(a, b);
    int fd = signalfd(-1, &set, flags);
    EXPECT(fd >= 0);
    return fd;
}

#endif
