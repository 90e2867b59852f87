/* SPDX-License-Identifier: Apache-2.0 */
/*
 * epoll: a host epoll over the host descriptors that lie under the guest's. The program's data
 * words pass through untouched.
 */
#include "vmm/io/hostio_internal.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

/* Events told by one call; Linux may tell fewer than asked for, too. */
#define EVENTS_MAX 256

int64_t io_epoll_create(const struct io_call *call)
{
    int flags = call->number == SYS_epoll_create1 ? io_arg_int(call, 0) : 0;
    struct io_file *file;
    int fd;

    if (call->number == SYS_epoll_create && io_arg_int(call, 0) <= 0)
        return -EINVAL;
    fd = (int)IO_HOST1(SYS_epoll_create1, flags | EPOLL_CLOEXEC);
    if (fd < 0)
        return fd;
    file = io_file_create(fd, NULL);
    if (!file)
        return -ENOMEM;
    file->holds = io_signal_set_create();
    if (!file->holds) {
        io_file_put(file);
        return -ENOMEM;
    }
    return io_install_file(call->io, file, flags & EPOLL_CLOEXEC);
}

/* Of a signalfd there is a list beside the host's (signal_own.c), in which it happens in this
 * order. */
static int64_t registration_change(const struct io_call *call, struct io_file *set,
                                   struct io_file *file, int operation, struct epoll_event *event)
{
    int64_t result;

    if (file->signals || file->holds)
        pthread_rwlock_wrlock(&call->io->sets);
    else
        pthread_rwlock_rdlock(&call->io->sets);
    result = IO_HOST4(SYS_epoll_ctl, set->fd, operation, file->fd, event);
    if (!result && event->events & EPOLLONESHOT)
        atomic_store(&file->asked_once, set->serial << 32 | event->events);
    if (!result)
        result = io_signal_set_change(call, set, file, operation != EPOLL_CTL_DEL, event->events);
    if (result == -ENOMEM && operation == EPOLL_CTL_ADD && (file->signals || file->holds))
        (void)IO_HOST4(SYS_epoll_ctl, set->fd, EPOLL_CTL_DEL, file->fd, event);
    pthread_rwlock_unlock(&call->io->sets);
    return result;
}

int64_t io_epoll_ctl(const struct io_call *call)
{
    struct io_file *set = io_call_look(call);
    struct io_file *file = io_fds_get(&call->io->fds, io_arg_int(call, 2));
    struct epoll_event event = {0};
    int operation = io_arg_int(call, 1);
    int64_t result = set && file ? 0 : -EBADF;

    if (!result && operation != EPOLL_CTL_DEL)
        result = guestmem_read(call->vm, &event, call->args[3], sizeof(event));
    event.events &= ~(uint32_t)EPOLLWAKEUP;
    if (!result && set->signals) /* only the host's is a set */
        result = -EINVAL;
    if (!result && file->signals)
        event.events &= ~(uint32_t)EPOLLEXCLUSIVE; /* not possible with a set in a set */
    if (!result)
        result = registration_change(call, set, file, operation, &event);
    if (!result)
        io_ahead_watch(&call->io->aheads, set, file, io_arg_int(call, 2), operation, &event);
    if (set)
        io_call_put(call, set);
    if (file)
        io_file_put(file);
    return result;
}

/* Rounded up, as poll's; -1 for ever. */
static int timeout_ms(const struct timespec *timeout)
{
    int64_t ms;

    if (!timeout)
        return -1;
    if (timeout->tv_sec >= INT_MAX / 1000)
        return INT_MAX;
    ms = timeout->tv_sec * 1000 + (timeout->tv_nsec + 999999) / 1000000;
    return (int)ms;
}

/*
 * Events that there is room for where the program wants them, of `most`. An edge, or an event with
 * EPOLLONESHOT, is told once: what the host told us and the program cannot be told would be lost,
 * where Linux keeps it for the next call. So the host is asked for no more than that.
 */
static int events_room(const struct io_call *call, int most)
{
    size_t bytes = sizeof(struct epoll_event);
    int room = 0;

    if (mm_allows(call->vm->mm, call->args[1], (size_t)most * bytes, EPT_WRITE))
        return most;
    while (room < most &&
           mm_allows(call->vm->mm, call->args[1] + (size_t)room * bytes, bytes, EPT_WRITE))
        room++;
    return room;
}

/* There is room for none: EFAULT if there is an event, which stays ready. */
static int64_t epoll_fail(const struct io_call *call, const struct io_file *set,
                          const struct timespec *timeout)
{
    struct pollfd ready = {.fd = set->fd, .events = POLLIN};
    struct timespec left = timeout ? *timeout : (struct timespec){0};
    int64_t result;

    if (call->vcpu->at_once)
        return io_hand_back(call);
    result =
        vcpu_syscall(call->vcpu, SYS_ppoll, (long)&ready, 1, timeout ? (long)&left : 0, 0, 0, 0);
    return result > 0 ? -EFAULT : result;
}

/* What there is with the signals that wait for the calling thread alone (io/signal_own.c). */
static int64_t epoll_own(const struct io_call *call, const struct io_file *set,
                         struct epoll_event *events, int most)
{
    struct pollfd more = {.fd = set->fd, .events = POLLIN};
    int64_t result = 0;

    if (!io_own_begin(call))
        return 0;
    if (io_own_raise(call, set)) {
        result = IO_HOST4(SYS_epoll_wait, set->fd, events, most, 0);
        if (result > 0 && (result < most || poll(&more, 1, 0) == 0))
            io_own_told(call, set);
    }
    io_own_end(call);
    return result;
}

/*
 * NULL: waits for ever. precise: epoll_pwait2 was asked for, which not every container lets pass,
 * and the poller has no use for: it only asks whether there would be a wait.
 */
static int64_t epoll_run(const struct io_call *call, const struct timespec *timeout, bool precise)
{
    struct io_file *set = io_call_file(call);
    struct epoll_event events[EVENTS_MAX];
    int most = io_arg_int(call, 2), room;
    int64_t result = -EINVAL;

    if (!set)
        return -EBADF;
    if (most > EVENTS_MAX)
        most = EVENTS_MAX;
    if (set->signals)
        most = 0; /* a set on the host only */
    room = most > 0 ? events_room(call, most) : 0;
    if (call->vcpu->at_once && call->vcpu->handed_back) { /* not told where there is room */
        io_call_put(call, set);
        return -EINTR;
    }
    if (most > 0 && !room) {
        result = epoll_fail(call, set, timeout);
        io_call_put(call, set);
        return result;
    }
    most = room;
    if (most > 0)
        result = epoll_own(call, set, events, most);
    if (most > 0 && !result && precise && !call->vcpu->at_once)
        result = vcpu_syscall(call->vcpu, SYS_epoll_pwait2, set->fd, (long)events, most,
                              (long)timeout, 0, 0);
    else if (most > 0 && !result)
        result = vcpu_syscall(call->vcpu, SYS_epoll_pwait, set->fd, (long)events, most,
                              timeout_ms(timeout), 0, 0);
    io_commit(call); /* edges are told once */
    if (result > 0 &&
        guestmem_write(call->vm, call->args[1], events, (size_t)result * sizeof(events[0]))) {
        io_epoll_keep(call->io, set, events, (unsigned)result);
        result = -EFAULT;
    }
    if (result > 0)
        io_ahead_grant(&call->io->aheads, call->vcpu->caller ? call->vcpu->caller : call->vcpu, set,
                       events, (unsigned)result);
    io_call_put(call, set);
    return result;
}

static int64_t epoll_until(const struct io_call *call, const struct io_resume *wait)
{
    struct timespec left = io_time_left(wait->deadline_ns);
    struct io_call again = *call;

    again.args = wait->args;
    return epoll_run(&again, &left, wait->args[3]);
}

/*
 * An interruption that no handler comes of - a signal or timer of another thread's - must not begin
 * the time anew: with enough of them it would never be over.
 */
static int64_t epoll_within(const struct io_call *call, const struct timespec *timeout,
                            bool precise)
{
    struct io_resume wait = {.run = epoll_until,
                             .args = {call->args[0], call->args[1], call->args[2], precise},
                             .deadline_ns = io_deadline_ns(timeout)};

    return io_resumable_run(call, &wait);
}

int64_t io_epoll_wait(const struct io_call *call)
{
    int ms = io_arg_int(call, 3);
    struct timespec timeout = {ms / 1000, (long)(ms % 1000) * 1000000};

    if (ms < 0)
        return io_restart_nohand(epoll_run(call, NULL, false));
    return epoll_within(call, &timeout, false);
}

int64_t io_epoll_pwait2(const struct io_call *call)
{
    struct timespec timeout;
    int error;

    if (!call->args[3])
        return io_restart_nohand(epoll_run(call, NULL, true));
    error = guestmem_read(call->vm, &timeout, call->args[3], sizeof(timeout));
    if (error)
        return error;
    return io_timespec_valid(&timeout) ? epoll_within(call, &timeout, true) : -EINVAL;
}
