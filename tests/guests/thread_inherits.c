/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A new thread begins as the one that makes it is, whatever threads there were before: niceness,
 * policy, processors, name, timer slack; and with no processor time used.
 */
#include "guest.h"

#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define BURN_NS  300000000L /* of processor time, in the thread before */
#define FRESH_NS 100000000L /* less than that has who has just begun */
#define SLACK_NS 123456

struct state {
    int nice, policy;
    cpu_set_t processors;
    char name[16];
    long slack_ns;
};

static long clock_ns(clockid_t clock)
{
    struct timespec now;
    EXPECT(clock_gettime(clock, &now) == 0);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

static long usage_ns(void)
{
    struct rusage usage;
    EXPECT(getrusage(RUSAGE_THREAD, &usage) == 0);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000L +
           (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000L;
}

static void state_read(struct state *state)
{
    memset(state, 0, sizeof(*state));
    errno = 0;
    state->nice = getpriority(PRIO_PROCESS, (id_t)gettid());
    EXPECT(errno == 0);
    state->policy = sched_getscheduler(0);
    EXPECT(sched_getaffinity(0, sizeof(state->processors), &state->processors) == 0);
    EXPECT(prctl(PR_GET_NAME, state->name) == 0);
    state->slack_ns = prctl(PR_GET_TIMERSLACK);
}

static void expect_like(const struct state *maker)
{
    struct state own;
    state_read(&own);
    EXPECT(own.nice == maker->nice && own.policy == maker->policy);
    EXPECT(CPU_EQUAL(&own.processors, &maker->processors));
    EXPECT(strcmp(own.name, maker->name) == 0 && own.slack_ns == maker->slack_ns);
}

static void *begin(void *argument)
{
    clockid_t clock;
    EXPECT(clock_ns(CLOCK_THREAD_CPUTIME_ID) < FRESH_NS && usage_ns() < FRESH_NS);
    EXPECT(pthread_getcpuclockid(pthread_self(), &clock) == 0 && clock_ns(clock) < FRESH_NS);
    expect_like(argument);
    return argument;
}

/* Leaves all different behind it, and makes one that is as different. */
static void *change(void *argument)
{
    const struct sched_param none = {0};
    struct state changed;
    pthread_t thread;
    cpu_set_t one;

    begin(argument);
    while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < BURN_NS)
        ;
    EXPECT(usage_ns() > BURN_NS / 2);
    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    EXPECT(sched_setaffinity(0, sizeof(one), &one) == 0);
    EXPECT(setpriority(PRIO_PROCESS, 0, 7) == 0);
    EXPECT(sched_setscheduler(0, SCHED_BATCH, &none) == 0);
    EXPECT(prctl(PR_SET_NAME, "changed") == 0 && prctl(PR_SET_TIMERSLACK, SLACK_NS) == 0);
    state_read(&changed);
    EXPECT(changed.nice == 7 && changed.policy == SCHED_BATCH && changed.slack_ns == SLACK_NS);
    EXPECT(pthread_create(&thread, NULL, begin, &changed) == 0);
    EXPECT(pthread_join(thread, NULL) == 0);
    return argument;
}

int main(void)
{
    struct state first;
    pthread_t thread;

    state_read(&first);
    for (int i = 0; i < 3; i++) {
        EXPECT(pthread_create(&thread, NULL, change, &first) == 0);
        EXPECT(pthread_join(thread, NULL) == 0);
        EXPECT(pthread_create(&thread, NULL, begin, &first) == 0);
        EXPECT(pthread_join(thread, NULL) == 0);
    }
    expect_like(&first);
    return guest_passed("thread_inherits");
}
