/* SPDX-License-Identifier: Apache-2.0 */
/*
 * poll and select in all their forms: guest descriptors are replaced by host descriptors for the
 * time of one host ppoll. Signal masks are the guest kernel's part.
 *
 * An interrupted wait tells the time that is left where Linux does.
 */
#include "vmm/io/hostio_internal.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/syscall.h>

/* The poller serves others too: a look at a million descriptors takes its time. */
#define AT_ONCE_MAX 256u

/* A set of descriptors under poll, with references that keep them open. */
struct poll_set {
    struct pollfd *list;
    struct io_file **files;
    unsigned count;
};

static int poll_set_create(struct poll_set *set, unsigned count)
{
    set->count = count;
    set->list = calloc(count + 1, sizeof(*set->list));
    set->files = calloc(count + 1, sizeof(struct io_file *));
    if (set->list && set->files)
        return 0;
    free(set->list);
    free(set->files);
    *set = (struct poll_set){0};
    return -ENOMEM;
}

static void poll_set_destroy(struct poll_set *set)
{
    for (unsigned i = 0; i < set->count; i++) {
        if (set->files[i])
            io_file_put(set->files[i]);
    }
    free(set->list);
    free(set->files);
}

/* What there is with the signals that wait for the calling thread alone (io/signal_own.c). */
static long poll_own(const struct io_call *call, struct poll_set *set)
{
    struct timespec none = {0, 0};
    bool any = false;
    long result = 0;

    if (!io_own_begin(call))
        return 0;
    for (unsigned i = 0; i < set->count; i++)
        any |= set->files[i] && io_own_raise(call, set->files[i]);
    if (any)
        result = IO_HOST4(SYS_ppoll, set->list, set->count, &none, NULL);
    io_own_end(call);
    return result;
}

/* It was another thread's: how many are not ready after all. */
static long poll_untrue(const struct io_call *call, struct poll_set *set)
{
    long count = 0;

    for (unsigned i = 0; i < set->count; i++) {
        if (!set->list[i].revents || !set->files[i] || io_own_is_readable(call, set->files[i]))
            continue;
        set->list[i].revents = 0;
        count++;
    }
    return count;
}

/* Waits; NULL: for ever. list[].fd are host descriptors by now. */
static long poll_wait(const struct io_call *call, struct poll_set *set,
                      const struct timespec *timeout)
{
    struct timespec copy; /* the kernel writes the rest into it */
    long result = poll_own(call, set), untrue = 0;

    if (result)
        return result;
    if (timeout)
        copy = *timeout;
    do {
        result = vcpu_syscall(call->vcpu, SYS_ppoll, (long)set->list, set->count,
                              timeout ? (long)&copy : 0, 0, 0, 0);
        untrue = result > 0 ? poll_untrue(call, set) : 0;
    } while (untrue && untrue == result);
    return result - untrue;
}

static int64_t poll_run(const struct io_call *call, const struct timespec *timeout)
{
    static const struct timespec at_once = {0, 0};
    uint32_t count = io_arg_u32(call, 1);
    struct poll_set set;
    struct pollfd *guest;
    unsigned bad = 0;
    int64_t result;

    if (count > io_nofile(call->io))
        return -EINVAL;
    if (count > AT_ONCE_MAX && call->vcpu->at_once)
        return io_hand_back(call);
    result = poll_set_create(&set, count);
    if (result)
        return result;
    guest = calloc(count + 1u, sizeof(*guest));
    result =
        guest ? guestmem_read(call->vm, guest, call->args[0], count * sizeof(*guest)) : -ENOMEM;
    if (result)
        goto out;
    for (unsigned i = 0; i < count; i++) {
        set.files[i] = io_fds_get(&call->io->fds, guest[i].fd);
        set.list[i] =
            (struct pollfd){.fd = set.files[i] ? set.files[i]->fd : -1, .events = guest[i].events};
        bad += guest[i].fd >= 0 && !set.files[i];
    }
    result = poll_wait(call, &set, bad ? &at_once : timeout);
    if (result < 0)
        goto out;
    result += bad;
    for (unsigned i = 0; i < count; i++) {
        bool invalid = guest[i].fd >= 0 && !set.files[i];

        guest[i].revents = invalid ? POLLNVAL : set.list[i].revents;
    }
    if (guestmem_write(call->vm, call->args[0], guest, count * sizeof(*guest)))
        result = -EFAULT;
out:
    free(guest);
    poll_set_destroy(&set);
    return result;
}

static int64_t poll_until(const struct io_call *call, const struct io_resume *wait)
{
    struct timespec left = io_time_left(wait->deadline_ns);
    struct io_call again = *call;

    again.args = wait->args;
    return poll_run(&again, wait->deadline_ns == UINT64_MAX ? NULL : &left);
}

int64_t io_poll(const struct io_call *call)
{
    int ms = io_arg_int(call, 2);
    struct timespec timeout = {ms / 1000, (long)(ms % 1000) * 1000000};
    struct io_resume wait = {.run = poll_until,
                             .args = {call->args[0], call->args[1]},
                             .deadline_ns = ms < 0 ? UINT64_MAX : io_deadline_ns(&timeout)};

    return io_resumable_run(call, &wait);
}

int64_t io_ppoll(const struct io_call *call)
{
    struct timespec timeout;
    uint64_t deadline_ns;
    int64_t result;

    if (!call->args[2])
        return io_restart_nohand(poll_run(call, NULL));
    result = guestmem_read(call->vm, &timeout, call->args[2], sizeof(timeout));
    if (result)
        return result;
    if (!io_timespec_valid(&timeout))
        return -EINVAL;
    deadline_ns = io_deadline_ns(&timeout);
    result = poll_run(call, &timeout);
    timeout = io_time_left(deadline_ns);
    /* A timeout in read-only memory cannot be told on: then the call is not restarted either. */
    if (guestmem_write(call->vm, call->args[2], &timeout, sizeof(timeout)))
        return result;
    return io_restart_nohand(result);
}

/* ---- select: three bit sets in, the same three out ---- */

#define SET_READ   (POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR)
#define SET_WRITE  (POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR)
#define SET_EXCEPT POLLPRI
#define SET_BITS   64u
#define SETS       3u

static const short set_events[SETS] = {SET_READ, SET_WRITE, SET_EXCEPT};

struct select_sets {
    uint64_t *bits[SETS];
    uint64_t words;
    uint64_t *memory;
};

static int select_read(const struct io_call *call, unsigned count, struct select_sets *sets)
{
    int error = 0;

    sets->words = (count + SET_BITS - 1) / SET_BITS;
    sets->memory = calloc(sets->words * SETS + 1, sizeof(*sets->memory));
    if (!sets->memory)
        return -ENOMEM;
    for (unsigned k = 0; !error && k < SETS; k++) {
        sets->bits[k] = sets->memory + k * sets->words;
        if (call->args[k + 1])
            error = guestmem_read(call->vm, sets->bits[k], call->args[k + 1],
                                  sets->words * sizeof(uint64_t));
    }
    return error;
}

/* One pollfd a descriptor that is in any set. 0, -EBADF, -ENOMEM. */
static int select_collect(const struct io_call *call, unsigned count,
                          const struct select_sets *sets, struct poll_set *set)
{
    if (poll_set_create(set, count))
        return -ENOMEM;
    for (unsigned fd = 0; fd < count; fd++) {
        short events = 0;

        set->list[fd].fd = -1;
        for (unsigned k = 0; k < SETS; k++) {
            if (sets->bits[k][fd / SET_BITS] >> (fd % SET_BITS) & 1)
                events |= set_events[k];
        }
        if (!events)
            continue;
        set->files[fd] = io_fds_get(&call->io->fds, (int)fd);
        if (!set->files[fd])
            return -EBADF;
        set->list[fd] = (struct pollfd){.fd = set->files[fd]->fd, .events = events};
    }
    return 0;
}

static int64_t select_answer(const struct io_call *call, struct select_sets *sets,
                             const struct poll_set *set)
{
    int64_t ready = 0;

    for (unsigned k = 0; k < SETS; k++) {
        for (unsigned fd = 0; fd < set->count; fd++) {
            uint64_t bit = 1ull << (fd % SET_BITS);

            if (!(sets->bits[k][fd / SET_BITS] & bit))
                continue;
            if (set->list[fd].revents & set_events[k])
                ready++;
            else
                sets->bits[k][fd / SET_BITS] &= ~bit;
        }
        if (call->args[k + 1] && guestmem_write(call->vm, call->args[k + 1], sets->bits[k],
                                                sets->words * sizeof(uint64_t)))
            return -EFAULT;
    }
    return ready;
}

static int64_t select_run(const struct io_call *call, const struct timespec *timeout)
{
    int count = io_arg_int(call, 0);
    uint64_t limit = io_nofile(call->io);
    struct select_sets sets = {0};
    struct poll_set set = {0};
    int64_t result;

    if (count < 0)
        return -EINVAL;
    if ((uint64_t)count > limit)
        count = (int)limit;
    result = select_read(call, (unsigned)count, &sets);
    if (!result)
        result = select_collect(call, (unsigned)count, &sets, &set);
    if (!result)
        result = poll_wait(call, &set, timeout);
    if (result >= 0)
        result = select_answer(call, &sets, &set);
    if (set.list)
        poll_set_destroy(&set);
    free(sets.memory);
    return result;
}

int64_t io_select(const struct io_call *call)
{
    struct timeval given;
    struct timespec timeout;
    uint64_t deadline_ns;
    int64_t result;

    if (!call->args[4])
        return io_restart_nohand(select_run(call, NULL));
    result = guestmem_read(call->vm, &given, call->args[4], sizeof(given));
    if (result)
        return result;
    if (given.tv_sec < 0 || given.tv_usec < 0)
        return -EINVAL;
    timeout =
        (struct timespec){given.tv_sec + given.tv_usec / 1000000, given.tv_usec % 1000000 * 1000};
    deadline_ns = io_deadline_ns(&timeout);
    result = select_run(call, &timeout);
    timeout = io_time_left(deadline_ns);
    given = (struct timeval){timeout.tv_sec, timeout.tv_nsec / 1000};
    if (guestmem_write(call->vm, call->args[4], &given, sizeof(given)))
        return result;
    return io_restart_nohand(result);
}

int64_t io_pselect6(const struct io_call *call)
{
    struct timespec timeout;
    uint64_t deadline_ns;
    int64_t result;

    if (!call->args[4])
        return io_restart_nohand(select_run(call, NULL));
    result = guestmem_read(call->vm, &timeout, call->args[4], sizeof(timeout));
    if (result)
        return result;
    if (!io_timespec_valid(&timeout))
        return -EINVAL;
    deadline_ns = io_deadline_ns(&timeout);
    result = select_run(call, &timeout);
    timeout = io_time_left(deadline_ns);
    if (guestmem_write(call->vm, call->args[4], &timeout, sizeof(timeout)))
        return result;
    return io_restart_nohand(result);
}
