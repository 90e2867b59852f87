/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libfarguide: what a program, or a guide beside an unmodified program, can tell farvisor of its
 * future, and ask of its past. Works outside of farvisor too: hints become madvise, reads become
 * copies, and hooks hook. Advice is never more than advice: a wrong hint costs time, nothing else.
 * Manual: libfarguide(3); tutorial: docs/guides.md.
 *
 * Functions return 0 or a negative errno unless a line says otherwise. Any thread may call them. A
 * signal handler may too: advice that interrupts advice is dropped.
 */
#ifndef FARVISOR_GUIDE_H
#define FARVISOR_GUIDE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Most bytes of one guide_read, or of a node of a chain. */
#define GUIDE_READ_MAX 256u

/* guide_residency: what a page is. */
enum { GUIDE_ABSENT, GUIDE_LOCAL, GUIDE_REMOTE, GUIDE_MOVING };

/* 1 in a farvisor guest that takes hints, 0 natively and where they were switched off. */
int guide_is_far(void);

/* ---- advice ---- */

/*
 * guide_prefetch - [start, start + bytes) will be touched soon. Costs some ten nanoseconds and does
 * not leave the guest; the pages come while the program goes on. Give it at least the time of a
 * round trip before the touch, and do not name more than fits --local.
 * Returns 0; -EAGAIN: too many hints wait, this one was dropped.
 */
int guide_prefetch(const void *start, size_t bytes);
/* The same for several places. Returns how many were taken. */
int guide_prefetch_many(const struct iovec *ranges, size_t count);
/* [start, start + bytes) will not be touched for long: give it up before others. */
int guide_will_not_need(const void *start, size_t bytes);

/*
 * guide_pin - bring pages here and keep them. At most a quarter of --local, and 1024 ranges, for
 * the whole program; -EDQUOT beyond. Ends with guide_unpin of the same range, or when any part is
 * unmapped or discarded: one that is under way then fails with -ENOMEM. Natively mlock.
 */
int guide_pin(const void *start, size_t bytes);
int guide_unpin(const void *start, size_t bytes);

/* One GUIDE_* a page touched by the range; true at some moment during the call. A system call. */
int guide_residency(const void *start, size_t bytes, unsigned char *states);

/* ---- bytes of pages that stay where they are ---- */

/* One read. Fill the first three; the rest is the library's, but for the answer. */
struct guide_read {
    const void *from;
    void *to;
    uint32_t bytes; /* 1 .. GUIDE_READ_MAX */
    int32_t status; /* OUT: 0: `to` is filled; -EFAULT: the program may not read that; -EINVAL */
    uint32_t reserved[2];
};

/*
 * guide_reads_start - start reading, all at once. A page that is remote stays remote and only these
 * bytes travel; one that is here is copied. guide_reads_wait, on the same thread and with the same
 * array, must follow; `to` is filled only after it.
 */
int guide_reads_start(struct guide_read *reads, size_t count);
/* Waits for all of them. Returns 0, or the first status that is not 0. */
int guide_reads_wait(struct guide_read *reads, size_t count);
/* One read from start to end. */
int guide_read(const void *from, void *to, size_t bytes);

/*
 * guide_read_chain - follow a list: reads node_bytes at `first`, then at the pointer found
 * next_offset bytes into it, and so on, until a null pointer or `nodes` of them. Node i lands at
 * to + i * node_bytes. The thread waits once, not once a node; each hop is a round trip, but over
 * ofi, where the memory node follows up to 64 hops in one.
 * Returns how many nodes were read, or -EINVAL, -EFAULT (a pointer leads nowhere; no node before).
 */
long guide_read_chain(const void *first, size_t node_bytes, size_t next_offset, void *to,
                      size_t nodes);

/* ---- at a fault ---- */

/* Most pages that a handler is told of as used. */
#define GUIDE_HITS_MAX 8u
/* Most pieces of advice that a handler may give. */
#define GUIDE_ANSWERS_MAX 64u

struct guide_fault {
    const void *address; /* touched; its page is on its way */
    int write;           /* 1: by a store */
    uint32_t hit_count;  /* of hits: pages of earlier advice that were used since, newest first */
    const void *hits[GUIDE_HITS_MAX];
};
typedef void guide_fault_handler(const struct guide_fault *fault, void *argument);

/*
 * guide_on_fault - have `handler` called when the program touches a remote page of
 * [start, start + bytes), on the thread that touched it, while the page is on its way. It gives
 * advice (guide_prefetch, guide_will_not_need: at most GUIDE_ANSWERS_MAX), which is acted on when
 * it returns; what goes beyond an eighth of --local in one answer is left out. It may read memory;
 * what is remote costs its own time. guide_read and guide_residency look without touching;
 * guide_read gives -EAGAIN for what is not here. All else of this header gives -EAGAIN in a
 * handler. No locks, no allocation. It runs on a stack of 64 KiB, and the program's registers,
 * errno and signal mask are as they were afterwards, whatever it does. One that faults, does not
 * come back or takes too much time is abandoned, and guides are switched off. Faults in hooks, in
 * system calls and in handlers are not asked about. Several threads may be in a handler at once.
 * Ends with guide_off_fault, not with an unmapping.
 * Returns 0, natively too, where nothing ever comes of it; -EINVAL; -ENOSPC: more than 64;
 * -EOPNOTSUPP: with --fault-mode uffd, or an older farvisor.
 */
int guide_on_fault(const void *start, size_t bytes, guide_fault_handler *handler, void *argument);
/* Ends that of exactly this range. A handler may still be running, on another thread. -EINVAL. */
int guide_off_fault(const void *start, size_t bytes);

/* ---- hooks ---- */

/*
 * guide_hook - have `replacement`, of the same type, called in place of an exported function of the
 * program or a library. *original is what to call for the function itself. Call it before the
 * program starts its threads (from a GUIDE start function). Not for functions that throw.
 *
 * In farvisor the time a replacement takes is measured, and one that faults or does not come back
 * is abandoned: the function is called as if it were not hooked (or its result returned, if it had
 * been called already), and no hook is entered any more.
 * Returns 0; -ENOENT no such symbol; -ENOTSUP its first instructions cannot be moved; -EBUSY hooked
 * already; -EINVAL a name of 4096 bytes or more; -ENOMEM; -ENOSPC too many hooks.
 */
int guide_hook(const char *symbol, void *replacement, void **original);

/*
 * guide_start - run a guide's set-up, guarded as a hook is. Returns what it returns, or -ECANCELED
 * when it failed. `name` is shown in messages; it must stay valid.
 */
int guide_start(const char *name, int (*start)(void));

/* In a guide: `GUIDE("redis", start)` runs start() when the guide is loaded, before main. */
#define GUIDE(name, function)                                                                      \
    __attribute__((constructor)) static void guide_constructor_(void)                              \
    {                                                                                              \
        (void)guide_start(name, function);                                                         \
    }

#ifdef __cplusplus
}
#endif
#endif
