/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Greeting a memory node: connect, HELLO, READY, all within the configured time. Runs in the
 * connecting thread, before the control thread exists. Everything the peer says is checked here
 * before anything is built on it.
 */
#include "rdma/transport.h"
#include "support.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>

#define GREET_PATIENCE 8u /* times the timeout, for a server that shows that it is alive */

/* Waits for `events` on fd; what is there already is seen even when the patience is used up.
 * 0, -ETIMEDOUT or -errno. */
static int greet_wait(int fd, short events, struct patience *patience)
{
    for (;;) {
        struct pollfd waited = {.fd = fd, .events = events};
        int slice_ms = (int)(patience->slice_ns / 1000000);
        int ready = poll(&waited, 1, patience->left_ns == 0 ? 0 : slice_ms > 0 ? slice_ms : 1);

        if (ready > 0)
            return 0;
        if (ready < 0 && errno != EINTR)
            return -errno;
        if (patience_spend(patience))
            return -ETIMEDOUT;
    }
}

static int greet_connect(struct rdma_node *node, struct patience *patience)
{
    int one = 1;
    int error = 0;
    socklen_t error_bytes = sizeof(error);
    int fd = socket(node->address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    channel_init(&node->channel, fd, WIRE_TO_CLIENT);
    if (!address_is_unix(&node->address))
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(fd, (const struct sockaddr *)&node->address.storage, node->address.bytes) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return -errno;
    error = greet_wait(fd, POLLOUT, patience);
    if (error)
        return error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_bytes) < 0)
        return -errno;
    return -error;
}

static void greet_hello(const struct rdma_node *node, const char *name, union wire_message *hello)
{
    size_t length = name ? strnlen(name, WIRE_NAME_BYTES - 1) : 0;
    uint64_t timeout_ms = node->timeout_ns / 1000000;

    wire_message_init(hello, WIRE_HELLO);
    hello->hello.quota_bytes = node->quota_bytes;
    hello->hello.span_pages = node->span_pages;
    hello->hello.transport = (uint32_t)node->transport->wire;
    hello->hello.timeout_ms = timeout_ms ? (uint32_t)timeout_ms : 1;
    for (size_t i = 0; i < length; i++)
        hello->hello.name[i] = name[i] < ' ' || name[i] > '~' ? '?' : name[i];
}

static int greet_error_code(uint32_t code)
{
    switch (code) {
    case WIRE_ERROR_FULL:
        return -ENOSPC;
    case WIRE_ERROR_UNSUPPORTED:
        return -EOPNOTSUPP;
    case WIRE_ERROR_BUSY:
        return -EBUSY;
    case WIRE_ERROR_INTERNAL:
        return -EIO;
    default:
        return -EPROTO;
    }
}

/* The next message, PINGs aside: with them a server that is starting our worker, which takes 0.2 s
 * and more on a busy host, says that it is alive. Each one buys it time, up to a limit. */
static int greet_receive(struct rdma_node *node, union wire_message *answer)
{
    struct patience silence = rdma_patience(node);
    uint64_t left_ns = GREET_PATIENCE * node->timeout_ns;
    int got;

    for (;;) {
        got = channel_receive(&node->channel, answer);
        if (got > 0 && answer->header.type == WIRE_PING) {
            uint64_t given_ns = left_ns < node->timeout_ns ? left_ns : node->timeout_ns;

            (void)patience_spend(&silence); /* PINGs without end leave no time to wait */
            left_ns -= given_ns - silence.left_ns;
            if (left_ns == 0)
                return -ETIMEDOUT;
            silence = rdma_patience(node);
            if (silence.left_ns > left_ns)
                silence.left_ns = left_ns;
            continue;
        }
        if (got != 0)
            return got;
        got = greet_wait(node->channel.fd, POLLIN, &silence);
        if (got < 0)
            return got;
    }
}

/* *told: the server's own words were printed already. */
static int greet_answer(struct rdma_node *node, bool *told)
{
    union wire_message answer;
    int got = greet_receive(node, &answer);

    if (got < 0)
        return got == -ECONNRESET ? -EPROTO : got;
    if (answer.header.type == WIRE_ERROR && answer.error.code == WIRE_ERROR_FULL &&
        node->quota_bytes > node->quota_least_bytes)
        return -EDQUOT;
    if (answer.header.type == WIRE_ERROR) {
        *told = true;
        if (answer.error.code == WIRE_ERROR_UNSUPPORTED)
            rdma_node_explain(node, "refused: %s", answer.error.text);
        else
            message_error("memory node %s: refused: %s", node->address_text, answer.error.text);
        return greet_error_code(answer.error.code);
    }
    if (answer.header.type != WIRE_READY ||
        answer.ready.transport != (uint32_t)node->transport->wire ||
        answer.ready.quota_bytes < node->quota_bytes)
        return -EPROTO;
    node->ready = answer.ready;
    return 0;
}

static void greet_explain(const struct rdma_node *node, int error)
{
    double seconds = (double)node->timeout_ns / 1e9;

    if (error == -EPROTO)
        message_error("memory node %s: no memory server there (it speaks another protocol)",
                      node->address_text);
    else if (error == -EPROTONOSUPPORT)
        message_error("memory node %s: memory server of another version (ours speaks %u)",
                      node->address_text, WIRE_VERSION);
    else if (error == -ETIMEDOUT)
        message_error("memory node %s: no answer within %.1f s (is it running and reachable?)",
                      node->address_text, seconds);
    else
        message_error("memory node %s: cannot connect: %s (is a memserver listening there?)",
                      node->address_text, strerror(-error));
}

/* -EDQUOT: asked for more than there is, and could do with less. */
static int greet_once(struct rdma_node *node, const char *name)
{
    struct patience patience = rdma_patience(node);
    union wire_message hello;
    bool told = false;
    int error = greet_connect(node, &patience);

    if (error == -ENOENT) /* a unix path nobody listens on is the same to the user */
        error = -ECONNREFUSED;
    if (!error) {
        greet_hello(node, name, &hello);
        error = channel_send(&node->channel, &hello);
    }
    /* The transport's library loads while the server starts our worker: both take 0.2 s. */
    if (!error && node->transport->prepare)
        node->transport->prepare();
    if (!error)
        error = greet_answer(node, &told);
    if (!error || error == -EDQUOT)
        return error;
    if (!told)
        greet_explain(node, error);
    return error == -EPROTONOSUPPORT ? -EPROTO : error;
}

int rdma_node_greet(struct rdma_node *node, const char *name)
{
    int error = greet_once(node, name);

    while (error == -EDQUOT) {
        uint64_t half_bytes = node->quota_bytes / 2 & ~(WIRE_SLAB_BYTES - 1ULL);

        channel_close(&node->channel);
        node->quota_bytes =
            half_bytes > node->quota_least_bytes ? half_bytes : node->quota_least_bytes;
        error = greet_once(node, name);
    }
    return error;
}
