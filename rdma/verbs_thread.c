/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection thread of a verbs node. It makes and ends connections for the others, one at a
 * time, and watches for those that the memory node ends: all events come through one channel.
 *
 * The kernel's connection manager, and every software device, take requests only from whoever has
 * the credentials that their file was opened with (ib_safe_file_access): a process that changes
 * its own, as entering a Landlock sandbox does, has to do so before it connects.
 */
#include "rdma/verbs.h"
#include "support.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void job_do(struct rdma_node *node, struct verbs_job *job)
{
    if (job->closes)
        verbs_disconnect(job->link);
    else
        job->error = verbs_connect(node, job->link, job->kind, job->depth, &job->why);
}

/* Does what was asked for until nothing is left; true to go on. */
static bool jobs_do(struct rdma_node *node)
{
    struct verbs_node *shared = node->private;
    struct verbs_job *job;
    bool on;

    pthread_mutex_lock(&shared->job_lock);
    while ((job = shared->jobs)) {
        shared->jobs = job->next;
        pthread_mutex_unlock(&shared->job_lock);
        job_do(node, job);
        pthread_mutex_lock(&shared->job_lock);
        job->done = true;
        pthread_cond_broadcast(&shared->job_done);
    }
    on = !shared->stopping;
    pthread_mutex_unlock(&shared->job_lock);
    return on;
}

static void *thread_main(void *argument)
{
    struct rdma_node *node = argument;
    struct verbs_node *shared = node->private;
    uint64_t count;

    while (jobs_do(node)) {
        struct pollfd waited[] = {{.fd = shared->events->fd, .events = POLLIN},
                                  {.fd = shared->wake_fd, .events = POLLIN}};

        if (poll(waited, 2, -1) < 0)
            continue;
        if (waited[1].revents && read(shared->wake_fd, &count, sizeof(count)) < 0)
            continue;
        if (waited[0].revents)
            verbs_events_look(node);
    }
    return NULL;
}

int verbs_thread_start(struct rdma_node *node)
{
    struct verbs_node *shared = node->private;
    sigset_t all, before;
    int error;

    shared->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (shared->wake_fd < 0)
        return -errno;
    /* Signals belong to the program's own threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = -pthread_create(&shared->thread, NULL, thread_main, node);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    shared->thread_runs = error == 0;
    return error;
}

/* Cannot fail: the counter is far from its limit. */
static void thread_wake(struct verbs_node *shared)
{
    uint64_t one = 1;

    if (write(shared->wake_fd, &one, sizeof(one)) < 0)
        return;
}

void verbs_thread_stop(struct verbs_node *shared)
{
    if (shared->thread_runs) {
        pthread_mutex_lock(&shared->job_lock);
        shared->stopping = true;
        pthread_mutex_unlock(&shared->job_lock);
        thread_wake(shared);
        pthread_join(shared->thread, NULL);
        shared->thread_runs = false;
    }
    if (shared->wake_fd >= 0)
        close(shared->wake_fd);
    shared->wake_fd = -1;
}

/* Jobs are bounded by the node's timeout, so waiting for one is too. */
static void job_ask(struct verbs_node *shared, struct verbs_job *job)
{
    struct verbs_job **last = &shared->jobs;

    pthread_mutex_lock(&shared->job_lock);
    while (*last)
        last = &(*last)->next;
    *last = job;
    thread_wake(shared);
    while (!job->done)
        pthread_cond_wait(&shared->job_done, &shared->job_lock);
    pthread_mutex_unlock(&shared->job_lock);
}

int verbs_link_open(struct rdma_node *node, struct verbs_link *link, uint16_t kind, uint32_t depth,
                    const char **why)
{
    struct verbs_job job = {.link = link, .kind = kind, .depth = depth, .why = *why};

    job_ask(node->private, &job);
    *why = job.why;
    return job.error;
}

bool verbs_abandoned(const struct verbs_node *shared)
{
    return shared->keeper_fd >= 0 && rdma_node_error(shared->node);
}

void verbs_link_close(struct verbs_node *shared, struct verbs_link *link)
{
    struct verbs_job job = {.link = link, .closes = true};

    if (!verbs_abandoned(shared))
        job_ask(shared, &job);
}
