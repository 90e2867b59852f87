/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control thread of a node: reads the control connection, hands answers to whoever waits, and
 * keeps the heartbeat. The server passes a PING through the tenant's worker process, so a PONG
 * proves that both its processes run; silence for the node's timeout ends the node. Time in which
 * this process itself was stopped does not count as silence.
 */
#include "rdma/heartbeat.h"
#include "rdma/transport.h"
#include "support.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define MESSAGES_A_TURN 64u          /* then whoever waits for the lock has a turn ... */
#define TURN_PAUSE_MS   1            /* ... and a server that sends without end is slowed down */
#define SLICE_MAX_NS    100000000ULL /* of a wait for the server ... */
#define SLICES_LEAST    8u           /* ... of which there are so many at least */

struct patience rdma_patience(const struct rdma_node *node)
{
    uint64_t slice_ns = node->timeout_ns / SLICES_LEAST;

    return patience_of(node->timeout_ns, slice_ns < SLICE_MAX_NS ? slice_ns : SLICE_MAX_NS);
}

int rdma_control_wait(struct rdma_node *node, struct patience *patience)
{
    uint64_t sleep_ns =
        patience->left_ns < patience->slice_ns ? patience->left_ns : patience->slice_ns;
    uint64_t until_ns = clock_now_ns() + sleep_ns;
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000),
                             .tv_nsec = (long)(until_ns % 1000000000)};
    int error = atomic_load(&node->error);

    if (error)
        return error;
    pthread_cond_timedwait(&node->changed, &node->lock, &until);
    error = patience_spend(patience);
    return atomic_load(&node->error) ? atomic_load(&node->error) : error;
}

int rdma_control_send(struct rdma_node *node, const union wire_message *message)
{
    struct patience patience = rdma_patience(node);
    uint64_t one = 1;
    int error = rdma_node_error(node);

    while (!error) {
        error = channel_send(&node->channel, message);
        if (!error && channel_wants_write(&node->channel) &&
            write(node->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
            error = -errno;
        if (error != -ENOBUFS)
            break;
        error = rdma_control_wait(node, &patience);
    }
    if (error == -ETIMEDOUT)
        rdma_node_fail(node, error, "takes no more requests (is the server stopped?)");
    else if (error)
        rdma_node_fail(node, -ECONNRESET, "connection lost: %s", strerror(-error));
    return error;
}

/* An answer nobody asked for, or that promises more than asked, is a broken server. */
static int control_reserved(struct rdma_node *node, const struct wire_reserved *reserved)
{
    if (!node->reserving || node->reserve_answered || reserved->first_slab != node->reserve_first ||
        reserved->count > node->reserve_count)
        return -EPROTO;
    if (node->transport->wire == WIRE_LOOPBACK) {
        for (uint32_t i = 0; i < reserved->count; i++) {
            if (reserved->slabs[i].remote > node->ready.map_bytes - WIRE_SLAB_BYTES)
                return -EPROTO;
        }
    }
    node->reserve_answer = *reserved;
    node->reserve_answered = true;
    pthread_cond_broadcast(&node->changed);
    return 0;
}

static int control_dispatch(struct rdma_node *node, struct heartbeat *heartbeat,
                            union wire_message *message)
{
    heartbeat_heard(heartbeat);
    switch (message->header.type) {
    case WIRE_PING:
        message->header.type = WIRE_PONG;
        return channel_send(&node->channel, message);
    case WIRE_PONG:
        return heartbeat_pong(heartbeat, message->ping.stamp) ? 0 : -EPROTO;
    case WIRE_RESERVED:
        return control_reserved(node, &message->reserved);
    case WIRE_RELEASED:
        return 0;
    case WIRE_ERROR:
        rdma_node_fail(node, -ECONNRESET, "ended by the server: %s", message->error.text);
        return -ECONNRESET;
    default:
        return -EPROTO;
    }
}

/* The lock is held: a server that always has one more to say may not keep it. *more: it may have.
 */
static int control_receive(struct rdma_node *node, struct heartbeat *heartbeat, bool *more)
{
    union wire_message message;

    for (unsigned i = 0; i < MESSAGES_A_TURN; i++) {
        int got = channel_receive(&node->channel, &message);
        int error = got > 0 ? control_dispatch(node, heartbeat, &message) : got;

        if (got <= 0 || error)
            return error;
    }
    *more = true;
    return 0;
}

/* A PING each interval; more than the limit without a word is the end. */
static int control_heartbeat(struct rdma_node *node, struct heartbeat *heartbeat)
{
    enum heartbeat_turn turn = heartbeat_turn(heartbeat, clock_now_ns());
    union wire_message ping;

    if (turn != HEARTBEAT_PING)
        return turn == HEARTBEAT_LOST ? -ETIMEDOUT : 0;
    wire_message_init(&ping, WIRE_PING);
    ping.ping.stamp = heartbeat->stamp;
    return channel_send(&node->channel, &ping);
}

static void control_lost(struct rdma_node *node, int error)
{
    double seconds = (double)node->timeout_ns / 1e9;

    if (error == -ETIMEDOUT)
        rdma_node_fail(node, error, "no sign of life for %.1f s (stopped, or network down?)",
                       seconds);
    else if (error == -EPROTO || error == -EPROTONOSUPPORT)
        rdma_node_fail(node, -ECONNRESET, "sent what a memory server must not send");
    else if (error == -ECONNRESET || error == -EPIPE)
        rdma_node_fail(node, -ECONNRESET, "connection closed by the server (did it end?)");
    else
        rdma_node_fail(node, -ECONNRESET, "connection lost: %s", strerror(-error));
}

/* One turn with the lock held; true to go on. Sleeping happens in the caller, without it; *more:
 * not until something comes. */
static bool control_turn(struct rdma_node *node, struct heartbeat *heartbeat, bool *more)
{
    uint64_t count;
    bool was_full = channel_wants_write(&node->channel);
    int error;

    if (node->stopping)
        return false;
    if (read(node->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        return false;
    error = control_receive(node, heartbeat, more);
    if (!error)
        error = channel_flush(&node->channel);
    if (!error)
        error = control_heartbeat(node, heartbeat);
    if (error)
        control_lost(node, error);
    if (was_full || error)
        pthread_cond_broadcast(&node->changed);
    return rdma_node_error(node) == 0;
}

static void *control_main(void *argument)
{
    struct rdma_node *node = argument;
    struct heartbeat heartbeat = heartbeat_begin(node->timeout_ns, clock_now_ns());
    bool on = true;

    while (on) {
        struct pollfd waited[3] = {{.fd = node->channel.fd, .events = POLLIN},
                                   {.fd = node->wake_fd, .events = POLLIN},
                                   {.fd = node->event_fd, .events = POLLIN}};
        bool more = false;

        pthread_mutex_lock(&node->lock);
        on = control_turn(node, &heartbeat, &more);
        if (channel_wants_write(&node->channel))
            waited[0].events |= POLLOUT;
        pthread_mutex_unlock(&node->lock);
        if (on)
            poll(waited, more ? 0 : 3,
                 more ? TURN_PAUSE_MS : (int)(heartbeat.interval_ns / 2000000 + 1));
    }
    /* Somebody may have begun to wait between a failure elsewhere and now. */
    pthread_mutex_lock(&node->lock);
    pthread_cond_broadcast(&node->changed);
    pthread_mutex_unlock(&node->lock);
    return NULL;
}

int rdma_control_start(struct rdma_node *node)
{
    sigset_t all, before;
    int error;

    /* Signals belong to the program's own threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = -pthread_create(&node->thread, NULL, control_main, node);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        message_error("memory node %s: cannot start a thread: %s", node->address_text,
                      strerror(-error));
    else
        node->thread_runs = true;
    return error;
}

void rdma_control_stop(struct rdma_node *node)
{
    union wire_message bye;
    uint64_t one = 1;

    if (!node->thread_runs)
        return;
    pthread_mutex_lock(&node->lock);
    node->stopping = true;
    if (!rdma_node_error(node)) {
        wire_message_init(&bye, WIRE_BYE);
        /* Best effort: closing the connection frees the tenant too. */
        channel_send(&node->channel, &bye);
    }
    pthread_mutex_unlock(&node->lock);
    if (write(node->wake_fd, &one, sizeof(one)) < 0)
        message_warning("memory node %s: cannot wake its thread: %s", node->address_text,
                        strerror(errno));
    pthread_join(node->thread, NULL);
    node->thread_runs = false;
}
