/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gathered sends: what a program sends on a socket that was shown to its vCPU (io_ahead.c) the
 * guest kernel may keep, and the VMM sends it at the vCPU's next request: a server that answers
 * fifty clients in one turn leaves the guest once. States: abi.h, fv_sends.
 *
 * A send that the program was told of must not fail for lack of room. So it is gathered only where
 * the socket's queue was empty and holds far more; nobody else can send there without ending the
 * grant. An error of the connection is told by the next transfer, as Linux tells it when it learns
 * of it after a send.
 *
 * Nothing gathered waits for long: the guest makes a request instead when the first has waited for
 * the time of some exits, and a thread of the VMM looks every millisecond (hostio_sends_tick).
 *
 * Order: on one connection, and against everything else that its vCPU asks for, as the program made
 * it: before a request is carried out, what was gathered is sent. Between connections, in the order
 * in which epoll_wait told of them.
 */
#include "vmm/io_ahead_internal.h"

#include "support.h"

#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define QUEUE_MIN  (2 * FV_SENDS_MAX) /* SO_SNDBUF: what is gathered fits, with its overhead */
#define SHORT_MS   1000               /* a host short of memory gets this long */
#define IDLE_TICKS 64u                /* without a send: gathering ends, and so do the ticks */

static uint64_t word_of(const struct io_grant *grant)
{
    return ((uint64_t)grant->fd + 1) << FV_AHEAD_FD_SHIFT;
}

/* Is there room for certain? */
static bool has_room(struct io_file *file)
{
    int queued = 0, room = 0;
    socklen_t bytes = sizeof(room);

    if (!atomic_load(&file->sight.roomy)) {
        if (getsockopt(file->fd, SOL_SOCKET, SO_SNDBUF, &room, &bytes) || room < QUEUE_MIN)
            return false;
        atomic_store(&file->sight.roomy, true);
    }
    return !ioctl(file->fd, SIOCOUTQ, &queued) && !queued;
}

void io_sends_begin(struct io_aheads *all, struct io_ahead *ahead, unsigned index)
{
    struct io_grant *grant = &ahead->grants[index];
    struct io_sight *sight = &grant->file->sight;

    if (all->tick_fd < 0 || atomic_load(&sight->shut) || atomic_load(&sight->late_error) ||
        io_habit_skips(&sight->sends))
        return;
    if (!has_room(grant->file)) {
        io_habit_learn(&sight->sends, false);
        return;
    }
    grant->sends = true;
    atomic_fetch_add(&ahead->sending, 1);
    __atomic_store_n(&ahead->sends->grant[index], word_of(grant), __ATOMIC_RELEASE);
}

/* The host refused what it had room for: it is short of memory. Bytes, or -1. */
static ssize_t send_patiently(const struct io_file *file, const uint8_t *from, size_t bytes)
{
    struct pollfd ready = {.fd = file->fd, .events = POLLOUT};

    if (poll(&ready, 1, SHORT_MS) < 0)
        return -1;
    return send(file->fd, from, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* The program was told that it is sent, and it cannot be: its peer must not take it for complete.
 */
static void connection_abort(struct io_file *file)
{
    const struct sockaddr none = {.sa_family = AF_UNSPEC};

    message_warning("network: a connection was reset: the host has no memory for what is sent");
    (void)connect(file->fd, &none, sizeof(none));
    atomic_store(&file->sight.late_error, ECONNABORTED);
}

static void transmit(struct io_file *file, const uint8_t *from, size_t bytes)
{
    bool patient = false;

    while (bytes) {
        ssize_t n = patient ? send_patiently(file, from, bytes)
                            : send(file->fd, from, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN && !patient) {
            patient = true;
            continue;
        }
        if (n < 0 && errno == EAGAIN)
            connection_abort(file);
        else if (n < 0 && errno != EPIPE) /* EPIPE it tells again */
            atomic_store(&file->sight.late_error, errno);
        if (n < 0)
            return;
        from += n;
        bytes -= (size_t)n;
    }
}

void io_sends_flush(struct io_aheads *all, struct io_ahead *ahead, unsigned index, bool end)
{
    struct io_grant *grant = &ahead->grants[index];
    uint64_t *at = &ahead->sends->grant[index], word = __atomic_load_n(at, __ATOMIC_RELAXED);
    size_t offset, bytes;

    if (!end && !(word & FV_AHEAD_BYTES_MASK))
        return;
    word = __atomic_exchange_n(at, end ? 0 : word_of(grant), __ATOMIC_ACQ_REL);
    offset = word >> FV_AHEAD_BYTES_SHIFT & FV_AHEAD_BYTES_MASK;
    bytes = word & FV_AHEAD_BYTES_MASK;
    if (bytes > FV_SENDS_MAX || offset + bytes > FV_SENDS_DATA ||
        word >> FV_AHEAD_FD_SHIFT != word_of(grant) >> FV_AHEAD_FD_SHIFT)
        bytes = 0; /* not by our guest kernel */
    if (bytes) {
        atomic_fetch_add(&all->gathered, !grant->sent);
        grant->sent = true;
        transmit(grant->file, ahead->sends->data + offset, bytes);
    }
    if (!end)
        return;
    io_habit_learn(&grant->file->sight.sends, grant->sent && !grant->late);
    grant->sends = false;
    atomic_fetch_sub(&ahead->sending, 1);
}

void io_sends_rewind(struct io_ahead *ahead)
{
    __atomic_store_n(&ahead->sends->used, 0, __ATOMIC_RELAXED);
    ahead->waited = false;
}

/* ---- ticks ---- */

/* The asker's grants are counted before it looks for `ticking`; see hostio_sends_tick. */
void io_sends_tick_ask(struct io_aheads *all, struct io_ahead *ahead)
{
    uint64_t one = 1;

    if (atomic_load(&ahead->sending) && !atomic_exchange(&all->ticking, true))
        (void)!write(all->tick_fd, &one, sizeof(one));
}

static bool has_gathered(const struct io_ahead *ahead)
{
    for (unsigned i = 0; i < ahead->count; i++) {
        if (ahead->grants[i].sends &&
            __atomic_load_n(&ahead->sends->grant[i], __ATOMIC_RELAXED) & FV_AHEAD_BYTES_MASK)
            return true;
    }
    return false;
}

/* With the area's lock. What was there at the last tick has waited for one at least. */
static void ahead_tick(struct io_aheads *all, struct io_ahead *ahead)
{
    bool any = has_gathered(ahead), late = any && ahead->waited;

    ahead->idle_ticks = any ? 0 : ahead->idle_ticks + 1;
    ahead->waited = any && !late;
    if (!late && ahead->idle_ticks < IDLE_TICKS)
        return;
    for (unsigned i = 0; i < ahead->count; i++) {
        struct io_grant *grant = &ahead->grants[i];

        if (!grant->sends)
            continue;
        grant->late |= late;
        io_sends_flush(all, ahead, i, !late);
    }
    atomic_fetch_add(&all->late, late);
    ahead->idle_ticks = 0;
}

/* One that is busy is sending, or about to. Returns whether any may gather. */
static bool aheads_tick(struct hostio *io)
{
    struct io_aheads *all = &io->aheads;
    unsigned count = atomic_load(&io->vm->vcpu_count);
    bool any = false;

    for (unsigned i = 0; i < count; i++) {
        struct io_ahead *ahead = atomic_load(&all->list[i]);

        if (!ahead || !atomic_load(&ahead->sending))
            continue;
        any = true;
        if (pthread_mutex_trylock(&ahead->lock))
            continue;
        ahead_tick(all, ahead);
        pthread_mutex_unlock(&ahead->lock);
    }
    return any;
}

bool hostio_sends_tick(struct hostio *io, unsigned *idle)
{
    struct io_aheads *all = &io->aheads;

    *idle = aheads_tick(io) ? 0 : *idle + 1;
    if (*idle < IDLE_TICKS)
        return true;
    *idle = 0;
    atomic_store(&all->ticking, false);
    /* Either we see what was granted before this, or its granter sees that nobody ticks. */
    return aheads_tick(io) && !atomic_exchange(&all->ticking, true);
}

void hostio_tick_by(struct hostio *io, int fd)
{
    io->aheads.tick_fd = fd;
}
