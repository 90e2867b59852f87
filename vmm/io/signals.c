/* SPDX-License-Identifier: Apache-2.0 */
/*
 * signalfd, this side: descriptors with a mask, that poll, select and epoll find readable when the
 * guest kernel says so (guest-os/signal_fd.c has states and races). Reading one is its work, too.
 *
 * Under each lies a host epoll with one eventfd in it. Like a signalfd it is never writable, cannot
 * be read or written, and goes into other sets; and each write to the eventfd is an edge for them.
 */
#include "vmm/io/hostio_internal.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct io_signal_fd *io_signal_share(struct io_signal_fd *one)
{
    if (one) {
        pthread_mutex_lock(&one->of->lock);
        one->references++;
        pthread_mutex_unlock(&one->of->lock);
    }
    return one;
}

void io_signal_put(struct io_signal_fd *one)
{
    struct io_signal_fd **at;
    bool last;

    if (!one)
        return;
    pthread_mutex_lock(&one->of->lock);
    last = !--one->references;
    for (at = &one->of->list; last && *at != one;)
        at = &(*at)->next;
    if (last)
        *at = one->next;
    pthread_mutex_unlock(&one->of->lock);
    if (!last)
        return;
    close(one->event_fd);
    free(one);
}

/* The eventfd's reader. Host descriptor, or -errno. */
static int set_create(int event_fd, bool nonblock)
{
    struct epoll_event event = {.events = EPOLLIN};
    int fd = epoll_create1(EPOLL_CLOEXEC);

    if (fd < 0)
        return -errno;
    if (epoll_ctl(fd, EPOLL_CTL_ADD, event_fd, &event) ||
        (nonblock && fcntl(fd, F_SETFL, O_NONBLOCK))) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

static void list_add(struct io_signals *signals, struct io_signal_fd *one)
{
    pthread_mutex_lock(&signals->lock);
    one->of = signals;
    one->references = 1;
    one->serial = ++signals->serial;
    one->next = signals->list;
    signals->list = one;
    pthread_mutex_unlock(&signals->lock);
}

static int64_t signal_make(struct hostio *io, uint64_t mask, uint32_t flags)
{
    struct io_signal_fd *one = calloc(1, sizeof(*one));
    struct io_file *file;
    int fd, error = -ENOMEM;

    if (!one)
        return -ENOMEM;
    one->mask = mask;
    one->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (one->event_fd < 0) {
        error = -errno;
        goto free_one;
    }
    fd = set_create(one->event_fd, flags & SFD_NONBLOCK);
    if (fd < 0) {
        error = fd;
        goto close_event;
    }
    file = io_file_create(fd, NULL);
    if (!file)
        goto close_event;
    list_add(&io->signals, one);
    file->signals = one;
    return io_install_file(io, file, flags & SFD_CLOEXEC);
close_event:
    close(one->event_fd);
free_one:
    free(one);
    return error;
}

static int64_t signal_change(struct hostio *io, int fd, uint64_t mask)
{
    struct io_file *file = io_fds_get(&io->fds, fd);
    int64_t result = file && file->signals ? fd : file ? -EINVAL : -EBADF;

    if (result >= 0) {
        pthread_mutex_lock(&io->signals.lock);
        file->signals->mask = mask;
        file->signals->changes++;
        pthread_mutex_unlock(&io->signals.lock);
    }
    if (file)
        io_file_put(file);
    return result;
}

static int64_t signal_look(struct vcpu *vcpu, int fd, gpa_t to)
{
    struct hostio *io = vcpu->vm->io;
    struct io_file *file = io_fds_get(&io->fds, fd);
    struct fv_signalfd look = {0};
    int64_t result = file && file->signals ? 0 : -EBADF;

    if (!result) {
        pthread_mutex_lock(&io->signals.lock);
        look.mask = file->signals->mask;
        look.serial = file->signals->serial;
        pthread_mutex_unlock(&io->signals.lock);
        look.nonblock = (fcntl(file->fd, F_GETFL) & O_NONBLOCK) != 0;
    }
    if (file)
        io_file_put(file);
    return result ? result : guestmem_write(vcpu->vm, to, &look, sizeof(look));
}

static int64_t signal_mask(struct io_signals *signals, uint64_t serial)
{
    int64_t mask = -ENOENT;

    pthread_mutex_lock(&signals->lock);
    for (const struct io_signal_fd *one = signals->list; one; one = one->next) {
        if (one->serial == serial)
            mask = (int64_t)one->mask;
    }
    pthread_mutex_unlock(&signals->lock);
    return mask;
}

uint64_t io_signals_tell(struct io_signals *signals, uint64_t number, uint64_t waits, uint64_t came)
{
    uint64_t masks = 0, seen;
    bool late;

    pthread_mutex_lock(&signals->lock);
    late = number < signals->told;
    if (!late)
        signals->told = number;
    for (struct io_signal_fd *one = signals->list; one; one = one->next) {
        bool up = late ? one->up : one->mask & waits;

        masks |= one->mask;
        if (up && (!one->up || (one->mask & waits & came)))
            (void)eventfd_write(one->event_fd, 1);
        else if (!up && one->up)
            (void)eventfd_read(one->event_fd, &seen);
        one->up = up;
    }
    pthread_mutex_unlock(&signals->lock);
    return masks;
}

int64_t hostio_signalfd(struct vcpu *vcpu, const uint64_t args[6])
{
    struct hostio *io = vcpu->vm->io;
    uint64_t mask = args[2] & ~(1ull << (SIGKILL - 1)); /* so it is no error, whoever asks */
    int fd = (int)args[1];

    switch (args[0]) {
    case FV_SIGNALFD_SET:
        return fd == -1 ? signal_make(io, mask, (uint32_t)args[3]) : signal_change(io, fd, mask);
    case FV_SIGNALFD_LOOK:
        return signal_look(vcpu, fd, args[2]);
    case FV_SIGNALFD_MASK:
        return signal_mask(&io->signals, args[1]);
    case FV_SIGNALFD_TELL:
        return (int64_t)io_signals_tell(&io->signals, args[1], args[2], args[3]);
    default:
        return -EINVAL;
    }
}
