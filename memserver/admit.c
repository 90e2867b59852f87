/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Admission: a HELLO becomes a tenant with a memory file, and for network transports a worker, or
 * gets an ERROR that says why not. New memory files are zero because the kernel made them: nothing
 * is reused between tenants.
 */
#include "memserver/memserver.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

/* True if the tenant may come; else it was told why not. */
static bool admit_allowed(struct tenant *tenant, const struct wire_hello *hello)
{
    const struct server *server = tenant->server;
    char wanted[32], most[32];

    if (server->draining) {
        tenant_end(tenant, WIRE_ERROR_BUSY, "the memory server is shutting down");
    } else if (server->admitted >= server->config.tenants_max) {
        tenant_end(tenant, WIRE_ERROR_BUSY, "the memory server has %u tenants and takes no more",
                   server->admitted);
    } else if (hello->quota_bytes > server->config.quota_bytes) {
        tenant_end(tenant, WIRE_ERROR_FULL, "asked for up to %s, but a tenant may have at most %s",
                   format_bytes(hello->quota_bytes, wanted, sizeof(wanted)),
                   format_bytes(server->config.quota_bytes, most, sizeof(most)));
    } else {
        return true;
    }
    return false;
}

static int admit_create_memory(struct tenant *tenant)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;

    if (tenant->server->config.hugepages)
        flags |= MFD_HUGETLB | MFD_HUGE_2MB;
    tenant->memory_fd = memfd_create("farvisor-tenant", flags);
    if (tenant->memory_fd < 0)
        return -errno;
    if (ftruncate(tenant->memory_fd, (off_t)tenant->hello.quota_bytes) < 0 ||
        fcntl(tenant->memory_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return -errno;
    return 0;
}

/* The address the client reached, so that the worker is reachable the same way and no other. */
static int admit_local_address(const struct tenant *tenant, struct address *address)
{
    const struct sockaddr_in local = {.sin_family = AF_INET,
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    memset(address, 0, sizeof(*address));
    address->bytes = sizeof(address->storage);
    if (getsockname(tenant->channel.fd, (struct sockaddr *)&address->storage, &address->bytes) < 0)
        return -errno;
    if (address_is_unix(address)) {
        memset(address, 0, sizeof(*address));
        memcpy(&address->storage, &local, sizeof(local));
        address->bytes = sizeof(local);
    }
    /* Port 0: the kernel chooses. Same place in both families. */
    ((struct sockaddr_in *)&address->storage)->sin_port = 0;
    return 0;
}

static int admit_start_worker(struct tenant *tenant)
{
    struct worker_message start = {.type = WORKER_START};
    int error = admit_local_address(tenant, &start.bind);

    if (!error)
        error = worker_spawn(&tenant->worker_pid, &tenant->worker.fd, tenant->memory_fd);
    if (!error)
        error = server_watch(tenant->server, &tenant->worker, EPOLLIN);
    if (error)
        return error;
    start.transport = tenant->hello.transport;
    start.rdma = tenant->server->config.rdma;
    start.map_bytes = tenant->hello.quota_bytes;
    start.span_pages = tenant->hello.span_pages;
    start.parent = (uint64_t)getpid();
    memcpy(start.token, tenant->token, sizeof(start.token));
    tenant->starting = true;
    tenant_ask_worker(tenant, &start);
    return 0;
}

void tenant_ready(struct tenant *tenant, uint16_t port)
{
    union wire_message ready;
    bool loopback = tenant->hello.transport == WIRE_LOOPBACK;

    wire_message_init(&ready, WIRE_READY);
    ready.ready.tenant = tenant->number;
    ready.ready.quota_bytes = tenant->hello.quota_bytes;
    ready.ready.map_bytes = loopback ? tenant->hello.quota_bytes : 0;
    ready.ready.transport = tenant->hello.transport;
    ready.ready.fabric_port = port;
    memcpy(ready.ready.token, tenant->token, sizeof(tenant->token));
    tenant->state = TENANT_READY;
    tenant->starting = false;
    if (!loopback)
        tenant_send(tenant, &ready);
    else if (channel_send_fd(&tenant->channel, &ready, tenant->memory_fd) < 0)
        tenant->state = TENANT_LEAVING;
}

void tenant_worker_started(struct tenant *tenant, const struct worker_message *answer)
{
    if (tenant->hello.transport == WIRE_VERBS && answer->status < 0)
        tenant_end(tenant, WIRE_ERROR_UNSUPPORTED,
                   "the memory server cannot use RDMA on that address: %s",
                   answer->status == -EXDEV ? "its --rdma names another device, port or GID"
                                            : strerror(-answer->status));
    else if (answer->status < 0 || answer->port == 0)
        tenant_end(tenant, WIRE_ERROR_INTERNAL, "its worker process cannot use the network: %s",
                   strerror(-answer->status));
    else
        tenant_ready(tenant, answer->port);
}

void tenant_hello(struct tenant *tenant, const struct wire_hello *hello)
{
    struct server *server = tenant->server;
    struct address local = {.bytes = sizeof(local.storage)};
    char label[128], quota[32];
    int error;

    if (!admit_allowed(tenant, hello))
        return;
    getsockname(tenant->channel.fd, (struct sockaddr *)&local.storage, &local.bytes);
    if (hello->transport == WIRE_LOOPBACK && !address_is_unix(&local)) {
        tenant_end(tenant, WIRE_ERROR_UNSUPPORTED, "shared memory needs a unix socket");
        return;
    }
    tenant->hello = *hello;
    tenant->number = ++server->next_number;
    slab_map_init(&tenant->slabs, hello->quota_bytes / WIRE_SLAB_BYTES);
    error = getrandom(tenant->token, sizeof(tenant->token), 0) < 0 ? -errno : 0;
    if (!error)
        error = admit_create_memory(tenant);
    if (!error) {
        tenant->admitted = true;
        server->admitted++;
        server->served++;
        message_info("%s: came, may hold %s", tenant_label(tenant, label, sizeof(label)),
                     format_bytes(hello->quota_bytes, quota, sizeof(quota)));
        if (hello->transport == WIRE_LOOPBACK)
            tenant_ready(tenant, 0);
        else
            error = admit_start_worker(tenant);
    }
    if (error)
        tenant_end(tenant, WIRE_ERROR_INTERNAL, "the memory server cannot take a tenant: %s",
                   strerror(-error));
}
