/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interval timers and POSIX timers. The VMM keeps the time (FV_CALL_TIMER_*) and reports expiry as
 * an event; here an expiry becomes a signal. Timers 0..2 are the three of setitimer.
 */
#include "guest-os/kernel.h"

#define TIMER_FIRST_POSIX 3
#define USER_TIMER_BASE   TIMER_FIRST_POSIX /* program's id 0 is our id 3 */

#define CLOCK_REALTIME           0
#define CLOCK_MONOTONIC          1
#define CLOCK_PROCESS_CPUTIME_ID 2
#define CLOCK_THREAD_CPUTIME_ID  3
#define CLOCK_MONOTONIC_RAW      4
#define CLOCK_REALTIME_COARSE    5
#define CLOCK_MONOTONIC_COARSE   6
#define CLOCK_BOOTTIME           7
#define CLOCK_TAI                11
#define CLOCK_MAX                11
#define CLOCK_OF_NOBODY          10 /* not used any more */

#define SIGEV_SIGNAL    0
#define SIGEV_NONE      1
#define SIGEV_THREAD    2 /* to the kernel the same as SIGEV_SIGNAL */
#define SIGEV_THREAD_ID 4

#define NS_PER_US 1000
#define US_MAX    999999

struct linux_sigevent {
    uint64_t value;
    int32_t signal;
    int32_t notify;
    uint32_t tid;
    uint32_t pad[11];
};
_Static_assert(sizeof(struct linux_sigevent) == 64, "struct sigevent");

/*
 * A timer, guarded by process.lock, with which nobody leaves the guest to ask about one: what the
 * VMM is asked about a timer may come there in any order.
 *   - free: not named, no users. timer_create may give its number away.
 *   - named: the program's number finds it. A call that did is one of its users until it is done.
 *   - deleted: not named, but in use by calls that found it before.
 *
 * over: it must not run any more, being deleted, or for the thread of its clock has ended. Nobody
 * starts it from then on, and none of its expiries becomes a signal; but a call may be on its way
 * to the VMM to start it. So the last of its users stops it, and only then is it free.
 */
struct timer {
    bool named;
    bool over;
    bool set; /* the VMM may have it running */
    uint32_t users;
    int32_t clock;
    struct linux_sigevent event;
    int32_t overrun;          /* of the last delivered expiry */
    struct signal_node *node; /* its signal's, while it is named */
};

static struct timer timers[FV_TIMER_MAX];
_Static_assert(FV_TIMER_MAX <= 64, "a set of them is a word");

static const struct {
    int32_t clock;
    int32_t signal;
} itimers[TIMER_FIRST_POSIX] = {
    {CLOCK_MONOTONIC, LINUX_SIGALRM},
    {CLOCK_PROCESS_CPUTIME_ID, LINUX_SIGVTALRM},
    {CLOCK_PROCESS_CPUTIME_ID, LINUX_SIGPROF},
};

void timer_expired(uint32_t id, uint64_t overruns, uint32_t *kick)
{
    struct linux_siginfo info = {0};
    uint32_t tid = 0;
    if (id < TIMER_FIRST_POSIX) {
        info.signal = itimers[id].signal;
        info.code = LINUX_SI_KERNEL;
        signal_queue(0, &info, kick);
        return;
    }
    if (id >= FV_TIMER_MAX)
        return;
    const struct timer *timer = &timers[id];
    if (timer->over || !timer->named || timer->event.notify == SIGEV_NONE)
        return;
    info.signal = timer->event.signal;
    info.code = LINUX_SI_TIMER;
    info.timer.id = (int32_t)(id - USER_TIMER_BASE);
    info.timer.overrun = overruns > INT32_MAX ? INT32_MAX : (int32_t)overruns;
    info.timer.value = timer->event.value;
    if (timer->event.notify == SIGEV_THREAD_ID)
        tid = timer->event.tid;
    signal_queue_node(tid, timer->node, &info, kick);
}

void timer_delivered(const struct linux_siginfo *info)
{
    timers[(uint32_t)info->timer.id + USER_TIMER_BASE].overrun = info->timer.overrun;
}

static void value_to_spec(const struct linux_itimerval *from, struct linux_itimerspec *to)
{
    to->interval.seconds = from->interval.seconds;
    to->interval.nanoseconds = from->interval.microseconds * NS_PER_US;
    to->value.seconds = from->value.seconds;
    to->value.nanoseconds = from->value.microseconds * NS_PER_US;
}

/* Rounded up: a timer that still runs must not read as 0. */
static void value_from_spec(const struct linux_itimerspec *from, struct linux_itimerval *to)
{
    to->interval.seconds = from->interval.seconds;
    to->interval.microseconds = (from->interval.nanoseconds + NS_PER_US - 1) / NS_PER_US;
    to->value.seconds = from->value.seconds;
    to->value.microseconds = (from->value.nanoseconds + NS_PER_US - 1) / NS_PER_US;
}

static bool timeval_valid(const struct linux_timeval *time)
{
    return time->seconds >= 0 && time->microseconds >= 0 && time->microseconds <= US_MAX;
}

/*
 * What the timer sent until now has come when this returns: it is either a signal, or will not
 * happen. Programs that stop a timer rely on that.
 */
static int64_t timer_set(uint64_t id, int32_t clock, uint64_t flags,
                         const struct linux_itimerspec *new, struct linux_itimerspec *old)
{
    int64_t result =
        vmm_call(FV_CALL_TIMER_SET, id, (uint64_t)clock, flags, (uint64_t) new, (uint64_t)old, 0);
    events_drain();
    return result;
}

static int64_t itimer_set(unsigned which, const struct linux_itimerspec *new,
                          struct linux_itimerspec *old)
{
    return timer_set(which, itimers[which].clock, 0, new, old);
}

int64_t sys_setitimer(struct frame *frame)
{
    struct linux_itimerval value = {0};
    struct linux_itimerspec new, old = {0};
    if (frame->rdi >= TIMER_FIRST_POSIX)
        return -LINUX_EINVAL;
    if (frame->rsi != 0 && user_read(&value, frame->rsi, sizeof(value)) != 0)
        return -LINUX_EFAULT;
    if (!timeval_valid(&value.interval) || !timeval_valid(&value.value))
        return -LINUX_EINVAL;
    value_to_spec(&value, &new);
    int64_t result = itimer_set((unsigned)frame->rdi, &new, &old);
    if (result == 0 && frame->rdx != 0) {
        value_from_spec(&old, &value);
        result = user_write(frame->rdx, &value, sizeof(value));
    }
    return result;
}

int64_t sys_getitimer(struct frame *frame)
{
    struct linux_itimerspec now = {0};
    struct linux_itimerval value;
    if (frame->rdi >= TIMER_FIRST_POSIX)
        return -LINUX_EINVAL;
    /* One that was never set reads as zero. */
    vmm_call3(FV_CALL_TIMER_GET, frame->rdi, (uint64_t)&now, 0);
    value_from_spec(&now, &value);
    return user_write(frame->rsi, &value, sizeof(value));
}

int64_t sys_alarm(struct frame *frame)
{
    struct linux_itimerspec new = {.value.seconds = (uint32_t)frame->rdi}, old = {0};
    int64_t result = itimer_set(0, &new, &old);
    if (result != 0)
        return result;
    /* As Linux: round to the nearest second, but never to zero while it runs. */
    int64_t seconds = old.value.seconds;
    if (old.value.nanoseconds >= 500000000 || (seconds == 0 && old.value.nanoseconds > 0))
        seconds++;
    return seconds;
}

/* Index into timers, of which the caller is a user until timer_done; or -EINVAL. */
static int64_t timer_use(uint64_t user_id)
{
    uint64_t id = (uint32_t)user_id + (uint64_t)USER_TIMER_BASE;
    if (id >= FV_TIMER_MAX)
        return -LINUX_EINVAL;
    lock_take(&process.lock);
    bool named = timers[id].named;
    timers[id].users += named;
    lock_release(&process.lock);
    return named ? (int64_t)id : -LINUX_EINVAL;
}

/* By a clock that is always there: its own may be of a thread that is not. */
static void timer_stop(uint64_t id)
{
    const struct linux_itimerspec stop = {0};
    timer_set(id, CLOCK_MONOTONIC, 0, &stop, NULL);
}

static void timer_done(uint64_t id)
{
    struct timer *timer = &timers[id];
    lock_take(&process.lock);
    if (timer->users == 1 && timer->over && timer->set) {
        lock_release(&process.lock);
        timer_stop(id); /* still in use, by us, so it is not free; and nobody starts what is over */
        lock_take(&process.lock);
        timer->set = false;
    }
    timer->users--;
    lock_release(&process.lock);
}

static bool event_valid(const struct linux_sigevent *event)
{
    if (event->notify == SIGEV_NONE)
        return true;
    return (event->notify == SIGEV_SIGNAL || event->notify == SIGEV_THREAD ||
            event->notify == SIGEV_THREAD_ID) &&
           event->signal >= 1 && event->signal <= LINUX_NSIG;
}

/* Processor time clocks below zero (include/linux/posix-timers.h of Linux): id 0 is the caller. */
#define CPU_CLOCK_KIND      7u
#define CPU_CLOCK_THREAD    4
#define CPU_CLOCK_SCHED     2
#define CPU_CLOCK_OF_CALLER (~0u << 3)
#define CLOCK_KIND_DEVICE   3u /* no processor time, but a device's descriptor */

/*
 * A thread's own clock by its name for everybody: the host timer is made, or taken over from one of
 * this number before, when it is first set, perhaps by another thread.
 */
static int32_t clock_named(int32_t clock)
{
    uint32_t kind = (uint32_t)clock & CPU_CLOCK_KIND;
    if (clock == CLOCK_THREAD_CPUTIME_ID)
        kind = CPU_CLOCK_THREAD | CPU_CLOCK_SCHED;
    else if (((uint32_t)clock & ~CPU_CLOCK_KIND) != CPU_CLOCK_OF_CALLER ||
             (kind & CPU_CLOCK_THREAD) == 0)
        return clock;
    return (int32_t)(~thread_current()->tid << 3 | kind);
}

/* The thread whose clock it is, by tid; 0: no thread's. */
static uint32_t clock_thread(int32_t clock)
{
    return clock < 0 && (clock & CPU_CLOCK_THREAD) != 0 ? ~(uint32_t)(clock >> 3) : 0;
}

/*
 * Its processor time stands still; its host thread's may go on, with the next guest thread, which
 * may have its number, too. It is not to be found any more, so none is made on its clock.
 */
void timer_thread_ends(uint32_t tid)
{
    uint64_t its = 0;
    lock_take(&process.lock);
    for (uint64_t id = USER_TIMER_BASE; id < FV_TIMER_MAX; id++) {
        struct timer *timer = &timers[id];
        if (timer->named && timer->event.notify == SIGEV_THREAD_ID && timer->event.tid == tid)
            timer->event.notify = SIGEV_NONE; /* there is nobody to be told any more */
        if (timer->named && clock_thread(timer->clock) == tid) {
            its |= 1ULL << id;
            timer->over = true;
            timer->users++;
        }
    }
    lock_release(&process.lock);
    for (; its != 0; its &= its - 1)
        timer_done((uint64_t)__builtin_ctzll(its));
}

/* Index, or -EINVAL: a thread that it names is not there, or -EAGAIN: there are too many. */
static int64_t timer_make(int32_t clock, const struct linux_sigevent *event)
{
    uint32_t id = USER_TIMER_BASE, whose = clock_thread(clock);
    if ((event->notify == SIGEV_THREAD_ID && thread_find(event->tid) == NULL) ||
        (whose != 0 && thread_find(whose) == NULL))
        return -LINUX_EINVAL;
    while (id < FV_TIMER_MAX && (timers[id].named || timers[id].users != 0))
        id++;
    if (id == FV_TIMER_MAX)
        return -LINUX_EAGAIN;
    struct signal_node *node = signal_node_keep();
    if (node == NULL)
        return -LINUX_EAGAIN; /* as Linux */
    timers[id] = (struct timer){.named = true, .clock = clock, .event = *event, .node = node};
    return id;
}

static int64_t timer_delete(uint64_t id)
{
    lock_take(&process.lock);
    bool named = timers[id].named; /* not deleted by somebody else just now */
    timers[id].named = false;
    timers[id].over = true;
    if (named)
        signal_node_drop(timers[id].node);
    lock_release(&process.lock);
    timer_done(id);
    return named ? 0 : -LINUX_EINVAL;
}

/* Of a clock by number: is there one, and has it timers? */
static int clock_check(int32_t clock)
{
    switch (clock) {
    case CLOCK_OF_NOBODY:
        return -LINUX_EINVAL;
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_REALTIME_COARSE:
    case CLOCK_MONOTONIC_COARSE:
        return -LINUX_EOPNOTSUPP;
    default:
        if (clock < 0 && ((uint32_t)clock & CPU_CLOCK_KIND) == CLOCK_KIND_DEVICE)
            return -LINUX_EOPNOTSUPP;
        return clock > CLOCK_MAX ? -LINUX_EINVAL : 0;
    }
}

/* Others are the host's to allow: those that wake a machine, and processor time by name. */
static bool clock_is_known(int32_t clock)
{
    return (clock >= CLOCK_REALTIME && clock <= CLOCK_THREAD_CPUTIME_ID) ||
           clock == CLOCK_BOOTTIME || clock == CLOCK_TAI;
}

/* The caller is its user. 0 or -errno: what the host says to a timer of this clock. */
static int64_t timer_try(uint64_t id)
{
    const struct linux_itimerspec stop = {0};
    lock_take(&process.lock);
    timers[id].set = true;
    lock_release(&process.lock);
    return timer_set(id, timers[id].clock, 0, &stop, NULL);
}

int64_t sys_timer_create(struct frame *frame)
{
    struct linux_sigevent event = {.signal = LINUX_SIGALRM};
    int32_t clock = (int32_t)frame->rdi;
    if (frame->rsi != 0 && user_read(&event, frame->rsi, sizeof(event)) != 0)
        return -LINUX_EFAULT;
    int error = clock_check(clock);
    if (error != 0)
        return error;
    if (!event_valid(&event))
        return -LINUX_EINVAL;
    lock_take(&process.lock);
    int64_t id = timer_make(clock_named(clock), &event);
    if (id >= 0 && frame->rsi == 0)
        timers[id].event.value = (uint64_t)id - USER_TIMER_BASE;
    if (id >= 0)
        timers[id].users = 1;
    lock_release(&process.lock);
    if (id < 0)
        return id;
    int64_t result = clock_is_known(clock) ? 0 : timer_try((uint64_t)id);
    if (result == 0 && user_put32(frame->rdx, (uint32_t)id - USER_TIMER_BASE) != 0)
        result = -LINUX_EFAULT;
    if (result != 0) {
        timer_delete((uint64_t)id);
        return result;
    }
    timer_done((uint64_t)id);
    return 0;
}

/* If not, the VMM may have it running from here on. */
static bool timer_is_over(uint64_t id)
{
    lock_take(&process.lock);
    bool over = timers[id].over;
    timers[id].set |= !over;
    lock_release(&process.lock);
    return over;
}

static int64_t timer_start(uint64_t id, const struct frame *frame)
{
    struct linux_itimerspec new, old = {0};
    if (user_read(&new, frame->rdx, sizeof(new)) != 0)
        return -LINUX_EFAULT;
    if (timer_is_over(id))
        return -LINUX_ESRCH;
    int64_t result = timer_set(id, timers[id].clock, frame->rsi, &new, &old);
    /* The VMM knows no clock of a thread that has ended since. */
    if (result == -LINUX_EINVAL && timer_is_over(id))
        result = -LINUX_ESRCH;
    if (result == 0 && frame->r10 != 0)
        result = user_write(frame->r10, &old, sizeof(old));
    return result;
}

int64_t sys_timer_settime(struct frame *frame)
{
    int64_t id = frame->rdx != 0 ? timer_use(frame->rdi) : -LINUX_EINVAL;
    if (id < 0)
        return id;
    int64_t result = timer_start((uint64_t)id, frame);
    timer_done((uint64_t)id);
    return result;
}

int64_t sys_timer_gettime(struct frame *frame)
{
    struct linux_itimerspec now = {0};
    int64_t id = timer_use(frame->rdi);
    if (id < 0)
        return id;
    if (!timers[id].over && timers[id].set)
        vmm_call3(FV_CALL_TIMER_GET, (uint64_t)id, (uint64_t)&now, 0);
    timer_done((uint64_t)id);
    return user_write(frame->rsi, &now, sizeof(now));
}

int64_t sys_timer_getoverrun(struct frame *frame)
{
    int64_t id = timer_use(frame->rdi);
    if (id < 0)
        return id;
    int64_t overrun = timers[id].overrun;
    timer_done((uint64_t)id);
    return overrun;
}

int64_t sys_timer_delete(struct frame *frame)
{
    int64_t id = timer_use(frame->rdi);
    return id < 0 ? id : timer_delete((uint64_t)id);
}
