/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads and sends on sockets that the guest kernel answers by itself: what readable sockets hold is
 * shown to it (io/ahead.c), and what the program sends on them is gathered by it (io/sends.c).
 */
#ifndef FARVISOR_IO_AHEAD_H
#define FARVISOR_IO_AHEAD_H

#include "farvisor/abi.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct epoll_event;
struct io_ahead;
struct io_fds;
struct io_file;
struct io_watch;
struct vcpu;

/* Events of a socket without a grant: still, and the next time one was of no use. Statistics. */
struct io_habit {
    _Atomic uint8_t skip, penalty;
};

/* What looking ahead (io/ahead.c) knows of a file, be it a socket or an epoll set. */
struct io_sight {
    /* Whose grant this socket has, or whose grants came from this set; NULL: none. */
    _Atomic(struct io_ahead *) ahead;
    atomic_bool shared; /* can be used without a look at this: dup, a second set, closed */
    /* Of a socket. */
    atomic_bool own;       /* a TCP connection that the program made or accepted */
    atomic_bool odd;       /* options under which a look is not as good as a read; inherited */
    atomic_bool shut;      /* the program sends no more */
    atomic_int late_error; /* errno that a look or a late send met: the next transfer tells it */
    unsigned index;        /* of its grant; under the area's lock */
    _Atomic uint64_t watch_set; /* id of the set that watches it; 0: none */
    _Atomic uint64_t watch_data;
    struct io_habit reads, sends; /* `sends` of a set, too */
    /* Of a set. */
    _Atomic(struct io_watch *) watches;
    uint64_t set_id;
};

struct io_aheads {
    /* Who watches what, and the making of areas. Then the table's lock, not before. */
    pthread_mutex_t lock;
    struct io_fds *fds;
    _Atomic(struct io_ahead *) list[FV_VCPU_MAX]; /* a vCPU's, once it profits */
    uint64_t sets;                                /* ids given */
    atomic_bool ended;
    atomic_bool ticking; /* somebody calls hostio_sends_tick */
    atomic_bool gathers; /* sends may be kept at all: somebody ticks, and the host has memory */
    int tick_fd;         /* eventfd that asks for ticks; -1: there are none */
    /* Grants made; those of which something was read; those that sent; ticks that sent. */
    _Atomic uint64_t shown, used, gathered, late;
};
void io_aheads_create(struct io_aheads *all, struct io_fds *fds);
void io_aheads_destroy(struct io_aheads *all);
/* The areas of vCPU `index`, whose counts are in its page. 0 or -ENOMEM. */
int io_ahead_open(struct io_aheads *all, uint32_t index, struct fv_ahead *shared,
                  struct fv_sends *sends, struct fv_vcpu *page);
/* `file` is in a set now, or not any more. The caller holds references of both. */
void io_ahead_watch(struct io_aheads *all, struct io_file *set, struct io_file *file, int fd,
                    int operation, const struct epoll_event *event);
/* These events were told to the program on vcpu. The caller holds a reference of the set. */
void io_ahead_grant(struct io_aheads *all, struct vcpu *vcpu, struct io_file *set,
                    const struct epoll_event *events, unsigned count);
/* Ends what was shown of a socket, or because of a set, and sends what was gathered. */
void io_ahead_revoke(struct io_aheads *all, struct io_file *file);

#endif
