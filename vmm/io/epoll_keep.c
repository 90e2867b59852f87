/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events that the host told us and the program cannot be told, for its buffer was unmapped while it
 * slept. Linux keeps them ready. Those of a level are so by themselves; an edge, or what is told
 * once (EPOLLONESHOT), is armed anew: the host looks whether it is still so.
 *
 * Which descriptors they are about only the host knows: /proc/self/fdinfo lists a set's descriptors
 * with events and data words. Other descriptors of the same data word are told once more, if they
 * are ready, which a program has to expect. The set's `seek` is held from the look to the change,
 * and by whoever changes a registration: nothing newer is overwritten.
 */
#include "vmm/io/hostio_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/epoll.h>

#define PATH_BYTES 64
/* What EPOLLONESHOT leaves of a mask. */
#define KEPT_BITS (EPOLLONESHOT | EPOLLET | EPOLLWAKEUP | EPOLLEXCLUSIVE)

static void arm(const struct io_file *set, int fd, uint32_t events, uint64_t data,
                const struct epoll_event *told, unsigned count)
{
    struct epoll_event event = {.data.u64 = data};
    uint32_t wanted = events & ~(uint32_t)KEPT_BITS;

    if (!(events & (EPOLLET | EPOLLONESHOT)))
        return;
    for (unsigned i = 0; i < count; i++) {
        if (told[i].data.u64 != data)
            continue;
        /* Once told, it tells of nothing but what it told of, and again only once. */
        event.events = wanted ? events : events | told[i].events;
        (void)epoll_ctl(set->fd, EPOLL_CTL_MOD, fd, &event);
        return;
    }
}

void io_epoll_keep(struct io_file *set, const struct epoll_event *told, unsigned count)
{
    char path[PATH_BYTES], line[256];
    FILE *info;

    pthread_mutex_lock(&set->seek);
    (void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", set->fd);
    info = fopen(path, "re");
    while (info && fgets(line, sizeof(line), info)) {
        uint32_t events;
        uint64_t data;
        int fd;

        if (sscanf(line, "tfd: %d events: %" SCNx32 " data: %" SCNx64, &fd, &events, &data) == 3)
            arm(set, fd, events, data, told, count);
    }
    if (info)
        (void)fclose(info);
    pthread_mutex_unlock(&set->seek);
}
