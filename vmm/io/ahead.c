/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking ahead: after an epoll_wait told that sockets are readable, what they hold is shown to the
 * guest kernel, which then answers the program's reads by itself, and may gather its sends
 * (io/sends.c). States: abi.h, fv_ahead and fv_sends.
 *
 * The bytes are looked at, not taken: the host kernel has them until the program has read them. So
 * whatever else looks at the socket sees the truth as soon as what was read has left the socket
 * too, and giving up a grant loses nothing. That happens in io_fds_get, which every request passes
 * that names the socket, or the epoll set it was told of by; and at the latest when the vCPU leaves
 * the guest. A grant begins only while nobody else uses socket or set: see `begin`.
 *
 * Threads that serve different sockets have areas and locks of their own.
 */
#include "vmm/io/ahead_internal.h"

#include "ept/ept.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define OPEN_TURNS 16u         /* epoll_waits that could have granted, before an area is made */
#define LOOKED_MAX 128u        /* files of one epoll_wait that are looked at */
#define GRANT_MAX  (16u << 10) /* bytes: a larger message is read by a request */
#define ROOM_MIN   256u        /* bytes: less is not worth a look */
#define DATA_ALIGN 64u

/* ---- ending ---- */

/* Bytes the program has read leave the socket. Nothing is written, and it does not wait. */
static void discard(const struct io_file *file, size_t bytes)
{
    static char nothing[1 << 16];

    while (bytes) {
        ssize_t n = recv(file->fd, nothing, bytes, MSG_TRUNC | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) /* a guest that lied about another thread's reading */
            return;
        bytes -= (size_t)n;
    }
}

static unsigned taken(const struct io_grant *grant, uint64_t word)
{
    unsigned bytes = word & FV_AHEAD_BYTES_MASK;

    if (word >> FV_AHEAD_FD_SHIFT != (uint64_t)grant->fd + 1)
        return grant->gone;
    if (bytes > grant->bytes)
        bytes = grant->bytes;
    return bytes > grant->gone ? bytes : grant->gone;
}

static void grant_settle(struct io_grant *grant, uint64_t word)
{
    unsigned bytes = taken(grant, word);

    if (bytes > grant->gone)
        discard(grant->file, bytes - grant->gone);
    grant->gone = (uint16_t)bytes;
}

static void grant_end(struct io_aheads *all, struct io_ahead *ahead, unsigned index)
{
    struct io_grant *grant = &ahead->grants[index];
    struct io_file *file = grant->file;

    /* From here on the guest takes no more of it. */
    grant_settle(grant, __atomic_exchange_n(&ahead->shared->grant[index], 0, __ATOMIC_ACQ_REL));
    if (grant->sends)
        (void)io_sends_flush(all, ahead, index, true);
    io_habit_learn(&file->sight.reads, grant->gone != 0);
    if (grant->gone)
        all->used++;
    grant->file = NULL;
    atomic_store(&file->sight.ahead, NULL);
    atomic_fetch_sub(&ahead->live, 1);
}

/* All of them: the set is used by somebody, or the vCPU waits anew. */
static void ahead_end(struct io_aheads *all, struct io_ahead *ahead)
{
    for (unsigned i = 0; i < ahead->count; i++) {
        if (ahead->grants[i].file)
            grant_end(all, ahead, i);
    }
    ahead->count = 0;
    ahead->data_bytes = 0;
    __atomic_store_n(&ahead->page->ahead_count, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&ahead->page->sends_count, 0, __ATOMIC_RELAXED);
    if (ahead->set) {
        if (ahead->gathers)
            io_habit_learn(&ahead->set->sight.sends, !ahead->late);
        atomic_store(&ahead->set->sight.ahead, NULL);
    }
    ahead->set = NULL;
}

/* The caller has a reference, so none begins anew: see `begin`. */
void io_ahead_revoke(struct io_aheads *all, struct io_file *file)
{
    struct io_ahead *ahead;

    while ((ahead = atomic_load(&file->sight.ahead))) {
        pthread_mutex_lock(&ahead->lock);
        if (ahead->set == file)
            ahead_end(all, ahead);
        else if (atomic_load(&file->sight.ahead) == ahead)
            grant_end(all, ahead, file->sight.index);
        pthread_mutex_unlock(&ahead->lock);
    }
}

int64_t io_ahead_error_received(struct io_file *file)
{
    int bytes = 0;

    if (!atomic_load(&file->sight.late_error) ||
        (file->stream && !ioctl(file->fd, FIONREAD, &bytes) && bytes > 0))
        return 0;
    return io_ahead_error(file);
}

void hostio_settle(struct vcpu *vcpu)
{
    struct io_aheads *all = &vcpu->vm->io->aheads;
    struct io_ahead *ahead = atomic_load(&all->list[vcpu->index]);

    if (!ahead ||
        (!atomic_load(&ahead->live) && !__atomic_load_n(&ahead->sends->used, __ATOMIC_RELAXED)))
        return;
    pthread_mutex_lock(&ahead->lock);
    for (unsigned i = 0; i < ahead->count; i++) {
        struct io_grant *grant = &ahead->grants[i];

        if (!grant->file)
            continue;
        grant_settle(grant, __atomic_load_n(&ahead->shared->grant[i], __ATOMIC_ACQUIRE));
        if (grant->sends)
            (void)io_sends_flush(all, ahead, i, false);
    }
    io_sends_rewind(ahead);
    pthread_mutex_unlock(&ahead->lock);
}

void hostio_end_sight(struct hostio *io)
{
    struct io_aheads *all = &io->aheads;

    pthread_mutex_lock(&all->lock); /* areas are made with it */
    atomic_store(&all->ended, true);
    pthread_mutex_unlock(&all->lock);
    for (unsigned i = 0; i < FV_VCPU_MAX; i++) {
        struct io_ahead *ahead = atomic_load(&all->list[i]);

        if (!ahead)
            continue;
        pthread_mutex_lock(&ahead->lock);
        ahead_end(all, ahead);
        pthread_mutex_unlock(&ahead->lock);
    }
}

/* ---- beginning ---- */

int io_ahead_open(struct io_aheads *all, uint32_t index, struct fv_ahead *shared,
                  struct fv_sends *sends, struct fv_vcpu *page)
{
    struct io_ahead *ahead = calloc(1, sizeof(*ahead));

    if (!ahead)
        return -ENOMEM;
    pthread_mutex_init(&ahead->lock, NULL);
    memset(shared, 0, sizeof(*shared));
    memset(sends, 0, sizeof(*sends));
    ahead->shared = shared;
    ahead->sends = sends;
    ahead->page = page;
    atomic_store(&all->list[index], ahead);
    return 0;
}

/* This vCPU's areas, once they are known to be of use. */
static void ahead_prepare(struct io_aheads *all, struct vcpu *vcpu)
{
    struct ept *ept = vcpu->vm->ept;
    gpa_t reads = FV_AHEAD_BASE + (gpa_t)vcpu->index * FV_AHEAD_STRIDE;
    gpa_t sends = FV_SENDS_BASE + (gpa_t)vcpu->index * FV_SENDS_STRIDE;

    pthread_mutex_lock(&all->lock);
    if (atomic_load(&all->ended) || atomic_load(&all->list[vcpu->index]) ||
        ++vcpu->ahead_turns < OPEN_TURNS || !ept)
        goto unlock;
    vcpu->ahead_turns = 0;
    if (!ept_map_kernel(ept, reads, FV_AHEAD_STRIDE, EPT_READ | EPT_WRITE, true) &&
        !ept_map_kernel(ept, sends, FV_SENDS_STRIDE, EPT_READ | EPT_WRITE, true))
        (void)io_ahead_open(all, vcpu->index, ept_hva(ept, reads), ept_hva(ept, sends), vcpu->page);
unlock:
    pthread_mutex_unlock(&all->lock);
}

/*
 * Marks a file of which only the caller has a reference, besides the table of descriptors. Whoever
 * gets another one looks at the mark after it has it (io_fds_get), and we look at the references
 * after the mark is there: either we see that one, or it sees the mark and waits for the lock.
 * Closing takes a reference, makes the file `shared`, and only then gives references up: so a
 * grant's file is in the table, and two references are ours and the table's. What a call with a
 * reference of its own makes of the socket meanwhile is looked at after the references, too.
 */
static bool begin(struct io_ahead *ahead, struct io_file *file)
{
    struct io_ahead *none = NULL;

    if (atomic_load(&file->sight.shared) ||
        !atomic_compare_exchange_strong(&file->sight.ahead, &none, ahead))
        return false;
    if (atomic_load(&file->references) == 2 && !atomic_load(&file->sight.shared) &&
        !atomic_load(&file->sight.odd) && !atomic_load(&file->patient))
        return true;
    atomic_store(&file->sight.ahead, NULL);
    return false;
}

static void grant_publish(struct io_aheads *all, struct io_ahead *ahead, struct io_file *file,
                          int fd, size_t bytes)
{
    unsigned index = ahead->count++;

    ahead->grants[index] = (struct io_grant){.file = file, .fd = fd, .bytes = (uint16_t)bytes};
    ahead->shared->offset[index] = (uint16_t)ahead->data_bytes;
    file->sight.index = index;
    ahead->data_bytes += (uint32_t)((bytes + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN);
    atomic_fetch_add(&ahead->live, 1);
    io_sends_begin(all, ahead, index);
    __atomic_store_n(&ahead->shared->grant[index],
                     ((uint64_t)fd + 1) << FV_AHEAD_FD_SHIFT | (uint64_t)bytes
                                                                   << FV_AHEAD_BYTES_SHIFT,
                     __ATOMIC_RELEASE);
}

/*
 * Looks. Only if that is all there is may a read end with it: a short count tells a program that
 * nothing more will come without another event.
 */
static bool look(struct io_aheads *all, struct io_ahead *ahead, struct io_file *file, int fd)
{
    size_t room = FV_AHEAD_DATA - ahead->data_bytes;
    ssize_t n;

    if (room > GRANT_MAX)
        room = GRANT_MAX;
    n = recv(file->fd, ahead->shared->data + ahead->data_bytes, room, MSG_PEEK | MSG_DONTWAIT);
    if (n > 0 && (size_t)n < room) {
        grant_publish(all, ahead, file, fd, (size_t)n);
        return true;
    }
    if (n < 0 && errno != EAGAIN && errno != EINTR && errno != ENOTCONN) /* it is told once */
        atomic_store(&file->sight.late_error, errno);
    io_habit_learn(&file->sight.reads, false);
    return false;
}

/* Files that were looked at, to be put without the lock: the last reference closes, and that may
 * wait. */
struct looked {
    struct io_file *files[LOOKED_MAX];
    unsigned count;
};

/* One event. Returns whether its socket could have had a grant. */
static bool event_grant(struct io_aheads *all, struct io_ahead *ahead, struct io_file *set,
                        const struct epoll_event *event, struct looked *looked)
{
    bool eligible;
    int fd;
    struct io_file *file = io_watch_find(all, set, event, &fd, &eligible);

    if (!file)
        return false;
    looked->files[looked->count++] = file;
    if (!eligible || !ahead || io_habit_skips(&file->sight.reads) || !begin(ahead, file))
        return eligible;
    /* Since the mark is there nobody moves it to another set unseen; before, somebody might have.
     */
    if (atomic_load(&file->sight.watch_set) != set->sight.set_id || !look(all, ahead, file, fd))
        atomic_store(&file->sight.ahead, NULL);
    return true;
}

static bool has_room(const struct io_ahead *ahead)
{
    return ahead->count < FV_AHEAD_GRANTS && ahead->data_bytes + ROOM_MIN <= FV_AHEAD_DATA;
}

/* With the area's lock. */
static void events_grant(struct io_aheads *all, struct io_ahead *ahead, struct io_file *set,
                         const struct epoll_event *events, unsigned count, struct looked *looked)
{
    ahead_end(all, ahead); /* another set's */
    io_sends_rewind(ahead);
    if (atomic_load(&all->ended) || !begin(ahead, set))
        return;
    ahead->set = set;
    ahead->late = false;
    ahead->gathers = !io_habit_skips(&set->sight.sends);
    for (unsigned i = 0; i < count && looked->count < LOOKED_MAX && has_room(ahead); i++)
        (void)event_grant(all, ahead, set, &events[i], looked);
    all->shown += ahead->count;
    __atomic_store_n(&ahead->page->sends_count, atomic_load(&ahead->sending) ? ahead->count : 0,
                     __ATOMIC_RELEASE);
    __atomic_store_n(&ahead->page->ahead_count, ahead->count, __ATOMIC_RELEASE);
}

void io_ahead_grant(struct io_aheads *all, struct vcpu *vcpu, struct io_file *set,
                    const struct epoll_event *events, unsigned count)
{
    struct io_ahead *ahead = atomic_load(&all->list[vcpu->index]);
    struct looked looked = {.count = 0};
    bool any = false;

    if (!atomic_load(&set->sight.watches))
        return;
    if (ahead) {
        pthread_mutex_lock(&ahead->lock);
        events_grant(all, ahead, set, events, count, &looked);
        pthread_mutex_unlock(&ahead->lock);
        io_sends_tick_ask(all, ahead);
    } else {
        for (unsigned i = 0; i < count && looked.count < LOOKED_MAX && !any; i++)
            any = event_grant(all, NULL, set, &events[i], &looked);
        if (any)
            ahead_prepare(all, vcpu);
    }
    while (looked.count)
        io_file_put(looked.files[--looked.count]);
}

/* ---- life ---- */

void io_aheads_create(struct io_aheads *all, struct io_fds *fds)
{
    pthread_mutex_init(&all->lock, NULL);
    all->tick_fd = -1;
    all->fds = fds;
    fds->aheads = all;
}

void io_aheads_destroy(struct io_aheads *all)
{
    for (unsigned i = 0; i < FV_VCPU_MAX; i++) {
        struct io_ahead *ahead = atomic_load(&all->list[i]);

        if (!ahead)
            continue;
        pthread_mutex_destroy(&ahead->lock);
        free(ahead);
    }
    pthread_mutex_destroy(&all->lock);
}

void hostio_sight_counters(struct hostio *io, struct sight_counters *out)
{
    const struct io_aheads *all = &io->aheads;

    *out = (struct sight_counters){.shown = atomic_load(&all->shown),
                                   .used = atomic_load(&all->used),
                                   .gathered = atomic_load(&all->gathered),
                                   .late = atomic_load(&all->late)};
}
