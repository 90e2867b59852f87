/* SPDX-License-Identifier: Apache-2.0 */
/*
 * epoll: a host epoll over the host descriptors that lie under the guest's. The program's data
 * words pass through untouched.
 */
#include "vmm/hostio_internal.h"

#include <sys/epoll.h>
#include <sys/syscall.h>

/* Events told by one call; Linux may tell fewer than asked for, too. */
#define EVENTS_MAX 256

int64_t io_epoll_create(const struct io_call *call)
{
    int flags = call->number == SYS_epoll_create1 ? io_arg_int(call, 0) : 0;
    int fd;

    if (call->number == SYS_epoll_create && io_arg_int(call, 0) <= 0)
        return -EINVAL;
    fd = (int)IO_HOST1(SYS_epoll_create1, flags | EPOLL_CLOEXEC);
    return fd < 0 ? fd : io_install(call->io, fd, NULL, flags & EPOLL_CLOEXEC);
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
    if (!result)
        result = IO_HOST4(SYS_epoll_ctl, set->fd, operation, file->fd, &event);
    if (!result)
        io_ahead_watch(&call->io->aheads, set, file, io_arg_int(call, 2), operation, &event);
    if (set)
        io_call_put(call, set);
    if (file)
        io_file_put(file);
    return result;
}

/* number: SYS_epoll_pwait with ms in `timeout`, or SYS_epoll_pwait2 with a host timespec. */
static int64_t epoll_run(const struct io_call *call, long number, long timeout)
{
    struct io_file *set = io_call_file(call);
    struct epoll_event events[EVENTS_MAX];
    int most = io_arg_int(call, 2);
    int64_t result = -EINVAL;

    if (!set)
        return -EBADF;
    if (most > EVENTS_MAX)
        most = EVENTS_MAX;
    if (most > 0)
        result = vcpu_syscall(call->vcpu, number, set->fd, (long)events, most, timeout, 0, 0);
    io_commit(call); /* edges are told once */
    if (result > 0 &&
        guestmem_write(call->vm, call->args[1], events, (size_t)result * sizeof(events[0])))
        result = -EFAULT;
    if (result > 0)
        io_ahead_grant(&call->io->aheads, call->vcpu->caller ? call->vcpu->caller : call->vcpu, set,
                       events, (unsigned)result);
    io_call_put(call, set);
    return io_restart_nohand(result);
}

int64_t io_epoll_wait(const struct io_call *call)
{
    return epoll_run(call, SYS_epoll_pwait, io_arg_int(call, 3));
}

int64_t io_epoll_pwait2(const struct io_call *call)
{
    struct timespec timeout;
    int error = 0;

    if (call->args[3])
        error = guestmem_read(call->vm, &timeout, call->args[3], sizeof(timeout));
    return error ? error : epoll_run(call, SYS_epoll_pwait2, call->args[3] ? (long)&timeout : 0);
}
