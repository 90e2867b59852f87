/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hostile server: see its header. It uses the product's own message structs, but sends them
 * past every check.
 */
#include "tests/unit/rdma/hostile_server.h"

#include "rdma/channel.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SERVE_LIMIT_MS 20000

static void send_raw(int fd, const void *bytes, size_t count)
{
    /* The client may have hung up already: that is its right. */
    if (send(fd, bytes, count, MSG_NOSIGNAL) < 0)
        return;
}

static void send_garbage(int fd)
{
    uint8_t noise[300];

    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (uint8_t)(i * 37 + 11);
    send_raw(fd, noise, sizeof(noise));
}

/* Until the client hangs up. */
static void send_flood(int fd, enum wire_type type)
{
    static uint8_t flood[256 << 10];
    union wire_message message;
    size_t used = 0;
    int room = 16 << 20; /* so much that it lasts until this thread gets a processor again */

    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)) < 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));

    wire_message_init(&message, type);
    if (type == WIRE_RELEASED)
        message.range.count = 1;
    for (; used + message.header.bytes <= sizeof(flood); used += message.header.bytes)
        memcpy(flood + used, &message, message.header.bytes);
    fcntl(fd, F_SETFL, 0); /* blocks, so that it never sends half a message */
    for (size_t at = 0;;) {
        ssize_t sent = send(fd, flood + at, used - at, MSG_NOSIGNAL);

        if (sent < 0)
            return;
        at = (at + (size_t)sent) % used;
    }
}

static int memory_create(const struct hostile_server *server, uint64_t bytes)
{
    int fd = memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (server->lie == HOSTILE_PASSES_SHORT_MEMORY)
        bytes /= 2;
    if (ftruncate(fd, (off_t)bytes) < 0)
        abort();
    if (server->lie != HOSTILE_PASSES_SHRINKABLE_MEMORY)
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
    return fd;
}

static void send_ready(const struct hostile_server *server, struct channel *channel,
                       const struct wire_hello *hello)
{
    union wire_message ready;
    int memory = memory_create(server, hello->quota_bytes);

    wire_message_init(&ready, WIRE_READY);
    ready.ready.tenant = 1;
    ready.ready.quota_bytes = hello->quota_bytes;
    ready.ready.map_bytes = hello->quota_bytes;
    ready.ready.transport = hello->transport;
    if (server->lie == HOSTILE_GRANTS_LESS_QUOTA)
        ready.ready.quota_bytes = WIRE_SLAB_BYTES;
    if (server->lie == HOSTILE_CHANGES_THE_TRANSPORT) {
        ready.ready.transport = WIRE_OFI_TCP;
        ready.ready.map_bytes = 0;
        ready.ready.fabric_port = 1;
    }
    if (server->lie == HOSTILE_FABRIC) {
        ready.ready.map_bytes = 0;
        ready.ready.fabric_port = server->fabric_port;
    }
    if (server->lie == HOSTILE_PASSES_NO_MEMORY || server->lie == HOSTILE_FABRIC)
        channel_send(channel, &ready);
    else
        channel_send_fd(channel, &ready, memory);
    close(memory);
}

/* Instead of READY; true if this was the lie. */
static bool lie_before_ready(const struct hostile_server *server, int fd)
{
    union wire_message message;

    wire_message_init(&message, WIRE_ERROR);
    message.error.code = WIRE_ERROR_FULL;
    strcpy(message.error.text, "no room");
    switch (server->lie) {
    case HOSTILE_CLOSES_AT_ONCE:
        return true;
    case HOSTILE_SENDS_GARBAGE:
        send_garbage(fd);
        return true;
    case HOSTILE_CLOSES_IN_A_MESSAGE:
        send_raw(fd, &message, 20);
        return true;
    case HOSTILE_IS_SILENT:
        sleep(3);
        return true;
    case HOSTILE_TRICKLES:
        for (int i = 0; i < 30; i++) {
            send_raw(fd, (const char *)&message + i, 1);
            usleep(100000);
        }
        return true;
    case HOSTILE_FLOODS_BEFORE_READY:
        send_flood(fd, WIRE_PING);
        return true;
    case HOSTILE_SPEAKS_ANOTHER_VERSION:
        message.header.version = WIRE_VERSION + 1;
        break;
    case HOSTILE_REFUSES_WITH_CONTROL_CHARACTERS:
        message.error.text[2] = '\x1b';
        break;
    case HOSTILE_REFUSES_AS_FULL:
        break;
    default:
        return false;
    }
    send_raw(fd, &message, message.header.bytes);
    return true;
}

/* Straight after READY; true if the connection is to be closed now. */
static bool lie_after_ready(const struct hostile_server *server, struct channel *channel,
                            const struct wire_hello *hello)
{
    union wire_message message;

    switch (server->lie) {
    case HOSTILE_CLOSES_AFTER_READY:
        return true;
    case HOSTILE_SENDS_GARBAGE_AFTER_READY:
        send_garbage(channel->fd);
        return false;
    case HOSTILE_SAYS_READY_TWICE:
        send_ready(server, channel, hello);
        return false;
    case HOSTILE_FLOODS_AFTER_READY:
        send_flood(channel->fd, WIRE_RELEASED);
        return true;
    case HOSTILE_GRANTS_UNASKED:
        wire_message_init(&message, WIRE_RESERVED);
        message.reserved.count = 1;
        channel_send(channel, &message);
        return false;
    default:
        return false;
    }
}

static void answer_reserve(const struct hostile_server *server, struct channel *channel,
                           const struct wire_range *range)
{
    union wire_message answer;

    wire_message_init(&answer, WIRE_RESERVED);
    answer.reserved.first_slab = range->first_slab;
    answer.reserved.count = range->count;
    for (uint32_t i = 0; i < WIRE_SLABS_MAX; i++)
        answer.reserved.slabs[i].remote = (uint64_t)i * WIRE_SLAB_BYTES;
    switch (server->lie) {
    case HOSTILE_FORGETS_RESERVATIONS:
        return;
    case HOSTILE_GRANTS_ANOTHER_SLAB:
        answer.reserved.first_slab++;
        break;
    case HOSTILE_GRANTS_MORE_SLABS:
        answer.reserved.count++;
        break;
    case HOSTILE_GRANTS_OUTSIDE_THE_MAP:
        answer.reserved.slabs[0].remote = 1ULL << 40;
        break;
    case HOSTILE_GRANTS_UNALIGNED:
        answer.reserved.slabs[0].remote = 4096;
        break;
    case HOSTILE_SAYS_ERROR_LATER:
        wire_message_init(&answer, WIRE_ERROR);
        answer.error.code = WIRE_ERROR_INTERNAL;
        strcpy(answer.error.text, "on fire");
        break;
    default:
        break;
    }
    channel_send(channel, &answer);
}

static void answer(struct hostile_server *server, struct channel *channel,
                   union wire_message *message)
{
    if (server->lie == HOSTILE_IS_SILENT_AFTER_READY)
        return;
    if (message->header.type == WIRE_PING) {
        message->header.type = WIRE_PONG;
        if (server->lie == HOSTILE_ANSWERS_ANOTHER_PING)
            message->ping.stamp += 7;
        atomic_store(&server->pinged, true);
        while (server->lie == HOSTILE_ANSWERS_PINGS_LATE && !atomic_load(&server->may_answer))
            usleep(1000);
        channel_send(channel, message);
    } else if (message->header.type == WIRE_RESERVE) {
        answer_reserve(server, channel, &message->range);
    }
}

static bool receive(struct channel *channel, union wire_message *message)
{
    struct pollfd ready = {.fd = channel->fd, .events = POLLIN};
    int got;

    while ((got = channel_receive(channel, message)) == 0) {
        if (poll(&ready, 1, SERVE_LIMIT_MS) <= 0)
            return false;
    }
    return got > 0;
}

static void *serve(void *argument)
{
    struct hostile_server *server = argument;
    static _Thread_local struct channel channel;
    union wire_message hello, message;
    int fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return NULL;
    channel_init(&channel, fd, WIRE_TO_SERVER);
    if (receive(&channel, &hello) && !lie_before_ready(server, fd)) {
        send_ready(server, &channel, &hello.hello);
        if (!lie_after_ready(server, &channel, &hello.hello)) {
            while (receive(&channel, &message))
                answer(server, &channel, &message);
        }
    }
    channel_close(&channel);
    return NULL;
}

void hostile_server_start(struct hostile_server *server, enum hostile_lie lie)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};

    server->lie = lie;
    atomic_store(&server->pinged, false);
    atomic_store(&server->may_answer, false);
    strcpy(server->folder, "/tmp/farvisor-hostile-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(server->folder));
    snprintf(name.sun_path, sizeof(name.sun_path), "%s/s", server->folder);
    snprintf(server->address, sizeof(server->address), "unix:%s/s", server->folder);
    server->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(server->listener, (struct sockaddr *)&name, sizeof(name)), 0);
    ck_assert_int_eq(listen(server->listener, 4), 0);
    ck_assert_int_eq(pthread_create(&server->thread, NULL, serve, server), 0);
}

void hostile_server_stop(struct hostile_server *server)
{
    shutdown(server->listener, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->listener);
    unlink(server->address + strlen("unix:"));
    rmdir(server->folder);
}
