/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections of the verbs transport, by rdma_cm, which finds device, port and GID from the route
 * to the peer's address as the kernel has it, on RoCE v1 and v2, InfiniBand and iWARP alike. All
 * events of a node come through one channel; an event of another connection than the one being made
 * ends the node, since none ends in peace before we close it. The steps share one patience
 * (support.h): time for which we were stopped is not the peer's silence.
 */
#include "rdma/verbs.h"
#include "support.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define RESOLVE_MS_MAX 2000
/*
 * A packet that got no acknowledgement is sent again up to six times, 4.096 us * 2^n apart. Not
 * seven, though real devices count to it: soft-RoCE of Linux 6.1 and 6.12 takes it for "for ever".
 */
#define RETRY_COUNT        6
#define ACK_TIMEOUT_MAX    15 /* 0.13 s apart, 0.94 s in all: outlasts a switch's change of route */
#define ACK_TIMEOUT_MIN    10
#define ACK_TIMEOUT_UNIT   4096 /* ns */
#define READS_IN_FLIGHT    16   /* what common devices can do */
#define WORDS_MS           200
#define PORT_SPACE_REQUEST RDMA_PS_TCP

/* What of an event is still needed once it was acknowledged. */
struct verbs_event {
    enum rdma_cm_event_type type;
    int status;
    enum verbs_answer_code answer;
};

/* One event off the channel. 1, 0 (none there) or -errno. */
static int verbs_event_take(struct rdma_node *node, struct rdma_cm_id **id,
                            struct verbs_event *event)
{
    struct verbs_node *shared = node->private;
    struct rdma_cm_event *got;

    if (verbs.rdma_get_cm_event(shared->events, &got))
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    *id = got->id;
    event->type = got->event;
    event->status = got->status;
    event->answer =
        verbs_answer_parse(got->param.conn.private_data, got->param.conn.private_data_len);
    verbs.rdma_ack_cm_event(got);
    return 1;
}

/* The server's own words, on the control connection, are worth a moment. */
static void verbs_words_await(const struct rdma_node *node)
{
    struct pollfd lost = {.fd = node->event_fd, .events = POLLIN};

    poll(&lost, 1, WORDS_MS);
}

/* An event nobody waits for. */
static void verbs_event_unasked(struct rdma_node *node, const struct verbs_event *event)
{
    if (event->type == RDMA_CM_EVENT_DISCONNECTED)
        verbs_words_await(node);
    if (event->type == RDMA_CM_EVENT_DISCONNECTED)
        rdma_node_fail(node, -ECONNRESET, "data connection closed by the server (did it end?)");
    else if (event->type == RDMA_CM_EVENT_DEVICE_REMOVAL)
        rdma_node_fail(node, -ECONNRESET, "this host's RDMA device was removed");
}

void verbs_events_look(struct rdma_node *node)
{
    struct verbs_event event = {0};
    struct rdma_cm_id *id = NULL;

    while (verbs_event_take(node, &id, &event) > 0)
        verbs_event_unasked(node, &event);
}

/* Waits for the next event of this id. 0, -ETIMEDOUT or -errno. What has come is taken before the
 * patience is looked at: it may have come while we were stopped. */
static int verbs_event_next(struct rdma_node *node, const struct rdma_cm_id *wanted,
                            struct patience *patience, struct verbs_event *event)
{
    struct verbs_node *shared = node->private;
    int slice_ms = (int)(patience->slice_ns / 1000000);

    for (;;) {
        struct pollfd waited[2] = {{.fd = shared->events->fd, .events = POLLIN},
                                   {.fd = node->event_fd, .events = POLLIN}};
        struct rdma_cm_id *id = NULL;
        int got = verbs_event_take(node, &id, event);

        if (got < 0)
            return got;
        if (got > 0 && id == wanted)
            return 0;
        if (got > 0) {
            verbs_event_unasked(node, event);
            continue;
        }
        if (rdma_node_error(node))
            return rdma_node_error(node);
        if (patience_spend(patience))
            return -ETIMEDOUT;
        poll(waited, 2, slice_ms > 0 ? slice_ms : 1);
    }
}

/* An event that is not the one the step leads to: why. */
static int verbs_event_error(const struct verbs_event *event, const char **why)
{
    if (event->type == RDMA_CM_EVENT_REJECTED && event->answer != VERBS_ACCEPTED &&
        event->answer != VERBS_REFUSED_FORM) {
        *why = verbs_answer_text(event->answer);
        return -EACCES;
    }
    if (event->type == RDMA_CM_EVENT_REJECTED)
        return -ECONNREFUSED;
    if (event->type == RDMA_CM_EVENT_UNREACHABLE)
        return event->status < 0 ? event->status : -EHOSTUNREACH;
    return event->status < 0 ? event->status : -ECONNRESET;
}

static int verbs_step(struct rdma_node *node, const struct verbs_link *link, int started,
                      enum rdma_cm_event_type wanted, struct patience *patience, const char **why)
{
    struct verbs_event event = {0};
    int error = started ? -errno : verbs_event_next(node, link->id, patience, &event);

    if (error)
        return error;
    return event.type == wanted ? 0 : verbs_event_error(&event, why);
}

/* The worker listens on the address that we reached the server at; only its port is told. */
static struct sockaddr *verbs_peer(const struct rdma_node *node, struct sockaddr_storage *out)
{
    *out = node->address.storage;
    /* Same place in sockaddr_in6. */
    ((struct sockaddr_in *)out)->sin_port = htons(node->ready.fabric_port);
    return (struct sockaddr *)out;
}

/* The connection manager was told a source address; did it take what the user meant by it? */
static int verbs_selected(struct rdma_node *node, const struct rdma_cm_id *id, const char **why)
{
    const struct verbs_path path = {.device = verbs.ibv_get_device_name(id->verbs->device),
                                    .port = id->port_num,
                                    .gid = id->route.addr.addr.ibaddr.sgid.raw};
    struct verbs_node *shared = node->private;

    *why = shared->why;
    return verbs_selection_matches(&node->selection, &path, shared->why);
}

/* The address to come from; *out stays NULL where the route shall decide. */
static int verbs_source(struct rdma_node *node, struct sockaddr_storage *source,
                        struct sockaddr **out, const char **why)
{
    struct verbs_node *shared = node->private;
    int error = verbs_selection_source(&node->selection, node->address.storage.ss_family, source,
                                       shared->why);

    *why = shared->why;
    *out = error == 0 ? (struct sockaddr *)source : NULL;
    return error < 0 ? error : 0;
}

static int verbs_resolve(struct rdma_node *node, struct verbs_link *link, struct patience *patience,
                         const char **why)
{
    struct verbs_node *shared = node->private;
    uint64_t patience_ms = node->timeout_ns / 1000000;
    int timeout_ms = patience_ms < RESOLVE_MS_MAX ? (int)patience_ms : RESOLVE_MS_MAX;
    struct sockaddr_storage peer, source;
    struct sockaddr *from;
    int error;

    error = verbs_source(node, &source, &from, why);
    if (error)
        return error;
    *why = "address";
    if (verbs.rdma_create_id(shared->events, &link->id, NULL, PORT_SPACE_REQUEST))
        return -errno;
    error = verbs_step(node, link,
                       verbs.rdma_resolve_addr(link->id, from, verbs_peer(node, &peer), timeout_ms),
                       RDMA_CM_EVENT_ADDR_RESOLVED, patience, why);
    if (!error && !link->id->verbs)
        error = -ENODEV;
    if (error)
        return error;
    *why = "route";
    error = verbs_step(node, link, verbs.rdma_resolve_route(link->id, timeout_ms),
                       RDMA_CM_EVENT_ROUTE_RESOLVED, patience, why);
    if (error)
        return error;
    return verbs_selected(node, link->id, why);
}

/* The first connection decides; others must go the same way, for buffers are registered there. */
static int verbs_device_use(struct verbs_node *shared, struct ibv_context *device)
{
    struct ibv_device_attr attribute;
    int error;

    if (shared->pd)
        return shared->pd->context == device ? 0 : -EXDEV;
    error = verbs.ibv_query_device(device, &attribute);
    if (error)
        return -error;
    shared->depth_max = (uint32_t)attribute.max_qp_wr;
    if ((uint32_t)attribute.max_cqe < shared->depth_max)
        shared->depth_max = (uint32_t)attribute.max_cqe;
    shared->reads_max = attribute.max_qp_init_rd_atom < READS_IN_FLIGHT
                            ? (uint8_t)attribute.max_qp_init_rd_atom
                            : READS_IN_FLIGHT;
    shared->pd = verbs.ibv_alloc_pd(device);
    return shared->pd ? 0 : -errno;
}

static int verbs_pair_create(struct verbs_node *shared, struct verbs_link *link, uint32_t depth)
{
    struct ibv_qp_init_attr attribute = {
        .qp_type = IBV_QPT_RC,
        .cap = {.max_send_wr = depth, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
    };

    link->completions = verbs.ibv_create_comp_channel(link->id->verbs);
    if (!link->completions)
        return -errno;
    link->cq = verbs.ibv_create_cq(link->id->verbs, (int)depth + 1, NULL, link->completions, 0);
    if (!link->cq)
        return -errno;
    attribute.send_cq = attribute.recv_cq = link->cq;
    return verbs.rdma_create_qp(link->id, shared->pd, &attribute) ? -errno : 0;
}

/* Longest time between two tries with which all of them end within a quarter of the timeout. */
static uint8_t verbs_ack_timeout(const struct rdma_node *node)
{
    uint8_t timeout = ACK_TIMEOUT_MAX;

    while (timeout > ACK_TIMEOUT_MIN &&
           ((uint64_t)ACK_TIMEOUT_UNIT << timeout) * (RETRY_COUNT + 1) > node->timeout_ns / 4)
        timeout--;
    return timeout;
}

static int verbs_establish(struct rdma_node *node, struct verbs_link *link, uint16_t kind,
                           uint32_t depth, struct patience *patience, const char **why)
{
    const struct verbs_node *shared = node->private;
    uint8_t ack_timeout = verbs_ack_timeout(node);
    struct verbs_request request;
    struct rdma_conn_param parameters = {
        .private_data = &request,
        .private_data_len = sizeof(request),
        .initiator_depth = shared->reads_max,
        .retry_count = RETRY_COUNT,
        /* Nothing is ever sent to a receive queue, so nobody is "not ready"; finite all the same.
         */
        .rnr_retry_count = RETRY_COUNT,
    };

    *why = "connect";
    verbs_request_init(&request, kind, depth, node->ready.token);
    /* Kernels before 5.1 do not know it and take their own, about a second. */
    (void)verbs.rdma_set_option(link->id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &ack_timeout,
                                sizeof(ack_timeout));
    return verbs_step(node, link, verbs.rdma_connect(link->id, &parameters),
                      RDMA_CM_EVENT_ESTABLISHED, patience, why);
}

int verbs_connect(struct rdma_node *node, struct verbs_link *link, uint16_t kind, uint32_t depth,
                  const char **why)
{
    struct patience patience = rdma_patience(node);
    struct verbs_node *shared = node->private;
    int error = verbs_resolve(node, link, &patience, why);

    if (error)
        return error;
    *why = "device";
    error = verbs_device_use(shared, link->id->verbs);
    if (error)
        return error;
    *why = "queue pair";
    if (depth > shared->depth_max)
        depth = shared->depth_max;
    error = verbs_pair_create(shared, link, depth);
    return error ? error : verbs_establish(node, link, kind, depth, &patience, why);
}

/* Destroying the identifier also tells the peer. */
void verbs_disconnect(struct verbs_link *link)
{
    if (link->id && link->id->qp)
        verbs.rdma_destroy_qp(link->id);
    if (link->id)
        verbs.rdma_destroy_id(link->id);
    if (link->cq)
        verbs.ibv_destroy_cq(link->cq);
    if (link->completions)
        verbs.ibv_destroy_comp_channel(link->completions);
    *link = (struct verbs_link){0};
}

int verbs_reaches(struct rdma_node *node)
{
    struct verbs_link link = {0};
    struct patience patience = rdma_patience(node);
    const char *why;
    int error = verbs_resolve(node, &link, &patience, &why);

    verbs_disconnect(&link);
    return error;
}
