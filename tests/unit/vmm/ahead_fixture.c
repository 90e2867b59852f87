/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/vmm/ahead_fixture.h"
#include "tests/unit/unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct fv_ahead area, other_area;
struct fv_sends sends_area, other_sends;
struct fv_vcpu page, other_page;
struct vcpu reader, other;
int set;
int served[PEERS];
int clients[PEERS];

struct io_aheads *aheads(void)
{
    return &io->aheads;
}

int connection(int *client)
{
    return connection_to(client, 0);
}

int connection_to(int *client, int receive_bytes)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct io_file *from;

    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, bytes), 0);
    ck_assert_int_eq(listen(listener, 1), 0);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&address, &bytes), 0);
    *client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (receive_bytes)
        ck_assert_int_eq(setsockopt(*client, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(int)),
                         0);
    ck_assert_int_eq(connect(*client, (struct sockaddr *)&address, bytes), 0);
    ck_assert_int_eq(setsockopt(*client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
    from = io_file_create(listener, NULL);
    int fd = io_install_socket(io, accept4(from->fd, NULL, NULL, SOCK_CLOEXEC), from, false);
    io_file_put(from);
    return fd;
}

void watch_in(int which, int fd)
{
    struct io_file *in = io_fds_look(&io->fds, which), *file = io_fds_get(&io->fds, fd);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 1000u + (unsigned)fd};

    ck_assert_int_eq(epoll_ctl(in->fd, EPOLL_CTL_ADD, file->fd, &event), 0);
    io_ahead_watch(aheads(), in, file, fd, EPOLL_CTL_ADD, &event);
    io_file_put(in);
    io_file_put(file);
}

void ahead_setup(void)
{
    hostio_setup();
    reader = (struct vcpu){.vm = &vm, .index = 0};
    other = (struct vcpu){.vm = &vm, .index = 1};
    ck_assert_int_eq(io_ahead_open(aheads(), 0, &area, &sends_area, &page), 0);
    ck_assert_int_eq(io_ahead_open(aheads(), 1, &other_area, &other_sends, &other_page), 0);
    set = io_install(io, epoll_create1(EPOLL_CLOEXEC), NULL, false);
    for (unsigned i = 0; i < PEERS; i++) {
        served[i] = connection(&clients[i]);
        watch_in(set, served[i]);
    }
}

void ahead_teardown(void)
{
    hostio_teardown();
    for (unsigned i = 0; i < PEERS; i++)
        close(clients[i]);
}

void say(unsigned peer, const char *what)
{
    struct pollfd ready = {.events = POLLIN};

    ck_assert_int_eq(send(clients[peer], what, strlen(what), MSG_NOSIGNAL), (ssize_t)strlen(what));
    struct io_file *file = io_fds_look(&io->fds, served[peer]);
    ready.fd = file->fd;
    ck_assert_int_eq(poll(&ready, 1, 5000), 1);
    io_file_put(file);
}

int wait_as(struct vcpu *vcpu, int which)
{
    struct io_file *file = io_fds_get(&io->fds, which);
    struct epoll_event events[16];
    int told = epoll_wait(file->fd, events, 16, 0);

    if (told > 0)
        io_ahead_grant(aheads(), vcpu, file, events, (unsigned)told);
    io_file_put(file);
    return told;
}
