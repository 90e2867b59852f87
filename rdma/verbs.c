/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The RDMA transport on rdma-core: the node's side of it, and the table of operations. The device
 * moves data by itself; the memory node's processor has no part in it.
 */
#include "rdma/verbs.h"
#include "rdma/keeper.h"
#include "support.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A missing library is reported by open, with its message. */
static void verbs_prepare(void)
{
    (void)verbs_library_load();
}

static int verbs_node_create(struct rdma_node *node, const char **why)
{
    struct verbs_node *shared;

    *why = "libibverbs and librdmacm";
    if (verbs_library_load())
        return -ELIBACC;
    *why = "memory";
    shared = calloc(1, sizeof(*shared));
    if (!shared)
        return -ENOMEM;
    pthread_mutex_init(&shared->job_lock, NULL);
    pthread_cond_init(&shared->job_done, NULL);
    pthread_mutex_init(&shared->buffer_lock, NULL);
    shared->node = node;
    shared->wake_fd = -1;
    shared->keeper_fd = -1;
    atomic_store(&shared->buffers_changed, 1); /* a new queue has seen 0: nothing */
    node->private = shared;
    *why = "connection manager";
    return verbs_event_channel_open(&shared->events);
}

/* The connections are closed. Of an abandoned node the device's objects stay. */
static void verbs_device_close(const struct verbs_node *shared)
{
    if (verbs_abandoned(shared))
        return;
    if (shared->pd)
        verbs.ibv_dealloc_pd(shared->pd);
    if (shared->events)
        verbs.rdma_destroy_event_channel(shared->events);
    /* After these, so that there is nothing left to do for it. */
    if (shared->keeper_fd >= 0)
        close(shared->keeper_fd);
}

static void verbs_close(struct rdma_node *node)
{
    struct verbs_node *shared = node->private;

    if (!shared)
        return;
    if (shared->thread_runs)
        verbs_link_close(shared, &shared->anchor);
    verbs_thread_stop(shared);
    verbs_buffers_close(node);
    verbs_device_close(shared);
    pthread_cond_destroy(&shared->job_done);
    pthread_mutex_destroy(&shared->job_lock);
    pthread_mutex_destroy(&shared->buffer_lock);
    free(shared);
    node->private = NULL;
}

static int verbs_keeper_start(struct verbs_node *shared, const char **why)
{
    int files[] = {shared->anchor.id->verbs->cmd_fd, shared->events->fd};

    *why = "keeper process";
    shared->keeper_fd = keeper_start(files, sizeof(files) / sizeof(files[0]));
    return shared->keeper_fd < 0 ? shared->keeper_fd : 0;
}

static int verbs_open(struct rdma_node *node, int passed_fd)
{
    struct verbs_node *shared;
    const char *why;
    int error = verbs_node_create(node, &why);

    (void)passed_fd;
    shared = node->private;
    if (!error)
        error = verbs_thread_start(node);
    if (!error)
        error = verbs_link_open(node, &shared->anchor, VERBS_ANCHOR, 1, &why);
    if (!error)
        error = verbs_keeper_start(shared, &why);
    if (error) {
        rdma_node_explain(node, "cannot use RDMA: %s: %s", why, strerror(-error));
        return error;
    }
    snprintf(node->describe, sizeof(node->describe), "verbs/%s",
             verbs.ibv_get_device_name(shared->anchor.id->verbs->device));
    return 0;
}

/* This host's own addresses are better served by the other transports. */
static bool verbs_is_local(const struct rdma_node *node)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&node->address.storage;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&node->address.storage;

    if (node->address.storage.ss_family == AF_INET)
        return ntohl(v4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    return node->address.storage.ss_family != AF_INET6 || IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

static bool verbs_usable(struct rdma_node *node)
{
    const char *why;
    bool usable;

    if (verbs_is_local(node) || !verbs_device_exists())
        return false;
    usable = verbs_node_create(node, &why) == 0 && verbs_reaches(node) == 0;
    verbs_close(node);
    return usable;
}

const struct rdma_transport rdma_verbs = {
    .name = "verbs",
    .wire = WIRE_VERBS,
    .needs_buffer = true,
    /* A 4 KiB read takes 2 to 5 us on a network card, a sleep and its end about 10. */
    .spin_ns =
        {[RDMA_QUEUE_DEMAND] = 50000, [RDMA_QUEUE_PREFETCH] = 20000, [RDMA_QUEUE_WRITEBACK] = 5000},
    .prepare = verbs_prepare,
    .usable = verbs_usable,
    .open = verbs_open,
    .close = verbs_close,
    .buffer_alloc = verbs_buffer_alloc,
    .buffer_free = verbs_buffer_free,
    .queue_open = verbs_queue_open,
    .queue_close = verbs_queue_close,
    .post = verbs_post,
    .flush = verbs_flush,
    .poll = verbs_poll,
    .wait = verbs_wait,
};
