/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An epoll-driven echo server: `echo_server PORT CONNECTIONS` serves TCP and UDP on PORT until so
 * many TCP connections have ended, says who they were as far as it matters, and ends.
 */
#include "guest.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define EVENTS 64

static int epoll_fd;

static void watch(int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    EXPECT(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0);
}

static int serve(int type, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in bound;
    socklen_t bytes = sizeof bound;
    int on = 1, fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    EXPECT(fd >= 0);
    EXPECT(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
    EXPECT(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    EXPECT(getsockname(fd, (struct sockaddr *)&bound, &bytes) == 0 && bytes == sizeof bound);
    EXPECT(bound.sin_family == AF_INET && bound.sin_port == address.sin_port);
    EXPECT(type == SOCK_DGRAM || listen(fd, 128) == 0);
    watch(fd);
    return fd;
}

static void accept_all(int listener)
{
    struct sockaddr_in peer, again;
    socklen_t bytes = sizeof peer;
    int on = 1, got = 0;

    for (int fd; (fd = accept4(listener, (struct sockaddr *)&peer, &bytes,
                               SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        EXPECT(bytes == sizeof peer && peer.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
        EXPECT(getpeername(fd, (struct sockaddr *)&again, &bytes) == 0);
        EXPECT(again.sin_port == peer.sin_port);
        EXPECT(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
        bytes = sizeof got;
        EXPECT(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &got, &bytes) == 0 && got);
        watch(fd);
        bytes = sizeof peer;
    }
    EXPECT(errno == EAGAIN);
}

/* Returns whether the connection ended. */
static int echo(int fd)
{
    char buffer[8192];
    ssize_t got = read(fd, buffer, sizeof buffer);

    if (got < 0 && errno == EAGAIN)
        return 0;
    if (got <= 0) {
        close(fd);
        return 1;
    }
    for (ssize_t sent = 0, n; sent < got; sent += n) {
        n = write(fd, buffer + sent, (size_t)(got - sent));
        EXPECT(n > 0 || errno == EAGAIN);
        if (n < 0)
            n = 0;
    }
    return 0;
}

static void echo_datagram(int fd)
{
    struct sockaddr_in peer;
    socklen_t bytes = sizeof peer;
    char buffer[2048];
    ssize_t got = recvfrom(fd, buffer, sizeof buffer, 0, (struct sockaddr *)&peer, &bytes);

    if (got < 0)
        return;
    EXPECT(bytes == sizeof peer && peer.sin_family == AF_INET);
    EXPECT(sendto(fd, buffer, (size_t)got, 0, (struct sockaddr *)&peer, bytes) == got);
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];
    int ended = 0;

    EXPECT(argc == 3);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int listener = serve(SOCK_STREAM, atoi(argv[1])), datagrams = serve(SOCK_DGRAM, atoi(argv[1]));
    printf("ready\n");
    fflush(stdout);
    while (ended < atoi(argv[2])) {
        int count = epoll_wait(epoll_fd, events, EVENTS, 20000);
        EXPECT(count > 0);
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener)
                accept_all(listener);
            else if (events[i].data.fd == datagrams)
                echo_datagram(datagrams);
            else
                ended += echo(events[i].data.fd);
        }
    }
    return guest_passed("echo_server");
}
