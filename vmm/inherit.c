/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a new guest thread begins with: what Linux's clone would give it, its maker's scheduling and
 * name, and no processor time used. A new host thread has all of that by itself. One that ran a
 * guest thread before is given what anybody may give; how it is scheduled is compared, for making
 * that as it was can take a privilege, and where it differs the host thread is replaced (vcpu.c).
 */
#include "vmm/machine.h"

#include <sched.h>
#include <sys/prctl.h>
#include <time.h>

/* A thread's clocks carry its id (kernel: include/linux/posix-timers.h). */
#define CLOCK_KIND_MASK  3u
#define CLOCK_KIND_SCHED 2u
#define CLOCK_PER_THREAD 4u

#define NS_PER_S    1000000000
#define US_PER_S    1000000
#define SECONDS_MAX 1000000000

_Static_assert(CLOCK_KIND_MASK == sizeof(((struct inherited *)0)->clock_ns) / sizeof(uint64_t),
               "the fourth kind is a descriptor");

static clockid_t thread_clock(pid_t tid, unsigned kind)
{
    return (clockid_t)(~(unsigned)tid << 3 | CLOCK_PER_THREAD | kind);
}

static uint64_t timespec_ns(const struct timespec *time)
{
    return (uint64_t)time->tv_sec * NS_PER_S + (uint64_t)time->tv_nsec;
}

static struct timespec timespec_of(uint64_t ns)
{
    return (struct timespec){(time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S)};
}

static uint64_t clock_read_ns(clockid_t clock)
{
    struct timespec now;
    return clock_gettime(clock, &now) < 0 ? 0 : timespec_ns(&now);
}

bool inherit_fits(const struct vcpu *vcpu)
{
    struct sched_param own, its;
    return sched_getscheduler(vcpu->tid) == sched_getscheduler(0) && sched_getparam(0, &own) == 0 &&
           sched_getparam(vcpu->tid, &its) == 0 && own.sched_priority == its.sched_priority &&
           getpriority(PRIO_PROCESS, (id_t)vcpu->tid) == getpriority(PRIO_PROCESS, 0);
}

void inherit_give(struct vcpu *vcpu)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        (void)sched_setaffinity(vcpu->tid, sizeof(set), &set);
    (void)prctl(PR_GET_NAME, vcpu->inherited.name);
    vcpu->inherited.slack_ns = prctl(PR_GET_TIMERSLACK);
    for (unsigned kind = 0; kind < CLOCK_KIND_MASK; kind++)
        atomic_store(&vcpu->inherited.clock_ns[kind], clock_read_ns(thread_clock(vcpu->tid, kind)));
}

void inherit_take(struct vcpu *vcpu)
{
    (void)prctl(PR_SET_NAME, vcpu->inherited.name);
    (void)prctl(PR_SET_TIMERSLACK, vcpu->inherited.slack_ns);
    (void)getrusage(RUSAGE_THREAD, &vcpu->inherited.usage);
}

/* What the clock said when its guest thread began. */
static uint64_t clock_base_ns(struct vcpu *vcpu, clockid_t clock)
{
    unsigned kind = (unsigned)clock & CLOCK_KIND_MASK;
    if (clock == CLOCK_THREAD_CPUTIME_ID)
        return atomic_load(&vcpu->inherited.clock_ns[CLOCK_KIND_SCHED]);
    if (clock >= 0 || !((unsigned)clock & CLOCK_PER_THREAD) || kind == CLOCK_KIND_MASK)
        return 0;
    pid_t tid = (pid_t) ~(clock >> 3);
    struct vcpu *whose = tid ? vcpu_by_tid(vcpu->vm, tid) : vcpu;
    return whose ? atomic_load(&whose->inherited.clock_ns[kind]) : 0;
}

void inherit_clock_to_guest(struct vcpu *vcpu, clockid_t clock, struct timespec *time)
{
    uint64_t base_ns = clock_base_ns(vcpu, clock), ns = timespec_ns(time);
    if (base_ns)
        *time = timespec_of(ns > base_ns ? ns - base_ns : 0);
}

void inherit_clock_to_host(struct vcpu *vcpu, clockid_t clock, struct timespec *time)
{
    uint64_t base_ns = clock_base_ns(vcpu, clock), ns = timespec_ns(time);
    /* What the host refuses, or what never comes, stays that. */
    if (base_ns && time->tv_sec >= 0 && time->tv_sec < SECONDS_MAX && time->tv_nsec >= 0 &&
        time->tv_nsec < NS_PER_S)
        *time = timespec_of(ns + base_ns);
}

static struct timeval time_since(struct timeval now, struct timeval then)
{
    int64_t us = (now.tv_sec - then.tv_sec) * US_PER_S + now.tv_usec - then.tv_usec;
    us = us > 0 ? us : 0;
    return (struct timeval){us / US_PER_S, us % US_PER_S};
}

void inherit_usage(const struct vcpu *vcpu, struct rusage *usage)
{
    const struct rusage *base = &vcpu->inherited.usage;
    usage->ru_utime = time_since(usage->ru_utime, base->ru_utime);
    usage->ru_stime = time_since(usage->ru_stime, base->ru_stime);
    usage->ru_minflt -= base->ru_minflt;
    usage->ru_majflt -= base->ru_majflt;
    usage->ru_inblock -= base->ru_inblock;
    usage->ru_oublock -= base->ru_oublock;
    usage->ru_nvcsw -= base->ru_nvcsw;
    usage->ru_nivcsw -= base->ru_nivcsw;
}
