/* SPDX-License-Identifier: Apache-2.0 */
/*
 * signalfd: signals that wait for one thread alone. Only that thread may find a descriptor readable
 * for them, but a host descriptor is readable for all. So nobody sees them there, but for the
 * moment in which a thread that has some polls: what it looks at is raised, looked at without
 * waiting, and lowered again, under one lock. If nothing was found it waits; a signal that comes
 * for it then ends its wait with a kick, and it is looked at anew.
 *
 * Races:
 *  - Another thread waits for the same descriptor and looks in that moment. poll and select check
 *    what they were told (io_own_is_readable). epoll_wait cannot, for it does not know of which
 *    descriptor it was told: it may tell of a signal that is not this thread's to read.
 *  - An edge is told once, as each raising would be one: the set keeps of whom it was told last.
 *
 * Which signalfds are in a set is kept here; of a set in a set it is only known that there is one,
 * and then all are raised.
 */
#include "vmm/io/hostio_internal.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

/* A registration. Guarded by io_signals.lock, as the sets' lists are. */
struct entry {
    uint64_t file, signals; /* serial numbers: of the file, and of what it shares with duplicates */
    bool edge;
    uint32_t told_index, told_came; /* the vCPU it was told for last, and how many had come there */
    uint32_t told_changes;          /* and the mask's changes */
    bool told;
};

/* Of an epoll set and its duplicates. */
struct io_signal_set {
    atomic_uint references;
    bool nested; /* there is, or was, a set in it */
    unsigned count, room;
    struct entry *list;
};

struct io_signal_set *io_signal_set_create(void)
{
    struct io_signal_set *set = calloc(1, sizeof(*set));

    if (set)
        atomic_store(&set->references, 1);
    return set;
}

struct io_signal_set *io_signal_set_share(struct io_signal_set *set)
{
    if (set)
        atomic_fetch_add(&set->references, 1);
    return set;
}

void io_signal_set_put(struct io_signal_set *set)
{
    if (!set || atomic_fetch_sub(&set->references, 1) != 1)
        return;
    free(set->list);
    free(set);
}

static const struct vcpu *caller(const struct io_call *call)
{
    return call->vcpu->caller ? call->vcpu->caller : call->vcpu;
}

static uint64_t own_signals(const struct io_call *call)
{
    return __atomic_load_n(&caller(call)->page->own_signals, __ATOMIC_RELAXED);
}

static struct io_signal_fd *find(struct io_signals *signals, uint64_t serial)
{
    struct io_signal_fd *one = signals->list;

    while (one && one->serial != serial)
        one = one->next;
    return one;
}

/* Those that are closed are forgotten when there is no room. */
static int entry_add(struct io_signals *signals, struct io_signal_set *set, struct entry entry)
{
    unsigned kept = 0;

    for (unsigned i = 0; set->count == set->room && i < set->count; i++) {
        if (find(signals, set->list[i].signals))
            set->list[kept++] = set->list[i];
    }
    if (set->count == set->room) {
        unsigned room = 2 * kept + 4;
        struct entry *list = realloc(set->list, room * sizeof(*list));

        set->count = kept;
        if (!list)
            return -ENOMEM;
        set->list = list;
        set->room = room;
    }
    set->list[set->count++] = entry;
    return 0;
}

static void entry_remove(struct io_signal_set *set, uint64_t file)
{
    for (unsigned i = 0; i < set->count; i++) {
        if (set->list[i].file == file) {
            set->list[i] = set->list[--set->count];
            return;
        }
    }
}

int io_signal_set_change(const struct io_call *call, struct io_file *set,
                         const struct io_file *file, bool there, uint32_t events)
{
    struct io_signals *signals = &call->io->signals;
    int error = 0;

    if (!set->holds || !(file->signals || file->holds))
        return 0;
    pthread_mutex_lock(&signals->lock);
    if (file->holds) {
        set->holds->nested |= there;
    } else {
        entry_remove(set->holds, file->serial);
        if (there)
            error = entry_add(signals, set->holds,
                              (struct entry){.file = file->serial,
                                             .signals = file->signals->serial,
                                             .edge = events & EPOLLET});
    }
    pthread_mutex_unlock(&signals->lock);
    return error;
}

/* ---- raising and lowering; io_signals.lock held from begin to end ---- */

bool io_own_begin(const struct io_call *call)
{
    if (!own_signals(call))
        return false;
    pthread_mutex_lock(&call->io->signals.lock);
    return true;
}

static bool raise_one(struct io_signal_fd *one, uint64_t own, bool edge)
{
    if (!(one->mask & own))
        return false;
    if (!one->raised && (!one->up || edge))
        one->raised = !eventfd_write(one->event_fd, 1);
    return true;
}

/* Was this edge told to this thread, and none has come for it since? */
static bool entry_was_told(const struct entry *entry, const struct io_signal_fd *one,
                           const struct vcpu *vcpu)
{
    return entry->told && entry->told_index == vcpu->index &&
           entry->told_came == vcpu->page->own_came && entry->told_changes == one->changes;
}

bool io_own_raise(const struct io_call *call, const struct io_file *file)
{
    uint64_t own = own_signals(call);
    struct io_signals *signals = &call->io->signals;
    const struct io_signal_set *set = file->holds;
    bool any = false;

    if (file->signals)
        return raise_one(file->signals, own, false);
    for (unsigned i = 0; set && i < set->count; i++) {
        const struct entry *entry = &set->list[i];
        struct io_signal_fd *one = find(signals, entry->signals);

        if (one && !(entry->edge && entry_was_told(entry, one, caller(call))))
            any |= raise_one(one, own, entry->edge);
    }
    for (struct io_signal_fd *one = signals->list; set && set->nested && one; one = one->next)
        any |= raise_one(one, own, false);
    return any;
}

void io_own_told(const struct io_call *call, const struct io_file *file)
{
    const struct io_signal_set *set = file->holds;

    for (unsigned i = 0; set && i < set->count; i++) {
        const struct io_signal_fd *one = find(&call->io->signals, set->list[i].signals);

        if (!one || !(one->mask & own_signals(call)))
            continue;
        set->list[i].told = true;
        set->list[i].told_index = caller(call)->index;
        set->list[i].told_came = caller(call)->page->own_came;
        set->list[i].told_changes = one->changes;
    }
}

void io_own_end(const struct io_call *call)
{
    uint64_t seen;

    for (struct io_signal_fd *one = call->io->signals.list; one; one = one->next) {
        if (one->raised && !one->up)
            (void)eventfd_read(one->event_fd, &seen);
        one->raised = false;
    }
    pthread_mutex_unlock(&call->io->signals.lock);
}

bool io_own_is_readable(const struct io_call *call, const struct io_file *file)
{
    struct pollfd now = {.fd = file->fd, .events = POLLIN};
    bool readable;

    if (!file->signals && !file->holds)
        return true;
    pthread_mutex_lock(&call->io->signals.lock); /* nobody raises it */
    if (file->signals)
        readable = file->signals->up || (file->signals->mask & own_signals(call));
    else
        readable = poll(&now, 1, 0) > 0;
    pthread_mutex_unlock(&call->io->signals.lock);
    return readable;
}
