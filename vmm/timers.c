/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FV_CALL_TIMER_SET and _GET: the guest's timers are POSIX timers of the host, whose expiry signal
 * the events thread turns into FV_EVENT_TIMER. So every clock the host has works, processor time
 * included: a guest thread is a host thread, its clock the host's.
 *
 * A timer that is set anew, or stopped, has expired before or does not expire any more: programs
 * take the signal's handler away after that. So what it sent is an event when the call returns.
 */
#include "vmm/machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

typedef int kernel_timer_t;

struct timers {
    pthread_mutex_t lock;
    struct {
        bool made;
        clockid_t clock;
        kernel_timer_t id;
    } entries[FV_TIMER_MAX];
};

int timers_create(struct timers **out)
{
    struct timers *timers = calloc(1, sizeof(*timers));
    if (!timers)
        return -ENOMEM;
    pthread_mutex_init(&timers->lock, NULL);
    *out = timers;
    return 0;
}

void timers_destroy(struct timers *timers)
{
    if (!timers)
        return;
    for (size_t i = 0; i < FV_TIMER_MAX; i++) {
        if (timers->entries[i].made)
            syscall(SYS_timer_delete, timers->entries[i].id);
    }
    pthread_mutex_destroy(&timers->lock);
    free(timers);
}

/*
 * Processor time clocks carry a process or thread id (kernel: include/linux/posix-timers.h): the
 * program may watch its own only.
 */
static bool clock_allowed(const struct vm *vm, clockid_t clock)
{
    if (clock >= 0)
        return true;
    pid_t id = (pid_t) ~(clock >> 3);
    return id == 0 || id == vm->pid || vcpu_by_tid((struct vm *)vm, id);
}

static void timer_drop(struct timers *timers, uint32_t id)
{
    if (timers->entries[id].made)
        syscall(SYS_timer_delete, timers->entries[id].id);
    timers->entries[id].made = false;
}

/* Caller holds the lock. A timer keeps its clock for life, so another clock is another timer. */
static int timer_make(struct timers *timers, uint32_t id, clockid_t clock)
{
    if (timers->entries[id].made && timers->entries[id].clock == clock)
        return 0;
    timer_drop(timers, id);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = MACHINE_SIGNAL_TIMER};
    event.sigev_value.sival_int = (int)id;
    if (syscall(SYS_timer_create, clock, &event, &timers->entries[id].id) < 0)
        return -errno;
    timers->entries[id].clock = clock;
    timers->entries[id].made = true;
    return 0;
}

/* Caller holds the lock. */
static int timer_start(struct timers *timers, uint32_t id, clockid_t clock, int flags,
                       const struct itimerspec *new, struct itimerspec *old)
{
    int error = timer_make(timers, id, clock);
    if (!error && syscall(SYS_timer_settime, timers->entries[id].id, flags, new, old) < 0)
        error = -errno;
    return error;
}

/*
 * What a timer sent is lost if it expires after events_settle and before it is set anew: since
 * Linux 6.13 the host then forgets that signal. So the time left is looked at before both, and what
 * the host says was left when it was set tells whether it has expired since.
 */
struct expiry {
    struct timespec left;
    bool repeats;
    unsigned long long seen; /* expiries */
};

static struct expiry expiry_look(struct vm *vm, uint32_t id, clockid_t clock)
{
    struct timers *timers = vm->timers;
    struct expiry now = {.seen = events_timer_seen(vm, id)};
    struct itimerspec is;

    /* On another clock it is another timer: nobody waits for this one any more. */
    if (timers->entries[id].made && timers->entries[id].clock == clock &&
        syscall(SYS_timer_gettime, timers->entries[id].id, &is) == 0) {
        now.left = is.it_value;
        now.repeats = is.it_interval.tv_sec || is.it_interval.tv_nsec;
    }
    return now;
}

static bool later(const struct timespec *one, const struct timespec *other)
{
    return one->tv_sec != other->tv_sec ? one->tv_sec > other->tv_sec
                                        : one->tv_nsec > other->tv_nsec;
}

static void expiry_keep(struct vm *vm, uint32_t id, const struct expiry *before,
                        const struct timespec *left)
{
    static const struct timespec none;
    bool expired = later(&before->left, &none) &&
                   (!later(left, &none) || (before->repeats && later(left, &before->left)));

    if (expired && events_timer_seen(vm, id) == before->seen)
        vm_post_event(vm, FV_EVENT_TIMER, id, 0);
}

int64_t timers_set(struct vcpu *vcpu, const uint64_t args[6])
{
    struct timers *timers = vcpu->vm->timers;
    struct itimerspec new, old;
    uint32_t id = (uint32_t)args[0];
    clockid_t clock = (clockid_t)args[1];
    int flags = (int)args[2] & TIMER_ABSTIME; /* as Linux: no other is looked at */
    if (args[0] >= FV_TIMER_MAX || !clock_allowed(vcpu->vm, clock))
        return -EINVAL;
    int error = guestmem_read(vcpu->vm, &new, args[3], sizeof(new));
    if (error)
        return error;
    if (flags && (new.it_value.tv_sec || new.it_value.tv_nsec))
        inherit_clock_to_host(vcpu, clock, &new.it_value);
    pthread_mutex_lock(&timers->lock);
    const struct expiry before = expiry_look(vcpu->vm, id, clock);
    events_settle(vcpu->vm); /* the host may forget what a timer that is set anew sent before */
    events_timer_forget(vcpu->vm, id);
    error = timer_start(timers, id, clock, flags, &new, &old);
    if (error == -ESRCH) { /* of a thread that ended; its number may be another's by now */
        timer_drop(timers, id);
        error = timer_start(timers, id, clock, flags, &new, &old);
    }
    events_settle(vcpu->vm);
    if (!error)
        expiry_keep(vcpu->vm, id, &before, &old.it_value);
    pthread_mutex_unlock(&timers->lock);
    if (!error && args[4])
        error = guestmem_write(vcpu->vm, args[4], &old, sizeof(old));
    return error;
}

int64_t timers_get(struct vcpu *vcpu, const uint64_t args[6])
{
    struct timers *timers = vcpu->vm->timers;
    struct itimerspec now = {0};
    int error = 0;
    if (args[0] >= FV_TIMER_MAX)
        return -EINVAL;
    pthread_mutex_lock(&timers->lock);
    if (timers->entries[args[0]].made &&
        syscall(SYS_timer_gettime, timers->entries[args[0]].id, &now) < 0)
        error = -errno;
    pthread_mutex_unlock(&timers->lock);
    return error ? error : guestmem_write(vcpu->vm, args[1], &now, sizeof(now));
}
