/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events that the host told us and the program cannot be told, for its buffer was unmapped while it
 * slept. Linux keeps them ready. Those of a level are so by themselves; an edge, or what is told
 * once (EPOLLONESHOT), is armed anew: the host looks whether it is still so.
 *
 * Which descriptors they are about only the host knows: /proc/self/fdinfo lists a set's descriptors
 * with events and data words. Other descriptors of the same data word are told once more, if they
 * are ready, which a program has to expect. Who changes a registration holds hostio.sets for
 * reading, and here it is held from the look to the change: nothing newer is overwritten.
 *
 * A number is listed twice if its file has another descriptor, so that it outlived the number,
 * which means another file now. It is that one's inode which tells the two apart, unless they have
 * none of their own (eventfds, say); the older registration can be reached by nobody, be it here or
 * by the program. What is lost so is said, once.
 */
#include "vmm/io/hostio_internal.h"

#include "support.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define PATH_BYTES 64
/* What EPOLLONESHOT leaves of a mask. */
#define KEPT_BITS (EPOLLONESHOT | EPOLLET | EPOLLWAKEUP | EPOLLEXCLUSIVE)

/* A registration. */
struct entry {
    int fd;
    uint32_t events;
    uint64_t data, inode;
    struct io_file *file; /* whose number it is now, with a reference: it keeps it until we did */
};

struct entries {
    struct entry *list;
    size_t count, room;
};

static int entry_add(struct entries *entries, const struct entry *entry)
{
    if (entries->count == entries->room) {
        size_t room = entries->room ? 2 * entries->room : 64;
        struct entry *list = realloc(entries->list, room * sizeof(*list));

        if (!list)
            return -ENOMEM;
        entries->list = list;
        entries->room = room;
    }
    entries->list[entries->count++] = *entry;
    return 0;
}

/* All of the set. 0 or -errno. */
static int entries_read(struct entries *entries, const struct io_file *set)
{
    char path[PATH_BYTES], line[256];
    int error = 0;
    FILE *info;

    (void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", set->fd);
    info = fopen(path, "re");
    if (!info)
        return -errno;
    while (!error && fgets(line, sizeof(line), info)) {
        struct entry entry = {0};

        if (sscanf(line, "tfd: %d events: %" SCNx32 " data: %" SCNx64 " pos:%*d ino:%" SCNx64,
                   &entry.fd, &entry.events, &entry.data, &entry.inode) == 4)
            error = entry_add(entries, &entry);
    }
    (void)fclose(info);
    return error;
}

/* Is it the registration of the number as it is now? */
static bool is_current(const struct entries *entries, const struct entry *entry)
{
    unsigned same_number = 0, same_file = 0;
    struct stat status;

    for (size_t i = 0; i < entries->count; i++) {
        if (entries->list[i].fd == entry->fd) {
            same_number++;
            same_file += entries->list[i].inode == entry->inode;
        }
    }
    /* Alone, it is either that or one that the host will not find. */
    return same_number == 1 ||
           (same_file == 1 && !fstat(entry->file->fd, &status) && status.st_ino == entry->inode);
}

/* Once told, the list has nothing of what the program asked for. */
static uint32_t events_asked(const struct io_file *set, const struct entry *entry,
                             const struct epoll_event *told)
{
    uint64_t asked = atomic_load(&entry->file->asked_once);

    if (entry->events & ~(uint32_t)KEPT_BITS)
        return entry->events;
    if (asked >> 32 == (uint32_t)set->serial)
        return (uint32_t)asked;
    return entry->events | told->events; /* asked for by two sets: what it told of, at least */
}

static void arm(const struct io_file *set, const struct entry *entry,
                const struct epoll_event *told)
{
    struct epoll_event event = {.events = events_asked(set, entry, told), .data.u64 = entry->data};

    if (!(entry->events & EPOLLEXCLUSIVE)) {
        (void)epoll_ctl(set->fd, EPOLL_CTL_MOD, entry->fd, &event);
        return;
    }
    /* Those cannot be changed. */
    if (!epoll_ctl(set->fd, EPOLL_CTL_DEL, entry->fd, NULL))
        (void)epoll_ctl(set->fd, EPOLL_CTL_ADD, entry->fd, &event);
}

static const struct epoll_event *told_of(const struct entry *entry, const struct epoll_event *told,
                                         unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (told[i].data.u64 == entry->data)
            return &told[i];
    }
    return NULL;
}

/* Returns whether all could be. */
static bool entries_arm(struct io_fds *fds, const struct io_file *set, struct entries *entries,
                        const struct epoll_event *told, unsigned count)
{
    bool all = true;

    for (size_t i = 0; i < entries->count; i++) {
        struct entry *entry = &entries->list[i];
        const struct epoll_event *event = told_of(entry, told, count);

        if (!event || !(entry->events & (EPOLLET | EPOLLONESHOT)))
            continue;
        entry->file = io_fds_of_host(fds, entry->fd);
        if (entry->file && is_current(entries, entry))
            arm(set, entry, event);
        else
            all = false;
    }
    return all;
}

void io_epoll_keep(struct hostio *io, struct io_file *set, const struct epoll_event *told,
                   unsigned count)
{
    struct entries entries = {0};
    int error;

    pthread_rwlock_wrlock(&io->sets);
    error = entries_read(&entries, set);
    if (!entries_arm(&io->fds, set, &entries, told, count) && !error)
        error = -ESTALE;
    pthread_rwlock_unlock(&io->sets);
    if (error && !atomic_exchange(&io->keep_warned, true))
        message_warning("epoll: events that could not be told are lost: %s", strerror(-error));
    for (size_t i = 0; i < entries.count; i++) { /* the last reference closes, and that may wait */
        if (entries.list[i].file)
            io_file_put(entries.list[i].file);
    }
    free(entries.list);
}
