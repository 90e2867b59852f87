/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which descriptor an event of an epoll set is about. It is guessed from its data word, as the
 * program gave it to epoll_ctl, and checked: the file remembers its word and its set.
 */
#include "vmm/io/ahead_internal.h"

#include <stdlib.h>
#include <sys/epoll.h>

#define WATCHES      1024u
#define EVENTS_QUIET (EPOLLERR | EPOLLHUP | EPOLLRDHUP | EPOLLPRI)

static unsigned watch_index(uint64_t data)
{
    return (unsigned)(data * 0x9e3779b97f4a7c15ull >> 54);
}
_Static_assert(WATCHES == 1u << (64 - 54), "watch_index");

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
    uint64_t before;

    if (!file->type) /* a set within a set is looked at by those who do not name it */
        atomic_store(&file->sight.shared, true);
    if (!file->stream || !io_is_inet(file)) /* before it is connected, too: is_eligible asks */
        return;
    pthread_mutex_lock(&all->lock);
    watches = atomic_load(&set->sight.watches);
    if (!watches)
        watches = watches_make(all, set);
    if (operation == EPOLL_CTL_DEL || !watches) {
        atomic_store(&file->sight.watch_set, 0);
        goto unlock;
    }
    before = atomic_load(&file->sight.watch_set);
    if (before && before != set->sight.set_id) /* told of by two */
        atomic_store(&file->sight.shared, true);
    atomic_store(&file->sight.watch_set, set->sight.set_id);
    atomic_store(&file->sight.watch_data, event->data.u64);
    watches[watch_index(event->data.u64)] = (struct io_watch){event->data.u64, fd};
unlock:
    pthread_mutex_unlock(&all->lock);
}

static bool is_eligible(struct io_file *file, const struct io_file *set, uint64_t data)
{
    if (!atomic_load(&file->sight.own) || atomic_load(&file->sight.odd) ||
        atomic_load(&file->patient) || atomic_load(&file->sight.ahead))
        return false;
    return atomic_load(&file->sight.watch_set) == set->sight.set_id &&
           atomic_load(&file->sight.watch_data) == data;
}

struct io_file *io_watch_find(struct io_aheads *all, const struct io_file *set,
                              const struct epoll_event *event, int *fd, bool *eligible)
{
    struct io_file *file = NULL;
    struct io_watch watch;

    *eligible = false;
    if (!(event->events & EPOLLIN) || event->events & EVENTS_QUIET)
        return NULL;
    pthread_mutex_lock(&all->lock);
    watch = atomic_load(&set->sight.watches)[watch_index(event->data.u64)];
    if (watch.data == event->data.u64 && watch.fd >= 0)
        file = io_fds_look(all->fds, watch.fd);
    pthread_mutex_unlock(&all->lock);
    *fd = watch.fd;
    *eligible = file && is_eligible(file, set, event->data.u64);
    return file;
}
