/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking ahead: after an epoll_wait told that sockets are readable, what they hold is shown to the
 * guest kernel, which then answers the program's reads by itself (abi.h, fv_ahead: the states).
 *
 * The bytes are looked at, not taken: the host kernel has them until the program has read them. So
 * whatever else looks at the socket sees the truth as soon as what was read has left the socket
 * too, and giving up a grant loses nothing. That happens in io_fds_get, which every request passes
 * that names the socket, or the epoll set it was told of by; and at the latest when the vCPU leaves
 * the guest. A grant begins only while nobody else uses socket or set: see `begin`.
 *
 * Which descriptor an event is about is guessed from its data word, and checked.
 */
#include "vmm/hostio_internal.h"

#include "ept/ept.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define OPEN_TURNS   16u         /* epoll_waits that could have granted, before an area is made */
#define LOOKED_MAX   128u        /* files of one epoll_wait that are looked at */
#define GRANT_MAX    (16u << 10) /* bytes: a larger message is read by a request */
#define ROOM_MIN     256u        /* bytes: less is not worth a look */
#define DATA_ALIGN   64u
#define PENALTY_MAX  63u /* events that a socket whose grants are of no use goes without one */
#define WATCHES      1024u
#define EVENTS_QUIET (EPOLLERR | EPOLLHUP | EPOLLRDHUP | EPOLLPRI)

/* Events of a set with this data word are about that descriptor: a guess, others may have it too.
 */
struct io_watch {
    uint64_t data;
    int fd;
};

/* The VMM's own copy of a grant: what the guest writes decides only how much it took of it. */
struct grant {
    struct io_file *file; /* NULL: ended. It has no reference: closing the file ends the grant */
    int fd;
    uint16_t bytes;
    uint16_t gone; /* taken, and out of the socket */
};

/* What one vCPU was shown. Under io_aheads.lock. */
struct io_ahead {
    struct fv_ahead *shared;
    uint32_t *shown; /* fv_vcpu.ahead_count */
    struct io_file *set;
    struct grant grants[FV_AHEAD_GRANTS];
    unsigned count;
    uint32_t data_bytes; /* of shared->data in use */
    atomic_uint live;
};

static unsigned watch_index(uint64_t data)
{
    return (unsigned)(data * 0x9e3779b97f4a7c15ull >> 54);
}
_Static_assert(WATCHES == 1u << (64 - 54), "watch_index");

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

static unsigned taken(const struct grant *grant, uint64_t word)
{
    unsigned bytes = word & FV_AHEAD_BYTES_MASK;

    if (word >> FV_AHEAD_FD_SHIFT != (uint64_t)grant->fd + 1)
        return grant->gone;
    if (bytes > grant->bytes)
        bytes = grant->bytes;
    return bytes > grant->gone ? bytes : grant->gone;
}

static void grant_settle(struct grant *grant, uint64_t word)
{
    unsigned bytes = taken(grant, word);

    if (bytes > grant->gone)
        discard(grant->file, bytes - grant->gone);
    grant->gone = (uint16_t)bytes;
}

/* Was it of use? A look costs a host call: after some in vain only now and then another is made. */
static void file_learn(struct io_file *file, bool used)
{
    if (used)
        file->sight.penalty = 0;
    else if (file->sight.penalty < PENALTY_MAX)
        file->sight.penalty = (uint8_t)(file->sight.penalty * 2 + 1);
    file->sight.skip = file->sight.penalty;
}

static void grant_end(struct io_aheads *all, struct io_ahead *ahead, unsigned index)
{
    struct grant *grant = &ahead->grants[index];
    struct io_file *file = grant->file;

    /* From here on the guest takes no more of it. */
    grant_settle(grant, __atomic_exchange_n(&ahead->shared->grant[index], 0, __ATOMIC_ACQ_REL));
    file_learn(file, grant->gone != 0);
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
    __atomic_store_n(ahead->shown, 0, __ATOMIC_RELAXED);
    if (ahead->set)
        atomic_store(&ahead->set->sight.ahead, NULL);
    ahead->set = NULL;
}

void io_ahead_revoke(struct io_aheads *all, struct io_file *file)
{
    struct io_ahead *ahead;

    pthread_mutex_lock(&all->lock);
    ahead = atomic_load(&file->sight.ahead);
    if (ahead && ahead->set == file)
        ahead_end(all, ahead);
    else if (ahead)
        grant_end(all, ahead, file->sight.index);
    pthread_mutex_unlock(&all->lock);
}

void hostio_settle(struct vcpu *vcpu)
{
    struct io_aheads *all = &vcpu->vm->io->aheads;
    struct io_ahead *ahead = atomic_load(&all->list[vcpu->index]);

    if (!ahead || !atomic_load(&ahead->live))
        return;
    pthread_mutex_lock(&all->lock);
    for (unsigned i = 0; i < ahead->count; i++) {
        if (ahead->grants[i].file)
            grant_settle(&ahead->grants[i],
                         __atomic_load_n(&ahead->shared->grant[i], __ATOMIC_ACQUIRE));
    }
    pthread_mutex_unlock(&all->lock);
}

void hostio_end_sight(struct hostio *io)
{
    struct io_aheads *all = &io->aheads;

    pthread_mutex_lock(&all->lock);
    for (unsigned i = 0; i < FV_VCPU_MAX; i++) {
        struct io_ahead *ahead = atomic_load(&all->list[i]);

        if (ahead)
            ahead_end(all, ahead);
    }
    all->ended = true;
    pthread_mutex_unlock(&all->lock);
}

/* ---- beginning ---- */

int io_ahead_open(struct io_aheads *all, uint32_t index, struct fv_ahead *shared, uint32_t *shown)
{
    struct io_ahead *ahead = calloc(1, sizeof(*ahead));

    if (!ahead)
        return -ENOMEM;
    memset(shared, 0, sizeof(*shared));
    ahead->shared = shared;
    ahead->shown = shown;
    atomic_store(&all->list[index], ahead);
    return 0;
}

/* This vCPU's, once it is known to profit. NULL: not yet, or not at all. */
static struct io_ahead *ahead_get(struct io_aheads *all, struct vcpu *vcpu)
{
    struct io_ahead *ahead = atomic_load(&all->list[vcpu->index]);
    gpa_t gpa = FV_AHEAD_BASE + (gpa_t)vcpu->index * FV_AHEAD_STRIDE;

    if (ahead || ++vcpu->ahead_turns < OPEN_TURNS || !vcpu->vm->ept)
        return ahead;
    vcpu->ahead_turns = 0;
    if (ept_map_kernel(vcpu->vm->ept, gpa, FV_AHEAD_STRIDE, EPT_READ | EPT_WRITE, true) ||
        io_ahead_open(all, vcpu->index, ept_hva(vcpu->vm->ept, gpa), &vcpu->page->ahead_count))
        return NULL;
    return atomic_load(&all->list[vcpu->index]);
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
    if (atomic_load(&file->sight.shared))
        return false;
    atomic_store(&file->sight.ahead, ahead);
    if (atomic_load(&file->references) == 2 && !atomic_load(&file->sight.shared) &&
        !atomic_load(&file->sight.odd) && !atomic_load(&file->patient))
        return true;
    atomic_store(&file->sight.ahead, NULL);
    return false;
}

/* Is it worth a look? */
static bool is_eligible(struct io_file *file, const struct io_file *set, uint64_t data)
{
    if (!atomic_load(&file->sight.own) || atomic_load(&file->sight.odd) ||
        atomic_load(&file->patient) || atomic_load(&file->sight.ahead))
        return false;
    return file->sight.watch_set == set->sight.set_id && file->sight.watch_data == data;
}

static void grant_publish(struct io_ahead *ahead, struct io_file *file, int fd, size_t bytes)
{
    unsigned index = ahead->count++;

    ahead->grants[index] = (struct grant){.file = file, .fd = fd, .bytes = (uint16_t)bytes};
    ahead->shared->offset[index] = (uint16_t)ahead->data_bytes;
    file->sight.index = index;
    ahead->data_bytes += (uint32_t)((bytes + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN);
    atomic_fetch_add(&ahead->live, 1);
    __atomic_store_n(&ahead->shared->grant[index],
                     ((uint64_t)fd + 1) << FV_AHEAD_FD_SHIFT | (uint64_t)bytes
                                                                   << FV_AHEAD_BYTES_SHIFT,
                     __ATOMIC_RELEASE);
}

/*
 * Looks. Only if that is all there is may a read end with it: a short count tells a program that
 * nothing more will come without another event.
 */
static bool look(struct io_ahead *ahead, struct io_file *file, int fd)
{
    size_t room = FV_AHEAD_DATA - ahead->data_bytes;
    ssize_t n;

    if (room > GRANT_MAX)
        room = GRANT_MAX;
    n = recv(file->fd, ahead->shared->data + ahead->data_bytes, room, MSG_PEEK | MSG_DONTWAIT);
    if (n > 0 && (size_t)n < room) {
        grant_publish(ahead, file, fd, (size_t)n);
        return true;
    }
    if (n < 0 && errno != EAGAIN && errno != EINTR && errno != ENOTCONN) /* it is told once */
        atomic_store(&file->sight.late_error, errno);
    file_learn(file, false);
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
    const struct io_watch *watch = &set->sight.watches[watch_index(event->data.u64)];
    struct io_file *file;
    bool eligible;

    if (!(event->events & EPOLLIN) || event->events & EVENTS_QUIET ||
        watch->data != event->data.u64 || watch->fd < 0)
        return false;
    file = io_fds_look(all->fds, watch->fd);
    if (!file)
        return false;
    looked->files[looked->count++] = file;
    eligible = is_eligible(file, set, event->data.u64);
    if (eligible && file->sight.skip)
        file->sight.skip--;
    else if (eligible && ahead && begin(ahead, file) && !look(ahead, file, watch->fd))
        atomic_store(&file->sight.ahead, NULL);
    return eligible;
}

static bool has_room(const struct io_ahead *ahead)
{
    return ahead->count < FV_AHEAD_GRANTS && ahead->data_bytes + ROOM_MIN <= FV_AHEAD_DATA;
}

void io_ahead_grant(struct io_aheads *all, struct vcpu *vcpu, struct io_file *set,
                    const struct epoll_event *events, unsigned count)
{
    struct io_ahead *ahead = atomic_load(&all->list[vcpu->index]);
    struct looked looked;
    bool any = false;

    looked.count = 0;
    if (!atomic_load(&set->sight.watches))
        return;
    pthread_mutex_lock(&all->lock);
    if (ahead)
        ahead_end(all, ahead); /* another set's */
    if (all->ended || (ahead && !begin(ahead, set)))
        goto unlock;
    if (ahead)
        ahead->set = set;
    for (unsigned i = 0; i < count && looked.count < LOOKED_MAX; i++) {
        if (ahead ? !has_room(ahead) : any)
            break;
        any |= event_grant(all, ahead, set, &events[i], &looked);
    }
    if (ahead) {
        all->shown += ahead->count;
        __atomic_store_n(ahead->shown, ahead->count, __ATOMIC_RELEASE);
    } else if (any) {
        (void)ahead_get(all, vcpu);
    }
unlock:
    pthread_mutex_unlock(&all->lock);
    while (looked.count)
        io_file_put(looked.files[--looked.count]);
}

/* ---- what is watched ---- */

static struct io_watch *watches_make(struct io_aheads *all, struct io_file *set)
{
    struct io_watch *watches = malloc(WATCHES * sizeof(*watches));

    for (unsigned i = 0; watches && i < WATCHES; i++)
        watches[i] = (struct io_watch){.fd = -1};
    set->sight.set_id = ++all->sets;
    atomic_store(&set->sight.watches, watches);
    return watches;
}

void io_ahead_watch(struct io_aheads *all, struct io_file *set, struct io_file *file, int fd,
                    int operation, const struct epoll_event *event)
{
    struct io_watch *watches;

    if (!file->type) /* a set within a set is looked at by those who do not name it */
        atomic_store(&file->sight.shared, true);
    if (!file->stream || !io_is_inet(file)) /* before it is connected, too: is_eligible asks */
        return;
    pthread_mutex_lock(&all->lock);
    watches = atomic_load(&set->sight.watches);
    if (!watches)
        watches = watches_make(all, set);
    if (operation == EPOLL_CTL_DEL || !watches) {
        file->sight.watch_set = 0;
        goto unlock;
    }
    if (file->sight.watch_set && file->sight.watch_set != set->sight.set_id) /* told of by two */
        atomic_store(&file->sight.shared, true);
    file->sight.watch_set = set->sight.set_id;
    file->sight.watch_data = event->data.u64;
    watches[watch_index(event->data.u64)] = (struct io_watch){event->data.u64, fd};
unlock:
    pthread_mutex_unlock(&all->lock);
}

/* ---- life ---- */

void io_aheads_create(struct io_aheads *all, struct io_fds *fds)
{
    pthread_mutex_init(&all->lock, NULL);
    all->fds = fds;
    fds->aheads = all;
}

void io_aheads_destroy(struct io_aheads *all)
{
    for (unsigned i = 0; i < FV_VCPU_MAX; i++)
        free(atomic_load(&all->list[i]));
    pthread_mutex_destroy(&all->lock);
}

void hostio_sight_counters(struct hostio *io, uint64_t *shown, uint64_t *used)
{
    *shown = atomic_load(&io->aheads.shown);
    *used = atomic_load(&io->aheads.used);
}
