/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listening sockets: opening, telling where they are, accepting. A unix socket is for its owner
 * only (mode 0600), because whoever reaches it gets memory mapped. One left behind by a server that
 * died is replaced; one in use is an error like a port in use.
 */
#include "memserver/memserver.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG           128
#define CONNECTIONS_SPARE 64u /* not yet tenants: greeting, or asking for the status */
#define KEEPALIVE_IDLE_S  5   /* a peer whose host vanished is noticed in about 15 s */
#define KEEPALIVE_EACH_S  2
#define KEEPALIVE_PROBES  5
#define UNACKNOWLEDGED_MS 15000

static const char *listen_path(const struct address *address)
{
    return ((const struct sockaddr_un *)&address->storage)->sun_path;
}

/* A socket file that refuses connections belongs to nobody any more. */
static bool listen_stale(const struct address *address)
{
    struct stat status;
    bool stale = false;
    int fd;

    if (lstat(listen_path(address), &status) < 0 || !S_ISSOCK(status.st_mode))
        return false;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    if (connect(fd, (const struct sockaddr *)&address->storage, address->bytes) < 0)
        stale = errno == ECONNREFUSED;
    close(fd);
    return stale;
}

static int listen_bind(int fd, const struct address *address)
{
    const struct sockaddr *name = (const struct sockaddr *)&address->storage;
    mode_t before = umask(0177);
    int error = bind(fd, name, address->bytes) < 0 ? -errno : 0;

    if (error == -EADDRINUSE && address_is_unix(address) && listen_stale(address)) {
        unlink(listen_path(address));
        error = bind(fd, name, address->bytes) < 0 ? -errno : 0;
    }
    umask(before);
    return error;
}

static int listen_open(const char *text, struct address *address)
{
    const char *why;
    int one = 1;
    int error = address_parse(text, address, &why);
    int fd;

    if (error) {
        message_error("listen address '%s': %s", text, why);
        return error;
    }
    fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    error = fd < 0 ? -errno : 0;
    if (!error) {
        if (!address_is_unix(address))
            setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        error = listen_bind(fd, address);
    }
    if (!error && listen(fd, BACKLOG) < 0)
        error = -errno;
    if (!error) {
        /* Port 0 was replaced by a real one. */
        address->bytes = sizeof(address->storage);
        if (getsockname(fd, (struct sockaddr *)&address->storage, &address->bytes) == 0)
            return fd;
        error = -errno;
    }
    message_error("listen address '%s': cannot listen: %s%s", text, strerror(-error),
                  error == -EADDRINUSE ? " (is another memserver running there?)" : "");
    if (fd >= 0)
        close(fd);
    return error;
}

int listen_open_all(struct server *server)
{
    for (int i = 0; i < server->config.listen_count; i++) {
        struct source *listener = &server->listeners[i];
        int fd = listen_open(server->config.listen[i], &server->bound[i]);

        if (fd < 0)
            return fd;
        listener->kind = SOURCE_LISTENER;
        listener->fd = fd;
        server->listener_count++;
        int error = server_watch(server, listener, EPOLLIN);

        if (error)
            return error;
    }
    return 0;
}

void listen_close_all(struct server *server)
{
    for (int i = 0; i < server->listener_count; i++) {
        if (address_is_unix(&server->bound[i]))
            unlink(listen_path(&server->bound[i]));
        close(server->listeners[i].fd);
    }
    server->listener_count = 0;
}

static void listen_tune(int fd)
{
    const struct {
        int level, name, value;
    } options[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1},
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
        {IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_EACH_S},
        {IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES},
        {IPPROTO_TCP, TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS},
    };

    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        setsockopt(fd, options[i].level, options[i].name, &options[i].value,
                   sizeof(options[i].value));
}

/* A word of why, if it goes at once; nothing is kept for this connection. */
static void listen_refuse(int fd)
{
    union wire_message message;

    wire_message_init(&message, WIRE_ERROR);
    message.error.code = WIRE_ERROR_BUSY;
    snprintf(message.error.text, sizeof(message.error.text),
             "the memory server has too many connections");
    if (send(fd, &message, message.header.bytes, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        message_info("a connection over the limit did not hear why it was closed");
    close(fd);
}

/*
 * What we have none left of, descriptors or memory, comes back when somebody goes. Until the next
 * tick nobody is accepted: epoll would tell of who waits again and again, and the loop, and whoever
 * reads our messages, would do nothing else.
 */
static void listen_pause(struct server *server, int error)
{
    if (!server->accept_failed)
        message_warning("cannot accept a connection: %s", strerror(error));
    server->accept_failed = server->accept_paused = true;
    for (int i = 0; i < server->listener_count; i++)
        server_rewatch(server, &server->listeners[i], 0);
}

void listen_resume(struct server *server)
{
    for (int i = 0; server->accept_paused && i < server->listener_count; i++)
        server_rewatch(server, &server->listeners[i], EPOLLIN);
    server->accept_paused = false;
}

void listen_accept(struct server *server, const struct source *listener)
{
    struct address peer = {.bytes = sizeof(peer.storage)};
    int fd = accept4(listener->fd, (struct sockaddr *)&peer.storage, &peer.bytes,
                     SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0) {
        if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
            listen_pause(server, errno);
        return;
    }
    server->accept_failed = false;
    if (peer.storage.ss_family != AF_UNIX)
        listen_tune(fd);
    if (server->connections >= server->config.tenants_max + CONNECTIONS_SPARE ||
        !tenant_create(server, fd))
        listen_refuse(fd);
}
