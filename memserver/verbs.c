/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker process on RDMA: a protection domain of this tenant alone, its queue pairs, and its
 * slabs as memory regions. The device serves reads and writes by itself; this process sleeps but
 * for connections and the supervisor's requests. Regions are in this tenant's protection domain, so
 * no other tenant's queue pair can use their keys, known or guessed; that their addresses are
 * random besides keeps a tenant from stale ones of its own. A slab's region dies with the slab, and
 * everything with the process: from then on the device refuses.
 */
#include "memserver/memserver.h"
#include "rdma/verbs_library.h"
#include "rdma/verbs_wire.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>

#define SLEEP_MS        1000
#define LINKS_MAX       1280 /* queues of one tenant: a few a vCPU */
#define READS_IN_FLIGHT 16   /* of one queue pair: what common devices can do */
#define LISTEN_BACKLOG  64
#define ADDRESS_TRIES   8
#define ADDRESS_BITS    46 /* devices map addresses as user space has them */

static struct {
    struct rdma_event_channel *events;
    struct rdma_cm_id *listener;
    struct ibv_pd *pd;
    struct ibv_cq *cq; /* queue pairs must have one; nothing is ever in it */
    struct rdma_cm_id *links[LINKS_MAX];
    int link_count;
    uint8_t reads_max;
    uint8_t *base;
    struct ibv_mr **regions; /* one a slab of the map, NULL where not granted */
    uint8_t token[WIRE_TOKEN_BYTES];
} worker;

/* Registered memory is locked memory: as much of it as we may. */
static void memlock_raise(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_MEMLOCK, &limit);
    }
}

/* Is the address that the tenant came to that of the device, port and GID of --rdma? */
static int worker_selected(const struct verbs_selection *selection)
{
    const struct rdma_cm_id *id = worker.listener;
    const struct verbs_path path = {.device = verbs.ibv_get_device_name(id->verbs->device),
                                    .port = id->port_num,
                                    .gid = id->route.addr.addr.ibaddr.sgid.raw};
    char why[VERBS_WHY_BYTES]; /* the tenant gets the supervisor's words for it */

    return verbs_selection_matches(selection, &path, why);
}

static int worker_listen(struct worker_message *start)
{
    struct ibv_device_attr attribute;
    int error = verbs_event_channel_open(&worker.events);

    if (error)
        return error;
    if (verbs.rdma_create_id(worker.events, &worker.listener, NULL, RDMA_PS_TCP) ||
        verbs.rdma_bind_addr(worker.listener, (struct sockaddr *)&start->bind.storage))
        return -errno;
    /* The address belongs to no RDMA device. */
    if (!worker.listener->verbs)
        return -ENODEV;
    error = worker_selected(&start->rdma);
    if (error)
        return error;
    if (verbs.rdma_listen(worker.listener, LISTEN_BACKLOG))
        return -errno;
    error = verbs.ibv_query_device(worker.listener->verbs, &attribute);
    if (error)
        return -error;
    worker.reads_max = attribute.max_qp_rd_atom < READS_IN_FLIGHT
                           ? (uint8_t)attribute.max_qp_rd_atom
                           : READS_IN_FLIGHT;
    worker.pd = verbs.ibv_alloc_pd(worker.listener->verbs);
    if (!worker.pd)
        return -errno;
    worker.cq = verbs.ibv_create_cq(worker.listener->verbs, 1, NULL, NULL, 0);
    if (!worker.cq)
        return -errno;
    start->port = ntohs(verbs.rdma_get_src_port(worker.listener));
    return 0;
}

static int verbs_worker_open(struct worker_message *start, uint8_t *base)
{
    int error;

    if (!verbs_device_exists())
        return -ENODEV;
    error = verbs_library_load();
    if (error)
        return error;
    memlock_raise();
    memcpy(worker.token, start->token, sizeof(worker.token));
    worker.base = base;
    worker.regions = calloc(start->map_bytes / WIRE_SLAB_BYTES, sizeof(struct ibv_mr *));
    return worker.regions ? worker_listen(start) : -ENOMEM;
}

static void link_refuse(struct rdma_cm_id *id, enum verbs_answer_code code)
{
    struct verbs_answer answer;

    verbs_answer_init(&answer, code);
    verbs.rdma_reject(id, &answer, sizeof(answer));
    verbs.rdma_destroy_id(id);
}

/* The queue pair receives nothing and sends nothing; it answers reads and writes. */
static int link_accept(struct rdma_cm_id *id, const struct rdma_conn_param *asked)
{
    struct ibv_qp_init_attr attribute = {
        .qp_type = IBV_QPT_RC,
        .send_cq = worker.cq,
        .recv_cq = worker.cq,
        .cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
    };
    struct verbs_answer answer;
    struct rdma_conn_param parameters = {
        .private_data = &answer,
        .private_data_len = sizeof(answer),
        .responder_resources = asked->responder_resources < worker.reads_max
                                   ? asked->responder_resources
                                   : worker.reads_max,
        .rnr_retry_count = 6,
    };

    if (verbs.rdma_create_qp(id, worker.pd, &attribute))
        return -errno;
    verbs_answer_init(&answer, VERBS_ACCEPTED);
    if (verbs.rdma_accept(id, &parameters)) {
        int error = -errno;

        verbs.rdma_destroy_qp(id);
        return error;
    }
    return 0;
}

static void link_request(struct rdma_cm_id *id, const struct rdma_conn_param *asked)
{
    struct verbs_request request;
    enum verbs_answer_code code =
        verbs_request_parse(asked->private_data, asked->private_data_len, &request);

    if (code == VERBS_ACCEPTED && !worker_token_matches(worker.token, request.token))
        code = VERBS_REFUSED_TOKEN;
    if (code == VERBS_ACCEPTED && (worker.link_count == LINKS_MAX ||
                                   id->verbs != worker.pd->context || link_accept(id, asked) < 0))
        code = VERBS_REFUSED_FULL;
    if (code == VERBS_ACCEPTED)
        worker.links[worker.link_count++] = id;
    else
        link_refuse(id, code);
}

static void link_drop(struct rdma_cm_id *id)
{
    for (int i = 0; i < worker.link_count; i++) {
        if (worker.links[i] != id)
            continue;
        worker.links[i] = worker.links[--worker.link_count];
        verbs.rdma_destroy_qp(id);
        verbs.rdma_destroy_id(id);
        return;
    }
}

/* 1 took an event, 0 none there, -errno. */
static int link_event(void)
{
    struct rdma_cm_event *event;
    enum rdma_cm_event_type type;
    struct rdma_cm_id *id;

    if (verbs.rdma_get_cm_event(worker.events, &event))
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    type = event->event;
    id = event->id;
    /* Its private data lives until the acknowledgement, which destroying the identifier awaits. */
    if (type == RDMA_CM_EVENT_CONNECT_REQUEST) {
        struct rdma_conn_param asked = event->param.conn;
        uint8_t data[VERBS_WIRE_MAX_BYTES] = {0};

        if (asked.private_data_len > sizeof(data))
            asked.private_data_len = sizeof(data);
        if (asked.private_data)
            memcpy(data, asked.private_data, asked.private_data_len);
        else
            asked.private_data_len = 0;
        asked.private_data = data;
        verbs.rdma_ack_cm_event(event);
        link_request(id, &asked);
        return 1;
    }
    verbs.rdma_ack_cm_event(event);
    if (type == RDMA_CM_EVENT_DEVICE_REMOVAL)
        return -ENODEV;
    if (type == RDMA_CM_EVENT_DISCONNECTED || type == RDMA_CM_EVENT_CONNECT_ERROR ||
        type == RDMA_CM_EVENT_UNREACHABLE || type == RDMA_CM_EVENT_REJECTED)
        link_drop(id);
    return 1;
}

static int verbs_worker_turn(bool *asked)
{
    struct pollfd descriptors[] = {{.fd = WORKER_CONTROL_FD, .events = POLLIN},
                                   {.fd = worker.events->fd, .events = POLLIN}};
    int got = 0;

    if (poll(descriptors, 2, SLEEP_MS) < 0 && errno != EINTR)
        return -errno;
    if (descriptors[1].revents) {
        do {
            got = link_event();
        } while (got > 0);
    }
    *asked = descriptors[0].revents != 0;
    return got;
}

static int verbs_worker_map(struct wire_slab *slab)
{
    struct ibv_mr **region = &worker.regions[slab->remote / WIRE_SLAB_BYTES];
    uint8_t *memory = worker.base + slab->remote;

    if (*region)
        return -EINVAL;
    for (int i = 0; i < ADDRESS_TRIES && !*region; i++) {
        uint64_t address;

        if (getrandom(&address, sizeof(address), 0) != (ssize_t)sizeof(address))
            return -EIO;
        address = address >> (64 - ADDRESS_BITS) & ~(WIRE_SLAB_BYTES - 1ULL);
        *region = verbs.ibv_reg_mr_iova2(worker.pd, memory, WIRE_SLAB_BYTES, address,
                                         IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ |
                                             IBV_ACCESS_REMOTE_WRITE);
        slab->remote = address;
    }
    if (!*region)
        return -errno;
    slab->key = (*region)->rkey;
    return 0;
}

static int verbs_worker_unmap(uint64_t offset)
{
    struct ibv_mr **region = &worker.regions[offset / WIRE_SLAB_BYTES];
    int error;

    if (!*region)
        return -EINVAL;
    error = verbs.ibv_dereg_mr(*region);
    *region = NULL;
    return -error;
}

const struct worker_transport worker_verbs = {
    .open = verbs_worker_open,
    .map = verbs_worker_map,
    .unmap = verbs_worker_unmap,
    .turn = verbs_worker_turn,
};
