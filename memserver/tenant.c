/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One control connection, from accept to the end: its messages, its memory, its worker. A tenant
 * whose worker was asked something is BUSY and not read from until the worker answers, so requests
 * of one tenant stay in order and a worker that hangs delays nobody else.
 */
#include "memserver/memserver.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define MESSAGES_A_TURN 32 /* then the other tenants have theirs */

struct tenant *tenant_create(struct server *server, int fd)
{
    struct tenant *tenant = calloc(1, sizeof(*tenant));

    if (!tenant)
        return NULL;
    channel_init(&tenant->channel, fd, WIRE_TO_SERVER);
    tenant->server = server;
    tenant->peer = (struct source){SOURCE_PEER, fd};
    tenant->worker = (struct source){SOURCE_WORKER, -1};
    tenant->memory_fd = -1;
    tenant->came_ns = tenant->heard_ns = clock_now_ns();
    tenant->admission = patience_of(STARTING_LIMIT_NS, SERVER_SLICE_NS);
    if (server_watch(server, &tenant->peer, EPOLLIN | EPOLLRDHUP) < 0) {
        free(tenant);
        return NULL;
    }
    tenant->next = server->tenants;
    server->tenants = tenant;
    server->connections++;
    return tenant;
}

const char *tenant_label(const struct tenant *tenant, char *buffer, size_t bytes)
{
    snprintf(buffer, bytes, "tenant %llu%s%s%s", (unsigned long long)tenant->number,
             tenant->hello.name[0] ? " '" : "", tenant->hello.name,
             tenant->hello.name[0] ? "'" : "");
    return buffer;
}

static void tenant_unlink(struct tenant *tenant)
{
    struct tenant **link = &tenant->server->tenants;

    while (*link != tenant)
        link = &(*link)->next;
    *link = tenant->next;
    tenant->server->connections--;
    if (tenant->admitted)
        tenant->server->admitted--;
}

void tenant_destroy(struct tenant *tenant)
{
    struct server *server = tenant->server;
    char label[128], held[32];

    if (tenant->admitted)
        message_info(
            "%s: left, %s freed", tenant_label(tenant, label, sizeof(label)),
            format_bytes(tenant->slabs.table.held_slabs * WIRE_SLAB_BYTES, held, sizeof(held)));
    tenant_unlink(tenant);
    server_unwatch(server, &tenant->peer);
    channel_close(&tenant->channel);
    if (tenant->worker.fd >= 0) {
        server_unwatch(server, &tenant->worker);
        close(tenant->worker.fd);
        kill(tenant->worker_pid, SIGKILL);
    }
    if (tenant->memory_fd >= 0)
        server_reap_memory(server, tenant->memory_fd);
    slab_map_destroy(&tenant->slabs, &server->pool);
    free(tenant);
}

void tenant_end(struct tenant *tenant, enum wire_error_code code, const char *format, ...)
{
    union wire_message message;
    char label[128];
    va_list arguments;

    if (tenant->state == TENANT_LEAVING)
        return;
    wire_message_init(&message, WIRE_ERROR);
    message.error.code = (uint32_t)code;
    va_start(arguments, format);
    vsnprintf(message.error.text, sizeof(message.error.text), format, arguments);
    va_end(arguments);
    /* strncpy-like padding is given: the message was zeroed and the text printable. */
    if (tenant->admitted)
        message_warning("%s: ended: %s", tenant_label(tenant, label, sizeof(label)),
                        message.error.text);
    channel_send(&tenant->channel, &message);
    tenant->state = TENANT_LEAVING;
}

/* What epoll should report, from the tenant's state. */
static void tenant_rewatch(struct tenant *tenant)
{
    uint32_t events = EPOLLRDHUP;

    if (tenant->state == TENANT_GREETING || tenant->state == TENANT_READY)
        events |= EPOLLIN;
    if (channel_wants_write(&tenant->channel))
        events |= EPOLLOUT;
    server_rewatch(tenant->server, &tenant->peer, events);
}

void tenant_send(struct tenant *tenant, const union wire_message *message)
{
    /* A peer that lets 64 KiB of answers pile up is broken or hostile. */
    if (channel_send(&tenant->channel, message) < 0)
        tenant->state = TENANT_LEAVING;
    else if (channel_wants_write(&tenant->channel))
        tenant_rewatch(tenant);
}

void tenant_ask_worker(struct tenant *tenant, struct worker_message *message)
{
    tenant->state = TENANT_BUSY;
    tenant->asked = message->type;
    if (worker_send(tenant->worker.fd, message) < 0)
        tenant_end(tenant, WIRE_ERROR_INTERNAL, "its worker process does not answer");
    tenant_rewatch(tenant);
}

static void tenant_reserve_done(struct tenant *tenant)
{
    union wire_message answer;

    wire_message_init(&answer, WIRE_RESERVED);
    tenant->reserved.header = answer.header;
    answer.reserved = tenant->reserved;
    tenant_send(tenant, &answer);
}

/* Huge pages are taken now: a touch without one later would be a SIGBUS. */
static int tenant_commit(struct tenant *tenant, uint64_t index)
{
    if (!tenant->server->config.hugepages)
        return 0;
    return fallocate(tenant->memory_fd, 0, (off_t)(index * WIRE_SLAB_BYTES), WIRE_SLAB_BYTES) < 0
               ? -ENOSPC
               : 0;
}

static void tenant_reserve(struct tenant *tenant, const struct wire_range *range)
{
    struct worker_message ask = {.type = WORKER_MAP};
    struct wire_reserved *reserved = &tenant->reserved;

    memset(reserved, 0, sizeof(*reserved));
    reserved->first_slab = range->first_slab;
    for (uint32_t i = 0; i < range->count; i++) {
        uint64_t slab = range->first_slab + i;
        uint64_t index = 0;
        int error = slab * (WIRE_SLAB_BYTES / 4096u) >= tenant->hello.span_pages
                        ? -EEXIST
                        : slab_map_add(&tenant->slabs, &tenant->server->pool, slab, &index);

        if (!error && tenant_commit(tenant, index) < 0) {
            slab_map_remove(&tenant->slabs, &tenant->server->pool, slab);
            error = -ENOSPC;
        }
        if (error == -EEXIST) {
            tenant_end(tenant, WIRE_ERROR_PROTOCOL, "asked for a slab it must not ask for");
            return;
        }
        if (error) {
            reserved->full = error == -EDQUOT ? 1 : 2;
            break;
        }
        reserved->slabs[i].remote = index * WIRE_SLAB_BYTES;
        reserved->count++;
    }
    if (tenant->worker.fd < 0 || reserved->count == 0) {
        tenant_reserve_done(tenant);
        return;
    }
    ask.count = reserved->count;
    ask.first_slab = reserved->first_slab;
    memcpy(ask.slabs, reserved->slabs, sizeof(ask.slabs));
    tenant_ask_worker(tenant, &ask);
}

/* The memory is free by now: by the worker, or by the hole just punched. */
static void tenant_release_done(struct tenant *tenant)
{
    union wire_message answer;

    for (uint32_t i = 0; i < tenant->range.count; i++)
        slab_map_remove(&tenant->slabs, &tenant->server->pool, tenant->range.first_slab + i);
    wire_message_init(&answer, WIRE_RELEASED);
    answer.range.first_slab = tenant->range.first_slab;
    answer.range.count = tenant->range.count;
    tenant_send(tenant, &answer);
}

static void tenant_release(struct tenant *tenant, const struct wire_range *range)
{
    struct worker_message ask = {
        .type = WORKER_UNMAP, .count = range->count, .first_slab = range->first_slab};

    tenant->range = *range;
    for (uint32_t i = 0; i < range->count; i++) {
        uint64_t index;

        if (slab_map_find(&tenant->slabs, range->first_slab + i, &index) < 0) {
            tenant_end(tenant, WIRE_ERROR_PROTOCOL, "gave back a slab it does not hold");
            return;
        }
        ask.slabs[i].remote = index * WIRE_SLAB_BYTES;
    }
    if (tenant->worker.fd >= 0) {
        tenant_ask_worker(tenant, &ask);
        return;
    }
    for (uint32_t i = 0; i < range->count; i++)
        fallocate(tenant->memory_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)ask.slabs[i].remote, WIRE_SLAB_BYTES);
    tenant_release_done(tenant);
}

static void tenant_ping(struct tenant *tenant, const union wire_message *ping)
{
    struct worker_message ask = {.type = WORKER_PING, .stamp = ping->ping.stamp};
    union wire_message pong;

    if (tenant->worker.fd >= 0) {
        tenant_ask_worker(tenant, &ask);
        return;
    }
    wire_message_init(&pong, WIRE_PONG);
    pong.ping.stamp = ping->ping.stamp;
    tenant_send(tenant, &pong);
}

static void tenant_greeting(struct tenant *tenant, const union wire_message *message)
{
    union wire_message reply;

    if (message->header.type == WIRE_HELLO) {
        tenant_hello(tenant, &message->hello);
        return;
    }
    if (message->header.type != WIRE_STATUS) {
        tenant_end(tenant, WIRE_ERROR_PROTOCOL, "expected HELLO first");
        return;
    }
    wire_message_init(&reply, WIRE_STATUS_REPLY);
    report_fill(tenant->server, message->status.after_tenant, &reply.status_reply);
    tenant_send(tenant, &reply);
}

static void tenant_message(struct tenant *tenant, const union wire_message *message)
{
    tenant->heard_ns = clock_now_ns();
    if (tenant->state == TENANT_GREETING) {
        tenant_greeting(tenant, message);
        return;
    }
    switch (message->header.type) {
    case WIRE_PING:
        tenant_ping(tenant, message);
        break;
    case WIRE_PONG:
        break;
    case WIRE_RESERVE:
        tenant_reserve(tenant, &message->range);
        break;
    case WIRE_RELEASE:
        tenant_release(tenant, &message->range);
        break;
    case WIRE_BYE:
        tenant->state = TENANT_LEAVING;
        break;
    default:
        tenant_end(tenant, WIRE_ERROR_PROTOCOL, "sent a message out of order");
    }
}

/* Reads and answers until nothing is there, the tenant is busy, or the others' turn has come. */
static void tenant_serve(struct tenant *tenant)
{
    union wire_message message;

    tenant->more = false;
    for (int done = 0; tenant->state == TENANT_GREETING || tenant->state == TENANT_READY; done++) {
        int got;

        if (done == MESSAGES_A_TURN) {
            tenant->more = true;
            return;
        }
        got = channel_receive(&tenant->channel, &message);
        if (got == 0)
            return;
        if (got == -EPROTONOSUPPORT)
            tenant_end(tenant, WIRE_ERROR_VERSION, "this memory server speaks version %u",
                       WIRE_VERSION);
        else if (got == -EPROTO)
            tenant_end(tenant, WIRE_ERROR_PROTOCOL, "sent what no client sends");
        else if (got < 0)
            tenant->state = TENANT_LEAVING;
        else
            tenant_message(tenant, &message);
    }
}

void tenant_peer_event(struct tenant *tenant, uint32_t events)
{
    if (tenant->state == TENANT_LEAVING)
        return;
    if (events & EPOLLOUT) {
        if (channel_flush(&tenant->channel) < 0)
            tenant->state = TENANT_LEAVING;
        tenant_rewatch(tenant);
    }
    if (tenant->state == TENANT_BUSY && (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
        tenant->state = TENANT_LEAVING;
    tenant_serve(tenant);
}

static void tenant_worker_answer(struct tenant *tenant, const struct worker_message *answer)
{
    union wire_message pong;

    if (answer->type == WORKER_START) {
        tenant_worker_started(tenant, answer);
        return;
    }
    tenant->state = TENANT_READY;
    if (answer->status < 0) {
        tenant_end(tenant, WIRE_ERROR_INTERNAL, "its worker process failed: %s",
                   strerror(-answer->status));
    } else if (answer->type == WORKER_MAP) {
        for (uint32_t i = 0; i < tenant->reserved.count; i++)
            tenant->reserved.slabs[i] = answer->slabs[i];
        tenant_reserve_done(tenant);
    } else if (answer->type == WORKER_UNMAP) {
        tenant_release_done(tenant);
    } else {
        wire_message_init(&pong, WIRE_PONG);
        pong.ping.stamp = answer->stamp;
        tenant_send(tenant, &pong);
    }
}

void tenant_worker_event(struct tenant *tenant)
{
    struct worker_message answer;
    int got;

    if (tenant->state == TENANT_LEAVING)
        return;
    got = worker_receive(tenant->worker.fd, &answer);
    if (got == 0)
        return;
    /* A worker that its tenant has taken over must not say that memory is free which was not. */
    if (got < 0 || tenant->state != TENANT_BUSY || answer.type != tenant->asked) {
        tenant_end(tenant, WIRE_ERROR_INTERNAL, "its worker process ended");
        return;
    }
    tenant_worker_answer(tenant, &answer);
    tenant_rewatch(tenant);
    /* Messages read before the tenant became busy are in the channel's buffer, not the socket's. */
    tenant_serve(tenant);
}
