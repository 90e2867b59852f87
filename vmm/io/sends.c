/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gathered sends: what a program sends on a socket that was shown to its vCPU (io/ahead.c) the
 * guest kernel may keep, and the VMM sends it at the vCPU's next request: a server that answers
 * fifty clients in one turn leaves the guest once. States: abi.h, fv_sends.
 *
 * A send that the program was told of must not fail for lack of room. So a grant is for one flush
 * of at most FV_SENDS_MAX bytes, where the socket's queue can hold four times as much beside what
 * is in it; nobody else can send there without ending the grant. What the program sends after the
 * flush is a request, which tells it of an error that the flush met.
 *
 * Nothing gathered waits for long: the guest makes a request instead when the first has waited for
 * the time of some exits, and a thread of the VMM looks every millisecond (hostio_sends_tick).
 *
 * Nothing here waits for a peer either, whoever's thread it is.
 */
#include "vmm/io/ahead_internal.h"

#include "support.h"

#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

/* Each packet's own overhead counts, too: 16 KiB in packets of 536 bytes take 55. */
#define QUEUE_ROOM    (4u * FV_SENDS_MAX)
#define IDLE_TICKS    64u /* without a send: gathering ends */
#define NOBODYS_TICKS 4u  /* with nobody who may gather: the ticks end */

static uint64_t word_of(const struct io_grant *grant)
{
    return ((uint64_t)grant->fd + 1) << FV_AHEAD_FD_SHIFT;
}

/* Is there room for certain? */
static bool has_room(const struct io_file *file)
{
    uint32_t memory[SK_MEMINFO_VARS] = {0};
    socklen_t bytes = sizeof(memory);

    if (getsockopt(file->fd, SOL_SOCKET, SO_MEMINFO, memory, &bytes) ||
        bytes <= SK_MEMINFO_WMEM_QUEUED * sizeof(memory[0]))
        return false;
    return memory[SK_MEMINFO_SNDBUF] >= QUEUE_ROOM &&
           memory[SK_MEMINFO_WMEM_QUEUED] <= memory[SK_MEMINFO_SNDBUF] - QUEUE_ROOM;
}

void io_sends_begin(struct io_aheads *all, struct io_ahead *ahead, unsigned index)
{
    struct io_grant *grant = &ahead->grants[index];
    struct io_sight *sight = &grant->file->sight;

    if (!ahead->gathers || atomic_load(&sight->shut) || atomic_load(&sight->late_error) ||
        io_habit_skips(&sight->sends))
        return;
    if (!atomic_load(&all->gathers) || !has_room(grant->file)) {
        io_habit_learn(&sight->sends, false);
        return;
    }
    grant->sends = true;
    atomic_fetch_add(&ahead->sending, 1);
    __atomic_store_n(&ahead->sends->grant[index], word_of(grant), __ATOMIC_RELEASE);
}

static bool is_over(const struct io_file *file)
{
    struct tcp_info info = {0};
    socklen_t bytes = sizeof(info);

    return !getsockopt(file->fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) &&
           info.tcpi_state == TCP_CLOSE;
}

/*
 * The program was told that it is sent, and it cannot be. A connection that lives on with a hole in
 * it would be a lie to both: it is reset.
 */
static void unsent(struct io_aheads *all, struct io_file *file, int error)
{
    const struct sockaddr none = {.sa_family = AF_UNSPEC};
    int told = error == EAGAIN ? ECONNABORTED : error;

    if (error == EAGAIN && atomic_exchange(&all->gathers, false))
        message_warning("network: a connection was reset: the host has no memory for what is sent");
    if (!is_over(file))
        (void)connect(file->fd, &none, sizeof(none));
    if (error != EPIPE) /* which is told again */
        atomic_store(&file->sight.late_error, told);
}

static void transmit(struct io_aheads *all, struct io_file *file, const uint8_t *from, size_t bytes)
{
    while (bytes) {
        ssize_t n = send(file->fd, from, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            unsent(all, file, errno);
            return;
        }
        from += n;
        bytes -= (size_t)n;
    }
}

bool io_sends_flush(struct io_aheads *all, struct io_ahead *ahead, unsigned index, bool end)
{
    struct io_grant *grant = &ahead->grants[index];
    uint64_t *at = &ahead->sends->grant[index], word = __atomic_load_n(at, __ATOMIC_RELAXED);
    size_t offset, bytes;

    if (!end && !(word & FV_AHEAD_BYTES_MASK))
        return false;
    word = __atomic_exchange_n(at, 0, __ATOMIC_ACQ_REL);
    grant->sends = false;
    atomic_fetch_sub(&ahead->sending, 1);
    offset = word >> FV_AHEAD_BYTES_SHIFT & FV_AHEAD_BYTES_MASK;
    bytes = word & FV_AHEAD_BYTES_MASK;
    if (bytes > FV_SENDS_MAX || offset + bytes > FV_SENDS_DATA ||
        word >> FV_AHEAD_FD_SHIFT != word_of(grant) >> FV_AHEAD_FD_SHIFT)
        bytes = 0; /* not by our guest kernel */
    io_habit_learn(&grant->file->sight.sends, bytes);
    if (!bytes)
        return false;
    atomic_fetch_add(&all->gathered, 1);
    transmit(all, grant->file, ahead->sends->data + offset, bytes);
    return true;
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
        if (ahead->grants[i].sends)
            (void)io_sends_flush(all, ahead, i, !late);
    }
    ahead->late |= late;
    ahead->idle_ticks = 0;
    atomic_fetch_add(&all->late, late);
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
    if (*idle < NOBODYS_TICKS)
        return true;
    *idle = 0;
    atomic_store(&all->ticking, false);
    /* Either we see what was granted before this, or its granter sees that nobody ticks. */
    return aheads_tick(io) && !atomic_exchange(&all->ticking, true);
}

/* A host that lets sockets hold less unsent than that is left alone (TCP_NOTSENT_LOWAT). */
static bool host_has_room(void)
{
    unsigned long least = 0;
    FILE *file = fopen("/proc/sys/net/ipv4/tcp_notsent_lowat", "re");
    bool known = file && fscanf(file, "%lu", &least) == 1;

    if (file)
        fclose(file);
    return known && least >= QUEUE_ROOM;
}

void hostio_tick_by(struct hostio *io, int fd)
{
    io->aheads.tick_fd = fd;
    atomic_store(&io->aheads.gathers, fd >= 0 && host_has_room());
}
