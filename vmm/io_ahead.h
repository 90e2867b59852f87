/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking ahead: what readable sockets hold, shown to the guest kernel (io_ahead.c).
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

/* What looking ahead (io_ahead.c) knows of a file, be it a socket or an epoll set. */
struct io_sight {
    /* Whose grant this socket has, or whose grants came from this set; NULL: none. */
    _Atomic(struct io_ahead *) ahead;
    atomic_bool shared; /* can be used without a look at this: dup, a second set, closed */
    /* Of a socket. */
    atomic_bool own;       /* a TCP connection that the program made or accepted */
    atomic_bool odd;       /* options under which a look is not as good as a read; inherited */
    atomic_int late_error; /* errno that a look consumed: the next transfer tells it */
    unsigned index;        /* of its grant */
    uint64_t watch_set;    /* id of the set that watches it; 0: none */
    uint64_t watch_data;
    uint8_t skip, penalty; /* events without a look: still, the next time */
    /* Of a set. */
    _Atomic(struct io_watch *) watches;
    uint64_t set_id;
};

struct io_aheads {
    /* Everything of io_ahead.c; its holder waits for no peer. Then the table's lock, not before. */
    pthread_mutex_t lock;
    struct io_fds *fds;
    _Atomic(struct io_ahead *) list[FV_VCPU_MAX]; /* a vCPU's, once it profits */
    uint64_t sets;                                /* ids given */
    bool ended;
    _Atomic uint64_t shown, used; /* grants made; those of which something was read */
};
void io_aheads_create(struct io_aheads *all, struct io_fds *fds);
void io_aheads_destroy(struct io_aheads *all);
/* vCPU `index` can be shown things there. 0 or -ENOMEM. Lock held, or nobody else is there. */
int io_ahead_open(struct io_aheads *all, uint32_t index, struct fv_ahead *shared, uint32_t *count);
/* `file` is in a set now, or not any more. The caller holds references of both. */
void io_ahead_watch(struct io_aheads *all, struct io_file *set, struct io_file *file, int fd,
                    int operation, const struct epoll_event *event);
/* These events were told to the program on vcpu. The caller holds a reference of the set. */
void io_ahead_grant(struct io_aheads *all, struct vcpu *vcpu, struct io_file *set,
                    const struct epoll_event *events, unsigned count);
/* Ends what was shown of a socket, or because of a set. */
void io_ahead_revoke(struct io_aheads *all, struct io_file *file);

#endif
