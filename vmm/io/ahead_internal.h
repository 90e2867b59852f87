/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a vCPU may answer by itself of a program's reads and sends: shared by io/ahead.c, io/sends.c
 * and io/watch.c.
 */
#ifndef FARVISOR_IO_AHEAD_INTERNAL_H
#define FARVISOR_IO_AHEAD_INTERNAL_H

#include "vmm/io/hostio_internal.h"

/* Events of a set with this data word are about that descriptor: a guess, others may have it too.
 */
struct io_watch {
    uint64_t data;
    int fd;
};

/* The VMM's own copy of a grant: what the guest writes decides only how much it took of it. */
struct io_grant {
    struct io_file *file; /* NULL: ended. It has no reference: closing the file ends the grant */
    int fd;
    uint16_t bytes;
    uint16_t gone; /* taken, and out of the socket */
    bool sends;    /* it may gather sends, too: until they are sent, once */
};

/* What one vCPU was shown. Made once, and there until the end. */
struct io_ahead {
    pthread_mutex_t lock; /* all of it; its holder waits for no peer. Then io_aheads.lock */
    struct fv_ahead *shared;
    struct fv_sends *sends;
    struct fv_vcpu *page; /* ahead_count, sends_count */
    struct io_file *set;
    struct io_grant grants[FV_AHEAD_GRANTS];
    unsigned count;
    uint32_t data_bytes; /* of shared->data in use */
    bool gathers;        /* in this turn, some may */
    bool waited;         /* something gathered was there at the last tick */
    bool late;           /* a tick had to send something in this turn */
    unsigned idle_ticks; /* since something was */
    atomic_uint live;    /* grants not ended */
    atomic_uint sending; /* of them, those that may send */
};

/* ---- io/watch.c ---- */
/*
 * The file that an event of `set` is about, with a reference, and its descriptor; NULL if that is
 * not known. *eligible: it is a connection that may have a grant. `set` has watches.
 */
struct io_file *io_watch_find(struct io_aheads *all, const struct io_file *set,
                              const struct epoll_event *event, int *fd, bool *eligible);

/* ---- io/sends.c; with the area's lock ---- */
/* Grant `index` may send, if its socket takes it. */
void io_sends_begin(struct io_aheads *all, struct io_ahead *ahead, unsigned index);
/* What was gathered for it is sent, once; `end`: and if nothing was, it may not gather any more.
 * Returns whether there was something. */
bool io_sends_flush(struct io_aheads *all, struct io_ahead *ahead, unsigned index, bool end);
/* Nothing of data[] is needed any more, and the vCPU does not add to it now. */
void io_sends_rewind(struct io_ahead *ahead);
/* Without a lock: somebody is to look every millisecond while something may be gathered. */
void io_sends_tick_ask(struct io_aheads *all, struct io_ahead *ahead);

/* Was it of use? A look costs a host call: after some in vain only now and then another is made. */
static inline void io_habit_learn(struct io_habit *habit, bool used)
{
    enum { PENALTY_MAX = 63 }; /* events that go without a look */
    unsigned penalty = atomic_load_explicit(&habit->penalty, memory_order_relaxed);

    penalty = used ? 0 : penalty < PENALTY_MAX ? penalty * 2 + 1 : penalty;
    atomic_store_explicit(&habit->penalty, (uint8_t)penalty, memory_order_relaxed);
    atomic_store_explicit(&habit->skip, (uint8_t)penalty, memory_order_relaxed);
}

/* Is this one of the events that go without? */
static inline bool io_habit_skips(struct io_habit *habit)
{
    unsigned skip = atomic_load_explicit(&habit->skip, memory_order_relaxed);

    if (skip)
        atomic_store_explicit(&habit->skip, (uint8_t)(skip - 1), memory_order_relaxed);
    return skip != 0;
}

#endif
