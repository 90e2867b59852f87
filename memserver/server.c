/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supervisor's loop: one thread, one epoll, no blocking call but the wait itself. Ends at
 * once on the second SIGINT, or when its parent ended if so told; on SIGTERM or SIGINT takes no new
 * tenants and ends when the last one has left or the grace time is over.
 */
#include "memserver/memserver.h"
#include "support.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define EVENTS_MAX 64
#define container(pointer, type, member)                                                           \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

int server_watch(struct server *server, struct source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};

    return epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0 ? -errno : 0;
}

void server_rewatch(struct server *server, struct source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};

    epoll_ctl(server->epoll_fd, EPOLL_CTL_MOD, source->fd, &event);
}

void server_unwatch(struct server *server, struct source *source)
{
    epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
}

void server_reap_memory(struct server *server, int memory_fd)
{
    if (write(server->reaper_fd, &memory_fd, sizeof(memory_fd)) != sizeof(memory_fd))
        close(memory_fd);
}

static void server_drain(struct server *server)
{
    char text[64];

    if (server->draining)
        return;
    server->draining = true;
    server->drain = patience_of(server->config.grace_ns, SERVER_SLICE_NS);
    snprintf(text, sizeof(text), "%.1f s", (double)server->config.grace_ns / 1e9);
    if (server->admitted)
        message_warning("draining: waiting up to %s for %u tenants to leave", text,
                        server->admitted);
}

static void server_signal(struct server *server)
{
    struct signalfd_siginfo info;

    while (read(server->signals.fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGCHLD) {
            /* A worker's death shows as its socket's end; here only the zombie goes. */
            while (waitpid(-1, NULL, WNOHANG) > 0)
                continue;
        } else if (info.ssi_signo == SIGINT && server->draining) {
            server->stopping = true;
        } else {
            server_drain(server);
        }
    }
}

static void server_event(struct server *server, struct source *source, uint32_t events)
{
    switch (source->kind) {
    case SOURCE_LISTENER:
        listen_accept(server, source);
        break;
    case SOURCE_SIGNAL:
        server_signal(server);
        break;
    case SOURCE_PARENT:
        server->stopping = true;
        break;
    case SOURCE_PEER:
        tenant_peer_event(container(source, struct tenant, peer), events);
        break;
    case SOURCE_WORKER:
        tenant_worker_event(container(source, struct tenant, worker));
        break;
    }
}

/* A tenant on this host maps its file whole: one that fills pages it did not reserve is ended. */
static void server_police(struct tenant *tenant)
{
    struct stat status;
    uint64_t allowed = tenant->slabs.table.held_slabs * WIRE_SLAB_BYTES;

    if (tenant->state == TENANT_READY && tenant->memory_fd >= 0 &&
        fstat(tenant->memory_fd, &status) == 0 && (uint64_t)status.st_blocks * 512 > allowed)
        tenant_end(tenant, WIRE_ERROR_PROTOCOL, "used memory that it had not reserved");
}

/* A worker loads its libraries for 0.2 s and more; meanwhile its tenant hears that we are alive. */
static void server_reassure(struct tenant *tenant)
{
    union wire_message ping;

    if (!tenant->starting)
        return;
    if (!tenant->admission.left_ns) {
        tenant_end(tenant, WIRE_ERROR_INTERNAL, "its worker process did not start in time");
        return;
    }
    wire_message_init(&ping, WIRE_PING);
    tenant_send(tenant, &ping);
}

/*
 * How long a peer has not been READY. Only time for which we were awake counts: stopped, or without
 * a processor, we looked at nothing that it or its worker said, and a machine that was paused
 * paused its worker too.
 */
static void server_wait_for(struct tenant *tenant)
{
    if (tenant->state != TENANT_GREETING && !tenant->starting)
        return;
    (void)patience_spend(&tenant->admission);
    if (tenant->state == TENANT_GREETING && !tenant->starting &&
        STARTING_LIMIT_NS - tenant->admission.left_ns > GREETING_LIMIT_NS)
        tenant->state = TENANT_LEAVING;
}

/* End of a turn: what cannot be done while events of the same batch may still point somewhere. */
static bool server_sweep(struct server *server, bool tick)
{
    struct tenant *tenant, *next;
    bool more = false;

    for (tenant = server->tenants; tenant; tenant = next) {
        next = tenant->next;
        if (tick) {
            server_wait_for(tenant);
            server_police(tenant);
            server_reassure(tenant);
        }
        if (tenant->more)
            tenant_peer_event(tenant, EPOLLIN);
        more |= tenant->more;
        if (tenant->state == TENANT_LEAVING)
            tenant_destroy(tenant);
    }
    if (server->draining && (server->admitted == 0 || patience_spend(&server->drain)))
        server->stopping = true;
    return more;
}

static void server_loop(struct server *server)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t ticked_ns = 0;
    bool more = false;

    while (!server->stopping) {
        int count = epoll_wait(server->epoll_fd, events, EVENTS_MAX, more ? 0 : SERVER_TICK_MS);
        uint64_t now;
        bool tick;

        for (int i = 0; i < count; i++)
            server_event(server, events[i].data.ptr, events[i].events);
        now = clock_now_ns(); /* after the events: nobody may have come later than now */
        tick = now - ticked_ns >= SERVER_TICK_MS * 1000000ULL;
        if (tick) {
            ticked_ns = now;
            listen_resume(server);
        }
        more = server_sweep(server, tick);
    }
}

static int server_signals_open(struct server *server)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    server->signals.kind = SOURCE_SIGNAL;
    server->signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (server->signals.fd < 0)
        return -errno;
    return server_watch(server, &server->signals, EPOLLIN);
}

static int server_parent_open(struct server *server)
{
    if (!server->config.exit_with_parent)
        return 0;
    server->parent.kind = SOURCE_PARENT;
    server->parent.fd = (int)syscall(SYS_pidfd_open, getppid(), 0);
    if (server->parent.fd < 0)
        return -errno;
    return server_watch(server, &server->parent, EPOLLIN);
}

/* Each tenant needs up to three descriptors. */
static void server_raise_limits(void)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static void server_size(struct server *server)
{
    struct server_config *config = &server->config;
    uint64_t available = slab_memory_available_bytes();
    uint64_t huge = slab_huge_available();
    char wanted[32], there[32];

    if (!config->capacity_bytes) {
        config->capacity_bytes =
            config->hugepages && huge ? huge * WIRE_SLAB_BYTES : available / 4 * 3;
        config->capacity_bytes -= config->capacity_bytes % WIRE_SLAB_BYTES;
    }
    format_bytes(config->capacity_bytes, wanted, sizeof(wanted));
    if (config->hugepages && huge * WIRE_SLAB_BYTES < config->capacity_bytes) {
        message_warning("huge pages: %s of them free, %s wanted: using normal pages (raise "
                        "vm.nr_hugepages)",
                        format_bytes(huge * WIRE_SLAB_BYTES, there, sizeof(there)), wanted);
        config->hugepages = false;
    }
    if (!config->hugepages && config->capacity_bytes > available)
        message_warning("capacity %s is more than the %s of memory available now", wanted,
                        format_bytes(available, there, sizeof(there)));
    if (!config->quota_bytes || config->quota_bytes > config->capacity_bytes)
        config->quota_bytes = config->capacity_bytes;
    server->pool.capacity_slabs = config->capacity_bytes / WIRE_SLAB_BYTES;
}

/* Tells who waits for us. A starter that is gone already (EPIPE) is an error. */
static int server_announce(struct server *server)
{
    char text[ADDRESS_TEXT_BYTES], line[ADDRESS_TEXT_BYTES + 1], size[32];

    for (int i = 0; i < server->listener_count; i++) {
        int bytes;

        address_format(&server->bound[i], text, sizeof(text));
        bytes = snprintf(line, sizeof(line), "%s\n", text);
        if (server->config.ready_fd >= 0 &&
            write(server->config.ready_fd, line, (size_t)bytes) != bytes) {
            message_error("--ready-fd %d: cannot write: %s", server->config.ready_fd,
                          strerror(errno));
            return -EPIPE;
        }
        message_warning("listening on %s, capacity %s", text,
                        format_bytes(server->config.capacity_bytes, size, sizeof(size)));
    }
    if (server->config.ready_fd > STDERR_FILENO)
        close(server->config.ready_fd);
    return 0;
}

static int server_open(struct server *server)
{
    int error;

    server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    error = server->epoll_fd < 0 ? -errno : server_signals_open(server);
    if (!error)
        error = server_parent_open(server);
    if (!error)
        error = reaper_start(&server->reaper_fd);
    if (error) {
        message_error("cannot start: %s", strerror(-error));
        return error;
    }
    server_size(server);
    error = listen_open_all(server);
    return error ? error : server_announce(server);
}

int server_run(const struct server_config *config)
{
    struct server *server = calloc(1, sizeof(*server));
    int error;

    if (!server) {
        message_error("cannot start: %s", strerror(ENOMEM));
        return -ENOMEM;
    }
    server->config = *config;
    server->started_ns = clock_now_ns();
    server_raise_limits();
    error = server_open(server);
    if (!error)
        server_loop(server);
    while (server->tenants) {
        if (server->tenants->admitted && server->tenants->state != TENANT_LEAVING)
            tenant_end(server->tenants, WIRE_ERROR_BUSY, "the memory server is shutting down");
        tenant_destroy(server->tenants);
    }
    listen_close_all(server);
    /* The kernel frees the rest; closing the epoll here would only race with the reaper. */
    free(server);
    return error;
}
